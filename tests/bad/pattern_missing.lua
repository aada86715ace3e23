local hd = require "heddle"
local q = hd.input("q", { 1, 8, 16 })
local o = hd.attention(q, q, q, { heads = 2 })   -- expect: hd.attention: pattern must be a pattern such as hd.pattern.causal()
