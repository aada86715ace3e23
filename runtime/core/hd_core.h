/* What generated code and its callers share: how threads come in, and how work is cut.
 *
 * Generated code never allocates, never prints and keeps no writable globals. Work is cut into a number of slots fixed
 * when the model was built; whichever thread is free claims the next slot, and nothing depends on which thread that was,
 * so results are the same bits for any number of threads. */
#ifndef HD_CORE_H
#define HD_CORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Threads, as a caller lends them to a model. One guarded type, shared by all models of a program. */
#ifndef HD_THREADS_DEFINED
#define HD_THREADS_DEFINED
typedef struct hd_threads {
    void *context;
    int count;                 /* at most this many slots run at once; `thread` below is less than it */
    /* Calls task(argument, slot, thread) once for every slot in [0, slots), in any order, from any of its threads,
     * and returns when all have returned. */
    void (*run)(void *context, void (*task)(void *argument, int slot, int thread), void *argument, int slots);
} hd_threads;
#endif

/* One call of an entry point, handed to every kernel. */
typedef struct hd_run {
    const hd_threads *threads; /* NULL: the calling thread alone */
    unsigned char *local;      /* one block of local_bytes for each thread, 64-byte aligned */
    size_t local_bytes;
} hd_run;

/* Every kernel calls this exactly once (a profiler that wraps hd_threads.run can therefore count kernels). */
static inline void hd_run_slots(const hd_run *run, void (*task)(void *, int, int), void *argument, int slots)
{
    if (run->threads) run->threads->run(run->threads->context, task, argument, slots);
    else for (int slot = 0; slot < slots; slot++) task(argument, slot, 0);
}

#ifdef __cplusplus
}
#endif
#endif
