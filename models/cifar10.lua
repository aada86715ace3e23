-- The Sparse Transformer for CIFAR-10's bytes (arXiv 1904.10509, section 7.1): 32 x 32 pixels of 3 channels, row by row, channel
-- last: length 3,072; 128 layers, 2 heads, width 256, half-size queries and keys, the strided pattern with the stride of one
-- row of the image. 59 million parameters.
local hd = require "heddle"
local network = require "sparse_transformer"

local c = hd.config {
  length = 3072, layers = 128, width = 256, heads = 2, inner = 512, qk_width = 128, vocab = 256,
  stride = 96, batch = 1, dropout = 0.25, recompute = true, chunks = 1,
}

-- whole rows of the image alone are one
local image = c.length % 96 == 0 and c.vocab == 256 and hd.image { width = 32, height = c.length // 96, order = "hwc" } or nil

return network.model("cifar10", c, { (c.length + 95) // 96, 32, 3 }, { hd.pattern.sparse_transformer_strided { l = c.stride } },
                     hd.training { lr = 3.5e-4, warmup = 5000, decay = 0.01, clip = 1.0, beta2 = 0.999, batch = c.batch }, image)
