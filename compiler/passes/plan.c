/* The memory plan: one arena per entry, offsets as constants.
 *
 * Buffers are placed one after another, each at the lowest offset free over its whole life, in four orders (by size, by size times
 * life, by birth, and what is alive at the fullest step first); the best arena is kept. Source of the first: the greedy-by-size
 * strategy of TensorFlow Lite's arena planner. Where that is above the lower bound, the most bytes alive at one step, which no plan
 * can undercut, the order is improved by moving up what lies highest, for a bounded number of times. */
#include "passes.h"
#include <stdlib.h>
#include <string.h>

int64_t hd_weight_offsets(const hd_graph *g, int64_t *offset_of_node)
{
    int64_t at = 0;
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_param || n->attr.param.role != HD_WEIGHT) continue;
        offset_of_node[i] = at;
        at += (hd_node_bytes(n) + 63) / 64 * 64;
    }
    return at;
}

/* A buffer may lie on one that dies at the step where it is born, if that step reads the dying one only element by element,
 * each before the same element of the new one is written: then the two are equal in size and both among the step's
 * elementwise operands. lower.c lists operands after the kernel's own arguments; those carry the types "const float *" with
 * writes = false, and a buffer that is also among the kernel's own arguments does not qualify. */
void hd_share_dying(hd_program *p)
{
    for (int i = 0; i < p->steps; i++) {
        const hd_step *s = &p->step[i];
        for (int o = 0; o < s->arguments; o++) {
            hd_buffer *out = s->argument[o].view.buffer;
            if (!out || !s->argument[o].writes || !s->argument[o].elementwise || out->area != HD_AREA_SCRATCH || out->first != i || out->same) continue;
            for (int k = 0; k < s->arguments && !out->same; k++) {
                hd_buffer *in = s->argument[k].view.buffer;
                if (!in || s->argument[k].writes || in->area != HD_AREA_SCRATCH || in->last != i || in->first == i || in->bytes != out->bytes) continue;
                bool fits = s->argument[k].view.offset == 0;
                for (int a = 0; a < s->arguments; a++)
                    if (s->argument[a].view.buffer == in && !(s->argument[a].elementwise && !s->argument[a].writes)) fits = false;
                if (!fits || in->taken_by || !s->argument[k].full || !s->argument[o].full) continue;
                out->same = in;
                in->taken_by = out;
            }
        }
    }
}

typedef struct block { hd_buffer *buffer; int first, last; int64_t bytes; bool at_peak; int order; } block;

static int by_size(const void *a, const void *b)
{
    const block *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes ? 1 : -1) : x->order - y->order;
}
static int by_area(const void *a, const void *b)
{
    const block *x = a, *y = b;
    const double p = (double)x->bytes * (x->last - x->first + 1), q = (double)y->bytes * (y->last - y->first + 1);
    return p != q ? (p < q ? 1 : -1) : x->order - y->order;
}
static int by_birth(const void *a, const void *b)
{
    const block *x = a, *y = b;
    return x->first != y->first ? x->first - y->first : by_size(a, b);
}
static int by_peak(const void *a, const void *b)
{
    const block *x = a, *y = b;
    return x->at_peak != y->at_peak ? y->at_peak - x->at_peak : by_size(a, b);
}

/* Offsets of the blocks, placed in their order; returns the arena's bytes. sorted: room for their numbers by offset. */
static int64_t place(const block *blocks, int count, int *sorted, int64_t *offset)
{
    int64_t top = 0;
    for (int i = 0; i < count; i++) {
        const block *b = &blocks[i];
        int64_t at = 0;
        for (int k = 0; k < i; k++) {
            const block *other = &blocks[sorted[k]];
            const int64_t low = offset[sorted[k]];
            if (other->first > b->last || b->first > other->last || low + other->bytes <= at) continue;
            if (at + b->bytes <= low) break;
            at = low + other->bytes;
        }
        int k = i;
        for (; k > 0 && offset[sorted[k - 1]] > at; k--) sorted[k] = sorted[k - 1];
        sorted[k] = i;
        offset[i] = at;
        if (at + b->bytes > top) top = at + b->bytes;
    }
    return top;
}

/* What lies above `bound`, over all blocks; 0: the arena is as small as can be. */
static int64_t excess(const block *blocks, int count, const int64_t *offset, int64_t bound)
{
    int64_t sum = 0;
    for (int i = 0; i < count; i++) if (offset[i] + blocks[i].bytes > bound) sum += offset[i] + blocks[i].bytes - bound;
    return sum;
}

/* Moves blocks, most often one that lies too high to an earlier place in the order, again and again, as long as no more lies above
 * the bound than before. Places are drawn from a fixed sequence: the same program, the same plan. */
