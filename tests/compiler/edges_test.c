/* Attention over listed pairs (attention_edges.c) against a loop over the pairs in double precision.
 *
 * Every case becomes kernels by the plan, templates and expander that a model's do; all go into a few shared objects, made side
 * by side by clang (CC names another compiler), are loaded and run. Graphs are random, with empty rows, hubs and loops. */
#include "../../compiler/emit/attention_edges.h"
#include "../../compiler/emit/kernels.h"
#include "../../runtime/core/hd_core.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

extern char **environ;

enum { SINKS = HD_WITH_SINKS, BIAS = HD_WITH_BIAS, KEY_BIAS = HD_WITH_KEY_BIAS, EDGE_BIAS = HD_WITH_EDGE_BIAS, BOUNDS = HD_WITH_BOUNDS, EVERYTHING = 31 };
typedef struct test_case {
    int queries, keys, heads, kv_heads, head_dim, batch;
    int degree, hub;           /* keys of a query on average; of one query, and queries of one key */
    bool heads_first;          /* [batch][heads][n][head_dim]; else slices of one [batch][n][3 widths] */
    bool causal, two;          /* two: odd heads have a graph of their own */
    unsigned with;
    double softcap;
    bool alibi;
    int offset;
} test_case;

static const test_case cases[] = {
    {   1,   1, 1, 1, 16, 1, 1,   0, true,  false, false, 0, 0, false, 0 },
    {   2,   3, 4, 4,  1, 2, 2,   0, false, false, false, 0, 0, false, 0 },
    {  50,  70, 4, 2,  5, 2, 3,   0, true,  false, false, 0, 0, false, 0 },
    { 130, 130, 4, 4, 16, 2, 5,   0, false, false, false, 0, 0, false, 0 },
    { 400, 400, 8, 2, 33, 1, 5, 310, true,  false, false, 0, 0, false, 0 },
    { 700, 650, 2, 1, 64, 1, 5, 600, true,  false, false, 0, 0, false, 0 },
    { 300, 300, 2, 2, 64, 2, 3, 300, false, true,  true,  0, 0, false, 0 },
    { 200, 260, 8, 4, 20, 1, 4,  40, false, false, true,  0, 0, false, 0 },
    { 120, 120, 2, 1,400, 1, 3,   0, true,  false, false, 0, 0, false, 0 },
    { 257, 257, 4, 4, 17, 2, 0,   0, true,  false, false, SINKS, 0, false, 0 },
    { 150, 150, 4, 4, 24, 2, 6, 120, true,  true,  false, SINKS, 1.5, true, 3 },
    { 700, 700, 2, 1, 16, 1, 6, 650, true,  false, false, BIAS | KEY_BIAS, 0, false, 7 },
    { 600, 640, 2, 2, 32, 1, 6, 600, false, false, false, KEY_BIAS | EDGE_BIAS, 2.0, false, 0 },
    { 333, 333, 4, 2,  8, 2, 6, 300, true,  false, true,  EDGE_BIAS, 0, true, -4 },
    { 260, 300, 4, 4, 48, 2, 8, 250, false, false, false, BOUNDS, 0, false, 0 },
    { 900, 900, 1, 1, 64, 1, 8, 700, true,  false, false, BOUNDS | KEY_BIAS, 3.0, false, 0 },
    { 800, 700, 4, 2, 33, 2, 6, 640, false, false, true,  EVERYTHING, 2.5, true, 11 },
    { 600, 600, 2, 1, 64, 1, 5, 560, true,  true,  false, EVERYTHING, 0, true, 0 },
};
enum { CASES = sizeof cases / sizeof *cases, SHARED_OBJECTS = 2, BUCKET_COUNT = 41, BUCKETS = 7 };

enum { Q, K, V, OUT, LSE, DOUT, SINK, TABLE, BY_KEY, BY_EDGE, BOUND, DQ, DK, DV, DTABLE, DBY_KEY, DBY_EDGE, MERGE, TENSORS };
typedef void forward_call(const hd_run *, int sequences, int used, void **tensors);
typedef void backward_call(const hd_run *, void **tensors);

