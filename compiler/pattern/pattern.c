/* Patterns as predicates, sets of differences and text. Covers are made in cover.c.
 *
 * Questions about a whole pattern (kept pairs, empty rows, causality) are answered from the set of differences d = i - j that
 * it keeps, if it depends on nothing else: one bit for each of the queries + keys - 1 differences, whatever the number of
 * pairs. Otherwise they are answered from its cover. */
#include "cover.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TERMS = 1024 };      /* of an expression written out: sharing a term twice counts twice */

static bool is_operator(const hd_pattern *p) { return p->kind >= HD_PATTERN_AND; }

/* (i - j) mod stride is the same set whichever sign C gives the remainder: only zero is asked for. */
bool hd_pattern_keeps(const hd_pattern *p, int64_t i, int64_t j)
{
    switch (p->kind) {
    case HD_PATTERN_FULL:   return true;
    case HD_PATTERN_CAUSAL: return j <= i;
    case HD_PATTERN_WINDOW: return i - p->left <= j && j <= i + p->right;
    case HD_PATTERN_STRIDE: return (i - j) % p->stride == 0;
    case HD_PATTERN_CHUNK:  return i / p->chunk - j / p->chunk <= p->left && j / p->chunk - i / p->chunk <= p->right;
    case HD_PATTERN_RESIDUES: return j % p->stride >= p->first && j % p->stride < p->end;
    case HD_PATTERN_KEYS:   return j >= p->first && j < p->end;
    case HD_PATTERN_QUERIES: return i >= p->first && i < p->end;
    case HD_PATTERN_DOCUMENTS: case HD_PATTERN_GRID: case HD_PATTERN_LIST: return hd_row_keeps(p, i, j);
    case HD_PATTERN_AND:    return hd_pattern_keeps(p->a, i, j) && hd_pattern_keeps(p->b, i, j);
    case HD_PATTERN_OR:     return hd_pattern_keeps(p->a, i, j) || hd_pattern_keeps(p->b, i, j);
    case HD_PATTERN_MINUS:  return hd_pattern_keeps(p->a, i, j) && !hd_pattern_keeps(p->b, i, j);
    }
    assert(!"a pattern kind without a predicate");
    return false;
}

static void validate(const hd_pattern *p, int *terms)
{
    if (++*terms > MAX_TERMS)
        hd_fail(p->where, "pattern has more than %d terms when written out; join windows and strides into fewer terms", MAX_TERMS);
    switch (p->kind) {
    case HD_PATTERN_FULL: case HD_PATTERN_CAUSAL: return;
    case HD_PATTERN_WINDOW:
        if (p->left < -HD_ALL_KEYS || p->left > HD_ALL_KEYS || p->right < -HD_ALL_KEYS || p->right > HD_ALL_KEYS)
            hd_fail(p->where, "window: left and right must lie between -2^61 and 2^61");
        if (p->left + p->right < 0)
            hd_fail(p->where, "window holds no key (left %" PRId64 ", right %" PRId64 "); keys must be at least 1, left + right at least 0",
                    p->left, p->right);
        return;
    case HD_PATTERN_STRIDE:
        if (p->stride < 1) hd_fail(p->where, "stride is %" PRId64 "; it must be at least 1", p->stride);
        return;
    case HD_PATTERN_CHUNK:
        if (p->chunk < 1) hd_fail(p->where, "chunk is %" PRId64 "; it must be at least 1", p->chunk);
        if (p->left < -HD_MAX_LAG || p->left > HD_MAX_LAG || p->right < -HD_MAX_LAG || p->right > HD_MAX_LAG)
            hd_fail(p->where, "chunks before and after must lie between -2^20 and 2^20");
        if (p->left + p->right < 0)
            hd_fail(p->where, "a window of chunks from %" PRId64 " before to %" PRId64 " after holds none; before + after must be at least 0", p->left, p->right);
        return;
    case HD_PATTERN_RESIDUES:
        if (p->stride < 1) hd_fail(p->where, "residues: the period is %" PRId64 "; it must be at least 1", p->stride);
        if (p->first < 0 || p->first >= p->end || p->end > p->stride)
            hd_fail(p->where, "residues %" PRId64 " to below %" PRId64 " of period %" PRId64 ": valid is 0 <= first < end <= period", p->first, p->end, p->stride);
        return;
    case HD_PATTERN_KEYS: case HD_PATTERN_QUERIES:
        if (p->first < 0 || p->first >= p->end)
            hd_fail(p->where, "global %s from %" PRId64 " to below %" PRId64 ": valid is 0 <= first < end",
                    p->kind == HD_PATTERN_KEYS ? "keys" : "queries", p->first, p->end);
        return;
    case HD_PATTERN_DOCUMENTS: case HD_PATTERN_GRID: case HD_PATTERN_LIST: return;      /* checked where they are made: spec/pattern_data.c */
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS:
        validate(p->a, terms);
        validate(p->b, terms);
        return;
    }
    hd_fail(p->where, "unknown pattern kind %d", (int)p->kind);
}

