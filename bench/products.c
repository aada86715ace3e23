/* One product, ours and the libraries', call by call in one process.
 *
 *   y[M][N] = x[M][K] w[N][K]^T        f32; one row (M = 1) reads a matrix, and is held against the read bandwidth
 *
 * Ours is what `heddle emit bench/specs/product.lua` made for M, N, K (which the command line of the compiler defines), the
 * weights packed once. The libraries are loaded where the system has them, as their users would set them up:
 *   oneDNN    weights in the layout that it asks for (format any), reordered once; matmul and inner product, the faster counts
 *   OpenBLAS  cblas_sgemm (one row: cblas_sgemv) of weights as [N][K] and as [K][N], the faster counts
 *   BLIS      likewise
 * They have no packed weights, so packing is part of their time, as it is part of their users' time.
 *
 * Every round measures each contender once, beside samples of this machine's peak. Shares are medians over rounds of a
 * contender's rate over the peak beside it, so that what else the machine does meets both. One thread is timed by the processor
 * time that it took, several by the clock.
 *
 * usage: products THREADS ROUNDS SECONDS      SECONDS: of one contender in one round
 * Prints a line for each contender: name, milliseconds, share of the peak, quartiles of that, its time over ours, what ran.
 * The peak is the fused multiply-add rate of THREADS threads; for one row, the bandwidth of reading memory. */
#include "product.h"
#include "product_pool.h"

#include "../runtime/app/app.h"
#include "../runtime/app/peak.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if __has_include(<oneapi/dnnl/dnnl.h>)
#include <oneapi/dnnl/dnnl.h>
#define HAVE_ONEDNN 1
#endif

enum { M = SIZE_M, N = SIZE_N, K = SIZE_K };      /* the compiler's: -DSIZE_M= -DSIZE_N= -DSIZE_K= */
enum { MOST_ROUNDS = 101, MOST_CALLS = 4096, PEAK_SAMPLES = 4 };
enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };       /* cblas.h */

const hd_model_info *hd_model_chosen;      /* of programs that heddle builds; the parts of the application that are linked here do without */

static float *x, *w, *w_transposed, *y, *y_first;
static int threads;
static const hd_threads *pool;

typedef struct contender {
    const char *name;
    char ran[96];
    void (*call)(void);
    double seconds[MOST_ROUNDS], share[MOST_ROUNDS];
} contender;

/* Seconds. Alone, a thread that computes is timed by what it ran itself: that other processes took its processor is not its doing.
 * (The bandwidth, which is measured by the clock, takes longer samples than the multiply-add rate, and must meet the same.) */
