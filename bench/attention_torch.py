"""PyTorch's side of bench/attention.sh: each pattern as well as plain PyTorch on a CPU can do it.

    attention_torch.py check [ROW...]           every variant at a small size against dense masked attention, values and gradients
    attention_torch.py serve ROW LENGTH [EDGES] checks, finds the fastest variants, prints "ready ...", then answers each line
                                                `forward` or `backward` on standard input with the time of that in milliseconds

Two ways of writing a pattern compete, each with several block sizes, and the fastest is taken for forward and for backward:
  batched   all blocks in a few batched products, left to autograd (keys of the blocks copied beside each other)
  tiles     a loop over tiles that fit the cache, as torch.autograd.Function: backward computes the scores again from
            log-sum-exp instead of reading them from memory, and adds to slices of dk, dv in place
Forward is timed under no_grad. Backward is the gradient alone; the forward before it is not timed.
Everything is f32, [heads, length, head_dim] (the graph: [length, heads, head_dim] in memory), one thread."""
import math
import statistics
import sys
import time
import warnings

import torch

HEADS = 8
NEVER = -1e30            # finite: a part without kept keys weighs exp(NEVER - max) = 0, not NaN


# ---- dense reference ----

def dense(q, k, v, keep):
    s = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    return torch.matmul(torch.softmax(s.masked_fill(~keep, -math.inf), -1), v)


def bias_of(keep):
    return torch.zeros(keep.shape).masked_fill_(~keep, NEVER)


# ---- tiles ----

class Part:
    """Keys of a tile: views [heads, count, d] (or that reshape to it) of key source `source`; bias [queries, keys] or None."""

    def __init__(self, views, bias=None, source=0):
        self.views, self.bias, self.source = views, bias, source

    def read(self, t):
        got = [view(t) for view in self.views]
        got = [g if g.dim() == 3 else g.reshape(g.shape[0], -1, g.shape[-1]) for g in got]
        return got[0] if len(got) == 1 else torch.cat(got, 1)

    def add_product(self, t, a, b):
        """t's keys += a^T b"""
        if len(self.views) == 1 and self.views[0](t).dim() == 3:
            self.views[0](t).baddbmm_(a.transpose(1, 2), b)
            return
        product, first = torch.bmm(a.transpose(1, 2), b), 0
        for view in self.views:
            to = view(t)
            count = to.numel() // (to.shape[0] * to.shape[-1])
            to.add_(product[:, first:first + count].reshape(to.shape))
            first += count


class Tile:
    def __init__(self, rows, parts):
        self.rows, self.parts = rows, parts

    def read(self, t):
        got = self.rows(t)
        return got if got.dim() == 3 else got.reshape(got.shape[0], -1, got.shape[-1])

    def write(self, t, value):
        to = self.rows(t)
        to.copy_(value if to.dim() == 3 else value.reshape(to.shape))

    def scores(self, q, keys, scale):
        """[heads, queries, keys of all parts], and the parts' views of it"""
        got = [part.read(keys[part.source]) for part in self.parts]
        s = torch.empty(q.shape[0], q.shape[1], sum(g.shape[1] for g in got))
        views, first = [], 0
        for part, k in zip(self.parts, got):
            view = s[:, :, first:first + k.shape[1]]
            view.baddbmm_(q, k.transpose(1, 2), beta=0, alpha=scale)
            if part.bias is not None:
                view.add_(part.bias)
            views.append(view)
            first += k.shape[1]
        return s, views, got


