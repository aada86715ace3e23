-- config.json of a checkpoint, as the family files in models/hf read it. Part of heddle.lua.
--
-- A family reads keys through the functions below. Each checks its value and remembers the key: at the end, a key that nobody
-- looked at and that is not known to be harmless is reported, because it may change the mathematics. A key that is null counts
-- as absent, as in the configurations' own readers.
local core, check, hd = ...
local kind_of, sorted_keys = check.kind_of, check.sorted_keys

-- Keys that say nothing of what the network computes from its tokens: training, generation, and what wrote the file.
local harmless = {}
for key in ([[architectures model_type transformers_version dtype torch_dtype _name_or_path name_or_path auto_map initializer_range init_std
  initializer_factor use_cache bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id id2label label2id num_labels
  task_specific_params gradient_checkpointing return_dict output_hidden_states output_attentions torchscript pruned_heads problem_type
  chunk_size_feed_forward finetuning_task tokenizer_class prefix is_decoder tie_encoder_decoder tf_legacy_loss use_bfloat16
  cross_attention_hidden_size attn_implementation _attn_implementation _attn_implementation_autoset cache_implementation
  attention_dropout attn_pdrop embd_pdrop resid_pdrop dropout hidden_dropout classifier_dropout embed_dropout resid_dropout
  embedding_dropout residual_dropout activation_dropout layerdrop pretraining_tp do_sample max_length min_length temperature top_k top_p
  typical_p repetition_penalty length_penalty no_repeat_ngram_size num_beams num_beam_groups num_return_sequences diversity_penalty
  early_stopping encoder_no_repeat_ngram_size bad_words_ids begin_suppress_tokens suppress_tokens forced_bos_token_id
  forced_eos_token_id exponential_decay_length_penalty remove_invalid_values return_dict_in_generate output_scores]]):gmatch("%S+") do harmless[key] = true end

-- An object of the configuration: values, what has been read of it, how messages name its keys.
local methods, opened = {}, nil
local meta = { __name = "configuration", __index = methods }

local function object(values, prefix, file) return setmetatable({ values = values, read = {}, prefix = prefix, file = file, inner = {} }, meta) end

local function fail(config, format, ...)
  local text = format:format(...)
  if config.file then core.fail(text, config.file) end
  check.fail("%s", "the checkpoint's configuration: " .. text)
end

