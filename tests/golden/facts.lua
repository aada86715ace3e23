-- What papers and published code say about sparse patterns, by example: key sets and pair counts, asked of P's own functions; and
-- about the numbers that go with them.
-- Run by tests/compiler/facts_test.c; any Lua error is a fact that does not hold. Positions count from 0.
--
-- Sources: Child et al. 2019 and openai/sparse_attention (paper and code differ by one key in the window), DeepSpeed's
-- sparse_self_attention configurations, Longformer, StreamingLLM, Phi-3-small, BigBird, NATTEN, Jukebox, DALL-E, LongNet.
local hd = require "heddle"
local P = hd.pattern

-- "0-3 7" of { 0, 1, 2, 3, 7 }
local function text(keys)
  local out, k = {}, 1
  while k <= #keys do
    local last = k
    while keys[last + 1] == keys[last] + 1 do last = last + 1 end
    out[#out + 1] = last == k and tostring(keys[k]) or keys[k] .. "-" .. keys[last]
    k = last + 1
  end
  return table.concat(out, " ")
end

-- what, pattern, length, { row = keys, ... }, number of kept pairs
local function fact(what, p, n, rows, kept)
  for i, keys in pairs(rows) do
    local found = text(p:row(i, n))
    if found ~= keys then error(("%s: row %d is {%s}, not {%s}"):format(what, i, found, keys)) end
  end
  if kept and p:kept_pairs(n) ~= kept then error(("%s: %d pairs, not %d"):format(what, p:kept_pairs(n), kept)) end
end

local function heads(what, list, n, i, keys, kept)
  for h, p in ipairs(list) do fact(what .. ", head " .. h - 1, p, n, { [i] = keys[h] }, kept) end
end

local causal = P.causal()
local function strided(l) return P.sparse_transformer_strided { l = l } end
local function fixed(l, c) return P.sparse_transformer_fixed { l = l, c = c } end
local function summary(l, c) return causal & P.residues(l, { first = l - c, last = l - 1 }) end

---- Sparse Transformer, n = 16, l = 4
fact("causal", causal, 16, { [9] = "0-9" }, 136)
fact("strided, paper's window", causal & P.window { left = 4 }, 16, { [9] = "5-9", [2] = "0-2" }, 70)
fact("strided, code's window", P.window { keys = 4 }, 16, { [9] = "6-9" }, 58)
fact("strided, columns", causal & P.stride(4), 16, { [9] = "1 5 9" }, 40)
fact("strided, merged", strided(4), 16, { [9] = "1 5-9" }, 82)
fact("strided, merged with l + 1 keys", causal & (P.window { keys = 5 } | P.stride(4)), 16, { [9] = "1 5-9" }, 82)
fact("fixed, chunk", causal & P.chunk(4), 16, { [9] = "8-9", [11] = "8-11" }, 40)
fact("fixed, summary of 1", summary(4, 1), 16, { [9] = "3 7", [11] = "3 7 11", [0] = "", [1] = "", [2] = "" }, 28)
fact("fixed, summary of 2", summary(4, 2), 16, { [9] = "2-3 6-7", [2] = "2", [0] = "", [1] = "" }, 60)
fact("fixed, summary of 3", summary(4, 3), 16, { [0] = "" }, 96)
fact("fixed, merged, summary of 1", fixed(4, 1), 16, { [9] = "3 7-9" }, 64)
fact("fixed, merged, summary of 2", fixed(4, 2), 16, { [9] = "2-3 6-9" }, 88)
fact("fixed, merged, summary of 3", fixed(4, 3), 16, { [9] = "1-3 5-9" }, 112)
heads("fixed, own summary of each head", P.per_head(4, function(h) return causal & P.residues(4, 3 - h) end), 16, 9, { "3 7", "2 6", "1 5 9", "0 4 8" })
heads("fixed, merged, own summary of each head", P.sparse_transformer_fixed { l = 4, c = 1, heads = 4 }, 16, 9, { "3 7-9", "2 6 8-9", "1 5 8-9", "0 4 8-9" }, 64)

-- Causal pairs (i, j) that no key a joins: a reads j by the first pattern, i reads a by the second; direct: reading j at once counts.
local function out_of_reach(first, second, n, direct)
  local missing = 0
  for i = 0, n - 1 do
    for j = 0, i do
      local reached = direct and (first:keeps(i, j) or second:keeps(i, j))
      for a = j, i do reached = reached or second:keeps(i, a) and first:keeps(a, j) end
      missing = missing + (reached and 0 or 1)
    end
  end
  return missing
end
local columns, chunk = causal & P.stride(4), causal & P.chunk(4)
assert(out_of_reach(causal & P.window { left = 4 }, columns, 16) == 0 and out_of_reach(P.window { keys = 4 }, columns, 16) == 0, "strided reaches all in two steps")
assert(out_of_reach(chunk, summary(4, 1), 16) == 24 and out_of_reach(chunk, summary(4, 2), 16) == 12, "fixed misses some without residuals")
assert(out_of_reach(chunk, summary(4, 1), 16, true) == 0 and out_of_reach(chunk, summary(4, 2), 16, true) == 0, "fixed reaches all with residuals")

---- large sizes
fact("enwik8, causal", causal, 12288, {}, 75503616)
fact("enwik8, strided", strided(128), 12288, {}, 2148416)
fact("enwik8, fixed", fixed(128, 32), 12288, {}, 19470336)
fact("enwik8, columns", causal & P.stride(128), 12288, {}, 595968)
fact("enwik8, window", P.window { keys = 128 }, 12288, {}, 1564736)
fact("enwik8, paper's window", P.window { keys = 129 }, 12288, {}, 1576896)
fact("CIFAR-10, causal", causal, 3072, {}, 4720128)
fact("CIFAR-10, strided", strided(96), 3072, {}, 337968)
fact("music, 65,536", strided(256), 65536, {}, 25100416)
fact("music, 1,048,576", strided(1024), 1048576, {}, 1609564672)
fact("music, 1,048,576, causal", causal, 1048576, {}, 549756338176)

---- block layouts of openai/sparse_attention: positions are blocks of 32
fact("local, n 256, l 64", P.window { keys = 3 }, 8, { [5] = "3-5" }, 21)
fact("local, n 1024, l 32", P.window { keys = 2 }, 32, { [5] = "4-5" }, 63)
fact("strided, transposed, n 1024, l 32", causal & P.chunk(1), 32, {}, 32)
fact("strided, transposed, n 3072, l 96", causal & P.chunk(1), 96, {}, 96)
fact("strided, transposed, n 12288, l 128", causal & P.chunk(3), 384, { [4] = "3-4" }, 768)
fact("dense, n 12288", causal, 384, {}, 73920)
heads("fixed, n 1024, l 128, 4 verticals", P.sparse_transformer_fixed { l = 4, c = 1, heads = 4 }, 32, 5, { "3-5", "2 4-5", "1 4-5", "0 4-5" }, 192)
fact("fixed, n 1024, l 128, head 0", fixed(4, 1), 32, { [7] = "3-7" })
heads("fixed, n 12288, l 128", P.sparse_transformer_fixed { l = 4, c = 1, heads = 4 }, 384, 5, { "3-5", "2 4-5", "1 4-5", "0 4-5" }, 19200)

---- DeepSpeed: positions are blocks
local uni = fixed(4, 1)
fact("Fixed, unidirectional", uni, 8, { [5] = "3-5", [3] = "0-3" }, 24)
local bi = P.chunk(4) | P.residues(4, 3)
fact("Fixed, bidirectional", bi, 8, { [1] = "0-3 7" }, 40)
fact("Fixed, horizontal", bi | P.queries { 3, 7 }, 8, { [3] = "0-7" }, 46)
fact("Fixed, short last chunk", P.chunk(4) | P.keys { 3, 7, 9 }, 10, { [0] = "0-3 7 9", [9] = "3 7-9" })
fact("Fixed, short last chunk, unidirectional", causal & (P.chunk(4) | P.keys { 3, 7, 9 }), 10, { [8] = "3 7-8" })
fact("Fixed, 2 global blocks, unidirectional", causal & P.chunk(4) | P.keys { 2, 3 } & P.queries { first = 2, last = 7 } | P.keys { 6, 7 } & P.queries { 6, 7 }, 8, { [2] = "0-3", [6] = "2-7" }, 30)
heads("Fixed, 4 different patterns", P.sparse_transformer_fixed { l = 4, c = 1, heads = 4 }, 8, 5, { "3-5", "2 4-5", "1 4-5", "0 4-5" })
fact("LocalSlidingWindow 3", causal & P.chunk_window { chunk = 1, before = 1 }, 8, { [4] = "3-4" })
fact("LocalSlidingWindow 4", causal & P.chunk_window { chunk = 1, before = 2 }, 8, { [4] = "2-4" })
fact("LocalSlidingWindow 4, bidirectional", P.chunk_window { chunk = 1, before = 2, after = 2 }, 8, { [4] = "2-6" })
fact("BSLongformer", P.longformer { window = 1, tokens = 0 }, 8, { [4] = "0 3-5", [0] = "0-7" })
fact("BSLongformer, unidirectional", P.longformer { window = 1, tokens = 0, causal = true }, 8, { [4] = "0 3-4" })
fact("Variable", P.documents { 2, 1, 3, 2 } | P.keys(0), 8, { [0] = "0-1", [1] = "0-1", [2] = "0 2", [3] = "0 3-5", [4] = "0 3-5", [5] = "0 3-5", [6] = "0 6-7", [7] = "0 6-7" })
fact("Variable, default", P.chunk(4) | P.keys(0), 8, { [5] = "0 4-7" })

---- windows, dilation, sinks, prefixes
fact("W keys", P.window { keys = 4 }, 8, { [7] = "4-7" })
fact("W + 1 keys", P.window { left = 4 }, 8, { [7] = "3-7" })
fact("ModernBERT, local_attention 4", P.window { left = 2, right = 2 }, 10, { [5] = "3-7" })
fact("Longformer, 2 each side", P.longformer { window = 2, tokens = 0 }, 10, { [5] = "0 3-7", [1] = "0-3", [0] = "0-9" })
fact("Longformer, dilated", P.longformer { window = 2, dilation = 2 }, 10, { [5] = "1 3 5 7 9" })
fact("Longformer, dilated, autoregressive", P.longformer { window = 2, dilation = 2, causal = true }, 10, { [9] = "5 7 9" })
fact("attention-gym, dilated", P.window { left = 4, right = 4 } & P.stride(2), 10, { [5] = "1 3 5 7 9" })
fact("GPT-Neo, window 256", P.window { keys = 256 }, 1024, { [300] = "45-300" })
fact("Llama 4, chunk 4", P.llama4_chunked { chunk = 4 }, 16, { [9] = "8-9" })
fact("StreamingLLM", P.sliding_window_with_sinks { keys = 4, sinks = 4 }, 32, { [20] = "0-3 17-20" })
fact("prefix", causal | P.prefix(3), 8, { [0] = "0-2", [5] = "0-5" })
fact("documents", causal & P.documents { 3, 2, 6 }, 11, { [4] = "3-4", [10] = "5-10" })
heads("Phi-3-small, miniature", P.phi3_small { block = 1, local_blocks = 2, vertical_stride = 4, heads = 4 }, 16, 9, { "3 7-9", "2 6 8-9", "1 5 8-9", "0 4 8-9" })

---- BigBird, NATTEN, images, audio
fact("BigBird, blocks", P.bigbird { length = 8, block = 1, random = 0 }, 8, { [0] = "0-7", [7] = "0-7", [1] = "0-2 7", [2] = "0-3 7", [3] = "0 2-4 7", [6] = "0 5-7" })
fact("BigBird, 1024-token plan, candidates", P.keys { first = 1, last = 15 } - P.window { left = 1, right = 1 }, 64, { [1] = "3-15", [2] = "4-15", [10] = "1-8 12-15", [20] = "1-15" })
local function natten(kernel, given) local o = given or {} o.size, o.kernel = { 8 }, kernel return P.natten(o) end
fact("NATTEN, 3", natten(3), 8, { [0] = "0-2", [1] = "0-2", [4] = "3-5", [7] = "5-7" })
fact("NATTEN, 4", natten(4), 8, { [0] = "0-3", [3] = "1-4", [4] = "2-5", [7] = "4-7" })
fact("NATTEN, 3, causal", natten(3, { causal = true }), 8, { [0] = "0", [1] = "0-1", [4] = "2-4" })
fact("NATTEN, 3, dilation 2", natten(3, { dilation = 2 }), 8, { [0] = "0 2 4", [1] = "1 3 5", [4] = "2 4 6", [5] = "3 5 7" })
fact("NATTEN, 4, stride 2", natten(4, { stride = 2 }), 8, { [0] = "0-3", [1] = "0-3", [2] = "1-4", [3] = "1-4", [4] = "3-6", [5] = "3-6", [6] = "4-7", [7] = "4-7" })
fact("NATTEN, 4, stride 4", natten(4, { stride = 4 }), 8, { [0] = "0-3", [3] = "0-3", [4] = "4-7", [7] = "4-7" })
fact("NATTEN, 4, stride 2, causal", natten(4, { stride = 2, causal = true }), 8, { [0] = "0", [1] = "0-1", [2] = "0-2", [3] = "0-3", [4] = "2-4", [5] = "2-5", [6] = "4-6", [7] = "4-7" })
fact("NATTEN, 4 x 4", P.natten { size = { 4, 4 }, kernel = 3 }, 16, { [0] = "0-2 4-6 8-10", [10] = "5-7 9-11 13-15", [13] = "4-6 8-10 12-14" })
fact("NATTEN, 64 x 64", P.natten { size = { 64, 64 }, kernel = 7 }, 4096, {}, 200704)
for factor, keys in pairs { "8-9", "1 5 9", "4-7", "3 7", "2-3 6-7" } do fact("Jukebox, factor " .. factor, P.jukebox { block = 4, factor = factor, spread = 2 }, 16, { [9] = keys }) end
fact("DALL-E, convolution", P.grid_window { size = { 4, 4 }, before = 2 }, 16, { [10] = "0-2 4-6 8-10", [5] = "0-1 4-5" })
fact("axial, row", causal & P.axis { size = { 4, 4 }, axis = 2 }, 16, { [9] = "8-9" })
fact("axial, column", causal & P.axis { size = { 4, 4 }, axis = 1 }, 16, { [9] = "1 5 9" })
fact("LongNet", P.dilated { segment = 4, dilation = 2 }, 8, { [0] = "0", [1] = "", [2] = "0 2", [3] = "", [4] = "4", [5] = "", [6] = "4 6", [7] = "" })
heads("LongNet, offsets as in the code", P.dilated { segment = 4, dilation = 2, heads = 4, offsets = "grouped" }, 8, 2, { "0 2", "0 2", "", "" })
heads("LongNet, offsets by head", P.dilated { segment = 4, dilation = 2, heads = 4 }, 8, 2, { "0 2", "", "0 2", "" })

---- our own: grids of three axes, Swin, cross attention, layouts, graphs, functions
fact("axial, middle of three axes", P.axis { size = { 2, 3, 2 }, axis = 2 }, 12, { [3] = "1 3 5", [8] = "6 8 10" })
fact("axial, three axes", P.axial { size = { 2, 3, 2 } }, 12, { [3] = "1-3 5 9" })
fact("Swin", P.swin { size = { 8 }, window = 4, shift = 2 }, 8, { [0] = "0-1", [2] = "2-5", [7] = "6-7" })
fact("Swin without shift is NATTEN with stride", P.swin { size = { 8, 8 }, window = 4 } - P.natten { size = { 8, 8 }, kernel = 4, stride = 4 }, 64, {}, 0)
fact("grid after a text of 2", P.grid_window { size = { 2, 2 }, before = 1, start = 2 }, 6, { [1] = "", [2] = "2", [5] = "2-5" })
fact("the newest 3 of 5 positions", P.causal(2), 3, { [0] = "0-2" })
fact("blocks", P.blocks { block = 2, layout = { { 1, 0 }, { 1, 1 } } }, 4, { [1] = "0-1", [2] = "0-3" }, 12)
fact("edges", P.edges { nodes = 4, list = { { 0, 1 }, { 3, 1 }, { 0, 1 } }, self = true }, 4, { [0] = "0", [1] = "0-1 3" }, 6)
fact("edges, both ways", P.edges { nodes = 4, list = { { 0, 1 }, { 3, 1 } }, symmetric = true }, 4, { [0] = "1", [1] = "0 3", [2] = "" }, 4)
fact("a function", P.predicate(function(i, j) return i % 3 == j % 2 end, 6), 6, { [0] = "0 2 4", [1] = "1 3 5", [2] = "" })
assert(P.random_blocks { length = 512, block = 8, count = 3, seed = 7 } == P.random_blocks { length = 512, block = 8, count = 3, seed = 7 }, "the same seed gives the same blocks")
assert(P.random_blocks { length = 512, block = 8, count = 3, seed = 7 } ~= P.random_blocks { length = 512, block = 8, count = 3, seed = 8 }, "another seed gives others")
fact("random blocks", P.random_blocks { length = 512, block = 8, count = 3, seed = 7 }, 512, {}, 64 * 3 * 64)

---- numbers: ALiBi's slopes, T5's buckets, spreads of weights
local function numbers(what, found, wanted, error_allowed)
  if #found ~= #wanted then error(("%s: %d numbers, not %d"):format(what, #found, #wanted)) end
  for k, x in ipairs(wanted) do
    if math.abs(found[k] - x) > (error_allowed or 0) then error(("%s: number %d is %.17g, not %.17g"):format(what, k, found[k], x)) end
  end
end
local eight = { 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256 }
local twelve = table.move({ 2.0 ^ -0.5, 2.0 ^ -1.5, 2.0 ^ -2.5, 2.0 ^ -3.5 }, 1, 4, 9, { table.unpack(eight) })
numbers("ALiBi, 8 heads", hd.alibi_slopes(8), eight)
numbers("ALiBi, 12 heads", hd.alibi_slopes(12), twelve, 1e-15)
numbers("ALiBi, 1 head", hd.alibi_slopes(1), { 1 / 256 })
local function bucket(b, d) return b.of[1 + math.max(0, math.min(d - b.first, #b.of - 1))] end
local function buckets(what, b, wanted)
  for d, number in pairs(wanted) do if bucket(b, d) ~= number then error(("%s: distance %d is in bucket %d, not %d"):format(what, d, bucket(b, d), number)) end end
end
buckets("T5, encoder", hd.relative_buckets { t5 = {} }, { [0] = 0, [1] = 1, [7] = 7, [8] = 8, [11] = 8, [12] = 9, [16] = 10, [32] = 12, [64] = 14, [90] = 14, [91] = 15, [128] = 15, [5000] = 15,
                                                           [-1] = 17, [-7] = 23, [-8] = 24, [-16] = 26, [-128] = 31, [-5000] = 31 })
buckets("T5, decoder", hd.relative_buckets { t5 = { bidirectional = false } }, { [-3] = 0, [0] = 0, [15] = 15, [16] = 16, [18] = 16, [19] = 17, [32] = 21, [64] = 26, [113] = 31, [128] = 31, [999] = 31 })
buckets("clipped distance", hd.relative_buckets { max_distance = 2 }, { [-9] = 0, [-2] = 0, [-1] = 1, [0] = 2, [1] = 3, [2] = 4, [9] = 4 })
buckets("clipped distance, causal", hd.relative_buckets { max_distance = 15, causal = true }, { [0] = 0, [14] = 14, [15] = 15, [100] = 15 })
for layers, factor in pairs { [128] = 0.0625, [48] = 0.1020620726, [30] = 0.1290994449 } do numbers("scaled by depth", { hd.scaled_by_depth(hd.normal(1), layers).scale }, { factor }, 1e-10) end
numbers("spread at width 256", { hd.sparse_transformer_init(256, "paper").scale, hd.sparse_transformer_init(256).scale }, { 0.0078125, 0.0220970869 }, 1e-10)

local x = hd.input("x", { 1 })
return hd.model { name = "facts", entries = { same = { inputs = { x }, outputs = { { "y", x + 1 } } } } }
