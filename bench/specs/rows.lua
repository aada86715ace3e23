-- The kernels around the products, each alone on arrays beyond the last cache: an entry for each, run by bench/bench.sh.
--   elements   of the large tensors;  width, keys, vocab: their last axis for norms and maps, for softmax, for the loss
--   few        rows of the few-row products, which read their matrix of [elements / depth, depth] once
local hd = require "heddle"
local c = hd.config { elements = 32 << 20, width = 1024, keys = 1024, vocab = 32768, depth = 4096, few = 4 }

local function tensor(name, last) return hd.input(name, { c.elements // last, last }) end
local x, dy, residual = tensor("x", c.width), tensor("dy", c.width), tensor("residual", c.width)
local gain, bias = hd.input("gain", { c.width }), hd.input("bias", { c.width })
local scores, dscores = tensor("scores", c.keys), tensor("dscores", c.keys)
local logits, targets = tensor("logits", c.vocab), hd.input("targets", { c.elements // c.vocab }, "i32")
local rows = hd.input("table", { c.vocab, c.width })
local ids = hd.input("ids", { c.elements // c.width }, "i32")
local matrix, wide = tensor("matrix", c.depth), hd.input("matrix_in_out", { c.depth, c.elements // c.depth })
local one, few = hd.input("one", { 1, c.depth }), hd.input("few", { c.few, c.depth })

local entries = {}
local function entry(name, inputs, outputs) entries[name] = { inputs = inputs, outputs = outputs } end
local function norm(t) return hd.layer_norm(t, gain, bias) end
-- Gradients of y in the direction d: the backward kernels, and what they need of the forward ones.
local function backward(y, d, tensors) return hd.grad(hd.sum(y * d), tensors) end

entry("layer_norm", { x, gain, bias }, { y = norm(x) })
entry("layer_norm_sum", { x, residual, gain, bias }, { y = norm(x) + residual })
entry("rms_norm", { x, gain }, { y = hd.rms_norm(x, gain) })
do
  local dx, dgain, dbias = backward(norm(x), dy, { x, gain, bias })
  entry("layer_norm_backward", { x, gain, bias, dy }, { dx = dx, dgain = dgain, dbias = dbias })
  dx, dgain = backward(hd.rms_norm(x, gain), dy, { x, gain })
  entry("rms_norm_backward", { x, gain, dy }, { dx = dx, dgain = dgain })
end
entry("softmax", { scores }, { p = hd.softmax(scores) })
entry("softmax_backward", { scores, dscores }, { dx = backward(hd.softmax(scores), dscores, { scores }) })
entry("cross_entropy", { logits, targets }, { nll = hd.cross_entropy(logits, targets) })
entry("cross_entropy_backward", { logits, targets }, { dlogits = hd.grad(hd.mean(hd.cross_entropy(logits, targets)), { logits }) })
for _, kind in ipairs { "erf", "tanh" } do
  entry("gelu_" .. kind, { x }, { y = hd.gelu(x, kind) })
  entry("gelu_" .. kind .. "_backward", { x, dy }, { dx = backward(hd.gelu(x, kind), dy, { x }) })
end
entry("add", { x, residual }, { y = x + residual })
entry("bias_gradient", { dy }, { db = hd.sum(dy, { 1 }) })
entry("embedding", { rows, ids }, { y = hd.embedding(rows, ids) })
entry("embedding_backward", { rows, ids, dy }, { dtable = backward(hd.embedding(rows, ids), dy, { rows }) })
entry("one_row", { one, matrix }, { y = hd.matmul(one, matrix, { trans_b = true }) })
entry("one_row_in_out", { one, wide }, { y = hd.matmul(one, wide) })
entry("few_rows", { few, matrix }, { y = hd.matmul(few, matrix, { trans_b = true }) })
entry("few_rows_in_out", { few, wide }, { y = hd.matmul(few, wide) })

return hd.model { name = "rows", entries = entries }
