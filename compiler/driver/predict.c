/* How long entries will take (predict.h).
 *
 *   a step takes   (c^3 + b^3)^(1/3) + call      c: its arithmetic, b: moving its bytes; each alone if the other is small
 *
 * c is counted in cycles in which a core starts two fused multiply-adds of a vector, so that the FMA peak gives their length: by
 * hd_product_cycles and the planners of attention for these, by the table below for all other kernels. b is what the bytes take
 * from where the steps before have left them (passes/traffic.c) at the speeds measured there. Both are shared by threads as
 * evenly as slots allow.
 *
 * Checked: tests/compiler/predict_test.c. A kernel that has changed needs its row here measured again: build a model, compare
 * `heddle info SPEC --json` with `PROGRAM bench --json`, kernel by kernel. */
#include "predict.h"
#include "../emit/product.h"
#include "../../runtime/core/hd_cpu.h"
#include "../../runtime/core/hd_pool.h"
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* Kernels by template and kind (the first row that fits; kind "" fits all): cycles for each vector of the row, each row and each
 * call; factors on the cycles of products and attention, on those of the fused lines, and on the time of moving (what reads by columns
 * does not reach the speed of what reads straight on). Fitted to the least times of many calls on a Cascade Lake core. */
typedef struct cost { const char *template_name, *kind; double vector, row, call, planned, line, move; } cost;
static const cost costs[] = {
    { "product",             "",                   0,   0,  150, 1.05, 1,   1 },
    { "few_rows",            "",                   0,   0,  200, 1,    1,   1.05 },
    { "experts",             "",                   0,   0,  300, 1,    1,   1 },
    { "attention_rows_bwd",  "",                   0,   0,  300, 1.3,  1,   1 },
    { "attention_stencil",   "",                   0,   0,  300, 1.45, 1,   1 },
    { "attention",           "",                   0,   0,  300, 1,    1,   1 },
    { "norm",                "layer_norm",         11,  25, 300, 0,    1,   1 },
    { "norm",                "layer_norm_dx",      14,  25, 200, 0,    1,   0.85 },
    { "norm",                "layer_norm_dgain",   6,   0,  300, 0,    0.2, 1 },
    { "norm",                "rms_norm",           8,   20, 300, 0,    1,   1 },
    { "norm",                "rms_norm_dx",        11,  20, 200, 0,    1,   0.85 },
    { "norm",                "rms_norm_dgain",     5,   0,  300, 0,    0.2, 1 },
    { "softmax",             "softmax",            20,  40, 300, 0,    1,   1 },
    { "softmax",             "softmax_dx",         6,   30, 200, 0,    1,   1 },
    { "cross_entropy",       "cross_entropy",      17,  20, 300, 0,    1,   1 },
    { "cross_entropy",       "cross_entropy_dx",   18,  20, 300, 0,    1,   1 },
    { "embedding",           "embedding",          4,   10, 150, 0,    1,   2 },
    { "embedding",           "embedding_dw",       8,   350, 300, 0,   0.2, 1 },
    { "rope",                "",                   8,   28, 200, 0,    1,   1.4 },
    { "reduce",              "",                   2.5, 1,  200, 0,    0,   0.7 },
    { "pack",                "transposed",         22,  4,  200, 0,    1,   1.3 },
    { "pack",                "natural",            8,   2,  200, 0,    1,   1.6 },
    { "map",                 "",                   3,   12, 150, 0,    1,   0.8 },
    { "optimiser",           "gradient_norm",      2,   0,  200, 0,    1,   1.1 },
    { "optimiser",           "adamw",              18,  0,  200, 0,    1,   1 },
    { "permute",             "",                   10,  10, 150, 0,    1,   1.3 },
    { "",                    "",                   3,   3,  200, 0,    1,   1.2 },
};

static const cost *cost_of(const hd_step *s)
{
    const cost *c = costs;
    while (strncmp(s->kernel->template_name, c->template_name, strlen(c->template_name)) || (*c->kind && strcmp(c->kind, s->kind ? s->kind : ""))) c++;
    return c;
}

/* Cycles of one core for all slots of a step. */
static double cycles_of(const hd_step *s, const hd_target *t)
{
    const cost *c = cost_of(s);
    const double vectors = (double)s->rows * (double)((s->cols + t->vl - 1) / t->vl);
    const hd_product_target target = hd_product_target_of(t);
    const double planned = s->product ? hd_product_cycles(s->product, &target) : s->cycles, fused = t->level < 3 ? 2 : 1;      /* without fused multiply-adds: two instructions */
    return c->call + c->vector * vectors + c->row * (double)s->rows + c->line * s->lines / t->vl + c->planned * planned * fused;
}

/* ---- the machine ---- */

enum { SAMPLES = 8 };

/* Cores of the classes that the targets are named for: a server of about 2019, one of 2015, and what every 64-bit processor does. */
static const struct { int level; double clock; hd_speeds speeds; } classes[] = {
    { 4, 2.1e9, { 130, { 80, 15, 11 }, { 60, 20, 9 }, 10, 2e-6 } },
    { 3, 2.8e9, { 90,  { 60, 20, 11 }, { 45, 20, 9 }, 10, 2e-6 } },
    { 1, 3.0e9, { 24,  { 30, 15, 10 }, { 25, 15, 8 }, 9,  2e-6 } },
};

