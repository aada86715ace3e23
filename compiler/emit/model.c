/* The header, the entry functions and the program's table of one model. */
#include "emit.h"
#include "../pattern/pattern.h"
#include "../tune/tune.h"
#include <ctype.h>
#include <limits.h>
#include <string.h>

const char *hd_comment(const char *text)
{
    char *out = hd_strdup(text ? text : "");
    for (char *c = out; *c; c++) {
        if (*c == '*' && c[1] == '/') *c = '+';
        if (*c == '/' && c[1] == '*') *c = '+';
        if ((unsigned char)*c < ' ' || *c == 127 || *c == '\\') *c = ' ';
    }
    return out;
}

static const char *upper(const char *text)
{
    char *out = hd_strdup(text);
    for (char *c = out; *c; c++) *c = (char)(isalnum((unsigned char)*c) ? toupper((unsigned char)*c) : '_');
    return out;
}

const char *hd_quoted(const char *text)
{
    hd_text out = { 0 };
    hd_text_add(&out, "\"");
    for (const unsigned char *c = (const unsigned char *)(text ? text : ""); *c; c++) {
        if (*c == '"' || *c == '\\' || *c == '?') hd_text_add(&out, "\\%c", *c);
        else if (*c < ' ' || *c >= 127) hd_text_add(&out, "\\%03o", *c);
        else hd_text_addn(&out, (const char *)c, 1);
    }
    hd_text_add(&out, "\"");
    return out.data;
}

static void add_file(hd_model *m, const char *name, const char *text, bool header)
{
    HD_PUSH(m->file, m->files, m->file_capacity, ((hd_file){ name, text, header, 0 }));
}

static const char *header_line(const hd_model *m, const char *what)
{
    return hd_format("made by heddle %s for %s (target %s). Edits here are lost: edit the spec.\n * %s", m->version, hd_comment(m->graph->spec), m->target->name, what);
}

static void constant(hd_text *out, const char *name, int64_t value, const char *comment)
{
    const char *text = value <= INT_MAX ? hd_format("enum { %s = %lld };", name, (long long)value) : hd_format("#define %s ((size_t)%lldu)", name, (long long)value);
    hd_text_add(out, "%-64s /* %s */\n", text, comment);
}

static const char *dims(const hd_shape *s)
{
    hd_text out = { 0 };
    hd_text_add(&out, "%s", "");
    for (int i = 0; i < s->rank; i++) hd_text_add(&out, "[%lld]", (long long)s->size[i]);
    return out.data;
}

static const char *c_name(const char *name)
{
    char *out = hd_strdup(name);
    for (char *c = out; *c; c++) if (!isalnum((unsigned char)*c)) *c = '_';
    static const char *const taken[] = { "memory", "threads", "pack", "all", "i", "int64_t", "INT64_C", "_Bool", "_Complex", "_Imaginary", "_Generic", "_Atomic", "_Alignas", "_Alignof", "_Noreturn", "_Static_assert", "_Thread_local", "sequences", "used", "run", "rows", "scratch", "S", "W", "P", "G", "NULL", "size_t", "int32_t", "uintptr_t", "hd_run", "hd_threads", "asm", "typeof", "do", "int", "float", "for", "if", "while", "auto", "long",
                                         "new", "class", "this", "delete", "template", "operator", "private", "public", "default", "const", "return", "short", "signed", "union", "struct", "enum", "case", "char", "double", "else", "goto", "void", "break", "static", "switch", "register", "inline", "extern", "continue", "volatile", "unsigned", "sizeof", "typedef", "restrict", "bool", "true", "false", "namespace", "using", "virtual", "try", "catch", "throw", "and", "or", "not", "xor", "export", "friend", "mutable", "typename", "explicit", "protected", "constexpr", "consteval", "constinit", "nullptr", "const_cast", "dynamic_cast", "static_cast", "reinterpret_cast", "decltype", "requires", "concept", "wchar_t", "char8_t", "char16_t", "char32_t", "alignas", "alignof", "noexcept", "static_assert", "thread_local", "typeid", "typeof_unqual", "bitand", "bitor", "compl", "and_eq", "or_eq", "not_eq", "xor_eq", "co_await", "co_return", "co_yield" };
    for (unsigned i = 0; i < sizeof taken / sizeof *taken; i++) if (!strcmp(out, taken[i])) return hd_format("%s_", out);
    return isdigit((unsigned char)*out) ? hd_format("t_%s", out) : out;
}

