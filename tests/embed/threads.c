/* Threads of others, calls at once, and calls that are cancelled, with the model `small`. Prints "same bits". */
#include "small.h"
#include "small_pool.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOGITS = SMALL_BATCH * SMALL_LENGTH * SMALL_VOCAB, IDS = SMALL_BATCH * SMALL_LENGTH, MOST_THREADS = 5 };

static int32_t tokens[IDS], targets[IDS];
static void *weights, *packed;
static int wrong;

static void *block(size_t bytes)
{
    void *at = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!at) exit(2);
    return memset(at, 0, bytes);
}

/* ---- an application's own pool: threads made for each task, slots handed out from one counter, last first ---- */

typedef struct own_task { void (*task)(void *, int, int); void *argument; atomic_int left; } own_task;
typedef struct own_worker { own_task *task; int thread; pthread_t id; } own_worker;

static void *own_work(void *argument)
{
    own_worker *w = argument;
    for (int slot; (slot = atomic_fetch_sub(&w->task->left, 1) - 1) >= 0; ) w->task->task(w->task->argument, slot, w->thread);
    return NULL;
}

static void own_run(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    const int count = *(const int *)context;
    own_task t = { task, argument, slots };
    own_worker worker[MOST_THREADS];
    for (int i = 0; i < count; i++) {
        worker[i] = (own_worker){ .task = &t, .thread = i };
        if (pthread_create(&worker[i].id, NULL, own_work, &worker[i])) exit(3);
    }
    for (int i = 0; i < count; i++) pthread_join(worker[i].id, NULL);
}

/* ---- cancelling: a pool of one that sets the flag when a number of kernels have run ---- */

typedef struct setter { int kernels, at; volatile int cancel; } setter;
static void setting_run(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    setter *s = context;
    if (s->kernels++ == s->at) s->cancel = 1;
    for (int slot = 0; slot < slots; slot++) task(argument, slot, 0);
}

static int forward(const hd_threads *threads, const volatile int *cancel, float *logits)
{
    small_memory memory = { .weights = weights, .packed = packed, .cancel = cancel };
    memory.scratch_bytes = SMALL_FORWARD_SCRATCH_BYTES + (size_t)(threads ? threads->count : 1) * SMALL_FORWARD_THREAD_BYTES;
    memory.scratch = block(memory.scratch_bytes);
    const int error = small_forward(&memory, threads, tokens, logits, 0, 0);
    free(memory.scratch);
    return error;
}

static int step(const hd_threads *threads, const volatile int *cancel, void *trained, void *state)
{
    static const int32_t random[4] = { 7, 1, 0, 0 };
    static const float hyper[16] = { 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 0.1f, 0.05f, 1, 0, 1 };
    float loss, norm;
    small_memory memory = { .weights = trained, .state = state, .cancel = cancel };
    memory.scratch_bytes = SMALL_TRAIN_STEP_SCRATCH_BYTES + (size_t)threads->count * SMALL_TRAIN_STEP_THREAD_BYTES;
    memory.scratch = block(memory.scratch_bytes);
    const int error = small_train_step(&memory, threads, tokens, targets, hyper, random, &loss, &norm);
    free(memory.scratch);
    return error;
}

static float alone[LOGITS];
static void check(const char *why, int right)
{
    if (!right) printf("%s\n", why), wrong++;
}

static void *call_again_and_again(void *pool)
{
    float *logits = block(4 * LOGITS);
    for (int i = 0; i < 20; i++) {
        memset(logits, 0, 4 * LOGITS);
        if (forward(pool ? small_pool_threads(pool) : NULL, NULL, logits) || memcmp(logits, alone, sizeof alone)) exit(4);
    }
    free(logits);
    return NULL;
}

static volatile int stop;
static void *set_stop(void *unused)
{
    for (volatile int i = 0; i < 20000; i = i + 1) { }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    return unused;
}

