/* Where the positions of the tokens are, and whether a model reads only the past: row i of an output depends on positions 0..i
 * of the tokens and on nothing later.
 *
 * Follows the position axis of the tokens through the graph. A node either has no positions, or has them on one known axis,
 * or mixes them in a way this file does not follow, and then the answer is no: a wrong yes would let `used <= length` give
 * wrong results, a wrong no only costs the shorter run.
 *
 * Axis 0 stands for rows [batch * length]: sequences one after the other, as hd.in_chunks takes them. A slice of such rows is a part of
 * them, which each operation that treats rows alone may use, and which ends in a concatenation of all parts, made the same way from each. */
#include "internal.h"

#include "../pattern/pattern.h"

#include <string.h>

enum { NO_POSITIONS = HD_NO_POSITIONS, MIXED = HD_MIXED_POSITIONS };

/* Of a part of the rows: the first. */
static int64_t first_row(const hd_node *node, const int *axis)
{
    while (node->op != HD_OP_slice || node->attr.slice.axis != 0) {
        const hd_node *from = NULL;
        for (int i = 0; i < node->inputs && !from; i++) if (axis[node->input[i]->id] != NO_POSITIONS) from = node->input[i];
        if (!from || axis[from->id] != 0 || from->shape.size[0] != node->shape.size[0]) return 0;
        node = from;
    }
    return node->attr.slice.start;
}

/* Two parts of the rows are made the same way from the same tensors. */
static bool same_function(const hd_node *a, const hd_node *b, const int *axis)
{
    if (a == b) return true;
    const bool slice = a->op == HD_OP_slice && b->op == HD_OP_slice && a->attr.slice.axis == 0 && axis[a->id] == 0 && axis[b->id] == 0;
    if (a->op != b->op || a->inputs != b->inputs || axis[a->id] != axis[b->id] || a->shape.rank != b->shape.rank || a->op == HD_OP_param || a->op == HD_OP_input) return false;
    for (int i = axis[a->id] == 0 ? 1 : 0; i < a->shape.rank; i++) if (a->shape.size[i] != b->shape.size[i]) return false;
    if (slice) return a->input[0] == b->input[0];
    if (memcmp(&a->attr, &b->attr, sizeof a->attr)) return false;
    for (int i = 0; i < a->inputs; i++) if (!same_function(a->input[i], b->input[i], axis)) return false;
    return true;
}

static int joined_parts(const hd_node *node, const int *axis)
{
    int64_t rows = 0;
    for (int i = 0; i < node->inputs; i++) {
        if (axis[node->input[i]->id] != 0 || first_row(node->input[i], axis) != rows || !same_function(node->input[0], node->input[i], axis)) return MIXED;
        rows += node->input[i]->shape.size[0];
    }
    return 0;
}

static int last_axis(const hd_node *node) { return node->shape.rank - 1; }

/* Elementwise: axes are matched from the last. */
static int aligned(const hd_node *node, const int *axis)
{
    int out = NO_POSITIONS;
    for (int i = 0; i < node->inputs; i++) {
        int at = axis[node->input[i]->id];
        if (at == MIXED) return MIXED;
        if (at == NO_POSITIONS) continue;
        at += node->shape.rank - node->input[i]->shape.rank;
        if (out != NO_POSITIONS && out != at) return MIXED;
        out = at;
    }
    return out;
}

/* The axis of the new shape that holds exactly what axis `at` held. */
static int reshaped(const hd_shape *from, int at, const hd_shape *to)
{
    int64_t before = 1, outer = 1;
    for (int i = 0; i < at; i++) before *= from->size[i];
    for (int i = 0; i < to->rank; outer *= to->size[i++])
        if (outer == before && to->size[i] == from->size[at]) return i;
    return MIXED;
}

static int through_matmul(const hd_node *node, int a, int b)
{
    if (b != NO_POSITIONS || a == MIXED) return MIXED;
    int rank = node->input[0]->shape.rank;
    if (a < rank - 2) return a;
    return a == rank - 2 && !node->attr.matmul.trans_a ? a : MIXED;
}

static int through_attention(const hd_node *node, const int *axis)
{
    const hd_shape *q = &node->input[0]->shape, *k = &node->input[1]->shape;
    for (int i = 0; i < 3; i++)
        if (axis[node->input[i]->id] != q->rank - 2) return MIXED;
    for (int i = 3; i < node->inputs; i++) {
        /* a key's own bias, and a query's own bounds, may follow from the tokens there; all else is the same for every input */
        const int at = axis[node->input[i]->id];
        const bool key = i == hd_attention_input(node, HD_WITH_KEY_BIAS) && at == node->input[i]->shape.rank - 1 && at == 1;
        const bool query = i == hd_attention_input(node, HD_WITH_BOUNDS) && at == 1;
        if (at != NO_POSITIONS && !key && !query) return MIXED;
    }
    for (int p = 0; p < node->attr.attention.patterns; p++)
        if (!hd_pattern_causal(node->attr.attention.pattern[p], q->size[q->rank - 2], k->size[k->rank - 2])) return MIXED;
    return q->rank - 2;
}

