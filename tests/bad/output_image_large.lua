local hd = require "heddle"
local tokens = hd.input("tokens", { 1, 8 }, "i32")
local logits = hd.scope("s"):embedding("we", tokens, 16, 16)
return hd.language_model { name = "m", tokens = tokens, logits = logits, output = hd.image { width = 2, height = 2 } }   -- expect: hd.language_model: output: an image of 2 x 2 x 3 has 12 tokens, the model 8 positions
