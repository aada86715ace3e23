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

/* What the functions of a model return. Likewise shared. */
#ifndef HD_ERRORS_DEFINED
#define HD_ERRORS_DEFINED
enum hd_error {
    HD_OK = 0,
    HD_ERROR_THREADS = -1,         /* threads->count is below 1 */
    HD_ERROR_SCRATCH = -2,         /* scratch is missing or not aligned to 64 bytes */
    HD_ERROR_SCRATCH_BYTES = -3,   /* scratch_bytes is less than this entry needs with so many threads */
    HD_ERROR_MEMORY = -4,          /* weights, state, packed or cache is needed, and missing or not aligned to 64 bytes */
    HD_ERROR_CACHE = -5,           /* the cache was not started, or is another model's */
    HD_ERROR_POSITIONS = -6,       /* the sequence has no position left */
    HD_ERROR_ARGUMENT = -7,        /* an argument is missing or out of range: a count, a stream, a token id */
    HD_CANCELLED = -8,             /* *memory->cancel was set: the call ended early */
    HD_ERROR_FILE = -9,            /* no file of heddle pack, one of another version, or not at a 64-byte boundary */
    HD_ERROR_FILE_MODEL = -10,     /* packed weights of another model */
    HD_ERROR_FILE_TARGET = -11,    /* packed weights for another target: its weights can be used, its panels cannot */
    HD_ERROR_FILE_BYTES = -12      /* the file of packed weights is not whole */
};
#endif

static inline const char *hd_error_text(int error)
{
    switch (error) {
    case HD_OK: return "no error";
    case HD_ERROR_THREADS: return "the number of threads is below 1";
    case HD_ERROR_SCRATCH: return "the scratch memory is missing or not aligned to 64 bytes";
    case HD_ERROR_SCRATCH_BYTES: return "the scratch memory is too small";
    case HD_ERROR_MEMORY: return "weights, state, packed weights or cache are missing or not aligned to 64 bytes";
    case HD_ERROR_CACHE: return "the cache was not started, or is another model's";
    case HD_ERROR_POSITIONS: return "the sequence has no position left";
    case HD_ERROR_ARGUMENT: return "an argument is missing or out of range";
    case HD_CANCELLED: return "cancelled";
    case HD_ERROR_FILE: return "no file of packed weights, one of another version, or not at a 64-byte boundary";
    case HD_ERROR_FILE_MODEL: return "the packed weights are another model's";
    case HD_ERROR_FILE_TARGET: return "the packed weights are for another target";
    case HD_ERROR_FILE_BYTES: return "the file of packed weights is not whole";
    default: return "not an error of a model";
    }
}

/* What entries ask before they write anything. */
static inline int hd_check_call(const hd_threads *threads, const void *scratch, size_t scratch_bytes, size_t plan_bytes, size_t thread_bytes)
{
    if (threads && threads->count < 1) return HD_ERROR_THREADS;
    const size_t needed = plan_bytes + thread_bytes * (size_t)(threads ? threads->count : 1);
    if (needed && (!scratch || (uintptr_t)scratch % 64)) return HD_ERROR_SCRATCH;
    return scratch_bytes < needed ? HD_ERROR_SCRATCH_BYTES : HD_OK;
}
static inline int hd_bad_area(const void *area) { return !area || (uintptr_t)area % 64; }

/* Whether any of ids[row][i], row < rows and i < used, is not in [0, limit); rows are ld apart. */
static inline int hd_bad_ids(const int32_t *ids, int64_t rows, int64_t used, int64_t ld, uint32_t limit)
{
    uint32_t bad = 0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < used; i++) bad |= (uint32_t)ids[row * ld + i] >= limit;
    return bad != 0;
}

/* What entries ask between their steps. */
static inline int hd_cancelled(const volatile int *cancel) { return cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED); }

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
