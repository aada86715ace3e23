/* Parameters of templates/cache_keys.c.tmpl, cache_store.c.tmpl and attention_cached.c.tmpl. */
#include "attention_cached.h"

#include <inttypes.h>

static int64_t round_up(int64_t n, int64_t by) { return (n + by - 1) / by * by; }
static int64_t limit(int64_t x) { const int64_t far = INT64_C(1) << 40; return x < -far ? -far : x > far ? far : x; }

static void numbers(hd_text *text, const int64_t *item, int64_t count)
{
    hd_text_add(text, "[[");
    for (int64_t i = 0; i < count; i++) hd_text_add(text, "%" PRId64 ",%s", item[i], i % 16 == 15 ? "\n    " : " ");
    hd_text_add(text, "]]");
}

/* Terms in the order of a walk, children first; returns the index of p. */
static int add_nodes(hd_text *text, const hd_pattern *p, int *count)
{
    static const char *const kind[] = { "full", "causal", "window", "stride", "chunk", "residues", "keys", "queries", "documents", "grid", "list", "and", "or", "minus" };
    if (p->kind >= HD_PATTERN_AND) {
        const int a = add_nodes(text, p->a, count), b = add_nodes(text, p->b, count);
        hd_text_add(text, "    { kind = \"%s\", %d, %d },\n", kind[p->kind], a, b);
        return (*count)++;
    }
    hd_text_add(text, "    { kind = \"%s\", ", kind[p->kind]);
    switch (p->kind) {
    case HD_PATTERN_WINDOW: hd_text_add(text, "%" PRId64 ", %" PRId64, limit(p->left), limit(p->right)); break;
    case HD_PATTERN_STRIDE: hd_text_add(text, "%" PRId64, limit(p->stride)); break;
    case HD_PATTERN_CHUNK: hd_text_add(text, "%" PRId64 ", %" PRId64 ", %" PRId64, p->left, p->right, limit(p->chunk)); break;
    case HD_PATTERN_RESIDUES: hd_text_add(text, "%" PRId64 ", %" PRId64 ", %" PRId64, limit(p->first), limit(p->end), limit(p->stride)); break;
    case HD_PATTERN_KEYS: case HD_PATTERN_QUERIES: hd_text_add(text, "%" PRId64 ", %" PRId64, p->first, p->end); break;
    case HD_PATTERN_DOCUMENTS:
        hd_text_add(text, "%" PRId64 ", starts = ", p->documents);
        numbers(text, p->document, p->documents + 1);
        break;
    case HD_PATTERN_LIST:
        hd_text_add(text, "%" PRId64 ", %" PRId64 ", starts = ", p->list->block, p->list->rows);
        numbers(text, p->list->start, p->list->rows + 1);
        hd_text_add(text, ", runs = ");
        numbers(text, &p->list->run[0].first, 2 * p->list->start[p->list->rows]);
        break;
    case HD_PATTERN_GRID:
        hd_text_add(text, "%d, %" PRId64 ", axes = { ", p->grid->axes, p->grid->first);
        for (int k = 0; k < p->grid->axes; k++) {
            const hd_axis *a = &p->grid->axis[k];
            hd_text_add(text, "{ %d, %d, %" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 " }, ", (int)a->kind, a->causal, a->size, limit(a->left), limit(a->right),
                        a->kernel, a->stride, a->dilation, a->offset);
        }
        hd_text_add(text, "}");
        break;
    default: break;
    }
    hd_text_add(text, " },\n");
    return (*count)++;
}

static void plan_parameters(hd_text *text, const hd_cache *c, int64_t streams, int64_t chunk)
{
    const hd_cache_words w = hd_cache_plan(c, streams, chunk);
    hd_text_add(text, "streams = %" PRId64 ", chunk = %" PRId64 ", slot_words = %" PRId64 ", row_words = %" PRId64 ", block_words = %" PRId64 ", reader_words = %" PRId64 ", segments = %" PRId64 ",\n",
                streams, chunk, w.slots, w.row, w.block, w.reader, w.segments);
}

