local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local n, d = hd.input("n", { 2 }, "i32"), hd.input("d", { 2, 8 }, "i32")
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), lengths = n, documents = d })   -- expect: hd.attention: give lengths or documents, not both
