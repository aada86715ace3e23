/* What heddle predicts and what programs count: totals of known shapes exactly, times within a factor that noise does not reach.
 * Run from the repository's root. */
#include "tool.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HERE FOLDER_OF("predict")
#define SMALL "-D length=128 -D layers=2 -D width=64 -D heads=2 -D inner=256 -D batch=2"

static json_t *object_of(const char *text)
{
    json_error_t error;
    const char *start = strchr(text, '{');
    json_t *o = start ? json_loads(start, JSON_DISABLE_EOF_CHECK, &error) : NULL;
    if (!o) fail_msg("no JSON: %s", text);
    return o;
}

static double real(json_t *o, const char *key)
{
    json_t *x = json_object_get(o, key);
    if (!json_is_number(x)) fail_msg("no number \"%s\"", key);
    return json_number_value(x);
}

static json_t *entry_of(json_t *info, const char *name)
{
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(info, "entries"), i, e) if (!strcmp(json_string_value(json_object_get(e, "name")), name)) return e;
    fail_msg("no entry %s", name);
    return NULL;
}

/* ---- what steps count ---- */

static double pairs_causal(double n) { return n * (n + 1) / 2; }

/* Of SMALL: products of a layer qkv, proj, up, down; the head; attention 4 and 10 times head_dim for each pair. */
enum { LENGTH = 128, LAYERS = 2, WIDTH = 64, HEADS = 2, INNER = 256, BATCH = 2, VOCAB = 256, ROWS = LENGTH * BATCH };
static double forward_products(void) { return 2.0 * ROWS * (LAYERS * (4.0 * WIDTH * WIDTH + 2.0 * WIDTH * INNER) + (double)WIDTH * VOCAB); }
static double attention(int per_pair) { return (double)per_pair * LAYERS * BATCH * WIDTH * pairs_causal(LENGTH); }

static double useful_of(const char *program, const char *entry)
{
    must("%s bench %s --threads 1 --seconds 0.01 --json", program, entry);
    json_t *bench = object_of(said), *total = json_object_get(bench, "total");
    return real(total, "useful_gflops") * real(total, "ms") * 1e6;
}

static void useful_flops_are_those_of_products_and_kept_pairs_once(void **state)
{
    (void)state;
    must("%s build%s models/text.lua -o " HERE "/plain " SMALL " -D pattern=causal", heddle(), sanitize());
    must("%s build%s models/text.lua -o " HERE "/again " SMALL " -D pattern=causal -D recompute=true", heddle(), sanitize());
    const double forward = forward_products() + attention(4);
    /* backward: two products for each one. The embedding is no product, so what its gradient needs is one, too */
    const double train = 3 * forward_products() + attention(14);
    assert_float_equal(useful_of(HERE "/plain", "forward") / forward, 1, 1e-5);
    assert_float_equal(useful_of(HERE "/plain", "train_step") / train, 1, 1e-5);
    assert_float_equal(useful_of(HERE "/again", "train_step") / train, 1, 1e-5);
    must("%s info models/text.lua --json " SMALL " -D pattern=causal -D recompute=true", heddle());
    const double all = real(entry_of(object_of(said), "train_step"), "flops");
    assert_true(all > 1.1 * train);      /* or else nothing was made again, and this test says nothing */
}

static void useful_flops_of_attention_count_kept_pairs(void **state)
{
    (void)state;
    must("%s build%s models/attention.lua -o " HERE "/window -D pattern=window -D window=16 -D length=256 -D heads=8 -D head_dim=32", heddle(), sanitize());
    const double pairs = 8 * (16.0 * 17 / 2 + 16.0 * (256 - 16));
    assert_float_equal(useful_of(HERE "/window", "forward") / (4 * 32 * pairs), 1, 1e-5);
    assert_float_equal(useful_of(HERE "/window", "backward") / (10 * 32 * pairs), 1, 1e-5);
}

/* ---- how far away bytes are ---- */

static hd_argument operand(hd_buffer *b, int64_t elements, bool writes, bool updates)
{
    return (hd_argument){ .type = "float *", .view = { .buffer = b, .shape = { 1, { elements } }, .stride = { 1 } }, .writes = writes, .updates = updates, .elements = elements };
}

