local hd = require "heddle"
local p = hd.pattern.window { keys = 0 }   -- expect: P.window: keys must be a whole number of 1 or more, got 0