typedef struct compiled {
    test_case c;
    hd_attention a;
    const hd_key_lists *list[2];
    int64_t *edge_of[2];           /* the pair of run r begins at edge_of[r] */
    double slopes[8];
    hd_attention_plan forward, backward;
    hd_kernel *kernel[3];
    forward_call *forward_run;
    backward_call *backward_run[2];
    int64_t size[TENSORS], local_bytes;      /* elements */
} compiled;

static uint64_t random_state = 1;
static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 40) / (1 << 24) - 0.5;
}
static int random_below(int n) { return (int)((uniform() + 0.5) * n); }

static const char *describe(const test_case *c)
{
    return hd_format("queries=%d keys=%d heads=%d/%d head_dim=%d batch=%d degree=%d hub=%d with=%u%s%s%s%s%s", c->queries, c->keys, c->heads, c->kv_heads, c->head_dim, c->batch, c->degree,
                     c->hub, c->with, c->heads_first ? " heads first" : "", c->causal ? " causal" : "", c->two ? " two graphs" : "", c->softcap ? " softcap" : "", c->alibi ? " alibi" : "");
}

/* A graph of random edges; every seventh query has none. */
static const hd_key_lists *random_graph(const test_case *c)
{
    hd_key_lists *l = HD_NEW(hd_key_lists);
    bool *keep = HD_NEW_ARRAY(bool, c->queries * c->keys);
    const int hub_query = c->queries * 2 / 3, hub_key = c->keys / 4;
    for (int i = 0; i < c->queries; i++)
        for (int n = i % 7 == 3 ? 0 : random_below(2 * c->degree + 1); n > 0; n--) keep[i * c->keys + random_below(c->keys)] = true;
    for (int n = 0; n < c->hub; n++) {
        if (hub_query % 7 != 3) keep[hub_query * c->keys + random_below(c->keys)] = true;
        const int i = random_below(c->queries);
        if (i % 7 != 3) keep[i * c->keys + hub_key] = true;
    }
    int64_t *start = HD_NEW_ARRAY(int64_t, c->queries + 1);
    hd_interval *run = HD_NEW_ARRAY(hd_interval, c->queries * (c->keys / 2 + 1));
    int64_t runs = 0;
    for (int i = 0; i < c->queries; i++) {
        const bool *row = keep + i * c->keys;
        start[i] = runs;
        for (int j = 0; j < c->keys; j++) {
            if (!row[j] || (c->causal && j > i)) continue;
            if (runs > start[i] && run[runs - 1].end == j) run[runs - 1].end++;
            else run[runs++] = (hd_interval){ j, j + 1 };
        }
    }
    start[c->queries] = runs;
    *l = (hd_key_lists){ .block = 1, .rows = c->queries, .columns = c->keys, .start = start, .run = run, .what = "random edges" };
    return l;
}

