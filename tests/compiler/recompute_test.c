/* Values computed again for gradients: no bit of a result changes, the memory stays within what was allowed, no cheaper choice
 * would have fitted, and what cannot fit is said. Run from the repository's root. */
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../compiler/emit/kernels.h"
#include "../../compiler/passes/recompute.h"
#include "../../compiler/spec/spec.h"

#define HERE FOLDER_OF("recompute")
#define SMALL "length=48 width=24 heads=2 inner=40 vocab=61 stride=5 batch=2"

/* A spec's graph as the pass gets it, its keys given as words. */
static hd_graph *graph_of(const char *spec, const char *keys)
{
    const char **define = words(keys);
    int defines = 0;
    while (define[defines]) defines++;
    hd_graph *g = hd_spec_load(spec, defines, define, "compiler/lua");
    hd_simplify(g);
    return g;
}

static hd_program *program_of(const hd_graph *g, const hd_entry *e)
{
    hd_kernels kernels = { .prefix = "t", .target = hd_target_find("x86-64-v3") };
    int64_t *offset = HD_NEW_ARRAY(int64_t, g->nodes);
    const int64_t bytes = hd_weight_offsets(g, offset);
    hd_program *p = hd_lower_entry(g, e, kernels.target, &kernels, offset, bytes, NULL);
    hd_plan(p);
    return p;
}

static const struct { const char *why, *spec, *keys; } models[] = {
    { "text",                         "models/text.lua",     SMALL " layers=3" },
    { "text, 12 layers, one pattern", "models/text.lua",     "layers=12 length=64 width=32 heads=2 inner=96 vocab=61 pattern=causal batch=1" },
    { "gpt2, loss in chunks",         "models/gpt2.lua",     "length=1024 layers=2 width=96 heads=2 vocab=9000 dropout=0.1" },
    { "enwik8",                       "models/enwik8.lua",   "length=128 layers=4 width=32 heads=4 inner=64 qk_width=32 vocab=31 chunk=16 summary=2" },
    { "half-size queries, chunks",    "models/cifar10.lua",  "length=100 layers=2 width=16 heads=2 inner=24 qk_width=8 vocab=30 stride=9 chunks=3" },
};

/* Whatever is allowed: the plan needs no more, and as much as was promised; more memory never costs more time. */
static void plans_stay_within_what_is_allowed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof models / sizeof *models; i++) {
        const hd_graph *g = graph_of(models[i].spec, models[i].keys);
        hd_choices *choices = hd_choices_find(g, hd_training_entry(g), hd_target_find("x86-64-v3"), NULL);
        hd_choice all, least, row[12];
        assert_true(hd_choose(choices, INT64_MAX, &all));
        assert_false(hd_choose(choices, 1, &least));
        print_message("%-30s from %9lld to %9lld bytes, %.1f %% longer\n", models[i].why, (long long)all.scratch_bytes,
                      (long long)least.scratch_bytes, 100 * (least.seconds / all.seconds - 1));
        assert_true(least.scratch_bytes < all.scratch_bytes * 2 / 3);
        double slower = INFINITY;
        for (int k = 0; k <= 16; k++) {
            const int64_t limit = least.scratch_bytes + (all.scratch_bytes - least.scratch_bytes) * k / 16;
            hd_choice choice;
            assert_true(hd_choose(choices, limit, &choice));
            assert_true(choice.scratch_bytes <= limit);
            assert_true(choice.seconds <= slower * (1 + 1e-9));
            slower = choice.seconds;
            hd_graph *made = graph_of(models[i].spec, models[i].keys);
            const hd_entry *entry = hd_training_entry(made);
            hd_insert_clones(made, choice.keep);
            assert_int_equal(program_of(made, entry)->scratch_bytes, choice.scratch_bytes);
        }
        const int rows = hd_choices_table(choices, 12, row);
        for (int k = 1; k < rows; k++) assert_true(row[k].scratch_bytes > row[k - 1].scratch_bytes && row[k].seconds <= row[k - 1].seconds);
        assert_int_equal(row[rows - 1].scratch_bytes, all.scratch_bytes);
    }
}

