/* The table of operations: ops.def as an array, and exact arithmetic counts of the expensive ones. */
#include "internal.h"

#include "../pattern/cache.h"
#include "../pattern/pattern.h"

#define shape_none    NULL
#define eval_none     NULL
#define grad_none     NULL

const hd_op_info hd_ops[HD_OPS] = {
#define HD_OP(name, inputs, results, shape, eval, gradient, lowering, flops) \
    [HD_OP_##name] = { #name, inputs, results, shape_##shape, eval_##eval, grad_##gradient, lowering, flops },
#include "ops.def"
};

/* Kept pairs of all heads of one sequence. Layers share pattern values, so the last answer is usually asked again. */
static double kept_pairs(const hd_node *node)
{
    const hd_shape *q = &node->input[0]->shape, *k = &node->input[1]->shape;
    int64_t queries = q->size[q->rank - 2], keys = k->size[k->rank - 2];
    static const hd_pattern *last;
    static int64_t last_queries, last_keys, last_pairs;
    double pairs = 0;
    for (int i = 0; i < node->attr.attention.patterns; i++) {
        const hd_pattern *pattern = node->attr.attention.pattern[i];
        if (pattern != last || queries != last_queries || keys != last_keys) {
            last_pairs = hd_pattern_kept_pairs(pattern, queries, keys);
            last = pattern;
            last_queries = queries;
            last_keys = keys;
        }
        pairs += (double)last_pairs;
    }
    return node->attr.attention.patterns == 1 ? pairs * node->attr.attention.heads : pairs;
}

double hd_node_flops(const hd_node *node)
{
    double elements = (double)hd_elements(&node->shape);
    if (node->op == HD_OP_matmul) {
        const hd_shape *a = &node->input[0]->shape;
        return 2 * elements * (double)a->size[a->rank - (node->attr.matmul.trans_a ? 2 : 1)];
    }
    if (node->op == HD_OP_expert_matmul) return 2 * elements * (double)node->input[1]->shape.size[1];
    if (node->op == HD_OP_attention || node->op == HD_OP_attention_dx) {
        const hd_shape *q = &node->input[0]->shape;
        double per_sequence = (double)q->size[q->rank - 2] * node->attr.attention.heads * node->attr.attention.head_dim;
        double batch = (double)hd_elements(q) / per_sequence;
        return (node->op == HD_OP_attention ? 4 : 10) * (double)node->attr.attention.head_dim * kept_pairs(node) * batch;
    }
    if (node->op == HD_OP_attention_cached) {      /* at the mean position */
        const double rows = elements / ((double)node->attr.attention.heads * node->attr.attention.head_dim);
        return 4 * (double)node->attr.attention.head_dim * node->attr.attention.cache->keys_per_query * rows;
    }
    /* reductions work on what they read; the others on what they write */
    if (node->op == HD_OP_sum || node->op == HD_OP_reduce_max || node->op == HD_OP_cross_entropy || node->op == HD_OP_embedding_dw ||
        node->op == HD_OP_layer_norm_dgain || node->op == HD_OP_rms_norm_dgain) {
        elements = (double)hd_elements(&node->input[node->op == HD_OP_embedding_dw ? 1 : 0]->shape);
        if (node->op == HD_OP_cross_entropy) return 14 * elements;
    }
    if (node->op == HD_OP_gradient_norm || node->op == HD_OP_adamw) {
        elements = 0;
        int step = node->op == HD_OP_adamw ? 4 : 1;
        for (int i = node->op == HD_OP_adamw ? 2 : 1; i < node->inputs; i += step) elements += (double)hd_elements(&node->input[i]->shape);
    }
    return hd_ops[node->op].flops * elements;
}
