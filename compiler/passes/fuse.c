/* Elementwise fusion.
 *
 * Two rules. An elementwise node joins the latest group that makes one of its inputs, if it reads that group's values at the
 * very (row, column) where they are made: bias, activation, residual become the epilogue of a product, and no value that dies
 * there is stored. And a node whose single user is elementwise and of the same shape waits for that user (it is deferred):
 * so gelu'(x) is computed where the gradient needs it, instead of being stored by the forward pass.
 *
 * Rejected: joining later groups of equal shape without a data edge (horizontal fusion); it lengthens lifetimes and saves
 * nothing on one-output transformer blocks. */
#include "fuse.h"
#include <string.h>

bool hd_is_view(const hd_node *n)
{
    return n->op == HD_OP_reshape || n->op == HD_OP_slice || n->op == HD_OP_expand || n->op == HD_OP_transpose ||
           n->op == HD_OP_detach || n->op == HD_OP_result;
}

bool hd_is_map(const hd_node *n)
{
    return n->op != HD_OP_constant && !hd_is_view(n) && !strcmp(hd_ops[n->op].lowering, "map");
}

hd_node *hd_base(hd_node *n)
{
    while (hd_is_view(n) && n->op != HD_OP_result) n = n->input[0];
    return n;
}

int64_t hd_columns(const hd_node *n) { return n->shape.rank ? n->shape.size[n->shape.rank - 1] : 1; }

hd_node *hd_identity_base(hd_node *n)
{
    while ((n->op == HD_OP_reshape || n->op == HD_OP_detach) && hd_columns(n) == hd_columns(n->input[0])) n = n->input[0];
    return n;
}

bool hd_in_registers(const hd_fusion *f, const hd_node *n, hd_node *x)
{
    const hd_node *made = hd_identity_base(x);
    return !hd_is_view(made) && f->group[made->id] >= 0 && f->group[made->id] == f->group[n->id];
}

bool hd_has_epilogue(const hd_node *n)
{
    switch (n->op) {
    case HD_OP_matmul: case HD_OP_layer_norm: case HD_OP_layer_norm_dx: case HD_OP_rms_norm: case HD_OP_rms_norm_dx:
    case HD_OP_softmax: case HD_OP_softmax_dx: case HD_OP_cross_entropy_dx: case HD_OP_embedding: case HD_OP_embedding_dw:
    case HD_OP_layer_norm_dgain: case HD_OP_rms_norm_dgain: case HD_OP_rope: case HD_OP_rope_at:
        return true;
    case HD_OP_sum: case HD_OP_reduce_max:
        return hd_reduce_inner(n) == hd_columns(n);      /* the epilogue counts rows by the last axis */
    default:
        return false;
    }
}

/* Elements after the last reduced axis: what one row of the reduction's kernel holds. */
int64_t hd_reduce_inner(const hd_node *n)
{
    int64_t inner = 1;
    for (int i = n->shape.rank - 1; i >= 0 && !(n->attr.reduce.axes >> i & 1); i--) inner *= n->shape.size[i];
    return inner;
}

/* Group that makes the memory behind n; -1 for sources. */
static int producer(const hd_fusion *f, hd_node *n)
{
    n = hd_base(n);
    if (n->op == HD_OP_result) n = n->input[0];
    return f->group[n->id];
}

/* Most elementwise nodes of one group, and most tensors it reads: registers and arguments are not without end. */
enum { MOST_MAPS = 24, MOST_LOADS = 16 };

typedef struct state { hd_fusion *f; int *uses, *maps, *loads; hd_node **user; bool *deferred; } state;   /* maps, loads: of a node with all that is deferred to it */

static bool defers(const state *s, const hd_node *n)
{
    return s->uses[n->id] == 1 && s->user[n->id] && hd_is_map(s->user[n->id]) && hd_same_shape(&s->user[n->id]->shape, &n->shape) &&
           n->op != HD_OP_accumulate;
}

/* How much a node would bring into a group with the deferred nodes below it. */
static void weigh(state *s, const hd_node *n)
{
    s->maps[n->id] = 1, s->loads[n->id] = 0;
    for (int i = 0; i < n->inputs; i++) {
        const hd_node *x = n->input[i];
        s->maps[n->id] += s->deferred[x->id] ? s->maps[x->id] : 0;
        s->loads[n->id] += s->deferred[x->id] ? s->loads[x->id] : 1;
    }
}

static void latest_producer(const state *s, hd_node *n, int *latest)
{
    for (int i = 0; i < n->inputs; i++) {
        hd_node *x = n->input[i];
        if (s->deferred[x->id]) { latest_producer(s, x, latest); continue; }
        const int g = producer(s->f, x);
        if (g > *latest) *latest = g;
    }
}

