/* Times variants of one kernel against each other: PROGRAM SECONDS THREADS[,THREADS] VARIANT[,VARIANT]...
 *
 * First every variant runs once in a process of its own, on fresh numbers, and what it writes is compared with what variant 0
 * writes; variant 0 is compared with sums in double precision. Only right ones are timed, in turns, so that all meet the same
 * noise: a round gives each one call, or some calls where they are short; the mean of the lowest fifth of its rounds is its
 * time. Many short rounds, not few long ones: on a busy machine most long ones are disturbed, and all alike.
 * Between calls the second cache is swept and the activation read again: in a model weights come from further away, and
 * what the step before has made is near. Who is far behind the best is given up, the later the sooner (`behind`).
 *
 * Prints text lines:   machine CPU l1=BYTES l2=BYTES l3=BYTES
 *                      check V ok ERROR | wrong ERROR | crashed SIGNAL | hung      (ERROR: share of the largest value)
 *                      time V THREADS NANOSECONDS NOISE [slow]                     (NOISE: between odd and even rounds, as a share; slow: given up)
 *                      done */
#include "measure.h"
#include "hd_pool.h"
#include "machine.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_VARIANTS = 64, MOST_ROUNDS = 1000, LEAST_ROUNDS = 5, CALLS_OF_ROUND = 8 };
static const double least_round = 1e-4;      /* seconds: a thousand times what reading the clock takes */

/* Times of the best at which a variant is given up after so many rounds. One of several threads that another program holds up makes
 * a call many times longer: there only after more rounds. */
static double behind(int rounds, int threads) { return 1.25 + (threads > 1 ? 100.0 : 8.0) / rounds / rounds; }

static const hd_measured *const problem = &hd_measured_problem;
static unsigned char *block;

static double clock_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double seconds(void) { return clock_of(CLOCK_MONOTONIC); }

static void *map(size_t bytes)
{
    const size_t huge = (size_t)2 << 20;
    unsigned char *base = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) { printf("out of memory: %zu bytes\n", bytes); exit(1); }
    base += (huge - (size_t)base % huge) % huge;
#ifdef MADV_HUGEPAGE
    if (bytes >= huge) madvise(base, bytes, MADV_HUGEPAGE);
#endif
    return base;
}

static void fill(const hd_range *r)
{
    if (r->integers) { memset(block + r->offset, 0, r->bytes); return; }
    float *to = (float *)(void *)(block + r->offset);
    const uint64_t first = r->offset / 4;
    for (size_t i = 0; i < r->bytes / 4; i++) {          /* a function of the place: overlapping ranges agree */
        uint64_t x = (first + i + 1) * 0x9e3779b97f4a7c15u;
        x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u;
        to[i] = (float)(x >> 40) / 8388608.0f - 1;
    }
}

static void reset(void) { for (int i = 0; i < problem->ranges; i++) if (problem->range[i].writes) fill(&problem->range[i]); }

/* What the variants write, copied out, range after range. */
static float *written(void)
{
    size_t bytes = 0;
    for (int i = 0; i < problem->ranges; i++) if (problem->range[i].writes) bytes += problem->range[i].bytes;
    unsigned char *copy = map(bytes ? bytes : 1), *at = copy;
    for (int i = 0; i < problem->ranges; i++) if (problem->range[i].writes) memcpy(at, block + problem->range[i].offset, problem->range[i].bytes), at += problem->range[i].bytes;
    return (float *)(void *)copy;
}

/* Worst difference of what was written from `expected`, as a share of the largest value of its range; where `before` is given,
 * only of elements that `expected` changed. */
static double worst_error(const float *expected, const float *before)
{
    double worst = 0;
    for (int i = 0; i < problem->ranges; i++) {
        const hd_range *r = &problem->range[i];
        if (!r->writes) continue;
        const float *got = (const float *)(const void *)(block + r->offset);
        double most = 1e-30, error = 0;
        for (size_t k = 0; k < r->bytes / 4; k++) {
            if (before && !memcmp(&expected[k], &before[k], 4)) continue;
            if (isfinite(expected[k]) && fabs((double)expected[k]) > most) most = fabs((double)expected[k]);
            const double e = fabs((double)expected[k] - (double)got[k]);
            if (!(e <= error) && memcmp(&expected[k], &got[k], 4)) error = e;          /* a NaN too, unless both are the same */
        }
        if (!(error / most <= worst)) worst = error / most;
        expected += r->bytes / 4;
        if (before) before += r->bytes / 4;
    }
    return worst;
}

