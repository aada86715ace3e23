-- The Sparse Transformer for raw audio (arXiv 1904.10509, section 7.4): bytes of mu-law samples at 12 kHz, the strided pattern with
-- a stride near the square root of the length. The paper gives lengths and parameter counts, not shapes; these give its counts, and
-- the length chooses among them unless -D names others:
--     -D length=65536      152M: 48 layers, width 512, 16 heads (the default)
--     -D length=262144     25M: 32 layers, width 256, 8 heads
--     -D length=1048576    3M: 4 layers, width 192, inner 1536, 3 heads: few wide layers, since two tensors of length * width are
--                          kept for each layer: a training step fits 16 GB
-- Samples are written as WAV files of -D rate= (12000) samples a second. -D encoding=g711-mu-law says that the bytes are those of
-- `sox FILE.wav -r 12000 -c 1 -t ul FILE.bytes`, which makes data to learn from; the paper's are torchaudio's and WaveNet's, "mu-law".
local hd = require "heddle"
local network = require "sparse_transformer"

local c = hd.config {
  length = 65536, layers = 0, width = 0, heads = 0, inner = 0, qk_width = 0, vocab = 256,
  stride = 0, batch = 1, rate = 12000, encoding = "mu-law", dropout = 0.0, recompute = true, chunks = 0,
  -- 0: layers, width and heads by the length, inner 4 * width, qk_width = width, stride a power of two near sqrt(length), chunks of 32,768 rows
}
local by_length = c.length >= 1 << 20 and { layers = 4, width = 192, heads = 3, inner = 1536 } or c.length >= 1 << 18 and { layers = 32, width = 256, heads = 8 }
  or { layers = 48, width = 512, heads = 16 }
if c.inner == 0 and c.width == 0 then c.inner = by_length.inner or 0 end
for _, key in ipairs { "layers", "width", "heads" } do if c[key] == 0 then c[key] = by_length[key] end end
if c.inner == 0 then c.inner = 4 * c.width end
if c.qk_width == 0 then c.qk_width = c.width end
if c.chunks == 0 then c.chunks = math.max(1, math.min(32, c.length // 32768)) end
if c.stride == 0 then
  c.stride = 1
  while c.stride * c.stride < c.length do c.stride = 2 * c.stride end
end

return network.model("music", c, { (c.length + c.stride - 1) // c.stride, c.stride }, { hd.pattern.sparse_transformer_strided { l = c.stride } },
                     hd.training { lr = 3e-4, warmup = 5000, decay = 0.01, clip = 1.0, beta2 = 0.999, batch = c.batch },
                     hd.sound { rate = c.rate, encoding = c.encoding })