/* Argument k of an entry (inputs, then outputs): its own name, or that with a number if an earlier one has taken it. */
static const char *argument_name(const hd_entry *e, int k)
{
    static const hd_entry *of;
    static const char **name;
    if (of == e) return name[k];
    of = e;
    name = HD_NEW_ARRAY(const char *, e->inputs + e->outputs);
    for (int i = 0; i < e->inputs + e->outputs; i++) {
        const char *base = c_name(i < e->inputs ? e->input[i]->name : e->output[i - e->inputs].name);
        name[i] = base;
        for (int number = 2, j = 0; j < i; j++)
            if (!strcmp(name[j], name[i])) name[i] = hd_format("%s_%d", base, number++), j = -1;
    }
    return name[k];
}

/* What stands for an entry where the weights are packed. */
static const hd_entry pack_entry = { .name = "pack" };
static const char *function_name(const hd_entry *e) { return e == &pack_entry ? e->name : c_name(e->name); }

static const char *tensor_type(const hd_node *n) { return n->dtype == HD_I32 ? "int32_t" : "float"; }

static void prototype(hd_text *out, const hd_model *m, const hd_entry *e)
{
    hd_text_add(out, "int %s_%s(const %s_memory *memory, const hd_threads *threads", m->kernels.prefix, function_name(e), m->kernels.prefix);
    for (int i = 0; i < e->inputs; i++)
        hd_text_add(out, ", const %s *%s", tensor_type(e->input[i]), argument_name(e, i));
    for (int i = 0; i < e->outputs; i++)
        hd_text_add(out, ", %s *%s", tensor_type(e->output[i].node), argument_name(e, e->inputs + i));
    if (e->causal) hd_text_add(out, ", int sequences, int used");
    hd_text_add(out, ")");
}

static bool trains(const hd_entry *e) { return e->effects > 0; }

