/* The C text of elementwise nodes, one vector at a time: the lines that a map kernel loops over, and that a product or a
 * norm runs on each finished vector. Loads come where a value is first needed and stores last, so an output may lie
 * exactly on an operand that dies here. */
#include "../passes/lower.h"
#include <math.h>
#include <string.h>

/* How each op is spelled; a and b stand for its operands. Ops absent here are handled in spell(). */
static const struct { hd_op op; const char *text; } spelling[] = {
    { HD_OP_neg, "-$a" }, { HD_OP_exp, "hd_exp($a)" }, { HD_OP_log, "hd_log($a)" }, { HD_OP_sqrt, "hd_sqrt($a)" },
    { HD_OP_rsqrt, "hd_rsqrt($a)" }, { HD_OP_abs, "hd_abs($a)" }, { HD_OP_sign, "hd_sign($a)" }, { HD_OP_sin, "hd_sin($a)" },
    { HD_OP_cos, "hd_cos($a)" }, { HD_OP_tanh, "hd_tanh($a)" }, { HD_OP_erf, "hd_erf($a)" }, { HD_OP_sigmoid, "hd_sigmoid($a)" },
    { HD_OP_relu, "hd_relu($a)" }, { HD_OP_silu, "hd_silu($a)" }, { HD_OP_gelu, "hd_gelu($a)" },
    { HD_OP_gelu_tanh, "hd_gelu_tanh($a)" }, { HD_OP_gelu_quick, "hd_gelu_quick($a)" }, { HD_OP_step, "hd_step($a)" },
    { HD_OP_silu_prime, "hd_silu_prime($a)" }, { HD_OP_gelu_prime, "hd_gelu_prime($a)" },
    { HD_OP_gelu_tanh_prime, "hd_gelu_tanh_prime($a)" }, { HD_OP_gelu_quick_prime, "hd_gelu_quick_prime($a)" },
    { HD_OP_add, "$a + $b" }, { HD_OP_sub, "$a - $b" }, { HD_OP_mul, "$a * $b" }, { HD_OP_div, "$a / $b" },
    { HD_OP_max, "hd_max($a, $b)" }, { HD_OP_min, "hd_min($a, $b)" },
    { HD_OP_less, "hd_select($a < $b, hd_set(1.0f), hd_set(0.0f))" }, { HD_OP_equal, "hd_select($a == $b, hd_set(1.0f), hd_set(0.0f))" },
    { HD_OP_where, "hd_select($a != hd_set(0.0f), $b, $c)" },
};

/* About how many cycles a vector takes, for predictions: where a division or an integer hash is the most of it, that; else by flops. */
static double cycles_of(const hd_node *n)
{
    const double flops = hd_ops[n->op].flops;
    return n->op == HD_OP_dropout ? 45 : n->op == HD_OP_div ? 16 : n->op == HD_OP_sqrt || n->op == HD_OP_rsqrt ? 20 : n->op == HD_OP_accumulate ? 8 : flops > 1 ? 1.4 * flops : 0.7 * flops;
}

typedef struct writer {
    hd_lowering *l;
    hd_epilogue *e;
    const hd_fused *fused;
    bool flat;
    int loads; struct { const hd_node *of; hd_shape seen_as; int variable; } load[32];
    int stores; struct { const char *variable; hd_view to; } store[32];
} writer;

static void line(writer *w, const char *text) { hd_text_add(&w->e->lines, "[==[%s]==], ", text); }

static const char *number(double value)
{
    if (isnan(value)) return "__builtin_nanf(\"\")";
    if (isinf(value)) return value > 0 ? "__builtin_inff()" : "-__builtin_inff()";
    char *text = hd_format("%.9g", value);
    return hd_format("%s%sf", text, strpbrk(text, ".e") ? "" : ".0");
}

/* Variables are numbered by place in the group, never by node: equal groups of different layers share one kernel. */
static const char *variable(const writer *w, const hd_node *n)
{
    for (int i = 0; i < w->fused->maps; i++) if (w->fused->map[i] == n) return hd_format("v%d", i);
    return "acc";
}

static int operand(writer *w, const char *type, hd_view view, bool writes)
{
    hd_epilogue *e = w->e;
    const hd_node *shape = w->fused->root ? w->fused->root : w->fused->map[0];
    for (int i = 0; i < e->operands; i++) {
        const hd_argument *a = &e->operand[i];
        if (a->view.buffer && a->view.buffer == view.buffer && a->view.offset == view.offset && a->writes == writes && !strcmp(a->type, type)) return i;
    }
    const hd_argument made = { .type = type, .view = view, .writes = writes, .elementwise = true,
                                             .full = hd_view_is_dense(&view) && hd_elements(&view.shape) == hd_elements(&shape->shape) };
    HD_PUSH(e->operand, e->operands, e->operand_capacity, made);
    hd_text_add(&e->signature, ", %sarg%d", type, e->operands - 1);
    return e->operands - 1;
}

