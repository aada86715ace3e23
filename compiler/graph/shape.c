/* The shape rules of ops.def: each checks a node's inputs and attributes and sets the shape of its result 0.
 *
 * A rule may rely on what graph.c checked before: the number of inputs, their element types, and that every input has
 * 0 to HD_MAX_RANK axes of size >= 1 and at most 2^40 elements. Element types of results are f32 but for sources. */
#include "internal.h"

#include "../pattern/cache.h"
#include "../pattern/pattern.h"

#include <math.h>

typedef long long ll;

/* What follows q, k, v (attention) or dout (attention_dx, which has no sinks), as far as `with` says so. */
static const struct { unsigned bit; const char *name; } extras[] = {
    { HD_WITH_SINKS, "sinks" }, { HD_WITH_BIAS, "bias" }, { HD_WITH_KEY_BIAS, "key_bias" }, { HD_WITH_EDGE_BIAS, "edge_bias" }, { HD_WITH_BOUNDS, "bounds" },
};
enum { EXTRAS = sizeof extras / sizeof *extras };

/* How many of `with` come before `extra`; -1 if it is not one of them. */
static int place(unsigned with, unsigned extra) { return with & extra ? __builtin_popcount(with & (extra - 1)) : -1; }

static int inputs_before_extras(hd_op op) { return op == HD_OP_attention ? 3 : op == HD_OP_attention_cached ? 5 : 6; }

int hd_attention_input(const hd_node *node, unsigned extra)
{
    const bool backward = node->op == HD_OP_attention_dx;
    const int at = place(backward ? node->attr.attention.with & ~(unsigned)HD_WITH_SINKS : node->attr.attention.with, extra);
    return at < 0 ? -1 : at + inputs_before_extras(node->op);
}

int hd_attention_result(const hd_node *node, unsigned extra)
{
    const int at = node->op == HD_OP_attention_dx ? place(node->attr.attention.with & (HD_WITH_BIAS | HD_WITH_KEY_BIAS | HD_WITH_EDGE_BIAS), extra) : -1;
    return at < 0 ? -1 : at + 3;
}

static unsigned extra_of_input(const hd_node *node, int i)
{
    for (int e = 0; (node->op == HD_OP_attention || node->op == HD_OP_attention_dx || node->op == HD_OP_attention_cached) && e < EXTRAS; e++)
        if (hd_attention_input(node, extras[e].bit) == i) return extras[e].bit;
    return 0;
}

const char *hd_operand_name(const hd_node *node, int i)
{
    const hd_op op = node->op;
    static const struct { hd_op op; const char *name[6]; } operands[] = {
        { HD_OP_add, { "a", "b" } }, { HD_OP_sub, { "a", "b" } }, { HD_OP_mul, { "a", "b" } }, { HD_OP_div, { "a", "b" } },
        { HD_OP_max, { "a", "b" } }, { HD_OP_min, { "a", "b" } }, { HD_OP_less, { "a", "b" } }, { HD_OP_equal, { "a", "b" } },
        { HD_OP_where, { "condition", "a", "b" } }, { HD_OP_dropout, { "x", "random" } },
        { HD_OP_accumulate, { "state", "x", "flag" } }, { HD_OP_shift, { "x", "start" } }, { HD_OP_rope_at, { "x", "positions" } }, { HD_OP_first_row, { "x", "start", "first" } }, { HD_OP_shift_cached, { "x", "start", "first" } }, { HD_OP_matmul, { "a", "b" } },
        { HD_OP_softmax_dx, { "dy", "y" } }, { HD_OP_layer_norm, { "x", "gain", "bias" } },
        { HD_OP_layer_norm_dx, { "dy", "x", "gain", "mean", "rstd" } }, { HD_OP_layer_norm_dgain, { "dy", "x", "mean", "rstd" } },
        { HD_OP_rms_norm, { "x", "gain" } }, { HD_OP_rms_norm_dx, { "dy", "x", "gain", "rstd" } },
        { HD_OP_rms_norm_dgain, { "dy", "x", "rstd" } }, { HD_OP_cross_entropy, { "logits", "targets" } },
        { HD_OP_cross_entropy_dx, { "logits", "targets", "lse", "dnll" } }, { HD_OP_embedding, { "table", "ids" } },
        { HD_OP_embedding_dw, { "ids", "dy" } }, { HD_OP_attention, { "q", "k", "v" } },
        { HD_OP_attention_cached, { "q", "k", "v", "keys", "positions" } }, { HD_OP_cache_keys, { "positions" } },
        { HD_OP_attention_dx, { "q", "k", "v", "out", "lse", "dout" } }, { HD_OP_expert_matmul, { "x", "w", "ids" } },
    };
    for (size_t o = 0; o < sizeof operands / sizeof *operands; o++)
        if (operands[o].op == op && i < 6 && operands[o].name[i]) return operands[o].name[i];
    for (int e = 0; e < EXTRAS; e++)
        if (extra_of_input(node, i) == extras[e].bit) return extras[e].name;
    if (op == HD_OP_key_bounds) return node->attr.bounds.documents ? "documents" : "lengths";
    return hd_ops[op].inputs == 1 ? "x" : NULL;
}