void hd_pattern_validate(const hd_pattern *p)
{
    int terms = 0;
    validate(p, &terms);
}

void hd_pattern_check_lengths(const hd_pattern *p, int64_t queries, int64_t keys)
{
    int64_t longest = queries > keys ? queries : keys;
    switch (p->kind) {
    case HD_PATTERN_KEYS:
        if (p->end > keys) hd_fail(p->where, "key %" PRId64 " does not exist: there are %" PRId64 " keys, 0 to %" PRId64, p->end - 1, keys, keys - 1);
        return;
    case HD_PATTERN_QUERIES:
        if (p->end > queries) hd_fail(p->where, "query %" PRId64 " does not exist: there are %" PRId64 " queries, 0 to %" PRId64, p->end - 1, queries, queries - 1);
        return;
    case HD_PATTERN_DOCUMENTS:
        if (p->document[p->documents] != longest)
            hd_fail(p->where, "the documents hold %" PRId64 " positions, the length is %" PRId64 "; their lengths must add up to it", p->document[p->documents], longest);
        return;
    case HD_PATTERN_GRID: {
        int64_t size = p->grid->first;
        for (int64_t k = 0, cells = 1; k < p->grid->axes; k++) {
            cells *= p->grid->axis[k].size;
            if (k + 1 == p->grid->axes) size += cells;
        }
        if (size > longest) hd_fail(p->where, "the grid ends at position %" PRId64 ", the length is %" PRId64 "; a grid must fit into it", size, longest);
        return;
    }
    case HD_PATTERN_LIST: {
        int64_t block = p->list->block, rows = (queries + block - 1) / block, columns = (keys + block - 1) / block;
        if (p->list->rows != rows || p->list->columns != columns)
            hd_fail(p->where, "%s: made for %" PRId64 " queries and %" PRId64 " keys, used with %" PRId64 " and %" PRId64, p->list->what, p->list->rows * block,
                    p->list->columns * block, queries, keys);
        return;
    }
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS:
        hd_pattern_check_lengths(p->a, queries, keys);
        hd_pattern_check_lengths(p->b, queries, keys);
        return;
    default: return;
    }
}

/* Sets of differences. */

static uint64_t *new_bits(int64_t count, hd_where where)
{
    uint64_t *bits = calloc((size_t)(count + 63) / 64 + 1, sizeof *bits);
    if (!bits) hd_fail(where, "no memory for the %" PRId64 " differences of a pattern; use a shorter length", count);
    return bits;
}

/* Sets bits x of [from, to), clipped to [0, count). */
static void set_range(uint64_t *bits, int64_t count, int64_t from, int64_t to)
{
    if (from < 0) from = 0;
    if (to > count) to = count;
    if (from >= to) return;
    int64_t a = from >> 6, b = (to - 1) >> 6;
    uint64_t head = ~UINT64_C(0) << (from & 63), tail = ~UINT64_C(0) >> (63 - ((to - 1) & 63));
    if (a == b) { bits[a] |= head & tail; return; }
    bits[a] |= head;
    for (int64_t w = a + 1; w < b; w++) bits[w] = ~UINT64_C(0);
    bits[b] |= tail;
}

/* A line of positions: bit x is difference x - origin, or (row) key x of query `origin`. Terms that do not depend on the
 * difference are constant on the region; a row has none. */
typedef struct line {
    bool row;
    int64_t origin, count;
    const hd_region *region;
} line;

static void set_differences(const line *l, uint64_t *bits, int64_t low, int64_t high)
{
    if (l->row) set_range(bits, l->count, l->origin - high, l->origin - low + 1);
    else set_range(bits, l->count, l->origin + low, l->origin + high + 1);
}

