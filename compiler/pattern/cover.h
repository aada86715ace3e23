/* What pattern.c and cover.c share, and nobody else needs: regions and sets of differences.
 *
 * Full, causal, window and stride depend on d = i - j alone; chunk, residues, keys and queries do not, but they are constant
 * on regions of the plane that are easy to name. On one region an expression is therefore a set of differences, and one bit
 * per difference (queries + keys - 1 bits) says everything about it. */
#ifndef HD_COVER_H
#define HD_COVER_H

#include "pattern.h"

/* The pairs (i, j) with q0 <= i < q1, k0 <= j < k1, r0 <= j mod period < r1 (all j: 0, 1, 1) and a lag from lag0 to below lag1.
 * The lag of a pair is by how many chunks the query lies after the key: floor(i / chunk) - floor(j / chunk). Lags without end:
 * -HD_ALL_KEYS, HD_ALL_KEYS; without chunks, chunk 0, both.
 * document0 .. document1: 0 .. 1 pairs of one document, none of which is longer than `longest`; 1 .. 2 of different ones; 0 .. 2 all. */
typedef struct hd_region { int64_t q0, q1, k0, k1, period, r0, r1, chunk, lag0, lag1, document0, document1, longest; } hd_region;

/* Differences that pairs of such lags and documents can have: *low to *high, both included. */
static inline void hd_region_reach(const hd_region *r, int64_t *low, int64_t *high)
{
    *low = r->lag0 <= -HD_ALL_KEYS ? -HD_ALL_KEYS : r->lag0 * r->chunk - (r->chunk - 1);
    *high = r->lag1 >= HD_ALL_KEYS ? HD_ALL_KEYS : r->lag1 * r->chunk - 1;
    if (r->document1 != 1) return;
    if (*low < 1 - r->longest) *low = 1 - r->longest;
    if (*high > r->longest - 1) *high = r->longest - 1;
}

typedef struct hd_differences {
    int64_t first, count;          /* bit x stands for difference first + x, x < count */
    uint64_t *bits;                /* malloc'd: sets are short-lived, the arena never frees */
} hd_differences;

/* The differences first .. first + count - 1 that the pattern keeps on a region where its other terms are constant (NULL: it
 * has none). Free with hd_differences_free. */
hd_differences hd_differences_make(const hd_pattern *, const hd_region *, int64_t first, int64_t count);
/* No differences yet; fails at `where` without memory. */
hd_differences hd_differences_new(int64_t first, int64_t count, hd_where where);
void hd_differences_free(hd_differences *);
/* Smallest index >= x that is in the set; count if there is none. */
int64_t hd_differences_next(const hd_differences *, int64_t x);

static inline bool hd_differences_has(const hd_differences *set, int64_t x)
{
    return x >= 0 && x < set->count && (set->bits[x >> 6] >> (x & 63) & 1);
}

/* True if the pattern depends on i - j alone. */
bool hd_pattern_invariant(const hd_pattern *);

/* The pairs of a pattern as disjoint regions with their differences. False if it takes too many. Free with hd_regions_free. */
enum { HD_MAX_REGIONS = 512 };
typedef struct hd_kept { hd_region r; hd_differences d; } hd_kept;
typedef struct hd_regions { int count; hd_kept item[HD_MAX_REGIONS]; } hd_regions;
bool hd_regions_make(hd_regions *, const hd_pattern *, int64_t queries, int64_t keys);
void hd_regions_free(hd_regions *);

static inline int64_t hd_gcd(int64_t a, int64_t b) { return b ? hd_gcd(b, a % b) : a; }
static inline int64_t hd_lcm(int64_t a, int64_t b) { return a / hd_gcd(a, b) * b; }

/* Pairs (i, j) with i - j = d, i < queries, j < keys. */
static inline int64_t hd_difference_pairs(int64_t d, int64_t queries, int64_t keys)
{
    int64_t end = queries < keys + d ? queries : keys + d, start = d > 0 ? d : 0;
    return end > start ? end - start : 0;
}

/* Runs of keys, ascending, neither touching nor overlapping; malloc'd, free(item). */
typedef struct hd_runs { int64_t count, capacity; hd_interval *item; } hd_runs;
/* rows.c: the keys in [low, high) of query i, appended; items before them must end below low. For operators, too. */
void hd_row_runs(const hd_pattern *, int64_t i, int64_t low, int64_t high, hd_runs *);
/* Terms that are no regions: grids and lists. */
static inline bool hd_pattern_irregular(const hd_pattern *p)
{
    if (p->kind >= HD_PATTERN_AND) return hd_pattern_irregular(p->a) || hd_pattern_irregular(p->b);
    return p->kind >= HD_PATTERN_GRID;
}
/* Whether a document, grid or list term keeps the pair. */
bool hd_row_keeps(const hd_pattern *, int64_t i, int64_t j);
/* All rows; NULL if they hold more than HD_MAX_RUNS runs. */
enum { HD_MAX_RUNS = 1 << 23 };
hd_key_rows *hd_key_rows_make(const hd_pattern *, int64_t queries, int64_t keys);

/* hd_cover_make, but NULL for a pattern that families do not cover. */
hd_cover *hd_cover_try(const hd_pattern *, int64_t queries, int64_t keys);

#endif
