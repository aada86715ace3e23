/* Covers against the predicate, pair by pair: named cases, then random expressions (HD_COVERS sets how many, HD_SEED which). */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../compiler/pattern/cover.h"

static const hd_where here = { "cover_test.c", 1 };

static hd_pattern *make(hd_pattern p)
{
    hd_pattern *q = HD_NEW(hd_pattern);
    *q = p;
    q->where = here;
    return q;
}
static hd_pattern *causal(void) { return make((hd_pattern){ .kind = HD_PATTERN_CAUSAL }); }
static hd_pattern *full(void) { return make((hd_pattern){ .kind = HD_PATTERN_FULL }); }
static hd_pattern *window(int64_t left, int64_t right) { return make((hd_pattern){ .kind = HD_PATTERN_WINDOW, .left = left, .right = right }); }
static hd_pattern *stride(int64_t s) { return make((hd_pattern){ .kind = HD_PATTERN_STRIDE, .stride = s }); }
static hd_pattern *chunk(int64_t l) { return make((hd_pattern){ .kind = HD_PATTERN_CHUNK, .chunk = l }); }
static hd_pattern *chunks(int64_t l, int64_t before, int64_t after) { return make((hd_pattern){ .kind = HD_PATTERN_CHUNK, .chunk = l, .left = before, .right = after }); }
static hd_pattern *residues(int64_t l, int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_RESIDUES, .stride = l, .first = first, .end = end }); }
static hd_pattern *keys_of(int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_KEYS, .first = first, .end = end }); }
static hd_pattern *queries_of(int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_QUERIES, .first = first, .end = end }); }
static hd_pattern *and(hd_pattern *a, hd_pattern *b) { return make((hd_pattern){ .kind = HD_PATTERN_AND, .a = a, .b = b }); }
static hd_pattern *or(hd_pattern *a, hd_pattern *b) { return make((hd_pattern){ .kind = HD_PATTERN_OR, .a = a, .b = b }); }
static hd_pattern *minus(hd_pattern *a, hd_pattern *b) { return make((hd_pattern){ .kind = HD_PATTERN_MINUS, .a = a, .b = b }); }
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

static uint64_t random_state;
static int64_t below(int64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (int64_t)((random_state >> 11) % (uint64_t)n);
}

/* Documents, grids and lists that fit the lengths. */
static hd_pattern *random_irregular(int64_t queries, int64_t keys)
{
    int64_t longest = queries > keys ? queries : keys;
    hd_pattern p = { 0 };
    switch (below(3)) {
    case 0: {
        int64_t *document = HD_NEW_ARRAY(int64_t, longest + 1), at = 0;
        for (p.documents = 0; at < longest; p.documents++) {
            document[p.documents] = at;
            at += 1 + below(longest - at < 30 ? longest - at : 30);
        }
        document[p.documents] = at;
        p.kind = HD_PATTERN_DOCUMENTS;
        p.document = document;
        break;
    }
    case 1: {
        hd_grid *g = HD_NEW(hd_grid);
        g->axes = 1 + (int)below(3);
        int64_t cells = 1;
        for (int k = 0; k < g->axes; k++) {
            hd_axis *a = &g->axis[k];
            *a = (hd_axis){ .kind = (hd_axis_kind)below(4), .causal = below(2), .left = below(4), .right = below(4), .dilation = 1 + below(3) };
            a->size = 1 + below(longest / cells < 14 ? longest / cells : 14);
            if (a->dilation > a->size) a->dilation = 1;
            a->kernel = 1 + below(a->size / a->dilation);
            a->stride = 1 + below(a->kernel);
            a->offset = below(a->kernel);
            cells *= a->size;
        }
        g->first = below(longest - cells + 1);
        p.kind = HD_PATTERN_GRID;
        p.grid = g;
        break;
    }
    default: {
        hd_key_lists *l = HD_NEW(hd_key_lists);
        l->block = 1 + below(7);
        l->rows = (queries + l->block - 1) / l->block;
        l->columns = (keys + l->block - 1) / l->block;
        l->what = "random lists";
        int64_t *start = HD_NEW_ARRAY(int64_t, l->rows + 1), runs = 0, sparse = 1 + below(9);
        hd_interval *run = HD_NEW_ARRAY(hd_interval, l->rows * (l->columns + 1) / 2 + l->rows + 1);
        for (int64_t r = 0; r < l->rows; r++) {
            start[r] = runs;
            for (int64_t at = below(sparse); at < l->columns; at += 2 + below(sparse)) {
                run[runs].first = at;
                at += below(3);
                run[runs++].end = at < l->columns ? at + 1 : l->columns;
            }
        }
        start[l->rows] = runs;
        l->start = start;
        l->run = run;
        p.kind = HD_PATTERN_LIST;
        p.list = l;
    }
    }
    return make(p);
}

