/* heddle tune and its records: what is written is read back; what does not fit is not used, and said; a real tuning of a small
 * product finds its way from bad parameters, and keeps what it learnt when it is stopped; builds use the records and repeat byte
 * for byte; runners and variants that fail are dropped with the reason. Run from the repository's root. */
#include "tool.h"
#include "../../compiler/tune/tune.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HERE FOLDER_OF("tune")
#define DATABASE HERE "/records.txt"

/* One product of the size of a small layer: a few microseconds a call. */
static const char spec[] =
    "local hd = require 'heddle'\n"
    "local c = hd.config { m = 48, n = 96, k = 64 }\n"
    "local x, w, b = hd.input('x', { c.m, c.k }), hd.param('w', { c.n, c.k }), hd.param('b', { c.n })\n"
    "return hd.model { name = 'one', entries = { forward = { inputs = { x }, outputs = { { 'y', hd.relu(hd.linear(x, w, b)) } } } } }\n";

static int folder(void **state)
{
    (void)state;
    setenv("HEDDLE_TUNING", "off", 1);
    make_folder(HERE);
    hd_write_file(HERE "/one.lua", spec, strlen(spec));
    return 0;
}

static hd_record example(void)
{
    return (hd_record){ .op = "product", .problem = "m=1 n=2 k=3", .machine = "Vendor-1-2-3 l1=1 l2=2 l3=3", .target = "vl=16 registers=32",
                        .compiler = "clang-22.1.8-00ff", .templates = "templates=12ab", .threads = 4, .choice = "mr=8 nv=3", .nanoseconds = 1234, .default_nanoseconds = 2345, .noise = 0.0123 };
}

static void a_record_reads_back_as_it_was_written(void **state)
{
    (void)state;
    const hd_record made = example();
    hd_record read;
    const char *wrong = hd_record_parse(hd_record_text(&made), &read);
    if (wrong) fail_msg("%s", wrong);
    assert_string_equal(read.op, made.op);
    assert_string_equal(read.problem, made.problem);
    assert_string_equal(read.machine, made.machine);
    assert_string_equal(read.target, made.target);
    assert_string_equal(read.compiler, made.compiler);
    assert_string_equal(read.templates, made.templates);
    assert_string_equal(read.choice, made.choice);
    assert_int_equal(read.threads, 4);
    assert_true(read.nanoseconds == 1234 && read.default_nanoseconds == 2345 && read.noise == 0.0123);
    assert_string_equal(hd_record_text(&read), hd_record_text(&made));
}

static void wrong_lines_are_named_and_other_lines_stay(void **state)
{
    (void)state;
    const hd_record r = example();
    const char *good = hd_record_text(&r);
    static const struct { const char *why, *from, *to; } damage[] = {
        { "begin with a version", "1 | product", "product" },          { "version 7", "1 | product", "7 | product" },
        { "9 fields of 10", " | mr=8 nv=3", "" },                      { "more than 10 fields", "mr=8", "x | mr=8" },
        { "field 3 is empty", "m=1 n=2 k=3", "" },                     { "threads=NUMBER", "threads=4", "threads=four" },
        { "threads=NUMBER", "threads=4", "threads=0" },                { "ns=TIME", "ns=1234", "ns=-1" },
        { "ns=TIME", "noise=0.0123", "noise=0.0123 more" },            { "holds what is no text", "Vendor", "Ven\001or" },
        { "ns=TIME", " default_ns=2345 noise=0.0123", "" },
    };
    for (unsigned i = 0; i < sizeof damage / sizeof *damage; i++) {
        const char *at = strstr(good, damage[i].from);
        assert_non_null(at);
        const char *bad = hd_format("%.*s%s%s", (int)(at - good), good, damage[i].to, at + strlen(damage[i].from));
        hd_record read;
        const char *wrong = hd_record_parse(bad, &read);
        if (!wrong || !strstr(wrong, damage[i].why)) fail_msg("\"%s\" should be refused with \"%s\", not \"%s\"", bad, damage[i].why, wrong ? wrong : "nothing");
    }
    /* A heddle that meets such a line names it and goes on; a tuning keeps it. */
    const char *text = hd_format("# mine\n%.40s\n2%s\n\n", good, good + 1);
    hd_write_file(HERE "/damaged.txt", text, strlen(text));
    must("sh -c 'HEDDLE_TUNING=" HERE "/damaged.txt %s info " HERE "/one.lua'", heddle());
    assert_says("damaged.txt:2: warning: no tuning record");
    assert_says("damaged.txt:3: warning: a tuning record of version 2, and this heddle reads version 1");
    hd_records_store(HERE "/damaged.txt", &r, 1);
    hd_records_store(HERE "/damaged.txt", &r, 1);
    assert_string_equal(text_of(HERE "/damaged.txt"), hd_format("%s%s\n", text, good));
}

