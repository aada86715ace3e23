/* Decoding with a cache: entries derived from a causal language model's forward pass (decode.c). */
#ifndef HD_DECODE_H
#define HD_DECODE_H

#include "../graph/graph.h"

struct hd_cache;

typedef struct hd_decoding {
    const hd_entry *prefill, *step;        /* tokens i32 [1, chunk] or [streams, 1], first i32 [streams] -> logits of the last row in use */
    int64_t streams, chunk;
    int64_t positions;                     /* the most that a stream may have; 0: no limit */
    bool rewinds;                          /* to any earlier position; else to 0, by one, or anywhere while a stream has no more than `safe` */
    int64_t safe;
    int64_t header_bytes, stream_bytes;    /* of the cache: what stands before the streams, and each of them */
    int64_t cache_bytes, dense_bytes;      /* of all; dense: if every layer kept every key of `length` positions */
    uint64_t identity;                     /* of the layout and of what is computed: a cache that another model made has another */
    int caches; struct hd_cache **cache;   /* one for each attention, in graph order */
} hd_decoding;

/* Adds entries prefill and step to the graph of a causal language model, and sets graph->decoding; where that is not possible, no_decoding says
 * why, with the spec's line. */
void hd_add_decoding(hd_graph *);

#endif
