/* The graph: one static-shape dataflow program for forward, gradient and optimiser step.
 *
 * Nodes are in creation order, which is a topological order: inputs come first. A node is one tensor (its result 0); ops
 * with several results (ops.def) are read through `result` nodes. Shapes never wait for run time. */
#ifndef HD_GRAPH_H
#define HD_GRAPH_H

#include "../base/base.h"

struct hd_pattern;
struct hd_cache;

typedef enum hd_op {
#define HD_OP(name, ...) HD_OP_##name,
#include "ops.def"
    HD_OPS
} hd_op;

typedef enum hd_dtype { HD_F32, HD_I32 } hd_dtype;

enum { HD_MAX_RANK = 6, HD_MAX_INPUTS_FIXED = 8 };

typedef struct hd_shape { int rank; int64_t size[HD_MAX_RANK]; } hd_shape;

/* What a param node is. Weights are what a checkpoint holds; the others exist only where training does. */
typedef enum hd_role { HD_WEIGHT, HD_GRADIENT, HD_MOMENT_1, HD_MOMENT_2 } hd_role;

/* How a weight starts: value = kind scaled by `scale`.
 * normal: N(0, scale^2); uniform: U(-scale, scale); constant: every element = scale. Counter-based random bits of
 * (seed, parameter name hash, element), so that any program initialises alike. */
typedef enum hd_init_kind { HD_INIT_CONSTANT, HD_INIT_NORMAL, HD_INIT_UNIFORM } hd_init_kind;
typedef struct hd_init { hd_init_kind kind; double scale; } hd_init;

/* Extra inputs of attention, by bit:
 *   sinks [heads], bias [heads, buckets], key_bias [keys] or [sequences, keys], edge_bias [pairs] or [heads, pairs], bounds i32 [sequences, queries, 2]
 * attention_dx returns, after dq, dk, dv and in this order, for those there are: d bias [sequences, heads, buckets],
 * d key_bias [sequences, heads, keys], d edge_bias [sequences, heads, pairs]. */
enum { HD_WITH_SINKS = 1, HD_WITH_BIAS = 2, HD_WITH_KEY_BIAS = 4, HD_WITH_EDGE_BIAS = 8, HD_WITH_BOUNDS = 16 };

/* The bucket of a difference d = i - j: bucket[clamp(d - first, 0, count - 1)]. */
typedef struct hd_buckets { int64_t first, count, buckets; const int32_t *bucket; } hd_buckets;

