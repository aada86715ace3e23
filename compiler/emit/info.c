/* MODEL_info.c: what a program's commands know of a model; and the tables of its tokenizer. */
#include "write.h"
#include "../pattern/pattern.h"
#include <string.h>

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
    static const struct { const char *command, *entry; } commands[] = { { "info", NULL }, { "run", NULL }, { "bench", NULL }, { "train", "train_step" }, { "eval", "loss" }, { "sample", "forward" }, { "attention", "forward" }, { "tokenize", "" } };
    hd_text list = { 0 };
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) {
        const char *entry = commands[i].entry;
        bool has = !entry;
        for (int k = 0; k < m->programs && entry && m->graph->kind == HD_KIND_LANGUAGE_MODEL; k++) has = has || !*entry || !strcmp(m->program[k]->entry->name, entry) || (!strcmp(commands[i].command, "sample") && m->graph->decoding);
        if (!has) continue;
        hd_text_add(out, "int hd_command_%s(int argc, char **argv);\n", commands[i].command);
        hd_text_add(&list, "    { \"%s\", hd_command_%s },\n", commands[i].command, commands[i].command);
    }
    hd_text_add(out, "const hd_model_command hd_model_commands[] = {\n%s    { 0, 0 }\n};\n\n", list.data);
    hd_text_add(out, "int main(int argc, char **argv) { return hd_app_main(argc, argv); }\n");
}

/* The tokenizer's tables as they are, taken in by the assembler: as C text, millions of numbers, they would take seconds to compile. */
void hd_emit_tokenizer(hd_model *m)
{
    const char *name = m->graph->name, *symbol = hd_format("%s_tokenizer", name);
    hd_emit_file(m, hd_format("%s.c", symbol), hd_format("/* %s.c: %s\n * %zu bytes, %016llx. */\n__asm__(\".section .rodata\\n.balign 64\\n.globl %s\\n.hidden %s\\n%s:\\n.incbin \\\"%s.bin\\\"\\n.previous\\n\");\nextern const char %s[];\n",
             symbol, hd_emit_banner(m, "The tokenizer's tables (runtime/app/tokenizer.h)."), m->tokenizer_bytes, (unsigned long long)hd_hash(m->tokenizer, m->tokenizer_bytes, 0), symbol, symbol, symbol, symbol, symbol), false);
    HD_PUSH(m->file, m->files, m->file_capacity, ((hd_file){ .name = hd_format("%s.bin", symbol), .text = m->tokenizer, .header = true, .bytes = m->tokenizer_bytes }));
}

/* What tokens mean to the command `sample`. */
static void emit_tokens(hd_text *out, const hd_graph *g)
{
    const hd_output *o = &g->output;
    if (g->bos >= 0) hd_text_add(out, "static const int32_t start = %lld;\n", (long long)g->bos);
    for (int i = 0; i < g->ends; i++) hd_text_add(out, "%s%lld%s", i ? ", " : "static const int32_t end[] = { ", (long long)g->eos[i], i < g->ends - 1 ? "" : " };\n");
    if (o->palette) {
        hd_text_add(out, "static const unsigned char palette[] = {");
        for (int64_t i = 0; i < o->colours * o->channels; i++) hd_text_add(out, "%s%d,", i % 24 ? " " : "\n    ", o->palette[i]);
        hd_text_add(out, "\n};\n");
    }
    if (o->kind == HD_OUTPUT_IMAGE)
        hd_text_add(out, "extern const struct hd_image_library hd_image_png;\nstatic const hd_image_info image = { %lld, %lld, %lld, %s, %lld, %s, &hd_image_png };\n\n", (long long)o->width,
                    (long long)o->height, (long long)o->channels, o->planar ? "true" : "false", (long long)o->colours, o->palette ? "palette" : "0");
    if (o->kind == HD_OUTPUT_SOUND)
        hd_text_add(out, "extern const struct hd_sound_library hd_sound_sndfile;\nstatic const hd_sound_info sound = { %lld, %s, &hd_sound_sndfile };\n\n", (long long)o->rate,
                    !strcmp(o->encoding, "linear8") ? "HD_SOUND_LINEAR8" : !strcmp(o->encoding, "mu-law") ? "HD_SOUND_MU_LAW" : "HD_SOUND_G711");
}