bool hd_operand_is_i32(const hd_node *node, int i)
{
    const hd_op op = node->op;
    if (op == HD_OP_reshape || op == HD_OP_slice || op == HD_OP_result || op == HD_OP_last_row) return node->input[i]->dtype == HD_I32;       /* of ids as of numbers */
    return op == HD_OP_key_bounds || op == HD_OP_position_ids || op == HD_OP_cache_keys || (op == HD_OP_attention_cached && (i == 3 || i == 4)) || (op == HD_OP_rope_at && i == 1) || ((op == HD_OP_first_row || op == HD_OP_shift_cached) && i == 2) || extra_of_input(node, i) == HD_WITH_BOUNDS || (op == HD_OP_embedding && i == 1) || (op == HD_OP_embedding_dw && i == 0) || (op == HD_OP_dropout && i == 1) || (op == HD_OP_expert_matmul && i == 2) ||
           ((op == HD_OP_cross_entropy || op == HD_OP_cross_entropy_dx) && i == 1);
}

static const hd_shape *in(const hd_node *node, int i) { return &node->input[i]->shape; }
static const char *text(const hd_node *node, int i) { return hd_shape_text(in(node, i)); }
static int64_t last(const hd_shape *shape) { return shape->size[shape->rank - 1]; }

static hd_shape without_last(const hd_shape *shape)
{
    hd_shape out = *shape;
    out.rank--;
    return out;
}

static void need_rank(const hd_node *node, int i, int least)
{
    if (in(node, i)->rank < least) hd_node_fail(node, "%s %s needs at least %d ax%s", hd_operand_name(node, i), text(node, i), least, least == 1 ? "is" : "es");
}

static void check_axis(const hd_node *node, int axis)
{
    int rank = in(node, 0)->rank;
    if (axis < 0 || axis >= rank) hd_node_fail(node, "x %s has no axis %d; it has axes 0 to %d", text(node, 0), axis, rank - 1);
}

/* Input i must have exactly this shape, which `reason` explains. */
static void need_shape(const hd_node *node, int i, const hd_shape *wanted, const char *reason)
{
    if (!hd_same_shape(in(node, i), wanted))
        hd_node_fail(node, "%s is %s and %s is %s; it must be %s, %s", hd_operand_name(node, 0), text(node, 0),
                     hd_operand_name(node, i), text(node, i), hd_shape_text(wanted), reason);
}

void shape_source(hd_node *node)
{
    if (node->dtype == HD_I32 && node->op != HD_OP_input) hd_node_fail(node, "only inputs may be i32; this must be f32");
}

/* Of attention and attention_dx: [..., heads, queries]. */
static hd_shape lse_shape(const hd_node *node)
{
    const hd_shape *q = in(node, 0);
    if (node->attr.attention.heads_first) return without_last(q);
    hd_shape lse = *q;
    lse.size[q->rank - 2] = node->attr.attention.heads;
    lse.size[q->rank - 1] = q->size[q->rank - 2];
    return lse;
}

/* Product of the axes before [heads, queries, head_dim] or [queries, width]. */
static int64_t sequences(const hd_node *node)
{
    const hd_shape *q = in(node, 0);
    int64_t product = 1;
    for (int i = 0; i < q->rank - (node->attr.attention.heads_first ? 3 : 2); i++) product *= q->size[i];
    return product;
}

/* [sequences, heads, buckets or keys or pairs]; a result that is not there has the shape of a number. */
static hd_shape extra_gradient_shape(const hd_node *node, int index)
{
    hd_shape shape = { .rank = 3, .size = { sequences(node), node->attr.attention.heads } };
    for (int e = 0; e < EXTRAS; e++)
        if (hd_attention_result(node, extras[e].bit) == index) {
            shape.size[2] = last(in(node, hd_attention_input(node, extras[e].bit)));
            return shape;
        }
    return (hd_shape){ .rank = 0 };
}

