local hd = require "heddle"
local x = hd.input("x", { 1, 8, 4 })
local p = hd.pattern.documents { 3, 4 }   -- expect: the documents hold 7 positions, the length is 8; their lengths must add up to it
local y = hd.attention(x, x, x, { heads = 1, pattern = p })
