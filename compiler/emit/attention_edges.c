/* Attention kernels over single pairs: tables and parameters for templates/attention_edges_*.c.tmpl. */
#include "attention_edges.h"

#include <inttypes.h>
#include <stdlib.h>

enum { PARTS = 16, ENOUGH_SLOTS = 8,
       MAX_PAIRS = 1 << 22,                  /* of one pattern: about 16 MB of constants forward, 32 MB backward */
       ROW_PAIRS = 2,                        /* opening and closing a row costs about as much as so many pairs */
       CHUNK_PAIRS = 512, MAX_CHUNK_PAIRS = 1 << 14 };

/* Pairs by query, or transposed by key: those of row i are column[start[i]] .. column[start[i + 1]], ascending.
 * edge: of a transposed table, the pair's index in the other one. */
typedef struct table { int64_t rows, pairs; int32_t *start, *column, *edge; } table;

static int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

static void *get(int64_t count)
{
    void *memory = calloc((size_t)count + 1, sizeof(int32_t));
    if (!memory) hd_fail((hd_where){ 0 }, "no memory for the table of an irregular pattern; use a shorter length");
    return memory;
}

static table make_table(const hd_cover *cover)
{
    const hd_key_rows *rows = cover->rows ? cover->rows : hd_cover_rows(cover);
    table t = { cover->queries, cover->kept_pairs, get(cover->queries + 1), get(cover->kept_pairs), NULL };
    int32_t pairs = 0;
    for (int64_t i = 0; i < cover->queries; i++) {
        for (int64_t r = rows->start[i]; r < rows->start[i + 1]; r++)
            for (int64_t j = rows->run[r].first; j < rows->run[r].end; j++) t.column[pairs++] = (int32_t)j;
        t.start[i + 1] = pairs;
    }
    return t;
}

static void free_table(table *t)
{
    free(t->start);
    free(t->column);
    free(t->edge);
}

static table transpose(const table *t, int64_t keys)
{
    table u = { keys, t->pairs, get(keys + 1), get(t->pairs), get(t->pairs) };
    for (int64_t e = 0; e < t->pairs; e++) u.start[t->column[e] + 1]++;
    for (int64_t j = 0; j < keys; j++) u.start[j + 1] += u.start[j];
    for (int64_t i = 0; i < t->rows; i++)
        for (int32_t e = t->start[i]; e < t->start[i + 1]; e++) {
            const int32_t at = u.start[t->column[e]]++;
            u.column[at] = (int32_t)i, u.edge[at] = e;
        }
    for (int64_t j = keys; j > 0; j--) u.start[j] = u.start[j - 1];
    u.start[0] = 0;
    return u;
}

/* `more` further elements, let vectors be read past the end. */
static void add_numbers(hd_text *text, const char *field, const int32_t *x, int64_t count, int64_t more)
{
    hd_text_add(text, "%s = [[", field);
    for (int64_t i = 0; i < count; i++) hd_text_add(text, "%" PRId32 ",%s", x[i], i % 32 == 31 ? "\n    " : "");
    for (int64_t i = 0; i < more; i++) hd_text_add(text, "0,");
    hd_text_add(text, "]], ");
}

/* One direction: fields start, key and cuts, or key_start, query, edge and key_cuts. */
static void add_table(hd_text *text, const table *t, int vl, int parts)
{
    add_numbers(text, t->edge ? "key_start" : "start", t->start, t->rows + 1, 0);
    add_numbers(text, t->edge ? "query" : "key", t->column, t->pairs, vl);
    if (t->edge) add_numbers(text, "edge", t->edge, t->pairs, 1);
    if (parts == 1) return;
    const double total = (double)t->pairs + ROW_PAIRS * (double)t->rows;      /* cuts: rows where parts of equal work begin */
    int next = 1;
    hd_text_add(text, "%s = { 0", t->edge ? "key_cuts" : "cuts");
    for (int64_t i = 0; i < t->rows; i++)
        for (; next < parts && (double)t->start[i] + ROW_PAIRS * (double)i >= total * next / parts; next++) hd_text_add(text, ", %" PRId64, i);
    for (; next <= parts; next++) hd_text_add(text, ", %" PRId64, t->rows);
    hd_text_add(text, " }, ");
}