/* Lines with bytes changed, cut and repeated: refused or read, never followed into a wrong place. */
static void damaged_lines_do_no_harm(void **state)
{
    (void)state;
    hd_record r = example();
    r.choice = "mr=8 nv=3 kc=64 nc=96 slots_m=1 slots_n=1 ahead=8 copy_a=0";
    const char *good = hd_record_text(&r);
    const hd_product_target target = { 16, 32, 32 << 10, 1 << 20, 16 << 20, 2 };
    const size_t length = strlen(good);
    uint32_t dice = 1;
    int read = 0;
    for (int i = 0; i < 20000; i++) {
        char *line = hd_strdup(good);
        for (int k = 0; k < 1 + i % 3; k++) {
            dice = dice * 1664525u + 1013904223u;
            line[(dice >> 8) % length] = (dice >> 28) % 4 ? (char)('0' + (dice >> 20) % 10) : (char)(dice >> 24);
        }
        if (i % 7 == 0) line[(dice >> 4) % length] = 0;
        hd_record got;
        if (hd_record_parse(line, &got) || !got.op) continue;
        read++;
        hd_product p = { .m = 48, .n = 96, .k = 64, .batch = 1, .ld_a = 64, .ld_b = 64, .b_kind = HD_B_PACKED };
        const char *why;
        hd_product_choose(&p, &target);
        if (!hd_product_apply(&p, got.choice, &target, &why)) continue;
        assert_in_range(p.mr * p.nv + p.nv + 1, 1, target.registers);
        assert_in_range(p.slots, 1, 4096);
        assert_in_range(p.kc, 1, p.k);
    }
    assert_in_range(read, 100, 20000);
}

static void the_last_of_equal_records_stays(void **state)
{
    (void)state;
    hd_record two[2] = { example(), example() };
    two[1].problem = "m=2 n=2 k=2";
    hd_records_store(HERE "/merged.txt", two, 2);
    two[0].choice = "mr=6 nv=4";
    hd_records_store(HERE "/merged.txt", two, 1);
    hd_records all = { 0 };
    hd_records_read(&all, HERE "/merged.txt");
    assert_int_equal(all.count, 2);
    assert_string_equal(all.record[0].choice, "mr=8 nv=3");
    assert_string_equal(all.record[1].choice, "mr=6 nv=4");
    assert_int_equal(all.record[1].line, 3);
}

/* ---- choices ---- */