/* All that n reads from group g is read where it is made. */
static bool reads_in_place(const state *s, hd_node *n, int g)
{
    for (int i = 0; i < n->inputs; i++) {
        hd_node *x = n->input[i];
        if (s->deferred[x->id]) {
            if (!reads_in_place(s, x, g)) return false;
        } else if (producer(s->f, x) == g) {
            hd_node *made = hd_identity_base(x);
            if (hd_is_view(made) || hd_elements(&x->shape) != hd_elements(&n->shape) || hd_columns(x) != hd_columns(n)) return false;
        }
    }
    return true;
}

static void append(state *s, hd_node *n, int g)
{
    for (int i = 0; i < n->inputs; i++)
        if (s->deferred[n->input[i]->id]) {
            s->deferred[n->input[i]->id] = false;
            append(s, n->input[i], g);
        }
    hd_fused *fused = &s->f->fused[g];
    HD_PUSH(fused->map, fused->maps, fused->map_capacity, n);
    s->f->group[n->id] = g;
}

static int new_group(hd_fusion *f, hd_node *root)
{
    HD_PUSH(f->fused, f->groups, f->capacity, ((hd_fused){ .root = root }));
    return f->groups - 1;
}

static void place(state *s, hd_node *n)
{
    int g = -1;
    latest_producer(s, n, &g);
    if (g >= 0) {
        const hd_fused *fused = &s->f->fused[g];
        const hd_node *shape = fused->root ? fused->root : fused->map[0];
        if ((fused->root && !hd_has_epilogue(fused->root)) || hd_elements(&shape->shape) != hd_elements(&n->shape) ||
            hd_columns(shape) != hd_columns(n) || fused->maps + s->maps[n->id] > MOST_MAPS || fused->loads + s->loads[n->id] > MOST_LOADS || !reads_in_place(s, n, g))
            g = -1;
    }
    if (g < 0) g = new_group(s->f, NULL);
    append(s, n, g);
    s->f->fused[g].loads += s->loads[n->id];
}

static void mark_stored(hd_fusion *f)
{
    for (int i = 0; i < f->graph->nodes; i++) {
        hd_node *n = f->graph->node[i];
        if (!f->needed[i] || hd_is_view(n)) continue;
        for (int k = 0; k < n->inputs; k++) {
            hd_node *x = n->input[k], *base = hd_base(x);
            const bool in_registers = hd_is_map(n) && f->group[n->id] == producer(f, x) && f->group[n->id] >= 0;
            if (!in_registers) f->stored[base->id] = true;
        }
    }
    for (int i = 0; i < f->entry->outputs; i++) f->stored[hd_base(f->entry->output[i].node)->id] = true;
    for (int i = 0; i < f->entry->effects; i++) f->stored[hd_base(f->entry->effect[i])->id] = true;
}

hd_fusion *hd_fuse(const hd_graph *g, const hd_entry *entry)
{
    hd_fusion *f = HD_NEW(hd_fusion);
    f->graph = g, f->entry = entry;
    f->needed = HD_NEW_ARRAY(bool, g->nodes);
    f->stored = HD_NEW_ARRAY(bool, g->nodes);
    f->group = HD_NEW_ARRAY(int, g->nodes);
    state s = { f, HD_NEW_ARRAY(int, g->nodes), HD_NEW_ARRAY(int, g->nodes), HD_NEW_ARRAY(int, g->nodes), HD_NEW_ARRAY(hd_node *, g->nodes), HD_NEW_ARRAY(bool, g->nodes) };

    for (int i = 0; i < entry->outputs; i++) f->needed[entry->output[i].node->id] = true, s.uses[entry->output[i].node->id] += 2;
    for (int i = 0; i < entry->effects; i++) f->needed[entry->effect[i]->id] = true, s.uses[entry->effect[i]->id] += 2;
    for (int i = g->nodes - 1; i >= 0; i--) {
        if (!f->needed[i]) continue;
        for (int k = 0; k < g->node[i]->inputs; k++) {
            hd_node *x = g->node[i]->input[k];
            f->needed[x->id] = true;
            s.uses[x->id]++;
            s.user[x->id] = g->node[i];
        }
    }
    for (int i = 0; i < g->nodes; i++) {
        hd_node *n = g->node[i];
        f->group[i] = -1;
        if (!f->needed[i] || hd_is_view(n) || n->op == HD_OP_constant || n->op == HD_OP_input || n->op == HD_OP_param) continue;
        if (!hd_is_map(n)) {
            f->group[i] = new_group(f, n);
            continue;
        }
        for (int k = 0; k < n->inputs; k++) {          /* a tree too large for one group is cut here */
            weigh(&s, n);
            hd_node *x = n->input[k];
            if ((s.maps[i] <= MOST_MAPS && s.loads[i] <= MOST_LOADS) || !s.deferred[x->id]) continue;
            s.deferred[x->id] = false;
            place(&s, x);
        }
        weigh(&s, n);
        if (defers(&s, n)) s.deferred[i] = true;
        else place(&s, n);
    }
    mark_stored(f);
    return f;
}
