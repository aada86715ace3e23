/* sample: the sampler against its definition, stop strings, streams, conversations, images and sound. */
#include "support.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <png.h>
#include <signal.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../runtime/app/app.h"
#include "../../runtime/app/sampler.h"
#include "../../runtime/app/stops.h"

static void ok(int status) { if (status != 0) fail_msg("exit status %d: %s", status, program_err); }

static int enter_with_weights(void **state)
{
    if (enter_folder(state) != 0) return -1;
    write_text("text", 3000);
    return program("train --data text --steps 150 --out w") == 0 ? 0 : -1;
}

/* ---- the sampler -------------------------------------------------------------------------------------------------- */

enum { MOST_IDS = 3000 };
typedef struct scored { double logit; int id; } scored;

static int likelier_first(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit) : x->id - y->id;
}

/* What sampler.h says, word for word, in double precision: the probability of each id, and whether a limit is so near that rounding decides. */
static bool define(const hd_sampling *how, const float *logits, int n, const int32_t *before, int count, double *probability)
{
    static scored list[MOST_IDS];
    bool near = false;
    for (int i = 0; i < n; i++) {
        bool recent = false;
        for (int k = count > how->penalty_last ? count - (int)how->penalty_last : 0; k < count; k++) recent |= before[k] == i;
        const double logit = (double)logits[i];
        list[i] = (scored){ recent ? (double)(float)(logit > 0 ? logit / how->penalty : logit * how->penalty) : logit, i };
        probability[i] = 0;
    }
    qsort(list, (size_t)n, sizeof *list, likelier_first);
    if (how->temperature == 0) {
        probability[list[0].id] = 1;
        return false;
    }
    int kept = how->top_k > 0 && how->top_k < n ? (int)how->top_k : n;
    double weight[MOST_IDS], total = 0, sum = 0;
    for (int i = 0; i < kept; i++) total += weight[i] = exp((list[i].logit - list[0].logit) / how->temperature);
    for (int i = 0; how->top_p < 1 && i < kept; i++) {
        sum += weight[i];
        near |= fabs(sum / total - how->top_p) < 1e-6;
        if (sum >= how->top_p * total) kept = i + 1;
    }
    total = 0;
    for (int i = 0; i < kept; i++) {
        near |= how->min_p > 0 && i > 0 && fabs(weight[i] / how->min_p - 1) < 1e-5;
        if (weight[i] < how->min_p) kept = i;
    }
    for (int i = 0; i < kept; i++) total += weight[i];
    for (int i = 0; i < kept; i++) probability[list[i].id] = weight[i] / total;
    return near;
}

static uint32_t bits = 1;
static double uniform(void) { return (double)((bits = bits * 1664525 + 1013904223) >> 8) * 0x1p-24; }

static void fill(float *logits, int n, int kind)
{
    for (int i = 0; i < n; i++) {
        double x = 0;
        for (int k = 0; k < 12; k++) x += uniform();
        x -= 6;
        logits[i] = (float)(kind == 0 ? 3 * x : kind == 1 ? floor(2 * x) : kind == 2 ? exp(6 * x) * (x < 0 ? -1 : 1) : kind == 3 ? 1 : uniform() < 0.5 ? -INFINITY : x * 1e30);
    }
    if (kind == 4) logits[n - 1] = 1;
}

