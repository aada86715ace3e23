/* Lowering of what is bound by memory: kernels over the rows of a matrix, reductions, and the optimiser. */
#include "lower.h"
#include <string.h>

#define LL(x) ((long long)(x))

/* ---- rows ---- */

/* A kernel over the rows of a matrix, ended by the fused lines: fixed operands in order, then those of the epilogue. */
typedef struct row_kernel {
    const char *template_name, *kind;
    int64_t rows, cols;
    hd_text parameters, signature;     /* beyond kind, rows, cols; ", const float *x" */
    hd_step *step;
    hd_epilogue epilogue;              /* what it is asked for besides */
    int squares;                       /* so many sums of squares */
} row_kernel;

static row_kernel row_begin(hd_lowering *l, const hd_node *n, const char *template_name, const char *kind, int64_t rows, int64_t cols)
{
    row_kernel k = { .template_name = template_name, .kind = kind, .rows = rows, .cols = cols, .step = hd_step_new("", n->where) };
    hd_step_text(k.step, hd_rows_text(l, rows));
    return k;
}

static void row_operand(row_kernel *k, const char *type, const char *name, hd_view view, bool writes)
{
    hd_text_add(&k->signature, ", %s%s", type, name);
    hd_step_view(k->step, type, view, writes);
}

/* A matrix operand whose rows are `ld` apart; the template's parameter of that name says so. */
static void row_matrix(hd_lowering *l, row_kernel *k, const char *name, const char *ld_name, hd_node *n)
{
    int64_t ld;
    const hd_view v = hd_lower_matrix(l, n, k->rows, k->cols, &ld);
    row_operand(k, "const float *", name, v, false);
    hd_text_add(&k->parameters, ", %s = %lld", ld_name, LL(ld));
}

static void row_end(hd_lowering *l, row_kernel *k, const hd_fused *fused)
{
    hd_epilogue e = k->epilogue;
    hd_map_text(l, fused, false, &e);
    if (k->squares) hd_text_add(&k->parameters, ", squares = \"%s\"", hd_lower_squares(l, &e, e.squares_of, k->squares));
    const hd_node *n = fused->root;
    hd_step *s = k->step;
    s->label = hd_lower_label(n, &e);
    hd_step_operands(s, &e);
    s->flops += hd_node_flops(n);
    s->kind = k->kind, s->rows = k->rows, s->cols = k->cols;
    const size_t same = strlen(k->template_name);
    const char *kind = strncmp(k->kind, k->template_name, same) ? hd_format("%s_", k->kind) : k->kind[same] ? hd_format("%s_", k->kind + same + 1) : "";
    s->kernel = hd_kernel_get(l->kernels, k->template_name, hd_format("%s%lldx%lld%s%s", kind, LL(k->rows), LL(k->cols), strcmp(e.coordinates.data, "plain") ? "_" : "", strcmp(e.coordinates.data, "plain") ? e.coordinates.data : ""),
                              hd_format("const hd_run *run, int rows%s%s", k->signature.data ? k->signature.data : "", hd_epilogue_signature(&e)),
                              hd_format("kind = \"%s\", rows = %lld, cols = %lld%s, arguments = \"%s\", epilogue = %s", k->kind, LL(k->rows), LL(k->cols), k->parameters.data ? k->parameters.data : "", hd_epilogue_arguments(&e), e.lines.data),
                              0, s->where);
    hd_lower_push(l, s);
}

/* A sum over rows alone: of an [..., cols] tensor to [cols]. */
static bool sums_rows(const hd_node *n)
{
    const hd_node *x = n->input[0];
    return n->op == HD_OP_sum && hd_reduce_inner(n) == hd_columns(x) && hd_elements(&n->shape) == hd_columns(x);
}

/* layer_norm_dx reads dy and x: the gradients of gain and bias, sums of its operands, are made on the way, and sums of values that its
 * epilogue makes (the gradient of the residual stream, which is that of a bias). They wait as a row for each slot in l->column_sums. */
