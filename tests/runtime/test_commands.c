/* eval, sample, run, info, bench and the command line. */
#include "support.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../runtime/app/app.h"
#include "../../runtime/app/data.h"

static void ok(int status) { if (status != 0) fail_msg("exit status %d: %s", status, program_err); }

static int enter_with_weights(void **state)
{
    if (enter_folder(state) != 0) return -1;
    write_text("text", 3000);
    return program("train --data text --steps 60 --out w") == 0 ? 0 : -1;
}

/* ---- which positions eval scores -------------------------------------------------------------------------------- */

static void every_held_out_position_is_scored_once_with_enough_context(void **state)
{
    static const double held[] = { 1, 0.9, 0.5, 0.1, 0.01, 0.001 };
    static const int sizes[] = { 33, 34, 47, 48, 49, 64, 65, 100, 1000 };
    (void)state;
    for (size_t f = 0; f < sizeof held / sizeof held[0]; f++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            for (int64_t stride = 1; stride <= hd_model.length; stride += stride == 1 ? 6 : 5) {
                write_text("sized", (size_t)sizes[s]);
                hd_data data = hd_data_open("sized", 0, held[f]);
                unsigned char times[1000] = { 0 };
                int64_t from = data.held_start ? data.held_start : 1;
                for (int64_t i = 0; i < hd_data_spans(&data, stride); i++) {
                    hd_data_span span = hd_data_get_span(&data, stride, i);
                    assert_true(span.start >= 0 && span.start + hd_model.length < data.count);
                    assert_true(span.first > span.start && span.last <= span.start + hd_model.length + 1 && span.first < span.last);
                    for (int64_t p = span.first; p < span.last; p++) {
                        times[p]++;
                        int64_t context = p - span.start, possible = p < hd_model.length ? p : hd_model.length;
                        assert_true(context >= possible - stride + 1 || span.start == 0);
                    }
                }
                for (int64_t p = 0; p < data.count; p++) assert_int_equal(times[p], p >= from);
                hd_file_close(data.map);
            }
}

static double number_after(const char *text, const char *key)
{
    const char *found = strstr(text, key);
    if (!found) fail_msg("no %s in %s", key, text);
    return strtod(found + strlen(key), NULL);
}

/* The tiny model sees one byte of context, so every stride must give the same sum, and it is a table of pairs. */
static void eval_gives_the_same_bits_for_every_stride_and_thread_count(void **state)
{
    (void)state;
    ok(program("eval --data text --weights w --json --held-out 0.2 --stride 32"));
    double bits = number_after(program_out, "\"bits_per_byte\": ");
    assert_int_equal((int)number_after(program_out, "\"tokens\": "), 600);
    assert_true(number_after(program_out, "\"seconds\": ") >= 0);
    for (int stride = 1; stride < 32; stride += 7)
        for (int threads = 1; threads <= 3; threads++) {
            ok(program("eval --data text --weights w --json --held-out 0.2 --stride %d --threads %d", stride, threads));
            assert_true(fabs(number_after(program_out, "\"bits_per_byte\": ") - bits) < 1e-6);
            assert_int_equal((int)number_after(program_out, "\"tokens\": "), 600);
        }
    ok(program("eval --data text --weights w --json --held-out 1"));
    assert_int_equal((int)number_after(program_out, "\"tokens\": "), 3000);
}

/* ---- sample ----------------------------------------------------------------------------------------------------- */

static void a_sample_continues_the_prompt_beyond_the_length(void **state)
{
    (void)state;
    ok(program("sample --weights w --prompt heddle --tokens 100 --seed 3 --slide"));
    assert_int_equal(strlen(program_out), 6 + 100 + 1);
    assert_int_equal(strncmp(program_out, "heddle", 6), 0);
    char first[256];
    strcpy(first, program_out);
    ok(program("sample --weights w --prompt heddle --tokens 100 --seed 3 --threads 1 --slide"));
    assert_string_equal(program_out, first);
    ok(program("sample --weights w --prompt heddle --tokens 100 --seed 4 --slide"));
    assert_string_not_equal(program_out, first);
    ok(program("sample --weights w --prompt heddleheddleheddleheddleheddleheddleheddle --tokens 5 --slide"));
    assert_int_equal(strlen(program_out), 42 + 5 + 1);
    ok(program("sample --weights w --tokens 0 --prompt x"));
    assert_string_equal(program_out, "x\n");
}

static void temperature_0_top_1_and_a_tiny_top_p_are_greedy(void **state)
{
    (void)state;
    ok(program("sample --weights w --prompt the --tokens 30 --temperature 0"));
    char greedy[256];
    strcpy(greedy, program_out);
    ok(program("sample --weights w --prompt the --tokens 30 --temperature 0.7 --top-k 1 --seed 8"));
    assert_string_equal(program_out, greedy);
    ok(program("sample --weights w --prompt the --tokens 30 --temperature 2 --top-p 0.000001 --seed 9"));
    assert_string_equal(program_out, greedy);
}

/* ---- run -------------------------------------------------------------------------------------------------------- */

static void write_inputs(const char *path, float lr)
{
    static const char header[] = "{\"tokens\":{\"dtype\":\"I32\",\"shape\":[4,32],\"data_offsets\":[0,512]},\"targets\":{\"dtype\":\"I32\",\"shape\":[4,32],\"data_offsets\":[512,1024]},"
                                 "\"hyper\":{\"dtype\":\"F32\",\"shape\":[16],\"data_offsets\":[1024,1088]},\"random\":{\"dtype\":\"I32\",\"shape\":[4],\"data_offsets\":[1088,1104]},"
                                 "\"surplus\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1104,1108]}}";
    unsigned char file[8 + sizeof header - 1 + 1108] = { 0 };
    float hyper[16] = { lr, 0.9f, 0.99f, 1e-8f, 0, 0, 0.1f, 0.01f, 1, 0, 1 };
    for (int i = 0; i < 2; i++) file[i] = (unsigned char)((sizeof header - 1) >> 8 * i);
    memcpy(file + 8, header, sizeof header - 1);
    unsigned char *data = file + 8 + sizeof header - 1;
    for (int i = 0; i < 128; i++) {
        data[4 * i] = (unsigned char)(i % 7 + 'a');
        data[512 + 4 * i] = (unsigned char)((i + 1) % 7 + 'a');
    }
    memcpy(data + 1024, hyper, sizeof hyper);
    write_file(path, file, sizeof file);
}

static float *tensor_at(const char *path, size_t offset, unsigned char **file)
{
    size_t bytes;
    *file = read_file(path, &bytes);
    assert_non_null(*file);
    return (float *)(void *)(*file + 8 + (*file)[0] + 256u * (*file)[1] + offset);
}

/* dL/db of head.bias by run train_step agrees with a central difference of run loss. */
static void run_gives_gradients_that_differences_confirm(void **state)
{
    unsigned char *file, *shifted;
    float loss[2];
    (void)state;
    write_inputs("in", 0);
    ok(program("run train_step --in in --weights w --state-out s --out o --weights-out same"));
    assert_same_file("same", "same");
    float gradient = tensor_at("s", 32768 + 4 * 'b', &file)[0];
    free(file);
    for (int side = 0; side < 2; side++) {
        size_t bytes;
        shifted = read_file("same", &bytes);
        float *bias = (float *)(void *)(shifted + 8 + shifted[0] + 256u * shifted[1] + 32768 + 4 * 'b'), value;
        memcpy(&value, bias, 4);
        value += side ? 0.05f : -0.05f;
        memcpy(bias, &value, 4);
        write_file("shifted", shifted, bytes);
        free(shifted);
        ok(program("run loss --in in --weights shifted --out l"));
        loss[side] = tensor_at("l", 0, &file)[0];
        free(file);
    }
    /* dropout is on in one and off in the other, so the two agree only nearly */
    if (fabsf((loss[1] - loss[0]) / 0.1f - gradient) > 0.02f) fail_msg("difference %g, gradient %g", (double)(loss[1] - loss[0]) / 0.1, (double)gradient);
}

static void two_train_steps_through_files_need_the_state(void **state)
{
    (void)state;
    write_inputs("in", 0.01f);
    ok(program("run train_step --in in --weights w --weights-out w1 --state-out s1"));
    ok(program("run train_step --in in --weights w1 --state-in s1 --weights-out w2 --state-out s2"));
    ok(program("run train_step --in in --weights w1 --weights-out other"));
    size_t a, b;
    unsigned char *x = read_file("w2", &a), *y = read_file("other", &b);
    assert_true(a == b && memcmp(x, y, a) != 0);
    free(x);
    free(y);
    assert_refused(program("run loss --in in --weights w --out o --state-out s"), "entry loss does not train");
}

static void used_positions_do_not_depend_on_the_others(void **state)
{
    unsigned char *a, *b;
    (void)state;
    write_inputs("in", 0);
    ok(program("run forward --in in --weights w --out all"));
    ok(program("run forward --in in --weights w --out part --sequences 1 --used 5"));
    assert_memory_equal(tensor_at("all", 0, &a), tensor_at("part", 0, &b), 5 * 256 * 4);
    free(a);
    free(b);
    assert_refused(program("run forward --in in --weights w --out part --used 33"), "--used 33: at most 32");
    assert_refused(program("run forward --in in --weights w --out part --sequences 5"), "--sequences 5: at most 4");
}

/* ---- info, bench, the command line ------------------------------------------------------------------------------ */

static void info_and_bench_print_the_keys_that_scripts_read(void **state)
{
    (void)state;
    ok(program("info --json"));
    assert_contains(program_out, "\"parameters\": 8448");
    assert_contains(program_out, "\"memory\": {");
    assert_contains(program_out, "\"weights\": 33792");
    assert_contains(program_out, "\"kept_pairs\": 32, \"density\": 0.03125");
    assert_contains(program_out, "\"config\": {\"length\": \"32\", \"width\": \"16\"}");
    assert_contains(program_out, "\"target\": \"any\", \"variants\": [\"any\", \"cached\", ");
    ok(program("info"));
    assert_contains(program_out, "parameters: 8448");
    ok(program("bench --json --seconds 0.05"));
    assert_contains(program_out, "\"entry\": \"train_step\"");
    assert_true(number_after(program_out, "\"peak_gflops\": ") > 0);
    assert_true(number_after(program_out, "\"read_gbs\": ") > 0);
    assert_contains(program_out, "\"total\": {\"ms\": ");
    assert_contains(program_out, "\"share_of_peak\": ");
    assert_contains(program_out, "{\"kernel\": \"join\", \"where\": \"tiny.lua:1\", \"calls\": 1, ");
    assert_contains(program_out, "\"limit\": \"");
    assert_contains(program_out, "{\"level\": \"memory\", \"read_gbs\": ");
    assert_contains(program_out, "\"memory\": [{\"threads\": 1, ");
    assert_true(number_after(program_out, "\"copy_gbs\": ") > 0);
    const char *total = strstr(program_out, "\"total\": ");
    assert_float_equal(number_after(total, "\"useful_gflops\": ") / number_after(total, "\"gflops\": "), 2.0 / 3, 1e-4);
    assert_float_equal(number_after(total, "\"share_of_roofline\": "), number_after(total, "\"roofline_ms\": ") / number_after(total, "\"ms\": "), 1e-4);
    assert_true(number_after(total, "\"kernels_ms\": ") > 0 && number_after(total, "\"roofline_ms\": ") > 0 && number_after(total, "\"outside_ms\": ") >= 0);
    ok(program("bench loss --threads 1 --seconds 0.05"));
    assert_contains(program_out, "tiny loss, 1 thread, median of");
    assert_contains(program_out, "compiled for any\n");
    assert_contains(program_out, "useful (products, and kept pairs of attention; nothing computed again)");
    ok(program("bench loss --seconds 0.05 --quantile 0.1"));
    assert_contains(program_out, ", quantile 0.1 of ");
}

static const struct { const char *line, *message; } refused[] = {
    { "fly", "unknown command 'fly'; valid: info train eval sample attention tokenize run bench --help --version" },
    { "info now", "info: unexpected argument 'now'; valid: --json" },
    { "eval", "eval: name the data: --data FILE" },
    { "eval --data text", "eval: name the weights: --weights FILE" },
    { "eval --data text --weights w --stride 0", "--stride 0: must be a whole number from 1 to 32" },
    { "eval --data text --weights w --stride 33", "--stride 33: must be a whole number from 1 to 32" },
    { "eval --data text --weights w --held-out 0", "--held-out 0: nothing would be measured" },
    { "eval --data text --weights w --held-out 1.5", "--held-out 1.5: must be a number from 0 to 1" },
    { "eval --data text --weights text", "text: not a whole safetensors file" },
    { "eval --data text --weights w --json=yes", "--json takes no value" },
    { "eval --data in --weights w -q", "eval: unknown flag '-q'; valid: --data --weights" },
    { "sample", "sample: name the weights: --weights FILE (tiny train writes them)" },
    { "sample --weights folder", "folder: a folder that holds no *.safetensors file; weights are model.safetensors, or shards" },
    { "sample --weights w --temperature -1", "--temperature -1: must be a number from 0 to 1000" },
    { "sample --weights w --temperature nan", "--temperature nan: must be a number from 0 to 1000" },
    { "sample --weights w --top-p 0", "--top-p 0: must be a number from 1e-09 to 1" },
    { "sample --weights w --top-p -0.5", "--top-p -0.5: must be a number" },
    { "sample --weights w --top-p 1.01", "--top-p 1.01: must be a number" },
    { "sample --weights w --top-k -1", "--top-k -1: must be a whole number from 0" },
    { "sample --weights w --tokens -1", "--tokens -1: must be a whole number from 0" },
    { "sample --weights w --tokens 1e3", "--tokens 1e3: must be a whole number" },
    { "sample --weights w --threads 0", "--threads 0: must be a whole number from 1 to 1024" },
    { "run", "tiny has no entry ''; it has: forward loss train_step" },
    { "run forward", "run: name the outputs: --out FILE" },
    { "run forward --out y", "run forward: name the inputs: --in FILE" },
    { "run forward loss --out y", "run: unexpected argument 'loss'" },
    { "bench nothing", "tiny has no entry 'nothing'; it has: forward loss train_step" },
};

static void bad_input_is_refused_with_one_line(void **state)
{
    (void)state;
    write_inputs("in", 0);
    assert_int_equal(mkdir("folder", 0777), 0);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) assert_refused(program("%s", refused[i].line), refused[i].message);
    assert_refused(program("%s", ""), "tiny: name a command");
    assert_false(file_exists("y"));
}

