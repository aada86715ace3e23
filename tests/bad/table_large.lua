local hd = require "heddle"
local q, times = hd.input("q", { 70000, 4 }), {}
for j = 1, 70000 do times[j] = 2 end
local o = hd.attention(q, q, q, { heads = 1, pattern = hd.pattern.causal(), multiplicity = times })   -- expect: table: 70000 numbers; a list becomes part of the program and may have 65536, larger ones must be inputs
