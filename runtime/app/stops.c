/* Stop strings (stops.h). They are few and short: each byte is compared with each of them, without tables. */
#include "stops.h"

#include <string.h>

size_t hd_stops_room(int count, const char *const *text)
{
    size_t longest = 0;
    for (int i = 0; i < count; i++) longest = strlen(text[i]) > longest ? strlen(text[i]) : longest;
    return longest;
}

void hd_stops_begin(hd_stops *s, int count, const char *const *text, char *hold) { *s = (hd_stops){ .count = count, .text = text, .hold = hold }; }

/* The longest end of hold[0, bytes) that is a beginning of some stop string; whole: that is a whole one. */
static size_t matching_end(const hd_stops *s, size_t bytes, bool whole)
{
    size_t best = 0;
    for (int i = 0; i < s->count; i++) {
        const size_t length = strlen(s->text[i]);
        for (size_t n = length < bytes ? length : bytes; n > best && (!whole || n == length); n--)
            if (memcmp(s->hold + bytes - n, s->text[i], n) == 0) best = n;
    }
    return best;
}

size_t hd_stops_put(hd_stops *s, const char *text, size_t bytes, char *out)
{
    size_t written = 0;
    if (!s->count) {
        memcpy(out, text, bytes);
        return bytes;
    }
    for (size_t i = 0; i < bytes && !s->hit; i++) {
        s->hold[s->held++] = text[i];
        const size_t stop = matching_end(s, s->held, true), keep = stop ? stop : matching_end(s, s->held, false);
        memcpy(out + written, s->hold, s->held - keep);
        written += s->held - keep;
        memmove(s->hold, s->hold + s->held - keep, keep);
        s->held = keep;
        if (stop) s->hit = true, s->held = 0;
    }
    return written;
}

size_t hd_stops_end(hd_stops *s, char *out)
{
    const size_t bytes = s->held;
    memcpy(out, s->hold, bytes);
    s->held = 0;
    return bytes;
}
