-- Attention alone, forward and backward, for measuring and for use as two functions:
--   forward    q, k, v -> o, lse                       every tensor [heads, length, head_dim], lse [heads, length]
--   backward   q, k, v, o, lse, do -> dq, dk, dv       from forward's results
-- pattern: causal; full; window (the last `window` keys, the query's own included); stride (keys at multiples of `stride` back);
-- strided (window of `stride` keys, and stride).
local hd = require "heddle"

local c = hd.config {
  pattern = hd.one_of("causal", "full", "window", "stride", "strided"),
  length = 1024, heads = 8, kv_heads = 0, head_dim = 64, window = 128, stride = 128,      -- kv_heads 0: as many as heads
}

local P = hd.pattern
local patterns = {
  causal  = P.causal(),
  full    = P.full(),
  window  = P.window { keys = c.window },
  stride  = P.causal() & P.stride(c.stride),
  strided = P.causal() & (P.window { keys = c.stride } | P.stride(c.stride)),
}

local kv_heads = c.kv_heads > 0 and c.kv_heads or c.heads
local options = { heads = c.heads, kv_heads = kv_heads, pattern = patterns[c.pattern], layout = "heads_first" }

local q = hd.input("q", { c.heads, c.length, c.head_dim })
local k = hd.input("k", { kv_heads, c.length, c.head_dim })
local v = hd.input("v", { kv_heads, c.length, c.head_dim })
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
