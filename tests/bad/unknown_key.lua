local hd = require "heddle"
local q = hd.input("q", { 1, 8, 16 })
local o = hd.attention(q, q, q, { heads = 4, patern = hd.pattern.causal() })   -- expect: hd.attention: unknown key 'patern'; valid keys: heads, kv_heads, pattern
