local hd = require "heddle"
local q = hd.input("q", { 1, 8, 16 })
local o = hd.attention(q, q, q, { pattern = hd.pattern.causal() })   -- expect: hd.attention: heads must be a whole number of 1 or more, got nothing
