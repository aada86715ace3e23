/* What the command `attention` of a program needs to show the weights of entry `forward`: the covers of its patterns as tables, and
 * for each attention op the call before which its q and k are in place, and where.
 *
 * So there is no entry for it: nothing more is compiled, no output is copied, and layers are seen one at a time, whatever the length.
 * Tables follow the cover: a few numbers for each family, a byte or two for each run where rows are listed. */
#include "attention.h"
#include "emit.h"
#include "../passes/lower.h"
#include <string.h>

#define LL(x) ((long long)(x))
enum { MAX_PATTERNS = 256, MAX_ROWS_BYTES = 4 << 20 };

typedef struct pattern { const hd_pattern *pattern; int64_t queries, keys; const hd_cover *cover; } pattern;
typedef struct list { int count; pattern item[MAX_PATTERNS]; } list;

static int find(const list *l, const hd_pattern *p, int64_t queries, int64_t keys)
{
    for (int i = 0; i < l->count; i++)
        if (l->item[i].queries == queries && l->item[i].keys == keys && hd_pattern_equal(l->item[i].pattern, p)) return i;
    return -1;
}

static const hd_program *forward(const hd_model *m)
{
    for (int i = 0; m->graph->kind == HD_KIND_LANGUAGE_MODEL && i < m->programs; i++)
        if (!strcmp(m->program[i]->entry->name, "forward")) return m->program[i];
    return NULL;
}

static const hd_pattern *pattern_of(const hd_node *n, int head) { return n->attr.attention.pattern[n->attr.attention.patterns > 1 ? head : 0]; }

static void collect(list *l, const hd_model *m)
{
    const hd_graph *g = m->graph;
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_attention) continue;
        const int64_t q = n->input[0]->shape.size[n->input[0]->shape.rank - 2], k = n->input[1]->shape.size[n->input[1]->shape.rank - 2];
        for (int h = 0; h < n->attr.attention.patterns; h++) {
            const hd_pattern *p = n->attr.attention.pattern[h];
            if (find(l, p, q, k) < 0 && l->count < MAX_PATTERNS) l->item[l->count++] = (pattern){ p, q, k, NULL };
        }
    }
    const hd_program *p = forward(m);
    for (int i = 0; p && i < p->steps; i++) {
        const hd_attention *a = p->step[i].attention;
        for (int h = 0; a && h < a->heads; h++) {
            const int at = find(l, pattern_of(p->step[i].attends, h), a->queries, a->keys);
            if (at >= 0) l->item[at].cover = a->cover[a->cover_of_head ? a->cover_of_head[h] : 0];
        }
    }
}

static const char *affine(hd_affine a) { return hd_format("{ %lld, %lld, %lld, %d }", LL(a.base), LL(a.per_group), LL(a.per_outer), a.table); }

static void families(hd_text *out, int number, const hd_cover *c)
{
    for (int i = 0; i < c->families; i++) {
        const hd_family *f = &c->family[i];
        if (!f->table) continue;
        hd_text_add(out, "static const int64_t table_%d_%d[] = {", number, i);
        for (int64_t k = 0; k <= f->groups / f->inner; k++) hd_text_add(out, "%s%lld,", k % 16 ? " " : "\n    ", LL(f->table[k]));
        hd_text_add(out, "\n};\n");
    }
    hd_text_add(out, "static const hd_family families_%d[] = {\n", number);
    for (int i = 0; i < c->families; i++) {
        const hd_family *f = &c->family[i];
        hd_text_add(out, "    /* %s */\n    { %lld, %lld, %s, %s, %s, %s, %lld, %lld, %lld,\n      %s, %s, %lld, %lld, %lld, %lld, %lld, %lld, %s },\n", hd_comment(f->what), LL(f->groups), LL(f->inner),
                    affine(f->q_start), affine(f->q_end), affine(f->k_start), affine(f->k_end), LL(f->q_step), LL(f->k_step), LL(f->k_run), affine(f->lo), affine(f->hi),
                    LL(f->lo_mul), LL(f->lo_div), LL(f->lo_phase), LL(f->hi_mul), LL(f->hi_div), LL(f->hi_phase), f->table ? hd_format("table_%d_%d", number, i) : "NULL");
    }
    hd_text_add(out, "};\n");
}

/* One number of the rows' string: octal escapes, as long as any, so that no digit that follows can join one. */
static void number_text(hd_text *out, int64_t value, int64_t *bytes)
{
    do {
        const unsigned low = (unsigned)(value & 127) | (value > 127 ? 128u : 0u);
        const char text[4] = { '\\', (char)('0' + (low >> 6)), (char)('0' + (low >> 3 & 7)), (char)('0' + (low & 7)) };
        hd_text_addn(out, text, 4);
        if (++*bytes % 32 == 0) hd_text_addn(out, "\"\n    \"", 7);
        value >>= 7;
    } while (value);
}

static bool rows(hd_text *out, int number, const hd_cover *c)
{
    const hd_key_rows *r = c->rows;
    if (c->queries + r->start[c->queries] > MAX_ROWS_BYTES / 2) return false;
    int64_t bytes = 0;
    hd_text_add(out, "static const char rows_%d[] =\n    \"", number);
    for (int64_t i = 0; i < c->queries; i++) {
        int64_t at = 0;
        number_text(out, r->start[i + 1] - r->start[i], &bytes);
        for (int64_t k = r->start[i]; k < r->start[i + 1]; k++) {
            number_text(out, r->run[k].first - at, &bytes);
            number_text(out, r->run[k].end - r->run[k].first, &bytes);
            at = r->run[k].end;
        }
    }
    hd_text_add(out, "\";\n");
    return true;
}

