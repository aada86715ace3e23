/* Weights from a mapped file, from the program itself (heddle build --embed) and from a file of heddle pack give the same bits as weights
 * that are read; whatever is wrong with them is one line, the same when a program is built and when it runs. Run from the repository's root. */
#include "tool.h"
#include "../../runtime/app/packed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HERE FOLDER_OF("weights")
#define SPEC "models/text.lua -D length=16 -D layers=1 -D width=32 -D heads=2 -D inner=64 -D stride=4 -D window=4 -D batch=1"
enum { LENGTH = 16, MOST = 64 };

static hd_tensor_data weight[MOST];
static int weights;

/* The tensors of W in the order of their bytes. */
static void read_weights(void)
{
    size_t bytes;
    const char *file = hd_read_file(HERE "/W", &bytes), *at = file + 8;
    uint64_t header = 0;
    memcpy(&header, file, 8);
    assert_int_equal((8 + header) % 64, 0);
    for (const char *end; (at = strstr(at, "\":{\"dtype\":\"F32\"")) && at < file + 8 + header; at++) {
        for (end = at; at[-1] != '"'; at--) { }
        weight[weights++] = hd_tensor_file_read(HERE "/W", hd_format("%.*s", (int)(end - at), at));
        at = end;
    }
}

/* A program, trained weights W, W again in another order and thus to be read, and what the program makes of them. */
static int make_all(void **state)
{
    (void)state;
    make_folder(HERE);
    int32_t tokens[LENGTH];
    for (int i = 0; i < LENGTH; i++) tokens[i] = i * 37 % 256;
    const hd_tensor_data input = { "tokens", HD_I32, { 2, { 1, LENGTH } }, tokens };
    hd_tensor_file_write(HERE "/in", 1, &input);
    write_words(HERE "/words", 4000);
    must("%s build%s " SPEC " -o " HERE "/program", heddle(), sanitize());
    must(HERE "/program train --data " HERE "/words --steps 3 --batch 2 --out " HERE "/W");
    read_weights();
    assert_true(weights > 8);
    hd_tensor_data turned[MOST];
    for (int i = 0; i < weights; i++) turned[i] = weight[weights - 1 - i];
    hd_tensor_file_write(HERE "/W_turned", weights, turned);
    must(HERE "/program run forward --in " HERE "/in --weights " HERE "/W_turned --out " HERE "/want");
    must("%s pack " SPEC " -o " HERE "/packed --weights " HERE "/W_turned", heddle());
    return 0;
}

static void gives(const char *why, const char *weights_flag)
{
    must(HERE "/program run forward --in " HERE "/in --out " HERE "/out%s", weights_flag);
    if (!same_bytes(HERE "/out", HERE "/want")) fail_msg("%s: other numbers", why);
}

static void mapped_weights_are_the_same_bits(void **state)
{
    (void)state;
    gives("mapped", " --weights " HERE "/W");
    gives("packed", " --weights " HERE "/packed");
    must(HERE "/program eval --data " HERE "/words --json --weights " HERE "/W_turned");
    const char *want = hd_format("%.40s", said);
    must(HERE "/program eval --data " HERE "/words --json --weights " HERE "/W");
    assert_says(want);
    must(HERE "/program eval --data " HERE "/words --json --weights " HERE "/packed");
    assert_says(want);
}

/* Entries that train change their copy, never the file. */
static void training_entries_do_not_write_mapped_files(void **state)
{
    (void)state;
    hd_tensor_data input[4] = { { "tokens", HD_I32, { 2, { 1, LENGTH } }, HD_NEW_ARRAY(int32_t, LENGTH) }, { "targets", HD_I32, { 2, { 1, LENGTH } }, HD_NEW_ARRAY(int32_t, LENGTH) },
                                { "hyper", HD_F32, { 1, { HD_HYPER_COUNT } }, (float[HD_HYPER_COUNT]){ 1e-3f, 0.9f, 0.99f, 1e-8f, 0, 0, 0.1f, 0.01f, 1, 0, 1 } },
                                { "random", HD_I32, { 1, { 4 } }, HD_NEW_ARRAY(int32_t, 4) } };
    hd_tensor_file_write(HERE "/step", 4, input);
    static const char *const files[] = { "W", "packed" };
    for (int i = 0; i < 2; i++) {
        must("cp " HERE "/%s " HERE "/before", files[i]);
        must(HERE "/program run train_step --in " HERE "/step --weights " HERE "/%s --weights-out " HERE "/after_%d", files[i], i);
        assert_same_bytes(hd_format(HERE "/%s", files[i]), HERE "/before");
    }
    assert_same_bytes(HERE "/after_0", HERE "/after_1");
    if (same_bytes(HERE "/after_0", HERE "/W")) fail_msg("the step changed nothing");
}

