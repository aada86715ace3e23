local hd = require "heddle"
local tokens = hd.input("tokens", { 1, 8 }, "i32")
local logits = hd.scope("s"):embedding("we", tokens, 16, 16)
return hd.language_model { name = "m", tokens = tokens, logits = logits, eos_token_id = "</s>" }   -- expect: hd.language_model: eos_token_id must be a token id, 0 to 15, got
