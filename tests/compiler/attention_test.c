/* Attention kernels against a dense, masked reference in double precision.
 *
 * Every case becomes kernels by the same plan, templates and expander as a real model's. All of them go into a few shared
 * objects, made side by side by clang (CC names another compiler), are loaded and run, and out, lse, dq, dk, dv compared.
 * HD_ATTENTION_CASES=n adds n random cases, from the seed HD_SEED or a fixed one; a failure names the case completely. */
#include "../../compiler/emit/attention.h"
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

/* Patterns, written short. */
static const hd_pattern *node(hd_pattern_kind kind, int64_t left, int64_t right, int64_t stride, const hd_pattern *a, const hd_pattern *b)
{
    hd_pattern *p = HD_NEW(hd_pattern);
    *p = (hd_pattern){ .kind = kind, .left = left, .right = right, .stride = stride, .a = a, .b = b };
    return p;
}
static const hd_pattern *full(void) { return node(HD_PATTERN_FULL, 0, 0, 0, NULL, NULL); }
static const hd_pattern *causal(void) { return node(HD_PATTERN_CAUSAL, 0, 0, 0, NULL, NULL); }
static const hd_pattern *window(int64_t left, int64_t right) { return node(HD_PATTERN_WINDOW, left, right, 0, NULL, NULL); }
static const hd_pattern *stride(int64_t s) { return node(HD_PATTERN_STRIDE, 0, 0, s, NULL, NULL); }
static const hd_pattern *and(const hd_pattern *a, const hd_pattern *b) { return node(HD_PATTERN_AND, 0, 0, 0, a, b); }
static const hd_pattern *or(const hd_pattern *a, const hd_pattern *b) { return node(HD_PATTERN_OR, 0, 0, 0, a, b); }
static const hd_pattern *minus(const hd_pattern *a, const hd_pattern *b) { return node(HD_PATTERN_MINUS, 0, 0, 0, a, b); }

enum { FULL, CAUSAL, WINDOW, STRIDED, STRIDE_ONLY, DILATED, HOLE, BOTH_WAYS, NEVER, PAST, PATTERNS };
static const hd_pattern *pattern_of(int which, int w)
{
    switch (which) {
    case FULL:        return full();
    case CAUSAL:      return causal();
    case WINDOW:      return and(causal(), window(w - 1, 0));
    case STRIDED:     return and(causal(), or(window(w - 1, 0), stride(w)));
    case STRIDE_ONLY: return and(causal(), stride(w));
    case DILATED:     return and(window(4 * w, 0), stride(w));
    case HOLE:        return minus(and(causal(), window(4 * w, 0)), stride(w));         /* the query's own key is not kept */
    case BOTH_WAYS:   return or(window(w, w / 2), stride(2 * w));
    case NEVER:       return minus(window(3, 0), window(3, 0));
    default:          return and(causal(), minus(full(), window(w, w)));                /* first rows keep nothing */
    }
}
static const char *const pattern_name[PATTERNS] = { "full", "causal", "window", "strided", "stride", "dilated", "hole", "both ways", "never", "past" };

enum { BATCH = 2 };
typedef struct test_case {
    int pattern, other;        /* other: the pattern of odd heads, or the same */
    int w, queries, keys, heads, kv_heads, head_dim;
    bool heads_first;          /* [batch][heads][n][head_dim]; else slices of one [batch][n][3 widths] */
    bool cut_heads;            /* batch 1 and few heads: several phases */
} test_case;