static void draws_follow_the_definition(void **state)
{
    static float logits[MOST_IDS];
    static double probability[MOST_IDS];
    static const int sizes[] = { 1, 2, 3, 4, 5, 63, 64, 65, 127, 256, 1000, MOST_IDS };
    int compared = 0;
    (void)state;
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < 5; kind++)
            for (int round = 0; round < 60; round++) {
                const int n = sizes[s];
                int32_t before[40];
                hd_sampler sampler;
                assert_true(hd_sampler_init(&sampler, n));
                fill(logits, n, kind);
                for (int i = 0; i < 40; i++) before[i] = (int32_t)(uniform() * n);
                const hd_sampling how = {
                    .penalty = round % 3 ? 1 : 0.5 + uniform(), .penalty_last = (int64_t)(uniform() * 50),
                    .temperature = round % 20 == 0 ? 0 : round % 7 == 0 ? 1e-9 : round % 11 == 0 ? 100 : 0.2 + 2 * uniform(),
                    .top_k = round % 2 ? 0 : (int64_t)(uniform() * uniform() * 1.2 * n), .top_p = round % 3 == 0 ? 1 : uniform() + 1e-9, .min_p = round % 4 == 0 ? uniform() * uniform() : 0,
                };
                if (define(&how, logits, n, before, 40, probability)) {
                    hd_sampler_free(&sampler);
                    continue;
                }
                for (int draw = 0; draw < 20; draw++) {
                    const double unit = draw == 0 ? 0 : draw == 1 ? 1 - 0x1p-53 : uniform();
                    const int64_t id = hd_sampler_draw(&sampler, &how, logits, before, 40, unit);
                    assert_true(id >= 0 && id < n);
                    double below = 0;
                    for (int i = 0; i < id; i++) below += probability[i];
                    if (!(probability[id] > 0) || unit < below - 1e-5 || unit > below + probability[id] + 1e-5)
                        fail_msg("%d logits of kind %d, round %d: unit %g gave id %lld of [%g, %g); k %lld p %g min %g penalty %g temperature %g", n, kind, round, unit, (long long)id, below,
                                 below + probability[id], (long long)how.top_k, how.top_p, how.min_p, how.penalty, how.temperature);
                    compared++;
                }
                hd_sampler_free(&sampler);
            }
    assert_true(compared > 60000);
}

static int64_t draw_of(hd_sampling how, const float *logits, int64_t n, double unit)
{
    hd_sampler sampler;
    assert_true(hd_sampler_init(&sampler, n));
    const int64_t id = hd_sampler_draw(&sampler, &how, logits, NULL, 0, unit);
    hd_sampler_free(&sampler);
    return id;
}

static void limits_keep_what_they_say(void **state)
{
    static const float logits[] = { 0, 2, 2, 1, -INFINITY, 2 };
    static const hd_sampling all = { 1, 0, 1, 0, 1, 0 };
    hd_sampling how = all;
    (void)state;
    assert_int_equal(draw_of(how, logits, 6, 0), 0);
    assert_int_equal(draw_of(how, logits, 6, 1 - 0x1p-53), 5);
    how.top_k = 1;                                           /* of equals the smaller id */
    assert_int_equal(draw_of(how, logits, 6, 0.99), 1);
    how.top_k = 2;
    assert_int_equal(draw_of(how, logits, 6, 0), 1);
    assert_int_equal(draw_of(how, logits, 6, 0.99), 2);
    how = all, how.top_p = 1e-9;
    assert_int_equal(draw_of(how, logits, 6, 0.99), 1);
    how = all, how.min_p = 1;                                /* equals of the likeliest stay */
    assert_int_equal(draw_of(how, logits, 6, 0), 1);
    assert_int_equal(draw_of(how, logits, 6, 0.99), 5);
    how = all, how.min_p = 0.3, how.temperature = 0.5;       /* e^-2 = 0.14: id 3 goes, at this temperature */
    assert_int_equal(draw_of(how, (const float[]){ 1, 2 }, 2, 0), 1);
    how.temperature = 1;                                     /* e^-1 = 0.37 */
    assert_int_equal(draw_of(how, (const float[]){ 1, 2 }, 2, 0), 0);
    how = all, how.temperature = 0;
    assert_int_equal(draw_of(how, logits, 6, 0.99), 1);
}

static void logits_that_are_no_numbers_are_told(void **state)
{
    static const hd_sampling how = { 1, 0, 1, 0, 1, 0 };
    float logits[100] = { 0 };
    (void)state;
    logits[97] = NAN;
    assert_int_equal(draw_of(how, logits, 100, 0.5), -1 - 97);
    logits[70] = INFINITY;
    assert_int_equal(draw_of(how, logits, 100, 0.5), -1 - 70);
    for (int i = 0; i < 100; i++) logits[i] = -INFINITY;
    assert_int_equal(draw_of(how, logits, 100, 0.5), -1);
}

/* ---- stop strings --------------------------------------------------------------------------------------------------- */

