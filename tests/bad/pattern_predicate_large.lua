local hd = require "heddle"
local p = hd.pattern.predicate(function(i, j) return true end, 5000)   -- expect: P.predicate: 5000 queries and 5000 keys are more than 16777216 pairs (4096 x 4096), too many to ask one by one
