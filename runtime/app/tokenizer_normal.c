/* The normaliser's stages: each reads one buffer and writes the other. Context-free ones (case, accents, BERT's cleaning) were
 * composed into one map of code points when the tables were made. */
#include "tokenizer_parts.h"

#include <stdlib.h>

static const char *bytes_of(const hd_encoder *e, const hd_table *table) { return (const char *)e->t + table->at; }

/* What `stage` maps a code point to; *bytes UINT32_MAX: itself, and with blanks around it if *padded. */
static const unsigned char *mapped(const hd_tokenizer *t, const hd_stage *stage, uint32_t point, uint32_t *bytes, bool *padded)
{
    *padded = false;
    *bytes = UINT32_MAX;
    if (point >= HD_NOT_UTF8) return NULL;
    const uint16_t *index = (const uint16_t *)(const void *)((const unsigned char *)t + stage->map_index.at);
    const uint32_t *block = (const uint32_t *)(const void *)((const unsigned char *)t + stage->map_block.at);
    const uint32_t place = block[(size_t)index[point >> 7] * 128 + (point & 127)];
    *padded = place == HD_MAP_PADDED;
    if (!place || *padded) return NULL;
    const unsigned char *text = (const unsigned char *)t + stage->map_text.at + (place - 1);
    *bytes = *text;
    return text + 1;
}

static void map(hd_encoder *e, const hd_stage *stage, const char *text, size_t bytes, hd_buffer *out)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + bytes;
    unsigned n;
    for (; p < end && !e->failed; p += n) {
        uint32_t length;
        bool padded;
        const unsigned char *to = mapped(e->t, stage, hd_utf8(p, end, &n), &length, &padded);
        if (padded) hd_put(e, out, " ", 1);
        if (length == UINT32_MAX) hd_put(e, out, p, n);
        else hd_put(e, out, to, length);
        if (padded) hd_put(e, out, " ", 1);
    }
}

static unsigned mark_class(const hd_tokenizer *t, uint32_t point)
{
    if (point >= HD_NOT_UTF8) return 0;
    return HD_AT(t, marks_block, uint8_t)[(size_t)HD_AT(t, marks_index, uint16_t)[point >> 7] * 128 + (point & 127)];
}

/* Hangul syllables are composed of, and into, letters by arithmetic (Unicode 3.12). */
enum { SYLLABLE = 0xac00, LEAD = 0x1100, VOWEL = 0x1161, TRAIL = 0x11a7, LEADS = 19, VOWELS = 21, TRAILS = 28, SYLLABLES = LEADS * VOWELS * TRAILS };

static uint32_t composite(const hd_tokenizer *t, uint32_t first, uint32_t second)
{
    if (first - LEAD < LEADS && second - VOWEL < VOWELS) return SYLLABLE + ((first - LEAD) * VOWELS + (second - VOWEL)) * TRAILS;
    if (first - SYLLABLE < SYLLABLES && (first - SYLLABLE) % TRAILS == 0 && second - TRAIL - 1 < TRAILS - 1) return first + (second - TRAIL);
    if (first >> 20 || second >> 20) return UINT32_MAX;
    return hd_find(t, &t->compose, (uint64_t)first << 20 | second);
}

/* The code points [0, count) of e->point, decomposed: marks are put in order, then composed. Returns how many are left.
 * Source: Unicode 3.11, canonical ordering and composition. */
