/* Lowering of what decoding entries need around attention: where their rows stand, and single rows of them. */
#include "lower.h"

#define LL(x) ((long long)(x))

static int64_t product_of(const hd_shape *s, int from, int to)
{
    int64_t p = 1;
    for (int i = from; i < to; i++) p *= s->size[i];
    return p;
}

void hd_lower_position_ids(hd_lowering *l, hd_node *n)
{
    const int64_t streams = n->shape.size[0], rows = n->shape.size[1];
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "position_ids", hd_format("%lldx%lld", LL(streams), LL(rows)), "const hd_run *run, const int32_t *first, int32_t *ids",
                              hd_format("streams = %lld, rows = %lld, offset = %lld, divide = %lld, modulo = %lld", LL(streams), LL(rows), LL(n->attr.position_ids.offset), LL(n->attr.position_ids.divide), LL(n->attr.position_ids.modulo)), 0, s->where);
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[0]), false);
    hd_step_view(s, "int32_t *", hd_lower_output(l, n), true);
    s->rows = streams, s->cols = rows;
    hd_lower_push(l, s);
}

void hd_lower_last_row(hd_lowering *l, hd_node *n)
{
    hd_node *x = n->input[0];
    const int axis = n->attr.row.axis;
    const int64_t outer = product_of(&x->shape, 0, axis), rows = x->shape.size[axis], inner = product_of(&x->shape, axis + 1, x->shape.rank);
    int64_t ld;
    const hd_view from = hd_lower_matrix(l, x, outer, rows * inner, &ld);
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "last_row", hd_format("%lldx%lldx%lld", LL(outer), LL(rows), LL(inner)), "const hd_run *run, int used, const float *x, float *out",
                              hd_format("outer = %lld, rows = %lld, inner = %lld, ld_x = %lld", LL(outer), LL(rows), LL(inner), LL(ld)), 0, s->where);
    hd_step_text(s, rows > 1 ? "used" : "1");
    hd_step_view(s, "const float *", from, false);
    hd_argument *all = hd_step_last(s);
    all->elements = outer * inner;
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    s->rows = outer, s->cols = inner;
    hd_lower_push(l, s);
}

void hd_lower_first_row(hd_lowering *l, hd_node *n)
{
    hd_node *x = n->input[0];
    const int axis = n->attr.row.axis;
    const int64_t all = product_of(&x->shape, 0, axis), streams = n->input[2]->shape.size[0], rows = x->shape.size[axis], inner = product_of(&x->shape, axis + 1, x->shape.rank);
    int64_t ld;
    const hd_view from = hd_lower_matrix(l, x, all, rows * inner, &ld);
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "first_row", hd_format("%lldx%lldx%lld", LL(all), LL(rows), LL(inner)), "const hd_run *run, const float *x, const float *start, const int32_t *first, float *out",
                              hd_format("streams = %lld, outer = %lld, rows = %lld, inner = %lld, ld_x = %lld", LL(streams), LL(all / streams), LL(rows), LL(inner), LL(ld)), 0, s->where);
    hd_step_view(s, "const float *", from, false);
    hd_step_view(s, "const float *", hd_lower_dense(l, n->input[1]), false);
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[2]), false);
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    s->rows = all * rows, s->cols = inner;
    hd_lower_push(l, s);
}

void hd_lower_shift_cached(hd_lowering *l, hd_node *n)
{
    hd_node *x = n->input[0];
    const hd_kept_rows *kept = n->attr.row.kept;
    const int axis = n->attr.row.axis;
    const int64_t all = product_of(&x->shape, 0, axis), streams = n->input[2]->shape.size[0], rows = x->shape.size[axis], inner = product_of(&x->shape, axis + 1, x->shape.rank);
    int64_t ld;
    const hd_view from = hd_lower_matrix(l, x, all, rows * inner, &ld);
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "shift_cached", hd_format("%lldx%lldx%lld", LL(all), LL(rows), LL(inner)), "const hd_run *run, int stream, int used, const float *x, const float *start, const int32_t *first, float *cache, float *out",
                              hd_format("streams = %lld, outer = %lld, rows = %lld, inner = %lld, ld_x = %lld, stream_floats = %lld", LL(streams), LL(all / streams), LL(rows), LL(inner), LL(ld), LL(kept->stream_bytes / 4)), 0, s->where);
    hd_step_text(s, rows > 1 ? "stream" : "0");
    hd_step_text(s, rows > 1 ? "used" : "1");
    hd_step_view(s, "const float *", from, false);
    hd_step_view(s, "const float *", hd_lower_dense(l, n->input[1]), false);
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[2]), false);
    hd_buffer *b = HD_NEW(hd_buffer);
    b->area = HD_AREA_CACHE, b->offset = kept->offset, b->bytes = kept->bytes, b->what = "rows before";
    hd_step_view(s, "float *", hd_view_dense(b, &(hd_shape){ 1, { b->bytes / 4 } }), true);
    hd_step_last(s)->elements = streams * inner, hd_step_last(s)->updates = true;
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    s->rows = all * rows, s->cols = inner;
    hd_lower_push(l, s);
}
