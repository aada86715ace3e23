local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), key_bias = hd.param("b", { 16 }) })   -- expect: attention: key_bias is [16]; it must be [8] (keys), or [2, 8] (sequences, keys)
