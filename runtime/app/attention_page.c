/* The page of the command `attention`: attention.html with the weights put in.
 *
 * What people wrote (tokens, names, paths) goes in as numbers or as JSON text without a byte that HTML knows, and is shown as text only.
 * Weights go in as base64 of what coder.h makes, a block for each head:
 *   for each query   the largest weight (upper half of a float, high byte first), the number of pairs; for each pair
 *                    the keys left out before it, and its level, by the level before it */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "attention.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coder.h"
#include "file.h"
#include "tokenizer.h"

/* The page around its data, which a line of its own stands for. */
static const unsigned char page[] = {
#include "../../build/attention_html.h"
0 };
static const char mark[] = "<!-- data -->\n";

/* Bytes that grow. */
typedef struct bytes { unsigned char *data; size_t count, room; } bytes;

static void put(bytes *b, const void *data, size_t count)
{
    if (b->count + count > b->room) {
        b->room = 2 * (b->count + count) + 256;
        b->data = realloc(b->data, b->room);
        if (!b->data) hd_app_fail("out of memory: %zu bytes", b->room);
    }
    memcpy(b->data + b->count, data, count);
    b->count += count;
}

static void put_byte(bytes *b, unsigned value)
{
    unsigned char byte = (unsigned char)value;
    put(b, &byte, 1);
}

static void put_number(bytes *b, uint64_t value)
{
    for (; value > 127; value >>= 7) put_byte(b, 128 | (unsigned)(value & 127));
    put_byte(b, (unsigned)value);
}

static void put_text(bytes *b, const char *text) { put(b, text, strlen(text)); }

__attribute__((format(printf, 2, 3))) static void print(bytes *b, const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    int count = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    put(b, text, (size_t)count < sizeof text ? (size_t)count : sizeof text - 1);
}

static void put_base64(bytes *b, const unsigned char *data, size_t count)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < count; i += 3) {
        uint32_t word = (uint32_t)data[i] << 16 | (uint32_t)(i + 1 < count ? data[i + 1] : 0) << 8 | (uint32_t)(i + 2 < count ? data[i + 2] : 0);
        char four[4] = { digit[word >> 18], digit[word >> 12 & 63], i + 1 < count ? digit[word >> 6 & 63] : '=', i + 2 < count ? digit[word & 63] : '=' };
        put(b, four, 4);
    }
}

static void put_block(bytes *b, const char *name, int number, const bytes *data)
{
    print(b, "<script type='text/plain' id='%s%d'>", name, number);
    put_base64(b, data->data, data->count);
    put_text(b, "</script>\n");
}

/* JSON text. Bytes that end a script, and those beyond ASCII that are no UTF-8 for sure, go in as escapes. */
static void put_string(bytes *b, const char *text)
{
    put_byte(b, '"');
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        int more = *c >= 0xf0 && *c < 0xf5 ? 3 : *c >= 0xe0 && *c < 0xf0 ? 2 : *c >= 0xc2 && *c < 0xe0 ? 1 : 0, k = 1;
        while (k <= more && (c[k] & 0xc0) == 0x80) k++;
        if (*c >= 0x80 && (!more || k <= more)) put_byte(b, '?');
        else if (more) put(b, c, (size_t)more + 1), c += more;
        else if (*c < ' ' || *c == 127 || strchr("<>&\"'\\", *c)) print(b, "\\u%04x", *c);
        else put_byte(b, *c);
    }
    put_byte(b, '"');
}

/* ---- the parts ---- */

/* Kept keys of every query as runs of five numbers (hd_kept_run). */
static bytes pattern_rows(const hd_kept *kept)
{
    bytes b = { 0 };
    hd_kept_run *run = hd_app_alloc((size_t)hd_kept_most_runs(kept) * sizeof *run);
    for (int64_t i = 0; i < kept->rows; i++) {
        int runs = hd_kept_runs(kept, i, run);
        put_number(&b, (uint64_t)runs);
        for (int r = 0; r < runs; r++) {
            const int64_t number[] = { run[r].start, run[r].step, run[r].run, run[r].first, run[r].end };
            for (int k = 0; k < 5; k++) put_number(&b, (uint64_t)number[k]);
        }
    }
    free(run);
    return b;
}

static int64_t kept_pairs(const hd_kept *kept)
{
    hd_kept_run *run = hd_app_alloc((size_t)hd_kept_most_runs(kept) * sizeof *run);
    int64_t pairs = 0;
    for (int64_t i = 0; i < kept->rows; i++)
        for (int r = hd_kept_runs(kept, i, run) - 1; r >= 0; r--) pairs += run[r].end - run[r].first;
    free(run);
    return pairs;
}

