local hd = require "heddle"
local tokens = hd.input("tokens", { 1, 8 }, "i32")
local logits = hd.scope("s"):embedding("we", tokens, 16, 16)
return hd.language_model { name = "m", tokens = tokens, logits = logits, output = hd.sound { rate = 8000 }, tokenizer = "x" }   -- expect: hd.language_model: output and tokenizer exclude each other: tokens are text, or pixels or sound
