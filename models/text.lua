-- A byte-level Sparse Transformer language model (Child et al. 2019, arXiv 1904.10509): what `make demo` trains.
--
-- Every head reads the last `stride` bytes and, beyond them, every stride-th byte back (the paper's strided pattern, both
-- parts in one head), so that any byte reaches any earlier one in two layers at a cost of length * sqrt(length).
-- Pre-norm blocks, rotary positions, quick GELU, residual products scaled by depth. Sizes are -D keys: -D length=4096.
local hd = require "heddle"

local c = hd.config {
  pattern = hd.one_of("strided", "causal", "window"),
  length = 256, layers = 4, width = 128, heads = 4, inner = 512, vocab = 256,
  stride = 32, window = 64,                        -- strided: the period; window: how many bytes a query reads
  batch = 8, dropout = 0.0, recompute = false,
  lr = 3e-3, warmup = 100, decay = 0.1, steps_batch = 8,
}

local P = hd.pattern
local patterns = {
  strided = P.causal() & (P.window { keys = c.stride } | P.stride(c.stride)),
  causal  = P.causal(),
  window  = P.window { keys = c.window },
}

local depth_init = hd.scaled_by_depth(hd.sparse_transformer_init(c.width), c.layers)

local function attention(s, x)
  local q, k, v = hd.split(s:linear("qkv", x, 3 * c.width), 3)
  local rope = { head_dim = c.width // c.heads }
  q, k = hd.rope(q, rope), hd.rope(k, rope)
  local out = s:attention("heads", q, k, v, { heads = c.heads, pattern = patterns[c.pattern] })
  return s:linear("proj", out, c.width, { init = depth_init })
end

local function block(x, i)
  local s = hd.scope("h." .. i)
  x = x + hd.dropout(attention(s:scope("attn"), s:layer_norm("ln_1", x)), c.dropout)
  local inner = s:mlp("mlp", s:layer_norm("ln_2", x), c.inner, { activation = "gelu_quick", proj_init = depth_init })
  return x + hd.dropout(inner, c.dropout)
end

local s = hd.scope("")
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local x = s:embedding("embed", tokens, c.vocab, c.width, hd.normal(0.02))
for i = 0, c.layers - 1 do
  x = c.recompute and hd.recompute(block, x, i) or block(x, i)
end
local logits = s:linear("head", s:layer_norm("ln_f", x), c.vocab, { bias = false, init = hd.zeros() })

return hd.language_model {
  name = "text", config = c, tokens = tokens, logits = logits,
  training = hd.training { lr = c.lr, warmup = c.warmup, decay = c.decay, clip = 1.0, batch = c.steps_batch },
}
