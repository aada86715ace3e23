-- hd.pattern: which keys each query may read.
--
-- A pattern is a set of pairs (query i, key j). Operators: a & b (pairs in both), a | b (in either), a - b (in the first but not
-- in the second). Lua binds - tighter than &, and & tighter than |, so write the parentheses.
-- Questions: p:row(i [, keys]), p:kept_pairs(queries [, keys]), p:empty_rows(queries [, keys]), p:is_causal(queries [, keys]),
-- p:keeps(i, j). Positions count from 0, as in the papers.
--
-- Functions that take `head` or `heads` differ from head to head: head = h gives the pattern of head h (from 0), heads = n the
-- list of n patterns that hd.attention takes.
local core, check = ...
local fail, unknown, sorted_keys, kind_of, options, integer, choice =
  check.fail, check.unknown, check.sorted_keys, check.kind_of, check.options, check.integer, check.choice

local P = {}

local function table_of(what, given, example)
  if type(given) ~= "table" or core.is_pattern(given) then fail("%s takes a table such as %s, got %s", what, example, kind_of(given)) end
end

local function flag(what, value, default)
  if value == nil then return default end
  if type(value) ~= "boolean" then fail("%s must be true or false, got %s", what, kind_of(value)) end
  return value
end

-- Whole numbers as disjoint ranges { first, end }, end not included. given: a number, a list of them, or { first = a, last = b }.
local function ranges(what, given, least)
  if math.type(given) == "integer" then given = { given } end
  if type(given) ~= "table" then fail("%s must be a whole number, a list of them, or { first = a, last = b }, got %s", what, kind_of(given)) end
  if given.first ~= nil or given.last ~= nil then
    local o = options(what, given, { "first", "last" })
    local first = integer(what .. ": first", o.first, least)
    return { { first, integer(what .. ": last", o.last, first) + 1 } }
  end
  local sorted = {}
  for key, value in pairs(given) do
    if key ~= #sorted + 1 then fail("%s: a list has no element %s; valid: whole numbers in a row, or first and last", what, kind_of(key)) end
    sorted[key] = integer(("%s: element %d"):format(what, key), value, least)
  end
  if #sorted == 0 then fail("%s: the list is empty", what) end
  table.sort(sorted)
  local out = {}
  for _, value in ipairs(sorted) do
    local range = out[#out]
    if range and value <= range[2] then range[2] = math.max(range[2], value + 1)
    else out[#out + 1] = { value, value + 1 } end
  end
  return out
end

local function union(list)
  local all = list[1]
  for i = 2, #list do all = all | list[i] end
  return all
end

local function each_range(kind, list, ...)
  local out = {}
  for i, range in ipairs(list) do
    local arguments = { ... }
    arguments[#arguments + 1], arguments[#arguments + 2] = range[1], range[2]
    out[i] = core.pattern(kind, table.unpack(arguments))
  end
  return union(out)
end

-- One pattern, or a list of one per head, from a function of the head.
local function per_head(what, o, make)
  if o.head ~= nil and o.heads ~= nil then fail("%s: give head (one head's pattern) or heads (a list of all), not both", what) end
  if o.heads == nil then return make(integer(what .. ": head", o.head or 0, 0)) end
  local list = {}
  for head = 0, integer(what .. ": heads", o.heads) - 1 do list[head + 1] = make(head, o.heads) end
  return list
end

---------------------------------------------------------------------------------------------------- primitives

function P.full() return core.pattern("full") end                            -- every key
-- Keys up to the query's own position. offset: query i stands at position i + offset of the keys; keys - queries aligns the last
-- query with the last key, as when queries are the newest positions.
function P.causal(offset)
  if offset == nil or offset == 0 then return core.pattern("causal") end
  return core.pattern("window", math.abs(integer("P.causal: offset", offset, -(1 << 40))) + (1 << 40), offset)
end
function P.stride(step)                                              -- keys whose distance is a multiple of step
  return core.pattern("stride", integer("P.stride: the stride", step))
end

-- keys = w: w keys up to the query's own, which counts. left, right: so many before and after, the own key besides.
-- dilation = d: every d-th key, so that the same number reaches d times as far.
function P.window(given)
  local example = "{ keys = w } (the query's own included) or { left = a, right = b }"
  if type(given) ~= "table" then fail("P.window takes %s, got %s", example, kind_of(given)) end
  local o = options("P.window", given, { "keys", "left", "right", "dilation" })
  local dilation = integer("P.window: dilation", o.dilation or 1)
  if o.keys ~= nil and (o.left or o.right) then fail("P.window: give keys, or left and right, not both") end
  if o.keys == nil and o.left == nil and o.right == nil then fail("P.window takes %s; none is given", example) end
  local left = o.keys and integer("P.window: keys", o.keys) - 1 or integer("P.window: left", o.left or 0, 0)
  local right = o.keys and 0 or integer("P.window: right", o.right or 0, 0)
  if math.max(left, right) > (1 << 60) // dilation then fail("P.window: dilation %d times %d keys is more than 2^60", dilation, math.max(left, right)) end
  local window = core.pattern("window", left * dilation, right * dilation)
  return dilation == 1 and window or window & core.pattern("stride", dilation)
end

function P.chunk(l)                                                  -- keys of the query's own chunk of l positions
  return core.pattern("chunk", integer("P.chunk: the length", l), 0, 0)
end
function P.previous_chunk(l)                                         -- all keys of the chunk before
  return core.pattern("chunk", integer("P.previous_chunk: the length", l), 1, -1)
end
-- All keys of the query's own chunk, of so many chunks before it and of so many after it.
function P.chunk_window(given)
  table_of("P.chunk_window", given, "{ chunk = 64, before = 1, after = 1 }")
  local o = options("P.chunk_window", given, { "chunk", "before", "after" })
  return core.pattern("chunk", integer("P.chunk_window: chunk", o.chunk), integer("P.chunk_window: before", o.before or 0, 0),
                      integer("P.chunk_window: after", o.after or 0, 0))
end

-- Keys j with j mod period among the given: a number, a list, or { first = a, last = b }.
function P.residues(period, given)
  integer("P.residues: the period", period)
  local list = ranges("P.residues: the residues", given, 0)
  if list[#list][2] > period then fail("P.residues: residue %d does not exist for period %d; valid: 0 to %d", list[#list][2] - 1, period, period - 1) end
  return each_range("residues", list, period)
end

-- Keys that every query reads, queries that read every key, tokens that are both. A number, a list, or { first = a, last = b }.
function P.keys(given) return each_range("keys", ranges("P.keys", given, 0)) end
function P.queries(given) return each_range("queries", ranges("P.queries", given, 0)) end
function P.tokens(given)
  local list = ranges("P.tokens", given, 0)
  return each_range("keys", list) | each_range("queries", list)
end
function P.prefix(count) return core.pattern("keys", 0, integer("P.prefix: the number of keys", count)) end      -- the first keys

-- The list of patterns of `heads` heads from a function of the head (from 0).
function P.per_head(heads, make)
  if type(make) ~= "function" then fail("P.per_head takes the number of heads and a function of the head, got %s", kind_of(make)) end
  local list = {}
  for head = 0, integer("P.per_head: the number of heads", heads) - 1 do
    list[head + 1] = make(head)
    if not core.is_pattern(list[head + 1]) then fail("P.per_head: the function must return a pattern; for head %d it returned %s", head, kind_of(list[head + 1])) end
  end
  return list
end

---------------------------------------------------------------------------------------------------- grids

local function sizes(what, given, least, axes)
  if math.type(given) == "integer" and axes then local list = {} for k = 1, axes do list[k] = given end given = list end
  if type(given) ~= "table" or #given == 0 or axes and #given ~= axes then
    fail("%s must be a list of %s whole numbers, one for each axis, got %s", what, axes or "1 to 4", type(given) == "table" and "a list of " .. #given or kind_of(given))
  end
  if #given > 4 then fail("%s: a grid has at most 4 axes, got %d", what, #given) end
  for k, value in ipairs(given) do integer(("%s: axis %d"):format(what, k), value, least) end
  return given
end

local function flags(what, given, axes)
  local list = type(given) == "table" and given or {}
  if type(given) == "table" and #given ~= axes then fail("%s must have %d elements, one for each axis, got %d", what, axes, #given) end
  for k = 1, axes do list[k] = flag(what, type(given) == "table" and given[k] or type(given) ~= "table" and given or false, false) end
  return list
end

-- Keys that differ from the query's own at most in one coordinate, of axis `axis` (from 1), of a grid in row-major order.
-- size = { rows, columns }: axis 1 is the column through the query (its row changes), axis 2 the row.
function P.axis(given)
  table_of("P.axis", given, "{ size = { 32, 32 }, axis = 1 }")
  local o = options("P.axis", given, { "size", "axis" })
  local size = sizes("P.axis: size", o.size)
  local axis = integer("P.axis: axis", o.axis)
  if axis > #size then fail("P.axis: axis %d does not exist; the grid has %d", axis, #size) end
  local inner = 1
  for k = axis + 1, #size do inner = inner * size[k] end
  if axis == 1 then return P.stride(inner) end
  return inner == 1 and P.chunk(size[axis]) or P.chunk(inner * size[axis]) & P.stride(inner)
end

-- All axes of a grid, or those of the list `axes`.
function P.axial(given)
  table_of("P.axial", given, "{ size = { 32, 32 } }")
  local o = options("P.axial", given, { "size", "axes" })
  local list, axes = {}, o.axes
  if axes == nil then axes = {} for k = 1, #sizes("P.axial: size", o.size) do axes[k] = k end end
  if type(axes) ~= "table" or #axes == 0 then fail("P.axial: axes must be a list of axes, got %s", kind_of(axes)) end
  for k, axis in ipairs(axes) do list[k] = P.axis { size = o.size, axis = axis } end
  return union(list)
end

-- Keys at most so many steps before and after the query's own coordinate, on every axis; not moved at the ends. Numbers or lists
-- of one for each axis. start: the grid's first position, when others come before it (a text before an image).
function P.grid_window(given)
  local what = "P.grid_window"
  table_of(what, given, "{ size = { 32, 32 }, before = 3, after = 3 }")
  local o = options(what, given, { "size", "before", "after", "dilation", "start" })
  local size = sizes(what .. ": size", o.size)
  local before, after = sizes(what .. ": before", o.before or 0, 0, #size), sizes(what .. ": after", o.after or 0, 0, #size)
  local dilation, axes = sizes(what .. ": dilation", o.dilation or 1, 1, #size), {}
  for k, n in ipairs(size) do axes[k] = { kind = "window", size = n, left = before[k], right = after[k], dilation = dilation[k] } end
  return core.grid(integer(what .. ": start", o.start or 0, 0), table.unpack(axes))
end

-- Neighbourhood attention as NATTEN defines it (Hassani et al. 2023 and 2025, arXiv 2204.07143, 2504.16922): `kernel` keys around
-- the query on every axis, moved inward at the ends so that there are always so many. stride: so many neighbours share a
-- neighbourhood (kernel = stride: Swin's windows). dilation: every dilation-th. causal: only keys up to the own coordinate.
function P.natten(given)
  local what = "P.natten"
  table_of(what, given, "{ size = { 64, 64 }, kernel = 7 }")
  local o = options(what, given, { "size", "kernel", "stride", "dilation", "causal", "start" })
  local size = sizes(what .. ": size", o.size)
  local kernel, stride = sizes(what .. ": kernel", o.kernel, 1, #size), sizes(what .. ": stride", o.stride or 1, 1, #size)
  local dilation, causal, axes = sizes(what .. ": dilation", o.dilation or 1, 1, #size), flags(what .. ": causal", o.causal, #size), {}
  for k, n in ipairs(size) do
    if kernel[k] > n // dilation[k] then fail("%s: axis %d: kernel %d times dilation %d is more than its %d positions", what, k, kernel[k], dilation[k], n) end
    if stride[k] > kernel[k] then fail("%s: axis %d: stride %d is more than the kernel of %d; keys between neighbourhoods would be lost", what, k, stride[k], kernel[k]) end
    axes[k] = { kind = "clamped", size = n, kernel = kernel[k], stride = stride[k], dilation = dilation[k], causal = causal[k] }
  end
  return core.grid(integer(what .. ": start", o.start or 0, 0), table.unpack(axes))
end

-- Swin (Liu et al. 2021, arXiv 2103.14030): the grid cut into windows of `window` positions on every axis, the cuts moved by
-- `shift`; windows at the ends are smaller then, as Swin's masks make them.
function P.swin(given)
  local what = "P.swin"
  table_of(what, given, "{ size = { 56, 56 }, window = 7, shift = 3 }")
  local o = options(what, given, { "size", "window", "shift" })
  local size = sizes(what .. ": size", o.size)
  local window, shift, axes = sizes(what .. ": window", o.window, 1, #size), sizes(what .. ": shift", o.shift or 0, 0, #size), {}
  for k, n in ipairs(size) do axes[k] = { kind = "chunk", size = n, kernel = window[k], offset = (window[k] - shift[k] % window[k]) % window[k] } end
  return core.grid(0, table.unpack(axes))
end

---------------------------------------------------------------------------------------------------- data

-- Keys of the query's own document, for documents of these lengths one after the other.
function P.documents(lengths)
  if type(lengths) ~= "table" or #lengths == 0 then fail("P.documents takes the list of their lengths, got %s", type(lengths) == "table" and "an empty list" or kind_of(lengths)) end
  return core.documents(lengths)
end

-- Blocks of `block` positions: layout is a list of rows of 0 and 1 (one for each block of keys), or rows a list, for each block
-- of queries, of the blocks of keys it reads, from 0; then columns says how many blocks of keys there are (as many as rows).
function P.blocks(given)
  local what = "P.blocks"
  table_of(what, given, "{ block = 64, layout = { { 1, 0 }, { 1, 1 } } }")
  local o = options(what, given, { "block", "layout", "rows", "columns" })
  local block, rows, columns = integer(what .. ": block", o.block), o.rows, o.columns
  if (o.layout == nil) == (o.rows == nil) then fail("%s: give layout (rows of 0 and 1) or rows (lists of blocks)", what) end
  local list = o.layout or rows
  if type(list) ~= "table" or #list == 0 then fail("%s: %s must be a list of rows, got %s", what, o.layout and "layout" or "rows", kind_of(list)) end
  if o.layout then
    rows, columns = {}, nil
    for r, row in ipairs(o.layout) do
      if type(row) ~= "table" or columns and #row ~= columns then fail("%s: row %d of the layout must have %s elements, got %s", what, r - 1, columns or "some", type(row) == "table" and #row or kind_of(row)) end
      columns, rows[r] = #row, {}
      for c, value in ipairs(row) do
        if value ~= 0 and value ~= 1 then fail("%s: row %d, column %d of the layout is %s; valid: 0 and 1", what, r - 1, c - 1, kind_of(value)) end
        if value == 1 then rows[r][#rows[r] + 1] = c - 1 end
      end
    end
  end
  return core.blocks(block, integer(what .. ": columns", columns or #list), rows, ("blocks of %d"):format(block))
end

-- A generator of whole numbers below n that gives the same ones everywhere: splitmix64 (Steele et al. 2014).
local function random_below(seed)
  local state = seed
  return function(n)
    state = state + 0x9E3779B97F4A7C15
    local z = state
    z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ~ (z >> 27)) * 0x94D049BB133111EB
    return (z ~ (z >> 31)) % n
  end
end

-- For each block of `block` queries, `count` blocks of keys drawn without repetition: all of the length's, or, causal, those
-- up to its own; not those within `apart` blocks of its own (apart = 1: its neighbours and itself), nor the first `after`, nor
-- the last `before_end`. Rows with fewer to choose from read them all. The same seed gives the same blocks on every machine.
function P.random_blocks(given)
  local what = "P.random_blocks"
  table_of(what, given, "{ length = 4096, block = 64, count = 3, seed = 1 }")
  local o = options(what, given, { "length", "block", "count", "seed", "causal", "apart", "after", "before_end" })
  local length, block, count = integer(what .. ": length", o.length), integer(what .. ": block", o.block), integer(what .. ": count", o.count, 0)
  local apart, after, before_end = integer(what .. ": apart", o.apart or -1, -1), integer(what .. ": after", o.after or 0, 0), integer(what .. ": before_end", o.before_end or 0, 0)
  local causal, below = flag(what .. ": causal", o.causal, false), random_below(integer(what .. ": seed", o.seed or 0, 0))
  local all, rows = (length + block - 1) // block, {}
  for r = 0, all - 1 do
    -- candidates: two ranges of blocks, before and after the own neighbourhood
    local last = causal and r or all - 1 - before_end
    local near, far = math.min(r - apart, last + 1), math.max(r + apart + 1, after)
    if apart < 0 then near, far = last + 1, last + 1 end
    local left, right = math.max(0, near - after), math.max(0, last + 1 - far)
    local taken, row = {}, {}
    for k = 0, math.min(count, left + right) - 1 do       -- Floyd's method would do as well; swaps keep every choice equally likely
      local pick = k + below(left + right - k)
      local value = taken[pick] or pick
      taken[pick] = taken[k] or k
      row[#row + 1] = value < left and after + value or far + value - left
    end
    rows[r + 1] = row
  end
  return core.blocks(block, all, rows, ("%d random blocks of %d"):format(count, block))
end

-- A graph: query `destination` reads key `source`. file: text of "source destination" lines in the spec's folder; or list = { {
-- source, destination }, ... }. symmetric: both ways. self: every node reads itself.
function P.edges(given)
  local what = "P.edges"
  table_of(what, given, "{ nodes = 2708, file = \"edges.txt\", symmetric = true, self = true }")
  local o = options(what, given, { "nodes", "file", "list", "symmetric", "self" })
  if (o.file == nil) == (o.list == nil) then fail("%s: give file (its name) or list (of { source, destination })", what) end
  if o.file ~= nil and type(o.file) ~= "string" then fail("%s: file must be a file's name, got %s", what, kind_of(o.file)) end
  if o.list ~= nil and type(o.list) ~= "table" then fail("%s: list must be a list of { source, destination }, got %s", what, kind_of(o.list)) end
  return core.edges(integer(what .. ": nodes", o.nodes), flag(what .. ": symmetric", o.symmetric, false), flag(what .. ": self", o.self, false), o.file or o.list)
end

-- Any pairs: file, in the spec's folder, holds a 0 or 1 for every pair, query by query, as text or as bytes of these values.
function P.mask(given)
  local what = "P.mask"
  table_of(what, given, "{ file = \"mask.txt\", queries = 128 }")
  local o = options(what, given, { "file", "queries", "keys" })
  if type(o.file) ~= "string" then fail("%s: file must be a file's name, got %s", what, kind_of(o.file)) end
  local queries = integer(what .. ": queries", o.queries)
  return core.mask(o.file, queries, integer(what .. ": keys", o.keys or queries))
end

-- Pairs for which f(i, j) is true: asked for each of at most 4096 x 4096. keys: as many as queries.
function P.predicate(f, queries, keys)
  if type(f) ~= "function" then fail("P.predicate takes a function of query and key, then the length, got %s", kind_of(f)) end
  queries = integer("P.predicate: the length", queries)
  return core.predicate(f, queries, integer("P.predicate: the number of keys", keys or queries))
end

---------------------------------------------------------------------------------------------------- well-known combinations

-- Child et al. 2019 (arXiv 1904.10509), strided, both parts in one head: the last l keys and every l-th before.
function P.sparse_transformer_strided(given)
  local what = "P.sparse_transformer_strided"
  table_of(what, given, "{ l = 128 }")
  local l = integer(what .. ": l (the stride)", options(what, given, { "l" }).l)
  return P.causal() & (P.window { keys = l } | P.stride(l))
end

-- The same paper, fixed, both parts in one head: the own chunk of l keys and c keys, the summary, of every chunk before. Head h
-- takes the chunk's last c keys, or the c before these, and so on: group h mod (l / c) from the end.
function P.sparse_transformer_fixed(given)
  local what = "P.sparse_transformer_fixed"
  table_of(what, given, "{ l = 128, c = 32 }")
  local o = options(what, given, { "l", "c", "head", "heads" })
  local l, c = integer(what .. ": l (the stride)", o.l), integer(what .. ": c (the summary's keys)", o.c)
  if c > l then fail("%s: c = %d is more than l = %d", what, c, l) end
  if (o.head or o.heads) and l % c ~= 0 then
    fail("%s: c = %d does not divide l = %d into groups for heads to take turns at; leave out head and heads, or choose a divisor", what, c, l)
  end
  return per_head(what, o, function(head)
    local last = l - head % (l // c) * c
    return P.causal() & (P.chunk(l) | P.residues(l, { first = last - c, last = last - 1 }))
  end)
end

-- Beltagy et al. 2020 (arXiv 2004.05150): `window` keys on each side, `dilation` apart, and tokens that read and are read by all.
function P.longformer(given)
  local what = "P.longformer"
  table_of(what, given, "{ window = 256, tokens = { 0 } }")
  local o = options(what, given, { "window", "tokens", "dilation", "causal" })
  local w = integer(what .. ": window (keys on each side)", o.window)
  local p = P.window { left = w, right = w, dilation = o.dilation }
  if o.tokens ~= nil then p = p | P.tokens(o.tokens) end
  return flag(what .. ": causal", o.causal, false) and P.causal() & p or p
end

-- Xiao et al. 2023 (arXiv 2309.17453): the last `keys` keys and the first `sinks`.
function P.sliding_window_with_sinks(given)
  local what = "P.sliding_window_with_sinks"
  table_of(what, given, "{ keys = 1024, sinks = 4 }")
  local o = options(what, given, { "keys", "sinks" })
  return P.causal() & (P.window { keys = integer(what .. ": keys", o.keys) } | P.prefix(integer(what .. ": sinks", o.sinks)))
end

-- LongNet (Ding et al. 2023, arXiv 2307.02486): segments of so many positions, of which every dilation-th reads every
-- dilation-th. segment, dilation: numbers, or lists of the same length, whose pairs are then joined (a key of two branches
-- counts once). Head h starts at position h mod dilation of a segment, or with offsets = "grouped" at floor(h * dilation / heads).
function P.dilated(given)
  local what = "P.dilated"
  table_of(what, given, "{ segment = 2048, dilation = 4 }")
  local o = options(what, given, { "segment", "dilation", "head", "heads", "offsets", "causal" })
  local segments = type(o.segment) == "table" and o.segment or { o.segment }
  local dilations = type(o.dilation) == "table" and o.dilation or { o.dilation }
  if #segments ~= #dilations or #segments == 0 then fail("%s: segment and dilation must be numbers or lists of the same length; they have %d and %d", what, #segments, #dilations) end
  local grouped = choice(what .. ": offsets", o.offsets, "cyclic", { "cyclic", "grouped" }) == "grouped"
  if grouped and o.heads == nil then fail("%s: offsets = \"grouped\" needs heads", what) end
  for i, w in ipairs(segments) do
    integer(what .. ": segment", w)
    integer(what .. ": dilation", dilations[i])
    if w % dilations[i] ~= 0 then fail("%s: dilation %d does not divide the segment of %d", what, dilations[i], w) end
  end
  return per_head(what, o, function(head, heads)
    local branches = {}
    for i, w in ipairs(segments) do
      local r = dilations[i]
      local branch = P.chunk(w)
      if r > 1 then branch = branch & P.stride(r) & P.residues(r, grouped and head * r // heads or head % r) end
      branches[i] = branch
    end
    return flag(what .. ": causal", o.causal, true) and P.causal() & union(branches) or union(branches)
  end)
end

-- Phi-3-small: blocks of `block` positions; a query reads its own block, the `local_blocks - 1` before it, and blocks b with
-- (b + head + 1) mod vertical_stride = 0.
function P.phi3_small(given)
  local what = "P.phi3_small"
  if given ~= nil then table_of(what, given, "{ block = 64, local_blocks = 16, vertical_stride = 8, heads = 32 }") end
  local o = options(what, given, { "block", "local_blocks", "vertical_stride", "head", "heads" })
  local block, near, every = integer(what .. ": block", o.block or 64), integer(what .. ": local_blocks", o.local_blocks or 16), integer(what .. ": vertical_stride", o.vertical_stride or 8)
  return per_head(what, o, function(head)
    local first = (-(head + 1)) % every * block
    return P.causal() & (P.chunk_window { chunk = block, before = near - 1 } | P.residues(every * block, { first = first, last = first + block - 1 }))
  end)
end

-- Llama 4's local layers: keys of the own chunk, up to the own position.
function P.llama4_chunked(given)
  table_of("P.llama4_chunked", given, "{ chunk = 8192 }")
  return P.causal() & P.chunk(integer("P.llama4_chunked: chunk", options("P.llama4_chunked", given, { "chunk" }).chunk))
end

-- BigBird (Zaheer et al. 2020, arXiv 2007.14062), block by block: `window` blocks around the own, the first and the last block
-- (global = 2: both directions; 1: the first alone; 0: none), and `random` others, drawn anew for each `seed` (a layer's number).
-- causal: only blocks up to the own, keys up to the own position; the last block is then no global one.
function P.bigbird(given)
  local what = "P.bigbird"
  table_of(what, given, "{ length = 4096, block = 64 }")
  local o = options(what, given, { "length", "block", "window", "global", "random", "seed", "causal" })
  local length, block, window = integer(what .. ": length", o.length), integer(what .. ": block", o.block or 64), integer(what .. ": window", o.window or 3)
  local global, causal = integer(what .. ": global", o.global or 2, 0), flag(what .. ": causal", o.causal, false)
  if window % 2 == 0 then fail("%s: window must be odd, so many blocks on each side and the own, got %d", what, window) end
  if global > 2 then fail("%s: global must be 0, 1 (the first block) or 2 (the last one, too), got %d", what, global) end
  local first, last = { first = 0, last = math.min(block, length) - 1 }, { first = (length - 1) // block * block, last = length - 1 }
  local p = P.chunk_window { chunk = block, before = window // 2, after = window // 2 }
  if global > 0 then p = p | P.tokens(first) end
  if global > 1 and not causal then p = p | P.tokens(last) end
  p = p | P.random_blocks { length = length, block = block, count = o.random or 3, seed = o.seed or 0, causal = causal, apart = window // 2,
                            after = math.min(global, 1), before_end = causal and 0 or math.max(0, global - 1) }
  return causal and P.causal() & p or p
end

-- Jukebox (Dhariwal et al. 2020, arXiv 2005.00341): the context in blocks of `block` positions. factor 0: all before; 1: the own
-- block so far; 2: the same place in earlier blocks; 3: the whole block before; 4: the last position of earlier blocks;
-- 5: their last `spread` positions. The zero keys that factors 3 to 5 add for the first blocks are no pairs: those rows are empty.
function P.jukebox(given)
  local what = "P.jukebox"
  table_of(what, given, "{ block = 64, factor = 2 }")
  local o = options(what, given, { "block", "factor", "spread" })
  local m, factor = integer(what .. ": block", o.block), integer(what .. ": factor", o.factor, 0)
  local last = factor == 5 and integer(what .. ": spread", o.spread) or 1
  if last > m then fail("%s: spread %d is more than the block of %d", what, last, m) end
  if factor == 0 then return P.causal() end
  if factor == 1 then return P.causal() & P.chunk(m) end
  if factor == 2 then return P.causal() & P.stride(m) end
  if factor == 3 then return P.previous_chunk(m) end
  if factor == 4 or factor == 5 then return (P.causal() & P.residues(m, { first = m - last, last = m - 1 })) - P.chunk(m) end
  fail("%s: factor must be 0 to 5, got %d", what, factor)
end

return setmetatable(P, { __index = function(_, name) unknown("hd.pattern", name, sorted_keys(P)) end })
