/* Stencil attention kernels against a dense, masked reference in double precision, for vectors of 4, 8 and 16 as far as this processor
 * has them (all cases for the widest, half of them for each other). Neighbourhoods on grids of odd sizes, windows, lengths of a few positions, heads cut into parts, shared key heads. */
#include "../../compiler/emit/attention_stencil.h"
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

static const hd_pattern *node(hd_pattern p)
{
    hd_pattern *made = HD_NEW(hd_pattern);
    *made = p;
    return made;
}
static const hd_pattern *window(int64_t left, int64_t right) { return node((hd_pattern){ .kind = HD_PATTERN_WINDOW, .left = left, .right = right }); }
static const hd_pattern *and(const hd_pattern *a, const hd_pattern *b) { return node((hd_pattern){ .kind = HD_PATTERN_AND, .a = a, .b = b }); }
static const hd_pattern *minus(const hd_pattern *a, const hd_pattern *b) { return node((hd_pattern){ .kind = HD_PATTERN_MINUS, .a = a, .b = b }); }
static const hd_pattern *grid(hd_axis y, hd_axis x)
{
    hd_grid *g = HD_NEW(hd_grid);
    *g = (hd_grid){ .axes = 2, .axis = { y, x } };
    return node((hd_pattern){ .kind = HD_PATTERN_GRID, .grid = g });
}
static hd_axis clamped(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, bool causal)
{
    return (hd_axis){ .kind = HD_AXIS_CLAMPED, .causal = causal, .size = size, .kernel = kernel, .stride = stride, .dilation = dilation };
}
static hd_axis around(int64_t size, int64_t left, int64_t right, int64_t dilation)
{
    return (hd_axis){ .kind = HD_AXIS_WINDOW, .size = size, .left = left, .right = right, .dilation = dilation };
}

enum { NATTEN, NATTEN_CAUSAL, NATTEN_DILATED, NATTEN_STRIDED, NATTEN_LARGE, GRID_WINDOW, WINDOW_BACK, WINDOW_BOTH, HOLE, NEVER, PATTERNS };
static const char *const pattern_name[PATTERNS] = { "natten", "natten causal", "natten dilated", "natten strided", "natten 32x32", "grid window", "window back", "window both ways", "hole", "never" };
static const hd_pattern *pattern_of(int which)
{
    switch (which) {
    case NATTEN:         return grid(clamped(9, 3, 1, 1, false), clamped(21, 5, 1, 1, false));
    case NATTEN_CAUSAL:  return grid(clamped(11, 3, 1, 1, true), clamped(17, 3, 1, 1, false));
    case NATTEN_DILATED: return grid(clamped(12, 3, 1, 2, false), clamped(19, 3, 1, 3, false));
    case NATTEN_STRIDED: return grid(clamped(10, 4, 2, 1, false), clamped(18, 5, 3, 1, false));
    case NATTEN_LARGE:   return grid(clamped(32, 7, 1, 1, false), clamped(32, 7, 1, 1, false));
    case GRID_WINDOW:    return grid(around(7, 1, 1, 1), around(23, 2, 1, 1));
    case WINDOW_BACK:    return window(11, 0);
    case WINDOW_BOTH:    return window(6, 9);
    case HOLE:           return minus(window(9, 4), window(2, 1));
    default:             return minus(window(3, 0), window(3, 0));
    }
}

typedef struct test_case {
    int pattern, other;        /* other: the pattern of odd heads, or the same */
    int queries, keys, batch, heads, kv_heads, head_dim;
    bool heads_first;          /* [batch][heads][n][head_dim]; else slices of wider rows */
    bool sinks;
} test_case;