static void embedded_weights_need_no_file(void **state)
{
    (void)state;
    char *const here = realpath(HERE, NULL);
    must("mkdir -p " HERE "/elsewhere");
    must("cp " HERE "/W_turned " HERE "/source");
    must("%s build%s " SPEC " -o " HERE "/own --embed --weights " HERE "/source", heddle(), sanitize());
    must("rm " HERE "/source");
    must("sh -c 'cd %s/elsewhere && %s/own run forward --in %s/in --out %s/out'", here, here, here, here);
    assert_same_bytes(HERE "/out", HERE "/want");
    must("sh -c 'cd %s/elsewhere && %s/own sample --prompt warp --tokens 5 --temperature 0'", here, here);
    const char *want = hd_strdup(said);
    must(HERE "/program sample --prompt warp --tokens 5 --temperature 0 --weights " HERE "/W");
    assert_string_equal(said, want);
    must(HERE "/own eval --data " HERE "/words --json");
    must(HERE "/own eval --data " HERE "/words --json --weights " HERE "/W");
    must("strip -o " HERE "/stripped " HERE "/own");
    must(HERE "/stripped run forward --in " HERE "/in --out " HERE "/out");
    assert_same_bytes(HERE "/out", HERE "/want");
    refused("sample: name the weights: --weights FILE", HERE "/program sample");
    free(here);
}

/* Variants share the weights; each makes its own panels. gcc and its linker take them too. */
static void embedded_weights_serve_all_variants_and_linkers(void **state)
{
    (void)state;
    must("%s build%s " SPEC " --target x86-64 -o " HERE "/all --embed --weights " HERE "/W", heddle(), sanitize());
    setenv("HEDDLE_CPU", "x86-64", 1);
    must(HERE "/all run forward --in " HERE "/in --out " HERE "/out_1");
    must(HERE "/all run forward --in " HERE "/in --out " HERE "/out_2 --weights " HERE "/W_turned");
    must(HERE "/all run forward --in " HERE "/in --out " HERE "/out_3 --weights " HERE "/packed");       /* panels of another target: made here */
    unsetenv("HEDDLE_CPU");
    assert_same_bytes(HERE "/out_1", HERE "/out_2");
    assert_same_bytes(HERE "/out_1", HERE "/out_3");
    if (*sanitize() || command("sh -c 'command -v gcc-12'")) return;
    must("%s build " SPEC " --cc gcc-12 -o " HERE "/gcc --embed --weights " HERE "/W", heddle());
    must(HERE "/gcc run forward --in " HERE "/in --out " HERE "/out_1");
    must(HERE "/gcc run forward --in " HERE "/in --out " HERE "/out_2 --weights " HERE "/W");
    assert_same_bytes(HERE "/out_1", HERE "/out_2");
}

/* ---- what is refused ---- */

static void write_file(const char *name, const char *header, size_t data_bytes)
{
    hd_text text = { 0 };
    const uint64_t length = strlen(header);
    hd_text_addn(&text, (const char *)&length, 8);
    hd_text_add(&text, "%s", header);
    for (size_t i = 0; i < data_bytes; i++) hd_text_addn(&text, "", 1);
    hd_write_file(hd_format(HERE "/%s", name), text.data, text.length);
}

/* W with one thing wrong. */
static void write_wrong(const char *name, int change)
{
    hd_tensor_data t[MOST + 1];
    memcpy(t, weight, sizeof *t * (size_t)weights);
    int count = weights;
    int32_t *whole;
    switch (change) {
    case 0: count--; break;
    case 1: t[count] = t[0], t[count++].name = "surplus"; break;
    case 2: t[0].shape.size[0]--; break;
    case 3: whole = HD_NEW_ARRAY(int32_t, hd_elements(&t[0].shape)), t[0].dtype = HD_I32, t[0].data = whole; break;
    }
    hd_tensor_file_write(hd_format(HERE "/%s", name), count, t);
}

