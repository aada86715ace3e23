local function f(n) return 1 + f(n) end   -- expect: stack overflow
f(1)
