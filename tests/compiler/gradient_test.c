/* Every gradient rule against central differences of the reference interpreter, at awkward shapes; recomputation; the
 * training step. A differentiable op without a row in `cases` fails the first test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../compiler/passes/recompute.h"
#include "../../compiler/pattern/pattern.h"
#include "../../runtime/core/hd_random.h"

#define SHAPE(...) { (int)(sizeof (int64_t[]){ __VA_ARGS__ } / sizeof(int64_t)), { __VA_ARGS__ } }
#define SCALAR { 0, { 0 } }

static const hd_pattern causal = { .kind = HD_PATTERN_CAUSAL }, window = { .kind = HD_PATTERN_WINDOW, .left = 2, .right = 0 },
                        stride = { .kind = HD_PATTERN_STRIDE, .stride = 3 }, full = { .kind = HD_PATTERN_FULL },
                        either = { .kind = HD_PATTERN_OR, .a = &window, .b = &stride },
                        strided = { .kind = HD_PATTERN_AND, .a = &causal, .b = &either },
                        past = { .kind = HD_PATTERN_MINUS, .a = &causal, .b = &(const hd_pattern){ .kind = HD_PATTERN_WINDOW } };   /* row 0 has no keys */
static const hd_pattern *const one_pattern[] = { &strided }, *const two_patterns[] = { &strided, &past }, *const full_pattern[] = { &full }, *const past_pattern[] = { &past };
static const hd_buckets five_distances = { .first = -1, .count = 5, .buckets = 3, .bucket = (const int32_t[]){ 0, 0, 1, 2, 2 } };

