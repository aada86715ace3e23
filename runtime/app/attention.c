/* attention: which positions each head reads at a prompt, as a page to look at.
 *
 * Entry `forward` runs as it is. Every kernel starts through hd_threads.run, so a wrapper of that function sees the call before
 * which q and k of an attention op are in place (hd_model.attention), and computes the weights of the kept pairs from them there:
 * one layer at a time, in memory that does not grow with the layers. */
#include "attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/hd_pool.h"
#include "file.h"
#include "progress.h"
#include "text.h"
#include "weights.h"

typedef struct watch {
    const hd_threads *inner;
    const hd_memory *memory;
    void *const *tensor;
    hd_attention_view *view;
    int step, layer;                 /* calls seen; the attention op that comes next */
    int first;                       /* of the layer's heads, in view->head */
} watch;

static const void *place(const watch *w, const hd_operand *o)
{
    switch (o->place) {
    case HD_IN_SCRATCH: return (const unsigned char *)w->memory->scratch + o->offset;
    case HD_IN_WEIGHTS: return (const unsigned char *)w->memory->weights + o->offset;
    case HD_IN_TENSOR: return (const unsigned char *)w->tensor[o->tensor] + o->offset;
    case HD_NOWHERE: break;
    }
    return NULL;
}

/* Eight sums, so that a compiler keeps them in vectors. */
static float dot(const float *a, const float *b, int64_t count)
{
    float sum[8] = { 0 };
    int64_t e = 0;
    for (; e + 8 <= count; e += 8)
        for (int k = 0; k < 8; k++) sum[k] += a[e + k] * b[e + k];
    for (; e < count; e++) sum[e % 8] += a[e] * b[e];
    return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

/* What one head of one op reads. */
typedef struct operands {
    const hd_attention_info *a;
    int64_t head;
    const float *q, *bias, *key_bias, *edge_bias;
    float *k;                        /* [used][head_dim], side by side: every query walks over them */
    const int32_t *bounds;
    double sink;                     /* its score; -inf: none */
} operands;

static operands operands_of(const watch *w, int layer, int64_t head)
{
    const hd_attention_info *a = &hd_model.attention[layer];
    operands o = { .a = a, .head = head, .sink = -INFINITY };
    o.q = (const float *)place(w, &a->q) + head * a->q.head;
    const float *k = (const float *)place(w, &a->k) + head / (a->heads / a->kv_heads) * a->k.head;
    o.k = hd_app_alloc((size_t)(w->view->used * a->head_dim) * sizeof *o.k);
    for (int64_t j = 0; j < w->view->used; j++) memcpy(o.k + j * a->head_dim, k + j * a->k.row, (size_t)a->head_dim * sizeof *k);
    if (a->bias.place) o.bias = (const float *)place(w, &a->bias) + head * a->bias.head;
    if (a->key_bias.place) o.key_bias = place(w, &a->key_bias);
    if (a->edge_bias.place) o.edge_bias = (const float *)place(w, &a->edge_bias) + head * a->edge_bias.head;
    if (a->bounds.place) o.bounds = place(w, &a->bounds);
    if (a->sinks.place) o.sink = ((const float *)place(w, &a->sinks))[head];
    return o;
}

/* The formula of hd_attention_info; edge: the pair's number. */
static float score(const operands *o, int64_t i, int64_t j, int64_t edge)
{
    const hd_attention_info *a = o->a;
    double s = a->scale * (double)dot(o->q + i * a->q.row, o->k + j * a->head_dim, a->head_dim);
    int64_t d = i + a->offset - j;
    if (a->softcap > 0) s = a->softcap * tanh(s / a->softcap);
    if (a->alibi) s -= a->alibi[o->head] * (double)(d < 0 ? -d : d);
    if (o->bias) {
        int64_t at = d - a->first;
        s += (double)o->bias[a->bucket[at < 0 ? 0 : at >= a->count ? a->count - 1 : at]];
    }
    if (o->key_bias) s += (double)o->key_bias[j];
    if (o->edge_bias) s += (double)o->edge_bias[edge];
    return (float)s;
}

/* Leaves out the pairs below a higher level, so that half of the room is free for `rows` rows. */
static void thin(hd_attention_head *h, int64_t rows)
{
    int64_t at_level[256] = { 0 }, count = h->start[rows], out = 0;
    for (int64_t e = 0; e < count; e++) at_level[h->level[e]]++;
    for (int64_t left = count; left > h->room / 2 && h->floor < 255; h->floor++) left -= at_level[h->floor];
    for (int64_t i = 0, e = 0; i < rows; i++) {
        for (int64_t end = h->start[i + 1]; e < end; e++)
            if (h->level[e] >= h->floor) {
                h->key[out] = h->key[e];
                h->level[out++] = h->level[e];
            }
        h->start[i + 1] = out;
    }
}

/* Row i's weights, which are for its keys, count of them. column: of the grid, by key. */
static void add_row(const hd_attention_view *view, hd_attention_head *h, int64_t i, const int32_t *key, const float *weight, int64_t count, const unsigned char *column)
{
    float largest = 0;
    for (int64_t e = 0; e < count; e++) largest = weight[e] > largest ? weight[e] : largest;
    uint32_t bits;
    memcpy(&bits, &largest, 4);
    h->largest[i] = (uint16_t)((bits + 0x8000) >> 16);
    float *grid = h->grid + i * view->side / view->used * view->side;
    for (int64_t e = 0; e < count; e++) grid[column[key[e]]] += weight[e];
    h->start[i + 1] = h->start[i];
    if (h->start[i] + count > h->room) thin(h, i + 1);
    int64_t at = h->start[i + 1];
    float scale = largest > 0 ? 255 / largest : 0;
    for (int64_t e = 0; e < count; e++) {
        int level = (int)(scale * weight[e] + 0.5f);
        if (level < h->floor || at == h->room) continue;
        h->key[at] = key[e];
        h->level[at++] = (unsigned char)level;
    }
    h->start[i + 1] = at;
}

static void head_weights(const watch *w, hd_attention_head *h)
{
    const hd_attention_view *view = w->view;
    const operands o = operands_of(w, h->layer, h->head);
    const hd_kept *kept = &view->kept[o.a->pattern[h->head]];
    hd_kept_run *runs = hd_app_alloc((size_t)hd_kept_most_runs(kept) * sizeof *runs);
    int32_t *key = hd_app_alloc((size_t)o.a->keys * sizeof *key);
    float *weight = hd_app_alloc((size_t)o.a->keys * sizeof *weight);
    unsigned char *column = hd_app_alloc((size_t)view->used);     /* at most 256 of them */
    for (int64_t j = 0; j < view->used; j++) column[j] = (unsigned char)(j * view->side / view->used);
    int64_t edge = 0, queries = 0;
    for (int64_t i = 0; i < view->used; i++) {
        int64_t all = hd_kept_keys(kept, i, runs, key), count = 0;
        float largest = (float)o.sink;
        for (int64_t e = 0; e < all; e++, edge++) {
            if (o.bounds && (key[e] < o.bounds[2 * i] || key[e] >= o.bounds[2 * i + 1])) continue;
            key[count] = key[e];
            weight[count] = score(&o, i, key[e], edge);
            largest = weight[count] > largest ? weight[count] : largest;
            if (!(weight[count++] < INFINITY)) h->finite = false;
        }
        if (largest == -INFINITY || !h->finite) count = 0;
        double sink = count ? exp(o.sink - (double)largest) : 0, sum = sink, scores = sink > 0 ? sink * (o.sink - (double)largest) : 0, distance = 0;
        for (int64_t e = 0; e < count; e++) {
            float s = weight[e] - largest;
            weight[e] = expf(s);
            sum += (double)weight[e];
            if (weight[e] > 0) scores += (double)weight[e] * (double)s;
            distance += (double)weight[e] * fabs((double)(i + o.a->offset - key[e]));
        }
        float share = sum > 0 ? (float)(1 / sum) : 0;
        for (int64_t e = 0; e < count; e++) weight[e] *= share;
        add_row(view, h, i, key, weight, count, column);
        if (!count) continue;
        queries++;
        h->entropy += (log(sum) - scores / sum) / log(2);         /* -sum p log p, with p = exp(s) / sum */
        h->sink += sink / sum;
        h->distance += sum > sink ? distance / (sum - sink) : 0;
    }
    h->entropy /= queries ? (double)queries : 1;
    h->distance /= queries ? (double)queries : 1;
    h->sink /= queries ? (double)queries : 1;
    free(o.k);
    free(runs);
    free(key);
    free(weight);
    free(column);
}

static void head_slot(void *argument, int slot, int thread)
{
    const watch *w = argument;
    (void)thread;
    head_weights(w, &w->view->head[w->first + slot]);
}

static void watched_run(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    watch *w = context;
    for (; w->layer < hd_model.attentions && hd_model.attention[w->layer].step == w->step; w->layer++) {
        int heads = 0;
        while (w->first < w->view->heads && w->view->head[w->first].layer < w->layer) w->first++;
        while (w->first + heads < w->view->heads && w->view->head[w->first + heads].layer == w->layer) heads++;
        hd_progress_show(stderr, "attention  layer %d of %d", w->layer + 1, hd_model.attentions);
        if (heads) w->inner->run(w->inner->context, head_slot, w, heads);
    }
    w->step++;
    w->inner->run(w->inner->context, task, argument, slots);
}

/* ---- what is asked for ---- */

/* The prompt's tokens, 1 to as many as the model reads. */
static int64_t read_tokens(const char *from, const char *text, size_t bytes, int32_t *token)
{
    int32_t *ids;
    const int64_t count = hd_text_ids(from, text, bytes, &ids), limit = hd_model.length;
    if (!count) hd_app_fail("%s: empty; give 1 to %lld %ss", from, (long long)limit, hd_app_unit_name());
    if (count > limit) hd_app_fail("%s: %lld %ss; %s reads 1 to %lld", from, (long long)count, hd_app_unit_name(), hd_model.name, (long long)limit);
    memcpy(token, ids, (size_t)count * sizeof *token);
    free(ids);
    return count;
}

/* Why an op cannot be shown; NULL if it can. */
static const char *hidden(const hd_attention_info *a)
{
    if (a->queries != hd_model.length || a->keys != hd_model.length) return "its queries and keys are not the model's positions";
    for (int64_t h = 0; h < a->heads; h++)
        if (a->pattern[h] < 0 || !hd_kept_known(&hd_model.pattern[a->pattern[h]])) return "its pattern's rows are too many for the program to carry";
    return NULL;
}

static void choose_heads(hd_attention_view *view, int64_t layer, int64_t head)
{
    int64_t heads = 0, most = 0;
    for (int l = 0; l < hd_model.attentions; l++) {
        heads += hd_model.attention[l].heads;
        most = hd_model.attention[l].heads > most ? hd_model.attention[l].heads : most;
    }
    if (!heads) hd_app_fail("attention: entry forward of %s has no attention", hd_model.name);
    if (layer >= hd_model.attentions) hd_app_fail("--layer %lld: %s has layers 0 to %d", (long long)layer, hd_model.name, hd_model.attentions - 1);
    if (layer >= 0) most = hd_model.attention[layer].heads;
    if (head >= most) hd_app_fail("--head %lld: %s has heads 0 to %lld", (long long)head, layer >= 0 ? hd_app_text("layer %lld", (long long)layer) : hd_model.name, (long long)most - 1);
    view->head = hd_app_alloc((size_t)heads * sizeof *view->head);
    const char *why = NULL;
    for (int l = 0; l < hd_model.attentions; l++) {
        if (layer >= 0 && l != layer) continue;
        const hd_attention_info *a = &hd_model.attention[l];
        const char *reason = hidden(a);
        if (reason) why = hd_app_text("layer %d (%s): %s", l, a->where, reason);
        for (int64_t h = 0; !reason && h < a->heads; h++)
            if (head < 0 || h == head) view->head[view->heads++] = (hd_attention_head){ .layer = l, .head = h, .floor = 1, .finite = true };
    }
    if (why && !view->heads) hd_app_fail("attention: nothing can be shown: %s", why);
    if (why) fprintf(stderr, "attention: left out %s\n", why);
}

/* Room for the heads' weights: four times what the page can hold of each, so that a level fit for all can be chosen at the end. */
static void make_room(hd_attention_view *view)
{
    int64_t used = view->used;
    view->side = used < 64 ? used : used < 1000 ? 64 : 256;
    while (view->side > 8 && 1.4 * (double)view->heads * (double)(view->side * view->side) > view->bytes / 6) view->side /= 2;
    double budget = hd_attention_rows_budget(view), least = 4.0 * (double)view->heads * (double)used;
    if (least > budget)
        hd_app_fail("attention: %d heads at %lld positions need a page of about %.0f MB, --size allows %.3g: show fewer by --layer (0 to %d) and --head, or allow more", view->heads, (long long)used,
                    ceil(2 * least / 1e6 + 0.3), view->bytes / 1e6, hd_model.attentions - 1);
    hd_kept *kept = hd_app_alloc((size_t)hd_model.patterns * sizeof *kept);
    for (int n = 0; n < view->heads; n++) {
        hd_attention_head *h = &view->head[n];
        int pattern = hd_model.attention[h->layer].pattern[h->head];
        if (!kept[pattern].rows) kept[pattern] = hd_kept_new(&hd_model.pattern[pattern], used);
        h->room = (int64_t)(4 * budget / view->heads) + 2 * used;
        if ((double)h->room > (double)used * (double)used) h->room = used * used;
        h->start = hd_app_alloc((size_t)(used + 1) * sizeof *h->start);
        h->largest = hd_app_alloc((size_t)used * sizeof *h->largest);
        h->key = hd_app_alloc((size_t)h->room * sizeof *h->key);
        h->level = hd_app_alloc((size_t)h->room);
        h->grid = hd_app_alloc((size_t)(view->side * view->side) * sizeof *h->grid);
    }
    view->kept = kept;
}

static void run_forward(hd_attention_view *view, const hd_entry_info *entry, int threads)
{
    hd_memory memory = { .scratch_bytes = hd_app_scratch_bytes(entry, threads) };
    void *block, *tensor[entry->inputs + entry->outputs];
    hd_area area[] = {
        { "scratch", memory.scratch_bytes, &memory.scratch },
        { "inputs and outputs", hd_app_tensors_bytes(entry), &block },
    };
    hd_weights_open("attention", view->weights, false, &memory);
    hd_app_map_areas(area, 2);
    hd_app_bind_tensors(entry, block, tensor);
    memcpy(tensor[hd_app_need(entry, "tokens", false)], view->token, (size_t)view->used * sizeof *view->token);
    hd_pool *pool = hd_app_pool(threads);
    hd_weights_pack(entry, &memory, hd_pool_threads(pool));
    watch w = { .inner = hd_pool_threads(pool), .memory = &memory, .tensor = tensor, .view = view };
    const hd_threads watched = { &w, w.inner->count, watched_run };
    hd_app_call(entry, &memory, &watched, tensor, entry->causal ? 1 : 0, entry->causal ? (int)view->used : 0);
    hd_progress_end();
    if (w.step != entry->steps || w.layer != hd_model.attentions) hd_app_fail("attention: entry forward made %d kernel calls, its table lists %d", w.step, entry->steps);
    hd_pool_free(pool);
    for (int n = 0; n < view->heads; n++)
        if (!view->head[n].finite) hd_app_fail("%s: scores of layer %d, head %lld are not finite; are the weights those of a run that went well?", view->weights ? view->weights : hd_model.name, view->head[n].layer, (long long)view->head[n].head);
}

int hd_command_attention(int argc, char **argv)
{
    const char *weights = NULL, *prompt = NULL, *prompt_file = NULL, *out = NULL;
    int64_t layer = -1, head = -1, query = -1, threads = hd_app_processors();
    double size = 5;
    hd_option option[] = {
        { "weights", "FILE", HD_OPTION_TEXT, &weights, 0, 0, "weights (safetensors)", false },
        { "prompt", "TEXT", HD_OPTION_TEXT, &prompt, 0, 0, "what the model reads; token ids if the model has no tokenizer and more than 256 tokens", false },
        { "prompt-file", "FILE", HD_OPTION_TEXT, &prompt_file, 0, 0, "the same from a file", false },
        { "out", "FILE", HD_OPTION_TEXT, &out, 0, 0, "the page, also -o FILE: one HTML file that needs nothing else", false },
        { "layer", "L", HD_OPTION_COUNT, &layer, 0, 1e9, "only this layer, from 0", false },
        { "head", "H", HD_OPTION_COUNT, &head, 0, 1e9, "only this head, from 0", false },
        { "query", "I", HD_OPTION_COUNT, &query, 0, 1e9, "the position first chosen, from 0; without: the last", false },
        { "size", "MB", HD_OPTION_REAL, &size, 0.05, 500, "largest page; small weights are left out, the same for all heads, until it fits", false },
        { "threads", "T", HD_OPTION_COUNT, &threads, 1, HD_MAX_THREADS, "threads", false },
    };
    hd_command command = { "attention", "", "which positions each head reads at a prompt, as a page", option, sizeof option / sizeof option[0], NULL, 0 };
    hd_options_parse(&command, argc, argv);
    hd_app_need_language_model("attention");
    hd_weights_need("attention", weights);
    if (!prompt == !prompt_file) hd_app_fail("attention: name the prompt: --prompt TEXT or --prompt-file FILE");
    if (!out) hd_app_fail("attention: name the page to write: -o FILE.html");
    if ((weights && hd_file_same(out, weights)) || (prompt_file && hd_file_same(out, prompt_file))) hd_app_fail("attention: %s would be written over %s; name another file", out, out);
    hd_file_check(out);

    const hd_entry_info *entry = hd_app_entry("forward");
    if (entry->inputs > 1) hd_app_fail("attention: entry forward of %s reads more than tokens (%s): a prompt is not enough", hd_model.name, entry->input[strcmp(entry->input[0].name, "tokens") == 0].name);
    int32_t *token = hd_app_alloc((size_t)hd_model.length * sizeof *token);
    hd_attention_view view = { .weights = weights, .token = token, .query = query, .bytes = 1e6 * size };
    if (prompt) {
        view.used = read_tokens("--prompt", prompt, strlen(prompt), token);
    } else {
        hd_file_map map = hd_file_open(prompt_file);
        view.used = read_tokens(prompt_file, map.bytes ? (const char *)map.data : "", map.bytes, token);
        hd_file_close(map);
    }
    if (!entry->causal && view.used < hd_model.length)
        hd_app_fail("attention: positions of %s may read later ones, so the prompt must fill its length: %lld %ss, not %lld", hd_model.name, (long long)hd_model.length, hd_app_unit_name(), (long long)view.used);
    if (query >= view.used) hd_app_fail("--query %lld: the prompt has positions 0 to %lld", (long long)query, (long long)view.used - 1);
    if (query < 0) view.query = view.used - 1;
    choose_heads(&view, layer, head);
    make_room(&view);
    run_forward(&view, entry, (int)threads);
    size_t bytes = hd_attention_page(&view, out);
    printf("%s: %d heads at %lld positions, %.2f MB\n", out, view.heads, (long long)view.used, (double)bytes / 1e6);
    return 0;
}
