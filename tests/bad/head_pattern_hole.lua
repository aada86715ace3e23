local hd = require "heddle"
local q, P = hd.input("q", { 1, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 2, pattern = { P.causal(), "full" } })   -- expect: element 2 of the pattern list is "full"; every head needs a pattern