static const test_case cases[] = {
    { NATTEN,         NATTEN,         189, 189, 2, 4, 4, 32, true,  false },
    { NATTEN,         NATTEN,         189, 189, 1, 2, 1,  8, false, false },
    { NATTEN_CAUSAL,  NATTEN_CAUSAL,  187, 187, 2, 4, 2, 33, false, false },
    { NATTEN_DILATED, NATTEN_DILATED, 228, 228, 1, 1, 1, 32, true,  true  },
    { NATTEN_STRIDED, NATTEN_STRIDED, 180, 180, 2, 4, 4,  1, true,  false },
    { NATTEN_LARGE,   NATTEN_LARGE,  1024, 1024, 1, 8, 8, 32, false, false },
    { GRID_WINDOW,    GRID_WINDOW,    161, 161, 1, 3, 3, 16, true,  true  },
    { WINDOW_BACK,    WINDOW_BACK,      1,   1, 2, 4, 4,  8, true,  false },
    { WINDOW_BACK,    WINDOW_BACK,      2,   2, 1, 2, 2, 32, false, false },
    { WINDOW_BOTH,    WINDOW_BOTH,      3,   3, 2, 4, 4, 33, true,  false },
    { WINDOW_BOTH,    WINDOW_BOTH,     17,  17, 2, 4, 1,  1, false, false },
    { WINDOW_BACK,    WINDOW_BACK,     61,  61, 2, 4, 4, 20, false, true  },
    { WINDOW_BACK,    WINDOW_BOTH,    300, 300, 2, 4, 4, 32, true,  false },
    { WINDOW_BACK,    HOLE,           333, 333, 1, 4, 2, 24, true,  false },
    { WINDOW_BOTH,    WINDOW_BOTH,   1500, 1500, 1, 1, 1, 16, true, false },
    { HOLE,           HOLE,           130,  61, 2, 4, 4, 16, true,  false },
    { WINDOW_BOTH,    WINDOW_BOTH,     61, 130, 1, 2, 2, 40, false, false },
    { NEVER,          NEVER,           17,  17, 2, 4, 4, 16, true,  false },
};
enum { CASES = sizeof cases / sizeof *cases, SHARED_OBJECTS = 2 };

typedef void forward_kernel(const hd_run *, int, int, const float *, const float *, const float *, float *, float *, float *);
typedef void forward_sinks_kernel(const hd_run *, int, int, const float *, const float *, const float *, const float *, float *, float *, float *);
typedef void backward_kernel(const hd_run *, const float *, const float *, const float *, const float *, const float *, const float *, float *, float *, float *, float *);

typedef struct compiled {
    test_case c;
    const char *target;
    const hd_pattern *pattern[2];
    hd_attention shape;
    hd_kernel *forward_kernel, *backward_kernel;
    forward_kernel *forward;
    forward_sinks_kernel *forward_sinks;
    backward_kernel *backward;
    int64_t q_size, k_size, local_bytes;      /* elements of a tensor's memory */
} compiled;

static char *describe(const compiled *x)
{
    const test_case *c = &x->c;
    return hd_format("%s: %s/%s queries=%d keys=%d heads=%d/%d head_dim=%d%s%s", x->target, pattern_name[c->pattern], pattern_name[c->other], c->queries, c->keys,
                     c->heads, c->kv_heads, c->head_dim, c->heads_first ? " heads first" : "", c->sinks ? " sinks" : "");
}

static void plan_case(compiled *x, const test_case *c, hd_kernels *set)
{
    x->c = *c;
    x->target = set->target->name;
    const int64_t d = c->head_dim;
    const hd_cover **cover = (const hd_cover **)HD_NEW_ARRAY(hd_cover *, 2);
    int *of_head = HD_NEW_ARRAY(int, c->heads);
    x->pattern[0] = pattern_of(c->pattern), x->pattern[1] = pattern_of(c->other);
    for (int i = 0; i < 2; i++) cover[i] = hd_cover_make(x->pattern[i], c->queries, c->keys);
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
    x->q_size = c->batch * q.batch, x->k_size = c->batch * k.batch;
    x->shape = (hd_attention){ .batch = c->batch, .heads = c->heads, .kv_heads = c->kv_heads, .head_dim = d, .queries = c->queries, .keys = c->keys, .scale = 0.37,
                               .with = c->sinks ? HD_WITH_SINKS : 0, .q = q, .k = k, .v = k, .out = q, .dout = q, .dq = q, .dk = k, .dv = k,
                               .covers = c->pattern == c->other ? 1 : 2, .cover = cover, .cover_of_head = c->pattern == c->other ? NULL : of_head };
    for (int backward = 0; backward < 2; backward++) {
        if (!(hd_attention_stencil_cost(&x->shape, set->target, backward) > 0)) fail_msg("%s: refused", describe(x));
        const hd_attention_plan plan = hd_attention_stencil(&x->shape, set->target, backward);
        assert_int_equal(plan.phases, 1);
        hd_kernel *kernel = hd_kernel_get(set, plan.phase->template_name, plan.phase->coordinates, plan.signature, plan.phase->parameters, plan.phase->local_bytes, (hd_where){ 0 });
        *(backward ? &x->backward_kernel : &x->forward_kernel) = kernel;
        if (plan.phase->local_bytes > x->local_bytes) x->local_bytes = plan.phase->local_bytes;
    }
}

