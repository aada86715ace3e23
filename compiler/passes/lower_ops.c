/* One function for each op with a kernel of its own: which template, with which parameters, on which memory. */
#include "lower.h"
#include "../emit/attention.h"
#include "../emit/product.h"
#include "../pattern/pattern.h"
#include "../tune/tune.h"
#include <math.h>
#include <string.h>

#define LL(x) ((long long)(x))

/* The declarations of a step's operands as a Lua list of { type, name }, as the product template takes them. */
static const char *argument_list(const hd_epilogue *e)
{
    hd_text out = { 0 };
    hd_text_add(&out, "{ ");
    for (int i = 0; i < e->operands; i++) hd_text_add(&out, "{ \"%s\", \"arg%d\" }, ", e->operand[i].type, i);
    hd_text_add(&out, "}");
    return out.data;
}

/* ---- products ---- */

enum { MOST_ROWS_UNPACKED = 512, LARGEST_PACKED = 32 << 20 };

/* A matrix operand as [batch][rows][cols] of the logical (untransposed) operand's memory order. */
typedef struct matrix { hd_view view; bool transposed; int64_t ld, batch_stride; } matrix;

static matrix matrix_of(hd_lowering *l, hd_node *n, int64_t batch, int64_t rows, int64_t cols)
{
    const hd_shape shape = { 3, { batch, rows, cols } };
    hd_view v = hd_lower_view(l, n), m;
    const bool fits = hd_view_reshape(&v, &shape, &m);
    if (fits && (cols == 1 || m.stride[2] == 1) && (rows == 1 || m.stride[1] >= cols)) return (matrix){ v, false, rows > 1 ? m.stride[1] : cols, batch > 1 ? m.stride[0] : 0 };
    if (fits && (rows == 1 || m.stride[1] == 1) && (cols == 1 || m.stride[2] >= rows)) return (matrix){ v, true, cols > 1 ? m.stride[2] : rows, batch > 1 ? m.stride[0] : 0 };
    v = hd_lower_dense(l, n);
    return (matrix){ v, false, cols, batch > 1 ? rows * cols : 0 };
}

/* Weights are the same memory in every entry; other buffers belong to one. */
static bool same_matrix(const hd_panels *a, const hd_panels *b)
{
    const hd_buffer *x = a->of.buffer, *y = b->of.buffer;
    const bool same = x == y || (x->area == HD_AREA_WEIGHTS && y->area == HD_AREA_WEIGHTS && x->offset == y->offset);
    return same && a->of.offset == b->of.offset && a->transposed == b->transposed && a->n == b->n && a->k == b->k && a->ld == b->ld;
}

/* any: made for clones or not */
static const hd_panels *find_panels(const hd_panels *in, int count, const hd_panels *like, bool any)
{
    for (int i = 0; i < count; i++) if (same_matrix(&in[i], like) && (any || in[i].clone == like->clone)) return &in[i];
    return NULL;
}

static hd_step *pack_step(hd_lowering *l, const hd_node *n, const hd_panels *b)
{
    const int nv = b->nr / l->target->vl;
    hd_step *s = hd_step_new(hd_format("%s: pack %lldx%lld", b->of.buffer->what ? b->of.buffer->what : "operand", LL(b->k), LL(b->n)), n->where);
    s->kernel = hd_kernel_get(l->kernels, "pack", hd_format("%d%s", b->nr, b->transposed ? "_transposed" : ""), "const hd_run *run, const float *b, float *packed, ptrdiff_t n, ptrdiff_t k, ptrdiff_t ld_b",
                              hd_format("transposed = %s, nv = %d", b->transposed ? "true" : "false", nv), 0, s->where);
    hd_step_view(s, "const float *", b->of, false);
    hd_step_view(s, "float *", b->packed, true);
    hd_step_text(s, hd_format("%lld, %lld, %lld", LL(b->n), LL(b->k), LL(b->ld)));
    s->kind = b->transposed ? "transposed" : "natural", s->rows = b->k, s->cols = b->n;
    return s;
}

/* Panels of B: of a weight that stays as it is, in the area `packed`, once for all entries; else in scratch, once for all products
 * of the entry, but once more for clones: kept from the forward pass until then, the panels of all layers would need as much memory
 * as the weights. */
