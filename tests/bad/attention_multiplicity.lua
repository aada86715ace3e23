local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), multiplicity = { 1, 1, -2, 1, 1, 1, 1, 1 } })   -- expect: hd.attention: multiplicity 3 of the list is -2; it must be 0 or more
