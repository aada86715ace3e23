/* From a graph to a program: what the passes hand to one another.
 *
 *   hd_simplify      graph -> graph      rewrites, common subexpressions
 *   hd_recompute_*   graph -> graph      forward values made again in the backward pass (recompute.h)
 *   hd_lower_entry   entry -> program    fusion into steps, views instead of copies, kernels chosen, buffers with lifetimes
 *   hd_plan          program             offsets for scratch buffers, beside the lower bound
 *   hd_count_traffic program             how far away lies what each step moves
 *
 * Entries that do not train read their weights as panels that a program of its own makes once (hd_packing).
 *
 * A program is a straight list of steps; a step is one kernel call. Nothing here knows of C text except the kernels'
 * names and parameters (emit/kernels.h). */
#ifndef HD_PASSES_H
#define HD_PASSES_H

#include "../graph/graph.h"
#include "../driver/target.h"
#include "../../runtime/app/hd_traffic.h"

typedef enum hd_area { HD_AREA_SCRATCH, HD_AREA_WEIGHTS, HD_AREA_GRADIENTS, HD_AREA_MOMENT_1, HD_AREA_MOMENT_2, HD_AREA_PACKED, HD_AREA_CACHE, HD_AREA_ARGUMENT } hd_area;

/* A piece of memory. Weights, gradients and moments of one tensor lie at the same offset of their areas. */
typedef struct hd_buffer {
    hd_area area;
    int64_t bytes, offset;         /* bytes; offset is set by hd_plan for scratch, by hd_weight_offsets for areas, when made for packed */
    int argument;                  /* area argument: index among the entry's inputs, then outputs */
    int first, last;               /* scratch: steps that write it first and touch it last */
    struct hd_buffer *same;        /* scratch: lies exactly on this buffer, which dies where this one is born; or NULL */
    struct hd_buffer *taken_by;    /* the one that lies on this */
    const char *what;              /* for dumps */
} hd_buffer;

/* A tensor somewhere in a buffer: element offset and element strides; the dtype is the node's. */
typedef struct hd_view { hd_buffer *buffer; int64_t offset; hd_shape shape; int64_t stride[HD_MAX_RANK]; } hd_view;

/* One argument of a kernel call: literal C text, or the address of a view. elementwise: an operand of the fused lines, read
 * (before) or written at the element where the kernel stands; full: dense and of the kernel's whole shape. elements: how many the
 * kernel must touch at the least; updates: reads them, too, before it writes them. */
typedef struct hd_argument { const char *type; const char *text; hd_view view; bool writes, elementwise, full, updates; int64_t elements; } hd_argument;

struct hd_kernel;
struct hd_product;
typedef struct hd_step {
    struct hd_kernel *kernel;
    int arguments, argument_capacity; hd_argument *argument;
    const char *label;             /* "h.0.qkv: [2048,384] = [2048,128] x [384,128]^T + bias" */
    hd_where where;
    double flops, useful;          /* all arithmetic; that of products and attention (kept pairs) that recomputes nothing */
    double bytes; hd_traffic traffic;      /* what it must move at the least, and how far away that is (hd_count_traffic) */
    /* what driver/predict.c needs: rows x cols elements of a template's kind, lines: cycles that a vector of the fused lines takes, times elements; a product's blocks;
     * cycles: of attention, by those who planned it; share: of a call among those that make one node; slots: 0: cut by rows */
    const char *kind; int64_t rows, cols; double lines;
    const struct hd_product *product;
    double cycles, share; int64_t slots;
    const hd_node *node;           /* the kernel's op, or the last elementwise node of the step; NULL: copies of outputs */
    const hd_node *attends;        /* steps of a forward attention: the node, and what it became; NULL in others */
    const struct hd_attention *attention;
    const struct hd_tunable *tunable;        /* what its kernel was chosen from (tune/tune.h), or NULL */
} hd_step;

typedef struct hd_program {
    const hd_graph *graph;
    const hd_entry *entry;
    int steps, step_capacity; hd_step *step;
    int buffers, buffer_capacity; hd_buffer **buffer;
    int64_t scratch_bytes, local_bytes, lower_bound_bytes;
    bool row_limited;              /* takes `sequences` and `used` and computes only those rows */
    bool reads_packed;             /* some step reads the area of packed weights */
} hd_program;

/* A matrix [k][n] (transposed: stored [n][k]), ld elements between its rows as stored, and its panels of nr columns:
 * [ceil(n / nr)][k][nr], zeros beyond n. clone: for products that are computed again. */
typedef struct hd_panels { hd_view of; bool transposed, clone; int64_t n, k, ld; int nr; hd_view packed; } hd_panels;

/* The weights of entries that do not train, as panels in the area `packed`: each weight once for every way in which products
 * read it, at offsets that depend on the model and the target's vectors only. */
typedef struct hd_packing {
    hd_program program;            /* fills the area; of no entry */
    int64_t bytes;
    int count, capacity; hd_panels *panels;
} hd_packing;

void hd_simplify(hd_graph *);
/* Offsets of all weights in their area, in graph order, 64-byte aligned; returns the area's bytes. */
int64_t hd_weight_offsets(const hd_graph *, int64_t *offset_of_node);
struct hd_kernels;
/* packing: collects the panels that the entry reads; NULL where weights change in every call, which then packs them in scratch. */
hd_program *hd_lower_entry(const hd_graph *, const hd_entry *, const hd_target *, struct hd_kernels *, const int64_t *weight_offset, int64_t weights_bytes, hd_packing *);
/* Which buffers lie on others (same, taken_by): the first part of hd_plan. */
void hd_share_dying(hd_program *);
void hd_plan(hd_program *);
/* What a step must move at the least, by its arguments. */
double hd_step_bytes(const hd_step *);
/* Fills the traffic of all steps, as it is when the planned entry is called again and again. */
void hd_count_traffic(hd_program *);
void hd_program_print(const hd_program *, hd_text *);

#endif
