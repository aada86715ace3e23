/* The key/value cache of one attention: which keys have a slot, and until when.
 *
 * A pattern says which query reads a key last. Keys whose last reader is far away, or that are read for ever, are kept: each has a
 * slot of its own, by its rank among them. All others pass through a ring: key j lies in slot j mod ring of it and is overwritten
 * by key j + ring, which is never computed before the last reader of j. The cut between the two is where the slots are fewest.
 *
 *   full, strided attention        all keys kept
 *   window of w keys               ring w
 *   window and s sinks             s kept, ring w
 *   fixed, chunks of l, c summaries    (length / l) c kept, ring l
 *   chunks of l                    ring l
 *
 * Query heads that share a key head share its slots, so that the union of their patterns counts. */
#ifndef HD_CACHE_H
#define HD_CACHE_H

#include "../graph/graph.h"
#include "pattern.h"

/* Slots of a key head: 0 .. kept - 1 for keys kept, then a ring. A run of keys that are kept side by side has ranks side by side. */
typedef enum hd_cache_kept { HD_KEPT_NONE, HD_KEPT_ALL, HD_KEPT_RANGE, HD_KEPT_RESIDUES, HD_KEPT_RUNS } hd_cache_kept;
typedef struct hd_cache_layout {
    hd_cache_kept kind;
    int64_t kept, ring;             /* slots */
    int64_t first, end, stride;     /* range: first <= j < end; residues: first <= j mod stride < end */
    int64_t runs; const hd_interval *run; const int64_t *rank;      /* runs: of keys, ascending, and the rank of each one's first */
    int64_t switches;               /* in the keys that one query may read there are at most so many changes between kept and not */
} hd_cache_layout;

/* A pattern with the layout of the keys it reads. */
typedef struct hd_cache_reader { const hd_pattern *pattern; int layout; } hd_cache_reader;

typedef struct hd_cache {
    int heads, kv_heads, head_dim;
    int64_t length;
    int layouts; const hd_cache_layout *layout; const int *layout_of;       /* layout_of: by key head */
    int readers; const hd_cache_reader *reader; const int *reader_of;       /* reader_of: by query head */
    const int64_t *key, *value;     /* by key head: where its keys and its values begin, in floats; a slot is head_dim floats */
    int64_t runs;                   /* of slots, in one row: at most so many */
    int64_t work;                   /* runs of keys that are held at once while a row is made, at most */
    bool distances;                 /* scores depend on the distance of query and key: runs must tell positions */
    double keys_per_query;          /* mean over the length, all heads together */
    int64_t bytes;                  /* of one stream: keys and values of this attention, a multiple of 64 */
    int64_t dense_bytes;            /* if every key were kept: 2 * 4 * length * kv_heads * head_dim */
    int64_t positions;              /* the most a stream may have; 0: no limit */
    bool rewindable;                /* a stream may return to any earlier position: nothing is ever overwritten */
    int64_t safe;                   /* not rewindable: nothing is overwritten while a stream has no more positions than this; with more,
                                     * it may return by one position (to the position before the last computed), or to 0 */
    int64_t offset, stream_bytes;   /* set by the pass that derives decoding: where in a stream's part, bytes between streams */
} hd_cache;

/* Why an attention cannot be decoded, as the end of "cannot be decoded with a cache: ..."; NULL: it can. */
const char *hd_cache_refusal(const hd_node *attention);
/* The cache of an attention over `length` positions (that of its queries and keys); attr.attention as its shape rule left it. */
hd_cache *hd_cache_make(const hd_attr *attention, int64_t length);
/* Whether one cache_keys serves both: the same readers of the same layouts. */
bool hd_cache_same_keys(const hd_cache *, const hd_cache *);

/* What cache_keys writes, in 32-bit words: for each layout, for each row (of the chunk, or of the streams), the slot that its own key
 * goes to, or -1; then what readers read. A run is { source, step, count, key, key_step }: `count` keys in slots source, source + step, ...
 * (or, where source is negative, in rows ~source, ~source + step, ... of the chunk itself, whose keys are not in their slots yet) at
 * positions key, key + key_step, ... (only with `distances`).
 *   chunk 1    for each reader, for each stream: number of runs, runs
 *   else       for each reader: for each row of the chunk: number of runs, runs; then for each block of HD_CACHE_BLOCK rows: number
 *              of segments, segments { source, count, key, rows that keep it, by bit } of neighbouring slots that several rows keep;
 *              what is in segments is not in rows */
enum { HD_CACHE_BLOCK = 32, HD_CACHE_RUN = 5, HD_CACHE_SEGMENT = 4, HD_CACHE_SEGMENTS = 4096 };
/* Words of the slots; of one row; of one block (0: chunk 1), with so many segments at most; of all of one reader; of everything. */
typedef struct hd_cache_words { int64_t slots, row, block, segments, reader, all; } hd_cache_words;
hd_cache_words hd_cache_plan(const hd_cache *, int64_t streams, int64_t chunk);

#endif
