/* Completes a text with GPT-2:  complete gpt2.packed TEXT [TOKENS [TEMPERATURE [SEED]]]
 *
 * The weights are a file of `heddle pack`, mapped and used where they lie; the tokenizer came with the model's sources. All memory is this
 * program's. Interrupted (^C), the model stops within a layer's time. */
#include "gpt2.h"
#include "gpt2_pool.h"
#include "gpt2_sampler.h"
#include "gpt2_tokens.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal) { (void)signal, interrupted = 1; }

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "complete: %s: %s\n", what, why);
    exit(1);
}

static void *block(size_t bytes)
{
    void *at = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!at) fail("memory", "there is not enough");
    return at;
}

static const char *map(const char *path, size_t *bytes)
{
    struct stat s;
    const int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &s)) fail(path, "cannot be read");
    void *at = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (at == MAP_FAILED) fail(path, "cannot be mapped");
    close(file);
    return *bytes = (size_t)s.st_size, at;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: complete gpt2.packed TEXT [TOKENS [TEMPERATURE [SEED]]]\n");
        return 2;
    }
    const int more = argc > 3 ? atoi(argv[3]) : 40;
    const double temperature = argc > 4 ? atof(argv[4]) : 0.8;
    srand48(argc > 5 ? atol(argv[5]) : 1);
    signal(SIGINT, on_interrupt);

    size_t bytes;
    const char *file = map(argv[1], &bytes);
    if (gpt2_check_packed(file, bytes)) fail(argv[1], "is not this model's: make it by heddle pack, for the same spec and target");
    gpt2_pool *pool = gpt2_pool_new((int)sysconf(_SC_NPROCESSORS_ONLN));
    if (!pool) fail("threads", "cannot be started");
    const hd_threads *threads = gpt2_pool_threads(pool);
    gpt2_memory memory = { .weights = (void *)(file + GPT2_FILE_WEIGHTS), .packed = (void *)(file + GPT2_FILE_PACKED), .cancel = &interrupted };
    const size_t prefill = GPT2_PREFILL_SCRATCH_BYTES + (size_t)threads->count * GPT2_PREFILL_THREAD_BYTES;
    const size_t step = GPT2_STEP_SCRATCH_BYTES + (size_t)threads->count * GPT2_STEP_THREAD_BYTES;
    memory.scratch_bytes = prefill > step ? prefill : step;
    memory.scratch = block(memory.scratch_bytes);
    memory.cache = block(GPT2_CACHE_BYTES);
    gpt2_start(&memory);

    /* each byte is a token at most, and something may stand before them */
    const int64_t room = (int64_t)strlen(argv[2]) + 8;
    gpt2_encoder *encoder = gpt2_encoder_new();
    gpt2_sampler sampler;
    int32_t *tokens = malloc((size_t)room * sizeof *tokens);
    float *logits = block(sizeof *logits * GPT2_VOCAB);
    if (!encoder || !tokens || !gpt2_sampler_init(&sampler, GPT2_VOCAB)) fail("memory", "there is not enough");
    const int64_t count = gpt2_encode(encoder, argv[2], strlen(argv[2]), 1, tokens, room);
    if (count < 1) fail("TEXT", "no tokens");

    gpt2_decoder decoder = { 0 };
    char text[GPT2_TOKEN_ROOM];
    for (int64_t i = 0; i < count; i++) fwrite(text, 1, gpt2_decode(&decoder, tokens[i], text), stdout);
    const gpt2_sampling how = { .penalty = 1, .temperature = temperature, .top_k = 0, .top_p = 0.95, .min_p = 0 };
    const int32_t end = gpt2_token("<|endoftext|>");
    int error = gpt2_prefill(&memory, threads, 0, tokens, count, logits);
    for (int i = 0; i < more && !error; i++) {
        const int32_t next = (int32_t)gpt2_sampler_draw(&sampler, &how, logits, NULL, 0, drand48());
        if (next == end) break;
        if (next < 0) fail("gpt2", "the logits are not finite");
        fwrite(text, 1, gpt2_decode(&decoder, next, text), stdout);
        fflush(stdout);
        error = gpt2_step(&memory, threads, &next, logits);
    }
    fwrite(text, 1, gpt2_decode(&decoder, -1, text), stdout);
    putchar('\n');
    if (error && error != HD_CANCELLED) fail("gpt2", gpt2_error(error));

    gpt2_encoder_free(encoder);
    gpt2_pool_free(pool);
    gpt2_sampler_free(&sampler);
    free(memory.scratch), free(memory.cache), free(tokens), free(logits);
    return 0;
}
