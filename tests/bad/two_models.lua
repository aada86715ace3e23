local hd = require "heddle"
local x = hd.input("x", { 4 })
hd.model { name = "a", entries = { f = { outputs = { y = x * 2 } } } }
hd.model { name = "b", entries = { f = { outputs = { y = x * 3 } } } }   -- expect: hd.model: the spec makes a second model; the first was
