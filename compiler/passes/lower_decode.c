/* Steps of programs that decode with a cache (pattern/cache.h). The entries around them have the C variables `used`, rows of a chunk that
 * count, and `stream`, the one that the chunk belongs to; with one row for each stream neither is read. */
#include "lower.h"
#include "../emit/attention_cached.h"

#include <string.h>

#define LL(x) ((long long)(x))

static hd_step *step_of(const hd_node *n, const char *what)
{
    return hd_step_new(hd_format("%s%s%s", n->name ? n->name : "", n->name ? ": " : "", what), n->where);
}

void hd_lower_cache_keys(hd_lowering *l, hd_node *n)
{
    const int64_t streams = n->input[0]->shape.size[0], chunk = n->attr.cache_keys.chunk;
    hd_step *s = step_of(n, "the keys that rows read");
    s->kernel = hd_cached_keys(l->kernels, n->attr.cache_keys.cache, streams, chunk, n->where);
    hd_step_text(s, chunk > 1 ? "used" : "1");
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[0]), false);
    hd_step_view(s, "int32_t *", hd_lower_output(l, n), true);
    hd_step_last(s)->elements = streams * chunk;      /* what is written follows the runs; few where patterns are regular */
    s->rows = 1, s->cols = streams * chunk;
    hd_lower_push(l, s);
}

/* The cache of stream 0; `elements`: how much of it a step must move. */
static void add_cache(hd_step *s, const hd_cache *c, int64_t streams, double elements)
{
    hd_buffer *b = HD_NEW(hd_buffer);
    b->area = HD_AREA_CACHE, b->offset = c->offset, b->bytes = streams > 1 ? streams * c->stream_bytes : c->bytes, b->what = "cache";
    hd_step_view(s, "float *", hd_view_dense(b, &(hd_shape){ 1, { b->bytes / 4 } }), true);
    hd_step_last(s)->elements = elements < (double)b->bytes / 4 ? (int64_t)elements : b->bytes / 4;
    hd_step_last(s)->updates = true;
}

void hd_lower_attention_cached(hd_lowering *l, hd_node *n)
{
    const hd_cache *c = n->attr.attention.cache;
    const hd_shape *q = &n->input[0]->shape;
    hd_attention a = { .heads = n->attr.attention.heads, .kv_heads = n->attr.attention.kv_heads, .head_dim = n->attr.attention.head_dim, .scale = n->attr.attention.scale,
                       .softcap = n->attr.attention.softcap, .alibi = n->attr.attention.alibi, .offset = n->attr.attention.offset, .buckets = n->attr.attention.buckets, .with = n->attr.attention.with };
    a.queries = a.keys = q->size[q->rank - 2];
    a.batch = hd_elements(q) / (a.queries * a.heads * a.head_dim);
    hd_view view[4] = { { 0 } };
    a.q = hd_lower_heads(l, n, n->input[0], &view[0], a.heads);
    a.k = hd_lower_heads(l, n, n->input[1], &view[1], a.kv_heads);
    a.v = hd_lower_heads(l, n, n->input[2], &view[2], a.kv_heads);
    view[3] = hd_lower_output(l, n);
    a.out = hd_lower_heads(l, n, n, &view[3], a.heads);
    const hd_view keys = hd_lower_dense(l, n->input[3]), positions = hd_lower_dense(l, n->input[4]);
    const bool chunk = a.queries > 1;
    const double group = (double)(a.heads / a.kv_heads), row = 2.0 * (double)(a.kv_heads * a.head_dim);
    for (int phase = 0; phase < 3; phase++) {
        hd_kernel *kernel = phase == 1 ? hd_cached_attend(l->kernels, &a, c, n->where) : chunk ? hd_cached_store(l->kernels, &a, c, phase == 2, n->where) : NULL;
        if (!kernel) continue;
        hd_step *s = step_of(n, phase == 0 ? "keys and values that stay" : phase == 1 ? hd_format("attention_cached %s", hd_pattern_text(n->attr.attention.pattern[0])) : "keys and values that pass");
        s->kernel = kernel;
        hd_step_text(s, chunk ? "stream" : "0");
        hd_step_text(s, chunk ? "used" : "1");
        for (int i = phase == 1 ? 0 : 1; i < 3; i++) hd_step_view(s, "const float *", view[i], false);
        hd_step_view(s, "const int32_t *", keys, false);
        hd_step_last(s)->elements = 0;
        if (phase == 1) {
            hd_step_view(s, "const int32_t *", positions, false);
            for (int i = 5; i < n->inputs; i++) hd_step_view(s, "const float *", hd_lower_dense(l, n->input[i]), false);
            add_cache(s, c, a.batch, c->keys_per_query / group * 2 * (double)a.head_dim * (double)a.batch);
            hd_step_last(s)->updates = !chunk;
            hd_step_last(s)->writes = !chunk;
            hd_step_view(s, "float *", view[3], true);
            s->flops = hd_node_flops(n), s->useful = s->flops;
            s->cycles = s->flops / (4.0 * l->target->vl) * (chunk ? 1.4 : 2);
            s->slots = chunk ? a.heads * ((a.queries + HD_CACHE_BLOCK - 1) / HD_CACHE_BLOCK) : a.batch * a.kv_heads;
        } else {
            add_cache(s, c, 1, row * (double)a.queries);
            hd_step_last(s)->updates = false;
        }
        hd_lower_push(l, s);
    }
}

