/* The pipeline, in order. --dump=PASS prints what stands after any of them. */
#include "driver.h"
#include "../pattern/pattern.h"
#include "../spec/spec.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool dumps(const hd_options *o, const char *pass) { return o->dump && !strcmp(o->dump, pass); }

static void dump_graph(const hd_options *o, const char *pass, const hd_graph *g)
{
    if (!dumps(o, pass)) return;
    hd_text out = { 0 };
    hd_graph_print(g, &out);
    fputs(out.data, stdout);
}

static void dump_patterns(const hd_options *o, const hd_graph *g)
{
    if (!dumps(o, "patterns")) return;
    const hd_pattern *seen[256];
    int count = 0;
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_attention) continue;
        for (int h = 0; h < n->attr.attention.patterns; h++) {
            const hd_pattern *p = n->attr.attention.pattern[h];
            bool known = count == 256;
            for (int s = 0; s < count; s++) known = known || hd_pattern_equal(seen[s], p);
            if (known) continue;
            seen[count++] = p;
            hd_text out = { 0 };
            hd_text_add(&out, "%s:%d: %s\n", n->where.file, n->where.line, hd_pattern_text(p));
            hd_cover_print(hd_cover_make(p, n->input[0]->shape.size[n->input[0]->shape.rank - 2], n->input[1]->shape.size[n->input[1]->shape.rank - 2]), &out);
            fputs(out.data, stdout);
        }
    }
}

static void say_empty_rows(const hd_graph *g)
{
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_attention) continue;
        for (int h = 0; h < n->attr.attention.patterns; h++) {
            const int64_t q = n->input[0]->shape.size[n->input[0]->shape.rank - 2], k = n->input[1]->shape.size[n->input[1]->shape.rank - 2];
            const int64_t empty = hd_pattern_empty_rows(n->attr.attention.pattern[h], q, k);
            if (empty) {
                hd_warn(n->where, "%lld of %lld queries keep no key (%s): their output is zero", (long long)empty, (long long)q, hd_pattern_text(n->attr.attention.pattern[h]));
                return;
            }
        }
    }
}

hd_model *hd_compile(const hd_options *o, bool info, void (*extra)(hd_graph *))
{
    static const char *const passes[] = { "graph", "simplify", "patterns", "plan" };
    bool known = !o->dump;
    for (unsigned i = 0; i < sizeof passes / sizeof *passes; i++) known = known || dumps(o, passes[i]);
    if (!known) hd_fail((hd_where){ "--dump", 0 }, "no pass is called \"%s\"; passes: graph, simplify, patterns, plan", o->dump);
    const hd_folders *folders = hd_folders_find();

    hd_graph *g = hd_spec_load(o->spec, o->defines, o->define, folders->library);
    if (extra) extra(g);
    dump_graph(o, "graph", g);
    say_empty_rows(g);
    hd_simplify(g);
    dump_graph(o, "simplify", g);
    dump_patterns(o, g);

    hd_model *m = HD_NEW(hd_model);
    m->graph = g, m->target = o->target, m->version = HD_VERSION;
    m->kernels = (hd_kernels){ .prefix = g->name, .target = o->target };
    m->weight_offset = HD_NEW_ARRAY(int64_t, g->nodes);
    m->weights_bytes = hd_weight_offsets(g, m->weight_offset);
    m->program = HD_NEW_ARRAY(hd_program *, g->entries);
    for (int i = 0; i < g->entries; i++) {
        hd_program *p = hd_lower_entry(g, g->entry[i], o->target, &m->kernels, m->weight_offset, m->weights_bytes);
        hd_plan(p);
        if (g->entry[i]->effects) m->state_bytes = 3 * m->weights_bytes;
        m->program[m->programs++] = p;
        if (dumps(o, "plan")) {
            hd_text out = { 0 };
            hd_program_print(p, &out);
            fputs(out.data, stdout);
        }
        const int64_t total = m->weights_bytes + m->state_bytes + p->scratch_bytes;
        if (o->memory && total > o->memory)
            hd_fail((hd_where){ o->spec, 0 }, "entry %s needs %lld bytes (weights %lld, state %lld, scratch %lld), --memory allows %lld; a smaller batch (-D batch=) or hd.recompute around each block needs less",
                    p->entry->name, (long long)total, (long long)m->weights_bytes, (long long)m->state_bytes, (long long)p->scratch_bytes, (long long)o->memory);
    }
    hd_emit(m, hd_expander_new(folders->templates, folders->expander), info, info ? hd_cc_version(hd_cc_find(o->cc)) : "");
    return m;
}

static bool is_folder(const char *path) { return access(path, R_OK | X_OK) == 0; }

const hd_folders *hd_folders_find(void)
{
    static hd_folders found;
    if (found.templates) return &found;
    char self[4096];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) hd_fail((hd_where){ 0 }, "cannot find the running executable's path");
    self[n] = 0;
    for (int up = 0; up < 2; up++) *strrchr(self, '/') = 0;       /* the folder above build/ or bin/ */
    char *share = hd_format("%s/share/heddle", self);
    const bool installed = is_folder(hd_format("%s/templates", share));
    const char *root = installed ? share : self;
    found.templates = hd_format("%s/templates", root);
    found.library = installed ? hd_format("%s/lua", root) : hd_format("%s/compiler/lua", root);
    found.expander = installed ? hd_format("%s/lua", root) : hd_format("%s/compiler/emit", root);
    found.core = hd_format("%s/runtime/core", root);
    found.app = hd_format("%s/runtime/app", root);
    found.objects = installed ? hd_format("%s/lib", root) : hd_format("%s/build/lib", root);
    if (!is_folder(found.templates)) hd_fail((hd_where){ found.templates, 0 }, "heddle's templates are not where they should be; run make again, or make install");
    return &found;
}
