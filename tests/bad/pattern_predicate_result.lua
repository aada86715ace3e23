local hd = require "heddle"
local p = hd.pattern.predicate(function(i, j) return j end, 5)   -- expect: P.predicate: the function must return true or false; for query 0 and key 0 it returned number