static const test_case cases[] = {
    { FULL,        FULL,        0,   1,   1, 4, 4, 16, true,  false },
    { CAUSAL,      CAUSAL,      0,   2,   2, 4, 4,  1, true,  false },
    { STRIDED,     STRIDED,     2,   3,   3, 4, 4,  5, false, false },
    { CAUSAL,      CAUSAL,      0,  17,  17, 4, 2, 20, false, false },
    { WINDOW,      WINDOW,      5,  31,  31, 4, 4, 33, true,  false },
    { STRIDED,     STRIDED,     8,  33,  33, 4, 1, 32, false, false },
    { STRIDE_ONLY, STRIDE_ONLY, 7, 127, 127, 4, 4, 16, true,  false },
    { DILATED,     DILATED,     3, 130, 130, 4, 4, 48, false, false },
    { HOLE,        HOLE,        4, 127, 127, 4, 2, 40, true,  false },
    { BOTH_WAYS,   BOTH_WAYS,   9, 130, 130, 4, 4, 24, false, false },
    { NEVER,       NEVER,       1,  17,  17, 4, 4, 16, true,  false },
    { PAST,        PAST,       20,  65,  65, 4, 4, 64, false, false },
    { FULL,        FULL,        0,  31, 130, 4, 4, 64, true,  false },
    { BOTH_WAYS,   BOTH_WAYS,  12, 127,  33, 4, 2, 16, false, false },
    { CAUSAL,      WINDOW,     16,  97,  97, 4, 4, 32, false, false },
    { STRIDED,     CAUSAL,     11, 130, 130, 8, 4, 32, true,  false },
    { CAUSAL,      CAUSAL,      0, 300, 300, 1, 1, 64, true,  true  },
    { STRIDED,     STRIDED,    16, 257, 257, 2, 1, 32, false, true  },
    { STRIDED,     WINDOW,     10, 190, 190, 2, 2, 20, true,  true  },
    { FULL,        FULL,        0,   3,  70, 1, 1,  7, true,  true  },
    { STRIDED,     STRIDED,    32, 256, 256, 4, 4, 48, false, false },
    { WINDOW,      WINDOW,    200, 517, 517, 4, 4, 64, true,  false },
    { STRIDED,     STRIDED,    40, 500, 500, 2, 1, 32, true,  true  },
    { STRIDE_ONLY, STRIDE_ONLY, 19, 300, 257, 2, 2, 16, true, true  },
};
enum { CASES = sizeof cases / sizeof *cases, SHARED_OBJECTS = 2, MAX_PHASES = 8 };

typedef void forward_kernel(const hd_run *, int, int, const float *, const float *, const float *, float *, float *, float *);
typedef void backward_kernel(const hd_run *, const float *, const float *, const float *, const float *, const float *, const float *, float *, float *, float *, float *);

typedef struct compiled {
    test_case c;
    const hd_pattern *pattern[2];
    hd_attention shape;
    hd_attention_plan forward, backward;
    hd_kernel *forward_kernel[MAX_PHASES], *backward_kernel[MAX_PHASES];
    forward_kernel *forward_call[MAX_PHASES];
    backward_kernel *backward_call[MAX_PHASES];
    int64_t q_size, k_size, local_bytes;      /* elements of a tensor's memory */
} compiled;

static char *describe(const test_case *c)
{
    return hd_format("%s/%s w=%d queries=%d keys=%d heads=%d/%d head_dim=%d%s%s", pattern_name[c->pattern], pattern_name[c->other], c->w, c->queries, c->keys,
                     c->heads, c->kv_heads, c->head_dim, c->heads_first ? " heads first" : "", c->cut_heads ? " cut heads" : "");
}

