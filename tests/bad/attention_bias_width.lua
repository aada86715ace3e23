local hd = require "heddle"
local q, P = hd.input("q", { 2, 8, 16 }), hd.pattern
local o = hd.attention(q, q, q, { heads = 4, pattern = P.causal(), bias = hd.param("table", { 4, 17 }), max_distance = 15 })   -- expect: hd.attention: bias "table" [4, 17] must be [4, 16] for distances 0 to 15, or [4, 31] for -15 to 15
