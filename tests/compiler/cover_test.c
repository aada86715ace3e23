/* Covers against the predicate, pair by pair: named cases, then random expressions. COVERS=n sets how many, SEED=s which: the
 * case that failed is printed with the seed that makes it alone, and shrunk. */
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
#include <time.h>
#include <unistd.h>

#include "../../compiler/pattern/cover.h"
#include "random_pattern.h"
#include "tool.h"

static hd_pattern *chunk(int64_t l) { return chunks(l, 0, 0); }
static hd_pattern *documents(void)      /* 60 positions */
{
    static const int64_t start[] = { 0, 7, 30, 31, 60 };
    return make((hd_pattern){ .kind = HD_PATTERN_DOCUMENTS, .documents = 4, .document = start });
}
static hd_pattern *strided(int64_t l) { return and(causal(), or(window(l - 1, 0), stride(l))); }

#define CHECK(condition) do { if (!(condition)) { printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); return false; } } while (0)

static bool check_shape(const hd_family *f)
{
    CHECK(f->groups >= 1 && f->inner >= 1 && f->groups % f->inner == 0);
    CHECK(f->q_step >= 1 && f->k_step >= f->k_run && f->k_run >= 1);
    CHECK(f->lo_div >= 1 && f->hi_div >= 1 && f->lo_mul >= 0 && f->hi_mul >= 0 && f->lo_phase >= 0 && f->hi_phase >= 0);
    CHECK(f->what && *f->what);
    return true;
}

/* Counts the pairs of one family in `times`; checks that its groups share no query and no key, and the transposed intervals. */
static bool count_family(const hd_cover *cover, const hd_family *f, unsigned char *times, unsigned char *rows, unsigned char *columns)
{
    int64_t pairs = 0;
    memset(rows, 0, (size_t)cover->queries);
    memset(columns, 0, (size_t)cover->keys);
    CHECK(check_shape(f));
    for (int64_t g = 0; g < f->groups; g++) {
        hd_group group = hd_family_group(cover, f, g);
        CHECK(group.q_start >= 0 && group.k_start >= 0 && group.q_count >= 0 && group.k_count >= 0);
        int64_t first, last, low = 0, high = 0, column_pairs = 0, group_pairs = 0;
        for (int64_t u = 0; u < group.k_count; u++) {
            int64_t j = hd_group_key(&group, u);
            CHECK(j < cover->keys && !columns[j]);
            columns[j] = 1;
            hd_group_column(f, &group, u, &first, &last);
            for (int64_t t = first; t < last; t++) {
                int64_t from, to;
                hd_group_interval(f, &group, t, &from, &to);
                CHECK(t >= 0 && t < group.q_count && u >= from && u < to);
                column_pairs++;
            }
        }
        for (int64_t t = 0; t < group.q_count; t++) {
            int64_t i = group.q_start + group.q_step * t;
            CHECK(i < cover->queries && !rows[i]);
            rows[i] = 1;
            hd_group_interval(f, &group, t, &first, &last);
            if (t) CHECK(first >= low && (last >= high || last >= group.k_count));
            low = first;
            high = last;
            for (int64_t u = first; u < last; u++) {
                unsigned char *pair = &times[i * cover->keys + hd_group_key(&group, u)];
                CHECK(*pair == 0);
                *pair = 1;
                group_pairs++;
            }
        }
        CHECK(column_pairs == group_pairs);
        pairs += group_pairs;
    }
    CHECK(pairs == f->kept_pairs);
    return true;
}

/* Rows say the same as the predicate. */
static bool check_rows(const hd_pattern *p, const hd_cover *cover)
{
    const hd_key_rows *rows = hd_cover_rows(cover);
    int64_t pairs = 0;
    for (int64_t i = 0; i < cover->queries; i++) {
        int64_t j = 0;
        for (int64_t k = rows->start[i]; k < rows->start[i + 1]; k++) {
            CHECK(rows->run[k].first < rows->run[k].end && rows->run[k].end <= cover->keys);
            CHECK(k == rows->start[i] || rows->run[k].first > rows->run[k - 1].end);
            for (; j < rows->run[k].first; j++) CHECK(!hd_pattern_keeps(p, i, j));
            for (; j < rows->run[k].end; j++, pairs++) CHECK(hd_pattern_keeps(p, i, j));
        }
        for (; j < cover->keys; j++) CHECK(!hd_pattern_keeps(p, i, j));
    }
    CHECK(pairs == cover->kept_pairs && pairs == hd_pattern_kept_pairs(p, cover->queries, cover->keys));
    return true;
}

