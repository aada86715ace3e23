/* Lowering one entry: shared by lower.c (memory, views, elementwise groups), lower_ops.c and lower_rows.c (one function per kernel op). */
#ifndef HD_LOWER_H
#define HD_LOWER_H

#include "fuse.h"
#include "../emit/attention.h"
#include "../emit/kernels.h"

typedef struct hd_lowering {
    const hd_graph *graph;
    const hd_entry *entry;
    const hd_target *target;
    hd_kernels *kernels;
    hd_fusion *fusion;
    hd_program *program;
    const hd_node *now;        /* what is being lowered: steps pushed meanwhile are its */
    const int64_t *weight_offset;
    int64_t weights_bytes;
    hd_view *view;             /* by node id; buffer NULL: not made yet */
    hd_buffer **pinned;        /* by node id: memory the value must be written to (entry outputs, gradients, pieces of a concat) */
    hd_view *pinned_view;      /* by node id, with pinned: where in it */
    int packs, pack_capacity; hd_panels *pack;                              /* panels in scratch */
    hd_packing *packing;       /* panels made before; NULL: the entry changes weights */
    int64_t rows_batch, rows_length;
    hd_node *(*result)[6];     /* by node id: its needed `result` nodes, by index */
    bool *wants_squares;       /* by node id: what an accumulate stores last, so that the norm of all gradients needs not read it */
    bool *has_squares;         /* by node id: its kernel added them to `squares` */
    hd_buffer *squares;        /* floats whose sum is that of the squares of all gradients that have them */
    hd_view *column_sums;      /* by node id: [slots][columns] whose sum over slots is the node, made by a kernel that read its operands anyway; or none */
} hd_lowering;

/* The C text of a step's elementwise part: declarations of operands and the lines run for each vector. */
typedef struct hd_epilogue {
    hd_text lines;                       /* a Lua list: { "hd_f v3 = ...;", ... } */
    hd_text signature;                   /* ", const float *e0, float *e1" */
    int operands, operand_capacity; hd_argument *operand;
    double flops, cycles;                /* cycles: of a vector, times elements */
    hd_text coordinates;                 /* "bias_gelu" for the kernel's name */
    const hd_node *squares_of;           /* given: HD_SQUARES(value) of this node is to follow the lines */
    int sums; struct { const hd_node *of; int index; } sum[2];   /* given: HD_COLUMN_SUM(index, value) is to follow the lines of these nodes */
} hd_epilogue;

/* Sums of squares that embedding.c.tmpl makes of a table, and how many rows this is for. */
enum { HD_SQUARES_OF_TABLE = 256, HD_SQUARES_TABLE_LEAST = 64, HD_SQUARES_TABLE_MOST = 1 << 19 };

hd_buffer *hd_lower_buffer(hd_lowering *, int64_t bytes, const char *what);
hd_view hd_view_dense(hd_buffer *, const hd_shape *);
/* The same elements in the same order as another shape; false if that needs a copy. */
bool hd_view_reshape(const hd_view *, const hd_shape *, hd_view *out);
bool hd_view_is_dense(const hd_view *);
/* The view seen as a matrix [rows][cols] with unit column stride; *ld is the row stride. False where it cannot be. */
bool hd_view_matrix(const hd_view *, int64_t rows, int64_t cols, int64_t *ld);
/* Where the value of n lies; makes copies and constants as needed. */
hd_view hd_lower_view(hd_lowering *, hd_node *n);
hd_view hd_lower_dense(hd_lowering *, hd_node *n);                      /* likewise, contiguous */
hd_view hd_lower_matrix(hd_lowering *, hd_node *n, int64_t rows, int64_t cols, int64_t *ld);
/* Memory for a value the current step makes: pinned memory or a new buffer. */
hd_view hd_lower_output(hd_lowering *, hd_node *n);
hd_view hd_lower_result(hd_lowering *, hd_node *n, int index);          /* result k >= 1 of n, whether or not anyone reads it */

/* Text and operands of a group's elementwise nodes; acc: the root whose value is `acc`, or NULL. flat: iterate over one long row. */
void hd_map_text(hd_lowering *, const hd_fused *, bool flat, hd_epilogue *);

hd_step *hd_step_new(const char *label, hd_where where);
void hd_step_text(hd_step *, const char *text);
void hd_step_view(hd_step *, const char *type, hd_view view, bool writes);
hd_argument *hd_step_last(hd_step *);                                   /* the argument added last */
void hd_step_operands(hd_step *, const hd_epilogue *);
void hd_lower_push(hd_lowering *, hd_step *);
const char *hd_rows_text(const hd_lowering *, int64_t rows);            /* "rows" where the entry limits them, else the number */

/* Room for `count` more floats of l->squares, as the operand `argN` of e, whose lines will give the value of `of` to HD_SQUARES. */
const char *hd_lower_squares(hd_lowering *, hd_epilogue *e, const hd_node *of, int64_t count);
/* A step's label; the C declarations of its elementwise operands, with and without the first comma. */
const char *hd_lower_label(const hd_node *, const hd_epilogue *);
const char *hd_epilogue_signature(const hd_epilogue *);
const char *hd_epilogue_arguments(const hd_epilogue *);
void hd_lower_root(hd_lowering *, const hd_fused *);                    /* lower_ops.c */
void hd_lower_top_k(hd_lowering *, hd_node *);                          /* lower_experts.c */
void hd_lower_expert_matmul(hd_lowering *, hd_node *);
void hd_lower_copy(hd_lowering *, const hd_view *from, const hd_view *to, const char *label, hd_where where);   /* lower_ops.c */
void hd_lower_map_step(hd_lowering *, const hd_epilogue *, int64_t rows, int64_t cols, const char *label, hd_where where);

/* lower_decode.c */
void hd_lower_position_ids(hd_lowering *, hd_node *);
void hd_lower_last_row(hd_lowering *, hd_node *);
void hd_lower_first_row(hd_lowering *, hd_node *);
void hd_lower_shift_cached(hd_lowering *, hd_node *);
void hd_lower_cache_keys(hd_lowering *, hd_node *);
void hd_lower_attention_cached(hd_lowering *, hd_node *);
/* A q-like tensor of an attention as [batch][positions][heads][head_dim]: its strides, copying it if its rows are not contiguous. */
hd_attention_strides hd_lower_heads(hd_lowering *, const hd_node *attention, hd_node *n, hd_view *view, int64_t heads);

/* lower_rows.c */
void hd_lower_norm(hd_lowering *l, const hd_fused *fused);
void hd_lower_softmax(hd_lowering *l, const hd_fused *fused);
void hd_lower_cross_entropy(hd_lowering *l, hd_node *n);
void hd_lower_cross_entropy_dx(hd_lowering *l, const hd_fused *fused);
void hd_lower_embedding(hd_lowering *l, const hd_fused *fused);
void hd_lower_rope(hd_lowering *l, hd_node *n, const hd_fused *fused);
void hd_lower_reduce(hd_lowering *l, const hd_fused *fused);
void hd_lower_gradient_norm(hd_lowering *l, hd_node *n);
void hd_lower_adamw(hd_lowering *l, hd_node *n);

#endif
