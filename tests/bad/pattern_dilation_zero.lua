local hd = require "heddle"
local p = hd.pattern.window { keys = 4, dilation = 0 }   -- expect: P.window: dilation must be a whole number of 1 or more, got 0
