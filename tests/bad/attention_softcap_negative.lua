local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), softcap = -5 })   -- expect: hd.attention: softcap must be a number of 0 or more, got -5