static void put_patterns(const hd_attention_view *view, bytes *b, bytes *blocks)
{
    int place = 0;
    put_text(b, "\"patterns\":[");
    for (int n = 0; n < hd_model.patterns; n++) {
        const hd_kept *kept = &view->kept[n];
        if (!kept->rows) continue;
        bytes rows = pattern_rows(kept);
        bool fits = (double)rows.count < view->bytes / 10 && (double)(blocks->count + rows.count) < view->bytes / 6;
        if (fits) put_block(blocks, "pattern", place, &rows);
        free(rows.data);
        put_text(b, place++ ? ",\n{\"name\":" : "\n{\"name\":");
        put_string(b, hd_model.pattern[n].name);
        print(b, ",\"kept\":%lld,\"rows\":%s}", (long long)kept_pairs(kept), fits ? "true" : "false");
    }
    put_text(b, "]");
}

/* Where a pattern stands among those of the page. */
static int pattern_place(const hd_attention_view *view, int pattern)
{
    int place = 0;
    for (int n = 0; n < pattern; n++) place += view->kept[n].rows > 0;
    return place;
}

/* The square root of what a query of each band of rows gives to each band of keys (mean), in 1/255 of the largest, which is returned. */
static float put_grid(const hd_attention_view *view, int n, bytes *blocks)
{
    int64_t side = view->side, band = 0;
    float top = 0, *grid = view->head[n].grid;
    for (int64_t r = 0, i = 0; r < side; r++) {
        for (band = 0; i < view->used && i * side / view->used == r; i++) band++;
        for (int64_t c = 0; c < side; c++) {
            grid[r * side + c] /= (float)band;
            top = fmaxf(top, grid[r * side + c]);
        }
    }
    bytes coded = { 0 };
    for (int64_t t = 0; t < side * side; t++) put_byte(&coded, top > 0 ? (unsigned)lrintf(255 * sqrtf(grid[t] / top)) : 0);
    put_block(blocks, "grid", n, &coded);
    free(coded.data);
    return top;
}

static void put_facts(const hd_attention_view *view, bytes *b)
{
    bytes blocks = { 0 };
    put_text(b, "<script type='application/json' id='data'>{\"model\":");
    put_string(b, hd_model.name);
    put_text(b, ",\"spec\":");
    put_string(b, hd_model.spec);
    put_text(b, ",\"weights\":");
    put_string(b, view->weights);
    print(b, ",\"length\":%lld,\"used\":%lld,\"query\":%lld,\"side\":%lld,\"ahead\":%d,\"bytes\":%s,\"megabytes\":%.4g,\n\"tokens\":[", (long long)hd_model.length, (long long)view->used,
          (long long)view->query, (long long)view->side, hd_model.ahead, hd_app_bytes() ? "true" : "false", view->bytes / 1e6);
    for (int64_t i = 0; i < view->used; i++) print(b, "%s%d", i ? "," : "", view->token[i]);
    put_text(b, "],\n\"texts\":[");
    for (int64_t i = 0; i < view->used && hd_model.tokenizer; i++) {
        size_t length;
        char *text = hd_decode(hd_model.tokenizer, &view->token[i], 1, false, &length);
        if (!text) hd_app_fail("out of memory");
        if (i) put_byte(b, ',');
        put_string(b, text);
        free(text);
    }
    put_text(b, "],\n\"layers\":[");
    for (int l = 0; l < hd_model.attentions; l++) {
        if (l) put_byte(b, ',');
        put_string(b, hd_model.attention[l].name);
    }
    put_text(b, "],\n");
    put_patterns(view, b, &blocks);
    put_text(b, ",\n\"heads\":[");
    for (int n = 0; n < view->heads; n++) {
        const hd_attention_head *h = &view->head[n];
        float top = put_grid(view, n, &blocks);
        print(b, "%s\n{\"layer\":%d,\"head\":%lld,\"pattern\":%d,\"entropy\":%.5g,\"distance\":%.5g,\"sink\":%.4g,\"top\":%.5g}", n ? "," : "", h->layer, (long long)h->head,
              pattern_place(view, hd_model.attention[h->layer].pattern[h->head]), h->entropy, h->distance, h->sink, (double)top);
    }
    put_text(b, "]}</script>\n");
    put(b, blocks.data, blocks.count);
    free(blocks.data);
}

static void put_coded(void *to, unsigned char byte) { put(to, &byte, 1); }

typedef struct row_models { hd_coder_byte high, low, level[8]; hd_coder_number count, gap; } row_models;

