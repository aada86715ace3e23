/* From an entry's nodes to steps: memory and views. Views never move data: a slice, a reshape or a transpose is an offset
 * and strides until a kernel that cannot read it so asks for a copy. */
#include "lower.h"
#include <string.h>

hd_buffer *hd_lower_buffer(hd_lowering *l, int64_t bytes, const char *what)
{
    hd_buffer *b = HD_NEW(hd_buffer);
    b->area = HD_AREA_SCRATCH;
    b->bytes = (bytes + 63) / 64 * 64;
    b->first = INT32_MAX, b->last = -1;
    b->what = what;
    hd_program *p = l->program;
    HD_PUSH(p->buffer, p->buffers, p->buffer_capacity, b);
    return b;
}

hd_view hd_view_dense(hd_buffer *buffer, const hd_shape *shape)
{
    hd_view v = { .buffer = buffer, .shape = *shape };
    int64_t stride = 1;
    for (int i = shape->rank - 1; i >= 0; i--) v.stride[i] = stride, stride *= shape->size[i];
    return v;
}

bool hd_view_is_dense(const hd_view *v)
{
    int64_t stride = 1;
    for (int i = v->shape.rank - 1; i >= 0; i--) {
        if (v->shape.size[i] != 1 && v->stride[i] != stride) return false;
        stride *= v->shape.size[i];
    }
    return true;
}

bool hd_view_reshape(const hd_view *v, const hd_shape *shape, hd_view *out)
{
    *out = (hd_view){ .buffer = v->buffer, .offset = v->offset, .shape = *shape };
    int64_t old_size[HD_MAX_RANK], old_stride[HD_MAX_RANK];
    int olds = 0;
    for (int i = 0; i < v->shape.rank; i++)
        if (v->shape.size[i] != 1) old_size[olds] = v->shape.size[i], old_stride[olds++] = v->stride[i];
    int oi = 0, ni = 0;
    while (oi < olds && ni < shape->rank) {
        int64_t np = shape->size[ni], op = old_size[oi];
        int oj = oi + 1, nj = ni + 1;
        while (np != op)
            if (np < op) np *= shape->size[nj++];
            else op *= old_size[oj++];
        for (int k = oi; k + 1 < oj; k++)
            if (old_stride[k] != old_size[k + 1] * old_stride[k + 1]) return false;
        out->stride[nj - 1] = old_stride[oj - 1];
        for (int k = nj - 1; k > ni; k--) out->stride[k - 1] = out->stride[k] * shape->size[k];
        oi = oj, ni = nj;
    }
    for (int i = shape->rank - 1; i >= ni; i--) out->stride[i] = 1;
    return true;
}

bool hd_view_matrix(const hd_view *v, int64_t rows, int64_t cols, int64_t *ld)
{
    hd_view m;
    if (!hd_view_reshape(v, &(hd_shape){ 2, { rows, cols } }, &m)) return false;
    if (cols > 1 && m.stride[1] != 1) return false;
    *ld = rows > 1 ? m.stride[0] : cols;
    return true;
}

hd_step *hd_step_new(const char *label, hd_where where)
{
    hd_step *s = HD_NEW(hd_step);
    s->label = label, s->where = where, s->share = 1;
    return s;
}

/* Elements at places of their own: broadcast axes do not count. */
static int64_t distinct_elements(const hd_view *v)
{
    int64_t elements = 1;
    for (int i = 0; i < v->shape.rank; i++) if (v->stride[i]) elements *= v->shape.size[i];
    return elements;
}

static void add_argument(hd_step *s, hd_argument a)
{
    if (a.view.buffer) a.elements = distinct_elements(&a.view);
    HD_PUSH(s->argument, s->arguments, s->argument_capacity, a);
}

void hd_step_text(hd_step *s, const char *text) { add_argument(s, (hd_argument){ .text = text }); }
void hd_step_view(hd_step *s, const char *type, hd_view view, bool writes) { add_argument(s, (hd_argument){ .type = type, .view = view, .writes = writes }); }
hd_argument *hd_step_last(hd_step *s) { return &s->argument[s->arguments - 1]; }

void hd_step_operands(hd_step *s, const hd_epilogue *e)
{
    for (int i = 0; i < e->operands; i++) add_argument(s, e->operand[i]);
    s->flops += e->flops, s->lines += e->cycles;
}

