/* heddle view: what its pictures count, what they say of reach, and that a page holds together whatever a spec is called.
 * Run from the repository's root. */
#include "tool.h"
#include "../../compiler/driver/view.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HERE FOLDER_OF("view")

/* ---- patterns ---- */

static const hd_pattern *make(hd_pattern p)
{
    hd_pattern *q = HD_NEW(hd_pattern);
    *q = p;
    q->where = (hd_where){ "view_test.c", 1 };
    return q;
}
static const hd_pattern *causal(void) { return make((hd_pattern){ .kind = HD_PATTERN_CAUSAL }); }
static const hd_pattern *window(int64_t left, int64_t right) { return make((hd_pattern){ .kind = HD_PATTERN_WINDOW, .left = left, .right = right }); }
static const hd_pattern *stride(int64_t s) { return make((hd_pattern){ .kind = HD_PATTERN_STRIDE, .stride = s }); }
static const hd_pattern *chunk(int64_t l) { return make((hd_pattern){ .kind = HD_PATTERN_CHUNK, .chunk = l }); }
static const hd_pattern *residues(int64_t l, int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_RESIDUES, .stride = l, .first = first, .end = end }); }
static const hd_pattern *keys(int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_KEYS, .end = end }); }
static const hd_pattern *and(const hd_pattern *a, const hd_pattern *b) { return make((hd_pattern){ .kind = HD_PATTERN_AND, .a = a, .b = b }); }
static const hd_pattern *or(const hd_pattern *a, const hd_pattern *b) { return make((hd_pattern){ .kind = HD_PATTERN_OR, .a = a, .b = b }); }
static const hd_pattern *natten(int64_t rows, int64_t columns)
{
    hd_grid *g = HD_NEW(hd_grid);
    *g = (hd_grid){ .axes = 2, .axis = { { .kind = HD_AXIS_CLAMPED, .size = rows, .kernel = 3, .stride = 1, .dilation = 1 }, { .kind = HD_AXIS_WINDOW, .size = columns, .left = 2, .right = 1, .dilation = 1 } } };
    return make((hd_pattern){ .kind = HD_PATTERN_GRID, .grid = g });
}
/* Every query reads a few keys that hash draws, some nothing. */
static const hd_pattern *scattered(int64_t queries, int64_t columns)
{
    hd_key_lists *l = HD_NEW(hd_key_lists);
    int64_t *start = HD_NEW_ARRAY(int64_t, queries + 1), runs = 0;
    hd_interval *run = HD_NEW_ARRAY(hd_interval, queries * columns + 1);
    for (int64_t i = 0; i < queries; i++) {
        start[i] = runs;
        for (int64_t j = 0; j < columns; j++) {
            const int64_t pair[2] = { i, j };
            if (i % 5 == 1 || (hd_hash(pair, sizeof pair, 1) >> 20) % 7) continue;
            if (runs > start[i] && run[runs - 1].end == j) run[runs - 1].end++;
            else run[runs++] = (hd_interval){ j, j + 1 };
        }
    }
    start[queries] = runs;
    *l = (hd_key_lists){ 1, queries, columns, start, run, "drawn edges" };
    return make((hd_pattern){ .kind = HD_PATTERN_LIST, .list = l });
}
static const hd_pattern *strided(int64_t l) { return and(causal(), or(window(l - 1, 0), stride(l))); }
static const hd_pattern *fixed(int64_t l, int64_t c) { return and(causal(), or(chunk(l), residues(l, l - c, l))); }

typedef struct sample { const hd_pattern *pattern; int64_t queries, keys; } sample;

static int samples(sample *list)
{
    const hd_pattern *const pattern[] = {
        causal(), make((hd_pattern){ .kind = HD_PATTERN_FULL }), window(9, 4), strided(13), fixed(16, 3), and(causal(), residues(7, 5, 7)),
        or(window(3, 3), keys(5)), and(causal(), stride(50)),
    };
    static const int64_t size[][2] = { { 1, 1 }, { 2, 2 }, { 3, 3 }, { 17, 40 }, { 97, 97 }, { 131, 60 }, { 200, 200 } };
    int count = 0;
    list[count++] = (sample){ natten(3, 3), 9, 9 };
    list[count++] = (sample){ or(natten(9, 14), keys(3)), 130, 130 };
    list[count++] = (sample){ natten(16, 12), 192, 200 };
    list[count++] = (sample){ scattered(33, 97), 33, 97 };
    list[count++] = (sample){ and(causal(), scattered(200, 131)), 200, 131 };
    list[count++] = (sample){ scattered(1, 5), 1, 5 };
    for (unsigned p = 0; p < sizeof pattern / sizeof *pattern; p++)
        for (unsigned s = 0; s < sizeof size / sizeof *size; s++) list[count++] = (sample){ pattern[p], size[s][0], size[s][1] };
    return count;
}

