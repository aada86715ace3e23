/* Mixtures of experts: which experts a row is sent to, and products with the matrix of the expert that an id names. Their shape
 * rules and their definitions (interpret.c says how these read). */
#include "internal.h"

static const hd_shape *shape(const hd_node *node, int i) { return &node->input[i]->shape; }
static const double *in(const hd_eval *eval, const hd_node *node, int i) { return eval->value[node->input[i]->id]; }

/* A loss through an op whose gradient nobody wrote: an error, not a silent zero. */
void grad_refused(hd_graph *graph, hd_node *node, hd_node **dy, hd_node **dx)
{
    (void)graph, (void)dy, (void)dx;
    hd_node_fail(node, "it has no gradient: models with experts can be run, not trained");
}

bool hd_gradient_refused(const hd_node *node) { return hd_ops[node->op].gradient == grad_refused; }

void shape_top_k(hd_node *node)
{
    const hd_shape *x = shape(node, 0);
    const int64_t k = node->attr.top_k.k;
    if (x->rank < 1) hd_node_fail(node, "x %s has no axes", hd_shape_text(x));
    if (k < 1 || k > x->size[x->rank - 1]) hd_node_fail(node, "k is %lld; of x %s it can be 1 to %lld", (long long)k, hd_shape_text(x), (long long)x->size[x->rank - 1]);
    node->dtype = HD_I32;
    node->shape = *x;
    node->shape.size[x->rank - 1] = k;
}

/* ids of the k largest, the largest first and the smaller id of equals; their values. What is not a number comes last. */
void eval_top_k(hd_eval *eval, const hd_node *node)
{
    const hd_shape *s = shape(node, 0);
    const int64_t n = s->size[s->rank - 1], k = node->attr.top_k.k, rows = hd_elements(s) / n;
    for (int64_t r = 0; r < rows; r++) {
        const double *x = in(eval, node, 0) + r * n;
        double *ids = eval->value[node->id] + r * k, *values = eval->results[node->id][1] + r * k;
        for (int64_t c = 0; c < k; c++) {
            int64_t best = -1;
            for (int64_t j = 0; j < n; j++) {
                bool taken = false;
                for (int64_t b = 0; b < c; b++) taken = taken || (int64_t)ids[b] == j;
                if (!taken && (best < 0 || x[j] > x[best] || (x[best] != x[best] && x[j] == x[j]))) best = j;
            }
            ids[c] = (double)best;
            values[c] = x[best];
        }
    }
}

void shape_expert_matmul(hd_node *node)
{
    const hd_shape *x = shape(node, 0), *w = shape(node, 1), *ids = shape(node, 2);
    if (w->rank != 3) hd_node_fail(node, "w is %s; it must be [experts, in, out]", hd_shape_text(w));
    bool fits = x->rank >= 2 && ids->rank == x->rank - 1 && x->size[x->rank - 1] == w->size[1];
    for (int i = 0; fits && i < ids->rank - 1; i++) fits = x->size[i] == ids->size[i];
    fits = fits && (x->size[x->rank - 2] == 1 || x->size[x->rank - 2] == ids->size[ids->rank - 1]);
    if (!fits)
        hd_node_fail(node, "x %s, w %s and ids %s do not match; they must be [..., 1 or choices, in], [experts, in, out], [..., choices]", hd_shape_text(x), hd_shape_text(w),
                     hd_shape_text(ids));
    node->dtype = HD_F32;
    node->shape = *ids;
    node->shape.size[node->shape.rank++] = w->size[2];
}

/* y[..., c, :] = x[..., c or 0, :] times w[ids[..., c]] */
void eval_expert_matmul(hd_eval *eval, const hd_node *node)
{
    const hd_shape *x = shape(node, 0), *w = shape(node, 1), *ids = shape(node, 2);
    const int64_t experts = w->size[0], k = w->size[1], n = w->size[2], choices = ids->size[ids->rank - 1];
    const bool shared = x->size[x->rank - 2] == 1;
    for (int64_t r = 0; r < hd_elements(ids); r++) {
        const double id = in(eval, node, 2)[r], *row = in(eval, node, 0) + (shared ? r / choices : r) * k;
        if (!(id >= 0 && id < (double)experts)) hd_node_fail(node, "id %g is not 0 to %lld", id, (long long)experts - 1);
        const double *matrix = in(eval, node, 1) + (int64_t)id * k * n;
        double *y = eval->value[node->id] + r * n;
        for (int64_t j = 0; j < n; j++) {
            y[j] = 0;
            for (int64_t i = 0; i < k; i++) y[j] += row[i] * matrix[i * n + j];
        }
    }
}
