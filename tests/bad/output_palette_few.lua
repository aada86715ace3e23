local hd = require "heddle"
local tokens = hd.input("tokens", { 1, 8 }, "i32")
local logits = hd.scope("s"):embedding("we", tokens, 16, 16)
return hd.language_model { name = "m", tokens = tokens, logits = logits, output = hd.image { width = 2, height = 2, palette = { { 0, 0, 0 }, { 1, 1, 1 } } } }   -- expect: hd.language_model: output: the logits are of 16 tokens, the palette has 2 colours