hd_shape hd_result_shape(const hd_node *node, int index)
{
    if (index == 0) return node->shape;
    switch (node->op) {
    case HD_OP_layer_norm: case HD_OP_rms_norm:      /* mean, rstd: one per row */
        return without_last(&node->shape);
    case HD_OP_cross_entropy: case HD_OP_top_k:
        return node->shape;
    case HD_OP_attention_dx:
        return index < 3 ? *in(node, index) : extra_gradient_shape(node, index);
    default:
        return lse_shape(node);
    }
}

/* Its elements are given with the shape. */
void shape_table(hd_node *node)
{
    const int64_t most = 1 << 16;
    if (hd_elements(&node->shape) > most) hd_node_fail(node, "%lld numbers; a list becomes part of the program and may have %lld, larger ones must be inputs", (ll)hd_elements(&node->shape), (ll)most);
    node->dtype = HD_F32;
}

void shape_result(hd_node *node)
{
    node->shape = hd_result_shape(node->input[0], node->attr.result.index);
    node->dtype = HD_F32;
}

/* Elementwise and row-wise ops; gradients of row ops have the shape of their first input too. */
void shape_same(hd_node *node)
{
    node->shape = *in(node, 0);
    node->dtype = HD_F32;
    switch (node->op) {
    case HD_OP_softmax: need_rank(node, 0, 1); break;
    case HD_OP_softmax_dx:
    case HD_OP_layer_norm_dx:
    case HD_OP_rms_norm_dx:
        need_rank(node, 0, 1);
        need_shape(node, 1, in(node, 0), "the same");
        break;
    case HD_OP_unshift: check_axis(node, node->attr.shift.axis); break;
    default: break;
    }
}

void shape_broadcast(hd_node *node)
{
    node->dtype = HD_F32;
    node->shape = *in(node, 0);
    for (int i = 1; i < node->inputs; i++) {
        hd_shape left = node->shape;
        const hd_shape *right = in(node, i);
        if (hd_broadcast(&left, right, &node->shape)) continue;
        int axis = 1;   /* the last axis that differs, counted from the end */
        while (left.size[left.rank - axis] == right->size[right->rank - axis] || left.size[left.rank - axis] == 1 || right->size[right->rank - axis] == 1) axis++;
        if (node->inputs == 2)
            hd_node_fail(node, "a %s and b %s do not match: counted from the last axis, axis %d has sizes %lld and %lld; they must be equal, or one of them 1",
                         text(node, 0), text(node, 1), axis, (ll)left.size[left.rank - axis], (ll)right->size[right->rank - axis]);
        hd_node_fail(node, "condition %s, a %s and b %s do not match: sizes of an axis must be equal, or 1", text(node, 0), text(node, 1), text(node, 2));
    }
}

void shape_dropout(hd_node *node)
{
    double p = node->attr.dropout.p;
    if (!(p >= 0 && p < 1)) hd_node_fail(node, "p is %g; it must be at least 0 and below 1", p);
    if (hd_elements(in(node, 1)) != 4) hd_node_fail(node, "random is %s; it must be [4]: seed, step and two spare words", text(node, 1));
    if (hd_elements(in(node, 0)) >> 32) hd_node_fail(node, "x %s is too large; dropout counts at most 2^32 elements", text(node, 0));
    shape_same(node);
}

void shape_accumulate(hd_node *node)
{
    if (hd_state_of(node)->op != HD_OP_param) hd_node_fail(node, "state must be a parameter");
    if (!hd_same_shape(in(node, 0), in(node, 1))) hd_node_fail(node, "state %s and x %s differ; they must be equal", text(node, 0), text(node, 1));
    if (hd_elements(in(node, 2)) != 1) hd_node_fail(node, "flag is %s; it must have one element", text(node, 2));
    shape_same(node);
}

void shape_reshape(hd_node *node)
{
    node->dtype = node->input[0]->dtype;
    if (hd_elements(in(node, 0)) != hd_elements(&node->shape))
        hd_node_fail(node, "x %s has %lld elements, the new shape %s has %lld; they must be equal", text(node, 0), (ll)hd_elements(in(node, 0)),
                     hd_shape_text(&node->shape), (ll)hd_elements(&node->shape));
}

