/* The reference interpreter: what every op means, in double precision and one obvious loop each. Compiled code is
 * compared with this; speed is no aim beyond keeping `heddle check` pleasant.
 *
 * Tensors are row-major arrays of double, i32 ids included. Sources and the outputs of an entry keep their values, so that
 * an entry can be evaluated many times (a training run); all else is given back after its last reader. Effects write
 * into the arrays of the params they store to. */
#include "internal.h"

#include "../../runtime/core/hd_random.h"
#include "../pattern/pattern.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *take(size_t count, size_t bytes)
{
    void *memory = calloc(count ? count : 1, bytes);
    if (!memory) hd_fail((hd_where){ 0 }, "out of memory: the interpreter needs %zu bytes more; make the model smaller, for instance -D batch=1", count * bytes);
    return memory;
}

static double *of(const hd_eval *eval, const hd_node *node) { return eval->value[node->id]; }
static double *in(const hd_eval *eval, const hd_node *node, int i) { return of(eval, node->input[i]); }
static double *result(const hd_eval *eval, const hd_node *node, int i) { return eval->results[node->id][i]; }
static const hd_shape *shape(const hd_node *node, int i) { return &node->input[i]->shape; }
static int64_t row_length(const hd_shape *s) { return s->size[s->rank - 1]; }

/* A shape around one axis: [outer][size][inner]. */
static int64_t outer_of(const hd_shape *s, int axis)
{
    int64_t n = 1;
    for (int i = 0; i < axis; i++) n *= s->size[i];
    return n;
}
static int64_t inner_of(const hd_shape *s, int axis)
{
    int64_t n = 1;
    for (int i = axis + 1; i < s->rank; i++) n *= s->size[i];
    return n;
}

/* Where element e of a large shape reads a small one that broadcasts to it. */
typedef struct reader { int rank; int64_t size[HD_MAX_RANK], stride[HD_MAX_RANK], period; } reader;

static reader reader_of(const hd_shape *large, const hd_shape *small)
{
    reader r = { .rank = large->rank };
    int64_t stride = 1, covered = 1;
    bool repeats = true;               /* small is the last axes of large, so element e is e modulo its elements */
    for (int i = large->rank - 1; i >= 0; i--) {
        int from = i - (large->rank - small->rank);
        int64_t size = from >= 0 ? small->size[from] : 1;
        r.size[i] = large->size[i];
        r.stride[i] = size == 1 ? 0 : stride;
        if (size != 1 && stride != covered) repeats = false;
        stride *= size;
        covered *= large->size[i];
    }
    r.period = repeats ? stride : 0;
    return r;
}

static int64_t read_at(const reader *r, int64_t element)
{
    if (r->period) return element < r->period ? element : element % r->period;
    int64_t at = 0;
    for (int i = r->rank - 1; i >= 0; i--) {
        at += element % r->size[i] * r->stride[i];
        element /= r->size[i];
    }
    return at;
}

void eval_constant(hd_eval *eval, const hd_node *node)
{
    for (int64_t e = 0; e < hd_elements(&node->shape); e++) of(eval, node)[e] = node->attr.constant.value;
}

void eval_table(hd_eval *eval, const hd_node *node) { memcpy(of(eval, node), node->attr.table.value, sizeof(double) * (size_t)hd_elements(&node->shape)); }

void eval_result(hd_eval *eval, const hd_node *node)
{
    eval->value[node->id] = eval->results[node->id][0] = result(eval, node->input[0], node->attr.result.index);
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static double unary(hd_op op, double x)
{
    const double sqrt_half = 0.70710678118654752440, sqrt_2_over_pi = 0.79788456080286535588, inv_sqrt_2pi = 0.39894228040143267794;
    switch (op) {
    case HD_OP_neg: return -x;
    case HD_OP_exp: return exp(x);
    case HD_OP_log: return log(x);
    case HD_OP_sqrt: return sqrt(x);
    case HD_OP_rsqrt: return 1 / sqrt(x);
    case HD_OP_abs: return fabs(x);
    case HD_OP_sign: return (x > 0) - (x < 0);
    case HD_OP_sin: return sin(x);
    case HD_OP_cos: return cos(x);
    case HD_OP_tanh: return tanh(x);
    case HD_OP_erf: return erf(x);
    case HD_OP_sigmoid: return sigmoid(x);
    case HD_OP_relu: return x > 0 ? x : 0;
    case HD_OP_step: return x > 0;
    case HD_OP_silu: return x * sigmoid(x);
    case HD_OP_silu_prime: return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
    case HD_OP_gelu: return 0.5 * x * (1 + erf(x * sqrt_half));
    case HD_OP_gelu_prime: return 0.5 * (1 + erf(x * sqrt_half)) + x * inv_sqrt_2pi * exp(-0.5 * x * x);
    case HD_OP_gelu_tanh: return 0.5 * x * (1 + tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)));
    case HD_OP_gelu_tanh_prime: {
        double t = tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x));
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt_2_over_pi * (1 + 3 * 0.044715 * x * x);
    }
    case HD_OP_gelu_quick: return x * sigmoid(1.702 * x);
    case HD_OP_gelu_quick_prime: return sigmoid(1.702 * x) * (1 + 1.702 * x * (1 - sigmoid(1.702 * x)));
    default: return x;     /* detach */
    }
}

