-- Gemma 3, text (Gemma Team 2025, arXiv 2503.19786): Gemma 2 with a norm of every head of q and k instead of bounded scores, windows on
-- five layers of six, and rotary positions of another base there.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "num_hidden_layers", config:integer "hidden_size", config:integer "num_attention_heads"
local kv_heads, head_dim = config:integer("num_key_value_heads", heads), config:integer("head_dim", 256)
local inner, vocab, positions = config:integer "intermediate_size", config:integer "vocab_size", config:integer("max_position_embeddings", 131072)
local epsilon, activation = config:number("rms_norm_eps", 1e-6), config:activation("hidden_activation", "gelu_pytorch_tanh")
local window, bias, tied = config:integer("sliding_window", 4096), config:flag("attention_bias", false), config:flag("tie_word_embeddings", true)
local function cap(key) return config:value(key) and config:number(key) end
local score_cap, logit_cap = cap "attn_logit_softcapping", cap "final_logit_softcapping"
local period = config:has "sliding_window_pattern" and config:integer "sliding_window_pattern" or config:integer("_sliding_window_pattern", 6)
config:ignore("sliding_window_pattern", "_sliding_window_pattern")
local scale = 1 / math.sqrt(config:number("query_pre_attn_scalar", 256))
local kinds = config:layer_types(layers, function(i) return (i + 1) % period ~= 0 end)
config:expect { use_bidirectional_attention = false }
config:ignore("hidden_act", "cache_implementation")
local c = config:sizes(positions)

local ropes = {
  full_attention = config:rope(head_dim, { length = c.length, positions = positions, layer_type = "full_attention", theta = 1e6 }),
  sliding_attention = config:rope(head_dim, { length = c.length, positions = positions, layer_type = "sliding_attention", theta_key = "rope_local_base_freq", scaling_key = false }),
}
local patterns = { full_attention = hd.pattern.causal(), sliding_attention = hd.causal_window(window, c.length) }

local function norm(s, name, x)
  return hd.rms_norm(x, 1 + s:param(name .. ".weight", { x.shape[#x] }, hd.zeros()), epsilon)
end

-- NAME's heads, each one normalised by itself, then turned.
local function normed_heads(s, name, x, count, kind)
  local each = hd.reshape(x, { c.batch, c.length, count, head_dim })
  return s:rope(name, hd.reshape(norm(s, name .. "_norm", each), { c.batch, c.length, count * head_dim }), ropes[kind])
end

local function attention(s, x, kind)
  local q = normed_heads(s, "q", s:linear("q_proj", x, heads * head_dim, { bias = bias }), heads, kind)
  local k = normed_heads(s, "k", s:linear("k_proj", x, kv_heads * head_dim, { bias = bias }), kv_heads, kind)
  local v = s:linear("v_proj", x, kv_heads * head_dim, { bias = bias })
  local out = s:attention("heads", q, k, v, { heads = heads, kv_heads = kv_heads, pattern = patterns[kind], scale = scale, softcap = score_cap })
  return s:linear("o_proj", out, width, { bias = bias })
end

local function mlp(s, x)
  local gate, up = s:linear("gate_proj", x, inner, { bias = false }), s:linear("up_proj", x, inner, { bias = false })
  return s:linear("down_proj", activation(gate) * up, width, { bias = false })
end

local s = hd.scope "model"
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local table = s:param("embed_tokens.weight", { vocab, width })
local x = hd.embedding(table, tokens) * math.sqrt(width)
for i = 0, layers - 1 do
  local h = s:scope("layers." .. i)
  x = x + norm(h, "post_attention_layernorm", attention(h:scope "self_attn", norm(h, "input_layernorm", x), kinds[i + 1]))
  x = x + norm(h, "post_feedforward_layernorm", mlp(h:scope "mlp", norm(h, "pre_feedforward_layernorm", x)))
end
x = norm(s, "norm", x)
local head = tied and table or hd.param("lm_head.weight", { vocab, width })
local logits = s:matmul("logits", x, head, { trans_b = true })
if logit_cap then logits = hd.tanh(logits * (1 / logit_cap)) * logit_cap end

return hd.language_model { name = "gemma3_text", config = c, tokens = tokens, logits = logits }
