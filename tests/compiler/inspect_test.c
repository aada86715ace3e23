/* PROGRAM attention: the weights in the page are those of a dense softmax over the pairs that the pattern keeps, of q and k as the
 * interpreter computes them; the page stays within its size; what people wrote cannot become markup; mistakes get one line.
 * Run from the repository's root. */
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../../compiler/graph/graph.h"
#include "../../compiler/pattern/pattern.h"
#include "../../compiler/spec/spec.h"
#include "../../runtime/core/hd_random.h"

#define HERE FOLDER_OF("inspect")
#define SMALL "-D layers=2 -D width=24 -D heads=2 -D inner=40 -D batch=2"

/* ---- a model with random weights ---- */

typedef struct model { hd_graph *graph; hd_eval *eval; hd_entry *inputs; int attentions; hd_node **attention; } model;

static const hd_entry *forward(const hd_graph *g)
{
    for (int i = 0; i < g->entries; i++) if (!strcmp(g->entry[i]->name, "forward")) return g->entry[i];
    fail_msg("no entry forward");
    return NULL;
}

static double noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(*state >> 32) / 2147483648.0;
}

/* Loads the spec, writes weights that make attention sharp in places, and sets them in an interpreter, which gives q and k of
 * every attention op (and the inputs after v) as outputs of an entry. */
static model open_model(const char *spec, const char *defines, const char *weights)
{
    model m = { 0 };
    const char **word = words(defines), *define[32];
    int count = 0;
    for (; *word; word++) if (strcmp(*word, "-D")) define[count++] = *word;
    m.graph = hd_spec_load(spec, count, define, "compiler/lua");
    hd_graph *g = m.graph;
    const hd_entry *f = forward(g);
    m.attention = HD_NEW_ARRAY(hd_node *, g->nodes);
    m.inputs = hd_graph_entry(g, "inputs of attention");
    m.inputs->inputs = f->inputs, m.inputs->input = f->input;
    m.inputs->output = HD_NEW_ARRAY(hd_named, 10 * g->nodes);
    bool *needed = HD_NEW_ARRAY(bool, g->nodes);
    needed[f->output[0].node->id] = true;
    for (int i = g->nodes - 1; i >= 0; i--)
        for (int k = 0; needed[i] && k < g->node[i]->inputs; k++) needed[g->node[i]->input[k]->id] = true;
    for (int i = 0; i < g->nodes; i++) {
        hd_node *n = g->node[i];
        if (!needed[i] || n->op != HD_OP_attention) continue;
        m.attention[m.attentions++] = n;
        for (int k = 0; k < n->inputs; k++) m.inputs->output[m.inputs->outputs++] = (hd_named){ hd_format("%d.%d", i, k), n->input[k] };
    }
    m.eval = hd_eval_new(g);
    hd_tensor_data *file = HD_NEW_ARRAY(hd_tensor_data, g->nodes);
    int tensors = 0;
    uint64_t state = 7;
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_param || n->attr.param.role != HD_WEIGHT) continue;
        const int64_t elements = hd_elements(&n->shape);
        double *value = HD_NEW_ARRAY(double, elements);
        float *stored = HD_NEW_ARRAY(float, elements);
        const double scale = n->shape.rank >= 2 ? 2 / sqrt((double)n->shape.size[n->shape.rank - 1]) : 0.5;
        for (int64_t e = 0; e < elements; e++) stored[e] = (float)(scale * noise(&state) + (n->attr.param.init.kind == HD_INIT_CONSTANT ? n->attr.param.init.scale : 0)), value[e] = (double)stored[e];
        hd_eval_set(m.eval, n, value);
        file[tensors++] = (hd_tensor_data){ n->name, HD_F32, n->shape, stored };
    }
    hd_tensor_file_write(weights, tensors, file);
    return m;
}

static void read_prompt(const model *m, const char *prompt, int64_t used)
{
    const hd_node *tokens = forward(m->graph)->input[0];
    double *id = HD_NEW_ARRAY(double, hd_elements(&tokens->shape));
    for (int64_t i = 0; i < used; i++) id[i] = (unsigned char)prompt[i];
    hd_eval_set(m->eval, tokens, id);
    hd_eval_entry(m->eval, m->inputs);
}

/* ---- the weights as they are defined: graph.h ---- */