void eval_unary(hd_eval *eval, const hd_node *node)
{
    const double *x = in(eval, node, 0);
    double *y = of(eval, node);
    for (int64_t e = 0; e < hd_elements(&node->shape); e++) y[e] = unary(node->op, x[e]);
}

static double binary(hd_op op, double a, double b)
{
    switch (op) {
    case HD_OP_add: return a + b;
    case HD_OP_sub: return a - b;
    case HD_OP_mul: return a * b;
    case HD_OP_div: return a / b;
    case HD_OP_max: return a > b ? a : b;
    case HD_OP_min: return a < b ? a : b;
    case HD_OP_less: return a < b;
    default: return a == b;
    }
}

void eval_binary(hd_eval *eval, const hd_node *node)
{
    reader ra = reader_of(&node->shape, shape(node, 0)), rb = reader_of(&node->shape, shape(node, 1));
    const double *a = in(eval, node, 0), *b = in(eval, node, 1);
    double *y = of(eval, node);
    for (int64_t e = 0; e < hd_elements(&node->shape); e++) y[e] = binary(node->op, a[read_at(&ra, e)], b[read_at(&rb, e)]);
}

/* where(condition, a, b): a where the condition is not 0 */
void eval_where(hd_eval *eval, const hd_node *node)
{
    reader rc = reader_of(&node->shape, shape(node, 0)), ra = reader_of(&node->shape, shape(node, 1)), rb = reader_of(&node->shape, shape(node, 2));
    double *y = of(eval, node);
    for (int64_t e = 0; e < hd_elements(&node->shape); e++)
        y[e] = in(eval, node, 0)[read_at(&rc, e)] != 0 ? in(eval, node, 1)[read_at(&ra, e)] : in(eval, node, 2)[read_at(&rb, e)];
}

void eval_dropout(hd_eval *eval, const hd_node *node)
{
    const double *x = in(eval, node, 0), *random = in(eval, node, 1);
    double p = node->attr.dropout.p;
    hd_random_keys key = hd_random_key((uint32_t)(int64_t)random[0], (uint32_t)(int64_t)random[1], (uint32_t)node->attr.dropout.stream);
    for (int64_t e = 0; e < hd_elements(&node->shape); e++)
        of(eval, node)[e] = hd_random_bits(key, (uint32_t)e) >> 8 >= hd_dropout_threshold(p) ? x[e] / (1 - p) : 0;
}

void eval_accumulate(hd_eval *eval, const hd_node *node)
{
    double *state = of(eval, hd_state_of(node));
    const double *x = in(eval, node, 1);
    bool keep = node->input[0]->op == HD_OP_accumulate || in(eval, node, 2)[0] != 0;
    for (int64_t e = 0; e < hd_elements(&node->shape); e++) of(eval, node)[e] = state[e] = (keep ? state[e] : 0) + x[e];
}

void eval_copy(hd_eval *eval, const hd_node *node)
{
    memcpy(of(eval, node), in(eval, node, 0), sizeof(double) * (size_t)hd_elements(&node->shape));
}

void eval_expand(hd_eval *eval, const hd_node *node)
{
    reader r = reader_of(&node->shape, shape(node, 0));
    for (int64_t e = 0; e < hd_elements(&node->shape); e++) of(eval, node)[e] = in(eval, node, 0)[read_at(&r, e)];
}

void eval_transpose(hd_eval *eval, const hd_node *node)
{
    const hd_shape *from = shape(node, 0);
    reader r = { .rank = node->shape.rank };
    for (int i = 0; i < r.rank; i++) {
        r.size[i] = node->shape.size[i];
        r.stride[i] = inner_of(from, node->attr.transpose.perm[i]);
    }
    for (int64_t e = 0; e < hd_elements(&node->shape); e++) of(eval, node)[e] = in(eval, node, 0)[read_at(&r, e)];
}

/* Copies `count` places of one axis, from place `from` of x to place `to` of y. */
static void copy_axis(double *y, const hd_shape *ys, int64_t to, const double *x, const hd_shape *xs, int64_t from, int64_t count, int axis)
{
    int64_t inner = inner_of(xs, axis);
    for (int64_t o = 0; o < outer_of(xs, axis); o++)
        memcpy(y + (o * ys->size[axis] + to) * inner, x + (o * xs->size[axis] + from) * inner, sizeof *y * (size_t)(count * inner));
}

static void clear(double *y, const hd_shape *s) { memset(y, 0, sizeof *y * (size_t)hd_elements(s)); }

void eval_slice(hd_eval *eval, const hd_node *node)
{
    int axis = node->attr.slice.axis;
    copy_axis(of(eval, node), &node->shape, 0, in(eval, node, 0), shape(node, 0), node->attr.slice.start, node->shape.size[axis], axis);
}

void eval_pad(hd_eval *eval, const hd_node *node)
{
    int axis = node->attr.pad.axis;
    clear(of(eval, node), &node->shape);
    copy_axis(of(eval, node), &node->shape, node->attr.pad.before, in(eval, node, 0), shape(node, 0), 0, shape(node, 0)->size[axis], axis);
}