/* Runs [first, end) of every period. */
static void set_runs(uint64_t *bits, int64_t count, int64_t period, int64_t first, int64_t end)
{
    for (int64_t x = 0; x < count; x += period) set_range(bits, count, x + first, x + end);
}

static void fill(const hd_pattern *p, const line *l, uint64_t *bits)
{
    const hd_region *r = l->region;
    switch (p->kind) {
    case HD_PATTERN_FULL:   set_range(bits, l->count, 0, l->count); return;
    case HD_PATTERN_CAUSAL: set_differences(l, bits, 0, HD_ALL_KEYS); return;
    case HD_PATTERN_WINDOW: set_differences(l, bits, -p->right, p->left); return;
    case HD_PATTERN_STRIDE: {
        int64_t x = l->origin % p->stride;
        if (x < 0) x += p->stride;
        for (; x < l->count; x += p->stride) bits[x >> 6] |= UINT64_C(1) << (x & 63);
        return;
    }
    case HD_PATTERN_CHUNK:
        if (l->row) set_range(bits, l->count, (l->origin / p->chunk - p->left) * p->chunk, (l->origin / p->chunk + p->right + 1) * p->chunk);
        else {
            int64_t lag = r->chunk == p->chunk ? r->lag0 : 0;      /* other chunks than the region's are longer than the plane */
            if (lag >= -p->right && lag <= p->left) set_range(bits, l->count, 0, l->count);
        }
        return;
    case HD_PATTERN_RESIDUES:
        if (l->row) set_runs(bits, l->count, p->stride, p->first, p->end);
        else if (r->r0 % p->stride >= p->first && r->r0 % p->stride < p->end) set_range(bits, l->count, 0, l->count);
        return;
    case HD_PATTERN_KEYS:
        if (l->row) set_range(bits, l->count, p->first, p->end);
        else if (r->k0 >= p->first && r->k0 < p->end) set_range(bits, l->count, 0, l->count);
        return;
    case HD_PATTERN_QUERIES: {
        int64_t i = l->row ? l->origin : r->q0;
        if (i >= p->first && i < p->end) set_range(bits, l->count, 0, l->count);
        return;
    }
    case HD_PATTERN_DOCUMENTS: case HD_PATTERN_GRID: case HD_PATTERN_LIST: {
        if (!l->row) {      /* documents */
            if (r->document0 == 0) set_range(bits, l->count, 0, l->count);
            return;
        }
        hd_runs runs = { 0, 0, NULL };
        hd_row_runs(p, l->origin, 0, l->count, &runs);
        for (int64_t k = 0; k < runs.count; k++) set_range(bits, l->count, runs.item[k].first, runs.item[k].end);
        free(runs.item);
        return;
    }
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS: break;
    }
    uint64_t *other = new_bits(l->count, p->where);
    fill(p->a, l, bits);
    fill(p->b, l, other);
    int64_t words = (l->count + 63) / 64;
    for (int64_t w = 0; w < words; w++)
        bits[w] = p->kind == HD_PATTERN_AND ? bits[w] & other[w] : p->kind == HD_PATTERN_OR ? bits[w] | other[w] : bits[w] & ~other[w];
    free(other);
}

hd_differences hd_differences_new(int64_t first, int64_t count, hd_where where)
{
    assert(count >= 0);
    return (hd_differences){ first, count, new_bits(count, where) };
}

hd_differences hd_differences_make(const hd_pattern *p, const hd_region *region, int64_t first, int64_t count)
{
    hd_differences set = hd_differences_new(first, count, p->where);
    fill(p, &(line){ .origin = -first, .count = count, .region = region }, set.bits);
    return set;
}

void hd_differences_free(hd_differences *set)
{
    free(set->bits);
    set->bits = NULL;
}

int64_t hd_differences_next(const hd_differences *set, int64_t x)
{
    if (x < 0) x = 0;
    if (x >= set->count) return set->count;
    int64_t w = x >> 6, words = (set->count + 63) / 64;
    uint64_t bits = set->bits[w] & (~UINT64_C(0) << (x & 63));
    while (!bits) {
        if (++w == words) return set->count;
        bits = set->bits[w];
    }
    return w * 64 + __builtin_ctzll(bits);
}

/* Questions. */

bool hd_pattern_invariant(const hd_pattern *p)
{
    if (is_operator(p)) return hd_pattern_invariant(p->a) && hd_pattern_invariant(p->b);
    return p->kind <= HD_PATTERN_STRIDE;
}

