local hd = require "heddle"
local n = nil + 1   -- expect: attempt to perform arithmetic on a nil value
