-- Image GPT (Chen et al. 2020): GPT-2 on the colour clusters of pixels, with norms that neither centre nor shift, the quick GELU,
-- and a head of its own without the start token.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "n_layer", config:integer "n_embd", config:integer "n_head"
local inner, vocab, positions = config:integer("n_inner", 4 * width), config:integer "vocab_size", config:integer("n_positions", 1024)
local epsilon, activation = config:number("layer_norm_epsilon", 1e-5), config:activation("activation_function", "quick_gelu")
local scaled, by_layer = config:flag("scale_attn_weights", true), config:flag("scale_attn_by_inverse_layer_idx", false)
config:expect { tie_word_embeddings = false }
config:ignore("n_ctx", "reorder_and_upcast_attn")
local c = config:sizes(positions, true)

local layout = { layout = "in_out" }

local function attention(s, x, i)
  local q, k, v = hd.split(s:linear("c_attn", x, 3 * width, layout), 3)
  local scale = (scaled and 1 / math.sqrt(width // heads) or 1) / (by_layer and i + 1 or 1)
  return s:linear("c_proj", s:attention("heads", q, k, v, { heads = heads, pattern = hd.pattern.causal(), scale = scale }), width, layout)
end

local function mlp(s, x)
  return s:linear("c_proj", activation(s:linear("c_fc", x, inner, layout)), width, layout)
end

local s = hd.scope "transformer"
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local wte, wpe = s:param("wte.weight", { vocab, width }), s:param("wpe.weight", { positions, width })
local x = hd.embedding(wte, tokens) + hd.slice(wpe, 1, 1, c.length)
for i = 0, layers - 1 do
  local h = s:scope("h." .. i)
  x = x + attention(h:scope "attn", h:rms_norm("ln_1", x, epsilon), i)
  x = x + mlp(h:scope "mlp", h:rms_norm("ln_2", x, epsilon))
end
x = s:rms_norm("ln_f", x, epsilon)

-- A square of colour clusters, after the last id, which alone is never predicted.
local side, clusters = c.length == positions and math.tointeger(math.sqrt(positions)), config:clusters()
return hd.language_model {
  name = "imagegpt", config = c, tokens = tokens, logits = hd.scope "":linear("lm_head", x, vocab - 1, { bias = false }), bos_token_id = vocab - 1,
  output = side and clusters and hd.image { width = side, height = side, palette = clusters } or nil,
}