static size_t order_and_compose(hd_encoder *e, size_t count, bool compose)
{
    uint32_t *point = e->point;
    for (size_t i = 1; i < count; i++) {
        const unsigned class = mark_class(e->t, point[i]);
        size_t k = i;
        const uint32_t moved = point[i];
        for (; class && k && mark_class(e->t, point[k - 1]) > class; k--) point[k] = point[k - 1];
        point[k] = moved;
    }
    if (!compose || !count) return count;
    size_t kept = 1, starter = mark_class(e->t, point[0]) ? SIZE_MAX : 0;
    unsigned last = mark_class(e->t, point[0]);
    for (size_t i = 1; i < count; i++) {
        const unsigned class = mark_class(e->t, point[i]);
        const bool blocked = starter == SIZE_MAX || (kept - 1 != starter && (last >= class || !last));
        const uint32_t made = blocked ? UINT32_MAX : composite(e->t, point[starter], point[i]);
        if (made != UINT32_MAX) {
            point[starter] = made;
            continue;
        }
        if (!class) starter = kept;
        last = class;
        point[kept++] = point[i];
    }
    return kept;
}

static void flush(hd_encoder *e, size_t count, bool compose, hd_buffer *out)
{
    unsigned char text[4];
    count = order_and_compose(e, count, compose);
    for (size_t i = 0; i < count; i++) hd_put(e, out, text, hd_utf8_write(e->point[i], text));
}

static void push_point(hd_encoder *e, size_t *count, uint32_t point)
{
    if (*count == e->point_capacity && !hd_room(e, &e->point, &e->point_capacity, *count + 1, sizeof *e->point)) return;
    e->point[(*count)++] = point;
}

/* Text is cut before ASCII characters that ASCII follows: nothing composes or moves across there. */
static void form(hd_encoder *e, const hd_stage *stage, const char *text, size_t bytes, hd_buffer *out)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + bytes;
    size_t count = 0;
    while (p < end && !e->failed) {
        const unsigned char *plain = p;
        while (plain < end && *plain < 0x80) plain++;
        const size_t sure = plain == end ? (size_t)(plain - p) : plain > p ? (size_t)(plain - p) - 1 : 0;     /* a mark may follow the last */
        if (sure) {
            flush(e, count, stage->a, out);
            count = 0;
            hd_put(e, out, p, sure);
            p += sure;
            continue;
        }
        unsigned n;
        const uint32_t point = hd_utf8(p, end, &n);
        if (point == HD_NOT_UTF8) {
            flush(e, count, stage->a, out);
            count = 0;
            hd_put(e, out, p++, 1);
            continue;
        }
        p += n;
        uint32_t length;
        bool padded;
        const unsigned char *to = mapped(e->t, stage, point, &length, &padded);
        if (point - SYLLABLE < SYLLABLES) {
            const uint32_t at = point - SYLLABLE;
            push_point(e, &count, LEAD + at / (VOWELS * TRAILS));
            push_point(e, &count, VOWEL + at / TRAILS % VOWELS);
            if (at % TRAILS) push_point(e, &count, TRAIL + at % TRAILS);
        } else if (length == UINT32_MAX) {
            push_point(e, &count, point);
        } else {
            unsigned part;
            for (const unsigned char *q = to; q < to + length; q += part) push_point(e, &count, hd_utf8(q, to + length, &part));
        }
    }
    flush(e, count, stage->a, out);
}

/* from: `least` or more of them become `to`; runs: a whole run at once. */
static void replace(hd_encoder *e, const hd_stage *stage, const char *text, size_t bytes, hd_buffer *out)
{
    const char *from = bytes_of(e, &stage->from), *to = bytes_of(e, &stage->to), *end = text + bytes;
    const size_t length = stage->from.count;
    const bool run = stage->kind == HD_NORMAL_RUN;
    while (text < end && !e->failed) {
        const char *at = memchr(text, *from, (size_t)(end - text));
        if (!at) at = end;
        size_t found = 0;
        while ((size_t)(end - at) >= (found + 1) * length && !memcmp(at + found * length, from, length) && (run || !found)) found++;
        hd_put(e, out, text, (size_t)(at - text));
        if (at == end) return;
        if (run ? found && found >= stage->a : found) hd_put(e, out, to, stage->to.count), text = at + found * length;
        else if (found) hd_put(e, out, at, found * length), text = at + found * length;
        else hd_put(e, out, at, 1), text = at + 1;
    }
}