/* ---- what pictures count ---- */

static void pixels_and_rows_are_the_pairs_of_the_pattern(void **state)
{
    (void)state;
    sample list[100];
    const int count = samples(list);
    hd_row row = { 0 };
    for (int s = 0; s < count; s++) {
        const sample *c = &list[s];
        const hd_cover *cover = hd_cover_make(c->pattern, c->queries, c->keys);
        const int64_t q0 = c->queries / 3, k0 = c->keys / 4, height = c->queries - q0, width = c->keys - k0;
        unsigned char *pixel = hd_alloc((size_t)(c->queries * c->keys)), *part = hd_alloc((size_t)(height * width));
        hd_cover_pixels(cover, 0, c->queries, 0, c->keys, pixel);
        hd_cover_pixels(cover, q0, height, k0, width, part);
        hd_rows rows = hd_rows_make(cover);
        for (int64_t i = 0; i < c->queries; i++) {
            unsigned char *of_row = hd_alloc((size_t)c->keys);
            hd_rows_all(&rows, i, &row);
            for (int n = 0; n < row.items; n++)
                for (int64_t k = 0; k < row.item[n].count; k++) of_row[row.item[n].start + k * row.item[n].step]++;
            for (int64_t j = 0; j < c->keys; j++) {
                const bool keeps = hd_pattern_keeps(c->pattern, i, j);
                if (keeps != (pixel[i * c->keys + j] != 0) || keeps != of_row[j] || (i >= q0 && j >= k0 && keeps != (part[(i - q0) * width + j - k0] != 0)))
                    fail_msg("%s at %lld x %lld: query %lld, key %lld", hd_pattern_text(c->pattern), (long long)c->queries, (long long)c->keys, (long long)i, (long long)j);
            }
        }
        hd_rows_free(&rows);
    }
}

static void cells_hold_exactly_the_kept_pairs_of_their_area(void **state)
{
    (void)state;
    enum { ROWS = 16, COLUMNS = 11 };
    sample list[100];
    const int count = samples(list);
    for (int s = 0; s < count; s++) {
        const sample *c = &list[s];
        const hd_cover *cover = hd_cover_make(c->pattern, c->queries, c->keys);
        int64_t *counts = HD_NEW_ARRAY(int64_t, 3 * ROWS * COLUMNS), *wanted = HD_NEW_ARRAY(int64_t, ROWS * COLUMNS);
        hd_cover_density(cover, 3, ROWS, COLUMNS, counts);
        for (int64_t i = 0; i < c->queries; i++)
            for (int64_t j = 0; j < c->keys; j++) wanted[i * ROWS / c->queries * COLUMNS + j * COLUMNS / c->keys] += hd_pattern_keeps(c->pattern, i, j);
        for (int cell = 0; cell < ROWS * COLUMNS; cell++)
            if (counts[cell] + counts[cell + ROWS * COLUMNS] + counts[cell + 2 * ROWS * COLUMNS] != wanted[cell])
                fail_msg("%s at %lld x %lld: cell %d", hd_pattern_text(c->pattern), (long long)c->queries, (long long)c->keys, cell);
    }
}

static void a_million_positions_are_counted_without_their_pairs(void **state)
{
    (void)state;
    enum { CELLS = 256, LENGTH = 1 << 20 };
    const hd_pattern *const pattern[] = { strided(1024), causal(), fixed(1024, 32), window(4000, 4000) };
    for (unsigned p = 0; p < sizeof pattern / sizeof *pattern; p++) {
        const hd_cover *cover = hd_cover_make(pattern[p], LENGTH, LENGTH);
        int64_t *counts = HD_NEW_ARRAY(int64_t, CELLS * CELLS), sum = 0;
        hd_cover_density(cover, 1, CELLS, CELLS, counts);
        for (int c = 0; c < CELLS * CELLS; c++) sum += counts[c];
        assert_true(sum == cover->kept_pairs);
    }
}

