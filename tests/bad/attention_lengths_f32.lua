local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), lengths = hd.input("n", { 2 }) })   -- expect: key_bounds: lengths [2] must be i32, not f32
