local hd = require "heddle"
local x = hd.input("x", { 4 })
return hd.model { name = "while", entries = { forward = { outputs = { y = x * 2 } } } }   -- expect: hd.model: name is 'while', a word that C or C++ keeps for itself
