/* Programs of several variants (heddle build --target x86-64): every variant gives the same numbers, the processor or HEDDLE_CPU
 * chooses, and nothing that a processor lacks is in what runs on it: read from the objects, and tried on emulated processors where
 * qemu-x86_64 is installed. Run from the repository's root. */
#include "tool.h"
#include "../../runtime/core/hd_cpu.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HERE FOLDER_OF("variants")
#define SMALL "-D length=48 -D layers=1 -D width=24 -D heads=2 -D inner=40 -D vocab=256 -D stride=5 -D window=7 -D batch=2"
enum { LENGTH = 48, BATCH = 2 };

static const struct { const char *name; int level; } variants[] = { { "x86-64-v4", 4 }, { "x86-64-v3", 3 }, { "x86-64", 1 } };
enum { VARIANTS = sizeof variants / sizeof *variants };

static bool has(const char *program) { return command("sh -c 'command -v %s'", program) == 0; }
static bool runs_here(int variant) { return variants[variant].level <= hd_cpu_level(); }
static void use(const char *name) { setenv("HEDDLE_CPU", name, 1); }

/* ---- numbers ---- */

static void every_variant_agrees_with_the_interpreter(void **state)
{
    (void)state;
    must("%s check --target x86-64 models/attention.lua -D pattern=strided -D stride=12 -D length=70 -D heads=2 -D head_dim=24", heddle());
    for (int v = 0; v < VARIANTS; v++)
        assert_says(runs_here(v) ? hd_format("forward v%d", variants[v].level) : hd_format("%s: not compared", variants[v].name));
    must("%s check --target x86-64 models/text.lua " SMALL " -D dropout=0.1", heddle());
}

static void variants_share_weights_and_agree(void **state)
{
    (void)state;
    int32_t tokens[BATCH * LENGTH];
    for (int i = 0; i < BATCH * LENGTH; i++) tokens[i] = i * 37 % 256;
    const hd_tensor_data input = { "tokens", HD_I32, { 2, { BATCH, LENGTH } }, tokens };
    hd_tensor_file_write(HERE "/in", 1, &input);
    const float *first = NULL;
    double bits_of_first = 0;
    for (int v = VARIANTS - 1; v >= 0; v--) {
        if (!runs_here(v)) continue;
        const bool plainest = v == VARIANTS - 1;
        use(variants[v].name);
        must(HERE "/text train --data " HERE "/words --steps 5 --threads 1 --out " HERE "/w%d", v);
        must(HERE "/text eval --json --data " HERE "/words --weights " HERE "/w%d", v);
        const char *bits = strstr(said, "\"bits_per_byte\":");
        assert_non_null(bits);
        const double own_bits = strtod(strchr(bits, ':') + 1, NULL);
        must(HERE "/text run forward --in " HERE "/in --out " HERE "/out --weights " HERE "/w%d", VARIANTS - 1);
        const hd_tensor_data out = hd_tensor_file_read(HERE "/out", "logits");
        if (plainest) first = out.data, bits_of_first = own_bits;
        double worst = 0, largest = 0;
        for (int64_t i = 0; i < hd_elements(&out.shape); i++) {
            worst = fmax(worst, fabs((double)((const float *)out.data)[i] - (double)first[i]));
            largest = fmax(largest, fabs((double)first[i]));
        }
        print_message("%-10s logits differ from x86-64's by %.1e of %.2f; after training %.5f bits per byte\n", variants[v].name, worst / largest, largest, own_bits);
        assert_true(largest > 0 && worst <= 2e-5 * largest);
        assert_true(fabs(own_bits - bits_of_first) < 1e-3);
    }
}

/* ---- the choice ---- */

static void the_best_that_the_processor_has_runs(void **state)
{
    (void)state;
    int best = 0;
    while (!runs_here(best)) best++;
    unsetenv("HEDDLE_CPU");
    must(HERE "/text --version");
    assert_says(hd_format("for %s\n", variants[best].name));
    use("");
    must(HERE "/text info");
    assert_says(hd_format("for %s,", variants[best].name));
    assert_says("variants: x86-64-v4, x86-64-v3, x86-64;");
    for (int v = 0; v < VARIANTS; v++) {
        use(variants[v].name);
        if (!runs_here(v)) {
            refused("this processor lacks some of its instructions; valid for text here: ", HERE "/text info");
            continue;
        }
        must(HERE "/text info --json");
        assert_says(hd_format("\"target\": \"%s\"", variants[v].name));
        must(HERE "/text bench forward --seconds 0.01");
        assert_says(hd_format("compiled for %s\n", variants[v].name));
        assert_says(hd_format("text_v%d_", variants[v].level));
    }
}