/* ---- reach ---- */

/* shared facts on n = 16, l = 4: first a reads j by the lower layer, then i reads a by the upper one. */
static void two_hops_reach_what_the_paper_needs(void **state)
{
    (void)state;
    const struct { const char *what; const hd_pattern *lower, *upper; int64_t missing, plain; } cases[] = {
        { "strided", and(causal(), window(4, 0)), and(causal(), stride(4)), 0, 0 },
        { "strided, window of 4 keys", and(causal(), window(3, 0)), and(causal(), stride(4)), 0, 0 },
        { "fixed, c = 1", and(causal(), chunk(4)), and(causal(), residues(4, 3, 4)), 0, 24 },
        { "fixed, c = 2", and(causal(), chunk(4)), and(causal(), residues(4, 2, 4)), 0, 12 },
    };
    for (unsigned c = 0; c < sizeof cases / sizeof *cases; c++) {
        const hd_cover *lower = hd_cover_make(cases[c].lower, 16, 16), *upper = hd_cover_make(cases[c].upper, 16, 16);
        const hd_layer layers[] = { { 1, &lower }, { 1, &upper } };
        int64_t missing[2], plain[2];
        unsigned char first[256] = { 0 };
        hd_reach_exact(layers, 2, 2, 16, true, missing, plain, first);
        int64_t unseen = 0, direct = 0;
        for (int i = 0; i < 16; i++)
            for (int j = 0; j <= i; j++) unseen += !first[16 * i + j], direct += i != j && first[16 * i + j] == 1 && !hd_pattern_keeps(cases[c].upper, i, j);
        if (missing[1] != cases[c].missing || plain[1] != cases[c].plain || unseen != missing[1] || direct)
            fail_msg("%s: %lld missing, %lld without residuals, %lld in the picture, %lld wrongly direct", cases[c].what, (long long)missing[1], (long long)plain[1], (long long)unseen, (long long)direct);
    }
}

static void windows_reach_one_window_further_a_layer(void **state)
{
    (void)state;
    enum { LENGTH = 70, HOPS = 5 };
    const hd_cover *cover = hd_cover_make(window(9, 0), LENGTH, LENGTH);
    const hd_layer layers[] = { { 1, &cover }, { 1, &cover } };
    int64_t missing[HOPS], plain[HOPS];
    hd_reach_exact(layers, 2, HOPS, LENGTH, true, missing, plain, NULL);
    for (int h = 0; h < HOPS; h++) {
        const int64_t far = LENGTH - 1 - 9 * (h + 1);          /* differences past 9 a hop stay unseen */
        assert_true(missing[h] == far * (far + 1) / 2 && plain[h] == missing[h]);
    }
}

/* ---- pages ---- */

/* Every element that is opened is closed in order, attributes are quoted, text holds no bare markup; a script is skipped. */
static const char *broken(const char *page)
{
    const char *open[64];
    size_t length[64];
    int depth = 0;
    for (const char *s = page; *s;) {
        if ((unsigned char)*s < 0x20 && *s != '\n' && *s != '\t') return s;
        if (*s == '&') {
            static const char *const entity[] = { "&amp;", "&lt;", "&gt;", "&quot;", "&#39;" };
            bool known = false;
            for (int e = 0; e < 5; e++) known = known || !strncmp(s, entity[e], strlen(entity[e]));
            if (!known) return s;
        }
        if (*s != '<') { s++; continue; }
        if (!strncmp(s, "<!DOCTYPE html>", 15)) { s += 15; continue; }
        const bool closes = s[1] == '/';
        const char *name = s + 1 + closes, *end = name;
        while (isalnum((unsigned char)*end)) end++;
        if (end == name) return s;
        if (closes) {
            if (*end != '>' || !depth || length[depth - 1] != (size_t)(end - name) || strncmp(open[depth - 1], name, (size_t)(end - name))) return s;
            depth--, s = end + 1;
            continue;
        }
        const char *at = end;
        while (*at == ' ') {
            while (*at == ' ') at++;
            while (isalnum((unsigned char)*at) || *at == '-') at++;
            if (*at != '=' || at[1] != '"') return s;
            for (at += 2; *at != '"'; at++) if (!*at || *at == '<') return s;
            at++;
        }
        if (*at == '/' && at[1] == '>') { s = at + 2; continue; }
        if (*at != '>' || depth == 64) return s;
        open[depth] = name, length[depth++] = (size_t)(end - name), s = at + 1;
        if (end - name == 6 && !strncmp(name, "script", 6)) s = strstr(s, "</script>") ? strstr(s, "</script>") : s;
    }
    return depth ? page + strlen(page) : NULL;
}