/* ---- around attention: where rows stand, and single rows of them ---- */

static int64_t product_of(const hd_shape *s, int from, int to)
{
    int64_t p = 1;
    for (int i = from; i < to; i++) p *= s->size[i];
    return p;
}

void hd_lower_position_ids(hd_lowering *l, hd_node *n)
{
    const int64_t streams = n->shape.size[0], rows = n->shape.size[1];
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "position_ids", hd_format("%lldx%lld", LL(streams), LL(rows)), "const hd_run *run, const int32_t *first, int32_t *ids",
                              hd_format("streams = %lld, rows = %lld, offset = %lld, divide = %lld, modulo = %lld", LL(streams), LL(rows), LL(n->attr.position_ids.offset), LL(n->attr.position_ids.divide), LL(n->attr.position_ids.modulo)), 0, s->where);
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[0]), false);
    hd_step_view(s, "int32_t *", hd_lower_output(l, n), true);
    s->rows = streams, s->cols = rows;
    hd_lower_push(l, s);
}

void hd_lower_last_row(hd_lowering *l, hd_node *n)
{
    hd_node *x = n->input[0];
    const int axis = n->attr.row.axis;
    const int64_t outer = product_of(&x->shape, 0, axis), rows = x->shape.size[axis], inner = product_of(&x->shape, axis + 1, x->shape.rank);
    int64_t ld;
    const hd_view from = hd_lower_matrix(l, x, outer, rows * inner, &ld);
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "last_row", hd_format("%lldx%lldx%lld", LL(outer), LL(rows), LL(inner)), "const hd_run *run, int used, const float *x, float *out",
                              hd_format("outer = %lld, rows = %lld, inner = %lld, ld_x = %lld", LL(outer), LL(rows), LL(inner), LL(ld)), 0, s->where);
    hd_step_text(s, rows > 1 ? "used" : "1");
    hd_step_view(s, "const float *", from, false);
    hd_argument *all = hd_step_last(s);
    all->elements = outer * inner;
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    s->rows = outer, s->cols = inner;
    hd_lower_push(l, s);
}

void hd_lower_first_row(hd_lowering *l, hd_node *n)
{
    hd_node *x = n->input[0];
    const int axis = n->attr.row.axis;
    const int64_t all = product_of(&x->shape, 0, axis), streams = n->input[2]->shape.size[0], rows = x->shape.size[axis], inner = product_of(&x->shape, axis + 1, x->shape.rank);
    int64_t ld;
    const hd_view from = hd_lower_matrix(l, x, all, rows * inner, &ld);
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "first_row", hd_format("%lldx%lldx%lld", LL(all), LL(rows), LL(inner)), "const hd_run *run, const float *x, const float *start, const int32_t *first, float *out",
                              hd_format("streams = %lld, outer = %lld, rows = %lld, inner = %lld, ld_x = %lld", LL(streams), LL(all / streams), LL(rows), LL(inner), LL(ld)), 0, s->where);
    hd_step_view(s, "const float *", from, false);
    hd_step_view(s, "const float *", hd_lower_dense(l, n->input[1]), false);
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[2]), false);
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    s->rows = all * rows, s->cols = inner;
    hd_lower_push(l, s);
}

void hd_lower_shift_cached(hd_lowering *l, hd_node *n)
{
    hd_node *x = n->input[0];
    const hd_kept_rows *kept = n->attr.row.kept;
    const int axis = n->attr.row.axis;
    const int64_t all = product_of(&x->shape, 0, axis), streams = n->input[2]->shape.size[0], rows = x->shape.size[axis], inner = product_of(&x->shape, axis + 1, x->shape.rank);
    int64_t ld;
    const hd_view from = hd_lower_matrix(l, x, all, rows * inner, &ld);
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "shift_cached", hd_format("%lldx%lldx%lld", LL(all), LL(rows), LL(inner)), "const hd_run *run, int stream, int used, const float *x, const float *start, const int32_t *first, float *cache, float *out",
                              hd_format("streams = %lld, outer = %lld, rows = %lld, inner = %lld, ld_x = %lld, stream_floats = %lld", LL(streams), LL(all / streams), LL(rows), LL(inner), LL(ld), LL(kept->stream_bytes / 4)), 0, s->where);
    hd_step_text(s, rows > 1 ? "stream" : "0");
    hd_step_text(s, rows > 1 ? "used" : "1");
    hd_step_view(s, "const float *", from, false);
    hd_step_view(s, "const float *", hd_lower_dense(l, n->input[1]), false);
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[2]), false);
    hd_buffer *b = HD_NEW(hd_buffer);
    b->area = HD_AREA_CACHE, b->offset = kept->offset, b->bytes = kept->bytes, b->what = "rows before";
    hd_step_view(s, "float *", hd_view_dense(b, &(hd_shape){ 1, { b->bytes / 4 } }), true);
    hd_step_last(s)->elements = streams * inner, hd_step_last(s)->updates = true;
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    s->rows = all * rows, s->cols = inner;
    hd_lower_push(l, s);
}