static hd_view packed_panels(hd_lowering *l, const hd_node *n, hd_panels b, const hd_product *p)
{
    b.nr = p->nv * l->target->vl, b.clone = n->clone;
    const hd_shape shape = { 1, { (int64_t)p->packed_bytes / 4 } };
    hd_packing *shared = b.of.buffer->area == HD_AREA_WEIGHTS ? l->packing : NULL;
    const hd_panels *made = shared ? find_panels(shared->panels, shared->count, &b, true) : find_panels(l->pack, l->packs, &b, false);
    if (shared) l->program->reads_packed = true;
    if (made) return made->packed;
    if (!shared) {
        b.packed = hd_view_dense(hd_lower_buffer(l, (int64_t)p->packed_bytes, "packed panels"), &shape);
        hd_lower_push(l, pack_step(l, n, &b));
        HD_PUSH(l->pack, l->packs, l->pack_capacity, b);
        return b.packed;
    }
    hd_buffer *buffer = HD_NEW(hd_buffer);
    buffer->area = HD_AREA_PACKED, buffer->bytes = (int64_t)p->packed_bytes, buffer->offset = shared->bytes, buffer->what = b.of.buffer->what;
    b.packed = hd_view_dense(buffer, &shape);
    shared->bytes += (buffer->bytes + 63) / 64 * 64;
    hd_program *program = &shared->program;
    HD_PUSH(program->step, program->steps, program->step_capacity, *pack_step(l, n, &b));
    HD_PUSH(shared->panels, shared->count, shared->capacity, b);
    return b.packed;
}

/* Vectors in a panel of B where panels exist, else 0. */
static int packed_width(const hd_lowering *l, const hd_panels *b)
{
    const hd_panels *made = find_panels(l->pack, l->packs, b, true);
    if (!made && l->packing) made = find_panels(l->packing->panels, l->packing->count, b, true);
    return made ? made->nr / l->target->vl : 0;
}

/* So few rows that the product waits for B, whatever it does with it: few_rows.c.tmpl reads B once, in slots of about 200 KB. Of packed
 * panels the sums of 8 rows stay in registers; more take turns, which pays while the panels come from memory. */
static bool few_rows(const hd_product *p, int vl)
{
    if (p->trans_a) return false;
    if (p->b_kind == HD_B_PACKED) return p->m * p->nv <= (vl == 16 ? 24 : 12) || (p->m <= (vl == 16 ? 24 : 12) && p->n * p->k >= 1 << 16);
    return p->m <= (p->b_kind == HD_B_NATURAL ? 8 : vl == 16 ? 12 : 6);
}

static int64_t few_rows_slots(const hd_product *p, int vl)
{
    const int64_t width = p->b_kind == HD_B_PACKED ? p->nv * vl : vl, panels = (p->n + width - 1) / width, work = (4 * p->n * p->k + 199999) / 200000;
    const int64_t wide = p->b_kind == HD_B_NATURAL ? (p->n / 1024 > 4 ? p->n / 1024 : 8) : 64;      /* [k][n]: rows of a slot in stretches of 4 KB */
    const int64_t most = wide < 64 ? wide : 64, least = most < panels ? most : panels;
    return work < least ? work : least;
}

/* Vectors in a panel of B: as it is packed already, or as products of many rows want it, which share it with those of few. */
static int panel_width(const hd_lowering *l, const hd_panels *b, const hd_product *p, const hd_product_target *target)
{
    const int made = packed_width(l, b);
    if (made || p->m >= 16) return made;
    hd_product many = *p;
    many.m = 256;
    hd_product_choose(&many, target);
    return many.nv;
}

