/* The entry functions and the kernels of one model. */
#include "write.h"
#include "../passes/decode.h"
#include <string.h>

static const char *address(const hd_model *m, const hd_program *p, const hd_argument *a)
{
    const hd_buffer *b = a->view.buffer;
    const long long at = (long long)(b->offset + 4 * a->view.offset);
    if (b->area != HD_AREA_ARGUMENT && !strstr(a->type, "float")) {
        hd_argument plain = *a;
        plain.type = "float *";
        return hd_format("(void *)%s", address(m, p, &plain));
    }
    switch (b->area) {
    case HD_AREA_SCRATCH: return hd_format("S(%lld)", at);
    case HD_AREA_WEIGHTS: return hd_format("W(%lld)", at);
    case HD_AREA_PACKED: return hd_format("P(%lld)", at);
    case HD_AREA_CACHE: return hd_format("C(%lld)", at);
    case HD_AREA_GRADIENTS: return hd_format("G(%lld)", at);
    case HD_AREA_MOMENT_1: return hd_format("G(%lld)", (long long)m->weights_bytes + at);
    case HD_AREA_MOMENT_2: return hd_format("G(%lld)", 2 * (long long)m->weights_bytes + at);
    case HD_AREA_ARGUMENT: break;
    }
    const hd_entry *e = p->entry;
    const hd_node *n = b->argument < e->inputs ? e->input[b->argument] : e->output[b->argument - e->inputs].node;
    const char *name = hd_emit_argument(e, b->argument);
    if (a->view.offset) name = hd_format("%s + %lld", name, (long long)a->view.offset);
    return strstr(a->type, hd_emit_type(n)) ? name : hd_format("(%svoid *)(%s)", a->writes ? "" : "const ", name);      /* copies move i32 as 32-bit words */
}

static const char *amount(double flops)
{
    return flops >= 1e9 ? hd_format("%.1f Gflop", flops / 1e9) : flops >= 1e6 ? hd_format("%.1f Mflop", flops / 1e6) : flops >= 1e3 ? hd_format("%.0f kflop", flops / 1e3) : "";
}

enum { PART_LINES = 48 };      /* compilers take more than twice the time over a function of twice the calls */

/* Prefill: what follows this step is for the logits alone, which no chunk but the last is asked for. */
static int last_of_cache(const hd_program *p)
{
    const hd_decoding *d = p->graph ? p->graph->decoding : NULL;
    int last = d && p->entry == d->prefill ? 0 : p->steps;
    for (int k = last; k < p->steps; k++) {
        const hd_op op = p->step[k].node ? p->step[k].node->op : HD_OP_input;
        if (op == HD_OP_attention_cached || op == HD_OP_shift_cached) last = k + 1;
    }
    return last;
}

/* The calls of a long entry, as functions of their own, and what they share. */
static void emit_parts(hd_text *out, const hd_model *m, const hd_program *p, const hd_call *call)
{
    const int stop = last_of_cache(p);
    const hd_entry *e = p->entry;
    const char *entry = hd_emit_function(e);
    hd_text_add(out, "typedef struct %s_arguments {\n    hd_run run;\n    const %s_memory *memory;\n    unsigned char *scratch;\n", entry, m->kernels.prefix);
    for (int i = 0; i < e->inputs; i++) hd_text_add(out, "    const %s *%s;\n", hd_emit_type(e->input[i]), hd_emit_argument(e, i));
    for (int i = 0; i < e->outputs; i++) hd_text_add(out, "    %s *%s;\n", hd_emit_type(e->output[i].node), hd_emit_argument(e, e->inputs + i));
    hd_text_add(out, "%s} %s_arguments;\n\n", e->decodes ? "    int stream, used, rows;\n" : p->row_limited ? "    int sequences, used, rows;\n" : "", entry);
    int number = 0;
    for (int k = 0; k < p->steps; ) {
        hd_text body = { 0 };
        k += hd_emit_calls(&body, &call[k], (k < stop ? stop : p->steps) - k, PART_LINES);
        hd_text_add(out, "static int %s_part_%d(const %s_arguments *all)\n{\n    const hd_run run = all->run;\n", entry, ++number, entry);
        hd_text_add(out, "    const %s_memory *const memory = all->memory;\n    unsigned char *const scratch = all->scratch;\n    (void)memory, (void)scratch;\n", m->kernels.prefix);
        for (int i = 0; i < e->inputs + e->outputs; i++) {
            const char *name = hd_emit_argument(e, i);
            if (!strstr(body.data, name)) continue;
            const bool input = i < e->inputs;
            hd_text_add(out, "    %s%s *const %s = all->%s;\n    (void)%s;\n", input ? "const " : "", hd_emit_type(input ? e->input[i] : e->output[i - e->inputs].node), name, name, name);
        }
        if (e->decodes) hd_text_add(out, "    const int stream = all->stream, used = all->used, rows = all->rows;\n    (void)stream, (void)used, (void)rows;\n");
        else if (p->row_limited) hd_text_add(out, "    const int sequences = all->sequences, used = all->used, rows = all->rows;\n    (void)sequences, (void)used, (void)rows;\n");
        hd_text_add(out, "%s    return HD_OK;\n}\n\n", body.data);
    }
}

