local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), bias = hd.param("table", { 4, 16 }), t5 = { } })   -- expect: attention: bias is [4, 16]; it must be [4, 32] (heads, buckets of distances)
