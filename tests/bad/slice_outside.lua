local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local y = hd.slice(x, 2, 5, 9)   -- expect: slice: elements 5 to 9 of axis 2 of x "x" [4, 8]; the axis has elements 1 to 8