/* Ids beyond the table that they index, by an input as it is: the other uses of integers give every number a meaning. */
static int64_t id_limit(const hd_graph *g, const hd_node *input)
{
    int64_t limit = INT32_MAX;
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_embedding) continue;
        const hd_node *ids = n->input[1];
        while (ids->op == HD_OP_reshape) ids = ids->input[0];
        if (ids == input && n->input[0]->shape.size[0] < limit) limit = n->input[0]->shape.size[0];
    }
    return limit;
}

/* All that can be wrong with a call, before anything is written. */
static void emit_checks(hd_text *out, const hd_model *m, const hd_program *p)
{
    static const struct { hd_area area; const char *name; } areas[] = {
        { HD_AREA_WEIGHTS, "weights" }, { HD_AREA_GRADIENTS, "state" }, { HD_AREA_MOMENT_1, "state" }, { HD_AREA_MOMENT_2, "state" }, { HD_AREA_PACKED, "packed" }, { HD_AREA_CACHE, "cache" },
    };
    const hd_graph *g = m->graph;
    const hd_entry *e = p->entry;
    const char *up = hd_emit_upper(m->kernels.prefix), *entry = hd_emit_upper(e->name);
    if (p == &m->packing.program) hd_text_add(out, "    if (threads && threads->count < 1) return HD_ERROR_THREADS;\n");
    else hd_text_add(out, "    const int error = hd_check_call(threads, scratch, memory->scratch_bytes, %s_%s_SCRATCH_BYTES, %s_%s_THREAD_BYTES);\n    if (error) return error;\n", up, entry, up, entry);
    const char *before = "";
    for (unsigned i = 0; i < sizeof areas / sizeof *areas; i++) {
        bool used = false;
        for (int k = 0; k < p->steps; k++)
            for (int a = 0; a < p->step[k].arguments; a++) used = used || (p->step[k].argument[a].view.buffer && p->step[k].argument[a].view.buffer->area == areas[i].area);
        if (used && strcmp(areas[i].name, before)) hd_text_add(out, "    if (hd_bad_area(memory->%s)) return HD_ERROR_MEMORY;\n", before = areas[i].name);
    }
    if (e->decodes) return;            /* the rest is known: emit/decode.c */
    if (e->inputs + e->outputs) hd_text_add(out, "    if (");
    for (int k = 0; k < e->inputs + e->outputs; k++) hd_text_add(out, "%s!%s", k ? " || " : "", hd_emit_argument(e, k));
    if (e->inputs + e->outputs) hd_text_add(out, ") return HD_ERROR_ARGUMENT;\n");
    if (e->causal) {
        const long long batch = (long long)g->batch, length = (long long)g->length;
        hd_text_add(out, "    if (sequences < 0 || sequences > %lld || used < 0 || used > %lld) return HD_ERROR_ARGUMENT;\n    if (!sequences) sequences = %lld;\n    if (!used) used = %lld;\n",
                    batch, length, batch, length);
    }
    for (int k = 0; k < e->inputs; k++) {
        const hd_shape *s = &e->input[k]->shape;
        const int64_t limit = e->input[k]->dtype == HD_I32 ? id_limit(g, e->input[k]) : INT32_MAX, elements = hd_elements(s);
        if (limit == INT32_MAX) continue;
        const bool limited = e->causal && s->rank == 2 && s->size[0] == g->batch && s->size[1] == g->length;
        if (limited) hd_text_add(out, "    if (hd_bad_ids(%s, sequences, used, %lld, %lld)) return HD_ERROR_ARGUMENT;\n", hd_emit_argument(e, k), (long long)g->length, (long long)limit);
        else hd_text_add(out, "    if (hd_bad_ids(%s, 1, %lld, 0, %lld)) return HD_ERROR_ARGUMENT;\n", hd_emit_argument(e, k), (long long)elements, (long long)limit);
    }
}

/* Where a cancelled entry can no longer stop: weights change from this step on, all or none. */
static int first_change(const hd_program *p)
{
    for (int k = 0; k < p->steps; k++)
        for (int a = 0; a < p->step[k].arguments; a++) {
            const hd_argument *x = &p->step[k].argument[a];
            const hd_area area = x->view.buffer ? x->view.buffer->area : HD_AREA_SCRATCH;
            if (x->writes && (area == HD_AREA_WEIGHTS || area == HD_AREA_MOMENT_1 || area == HD_AREA_MOMENT_2)) return k;
        }
    return p->steps;
}

