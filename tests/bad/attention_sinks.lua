local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), sinks = hd.param("sinks", { 3 }) })   -- expect: attention: sinks is [3]; it must be [4], one logit for each head
