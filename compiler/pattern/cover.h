/* What pattern.c and cover.c share, and nobody else needs: sets of differences.
 *
 * Every primitive is translation invariant: whether it keeps (i, j) depends on d = i - j alone. So an expression is a set of
 * differences, and a bit per difference of a rectangle (queries + keys - 1 bits) says everything about it. */
#ifndef HD_COVER_H
#define HD_COVER_H

#include "pattern.h"

typedef struct hd_differences {
    int64_t first, count;          /* bit x stands for difference first + x, x < count */
    uint64_t *bits;                /* malloc'd: sets are short-lived, the arena never frees */
} hd_differences;

/* The differences first .. first + count - 1 that the pattern keeps. Free with hd_differences_free. */
hd_differences hd_differences_make(const hd_pattern *, int64_t first, int64_t count);
void hd_differences_free(hd_differences *);
/* Smallest index >= x that is in the set; count if there is none. */
int64_t hd_differences_next(const hd_differences *, int64_t x);

static inline bool hd_differences_has(const hd_differences *set, int64_t x)
{
    return x >= 0 && x < set->count && (set->bits[x >> 6] >> (x & 63) & 1);
}

/* Pairs (i, j) with i - j = d, i < queries, j < keys. */
static inline int64_t hd_difference_pairs(int64_t d, int64_t queries, int64_t keys)
{
    int64_t end = queries < keys + d ? queries : keys + d, start = d > 0 ? d : 0;
    return end > start ? end - start : 0;
}

/* hd_cover_make, but NULL for a pattern too irregular to cover. */
hd_cover *hd_cover_try(const hd_pattern *, int64_t queries, int64_t keys);

#endif
