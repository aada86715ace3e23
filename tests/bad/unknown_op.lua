local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local y = hd.layernorm(x)   -- expect: hd.layernorm does not exist; did you mean hd.layer_norm?