class Tiles(torch.autograd.Function):
    """families: lists of tiles; the rows of the second one join those of the first by their maxima and sums."""

    @staticmethod
    def forward(ctx, families, q, *kv):
        keys, values, scale = kv[0::2], kv[1::2], 1 / math.sqrt(q.shape[-1])
        o, needs = torch.empty_like(q), q.requires_grad
        largest = q.new_empty(q.shape[:-1] + (1,))
        total = torch.empty_like(largest)
        alone = len(families) == 1
        for f, family in enumerate(families):
            for tile in family:
                s, views, _ = tile.scores(tile.read(q), keys, scale)
                if alone and not needs:
                    s = torch.softmax(s, -1)
                else:
                    m = s.amax(-1, True)
                    s.sub_(m).exp_()
                    l = s.sum(-1, True)
                out, first = None, 0
                for part, view in zip(tile.parts, views):
                    p = s[:, :, first:first + view.shape[2]]
                    v = part.read(values[part.source])
                    out = torch.bmm(p, v) if out is None else out.baddbmm_(p, v)
                    first += view.shape[2]
                if alone:
                    if needs:
                        out.div_(l)
                        tile.write(largest, m)
                        tile.write(total, l)
                    tile.write(o, out)
                elif f == 0:
                    tile.write(o, out)
                    tile.write(largest, m)
                    tile.write(total, l)
                else:
                    old, sum_old = tile.read(largest), tile.read(total)
                    new = torch.maximum(old, m)
                    a, b = (old - new).exp_(), (m - new).exp_()
                    sum_new = sum_old * a + l * b
                    if f == len(families) - 1 and not needs:
                        a, b = a / sum_new, b / sum_new
                    tile.write(o, (tile.read(o) * a).addcmul_(out, b))
                    tile.write(largest, new)
                    tile.write(total, sum_new)
        if needs:
            if not alone:
                o.div_(total)
            ctx.families = families
            ctx.save_for_backward(q, o, largest.add_(total.log_()), *kv)
        return o

    @staticmethod
    def backward(ctx, d_out):
        q, o, lse, *kv = ctx.saved_tensors
        keys, values, scale = kv[0::2], kv[1::2], 1 / math.sqrt(q.shape[-1])
        delta = (d_out * o).sum(-1, True)
        dq, dkv = torch.empty_like(q), [torch.zeros_like(t) for t in kv]
        d_keys, d_values = dkv[0::2], dkv[1::2]
        for f, family in enumerate(ctx.families):
            for tile in family:
                rows, d_rows, d = tile.read(q), tile.read(d_out), tile.read(delta)
                p, views, got = tile.scores(rows, keys, scale)
                p.sub_(tile.read(lse)).exp_()
                mine = None
                for part, view, k in zip(tile.parts, views, got):
                    part.add_product(d_values[part.source], view, d_rows)
                    ds = torch.bmm(d_rows, part.read(values[part.source]).transpose(1, 2)).sub_(d).mul_(view).mul_(scale)
                    mine = torch.bmm(ds, k) if mine is None else mine.baddbmm_(ds, k)
                    part.add_product(d_keys[part.source], ds, rows)
                tile.write(dq, mine if f == 0 else mine.add_(tile.read(dq)))
        return (None, dq, *dkv)


def span(heads, first, end):
    return lambda t: t[heads, first:end]


def head_groups(size):
    return [slice(h, h + size) for h in range(0, HEADS, size)]


# ---- patterns: each gives keep(length), small and full lengths, and its variants ----

class Pattern:
    head_dim = 64
    small = 256
    heads_inside = False     # [length, heads, head_dim] in memory

    def mask(self, n):
        raise NotImplementedError

    def positions(self, n):
        i = torch.arange(n)
        return i[:, None], i[None, :]


class Causal(Pattern):
    """Query rows in blocks, each against the keys up to its own: the upper triangle is never computed."""

    def mask(self, n):
        i, j = self.positions(n)
        return (j <= i).expand(HEADS, n, n)

    def variants(self, n):
        for rows in (128, 256, 512):
            if rows <= n and (n <= 4096 or rows == 256):
                yield "batched, rows of %d" % rows, self.batched(n, rows)
                for group in (1, 2, 8):
                    yield "tiles of %d rows, %d heads" % (rows, group), self.tiles(n, rows, group)

    def batched(self, n, rows):
        triangle = bias_of(torch.ones(rows, rows).tril() > 0)

        def attend(q, k, v):
            scale, out = 1 / math.sqrt(q.shape[-1]), []
            qs, ks, vs = q.split(rows, 1), k.split(rows, 1), v.split(rows, 1)
            for b, block in enumerate(qs):
                keys, values = torch.cat(ks[:b + 1], 1), torch.cat(vs[:b + 1], 1)
                bias = torch.nn.functional.pad(triangle, (b * rows, 0))
                s = torch.baddbmm(bias.expand(HEADS, -1, -1), block, keys.transpose(1, 2), alpha=scale)
                out.append(torch.bmm(torch.softmax(s, -1), values))
            return torch.cat(out, 1)
        return attend

    def tiles(self, n, rows, group):
        triangle, tiles = bias_of(torch.ones(rows, rows).tril() > 0), []
        for h in head_groups(group):
            for a in range(0, n, rows):
                before = [Part([span(h, 0, a)])] if a else []
                tiles.append(Tile(span(h, a, a + rows), before + [Part([span(h, a, a + rows)], triangle)]))
        return lambda q, k, v: Tiles.apply([tiles], q, k, v)


