local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), softcap = 0 })   -- expect: hd.attention: softcap must be above 0; leave it out for none