hd_kernel *hd_cached_keys(hd_kernels *kernels, const hd_cache *c, int64_t streams, int64_t chunk, hd_where where)
{
    static const char *const kind[] = { "none", "all", "range", "residues", "runs" };
    hd_text text = { 0 };
    plan_parameters(&text, c, streams, chunk);
    hd_text_add(&text, "length = %" PRId64 ", distances = %s, work = %" PRId64 ",\nnodes = {\n", c->positions, c->distances ? "true" : "false", c->work);
    int nodes = 0, *root = HD_NEW_ARRAY(int, c->readers);
    for (int r = 0; r < c->readers; r++) root[r] = add_nodes(&text, c->reader[r].pattern, &nodes);
    hd_text_add(&text, "},\nreaders = { ");
    for (int r = 0; r < c->readers; r++) hd_text_add(&text, "{ root = %d, layout = %d }, ", root[r], c->reader[r].layout);
    hd_text_add(&text, "},\nlayouts = { ");
    for (int i = 0; i < c->layouts; i++) {
        const hd_cache_layout *x = &c->layout[i];
        hd_text_add(&text, "{ kind = \"%s\", kept = %" PRId64 ", ring = %" PRId64 ", first = %" PRId64 ", last = %" PRId64 ", stride = %" PRId64 ", count = %" PRId64, kind[x->kind], x->kept, x->ring, x->first, x->end,
                    x->stride, x->runs);
        if (x->runs) {
            hd_text_add(&text, ", runs = ");
            numbers(&text, &x->run[0].first, 2 * x->runs);
            hd_text_add(&text, ", ranks = ");
            numbers(&text, x->rank, x->runs);
        }
        hd_text_add(&text, " }, ");
    }
    hd_text_add(&text, "}");
    const int64_t ends = chunk > 1 ? hd_cache_plan(c, streams, chunk).segments + 2 : 0;
    const int64_t local = round_up(8 * c->work, 64) + round_up(12 * ends, 64);
    hd_text_add(&text, ",\nlocal_bytes = %" PRId64, local);
    return hd_kernel_get(kernels, "cache_keys", hd_format("s%" PRId64 "c%" PRId64, streams, chunk), "const hd_run *run, int used, const int32_t *positions, int32_t *keys", text.data, local, where);
}

/* What kernels over caches share: how rows of the plan and slots are found. */
static void cache_parameters(hd_text *text, const hd_attention *a, const hd_cache *c)
{
    plan_parameters(text, c, a->batch, a->queries);
    hd_text_add(text, "stream_floats = %" PRId64 ",\nreader_of = { ", c->stream_bytes / 4);
    for (int h = 0; h < c->heads; h++) hd_text_add(text, "%d, ", c->reader_of[h]);
    hd_text_add(text, "}, kv = { ");
    for (int k = 0; k < c->kv_heads; k++) {
        const hd_cache_layout *x = &c->layout[c->layout_of[k]];
        hd_text_add(text, "{ layout = %d, kept = %" PRId64 ", ring = %" PRId64 ", key = %" PRId64 ", value = %" PRId64 " }, ", c->layout_of[k], x->kept, x->ring, c->key[k], c->value[k]);
    }
    hd_text_add(text, "},\n");
}

hd_kernel *hd_cached_store(hd_kernels *kernels, const hd_attention *a, const hd_cache *c, bool ring, hd_where where)
{
    bool any = false;
    for (int k = 0; k < c->kv_heads; k++) any = any || (ring ? c->layout[c->layout_of[k]].ring : c->layout[c->layout_of[k]].kept);
    if (!any) return NULL;
    hd_text text = { 0 };
    hd_attention_parameters(&text, a, kernels->target, false);
    cache_parameters(&text, a, c);
    hd_text_add(&text, "rings = %s", ring ? "true" : "false");
    return hd_kernel_get(kernels, "cache_store", hd_format("%s_h%d_d%d_c%" PRId64, ring ? "ring" : "kept", c->kv_heads, c->head_dim, a->queries),
                         "const hd_run *run, int stream, int used, const float *k, const float *v, const int32_t *keys, float *cache", text.data, 0, where);
}

hd_kernel *hd_cached_attend(hd_kernels *kernels, const hd_attention *a, const hd_cache *c, hd_where where)
{
    const hd_target *target = kernels->target;
    const int64_t dp = round_up(a->head_dim, target->vl), group = a->heads / a->kv_heads;
    /* a batch of keys whose values stay in the first cache while they wait, or that do so for all heads that share them */
    const int64_t batch = dp <= 64 && (group == 1 || a->queries > 1) ? 128 : 64;
    /* queries in two vectors share each key that is loaded: chunks of keys whose scores stay in the first cache */
    const int64_t qv = 2, nq = qv * target->vl, kc = 48;
    hd_text text = { 0 };
    hd_attention_parameters(&text, a, target, false);
    cache_parameters(&text, a, c);
    int64_t local = 4 * (group * (2 * dp + 2) + 2 * batch) + 16 * batch + 4 * batch;
    if (a->queries > 1) local += 4 * (2 * dp * nq + 3 * nq + kc * nq + nq * dp + 2 * kc * dp + kc * qv + kc + nq) + 256;
    local = round_up(local + 1024, 64) + hd_attention_terms_bytes(a, false);
    hd_text_add(&text, "key_batch = %" PRId64 ", qv = %" PRId64 ", kc = %" PRId64 ", local_bytes = %" PRId64, batch, qv, kc, local);
    return hd_kernel_get(kernels, "attention_cached", hd_format("h%" PRId64 "_d%" PRId64 "_s%" PRId64 "c%" PRId64, a->heads, a->head_dim, a->batch, a->queries),
                         hd_format("const hd_run *run, int stream, int used, const float *q, const float *k, const float *v, const int32_t *keys, const int32_t *positions%s%s, float *cache, float *out",
                                   a->with & HD_WITH_SINKS ? ", const float *sinks" : "", a->with & HD_WITH_BIAS ? ", const float *bias" : ""),
                         text.data, local, where);
}
