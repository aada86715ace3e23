/* The pipeline, in order. --dump=PASS prints what stands after any of them. */
#include "driver.h"
#include "../passes/decode.h"
#include "../passes/recompute.h"
#include "../pattern/pattern.h"
#include "../spec/spec.h"
#include "../tune/tune.h"
#include "../tokenizer/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool dumps(const hd_options *o, const char *pass) { return o->dump && !strcmp(o->dump, pass); }

static void dump_graph(const hd_options *o, const char *pass, const hd_graph *g)
{
    if (!dumps(o, pass)) return;
    hd_text out = { 0 };
    hd_graph_print(g, &out);
    fputs(out.data, stdout);
}

/* A distinct pattern with its lengths, and who uses it: operations whose same heads do are one line. */
typedef struct users { const char *heads; int names, capacity; const char **name; } users;
typedef struct pattern_use { const hd_pattern *pattern; int64_t queries, keys; hd_where where; int lines, capacity; users *line; } pattern_use;
typedef struct pattern_uses { int count, capacity; pattern_use *item; } pattern_uses;

static int64_t positions(const hd_node *n) { return n->shape.size[n->shape.rank - 2]; }

static int use_of(pattern_uses *all, const hd_node *n, const hd_pattern *p)
{
    const int64_t queries = positions(n->input[0]), keys = positions(n->input[1]);
    for (int u = 0; u < all->count; u++)
        if (all->item[u].queries == queries && all->item[u].keys == keys && hd_pattern_equal(all->item[u].pattern, p)) return u;
    HD_PUSH(all->item, all->count, all->capacity, ((pattern_use){ .pattern = p, .queries = queries, .keys = keys, .where = n->where }));
    return all->count - 1;
}

/* "all 8 heads", "heads 0-3, 6 of 8", "head 2 of 8" */
static const char *heads_text(const int *use_of_head, int patterns, int heads, int use)
{
    int count = 0;
    for (int h = 0; h < patterns; h++) count += use_of_head[h] == use;
    if (count == patterns) return heads == 1 ? "its head" : hd_format("all %d heads", heads);
    hd_text out = { 0 };
    hd_text_add(&out, count == 1 ? "head" : "heads");
    for (int h = 0, end, ranges = 0; h < patterns; h = end + 1) {
        for (end = h; end < patterns && use_of_head[end] == use; end++) { }
        if (end == h) continue;
        hd_text_add(&out, ranges++ ? ", %d" : " %d", h);
        if (end > h + 1) hd_text_add(&out, "-%d", end - 1);
    }
    hd_text_add(&out, " of %d", heads);
    return out.data;
}

static void add_user(pattern_use *use, const char *heads, const char *name)
{
    users *line = NULL;
    for (int l = 0; l < use->lines && !line; l++) if (!strcmp(use->line[l].heads, heads)) line = &use->line[l];
    if (!line) {
        HD_PUSH(use->line, use->lines, use->capacity, ((users){ .heads = heads }));
        line = &use->line[use->lines - 1];
    }
    for (int k = 0; k < line->names; k++) if (!strcmp(line->name[k], name)) return;      /* another entry's, or made again */
    HD_PUSH(line->name, line->names, line->capacity, name);
}

static pattern_uses gather_patterns(const hd_graph *g)
{
    pattern_uses all = { 0 };
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_attention) continue;
        const int patterns = n->attr.attention.patterns;
        int *use = HD_NEW_ARRAY(int, patterns);
        for (int h = 0; h < patterns; h++) use[h] = use_of(&all, n, n->attr.attention.pattern[h]);
        for (int h = 0; h < patterns; h++) {
            bool again = false;
            for (int before = 0; before < h; before++) again = again || use[before] == use[h];
            if (!again) add_user(&all.item[use[h]], heads_text(use, patterns, n->attr.attention.heads, use[h]), n->name ? n->name : "attention");
        }
    }
    return all;
}

