local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local y = hd.sum(x, 3)   -- expect: hd.sum: axis 3 does not exist; axes are 1 to 2, or -1 (the last) to -2