static double element(const model *m, const hd_node *attention, int input, int64_t head, int64_t position, int64_t e)
{
    const hd_node *n = attention->input[input];
    const double *x = m->eval->value[n->id];
    const int64_t dim = attention->attr.attention.head_dim, positions = n->shape.size[n->shape.rank - 2], heads = input ? attention->attr.attention.kv_heads : attention->attr.attention.heads;
    return attention->attr.attention.heads_first ? x[(head * positions + position) * dim + e] : x[(position * heads + head) * dim + e];
}

/* Row i of sequence 0: weight[j], zero outside the pattern. Returns the sink's share. */
static double dense_row(const model *m, const hd_node *n, int head, int64_t i, int64_t used, double *weight)
{
    const hd_pattern *p = n->attr.attention.pattern[n->attr.attention.patterns > 1 ? head : 0];
    const int kv = head / (n->attr.attention.heads / n->attr.attention.kv_heads);
    const unsigned with = n->attr.attention.with;
    double largest = -INFINITY, sum = 0, sink = -INFINITY;
    int extra = 3;
    const double *sinks = with & HD_WITH_SINKS ? m->eval->value[n->input[extra++]->id] : NULL;
    const double *bias = with & HD_WITH_BIAS ? m->eval->value[n->input[extra++]->id] : NULL;
    const double *key_bias = with & HD_WITH_KEY_BIAS ? m->eval->value[n->input[extra++]->id] : NULL;
    const double *edge_bias = with & HD_WITH_EDGE_BIAS ? m->eval->value[n->input[extra]->id] : NULL;
    if (sinks) largest = sink = sinks[head];
    if (edge_bias) {
        const hd_shape *q = &n->input[0]->shape, *edges = &n->input[extra]->shape;
        edge_bias += edges->rank == 2 ? head * edges->size[1] : 0;
        for (int64_t before = 0; before < i; before++)
            for (int64_t j = 0; j < q->size[q->rank - 2]; j++) edge_bias += hd_pattern_keeps(p, before, j);
    }
    for (int64_t j = 0; j < used; j++) {
        weight[j] = -INFINITY;
        if (!hd_pattern_keeps(p, i, j)) continue;
        double s = 0;
        for (int64_t e = 0; e < n->attr.attention.head_dim; e++) s += element(m, n, 0, head, i, e) * element(m, n, 1, kv, j, e);
        s *= n->attr.attention.scale;
        const double cap = n->attr.attention.softcap;
        const int64_t d = i + n->attr.attention.offset - j;
        if (cap > 0) s = cap * tanh(s / cap);
        if (n->attr.attention.alibi) s -= n->attr.attention.alibi[head] * (double)llabs(d);
        if (bias) {
            const hd_buckets *b = n->attr.attention.buckets;
            int64_t at = d - b->first;
            at = at < 0 ? 0 : at >= b->count ? b->count - 1 : at;
            s += bias[head * b->buckets + b->bucket[at]];
        }
        if (key_bias) s += key_bias[j];
        if (edge_bias) s += *edge_bias++;
        weight[j] = s;
        if (s > largest) largest = s;
    }
    for (int64_t j = 0; j < used; j++) sum += weight[j] = weight[j] == -INFINITY ? 0 : exp(weight[j] - largest);
    const double own = sinks ? exp(sink - largest) : 0;
    for (int64_t j = 0; j < used && sum > 0; j++) weight[j] /= sum + own;
    return sinks ? own / (sum + own) : 0;
}

/* ---- the page ---- */

static double number_in(const char *page, const char *id, const char *list, int index)
{
    const char *at = strstr(page, hd_format("id='%s'>", id));
    at = at ? strstr(at, hd_format("\"%s\":[", list)) : NULL;
    if (!at) fail_msg("no list %s in %s", list, id);
    at = strchr(at, '[') + 1;
    for (; index > 0; index--) at = strchr(at, ',') + 1;
    return strtod(at, NULL);
}

static double head_number(const char *page, int head, const char *name)
{
    const char *at = strstr(page, "\"heads\":[");
    for (; at && head >= 0; head--) at = strstr(at + 1, "{\"layer\":");
    at = at ? strstr(at, hd_format("\"%s\":", name)) : NULL;
    if (!at) fail_msg("no %s", name);
    return strtod(strchr(at, ':') + 1, NULL);
}

