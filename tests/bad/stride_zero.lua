local hd = require "heddle"
local p = hd.pattern.stride(0)   -- expect: P.stride: the stride must be a whole number of 1 or more, got 0