/* Attributes of one op; the op decides which member is live. */
typedef union hd_attr {
    struct { hd_role role; hd_init init; bool decay; struct hd_node *weight; } param; /* decay: AdamW decay applies (rank >= 2); weight: whose gradient or moment this is */
    struct { double value; } constant;
    struct { int index; } result;                                   /* which result of the input op, >= 1 */
    struct { double p; int stream; } dropout;                       /* drop probability; stream: distinct per dropout */
    struct { int axis; int64_t start; } slice;                      /* sizes are in node->shape */
    struct { int axis; int64_t before, after; } pad;                /* zeros around */
    struct { int axis; } concat;
    struct { int perm[HD_MAX_RANK]; } transpose;                    /* output axis i is input axis perm[i] */
    struct { unsigned axes; } reduce;                               /* bit i: axis i is reduced to size 1 */
    struct { bool trans_a, trans_b; } matmul;
    struct { int k; } top_k;                                        /* how many of each row */
    struct { double epsilon; } norm;
    struct { int64_t rows; } size;                                  /* embedding_dw: vocabulary rows */
    struct { bool documents; int64_t queries, keys; } bounds;       /* key_bounds: from ids of documents, or else from lengths */
    struct { const double *value; } table;                          /* the elements, in the arena */
    struct { int64_t rows, offset, divide, modulo; } position_ids;  /* modulo 0: none */
    struct { int axis; const struct hd_kept_rows *kept; } row;      /* last_row, first_row, shift_cached: which axis has the rows; where the last two stay */
    struct { int axis; } shift;                                     /* shift by one along this axis; start vector has the shape of the axes after it */
    /* rope over the last axis taken as [heads][head_dim]: the first `dims` of each head are rotated by position * base^(-2t/dims).
     * Position is the index on axis `axis`. pairs: (2t, 2t+1) rotate together, else (t, t + dims/2). inverse: by the negative angle.
     * frequency: [dims/2] angles per position instead of base^(-2t/dims), or NULL. scale: what rotated elements are multiplied by; 0 stands for 1. */
    struct { int axis, head_dim, dims; bool pairs, inverse; double base, scale; const double *frequency; } rope;
    /* out_i = sum_j softmax_j(scale * q_i . k_j) v_j over the keys j that `pattern` keeps for query i; lse_i = log sum_j exp(...).
     * A row without keys gives out 0, lse -inf, no gradient. Layouts:
     *   heads_first = false   q [..., queries, heads*head_dim], k, v [..., keys, kv_heads*head_dim]; lse [..., heads, queries]
     *   heads_first = true    q [..., heads, queries, head_dim], k, v [..., kv_heads, keys, head_dim]; lse [..., heads, queries]
     * pattern: one, or one per head (patterns == heads). 0 stands for what follows: kv_heads = heads, head_dim from the shapes,
     * scale = 1/sqrt(head_dim); the shape rule fills it in.
     * Scores may be more than scale * q_i . k_j. With d = i + offset - j, in this order:
     *   s = scale q_i . k_j;   s = softcap tanh(s / softcap);   s -= alibi[head] |d|;
     *   s += bias[head][bucket of d];   s += key_bias[sequence][j];   s += edge_bias[head][e], pair e of the pattern's, by query and key
     * sinks: one more score per head that takes part in lse, without a value. bounds: query i keeps only keys from bounds[i][0] to
     * below bounds[i][1], neither of which decreases as i grows. */
    struct {
        int heads, kv_heads, head_dim; double scale; bool heads_first; int patterns; const struct hd_pattern **pattern;
        double softcap;                     /* 0: none */
        const double *alibi;                /* [heads] slopes; NULL: none */
        int64_t offset;                     /* position of query 0 among the keys, for distances */
        const struct hd_buckets *buckets;   /* of the bias table; NULL without one */
        unsigned with;                      /* HD_WITH_*: which inputs follow v (attention), dout (attention_dx, all but the sinks) or positions (attention_cached), in this order */
        const struct hd_cache *cache;       /* attention_cached: where its keys and values lie. Queries and keys are the rows of one chunk then: row r of a stream
                                             * is at its position + r, and reads earlier keys from the cache */
    } attention;
    struct { const struct hd_cache *cache; int64_t chunk; } cache_keys;     /* one of the caches that same keys serve; rows of a chunk */
} hd_attr;

typedef struct hd_node {
    int id;                    /* index in graph->node */
    hd_op op;
    hd_dtype dtype;
    hd_shape shape;            /* of result 0 */
    int inputs;
    struct hd_node **input;
    hd_attr attr;
    hd_where where;            /* the spec's line; gradient nodes inherit it from the node they differentiate */
    const char *name;          /* inputs, params: the user's name; others: scope ("h.3.attn") or NULL */
    int block;                 /* recompute group: 0 none; else nodes of one hd.recompute call share a number */
    bool clone;                /* made again (passes/recompute.c), or for one place in the order of nodes: never merged with its original */
    bool again;                /* made by recomputation: its arithmetic is not counted as useful */
    struct hd_node *differentiates;   /* nodes of a gradient: the node whose rule asked for this one; NULL in the forward pass */
} hd_node;

typedef struct hd_named { const char *name; hd_node *node; } hd_named;

/* An entry point: a function of named inputs. Outputs are values; effects are nodes that store into params
 * (accumulate, adamw) and run in graph order. */
typedef struct hd_entry {
    const char *name;
    int inputs;  hd_node **input;          /* op input, in argument order */
    int outputs; hd_named *output;
    int effects; hd_node **effect;
    bool decodes;                          /* prefill or step: reads and writes the cache (passes/decode.c) */
    bool causal;                           /* rows past `used` never influence rows before: the entry takes `used` and `sequences` */
} hd_entry;