static hd_run run_alone(void) { return (hd_run){ NULL, block + problem->local_offset, problem->local_bytes }; }

/* One variant in a process of its own. */
static bool check(int v, const float *expected, unsigned limit)
{
    int ends[2];
    double error = NAN;
    if (pipe(ends)) { printf("check %d no pipe\n", v); return false; }
    fflush(stdout);
    const pid_t child = fork();
    if (!child) {
        const hd_run alone = run_alone();
        alarm(limit);
        reset();
        problem->variant[v].call(&alone, block);
        error = worst_error(expected, NULL);
        _exit(write(ends[1], &error, sizeof error) != (ssize_t)sizeof error);
    }
    close(ends[1]);
    const bool told = child > 0 && read(ends[0], &error, sizeof error) == (ssize_t)sizeof error;
    close(ends[0]);
    int status = 0;
    if (child > 0) waitpid(child, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) printf("check %d hung\n", v);
    else if (!told || status) printf("check %d crashed %d\n", v, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    else printf("check %d %s %.3g\n", v, error <= problem->tolerance ? "ok" : "wrong", error);
    return told && !status && error <= problem->tolerance;
}

/* Reads twice the second cache's size from memory of its own, on every thread. */
typedef struct sweep { const unsigned char *from; size_t bytes; int sums[256]; } sweep;

static void sweep_slot(void *argument, int slot, int thread)
{
    sweep *s = argument;
    const unsigned char *from = s->from + s->bytes * (size_t)slot;
    int sum = 0;
    for (size_t i = 0; i < s->bytes; i += 64) sum += *(const volatile unsigned char *)(from + i);
    s->sums[slot & 255] = sum;
    (void)thread;
}

static void warm_up(size_t most)
{
    for (int i = 0; i < problem->ranges; i++) {
        const hd_range *r = &problem->range[i];
        if (!r->warm) continue;
        for (size_t at = r->bytes > most ? r->bytes - most : 0; at < r->bytes; at += 64) (void)*(const volatile unsigned char *)(block + r->offset + at);
    }
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Mean of the lowest fifth of the samples first, first + step, ... */
static double low(const double *sample, int count, int first, int step)
{
    double own[MOST_ROUNDS], sum = 0;
    int n = 0;
    for (int i = first; i < count; i += step) own[n++] = sample[i];
    qsort(own, (size_t)n, sizeof *own, by_value);
    const int fifth = (n + 4) / 5;
    for (int i = 0; i < fifth; i++) sum += own[i];
    return sum / fifth;
}

static double sample[MOST_VARIANTS][MOST_ROUNDS];

/* in: who is timed; those given up leave. */
static void time_all(int threads, double budget, bool *in)
{
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    const size_t cache = l2 > 0 ? (size_t)l2 : (size_t)1 << 20;
    hd_pool *pool = threads > 1 ? hd_pool_new(threads) : NULL;
    if (threads > 1 && !pool) { printf("no pool of %d threads\n", threads); exit(1); }
    const hd_run run = { pool ? hd_pool_threads(pool) : NULL, block + problem->local_offset, problem->local_bytes };
    static sweep s;
    s.bytes = 2 * cache;
    free((void *)(uintptr_t)s.from);
    unsigned char *own = malloc(s.bytes * (size_t)threads);
    memset(own, 1, s.bytes * (size_t)threads);
    s.from = own;
    int rounds = 0;
    reset();
    for (int v = problem->variants - 1; v > 0; v--) if (in[v]) problem->variant[v].call(&run, block);      /* pages and code */
    double begun = seconds();
    problem->variant[0].call(&run, block);
    /* One thread is timed by what it was given of a processor, unless asking the system for that takes too long beside it. */
    const clockid_t timer = threads == 1 && seconds() - begun > 2e-5 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    begun = seconds();
    for (int all = 1; rounds < MOST_ROUNDS && all && (rounds < LEAST_ROUNDS || seconds() - begun < budget); rounds++) {
        if (rounds == 1 && seconds() - begun > budget) { rounds = 1; break; }              /* so large that one call each must do */
        all = 0;
        for (int i = 0; i < problem->variants; i++) {
            const int v = (i + rounds) % problem->variants;
            if (!in[v]) continue;
            double sum = 0;
            int calls = 0;
            while (sum < least_round && calls < CALLS_OF_ROUND) {
                hd_run_slots(&run, sweep_slot, &s, threads);
                warm_up(cache / 2);
                const double start = clock_of(timer);
                problem->variant[v].call(&run, block);
                sum += clock_of(timer) - start;
                calls++;
            }
            sample[v][rounds] = sum / calls;
            all++;
        }
        double best = INFINITY, now[MOST_VARIANTS];
        for (int v = 0; v < problem->variants; v++) {
            if (in[v]) now[v] = low(sample[v], rounds + 1, 0, 1);
            if (in[v] && now[v] < best) best = now[v];
        }
        for (int v = 1; v < problem->variants; v++)
            if (in[v] && now[v] > behind(rounds + 1, threads) * best) {
                printf("time %d %d %.1f 0 slow\n", v, threads, 1e9 * now[v]);
                in[v] = false;
            }
    }
    for (int v = 0; v < problem->variants; v++) {
        if (!in[v]) continue;
        const double time = low(sample[v], rounds, 0, 1);
        printf("time %d %d %.1f %.4f\n", v, threads, 1e9 * time, rounds > 1 ? fabs(low(sample[v], rounds, 0, 2) - low(sample[v], rounds, 1, 2)) / time : 0);
    }
    if (pool) hd_pool_free(pool);
}

static const char *after_comma(const char *at)
{
    at = strchr(at, ',');
    return at ? at + 1 : NULL;
}

int main(int argc, char **argv)
{
    bool wanted[MOST_VARIANTS] = { true };
    if (argc != 4 || problem->variants > MOST_VARIANTS) { fprintf(stderr, "usage: %s SECONDS THREADS[,THREADS] VARIANT[,VARIANT]...\n", argv[0]); return 1; }
    for (const char *at = argv[3]; at; at = after_comma(at)) {
        const int v = atoi(at);
        if (v >= 0 && v < problem->variants) wanted[v] = true;
    }
    char text[256];
    hd_machine_text(text, sizeof text);
    printf("machine %s\n", text);
    block = map(problem->block_bytes);
    const hd_run alone = run_alone();
    for (int i = 0; i < problem->ranges; i++) fill(&problem->range[i]);
    if (problem->setup) problem->setup(&alone, block);
    for (int v = 0; v < problem->variants; v++) if (wanted[v] && problem->variant[v].prepare) problem->variant[v].prepare(&alone, block);
    const float *before = NULL, *reference = NULL;
    if (problem->reference) {
        reset();
        before = written();
        problem->reference(block);
        reference = written();
    }
    reset();
    const double start = seconds();
    problem->variant[0].call(&alone, block);
    const unsigned limit = 3 + (unsigned)(50 * (seconds() - start));
    const double error = problem->reference ? worst_error(reference, before) : 0;
    const float *expected = written();
    bool right[MOST_VARIANTS] = { error <= problem->tolerance };
    printf("check 0 %s %.3g\n", right[0] ? "ok" : "wrong", error);
    for (int v = 1; right[0] && v < problem->variants; v++) right[v] = wanted[v] && check(v, expected, limit);
    fflush(stdout);
    if (right[0])
        for (const char *at = argv[2]; at; at = after_comma(at)) {
            const int threads = atoi(at);
            if (threads < 1 || threads > problem->threads) { printf("no %d threads\n", threads); return 1; }
            time_all(threads, atof(argv[1]), right);
            fflush(stdout);
        }
    puts("done");
    return 0;
}
