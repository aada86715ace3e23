local hd = require "heddle"
local a, b = hd.input("a", { 4, 8 }), hd.input("b", { 4, 9 })
local y = a + b   -- expect: add: a [4, 8] and b [4, 9] do not match
