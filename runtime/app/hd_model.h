/* What a generated program tells the application part about its model: one constant table, written by the compiler
 * into MODEL_info.c of executables (an embedded model does without). */
#ifndef HD_MODEL_H
#define HD_MODEL_H

#include <stdbool.h>
#include "../core/hd_core.h"
#include "hd_traffic.h"

typedef enum hd_type { HD_TYPE_F32, HD_TYPE_I32 } hd_type;
enum { HD_RANK = 6 };

/* An input or output of an entry. */
typedef struct hd_tensor { const char *name; hd_type type; int rank; int64_t size[HD_RANK]; } hd_tensor;

/* A weight: where it lies in the weight area (gradients and moments lie at the same offsets of their areas), and how it starts
 * (init 0: constant `scale`; 1: normal of standard deviation `scale`; 2: uniform in +-scale). */
typedef struct hd_weight { const char *name; int rank; int64_t size[HD_RANK]; size_t offset; int init; double scale; bool decay; } hd_weight;

/* A kernel call, and all calls of an entry like it: all its arithmetic; that of products and attention (kept pairs) which recomputes
 * nothing; and what it must move at the least. */
typedef struct hd_step { const char *kernel, *where; double flops, useful; hd_traffic traffic; } hd_step;

/* Memory handed to an entry. All areas 64-byte aligned and owned by the caller. */
typedef struct hd_memory {
    void *weights;             /* model.weights_bytes; written by train_step only */
    void *state;               /* model.state_bytes: gradients, then first moments, then second moments; NULL unless the entry trains */
    void *scratch;             /* entry.scratch_bytes + threads * entry.local_bytes; contents never matter between calls */
    void *packed;              /* model.packed_bytes, written by model.pack; NULL for entries that do not read it */
    void *cache;               /* decode.cache_bytes: the streams that prefill and step continue; NULL for other entries */
    size_t scratch_bytes;      /* what scratch points to */
    const volatile int *cancel;   /* NULL, or a flag that any thread may set: entries look at it between layers, and return */
} hd_memory;

typedef struct hd_entry_info {
    const char *name;
    int inputs, outputs;
    const hd_tensor *input, *output;
    size_t scratch_bytes, local_bytes, lower_bound_bytes;   /* lower bound: most bytes live at once, whatever the plan */
    bool causal, trains, packed;                            /* packed: reads memory.packed */
    bool decodes;                                           /* prefill, step: on rows at given positions of memory.cache, as the commands time it; hd_decode_info is for use */
    /* tensors: inputs then outputs. sequences, used: how many of the leading batch rows and of their positions matter
     * (causal entries; 0: all). Returns HD_OK, or an hd_error (hd_core.h): nothing was written then, unless it was cancelled. */
    int (*call)(const hd_memory *, const hd_threads *, void *const *tensors, int sequences, int used);
    int steps; const int32_t *kind; const hd_step *step;      /* call i is like step[kind[i]] */
    double flops;
} hd_entry_info;

/* Decoding with a cache. memory.cache holds `streams` independent sequences, each at a position of its own; it is plain bytes, so that
 * a copy of it is a saved state. All functions return HD_OK, or an hd_error as entries do. */
typedef struct hd_decode_info {
    int streams;
    int64_t chunk;             /* prefill computes so many positions at once; it takes any number of tokens */
    int64_t positions;         /* the most that a stream can have; 0: no limit */
    size_t cache_bytes, dense_cache_bytes;       /* dense: if every key were kept for all of `length` */
    int (*start)(const hd_memory *);                                        /* once, before all else: every stream is empty */
    int (*rewind)(const hd_memory *, int stream, int64_t position);         /* forgets what came at and after it; 0 is always possible, more as long as the cache holds what is read there */
    int64_t (*position)(const hd_memory *, int stream);                     /* how many positions were computed */
    /* tokens [count] continue a stream; logits [vocab] are for the token that follows them. */
    int (*prefill)(const hd_memory *, const hd_threads *, int stream, const int32_t *tokens, int64_t count, float *logits);
    /* tokens [streams]: one more for each, -1 where a stream rests; logits [streams][vocab], those of resting streams not to be read. */
    int (*step)(const hd_memory *, const hd_threads *, const int32_t *tokens, float *logits);
} hd_decode_info;

/* The families of a pattern's cover, or else its rows. A family is a loop over `groups`; group g pairs queries with keys:
 *   query t at position q_start(g) + q_step t, below min(q_end(g), queries); it keeps the key indices u of
 *   max(0, lo(g) + lo_mul floor((t + lo_phase) / lo_div)) <= u < min(keys of the group, hi(g) + hi_mul floor((t + hi_phase) / hi_div))
 *   key u at position k_start(g) + k_step floor(u / k_run) + u mod k_run, below min(k_end(g), keys)
 * value(g) = base + per_group (g mod inner) + per_outer floor(g / inner), and with table 1 or 2 + table[floor(g / inner) + table - 1].
 * rows: numbers below 128 in one byte, others 7 bits a byte, low ones first, bit 7 set in all but the last; of each row the number of
 * runs of keys, and of each run its distance from the end of the one before (from key 0) and its length. NULL: too long to carry. */
typedef struct hd_affine { int64_t base, per_group, per_outer; int table; } hd_affine;
typedef struct hd_family {
    int64_t groups, inner;
    hd_affine q_start, q_end, k_start, k_end;
    int64_t q_step, k_step, k_run;
    hd_affine lo, hi;
    int64_t lo_mul, lo_div, lo_phase, hi_mul, hi_div, hi_phase;
    const int64_t *table;
} hd_family;
typedef struct hd_pattern_info {
    const char *name;
    int64_t queries, keys, kept_pairs;
    double density;
    int families; const hd_family *family;
    const char *rows;
} hd_pattern_info;

