/* Key/value caches: their layouts by simulation (every key that a query keeps lies in its slot when it is read), and the kernels against
 * dense, masked attention in double precision: prefill in chunks of any size, steps of several streams, and both mixed, for vectors of 4,
 * 8 and 16 as far as this processor has them. */
#include "random_pattern.h"
#include "../../compiler/emit/attention_cached.h"
#include "../../compiler/pattern/cover.h"
#include "../../runtime/core/hd_core.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

extern char **environ;

static const hd_pattern *grid(hd_axis y, hd_axis x)
{
    hd_grid *g = HD_NEW(hd_grid);
    *g = (hd_grid){ .axes = 2, .axis = { y, x } };
    return make((hd_pattern){ .kind = HD_PATTERN_GRID, .grid = g });
}
static hd_axis clamped(int64_t size, int64_t kernel, int64_t dilation, bool causal_axis)
{
    return (hd_axis){ .kind = HD_AXIS_CLAMPED, .causal = causal_axis, .size = size, .kernel = kernel, .stride = 1, .dilation = dilation };
}
static const hd_pattern *documents(const int64_t *start, int64_t count)
{
    return make((hd_pattern){ .kind = HD_PATTERN_DOCUMENTS, .documents = count, .document = start });
}
/* Every row keeps itself and a few keys before it. */
static const hd_pattern *edges(int64_t n)
{
    hd_key_lists *l = HD_NEW(hd_key_lists);
    int64_t *start = HD_NEW_ARRAY(int64_t, n + 1), runs = 0;
    hd_interval *run = HD_NEW_ARRAY(hd_interval, 4 * n);
    for (int64_t i = 0; i < n; i++) {
        start[i] = runs;
        for (int64_t k = 7; k >= 0; k--) {
            const int64_t j = i - k * (1 + i % 5);
            if (j < 0 || (k % 3 && k)) continue;
            if (runs > start[i] && run[runs - 1].end == j) run[runs - 1].end++;
            else run[runs++] = (hd_interval){ j, j + 1 };
        }
    }
    start[n] = runs;
    *l = (hd_key_lists){ .block = 1, .rows = n, .columns = n, .start = start, .run = run, .what = "edges" };
    return make((hd_pattern){ .kind = HD_PATTERN_LIST, .list = l });
}
static const hd_pattern *fixed(int64_t l, int64_t c) { return and(causal(), or(chunks(l, 0, 0), residues(l, l - c, l))); }
static const hd_pattern *strided(int64_t s) { return and(causal(), or(window(s - 1, 0), stride(s))); }

enum { FULL, WINDOW, SINKS, STRIDED, FIXED, CHUNKED, DILATED, NATTEN, AXIAL, DOCUMENTS, EDGES, SUMMARIES, PREFIX, HOLE, NEVER, PATTERNS };
static const char *const pattern_name[PATTERNS] = { "causal", "window", "window and sinks", "strided", "fixed", "chunks", "dilated window", "natten", "axial", "documents", "edges", "rare keys of few queries", "prefix", "window with a hole", "never" };
static const hd_pattern *pattern_of(int which, int64_t n)
{
    static const int64_t start[] = { 0, 31, 32, 90, 140, 200 };
    switch (which) {
    case FULL:      return causal();
    case WINDOW:    return and(causal(), window(36, 0));
    case SINKS:     return and(causal(), or(window(20, 0), keys_of(0, 4)));
    case STRIDED:   return strided(16);
    case FIXED:     return fixed(24, 3);
    case CHUNKED:   return and(causal(), chunks(19, 1, 0));
    case DILATED:   return and(window(40, 0), stride(4));
    case NATTEN:    return and(causal(), grid(clamped(10, 3, 1, true), clamped(20, 5, 1, false)));
    case AXIAL:     return and(causal(), or(chunks(20, 0, 0), stride(20)));
    case DOCUMENTS: return and(causal(), documents(start, 5));
    case EDGES:     return edges(n);
    case SUMMARIES: return or(and(and(causal(), residues(10, 3, 5)), queries_of(50, 150)), and(causal(), window(5, 0)));
    case PREFIX:    return and(causal(), or(keys_of(0, 40), window(9, 0)));
    case HOLE:      return minus(and(causal(), window(30, 0)), window(12, -4));
    default:        return minus(window(3, 0), window(3, 0));
    }
}

static hd_attr attention_of(int heads, int kv_heads, int head_dim, int patterns, const hd_pattern **pattern)
{
    hd_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.attention.heads = heads, attr.attention.kv_heads = kv_heads, attr.attention.head_dim = head_dim;
    attr.attention.patterns = patterns, attr.attention.pattern = pattern, attr.attention.scale = 1;
    return attr;
}
static hd_cache *cache_of(const hd_pattern *p, int64_t length)
{
    const hd_pattern **one = (const hd_pattern **)HD_NEW_ARRAY(hd_pattern *, 1);
    one[0] = p;
    const hd_attr attr = attention_of(1, 1, 64, 1, one);
    return hd_cache_make(&attr, length);
}

/* ---- layouts ---- */

