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
    HD_PATTERN_DOCUMENTS,   /* i and j in the same document */
    HD_PATTERN_GRID,        /* j in i's neighbourhood on a grid */
    HD_PATTERN_LIST,        /* j in the list of i: edges, masks, block layouts */
    HD_PATTERN_AND, HD_PATTERN_OR, HD_PATTERN_MINUS     /* of a and b */
} hd_pattern_kind;

typedef struct hd_interval { int64_t first, end; } hd_interval;      /* end not included */

/* Keys listed for every query, both in units of `block` positions: those of block row r are run[start[r]] .. run[start[r + 1]],
 * ascending, neither touching nor overlapping. Edges, masks and predicates have block 1. */
typedef struct hd_key_lists {
    int64_t block, rows, columns;          /* columns: a multiple of block bounds the keys */
    const int64_t *start;                  /* [rows + 1] */
    const hd_interval *run;
    const char *what;                      /* "500 edges" */
} hd_key_lists;

/* Positions first .. first + product of sizes, in row-major order on a grid; a pair needs a relation of coordinates x (query)
 * and y (key) on every axis:
 *   HD_AXIS_WINDOW   x - left * dilation <= y <= x + right * dilation, (x - y) mod dilation == 0
 *   HD_AXIS_CLAMPED  NATTEN's: `kernel` coordinates around x, moved inward at the ends so that there are always so many; stride
 *                    neighbours share one neighbourhood; with dilation on every dilation-th coordinate; causal: only y <= x
 *   HD_AXIS_CHUNK    floor((x + offset) / kernel) == floor((y + offset) / kernel)
 *   HD_AXIS_ALL      any */
enum { HD_MAX_AXES = 4 };
typedef enum hd_axis_kind { HD_AXIS_WINDOW, HD_AXIS_CLAMPED, HD_AXIS_CHUNK, HD_AXIS_ALL } hd_axis_kind;
typedef struct hd_axis { hd_axis_kind kind; bool causal; int64_t size, left, right, kernel, stride, dilation, offset; } hd_axis;
typedef struct hd_grid { int axes; int64_t first; hd_axis axis[HD_MAX_AXES]; } hd_grid;

typedef struct hd_pattern {
    hd_pattern_kind kind;
    int64_t left, right;            /* window: keys before and after the query's own; chunk: chunks */
    int64_t stride, chunk;          /* stride: also the period of residues */
    int64_t first, end;             /* residues, keys, queries */
    const struct hd_pattern *a, *b;
    int64_t documents; const int64_t *document;     /* where each begins, and [documents] where the last one ends */
    const hd_grid *grid;
    const hd_key_lists *list;
    hd_where where;
} hd_pattern;

#define HD_MAX_LAG (1 << 20)        /* chunks before or after, in a window of chunks */

bool hd_pattern_keeps(const hd_pattern *, int64_t i, int64_t j);
/* Fails at pattern->where for parameters that make no sense (window without keys, stride < 1, an empty range). */
void hd_pattern_validate(const hd_pattern *);
/* Fails at pattern->where if a term names positions beyond the lengths, or documents or lists that end before them. */
void hd_pattern_check_lengths(const hd_pattern *, int64_t queries, int64_t keys);
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
/* table (documents, whose lengths differ): 1 adds table[floor(g/inner)] of the family, 2 the element after it. */
typedef struct hd_affine { int64_t base, per_group, per_outer; int table; } hd_affine;
typedef struct hd_family {
    int64_t groups, inner;
    hd_affine q_start, q_end, k_start, k_end;
    int64_t q_step, k_step, k_run;
    hd_affine lo, hi;
    int64_t lo_mul, lo_div, lo_phase, hi_mul, hi_div, hi_phase;
    const int64_t *table;            /* [groups / inner + 1], or NULL */
    int64_t kept_pairs;              /* over all groups */
    const char *what;                /* "window of 64 keys", "columns of stride 64": for comments and pictures */
} hd_family;

/* One group with its counts clipped to the lengths. */
typedef struct hd_group { int64_t q_start, q_step, q_count, k_start, k_step, k_run, k_count, lo, hi; } hd_group;

/* The keys of every row, as runs: what a pattern too irregular for families becomes. */
typedef struct hd_key_rows {
    int64_t *start;                  /* [queries + 1]: row i is run[start[i]] .. run[start[i + 1]], ascending, not touching */
    hd_interval *run;
} hd_key_rows;

typedef struct hd_cover {
    const hd_key_rows *rows;             /* NULL; or all keys of all rows, and then family 0 has groups 1 and empty intervals */
    int64_t queries, keys;
    int families; hd_family *family;     /* family 0 is home: its groups list every query row exactly once (possibly with an empty interval) and it normalises, last */
    int64_t kept_pairs, empty_rows;
} hd_cover;

/* Disjoint and exact: each kept pair in exactly one family, or all of them in `rows`, where families would be too many or could
 * not say it. Fails at the pattern's line if the rows take too much memory. */
hd_cover *hd_cover_make(const hd_pattern *, int64_t queries, int64_t keys);
/* The rows of a cover made of families. */
const hd_key_rows *hd_cover_rows(const hd_cover *);
hd_group hd_family_group(const hd_cover *, const hd_family *, int64_t group);
/* Position of key index u of a group. */
int64_t hd_group_key(const hd_group *, int64_t u);
/* Interval [*first, *last) of key indices of query index t of a group; empty: *first >= *last. */
void hd_group_interval(const hd_family *, const hd_group *, int64_t t, int64_t *first, int64_t *last);
/* The transpose: interval [*first, *last) of query indices that keep key index u of a group; empty: *first >= *last. */
void hd_group_column(const hd_family *, const hd_group *, int64_t u, int64_t *first, int64_t *last);
/* Totals, then families: kept pairs beside causal attention's, groups, steps, intervals; and, for kernels of 16 lanes, about how
 * many tiles, pairs computed but not kept, and table bytes: what --dump=patterns shows. */
void hd_cover_print(const hd_cover *, hd_text *);

#endif
