/* Fusion: which nodes become one kernel call. Shared by fuse.c and lower.c only. */
#ifndef HD_FUSE_H
#define HD_FUSE_H

#include "passes.h"

/* One step to be: an optional kernel op and the elementwise nodes computed on its result before it leaves the registers. */
typedef struct hd_fused { hd_node *root; int maps, map_capacity, loads; hd_node **map; } hd_fused;

typedef struct hd_fusion {
    const hd_graph *graph;
    const hd_entry *entry;
    bool *needed;              /* by node id: the entry depends on it */
    int *group;                /* by node id: the group that computes it; -1: a source, a view, a constant */
    bool *stored;              /* by node id: its value must be in memory */
    int groups, capacity; hd_fused *fused;   /* in execution order */
} hd_fusion;

hd_fusion *hd_fuse(const hd_graph *, const hd_entry *);

bool hd_is_view(const hd_node *);         /* renames memory: reshape, slice, expand, transpose, detach, result */
bool hd_is_map(const hd_node *);          /* elementwise, computed in registers */
bool hd_has_epilogue(const hd_node *);     /* its template runs elementwise lines on each finished vector */
int64_t hd_reduce_inner(const hd_node *);
hd_node *hd_base(hd_node *);              /* the node whose memory a chain of views shows */
hd_node *hd_identity_base(hd_node *);     /* through reshape and detach with an equal last axis only: same element at same (row, column) */
/* Input x of elementwise node n is a value of n's own group, at the same element. */
bool hd_in_registers(const hd_fusion *, const hd_node *n, hd_node *x);
int64_t hd_columns(const hd_node *);      /* size of the last axis; 1 for scalars */

#endif
