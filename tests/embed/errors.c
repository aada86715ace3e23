/* Everything that can be wrong with a call of the model `small`: the code it returns, and that nothing was written. Prints "as documented". */
#include "small.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CANARY = 0xa5, AROUND = 256, LOGITS = SMALL_BATCH * SMALL_LENGTH * SMALL_VOCAB, IDS = SMALL_BATCH * SMALL_LENGTH };

/* A block with canaries before and behind. */
typedef struct block { unsigned char *at; size_t bytes; } block;
static block make(size_t bytes)
{
    block b = { aligned_alloc(64, (bytes + 2 * AROUND + 63) / 64 * 64), bytes };
    if (!b.at) exit(2);
    memset(b.at, CANARY, bytes + 2 * AROUND);
    b.at += AROUND;
    return b;
}
static int is_canary(const unsigned char *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) if (at[i] != CANARY) return 0;
    return 1;
}
static int whole_around(block b) { return is_canary(b.at - AROUND, AROUND) && is_canary(b.at + b.bytes, AROUND); }

enum { FORWARD = SMALL_FORWARD_SCRATCH_BYTES + SMALL_FORWARD_THREAD_BYTES, STEP = SMALL_TRAIN_STEP_SCRATCH_BYTES + SMALL_TRAIN_STEP_THREAD_BYTES };

