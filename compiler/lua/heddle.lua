-- The library that specs get from require "heddle": graphs are built by calling functions, as in PyTorch or JAX.
--
-- Tensors are values with operators (+ - * / ^ and unary -, numbers included) and methods (x:relu() is hd.relu(x)); x.shape is
-- a list of sizes, #x the number of axes. Axes count from 1, negative ones from the end: -1 is the last. Positions (rows of
-- a pattern, ranges of keys) count from 0, as in the papers.
--
-- Every mistake ends the compiler with the user's line and what would have been valid. `core` holds the C side
-- (compiler/spec/builders.c, pattern_lua.c) and `check` the argument checks (check.lua); the spec reaches neither.
local core, check, pattern, attention, checkpoint, output = ...
local hd, scope_methods = {}, {}
local fail, sorted_keys, near, unknown, kind_of, quoted =
  check.fail, check.sorted_keys, check.near, check.unknown, check.kind_of, check.quoted
local options, integer, number, choice, check_name, check_text, check_identifier =
  check.options, check.integer, check.number, check.choice, check.check_name, check.check_text, check.check_identifier
local shape_of, describe, tensor, axis_of =
  check.shape_of, check.describe, check.tensor, check.axis_of

---------------------------------------------------------------------------------------------------- tensors

local scope_name              -- what new nodes are called: set while a method of a scope runs

local function add(op, inputs, attributes, shape, dtype, name)
  return core.add(op, inputs, attributes, shape, dtype, name or scope_name)
end

local function constant(value) return add("constant", {}, { value = value }, {}) end

-- A tensor, or a number that becomes one.
local function operand(what, x)
  if type(x) == "number" then return constant(x) end
  return tensor(what, x)
end

for _, op in ipairs { "exp", "log", "sqrt", "rsqrt", "abs", "sign", "sin", "cos", "tanh", "erf", "sigmoid", "relu", "silu", "neg", "detach" } do
  hd[op] = function(x) return add(op, { operand("hd." .. op .. ": x", x) }) end
end

-- NumPy's broadcasting: axes are matched from the last; sizes are equal or one of them is 1.
for name, op in pairs { add = "add", sub = "sub", mul = "mul", div = "div", maximum = "max", minimum = "min", less = "less", equal = "equal" } do
  hd[name] = function(a, b) return add(op, { operand("hd." .. name .. ": a", a), operand("hd." .. name .. ": b", b) }) end
end

function hd.where(condition, a, b)
  return add("where", { tensor("hd.where: condition", condition), operand("hd.where: a", a), operand("hd.where: b", b) })
end

-- x * Phi(x) with the error function ("erf", default), its tanh form ("tanh", GPT-2), or x * sigmoid(1.702 x) ("quick").
function hd.gelu(x, kind)
  kind = choice("hd.gelu: kind", kind, "erf", { "erf", "tanh", "quick" })
  return add(kind == "erf" and "gelu" or "gelu_" .. kind, { tensor("hd.gelu: x", x) })
end

local function power(x, p)
  if p == 2 then return hd.mul(x, x) end
  if p == 0.5 then return hd.sqrt(x) end
  if p == -0.5 then return hd.rsqrt(x) end
  if p == -1 then return hd.div(1, x) end
  fail("^ takes the exponents 2, 0.5, -0.5 and -1, got %s; write hd.exp(p * hd.log(x)) for others", kind_of(p))
end

function hd.fill(value, shape)
  return add("expand", { constant(number("hd.fill: value", value)) }, nil, shape)
end

---------------------------------------------------------------------------------------------------- inputs and parameters

local made = {}               -- name -> where, of inputs and parameters

local function new_source(what, name)
  check_name(what .. ": the name", name)
  if made[name] then fail('%s "%s" exists already: %s; keep that tensor and use it twice, or choose another name', what, name, made[name]) end
  made[name] = core.where()
  return name
end

local function check_shape(what, shape)
  if type(shape) ~= "table" then fail("%s: the shape must be a list of sizes such as { 8, 256 }, got %s", what, kind_of(shape)) end
  local out = {}
  for i, size in ipairs(shape) do out[i] = integer(("%s: size %d of the shape"):format(what, i), size) end
  for key in pairs(shape) do if not out[key] then fail("%s: the shape has a hole or a named size: %s", what, tostring(key)) end end
  return out
end

-- An input of the model. dtype: "f32" (default), or "i32" for tokens, ids and targets.
function hd.input(name, shape, dtype)
  local what = "hd.input"
  new_source(what, name)
  dtype = choice(what .. ': dtype of "' .. name .. '"', dtype, "f32", { "f32", "i32" })
  return add("input", {}, nil, check_shape(what .. ' "' .. name .. '"', shape), dtype, name)
end

-- How a parameter starts: C's hd_init (kind 0 constant, 1 normal, 2 uniform).
local init_meta = { __name = "init" }
local function init(kind, scale) return setmetatable({ init = kind, scale = scale }, init_meta) end
function hd.constant(value) return init(0, number("hd.constant", value)) end
function hd.zeros() return init(0, 0.0) end
function hd.ones() return init(0, 1.0) end
function hd.normal(std) return init(1, number("hd.normal: std", std, 0)) end                 -- N(0, std^2)
function hd.uniform(bound) return init(2, number("hd.uniform: bound", bound, 0)) end         -- U(-bound, bound)

