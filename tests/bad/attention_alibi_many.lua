local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), alibi = { 5, 4, 3, 2, 1 } })   -- expect: hd.attention: alibi: the list has 5 numbers; there must be 4