int main(void)
{
    block weights = make(SMALL_WEIGHTS_BYTES), packed = make(SMALL_PACKED_BYTES), state = make(SMALL_STATE_BYTES), scratch = make(STEP), out = make(4 * LOGITS), norm = make(4);
    static int32_t tokens[IDS], targets[IDS];
    static const int32_t random[4] = { 7, 1, 0, 0 };
    static float hyper[16] = { 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 0.1f, 0.05f, 1, 0, 1 };
    float *logits = (float *)(void *)out.at;
    int wrong = 0;
    for (int i = 0; i < IDS; i++) tokens[i] = i % SMALL_VOCAB, targets[i] = (i + 1) % SMALL_VOCAB;
    const small_memory good = { weights.at, state.at, scratch.at, packed.at, NULL, STEP, NULL };
    const hd_threads none = { NULL, 0, NULL };
    int32_t outside[IDS], negative[IDS];
    memcpy(outside, tokens, sizeof outside), memcpy(negative, tokens, sizeof negative);
    outside[SMALL_LENGTH + 3] = SMALL_VOCAB, negative[5] = -1;

    const struct { const char *why; small_memory memory; const hd_threads *threads; const int32_t *tokens; float *logits; int sequences, used, code; } calls[] = {
        { "no threads", good, &none, tokens, logits, 0, 0, HD_ERROR_THREADS },
        { "no scratch", { weights.at, NULL, NULL, packed.at, NULL, STEP, NULL }, NULL, tokens, logits, 0, 0, HD_ERROR_SCRATCH },
        { "misaligned scratch", { weights.at, NULL, scratch.at + 32, packed.at, NULL, STEP, NULL }, NULL, tokens, logits, 0, 0, HD_ERROR_SCRATCH },
        { "one byte of scratch missing", { weights.at, NULL, scratch.at, packed.at, NULL, FORWARD - 1, NULL }, NULL, tokens, logits, 0, 0, HD_ERROR_SCRATCH_BYTES },
        { "size of scratch forgotten", { weights.at, NULL, scratch.at, packed.at, NULL, 0, NULL }, NULL, tokens, logits, 0, 0, HD_ERROR_SCRATCH_BYTES },
        { "no weights", { NULL, NULL, scratch.at, packed.at, NULL, STEP, NULL }, NULL, tokens, logits, 0, 0, HD_ERROR_MEMORY },
        { "misaligned weights", { weights.at + 4, NULL, scratch.at, packed.at, NULL, STEP, NULL }, NULL, tokens, logits, 0, 0, HD_ERROR_MEMORY },
        { "no packed weights", { weights.at, NULL, scratch.at, NULL, NULL, STEP, NULL }, NULL, tokens, logits, 0, 0, HD_ERROR_MEMORY },
        { "misaligned packed weights", { weights.at, NULL, scratch.at, packed.at + 16, NULL, STEP, NULL }, NULL, tokens, logits, 0, 0, HD_ERROR_MEMORY },
        { "no tokens", good, NULL, NULL, logits, 0, 0, HD_ERROR_ARGUMENT },
        { "no room for logits", good, NULL, tokens, NULL, 0, 0, HD_ERROR_ARGUMENT },
        { "more sequences than there are", good, NULL, tokens, logits, SMALL_BATCH + 1, 0, HD_ERROR_ARGUMENT },
        { "fewer than none", good, NULL, tokens, logits, -1, 0, HD_ERROR_ARGUMENT },
        { "more positions than there are", good, NULL, tokens, logits, 0, SMALL_LENGTH + 1, HD_ERROR_ARGUMENT },
        { "an id beyond the vocabulary", good, NULL, outside, logits, 0, 0, HD_ERROR_ARGUMENT },
        { "a negative id", good, NULL, negative, logits, 0, 0, HD_ERROR_ARGUMENT },
    };
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        const int code = small_forward(&calls[i].memory, calls[i].threads, calls[i].tokens, calls[i].logits, calls[i].sequences, calls[i].used);
        const int written = !is_canary(out.at - AROUND, out.bytes + 2 * AROUND) || !is_canary(scratch.at - AROUND, scratch.bytes + 2 * AROUND);
        if (code == calls[i].code && !written && *small_error(code)) continue;
        printf("%s: %d (%s)%s\n", calls[i].why, code, small_error(code), written ? ", and something was written" : "");
        wrong++;
    }

    const small_memory stateless = { weights.at, NULL, scratch.at, NULL, NULL, STEP, NULL }, unpacked = { weights.at, NULL, NULL, NULL, NULL, 0, NULL };
    wrong += small_train_step(&stateless, NULL, tokens, targets, hyper, random, logits, (float *)(void *)norm.at) != HD_ERROR_MEMORY || !is_canary(weights.at, weights.bytes);
    wrong += small_train_step(&good, NULL, outside, targets, hyper, random, logits, (float *)(void *)norm.at) != HD_ERROR_ARGUMENT || !is_canary(weights.at, weights.bytes);
    wrong += small_pack(&unpacked, NULL) != HD_ERROR_MEMORY;

    /* decoding: nothing is computed on a cache that was not started, or is another model's, or full */
    block cache = make(SMALL_CACHE_BYTES), row = make(4 * SMALL_VOCAB);
    float *next = (float *)(void *)row.at;
    small_memory decoding = good, no_cache = good, askew = good;
    decoding.cache = cache.at, askew.cache = cache.at + 8;
    wrong += small_start(&no_cache) != HD_ERROR_MEMORY || small_start(&askew) != HD_ERROR_MEMORY || small_position(&no_cache, 0) != HD_ERROR_MEMORY;
    wrong += small_prefill(&no_cache, NULL, 0, tokens, 1, next) != HD_ERROR_MEMORY || small_step(&no_cache, NULL, tokens, next) != HD_ERROR_MEMORY;
    wrong += small_prefill(&decoding, NULL, 0, tokens, 1, next) != HD_ERROR_CACHE || small_step(&decoding, NULL, tokens, next) != HD_ERROR_CACHE || small_rewind(&decoding, 0, 0) != HD_ERROR_CACHE;
    wrong += !is_canary(cache.at - AROUND, cache.bytes + 2 * AROUND) || !is_canary(row.at, row.bytes);
    wrong += small_start(&decoding) != HD_OK || small_position(&decoding, 0) != 0;
    ((unsigned char *)decoding.cache)[0] ^= 1;      /* as that of a model which differs a little */
    wrong += small_step(&decoding, NULL, tokens, next) != HD_ERROR_CACHE;
    ((unsigned char *)decoding.cache)[0] ^= 1;
    small_memory little = decoding;
    little.scratch_bytes = SMALL_STEP_SCRATCH_BYTES - 1;
    const struct { const char *why; int code, want; } decodes[] = {
        { "prefill of no tokens", small_prefill(&decoding, NULL, 0, tokens, 0, next), HD_ERROR_ARGUMENT },
        { "prefill of a negative count", small_prefill(&decoding, NULL, 0, tokens, -1, next), HD_ERROR_ARGUMENT },
        { "prefill without tokens", small_prefill(&decoding, NULL, 0, NULL, 3, next), HD_ERROR_ARGUMENT },
        { "prefill without logits", small_prefill(&decoding, NULL, 0, tokens, 3, NULL), HD_ERROR_ARGUMENT },
        { "prefill of a stream that is not there", small_prefill(&decoding, NULL, SMALL_STREAMS, tokens, 3, next), HD_ERROR_ARGUMENT },
        { "prefill of an id beyond the vocabulary", small_prefill(&decoding, NULL, 0, outside, SMALL_LENGTH + 4 < IDS ? SMALL_LENGTH + 4 : IDS, next), HD_ERROR_ARGUMENT },
        { "prefill of more than fits", small_prefill(&decoding, NULL, 0, tokens, SMALL_POSITIONS + 1, next), HD_ERROR_POSITIONS },
        { "prefill with too little scratch", small_prefill(&little, NULL, 0, tokens, 3, next), HD_ERROR_SCRATCH_BYTES },
        { "prefill without threads", small_prefill(&decoding, &none, 0, tokens, 3, next), HD_ERROR_THREADS },
        { "step of a negative id", small_step(&decoding, NULL, negative + 5, next), HD_ERROR_ARGUMENT },
        { "step without logits", small_step(&decoding, NULL, tokens, NULL), HD_ERROR_ARGUMENT },
        { "step with too little scratch", small_step(&little, NULL, tokens, next), HD_ERROR_SCRATCH_BYTES },
        { "rewind to what was not computed", small_rewind(&decoding, 0, 1), HD_ERROR_ARGUMENT },
    };
    for (unsigned i = 0; i < sizeof decodes / sizeof *decodes; i++)
        if (decodes[i].code != decodes[i].want) printf("%s: %d (%s)\n", decodes[i].why, decodes[i].code, small_error(decodes[i].code)), wrong++;
    wrong += small_position(&decoding, 0) != 0 || !is_canary(row.at, row.bytes) || !is_canary(scratch.at, scratch.bytes);

    /* what is exactly enough is enough, and nothing beyond it is touched; ids that do not matter may be anything */
    memset(weights.at, 0, weights.bytes), memset(state.at, 0, state.bytes);
    for (size_t i = 0; i < weights.bytes / 4; i++) ((float *)(void *)weights.at)[i] = (float)(i % 13) / 40.0f - 0.1f;
    small_memory exact = good;
    exact.scratch_bytes = FORWARD;
    wrong += small_pack(&good, NULL) != HD_OK || small_forward(&exact, NULL, tokens, logits, 0, 0) != HD_OK || small_forward(&exact, NULL, outside, logits, 1, 0) != HD_OK
             || small_forward(&exact, NULL, outside, logits, 0, 3) != HD_OK;
    wrong += !is_canary(scratch.at + FORWARD, STEP - FORWARD);
    wrong += small_train_step(&good, NULL, tokens, targets, hyper, random, logits, (float *)(void *)norm.at) != HD_OK;
    memset(scratch.at, CANARY, scratch.bytes);
    decoding.scratch_bytes = SMALL_PREFILL_SCRATCH_BYTES + SMALL_PREFILL_THREAD_BYTES;
    wrong += small_pack(&good, NULL) != HD_OK || small_prefill(&decoding, NULL, 0, tokens, SMALL_POSITIONS, next) != HD_OK || !is_canary(scratch.at + decoding.scratch_bytes, STEP - decoding.scratch_bytes);
    wrong += small_position(&decoding, 0) != SMALL_POSITIONS || small_step(&decoding, NULL, tokens, next) != HD_ERROR_POSITIONS || small_rewind(&decoding, 0, SMALL_POSITIONS - 1) != HD_OK;
    memset(scratch.at, CANARY, scratch.bytes);
    decoding.scratch_bytes = SMALL_STEP_SCRATCH_BYTES + SMALL_STEP_THREAD_BYTES;
    wrong += small_step(&decoding, NULL, tokens, next) != HD_OK || !is_canary(scratch.at + decoding.scratch_bytes, STEP - decoding.scratch_bytes);
    if (!whole_around(cache) || !whole_around(row)) printf("written beyond the cache or its logits\n"), wrong++;
    if (!whole_around(weights) || !whole_around(packed) || !whole_around(state) || !whole_around(scratch) || !whole_around(out) || !whole_around(norm)) printf("written beyond a block\n"), wrong++;
    printf(wrong ? "%d wrong\n" : "as documented\n", wrong);
    return wrong != 0;
}