static void print_users(hd_text *out, const users *line)
{
    enum { MOST = 8 };
    hd_text_add(out, "  %s of", line->heads);
    for (int k = 0; k < line->names; k++) {
        if (line->names > MOST && k == MOST - 2) hd_text_add(out, ", ..."), k = line->names - 1;
        hd_text_add(out, "%s %s", k ? "," : "", line->name[k]);
    }
    hd_text_add(out, line->names > MOST ? " (%d operations)\n" : "\n", line->names);
}

static void dump_patterns(const hd_options *o, const hd_graph *g)
{
    if (!dumps(o, "patterns")) return;
    const pattern_uses all = gather_patterns(g);
    hd_text out = { 0 };
    for (int u = 0; u < all.count; u++) {
        const pattern_use *use = &all.item[u];
        hd_text_add(&out, "pattern %d of %d: %s\n  %s:%d\n", u + 1, all.count, hd_pattern_text(use->pattern), use->where.file, use->where.line);
        for (int l = 0; l < use->lines; l++) print_users(&out, &use->line[l]);
        hd_cover_print(hd_cover_make(use->pattern, use->queries, use->keys), &out);
    }
    if (all.count) hd_text_add(&out, "tiles and wasted pairs: blocks of up to 48 queries against single keys, computed by vectors of 16 queries\n");
    fputs(out.length ? out.data : "no attention, so no patterns\n", stdout);
}

/* A line for each distinct pattern, however many layers share it. */
static void say_empty_rows(const hd_graph *g)
{
    const pattern_uses all = gather_patterns(g);
    for (int u = 0; u < all.count; u++) {
        const pattern_use *use = &all.item[u];
        const int64_t empty = hd_pattern_empty_rows(use->pattern, use->queries, use->keys);
        if (empty) hd_warn(use->where, "%lld of %lld queries keep no key (%s): their output is zero", (long long)empty, (long long)use->queries, hd_pattern_text(use->pattern));
    }
}

static hd_model *compile_for(const hd_options *o, const hd_graph *g, const hd_target *target, const char *prefix, hd_tuning *tuning)
{
    hd_model *m = HD_NEW(hd_model);
    m->graph = g, m->target = target, m->version = HD_VERSION;
    m->kernels = (hd_kernels){ .prefix = prefix, .target = target, .tuning = tuning };
    m->weight_offset = HD_NEW_ARRAY(int64_t, g->nodes);
    m->weights_bytes = hd_weight_offsets(g, m->weight_offset);
    m->program = HD_NEW_ARRAY(hd_program *, g->entries);
    for (int i = 0; i < g->entries; i++) {
        hd_program *p = hd_lower_entry(g, g->entry[i], target, &m->kernels, m->weight_offset, m->weights_bytes, g->entry[i]->effects ? NULL : &m->packing);
        hd_plan(p);
        hd_count_traffic(p);
        if (g->entry[i]->effects) m->state_bytes = 3 * m->weights_bytes;
        m->program[m->programs++] = p;
    }
    if (dumps(o, "plan")) {
        hd_text out = { 0 };
        for (int i = 0; i <= m->programs; i++) {
            if (i == m->programs && !m->packing.count) break;
            if (strcmp(prefix, g->name)) hd_text_add(&out, "variant %s\n", target->name);
            hd_program_print(i < m->programs ? m->program[i] : &m->packing.program, &out);
        }
        fputs(out.data ? out.data : "", stdout);
    }
    for (int i = 0; i < m->programs && o->memory; i++) {
        const hd_program *p = m->program[i];
        const int64_t packed = p->reads_packed ? m->packing.bytes : 0, state = p->entry->effects ? m->state_bytes : 0, total = m->weights_bytes + packed + state + p->scratch_bytes;
        if (total > o->memory)
            hd_fail((hd_where){ o->spec, 0 }, "entry %s needs %lld bytes (weights %lld, packed %lld, state %lld, scratch %lld), --memory allows %lld; a smaller batch (-D batch=) needs less",
                    p->entry->name, (long long)total, (long long)m->weights_bytes, (long long)packed, (long long)state, (long long)p->scratch_bytes, (long long)o->memory);
    }
    if (o->verbose) hd_tuning_explain(m->kernels.tuning);
    return m;
}