/* Positional terms of one expression share a chunk length, as they do in practice; residue periods mostly fit it. */
static hd_pattern *random_positional(int64_t length, int64_t chunk_length)
{
    int64_t first = below(length + 3);
    switch (below(5)) {
    case 0: return chunk(chunk_length);
    case 1: {
        int64_t before = below(6) - 2;
        return chunks(chunk_length, before, below(4) - before);
    }
    case 2: {
        int64_t period = below(4) ? chunk_length : below(2) ? 2 * chunk_length : 1 + below(12);
        first = below(period);
        return residues(period, first, first + 1 + below(period - first));
    }
    case 3: return keys_of(below(3) ? 0 : first, first + 1 + below(4));
    default: return queries_of(below(3) ? 0 : first, first + 1 + below(4));
    }
}

static hd_pattern *random_pattern(int depth, int64_t length, int64_t chunk_length)
{
    if (depth > 0 && below(4)) {
        hd_pattern *a = random_pattern(depth - 1, length, chunk_length), *b = random_pattern(depth - 1, length, chunk_length);
        switch (below(3)) {
        case 0: return and(a, b);
        case 1: return or(a, b);
        default: return minus(a, b);
        }
    }
    if (chunk_length && below(2)) return random_positional(length, chunk_length);
    switch (below(6)) {
    case 0: return full();
    case 1: return causal();
    case 2: return stride(1 + below(below(2) ? 9 : length + 3));
    case 3: return window(below(8), 0);
    default: {
        int64_t left = below(2 * length + 3) - length / 2;
        return window(left, below(length + 2) - left);
    }
    }
}

static int64_t random_length(void)
{
    static const int64_t primes[] = { 1, 2, 3, 5, 7, 13, 31, 61, 97, 127, 199 };
    if (!below(8)) return primes[below(11)];
    return 1 + below(below(4) ? 48 : 200);
}

static void check_random_covers(bool positional, int64_t most_irregular_percent)
{
    const char *count = getenv("HD_COVERS"), *seed = getenv("HD_SEED");
    int64_t covers = (count ? atoll(count) : 20000) / 2, irregular = 0;
    random_state = seed ? strtoull(seed, NULL, 0) : 0x9E3779B97F4A7C15u;
    printf("random covers: %" PRId64 ", seed 0x%" PRIx64 "\n", covers, random_state);
    unsigned char *times = malloc(200 * 200), rows[200], columns[200];
    assert_non_null(times);
    for (int64_t n = 0; n < covers; n++) {
        uint64_t case_seed = random_state;
        int64_t queries = random_length(), keys = below(3) ? queries : random_length();
        int64_t length = queries > keys ? queries : keys;
        hd_pattern *p = random_pattern((int)below(5), length, positional ? 1 + below(below(2) ? 12 : length + 2) : 0);
        hd_cover *cover = hd_cover_try(p, queries, keys);
        irregular += !cover;
        if (cover && !check_cover(p, cover, times, rows, columns)) {
            hd_text text = { NULL, 0, 0 };
            hd_cover_print(cover, &text);
            fail_msg("case %" PRId64 " (HD_SEED=0x%" PRIx64 "): %s\n%s", n, case_seed, hd_pattern_text(p), text.data);
        }
        if (!check_row(p, below(queries), keys)) fail_msg("row of case %" PRId64 ": %s", n, hd_pattern_text(p));
    }
    free(times);
    printf("too irregular: %" PRId64 "\n", irregular);
    assert_true(irregular * 100 <= covers * most_irregular_percent);
}