/* ---- the attention ops ---- */

static const char *operand_at(const hd_buffer *b, int64_t element, int64_t head, int64_t row)
{
    const char *place = b->area == HD_AREA_SCRATCH ? "HD_IN_SCRATCH" : b->area == HD_AREA_WEIGHTS ? "HD_IN_WEIGHTS" : "HD_IN_TENSOR";
    return hd_format("{ %s, %d, %lld, %lld, %lld }", place, b->area == HD_AREA_ARGUMENT ? b->argument : 0, LL((b->area == HD_AREA_ARGUMENT ? 0 : b->offset) + 4 * element), LL(head), LL(row));
}

/* Operands that follow v, in the order of their bits; `row` is 1 for those that have a row of numbers for each head or none. */
static const char *extra(const hd_step *s, const hd_attention *a, unsigned bit)
{
    if (!(a->with & bit)) return "{ 0 }";
    int at = 5;                                /* sequences, used, q, k, v */
    for (unsigned before = 1; before < bit; before <<= 1) at += (a->with & before) != 0;
    const hd_view *v = &s->argument[at].view;
    if (!v->buffer) return "{ 0 }";
    const int64_t head = bit == HD_WITH_SINKS ? 1 : bit == HD_WITH_BIAS ? a->buckets->buckets : bit == HD_WITH_EDGE_BIAS ? a->edge_bias_stride : 0;
    return operand_at(v->buffer, v->offset, head, bit == HD_WITH_BOUNDS ? 2 : 1);
}

static void attention_row(hd_text *table, hd_text *out, const list *l, const hd_program *p, int step, int number)
{
    const hd_step *s = &p->step[step];
    const hd_attention *a = s->attention;
    hd_text_add(out, "static const int heads_%d[] = { ", number);
    for (int h = 0; h < a->heads; h++) hd_text_add(out, "%d, ", find(l, pattern_of(s->attends, h), a->queries, a->keys));
    hd_text_add(out, "};\n");
    if (a->alibi) {
        hd_text_add(out, "static const double alibi_%d[] = { ", number);
        for (int h = 0; h < a->heads; h++) hd_text_add(out, "%.17g, ", a->alibi[h]);
        hd_text_add(out, "};\n");
    }
    const hd_buckets *b = a->with & HD_WITH_BIAS ? a->buckets : NULL;
    if (b) {
        hd_text_add(out, "static const int32_t buckets_%d[] = {", number);
        for (int64_t i = 0; i < b->count; i++) hd_text_add(out, "%s%d,", i % 24 ? " " : "\n    ", b->bucket[i]);
        hd_text_add(out, "\n};\n");
    }
    const hd_view *q = &s->argument[2].view, *k = &s->argument[3].view;
    hd_text_add(table, "    { %s, %s, %d, %lld, %lld, %lld, %lld, %lld, %.17g, %.17g, %s, %lld, %lld, %lld, %s, heads_%d,\n", hd_quoted(s->attends->name ? s->attends->name : ""),
                hd_quoted(hd_format("%s:%d", s->where.file ? s->where.file : "", s->where.line)), step, LL(a->heads), LL(a->kv_heads), LL(a->head_dim), LL(a->queries), LL(a->keys), a->scale, a->softcap,
                a->alibi ? hd_format("alibi_%d", number) : "NULL", LL(a->offset), LL(b ? b->first : 0), LL(b ? b->count : 0), b ? hd_format("buckets_%d", number) : "NULL", number);
    hd_text_add(table, "      %s, %s, %s, %s, %s, %s, %s },\n", operand_at(q->buffer, q->offset, a->q.head, a->q.row), operand_at(k->buffer, k->offset, a->k.head, a->k.row),
                extra(s, a, HD_WITH_SINKS), extra(s, a, HD_WITH_BIAS), extra(s, a, HD_WITH_KEY_BIAS), extra(s, a, HD_WITH_EDGE_BIAS), extra(s, a, HD_WITH_BOUNDS));
}

void hd_emit_patterns(hd_text *out, const hd_model *m)
{
    list l = { 0 };
    collect(&l, m);
    hd_text table = { 0 };
    for (int i = 0; i < l.count; i++) {
        const pattern *p = &l.item[i];
        const int64_t kept = hd_pattern_kept_pairs(p->pattern, p->queries, p->keys);
        hd_text_add(&table, "    { %s, %lld, %lld, %lld, %.17g, ", hd_quoted(hd_pattern_text(p->pattern)), LL(p->queries), LL(p->keys), LL(kept), (double)kept / ((double)p->queries * (double)p->keys));
        const bool listed = p->cover && p->cover->rows && rows(out, i, p->cover);
        const bool tiles = p->cover && !p->cover->rows;
        if (tiles) families(out, i, p->cover);
        hd_text_add(&table, "%d, %s, %s },\n", tiles ? p->cover->families : 0, tiles ? hd_format("families_%d", i) : "NULL", listed ? hd_format("rows_%d", i) : "NULL");
    }
    hd_text_add(out, "static const hd_pattern_info patterns[] = {\n%s    { 0 }\n};\n\n", table.data ? table.data : "");

    const hd_program *p = forward(m);
    const hd_attention *last = NULL;           /* an op may take several calls, which share what it became */
    int number = 0;
    hd_text attentions = { 0 };
    for (int i = 0; p && i < p->steps; i++) {
        const hd_attention *a = p->step[i].attention;
        if (a && a != last) attention_row(&attentions, out, &l, p, i, number++);
        last = a ? a : last;
    }
    hd_text_add(out, "static const hd_attention_info attentions[] = {\n%s    { 0 }\n};\n\n", attentions.data ? attentions.data : "");
}