static void text_is_cut_at_the_first_stop_string_wherever_pieces_end(void **state)
{
    static const struct { const char *text, *stop[3], *before; } cases[] = {
        { "the warp and the weft", { "weft" }, "the warp and the " },
        { "aaaab", { "aab" }, "aa" },
        { "aab", { "aab" }, "" },
        { "nothing of it", { "its", "off" }, "nothing of it" },
        { "one\n\nUser: two", { "\nUser:", "\n\n" }, "one" },
        { "abcd", { "bcd", "abcd", "cd" }, "" },
        { "abcx abcd", { "abcd" }, "abcx " },
        { "ends in ab", { "abc" }, "ends in ab" },
    };
    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t piece = 1; piece < 8; piece++) {
            int stops = 0;
            while (stops < 3 && cases[i].stop[stops]) stops++;
            char hold[32], out[64];
            hd_stops s;
            assert_true(hd_stops_room(stops, cases[i].stop) <= sizeof hold);
            hd_stops_begin(&s, stops, cases[i].stop, hold);
            size_t bytes = 0, length = strlen(cases[i].text);
            for (size_t at = 0; at < length && !s.hit; at += piece) {
                bytes += hd_stops_put(&s, cases[i].text + at, length - at < piece ? length - at : piece, out + bytes);
                if (strncmp(out, cases[i].text, bytes)) fail_msg("%s: gave out %.*s", cases[i].text, (int)bytes, out);
            }
            if (!s.hit) bytes += hd_stops_end(&s, out + bytes);
            out[bytes] = 0;
            assert_string_equal(out, cases[i].before);
        }
}

/* ---- the command ---------------------------------------------------------------------------------------------------- */

static void cached(void) { setenv("HEDDLE_CPU", "cached", 1); }
static void traced(void)
{
    cached();
    setenv("TINY_TRACE", "trace", 1);
}

static int program_of(void (*before)(void), const char *line)
{
    before_program = before;
    const int status = program("%s", line);
    before_program = NULL;
    return status;
}

static void a_cache_changes_no_sample(void **state)
{
    static const char *const lines[] = {
        "sample --weights w --prompt the --tokens 20 --temperature 0 --ignore-end",
        "sample --weights w --prompt heddle --tokens 100 --seed 7 --slide --ignore-end",
        "sample --weights w --prompt heddle --samples 7 --tokens 15 --seed 7 --top-k 20 --ignore-end",
        "sample --weights w --samples 5 --tokens 60 --slide --penalty 1.3 --ignore-end",
    };
    (void)state;
    for (unsigned i = 0; i < sizeof lines / sizeof *lines; i++) {
        ok(program("%s", lines[i]));
        char plain[4096];
        strcpy(plain, program_out);
        ok(program_of(cached, lines[i]));
        assert_string_equal(program_out, plain);
    }
}

/* Three streams, seven samples: each stream takes the next sample as it becomes free, and no token is fed twice. */
static void a_sample_does_not_depend_on_what_is_beside_it(void **state)
{
    char alone[8][256], line[4096];
    (void)state;
    ok(program_of(cached, "sample --weights w --prompt shed --samples 7 --tokens 9 --top-k 2 --json --ignore-end"));
    const char *at = program_out;
    for (int i = 0; i < 7; i++) {
        json_t *one = json_loadb(at, strcspn(at, "\n"), 0, NULL);
        assert_non_null(one);
        assert_int_equal(json_integer_value(json_object_get(one, "sample")), i);
        assert_int_equal(json_integer_value(json_object_get(one, "tokens")), 9);
        assert_int_equal(json_array_size(json_object_get(one, "ids")), 9);
        assert_int_equal(json_integer_value(json_object_get(one, "prompt_tokens")), 4);
        assert_string_equal(json_string_value(json_object_get(one, "stop")), "tokens");
        strcpy(alone[i], json_string_value(json_object_get(one, "text")));
        json_decref(one);
        at = strchr(at, '\n') + 1;
    }
    assert_int_equal(*at, 0);
    assert_string_not_equal(alone[0], alone[1]);
    ok(program_of(cached, "sample --weights w --prompt shed --samples 7 --tokens 9 --top-k 2 --ignore-end"));
    for (int i = 0; i < 7; i++) {
        snprintf(line, sizeof line, "==> prompt 0, sample %d <==\nshed%s\n", i, alone[i]);
        assert_contains(program_out, line);
    }
    ok(program_of(cached, "sample --weights w --prompt shed --samples 2 --tokens 9 --top-k 2 --ignore-end"));
    snprintf(line, sizeof line, "shed%s\n\n==> prompt 0, sample 1 <==\nshed%s\n", alone[0], alone[1]);
    assert_contains(program_out, line);
}

