/* The memory plan: one arena per entry, offsets as constants.
 *
 * Buffers are placed greedily at the lowest offset free over their whole life, in three orders (by size, by size times
 * life, by birth); the best arena is kept. Sources: the greedy-by-size strategy of TensorFlow Lite's arena planner. The lower
 * bound, printed beside the plan, is the most bytes alive at one step: no plan can need less. */
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
static void share_dying(hd_program *p)
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

typedef struct block { hd_buffer *buffer; int first, last; int64_t bytes, offset; int order; } block;

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
static int by_offset(const void *a, const void *b)
{
    const block *x = *(block *const *)a, *y = *(block *const *)b;
    return x->offset != y->offset ? (x->offset < y->offset ? -1 : 1) : x->order - y->order;
}

static int64_t place(block *blocks, int count, int (*order)(const void *, const void *))
{
    qsort(blocks, (size_t)count, sizeof *blocks, order);
    block **busy = HD_NEW_ARRAY(block *, count);
    int64_t top = 0;
    for (int i = 0; i < count; i++) {
        int others = 0;
        for (int k = 0; k < i; k++)
            if (blocks[k].first <= blocks[i].last && blocks[i].first <= blocks[k].last) busy[others++] = &blocks[k];
        qsort(busy, (size_t)others, sizeof *busy, by_offset);
        int64_t at = 0;
        for (int k = 0; k < others; k++) {
            if (at + blocks[i].bytes <= busy[k]->offset) break;
            if (busy[k]->offset + busy[k]->bytes > at) at = busy[k]->offset + busy[k]->bytes;
        }
        blocks[i].offset = at;
        if (at + blocks[i].bytes > top) top = at + blocks[i].bytes;
    }
    return top;
}

void hd_plan(hd_program *p)
{
    share_dying(p);
    int count = 0;
    block *blocks = HD_NEW_ARRAY(block, p->buffers + 1);
    for (int i = 0; i < p->buffers; i++) {
        hd_buffer *b = p->buffer[i];
        if (b->area != HD_AREA_SCRATCH || b->last < 0 || b->same) continue;
        int last = b->last;                 /* that of the last one lying on b: each lies on the one before */
        for (const hd_buffer *next = b->taken_by; next; next = next->taken_by) last = next->last;
        blocks[count] = (block){ b, b->first, last, b->bytes, 0, count };
        count++;
    }
    int64_t *live = HD_NEW_ARRAY(int64_t, p->steps + 1);
    for (int i = 0; i < count; i++)
        for (int s = blocks[i].first; s <= blocks[i].last; s++) live[s] += blocks[i].bytes;
    p->lower_bound_bytes = 0;
    for (int s = 0; s < p->steps; s++) if (live[s] > p->lower_bound_bytes) p->lower_bound_bytes = live[s];

    int (*const orders[])(const void *, const void *) = { by_size, by_area, by_birth };
    p->scratch_bytes = INT64_MAX;
    for (unsigned o = 0; o < sizeof orders / sizeof *orders; o++) {
        const int64_t top = place(blocks, count, orders[o]);
        if (top >= p->scratch_bytes) continue;
        p->scratch_bytes = top;
        for (int i = 0; i < count; i++) blocks[i].buffer->offset = blocks[i].offset;
        if (top == p->lower_bound_bytes) break;
    }
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
            static const char *const area[] = { "scratch", "weights", "gradients", "moment 1", "moment 2", "packed", "argument" };
            if (b) hd_text_add(out, "        %s %s + %lld  %s\n", s->argument[k].writes ? "writes" : "reads ", area[b->area],
                               (long long)(b->area == HD_AREA_ARGUMENT ? b->argument : b->offset), b->what ? b->what : "");
        }
    }
}
