/* What this machine can do at best, measured now: fused multiply-adds, and bytes read and copied, by where they lie. */
#ifndef HD_PEAK_H
#define HD_PEAK_H

#include <stdbool.h>
#include <stddef.h>

#include "../core/hd_core.h"
#include "hd_traffic.h"

/* Where bytes lie. */
enum { HD_L2, HD_L3, HD_DRAM, HD_LEVELS };
extern const char *const hd_level_names[HD_LEVELS];

typedef struct hd_peak {
    const char *isa;                 /* the widest instruction set found */
    int lanes;                       /* floats of its vectors */
    int threads;
    size_t cache_bytes[HD_DRAM];     /* L2 of a core; L3, which cores share */
    float *memory;                   /* several times the last cache, on the same kind of pages as a model's */
    size_t memory_bytes;
} hd_peak;

/* All threads together; 0: not measured. */
typedef struct hd_speeds {
    double fma;                      /* f32 GFLOP/s on registers only; a fused multiply-add counts 2 */
    double read[HD_LEVELS];          /* GB/s */
    double copy[HD_LEVELS];          /* GB/s, bytes read plus bytes written */
    double copy_past;                /* the same from and to memory, with stores that pass the caches */
    double call;                     /* seconds of a call of hd_threads.run that does nothing */
} hd_speeds;

/* lanes: floats of the widest vectors to use, 0: any that this machine has. False: no memory for it. */
bool hd_peak_start(hd_peak *, int threads, int lanes);
void hd_peak_end(hd_peak *);
/* One sample of all speeds (not everything: of fma and what is read from memory), each of a millisecond or less, as long as a kernel:
 * on a machine with other work, the medians of samples and of kernels then meet the same interruptions. Take many; sample 0, 1,
 * 2, ... go through different memory. threads->count must be that of hd_peak_start. */
double hd_peak_fma(const hd_peak *, const hd_threads *);               /* one sample of that speed alone */
hd_speeds hd_peak_sample(const hd_peak *, const hd_threads *, int sample, bool everything);
/* The speeds that a share `quantile` of the samples falls short of in time: 0.5 their medians, less: of the better ones. */
hd_speeds hd_peak_quantile(const hd_speeds *samples, int count, double quantile);
double hd_quantile(double *values, int count, double quantile);      /* sorts them; 0 of none */

/* Seconds in which traffic can be moved. *where: the level that takes most of them. What is nearer than `overstated` times a cache's size is found
 * there: 1, if a distance is what a cache must hold, 2 for the least time, as it may be half of that. */
double hd_peak_moving(const hd_peak *, const hd_speeds *, const hd_traffic *, double overstated, int *where);

#endif