local function check_init(what, value)
  if getmetatable(value) ~= init_meta then
    fail("%s: init must be one of hd.normal(std), hd.uniform(bound), hd.zeros(), hd.ones(), hd.constant(value), got %s", what, kind_of(value))
  end
  return value
end

-- N(0, 1/fan_in): sums of fan_in products of unit variance keep unit variance. What scope:linear starts with.
function hd.lecun_normal(fan_in) return init(1, 1 / math.sqrt(integer("hd.lecun_normal: fan_in", fan_in))) end

-- For the products that end a residual branch: the same init times 1/sqrt(2 * layers).
function hd.scaled_by_depth(what, layers)
  check_init("hd.scaled_by_depth", what)
  return init(what.init, what.scale / math.sqrt(2 * integer("hd.scaled_by_depth: layers", layers)))
end

-- The Sparse Transformer's init. The released code draws with standard deviation sqrt(0.125 / fan_in), the default;
-- the paper (arXiv 1904.10509, 5.2) prints 0.125 / sqrt(fan_in): variant "paper".
function hd.sparse_transformer_init(fan_in, variant)
  integer("hd.sparse_transformer_init: fan_in", fan_in)
  variant = choice("hd.sparse_transformer_init: variant", variant, "code", { "code", "paper" })
  return init(1, variant == "code" and math.sqrt(0.125 / fan_in) or 0.125 / math.sqrt(fan_in))
end

-- A weight, under the name a checkpoint has it. decay: AdamW's decay applies (default: if it has two or more axes).
local shared                  -- name -> parameter, while hd.in_chunks runs its function for one chunk after another

function hd.param(name, shape, how, given)
  local what = 'hd.param "' .. tostring(name) .. '"'
  local o = options("hd.param", given, { "decay" })
  if shared and shared[name] then return shared[name] end
  new_source("hd.param", name)
  shape = check_shape(what, shape)
  how = how == nil and hd.normal(0.02) or check_init(what, how)
  local decay = o.decay
  if decay == nil then decay = #shape >= 2 end
  local made_now = add("param", {}, { init = how.init, scale = how.scale, decay = decay }, shape, "f32", name)
  if shared then shared[name] = made_now end
  return made_now
end

---------------------------------------------------------------------------------------------------- products

-- a [..., m, k] times b [..., k, n]; a b of two axes is shared by all of a's leading axes.
function hd.matmul(a, b, given)
  local o = options("hd.matmul", given, { "trans_a", "trans_b" })
  return add("matmul", { tensor("hd.matmul: a", a), tensor("hd.matmul: b", b) }, { trans_a = o.trans_a, trans_b = o.trans_b })
end