static void plan_case(compiled *x, const test_case *c, hd_kernels *set)
{
    x->c = *c;
    const int64_t batch = c->cut_heads ? 1 : BATCH, d = c->head_dim;
    x->pattern[0] = pattern_of(c->pattern, c->w), x->pattern[1] = pattern_of(c->other, c->w);
    const hd_cover **cover = (const hd_cover **)HD_NEW_ARRAY(hd_cover *, 2);
    int *of_head = HD_NEW_ARRAY(int, c->heads);
    cover[0] = hd_cover_make(x->pattern[0], c->queries, c->keys);
    cover[1] = hd_cover_make(x->pattern[1], c->queries, c->keys);
    for (int h = 0; h < c->heads; h++) of_head[h] = h % 2;
    hd_attention_strides q, k;
    if (c->heads_first) {
        q = (hd_attention_strides){ c->heads * c->queries * d, c->queries * d, d };
        k = (hd_attention_strides){ c->kv_heads * c->keys * d, c->keys * d, d };
    } else {
        const int64_t q_width = c->heads * d + 3, k_width = 2 * c->kv_heads * d;
        q = (hd_attention_strides){ c->queries * q_width, d, q_width };
        k = (hd_attention_strides){ c->keys * k_width, d, k_width };
    }
    x->q_size = batch * q.batch, x->k_size = batch * k.batch;
    x->shape = (hd_attention){ .batch = batch, .heads = c->heads, .kv_heads = c->kv_heads, .head_dim = d, .queries = c->queries, .keys = c->keys, .scale = 0.37,
                               .q = q, .k = k, .v = k, .out = q, .dout = q, .dq = q, .dk = k, .dv = k,
                               .covers = c->pattern == c->other ? 1 : 2, .cover = cover, .cover_of_head = c->pattern == c->other ? NULL : of_head };
    /* the kernels of tiles and of rows, also where others would be chosen: those have tests of their own */
    bool listed = false;
    double cost;
    for (int i = 0; i < x->shape.covers; i++) listed = listed || x->shape.cover[i]->rows;
    x->forward = listed ? hd_attention_rows(&x->shape, set->target, false, &cost) : hd_attention_tiles(&x->shape, set->target, false, &cost);
    x->backward = listed ? hd_attention_rows(&x->shape, set->target, true, &cost) : hd_attention_tiles(&x->shape, set->target, true, &cost);
    assert_true(x->forward.phases <= MAX_PHASES && x->backward.phases <= MAX_PHASES);
    for (int i = 0; i < x->forward.phases; i++) {
        hd_attention_phase *p = &x->forward.phase[i];
        x->forward_kernel[i] = hd_kernel_get(set, p->template_name, p->coordinates, x->forward.signature, p->parameters, p->local_bytes, (hd_where){ 0 });
        if (p->local_bytes > x->local_bytes) x->local_bytes = p->local_bytes;
    }
    for (int i = 0; i < x->backward.phases; i++) {
        hd_attention_phase *p = &x->backward.phase[i];
        x->backward_kernel[i] = hd_kernel_get(set, p->template_name, p->coordinates, x->backward.signature, p->parameters, p->local_bytes, (hd_where){ 0 });
        if (p->local_bytes > x->local_bytes) x->local_bytes = p->local_bytes;
    }
}

/* Compiles the set into shared objects and opens them; the temporary folder is removed again. */
static void **build(const hd_kernels *set, const char *optimise)
{
    void **handle = HD_NEW_ARRAY(void *, SHARED_OBJECTS);
    char folder[] = "/tmp/hd_attention_XXXXXX";
    assert_non_null(mkdtemp(folder));
    hd_expander *expander = hd_expander_new("templates", "compiler/emit");
    const char *cc = getenv("HD_TEST_CC") ? getenv("HD_TEST_CC") : "clang";
    pid_t pid[SHARED_OBJECTS];
    for (int i = 0; i < SHARED_OBJECTS; i++) {
        hd_text text = { 0 };
        hd_text_add(&text, "#define HD_VL %d\n#include \"hd_core.h\"\n#include \"hd_vec.h\"\n", set->target->vl);
        for (int j = i; j < set->count; j += SHARED_OBJECTS) {
            const char *kernel = hd_kernel_text(expander, set, set->kernel[j]);
            hd_text_addn(&text, kernel, strlen(kernel));
        }
        hd_write_file(hd_format("%s/%d.c", folder, i), text.data, text.length);
        char *argv[24] = { (char *)cc, (char *)optimise, "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared", "-Iruntime/core", "-o",
                           hd_format("%s/%d.so", folder, i), hd_format("%s/%d.c", folder, i) };
        int argc = 13;
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
    rmdir(folder);
    return handle;
}

static void *find(void **handle, const char *name)
{
    for (int i = 0; i < SHARED_OBJECTS; i++) {
        void *symbol = dlsym(handle[i], name);
        if (symbol) return symbol;
    }
    fail_msg("no kernel %s", name);
    return NULL;
}

/* Three "threads" that take the slots from the last to the first. */
static void backwards(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    ++*(int *)context;
    for (int slot = slots - 1; slot >= 0; slot--) task(argument, slot, slot % 3);
}

static uint64_t random_state = 1;
static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 40) / (1 << 24) - 0.5;
}

