local hd = require "heddle"
local x = hd.input("x", { 4 })
return hd.model { name = "m", entries = { ["2nd"] = { outputs = { y = x * 2 } } } }   -- expect: hd.model: the name of an entry becomes a name in C