static bool check_cover(const hd_pattern *p, const hd_cover *cover, unsigned char *times, unsigned char *rows, unsigned char *columns)
{
    int64_t pairs = 0, empty = 0;
    memset(times, 0, (size_t)(cover->queries * cover->keys));
    CHECK(cover->families >= 1 && cover->families <= 129);
    for (int k = cover->families - 1; k >= 0; k--) CHECK(count_family(cover, &cover->family[k], times, rows, columns));
    for (int64_t i = 0; i < cover->queries; i++) CHECK(rows[i]);      /* of family 0, counted last */
    bool future = false;
    for (int64_t i = 0; i < cover->queries; i++) {
        int64_t row = 0;
        for (int64_t j = 0; j < cover->keys; j++) {
            bool keeps = hd_pattern_keeps(p, i, j);
            CHECK(times[i * cover->keys + j] == keeps);
            row += keeps;
            future |= keeps && j > i;
        }
        pairs += row;
        empty += row == 0;
    }
    CHECK(pairs == cover->kept_pairs && pairs == hd_pattern_kept_pairs(p, cover->queries, cover->keys));
    CHECK(empty == cover->empty_rows && empty == hd_pattern_empty_rows(p, cover->queries, cover->keys));
    CHECK(future == !hd_pattern_causal(p, cover->queries, cover->keys));
    return true;
}

static bool check_row(const hd_pattern *p, int64_t i, int64_t keys)
{
    hd_progression *list;
    int items = hd_pattern_row(p, i, keys, &list);
    int64_t j = 0;
    for (int k = 0; k < items; k++)
        for (int64_t m = 0; m < list[k].count; m++) {
            int64_t key = list[k].start + list[k].step * m;
            CHECK(key >= j && key < keys);
            for (; j < key; j++) CHECK(!hd_pattern_keeps(p, i, j));
            CHECK(hd_pattern_keeps(p, i, key));
            j = key + 1;
        }
    for (; j < keys; j++) CHECK(!hd_pattern_keeps(p, i, j));
    return true;
}

/* Random expressions. */

/* Everything that covers, rows and questions say of one case, against the predicate. families_only: by hd_cover_try, whose
 * refusal is counted as listed. */
static bool check_case(const random_case *c, bool families_only, int64_t *listed)
{
    enum { MOST = 200, ROWS = 6 };
    static unsigned char times[MOST * MOST], rows[MOST], columns[MOST];
    CHECK(c->queries <= MOST && c->keys <= MOST);
    hd_pattern_validate(c->p);
    hd_pattern_check_lengths(c->p, c->queries, c->keys);
    const hd_cover *cover = families_only ? hd_cover_try(c->p, c->queries, c->keys) : hd_cover_make(c->p, c->queries, c->keys);
    *listed += !cover || cover->rows;
    if (cover && !cover->rows) CHECK(check_cover(c->p, cover, times, rows, columns));
    if (cover && (cover->rows || !below(8))) CHECK(check_rows(c->p, cover));
    const int64_t first = below(c->queries);
    for (int64_t k = 0; k < ROWS && k < c->queries; k++) CHECK(check_row(c->p, (first + k * 37) % c->queries, c->keys));
    CHECK(hd_pattern_equal(c->p, refit(c->p, c->queries, c->keys)));
    return true;
}