static void replace_matches(hd_encoder *e, const hd_stage *stage, void *compiled, const char *text, size_t bytes, hd_buffer *out)
{
    size_t at = 0, start, end;
    int found;
    while (at <= bytes && (found = e->regex->match(compiled, text, bytes, at, &start, &end)) > 0) {
        hd_put(e, out, text + at, start - at);
        hd_put(e, out, bytes_of(e, &stage->to), stage->to.count);
        at = end;
        if (start == end) {                       /* an empty match: on by one character */
            if (at == bytes) return;
            unsigned n;
            hd_utf8((const unsigned char *)text + at, (const unsigned char *)text + bytes, &n);
            hd_put(e, out, text + at, n);
            at += n;
        }
    }
    if (at <= bytes && found < 0) e->failed = true;
    else hd_put(e, out, text + at, bytes - at);
}

static void strip(hd_encoder *e, unsigned sides, const char **text, size_t *bytes)
{
    const unsigned char *p = (const unsigned char *)*text, *end = p + *bytes;
    unsigned n;
    while (sides & 1 && p < end && hd_class(e->t, hd_utf8(p, end, &n)) & HD_CLASS_SPACE) p += n;
    while (sides & 2 && p < end) {
        const unsigned char *last = end - 1;
        while (last > p && (*last & 0xc0) == 0x80) last--;
        if (!(hd_class(e->t, hd_utf8(last, end, &n)) & HD_CLASS_SPACE) || last + n != end) break;
        end = last;
    }
    *text = (const char *)p;
    *bytes = (size_t)(end - p);
}

/* ---- SentencePiece's compiled map: a double array (Darts-clone) whose values are offsets into `to`, strings ended by zero. The array
 * comes from a file, so every step is kept inside it. ---- */

/* The shortest (or longest) key that begins text: its bytes, 0 none; *value its value. */
static size_t prefix(const hd_encoder *e, const hd_stage *stage, const unsigned char *text, size_t bytes, bool longest, uint32_t *value)
{
    const uint32_t *unit = (const uint32_t *)(const void *)((const unsigned char *)e->t + stage->from.at), units = stage->from.count;
    size_t found = 0;
    uint32_t at = 0, u = unit[0];
    at ^= (u >> 10) << ((u & 0x200) >> 6);
    for (size_t i = 0; i < bytes; i++) {
        at ^= text[i];
        if (at >= units) break;
        u = unit[at];
        if ((u & 0x800000ff) != text[i]) break;
        at ^= (u >> 10) << ((u & 0x200) >> 6);
        if (u & 0x100) {
            if (at >= units) break;
            *value = unit[at] & 0x7fffffff;
            found = i + 1;
            if (!longest) break;
        }
    }
    return found;
}

static void put_value(hd_encoder *e, const hd_stage *stage, uint32_t value, hd_buffer *out)
{
    if (value < stage->to.count) hd_put(e, out, bytes_of(e, &stage->to) + value, strlen(bytes_of(e, &stage->to) + value));     /* the table ends in a zero */
}

static bool hangul(uint32_t point, char *kind)
{
    if (point - 0x1100 < 0x60 || point - 0xa960 < 0x1d) *kind = 'L';
    else if (point - 0x1160 < 0x48 || point - 0xd7b0 < 0x17) *kind = 'V';
    else if (point - 0x11a8 < 0x58 || point - 0xd7cb < 0x31) *kind = 'T';
    else if (point - SYLLABLE < SYLLABLES) *kind = (point - SYLLABLE) % TRAILS ? 'T' : 'V';
    else return false;
    return true;
}

/* Whether a grapheme goes on between two code points, as far as graphemes below 6 bytes can tell (Unicode Annex 29; sequences of
 * emoji and flags are longer, and marks that stand before their base are very rare). */
