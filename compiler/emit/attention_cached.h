/* Kernels of attention with a key/value cache (pattern/cache.h): shapes are those of an hd_attention whose batch is streams and whose
 * queries and keys are the rows of a chunk, one for each stream or any number for one stream; it needs no covers.
 *
 *   keys    which kept keys each row reads, for all attentions whose caches have the same keys
 *           const hd_run *run, int used, const int32_t *positions, int32_t *keys
 *   store   chunks of more than one row: keys and values go into the slots of those kept, or (ring) into the rings, where nobody reads
 *           any more what they overwrite once the chunk is attended
 *           const hd_run *run, int stream, int used, const float *k, const float *v, const int32_t *keys, float *cache
 *   attend  const hd_run *run, int stream, int used, const float *q, const float *k, const float *v, const int32_t *keys,
 *           const int32_t *positions, [sinks, bias,] float *cache, float *out; with chunks of one row it stores the row first
 *
 * cache: of stream 0; stream: the one that a chunk belongs to. used: rows of a chunk that count; others are neither stored nor computed.
 * positions[s] < 0: stream s rests, and nothing of it is touched. A chunk is: store kept, attend, store ring. */
#ifndef HD_ATTENTION_CACHED_H
#define HD_ATTENTION_CACHED_H

#include "../pattern/cache.h"
#include "attention.h"
#include "kernels.h"

hd_kernel *hd_cached_keys(hd_kernels *, const hd_cache *, int64_t streams, int64_t chunk, hd_where);
/* NULL: no key is kept (or, with ring, in a ring). */
hd_kernel *hd_cached_store(hd_kernels *, const hd_attention *, const hd_cache *, bool ring, hd_where);
hd_kernel *hd_cached_attend(hd_kernels *, const hd_attention *, const hd_cache *, hd_where);

#endif
