/* The encoder around normaliser, splitter and model, and the decoder (tokenizer.h). */
#include "tokenizer_parts.h"

#include <stdlib.h>

bool hd_room(hd_encoder *e, void *items, size_t *capacity, size_t needed, size_t item_bytes)
{
    size_t more = *capacity * 2 > needed ? *capacity * 2 : needed;
    if (more < 64) more = 64;
    void *old, *new;
    memcpy(&old, items, sizeof old);
    if (e->failed || more > SIZE_MAX / 2 / item_bytes || !(new = realloc(old, more * item_bytes))) {
        e->failed = true;
        return false;
    }
    memcpy(items, &new, sizeof new);
    *capacity = more;
    return true;
}

hd_encoder *hd_encoder_new(const hd_tokenizer *t, const hd_regex *regex)
{
    hd_encoder *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->t = t;
    e->regex = regex;
    hd_split_start(e);
    e->cache = calloc(HD_CACHED, sizeof *e->cache);
    bool made = e->cache != NULL;
    for (int part = 0; part < 2; part++)
        for (unsigned i = 0; i < (part ? t->splits : t->normals) && made; i++) {
            const hd_stage *stage = &t->stage[part][i];
            char error[128];
            if (stage->kind != HD_NORMAL_REGEX && stage->kind != HD_SPLIT_REGEX) continue;
            made = regex && (e->compiled[part][i] = regex->compile((const char *)t + stage->from.at, stage->from.count, error, sizeof error));
        }
    if (made) return e;
    hd_encoder_free(e);
    return NULL;
}

void hd_encoder_free(hd_encoder *e)
{
    if (!e) return;
    for (int part = 0; part < 2; part++)
        for (unsigned i = 0; i < HD_TOKENIZER_STAGES; i++) if (e->compiled[part][i]) e->regex->free(e->compiled[part][i]);
    for (unsigned i = 0; i < HD_TOKENIZER_STAGES; i++) free(e->stage[i].data);
    free(e->valid.data), free(e->normal[0].data), free(e->normal[1].data);
    free(e->id), free(e->end), free(e->symbol), free(e->heap), free(e->node), free(e->point), free(e->cache);
    free(e);
}

/* ---- added tokens ---- */

typedef struct found { size_t start, end; const hd_added *token; } found;

static bool word_at(const hd_tokenizer *t, const unsigned char *p, const unsigned char *end)
{
    unsigned n;
    return p < end && hd_class(t, hd_utf8(p, end, &n)) & HD_CLASS_WORD;
}
static const unsigned char *character_before(const unsigned char *p, const unsigned char *start)
{
    const unsigned char *q = p - 1;
    while (q > start && p - q < 4 && (*q & 0xc0) == 0x80) q--;
    return q;
}

/* The first added token in text[from, bytes): of those that begin there the longest. */
static bool find_added(const hd_tokenizer *t, int normalised, const unsigned char *text, size_t bytes, size_t from, found *out)
{
    const uint8_t *first = (const uint8_t *)t + t->added_first[normalised].at;
    const uint32_t *of_node = (const uint32_t *)(const void *)((const unsigned char *)t + t->added_node[normalised].at);
    for (size_t at = from; at < bytes; at++) {
        while (at < bytes && !first[text[at]]) at++;
        uint32_t node = 0, index = 0;
        size_t stop = at;
        for (size_t i = at; i < bytes && (node = hd_find(t, &t->added_trie[normalised], (uint64_t)node << 8 | text[i])) != UINT32_MAX; i++)
            if (of_node[node]) index = of_node[node], stop = i + 1;
        if (!index) continue;
        const hd_added *token = &HD_AT(t, added, hd_added)[index - 1];
        const unsigned char *start = text + at, *end = text + bytes, *after = text + stop;
        unsigned n;
        if (token->flags & HD_ADDED_WORD && ((at > 0 && word_at(t, character_before(start, text), start)) || word_at(t, after, end))) {
            at = stop - 1;                        /* part of a word: passed over */
            continue;
        }
        while (token->flags & HD_ADDED_LEFT && start > text + from) {
            const unsigned char *q = character_before(start, text + from);
            if (!(hd_class(t, hd_utf8(q, start, &n)) & HD_CLASS_SPACE)) break;
            start = q;
        }
        while (token->flags & HD_ADDED_RIGHT && after < end && hd_class(t, hd_utf8(after, end, &n)) & HD_CLASS_SPACE) after += n;
        *out = (found){ (size_t)(start - text), (size_t)(after - text), token };
        return true;
    }
    return false;
}

static void pieces(hd_encoder *e, const char *text, size_t bytes)
{
    if (bytes) hd_split(e, text, bytes);
}