static void sums_on_the_way(hd_lowering *l, row_kernel *k, const hd_fused *fused)
{
    enum { MOST = 4, LONGEST_ROW = 2048, MOST_ROWS = 128 };       /* rows added one after the other in float, by slot */
    const hd_node *dx = fused->root;
    const hd_fusion *f = l->fusion;
    const int last = dx->inputs - 1, group = f->group[dx->id];
    int64_t block = (k->rows + 63) / 64;
    const int64_t least = 4096 / k->cols;
    block = block < least ? least : block > MOST_ROWS ? MOST_ROWS : block < 1 ? 1 : block;
    const int64_t slots = (k->rows + block - 1) / block;
    hd_node *asks[MOST];
    int count = 0;
    if (k->cols > LONGEST_ROW || k->cols < 16) return;
    for (int i = 0; i < l->graph->nodes && count < MOST; i++) {
        hd_node *n = l->graph->node[i];
        if (!f->needed[i] || f->group[i] <= group) continue;
        const char *which = NULL;
        if (n->op == HD_OP_layer_norm_dgain || n->op == HD_OP_rms_norm_dgain) {
            if (n->input[0] == dx->input[0] && n->input[1] == dx->input[1] && n->input[n->inputs - 1] == dx->input[last]) which = "gain";
        } else if (sums_rows(n)) {
            const hd_node *of = hd_identity_base(n->input[0]);
            if (n->input[0] == dx->input[0]) which = "bias";
            else if (k->epilogue.sums < 2 && (of == dx || (hd_is_map(of) && f->group[of->id] == group))) {
                k->epilogue.sum[k->epilogue.sums].of = of, k->epilogue.sum[k->epilogue.sums++].index = count;
                asks[count++] = n;
            }
        }
        if (!which) continue;
        hd_text_add(&k->parameters, ", %s_sum = %d", which, count);
        asks[count++] = n;
    }
    if (!count) return;
    hd_text_add(&k->parameters, ", sums = %d, block = %lld", count, LL(block));
    const hd_view all = hd_view_dense(hd_lower_buffer(l, 4 * count * slots * k->cols, "column sums"), &(hd_shape){ 3, { count, slots, k->cols } });
    row_operand(k, "float *", "sums", all, true);
    for (int i = 0; i < count; i++) {
        hd_view one = all;
        one.offset = i * slots * k->cols, one.shape = (hd_shape){ 2, { slots, k->cols } };
        one.stride[0] = k->cols, one.stride[1] = 1;
        l->column_sums[asks[i]->id] = one;
    }
}

static bool joins_column_sums(hd_lowering *l, const hd_fused *fused);

void hd_lower_norm(hd_lowering *l, const hd_fused *fused)
{
    hd_node *n = fused->root;
    const bool layer = n->op == HD_OP_layer_norm || n->op == HD_OP_layer_norm_dx || n->op == HD_OP_layer_norm_dgain;
    const bool forward = n->op == HD_OP_layer_norm || n->op == HD_OP_rms_norm, dgain = n->op == HD_OP_layer_norm_dgain || n->op == HD_OP_rms_norm_dgain;
    if (joins_column_sums(l, fused)) return;
    hd_node *x = forward ? n->input[0] : n->input[1];
    const int64_t cols = hd_columns(x), rows = hd_elements(&x->shape) / cols;
    row_kernel k = row_begin(l, n, "norm", hd_ops[n->op].name, rows, cols);
    int at = 0;
    if (!forward) row_matrix(l, &k, "dy", "ld_dy", n->input[at++]);
    row_matrix(l, &k, "x", "ld_x", n->input[at++]);
    if (!dgain) row_operand(&k, "const float *", "gain", hd_lower_dense(l, n->input[at++]), false);
    if (forward && layer) row_operand(&k, "const float *", "bias", hd_lower_dense(l, n->input[at++]), false);
    if (forward) {
        hd_text_add(&k.parameters, ", epsilon = %.17g", n->attr.norm.epsilon);
        if (layer) row_operand(&k, "float *", "mean", hd_lower_result(l, n, 1), true);
        row_operand(&k, "float *", "rstd", hd_lower_result(l, n, layer ? 2 : 1), true);
    } else {
        if (layer) row_operand(&k, "const float *", "mean", hd_lower_dense(l, n->input[at++]), false);
        row_operand(&k, "const float *", "rstd", hd_lower_dense(l, n->input[at++]), false);
        if (!dgain) sums_on_the_way(l, &k, fused);
    }
    row_end(l, &k, fused);
}

