/* The keys that a query of a pattern keeps, from the tables of its cover (hd_pattern_info). */
#ifndef HD_KEPT_H
#define HD_KEPT_H

#include "app.h"

/* Keys start + step floor(u / run) + u mod run for first <= u < end. */
typedef struct hd_kept_run { int64_t start, step, run, first, end; } hd_kept_run;

typedef struct hd_kept {
    const hd_pattern_info *pattern;
    int64_t rows;                    /* queries from 0 that are looked up */
    int64_t *group;                  /* [families][rows]: which group of a family has the query, -1: none */
    const unsigned char **row;       /* [rows]: where a listed row begins in pattern->rows */
} hd_kept;

bool hd_kept_known(const hd_pattern_info *);                      /* false: the program carries no table of it */
hd_kept hd_kept_new(const hd_pattern_info *, int64_t rows);
void hd_kept_free(hd_kept *);
int64_t hd_kept_most_runs(const hd_kept *);
int hd_kept_runs(const hd_kept *, int64_t query, hd_kept_run *);  /* by their first keys; they share no key */
int64_t hd_kept_keys(const hd_kept *, int64_t query, hd_kept_run *room, int32_t *keys);   /* ascending; room and keys hold the most there can be */

#endif
