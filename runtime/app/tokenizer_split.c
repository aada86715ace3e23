/* Cutting a text into pieces. The patterns of the known families are written out by hand, with a step for ASCII and one for the rest:
 * a backtracking machine takes longer over them than the model over the pieces. tests/compiler/tokenizer_test.c holds them against
 * PCRE2 on random text. */
#include "tokenizer_parts.h"

/* The class of the character at p < end, and its bytes. */
static inline unsigned hd_utf8_class(const hd_tokenizer *t, const unsigned char *p, const unsigned char *end, unsigned *n)
{
    if (*p < 0x80) {
        *n = 1;
        return HD_AT(t, class_block, uint8_t)[(size_t)HD_AT(t, class_index, uint16_t)[0] * 128 + *p];
    }
    return hd_class(t, hd_utf8(p, end, n));
}

typedef hd_char_kind kind;
static inline kind kind_of(unsigned class)
{
    if (class & HD_CLASS_SPACE) return HD_SPACE;
    return hd_class_in(class, HD_MASK_LETTER) ? HD_LETTER : hd_class_in(class, HD_MASK_NUMBER) ? HD_NUMBER : HD_OTHER;
}
/* The kind of the character at p < end, and its bytes. */
static inline kind kind_at(const hd_encoder *e, const unsigned char *p, const unsigned char *end, unsigned *n)
{
    *n = 1;
    const kind k = (kind)e->kind[*p];
    return k != HD_BEYOND ? k : kind_of(hd_class(e->t, hd_utf8(p, end, n)));
}

void hd_split_start(hd_encoder *e)
{
    unsigned n;
    for (unsigned b = 0; b < 256; b++) {
        const unsigned char byte = (unsigned char)b;
        e->kind[b] = (uint8_t)(b < 0x80 ? kind_of(hd_utf8_class(e->t, &byte, &byte + 1, &n)) : HD_BEYOND);
    }
}

/* The end of the run of characters of one kind from p on, at most `most` of them. */
static const unsigned char *run(const hd_encoder *e, const unsigned char *p, const unsigned char *end, kind wanted, uint32_t most)
{
    unsigned n;
    for (; p < end && most && kind_at(e, p, end, &n) == wanted; most--) p += n;
    return p;
}

/* The same without a limit. */
static inline const unsigned char *run_all(const hd_encoder *e, const unsigned char *p, const unsigned char *end, kind wanted)
{
    for (unsigned n; ; p += n) {
        while (p < end && e->kind[*p] == wanted) p++;
        if (p == end || e->kind[*p] != HD_BEYOND || kind_at(e, p, end, &n) != wanted) return p;
    }
}

static unsigned lower(unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32u : c; }

/* 's 't 'm 'd 're 've 'll at p: its bytes, or 0. folded: in any case, the long s included. */
static unsigned contraction(const unsigned char *p, const unsigned char *end, bool folded)
{
    if (end - p < 2 || *p != '\'') return 0;
    const unsigned a = folded ? lower(p[1]) : p[1], b = end - p < 3 ? 0 : folded ? lower(p[2]) : p[2];
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return folded && a == 0xc5 && b == 0xbf ? 3 : 0;
}

/* \s+(?!\S)|\s+ : white space up to its last character if something follows. */
static const unsigned char *white(const hd_encoder *e, const unsigned char *p, const unsigned char *end)
{
    const unsigned char *last = p, *q = p;
    unsigned n;
    while (q < end && kind_at(e, q, end, &n) == HD_SPACE) last = q, q += n;
    return q == end || last == p ? q : last;
}

/* \s*[\r\n]+ : the end of the last line end in the run of white space; p if there is none. */
static const unsigned char *lines(const hd_encoder *e, const unsigned char *p, const unsigned char *end)
{
    const unsigned char *last = p;
    unsigned n;
    while (p < end && kind_at(e, p, end, &n) == HD_SPACE) {
        if (*p == '\r' || *p == '\n') last = p + 1;
        p += n;
    }
    return last;
}

