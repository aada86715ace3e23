/* sample: continues a prompt with the full forward entry, one position at a time.
 *
 * When the context is full its older half is dropped, so that every token is predicted from more than length/2 tokens
 * before it, or from all. Draws are a function of (seed, index of the token) alone. */
#include "app.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/hd_pool.h"
#include "text.h"
#include "weights.h"

typedef struct choice { float logit; int32_t id; } choice;

static int by_logit(const void *a, const void *b)
{
    const choice *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* Draws from softmax(logits / temperature) cut to the top_k likeliest ids and to the fewest that hold top_p of the mass.
 * temperature 0: the likeliest (the smallest id of equals). `order` is room for the vocabulary. */
static int32_t draw(const float *logits, int64_t vocab, double temperature, int64_t top_k, double top_p, double unit, choice *order)
{
    for (int64_t i = 0; i < vocab; i++) {
        if (isnan(logits[i]) || logits[i] == INFINITY) hd_app_fail("sample: the logit of id %lld is %g; are the weights those of a run that went well?", (long long)i, (double)logits[i]);
        order[i] = (choice){ logits[i], (int32_t)i };
    }
    qsort(order, (size_t)vocab, sizeof *order, by_logit);
    if (temperature == 0) return order[0].id;
    int64_t kept = top_k > 0 && top_k < vocab ? top_k : vocab;
    double total = 0, largest = (double)order[0].logit, sum = 0;
    for (int64_t i = 0; i < kept; i++) total += exp(((double)order[i].logit - largest) / temperature);
    for (int64_t i = 0; i < kept && top_p < 1; i++) {
        sum += exp(((double)order[i].logit - largest) / temperature);
        if (sum >= top_p * total) {
            kept = i + 1;
            total = sum;
        }
    }
    double at = unit * total;
    for (int64_t i = 0; i < kept; i++) {
        at -= exp(((double)order[i].logit - largest) / temperature);
        if (at < 0) return order[i].id;
    }
    return order[kept - 1].id;
}

/* The prompt's tokens, at least 1: without a prompt a newline, or id 0 where tokens are no bytes. */
static int64_t read_prompt(const char *prompt, int32_t **out)
{
    int64_t count = hd_text_ids("--prompt", prompt, strlen(prompt), out);
    if (!count) (*out)[count++] = hd_app_bytes() && hd_model.vocab > '\n' ? '\n' : 0;
    return count;
}

int hd_command_sample(int argc, char **argv)
{
    const char *weights = NULL, *prompt = "";
    int64_t count = 400, top_k = 0, seed = 1, threads = hd_app_processors();
    double temperature = 0.8, top_p = 1;
    hd_option option[] = {
        { "weights", "FILE", HD_OPTION_TEXT, &weights, 0, 0, "weights (safetensors)", false },
        { "prompt", "TEXT", HD_OPTION_TEXT, &prompt, 0, 0, "what to continue; token ids if the model has no tokenizer and more than 256 tokens", false },
        { "tokens", "N", HD_OPTION_COUNT, &count, 0, 1e12, "how many to add", false },
        { "temperature", "X", HD_OPTION_REAL, &temperature, 0, 1e3, "0: always the likeliest; 1: the model's own distribution", false },
        { "top-k", "K", HD_OPTION_COUNT, &top_k, 0, 1e9, "draw from the K likeliest; 0: from all", false },
        { "top-p", "P", HD_OPTION_REAL, &top_p, 1e-9, 1, "draw from the fewest that hold P of the probability", false },
        { "seed", "S", HD_OPTION_COUNT, &seed, 0, 9e15, "of the draws", false },
        { "threads", "T", HD_OPTION_COUNT, &threads, 1, HD_MAX_THREADS, "threads", false },
    };
    hd_command command = { "sample", "", "continue a prompt", option, sizeof option / sizeof option[0], NULL, 0 };
    hd_options_parse(&command, argc, argv);
    hd_app_need_language_model("sample");
    if (!weights) hd_app_fail("sample: name the weights: --weights FILE (%s train writes them)", hd_model.name);
    const hd_entry_info *entry = hd_app_entry("forward");
    if (!entry->causal) hd_app_fail("sample: %s is not causal: its positions read later ones, so it cannot continue a text", hd_model.name);

    hd_memory memory = { .scratch_bytes = hd_app_scratch_bytes(entry, (int)threads) };
    void *block, *tensor[entry->inputs + entry->outputs];
    hd_area area[] = {
        { "weights", hd_model.weights_bytes, &memory.weights },
        { "packed weights", hd_app_packed_bytes(entry), &memory.packed },
        { "scratch", memory.scratch_bytes, &memory.scratch },
        { "inputs and outputs", hd_app_tensors_bytes(entry), &block },
    };
    hd_app_map_areas(area, 4);
    hd_app_bind_tensors(entry, block, tensor);
    int32_t *tokens = tensor[hd_app_need(entry, "tokens", false)];
    const float *logits = tensor[entry->inputs + hd_app_need(entry, "logits", true)];
    hd_weights_load(weights, memory.weights);

    int64_t length = hd_model.length, vocab = hd_model.vocab;
    int32_t *text;
    hd_text_printer printer = { 0 };
    int64_t prompt_count = read_prompt(prompt, &text), used = prompt_count < length ? prompt_count : length;
    memcpy(tokens, text + (prompt_count - used), (size_t)used * sizeof *tokens);
    choice *order = hd_app_alloc((size_t)vocab * sizeof *order);
    hd_pool *pool = hd_app_pool((int)threads);
    hd_app_pack(entry, &memory, hd_pool_threads(pool));

    if (*prompt)
        for (int64_t i = 0; i < prompt_count; i++) hd_text_print(&printer, text[i]);
    for (int64_t i = 0; i < count; i++) {
        int64_t rows = used + 1 - hd_model.ahead;        /* logits at position t are for token t + ahead */
        if (rows > length) {         /* full: the older half goes */
            used = length / 2;
            memmove(tokens, tokens + (length - used), (size_t)used * sizeof *tokens);
            rows = used + 1 - hd_model.ahead;
        }
        hd_app_call(entry, &memory, hd_pool_threads(pool), tensor, 1, (int)rows);
        int32_t id = draw(logits + (rows - 1) * vocab, vocab, temperature, top_k, top_p, hd_app_unit(hd_app_random((uint64_t)seed, (uint64_t)i, 0)), order);
        hd_text_print(&printer, id);
        if (used == length) {        /* full: the older half goes */
            used = length / 2;
            memmove(tokens, tokens + (length - used), (size_t)used * sizeof *tokens);
        }
        tokens[used++] = id;
    }
    hd_text_print(&printer, -1);
    putchar('\n');
    hd_pool_free(pool);
    return 0;
}
