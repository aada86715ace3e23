/* The pool runs every slot exactly once, for any number of threads, really more than there are processors included. */
#define HD_POOL_PROCESSORS 8
#include "../../runtime/core/pool.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

enum { MOST_SLOTS = 300 };

typedef struct count_job { int runs[MOST_SLOTS]; int threads; _Atomic int bad_thread; } count_job;   /* runs: plain, so that a sanitizer sees any race */

static void count_slot(void *argument, int slot, int thread)
{
    count_job *job = argument;
    int runs = ++job->runs[slot];
    for (int i = runs % 16 ? 0 : 20; i > 0; i--) pause_briefly();   /* now and then long enough for others to join */
    if (thread < 0 || thread >= job->threads) atomic_store(&job->bad_thread, 1);
}

static int tasks(void)
{
    const char *text = getenv("POOL_TASKS");
    return text ? atoi(text) : 100000;
}

static void every_slot_runs_once_in_many_tiny_tasks(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 8; threads++) {
        hd_pool *pool = hd_pool_new(threads);
        const hd_threads *lent = hd_pool_threads(pool);
        static count_job job;
        int repeats = threads <= 2 ? tasks() : tasks() / 10;      /* beyond the processors each task may wait for a time slice */
        memset(&job, 0, sizeof job);
        job.threads = threads;
        assert_int_equal(lent->count, threads);
        for (int i = 0; i < repeats; i++) lent->run(lent->context, count_slot, &job, 1 + i % 7);
        for (int slot = 0; slot < 7; slot++) assert_int_equal(job.runs[slot], repeats / 7 * (7 - slot) + (repeats % 7 > slot ? repeats % 7 - slot : 0));
        assert_int_equal(atomic_load(&job.bad_thread), 0);
        hd_pool_free(pool);
    }
}

static void slots_of_every_count_run_once(void **state)
{
    (void)state;
    hd_pool *pool = hd_pool_new(3);
    const hd_threads *lent = hd_pool_threads(pool);
    for (int slots = 0; slots <= MOST_SLOTS; slots++) {
        count_job job = { .threads = 3 };
        lent->run(lent->context, count_slot, &job, slots);
        for (int slot = 0; slot < MOST_SLOTS; slot++) assert_int_equal(job.runs[slot], slot < slots);
    }
    hd_pool_free(pool);
}

static void note_slot(void *argument, int slot, int thread)
{
    (void)thread;
    ((unsigned char *)argument)[slot]++;
}

static void more_slots_than_fit_the_ticket_run_once(void **state)
{
    enum { SLOTS = 3 * MOST_SLOTS_AT_ONCE + 5 };
    (void)state;
    hd_pool *pool = hd_pool_new(2);
    const hd_threads *lent = hd_pool_threads(pool);
    unsigned char *runs = calloc(SLOTS, 1);
    lent->run(lent->context, note_slot, runs, SLOTS);
    for (int slot = 0; slot < SLOTS; slot++) assert_int_equal(runs[slot], 1);
    free(runs);
    hd_pool_free(pool);
}

static void sleeping_workers_wake_up(void **state)
{
    (void)state;
    hd_pool *pool = hd_pool_new(4);
    const hd_threads *lent = hd_pool_threads(pool);
    count_job job = { .threads = 4 };
    for (int i = 0; i < 40; i++) {
        nanosleep(&(struct timespec){ 0, 3 * YIELD_NS }, NULL);      /* long enough for all to fall asleep */
        lent->run(lent->context, count_slot, &job, 16);
    }
    for (int slot = 0; slot < 16; slot++) assert_int_equal(job.runs[slot], 40);
    hd_pool_free(pool);
}

typedef struct share_job { _Atomic int slots_of[8]; } share_job;

static void share_slot(void *argument, int slot, int thread)
{
    share_job *job = argument;
    (void)slot;
    nanosleep(&(struct timespec){ 0, 2 * YIELD_NS }, NULL);
    atomic_fetch_add(&job->slots_of[thread], 1);
}