int main(void)
{
    weights = block(SMALL_WEIGHTS_BYTES), packed = block(SMALL_PACKED_BYTES);
    for (size_t i = 0; i < SMALL_WEIGHTS_BYTES / 4; i++) ((float *)weights)[i] = (float)(i * 2654435761u % 1000) / 5000.0f - 0.1f;
    for (int i = 0; i < IDS; i++) tokens[i] = i * 7 % SMALL_VOCAB, targets[i] = i * 5 % SMALL_VOCAB;
    const small_memory packing = { .weights = weights, .packed = packed };
    if (small_pack(&packing, NULL)) return 2;
    if (forward(NULL, NULL, alone)) return 2;

    float *logits = block(4 * LOGITS);
    for (int count = 1; count <= MOST_THREADS; count += 2) {
        const hd_threads own = { &count, count, own_run };
        memset(logits, 0, 4 * LOGITS);
        check("an application's own pool gives other bits", !forward(&own, NULL, logits) && !memcmp(logits, alone, sizeof alone));
    }
    small_pool *pool = small_pool_new(3);
    pthread_t caller[3];
    for (int i = 0; i < 3; i++) if (pthread_create(&caller[i], NULL, call_again_and_again, i ? pool : NULL)) return 3;      /* two share a pool */
    for (int i = 0; i < 3; i++) pthread_join(caller[i], NULL);

    /* cancelled when 0, 1, 2, ... kernels have run: soon over, and nothing half done to the weights */
    setter s = { 0, -1, 0 };
    const hd_threads setting = { &s, 1, setting_run };
    if (forward(&setting, &s.cancel, logits)) return 2;
    const int kernels = s.kernels;
    int ended_early = 0;
    for (int at = 0; at < kernels; at++) {
        s = (setter){ 0, at, 0 };
        const int code = forward(&setting, &s.cancel, logits);
        ended_early += code == HD_CANCELLED;
        check("a cancelled call went on", code == HD_CANCELLED ? s.kernels <= at + 9 : code == HD_OK && s.kernels == kernels && at >= kernels - 9);
    }
    check("no call was cancelled", ended_early > 0);

    void *trained = block(SMALL_WEIGHTS_BYTES), *state = block(SMALL_STATE_BYTES), *want = block(SMALL_WEIGHTS_BYTES), *moments = block(SMALL_STATE_BYTES);
    s = (setter){ 0, -1, 0 };
    memcpy(want, weights, SMALL_WEIGHTS_BYTES);
    if (step(&setting, &s.cancel, want, moments)) return 2;
    const int of_step = s.kernels;
    int stopped = 0, finished = 0;
    for (int at = 0; at < of_step; at++) {
        s = (setter){ 0, at, 0 };
        memcpy(trained, weights, SMALL_WEIGHTS_BYTES), memset(state, 0, SMALL_STATE_BYTES);
        const int code = step(&setting, &s.cancel, trained, state);
        stopped += code == HD_CANCELLED, finished += code == HD_OK;
        check("a step was cancelled when weights had changed, or not when it could be",
              code == HD_CANCELLED ? !memcmp(trained, weights, SMALL_WEIGHTS_BYTES) : code == HD_OK && !memcmp(trained, want, SMALL_WEIGHTS_BYTES) && !memcmp(state, moments, SMALL_STATE_BYTES));
        /* begun again after it was cancelled, it is as if it had not been */
        s = (setter){ 0, -1, 0 };
        check("a step after a cancelled one differs", code != HD_CANCELLED || (!step(&setting, &s.cancel, trained, state) && !memcmp(trained, want, SMALL_WEIGHTS_BYTES)));
    }
    check("no step was cancelled, or none finished", stopped > 0 && finished > 0);

    /* decoding that is cancelled and taken up where it stands, and decoding with other threads: the same bits in the end */
    small_memory decoding = { .weights = weights, .packed = packed, .cache = block(SMALL_CACHE_BYTES), .scratch_bytes = SMALL_SCRATCH_BYTES + MOST_THREADS * SMALL_THREAD_BYTES };
    decoding.scratch = block(decoding.scratch_bytes);
    float want_row[SMALL_VOCAB], row[SMALL_VOCAB];
    const int32_t more = 5;
    check("decoding", !small_start(&decoding) && !small_prefill(&decoding, NULL, 0, tokens, 20, want_row) && !small_step(&decoding, NULL, &more, want_row) && small_position(&decoding, 0) == 21);
    const int three = 3;
    const hd_threads others = { (void *)&three, three, own_run };
    check("decoding by other threads", !small_start(&decoding) && !small_prefill(&decoding, &others, 0, tokens, 20, row) && !small_step(&decoding, small_pool_threads(pool), &more, row) && !memcmp(row, want_row, sizeof row));
    decoding.cancel = &s.cancel;
    int cancelled = 0;
    for (int at = 0; at < 40; at++) {
        s = (setter){ 0, at, 0 };
        int code = small_start(&decoding);
        for (int64_t now; !code && (now = small_position(&decoding, 0)) < 21;) {
            code = now < 20 ? small_prefill(&decoding, &setting, 0, tokens + now, 20 - now, row) : small_step(&decoding, &setting, &more, row);
            if (code == HD_CANCELLED) cancelled++, code = HD_OK, s = (setter){ 0, -1, 0 };
        }
        check("decoding that was cancelled differs", !code && !memcmp(row, want_row, sizeof row));
    }
    check("no decoding was cancelled", cancelled > 5);
    free(decoding.scratch), free(decoding.cache);

    /* by another thread, at any moment */
    if (pthread_create(&caller[0], NULL, set_stop, NULL)) return 3;
    int code = HD_OK, calls = 0;
    while (code == HD_OK && calls++ < 1000000) code = forward(small_pool_threads(pool), &stop, logits);
    pthread_join(caller[0], NULL);
    check("another thread cannot cancel", code == HD_CANCELLED && forward(NULL, &stop, logits) == HD_CANCELLED);
    __atomic_store_n(&stop, 0, __ATOMIC_RELAXED);
    check("a call after a cancelled one differs", !forward(NULL, &stop, logits) && !memcmp(logits, alone, sizeof alone));

    small_pool_free(pool);
    printf(wrong ? "%d wrong\n" : "same bits\n", wrong);
    return wrong != 0;
}
