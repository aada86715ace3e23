/* Rows of a pattern as runs of keys: for documents, grids and lists, which know nothing else, and for whole expressions that no
 * few families of tiles cover. Time follows the runs that terms have in a row, not the keys. */
#include "cover.h"

#include <assert.h>
#include <stdlib.h>

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static void push(hd_runs *runs, hd_interval run)
{
    if (runs->count == runs->capacity) {
        runs->capacity = runs->capacity ? 2 * runs->capacity : 16;
        runs->item = realloc(runs->item, sizeof *runs->item * (size_t)runs->capacity);
        if (!runs->item) hd_fail((hd_where){ 0 }, "no memory for the rows of a pattern; use a shorter length");
    }
    runs->item[runs->count++] = run;
}

/* Appends [first, end) cut to [low, high); joins what touches. */
static void add(hd_runs *runs, int64_t first, int64_t end, int64_t low, int64_t high)
{
    first = max64(first, low);
    end = min64(end, high);
    if (first >= end) return;
    if (runs->count && runs->item[runs->count - 1].end >= first) runs->item[runs->count - 1].end = max64(runs->item[runs->count - 1].end, end);
    else push(runs, (hd_interval){ first, end });
}

/* Documents. */

/* The document of a position; documents if it lies in none. */
static int64_t document_of(const hd_pattern *p, int64_t at)
{
    if (at >= p->document[p->documents]) return p->documents;
    int64_t low = 0, high = p->documents;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (p->document[middle] <= at) low = middle; else high = middle;
    }
    return low;
}

/* Grids. */

/* The coordinates that coordinate x reads, by hd_axis. NATTEN: coordinates x = g + dilation * t with the same g are an axis of
 * their own, of `length`; stride neighbours have one leader, whose neighbourhood is moved inward at the ends.
 * Source: the definition of generalized neighborhood attention (Hassani et al. 2025, arXiv 2504.16922, section 3). */
static hd_progression axis_keys(const hd_axis *a, int64_t x)
{
    switch (a->kind) {
    case HD_AXIS_ALL: return (hd_progression){ 0, 1, a->size };
    case HD_AXIS_CHUNK: {
        int64_t first = max64(0, (x + a->offset) / a->kernel * a->kernel - a->offset);
        int64_t end = min64(a->size, ((x + a->offset) / a->kernel + 1) * a->kernel - a->offset);
        return (hd_progression){ first, 1, end - first };
    }
    case HD_AXIS_WINDOW: {
        int64_t before = min64(a->left, x / a->dilation), after = min64(a->right, (a->size - 1 - x) / a->dilation);
        return (hd_progression){ x - before * a->dilation, a->dilation, before + 1 + after };
    }
    case HD_AXIS_CLAMPED: break;
    }
    int64_t g = x % a->dilation, t = x / a->dilation, length = a->size / a->dilation + (g < a->size % a->dilation);
    int64_t left = a->kernel / 2, right = a->kernel / 2 + a->kernel % 2 - 1, group = t / a->stride * a->stride, start, count;
    if (a->causal) {
        int64_t leader = min64(group + a->stride - 1, length - 1);
        start = max64(leader - left - right, 0);
        count = t - start + 1;
    } else {
        int64_t leader = min64(group + a->stride / 2, length - 1);
        start = max64(leader - left, 0);
        start = max64(0, start - max64(0, start + a->kernel - length));
        count = min64(a->kernel, length - start);
    }
    return (hd_progression){ g + start * a->dilation, a->dilation, count };
}

static int64_t cells(const hd_grid *g)
{
    int64_t all = 1;
    for (int k = 0; k < g->axes; k++) all *= g->axis[k].size;
    return all;
}

/* Coordinates of position i on the grid; false if it lies outside. */
static bool coordinates(const hd_grid *g, int64_t i, int64_t *x)
{
    i -= g->first;
    if (i < 0 || i >= cells(g)) return false;
    for (int k = g->axes - 1; k >= 0; k--) {
        x[k] = i % g->axis[k].size;
        i /= g->axis[k].size;
    }
    return true;
}

static void grid_axis(const hd_grid *g, const hd_progression *of, int axis, int64_t at, int64_t low, int64_t high, hd_runs *runs)
{
    int64_t inner = 1;
    for (int k = axis + 1; k < g->axes; k++) inner *= g->axis[k].size;
    for (int64_t t = 0; t < of[axis].count; t++) {
        int64_t y = at + (of[axis].start + t * of[axis].step) * inner;
        if (y >= high || y + inner <= low) continue;
        if (axis + 1 < g->axes) grid_axis(g, of, axis + 1, y, low, high, runs);
        else add(runs, y, y + 1, low, high);
    }
}

