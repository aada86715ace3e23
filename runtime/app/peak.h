/* What this machine can do at best, measured now: fused multiply-adds and reads from memory. */
#ifndef HD_PEAK_H
#define HD_PEAK_H

#include "app.h"

typedef struct hd_peak {
    const char *isa;                 /* the widest instruction set found */
    float *memory;                   /* several times the last cache */
    size_t memory_bytes;
} hd_peak;

void hd_peak_start(hd_peak *);
void hd_peak_end(hd_peak *);
/* Samples of a millisecond or less, as long as a kernel: on a machine with other work, the medians of samples and of
 * kernels then meet the same interruptions. Take many.
 * fma: f32 GFLOP/s (a fused multiply-add counts 2) of all threads together, on registers only.
 * read: GB/s read by all threads together from memory beyond the caches; sample 0, 1, 2, ... read different parts. */
double hd_peak_fma(const hd_peak *, const hd_threads *);
double hd_peak_read(const hd_peak *, const hd_threads *, int sample);

#endif