static void a_cache_holds_what_its_pattern_needs(void **state)
{
    (void)state;
    static const int64_t start[] = { 0, 100, 101, 400, 1000 };
    const struct { const char *why; const hd_pattern *p; int64_t length, kept, ring, positions, runs; } cases[] = {
        { "all keys for ever",                                and(causal(), full()),                                   1024, 1024,   0, 1024, 8 },
        { "a window runs for ever",                           and(causal(), window(255, 0)),                           2048,    0, 256,    0, 8 },
        { "a window as long as the length keeps every key",   and(causal(), window(2047, 0)),                          2048, 2048,   0, 2048, 8 },
        { "sinks and a window run for ever",                  and(causal(), or(window(255, 0), keys_of(0, 4))),        2048,    4, 256,    0, 13 },
        { "residues: a summary of each chunk",                fixed(128, 32),                                         12288, 3072, 128, 12288, 20 },
        { "strided columns need every key",                   strided(128),                                           12288, 12288,  0, 12288, 26 },
        { "chunks run for ever",                              and(causal(), chunks(64, 0, 0)),                          512,    0,  64,    0, 8 },
        { "chunks and the one before",                        and(causal(), chunks(64, 1, 0)),                          512,    0, 128,    0, 8 },
        { "dilated windows reach back so far",                and(window(4 * 15, 0), stride(4)),                       1024,    0,  61,    0, 14 },
        { "documents: the longest",                           and(causal(), documents(start, 4)),                      1000,    0, 600, 1000, 8 },
        { "a prefix that few queries read",                   and(causal(), and(keys_of(0, 100), queries_of(0, 100))),  500,  100,   0,    0, 9 },
        { "keys that nobody reads again take no slot",        and(causal(), and(residues(8, 0, 1), window(20, 0))),     512,    0,  21,    0, 12 },
        { "six rows above, and six columns where clamped",    and(causal(), grid(clamped(32, 7, 1, true), clamped(32, 7, 1, false))), 1024, 0, 199, 1024, 14 },
        { "rows and columns of an image",                     and(causal(), or(chunks(32, 0, 0), stride(32))),         1024, 1024,   0, 1024, 26 },
        { "long and irregular",                               fixed(1024, 16),                                      1 << 20, 16384, 1024, 1 << 20, 20 },
        { "a difference counts as what it takes from",        minus(full(), full()),                                    100,  100,   0,  100, 8 },
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hd_cache *c = cache_of(cases[i].p, cases[i].length);
        const hd_cache_layout *x = c->layout;
        if (x->kept != cases[i].kept || x->ring != cases[i].ring || c->positions != cases[i].positions)
            fail_msg("%s: %lld kept, ring %lld, %lld positions; should be %lld, %lld, %lld", cases[i].why, (long long)x->kept, (long long)x->ring, (long long)c->positions,
                     (long long)cases[i].kept, (long long)cases[i].ring, (long long)cases[i].positions);
        assert_int_equal(c->bytes, (2 * 4 * 64 * (x->kept + x->ring) + 63) / 64 * 64);
        assert_int_equal(c->rewindable, x->ring == 0);
        if (c->runs > cases[i].runs) fail_msg("%s: rows of %lld runs, at most %lld", cases[i].why, (long long)c->runs, (long long)cases[i].runs);
    }
    const hd_cache *wide = cache_of(and(causal(), full()), 2048), *narrow = cache_of(and(causal(), window(255, 0)), 2048);
    assert_true((double)(wide->bytes + narrow->bytes) / (double)(wide->dense_bytes + narrow->dense_bytes) <= 0.57);
    const hd_cache *enwik8 = cache_of(fixed(128, 32), 12288);
    assert_true((double)enwik8->bytes / (double)enwik8->dense_bytes < 0.27);
}

/* Heads that share a key head share its slots; layouts and rows of heads that are alike are made once. */
static void heads_of_one_key_head_share_its_slots(void **state)
{
    (void)state;
    const hd_pattern *pattern[4] = { and(causal(), window(9, 0)), and(causal(), window(30, 0)), and(causal(), window(9, 0)), and(causal(), window(9, 0)) };
    const hd_attr two = attention_of(4, 2, 8, 4, pattern), four = attention_of(4, 4, 8, 4, pattern);
    const hd_cache *a = hd_cache_make(&two, 100), *b = hd_cache_make(&four, 100);
    assert_int_equal(a->layouts, 2);
    assert_int_equal(a->layout[a->layout_of[0]].ring, 31);
    assert_int_equal(a->layout[a->layout_of[1]].ring, 10);
    assert_int_equal(a->readers, 3);
    assert_int_equal(b->readers, 2);
    assert_int_equal(a->safe, 10);
    assert_true(hd_cache_same_keys(a, hd_cache_make(&two, 100)));
    assert_false(hd_cache_same_keys(a, b));
    assert_false(hd_cache_same_keys(a, hd_cache_make(&two, 101)));
}

/* ---- compiled kernels ---- */

enum { STREAMS = 3, MOST_CASES = 64, SHARED_OBJECTS = 2 };
typedef void keys_kernel(const hd_run *, int, const int32_t *, int32_t *);
typedef void store_kernel(const hd_run *, int, int, const float *, const float *, const int32_t *, float *);
typedef void attend_kernel(const hd_run *, int, int, const float *, const float *, const float *, const int32_t *, const int32_t *, float *, float *);
typedef void attend_1_kernel(const hd_run *, int, int, const float *, const float *, const float *, const int32_t *, const int32_t *, const float *, float *, float *);
typedef void attend_2_kernel(const hd_run *, int, int, const float *, const float *, const float *, const int32_t *, const int32_t *, const float *, const float *, float *, float *);

/* total: positions that are computed; more than the length where there is no limit. */
typedef struct test_case {
    int pattern, other;        /* other: of odd heads; -1: a random expression, of seed `pattern`, whose rows alone are compared */
    int length, total, head_dim, heads, kv_heads, chunk;
    bool heads_first;
    unsigned with; double softcap; bool alibi;
} test_case;

