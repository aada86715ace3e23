local hd = require "heddle"
local c = hd.config { width = 8 }
local x = hd.input("x", { 1, c.widht })   -- expect: the configuration has no key 'widht'; it has: width