static void candidates_fit_and_choices_that_do_not_are_refused(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 1, 77, 4096 };
    enum { SIZES = sizeof sizes / sizeof *sizes };
    static hd_product move[256];
    for (int vl = 4; vl <= 16; vl *= 4)
        for (int at = 0; at < SIZES * SIZES * SIZES * 6; at++) {
            const hd_product_target target = { vl, vl == 16 ? 32 : 16, 32 << 10, 1 << 20, 16 << 20, 2 };
            const int rest = at / SIZES / SIZES / SIZES;
            hd_product p = { .m = sizes[at % SIZES], .n = sizes[at / SIZES % SIZES], .k = sizes[at / SIZES / SIZES % SIZES], .batch = 1 };
            p.b_kind = (hd_product_kind)(rest % 3), p.trans_a = rest / 3;
            p.ld_a = p.trans_a ? p.m : p.k, p.ld_b = p.b_kind == HD_B_TRANSPOSED ? p.k : p.n;
            hd_product_choose(&p, &target);
            const hd_product worst = hd_product_worst(&p, &target);
            const hd_product *const from[] = { &p, &worst };
            for (int f = 0; f < 2; f++) {
                const char *why, *name;
                bool threads;
                hd_product same = p;
                if (!hd_product_apply(&same, hd_product_choice(from[f]), &target, &why))
                    fail_msg("%s of %dx%dx%d: %s", hd_product_choice(from[f]), (int)p.m, (int)p.n, (int)p.k, why);
                assert_string_equal(hd_product_parameters(&same), hd_product_parameters(from[f]));
                for (int coordinate = 0, n; (n = hd_product_moves(from[f], &target, coordinate, move, 256, &name, &threads)) >= 0; coordinate++)
                    for (int i = 0; i < n; i++) {
                        assert_true(move[i].mr * move[i].nv + move[i].nv + 1 <= target.registers || move[i].nv == p.nv);
                        assert_true(move[i].local_bytes == hd_product_local_bytes(&move[i], vl) && move[i].local_bytes <= 16 << 20);
                        same = p;
                        assert_true(hd_product_apply(&same, hd_product_choice(&move[i]), &target, &why));
                    }
            }
        }
    const hd_product_target target = { 16, 32, 32 << 10, 1 << 20, 16 << 20, 2 };
    static const struct { const char *why, *choice; } bad[] = {
        { "registers", "mr=8 nv=4 kc=64 nc=96 slots_m=1 slots_n=1 ahead=8 copy_a=0" },     { "1 row", "mr=0 nv=3 kc=64 nc=96 slots_m=1 slots_n=1 ahead=8 copy_a=0" },
        { "kc is", "mr=8 nv=3 kc=65 nc=96 slots_m=1 slots_n=1 ahead=8 copy_a=0" },         { "nc is", "mr=8 nv=3 kc=64 nc=0 slots_m=1 slots_n=1 ahead=8 copy_a=0" },
        { "more slots", "mr=8 nv=3 kc=64 nc=96 slots_m=7 slots_n=1 ahead=8 copy_a=0" },    { "ahead is", "mr=8 nv=3 kc=64 nc=96 slots_m=1 slots_n=1 ahead=999 copy_a=0" },
        { "copy_a is", "mr=8 nv=3 kc=64 nc=96 slots_m=1 slots_n=1 ahead=8 copy_a=1" },     { "ahead=NUMBER", "mr=8 nv=3 kc=64 nc=96 slots_m=1 slots_n=1 ahead=8" },
        { "nv=NUMBER", "mr=8 kc=64 nc=96 slots_m=1 slots_n=1 ahead=8 copy_a=0" },          { "copy_a=NUMBER", "mr=8 nv=3 kc=64 nc=96 slots_m=1 slots_n=1 ahead=8 copy_a=0 more" },
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        hd_product p = { .m = 48, .n = 96, .k = 64, .batch = 1, .ld_a = 64, .ld_b = 64, .b_kind = HD_B_PACKED };
        hd_product_choose(&p, &target);
        const hd_product before = p;
        const char *why = "";
        if (hd_product_apply(&p, bad[i].choice, &target, &why) || !strstr(why, bad[i].why))
            fail_msg("\"%s\" should be refused with \"%s\", not \"%s\"", bad[i].choice, bad[i].why, why);
        assert_memory_equal(&p, &before, sizeof p);
    }
}

/* ---- the command ---- */

static double number_after(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    if (!at) fail_msg("\"%s\" is not in: %s", key, text);
    return atof(at + strlen(key));
}

static hd_record only_record(const char *path)
{
    hd_records all = { 0 };
    hd_records_read(&all, path);
    if (all.count != 1) fail_msg("%s holds %d records:\n%s", path, all.count, text_of(path));
    return all.record[0];
}

