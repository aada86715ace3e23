-- A byte-level Sparse Transformer language model (Child et al. 2019, arXiv 1904.10509): what `make demo` trains.
--
-- Every head reads the last `stride` bytes and, before them, every stride-th byte (the paper's strided pattern, both parts in
-- one head): two layers connect any byte with any earlier one, at a cost of length * sqrt(length).
-- Sizes are -D keys (-D length=4096), training settings flags of the program (--lr 1e-3); longer training likes more layers,
-- width and decay.
local hd = require "heddle"

local c = hd.config {
  pattern = hd.one_of("strided", "causal", "window"), stride = 32, window = 64,
  length = 256, layers = 3, width = 96, heads = 3, inner = 384, vocab = 256,
  batch = 4, steps_batch = 0,                       -- sequences per call, and per training step (0: the same)
  dropout = 0.0, recompute = false,
}

local P = hd.pattern
local patterns = {
  strided = P.causal() & (P.window { keys = c.stride } | P.stride(c.stride)),
  causal  = P.causal(),
  window  = P.window { keys = c.window },
}

-- Products that end a residual branch start smaller, the more branches there are.
local function last_init(fan_in) return hd.scaled_by_depth(hd.lecun_normal(fan_in), c.layers) end

local function attention(s, x)
  local q, k, v = hd.split(s:linear("qkv", x, 3 * c.width), 3)
  local rope = { head_dim = c.width // c.heads }
  local out = s:attention("heads", hd.rope(q, rope), hd.rope(k, rope), v, { heads = c.heads, pattern = patterns[c.pattern] })
  return s:linear("proj", out, c.width, { init = last_init(c.width) })
end

local function block(x, i)
  local s = hd.scope("h." .. i)
  x = x + hd.dropout(attention(s:scope("attn"), s:layer_norm("ln_1", x)), c.dropout)
  local y = s:mlp("mlp", s:layer_norm("ln_2", x), c.inner, { activation = "gelu_quick", proj_init = last_init(c.inner) })
  return x + hd.dropout(y, c.dropout)
end

-- A position starts from its byte and the two before it: three tables, the older ones shifted.
local s = hd.scope("")
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local function embed(name) return s:embedding(name, tokens, c.vocab, c.width, hd.normal(0.2)) end
local start = s:param("start", { c.width }, hd.zeros())
local x = embed("byte") + hd.shift(embed("byte_before") + hd.shift(embed("byte_before_that"), start), start)
for i = 0, c.layers - 1 do
  x = c.recompute and hd.recompute(block, x, i) or block(x, i)
end
local logits = s:linear("head", s:layer_norm("ln_f", x), c.vocab, { bias = false, init = hd.normal(0.05) })

return hd.language_model {
  name = "text", config = c, tokens = tokens, logits = logits,
  training = hd.training { lr = 3e-3, min_lr = 0.05, warmup = 100, decay = 0.1, clip = 1.0, batch = c.steps_batch },
}