-- x [..., in] times w [out, in] plus b [out]; layout "in_out": w is [in, out].
function hd.linear(x, w, b, given)
  local o = options("hd.linear", given, { "layout" })
  local layout = choice("hd.linear: layout", o.layout, "out_in", { "out_in", "in_out" })
  local x_shape, w_shape = shape_of(tensor("hd.linear: x", x)), shape_of(tensor("hd.linear: w", w))
  local k = w_shape[layout == "out_in" and 2 or 1]
  if #w_shape ~= 2 or x_shape[#x_shape] ~= k then
    fail("linear%s: x %s does not match w %s; w must be %s with in = %d", scope_name and ' "' .. scope_name .. '"' or "", describe(x), describe(w),
         layout == "out_in" and "[out, in]" or "[in, out]", x_shape[#x_shape] or 0)
  end
  if #x_shape == 1 then x = hd.reshape(x, { 1, k }) end
  local y = add("matmul", { x, w }, { trans_b = layout == "out_in" })
  if b ~= nil then y = add("add", { y, tensor("hd.linear: b", b) }) end
  if #x_shape == 1 then y = hd.reshape(y, { -1 }) end
  return y
end

-- Row ids[...] of table [rows, width] for every id: [..., width].
function hd.embedding(table, ids) return add("embedding", { tensor("hd.embedding: table", table), tensor("hd.embedding: ids", ids) }) end

-- The k largest of each row (the last axis), the largest first: their ids, i32 [..., k], and their values [..., k].
function hd.top_k(x, k)
  local ids = add("top_k", { tensor("hd.top_k: x", x) }, { k = integer("hd.top_k: k", k) })
  return ids, core.result(ids, 1)
end

-- A mixture's product: x [..., choices, in] (or [..., 1, in]: the same row for all) times w[id] of w [experts, in, out] for the ids, i32
-- [..., choices]: [..., choices, out]. Only the matrices that ids name are read. It has no gradient.
function hd.expert_matmul(x, w, ids)
  return add("expert_matmul", { tensor("hd.expert_matmul: x", x), tensor("hd.expert_matmul: w", w), tensor("hd.expert_matmul: ids", ids) })
end

---------------------------------------------------------------------------------------------------- rows: the last axis

function hd.softmax(x) return add("softmax", { tensor("hd.softmax: x", x) }) end

-- (x - mean) / sqrt(variance + epsilon) * gain + bias
function hd.layer_norm(x, gain, bias, epsilon)
  return add("layer_norm", { tensor("hd.layer_norm: x", x), tensor("hd.layer_norm: gain", gain), tensor("hd.layer_norm: bias", bias) },
             { epsilon = number("hd.layer_norm: epsilon", epsilon or 1e-5, 0) })
end

-- x / sqrt(mean(x^2) + epsilon) * gain
function hd.rms_norm(x, gain, epsilon)
  return add("rms_norm", { tensor("hd.rms_norm: x", x), tensor("hd.rms_norm: gain", gain) }, { epsilon = number("hd.rms_norm: epsilon", epsilon or 1e-6, 0) })
end

-- -log softmax(logits)[target] of every row: logits [..., vocab], targets i32 [...]; a negative target gives 0.
function hd.cross_entropy(logits, targets)
  return add("cross_entropy", { tensor("hd.cross_entropy: logits", logits), tensor("hd.cross_entropy: targets", targets) })
end

-- Rotary positions: of each head, coordinates turn in pairs by position * base^(-2t/dims). layout "half" pairs t with
-- t + dims/2 (LLaMA, GPT-NeoX), "pairs" 2t with 2t + 1 (GPT-J). axis: where the positions are, by default the last but one.
-- frequencies: the angles per position of the dims/2 pairs, instead of base's. scale: times the result (YaRN's attention factor).
function hd.rope(x, given)
  local o = options("hd.rope", given, { "head_dim", "dims", "base", "frequencies", "scale", "layout", "axis" })
  local shape = shape_of(tensor("hd.rope: x", x))
  if #shape < 2 then fail("rope: x %s needs two axes or more: positions, and heads * head_dim", describe(x)) end
  local head_dim = integer("hd.rope: head_dim", o.head_dim or shape[#shape])
  local dims, angles = integer("hd.rope: dims", o.dims or head_dim), o.frequencies
  if angles ~= nil then
    if o.base ~= nil then fail("hd.rope: give base or frequencies, not both") end
    if type(angles) ~= "table" or #angles ~= dims // 2 then fail("hd.rope: frequencies must be a list of %d numbers, one for each pair of dims %d, got %s", dims // 2, dims, kind_of(angles)) end
    for i, x in ipairs(angles) do number(("hd.rope: frequency %d"):format(i), x, -1e6, 1e6) end
  end
  return add("rope", { x }, { head_dim = head_dim, dims = dims, base = number("hd.rope: base", o.base or 10000, 0), frequencies = angles, scale = number("hd.rope: scale", o.scale or 1, 1e-6, 1e6),
             pairs = choice("hd.rope: layout", o.layout, "half", { "half", "pairs" }) == "pairs", axis = axis_of("hd.rope", o.axis or -2, #shape) })
end

---------------------------------------------------------------------------------------------------- shapes

-- The same elements in another shape; one size may be -1: what is left.
function hd.reshape(x, shape)
  local total, known, free, out = 1, 1, nil, {}
  for _, size in ipairs(shape_of(tensor("hd.reshape: x", x))) do total = total * size end
  if type(shape) ~= "table" then fail("hd.reshape: the shape must be a list of sizes, got %s", kind_of(shape)) end
  for i, size in ipairs(shape) do
    if size == -1 and not free then free = i else known = known * integer(("hd.reshape: size %d"):format(i), size) end
    out[i] = size
  end
  if free then
    if total % known ~= 0 then fail("reshape: x %s has %d elements, which does not divide by the given sizes' product %d", describe(x), total, known) end
    out[free] = total // known
  end
  return add("reshape", { x }, nil, out)
end

-- Axis i of the result is axis order[i] of x; without `order` the last two are swapped.
function hd.transpose(x, order)
  local rank, perm = #shape_of(tensor("hd.transpose: x", x)), {}
  if order == nil then
    if rank < 2 then fail("transpose: x %s needs two axes or more", describe(x)) end
    for i = 1, rank do perm[i] = i - 1 end
    perm[rank - 1], perm[rank] = rank - 1, rank - 2
  else
    if type(order) ~= "table" or #order ~= rank then fail("transpose: the order of x %s must be a list of its %d axes", describe(x), rank) end
    local seen = {}
    for i = 1, rank do
      perm[i] = axis_of("hd.transpose", order[i], rank)
      if seen[perm[i]] then fail("transpose: axis %d of x %s is named twice", perm[i] + 1, describe(x)) end
      seen[perm[i]] = true
    end
  end
  return add("transpose", { x }, { perm = perm })
end

-- Elements first to last of an axis, both included, counted as in string.sub: from 1, negative ones from the end.
function hd.slice(x, axis, first, last)
  local shape = shape_of(tensor("hd.slice: x", x))
  local at = axis_of("hd.slice", axis, #shape)
  local size = shape[at + 1]
  local from, to = integer("hd.slice: first", first, -size), integer("hd.slice: last", last or -1, -size)
  if from < 0 then from = size + from + 1 end
  if to < 0 then to = size + to + 1 end
  if from < 1 or to > size or from > to then
    fail("slice: elements %s to %s of axis %d of x %s; the axis has elements 1 to %d", tostring(first), tostring(last or -1), at + 1, describe(x), size)
  end
  shape[at + 1] = to - from + 1
  return add("slice", { x }, { axis = at, start = from - 1 }, shape)
end

-- Cuts an axis (default: the last) into n equal parts, or into parts of the sizes given; returns them all.
function hd.split(x, parts, axis)
  local shape = shape_of(tensor("hd.split: x", x))
  local at = axis_of("hd.split", axis or -1, #shape)
  local size, sizes = shape[at + 1], parts
  if type(parts) ~= "table" then
    local n = integer("hd.split: the number of parts", parts)
    if size % n ~= 0 then fail("split: axis %d of x %s does not divide into %d equal parts", at + 1, describe(x), n) end
    sizes = {}
    for i = 1, n do sizes[i] = size // n end
  end
  local out, start = {}, 0
  for i, part in ipairs(sizes) do
    shape[at + 1] = integer(("hd.split: size %d"):format(i), part)
    if start + part > size then break end
    out[i] = add("slice", { x }, { axis = at, start = start }, shape)
    start = start + part
  end
  if start ~= size or #out ~= #sizes then fail("split: the sizes {%s} do not add up to axis %d of x %s", table.concat(sizes, ", "), at + 1, describe(x)) end
  return table.unpack(out)
end

function hd.concat(list, axis)
  if type(list) ~= "table" or #list == 0 then fail("hd.concat: the first argument must be a list of tensors, got %s", kind_of(list)) end
  for i, x in ipairs(list) do tensor("hd.concat: element " .. i, x) end
  return add("concat", list, { axis = axis_of("hd.concat", axis or -1, #shape_of(list[1])) })
end

-- Size-1 axes grow, and new axes come first: NumPy's broadcast_to.
function hd.expand(x, shape) return add("expand", { operand("hd.expand: x", x) }, nil, check_shape("hd.expand", shape)) end

-- Every position of `axis` (default: the last but one) gets what the one before had; the first gets `start`, which has
-- the shape of the axes after it.
function hd.shift(x, start, axis)
  local rank = #shape_of(tensor("hd.shift: x", x))
  return add("shift", { x, tensor("hd.shift: start", start) }, { axis = axis_of("hd.shift", axis or -2, rank) })
end

---------------------------------------------------------------------------------------------------- reductions

-- Over one axis, a list of axes, or all; keep = true leaves them with size 1.
local function reduce(name, op, x, axes, given)
  local what = "hd." .. name
  local keep = options(what, given, { "keep" }).keep
  local shape = shape_of(tensor(what .. ": x", x))
  local rank, mask, count, left = #shape, 0, 1, {}
  if type(axes) ~= "table" then axes = { axes } end
  if #axes == 0 then for i = 1, rank do axes[i] = i end end
  for _, axis in ipairs(axes) do mask = mask | 1 << axis_of(what, axis, rank) end
  for i = 1, rank do
    if mask >> (i - 1) & 1 == 1 then count = count * shape[i] else left[#left + 1] = shape[i] end
  end
  local y = mask == 0 and x or add(op, { x }, { axes = mask })
  if not keep and mask ~= 0 then y = add("reshape", { y }, nil, left) end
  return y, count
end

function hd.sum(x, axes, given) return (reduce("sum", "sum", x, axes, given)) end
function hd.max(x, axes, given) return (reduce("max", "reduce_max", x, axes, given)) end
function hd.mean(x, axes, given)
  local total, count = reduce("mean", "sum", x, axes, given)
  return add("mul", { total, constant(1 / count) })
end

---------------------------------------------------------------------------------------------------- patterns

hd.pattern = pattern                  -- pattern.lua

---------------------------------------------------------------------------------------------------- attention

attention(core, check, hd, add, function() return scope_name end)      -- attention.lua: hd.attention and what belongs to it

---------------------------------------------------------------------------------------------------- training

local random_input

-- While training: x / (1 - p) or, with probability p, 0. `forward` and `loss` of a language model have none.
function hd.dropout(x, p)
  tensor("hd.dropout: x", x)
  p = number("hd.dropout: p", p, 0, 1)
  if p == 0 then return x end
  random_input = random_input or core.add("input", {}, nil, { 4 }, "i32", new_source("hd.dropout's input", "random"))
  return add("dropout", { x, random_input }, { p = p })
end

-- Gradients of a scalar: d(loss)/d(tensor) for each tensor of the list, in order.
function hd.grad(loss, tensors)
  local count = 1
  for _, size in ipairs(shape_of(tensor("hd.grad: the loss", loss))) do count = count * size end
  if count ~= 1 then fail("hd.grad: the loss %s must be one number; take hd.sum or hd.mean of it first", describe(loss)) end
  if core.is_node(tensors) then tensors = { tensors } end
  if type(tensors) ~= "table" or #tensors == 0 then fail("hd.grad: the second argument must be a list of tensors, got %s", kind_of(tensors)) end
  for i, x in ipairs(tensors) do tensor("hd.grad: tensor " .. i, x) end
  return table.unpack(core.gradients(loss, tensors))
end

-- f(...), whose inner tensors the backward pass computes again instead of keeping them.
function hd.recompute(f, ...)
  if type(f) ~= "function" then fail("hd.recompute: the first argument must be a function, got %s", kind_of(f)) end
  local opened = core.block(true)
  local out = table.pack(f(...))
  if opened then core.block(false) end
  return table.unpack(out, 1, out.n)
end

-- f(x) for a function of rows (the last axis), some rows at a time: what f makes inside needs memory for one chunk only, and
-- the backward pass makes it again, chunk by chunk. The parameters f makes are the same in every chunk.
function hd.in_chunks(f, x, chunks)
  if type(f) ~= "function" then fail("hd.in_chunks: the first argument must be a function, got %s", kind_of(f)) end
  chunks = integer("hd.in_chunks: chunks", chunks)
  local shape = shape_of(tensor("hd.in_chunks: x", x))
  local width, rows = shape[#shape], 1
  for i = 1, #shape - 1 do rows = rows * shape[i] end
  if chunks > rows or chunks > 32 then fail("hd.in_chunks: %d chunks of %d rows; 1 to %d are possible", chunks, rows, math.min(rows, 32)) end
  if chunks == 1 then return f(x) end
  local flat, parts, outer = hd.reshape(x, { rows, width }), {}, shared
  shared = outer or {}
  for i = 1, chunks do
    local first, last = (i - 1) * rows // chunks + 1, i * rows // chunks
    parts[i] = hd.recompute(f, hd.slice(flat, 1, first, last))
    local l = shape_of(tensor("hd.in_chunks: the function's result", parts[i]))
    if #l ~= 2 or l[1] ~= last - first + 1 then fail("hd.in_chunks: the function made %s of %d rows; each row must give one row", describe(parts[i]), last - first + 1) end
  end
  shared = outer
  local out = shape_of(parts[1])
  shape[#shape] = out[2]
  return hd.reshape(hd.concat(parts, 1), shape)
end

-- AdamW with warm-up and cosine. min_lr: where the cosine ends, as a fraction of lr. batch: sequences per step (0, the
-- default: the compiled micro-batch). clip: largest global gradient norm, 0 off. average: decay of the weights' running mean, 0 off.
local training_defaults = { lr = 1e-3, min_lr = 0.1, warmup = 100, decay = 0.1, clip = 1.0, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, average = 0.0 }
local training_meta = { __name = "training" }
function hd.training(given)
  local o = options("hd.training", given, { "lr", "min_lr", "warmup", "decay", "clip", "batch", "beta1", "beta2", "epsilon", "average" })
  local t = setmetatable({}, training_meta)
  for key, default in pairs(training_defaults) do t[key] = o[key] == nil and default or number("hd.training: " .. key, o[key], 0) end
  for _, key in ipairs { "min_lr", "beta1", "beta2", "average" } do number("hd.training: " .. key, t[key], 0, key == "min_lr" and 1.0000001 or 1) end
  t.warmup = integer("hd.training: warmup", t.warmup, 0)
  t.batch = integer("hd.training: batch", o.batch or 0, 0)
  return t
end

---------------------------------------------------------------------------------------------------- configuration

local configured

-- One of several words; the first is the default: hd.config { pattern = hd.one_of("strided", "causal") }.
local choice_meta = { __name = "choice" }
function hd.one_of(...)
  for i, word in ipairs { ... } do if type(word) ~= "string" then fail("hd.one_of: word %d must be text, got %s", i, kind_of(word)) end end
  if not ... then fail("hd.one_of needs at least one word") end
  return setmetatable({ ... }, choice_meta)
end

local function parse(flag, key, text, default)
  local function wrong(what) core.fail(("%s must be %s, got '%s'"):format(key, what, text), flag) end
  if getmetatable(default) == choice_meta then
    for _, word in ipairs(default) do if word == text then return text end end
    wrong("one of " .. quoted(default))
  elseif math.type(default) == "integer" then
    return math.tointeger(tonumber(text)) or wrong("a whole number such as " .. default)
  elseif math.type(default) == "float" then
    local value = tonumber(text)
    if not value or value ~= value or value - value ~= 0 then wrong("a number such as " .. default) end
    return value + 0.0
  elseif type(default) == "boolean" then
    if text == "true" or text == "false" then return text == "true" end
    wrong("true or false")
  end
  check_text(key, text, function(message) core.fail(message, flag) end)
  return text
end

local config_values

-- Keys of every language model, without being named in its hd.config: streams, sequences that entry `step` continues at once;
-- prefill_chunk, positions that `prefill` computes at once (0: chosen by the length).
local decoding, decoding_asked = { streams = 1, prefill_chunk = 0 }, nil

-- The model's sizes and choices with their defaults. -D key=value sets one, keeping the default's type.
function hd.config(defaults)
  if type(defaults) ~= "table" then fail("hd.config takes a table { key = default }, got %s", kind_of(defaults)) end
  if configured then fail("hd.config is called a second time; the first was %s", configured) end
  configured = core.where()
  local values, keys = {}, sorted_keys(defaults)
  for key, default in pairs(defaults) do
    if type(key) ~= "string" or not key:match("^[A-Za-z_][A-Za-z0-9_]*$") then fail("hd.config: key %s must be a name, so that -D can set it", kind_of(key)) end
    if getmetatable(default) == choice_meta then
      values[key] = default[1]
    elseif type(default) == "number" or type(default) == "string" or type(default) == "boolean" then
      if type(default) == "string" then check_text("hd.config: " .. key, default, core.fail) end
      values[key] = default
    else
      fail("hd.config: %s must be a number, text, true or false, or hd.one_of(...), got %s", key, kind_of(default))
    end
  end
  for _, override in ipairs(core.overrides()) do
    local flag = "-D " .. override
    local key, text = override:match("^([^=]*)=(.*)$")
    if not key then core.fail("a -D flag is key=value; keys of this spec: " .. table.concat(keys, ", "), flag) end
    if defaults[key] == nil and decoding[key] then
      decoding[key], decoding_asked = parse(flag, key, text, decoding[key]), flag
    elseif defaults[key] == nil then
      local like = near(key, keys)
      core.fail(("this spec has no key '%s'%s; its keys: %s; of every language model: streams, prefill_chunk"):format(key, like[1] and ("; did you mean %s?"):format(like[1]) or "", table.concat(keys, ", ")), flag)
    else
      values[key] = parse(flag, key, text, defaults[key])
    end
  end
  for key, value in pairs(values) do core.config(key, tostring(value)) end
  config_values = values
  return setmetatable(values, { __index = function(_, key) fail("the configuration has no key '%s'; it has: %s", tostring(key), table.concat(keys, ", ")) end })
end

---------------------------------------------------------------------------------------------------- scopes

-- A scope names parameters as checkpoints do: hd.scope("h.0"):scope("attn"):linear("c_attn", x, n) makes
-- "h.0.attn.c_attn.weight" and ".bias". Any function that takes a tensor first can be called through it, to name its result:
-- s:attention("attn", q, k, v, { ... }).
local scope_meta = {}

function hd.scope(name)
  if name ~= "" then check_name("hd.scope: the name", name) end
  return setmetatable({ name = name }, scope_meta)
end

local function path(scope, name)
  check_name("the name in a scope", name)
  return scope.name ~= "" and scope.name .. "." .. name or name
end

local function width_of(what, x)
  local shape = shape_of(tensor(what .. ": x", x))
  if #shape == 0 then fail("%s: x has no axes", what) end
  return shape[#shape]
end

-- Runs f with new nodes called `name`.
local function named(name, f, ...)
  local before = scope_name
  scope_name = name
  local out = table.pack(f(...))
  scope_name = before
  return table.unpack(out, 1, out.n)
end

function scope_methods:scope(name) return hd.scope(path(self, name)) end
function scope_methods:param(name, shape, how, given) return hd.param(path(self, name), shape, how, given) end

-- x [..., in] -> [..., out]: NAME.weight [out, in] ("in_out": [in, out]) and NAME.bias (bias = false: none).
function scope_methods:linear(name, x, out, given)
  local full = path(self, name)
  local what = 'linear "' .. full .. '"'
  local o = options(what, given, { "bias", "init", "layout" })
  local layout = choice(what .. ": layout", o.layout, "out_in", { "out_in", "in_out" })
  local inner = width_of(what, x)
  integer(what .. ": the width out", out)
  local w = hd.param(full .. ".weight", layout == "out_in" and { out, inner } or { inner, out }, o.init or hd.lecun_normal(inner))
  local b = o.bias ~= false and hd.param(full .. ".bias", { out }, hd.zeros()) or nil
  return named(full, hd.linear, x, w, b, { layout = layout })
end

-- NAME.weight (gain, starts at 1) and NAME.bias
function scope_methods:layer_norm(name, x, epsilon)
  local full, width = path(self, name), width_of("layer_norm", x)
  return named(full, hd.layer_norm, x, hd.param(full .. ".weight", { width }, hd.ones()), hd.param(full .. ".bias", { width }, hd.zeros()), epsilon)
end

function scope_methods:rms_norm(name, x, epsilon)
  local full = path(self, name)
  return named(full, hd.rms_norm, x, hd.param(full .. ".weight", { width_of("rms_norm", x) }, hd.ones()), epsilon)
end

-- ids [...] -> [..., width]: NAME.weight [rows, width]
function scope_methods:embedding(name, ids, rows, width, how)
  local full = path(self, name)
  return named(full, hd.embedding, hd.param(full .. ".weight", { rows, width }, how), ids)
end

-- Linear, activation, linear: NAME.fc and NAME.proj. activation: a function, or one of the names below; out: default x's
-- width. proj_init: the second weight's init, often scaled by depth.
function scope_methods:mlp(name, x, inner, given)
  local s = self:scope(name)
  local o = options('mlp "' .. s.name .. '"', given, { "activation", "init", "proj_init", "bias", "layout", "out" })
  local activation = o.activation or "gelu"
  if type(activation) ~= "function" then
    choice('mlp "' .. s.name .. '": activation', activation, nil, { "gelu", "gelu_tanh", "gelu_quick", "relu", "silu", "tanh", "sigmoid" })
    local kind = activation:match("^gelu_(.*)$")
    activation = kind and function(h) return hd.gelu(h, kind) end or hd[activation]
  end
  local h = s:linear("fc", x, inner, { init = o.init, bias = o.bias, layout = o.layout })
  return s:linear("proj", named(s.name, activation, h), o.out or width_of("mlp", x), { init = o.proj_init or o.init, bias = o.bias, layout = o.layout })
end

local through_scope = { "attention", "attention_gradient", "softmax", "gelu", "relu", "silu", "tanh", "sigmoid", "matmul", "expert_matmul", "top_k", "rope", "dropout", "shift",
                        "reshape", "transpose", "split", "slice", "concat", "sum", "mean", "max", "cross_entropy" }
for _, op in ipairs(through_scope) do
  scope_methods[op] = function(self, name, ...) return named(path(self, name), hd[op], ...) end
end
scope_meta.__index = function(_, name) return scope_methods[name] or unknown("scope", name, sorted_keys(scope_methods)) end

---------------------------------------------------------------------------------------------------- models

local has_model

local function begin_model(what, given, keys)
  local o = options(what, given, keys)
  if has_model then fail("%s: the spec makes a second model; the first was %s", what, has_model) end
  has_model = core.where()
  check_identifier(what .. ": name", o.name)
  return o
end

local close_checkpoint = checkpoint(core, check, hd)         -- checkpoint.lua: hd.checkpoint, for models/hf
local output_of = output(core, check, hd)                    -- output.lua: hd.image, hd.sound

local model_meta = { __name = "model" }
local function finish(model)
  local of = close_checkpoint()
  if model.language_model then model.bos, model.eos = model.bos or of.bos, model.eos or of.eos end
  core.model(model)
  return setmetatable({ name = model.name }, model_meta)
end

-- A model of entry points written by hand: entries = { forward = { inputs = { q, k }, outputs = { o = o } } }. Outputs are
-- a table name -> tensor (in the order of their names) or a list of { name, tensor } (in that order).
function hd.model(given)
  local o = begin_model("hd.model", given, { "name", "entries", "config" })
  if decoding_asked then core.fail("streams and prefill_chunk are keys of language models; this is hd.model", decoding_asked) end
  if type(o.entries) ~= "table" or not next(o.entries) then fail("hd.model: entries must be a table { forward = { inputs = { ... }, outputs = { ... } } }") end
  for name, entry in pairs(o.entries) do
    local what = "hd.model: entry " .. check_identifier("hd.model: the name of an entry", name)
    options(what, entry, { "inputs", "outputs" })
    local outputs, nodes, seen, listed = {}, {}, {}, {}
    if type(entry.outputs) ~= "table" then fail("%s: outputs must be a table { name = tensor }", what) end
    for key, value in pairs(entry.outputs) do
      local output, node = key, value
      if type(value) == "table" then output, node = value[1], value[2] end
      check_name(what .. ": the name of an output", output)
      if seen[output] then fail('%s: two outputs are called "%s"', what, output) end
      seen[output] = true
      outputs[#outputs + 1] = { name = output, node = tensor(what .. ': output "' .. output .. '"', node) }
      nodes[#nodes + 1] = node
    end
    if #outputs == 0 then fail("%s has no outputs", what) end
    local inputs = entry.inputs or core.inputs_of(nodes)
    if type(inputs) ~= "table" then fail("%s: inputs must be a list of tensors made by hd.input", what) end
    for i, x in ipairs(inputs) do
      local _, _, input_name, op = core.about(tensor(("%s: input %d"):format(what, i), x))
      if op ~= "input" then fail("%s: input %d is not made by hd.input", what, i) end
      listed[input_name] = true
    end
    for _, x in ipairs(core.inputs_of(nodes)) do
      local _, _, input_name = core.about(x)
      if not listed[input_name] then fail('%s: its outputs need the input "%s", which is not in its list', what, input_name) end
    end
    core.entry { name = name, inputs = inputs, outputs = outputs }
  end
  return finish { name = o.name }
end

-- A model that predicts the next token: entries forward (tokens i32 [batch, length] -> logits [batch, length, vocab]),
-- loss (tokens, targets -> loss, the mean of nll in nats; nll [batch, length]) and, with training, train_step. loss_chunks: loss
-- and train_step compute the logits in so many chunks of rows and never hold them all; 0, the default, chooses: large
-- vocabularies alone are worth it. 1 keeps them whole. tokenizer: the file (or its folder; from the spec's own folder on) that says
-- how text becomes tokens; without it tokens are bytes, or ids that the user makes. output: what tokens are if they are neither, made by
-- hd.image or hd.sound. bos_token_id: the token that a sample without a prompt begins after; eos_token_id: the one, or a list of those, that
-- end a sample (without them those of the checkpoint's configuration, or of the tokenizer).
function hd.language_model(given)
  local what = "hd.language_model"
  local o = begin_model(what, given, { "name", "config", "tokens", "logits", "training", "predicts", "loss_chunks", "tokenizer", "output", "bos_token_id", "eos_token_id" })
  if o.tokenizer == "" then o.tokenizer = nil end      -- a key of hd.config that nobody set
  if o.tokenizer ~= nil and type(o.tokenizer) ~= "string" then
    fail("%s: tokenizer must be the path of a tokenizer.json, vocab.json, vocab.txt or .model, or of a folder that holds one, got %s", what, kind_of(o.tokenizer))
  end
  local predicts = choice(what .. ": predicts", o.predicts, "next", { "next", "same" })
  local logits = tensor(what .. ": logits", o.logits)
  local tokens = o.tokens
  if tokens == nil then
    for _, x in ipairs(core.inputs_of { logits }) do
      local _, dtype, name = core.about(x)
      if dtype == "i32" and name ~= "random" then tokens = tokens and fail("%s: the logits have several i32 inputs; say which with tokens =", what) or x end
    end
    if not tokens then fail('%s: the logits depend on no tokens; make them with hd.input("tokens", { batch, length }, "i32")', what) end
  end
  local shape, dtype, _, op = core.about(tensor(what .. ": tokens", tokens))
  if op ~= "input" or dtype ~= "i32" or #shape ~= 2 then fail("%s: tokens must be an i32 input of [batch, length], got %s", what, describe(tokens)) end
  local batch, length, l = shape[1], shape[2], shape_of(logits)
  if #l ~= 3 or l[1] ~= batch or l[2] ~= length then
    fail("%s: the logits are %s; for tokens %s they must be [%d, %d, vocab]", what, describe(logits), describe(tokens), batch, length)
  end
  for _, x in ipairs(core.inputs_of { logits }) do
    local _, _, name = core.about(x)
    if x ~= tokens and x ~= random_input then fail('%s: the logits need the input "%s"; a language model has tokens only', what, name) end
  end

  local made = output_of(what, o.output, l[3], length)
  if made and o.tokenizer then fail("%s: output and tokenizer exclude each other: tokens are text, or pixels or sound", what) end
  local function id(key, value, ids)
    if not math.tointeger(value) or value < 0 or value >= ids then fail("%s: %s must be a token id, 0 to %d, got %s", what, key, ids - 1, kind_of(value)) end
    return math.tointeger(value)
  end
  local eos = o.eos_token_id
  if eos ~= nil then
    if type(eos) ~= "table" then eos = { eos } end
    if #eos > 16 then fail("%s: eos_token_id lists %d tokens; at most 16 are possible", what, #eos) end
    for i, x in ipairs(eos) do eos[i] = id("eos_token_id", x, l[3]) end
  end

  local targets = hd.input("targets", { batch, length }, "i32")
  local asked = integer(what .. ": loss_chunks", o.loss_chunks or 0, 0)
  if asked > 32 or asked > batch * length then fail("%s: loss_chunks is %d; 0 to %d are possible", what, asked, math.min(32, batch * length)) end
  local function chunks_of(scores)
    return core.loss_chunks(scores, asked) or
      fail("%s: loss_chunks needs logits made row by row: products of one tensor with weights, then elementwise steps such as a bias", what)
  end
  local function loss_of(scores)
    local chunks = chunks_of(scores)
    local nll = chunks > 1 and core.chunked_nll(scores, targets, chunks) or hd.cross_entropy(scores, targets)
    return hd.reshape(hd.mean(nll), { 1 }), nll
  end
  local clean = core.without_dropout(logits)
  local causal = core.is_causal(clean, tokens)
  core.entry { name = "forward", inputs = { tokens }, outputs = { { name = "logits", node = clean } }, causal = causal }
  local loss, nll = loss_of(clean)
  local entry = core.entry { name = "loss", inputs = { tokens, targets }, outputs = { { name = "loss", node = loss }, { name = "nll", node = nll } }, causal = causal }

  local training
  if o.training ~= nil then
    training = o.training
    if getmetatable(training) ~= training_meta then fail("%s: training must be made by hd.training { ... }, got %s", what, kind_of(training)) end
    training.batch = training.batch > 0 and training.batch or batch
    if training.batch % batch ~= 0 then
      fail("hd.training: batch %d is no multiple of the compiled micro-batch %d; nearest: %s%d", training.batch, batch,
           training.batch > batch and training.batch // batch * batch .. ", " or "", (training.batch // batch + 1) * batch)
    end
    if clean ~= logits then
      local noisy, noisy_nll = loss_of(logits)
      entry = core.entry { name = "loss", hidden = true, inputs = { tokens, targets }, outputs = { { name = "loss", node = noisy }, { name = "nll", node = noisy_nll } } }
    end
  end
  local streams, chunk = decoding.streams, decoding.prefill_chunk
  if streams < 1 or streams > 256 then core.fail(("streams must be 1 to 256, got %d"):format(streams), decoding_asked) end
  if chunk < 0 or chunk == 1 or chunk > length then core.fail(("prefill_chunk must be 2 to the length, %d, or 0 for a choice by it; got %d"):format(length, chunk), decoding_asked) end
  local model = finish { name = o.name, language_model = true, streams = streams, prefill_chunk = chunk, tokens = tokens, predicts_same = predicts == "same", length = length, vocab = l[3], batch = batch, tokenizer = o.tokenizer, training = training,
                         output = made, bos = o.bos_token_id and id("bos_token_id", o.bos_token_id, math.maxinteger), eos = eos }
  if training then core.train_step(entry, logits, targets, chunks_of(logits)) end
  return model
end

-- Attention over one pattern (or a list, one for each head) alone: entry `forward`, q, k, v -> o, each [heads, length, head_dim].
-- What a spec that returns a pattern stands for, as `heddle view` wants one. length (and keys, heads, head_dim, if they are there) come from hd.config.
function hd.pattern_model(pattern)
  local what = "a spec that returns a pattern"
  local list = core.is_pattern(pattern) and { pattern } or pattern
  if type(list) ~= "table" or not core.is_pattern(list[1]) then fail("%s: the spec returns %s; it must return a model or a pattern", what, kind_of(pattern)) end
  local function size(key, default)
    local value = config_values and rawget(config_values, key)
    if value == nil or value == 0 then value = default end
    if value == nil then fail("%s needs a length: hd.config { %s = 1024 }", what, key) end
    return integer(what .. ": " .. key, value)
  end
  local length, heads, head_dim = size("length"), size("heads", #list), size("head_dim", 64)
  local keys = size("keys", length)
  local q, k, v = hd.input("q", { heads, length, head_dim }), hd.input("k", { heads, keys, head_dim }), hd.input("v", { heads, keys, head_dim })
  return hd.model { name = "pattern", entries = { forward = { inputs = { q, k, v }, outputs = { o = hd.attention(q, k, v, { heads = heads, pattern = pattern, layout = "heads_first" }) } } } }
end

---------------------------------------------------------------------------------------------------- operators

local operators = core.node_operators
operators.__add, operators.__sub, operators.__mul, operators.__div = hd.add, hd.sub, hd.mul, hd.div
operators.__pow = power
operators.__unm = function(x) return hd.neg(x) end
operators.__len = function(x) return #shape_of(x) end
operators.__tostring = function(x) return select(4, core.about(x)) .. " " .. describe(x) end
operators.__index = function(x, key)
  local shape, dtype, name = core.about(x)
  if key == "shape" then return shape end
  if key == "dtype" then return dtype end
  if key == "name" then return name end
  return hd[key]
end
core.node_operators = nil

return setmetatable(hd, { __index = function(_, name) unknown("hd", name, sorted_keys(hd)) end })
