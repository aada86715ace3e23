/* Decoding with a cache: prefill and step give what the forward pass gives, for every way in which positions enter a model; caches are
 * as small as their patterns; windows go on for ever; what cannot be decoded is refused with the line that says why.
 * Run from the repository's root. */
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HERE FOLDER_OF("decode")

/* A model of two layers with everything that differs between positions; `attend` makes the attention of layer i. */
static const char *spec(const char *name, const char *positions, const char *attend)
{
    const char *path = hd_format(HERE "/%s.lua", name), *text = hd_format(
        "local hd = require 'heddle'\nlocal P = hd.pattern\n"
        "local c = hd.config { length = 48, batch = 2, width = 32, heads = 4, vocab = 37, layers = 2 }\n"
        "local tokens = hd.input('tokens', { c.batch, c.length }, 'i32')\nlocal s = hd.scope ''\n"
        "local x = s:embedding('embed', tokens, c.vocab, c.width)\n"
        "%s\n"
        "for i = 0, c.layers - 1 do\n  local s = hd.scope('h.' .. i)\n"
        "  local q, k, v = hd.split(s:linear('qkv', s:layer_norm('ln_1', x), 3 * c.width), 3)\n"
        "  local function attend(q, k, v, options) options.heads = options.heads or c.heads return s:attention('heads', q, k, v, options) end\n"
        "  local y\n  %s\n"
        "  x = x + s:linear('proj', y, c.width)\n  x = x + s:mlp('mlp', s:layer_norm('ln_2', x), 2 * c.width)\nend\n"
        "return hd.language_model { name = '%s', config = c, tokens = tokens, logits = s:linear('head', s:layer_norm('ln', x), c.vocab) }\n", positions, attend, name);
    hd_write_file(path, text, strlen(text));
    return path;
}

static const char causal[] = "y = attend(q, k, v, { pattern = P.causal() })";
static const struct { const char *why, *name, *positions, *attend, *flags; } models[] = {
    { "rope, layers of different windows, three streams", "rope", "", "q, k = s:rope('q', q, { head_dim = 8 }), s:rope('k', k, { head_dim = 8 })\n"
      "  y = attend(q, k, v, { pattern = P.causal() & P.window { keys = 5 + 6 * i } })", "-D streams=3 -D prefill_chunk=7" },
    { "a learnt table, of which a part is used", "learnt", "x = x + hd.slice(s:param('positions', { 60, c.width }), 1, 3, c.length + 2)", "y = attend(q, k, v, { pattern = P.causal() & (P.window { keys = 6 } | P.stride(8)) })", "-D streams=2 -D prefill_chunk=16" },
    { "coordinates of a grid, heads with patterns of their own, grouped keys", "grid",
      "local r, k = s:param('rows', { 6, c.width }), s:param('columns', { 8, c.width })\n"
      "x = x + hd.reshape(hd.reshape(r, { 6, 1, c.width }) + hd.reshape(k, { 1, 8, c.width }), { c.length, c.width })",
      "k, v = hd.slice(k, 3, 1, 16), hd.slice(v, 3, 1, 16)\n  y = attend(q, k, v, { kv_heads = 2, pattern = { P.causal() & P.chunk(8), P.causal() & P.window { keys = 3 }, P.causal() & P.stride(8), P.causal() & P.keys(0, 2) } })", "-D streams=1 -D prefill_chunk=48" },
    { "fixed summaries, alibi, soft-cap and sinks", "fixed", "", "y = attend(q, k, v, { pattern = P.causal() & (P.chunk(8) | P.residues(8, 6, 8)), alibi = true, softcap = 2, sinks = s:param('sinks', { c.heads }) })", "-D streams=2 -D prefill_chunk=9" },
    { "heads before positions, a bias by distance", "first",
      "x = x * hd.slice(s:param('gains', { 1, c.length, c.width }), 2, 1, c.length)",
      "local function split(x) return hd.transpose(hd.reshape(x, { c.batch, c.length, c.heads, 8 }), { 1, 3, 2, 4 }) end\n"
      "  q, k, v = split(q), split(k), split(v)\n  q, k = s:rope('q', q, { head_dim = 8, dims = 4, axis = 3 }), s:rope('k', k, { head_dim = 8, dims = 4, axis = 3 })\n"
      "  y = attend(q, k, v, { layout = 'heads_first', pattern = P.causal(), bias = s:param('bias', { c.heads, 9 }), max_distance = 8 })\n"
      "  y = hd.reshape(hd.transpose(y, { 1, 3, 2, 4 }), { c.batch, c.length, c.width })", "-D streams=2 -D prefill_chunk=5" },
};

static void prefill_and_step_are_the_forward_pass(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof models / sizeof *models; i++) {
        print_message("%s\n", models[i].why);
        must("%s check %s %s", heddle(), spec(models[i].name, models[i].positions, models[i].attend), models[i].flags);
        if (!strstr(said, "logits of 48 steps") || !strstr(said, "logits after 48 tokens") || strstr(said, "not there")) fail_msg("nothing was decoded:\n%s", said);
    }
}