void eval_concat(hd_eval *eval, const hd_node *node)
{
    int axis = node->attr.concat.axis;
    int64_t at = 0;
    for (int i = 0; i < node->inputs; i++) {
        int64_t count = shape(node, i)->size[axis];
        copy_axis(of(eval, node), &node->shape, at, in(eval, node, i), shape(node, i), 0, count, axis);
        at += count;
    }
}

/* y[..., 0, ...] = start, y[..., t, ...] = x[..., t - 1, ...] */
void eval_shift(hd_eval *eval, const hd_node *node)
{
    int axis = node->attr.shift.axis;
    int64_t size = node->shape.size[axis], inner = inner_of(&node->shape, axis);
    copy_axis(of(eval, node), &node->shape, 1, in(eval, node, 0), shape(node, 0), 0, size - 1, axis);
    for (int64_t o = 0; o < outer_of(&node->shape, axis); o++)
        memcpy(of(eval, node) + o * size * inner, in(eval, node, 1), sizeof(double) * (size_t)inner);
}

/* y[..., t, ...] = x[..., t + 1, ...], and 0 at the last place */
void eval_unshift(hd_eval *eval, const hd_node *node)
{
    int axis = node->attr.shift.axis;
    clear(of(eval, node), &node->shape);
    copy_axis(of(eval, node), &node->shape, 0, in(eval, node, 0), shape(node, 0), 1, node->shape.size[axis] - 1, axis);
}

void eval_reduce(hd_eval *eval, const hd_node *node)
{
    reader r = reader_of(shape(node, 0), &node->shape);
    const double *x = in(eval, node, 0);
    double *y = of(eval, node);
    bool sum = node->op == HD_OP_sum;
    for (int64_t e = 0; e < hd_elements(&node->shape); e++) y[e] = sum ? 0 : -INFINITY;
    for (int64_t e = 0; e < hd_elements(shape(node, 0)); e++) {
        double *to = &y[read_at(&r, e)];
        if (sum) *to += x[e];
        else if (x[e] > *to) *to = x[e];
    }
}

/* y = a b, with a [m, k] and b [k, n] after the transpositions that the flags ask for */
void eval_matmul(hd_eval *eval, const hd_node *node)
{
    const hd_shape *as = shape(node, 0), *bs = shape(node, 1), *ys = &node->shape;
    bool trans_a = node->attr.matmul.trans_a, trans_b = node->attr.matmul.trans_b;
    int64_t m = ys->size[ys->rank - 2], n = ys->size[ys->rank - 1], k = as->size[as->rank - (trans_a ? 2 : 1)];
    int64_t stack = hd_elements(ys) / (m * n);
    double *rows = take((size_t)(k * n), sizeof *rows);      /* b as [k, n]: the loops then run along rows */
    for (int64_t s = 0; s < stack; s++) {
        const double *a = in(eval, node, 0) + s * m * k, *b = in(eval, node, 1) + (bs->rank == 2 ? 0 : s * k * n);
        double *y = of(eval, node) + s * m * n;
        for (int64_t l = 0; l < k; l++)
            for (int64_t j = 0; j < n; j++) rows[l * n + j] = trans_b ? b[j * k + l] : b[l * n + j];
        for (int64_t i = 0; i < m; i++) {
            for (int64_t j = 0; j < n; j++) y[i * n + j] = 0;
            for (int64_t l = 0; l < k; l++) {
                double x = trans_a ? a[l * m + i] : a[i * k + l];
                for (int64_t j = 0; j < n; j++) y[i * n + j] += x * rows[l * n + j];
            }
        }
    }
    free(rows);
}

void eval_softmax(hd_eval *eval, const hd_node *node)
{
    int64_t n = row_length(&node->shape);
    for (int64_t r = 0; r < hd_elements(&node->shape) / n; r++) {
        const double *x = in(eval, node, 0) + r * n;
        double *y = of(eval, node) + r * n, max = -INFINITY, sum = 0;
        for (int64_t j = 0; j < n; j++) max = x[j] > max ? x[j] : max;
        for (int64_t j = 0; j < n; j++) sum += y[j] = exp(x[j] - max);
        for (int64_t j = 0; j < n; j++) y[j] /= sum;
    }
}

/* dx = y (dy - sum(dy y)) */
void eval_softmax_dx(hd_eval *eval, const hd_node *node)
{
    int64_t n = row_length(&node->shape);
    for (int64_t r = 0; r < hd_elements(&node->shape) / n; r++) {
        const double *dy = in(eval, node, 0) + r * n, *y = in(eval, node, 1) + r * n;
        double dot = 0;
        for (int64_t j = 0; j < n; j++) dot += dy[j] * y[j];
        for (int64_t j = 0; j < n; j++) of(eval, node)[r * n + j] = y[j] * (dy[j] - dot);
    }
}

