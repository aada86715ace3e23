-- Qwen 3 (Yang et al. 2025, arXiv 2505.09388): Llama with an RMS norm of every head of q and k; upper layers may have a window.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "num_hidden_layers", config:integer "hidden_size", config:integer "num_attention_heads"
local kv_heads, head_dim = config:integer("num_key_value_heads", heads), config:integer("head_dim", 128)
local inner, vocab, positions = config:integer "intermediate_size", config:integer "vocab_size", config:integer("max_position_embeddings", 2048)
local epsilon, activation = config:number("rms_norm_eps", 1e-6), config:activation("hidden_act", "silu")
local windows, bias, tied = config:flag("use_sliding_window", false), config:flag("attention_bias", false), config:flag("tie_word_embeddings", false)
local window, first = config:integer("sliding_window", 4096), config:integer("max_window_layers", 28)
local kinds = config:layer_types(layers, function(i) return windows and i >= first end)
local c = config:sizes(positions)

local rope = config:rope(head_dim, { length = c.length, positions = positions })
local patterns = { full_attention = hd.pattern.causal(), sliding_attention = hd.causal_window(window, c.length) }

-- NAME's heads, each one normalised by itself, then turned.
local function normed_heads(s, name, x, count)
  local each = hd.reshape(x, { c.batch, c.length, count, head_dim })
  return s:rope(name, hd.reshape(s:rms_norm(name .. "_norm", each, epsilon), { c.batch, c.length, count * head_dim }), rope)
end

local function attention(s, x, i)
  local q = normed_heads(s, "q", s:linear("q_proj", x, heads * head_dim, { bias = bias }), heads)
  local k = normed_heads(s, "k", s:linear("k_proj", x, kv_heads * head_dim, { bias = bias }), kv_heads)
  local v = s:linear("v_proj", x, kv_heads * head_dim, { bias = bias })
  return s:linear("o_proj", s:attention("heads", q, k, v, { heads = heads, kv_heads = kv_heads, pattern = patterns[kinds[i + 1]] }), width, { bias = bias })
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

return hd.language_model { name = "qwen3", config = c, tokens = tokens, logits = s:matmul("logits", x, head, { trans_b = true }) }
