local hd = require "heddle"
local p = hd.pattern.casual()   -- expect: hd.pattern.casual does not exist; did you mean hd.pattern.causal?