static int position_axis(const hd_node *node, const int *axis, const hd_shape *tokens)
{
    bool any = false;
    for (int i = 0; i < node->inputs; i++) {
        if (axis[node->input[i]->id] == MIXED) return MIXED;
        any |= axis[node->input[i]->id] != NO_POSITIONS;
    }
    if (!any) return NO_POSITIONS;
    const hd_node *x = node->input[0], *rows = NULL;
    int at = axis[x->id];
    for (int i = 0; i < node->inputs; i++) {       /* rows of different parts do not meet */
        const hd_node *y = node->input[i];
        if (axis[y->id] != 0 || node->op == HD_OP_concat) continue;
        if (rows && (rows->shape.size[0] != y->shape.size[0] || first_row(rows, axis) != first_row(y, axis))) return MIXED;
        rows = y;
    }
    const int64_t all = tokens->size[0] * tokens->size[1];
    if (rows && (node->op == HD_OP_attention || node->op == HD_OP_rope || node->op == HD_OP_shift) && (tokens->size[0] > 1 || rows->shape.size[0] != all)) return MIXED;
    switch (node->op) {
    case HD_OP_embedding: return at == NO_POSITIONS ? axis[node->input[1]->id] : MIXED;
    case HD_OP_matmul: return through_matmul(node, at, axis[node->input[1]->id]);
    case HD_OP_attention: return through_attention(node, axis);
    /* the end of a document is known only later, but a causal query reads no key that late */
    case HD_OP_key_bounds: return node->attr.bounds.documents && at == 1 ? 1 : MIXED;
    case HD_OP_softmax:
    case HD_OP_top_k: return at == last_axis(node) ? MIXED : at;
    case HD_OP_layer_norm:
    case HD_OP_rms_norm:
    case HD_OP_cross_entropy:
        return at == last_axis(x) || at == NO_POSITIONS ? MIXED : at;
    case HD_OP_expert_matmul:
        return axis[node->input[1]->id] == NO_POSITIONS && axis[node->input[2]->id] == at && at < x->shape.rank - 2 ? at : MIXED;
    case HD_OP_rope: return at;
    case HD_OP_shift: return axis[node->input[1]->id] == NO_POSITIONS ? at : MIXED;
    case HD_OP_reshape: {
        const bool split = at == 0 && x->shape.size[0] == all && node->shape.rank > 1 && node->shape.size[0] == tokens->size[0] && node->shape.size[1] == tokens->size[1];
        if (split) return 1;
        if (at == 1 && x->shape.size[0] == tokens->size[0] && node->shape.rank > 0 && node->shape.size[0] == all) return 0;
        return reshaped(&x->shape, at, &node->shape);
    }
    case HD_OP_transpose:
        for (int i = 0; i < node->shape.rank; i++)
            if (node->attr.transpose.perm[i] == at) return i;
        return MIXED;
    case HD_OP_slice: return at == node->attr.slice.axis && (at != 0 || x->shape.size[0] != all) ? MIXED : at;
    case HD_OP_pad: return at == node->attr.pad.axis ? MIXED : at;
    case HD_OP_concat: {
        int out = aligned(node, axis);
        return out != node->attr.concat.axis ? out : out == 0 ? joined_parts(node, axis) : MIXED;
    }
    case HD_OP_sum:
    case HD_OP_reduce_max: return node->attr.reduce.axes >> at & 1 ? MIXED : at;
    case HD_OP_dropout: return at;
    case HD_OP_result:
        if (x->op == HD_OP_attention) return node->shape.rank - 1;    /* lse: [..., heads, queries] */
        return at < node->shape.rank ? at : MIXED;
    default: {
        /* elementwise ops; all others take positions nowhere but here, and are refused */
        const char *lowering = hd_ops[node->op].lowering;
        return lowering[0] == 'm' && lowering[1] == 'a' && lowering[2] == 'p' ? aligned(node, axis) : MIXED;
    }
    }
}

int *hd_position_axes(const hd_graph *graph, const hd_node *tokens)
{
    int *axis = HD_NEW_ARRAY(int, graph->nodes);
    for (int id = 0; id < graph->nodes; id++) axis[id] = graph->node[id] == tokens ? 1 : position_axis(graph->node[id], axis, &tokens->shape);
    return axis;
}

bool hd_causal(const hd_graph *graph, const hd_node *output, const hd_node *tokens) { return hd_position_axes(graph, tokens)[output->id] == 1; }