/* Text without added tokens that are found before normalisation. */
static void section(hd_encoder *e, const char *text, size_t bytes)
{
    hd_normalise(e, &text, &bytes);
    e->origin = text;
    size_t at = 0;
    found f;
    while (e->t->added_node[1].count && !e->failed && find_added(e->t, 1, (const unsigned char *)text, bytes, at, &f)) {
        pieces(e, text + at, f.start - at);
        hd_put_id(e, (int32_t)f.token->id);
        e->start = false;
        at = f.end;
    }
    if (!e->failed) pieces(e, text + at, bytes - at);
}

/* The text with U+FFFD for what is no UTF-8, as a library that reads text makes of it: one for each longest part of a character, else
 * for each byte. */
static void make_valid(hd_encoder *e, const char **text, size_t *bytes)
{
    const unsigned char *p = (const unsigned char *)*text, *end = p + *bytes, *kept = p;
    hd_buffer *out = &e->valid;
    unsigned n;
    out->bytes = 0;
    bool changed = false;
    while (p < end && !e->failed) {
        if (*p < 0x80 || hd_utf8(p, end, &n) != HD_NOT_UTF8) {
            p += *p < 0x80 ? 1 : n;
            continue;
        }
        hd_put(e, out, kept, (size_t)(p - kept));
        hd_put(e, out, "\xef\xbf\xbd", 3);
        changed = true;
        const unsigned char lead = *p++;
        if (lead >= 0xc2 && lead < 0xf5 && p < end) {
            const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80, high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
            if (lead >= 0xe0 && *p >= low && *p <= high) {
                p++;
                if (lead >= 0xf0 && p < end && (*p & 0xc0) == 0x80) p++;
            }
        }
        kept = p;
    }
    if (!changed) return;
    hd_put(e, out, kept, (size_t)(end - kept));
    *text = out->data;
    *bytes = out->bytes;
}

static void encode(hd_encoder *e, const char *text, size_t bytes)
{
    e->failed = false;
    e->start = true;
    e->ends = 0;
    if (!(e->t->flags & HD_TOKENS_BYTES)) make_valid(e, &text, &bytes);
    size_t at = 0;
    found f;
    while (e->t->added_node[0].count && !e->failed && find_added(e->t, 0, (const unsigned char *)text, bytes, at, &f)) {
        if (f.start > at) section(e, text + at, f.start - at);
        hd_put_id(e, (int32_t)f.token->id);
        e->start = false;
        at = f.end;
    }
    if (!e->failed && (at < bytes)) section(e, text + at, bytes - at);
}

int64_t hd_encode(hd_encoder *e, const char *text, size_t bytes, bool special, const int32_t **ids)
{
    const hd_tokenizer *t = e->t;
    e->ids = 0;
    e->failed = e->list = false;
    for (uint32_t i = 0; special && i < t->before.count; i++) hd_put_id(e, (int32_t)HD_AT(t, before, uint32_t)[i]);
    encode(e, text, bytes);
    for (uint32_t i = 0; special && i < t->after.count; i++) hd_put_id(e, (int32_t)HD_AT(t, after, uint32_t)[i]);
    *ids = e->id;
    return e->failed ? -1 : (int64_t)e->ids;
}

int64_t hd_encoder_normalise(hd_encoder *e, const char *text, size_t bytes, const char **normal)
{
    e->failed = false;
    hd_normalise(e, &text, &bytes);
    *normal = text;
    return e->failed ? -1 : (int64_t)bytes;
}

int64_t hd_encoder_piece(hd_encoder *e, const char *piece, size_t bytes, const int32_t **ids)
{
    e->ids = 0;
    e->failed = e->list = false;
    if (bytes) hd_piece(e, piece, bytes);
    *ids = e->id;
    return e->failed ? -1 : (int64_t)e->ids;
}

int64_t hd_encoder_split(hd_encoder *e, const char *text, size_t bytes, const int64_t **ends)
{
    e->failed = false;
    e->list = e->start = true;
    e->ends = 0;
    e->origin = text;
    hd_split(e, text, bytes);
    e->list = false;
    *ends = e->end;
    return e->failed ? -1 : (int64_t)e->ends;
}

/* ---- decoding ---- */

static const char *shown(const hd_tokenizer *t, int32_t id, bool first, size_t *bytes)
{
    const hd_table *at = first && t->first_at.count ? &t->first_at : &t->shown_at, *text = first && t->first_at.count ? &t->first : &t->shown;
    const uint32_t *from = (const uint32_t *)(const void *)((const unsigned char *)t + at->at);
    if (id < 0 || (uint32_t)id >= t->vocab) return *bytes = 0, "";
    *bytes = from[id + 1] - from[id];
    return (const char *)t + text->at + from[id];
}