static void lower_product(hd_lowering *l, const hd_fused *fused)
{
    hd_node *n = fused->root, *x = n->input[0], *y = n->input[1];
    const bool shared = y->shape.rank == 2, trans_a = n->attr.matmul.trans_a, trans_b = n->attr.matmul.trans_b;
    const int rank = n->shape.rank;
    const int64_t cols = n->shape.size[rank - 1];
    const int64_t depth = x->shape.size[x->shape.rank - (trans_a ? 2 : 1)];
    int64_t rows = n->shape.size[rank - 2], batch = 1;
    for (int i = 0; i < rank - 2; i++) batch *= n->shape.size[i];
    if (shared && !trans_a) rows *= batch, batch = 1;

    matrix a = matrix_of(l, x, batch, trans_a ? depth : rows, trans_a ? rows : depth);
    matrix b = matrix_of(l, y, shared ? 1 : batch, trans_b ? cols : depth, trans_b ? depth : cols);
    hd_product p = { .m = rows, .n = cols, .k = depth, .batch = batch, .ld_a = a.ld, .ld_b = b.ld, .trans_a = trans_a != a.transposed };
    const bool b_transposed = trans_b != b.transposed;
    p.b_kind = b_transposed ? HD_B_TRANSPOSED : HD_B_NATURAL;
    /* Panels of the whole of B are for products that share them. In training, a head's weight is too large to keep twice more (a chunk
     * of a loss needs it both ways round): where rows are few, slots copy what they need, each part once or twice. */
    const bool stays = l->packing && b.view.buffer->area == HD_AREA_WEIGHTS;
    const bool too_large = !stays && rows <= MOST_ROWS_UNPACKED && 4 * cols * depth > LARGEST_PACKED;
    const hd_panels panels = { .of = b.view, .transposed = b_transposed, .n = cols, .k = depth, .ld = b.ld };
    const hd_product_target target = hd_product_target_of(l->target);
    /* Few rows: weights [k][n] cannot be cut into long stretches for several threads (two thirds of the bandwidth); panels that others need are
     * in memory anyway. Rows of [n][k] are such stretches. */
    const bool streams = stays && (!b_transposed || packed_width(l, &panels) > 0);
    if (batch == 1 && !p.trans_a && (rows >= 16 || streams) && !too_large) p.b_kind = HD_B_PACKED;
    if (p.b_kind == HD_B_PACKED) p.nv_packed = panel_width(l, &panels, &p, &target);
    hd_product_choose(&p, &target);
    const bool few = few_rows(&p, l->target->vl);
    hd_epilogue e = { 0 };
    for (int i = 0; !few && batch == 1 && i < fused->maps; i++) if (l->wants_squares[fused->map[i]->id]) e.squares_of = fused->map[i];
    hd_map_text(l, fused, false, &e);
    hd_step *s = hd_step_new(hd_format("%s%sproduct%s%s [%lld,%lld] over %lld%s", n->name ? n->name : "", n->name ? ": " : "", strcmp(e.coordinates.data, "plain") ? " " : "", strcmp(e.coordinates.data, "plain") ? e.coordinates.data : "",
                                       LL(rows), LL(cols), LL(depth), batch > 1 ? hd_format(", %lld times", LL(batch)) : ""), n->where);
    const char *name = hd_format("%lldx%lldx%lld%s%s_%s", LL(rows), LL(cols), LL(depth), p.trans_a ? "_ta" : "", p.b_kind == HD_B_TRANSPOSED ? "_tb" : "", e.coordinates.data);
    hd_view b_view = b.view;
    if (few) {
        s->kernel = hd_kernel_get(l->kernels, "few_rows", name, hd_format("const hd_run *run, int rows, const float *a, const float *b%s", hd_epilogue_signature(&e)),
                                  hd_format("m = %lld, n = %lld, k = %lld, ld_a = %lld, transposed = %s, ld_b = %lld, batch = %lld, stride_a = %lld, stride_b = %lld, slots_n = %lld,%s arguments = \"%s\", epilogue = %s",
                                            LL(p.m), LL(p.n), LL(p.k), LL(p.ld_a), b_transposed ? "true" : "false", LL(p.ld_b), LL(batch), LL(a.batch_stride), LL(b.batch_stride),
                                            LL(few_rows_slots(&p, l->target->vl)), p.b_kind == HD_B_PACKED ? hd_format(" nv = %d,", p.nv) : "", hd_epilogue_arguments(&e), e.lines.data), 0, s->where);
        if (p.b_kind == HD_B_PACKED) b_view = packed_panels(l, n, panels, &p);
    } else {
        hd_tunable *t = hd_tune_product(l->kernels->tuning, &p, &target, a.batch_stride, b.batch_stride, e.coordinates.data, argument_list(&e), e.lines.data);
        t->source = b.view, t->source_transposed = b_transposed, t->source_ld = b.ld;
        if (p.b_kind == HD_B_PACKED) b_view = packed_panels(l, n, panels, &p);
        const char *after = t->after;
        t->signature = hd_format("const hd_run *run, int rows, const float *a, const float *b%s", hd_epilogue_signature(&e)), t->arguments = 3 + e.operands;
        if (e.squares_of) {           /* one sum for each tile, so known only now */
            const int64_t tiles = (p.m + p.mr - 1) / p.mr, vectors = (p.n + l->target->vl - 1) / l->target->vl;
            const char *squares = hd_lower_squares(l, &e, e.squares_of, tiles * ((vectors + p.nv - 1) / p.nv));
            after = hd_format(", squares = \"%s\", arguments = %s, epilogue = %s", squares, argument_list(&e), e.lines.data);
        }
        const char *signature = hd_format("const hd_run *run, int rows, const float *a, const float *b%s", hd_epilogue_signature(&e));
        s->kernel = hd_kernel_get(l->kernels, "product", name, signature, hd_format("%s%s%s", t->before, hd_product_parameters(&p), after), (int64_t)p.local_bytes, s->where);
        s->tunable = t;
    }
    hd_step_text(s, batch == 1 && !p.trans_a ? hd_rows_text(l, rows) : hd_format("%lld", LL(rows)));
    hd_step_view(s, "const float *", a.view, false);
    hd_step_view(s, "const float *", b_view, false);
    hd_step_operands(s, &e);
    const double flops = 2.0 * (double)rows * (double)cols * (double)depth * (double)batch;
    s->flops += flops, s->useful = n->again ? 0 : flops;
    s->rows = batch * rows, s->cols = cols;
    if (few) s->slots = batch * few_rows_slots(&p, l->target->vl), s->cycles = 0.6 * flops / 2 / l->target->vl;
    else s->slots = p.slots, s->product = memcpy(HD_NEW(hd_product), &p, sizeof p);
    hd_lower_push(l, s);
}