/* Compiles the set into shared objects and opens them; the temporary folder is removed again. */
static void **build(const hd_kernels *set)
{
    void **handle = HD_NEW_ARRAY(void *, SHARED_OBJECTS);
    char folder[] = "/tmp/hd_stencil_XXXXXX";
    assert_non_null(mkdtemp(folder));
    hd_expander *expander = hd_expander_new("templates", "compiler/emit");
    const char *cc = getenv("HD_TEST_CC") ? getenv("HD_TEST_CC") : "clang", *optimise = getenv("HD_TEST_O") ? getenv("HD_TEST_O") : "-O1";
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
    (void)context;
    for (int slot = slots - 1; slot >= 0; slot--) task(argument, slot, slot % 3);
}

static uint64_t random_state = 1;
static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 40) / (1 << 24) - 0.5;
}

typedef struct tensors { float *q, *k, *v, *dout, *sinks, *out, *lse, *dq, *dk, *dv; } tensors;
static const float UNTOUCHED = 12345.0f;

static float *floats(int64_t n, bool random)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = random ? (float)(4 * uniform()) : UNTOUCHED;
    return x;
}
static tensors tensors_new(const compiled *x, uint64_t seed)
{
    random_state = seed;
    return (tensors){ floats(x->q_size, true), floats(x->k_size, true), floats(x->k_size, true), floats(x->q_size, true), floats(x->c.heads, true),
                      floats(x->q_size, false), floats(x->shape.batch * x->c.heads * x->c.queries, false), floats(x->q_size, false), floats(x->k_size, false), floats(x->k_size, false) };
}
static void tensors_free(tensors *t)
{
    free(t->q); free(t->k); free(t->v); free(t->dout); free(t->sinks); free(t->out); free(t->lse); free(t->dq); free(t->dk); free(t->dv);
}

static void run_kernels(const compiled *x, tensors *t, int sequences, int used, bool gradients, bool with_threads)
{
    hd_threads threads = { NULL, 3, backwards };
    hd_run run = { with_threads ? &threads : NULL, NULL, (size_t)(x->local_bytes + 63) / 64 * 64 };
    run.local = aligned_alloc(64, 3 * run.local_bytes);
    memset(run.local, 0xff, 3 * run.local_bytes);                         /* NaN: nothing may be read before it was written */
    if (x->c.sinks) x->forward_sinks(&run, sequences, used, t->q, t->k, t->v, t->sinks, t->out, t->lse, NULL);
    else x->forward(&run, sequences, used, t->q, t->k, t->v, t->out, t->lse, NULL);
    if (gradients) x->backward(&run, t->q, t->k, t->v, t->out, t->lse, t->dout, t->dq, t->dk, t->dv, NULL);
    free(run.local);
}

/* The definition, for one sequence and head; gradients are added. */
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
        double max = x->c.sinks ? t->sinks[h] : -INFINITY, sum = 0, dot = 0;
        for (int64_t j = 0; j < a->keys; j++) {
            if (!hd_pattern_keeps(pattern, i, j)) continue;
            const float *k = t->k + b * a->k.batch + kv * a->k.head + j * a->k.row;
            p[j] = 0;
            for (int e = 0; e < d; e++) p[j] += a->scale * t->q[at + e] * k[e];
            max = fmax(max, p[j]);
        }
        for (int64_t j = 0; j < a->keys; j++) if (hd_pattern_keeps(pattern, i, j)) sum += p[j] = exp(p[j] - max);
        if (x->c.sinks) sum += exp(t->sinks[h] - max);
        r->lse[(b * a->heads + h) * a->queries + i] = max + log(sum);
        for (int e = 0; e < d; e++) r->out[at + e] = 0, r->dq[at + e] = 0;
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

/* Rounding of f32 sums of a few hundred products, relative to the largest value of the tensor: as the goldens ask. */
static const double TOLERANCE = 2e-5;

static void compare(const compiled *x, const char *what, const float *got, const double *want, int64_t n)
{
    double largest = 0.1;      /* gradients may vanish: rounding of terms about 1 remains */
    for (int64_t i = 0; i < n; i++) if (isfinite(want[i]) && fabs(want[i]) > largest) largest = fabs(want[i]);
    for (int64_t i = 0; i < n; i++) {
        if (isnan(want[i]) ? got[i] == UNTOUCHED : isinf(want[i]) ? got[i] == want[i] : fabs(got[i] - want[i]) <= TOLERANCE * largest) continue;
        fail_msg("%s: %s[%lld] is %.9g, should be %.9g (largest %.3g)", describe(x), what, (long long)i, got[i], want[i], largest);
    }
}

