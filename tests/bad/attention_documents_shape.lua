local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), documents = hd.input("d", { 8 }, "i32") })   -- expect: hd.attention: documents "d" [8] must be [2, 8]: an id for each position of each sequence
