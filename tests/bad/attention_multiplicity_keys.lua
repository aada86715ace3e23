local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), multiplicity = { 1, 2, 3 } })   -- expect: hd.attention: multiplicity: number 4 of the list must be a number, got nothing
