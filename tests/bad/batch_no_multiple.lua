local hd = require "heddle"
local tokens = hd.input("tokens", { 4, 8 }, "i32")
local x = hd.scope("h"):embedding("e", tokens, 16, 16)
return hd.language_model { name = "m", logits = x, training = hd.training { batch = 6 } }   -- expect: hd.training: batch 6 is no multiple of the compiled micro-batch 4; nearest: 4, 8