/* Where an operand of sequence 0 lies while a step runs: byte `offset` of an area, then elements by these strides. */
typedef enum hd_place { HD_NOWHERE, HD_IN_SCRATCH, HD_IN_WEIGHTS, HD_IN_TENSOR } hd_place;
typedef struct hd_operand { hd_place place; int tensor; int64_t offset, head, row; } hd_operand;

/* One attention op of entry `forward`: when call `step` starts, its operands are in place. The score of a pair, d = i + offset - j:
 *   s = scale q_i . k_j;  s = softcap tanh(s / softcap) if softcap;  s -= alibi[head] |d|;
 *   s += bias[head][bucket[clamp(d - first, 0, count - 1)]];  s += key_bias[j];  s += edge_bias[head][e], e the pair's number, by query and key
 * sinks[head]: one more score of every query, without a value. bounds: query i keeps only keys from bounds[i][0] to below bounds[i][1]. */
typedef struct hd_attention_info {
    const char *name, *where;
    int step;
    int64_t heads, kv_heads, head_dim, queries, keys;
    double scale, softcap;
    const double *alibi;                       /* [heads], or NULL */
    int64_t offset, first, count;
    const int32_t *bucket;                     /* [count], or NULL */
    const int *pattern;                        /* [heads]: index among the model's patterns */
    hd_operand q, k, sinks, bias, key_bias, edge_bias, bounds;
} hd_attention_info;

/* Defaults of the spec's hd.training; --KEY VALUE overrides each. */
typedef struct hd_training_info {
    bool present;
    double lr, min_lr, beta1, beta2, epsilon, decay, clip, average;   /* min_lr: fraction of lr where the cosine ends; average: EMA decay, 0 off */
    int64_t warmup, batch;
} hd_training_info;

/* What tokens are where they are neither text nor ids: the pixels of an image, or the samples of a sound (media.h writes and reads
 * the files). An image's tokens are its elements (a byte each) row by row: all channels of a pixel together, or planar: one channel's
 * plane after the other; or with a palette its pixels' colours. */
typedef struct hd_image_info {
    int64_t width, height;
    int channels;                             /* 1 grey, 3 red, green, blue */
    bool planar;
    int colours; const unsigned char *palette;        /* [colours][channels]; 0 and NULL: tokens are bytes */
    const struct hd_image_library *library;
} hd_image_info;
typedef enum hd_sound_encoding { HD_SOUND_LINEAR8, HD_SOUND_MU_LAW, HD_SOUND_G711 } hd_sound_encoding;
typedef struct hd_sound_info { int64_t rate; hd_sound_encoding encoding; const struct hd_sound_library *library; } hd_sound_info;

typedef struct hd_model_info {
    const char *name, *version, *spec, *target, *compiler;
    int level;                                /* hd_cpu_level a processor needs */
    const char *kind;                         /* "language_model" or "ops" */
    int64_t length, vocab, batch;             /* 0 where they mean nothing */
    int64_t ids;                              /* language models: what may be read is 0 .. ids - 1; what is predicted, 0 .. vocab - 1 */
    int ahead;                                /* language models: logits at position t are for token t + ahead, 1 or 0 */
    int64_t parameters;
    size_t weights_bytes, packed_bytes, state_bytes;
    int weights; const hd_weight *weight;
    int (*pack)(const hd_memory *, const hd_threads *);       /* fills memory.packed from memory.weights; returns as entries do */
    int entries; const hd_entry_info *entry;
    const hd_decode_info *decode;             /* NULL: not a causal language model, or one that cannot be decoded; then no_decode says why */
    const char *no_decode;
    int patterns; const hd_pattern_info *pattern;
    int configs; const char *const (*config)[2];
    int attentions; const hd_attention_info *attention;
    hd_training_info training;
    const struct hd_tokenizer *tokenizer;     /* how text becomes tokens (tokenizer.h), or NULL: bytes, or ids that the user makes */
    const struct hd_regex *tokenizer_regex;   /* NULL unless its tables hold regular expressions */
    const int32_t *start;                     /* the token that a sample without a prompt begins after, and that is no part of it; or NULL */
    int ends; const int32_t *end;             /* tokens that end a text */
    const hd_image_info *image;               /* or NULL */
    const hd_sound_info *sound;               /* or NULL */
    uint64_t weights_hash, panels_hash;       /* of the layouts of both areas: names, shapes, offsets */
    const void *own_weights, *own_packed;     /* heddle build --embed: both areas in the program; NULL: not there */
} hd_model_info;

/* Defined by the generated MODEL_info.c: one table for each kind of processor that the program was compiled for, the best first,
 * then NULL; they differ in kernels and scratch only. hd_app_main chooses; until then the last is in use. */
extern const hd_model_info *const hd_model_variants[];
extern const hd_model_info *hd_model_chosen;
#define hd_model (*hd_model_chosen)
/* The commands whose entries the model has, {0} after the last: what the others would need is not linked. */
typedef struct hd_model_command { const char *name; int (*run)(int argc, char **argv); } hd_model_command;
extern const hd_model_command hd_model_commands[];
int hd_app_main(int argc, char **argv);       /* the program: runtime/app/main.c */

#endif
