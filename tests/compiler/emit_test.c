/* heddle emit as those who embed a model meet it: the folder builds in every way that its README names, in C and C++, and always gives the
 * same numbers; wrong calls, threads of others and cancelling behave as the header says; emitting again is harmless; the examples run.
 * Run from the repository's root. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HERE FOLDER_OF("emit")
#define SMALL HERE "/small"
#define WARN "-Wall -Wextra -Wpedantic -Werror"

static const char *cc(void) { return hd_cc_find(NULL); }
static bool has(const char *program) { return command("sh -c 'command -v %s'", program) == 0; }
static const char *cxx(void) { return has("clang++-22") ? "clang++-22" : has("clang++") ? "clang++" : has("g++") ? "g++" : NULL; }
static const char *here(void) { static char path[4096]; return getcwd(path, sizeof path); }

static int make_small(void **state)
{
    if (make_folder(HERE)) return 1;
    (void)state;
    must("%s emit tests/golden/small.lua -o " SMALL " --target x86-64", heddle());
    must("make -s -j2 -C " SMALL " all shared CC=%s 'CFLAGS=-O1 " WARN "'", cc());
    return 0;
}

/* ---- building ---- */

static char *expected;       /* what the program prints, however it was built */

static void prints_the_same(const char *how, const char *program)
{
    must("%s", program);
    if (!expected) expected = hd_strdup(said);
    if (strcmp(said, expected)) fail_msg("%s: \"%s\", not \"%s\"", how, said, expected);
    assert_non_null(strstr(said, "no error, "));
}

static void its_own_makefile_builds_and_installs_it(void **state)
{
    (void)state;
    must("%s -std=c11 -D_GNU_SOURCE " WARN " -I" SMALL " tests/embed/app.c " SMALL "/libsmall.a -lpthread -lm -o " HERE "/app", cc());
    prints_the_same("static", HERE "/app");
    if (cxx()) {
        must("%s -x c++ -std=c++17 " WARN " -I" SMALL " tests/embed/app.c -x none " SMALL "/libsmall.a -lpthread -lm -o " HERE "/app", cxx());
        prints_the_same("static, C++", HERE "/app");
    }
    must("make -s -C " SMALL " install PREFIX=/usr DESTDIR=%s/" HERE "/installed", here());
    must("%s -std=c11 -D_GNU_SOURCE " WARN " -I" HERE "/installed/usr/include tests/embed/app.c -L" HERE "/installed/usr/lib -lsmall -lm -Wl,-rpath,%s/" HERE "/installed/usr/lib -o " HERE "/app", cc(), here());
    must("ldd " HERE "/app");
    assert_says("libsmall.so");
    prints_the_same("shared, installed", HERE "/app");
}

static void three_lines_of_make_build_it(void **state)
{
    (void)state;
    /* the lines as its README has them */
    const char *readme = text_of(SMALL "/README.md"), *from = strstr(readme, "      FLAGS = "), *end = from ? strstr(from, "\n\n") : NULL;
    assert_non_null(end);
    hd_text make = { 0 };
    for (const char *line = from; line < end; line = strchr(line, '\n') + 1) hd_text_add(&make, "%.*s\n", (int)strcspn(line + 6, "\n"), line + 6);
    must("mkdir -p " HERE "/three");
    must("cp -r " SMALL " tests/embed/app.c " HERE "/three");
    hd_write_file(HERE "/three/Makefile", make.data, make.length);
    must("make -s -C " HERE "/three app 'CC=%s -O0'", cc());
    prints_the_same("three lines", HERE "/three/app");
}