static const test_case cases[] = {
    { FULL,      FULL,      200, 200, 64, 2, 2,  64, false, 0, 0, false },
    { WINDOW,    WINDOW,    200, 300, 64, 2, 1,  64, true,  0, 0, false },
    { WINDOW,    FULL,      150, 150, 20, 4, 2,   7, false, HD_WITH_SINKS, 0, false },
    { SINKS,     SINKS,     200, 420,  8, 2, 2,  64, false, 0, 0, true },
    { STRIDED,   STRIDED,   200, 200, 64, 2, 2,  96, false, HD_WITH_BIAS, 0, false },
    { FIXED,     FIXED,     200, 200, 64, 4, 2,  64, true,  0, 20, false },
    { FIXED,     WINDOW,    200, 200, 20, 4, 4,  40, false, HD_WITH_SINKS | HD_WITH_BIAS, 5, true },
    { CHUNKED,   CHUNKED,   150, 250,  8, 3, 1,  64, false, 0, 0, false },
    { DILATED,   DILATED,   200, 300,  5, 2, 2,  33, true,  0, 0, true },
    { NATTEN,    NATTEN,    200, 200, 64, 2, 2,  64, false, HD_WITH_BIAS, 0, false },
    { AXIAL,     AXIAL,     200, 200, 96, 2, 2,  64, false, 0, 0, false },
    { DOCUMENTS, DOCUMENTS, 200, 200, 20, 2, 1,  50, false, HD_WITH_SINKS, 0, false },
    { EDGES,     EDGES,     150, 150, 64, 2, 2,  64, false, 0, 0, true },
    { SUMMARIES, PREFIX,    200, 200, 20, 4, 4,  64, false, 0, 0, false },
    { PREFIX,    PREFIX,    200, 260, 40, 2, 2, 128, true,  0, 3, false },
    { HOLE,      NEVER,     200, 200, 16, 2, 2,  64, false, HD_WITH_SINKS, 0, false },
    { WINDOW,    WINDOW,    200, 300, 128, 8, 2, 64, false, 0, 0, false },
};
enum { CASES = sizeof cases / sizeof *cases, RANDOM_CASES = 40 };

typedef struct phase { hd_attention shape; hd_kernel *keys_of, *kept_of, *ring_of, *attend_of; keys_kernel *keys; store_kernel *kept, *ring; void *attend; } phase;
typedef struct compiled {
    test_case c;
    const char *target;
    const hd_pattern *pattern[2];
    hd_cache *cache;
    phase step, prefill;
    float alibi_bias[2];
    int64_t local_bytes;
} compiled;

static const double slopes[8] = { 0.5, 0.25, 0.125, 0.0625, 0.3, 0.2, 0.1, 0.05 };
static hd_buckets *buckets_new(void)
{
    hd_buckets *b = HD_NEW(hd_buckets);
    int32_t *bucket = HD_NEW_ARRAY(int32_t, 60);
    for (int i = 0; i < 60; i++) bucket[i] = i < 10 ? i : 10 + i / 8;
    *b = (hd_buckets){ .first = 0, .count = 60, .buckets = 18, .bucket = bucket };
    return b;
}

static char *describe(const compiled *x)
{
    const test_case *c = &x->c;
    return hd_format("%s: %s/%s length=%d heads=%d/%d head_dim=%d chunk=%d%s with %u", x->target, c->other < 0 ? hd_pattern_text(x->pattern[0]) : pattern_name[c->pattern],
                     c->other < 0 ? "random" : pattern_name[c->other], c->length, c->heads, c->kv_heads, c->head_dim, c->chunk, c->heads_first ? " heads first" : "", c->with);
}

static void plan_phase(compiled *x, phase *p, hd_kernels *set, int64_t streams, int64_t chunk)
{
    const test_case *c = &x->c;
    const int64_t d = c->head_dim;
    hd_attention_strides q, k;
    if (c->heads_first) {
        q = (hd_attention_strides){ c->heads * chunk * d, chunk * d, d };
        k = (hd_attention_strides){ c->kv_heads * chunk * d, chunk * d, d };
    } else {
        const int64_t q_width = c->heads * d + 3, k_width = 2 * c->kv_heads * d;
        q = (hd_attention_strides){ chunk * q_width, d, q_width };
        k = (hd_attention_strides){ chunk * k_width, d, k_width };
    }
    p->shape = (hd_attention){ .batch = streams, .heads = c->heads, .kv_heads = c->kv_heads, .head_dim = d, .queries = chunk, .keys = chunk, .scale = 0.37, .softcap = c->softcap,
                               .alibi = c->alibi ? slopes : NULL, .buckets = c->with & HD_WITH_BIAS ? buckets_new() : NULL, .with = c->with, .q = q, .k = k, .v = k, .out = q };
    p->keys_of = hd_cached_keys(set, x->cache, streams, chunk, (hd_where){ 0 });
    if (p->keys_of->local_bytes > x->local_bytes) x->local_bytes = p->keys_of->local_bytes;
    if (c->other < 0) return;
    if (chunk > 1) p->kept_of = hd_cached_store(set, &p->shape, x->cache, false, (hd_where){ 0 }), p->ring_of = hd_cached_store(set, &p->shape, x->cache, true, (hd_where){ 0 });
    p->attend_of = hd_cached_attend(set, &p->shape, x->cache, (hd_where){ 0 });
    if (p->attend_of->local_bytes > x->local_bytes) x->local_bytes = p->attend_of->local_bytes;
}