void hd_lower_softmax(hd_lowering *l, const hd_fused *fused)
{
    hd_node *n = fused->root;
    const int64_t cols = hd_columns(n), rows = hd_elements(&n->shape) / cols;
    const bool forward = n->op == HD_OP_softmax;
    row_kernel k = row_begin(l, n, "softmax", hd_ops[n->op].name, rows, cols);
    row_matrix(l, &k, forward ? "x" : "y", "ld_x", n->input[forward ? 0 : 1]);      /* softmax_dx: dy, y */
    if (!forward) row_matrix(l, &k, "dy", "ld_dy", n->input[0]);
    row_end(l, &k, fused);
}

void hd_lower_cross_entropy(hd_lowering *l, hd_node *n)
{
    const int64_t cols = hd_columns(n->input[0]), rows = hd_elements(&n->input[0]->shape) / cols;
    int64_t ld;
    const hd_view logits = hd_lower_matrix(l, n->input[0], rows, cols, &ld);
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "cross_entropy", hd_format("%lldx%lld", LL(rows), LL(cols)), "const hd_run *run, int rows, const float *logits, const int32_t *targets, float *nll, float *lse",
                              hd_format("kind = \"cross_entropy\", rows = %lld, cols = %lld, ld = %lld", LL(rows), LL(cols), LL(ld)), 0, s->where);
    hd_step_text(s, hd_rows_text(l, rows));
    hd_step_view(s, "const float *", logits, false);
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[1]), false);
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    hd_step_view(s, "float *", hd_lower_result(l, n, 1), true);
    s->flops = hd_node_flops(n);
    s->kind = "cross_entropy", s->rows = rows, s->cols = cols;
    hd_lower_push(l, s);
}

void hd_lower_cross_entropy_dx(hd_lowering *l, const hd_fused *fused)
{
    hd_node *n = fused->root;
    const int64_t cols = hd_columns(n), rows = hd_elements(&n->shape) / cols;
    row_kernel k = row_begin(l, n, "cross_entropy", "cross_entropy_dx", rows, cols);
    row_matrix(l, &k, "logits", "ld", n->input[0]);
    hd_argument *logits = hd_step_last(k.step);      /* each is read before the same element is written */
    logits->elementwise = true, logits->full = hd_view_is_dense(&logits->view);
    row_operand(&k, "const int32_t *", "targets", hd_lower_dense(l, n->input[1]), false);
    row_operand(&k, "const float *", "lse", hd_lower_dense(l, n->input[2]), false);
    hd_view dnll = hd_lower_view(l, n->input[3]);
    bool one = true;
    for (int i = 0; i < dnll.shape.rank; i++) one = one && (dnll.shape.size[i] == 1 || dnll.stride[i] == 0);
    if (!one) dnll = hd_lower_dense(l, n->input[3]);
    row_operand(&k, "const float *", "dnll", dnll, false);
    hd_text_add(&k.parameters, ", dnll_stride = %d", one ? 0 : 1);
    row_end(l, &k, fused);
}