/* One op under test. Values of inputs lie in [low, high]; ids are below `ids`. `shape`: for ops that need their result's. */
static const struct row {
    hd_op op;
    const char *why;
    int inputs;
    hd_shape input[8];
    double low, high;
    hd_attr attr;
    hd_shape shape;
    int ids;
} cases[] = {
    { .op = HD_OP_neg, .inputs = 1, .input = { SHAPE(3, 5) }, .low = -2, .high = 2 },
    { .op = HD_OP_exp, .inputs = 1, .input = { SHAPE(7) }, .low = -2, .high = 2 },
    { .op = HD_OP_log, .inputs = 1, .input = { SHAPE(7) }, .low = 0.5, .high = 3 },
    { .op = HD_OP_sqrt, .inputs = 1, .input = { SHAPE(7) }, .low = 0.5, .high = 3 },
    { .op = HD_OP_rsqrt, .inputs = 1, .input = { SHAPE(7) }, .low = 0.5, .high = 3 },
    { .op = HD_OP_abs, .inputs = 1, .input = { SHAPE(9) }, .low = -2, .high = 2 },
    { .op = HD_OP_sin, .inputs = 1, .input = { SHAPE(9) }, .low = -4, .high = 4 },
    { .op = HD_OP_cos, .inputs = 1, .input = { SHAPE(9) }, .low = -4, .high = 4 },
    { .op = HD_OP_tanh, .inputs = 1, .input = { SHAPE(9) }, .low = -3, .high = 3 },
    { .op = HD_OP_erf, .inputs = 1, .input = { SHAPE(9) }, .low = -3, .high = 3 },
    { .op = HD_OP_sigmoid, .inputs = 1, .input = { SHAPE(9) }, .low = -5, .high = 5 },
    { .op = HD_OP_relu, .inputs = 1, .input = { SHAPE(9) }, .low = -2, .high = 2 },
    { .op = HD_OP_silu, .inputs = 1, .input = { SHAPE(9) }, .low = -5, .high = 5 },
    { .op = HD_OP_gelu, .inputs = 1, .input = { SHAPE(9) }, .low = -4, .high = 4 },
    { .op = HD_OP_gelu_tanh, .inputs = 1, .input = { SHAPE(9) }, .low = -4, .high = 4 },
    { .op = HD_OP_gelu_quick, .inputs = 1, .input = { SHAPE(9) }, .low = -4, .high = 4 },
    { .op = HD_OP_add, .why = "same shapes", .inputs = 2, .input = { SHAPE(2, 3), SHAPE(2, 3) }, .low = -2, .high = 2 },
    { .op = HD_OP_add, .why = "a row is repeated", .inputs = 2, .input = { SHAPE(2, 3, 5), SHAPE(5) }, .low = -2, .high = 2 },
    { .op = HD_OP_sub, .why = "both broadcast", .inputs = 2, .input = { SHAPE(3, 1, 2), SHAPE(4, 1) }, .low = -2, .high = 2 },
    { .op = HD_OP_mul, .why = "a number on the left", .inputs = 2, .input = { SCALAR, SHAPE(2, 5) }, .low = -2, .high = 2 },
    { .op = HD_OP_mul, .why = "middle axis of size 1", .inputs = 2, .input = { SHAPE(2, 3, 4), SHAPE(2, 1, 4) }, .low = -2, .high = 2 },
    { .op = HD_OP_div, .why = "both broadcast", .inputs = 2, .input = { SHAPE(2, 1), SHAPE(1, 3) }, .low = 0.5, .high = 2 },
    { .op = HD_OP_max, .inputs = 2, .input = { SHAPE(4, 3), SHAPE(3) }, .low = -2, .high = 2 },
    { .op = HD_OP_min, .inputs = 2, .input = { SHAPE(4, 3), SHAPE(4, 1) }, .low = -2, .high = 2 },
    { .op = HD_OP_where, .why = "all three broadcast; no gradient to the condition", .inputs = 3, .input = { SHAPE(3, 1), SHAPE(5), SHAPE(2, 1, 1) }, .low = -2, .high = 2 },
    { .op = HD_OP_dropout, .inputs = 2, .input = { SHAPE(5, 7), SHAPE(4) }, .low = -2, .high = 2, .attr.dropout = { 0.3, 5 }, .ids = 9 },
    { .op = HD_OP_reshape, .inputs = 1, .input = { SHAPE(2, 6) }, .low = -2, .high = 2, .shape = SHAPE(3, 1, 4) },
    { .op = HD_OP_slice, .why = "the middle of the middle axis", .inputs = 1, .input = { SHAPE(2, 5, 3) }, .low = -2, .high = 2, .attr.slice = { 1, 2 }, .shape = SHAPE(2, 2, 3) },
    { .op = HD_OP_slice, .why = "the end of the last axis", .inputs = 1, .input = { SHAPE(2, 5) }, .low = -2, .high = 2, .attr.slice = { 1, 4 }, .shape = SHAPE(2, 1) },
    { .op = HD_OP_transpose, .why = "a cycle of three axes", .inputs = 1, .input = { SHAPE(2, 3, 5) }, .low = -2, .high = 2, .attr.transpose = { { 2, 0, 1 } } },
    { .op = HD_OP_expand, .inputs = 1, .input = { SHAPE(3, 1) }, .low = -2, .high = 2, .shape = SHAPE(2, 3, 4) },
    { .op = HD_OP_concat, .inputs = 3, .input = { SHAPE(2, 1, 3), SHAPE(2, 4, 3), SHAPE(2, 2, 3) }, .low = -2, .high = 2, .attr.concat = { 1 } },
    { .op = HD_OP_shift, .inputs = 2, .input = { SHAPE(2, 4, 3), SHAPE(3) }, .low = -2, .high = 2, .attr.shift = { 1 } },
    { .op = HD_OP_shift, .why = "a length of 1", .inputs = 2, .input = { SHAPE(2, 1, 3), SHAPE(3) }, .low = -2, .high = 2, .attr.shift = { 1 } },
    { .op = HD_OP_sum, .why = "first and last axis", .inputs = 1, .input = { SHAPE(2, 3, 4) }, .low = -2, .high = 2, .attr.reduce = { 5 } },
    { .op = HD_OP_reduce_max, .inputs = 1, .input = { SHAPE(3, 7) }, .low = -2, .high = 2, .attr.reduce = { 2 } },
    { .op = HD_OP_matmul, .why = "two matrices", .inputs = 2, .input = { SHAPE(3, 5), SHAPE(5, 2) }, .low = -1, .high = 1 },
    { .op = HD_OP_matmul, .why = "b shared by a stack", .inputs = 2, .input = { SHAPE(2, 3, 5), SHAPE(5, 2) }, .low = -1, .high = 1 },
    { .op = HD_OP_matmul, .why = "b shared and transposed", .inputs = 2, .input = { SHAPE(2, 2, 3, 5), SHAPE(4, 5) }, .low = -1, .high = 1, .attr.matmul = { false, true } },
    { .op = HD_OP_matmul, .why = "two stacks", .inputs = 2, .input = { SHAPE(2, 3, 5), SHAPE(2, 5, 4) }, .low = -1, .high = 1 },
    { .op = HD_OP_matmul, .why = "stacks, a transposed", .inputs = 2, .input = { SHAPE(2, 5, 3), SHAPE(2, 5, 4) }, .low = -1, .high = 1, .attr.matmul = { true, false } },
    { .op = HD_OP_matmul, .why = "stacks, b transposed", .inputs = 2, .input = { SHAPE(2, 3, 5), SHAPE(2, 4, 5) }, .low = -1, .high = 1, .attr.matmul = { false, true } },
    { .op = HD_OP_matmul, .why = "stacks, both transposed", .inputs = 2, .input = { SHAPE(2, 5, 3), SHAPE(2, 4, 5) }, .low = -1, .high = 1, .attr.matmul = { true, true } },
    { .op = HD_OP_softmax, .inputs = 1, .input = { SHAPE(2, 3, 5) }, .low = -3, .high = 3 },
    { .op = HD_OP_layer_norm, .inputs = 3, .input = { SHAPE(2, 3, 7), SHAPE(7), SHAPE(7) }, .low = -2, .high = 2, .attr.norm = { 1e-5 } },
    { .op = HD_OP_rms_norm, .inputs = 2, .input = { SHAPE(5, 3), SHAPE(3) }, .low = -2, .high = 2, .attr.norm = { 1e-6 } },
    { .op = HD_OP_cross_entropy, .why = "some targets count nothing", .inputs = 2, .input = { SHAPE(3, 4, 5), SHAPE(3, 4) }, .low = -3, .high = 3, .ids = 5 },
    { .op = HD_OP_embedding, .why = "an id may repeat", .inputs = 2, .input = { SHAPE(4, 3), SHAPE(2, 5) }, .low = -2, .high = 2, .ids = 4 },
    { .op = HD_OP_rope, .why = "halves, some dims left alone", .inputs = 1, .input = { SHAPE(2, 5, 12) }, .low = -2, .high = 2, .attr.rope = { .axis = 1, .head_dim = 6, .dims = 4, .base = 100 } },
    { .op = HD_OP_rope, .why = "pairs, heads first", .inputs = 1, .input = { SHAPE(2, 3, 5, 4) }, .low = -2, .high = 2, .attr.rope = { .axis = 2, .head_dim = 4, .dims = 4, .base = 100, .pairs = true } },
    { .op = HD_OP_rope, .why = "listed angles, scaled", .inputs = 1, .input = { SHAPE(2, 5, 12) }, .low = -2, .high = 2,
      .attr.rope = { .axis = 1, .head_dim = 6, .dims = 4, .base = 1, .frequency = (const double[]){ 0.7, 0.1 }, .scale = 1.5 } },
    { .op = HD_OP_attention, .why = "heads beside each other", .inputs = 3, .input = { SHAPE(2, 7, 6), SHAPE(2, 7, 6), SHAPE(2, 7, 6) }, .low = -2, .high = 2,
      .attr.attention = { .heads = 2, .scale = 0.6, .patterns = 1, .pattern = (const hd_pattern **)one_pattern } },
    { .op = HD_OP_attention, .why = "a pattern per head, one with a row without keys", .inputs = 3, .input = { SHAPE(2, 5, 3), SHAPE(2, 5, 3), SHAPE(2, 5, 3) }, .low = -2, .high = 2,
      .attr.attention = { .heads = 2, .heads_first = true, .patterns = 2, .pattern = (const hd_pattern **)two_patterns } },
    { .op = HD_OP_attention, .why = "two heads share one of k and v; other lengths", .inputs = 3, .input = { SHAPE(3, 12), SHAPE(5, 6), SHAPE(5, 6) }, .low = -2, .high = 2,
      .attr.attention = { .heads = 4, .kv_heads = 2, .patterns = 1, .pattern = (const hd_pattern **)full_pattern } },
    { .op = HD_OP_attention, .why = "everything a score may take in", .inputs = 8, .low = -2, .high = 2,
      .input = { SHAPE(2, 7, 6), SHAPE(2, 7, 6), SHAPE(2, 7, 6), SHAPE(2), SHAPE(2, 3), SHAPE(2, 7), SHAPE(2, 23), SHAPE(2, 7, 2) },
      .attr.attention = { .heads = 2, .softcap = 1.5, .alibi = (const double[]){ 0.5, 0.25 }, .offset = 1, .buckets = &five_distances, .patterns = 1, .pattern = (const hd_pattern **)one_pattern,
                          .with = HD_WITH_SINKS | HD_WITH_BIAS | HD_WITH_KEY_BIAS | HD_WITH_EDGE_BIAS | HD_WITH_BOUNDS } },
    { .op = HD_OP_attention, .why = "biases that heads and sequences share; heads first", .inputs = 6, .low = -2, .high = 2,
      .input = { SHAPE(2, 2, 5, 3), SHAPE(2, 1, 5, 3), SHAPE(2, 1, 5, 3), SHAPE(2), SHAPE(5), SHAPE(14) },
      .attr.attention = { .heads = 2, .kv_heads = 1, .heads_first = true, .patterns = 1, .pattern = (const hd_pattern **)one_pattern, .with = HD_WITH_SINKS | HD_WITH_KEY_BIAS | HD_WITH_EDGE_BIAS } },
    { .op = HD_OP_attention, .why = "sinks where a row has no keys; no axes before the positions", .inputs = 4, .input = { SHAPE(4, 4), SHAPE(4, 4), SHAPE(4, 4), SHAPE(2) }, .low = -2, .high = 2,
      .attr.attention = { .heads = 2, .patterns = 1, .pattern = (const hd_pattern **)past_pattern, .with = HD_WITH_SINKS } },
};
enum { CASES = sizeof cases / sizeof *cases };

