/* Patterns as values: published key sets and pair counts, text, equality, and one clear error per mistake. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../compiler/pattern/pattern.h"

static hd_pattern *make(hd_pattern p)
{
    hd_pattern *q = HD_NEW(hd_pattern);
    *q = p;
    q->where = (hd_where){ "model.lua", 7 };
    return q;
}
static hd_pattern *causal(void) { return make((hd_pattern){ .kind = HD_PATTERN_CAUSAL }); }
static hd_pattern *full(void) { return make((hd_pattern){ .kind = HD_PATTERN_FULL }); }
static hd_pattern *window(int64_t left, int64_t right) { return make((hd_pattern){ .kind = HD_PATTERN_WINDOW, .left = left, .right = right }); }
static hd_pattern *stride(int64_t s) { return make((hd_pattern){ .kind = HD_PATTERN_STRIDE, .stride = s }); }
static hd_pattern *chunk(int64_t l) { return make((hd_pattern){ .kind = HD_PATTERN_CHUNK, .chunk = l }); }
static hd_pattern *residues(int64_t l, int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_RESIDUES, .stride = l, .first = first, .end = end }); }
static hd_pattern *global_keys(int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_KEYS, .first = first, .end = end }); }
static hd_pattern *global_queries(int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_QUERIES, .first = first, .end = end }); }
static hd_pattern *and(hd_pattern *a, hd_pattern *b) { return make((hd_pattern){ .kind = HD_PATTERN_AND, .a = a, .b = b }); }
static hd_pattern *or(hd_pattern *a, hd_pattern *b) { return make((hd_pattern){ .kind = HD_PATTERN_OR, .a = a, .b = b }); }
static hd_pattern *minus(hd_pattern *a, hd_pattern *b) { return make((hd_pattern){ .kind = HD_PATTERN_MINUS, .a = a, .b = b }); }
static hd_pattern *keys(int64_t w) { return window(w - 1, 0); }
static hd_pattern *fixed(int64_t l, int64_t first, int64_t end) { return and(causal(), or(chunk(l), residues(l, first, end))); }
static hd_pattern *longformer(int64_t w, int64_t tokens) { return or(window(w, w), or(global_keys(0, tokens), global_queries(0, tokens))); }
static hd_pattern *phi3(int64_t head) { return and(causal(), or(keys(2), residues(4, 3 - head, 4 - head))); }
static hd_pattern *strided(int64_t l) { return and(causal(), or(keys(l), stride(l))); }

/* "1 5-9": ascending keys, neighbours joined. */
static const char *row_text(const hd_pattern *p, int64_t i, int64_t length)
{
    hd_progression *list;
    hd_text text = { NULL, 0, 0 };
    int items = hd_pattern_row(p, i, length, &list);
    int64_t from = -2, to = -2;
    for (int k = 0; k <= items; k++)
        for (int64_t m = 0; m < (k < items ? list[k].count : 1); m++) {
            int64_t j = k < items ? list[k].start + m * list[k].step : INT64_MAX;
            if (j == to + 1) { to = j; continue; }
            if (to >= 0) hd_text_add(&text, to > from ? "%s%" PRId64 "-%" PRId64 : "%s%" PRId64, text.length ? " " : "", from, to);
            from = to = j;
        }
    return text.length ? text.data : "";
}

