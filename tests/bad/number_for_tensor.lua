local hd = require "heddle"
local y = hd.softmax({ 1, 2, 3 })   -- expect: hd.softmax: x must be a tensor, got a table