/* ---- brute force ---- */

enum { MOST = 12 };
typedef struct result { int64_t bytes; double seconds; int subset; } result;

static int by_bytes(const void *a, const void *b)
{
    const result *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes ? -1 : 1) : x->subset - y->subset;
}

/* A graph as it was before clones were inserted. */
typedef struct saved { int nodes; hd_node **node, ***input; } saved;

static saved save(const hd_graph *g)
{
    saved s = { g->nodes, g->node, HD_NEW_ARRAY(hd_node **, g->nodes) };
    for (int i = 0; i < g->nodes; i++) s.input[i] = memcpy(HD_NEW_ARRAY(hd_node *, g->node[i]->inputs), g->node[i]->input, (size_t)g->node[i]->inputs * sizeof **s.input);
    return s;
}
static void restore(hd_graph *g, const saved *s)
{
    g->node = s->node, g->nodes = g->node_capacity = s->nodes;
    for (int i = 0; i < g->nodes; i++) g->node[i]->id = i, g->node[i]->input = s->input[i];
}

static hd_node *maker(hd_node *n)
{
    while (n->op == HD_OP_reshape || n->op == HD_OP_slice || n->op == HD_OP_expand || n->op == HD_OP_transpose || n->op == HD_OP_detach || n->op == HD_OP_result) n = n->input[0];
    return n;
}

/* Values of the forward pass that gradients read and that are worth dropping; all others' marks go to `keep`. */
static int values_of(const hd_graph *g, const hd_entry *e, int *value, hd_keep *keep)
{
    bool *needed = HD_NEW_ARRAY(bool, g->nodes), *read = HD_NEW_ARRAY(bool, g->nodes);
    int count = 0;
    for (int i = 0; i < e->outputs; i++) needed[e->output[i].node->id] = true;
    for (int i = 0; i < e->effects; i++) needed[e->effect[i]->id] = true;
    int64_t largest = 0;
    for (int i = g->nodes - 1; i >= 0; i--)
        for (int k = 0; needed[i] && k < g->node[i]->inputs; k++) {
            hd_node *x = g->node[i]->input[k];
            needed[x->id] = true;
            if (g->node[i]->differentiates && !maker(x)->differentiates) read[maker(x)->id] = true;
        }
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < g->nodes; i++) {
            const hd_node *n = g->node[i];
            if (!needed[i] || n->differentiates || !n->inputs || n->op == HD_OP_attention) continue;
            if (!pass && read[i] && hd_node_bytes(n) > largest) largest = hd_node_bytes(n);
            if (!pass) continue;
            keep[i] = read[i] ? HD_KEEP : HD_PASS;
            if (!read[i] || hd_node_bytes(n) * 32 < largest) continue;
            if (count == MOST) fail_msg("more than %d values", MOST);
            value[count++] = i;
        }
    return count;
}

/* Grouped queries; a gated feed-forward part, one weight of which is computed; layers that each keep one value. */
#define BEGIN "local hd = require 'heddle'\n" \
    "local tokens, s = hd.input('tokens', { 2, 24 }, 'i32'), hd.scope('h')\n" \
    "local x, y, w = s:embedding('e', tokens, 31, 16)\n"
#define END "return hd.language_model { name = 'm', config = { length = 24, vocab = 31, batch = 2 }, tokens = tokens, logits = s:linear('l', x, 31), training = hd.training {} }\n"
static const char grouped[] = BEGIN
    "y = s:rms_norm('n', x)\n"
    "local q, k, v = s:linear('q', y, 16), s:linear('k', y, 8), s:linear('v', y, 8)\n"
    "x = x + s:linear('o', hd.attention(q, k, v, { heads = 4, kv_heads = 2, pattern = hd.pattern.causal() }), 16)\n"
    "x = x * hd.sigmoid(x)\n" END;
static const char gated[] = BEGIN
    "y = s:rms_norm('n', x)\n"
    "w = hd.exp(s:param('w', { 32, 16 }, hd.normal(0.02)))\n"
    "x = x + s:linear('d', hd.silu(s:linear('g', y, 32)) * hd.matmul(y, w, { trans_b = true }), 16)\n" END;
