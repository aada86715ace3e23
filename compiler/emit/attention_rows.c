/* Attention kernels over listed rows of keys (hd_cover.rows): tables for templates/attention_rows_*.c.tmpl.
 *
 * A block is `qv` vectors of queries. Its keys are those at least one of its queries keeps, in segments of neighbouring keys that
 * the same queries keep: lanes * keys are computed. Wider blocks reuse each key more often, narrower ones compute less in vain;
 * queries that share keys belong together, which on a grid are patches rather than rows. Every width, with neighbouring queries
 * and with queries grouped by shared keys, is tried on the whole table. If one head's pattern is listed, all heads' are. */
#include "attention.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 16, ENOUGH_SLOTS = 8, MAX_WIDTH = 4,
       OPENING_KEYS = 8,                     /* opening and closing a block costs about as much as so many keys */
       MAX_SEGMENTS = 1 << 20,               /* of one table: about 20 MB of constants */
       MAX_GROUPING_STEPS = 1 << 26 };       /* longer attempts at grouping queries are given up */

/* Share of the FMA peak that the inner loops reach, by block width. */
static const double speed[MAX_WIDTH + 1] = { 0, 0.60, 0.80, 0.82, 0.82 };

typedef struct segment { int64_t key, count; uint64_t lanes; } segment;
typedef struct table {
    int64_t blocks, segments, capacity;
    int32_t *order;                          /* [queries]: block b has those from b * lanes on */
    int64_t *block;                          /* [blocks + 1]: first segment */
    segment *item;
    double cost;
} table;

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

static void add_segment(table *t, segment s)
{
    if (t->segments == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 1024;
        t->item = realloc(t->item, sizeof *t->item * (size_t)t->capacity);
        if (!t->item) hd_fail((hd_where){ 0 }, "no memory for the table of an irregular pattern; use a shorter length");
    }
    t->item[t->segments++] = s;
}