static compiled *all;
static int all_count;

static void outputs_and_gradients_are_those_of_the_dense_masked_reference(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        const compiled *x = &all[n];
        const hd_attention *a = &x->shape;
        tensors t = tensors_new(x, 20);
        run_kernels(x, &t, 0, 0, true, false);
        reference r = { nothing(x->q_size), nothing(a->batch * a->heads * a->queries), nothing(x->q_size), nothing(x->k_size), nothing(x->k_size) };
        zero_rows(a, a->k, a->kv_heads, a->keys, r.dk);
        zero_rows(a, a->k, a->kv_heads, a->keys, r.dv);
        for (int64_t b = 0; b < a->batch; b++) for (int h = 0; h < a->heads; h++) attend(x, &t, b, h, &r);
        compare(x, "out", t.out, r.out, x->q_size);
        compare(x, "lse", t.lse, r.lse, a->batch * a->heads * a->queries);
        compare(x, "dq", t.dq, r.dq, x->q_size);
        compare(x, "dk", t.dk, r.dk, x->k_size);
        compare(x, "dv", t.dv, r.dv, x->k_size);
        free(r.out); free(r.lse); free(r.dq); free(r.dk); free(r.dv);
        tensors_free(&t);
    }
}

static void results_do_not_depend_on_the_order_of_slots(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        const compiled *x = &all[n];
        tensors t = tensors_new(x, 7), u = tensors_new(x, 7);
        run_kernels(x, &t, 0, 0, true, false);
        run_kernels(x, &u, 0, 0, true, true);
        const size_t q = (size_t)x->q_size * 4, k = (size_t)x->k_size * 4;
        if (memcmp(t.out, u.out, q) || memcmp(t.dq, u.dq, q) || memcmp(t.dk, u.dk, k) || memcmp(t.dv, u.dv, k)) fail_msg("%s", describe(x));
        tensors_free(&t);
        tensors_free(&u);
    }
}

static void same_where_not_kept(const compiled *x, const char *what, const float *got, const float *want, hd_attention_strides s, int64_t heads, int64_t n, int64_t other, bool other_is_key)
{
    const hd_attention *a = &x->shape;
    for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < heads; h++) for (int64_t i = 0; i < n; i++) {
        if (other_is_key ? hd_pattern_keeps(x->pattern[0], i, other) : hd_pattern_keeps(x->pattern[0], other, i)) continue;
        const int64_t at = b * s.batch + h * s.head + i * s.row;
        if (memcmp(got + at, want + at, (size_t)a->head_dim * 4)) fail_msg("%s: position %d reaches %s of %d", describe(x), (int)other, what, (int)i);
    }
}

/* One key becomes NaN and infinite: queries that do not keep it give the same bits as before; likewise a query, and the keys it does not keep. */
static void a_position_outside_the_pattern_never_influences_another(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        const compiled *x = &all[n];
        const hd_attention *a = &x->shape;
        if (a->covers > 1) continue;
        tensors t = tensors_new(x, 3), u = tensors_new(x, 3);
        const int64_t key = a->keys / 3, query = a->queries * 2 / 3;
        for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < a->kv_heads; h++) for (int e = 0; e < a->head_dim; e++) {
            u.k[b * a->k.batch + h * a->k.head + key * a->k.row + e] = NAN;
            u.v[b * a->v.batch + h * a->v.head + key * a->v.row + e] = e % 2 ? INFINITY : NAN;
        }
        run_kernels(x, &t, 0, 0, true, false);
        run_kernels(x, &u, 0, 0, true, false);
        same_where_not_kept(x, "out", u.out, t.out, a->out, a->heads, a->queries, key, true);
        same_where_not_kept(x, "dq", u.dq, t.dq, a->dq, a->heads, a->queries, key, true);
        for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < a->heads; h++) for (int64_t i = 0; i < a->queries; i++)
            if (hd_pattern_keeps(x->pattern[0], i, key)) assert_true(isnan(u.out[b * a->q.batch + h * a->q.head + i * a->q.row]));
        memcpy(u.k, t.k, (size_t)x->k_size * 4);
        memcpy(u.v, t.v, (size_t)x->k_size * 4);
        for (int64_t b = 0; b < a->batch; b++) for (int64_t h = 0; h < a->heads; h++) for (int e = 0; e < a->head_dim; e++) {
            u.q[b * a->q.batch + h * a->q.head + query * a->q.row + e] = NAN;
            u.dout[b * a->q.batch + h * a->q.head + query * a->q.row + e] = INFINITY;
        }
        run_kernels(x, &u, 0, 0, true, false);
        same_where_not_kept(x, "dk", u.dk, t.dk, a->dk, a->kv_heads, a->keys, query, false);
        same_where_not_kept(x, "dv", u.dv, t.dv, a->dv, a->kv_heads, a->keys, query, false);
        tensors_free(&t);
        tensors_free(&u);
    }
}

