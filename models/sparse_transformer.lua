-- The Sparse Transformer's network (Child, Gray, Radford and Sutskever 2019, arXiv 1904.10509), shared by enwik8.lua,
-- cifar10.lua, imagenet64.lua and music.lua. Pre-norm residual blocks, quick GELU, an untied output that starts at zero.
--
-- The network reads tokens 0 .. t-1 and predicts token t: embeddings, coordinates included, are shifted by one position and
-- a learnt vector stands first. Where the paper and the authors' later code differ (initial spreads), the code is followed;
-- where the code adds a factor for one data set only, the paper.
local hd = require "heddle"
local M = {}

-- Learnt coordinate tables, summed: sizes { 32, 32, 3 } numbers positions as the digits of a mixed-radix count, last digit
-- fastest (row, column, channel of an image; row and column of a text laid out in rows). Positions beyond `length` are cut off.
local function coordinates(s, sizes, c)
  local spread, sum = hd.normal(0.125 / math.sqrt(c.width * #sizes)), nil
  for axis, size in ipairs(sizes) do
    local shape = {}
    for i = 1, #sizes do shape[i] = i == axis and size or 1 end
    shape[#shape + 1] = c.width
    local table = hd.reshape(s:param("pos_emb_" .. axis - 1, { size, c.width }, spread), shape)
    sum = sum and sum + table or table
  end
  local positions = 1
  for _, size in ipairs(sizes) do positions = positions * size end
  return hd.slice(hd.reshape(sum, { positions, c.width }), 1, 1, c.length)
end

-- q and k narrower than v (the paper's half-size projections): heads of q and k are filled up with zeros.
local function filled(x, c)
  if c.qk_width == c.width then return x end
  local parts = hd.reshape(x, { c.batch, c.length, c.heads, c.qk_width // c.heads })
  local zeros = hd.fill(0, { c.batch, c.length, c.heads, (c.width - c.qk_width) // c.heads })
  return hd.reshape(hd.concat({ parts, zeros }, -1), { c.batch, c.length, c.width })
end

local function attention(s, x, pattern, c)
  local init, last = hd.sparse_transformer_init(c.width), hd.scaled_by_depth(hd.sparse_transformer_init(c.width), c.layers)
  local q, k = s:linear("q_proj", x, c.qk_width, { init = init }), s:linear("k_proj", x, c.qk_width, { init = init })
  local v = s:linear("v_proj", x, c.width, { init = init })
  local out = s:attention("heads", filled(q, c), filled(k, c), v,
                          { heads = c.heads, pattern = pattern, scale = 1 / math.sqrt(c.qk_width // c.heads) })
  return s:linear("post_proj", out, c.width, { init = last })
end

local function block(x, i, pattern, c)
  local s = hd.scope("h" .. i)
  x = x + hd.dropout(attention(s:scope("attn"), s:layer_norm("attn_input", x), pattern, c), c.dropout)
  return hd.in_chunks(function(rows)
    local y = s:mlp("mlp", s:layer_norm("mlp_input", rows), c.inner,
                    { activation = "gelu_quick", init = hd.sparse_transformer_init(c.width),
                      proj_init = hd.scaled_by_depth(hd.sparse_transformer_init(c.inner), c.layers) })
    return rows + hd.dropout(y, c.dropout)
  end, x, c.chunks)
end

-- c: length, layers, heads, width, inner, qk_width, vocab, batch, dropout, recompute, chunks (of rows, of the feed-forward part).
-- output: what tokens are, if not text (hd.image, hd.sound). sizes: of the coordinate tables. patterns: a pattern (or list of one per head) for each layer in turn, repeated.
function M.model(name, c, sizes, patterns, training, output)
  local s = hd.scope("")
  local tokens = hd.input("tokens", { c.batch, c.length }, "i32")
  local x = s:embedding("we", tokens, c.vocab, c.width, hd.normal(0.125 / math.sqrt(c.width))) + coordinates(s, sizes, c)
  x = hd.shift(x, s:param("sos_token", { c.width }, hd.normal(0.125 / math.sqrt(c.width))))
  for i = 0, c.layers - 1 do
    local pattern = patterns[i % #patterns + 1]
    x = c.recompute and hd.recompute(block, x, i, pattern, c) or block(x, i, pattern, c)
  end
  local logits = s:linear("gen_logits", s:layer_norm("final_norm", x, 1e-6), c.vocab, { bias = false, init = hd.zeros() })
  return hd.language_model { name = name, config = c, tokens = tokens, logits = logits, predicts = "same", training = training, output = output }
end

return M
