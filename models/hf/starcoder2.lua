-- StarCoder 2 (Lozhkov et al. 2024, arXiv 2402.19173): layer norms and a plain MLP with biases, rotary positions, grouped keys, a window.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "num_hidden_layers", config:integer "hidden_size", config:integer "num_attention_heads"
local kv_heads, inner, vocab = config:integer("num_key_value_heads", heads), config:integer "intermediate_size", config:integer "vocab_size"
local epsilon, activation = config:number("norm_epsilon", 1e-5), config:activation("hidden_act", "gelu_pytorch_tanh")
local bias, tied, positions = config:flag("use_bias", true), config:flag("tie_word_embeddings", true), config:integer("max_position_embeddings", 4096)
local window = config:value "sliding_window" and config:integer "sliding_window"
config:expect { mlp_type = "default", norm_type = "layer_norm", scale_attn_weights = true }
config:ignore("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")
local c = config:sizes(positions)

local head_dim = config:integer("head_dim", width // heads)
local rope = config:rope(head_dim, { length = c.length, positions = positions })
local pattern = hd.causal_window(window, c.length)

local function attention(s, x)
  local q = s:rope("q", s:linear("q_proj", x, heads * head_dim, { bias = bias }), rope)
  local k = s:rope("k", s:linear("k_proj", x, kv_heads * head_dim, { bias = bias }), rope)
  local v = s:linear("v_proj", x, kv_heads * head_dim, { bias = bias })
  return s:linear("o_proj", s:attention("heads", q, k, v, { heads = heads, kv_heads = kv_heads, pattern = pattern }), width, { bias = bias })
end

local function mlp(s, x)
  return s:linear("c_proj", activation(s:linear("c_fc", x, inner, { bias = bias })), width, { bias = bias })
end

local s = hd.scope "model"
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local table = s:param("embed_tokens.weight", { vocab, width })
local x = hd.embedding(table, tokens)
for i = 0, layers - 1 do
  local h = s:scope("layers." .. i)
  x = x + attention(h:scope "self_attn", h:layer_norm("input_layernorm", x, epsilon))
  x = x + mlp(h:scope "mlp", h:layer_norm("post_attention_layernorm", x, epsilon))
end
x = s:layer_norm("norm", x, epsilon)
local head = tied and table or hd.param("lm_head.weight", { vocab, width })

return hd.language_model { name = "starcoder2", config = c, tokens = tokens, logits = s:matmul("logits", x, head, { trans_b = true }) }