static void pkg_config_finds_it_in_place_and_installed_anywhere(void **state)
{
    (void)state;
    if (!has("pkg-config")) { print_message("skipped: there is no pkg-config\n"); skip(); }
    must("make -s -C " SMALL " install PREFIX=%s/" HERE "/prefix", here());
    must("rm -f " HERE "/prefix/lib/libsmall.so");
    must("mv " HERE "/prefix " HERE "/moved");
    static const char *const folders[] = { SMALL, HERE "/moved/lib/pkgconfig" };
    for (int i = 0; i < 2; i++) {
        must("sh -c '%s -std=c11 -D_GNU_SOURCE tests/embed/app.c $(PKG_CONFIG_PATH=" "%s pkg-config --cflags --libs small) -Wl,-rpath,%s/" SMALL " -o " HERE "/app'", cc(), folders[i], here());
        prints_the_same(folders[i], HERE "/app");
    }
}

static void cmake_adds_or_finds_it(void **state)
{
    (void)state;
    if (!has("cmake")) { print_message("skipped: there is no cmake\n"); skip(); }
    must("mkdir -p " HERE "/adds " HERE "/finds");
    static const char app[] = "set(CMAKE_C_STANDARD 11)\nadd_executable(app %s/tests/embed/app.c)\ntarget_link_libraries(app PRIVATE small::small)\n";
    hd_text adds = { 0 }, finds = { 0 };
    hd_text_add(&adds, "cmake_minimum_required(VERSION 3.13)\nproject(adds C)\nadd_subdirectory(%s/" SMALL " small)\n", here());
    hd_text_add(&adds, app, here());
    hd_text_add(&finds, "cmake_minimum_required(VERSION 3.13)\nproject(finds C)\nfind_package(small 0.1 CONFIG REQUIRED)\n");
    hd_text_add(&finds, app, here());
    hd_write_file(HERE "/adds/CMakeLists.txt", adds.data, adds.length);
    hd_write_file(HERE "/finds/CMakeLists.txt", finds.data, finds.length);
    const char *with = hd_format("-DCMAKE_C_COMPILER=%s -DCMAKE_BUILD_TYPE=Debug", cc());
    must("cmake -S " HERE "/adds -B " HERE "/adds/build -DBUILD_SHARED_LIBS=ON %s", with);
    must("cmake --build " HERE "/adds/build -j2");
    must("ldd " HERE "/adds/build/app");
    assert_says("libsmall.so");
    prints_the_same("add_subdirectory, shared", HERE "/adds/build/app");
    must("cmake -S " SMALL " -B " HERE "/library -DCMAKE_INSTALL_PREFIX=%s/" HERE "/cmake %s", here(), with);
    must("cmake --build " HERE "/library -j2");
    must("cmake --install " HERE "/library");
    must("cmake -S " HERE "/finds -B " HERE "/finds/build -DCMAKE_PREFIX_PATH=%s/" HERE "/cmake %s", here(), with);
    must("cmake --build " HERE "/finds/build");
    prints_the_same("find_package, static", HERE "/finds/build/app");
    if (has("pkg-config")) {
        must("sh -c 'PKG_CONFIG_PATH=$(dirname $(find " HERE "/cmake -name small.pc)) pkg-config --cflags small'");
        const char *flag = strstr(said, "-I");
        assert_non_null(flag);
        must("ls %.*s/small.h", (int)strcspn(flag + 2, " \n"), flag + 2);
    }
}

static void a_shared_library_shows_what_the_headers_declare(void **state)
{
    (void)state;
    must("sh -c 'nm -D --defined-only " SMALL "/libsmall.so | cut -d\" \" -f3 | sort | tr \"\\n\" \" \"'");
    assert_string_equal(said, "small_check_packed small_error small_forward small_loss small_pack small_pool_free small_pool_new small_pool_threads small_position small_prefill small_rewind small_sampler_draw small_sampler_free small_sampler_init "
                              "small_start small_step small_train_step ");
    must("sh -c 'nm -g --defined-only " SMALL "/libsmall.a | grep \" [A-Z] \" | grep -v \" small_\" | wc -l'");
    assert_string_equal(said, "0\n");
}

/* ---- calling ---- */