static void a_wrong_choice_gets_one_line(void **state)
{
    (void)state;
    const char *here = hd_cpu_level() >= 4 ? "x86-64-v4, x86-64-v3, x86-64\n" : hd_cpu_level() == 3 ? "x86-64-v3, x86-64\n" : "x86-64\n";
    static const char *const wrong[] = { "z80", "x86-64-v5", "x86-64-v2", "native", "x86", "X86-64", " " };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        use(wrong[i]);
        refused(hd_format("HEDDLE_CPU=%s: no variant is called that; valid for text here: %s", wrong[i], here), HERE "/text info");
        refused("valid for text here: ", HERE "/text");
    }
    unsetenv("HEDDLE_CPU");
    must("%s build models/attention.lua --target x86-64-v1 -o " HERE "/plain -D length=16 -D heads=1 -D head_dim=8", heddle());
    must(HERE "/plain --version");
    assert_says("for x86-64-v1\n");
    use("x86-64");
    refused("HEDDLE_CPU=x86-64: no variant is called that; valid for attention here: x86-64-v1\n", HERE "/plain info");
}

static void emitted_sources_are_of_one_variant(void **state)
{
    (void)state;
    must("%s emit models/text.lua --target x86-64 -o " HERE "/emitted " SMALL, heddle());
    assert_non_null(strstr(text_of(HERE "/emitted/text.h"), "int text_forward("));
    DIR *dir = opendir(HERE "/emitted");
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) if (strstr(e->d_name, "text_v")) fail_msg("emitted: %s", e->d_name);
    closedir(dir);
}

/* ---- instructions ---- */

/* Among mnemonics that start like these are those that x86-64 came without: SSE3 to SSE4.2, BMI, and with v all of AVX. lzcnt is
 * missed by older processors' silence (they run bsr); tzcnt is how compilers write bsf, which gives the same where it is used. */
static const char *const not_of_all[] = {
    "v", "movsldup", "movshdup", "movddup", "lddqu", "addsubp", "haddp", "hsubp", "phadd", "phsub", "pshufb", "psign", "pabs", "pmaddubs", "pmulhrs", "palignr",
    "blend", "pblend", "round", "dpp", "ptest", "insertps", "extractps", "pinsrb", "pinsrd", "pinsrq", "pextrb", "pextrd", "pextrq", "pmulld", "pmuldq", "pmins", "pmaxs", "pminud",
    "pminuw", "pmaxud", "pmaxuw", "pmovsx", "pmovzx", "packusdw", "pcmpeqq", "pcmpgtq", "pcmpestr", "pcmpistr", "movntdqa", "mpsadbw", "phminpos", "popcnt", "crc32", "movbe", "cmpxchg16b",
    "lzcnt", "andn ", "bextr", "blsi", "blsr", "blsmsk", "bzhi", "mulx", "pdep", "pext ", "rorx", "sarx", "shlx", "shrx", NULL };
static const char *const common[] = { "pminsw", "pmaxsw", "verr", "verw", NULL };      /* what those beginnings take in too much */

static bool starts(const char *text, const char *const *with)
{
    for (int i = 0; with[i]; i++) if (!strncmp(text, with[i], strlen(with[i]))) return true;
    return false;
}

/* Whether a line of objdump's is an instruction beyond the level. */
static bool beyond(int level, const char *line)
{
    const char *instruction = strchr(line, '\t');
    if (!instruction++ || !strchr(line, ':')) return false;
    if (level < 3) return (starts(instruction, not_of_all) && !starts(instruction, common)) || strstr(instruction, "%ymm") || strstr(instruction, "%zmm");
    if (level > 3) return false;
    for (const char *r = instruction; (r = strchr(r, '%')); r++) {
        if (!strncmp(r, "%zmm", 4) || (r[1] == 'k' && r[2] >= '0' && r[2] <= '7')) return true;
        if ((!strncmp(r, "%xmm", 4) || !strncmp(r, "%ymm", 4)) && atoi(r + 4) > 15) return true;
    }
    return false;
}

/* Instructions beyond the level in `said`, objdump's output, in functions whose names do not say so ("_avx"). */
static int count_beyond(int level)
{
    int wrong = 0;
    bool guarded = false;
    const char *function = "";
    for (char *line = strtok(said, "\n"); line; line = strtok(NULL, "\n")) {
        if (*line && line[strlen(line) - 1] == ':' && strstr(line, " <")) function = strstr(line, " <"), guarded = strstr(function, "_avx") != NULL;
        if (guarded || !beyond(level, line)) continue;
        if (wrong++ < 3) print_message("in%s %s\n", function, line);
    }
    return wrong;
}

