local t = {}
for i = 1, 1000 do t[i] = ("x"):rep(1 << 16) end
local s = table.concat(t, ("y"):rep(1 << 16))   -- expect: the spec needs more than 64 MiB of memory