static unsigned char *block(const char *page, const char *id)
{
    const char *at = strstr(page, hd_format("id='%s'>", id));
    if (!at) fail_msg("no block %s", id);
    at = strchr(at, '>') + 1;
    const size_t count = strcspn(at, "<");
    unsigned char *out = hd_alloc(count + 4);
    uint32_t bits = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *d = at[i] == '=' ? digit : strchr(digit, at[i]);
        if (!d) fail_msg("block %s: not base64", id);
        bits = bits << 6 | (uint32_t)(d - digit);
        if (i % 4 == 3) for (int k = 16; k >= 0; k -= 8) out[bytes++] = (unsigned char)(bits >> k);
    }
    return out;
}

/* A range decoder: the other half of runtime/app/coder.c. */
typedef struct decoder { const unsigned char *at; uint32_t range, code; } decoder;
typedef struct numbers { uint16_t bits[33][64], low[33][256]; unsigned before; } numbers;
typedef struct models { uint16_t high[256], low[256], level[8][256]; numbers count, gap; } models;

static unsigned bit(decoder *d, uint16_t *chance)
{
    const uint32_t zero = (d->range >> 11) * *chance;
    const unsigned out = d->code >= zero;
    if (out) d->code -= zero, d->range -= zero, *chance = (uint16_t)(*chance - (*chance >> 5));
    else d->range = zero, *chance = (uint16_t)(*chance + ((2048 - *chance) >> 5));
    for (; d->range < 1u << 24; d->range <<= 8) d->code = d->code << 8 | *d->at++;
    return out;
}

static unsigned tree(decoder *d, uint16_t *chance, int bits)
{
    unsigned node = 1;
    for (int b = 0; b < bits; b++) node = 2 * node + bit(d, &chance[node]);
    return node - (1u << bits);
}

static int64_t number(decoder *d, numbers *m)
{
    const unsigned bits = m->before = tree(d, m->bits[m->before], 6);
    const int low = (int)bits - 1, first = low < 8 ? low : 8;
    if (!bits) return 0;
    int64_t value = first > 0 ? (1 << first) + tree(d, m->low[bits], first) : 1;
    for (int b = low - first; b > 0; b--) {
        uint16_t half = 1024;
        value = 2 * value + bit(d, &half);
    }
    return value;
}

