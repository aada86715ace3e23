local hd = require "heddle"
local p = hd.pattern.documents { 3, 0 }   -- expect: P.documents: length 2 must be a whole number of 1 or more, got 0
