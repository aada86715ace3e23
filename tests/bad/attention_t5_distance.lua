local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), bias = hd.param("table", { 4, 32 }), t5 = { max_distance = 8 } })   -- expect: hd.relative_buckets: t5's max_distance must be more than the 8 distances with a bucket of their own, and at most 65536, got 8