static void plan_case(compiled *x, const test_case *c, hd_kernels *set)
{
    x->c = *c;
    const int64_t d = c->head_dim;
    const hd_cover **cover = (const hd_cover **)HD_NEW_ARRAY(hd_cover *, 2);
    int *of_head = HD_NEW_ARRAY(int, c->heads);
    for (int g = 0; g < 1 + c->two; g++) {
        x->list[g] = random_graph(c);
        hd_pattern *p = HD_NEW(hd_pattern);
        *p = (hd_pattern){ .kind = HD_PATTERN_LIST, .list = x->list[g] };
        cover[g] = hd_cover_make(p, c->queries, c->keys);
        if (cover[g]->kept_pairs > x->a.edges) x->a.edges = cover[g]->kept_pairs;
        const int64_t runs = x->list[g]->start[c->queries];
        x->edge_of[g] = HD_NEW_ARRAY(int64_t, runs + 1);
        for (int64_t r = 0; r < runs; r++) x->edge_of[g][r + 1] = x->edge_of[g][r] + x->list[g]->run[r].end - x->list[g]->run[r].first;
        assert_int_equal(x->edge_of[g][runs], cover[g]->kept_pairs);
    }
    for (int h = 0; h < c->heads; h++) of_head[h] = h % 2, x->slopes[h] = 0.02 * (h + 1);
    hd_attention_strides q, k;
    if (c->heads_first) {
        q = (hd_attention_strides){ c->heads * c->queries * d, c->queries * d, d };
        k = (hd_attention_strides){ c->kv_heads * c->keys * d, c->keys * d, d };
    } else {
        const int64_t q_width = c->heads * d + 3, k_width = 2 * c->kv_heads * d;
        q = (hd_attention_strides){ c->queries * q_width, d, q_width };
        k = (hd_attention_strides){ c->keys * k_width, d, k_width };
    }
    int32_t *bucket = HD_NEW_ARRAY(int32_t, BUCKET_COUNT);
    for (int i = 0; i < BUCKET_COUNT; i++) bucket[i] = (i * i + i / 3) % BUCKETS;
    hd_buckets *buckets = HD_NEW(hd_buckets);
    *buckets = (hd_buckets){ -20, BUCKET_COUNT, BUCKETS, bucket };
    x->a = (hd_attention){ .batch = c->batch, .heads = c->heads, .kv_heads = c->kv_heads, .head_dim = d, .queries = c->queries, .keys = c->keys, .scale = 0.37, .softcap = c->softcap,
                           .alibi = c->alibi ? x->slopes : NULL, .offset = c->offset, .buckets = c->with & BIAS ? buckets : NULL, .with = c->with,
                           .key_bias_stride = c->heads % 4 ? 0 : c->keys, .edge_bias_stride = c->batch > 1 ? 0 : x->a.edges, .edges = x->a.edges,
                           .q = q, .k = k, .v = k, .out = q, .dout = q, .dq = q, .dk = k, .dv = k,
                           .covers = 1 + c->two, .cover = cover, .cover_of_head = c->two ? of_head : NULL };
    assert_true(hd_attention_edges_cost(&x->a, set->target, false) > 0);
    x->forward = hd_attention_edges(&x->a, set->target, false);
    x->backward = hd_attention_edges(&x->a, set->target, true);
    assert_int_equal(x->forward.phases, 1);
    assert_in_range(x->backward.phases, 1, 2);
    for (int i = 0; i <= x->backward.phases; i++) {
        const hd_attention_plan *plan = i ? &x->backward : &x->forward;
        const hd_attention_phase *p = &plan->phase[i ? i - 1 : 0];
        x->kernel[i] = hd_kernel_get(set, p->template_name, p->coordinates, plan->signature, p->parameters, p->local_bytes, (hd_where){ 0 });
        if (p->local_bytes > x->local_bytes) x->local_bytes = p->local_bytes;
    }
    const int64_t rows = c->batch * c->heads * c->queries, of_q = c->batch * q.batch, of_k = c->batch * k.batch;
    const int64_t size[TENSORS] = { of_q, of_k, of_k, of_q, rows, of_q, c->heads, c->heads * BUCKETS, c->batch * c->keys, c->heads * x->a.edges, 2 * c->batch * c->queries, of_q, of_k, of_k,
                                    c->batch * c->heads * BUCKETS, c->batch * c->heads * c->keys, c->batch * c->heads * x->a.edges, x->backward.merge_bytes / 4 };
    memcpy(x->size, size, sizeof size);
}

/* ---- compiling ---- */

