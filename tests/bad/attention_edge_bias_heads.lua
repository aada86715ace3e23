local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = { P.causal(), P.full(), P.causal(), P.full() }, edge_bias = hd.param("w", { 36 }) })   -- expect: attention: edge_bias counts the pairs of one pattern; the heads have 4