void hd_lower_embedding(hd_lowering *l, const hd_fused *fused)
{
    hd_node *n = fused->root;
    const bool forward = n->op == HD_OP_embedding;
    hd_node *ids = n->input[forward ? 1 : 0];
    const int64_t cols = hd_columns(n), rows = hd_elements(&ids->shape);
    row_kernel k = row_begin(l, n, "embedding", hd_ops[n->op].name, rows, cols);
    hd_text_add(&k.parameters, ", vocab = %lld", LL(forward ? n->input[0]->shape.size[0] : n->shape.size[0]));
    if (forward) {
        row_operand(&k, "const float *", "table", hd_lower_dense(l, n->input[0]), false);
        hd_argument *table = hd_step_last(k.step);
        if (table->elements > rows * cols) table->elements = rows * cols;      /* each id's row at most */
    }
    row_operand(&k, "const int32_t *", "ids", hd_lower_dense(l, ids), false);
    if (!forward) row_matrix(l, &k, "dy", "ld_dy", n->input[1]);
    /* added to what is there: rows without ids stay as they are */
    if (!forward && fused->maps == 1 && fused->map[0]->op == HD_OP_accumulate && fused->map[0]->input[0]->op == HD_OP_accumulate) {
        hd_text_add(&k.parameters, ", sparse = true");
        if (l->has_squares[fused->map[0]->input[0]->id]) k.squares = HD_SQUARES_OF_TABLE, k.epilogue.squares_of = fused->map[0];
    }
    row_end(l, &k, fused);
}

void hd_lower_rope(hd_lowering *l, hd_node *n, const hd_fused *fused)
{
    hd_node *x = n->input[0];
    const int axis = n->attr.rope.axis, rank = n->shape.rank;
    const int64_t cols = hd_columns(n), rows = hd_elements(&n->shape) / cols;
    int64_t inner = 1;
    for (int i = axis + 1; i < rank - 1; i++) inner *= n->shape.size[i];
    const bool at = n->op == HD_OP_rope_at;
    row_kernel k = row_begin(l, n, "rope", at ? "at" : n->attr.rope.inverse ? "inverse" : "turn", rows, cols);
    row_matrix(l, &k, "x", "ld_x", x);
    if (at) {
        row_operand(&k, "const int32_t *", "positions", hd_lower_dense(l, n->input[1]), false);
        hd_text_add(&k.parameters, ", streams = %lld", LL(n->input[1]->shape.size[0]));
    }
    hd_text_add(&k.parameters, ", length = %lld, inner = %lld, heads = %lld, head_dim = %d, dims = %d, base = %.17g, adjacent = %s, inverse = %s", LL(n->shape.size[axis]), LL(inner), LL(cols / n->attr.rope.head_dim),
                n->attr.rope.head_dim, n->attr.rope.dims, n->attr.rope.base, n->attr.rope.pairs ? "true" : "false", n->attr.rope.inverse ? "true" : "false");
    if (n->attr.rope.scale != 1) hd_text_add(&k.parameters, ", scale = %.17g", n->attr.rope.scale);
    for (int t = 0; n->attr.rope.frequency && t < n->attr.rope.dims / 2; t++)
        hd_text_add(&k.parameters, "%s%.17g%s", t ? ", " : ", frequencies = { ", n->attr.rope.frequency[t], 2 * t + 2 < n->attr.rope.dims ? "" : " }");
    row_end(l, &k, fused);
}

/* ---- reductions ---- */

static void reduce_step(hd_lowering *l, const hd_node *n, hd_view x, int64_t outer, int64_t reduced, int64_t last, int64_t inner, const hd_epilogue *e)
{
    const bool sum = n->op != HD_OP_reduce_max;
    hd_step *s = hd_step_new(hd_lower_label(n, e), n->where);
    s->kernel = hd_kernel_get(l->kernels, "reduce", hd_format("%s_%lldx%lldx%lld%s%s", sum ? "sum" : "max", LL(outer), LL(reduced), LL(inner), strcmp(e->coordinates.data, "plain") ? "_" : "", strcmp(e->coordinates.data, "plain") ? e->coordinates.data : ""),
                              hd_format("const hd_run *run, int rows, const float *x%s", hd_epilogue_signature(e)),
                              hd_format("op = \"%s\", outer = %lld, reduced = %lld, last = %lld, inner = %lld, arguments = \"%s\", epilogue = %s", sum ? "sum" : "max", LL(outer), LL(reduced), LL(last), LL(inner), hd_epilogue_arguments(e), e->lines.data), 0, s->where);
    hd_step_text(s, hd_format("%lld", LL(outer)));
    hd_step_view(s, "const float *", x, false);
    hd_step_operands(s, e);
    s->flops += (double)(((outer - 1) * reduced + last) * inner);
    s->kind = "reduce", s->rows = outer * reduced, s->cols = inner;
    hd_lower_push(l, s);
}

