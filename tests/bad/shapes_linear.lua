local hd = require "heddle"
local x, w = hd.input("x", { 4, 8 }), hd.param("w", { 8, 16 })
local y = hd.linear(x, w)   -- expect: x "x" [4, 8] does not match w "w" [8, 16]; w must be [out, in] with in = 8