static double uniform(uint64_t name, uint64_t element, double low, double high) { return low + (high - low) * (0.5 + 0.5 * hd_init_value(2, 1, 7, name, element)); }

static hd_node *source(hd_graph *graph, hd_op op, const char *name, hd_dtype dtype, const hd_shape *shape, const hd_attr *attr)
{
    hd_node *node = hd_graph_add(graph, op, (hd_where){ "test.lua", 1 }, dtype, shape, 0, NULL, attr);
    node->name = name;
    return node;
}
static hd_node *apply(hd_graph *graph, hd_op op, hd_node *a, hd_node *b, const hd_attr *attr)
{
    return hd_graph_add(graph, op, (hd_where){ "test.lua", 2 }, HD_F32, NULL, b ? 2 : 1, (hd_node *[]){ a, b }, attr);
}
static hd_node *total(hd_graph *graph, hd_node *x)
{
    hd_attr all = { .reduce = { (1u << x->shape.rank) - 1 } };
    return apply(graph, HD_OP_sum, x, NULL, &all);
}
static hd_entry *entry_of(hd_graph *graph, const char *name, int outputs, hd_node *const *node)
{
    hd_entry *entry = hd_graph_entry(graph, name);
    entry->outputs = outputs;
    entry->output = HD_NEW_ARRAY(hd_named, outputs);
    for (int i = 0; i < outputs; i++) entry->output[i] = (hd_named){ hd_format("y%d", i), node[i] };
    return entry;
}

