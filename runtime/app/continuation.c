/* Samples as they grow (continuation.h). */
#include "continuation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void hd_continuation_begin(hd_continuation *c, const hd_sample_settings *settings, int64_t number)
{
    *c = (hd_continuation){ .settings = settings, .number = number };
    const size_t longest = hd_stops_room(settings->stops.count, settings->stops.text);
    c->hold = hd_app_alloc(longest + 1);
    c->piece = hd_app_alloc(hd_text_room());
}

void hd_continuation_free(hd_continuation *c)
{
    free(c->ids), free(c->text), free(c->piece), free(c->hold);
    *c = (hd_continuation){ 0 };
}

static void add_token(hd_continuation *c, int32_t id)
{
    if (c->count == c->capacity) {
        c->capacity = 2 * c->capacity + 256;
        int32_t *more = realloc(c->ids, (size_t)c->capacity * sizeof *more);
        if (!more) hd_app_fail("out of memory for %lld tokens", (long long)c->capacity);
        c->ids = more;
    }
    c->ids[c->count++] = id;
}

/* The end of `text`, with room for what a token may add. */
static char *text_end(hd_continuation *c)
{
    const size_t wanted = c->bytes + hd_text_room() + hd_stops_room(c->settings->stops.count, c->settings->stops.text) + 1;
    if (wanted > c->room) {
        c->room = 2 * wanted;
        c->text = realloc(c->text, c->room);
        if (!c->text) hd_app_fail("out of memory for %zu bytes of text", c->room);
    }
    return c->text + c->bytes;
}

void hd_continuation_give(hd_continuation *c, const int32_t *ids, int64_t count, bool shown)
{
    for (int64_t i = 0; i < count; i++) {
        add_token(c, ids[i]);
        if (shown) c->bytes += hd_text_put(&c->writer, ids[i], text_end(c));
    }
    c->given = c->count;
}

void hd_continuation_go(hd_continuation *c)
{
    c->ended = NULL;
    c->from = c->bytes;
    hd_stops_begin(&c->stops, c->settings->stops.count, c->settings->stops.text, c->hold);
    c->prompt_seconds = c->seconds = 0;
    c->prompt_tokens = 0;
}

static void add_text(hd_continuation *c, int32_t id)
{
    const size_t bytes = hd_text_put(&c->writer, id, c->piece);
    c->bytes += hd_stops_put(&c->stops, c->piece, bytes, text_end(c));
}

void hd_continuation_end(hd_continuation *c, const char *why)
{
    c->ended = why;
    if (!c->stops.hit) add_text(c, -1);
    if (!c->stops.hit) c->bytes += hd_stops_end(&c->stops, text_end(c));
}

bool hd_continuation_fits(hd_continuation *c, hd_generator *g, int stream)
{
    if (!g->room || g->taken[stream] + c->count - c->fed <= g->room) return true;
    if (!c->settings->slide) {
        hd_continuation_end(c, "positions");
        return false;
    }
    hd_generator_clear(g, stream);
    const int64_t half = g->room / 2 + 1;
    c->fed = c->count - (half < c->count ? half : c->count);
    return true;
}

bool hd_continuation_feed(hd_continuation *c, hd_generator *g, int stream, float *logits)
{
    const int64_t before = g->taken[stream];
    const bool whole = hd_generator_feed(g, stream, c->ids + c->fed, c->count - c->fed, logits);
    c->fed += g->taken[stream] - before;
    if (c->fed < 0 || (!whole && !g->taken[stream])) c->fed = 0;         /* emptied: all again next time */
    return whole;
}

void hd_continuation_draw(hd_continuation *c, hd_sampler *sampler, const float *logits)
{
    const hd_sample_settings *s = c->settings;
    const double unit = hd_app_unit(hd_app_random((uint64_t)s->seed, (uint64_t)c->drawn, (uint64_t)c->number));
    const int64_t id = hd_sampler_draw(sampler, &s->sampling, logits, c->ids, c->count, unit);
    if (id < 0) hd_app_fail("sample: the logit of id %lld is %g; are the weights those of a run that went well?", (long long)(-1 - id), (double)logits[-1 - id]);
    c->drawn++;
    add_token(c, (int32_t)id);
    for (int i = 0; i < s->ends; i++)
        if (s->end[i] == id) {
            hd_continuation_end(c, "end_token");
            return;
        }
    add_text(c, (int32_t)id);
    if (c->stops.hit) hd_continuation_end(c, "stop_string");
    else if (c->count - c->given >= s->most) hd_continuation_end(c, "tokens");
}