static void plan_case(compiled *x, const test_case *c, hd_kernels *set)
{
    x->c = *c;
    x->target = set->target->name;
    if (c->other < 0) {
        random_seed((uint64_t)c->pattern);
        x->pattern[0] = x->pattern[1] = and(causal(), random_pattern(EVERYTHING, c->length, c->length).p);
    } else {
        x->pattern[0] = pattern_of(c->pattern, c->length), x->pattern[1] = pattern_of(c->other, c->length);
    }
    const hd_pattern **pattern = (const hd_pattern **)HD_NEW_ARRAY(hd_pattern *, c->heads);
    for (int h = 0; h < c->heads; h++) pattern[h] = x->pattern[h % 2];
    hd_attr attr = attention_of(c->heads, c->kv_heads, c->head_dim, c->pattern == c->other || c->other < 0 ? 1 : c->heads, pattern);
    attr.attention.with = c->with, attr.attention.alibi = c->alibi ? slopes : NULL;
    x->cache = hd_cache_make(&attr, c->length);
    x->cache->stream_bytes = x->cache->bytes + 64;
    if (x->cache->positions && c->total > x->cache->positions) fail_msg("%s: at most %lld positions", describe(x), (long long)x->cache->positions);
    plan_phase(x, &x->step, set, STREAMS, 1);
    plan_phase(x, &x->prefill, set, 1, c->chunk);
}

/* Compiles the set into shared objects and opens them; the temporary folder is removed again. Compiling is what this test waits for, so
 * most sets are not optimised. */
static void **build(const hd_kernels *set, const char *optimise)
{
    void **handle = HD_NEW_ARRAY(void *, SHARED_OBJECTS);
    char folder[] = "/tmp/hd_cache_XXXXXX";
    assert_non_null(mkdtemp(folder));
    hd_expander *expander = hd_expander_new("templates", "compiler/emit");
    const char *cc = getenv("HD_TEST_CC") ? getenv("HD_TEST_CC") : "clang";
    if (getenv("HD_TEST_O")) optimise = getenv("HD_TEST_O");
    pid_t pid[SHARED_OBJECTS];
    for (int i = 0; i < SHARED_OBJECTS; i++) {
        hd_text text = { 0 };
        hd_text_add(&text, "#define HD_VL %d\n#include \"hd_core.h\"\n#include \"hd_vec.h\"\n", set->target->vl);
        for (int j = i; j < set->count; j += SHARED_OBJECTS) {
            const char *kernel = hd_kernel_text(expander, set, set->kernel[j]);
            hd_text_add(&text, "void %s(%s);\n", set->kernel[j]->name, set->kernel[j]->signature);
            hd_text_addn(&text, kernel, strlen(kernel));
        }
        hd_write_file(hd_format("%s/%d.c", folder, i), text.data, text.length);
        char *argv[24] = { (char *)cc, (char *)optimise, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-Wno-unknown-pragmas", "-Wno-psabi", "-fPIC", "-shared", "-Iruntime/core", "-o",
                           hd_format("%s/%d.so", folder, i), hd_format("%s/%d.c", folder, i) };
        int argc = 16;
        for (int f = 0; f < 4 && set->target->flags[f]; f++) argv[argc++] = (char *)set->target->flags[f];
        if (posix_spawnp(&pid[i], cc, NULL, NULL, argv, environ)) fail_msg("cannot start %s", cc);
    }
    for (int i = 0; i < SHARED_OBJECTS; i++) {
        int status;
        waitpid(pid[i], &status, 0);
        if (status) fail_msg("%s does not compile %s/%d.c", cc, folder, i);
        handle[i] = dlopen(hd_format("%s/%d.so", folder, i), RTLD_NOW | RTLD_LOCAL);
        if (!handle[i]) fail_msg("%s", dlerror());
        if (!getenv("HD_KEEP")) { unlink(hd_format("%s/%d.c", folder, i)); unlink(hd_format("%s/%d.so", folder, i)); }
    }
    if (!getenv("HD_KEEP")) rmdir(folder);
    return handle;
}

static void *find(void **handle, const hd_kernel *kernel)
{
    for (int i = 0; kernel && i < SHARED_OBJECTS; i++) {
        void *symbol = dlsym(handle[i], kernel->name);
        if (symbol) return symbol;
    }
    if (kernel) fail_msg("no kernel %s", kernel->name);
    return NULL;
}

static void open_phase(phase *p, void **handle)
{
    *(void **)&p->keys = find(handle, p->keys_of);
    *(void **)&p->kept = find(handle, p->kept_of);
    *(void **)&p->ring = find(handle, p->ring_of);
    p->attend = find(handle, p->attend_of);
}

static compiled *all;
static int all_count;

/* So many "threads" that take the slots from the last to the first. */
static int thread_count;
static void backwards(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    (void)context;
    for (int slot = slots - 1; slot >= 0; slot--) task(argument, slot, slot % thread_count);
}

static hd_threads lent = { NULL, 1, backwards };
static hd_run run_new(const compiled *x, int threads)
{
    thread_count = lent.count = threads ? threads : 1;
    hd_run run = { threads ? &lent : NULL, NULL, (size_t)(x->local_bytes + 63) / 64 * 64 };
    run.local = aligned_alloc(64, (size_t)thread_count * run.local_bytes);
    memset(run.local, 0xff, (size_t)thread_count * run.local_bytes);                         /* NaN: nothing may be read before it was written */
    return run;
}

static int32_t *plan_new(const compiled *x, int64_t streams, int64_t chunk)
{
    const size_t bytes = 4 * (size_t)hd_cache_plan(x->cache, streams, chunk).all;
    int32_t *plan = malloc(bytes);
    memset(plan, 0xa5, bytes);
    return plan;
}

