local hd = require "heddle"
local p = hd.pattern.keys {}   -- expect: P.keys: the list is empty
