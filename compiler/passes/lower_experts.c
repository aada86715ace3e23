/* Steps of the ops of mixtures of experts (graph/experts.c). */
#include "lower.h"

#define LL(x) ((long long)(x))

static hd_step *step_of(const hd_node *n)
{
    return hd_step_new(hd_format("%s%s%s %s", n->name ? n->name : "", n->name ? ": " : "", hd_ops[n->op].name, hd_shape_text(&n->shape)), n->where);
}

/* All rows, those an entry leaves out too: what follows looks experts up by these ids, and they must be ids. */
void hd_lower_top_k(hd_lowering *l, hd_node *n)
{
    const hd_shape *x = &n->input[0]->shape;
    const int64_t cols = x->size[x->rank - 1], rows = hd_elements(x) / cols;
    int64_t ld;
    const hd_view from = hd_lower_matrix(l, n->input[0], rows, cols, &ld);
    hd_step *s = step_of(n);
    s->kernel = hd_kernel_get(l->kernels, "top_k", hd_format("%d_%lldx%lld%s", n->attr.top_k.k, LL(rows), LL(cols), ld == cols ? "" : hd_format("_ld%lld", LL(ld))),
                              "const hd_run *run, const float *x, int32_t *ids, float *values", hd_format("rows = %lld, cols = %lld, ld = %lld, k = %d", LL(rows), LL(cols), LL(ld), n->attr.top_k.k), 0, s->where);
    hd_step_view(s, "const float *", from, false);
    hd_step_view(s, "int32_t *", hd_lower_output(l, n), true);
    hd_step_view(s, "float *", hd_lower_result(l, n, 1), true);
    s->flops = (double)n->attr.top_k.k * (double)hd_elements(x);
    s->bytes = 4.0 * (double)(hd_elements(x) + 2 * hd_elements(&n->shape));
    hd_lower_push(l, s);
}

void hd_lower_expert_matmul(hd_lowering *l, hd_node *n)
{
    const hd_shape *x = &n->input[0]->shape, *w = &n->input[1]->shape, *ids = &n->input[2]->shape;
    const int64_t choices = ids->size[ids->rank - 1], rows = hd_elements(ids) / choices;
    const bool shared = choices > 1 && x->size[x->rank - 2] == 1, crowded = rows * choices > 8 * w->size[0];
    const int64_t local = crowded ? 512 * 4 * 4 * 16 : 0;         /* the widest target's panel */
    hd_step *s = step_of(n);
    s->kernel = hd_kernel_get(l->kernels, "experts", hd_format("%lldx%lld%s_%lldx%lldx%lld", LL(rows), LL(choices), shared ? "shared" : "", LL(w->size[0]), LL(w->size[1]), LL(w->size[2])),
                              "const hd_run *run, int rows, const float *x, const float *w, const int32_t *ids, float *out",
                              hd_format("rows = %lld, choices = %lld, shared = %s, experts = %lld, k = %lld, n = %lld, crowded = %s", LL(rows), LL(choices), shared ? "true" : "false", LL(w->size[0]), LL(w->size[1]), LL(w->size[2]),
                                        crowded ? "true" : "false"), local, s->where);
    hd_step_text(s, hd_rows_text(l, rows));
    hd_step_view(s, "const float *", hd_lower_dense(l, n->input[0]), false);
    hd_step_view(s, "const float *", hd_lower_dense(l, n->input[1]), false);
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[2]), false);
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    const int64_t busy = rows * choices < w->size[0] ? rows * choices : w->size[0];      /* matrices read at most */
    s->flops = hd_node_flops(n);
    s->cycles = s->flops / ((crowded ? 2.4 : 2.0) * l->target->vl);      /* of 4 vl a cycle */
    s->slots = w->size[0] * ((w->size[2] + 511) / 512);
    s->bytes = 4.0 * (double)(hd_elements(x) + hd_elements(&n->shape) + busy * w->size[1] * w->size[2]);
    hd_lower_push(l, s);
}
