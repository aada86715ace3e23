-- The Sparse Transformer for bytes of Wikipedia (arXiv 1904.10509, section 7.2): length 12,288, 30 layers, 8 heads, width 512,
-- the "fixed" pattern with chunks of 128 and summaries of 32 positions, both in one head; each head has its own summary block of
-- the chunk. 95 million parameters. -D length= layers= width= make smaller ones.
local hd = require "heddle"
local network = require "sparse_transformer"

local c = hd.config {
  length = 12288, layers = 30, width = 512, heads = 8, inner = 2048, qk_width = 512, vocab = 256,
  chunk = 128, summary = 32, batch = 1, dropout = 0.4, recompute = true, chunks = 1,
}

local P = hd.pattern
local pattern = {}
for head = 0, c.heads - 1 do
  pattern[head + 1] = P.sparse_transformer_fixed { l = c.chunk, c = c.summary, head = head }
end

return network.model("enwik8", c, { (c.length + c.chunk - 1) // c.chunk, c.chunk }, { pattern },
                     hd.training { lr = 3.5e-4, warmup = 5000, decay = 0.01, clip = 1.0, beta2 = 0.999, batch = c.batch })
