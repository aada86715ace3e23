local hd = require "heddle"
local keys = hd.pattern.causal():row(1.5)   -- expect: row: the query must be a whole number of 0 or more, got 1.5