local function shown(value)
  if type(value) == "string" and #value > 60 then value = value:sub(1, 57) .. "..." end
  return type(value) == "table" and (#value > 0 and "a list" or "an object") or kind_of(value)
end

-- The value of a key, nil without it; for those methods that say what they make of it.
function methods:value(key)
  self.read[key] = true
  return self.values[key]
end

function methods:has(key) return self.values[key] ~= nil end

function methods:refuse(key, valid) fail(self, 'key "%s%s" is %s; %s', self.prefix, key, shown(self.values[key]), valid) end

local function typed(self, key, default, fits, what)
  local value = self:value(key)
  if value == nil then value = default end
  if value == nil then fail(self, 'key "%s%s" is missing; it must be %s', self.prefix, key, what) end
  if not fits(value) and not self:has(key) then fail(self, 'key "%s%s" is missing, and other keys make it %s; it must be %s', self.prefix, key, shown(value), what) end
  if not fits(value) then self:refuse(key, "it must be " .. what) end
  return value
end

-- A whole number of 1 or more, and an int of C; default: of a key that may be absent.
function methods:integer(key, default)
  local value = typed(self, key, default, function(x) return type(x) == "number" and math.tointeger(x) and x >= 1 and x < 1 << 31 end, "a whole number of 1 or more, and less than 2147483648")
  return math.tointeger(value)
end

-- A number above 0.
function methods:number(key, default)
  return typed(self, key, default, function(x) return type(x) == "number" and x > 0 and x < math.huge end, "a number above 0") + 0.0
end

function methods:flag(key, default) return typed(self, key, default, function(x) return type(x) == "boolean" end, "true or false") end

-- What `choices` has for the word.
function methods:word(key, default, choices)
  local word = self:value(key)
  if word == nil then word = default end
  if word == nil then fail(self, 'key "%s%s" is missing; valid: %s', self.prefix, key, table.concat(sorted_keys(choices), ", ")) end
  local found = type(word) == "string" and choices[word]
  if not found then self:refuse(key, "heddle has, for this family: " .. table.concat(sorted_keys(choices), ", ")) end
  return found
end

-- Keys with the one value that this family's mathematics here stand for; absent means that value.
function methods:expect(values)
  for key, value in pairs(values) do
    local is = self:value(key)
    if is ~= nil and is ~= value then self:refuse(key, ("heddle's models of this family have %s"):format(tostring(value))) end
  end
end

-- Keys that must be absent or null.
function methods:expect_none(...)
  for _, key in ipairs { ... } do if self:value(key) ~= nil then self:refuse(key, "heddle reads checkpoints without it") end end
end

-- Keys of this family that change nothing here.
function methods:ignore(...) for _, key in ipairs { ... } do self.read[key] = true end end

-- An object inside; nil without the key.
function methods:object(key)
  local values = self:value(key)
  if values == nil then return nil end
  if type(values) ~= "table" or #values > 0 then self:refuse(key, "it must be an object { ... }") end
  if not self.inner[key] then
    self.inner[key] = object(values, self.prefix .. key .. ".", self.file)
    self.inner[key].sub = true
  end
  return self.inner[key]
end

-- A list of `count` numbers.
function methods:numbers(key, count)
  local list = self:value(key)
  if type(list) ~= "table" or #list ~= count then self:refuse(key, ("it must be a list of %d numbers"):format(count)) end
  for _, x in ipairs(list) do if type(x) ~= "number" or not (x > 0 and x < math.huge) then self:refuse(key, "its numbers must be above 0") end end
  return list
end

-- hd.config of a checkpoint: length and batch, for -D. positions: how many the model was made for; table: it has one learnt
-- vector for each and cannot go further.
function methods:sizes(positions, table)
  local c = hd.config { length = math.min(positions, 1024), batch = 1 }
  if c.length < 1 or c.batch < 1 then check.fail("length and batch must be 1 or more") end
  if table and c.length > positions then check.fail("length %d is beyond the %d positions that the checkpoint has vectors for", c.length, positions) end
  return c
end

-- The palette of the checkpoint's preprocessor_config.json, for hd.image; nil without one.
function methods:clusters()
  local values = self.file and core.checkpoint_file "preprocessor_config.json"
  return values and type(values.clusters) == "table" and { clusters = values.clusters } or nil
end

-- The activation a key names, as a function.
local function tanh_gelu(x) return hd.gelu(x, "tanh") end
local activations = {
  relu = hd.relu, silu = hd.silu, swish = hd.silu, tanh = hd.tanh, sigmoid = hd.sigmoid, gelu = hd.gelu, gelu_python = hd.gelu,
  gelu_new = tanh_gelu, gelu_fast = tanh_gelu, gelu_pytorch_tanh = tanh_gelu, gelu_accurate = tanh_gelu,
  quick_gelu = function(x) return hd.gelu(x, "quick") end,
}
function methods:activation(key, default) return self:word(key, default, activations) end

-- The kinds of the layers' attention, { "full_attention", "sliding_attention", ... }: from `layer_types`, or for configurations
-- that are older than that key by the family's rule, sliding(i) for layers i = 0, 1, ...
function methods:layer_types(layers, sliding)
  local list, kinds = self:value "layer_types", {}
  if list ~= nil and (type(list) ~= "table" or #list ~= layers) then self:refuse("layer_types", ("it must be a list of %d words, one for each layer"):format(layers)) end
  for i = 1, layers do
    kinds[i] = list and list[i] or not list and (sliding(i - 1) and "sliding_attention" or "full_attention")
    if kinds[i] ~= "full_attention" and kinds[i] ~= "sliding_attention" then
      fail(self, 'key "%slayer_types" has %s for layer %d; valid: "full_attention", "sliding_attention"', self.prefix, shown(kinds[i]), i - 1)
    end
  end
  return kinds
end

-- Causal attention within `window` keys, the query's own among them; nil: all before.
function hd.causal_window(window, length)
  if not window or window >= length then return hd.pattern.causal() end
  return hd.pattern.causal() & hd.pattern.window { keys = window }
end

---------------------------------------------------------------------------------------------------- rotary positions

-- Each kind gives the angle per position of pair t, for t = 0 to dims / 2 - 1, and what cosines and sines are multiplied by.
-- p: the parameters; plain[t + 1] = theta^(-2 t / dims).
local kinds = {}

function kinds.default(_, plain) return plain, 1 end

function kinds.linear(p, plain)
  local factor, angles = p:number "factor", {}
  for t, x in ipairs(plain) do angles[t] = x / factor end
  return angles, 1
end

-- NTK-aware scaling by the length in use: none up to max_position_embeddings, and beyond that it changes with every token.
function kinds.dynamic(p, plain, given)
  p:number "factor"
  p:ignore "original_max_position_embeddings"
  if given.length > given.positions then
    check.fail("length %d is beyond max_position_embeddings %d; from there this checkpoint's rope scaling (dynamic) changes with every token: choose -D length= up to that",
               given.length, given.positions)
  end
  return plain, 1
end

-- Llama 3.1: long waves are stretched, short ones kept, those between blended.
function kinds.llama3(p, plain)
  local factor, low, high = p:number "factor", p:number "low_freq_factor", p:number "high_freq_factor"
  local original, angles = p:integer "original_max_position_embeddings", {}
  if low >= high then p:refuse("low_freq_factor", "it must be below high_freq_factor") end
  for t, x in ipairs(plain) do
    local turns = original * x / (2 * math.pi)
    local blend = math.max(0, math.min(1, (turns - low) / (high - low)))
    angles[t] = (1 - blend) * x / factor + blend * x
  end
  return angles, 1
end

-- YaRN (Peng et al. 2023, arXiv 2309.00071): pairs that turn less than beta_slow times in the original length are stretched, those
-- that turn more than beta_fast times are kept, a ramp between.
function kinds.yarn(p, plain, given)
  local factor = p:number "factor"
  local fast, slow, original = p:number("beta_fast", 32), p:number("beta_slow", 1), p:integer("original_max_position_embeddings", given.positions)
  local truncate, dims, angles = p:flag("truncate", true), 2 * #plain, {}
  local function pair_that_turns(times) return dims * math.log(original / (times * 2 * math.pi)) / (2 * math.log(given.theta)) end
  local first, last = pair_that_turns(fast), pair_that_turns(slow)
  if truncate then first, last = math.floor(first), math.ceil(last) end
  first, last = math.max(first, 0), math.min(last, dims - 1)
  if first == last then last = last + 0.001 end
  for t, x in ipairs(plain) do
    local ramp = math.max(0, math.min(1, (t - 1 - first) / (last - first)))
    angles[t] = x / factor * ramp + x * (1 - ramp)
  end
  local function magnitude(m) return factor <= 1 and 1 or 0.1 * m * math.log(factor) + 1 end
  local scale = magnitude(1)
  if p:has "mscale" and p:has "mscale_all_dim" then scale = magnitude(p:number "mscale") / magnitude(p:number "mscale_all_dim") end
  p:ignore("mscale", "mscale_all_dim")
  return angles, p:number("attention_factor", scale)
end

-- LongRoPE (Phi-3): one factor for each pair, from one of two lists; which, the built length says.
function kinds.longrope(p, plain, given)
  local original = p:integer("original_max_position_embeddings", given.original or given.positions)
  local list = p:numbers(given.length > original and "long_factor" or "short_factor", #plain)
  local angles, factor = {}, p:number("factor", given.positions / original)
  p:ignore("long_factor", "short_factor")
  for t, x in ipairs(plain) do angles[t] = x / list[t] end
  return angles, p:number("attention_factor", factor <= 1 and 1 or math.sqrt(1 + math.log(factor) / math.log(original)))
end
kinds.su = kinds.longrope

-- The options of hd.rope for heads of head_dim: from rope_parameters, or rope_theta and rope_scaling of older files. given:
--   length, positions   the built length, and max_position_embeddings
--   layer_type          the object inside rope_parameters, where layers differ
--   theta, partial      defaults, of keys that older files may leave out: 10000 and 1
--   theta_key, partial_key, scaling_key   what older files call them; scaling_key false: no scaling
--   original            longrope: original_max_position_embeddings, where it lies outside
function methods:rope(head_dim, given)
  local p = self:object "rope_parameters"
  if p and given.layer_type and p:has(given.layer_type) then p = p:object(given.layer_type) end
  local theta_key, partial_key, scaling_key = given.theta_key or "rope_theta", given.partial_key or "partial_rotary_factor", given.scaling_key
  if scaling_key == nil then scaling_key = "rope_scaling" end
  local theta, partial, kind = given.theta or 10000, given.partial or 1, "default"
  theta, partial = self:number(theta_key, theta), self:number(partial_key, partial)
  p = p or scaling_key and self:object(scaling_key) or nil
  if p then
    theta, partial = p:number("rope_theta", theta), p:number("partial_rotary_factor", partial)
    kind = p:value "rope_type" or p:value "type" or "default"
    p:ignore("rope_type", "type")
    if not kinds[kind] then p:refuse(p:has "rope_type" and "rope_type" or "type", "heddle has: " .. table.concat(sorted_keys(kinds), ", ")) end
  end
  if partial > 1 then fail(self, 'key "%s%s" is %g; it must be at most 1', self.prefix, partial_key, partial) end
  local dims = math.floor(head_dim * partial)
  if dims < 2 or dims % 2 == 1 then fail(self, "rotary positions turn %d of the %d elements of a head; it must be an even number of 2 or more", dims, head_dim) end
  if kind == "default" then return { head_dim = head_dim, dims = dims, base = theta } end
  local plain = {}
  for t = 0, dims // 2 - 1 do plain[t + 1] = theta ^ (-2.0 * t / dims) end
  local angles, scale = kinds[kind](p, plain, { length = given.length, positions = given.positions, original = given.original, theta = theta })
  return { head_dim = head_dim, dims = dims, frequencies = angles, scale = scale }
end

---------------------------------------------------------------------------------------------------- the configuration itself

-- The configuration of the checkpoint folder that heddle was given, or these values (what `heddle import` writes).
function hd.checkpoint(given)
  if opened then check.fail("hd.checkpoint is called a second time") end
  local values, file = core.checkpoint()
  if given ~= nil then
    if type(given) ~= "table" then check.fail("hd.checkpoint takes a table, the values of a config.json, got %s", kind_of(given)) end
    values, file = given, nil
  elseif not values then
    check.fail("this spec is of checkpoints: give heddle the folder that holds config.json and *.safetensors, or hd.checkpoint the values of its config.json")
  end
  opened = object(values, "", file)
  opened:expect { is_encoder_decoder = false, add_cross_attention = false }
  opened:expect_none("quantization_config")
  opened:ignore("model_type")
  return opened
end

-- A value as Lua text: numbers with the fewest digits that give them back.
local function number_text(x)
  if math.type(x) == "integer" then return tostring(x) end
  for digits = 1, 17 do
    local text = ("%." .. digits .. "g"):format(x)
    if tonumber(text) == x then return text:find "[.e]" and text or text .. ".0" end
  end
end

local function literal(value, indent)
  if type(value) == "string" then return ("%q"):format(value):gsub("\n", "n") end
  if type(value) == "number" then return number_text(value) end
  if type(value) ~= "table" then return tostring(value) end
  local out = {}
  if #value > 0 then
    for i, item in ipairs(value) do out[i] = (literal(item, indent)) end
    return "{ " .. table.concat(out, ", ") .. " }"
  end
  for key, item in pairs(value) do
    local name = tostring(key):match("^[%a_][%w_]*$") and key or ("[%q]"):format(key)
    out[#out + 1] = indent .. "  " .. name .. " = " .. (literal(item, indent .. "  ")) .. ",\n"
  end
  return #out > 0 and "{\n" .. table.concat(out) .. indent .. "}" or "{}"
end

-- Reports keys nobody looked at, and collects those that were read.
local function close(config)
  local kept = {}
  for key, value in pairs(config.values) do
    if config.inner[key] then kept[key] = close(config.inner[key])
    elseif config.read[key] then kept[key] = value
    elseif not harmless[key] or config.sub then
      local text = ('key "%s%s" (%s) is not known to heddle and is ignored; does it change what the model computes?'):format(config.prefix, tostring(key), shown(value))
      core.warn(text, config.file or "hd.checkpoint")
    end
  end
  return kept
end

-- Tokens that begin and end texts: generation_config.json's, where there is one, as generation takes them from there.
local function special_tokens(config)
  local found = {}
  local generation = config.file and core.checkpoint_file "generation_config.json" or {}
  for short, key in pairs { bos = "bos_token_id", eos = "eos_token_id" } do
    if generation[key] ~= nil then config.values[key] = generation[key] end
    local value = config:value(key)
    local list = {}
    for _, x in ipairs(type(value) == "table" and value or { value }) do
      if math.type(x) == "integer" and x >= 0 and #list < 16 then list[#list + 1] = x end       -- configurations write -1 for none
    end
    found[short] = list
  end
  return { bos = found.bos[1], eos = #found.eos > 0 and found.eos or nil }
end

-- Called when the model is complete.
return function()
  if not opened then return {} end
  local tokens = special_tokens(opened)
  core.configured((literal(close(opened), "")))
  return tokens
end
