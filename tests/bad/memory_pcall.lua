local t = {}
local function grow() for i = #t + 1, 1 << 40 do t[i] = { i } end end   -- expect: the spec needs more than 64 MiB of memory
while true do pcall(grow) end