static void only_new_tokens_are_computed(void **state)
{
    size_t bytes;
    (void)state;
    ok(program_of(traced, "sample --weights w --prompt abc --tokens 3 --temperature 0 --ignore-end --json"));
    json_t *line = json_loads(program_out, 0, NULL);
    const json_t *ids = json_object_get(line, "ids");
    char wanted[256];
    snprintf(wanted, sizeof wanted, "rewind 0 to 0\nprefill 0: 97 98 99\nstep %d -1 -1\nstep %d -1 -1\n", (int)json_integer_value(json_array_get(ids, 0)), (int)json_integer_value(json_array_get(ids, 1)));
    char *got = (char *)read_file("trace", &bytes);
    assert_string_equal(got, wanted);
    free(got);
    json_decref(line);
    remove("trace");
}

/* Four samples on three streams: the fourth begins where its stream's prompt ended, and is the one that it would be alone. */
static void samples_of_a_prompt_share_it(void **state)
{
    size_t bytes;
    (void)state;
    ok(program_of(traced, "sample --weights w --prompt abc --samples 4 --tokens 3 --ignore-end --seed 9"));
    char *got = (char *)read_file("trace", &bytes), *at = got;
    int prefills = 0;
    for (; (at = strstr(at, "prefill ")); at++) prefills++;
    assert_int_equal(prefills, 3);
    assert_non_null(strstr(got, "rewind 0 to 3\n"));
    free(got);
    remove("trace");
    char cached_text[4096];
    strcpy(cached_text, program_out);
    ok(program("sample --weights w --prompt abc --samples 4 --tokens 3 --ignore-end --seed 9"));
    assert_string_equal(program_out, cached_text);
}

static void samples_end_where_they_should(void **state)
{
    (void)state;
    ok(program_of(cached, "sample --weights w --prompt loom --tokens 9 --temperature 0 --json"));        /* m is followed by a line break alone */
    assert_contains(program_out, "{\"text\": \"\", \"ids\": [], \"prompt_tokens\": 4, \"tokens\": 0, ");
    assert_contains(program_out, "\"stop\": \"end_token\"");
    ok(program_of(cached, "sample --weights w --prompt loom --tokens 9 --temperature 0 --json --ignore-end"));
    assert_contains(program_out, "{\"text\": \"\\n");
    assert_contains(program_out, "\"stop\": \"tokens\"");
    ok(program_of(cached, "sample --weights w --prompt the --tokens 1000 --json --ignore-end"));
    assert_contains(program_out, "\"tokens\": 30, ");         /* 32 positions: the last token is predicted at the last one */
    assert_contains(program_out, "\"stop\": \"positions\"");
    assert_contains(program_err, "sample: stopped after 30 tokens at the last of tiny's 32 positions; --slide drops the older half and goes on\n");
    ok(program("sample --weights w --prompt the --tokens 29 --temperature 0 --json --stop zz --stop dddd"));
    assert_contains(program_out, "\"stop\": \"stop_string\"");
    json_t *line = json_loads(program_out, 0, NULL);
    assert_null(strstr(json_string_value(json_object_get(line, "text")), "dddd"));
    json_decref(line);
    ok(program("sample --weights w --prompt the --tokens 12 --temperature 0"));
    assert_int_equal(strlen(program_out), 3 + 12 + 1);
    ok(program("sample --weights w --prompt the --tokens 12 --temperature 0 --penalty 100 --json"));
    line = json_loads(program_out, 0, NULL);
    int times[256] = { 0 };
    for (size_t i = 0; i < 12; i++) times[json_integer_value(json_array_get(json_object_get(line, "ids"), i))]++;
    for (int i = 0; i < 256; i++)
        if (times[i] > 1) fail_msg("byte %d %d times: %s", i, times[i], program_out);
    json_decref(line);
    ok(program("sample --weights w --prompt the --tokens 0 --json"));
    assert_contains(program_out, "\"tokens\": 0, ");
    ok(program("sample --weights w --prompt the --tokens 3 --stats"));
    assert_contains(program_err, "prompt: 3 bytes in ");
    assert_contains(program_err, "generated: 3 bytes in ");
}