typedef struct event { int64_t key; int lane; } event;
static int by_key(const void *a, const void *b)
{
    const event *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

static void *get(size_t count, size_t bytes)
{
    void *memory = calloc(count + 1, bytes);
    if (!memory) hd_fail((hd_where){ 0 }, "no memory for the table of an irregular pattern; use a shorter length");
    return memory;
}

/* Orders queries so that blocks of `lanes` share keys: from the first query that is left, again and again the one that needs
 * fewest keys the block does not have. False, leaving any order, if that takes too long. */
static bool group_queries(const hd_key_rows *rows, int64_t queries, int64_t keys, int64_t lanes, int32_t *order)
{
    int64_t pairs = 0, steps = 0;
    for (int64_t k = 0; k < rows->start[queries]; k++) pairs += rows->run[k].end - rows->run[k].first;
    if (pairs > MAX_GROUPING_STEPS / 4 || queries > INT32_MAX || keys > INT32_MAX) return false;
    int64_t *readers = get((size_t)keys + 1, sizeof *readers);
    int32_t *reader = get((size_t)pairs, sizeof *reader), *shared = get((size_t)queries, sizeof *shared), *length = get((size_t)queries, sizeof *length);
    int32_t *candidate = get((size_t)queries, sizeof *candidate), *in_block = get((size_t)keys, sizeof *in_block);
    bool *placed = get((size_t)queries, sizeof *placed), done = true;
    for (int64_t i = 0; i < queries; i++)
        for (int64_t k = rows->start[i]; k < rows->start[i + 1]; k++) {
            length[i] += (int32_t)(rows->run[k].end - rows->run[k].first);
            for (int64_t j = rows->run[k].first; j < rows->run[k].end; j++) readers[j + 1]++;
        }
    for (int64_t j = 0; j < keys; j++) readers[j + 1] += readers[j];
    for (int64_t i = queries - 1; i >= 0; i--)       /* readers[j + 1] falls to where key j's begin */
        for (int64_t k = rows->start[i]; k < rows->start[i + 1]; k++)
            for (int64_t j = rows->run[k].first; j < rows->run[k].end; j++) reader[--readers[j + 1]] = (int32_t)i;
    for (int64_t j = 0; j < keys; j++) readers[j] = readers[j + 1];
    readers[keys] = pairs;
    int64_t next = 0, candidates = 0;
    for (int64_t at = 0; at < queries && done; at++) {
        if (at % lanes == 0) {
            for (int64_t c = 0; c < candidates; c++) shared[candidate[c]] = 0;
            candidates = 0;
        }
        int64_t best = -1;
        for (int64_t c = 0; c < candidates; c++) {
            int64_t q = candidate[c];
            if (placed[q]) continue;
            if (best < 0 || length[q] - shared[q] < length[best] - shared[best] || (length[q] - shared[q] == length[best] - shared[best] && q < best)) best = q;
        }
        steps += candidates;
        while (placed[next] && next < queries - 1) next++;
        if (best < 0) best = next;
        placed[best] = true;
        order[at] = (int32_t)best;
        const int32_t block = (int32_t)(at / lanes) + 1;
        for (int64_t k = rows->start[best]; k < rows->start[best + 1]; k++)
            for (int64_t j = rows->run[k].first; j < rows->run[k].end; j++) {
                if (in_block[j] == block) continue;
                in_block[j] = block;
                for (int64_t r = readers[j]; r < readers[j + 1]; r++) {
                    if (placed[reader[r]]) continue;
                    if (shared[reader[r]]++ == 0) candidate[candidates++] = reader[r];
                }
                steps += readers[j + 1] - readers[j];
            }
        done = steps <= MAX_GROUPING_STEPS;
    }
    free(readers), free(reader), free(shared), free(length), free(candidate), free(in_block), free(placed);
    return done;
}

/* The segments of `count` rows: run ends, sorted, toggle lanes. Segments that all lanes keep come first. */
static void add_block(table *t, const hd_key_rows *rows, const int32_t *query, int64_t count, uint64_t all, event **events, int64_t *capacity)
{
    int64_t ends = 0, runs = 0;
    for (int64_t i = 0; i < count; i++) runs += rows->start[query[i] + 1] - rows->start[query[i]];
    if (2 * runs > *capacity) {
        *capacity = 2 * runs;
        *events = realloc(*events, sizeof **events * (size_t)*capacity);
        if (!*events) hd_fail((hd_where){ 0 }, "no memory for the table of an irregular pattern; use a shorter length");
    }
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = rows->start[query[i]]; k < rows->start[query[i] + 1]; k++) {
            (*events)[ends++] = (event){ rows->run[k].first, (int)i };
            (*events)[ends++] = (event){ rows->run[k].end, (int)i };
        }
    if (ends) qsort(*events, (size_t)ends, sizeof **events, by_key);
    uint64_t kept = count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1;
    for (int partial = 0; partial < 2; partial++) {
        uint64_t lanes = 0;
        for (int64_t e = 0; e < ends; ) {
            int64_t key = (*events)[e].key;
            for (; e < ends && (*events)[e].key == key; e++) lanes ^= UINT64_C(1) << (*events)[e].lane;
            if (!lanes || (lanes != kept) != partial) continue;
            add_segment(t, (segment){ key, (*events)[e].key - key, lanes == kept ? all : lanes });
            t->cost += (double)((*events)[e].key - key);
        }
    }
    t->cost += OPENING_KEYS;
}

/* Fails (no blocks) if queries are to be grouped and cannot be. */
static table make_table(const hd_key_rows *rows, int64_t queries, int64_t keys, int64_t head_dim, int qv, int vl, bool grouped)
{
    const int64_t lanes = (int64_t)qv * vl;
    table t = { .blocks = (queries + lanes - 1) / lanes };
    t.block = get((size_t)t.blocks, sizeof *t.block);
    t.order = get((size_t)queries, sizeof *t.order);
    for (int64_t i = 0; i < queries; i++) t.order[i] = (int32_t)i;
    if (grouped && !group_queries(rows, queries, keys, lanes, t.order)) {
        t.blocks = 0;
        return t;
    }
    event *events = NULL;
    int64_t capacity = 0;
    for (int64_t b = 0; b < t.blocks; b++) {
        t.block[b] = t.segments;
        add_block(&t, rows, &t.order[b * lanes], min64(lanes, queries - b * lanes), lanes == 64 ? ~UINT64_C(0) : (UINT64_C(1) << lanes) - 1, &events, &capacity);
    }
    t.block[t.blocks] = t.segments;
    /* cycles: two products at two multiply-adds a cycle; gathering a key; masks and exponentials */
    t.cost *= (double)head_dim * qv / speed[qv] + 20 + 14 * qv;
    free(events);
    return t;
}