void shape_slice(hd_node *node)
{
    node->dtype = node->input[0]->dtype;
    int axis = node->attr.slice.axis;
    check_axis(node, axis);
    hd_shape wanted = *in(node, 0);
    if (node->shape.rank != wanted.rank) hd_node_fail(node, "x %s and the slice %s must have as many axes", text(node, 0), hd_shape_text(&node->shape));
    int64_t size = wanted.size[axis], start = node->attr.slice.start, count = node->shape.size[axis];
    wanted.size[axis] = count;
    if (!hd_same_shape(&wanted, &node->shape)) hd_node_fail(node, "x %s and the slice %s may differ only on axis %d", text(node, 0), hd_shape_text(&node->shape), axis);
    if (start < 0 || start > size - count)
        hd_node_fail(node, "%lld elements from %lld on axis %d of x %s; that axis has elements 0 to %lld", (ll)count, (ll)start, axis, text(node, 0), (ll)size - 1);
}

void shape_transpose(hd_node *node)
{
    const hd_shape *x = in(node, 0);
    unsigned seen = 0;
    node->dtype = HD_F32;
    node->shape.rank = x->rank;
    for (int i = 0; i < x->rank; i++) {
        int from = node->attr.transpose.perm[i];
        if (from < 0 || from >= x->rank || (seen >> from & 1)) hd_node_fail(node, "the order of axes must name each axis of x %s once: 0 to %d", text(node, 0), x->rank - 1);
        seen |= 1u << from;
        node->shape.size[i] = x->size[from];
    }
}

void shape_expand(hd_node *node)
{
    hd_shape out;
    node->dtype = HD_F32;
    if (!hd_broadcast(in(node, 0), &node->shape, &out) || !hd_same_shape(&out, &node->shape))
        hd_node_fail(node, "x %s does not expand to %s: only axes of size 1 grow, and new axes come first", text(node, 0), hd_shape_text(&node->shape));
}

/* The caller may leave out the shape: it follows from x and the attributes. */
void shape_pad(hd_node *node)
{
    const int64_t most = (int64_t)1 << 40;
    int axis = node->attr.pad.axis;
    check_axis(node, axis);
    if (node->attr.pad.before < 0 || node->attr.pad.before > most || node->attr.pad.after < 0 || node->attr.pad.after > most)
        hd_node_fail(node, "pads axis %d of x %s by %lld and %lld; both must be 0 to 2^40", axis, text(node, 0), (ll)node->attr.pad.before, (ll)node->attr.pad.after);
    node->dtype = HD_F32;
    node->shape = *in(node, 0);
    node->shape.size[axis] += node->attr.pad.before + node->attr.pad.after;
}

void shape_concat(hd_node *node)
{
    int axis = node->attr.concat.axis;
    check_axis(node, axis);
    node->dtype = HD_F32;
    node->shape = *in(node, 0);
    for (int i = 1; i < node->inputs; i++) {
        hd_shape other = *in(node, i);
        if (other.rank == node->shape.rank) {
            int64_t size = other.size[axis];
            other.size[axis] = node->shape.size[axis];
            if (hd_same_shape(&other, &node->shape)) {
                node->shape.size[axis] += size;     /* far from overflow: 2^40 each */
                continue;
            }
        }
        hd_node_fail(node, "input 1 %s and input %d %s may differ only on axis %d", text(node, 0), i + 1, text(node, i), axis);
    }
}

void shape_shift(hd_node *node)
{
    const hd_shape *x = in(node, 0);
    int axis = node->attr.shift.axis;
    check_axis(node, axis);
    hd_shape start = { .rank = x->rank - axis - 1 };
    for (int i = 0; i < start.rank; i++) start.size[i] = x->size[axis + 1 + i];
    need_shape(node, 1, &start, hd_format("the axes after axis %d", axis));
    shape_same(node);
}

void shape_first_row(hd_node *node)
{
    const hd_shape *x = in(node, 0);
    const int axis = node->attr.row.axis;
    check_axis(node, axis);
    hd_shape start = { .rank = x->rank - axis - 1 };
    for (int i = 0; i < start.rank; i++) start.size[i] = x->size[axis + 1 + i];
    need_shape(node, 1, &start, hd_format("the axes after axis %d", axis));
    shape_same(node);
}