static void rows_are_the_published_ones(void **state)
{
    (void)state;
    const struct { const char *why; hd_pattern *p; int64_t length, i; const char *row; } cases[] = {
        { "causal",                                 causal(),                                       16,   9, "0-9" },
        { "paper's strided window, l = 4",          and(causal(), window(4, 4)),                    16,   9, "5-9" },
        { "paper's strided window at the start",    and(causal(), window(4, 4)),                    16,   2, "0-2" },
        { "window of 4 keys",                       and(causal(), keys(4)),                         16,   9, "6-9" },
        { "strided columns",                        and(causal(), stride(4)),                       16,   9, "1 5 9" },
        { "strided merged, window of 4 keys",       strided(4),                                     16,   9, "1 5-9" },
        { "strided merged, window of 5 keys",       and(causal(), or(keys(5), stride(4))),          16,   9, "1 5-9" },
        { "W keys",                                 and(causal(), keys(4)),                          8,   7, "4-7" },
        { "W + 1 keys",                             and(causal(), window(4, 0)),                     8,   7, "3-7" },
        { "ModernBERT local attention of 4",        window(2, 2),                                   10,   5, "3-7" },
        { "Longformer window 2, dilation 2",        and(window(4, 4), stride(2)),                   10,   5, "1 3 5 7 9" },
        { "Longformer dilated, causal",             and(and(window(4, 4), stride(2)), causal()),    10,   9, "5 7 9" },
        { "GPT-Neo window of 256",                  and(causal(), keys(256)),                     1024, 300, "45-300" },
        { "image column, rows of 4",                and(causal(), stride(4)),                       16,   9, "1 5 9" },
        { "fixed, chunk",                           and(causal(), chunk(4)),                        16,   9, "8-9" },
        { "fixed, chunk complete",                  and(causal(), chunk(4)),                        16,  11, "8-11" },
        { "fixed, summary c = 1",                   and(causal(), residues(4, 3, 4)),               16,   9, "3 7" },
        { "fixed, summary c = 1, own included",     and(causal(), residues(4, 3, 4)),               16,  11, "3 7 11" },
        { "fixed, summary c = 2",                   and(causal(), residues(4, 2, 4)),               16,   9, "2-3 6-7" },
        { "fixed, summary c = 2 at the start",      and(causal(), residues(4, 2, 4)),               16,   2, "2" },
        { "fixed merged c = 1, head 0",             fixed(4, 3, 4),                                 16,   9, "3 7-9" },
        { "fixed merged c = 1, head 1",             fixed(4, 2, 3),                                 16,   9, "2 6 8-9" },
        { "fixed merged c = 1, head 2",             fixed(4, 1, 2),                                 16,   9, "1 5 8-9" },
        { "fixed merged c = 1, head 3",             fixed(4, 0, 1),                                 16,   9, "0 4 8-9" },
        { "fixed merged c = 2",                     fixed(4, 2, 4),                                 16,   9, "2-3 6-9" },
        { "fixed merged c = 3",                     fixed(4, 1, 4),                                 16,   9, "1-3 5-9" },
        { "summary, distinct block of head 3",      and(causal(), residues(4, 0, 1)),               16,   9, "0 4 8" },
        { "Llama 4 chunk of 4",                     and(causal(), chunk(4)),                        16,   9, "8-9" },
        { "Longformer row 5",                       longformer(2, 1),                               10,   5, "0 3-7" },
        { "Longformer row 1",                       longformer(2, 1),                               10,   1, "0-3" },
        { "Longformer's global query",              longformer(2, 1),                               10,   0, "0-9" },
        { "BSLongformer, window 3, row 4",          longformer(1, 1),                                8,   4, "0 3-5" },
        { "BSLongformer, causal",                   and(causal(), longformer(1, 1)),                 8,   4, "0 3-4" },
        { "StreamingLLM, 4 sinks and 4 keys",       and(causal(), or(keys(4), global_keys(0, 4))),  32,  20, "0-3 17-20" },
        { "prefix-LM, first row",                   or(causal(), global_keys(0, 3)),                 8,   0, "0-2" },
        { "prefix-LM, row 5",                       or(causal(), global_keys(0, 3)),                 8,   5, "0-5" },
        { "Phi-3-small miniature, head 0",          phi3(0),                                        16,   9, "3 7-9" },
        { "Phi-3-small miniature, head 1",          phi3(1),                                        16,   9, "2 6 8-9" },
        { "Phi-3-small miniature, head 2",          phi3(2),                                        16,   9, "1 5 8-9" },
        { "Phi-3-small miniature, head 3",          phi3(3),                                        16,   9, "0 4 8-9" },
        { "Jukebox row block",                      and(causal(), chunk(4)),                        16,   9, "8-9" },
        { "LongNet segment, every second",          and(and(causal(), chunk(4)), and(residues(2, 0, 1), stride(2))), 8, 6, "4 6" },
        { "LongNet segment, a row left out",        and(and(causal(), chunk(4)), and(residues(2, 0, 1), stride(2))), 8, 5, "" },
        { "a window without its own key",           minus(window(2, 2), window(0, 0)),              10,   0, "1-2" },
        { "a row without keys",                     window(-3, 5),                                   8,   6, "" },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const char *row = row_text(cases[k].p, cases[k].i, cases[k].length);
        if (strcmp(row, cases[k].row)) fail_msg("%s: row %" PRId64 " is {%s}, not {%s}", cases[k].why, cases[k].i, row, cases[k].row);
    }
}