static void random_covers_keep_each_pair_exactly_once(void **state)
{
    (void)state;
    check_random_covers(false, 1);
}

static void random_covers_of_positional_terms_keep_each_pair_exactly_once(void **state)
{
    (void)state;
    check_random_covers(true, 5);
}

/* Expressions that families do not cover: the same keys, by rows. */
static void random_rows_are_those_of_the_predicate(void **state)
{
    (void)state;
    const char *count = getenv("HD_COVERS"), *seed = getenv("HD_SEED");
    int64_t covers = (count ? atoll(count) : 20000) / 8, listed = 0;
    unsigned char *times = malloc(200 * 200), rows[200], columns[200];
    assert_non_null(times);
    random_state = seed ? strtoull(seed, NULL, 0) : 0x9E3779B97F4A7C15u;
    for (int64_t n = 0; n < covers; n++) {
        uint64_t case_seed = random_state;
        int64_t queries = random_length(), keys = below(3) ? queries : random_length();
        int64_t length = queries > keys ? queries : keys;
        hd_pattern *p = random_pattern((int)below(4), length, below(2) ? 1 + below(12) : 0);
        if (below(6)) {
            hd_pattern *q = random_irregular(queries, keys);
            hd_pattern_check_lengths(q, queries, keys);
            p = below(3) == 0 ? and(p, q) : below(2) ? or(p, q) : minus(q, p);
        }
        const hd_cover *cover = hd_cover_make(p, queries, keys);
        listed += cover->rows != NULL;
        if (!cover->rows && !check_cover(p, cover, times, rows, columns)) fail_msg("case %" PRId64 " (HD_SEED=0x%" PRIx64 "): %s", n, case_seed, hd_pattern_text(p));
        if (!check_rows(p, cover) || !check_row(p, below(queries), keys)) fail_msg("case %" PRId64 " (HD_SEED=0x%" PRIx64 "): %s", n, case_seed, hd_pattern_text(p));
    }
    free(times);
    printf("random rows: %" PRId64 " covers, %" PRId64 " of them listed\n", covers, listed);
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
        "cover: 16 queries, 16 keys, kept pairs 82 (density 0.320312), empty rows 0, families 2, table bytes 0\n"
        "  family 0 (home): window of 4 keys: kept pairs 58, groups 1; queries from 0 below 16 step 1; keys from 0 below 16 step 1; interval lo -3 +t hi 1 +t\n"
        "  family 1: columns of stride 4: kept pairs 24, groups 4; queries from 4+1g below 16 step 4; keys from 0+1g below 12 step 4; interval lo 0 hi 1 +t\n");
}

static void the_fixed_cover_prints_as_documented(void **state)
{
    (void)state;
    hd_text text = { NULL, 0, 0 };
    hd_cover_print(hd_cover_make(and(causal(), or(chunk(4), residues(4, 2, 4))), 16, 16), &text);
    assert_string_equal(text.data,
        "cover: 16 queries, 16 keys, kept pairs 88 (density 0.343750), empty rows 0, families 2, table bytes 0\n"
        "  family 0 (home): in chunks of 4: causal: kept pairs 40, groups 4; queries from 0+4g below 4+4g step 1; keys from 0+4g below 4+4g step 1; interval lo 0 hi 1 +t\n"
        "  family 1: 2 keys of every chunk of 4 before: kept pairs 48, groups 1; queries from 4 below 16 step 1; keys from 2 below 16 step 4 in runs of 2; interval lo 0 hi 2 +2*floor(t/4)\n");
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
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
        cmocka_unit_test(random_covers_keep_each_pair_exactly_once),
        cmocka_unit_test(random_covers_of_positional_terms_keep_each_pair_exactly_once),
        cmocka_unit_test(random_rows_are_those_of_the_predicate),
        cmocka_unit_test(a_million_positions_are_covered_in_well_under_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
