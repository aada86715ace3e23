local hd = require "heddle"
local tokens = hd.input("tokens", { 1, 8 }, "i32")
local logits = hd.scope("s"):embedding("we", tokens, 16, 16)
return hd.language_model { name = "m", tokens = tokens, logits = logits, output = "png" }   -- expect: hd.language_model: output must be made by hd.image { ... } or hd.sound { ... }, got
