local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), bias = hd.param("table", { 4, 32 }) })   -- expect: hd.attention: bias needs either max_distance, or t5 = { buckets = 32, max_distance = 128, bidirectional = true }
