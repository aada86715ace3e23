local hd = require "heddle"
local q = hd.input("q", { 8, 4 })
local p = hd.pattern.edges { nodes = 9, list = { { 0, 1 } } }   -- expect: 9
local o = hd.attention(q, q, q, { heads = 1, pattern = p, edge_bias = hd.param("w", { 1 }) })