hd_model *hd_compile_again(const hd_options *o, const hd_model *m) { return compile_for(o, m->graph, m->target, m->kernels.prefix, hd_tuning_open(o, m->target)); }

/* What gradients read of the forward pass: all of it is kept if it fits --memory, else the cheapest choice is made; without a limit,
 * what hd.recompute marks is made again. Returns the choices there were, for info. */
static hd_choices *choose_kept(const hd_options *o, hd_graph *g, const hd_entry *trains, hd_tuning *tuning)
{
    hd_choices *choices = trains && (o->memory || !strcmp(o->command, "info")) ? hd_choices_find(g, trains, o->target, tuning) : NULL;
    if (!choices || !o->memory) {
        hd_recompute_marked(g);
        return choices;
    }
    const int64_t weights = hd_weight_offsets(g, HD_NEW_ARRAY(int64_t, g->nodes)), state = trains->effects ? 3 * weights : 0;
    hd_choice choice;
    if (!hd_choose(choices, o->memory - weights - state, &choice))
        hd_fail((hd_where){ o->spec, 0 }, "entry %s needs %lld bytes with everything made again but what attention returns (weights %lld, state %lld, scratch %lld), --memory allows %lld; a smaller batch (-D batch=) needs less",
                trains->name, (long long)(weights + state + choice.scratch_bytes), (long long)weights, (long long)state, (long long)choice.scratch_bytes, (long long)o->memory);
    hd_insert_clones(g, choice.keep);
    return choices;
}

static int64_t special_token(const hd_tokenizer *t, const char *name)
{
    const uint32_t *at = HD_AT(t, text_at, uint32_t);
    for (uint32_t id = 0; id < t->vocab && t->special.count; id++)
        if (HD_AT(t, special, uint8_t)[id] && at[id + 1] - at[id] == strlen(name) && !memcmp(HD_AT(t, text, char) + at[id], name, strlen(name))) return id;
    return -1;
}

/* Where neither the spec nor a checkpoint's configuration says which tokens begin and end a text: by the names that the families of
 * models gave them. */
static void name_ends(hd_graph *g, const hd_tokenizer *t)
{
    static const char *const begins[] = { "<|begin_of_text|>", "<s>", "<bos>", "[BOS]", "<|endoftext|>" }, *const ends[] = { "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]" };
    for (size_t i = 0; i < sizeof begins / sizeof *begins && g->bos < 0; i++) g->bos = special_token(t, begins[i]);
    const bool given = g->ends;
    for (size_t i = 0; i < sizeof ends / sizeof *ends && !given; i++) {
        const int64_t id = special_token(t, ends[i]);
        if (id >= 0) g->eos[g->ends++] = id;
    }
}

/* What is made from the model carries the tokenizer. Logits may be more than its ids (many models round them up), never fewer. */
static void add_tokenizer(const hd_options *o, hd_graph *g, hd_model *m)
{
    bool regex = false;
    if (!g->tokenizer) return;
    const hd_tokenizer *t = hd_tokenizer_load(g->tokenizer, &regex);
    if ((int64_t)t->vocab > g->vocab)
        hd_fail((hd_where){ o->spec, 0 }, "the tokenizer %s has %u tokens, the logits have %lld; they must be as many or more", g->tokenizer, t->vocab, (long long)g->vocab);
    name_ends(g, t);
    for (; m; m = m->better) m->tokenizer = t, m->tokenizer_bytes = t->bytes, m->tokenizer_regex = regex;
}

hd_graph *hd_load(const hd_options *o)
{
    const hd_folders *folders = hd_folders_find();
    struct stat s;
    if (!stat(o->spec, &s) && S_ISDIR(s.st_mode)) return hd_checkpoint_load(o->spec, folders->families, o->defines, o->define, folders->library);
    return hd_spec_load(o->spec, o->defines, o->define, folders->library);
}

static bool listed(const char *list, const char *name)
{
    const size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, length) && (!at[length] || at[length] == ',')) return true;
    return false;
}

