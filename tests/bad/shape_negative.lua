local hd = require "heddle"
local x = hd.input("x", { 4, -8 })   -- expect: hd.input "x": size 2 of the shape must be a whole number of 1 or more, got -8
