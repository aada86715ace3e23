/* Attention kernels over pattern covers: which templates, with which parameters, in which order.
 *
 * A plan is a list of phases, kernels that are called one after another with the same arguments; each makes one hd_run_slots
 * call. With enough heads and sequences to keep threads busy (batch * heads slots) there is one phase. With fewer, heads are
 * cut into parts, and then
 *   forward    one phase per family, home last, and a first one that clears the merge state if the cover needs it
 *   backward   one phase that clears dk and dv, then one per family, home first
 * The results of a plan are the same bits for any number of threads.
 *
 * Arguments of every phase:
 *   forward    const hd_run *run, int sequences, int used, const float *q, const float *k, const float *v, [extras,] float *out, float *lse, float *merge
 *   backward   const hd_run *run, const float *q, const float *k, const float *v, const float *out, const float *lse, const float *dout, [extras,]
 *              float *dq, float *dk, float *dv, [gradients of extras,] float *merge
 * extras, as `with` says (graph.h has the formula): const float *sinks (forward only), const float *bias, const float *key_bias,
 * const float *edge_bias, const int32_t *bounds; their gradients: float *dbias [batch][heads][buckets], float *dkey_bias
 * [batch][heads][keys], float *dedge_bias [batch][heads][edges], every element written.
 * sequences, used: only the first `sequences` sequences and, for causal patterns, the first `used` positions are computed; 0: all.
 * lse is [batch][heads][queries]; merge holds merge_bytes between the phases of one call (NULL where that is 0). Backward writes every
 * element of dq, dk and dv, which must not overlap anything else. */
#ifndef HD_ATTENTION_H
#define HD_ATTENTION_H

#include "../driver/target.h"
#include "../graph/graph.h"
#include "../pattern/pattern.h"

/* Elements between sequences, heads and positions of a tensor; the head_dim elements of a row are contiguous. So
 * [batch][n][heads][head_dim] inside a wider matrix and [batch][heads][n][head_dim] are both expressible. */
typedef struct hd_attention_strides { int64_t batch, head, row; } hd_attention_strides;

/* What tuning may set instead of estimates; all 0: as estimated. */
typedef enum hd_attention_kernels { HD_ATTENTION_ANY, HD_ATTENTION_TILES, HD_ATTENTION_ROWS, HD_ATTENTION_STENCIL, HD_ATTENTION_EDGES } hd_attention_kernels;
typedef struct hd_attention_choice {
    hd_attention_kernels kernels;
    int width;                                  /* vectors of queries in a block: tiles 1 to 3, for every family; rows 1 to 4 */
    int chunk;                                  /* tiles: keys whose scores share the first cache, a multiple of 48 up to 192 */
} hd_attention_choice;

typedef struct hd_attention {
    int64_t batch, heads, kv_heads, head_dim, queries, keys;
    double scale, softcap;
    const double *alibi;
    int64_t offset;
    const hd_buckets *buckets;
    unsigned with;                              /* HD_WITH_*; backward ignores the sinks */
    int64_t key_bias_stride, edge_bias_stride;  /* elements between sequences (0 or keys), between heads (0 or edges) */
    int64_t edges;
    hd_attention_strides q, k, v, out;          /* forward and backward */
    hd_attention_strides dout, dq, dk, dv;      /* backward */
    int covers;                                 /* distinct ones: at most 255 */
    const hd_cover *const *cover;
    const int *cover_of_head;                   /* [heads], indices into cover; NULL: all 0 */
    hd_attention_choice choice;
} hd_attention;

typedef struct hd_attention_phase {
    const char *template_name;                  /* attention_fwd or attention_bwd */
    const char *coordinates;                    /* for the kernel's name: "h8_d64_n4096_causal..."; the same for all phases of a plan, plus "_1", "_2" */
    const char *parameters;                     /* Lua table fields, without name and vl */
    int64_t local_bytes;                        /* scratch per thread */
    int64_t slots;
    double share;                               /* of the plan's work; all 0: the same for all */
} hd_attention_phase;

typedef struct hd_attention_plan {
    const char *signature;
    int phases; hd_attention_phase *phase;
    int64_t merge_bytes;
    double useful_flops;                        /* 4 (forward) or 10 (backward) * head_dim * kept pairs */
    double cycles;                              /* of all phases on one core, as estimated for the choice: two multiply-adds of a vector each */
} hd_attention_plan;

/* For the files that plan kernels: what every attention template takes first (shapes, scale, attributes, strides), its C signature, and
 * the scratch of one head's terms. */
bool hd_attention_has_terms(const hd_attention *);
void hd_attention_parameters(hd_text *, const hd_attention *, const hd_target *, bool backward);
const char *hd_attention_signature(const hd_attention *, bool backward);
int64_t hd_attention_terms_bytes(const hd_attention *, bool backward);

/* What both choose from: kernels over the families of covers (attention.c), and over listed rows (attention_rows.c). cost: cycles of one head's forward pass, summed over the covers;
 * infinite, without a plan, where tables would be too large. */
hd_attention_plan hd_attention_tiles(const hd_attention *, const hd_target *, bool backward, double *cost);
hd_attention_plan hd_attention_rows(const hd_attention *, const hd_target *, bool backward, double *cost);
/* Whether the kernels of a choice can do it; else why not. */
bool hd_attention_fits(const hd_attention *, const hd_target *, bool backward, const hd_attention_choice *, const char **why);
hd_attention_plan hd_attention_forward(const hd_attention *, const hd_target *);
hd_attention_plan hd_attention_backward(const hd_attention *, const hd_target *);

#endif
