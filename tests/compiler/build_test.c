/* heddle as its users call it: what it makes agrees with the interpreter for every model, target and compiler; its output
 * compiles without warnings and repeats byte for byte; a large model costs little; every mistake gets one clear line.
 * Run from the repository's root. */
#include "tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HERE FOLDER_OF("build")
#define SMALL "-D length=48 -D layers=2 -D width=24 -D heads=2 -D inner=40 -D vocab=61 -D stride=5 -D window=7 -D batch=2"

static bool has(const char *program) { return command("sh -c 'command -v %s'", program) == 0; }

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

/* ---- cost ---- */

/* 30 layers, width 512, length 12,288: 1 s and 64 MB. The seconds are the processor's, as other work may share the machine, and
 * doubled for slower ones. The compiler is asked its version only, by a script that costs nothing. */
static void emitting_a_large_model_costs_little(void **state)
{
    (void)state;
    if (getenv("HEDDLE_SANITIZE")) skip();
    hd_write_file(HERE "/cc", "#!/bin/sh\necho clang version 22\n", 30);
    must("chmod +x " HERE "/cc");
    const char **argv = words(hd_format("%s emit models/text.lua -o " HERE "/large --cc " HERE "/cc -D layers=30 -D width=512 -D heads=8 -D inner=2048 -D length=12288 -D stride=128 -D batch=1", heddle()));
    double best = 1e9;
    long most = 0;
    for (int i = 0; i < 3; i++) {
        const pid_t child = fork();
        if (!child) {
            execv(argv[0], (char *const *)argv);
            _exit(127);
        }
        int status;
        struct rusage usage;
        assert_true(wait4(child, &status, 0, &usage) == child);
        assert_int_equal(status, 0);
        const double took = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
        if (took < best) best = took;
        if (usage.ru_maxrss > most) most = usage.ru_maxrss;
    }
    print_message("emit: %.2f s, %.1f MB resident at most\n", best, (double)most / 1024);
    assert_true(best < 2);
    assert_true(most < 64 * 1024);
}

/* ---- numbers ---- */

/* asan: also with the sanitizers, whose compiling takes a minute for most */
static const struct { const char *why, *arguments; bool asan; } checked[] = {
    { "strided text",                   "models/text.lua " SMALL, false },
    { "causal text",                    "models/text.lua " SMALL " -D pattern=causal", false },
    { "text with a window",             "models/text.lua " SMALL " -D pattern=window", false },
    { "recomputed blocks",              "models/text.lua " SMALL " -D recompute=true", false },
    { "recomputed blocks with dropout", "models/text.lua " SMALL " -D recompute=true -D dropout=0.1 -D pattern=causal", true },
    { "everything is 1",                "models/text.lua -D length=1 -D layers=1 -D width=2 -D heads=1 -D inner=1 -D vocab=2 -D stride=1 -D batch=1", true },
    { "primes",                         "models/text.lua -D length=37 -D layers=1 -D width=26 -D heads=1 -D inner=31 -D vocab=101 -D stride=7 -D batch=3", true },
    { "a stride beyond the length",     "models/text.lua " SMALL " -D stride=100", false },
    { "one wide head",                  "models/text.lua " SMALL " -D width=130 -D heads=1", false },
    { "gpt2",                           "models/gpt2.lua -D length=33 -D positions=40 -D layers=2 -D width=24 -D heads=3 -D vocab=67 -D batch=2", false },
    { "gpt2, odd sizes, dropout",       "models/gpt2.lua -D length=7 -D positions=7 -D layers=1 -D width=15 -D heads=5 -D vocab=11 -D batch=1 -D dropout=0.2 -D recompute=true", true },
    { "enwik8: heads with summaries",   "models/enwik8.lua -D length=50 -D layers=2 -D width=24 -D heads=4 -D inner=40 -D qk_width=24 -D vocab=31 -D chunk=8 -D summary=2 -D batch=2", false },
    { "cifar10: half-size queries",     "models/cifar10.lua -D length=100 -D layers=2 -D width=16 -D heads=2 -D inner=24 -D qk_width=8 -D vocab=30 -D stride=9", false },
    { "music: rows in chunks",          "models/music.lua -D length=64 -D layers=2 -D width=16 -D heads=2 -D vocab=30 -D chunks=4", true },
    { "attention, causal",              "models/attention.lua -D pattern=causal -D length=67 -D heads=2 -D head_dim=16", true },
    { "attention, full",                "models/attention.lua -D pattern=full -D length=33 -D heads=3 -D head_dim=5", true },
    { "attention, window",              "models/attention.lua -D pattern=window -D window=11 -D length=100 -D heads=2 -D head_dim=8", true },
    { "attention, window of 1",         "models/attention.lua -D pattern=window -D window=1 -D length=17 -D heads=1 -D head_dim=3", true },
    { "attention, stride",              "models/attention.lua -D pattern=stride -D stride=6 -D length=101 -D heads=2 -D head_dim=20", true },
    { "attention, strided, shared keys", "models/attention.lua -D pattern=strided -D stride=12 -D length=150 -D heads=4 -D kv_heads=2 -D head_dim=32", true },
    { "attention, fixed, head by head", "models/attention.lua -D pattern=fixed -D stride=12 -D summary=3 -D length=130 -D heads=4 -D head_dim=8", true },
    { "attention, global tokens",       "models/attention.lua -D pattern=longformer -D window=5 -D tokens=3 -D length=90 -D heads=2 -D head_dim=8", true },
    { "attention, one position",        "models/attention.lua -D pattern=strided -D stride=4 -D length=1 -D heads=1 -D head_dim=1", true },
};