static char *page(const char *path)
{
    char *text = text_of(path);
    const char *wrong = broken(text);
    if (wrong) fail_msg("%s is not well formed at byte %lld: %.60s", path, (long long)(wrong - text), wrong);
    if (strlen(text) > 2 << 20) fail_msg("%s has %zu bytes", path, strlen(text));
    return text;
}

static void pages_of_models_are_well_formed_and_small(void **state)
{
    (void)state;
    static const char *const what[] = {
        "models/text.lua", "models/text.lua -D pattern=causal -D length=512", "models/text.lua -D pattern=window -D length=700 -D batch=1 -D layers=12", "models/text.lua -D length=3 -D batch=1",
        "models/text.lua -D length=1 -D batch=1 -D layers=1", "models/text.lua -D length=12288 -D stride=128 -D batch=1 -D layers=30", "models/gpt2.lua", "models/attention.lua -D pattern=strided -D length=2000", "models/attention.lua -D pattern=full -D length=100",
    };
    for (unsigned i = 0; i < sizeof what / sizeof *what; i++) {
        must("%s view %s -o " HERE "/page.svg", heddle(), what[i]);
        const char *svg = page(HERE "/page.svg");
        assert_null(strstr(svg, "<script"));
        assert_non_null(strstr(svg, "Memory"));
        assert_null(strstr(svg, "nan"));
        must("%s view %s -o " HERE "/page.html --query 0", heddle(), what[i]);
        assert_non_null(strstr(page(HERE "/page.html"), "<script>"));
        must("%s view %s -o " HERE "/again.html --query 0", heddle(), what[i]);
        assert_same_bytes(HERE "/page.html", HERE "/again.html");
    }
}

/* Pixels drawn in the mask of a page: the runs of its paths, and what its attribute says. */
static long drawn(const char *svg, long *said_kept)
{
    const char *at = strstr(svg, "<g id=\"m0\""), *end = at ? strstr(at, "</g></g>") : NULL;
    assert_non_null(end);
    *said_kept = atol(strstr(at, "data-kept-pairs=\"") + 17);
    long sum = 0;
    while ((at = strstr(at, " d=\"M")) && at < end)
        for (at += 4; *at != '"'; at++) if (*at == 'h') sum += atol(at + 1);
    return sum;
}

static void a_page_draws_as_many_pixels_as_pairs_are_kept(void **state)
{
    (void)state;
    static const struct { const char *what; long kept; bool cells; } cases[] = {
        { "models/text.lua -D length=16 -D stride=4", 82, false }, { "models/text.lua", 8592, false }, { "models/text.lua -D pattern=causal -D length=512", 512L * 513 / 2, false },
        { "models/text.lua -D pattern=window -D window=4 -D length=16", 58, false }, { "models/attention.lua -D pattern=full -D length=33", 33 * 33, false },
        { "models/text.lua -D length=12288 -D stride=128 -D batch=1 -D layers=1", 2148416, true },
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        must("%s view %s -o " HERE "/count.svg", heddle(), cases[i].what);
        long kept;
        const long pixels = drawn(page(HERE "/count.svg"), &kept);
        if (kept != cases[i].kept || (!cases[i].cells && pixels != kept)) fail_msg("%s: %ld pixels drawn, %ld said, %ld kept", cases[i].what, pixels, kept, cases[i].kept);
    }
}

static void a_marked_query_lists_its_keys(void **state)
{
    (void)state;
    must("%s view models/text.lua -o " HERE "/query.svg --query 200", heddle());
    assert_non_null(strstr(page(HERE "/query.svg"), "query 200 keeps 38 keys: 8, 40, \xe2\x80\xa6 168, 169\xe2\x80\x93""200"));
    must("%s view models/text.lua -o " HERE "/query.html", heddle());
    assert_non_null(strstr(page(HERE "/query.html"), "[200,38,8,32,6,169,1,32]"));
}