/* Run-time training settings and their defaults; the order is that of the `hyper` input below. */
typedef struct hd_training {
    bool present;
    double lr, min_lr, beta1, beta2, epsilon, decay, clip;   /* min_lr: where the cosine ends, as a fraction of lr */
    double average;                        /* weight averaging: EMA decay per step, 0 = off */
    int64_t warmup, batch;                 /* steps; sequences per optimiser step, a multiple of the micro-batch */
} hd_training;

/* The last two rows that a shift has seen, of each stream, in the cache: that of position p at p mod 2. In bytes. */
typedef struct hd_kept_rows { int64_t bytes, offset, stream_bytes; } hd_kept_rows;

/* Layout of the `hyper` f32 input of train_step. */
enum { HD_HYPER_LR, HD_HYPER_BETA1, HD_HYPER_BETA2, HD_HYPER_EPSILON, HD_HYPER_DECAY, HD_HYPER_CLIP,
       HD_HYPER_CORRECTION1, HD_HYPER_CORRECTION2,   /* 1 - beta^t */
       HD_HYPER_SCALE,                               /* gradients are multiplied by this first: 1 / micro-batches */
       HD_HYPER_ACCUMULATE,                          /* 0: gradients are overwritten, 1: added to */
       HD_HYPER_UPDATE,                              /* 0: only accumulate, 1: clip and update the weights */
       HD_HYPER_COUNT = 16 };

/* What tokens are that are neither text nor ids; as in runtime/app/hd_model.h. */
typedef enum hd_output_kind { HD_OUTPUT_NONE, HD_OUTPUT_IMAGE, HD_OUTPUT_SOUND } hd_output_kind;
typedef struct hd_output {
    hd_output_kind kind;
    int64_t width, height, channels; bool planar;
    int64_t colours; const unsigned char *palette;         /* [colours][channels] */
    int64_t rate; const char *encoding;                    /* "mu-law", "g711-mu-law", "linear8" */
} hd_output;

typedef enum hd_kind { HD_KIND_OPS, HD_KIND_LANGUAGE_MODEL } hd_kind;

typedef struct hd_graph {
    const char *name;                      /* model name: a C identifier, the prefix of every symbol */
    const char *spec;                      /* path of the spec as the user gave it */
    const char *family, *config_text;      /* of a checkpoint: its family, models/hf/FAMILY.lua, and what that read of config.json as a Lua table; else NULL */
    const char *tokenizer;                 /* the file that says how text becomes tokens: tokenizer.json, vocab.json (with merges.txt beside it), vocab.txt or tokenizer.model; NULL: none */
    hd_output output;
    int64_t bos; int ends; int64_t eos[16];    /* the token that texts begin after, -1: none; those that end them */
    hd_kind kind;
    int nodes, node_capacity; hd_node **node;
    int entries, entry_capacity; hd_entry **entry;
    hd_training training;
    bool predicts_same;                    /* logits at position t are for token t, not t + 1: the spec shifts its inputs itself */
    int64_t length, vocab, batch;          /* language models; 0 elsewhere. batch: compiled micro-batch */
    int64_t decode_streams, prefill_chunk; /* language models: streams of entry step, rows of prefill (0: chosen) */
    const struct hd_decoding *decoding;    /* what passes/decode.c made, or NULL, and then why: */
    const char *no_decoding;
    int64_t ids;                           /* tokens read are 0 .. ids - 1: rows of the table they index; mostly the vocab, which counts what is predicted */
    int configs; struct { const char *key; const char *value; } config[64];  /* resolved hd.config, for info */
    int blocks, streams;                   /* counters of recompute groups and dropout streams */
    const char *scope; int block; hd_node *differentiates;      /* what hd_graph_add gives new nodes: name (so that errors can quote it), ... */
} hd_graph;

/* A row of ops.def, with its functions. */
struct hd_eval;
typedef struct hd_op_info {
    const char *name;
    int inputs, results;
    void (*shape)(hd_node *);
    void (*eval)(struct hd_eval *, const hd_node *);
    void (*gradient)(hd_graph *, hd_node *node, hd_node **dy, hd_node **dx);   /* dy[results]: NULL where no gradient flows; sets dx[inputs] */
    const char *lowering;
    int flops;
} hd_op_info;
extern const hd_op_info hd_ops[HD_OPS];