static const struct { const char *file, *says; } wrong[] = {
    { "missing", "tensors of model text missing: '" },
    { "surplus", "1 tensors are not of model text: 'surplus'" },
    { "shape", "this model's has [" },
    { "type", "has type I32; valid: F32, F16, BF16, F64" },
    { "short", "bytes, but only" },
    { "overlap", "tensors 'a' and 'b' overlap" },
    { "gap", "bytes before tensor 'b' belong to no tensor" },
    { "beyond", "lies at bytes 0 to 4000000000000, but the data has 64 bytes" },
    { "nothing", "not a safetensors file: 0 bytes" },
    { "shards", "shard model-00002-of-00002.safetensors is missing" },
    { "nowhere", "No such file or directory" },
};

static void mistakes_are_told_when_programs_are_built_and_when_they_run(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) write_wrong(wrong[i].file, i);
    size_t bytes;
    const char *whole = hd_read_file(HERE "/W", &bytes);
    hd_write_file(HERE "/short", whole, 200);
    write_file("overlap", "{\"a\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,32]},\"b\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[16,48]}}", 48);
    write_file("gap", "{\"a\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,32]},\"b\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[48,80]}}", 80);
    write_file("beyond", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1000000000000],\"data_offsets\":[0,4000000000000]}}", 64);
    hd_write_file(HERE "/nothing", "", 0);
    must("mkdir -p " HERE "/shards");
    const char *index = hd_format("{\"weight_map\":{\"%s\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00002-of-00002.safetensors\"}}", weight[0].name);
    hd_write_file(HERE "/shards/model.safetensors.index.json", index, strlen(index));
    hd_tensor_file_write(HERE "/shards/model-00001-of-00002.safetensors", weights, weight);
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        refused(wrong[i].says, HERE "/program run forward --in " HERE "/in --out " HERE "/no --weights " HERE "/%s", wrong[i].file);
        const char *by_program = hd_strdup(said);
        refused(wrong[i].says, "%s build " SPEC " -o " HERE "/no --weights " HERE "/%s", heddle(), wrong[i].file);
        assert_string_equal(said, by_program);
        refused(wrong[i].says, "%s build " SPEC " -o " HERE "/no --embed --weights " HERE "/%s", heddle(), wrong[i].file);
        refused(wrong[i].says, "%s pack " SPEC " -o " HERE "/no --weights " HERE "/%s", heddle(), wrong[i].file);
        if (!access(HERE "/no", F_OK) || !access(HERE "/.no.partial", F_OK)) fail_msg("%s: something was written", wrong[i].file);
    }
    refused("--embed: no weights to put into the program: name them with --weights W", "%s build " SPEC " -o " HERE "/no --embed", heddle());
    refused("pack needs weights: --weights W", "%s pack " SPEC " -o " HERE "/no", heddle());
    refused("a packed file is for one of its variants", "%s pack " SPEC " -o " HERE "/no --target x86-64 --weights " HERE "/W", heddle());
    refused(HERE "/shards: is no regular file", "%s pack " SPEC " -o " HERE "/shards --weights " HERE "/W", heddle());
}

/* A limit stands for a full disk. */
static void what_cannot_be_written_leaves_nothing(void **state)
{
    (void)state;
    must("cp " HERE "/packed " HERE "/stays");
    refused(HERE "/stays: cannot be written: File too large; 0.2 MB are needed", "sh -c 'ulimit -f 40; exec %s pack " SPEC " -o " HERE "/stays --weights " HERE "/W'", heddle());
    assert_same_bytes(HERE "/stays", HERE "/packed");
    if (!access(HERE "/.stays.partial", F_OK)) fail_msg("a temporary file was left");
    if (!command("sh -c 'ulimit -f 40; exec %s build " SPEC " -o " HERE "/no --embed --weights " HERE "/W'", heddle())) fail_msg("it should fail");
    if (!access(HERE "/no", F_OK)) fail_msg("something was written");
}

