local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), alibi = 0.5 })   -- expect: hd.attention: alibi must be true, or a list of one slope per head, got 0.5
