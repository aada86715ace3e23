local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), multiplicity = 3 })   -- expect: hd.attention: multiplicity, a list of numbers or a tensor must be a tensor, got 3