/* C text of the element offset of the current vector in a tensor seen as `shape`: row and col count over the shape. Returns
 * whether the last axis is broadcast (one number for the whole vector). */
static bool address(writer *w, hd_view v, const hd_shape *shape, hd_text *out, hd_where where)
{
    int64_t stride[HD_MAX_RANK] = { 0 };
    const int lead = shape->rank - v.shape.rank;
    for (int i = 0; i < v.shape.rank; i++) if (v.shape.size[i] > 1 && i + lead >= 0) stride[i + lead] = v.stride[i];
    if (hd_elements(&v.shape) == 1) { hd_text_add(out, "0"); return true; }
    if (w->flat) { hd_text_add(out, "col"); return false; }
    const int last = shape->rank - 1;
    if (stride[last] > 1) hd_fail(where, "internal: an elementwise operand has column stride %lld", (long long)stride[last]);
    int axes = 0;                  /* those before the last with more than one element, neighbours merged where one stride serves both */
    int64_t size[HD_MAX_RANK], step[HD_MAX_RANK];
    for (int i = 0; i < last; i++) {
        if (shape->size[i] == 1) continue;
        if (axes && step[axes - 1] == stride[i] * shape->size[i]) size[axes - 1] *= shape->size[i], step[axes - 1] = stride[i];
        else size[axes] = shape->size[i], step[axes++] = stride[i];
    }
    bool any = false;
    int64_t div = 1;               /* rows per step of axis i */
    for (int i = axes - 1; i >= 0; div *= size[i--]) {
        if (!step[i]) continue;
        hd_text_add(out, "%srow", any ? " + " : "");
        any = true;
        if (div > 1) hd_text_add(out, " / %lld", (long long)div);
        if (i > 0) hd_text_add(out, " %% %lld", (long long)size[i]);
        if (step[i] != 1) hd_text_add(out, " * %lld", (long long)step[i]);
    }
    if (stride[last]) hd_text_add(out, "%scol", any ? " + " : "");
    else if (!any) hd_text_add(out, "0");
    return !stride[last];
}

static const char *value_of(writer *w, hd_node *n, hd_node *x)
{
    if (x->op == HD_OP_constant) return hd_format("hd_set(%s)", number(x->attr.constant.value));
    if (hd_in_registers(w->l->fusion, n, x) && n != x) {
        hd_node *made = hd_identity_base(x);
        return variable(w, made);
    }
    for (int i = 0; i < w->loads; i++)
        if (w->load[i].of == x && hd_same_shape(&w->load[i].seen_as, &n->shape)) return hd_format("x%d", w->load[i].variable);
    hd_view v = hd_lower_view(w->l, x);
    if (v.shape.rank && v.shape.size[v.shape.rank - 1] > 1 && v.stride[v.shape.rank - 1] > 1) v = hd_lower_dense(w->l, x);
    const int e = operand(w, "const float *", v, false);
    hd_text at = { 0 };
    const bool one = address(w, v, &n->shape, &at, n->where);
    line(w, hd_format(one ? "hd_f x%d = hd_set(arg%d[%s]);" : "hd_f x%d = HD_AT(arg%d + %s);", w->loads, e, at.data));
    if (w->loads < (int)(sizeof w->load / sizeof *w->load)) {
        w->load[w->loads].of = x, w->load[w->loads].seen_as = n->shape, w->load[w->loads].variable = w->loads;
    } else {
        hd_fail(n->where, "more than 32 tensors meet in one fused step");
    }
    return hd_format("x%d", w->loads++);
}