/* A record of the product, made by a real tuning. */
static hd_record tuned(void)
{
    if (access(DATABASE, R_OK)) must("%s tune " HERE "/one.lua --trials 13 --threads 1 --start worst --explain --database " DATABASE, heddle());
    return only_record(DATABASE);
}

/* The worst parameters are several times slower than the analytical ones; found again without being told, within what a busy
 * machine allows to be said. */
static void a_tuning_recovers_from_bad_parameters(void **state)
{
    (void)state;
    const hd_record r = tuned();
    assert_int_equal(r.threads, 1);
    assert_non_null(strstr(r.problem, "m=48 n=96 k=64"));
    assert_says("  tile");
    assert_says("finalists");
    const double worst = number_after(strstr(said, "mr=1 nv=1"), "copy_a=0 "), ratio = r.nanoseconds / r.default_nanoseconds;
    print_message("worst %.1f us, default %.1f us, found %.3f of it: %s\n", worst, r.default_nanoseconds / 1e3, ratio, r.choice);
    assert_true(worst * 1e3 > 1.5 * r.default_nanoseconds);
    assert_true(ratio < 1.25);
}

static void commands_use_records_and_say_so(void **state)
{
    (void)state;
    const hd_record r = tuned();
    /* A choice that shows in the text, whatever was found. */
    hd_record other = r;
    other.choice = "mr=4 nv=2 kc=32 nc=64 slots_m=2 slots_n=1 ahead=12 copy_a=0";
    hd_records_store(HERE "/other.txt", &other, 1);
    must("sh -c 'HEDDLE_TUNING=" HERE "/other.txt %s emit " HERE "/one.lua --threads 1 -o " HERE "/tuned'", heddle());
    must("sh -c 'HEDDLE_TUNING=" HERE "/other.txt %s emit " HERE "/one.lua --threads 1 -o " HERE "/again'", heddle());
    must("%s emit " HERE "/one.lua -o " HERE "/plain", heddle());
    must("diff -r " HERE "/tuned " HERE "/again");
    assert_non_null(strstr(text_of(HERE "/tuned/one.h"), "1 of 1 operators by tuning records, "));
    assert_null(strstr(text_of(HERE "/plain/one.h"), "tuning"));
    assert_non_null(strstr(text_of(HERE "/tuned/one_product.c"), "Tiles of 4 x 32, k in blocks of 32"));
    assert_null(strstr(text_of(HERE "/plain/one_product.c"), "k in blocks of 32"));
    must("sh -c 'HEDDLE_TUNING=" HERE "/other.txt %s info " HERE "/one.lua --threads 1'", heddle());
    assert_says("1 of 1 operators by tuning records");
    must("sh -c 'HEDDLE_TUNING=" HERE "/other.txt %s info " HERE "/one.lua --threads 3'", heddle());
    assert_says("1 of them timed with another number of threads than 3");
    must("sh -c 'HEDDLE_TUNING=" HERE "/other.txt %s check%s " HERE "/one.lua --threads 1'", heddle(), sanitize());
    must("sh -c 'HEDDLE_TUNING=" HERE "/other.txt %s info " HERE "/one.lua --cpu generic'", heddle());
    assert_says("no tuning record fits any of 1 operators");
}