/* A node whose sums an earlier kernel has made, slot by slot: they are added, in the order of slots. */
static bool joins_column_sums(hd_lowering *l, const hd_fused *fused)
{
    const hd_view sums = l->column_sums[fused->root->id];
    if (!sums.buffer) return false;
    hd_epilogue e = { 0 };
    hd_map_text(l, fused, false, &e);
    reduce_step(l, fused->root, sums, 1, sums.shape.size[0], sums.shape.size[0], sums.shape.size[1], &e);
    return true;
}

/* The first `parts` sums of a long one, each over `share` rows of [outer][reduced][inner] (the last may have fewer). */
static hd_view partial_sums(hd_lowering *l, const hd_node *n, hd_view x, int64_t outer, int64_t parts, int64_t share, int64_t last, int64_t inner)
{
    const hd_view to = hd_view_dense(hd_lower_buffer(l, 4 * outer * parts * inner, "partial sums"), &(hd_shape){ 3, { outer, parts, inner } });
    hd_epilogue e = { 0 };
    hd_text_add(&e.lines, "{ [==[HD_PUT(arg0 + row * %lld + col, acc);]==] }", LL(inner));
    hd_text_add(&e.signature, ", float *arg0");
    hd_text_add(&e.coordinates, "plain");
    HD_PUSH(e.operand, e.operands, e.operand_capacity, ((hd_argument){ .type = "float *", .view = to, .writes = true }));
    reduce_step(l, n, x, outer * parts, share, last, inner, &e);
    return to;
}

/* A long sum is cut in two, so that more than one thread can work; the cut depends on the sizes alone. */
static hd_view cut_sum(hd_lowering *l, const hd_node *n, hd_view x, int64_t outer, int64_t *reduced, int64_t inner)
{
    enum { ROWS = 64, SLOTS = 64 };
    int64_t parts = 0, share = 0;
    if (inner >= l->target->vl) {              /* sums of columns, a part of the rows each */
        parts = *reduced / ROWS < SLOTS / outer ? *reduced / ROWS : SLOTS / outer;
        share = parts > 1 ? (*reduced + parts - 1) / parts : 0;
        if (parts > 1) parts = (*reduced + share - 1) / share;
        if (outer > 1 && parts > 1 && *reduced % parts) parts = 0;
    } else if (outer * inner < 64 && *reduced * inner >= 1 << 17) {
        for (int64_t p = 32; p <= 128 && !parts; p++) if (*reduced % p == 0) parts = p, share = *reduced / p;
    }
    if (parts < 2) return x;
    const hd_view to = partial_sums(l, n, x, outer, parts, share, *reduced - (parts - 1) * share, inner);
    *reduced = parts;
    return to;
}

