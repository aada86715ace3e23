local hd = require "heddle"
local x = hd.input("x", { 1, 1, 1, 1, 1, 1, 2 })   -- expect: a tensor has at most 6 axes, not 7