static void emit_header(hd_model *m)
{
    const hd_graph *g = m->graph;
    const char *up = upper(m->kernels.prefix);
    hd_text out = { 0 };
    const char *tuned = hd_tuning_note(m->kernels.tuning);
    hd_text_add(&out, "/* %s.h: %s%s%s\n *\n", m->kernels.prefix, header_line(m, "The whole interface of one model."), *tuned ? "\n * " : "", tuned);
    hd_text_add(&out,
        " * The caller owns every byte. Weights, packed weights, state and scratch are 64-byte aligned blocks of the sizes below; nothing is\n"
        " * allocated, printed or kept between calls. Functions are re-entrant: several threads may call at once, each with its own scratch\n"
        " * (and, for training, its own weights and state). Results are the same bits for any number of threads.\n"
        " * Every function returns 0, or -1 when threads->count is below 1, the scratch is not 64-byte aligned, or there are no packed weights\n"
        " * where they are read; then nothing was written.\n */\n");
    hd_text_add(&out, "#ifndef HEDDLE_%s_H\n#define HEDDLE_%s_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n", up, up);
    if (g->length) constant(&out, hd_format("%s_LENGTH", up), g->length, "positions of one sequence");
    if (g->vocab) constant(&out, hd_format("%s_VOCAB", up), g->vocab, "token ids are 0 .. VOCAB - 1");
    if (g->batch) constant(&out, hd_format("%s_BATCH", up), g->batch, "sequences of one call");
    constant(&out, hd_format("%s_WEIGHTS_BYTES", up), m->weights_bytes, "weights, laid out as in the table below");
    constant(&out, hd_format("%s_PACKED_BYTES", up), m->packing.bytes, hd_format("weights as entries that do not train read them: %s_pack", m->kernels.prefix));
    constant(&out, hd_format("%s_STATE_BYTES", up), m->state_bytes, "gradients and moments; entries that train need it");
    int64_t scratch = 0, local = 0;
    for (int i = 0; i < m->programs; i++) {
        const hd_program *p = m->program[i];
        const char *entry = upper(p->entry->name);
        constant(&out, hd_format("%s_%s_SCRATCH_BYTES", up, entry), p->scratch_bytes, hd_format("scratch of %s, to which", hd_comment(p->entry->name)));
        constant(&out, hd_format("%s_%s_THREAD_BYTES", up, entry), p->local_bytes, "this is added for each thread");
        if (p->scratch_bytes > scratch) scratch = p->scratch_bytes;
        if (p->local_bytes > local) local = p->local_bytes;
    }
    constant(&out, hd_format("%s_SCRATCH_BYTES", up), scratch, "enough for any entry, plus");
    constant(&out, hd_format("%s_THREAD_BYTES", up), local, "this for each thread");
    hd_text_add(&out,
        "\n/* Threads, lent by the caller; NULL wherever it is taken: the calling thread alone. Shared by all models of a program.\n"
        " * run calls task(argument, slot, thread) once for every slot in [0, slots), thread < count, and returns when all have returned. */\n"
        "#ifndef HD_THREADS_DEFINED\n#define HD_THREADS_DEFINED\ntypedef struct hd_threads {\n    void *context;\n    int count;\n"
        "    void (*run)(void *context, void (*task)(void *argument, int slot, int thread), void *argument, int slots);\n} hd_threads;\n#endif\n\n");
    hd_text_add(&out, "typedef struct %s_memory {\n    void *weights;      /* %s_WEIGHTS_BYTES; written only by entries that train */\n"
                      "    void *state;        /* %s_STATE_BYTES, zeroed before the first step; NULL for entries that do not train */\n"
                      "    void *scratch;      /* SCRATCH_BYTES + threads * THREAD_BYTES; contents never matter between calls */\n"
                      "    void *packed;       /* %s_PACKED_BYTES, written by %s_pack only; NULL for entries that do not read it */\n} %s_memory;\n\n", m->kernels.prefix, up, up, up, m->kernels.prefix, m->kernels.prefix);
    hd_text_add(&out, "/* %s\nint %s_pack(const %s_memory *memory, const hd_threads *threads);\n\n",
                m->packing.bytes ? "pack\n * Fills memory->packed from memory->weights; reads no other member. To be called once after weights were loaded or changed,\n"
                                   " * before entries that read packed weights. One packed copy serves any number of callers at once.\n */"
                                 : "pack\n * No entry of this model reads packed weights: there is nothing to do, and memory->packed may be NULL.\n */", m->kernels.prefix, m->kernels.prefix);
    for (int i = 0; i < m->programs; i++) {
        const hd_entry *e = m->program[i]->entry;
        hd_text_add(&out, "/* %s\n", hd_comment(e->name));
        for (int k = 0; k < e->inputs; k++) hd_text_add(&out, " *   %-14s in   %s %s\n", argument_name(e, k), e->input[k]->dtype == HD_I32 ? "int32" : "float", dims(&e->input[k]->shape));
        for (int k = 0; k < e->outputs; k++) hd_text_add(&out, " *   %-14s out  %s %s\n", argument_name(e, e->inputs + k), e->output[k].node->dtype == HD_I32 ? "int32" : "float", dims(&e->output[k].node->shape));
        if (trains(e))
            hd_text_add(&out, " *   Changes weights and state. hyper: learning rate, beta1, beta2, epsilon, decay, clip (0: off), 1 - beta1^t, 1 - beta2^t, the factor of the\n"
                              " *   gradients (1 / calls per step), accumulate (0 in the first call of a step, then 1), update (1 in the last call of a step, else 0), zeros.\n");
        if (m->program[i]->reads_packed) hd_text_add(&out, " *   Reads packed weights: %s_pack comes first.\n", m->kernels.prefix);
        if (e->causal) hd_text_add(&out, " *   sequences, used: the leading sequences, and positions of each, that matter; 0: all. Outputs beyond them are not to be read.\n");
        hd_text_add(&out, " */\n");
        prototype(&out, m, e);
        hd_text_add(&out, ";\n\n");
    }
    hd_text_add(&out, "/* The weights, by byte offset:\n");
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op == HD_OP_param && n->attr.param.role == HD_WEIGHT) hd_text_add(&out, " * %10lld  %s %s\n", (long long)m->weight_offset[i], hd_comment(n->name), dims(&n->shape));
    }
    if (m->packing.bytes) {
        hd_text_add(&out, " */\n\n/* The packed weights, by byte offset: a matrix [k][n], or [n][k] read as its transpose, as panels [ceil(n / p)][k][p] of floats, zeros\n"
                          " * beyond column n. Nothing in them is an address: a copy made elsewhere, or kept in a file, serves as well.\n");
        for (int i = 0; i < m->packing.count; i++) {
            const hd_panels *b = &m->packing.panels[i];
            hd_text_add(&out, " * %10lld  %s%s%s, k = %lld, n = %lld, p = %d\n", (long long)b->packed.buffer->offset, hd_comment(b->of.buffer->what),
                        b->of.offset ? hd_format(" from element %lld on", (long long)b->of.offset) : "", b->transposed ? " [n][k]" : " [k][n]", (long long)b->k, (long long)b->n, b->nr);
        }
    }
    hd_text_add(&out, " */\n\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
    add_file(m, hd_format("%s.h", m->kernels.prefix), out.data, true);
}

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
    case HD_AREA_GRADIENTS: return hd_format("G(%lld)", at);
    case HD_AREA_MOMENT_1: return hd_format("G(%lld)", (long long)m->weights_bytes + at);
    case HD_AREA_MOMENT_2: return hd_format("G(%lld)", 2 * (long long)m->weights_bytes + at);
    case HD_AREA_ARGUMENT: break;
    }
    const hd_entry *e = p->entry;
    const hd_node *n = b->argument < e->inputs ? e->input[b->argument] : e->output[b->argument - e->inputs].node;
    const char *name = argument_name(e, b->argument);
    if (a->view.offset) name = hd_format("%s + %lld", name, (long long)a->view.offset);
    return strstr(a->type, tensor_type(n)) ? name : hd_format("(%svoid *)(%s)", a->writes ? "" : "const ", name);      /* copies move i32 as 32-bit words */
}

