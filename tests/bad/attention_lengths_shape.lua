local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), lengths = hd.input("n", { 8 }, "i32") })   -- expect: hd.attention: lengths "n" [8] must be [2]: one for each sequence