/* ---- attention ---- */

hd_attention_strides hd_lower_heads(hd_lowering *l, const hd_node *attention, hd_node *n, hd_view *view, int64_t heads)
{
    const hd_shape *s = &n->shape;
    const bool first = attention->attr.attention.heads_first;
    const int64_t dim = attention->attr.attention.head_dim, positions = s->size[s->rank - 2];
    const int64_t batch = hd_elements(s) / (positions * heads * dim);
    const hd_shape shape = first ? (hd_shape){ 4, { batch, heads, positions, dim } } : (hd_shape){ 4, { batch, positions, heads, dim } };
    hd_view as;
    if (!view->buffer) *view = hd_lower_view(l, n);
    if (!hd_view_reshape(view, &shape, &as) || (dim > 1 && as.stride[3] != 1)) {
        *view = hd_lower_dense(l, n);
        hd_view_reshape(view, &shape, &as);
    }
    const int head = first ? 1 : 2, row = first ? 2 : 1;
    return (hd_attention_strides){ batch > 1 ? as.stride[0] : 0, heads > 1 ? as.stride[head] : 0, positions > 1 ? as.stride[row] : dim };
}

/* The cover of a pattern, made once for all layers, entries and directions. */
static const hd_cover *cover_of(const hd_pattern *p, int64_t queries, int64_t keys)
{
    static struct { const hd_pattern *pattern; int64_t queries, keys; const hd_cover *cover; } *made;
    static int count, capacity;
    for (int i = 0; i < count; i++)
        if (made[i].queries == queries && made[i].keys == keys && hd_pattern_equal(made[i].pattern, p)) return made[i].cover;
    const hd_cover *cover = hd_cover_make(p, queries, keys);
    made = hd_grow(made, count, &capacity, sizeof *made);
    made[count].pattern = p, made[count].queries = queries, made[count].keys = keys;
    return made[count++].cover = cover;
}

static void describe(hd_lowering *l, const hd_node *n, hd_attention *a)
{
    const hd_node *q = n->input[0], *k = n->input[1];
    (void)l;
    a->heads = n->attr.attention.heads, a->kv_heads = n->attr.attention.kv_heads, a->head_dim = n->attr.attention.head_dim;
    a->queries = q->shape.size[q->shape.rank - 2], a->keys = k->shape.size[k->shape.rank - 2];
    a->batch = hd_elements(&q->shape) / (a->queries * a->heads * a->head_dim);
    a->scale = n->attr.attention.scale, a->softcap = n->attr.attention.softcap, a->offset = n->attr.attention.offset;
    a->alibi = n->attr.attention.alibi, a->buckets = n->attr.attention.buckets, a->with = n->attr.attention.with;
    const int key_bias = hd_attention_input(n, HD_WITH_KEY_BIAS), edge_bias = hd_attention_input(n, HD_WITH_EDGE_BIAS);
    if (key_bias >= 0 && n->input[key_bias]->shape.rank == 2) a->key_bias_stride = a->keys;
    if (edge_bias >= 0) {
        const hd_shape *s = &n->input[edge_bias]->shape;
        a->edges = s->size[s->rank - 1];
        a->edge_bias_stride = s->rank == 2 ? a->edges : 0;
    }
    const hd_cover **cover = HD_NEW_ARRAY(const hd_cover *, n->attr.attention.patterns);
    int *of_head = HD_NEW_ARRAY(int, a->heads);
    for (int h = 0; h < n->attr.attention.patterns; h++) {
        const hd_pattern *p = n->attr.attention.pattern[h];
        of_head[h] = -1;
        for (int before = 0; before < h && of_head[h] < 0; before++) if (hd_pattern_equal(n->attr.attention.pattern[before], p)) of_head[h] = of_head[before];
        if (of_head[h] >= 0) continue;
        cover[a->covers] = cover_of(p, a->queries, a->keys);
        of_head[h] = a->covers++;
    }
    a->cover = cover;
    a->cover_of_head = n->attr.attention.patterns > 1 ? of_head : NULL;
}