/* y = (x - mean) rstd gain + bias, rstd = 1 / sqrt(variance + epsilon), the variance divided by n */
void eval_layer_norm(hd_eval *eval, const hd_node *node)
{
    int64_t n = row_length(&node->shape);
    const double *gain = in(eval, node, 1), *bias = in(eval, node, 2);
    for (int64_t r = 0; r < hd_elements(&node->shape) / n; r++) {
        const double *x = in(eval, node, 0) + r * n;
        double mean = 0, variance = 0;
        for (int64_t j = 0; j < n; j++) mean += x[j] / (double)n;
        for (int64_t j = 0; j < n; j++) variance += (x[j] - mean) * (x[j] - mean) / (double)n;
        double rstd = 1 / sqrt(variance + node->attr.norm.epsilon);
        for (int64_t j = 0; j < n; j++) of(eval, node)[r * n + j] = (x[j] - mean) * rstd * gain[j] + bias[j];
        result(eval, node, 1)[r] = mean;
        result(eval, node, 2)[r] = rstd;
    }
}

/* y = x rstd gain, rstd = 1 / sqrt(mean of x^2 + epsilon) */
void eval_rms_norm(hd_eval *eval, const hd_node *node)
{
    int64_t n = row_length(&node->shape);
    const double *gain = in(eval, node, 1);
    for (int64_t r = 0; r < hd_elements(&node->shape) / n; r++) {
        const double *x = in(eval, node, 0) + r * n;
        double square = 0;
        for (int64_t j = 0; j < n; j++) square += x[j] * x[j] / (double)n;
        double rstd = 1 / sqrt(square + node->attr.norm.epsilon);
        for (int64_t j = 0; j < n; j++) of(eval, node)[r * n + j] = x[j] * rstd * gain[j];
        result(eval, node, 1)[r] = rstd;
    }
}

/* With h = (x - mean) rstd (the mean is 0 for rms_norm) and g = dy gain:  dx = rstd (g - mean(g) - h mean(g h)),
 * without the term mean(g) for rms_norm. */
static void norm_dx(hd_eval *eval, const hd_node *node, const double *mean, const double *rstd)
{
    int64_t n = row_length(&node->shape);
    const double *gain = in(eval, node, 2);
    for (int64_t r = 0; r < hd_elements(&node->shape) / n; r++) {
        const double *dy = in(eval, node, 0) + r * n, *x = in(eval, node, 1) + r * n;
        double g = 0, gh = 0, m = mean ? mean[r] : 0;
        for (int64_t j = 0; j < n; j++) {
            g += mean ? dy[j] * gain[j] / (double)n : 0;
            gh += dy[j] * gain[j] * (x[j] - m) * rstd[r] / (double)n;
        }
        for (int64_t j = 0; j < n; j++) of(eval, node)[r * n + j] = rstd[r] * (dy[j] * gain[j] - g - (x[j] - m) * rstd[r] * gh);
    }
}
void eval_layer_norm_dx(hd_eval *eval, const hd_node *node) { norm_dx(eval, node, in(eval, node, 3), in(eval, node, 4)); }
void eval_rms_norm_dx(hd_eval *eval, const hd_node *node) { norm_dx(eval, node, NULL, in(eval, node, 3)); }

/* dgain = sum over rows of dy (x - mean) rstd */
static void norm_dgain(hd_eval *eval, const hd_node *node, const double *mean, const double *rstd)
{
    int64_t n = row_length(&node->shape);
    clear(of(eval, node), &node->shape);
    for (int64_t r = 0; r < hd_elements(shape(node, 0)) / n; r++)
        for (int64_t j = 0; j < n; j++)
            of(eval, node)[j] += in(eval, node, 0)[r * n + j] * (in(eval, node, 1)[r * n + j] - (mean ? mean[r] : 0)) * rstd[r];
}
void eval_layer_norm_dgain(hd_eval *eval, const hd_node *node) { norm_dgain(eval, node, in(eval, node, 2), in(eval, node, 3)); }
void eval_rms_norm_dgain(hd_eval *eval, const hd_node *node) { norm_dgain(eval, node, NULL, in(eval, node, 2)); }

static int64_t id_below(const hd_node *node, double value, int64_t limit)
{
    if (!(value < (double)limit)) hd_node_fail(node, "id %g is not below %lld", value, (long long)limit);
    return (int64_t)value;
}

/* nll = lse - logits[target], lse = log sum exp(logits); a target below 0 counts nothing */
void eval_cross_entropy(hd_eval *eval, const hd_node *node)
{
    int64_t n = row_length(shape(node, 0));
    for (int64_t r = 0; r < hd_elements(&node->shape); r++) {
        const double *x = in(eval, node, 0) + r * n;
        double max = -INFINITY, sum = 0;
        for (int64_t j = 0; j < n; j++) max = x[j] > max ? x[j] : max;
        for (int64_t j = 0; j < n; j++) sum += exp(x[j] - max);
        double lse = max + log(sum);
        int64_t target = id_below(node, in(eval, node, 1)[r], n);
        of(eval, node)[r] = target < 0 ? 0 : lse - x[target];
        result(eval, node, 1)[r] = lse;
    }
}

/* dlogits = dnll (exp(logits - lse) - onehot(target)), 0 where the target is below 0 */
void eval_cross_entropy_dx(hd_eval *eval, const hd_node *node)
{
    int64_t n = row_length(&node->shape);
    for (int64_t r = 0; r < hd_elements(&node->shape) / n; r++) {
        const double *x = in(eval, node, 0) + r * n;
        int64_t target = id_below(node, in(eval, node, 1)[r], n);
        for (int64_t j = 0; j < n; j++)
            of(eval, node)[r * n + j] = target < 0 ? 0 : in(eval, node, 3)[r] * (exp(x[j] - in(eval, node, 2)[r]) - (j == target));
    }
}