typedef struct tensors { float *q, *k, *v, *dout, *out, *lse, *dq, *dk, *dv; } tensors;

static float *random_floats(int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(4 * uniform());
    return x;
}
static float *filled(int64_t n, float value)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = value;
    return x;
}
static const float UNTOUCHED = 12345.0f;

static tensors tensors_new(const compiled *x)
{
    const int64_t rows = x->shape.batch * x->c.heads * x->c.queries;
    return (tensors){ random_floats(x->q_size), random_floats(x->k_size), random_floats(x->k_size), random_floats(x->q_size),
                      filled(x->q_size, UNTOUCHED), filled(rows, UNTOUCHED), filled(x->q_size, UNTOUCHED), filled(x->k_size, UNTOUCHED), filled(x->k_size, UNTOUCHED) };
}
static void tensors_free(tensors *t)
{
    free(t->q); free(t->k); free(t->v); free(t->dout); free(t->out); free(t->lse); free(t->dq); free(t->dk); free(t->dv);
}

static void run_kernels(const compiled *x, tensors *t, int sequences, int used, bool gradients, bool with_threads)
{
    int calls = 0;
    hd_threads threads = { &calls, 3, backwards };
    hd_run run = { with_threads ? &threads : NULL, NULL, (size_t)(x->local_bytes + 63) / 64 * 64 };
    run.local = aligned_alloc(64, 3 * run.local_bytes);
    memset(run.local, 0xff, 3 * run.local_bytes);                         /* NaN: nothing may be read before it was written */
    float *merge = x->forward.merge_bytes ? filled(x->forward.merge_bytes / 4, NAN) : NULL;
    for (int i = 0; i < x->forward.phases; i++) x->forward_call[i](&run, sequences, used, t->q, t->k, t->v, t->out, t->lse, merge);
    if (with_threads) assert_int_equal(calls, x->forward.phases);
    for (int i = 0; gradients && i < x->backward.phases; i++)
        x->backward_call[i](&run, t->q, t->k, t->v, t->out, t->lse, t->dout, t->dq, t->dk, t->dv, NULL);
    free(merge);
    free(run.local);
}

/* The definition, for one sequence and head; gradients are added. All in double precision. */
typedef struct reference { double *out, *lse, *dq, *dk, *dv; } reference;

static void attend(const compiled *x, const tensors *t, int64_t b, int h, reference *r)
{
    const hd_attention *a = &x->shape;
    const int d = x->c.head_dim;
    const hd_pattern *pattern = x->pattern[a->covers > 1 ? h % 2 : 0];
    const int64_t kv = h / (a->heads / a->kv_heads);
    double *p = malloc((size_t)a->keys * sizeof *p);
    for (int64_t i = 0; i < a->queries; i++) {
        const int64_t at = b * a->q.batch + h * a->q.head + i * a->q.row;
        double max = -INFINITY, sum = 0;
        for (int64_t j = 0; j < a->keys; j++) {
            if (!hd_pattern_keeps(pattern, i, j)) continue;
            const float *k = t->k + b * a->k.batch + kv * a->k.head + j * a->k.row;
            p[j] = 0;
            for (int e = 0; e < d; e++) p[j] += a->scale * t->q[at + e] * k[e];
            max = fmax(max, p[j]);
        }
        for (int64_t j = 0; j < a->keys; j++) if (hd_pattern_keeps(pattern, i, j)) sum += p[j] = exp(p[j] - max);
        r->lse[(b * a->heads + h) * a->queries + i] = max + log(sum);
        for (int e = 0; e < d; e++) r->out[at + e] = 0, r->dq[at + e] = 0;
        double dot = 0;
        for (int64_t j = 0; j < a->keys; j++) {
            if (!hd_pattern_keeps(pattern, i, j)) continue;
            const float *v = t->v + b * a->v.batch + kv * a->v.head + j * a->v.row;
            p[j] /= sum;
            for (int e = 0; e < d; e++) r->out[at + e] += p[j] * v[e];
        }
        for (int e = 0; e < d; e++) dot += t->dout[at + e] * r->out[at + e];
        for (int64_t j = 0; j < a->keys; j++) {
            if (!hd_pattern_keeps(pattern, i, j)) continue;
            const int64_t key = b * a->k.batch + kv * a->k.head + j * a->k.row;
            double dp = 0;
            for (int e = 0; e < d; e++) dp += t->dout[at + e] * t->v[key + e];
            const double ds = p[j] * (dp - dot) * a->scale;
            for (int e = 0; e < d; e++) {
                r->dv[key + e] += p[j] * t->dout[at + e];
                r->dk[key + e] += ds * t->q[at + e];
                r->dq[at + e] += ds * t->k[key + e];
            }
        }
    }
    free(p);
}