/* ---- train with what does not fit: one line, and no file is touched -------------------------------------------------- */

#define LONG "longer-long45678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" \
             "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"

static const struct { const char *flags, *message; bool as_nobody; } refused_training[] = {
    { "--data text --steps 0", "--steps 0: must be a whole number from 1 to 1000000000000", false },
    { "--data text --steps -3", "--steps -3: must be a whole number from 1", false },
    { "--data text --steps 99999999999999999999", "--steps 99999999999999999999: must be a whole number", false },
    { "--data text --minutes 0", "--minutes 0: must be a number from 1e-06 to 1e+06", false },
    { "--data text --minutes -1", "--minutes -1: must be a number", false },
    { "--data text --minutes nan", "--minutes nan: must be a number", false },
    { "--data text --minutes inf", "--minutes inf: must be a number", false },
    { "--data text --steps 1 --threads 0", "--threads 0: must be a whole number from 1 to 1024", false },
    { "--data text --steps 1 --threads 1025", "--threads 1025: must be a whole number from 1 to 1024", false },
    { "--data text --steps 1 --batch 0", "--batch 0: must be a whole number from 1", false },
    { "--data text --steps 1 --batch 2", "--batch 2: must be a multiple of the compiled micro-batch, 4; nearest: 4", false },
    { "--data text --steps 1 --held-out nan", "--held-out nan: must be a number", false },
    { "--data folder --steps 1", "folder: a folder; name a file", false },
    { "--data pipe --steps 1", "pipe: not a regular file", false },
    { "--data secret --steps 1", "secret: Permission denied", true },
    { "--data= --steps 1", ": No such file or directory", false },
    { "--data text --steps 1 --out folder", "folder: a folder; name a file", false },
    { "--data text --steps 1 --out folder/", "folder/: a folder; name a file", false },
    { "--data text --steps 1 --out taken", "taken.state: a folder; name a file", false },
    { "--data text --steps 1 --out " LONG, "cannot be written: File name too long", false },
    { "--data text --steps 1 --out text", "train: text would be written over text; name another file", false },
    { "--data w.state --steps 1 --out w", "train: w.state would be written over w.state", false },
    { "--data text --steps 1 --out locked/y", "locked/y: cannot be written: Permission denied", true },
    { "--data text --steps 1 --log text", "train: text would be written over text; name another file", false },
    { "--data text --steps 1 --log link", "train: link would be written over text; name another file", false },
    { "--data text --steps 1 --log new --out new", "train: new would be written over new; name another file", false },
    { "--data text --steps 1 --log new.state --out new", "train: new.state would be written over new.state", false },
    { "--data text --steps 1 --log folder", "folder: cannot be written: Is a directory", false },
    { "--data text --steps 1 --log locked/l", "locked/l: cannot be written: Permission denied", true },
    { "--data text --steps 1 --weights in --log l", "in: 3 of the 3 tensors of model tiny missing: 'transformer.embed.weight' [256, 16], 'head.weight' [256, 16], 'head.bias' [256]", false },
    { "--data text --steps 1 --weights text", "text: not a whole safetensors file", false },
    { "--data text --steps 1 --weights w.state", "w.state: 3 of the 3 tensors of model tiny missing", false },
    { "--data text --steps 1 --weights nan --log l", "nan: tensor 'head.bias' holds values that are not finite: training cannot start there", false },
    { "--data text --steps 1 --weights huge", "step 1: the loss is inf, weights and gradients are finite: it overflows in the model; training stopped; nothing was written", false },
    { "--data text --resume nan", "nan.state: No such file or directory", false },
    { "--data text --resume w --weights w", "train: --resume and --weights exclude each other", false },
};