void hd_lower_push(hd_lowering *l, hd_step *s)
{
    hd_program *p = l->program;
    s->bytes = hd_step_bytes(s);
    s->node = l->now;
    for (int i = 0; i < s->arguments; i++) {
        hd_buffer *b = s->argument[i].view.buffer;
        if (!b) continue;
        if (b->first > p->steps) b->first = p->steps;
        if (b->last < p->steps) b->last = p->steps;
    }
    if (s->kernel->local_bytes > p->local_bytes) p->local_bytes = (s->kernel->local_bytes + 63) / 64 * 64;
    HD_PUSH(p->step, p->steps, p->step_capacity, *s);
}

const char *hd_rows_text(const hd_lowering *l, int64_t rows)
{
    return l->program->row_limited && rows == l->rows_batch * l->rows_length ? "rows" : hd_format("%lld", (long long)rows);
}

static hd_view area_view(hd_lowering *l, hd_node *n)
{
    hd_buffer *b = HD_NEW(hd_buffer);
    b->bytes = hd_node_bytes(n);
    b->what = n->name;
    hd_node *weight = n;
    switch (n->attr.param.role) {
    case HD_WEIGHT: b->area = HD_AREA_WEIGHTS; break;
    case HD_GRADIENT: b->area = HD_AREA_GRADIENTS; weight = n->attr.param.weight; break;
    case HD_MOMENT_1: b->area = HD_AREA_MOMENT_1; weight = n->attr.param.weight; break;
    case HD_MOMENT_2: b->area = HD_AREA_MOMENT_2; weight = n->attr.param.weight; break;
    }
    b->offset = l->weight_offset[weight->id];
    return hd_view_dense(b, &n->shape);
}

static hd_view materialised(hd_lowering *l, const hd_view *from, const char *what, hd_where where)
{
    hd_view to = hd_view_dense(hd_lower_buffer(l, 4 * hd_elements(&from->shape), what), &from->shape);
    hd_lower_copy(l, from, &to, hd_format("copy of %s", what ? what : "a view"), where);
    return to;
}

hd_view hd_lower_view(hd_lowering *l, hd_node *n)
{
    hd_view *v = &l->view[n->id];
    if (v->buffer) return *v;
    if (n->op == HD_OP_param) return *v = area_view(l, n);
    if (n->op == HD_OP_constant) {
        const hd_view made = hd_view_dense(hd_lower_buffer(l, 4 * hd_elements(&n->shape), "constant"), &n->shape);
        hd_fused alone = { .maps = 1, .map = HD_NEW_ARRAY(hd_node *, 1) };
        alone.map[0] = n;
        *v = made;
        hd_epilogue e = { 0 };
        hd_map_text(l, &alone, true, &e);
        hd_lower_map_step(l, &e, 1, hd_elements(&n->shape), hd_format("constant %g", n->attr.constant.value), n->where);
        return *v;
    }
    if (!hd_is_view(n) || n->op == HD_OP_result) hd_fail(n->where, "internal: %s %%%d is read before it is made", hd_ops[n->op].name, n->id);
    hd_view from = hd_lower_view(l, n->input[0]);
    hd_view out = from;
    switch (n->op) {
    case HD_OP_reshape:
        if (!hd_view_reshape(&from, &n->shape, &out)) {
            from = materialised(l, &from, n->name, n->where);
            hd_view_reshape(&from, &n->shape, &out);
        }
        break;
    case HD_OP_slice:
        out.offset += n->attr.slice.start * from.stride[n->attr.slice.axis];
        out.shape = n->shape;
        break;
    case HD_OP_expand: {
        out = (hd_view){ .buffer = from.buffer, .offset = from.offset, .shape = n->shape };
        const int lead = n->shape.rank - from.shape.rank;
        for (int i = 0; i < from.shape.rank; i++)
            if (from.shape.size[i] == n->shape.size[i + lead]) out.stride[i + lead] = from.stride[i];
        break;
    }
    case HD_OP_transpose:
        out.shape = n->shape;
        for (int i = 0; i < n->shape.rank; i++) out.stride[i] = from.stride[n->attr.transpose.perm[i]];
        break;
    default: break;
    }
    return l->view[n->id] = out;
}

hd_view hd_lower_dense(hd_lowering *l, hd_node *n)
{
    hd_view v = hd_lower_view(l, n);
    if (hd_view_is_dense(&v)) return v;
    return l->view[n->id] = materialised(l, &v, n->name, n->where);
}