static void add_strides(hd_text *text, const char *field, hd_attention_strides s)
{
    hd_text_add(text, "%s = { %" PRId64 ", %" PRId64 ", %" PRId64 " }, ", field, s.batch, s.head, s.row);
}

static const char *truth(unsigned x) { return x ? "true" : "false"; }

/* What all phases share. */
static void add_shape(hd_text *text, const hd_attention *a, const hd_target *target, bool backward)
{
    hd_text_add(text, "registers = %d, batch = %" PRId64 ", heads = %" PRId64 ", kv_heads = %" PRId64 ", head_dim = %" PRId64 ", queries = %" PRId64 ", keys = %" PRId64 ",\n",
                target->registers, a->batch, a->heads, a->kv_heads, a->head_dim, a->queries, a->keys);
    hd_text_add(text, "scale = %.17g, softcap = %.17g, offset = %" PRId64 ", alibi = ", a->scale, a->softcap, a->offset);
    hd_text_add(text, a->alibi ? "{ " : "false");
    for (int64_t h = 0; a->alibi && h < a->heads; h++) hd_text_add(text, "%.17g, ", a->alibi[h]);
    hd_text_add(text, "%s,\nwith_sinks = %s, with_bias = %s, with_key_bias = %s, with_edge_bias = %s, with_bounds = %s, ", a->alibi ? "}" : "", truth(a->with & HD_WITH_SINKS),
                truth(a->with & HD_WITH_BIAS), truth(a->with & HD_WITH_KEY_BIAS), truth(a->with & HD_WITH_EDGE_BIAS), truth(a->with & HD_WITH_BOUNDS));
    hd_text_add(text, "key_bias_stride = %" PRId64 ", edge_bias_stride = %" PRId64 ", edges = %" PRId64 ",\n", a->key_bias_stride, a->edge_bias_stride, a->edges);
    if (a->with & HD_WITH_BIAS) {
        hd_text_add(text, "buckets = { first = %" PRId64 ", count = %" PRId64 ", buckets = %" PRId64 ", ", a->buckets->first, a->buckets->count, a->buckets->buckets);
        add_numbers(text, "bucket", a->buckets->bucket, a->buckets->count, 0);
        hd_text_add(text, "},\n");
    }
    add_strides(text, "stride_q", a->q);
    add_strides(text, "stride_k", a->k);
    add_strides(text, "stride_v", a->v);
    add_strides(text, "stride_out", a->out);
    if (backward) {
        add_strides(text, "stride_dout", a->dout);
        add_strides(text, "stride_dq", a->dq);
        add_strides(text, "stride_dk", a->dk);
        add_strides(text, "stride_dv", a->dv);
    }
}

static const hd_cover *cover_of_head(const hd_attention *a, int64_t h) { return a->cover[a->cover_of_head ? a->cover_of_head[h] : 0]; }

double hd_attention_edges_cost(const hd_attention *a, const hd_target *target, bool backward)
{
    const double vectors = (double)((a->head_dim + target->vl - 1) / target->vl);
    double cycles = 0;
    for (int64_t h = 0; h < a->heads; h++) {
        const hd_cover *c = cover_of_head(a, h);
        if (c->kept_pairs > MAX_PAIRS || a->queries >= INT32_MAX || a->keys >= INT32_MAX) return -1;
        cycles += (double)c->kept_pairs * (backward ? 20 + 12 * vectors : 10 + 4 * vectors) + (double)c->queries * (backward ? 50 + 10 * vectors : 40 + 4 * vectors);
    }
    return cycles;
}