static const char *amount(double flops)
{
    return flops >= 1e9 ? hd_format("%.1f Gflop", flops / 1e9) : flops >= 1e6 ? hd_format("%.1f Mflop", flops / 1e6) : flops >= 1e3 ? hd_format("%.0f kflop", flops / 1e3) : "";
}

enum { PART_LINES = 48 };      /* compilers take more than twice the time over a function of twice the calls */

/* The calls of a long entry, as functions of their own, and what they share. */
static void emit_parts(hd_text *out, const hd_model *m, const hd_program *p, const hd_call *call)
{
    const hd_entry *e = p->entry;
    const char *entry = function_name(e);
    hd_text_add(out, "typedef struct %s_arguments {\n    hd_run run;\n    const %s_memory *memory;\n    unsigned char *scratch;\n", entry, m->kernels.prefix);
    for (int i = 0; i < e->inputs; i++) hd_text_add(out, "    const %s *%s;\n", tensor_type(e->input[i]), argument_name(e, i));
    for (int i = 0; i < e->outputs; i++) hd_text_add(out, "    %s *%s;\n", tensor_type(e->output[i].node), argument_name(e, e->inputs + i));
    hd_text_add(out, "%s} %s_arguments;\n\n", p->row_limited ? "    int sequences, used, rows;\n" : "", entry);
    int number = 0;
    for (int k = 0; k < p->steps; ) {
        hd_text body = { 0 };
        k += hd_emit_calls(&body, &call[k], p->steps - k, PART_LINES);
        hd_text_add(out, "static void %s_part_%d(const %s_arguments *all)\n{\n    const hd_run run = all->run;\n", entry, ++number, entry);
        hd_text_add(out, "    const %s_memory *const memory = all->memory;\n    unsigned char *const scratch = all->scratch;\n    (void)memory, (void)scratch;\n", m->kernels.prefix);
        for (int i = 0; i < e->inputs + e->outputs; i++) {
            const char *name = argument_name(e, i);
            if (!strstr(body.data, name)) continue;
            const bool input = i < e->inputs;
            hd_text_add(out, "    %s%s *const %s = all->%s;\n    (void)%s;\n", input ? "const " : "", tensor_type(input ? e->input[i] : e->output[i - e->inputs].node), name, name, name);
        }
        if (p->row_limited) hd_text_add(out, "    const int sequences = all->sequences, used = all->used, rows = all->rows;\n    (void)sequences, (void)used, (void)rows;\n");
        hd_text_add(out, "%s}\n\n", body.data);
    }
}