void hd_lower_reduce(hd_lowering *l, const hd_fused *fused)
{
    if (joins_column_sums(l, fused)) return;
    hd_node *n = fused->root;
    hd_view x = hd_lower_dense(l, n->input[0]);
    hd_shape shape = n->input[0]->shape;
    unsigned axes = n->attr.reduce.axes;
    for (;;) {
        int first = 0;
        while (first < shape.rank - 1 && !(axes >> first & 1)) first++;
        int end = first;
        int64_t outer = 1, reduced = 1, inner = 1;
        for (int i = 0; i < first; i++) outer *= shape.size[i];
        while (end < shape.rank && ((axes >> end & 1) || shape.size[end] == 1)) reduced *= shape.size[end], axes &= ~(1u << end), shape.size[end] = 1, end++;
        for (int i = end; i < shape.rank; i++) inner *= shape.size[i];
        if (n->op == HD_OP_sum) x = cut_sum(l, n, x, outer, &reduced, inner);
        bool more = false;
        for (int i = 0; i < shape.rank; i++) more = more || ((axes >> i & 1) && shape.size[i] > 1);
        hd_epilogue e = { 0 };
        if (!more && inner == hd_columns(n)) {
            hd_map_text(l, fused, false, &e);
            reduce_step(l, n, x, outer, reduced, reduced, inner, &e);
            return;
        }
        const hd_view to = more ? hd_view_dense(hd_lower_buffer(l, 4 * outer * inner, "partial sums"), &(hd_shape){ 2, { outer, inner } }) : hd_lower_output(l, n);
        hd_text_add(&e.lines, "{ [==[HD_PUT(arg0 + row * %lld + col, acc);]==] }", LL(inner));
        hd_text_add(&e.signature, ", float *arg0");
        hd_text_add(&e.coordinates, "plain");
        HD_PUSH(e.operand, e.operands, e.operand_capacity, ((hd_argument){ .type = "float *", .view = to, .writes = true }));
        reduce_step(l, n, x, outer, reduced, reduced, inner, &e);
        if (!more) return;
        x = to;
    }
}

/* ---- the optimiser: the whole weight area at once ---- */

static hd_view whole_area(hd_lowering *l, hd_area area)
{
    hd_buffer *b = HD_NEW(hd_buffer);
    b->area = area, b->bytes = l->weights_bytes;
    return hd_view_dense(b, &(hd_shape){ 1, { l->weights_bytes / 4 } });
}

const char *hd_lower_squares(hd_lowering *l, hd_epilogue *e, const hd_node *of, int64_t count)
{
    if (!l->squares) l->squares = hd_lower_buffer(l, 0, "sums of squares of tiles");
    hd_view room = hd_view_dense(l->squares, &(hd_shape){ 1, { count } });
    room.offset = l->squares->bytes / 4;
    l->squares->bytes += 4 * count;
    l->has_squares[of->id] = true;
    HD_PUSH(e->operand, e->operands, e->operand_capacity, ((hd_argument){ .type = "float *", .view = room, .writes = true }));
    hd_text_add(&e->signature, ", float *arg%d", e->operands - 1);
    return hd_format("arg%d", e->operands - 1);
}

typedef struct pieces { hd_text text; int count; int64_t size, end, floats; } pieces;     /* end: of the last piece, which what follows it may join */

static void add_pieces(pieces *p, int64_t start, int64_t count)
{
    for (int64_t at = start; at < start + count; at += p->size, p->count++)
        hd_text_add(&p->text, "{ start = %lld, count = %lld }, ", LL(at), LL(start + count - at < p->size ? start + count - at : p->size));
    p->floats += count;
}