static const unsigned char *next_gpt2(const hd_encoder *e, const unsigned char *p, const unsigned char *end)
{
    unsigned n = contraction(p, end, false);
    if (n) return p + n;
    const unsigned char *from = p;
    if (*p == ' ' && end - p > 1) from++;
    const kind k = kind_at(e, from, end, &n);
    if (k == HD_SPACE) return white(e, p, end);
    return run_all(e, from + n, end, k);
}

/* ` ?[^\s\p{L}\p{N}]+[\r\n]*`, with `also` one more character in the tail; NULL: no match. */
static const unsigned char *marks(const hd_encoder *e, const unsigned char *p, const unsigned char *end, int also)
{
    unsigned n;
    if (*p == ' ' && end - p > 1) p++;
    if (kind_at(e, p, end, &n) != HD_OTHER) return NULL;
    p = run_all(e, p, end, HD_OTHER);
    while (p < end && (*p == '\r' || *p == '\n' || *p == also)) p++;
    return p;
}

static const unsigned char *spaces_after(const hd_encoder *e, const unsigned char *p, const unsigned char *end)
{
    const unsigned char *line = lines(e, p, end);
    return line > p ? line : white(e, p, end);
}

static const unsigned char *next_cl100k(const hd_encoder *e, const unsigned char *p, const unsigned char *end, uint32_t digits)
{
    unsigned n = contraction(p, end, true), m;
    if (n) return p + n;
    const kind k = kind_at(e, p, end, &n);
    if (k == HD_LETTER) return run_all(e, p + n, end, HD_LETTER);
    if (k == HD_NUMBER) return run(e, p, end, HD_NUMBER, digits);
    if (*p != '\r' && *p != '\n' && p + n < end && kind_at(e, p + n, end, &m) == HD_LETTER) return run_all(e, p + n + m, end, HD_LETTER);
    const unsigned char *found = marks(e, p, end, -1);
    return found ? found : spaces_after(e, p, end);
}

enum { UPPER = HD_IN(HD_LU) | HD_IN(HD_LT) | HD_IN(HD_LM) | HD_IN(HD_LO) | HD_MASK_MARK, LOWER = HD_IN(HD_LL) | HD_IN(HD_LM) | HD_IN(HD_LO) | HD_MASK_MARK };

static const unsigned char *run_in(const hd_tokenizer *t, const unsigned char *p, const unsigned char *end, uint32_t mask)
{
    unsigned n;
    while (p < end && hd_class_in(hd_utf8_class(t, p, end, &n), mask)) p += n;
    return p;
}

/* UPPER* LOWER+ from p, as a backtracking machine matches it: where the run of UPPER leaves nothing to LOWER, it gives characters
 * back until one is both. NULL: no match. */
static const unsigned char *capital(const hd_tokenizer *t, const unsigned char *p, const unsigned char *end)
{
    const unsigned char *both = NULL, *q = p;
    unsigned n;
    for (; q < end; q += n) {
        const unsigned class = hd_utf8_class(t, q, end, &n);
        if (!hd_class_in(class, UPPER)) break;
        if (hd_class_in(class, LOWER)) both = q + n;
    }
    const unsigned char *stop = run_in(t, q, end, LOWER);
    return stop > q ? stop : both;
}

static const unsigned char *next_o200k(const hd_encoder *e, const unsigned char *p, const unsigned char *end, uint32_t digits, bool gpt)
{
    unsigned n;
    const hd_tokenizer *t = e->t;
    const unsigned class = hd_utf8_class(t, p, end, &n);
    const kind k = kind_of(class);
    const unsigned char *after = k != HD_LETTER && k != HD_NUMBER && *p != '\r' && *p != '\n' && p + n < end ? p + n : NULL, *found = NULL;
    if (k != HD_NUMBER) {
        if (after) found = capital(t, after, end);
        if (!found && (k == HD_LETTER || hd_class_in(class, HD_MASK_MARK))) found = capital(t, p, end);
        if (!found && after) found = run_in(t, after, end, UPPER), found = found > after ? run_in(t, found, end, LOWER) : NULL;
        if (!found && hd_class_in(class, UPPER)) found = run_in(t, run_in(t, p, end, UPPER), end, LOWER);
        if (found) return gpt ? found + contraction(found, end, true) : found;
    } else {
        return run(e, p, end, HD_NUMBER, digits);
    }
    found = marks(e, p, end, '/');
    return found ? found : spaces_after(e, p, end);
}