/* y[..., :] = table[ids[...], :]; an id below 0 gives a row of zeros */
void eval_embedding(hd_eval *eval, const hd_node *node)
{
    int64_t vocab = shape(node, 0)->size[0], width = shape(node, 0)->size[1];
    clear(of(eval, node), &node->shape);
    for (int64_t r = 0; r < hd_elements(shape(node, 1)); r++) {
        int64_t id = id_below(node, in(eval, node, 1)[r], vocab);
        for (int64_t j = 0; id >= 0 && j < width; j++) of(eval, node)[r * width + j] = in(eval, node, 0)[id * width + j];
    }
}

void eval_embedding_dw(hd_eval *eval, const hd_node *node)
{
    int64_t vocab = node->shape.size[0], width = node->shape.size[1];
    clear(of(eval, node), &node->shape);
    for (int64_t r = 0; r < hd_elements(shape(node, 0)); r++) {
        int64_t id = id_below(node, in(eval, node, 0)[r], vocab);
        for (int64_t j = 0; id >= 0 && j < width; j++) of(eval, node)[id * width + j] += in(eval, node, 1)[r * width + j];
    }
}

/* Elements a and b of a head rotate together by position * frequency[t], or base^(-2t/dims), t < dims/2 */
void eval_rope(hd_eval *eval, const hd_node *node)
{
    const hd_shape *s = &node->shape;
    int axis = node->attr.rope.axis, head_dim = node->attr.rope.head_dim, dims = node->attr.rope.dims;
    int64_t positions = s->size[axis], inner = inner_of(s, axis), width = row_length(s);
    memcpy(of(eval, node), in(eval, node, 0), sizeof(double) * (size_t)hd_elements(s));
    for (int64_t row = 0; row < hd_elements(s) / width; row++) {
        double position = (double)(row * width / inner % positions);
        for (int64_t head = 0; head < width; head += head_dim)
            for (int t = 0; t < dims / 2; t++) {
                const double turn = node->attr.rope.frequency ? node->attr.rope.frequency[t] : pow(node->attr.rope.base, -2.0 * t / dims);
                const double angle = position * turn * (node->attr.rope.inverse ? -1 : 1), scale = node->attr.rope.scale;
                int64_t a = row * width + head + (node->attr.rope.pairs ? 2 * t : t), b = a + (node->attr.rope.pairs ? 1 : dims / 2);
                double xa = in(eval, node, 0)[a], xb = in(eval, node, 0)[b];
                of(eval, node)[a] = scale * (xa * cos(angle) - xb * sin(angle));
                of(eval, node)[b] = scale * (xa * sin(angle) + xb * cos(angle));
            }
    }
}

/* One attention node: where its rows lie, in either layout, and what its scores take in; extras that are not there are NULL. */
typedef struct heads {
    const hd_node *node;
    int64_t stack, queries, keys, heads, group, dim;
    bool first;
    const double *q, *k, *sinks, *bias, *key_bias, *edge_bias, *bounds;
    int64_t key_bias_stride, edge_bias_stride;      /* between sequences, between heads */
} heads;

static const double *extra(const hd_eval *eval, const hd_node *node, unsigned bit)
{
    const int i = hd_attention_input(node, bit);
    return i < 0 ? NULL : in(eval, node, i);
}

static heads heads_of(const hd_eval *eval, const hd_node *node)
{
    const hd_shape *q = shape(node, 0), *k = shape(node, 1);
    heads h = { .node = node, .heads = node->attr.attention.heads, .dim = node->attr.attention.head_dim, .first = node->attr.attention.heads_first,
                .queries = q->size[q->rank - 2], .keys = k->size[k->rank - 2], .q = in(eval, node, 0), .k = in(eval, node, 1) };
    h.group = h.heads / node->attr.attention.kv_heads;
    h.stack = hd_elements(q) / (h.queries * h.heads * h.dim);
    h.sinks = extra(eval, node, HD_WITH_SINKS);
    h.bias = extra(eval, node, HD_WITH_BIAS);
    h.key_bias = extra(eval, node, HD_WITH_KEY_BIAS);
    h.edge_bias = extra(eval, node, HD_WITH_EDGE_BIAS);
    h.bounds = extra(eval, node, HD_WITH_BOUNDS);
    if (h.key_bias && shape(node, hd_attention_input(node, HD_WITH_KEY_BIAS))->rank == 2) h.key_bias_stride = h.keys;
    if (h.edge_bias && shape(node, hd_attention_input(node, HD_WITH_EDGE_BIAS))->rank == 2) h.edge_bias_stride = row_length(shape(node, hd_attention_input(node, HD_WITH_EDGE_BIAS)));
    return h;
}
static int64_t query_row(const heads *h, int64_t s, int64_t head, int64_t i)
{
    return (h->first ? (s * h->heads + head) * h->queries + i : (s * h->queries + i) * h->heads + head) * h->dim;
}
static int64_t key_row(const heads *h, int64_t s, int64_t head, int64_t j)
{
    int64_t kv_heads = h->heads / h->group, kv = head / h->group;
    return (h->first ? (s * kv_heads + kv) * h->keys + j : (s * h->keys + j) * kv_heads + kv) * h->dim;
}
static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t e = 0; e < n; e++) sum += a[e] * b[e];
    return sum;
}

