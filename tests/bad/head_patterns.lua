local hd = require "heddle"
local q, P = hd.input("q", { 1, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = { P.causal(), P.full() } })   -- expect: the pattern list has 2 elements for 4 heads; give one pattern for all, or one for each head