/* ---- rows ---- */

/* What rows of a plan read, as a set of keys; holder[layout][slot] is the key that lies there. */
typedef struct simulation { const compiled *x; int64_t *holder[8]; unsigned char *seen; } simulation;

static void see(simulation *m, int reader, int64_t i, int64_t position, int64_t source, int64_t told)
{
    const hd_cache *c = m->x->cache;
    const hd_cache_layout *l = &c->layout[c->reader[reader].layout];
    if (source >= l->kept + l->ring) fail_msg("%s: query %lld reads slot %lld of %lld", describe(m->x), (long long)i, (long long)source, (long long)(l->kept + l->ring));
    const int64_t key = source < 0 ? position + ~source : m->holder[c->reader[reader].layout][source];
    if (key < 0 || key > i || !hd_pattern_keeps(c->reader[reader].pattern, i, key)) fail_msg("%s: query %lld reads key %lld", describe(m->x), (long long)i, (long long)key);
    if (m->seen[key]++) fail_msg("%s: query %lld reads key %lld twice", describe(m->x), (long long)i, (long long)key);
    if (c->distances && told != key) fail_msg("%s: query %lld reads key %lld, told as %lld", describe(m->x), (long long)i, (long long)key, (long long)told);
}

static void see_row(simulation *m, int reader, int64_t i, int64_t position, const int32_t *row)
{
    if (row[0] > m->x->cache->runs) fail_msg("%s: %d runs, at most %lld", describe(m->x), row[0], (long long)m->x->cache->runs);
    for (int k = 0; k < row[0]; k++) {
        const int32_t *r = row + 1 + HD_CACHE_RUN * k;
        for (int32_t t = 0; t < r[2]; t++) see(m, reader, i, position, r[0] < 0 ? ~(~(int64_t)r[0] + (int64_t)t * r[1]) : r[0] + (int64_t)t * r[1], r[3] + (int64_t)t * r[4]);
    }
}

static void all_seen(simulation *m, int reader, int64_t i)
{
    for (int64_t j = 0; j <= i; j++) {
        if (hd_pattern_keeps(m->x->cache->reader[reader].pattern, i, j) != (m->seen[j] != 0)) fail_msg("%s: query %lld misses key %lld", describe(m->x), (long long)i, (long long)j);
        m->seen[j] = 0;
    }
}

static void rows_read_the_keys_of_the_pattern_where_they_lie(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        const compiled *x = &all[n];
        const hd_cache *c = x->cache;
        const int chunk = x->c.chunk;
        const hd_cache_words w = hd_cache_plan(c, 1, chunk), single = hd_cache_plan(c, STREAMS, 1);
        const hd_run run = run_new(x, 0);
        int32_t *plan = plan_new(x, 1, chunk), *one = plan_new(x, STREAMS, 1);
        simulation m = { .x = x, .seen = calloc((size_t)x->c.total + 1, 1) };
        assert_true(c->layouts <= 8);
        for (int steps = 0; steps < 2; steps++) {
            for (int l = 0; l < c->layouts; l++) {
                m.holder[l] = malloc(sizeof(int64_t) * (size_t)(c->layout[l].kept + c->layout[l].ring + 1));
                for (int64_t s = 0; s < c->layout[l].kept + c->layout[l].ring; s++) m.holder[l][s] = -1;
            }
            random_seed((uint64_t)n + 1);
            for (int64_t at = 0, used; at < x->c.total; at += used) {
                used = steps ? 1 : 1 + below(chunk);
                if (at + used > x->c.total) used = x->c.total - at;
                const int32_t first = (int32_t)at, three[STREAMS] = { -1, first, -1 };
                if (steps) x->step.keys(&run, 1, three, one);
                else x->prefill.keys(&run, (int)used, &first, plan);
                for (int r = 0; r < used; r++) for (int l = 0; l < c->layouts; l++) {      /* kept keys first; with steps, all */
                    const int32_t slot = steps ? one[l * STREAMS + 1] : plan[l * chunk + r];
                    if (slot >= 0 && (steps || slot < c->layout[l].kept)) m.holder[l][slot] = at + r;
                }
                for (int reader = 0; reader < c->readers; reader++)
                    for (int r = 0; r < used; r++) {
                        if (steps) {
                            see_row(&m, reader, at, at, one + single.slots + reader * single.reader + single.row);
                        } else {
                            const int32_t *own = plan + w.slots + reader * w.reader, *block = own + chunk * w.row + r / HD_CACHE_BLOCK * w.block;
                            see_row(&m, reader, at + r, at, own + r * w.row);
                            for (int k = 0; k < block[0]; k++) {
                                const int32_t *s = block + 1 + HD_CACHE_SEGMENT * k;
                                if (!((uint32_t)s[3] >> r % HD_CACHE_BLOCK & 1)) continue;
                                for (int32_t t = 0; t < s[1]; t++) see(&m, reader, at + r, at, s[0] < 0 ? ~(~(int64_t)s[0] + t) : s[0] + (int64_t)t, s[2] + (int64_t)t);
                            }
                        }
                        all_seen(&m, reader, at + r);
                    }
                for (int r = 0; r < used && !steps; r++) for (int l = 0; l < c->layouts; l++) if (plan[l * chunk + r] >= c->layout[l].kept) m.holder[l][plan[l * chunk + r]] = at + r;
            }
            for (int l = 0; l < c->layouts; l++) free(m.holder[l]);
        }
        free(m.seen);
        free(run.local);
        free(plan);
        free(one);
    }
}

/* ---- attention ---- */