/* One query of one head of one sequence. key: those its pattern and the bounds keep, pair: their numbers among the pattern's pairs;
 * score: room for as many. */
typedef struct row { int64_t s, head, i, count; const int64_t *key; int64_t pair; double *score; } row;

static int64_t bucket_of(const hd_buckets *b, int64_t d)
{
    int64_t at = d - b->first;
    return b->bucket[at < 0 ? 0 : at >= b->count ? b->count - 1 : at];
}

/* The score of the row's key t: graph.h's formula, line by line. *slope: its derivative by q . k. -inf: the key is not read. */
static double score_of(const heads *h, const row *r, int64_t t, double *slope)
{
    const hd_node *n = h->node;
    const int64_t j = r->key[t], d = r->i + n->attr.attention.offset - j;
    const double cap = n->attr.attention.softcap;
    if (h->bounds) {
        const double *bounds = h->bounds + 2 * (r->s * h->queries + r->i);
        if ((double)j < bounds[0] || (double)j >= bounds[1]) return -INFINITY;
    }
    double score = n->attr.attention.scale * dot(h->q + query_row(h, r->s, r->head, r->i), h->k + key_row(h, r->s, r->head, j), h->dim);
    *slope = n->attr.attention.scale;
    if (cap > 0) {
        double bent = tanh(score / cap);
        score = cap * bent;
        *slope *= 1 - bent * bent;
    }
    if (n->attr.attention.alibi) score -= n->attr.attention.alibi[r->head] * fabs((double)d);
    if (h->bias) score += h->bias[r->head * n->attr.attention.buckets->buckets + bucket_of(n->attr.attention.buckets, d)];
    if (h->key_bias) score += h->key_bias[r->s * h->key_bias_stride + j];
    if (h->edge_bias) score += h->edge_bias[r->head * h->edge_bias_stride + r->pair + t];
    return score;
}

/* Calls visit(eval, h, row) for every query of every head. The keys of a query are listed once for all heads and sequences that share
 * them; pairs are counted on the way. */
typedef void row_function(hd_eval *, const heads *, const row *);
static void each_row(hd_eval *eval, const hd_node *node, row_function *visit)
{
    const heads h = heads_of(eval, node);
    int64_t *key = take((size_t)h.keys, sizeof *key);
    double *score = take((size_t)h.keys, sizeof *score);
    const int patterns = node->attr.attention.patterns;
    for (int p = 0; p < patterns; p++) {
        row r = { .key = key, .score = score };
        for (r.i = 0; r.i < h.queries; r.i++, r.pair += r.count) {
            hd_progression *list;
            const int lists = hd_pattern_row(node->attr.attention.pattern[p], r.i, h.keys, &list);
            r.count = 0;
            for (int l = 0; l < lists; l++)
                for (int64_t t = 0; t < list[l].count; t++) key[r.count++] = list[l].start + t * list[l].step;
            for (r.s = 0; r.s < h.stack; r.s++)
                for (r.head = patterns == 1 ? 0 : p; r.head < (patterns == 1 ? h.heads : p + 1); r.head++) visit(eval, &h, &r);
        }
    }
    free(key);
    free(score);
}

static void attention_row(hd_eval *eval, const heads *h, const row *r)
{
    double *out = of(eval, h->node) + query_row(h, r->s, r->head, r->i), max = -INFINITY, sum = 0, slope;
    bool empty = !h->sinks;
    if (h->sinks) max = h->sinks[r->head];
    for (int64_t t = 0; t < r->count; t++) {
        r->score[t] = score_of(h, r, t, &slope);
        max = r->score[t] > max ? r->score[t] : max;
    }
    if (h->sinks) sum = exp(h->sinks[r->head] - max);
    for (int64_t e = 0; e < h->dim; e++) out[e] = 0;
    for (int64_t t = 0; t < r->count; t++) {
        if (r->score[t] == -INFINITY) continue;
        double p = exp(r->score[t] - max);
        const double *v = in(eval, h->node, 2) + key_row(h, r->s, r->head, r->key[t]);
        for (int64_t e = 0; e < h->dim; e++) out[e] += p * v[e];
        sum += p;
        empty = false;
    }
    for (int64_t e = 0; e < h->dim && sum > 0; e++) out[e] /= sum;
    result(eval, h->node, 1)[(r->s * h->heads + r->head) * h->queries + r->i] = empty ? -INFINITY : max + log(sum);
}
void eval_attention(hd_eval *eval, const hd_node *node) { each_row(eval, node, attention_row); }

/* p_ij = exp(score_ij - lse_i);  ds_ij = p_ij (dout_i.v_j - dout_i.out_i), which is what biases get;  dx_ij = ds_ij d score / d (q_i.k_j);
 * dq_i = sum_j dx_ij k_j,  dk_j = sum_i dx_ij q_i,  dv_j = sum_i p_ij dout_i */
