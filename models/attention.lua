-- Attention alone, forward and backward, for measuring and for use as two functions:
--   forward    q, k, v -> o, lse                       every tensor [heads, length, head_dim], lse [heads, length]
--   backward   q, k, v, o, lse, do -> dq, dk, dv       from forward's results
-- pattern, and the -D keys it reads (hd.pattern has the definitions):
--   causal; full; window: the last `window` keys, `dilation` apart; both: as many on both sides
--   stride: keys at multiples of `stride` back; strided: those and the last `stride` keys; fixed: the own chunk of `stride` and
--   `summary` keys of each before, other ones for each head; fixed_same: the last ones for every head
--   chunk: the own chunk of `chunk`; previous_chunk: the one before; prefix: causal, and the first `tokens` keys for all
--   sinks: window, and the first `tokens` keys; longformer: `window` keys on each side, `dilation` apart, `tokens` global tokens
--   dilated: LongNet's segments of `chunk`, every `dilation`-th position, head by head; phi3: blocks of `block`, `local_blocks`
--   of them and every `every`-th, head by head; jukebox: blocks of `block`, its `factor`, `summary` positions of a block
--   bigbird: blocks of `block`, `random` random ones, causal with `causal`; documents: `count` of about the same length, causal
--   axial, natten, swin, grid: a grid of rows of `chunk` positions; natten: kernel `kernel`, dilation, `causal` on both axes;
--   swin: windows of `kernel`, moved by half; grid: `kernel` // 2 on each side, not moved at the ends
--   edges: a graph in the file `file` (in this folder), both ways and self; mask: of 0 and 1 in the file `file`
--   squares: a predicate, keys whose distance is a square
-- Scores take in more with these keys (hd.attention says how); their tensors are further inputs, and `backward` returns their gradients:
--   softcap; alibi: its slopes; sinks: "sinks" [heads]; max_distance (-1: none): "bias" [heads, max_distance + 1], t5 (0: none): so many
--   buckets, "bias" [heads, t5]; key_bias: "key_bias" [keys]; edge_bias: "edge_bias" [pairs]; multiplicity: key j counts j mod m times;
--   lengths: "lengths" i32 [1], only that many keys; packed: "documents" i32 [1, length], ids of documents
local hd = require "heddle"
local P = hd.pattern

local patterns = {}
local c = hd.config {
  pattern = hd.one_of("causal", "full", "window", "both", "stride", "strided", "fixed", "fixed_same", "chunk", "previous_chunk", "prefix", "sinks",
                      "longformer", "dilated", "phi3", "jukebox", "bigbird", "documents", "axial", "natten", "swin", "grid", "edges", "mask", "squares"),
  length = 1024, keys = 0, heads = 8, kv_heads = 0, head_dim = 64,      -- keys, kv_heads 0: as many as queries, as heads
  window = 128, dilation = 1, stride = 128, summary = 32, chunk = 128, tokens = 4, block = 64, local_blocks = 16, every = 8, factor = 2,
  random = 3, causal = false, count = 5, kernel = 7, file = "edges.txt",
  softcap = 0.0, alibi = false, offset = 0, sinks = false, max_distance = -1, t5 = 0, key_bias = false, edge_bias = false, multiplicity = 0, lengths = false, packed = false,
}

function patterns.causal() return P.causal() end
function patterns.full() return P.full() end
function patterns.window() return P.window { keys = c.window, dilation = c.dilation } end
function patterns.both() return P.window { left = c.window, right = c.window, dilation = c.dilation } end
function patterns.stride() return P.causal() & P.stride(c.stride) end
function patterns.strided() return P.sparse_transformer_strided { l = c.stride } end
function patterns.fixed() return P.sparse_transformer_fixed { l = c.stride, c = c.summary, heads = c.heads } end
function patterns.fixed_same() return P.sparse_transformer_fixed { l = c.stride, c = c.summary } end
function patterns.chunk() return P.llama4_chunked { chunk = c.chunk } end
function patterns.previous_chunk() return P.previous_chunk(c.chunk) end
function patterns.prefix() return P.causal() | P.prefix(c.tokens) end
function patterns.sinks() return P.sliding_window_with_sinks { keys = c.window, sinks = c.tokens } end
function patterns.longformer() return P.longformer { window = c.window, dilation = c.dilation, tokens = { first = 0, last = c.tokens - 1 } } end
function patterns.dilated() return P.dilated { segment = c.chunk, dilation = c.dilation, heads = c.heads } end
function patterns.phi3() return P.phi3_small { block = c.block, local_blocks = c.local_blocks, vertical_stride = c.every, heads = c.heads } end
function patterns.jukebox() return P.jukebox { block = c.block, factor = c.factor, spread = c.summary } end
function patterns.bigbird() return P.bigbird { length = c.length, block = c.block, random = c.random, causal = c.causal } end
function patterns.documents()
  local lengths = {}
  for d = 1, c.count do lengths[d] = c.length * d // c.count - c.length * (d - 1) // c.count end
  return P.causal() & P.documents(lengths)
