local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local y = hd.scope("h"):lienar("fc", x, 8)   -- expect: scope.lienar does not exist; did you mean scope.linear?
