/* What the parts of the encoder share (tokenizer.h is the interface). */
#ifndef HD_TOKENIZER_PARTS_H
#define HD_TOKENIZER_PARTS_H

#include <string.h>

#include "tokenizer.h"

/* General categories, in the order of Unicode's list (and of utf8proc). */
enum hd_category { HD_CN, HD_LU, HD_LL, HD_LT, HD_LM, HD_LO, HD_MN, HD_MC, HD_ME, HD_ND, HD_NL, HD_NO, HD_PC, HD_PD, HD_PS, HD_PE, HD_PI, HD_PF, HD_PO,
                   HD_SM, HD_SC, HD_SK, HD_SO, HD_ZS, HD_ZL, HD_ZP, HD_CC, HD_CF, HD_CS, HD_CO };
#define HD_IN(category) (UINT32_C(1) << (category))
enum {
    HD_MASK_LETTER = 0x3e,          /* Lu Ll Lt Lm Lo */
    HD_MASK_MARK = 0x1c0,           /* Mn Mc Me */
    HD_MASK_NUMBER = 0xe00,         /* Nd Nl No */
    HD_MASK_PUNCTUATION = 0x7f000,  /* Pc .. Po */
};
static inline bool hd_class_in(unsigned class, uint32_t mask) { return mask >> (class & HD_CLASS_CATEGORY) & 1; }

typedef struct hd_buffer { char *data; size_t bytes, capacity; } hd_buffer;

/* A piece and its ids: key holds its first and last bytes, which tell all of it up to 32. 64 bytes; bytes 0: empty. */
typedef struct hd_cached { uint64_t key[4]; uint8_t bytes, count; int32_t id[7]; } hd_cached;
enum { HD_CACHED = 1 << 14 };

typedef enum { HD_LETTER, HD_NUMBER, HD_SPACE, HD_OTHER, HD_BEYOND } hd_char_kind;       /* BEYOND: a byte of a longer character */

typedef struct hd_symbol { int32_t id, before, after; } hd_symbol;       /* a doubly linked list in text order; id -1: merged away */
typedef struct hd_candidate { uint32_t rank, at; int32_t left, right; } hd_candidate;
typedef struct hd_node { double score; int32_t id; uint32_t from; } hd_node;

struct hd_encoder {
    const hd_tokenizer *t;
    const hd_regex *regex;
    void *compiled[2][HD_TOKENIZER_STAGES];
    bool failed;                                       /* memory ran out: what was made is not whole */
    bool start;                                        /* the piece begins the text */
    int32_t *id; size_t ids, id_capacity;
    int64_t *end; size_t ends, end_capacity;           /* hd_encoder_split */
    bool list;                                         /* pieces are listed, not encoded */
    const char *origin;
    hd_buffer valid, normal[2], stage[HD_TOKENIZER_STAGES];
    hd_symbol *symbol; size_t symbol_capacity;
    hd_candidate *heap; size_t heap_count, heap_capacity;
    hd_node *node; size_t node_capacity;
    uint32_t *point; size_t point_capacity;            /* code points being put in order */
    hd_cached *cache;
    uint8_t kind[256];                                 /* hd_char_kind of bytes */
};

/* items with room for `needed`; false and e->failed when memory is out. */
HD_TOKENS_SHARED bool hd_room(hd_encoder *e, void *items, size_t *capacity, size_t needed, size_t item_bytes);
static inline bool hd_put(hd_encoder *e, hd_buffer *b, const void *data, size_t bytes)
{
    if (b->capacity - b->bytes < bytes && !hd_room(e, &b->data, &b->capacity, b->bytes + bytes, 1)) return false;
    if (bytes) memcpy(b->data + b->bytes, data, bytes);
    b->bytes += bytes;
    return true;
}
static inline void hd_put_id(hd_encoder *e, int32_t id)
{
    if (e->ids == e->id_capacity && !hd_room(e, &e->id, &e->id_capacity, e->ids + 1, sizeof *e->id)) return;
    e->id[e->ids++] = id;
}