/* Elements that belong to no head of a tensor are NaN in the reference: the kernel must leave them alone. */
static double *nothing(int64_t n)
{
    double *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = NAN;
    return x;
}
static void zero_rows(const hd_attention *a, hd_attention_strides s, int64_t heads, int64_t n, double *x)
{
    for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < heads; h++) for (int64_t i = 0; i < n; i++)
        memset(x + b * s.batch + h * s.head + i * s.row, 0, (size_t)a->head_dim * sizeof *x);
}
static reference reference_new(const compiled *x, const tensors *t)
{
    const hd_attention *a = &x->shape;
    reference r = { nothing(x->q_size), nothing(a->batch * a->heads * a->queries), nothing(x->q_size), nothing(x->k_size), nothing(x->k_size) };
    zero_rows(a, a->k, a->kv_heads, a->keys, r.dk);
    zero_rows(a, a->k, a->kv_heads, a->keys, r.dv);
    for (int64_t b = 0; b < a->batch; b++) for (int h = 0; h < a->heads; h++) attend(x, t, b, h, &r);
    return r;
}
static void reference_free(reference *r) { free(r->out); free(r->lse); free(r->dq); free(r->dk); free(r->dv); }

/* Rounding of f32 sums of a few hundred products, relative to the largest value of the tensor: as the goldens ask. */
static const double TOLERANCE = 2e-5;

static void compare(const compiled *x, const char *what, const float *got, const double *want, int64_t n)
{
    double largest = 0.1;      /* gradients may vanish: rounding of terms about 1 remains */
    for (int64_t i = 0; i < n; i++) if (isfinite(want[i]) && fabs(want[i]) > largest) largest = fabs(want[i]);
    for (int64_t i = 0; i < n; i++) {
        if (isnan(want[i]) ? got[i] == UNTOUCHED : isinf(want[i]) ? got[i] == want[i] : fabs(got[i] - want[i]) <= TOLERANCE * largest) continue;
        fail_msg("%s: %s[%lld] is %.9g, should be %.9g (largest %.3g)", describe(&x->c), what, (long long)i, got[i], want[i], largest);
    }
}

static compiled *all;
static int all_count;

static void outputs_and_gradients_are_those_of_the_dense_masked_reference(void **state)
{
    (void)state;
    for (int i = 0; i < all_count; i++) {
        compiled *x = &all[i];
        tensors t = tensors_new(x);
        run_kernels(x, &t, 0, 0, true, false);
        reference r = reference_new(x, &t);
        compare(x, "out", t.out, r.out, x->q_size);
        compare(x, "lse", t.lse, r.lse, x->shape.batch * x->c.heads * x->c.queries);
        compare(x, "dq", t.dq, r.dq, x->q_size);
        compare(x, "dk", t.dk, r.dk, x->k_size);
        compare(x, "dv", t.dv, r.dv, x->k_size);
        reference_free(&r);
        tensors_free(&t);
    }
}