/* Weights like w whose head.bias['b'] is this. */
static void write_weights_with(const char *path, float value)
{
    unsigned char *file;
    size_t bytes;
    float *bias = tensor_at("w", 0, &file) + 8192 + 'b';
    memcpy(bias, &value, sizeof value);
    free(read_file("w", &bytes));
    write_file(path, file, bytes);
    free(file);
}

static void become_nobody(void)
{
    if (geteuid() == 0 && setuid(65534) != 0) _exit(77);
}

static void training_refuses_with_one_line_and_touches_no_file(void **state)
{
    (void)state;
    write_inputs("in", 0);
    write_weights_with("nan", NAN);
    write_weights_with("huge", 3e38f);
    write_file("secret", "secret", 6);
    ok(program("train --data text --steps 3 --out kept --log kept.log"));
    ok(program("train --data text --steps 3 --out y --log l"));
    write_text("same", 3000);
    assert_true(chmod("secret", 0) == 0 && mkdir("taken.state", 0777) == 0 && mkdir("locked", 0555) == 0 && mkfifo("pipe", 0666) == 0 &&
                symlink("text", "link") == 0 && chmod(".", 0777) == 0);
    size_t before, after;
    char *log = (char *)read_file("l", &before);
    for (size_t i = 0; i < sizeof refused_training / sizeof refused_training[0]; i++) {
        const char *flags = refused_training[i].flags;
        before_program = refused_training[i].as_nobody ? become_nobody : NULL;
        int status = program("train %s%s", flags, strstr(flags, "--out") || strstr(flags, "--resume") ? "" : " --out y");
        before_program = NULL;
        if (status != 1) print_error("train %s\n", flags);
        assert_refused(status, refused_training[i].message);
        assert_same_file("text", "same");
        assert_same_file("y", "kept");
        assert_same_file("y.state", "kept.state");
        char *now = (char *)read_file("l", &after);
        assert_string_equal(now, log);
        free(now);
        assert_false(file_exists("new") || file_exists("new.state") || file_exists(LONG) || file_exists(".y.partial") || file_exists(".y.state.partial") || file_exists("taken"));
    }
    free(log);
}