static float largest_of(decoder *d, models *m)
{
    uint32_t bits = tree(d, m->high, 8) << 24;
    bits |= tree(d, m->low, 8) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Every pair of one head. Levels are rounded to 1/255 of the row's largest, which has 8 bits; scores are f32. */
static void compare_head(const model *m, const char *page, int number_of_head, const hd_node *n, int head, int64_t used)
{
    decoder d = { block(page, hd_format("rows%d", number_of_head)) + 1, UINT32_MAX, 0 };
    for (int i = 0; i < 4; i++) d.code = d.code << 8 | *d.at++;
    models *coded = HD_NEW(models);
    for (size_t i = 0; i < sizeof *coded / 2; i++) ((uint16_t *)(void *)coded)[i] = 1024;
    coded->count.before = coded->gap.before = 0;
    const double floor = number_in(page, "held", "floor", number_of_head);
    double *weight = HD_NEW_ARRAY(double, used), *shown = HD_NEW_ARRAY(double, used), entropy = 0, distance = 0, sink = 0;
    int64_t pairs = 0, queries = 0;
    for (int64_t i = 0; i < used; i++) {
        const double own = dense_row(m, n, head, i, used, weight);
        const double top = (double)largest_of(&d, coded);
        double want = 0, moved = 0, given = 0;
        for (int64_t j = 0; j < used; j++) want = fmax(want, weight[j]), shown[j] = 0;
        if (fabs(top - want) > 0.005 * want) fail_msg("head %d, query %d: largest %g, not %g", number_of_head, (int)i, top, want);
        const int64_t count = number(&d, &coded->count);
        unsigned level = 255;
        for (int64_t e = 0, key = -1; e < count; e++) {
            key += 1 + number(&d, &coded->gap);
            assert_true(key < used);
            shown[key] = top * (level = tree(&d, coded->level[level >> 5], 8)) / 255;
        }
        for (int64_t j = 0; j < used; j++) {
            const double least = (floor - 0.5) / 255 * want;
            const bool wrong = shown[j] > 0 ? fabs(shown[j] - weight[j]) > want * (0.5 / 255 + 0.006) : weight[j] > least * 1.01 + 1e-5;
            if (wrong) fail_msg("head %d, query %d, key %d: %g, not %g (largest %g)", number_of_head, (int)i, (int)j, shown[j], weight[j], want);
            if (weight[j] > 0) entropy -= weight[j] * log2(weight[j]), moved += weight[j] * (double)llabs(i + n->attr.attention.offset - j), given += weight[j];
        }
        if (own > 0) entropy -= own * log2(own);
        queries += given > 0;
        distance += given > 0 ? moved / given : 0;
        sink += own;
        pairs += count;
    }
    assert_true(pairs == (int64_t)number_in(page, "held", "pairs", number_of_head));
    const struct { const char *name; double want; } mean[] = { { "entropy", entropy }, { "distance", distance }, { "sink", sink } };
    for (int k = 0; k < 3; k++) {
        const double got = head_number(page, number_of_head, mean[k].name), want = queries ? mean[k].want / (double)queries : 0;
        if (fabs(got - want) > 1e-3 * (1 + fabs(want))) fail_msg("head %d: %s %g, not %g", number_of_head, mean[k].name, got, want);
    }
}

/* ---- tests ---- */

static const char irregular[] =
    "local hd = require 'heddle'\n"
    "local c = hd.config { length = 60, width = 24, batch = 1, vocab = 256 }\n"
    "local P = hd.pattern\n"
    "local lists = { P.causal() & P.predicate(function(i, j) return (i * 7 + j * 5) % 11 < 4 or i == j end, c.length, c.length), P.causal() & P.documents { 17, 6, 37 } }\n"
    "local tokens = hd.input('tokens', { c.batch, c.length }, 'i32')\n"
    "local s = hd.scope('')\n"
    "local x = s:embedding('byte', tokens, c.vocab, c.width)\n"
    "local a = hd.scope('one')\n"
    "local q, k, v = hd.split(a:linear('qkv', x, 3 * c.width), 3)\n"
    "x = x + hd.attention(q, k, v, { heads = 2, pattern = lists, scale = 0.7 })\n"
    "local logits = s:linear('head', x, c.vocab)\n"
    "return hd.language_model { name = 'odd', config = c, tokens = tokens, logits = logits }\n";

static const char attributes[] =
    "local hd = require 'heddle'\n"
    "local c = hd.config { length = 50, width = 32, batch = 2, vocab = 256 }\n"
    "local P = hd.pattern\n"
    "local tokens = hd.input('tokens', { c.batch, c.length }, 'i32')\n"
    "local s = hd.scope('')\n"
    "local x = s:embedding('byte', tokens, c.vocab, c.width)\n"
    "local window = P.causal() & (P.window { keys = 9 } | P.prefix(2))\n"
    "local lists = P.causal() & P.predicate(function(i, j) return (i * 7 + j * 5) % 11 < 4 or i == j end, c.length, c.length)\n"
    "local function layer(a, kv_heads, o)\n"
    "  local q, k, v = a:linear('q', x, c.width), a:linear('k', x, c.width * kv_heads // 4), a:linear('v', x, c.width * kv_heads // 4)\n"
    "  o.heads, o.kv_heads = 4, kv_heads\n"
    "  x = x + hd.attention(q, k, v, o)\n"
    "end\n"
    "local a, b, d = hd.scope('a'), hd.scope('b'), hd.scope('c')\n"
    "layer(a, 2, { pattern = window, softcap = 3, alibi = true, sinks = a:param('sinks', { 4 }, hd.normal(1)) })\n"
    "layer(b, 4, { pattern = P.causal(), bias = b:param('bias', { 4, 9 }, hd.normal(1)), max_distance = 8, key_bias = b:param('keys', { c.length }, hd.normal(1)) })\n"
    "layer(d, 1, { pattern = lists, edge_bias = d:param('edges', { 4, lists:kept_pairs(c.length) }, hd.normal(1)), sinks = d:param('sinks', { 4 }, hd.normal(1)) })\n"
    "return hd.language_model { name = 'extras', config = c, tokens = tokens, logits = s:linear('head', x, c.vocab) }\n";

static const struct { const char *why, *spec, *defines; int used; } compared[] = {
    { "strided text, the whole length",       "models/text.lua",    SMALL " -D length=64 -D stride=8", 64 },
    { "a prompt shorter than the length",     "models/text.lua",    SMALL " -D length=64 -D stride=8", 37 },
    { "one byte",                             "models/text.lua",    SMALL " -D length=64 -D stride=8", 1 },
    { "few heads: families in several calls", "models/text.lua",    "-D layers=1 -D width=16 -D heads=1 -D inner=16 -D batch=1 -D length=300 -D stride=16", 300 },
    { "causal, learnt positions",             "models/gpt2.lua",    "-D length=40 -D positions=40 -D layers=2 -D width=24 -D heads=3 -D vocab=256 -D batch=1", 33 },
    { "a pattern for each head",              "models/enwik8.lua",  "-D length=80 -D layers=2 -D width=32 -D heads=4 -D inner=40 -D qk_width=32 -D chunk=16 -D summary=4", 80 },
    { "half-size queries",                    "models/cifar10.lua", "-D length=96 -D layers=2 -D width=16 -D heads=2 -D inner=24 -D qk_width=8 -D stride=9", 96 },
    { "listed rows and documents",            HERE "/odd.lua",      "", 60 },
    { "sinks, caps, biases, shared keys",     HERE "/extras.lua",   "", 43 },
};

static char *page_of(const char *spec, const char *defines, const char *prompt, int64_t used)
{
    must("%s build%s %s %s -o " HERE "/program", heddle(), sanitize(), spec, defines);
    hd_write_file(HERE "/prompt", prompt, (size_t)used);
    must(HERE "/program attention --weights " HERE "/w --prompt-file " HERE "/prompt --out " HERE "/page.html");
    return text_of(HERE "/page.html");
}

static void weights_are_those_of_a_dense_softmax(void **state)
{
    (void)state;
    hd_write_file(HERE "/odd.lua", irregular, sizeof irregular - 1);
    hd_write_file(HERE "/extras.lua", attributes, sizeof attributes - 1);
    for (unsigned c = 0; c < sizeof compared / sizeof *compared; c++) {
        model m = open_model(compared[c].spec, compared[c].defines, HERE "/w");
        char prompt[512];
        uint64_t dice = 3;
        for (int i = 0; i < 512; i++) prompt[i] = (char)(97 + (int)(13 + 13 * noise(&dice)));
        read_prompt(&m, prompt, compared[c].used);
        const char *page = page_of(compared[c].spec, compared[c].defines, prompt, compared[c].used);
        int head = 0;
        for (int l = 0; l < m.attentions; l++)
            for (int h = 0; h < m.attention[l]->attr.attention.heads; h++) compare_head(&m, page, head++, m.attention[l], h, compared[c].used);
        print_message("%-40s %d heads agree\n", compared[c].why, head);
        hd_eval_free(m.eval);
    }
}

static int occurrences(const char *text, const char *part)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, part)); at++) count++;
    return count;
}

