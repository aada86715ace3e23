/* Training ends in the same bits however it gets there: interrupted, killed, resumed, timed, on any number of threads. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define DATA "--data text --held-out 0.1 --threads 2 "

static int enter_with_text(void **state)
{
    if (enter_folder(state) != 0) return -1;
    write_text("text", 20000);
    return 0;
}

static void ok(int status) { if (status != 0) fail_msg("exit status %d: %s", status, program_err); }

/* Both files of a run: weights and state. */
static void assert_same_run(const char *a, const char *b)
{
    char x[64], y[64];
    assert_same_file(a, b);
    snprintf(x, sizeof x, "%s.state", a);
    snprintf(y, sizeof y, "%s.state", b);
    assert_same_file(x, y);
}

static void it_learns(void **state)
{
    (void)state;
    ok(program("train " DATA "--steps 120 --out w --log log"));
    ok(program("eval --data text --weights w --json"));
    double bits = 0;
    assert_int_equal(sscanf(program_out, "{\"bits_per_byte\": %lf", &bits), 1);
    if (!(bits > 1 && bits < 3)) fail_msg("%g bits per byte", bits);
    size_t bytes;
    char *log = (char *)read_file("log", &bytes);
    int lines = 0;
    for (char *c = log; *c; c++) lines += *c == '\n' && c[1] == '{' && strncmp(c + 2, "\"step\"", 6) == 0;
    assert_int_equal(lines, 120);
    assert_contains(log, "\"event\": \"end\", \"step\": 120");
    free(log);
}

static const struct { const char *why, *flags; } variants[] = {
    { "one micro-batch", "--batch 4" },
    { "accumulating three micro-batches", "--batch 12" },
    { "averaging", "--batch 8 --average 0.9" },
    { "nothing held out", "--batch 8 --held-out 0" },
};

/* SIGTERM at step k would be as random as a clock: TINY_STOP_STEP makes the model itself raise it inside that step. */
static int stop_step;
static void set_stop(void)
{
    char text[16];
    snprintf(text, sizeof text, "%d", stop_step);
    setenv("TINY_STOP_STEP", text, 1);
}

static void n_steps_are_k_steps_and_a_resume(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        const char *flags = variants[i].flags;
        ok(program("train " DATA "--steps 40 --out whole %s", flags));
        for (stop_step = 1; stop_step < 40; stop_step += 13) {
            before_program = set_stop;
            assert_int_equal(program("train " DATA "--steps 40 --out part %s", flags), 128 + SIGTERM);
            before_program = NULL;
            assert_contains(program_out, "continue with --resume part");
            ok(program("train --data text --threads 1 --resume part"));
            assert_same_run("whole", "part");
        }
    }
}

static void a_resumed_run_can_go_to_another_name_twice(void **state)
{
    (void)state;
    stop_step = 11;
    ok(program("train " DATA "--steps 30 --out whole"));
    before_program = set_stop;
    assert_int_equal(program("train " DATA "--steps 30 --out part"), 128 + SIGTERM);
    stop_step = 22;
    assert_int_equal(program("train --data text --resume part --out second"), 128 + SIGTERM);
    before_program = NULL;
    ok(program("train --data text --resume second --out third"));
    assert_same_run("whole", "third");
    assert_refused(program("train --data text --resume third"), "third: the run is complete at step 30 of 30; --steps with a larger number");
    ok(program("train --data text --resume third --steps 33"));
    assert_contains(program_out, "note: steps changes from 30 to 33");
    assert_refused(program("train --data text --resume part --seed 9"), "--seed 9: the resumed run has seed 1");
    assert_refused(program("train --data text --resume nothing"), "nothing.state: No such file");
    ok(program("train --data text --resume part --lr 0.5 --out fourth"));
    assert_contains(program_out, "note: lr changes from 0.01 to 0.5");
}

static void every_number_of_threads_gives_the_same_bits(void **state)
{
    (void)state;
    ok(program("train --data text --steps 50 --threads 1 --out one --average 0.99"));
    for (int threads = 2; threads <= 8; threads++) {
        ok(program("train --data text --steps 50 --threads %d --out many --average 0.99", threads));
        assert_same_run("one", "many");
    }
}