static bool same_buckets(const hd_buckets *a, const hd_buckets *b)
{
    if (!a || !b) return a == b;
    return a->first == b->first && a->count == b->count && a->buckets == b->buckets && !memcmp(a->bucket, b->bucket, sizeof *a->bucket * (size_t)a->count);
}

static bool same_attention(const hd_attention *a, const hd_attention *b)
{
    hd_attention x = *a, y = *b;
    x.cover = y.cover = NULL, x.cover_of_head = y.cover_of_head = NULL, x.alibi = y.alibi = NULL, x.buckets = y.buckets = NULL;
    if (memcmp(&x, &y, sizeof x) || !a->cover_of_head != !b->cover_of_head || !a->alibi != !b->alibi) return false;
    if (a->alibi && memcmp(a->alibi, b->alibi, sizeof *a->alibi * (size_t)a->heads)) return false;
    if (!same_buckets(a->buckets, b->buckets)) return false;
    for (int i = 0; i < a->covers; i++) if (a->cover[i] != b->cover[i]) return false;
    for (int h = 0; a->cover_of_head && h < a->heads; h++) if (a->cover_of_head[h] != b->cover_of_head[h]) return false;
    return true;
}

/* Plans are made once for all layers alike: balancing slots walks the cover, which is long where the length is. */
static hd_attention_plan plan_of(const hd_attention *a, const hd_target *target, bool backward)
{
    static struct { hd_attention of; const hd_target *target; bool backward; hd_attention_plan plan; } *made;
    static int count, capacity;
    for (int i = 0; i < count; i++) if (made[i].backward == backward && made[i].target == target && same_attention(&made[i].of, a)) return made[i].plan;
    const hd_attention_plan plan = backward ? hd_attention_backward(a, target) : hd_attention_forward(a, target);
    made = hd_grow(made, count, &capacity, sizeof *made);
    made[count].of = *a, made[count].target = target, made[count].backward = backward, made[count].plan = plan;
    return made[count++].plan;
}

/* The plan by estimates, or by a tuning record that fits; *tunable: what it was chosen from. */
static hd_attention_plan tuned_plan(hd_lowering *l, hd_attention *a, bool backward, const hd_tunable **tunable)
{
    const hd_attention_plan analytical = plan_of(a, l->target, backward);
    *tunable = hd_tune_attention(l->kernels->tuning, a, l->target, backward, &analytical);
    return a->choice.kernels ? plan_of(a, l->target, backward) : analytical;
}

static void attention_steps(hd_lowering *l, const hd_node *n, const hd_attention_plan *plan, const hd_tunable *tunable, hd_step *common)
{
    hd_view merge = { 0 };
    if (plan->merge_bytes) merge = hd_view_dense(hd_lower_buffer(l, plan->merge_bytes, "attention merge"), &(hd_shape){ 1, { plan->merge_bytes / 4 } });
    if (merge.buffer) hd_step_view(common, "float *", merge, true), hd_step_last(common)->elements = 0;
    else hd_step_text(common, "NULL");
    double shares = 0;
    for (int i = 0; i < plan->phases; i++) shares += plan->phase[i].share;
    for (int i = 0; i < plan->phases; i++) {
        const hd_attention_phase *phase = &plan->phase[i];
        hd_step *s = HD_NEW(hd_step);
        *s = *common;
        s->label = hd_format("%s%s%s %s%s", n->name ? n->name : "", n->name ? ": " : "", hd_ops[n->op].name, hd_pattern_text(n->attr.attention.pattern[0]),
                             plan->phases > 1 ? hd_format(", phase %d of %d", i + 1, plan->phases) : "");
        s->kernel = hd_kernel_get(l->kernels, phase->template_name, phase->coordinates, plan->signature, phase->parameters, phase->local_bytes, s->where);
        s->share = shares > 0 ? phase->share / shares : 1.0 / plan->phases;
        s->flops = plan->useful_flops * s->share, s->useful = n->again ? 0 : s->flops;
        s->cycles = plan->cycles * s->share, s->slots = phase->slots;
        if (i == 0) s->tunable = tunable;
        hd_lower_push(l, s);
    }
}

/* Inputs from `first` on, in the order of HD_WITH_*. */
static void extra_inputs(hd_lowering *l, const hd_node *n, int first, hd_step *s)
{
    for (int i = first; i < n->inputs; i++)
        hd_step_view(s, n->input[i]->dtype == HD_I32 ? "const int32_t *" : "const float *", hd_lower_dense(l, n->input[i]), false);
}

