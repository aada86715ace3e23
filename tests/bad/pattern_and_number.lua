local hd = require "heddle"
local p = hd.pattern.causal() & 3   -- expect: the right side of & must be a pattern such as P.causal()