void shape_reduce(hd_node *node)
{
    shape_same(node);
    unsigned axes = node->attr.reduce.axes;
    if (axes >> node->shape.rank) hd_node_fail(node, "x %s has no axis %d; it has axes 0 to %d", text(node, 0), 31 - __builtin_clz(axes), node->shape.rank - 1);
    for (int i = 0; i < node->shape.rank; i++)
        if (axes >> i & 1) node->shape.size[i] = 1;
}

void shape_matmul(hd_node *node)
{
    const hd_shape *a = in(node, 0), *b = in(node, 1);
    if (a->rank < 2 || b->rank < 2) hd_node_fail(node, "a %s and b %s need at least 2 axes each; reshape vectors to [1, n] or [n, 1]", text(node, 0), text(node, 1));
    bool trans_a = node->attr.matmul.trans_a, trans_b = node->attr.matmul.trans_b;
    int64_t m = a->size[a->rank - (trans_a ? 1 : 2)], k = a->size[a->rank - (trans_a ? 2 : 1)];
    int64_t n = b->size[b->rank - (trans_b ? 2 : 1)], rows = b->size[b->rank - (trans_b ? 1 : 2)];
    if (k != rows)
        hd_node_fail(node, "a %s%s and b %s%s do not match: a has %lld %s, b has %lld %s", text(node, 0), trans_a ? " (transposed)" : "", text(node, 1),
                     trans_b ? " (transposed)" : "", (ll)k, trans_a ? "rows" : "columns", (ll)rows, trans_b ? "columns" : "rows");
    if (b->rank != 2 || (trans_a && a->rank > 2)) {    /* a transposed stack has no rows to run on: it is not one tall matrix */
        bool match = a->rank == b->rank;
        for (int i = 0; match && i < a->rank - 2; i++) match = a->size[i] == b->size[i];
        if (!match)
            hd_node_fail(node, "a %s and b %s do not match: the axes before the last two must be equal%s", text(node, 0), text(node, 1),
                         trans_a ? " where a is transposed" : ", or b must have only two");
    }
    node->dtype = HD_F32;
    node->shape = *a;
    node->shape.size[a->rank - 2] = m;
    node->shape.size[a->rank - 1] = n;
}

void shape_norm(hd_node *node)
{
    need_rank(node, 0, 1);
    if (!(node->attr.norm.epsilon >= 0) || isinf(node->attr.norm.epsilon)) hd_node_fail(node, "epsilon is %g; it must be 0 or more", node->attr.norm.epsilon);
    hd_shape row = { .rank = 1, .size = { last(in(node, 0)) } };
    for (int i = 1; i < node->inputs; i++) need_shape(node, i, &row, "the last axis of x");
    shape_same(node);
}

void shape_norm_dgain(hd_node *node)
{
    need_rank(node, 0, 1);
    need_shape(node, 1, in(node, 0), "the same");
    node->dtype = HD_F32;
    node->shape = (hd_shape){ .rank = 1, .size = { last(in(node, 0)) } };
}

void shape_cross_entropy(hd_node *node)
{
    need_rank(node, 0, 1);
    hd_shape rows = without_last(in(node, 0));
    need_shape(node, 1, &rows, "the axes of logits but the last");
    node->dtype = HD_F32;
    node->shape = rows;
}

void shape_embedding(hd_node *node)
{
    if (in(node, 0)->rank != 2) hd_node_fail(node, "table is %s; it must be [vocab, width]", text(node, 0));
    if (in(node, 1)->rank >= HD_MAX_RANK) hd_node_fail(node, "ids %s have too many axes; at most %d", text(node, 1), HD_MAX_RANK - 1);
    node->dtype = HD_F32;
    node->shape = *in(node, 1);
    node->shape.size[node->shape.rank++] = in(node, 0)->size[1];
}

void shape_embedding_dw(hd_node *node)
{
    need_rank(node, 1, 1);
    hd_shape rows = without_last(in(node, 1));
    if (!hd_same_shape(&rows, in(node, 0))) hd_node_fail(node, "ids %s and dy %s do not match: dy must have the axes of ids and one more", text(node, 0), text(node, 1));
    node->dtype = HD_F32;
    node->shape = (hd_shape){ .rank = 2, .size = { node->attr.size.rows, last(in(node, 1)) } };
}

