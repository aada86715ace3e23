local hd = require "heddle"
local p = hd.pattern.window(64)   -- expect: P.window takes { keys = w } (the query's own included)