/* Cases run in child processes, many in each: whatever one does, the test goes on to name it and to shrink it. */
static bool families_only;
static bool fails(const random_case *c)
{
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        int64_t listed = 0;
        hd_set_child();
        alarm(20);
        if (!freopen("/dev/null", "w", stdout)) _exit(2);
        _exit(check_case(c, families_only, &listed) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status != 0;
}

static random_case draw(random_terms terms, uint64_t seed)
{
    random_seed(seed);
    const int64_t queries = random_length(200), keys = below(3) ? queries : random_length(200);
    return random_pattern(terms, queries, keys);
}

/* The share of $COVERS covers, from $SEED on: case n is that of the seed $SEED + n. */
static void check_random_covers(random_terms terms, bool families, int64_t percent, int64_t most_listed_percent)
{
    enum { IN_A_CHILD = 500 };
    static const char *const name[] = { "differences", "positions", "everything" };
    const char *count = getenv("COVERS"), *given = getenv("SEED");
    const int64_t covers = ((count ? atoll(count) : 10000) * percent + 99) / 100;
    const uint64_t seed = given ? strtoull(given, NULL, 0) : 20260101;
    struct progress { int64_t at, listed; } *progress = HD_NEW(struct progress);      /* in the arena, which children share */
    families_only = families;
    for (int64_t n = 0; n < covers; n += IN_A_CHILD) {
        fflush(NULL);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            hd_set_child();
            alarm(300);
            bool good = true;
            for (progress->at = n; good && progress->at < n + IN_A_CHILD && progress->at < covers; progress->at += good) {
                const random_case c = draw(terms, seed + (uint64_t)progress->at);
                good = check_case(&c, families, &progress->listed);
            }
            fflush(NULL);
            _exit(!good);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (!status) continue;
        const random_case c = draw(terms, seed + (uint64_t)progress->at), least = shrink(c, fails, 3000);
        hd_text text = { NULL, 0, 0 };
        const hd_cover *cover = fails(&least) && WIFEXITED(status) && WEXITSTATUS(status) == 1 ? hd_cover_try(least.p, least.queries, least.keys) : NULL;
        if (cover) hd_cover_print(cover, &text);
        fail_msg("SEED=%" PRIu64 " COVERS=1, terms of %s (child's status 0x%x)\n%s\nshrunk to: %s\n%s", seed + (uint64_t)progress->at, name[terms], (unsigned)status, case_text(&c),
                 case_text(&least), text.data ? text.data : "");
    }
    printf("random covers of %s: %" PRId64 " from seed %" PRIu64 ", %" PRId64 " %s\n", name[terms], covers, seed, progress->listed, families ? "too irregular for families" : "listed by rows");
    assert_true(progress->listed * 100 <= covers * most_listed_percent + 100);
}

static void random_covers_keep_each_pair_exactly_once(void **state)
{
    (void)state;
    check_random_covers(DIFFERENCES, true, 25, 1);
}

static void random_covers_of_positional_terms_keep_each_pair_exactly_once(void **state)
{
    (void)state;
    check_random_covers(POSITIONS, true, 35, 8);
}

static void random_covers_of_documents_grids_and_lists_keep_each_pair_exactly_once(void **state)
{
    (void)state;
    check_random_covers(EVERYTHING, false, 40, 90);
}

/* A failing case becomes small: any condition does for the test, here that a stride of 3 or more stays next to a list. */
static bool holds(const hd_pattern *p, hd_pattern_kind kind)
{
    if (p->kind >= HD_PATTERN_AND) return holds(p->a, kind) || holds(p->b, kind);
    return p->kind == kind && (kind != HD_PATTERN_STRIDE || p->stride > 2);
}
static bool still_both(const random_case *c) { return c->queries > 4 && holds(c->p, HD_PATTERN_STRIDE) && holds(c->p, HD_PATTERN_LIST); }

static void failing_cases_shrink_to_a_few_terms(void **state)
{
    (void)state;
    int shrunk = 0;
    for (uint64_t seed = 1; seed < 4000 && shrunk < 5; seed++) {
        const random_case c = draw(EVERYTHING, seed);
        if (!still_both(&c)) continue;
        const random_case least = shrink(c, still_both, 3000);
        hd_pattern_check_lengths(least.p, least.queries, least.keys);
        if (least.queries != 5 || least.keys != 1 || least.p->kind < HD_PATTERN_AND || least.p->a->kind >= HD_PATTERN_AND || least.p->b->kind >= HD_PATTERN_AND)
            fail_msg("%s\nonly shrinks to: %s", case_text(&c), case_text(&least));
        shrunk++;
    }
    assert_int_equal(shrunk, 5);
}

/* Named cases. */

static void known_patterns_fall_into_few_families(void **state)
{
    (void)state;
    const struct { const char *why; hd_pattern *p; int64_t queries, keys; int families, home_groups; } cases[] = {
        { "full is one tile",                                   full(), 17, 31, 1, 1 },
        { "causal is one band",                                 causal(), 64, 64, 1, 1 },
        { "a window is one band",                               and(causal(), window(63, 0)), 1000, 1000, 1, 1 },
        { "a stride is one family of columns, home itself",     and(causal(), stride(16)), 1000, 1000, 1, 16 },
        { "strided merged is window and columns",               strided(16), 1000, 1000, 2, 1 },
        { "strided merged with the paper's window of l + 1",    and(causal(), or(window(16, 0), stride(16))), 1000, 1000, 2, 1 },
        { "strided both ways is window and columns per side",   or(window(15, 15), stride(16)), 1000, 1000, 3, 1 },
        { "a dilated window is one family",                     and(and(causal(), window(255, 0)), stride(8)), 1000, 1000, 1, 8 },
        { "a dilated window both ways",                         and(window(64, 64), stride(8)), 1000, 1000, 1, 8 },
        { "two windows apart are two bands",                    or(window(7, 0), window(100, -90)), 1000, 1000, 2, 1 },
        { "a window without own key is one band",               minus(window(8, 8), window(0, 0)), 100, 100, 2, 1 },
        { "a window minus a stride is bands between columns",   and(causal(), minus(window(1023, 0), stride(128))), 4096, 4096, 8, 1 },
        { "a window minus a fine stride is columns",            and(causal(), minus(window(1023, 0), stride(4))), 4096, 4096, 3, -1 },
        { "two strides",                                        and(causal(), or(stride(64), stride(256))), 4096, 4096, 1, 64 },
        { "two strides that do not divide",                     and(causal(), or(stride(2), stride(3))), 4096, 4096, 2, 2 },
        { "fixed, summary merged: the chunk and 32 keys of each before", and(causal(), or(chunk(128), residues(128, 96, 128))), 12288, 12288, 2, 96 },
        { "fixed, another summary block",                       and(causal(), or(chunk(128), residues(128, 0, 32))), 12288, 12288, 2, 96 },
        { "fixed, summary alone: whole runs and cut ones",      and(causal(), residues(128, 96, 128)), 12288, 12288, 2, 1 },
        { "window, chunk, both ways",                           or(window(20, 20), chunk(64)), 1000, 1000, 4, -1 },
        { "the chunk before is one family; home has none",      chunks(64, 1, -1), 1000, 1000, 2, 1 },
        { "the chunk before and the own",                       and(causal(), chunks(64, 1, 0)), 1000, 1000, 1, 1 },
        { "three chunks around",                                chunks(64, 1, 1), 1000, 1000, 1, 1 },
        { "16 chunks and every 8th, causal (Phi-3-small)",      and(causal(), or(chunks(64, 15, 0), residues(512, 64, 128))), 8192, 8192, 2, 1 },
        { "chunks around, first and last chunk (BigBird)",      or(chunks(64, 1, 1), or(keys_of(0, 64), or(keys_of(4032, 4096), or(queries_of(0, 64), queries_of(4032, 4096))))), 4096, 4096, 5, 1 },
        { "last key of every chunk before (Jukebox)",           minus(and(causal(), residues(64, 63, 64)), chunk(64)), 1000, 1000, 1, 1 },
        { "chunks are one family",                              and(causal(), chunk(100)), 1234, 1234, 1, 13 },
        { "chunks dilated are one family of a grid of groups",  and(and(causal(), chunk(256)), stride(16)), 1000, 1000, 1, 64 },
        { "every 4th query and key of chunks",                  and(and(causal(), chunk(256)), and(stride(4), residues(4, 0, 1))), 1024, 1024, 2, 1 },
        { "everything but the own chunk, before",               minus(causal(), chunk(128)), 1000, 1000, 1, 1 },
        { "window and chunk",                                   and(causal(), or(window(63, 0), chunk(128))), 1000, 1000, 2, 1 },
        { "window and vertical stripes",                        and(causal(), or(window(1023, 0), residues(512, 64, 128))), 8192, 8192, 3, 1 },
        { "window and sinks",                                   and(causal(), or(window(1023, 0), keys_of(0, 4))), 8192, 8192, 2, 1 },
        { "window, global keys and global queries",             or(window(256, 256), or(keys_of(0, 16), queries_of(0, 16))), 8192, 8192, 3, 1 },
        { "a global token in the middle",                       or(window(8, 8), or(keys_of(50, 51), queries_of(50, 51))), 1000, 1000, 5, 1 },
        { "a prefix",                                           or(causal(), keys_of(0, 100)), 1000, 1000, 2, 1 },
        { "terms that cut nothing leave no trace",              or(strided(16), and(chunk(7), and(keys_of(3, 9), minus(residues(5, 1, 2), full())))), 999, 999, 2, 1 },
        { "documents, causal",                                  and(causal(), documents()), 60, 60, 1, 4 },
        { "a window in documents",                              and(window(5, 0), documents()), 60, 60, 1, 4 },
        { "a stride in documents",                              and(and(causal(), stride(4)), documents()), 60, 60, 1, 16 },
        { "strided in documents",                               and(strided(4), documents()), 60, 60, 2, 4 },
        { "documents that cut nothing leave no trace",          or(strided(4), and(documents(), window(1, 0))), 60, 60, 2, 1 },
        { "an empty pattern has an empty home",                 minus(full(), full()), 10, 20, 1, 1 },
        { "one query, one key",                                 strided(4), 1, 1, 1, 1 },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        hd_cover *cover = hd_cover_make(cases[k].p, cases[k].queries, cases[k].keys);
        bool good = cover->families == cases[k].families && (cases[k].home_groups < 0 || cover->family[0].groups == cases[k].home_groups);
        if (!good) {
            hd_text text = { NULL, 0, 0 };
            hd_cover_print(cover, &text);
            fail_msg("%s: %s\n%s", cases[k].why, hd_pattern_text(cases[k].p), text.data);
        }
    }
}

static void the_strided_cover_prints_as_documented(void **state)
{
    (void)state;
    hd_text text = { NULL, 0, 0 };
    hd_cover_print(hd_cover_make(strided(4), 16, 16), &text);
    assert_string_equal(text.data,
        "cover: 16 queries, 16 keys, kept pairs 82 (density 0.320312, 60.29 % of causal's 136), empty rows 0, families 2, tiles 5, wasted pairs 366 (81.7 % of the computed), table bytes 0\n"
        "  family 0 (home): window of 4 keys: kept pairs 58, groups 1, tiles 1, wasted pairs 198 (77.3 % of the computed); queries from 0 below 16 step 1; keys from 0 below 16 step 1; interval lo -3 +t hi 1 +t\n"
        "  family 1: columns of stride 4: kept pairs 24, groups 4, tiles 4, wasted pairs 168 (87.5 % of the computed); queries from 4+1g below 16 step 4; keys from 0+1g below 12 step 4; interval lo 0 hi 1 +t\n");
}

static void the_fixed_cover_prints_as_documented(void **state)
{
    (void)state;
    hd_text text = { NULL, 0, 0 };
    hd_cover_print(hd_cover_make(and(causal(), or(chunk(4), residues(4, 2, 4))), 16, 16), &text);
    assert_string_equal(text.data,
        "cover: 16 queries, 16 keys, kept pairs 88 (density 0.343750, 64.71 % of causal's 136), empty rows 0, families 2, tiles 5, wasted pairs 264 (75.0 % of the computed), table bytes 0\n"
        "  family 0 (home): in chunks of 4: causal: kept pairs 40, groups 4, tiles 4, wasted pairs 216 (84.4 % of the computed); queries from 0+4g below 4+4g step 1; keys from 0+4g below 4+4g step 1; interval lo 0 hi 1 +t\n"
        "  family 1: 2 keys of every chunk of 4 before: kept pairs 48, groups 1, tiles 1, wasted pairs 48 (50.0 % of the computed); queries from 4 below 16 step 1; keys from 2 below 16 step 4 in runs of 2; interval lo 0 hi 2 +2*floor(t/4)\n");
}

/* What is said of tiles and tables where they come from data: two documents, three queries with listed keys. */
static void covers_of_data_print_their_tables(void **state)
{
    (void)state;
    static const int64_t start[] = { 0, 20, 24 }, row[] = { 0, 1, 1, 3 };
    static const hd_interval run[] = { { 0, 2 }, { 1, 3 }, { 4, 5 } };
    static const hd_key_lists list = { .block = 1, .rows = 3, .columns = 5, .start = row, .run = run, .what = "4 edges" };
    hd_text text = { NULL, 0, 0 };
    hd_cover_print(hd_cover_make(and(causal(), make((hd_pattern){ .kind = HD_PATTERN_DOCUMENTS, .documents = 2, .document = start })), 24, 24), &text);
    hd_cover_print(hd_cover_make(make((hd_pattern){ .kind = HD_PATTERN_LIST, .list = &list }), 3, 5), &text);
    assert_string_equal(text.data,
        "cover: 24 queries, 24 keys, kept pairs 220 (density 0.381944, 73.33 % of causal's 300), empty rows 0, families 1, tiles 2, wasted pairs 420 (65.6 % of the computed), table bytes 12\n"
        "  family 0 (home): in 2 documents: causal: kept pairs 220, groups 2 (1 inner), tiles 2, wasted pairs 420 (65.6 % of the computed); queries from 0+table[h] below 0+table[h+1] step 1; "
        "keys from 0+table[h] below 0+table[h+1] step 1; interval lo 0 hi 1 +t\n"
        /* keys 0, 1, 2 and 4, each of other queries; one block */
        "cover: 3 queries, 5 keys, kept pairs 5 (density 0.333333, 83.33 % of causal's 6), empty rows 1, listed by rows in 3 runs of keys, tiles 4, wasted pairs 59 (92.2 % of the computed), table bytes 84\n");
}

/* Of this process: what else the machine does is not counted. */
static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void a_million_positions_are_covered_in_well_under_a_second(void **state)
{
    (void)state;
    double start = seconds();
    hd_pattern *p = strided(1024);
    hd_cover *cover = hd_cover_make(p, 1048576, 1048576);
    double made = seconds() - start;
    assert_int_equal(cover->families, 2);
    assert_true(cover->kept_pairs == 1609564672);
    start = seconds();
    assert_true(hd_pattern_kept_pairs(p, 1048576, 1048576) == 1609564672);
    printf("strided 1024 at 1048576: cover %.3f s, kept pairs %.3f s\n", made, seconds() - start);
    start = seconds();
    cover = hd_cover_make(and(causal(), or(chunk(1024), residues(1024, 992, 1024))), 1048576, 1048576);
    printf("fixed 1024, summary 32 at 1048576: cover %.3f s\n", seconds() - start);
    assert_int_equal(cover->families, 2);
    assert_true(cover->kept_pairs == 17700487168);
    hd_pattern *dense = and(causal(), or(stride(2), stride(3)));
    start = seconds();
    cover = hd_cover_make(dense, 1048576, 1048576);
    printf("stride 2 | stride 3 at 1048576: cover %.3f s, %d families\n", seconds() - start, cover->families);
    assert_true(made < 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_patterns_fall_into_few_families),
        cmocka_unit_test(the_strided_cover_prints_as_documented),
        cmocka_unit_test(the_fixed_cover_prints_as_documented),
        cmocka_unit_test(covers_of_data_print_their_tables),
        cmocka_unit_test(random_covers_keep_each_pair_exactly_once),
        cmocka_unit_test(random_covers_of_positional_terms_keep_each_pair_exactly_once),
        cmocka_unit_test(random_covers_of_documents_grids_and_lists_keep_each_pair_exactly_once),
        cmocka_unit_test(failing_cases_shrink_to_a_few_terms),
        cmocka_unit_test(a_million_positions_are_covered_in_well_under_a_second),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