/* Leaves the entries that --entries names. */
static void keep_entries(const hd_options *o, hd_graph *g)
{
    if (!o->entries) return;
    hd_text all = { 0 };
    int kept = 0, names = 1;
    for (const char *c = o->entries; *c; c++) names += *c == ',';
    for (int i = 0; i < g->entries; i++) {
        hd_text_add(&all, "%s%s", i ? ", " : "", g->entry[i]->name);
        if (listed(o->entries, g->entry[i]->name)) g->entry[kept++] = g->entry[i];
    }
    if (kept != names) hd_fail((hd_where){ "--entries", 0 }, "\"%s\" is no list of entries of model %s; it has: %s", o->entries, g->name, all.data);
    g->entries = kept;
    if (!g->decoding) return;
    if (listed(o->entries, "prefill") != listed(o->entries, "step")) hd_fail((hd_where){ "--entries", 0 }, "\"%s\": prefill and step go together", o->entries);
    if (!listed(o->entries, "step")) g->decoding = NULL, g->no_decoding = "it was built without entries prefill and step (heddle build --entries)";
}

hd_model *hd_compile(const hd_options *o, bool info, void (*extra)(hd_graph *))
{
    static const char *const passes[] = { "graph", "decode", "simplify", "recompute", "patterns", "plan" };
    bool known = !o->dump;
    for (unsigned i = 0; i < sizeof passes / sizeof *passes; i++) known = known || dumps(o, passes[i]);
    if (!known) hd_fail((hd_where){ "--dump", 0 }, "no pass is called \"%s\"; passes: graph, decode, simplify, recompute, patterns, plan", o->dump);
    const hd_folders *folders = hd_folders_find();

    hd_graph *g = hd_load(o);
    if (extra) extra(g);
    dump_graph(o, "graph", g);
    hd_add_decoding(g);
    keep_entries(o, g);
    dump_graph(o, "decode", g);
    say_empty_rows(g);
    hd_simplify(g);
    dump_graph(o, "simplify", g);
    const hd_entry *trains = hd_training_entry(g);
    hd_tuning *tuning = hd_tuning_open(o, o->target), *trials = memcpy(HD_NEW(hd_tuning), tuning, sizeof *tuning);     /* what is tried is not what the model asks for */
    hd_choices *choices = choose_kept(o, g, trains, trials);
    dump_graph(o, "recompute", g);
    dump_patterns(o, g);

    const bool several = info && *o->target->better;
    hd_model *m = compile_for(o, g, o->target, several ? hd_format("%s_v%d", g->name, o->target->level) : g->name, tuning), **last = &m->better;
    for (int i = 0; several && o->target->better[i]; i++, last = &(*last)->better) {
        const hd_target *target = hd_target_find(o->target->better[i]);
        *last = compile_for(o, g, target, hd_format("%s_v%d", g->name, target->level), hd_tuning_open(o, target));
        (*last)->part = true;
    }
    m->trains = trains, m->choices = choices;
    if (info || !strcmp(o->command, "emit")) add_tokenizer(o, g, m);
    for (hd_model *v = m; v && info && o->embed; v = v->better) v->own_weights = m->weights_bytes > 0, v->own_packed = !m->better && m->packing.count;
    hd_expander *expander = hd_expander_new(folders->templates, folders->expander);
    for (hd_model *v = m; v; v = v->better) hd_emit(v, expander, info, info ? hd_cc_version(hd_cc_find(o->cc)) : "");
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
    found.families = hd_format("%s/models/hf", root);
    found.objects = installed ? hd_format("%s/lib", root) : hd_format("%s/build/lib", root);
    found.tune = hd_format("%s/runtime/tune", root);
    found.shipped = installed ? hd_format("%s/tune/shipped.txt", root) : hd_format("%s/compiler/tune/shipped.txt", root);
    if (!is_folder(found.templates)) hd_fail((hd_where){ found.templates, 0 }, "heddle's templates are not where they should be; run make again, or make install");
    return &found;
}
