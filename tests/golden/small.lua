-- The smallest model with everything that passes and emission treat differently: its printed forms are kept beside it
-- (small.*.txt), so that a change of any pass shows as a difference to read.
local hd = require "heddle"

local P = hd.pattern
local length, width, heads, batch = 32, 16, 2, 2
local tokens = hd.input("tokens", { batch, length }, "i32")
local s = hd.scope("block")
local x = hd.scope(""):embedding("embed", tokens, 64, width, hd.normal(0.02))
local q, k, v = hd.split(s:linear("qkv", s:layer_norm("ln_1", x), 3 * width), 3)
q, k = hd.rope(q, { head_dim = width // heads }), hd.rope(k, { head_dim = width // heads })
local attended = s:attention("heads", q, k, v, { heads = heads, pattern = P.causal() & (P.window { keys = 4 } | P.stride(4)) })
x = x + hd.dropout(s:linear("proj", attended, width), 0.1)
x = x + s:mlp("mlp", s:layer_norm("ln_2", x), 24, { activation = "gelu_tanh" })
local logits = hd.scope(""):linear("head", x, 64, { bias = false, init = hd.zeros() })

return hd.language_model { name = "small", tokens = tokens, logits = logits, training = hd.training { lr = 1e-3, warmup = 10, decay = 0.1, clip = 1.0 } }