static void free_table(table *t)
{
    free(t->order);
    free(t->block);
    free(t->item);
}

/* Blocks where parts of equal work begin. */
static void add_cuts(hd_text *text, const table *t, int parts)
{
    double sum = 0, total = (double)t->blocks * OPENING_KEYS;
    for (int64_t s = 0; s < t->segments; s++) total += (double)t->item[s].count;
    int next = 1;
    hd_text_add(text, "cuts = { 0");
    for (int64_t b = 0; b < t->blocks; b++) {
        for (; next < parts && sum >= total * next / parts; next++) hd_text_add(text, ", %" PRId64, b);
        sum += OPENING_KEYS;
        for (int64_t s = t->block[b]; s < t->block[b + 1]; s++) sum += (double)t->item[s].count;
    }
    for (; next <= parts; next++) hd_text_add(text, ", %" PRId64, t->blocks);
    hd_text_add(text, " }, ");
}

/* Keys where parts of equal work begin: keys weigh as much as blocks read them. */
static void add_key_cuts(hd_text *text, const table *t, int64_t keys, int parts)
{
    int64_t *readers = calloc((size_t)keys + 1, sizeof *readers);
    if (!readers) hd_fail((hd_where){ 0 }, "no memory for the table of an irregular pattern; use a shorter length");
    double total = 0, sum = 0;
    for (int64_t s = 0; s < t->segments; s++) {
        readers[t->item[s].key]++;
        readers[t->item[s].key + t->item[s].count]--;
        total += (double)t->item[s].count;
    }
    int next = 1;
    hd_text_add(text, "key_cuts = { 0");
    for (int64_t j = 0, now = 0; j < keys; j++) {
        for (; next < parts && sum >= total * next / parts; next++) hd_text_add(text, ", %" PRId64, j);
        now += readers[j];
        sum += (double)now;
    }
    for (; next <= parts; next++) hd_text_add(text, ", %" PRId64, keys);
    hd_text_add(text, " }, ");
    free(readers);
}

static void add_table(hd_text *text, const hd_attention *a, const table *t, int qv, int vl, int parts)
{
    hd_text_add(text, "{ blocks = %" PRId64 ", segments = %" PRId64 ", ", t->blocks, t->segments);
    const int64_t lanes = (int64_t)qv * vl;
    hd_text_add(text, "order = [[");
    for (int64_t i = 0; i < a->queries; i++) hd_text_add(text, "%" PRId32 ",%s", t->order[i], i % 32 == 31 ? "\n    " : "");
    hd_text_add(text, "]], block = [[");
    for (int64_t b = 0; b <= t->blocks; b++) {
        int64_t first = min64(b * lanes, a->queries);
        hd_text_add(text, "{%" PRId64 ",%" PRId64 ",%" PRId64 "},%s", first, min64(lanes, a->queries - first), t->block[b], b % 12 == 11 ? "\n    " : "");
    }
    hd_text_add(text, "]], segment = [[");
    for (int64_t s = 0; s < t->segments; s++) {
        hd_text_add(text, "{%" PRId64 ",%" PRId64, t->item[s].key, t->item[s].count);
        for (int c = 0; c < qv; c++) hd_text_add(text, ",%" PRIu64, t->item[s].lanes >> c * vl & ((UINT64_C(1) << vl) - 1));
        hd_text_add(text, "},%s", s % 12 == 11 ? "\n    " : "");
    }
    if (!t->segments) hd_text_add(text, "{0}");
    hd_text_add(text, "]], ");
    if (parts > 1) {
        add_cuts(text, t, parts);
        add_key_cuts(text, t, a->keys, parts);
    }
    hd_text_add(text, "},\n");
}