static int disagreements(const char *why, const char *more, const char *arguments)
{
    const double start = seconds();
    const int status = command("%s check%s%s %s", heddle(), sanitize(), more, arguments);
    print_message("%-32s%s %s, %.1f s\n", why, more, status ? "DISAGREES" : "agrees", seconds() - start);
    if (status) print_message("heddle check%s %s\n%s\n", more, arguments, said);
    return status != 0;
}

static void compiled_models_agree_with_the_interpreter(void **state)
{
    (void)state;
    int wrong = 0;
    for (unsigned i = 0; i < sizeof checked / sizeof *checked; i++)
        if (checked[i].asan || !getenv("HEDDLE_SANITIZE")) wrong += disagreements(checked[i].why, "", checked[i].arguments);
    if (wrong) fail_msg("%d of %d disagree", wrong, (int)(sizeof checked / sizeof *checked));
}

static void every_target_and_compiler_agrees_with_the_interpreter(void **state)
{
    (void)state;
    static const char *const compilers[] = { "clang-14", "gcc-12" };      /* the oldest that must do */
    static const char *const attention = "models/attention.lua -D pattern=strided -D stride=12 -D length=100 -D heads=2 -D head_dim=24";
    static const char *const text = "models/text.lua " SMALL " -D dropout=0.1";
    int wrong = 0;
    const struct { const char *name; bool runs; } targets[] = {
        { "x86-64-v4", __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") },
        { "x86-64-v3", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") },
        { "x86-64-v1", true },            /* variants_test has x86-64: all three in one program */
    };
    for (unsigned i = 0; i < sizeof targets / sizeof *targets; i++) {
        if (!targets[i].runs) continue;
        if (!getenv("HEDDLE_SANITIZE")) wrong += disagreements("text", hd_format(" --target %s", targets[i].name), text);
        wrong += disagreements("attention", hd_format(" --target %s", targets[i].name), attention);
    }
    if (!getenv("HEDDLE_SANITIZE"))       /* the sanitizers' runtime is that of one compiler */
        for (unsigned i = 0; i < sizeof compilers / sizeof *compilers; i++) {
            if (!has(compilers[i])) continue;
            wrong += disagreements("text", hd_format(" --cc %s", compilers[i]), text);
            wrong += disagreements("attention", hd_format(" --cc %s", compilers[i]), attention);
        }
    assert_int_equal(wrong, 0);
}

static void sanitized_programs_train_and_sample(void **state)
{
    (void)state;
    write_words(HERE "/words", 20000);
    must("%s build --sanitize models/text.lua -o " HERE "/checked " SMALL " -D vocab=256 -D dropout=0.1", heddle());
    must(HERE "/checked train --data " HERE "/words --steps 5 --threads 2 --out " HERE "/checked.weights");
    must(HERE "/checked eval --data " HERE "/words --weights " HERE "/checked.weights");
    must(HERE "/checked sample --weights " HERE "/checked.weights --tokens 20 --seed 3");
}

/* The libraries that write files are linked into the programs that need them only. */
static void models_of_pixels_and_sound_write_png_and_wav(void **state)
{
    static const unsigned char png[] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R', 0, 0, 0, 32, 0, 0, 0, 2, 8, 2 };
    (void)state;
    write_words(HERE "/words", 20000);
    must("%s build%s models/cifar10.lua -o " HERE "/pixels -D length=192 -D layers=1 -D width=16 -D heads=2 -D inner=24 -D qk_width=8", heddle(), sanitize());
    must(HERE "/pixels train --data " HERE "/words --steps 1 --out " HERE "/pixels.weights");
    must(HERE "/pixels sample --weights " HERE "/pixels.weights -o " HERE "/image.png");
    if (memcmp(text_of(HERE "/image.png"), png, sizeof png)) fail_msg("no PNG of 32 x 2 pixels");
    must(HERE "/pixels sample --weights " HERE "/pixels.weights -o " HERE "/more.png --prompt-file " HERE "/image.png --keep 1 --tokens 0 --json");
    assert_says("\"prompt_tokens\": 96, \"tokens\": 0,");
    refused("the tokens of cifar10 are no text", HERE "/pixels sample --weights " HERE "/pixels.weights -o " HERE "/image.png --prompt x");
    must("%s build%s models/music.lua -o " HERE "/sound -D length=64 -D layers=1 -D width=16 -D heads=2 -D rate=8000 -D encoding=g711-mu-law", heddle(), sanitize());
    must(HERE "/sound train --data " HERE "/words --steps 1 --out " HERE "/sound.weights");
    must(HERE "/sound sample --weights " HERE "/sound.weights -o " HERE "/sound.wav");
    const char *wav = text_of(HERE "/sound.wav");
    if (memcmp(wav, "RIFF", 4) || memcmp(wav + 8, "WAVEfmt ", 8) || *(const int32_t *)(const void *)(wav + 24) != 8000) fail_msg("no WAV of 8000 samples a second");
    if (!*sanitize() && has("ldd")) {
        must("ldd " HERE "/pixels");
        if (strstr(said, "sndfile")) fail_msg("a library that nothing needs: %s", said);
        must("ldd " HERE "/sound");
        assert_says("sndfile");
    }
}

/* ---- sources ---- */

static int list_files(const char *folder, char **name, int room)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    int count = 0;
    for (struct dirent *e; (e = readdir(dir)) && count < room;) if (*e->d_name != '.') name[count++] = hd_strdup(e->d_name);
    closedir(dir);
    return count;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static void sources_compile_without_warnings(void **state)
{
    (void)state;
    static const struct { const char *name, *flags; } compilers[] = {
        { "clang-14", "-std=c11 -Wall -Wextra -Wpedantic -Werror" }, { "clang-22", "-std=c11 -Wall -Wextra -Wpedantic -Wshadow -Werror" },
        { "gcc-12", "-std=c11 -Wall -Wextra -Wpedantic -Werror" },
    };
    must("%s emit models/text.lua -o " HERE "/emitted_text " SMALL " -D dropout=0.1", heddle());
    must("%s emit models/attention.lua -o " HERE "/emitted_attention -D pattern=strided -D length=96 -D stride=8 -D heads=2 -D head_dim=16", heddle());
    int wrong = 0, compiled = 0;
    static const char *const folders[] = { HERE "/emitted_text", HERE "/emitted_attention" };
    for (int f = 0; f < 2; f++) {
        char *name[256];
        const int files = list_files(folders[f], name, 256);
        for (unsigned c = 0; c < sizeof compilers / sizeof *compilers; c++) {
            if (!has(compilers[c].name)) continue;
            hd_text list = { 0 };
            for (int i = 0; i < files; i++) if (ends_with(name[i], ".c")) hd_text_add(&list, " %s/%s", folders[f], name[i]);
            /* the flags of the emitted Makefile, at the lowest target and at this machine's */
            for (int native = 0; native < 2; native++) {
                compiled++;
                if (!command("%s %s -O1 -fsyntax-only %s -fno-math-errno -Wno-psabi%s", compilers[c].name, compilers[c].flags, native ? "-march=native" : "-march=x86-64", list.data)) {
                    if (!*said) continue;
                }
                print_message("%s %s: %.1500s\n", compilers[c].name, folders[f], said);
                wrong++;
            }
        }
    }
    print_message("%d times compiled\n", compiled);
    assert_true(compiled > 0);
    assert_int_equal(wrong, 0);
}

static void symbols_carry_the_prefix_and_nothing_is_writable(void **state)
{
    (void)state;
    if (!has("nm")) skip();
    must("%s emit models/text.lua -o " HERE "/nm " SMALL " --target x86-64-v3", heddle());
    char *name[256];
    const int files = list_files(HERE "/nm", name, 256);
    int wrong = 0;
    for (int i = 0; i < files; i++) {
        if (!ends_with(name[i], ".c")) continue;
        must("%s -std=c11 -O0 -march=x86-64-v3 -c " HERE "/nm/%s -o " HERE "/nm/object", hd_cc_find(NULL), name[i]);
        must("nm --defined-only " HERE "/nm/object");
        char *next = said;
        for (char *line; (line = strtok(next, "\n")); next = NULL) {
            char kind = 0, symbol[512] = "";
            if (sscanf(line, "%*s %c %511s", &kind, symbol) != 2) continue;
            const bool named = kind >= 'a' || !strncmp(symbol, "text_", 5), constant = !strchr("DdBbCcGgSs", kind);
            if (!named || !constant) print_message("%s: %c %s\n", name[i], kind, symbol), wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static void libraries_serve_a_cpp_program(void **state)
{
    (void)state;
    const char *cxx = has("clang++-22") ? "clang++-22" : has("clang++") ? "clang++" : "g++";
    if (!has(cxx)) {
        print_message("skipped: there is no C++ compiler\n");
        skip();
    }
    must("%s emit models/text.lua -o " HERE "/lib_text " SMALL, heddle());
    must("%s emit models/attention.lua -o " HERE "/lib_attention -D length=32 -D heads=1 -D head_dim=8", heddle());
    must("make -s -C " HERE "/lib_text CC=%s", hd_cc_find(NULL));
    must("make -s -C " HERE "/lib_attention CC=%s", hd_cc_find(NULL));
    must("%s -std=c++17 -Wall -Wextra -Wpedantic -Werror -I" HERE "/lib_text -I" HERE "/lib_attention tests/golden/embed.cc " HERE "/lib_text/libtext.a " HERE "/lib_attention/libattention.a -lpthread -lm -o " HERE "/embed", cxx);
    must(HERE "/embed");
    assert_string_equal(said, "same\n");
}

/* may_differ: what names a file, or what a file says, that need not be the same; NULL-terminated */
static int different_files(const char *a, const char *b, const char *const *may_differ)
{
    char *name[256], *other[256];
    const int files = list_files(a, name, 256);
    int wrong = files != list_files(b, other, 256) || !files;
    if (wrong) print_message("%s has %d files, %s %d\n", a, files, b, list_files(b, other, 256));
    for (int i = 0; i < files; i++) {
        bool may = false;
        for (int k = 0; may_differ && may_differ[k]; k++) may = may || !strcmp(name[i], may_differ[k]) || strstr(text_of(hd_format("%s/%s", a, name[i])), may_differ[k]);
        if (may || same_bytes(hd_format("%s/%s", a, name[i]), hd_format("%s/%s", b, name[i]))) continue;
        print_message("%s/%s and %s/%s differ\n", a, name[i], b, name[i]);
        wrong++;
    }
    return wrong;
}

static void the_same_spec_gives_the_same_bytes(void **state)
{
    (void)state;
    must("%s emit models/text.lua -o " HERE "/once " SMALL, heddle());
    must("%s emit models/text.lua -o " HERE "/again " SMALL " -j 1", heddle());
    assert_int_equal(different_files(HERE "/once", HERE "/again", NULL), 0);
    char path[4096];
    assert_non_null(getcwd(path, sizeof path));
    char *name[256];
    const int files = list_files(HERE "/once", name, 256);
    for (int i = 0; i < files; i++) if (strstr(text_of(hd_format(HERE "/once/%s", name[i])), path)) fail_msg("%s names this folder", name[i]);
    /* a program, too, with an empty cache and a full one */
    setenv("HEDDLE_CACHE", HERE "/cache", 1);
    must("%s build%s models/attention.lua -o " HERE "/program_1 -D length=48 -D heads=2 -D head_dim=8", heddle(), sanitize());
    must("%s build%s models/attention.lua -o " HERE "/program_2 -D length=48 -D heads=2 -D head_dim=8 -j 1", heddle(), sanitize());
    setenv("HEDDLE_CACHE", "build/cache", 1);
    assert_same_bytes(HERE "/program_1", HERE "/program_2");
}

/* The optimiser is one pass over all weights, so its kernel knows how many there are; no other may know the number of layers. */
static void more_layers_add_only_calls(void **state)
{
    (void)state;
    static const char *const may_differ[] = { "text.c", "text.h", "_optimiser_adamw: ", NULL };
    must("%s emit models/text.lua -o " HERE "/layers_12 -D layers=12", heddle());
    must("%s emit models/text.lua -o " HERE "/layers_30 -D layers=30", heddle());
    assert_int_equal(different_files(HERE "/layers_12", HERE "/layers_30", may_differ), 0);
}

/* ---- mistakes ---- */

static void mistakes_on_the_command_line_get_one_line(void **state)
{
    (void)state;
    const char *h = heddle();
    assert_int_equal(command("%s", h), 1);
    assert_int_equal(command("%s --help", h), 0);
    assert_says("heddle build SPEC -o PROGRAM");
    assert_int_equal(command("%s --version", h), 0);
    refused("commands: build, emit, check, import, info, pack, tune, view", "%s weave models/text.lua", h);
    refused("build needs a SPEC", "%s build", h);
    refused("build needs -o PROGRAM", "%s build models/text.lua", h);
    refused("emit needs -o DIR", "%s emit models/text.lua", h);
    refused("models/none.lua: No such file", "%s check models/none.lua", h);
    refused("more than one spec: models/text.lua and models/gpt2.lua", "%s check models/text.lua models/gpt2.lua", h);
    refused("unknown flag \"--fast\"; flags: -o -D", "%s check models/text.lua --fast", h);
    refused("-o needs a value", "%s build models/text.lua -o", h);
    refused("-o has an empty value", "%s build models/text.lua -o ''", h);
    refused("the name of the spec is empty", "%s build ''", h);
    refused("\"layers\" is not KEY=VALUE", "%s check models/text.lua -D layers", h);
    refused("layer", "%s check models/text.lua -D layer=2", h);
    refused("layers", "%s check models/text.lua -D layers=two", h);
    refused("targets: native, x86-64-v4, x86-64-v3, x86-64", "%s check models/text.lua --target z80", h);
    refused("there is no compiler \"no-such-cc\"", "%s check models/text.lua --cc no-such-cc", h);
    refused("does not run as a C compiler", "%s check models/text.lua --cc false", h);
    refused("\"much\" is no amount of memory", "%s check models/text.lua --memory much", h);
    refused("--memory allows 1048576", "%s check models/text.lua --memory 1M", h);
    refused("passes: graph, decode, simplify, recompute, patterns, plan", "%s info models/text.lua --dump colours", h);
    refused("is no number of compilers", "%s check models/text.lua -j 0", h);
    refused("width 250 does not divide", "%s check models/text.lua -D width=250", h);
    refused("is a folder", "%s build models/text.lua -o " HERE, h);
    refused("models", "%s check models", h);
}

static void a_missing_compiler_is_said(void **state)
{
    (void)state;
    char *path = hd_strdup(getenv("PATH"));
    setenv("PATH", "/nowhere", 1);
    const int status = command("%s build models/text.lua -o " HERE "/none", heddle());
    setenv("PATH", path, 1);
    assert_int_equal(status, 1);
    assert_says("no C compiler was found; install clang (14 or newer) or gcc (12 or newer), or name one with --cc");
    assert_true(access(HERE "/none", F_OK) != 0);
}

static void output_that_cannot_be_written_is_said_and_nothing_is_left(void **state)
{
    (void)state;
    refused(HERE "/missing/text", "%s build%s models/text.lua -o " HERE "/missing/text " SMALL, heddle(), sanitize());
    refused(HERE "/missing/folder", "%s emit models/text.lua -o " HERE "/missing/folder " SMALL, heddle());
    assert_true(access(HERE "/missing", F_OK) != 0);
    hd_write_file(HERE "/occupied", "x", 1);
    refused(HERE "/occupied", "%s emit models/text.lua -o " HERE "/occupied " SMALL, heddle());
    /* a build that fails leaves the program that was there */
    hd_write_file(HERE "/program_3", "old", 3);
    refused("layers", "%s build models/text.lua -o " HERE "/program_3 -D layers=none", heddle());
    assert_string_equal(text_of(HERE "/program_3"), "old");
}

static void the_cache_survives_what_happens_to_it(void **state)
{
    (void)state;
    setenv("HEDDLE_CACHE", "/proc/nowhere", 1);
    const int unusable = command("%s build%s models/attention.lua -o " HERE "/uncached -D length=16 -D heads=1 -D head_dim=8", heddle(), sanitize());
    setenv("HEDDLE_CACHE", "off", 1);
    const int off = command("%s build%s models/attention.lua -o " HERE "/uncached -D length=16 -D heads=1 -D head_dim=8", heddle(), sanitize());
    setenv("HEDDLE_CACHE", "build/cache", 1);
    assert_int_equal(unusable, 0);
    assert_int_equal(off, 0);
}

static int make_build_folder(void **state)
{
    (void)state;
    setenv("HEDDLE_CACHE", "build/cache", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 0);      /* programs leave freeing to their exit */
    return make_folder(HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emitting_a_large_model_costs_little),
        cmocka_unit_test(compiled_models_agree_with_the_interpreter),
        cmocka_unit_test(every_target_and_compiler_agrees_with_the_interpreter),
        cmocka_unit_test(sanitized_programs_train_and_sample),
        cmocka_unit_test(models_of_pixels_and_sound_write_png_and_wav),
        cmocka_unit_test(sources_compile_without_warnings),
        cmocka_unit_test(symbols_carry_the_prefix_and_nothing_is_writable),
        cmocka_unit_test(libraries_serve_a_cpp_program),
        cmocka_unit_test(the_same_spec_gives_the_same_bytes),
        cmocka_unit_test(more_layers_add_only_calls),
        cmocka_unit_test(mistakes_on_the_command_line_get_one_line),
        cmocka_unit_test(a_missing_compiler_is_said),
        cmocka_unit_test(output_that_cannot_be_written_is_said_and_nothing_is_left),
        cmocka_unit_test(the_cache_survives_what_happens_to_it),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests_name("build", tests, make_build_folder, NULL);
}