static hd_differences all_differences(const hd_pattern *p, int64_t queries, int64_t keys)
{
    return hd_differences_make(p, NULL, -(keys - 1), queries + keys - 1);
}

/* Greedy from the left: the next two keys set a step if a third key (or the end of the row) agrees with it. */
int hd_pattern_row(const hd_pattern *p, int64_t i, int64_t keys, hd_progression **list)
{
    int items = 0, capacity = 0;
    *list = NULL;
    if (keys < 1) return 0;
    hd_differences row = hd_differences_new(0, keys, p->where);
    fill(p, &(line){ .row = true, .origin = i, .count = keys }, row.bits);
    for (int64_t j = hd_differences_next(&row, 0); j < keys; ) {
        hd_progression run = { j, 1, 1 };
        int64_t next = hd_differences_next(&row, j + 1);
        if (next < keys) {
            int64_t step = next - j, third = hd_differences_next(&row, next + 1);
            if (step == 1 || third == keys || third == next + step) {
                run.step = step;
                while (next < keys && next == run.start + run.count * step) {
                    run.count++;
                    next = hd_differences_next(&row, next + 1);
                }
            }
        }
        HD_PUSH(*list, items, capacity, run);
        j = next;
    }
    hd_differences_free(&row);
    return items;
}

int64_t hd_pattern_kept_pairs(const hd_pattern *p, int64_t queries, int64_t keys)
{
    if (queries < 1 || keys < 1) return 0;
    if (!hd_pattern_invariant(p)) return hd_cover_make(p, queries, keys)->kept_pairs;
    hd_differences set = all_differences(p, queries, keys);
    int64_t pairs = 0;
    for (int64_t x = hd_differences_next(&set, 0); x < set.count; x = hd_differences_next(&set, x + 1))
        pairs += hd_difference_pairs(set.first + x, queries, keys);
    hd_differences_free(&set);
    return pairs;
}

/* Row i has the differences i - (keys - 1) .. i, bits i .. i + keys - 1. */
int64_t hd_pattern_empty_rows(const hd_pattern *p, int64_t queries, int64_t keys)
{
    if (queries < 1) return 0;
    if (keys < 1) return queries;
    if (!hd_pattern_invariant(p)) return hd_cover_make(p, queries, keys)->empty_rows;
    hd_differences set = all_differences(p, queries, keys);
    int64_t empty = 0, next = -1;
    for (int64_t i = 0; i < queries; i++) {
        if (next < i) next = hd_differences_next(&set, i);
        empty += next > i + keys - 1;
    }
    hd_differences_free(&set);
    return empty;
}

static bool cover_is_causal(const hd_cover *cover)
{
    for (int64_t i = 0; cover->rows && i < cover->queries; i++)
        if (cover->rows->start[i + 1] > cover->rows->start[i] && cover->rows->run[cover->rows->start[i + 1] - 1].end > i + 1) return false;
    for (int k = 0; k < cover->families; k++) {
        const hd_family *f = &cover->family[k];
        for (int64_t g = 0; g < f->groups; g++) {
            hd_group group = hd_family_group(cover, f, g);
            for (int64_t t = 0, first, last; t < group.q_count; t++) {
                hd_group_interval(f, &group, t, &first, &last);
                if (first < last && hd_group_key(&group, last - 1) > group.q_start + group.q_step * t) return false;
            }
        }
    }
    return true;
}

bool hd_pattern_causal(const hd_pattern *p, int64_t queries, int64_t keys)
{
    if (queries < 1 || keys < 1) return true;
    if (!hd_pattern_invariant(p)) return cover_is_causal(hd_cover_make(p, queries, keys));
    hd_differences set = all_differences(p, queries, keys);
    bool causal = hd_differences_next(&set, 0) >= keys - 1;      /* bit keys - 1 is difference 0 */
    hd_differences_free(&set);
    return causal;
}

/* Text and equality. */

static void window_text(const hd_pattern *p, hd_text *text)
{
    if (p->left >= (int64_t)1 << 40) hd_text_add(text, "causal, queries moved by %" PRId64, p->right);
    else if (p->right == 0) hd_text_add(text, "window of %" PRId64 " key%s", p->left + 1, p->left ? "s" : "");
    else hd_text_add(text, "window of %" PRId64 " keys before and %" PRId64 " after", p->left, p->right);
}