/* What lies past `used` and `sequences` is neither computed nor does it matter: it is NaN here. */
static void only_used_positions_and_sequences_are_computed(void **state)
{
    (void)state;
    for (int n = 0; n < all_count; n++) {
        const compiled *x = &all[n];
        const hd_attention *a = &x->shape;
        if (!hd_pattern_causal(x->pattern[0], a->queries, a->keys) || !hd_pattern_causal(x->pattern[1], a->queries, a->keys) || a->queries < 3) continue;
        tensors t = tensors_new(x, 5), u = tensors_new(x, 5);
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
                if (u.out[at] != (b > 0 || i >= used ? UNTOUCHED : t.out[at])) fail_msg("%s: used %d, query %d: %g, should be %g", describe(x), used, (int)i, u.out[at], t.out[at]);
            }
        tensors_free(&t);
        tensors_free(&u);
    }
}

static void what_differences_do_not_describe_is_refused(void **state)
{
    (void)state;
    const int64_t n = 4096, d = 32;
    const hd_attention_strides s = { n * d, n * d, d };
    hd_attention a = { .batch = 1, .heads = 1, .kv_heads = 1, .head_dim = d, .queries = n, .keys = n, .scale = 1, .q = s, .k = s, .v = s, .out = s, .covers = 1 };
    const hd_pattern *far = and(node((hd_pattern){ .kind = HD_PATTERN_CAUSAL }), node((hd_pattern){ .kind = HD_PATTERN_FULL }));
    const hd_cover *cover = hd_cover_make(far, n, n);
    a.cover = &cover;
    assert_true(hd_attention_stencil_cost(&a, hd_target_find("native"), false) < 0);
    assert_true(hd_attention_stencil_cost(&a, hd_target_find("native"), true) < 0);
    cover = hd_cover_make(window(4, 4), n, n);
    assert_true(hd_attention_stencil_cost(&a, hd_target_find("native"), false) > 0);
    a.softcap = 30;
    assert_true(hd_attention_stencil_cost(&a, hd_target_find("native"), false) < 0);
}

static bool runs_here(const char *target)
{
    __builtin_cpu_init();
    if (!strcmp(target, "x86-64-v4")) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(target, "x86-64-v3")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return true;
}

static int prepare(void **state)
{
    (void)state;
    static const char *const targets[] = { "x86-64-v4", "x86-64-v3", "x86-64" };
    all = HD_NEW_ARRAY(compiled, 3 * CASES);
    for (int t = 0; t < 3; t++) {
        if (!runs_here(targets[t])) continue;
        hd_kernels set = { .prefix = "t", .target = hd_target_find(targets[t]) };
        assert_non_null(set.target);
        compiled *first = &all[all_count];
        int count = 0;
        for (int i = 0; i < CASES; i++) if (all_count == 0 || i % 2 == t % 2) plan_case(&first[count++], &cases[i], &set);
        void **handle = build(&set);
        for (int i = 0; i < count; i++) {
            void *forward = find(handle, first[i].forward_kernel->name);
            if (first[i].c.sinks) *(void **)&first[i].forward_sinks = forward;
            else *(void **)&first[i].forward = forward;
            *(void **)&first[i].backward = find(handle, first[i].backward_kernel->name);
        }
        all_count += count;
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_and_gradients_are_those_of_the_dense_masked_reference),
        cmocka_unit_test(results_do_not_depend_on_the_order_of_slots),
        cmocka_unit_test(a_position_outside_the_pattern_never_influences_another),
        cmocka_unit_test(only_used_positions_and_sequences_are_computed),
        cmocka_unit_test(what_differences_do_not_describe_is_refused),
    };
    return cmocka_run_group_tests_name("stencil", tests, prepare, NULL);
}