static bool joined(const hd_tokenizer *t, uint32_t left, uint32_t right)
{
    char a, b;
    if (left == '\r') return right == '\n';
    const unsigned class = hd_class(t, left);
    if (hd_class_in(class, HD_IN(HD_CC) | HD_IN(HD_ZL) | HD_IN(HD_ZP))) return false;
    if (hd_class(t, right) & HD_CLASS_EXTEND) return true;
    if (!hangul(left, &a) || !hangul(right, &b)) return false;
    if (left - 0x1100 < 0x60 || left - 0xa960 < 0x1d) return right - 0x11a8 >= 0x58 && right - 0xd7cb >= 0x31;
    if (right - SYLLABLE < SYLLABLES) return false;
    return a == 'V' ? b != 'L' : b == 'T';
}

static void trie(hd_encoder *e, const hd_stage *stage, const char *text, size_t bytes, hd_buffer *out)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + bytes;
    uint32_t value = 0;
    unsigned n;
    while (p < end && !e->failed) {
        if (!stage->a) {                          /* SentencePiece */
            const size_t found = prefix(e, stage, p, (size_t)(end - p), true, &value);
            if (found) put_value(e, stage, value, out), p += found;
            else hd_utf8(p, end, &n), hd_put(e, out, p, n), p += n;
            continue;
        }
        uint32_t point = hd_utf8(p, end, &n), next;
        const unsigned char *stop = p + n;
        while (stop < end && (next = hd_utf8(stop, end, &n), joined(e->t, point, next))) stop += n, point = next;
        if (stop - p < 6 && prefix(e, stage, p, (size_t)(stop - p), false, &value)) {
            put_value(e, stage, value, out);      /* the grapheme goes, whatever part of it was the key: as the library does */
            p = stop;
            continue;
        }
        for (; p < stop; p += n) {
            hd_utf8(p, end, &n);
            if (prefix(e, stage, p, n, false, &value)) put_value(e, stage, value, out);
            else hd_put(e, out, p, n);
        }
    }
}

static void spaces(hd_encoder *e, const char *text, size_t bytes, hd_buffer *out)
{
    bool pending = false;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == ' ') {
            pending = out->bytes > 0;
            continue;
        }
        if (pending) hd_put(e, out, " ", 1);
        pending = false;
        hd_put(e, out, text + i, 1);
    }
}

void hd_normalise(hd_encoder *e, const char **text, size_t *bytes)
{
    for (unsigned i = 0; i < e->t->normals && !e->failed; i++) {
        const hd_stage *stage = &e->t->stage[0][i];
        if (stage->kind == HD_NORMAL_STRIP) {
            strip(e, stage->a, text, bytes);
            continue;
        }
        hd_buffer *out = &e->normal[0];
        if (*bytes && *text >= out->data && *text < out->data + out->capacity) out = &e->normal[1];
        out->bytes = 0;
        if (!hd_put(e, out, "", 0) || (!out->data && !hd_room(e, &out->data, &out->capacity, 64, 1))) return;
        switch ((hd_stage_kind)stage->kind) {
        case HD_NORMAL_MAP: map(e, stage, *text, *bytes, out); break;
        case HD_NORMAL_FORM: form(e, stage, *text, *bytes, out); break;
        case HD_NORMAL_REPLACE: case HD_NORMAL_RUN: replace(e, stage, *text, *bytes, out); break;
        case HD_NORMAL_REGEX: replace_matches(e, stage, e->compiled[0][i], *text, *bytes, out); break;
        case HD_NORMAL_PREPEND:
            if (*bytes) hd_put(e, out, bytes_of(e, &stage->to), stage->to.count);
            hd_put(e, out, *text, *bytes);
            break;
        case HD_NORMAL_TRIE: trie(e, stage, *text, *bytes, out); break;
        case HD_NORMAL_SPACES: spaces(e, *text, *bytes, out); break;
        default: break;
        }
        *text = out->data;
        *bytes = out->bytes;
    }
}