static bool is_ids(const struct row *c, int i)
{
    if (c->op == HD_OP_attention) return i == 7;
    return i == 1 && (c->op == HD_OP_embedding || c->op == HD_OP_cross_entropy || c->op == HD_OP_dropout);
}

/* loss = sum(y * weights) with fixed weights that differ for every element. Returns the worst error of all gradients,
 * relative to each tensor's largest. */
static double worst_error(const struct row *c)
{
    hd_graph *graph = hd_graph_new("test.lua");
    hd_eval *eval = NULL;
    hd_node *input[8], *gradient[8], *tensor[8];
    double *value[8];
    int tensors = 0;
    for (int i = 0; i < c->inputs; i++) {
        input[i] = source(graph, HD_OP_input, hd_format("x%d", i), is_ids(c, i) ? HD_I32 : HD_F32, &c->input[i], NULL);
        if (!is_ids(c, i)) tensor[tensors++] = input[i];
    }
    hd_node *y = hd_graph_add(graph, c->op, (hd_where){ "test.lua", 2 }, HD_F32, c->shape.rank ? &c->shape : NULL, c->inputs, input, &c->attr);
    hd_node *weights = source(graph, HD_OP_input, "weights", HD_F32, &y->shape, NULL);
    hd_node *loss = total(graph, apply(graph, HD_OP_mul, y, weights, NULL));
    hd_entry *forward = entry_of(graph, "loss", 1, &loss);
    hd_gradients(graph, loss, tensors, tensor, gradient);
    hd_entry *backward = entry_of(graph, "gradients", tensors, gradient);
    eval = hd_eval_new(graph);
    for (int i = 0; i < c->inputs; i++) {
        int64_t n = hd_elements(&c->input[i]);
        value[i] = HD_NEW_ARRAY(double, n);
        for (int64_t e = 0; e < n; e++) {
            value[i][e] = uniform((uint64_t)(i + 1) * 31 + (uint64_t)c->op, (uint64_t)e, c->low, c->high);
            if (is_ids(c, i)) value[i][e] = floor(uniform(99, (uint64_t)e, c->op == HD_OP_cross_entropy ? -1 : 0, c->ids));
            if (c->op == HD_OP_attention && is_ids(c, i)) value[i][e] = (double)(e / 2 % c->input[i].size[1] / 2 + (e % 2 ? 2 : 0));      /* two keys from the query's half on */
            if (c->op == HD_OP_where && i == 0) value[i][e] = value[i][e] > 0;
        }
        hd_eval_set(eval, input[i], value[i]);
    }
    double *fixed = HD_NEW_ARRAY(double, hd_elements(&y->shape));
    for (int64_t e = 0; e < hd_elements(&y->shape); e++) fixed[e] = uniform(5, (uint64_t)e, -1, 1);
    hd_eval_set(eval, weights, fixed);
    hd_eval_entry(eval, backward);

    double worst = 0;
    for (int t = 0, i = 0; t < tensors; t++, i++) {
        while (input[i] != tensor[t]) i++;
        assert_true(hd_same_shape(&gradient[t]->shape, &tensor[t]->shape));
        int64_t n = hd_elements(&c->input[i]);
        double *exact = HD_NEW_ARRAY(double, n), largest = 1e-3, error = 0;
        memcpy(exact, eval->value[gradient[t]->id], sizeof(double) * (size_t)n);
        if (c->op == HD_OP_where && i == 0) continue;      /* a condition has no gradient */
        for (int64_t e = 0; e < n; e++) {
            double h = 1e-5, kept = value[i][e], side[2];
            for (int s = 0; s < 2; s++) {
                value[i][e] = s ? kept - h : kept + h;
                hd_eval_set(eval, input[i], value[i]);
                hd_eval_entry(eval, forward);
                side[s] = eval->value[loss->id][0];
            }
            value[i][e] = kept;
            hd_eval_set(eval, input[i], value[i]);
            error = fmax(error, fabs(exact[e] - (side[0] - side[1]) / (2 * h)));
            largest = fmax(largest, fabs(exact[e]));
            if (isnan(exact[e])) error = INFINITY;
        }
        worst = fmax(worst, error / largest);
    }
    hd_eval_free(eval);
    return worst;
}

