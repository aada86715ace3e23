local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), lengths = 5 })   -- expect: hd.attention: lengths must be a tensor, got 5