/* One function: checks, then the calls. */
static void emit_program(hd_text *out, const hd_model *m, const hd_program *p)
{
    const hd_graph *g = m->graph;
    const hd_entry *e = p->entry;
    const char *up = hd_emit_upper(m->kernels.prefix), *entry = hd_emit_upper(e->name);
    hd_call *call = HD_NEW_ARRAY(hd_call, p->steps);
    const int change = first_change(p);
    for (int k = 0; k < p->steps; k++) {
        const hd_step *s = &p->step[k];
        call[k] = (hd_call){ hd_format("%s   %s:%d  %s", hd_comment(s->label), hd_comment(s->where.file), s->where.line, amount(s->flops)), s->kernel->name, s->arguments, HD_NEW_ARRAY(const char *, s->arguments), k <= change };
        for (int a = 0; a < s->arguments; a++) call[k].argument[a] = s->argument[a].text ? s->argument[a].text : address(m, p, &s->argument[a]);
    }
    static const char no_logits[] = "    if (!logits) return HD_OK;\n";
    const int stop = last_of_cache(p);
    hd_text body = { 0 };
    const int done = hd_emit_calls(&body, call, p->steps, PART_LINES);
    const bool parts = done < p->steps;
    if (parts) emit_parts(out, m, p, call);
    if (e->decodes) hd_text_add(out, "HD_HIDDEN ");
    hd_emit_prototype(out, m, e);
    const bool packs = p == &m->packing.program;
    hd_text_add(out, "\n{\n");
    if (!packs || parts) hd_text_add(out, "    unsigned char *const scratch = %s;\n", packs ? "NULL" : "memory->scratch");
    emit_checks(out, m, p);
    if (packs) hd_text_add(out, "    const hd_run run = { threads, NULL, 0 };\n");
    else if (!p->scratch_bytes) hd_text_add(out, "    const hd_run run = { threads, scratch, %s_%s_THREAD_BYTES };\n", up, entry);
    else hd_text_add(out, "    const hd_run run = { threads, scratch + %s_%s_SCRATCH_BYTES, %s_%s_THREAD_BYTES };\n", up, entry, up, entry);
    if (e->decodes) hd_text_add(out, "    const int rows = used;\n    (void)stream, (void)rows;\n");
    else if (p->row_limited) hd_text_add(out, "    const int rows = (sequences - 1) * %lld + used;\n", (long long)g->length);
    if (parts) {
        hd_text_add(out, "    const %s_arguments all = { run, memory, scratch", hd_emit_function(e));
        for (int k = 0; k < e->inputs + e->outputs; k++) hd_text_add(out, ", %s", hd_emit_argument(e, k));
        hd_text_add(out, "%s };\n", e->decodes ? ", stream, used, rows" : p->row_limited ? ", sequences, used, rows" : "");
        int count = 0;
        for (int k = 0; k < p->steps; k += hd_emit_calls(&(hd_text){ 0 }, &call[k], (k < stop ? stop : p->steps) - k, PART_LINES)) {
            if (k == stop) hd_text_add(out, "%s", no_logits);
            hd_text_add(out, "    if (%s_part_%d(&all)) return HD_CANCELLED;\n", hd_emit_function(e), ++count);
        }
    } else {
        body = (hd_text){ 0 };
        for (int k = 0; k < p->steps; k += hd_emit_calls(&body, &call[k], (k < stop ? stop : p->steps) - k, PART_LINES)) if (k == stop) hd_text_add(&body, "%s", no_logits);
        hd_text_add(out, "\n%s", body.data ? body.data : "");
    }
    hd_text_add(out, "    return HD_OK;\n}\n\n");
}

