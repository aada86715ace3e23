/* The thread pool behind hd_threads: serial loop  for (slot = 0; slot < slots; slot++) task(argument, slot, thread).
 *
 * Each thread owns an equal range of the slots and takes them from its front; who is done takes from the back of others'
 * ranges. Rows of a model thus stay with one thread, and in its cache, from kernel to kernel: a training step of a small
 * model ran 1.54 times faster on two threads than on one when slots were handed out from one counter.
 *
 * A range is one 64-bit ticket (generation, end, next slot). A thread claims a slot by compare-and-swap on the whole ticket, so
 * a worker that was preempted between looking and claiming cannot claim a slot of a later task: the generation differs.
 * task and argument are rewritten only after every slot of the running generation has finished; a successful claim
 * proves that its own slot had not, so what was read before the claim belongs to the claimed generation. (The end of the
 * range must be in the ticket: read apart, the next task's number makes the last task's exhausted ticket look open.)
 *
 * Idle workers spin for tens of microseconds (the gap between two kernels), then offer their core to others, then sleep.
 * More threads than processors would only take turns: the pool never starts more than the affinity mask has processors
 * (hd_threads.count stays what was asked for; results do not depend on who ran a slot).
 * Source: none; the sleeping protocol is Dekker's, "announce, then look again", with sequentially consistent accesses. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "hd_pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MOST_SLOTS_AT_ONCE = 0xffff, GENERATION_SHIFT = 32, END_SHIFT = 16, SPIN_NS = 50 * 1000, YIELD_NS = 1000 * 1000, PAUSES = 16 };

typedef void hd_pool_task(void *argument, int slot, int thread);

typedef struct worker { hd_pool *pool; pthread_t id; int thread; } worker;
typedef struct range { _Alignas(64) _Atomic uint64_t ticket; } range;     /* generation << 32 | end << 16 | next unclaimed slot */

struct hd_pool {
    _Alignas(64) _Atomic uint64_t generation;  /* of the ranges; stored after them */
    _Alignas(64) _Atomic int unfinished;       /* slots of this generation that have not returned */
    _Alignas(64) _Atomic(hd_pool_task *) task; /* relaxed: ordered by the ticket */
    _Atomic(void *) argument;
    _Atomic int first;                         /* added to the slots of the ticket */
    _Alignas(64) _Atomic int sleepers;         /* workers that are asleep or about to be */
    _Atomic bool caller_sleeps, stop;
    atomic_flag busy;                          /* a run is under way: nested and concurrent runs go serially */
    pthread_mutex_t lock;
    pthread_cond_t wake_workers, wake_caller;
    hd_threads threads;
    int workers;
    worker *worker;
    range *range;                              /* [workers + 1], one for each thread that runs */
};

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");                   /* like x86 pause in length; `yield` is a no-op on most cores */
#endif
}

static int64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* One step of waiting: spins, later yields. Returns false when it is time to sleep. *since is 0 at first. */
static bool wait_a_little(int64_t *since)
{
    for (int i = 0; i < PAUSES; i++) pause_briefly();
    int64_t now = nanoseconds();
    if (!*since) *since = now;
    if (now - *since < SPIN_NS) return true;
    sched_yield();
    return now - *since < YIELD_NS;
}

/* Processors this process may use. */
static int processors(void)
{
#ifdef HD_POOL_PROCESSORS
    return HD_POOL_PROCESSORS;                 /* tests: more threads than processors, really started */
#else
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
#endif
}

/* Claims and runs slots of one range until none is left: from its front if it is the thread's own, else from its back. */
static void work_on(hd_pool *pool, range *of, bool own, int thread)
{
    uint64_t ticket = atomic_load_explicit(&of->ticket, memory_order_acquire);
    for (;;) {
        hd_pool_task *task = atomic_load_explicit(&pool->task, memory_order_relaxed);
        void *argument = atomic_load_explicit(&pool->argument, memory_order_relaxed);
        int first = atomic_load_explicit(&pool->first, memory_order_relaxed);
        int next = (int)(ticket & MOST_SLOTS_AT_ONCE), end = (int)(ticket >> END_SHIFT & MOST_SLOTS_AT_ONCE);
        if (next >= end) return;
        /* release: the reads above stay before the claim; acquire: the task's reads stay after it */
        uint64_t claimed = own ? ticket + 1 : ticket - ((uint64_t)1 << END_SHIFT);
        if (!atomic_compare_exchange_weak_explicit(&of->ticket, &ticket, claimed, memory_order_acq_rel, memory_order_acquire))
            continue;
        task(argument, first + (own ? next : end - 1), thread);
        if (atomic_fetch_sub(&pool->unfinished, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->wake_caller);
            pthread_mutex_unlock(&pool->lock);
        }
        ticket = atomic_load_explicit(&of->ticket, memory_order_acquire);
    }
}