static void every_gradient_agrees_with_central_differences(void **state)
{
    (void)state;
    bool covered[HD_OPS] = { false }, good = true;
    for (int c = 0; c < CASES; c++) {
        double error = worst_error(&cases[c]);
        covered[cases[c].op] = true;
        if (error < 1e-7) continue;          /* h^2 and rounding over h both stay below 1e-9 of such values */
        print_error("%s (%s): relative error %g\n", hd_ops[cases[c].op].name, cases[c].why ? cases[c].why : "plain", error);
        good = false;
    }
    for (int op = 0; op < HD_OPS; op++)
        if (hd_ops[op].gradient && !hd_gradient_refused(&(hd_node){ .op = (hd_op)op }) && !covered[op]) {
            print_error("%s has a gradient but no case in this table\n", hd_ops[op].name);
            good = false;
        }
    assert_true(good);
}

static void values_used_twice_add_their_gradients(void **state)
{
    (void)state;
    hd_graph *graph = hd_graph_new("test.lua");
    hd_shape shape = SHAPE(3);
    hd_node *x = source(graph, HD_OP_input, "x", HD_F32, &shape, NULL), *unused = source(graph, HD_OP_input, "unused", HD_F32, &shape, NULL);
    hd_node *loss = total(graph, apply(graph, HD_OP_add, apply(graph, HD_OP_mul, x, x, NULL), apply(graph, HD_OP_detach, x, NULL, NULL), NULL));
    hd_node *tensor[] = { x, unused, x, loss }, *gradient[4];
    hd_gradients(graph, loss, 4, tensor, gradient);
    hd_eval *eval = hd_eval_new(graph);
    hd_eval_set(eval, x, (double[]){ 1, -2, 5 });
    hd_eval_entry(eval, entry_of(graph, "g", 4, gradient));
    const double wanted[] = { 2, -4, 10 };
    for (int e = 0; e < 3; e++) {
        assert_true(eval->value[gradient[0]->id][e] == wanted[e]);
        assert_true(eval->value[gradient[1]->id][e] == 0);
        assert_true(eval->value[gradient[2]->id][e] == wanted[e]);
    }
    assert_true(eval->value[gradient[3]->id][0] == 1);
    for (int i = 0; i < graph->nodes; i++) assert_int_not_equal(graph->node[i]->where.line, 0);
}

