local hd = require "heddle"
local x = hd.input("x", { 4 })
return hd.model { name = "my-model", entries = { forward = { outputs = { y = x * 2 } } } }   -- expect: hd.model: name becomes a name in C: a letter, then letters, digits and _; got "my-model"