static void calls_behave_as_the_header_says(void **state)
{
    (void)state;
    static const struct { const char *program, *says; } programs[] = { { "errors", "as documented\n" }, { "threads", "same bits\n" } };
    for (int i = 0; i < 2; i++) {
        must("%s -std=c11 -D_GNU_SOURCE -O1 " WARN " -I" SMALL " tests/embed/%s.c " SMALL "/libsmall.a -lpthread -lm -o " HERE "/%s", cc(), programs[i].program, programs[i].program);
        must(HERE "/%s", programs[i].program);
        assert_string_equal(said, programs[i].says);
    }
}

/* What the header repeats of the runtime's: types that several models share must be the same in all. */
static void shared_types_are_the_runtimes(void **state)
{
    (void)state;
    const char *header = text_of(SMALL "/small.h"), *core = text_of("runtime/core/hd_core.h");
    const char *from = strstr(core, "enum hd_error {"), *end = from ? strstr(from, "};") : NULL;
    assert_non_null(end);
    assert_non_null(strstr(header, hd_format("%.*s", (int)(end - from), from)));
}

/* ---- emitting again ---- */

static void emitting_again_changes_only_what_changed(void **state)
{
    (void)state;
    struct stat before, after;
    must("%s emit tests/golden/small.lua -o " HERE "/again --target x86-64", heddle());
    hd_write_file(HERE "/again/small_notes.c", "/* mine */\n", 11);
    hd_write_file(HERE "/again/small_old_kernels.c", "/* small_old_kernels.c: made by heddle 0.1 for x */\n", 52);
    must("touch -d 2001-01-01 " HERE "/again/small.c " HERE "/again/small.h " HERE "/again/Makefile");
    assert_int_equal(stat(HERE "/again/small.c", &before), 0);
    must("%s emit tests/golden/small.lua -o " HERE "/again --target x86-64", heddle());
    assert_int_equal(stat(HERE "/again/small.c", &after), 0);
    assert_true(before.st_mtime == after.st_mtime && before.st_ino == after.st_ino);
    assert_int_equal(access(HERE "/again/small_notes.c", F_OK), 0);           /* the user's */
    assert_int_not_equal(access(HERE "/again/small_old_kernels.c", F_OK), 0);  /* an earlier emit's */

    /* what fails leaves everything as it was */
    must("sh -c 'cat " HERE "/again/* | cksum > " HERE "/sum'");
    refused("unexpected symbol", "%s emit tests/embed/app.c -o " HERE "/again", heddle());
    must("sh -c 'cat " HERE "/again/* | cksum | cmp - " HERE "/sum'");
    must("mkdir " HERE "/taken");
    hd_write_file(HERE "/taken/Makefile", "mine:\n", 6);
    refused("not made by heddle", "%s emit tests/golden/small.lua -o " HERE "/taken --target x86-64", heddle());
    must("ls " HERE "/taken");
    assert_string_equal(said, "Makefile\n");
}

/* ---- examples ---- */

/* Weights for the model of a header: random ones for the tensors that its table lists. */
static void write_weights(const char *header, const char *out)
{
    hd_tensor_data tensor[64];
    int tensors = 0;
    uint32_t random = 1;
    const char *line = strstr(text_of(header), "/* The weights, by byte offset:\n");
    assert_non_null(line);
    for (line = strchr(line, '\n') + 1; !strncmp(line, " *  ", 4) && tensors < 64; line = strchr(line, '\n') + 1) {
        long long offset;
        char name[200], shape[100] = "";
        assert_true(sscanf(line, " * %lld %199s %99s", &offset, name, shape) >= 2);
        hd_tensor_data t = { .name = hd_strdup(name), .dtype = HD_F32 };
        for (const char *at = shape; *at; at = strchr(at, ']') + 1) t.shape.size[t.shape.rank++] = atoll(at + 1);
        float *data = HD_NEW_ARRAY(float, hd_elements(&t.shape));
        for (int64_t i = 0; i < hd_elements(&t.shape); i++) random = random * 1664525 + 1013904223, data[i] = (float)(random >> 8) / (float)(1 << 25) - 0.25f;
        t.data = data;
        tensor[tensors++] = t;
    }
    assert_true(tensors > 3);
    hd_tensor_file_write(out, tensors, tensor);
}