/* [^(\s|[.,!?...])] : with Oniguruma's nested class, what BLOOM's pattern leaves in a word. */
static bool bloom_word(const hd_tokenizer *t, const unsigned char *p, const unsigned char *end, unsigned *n)
{
    static const uint32_t out[] = { '(', ')', '|', '.', ',', '!', '?', 0x2026, 0x3002, 0xff0c, 0x3001, 0x964, 0x6d4, 0x60c };
    if (hd_utf8_class(t, p, end, n) & HD_CLASS_SPACE) return false;
    const uint32_t point = hd_utf8(p, end, n);
    for (unsigned i = 0; i < sizeof out / sizeof *out; i++) if (point == out[i]) return false;
    return true;
}

static const unsigned char *next_bloom(const hd_tokenizer *t, const unsigned char *p, const unsigned char *end)
{
    unsigned n;
    const unsigned char *q = p + (*p == ' ' && end - p > 1 && bloom_word(t, p + 1, end, &n));
    const unsigned char *start = q;
    while (q < end && bloom_word(t, q, end, &n)) q += n;
    if (q > start) return q;
    for (q = p; q < end; q += n) {                /* the gap up to the next word */
        const bool blank = *q == ' ' && end - q > 1 && bloom_word(t, q + 1, end, &n);
        if (blank || bloom_word(t, q, end, &n)) break;
        hd_utf8(q, end, &n);
    }
    return q;
}

static bool punctuation(const unsigned char *p, unsigned class)
{
    if (*p < 0x80) return *p > ' ' && *p < 0x7f && !hd_class_in(class, HD_MASK_LETTER | HD_MASK_NUMBER);
    return hd_class_in(class, HD_MASK_PUNCTUATION);
}

static const unsigned char *next_of_class(const hd_tokenizer *t, const hd_stage *stage, const unsigned char *p, const unsigned char *end, bool *dropped)
{
    unsigned n;
    const unsigned class = hd_utf8_class(t, p, end, &n);
    const unsigned char *q = p + n;
    switch ((hd_stage_kind)stage->kind) {
    case HD_SPLIT_WORDS:
        *dropped = class & HD_CLASS_SPACE && !(class & HD_CLASS_WORD);
        for (unsigned c; q < end; q += n) {
            c = hd_utf8_class(t, q, end, &n) ^ class;
            if (c & HD_CLASS_WORD || (!(class & HD_CLASS_WORD) && c & HD_CLASS_SPACE)) break;
        }
        return q;
    case HD_SPLIT_BERT:
        if (!(class & HD_CLASS_SPACE) && punctuation(p, class)) return q;
        *dropped = class & HD_CLASS_SPACE;
        for (unsigned c; q < end && (c = hd_utf8_class(t, q, end, &n), !((c ^ class) & HD_CLASS_SPACE) && (*dropped || !punctuation(q, c))); q += n) { }
        return q;
    case HD_SPLIT_SPACES:
        *dropped = class & HD_CLASS_SPACE;
        while (q < end && !((hd_utf8_class(t, q, end, &n) ^ class) & HD_CLASS_SPACE)) q += n;
        return q;
    default:                                      /* HD_SPLIT_DIGITS */
        if (stage->a && hd_class_in(class, HD_MASK_NUMBER)) return q;
        while (q < end && hd_class_in(hd_utf8_class(t, q, end, &n), HD_MASK_NUMBER) == hd_class_in(class, HD_MASK_NUMBER)) q += n;
        return q;
    }
}

static void cut(hd_encoder *e, unsigned stage, const char *text, size_t bytes);