static void lower_attention(hd_lowering *l, hd_node *n)
{
    hd_attention a;
    memset(&a, 0, sizeof a);           /* plans are looked up by its bytes */
    describe(l, n, &a);
    hd_view view[4] = { { 0 } };
    a.q = hd_lower_heads(l, n, n->input[0], &view[0], a.heads);
    a.k = hd_lower_heads(l, n, n->input[1], &view[1], a.kv_heads);
    a.v = hd_lower_heads(l, n, n->input[2], &view[2], a.kv_heads);
    view[3] = hd_lower_output(l, n);
    a.out = hd_lower_heads(l, n, n, &view[3], a.heads);
    const hd_view lse = hd_lower_result(l, n, 1);
    const hd_tunable *tunable;
    const hd_attention_plan plan = tuned_plan(l, &a, false, &tunable);
    hd_step *s = hd_step_new("", n->where);
    s->attends = n, s->attention = memcpy(HD_NEW(hd_attention), &a, sizeof a);
    hd_step_text(s, l->program->row_limited ? "sequences" : "0");
    hd_step_text(s, l->program->row_limited ? "used" : "0");
    for (int i = 0; i < 3; i++) hd_step_view(s, "const float *", view[i], false);
    extra_inputs(l, n, 3, s);
    hd_step_view(s, "float *", view[3], true);
    hd_step_view(s, "float *", lse, true);
    attention_steps(l, n, &plan, tunable, s);
}

static void lower_attention_dx(hd_lowering *l, hd_node *n)
{
    hd_attention a;
    memset(&a, 0, sizeof a);
    describe(l, n, &a);
    hd_view view[6] = { { 0 } }, grad[3] = { { 0 } };
    a.q = hd_lower_heads(l, n, n->input[0], &view[0], a.heads);
    a.k = hd_lower_heads(l, n, n->input[1], &view[1], a.kv_heads);
    a.v = hd_lower_heads(l, n, n->input[2], &view[2], a.kv_heads);
    a.out = hd_lower_heads(l, n, n->input[3], &view[3], a.heads);
    view[4] = hd_lower_dense(l, n->input[4]);
    a.dout = hd_lower_heads(l, n, n->input[5], &view[5], a.heads);
    grad[0] = hd_lower_output(l, n);
    grad[1] = hd_lower_result(l, n, 1);
    grad[2] = hd_lower_result(l, n, 2);
    a.dq = hd_lower_heads(l, n, n->input[0], &grad[0], a.heads);
    a.dk = hd_lower_heads(l, n, n->input[1], &grad[1], a.kv_heads);
    a.dv = hd_lower_heads(l, n, n->input[2], &grad[2], a.kv_heads);
    const hd_tunable *tunable;
    const hd_attention_plan plan = tuned_plan(l, &a, true, &tunable);
    hd_step *s = hd_step_new("", n->where);
    for (int i = 0; i < 6; i++) hd_step_view(s, "const float *", view[i], false);
    extra_inputs(l, n, 6, s);
    for (int i = 0; i < 3; i++) hd_step_view(s, "float *", grad[i], true);
    for (unsigned bit = HD_WITH_BIAS; bit <= HD_WITH_EDGE_BIAS; bit <<= 1) {
        const int index = hd_attention_result(n, bit);
        if (index >= 0) hd_step_view(s, "float *", hd_lower_result(l, n, index), true);
    }
    attention_steps(l, n, &plan, tunable, s);
}

static void lower_key_bounds(hd_lowering *l, hd_node *n)
{
    const bool documents = n->attr.bounds.documents;
    const int64_t rows = n->shape.size[0];
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "key_bounds", hd_format("%s_%lldx%lld", documents ? "documents" : "lengths", LL(rows), LL(n->attr.bounds.queries)), hd_format("const hd_run *run, const int32_t *%s, int32_t *bounds", documents ? "documents" : "lengths"),
                              hd_format("kind = \"%s\", rows = %lld, queries = %lld, keys = %lld", documents ? "documents" : "lengths", LL(rows), LL(n->attr.bounds.queries), LL(n->attr.bounds.keys)), 0, s->where);
    hd_step_view(s, "const int32_t *", hd_lower_dense(l, n->input[0]), false);
    hd_step_view(s, "int32_t *", hd_lower_output(l, n), true);
    s->rows = rows, s->cols = n->attr.bounds.queries;
    hd_lower_push(l, s);
}

/* ---- memory ---- */

