-- GPT-NeoX and Pythia (Black et al. 2022, arXiv 2204.06745): attention and MLP read the same input side by side, a part of each head
-- has rotary positions, and q, k, v of each head lie side by side in one product.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "num_hidden_layers", config:integer "hidden_size", config:integer "num_attention_heads"
local inner, vocab, positions = config:integer("intermediate_size", 4 * width), config:integer "vocab_size", config:integer("max_position_embeddings", 2048)
local epsilon, activation = config:number("layer_norm_eps", 1e-5), config:activation("hidden_act", "gelu")
local parallel, bias, tied = config:flag("use_parallel_residual", true), config:flag("attention_bias", true), config:flag("tie_word_embeddings", false)
local c = config:sizes(positions)

local head_dim = width // heads
local rope = config:rope(head_dim, { length = c.length, positions = positions, theta_key = "rotary_emb_base", partial_key = "rotary_pct", partial = 0.25 })

local function attention(s, x)
  local qkv = hd.reshape(s:linear("query_key_value", x, 3 * width, { bias = bias }), { c.batch, c.length, heads, 3, head_dim })
  local q, k, v = hd.split(qkv, 3, 4)
  local shape = { c.batch, c.length, width }
  q, k = s:rope("q", hd.reshape(q, shape), rope), s:rope("k", hd.reshape(k, shape), rope)
  return s:linear("dense", s:attention("heads", q, k, hd.reshape(v, shape), { heads = heads, pattern = hd.pattern.causal() }), width, { bias = bias })
end

local function mlp(s, x)
  return s:linear("dense_4h_to_h", activation(s:linear("dense_h_to_4h", x, inner)), width)
end

local s = hd.scope "gpt_neox"
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local table = s:param("embed_in.weight", { vocab, width })
local x = hd.embedding(table, tokens)
for i = 0, layers - 1 do
  local h = s:scope("layers." .. i)
  local y = x + attention(h:scope "attention", h:layer_norm("input_layernorm", x, epsilon))
  x = y + mlp(h:scope "mlp", h:layer_norm("post_attention_layernorm", parallel and x or y, epsilon))
end
x = s:layer_norm("final_layer_norm", x, epsilon)
local head = tied and table or hd.param("embed_out.weight", { vocab, width })

return hd.language_model { name = "gpt_neox", config = c, tokens = tokens, logits = s:matmul("logits", x, head, { trans_b = true }) }
