/* Streams of tokens (generate.h). */
#include "generate.h"

#include <stdlib.h>
#include <string.h>

#include "../core/hd_pool.h"
#include "weights.h"

static void need(const char *what, int error)
{
    if (error) hd_app_fail("%s: %s: %s", hd_model.name, what, hd_error_text(error));
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static void map_cached(hd_generator *g, int threads)
{
    static const char *const names[] = { "prefill", "step" };
    size_t scratch = 0;
    for (int i = 0; i < 2; i++) {
        const hd_entry_info *entry = hd_app_entry_or_null(names[i]);
        if (!entry) continue;
        scratch = most(scratch, hd_app_scratch_bytes(entry, threads));
    }
    g->memory.scratch_bytes = scratch;
    const hd_area area[] = {
        { "scratch", scratch, &g->memory.scratch },
        { "cache", hd_model.decode->cache_bytes, &g->memory.cache },
    };
    hd_app_map_areas(area, 2);
    g->streams = hd_model.decode->streams;
    g->room = hd_model.decode->positions;
}

static void map_forward(hd_generator *g, int threads)
{
    void *block;
    g->forward = hd_app_entry("forward");
    g->memory.scratch_bytes = hd_app_scratch_bytes(g->forward, threads);
    const hd_area area[] = {
        { "scratch", g->memory.scratch_bytes, &g->memory.scratch },
        { "inputs and outputs", hd_app_tensors_bytes(g->forward), &block },
    };
    hd_app_map_areas(area, 2);
    g->tensor = hd_app_alloc((size_t)(g->forward->inputs + g->forward->outputs) * sizeof *g->tensor);
    hd_app_bind_tensors(g->forward, block, g->tensor);
    g->tokens = g->tensor[hd_app_need(g->forward, "tokens", false)];
    g->logits = g->tensor[g->forward->inputs + hd_app_need(g->forward, "logits", true)];
    g->streams = 1;
    g->room = hd_model.length;
}

hd_generator *hd_generator_open(const char *weights, int threads)
{
    hd_generator *g = hd_app_alloc(sizeof *g);
    if (hd_model.decode) map_cached(g, threads);
    else map_forward(g, threads);
    if (g->room && !hd_model.ahead) g->room--;           /* the logits of a stream's last token are at its own position */
    g->taken = hd_app_alloc((size_t)g->streams * sizeof *g->taken);
    g->next = hd_app_alloc((size_t)g->streams * sizeof *g->next);
    hd_weights_open("sample", weights, false, &g->memory);
    g->pool = hd_app_pool(threads);
    if (hd_model.decode) need("starting the cache", hd_model.decode->start(&g->memory));
    return g;
}

void hd_generator_close(hd_generator *g)
{
    hd_pool_free(g->pool);
    free(g->tensor);
    free(g->taken);
    free(g->next);
    free(g);
}

static void forward(hd_generator *g, float *logits)
{
    const int64_t rows = g->taken[0] + 1 - hd_model.ahead, vocab = hd_model.vocab;        /* logits at position t are for token t + ahead */
    hd_weights_pack(g->forward, &g->memory, hd_pool_threads(g->pool));
    hd_app_call(g->forward, &g->memory, hd_pool_threads(g->pool), g->tensor, 1, (int)rows);
    memcpy(logits, g->logits + (rows - 1) * vocab, (size_t)vocab * sizeof *logits);
}

/* Panels, once an entry is called that reads them. */
static void pack_for(hd_generator *g, const char *name)
{
    const hd_entry_info *entry = hd_app_entry_or_null(name);
    if (entry) hd_weights_pack(entry, &g->memory, hd_pool_threads(g->pool));
}

/* A stream's tokens by its position: the start of a model that predicts its first token is a position too. */
static int64_t tokens_before(int64_t position) { return hd_model.ahead || !position ? position : position - 1; }

bool hd_generator_feed(hd_generator *g, int stream, const int32_t *tokens, int64_t count, float *logits)
{
    if (g->forward) {
        if (count) memcpy(g->tokens + g->taken[0], tokens, (size_t)count * sizeof *tokens);
        g->taken[0] += count;
        forward(g, logits);
        return true;
    }
    const hd_decode_info *decode = hd_model.decode;
    const hd_threads *threads = hd_pool_threads(g->pool);
    int error;
    if (count == 1 && g->taken[stream]) {
        for (int i = 0; i < g->streams; i++) g->next[i] = i == stream ? *tokens : -1;
        pack_for(g, "step");
        error = decode->step(&g->memory, threads, g->next, logits);
    } else {
        pack_for(g, "prefill");
        error = decode->prefill(&g->memory, threads, stream, tokens, count, logits + stream * hd_model.vocab);
    }
    if (error != HD_CANCELLED) need("decoding", error);
    g->taken[stream] = error ? tokens_before(decode->position(&g->memory, stream)) : g->taken[stream] + count;
    return !error;
}

void hd_generator_step(hd_generator *g, const int32_t *tokens, float *logits)
{
    if (g->forward) {
        if (*tokens >= 0) hd_generator_feed(g, 0, tokens, 1, logits);
        return;
    }
    pack_for(g, "step");
    need("decoding", hd_model.decode->step(&g->memory, hd_pool_threads(g->pool), tokens, logits));
    for (int i = 0; i < g->streams; i++) g->taken[i] += tokens[i] >= 0;
}

void hd_generator_clear(hd_generator *g, int stream)
{
    g->taken[stream] = 0;
    if (hd_model.decode) need("emptying a stream of the cache", hd_model.decode->rewind(&g->memory, stream, 0));
}

bool hd_generator_rewind(hd_generator *g, int stream, int64_t taken)
{
    if (taken > g->taken[stream]) return false;
    if (hd_model.decode && hd_model.decode->rewind(&g->memory, stream, hd_model.ahead ? taken : taken + 1) != 0) return false;
    g->taken[stream] = taken;
    return true;
}
