/* What one sample is while it grows: its tokens, its text up to a stop string, and why it ended. */
#ifndef HD_CONTINUATION_H
#define HD_CONTINUATION_H

#include "generate.h"
#include "sampler.h"
#include "stops.h"
#include "text.h"

/* What all samples of a command share. */
typedef struct hd_sample_settings {
    hd_sampling sampling;
    int64_t seed, most;                /* most: tokens to add */
    int ends; const int32_t *end;      /* tokens that end a sample and are no part of it */
    hd_texts stops;                    /* strings likewise */
    bool slide;                        /* a full context loses its older half; else the sample ends there */
} hd_sample_settings;

/* Why it ended: "tokens" (as many as were asked for), "end_token", "stop_string", "positions" (the model has no more), "interrupt". */
typedef struct hd_continuation {
    const hd_sample_settings *settings;
    int64_t number;                    /* draw i of sample n has the random bits (seed, i, n) */
    int32_t *ids;
    int64_t count, capacity, given, fed;       /* tokens; those that were given, not drawn; those the model has taken in, or has dropped */
    int64_t drawn;                     /* of the random bits */
    const char *ended;                 /* NULL: not yet */
    char *text, *piece, *hold;         /* text: of given and drawn tokens, from byte `from` on the drawn ones' */
    size_t bytes, room, from;
    hd_text_writer writer;
    hd_stops stops;
    double prompt_seconds, seconds;    /* taking in what was given; the rest */
    int64_t prompt_tokens;             /* taken in during prompt_seconds */
} hd_continuation;

void hd_continuation_begin(hd_continuation *, const hd_sample_settings *, int64_t number);
void hd_continuation_free(hd_continuation *);
/* Adds tokens that were not drawn, and their text if they are `shown`. */
void hd_continuation_give(hd_continuation *, const int32_t *ids, int64_t count, bool shown);
/* Begins to draw after what was given. */
void hd_continuation_go(hd_continuation *);

/* Tokens the model has not taken in yet. What does not fit: with `slide` the stream starts again from the later half, without it the
 * sample has ended and false is returned. The caller feeds one token by hd_generator_step, and then says hd_continuation_fed. */
bool hd_continuation_fits(hd_continuation *, hd_generator *, int stream);
/* Feeds what the model has not taken in to the stream, in one go; logits [streams][vocab]. False:
 * memory.cancel was set on the way. */
bool hd_continuation_feed(hd_continuation *, hd_generator *, int stream, float *logits);
/* Draws the next token from logits; fails when they are not finite. Text that is certain is added to `text`. */
void hd_continuation_draw(hd_continuation *, hd_sampler *, const float *logits);
void hd_continuation_end(hd_continuation *, const char *why);

#endif