/* ---- a small language model: two layers of attention and a hidden layer ---- */

enum { BATCH = 2, LENGTH = 6, WIDTH = 8, VOCAB = 5 };
typedef struct net { hd_graph *graph; hd_node *tokens, *targets, *random, *loss; int weights; hd_node *weight[32]; int forward_nodes; } net;

static hd_node *weight(net *n, const char *name, hd_shape shape, hd_init init)
{
    hd_attr attr = { .param = { .role = HD_WEIGHT, .init = init, .decay = shape.rank >= 2 } };
    return n->weight[n->weights++] = source(n->graph, HD_OP_param, name, HD_F32, &shape, &attr);
}
static hd_node *linear(net *n, const char *name, hd_node *x, int64_t in, int64_t out)
{
    hd_shape shape = SHAPE(out, in);
    hd_attr attr = { .matmul = { false, true } };
    return apply(n->graph, HD_OP_matmul, x, weight(n, name, shape, (hd_init){ HD_INIT_NORMAL, 0.3 }), &attr);
}
static hd_node *norm(net *n, const char *name, hd_node *x)
{
    hd_shape row = SHAPE(WIDTH);
    hd_attr attr = { .norm = { 1e-5 } };
    hd_node *gain = weight(n, hd_format("%s.weight", name), row, (hd_init){ HD_INIT_CONSTANT, 1 });
    hd_node *bias = weight(n, hd_format("%s.bias", name), row, (hd_init){ HD_INIT_CONSTANT, 0 });
    return hd_graph_add(n->graph, HD_OP_layer_norm, (hd_where){ "test.lua", 3 }, HD_F32, NULL, 3, (hd_node *[]){ x, gain, bias }, &attr);
}

static net make_net(bool recompute, double p)
{
    net n = { .graph = hd_graph_new("test.lua") };
    hd_graph *g = n.graph;
    hd_shape ids = SHAPE(BATCH, LENGTH), words = SHAPE(4), table = SHAPE(VOCAB, WIDTH);
    n.tokens = source(g, HD_OP_input, "tokens", HD_I32, &ids, NULL);
    n.targets = source(g, HD_OP_input, "targets", HD_I32, &ids, NULL);
    if (p > 0) n.random = source(g, HD_OP_input, "random", HD_I32, &words, NULL);
    hd_node *wte = weight(&n, "wte", table, (hd_init){ HD_INIT_NORMAL, 0.3 }), *x = apply(g, HD_OP_embedding, wte, n.tokens, NULL);
    for (int layer = 0; layer < 2; layer++) {
        g->block = recompute ? layer + 1 : 0;
        hd_node *h = norm(&n, hd_format("h.%d.ln_1", layer), x), *qkv = linear(&n, hd_format("h.%d.qkv", layer), h, WIDTH, 3 * WIDTH), *part[3];
        hd_shape third = SHAPE(BATCH, LENGTH, WIDTH);
        for (int i = 0; i < 3; i++) {
            hd_attr slice = { .slice = { 2, i * WIDTH } };
            part[i] = hd_graph_add(g, HD_OP_slice, (hd_where){ "test.lua", 4 }, HD_F32, &third, 1, &qkv, &slice);
        }
        hd_attr attention = { .attention = { .heads = 2, .patterns = 1, .pattern = (const hd_pattern **)one_pattern } };
        hd_node *a = hd_graph_add(g, HD_OP_attention, (hd_where){ "test.lua", 5 }, HD_F32, NULL, 3, part, &attention);
        x = apply(g, HD_OP_add, x, linear(&n, hd_format("h.%d.proj", layer), a, WIDTH, WIDTH), NULL);
        h = norm(&n, hd_format("h.%d.ln_2", layer), x);
        h = apply(g, HD_OP_gelu, linear(&n, hd_format("h.%d.fc", layer), h, WIDTH, 16), NULL, NULL);
        h = linear(&n, hd_format("h.%d.out", layer), h, 16, WIDTH);
        hd_attr dropout = { .dropout = { p, layer } };
        if (p > 0) h = apply(g, HD_OP_dropout, h, n.random, &dropout);
        x = apply(g, HD_OP_add, x, h, NULL);
    }
    g->block = 0;
    hd_attr tied = { .matmul = { false, true } };
    hd_node *logits = apply(g, HD_OP_matmul, norm(&n, "ln_f", x), wte, &tied);      /* wte twice: as table and as head */
    hd_node *sum = total(g, apply(g, HD_OP_cross_entropy, logits, n.targets, NULL));
    hd_attr mean = { .constant = { 1.0 / (BATCH * LENGTH) } };
    hd_shape none = SCALAR;
    n.loss = apply(g, HD_OP_mul, sum, source(g, HD_OP_constant, NULL, HD_F32, &none, &mean), NULL);
    n.forward_nodes = g->nodes;
    return n;
}
static void set_ids(const net *n, hd_eval *eval)
{
    double token[BATCH * LENGTH], target[BATCH * LENGTH];
    for (int i = 0; i < BATCH * LENGTH; i++) {
        token[i] = i * i % VOCAB;
        target[i] = (i + 1) * (i + 1) % VOCAB;
    }
    hd_eval_set(eval, n->tokens, token);
    hd_eval_set(eval, n->targets, target);
    if (n->random) hd_eval_set(eval, n->random, (double[]){ 3, 1, 0, 0 });
}

