/* A hand-written model behind hd_model.h: the test double for the application part.
 *
 *   hidden = dropout(embed[token]);  logits = hidden head^T + bias;  loss = mean over counted targets of nll
 *
 * forward and loss read a packed copy of the weights, which is stale unless it is made after every change.
 * Real gradients, AdamW as the compiler's train_step defines it, work cut into a fixed number of slots. In the
 * environment, counted in calls of train_step: TINY_NAN_STEP makes the loss of that call NaN, TINY_STOP_STEP makes that
 * call raise SIGTERM.
 *
 * HEDDLE_CPU chooses among its variants: "any", the plain one; "cached", which decodes with a cache of 3 streams; "image" (3 channels),
 * "planar", "palette" (with a token to begin after) and "sound", whose tokens are those. TINY_TRACE names a file that gets a line for
 * each call of the decoding functions, TINY_SLOW makes prefill wait until it is cancelled. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../runtime/app/media.h"
#include "../../runtime/core/hd_random.h"

enum { VOCAB = 256, WIDTH = 16, LENGTH = 32, BATCH = 4, POSITIONS = BATCH * LENGTH, SLOTS = 8 };
enum { LR, BETA1, BETA2, EPSILON, DECAY, CLIP, CORRECTION1, CORRECTION2, SCALE, ACCUMULATE, UPDATE, HYPER = 16 };
enum { EMBED = 0, HEAD = EMBED + VOCAB * WIDTH, BIAS = HEAD + VOCAB * WIDTH, PARAMETERS = BIAS + VOCAB };
static const double drop = 0.1;

typedef struct scratch {
    float nll[POSITIONS];
    float gradient[SLOTS][PARAMETERS];
} scratch;

typedef struct job {
    const float *weights;
    const int32_t *tokens, *targets, *random;      /* random NULL: no dropout */
    float *logits, *nll, *state, *scaled_weights;
    scratch *scratch;
    const float *hyper;
    int sequences, used;
    bool gradients;
    double counted;
} job;

/* Forward, and backward if asked, of every SLOTS-th position: its gradients go to the slot's own sum. */
static void positions_slot(void *argument, int slot, int thread)
{
    const job *j = argument;
    float *g = j->gradients ? j->scratch->gradient[slot] : NULL;
    (void)thread;
    if (g) memset(g, 0, PARAMETERS * sizeof *g);
    for (int p = slot; p < POSITIONS; p += SLOTS) {
        if (p / LENGTH >= j->sequences || p % LENGTH >= j->used) continue;
        const float *embed = j->weights + EMBED + j->tokens[p] * WIDTH;
        float hidden[WIDTH], keep[WIDTH], logits[VOCAB], largest = -INFINITY;
        for (int e = 0; e < WIDTH; e++) {
            keep[e] = 1;
            if (j->random) {
                hd_random_keys key = hd_random_key((uint32_t)j->random[0], (uint32_t)j->random[1], 0);
                bool kept = hd_random_bits(key, (uint32_t)(p * WIDTH + e)) >> 8 >= hd_dropout_threshold(drop);
                keep[e] = kept ? (float)(1 / (1 - drop)) : 0;
            }
            hidden[e] = embed[e] * keep[e];
        }
        for (int v = 0; v < VOCAB; v++) {
            logits[v] = j->weights[BIAS + v];
            for (int e = 0; e < WIDTH; e++) logits[v] += hidden[e] * j->weights[HEAD + v * WIDTH + e];
            if (logits[v] > largest) largest = logits[v];
        }
        if (j->logits) memcpy(j->logits + (size_t)p * VOCAB, logits, sizeof logits);
        if (!j->targets) continue;
        float sum = 0;
        for (int v = 0; v < VOCAB; v++) sum += expf(logits[v] - largest);
        int target = j->targets[p];
        j->nll[p] = target < 0 ? 0 : logf(sum) + largest - logits[target];
        if (!g || target < 0) continue;
        for (int v = 0; v < VOCAB; v++) {
            float d = (expf(logits[v] - largest) / sum - (v == target)) / (float)j->counted;
            g[BIAS + v] += d;
            for (int e = 0; e < WIDTH; e++) {
                g[HEAD + v * WIDTH + e] += d * hidden[e];
                g[EMBED + j->tokens[p] * WIDTH + e] += d * keep[e] * j->weights[HEAD + v * WIDTH + e];
            }
        }
    }
}