static void improve(block *blocks, int count, int *sorted, int64_t *offset, int64_t bound)
{
    const int64_t most_work = 60000000, most_turns = 10000, turns = most_work / ((int64_t)count * count + 1);
    block *trial = HD_NEW_ARRAY(block, count);
    int64_t *at = HD_NEW_ARRAY(int64_t, count), left = excess(blocks, count, offset, bound);
    uint64_t draw = 1;
    for (int64_t turn = 0; turn < turns && turn < most_turns && left > 0; turn++) {
        int from = 0, to;
        draw = draw * 6364136223846793005u + 1442695040888963407u;
        for (int i = 0, seen = 0; i < count; i++)        /* one of the high ones, each as likely as another */
            if (offset[i] + blocks[i].bytes > bound && (draw >> 20) % (uint64_t)++seen == 0) from = i;
        draw = draw * 6364136223846793005u + 1442695040888963407u;
        if (turn % 4 == 3) from = (int)((draw >> 48) % (uint64_t)count), to = (int)((draw >> 33) % (uint64_t)count);
        else to = (int)((draw >> 33) % (uint64_t)(from + 1));
        memcpy(trial, blocks, (size_t)count * sizeof *trial);
        if (to < from) memmove(&trial[to + 1], &trial[to], (size_t)(from - to) * sizeof *trial);
        else memmove(&trial[from], &trial[from + 1], (size_t)(to - from) * sizeof *trial);
        trial[to] = blocks[from];
        place(trial, count, sorted, at);
        const int64_t now = excess(trial, count, at, bound);
        if (now > left) continue;
        left = now;
        memcpy(blocks, trial, (size_t)count * sizeof *trial);
        memcpy(offset, at, (size_t)count * sizeof *offset);
    }
}

void hd_plan(hd_program *p)
{
    hd_share_dying(p);
    block *blocks = HD_NEW_ARRAY(block, p->buffers + 1), *best = HD_NEW_ARRAY(block, p->buffers + 1);
    int64_t *change = HD_NEW_ARRAY(int64_t, p->steps + 1), live = 0;
    int count = 0, fullest = 0;
    for (int i = 0; i < p->buffers; i++) {
        hd_buffer *b = p->buffer[i];
        if (b->area != HD_AREA_SCRATCH || b->last < 0 || b->same) continue;
        int last = b->last;                 /* that of the last one lying on b: each lies on the one before */
        for (const hd_buffer *next = b->taken_by; next; next = next->taken_by) last = next->last;
        blocks[count] = (block){ .buffer = b, .first = b->first, .last = last, .bytes = b->bytes, .order = count };
        change[b->first] += b->bytes, change[last + 1] -= b->bytes;
        count++;
    }
    p->lower_bound_bytes = 0;
    for (int s = 0; s < p->steps; s++) {
        live += change[s];
        if (live > p->lower_bound_bytes) p->lower_bound_bytes = live, fullest = s;
    }
    for (int i = 0; i < count; i++) blocks[i].at_peak = blocks[i].first <= fullest && fullest <= blocks[i].last;

    int (*const orders[])(const void *, const void *) = { by_size, by_area, by_birth, by_peak };
    int *sorted = HD_NEW_ARRAY(int, count + 1);
    int64_t *offset = HD_NEW_ARRAY(int64_t, count + 1), *best_offset = HD_NEW_ARRAY(int64_t, count + 1);
    p->scratch_bytes = INT64_MAX;
    for (unsigned o = 0; o < sizeof orders / sizeof *orders && p->scratch_bytes > p->lower_bound_bytes; o++) {
        qsort(blocks, (size_t)count, sizeof *blocks, orders[o]);
        const int64_t top = place(blocks, count, sorted, offset);
        if (top >= p->scratch_bytes) continue;
        p->scratch_bytes = top;
        memcpy(best, blocks, (size_t)count * sizeof *best);
        memcpy(best_offset, offset, (size_t)count * sizeof *offset);
    }
    if (p->scratch_bytes > p->lower_bound_bytes) {
        memcpy(blocks, best, (size_t)count * sizeof *best);
        memcpy(offset, best_offset, (size_t)count * sizeof *offset);
        improve(blocks, count, sorted, offset, p->lower_bound_bytes);
        int64_t top = 0;
        for (int i = 0; i < count; i++) if (offset[i] + blocks[i].bytes > top) top = offset[i] + blocks[i].bytes;
        if (top < p->scratch_bytes) p->scratch_bytes = top, best = blocks, best_offset = offset;
    }
    for (int i = 0; i < count; i++) best[i].buffer->offset = best_offset[i];
    for (int i = 0; i < p->buffers; i++) {
        hd_buffer *root = p->buffer[i];
        while (root->same) root = root->same;
        p->buffer[i]->offset = root->offset;
    }
}

void hd_program_print(const hd_program *p, hd_text *out)
{
    if (p->entry) hd_text_add(out, "entry %s: %d steps, scratch %lld bytes (lower bound %lld), %lld bytes a thread\n", p->entry->name, p->steps,
                              (long long)p->scratch_bytes, (long long)p->lower_bound_bytes, (long long)p->local_bytes);
    else hd_text_add(out, "packed weights: %d steps\n", p->steps);
    for (int i = 0; i < p->steps; i++) {
        const hd_step *s = &p->step[i];
        hd_text_add(out, "%4d  %s\n", i, s->label);
        for (int k = 0; k < s->arguments; k++) {
            const hd_buffer *b = s->argument[k].view.buffer;
            static const char *const area[] = { "scratch", "weights", "gradients", "moment 1", "moment 2", "packed", "cache", "argument" };
            if (b) hd_text_add(out, "        %s %s + %lld  %s\n", s->argument[k].writes ? "writes" : "reads ", area[b->area],
                               (long long)(b->area == HD_AREA_ARGUMENT ? b->argument : b->offset), b->what ? b->what : "");
        }
    }
}