static double uniform(void) { return (double)below(1 << 24) / (1 << 24) - 0.5; }

/* Rows of all streams, [stream][position][head][head_dim]. */
typedef struct tensors { float *q, *k, *v, *out, *cache, sinks[8], bias[8 * 18]; } tensors;
static const float UNTOUCHED = 12345.0f;

static tensors tensors_new(const compiled *x, uint64_t seed)
{
    const test_case *c = &x->c;
    const size_t rows = (size_t)(STREAMS * c->total), q = rows * (size_t)(c->heads * c->head_dim), k = rows * (size_t)(c->kv_heads * c->head_dim), cache = (size_t)(STREAMS * x->cache->stream_bytes);
    tensors t = { malloc(4 * q), malloc(4 * k), malloc(4 * k), malloc(4 * q), aligned_alloc(64, (cache + 63) / 64 * 64), { 0 }, { 0 } };
    random_seed(seed);
    for (size_t i = 0; i < q; i++) t.q[i] = (float)(4 * uniform()), t.out[i] = UNTOUCHED;
    for (size_t i = 0; i < k; i++) t.k[i] = (float)(4 * uniform()), t.v[i] = (float)(4 * uniform());
    for (int i = 0; i < 8; i++) t.sinks[i] = (float)(4 * uniform());
    for (int i = 0; i < 8 * 18; i++) t.bias[i] = (float)(4 * uniform());
    memset(t.cache, 0xff, cache);
    return t;
}
static void tensors_free(tensors *t) { free(t->q); free(t->k); free(t->v); free(t->out); free(t->cache); }

/* Rows of `from`, [position][head][head_dim], to the places of a chunk, or back. */
static void move_rows(hd_attention_strides s, int64_t batch, int64_t rows, int64_t heads, int64_t d, float *rows_of, float *place, bool back)
{
    for (int64_t r = 0; r < rows; r++) for (int64_t h = 0; h < heads; h++) {
        float *own = rows_of + (r * heads + h) * d, *there = place + batch * s.batch + h * s.head + r * s.row;
        memcpy(back ? own : there, back ? there : own, 4 * (size_t)d);
    }
}

static void call_attend(const compiled *x, const phase *p, const hd_run *run, int stream, int used, const float *q, const float *k, const float *v, const int32_t *plan, const int32_t *positions, tensors *t, float *out)
{
    const unsigned with = x->c.with;
    union { void *any; attend_kernel *none; attend_1_kernel *one; attend_2_kernel *two; } kernel = { p->attend };
    if (with == (HD_WITH_SINKS | HD_WITH_BIAS)) kernel.two(run, stream, used, q, k, v, plan, positions, t->sinks, t->bias, t->cache, out);
    else if (with) kernel.one(run, stream, used, q, k, v, plan, positions, with == HD_WITH_SINKS ? t->sinks : t->bias, t->cache, out);
    else kernel.none(run, stream, used, q, k, v, plan, positions, t->cache, out);
}

/* `used` rows of a stream from `at` on, as a chunk; what lies past them is NaN. */
static void prefill(const compiled *x, const hd_run *run, tensors *t, int stream, int at, int used)
{
    const test_case *c = &x->c;
    const hd_attention *a = &x->prefill.shape;
    const size_t q_bytes = 4 * (size_t)(a->q.batch), k_bytes = 4 * (size_t)a->k.batch;
    float *q = malloc(q_bytes), *k = malloc(k_bytes), *v = malloc(k_bytes), *out = malloc(q_bytes);
    memset(q, 0xff, q_bytes), memset(k, 0xff, k_bytes), memset(v, 0xff, k_bytes), memset(out, 0xff, q_bytes);
    const int64_t d = c->head_dim, row = (int64_t)stream * c->total + at, q_row = row * c->heads * d, k_row = row * c->kv_heads * d;
    move_rows(a->q, 0, used, c->heads, d, t->q + q_row, q, false);
    move_rows(a->k, 0, used, c->kv_heads, d, t->k + k_row, k, false);
    move_rows(a->k, 0, used, c->kv_heads, d, t->v + k_row, v, false);
    int32_t *plan = plan_new(x, 1, c->chunk);
    const int32_t position = at;
    x->prefill.keys(run, used, &position, plan);
    if (x->prefill.kept) x->prefill.kept(run, stream, used, k, v, plan, t->cache);
    call_attend(x, &x->prefill, run, stream, used, q, k, v, plan, &position, t, out);
    if (x->prefill.ring) x->prefill.ring(run, stream, used, k, v, plan, t->cache);
    move_rows(a->q, 0, used, c->heads, d, t->out + q_row, out, true);
    free(q), free(k), free(v), free(out), free(plan);
}

/* One more position of every stream that does not rest (at[s] >= 0). */
static void step(const compiled *x, const hd_run *run, tensors *t, const int32_t *at)
{
    const test_case *c = &x->c;
    const hd_attention *a = &x->step.shape;
    const size_t q_bytes = 4 * (size_t)(STREAMS * a->q.batch), k_bytes = 4 * (size_t)(STREAMS * a->k.batch);
    float *q = malloc(q_bytes), *k = malloc(k_bytes), *v = malloc(k_bytes), *out = malloc(q_bytes);
    memset(q, 0xff, q_bytes), memset(k, 0xff, k_bytes), memset(v, 0xff, k_bytes), memset(out, 0xff, q_bytes);
    const int64_t d = c->head_dim;
    for (int back = 0; back < 2; back++) {
        for (int s = 0; s < STREAMS; s++) {
            if (at[s] < 0) continue;
            const int64_t row = (int64_t)s * c->total + at[s], q_row = row * c->heads * d, k_row = row * c->kv_heads * d;
            move_rows(a->q, s, 1, c->heads, d, (back ? t->out : t->q) + q_row, back ? out : q, back);
            if (back) continue;
            move_rows(a->k, s, 1, c->kv_heads, d, t->k + k_row, k, false);
            move_rows(a->k, s, 1, c->kv_heads, d, t->v + k_row, v, false);
        }
        if (back) break;
        int32_t *plan = plan_new(x, STREAMS, 1);
        x->step.keys(run, 1, at, plan);
        call_attend(x, &x->step, run, 0, 1, q, k, v, plan, at, t, out);
        free(plan);
    }
    free(q), free(k), free(v), free(out);
}

