local hd = require "heddle"
local x = hd.input("x", { 1 << 31, 1 << 31 })   -- expect: a tensor of that shape has too many elements to address