static void kept_pairs_are_the_published_ones(void **state)
{
    (void)state;
    const struct { const char *why; hd_pattern *p; int64_t length, pairs; } cases[] = {
        { "causal",                            causal(),                                   16,      136 },
        { "paper's strided window",            and(causal(), window(4, 0)),                16,      70 },
        { "window of 4 keys",                  and(causal(), keys(4)),                     16,      58 },
        { "strided columns",                   and(causal(), stride(4)),                   16,      40 },
        { "strided merged, 4 keys",            strided(4),                                 16,      82 },
        { "strided merged, 5 keys",            and(causal(), or(keys(5), stride(4))),      16,      82 },
        { "enwik8 causal",                     causal(),                                   12288,   75503616 },
        { "enwik8 strided 128",                strided(128),                               12288,   2148416 },
        { "enwik8 strided columns",            and(causal(), stride(128)),                 12288,   595968 },
        { "enwik8 window of 128 keys",         and(causal(), keys(128)),                   12288,   1564736 },
        { "enwik8 paper's window",             and(causal(), window(128, 0)),              12288,   1576896 },
        { "window of 256 keys",                and(causal(), keys(256)),                   12288,   3113088 },
        { "CIFAR-10 causal",                   causal(),                                   3072,    4720128 },
        { "CIFAR-10 strided 96",               strided(96),                                3072,    337968 },
        { "music strided 256",                 strided(256),                               65536,   25100416 },
        { "music strided 1024",                strided(1024),                              1048576, 1609564672 },
        { "music causal",                      causal(),                                   1048576, 549756338176 },
        { "fixed chunk",                       and(causal(), chunk(4)),                    16,      40 },
        { "fixed summary c = 1",               and(causal(), residues(4, 3, 4)),           16,      28 },
        { "fixed summary c = 2",               and(causal(), residues(4, 2, 4)),           16,      60 },
        { "fixed summary c = 3",               and(causal(), residues(4, 1, 4)),           16,      96 },
        { "fixed merged c = 1",                fixed(4, 3, 4),                             16,      64 },
        { "fixed merged c = 1, head 3",        fixed(4, 0, 1),                             16,      64 },
        { "fixed merged c = 2",                fixed(4, 2, 4),                             16,      88 },
        { "fixed merged c = 3",                fixed(4, 1, 4),                             16,      112 },
        { "enwik8 fixed 128, summary 32",      fixed(128, 96, 128),                        12288,   19470336 },
        { "full",                              full(),                                     1048576, 1099511627776 },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int64_t pairs = hd_pattern_kept_pairs(cases[k].p, cases[k].length, cases[k].length);
        if (pairs != cases[k].pairs) fail_msg("%s: %" PRId64 " pairs, not %" PRId64, cases[k].why, pairs, cases[k].pairs);
        hd_cover *cover = hd_cover_make(cases[k].p, cases[k].length, cases[k].length);
        if (cover->kept_pairs != cases[k].pairs) fail_msg("%s: the cover has %" PRId64 " pairs, not %" PRId64, cases[k].why, cover->kept_pairs, cases[k].pairs);
    }
}

static void text_shows_the_order_of_operators(void **state)
{
    (void)state;
    const struct { hd_pattern *p; const char *text; } cases[] = {
        { strided(64),                                          "causal & (window of 64 keys | stride 64)" },
        { and(and(causal(), keys(1)), full()),                  "causal & window of 1 key & full" },
        { minus(minus(full(), causal()), stride(3)),            "full - causal - stride 3" },
        { minus(full(), minus(causal(), stride(3))),            "full - (causal - stride 3)" },
        { fixed(4, 2, 4),                                       "causal & (chunk 4 | residues 2..3 of 4)" },
        { longformer(2, 1),                                     "window of 2 keys before and 2 after | keys 0..0 | queries 0..0" },
        { or(window(3, 2), and(causal(), stride(5))),           "window of 3 keys before and 2 after | (causal & stride 5)" },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) assert_string_equal(hd_pattern_text(cases[k].p), cases[k].text);
}