/* One function: checks, then the calls. */
static void emit_program(hd_text *out, const hd_model *m, const hd_program *p)
{
    const hd_graph *g = m->graph;
    const hd_entry *e = p->entry;
    const char *up = upper(m->kernels.prefix), *entry = upper(e->name);
    hd_call *call = HD_NEW_ARRAY(hd_call, p->steps);
    for (int k = 0; k < p->steps; k++) {
        const hd_step *s = &p->step[k];
        call[k] = (hd_call){ hd_format("%s   %s:%d  %s", hd_comment(s->label), hd_comment(s->where.file), s->where.line, amount(s->flops)), s->kernel->name, s->arguments, HD_NEW_ARRAY(const char *, s->arguments) };
        for (int a = 0; a < s->arguments; a++) call[k].argument[a] = s->argument[a].text ? s->argument[a].text : address(m, p, &s->argument[a]);
    }
    hd_text body = { 0 };
    const int done = hd_emit_calls(&body, call, p->steps, PART_LINES);
    const bool parts = done < p->steps;
    if (parts) emit_parts(out, m, p, call);
    prototype(out, m, e);
    if (p == &m->packing.program) {
        hd_text_add(out, "\n{\n    if ((threads && threads->count < 1) || !memory->packed) return -1;\n    const hd_run run = { threads, NULL, 0 };\n");
        if (parts) hd_text_add(out, "    unsigned char *const scratch = NULL;\n");
    } else {
        hd_text_add(out, "\n{\n    unsigned char *const scratch = memory->scratch;\n    if ((threads && threads->count < 1) || (uintptr_t)scratch %% 64%s) return -1;\n", p->reads_packed ? " || !memory->packed" : "");
        hd_text_add(out, "    const hd_run run = { threads, scratch + %s_%s_SCRATCH_BYTES, %s_%s_THREAD_BYTES };\n", up, entry, up, entry);
    }
    if (e->causal) {
        hd_text_add(out, "    if (sequences < 1 || sequences > %lld) sequences = %lld;\n    if (used < 1 || used > %lld) used = %lld;\n", (long long)g->batch, (long long)g->batch, (long long)g->length, (long long)g->length);
        if (p->row_limited) hd_text_add(out, "    const int rows = (sequences - 1) * %lld + used;\n", (long long)g->length);
        else hd_text_add(out, "    (void)sequences, (void)used;\n");
    }
    if (parts) {
        hd_text_add(out, "    const %s_arguments all = { run, memory, scratch", function_name(e));
        for (int k = 0; k < e->inputs + e->outputs; k++) hd_text_add(out, ", %s", argument_name(e, k));
        hd_text_add(out, "%s };\n", p->row_limited ? ", sequences, used, rows" : "");
        int count = 0;
        for (int k = 0; k < p->steps; k += hd_emit_calls(&(hd_text){ 0 }, &call[k], p->steps - k, PART_LINES)) hd_text_add(out, "    %s_part_%d(&all);\n", function_name(e), ++count);
    } else {
        hd_text_add(out, "\n%s", body.data ? body.data : "");
    }
    hd_text_add(out, "    return 0;\n}\n\n");
}

static void emit_entries(hd_model *m)
{
    hd_text out = { 0 };
    hd_text_add(&out, "/* %s.c: %s */\n#include \"%s.h\"\n#include \"%s_kernels.h\"\n\n", m->kernels.prefix,
                header_line(m, "The entries: one line for each step, in the order they run.\n * S scratch, W weights, P packed weights, G gradients and moments, by byte offset."), m->kernels.prefix, m->kernels.prefix);
    hd_text_add(&out, "#define S(offset) ((float *)(void *)(scratch + (offset)))\n#define W(offset) ((float *)(void *)((unsigned char *)memory->weights + (offset)))\n"
                      "#define P(offset) ((float *)(void *)((unsigned char *)memory->packed + (offset)))\n#define G(offset) ((float *)(void *)((unsigned char *)memory->state + (offset)))\n\n");
    for (int i = 0; i < m->programs; i++) {
        const hd_program *p = m->program[i];
        double flops = 0;
        for (int k = 0; k < p->steps; k++) flops += p->step[k].flops;
        hd_text_add(&out, "/* %s: %d steps, %s, %lld bytes of scratch where no plan can do with less than %lld. */\n", hd_comment(p->entry->name), p->steps, amount(flops),
                    (long long)p->scratch_bytes, (long long)p->lower_bound_bytes);
        emit_program(&out, m, p);
    }
    if (m->packing.count) {
        m->packing.program.entry = &pack_entry;
        hd_text_add(&out, "/* Weights as panels: %d steps. */\n", m->packing.program.steps);
        emit_program(&out, m, &m->packing.program);
    } else {
        prototype(&out, m, &pack_entry);
        hd_text_add(&out, "\n{\n    (void)memory;\n    return threads && threads->count < 1 ? -1 : 0;\n}\n\n");
    }
    add_file(m, hd_format("%s.c", m->kernels.prefix), out.data, false);
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
                m->kernels.prefix, header_line(m, "Every kernel instance; each is defined in the file of its kind."));
    for (int i = 0; i < m->kernels.count; i++) hd_text_add(&proto, "HD_HIDDEN void %s(%s);\n", m->kernels.kernel[i]->name, m->kernels.kernel[i]->signature);
    static const char *const kinds[] = { "attention_fwd", "attention_bwd", "product", "rows", "optimiser" };
    for (unsigned kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        int number = 0;
        hd_text out = { 0 };
        for (int i = 0; i <= m->kernels.count; i++) {
            const hd_kernel *k = i < m->kernels.count ? m->kernels.kernel[i] : NULL;
            if (k && strcmp(file_kind(k), kinds[kind])) continue;
            if (out.data && (!k || out.length > FILE_CHARACTERS)) {
                add_file(m, number ? hd_format("%s_%s_%d.c", m->kernels.prefix, kinds[kind], number) : hd_format("%s_%s.c", m->kernels.prefix, kinds[kind]), out.data, false);
                number++;
                out = (hd_text){ 0 };
            }
            if (!k) continue;
            if (!out.data)
                hd_text_add(&out, "/* %s */\n#define HD_VL %d\n#include \"hd_vec.h\"\n#include \"%s_kernels.h\"\n\n", header_line(m, "Kernels, one function each."), m->target->vl, m->kernels.prefix);
            hd_text_add(&out, "/* from %s.c.tmpl for %s:%d */\n%s\n", k->template_name, hd_comment(k->where.file), k->where.line, hd_kernel_text(x, &m->kernels, k));
        }
    }
    add_file(m, hd_format("%s_kernels.h", m->kernels.prefix), proto.data, true);
}