static void join_slot(void *argument, int slot, int thread)
{
    const job *j = argument;
    (void)thread;
    for (int i = slot; i < PARAMETERS; i += SLOTS) {
        float sum = j->hyper[ACCUMULATE] != 0 ? j->state[i] : 0;
        for (int s = 0; s < SLOTS; s++) sum += j->scratch->gradient[s][i];
        j->state[i] = sum;
    }
}

static void run_positions(job *j, const hd_threads *threads)
{
    hd_run run = { .threads = threads };
    j->counted = 0;
    for (int p = 0; j->targets && p < POSITIONS; p++) j->counted += j->targets[p] >= 0 && p / LENGTH < j->sequences && p % LENGTH < j->used;
    hd_run_slots(&run, positions_slot, j, SLOTS);
    if (j->gradients) hd_run_slots(&run, join_slot, j, SLOTS);
}

static float mean_nll(const job *j)
{
    float sum = 0;
    for (int p = 0; p < POSITIONS; p++)
        if (p / LENGTH < j->sequences && p % LENGTH < j->used) sum += j->nll[p];
    return j->counted > 0 ? sum / (float)j->counted : 0;
}

static int pack(const hd_memory *memory, const hd_threads *threads)
{
    (void)threads;
    if (!memory->packed) return HD_ERROR_MEMORY;
    memcpy(memory->packed, memory->weights, PARAMETERS * sizeof(float));
    return 0;
}

static int forward(const hd_memory *memory, const hd_threads *threads, void *const *tensors, int sequences, int used)
{
    if (!memory->packed) return HD_ERROR_MEMORY;
    job j = { .weights = memory->packed, .tokens = tensors[0], .logits = tensors[1], .sequences = sequences ? sequences : BATCH, .used = used ? used : LENGTH };
    run_positions(&j, threads);
    return 0;
}

static int loss(const hd_memory *memory, const hd_threads *threads, void *const *tensors, int sequences, int used)
{
    if (!memory->packed) return HD_ERROR_MEMORY;
    job j = { .weights = memory->packed, .tokens = tensors[0], .targets = tensors[1], .nll = tensors[3], .sequences = sequences ? sequences : BATCH, .used = used ? used : LENGTH };
    run_positions(&j, threads);
    *(float *)tensors[2] = mean_nll(&j);
    return 0;
}

static float update(const job *j, float *weights)
{
    const float *h = j->hyper;
    float *m = j->state + PARAMETERS, *v = m + PARAMETERS, norm = 0;
    for (int i = 0; i < PARAMETERS; i++) norm += h[SCALE] * j->state[i] * h[SCALE] * j->state[i];
    norm = sqrtf(norm);
    float factor = h[SCALE] * (h[CLIP] > 0 && norm > h[CLIP] ? h[CLIP] / norm : 1);
    for (int i = 0; h[UPDATE] != 0 && i < PARAMETERS; i++) {
        float g = factor * j->state[i];
        m[i] = h[BETA1] * m[i] + (1 - h[BETA1]) * g;
        v[i] = h[BETA2] * v[i] + (1 - h[BETA2]) * g * g;
        if (i < BIAS) weights[i] -= h[LR] * h[DECAY] * weights[i];
        weights[i] -= h[LR] * (m[i] / h[CORRECTION1]) / (sqrtf(v[i] / h[CORRECTION2]) + h[EPSILON]);
    }
    return norm;
}

/* inputs tokens, targets, hyper, random; outputs loss, gradient_norm */
static int train_step(const hd_memory *memory, const hd_threads *threads, void *const *tensors, int sequences, int used)
{
    scratch *s = memory->scratch;
    job j = { .weights = memory->weights, .tokens = tensors[0], .targets = tensors[1], .hyper = tensors[2], .random = tensors[3], .nll = s->nll,
              .state = memory->state, .scratch = s, .sequences = sequences ? sequences : BATCH, .used = used ? used : LENGTH, .gradients = true };
    run_positions(&j, threads);
    *(float *)tensors[4] = mean_nll(&j);
    const char *bad = getenv("TINY_NAN_STEP");
    if (bad && j.random[1] == atoi(bad)) {
        j.state[HEAD + 3] = NAN;
        *(float *)tensors[4] = NAN;
    }
    const char *stop = getenv("TINY_STOP_STEP");
    if (stop && j.random[1] == atoi(stop)) raise(SIGTERM);
    *(float *)tensors[5] = update(&j, memory->weights);
    return 0;
}