/* Calls the kernel with tensors by number, whatever extras it takes. */
static void add_caller(hd_text *text, const hd_kernel *k, unsigned with, bool backward)
{
    hd_text_add(text, "void call_%s(const hd_run *run, %svoid **t);\nvoid call_%s(const hd_run *run, %svoid **t)\n{\n    %s(run, %st[%d], t[%d], t[%d]", k->name, backward ? "" : "int sequences, int used, ",
                k->name, backward ? "" : "int sequences, int used, ", k->name, backward ? "" : "sequences, used, ", Q, K, V);
    if (backward) hd_text_add(text, ", t[%d], t[%d], t[%d]", OUT, LSE, DOUT);
    for (int i = backward; i < 5; i++) if (with >> i & 1) hd_text_add(text, ", t[%d]", SINK + i);
    if (backward) hd_text_add(text, ", t[%d], t[%d], t[%d]", DQ, DK, DV);
    else hd_text_add(text, ", t[%d], t[%d]", OUT, LSE);
    for (int i = 1; backward && i < 4; i++) if (with >> i & 1) hd_text_add(text, ", t[%d]", DTABLE + i - 1);
    hd_text_add(text, ", t[%d]);\n}\n", MERGE);
}

static compiled all[CASES];
static hd_kernels set = { .prefix = "t" };

