/* Attention kernels for neighbourhoods on grids and narrow windows: vectors of queries against vectors of keys, by difference.
 *
 * For covers whose pairs, seen from blocks of neighbouring queries, are few differences i - j that many blocks share. */
#ifndef HD_ATTENTION_STENCIL_H
#define HD_ATTENTION_STENCIL_H

#include "attention.h"

/* Estimated cycles of one head, summed over the covers, on the scale of the table's cost in attention_rows.c: that of the forward
 * kernel. Those of the backward kernel are divided by 2.5, as much more as it computes. Negative: these kernels cannot do it. */
double hd_attention_stencil_cost(const hd_attention *, const hd_target *, bool backward);
/* The plan; fails where the cost is negative. */
hd_attention_plan hd_attention_stencil(const hd_attention *, const hd_target *, bool backward);

#endif