static void hostile_names_stay_text(void **state)
{
    (void)state;
    hd_text out = { 0 };
    hd_page_escape(&out, "<a href=\"x\">&'\x01\xff\xc0\xaf\xed\xa0\x80\xe2\x80\xae caf\xc3\xa9");
    hd_text wanted = { 0 };
    hd_text_add(&wanted, "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    for (int byte = 0; byte < 10; byte++) hd_text_add(&wanted, "\xef\xbf\xbd");       /* each byte of a control, of broken UTF-8, of U+202E */
    hd_text_add(&wanted, " caf\xc3\xa9");
    assert_string_equal(out.data, wanted.data);

    static const char spec[] =
        "local hd = require 'heddle'\n"
        "local c = hd.config { key = '</text></svg><script>alert(1)</script>&amp;', length = 8 }\n"
        "local s = hd.scope('h.0.<script>alert(2)</script>&')\n"
        "local x = hd.input('x<y>&', { 8, 4 })\n"
        "local out = s:attention('<heads>]]>', x, x, x, { heads = 1, pattern = hd.pattern.causal() })\n"
        "return hd.model { name = 'hostile', config = c, entries = { forward = { inputs = { x }, outputs = { { 'o', s:linear('</g><b>', out, 4) } } } } }\n";
    hd_write_file(HERE "/a<b>&.lua", spec, sizeof spec - 1);
    static const char *const ending[] = { "svg", "html" };
    for (int e = 0; e < 2; e++) {
        must("%s view '" HERE "/a<b>&.lua' -o " HERE "/hostile.%s", heddle(), ending[e]);
        const char *text = page(hd_format(HERE "/hostile.%s", ending[e]));
        assert_null(strstr(text, "<script>alert"));
        assert_null(strstr(text, "<heads>"));
        assert_null(strstr(text, "<b>"));
        assert_non_null(strstr(text, "&lt;heads&gt;"));
        assert_non_null(strstr(text, "a&lt;b&gt;&amp;.lua"));
    }
}

static void mistakes_get_one_line(void **state)
{
    (void)state;
    const char *h = heddle();
    refused("-o FILE.svg or -o FILE.html", "%s view models/text.lua", h);
    refused(".svg or .html", "%s view models/text.lua -o " HERE "/no.png", h);
    refused(".svg or .html", "%s view models/text.lua -o " HERE "/no", h);
    refused("\"many\" is no query; queries: 0 to 255", "%s view models/text.lua -o " HERE "/no.svg --query many", h);
    refused("\"256\" is no query; queries: 0 to 255", "%s view models/text.lua -o " HERE "/no.svg --query 256", h);
    refused("\"-1\" is no query", "%s view models/text.lua -o " HERE "/no.svg --query=-1", h);
    refused("\"7x\" is no query", "%s view models/text.lua -o " HERE "/no.svg --query 7x", h);
    refused("\"99999999999999999999\" is no query", "%s view models/text.lua -o " HERE "/no.svg --query 99999999999999999999", h);
    refused("no attention", "%s view " HERE "/plain.lua -o " HERE "/no.svg --query 0", h);
    refused("cannot write", "%s view models/text.lua -o " HERE "/nowhere/no.svg", h);
    must("%s view " HERE "/plain.lua -o " HERE "/plain.svg", h);
    page(HERE "/plain.svg");
    struct stat s;
    assert_int_not_equal(stat(HERE "/no.svg", &s), 0);
}

/* ---- what --dump=patterns and warnings say ---- */

static int times_said(const char *part)
{
    int times = 0;
    for (const char *at = said; (at = strstr(at, part)); at++) times++;
    return times;
}

static void patterns_are_printed_once_with_all_who_use_them(void **state)
{
    (void)state;
    static const char spec[] =
        "local hd = require 'heddle'\nlocal P = hd.pattern\nlocal x = hd.input('x', { 1, 64, 32 })\nlocal y = x\n"
        "for l = 0, 29 do\n  local s = hd.scope('h.' .. l)\n"
        "  y = y + s:attention('attn', y, y, y, { heads = 8, pattern = P.per_head(8, function(h)\n"
        "    if h < 3 or h == 5 then return P.causal() & P.window { keys = 8 } end\n"
        "    if h == 4 then return P.causal() - P.window { left = 0, right = 0 } end\n"
        "    return P.documents { 10, 20, 34 } & P.causal() & P.window { keys = 4 } end) })\n"
        "  if l % 10 == 9 then y = y + s:attention('edges', y, y, y, { heads = 4, pattern = P.edges { nodes = 64, list = { { 0, 5 }, { 5, 0 }, { 63, 1 } } } }) end\nend\n"
        "return hd.model { name = 'mix', entries = { forward = { inputs = { x }, outputs = { { 'y', y } } } } }\n";
    hd_write_file(HERE "/mix.lua", spec, sizeof spec - 1);
    must("%s info " HERE "/mix.lua --dump=patterns", heddle());
    assert_int_equal(times_said("\ncover: "), 4);
    assert_says("pattern 1 of 4: causal & window of 8 keys\n");
    assert_says("\n  heads 0-2, 5 of 8 of h.0.attn, h.1.attn, h.2.attn, h.3.attn, h.4.attn, h.5.attn, ..., h.29.attn (30 operations)\n");
    assert_says("\n  heads 3, 6-7 of 8 of h.0.attn");
    assert_says("\n  head 4 of 8 of h.0.attn");
    assert_says("\n  all 4 heads of h.9.edges, h.19.edges, h.29.edges\n");
    assert_says("kept pairs 3 (density 0.000732, 0.1442 % of causal's 2080), empty rows 61, listed by rows in 3 runs of keys");
    assert_int_equal(times_said("warning"), 2);
    assert_says("mix.lua:7: warning: 1 of 64 queries keep no key (causal - window of 1 key): their output is zero\n");
    assert_says("mix.lua:11: warning: 61 of 64 queries keep no key (3 edges): their output is zero\n");
    must("%s info " HERE "/plain.lua --dump patterns", heddle());
    assert_says("no attention, so no patterns\n");
    refused("passes: graph, decode, simplify, recompute, patterns, plan", "%s info " HERE "/mix.lua --dump=pattern", heddle());
}

/* 300 patterns: no list of them has an end. */
static void there_may_be_any_number_of_patterns(void **state)
{
    (void)state;
    static const char spec[] =
        "local hd = require 'heddle'\nlocal P = hd.pattern\nlocal x = hd.input('x', { 1, 310, 4 })\nlocal y = x\n"
        "for l = 0, 299 do y = y + hd.attention(y, y, y, { heads = 1, pattern = P.causal() - P.window { left = l, right = 0 } }) end\n"
        "return hd.model { name = 'many', entries = { forward = { inputs = { x }, outputs = { { 'y', y } } } } }\n";
    hd_write_file(HERE "/many.lua", spec, sizeof spec - 1);
    must("%s info " HERE "/many.lua --dump patterns", heddle());
    assert_int_equal(times_said("\ncover: "), 300);
    assert_int_equal(times_said("warning"), 300);
}

static int make_view_folder(void **state)
{
    (void)state;
    static const char plain[] =      /* no attention */
        "local hd = require 'heddle'\nlocal x = hd.input('x', { 4, 4 })\n"
        "return hd.model { name = 'plain', entries = { forward = { inputs = { x }, outputs = { { 'y', x:relu() } } } } }\n";
    make_folder(HERE);
    hd_write_file(HERE "/plain.lua", plain, sizeof plain - 1);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_and_rows_are_the_pairs_of_the_pattern),
        cmocka_unit_test(cells_hold_exactly_the_kept_pairs_of_their_area),
        cmocka_unit_test(a_million_positions_are_counted_without_their_pairs),
        cmocka_unit_test(two_hops_reach_what_the_paper_needs),
        cmocka_unit_test(windows_reach_one_window_further_a_layer),
        cmocka_unit_test(pages_of_models_are_well_formed_and_small),
        cmocka_unit_test(a_page_draws_as_many_pixels_as_pairs_are_kept),
        cmocka_unit_test(a_marked_query_lists_its_keys),
        cmocka_unit_test(hostile_names_stay_text),
        cmocka_unit_test(mistakes_get_one_line),
        cmocka_unit_test(patterns_are_printed_once_with_all_who_use_them),
        cmocka_unit_test(there_may_be_any_number_of_patterns),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests_name("view", tests, make_view_folder, NULL);
}
