local hd = require "heddle"
local q = hd.input("q", { 1, 8, 250 })
local o = hd.scope("h.3"):attention("attn", q, q, q, { heads = 4, pattern = hd.pattern.causal() })   -- expect: attention "h.3.attn": width 250 does not divide into 4 heads; nearest widths: 248, 252
