local hd = require "heddle"
local q, k = hd.input("q", { 1, 8, 16 }), hd.input("k", { 1, 8, 12 })
local o = hd.attention(q, k, k, { heads = 4, kv_heads = 3, pattern = hd.pattern.causal() })   -- expect: attention: kv_heads 3 does not divide heads 4; valid: 1, 2, 4