/* The first match of a stage that splits at matches: false none. */
static bool match(hd_encoder *e, unsigned number, const char *text, size_t bytes, size_t from, size_t *start, size_t *end)
{
    const hd_stage *stage = &e->t->stage[1][number];
    if (stage->kind == HD_SPLIT_REGEX) {
        const int found = e->regex->match(e->compiled[1][number], text, bytes, from, start, end);
        if (found < 0) e->failed = true;
        return found > 0;
    }
    if (stage->kind == HD_SPLIT_PUNCTUATION) {
        unsigned n;
        const unsigned char *p = (const unsigned char *)text + from, *stop = (const unsigned char *)text + bytes;
        for (; p < stop; p += n)
            if (punctuation(p, hd_utf8_class(e->t, p, stop, &n))) {
                *start = (size_t)(p - (const unsigned char *)text), *end = *start + n;
                return true;
            }
        return false;
    }
    const char *wanted = (const char *)e->t + stage->from.at, *p = text + from, *stop = text + bytes;
    const size_t length = stage->from.count;
    while ((size_t)(stop - p) >= length && (p = memchr(p, *wanted, (size_t)(stop - p))) && (size_t)(stop - p) >= length) {
        if (!memcmp(p, wanted, length)) {
            *start = (size_t)(p - text), *end = *start + length;
            return true;
        }
        p++;
    }
    return false;
}

/* Matches and the gaps between them, in order; `at` goes on. false: the text is at its end. */
typedef struct part { size_t start, end; bool matched; } part;
typedef struct parts { size_t at, start, end; bool found, begun; } parts;
static bool next_part(hd_encoder *e, unsigned number, const char *text, size_t bytes, parts *s, part *out)
{
    const bool invert = e->t->stage[1][number].kind == HD_SPLIT_REGEX && e->t->stage[1][number].b;
    while (!e->failed) {
        if (!s->begun) {
            size_t from = s->at;
            do s->found = from <= bytes && match(e, number, text, bytes, from, &s->start, &s->end), from = s->end + 1;
            while (s->found && s->start == s->end);              /* empty matches cut nothing */
            s->begun = true;
        }
        if (s->at >= bytes) return false;
        const size_t gap_end = s->found ? s->start : bytes;
        if (s->at < gap_end) {
            *out = (part){ s->at, gap_end, invert };
            s->at = gap_end;
            return true;
        }
        *out = (part){ s->start, s->end, !invert };
        s->at = s->end;
        s->begun = false;
        return true;
    }
    return false;
}

/* The pieces of a stage that splits at matches. A piece is given on when the part after it is known. */
static void cut_at_matches(hd_encoder *e, unsigned number, const char *text, size_t bytes)
{
    const hd_split_behaviour behaviour = (hd_split_behaviour)e->t->stage[1][number].a;
    parts s = { 0 };
    part now, held = { 0 };
    bool holds = false, previous = false;
    while (next_part(e, number, text, bytes, &s, &now)) {
        bool join = false;
        switch (behaviour) {
        case HD_SPLIT_REMOVED: if (now.matched) continue; break;
        case HD_SPLIT_ISOLATED: break;
        case HD_SPLIT_WITH_PREVIOUS: join = now.matched && holds && !previous; break;
        case HD_SPLIT_WITH_NEXT: join = !now.matched && holds && held.matched; break;
        case HD_SPLIT_CONTIGUOUS: join = holds && held.matched == now.matched; break;
        }
        previous = now.matched;
        if (join) {
            held.end = now.end;
            held.matched = behaviour == HD_SPLIT_WITH_NEXT ? false : now.matched;
            continue;
        }
        if (holds) cut(e, number + 1, text + held.start, held.end - held.start);
        e->start = e->start && !holds;
        held = now;
        holds = true;
    }
    if (holds) cut(e, number + 1, text + held.start, held.end - held.start);
}