static void foreign_records_are_ignored_and_said_under_v(void **state)
{
    (void)state;
    const hd_record mine = tuned();
    static const struct { const char *why; int field; } cases[] = {
        { "for another CPU", 0 }, { "for another target", 1 }, { "for another compiler", 2 }, { "for other kernel sources", 3 } };
    for (int i = 0; i < 4; i++) {
        hd_record r = mine;
        const char **const field[] = { &r.machine, &r.target, &r.compiler, &r.templates };
        *field[cases[i].field] = "another";
        unlink(HERE "/foreign.txt");
        hd_records_store(HERE "/foreign.txt", &r, 1);
        must("sh -c 'HEDDLE_TUNING=" HERE "/foreign.txt %s info " HERE "/one.lua -v'", heddle());
        assert_says(hd_format("1 record ignored, %s", cases[i].why));
        assert_says("no tuning record fits any of 1 operators");
        must("sh -c 'HEDDLE_TUNING=" HERE "/foreign.txt %s info " HERE "/one.lua'", heddle());
        assert_null(strstr(said, "ignored"));
    }
    /* The same machine, another target: keyed apart. */
    must("sh -c 'HEDDLE_TUNING=" DATABASE " %s info " HERE "/one.lua -v --target x86-64-v1'", heddle());
    assert_says("1 record ignored, for another target");
    hd_record r = mine;
    r.choice = "mr=30 nv=30 kc=1 nc=1 slots_m=1 slots_n=1 ahead=0 copy_a=0";
    unlink(HERE "/foreign.txt");
    hd_records_store(HERE "/foreign.txt", &r, 1);
    must("sh -c 'HEDDLE_TUNING=" HERE "/foreign.txt %s info " HERE "/one.lua'", heddle());
    assert_says("foreign.txt:2: warning: the choice \"mr=30 nv=30");
    assert_says("no tuning record fits any of 1 operators");
}

/* Kernels of every kind, forward and backward, give what the estimated ones give, and a program made with their records is right. */
static void attention_kernels_are_timed_and_taken(void **state)
{
    (void)state;
    static const char model[] = "models/attention.lua -D pattern=strided -D length=96 -D heads=2 -D head_dim=16 -D stride=8";      /* all kinds can do it */
    must("%s tune %s --trials 3 --threads 1 --explain --database " HERE "/attention.txt", heddle(), model);
    assert_null(strstr(said, "wrong results"));
    static const char *const kernels[] = { "kernels=tiles", "kernels=rows", "kernels=stencil", "kernels=edges" };
    for (unsigned i = 0; i < sizeof kernels / sizeof *kernels; i++) assert_says(kernels[i]);
    hd_records all = { 0 };
    hd_records_read(&all, HERE "/attention.txt");
    assert_int_equal(all.count, 2);
    static const char *const choices[] = { "kernels=edges width=0 chunk=0", "kernels=rows width=2 chunk=0", "kernels=stencil width=0 chunk=0", "kernels=tiles width=2 chunk=144" };
    for (unsigned i = 0; i < sizeof choices / sizeof *choices; i++) {
        all.record[0].choice = all.record[1].choice = choices[i];
        hd_records_store(HERE "/attention.txt", all.record, 2);
        must("sh -c 'HEDDLE_TUNING=" HERE "/attention.txt %s info %s --threads 1'", heddle(), model);
        assert_says("2 of 2 operators by tuning records");
        if (i % 2 && !getenv("HEDDLE_SANITIZE")) must("sh -c 'HEDDLE_TUNING=" HERE "/attention.txt %s check %s --threads 1'", heddle(), model);
    }
    static const struct { const char *choice, *why; } bad[] = {
        { "kernels=tiles width=4 chunk=0", "no block is so wide" }, { "kernels=tiles width=0 chunk=50", "chunks are of tiles" },
        { "kernels=rows width=0 chunk=48", "chunks are of tiles" },
        { "kernels=best width=0 chunk=0", "it is not kernels=NAME" }, { "kernels=tiles width=1", "it is not kernels=NAME" },
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        all.record[0].choice = bad[i].choice;
        hd_records_store(HERE "/attention.txt", all.record, 1);
        must("sh -c 'HEDDLE_TUNING=" HERE "/attention.txt %s info %s --threads 1'", heddle(), model);
        assert_says(bad[i].why);
        assert_says("1 of 2 operators by tuning records");
    }
}