/* The text of one token, without the blanks that the beginning of a text loses. */
static const char *next_token(hd_stream *s, int32_t id, size_t *bytes)
{
    const hd_tokenizer *t = s->tokenizer;
    *bytes = 0;
    if (id < 0 || (uint32_t)id >= t->vocab || (s->skip && t->special.count && HD_AT(t, special, uint8_t)[id])) return "";
    const char *text = shown(t, id, s->count == 0, bytes);
    const bool first = s->count++ == 0;
    if (t->flags & HD_TOKENS_UNSPACE && first) while (*bytes && *text == ' ') text++, --*bytes;
    while (s->stripped < t->strip_first && *bytes) {
        if (*text != ' ') {
            s->stripped = UINT32_MAX;
            break;
        }
        text++, --*bytes, s->stripped++;
    }
    return text;
}

/* As transformers' clean_up_tokenization, one pass for each pair. In place; returns the new length. */
static size_t clean(char *text, size_t bytes)
{
    static const char *const pair[][2] = { { " .", "." }, { " ?", "?" }, { " !", "!" }, { " ,", "," }, { " ' ", "'" }, { " n't", "n't" }, { " 'm", "'m" }, { " 's", "'s" },
                                           { " 've", "'ve" }, { " 're", "'re" } };
    for (unsigned k = 0; k < sizeof pair / sizeof *pair; k++) {
        const size_t from = strlen(pair[k][0]), to = strlen(pair[k][1]);
        size_t out = 0;
        for (size_t i = 0; i < bytes;) {
            if (bytes - i >= from && !memcmp(text + i, pair[k][0], from)) memcpy(text + out, pair[k][1], to), out += to, i += from;
            else text[out++] = text[i++];
        }
        bytes = out;
    }
    return bytes;
}

char *hd_decode(const hd_tokenizer *t, const int32_t *ids, int64_t count, bool skip, size_t *bytes)
{
    size_t total = 0, n;
    hd_stream s = { .tokenizer = t, .skip = skip };
    for (int64_t i = 0; i < count; i++) next_token(&s, ids[i], &n), total += n;
    char *out = malloc(total + 1);
    if (!out) return NULL;
    s = (hd_stream){ .tokenizer = t, .skip = skip };
    for (int64_t i = 0, at = 0; i < count; i++, at += (int64_t)n) {
        const char *text = next_token(&s, ids[i], &n);
        memcpy(out + at, text, n);
    }
    if (t->flags & HD_TOKENS_CLEAN) total = clean(out, total);
    out[total] = 0;
    *bytes = total;
    return out;
}

size_t hd_stream_room(const hd_tokenizer *t) { return 3 * ((size_t)t->longest + sizeof ((hd_stream *)0)->hold) + 1; }

/* How many bytes at p < end are the beginning of a character that may still become whole; 0: none. */
static unsigned unfinished(const unsigned char *p, const unsigned char *end)
{
    const size_t left = (size_t)(end - p);
    const unsigned char low = *p == 0xe0 ? 0xa0 : *p == 0xf0 ? 0x90 : 0x80, high = *p == 0xed ? 0x9f : *p == 0xf4 ? 0x8f : 0xbf;
    const unsigned wanted = *p >= 0xf0 && *p < 0xf5 ? 4 : *p >= 0xe0 && *p < 0xf0 ? 3 : *p >= 0xc2 && *p < 0xe0 ? 2 : 0;
    if (left >= wanted || (left > 1 && (p[1] < low || p[1] > high)) || (left > 2 && (p[2] & 0xc0) != 0x80)) return 0;
    return (unsigned)left;
}

size_t hd_stream_put(hd_stream *s, int32_t id, char *out)
{
    size_t written = 0, n;
    const char *text = next_token(s, id, &n);
    unsigned m;
    for (size_t i = 0; i < n || (id < 0 && s->held);) {
        /* held and what follows, up to four bytes, is one character, the beginning of one, or a byte that is none */
        unsigned char part[4];
        unsigned have = s->held;
        memcpy(part, s->hold, have);
        while (have < 4 && i + (have - s->held) < n) part[have] = (unsigned char)text[i + (have - s->held)], have++;
        const bool more = i + (have - s->held) < n;
        if (!more && id >= 0 && unfinished(part, part + have)) {
            memcpy(s->hold, part, have);
            s->held = have;
            return written;
        }
        unsigned used = 1;
        if (hd_utf8(part, part + have, &m) != HD_NOT_UTF8) {
            memcpy(out + written, part, m);
            written += m, used = m;
        } else {
            while (used < have && unfinished(part, part + used + 1)) used++;      /* one mark for the longest part of a character */
            memcpy(out + written, "\xef\xbf\xbd", 3);
            written += 3;
        }
        if (used >= s->held) i += used - s->held, s->held = 0;
        else memmove(s->hold, s->hold + used, s->held - used), s->held -= used;
    }
    return written;
}