static void recomputed_blocks_give_identical_gradients(void **state)
{
    (void)state;
    hd_node *gradient[2][32];
    hd_eval *eval[2];
    net n[2];
    for (int r = 0; r < 2; r++) {
        n[r] = make_net(r, 0.2);
        hd_gradients(n[r].graph, n[r].loss, n[r].weights, n[r].weight, gradient[r]);
        hd_entry *entry = entry_of(n[r].graph, "g", n[r].weights, gradient[r]);
        hd_recompute_marked(n[r].graph);
        eval[r] = hd_eval_new(n[r].graph);
        set_ids(&n[r], eval[r]);
        hd_eval_entry(eval[r], entry);
    }
    for (int w = 0; w < n[0].weights; w++)
        assert_memory_equal(eval[0]->value[gradient[0][w]->id], eval[1]->value[gradient[1][w]->id], sizeof(double) * (size_t)hd_elements(&n[0].weight[w]->shape));

    int clones = 0, first_backward = n[1].forward_nodes;
    for (int i = 0; i < n[1].graph->nodes; i++) {
        const hd_node *node = n[1].graph->node[i];
        assert_int_equal(node->id, i);
        if (node->clone) {
            clones++;
            assert_true(node->id >= first_backward);
            assert_int_not_equal(node->op, HD_OP_attention);
        }
        /* the backward part reads of a block only what crosses its border, and what attention returned */
        for (int j = 0; i >= first_backward && j < node->inputs; j++) {
            const hd_node *input = node->input[j];
            if (!input->block || input->id >= first_backward || input->inputs == 0 || input->op == HD_OP_attention) continue;
            if (node->op == HD_OP_result) continue;        /* reads nothing: a name of mean or rstd, whose readers name the clone's */
            bool crosses = false;
            for (int k = 0; k < first_backward; k++)
                for (int l = 0; l < n[1].graph->node[k]->inputs; l++)
                    crosses |= n[1].graph->node[k]->input[l] == input && n[1].graph->node[k]->block != input->block;
            assert_true(crosses);
        }
    }
    assert_true(clones > 10);
    for (int i = 0; i < n[0].graph->nodes; i++) assert_false(n[0].graph->node[i]->clone);
}

static hd_entry *loss_entry(net *n)
{
    hd_entry *entry = entry_of(n->graph, "loss", 1, &n->loss);
    entry->output[0].name = "loss";
    entry->inputs = 2;
    entry->input = HD_NEW_ARRAY(hd_node *, 2);
    entry->input[0] = n->tokens;
    entry->input[1] = n->targets;
    return entry;
}
static hd_node *named(const hd_graph *graph, const char *name)
{
    for (int i = 0; i < graph->nodes; i++)
        if (graph->node[i]->name && !strcmp(graph->node[i]->name, name) && !graph->node[i]->inputs) return graph->node[i];
    fail_msg("no source %s", name);
    return NULL;
}