static void grid_runs(const hd_grid *g, int64_t i, int64_t low, int64_t high, hd_runs *runs)
{
    int64_t x[HD_MAX_AXES];
    hd_progression of[HD_MAX_AXES];
    if (!coordinates(g, i, x)) return;
    for (int k = 0; k < g->axes; k++) of[k] = axis_keys(&g->axis[k], x[k]);
    grid_axis(g, of, 0, g->first, low, high, runs);
}

static bool grid_keeps(const hd_grid *g, int64_t i, int64_t j)
{
    int64_t x[HD_MAX_AXES], y[HD_MAX_AXES];
    if (!coordinates(g, i, x) || !coordinates(g, j, y)) return false;
    for (int k = 0; k < g->axes; k++) {
        hd_progression of = axis_keys(&g->axis[k], x[k]);
        if (y[k] < of.start || y[k] >= of.start + of.step * of.count || (y[k] - of.start) % of.step) return false;
    }
    return true;
}

/* Lists. */

static void list_runs(const hd_key_lists *l, int64_t i, int64_t low, int64_t high, hd_runs *runs)
{
    int64_t row = i / l->block;
    if (row >= l->rows) return;
    for (int64_t k = l->start[row]; k < l->start[row + 1]; k++) add(runs, l->run[k].first * l->block, l->run[k].end * l->block, low, high);
}

static bool list_keeps(const hd_key_lists *l, int64_t i, int64_t j)
{
    int64_t row = i / l->block, column = j / l->block;
    if (row >= l->rows) return false;
    int64_t first = l->start[row], last = l->start[row + 1];
    while (first < last) {
        int64_t middle = (first + last) / 2;
        if (l->run[middle].end <= column) first = middle + 1; else last = middle;
    }
    return first < l->start[row + 1] && l->run[first].first <= column;
}

bool hd_row_keeps(const hd_pattern *p, int64_t i, int64_t j)
{
    if (p->kind == HD_PATTERN_DOCUMENTS) return document_of(p, i) < p->documents && document_of(p, i) == document_of(p, j);
    return p->kind == HD_PATTERN_GRID ? grid_keeps(p->grid, i, j) : list_keeps(p->list, i, j);
}

/* Rows. */

/* Appends what both, either or only the first of two lists hold: a sweep over their ends. */
static void combine(hd_pattern_kind kind, const hd_runs *a, const hd_runs *b, hd_runs *out)
{
    int64_t x = 0, y = 0, at = INT64_MIN;
    while (x < a->count || y < b->count) {
        hd_interval p = x < a->count ? a->item[x] : (hd_interval){ INT64_MAX, INT64_MAX }, q = y < b->count ? b->item[y] : (hd_interval){ INT64_MAX, INT64_MAX };
        bool in_a = p.first <= at, in_b = q.first <= at;
        int64_t next = min64(in_a ? p.end : p.first, in_b ? q.end : q.first);
        if (kind == HD_PATTERN_AND ? in_a && in_b : kind == HD_PATTERN_OR ? in_a || in_b : in_a && !in_b) add(out, at, next, at, next);
        at = next;
        if (in_a && p.end == at) x++;
        if (in_b && q.end == at) y++;
    }
}

void hd_row_runs(const hd_pattern *p, int64_t i, int64_t low, int64_t high, hd_runs *out)
{
    switch (p->kind) {
    case HD_PATTERN_FULL:   add(out, low, high, low, high); return;
    case HD_PATTERN_CAUSAL: add(out, low, i + 1, low, high); return;
    case HD_PATTERN_WINDOW: add(out, i - p->left, i + p->right + 1, low, high); return;
    case HD_PATTERN_STRIDE: {
        int64_t j = low + ((i - low) % p->stride + p->stride) % p->stride;
        for (; j < high; j += p->stride) add(out, j, j + 1, low, high);
        return;
    }
    case HD_PATTERN_CHUNK:  add(out, (i / p->chunk - p->left) * p->chunk, (i / p->chunk + p->right + 1) * p->chunk, low, high); return;
    case HD_PATTERN_RESIDUES:
        for (int64_t j = low / p->stride * p->stride; j < high; j += p->stride) add(out, j + p->first, j + p->end, low, high);
        return;
    case HD_PATTERN_KEYS:   add(out, p->first, p->end, low, high); return;
    case HD_PATTERN_QUERIES: if (i >= p->first && i < p->end) add(out, low, high, low, high); return;
    case HD_PATTERN_DOCUMENTS: {
        int64_t d = document_of(p, i);
        if (d < p->documents) add(out, p->document[d], p->document[d + 1], low, high);
        return;
    }
    case HD_PATTERN_GRID:   grid_runs(p->grid, i, low, high, out); return;
    case HD_PATTERN_LIST:   list_runs(p->list, i, low, high, out); return;
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS: break;
    }
    /* What a does not reach matters for | alone: b need not be written out there. */
    hd_runs a = { 0, 0, NULL }, b = { 0, 0, NULL };
    hd_row_runs(p->a, i, low, high, &a);
    if (p->kind == HD_PATTERN_OR) hd_row_runs(p->b, i, low, high, &b);
    else if (a.count) hd_row_runs(p->b, i, a.item[0].first, a.item[a.count - 1].end, &b);
    combine(p->kind, &a, &b, out);
    free(a.item);
    free(b.item);
}