static void weights_that_are_not_finite_are_warned_about(void **state)
{
    (void)state;
    assert_int_equal(program("sample --weights nan --prompt x"), 1);
    assert_contains(program_err, "warning: nan: tensor 'head.bias' holds values that are not finite\n");
    assert_contains(program_err, "sample: the logit of id 98 is nan; are the weights those of a run that went well?\n");
    assert_int_equal(program("eval --data text --weights nan"), 1);
    assert_contains(program_err, "nan: the loss is not finite; first bad tensor: head.bias");
    ok(program("sample --weights huge --prompt x --tokens 3"));
    assert_string_equal(program_out, "xbbb\n");
}

/* ---- more than the usual --------------------------------------------------------------------------------------------- */

static void data_beyond_4_gigabytes_is_read_where_it_lies(void **state)
{
    enum { TAIL = 3000 };
    const int64_t size = INT64_C(5) << 30;
    size_t bytes;
    (void)state;
    FILE *big = fopen("big", "wb");
    assert_non_null(big);
    if (ftruncate(fileno(big), size) != 0) {                 /* no sparse files here */
        fclose(big);
        skip();
    }
    unsigned char *tail = read_file("text", &bytes);
    assert_true(fseeko(big, size - TAIL, SEEK_SET) == 0 && fwrite(tail, 1, TAIL, big) == TAIL && fclose(big) == 0);
    free(tail);
    ok(program("eval --data big --weights w --json --held-out 2e-7"));
    double bits = number_after(program_out, "\"bits_per_byte\": ");
    assert_int_equal((int)number_after(program_out, "\"tokens\": "), 1074);
    ok(program("eval --data text --weights w --json --held-out 0.358"));
    assert_true(bits == number_after(program_out, "\"bits_per_byte\": "));
    ok(program("train --data big --steps 2 --out big.w"));
    assert_contains(program_out, "4831838208 bytes to learn from, 536870912 held out");
    remove("big");
}

