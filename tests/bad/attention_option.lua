local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), slopes = true })   -- expect: hd.attention: unknown key 'slopes'; valid keys: heads, kv_heads, pattern, scale, layout, softcap, alibi, offset, sinks, bias
