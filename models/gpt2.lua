-- GPT-2 (Radford et al. 2019): its mathematics and its tensor names, so that checkpoints of the Hugging Face hub load as they
-- are. Learnt positions, pre-norm blocks, tanh GELU, weights [in, out], the output head tied to the token embedding.
-- Defaults are GPT-2 small. `length` may be shorter than `positions`, the checkpoint's table of positions.
local hd = require "heddle"

local c = hd.config {
  length = 1024, positions = 1024, layers = 12, width = 768, heads = 12, vocab = 50257, batch = 1,
  steps_batch = 0, dropout = 0.0, recompute = false,      -- steps_batch: sequences per training step, 0: `batch`
  tokenizer = "",                                         -- a file, or a folder with vocab.json and merges.txt; without it, ids
}

local normal, zeros = hd.normal(0.02), hd.zeros()
local product = { layout = "in_out", init = normal }
local last_product = { layout = "in_out", init = hd.scaled_by_depth(normal, c.layers) }      -- ends a residual branch

local function attention(s, x)
  local q, k, v = hd.split(s:linear("c_attn", x, 3 * c.width, product), 3)
  local out = s:attention("heads", q, k, v, { heads = c.heads, pattern = hd.pattern.causal() })
  return s:linear("c_proj", out, c.width, last_product)
end

local function mlp(s, x)
  local h = s:gelu("gelu", s:linear("c_fc", x, 4 * c.width, product), "tanh")
  return s:linear("c_proj", h, c.width, last_product)
end

local function block(x, i)
  local s = hd.scope("transformer.h." .. i)
  x = x + hd.dropout(attention(s:scope("attn"), s:layer_norm("ln_1", x, 1e-5)), c.dropout)
  return x + hd.dropout(mlp(s:scope("mlp"), s:layer_norm("ln_2", x, 1e-5)), c.dropout)
end

local s = hd.scope("transformer")
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local wte = s:param("wte.weight", { c.vocab, c.width }, normal)
local wpe = s:param("wpe.weight", { math.max(c.positions, c.length), c.width }, normal)
local x = hd.embedding(wte, tokens) + hd.slice(wpe, 1, 1, c.length)
x = hd.dropout(x, c.dropout)
for i = 0, c.layers - 1 do
  x = c.recompute and hd.recompute(block, x, i) or block(x, i)
end
local logits = s:scope("head"):matmul("logits", s:layer_norm("ln_f", x, 1e-5), wte, { trans_b = true })

return hd.language_model {
  name = "gpt2", config = c, tokens = tokens, logits = logits, tokenizer = c.tokenizer,
  training = hd.training { lr = 6e-4, min_lr = 0.1, warmup = 100, decay = 0.1, clip = 1.0, batch = c.steps_batch },
}
