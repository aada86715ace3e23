local hd = require "heddle"
local n = hd.pattern.causal():count(8)   -- expect: a pattern has no 'count'; it has row, kept_pairs