/* Compiles the set into shared objects and opens them; the temporary folder is removed again. */
static void **build(const char *optimise)
{
    void **handle = HD_NEW_ARRAY(void *, SHARED_OBJECTS);
    char folder[] = "/tmp/hd_edges_XXXXXX";
    assert_non_null(mkdtemp(folder));
    hd_expander *expander = hd_expander_new("templates", "compiler/emit");
    const char *cc = getenv("HD_TEST_CC") ? getenv("HD_TEST_CC") : "clang";
    pid_t pid[SHARED_OBJECTS];
    for (int i = 0; i < SHARED_OBJECTS; i++) {
        hd_text text = { 0 };
        hd_text_add(&text, "#define HD_VL %d\n#include \"hd_core.h\"\n#include \"hd_vec.h\"\n", set.target->vl);
        for (int j = i; j < CASES; j += SHARED_OBJECTS)
            for (int n = 0; n <= all[j].backward.phases; n++) {
                const char *kernel = hd_kernel_text(expander, &set, all[j].kernel[n]);
                hd_text_addn(&text, kernel, strlen(kernel));
                add_caller(&text, all[j].kernel[n], all[j].c.with, n > 0);
            }
        hd_write_file(hd_format("%s/%d.c", folder, i), text.data, text.length);
        char *argv[24] = { (char *)cc, (char *)optimise, "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared", "-Iruntime/core", "-o",
                           hd_format("%s/%d.so", folder, i), hd_format("%s/%d.c", folder, i) };
        int argc = 13;
        for (int f = 0; f < 4 && set.target->flags[f]; f++) argv[argc++] = (char *)set.target->flags[f];
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
    rmdir(folder);
    return handle;
}

static void *find(void *handle, const hd_kernel *k)
{
    void *symbol = dlsym(handle, hd_format("call_%s", k->name));
    if (!symbol) fail_msg("no kernel %s", k->name);
    return symbol;
}

static int prepare(void **state)
{
    (void)state;
    const char *target = getenv("HD_TEST_TARGET"), *optimise = getenv("HD_TEST_O");
    set.target = hd_target_find(target ? target : "native");
    assert_non_null(set.target);
    for (int i = 0; i < CASES; i++) plan_case(&all[i], &cases[i], &set);
    void **handle = build(optimise ? optimise : "-O1");
    for (int i = 0; i < CASES; i++) {
        *(void **)&all[i].forward_run = find(handle[i % SHARED_OBJECTS], all[i].kernel[0]);
        for (int n = 0; n < all[i].backward.phases; n++) *(void **)&all[i].backward_run[n] = find(handle[i % SHARED_OBJECTS], all[i].kernel[n + 1]);
    }
    return 0;
}

/* ---- running ---- */

static const float UNTOUCHED = 12345.0f;
static bool is_input(int t) { return t <= V || (t >= DOUT && t <= BOUND); }

/* All inputs random; bounds never decrease. */
static float **tensors_new(const compiled *x, uint64_t seed)
{
    random_state = seed;
    float **t = malloc(TENSORS * sizeof *t);
    for (int n = 0; n < TENSORS; n++) {
        t[n] = malloc((size_t)(x->size[n] + 1) * sizeof(float));
        for (int64_t i = 0; i < x->size[n]; i++) t[n][i] = is_input(n) ? (float)(4 * uniform()) : n == MERGE ? NAN : UNTOUCHED;
    }
    int32_t *bounds = (int32_t *)(void *)t[BOUND];
    for (int b = 0; b < x->c.batch; b++)
        for (int i = 0; i < x->c.queries; i++) {
            const int at = x->c.keys * i / x->c.queries, first = at - x->c.keys / (2 + b), end = at + x->c.keys / 3;
            bounds[2 * (b * x->c.queries + i)] = first > 0 ? first : 0;
            bounds[2 * (b * x->c.queries + i) + 1] = end < x->c.keys ? end : x->c.keys;
        }
    return t;
}
static void tensors_free(float **t)
{
    for (int n = 0; n < TENSORS; n++) free(t[n]);
    free(t);
}

/* `count` threads take the slots from the last to the first. */
static void backwards(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    for (int slot = slots - 1; slot >= 0; slot--) task(argument, slot, slot % *(int *)context);
}

static void run_kernels(const compiled *x, float **t, int sequences, int used, bool gradients, int count)
{
    hd_threads threads = { &count, count, backwards };
    hd_run run = { count ? &threads : NULL, NULL, (size_t)(x->local_bytes + 63) / 64 * 64 };
    run.local = aligned_alloc(64, 3 * run.local_bytes);
    memset(run.local, 0xff, 3 * run.local_bytes);                         /* NaN: nothing may be read before it was written */
    x->forward_run(&run, sequences, used, (void **)t);
    for (int i = 0; gradients && i < x->backward.phases; i++) x->backward_run[i](&run, (void **)t);
    free(run.local);
}

/* ---- the definition, in double precision ---- */

typedef struct pair { int64_t key, edge; double s, slope, p; } pair;

/* The pairs of a query, with its bounds; returns how many. */
static int pairs_of(const compiled *x, float *const *t, int b, int h, int i, pair *list)
{
    const int g = x->c.two ? h % 2 : 0;
    const hd_key_lists *l = x->list[g];
    const int32_t *bounds = (const int32_t *)(const void *)t[BOUND] + 2 * ((int64_t)b * x->c.queries + i);
    int n = 0;
    for (int64_t r = l->start[i]; r < l->start[i + 1]; r++)
        for (int64_t j = l->run[r].first; j < l->run[r].end; j++)
            if (!(x->c.with & BOUNDS) || (j >= bounds[0] && j < bounds[1])) list[n++] = (pair){ .key = j, .edge = x->edge_of[g][r] + j - l->run[r].first };
    return n;
}

static int bucket_of(const hd_attention *a, int64_t i, int64_t j)
{
    int64_t d = i + a->offset - j - a->buckets->first;
    return a->buckets->bucket[d < 0 ? 0 : d < a->buckets->count ? d : a->buckets->count - 1];
}

static void attend(const compiled *x, float *const *t, int b, int h, int i, pair *list, double **r)
{
    const hd_attention *a = &x->a;
    const int d = x->c.head_dim, kv = h / (x->c.heads / x->c.kv_heads), n = pairs_of(x, t, b, h, i, list);
    const int64_t at = b * a->q.batch + h * a->q.head + i * a->q.row, head = (int64_t)b * a->heads + h;
    double max = x->c.with & SINKS ? t[SINK][h] : -INFINITY, sum = 0, dot = 0;
    for (pair *p = list; p < list + n; p++) {
        const float *k = t[K] + b * a->k.batch + kv * a->k.head + p->key * a->k.row;
        for (int e = 0; e < d; e++) p->s += a->scale * t[Q][at + e] * k[e];
        p->slope = 1;
        if (a->softcap) p->s = tanh(p->s / a->softcap), p->slope = 1 - p->s * p->s, p->s *= a->softcap;
        if (a->alibi) p->s -= a->alibi[h] * fabs((double)(i + a->offset - p->key));
        if (x->c.with & BIAS) p->s += t[TABLE][h * BUCKETS + bucket_of(a, i, p->key)];
        if (x->c.with & KEY_BIAS) p->s += t[BY_KEY][b * a->key_bias_stride + p->key];
        if (x->c.with & EDGE_BIAS) p->s += t[BY_EDGE][h * a->edge_bias_stride + p->edge];
        max = fmax(max, p->s);
    }
    if (x->c.with & SINKS) sum = exp(t[SINK][h] - max);
    for (pair *p = list; p < list + n; p++) sum += p->p = exp(p->s - max);
    r[LSE][head * a->queries + i] = max + log(sum);
    for (int e = 0; e < d; e++) r[OUT][at + e] = 0, r[DQ][at + e] = 0;
    for (pair *p = list; p < list + n; p++) {
        const float *v = t[V] + b * a->v.batch + kv * a->v.head + p->key * a->v.row;
        p->p /= sum;
        for (int e = 0; e < d; e++) r[OUT][at + e] += p->p * v[e];
    }
    for (int e = 0; e < d; e++) dot += t[DOUT][at + e] * r[OUT][at + e];
    for (pair *p = list; p < list + n; p++) {
        const int64_t key = b * a->k.batch + kv * a->k.head + p->key * a->k.row;
        double ds = 0;
        for (int e = 0; e < d; e++) ds += t[DOUT][at + e] * t[V][key + e];
        ds = p->p * (ds - dot);
        if (x->c.with & BIAS) r[DTABLE][head * BUCKETS + bucket_of(a, i, p->key)] += ds;
        r[DBY_KEY][head * a->keys + p->key] += ds;
        r[DBY_EDGE][head * a->edges + p->edge] = ds;
        ds *= a->scale * p->slope;
        for (int e = 0; e < d; e++) {
            r[DV][key + e] += p->p * t[DOUT][at + e];
            r[DK][key + e] += ds * t[Q][at + e];
            r[DQ][at + e] += ds * t[K][key + e];
        }
    }
}

/* Elements that belong to no head of a tensor are NaN in the reference: the kernel must leave them alone. */
static double **reference_new(const compiled *x, float *const *t)
{
    const hd_attention *a = &x->a;
    double **r = calloc(TENSORS, sizeof *r);
    for (int n = OUT; n < MERGE; n++) {
        r[n] = malloc((size_t)(x->size[n] + 1) * sizeof(double));
        for (int64_t i = 0; i < x->size[n]; i++) r[n][i] = n == OUT || (n >= DQ && n <= DV) ? NAN : 0;
    }
    for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < a->kv_heads; h++) for (int64_t j = 0; j < a->keys; j++)
        for (int e = 0; e < a->head_dim; e++) r[DK][b * a->k.batch + h * a->k.head + j * a->k.row + e] = r[DV][b * a->v.batch + h * a->v.head + j * a->v.row + e] = 0;
    pair *list = malloc((size_t)a->keys * sizeof *list);
    for (int b = 0; b < a->batch; b++) for (int h = 0; h < a->heads; h++) for (int i = 0; i < a->queries; i++) attend(x, t, b, h, i, list, r);
    free(list);
    return r;
}
static void reference_free(double **r)
{
    for (int n = 0; n < TENSORS; n++) free(r[n]);
    free(r);
}

