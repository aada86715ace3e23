local function f() pcall(f) return f() end   -- expect: the spec ran longer than 1 s
f()