static void chunk_text(const hd_pattern *p, hd_text *text)
{
    if (!p->left && !p->right) hd_text_add(text, "chunk %" PRId64, p->chunk);
    else if (p->left == 1 && p->right == -1) hd_text_add(text, "previous chunk of %" PRId64, p->chunk);
    else hd_text_add(text, "chunks of %" PRId64 ", %" PRId64 " before to %" PRId64 " after", p->chunk, p->left, p->right);
}

static void grid_text(const hd_grid *g, hd_text *text)
{
    hd_text_add(text, "neighbourhood");
    for (int k = 0; k < g->axes; k++) {
        const hd_axis *a = &g->axis[k];
        hd_text_add(text, k ? " x " : " of ");
        if (a->kind == HD_AXIS_ALL) hd_text_add(text, "all");
        else if (a->kind == HD_AXIS_CHUNK) hd_text_add(text, "chunks of %" PRId64, a->kernel);
        else if (a->kind == HD_AXIS_WINDOW) hd_text_add(text, "%" PRId64 "+1+%" PRId64, a->left, a->right);
        else hd_text_add(text, "%" PRId64 "%s", a->kernel, a->causal ? " causal" : "");
        if (a->kind == HD_AXIS_CLAMPED && a->stride > 1) hd_text_add(text, " stride %" PRId64, a->stride);
        if (a->kind <= HD_AXIS_CLAMPED && a->dilation > 1) hd_text_add(text, " dilation %" PRId64, a->dilation);
    }
    hd_text_add(text, " on");
    for (int k = 0; k < g->axes; k++) hd_text_add(text, "%s%" PRId64, k ? " x " : " ", g->axis[k].size);
    if (g->first) hd_text_add(text, " from %" PRId64, g->first);
}

static void add_text(const hd_pattern *p, hd_text *text)
{
    switch (p->kind) {
    case HD_PATTERN_FULL:   hd_text_add(text, "full"); return;
    case HD_PATTERN_CAUSAL: hd_text_add(text, "causal"); return;
    case HD_PATTERN_WINDOW: window_text(p, text); return;
    case HD_PATTERN_STRIDE: hd_text_add(text, "stride %" PRId64, p->stride); return;
    case HD_PATTERN_CHUNK:  chunk_text(p, text); return;
    case HD_PATTERN_RESIDUES: hd_text_add(text, "residues %" PRId64 "..%" PRId64 " of %" PRId64, p->first, p->end - 1, p->stride); return;
    case HD_PATTERN_KEYS:   hd_text_add(text, "keys %" PRId64 "..%" PRId64, p->first, p->end - 1); return;
    case HD_PATTERN_QUERIES: hd_text_add(text, "queries %" PRId64 "..%" PRId64, p->first, p->end - 1); return;
    case HD_PATTERN_DOCUMENTS: hd_text_add(text, "%" PRId64 " documents", p->documents); return;
    case HD_PATTERN_GRID:   grid_text(p->grid, text); return;
    case HD_PATTERN_LIST:   hd_text_add(text, "%s", p->list->what); return;
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS: break;
    }
    const hd_pattern *side[2] = { p->a, p->b };
    for (int s = 0; s < 2; s++) {
        if (s) hd_text_add(text, p->kind == HD_PATTERN_AND ? " & " : p->kind == HD_PATTERN_OR ? " | " : " - ");
        /* a - b - c reads as (a - b) - c; mixed operators always show their order. */
        bool bare = !is_operator(side[s]) || (side[s]->kind == p->kind && !(s && p->kind == HD_PATTERN_MINUS));
        if (!bare) hd_text_add(text, "(");
        add_text(side[s], text);
        if (!bare) hd_text_add(text, ")");
    }
}

char *hd_pattern_text(const hd_pattern *p)
{
    hd_text text = { NULL, 0, 0 };
    add_text(p, &text);
    return text.data;
}

static bool grid_equal(const hd_grid *g, const hd_grid *h)
{
    bool same = g->axes == h->axes && g->first == h->first;
    for (int k = 0; k < g->axes && same; k++) {
        const hd_axis *a = &g->axis[k], *b = &h->axis[k];
        same = a->kind == b->kind && a->causal == b->causal && a->size == b->size && a->left == b->left && a->right == b->right &&
               a->kernel == b->kernel && a->stride == b->stride && a->dilation == b->dilation && a->offset == b->offset;
    }
    return same;
}

