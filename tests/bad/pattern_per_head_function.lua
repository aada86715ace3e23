local hd = require "heddle"
local p = hd.pattern.per_head(2, function(h) return h end)   -- expect: P.per_head: the function must return a pattern; for head 0 it returned 0