static double now(void)
{
    struct timespec t;
    clock_gettime(threads == 1 && M > 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- ours ---- */

static product_memory ours;

static void ours_call(void) { product_forward(&ours, pool, x, y); }

/* ---- BLAS ---- */

typedef void gemm(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
typedef void gemv(int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
typedef struct blas { gemm *gemm; gemv *gemv; bool transposed; } blas;
static blas openblas, blis;

static void blas_call(const blas *b)
{
    const float *weights = b->transposed ? w_transposed : w;
    const int rows = b->transposed ? K : N, columns = b->transposed ? N : K;
    if (M == 1) b->gemv(ROW_MAJOR, b->transposed ? TRANSPOSE : NO_TRANSPOSE, rows, columns, 1, weights, columns, x, 1, 0, y, 1);
    else b->gemm(ROW_MAJOR, NO_TRANSPOSE, b->transposed ? NO_TRANSPOSE : TRANSPOSE, M, N, K, 1, x, K, weights, columns, 0, y, N);
}
static void openblas_call(void) { blas_call(&openblas); }
static void blis_call(void) { blas_call(&blis); }

static void *load(const char *const *names)
{
    for (; *names; names++) {
        void *library = dlopen(*names, RTLD_NOW | RTLD_LOCAL);
        if (library) return library;
    }
    return NULL;
}

/* Sets a pointer to function; ISO C has no conversion for what dlsym returns. */
static void find(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);
    if (!found) hd_app_fail("products: a library lacks %s", name);
    memcpy(function, &found, sizeof found);
}

/* Two ways of doing the same: the faster one stays. */
static void second_is_faster(void (*call)(void), bool *second)
{
    double best[2] = { 1e30, 1e30 };
    for (int i = 0; i < 8; i++) {
        *second = i % 2;
        double begun = now();
        call();
        double taken = now() - begun;
        if (i > 1 && taken < best[i % 2]) best[i % 2] = taken;
    }
    *second = best[1] < best[0];
}

static bool blas_start(blas *b, void *library)
{
    if (!library) return false;
    find(library, "cblas_sgemm", &b->gemm);
    find(library, "cblas_sgemv", &b->gemv);
    return true;
}

static bool openblas_start(contender *c)
{
    void *library = load((const char *const[]){ "libopenblas.so.0", NULL }), (*set_threads)(int);
    char *(*core)(void);
    if (!blas_start(&openblas, library)) return false;
    find(library, "openblas_set_num_threads", &set_threads);
    find(library, "openblas_get_corename", &core);
    set_threads(threads);
    second_is_faster(openblas_call, &openblas.transposed);
    snprintf(c->ran, sizeof c->ran, "%s, weights %s", core(), openblas.transposed ? "[K][N]" : "[N][K]");
    return true;
}

static bool blis_start(contender *c)
{
#if defined(__x86_64__)
    /* It goes by the processor's name, which virtual machines hide, and then does without AVX-512. */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) setenv("BLIS_ARCH_TYPE", "skx", 0);
#endif
    void *library = load((const char *const[]){ "libblis.so.4", "libblis.so.3", "libblis.so.5", NULL });
    void (*set_threads)(int64_t);
    int (*core)(void);
    const char *(*core_name)(int);
    if (!blas_start(&blis, library)) return false;
    find(library, "bli_thread_set_num_threads", &set_threads);
    find(library, "bli_arch_query_id", &core);
    find(library, "bli_arch_string", &core_name);
    set_threads(threads);
    second_is_faster(blis_call, &blis.transposed);
    snprintf(c->ran, sizeof c->ran, "%s, weights %s", core_name(core()), blis.transposed ? "[K][N]" : "[N][K]");
    return true;
}

/* ---- oneDNN ---- */

#ifdef HAVE_ONEDNN
#define ONEDNN_FUNCTIONS(F) \
    F(dnnl_engine_create) F(dnnl_stream_create) F(dnnl_stream_wait) F(dnnl_memory_create) F(dnnl_memory_desc_get_size) \
    F(dnnl_primitive_desc_query_md) F(dnnl_primitive_desc_query) F(dnnl_reorder_primitive_desc_create) F(dnnl_primitive_create) F(dnnl_primitive_execute)
#if DNNL_VERSION_MAJOR >= 3
#define ONEDNN_OLD_OR_NEW(F) F(dnnl_memory_desc_create_with_tag) F(dnnl_matmul_primitive_desc_create) F(dnnl_inner_product_forward_primitive_desc_create)
#define ONEDNN_NAME "libdnnl.so.3"
typedef const_dnnl_memory_desc_t layout;
#else
#define ONEDNN_OLD_OR_NEW(F) F(dnnl_memory_desc_init_by_tag) F(dnnl_matmul_desc_init) F(dnnl_inner_product_forward_desc_init) F(dnnl_primitive_desc_create)
#define ONEDNN_NAME "libdnnl.so.2"
typedef const dnnl_memory_desc_t *layout;
#endif
#define MEMBER(name) __typeof__(name) *name;
static struct { ONEDNN_FUNCTIONS(MEMBER) ONEDNN_OLD_OR_NEW(MEMBER) } onednn;

typedef struct way { dnnl_primitive_t primitive; dnnl_exec_arg_t argument[3]; char how[40]; } way;
static way onednn_way[2];                  /* matmul, inner product */
static bool onednn_inner;
static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void need(dnnl_status_t status, const char *what)
{
    if (status != dnnl_success) hd_app_fail("products: oneDNN: %s fails with status %d", what, (int)status);
}
#define NEED(call) need(onednn.call, #call)

static layout onednn_layout(dnnl_dim_t rows, dnnl_dim_t columns, dnnl_format_tag_t tag)
{
#if DNNL_VERSION_MAJOR >= 3
    dnnl_memory_desc_t made;
    NEED(dnnl_memory_desc_create_with_tag(&made, 2, (dnnl_dims_t){ rows, columns }, dnnl_f32, tag));
#else
    dnnl_memory_desc_t *made = hd_app_alloc(sizeof *made);
    NEED(dnnl_memory_desc_init_by_tag(made, 2, (dnnl_dims_t){ rows, columns }, dnnl_f32, tag));
#endif
    return made;
}

/* The best implementation for plain x and y, and weights in a layout of its choice. */
static dnnl_primitive_desc_t onednn_describe(bool inner)
{
    dnnl_primitive_desc_t made;
    const layout of_x = onednn_layout(M, K, dnnl_ab), of_y = onednn_layout(M, N, dnnl_ab);
    const layout of_w = inner ? onednn_layout(N, K, dnnl_format_tag_any) : onednn_layout(K, N, dnnl_format_tag_any);
#if DNNL_VERSION_MAJOR >= 3
    if (inner) NEED(dnnl_inner_product_forward_primitive_desc_create(&made, engine, dnnl_forward_inference, of_x, of_w, NULL, of_y, NULL));
    else NEED(dnnl_matmul_primitive_desc_create(&made, engine, of_x, of_w, NULL, of_y, NULL));
#else
    dnnl_inner_product_desc_t inner_product;
    dnnl_matmul_desc_t matmul;
    if (inner) NEED(dnnl_inner_product_forward_desc_init(&inner_product, dnnl_forward_inference, of_x, of_w, NULL, of_y));
    else NEED(dnnl_matmul_desc_init(&matmul, of_x, of_w, NULL, of_y));
    NEED(dnnl_primitive_desc_create(&made, inner ? (void *)&inner_product : (void *)&matmul, NULL, engine, NULL));
#endif
    return made;
}

static dnnl_memory_t onednn_memory(layout of, void *data)
{
    dnnl_memory_t made;
    NEED(dnnl_memory_create(&made, of, engine, data));
    return made;
}

static void onednn_make(way *p, bool inner)
{
    dnnl_primitive_desc_t described = onednn_describe(inner), reorder;
    dnnl_primitive_t reordering;
    const char *implementation = "";
    NEED(dnnl_primitive_desc_query(described, dnnl_query_impl_info_str, 0, &implementation));
    snprintf(p->how, sizeof p->how, "%s %s", inner ? "inner product" : "matmul", implementation);

    const layout plain = inner ? onednn_layout(N, K, dnnl_ab) : onednn_layout(K, N, dnnl_ba), chosen = onednn.dnnl_primitive_desc_query_md(described, dnnl_query_weights_md, 0);
    void *data;
    hd_area area = { "packed weights", onednn.dnnl_memory_desc_get_size(chosen), &data };
    hd_app_map_areas(&area, 1);
    dnnl_memory_t from = onednn_memory(plain, w), packed = onednn_memory(chosen, data);
    NEED(dnnl_reorder_primitive_desc_create(&reorder, plain, engine, chosen, engine, NULL));
    NEED(dnnl_primitive_create(&reordering, reorder));
    NEED(dnnl_primitive_execute(reordering, stream, 2, (dnnl_exec_arg_t[]){ { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, packed } }));
    NEED(dnnl_stream_wait(stream));

    NEED(dnnl_primitive_create(&p->primitive, described));
    p->argument[0] = (dnnl_exec_arg_t){ DNNL_ARG_SRC, onednn_memory(onednn_layout(M, K, dnnl_ab), x) };
    p->argument[1] = (dnnl_exec_arg_t){ DNNL_ARG_WEIGHTS, packed };
    p->argument[2] = (dnnl_exec_arg_t){ DNNL_ARG_DST, onednn_memory(onednn_layout(M, N, dnnl_ab), y) };
}

static void onednn_call(void)
{
    const way *p = &onednn_way[onednn_inner];
    onednn.dnnl_primitive_execute(p->primitive, stream, 3, p->argument);
    onednn.dnnl_stream_wait(stream);
}

static bool onednn_start(contender *c)
{
    void *library = load((const char *const[]){ ONEDNN_NAME, NULL });
    if (!library) return false;
#define FIND(name) find(library, #name, &onednn.name);
    ONEDNN_FUNCTIONS(FIND)
    ONEDNN_OLD_OR_NEW(FIND)
    NEED(dnnl_engine_create(&engine, dnnl_cpu, 0));
    NEED(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    onednn_make(&onednn_way[0], false);
    onednn_make(&onednn_way[1], true);
    second_is_faster(onednn_call, &onednn_inner);
    snprintf(c->ran, sizeof c->ran, "%s", onednn_way[onednn_inner].how);
    return true;
}
#else
static void onednn_call(void) { }
static bool onednn_start(contender *c) { (void)c; return false; }
#endif

/* ---- measuring ---- */

/* The value below which a share of the values lie; these stay as they are. */
static double quantile(const double *values, int count, double share)
{
    double copy[MOST_CALLS];
    memcpy(copy, values, (size_t)count * sizeof *values);
    return hd_quantile(copy, count, share);
}

static double peak_sample(const hd_peak *peak, int i)
{
    const hd_speeds s = hd_peak_sample(peak, pool, i, false);
    return 1e9 * (M == 1 ? s.read[HD_DRAM] : s.fma);
}

/* Threads of OpenMP spin for some milliseconds after their work, and would take the processor from whoever comes next. */
static void let_threads_sleep(void)
{
    if (threads > 1) nanosleep(&(struct timespec){ 0, 30000000 }, NULL);
}

static void measure(contender *c, int round, double seconds, const hd_peak *peak)
{
    static int sample;
    double times[MOST_CALLS], peaks[2 * PEAK_SAMPLES], begun, all;
    int calls = 0;
    let_threads_sleep();
    for (int i = 0; i < PEAK_SAMPLES; i++) peaks[i] = peak_sample(peak, sample++);
    c->call();                                                   /* the caches again belong to this */
    all = hd_app_seconds();
    do {
        begun = now();
        c->call();
        times[calls++] = now() - begun;
    } while (calls < MOST_CALLS && hd_app_seconds() - all < seconds);
    let_threads_sleep();
    for (int i = 0; i < PEAK_SAMPLES; i++) peaks[PEAK_SAMPLES + i] = peak_sample(peak, sample++);
    const double work = M == 1 ? 4.0 * N * K : 2.0 * M * N * K;
    c->seconds[round] = quantile(times, calls, 0.5);
    c->share[round] = work / c->seconds[round] / quantile(peaks, 2 * PEAK_SAMPLES, 0.5);
}

/* All contenders must have made what the first made: sums of K products, rounded in another order. */
static void check(contender *c, bool first)
{
    for (int i = 0; i < M * N; i++) y[i] = NAN;
    c->call();
    if (first) memcpy(y_first, y, sizeof *y * M * N);
    double worst = 0;
    for (int i = 0; i < M * N; i++) worst = !(fabs(y[i] - y_first[i]) <= worst) ? fabs(y[i] - y_first[i]) : worst;
    if (!(worst < 1e-5 * K)) hd_app_fail("products: %s differs from ours by %g at (%d,%d,%d)", c->name, worst, M, N, K);
}

int main(int argc, char **argv)
{
    if (argc != 4 || (threads = atoi(argv[1])) < 1 || atoi(argv[2]) < 1 || atoi(argv[2]) > MOST_ROUNDS || !(atof(argv[3]) > 0))
        hd_app_fail("usage: products THREADS ROUNDS SECONDS, at most %d rounds", MOST_ROUNDS);
    setenv("OMP_NUM_THREADS", argv[1], 1);                        /* before a library reads it */
    const int rounds = atoi(argv[2]);
    hd_area area[] = {
        { "x", 4 * (size_t)M * K, (void **)&x },      { "w", PRODUCT_WEIGHTS_BYTES, (void **)&w },       { "w transposed", 4 * (size_t)N * K, (void **)&w_transposed },
        { "y", 4 * (size_t)M * N, (void **)&y },      { "y of ours", 4 * (size_t)M * N, (void **)&y_first },
        { "scratch", PRODUCT_SCRATCH_BYTES + (size_t)threads * PRODUCT_THREAD_BYTES, &ours.scratch },  { "packed weights", PRODUCT_PACKED_BYTES, &ours.packed },
    };
    hd_app_map_areas(area, sizeof area / sizeof *area);
    for (size_t i = 0; i < (size_t)M * K; i++) x[i] = (float)(2 * hd_app_unit(hd_app_random(1, 0, i)) - 1);
    for (size_t n = 0; n < N; n++)
        for (size_t k = 0; k < K; k++) w_transposed[N * k + n] = w[K * n + k] = (float)(2 * hd_app_unit(hd_app_random(1, 1, K * n + k)) - 1);
    ours.weights = w;
    product_pool *own = product_pool_new(threads);
    if (!own) hd_app_fail("products: no %d threads", threads);
    pool = product_pool_threads(own);

    static contender all[] = { { .name = "heddle", .call = ours_call }, { .name = "oneDNN", .call = onednn_call }, { .name = "OpenBLAS", .call = openblas_call }, { .name = "BLIS", .call = blis_call } };
    contender *one[4];
    int count = 0;
    product_pack(&ours, pool);
    one[count++] = &all[0];
    if (onednn_start(&all[1])) one[count++] = &all[1];
    if (openblas_start(&all[2])) one[count++] = &all[2];
    if (blis_start(&all[3])) one[count++] = &all[3];
    for (int i = 0; i < count; i++) check(one[i], i == 0);

    hd_peak peak;
    if (!hd_peak_start(&peak, threads, 0)) hd_app_fail("products: no memory to measure this machine");
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++) measure(one[i], round, atof(argv[3]), &peak);
    for (int i = 0; i < count; i++) {
        double ratio[MOST_ROUNDS];
        for (int r = 0; r < rounds; r++) ratio[r] = one[i]->seconds[r] / one[0]->seconds[r];
        printf("%s\t%.6f\t%.4f\t%.4f\t%.4f\t%.4f\t%s\n", one[i]->name, 1e3 * quantile(one[i]->seconds, rounds, 0.5), quantile(one[i]->share, rounds, 0.5),
               quantile(one[i]->share, rounds, 0.25), quantile(one[i]->share, rounds, 0.75), quantile(ratio, rounds, 0.5), one[i]->ran);
    }
    product_pool_free(own);
    return 0;
}