static void attention_dx_row(hd_eval *eval, const heads *h, const row *r)
{
    const hd_node *node = h->node;
    const int64_t at = query_row(h, r->s, r->head, r->i), plane = r->s * h->heads + r->head;
    const double *q = h->q + at, *dout = in(eval, node, 5) + at;
    double *dextra[3];
    static const unsigned bits[] = { HD_WITH_BIAS, HD_WITH_KEY_BIAS, HD_WITH_EDGE_BIAS };
    for (int e = 0; e < 3; e++) {
        const int index = hd_attention_result(node, bits[e]);
        dextra[e] = index < 0 ? NULL : result(eval, node, index) + plane * row_length(shape(node, hd_attention_input(node, bits[e])));
    }
    double delta = dot(dout, in(eval, node, 3) + at, h->dim), lse = in(eval, node, 4)[plane * h->queries + r->i];
    for (int64_t t = 0; t < r->count; t++) {
        double slope, score = score_of(h, r, t, &slope);
        if (score == -INFINITY) continue;
        int64_t j = r->key[t], key = key_row(h, r->s, r->head, j);
        const double *k = h->k + key, *v = in(eval, node, 2) + key;
        double p = exp(score - lse), ds = p * (dot(dout, v, h->dim) - delta);
        for (int64_t e = 0; e < h->dim; e++) {
            result(eval, node, 0)[at + e] += slope * ds * k[e];
            result(eval, node, 1)[key + e] += slope * ds * q[e];
            result(eval, node, 2)[key + e] += p * dout[e];
        }
        if (dextra[0]) dextra[0][bucket_of(node->attr.attention.buckets, r->i + node->attr.attention.offset - j)] += ds;
        if (dextra[1]) dextra[1][j] += ds;
        if (dextra[2]) dextra[2][r->pair + t] += ds;
    }
}
void eval_attention_dx(hd_eval *eval, const hd_node *node)
{
    for (int i = 0; i < hd_ops[node->op].results; i++) {
        const hd_shape s = hd_result_shape(node, i);
        clear(result(eval, node, i), &s);
    }
    each_row(eval, node, attention_dx_row);
}

void eval_key_bounds(hd_eval *eval, const hd_node *node)
{
    const int64_t queries = node->attr.bounds.queries, keys = node->attr.bounds.keys;
    for (int64_t s = 0; s < node->shape.size[0]; s++) {
        double *bounds = of(eval, node) + 2 * s * queries;
        const double *x = in(eval, node, 0) + (node->attr.bounds.documents ? s * queries : s);
        for (int64_t i = 0; i < queries; i++) {
            int64_t first = 0, end = x[0] < 0 ? 0 : x[0] < (double)keys ? (int64_t)x[0] : keys;
            if (node->attr.bounds.documents) {
                for (first = i; first > 0 && x[first - 1] == x[i];) first--;
                for (end = i + 1; end < keys && x[end] == x[i];) end++;
            }
            bounds[2 * i] = (double)first;
            bounds[2 * i + 1] = (double)end;
        }
    }
}

/* sqrt(sum (gradient * scale)^2) over all gradients */
void eval_gradient_norm(hd_eval *eval, const hd_node *node)
{
    double sum = 0, scale = in(eval, node, 0)[HD_HYPER_SCALE];
    for (int i = 1; i < node->inputs; i++)
        for (int64_t e = 0; e < hd_elements(shape(node, i)); e++) sum += pow(in(eval, node, i)[e] * scale, 2);
    of(eval, node)[0] = sqrt(sum);
}

/* g = gradient * scale * min(1, clip / norm);  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
 * w -= lr * ((m / correction1) / (sqrt(v / correction2) + epsilon) + decay * w), decay only where the weight asks for it.
 * Loshchilov and Hutter 2019, arXiv 1711.05101. */
void eval_adamw(hd_eval *eval, const hd_node *node)
{
    const double *hyper = in(eval, node, 0);
    double norm = in(eval, node, 1)[0], factor = hyper[HD_HYPER_SCALE];
    of(eval, node)[0] = norm;
    if (hyper[HD_HYPER_UPDATE] == 0) return;
    if (hyper[HD_HYPER_CLIP] > 0 && norm > hyper[HD_HYPER_CLIP]) factor *= hyper[HD_HYPER_CLIP] / norm;
    for (int i = 2; i < node->inputs; i += 4) {
        double *w = in(eval, node, i), *m = in(eval, node, i + 2), *v = in(eval, node, i + 3);
        double decay = node->input[i]->attr.param.decay ? hyper[HD_HYPER_DECAY] : 0;
        for (int64_t e = 0; e < hd_elements(shape(node, i)); e++) {
            double g = in(eval, node, i + 1)[e] * factor;
            m[e] = hyper[HD_HYPER_BETA1] * m[e] + (1 - hyper[HD_HYPER_BETA1]) * g;
            v[e] = hyper[HD_HYPER_BETA2] * v[e] + (1 - hyper[HD_HYPER_BETA2]) * g * g;
            double step = m[e] / hyper[HD_HYPER_CORRECTION1] / (sqrt(v[e] / hyper[HD_HYPER_CORRECTION2]) + hyper[HD_HYPER_EPSILON]);
            w[e] -= hyper[HD_HYPER_LR] * (step + decay * w[e]);
        }
    }
}

/* ---- evaluation ---- */

static struct hd_eval *open_evals;     /* so that what is still open at exit counts as in use, not as leaked */