/* Appends a head's pairs at or above a level; pairs and held: how many, and their share of the attention of queries with keys. */
static void put_rows(const hd_attention_view *view, const hd_attention_head *h, int level, bytes *b, int64_t *pairs, double *held)
{
    int64_t queries = 0;
    hd_coder coder;
    row_models m;
    hd_coder_reset((uint16_t *)(void *)&m, sizeof m / sizeof(uint16_t));
    m.count.before = m.gap.before = 0;
    hd_coder_start(&coder, put_coded, b);
    *pairs = 0, *held = 0;
    for (int64_t i = 0; i < view->used; i++) {
        int64_t count = 0, before = -1, sum = 0;
        uint32_t bits = (uint32_t)h->largest[i] << 16;
        unsigned above = 255;
        float largest;
        memcpy(&largest, &bits, 4);
        for (int64_t e = h->start[i]; e < h->start[i + 1]; e++) count += h->level[e] >= level;
        hd_coder_put_byte(&coder, &m.high, h->largest[i] >> 8);
        hd_coder_put_byte(&coder, &m.low, h->largest[i] & 255);
        hd_coder_put_number(&coder, &m.count, (uint32_t)count);
        for (int64_t e = h->start[i]; e < h->start[i + 1]; e++) {
            if (h->level[e] < level) continue;
            hd_coder_put_number(&coder, &m.gap, (uint32_t)(h->key[e] - before - 1));
            hd_coder_put_byte(&coder, &m.level[above >> 5], h->level[e]);
            before = h->key[e], above = h->level[e];
            sum += above;
        }
        *held += (double)largest * (double)sum / 255;
        *pairs += count;
        queries += largest > 0;
    }
    hd_coder_end(&coder);
    *held = queries ? fmin(1, *held / (double)queries / (1 - h->sink)) : 0;
}

/* The rows of all heads, or of the first ones until they take more than the budget; their bytes. */
typedef struct coded { bytes rows; int64_t pairs; double held; } coded;

static double code_heads(const hd_attention_view *view, int level, double budget, coded *out, double *pairs)
{
    double total = 0;
    *pairs = 0;
    for (int n = 0; n < view->heads; n++) {
        out[n].rows.count = 0;
        if (total > budget) continue;
        put_rows(view, &view->head[n], level, &out[n].rows, &out[n].pairs, &out[n].held);
        total += (double)out[n].rows.count;
        *pairs += (double)out[n].pairs;
    }
    return total;
}

/* The least level at which all rows take no more than `budget` bytes, about: the more that are left out, the shorter. Guessed from the
 * number of pairs and the bytes that each took in the last trial, between a level that is known to fit and one that is not. */
static int code_rows(const hd_attention_view *view, double budget, coded *out)
{
    double at_level[257] = { 0 }, each = 1.2, pairs;
    for (int n = 0; n < view->heads; n++)
        for (int64_t e = 0; e < view->head[n].start[view->used]; e++) at_level[view->head[n].level[e]]++;
    for (int k = 255; k > 0; k--) at_level[k] += at_level[k + 1];       /* now: at or above */
    int low = 0, high = 255, level = 1, last = 0;
    while (high - low > 1) {
        for (level = 1; level < 255 && each * at_level[level] > budget; level++) { }
        level = level <= low ? low + 1 : level >= high ? high - 1 : level;
        double total = code_heads(view, level, budget, out, &pairs);
        last = level;
        if (total <= budget) high = level;
        else low = level;
        each = pairs > 0 ? total / pairs : each;
        if (total <= budget && total > 0.95 * budget) break;
    }
    if (last != high) code_heads(view, high, INFINITY, out, &pairs);
    return high;
}

double hd_attention_rows_budget(const hd_attention_view *view)
{
    double pictures = (double)view->heads * (1.34 * (double)(view->side * view->side) + 200), script = 40e3, patterns = view->bytes / 6;
    return 0.74 * (view->bytes - pictures - script - patterns - 6 * (double)view->used);
}

size_t hd_attention_page(const hd_attention_view *view, const char *path)
{
    bytes facts = { 0 }, rows = { 0 }, text = { 0 };
    put_facts(view, &facts);
    coded *head = hd_app_alloc((size_t)view->heads * sizeof *head);
    int level = code_rows(view, 0.74 * (view->bytes - (double)facts.count - 40e3 - 100 * view->heads), head);
    bytes floor = { 0 }, pairs = { 0 }, held = { 0 };
    for (int n = 0; n < view->heads; n++) {
        const char *comma = n ? "," : "";
        put_block(&rows, "rows", n, &head[n].rows);
        free(head[n].rows.data);
        print(&floor, "%s%d", comma, level > view->head[n].floor ? level : view->head[n].floor);
        print(&pairs, "%s%lld", comma, (long long)head[n].pairs);
        print(&held, "%s%.5g", comma, head[n].held);
    }
    free(head);
    hd_file_writer out;
    hd_file_begin(&out, path);
    const char *const around = (const char *)page, *const data = strstr(around, mark);
    put(&text, around, (size_t)(data - around));
    put(&text, facts.data, facts.count);
    put_text(&text, "<script type='application/json' id='held'>{\"floor\":[");
    put(&text, floor.data, floor.count);
    put_text(&text, "],\"pairs\":[");
    put(&text, pairs.data, pairs.count);
    put_text(&text, "],\"held\":[");
    put(&text, held.data, held.count);
    put_text(&text, "]}</script>\n");
    put(&text, rows.data, rows.count);
    put_text(&text, data + sizeof mark - 1);
    size_t total = text.count;
    hd_file_put(&out, text.data, text.count);
    hd_file_commit(&out);
    bytes *const all[] = { &facts, &rows, &text, &floor, &pairs, &held };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]->data);
    return total;
}
