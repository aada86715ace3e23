/* Completes a text with GPT-2:  complete gpt2.packed TEXT [TOKENS [TEMPERATURE [SEED]]]
 *
 * The weights are a file of `heddle pack`, mapped and used where they lie; the tokenizer came with the model's sources. All memory is this
 * program's. Interrupted (^C), the model stops within a layer's time. */
#include "gpt2.h"
#include "gpt2_pool.h"
#include "gpt2_tokens.h"

#include <fcntl.h>
#include <math.h>
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

/* softmax(logits / temperature) drawn from; temperature 0: the likeliest. */
static int32_t draw(const float *logits, double temperature)
{
    int32_t best = 0;
    for (int32_t i = 1; i < GPT2_VOCAB; i++) if (logits[i] > logits[best]) best = i;
    if (temperature <= 0) return best;
    double sum = 0;
    for (int32_t i = 0; i < GPT2_VOCAB; i++) sum += exp(((double)logits[i] - (double)logits[best]) / temperature);
    double left = sum * drand48();
    for (int32_t i = 0; i < GPT2_VOCAB; i++)
        if ((left -= exp(((double)logits[i] - (double)logits[best]) / temperature)) < 0) return i;
    return best;
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
    memory.scratch_bytes = GPT2_FORWARD_SCRATCH_BYTES + (size_t)threads->count * GPT2_FORWARD_THREAD_BYTES;
    memory.scratch = block(memory.scratch_bytes);

    gpt2_encoder *encoder = gpt2_encoder_new();
    int32_t *tokens = calloc(GPT2_LENGTH, sizeof *tokens);
    float *logits = block(sizeof *logits * GPT2_BATCH * GPT2_LENGTH * GPT2_VOCAB);
    if (!encoder || !tokens) fail("memory", "there is not enough");
    int64_t count = gpt2_encode(encoder, argv[2], strlen(argv[2]), 1, tokens, GPT2_LENGTH);
    if (count < 1 || count > GPT2_LENGTH) fail("TEXT", count < 1 ? "no tokens" : "longer than the model's context");

    gpt2_decoder decoder = { 0 };
    char text[GPT2_TOKEN_ROOM];
    const int32_t end = gpt2_token("<|endoftext|>");
    for (int64_t i = 0; i < count; i++) fwrite(text, 1, gpt2_decode(&decoder, tokens[i], text), stdout);
    int error = HD_OK;
    for (int i = 0; i < more && count < GPT2_LENGTH; i++) {
        fflush(stdout);
        if ((error = gpt2_forward(&memory, threads, tokens, logits, 1, (int)count))) break;
        const int32_t next = draw(logits + (count - 1) * GPT2_VOCAB, temperature);
        if (next == end) break;
        fwrite(text, 1, gpt2_decode(&decoder, next, text), stdout);
        tokens[count++] = next;
    }
    fwrite(text, 1, gpt2_decode(&decoder, -1, text), stdout);
    putchar('\n');
    if (error && error != HD_CANCELLED) fail("gpt2", gpt2_error(error));

    gpt2_encoder_free(encoder);
    gpt2_pool_free(pool);
    free(memory.scratch), free(tokens), free(logits);
    return 0;
}