/* As many as programs take by default. */
static int processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
}

static hd_speeds measure(const hd_peak *peak, int threads)
{
    hd_speeds samples[SAMPLES];
    hd_pool *pool = hd_pool_new(threads);
    if (!pool) hd_fail((hd_where){ 0 }, "cannot start %d threads to measure this machine", threads);
    hd_peak_sample(peak, hd_pool_threads(pool), 0, false);
    for (int i = 0; i < SAMPLES; i++) samples[i] = hd_peak_sample(peak, hd_pool_threads(pool), i, true);
    hd_pool_free(pool);
    return hd_peak_quantile(samples, SAMPLES, 0.5);
}

hd_machine hd_machine_of_class(const hd_target *target)
{
    hd_machine m = { .measured = false };
    unsigned k = 0;
    while (classes[k].level > target->level) k++;
    for (int i = 0; i < HD_THREAD_COUNTS; i++) {
        m.peak[i] = (hd_peak){ .isa = target->name, .threads = 1, .cache_bytes = { (size_t)target->l2, (size_t)target->l3 } };
        m.speeds[i] = classes[k].speeds;
        m.cycle[i] = 1 / classes[k].clock;
    }
    return m;
}

hd_machine hd_machine_for(const hd_target *target)
{
    hd_machine m = { .measured = true };
    if (target->level > hd_cpu_level() || !hd_peak_start(&m.peak[HD_ONE_THREAD], 1, target->vl)) return hd_machine_of_class(target);
    m.peak[HD_ALL_THREADS] = m.peak[HD_ONE_THREAD];
    m.peak[HD_ALL_THREADS].threads = processors();
    m.speeds[HD_ONE_THREAD] = m.speeds[HD_ALL_THREADS] = measure(&m.peak[HD_ONE_THREAD], 1);
    if (processors() > 1) m.speeds[HD_ALL_THREADS] = measure(&m.peak[HD_ALL_THREADS], processors());
    hd_peak_end(&m.peak[HD_ONE_THREAD]);
    /* two vector instructions a cycle: fused multiply-adds, or multiplications and additions */
    for (int i = 0; i < HD_THREAD_COUNTS; i++) m.cycle[i] = (double)(m.peak[i].lanes * (m.peak[i].lanes >= 8 ? 4 : 2) * m.peak[i].threads) / (m.speeds[i].fma * 1e9);
    return m;
}

/* ---- steps ---- */

hd_step_time hd_predict_step(const hd_machine *m, const hd_target *t, const hd_step *s, int threads)
{
    const hd_peak *peak = &m->peak[threads];
    const hd_speeds *speed = &m->speeds[threads];
    const double slots = s->slots ? (double)s->slots : (double)s->rows * (double)s->cols < 16384 ? 1 : 64;
    const double share = ceil(slots / peak->threads) / slots;      /* of the thread that has most */
    hd_step_time time = { .compute = cycles_of(s, t) * m->cycle[threads] * share };
    /* a distance says at least and at most twice what a cache must hold: halfway between */
    time.move = cost_of(s)->move * 0.5 * (hd_peak_moving(peak, speed, &s->traffic, 1, NULL) + hd_peak_moving(peak, speed, &s->traffic, 2, NULL));
    time.all = cbrt(time.compute * time.compute * time.compute + time.move * time.move * time.move) + (slots > 1 && peak->threads > 1 ? speed->call : 0);
    return time;
}

double hd_predict_entry(const hd_machine *m, const hd_target *t, const hd_program *p, int threads)
{
    double seconds = 0;
    for (int s = 0; s < p->steps; s++) seconds += hd_predict_step(m, t, &p->step[s], threads).all;
    return seconds;
}

static int by_seconds(const void *a, const void *b)
{
    const hd_prediction *x = a, *y = b;
    if (x->seconds[HD_ALL_THREADS] != y->seconds[HD_ALL_THREADS]) return x->seconds[HD_ALL_THREADS] < y->seconds[HD_ALL_THREADS] ? 1 : -1;
    return strcmp(x->kernel->name, y->kernel->name);
}

hd_prediction *hd_predict_kernels(const hd_machine *m, const hd_target *t, const hd_program *p, int *count)
{
    hd_prediction *list = HD_NEW_ARRAY(hd_prediction, p->steps + 1);
    *count = 0;
    for (int s = 0; s < p->steps; s++) {
        int k = 0;
        while (k < *count && list[k].kernel != p->step[s].kernel) k++;
        if (k == *count) list[(*count)++] = (hd_prediction){ .kernel = p->step[s].kernel };
        list[k].calls++;
        for (int i = 0; i < HD_THREAD_COUNTS; i++) list[k].seconds[i] += hd_predict_step(m, t, &p->step[s], i).all;
    }
    qsort(list, (size_t)*count, sizeof *list, by_seconds);
    return list;
}
