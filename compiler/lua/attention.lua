-- Attention: its options, what else enters the scores, and its gradient. Part of heddle.lua, which hands over hd and how nodes are
-- added; scope() is the name that new nodes get.
local core, check, hd, add, scope = ...
local fail, kind_of, options, integer, number, choice, shape_of, describe, tensor =
  check.fail, check.kind_of, check.options, check.integer, check.number, check.choice, check.shape_of, check.describe, check.tensor

local attention_keys = { "heads", "kv_heads", "pattern", "scale", "layout", "softcap", "alibi", "offset", "sinks", "bias", "max_distance", "t5",
                         "key_bias", "multiplicity", "edge_bias", "lengths", "documents" }

-- The slopes of ALiBi (Press et al. 2022, arXiv 2108.12409), head by head: 2^(-8/n), 2^(-16/n), ... for n heads, a power of two;
-- for other numbers those of the power of two below, then every other one of the power of two above.
function hd.alibi_slopes(heads)
  integer("hd.alibi_slopes: heads", heads)
  local power, slopes = 1, {}
  while 2 * power <= heads do power = 2 * power end
  for h = 1, power do slopes[h] = 2.0 ^ (-8 * h / power) end
  for h = power + 1, heads do slopes[h] = 2.0 ^ (-8 * (2 * (h - power) - 1) / (2 * power)) end
  return slopes
end