static void the_training_step_lowers_the_loss(void **state)
{
    (void)state;
    net n = make_net(false, 0);
    hd_entry *loss = loss_entry(&n);
    hd_add_train_step(n.graph, loss);
    hd_entry *train = n.graph->entry[1];
    assert_string_equal(train->name, "train_step");
    assert_int_equal(train->inputs, 3);
    assert_string_equal(train->output[1].name, "gradient_norm");
    assert_int_equal(train->effects, n.weights + 2);         /* one each, wte, which is read twice, two; and the update */
    for (int i = 1; i < train->effects; i++) assert_true(train->effect[i]->id > train->effect[i - 1]->id);
    assert_int_equal(named(n.graph, "wte.gradient")->attr.param.role, HD_GRADIENT);
    assert_ptr_equal(named(n.graph, "wte.v")->attr.param.weight, n.weight[0]);

    hd_eval *eval = hd_eval_new(n.graph);
    set_ids(&n, eval);
    double first = 0, last = 0, hyper[HD_HYPER_COUNT] = { [HD_HYPER_LR] = 0.01, [HD_HYPER_BETA1] = 0.9, [HD_HYPER_BETA2] = 0.99, [HD_HYPER_EPSILON] = 1e-8,
        [HD_HYPER_DECAY] = 0.01, [HD_HYPER_CLIP] = 1, [HD_HYPER_SCALE] = 1, [HD_HYPER_UPDATE] = 1 };
    for (int step = 1; step <= 20; step++) {
        hyper[HD_HYPER_CORRECTION1] = 1 - pow(0.9, step);
        hyper[HD_HYPER_CORRECTION2] = 1 - pow(0.99, step);
        hd_eval_set(eval, train->input[2], hyper);
        hd_eval_entry(eval, train);
        last = eval->value[n.loss->id][0];
        if (step == 1) first = last;
    }
    assert_true(last < 0.6 * first);
}

/* Two half-weighted micro-batches that are equal make one step as the whole does; without UPDATE nothing moves. */
static void micro_batches_accumulate(void **state)
{
    (void)state;
    double after[2], norm[2];
    for (int split = 0; split < 2; split++) {
        net n = make_net(false, 0);
        hd_add_train_step(n.graph, loss_entry(&n));
        hd_entry *train = n.graph->entry[1];
        hd_eval *eval = hd_eval_new(n.graph);
        set_ids(&n, eval);
        double hyper[HD_HYPER_COUNT] = { [HD_HYPER_LR] = 0.1, [HD_HYPER_BETA1] = 0.9, [HD_HYPER_BETA2] = 0.99, [HD_HYPER_EPSILON] = 1e-8,
            [HD_HYPER_CORRECTION1] = 0.1, [HD_HYPER_CORRECTION2] = 0.01, [HD_HYPER_CLIP] = 0.5, [HD_HYPER_SCALE] = split ? 0.5 : 1 };
        for (int part = 0; part <= split; part++) {
            hyper[HD_HYPER_ACCUMULATE] = part;
            hyper[HD_HYPER_UPDATE] = part == split;
            hd_eval_set(eval, train->input[2], hyper);
            hd_eval_entry(eval, train);
            if (!hyper[HD_HYPER_UPDATE])
                for (int e = 0; e < VOCAB * WIDTH; e++)
                    assert_true(eval->value[n.weight[0]->id][e] == hd_init_value(HD_INIT_NORMAL, 0.3, 0, hd_random_name("wte"), (uint64_t)e));
        }
        after[split] = eval->value[n.weight[0]->id][3];
        norm[split] = eval->value[train->output[1].node->id][0];
    }
    assert_true(norm[0] > 0.5);              /* so clipping took part */
    assert_true(fabs(norm[0] - norm[1]) < 1e-12);
    assert_true(fabs(after[0] - after[1]) < 1e-12);
}

static void dropout_adds_the_random_words_as_last_input(void **state)
{
    (void)state;
    net n = make_net(true, 0.5);
    hd_add_train_step(n.graph, loss_entry(&n));
    hd_entry *train = n.graph->entry[1];
    assert_int_equal(train->inputs, 4);
    assert_string_equal(train->input[2]->name, "hyper");
    assert_ptr_equal(train->input[3], n.random);
    assert_ptr_equal(train->output[0].node, n.loss);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_gradient_agrees_with_central_differences),
        cmocka_unit_test(values_used_twice_add_their_gradients),
        cmocka_unit_test(recomputed_blocks_give_identical_gradients),
        cmocka_unit_test(the_training_step_lowers_the_loss),
        cmocka_unit_test(micro_batches_accumulate),
        cmocka_unit_test(dropout_adds_the_random_words_as_last_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