static const char chain[] = BEGIN
    "for i = 1, 4 do x = hd.dropout(hd.tanh(s:linear('a' .. i, x, 16 + 8 * i)), 0.2) end\n" END;

/* Every subset of all values, computed again, lowered and planned: none that fits is cheaper than the choice made for its bytes. */
static void no_cheaper_choice_fits(void **state)
{
    (void)state;
    static const struct { const char *why, *spec, *keys; } small[] = {
        { "gpt2", "models/gpt2.lua", "length=40 layers=1 width=24 heads=2 vocab=50 dropout=0.1 batch=2" },
        { "grouped queries", HERE "/grouped.lua", "" },
        { "a gated block", HERE "/gated.lua", "" },
        { "a chain without attention", HERE "/chain.lua", "" },
    };
    hd_write_file(HERE "/grouped.lua", grouped, strlen(grouped));
    hd_write_file(HERE "/gated.lua", gated, strlen(gated));
    hd_write_file(HERE "/chain.lua", chain, strlen(chain));
    const hd_target *target = hd_target_find("x86-64-v3");
    for (unsigned m = 0; m < sizeof small / sizeof *small; m++) {
        hd_graph *g = graph_of(small[m].spec, small[m].keys);
        int value[MOST];
        hd_keep *plain = HD_NEW_ARRAY(hd_keep, g->nodes);
        const hd_entry *entry = hd_training_entry(g);
        const int values = values_of(g, entry, value, plain), subsets = 1 << values, nodes = g->nodes;
        hd_choices *choices = hd_choices_find(g, entry, target, NULL);
        result *of = HD_NEW_ARRAY(result, subsets);
        for (int s = 0; s < subsets; s++) {
            hd_keep *keep = memcpy(HD_NEW_ARRAY(hd_keep, nodes), plain, (size_t)nodes * sizeof *keep);
            for (int v = 0; v < values; v++) if (s >> v & 1) keep[value[v]] = HD_AGAIN;
            const saved before = save(g);
            hd_insert_clones(g, keep);
            const hd_choice c = hd_choice_made(program_of(g, entry), target);
            restore(g, &before);
            of[s] = (result){ c.scratch_bytes, c.seconds, s };
        }
        qsort(of, (size_t)subsets, sizeof *of, by_bytes);
        int cheaper = 0;
        hd_choice choice = { 0 };
        bool fits = false;
        for (int k = 0; k < subsets; k++) {
            const int s = of[k].subset;
            if (!k || of[k].bytes != of[k - 1].bytes) fits = hd_choose(choices, of[k].bytes, &choice);
            if (fits && choice.seconds <= of[k].seconds * (1 + 1e-9)) continue;
            cheaper++;
            print_message("%lld bytes: %.6g s by dropping", (long long)of[k].bytes, of[k].seconds);
            for (int v = 0; v < values; v++) {
                const hd_node *n = g->node[value[v]];
                if (s >> v & 1) print_message(" %d %s %s,", value[v], hd_ops[n->op].name, n->name ? n->name : "");
            }
            print_message(" chosen were %lld bytes, %.6g s\n", (long long)choice.scratch_bytes, choice.seconds);
        }
        print_message("%s: %d subsets of %d values, %d cheaper than the choice\n", small[m].why, subsets, values, cheaper);
        assert_int_equal(cheaper, 0);
    }
}

/* ---- programs ---- */

#define TRAINED "models/text.lua -D length=48 -D layers=3 -D width=24 -D heads=2 -D inner=40 -D stride=5 -D batch=2 -D dropout=0.2"

/* A safetensors file without its header, which holds times and what was measured meanwhile. */
static const char *payload(const char *path, size_t *bytes)
{
    size_t all = 0;
    uint64_t header;
    const char *file = hd_read_file(path, &all);
    if (!file || all < sizeof header) fail_msg("%s cannot be read", path);
    memcpy(&header, file, sizeof header);
    assert_true(header < all - sizeof header);
    *bytes = all - sizeof header - (size_t)header;
    return file + sizeof header + header;
}

