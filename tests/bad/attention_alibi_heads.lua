local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), alibi = { 0.5, 0.25 } })   -- expect: hd.attention: alibi: number 3 of the list must be a number, got nothing