static const char text_model[] = "-D layers=2 -D width=24 -D heads=4 -D inner=24 -D batch=1 -D length=400 -D stride=20";

static void pages_stay_within_their_size_and_keep_the_largest_weights(void **state)
{
    (void)state;
    model m = open_model("models/text.lua", text_model, HERE "/w");
    must("%s build%s models/text.lua %s -o " HERE "/text", heddle(), sanitize(), text_model);
    write_words(HERE "/prompt", 400);
    must(HERE "/text attention --weights " HERE "/w --prompt-file " HERE "/prompt -o " HERE "/all.html");
    must(HERE "/text attention --weights " HERE "/w --prompt-file " HERE "/prompt -o " HERE "/small.html --size 0.11");
    must(HERE "/text attention --weights " HERE "/w --prompt-file " HERE "/prompt -o " HERE "/one.html --layer 1 --head 2 --query 5 --threads 1");
    struct stat all, small, one;
    assert_true(!stat(HERE "/all.html", &all) && !stat(HERE "/small.html", &small) && !stat(HERE "/one.html", &one));
    print_message("all %d bytes, of 110000 %d, one head %d\n", (int)all.st_size, (int)small.st_size, (int)one.st_size);
    assert_true(small.st_size <= 110000 && small.st_size > 80000 && all.st_size > 150000 && one.st_size < all.st_size / 3);
    const char *page = text_of(HERE "/small.html"), *prompt = text_of(HERE "/prompt");
    assert_true(number_in(page, "held", "floor", 0) > 1);
    read_prompt(&m, prompt, 400);
    for (int h = 0; h < 8; h++) compare_head(&m, page, h, m.attention[h / 4], h % 4, 400);
    page = text_of(HERE "/one.html");
    compare_head(&m, page, 0, m.attention[1], 2, 400);
    assert_non_null(strstr(page, "\"query\":5,"));
    must(HERE "/text attention --weights " HERE "/w --prompt-file " HERE "/prompt -o " HERE "/three.html --threads 3");
    assert_same_bytes(HERE "/all.html", HERE "/three.html");
    hd_eval_free(m.eval);
}