/* Blanks become the mark, one is put before as the scheme says; then a piece begins at each mark. */
static void metaspace(hd_encoder *e, unsigned number, const char *text, size_t bytes)
{
    const hd_stage *stage = &e->t->stage[1][number];
    const char *mark = (const char *)e->t + stage->to.at;
    const size_t length = stage->to.count;
    hd_buffer *out = &e->stage[number];
    out->bytes = 0;
    const bool marked = (bytes && *text == ' ') || (bytes >= length && !memcmp(text, mark, length));
    if (!marked && (stage->a == 2 || (stage->a == 1 && e->start))) hd_put(e, out, mark, length);
    for (const char *end = text + bytes; text < end;) {
        const char *blank = memchr(text, ' ', (size_t)(end - text));
        hd_put(e, out, text, (size_t)((blank ? blank : end) - text));
        if (blank) hd_put(e, out, mark, length);
        text = blank ? blank + 1 : end;
    }
    if (e->failed) return;
    if (!stage->b) {
        cut(e, number + 1, out->data, out->bytes);
        return;
    }
    for (size_t at = 0, end; at < out->bytes; at = end) {
        for (end = at + 1; end < out->bytes && !(out->bytes - end >= length && !memcmp(out->data + end, mark, length)); end++) { }
        cut(e, number + 1, out->data + at, end - at);
    }
}

static void cut(hd_encoder *e, unsigned number, const char *text, size_t bytes)
{
    if (e->failed || !bytes) return;
    if (number == e->t->splits) {
        hd_piece(e, text, bytes);
        e->start = false;
        return;
    }
    const hd_tokenizer *t = e->t;
    const hd_stage *stage = &t->stage[1][number];
    const unsigned char *p = (const unsigned char *)text, *end = p + bytes, *next;
    const bool last = number + 1 == t->splits;
    const hd_stage_kind what = (hd_stage_kind)stage->kind;
    switch (what) {
    case HD_SPLIT_LITERAL: case HD_SPLIT_REGEX: case HD_SPLIT_PUNCTUATION: cut_at_matches(e, number, text, bytes); return;
    case HD_SPLIT_METASPACE: metaspace(e, number, text, bytes); return;
    case HD_SPLIT_PREFIX:
        if (*text != ' ') {
            hd_buffer *out = &e->stage[number];
            out->bytes = 0;
            hd_put(e, out, " ", 1);
            hd_put(e, out, text, bytes);
            if (!e->failed) cut(e, number + 1, out->data, out->bytes);
        } else {
            cut(e, number + 1, text, bytes);
        }
        return;
    case HD_SPLIT_BEFORE: {
        const char *mark = (const char *)t + stage->from.at;
        const size_t length = stage->from.count;
        for (const char *at = text, *stop = text + bytes; at < stop;) {
            const char *q = at;
            while ((size_t)(stop - q) >= length && !memcmp(q, mark, length)) q += length;
            for (q += q == at; (q = memchr(q, *mark, (size_t)(stop - q))) != NULL; q++) if ((size_t)(stop - q) >= length && !memcmp(q, mark, length)) break;
            if (!q) q = stop;
            if (last) hd_piece(e, at, (size_t)(q - at));
            else cut(e, number + 1, at, (size_t)(q - at));
            at = q;
        }
        return;
    }
    default: break;
    }
    for (; p < end && !e->failed; p = next) {
        bool dropped = false;
        switch (what) {
        case HD_SPLIT_GPT2: next = next_gpt2(e, p, end); break;
        case HD_SPLIT_CL100K: next = next_cl100k(e, p, end, stage->a); break;
        case HD_SPLIT_O200K: next = next_o200k(e, p, end, stage->a, stage->b); break;
        case HD_SPLIT_BLOOM: next = next_bloom(t, p, end); break;
        default: next = next_of_class(t, stage, p, end, &dropped); break;
        }
        if (dropped) { e->start = false; continue; }
        if (last) hd_piece(e, (const char *)p, (size_t)(next - p)), e->start = false;
        else cut(e, number + 1, (const char *)p, (size_t)(next - p));
    }
}

void hd_split(hd_encoder *e, const char *text, size_t bytes) { cut(e, 0, text, bytes); }
