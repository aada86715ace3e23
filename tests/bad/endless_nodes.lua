local hd = require "heddle"
local x = hd.input("x", { 4 })
while true do x = x + 1 end   -- expect: the spec's graph needs more than 64 MiB