static void weights_that_are_not_finite_are_told_once(void **state)
{
    (void)state;
    float *bad = HD_NEW_ARRAY(float, hd_elements(&weight[1].shape));
    memcpy(bad, weight[1].data, 4 * (size_t)hd_elements(&weight[1].shape));
    const uint32_t nan = 0x7fc00000, infinite = 0xff800000;
    memcpy(&bad[hd_elements(&weight[1].shape) - 1], &nan, 4);
    memcpy(&bad[0], &infinite, 4);
    hd_tensor_data t[MOST];
    memcpy(t, weight, sizeof *t * (size_t)weights);
    t[1].data = bad;
    hd_tensor_file_write(HERE "/nan", weights, t);
    const char *warning = hd_format("warning: " HERE "/nan: tensor '%s' holds values that are not finite\n", weight[1].name);
    must("%s build%s " SPEC " -o " HERE "/nan_program --weights " HERE "/nan", heddle(), sanitize());
    assert_string_equal(said, warning);
    must("%s pack " SPEC " -o " HERE "/nan_packed --weights " HERE "/nan", heddle());
    assert_string_equal(said, warning);
}

/* ---- files of heddle pack ---- */

static void damaged(const char *says, size_t at, char flip, size_t bytes)
{
    size_t all;
    char *file = hd_read_file(HERE "/packed", &all);
    file[at] ^= flip;
    hd_write_file(HERE "/damaged", file, bytes ? bytes : all);
    refused(says, HERE "/program run forward --in " HERE "/in --out " HERE "/no --weights " HERE "/damaged");
}

static void damaged_packed_files_are_refused(void **state)
{
    (void)state;
    size_t all;
    hd_read_file(HERE "/packed", &all);
    damaged("not a whole safetensors file", 0, 1, 0);
    damaged("a file of heddle pack of version 3; this program reads version 1", offsetof(hd_packed_header, version), 2, 0);
    damaged("packed weights of model text, whose tensors are not those of this program's text", offsetof(hd_packed_header, weights_hash), 4, 0);
    damaged("not a whole file of heddle pack: it should have", offsetof(hd_packed_header, file_bytes), 1, 0);
    damaged("not a whole file of heddle pack: it should have", 5000, 0, all - 1);
    damaged("not a whole file of heddle pack: it ends in its header", 100, 0, 4000);
    damaged("its header is damaged", offsetof(hd_packed_header, weights_at), 64, 0);
    damaged("its header is damaged", offsetof(hd_packed_header, packed_at) + 6, 64, 0);
    must("%s build%s models/text.lua -D length=16 -D layers=1 -D width=32 -D heads=2 -D inner=80 -D stride=4 -D window=4 -D batch=1 -o " HERE "/wider", heddle(), sanitize());
    refused("packed weights of model text, whose tensors are not those of this program's text", HERE "/wider run forward --in " HERE "/in --out " HERE "/no --weights " HERE "/packed");
}

static const char app[] =
    "#include \"text.h\"\n#include <fcntl.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <sys/mman.h>\n#include <sys/stat.h>\n"
    "int main(int argc, char **argv)\n{\n"
    "    struct stat s;\n    int fd = open(argv[1], O_RDONLY);\n    if (argc < 2 || fd < 0 || fstat(fd, &s)) return 9;\n"
    "    char *file = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);\n"
    "    const int good = text_check_packed(file, (size_t)s.st_size);\n"
    "    char *copy = aligned_alloc(64, TEXT_FILE_BYTES + 64);\n    int code[8] = { 0 };\n"
    "    const int at[] = { 0, 8, 16, 24, 32, 64 };\n"
    "    for (int i = 0; i < 6; i++) {\n        memcpy(copy, file, TEXT_FILE_BYTES);\n        copy[at[i]] ^= 1;\n        code[i] = text_check_packed(copy, TEXT_FILE_BYTES);\n    }\n"
    "    memcpy(copy, file, TEXT_FILE_BYTES);\n    code[6] = text_check_packed(copy, TEXT_FILE_BYTES - 1);\n    code[7] = text_check_packed(copy + 8, TEXT_FILE_BYTES);\n"
    "    text_memory memory = { .weights = file + TEXT_FILE_WEIGHTS, .packed = file + TEXT_FILE_PACKED, .scratch_bytes = TEXT_SCRATCH_BYTES + TEXT_THREAD_BYTES };\n"
    "    memory.scratch = aligned_alloc(64, (memory.scratch_bytes + 63) / 64 * 64);\n"
    "    static int32_t tokens[TEXT_LENGTH];\n    static float logits[TEXT_LENGTH * TEXT_VOCAB];\n"
    "    for (int i = 0; i < TEXT_LENGTH; i++) tokens[i] = i * 37 % 256;\n"
    "    if (good == 0 && text_forward(&memory, NULL, tokens, logits, 0, 0)) return 8;\n"
    "    printf(\"%d:\", good);\n    for (int i = 0; i < 8; i++) printf(\" %d\", code[i]);\n    printf(\"\\n\");\n"
    "    fwrite(logits, 1, sizeof logits, fopen(argv[2], \"wb\"));\n    return 0;\n}\n";