hd_key_rows *hd_key_rows_make(const hd_pattern *p, int64_t queries, int64_t keys)
{
    hd_runs runs = { 0, 0, NULL }, row = { 0, 0, NULL };
    int64_t *start = HD_NEW_ARRAY(int64_t, queries + 1);
    for (int64_t i = 0; i < queries && runs.count <= HD_MAX_RUNS; i++) {
        row.count = 0;
        hd_row_runs(p, i, 0, keys, &row);
        for (int64_t k = 0; k < row.count; k++) push(&runs, row.item[k]);
        start[i + 1] = runs.count;
    }
    free(row.item);
    hd_key_rows *rows = NULL;
    if (runs.count <= HD_MAX_RUNS) {
        rows = HD_NEW(hd_key_rows);
        rows->start = start;
        rows->run = HD_NEW_ARRAY(hd_interval, runs.count + 1);
        for (int64_t k = 0; k < runs.count; k++) rows->run[k] = runs.item[k];
    }
    free(runs.item);
    return rows;
}

static int by_first(const void *a, const void *b)
{
    const hd_interval *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Calls for every run of keys of every query of a family: counts it, or (run not NULL) stores it and moves the row's end. */
static void family_runs(const hd_cover *cover, const hd_family *f, int64_t *end, hd_interval *run)
{
    for (int64_t g = 0; g < f->groups; g++) {
        hd_group group = hd_family_group(cover, f, g);
        for (int64_t t = 0, u, last; t < group.q_count; t++) {
            int64_t *at = &end[group.q_start + group.q_step * t];
            hd_group_interval(f, &group, t, &u, &last);
            while (u < last) {
                int64_t n = group.k_step == group.k_run ? last - u : min64(last - u, group.k_run - u % group.k_run), first = hd_group_key(&group, u);
                if (run) run[*at] = (hd_interval){ first, first + n };
                ++*at;
                u += n;
            }
        }
    }
}

const hd_key_rows *hd_cover_rows(const hd_cover *cover)
{
    if (cover->rows) return cover->rows;
    hd_key_rows *rows = HD_NEW(hd_key_rows);
    int64_t *count = HD_NEW_ARRAY(int64_t, cover->queries + 1), total = 0;
    for (int k = 0; k < cover->families; k++) family_runs(cover, &cover->family[k], count, NULL);
    rows->start = HD_NEW_ARRAY(int64_t, cover->queries + 1);
    for (int64_t i = 0; i < cover->queries; i++) {
        rows->start[i] = total;
        total += count[i];
        count[i] = rows->start[i];
    }
    rows->start[cover->queries] = total;
    rows->run = HD_NEW_ARRAY(hd_interval, total + 1);
    for (int k = 0; k < cover->families; k++) family_runs(cover, &cover->family[k], count, rows->run);
    int64_t to = 0;
    for (int64_t i = 0; i < cover->queries; i++) {      /* join what touches, in place */
        int64_t from = rows->start[i], end = rows->start[i + 1];
        qsort(&rows->run[from], (size_t)(end - from), sizeof *rows->run, by_first);
        rows->start[i] = to;
        for (int64_t k = from; k < end; k++)
            if (to > rows->start[i] && rows->run[to - 1].end == rows->run[k].first) rows->run[to - 1].end = rows->run[k].end;
            else rows->run[to++] = rows->run[k];
    }
    rows->start[cover->queries] = to;
    return rows;
}
