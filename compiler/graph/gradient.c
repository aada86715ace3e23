/* Reverse-mode differentiation: gradients are more nodes of the same graph.
 *
 * One sweep goes from the loss to its inputs, newest node first; each node's rule (grad_NAME of ops.def) turns the
 * gradients of its results into gradients of its inputs, which are summed with `add` where a value is used more than
 * once. Only nodes on a path from a wanted tensor to the loss take part.
 *
 * Rules read forward values as they are: what of them is kept until then and what is computed again is decided later, on the
 * finished graph (passes/recompute.c), for which every node made here remembers the node it differentiates. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- the sweep's state: one at a time, so the rules need not carry it ---- */

static struct sweep {
    hd_graph *graph;
    hd_where where;            /* new nodes': that of the node being differentiated */
    int nodes;                 /* when the sweep began */
    bool *on_path;             /* [nodes]: depends on a wanted tensor, and the loss depends on it */
} sweep;

static hd_node *add_node(hd_graph *graph, hd_op op, const hd_shape *shape, int inputs, hd_node *const *input, const hd_attr *attr)
{
    return hd_graph_add(graph, op, sweep.where, HD_F32, shape, inputs, input, attr);
}
static hd_node *one(hd_graph *graph, hd_op op, hd_node *x) { return add_node(graph, op, NULL, 1, &x, NULL); }
static hd_node *two(hd_graph *graph, hd_op op, hd_node *a, hd_node *b) { return add_node(graph, op, NULL, 2, (hd_node *[]){ a, b }, NULL); }
static hd_node *three(hd_graph *graph, hd_op op, hd_node *a, hd_node *b, hd_node *c) { return add_node(graph, op, NULL, 3, (hd_node *[]){ a, b, c }, NULL); }
static hd_node *constant(hd_graph *graph, double value, const hd_shape *shape)
{
    hd_attr attr = { .constant = { value } };
    return add_node(graph, HD_OP_constant, shape, 0, NULL, &attr);
}
static hd_node *number(hd_graph *graph, double value) { return constant(graph, value, &(hd_shape){ .rank = 0 }); }
static hd_node *reshape(hd_graph *graph, hd_node *x, const hd_shape *shape)
{
    return hd_same_shape(&x->shape, shape) ? x : add_node(graph, HD_OP_reshape, shape, 1, &x, NULL);
}
static hd_node *sum_axes(hd_graph *graph, hd_node *x, unsigned axes)
{
    hd_attr attr = { .reduce = { axes } };
    return axes ? add_node(graph, HD_OP_sum, NULL, 1, &x, &attr) : x;
}

/* The gradient of a tensor of this shape that was broadcast to dy's: dy summed over the axes it was repeated along. */
static hd_node *reduce_to(hd_graph *graph, hd_node *dy, const hd_shape *shape)
{
    unsigned axes = 0;
    int added = dy->shape.rank - shape->rank;
    for (int i = 0; i < dy->shape.rank; i++)
        if (dy->shape.size[i] > 1 && (i < added || shape->size[i - added] == 1)) axes |= 1u << i;
    return reshape(graph, sum_axes(graph, dy, axes), shape);
}

static bool wanted(const hd_node *node, int i)
{
    return node->input[i]->id < sweep.nodes && sweep.on_path[node->input[i]->id];
}

static void no_gradient_of_result(const hd_node *node, hd_node *const *dy, const char *name, int index)
{
    if (dy[index]) hd_node_fail(node, "no gradient flows through %s; a loss may use only the first result (or %s detached)", name, name);
}

/* ---- elementwise, one input ---- */

