-- gpt-oss (OpenAI 2025, arXiv 2508.10925): a mixture of experts in every layer, a sink for every head, windows on every other layer,
-- YaRN. The product into the experts holds gate and up in turn.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "num_hidden_layers", config:integer "hidden_size", config:integer "num_attention_heads"
local kv_heads, head_dim = config:integer("num_key_value_heads", heads), config:integer("head_dim", 64)
local inner, vocab, positions = config:integer "intermediate_size", config:integer "vocab_size", config:integer("max_position_embeddings", 131072)
local experts, choices = config:integer "num_local_experts", config:integer(config:has "num_experts_per_tok" and "num_experts_per_tok" or "experts_per_token")
local epsilon, bias, tied = config:number("rms_norm_eps", 1e-5), config:flag("attention_bias", true), config:flag("tie_word_embeddings", false)
local limit, window = config:number("swiglu_limit", 7), config:integer("sliding_window", 128)
local kinds = config:layer_types(layers, function(i) return i % 2 == 0 end)
config:expect { hidden_act = "silu" }
config:ignore("experts_per_token", "output_router_logits", "router_aux_loss_coef", "initial_context_length")
local c = config:sizes(positions)

local rope = config:rope(head_dim, { length = c.length, positions = positions, theta = 150000 })
local patterns = { full_attention = hd.pattern.causal(), sliding_attention = hd.causal_window(window, c.length) }

local function attention(s, x, i)
  local q = s:rope("q", s:linear("q_proj", x, heads * head_dim, { bias = bias }), rope)
  local k = s:rope("k", s:linear("k_proj", x, kv_heads * head_dim, { bias = bias }), rope)
  local v = s:linear("v_proj", x, kv_heads * head_dim, { bias = bias })
  local sinks = s:param("sinks", { heads }, hd.zeros())
  return s:linear("o_proj", s:attention("heads", q, k, v, { heads = heads, kv_heads = kv_heads, pattern = patterns[kinds[i + 1]], sinks = sinks }), width, { bias = bias })
end

-- x times the matrices of the experts that ids name, plus their biases: NAME [experts, in, out] and NAME_bias.
local function by_expert(s, name, x, out, ids)
  local w, b = s:param(name, { experts, x.shape[#x], out }), s:param(name .. "_bias", { experts, out }, hd.zeros())
  return s:expert_matmul(name, x, w, ids) + hd.embedding(b, ids)
end

local function mixture(s, x)
  local ids, scores = s:top_k("choices", s:linear("router", x, experts), choices)
  local e = s:scope "experts"
  local both = hd.reshape(by_expert(e, "gate_up_proj", hd.reshape(x, { c.batch, c.length, 1, width }), 2 * inner, ids), { c.batch, c.length, choices, inner, 2 })
  local gate, up = hd.split(hd.transpose(both), 2, 4)         -- all gates, then all ups
  gate, up = hd.minimum(gate, limit), hd.maximum(hd.minimum(up, limit), -limit)
  local h = hd.reshape(hd.gelu(gate, "quick") * (up + 1), { c.batch, c.length, choices, inner })
  local y = by_expert(e, "down_proj", h, width, ids) * hd.reshape(hd.softmax(scores), { c.batch, c.length, choices, 1 })
  return hd.sum(y, 3)
end

local s = hd.scope "model"
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local table = s:param("embed_tokens.weight", { vocab, width })
local x = hd.embedding(table, tokens)
for i = 0, layers - 1 do
  local h = s:scope("layers." .. i)
  x = x + attention(h:scope "self_attn", h:rms_norm("input_layernorm", x, epsilon), i)
  x = x + mixture(h:scope "mlp", h:rms_norm("post_attention_layernorm", x, epsilon))
end
x = s:rms_norm("norm", x, epsilon)
local head = tied and table or hd.param("lm_head.weight", { vocab, width })

return hd.language_model { name = "gpt_oss", config = c, tokens = tokens, logits = s:matmul("logits", x, head, { trans_b = true }) }