static void what_people_wrote_cannot_become_markup(void **state)
{
    (void)state;
    must("cp " HERE "/w '" HERE "/<img src=x>&\"'");
    must(HERE "/text attention --weights " HERE "/w --prompt x -o " HERE "/plain.html");
    must(HERE "/text attention --weights '" HERE "/<img src=x>&\"' --prompt '</script><script>alert(1)</script><!-- &lt;' -o " HERE "/markup.html");
    const char *page = text_of(HERE "/markup.html"), *plain = text_of(HERE "/plain.html");
    assert_null(strstr(page, "<img"));
    assert_null(strstr(page, "alert(1)"));
    assert_int_equal(occurrences(page, "<script"), occurrences(plain, "<script"));
    assert_int_equal(occurrences(page, "</script"), occurrences(plain, "</script"));
    assert_int_equal(occurrences(page, "<!--"), occurrences(plain, "<!--"));
    assert_null(strstr(page, "://"));
}

static void mistakes_get_one_line_and_leave_no_page(void **state)
{
    (void)state;
    static const struct { const char *flags, *message; } bad[] = {
        { "", "attention: name the weights: --weights FILE (text train writes them)" },
        { "--weights " HERE "/w", "attention: name the prompt: --prompt TEXT or --prompt-file FILE" },
        { "--weights " HERE "/w --prompt x --prompt-file y", "attention: name the prompt" },
        { "--weights " HERE "/w --prompt x", "attention: name the page to write: -o FILE.html" },
        { "--weights " HERE "/w --prompt= -o " HERE "/no.html", "--prompt: empty; give 1 to 400 bytes" },
        { "--weights " HERE "/none --prompt x -o " HERE "/no.html", "/none: No such file or directory" },
        { "--weights " HERE "/prompt --prompt x -o " HERE "/no.html", "not a whole safetensors file" },
        { "--weights " HERE "/w --prompt-file " HERE "/w -o " HERE "/no.html", " bytes; text reads 1 to 400" },
        { "--weights " HERE "/w --prompt x -o " HERE "/w", "would be written over" },
        { "--weights " HERE "/w --prompt x -o " HERE "/nowhere/no.html", "nowhere/no.html: cannot be written: No such file or directory" },
        { "--weights " HERE "/w --prompt x -o " HERE "/no.html --layer 2", "--layer 2: text has layers 0 to 1" },
        { "--weights " HERE "/w --prompt x -o " HERE "/no.html --layer -1", "--layer -1: must be a whole number from 0" },
        { "--weights " HERE "/w --prompt x -o " HERE "/no.html --head 4", "--head 4: text has heads 0 to 3" },
        { "--weights " HERE "/w --prompt xyz -o " HERE "/no.html --query 3", "--query 3: the prompt has positions 0 to 2" },
        { "--weights " HERE "/w --prompt x -o " HERE "/no.html --size 0", "--size 0: must be a number from 0.05 to 500" },
        { "--weights " HERE "/w --prompt-file " HERE "/prompt -o " HERE "/no.html --size 0.05", "attention: 8 heads at 400 positions need a page of about " },
        { "--weights " HERE "/w --prompt x -o " HERE "/no.html --colour", "attention: unknown flag '--colour'; valid: --weights --prompt" },
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) refused(bad[i].message, HERE "/text attention %s", bad[i].flags);
    struct stat s;
    assert_true(stat(HERE "/no.html", &s) != 0 && stat(HERE "/.no.html.partial", &s) != 0);
    must("%s build%s models/attention.lua -D length=32 -D heads=1 -D head_dim=8 -o " HERE "/op", heddle(), sanitize());
    refused("attention: attention is not a language model", HERE "/op attention");
}

static int set_up(void **state)
{
    (void)state;
    return make_folder(HERE);
}

int main(int argc, char **argv)
{
    choose_tests(argc > 1 ? argv[1] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_those_of_a_dense_softmax),
        cmocka_unit_test(pages_stay_within_their_size_and_keep_the_largest_weights),
        cmocka_unit_test(what_people_wrote_cannot_become_markup),
        cmocka_unit_test(mistakes_get_one_line_and_leave_no_page),
    };
    return cmocka_run_group_tests_name("inspect", tests, set_up, NULL);
}
