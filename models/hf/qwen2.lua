-- Qwen 2 and 2.5 (Yang et al. 2024, arXiv 2407.10671): Llama with biases on q, k and v; upper layers may have a window.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "num_hidden_layers", config:integer "hidden_size", config:integer "num_attention_heads"
local kv_heads, head_dim = config:integer("num_key_value_heads", heads), config:integer("head_dim", width // heads)
local inner, vocab, positions = config:integer "intermediate_size", config:integer "vocab_size", config:integer("max_position_embeddings", 2048)
local epsilon, activation = config:number("rms_norm_eps", 1e-6), config:activation("hidden_act", "silu")
local windows, tied = config:flag("use_sliding_window", false), config:flag("tie_word_embeddings", false)
local window, first = config:integer("sliding_window", 4096), config:integer("max_window_layers", 28)
local kinds = config:layer_types(layers, function(i) return windows and i >= first end)
config:expect { use_mrope = false }
local c = config:sizes(positions)

local rope = config:rope(head_dim, { length = c.length, positions = positions })
local patterns = { full_attention = hd.pattern.causal(), sliding_attention = hd.causal_window(window, c.length) }

local function attention(s, x, i)
  local q = s:rope("q", s:linear("q_proj", x, heads * head_dim), rope)
  local k = s:rope("k", s:linear("k_proj", x, kv_heads * head_dim), rope)
  local v = s:linear("v_proj", x, kv_heads * head_dim)
  return s:linear("o_proj", s:attention("heads", q, k, v, { heads = heads, kv_heads = kv_heads, pattern = patterns[kinds[i + 1]] }), width, { bias = false })
end

local function mlp(s, x)
  local gate, up = s:linear("gate_proj", x, inner, { bias = false }), s:linear("up_proj", x, inner, { bias = false })
  return s:linear("down_proj", activation(gate) * up, width, { bias = false })
end

local s = hd.scope "model"
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local table = s:param("embed_tokens.weight", { vocab, width })
local x = hd.embedding(table, tokens)
for i = 0, layers - 1 do
  local h = s:scope("layers." .. i)
  x = x + attention(h:scope "self_attn", h:rms_norm("input_layernorm", x, epsilon), i)
  x = x + mlp(h:scope "mlp", h:rms_norm("post_attention_layernorm", x, epsilon))
end
x = s:rms_norm("norm", x, epsilon)
local head = tied and table or hd.param("lm_head.weight", { vocab, width })

return hd.language_model { name = "qwen2", config = c, tokens = tokens, logits = s:matmul("logits", x, head, { trans_b = true }) }