void shape_rope(hd_node *node)
{
    need_rank(node, 0, 2);
    int axis = node->attr.rope.axis, head_dim = node->attr.rope.head_dim, dims = node->attr.rope.dims, rank = in(node, 0)->rank;
    if (axis < 0 || axis > rank - 2) hd_node_fail(node, "positions are axis %d of x %s; they must be one of axes 0 to %d", axis, text(node, 0), rank - 2);
    if (head_dim < 2 || last(in(node, 0)) % head_dim) hd_node_fail(node, "x %s: width %lld does not divide into heads of head_dim %d", text(node, 0), (ll)last(in(node, 0)), head_dim);
    if (dims < 2 || dims > head_dim || dims % 2) hd_node_fail(node, "dims is %d; it must be even, 2 to head_dim %d", dims, head_dim);
    if (!(node->attr.rope.base > 0) || isinf(node->attr.rope.base)) hd_node_fail(node, "base is %g; it must be above 0 (usually 10000)", node->attr.rope.base);
    if (node->attr.rope.scale == 0) node->attr.rope.scale = 1;
    shape_same(node);
}

/* width = heads * head_dim, or a message with the widths nearby that would do. */
static void divide_heads(const hd_node *node, int64_t width, int heads)
{
    if (width % heads == 0) return;
    int64_t below = width / heads * heads;
    if (below) hd_node_fail(node, "width %lld does not divide into %d heads; nearest widths: %lld, %lld", (ll)width, heads, (ll)below, (ll)(below + heads));
    hd_node_fail(node, "width %lld does not divide into %d heads; nearest width: %d", (ll)width, heads, heads);
}

/* Input i has `axes` axes of these sizes; `what` says so in words. */
static void need_sizes(const hd_node *node, int i, int axes, const int64_t *size, const char *what)
{
    bool fits = in(node, i)->rank == axes;
    for (int a = 0; fits && a < axes; a++) fits = in(node, i)->size[a] == size[a];
    if (!fits) hd_node_fail(node, "%s is %s; it must be %s", hd_operand_name(node, i), text(node, i), what);
}

/* One row for all sequences (or heads), or one for each. */
static void need_one_or_each(const hd_node *node, int i, int64_t rows, int64_t columns, const char *row, const char *column)
{
    const bool each = in(node, i)->rank == 2;
    need_sizes(node, i, each ? 2 : 1, (int64_t[]){ each ? rows : columns, columns },
               hd_format("[%lld] (%s), or [%lld, %lld] (%s, %s)", (ll)columns, column, (ll)rows, (ll)columns, row, column));
}

static void check_extras(const hd_node *node)
{
    const hd_shape *q = in(node, 0), *k = in(node, 1);
    const int heads = node->attr.attention.heads;
    const int64_t queries = q->size[q->rank - 2], keys = k->size[k->rank - 2];
    const hd_buckets *buckets = node->attr.attention.buckets;
    const double softcap = node->attr.attention.softcap;
    if (!(softcap >= 0) || isinf(softcap)) hd_node_fail(node, "softcap is %g; it must be above 0 and finite, or left out", softcap);
    for (int h = 0; node->attr.attention.alibi && h < heads; h++)
        if (!isfinite(node->attr.attention.alibi[h])) hd_node_fail(node, "the ALiBi slope of head %d is %g; slopes must be finite", h, node->attr.attention.alibi[h]);
    if (node->attr.attention.offset > (int64_t)1 << 30 || node->attr.attention.offset < -((int64_t)1 << 30)) hd_node_fail(node, "offset is %lld; it must be within 2^30 of 0", (ll)node->attr.attention.offset);
    int at = hd_attention_input(node, HD_WITH_SINKS);
    if (at >= 0) need_sizes(node, at, 1, (int64_t[]){ heads }, hd_format("[%d], one logit for each head", heads));
    at = hd_attention_input(node, HD_WITH_BIAS);
    if (at >= 0 && !buckets) hd_node_fail(node, "bias has no buckets: which distance reads which of its columns");
    if (at >= 0) need_sizes(node, at, 2, (int64_t[]){ heads, buckets->buckets }, hd_format("[%d, %lld] (heads, buckets of distances)", heads, (ll)buckets->buckets));
    at = hd_attention_input(node, HD_WITH_KEY_BIAS);
    if (at >= 0) need_one_or_each(node, at, sequences(node), keys, "sequences", "keys");
    at = hd_attention_input(node, HD_WITH_EDGE_BIAS);
    if (at >= 0) {
        if (node->attr.attention.patterns != 1) hd_node_fail(node, "edge_bias counts the pairs of one pattern; the heads have %d", node->attr.attention.patterns);
        hd_pattern_check_lengths(node->attr.attention.pattern[0], queries, keys);
        need_one_or_each(node, at, heads, hd_pattern_kept_pairs(node->attr.attention.pattern[0], queries, keys), "heads", "pairs that the pattern keeps");
    }
    at = hd_attention_input(node, HD_WITH_BOUNDS);
    if (at >= 0) need_sizes(node, at, 3, (int64_t[]){ sequences(node), queries, 2 }, hd_format("[%lld, %lld, 2] (sequences, queries, first and end)", (ll)sequences(node), (ll)queries));
}