static void prompts_come_from_files(void **state)
{
    (void)state;
    write_file("prompts", "warp\n\nweft\nthe", 14);
    ok(program("sample --weights w --prompts prompts --tokens 2 --samples 2 --temperature 0"));
    assert_contains(program_out, "==> prompt 0, sample 0 <==\nwarp");
    assert_contains(program_out, "==> prompt 1, sample 1 <==\nweft");
    assert_contains(program_out, "==> prompt 2, sample 1 <==\nthe");
    write_file("prompt", "a heddle\n", 9);
    ok(program("sample --weights w --prompt-file prompt --tokens 0"));
    assert_string_equal(program_out, "a heddle\n\n");
    write_file("long", "0123456789012345678901234567890123456789", 40);
    assert_refused(program("sample --weights w --prompt-file long --tokens 5"), "long: it has 40 tokens, tiny reads at most 32; --slide reads the last 17 of them");
    assert_refused(program("sample --weights w --prompts long --tokens 5"), "long: prompt 1: it has 40 tokens, tiny reads at most 32");
    write_file("empty", "\n\n", 2);
    assert_refused(program("sample --weights w --prompts empty"), "empty: no line with a prompt");
}

/* ---- conversations -------------------------------------------------------------------------------------------------- */

static void said(void) { dup2(open("said", O_RDONLY), 0); }
static void said_traced(void)
{
    said();
    traced();
}

static void a_conversation_stays_in_the_cache(void **state)
{
    static const char talk[] = "warp\n/help\nweft\n/nothing\n//x\n/reset\nwarp\n";
    size_t bytes;
    (void)state;
    write_file("said", talk, sizeof talk - 1);
    ok(program_of(said_traced, "sample --weights w --interactive --tokens 2 --temperature 0 --ignore-end"));
    char *trace = (char *)read_file("trace", &bytes), *at = trace;
    int a, b, c, d, e, f, used = -1;
    /* line, reply; what the reply's last token and the next line add; the same again after /reset */
    sscanf(at, "prefill 0: 119 97 114 112\nstep %d -1 -1\nprefill 0: %d 10 119 101 102 116\nstep %d -1 -1\nprefill 0: %d 10 47 120\nstep %d -1 -1\nrewind 0 to 0\n"
               "prefill 0: 119 97 114 112\nstep %d -1 -1\n%n", &a, &b, &c, &d, &e, &f, &used);
    if (used != (int)bytes) fail_msg("%s", trace);
    assert_int_equal(a, f);
    free(trace);
    remove("trace");
    char *out = program_out;
    assert_contains(out, "/reset   forgets the conversation");
    assert_contains(out, "no such command; valid: /reset /help");
    if (strstr(out, "> ")) fail_msg("a prompt in a pipe: %s", out);
    ok(program_of(said, "sample --weights w --interactive --tokens 2 --temperature 0"));
    assert_string_equal(program_out, out);                   /* without a cache */
}

static void a_conversation_that_is_full_says_so(void **state)
{
    static const char talk[] = "01234567890123456789\n01234567890123456789\n/reset\nx\n";
    (void)state;
    write_file("said", talk, sizeof talk - 1);
    ok(program_of(said, "sample --weights w --interactive --tokens 2 --temperature 0"));
    assert_contains(program_err, "22 more tokens do not fit: 21 of 32 positions are in use; /reset forgets the conversation, --slide its older half\n");
    ok(program_of(said, "sample --weights w --interactive --tokens 2 --temperature 0 --slide"));
    assert_string_equal(program_err, "");
    ok(program_of(said, "sample --weights w --interactive --tokens 100 --temperature 0"));
    assert_contains(program_err, "the model's last position is reached, 32; /reset forgets");
}

static void a_conversation_puts_text_around_lines(void **state)
{
    size_t bytes;
    (void)state;
    write_file("said", "a\nb\\\nc\n", 7);
    ok(program_of(said_traced, "sample --weights w --interactive --tokens 1 --temperature 0 --ignore-end --prompt S --before < --after >"));
    char *trace = (char *)read_file("trace", &bytes);
    int reply = 0, used = -1;
    sscanf(trace, "prefill 0: 83 60 97 62\nprefill 0: %d 60 98 10 99 62\n%n", &reply, &used);
    if (used != (int)bytes) fail_msg("%s", trace);
    free(trace);
    remove("trace");
}