static void emit_entries(hd_model *m)
{
    hd_text out = { 0 };
    hd_text_add(&out, "/* %s.c: %s */\n#include \"%s.h\"\n#include \"%s_kernels.h\"\n\n", m->kernels.prefix,
                hd_emit_banner(m, "The entries: one line for each step, in the order they run.\n * S scratch, W weights, P packed weights, G gradients and moments, C cache, by byte offset."), m->kernels.prefix, m->kernels.prefix);
    hd_text_add(&out, "#define S(offset) ((float *)(void *)(scratch + (offset)))\n#define W(offset) ((float *)(void *)((unsigned char *)memory->weights + (offset)))\n"
                      "#define P(offset) ((float *)(void *)((unsigned char *)memory->packed + (offset)))\n#define G(offset) ((float *)(void *)((unsigned char *)memory->state + (offset)))\n%s\n",
                m->graph->decoding ? hd_format("#define C(offset) ((float *)(void *)((unsigned char *)memory->cache + %lld + (offset)))\n", (long long)m->graph->decoding->header_bytes) : "");
    for (int i = 0; i < m->programs; i++) {
        const hd_program *p = m->program[i];
        double flops = 0;
        for (int k = 0; k < p->steps; k++) flops += p->step[k].flops;
        hd_text_add(&out, "/* %s: %d steps, %s, %lld bytes of scratch where no plan can do with less than %lld. */\n", hd_comment(p->entry->name), p->steps, amount(flops),
                    (long long)p->scratch_bytes, (long long)p->lower_bound_bytes);
        emit_program(&out, m, p);
    }
    if (m->packing.count) {
        m->packing.program.entry = &hd_emit_pack_entry;
        hd_text_add(&out, "/* Weights as panels: %d steps. */\n", m->packing.program.steps);
        emit_program(&out, m, &m->packing.program);
    } else {
        hd_emit_prototype(&out, m, &hd_emit_pack_entry);
        hd_text_add(&out, "\n{\n    (void)memory;\n    return threads && threads->count < 1 ? HD_ERROR_THREADS : HD_OK;\n}\n\n");
    }
    hd_emit_decode_functions(&out, m);
    if (m->weights_bytes) hd_emit_packed_check(&out, m);
    hd_text_add(&out, "const char *%s_error(int error) { return hd_error_text(error); }\n", m->kernels.prefix);
    hd_emit_file(m, hd_format("%s.c", m->kernels.prefix), out.data, false);
}

/* Which file a kernel goes to. A compiler takes about a tenth of a second to start, so small kernels share one; but for those that hold
 * tables of the model's tensors, so that more layers change no other file. */
static const char *file_kind(const hd_kernel *k)
{
    static const char *const own[] = { "product", "attention_fwd", "attention_bwd", "optimiser" };
    for (unsigned i = 0; i < sizeof own / sizeof *own; i++) if (!strcmp(k->template_name, own[i])) return own[i];
    return "rows";
}

/* Files are cut where they would take one core much longer than the others. */
static void emit_kernels(hd_model *m, hd_expander *x)
{
    enum { FILE_CHARACTERS = 40000 };
    hd_text proto = { 0 };
    hd_text_add(&proto, "/* %s_kernels.h: %s */\n#include \"hd_core.h\"\n\n#if defined(__GNUC__)\n#define HD_HIDDEN __attribute__((visibility(\"hidden\")))\n#else\n#define HD_HIDDEN\n#endif\n\n",
                m->kernels.prefix, hd_emit_banner(m, "Every kernel instance; each is defined in the file of its kind."));
    for (int i = 0; i < m->kernels.count; i++) hd_text_add(&proto, "HD_HIDDEN void %s(%s);\n", m->kernels.kernel[i]->name, m->kernels.kernel[i]->signature);
    static const char *const kinds[] = { "attention_fwd", "attention_bwd", "product", "rows", "optimiser" };
    for (unsigned kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        int number = 0;
        hd_text out = { 0 };
        for (int i = 0; i <= m->kernels.count; i++) {
            const hd_kernel *k = i < m->kernels.count ? m->kernels.kernel[i] : NULL;
            if (k && strcmp(file_kind(k), kinds[kind])) continue;
            if (out.data && (!k || out.length > FILE_CHARACTERS)) {
                hd_emit_file(m, number ? hd_format("%s_%s_%d.c", m->kernels.prefix, kinds[kind], number) : hd_format("%s_%s.c", m->kernels.prefix, kinds[kind]), out.data, false);
                number++;
                out = (hd_text){ 0 };
            }
            if (!k) continue;
            if (!out.data)
                hd_text_add(&out, "/* %s */\n#define HD_VL %d\n#include \"hd_vec.h\"\n#include \"%s_kernels.h\"\n\n", hd_emit_banner(m, "Kernels, one function each."), m->target->vl, m->kernels.prefix);
            hd_text_add(&out, "/* from %s.c.tmpl for %s:%d */\n%s\n", k->template_name, hd_comment(k->where.file), k->where.line, hd_kernel_text(x, &m->kernels, k));
        }
    }
    hd_emit_file(m, hd_format("%s_kernels.h", m->kernels.prefix), proto.data, true);
}

void hd_emit(hd_model *m, hd_expander *x, bool info, const char *compiler)
{
    hd_emit_header(m);
    emit_entries(m);
    emit_kernels(m, x);
    if (info) hd_emit_info(m, compiler);
    if (info && m->tokenizer && !m->part) hd_emit_tokenizer(m);
}
