local hd = require "heddle"
local x = hd.input("x", { 1, 8, 4 })
local p = hd.pattern.causal() & hd.pattern.keys { 2, 9 }   -- expect: key 9 does not exist: there are 8 keys, 0 to 7
local y = hd.attention(x, x, x, { heads = 1, pattern = p })