hd_view hd_lower_matrix(hd_lowering *l, hd_node *n, int64_t rows, int64_t cols, int64_t *ld)
{
    hd_view v = hd_lower_view(l, n);
    if (hd_view_matrix(&v, rows, cols, ld)) return v;
    v = hd_lower_dense(l, n);
    *ld = cols;
    return v;
}

hd_view hd_lower_output(hd_lowering *l, hd_node *n)
{
    if (l->pinned[n->id]) return l->view[n->id] = l->pinned_view[n->id];
    return l->view[n->id] = hd_view_dense(hd_lower_buffer(l, hd_node_bytes(n), n->name ? n->name : hd_ops[n->op].name), &n->shape);
}

hd_view hd_lower_result(hd_lowering *l, hd_node *n, int index)
{
    if (l->result[n->id][index]) return hd_lower_output(l, l->result[n->id][index]);
    const hd_shape shape = hd_result_shape(n, index);
    return hd_view_dense(hd_lower_buffer(l, 4 * hd_elements(&shape), "unused result"), &shape);
}

const char *hd_lower_label(const hd_node *n, const hd_epilogue *e)
{
    const bool plain = !e || !strcmp(e->coordinates.data, "plain");
    return hd_format("%s%s%s%s%s %s", n->name ? n->name : "", n->name ? ": " : "", hd_ops[n->op].name, plain ? "" : " ", plain ? "" : e->coordinates.data, hd_shape_text(&n->shape));
}

const char *hd_epilogue_signature(const hd_epilogue *e) { return e->signature.data ? e->signature.data : ""; }
const char *hd_epilogue_arguments(const hd_epilogue *e) { return e->signature.data ? e->signature.data + 2 : ""; }

void hd_lower_map_step(hd_lowering *l, const hd_epilogue *e, int64_t rows, int64_t cols, const char *label, hd_where where)
{
    hd_step *s = hd_step_new(label, where);
    hd_text parameters = { 0 };
    hd_text_add(&parameters, "rows = %lld, cols = %lld, arguments = \"%s\", lines = %s", (long long)rows, (long long)cols,
                e->signature.length ? e->signature.data + 2 : "", e->lines.data);
    s->kernel = hd_kernel_get(l->kernels, "map", hd_format("%s_%lldx%lld", e->coordinates.data, (long long)rows, (long long)cols),
                              hd_format("const hd_run *run, int rows%s", e->signature.data ? e->signature.data : ""), parameters.data, 0, where);
    s->kind = "map", s->rows = rows, s->cols = cols;
    hd_step_text(s, hd_rows_text(l, rows));
    hd_step_operands(s, e);
    hd_lower_push(l, s);
}

/* Elementwise nodes alone. Where every operand is dense or one number, the whole tensor is one long row. */
static void lower_maps(hd_lowering *l, const hd_fused *fused)
{
    hd_node *last = fused->map[fused->maps - 1];
    const int64_t cols = hd_columns(last), rows = hd_elements(&last->shape) / cols;
    bool flat = !l->program->row_limited || rows != l->rows_batch * l->rows_length;
    for (int i = 0; flat && i < fused->maps; i++) {
        hd_node *n = fused->map[i];
        for (int k = 0; flat && k < n->inputs; k++) {
            hd_node *x = n->input[k];
            if (x->op == HD_OP_constant || hd_in_registers(l->fusion, n, x)) continue;
            const hd_view v = hd_lower_view(l, x);
            const int64_t elements = hd_elements(&x->shape);
            flat = n->op == HD_OP_dropout ? true : elements == 1 || (elements == hd_elements(&n->shape) && hd_view_is_dense(&v));
        }
    }
    for (int i = 0; i < fused->maps; i++) flat = flat && !(l->pinned[fused->map[i]->id] && !hd_view_is_dense(&l->pinned_view[fused->map[i]->id]));
    hd_epilogue e = { 0 };
    hd_map_text(l, fused, flat, &e);
    hd_lower_map_step(l, &e, flat ? 1 : rows, flat ? rows * cols : cols,
                      hd_format("%s%s%s: %s", last->name ? last->name : "", last->name ? " " : "", e.coordinates.data, hd_shape_text(&last->shape)), last->where);
}

/* Entry outputs are written where the caller wants them, gradients where the optimiser reads them, and the parts of a
 * concatenation side by side, when the kernel that makes them can write so. */
static void pin(hd_lowering *l, hd_node *n, hd_view view)
{
    if (l->pinned[n->id]) return;
    l->pinned[n->id] = view.buffer;
    l->pinned_view[n->id] = view;
}

