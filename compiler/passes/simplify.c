/* Graph to graph: rewrites that remove nodes, then common subexpressions, in one sweep in topological order.
 *
 * A node is rewritten in place or replaced by an earlier one, so creation order stays a topological order. Dead nodes are
 * left: every later pass starts from an entry's outputs and effects. Nothing here changes a value by a single bit, with one
 * exception that cannot be seen: x + 0 for x = -0. */
#include "passes.h"
#include <stdlib.h>
#include <string.h>

static bool is_constant(const hd_node *n, double value) { return n->op == HD_OP_constant && n->attr.constant.value == value; }

/* The sum of zero-padded pieces that tile one axis exactly (the gradient of a split) is their concatenation. */
enum { MAX_PIECES = 64 };
static bool collect_pads(hd_node *n, hd_node **pad, int *pads)
{
    if (n->op == HD_OP_pad) {
        if (*pads == MAX_PIECES) return false;
        pad[(*pads)++] = n;
        return true;
    }
    return n->op == HD_OP_add && collect_pads(n->input[0], pad, pads) && collect_pads(n->input[1], pad, pads);
}

static void sum_of_pads_to_concat(hd_node *n)
{
    hd_node *pad[MAX_PIECES];
    int pads = 0;
    if (n->op != HD_OP_add || !collect_pads(n, pad, &pads)) return;
    const int axis = pad[0]->attr.pad.axis;
    int64_t at = 0;
    hd_node **piece = HD_NEW_ARRAY(hd_node *, pads);
    for (int placed = 0; placed < pads; placed++) {
        hd_node *next = NULL;
        for (int i = 0; i < pads; i++)
            if (pad[i]->attr.pad.axis == axis && pad[i]->attr.pad.before == at) next = pad[i];
        if (!next || !hd_same_shape(&next->shape, &n->shape)) return;
        piece[placed] = next->input[0];
        at += next->input[0]->shape.size[axis];
    }
    if (at != n->shape.size[axis]) return;
    n->op = HD_OP_concat;
    n->inputs = pads;
    n->input = piece;
    memset(&n->attr, 0, sizeof n->attr);
    n->attr.concat.axis = axis;
}

/* An earlier node with the same value, or n itself. */
static hd_node *rewrite(hd_node *n)
{
    hd_node *x = n->inputs > 0 ? n->input[0] : NULL, *y = n->inputs > 1 ? n->input[1] : NULL;
    switch (n->op) {
    case HD_OP_reshape:
        if (x->op == HD_OP_reshape) n->input[0] = x = x->input[0];
        return hd_same_shape(&x->shape, &n->shape) ? x : n;
    case HD_OP_slice: case HD_OP_expand: case HD_OP_pad:
        return hd_same_shape(&x->shape, &n->shape) ? x : n;
    case HD_OP_sum: case HD_OP_reduce_max:
        return hd_same_shape(&x->shape, &n->shape) ? x : n;
    case HD_OP_transpose:
        for (int i = 0; i < n->shape.rank; i++) if (n->attr.transpose.perm[i] != i) return n;
        return x;
    case HD_OP_neg: return x->op == HD_OP_neg ? x->input[0] : n;
    case HD_OP_add:
        if (is_constant(y, 0) && hd_same_shape(&x->shape, &n->shape)) return x;
        if (is_constant(x, 0) && hd_same_shape(&y->shape, &n->shape)) return y;
        sum_of_pads_to_concat(n);
        return n;
    case HD_OP_sub: return is_constant(y, 0) && hd_same_shape(&x->shape, &n->shape) ? x : n;
    case HD_OP_mul:
        if (is_constant(y, 1) && hd_same_shape(&x->shape, &n->shape)) return x;
        if (is_constant(x, 1) && hd_same_shape(&y->shape, &n->shape)) return y;
        return n;
    case HD_OP_div: return is_constant(y, 1) && hd_same_shape(&x->shape, &n->shape) ? x : n;
    case HD_OP_dropout: return n->attr.dropout.p == 0 ? x : n;
    case HD_OP_concat: return n->inputs == 1 ? x : n;
    default: return n;
    }
}

static bool mergeable(hd_op op)
{
    return op != HD_OP_input && op != HD_OP_param && op != HD_OP_accumulate && op != HD_OP_adamw;
}

static uint64_t key_of(const hd_node *n)
{
    uint64_t h = hd_hash(&n->op, sizeof n->op, 0);
    h = hd_hash(&n->shape, sizeof n->shape, h);
    h = hd_hash(&n->attr, sizeof n->attr, h);
    for (int i = 0; i < n->inputs; i++) h = hd_hash(&n->input[i]->id, sizeof n->input[i]->id, h);
    return h;
}

static bool same_value(const hd_node *a, const hd_node *b)
{
    if (a->op != b->op || a->dtype != b->dtype || a->inputs != b->inputs || a->clone != b->clone) return false;
    if (memcmp(&a->attr, &b->attr, sizeof a->attr) || !hd_same_shape(&a->shape, &b->shape)) return false;
    for (int i = 0; i < a->inputs; i++) if (a->input[i] != b->input[i]) return false;
    return true;
}

void hd_simplify(hd_graph *g)
{
    hd_node **now = HD_NEW_ARRAY(hd_node *, g->nodes);      /* by id: the node that stands for it */
    int slots = 64;
    while (slots < 2 * g->nodes) slots *= 2;
    hd_node **table = HD_NEW_ARRAY(hd_node *, slots);
    for (int i = 0; i < g->nodes; i++) {
        hd_node *n = g->node[i];
        for (int k = 0; k < n->inputs; k++) n->input[k] = now[n->input[k]->id];
        hd_node *r = rewrite(n);
        if (r == n && mergeable(n->op)) {
            uint64_t at = key_of(n);
            while (table[at & (uint64_t)(slots - 1)] && !same_value(table[at & (uint64_t)(slots - 1)], n)) at++;
            if (table[at & (uint64_t)(slots - 1)]) r = table[at & (uint64_t)(slots - 1)];
            else table[at & (uint64_t)(slots - 1)] = n;
        }
        now[i] = r;
    }
    for (int e = 0; e < g->entries; e++) {
        hd_entry *entry = g->entry[e];
        for (int i = 0; i < entry->outputs; i++) entry->output[i].node = now[entry->output[i].node->id];
        for (int i = 0; i < entry->effects; i++) entry->effect[i] = now[entry->effect[i]->id];
    }
}
