/* What a generated file of variants hands to measure.c: kernels that do the same, where their operands lie, what is right. */
#ifndef HD_MEASURE_H
#define HD_MEASURE_H

#include <stdbool.h>
#include "hd_core.h"

/* A piece of the block that the variants work in. */
typedef struct hd_range {
    size_t offset, bytes;      /* within the block */
    bool writes;               /* the variants write it: compared */
    bool integers;             /* zeros; else random numbers of [-1, 1) */
    bool warm;                 /* the step before has just made it */
} hd_range;

typedef struct hd_variant {
    void (*prepare)(const hd_run *, unsigned char *block);     /* once, not timed; or NULL */
    void (*call)(const hd_run *, unsigned char *block);
} hd_variant;

/* One block holds everything, in the order and at the offsets that programs use. Variant 0 is the analytical choice. */
typedef struct hd_measured {
    size_t block_bytes, local_offset, local_bytes;             /* local: scratch of each thread, so many bytes apart */
    int threads;                                               /* blocks of local there are */
    int ranges; const hd_range *range;
    int variants; const hd_variant *variant;
    void (*setup)(const hd_run *, unsigned char *block);       /* makes operands that are no random numbers; or NULL */
    void (*reference)(unsigned char *block);                   /* writes some of what variants write, from sums in double precision; or NULL */
    double tolerance;                                          /* worst error as a share of the largest value */
} hd_measured;

extern const hd_measured hd_measured_problem;

#endif
