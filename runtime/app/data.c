/* Data files (data.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "data.h"

#include <string.h>

#include "app.h"
#include "progress.h"
#include "text.h"

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), part = strlen(end);
    return length >= part && strcmp(text + length - part, end) == 0;
}

static uint32_t id_at(const hd_data *data, int64_t i)
{
    const unsigned char *p = data->map.data + i * data->token_bytes;
    if (data->token_bytes == 1) return p[0];
    if (data->token_bytes == 2) return (uint32_t)(p[0] | p[1] << 8);
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static _Noreturn void fail_id(const hd_data *data, int64_t i)
{
    hd_app_fail("%s: %s %lld (offset %lld) is %u; this model's ids are 0 to %lld", data->path, data->token_bytes == 1 ? "byte" : "token", (long long)i,
                (long long)(i * data->token_bytes), id_at(data, i), (long long)hd_model.vocab - 1);
}

static void check_ids(const hd_data *data)
{
    if (data->token_bytes < 4 && hd_model.vocab >= INT64_C(1) << 8 * data->token_bytes) return;
    for (int64_t i = 0; i < data->count; i++)
        if (id_at(data, i) >= hd_model.vocab) fail_id(data, i);
}

static void check_length(const hd_data *data)
{
    if (data->count < hd_model.length + 1)
        hd_app_fail("%s: %lld %ss; one context of this model and the %s after it need at least %lld", data->path, (long long)data->count, hd_app_unit_name(), hd_app_unit_name(),
                    (long long)hd_model.length + 1);
}

/* Where the held-out part of a text starts: the share's byte, moved to the next line within 4 KB, or to the next character. */
static size_t cut_of(const hd_file_map *text, double held_out)
{
    size_t cut = text->bytes - (size_t)((double)text->bytes * held_out + 0.5);
    if (cut == 0 || cut >= text->bytes) return cut;
    const size_t near = text->bytes - cut < 4096 ? text->bytes - cut : 4096;
    const unsigned char *line = memchr(text->data + cut - 1, '\n', near);
    if (line && line + 1 < text->data + text->bytes) return (size_t)(line + 1 - text->data);
    while (cut < text->bytes && (text->data[cut] & 0xc0) == 0x80) cut++;
    return cut;
}

/* The text's ids, in memory as if they had been a file of 4-byte ids. */
static hd_data open_text(const char *path, double held_out)
{
    hd_file_map text = hd_file_open(path);
    hd_encoder *encoder = hd_text_encoder(path);
    const size_t cut = cut_of(&text, held_out);
    int32_t *ids = NULL;
    if (text.bytes >= 20000000) hd_progress_show(stderr, "%s: %.0f MB of text become tokens", path, (double)text.bytes / 1e6);
    hd_data data = { .path = path, .token_bytes = 4, .held_bytes = (int64_t)(text.bytes - cut) };
    data.held_start = hd_text_append(encoder, path, (const char *)text.data, cut, &ids, 0);
    data.count = data.held_start + hd_text_append(encoder, path, (const char *)text.data + cut, text.bytes - cut, &ids, data.held_start);
    hd_progress_end();
    if (held_out > 0 && data.held_start == data.count) hd_app_fail("%s: a share of %g of it holds no token to be held out; give more text or a larger --held-out", path, held_out);
    hd_encoder_free(encoder);
    hd_file_close(text);
    data.map = (hd_file_map){ (const unsigned char *)ids, (size_t)data.count * sizeof *ids };
    return data;
}

hd_data hd_data_open(const char *path, int token_bytes, double held_out)
{
    if (!token_bytes) token_bytes = ends_with(path, ".u16") ? 2 : ends_with(path, ".u32") ? 4 : 1;
    if (token_bytes == 1 && !hd_app_bytes() && !hd_model.tokenizer)
        hd_app_fail("%s: this model reads tokens (vocabulary %lld): give a .u16 or .u32 file, or --tokens-u16 or --tokens-u32", path, (long long)hd_model.vocab);
    if (token_bytes == 1 && hd_model.tokenizer) {
        hd_data text = open_text(path, held_out);
        check_length(&text);
        return text;
    }
    hd_data data = { .path = path, .token_bytes = token_bytes, .map = hd_file_open(path) };
    if (data.map.bytes % (size_t)token_bytes) hd_app_fail("%s: %zu bytes are no whole number of %d-byte tokens", path, data.map.bytes, token_bytes);
    data.count = (int64_t)(data.map.bytes / (size_t)token_bytes);
    check_length(&data);
    data.held_start = data.count - (int64_t)((double)data.count * held_out + 0.5);
    if (held_out > 0 && data.held_start == data.count) data.held_start--;
    if (token_bytes == 1) data.held_bytes = data.count - data.held_start;
    check_ids(&data);
    return data;
}

void hd_data_need_training(const hd_data *data)
{
    if (data->held_start < hd_model.length + 1)
        hd_app_fail("%s: %lld %ss are left for training after holding out %lld; one context of this model and the %s after it need at least %lld", data->path,
                    (long long)data->held_start, hd_app_unit_name(), (long long)(data->count - data->held_start), hd_app_unit_name(), (long long)hd_model.length + 1);
}

/* Ids are checked again: the file is mapped, and may have changed since. */
void hd_data_read(const hd_data *data, int64_t start, int64_t count, int32_t *out)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t id = id_at(data, start + i);
        if (id >= hd_model.vocab) fail_id(data, start + i);
        out[i] = (int32_t)id;
    }
}

int64_t hd_data_window(const hd_data *data, uint64_t seed, int64_t step, int64_t row)
{
    int64_t windows = data->held_start - hd_model.length;
    int64_t start = (int64_t)(hd_app_unit(hd_app_random(seed, (uint64_t)step, (uint64_t)row)) * (double)windows);
    return start < windows ? start : windows - 1;      /* the product may round up to `windows` */
}

uint64_t hd_data_digest(const hd_data *data)
{
    uint64_t digest = data->map.bytes;
    size_t samples = data->map.bytes < 65536 ? data->map.bytes : 65536;
    for (size_t i = 0; i < samples; i++) digest = (digest ^ data->map.data[i * data->map.bytes / samples]) * UINT64_C(0x100000001b3);
    return digest;
}

/* Positions that window 0 scores: `stride` of them, but all that fit where no full context lies before. */
static int64_t first_scored(const hd_data *data, int64_t stride)
{
    int64_t from = data->held_start > 0 ? data->held_start : 1;
    int64_t last = from + stride;
    if (last < hd_model.length + 1) last = hd_model.length + 1;
    return (last < data->count ? last : data->count) - from;
}

int64_t hd_data_spans(const hd_data *data, int64_t stride)
{
    int64_t from = data->held_start > 0 ? data->held_start : 1;
    if (from >= data->count) return 0;
    return 1 + (data->count - from - first_scored(data, stride) + stride - 1) / stride;
}

hd_data_span hd_data_get_span(const hd_data *data, int64_t stride, int64_t index)
{
    int64_t from = data->held_start > 0 ? data->held_start : 1, first = first_scored(data, stride);
    hd_data_span span = { .first = index ? from + first + (index - 1) * stride : from };
    span.last = index ? span.first + stride : from + first;
    if (span.last > data->count) span.last = data->count;
    span.start = span.last - 1 - hd_model.length;
    if (span.start < 0) span.start = 0;
    return span;
}