/* The graph may grow after hd_eval_new: so do the tables. */
static void cover_nodes(hd_eval *eval)
{
    int nodes = eval->graph->nodes;
    if (nodes <= eval->nodes) return;
    double **value = take((size_t)nodes, sizeof *value), ***results = take((size_t)nodes, sizeof *results);
    for (int i = 0; i < eval->nodes; i++) {
        value[i] = eval->value[i];
        results[i] = eval->results[i];
    }
    free(eval->value);
    free(eval->results);
    eval->value = value;
    eval->results = results;
    eval->nodes = nodes;
}

hd_eval *hd_eval_new(const hd_graph *graph)
{
    hd_eval *eval = take(1, sizeof *eval);
    eval->graph = graph;
    eval->next = open_evals;
    open_evals = eval;
    cover_nodes(eval);
    return eval;
}

/* Arrays for all results of a node. A `result` node borrows its producer's. */
static void make_room(hd_eval *eval, const hd_node *node)
{
    double ***results = &eval->results[node->id];
    int count = hd_ops[node->op].results;
    if (!*results) *results = take((size_t)count, sizeof **results);
    for (int i = 0; i < count && node->op != HD_OP_result; i++) {
        hd_shape s = hd_result_shape(node, i);
        if (!(*results)[i]) (*results)[i] = take((size_t)hd_elements(&s), sizeof(double));
    }
    eval->value[node->id] = (*results)[0];
}

static void give_back(hd_eval *eval, const hd_node *node)
{
    double **results = eval->results[node->id];
    for (int i = 0; results && i < hd_ops[node->op].results; i++) {
        if (node->op != HD_OP_result) free(results[i]);
        results[i] = NULL;
    }
    eval->value[node->id] = NULL;
}

void hd_eval_free(hd_eval *eval)
{
    for (int i = 0; i < eval->nodes; i++) {
        give_back(eval, eval->graph->node[i]);
        free(eval->results[i]);
    }
    hd_eval **link = &open_evals;
    while (*link != eval) link = &(*link)->next;
    *link = eval->next;
    free(eval->value);
    free(eval->results);
    free(eval);
}

static bool is_source(const hd_node *node) { return node->op == HD_OP_input || node->op == HD_OP_param; }

void hd_eval_set(hd_eval *eval, const hd_node *source, const double *values)
{
    cover_nodes(eval);
    make_room(eval, source);
    memcpy(of(eval, source), values, sizeof(double) * (size_t)hd_elements(&source->shape));
}

/* A source that nobody set: a weight starts as its init says (seed 0), gradients and moments from zero. */
static void start_source(hd_eval *eval, const hd_node *node)
{
    if (eval->value[node->id]) return;
    if (node->op == HD_OP_input) hd_node_fail(node, "its values were not given");
    make_room(eval, node);
    if (node->attr.param.role != HD_WEIGHT) return;
    uint64_t hash = hd_random_name(node->name ? node->name : "");
    for (int64_t e = 0; e < hd_elements(&node->shape); e++)
        of(eval, node)[e] = hd_init_value((int)node->attr.param.init.kind, node->attr.param.init.scale, 0, hash, (uint64_t)e);
}

static int owner_of(const hd_node *node) { return node->op == HD_OP_result ? node->input[0]->id : node->id; }

void hd_eval_entry(hd_eval *eval, const hd_entry *entry)
{
    const hd_graph *graph = eval->graph;
    cover_nodes(eval);
    /* last[i]: the node that reads node i's arrays last; never: nobody needs it; always: it outlives this call */
    enum { NEVER = -1, ALWAYS = INT32_MAX };
    int *last = take((size_t)graph->nodes, sizeof *last);
    bool *needed = take((size_t)graph->nodes, sizeof *needed);
    for (int i = 0; i < graph->nodes; i++) last[i] = is_source(graph->node[i]) ? ALWAYS : NEVER;
    for (int i = 0; i < entry->outputs; i++) {
        needed[entry->output[i].node->id] = true;
        last[entry->output[i].node->id] = last[owner_of(entry->output[i].node)] = ALWAYS;
    }
    for (int i = 0; i < entry->effects; i++) needed[entry->effect[i]->id] = true;
    for (int i = graph->nodes - 1; i >= 0; i--) {
        if (!needed[i]) continue;
        if (last[i] == NEVER) last[i] = i;
        int owner = owner_of(graph->node[i]);
        if (last[owner] < last[i]) last[owner] = last[i];
        for (int j = 0; j < graph->node[i]->inputs; j++) {
            int from = graph->node[i]->input[j]->id;
            needed[from] = true;
            if (last[from] < i) last[from] = i;
        }
    }
    for (int i = 0; i < graph->nodes; i++) {
        const hd_node *node = graph->node[i];
        if (!needed[i]) continue;
        if (is_source(node)) start_source(eval, node);
        else {
            make_room(eval, node);
            hd_ops[node->op].eval(eval, node);
        }
        if (last[i] == i) give_back(eval, node);
        for (int j = 0; j < node->inputs; j++) {
            const hd_node *input = node->input[j];
            if (last[input->id] == i) give_back(eval, input);
            if (last[owner_of(input)] == i) give_back(eval, graph->node[owner_of(input)]);
        }
    }
    free(needed);
    free(last);
}
