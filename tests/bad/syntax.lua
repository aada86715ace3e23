local hd = require "heddle"
local x = = 3   -- expect: unexpected symbol near '='