/* x = ...; y = x; z changes in place: 1 MB each */
static void bytes_are_as_far_away_as_what_was_moved_since(void **state)
{
    (void)state;
    enum { MB = 1 << 20, N = MB / 4 };
    hd_buffer x = { .offset = 0 }, y = { .offset = MB }, z = { .area = HD_AREA_WEIGHTS };
    hd_argument make[] = { operand(&x, N, true, false) }, copy[] = { operand(&x, N, false, false), operand(&y, N, true, false) }, change[] = { operand(&z, N, true, true) };
    hd_step step[] = { { .arguments = 1, .argument = make, .share = 1 }, { .arguments = 2, .argument = copy, .share = 1 }, { .arguments = 1, .argument = change, .share = 1 } };
    hd_entry entry = { .name = "test" };
    hd_program p = { .entry = &entry, .steps = 3, .step = step };
    for (int s = 0; s < 3; s++) step[s].bytes = hd_step_bytes(&step[s]);
    hd_count_traffic(&p);
    static const struct { int step, distance; bool written; const char *why; } wanted[] = {
        { 0, 4, true,  "x was read before z changed: 2 to 3 MB of all 3 ago" },
        { 1, 3, false, "x was written just before: 1 to 2 MB ago" },
        { 1, 4, true,  "y was written a round ago: all memory has been touched since" },
        { 2, 4, false, "z likewise" },
        { 2, 0, true,  "z has just been read" },
    };
    double found = 0, all = 0;
    for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const hd_traffic *t = &step[wanted[i].step].traffic;
        const double bytes = (wanted[i].written ? t->written : t->read)[wanted[i].distance];
        if (fabs(bytes - MB) > 1) print_message("%s: %.0f bytes there\n", wanted[i].why, bytes);
        assert_float_equal(bytes, MB, 1);
        found += bytes;
    }
    for (int s = 0; s < 3; s++) for (int d = 0; d < HD_DISTANCES; d++) all += step[s].traffic.read[d] + step[s].traffic.written[d];
    assert_float_equal(all, found, 1);
    assert_float_equal(step[1].bytes, 2 * MB, 0);
    assert_float_equal(step[2].bytes, 2 * MB, 0);
}

/* ---- predictions ---- */

static double predicted(const char *entry, const char *options)
{
    must("%s info %s --json", heddle(), options);
    json_t *p = json_array_get(json_object_get(entry_of(object_of(said), entry), "predicted"), 0);
    assert_int_equal((int)real(p, "threads"), 1);
    return real(p, "ms");
}

/* The better times of many calls, as predictions are for a machine without other work. Prediction and measurement are taken in turns:
 * on a machine whose speed changes, the ratio of one turn at least meets the same speed. */
static void predictions_are_near_what_programs_measure(void **state)
{
    (void)state;
    if (getenv("HEDDLE_SANITIZE")) skip();
    static const struct { const char *name, *entry, *options; } cases[] = {
        { "text",   "train_step", "models/text.lua " SMALL },
        { "text",   "forward",    "models/text.lua " SMALL },
        { "window", "forward",    "models/attention.lua -D pattern=window -D window=16 -D length=256 -D heads=8 -D head_dim=32" },
    };
    must("%s build models/text.lua -o " HERE "/text " SMALL, heddle());
    must("%s build models/attention.lua -o " HERE "/window -D pattern=window -D window=16 -D length=256 -D heads=8 -D head_dim=32", heddle());
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        double best = INFINITY;
        for (int turn = 0; turn < 5 && fabs(log(best)) > log(1.5); turn++) {
            const double ms = predicted(cases[i].entry, cases[i].options);
            must(HERE "/%s bench %s --threads 1 --seconds 0.3 --quantile 0.05 --json", cases[i].name, cases[i].entry);
            const double ratio = ms / real(json_object_get(object_of(said), "total"), "kernels_ms");
            if (fabs(log(ratio)) < fabs(log(best))) best = ratio;
        }
        print_message("%s %s: predicted / measured %.2f\n", cases[i].name, cases[i].entry, best);
        assert_true(best > 0.25 && best < 4);      /* a wrong unit or a forgotten part is farther away than a busy machine's noise */
    }
}

static void more_work_is_predicted_to_take_longer(void **state)
{
    (void)state;
    const double once = predicted("train_step", "models/text.lua " SMALL), often = predicted("train_step", "models/text.lua " SMALL " -D layers=24");
    print_message("12 times the layers: %.2f times as long\n", often / once);
    assert_true(often > 1.5 * once);      /* 10 times, but what each rests on is measured by itself, perhaps beside other work */
}

static void what_a_prediction_rests_on_is_said(void **state)
{
    (void)state;
    must("%s info models/text.lua " SMALL, heddle());
    assert_says("predicted times of a call");
    assert_says("1 thread ");
    assert_says("train_step");
    assert_says("% product_");
}

static int make_own_folder(void **state)
{
    (void)state;
    return make_folder(HERE);
}

int main(void)
{
    choose_tests(NULL);
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(useful_flops_are_those_of_products_and_kept_pairs_once),
        cmocka_unit_test(useful_flops_of_attention_count_kept_pairs),
        cmocka_unit_test(bytes_are_as_far_away_as_what_was_moved_since),
        cmocka_unit_test(predictions_are_near_what_programs_measure),
        cmocka_unit_test(more_work_is_predicted_to_take_longer),
        cmocka_unit_test(what_a_prediction_rests_on_is_said),
    };
    return cmocka_run_group_tests_name("predict", tests, make_own_folder, NULL);
}
