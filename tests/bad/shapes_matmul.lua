local hd = require "heddle"
local a, b = hd.input("a", { 4, 8 }), hd.input("b", { 9, 5 })
local y = hd.matmul(a, b)   -- expect: a [4, 8] and b [9, 5] do not match
