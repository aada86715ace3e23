local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local a, b, c = hd.split(x, 3)   -- expect: split: axis 2 of x "x" [4, 8] does not divide into 3 equal parts