static const char *const name_of[TENSORS] = { "q", "k", "v", "out", "lse", "dout", "sinks", "bias", "key_bias", "edge_bias", "bounds", "dq", "dk", "dv", "dbias", "dkey_bias", "dedge_bias", "merge" };
static bool is_output(const compiled *x, int n)
{
    if (n >= DTABLE && n <= DBY_EDGE) return x->c.with >> (n - DTABLE + 1) & 1;
    return n == OUT || n == LSE || (n >= DQ && n <= DV);
}

/* ---- the tests ---- */

/* Rounding of f32 sums of a few hundred products, relative to the largest value of the tensor: as the goldens ask. */
static const double TOLERANCE = 2e-5;

static void outputs_and_gradients_are_those_of_the_definition(void **state)
{
    (void)state;
    for (int c = 0; c < CASES; c++) {
        const compiled *x = &all[c];
        float **t = tensors_new(x, 11);
        run_kernels(x, t, 0, 0, true, 0);
        double **r = reference_new(x, t);
        for (int n = 0; n < TENSORS; n++) {
            if (!is_output(x, n)) continue;
            double largest = 0.1;      /* gradients may vanish: rounding of terms about 1 remains */
            for (int64_t i = 0; i < x->size[n]; i++) if (isfinite(r[n][i]) && fabs(r[n][i]) > largest) largest = fabs(r[n][i]);
            for (int64_t i = 0; i < x->size[n]; i++) {
                const double want = r[n][i], got = t[n][i];
                if (isnan(want) ? got == UNTOUCHED : isinf(want) ? got == want : fabs(got - want) <= TOLERANCE * largest) continue;
                fail_msg("%s: %s[%lld] is %.9g, should be %.9g (largest %.3g)", describe(&x->c), name_of[n], (long long)i, got, want, largest);
            }
        }
        reference_free(r);
        tensors_free(t);
    }
}

