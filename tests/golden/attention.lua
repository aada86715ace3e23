-- models/attention.lua for the reference files of attention: the patterns by the files' names, key counts of their own.
-- l is the stride, the window in keys; kept: how many pairs the reference's mask keeps (0: not asked); mask: a file of it, in
-- this folder, for patterns that are nothing but data, and to compare the others with.
local hd = require "heddle"

local P = hd.pattern
local l = 16
local patterns = {
  causal              = function() return P.causal() end,
  full                = function() return P.full() end,
  ["local"]           = function() return P.window { keys = l } end,
  local_bidirectional = function() return P.window { left = l // 2, right = l // 2 } end,
  strided_column      = function() return P.causal() & P.stride(l) end,
  strided_union       = function() return P.causal() & (P.window { keys = l } | P.stride(l)) end,
  dilated             = function() return P.window { keys = l, dilation = 3 } end,
  fixed_block         = function() return P.causal() & P.chunk(l) end,
  fixed_summary       = function() return P.causal() & P.residues(l, { first = l - 3, last = l - 1 }) end,
  fixed_union         = function() return P.sparse_transformer_fixed { l = l, c = 3 } end,
  prefix_lm           = function() return P.causal() | P.prefix(20) end,
  longformer          = function() return P.longformer { window = l // 2, tokens = { 0, 1, 77 } } end,
  sinks_window        = function() return P.sliding_window_with_sinks { keys = l, sinks = 4 } end,
  axial_row           = function() return P.causal() & P.chunk(12) end,
  axial_column        = function() return P.causal() & P.stride(12) end,
  documents           = function() return P.causal() & P.documents { 39, 38, 39, 38, 38 } end,      -- floor(5 i / 192)
  natten_causal_2d    = function() return P.causal() & P.grid_window { size = { 16, 12 }, before = 3, after = 3 } end,
  bigbird_causal      = function(mask) return mask end,
  graph               = function(mask) return mask end,
  attr_gqa            = function() return P.window { keys = 20 } end,
  attr_cross_full     = function() return P.full() end,
  attr_cross_bottom_right = function() return P.causal(103 - 192) end,
  attr_sinks          = function() return P.window { keys = 20 } end,
  attr_alibi          = function() return P.causal() end,
  attr_relative_bias  = function() return P.causal() end,
  attr_softcap        = function() return P.window { keys = 20 } end,
  attr_per_head       = function() return { P.window { keys = 10 }, P.causal() & P.stride(12), P.causal() } end,
}

local names = {}
for name in pairs(patterns) do names[#names + 1] = name end
table.sort(names)
local c = hd.config { pattern = hd.one_of(table.unpack(names)), length = 192, keys = 192, heads = 1, kv_heads = 1, head_dim = 32, kept = 0, mask = "" }

local mask = c.mask ~= "" and P.mask { file = c.mask, queries = c.length, keys = c.keys }
local pattern = patterns[c.pattern](mask)
for i = 0, mask and c.length - 1 or -1 do
  local ours, theirs = table.concat(pattern:row(i, c.keys), " "), table.concat(mask:row(i, c.keys), " ")
  if ours ~= theirs then error(("%s: row %d reads %s, in the reference %s"):format(c.pattern, i, ours, theirs)) end
end
if c.kept > 0 then
  local kept = pattern:kept_pairs(c.length, c.keys)
  if kept ~= c.kept then error(("%s keeps %d pairs, the reference's mask %d"):format(c.pattern, kept, c.kept)) end
end

local options = { heads = c.heads, kv_heads = c.kv_heads, pattern = pattern, layout = "heads_first" }
local q = hd.input("q", { c.heads, c.length, c.head_dim })
local k = hd.input("k", { c.kv_heads, c.keys, c.head_dim })
local v = hd.input("v", { c.kv_heads, c.keys, c.head_dim })
local o = hd.input("o", { c.heads, c.length, c.head_dim })
local lse = hd.input("lse", { c.heads, c.length })
local d_o = hd.input("do", { c.heads, c.length, c.head_dim })
-- the attribute a file is about; its tensor and what its gradient is called there
local attributes = {
  attr_sinks         = function() options.sinks = hd.input("sink", { c.heads }) return options.sinks, "dsink" end,
  attr_alibi         = function() options.alibi = true end,
  attr_relative_bias = function() options.bias, options.max_distance = hd.input("table", { c.heads, 16 }), 15 return options.bias, "dtable" end,
  attr_softcap       = function() options.scale, options.softcap = 0.3, 5 end,
}
local extra, d_extra
if attributes[c.pattern] then extra, d_extra = attributes[c.pattern]() end

local gradients = { hd.attention_gradient(q, k, v, o, lse, d_o, options) }
options.lse = true
local out, out_lse = hd.attention(q, k, v, options)

local returned = {}
for i, gradient in ipairs(gradients) do returned[i] = { ({ "dq", "dk", "dv", d_extra })[i], gradient } end

return hd.model {
  name = "attention",
  entries = {
    forward  = { inputs = { q, k, v, extra }, outputs = { { "o", out }, { "lse", out_lse } } },
    backward = { inputs = { q, k, v, o, lse, d_o, extra }, outputs = returned },
  },
}