static void example(const char *name)
{
    must("cp -r examples/%s " HERE "/%s", name, name);
}
#define MAKE "make -s -C " HERE "/%s HEDDLE=%s/%s 'CC=%s' CFLAGS=-O0 -j2 "

static void two_models_run_on_two_threads_each(void **state)
{
    (void)state;
    if (!cxx()) { print_message("skipped: there is no C++ compiler\n"); skip(); }
    example("two_models");
    must(MAKE "run MODELS=%s/models CXX=%s 'CXXFLAGS=-O0 " WARN "' 'SIZE_TEXT=-D length=32 -D layers=1 -D width=32 -D heads=2 -D inner=48 -D stride=8 -D batch=1' 'SIZE_GPT2=-D length=32 -D positions=32 -D layers=1 -D width=24 -D heads=3 -D vocab=67 -D batch=1'",
         "two_models", here(), heddle(), cc(), here(), cxx());
    assert_says("gpt2: loss 4.20");
    assert_says("text: loss 5.54");
}

static void python_gets_the_logits_that_c_gets(void **state)
{
    (void)state;
    if (!has("python3")) { print_message("skipped: there is no python3\n"); skip(); }
    static const char keys[] = "-D length=48 -D layers=1 -D width=32 -D heads=2 -D inner=48 -D stride=8 -D batch=2";
    example("python");
    must(MAKE "text/libtext.so SPEC=%s/models/text.lua 'KEYS=%s'", "python", here(), heddle(), cc(), here(), keys);
    write_weights(HERE "/python/text/text.h", HERE "/python/weights.safetensors");
    must(MAKE "run TEXT=Once SPEC=%s/models/text.lua 'KEYS=%s' WEIGHTS=weights.safetensors", "python", here(), heddle(), cc(), here(), keys);
    assert_says("Once");
    must("python3 -c 'import sys; sys.path.insert(0, \"" HERE "/python\"); from complete import Model; import array; m = Model(\"" HERE "/python/text/libtext.so\", \"" HERE "/python/text.packed\", 2); "
         "array.array(\"f\", m.forward(range(48))).tofile(open(\"" HERE "/python/logits\", \"wb\"))'");
    must("sh -c '%s -std=c11 -D_GNU_SOURCE " WARN " -I" HERE "/python/text tests/embed/logits.c " HERE "/python/text/*.o -lpthread -lm -o " HERE "/logits'", cc());
    must(HERE "/logits " HERE "/python/text.packed " HERE "/python/logits_of_c");
    assert_same_bytes(HERE "/python/logits", HERE "/python/logits_of_c");
    refused("not of this model", "python3 " HERE "/python/complete.py " HERE "/python/text/libtext.so README.md Once");
}

/* Byte-level BPE in GPT-2's alphabet: the 256 bytes, two merges, and the token that ends texts. */
static void write_tokenizer(const char *path)
{
    hd_text out = { 0 };
    hd_text_add(&out, "{ \"version\": \"1.0\", \"added_tokens\": [ { \"id\": 258, \"content\": \"<|endoftext|>\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true } ],\n"
                      "\"normalizer\": null, \"pre_tokenizer\": { \"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true }, \"post_processor\": null,\n"
                      "\"decoder\": { \"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true },\n\"model\": { \"type\": \"BPE\", \"vocab\": {");
    for (int byte = 0, other = 256; byte < 256; byte++) {
        const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        hd_text_add(&out, "%s\"\\u%04x\": %d", byte ? ", " : "", itself ? byte : other, byte);
        other += !itself;
    }
    hd_text_add(&out, ", \"th\": 256, \"the\": 257 }, \"merges\": [ \"t h\", \"th e\" ] } }\n");
    hd_write_file(path, out.data, out.length);
}