static void results_do_not_depend_on_the_order_of_slots(void **state)
{
    (void)state;
    for (int i = 0; i < all_count; i++) {
        compiled *x = &all[i];
        random_state = 7;
        tensors t = tensors_new(x);
        random_state = 7;
        tensors u = tensors_new(x);
        run_kernels(x, &t, 0, 0, true, false);
        run_kernels(x, &u, 0, 0, true, true);
        const size_t q = (size_t)x->q_size * 4, k = (size_t)x->k_size * 4;
        if (memcmp(t.out, u.out, q) || memcmp(t.dq, u.dq, q) || memcmp(t.dk, u.dk, k) || memcmp(t.dv, u.dv, k)) fail_msg("%s", describe(&x->c));
        tensors_free(&t);
        tensors_free(&u);
    }
}

/* One key becomes NaN in k and v: queries that do not keep it give the same bits as before; likewise a query of NaN and
 * the keys it does not keep. */
static void a_key_outside_the_pattern_never_influences_a_query(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        compiled *x = &all[n];
        const hd_attention *a = &x->shape;
        if (a->covers > 1) continue;
        random_state = 3;
        tensors t = tensors_new(x);
        random_state = 3;
        tensors u = tensors_new(x);
        const int64_t key = a->keys / 3, query = a->queries * 2 / 3;
        for (int64_t b = 0; b < a->batch; b++) {
            for (int64_t h = 0; h < a->kv_heads; h++) for (int e = 0; e < a->head_dim; e++) {
                u.k[b * a->k.batch + h * a->k.head + key * a->k.row + e] = NAN;
                u.v[b * a->v.batch + h * a->v.head + key * a->v.row + e] = e % 2 ? INFINITY : NAN;
            }
        }
        run_kernels(x, &t, 0, 0, true, false);
        run_kernels(x, &u, 0, 0, true, false);
        for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < a->heads; h++) for (int64_t i = 0; i < a->queries; i++) {
            const int64_t at = b * a->q.batch + h * a->q.head + i * a->q.row;
            for (int e = 0; e < a->head_dim; e++) {
                if (hd_pattern_keeps(x->pattern[0], i, key)) assert_true(isnan(u.out[at + e]));
                else if (fabsf(u.out[at + e] - t.out[at + e]) > 1e-5f || !(fabsf(u.dq[at + e] - t.dq[at + e]) <= 1e-4f))
                    fail_msg("%s: key %d reaches query %d (%g, %g)", describe(&x->c), (int)key, (int)i, u.out[at + e], u.dq[at + e]);
            }
        }
        /* dk and dv of a key depend only on the queries that keep it. */
        memcpy(u.k, t.k, (size_t)x->k_size * 4);
        memcpy(u.v, t.v, (size_t)x->k_size * 4);
        for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < a->heads; h++) for (int e = 0; e < a->head_dim; e++) {
            u.q[b * a->q.batch + h * a->q.head + query * a->q.row + e] = NAN;
            u.dout[b * a->q.batch + h * a->q.head + query * a->q.row + e] = INFINITY;
        }
        run_kernels(x, &u, 0, 0, true, false);
        for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < a->kv_heads; h++) for (int64_t j = 0; j < a->keys; j++) {
            const int64_t at = b * a->k.batch + h * a->k.head + j * a->k.row;
            if (hd_pattern_keeps(x->pattern[0], query, j)) continue;
            for (int e = 0; e < a->head_dim; e++)
                if (!(fabsf(u.dk[at + e] - t.dk[at + e]) <= 1e-3f) || !(fabsf(u.dv[at + e] - t.dv[at + e]) <= 1e-3f))
                    fail_msg("%s: query %d reaches key %d", describe(&x->c), (int)query, (int)j);
        }
        tensors_free(&t);
        tensors_free(&u);
    }
}