void grad_neg(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { (void)n; dx[0] = one(g, HD_OP_neg, dy[0]); }
void grad_exp(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { dx[0] = two(g, HD_OP_mul, dy[0], n); }
void grad_log(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { dx[0] = two(g, HD_OP_div, dy[0], n->input[0]); }
void grad_sqrt(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)       /* dy / (2 y) */
{
    dx[0] = two(g, HD_OP_div, two(g, HD_OP_mul, dy[0], number(g, 0.5)), n);
}
void grad_rsqrt(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)      /* -dy y^3 / 2 */
{
    hd_node *y = n, *cube = two(g, HD_OP_mul, two(g, HD_OP_mul, y, y), y);
    dx[0] = two(g, HD_OP_mul, two(g, HD_OP_mul, dy[0], number(g, -0.5)), cube);
}
void grad_abs(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { dx[0] = two(g, HD_OP_mul, dy[0], one(g, HD_OP_sign, n->input[0])); }
void grad_sin(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { dx[0] = two(g, HD_OP_mul, dy[0], one(g, HD_OP_cos, n->input[0])); }
void grad_cos(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    dx[0] = two(g, HD_OP_mul, dy[0], one(g, HD_OP_neg, one(g, HD_OP_sin, n->input[0])));
}
void grad_tanh(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)       /* dy (1 - y^2) */
{
    hd_node *y = n;
    dx[0] = two(g, HD_OP_mul, dy[0], two(g, HD_OP_sub, number(g, 1), two(g, HD_OP_mul, y, y)));
}
void grad_erf(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)        /* dy 2/sqrt(pi) exp(-x^2) */
{
    hd_node *x = n->input[0], *bell = one(g, HD_OP_exp, one(g, HD_OP_neg, two(g, HD_OP_mul, x, x)));
    dx[0] = two(g, HD_OP_mul, two(g, HD_OP_mul, dy[0], number(g, 1.1283791670955126)), bell);
}
void grad_sigmoid(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)    /* dy y (1 - y) */
{
    hd_node *y = n;
    dx[0] = two(g, HD_OP_mul, dy[0], two(g, HD_OP_mul, y, two(g, HD_OP_sub, number(g, 1), y)));
}
/* from y, which the next product keeps anyway: y > 0 exactly where x > 0 */
void grad_relu(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { dx[0] = two(g, HD_OP_mul, dy[0], one(g, HD_OP_step, n)); }
static void by_prime(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx, hd_op prime) { dx[0] = two(g, HD_OP_mul, dy[0], one(g, prime, n->input[0])); }
void grad_silu(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { by_prime(g, n, dy, dx, HD_OP_silu_prime); }
void grad_gelu(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { by_prime(g, n, dy, dx, HD_OP_gelu_prime); }
void grad_gelu_tanh(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { by_prime(g, n, dy, dx, HD_OP_gelu_tanh_prime); }
void grad_gelu_quick(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { by_prime(g, n, dy, dx, HD_OP_gelu_quick_prime); }

/* ---- elementwise, more inputs: gradients are summed over the axes an input was broadcast along ---- */

void grad_add(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    for (int i = 0; i < 2; i++)
        if (wanted(n, i)) dx[i] = reduce_to(g, dy[0], &n->input[i]->shape);
}
void grad_sub(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    if (wanted(n, 0)) dx[0] = reduce_to(g, dy[0], &n->input[0]->shape);
    if (wanted(n, 1)) dx[1] = one(g, HD_OP_neg, reduce_to(g, dy[0], &n->input[1]->shape));
}
void grad_mul(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    for (int i = 0; i < 2; i++)
        if (wanted(n, i)) dx[i] = reduce_to(g, two(g, HD_OP_mul, dy[0], n->input[1 - i]), &n->input[i]->shape);
}
void grad_div(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)        /* dy / b, -dy y / b */
{
    hd_node *quotient = two(g, HD_OP_div, dy[0], n->input[1]);
    if (wanted(n, 0)) dx[0] = reduce_to(g, quotient, &n->input[0]->shape);
    if (wanted(n, 1)) dx[1] = one(g, HD_OP_neg, reduce_to(g, two(g, HD_OP_mul, quotient, n), &n->input[1]->shape));
}
/* dy to a where `first` is not 0, else to b. By selection, not by a factor, so that a NaN that was not chosen stays out. */
static void choose(hd_graph *g, hd_node *n, hd_node *first, hd_node *dy, hd_node **dx, int a)
{
    hd_node *zero = number(g, 0);
    if (wanted(n, a)) dx[a] = reduce_to(g, three(g, HD_OP_where, first, dy, zero), &n->input[a]->shape);
    if (wanted(n, a + 1)) dx[a + 1] = reduce_to(g, three(g, HD_OP_where, first, zero, dy), &n->input[a + 1]->shape);
}
/* equal values: all to b, as the ops themselves choose */
void grad_max(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { choose(g, n, two(g, HD_OP_less, n->input[1], n->input[0]), dy[0], dx, 0); }
void grad_min(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { choose(g, n, two(g, HD_OP_less, n->input[0], n->input[1]), dy[0], dx, 0); }
void grad_where(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { choose(g, n, n->input[0], dy[0], dx, 1); }
/* the same bits drop the same elements */
void grad_dropout(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    dx[0] = add_node(g, HD_OP_dropout, NULL, 2, (hd_node *[]){ dy[0], n->input[1] }, &n->attr);
}

/* ---- memory ---- */

void grad_reshape(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { dx[0] = reshape(g, dy[0], &n->input[0]->shape); }
void grad_expand(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { dx[0] = reduce_to(g, dy[0], &n->input[0]->shape); }
void grad_slice(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    int axis = n->attr.slice.axis;
    int64_t before = n->attr.slice.start, after = n->input[0]->shape.size[axis] - n->shape.size[axis] - before;
    hd_attr attr = { .pad = { axis, before, after } };
    dx[0] = before || after ? add_node(g, HD_OP_pad, NULL, 1, &dy[0], &attr) : dy[0];
}
void grad_transpose(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    hd_attr attr = { 0 };
    for (int i = 0; i < n->shape.rank; i++) attr.transpose.perm[n->attr.transpose.perm[i]] = i;
    dx[0] = add_node(g, HD_OP_transpose, NULL, 1, &dy[0], &attr);
}
void grad_concat(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    hd_attr attr = { .slice = { n->attr.concat.axis, 0 } };
    for (int i = 0; i < n->inputs; i++) {
        if (wanted(n, i)) dx[i] = add_node(g, HD_OP_slice, &n->input[i]->shape, 1, &dy[0], &attr);
        attr.slice.start += n->input[i]->shape.size[n->attr.concat.axis];
    }
}
void grad_shift(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)      /* start got the first places */
{
    int axis = n->attr.shift.axis;
    if (wanted(n, 0)) dx[0] = add_node(g, HD_OP_unshift, NULL, 1, &dy[0], &n->attr);
    if (!wanted(n, 1)) return;
    hd_attr attr = { .slice = { axis, 0 } };
    hd_shape first = n->shape;
    first.size[axis] = 1;
    dx[1] = reduce_to(g, add_node(g, HD_OP_slice, &first, 1, &dy[0], &attr), &n->input[1]->shape);
}

/* ---- reductions ---- */

void grad_sum(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    const hd_shape *shape = &n->input[0]->shape;
    dx[0] = hd_same_shape(&dy[0]->shape, shape) ? dy[0] : add_node(g, HD_OP_expand, shape, 1, &dy[0], NULL);
}
/* Elements that tie for the maximum share the gradient. */
void grad_reduce_max(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    hd_node *mask = two(g, HD_OP_equal, n->input[0], n), *ties = sum_axes(g, mask, n->attr.reduce.axes);
    dx[0] = two(g, HD_OP_mul, mask, two(g, HD_OP_div, dy[0], ties));
}

/* ---- products ---- */

static hd_node *product(hd_graph *g, hd_node *a, hd_node *b, bool trans_a, bool trans_b)
{
    hd_attr attr = { .matmul = { trans_a, trans_b } };
    return add_node(g, HD_OP_matmul, NULL, 2, (hd_node *[]){ a, b }, &attr);
}
static hd_node *flat_rows(hd_graph *g, hd_node *x)
{
    int64_t width = x->shape.size[x->shape.rank - 1];
    return reshape(g, x, &(hd_shape){ .rank = 2, .size = { hd_elements(&x->shape) / width, width } });
}
/* With A, B the operands as multiplied: dA = dY B^T, dB = A^T dY. Flags absorb every transposition, so nothing is moved.
 * A b that all of a's leading axes share gets one product over all rows. */
void grad_matmul(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    bool ta = n->attr.matmul.trans_a, tb = n->attr.matmul.trans_b;
    bool shared = n->input[0]->shape.rank > 2 && n->input[1]->shape.rank == 2;
    if (wanted(n, 0)) {
        hd_node *b = n->input[1];
        dx[0] = ta ? product(g, b, dy[0], tb, true) : product(g, dy[0], b, false, !tb);
    }
    if (wanted(n, 1)) {
        hd_node *a = n->input[0], *d = dy[0];
        if (shared) {
            a = flat_rows(g, a);
            d = flat_rows(g, d);
        }
        dx[1] = tb ? product(g, d, a, true, ta) : product(g, a, d, !ta, false);
    }
}

/* ---- rows ---- */

void grad_softmax(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx) { dx[0] = two(g, HD_OP_softmax_dx, dy[0], n); }

void grad_layer_norm(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    no_gradient_of_result(n, dy, "mean", 1);
    no_gradient_of_result(n, dy, "rstd", 2);
    if (wanted(n, 0) || wanted(n, 1)) {
        hd_node *x = n->input[0], *mean = hd_graph_result(g, n, 1), *rstd = hd_graph_result(g, n, 2);
        if (wanted(n, 0)) dx[0] = add_node(g, HD_OP_layer_norm_dx, NULL, 5, (hd_node *[]){ dy[0], x, n->input[1], mean, rstd }, &n->attr);
        if (wanted(n, 1)) dx[1] = add_node(g, HD_OP_layer_norm_dgain, NULL, 4, (hd_node *[]){ dy[0], x, mean, rstd }, &n->attr);
    }
    if (wanted(n, 2)) dx[2] = reduce_to(g, dy[0], &n->input[2]->shape);
}
void grad_rms_norm(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    no_gradient_of_result(n, dy, "rstd", 1);
    hd_node *x = n->input[0], *rstd = hd_graph_result(g, n, 1);
    if (wanted(n, 0)) dx[0] = add_node(g, HD_OP_rms_norm_dx, NULL, 4, (hd_node *[]){ dy[0], x, n->input[1], rstd }, &n->attr);
    if (wanted(n, 1)) dx[1] = add_node(g, HD_OP_rms_norm_dgain, NULL, 3, (hd_node *[]){ dy[0], x, rstd }, &n->attr);
}
void grad_cross_entropy(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    no_gradient_of_result(n, dy, "lse", 1);
    hd_node *input[] = { n->input[0], n->input[1], hd_graph_result(g, n, 1), dy[0] };
    dx[0] = add_node(g, HD_OP_cross_entropy_dx, NULL, 4, input, NULL);
}
void grad_embedding(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    hd_attr attr = { .size = { n->input[0]->shape.size[0] } };
    dx[0] = add_node(g, HD_OP_embedding_dw, NULL, 2, (hd_node *[]){ n->input[1], dy[0] }, &attr);
}
void grad_rope(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)       /* a rotation's transpose is its inverse */
{
    hd_attr attr = n->attr;
    attr.rope.inverse = !attr.rope.inverse;
    dx[0] = add_node(g, HD_OP_rope, NULL, 1, &dy[0], &attr);
}

/* The sinks' scores have no values, so d sink_h = -sum over sequences and queries of p (dout . out), p = exp(sink_h - lse): no pass
 * over the pairs. */
static hd_node *sinks_gradient(hd_graph *g, const hd_attr *attr, hd_node *sinks, hd_node *out, hd_node *lse, hd_node *dout)
{
    const bool first = attr->attention.heads_first;
    const int64_t heads = attr->attention.heads, queries = out->shape.size[out->shape.rank - 2], stack = hd_elements(&lse->shape) / (heads * queries);
    const int64_t dim = hd_elements(&out->shape) / (stack * heads * queries), a = first ? heads : queries, b = first ? queries : heads;
    const hd_shape rows = { 4, { stack, a, b, dim } }, row = { 3, { stack, a, b } }, by_query = { 3, { stack, heads, queries } }, each_row = { 2, { heads, 1 } };
    hd_node *dots = reshape(g, sum_axes(g, two(g, HD_OP_mul, reshape(g, dout, &rows), reshape(g, out, &rows)), 8), &row);
    lse = reshape(g, lse, &by_query);
    if (first) sinks = reshape(g, sinks, &each_row);
    else lse = add_node(g, HD_OP_transpose, NULL, 1, &lse, &(hd_attr){ .transpose = { { 0, 2, 1 } } });
    hd_node *p = one(g, HD_OP_exp, two(g, HD_OP_sub, sinks, lse));
    hd_node *sum = sum_axes(g, two(g, HD_OP_mul, p, dots), first ? 5 : 3);
    return one(g, HD_OP_neg, reshape(g, sum, &(hd_shape){ 1, { heads } }));
}

void hd_attention_gradients(hd_graph *g, hd_where where, const hd_attr *attr, int inputs, hd_node *const *input, hd_node *out, hd_node *lse, hd_node *dout,
                            const bool *want, hd_node **gradient)
{
    const unsigned with = attr->attention.with;
    const int sinks = with & HD_WITH_SINKS ? 1 : 0, extra = inputs - 3 - sinks;
    bool pairs = false;                    /* a gradient is wanted that needs them all */
    sweep.where = where;
    hd_node **all_of = HD_NEW_ARRAY(hd_node *, 6 + extra), *const first[] = { input[0], input[1], input[2], out, lse, dout };
    memcpy(all_of, first, sizeof first);
    for (int i = 0; i < extra; i++) all_of[6 + i] = input[3 + sinks + i];
    for (int i = 0; i < inputs; i++) pairs |= (!want || want[i]) && !(sinks && i == 3) && input[i]->dtype == HD_F32;
    hd_attr without = *attr;
    without.attention.with &= ~(unsigned)HD_WITH_SINKS;
    hd_node *all = pairs ? add_node(g, HD_OP_attention_dx, NULL, 6 + extra, all_of, &without) : NULL;
    for (int i = 0; i < 3; i++)
        if (!want || want[i]) gradient[i] = hd_graph_result(g, all, i);
    if (sinks && (!want || want[3])) gradient[3] = sinks_gradient(g, attr, input[3], out, lse, dout);
    static const unsigned bits[] = { HD_WITH_BIAS, HD_WITH_KEY_BIAS, HD_WITH_EDGE_BIAS };
    for (int e = 0, i = 3 + sinks; e < 3; e++) {
        if (!(with & bits[e])) continue;
        const hd_shape *own = &input[i]->shape;
        if (!want || want[i]) {            /* [sequences, heads, n] to the input's axes, of which the others are 1 */
            hd_shape as = { 3, { 1, 1, own->size[own->rank - 1] } };
            if (own->rank == 2) as.size[bits[e] == HD_WITH_KEY_BIAS ? 0 : 1] = own->size[0];
            gradient[i] = reshape(g, reduce_to(g, hd_graph_result(g, all, hd_attention_result(all, bits[e])), &as), own);
        }
        i++;
    }
}

void grad_attention(hd_graph *g, hd_node *n, hd_node **dy, hd_node **dx)
{
    no_gradient_of_result(n, dy, "lse", 1);
    bool *want = HD_NEW_ARRAY(bool, n->inputs);
    for (int i = 0; i < n->inputs; i++) want[i] = wanted(n, i);
    hd_attention_gradients(g, sweep.where, &n->attr, n->inputs, n->input, n, hd_graph_result(g, n, 1), dy[0], want, dx);
}

/* ---- the sweep ---- */

/* on_path[i]: node i depends on a wanted tensor and the loss on node i. */
static void find_path(const hd_node *loss, int tensors, hd_node *const *tensor)
{
    const hd_graph *graph = sweep.graph;
    bool *reached = HD_NEW_ARRAY(bool, sweep.nodes);
    for (int t = 0; t < tensors; t++) sweep.on_path[tensor[t]->id] = true;
    for (int i = 0; i < sweep.nodes; i++)
        for (int j = 0; j < graph->node[i]->inputs; j++) sweep.on_path[i] |= sweep.on_path[graph->node[i]->input[j]->id];
    reached[loss->id] = true;
    for (int i = sweep.nodes - 1; i >= 0; i--)
        for (int j = 0; reached[i] && j < graph->node[i]->inputs; j++) reached[graph->node[i]->input[j]->id] = true;
    for (int i = 0; i < sweep.nodes; i++) sweep.on_path[i] &= reached[i];
}

static void contribute(hd_graph *graph, hd_node **gradient, hd_node *more)
{
    *gradient = *gradient ? two(graph, HD_OP_add, *gradient, more) : more;
}

void hd_gradient_sweep(hd_graph *graph, hd_node *loss, hd_node *seed, int tensors, hd_node *const *tensor, hd_node **gradient,
                       void (*complete)(void *argument, int index), void *argument)
{
    const char *scope = graph->scope;
    int block = graph->block;
    hd_node *differentiates = graph->differentiates;
    graph->block = 0;
    graph->differentiates = loss;
    sweep = (struct sweep){ .graph = graph, .nodes = graph->nodes, .where = loss->where };
    sweep.on_path = HD_NEW_ARRAY(bool, sweep.nodes);
    find_path(loss, tensors, tensor);

    /* waiting[i]: readers of node i on the path whose rule has not run; at 0 its gradient is complete */
    int *waiting = HD_NEW_ARRAY(int, sweep.nodes), *index_of = HD_NEW_ARRAY(int, sweep.nodes);
    hd_node ***dy = HD_NEW_ARRAY(hd_node **, sweep.nodes);
    for (int i = 0; i < sweep.nodes; i++) {
        const hd_node *node = graph->node[i];
        if (!sweep.on_path[i]) continue;
        dy[i] = HD_NEW_ARRAY(hd_node *, hd_ops[node->op].results);
        for (int j = 0; j < node->inputs; j++)
            if (sweep.on_path[node->input[j]->id]) waiting[node->input[j]->id]++;
    }
    for (int t = 0; t < tensors; t++) {
        if (tensor[t]->dtype != HD_F32) hd_fail(tensor[t]->where, "grad: no gradient with respect to i32 %s", hd_shape_text(&tensor[t]->shape));
        gradient[t] = NULL;
        index_of[tensor[t]->id] = t + 1;
    }
    if (sweep.on_path[loss->id]) dy[loss->id][0] = seed ? seed : constant(graph, 1, &loss->shape);

    for (int i = loss->id; i >= 0; i--) {
        hd_node *node = graph->node[i];
        if (!sweep.on_path[i]) continue;
        graph->differentiates = node;
        if (i == loss->id && index_of[i]) {
            gradient[index_of[i] - 1] = dy[i][0];
            if (complete) complete(argument, index_of[i] - 1);
        }
        bool flows = false;
        for (int r = 0; r < hd_ops[node->op].results; r++) flows |= dy[i][r] != NULL;
        hd_node **dx = HD_NEW_ARRAY(hd_node *, node->inputs);
        if (node->op == HD_OP_result) {
            if (flows) contribute(graph, &dy[node->input[0]->id][node->attr.result.index], dy[i][0]);
        } else if (flows && hd_ops[node->op].gradient) {
            graph->scope = node->name;
            sweep.where = node->where;
            if (!dy[i][0]) dy[i][0] = constant(graph, 0, &node->shape);    /* only a further result was used */
            hd_ops[node->op].gradient(graph, node, dy[i], dx);
        }
        for (int j = 0; j < node->inputs; j++) {
            int from = node->input[j]->id;
            if (!sweep.on_path[from]) continue;
            if (dx[j]) contribute(graph, &dy[from][0], dx[j]);
            if (--waiting[from] == 0 && index_of[from] && dy[from][0]) {
                gradient[index_of[from] - 1] = dy[from][0];
                if (complete) complete(argument, index_of[from] - 1);
            }
        }
    }
    graph->scope = scope;
    graph->block = block;
    graph->differentiates = differentiates;
}

void hd_gradients(hd_graph *graph, hd_node *loss, int tensors, hd_node *const *tensor, hd_node **gradient)
{
    hd_gradient_sweep(graph, loss, NULL, tensors, tensor, gradient, NULL, NULL);
    for (int t = 0; t < tensors; t++) {
        for (int same = 0; !gradient[t] && same < tensors; same++)      /* one tensor asked for twice */
            if (tensor[same] == tensor[t]) gradient[t] = gradient[same];
        if (gradient[t]) continue;
        sweep.where = tensor[t]->where;
        gradient[t] = constant(graph, 0, &tensor[t]->shape);
    }
}
