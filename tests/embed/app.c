/* A program that embeds the model `small`, in the part of C that is also C++: however its sources were built, it prints the same line. */
#include "small.h"
#include "small_pool.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *block(size_t bytes)
{
    void *at = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!at) exit(2);
    return memset(at, 0, bytes);
}

int main(void)
{
    static float logits[SMALL_BATCH * SMALL_LENGTH * SMALL_VOCAB];
    static int32_t tokens[SMALL_BATCH * SMALL_LENGTH];
    small_pool *pool = small_pool_new(2);
    const hd_threads *threads = small_pool_threads(pool);
    small_memory memory = { NULL, NULL, NULL, NULL, NULL, 0, NULL };
    memory.weights = block(SMALL_WEIGHTS_BYTES);
    memory.packed = block(SMALL_PACKED_BYTES);
    memory.scratch_bytes = SMALL_FORWARD_SCRATCH_BYTES + 2 * SMALL_FORWARD_THREAD_BYTES;
    memory.scratch = block(memory.scratch_bytes);
    for (size_t i = 0; i < SMALL_WEIGHTS_BYTES / 4; i++) ((float *)memory.weights)[i] = (float)(i * 2654435761u % 1000) / 5000.0f - 0.1f;
    for (int i = 0; i < SMALL_BATCH * SMALL_LENGTH; i++) tokens[i] = i * 7 % SMALL_VOCAB;
    int error = small_pack(&memory, threads);
    if (!error) error = small_forward(&memory, threads, tokens, logits, 0, 0);
    double sum = 0;
    for (int i = 0; i < SMALL_BATCH * SMALL_LENGTH * SMALL_VOCAB; i++) sum += (i % 7 - 3) * (double)logits[i];
    printf("%s, %.4f\n", small_error(error), sum);
    small_pool_free(pool);
    free(memory.weights), free(memory.packed), free(memory.scratch);
    return error != HD_OK;
}
