local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), edge_bias = hd.param("w", { 8, 8 }) })   -- expect: attention: edge_bias is [8, 8]; it must be [36] (pairs that the pattern keeps), or [4, 36] (heads, pairs that the pattern keeps)
