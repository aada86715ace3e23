"""PyTorch's side of the whole models in bench/bench.sh: GPT-2's network (models/gpt2.lua) as well as plain PyTorch on a CPU runs it.

    model_torch.py version
    model_torch.py export FOLDER SIZES            weights.safetensors and tokens.safetensors for ours, logits.safetensors to compare with,
                                                  and the network for ONNX Runtime: plain.onnx, fused.onnx (bench/model_onnx.js)
    model_torch.py compare A B                    fails unless the tensors `logits` of two files agree
    model_torch.py serve forward|train|decode [quick] SIZES
                                                  finds the fastest variant (quick: of two), prints "ready WHAT", then answers each line on
                                                  standard input with the milliseconds of a call
SIZES: length=1024 batch=1 layers=12 width=768 heads=12 vocab=50257 threads=1 context=128

Attention exists in several ways here, and the fastest is taken: one batched product for all scores with a causal bias; blocks of
queries that leave out the keys after them; PyTorch's own function where it has one. The forward pass also competes as a traced
graph, frozen and optimised for inference. A training step is forward, loss, gradients, clipping and AdamW over lists of tensors.
Decoding is a forward pass of one position whose attention reads `context` more from a cache, written in place."""
import json
import math
import statistics
import struct
import sys
import time
import warnings

import numpy
import torch
import torch.nn.functional as F

NEVER = -1e30            # finite: a block's row without kept keys weighs exp(NEVER - max) = 0, not NaN


# ---- files of ours ----