static void lower_table(hd_lowering *l, hd_node *n)
{
    const int64_t count = hd_elements(&n->shape);
    hd_text values = { 0 };
    for (int64_t i = 0; i < count; i++) {
        const double x = n->attr.table.value[i];
        hd_text_add(&values, isinf(x) ? x > 0 ? "__builtin_inff()" : "-__builtin_inff()" : "%#.9gf", x);
        hd_text_add(&values, i + 1 == count ? "" : i % 8 == 7 ? ",\n    " : ", ");
    }
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    s->kernel = hd_kernel_get(l->kernels, "table", hd_format("%lld", LL(count)), "const hd_run *run, float *out", hd_format("count = %lld, values = [[%s]]", LL(count), values.data), 0, s->where);
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    s->rows = 1, s->cols = count;
    hd_lower_push(l, s);
}

static void number_list(hd_text *out, const char *name, int count, const int64_t *value)
{
    hd_text_add(out, "%s%s = { ", out->length ? ", " : "", name);
    for (int i = 0; i < count; i++) hd_text_add(out, "%lld, ", LL(value[i]));
    hd_text_add(out, "}");
}

void hd_lower_copy(hd_lowering *l, const hd_view *from, const hd_view *to, const char *what, hd_where where)
{
    hd_step *s = hd_step_new(what, where);
    hd_text t = { 0 };
    const int rank = from->shape.rank ? from->shape.rank : 1;
    const int64_t one = 1;
    number_list(&t, "sizes", rank, from->shape.rank ? from->shape.size : &one);
    number_list(&t, "from", rank, from->stride);
    number_list(&t, "to", rank, to->stride);
    hd_text coordinates = { 0 };
    for (int i = 0; i < rank; i++) hd_text_add(&coordinates, "%s%lld", i ? "x" : "", LL(from->shape.rank ? from->shape.size[i] : 1));
    s->kernel = hd_kernel_get(l->kernels, "permute", coordinates.data, "const hd_run *run, const float *x, float *out", t.data, 0, where);
    hd_step_view(s, "const float *", *from, false);
    hd_step_view(s, "float *", *to, true);
    s->cols = from->shape.rank ? from->shape.size[from->shape.rank - 1] : 1, s->rows = hd_elements(&from->shape) / s->cols;
    hd_lower_push(l, s);
}

static int64_t product_of(const hd_shape *s, int from, int to)
{
    int64_t p = 1;
    for (int i = from; i < to; i++) p *= s->size[i];
    return p;
}

static void lower_concat(hd_lowering *l, hd_node *n)
{
    if (l->pinned[n->id] && l->pinned[hd_base(n->input[0])->id] && l->pinned[hd_base(n->input[0])->id] == l->pinned[n->id]) {
        hd_lower_output(l, n);             /* its parts were written in place */
        return;
    }
    const int axis = n->attr.concat.axis;
    const int64_t rows = product_of(&n->shape, 0, axis);
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    int64_t sizes[64], lds[64];
    if (n->inputs > 64) hd_fail(n->where, "concat joins at most 64 tensors in one call, not %d", n->inputs);
    hd_text signature = { 0 }, t = { 0 };
    hd_text_add(&signature, "const hd_run *run, int rows");
    hd_step_text(s, hd_format("%lld", LL(rows)));
    for (int i = 0; i < n->inputs; i++) {
        sizes[i] = product_of(&n->input[i]->shape, axis, n->shape.rank);
        hd_step_view(s, "const float *", hd_lower_matrix(l, n->input[i], rows, sizes[i], &lds[i]), false);
        hd_text_add(&signature, ", const float *a%d", i);
    }
    hd_text_add(&signature, ", float *out");
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    hd_text_add(&t, "rows = %lld", LL(rows));
    number_list(&t, "sizes", n->inputs, sizes);
    number_list(&t, "lds", n->inputs, lds);
    s->kernel = hd_kernel_get(l->kernels, "concat", hd_format("%d_to_%lldx%lld", n->inputs, LL(rows), LL(hd_elements(&n->shape) / rows)), signature.data, t.data, 0, s->where);
    s->rows = rows, s->cols = hd_elements(&n->shape) / rows;
    hd_lower_push(l, s);
}