static void results_do_not_depend_on_threads_or_the_order_of_slots(void **state)
{
    (void)state;
    for (int c = 0; c < CASES; c++) {
        const compiled *x = &all[c];
        float **t = tensors_new(x, 7);
        run_kernels(x, t, 0, 0, true, 0);
        for (int threads = 1; threads <= 3; threads++) {
            float **u = tensors_new(x, 7);
            run_kernels(x, u, 0, 0, true, threads);
            for (int n = 0; n < TENSORS; n++)
                if (is_output(x, n) && memcmp(t[n], u[n], (size_t)x->size[n] * 4)) fail_msg("%s: %s with %d threads", describe(&x->c), name_of[n], threads);
            tensors_free(u);
        }
        tensors_free(t);
    }
}

static bool keeps(const compiled *x, float *const *t, int b, int h, int i, int64_t key, pair *list)
{
    const int n = pairs_of(x, t, b, h, i, list);
    for (int p = 0; p < n; p++) if (list[p].key == key) return true;
    return false;
}

/* One key becomes NaN in k and v: queries that do not keep it give the same numbers as before; likewise a query of NaN and the
 * keys that it does not keep. */
static void a_key_outside_the_pattern_never_influences_a_query(void **state)
{
    (void)state;
    for (int c = 0; c < CASES; c++) {
        const compiled *x = &all[c];
        const hd_attention *a = &x->a;
        float **t = tensors_new(x, 3), **u = tensors_new(x, 3);
        pair *list = malloc((size_t)a->keys * sizeof *list);
        const int key = x->c.keys / 4, query = x->c.queries * 2 / 3, share = x->c.heads / x->c.kv_heads;
        for (int b = 0; b < x->c.batch; b++) for (int h = 0; h < x->c.kv_heads; h++) for (int e = 0; e < x->c.head_dim; e++) {
            u[K][b * a->k.batch + h * a->k.head + key * a->k.row + e] = NAN;
            u[V][b * a->v.batch + h * a->v.head + key * a->v.row + e] = e % 2 ? INFINITY : NAN;
        }
        run_kernels(x, t, 0, 0, true, 0);
        run_kernels(x, u, 0, 0, true, 0);
        for (int b = 0; b < x->c.batch; b++) for (int h = 0; h < x->c.heads; h++) for (int i = 0; i < x->c.queries; i++) {
            const int64_t at = b * a->q.batch + h * a->q.head + i * a->q.row;
            const bool kept = keeps(x, t, b, h, i, key, list);
            for (int e = 0; e < x->c.head_dim; e++) {
                if (kept) assert_true(isnan(u[OUT][at + e]));
                else if (u[OUT][at + e] != t[OUT][at + e] || u[DQ][at + e] != t[DQ][at + e]) fail_msg("%s: key %d reaches query %d", describe(&x->c), key, i);
            }
        }
        memcpy(u[K], t[K], (size_t)x->size[K] * 4);
        memcpy(u[V], t[V], (size_t)x->size[V] * 4);
        for (int b = 0; b < x->c.batch; b++) for (int h = 0; h < x->c.heads; h++) for (int e = 0; e < x->c.head_dim; e++) {
            u[Q][b * a->q.batch + h * a->q.head + query * a->q.row + e] = NAN;
            u[DOUT][b * a->q.batch + h * a->q.head + query * a->q.row + e] = INFINITY;
        }
        run_kernels(x, u, 0, 0, true, 0);
        for (int b = 0; b < x->c.batch; b++) for (int j = 0; j < x->c.keys; j++) for (int h = 0; h < x->c.kv_heads; h++) {
            bool kept = false;
            for (int g = h * share; g < (h + 1) * share; g++) kept = kept || keeps(x, t, b, g, query, j, list);
            const int64_t at = b * a->k.batch + h * a->k.head + j * a->k.row;
            for (int e = 0; e < x->c.head_dim; e++)
                if (!kept && (u[DK][at + e] != t[DK][at + e] || u[DV][at + e] != t[DV][at + e])) fail_msg("%s: query %d reaches key %d", describe(&x->c), query, j);
        }
        free(list);
        tensors_free(t);
        tensors_free(u);
    }
}

