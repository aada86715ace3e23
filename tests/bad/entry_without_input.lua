local hd = require "heddle"
local a, b = hd.input("a", { 4 }), hd.input("b", { 4 })
return hd.model { name = "m", entries = { f = { inputs = { a }, outputs = { y = a + b } } } }   -- expect: hd.model: entry f: its outputs need the input "b", which is not in its list