static void lower_pad(hd_lowering *l, hd_node *n)
{
    const int axis = n->attr.pad.axis;
    const int64_t rows = product_of(&n->shape, 0, axis), after = product_of(&n->shape, axis + 1, n->shape.rank), size = n->input[0]->shape.size[axis] * after;
    int64_t ld;
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    const hd_view x = hd_lower_matrix(l, n->input[0], rows, size, &ld);
    s->kernel = hd_kernel_get(l->kernels, "pad", hd_format("%lldx%lld", LL(rows), LL(size)), "const hd_run *run, int rows, const float *x, float *out",
                              hd_format("rows = %lld, size = %lld, before = %lld, after = %lld, ld_x = %lld", LL(rows), LL(size), LL(n->attr.pad.before * after), LL(n->attr.pad.after * after), LL(ld)), 0, s->where);
    hd_step_text(s, hd_format("%lld", LL(rows)));
    hd_step_view(s, "const float *", x, false);
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    s->rows = rows, s->cols = hd_elements(&n->shape) / rows;
    hd_lower_push(l, s);
}

static void lower_shift(hd_lowering *l, hd_node *n)
{
    const bool forward = n->op == HD_OP_shift;
    const int axis = n->attr.shift.axis;
    const int64_t rows = product_of(&n->shape, 0, axis), length = n->shape.size[axis], inner = product_of(&n->shape, axis + 1, n->shape.rank);
    int64_t ld;
    hd_step *s = hd_step_new(hd_lower_label(n, NULL), n->where);
    const hd_view x = hd_lower_matrix(l, n->input[0], rows, length * inner, &ld);
    s->kernel = hd_kernel_get(l->kernels, "shift", hd_format("%s%lldx%lldx%lld", forward ? "" : "back_", LL(rows), LL(length), LL(inner)),
                              forward ? "const hd_run *run, int rows, const float *x, const float *start, float *out" : "const hd_run *run, int rows, const float *x, float *out",
                              hd_format("kind = \"%s\", rows = %lld, length = %lld, inner = %lld, ld_x = %lld", forward ? "shift" : "unshift", LL(rows), LL(length), LL(inner), LL(ld)), 0, s->where);
    hd_step_text(s, l->program->row_limited && axis == 1 && rows == l->rows_batch ? "sequences" : hd_format("%lld", LL(rows)));
    hd_step_view(s, "const float *", x, false);
    if (forward) hd_step_view(s, "const float *", hd_lower_dense(l, n->input[1]), false);
    hd_step_view(s, "float *", hd_lower_output(l, n), true);
    s->rows = rows * length, s->cols = inner;
    hd_lower_push(l, s);
}

void hd_lower_root(hd_lowering *l, const hd_fused *fused)
{
    hd_node *n = fused->root;
    switch (n->op) {
    case HD_OP_matmul: lower_product(l, fused); break;
    case HD_OP_attention: lower_attention(l, n); break;
    case HD_OP_attention_dx: lower_attention_dx(l, n); break;
    case HD_OP_cache_keys: hd_lower_cache_keys(l, n); break;
    case HD_OP_attention_cached: hd_lower_attention_cached(l, n); break;
    case HD_OP_key_bounds: lower_key_bounds(l, n); break;
    case HD_OP_table: lower_table(l, n); break;
    case HD_OP_layer_norm: case HD_OP_layer_norm_dx: case HD_OP_layer_norm_dgain:
    case HD_OP_rms_norm: case HD_OP_rms_norm_dx: case HD_OP_rms_norm_dgain: hd_lower_norm(l, fused); break;
    case HD_OP_top_k: hd_lower_top_k(l, n); break;
    case HD_OP_expert_matmul: hd_lower_expert_matmul(l, n); break;
    case HD_OP_softmax: case HD_OP_softmax_dx: hd_lower_softmax(l, fused); break;
    case HD_OP_cross_entropy: hd_lower_cross_entropy(l, n); break;
    case HD_OP_cross_entropy_dx: hd_lower_cross_entropy_dx(l, fused); break;
    case HD_OP_embedding: case HD_OP_embedding_dw: hd_lower_embedding(l, fused); break;
    case HD_OP_position_ids: hd_lower_position_ids(l, n); break;
    case HD_OP_last_row: hd_lower_last_row(l, n); break;
    case HD_OP_first_row: hd_lower_first_row(l, n); break;
    case HD_OP_shift_cached: hd_lower_shift_cached(l, n); break;
    case HD_OP_rope: case HD_OP_rope_at: hd_lower_rope(l, n, fused); break;
    case HD_OP_sum: case HD_OP_reduce_max: hd_lower_reduce(l, fused); break;
    case HD_OP_concat: lower_concat(l, n); break;
    case HD_OP_pad: lower_pad(l, n); break;
    case HD_OP_shift: case HD_OP_unshift: lower_shift(l, n); break;
    case HD_OP_gradient_norm: hd_lower_gradient_norm(l, n); break;
    case HD_OP_adamw: hd_lower_adamw(l, n); break;
    default: hd_fail(n->where, "internal: no kernel makes %s", hd_ops[n->op].name);
    }
}
