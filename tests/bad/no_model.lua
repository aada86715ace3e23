local hd = require "heddle"
local x = hd.input("x", { 4 })   -- expect: the spec ends without a model; its last line is
