/* The machine's peaks (peak.h). One loop each, compiled for several instruction sets and picked when the program runs, as
 * the application part is compiled once for all models. Check: objdump -d peak.o shows only vfmadd between the loop's labels. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "peak.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "pages.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT ON
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#pragma GCC optimize("fp-contract=fast")
#define UNROLL _Pragma("GCC unroll 64")
#endif

/* fma_NAME: CHAINS independent chains of x = x * a + b, `rounds` links each: more chains than latency times issue width.
 * read_NAME: the sum of n floats; copy_NAME: n floats; copy_past_NAME: by stores that pass the caches; n a multiple of 4 * VL.
 * read_far_NAME: from memory: eight stretches in turns, each asked for 1 KB ahead, as one stream alone does not keep a core's fetches in
 * flight (Cascade Lake, one and two cores: 12.1 and 24.0 GB/s, where the plain loop gets 10.2 and 20.7); n a multiple of 128. */
#define LOOPS(NAME, TARGET, VL, CHAINS, STREAM)                                                                              \
    TARGET static float fma_##NAME(long rounds)                                                                     \
    {                                                                                                               \
        typedef float vector __attribute__((vector_size(4 * VL)));                                                  \
        vector x[CHAINS], sum = { 0 };                                                                              \
        const vector a = 0.9999f - (vector){ 0 }, b = 0.0001f - (vector){ 0 };                                      \
        UNROLL for (int i = 0; i < CHAINS; i++) x[i] = (float)(i + 2) - (vector){ 0 };                                  \
        for (long r = 0; r < rounds; r++) { UNROLL for (int i = 0; i < CHAINS; i++) x[i] = x[i] * a + b; }          \
        UNROLL for (int i = 0; i < CHAINS; i++) sum += x[i];                                                        \
        return sum[0];                                                                                              \
    }                                                                                                               \
    TARGET static float read_##NAME(const float *p, size_t n)                                                       \
    {                                                                                                               \
        typedef float vector __attribute__((vector_size(4 * VL), aligned(4), may_alias));                           \
        vector sum[4] = { { 0 } };                                                                                  \
        for (size_t i = 0; i < n; i += 4 * VL) { UNROLL for (int k = 0; k < 4; k++) sum[k] += *(const vector *)(p + i + (size_t)k * VL); } \
        sum[0] += sum[1] + sum[2] + sum[3];                                                                         \
        return sum[0][0];                                                                                           \
    }                                                                                                               \
    TARGET static float read_far_##NAME(const float *p, size_t n)                                                   \
    {                                                                                                               \
        typedef float vector __attribute__((vector_size(4 * VL), aligned(4), may_alias));                           \
        vector sum[8] = { { 0 } };                                                                                  \
        for (size_t i = 0; i < n / 8; i += 16) {                                                                    \
            UNROLL for (int k = 0; k < 8; k++) {                                                                    \
                const float *x = p + n / 8 * (size_t)k + i;                                                         \
                __builtin_prefetch(x + 256);                                                                        \
                UNROLL for (int j = 0; j < 16; j += VL) sum[k] += *(const vector *)(x + j);                         \
            }                                                                                                       \
        }                                                                                                           \
        UNROLL for (int k = 1; k < 8; k++) sum[0] += sum[k];                                                        \
        return sum[0][0];                                                                                           \
    }                                                                                                               \
    TARGET static void copy_##NAME(float *restrict to, const float *restrict from, size_t n)                         \
    {                                                                                                               \
        typedef float vector __attribute__((vector_size(4 * VL), aligned(4), may_alias));                           \
        for (size_t i = 0; i < n; i += 4 * VL) {                                                                    \
            vector x[4];                                                                                            \
            UNROLL for (int k = 0; k < 4; k++) x[k] = *(const vector *)(from + i + (size_t)k * VL);                 \
            UNROLL for (int k = 0; k < 4; k++) *(vector *)(to + i + (size_t)k * VL) = x[k];                         \
            __asm__ volatile("" ::: "memory");       /* no call of memcpy */                                        \
        }                                                                                                           \
    }                                                                                                               \
    TARGET static void copy_past_##NAME(float *restrict to, const float *restrict from, size_t n)                    \
    {                                                                                                               \
        typedef float vector __attribute__((vector_size(4 * VL), aligned(4), may_alias));                           \
        for (size_t i = 0; i < n; i += VL) STREAM(to + i, *(const vector *)(from + i));                             \
        FENCE;                                                                                                      \
    }                                                                                                               \
    enum { FLOPS_##NAME = 2 * VL * CHAINS };

#if defined(__x86_64__)
#define FENCE _mm_sfence()
#define STREAM_16(to, x) _mm512_stream_ps((void *)(to), (__m512)(x))
#define STREAM_8(to, x) _mm256_stream_ps(to, (__m256)(x))
#define STREAM_4(to, x) _mm_stream_ps(to, (__m128)(x))
LOOPS(avx512, __attribute__((target("avx512f,avx512vl"))), 16, 24, STREAM_16)
LOOPS(avx2, __attribute__((target("avx2,fma"))), 8, 12, STREAM_8)
#else
#define FENCE (void)0
#define STREAM_4(to, x) (*(vector *)(to) = (x))
#endif
LOOPS(base, , 4, 12, STREAM_4)

const char *const hd_level_names[HD_LEVELS] = { "L2", "L3", "memory" };

typedef struct loops {
    const char *isa;
    float (*fma)(long), (*read)(const float *, size_t), (*read_far)(const float *, size_t);
    void (*copy)(float *, const float *, size_t), (*copy_past)(float *, const float *, size_t);
    int flops, lanes;
} loops;

static loops pick(int lanes)
{
    (void)lanes;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (lanes >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return (loops){ "avx512", fma_avx512, read_avx512, read_far_avx512, copy_avx512, copy_past_avx512, FLOPS_avx512, 16 };
    if (lanes >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return (loops){ "avx2", fma_avx2, read_avx2, read_far_avx2, copy_avx2, copy_past_avx2, FLOPS_avx2, 8 };
#endif
    return (loops){ "base", fma_base, read_base, read_far_base, copy_base, copy_past_base, FLOPS_base, 4 };
}

/* PART: floats of memory that a slot reads, or half of which it copies to the other half. */
enum { SLOTS_PER_THREAD = 4, FMA_ROUNDS = 20000, PART = 1 << 18, PARTS = 16, CACHE_PASSES = 4 };

typedef struct job { loops loops; float *memory, *sink; size_t floats; int passes; } job;

static void fma_slot(void *argument, int slot, int thread)
{
    const job *j = argument;
    (void)thread;
    j->sink[slot] = j->loops.fma(FMA_ROUNDS);
}

static void read_slot(void *argument, int slot, int thread)
{
    const job *j = argument;
    (void)thread;
    for (int pass = 0; pass < j->passes; pass++) j->sink[slot] = j->loops.read(j->memory + (size_t)slot * j->floats, j->floats);
}

/* Half a page beside a multiple of pages: a load whose address ends as that of a store under way would wait for it. */
enum { ASIDE = 512 };
static size_t copied(size_t floats) { return floats / 2 - 2 * ASIDE; }

static void copy_slot(void *argument, int slot, int thread)
{
    const job *j = argument;
    float *from = j->memory + (size_t)slot * j->floats;
    (void)thread;
    for (int pass = 0; pass < j->passes; pass++) j->loops.copy(from + j->floats / 2 + ASIDE, from, copied(j->floats));
}

static void nothing(void *argument, int slot, int thread) { (void)argument, (void)slot, (void)thread; }

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double run(const hd_threads *threads, job *j, void (*task)(void *, int, int), int slots)
{
    static float sink[1 << 16];
    j->sink = sink;
    double begun = seconds();
    threads->run(threads->context, task, j, slots);
    return seconds() - begun;
}

static size_t cache(int name, size_t otherwise)
{
    const long bytes = sysconf(name);
    return bytes > 0 ? (size_t)bytes : otherwise;
}

bool hd_peak_start(hd_peak *peak, int threads, int lanes)
{
    const loops l = pick(lanes > 0 ? lanes : 1024);
    *peak = (hd_peak){ .isa = l.isa, .lanes = l.lanes, .threads = threads, .cache_bytes = { 1 << 20, 16 << 20 } };
#ifdef _SC_LEVEL3_CACHE_SIZE
    peak->cache_bytes[HD_L2] = cache(_SC_LEVEL2_CACHE_SIZE, peak->cache_bytes[HD_L2]);
    peak->cache_bytes[HD_L3] = cache(_SC_LEVEL3_CACHE_SIZE, peak->cache_bytes[HD_L3]);
#endif
    const size_t least = (size_t)64 << 20, most = (size_t)256 << 20, unit = 4 * (size_t)PARTS * PART;
    size_t bytes = 4 * peak->cache_bytes[HD_L3];
    bytes = bytes < least ? least : bytes > most ? most : bytes;
    peak->memory_bytes = bytes / unit * unit;
    peak->memory = hd_pages_map(peak->memory_bytes);
    if (!peak->memory) return false;
    for (size_t i = 0; i < peak->memory_bytes / 4; i += 16) peak->memory[i] = 1;     /* own pages, not the shared page of zeros */
    return true;
}

void hd_peak_end(hd_peak *peak) { hd_pages_unmap(peak->memory, peak->memory_bytes); }

/* What a thread goes through again and again to stay in a cache: half of its L2; or more than L2, but half of its share of L3. */
static size_t cached_floats(const hd_peak *peak, int level)
{
    const size_t l2 = peak->cache_bytes[HD_L2], share = peak->cache_bytes[HD_L3] / 2 / (size_t)peak->threads, room = peak->memory_bytes / (size_t)peak->threads;
    size_t bytes = level == HD_L2 ? l2 / 2 : share > 2 * l2 ? share : 2 * l2;
    const size_t longest = (size_t)4 << 20;        /* for the sake of short samples */
    if (level == HD_L3 && bytes > longest && longest > 2 * l2) bytes = longest;
    if (bytes > room) bytes = room;
    return bytes / 4 / (8 * ASIDE) * (8 * ASIDE);
}

static double moved(const hd_peak *peak, const hd_threads *threads, int level, bool copy, bool past, int sample)
{
    job j = { .loops = pick(peak->lanes), .memory = peak->memory, .floats = PART, .passes = 1 };
    int slots = PARTS;
    void (*const task)(void *, int, int) = copy ? copy_slot : read_slot;
    if (past) j.loops.copy = j.loops.copy_past;
    if (level == HD_DRAM) {
        j.loops.read = j.loops.read_far;
        const size_t samples = peak->memory_bytes / 4 / PART / PARTS;
        j.memory += (size_t)sample % samples * PART * PARTS;
    } else {
        slots = peak->threads;
        j.floats = cached_floats(peak, level);
        run(threads, &j, task, slots);
        j.passes = level == HD_L2 ? 4 * CACHE_PASSES : 1;
    }
    const double bytes = 4.0 * slots * j.passes * (copy ? 2.0 * (double)copied(j.floats) : (double)j.floats);
    return bytes / run(threads, &j, task, slots) / 1e9;
}

double hd_peak_fma(const hd_peak *peak, const hd_threads *threads)
{
    job j = { .loops = pick(peak->lanes) };
    const int slots = SLOTS_PER_THREAD * threads->count;
    return (double)slots * FMA_ROUNDS * j.loops.flops / run(threads, &j, fma_slot, slots) / 1e9;
}

hd_speeds hd_peak_sample(const hd_peak *peak, const hd_threads *threads, int sample, bool everything)
{
    job j = { .loops = pick(peak->lanes) };
    hd_speeds s = { .fma = hd_peak_fma(peak, threads) };
    for (int level = 0; level < HD_LEVELS; level++) {
        if (level == HD_DRAM || everything) s.read[level] = moved(peak, threads, level, false, false, sample);
        if (everything) s.copy[level] = moved(peak, threads, level, true, false, sample + 1);
    }
    if (everything) {
        enum { CALLS = 20 };
        s.copy_past = moved(peak, threads, HD_DRAM, true, true, sample + 2);
        for (int i = 0; i < CALLS; i++) s.call += run(threads, &j, nothing, threads->count) / CALLS;
    }
    return s;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double hd_quantile(double *values, int count, double quantile)
{
    if (count < 1) return 0;
    qsort(values, (size_t)count, sizeof *values, by_value);
    const double at = quantile * (count - 1);
    const int below = (int)at;
    return below + 1 < count ? values[below] + (at - below) * (values[below + 1] - values[below]) : values[count - 1];
}

hd_speeds hd_peak_quantile(const hd_speeds *samples, int count, double quantile)
{
    enum { SPEEDS = sizeof(hd_speeds) / sizeof(double), MOST = 4096 };
    double value[MOST], result[SPEEDS];
    for (size_t k = 0; k < SPEEDS; k++) {
        int values = 0;
        for (int i = 0; i < count && values < MOST; i++) {
            memcpy(&value[values], (const char *)&samples[i] + k * sizeof(double), sizeof(double));
            values += value[values] > 0;
        }
        result[k] = hd_quantile(value, values, k * sizeof(double) == offsetof(hd_speeds, call) ? quantile : 1 - quantile);
    }
    hd_speeds s;
    memcpy(&s, result, sizeof s);
    return s;
}

double hd_peak_moving(const hd_peak *peak, const hd_speeds *s, const hd_traffic *t, double overstated, int *where)
{
    double most = 0, all = 0;
    int level = HD_L2, found = HD_L2;
    double time[HD_LEVELS] = { 0 };
    for (int i = 0; i < HD_DISTANCES; i++) {
        while (level < HD_DRAM && (i == HD_DISTANCES - 1 || hd_distance(i) > overstated * (double)peak->cache_bytes[level] * (level == HD_L2 ? peak->threads : 1))) level++;
        const double copy = level == HD_DRAM && s->copy_past > s->copy[level] ? s->copy_past : s->copy[level];
        /* a copy reads a byte for each that it writes */
        const double write = 2 / copy - 1 / s->read[level];
        time[level] += 1e-9 * (t->read[i] / s->read[level] + t->written[i] * (write > 0 ? write : 0));
    }
    for (int l = 0; l < HD_LEVELS; l++) {
        all += time[l];
        if (time[l] > most) most = time[l], found = l;
    }
    if (where) *where = found;
    return all;
}