/* Causal: what lies past `used` and `sequences` is not computed, and does not matter. */
static void only_used_positions_and_sequences_are_computed(void **state)
{
    (void)state;
    for (int c = 0; c < CASES; c++) {
        const compiled *x = &all[c];
        const hd_attention *a = &x->a;
        if (!x->c.causal) continue;
        float **t = tensors_new(x, 5), **u = tensors_new(x, 5);
        const int used = x->c.queries * 2 / 3;
        for (int b = 0; b < x->c.batch; b++) for (int i = b ? 0 : used; i < x->c.queries; i++) for (int e = 0; e < x->c.head_dim; e++) {
            for (int h = 0; h < x->c.heads; h++) u[Q][b * a->q.batch + h * a->q.head + i * a->q.row + e] = NAN;
            for (int h = 0; h < x->c.kv_heads; h++) u[K][b * a->k.batch + h * a->k.head + i * a->k.row + e] = u[V][b * a->v.batch + h * a->v.head + i * a->v.row + e] = NAN;
        }
        run_kernels(x, t, 0, 0, false, 0);
        run_kernels(x, u, 1, used, false, 2);
        for (int b = 0; b < x->c.batch; b++) for (int h = 0; h < x->c.heads; h++) for (int i = 0; i < x->c.queries; i++) {
            const int64_t at = b * a->q.batch + h * a->q.head + i * a->q.row, row = ((int64_t)b * a->heads + h) * a->queries + i;
            const bool computed = b == 0 && i < used;
            if (u[LSE][row] != (computed ? t[LSE][row] : UNTOUCHED)) fail_msg("%s: used %d, lse of query %d", describe(&x->c), used, i);
            for (int e = 0; e < x->c.head_dim; e++)
                if (u[OUT][at + e] != (computed ? t[OUT][at + e] : UNTOUCHED)) fail_msg("%s: used %d, query %d", describe(&x->c), used, i);
        }
        tensors_free(t);
        tensors_free(u);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_and_gradients_are_those_of_the_definition),
        cmocka_unit_test(results_do_not_depend_on_threads_or_the_order_of_slots),
        cmocka_unit_test(a_key_outside_the_pattern_never_influences_a_query),
        cmocka_unit_test(only_used_positions_and_sequences_are_computed),
    };
    return cmocka_run_group_tests_name("edges", tests, prepare, NULL);
}