def save(path, tensors):
    """safetensors: length of the header, header as JSON, data"""
    header, at = {}, 0
    for name, t in tensors.items():
        size = t.numel() * t.element_size()
        header[name] = {"dtype": {torch.float32: "F32", torch.int32: "I32"}[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.detach().contiguous().numpy().tobytes())


def read(path, name):
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        about = json.loads(f.read(size))[name]
        first, end = about["data_offsets"]
        f.seek(8 + size + first)
        return numpy.frombuffer(f.read(end - first), "<f4").reshape(about["shape"])


# ---- the network ----

def gelu_written_out(x):
    """What ONNX Runtime recognises as one operator."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class Whole(torch.nn.Module):
    """All scores by one batched product; the bias cuts what comes after."""
    def __init__(self, length):
        super().__init__()
        self.register_buffer("bias", torch.full((length, length), NEVER).triu_(1), persistent=False)

    def forward(self, q, k, v):                           # [batch * heads, length, head_dim]
        s = torch.baddbmm(self.bias, q, k.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
        return torch.bmm(torch.softmax(s, -1), v)


class Blocks(torch.nn.Module):
    """Blocks of queries against the keys up to their last."""
    def __init__(self, length, block):
        super().__init__()
        self.block = block
        self.register_buffer("bias", torch.full((length, length), NEVER).triu_(1), persistent=False)

    def forward(self, q, k, v):
        out, n, scale = [], q.shape[1], 1 / math.sqrt(q.shape[-1])
        for first in range(0, n, self.block):
            end = min(first + self.block, n)
            s = torch.baddbmm(self.bias[first:end, :end], q[:, first:end], k[:, :end].transpose(1, 2), alpha=scale)
            out.append(torch.bmm(torch.softmax(s, -1), v[:, :end]))
        return torch.cat(out, 1)


class Own(torch.nn.Module):
    """PyTorch 2's function."""
    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Cached(torch.nn.Module):
    """A layer's own keys and values, of `context` positions before this one."""
    def __init__(self, c):
        super().__init__()
        shape = c["batch"] * c["heads"], c["context"] + 1, c["width"] // c["heads"]
        self.keys, self.values = torch.randn(shape), torch.randn(shape)

    def forward(self, q, k, v):                           # [batch * heads, 1, head_dim]
        self.keys[:, -1:], self.values[:, -1:] = k, v
        return torch.bmm(torch.softmax(torch.bmm(q, self.keys.transpose(1, 2)) / math.sqrt(q.shape[-1]), -1), self.values)


class FusedForExport(torch.autograd.Function):
    """ONNX Runtime's causal attention that stores no scores: [batch, length, heads * head_dim] each."""
    @staticmethod
    def forward(ctx, q, k, v, past, lengths, total, heads):
        b, n, width = q.shape
        parts = [t.view(b, n, heads, width // heads).transpose(1, 2) for t in (q, k, v)]
        s = torch.matmul(parts[0], parts[1].transpose(2, 3)) / math.sqrt(width // heads)
        s = s + torch.full((n, n), NEVER).triu_(1)
        return torch.matmul(torch.softmax(s, -1), parts[2]).transpose(1, 2).reshape(b, n, width)

    @staticmethod
    def symbolic(g, q, k, v, past, lengths, total, heads):
        out, *_ = g.op("com.microsoft::GroupQueryAttention", q, k, v, past, past, lengths, total, num_heads_i=heads, kv_num_heads_i=heads, outputs=3)
        out.setType(q.type())
        return out


class Layer(torch.nn.Module):
    def __init__(self, c, attend, gelu):
        super().__init__()
        w = c["width"]
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(w), torch.nn.LayerNorm(w)
        self.qkv, self.proj = torch.nn.Linear(w, 3 * w), torch.nn.Linear(w, w)
        self.fc, self.mlp_proj = torch.nn.Linear(w, 4 * w), torch.nn.Linear(4 * w, w)
        self.attend, self.gelu, self.heads = attend, gelu, c["heads"]

    def forward(self, x):
        b, n, w = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4).reshape(3, b * self.heads, n, w // self.heads).unbind(0)
        o = self.attend(q, k, v).view(b, self.heads, n, w // self.heads).transpose(1, 2).reshape(b, n, w)
        x = x + self.proj(o)
        return x + self.mlp_proj(self.gelu(self.fc(self.ln_2(x))))


class FusedLayer(Layer):
    """For export only."""
    def forward(self, x):
        b, n, w = x.shape
        q, k, v = self.qkv(self.ln_1(x)).split(w, 2)
        past = torch.zeros(b, self.heads, 0, w // self.heads)
        o = FusedForExport.apply(q, k, v, past, torch.full((b,), n - 1, dtype=torch.int32), torch.tensor(n, dtype=torch.int32), self.heads)
        x = x + self.proj(o)
        return x + self.mlp_proj(self.gelu(self.fc(self.ln_2(x))))


class Network(torch.nn.Module):
    def __init__(self, c, attend=None, gelu=lambda x: F.gelu(x, approximate="tanh"), layer=Layer):
        super().__init__()
        self.wte, self.wpe = torch.nn.Embedding(c["vocab"], c["width"]), torch.nn.Embedding(c["length"], c["width"])
        self.layers = torch.nn.ModuleList(layer(c, attend(c) if isinstance(attend, type) else attend, gelu) for _ in range(c["layers"]))
        self.ln_f = torch.nn.LayerNorm(c["width"])
        self.register_buffer("positions", torch.arange(c["length"]), persistent=False)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(self.positions)
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.ln_f(x), self.wte.weight)

    def initialise(self):
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, p in self.named_parameters():
                p.normal_(0, 0.02, generator=generator)
                if "ln_" in name and name.endswith("weight"):
                    p.add_(1)
        return self

    def as_ours(self):
        """Names and layouts of models/gpt2.lua: products [in, out]."""
        names = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "fc": "mlp.c_fc", "mlp_proj": "mlp.c_proj", "ln_1": "ln_1", "ln_2": "ln_2"}
        ours = {}
        for name, p in self.named_parameters():
            words = name.split(".")
            if words[0] == "layers":
                name = "h.%s.%s.%s" % (words[1], names[words[2]], words[3])
                p = p.t() if p.dim() == 2 else p
            ours["transformer." + name] = p
        return ours


def some_tokens(c):
    return torch.randint(0, c["vocab"], (c["batch"], c["length"]), generator=torch.Generator().manual_seed(2))


# ---- variants and their times ----

def ways(c, quick):
    if quick:
        yield "blocks of 128 queries", Blocks(c["length"], 128)
    yield "one product for all scores", Whole(c["length"])
    if quick:
        return
    for block in (64, 128, 256):
        if block < c["length"]:
            yield "blocks of %d queries" % block, Blocks(c["length"], block)
    if hasattr(F, "scaled_dot_product_attention"):
        yield "scaled_dot_product_attention", Own()


def eager(c, attend, tokens):
    net = Network(c, attend).initialise().eval()

    def call():
        with torch.inference_mode():
            return net(tokens)
    return call


def traced(c, attend, tokens):
    net = Network(c, attend).initialise().eval()
    with torch.no_grad():
        graph = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(net, tokens)))

    def call():
        with torch.inference_mode():
            return graph(tokens)
    return call


def step(c, attend, tokens, lists=True):
    net = Network(c, attend).initialise()
    parameters = list(net.parameters())
    decay = [{"params": [p for p in parameters if p.dim() == 2], "weight_decay": 0.1}, {"params": [p for p in parameters if p.dim() != 2], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(decay, lr=1e-4, betas=(0.9, 0.99), foreach=lists)

    def call():
        logits = net(tokens)[:, :-1]
        F.cross_entropy(logits.reshape(-1, c["vocab"]), tokens[:, 1:].reshape(-1)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return call


def variants(entry, c, quick):
    """Makers of calls: first the ways of attention, then, for the best of them (sent back), another way of the rest."""
    tokens = some_tokens(c)
    if entry == "decode":
        yield "keys and values in place", lambda: eager(c, Cached, tokens)
        yield "the same, traced and optimised for inference", lambda: traced(c, Cached, tokens)
        return
    first, second, how = (eager, traced, "traced and optimised for inference") if entry == "forward" else (step, lambda *a: step(*a, lists=False), "AdamW tensor by tensor")
    best = None
    for what, attend in ways(c, quick):
        best = (yield what, lambda: first(c, attend, tokens)) or best
    for what, attend in [] if quick else ways(c, quick):
        if what == best:
            yield what + ", " + how, lambda: second(c, attend, tokens)


def timed(call, c):
    """Milliseconds; of one thread the processor time that it took, which other processes lengthen less."""
    clock = time.process_time if c["threads"] == 1 else time.perf_counter
    begun = clock()
    call()
    return 1e3 * (clock() - begun)


def choose(entry, c, quick):
    best, tried = None, variants(entry, c, quick)
    what, make = next(tried)
    while True:
        call = make()
        call()
        taken = timed(call, c)
        if not best or taken < 1.2 * best[0]:
            taken = min(taken, timed(call, c))
        print("%9.1f ms  %s" % (taken, what), file=sys.stderr)
        if not best or taken < best[0]:
            best = taken, what, call
        del call                                           # its weights and moments take memory
        try:
            what, make = tried.send(best[1])
        except StopIteration:
            return best


def serve(entry, c, quick):
    _, what, call = choose(entry, c, quick)
    print("ready\t" + what, flush=True)
    for _ in sys.stdin:
        times, begun = [], time.perf_counter()
        while not times or time.perf_counter() - begun < 0.5:
            times.append(timed(call, c))
        print("%.4f" % statistics.median(times), flush=True)


# ---- the same network elsewhere ----

def export(folder, c):
    net, tokens = Network(c, Whole(c["length"]), gelu_written_out).initialise().eval(), some_tokens(c)
    save(folder + "/weights.safetensors", net.as_ours())
    save(folder + "/tokens.safetensors", {"tokens": tokens.to(torch.int32)})
    with torch.no_grad():
        save(folder + "/logits.safetensors", {"logits": net(tokens)})
    fused = Network(c, None, gelu_written_out, FusedLayer).initialise().eval()
    for name, version in ("plain", net), ("fused", fused):
        torch.onnx.export(version, tokens, "%s/%s.onnx" % (folder, name), opset_version=14, input_names=["tokens"], output_names=["logits"],
                          do_constant_folding=True, custom_opsets={"com.microsoft": 1})


def compare(a, b):
    x, y = read(a, "logits"), read(b, "logits")
    worst = float(abs(x.astype("f8") - y).max() / abs(x).max())
    if x.shape != y.shape or not worst < 1e-4:
        sys.exit("model_torch.py: logits of %s and %s differ by %.1e of the largest" % (a, b, worst))
    print("logits agree to %.1e of the largest" % worst)


def main():
    warnings.filterwarnings("ignore")
    words = [word for word in sys.argv[1:] if "=" not in word]
    c = dict(length=1024, batch=1, layers=12, width=768, heads=12, vocab=50257, threads=1, context=128)
    c.update((key, int(value)) for key, value in (word.split("=") for word in sys.argv[1:] if "=" in word))
    torch.set_num_threads(c["threads"])
    torch.set_flush_denormal(True)
    if words == ["version"]:
        print("PyTorch " + torch.__version__)
    elif words[:1] == ["export"] and len(words) == 2:
        export(words[1], c)
    elif words[:1] == ["compare"] and len(words) == 3:
        compare(*words[1:])
    elif words[:2] in (["serve", "forward"], ["serve", "train"], ["serve", "decode"]) and words[2:] in ([], ["quick"]):
        serve(words[1], c, bool(words[2:]))
    else:
        sys.exit("usage: model_torch.py version | export FOLDER SIZES | compare A B | serve forward|train|decode [quick] SIZES")


main()
