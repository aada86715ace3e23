/* @name@_tokens.c: made by heddle @version@ for @spec@. Edits here are lost: edit the spec.
 * The tokenizer (@name@_tokens.h), after it heddle's runtime that does the work, in one piece so that it shows no other symbol. */
#include "@name@_tokens.h"

#if defined(__GNUC__)
#define HD_TOKENS_SHARED static __attribute__((unused))
#else
#define HD_TOKENS_SHARED static
#endif
@runtime@
/* ---- the interface ---- */

extern const char @name@_tokens_data[];         /* aligned to 64 bytes */
static const hd_tokenizer *tables(void) { return (const hd_tokenizer *)(const void *)@name@_tokens_data; }

struct @name@_encoder { hd_encoder encoder; };

@name@_encoder *@name@_encoder_new(void) { return (@name@_encoder *)hd_encoder_new(tables(), @regex@); }
void @name@_encoder_free(@name@_encoder *e) { hd_encoder_free((hd_encoder *)e); }

int64_t @name@_encode(@name@_encoder *e, const char *text, size_t bytes, int around, int32_t *ids, int64_t room)
{
    const hd_tokenizer *t = tables();
    const int32_t *made;
    int64_t count = hd_encode(&e->encoder, text, bytes, around > 0, &made);
    if (count >= 0 && around == 1) count -= t->after.count;
    if (count > 0 && room > 0) memcpy(ids, made, (size_t)(count < room ? count : room) * sizeof *ids);
    return count;
}

int32_t @name@_token(const char *text)
{
    const hd_tokenizer *t = tables();
    const size_t bytes = strlen(text);
    const uint32_t *at = (const uint32_t *)(const void *)((const unsigned char *)t + t->shown_at.at);
    for (uint32_t id = 0; id < t->vocab; id++)
        if (at[id + 1] - at[id] == bytes && !memcmp((const char *)t + t->shown.at + at[id], text, bytes)) return (int32_t)id;
    return -1;
}

size_t @name@_decode(@name@_decoder *d, int32_t id, char *out)
{
    hd_stream s = { tables(), d->count, !d->keep_special, d->held, { 0 }, d->stripped };
    memcpy(s.hold, d->hold, sizeof s.hold);
    const size_t written = hd_stream_put(&s, id, out);
    d->count = s.count, d->held = s.held, d->stripped = s.stripped;
    memcpy(d->hold, s.hold, sizeof s.hold);
    return written;
}
