local hd = require "heddle"
local x = hd.input("x", { 4 })
getmetatable(x).__index = nil   -- expect: attempt to index a boolean value