static void no_variant_holds_instructions_beyond_its_level(void **state)
{
    (void)state;
    if (!has("objdump")) skip();
    unsetenv("HEDDLE_CPU");
    int objects[VARIANTS] = { 0 }, wrong = 0;
    bool wide[VARIANTS] = { false };
    DIR *dir = opendir(HERE "/cache");
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (*e->d_name == '.') continue;
        must("objdump -t " HERE "/cache/%s", e->d_name);
        int v = VARIANTS - 1;                      /* only the plainest one's tables name the others */
        while (v >= 0 && !strstr(said, hd_format("text_v%d", variants[v].level))) v--;
        if (v < 0) fail_msg("%s is of no variant", e->d_name);
        objects[v]++;
        must("objdump -d --no-show-raw-insn " HERE "/cache/%s", e->d_name);
        wide[v] = wide[v] || strstr(said, v == 0 ? "%zmm" : v == 1 ? "%ymm" : "%xmm");
        const int beyond_level = count_beyond(variants[v].level);
        if (beyond_level) print_message("%s: %d instructions of %s are beyond it\n", e->d_name, beyond_level, variants[v].name);
        wrong += beyond_level;
    }
    closedir(dir);
    for (int v = 0; v < VARIANTS; v++) {
        print_message("%-10s %d objects\n", variants[v].name, objects[v]);
        assert_true(objects[v] > 2 && wide[v]);
    }
    must("objdump -d --no-show-raw-insn build/lib/libheddle_app.a");
    wrong += count_beyond(1);
    assert_int_equal(wrong, 0);
}

static void emulated_processors_run_what_they_have(void **state)
{
    (void)state;
    if (!has("qemu-x86_64")) {
        print_message("skipped: no qemu-x86_64\n");
        skip();
    }
    static const struct { const char *processor, *runs; } emulated[] = { { "qemu64", "x86-64" }, { "Nehalem", "x86-64" }, { "Haswell", "x86-64-v3" }, { "Haswell,movbe=off", "x86-64" } };
    unsetenv("HEDDLE_CPU");
    must("%s build --target x86-64-v3 models/attention.lua -o " HERE "/avx2 -D length=16 -D heads=1 -D head_dim=8", heddle());
    for (unsigned i = 0; i < sizeof emulated / sizeof *emulated; i++) {
        must("qemu-x86_64 -cpu %s " HERE "/text --version", emulated[i].processor);
        assert_says(hd_format("for %s\n", emulated[i].runs));
        must("qemu-x86_64 -cpu %s " HERE "/text train --data " HERE "/words --steps 2 --threads 1 --out " HERE "/emulated", emulated[i].processor);
        const bool small = !strcmp(emulated[i].runs, "x86-64");
        assert_int_equal(command("qemu-x86_64 -cpu %s " HERE "/avx2 info", emulated[i].processor), small);
        if (small) assert_says("attention was compiled for x86-64-v3, and this processor lacks some of its instructions; heddle build --target x86-64");
    }
}

static int build_program(void **state)
{
    (void)state;
    setenv("ASAN_OPTIONS", "detect_leaks=0", 0);      /* programs leave freeing to their exit */
    make_folder(HERE);
    write_words(HERE "/words", 20000);
    setenv("HEDDLE_CACHE", HERE "/cache", 1);         /* whose objects are this program's, for those who read them */
    must("%s build --target x86-64 models/text.lua -o " HERE "/text " SMALL, heddle());
    setenv("HEDDLE_CACHE", "build/cache", 1);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_agrees_with_the_interpreter),
        cmocka_unit_test(variants_share_weights_and_agree),
        cmocka_unit_test(the_best_that_the_processor_has_runs),
        cmocka_unit_test(a_wrong_choice_gets_one_line),
        cmocka_unit_test(emitted_sources_are_of_one_variant),
        cmocka_unit_test(no_variant_holds_instructions_beyond_its_level),
        cmocka_unit_test(emulated_processors_run_what_they_have),
    };
    if (!hd_cpu_level() || getenv("HEDDLE_SANITIZE")) return 0;      /* other kinds of processors; with sanitizers build_test checks all variants, of something small */
    choose_tests(NULL);
    return cmocka_run_group_tests_name("variants", tests, build_program, NULL);
}