/* Fills in what follows from the shapes: kv_heads 0 means heads, head_dim 0 what the width gives, scale 0 1/sqrt(head_dim). */
void shape_attention(hd_node *node)
{
    if (node->op == HD_OP_attention_dx) node->attr.attention.with &= ~(unsigned)HD_WITH_SINKS;     /* their gradient needs no pass over the pairs */
    const int takes = inputs_before_extras(node->op) + __builtin_popcount(node->attr.attention.with);
    if (node->inputs != takes) hd_node_fail(node, "%d inputs given; it takes %d", node->inputs, takes);
    const hd_shape *q = in(node, 0), *k = in(node, 1), *v = in(node, 2);
    bool first = node->attr.attention.heads_first;
    int least = first ? 3 : 2, heads = node->attr.attention.heads;
    for (int i = 0; i < 3; i++) need_rank(node, i, least);
    if (!hd_same_shape(k, v)) hd_node_fail(node, "k %s and v %s differ; they must be equal", text(node, 1), text(node, 2));

    if (heads < 1 || heads > 65536) hd_node_fail(node, "heads is %d; it must be 1 to 65536", heads);
    int kv_heads = node->attr.attention.kv_heads ? node->attr.attention.kv_heads : heads;
    if (kv_heads < 1 || heads % kv_heads) {
        hd_text valid = { 0 };
        for (int h = 1; h <= heads; h++)
            if (heads % h == 0) hd_text_add(&valid, valid.length ? ", %d" : "%d", h);
        hd_node_fail(node, "kv_heads %d does not divide heads %d; valid: %s", kv_heads, heads, valid.data);
    }
    node->attr.attention.kv_heads = kv_heads;

    int64_t head_dim;
    if (first) {
        head_dim = last(q);
        if (q->size[q->rank - 3] != heads || k->size[k->rank - 3] != kv_heads)
            hd_node_fail(node, "q %s and k %s must be [..., %d heads, queries, head_dim] and [..., %d kv_heads, keys, head_dim]", text(node, 0), text(node, 1), heads, kv_heads);
        if (last(k) != head_dim) hd_node_fail(node, "q %s and k %s do not match: head_dim is %lld and %lld", text(node, 0), text(node, 1), (ll)head_dim, (ll)last(k));
    } else {
        divide_heads(node, last(q), heads);
        head_dim = last(q) / heads;
        if (last(k) != head_dim * kv_heads)
            hd_node_fail(node, "q %s and k %s do not match: %d heads of width %lld and %d kv_heads need k of width %lld, not %lld", text(node, 0), text(node, 1),
                         heads, (ll)head_dim, kv_heads, (ll)(head_dim * kv_heads), (ll)last(k));
    }
    bool match = q->rank == k->rank;
    for (int i = 0; match && i < q->rank - least; i++) match = q->size[i] == k->size[i];
    if (!match) hd_node_fail(node, "q %s and k %s do not match: the axes before the last %d must be equal", text(node, 0), text(node, 1), least);

    if (head_dim > 65536) hd_node_fail(node, "head_dim is %lld; it must be 1 to 65536", (ll)head_dim);
    if (node->attr.attention.head_dim && node->attr.attention.head_dim != head_dim)
        hd_node_fail(node, "head_dim is %d; q %s in %d heads gives %lld", node->attr.attention.head_dim, text(node, 0), heads, (ll)head_dim);
    node->attr.attention.head_dim = (int)head_dim;
    if (node->attr.attention.scale == 0) node->attr.attention.scale = 1 / sqrt((double)head_dim);
    if (!isfinite(node->attr.attention.scale)) hd_node_fail(node, "scale is %g; it must be finite", node->attr.attention.scale);
    int patterns = node->attr.attention.patterns;
    if (patterns != 1 && patterns != heads) hd_node_fail(node, "%d patterns for %d heads; give one, or one for each head", patterns, heads);
    check_extras(node);
    shape_same(node);
}