/* What lies past `used` and `sequences` is neither computed nor read: it is NaN here. */
static void only_used_positions_and_sequences_are_computed(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        compiled *x = &all[n];
        const hd_attention *a = &x->shape;
        if (!hd_pattern_causal(x->pattern[0], a->queries, a->keys) || !hd_pattern_causal(x->pattern[1], a->queries, a->keys) || a->queries < 3) continue;
        random_state = 5;
        tensors t = tensors_new(x);
        random_state = 5;
        tensors u = tensors_new(x);
        const int used = (int)a->queries * 2 / 3;
        for (int64_t b = 0; b < a->batch; b++) {
            for (int64_t i = b == 0 ? used : 0; i < a->queries; i++) for (int64_t h = 0; h < a->heads; h++)
                for (int e = 0; e < a->head_dim; e++) u.q[b * a->q.batch + h * a->q.head + i * a->q.row + e] = NAN;
            for (int64_t j = b == 0 ? used : 0; j < a->keys; j++) for (int64_t h = 0; h < a->kv_heads; h++)
                for (int e = 0; e < a->head_dim; e++) {
                    u.k[b * a->k.batch + h * a->k.head + j * a->k.row + e] = NAN;
                    u.v[b * a->v.batch + h * a->v.head + j * a->v.row + e] = NAN;
                }
        }
        run_kernels(x, &t, 0, 0, false, false);
        run_kernels(x, &u, 1, used, false, true);
        for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < a->heads; h++) for (int64_t i = 0; i < a->queries; i++)
            for (int e = 0; e < a->head_dim; e++) {
                const int64_t at = b * a->q.batch + h * a->q.head + i * a->q.row + e;
                if (b > 0 || i >= used ? u.out[at] != UNTOUCHED : fabsf(u.out[at] - t.out[at]) > 1e-5f)
                    fail_msg("%s: used %d, query %d: %g, should be %g", describe(&x->c), used, (int)i, u.out[at], t.out[at]);
            }
        tensors_free(&t);
        tensors_free(&u);
    }
}

static int random_below(int n) { return (int)((uniform() + 0.5) * n); }
static test_case random_case(void)
{
    static const int dims[] = { 1, 3, 8, 16, 17, 24, 32, 48, 64, 96 };
    test_case c = { random_below(PATTERNS), 0, 1 + random_below(40), 1 + random_below(200), 0, 1, 1, dims[random_below(10)], random_below(2), random_below(3) == 0 };
    c.other = random_below(3) ? c.pattern : random_below(PATTERNS);
    c.keys = random_below(3) ? c.queries : 1 + random_below(200);
    c.kv_heads = c.cut_heads ? 1 + random_below(2) : 4;
    c.heads = c.kv_heads * (1 + random_below(2));
    return c;
}

static void prepare(const char *target, const char *optimise, int random)
{
    hd_kernels set = { .prefix = "t", .target = hd_target_find(target) };
    assert_non_null(set.target);
    all_count = CASES + random;
    all = HD_NEW_ARRAY(compiled, all_count);
    for (int i = 0; i < all_count; i++) {
        test_case c = i < CASES ? cases[i] : random_case();
        plan_case(&all[i], &c, &set);
    }
    void **handle = build(&set, optimise);
    for (int i = 0; i < all_count; i++) {
        for (int j = 0; j < all[i].forward.phases; j++) *(void **)&all[i].forward_call[j] = find(handle, all[i].forward_kernel[j]->name);
        for (int j = 0; j < all[i].backward.phases; j++) *(void **)&all[i].backward_call[j] = find(handle, all[i].backward_kernel[j]->name);
    }
}

static int prepare_native(void **state)
{
    (void)state;
    const char *extra = getenv("HD_ATTENTION_CASES"), *seed = getenv("HD_SEED"), *target = getenv("HD_TEST_TARGET"), *optimise = getenv("HD_TEST_O");
    random_state = seed ? strtoull(seed, NULL, 10) : 20;
    prepare(target ? target : "native", optimise ? optimise : "-O1", extra ? atoi(extra) : 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_and_gradients_are_those_of_the_dense_masked_reference),
        cmocka_unit_test(results_do_not_depend_on_the_order_of_slots),
        cmocka_unit_test(a_key_outside_the_pattern_never_influences_a_query),
        cmocka_unit_test(only_used_positions_and_sequences_are_computed),
    };
    return cmocka_run_group_tests_name("attention", tests, prepare_native, NULL);
}