static void minutes_are_fixed_to_steps_that_repeat_the_run(void **state)
{
    (void)state;
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    ok(program("train " DATA "--minutes 0.01 --out timed"));
    clock_gettime(CLOCK_MONOTONIC, &ended);
    const char *steps = strstr(program_out, "--steps ");
    assert_non_null(steps);
    assert_true(atoi(steps + 8) > 0);
    assert_true(ended.tv_sec - begun.tv_sec < 60);      /* 0.6, or a multiple of that where other work comes after the steps were fixed */
    ok(program("train " DATA "--steps %d --out counted", atoi(steps + 8)));
    assert_same_run("timed", "counted");
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static void memory_is_the_plan_of_info_and_8_megabytes(void **state)
{
    (void)state;
#ifdef SANITIZED
    skip();
#endif
    ok(program("info --json --threads 2"));
    const char *all = strstr(program_out, "\"all\": ");
    assert_non_null(all);
    size_t plan = strtoull(all + 7, NULL, 10);
    ok(program("train " DATA "--steps 300 --checkpoint-minutes 0 --out w"));
    if (program_peak_bytes > plan + 8000000) fail_msg("%zu bytes resident, plan %zu", program_peak_bytes, plan);
}

static void another_seed_is_another_run(void **state)
{
    size_t a, b;
    (void)state;
    ok(program("train " DATA "--steps 3 --seed 1 --out one"));
    ok(program("train " DATA "--steps 3 --seed 2 --out two"));
    unsigned char *x = read_file("one", &a), *y = read_file("two", &b);
    assert_true(a != b || memcmp(x, y, a) != 0);
    free(x);
    free(y);
}

/* KILLS: how often (50 in a thorough run). A checkpoint after every step, so that kills meet writes often. */
static void a_kill_at_any_moment_leaves_a_pair_that_resumes(void **state)
{
    const char *text = getenv("KILLS");
    int kills = text ? atoi(text) : 10, resumed = 0;
    uint32_t x = 1;
    (void)state;
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    ok(program("train " DATA "--steps 60 --out whole --checkpoint-minutes 0"));
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double whole = (double)(ended.tv_sec - begun.tv_sec) + 1e-9 * (double)(ended.tv_nsec - begun.tv_nsec);
    for (int i = 0; i < kills; i++) {
        char line[256];
        snprintf(line, sizeof line, "train --data text --steps 60 --out part --checkpoint-minutes 0");
        remove("part");
        remove("part.state");
        for (int lives = 0; lives < 3; lives++) {
            pid_t child = program_start(line);
            x = x * 1664525 + 1013904223;
            double wait = whole * 0.6 * (double)(x >> 8) * 0x1p-24;
            nanosleep(&(struct timespec){ (time_t)wait, (long)(1e9 * (wait - (double)(time_t)wait)) }, NULL);
            kill(child, SIGKILL);
            program_wait(child);
            if (!file_exists("part.state")) continue;      /* killed before the first checkpoint */
            resumed++;
            if (file_exists("part")) ok(program("sample --weights part --tokens 1"));
            snprintf(line, sizeof line, "train --data text --resume part --checkpoint-minutes 0");
        }
        int status = program("%s", line);
        if (status != 0) assert_contains(program_err, "the run is complete");
        assert_same_run("whole", "part");
    }
    assert_true(resumed > 0);
}

/* The disk is full: files of this process may not grow beyond 100,000 bytes, between W (34 KB) and W.state (137 KB). */
static void limit_files(void) { setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 100000, 100000 }); }

static void a_full_disk_leaves_the_previous_files(void **state)
{
    (void)state;
    ok(program("train " DATA "--steps 5 --out before"));
    ok(program("train " DATA "--steps 5 --out w"));
    before_program = limit_files;
    int status = program("train " DATA "--steps 9 --out w");
    before_program = NULL;
    assert_refused(status, "w.state: cannot be written: File too large; a previous file of this name is untouched");
    assert_same_run("before", "w");
    assert_false(file_exists(".w.state.partial"));
}

static void set_nan(void) { setenv("TINY_NAN_STEP", "13", 1); }      /* counted in micro-batches */

static void a_loss_that_is_not_finite_stops_with_step_and_tensor(void **state)
{
    (void)state;
    before_program = set_nan;
    int status = program("train " DATA "--steps 20 --batch 4 --out w");
    before_program = NULL;
    assert_refused(status, "step 14: the loss is nan; first non-finite tensor: gradient of 'head.weight'; training stopped; w holds the weights of step");
    ok(program("eval --data text --weights w"));
}

static void the_best_weights_are_kept_and_overfitting_is_said(void **state)
{
    (void)state;
    write_text("short", 700);
    unsigned char noise[700];
    size_t bytes;
    unsigned char *text = read_file("short", &bytes);
    uint32_t x = 7;
    for (int i = 0; i < 700; i++) {
        x = x * 1664525 + 1013904223;
        noise[i] = i < 300 ? text[i] : (unsigned char)('a' + (x >> 24) % 26);      /* what is held out cannot be learnt */
    }
    write_file("short", noise, 700);
    free(text);
    ok(program("train --data short --held-out 0.5 --steps 600 --lr 0.03 --out w --log log"));
    assert_contains(program_out, "overfitting: the held-out loss has risen 3 evaluations in a row; the best weights, of step");
    int step = 0;
    assert_int_equal(sscanf(strstr(program_out, "w: the weights of step "), "w: the weights of step %d", &step), 1);
    assert_true(step < 600);
}