static hd_node *through_reshapes(hd_node *n)
{
    while (n->op == HD_OP_reshape || n->op == HD_OP_detach) n = n->input[0];
    return n;
}

static void pin_outputs(hd_lowering *l)
{
    const hd_entry *e = l->entry;
    for (int i = 0; i < e->outputs; i++) {
        hd_node *n = through_reshapes(e->output[i].node);
        if ((hd_is_view(n) && n->op != HD_OP_result) || n->op == HD_OP_param || n->op == HD_OP_input || n->op == HD_OP_constant) continue;
        hd_buffer *b = HD_NEW(hd_buffer);
        b->area = HD_AREA_ARGUMENT, b->argument = e->inputs + i, b->bytes = hd_node_bytes(n), b->what = e->output[i].name;
        pin(l, n, hd_view_dense(b, &n->shape));
    }
    for (int i = 0; i < l->graph->nodes; i++) {
        hd_node *n = l->graph->node[i];
        if (!l->fusion->needed[i]) continue;
        if (n->op == HD_OP_accumulate) pin(l, n, hd_lower_view(l, hd_state_of(n)));
        if (n->op != HD_OP_concat || l->pinned[n->id]) continue;
        bool all = true;           /* every part comes from a kernel that writes through strides */
        for (int k = 0; k < n->inputs; k++) {
            const hd_node *part = through_reshapes(n->input[k]);
            const hd_node *maker = part->op == HD_OP_result ? part->input[0] : part;
            all = all && ((maker->op == HD_OP_attention_dx && (part == maker || part->attr.result.index < 3)) || (part == maker && (hd_is_map(part) || hd_has_epilogue(part)) && part->op != HD_OP_accumulate)) && !l->pinned[part->id] && part->shape.rank == n->shape.rank && hd_same_shape(&part->shape, &n->input[k]->shape);
            for (int j = 0; j < k; j++) all = all && through_reshapes(n->input[j]) != part;
        }
        if (!all) continue;
        const hd_view whole = hd_view_dense(hd_lower_buffer(l, hd_node_bytes(n), "concat"), &n->shape);
        pin(l, n, whole);
        int64_t at = 0;
        for (int k = 0; k < n->inputs; k++) {
            hd_view part = whole;
            part.offset = at * whole.stride[n->attr.concat.axis];
            part.shape = n->input[k]->shape;
            pin(l, through_reshapes(n->input[k]), part);
            at += n->input[k]->shape.size[n->attr.concat.axis];
        }
    }
}

/* The norm of all gradients needs their squares after the last kernel that stores into each. A product's epilogue adds them up on the
 * way. Rows of a table that are added to a product's gradient afterwards add what its sum of squares grew by. */
static void want_squares(hd_lowering *l)
{
    const hd_fusion *f = l->fusion;
    bool norm = false;
    for (int i = 0; i < l->graph->nodes; i++) norm = norm || (f->needed[i] && l->graph->node[i]->op == HD_OP_gradient_norm);
    for (int i = 0; norm && i < l->graph->nodes; i++) {
        const hd_node *n = l->graph->node[i];
        if (!f->needed[i] || n->op != HD_OP_accumulate) continue;
        if (n->input[0]->op == HD_OP_accumulate) l->wants_squares[n->input[0]->id] = false;
        l->wants_squares[i] = true;
        const hd_fused *fused = &f->fused[f->group[i]];
        const hd_node *root = fused->root;
        if (root && root->op == HD_OP_embedding_dw && fused->maps == 1 && n->input[0]->op == HD_OP_accumulate && root->shape.size[0] >= HD_SQUARES_TABLE_LEAST && root->shape.size[0] <= HD_SQUARES_TABLE_MOST)
            l->wants_squares[n->input[0]->id] = true;
    }
}