static void c_completes_text_with_the_tokenizer_that_came_along(void **state)
{
    (void)state;
    static const char keys[] = "-D length=24 -D positions=24 -D layers=1 -D width=24 -D heads=3 -D vocab=260 -D batch=1";
    example("complete");
    write_tokenizer(HERE "/complete/tokenizer.json");
    const char *spec = hd_format("SPEC=%s/models/gpt2.lua 'KEYS=%s -D tokenizer=%s/" HERE "/complete/tokenizer.json' WEIGHTS=weights.safetensors", here(), keys, here());
    must(MAKE "complete %s", "complete", here(), heddle(), cc(), spec);
    write_weights(HERE "/complete/gpt2/gpt2.h", HERE "/complete/weights.safetensors");
    must(MAKE "all %s", "complete", here(), heddle(), cc(), spec);
    must(HERE "/complete/complete " HERE "/complete/gpt2.packed 'the other' 5 0");
    const char *first = hd_strdup(said);
    assert_memory_equal(first, "the other", 9);
    assert_true(strlen(first) > 10);
    must(HERE "/complete/complete " HERE "/complete/gpt2.packed 'the other' 5 0");
    assert_string_equal(said, first);
    refused("the sequence has no position left", "sh -c '" HERE "/complete/complete " HERE "/complete/gpt2.packed \"a prompt of more than twenty-four tokens\" 5 0 > /dev/null'");
    refused("is not this model's", HERE "/complete/complete README.md x");
    must("%s -std=c11 -D_GNU_SOURCE " WARN " -I" HERE "/complete/gpt2 tests/embed/tokens.c " HERE "/complete/gpt2/libgpt2.a -lpthread -lm -o " HERE "/tokens", cc());
    must(HERE "/tokens");
    assert_string_equal(said, "there and back\n");
    must("sh -c 'nm -g --defined-only " HERE "/complete/gpt2/libgpt2.a | grep \" [A-Z] \" | grep -v \" gpt2_\" | wc -l'");
    assert_string_equal(said, "0\n");
}

/* ---- warnings ---- */

/* Some warnings come from the middle of a compiler's work, so all of it is done: gcc's oldest is the one that has them. tests/warnings.sh
 * does every model by all compilers at all levels. */
static void the_oldest_gcc_says_nothing(void **state)
{
    (void)state;
    if (!has("gcc-12")) { print_message("skipped: there is no gcc-12\n"); skip(); }
    must("%s emit models/attention.lua -D pattern=strided -D length=96 -D stride=8 -D heads=2 -D head_dim=16 -o " HERE "/warned --target x86-64-v4", heddle());
    must("sh -c 'cd " HERE " && ls small/*.c warned/*.c | xargs -P 2 -I FILE gcc-12 -std=c11 " WARN " -O1 -march=x86-64-v4 -Wno-psabi -fno-math-errno -c FILE -o FILE.gcc.o'");
    assert_string_equal(said, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_own_makefile_builds_and_installs_it),
        cmocka_unit_test(three_lines_of_make_build_it),
        cmocka_unit_test(pkg_config_finds_it_in_place_and_installed_anywhere),
        cmocka_unit_test(cmake_adds_or_finds_it),
        cmocka_unit_test(a_shared_library_shows_what_the_headers_declare),
        cmocka_unit_test(calls_behave_as_the_header_says),
        cmocka_unit_test(shared_types_are_the_runtimes),
        cmocka_unit_test(emitting_again_changes_only_what_changed),
        cmocka_unit_test(two_models_run_on_two_threads_each),
        cmocka_unit_test(python_gets_the_logits_that_c_gets),
        cmocka_unit_test(c_completes_text_with_the_tokenizer_that_came_along),
        cmocka_unit_test(the_oldest_gcc_says_nothing),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests_name("emit", tests, make_small, NULL);
}
