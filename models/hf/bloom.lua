-- BLOOM (BigScience 2022, arXiv 2211.05100): ALiBi instead of positions, a norm after the embedding, and q, k, v of each head side by
-- side in one product.
local hd = require "heddle"
local config = hd.checkpoint()

local function either(new, old) return config:has(new) and config:integer(new) or config:integer(config:has(old) and old or new) end
local layers, width, heads = either("n_layer", "num_hidden_layers"), either("hidden_size", "n_embed"), either("n_head", "num_attention_heads")
local vocab, epsilon, tied = config:integer "vocab_size", config:number("layer_norm_epsilon", 1e-5), config:flag("tie_word_embeddings", true)
local after_norm = config:flag("apply_residual_connection_post_layernorm", false)
config:ignore("n_layer", "num_hidden_layers", "hidden_size", "n_embed", "n_head", "num_attention_heads")
config:ignore("slow_but_exact", "attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "skip_bias_add", "skip_bias_add_qkv", "offset_alibi")
config:expect { n_inner = 4 * width }
local c = config:sizes(config:integer("seq_length", 2048))

local head_dim = width // heads

local function attention(s, x)
  local qkv = hd.reshape(s:linear("query_key_value", x, 3 * width), { c.batch, c.length, heads, 3, head_dim })
  local q, k, v = hd.split(qkv, 3, 4)
  local shape = { c.batch, c.length, width }
  local out = s:attention("heads", hd.reshape(q, shape), hd.reshape(k, shape), hd.reshape(v, shape), { heads = heads, pattern = hd.pattern.causal(), alibi = true })
  return s:linear("dense", out, width)
end

local function mlp(s, x)
  return s:linear("dense_4h_to_h", s:gelu("gelu", s:linear("dense_h_to_4h", x, 4 * width), "tanh"), width)
end

local s = hd.scope "transformer"
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local table = s:param("word_embeddings.weight", { vocab, width })
local x = s:layer_norm("word_embeddings_layernorm", hd.embedding(table, tokens), epsilon)
for i = 0, layers - 1 do
  local h = s:scope("h." .. i)
  local y = h:layer_norm("input_layernorm", x, epsilon)
  x = (after_norm and y or x) + attention(h:scope "self_attention", y)
  y = h:layer_norm("post_attention_layernorm", x, epsilon)
  x = (after_norm and y or x) + mlp(h:scope "mlp", y)
end
x = s:layer_norm("ln_f", x, epsilon)
local head = tied and table or hd.param("lm_head.weight", { vocab, width })

return hd.language_model { name = "bloom", config = c, tokens = tokens, logits = s:matmul("logits", x, head, { trans_b = true }) }
