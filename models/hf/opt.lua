-- OPT (Zhang et al. 2022, arXiv 2205.01068): learnt positions that start at row 2, ReLU; norms before the branches, or after them
-- (350M), whose embeddings are narrower than the network.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "num_hidden_layers", config:integer "hidden_size", config:integer "num_attention_heads"
local inner, vocab, positions = config:integer("ffn_dim", 4 * width), config:integer "vocab_size", config:integer("max_position_embeddings", 2048)
local narrow, activation = config:integer("word_embed_proj_dim", width), config:activation("activation_function", "relu")
local norm_first, bias = config:flag("do_layer_norm_before", true), config:flag("enable_bias", true)
local final_norm, tied = norm_first and not config:flag("_remove_final_layer_norm", false), config:flag("tie_word_embeddings", true)
config:expect { layer_norm_elementwise_affine = true }
local c = config:sizes(positions, true)

local epsilon, offset = 1e-5, 2

local function attention(s, x)
  local q, k, v = s:linear("q_proj", x, width, { bias = bias }), s:linear("k_proj", x, width, { bias = bias }), s:linear("v_proj", x, width, { bias = bias })
  return s:linear("out_proj", s:attention("heads", q, k, v, { heads = heads, pattern = hd.pattern.causal() }), width, { bias = bias })
end

local function mlp(s, x)
  return s:linear("fc2", activation(s:linear("fc1", x, inner, { bias = bias })), width, { bias = bias })
end

-- x + branch(norm(x)), or norm(x + branch(x))
local function residual(s, norm, x, branch)
  if norm_first then return x + branch(s:layer_norm(norm, x, epsilon)) end
  return s:layer_norm(norm, x + branch(x), epsilon)
end

local s = hd.scope "model.decoder"
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local table = s:param("embed_tokens.weight", { vocab, narrow })
local x = hd.embedding(table, tokens)
if narrow ~= width then x = s:linear("project_in", x, width, { bias = false }) end
x = x + hd.slice(s:param("embed_positions.weight", { positions + offset, width }), 1, 1 + offset, c.length + offset)
for i = 0, layers - 1 do
  local h = s:scope("layers." .. i)
  x = residual(h, "self_attn_layer_norm", x, function(y) return attention(h:scope "self_attn", y) end)
  x = residual(h, "final_layer_norm", x, function(y) return mlp(h, y) end)
end
if final_norm then x = s:layer_norm("final_layer_norm", x, epsilon) end
if narrow ~= width then x = s:linear("project_out", x, narrow, { bias = false }) end
local head = tied and table or hd.param("lm_head.weight", { vocab, narrow })

return hd.language_model { name = "opt", config = c, tokens = tokens, logits = s:matmul("logits", x, head, { trans_b = true }) }