static void tensors(hd_text *out, const char *symbol, int count, const char *const *name, hd_node *const *node)
{
    hd_text_add(out, "static const hd_tensor %s[] = {\n", symbol);
    for (int i = 0; i < count; i++) {
        hd_text_add(out, "    { %s, %s, %d, { ", hd_quoted(name[i]), node[i]->dtype == HD_I32 ? "HD_TYPE_I32" : "HD_TYPE_F32", node[i]->shape.rank);
        for (int k = 0; k < node[i]->shape.rank; k++) hd_text_add(out, "%lld, ", (long long)node[i]->shape.size[k]);
        hd_text_add(out, "} },\n");
    }
    hd_text_add(out, "    { 0 }\n};\n");
}

static const char *distances(const double *bytes)
{
    hd_text out = { 0 };
    int count = HD_DISTANCES;
    while (count > 1 && bytes[count - 1] < 0.5) count--;
    for (int i = 0; i < count; i++) hd_text_add(&out, i ? ", %.0f" : "%.0f", bytes[i]);
    return out.data;
}

/* What the calls of an entry cost, each kind of call once. */
static void emit_steps(hd_text *out, const hd_program *p, int number)
{
    const hd_step **seen = HD_NEW_ARRAY(const hd_step *, p->steps);
    int kinds = 0;
    hd_text order = { 0 };
    hd_text_add(out, "static const hd_step steps_%d[] = {\n", number);
    for (int k = 0; k < p->steps; k++) {
        const hd_step *s = &p->step[k];
        int at = kinds - 1;      /* the last kinds first: calls like this one are mostly near */
        while (at >= 0 && (seen[at]->kernel != s->kernel || seen[at]->where.line != s->where.line || seen[at]->where.file != s->where.file || seen[at]->flops != s->flops || seen[at]->useful != s->useful || memcmp(&seen[at]->traffic, &s->traffic, sizeof s->traffic))) at--;
        if (at < 0) {
            seen[at = kinds++] = s;
            hd_text_add(out, "    { %s, %s, %.0f, %.0f, { { %s }, { %s } } },\n", hd_quoted(s->kernel->name), hd_quoted(hd_format("%s:%d", s->where.file ? s->where.file : "", s->where.line)), s->flops, s->useful,
                        distances(s->traffic.read), distances(s->traffic.written));
        }
        hd_text_add(&order, "%d,%s", at, k % 32 == 31 ? "\n    " : "");
    }
    hd_text_add(out, "    { 0 }\n};\nstatic const int32_t kinds_%d[] = { %s };\n", number, p->steps ? order.data : "0");
}