static void patterns_are_equal_when_written_alike(void **state)
{
    (void)state;
    assert_true(hd_pattern_equal(strided(64), strided(64)));
    assert_false(hd_pattern_equal(strided(64), strided(65)));
    assert_false(hd_pattern_equal(and(causal(), full()), or(causal(), full())));
    assert_true(hd_pattern_equal(fixed(4, 2, 4), fixed(4, 2, 4)));
    assert_false(hd_pattern_equal(fixed(4, 2, 4), fixed(4, 1, 3)));
    assert_false(hd_pattern_equal(global_keys(0, 3), global_queries(0, 3)));
    assert_false(hd_pattern_equal(window(3, 0), window(3, 1)));
}

static void causality_and_empty_rows_depend_on_the_lengths(void **state)
{
    (void)state;
    assert_true(hd_pattern_causal(strided(4), 100, 100));
    assert_false(hd_pattern_causal(or(causal(), window(0, 1)), 100, 100));
    assert_true(hd_pattern_causal(minus(full(), window(-1, 200)), 100, 100));
    assert_true(hd_pattern_causal(full(), 5, 1));       /* a single key is nobody's future */
    assert_int_equal(hd_pattern_empty_rows(strided(4), 100, 100), 0);
    assert_int_equal(hd_pattern_empty_rows(window(-3, 5), 8, 8), 3);
    assert_int_equal(hd_pattern_empty_rows(keys(4), 20, 10), 7);
    assert_int_equal(hd_pattern_empty_rows(and(causal(), residues(4, 3, 4)), 16, 16), 3);
    assert_int_equal(hd_pattern_empty_rows(and(causal(), residues(4, 2, 4)), 16, 16), 2);
    assert_true(hd_pattern_causal(fixed(4, 2, 4), 99, 99));
    assert_false(hd_pattern_causal(or(causal(), global_keys(0, 3)), 99, 99));
    assert_int_equal(hd_pattern_empty_rows(minus(causal(), causal()), 20, 10), 20);
}

static void bad_validate(const hd_pattern *p) { hd_pattern_validate(p); }
static void bad_cover(const hd_pattern *p) { hd_cover_make(p, 1 << 20, 1 << 20); }

static void mistakes_are_reported_at_the_pattern_line(void **state)
{
    (void)state;
    hd_pattern *many = causal();
    for (int k = 0; k < 40; k++) many = or(many, many);
    const struct { void (*run)(const hd_pattern *); hd_pattern *p; const char *message; } cases[] = {
        { bad_validate, window(3, -4),                  "model.lua:7: window holds no key (left 3, right -4); keys must be at least 1" },
        { bad_validate, and(causal(), stride(0)),       "model.lua:7: stride is 0; it must be at least 1" },
        { bad_validate, window(INT64_MAX, 0),           "model.lua:7: window: left and right must lie between" },
        { bad_validate, many,                           "model.lua:7: pattern has more than 1024 terms" },
        { bad_validate, chunk(0),                       "model.lua:7: chunk is 0; it must be at least 1" },
        { bad_validate, residues(4, 3, 5),              "model.lua:7: residues 3 to below 5 of period 4: valid is 0 <= first < end <= period" },
        { bad_validate, residues(0, 0, 1),              "model.lua:7: residues: the period is 0; it must be at least 1" },
        { bad_validate, global_keys(5, 5),              "model.lua:7: global keys from 5 to below 5: valid is 0 <= first < end" },
        { bad_cover,    minus(causal(), stride(128)),   "model.lua:7: pattern \"causal - stride 128\" at 1048576 queries and 1048576 keys is neither at most 64 families of tiles nor rows of at most" },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            dup2(ends[1], STDERR_FILENO);
            cases[k].run(cases[k].p);
            _exit(77);
        }
        close(ends[1]);
        char message[1024];
        size_t length = 0;
        for (ssize_t got; length < sizeof message - 1 && (got = read(ends[0], message + length, sizeof message - 1 - length)) > 0; ) length += (size_t)got;
        message[length] = 0;
        close(ends[0]);
        int status;
        waitpid(child, &status, 0);
        if (!strstr(message, cases[k].message)) fail_msg("expected \"%s\", got \"%s\"", cases[k].message, message);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_the_published_ones),
        cmocka_unit_test(kept_pairs_are_the_published_ones),
        cmocka_unit_test(text_shows_the_order_of_operators),
        cmocka_unit_test(patterns_are_equal_when_written_alike),
        cmocka_unit_test(causality_and_empty_rows_depend_on_the_lengths),
        cmocka_unit_test(mistakes_are_reported_at_the_pattern_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