void hd_emit_info(hd_model *m, const char *compiler)
{
    const hd_graph *g = m->graph;
    hd_text out = { 0 };
    hd_text_add(&out, "/* %s_info.c: %s */\n#include \"%s.h\"\n#include \"hd_model.h\"\n\n", m->kernels.prefix, hd_emit_banner(m, "What the program's commands know of the model."), m->kernels.prefix);
    int weights = 0;
    int64_t parameters = 0;
    if (m->tokenizer) hd_text_add(&out, "extern const struct hd_tokenizer %s_tokenizer;\n%s\n", g->name, m->tokenizer_regex ? "extern const struct hd_regex hd_regex_pcre2;\n" : "");
    if (m->own_weights) hd_text_add(&out, "extern const char %s_weights[], %s_packed[];\n\n", g->name, g->name);
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
    hd_text_add(&out, "static %s_memory own_memory(const hd_memory *memory)\n{\n    return (%s_memory){ memory->weights, memory->state, memory->scratch, memory->packed, memory->cache, memory->scratch_bytes, memory->cancel };\n}\n\n", m->kernels.prefix, m->kernels.prefix);
    const char *decode = hd_emit_decode_info(&out, m);
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
        if (e->decodes) {
            hd_emit_prototype(&out, m, e);
            hd_text_add(&out, ";\n");
        }
        hd_text_add(&out, "static int call_%d(const hd_memory *memory, const hd_threads *threads, void *const *tensor, int sequences, int used)\n{\n", i);
        hd_text_add(&out, "    const %s_memory own = own_memory(memory);\n    (void)sequences, (void)used, (void)tensor;\n    return %s_%s%s(&own, threads%s", m->kernels.prefix, m->kernels.prefix, hd_emit_function(e), e->decodes ? "_rows" : "", e->decodes ? ", 0" : "");
        for (int k = 0; k < e->inputs + e->outputs; k++) hd_text_add(&out, ", tensor[%d]", k);
        hd_text_add(&out, "%s);\n}\n\n", e->decodes ? hd_format(", used ? used : %lld", (long long)e->input[0]->shape.size[1]) : e->causal ? ", sequences, used" : "");
    }
    hd_text_add(&out, "static int pack(const hd_memory *memory, const hd_threads *threads)\n{\n    const %s_memory own = own_memory(memory);\n    return %s_pack(&own, threads);\n}\n\n", m->kernels.prefix, m->kernels.prefix);
    hd_text_add(&out, "static const hd_entry_info entries[] = {\n");
    for (int i = 0; i < m->programs; i++) {
        const hd_program *p = m->program[i];
        double flops = 0;
        for (int k = 0; k < p->steps; k++) flops += p->step[k].flops;
        hd_text_add(&out, "    { %s, %d, %d, inputs_%d, outputs_%d, %lld, %lld, %lld, %s, %s, %s, %s, call_%d, %d, kinds_%d, steps_%d, %.0f },\n", hd_quoted(p->entry->name), p->entry->inputs, p->entry->outputs, i, i,
                    (long long)p->scratch_bytes, (long long)p->local_bytes, (long long)p->lower_bound_bytes, p->entry->causal && !p->entry->decodes ? "true" : "false", hd_emit_trains(p->entry) ? "true" : "false", p->reads_packed ? "true" : "false", p->entry->decodes ? "true" : "false", i, p->steps, i, i, flops);
    }
    hd_text_add(&out, "};\n\n");
    hd_emit_patterns(&out, m);
    hd_text_add(&out, "static const char *const configs[][2] = {\n");
    for (int i = 0; i < g->configs; i++) hd_text_add(&out, "    { %s, %s },\n", hd_quoted(g->config[i].key), hd_quoted(g->config[i].value));
    hd_text_add(&out, "    { 0, 0 }\n};\n\n");
    emit_tokens(&out, g);
    const hd_training *t = &g->training;
    hd_text_add(&out, "const hd_model_info hd_info_of_%s = {\n    .name = %s, .version = %s, .spec = %s, .target = %s, .level = %d, .compiler = %s,\n", m->kernels.prefix, hd_quoted(g->name), hd_quoted(m->version), hd_quoted(g->spec),
                hd_quoted(m->target->name), m->target->level, hd_quoted(compiler));
    hd_text_add(&out, "    .kind = %s, .length = %lld, .vocab = %lld, .ids = %lld, .batch = %lld, .ahead = %d, .parameters = %lld,\n", g->kind == HD_KIND_LANGUAGE_MODEL ? "\"language_model\"" : "\"ops\"", (long long)g->length, (long long)g->vocab, (long long)g->ids, (long long)g->batch, g->predicts_same ? 0 : 1, (long long)parameters);
    hd_text_add(&out, "    .weights_bytes = %lld, .packed_bytes = %lld, .state_bytes = %lld, .weights = %d, .weight = weights, .pack = pack,\n", (long long)m->weights_bytes, (long long)m->packing.bytes, (long long)m->state_bytes, weights);
    hd_text_add(&out, "    .entries = %d, .entry = entries, .patterns = (int)(sizeof patterns / sizeof *patterns) - 1, .pattern = patterns, .configs = %d, .config = configs,\n    .attentions = (int)(sizeof attentions / sizeof *attentions) - 1, .attention = attentions,\n", m->programs, g->configs);
    hd_text_add(&out, "    .decode = %s, .no_decode = %s,\n", decode, g->no_decoding ? hd_quoted(g->no_decoding) : "NULL");
    if (g->bos >= 0) hd_text_add(&out, "    .start = &start,\n");
    if (g->ends) hd_text_add(&out, "    .ends = %d, .end = end,\n", g->ends);
    if (g->output.kind) hd_text_add(&out, "    %s\n", g->output.kind == HD_OUTPUT_IMAGE ? ".image = &image," : ".sound = &sound,");
    hd_text_add(&out, "    .weights_hash = UINT64_C(0x%016llx), .panels_hash = UINT64_C(0x%016llx),\n", (unsigned long long)hd_weights_hash(m), (unsigned long long)hd_panels_hash(m));
    if (m->own_weights) hd_text_add(&out, "    .own_weights = %s_weights,%s\n", g->name, m->own_packed ? hd_format(" .own_packed = %s_packed,", g->name) : "");
    if (m->tokenizer) hd_text_add(&out, "    .tokenizer = &%s_tokenizer,%s\n", g->name, m->tokenizer_regex ? " .tokenizer_regex = &hd_regex_pcre2," : "");
    hd_text_add(&out, "    .training = { .present = %s, .lr = %.17g, .min_lr = %.17g, .beta1 = %.17g, .beta2 = %.17g, .epsilon = %.17g, .decay = %.17g, .clip = %.17g, .average = %.17g, .warmup = %lld, .batch = %lld },\n};\n\n",
                t->present ? "true" : "false", t->lr, t->min_lr, t->beta1, t->beta2, t->epsilon, t->decay, t->clip, t->average, (long long)t->warmup, (long long)t->batch);
    if (!m->part) emit_start(&out, m);
    hd_emit_file(m, hd_format("%s_info.c", m->kernels.prefix), out.data, false);
}