static void models_that_predict_their_own_position_begin_with_the_start(void **state)
{
    (void)state;
    must("%s check models/enwik8.lua -D length=256 -D layers=2 -D width=32 -D heads=4 -D qk_width=32 -D inner=48 -D prefill_chunk=100 -D streams=2", heddle());
    assert_says("logits of 256 steps");
    assert_says("logits after 255 tokens");
}

static double cache_share(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char line[1024];
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    must("%s info --json %s", heddle(), line);
    long long cache = 0, dense = 0;
    const char *at = strstr(said, "\"cache\": ");
    if (!at || sscanf(at, "\"cache\": %lld, \"dense_cache\": %lld", &cache, &dense) != 2) fail_msg("info tells of no cache:\n%s", said);
    return (double)cache / (double)dense;
}

static void caches_are_as_small_as_their_patterns(void **state)
{
    (void)state;
    const char *neo = spec("neo", "", "y = attend(q, k, v, { pattern = i % 2 == 0 and P.causal() or P.causal() & P.window { keys = 256 } })");
    assert_true(cache_share("%s -D length=2048 -D layers=24 -D width=16 -D heads=1 -D batch=1", neo) <= 0.57);
    assert_true(cache_share("models/enwik8.lua -D layers=3") < 0.27);
    const char *window = spec("window", "", "y = attend(q, k, v, { pattern = P.causal() & P.window { keys = 16 } })");
    assert_true(cache_share("%s -D length=1024 -D batch=1", window) < 0.017);
    const double full = cache_share("%s -D length=256 -D batch=1", spec("full", "", causal));
    assert_true(full >= 1 && full < 1.01);
}

static void what_cannot_be_decoded_is_said_with_its_line(void **state)
{
    (void)state;
    const char *mixes = spec("mixes", "x = x + hd.transpose(hd.matmul(hd.transpose(x, { 1, 3, 2 }), s:param('mix', { c.length, c.length })), { 1, 3, 2 })", causal);
    must("%s info %s", heddle(), mixes);
    assert_says("no decoding with a cache: " HERE "/mixes.lua:7: matmul mixes positions");
    refused("streams must be 1 to 256, got 0", "%s info models/text.lua -D streams=0", heddle());
    refused("prefill_chunk must be 2 to the length, 256", "%s info models/text.lua -D prefill_chunk=300", heddle());
    refused("streams and prefill_chunk are keys of language models", "%s info models/attention.lua -D streams=2", heddle());
}

static void windows_go_on_for_ever(void **state)
{
    (void)state;
    const char *path = spec("ever", "", "q, k = s:rope('q', q, { head_dim = 8 }), s:rope('k', k, { head_dim = 8 })\n  y = attend(q, k, v, { pattern = P.causal() & P.window { keys = 6 } })");
    must("%s build%s %s -o " HERE "/short -D batch=1", heddle(), sanitize(), path);
    must("%s build%s %s -o " HERE "/long -D batch=1 -D length=200", heddle(), sanitize(), path);
    int32_t ids[200];
    for (int i = 0; i < 200; i++) ids[i] = (i * i + i / 7) % 37;
    const hd_tensor_data tokens = { "tokens", HD_I32, { 2, { 1, 200 } }, ids };
    hd_tensor_file_write(HERE "/in", 1, &tokens);
    must(HERE "/short run step --in " HERE "/in --out " HERE "/steps");
    must(HERE "/short run prefill --in " HERE "/in --out " HERE "/prefill");
    must(HERE "/long run forward --in " HERE "/in --out " HERE "/forward");
    const float *steps = hd_tensor_file_read(HERE "/steps", "logits").data, *forward = hd_tensor_file_read(HERE "/forward", "logits").data, *last = hd_tensor_file_read(HERE "/prefill", "logits").data;
    for (int i = 0; i < 200 * 37; i++) assert_true(fabsf(steps[i] - forward[i]) < 2e-5f * 4);
    for (int i = 0; i < 37; i++) assert_true(fabsf(last[i] - forward[199 * 37 + i]) < 2e-5f * 4);
    const char *learnt = spec("ends", "x = x + hd.slice(s:param('positions', { 48, c.width }), 1, 1, c.length)", causal);
    must("%s build%s %s -o " HERE "/ends -D batch=1", heddle(), sanitize(), learnt);
    assert_int_equal(command(HERE "/ends run step --in " HERE "/in --out " HERE "/none"), 1);
    assert_says("run step: the sequence has no position left");
}

static int prepare(void **state)
{
    (void)state;
    return make_folder(HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caches_are_as_small_as_their_patterns),
        cmocka_unit_test(what_cannot_be_decoded_is_said_with_its_line),
        cmocka_unit_test(prefill_and_step_are_the_forward_pass),
        cmocka_unit_test(models_that_predict_their_own_position_begin_with_the_start),
        cmocka_unit_test(windows_go_on_for_ever),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests_name("decode_test", tests, prepare, NULL);
}