static void averages_are_what_is_saved(void **state)
{
    size_t a, b;
    (void)state;
    ok(program("train " DATA "--steps 10 --average 0.9 --out averaged"));
    assert_contains(program_out, "averaged weights");
    ok(program("train " DATA "--steps 10 --out raw"));
    unsigned char *x = read_file("averaged", &a), *y = read_file("raw", &b);
    assert_true(a != b || memcmp(x, y, a) != 0);
    free(x);
    free(y);
}

static const struct { const char *line, *message; } refused[] = {
    { "train", "train: name the data: --data FILE" },
    { "train --data text", "train: say how long: --steps N or --minutes M" },
    { "train --data text --steps 1 --minutes 1", "--steps and --minutes exclude each other" },
    { "train --data text --steps 1 --batch 6", "--batch 6: must be a multiple of the compiled micro-batch, 4; nearest: 4" },
    { "train --data text --steps 1 --threads 0", "--threads 0: must be a whole number from 1 to 1024" },
    { "train --data text --steps 1 --threads", "--threads needs a value: T" },
    { "train --data text --steps 1 --speed 3", "train: unknown flag '--speed'; valid: --data --steps" },
    { "train --data text --steps 1 --lr fast", "--lr fast: must be a number from 0 to" },
    { "train --data text --steps 1 --lr nan", "--lr nan: must be a number" },
    { "train --data text --steps x", "--steps x: must be a whole number" },
    { "train --data text --steps 1 --held-out 1", "--held-out 1: must be a number from 0 to 0.999" },
    { "train --data none --steps 1", "none: No such file or directory" },
    { "train --data empty --steps 1", "empty: 0 bytes; one context of this model and the byte after it need at least 33" },
    { "train --data tooshort --steps 1", "tooshort: 32 bytes; one context of this model and the byte after it need at least 33" },
    { "train --data shortish --steps 1", "shortish: 30 bytes are left for training after holding out 3; one context of this model and the byte after it need at least 33" },
    { "train --data text --steps 1 --out nowhere/w", "nowhere/w: cannot be written: No such file" },
    { "train --data text --steps 1 --out .", ".: a folder; name a file" },
    { "train --data text --steps 1 --weights none", "none: No such file" },
    { "train --data odd.u16 --steps 1", "odd.u16: 101 bytes are no whole number of 2-byte tokens" },
    { "train --data big.u16 --steps 1", "big.u16: token 7 (offset 14) is 300; this model's ids are 0 to 255" },
    { "train --data big --tokens-u32 --steps 1", "big: token 3 (offset 12) is 19660800; this model's ids are 0 to 255" },
};

static void bad_input_is_refused_with_one_line(void **state)
{
    (void)state;
    static unsigned char zeros[400];
    write_file("empty", "", 0);
    write_text("tooshort", 32);
    write_text("shortish", 33);
    write_file("odd.u16", zeros, 101);
    zeros[14] = 300 & 255;
    zeros[15] = 300 >> 8;
    write_file("big.u16", zeros, 400);
    write_file("big", zeros, 400);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) assert_refused(program("%s", refused[i].line), refused[i].message);
}

static void token_files_are_read(void **state)
{
    (void)state;
    size_t bytes;
    unsigned char *text = read_file("text", &bytes), *wide = calloc(4, bytes);
    for (size_t i = 0; i < bytes; i++) wide[2 * i] = text[i];
    write_file("text.u16", wide, 2 * bytes);
    memset(wide, 0, 4 * bytes);
    for (size_t i = 0; i < bytes; i++) wide[4 * i] = text[i];
    write_file("text32", wide, 4 * bytes);
    free(text);
    free(wide);
    ok(program("train " DATA "--steps 5 --out bytes"));
    ok(program("train --data text.u16 --steps 5 --out u16"));
    ok(program("train --data text32 --tokens-u32 --steps 5 --out u32"));
    assert_same_file("bytes", "u16");
    assert_same_file("bytes", "u32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_learns),
        cmocka_unit_test(n_steps_are_k_steps_and_a_resume),
        cmocka_unit_test(a_resumed_run_can_go_to_another_name_twice),
        cmocka_unit_test(every_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(minutes_are_fixed_to_steps_that_repeat_the_run),
        cmocka_unit_test(memory_is_the_plan_of_info_and_8_megabytes),
        cmocka_unit_test(another_seed_is_another_run),
        cmocka_unit_test(a_kill_at_any_moment_leaves_a_pair_that_resumes),
        cmocka_unit_test(a_full_disk_leaves_the_previous_files),
        cmocka_unit_test(a_loss_that_is_not_finite_stops_with_step_and_tensor),
        cmocka_unit_test(the_best_weights_are_kept_and_overfitting_is_said),
        cmocka_unit_test(averages_are_what_is_saved),
        cmocka_unit_test(bad_input_is_refused_with_one_line),
        cmocka_unit_test(token_files_are_read),
    };
    return cmocka_run_group_tests_name("train", tests, enter_with_text, leave_folder);
}