/* Only the first rows of each step matter when no op of the entry mixes rows but causal ones. */
static bool rows_are_independent(const hd_lowering *l)
{
    if (!l->entry->causal || !l->rows_batch) return false;
    for (int i = 0; i < l->graph->nodes; i++) {
        const hd_node *n = l->graph->node[i];
        if (!l->fusion->needed[i] || hd_is_map(n) || n->op == HD_OP_input || n->op == HD_OP_param || n->op == HD_OP_constant) continue;
        switch (n->op) {
        case HD_OP_transpose:                             /* within a row, as the next */
            if (n->shape.rank < 3 || n->shape.size[0] != l->rows_batch || n->shape.size[1] != l->rows_length || n->attr.transpose.perm[0] != 0 || n->attr.transpose.perm[1] != 1) return false;
            break;
        case HD_OP_sum: case HD_OP_reduce_max: {
            const hd_shape *x = &n->input[0]->shape;
            if (x->rank < 3 || x->size[0] != l->rows_batch || x->size[1] != l->rows_length || n->attr.reduce.axes & 3) return false;
            break;
        }
        case HD_OP_matmul: if (n->input[1]->shape.rank != 2 || n->attr.matmul.trans_a) return false; break;
        case HD_OP_layer_norm: case HD_OP_rms_norm: case HD_OP_softmax: case HD_OP_embedding: case HD_OP_attention: case HD_OP_shift: case HD_OP_top_k: case HD_OP_expert_matmul:
        case HD_OP_rope_at: case HD_OP_position_ids: case HD_OP_last_row: case HD_OP_first_row: case HD_OP_shift_cached: case HD_OP_cache_keys: case HD_OP_attention_cached:
        case HD_OP_rope: case HD_OP_result: case HD_OP_reshape: case HD_OP_slice: case HD_OP_expand: case HD_OP_table: break;
        default: return false;
        }
    }
    return true;
}

hd_program *hd_lower_entry(const hd_graph *g, const hd_entry *entry, const hd_target *target, hd_kernels *kernels, const int64_t *weight_offset, int64_t weights_bytes, hd_packing *packing)
{
    hd_lowering l = { .graph = g, .entry = entry, .target = target, .kernels = kernels, .weight_offset = weight_offset, .weights_bytes = weights_bytes, .packing = packing };
    l.fusion = hd_fuse(g, entry);
    l.program = HD_NEW(hd_program);
    l.program->graph = g, l.program->entry = entry;
    l.view = HD_NEW_ARRAY(hd_view, g->nodes);
    l.result = hd_alloc(sizeof *l.result * (size_t)g->nodes);
    for (int i = g->nodes - 1; i >= 0; i--)
        if (g->node[i]->op == HD_OP_result && l.fusion->needed[i]) l.result[g->node[i]->input[0]->id][g->node[i]->attr.result.index] = g->node[i];
    l.column_sums = HD_NEW_ARRAY(hd_view, g->nodes);
    l.wants_squares = HD_NEW_ARRAY(bool, g->nodes);
    l.has_squares = HD_NEW_ARRAY(bool, g->nodes);
    want_squares(&l);
    l.pinned = HD_NEW_ARRAY(hd_buffer *, g->nodes);
    l.pinned_view = HD_NEW_ARRAY(hd_view, g->nodes);
    if (entry->inputs && entry->input[0]->shape.rank >= 2 && g->kind == HD_KIND_LANGUAGE_MODEL)
        l.rows_batch = entry->input[0]->shape.size[0], l.rows_length = entry->input[0]->shape.size[1];
    l.program->row_limited = rows_are_independent(&l);
    for (int i = 0; i < entry->inputs; i++) {
        hd_buffer *b = HD_NEW(hd_buffer);
        b->area = HD_AREA_ARGUMENT, b->argument = i, b->bytes = hd_node_bytes(entry->input[i]), b->what = entry->input[i]->name;
        l.view[entry->input[i]->id] = hd_view_dense(b, &entry->input[i]->shape);
    }
    pin_outputs(&l);
    for (int i = 0; i < l.fusion->groups; i++) {
        const hd_fused *fused = &l.fusion->fused[i];
        l.now = fused->root ? fused->root : fused->map[fused->maps - 1];
        if (fused->root) hd_lower_root(&l, fused);
        else lower_maps(&l, fused);
    }
    l.now = NULL;
    for (int i = 0; i < entry->outputs; i++) {          /* outputs that are views, or one value under two names */
        hd_node *n = entry->output[i].node;
        const hd_view v = hd_lower_view(&l, n);
        if (v.buffer->area == HD_AREA_ARGUMENT && v.buffer->argument == entry->inputs + i) continue;
        hd_buffer *b = HD_NEW(hd_buffer);
        b->area = HD_AREA_ARGUMENT, b->argument = entry->inputs + i, b->bytes = hd_node_bytes(n), b->what = entry->output[i].name;
        const hd_view to = hd_view_dense(b, &n->shape);
        hd_lower_copy(&l, &v, &to, hd_format("output %s", entry->output[i].name), n->where);
    }
    return l.program;
}
