-- Mistral 7B (Jiang et al. 2023, arXiv 2310.06825): Llama within a window of keys.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "num_hidden_layers", config:integer "hidden_size", config:integer "num_attention_heads"
local kv_heads, head_dim = config:integer("num_key_value_heads", heads), config:integer("head_dim", width // heads)
local inner, vocab, positions = config:integer "intermediate_size", config:integer "vocab_size", config:integer("max_position_embeddings", 2048)
local epsilon, activation = config:number("rms_norm_eps", 1e-6), config:activation("hidden_act", "silu")
local window, tied = config:value "sliding_window" and config:integer "sliding_window", config:flag("tie_word_embeddings", false)
local c = config:sizes(positions)

local rope = config:rope(head_dim, { length = c.length, positions = positions })
local pattern = hd.causal_window(window, c.length)

local function attention(s, x)
  local q = s:rope("q", s:linear("q_proj", x, heads * head_dim, { bias = false }), rope)
  local k = s:rope("k", s:linear("k_proj", x, kv_heads * head_dim, { bias = false }), rope)
  local v = s:linear("v_proj", x, kv_heads * head_dim, { bias = false })
  return s:linear("o_proj", s:attention("heads", q, k, v, { heads = heads, kv_heads = kv_heads, pattern = pattern }), width, { bias = false })
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
  x = x + attention(h:scope "self_attn", h:rms_norm("input_layernorm", x, epsilon))
  x = x + mlp(h:scope "mlp", h:rms_norm("post_attention_layernorm", x, epsilon))
end
x = s:rms_norm("norm", x, epsilon)
local head = tied and table or hd.param("lm_head.weight", { vocab, width })

return hd.language_model { name = "mistral", config = c, tokens = tokens, logits = s:matmul("logits", x, head, { trans_b = true }) }
