/* Making forward values again in the backward pass, by clones of the nodes that made them.
 *
 * A clone is made just before the first node that reads it, from what is kept; nodes stay in a topological order, which is the
 * schedule, so a clone lives only while its readers run. What attention returns is never made again: its backward pass needs
 * it, and nothing costs more. */
#include "recompute.h"
#include "fuse.h"
#include <string.h>

typedef struct rebuild {
    const hd_keep *keep;        /* by old id */
    hd_node **clone;            /* by old id */
    int old_nodes;
    int nodes, capacity, ids, id_capacity;
    hd_node **node;             /* the new order */
    int *before;                /* old ids */
} rebuild;

static void append(rebuild *r, hd_node *n, int before)
{
    HD_PUSH(r->node, r->nodes, r->capacity, n);
    HD_PUSH(r->before, r->ids, r->id_capacity, before);
}

static hd_node *clone_of(rebuild *r, hd_node *n);

/* What a gradient's node (directly), or a clone, reads for x. */
static hd_node *read_as(rebuild *r, hd_node *x, bool directly)
{
    if (x->differentiates || !x->inputs) return x;
    if (hd_is_view(x)) {
        if (r->clone[x->id]) return r->clone[x->id];
        return read_as(r, x->input[0], directly) == x->input[0] ? x : clone_of(r, x);
    }
    if (r->keep[x->id] == HD_KEEP || (directly && r->keep[x->id] == HD_PASS)) return x;
    return clone_of(r, x);
}

static hd_node *clone_of(rebuild *r, hd_node *n)
{
    if (r->clone[n->id]) return r->clone[n->id];
    hd_node *again = HD_NEW(hd_node);
    *again = *n;
    again->input = HD_NEW_ARRAY(hd_node *, n->inputs);
    for (int i = 0; i < n->inputs; i++) again->input[i] = read_as(r, n->input[i], false);
    again->clone = again->again = true;
    append(r, again, n->id);
    return r->clone[n->id] = again;
}

int *hd_insert_clones(hd_graph *g, const hd_keep *keep)
{
    rebuild r = { .keep = keep, .clone = HD_NEW_ARRAY(hd_node *, g->nodes), .old_nodes = g->nodes };
    bool *needed = HD_NEW_ARRAY(bool, g->nodes);            /* the dead must not pull clones forward */
    for (int e = 0; e < g->entries; e++) {
        for (int i = 0; i < g->entry[e]->outputs; i++) needed[g->entry[e]->output[i].node->id] = true;
        for (int i = 0; i < g->entry[e]->effects; i++) needed[g->entry[e]->effect[i]->id] = true;
    }
    for (int i = g->nodes - 1; i >= 0; i--)
        for (int k = 0; needed[i] && k < g->node[i]->inputs; k++) needed[g->node[i]->input[k]->id] = true;
    for (int i = 0; i < g->nodes; i++) {
        hd_node *n = g->node[i];
        for (int k = 0; needed[i] && n->differentiates && k < n->inputs; k++) n->input[k] = read_as(&r, n->input[k], true);
        append(&r, n, i);
    }
    g->node = r.node, g->nodes = r.nodes, g->node_capacity = r.capacity;
    for (int i = 0; i < g->nodes; i++) g->node[i]->id = i;
    return r.before;
}

/* The node that made what a chain of views shows. */
static const hd_node *maker(const hd_node *n)
{
    while (hd_is_view(n)) n = n->input[0];
    return n;
}

void hd_recompute_marked(hd_graph *g)
{
    hd_keep *keep = HD_NEW_ARRAY(hd_keep, g->nodes);
    bool any = false;
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->block && !n->differentiates && n->op != HD_OP_attention) keep[i] = HD_AGAIN, any = true;
    }
    if (!any) return;
    /* what crosses a block's border is kept */
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        for (int k = 0; !n->differentiates && k < n->inputs; k++) {
            const hd_node *x = maker(n->input[k]);
            if (x->block != n->block) keep[x->id] = HD_KEEP;
        }
    }
    for (int e = 0; e < g->entries; e++)
        for (int i = 0; i < g->entry[e]->outputs; i++) keep[maker(g->entry[e]->output[i].node)->id] = HD_KEEP;
    hd_insert_clones(g, keep);
}