/* In an app that maps the file: the same logits, and a code for each way to be wrong. */
static void apps_map_packed_files(void **state)
{
    (void)state;
    const char *cc = getenv("HD_TEST_CC");
    must("%s emit " SPEC " -o " HERE "/emitted", heddle());
    hd_write_file(HERE "/emitted/app.c", app, strlen(app));
    must("sh -c '%s -std=gnu11 -Wall -Wextra -Werror -O1 -march=native -I " HERE "/emitted " HERE "/emitted/*.c -o " HERE "/app -lpthread -lm'", cc ? cc : "cc");
    must(HERE "/app " HERE "/packed " HERE "/logits");
    assert_string_equal(said, "0: -9 -9 -10 -11 -12 -12 -12 -9\n");
    const hd_tensor_data want = hd_tensor_file_read(HERE "/want", "logits");
    hd_tensor_data got = want;
    size_t bytes;
    got.data = hd_read_file(HERE "/logits", &bytes);
    assert_int_equal(bytes, 4 * hd_elements(&want.shape));
    for (int64_t i = 0; i < hd_elements(&want.shape); i++) {
        const float a = ((const float *)got.data)[i], b = ((const float *)want.data)[i];
        if (!(a - b < 1e-4f && b - a < 1e-4f)) fail_msg("logit %lld: %g, not %g", (long long)i, (double)a, (double)b);
    }
}

/* ---- programs of some entries ---- */

static void programs_of_some_entries_are_small(void **state)
{
    (void)state;
    refused("--entries: \"forward,foo\" is no list of entries of model text; it has: forward, loss, train_step", "%s build " SPEC " --entries forward,foo -o " HERE "/no", heddle());
    must("%s build%s " SPEC " --entries forward -o " HERE "/only", heddle(), sanitize());
    must(HERE "/only run forward --in " HERE "/in --out " HERE "/out --weights " HERE "/packed");
    assert_same_bytes(HERE "/out", HERE "/want");
    refused("eval: text was built without entry loss (heddle build --entries)", HERE "/only eval --data " HERE "/words --weights " HERE "/W");
    refused("train: text was built without entry train_step", HERE "/only train --data " HERE "/words");
    must(HERE "/only --help");
    if (strstr(said, " train ")) fail_msg("help names commands that it lacks:\n%s", said);
    if (*sanitize()) return;
    must("%s build models/gpt2.lua --entries prefill,step --target x86-64-v4 -o " HERE "/gpt2", heddle());
    must("strip " HERE "/gpt2");
    size_t bytes;
    hd_read_file(HERE "/gpt2", &bytes);
    print_message("a GPT-2 that only samples: %zu bytes\n", bytes);
    assert_true(bytes <= 300 * 1000);
}

int main(void)
{
    choose_tests(NULL);
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(mapped_weights_are_the_same_bits),
        cmocka_unit_test(training_entries_do_not_write_mapped_files),
        cmocka_unit_test(embedded_weights_need_no_file),
        cmocka_unit_test(embedded_weights_serve_all_variants_and_linkers),
        cmocka_unit_test(mistakes_are_told_when_programs_are_built_and_when_they_run),
        cmocka_unit_test(what_cannot_be_written_leaves_nothing),
        cmocka_unit_test(weights_that_are_not_finite_are_told_once),
        cmocka_unit_test(damaged_packed_files_are_refused),
        cmocka_unit_test(apps_map_packed_files),
        cmocka_unit_test(programs_of_some_entries_are_small),
    };
    return cmocka_run_group_tests_name("weights_test", tests, make_all, NULL);
}
