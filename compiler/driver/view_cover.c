/* Rows and areas of a cover. All costs follow queries, groups and cells, never pairs: a cover of a million positions is
 * looked at in a fraction of a second. Only the public description of a group is used, so that new families just work. */
#include "view.h"
#include <stdlib.h>
#include <string.h>

static int64_t query_at(const hd_group *g, int64_t t) { return g->q_start + g->q_step * t; }

/* Smallest t with query_at(t) >= i, and smallest u with key >= j: both ascend. */
static int64_t first_query(const hd_group *g, int64_t i)
{
    if (i <= g->q_start) return 0;
    const int64_t t = (i - g->q_start + g->q_step - 1) / g->q_step;
    return t < g->q_count ? t : g->q_count;
}

static int64_t first_key(const hd_group *g, int64_t from, int64_t to, int64_t j)
{
    while (from < to) {
        const int64_t middle = from + (to - from) / 2;
        if (hd_group_key(g, middle) < j) from = middle + 1;
        else to = middle;
    }
    return from;
}

/* ---- listed rows ---- */

enum { VECTOR = 16 };
const struct hd_share hd_share[HD_SHARES] = {
    { "all queries of a vector keep the key", 2 }, { "half of them or more", 0 }, { "a quarter or more", 4 }, { "less than a quarter", 1 }, { "one query alone", 5 } };

static int share_of(int64_t readers, int64_t queries)
{
    return readers == queries ? 0 : 2 * readers >= queries ? 1 : 4 * readers >= queries ? 2 : readers > 1 ? 3 : 4;
}