hd_attention_plan hd_attention_rows(const hd_attention *a, const hd_target *target, bool backward, double *cost_of_head)
{
    const int vl = target->vl;
    const int64_t owners = backward ? a->batch * a->kv_heads : a->batch * a->heads, dp = round_up(a->head_dim, vl);
    const bool one_slot = backward && a->with & (HD_WITH_BIAS | HD_WITH_KEY_BIAS);
    const int parts = owners >= ENOUGH_SLOTS || one_slot ? 1 : PARTS;

    const hd_key_rows **rows = HD_NEW_ARRAY(const hd_key_rows *, a->covers);
    table *best = HD_NEW_ARRAY(table, a->covers);
    int width = 0;
    double least = 0;
    for (int c = 0; c < a->covers; c++) rows[c] = a->cover[c]->rows ? a->cover[c]->rows : hd_cover_rows(a->cover[c]);
    for (int variant = 0; variant < 2 * MAX_WIDTH; variant++) {
        const int qv = MAX_WIDTH - variant / 2;
        if (a->choice.width && qv != a->choice.width) continue;
        table *tables = HD_NEW_ARRAY(table, a->covers);
        double cost = 0;
        bool made = true;
        for (int c = 0; c < a->covers; c++) {
            if (made) tables[c] = make_table(rows[c], a->queries, a->keys, a->head_dim, qv, vl, variant % 2);
            made = made && tables[c].blocks;
            cost += tables[c].cost;
        }
        table *worse = tables;
        if (made && (!width || cost < 0.95 * least)) worse = best, best = tables, width = qv, least = cost;
        for (int c = 0; c < a->covers; c++) free_table(&worse[c]);
    }

    *cost_of_head = least;
    for (int c = 0; c < a->covers; c++) if (best[c].segments > MAX_SEGMENTS) *cost_of_head = INFINITY;
    if (isinf(*cost_of_head)) {
        for (int c = 0; c < a->covers; c++) free_table(&best[c]);
        return (hd_attention_plan){ 0 };
    }

    hd_text text = { 0 };
    hd_attention_parameters(&text, a, target, backward);
    hd_text_add(&text, "\nqv = %d, parts = %d, tables = {\n", width, parts);
    for (int c = 0; c < a->covers; c++) {
        add_table(&text, a, &best[c], width, vl, parts);
        free_table(&best[c]);
    }
    hd_text_add(&text, "}, head_table = { ");
    double pairs = 0;
    for (int64_t h = 0; h < a->heads; h++) {
        const int c = a->cover_of_head ? a->cover_of_head[h] : 0;
        hd_text_add(&text, "%d, ", c + 1);
        pairs += (double)a->cover[c]->kept_pairs * (double)a->batch;
    }

    /* Keys in a chunk: their scores and rows share the first cache. The structs of the templates, in bytes, each padded to 64. */
    const int64_t nq = (int64_t)width * vl;
    int64_t kc = round_up(min64(96, target->l1 * 3 / 4 / 4 / (dp + 2 * nq)), 24);
    if (kc < 24) kc = 24;
    const int64_t chunk = kc * (2 * dp + width + 1) + 2 * nq + 16;
    const int64_t floats = backward ? 6 * dp * nq + 4 * nq + kc * (3 * nq + 2 * dp) + chunk + 32 : 3 * dp * nq + 4 * nq + kc * nq + chunk + 16;
    const int64_t local_bytes = round_up(4 * floats + 512, 64) + hd_attention_terms_bytes(a, backward);
    hd_text_add(&text, "},\nkc = %" PRId64 ", local_bytes = %" PRId64, kc, local_bytes);

    hd_attention_plan plan = { .phases = 1, .phase = HD_NEW(hd_attention_phase), .useful_flops = (backward ? 10 : 4) * (double)a->head_dim * pairs };
    plan.signature = hd_attention_signature(a, backward);
    *plan.phase = (hd_attention_phase){
        .template_name = backward ? "attention_rows_bwd" : "attention_rows_fwd",
        .coordinates = hd_format("b%" PRId64 "h%" PRId64 "d%" PRId64 "n%" PRId64, a->batch, a->heads, a->head_dim, a->queries),
        .parameters = text.data, .local_bytes = local_bytes,
        .slots = parts == 1 ? owners : backward ? a->batch * (a->heads + a->kv_heads) * parts : owners * parts };
    return plan;
}
