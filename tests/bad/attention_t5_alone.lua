local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), t5 = { } })   -- expect: hd.attention: t5 says which column of bias a distance reads; there is no bias