static bool lists_equal(const hd_key_lists *a, const hd_key_lists *b)
{
    if (a == b) return true;
    return a->block == b->block && a->rows == b->rows && a->columns == b->columns && !memcmp(a->start, b->start, sizeof *a->start * (size_t)(a->rows + 1)) &&
           !memcmp(a->run, b->run, sizeof *a->run * (size_t)a->start[a->rows]);
}

bool hd_pattern_equal(const hd_pattern *p, const hd_pattern *q)
{
    if (p == q) return true;
    if (p->kind != q->kind) return false;
    switch (p->kind) {
    case HD_PATTERN_FULL: case HD_PATTERN_CAUSAL: return true;
    case HD_PATTERN_WINDOW: return p->left == q->left && p->right == q->right;
    case HD_PATTERN_STRIDE: return p->stride == q->stride;
    case HD_PATTERN_CHUNK: return p->chunk == q->chunk && p->left == q->left && p->right == q->right;
    case HD_PATTERN_RESIDUES: return p->stride == q->stride && p->first == q->first && p->end == q->end;
    case HD_PATTERN_KEYS: case HD_PATTERN_QUERIES: return p->first == q->first && p->end == q->end;
    case HD_PATTERN_DOCUMENTS:
        return p->documents == q->documents && !memcmp(p->document, q->document, sizeof *p->document * (size_t)(p->documents + 1));
    case HD_PATTERN_GRID: return grid_equal(p->grid, q->grid);
    case HD_PATTERN_LIST: return lists_equal(p->list, q->list);
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS: return hd_pattern_equal(p->a, q->a) && hd_pattern_equal(p->b, q->b);
    }
    return false;
}

/* Printing a cover: one line of totals, then one line per family.
 *
 * What kernels will compute is told before any target or head_dim is known: blocks of up to 48 queries against single keys,
 * where each vector of 16 queries meets the keys from its first row's first to its last row's last; lanes past the last query
 * count. Listed rows: vectors of 16 neighbouring queries against every key that one of them keeps. Kernels for narrower vectors
 * waste less, and those that group queries by shared keys, too. */

enum { BLOCK = 48, LANES = 16 };
typedef struct effort { int64_t tiles, computed, table_bytes; } effort;

static effort family_effort(const hd_cover *cover, const hd_family *f)
{
    effort e = { .table_bytes = f->table ? (f->groups / f->inner + 1) * (int64_t)sizeof(int32_t) : 0 };
    for (int64_t g = 0; g < f->groups; g++) {
        const hd_group group = hd_family_group(cover, f, g);
        int64_t counted = -1;
        for (int64_t t = 0; t < group.q_count; t += LANES) {
            int64_t first, last, unused, end = t + LANES < group.q_count ? t + LANES : group.q_count;
            hd_group_interval(f, &group, t, &first, &unused);
            hd_group_interval(f, &group, end - 1, &unused, &last);
            if (first >= last) continue;
            e.computed += LANES * (last - first);
            if (t / BLOCK != counted) e.tiles++, counted = t / BLOCK;
        }
    }
    return e;
}