/* What a program starts with: the plainest variant is in use until hd_app_main has looked at the processor. */
static void emit_start(hd_text *out, const hd_model *m)
{
    hd_text best_first = { 0 };
    for (const hd_model *v = m; v; v = v->better) {
        const char *after = best_first.data;
        best_first = (hd_text){ 0 };
        hd_text_add(&best_first, "&hd_info_of_%s, %s", v->kernels.prefix, after ? after : "");
        if (v != m) hd_text_add(out, "extern const hd_model_info hd_info_of_%s;\n", v->kernels.prefix);
    }
    hd_text_add(out, "const hd_model_info *const hd_model_variants[] = { %sNULL };\nconst hd_model_info *hd_model_chosen = &hd_info_of_%s;\n\n", best_first.data, m->kernels.prefix);
    hd_text_add(out, "int main(int argc, char **argv) { return hd_app_main(argc, argv); }\n");
}

/* The tokenizer's tables as they are, taken in by the assembler: as C text, millions of numbers, they would take seconds to compile. */
static void emit_tokenizer(hd_model *m)
{
    const char *name = m->graph->name, *symbol = hd_format("%s_tokenizer", name);
    add_file(m, hd_format("%s.c", symbol), hd_format("/* %s.c: %s\n * %zu bytes, %016llx. */\n__asm__(\".section .rodata\\n.balign 64\\n.globl %s\\n.hidden %s\\n%s:\\n.incbin \\\"%s.bin\\\"\\n.previous\\n\");\nextern const char %s[];\n",
             symbol, header_line(m, "The tokenizer's tables (runtime/app/tokenizer.h)."), m->tokenizer_bytes, (unsigned long long)hd_hash(m->tokenizer, m->tokenizer_bytes, 0), symbol, symbol, symbol, symbol, symbol), false);
    HD_PUSH(m->file, m->files, m->file_capacity, ((hd_file){ hd_format("%s.bin", symbol), m->tokenizer, true, m->tokenizer_bytes }));
}