static void a_thousand_threads_give_the_bits_of_one(void **state)
{
    (void)state;
    ok(program("train --data text --steps 2 --threads 1 --out one"));
    int status = program("train --data text --steps 2 --threads 1000 --out thousand");
    if (status) assert_refused(status, "--threads 1000: cannot start them: ");    /* a limit on processes */
    else assert_same_file("one.state", "thousand.state");
}

static void an_empty_prompt_is_none(void **state)
{
    (void)state;
    ok(program("sample --weights w --prompt= --tokens 30 --temperature 0"));
    assert_int_equal(strlen(program_out), 30 + 1);
    char first[64];
    strcpy(first, program_out);
    ok(program("sample --weights w --tokens 30 --temperature 0"));
    assert_string_equal(program_out, first);
}

static int terminal;
static void to_terminal(void) { dup2(terminal, 1); }

static void a_sample_on_a_terminal_ends_the_line_and_cannot_steer_it(void **state)
{
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0 || (terminal = open(ptsname(master), O_RDWR | O_NOCTTY)) < 0) skip();
    before_program = to_terminal;
    int status = program("sample --weights w --temperature 1000 --tokens 1000 --slide");     /* all bytes nearly equally likely */
    before_program = NULL;
    ok(status);
    unsigned char text[4096];
    ssize_t bytes = read(master, text, sizeof text);
    if (bytes <= 1000) fail_msg("%zd bytes", bytes);
    for (ssize_t i = 0; i < bytes; i++)
        if ((text[i] < 32 && !strchr("\r\n\t", text[i])) || text[i] == 127) fail_msg("byte %d on the terminal", text[i]);
    assert_int_equal(text[bytes - 1], '\n');
    close(master);
    close(terminal);
    ok(program("sample --weights w --temperature 1000 --tokens 1000 --slide"));
    assert_non_null(memchr(program_out, 27, 1000));          /* a file gets every byte as it is */
}

