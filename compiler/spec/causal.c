/* Whether a model reads only the past: row i of an output depends on positions 0..i of the tokens and on nothing later.
 *
 * Follows the position axis of the tokens through the graph. A node either has no positions, or has them on one known axis,
 * or mixes them in a way this file does not follow, and then the answer is no: a wrong yes would let `used <= length` give
 * wrong results, a wrong no only costs the shorter run. */
#include "sandbox.h"

#include "../pattern/pattern.h"

enum { NO_POSITIONS = -1, MIXED = -2 };

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

static int position_axis(const hd_node *node, const int *axis)
{
    bool any = false;
    for (int i = 0; i < node->inputs; i++) {
        if (axis[node->input[i]->id] == MIXED) return MIXED;
        any |= axis[node->input[i]->id] != NO_POSITIONS;
    }
    if (!any) return NO_POSITIONS;
    const hd_node *x = node->input[0];
    int at = axis[x->id];
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
    case HD_OP_reshape: return reshaped(&x->shape, at, &node->shape);
    case HD_OP_transpose:
        for (int i = 0; i < node->shape.rank; i++)
            if (node->attr.transpose.perm[i] == at) return i;
        return MIXED;
    case HD_OP_slice: return at == node->attr.slice.axis ? MIXED : at;
    case HD_OP_pad: return at == node->attr.pad.axis ? MIXED : at;
    case HD_OP_concat: {
        int out = aligned(node, axis);
        return out == node->attr.concat.axis ? MIXED : out;
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

bool hd_causal(const hd_graph *graph, const hd_node *output, const hd_node *tokens)
{
    int *axis = HD_NEW_ARRAY(int, output->id + 1);
    for (int id = 0; id <= output->id; id++) {
        const hd_node *node = graph->node[id];
        axis[id] = node == tokens ? 1 : position_axis(node, axis);
    }
    return axis[output->id] == 1;
}