end
local size = { c.length // c.chunk, c.chunk }
function patterns.axial() return P.axial { size = size } end
function patterns.natten() return P.natten { size = size, kernel = c.kernel, dilation = c.dilation, causal = c.causal } end
function patterns.swin() return P.swin { size = size, window = c.kernel, shift = c.kernel // 2 } end
function patterns.grid() return P.grid_window { size = size, before = c.kernel // 2, after = c.kernel // 2, dilation = c.dilation } end
function patterns.edges() return P.edges { nodes = c.length, file = c.file, symmetric = true, self = true } end
function patterns.mask() return P.mask { file = c.file, queries = c.length, keys = c.keys > 0 and c.keys or c.length } end
function patterns.squares() return P.predicate(function(i, j) return math.sqrt(math.abs(i - j)) % 1 == 0 end, c.length, c.keys > 0 and c.keys or c.length) end

local keys, kv_heads = c.keys > 0 and c.keys or c.length, c.kv_heads > 0 and c.kv_heads or c.heads
local options = { heads = c.heads, kv_heads = kv_heads, pattern = patterns[c.pattern](), layout = "heads_first" }

local one = type(options.pattern) == "table" and options.pattern[1] or options.pattern      -- of all heads, or of the first
local extras, gradients = {}, {}
local function extra(option, shape, dtype)
  options[option] = hd.input(option, shape, dtype)
  extras[#extras + 1] = options[option]
  if dtype ~= "i32" then gradients[#gradients + 1] = "d" .. option end
end
if c.softcap > 0 then options.softcap = c.softcap end
options.alibi, options.offset = c.alibi, c.offset
if c.sinks then extra("sinks", { c.heads }) end
if c.max_distance >= 0 then
  options.max_distance = c.max_distance
  extra("bias", { c.heads, c.max_distance + 1 })
elseif c.t5 > 0 then
  options.t5 = { buckets = c.t5, bidirectional = not one:is_causal(c.length, keys) }
  extra("bias", { c.heads, c.t5 })
end
if c.key_bias then extra("key_bias", { keys }) end
if c.multiplicity > 0 then
  options.multiplicity = {}
  for j = 1, keys do options.multiplicity[j] = (j - 1) % c.multiplicity end
end
if c.edge_bias then extra("edge_bias", { one:kept_pairs(c.length, keys) }) end
if c.lengths then extra("lengths", { 1 }, "i32") end
if c.packed then extra("documents", { 1, c.length }, "i32") end

local q = hd.input("q", { c.heads, c.length, c.head_dim })
local k = hd.input("k", { kv_heads, keys, c.head_dim })
local v = hd.input("v", { kv_heads, keys, c.head_dim })
local o = hd.input("o", { c.heads, c.length, c.head_dim })
local lse = hd.input("lse", { c.heads, c.length })
local d_o = hd.input("do", { c.heads, c.length, c.head_dim })

local gradient = { hd.attention_gradient(q, k, v, o, lse, d_o, options) }
options.lse = true
local out, out_lse = hd.attention(q, k, v, options)

local forward, backward, returned = { q, k, v }, { q, k, v, o, lse, d_o }, { { "dq", gradient[1] }, { "dk", gradient[2] }, { "dv", gradient[3] } }
for i, name in ipairs(gradients) do returned[3 + i] = { name, gradient[3 + i] } end
for _, x in ipairs(extras) do
  forward[#forward + 1] = x
  backward[#backward + 1] = x
end

return hd.model {
  name = "attention",
  entries = {
    forward  = { inputs = forward, outputs = { { "o", out }, { "lse", out_lse } } },
    backward = { inputs = backward, outputs = returned },
  },
}