-- Which column of a bias table a distance d = i - j reads: { first, of, buckets }, d reading of[1 + clamp(d - first, 0, #of - 1)].
--   { max_distance = m }             one for every d from -m to m; beyond, those of -m and m; causal = true: 0 to m
--   { t5 = { buckets = 32, max_distance = 128, bidirectional = true } }   T5's rule (Raffel et al. 2020, arXiv 1910.10683): half of
--   the buckets (of each direction, if bidirectional; keys after the query then have the upper half) for one distance each, the
--   others for distances that grow by equal factors up to max_distance, and for all beyond.
function hd.relative_buckets(given)
  local what = "hd.relative_buckets"
  local o = options(what, given, { "max_distance", "causal", "t5" })
  if (o.t5 == nil) == (o.max_distance == nil) then fail("%s: give either max_distance, or t5 = { buckets = 32, max_distance = 128, bidirectional = true }", what) end
  local of, most = {}, 1 << 16
  if o.max_distance then
    local m = integer(what .. ": max_distance", o.max_distance, 0)
    if m > most then fail("%s: max_distance must be at most %d, got %d", what, most, m) end
    local first = o.causal and 0 or -m
    for d = first, m do of[#of + 1] = d - first end
    return { first = first, of = of, buckets = #of }
  end
  local t5 = options(what .. ": t5", o.t5, { "buckets", "max_distance", "bidirectional" })
  local buckets, m = integer(what .. ": t5's buckets", t5.buckets or 32), integer(what .. ": t5's max_distance", t5.max_distance or 128)
  local both = t5.bidirectional ~= false
  local own = both and buckets // 2 or buckets              -- buckets of one direction
  local exact = own // 2
  if exact < 1 then fail("%s: t5's buckets must be %d or more, got %d", what, both and 4 or 2, buckets) end
  if m <= exact or m > most then fail("%s: t5's max_distance must be more than the %d distances with a bucket of their own, and at most %d, got %d", what, exact, most, m) end
  local function bucket(distance)
    if distance < exact then return distance end
    -- a little more than exact, so that powers that meet a border fall on its upper side
    return math.min(own - 1, exact + math.floor(math.log(distance / exact) / math.log(m / exact) * (own - exact) + 1e-7))
  end
  for d = both and -m or 0, m do of[#of + 1] = bucket(math.abs(d)) + (d < 0 and own or 0) end
  return { first = both and -m or 0, of = of, buckets = buckets }
end

-- Numbers of a list, one for each of `count`.
local function number_list(what, list, count)
  for i = 1, math.max(#list, count) do
    if i > count then fail("%s: the list has %d numbers; there must be %d", what, #list, count) end
    if number(("%s: number %d of the list"):format(what, i), list[i]) - list[i] ~= 0 then fail("%s: number %d of the list must be finite", what, i) end
  end
  return list
end

-- Inputs and attributes of attention from its options. Extra inputs come in the order of C's HD_WITH_*.
local function attention_inputs(what, q, k, v, o)
  local inputs = { tensor(what .. ": q", q), tensor(what .. ": k", k), tensor(what .. ": v", v) }
  local attributes = { heads_first = choice(what .. ": layout", o.layout, "heads_last", { "heads_last", "heads_first" }) == "heads_first", with = 0 }
  attributes.heads = integer(what .. ": heads", o.heads)
  attributes.kv_heads = o.kv_heads and integer(what .. ": kv_heads", o.kv_heads) or 0
  if o.scale ~= nil and number(what .. ": scale", o.scale) == 0 then fail("%s: scale must not be 0", what) end
  if o.scale and math.abs(o.scale) > 1e30 then fail("%s: scale must be within 1e30 of 0, got %g", what, o.scale) end
  attributes.scale = o.scale or 0                     -- 0: 1/sqrt(head_dim)
  local pattern = o.pattern
  if core.is_pattern(pattern) then pattern = { pattern } end
  if type(pattern) ~= "table" then fail("%s: pattern must be a pattern such as hd.pattern.causal(), or a list of one per head, got %s", what, kind_of(pattern)) end
  local count = 0
  for key, p in pairs(pattern) do
    count = count + 1
    if key ~= count or not core.is_pattern(p) then fail("%s: element %s of the pattern list is %s; every head needs a pattern", what, tostring(key), kind_of(p)) end
  end
  if count ~= 1 and count ~= attributes.heads or count == 1 and attributes.heads > 1 and not core.is_pattern(o.pattern) then
    fail("%s: the pattern list has %d element%s for %d heads; give one pattern for all, or one for each head", what, count, count == 1 and "" or "s", attributes.heads)
  end
  attributes.patterns = pattern

  if o.softcap ~= nil then
    attributes.softcap = number(what .. ": softcap", o.softcap, 0)
    if o.softcap == 0 then fail("%s: softcap must be above 0; leave it out for none", what) end
    if o.softcap < 1e-30 or o.softcap > 1e30 then fail("%s: softcap must be 1e-30 to 1e30, got %g", what, o.softcap) end
  end
  attributes.offset = 0
  if o.offset ~= nil then attributes.offset = integer(what .. ": offset", o.offset, -(1 << 30)) end
  if o.alibi == true then attributes.alibi = hd.alibi_slopes(attributes.heads)
  elseif type(o.alibi) == "table" then attributes.alibi = number_list(what .. ": alibi", o.alibi, attributes.heads)
  elseif o.alibi then fail("%s: alibi must be true, or a list of one slope per head, got %s", what, kind_of(o.alibi)) end

  local q_shape, k_shape = shape_of(q), shape_of(k)
  local queries, keys = q_shape[#q_shape - 1], k_shape[#k_shape - 1]
  local function extra(bit, x)
    attributes.with = attributes.with | bit
    inputs[#inputs + 1] = x
  end
  if o.sinks ~= nil then extra(1, tensor(what .. ": sinks", o.sinks)) end
  if o.bias ~= nil then
    local bias = shape_of(tensor(what .. ": bias", o.bias))
    if o.t5 ~= nil and o.max_distance ~= nil or o.t5 == nil and o.max_distance == nil then
      fail("%s: bias needs either max_distance, or t5 = { buckets = 32, max_distance = 128, bidirectional = true }: which distance reads which column", what)
    end
    local m = o.max_distance ~= nil and integer(what .. ": max_distance", o.max_distance, 0) or nil
    if m and bias[2] ~= m + 1 and bias[2] ~= 2 * m + 1 then
      fail("%s: bias %s must be [%d, %d] for distances 0 to %d, or [%d, %d] for -%d to %d", what, describe(o.bias), attributes.heads, m + 1, m, attributes.heads, 2 * m + 1, m, m)
    end
    attributes.buckets = hd.relative_buckets { max_distance = m, causal = m and bias[2] == m + 1, t5 = o.t5 }
    extra(2, o.bias)
  elseif o.max_distance ~= nil or o.t5 ~= nil then
    fail("%s: %s says which column of bias a distance reads; there is no bias", what, o.t5 ~= nil and "t5" or "max_distance")
  end
  local key_bias = o.key_bias ~= nil and tensor(what .. ": key_bias", o.key_bias) or nil
  if o.multiplicity ~= nil then
    local times = o.multiplicity
    if type(times) == "table" then
      local logs = {}
      for j, x in ipairs(number_list(what .. ": multiplicity", times, keys)) do
        if x < 0 then fail("%s: multiplicity %d of the list is %g; it must be 0 or more", what, j, x) end
        logs[j] = math.log(x)
      end
      times = add("table", {}, { values = logs }, { keys })
    else
      times = hd.log(tensor(what .. ": multiplicity, a list of numbers or a tensor", times))
    end
    key_bias = key_bias and hd.add(key_bias, times) or times
  end
  if key_bias then extra(4, key_bias) end
  if o.edge_bias ~= nil then extra(8, tensor(what .. ": edge_bias", o.edge_bias)) end
  if o.lengths ~= nil and o.documents ~= nil then fail("%s: give lengths or documents, not both", what) end
  local run_time = o.lengths or o.documents
  if run_time ~= nil then
    local name, sequences = o.lengths ~= nil and "lengths" or "documents", 1
    for axis = 1, #q_shape - (attributes.heads_first and 3 or 2) do sequences = sequences * q_shape[axis] end
    local shape = shape_of(tensor(what .. ": " .. name, run_time))
    local wanted = o.lengths ~= nil and { sequences } or { sequences, queries }
    if #shape ~= #wanted or shape[1] ~= wanted[1] or shape[2] ~= wanted[2] then
      fail("%s: %s %s must be [%s]: %s", what, name, describe(run_time), table.concat(wanted, ", "), o.lengths ~= nil and "one for each sequence" or "an id for each position of each sequence")
    end
    extra(16, add("key_bounds", { run_time }, { documents = o.documents ~= nil, queries = queries, keys = keys }))
  end
  return inputs, attributes
end

local function check_lengths(patterns, q, k)
  local queries, keys = shape_of(q), shape_of(k)
  for _, p in ipairs(patterns) do core.check_lengths(p, queries[#queries - 1], keys[#keys - 1]) end
end

-- out_i = sum_j softmax_j(score_ij) v_j over the keys j that the pattern keeps for query i; a query without keys gets 0. The score
-- starts as scale q_i . k_j; then, with d = i + offset - j, and only where given, in this order:
--   softcap = c             c tanh(score / c)                                          (Gemma 2, arXiv 2408.00118)
--   alibi = true or slopes  - slope |d|, a slope for each head; true: hd.alibi_slopes   (arXiv 2108.12409)
--   bias = [heads, n]       + bias[head][bucket of d], with one of
--     max_distance = m        a bucket for every d from 0 to m (n = m + 1) or -m to m (n = 2 m + 1); those beyond read the last ones
--     t5 = { buckets = 32, max_distance = 128, bidirectional = true }   T5's buckets; hd.relative_buckets shows both
--   key_bias = [keys] or [sequences, keys]      + key_bias[j]
--   multiplicity = m        + log m[j], as if key j were there m[j] times, or not at all: a list of numbers, or a tensor as key_bias
--   edge_bias = [pairs] or [heads, pairs]       + one for each pair the pattern keeps, by query, then key: P.edges' edge weights
-- offset: position of query 0 among the keys (default 0). sinks = [heads]: one more score for each head that takes part in the
-- softmax, without a value (gpt-oss). Known only at run time, and intersected with the pattern: lengths = i32 [sequences], only keys
-- below it are read; documents = i32 [sequences, length], ids: only keys of the query's run of equal ids are read.
-- All of these tensors but lengths and documents have gradients. sequences: the product of the axes before those named here:
-- layout "heads_last": q [..., queries, heads * head_dim], k, v [..., keys, kv_heads * head_dim];
-- "heads_first": q [..., heads, queries, head_dim], k, v [..., kv_heads, keys, head_dim].
-- pattern: one, or a list of one per head. scale: default 1/sqrt(head_dim).
-- lse = true returns log sum_j exp(score_ij), the sink included, [..., heads, queries], as a second result.
function hd.attention(q, k, v, given)
  local keys = { table.unpack(attention_keys) }
  keys[#keys + 1] = "lse"
  local o = options("hd.attention", given, keys)
  local inputs, attributes = attention_inputs("hd.attention", q, k, v, o)
  local out = add("attention", inputs, attributes)
  check_lengths(attributes.patterns, q, k)
  if o.lse then return out, core.result(out, 1) end
  return out
end

-- The gradient of attention from its results: dq, dk, dv for d_out = d(loss)/d(out), and then those of sinks, bias, key_bias and
-- edge_bias, of them that were given. Options as for hd.attention.
function hd.attention_gradient(q, k, v, out, lse, d_out, given)
  local what, results = "hd.attention_gradient", { out, lse, d_out }
  for i, name in ipairs { "out", "lse", "d_out" } do tensor(what .. ": " .. name, results[i]) end
  local o = options(what, given, attention_keys)
  local inputs, attributes = attention_inputs(what, q, k, v, o)
  check_lengths(attributes.patterns, q, k)
  local gradients, returned = core.attention_gradients(inputs, results, attributes, scope()), {}
  for i, gradient in ipairs(gradients) do
    local key_bias = i == 4 + (o.sinks and 1 or 0) + (o.bias and 1 or 0) and attributes.with & 4 ~= 0
    if key_bias and o.key_bias and #shape_of(gradient) > #shape_of(o.key_bias) then gradient = hd.sum(gradient, 1) end      -- multiplicity differs by sequence
    if gradient and not (key_bias and o.key_bias == nil) then returned[#returned + 1] = gradient end
  end
  return table.unpack(returned)
end
