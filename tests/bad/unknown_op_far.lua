local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local y = hd.convolve(x)   -- expect: hd.convolve does not exist; there are: abs, add, alibi_slopes, attention