class Window(Pattern):
    """The last `keys` keys: blocks of queries against their own and as many earlier keys as the window reaches."""

    def __init__(self, keys):
        self.keys, self.small = keys, 4 * keys

    def mask(self, n):
        i, j = self.positions(n)
        return ((j <= i) & (i - j < self.keys)).expand(HEADS, n, n)

    def variants(self, n):
        for block in (64, 128, 256):
            yield "batched, blocks of %d" % block, self.batched(n, block)
            for group in (2, 4, 8):
                yield "tiles of %d rows, %d heads" % (block, group), self.tiles(n, block, group)

    def bias(self, block):
        t, u = torch.arange(block)[:, None] + self.keys, torch.arange(block + self.keys)[None, :]
        return bias_of((u <= t) & (t - u < self.keys))

    def batched(self, n, block):
        blocks, before = n // block, self.keys // block
        real = torch.arange(blocks)[:, None, None] * block + torch.arange(block + self.keys)[None, None, :] >= self.keys
        bias = (self.bias(block) + bias_of(real)).repeat(HEADS, 1, 1)

        def unfold(t):
            t = torch.nn.functional.pad(t, (0, 0, self.keys, 0)).view(HEADS, blocks + before, block, -1)
            return torch.cat([t[:, b:b + blocks] for b in range(before + 1)], 2).view(HEADS * blocks, block + self.keys, -1)

        def attend(q, k, v):
            s = torch.baddbmm(bias, q.view(HEADS * blocks, block, -1), unfold(k).transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
            return torch.bmm(torch.softmax(s, -1), unfold(v)).view(q.shape)
        return attend

    def tiles(self, n, block, group):
        bias, tiles = self.bias(block), []
        for h in head_groups(group):
            for a in range(0, n, block):
                first = max(0, a - self.keys)
                tiles.append(Tile(span(h, a, a + block), [Part([span(h, first, a + block)], bias[:, first - (a - self.keys):])]))
        return lambda q, k, v: Tiles.apply([tiles], q, k, v)


class Strided(Pattern):
    """The last l keys, and keys at multiples of l back: l columns of every l-th position, dense and strictly causal, their keys
    after the window's own l, so that no pair is computed twice."""

    def __init__(self, stride):
        self.stride, self.small = stride, 5 * stride

    def mask(self, n):
        i, j = self.positions(n)
        return ((j <= i) & ((i - j < self.stride) | ((i - j) % self.stride == 0))).expand(HEADS, n, n)

    def variants(self, n):
        yield "batched, one softmax", self.batched(n)
        yield "batched, joined by maxima and sums", self.joined(n)
        for columns in (8, 32):
            for block in (64, 128):
                for group in (4, 8):
                    yield "tiles of %d rows, %d heads, and %d columns" % (block, group, columns), self.tiles(n, block, group, columns)

    def prepare(self, n):
        l, chunks = self.stride, n // self.stride
        t, u = torch.arange(l)[:, None] + l, torch.arange(2 * l)[None, :]
        near = bias_of((u <= t) & (t - u < l)).repeat(chunks, 1, 1)
        near[0, :, :l] = NEVER
        return l, chunks, near, bias_of(torch.ones(chunks, chunks).tril(-1) > 0)

    def scores(self, q, k, l, chunks, near, far):
        scale, d = 1 / math.sqrt(q.shape[-1]), q.shape[-1]
        columns = lambda t: t.view(HEADS, chunks, l, d).transpose(1, 2).reshape(HEADS * l, chunks, d)
        s = torch.baddbmm(near.repeat(HEADS, 1, 1), q.view(HEADS * chunks, l, d), self.pairs(k, l, chunks).transpose(1, 2), alpha=scale)
        return s, torch.baddbmm(far.expand(HEADS * l, -1, -1), columns(q), columns(k).transpose(1, 2), alpha=scale), columns

    def pairs(self, t, l, chunks):
        t = torch.nn.functional.pad(t, (0, 0, l, 0)).view(HEADS, chunks + 1, l, -1)
        return torch.cat([t[:, :-1], t[:, 1:]], 2).view(HEADS * chunks, 2 * l, -1)

    def batched(self, n):
        l, chunks, near, far = self.prepare(n)

        def attend(q, k, v):
            s1, s2, columns = self.scores(q, k, l, chunks, near, far)
            s2 = s2.view(HEADS, l, chunks, chunks).transpose(1, 2).reshape(HEADS * chunks, l, chunks)
            p1, p2 = torch.softmax(torch.cat([s1, s2], -1), -1).split([2 * l, chunks], -1)
            p2 = p2.reshape(HEADS, chunks, l, chunks).transpose(1, 2).reshape(HEADS * l, chunks, chunks)
            o2 = torch.bmm(p2, columns(v)).view(HEADS, l, chunks, -1).transpose(1, 2).reshape(q.shape)
            return torch.bmm(p1, self.pairs(v, l, chunks)).view(q.shape) + o2
        return attend

    def joined(self, n):
        l, chunks, near, far = self.prepare(n)

        def attend(q, k, v):
            s1, s2, columns = self.scores(q, k, l, chunks, near, far)
            back = lambda t: t.view(HEADS, l, chunks, -1).transpose(1, 2).reshape(HEADS, n, -1)
            with torch.no_grad():
                m = torch.maximum(s1.amax(-1).view(HEADS, n, 1), back(s2.amax(-1, True)))
            e1 = torch.exp(s1 - m.view(HEADS * chunks, l, 1))
            e2 = torch.exp(s2 - columns_of(m, l, chunks))
            total = e1.sum(-1).view(HEADS, n, 1) + back(e2.sum(-1, True))
            return (torch.bmm(e1, self.pairs(v, l, chunks)).view(q.shape) + back(torch.bmm(e2, columns(v)))) / total

        def columns_of(t, l, chunks):
            return t.view(HEADS, chunks, l, 1).transpose(1, 2).reshape(HEADS * l, chunks, 1)
        return attend

    def tiles(self, n, block, group, columns):
        l, chunks, _, far = self.prepare(n)
        window = Window(l)
        bias, near, apart = window.bias(block), [], []
        for h in head_groups(group):
            for a in range(0, n, block):
                first = max(0, a - l)
                near.append(Tile(span(h, a, a + block), [Part([span(h, first, a + block)], bias[:, first - (a - l):])]))

        def view(h, r):
            return lambda t: t.view(HEADS, chunks, l, -1)[h, :, r:r + columns].transpose(0, 1)
        for h in range(HEADS):
            for r in range(0, l, columns):
                apart.append(Tile(view(h, r), [Part([view(h, r)], far)]))
        return lambda q, k, v: Tiles.apply([near, apart], q, k, v)


class Fixed(Pattern):
    """The own chunk so far, and `summary` keys of each chunk before, other ones for each head."""

    def __init__(self, chunk, summary):
        self.chunk, self.summary, self.small = chunk, summary, 8 * chunk

    def turn(self, head):
        groups = self.chunk // self.summary
        return groups - 1 - head % groups

    def mask(self, n):
        i, j = self.positions(n)
        own = (j // self.chunk == i // self.chunk)
        return torch.stack([(j <= i) & (own | (j % self.chunk // self.summary == self.turn(h))) for h in range(HEADS)])

    def variants(self, n):
        for chunks in (1, 2, 4):
            yield "batched, %d chunks" % chunks, self.batched(n, chunks)
            for group in (1, 2, 8):
                yield "tiles of %d chunks, %d heads" % (chunks, group), self.tiles(n, chunks, group)

    def summaries(self, t):
        n = t.shape[1]
        own = [h.view(n // self.chunk, self.chunk // self.summary, self.summary, -1).unbind(1)[self.turn(i)] for i, h in enumerate(t.unbind(0))]
        return torch.stack(own).view(HEADS, n // self.chunk * self.summary, -1)

    def own(self, chunks):
        """[chunks * chunk, the same]: own chunk so far; [.., chunks * summary]: summaries of earlier chunks among these"""
        t = torch.arange(chunks * self.chunk)
        c = t // self.chunk
        near = bias_of((c[:, None] == c[None, :]) & (t[:, None] >= t[None, :]))
        return near, bias_of(torch.arange(chunks * self.summary)[None, :] // self.summary < c[:, None])

    def batched(self, n, chunks):
        rows, keys = chunks * self.chunk, chunks * self.summary
        triangle, (_, among) = bias_of(torch.ones(self.chunk, self.chunk).tril() > 0), self.own(chunks)

        def attend(q, k, v):
            scale, d, out = 1 / math.sqrt(q.shape[-1]), q.shape[-1], []
            qs, ks, vs = (t.split(rows, 1) for t in (q, k, v))
            sk, sv = self.summaries(k).split(keys, 1), self.summaries(v).split(keys, 1)
            split = lambda t: t.reshape(HEADS * chunks, self.chunk, -1)
            for b in range(n // rows):
                own = torch.baddbmm(triangle.expand(HEADS * chunks, -1, -1), split(qs[b]), split(ks[b]).transpose(1, 2), alpha=scale)
                bias = torch.nn.functional.pad(among, (b * keys, 0)).expand(HEADS, -1, -1)
                far = torch.baddbmm(bias, qs[b], torch.cat(sk[:b + 1], 1).transpose(1, 2), alpha=scale)
                p1, p2 = torch.softmax(torch.cat([own.view(HEADS, rows, self.chunk), far], -1), -1).split([self.chunk, (b + 1) * keys], -1)
                out.append(torch.bmm(split(p1), split(vs[b])).view(HEADS, rows, d) + torch.bmm(p2, torch.cat(sv[:b + 1], 1)))
            return torch.cat(out, 1)
        return attend

    def tiles(self, n, chunks, group):
        rows, keys, tiles = chunks * self.chunk, chunks * self.summary, []
        near, among = self.own(chunks)
        for h in head_groups(group):
            for b in range(n // rows):
                parts = [Part([span(h, b * rows, (b + 1) * rows)], near)]
                if b:
                    parts.append(Part([span(h, 0, b * keys)], None, 1))
                if chunks > 1:
                    parts.append(Part([span(h, b * keys, (b + 1) * keys)], among, 1))
                tiles.append(Tile(span(h, b * rows, (b + 1) * rows), parts))
        return lambda q, k, v: Tiles.apply([tiles], q, k, v, self.summaries(k), self.summaries(v))


class Longformer(Pattern):
    """`side` keys on each side, and the first `tokens` positions, which read and are read by all."""

    def __init__(self, side, tokens):
        self.side, self.tokens, self.small = side, tokens, 6 * side

    def mask(self, n):
        i, j = self.positions(n)
        return (((i - j).abs() <= self.side) | (i < self.tokens) | (j < self.tokens)).expand(HEADS, n, n)

    def variants(self, n):
        for block in (64, 128, 256):
            for group in (1, 2, 8):
                yield "tiles of %d rows, %d heads" % (block, group), self.tiles(n, block, group)
        yield "batched, blocks of %d" % self.side, self.batched(n)

    def batched(self, n):
        """Blocks against three blocks and the tokens; the tokens' own rows apart."""
        w, g, blocks = self.side, self.tokens, n // self.side
        t = torch.arange(n).view(blocks, w, 1)
        u = (torch.arange(blocks)[:, None] - 1) * w + torch.arange(3 * w)[None, :]
        u = u[:, None, :]
        bias = bias_of(((t - u).abs() <= w) & (u >= g) & (u < n))
        bias = torch.cat([bias, torch.zeros(blocks, w, g)], -1).repeat(HEADS, 1, 1)

        def around(t):
            p = torch.nn.functional.pad(t, (0, 0, w, w)).view(HEADS, blocks + 2, w, -1)
            tokens = t[:, None, :g].expand(-1, blocks, -1, -1)
            return torch.cat([p[:, :-2], p[:, 1:-1], p[:, 2:], tokens], 2).view(HEADS * blocks, 3 * w + g, -1)

        def attend(q, k, v):
            scale = 1 / math.sqrt(q.shape[-1])
            s = torch.baddbmm(bias, q.view(HEADS * blocks, w, -1), around(k).transpose(1, 2), alpha=scale)
            o = torch.bmm(torch.softmax(s, -1), around(v)).view(q.shape)
            first = torch.bmm(torch.softmax(torch.bmm(q[:, :g], k.transpose(1, 2)) * scale, -1), v)
            return torch.cat([first, o[:, g:]], 1)
        return attend

    def tiles(self, n, block, group):
        tiles, shared = [], {}
        for h in head_groups(group):
            tiles.append(Tile(span(h, 0, self.tokens), [Part([span(h, 0, n)])]))
            for a in range(0, n, block):
                row, end = max(a, self.tokens), min(n, a + block + self.side)
                first = max(0, a - self.side)
                key = (row - first, end - row, first == 0)
                if key not in shared:
                    i, j = torch.arange(row, a + block)[:, None], torch.arange(first, end)[None, :]
                    shared[key] = bias_of(((i - j).abs() <= self.side) | (j < self.tokens))
                tokens = [Part([span(h, 0, self.tokens)])] if first else []
                tiles.append(Tile(span(h, row, a + block), tokens + [Part([span(h, first, end)], shared[key])]))
        return lambda q, k, v: Tiles.apply([tiles], q, k, v)


class BigBird(Pattern):
    """Blocks: the own and one on each side, the first and the last, which also read all, and `random` others."""
    small = 1024

    def __init__(self, block, random):
        self.block, self.random = block, random

    def lists(self, n):
        blocks, generator, lists = n // self.block, torch.Generator().manual_seed(1), []
        for b in range(blocks):
            if b in (0, blocks - 1):
                lists.append(list(range(blocks)))
                continue
            keys = {0, blocks - 1, b - 1, b, b + 1}
            others = [c for c in range(blocks) if c not in keys]
            keys |= {others[c] for c in torch.randperm(len(others), generator=generator)[:self.random].tolist()}
            lists.append(sorted(keys))
        return lists

    def mask(self, n):
        keep = torch.zeros(n, n, dtype=torch.bool)
        for b, keys in enumerate(self.lists(n)):
            for c in keys:
                keep[b * self.block:(b + 1) * self.block, c * self.block:(c + 1) * self.block] = True
        return keep.expand(HEADS, n, n)

    def variants(self, n):
        for group in (1, 2, 4, 8):
            yield "tiles of a block, %d heads, keys copied" % group, self.tiles(n, group)
        for pieces in (1, 4, 16):
            yield "batched, gathered blocks, in %d pieces" % pieces, self.batched(n, pieces)

    def batched(self, n, pieces):
        """Middle blocks read at most width blocks, the missing ones masked; end rows are dense."""
        size, blocks, lists = self.block, n // self.block, self.lists(n)
        width = max(len(keys) for keys in lists[1:-1])
        index = torch.tensor([keys + [0] * (width - len(keys)) for keys in lists[1:-1]])
        bias = torch.zeros(blocks - 2, size, width, size)
        for b, keys in enumerate(lists[1:-1]):
            bias[b, :, len(keys):] = NEVER
        bias, step = bias.view(blocks - 2, size, width * size), (blocks - 2 + pieces - 1) // pieces

        def attend(q, k, v):
            scale, d = 1 / math.sqrt(q.shape[-1]), q.shape[-1]
            kb, vb = k.view(HEADS, blocks, size * d), v.view(HEADS, blocks, size * d)
            end = lambda rows: torch.bmm(torch.softmax(torch.bmm(rows, k.transpose(1, 2)) * scale, -1), v)
            qs = q.split([size] + [size * min(step, blocks - 2 - b) for b in range(0, blocks - 2, step)] + [size], 1)
            out = [end(qs[0])]
            for rows, b in zip(qs[1:-1], range(0, blocks - 2, step)):
                count = rows.shape[1] // size
                take = lambda t: t.index_select(1, index[b:b + count].reshape(-1)).view(HEADS * count, width * size, d)
                s = torch.baddbmm(bias[b:b + count].repeat(HEADS, 1, 1), rows.reshape(HEADS * count, size, d), take(kb).transpose(1, 2), alpha=scale)
                out.append(torch.bmm(torch.softmax(s, -1), take(vb)).view(HEADS, count * size, d))
            return torch.cat(out + [end(qs[-1])], 1)
        return attend

    def tiles(self, n, group):
        size, tiles = self.block, []
        for h in head_groups(group):
            for b, keys in enumerate(self.lists(n)):
                runs = []
                for c in keys:
                    if runs and runs[-1][1] == c:
                        runs[-1][1] = c + 1
                    else:
                        runs.append([c, c + 1])
                tiles.append(Tile(span(h, b * size, (b + 1) * size), [Part([span(h, first * size, end * size) for first, end in runs])]))
        return lambda q, k, v: Tiles.apply([tiles], q, k, v)


class Natten(Pattern):
    """`kernel` x `kernel` neighbours on a square grid, moved inward at its ends."""
    head_dim = 32
    small = 256

    def __init__(self, kernel):
        self.kernel = kernel

    def starts(self, side):
        return (torch.arange(side) - self.kernel // 2).clamp(0, side - self.kernel)

    def mask(self, n):
        side = math.isqrt(n)
        first, j = self.starts(side)[:, None], torch.arange(side)[None, :]
        axis = (j >= first) & (j < first + self.kernel)
        return (axis[:, None, :, None] & axis[None, :, None, :]).reshape(n, n).expand(HEADS, n, n)

    def variants(self, n):
        yield "49 neighbours gathered", self.gathered(n)
        for tile in (4, 8, 16):
            for group in (1, 8):
                yield "tiles of %d x %d, %d heads" % (tile, tile, group), self.tiles(n, tile, group)

    def gathered(self, n):
        side = math.isqrt(n)
        rows = self.starts(side)[:, None] + torch.arange(self.kernel)
        index = (rows[:, None, :, None] * side + rows[None, :, None, :]).reshape(-1)
        count = self.kernel ** 2

        def attend(q, k, v):
            scale, d, out = 1 / math.sqrt(q.shape[-1]), q.shape[-1], []
            for qh, kh, vh in zip(q.unbind(0), k.unbind(0), v.unbind(0)):
                keys = kh.index_select(0, index).view(n, count, d)
                p = torch.softmax((keys * (qh * scale)[:, None, :]).sum(-1), -1)
                out.append((p[:, :, None] * vh.index_select(0, index).view(n, count, d)).sum(1))
            return torch.stack(out)
        return attend

    def tiles(self, n, tile, group):
        side = math.isqrt(n)
        start, tiles = self.starts(side), []
        reach = min(side, tile + self.kernel - 1)

        def axis(a):
            first = min(int(start[a]), side - reach)
            j = torch.arange(first, first + reach)[None, :]
            i = start[a:a + tile][:, None]
            return first, (j >= i) & (j < i + self.kernel)

        def view(h, r, c, size):
            return lambda t: t.view(HEADS, side, side, -1)[h, r:r + size, c:c + size]
        for h in head_groups(group):
            for a in range(0, side, tile):
                row, keep_rows = axis(a)
                for b in range(0, side, tile):
                    column, keep_columns = axis(b)
                    keep = (keep_rows[:, None, :, None] & keep_columns[None, :, None, :]).reshape(tile * tile, reach * reach)
                    tiles.append(Tile(view(h, a, b, tile), [Part([view(h, row, column, reach)], bias_of(keep))]))
        return lambda q, k, v: Tiles.apply([tiles], q, k, v)


class Graph(Pattern):
    """An edge list, both ways and self: gather the ends of each edge, softmax over the edges of a query, add up by query.
    Tensors lie in memory with the heads of a node together, which is how PyTorch gathers fastest."""
    small = 200
    heads_inside = True

    def __init__(self, path=None):
        self.path = path

    def edges(self, n):
        """[2, edges]: query, key; ascending, none twice"""
        if n == self.small or not self.path:
            pairs = torch.randint(0, n, (3 * n, 2), generator=torch.Generator().manual_seed(1)).tolist()
        else:
            pairs = [[int(word) for word in line.split()[:2]] for line in open(self.path) if line.strip() and not line.startswith("#")]
        every = {(a, b) for a, b in pairs} | {(b, a) for a, b in pairs} | {(i, i) for i in range(n)}
        return torch.tensor(sorted(every)).t().contiguous()

    def mask(self, n):
        keep = torch.zeros(n, n, dtype=torch.bool)
        keep[tuple(self.edges(n))] = True
        return keep.expand(HEADS, n, n)

    def variants(self, n):
        yield "gather, scatter_reduce and index_add, [heads, length, head_dim]", self.heads_first(n)
        yield "gather, scatter_reduce and index_add, [length, heads, head_dim]", self.heads_second(n)
        yield "gather, scatter_reduce and index_add, head by head", self.by_head(n)
        yield "dense, masked", lambda q, k, v, keep=bias_of(self.mask(n)[0]): torch.bmm(
            torch.softmax(torch.baddbmm(keep.expand(HEADS, -1, -1), q, k.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1])), -1), v)

    @staticmethod
    def weights(s, query, n):
        """softmax over the edges (axis 0) of each query"""
        to = query.view(-1, *[1] * (s.dim() - 1)).expand_as(s)
        with torch.no_grad():
            largest = s.new_full((n,) + s.shape[1:], NEVER).scatter_reduce(0, to, s, "amax")
        e = torch.exp(s - largest.index_select(0, query))
        return e, torch.zeros_like(largest).index_add(0, query, e)

    def heads_first(self, n):
        query, key = self.edges(n)

        def attend(q, k, v):
            s = (q.index_select(1, query) * k.index_select(1, key)).sum(-1).t() / math.sqrt(q.shape[-1])
            e, total = self.weights(s, query, n)
            o = torch.zeros_like(q).index_add(1, query, e.t()[:, :, None] * v.index_select(1, key))
            return o / total.t()[:, :, None]
        return attend

    def heads_second(self, n):
        query, key = self.edges(n)

        def attend(q, k, v):
            q, k, v = (t.transpose(0, 1).contiguous() for t in (q, k, v))
            s = (q.index_select(0, query) * k.index_select(0, key)).sum(-1) / math.sqrt(q.shape[-1])
            e, total = self.weights(s, query, n)
            o = torch.zeros_like(q).index_add(0, query, e[:, :, None] * v.index_select(0, key))
            return (o / total[:, :, None]).transpose(0, 1)
        return attend

    def by_head(self, n):
        query, key = self.edges(n)

        def attend(q, k, v):
            out = []
            for qh, kh, vh in zip(q.unbind(0), k.unbind(0), v.unbind(0)):
                s = (qh.index_select(0, query) * kh.index_select(0, key)).sum(-1) / math.sqrt(q.shape[-1])
                e, total = self.weights(s, query, n)
                out.append(torch.zeros_like(qh).index_add(0, query, e[:, None] * vh.index_select(0, key)) / total[:, None])
            return torch.stack(out)
        return attend


ROWS = {
    "causal": lambda _: Causal(), "window": lambda _: Window(256), "strided": lambda _: Strided(128), "fixed": lambda _: Fixed(128, 32),
    "longformer": lambda _: Longformer(256, 16), "bigbird": lambda _: BigBird(64, 3), "natten": lambda _: Natten(7), "graph": Graph,
}


# ---- checks and times ----

def inputs(pattern, n):
    torch.manual_seed(1)
    if pattern.heads_inside:
        return [(torch.rand(n, HEADS, pattern.head_dim) * 2 - 1).transpose(0, 1) for _ in range(4)]
    return [torch.rand(HEADS, n, pattern.head_dim) * 2 - 1 for _ in range(4)]


def forward(attend, q, k, v, clock=time.perf_counter):
    with torch.no_grad():
        begun = clock()
        attend(q, k, v)
        return 1e3 * (clock() - begun)


def backward(attend, q, k, v, d_out, clock=time.perf_counter):
    for t in (q, k, v):
        t.requires_grad_(True)
    o = attend(q, k, v)
    begun = clock()
    torch.autograd.grad(o, (q, k, v), d_out)
    taken = 1e3 * (clock() - begun)
    for t in (q, k, v):
        t.requires_grad_(False)
    return taken


def check(name, pattern):
    n = pattern.small
    *qkv, d_out = inputs(pattern, n)
    keep = pattern.mask(n)
    exact = [t.double().requires_grad_() for t in qkv]
    o = dense(*exact, keep)
    expected = [o.detach(), *torch.autograd.grad(o, exact, d_out.double())]
    for what, attend in pattern.variants(n):
        mine = [t.clone().requires_grad_() for t in qkv]
        with torch.no_grad():
            alone = attend(*qkv)
        o = attend(*mine)
        got = [o.detach(), *torch.autograd.grad(o, mine, d_out)]
        worst = max(((g - e).abs().max() / e.abs().max()).item() for g, e in zip([alone] + got, expected[:1] + expected))
        if not worst < 1e-5:
            sys.exit("attention_torch.py: %s, %s: differs from dense masked attention by %.1e" % (name, what, worst))
        yield what, worst


def choose(variants, qkv, d_out):
    """{entry: (name, attend)} of the fastest: all are called, then the best three again."""
    clock, best = time.thread_time, {}             # of this thread: what other processes do matters less for the choice
    calls = {"forward": lambda attend: forward(attend, *qkv, clock), "backward": lambda attend: backward(attend, *qkv, d_out, clock)}
    for entry, call in calls.items():
        taken = {}
        for what, attend in variants.items():
            call(attend)
            taken[what] = call(attend)
        for what in sorted(taken, key=taken.get)[:3]:
            taken[what] = min(taken[what], call(variants[what]), call(variants[what]))
        for what in sorted(taken, key=taken.get):
            print("%-8s %9.1f ms  %s" % (entry, taken[what], what), file=sys.stderr)
        what = min(taken, key=taken.get)
        best[entry] = what, variants[what]
    return best


def serve(name, pattern, n):
    for _ in check(name, pattern):
        pass
    *qkv, d_out = inputs(pattern, n)
    best = choose(dict(pattern.variants(n)), qkv, d_out)
    call = {"forward": lambda: forward(best["forward"][1], *qkv), "backward": lambda: backward(best["backward"][1], *qkv, d_out)}
    print("ready\t%s\t%s" % (best["forward"][0], best["backward"][0]), flush=True)
    for line in sys.stdin:
        entry = line.strip()
        call[entry]()                                                # the caches again belong to this
        times, begun = [], time.perf_counter()
        while not times or time.perf_counter() - begun < 0.7:
            times.append(call[entry]())
        print("%.4f" % statistics.median(times), flush=True)


def blas():
    """Name of the BLAS in use: without a fast one PyTorch's products are tens of times slower."""
    names = {line.split("/")[-1].strip() for line in open("/proc/self/maps") if "blas" in line.lower() or "mkl_" in line}
    return ", ".join(sorted(names)) or "built in"


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "scatter_reduce")
    words = sys.argv[1:]
    if words[:1] == ["check"]:
        for name in words[1:] or ROWS:
            for what, worst in check(name, ROWS[name](None)):
                print("%-11s %-70s %.1e" % (name, what, worst))
    elif words[:1] == ["version"]:
        print("PyTorch %s, %s" % (torch.__version__, blas()))
    elif words[:1] == ["serve"] and len(words) in (3, 4) and words[1] in ROWS:
        serve(words[1], ROWS[words[1]](words[3] if len(words) == 4 else None), int(words[2]))
    else:
        sys.exit("usage: attention_torch.py version | check [ROW...] | serve ROW LENGTH [EDGES], ROW one of: " + " ".join(ROWS))


main()