static void wait_for_output(const char *part, size_t least)
{
    for (int i = 0; i < 1000; i++, usleep(10000)) {
        size_t bytes = 0;
        char *out = (char *)read_file("out", &bytes);
        const bool found = out && bytes >= least && strstr(out + (bytes > 400 ? bytes - 400 : 0), part);
        free(out);
        if (found) return;
    }
    fail_msg("the program never printed %s", part);
}

/* Says `line`, interrupts when there are `least` bytes of reply, and expects an answer to /help. */
static void interrupt(const char *line, size_t least)
{
    int lines[2];
    assert_int_equal(pipe(lines), 0);
    fcntl(lines[1], F_SETFD, FD_CLOEXEC);
    const int kept = dup(0);
    dup2(lines[0], 0);
    close(lines[0]);
    const pid_t child = program_start("sample --weights w --interactive --tokens 100000000 --slide --ignore-end");
    dup2(kept, 0);
    close(kept);
    assert_int_equal(write(lines[1], line, strlen(line)), strlen(line));
    wait_for_output("", least);
    usleep(100000);
    assert_int_equal(kill(child, SIGINT), 0);
    usleep(100000);
    assert_int_equal(write(lines[1], "/help\n", 6), 6);
    wait_for_output("Ctrl-D ends.", 1);
    close(lines[1]);
    kill(child, SIGTERM);              /* the child has that end of the pipe too, and would wait for itself */
    program_wait(child);
}

static void slow(void)
{
    cached();
    setenv("TINY_SLOW", "1", 1);
}

static void an_interrupt_ends_the_reply_and_not_the_conversation(void **state)
{
    (void)state;
    interrupt("warp\n", 100);
    before_program = cached;
    interrupt("warp\n", 100);
    before_program = slow;             /* while a line is taken in */
    interrupt("warp and weft\n", 0);
    before_program = NULL;
}

/* ---- images and sound ----------------------------------------------------------------------------------------------- */

static void image(void) { setenv("HEDDLE_CPU", "image", 1); }
static void planar(void) { setenv("HEDDLE_CPU", "planar", 1); }
static void palette(void) { setenv("HEDDLE_CPU", "palette", 1); }
static void sound(void) { setenv("HEDDLE_CPU", "sound", 1); }

static unsigned char pixels[64 * 64 * 3];
static void read_png(const char *path, unsigned width, unsigned height)
{
    png_image file = { .version = PNG_IMAGE_VERSION };
    if (!png_image_begin_read_from_file(&file, path)) fail_msg("%s: %s", path, file.message);
    assert_int_equal(file.width, width);
    assert_int_equal(file.height, height);
    file.format = PNG_FORMAT_RGB;
    assert_true(PNG_IMAGE_SIZE(file) <= sizeof pixels && png_image_finish_read(&file, NULL, pixels, 0, NULL));
}

static int ids_of(int *ids)
{
    json_t *line = json_loads(program_out, 0, NULL);
    const json_t *list = json_object_get(line, "ids");
    const int count = (int)json_array_size(list);
    for (int i = 0; i < count; i++) ids[i] = (int)json_integer_value(json_array_get(list, (size_t)i));
    json_decref(line);
    return count;
}

static void pixels_become_a_png(void **state)
{
    int ids[64];
    (void)state;
    ok(program_of(image, "info"));
    assert_contains(program_out, "output: images of 4 x 2, red, green, blue (tiny sample -o FILE.png)\n");
    ok(program_of(image, "sample --weights w -o a.png --json --seed 2"));
    assert_int_equal(ids_of(ids), 4 * 2 * 3);
    read_png("a.png", 4, 2);
    for (int i = 0; i < 24; i++) assert_int_equal(pixels[i], ids[i]);
    assert_false(file_exists(".a.png.partial"));
    ok(program_of(planar, "sample --weights w -o p.png --json --seed 2"));
    assert_int_equal(ids_of(ids), 24);
    read_png("p.png", 4, 2);
    for (int i = 0; i < 24; i++) assert_int_equal(pixels[i], ids[i % 3 * 8 + i / 3]);
    /* the first row of it continued: the row stays, the rest is drawn */
    ok(program_of(image, "sample --weights w -o half.png --prompt-file a.png --keep 1 --json --seed 3"));
    unsigned char first[12];
    read_png("a.png", 4, 2);
    memcpy(first, pixels, 12);
    read_png("half.png", 4, 2);
    assert_memory_equal(pixels, first, 12);
    assert_int_equal(ids_of(ids), 12);
    for (int i = 0; i < 12; i++) assert_int_equal(pixels[12 + i], ids[i]);
    /* what is missing is black */
    ok(program_of(image, "sample --weights w -o part.png --tokens 5"));
    read_png("part.png", 4, 2);
    for (int i = 5; i < 24; i++) assert_int_equal(pixels[i], 0);
}