/* Gradients stored by kernels that added up their squares are not read again; the others are. */
void hd_lower_gradient_norm(hd_lowering *l, hd_node *n)
{
    const int64_t all = l->weights_bytes / 4;
    pieces p = { .size = all / 64 > 16384 ? (all / 64 + 15) / 16 * 16 : 16384 };
    int64_t start = 0, end = 0;
    for (int k = 1; k < n->inputs; k++) {              /* neighbours together, with the padding between them */
        bool has = false;
        for (int i = 0; i < l->graph->nodes; i++) {
            const hd_node *store = l->graph->node[i];
            if (l->fusion->needed[i] && store->op == HD_OP_accumulate && hd_state_of(store) == n->input[k]) has = l->has_squares[i];
        }
        if (has) continue;
        const int64_t first = l->weight_offset[n->input[k]->attr.param.weight->id] / 4, count = hd_elements(&n->input[k]->shape);
        if (first >= end && first - end < 16) { end = first + count; continue; }
        add_pieces(&p, start, end - start);
        start = first, end = first + count;
    }
    add_pieces(&p, start, end - start);
    const int squared = p.count;
    const int64_t sums = l->squares ? l->squares->bytes / 4 : 0;
    add_pieces(&p, 0, sums);
    if (l->squares) l->squares->bytes = (l->squares->bytes + 63) / 64 * 64;
    const hd_view partials = hd_view_dense(hd_lower_buffer(l, 8 * p.count, "sums of squares"), &(hd_shape){ 1, { 2 * p.count } });
    hd_step *s = hd_step_new("norm of all gradients, sums of squares", n->where);
    s->kernel = hd_kernel_get(l->kernels, "optimiser", "norm_partials", "const hd_run *run, const float *gradient, const float *sums, double *partials",
                              hd_format("kind = \"gradient_norm_partials\", squared = %d, pieces = { %s}", squared, p.text.data), 0, s->where);
    hd_step_view(s, "const float *", whole_area(l, HD_AREA_GRADIENTS), false), hd_step_last(s)->elements = p.floats - sums;
    if (l->squares) hd_step_view(s, "const float *", hd_view_dense(l->squares, &(hd_shape){ 1, { sums } }), false);
    else hd_step_text(s, "NULL");
    hd_step_view(s, "double *", partials, true);
    s->flops = 2.0 * (double)p.floats;
    s->kind = "gradient_norm", s->rows = 1, s->cols = p.floats;
    hd_lower_push(l, s);
    s = hd_step_new("norm of all gradients", n->where);
    s->kernel = hd_kernel_get(l->kernels, "optimiser", "norm_join", "const hd_run *run, const double *partials, const float *hyper, float *norm", hd_format("kind = \"gradient_norm_join\", partials = %d", p.count), 0, s->where);
    hd_step_view(s, "const double *", partials, false);
    hd_step_view(s, "const float *", hd_lower_dense(l, n->input[0]), false);
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    hd_lower_push(l, s);
}

void hd_lower_adamw(hd_lowering *l, hd_node *n)
{
    hd_text segments = { 0 };
    hd_text_add(&segments, "{ ");
    for (int i = 0; i < l->graph->nodes; i++) {
        const hd_node *w = l->graph->node[i];
        if (w->op != HD_OP_param || w->attr.param.role != HD_WEIGHT) continue;
        bool trained = false;
        for (int k = 2; k < n->inputs; k++) trained = trained || n->input[k] == w;
        hd_text_add(&segments, "{ start = %lld, count = %lld, decay = %s }, ", LL(l->weight_offset[i] / 4), LL(hd_elements(&w->shape)), trained && w->attr.param.decay ? "true" : "false");
    }
    hd_text_add(&segments, "}");
    const hd_view norm = hd_lower_dense(l, n->input[1]);
    hd_step *s = hd_step_new("AdamW on all weights", n->where);
    s->kernel = hd_kernel_get(l->kernels, "optimiser", "adamw", "const hd_run *run, const float *hyper, const float *norm, float *weight, const float *gradient, float *m, float *v",
                              hd_format("kind = \"adamw\", count = %lld, segments = %s", LL(l->weights_bytes / 4), segments.data), 0, s->where);
    hd_step_view(s, "const float *", hd_lower_dense(l, n->input[0]), false);
    hd_step_view(s, "const float *", norm, false);
    hd_step_view(s, "float *", whole_area(l, HD_AREA_WEIGHTS), true), hd_step_last(s)->updates = true;
    hd_step_view(s, "const float *", whole_area(l, HD_AREA_GRADIENTS), false);
    hd_step_view(s, "float *", whole_area(l, HD_AREA_MOMENT_1), true), hd_step_last(s)->updates = true;
    hd_step_view(s, "float *", whole_area(l, HD_AREA_MOMENT_2), true), hd_step_last(s)->updates = true;
    s->flops = 5.0 * (double)l->weights_bytes;
    s->kind = "adamw", s->rows = 1, s->cols = l->weights_bytes / 4;
    hd_lower_push(l, s);
    l->view[n->id] = norm;
}