/* Stream 0 by steps alone, stream 1 in chunks of all sizes and then by steps, stream 2 in chunks alone but for some last steps. */
static void decode(const compiled *x, tensors *t, int threads)
{
    const hd_run run = run_new(x, threads);
    const int total = x->c.total, chunk = x->c.chunk;
    int32_t at[STREAMS] = { 0, 0, 0 };
    random_seed(99);
    for (int s = 1; s < STREAMS; s++)
        for (const int end = s == 1 ? total * 2 / 3 : total - 3; at[s] < end; ) {
            int used = s == 2 || !below(3) ? chunk : 1 + (int)below(chunk);
            if (used > end - at[s]) used = end - at[s];
            prefill(x, &run, t, s, at[s], used);
            at[s] += used;
        }
    while (at[0] < total) {
        int32_t now[STREAMS];
        for (int s = 0; s < STREAMS; s++) now[s] = at[s] < total && (s == 0 || below(4)) ? at[s]++ : -1;
        step(x, &run, t, now);
    }
    for (int s = 1; s < STREAMS; s++)
        while (at[s] < total) {
            int32_t now[STREAMS] = { -1, -1, -1 };
            now[s] = at[s]++;
            step(x, &run, t, now);
        }
    free(run.local);
}

/* The definition, for one row of a head. */
static void attend(const compiled *x, const tensors *t, int s, int h, int64_t i, double *p, double *out)
{
    const test_case *c = &x->c;
    const int64_t d = c->head_dim, kv = h / (c->heads / c->kv_heads);
    const hd_pattern *pattern = x->pattern[h % 2];
    const float *q = t->q + (((int64_t)s * c->total + i) * c->heads + h) * d;
    const hd_buckets *buckets = x->step.shape.buckets;
    double max = c->with & HD_WITH_SINKS ? t->sinks[h] : -INFINITY, sum = 0;
    for (int64_t j = 0; j <= i; j++) {
        if (!hd_pattern_keeps(pattern, i, j)) continue;
        const float *k = t->k + (((int64_t)s * c->total + j) * c->kv_heads + kv) * d;
        double score = 0;
        for (int64_t e = 0; e < d; e++) score += 0.37 * q[e] * k[e];
        if (c->softcap > 0) score = c->softcap * tanh(score / c->softcap);
        if (c->alibi) score -= slopes[h] * (double)(i - j);
        if (buckets) score += t->bias[h * buckets->buckets + buckets->bucket[i - j < buckets->count ? i - j : buckets->count - 1]];
        p[j] = score;
        max = fmax(max, score);
    }
    for (int64_t e = 0; e < d; e++) out[e] = 0;
    for (int64_t j = 0; j <= i; j++) if (hd_pattern_keeps(pattern, i, j)) sum += p[j] = exp(p[j] - max);
    if (c->with & HD_WITH_SINKS) sum += exp(t->sinks[h] - max);
    for (int64_t j = 0; j <= i; j++) {
        if (!hd_pattern_keeps(pattern, i, j)) continue;
        const float *v = t->v + (((int64_t)s * c->total + j) * c->kv_heads + kv) * d;
        for (int64_t e = 0; e < d; e++) out[e] += p[j] / sum * v[e];
    }
}

/* Rounding of f32 sums of a few hundred products, relative to the largest value of the tensor: as the goldens ask. */
static const double TOLERANCE = 2e-5;

static void steps_and_chunks_are_attention_over_all_keys_so_far(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        const compiled *x = &all[n];
        const test_case *c = &x->c;
        if (c->other < 0) continue;
        tensors t = tensors_new(x, 20);
        decode(x, &t, 0);
        double *p = malloc(sizeof *p * (size_t)c->total), *out = malloc(sizeof *out * (size_t)c->head_dim);
        for (int s = 0; s < STREAMS; s++) for (int64_t i = 0; i < c->total; i++) for (int h = 0; h < c->heads; h++) {
            attend(x, &t, s, h, i, p, out);
            for (int e = 0; e < c->head_dim; e++) {
                const float got = t.out[(((int64_t)s * c->total + i) * c->heads + h) * c->head_dim + e];
                if (!(fabs(got - out[e]) <= TOLERANCE * 2)) fail_msg("%s: stream %d, position %lld, head %d, element %d is %.9g, should be %.9g", describe(x), s, (long long)i, h, e, got, out[e]);
            }
        }
        free(p), free(out);
        tensors_free(&t);
    }
}

static void results_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        const compiled *x = &all[n];
        if (x->c.other < 0) continue;
        tensors t = tensors_new(x, 7);
        decode(x, &t, 1);
        for (int threads = 2; threads <= 5; threads += 3) {
            tensors u = tensors_new(x, 7);
            decode(x, &u, threads);
            if (memcmp(t.out, u.out, 4 * (size_t)(STREAMS * x->c.total * x->c.heads * x->c.head_dim)) || memcmp(t.cache, u.cache, (size_t)(STREAMS * x->cache->stream_bytes))) fail_msg("%s: %d threads", describe(x), threads);
            tensors_free(&u);
        }
        tensors_free(&t);
    }
}