static void emit_info(hd_model *m, const char *compiler)
{
    const hd_graph *g = m->graph;
    hd_text out = { 0 };
    hd_text_add(&out, "/* %s_info.c: %s */\n#include \"%s.h\"\n#include \"hd_model.h\"\n\n", m->kernels.prefix, header_line(m, "What the program's commands know of the model."), m->kernels.prefix);
    int weights = 0;
    int64_t parameters = 0;
    if (m->tokenizer) hd_text_add(&out, "extern const struct hd_tokenizer %s_tokenizer;\n%s\n", g->name, m->tokenizer_regex ? "extern const struct hd_regex hd_regex_pcre2;\n" : "");
    hd_text_add(&out, "static const hd_weight weights[] = {\n");
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_param || n->attr.param.role != HD_WEIGHT) continue;
        hd_text_add(&out, "    { %s, %d, { ", hd_quoted(n->name), n->shape.rank);
        for (int k = 0; k < n->shape.rank; k++) hd_text_add(&out, "%lld, ", (long long)n->shape.size[k]);
        hd_text_add(&out, "}, %lld, %d, %.17g, %s },\n", (long long)m->weight_offset[i], (int)n->attr.param.init.kind, n->attr.param.init.scale, n->attr.param.decay ? "true" : "false");
        weights++;
        parameters += hd_elements(&n->shape);
    }
    hd_text_add(&out, "    { 0 }\n};\n\n");
    for (int i = 0; i < m->programs; i++) {
        const hd_program *p = m->program[i];
        const hd_entry *e = p->entry;
        const char **name = HD_NEW_ARRAY(const char *, e->inputs + e->outputs + 1);
        hd_node **node = HD_NEW_ARRAY(hd_node *, e->inputs + e->outputs + 1);
        for (int k = 0; k < e->inputs; k++) name[k] = e->input[k]->name, node[k] = e->input[k];
        tensors(&out, hd_format("inputs_%d", i), e->inputs, name, node);
        for (int k = 0; k < e->outputs; k++) name[k] = e->output[k].name, node[k] = e->output[k].node;
        tensors(&out, hd_format("outputs_%d", i), e->outputs, name, node);
        emit_steps(&out, p, i);
        hd_text_add(&out, "static int call_%d(const hd_memory *memory, const hd_threads *threads, void *const *tensor, int sequences, int used)\n{\n", i);
        hd_text_add(&out, "    const %s_memory own = { memory->weights, memory->state, memory->scratch, memory->packed };\n    (void)sequences, (void)used, (void)tensor;\n    return %s_%s(&own, threads", m->kernels.prefix, m->kernels.prefix, function_name(e));
        for (int k = 0; k < e->inputs + e->outputs; k++) hd_text_add(&out, ", tensor[%d]", k);
        hd_text_add(&out, "%s);\n}\n\n", e->causal ? ", sequences, used" : "");
    }
    hd_text_add(&out, "static int pack(const hd_memory *memory, const hd_threads *threads)\n{\n    const %s_memory own = { .weights = memory->weights, .packed = memory->packed };\n    return %s_pack(&own, threads);\n}\n\n", m->kernels.prefix, m->kernels.prefix);
    hd_text_add(&out, "static const hd_entry_info entries[] = {\n");
    for (int i = 0; i < m->programs; i++) {
        const hd_program *p = m->program[i];
        double flops = 0;
        for (int k = 0; k < p->steps; k++) flops += p->step[k].flops;
        hd_text_add(&out, "    { %s, %d, %d, inputs_%d, outputs_%d, %lld, %lld, %lld, %s, %s, %s, call_%d, %d, kinds_%d, steps_%d, %.0f },\n", hd_quoted(p->entry->name), p->entry->inputs, p->entry->outputs, i, i,
                    (long long)p->scratch_bytes, (long long)p->local_bytes, (long long)p->lower_bound_bytes, p->row_limited ? "true" : "false", trains(p->entry) ? "true" : "false", p->reads_packed ? "true" : "false", i, p->steps, i, i, flops);
    }
    hd_text_add(&out, "};\n\n");
    hd_emit_patterns(&out, m);
    hd_text_add(&out, "static const char *const configs[][2] = {\n");
    for (int i = 0; i < g->configs; i++) hd_text_add(&out, "    { %s, %s },\n", hd_quoted(g->config[i].key), hd_quoted(g->config[i].value));
    hd_text_add(&out, "    { 0, 0 }\n};\n\n");
    const hd_training *t = &g->training;
    hd_text_add(&out, "const hd_model_info hd_info_of_%s = {\n    .name = %s, .version = %s, .spec = %s, .target = %s, .level = %d, .compiler = %s,\n", m->kernels.prefix, hd_quoted(g->name), hd_quoted(m->version), hd_quoted(g->spec),
                hd_quoted(m->target->name), m->target->level, hd_quoted(compiler));
    hd_text_add(&out, "    .kind = %s, .length = %lld, .vocab = %lld, .ids = %lld, .batch = %lld, .ahead = %d, .parameters = %lld,\n", g->kind == HD_KIND_LANGUAGE_MODEL ? "\"language_model\"" : "\"ops\"", (long long)g->length, (long long)g->vocab, (long long)g->ids, (long long)g->batch, g->predicts_same ? 0 : 1, (long long)parameters);
    hd_text_add(&out, "    .weights_bytes = %lld, .packed_bytes = %lld, .state_bytes = %lld, .weights = %d, .weight = weights, .pack = pack,\n", (long long)m->weights_bytes, (long long)m->packing.bytes, (long long)m->state_bytes, weights);
    hd_text_add(&out, "    .entries = %d, .entry = entries, .patterns = (int)(sizeof patterns / sizeof *patterns) - 1, .pattern = patterns, .configs = %d, .config = configs,\n    .attentions = (int)(sizeof attentions / sizeof *attentions) - 1, .attention = attentions,\n", m->programs, g->configs);
    if (m->tokenizer) hd_text_add(&out, "    .tokenizer = &%s_tokenizer,%s\n", g->name, m->tokenizer_regex ? " .tokenizer_regex = &hd_regex_pcre2," : "");
    hd_text_add(&out, "    .training = { .present = %s, .lr = %.17g, .min_lr = %.17g, .beta1 = %.17g, .beta2 = %.17g, .epsilon = %.17g, .decay = %.17g, .clip = %.17g, .average = %.17g, .warmup = %lld, .batch = %lld },\n};\n\n",
                t->present ? "true" : "false", t->lr, t->min_lr, t->beta1, t->beta2, t->epsilon, t->decay, t->clip, t->average, (long long)t->warmup, (long long)t->batch);
    if (!m->part) emit_start(&out, m);
    add_file(m, hd_format("%s_info.c", m->kernels.prefix), out.data, false);
}

void hd_emit(hd_model *m, hd_expander *x, bool info, const char *compiler)
{
    emit_header(m);
    emit_entries(m);
    emit_kernels(m, x);
    if (info) emit_info(m, compiler);
    if (info && m->tokenizer && !m->part) emit_tokenizer(m);
}