#define TOKENS { "tokens", HD_TYPE_I32, 2, { BATCH, LENGTH } }
#define TARGETS { "targets", HD_TYPE_I32, 2, { BATCH, LENGTH } }
#define LOSS { "loss", HD_TYPE_F32, 1, { 1 } }
static const hd_tensor forward_in[] = { TOKENS }, forward_out[] = { { "logits", HD_TYPE_F32, 3, { BATCH, LENGTH, VOCAB } } };
static const hd_tensor loss_in[] = { TOKENS, TARGETS }, loss_out[] = { LOSS, { "nll", HD_TYPE_F32, 2, { BATCH, LENGTH } } };
static const hd_tensor train_in[] = { TOKENS, TARGETS, { "hyper", HD_TYPE_F32, 1, { HYPER } }, { "random", HD_TYPE_I32, 1, { 4 } } };
static const hd_tensor train_out[] = { LOSS, { "gradient_norm", HD_TYPE_F32, 1, { 1 } } };
#define FLOPS (2.0 * POSITIONS * VOCAB * WIDTH)
static const int32_t kinds[] = { 0, 1 };
static const hd_step forward_steps[] = { { "positions", "tiny.lua:1", FLOPS, FLOPS, { { 4.0 * PARAMETERS }, { 0 } } } };
static const hd_step train_steps[] = { { "positions", "tiny.lua:1", 3 * FLOPS, 2 * FLOPS, { { 8.0 * PARAMETERS }, { 0 } } },      /* as if a third were computed again */
                                      { "join", "tiny.lua:1", SLOTS * PARAMETERS, 0, { { 4.0 * SLOTS * PARAMETERS }, { 4.0 * PARAMETERS } } } };

static const hd_entry_info entries[] = {
    { "forward", 1, 1, forward_in, forward_out, 0, 0, 0, true, false, true, false, forward, 1, kinds, forward_steps, FLOPS },
    { "loss", 2, 2, loss_in, loss_out, 0, 0, 0, true, false, true, false, loss, 1, kinds, forward_steps, FLOPS },
    { "train_step", 4, 2, train_in, train_out, sizeof(scratch), 0, sizeof(scratch), true, true, false, false, train_step, 2, kinds, train_steps, 3 * FLOPS },
};
static const hd_weight weights[] = {
    { "transformer.embed.weight", 2, { VOCAB, WIDTH }, EMBED * sizeof(float), 1, 0.1, true },
    { "head.weight", 2, { VOCAB, WIDTH }, HEAD * sizeof(float), 2, 0.1, true },
    { "head.bias", 1, { VOCAB }, BIAS * sizeof(float), 0, 0, false },
};
static const hd_pattern_info patterns[] = { { .name = "own position only", .queries = LENGTH, .keys = LENGTH, .kept_pairs = LENGTH, .density = 1.0 / LENGTH } };
static const char *const config[][2] = { { "length", "32" }, { "width", "16" } };

/* ---- decoding: the cache holds the tokens of each stream ---- */

enum { STREAMS = 3, MAGIC = 0x54494e59 };
typedef struct cache { int magic, count[STREAMS]; int32_t tokens[STREAMS][LENGTH]; } cache;

static void trace(const char *format, ...)
{
    FILE *file = getenv("TINY_TRACE") ? fopen(getenv("TINY_TRACE"), "a") : NULL;
    if (!file) return;
    va_list list;
    va_start(list, format);
    vfprintf(file, format, list);
    va_end(list);
    fclose(file);
}

static int start(const hd_memory *memory)
{
    memset(memory->cache, 0, sizeof(cache));
    ((cache *)memory->cache)->magic = MAGIC;
    return 0;
}

static int rewind_to(const hd_memory *memory, int stream, int64_t position)
{
    cache *c = memory->cache;
    if (c->magic != MAGIC || stream < 0 || stream >= STREAMS || position < 0 || position > c->count[stream]) return -1;
    c->count[stream] = (int)position;
    trace("rewind %d to %d\n", stream, (int)position);
    return 0;
}

static int64_t position_of(const hd_memory *memory, int stream) { return ((cache *)memory->cache)->count[stream]; }

static int take(const hd_memory *memory, int stream, const int32_t *tokens, int64_t count, float *logits)
{
    cache *c = memory->cache;
    const float *values = memory->weights;
    if (c->magic != MAGIC || stream < 0 || stream >= STREAMS || count < 1 || c->count[stream] + count > LENGTH) return -1;
    for (int64_t i = 0; i < count; i++) c->tokens[stream][c->count[stream]++] = tokens[i];
    const float *embed = values + EMBED + tokens[count - 1] * WIDTH;
    for (int v = 0; v < VOCAB; v++) {
        logits[v] = values[BIAS + v];
        for (int e = 0; e < WIDTH; e++) logits[v] += embed[e] * values[HEAD + v * WIDTH + e];
    }
    return 0;
}

