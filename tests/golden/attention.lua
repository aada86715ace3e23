-- models/attention.lua for the reference files of attention: the patterns by the files' names, key counts of their own.
-- l is the stride, the window in keys; kept: how many pairs the reference's mask keeps (0: not asked).
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
  dilated             = function() return P.window { keys = 3 * l } & P.stride(3) end,
  attr_gqa            = function() return P.window { keys = 20 } end,
  attr_cross_full     = function() return P.full() end,
  attr_per_head       = function() return { P.window { keys = 10 }, P.causal() & P.stride(12), P.causal() } end,
}

local names = {}
for name in pairs(patterns) do names[#names + 1] = name end
table.sort(names)
local c = hd.config { pattern = hd.one_of(table.unpack(names)), length = 192, keys = 192, heads = 1, kv_heads = 1, head_dim = 32, kept = 0 }

local pattern = patterns[c.pattern]()
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
local dq, dk, dv = hd.attention_gradient(q, k, v, o, lse, d_o, options)
options.lse = true
local out, out_lse = hd.attention(q, k, v, options)

return hd.model {
  name = "attention",
  entries = {
    forward  = { inputs = { q, k, v }, outputs = { { "o", out }, { "lse", out_lse } } },
    backward = { inputs = { q, k, v, o, lse, d_o }, outputs = { { "dq", dq }, { "dk", dk }, { "dv", dv } } },
  },
}
