/* The machine's peaks (peak.h). One loop each, compiled for several instruction sets and picked when the program runs, as
 * the application part is compiled once for all models. Check: objdump -d peak.o shows only vfmadd between the loop's labels. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "peak.h"

#include <sys/mman.h>
#include <unistd.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT ON
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#pragma GCC optimize("fp-contract=fast")
#define UNROLL _Pragma("GCC unroll 64")
#endif

/* fma_NAME: CHAINS independent chains of x = x * a + b, `rounds` links each: more chains than latency times issue width.
 * read_NAME: the sum of n floats, n a multiple of 4 * VL. */
#define LOOPS(NAME, TARGET, VL, CHAINS)                                                                              \
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
    enum { FLOPS_##NAME = 2 * VL * CHAINS };

#if defined(__x86_64__)
LOOPS(avx512, __attribute__((target("avx512f,avx512vl"))), 16, 24)
LOOPS(avx2, __attribute__((target("avx2,fma"))), 8, 12)
#endif
LOOPS(base, , 4, 12)

typedef struct loops { const char *isa; float (*fma)(long); float (*read)(const float *, size_t); int flops; } loops;

static loops pick(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return (loops){ "avx512", fma_avx512, read_avx512, FLOPS_avx512 };
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return (loops){ "avx2", fma_avx2, read_avx2, FLOPS_avx2 };
#endif
    return (loops){ "base", fma_base, read_base, FLOPS_base };
}

enum { SLOTS_PER_THREAD = 4, FMA_ROUNDS = 20000, READ_FLOATS = 1 << 18, READ_SLOTS = 16 };

typedef struct job { loops loops; const float *memory; float *sink; } job;

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
    j->sink[slot] = j->loops.read(j->memory + (size_t)slot * READ_FLOATS, READ_FLOATS);
}

static double run(const hd_threads *threads, job *j, void (*task)(void *, int, int), int slots)
{
    static float sink[1 << 16];
    j->sink = sink;
    double begun = hd_app_seconds();
    threads->run(threads->context, task, j, slots);
    return hd_app_seconds() - begun;
}

void hd_peak_start(hd_peak *peak)
{
    long cache = -1;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    size_t bytes = cache > 0 ? 4 * (size_t)cache : 0, least = (size_t)64 << 20, most = (size_t)256 << 20;
    bytes = bytes < least ? least : bytes > most ? most : bytes;
    peak->isa = pick().isa;
    peak->memory_bytes = bytes / (4 * READ_SLOTS * READ_FLOATS) * (4 * READ_SLOTS * READ_FLOATS);
    hd_area area = { "memory to read", peak->memory_bytes, (void **)&peak->memory };
    hd_app_map_areas(&area, 1);
    for (size_t i = 0; i < peak->memory_bytes / 4; i += 16) peak->memory[i] = 1;     /* own pages, not the shared page of zeros */
}

void hd_peak_end(hd_peak *peak) { munmap(peak->memory, peak->memory_bytes); }

double hd_peak_fma(const hd_peak *peak, const hd_threads *threads)
{
    job j = { .loops = pick(), .memory = peak->memory };
    int slots = SLOTS_PER_THREAD * threads->count;
    return (double)slots * FMA_ROUNDS * j.loops.flops / run(threads, &j, fma_slot, slots) / 1e9;
}

double hd_peak_read(const hd_peak *peak, const hd_threads *threads, int sample)
{
    const size_t floats = (size_t)READ_SLOTS * READ_FLOATS, parts = peak->memory_bytes / (4 * floats);
    job j = { .loops = pick(), .memory = peak->memory + (size_t)sample % parts * floats };
    return 4 * (double)floats / run(threads, &j, read_slot, READ_SLOTS) / 1e9;
}
