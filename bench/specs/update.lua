-- A training step that is nearly all optimiser: a large embedding and head, few tokens. For bench/bench.sh.
local hd = require "heddle"
local c = hd.config { vocab = 32768, width = 512, length = 16, batch = 1 }
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local x = hd.embedding(hd.param("wte", { c.vocab, c.width }), tokens)
local logits = hd.linear(x, hd.param("head", { c.vocab, c.width }))
return hd.language_model { name = "update", config = c, logits = logits, training = hd.training {} }