static void spell(writer *w, hd_node *n)
{
    if (n->op == HD_OP_constant) {
        line(w, hd_format("hd_f %s = hd_set(%s);", variable(w, n), number(n->attr.constant.value)));
        return;
    }
    if (n->op == HD_OP_accumulate) {
        const char *x = value_of(w, n, n->input[1]);
        if (n->input[0]->op == HD_OP_accumulate) {
            line(w, hd_format("hd_f %s = %s + %s;", variable(w, n), value_of(w, n, n->input[0]), x));
            return;
        }
        const hd_view flag = hd_lower_view(w->l, n->input[2]);
        const int f = operand(w, "const float *", flag, false);
        const hd_view state = hd_lower_view(w->l, n->input[0]);
        const int s = operand(w, "float *", state, true);
        hd_text at = { 0 };
        address(w, state, &n->shape, &at, n->where);
        line(w, hd_format("hd_f %s = arg%d[0] != 0.0f ? HD_AT(arg%d + %s) + %s : %s;", variable(w, n), f, s, at.data, x, x));
        return;
    }
    if (n->op == HD_OP_dropout) {
        const char *x = value_of(w, n, n->input[0]);
        const int r = operand(w, "const int32_t *", hd_lower_view(w->l, n->input[1]), false);
        const double p = n->attr.dropout.p;
        const char *element = w->flat ? "col" : hd_format("row * %lld + col", (long long)hd_columns(n));
        hd_epilogue *e = w->e;         /* the stream differs from layer to layer: an argument, so that layers share the kernel */
        HD_PUSH(e->operand, e->operands, e->operand_capacity, ((hd_argument){ .type = "uint32_t ", .text = hd_format("%du", n->attr.dropout.stream) }));
        hd_text_add(&e->signature, ", uint32_t arg%d", e->operands - 1);
        line(w, hd_format("hd_f %s = hd_select(hd_dropout_mask((uint32_t)arg%d[0], (uint32_t)arg%d[1], arg%d, (uint32_t)(%s), %uu), %s * hd_set(%s), hd_set(0.0f));",
                          variable(w, n), r, r, e->operands - 1, element, (unsigned)(p * 16777216.0), x, number(1.0 / (1.0 - p))));
        return;
    }
    const char *text = NULL;
    for (unsigned i = 0; i < sizeof spelling / sizeof *spelling; i++) if (spelling[i].op == n->op) text = spelling[i].text;
    if (!text) hd_fail(n->where, "internal: elementwise op %s has no spelling in emit/map.c", hd_ops[n->op].name);
    const char *value[3] = { 0 };
    for (int i = 0; i < n->inputs; i++) value[i] = value_of(w, n, n->input[i]);
    hd_text out = { 0 };
    for (const char *t = text; *t; t++) {
        if (*t == '$') hd_text_add(&out, "%s", value[*++t - 'a']);
        else hd_text_addn(&out, t, 1);
    }
    line(w, hd_format("hd_f %s = %s;", variable(w, n), out.data));
}

static void keep(writer *w, hd_node *n, const char *variable)
{
    if (w->stores == (int)(sizeof w->store / sizeof *w->store)) hd_fail(n->where, "more than 32 tensors meet in one fused step");
    w->store[w->stores].variable = variable;
    w->store[w->stores++].to = hd_lower_output(w->l, n);
}

void hd_map_text(hd_lowering *l, const hd_fused *fused, bool flat, hd_epilogue *e)
{
    writer w = { .l = l, .e = e, .fused = fused, .flat = flat };
    const hd_node *shape = fused->root ? fused->root : fused->map[0];
    hd_text_add(&e->lines, "{ ");
    if (fused->root && l->fusion->stored[fused->root->id]) keep(&w, fused->root, "acc");
    for (int i = 0; i < fused->maps; i++) {
        hd_node *n = fused->map[i];
        spell(&w, n);
        if (n->op == HD_OP_constant) w.store[w.stores].variable = variable(&w, n), w.store[w.stores++].to = l->view[n->id];
        else if (l->fusion->stored[n->id]) keep(&w, n, variable(&w, n));
        e->flops += hd_ops[n->op].flops * (double)hd_elements(&n->shape);
        e->cycles += cycles_of(n) * (double)hd_elements(&n->shape);
        if (i < 4) hd_text_add(&e->coordinates, "%s%s", i ? "_" : "", hd_ops[n->op].name);
    }
    if (fused->maps > 4) hd_text_add(&e->coordinates, "_and_%d", fused->maps - 4);
    if (!e->coordinates.data) hd_text_add(&e->coordinates, "plain");
    for (int i = 0; i < w.stores; i++) {
        hd_view to = w.store[i].to;
        const int out = operand(&w, "float *", to, true);
        hd_text at = { 0 };
        hd_shape as = shape->shape;
        if (!as.rank) as = (hd_shape){ 1, { 1 } };
        if (flat || hd_elements(&as) > 1) {
            if (flat) hd_text_add(&at, "col");
            else if (hd_same_shape(&as, &to.shape) || !hd_view_is_dense(&to)) address(&w, to, &to.shape, &at, shape->where);
            else hd_text_add(&at, "row * %lld + col", (long long)hd_columns(shape));
        } else {
            hd_text_add(&at, "0");
        }
        line(&w, hd_format("HD_PUT(arg%d + %s, %s);", out, at.data, w.store[i].variable));
    }
    if (e->squares_of) line(&w, hd_format("HD_SQUARES(%s);", variable(&w, e->squares_of)));
    for (int i = 0; i < e->sums; i++) line(&w, hd_format("HD_COLUMN_SUM(%d, %s);", e->sum[i].index, variable(&w, e->sum[i].of)));
    hd_text_add(&e->lines, "}");
}