typedef struct run_end { int64_t key; int change; } run_end;
static int by_key(const void *a, const void *b)
{
    const run_end *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

/* Calls for the keys of every query of q0 .. q0 + queries - 1, ascending, cut where their share changes. */
typedef void piece_function(void *context, int64_t i, int64_t first, int64_t end, int share);
static void each_piece(const hd_cover *cover, int64_t q0, int64_t queries, piece_function *piece, void *context)
{
    const hd_key_rows *rows = cover->rows;
    for (int64_t top = q0 / VECTOR * VECTOR; top < q0 + queries; top += VECTOR) {
        const int64_t bottom = top + VECTOR < cover->queries ? top + VECTOR : cover->queries, first = rows->start[top], runs = rows->start[bottom] - first;
        run_end *at = malloc(sizeof *at * (size_t)(2 * runs + 1));
        if (!at) hd_fail((hd_where){ 0 }, "no memory for a picture of %lld queries", (long long)cover->queries);
        for (int64_t k = 0; k < runs; k++) {
            at[2 * k] = (run_end){ rows->run[first + k].first, 1 };
            at[2 * k + 1] = (run_end){ rows->run[first + k].end, -1 };
        }
        qsort(at, (size_t)(2 * runs), sizeof *at, by_key);
        for (int64_t k = 0, readers = 0; k < 2 * runs; k++) at[k].change = (int)(readers += at[k].change);      /* from here on to the next end */
        for (int64_t i = top > q0 ? top : q0; i < bottom && i < q0 + queries; i++) {
            int64_t k = 0;
            for (int64_t r = rows->start[i]; r < rows->start[i + 1]; r++) {
                const hd_interval run = rows->run[r];
                while (at[k].key < run.first) k++;
                for (int64_t from = run.first; from < run.end;) {
                    while (at[k + 1].key <= from) k++;      /* the last of the ends that lie here holds the count */
                    const int share = share_of(at[k].change, bottom - top);
                    int64_t to = at[k + 1].key;
                    while (to < run.end) {
                        while (at[k + 1].key <= to) k++;
                        if (share_of(at[k].change, bottom - top) != share) break;
                        to = at[k + 1].key;
                    }
                    piece(context, i, from, to < run.end ? to : run.end, share);
                    from = to;
                }
            }
        }
        free(at);
    }
}

static void add_share(void *context, int64_t i, int64_t first, int64_t end, int share)
{
    (void)i;
    ((int64_t *)context)[share] += end - first;
}

void hd_cover_shares(const hd_cover *cover, int64_t pairs[HD_SHARES])
{
    memset(pairs, 0, sizeof *pairs * HD_SHARES);
    each_piece(cover, 0, cover->queries, add_share, pairs);
}

typedef struct window { int64_t q0, k0, keys; unsigned char *pixel; } window;
static void add_pixels(void *context, int64_t i, int64_t first, int64_t end, int share)
{
    const window *w = context;
    for (int64_t j = first > w->k0 ? first : w->k0; j < end && j < w->k0 + w->keys; j++) w->pixel[(i - w->q0) * w->keys + j - w->k0] = (unsigned char)(1 + hd_share[share].colour);
}

typedef struct cells { const hd_cover *cover; int planes, rows, columns; int64_t *counts; } cells;
static void add_cells(void *context, int64_t i, int64_t first, int64_t end, int share)
{
    const cells *c = context;
    int64_t *row = c->counts + ((int64_t)(hd_share[share].colour % c->planes) * c->rows + i * c->rows / c->cover->queries) * c->columns;
    while (first < end) {
        const int64_t column = first * c->columns / c->cover->keys, next = ((column + 1) * c->cover->keys + c->columns - 1) / c->columns, to = next < end ? next : end;
        row[column] += to - first;
        first = to;
    }
}

/* ---- rows ---- */

bool hd_rows_fit(const hd_cover *cover) { return cover->rows || cover->families * cover->queries <= 100000000; }

hd_rows hd_rows_make(const hd_cover *cover)
{
    hd_rows rows = { cover, HD_NEW_ARRAY(int32_t *, cover->families + 1) };
    if (cover->rows) return rows;            /* they are their own index */
    for (int f = 0; f < cover->families; f++) {
        const hd_family *family = &cover->family[f];
        rows.group[f] = malloc(sizeof(int32_t) * (size_t)(cover->queries + 1));
        if (!rows.group[f]) hd_fail((hd_where){ 0 }, "no memory for an index of %lld queries", (long long)cover->queries);
        memset(rows.group[f], 0xff, sizeof(int32_t) * (size_t)(cover->queries + 1));
        for (int64_t g = 0; g < family->groups; g++) {
            const hd_group group = hd_family_group(cover, family, g);
            for (int64_t t = 0; t < group.q_count; t++) rows.group[f][query_at(&group, t)] = (int32_t)g;
        }
    }
    return rows;
}

void hd_rows_free(hd_rows *rows)
{
    for (int f = 0; f < rows->cover->families; f++) free(rows->group[f]);
    rows->group = NULL;
}

static void add_progression(hd_row *row, int64_t start, int64_t step, int64_t count)
{
    HD_PUSH(row->item, row->items, row->capacity, ((hd_progression){ start, step, count }));
    row->keys += count;
}

/* Runs of one key each, so many apart, are one progression if there are at least three. */
static void get_listed(const hd_key_rows *rows, int64_t i, hd_row *row)
{
    for (int64_t k = rows->start[i], end = rows->start[i + 1], n; k < end; k += n) {
        const hd_interval *run = &rows->run[k];
        n = 1;
        if (run->end - run->first == 1)
            while (k + n < end && run[n].end - run[n].first == 1 && run[n].first - run[n - 1].first == run[1].first - run->first) n++;
        if (n > 2) add_progression(row, run->first, run[1].first - run->first, n);
        else n = 1, add_progression(row, run->first, 1, run->end - run->first);
    }
}

void hd_rows_get(const hd_rows *rows, int f, int64_t i, hd_row *row)
{
    if (rows->cover->rows) {
        get_listed(rows->cover->rows, i, row);
        return;
    }
    const hd_family *family = &rows->cover->family[f];
    if (rows->group[f][i] < 0) return;
    const hd_group group = hd_family_group(rows->cover, family, rows->group[f][i]);
    int64_t u, last;
    hd_group_interval(family, &group, (i - group.q_start) / group.q_step, &u, &last);
    if (u >= last) return;
    const int64_t from = hd_group_key(&group, u);
    if (hd_group_key(&group, last - 1) - from == last - 1 - u) {
        add_progression(row, from, 1, last - u);
        return;
    }
    int64_t start = from, step = 1, count = 1;
    for (u++; u < last; u++) {
        const int64_t key = hd_group_key(&group, u);
        if (count == 1) step = key - start, count = 2;
        else if (key == start + step * count) count++;
        else if (count == 2 && step > 1) add_progression(row, start, 1, 1), start += step, step = key - start;
        else add_progression(row, start, step, count), start = key, step = 1, count = 1;
    }
    if (count == 2 && step > 1) add_progression(row, start, 1, 1), start += step, count = 1, step = 1;
    add_progression(row, start, step, count);
}

static int by_start(const void *a, const void *b)
{
    const hd_progression *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

void hd_rows_all(const hd_rows *rows, int64_t i, hd_row *row)
{
    row->items = 0, row->keys = 0;
    for (int f = 0; f < rows->cover->families; f++) hd_rows_get(rows, f, i, row);
    if (row->items) qsort(row->item, (size_t)row->items, sizeof *row->item, by_start);
}

void hd_cover_pixels(const hd_cover *cover, int64_t q0, int64_t queries, int64_t k0, int64_t keys, unsigned char *pixel)
{
    memset(pixel, 0, (size_t)(queries * keys));
    if (cover->rows) {
        each_piece(cover, q0, queries, add_pixels, &(window){ q0, k0, keys, pixel });
        return;
    }
    for (int f = 0; f < cover->families; f++) {
        const hd_family *family = &cover->family[f];
        for (int64_t g = 0; g < family->groups; g++) {
            const hd_group group = hd_family_group(cover, family, g);
            const int64_t t1 = first_query(&group, q0 + queries);
            for (int64_t t = first_query(&group, q0); t < t1; t++) {
                int64_t u, last;
                hd_group_interval(family, &group, t, &u, &last);
                if (u >= last) continue;
                unsigned char *row = pixel + (query_at(&group, t) - q0) * keys;
                if (k0 > 0) u = first_key(&group, u, last, k0);
                for (int64_t j; u < last && (j = hd_group_key(&group, u)) < k0 + keys; u++) row[j - k0] = (unsigned char)(1 + f % 254);
            }
        }
    }
}

/* One row of cells of one group: whole[c] (as differences) says how many queries keep all of the group's keys in column c,
 * part[c] counts pairs of columns kept in part. */
typedef struct gather { int columns, low, high; int64_t *edge, *whole, *part, *counts; } gather;

static void gathered(gather *a)
{
    int64_t whole = 0;
    for (int c = a->low; c <= a->high; c++) {
        whole += a->whole[c];
        a->counts[c] += a->part[c];
        if (whole) a->counts[c] += whole * (a->edge[c + 1] - a->edge[c]);
        a->whole[c] = a->part[c] = 0;
    }
    a->low = a->columns, a->high = -1;
}

static void group_density(const hd_cover *cover, const hd_family *family, const hd_group *group, int rows, gather *a, int64_t *counts)
{
    const int64_t first = hd_group_key(group, 0) * a->columns / cover->keys, last = hd_group_key(group, group->k_count - 1) * a->columns / cover->keys;
    a->edge[first] = 0, a->edge[last + 1] = group->k_count;
    for (int64_t c = first + 1; c <= last; c++) a->edge[c] = first_key(group, a->edge[c - 1], group->k_count, (c * cover->keys + a->columns - 1) / a->columns);
    int64_t row = -1;
    for (int64_t t = 0; t < group->q_count; t++) {
        int64_t u, end;
        hd_group_interval(family, group, t, &u, &end);
        if (u >= end) continue;
        const int64_t at = query_at(group, t) * rows / cover->queries;
        if (at != row) {
            gathered(a);
            row = at, a->counts = counts + row * a->columns;
        }
        const int c0 = (int)(hd_group_key(group, u) * a->columns / cover->keys), c1 = (int)(hd_group_key(group, end - 1) * a->columns / cover->keys);
        if (c0 == c1) {
            a->part[c0] += end - u;
        } else {
            a->part[c0] += a->edge[c0 + 1] - u;
            a->part[c1] += end - a->edge[c1];
            a->whole[c0 + 1]++, a->whole[c1]--;
        }
        if (c0 < a->low) a->low = c0;
        if (c1 > a->high) a->high = c1;
    }
    gathered(a);
}

void hd_cover_density(const hd_cover *cover, int planes, int rows, int columns, int64_t *counts)
{
    if (cover->rows) {
        each_piece(cover, 0, cover->queries, add_cells, &(cells){ cover, planes, rows, columns, counts });
        return;
    }
    gather a = { columns, columns, -1, HD_NEW_ARRAY(int64_t, columns + 2), HD_NEW_ARRAY(int64_t, columns + 2), HD_NEW_ARRAY(int64_t, columns + 2), NULL };
    for (int f = 0; f < cover->families; f++)
        for (int64_t g = 0; g < cover->family[f].groups; g++) {
            const hd_group group = hd_family_group(cover, &cover->family[f], g);
            if (group.q_count > 0 && group.k_count > 0) group_density(cover, &cover->family[f], &group, rows, &a, counts + (int64_t)(f % planes) * rows * columns);
        }
}
