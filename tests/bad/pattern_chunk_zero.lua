local hd = require "heddle"
local p = hd.pattern.chunk(0)   -- expect: P.chunk: the length must be a whole number of 1 or more, got 0