static void assert_same_tensors(const char *a, const char *b)
{
    size_t a_bytes, b_bytes;
    const char *x = payload(a, &a_bytes), *y = payload(b, &b_bytes);
    if (a_bytes != b_bytes || memcmp(x, y, a_bytes)) fail_msg("%s and %s differ", a, b);
}

/* Kept, made again where marked, made again where memory needs it: dropout's bits included, weights and moments after 20 steps are the same. */
static void results_are_the_same_bit_by_bit(void **state)
{
    (void)state;
    static const struct { const char *name, *flags; } ways[] = {
        { "kept", "" }, { "marked", " -D recompute=true" }, { "fitted", " --memory 900K" }, { "nearly_least", " --memory 830K" },
    };
    write_words(HERE "/words", 20000);
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        must("%s build%s " TRAINED "%s -o " HERE "/%s", heddle(), sanitize(), ways[i].flags, ways[i].name);
        must(HERE "/%s train --data " HERE "/words --steps 20 --threads %d --out " HERE "/%s.weights", ways[i].name, i % 2 + 1, ways[i].name);
        assert_same_tensors(HERE "/kept.weights", hd_format(HERE "/%s.weights", ways[i].name));
        assert_same_tensors(HERE "/kept.weights.state", hd_format(HERE "/%s.weights.state", ways[i].name));
    }
}

static void compiled_choices_agree_with_the_interpreter(void **state)
{
    (void)state;
    must("%s check%s " TRAINED " --memory 900K", heddle(), sanitize());
    must("%s check%s models/music.lua -D length=64 -D layers=2 -D width=16 -D heads=2 -D vocab=30 -D chunks=4 --memory 210K", heddle(), sanitize());
}

/* The number after the last `key` before `end`. */
static double number_before(const char *end, const char *key)
{
    const char *found = NULL;
    for (const char *at = said; (at = strstr(at, key)) && at < end; at++) found = at;
    if (!found) fail_msg("no %s in %s", key, said);
    return strtod(found + strlen(key), NULL);
}

static void info_says_what_was_taken(void **state)
{
    (void)state;
    const char *const taken = "\"taken\": true";
    must("%s info --json " TRAINED, heddle());
    assert_says(taken);
    assert_true(number_before(strstr(said, taken), "\"more_flops\": ") == 0);
    must("%s info --json " TRAINED " --memory 900K", heddle());
    assert_says(taken);
    assert_true(number_before(strstr(said, taken), "\"memory\": ") <= 900 * 1024);
    assert_true(number_before(strstr(said, taken), "\"memory\": ") > 850 * 1024);
    assert_true(number_before(strstr(said, taken), "\"more_flops\": ") > 0);
    must("%s info " TRAINED " -D recompute=true", heddle());
    assert_says("<- taken");
    must("%s info models/attention.lua", heddle());       /* nothing is trained */
    assert_null(strstr(said, "taken"));
}

static void what_cannot_fit_is_said(void **state)
{
    (void)state;
    refused("entry train_step needs", "%s build " TRAINED " --memory 600K -o " HERE "/none", heddle());
    assert_says("with everything made again but what attention returns");
    assert_says("--memory allows 614400; a smaller batch (-D batch=) needs less");
    /* what it says it needs, it can do with */
    const long long needs = atoll(strstr(said, "needs") + 6);
    must("%s info " TRAINED " --memory %lld", heddle(), needs);
    refused("entry train_step needs", "%s info " TRAINED " --memory %lld", heddle(), needs - 1);
}

static int setup(void **state)
{
    (void)state;
    return make_folder(HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_stay_within_what_is_allowed),
        cmocka_unit_test(no_cheaper_choice_fits),
        cmocka_unit_test(results_are_the_same_bit_by_bit),
        cmocka_unit_test(compiled_choices_agree_with_the_interpreter),
        cmocka_unit_test(info_says_what_was_taken),
        cmocka_unit_test(what_cannot_fit_is_said),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests_name("recompute", tests, setup, NULL);
}
