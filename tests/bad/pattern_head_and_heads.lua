local hd = require "heddle"
local p = hd.pattern.phi3_small { head = 1, heads = 2 }   -- expect: P.phi3_small: give head (one head's pattern) or heads (a list of all), not both