static void the_work_is_shared(void **state)
{
    (void)state;
    hd_pool *pool = hd_pool_new(4);
    const hd_threads *lent = hd_pool_threads(pool);
    share_job job = { { 0 } };
    int idle = 4;
    for (int i = 0; idle && i < 500; i++) {      /* a busy machine may let a thread sleep through some */
        lent->run(lent->context, share_slot, &job, 16);
        idle = 0;
        for (int thread = 0; thread < 4; thread++) idle += atomic_load(&job.slots_of[thread]) == 0;
    }
    assert_int_equal(idle, 0);
    hd_pool_free(pool);
}

static void slow_slot(void *argument, int slot, int thread)
{
    nanosleep(&(struct timespec){ 0, slot ? 5 * YIELD_NS : 0 }, NULL);
    count_slot(argument, slot, thread);
}

static void a_sleeping_caller_wakes_up(void **state)
{
    (void)state;
    hd_pool *pool = hd_pool_new(2);
    const hd_threads *lent = hd_pool_threads(pool);
    count_job job = { .threads = 2 };
    for (int i = 0; i < 20; i++) lent->run(lent->context, slow_slot, &job, 2);
    assert_int_equal(job.runs[0], 20);
    assert_int_equal(job.runs[1], 20);
    hd_pool_free(pool);
}

typedef struct nested_job { const hd_threads *lent; count_job inner[4]; } nested_job;

static void nested_slot(void *argument, int slot, int thread)
{
    nested_job *job = argument;
    (void)thread;
    job->lent->run(job->lent->context, count_slot, &job->inner[slot], 5);
}

static void a_run_inside_a_run_goes_serially(void **state)
{
    (void)state;
    hd_pool *pool = hd_pool_new(2);
    nested_job job = { .lent = hd_pool_threads(pool) };
    for (int i = 0; i < 4; i++) job.inner[i].threads = 1;
    job.lent->run(job.lent->context, nested_slot, &job, 4);
    for (int i = 0; i < 4; i++) {
        for (int slot = 0; slot < 5; slot++) assert_int_equal(job.inner[i].runs[slot], 1);
        assert_int_equal(atomic_load(&job.inner[i].bad_thread), 0);
    }
    hd_pool_free(pool);
}

static void what_a_run_wrote_is_seen_by_the_next(void **state)
{
    enum { N = 64 };
    static double value[N];
    (void)state;
    hd_pool *pool = hd_pool_new(4);
    const hd_threads *lent = hd_pool_threads(pool);
    static count_job job;
    job.threads = 4;
    for (int i = 0; i < 2000; i++) {
        lent->run(lent->context, count_slot, &job, N);
        for (int slot = 0; slot < N; slot++) value[slot] += job.runs[slot];     /* a race, if completion were not a synchronisation */
    }
    for (int slot = 0; slot < N; slot++) assert_true(value[slot] == 2000.0 * 2001 / 2);
    hd_pool_free(pool);
}

static void no_pool_of_no_threads(void **state)
{
    (void)state;
    assert_null(hd_pool_new(0));
    assert_int_equal(errno, EINVAL);
    assert_null(hd_pool_new(-3));
    hd_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_runs_once_in_many_tiny_tasks),
        cmocka_unit_test(slots_of_every_count_run_once),
        cmocka_unit_test(more_slots_than_fit_the_ticket_run_once),
        cmocka_unit_test(sleeping_workers_wake_up),
        cmocka_unit_test(the_work_is_shared),
        cmocka_unit_test(a_sleeping_caller_wakes_up),
        cmocka_unit_test(a_run_inside_a_run_goes_serially),
        cmocka_unit_test(what_a_run_wrote_is_seen_by_the_next),
        cmocka_unit_test(no_pool_of_no_threads),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
