-- GPT-Neo (EleutherAI 2021): GPT-2 with weights [out, in], layers that alternate full and windowed attention, and scores that are
-- not scaled.
local hd = require "heddle"
local config = hd.checkpoint()

local layers, width, heads = config:integer "num_layers", config:integer "hidden_size", config:integer "num_heads"
local inner, vocab, positions = config:integer("intermediate_size", 4 * width), config:integer "vocab_size", config:integer("max_position_embeddings", 2048)
local epsilon, activation = config:number("layer_norm_epsilon", 1e-5), config:activation("activation_function", "gelu_new")
local window, tied = config:integer("window_size", 256), config:flag("tie_word_embeddings", true)
config:ignore("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj")
local c = config:sizes(positions, true)

-- attention_types = { { { "global", "local" }, 12 } } says the layers' kinds; attention_layers is the same list written out.
local kinds = {}
config:ignore "attention_layers"
local types = config:value "attention_types"
if type(types) ~= "table" then config:refuse("attention_types", 'it must be a list such as [[["global", "local"], 12]]') end
for _, group in ipairs(types) do
  if type(group) ~= "table" or type(group[1]) ~= "table" or not math.tointeger(group[2]) or group[2] > layers then
    config:refuse("attention_types", 'it must be a list such as [[["global", "local"], 12]]')
  end
  for _ = 1, group[2] do table.move(group[1], 1, #group[1], #kinds + 1, kinds) end
end
if #kinds ~= layers then config:refuse("attention_types", ("it must name the kinds of num_layers = %d layers, not of %d"):format(layers, #kinds)) end
local patterns = { global = hd.pattern.causal(), ["local"] = hd.causal_window(window, c.length) }

local function attention(s, x, i)
  local pattern = patterns[kinds[i + 1]] or config:refuse("attention_types", 'kinds are "global" and "local"')
  local q, k, v = s:linear("q_proj", x, width, { bias = false }), s:linear("k_proj", x, width, { bias = false }), s:linear("v_proj", x, width, { bias = false })
  return s:linear("out_proj", s:attention("heads", q, k, v, { heads = heads, pattern = pattern, scale = 1.0 }), width)
end

local function mlp(s, x)
  return s:linear("c_proj", activation(s:linear("c_fc", x, inner)), width)
end

local s = hd.scope "transformer"
local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
local wte, wpe = s:param("wte.weight", { vocab, width }), s:param("wpe.weight", { positions, width })
local x = hd.embedding(wte, tokens) + hd.slice(wpe, 1, 1, c.length)
for i = 0, layers - 1 do
  local h = s:scope("h." .. i)
  x = x + attention(h:scope "attn.attention", h:layer_norm("ln_1", x, epsilon), i)
  x = x + mlp(h:scope "mlp", h:layer_norm("ln_2", x, epsilon))
end
x = s:layer_norm("ln_f", x, epsilon)
local head = tied and wte or hd.param("lm_head.weight", { vocab, width })

return hd.language_model { name = "gpt_neo", config = c, tokens = tokens, logits = s:matmul("logits", x, head, { trans_b = true }) }
