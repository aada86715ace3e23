local hd = require "heddle"
local y = hd.scope("h"):linear("a'b", hd.input("x", { 2, 4 }), 8)   -- expect: the name in a scope holds ', which it cannot