/* One key becomes NaN and infinite: rows that do not keep it are the same bits as before, and other streams. */
static void a_key_outside_the_pattern_never_influences_a_row(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        const compiled *x = &all[n];
        const test_case *c = &x->c;
        if (c->other < 0) continue;
        tensors t = tensors_new(x, 3), u = tensors_new(x, 3);
        const int64_t d = c->head_dim, key = c->total / 3;
        for (int s = 1; s < STREAMS; s++) for (int64_t e = 0; e < c->kv_heads * d; e++) {
            const int64_t at = ((int64_t)s * c->total + key) * c->kv_heads * d + e;
            u.k[at] = NAN, u.v[at] = e % 2 ? INFINITY : NAN;
        }
        decode(x, &t, 0);
        decode(x, &u, 0);
        for (int s = 0; s < STREAMS; s++) for (int64_t i = 0; i < c->total; i++) for (int h = 0; h < c->heads; h++) {
            const int64_t at = (((int64_t)s * c->total + i) * c->heads + h) * d;
            const bool keeps = s > 0 && i >= key && hd_pattern_keeps(x->pattern[h % 2], i, key);
            if (keeps ? !isnan(u.out[at]) : memcmp(u.out + at, t.out + at, 4 * (size_t)d) != 0)
                fail_msg("%s: key %lld %s row %lld of stream %d, head %d", describe(x), (long long)key, keeps ? "does not reach" : "reaches", (long long)i, s, h);
        }
        tensors_free(&t);
        tensors_free(&u);
    }
}

static void what_a_cache_cannot_do_is_refused(void **state)
{
    (void)state;
    const hd_pattern *both[1] = { window(3, 3) }, *back[1] = { and(causal(), window(3, 0)) };
    hd_node q = { .shape = { 3, { 1, 64, 32 } } }, k = { .shape = { 3, { 1, 48, 32 } } }, *input[3] = { &q, &q, &q };
    hd_node n = { .op = HD_OP_attention, .inputs = 3, .input = input, .attr = attention_of(4, 4, 8, 1, back) };
    assert_null(hd_cache_refusal(&n));
    n.attr.attention.pattern = both;
    assert_non_null(strstr(hd_cache_refusal(&n), "only causal patterns"));
    n.attr.attention.pattern = back;
    n.attr.attention.with = HD_WITH_BOUNDS;
    assert_non_null(strstr(hd_cache_refusal(&n), "run time"));
    n.attr.attention.with = HD_WITH_KEY_BIAS;
    assert_non_null(strstr(hd_cache_refusal(&n), "each key"));
    n.attr.attention.with = HD_WITH_EDGE_BIAS;
    assert_non_null(strstr(hd_cache_refusal(&n), "each pair"));
    n.attr.attention.with = HD_WITH_SINKS | HD_WITH_BIAS;
    assert_null(hd_cache_refusal(&n));
    input[1] = &k;
    assert_non_null(strstr(hd_cache_refusal(&n), "64 queries and 48 keys"));
}

static bool runs_here(const char *target)
{
    __builtin_cpu_init();
    if (!strcmp(target, "x86-64-v4")) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(target, "x86-64-v3")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return true;
}

static void add_cases(const char *target, const test_case *from, int count, const char *optimise)
{
    hd_kernels set = { .prefix = "t", .target = hd_target_find(target) };
    assert_non_null(set.target);
    compiled *first = &all[all_count];
    for (int i = 0; i < count; i++) plan_case(&first[i], &from[i], &set);
    void **handle = build(&set, optimise);
    for (int i = 0; i < count; i++) open_phase(&first[i].step, handle), open_phase(&first[i].prefill, handle);
    all_count += count;
}

static int prepare(void **state)
{
    (void)state;
    static const char *const targets[] = { "x86-64-v4", "x86-64-v3", "x86-64" };
    static test_case some[CASES + RANDOM_CASES];
    all = HD_NEW_ARRAY(compiled, 4 * (CASES + RANDOM_CASES));
    for (int t = 0; t < 3; t++) {
        if (!runs_here(targets[t])) continue;
        if (all_count == 0) {
            add_cases(targets[t], cases, CASES, "-O1");
            continue;
        }
        int count = 0;
        for (int i = 0; i < CASES; i++) if (i % 3 == t) some[count++] = cases[i];
        add_cases(targets[t], some, count, "-O0");
    }
    for (int i = 0; i < RANDOM_CASES; i++) {
        random_seed((uint64_t)(1000 + i));
        const int length = 20 + (int)random_length(180);
        some[i] = (test_case){ 2000 + i, -1, length, length, 8, 1, 1, 2 + (int)below(70), false, 0, 0, i % 2 == 0 };
    }
    add_cases("x86-64", some, RANDOM_CASES, "-O0");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cache_holds_what_its_pattern_needs),
        cmocka_unit_test(heads_of_one_key_head_share_its_slots),
        cmocka_unit_test(what_a_cache_cannot_do_is_refused),
        cmocka_unit_test(rows_read_the_keys_of_the_pattern_where_they_lie),
        cmocka_unit_test(steps_and_chunks_are_attention_over_all_keys_so_far),
        cmocka_unit_test(results_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(a_key_outside_the_pattern_never_influences_a_row),
    };
    return cmocka_run_group_tests_name("cache", tests, prepare, NULL);
}
