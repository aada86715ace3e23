local hd = require "heddle"
local w = hd.param('a"b', { 4 })   -- expect: hd.param: the name holds ", which it cannot