typedef struct run_end { int64_t key; int change; } run_end;
static int by_key(const void *a, const void *b)
{
    const run_end *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

/* A tile: neighbouring keys that the same queries of a vector keep. */
static effort rows_effort(const hd_cover *cover)
{
    const hd_key_rows *rows = cover->rows;
    effort e = { 0 };
    for (int64_t i = 0; i < cover->queries; i += LANES) {
        const int64_t end = i + LANES < cover->queries ? i + LANES : cover->queries, first = rows->start[i], runs = rows->start[end] - first;
        run_end *at = malloc(sizeof *at * (size_t)(2 * runs + 1));
        if (!at) hd_fail((hd_where){ 0 }, "no memory for the rows of a pattern; use a shorter length");
        for (int64_t k = 0; k < runs; k++) {
            at[2 * k] = (run_end){ rows->run[first + k].first, 1 };
            at[2 * k + 1] = (run_end){ rows->run[first + k].end, -1 };
        }
        qsort(at, (size_t)(2 * runs), sizeof *at, by_key);
        for (int64_t k = 0, depth = 0; k < 2 * runs; k++) {
            depth += at[k].change;
            if (!depth || at[k + 1].key == at[k].key) continue;
            e.tiles++;
            e.computed += LANES * (at[k + 1].key - at[k].key);
        }
        free(at);
    }
    const int64_t blocks = (cover->queries + LANES - 1) / LANES;      /* the order of queries, three numbers for each block and each tile */
    e.table_bytes = (int64_t)sizeof(int32_t) * (cover->queries + 3 * (blocks + 1) + 3 * e.tiles);
    return e;
}

static void print_effort(hd_text *out, const effort *e, int64_t kept)
{
    hd_text_add(out, "tiles %" PRId64 ", wasted pairs %" PRId64 " (%.1f %% of the computed)", e->tiles, e->computed - kept, e->computed ? 100 * (double)(e->computed - kept) / (double)e->computed : 0);
}

static void print_affine(hd_text *out, const char *name, hd_affine a)
{
    hd_text_add(out, " %s %" PRId64, name, a.base);
    if (a.per_group) hd_text_add(out, "%+" PRId64 "g", a.per_group);
    if (a.per_outer) hd_text_add(out, "%+" PRId64 "h", a.per_outer);
    if (a.table) hd_text_add(out, "+table[h%s]", a.table == 2 ? "+1" : "");
}

static void print_bound(hd_text *out, const char *name, hd_affine a, int64_t mul, int64_t div, int64_t phase)
{
    if (a.base == HD_ALL_KEYS) { hd_text_add(out, " %s all", name); return; }
    print_affine(out, name, a);
    if (!mul) return;
    hd_text_add(out, mul == 1 ? " +" : " +%" PRId64 "*", mul);
    if (div == 1 && !phase) hd_text_add(out, "t");
    else if (!phase) hd_text_add(out, "floor(t/%" PRId64 ")", div);
    else hd_text_add(out, "floor((t+%" PRId64 ")/%" PRId64 ")", phase, div);
}

static void print_family(hd_text *out, const hd_cover *cover, int k, const effort *e)
{
    const hd_family *f = &cover->family[k];
    hd_text_add(out, "  family %d%s: %s: kept pairs %" PRId64 ", groups %" PRId64, k, k ? "" : " (home)", f->what, f->kept_pairs, f->groups);
    if (f->inner != f->groups) hd_text_add(out, " (%" PRId64 " inner)", f->inner);
    hd_text_add(out, ", ");
    print_effort(out, e, f->kept_pairs);
    hd_text_add(out, "; queries");
    print_affine(out, "from", f->q_start);
    print_affine(out, "below", f->q_end);
    hd_text_add(out, " step %" PRId64 "; keys", f->q_step);
    print_affine(out, "from", f->k_start);
    print_affine(out, "below", f->k_end);
    hd_text_add(out, " step %" PRId64, f->k_step);
    if (f->k_run != 1) hd_text_add(out, " in runs of %" PRId64, f->k_run);
    hd_text_add(out, "; interval");
    print_bound(out, "lo", f->lo, f->lo_mul, f->lo_div, f->lo_phase);
    print_bound(out, "hi", f->hi, f->hi_mul, f->hi_div, f->hi_phase);
    hd_text_add(out, "\n");
}

void hd_cover_print(const hd_cover *cover, hd_text *out)
{
    effort *family = HD_NEW_ARRAY(effort, cover->families), all = { 0 };
    if (cover->rows) all = rows_effort(cover);
    for (int k = 0; k < cover->families && !cover->rows; k++) {
        family[k] = family_effort(cover, &cover->family[k]);
        all.tiles += family[k].tiles, all.computed += family[k].computed, all.table_bytes += family[k].table_bytes;
    }
    const int64_t shorter = cover->queries < cover->keys ? cover->queries : cover->keys, causal = shorter * (shorter + 1) / 2 + (cover->queries - shorter) * cover->keys;
    hd_text_add(out, "cover: %" PRId64 " queries, %" PRId64 " keys, kept pairs %" PRId64 " (density %.6f, %.4g %% of causal's %" PRId64 "), empty rows %" PRId64 ", ",
                cover->queries, cover->keys, cover->kept_pairs, (double)cover->kept_pairs / ((double)cover->queries * (double)cover->keys),
                100 * (double)cover->kept_pairs / (double)causal, causal, cover->empty_rows);
    if (cover->rows) hd_text_add(out, "listed by rows in %" PRId64 " runs of keys, ", cover->rows->start[cover->queries]);
    else hd_text_add(out, "families %d, ", cover->families);
    print_effort(out, &all, cover->kept_pairs);
    hd_text_add(out, ", table bytes %" PRId64 "\n", all.table_bytes);
    for (int k = 0; k < cover->families && !cover->rows; k++) print_family(out, cover, k, &family[k]);
}