hd_attention_plan hd_attention_edges(const hd_attention *a, const hd_target *target, bool backward)
{
    const int vl = target->vl;
    table *tables = HD_NEW_ARRAY(table, a->covers);
    int64_t most = 1;
    double pairs = 0;
    for (int c = 0; c < a->covers; c++) {
        if (a->cover[c]->kept_pairs > MAX_PAIRS)
            hd_fail((hd_where){ 0 }, "a pattern of single pairs keeps %" PRId64 ", more than %d; a shorter length or fewer edges needs less", a->cover[c]->kept_pairs, MAX_PAIRS);
        tables[c] = make_table(a->cover[c]);
        if (tables[c].pairs > most) most = tables[c].pairs;
    }
    hd_text heads = { 0 };
    hd_text_add(&heads, "head_table = { ");
    for (int64_t h = 0; h < a->heads; h++) {
        hd_text_add(&heads, "%d, ", (a->cover_of_head ? a->cover_of_head[h] : 0) + 1);
        pairs += (double)cover_of_head(a, h)->kept_pairs * (double)a->batch;
    }
    hd_text_add(&heads, "},\n");

    /* Backward in one go if key heads are enough slots: rows of q and dout are near when keys gather them. */
    const bool at_once = backward && a->batch * a->kv_heads >= ENOUGH_SLOTS;
    const int streams = 2 + (a->with & HD_WITH_KEY_BIAS ? 1 : 0);      /* numbers of a pair, for the way by key */
    hd_attention_plan plan = { .signature = hd_attention_signature(a, backward), .phases = backward && !at_once ? 2 : 1, .phase = HD_NEW_ARRAY(hd_attention_phase, 2),
                               .merge_bytes = backward ? a->batch * a->heads * streams * most * (int64_t)sizeof(float) : 0,
                               .useful_flops = (backward ? 10 : 4) * (double)a->head_dim * pairs };
    /* Forward, a head at once reads all its k rows before any v row: 12 % faster where either, but not both, fit the second cache. */
    const int64_t k_bytes = a->keys * a->head_dim * (int64_t)sizeof(float), all = round_up(most, 64);
    const bool whole = all <= CHUNK_PAIRS || (!backward && all <= MAX_CHUNK_PAIRS && k_bytes <= target->l2 && 2 * k_bytes > target->l2);
    const int64_t chunk = whole ? all : CHUNK_PAIRS, chunk_rows = whole && a->queries < chunk ? round_up(a->queries, 16) : chunk / 4;
    /* the structs of the templates, in bytes, each array padded to 64 */
    const int64_t local_bytes = round_up(4 * ((backward ? 10 : 6) * (chunk + 16) + 7 * (chunk_rows + 16) + 16 * 16 + round_up(a->head_dim, vl)) + 1024, 64);
    for (int i = 0; i < plan.phases; i++) {
        const bool by_query = i == 0, by_key = i == 1 || at_once;
        const int64_t owners = a->batch * (by_key ? a->kv_heads : a->heads);
        /* all parts of a head would add to its gradient of the bias table */
        const int parts = owners >= ENOUGH_SLOTS || (backward && by_query && a->with & HD_WITH_BIAS) ? 1 : PARTS;
        hd_text text = { 0 };
        add_shape(&text, a, target, backward);
        hd_text_addn(&text, heads.data, heads.length);
        hd_text_add(&text, "parts = %d, chunk_pairs = %" PRId64 ", chunk_rows = %" PRId64 ", most_pairs = %" PRId64 ", streams = %d, by_query = %s, by_key = %s, local_bytes = %" PRId64 ", tables = {\n",
                    parts, chunk, chunk_rows, most, streams, truth(by_query), truth(by_key), by_query ? local_bytes : 64);
        for (int c = 0; c < a->covers; c++) {
            hd_text_add(&text, "{ pairs = %" PRId64 ", ", tables[c].pairs);
            if (by_query) add_table(&text, &tables[c], vl, parts);
            if (by_key) {
                table t = transpose(&tables[c], a->keys);
                add_table(&text, &t, vl, parts);
                free_table(&t);
            }
            hd_text_add(&text, "},\n");
        }
        hd_text_add(&text, "}");
        plan.phase[i] = (hd_attention_phase){
            .template_name = backward ? "attention_edges_bwd" : "attention_edges_fwd",
            .coordinates = hd_format("b%" PRId64 "h%" PRId64 "d%" PRId64 "n%" PRId64 "%s", a->batch, a->heads, a->head_dim, a->queries, plan.phases == 1 ? "" : by_key ? "_2" : "_1"),
            .parameters = text.data, .local_bytes = by_query ? local_bytes : 64, .slots = owners * parts };
    }
    for (int c = 0; c < a->covers; c++) free_table(&tables[c]);
    return plan;
}