static void several_images_are_files_or_a_grid(void **state)
{
    unsigned char one[3][24];
    (void)state;
    ok(program_of(image, "sample --weights w -o a.png --samples 3"));
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "a_%d.png", i);
        read_png(name, 4, 2);
        memcpy(one[i], pixels, 24);
    }
    assert_memory_not_equal(one[0], one[1], 24);
    ok(program_of(image, "sample --weights w -o grid.png --samples 3 --grid"));
    read_png("grid.png", 8, 4);
    for (int i = 0; i < 4; i++)
        for (int y = 0; y < 2; y++)
            for (int x = 0; x < 12; x++) assert_int_equal(pixels[((i / 2 * 2 + y) * 2 + i % 2) * 12 + x], i < 3 ? one[i][y * 12 + x] : 0);
}

static void colours_of_a_palette_become_a_png_and_come_back(void **state)
{
    static const unsigned char colour[5][3] = { { 0, 0, 0 }, { 255, 0, 0 }, { 0, 255, 0 }, { 0, 0, 255 }, { 0, 0, 0 } };
    int ids[64];
    (void)state;
    ok(program_of(palette, "sample --weights w -o c.png --json --top-k 0 --temperature 1000"));
    assert_int_equal(ids_of(ids), 15);                       /* the token it begins after is no pixel */
    read_png("c.png", 5, 3);
    for (int i = 0; i < 15; i++) assert_memory_equal(pixels + 3 * i, colour[ids[i] < 4 ? ids[i] : 4], 3);
    static const unsigned char mixed[15 * 3] = { 250, 9, 3, 1, 200, 2, 0, 0, 0, 8, 8, 255, 255, 0, 0 };
    png_image file = { .version = PNG_IMAGE_VERSION, .width = 5, .height = 3, .format = PNG_FORMAT_RGB };
    assert_true(png_image_write_to_file(&file, "mixed.png", 0, mixed, 0, NULL));
    ok(program_of(palette, "sample --weights w -o d.png --prompt-file mixed.png --keep 1 --tokens 0"));
    read_png("d.png", 5, 3);
    static const int nearest[] = { 1, 2, 0, 3, 1 };
    for (int i = 0; i < 5; i++) assert_memory_equal(pixels + 3 * i, colour[nearest[i]], 3);
}

static void samples_of_sound_become_a_wav_and_come_back(void **state)
{
    int ids[64];
    short heard[64], again[64];
    (void)state;
    ok(program_of(sound, "info"));
    assert_contains(program_out, "output: sound, 8000 samples a second (tiny sample -o FILE.wav)\n");
    ok(program_of(sound, "sample --weights w -o a.wav --json --temperature 5"));
    const int count = ids_of(ids);
    assert_int_equal(count, 32);
    SF_INFO info = { 0 };
    SNDFILE *file = sf_open("a.wav", SFM_READ, &info);
    assert_non_null(file);
    assert_int_equal(info.samplerate, 8000);
    assert_int_equal(info.channels, 1);
    assert_int_equal(info.format & SF_FORMAT_SUBMASK, SF_FORMAT_PCM_16);
    assert_int_equal(sf_read_short(file, heard, 64), count);
    sf_close(file);
    for (int i = 0; i < count; i++) {                        /* ids from 0 to 255 are amplitudes from -1 to 1 */
        const double x = 2 * ids[i] / 255.0 - 1, y = (x < 0 ? -1 : 1) * (pow(256, fabs(x)) - 1) / 255;
        if (fabs(heard[i] - 32767 * y) > 1) fail_msg("token %d: %d, not %g", ids[i], heard[i], 32767 * y);
    }
    ok(program_of(sound, "sample --weights w -o b.wav --prompt-file a.wav --keep 20 --tokens 0"));
    file = sf_open("b.wav", SFM_READ, &info);
    assert_non_null(file);
    assert_int_equal(sf_read_short(file, again, 64), 20);
    sf_close(file);
    assert_memory_equal(again, heard, 20 * sizeof *heard);
}