static void work(hd_pool *pool, int thread)
{
    for (int i = 0; i <= pool->workers; i++) work_on(pool, &pool->range[(thread + i) % (pool->workers + 1)], i == 0, thread);
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    hd_pool *pool = self->pool;
    uint64_t seen = 0;                         /* generation already worked on; the first run has generation 1 */
    while (!atomic_load(&pool->stop)) {
        uint64_t generation = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (generation != seen) {
            seen = generation;
            work(pool, self->thread);
            continue;
        }
        int64_t since = 0;
        bool awake = true;
        while (awake && atomic_load_explicit(&pool->generation, memory_order_relaxed) == seen && !atomic_load_explicit(&pool->stop, memory_order_relaxed))
            awake = wait_a_little(&since);
        if (awake) continue;
        pthread_mutex_lock(&pool->lock);
        atomic_fetch_add(&pool->sleepers, 1);
        while (atomic_load(&pool->generation) == seen && !atomic_load(&pool->stop))
            pthread_cond_wait(&pool->wake_workers, &pool->lock);
        atomic_fetch_sub(&pool->sleepers, 1);
        pthread_mutex_unlock(&pool->lock);
    }
    return NULL;
}

static void run_serially(hd_pool_task *task, void *argument, int slots)
{
    for (int slot = 0; slot < slots; slot++) task(argument, slot, 0);
}

static void run_shared(hd_pool *pool, hd_pool_task *task, void *argument, int first, int slots)
{
    atomic_store_explicit(&pool->task, task, memory_order_relaxed);
    atomic_store_explicit(&pool->argument, argument, memory_order_relaxed);
    atomic_store_explicit(&pool->first, first, memory_order_relaxed);
    atomic_store_explicit(&pool->unfinished, slots, memory_order_relaxed);
    uint64_t generation = (atomic_load_explicit(&pool->generation, memory_order_relaxed) + 1) & 0xffffffff;
    int ranges = pool->workers + 1;
    for (int i = 0; i < ranges; i++) {
        uint64_t next = (uint64_t)((int64_t)slots * i / ranges), end = (uint64_t)((int64_t)slots * (i + 1) / ranges);
        atomic_store_explicit(&pool->range[i].ticket, generation << GENERATION_SHIFT | end << END_SHIFT | next, memory_order_release);
    }
    atomic_store(&pool->generation, generation);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake_workers);
        pthread_mutex_unlock(&pool->lock);
    }
    work(pool, 0);
    int64_t since = 0;
    bool awake = true;
    while (atomic_load_explicit(&pool->unfinished, memory_order_acquire) > 0) {
        if (awake) {
            awake = wait_a_little(&since);
            continue;
        }
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->caller_sleeps, true);
        while (atomic_load(&pool->unfinished) > 0) pthread_cond_wait(&pool->wake_caller, &pool->lock);
        atomic_store(&pool->caller_sleeps, false);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void pool_run(void *context, hd_pool_task *task, void *argument, int slots)
{
    hd_pool *pool = context;
    if (slots <= 0) return;
    if (slots == 1 || pool->workers == 0 || atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire)) {
        run_serially(task, argument, slots);
        return;
    }
    for (int first = 0; first < slots; first += MOST_SLOTS_AT_ONCE)
        run_shared(pool, task, argument, first, slots - first < MOST_SLOTS_AT_ONCE ? slots - first : MOST_SLOTS_AT_ONCE);
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}

hd_pool *hd_pool_new(int count)
{
    if (count < 1) {
        errno = EINVAL;
        return NULL;
    }
    hd_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    worker *workers = calloc((size_t)count, sizeof *workers);
    int useful = processors() < count ? processors() : count;
    range *ranges = aligned_alloc(64, (size_t)useful * sizeof *ranges);
    if (!pool || !workers || !ranges) {
        free(pool);
        free(workers);
        free(ranges);
        errno = ENOMEM;
        return NULL;
    }
    for (int i = 0; i < useful; i++) atomic_init(&ranges[i].ticket, 0);
    *pool = (hd_pool){ .busy = ATOMIC_FLAG_INIT, .worker = workers, .range = ranges };
    pool->threads = (hd_threads){ .context = pool, .count = count, .run = pool_run };
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake_workers, NULL);
    pthread_cond_init(&pool->wake_caller, NULL);
    for (int i = 0; i < useful - 1; i++) {
        workers[i] = (worker){ .pool = pool, .thread = i + 1 };
        int error = pthread_create(&workers[i].id, NULL, worker_main, &workers[i]);
        if (error) {
            hd_pool_free(pool);
            errno = error;
            return NULL;
        }
        pool->workers++;
    }
    return pool;
}

const hd_threads *hd_pool_threads(hd_pool *pool) { return &pool->threads; }

void hd_pool_free(hd_pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->wake_workers);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->workers; i++) pthread_join(pool->worker[i].id, NULL);
    pthread_cond_destroy(&pool->wake_workers);
    pthread_cond_destroy(&pool->wake_caller);
    pthread_mutex_destroy(&pool->lock);
    free(pool->worker);
    free(pool->range);
    free(pool);
}