enum { HD_NOT_UTF8 = 0x110000 };
/* The code point at p < end, and its bytes; HD_NOT_UTF8 and 1 where there is none. */
static inline uint32_t hd_utf8(const unsigned char *p, const unsigned char *end, unsigned *bytes)
{
    *bytes = 1;
    if (*p < 0x80) return *p;
    const size_t left = (size_t)(end - p);
    if (*p >= 0xc2 && *p < 0xe0) {
        if (left < 2 || (p[1] & 0xc0) != 0x80) return HD_NOT_UTF8;
        *bytes = 2;
        return (uint32_t)(*p & 0x1f) << 6 | (p[1] & 0x3f);
    }
    if (*p >= 0xe0 && *p < 0xf0) {
        if (left < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80) return HD_NOT_UTF8;
        const uint32_t point = (uint32_t)(*p & 0xf) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
        if (point < 0x800 || (point >= 0xd800 && point < 0xe000)) return HD_NOT_UTF8;
        *bytes = 3;
        return point;
    }
    if (*p >= 0xf0 && *p < 0xf5) {
        if (left < 4 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80 || (p[3] & 0xc0) != 0x80) return HD_NOT_UTF8;
        const uint32_t point = (uint32_t)(*p & 7) << 18 | (uint32_t)(p[1] & 0x3f) << 12 | (uint32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
        if (point < 0x10000 || point > 0x10ffff) return HD_NOT_UTF8;
        *bytes = 4;
        return point;
    }
    return HD_NOT_UTF8;
}
/* The bytes of a code point: their number. */
static inline unsigned hd_utf8_write(uint32_t point, unsigned char *out)
{
    if (point < 0x80) return out[0] = (unsigned char)point, 1;
    if (point < 0x800) return out[0] = (unsigned char)(0xc0 | point >> 6), out[1] = (unsigned char)(0x80 | (point & 0x3f)), 2;
    if (point < 0x10000) {
        out[0] = (unsigned char)(0xe0 | point >> 12), out[1] = (unsigned char)(0x80 | (point >> 6 & 0x3f)), out[2] = (unsigned char)(0x80 | (point & 0x3f));
        return 3;
    }
    out[0] = (unsigned char)(0xf0 | point >> 18), out[1] = (unsigned char)(0x80 | (point >> 12 & 0x3f)), out[2] = (unsigned char)(0x80 | (point >> 6 & 0x3f));
    out[3] = (unsigned char)(0x80 | (point & 0x3f));
    return 4;
}

/* The class of a code point; bytes that are no UTF-8 are symbols, as U+FFFD is. */
static inline unsigned hd_class(const hd_tokenizer *t, uint32_t point)
{
    if (point >= HD_NOT_UTF8) return HD_SO;
    return HD_AT(t, class_block, uint8_t)[(size_t)HD_AT(t, class_index, uint16_t)[point >> 7] * 128 + (point & 127)];
}

static inline uint32_t hd_find(const hd_tokenizer *t, const hd_table *table, uint64_t key)
{
    const uint64_t *slot = (const uint64_t *)(const void *)((const unsigned char *)t + table->at);
    if (!table->count) return UINT32_MAX;
    for (uint64_t i = (key * HD_HASH >> 32) * table->count >> 32;;) {
        const uint64_t s = slot[i];
        if (s == UINT64_MAX) return UINT32_MAX;
        if (s >> 24 == key) return (uint32_t)(s & 0xffffff);
        if (++i == table->count) i = 0;
    }
}

/* The id of a token by its text, or -1. *whole: the model makes that one token of it. */
HD_TOKENS_SHARED int32_t hd_word(const hd_tokenizer *t, const void *text, size_t bytes, bool *whole);

/* tokenizer_normal.c: the text [*text, + *bytes) through the normaliser's stages; the result is in place or in a buffer of e. */
HD_TOKENS_SHARED void hd_normalise(hd_encoder *e, const char **text, size_t *bytes);
/* tokenizer_split.c: the pieces of a text, each to hd_piece. */
HD_TOKENS_SHARED void hd_split(hd_encoder *e, const char *text, size_t bytes);
HD_TOKENS_SHARED void hd_split_start(hd_encoder *e);            /* once for an encoder */
/* tokenizer_model.c: the ids of a piece. */
HD_TOKENS_SHARED void hd_piece(hd_encoder *e, const char *text, size_t bytes);

#endif
