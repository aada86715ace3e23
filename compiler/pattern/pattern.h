/* Patterns: which (query, key) pairs attention keeps, and their exact cover by tiles.
 *
 * A pattern is a symbolic value: primitives on positions joined by &, | and -. It has no length of its own; a cover is made
 * for given numbers of queries and keys. Nothing here ever holds an object proportional to queries * keys. */
#ifndef HD_PATTERN_H
#define HD_PATTERN_H

#include "../base/base.h"

typedef enum hd_pattern_kind {
    HD_PATTERN_FULL,        /* every pair */
    HD_PATTERN_CAUSAL,      /* j <= i */
    HD_PATTERN_WINDOW,      /* i - left <= j <= i + right */
    HD_PATTERN_STRIDE,      /* (i - j) mod stride == 0 */
    HD_PATTERN_CHUNK,       /* -right <= floor(i / chunk) - floor(j / chunk) <= left: the own chunk is left = right = 0, the one before 1, -1 */
    HD_PATTERN_RESIDUES,    /* first <= j mod stride < end */
    HD_PATTERN_KEYS,        /* first <= j < end: global keys; a prefix is first = 0 */
    HD_PATTERN_QUERIES,     /* first <= i < end: global queries */
    HD_PATTERN_AND, HD_PATTERN_OR, HD_PATTERN_MINUS     /* of a and b */
} hd_pattern_kind;

typedef struct hd_pattern {
    hd_pattern_kind kind;
    int64_t left, right;            /* window: keys before and after the query's own; chunk: chunks */
    int64_t stride, chunk;          /* stride: also the period of residues */
    int64_t first, end;             /* residues, keys, queries */
    const struct hd_pattern *a, *b;
    hd_where where;
} hd_pattern;

#define HD_MAX_LAG (1 << 20)        /* chunks before or after, in a window of chunks */

bool hd_pattern_keeps(const hd_pattern *, int64_t i, int64_t j);
/* Fails at pattern->where for parameters that make no sense (window without keys, stride < 1, an empty range). */
void hd_pattern_validate(const hd_pattern *);
/* Keys of row i below `keys`, ascending, as progressions (start, step, count). Returns their number; list in the arena. */
typedef struct hd_progression { int64_t start, step, count; } hd_progression;
int hd_pattern_row(const hd_pattern *, int64_t i, int64_t keys, hd_progression **list);
int64_t hd_pattern_kept_pairs(const hd_pattern *, int64_t queries, int64_t keys);
int64_t hd_pattern_empty_rows(const hd_pattern *, int64_t queries, int64_t keys);
bool hd_pattern_causal(const hd_pattern *, int64_t queries, int64_t keys);   /* no kept pair has j > i */
char *hd_pattern_text(const hd_pattern *);                       /* "causal & (window of 64 keys | stride 64)" */
bool hd_pattern_equal(const hd_pattern *, const hd_pattern *);

/* The cover. A family is a loop over `groups`; group g pairs some queries with some keys:
 *      query t at position q_start(g) + q_step*t,                               t >= 0, position < min(q_end(g), queries)
 *      key   u at position k_start(g) + k_step*floor(u/k_run) + u mod k_run,    u >= 0, position < min(k_end(g), keys)
 * (k_run is 1 for a plain progression; runs of 32 keys 128 apart are k_run 32, k_step 128), and query t keeps the keys u of one interval
 *      max(0, lo(g) + lo_mul*floor((t + lo_phase)/lo_div)) <= u < min(key count, hi(g) + hi_mul*floor((t + hi_phase)/hi_div))
 * A full tile has lo 0 and hi HD_ALL_KEYS; a diagonal hi_mul = hi_div = 1, hi_phase 0; a staircase of chunks hi_div = chunk.
 * value(g) = base + per_group * (g mod inner) + per_outer * floor(g/inner); inner == groups unless groups form a grid.
 * Starts are never negative, divisors >= 1, muls and phases >= 0: intervals never shrink or move backwards as t grows, so that
 * a tile of neighbouring queries needs the keys from the first row's lo to the last row's hi.
 * Two groups of one family share neither a query row nor a key: groups may run in any order or at once, in the transposed
 * direction (dK, dV) too. What covers of full, causal, window and stride use: k_run 1, divs 1, phases 0, inner == groups,
 * lo_mul and hi_mul 0 or 1 (0: that side is never cut, lo is 0 or hi is HD_ALL_KEYS). */
#define HD_ALL_KEYS (INT64_MAX / 4)
typedef struct hd_affine { int64_t base, per_group, per_outer; } hd_affine;
typedef struct hd_family {
    int64_t groups, inner;
    hd_affine q_start, q_end, k_start, k_end;
    int64_t q_step, k_step, k_run;
    hd_affine lo, hi;
    int64_t lo_mul, lo_div, lo_phase, hi_mul, hi_div, hi_phase;
    int64_t kept_pairs;              /* over all groups */
    const char *what;                /* "window of 64 keys", "columns of stride 64": for comments and pictures */
} hd_family;

/* One group with its counts clipped to the lengths. */
typedef struct hd_group { int64_t q_start, q_step, q_count, k_start, k_step, k_run, k_count, lo, hi; } hd_group;

typedef struct hd_cover {
    int64_t queries, keys;
    int families; hd_family *family;     /* family 0 is home: its groups list every query row exactly once (possibly with an empty interval) and it normalises, last */
    int64_t kept_pairs, empty_rows;
} hd_cover;

/* Disjoint and exact: each kept pair in exactly one family. Fails at the pattern's line if it is too irregular. */
hd_cover *hd_cover_make(const hd_pattern *, int64_t queries, int64_t keys);
hd_group hd_family_group(const hd_cover *, const hd_family *, int64_t group);
/* Position of key index u of a group. */
int64_t hd_group_key(const hd_group *, int64_t u);
/* Interval [*first, *last) of key indices of query index t of a group; empty: *first >= *last. */
void hd_group_interval(const hd_family *, const hd_group *, int64_t t, int64_t *first, int64_t *last);
/* The transpose: interval [*first, *last) of query indices that keep key index u of a group; empty: *first >= *last. */
void hd_group_column(const hd_family *, const hd_group *, int64_t u, int64_t *first, int64_t *last);
/* Families, groups, steps, intervals, kept pairs, table bytes: what --dump=patterns shows. */
void hd_cover_print(const hd_cover *, hd_text *);

#endif