/* ---- what is refused -------------------------------------------------------------------------------------------------- */

static const struct { void (*before)(void); const char *line, *message; } refused[] = {
    { NULL, "sample --weights w --min-p 1.5", "--min-p 1.5: must be a number from 0 to 1" },
    { NULL, "sample --weights w --penalty 0", "--penalty 0: must be a number from 0.01 to 100" },
    { NULL, "sample --weights w --samples 0", "--samples 0: must be a whole number from 1" },
    { NULL, "sample --weights w --stop=", "--stop: an empty text stands everywhere" },
    { NULL, "sample --weights w --prompt a --prompts text", "sample: --prompt, --prompt-file and --prompts exclude each other" },
    { NULL, "sample --weights w --prompts none", "none: No such file or directory" },
    { NULL, "sample --weights w --interactive --json", "sample: --interactive goes without --json, --out, --prompts and --samples" },
    { NULL, "sample --weights w --before x", "sample: --before and --after are for --interactive" },
    { NULL, "sample --weights w -o x.png", "sample: --out, --grid and --keep are for models whose tokens are pixels or sound" },
    { image, "sample --weights w", "sample: tiny makes images: name a file with --out FILE.png (or --json for the tokens)" },
    { image, "sample --weights w -o x.jpg", "x.jpg: tiny makes images; name a file that ends in .png" },
    { image, "sample --weights w -o x.png --prompt x", "sample: the tokens of tiny are no text: --prompt, --prompts, --stop and --interactive are for others" },
    { image, "sample --weights w -o x.png --keep 1", "sample: --keep is for --prompt-file" },
    { image, "sample --weights w -o none/x.png", "none/x.png: cannot be written: No such file or directory" },
    { image, "sample --weights w -o x.png --prompt-file text", "text: not a PNG that can be read: Not a PNG file" },
    { image, "sample --weights w -o x.png --prompt-file wide.png", "wide.png: it has 5 x 1 pixels, tiny makes 4 x 2; valid: that width, and at most that height" },
    { sound, "sample --weights w -o x.png", "x.png: tiny makes sound; name a file that ends in .wav" },
    { sound, "sample --weights w -o x.wav --grid", "sample: --grid is for images, with --out FILE.png" },
    { sound, "sample --weights w -o x.wav --prompt-file text", "text: not a sound file that can be read: " },
};

static void bad_input_is_refused_with_one_line(void **state)
{
    (void)state;
    static const unsigned char row[15];
    png_image file = { .version = PNG_IMAGE_VERSION, .width = 5, .height = 1, .format = PNG_FORMAT_RGB };
    assert_true(png_image_write_to_file(&file, "wide.png", 0, row, 0, NULL));
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) assert_refused(program_of(refused[i].before, refused[i].line), refused[i].message);
    assert_false(file_exists("x.png") || file_exists("x.wav") || file_exists(".x.png.partial"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_definition),
        cmocka_unit_test(limits_keep_what_they_say),
        cmocka_unit_test(logits_that_are_no_numbers_are_told),
        cmocka_unit_test(text_is_cut_at_the_first_stop_string_wherever_pieces_end),
        cmocka_unit_test(a_cache_changes_no_sample),
        cmocka_unit_test(a_sample_does_not_depend_on_what_is_beside_it),
        cmocka_unit_test(only_new_tokens_are_computed),
        cmocka_unit_test(samples_of_a_prompt_share_it),
        cmocka_unit_test(samples_end_where_they_should),
        cmocka_unit_test(prompts_come_from_files),
        cmocka_unit_test(a_conversation_stays_in_the_cache),
        cmocka_unit_test(a_conversation_that_is_full_says_so),
        cmocka_unit_test(a_conversation_puts_text_around_lines),
        cmocka_unit_test(an_interrupt_ends_the_reply_and_not_the_conversation),
        cmocka_unit_test(pixels_become_a_png),
        cmocka_unit_test(several_images_are_files_or_a_grid),
        cmocka_unit_test(colours_of_a_palette_become_a_png_and_come_back),
        cmocka_unit_test(samples_of_sound_become_a_wav_and_come_back),
        cmocka_unit_test(bad_input_is_refused_with_one_line),
    };
    return cmocka_run_group_tests(tests, enter_with_weights, leave_folder);
}