static void to_full_device(void) { dup2(open("/dev/full", O_WRONLY), 1); }

static void output_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    if (!file_exists("/dev/full")) skip();
    before_program = to_full_device;
    int status = program("sample --weights w --tokens 3");
    assert_refused(status, "sample: standard output cannot be written");
    assert_refused(program("info --json"), "info: standard output cannot be written");
    before_program = NULL;
    assert_refused(program("train --data text --steps 1 --out z --log /dev/full"), "/dev/full: cannot be written: No space left on device");
    assert_true(file_exists("z"));
}

static void help_and_version_succeed(void **state)
{
    static const char *const commands[] = { "info", "train", "eval", "sample", "attention", "run", "bench" };
    (void)state;
    ok(program("--version"));
    assert_contains(program_out, "tiny, made by heddle test");
    ok(program("--help"));
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        assert_contains(program_out, commands[i]);
        ok(program("%s --help", commands[i]));
        assert_contains(program_out, "--threads T");
        ok(program("--help"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_held_out_position_is_scored_once_with_enough_context),
        cmocka_unit_test(eval_gives_the_same_bits_for_every_stride_and_thread_count),
        cmocka_unit_test(a_sample_continues_the_prompt_beyond_the_length),
        cmocka_unit_test(temperature_0_top_1_and_a_tiny_top_p_are_greedy),
        cmocka_unit_test(run_gives_gradients_that_differences_confirm),
        cmocka_unit_test(two_train_steps_through_files_need_the_state),
        cmocka_unit_test(used_positions_do_not_depend_on_the_others),
        cmocka_unit_test(info_and_bench_print_the_keys_that_scripts_read),
        cmocka_unit_test(bad_input_is_refused_with_one_line),
        cmocka_unit_test(training_refuses_with_one_line_and_touches_no_file),
        cmocka_unit_test(weights_that_are_not_finite_are_warned_about),
        cmocka_unit_test(data_beyond_4_gigabytes_is_read_where_it_lies),
        cmocka_unit_test(a_thousand_threads_give_the_bits_of_one),
        cmocka_unit_test(an_empty_prompt_is_none),
        cmocka_unit_test(a_sample_on_a_terminal_ends_the_line_and_cannot_steer_it),
        cmocka_unit_test(output_that_cannot_be_written_is_an_error),
        cmocka_unit_test(help_and_version_succeed),
    };
    return cmocka_run_group_tests_name("commands", tests, enter_with_weights, leave_folder);
}
