-- The Sparse Transformer for ImageNet at 64 x 64 (arXiv 1904.10509, section 7.3): length 12,288, 48 layers, 16 heads, width 512,
-- the strided pattern with stride 128. 152 million parameters.
local hd = require "heddle"
local network = require "sparse_transformer"

local c = hd.config {
  length = 12288, layers = 48, width = 512, heads = 16, inner = 2048, qk_width = 512, vocab = 256,
  stride = 128, batch = 1, dropout = 0.01, recompute = true, chunks = 1,
}

-- whole rows of the image alone are one
local image = c.length % 192 == 0 and c.vocab == 256 and hd.image { width = 64, height = c.length // 192, order = "hwc" } or nil

return network.model("imagenet64", c, { (c.length + 191) // 192, 64, 3 }, { hd.pattern.sparse_transformer_strided { l = c.stride } },
                     hd.training { lr = 1.5e-4, warmup = 5000, decay = 0.01, clip = 1.0, beta2 = 0.999, batch = c.batch }, image)