void shape_attention_dx(hd_node *node)
{
    shape_attention(node);
    hd_shape lse = lse_shape(node);
    need_shape(node, 3, in(node, 0), "the shape of q");
    need_shape(node, 4, &lse, "[..., heads, queries]");
    need_shape(node, 5, in(node, 0), "the shape of q");
}

void shape_cache_keys(hd_node *node)
{
    if (in(node, 0)->rank != 1) hd_node_fail(node, "positions is %s; it must be [streams], the position of the first row of each", text(node, 0));
    const int64_t streams = in(node, 0)->size[0], chunk = node->attr.cache_keys.chunk;
    if (chunk < 1 || (chunk > 1 && streams > 1)) hd_node_fail(node, "%lld streams of %lld rows; it must be one row each, or one stream", (ll)streams, (ll)chunk);
    node->dtype = HD_I32;
    node->shape = (hd_shape){ .rank = 1, .size = { hd_cache_plan(node->attr.cache_keys.cache, streams, chunk).all } };
}

void shape_attention_cached(hd_node *node)
{
    shape_attention(node);
    const hd_cache *c = node->attr.attention.cache;
    const hd_shape *q = in(node, 0);
    const int64_t chunk = q->size[q->rank - 2], streams = sequences(node);
    if (c->heads != node->attr.attention.heads || c->kv_heads != node->attr.attention.kv_heads || c->head_dim != node->attr.attention.head_dim)
        hd_node_fail(node, "the cache is for %d heads, %d kv_heads, head_dim %d", c->heads, c->kv_heads, c->head_dim);
    need_sizes(node, 3, 1, (int64_t[]){ hd_cache_plan(c, streams, chunk).all }, "what cache_keys makes of this cache and these positions");
    need_sizes(node, 4, 1, (int64_t[]){ streams }, "[streams]");
}

void shape_key_bounds(hd_node *node)
{
    const int64_t queries = node->attr.bounds.queries, keys = node->attr.bounds.keys;
    if (node->attr.bounds.documents) {
        if (queries != keys) hd_node_fail(node, "documents need as many keys as queries, not %lld and %lld", (ll)keys, (ll)queries);
        if (in(node, 0)->rank != 2 || in(node, 0)->size[1] != queries) hd_node_fail(node, "documents is %s; it must be [sequences, %lld], the id of every position", text(node, 0), (ll)queries);
    } else if (in(node, 0)->rank != 1) {
        hd_node_fail(node, "lengths is %s; it must be [sequences], how many keys each has", text(node, 0));
    }
    node->dtype = HD_I32;
    node->shape = (hd_shape){ .rank = 3, .size = { in(node, 0)->size[0], queries, 2 } };
}

void shape_position_ids(hd_node *node)
{
    need_rank(node, 0, 1);
    node->dtype = HD_I32;
    node->shape = (hd_shape){ .rank = 2, .size = { in(node, 0)->size[0], node->attr.position_ids.rows } };
}

void shape_rope_at(hd_node *node) { shape_rope(node); }

void shape_last_row(hd_node *node)
{
    check_axis(node, node->attr.row.axis);
    node->dtype = node->input[0]->dtype;
    node->shape = *in(node, 0);
    node->shape.size[node->attr.row.axis] = 1;
}

/* gradient_norm(hyper, gradients...), adamw(hyper, norm, then weight, gradient, m, v of each): one number. */
void shape_scalar(hd_node *node)
{
    if (hd_elements(in(node, 0)) != HD_HYPER_COUNT) hd_node_fail(node, "hyper is %s; it must be [%d]", text(node, 0), HD_HYPER_COUNT);
    if (node->op == HD_OP_adamw) {
        if (node->inputs < 6 || (node->inputs - 2) % 4) hd_node_fail(node, "%d inputs; they must be hyper, norm, and then weight, gradient, m, v of each parameter", node->inputs);
        for (int i = 2; i < node->inputs; i++)
            if (!hd_same_shape(in(node, i), in(node, (i - 2) / 4 * 4 + 2)))
                hd_node_fail(node, "weight %s and input %d %s differ; weight, gradient, m and v must be equal", text(node, (i - 2) / 4 * 4 + 2), i + 1, text(node, i));
    }
    node->dtype = HD_F32;
    node->shape = (hd_shape){ .rank = 0 };
}