static int prefill(const hd_memory *memory, const hd_threads *threads, int stream, const int32_t *tokens, int64_t count, float *logits)
{
    (void)threads;
    if (getenv("TINY_SLOW") && count > 4) {
        take(memory, stream, tokens, 4, logits);                 /* a chunk */
        for (int i = 0; i < 1000 && !hd_cancelled(memory->cancel); i++) usleep(10000);
        return HD_CANCELLED;
    }
    trace("prefill %d:", stream);
    for (int64_t i = 0; i < count; i++) trace(" %d", tokens[i]);
    trace("\n");
    return take(memory, stream, tokens, count, logits);
}

static int step(const hd_memory *memory, const hd_threads *threads, const int32_t *tokens, float *logits)
{
    int status = 0;
    (void)threads;
    trace("step %d %d %d\n", tokens[0], tokens[1], tokens[2]);
    for (int s = 0; s < STREAMS; s++)
        if (tokens[s] >= 0) status |= take(memory, s, tokens + s, 1, logits + s * VOCAB);
        else for (int v = 0; v < VOCAB; v++) logits[s * VOCAB + v] = NAN;
    return status;
}

static const hd_decode_info decode = { .streams = STREAMS, .chunk = 4, .positions = LENGTH, .cache_bytes = sizeof(cache), .dense_cache_bytes = sizeof(cache), .start = start,
                                       .rewind = rewind_to, .position = position_of, .prefill = prefill, .step = step };

static const int32_t line_break = '\n', before_all = 255;
static const unsigned char colours[] = { 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255 };
static const hd_image_info image = { .width = 4, .height = 2, .channels = 3, .library = &hd_image_png };
static const hd_image_info planar = { .width = 4, .height = 2, .channels = 3, .planar = true, .library = &hd_image_png };
static const hd_image_info palette = { .width = 5, .height = 3, .channels = 3, .colours = 4, .palette = colours, .library = &hd_image_png };
static const hd_sound_info sound = { .rate = 8000, .encoding = HD_SOUND_MU_LAW, .library = &hd_sound_sndfile };

#define TINY \
    .name = "tiny", .version = "test", .spec = "tiny.lua", .compiler = "cc", .kind = "language_model", \
    .length = LENGTH, .vocab = VOCAB, .ids = VOCAB, .batch = BATCH, .ahead = 1, .parameters = PARAMETERS, \
    .weights_bytes = PARAMETERS * sizeof(float), .packed_bytes = PARAMETERS * sizeof(float), .pack = pack, .state_bytes = 3 * PARAMETERS * sizeof(float), \
    .weights = 3, .weight = weights, .entries = 3, .entry = entries, .patterns = 1, .pattern = patterns, .configs = 2, .config = config, \
    .training = { true, 1e-2, 0.1, 0.9, 0.99, 1e-8, 0.01, 1.0, 0, 10, 8 }
static const hd_model_info tiny = { .target = "any", TINY };
static const hd_model_info tiny_cached = { .target = "cached", .decode = &decode, .ends = 1, .end = &line_break, TINY };
static const hd_model_info tiny_image = { .target = "image", .image = &image, TINY };
static const hd_model_info tiny_planar = { .target = "planar", .image = &planar, TINY };
static const hd_model_info tiny_palette = { .target = "palette", .image = &palette, .start = &before_all, TINY };
static const hd_model_info tiny_sound = { .target = "sound", .sound = &sound, TINY };
const hd_model_info *const hd_model_variants[] = { &tiny, &tiny_cached, &tiny_image, &tiny_planar, &tiny_palette, &tiny_sound, NULL };
int hd_command_info(int argc, char **argv), hd_command_train(int argc, char **argv), hd_command_eval(int argc, char **argv), hd_command_sample(int argc, char **argv);
int hd_command_attention(int argc, char **argv), hd_command_tokenize(int argc, char **argv), hd_command_run(int argc, char **argv), hd_command_bench(int argc, char **argv);
const hd_model_command hd_model_commands[] = {
    { "info", hd_command_info }, { "train", hd_command_train }, { "eval", hd_command_eval }, { "sample", hd_command_sample }, { "attention", hd_command_attention },
    { "tokenize", hd_command_tokenize }, { "run", hd_command_run }, { "bench", hd_command_bench }, { NULL, NULL },
};
const hd_model_info *hd_model_chosen = &tiny;