hd_graph *hd_graph_new(const char *spec);
/* Appends a node: checks inputs and attributes by the op's shape rule, which fails with `where` and both shapes. For
 * sources, `shape` gives the tensor's shape (NULL for all other ops but reshape, slice, expand, pad, which need it). */
hd_node *hd_graph_add(hd_graph *, hd_op, hd_where, hd_dtype, const hd_shape *shape, int inputs, hd_node *const *input, const hd_attr *);
hd_node *hd_graph_result(hd_graph *, hd_node *, int index);          /* the `result` node, shared if it exists */
hd_shape hd_result_shape(const hd_node *, int index);
hd_entry *hd_graph_entry(hd_graph *, const char *name);              /* appends */

/* Reverse mode: nodes for d(sum of loss) / d(tensor) of each tensor; a tensor the loss does not depend on gets zeros. */
void hd_gradients(hd_graph *, hd_node *loss, int tensors, hd_node *const *tensor, hd_node **gradient);
/* Adds entry "train_step": forward, gradients accumulated into gradient params, clipping, AdamW. Inputs: those of
 * `loss_entry`, then hyper f32[HD_HYPER_COUNT], then random i32[4] if dropout is used. Outputs: loss, gradient_norm. */
void hd_add_train_step(hd_graph *, const hd_entry *loss_entry);

int64_t hd_elements(const hd_shape *);
int64_t hd_node_bytes(const hd_node *);
bool hd_same_shape(const hd_shape *, const hd_shape *);
hd_node *hd_state_of(const hd_node *accumulate);                     /* the param it stores into */
const char *hd_shape_text(const hd_shape *);                          /* "[4, 256]" */
/* Of attention, attention_dx and attention_cached: which input an extra one (an HD_WITH_* bit) is, which result its gradient is; -1: none. */
int hd_attention_input(const hd_node *, unsigned extra);
int hd_attention_result(const hd_node *, unsigned extra);
/* Gradients of all inputs of attention (q, k, v, extras as `attr` says; bounds have none: NULL), from its results and d(loss)/d(out).
 * Those that `wanted` leaves out may be NULL; wanted NULL: all. */
void hd_attention_gradients(hd_graph *, hd_where, const hd_attr *attr, int inputs, hd_node *const *input, hd_node *out, hd_node *lse, hd_node *dout,
                            const bool *wanted, hd_node **gradient);
/* By node id: the axis that holds the positions of tokens [batch, length] (row i of it depends on tokens 0..i alone), or one of these. */
enum { HD_NO_POSITIONS = -1, HD_MIXED_POSITIONS = -2 };
int *hd_position_axes(const hd_graph *, const hd_node *tokens);
bool hd_causal(const hd_graph *, const hd_node *output, const hd_node *tokens);      /* the output has positions on axis 1 */
bool hd_gradient_refused(const hd_node *);                            /* a loss that depends on it cannot be differentiated */
double hd_node_flops(const hd_node *);                                /* exact for products and attention */
void hd_graph_print(const hd_graph *, hd_text *);                     /* stable form used by --dump */

/* The reference interpreter. value[i]: doubles of node i (result 0), ids for i32. Held for sources once they are set or read,
 * and for the outputs of the entry evaluated last; NULL elsewhere. */
typedef struct hd_eval {
    const hd_graph *graph;
    double **value;            /* [nodes] */
    double ***results;         /* [nodes][result index]; index 0 is value */
    int nodes;                 /* the tables' size; they grow with the graph */
    struct hd_eval *next;
} hd_eval;
hd_eval *hd_eval_new(const hd_graph *);
void hd_eval_free(hd_eval *);              /* values are many times the program's memory: free what was compared */
void hd_eval_set(hd_eval *, const hd_node *source, const double *values);
/* Evaluates an entry in graph order: everything its outputs and effects need. Effects change the params' values. */
void hd_eval_entry(hd_eval *, const hd_entry *);

#endif