static void runners_that_fail_are_named(void **state)
{
    (void)state;
    static const struct { const char *runner, *why; } cases[] = {
        { "false", "exit status 1" }, { "echo hello", "the runner printed \"hello " }, { HERE "/none", "cannot be run" },
        { "true", "it ended without having said all" } };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        unlink(HERE "/runner.txt");
        const int status = command("%s tune " HERE "/one.lua --trials 1 --threads 1 --runner '%s' --database " HERE "/runner.txt", heddle(), cases[i].runner);
        if (status != 1 || !strstr(said, cases[i].why)) fail_msg("--runner '%s' should fail with \"%s\"; status %d: %s", cases[i].runner, cases[i].why, status, said);
        assert_int_not_equal(access(HERE "/runner.txt", R_OK), 0);
    }
    /* One that spoils what is said of some variants: those are dropped, the others timed; the record is of the machine the runner names. */
    static const char script[] = "#!/bin/sh\n\"$@\" | sed 's/^machine .*/machine Board-1 l1=1 l2=2 l3=3/; s/^time 2 .*/time 2 1 soon/; s/^check 3 ok .*/check 3 crashed 11/'\n";
    hd_write_file(HERE "/spoil", script, sizeof script - 1);
    must("chmod +x " HERE "/spoil");
    must("%s tune " HERE "/one.lua --trials 3 --threads 1 --explain --runner " HERE "/spoil --database " HERE "/runner.txt", heddle());
    assert_says("dropped: the runner printed \"time 2 1 soon\"");
    assert_says("dropped: crashed: Segmentation fault");
    assert_string_equal(only_record(HERE "/runner.txt").machine, "Board-1 l1=1 l2=2 l3=3");
    must("sh -c 'HEDDLE_TUNING=" HERE "/runner.txt %s info " HERE "/one.lua --threads 1 --cpu \"Board-1 l1=1 l2=2 l3=3\"'", heddle());
    assert_says("1 of 1 operators by tuning records");
}

/* Stopped once its first records are there. */
static void an_interrupted_tuning_keeps_what_it_learnt(void **state)
{
    (void)state;
    const char **argv = words(hd_format("%s tune " HERE "/one.lua --minutes 2 --threads 1 --start worst --database " HERE "/stopped.txt", heddle()));
    const pid_t child = fork();
    if (!child) {
        if (!freopen("/dev/null", "w", stdout)) _exit(126);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    for (int i = 0; i < 1500 && access(HERE "/stopped.txt", R_OK); i++) usleep(20000);
    kill(child, SIGINT);
    int status;
    assert_true(waitpid(child, &status, 0) == child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGINT);
    const hd_record r = only_record(HERE "/stopped.txt");
    assert_null(strstr(r.choice, "mr=1 nv=1 "));
}

static void mistakes_get_one_clear_line(void **state)
{
    (void)state;
    refused("--start: \"best\" is no place to begin; default or worst", "%s tune " HERE "/one.lua --start best --database " DATABASE, heddle());
    refused("--start: worst is for checks of the search; --database FILE takes", "%s tune " HERE "/one.lua --start worst", heddle());
    refused("--minutes: \"soon\" is no number of minutes", "%s tune " HERE "/one.lua --minutes soon", heddle());
    refused("--threads: \"0\" is no number of threads", "%s info " HERE "/one.lua --threads 0", heddle());
    refused("there is no place for tuning records", "%s tune " HERE "/one.lua", heddle());
    refused("cannot write tuning records", "%s tune " HERE "/one.lua --minutes 0.01 --threads 1 --database /proc/none/records.txt", heddle());
}

int main(int argc, char **argv)
{
    choose_tests(argc > 1 ? argv[1] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_reads_back_as_it_was_written),
        cmocka_unit_test(wrong_lines_are_named_and_other_lines_stay),
        cmocka_unit_test(damaged_lines_do_no_harm),
        cmocka_unit_test(the_last_of_equal_records_stays),
        cmocka_unit_test(candidates_fit_and_choices_that_do_not_are_refused),
        cmocka_unit_test(a_tuning_recovers_from_bad_parameters),
        cmocka_unit_test(commands_use_records_and_say_so),
        cmocka_unit_test(foreign_records_are_ignored_and_said_under_v),
        cmocka_unit_test(attention_kernels_are_timed_and_taken),
        cmocka_unit_test(runners_that_fail_are_named),
        cmocka_unit_test(an_interrupted_tuning_keeps_what_it_learnt),
        cmocka_unit_test(mistakes_get_one_clear_line),
    };
    return cmocka_run_group_tests(tests, folder, NULL);
}
