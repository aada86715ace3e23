local hd = require "heddle"
local tokens = hd.input("tokens", { 2, 8 }, "i32")
local x = hd.scope("h"):embedding("e", tokens, 16, 4)
return hd.language_model { name = "m", tokens = tokens, logits = hd.sum(x, 2) }   -- expect: the logits are [2, 4]; for tokens "tokens" [2, 8] they must be [2, 8, vocab]
