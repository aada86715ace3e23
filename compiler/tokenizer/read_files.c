/* Tokenizers that are not tokenizer.json: GPT-2's two files, BERT's list of words, SentencePiece's model. */
#include "tokenizer.h"
#include "../../runtime/app/tokenizer_parts.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *line_end(const char *at, const char *end)
{
    const char *n = memchr(at, '\n', (size_t)(end - at));
    return n ? n : end;
}

/* ---- what Hugging Face keeps beside a vocabulary: names of special tokens, tokens added later, settings ---- */

/* The JSON object in a file of the vocabulary's folder; NULL: there is none. */
static json_t *beside(hd_tokens *k, const char *name)
{
    const char *slash = strrchr(k->file, '/'), *path = hd_format("%.*s%s", slash ? (int)(slash - k->file) + 1 : 0, k->file, name);
    return access(path, F_OK) ? NULL : hd_tokens_json(k, path);
}

/* A special token is written as its text, or as an object that holds it; NULL: neither. */
static const json_t *special_name(const json_t *value)
{
    const json_t *content = json_is_object(value) ? json_object_get(value, "content") : value;
    return json_is_string(content) ? content : NULL;
}

static void add_special(hd_tokens *k, const char *name, size_t bytes)
{
    const int64_t id = hd_tokens_find(k, name, bytes);
    if (id < 0) return;                           /* named, but not of this vocabulary: text never becomes it */
    for (int i = 0; i < k->news; i++) if (k->added[i].id == id) return;
    hd_tokens_add(k, (hd_new){ .text = name, .bytes = (uint32_t)bytes, .id = (uint32_t)id, .flags = HD_ADDED_SPECIAL });
}

static void read_beside(hd_tokens *k)
{
    json_t *added = beside(k, "added_tokens.json"), *map = beside(k, "special_tokens_map.json"), *value;
    const char *name;
    json_object_foreach(added, name, value) {
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > INT32_MAX) hd_tokens_fail(k,
            "added_tokens.json: the id of \"%.60s\" must be a whole number, 0 or more", name);
        hd_tokens_add(k, (hd_new){ .text = name, .bytes = (uint32_t)strlen(name), .id = (uint32_t)json_integer_value(value) });
    }
    json_object_foreach(map, name, value) {
        const json_t *token = special_name(value);
        if (token) add_special(k, json_string_value(token), json_string_length(token));
    }
}

/* ---- vocab.json and merges.txt: byte-level BPE; <|endoftext|> is special ---- */

void hd_tokens_read_gpt2(hd_tokens *k, const char *file)
{
    const char *name;
    json_t *root = hd_tokens_json(k, k->file), *id;
    k->model = HD_TOKENS_BPE;
    k->byte_level = true;
    json_object_foreach(root, name, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) hd_tokens_fail(k,
            "vocabulary: the id of \"%.60s\" must be a whole number, 0 or more", name);
        hd_tokens_put(k, (uint32_t)json_integer_value(id), name, strlen(name));
    }
    read_beside(k);
    hd_tokens_close(k);
    size_t bytes = 0;
    const char *text = hd_tokens_text(file, &bytes);
    int line = 1;
    const char *vocabulary = k->file;
    k->file = file;
    for (const char *at = text, *end = text + bytes, *stop; at < end; at = stop + 1, line++) {
        stop = line_end(at, end);
        const size_t length = (size_t)(stop - at) - (stop > at && stop[-1] == '\r');
        if (!length || (line == 1 && length >= 8 && !memcmp(at, "#version", 8))) continue;
        const char *blank = memchr(at, ' ', length);
        if (!blank || blank == at || blank + 1 == at + length || memchr(blank + 1, ' ', (size_t)(at + length - blank - 1))) hd_fail((hd_where){ file, line },
            "this is not two tokens with a blank between them");
        hd_tokens_merge(k, at, (size_t)(blank - at), blank + 1, (size_t)(at + length - blank - 1));
    }
    k->file = vocabulary;
    add_special(k, "<|endoftext|>", 13);
    const json_t *config = beside(k, "tokenizer_config.json"), *start = special_name(json_object_get(config, "bos_token"));
    if (json_is_true(json_object_get(config, "add_bos_token")) && start) {
        const int64_t bos = hd_tokens_find(k, json_string_value(start), json_string_length(start));
        if (bos < 0) hd_tokens_fail(k, "tokenizer_config.json: the bos_token \"%.60s\" is no token of the vocabulary", json_string_value(start));
        k->before[k->befores++] = (uint32_t)bos;
    }
    if (json_is_true(json_object_get(config, "add_prefix_space"))) hd_tokens_step(k, 1, HD_SPLIT_PREFIX);
    hd_tokens_step(k, 1, HD_SPLIT_GPT2);
    hd_tokens_decode(k, HD_DECODE_BYTES);
}

/* ---- vocab.txt: a token on each line, its id the line's number. Lower case as tokenizer_config.json says, else unless the vocabulary
 * has capitals. ---- */

void hd_tokens_read_vocab(hd_tokens *k)
{
    size_t bytes = 0;
    const char *text = hd_tokens_text(k->file, &bytes);
    bool capitals = false;
    for (const char *at = text, *end = text + bytes, *stop; at < end; at = stop + 1) {
        stop = line_end(at, end);
        const size_t length = (size_t)(stop - at) - (stop > at && stop[-1] == '\r');
        if (!length) hd_fail((hd_where){ k->file, k->tokens + 1 }, "vocabulary: the line is empty; each holds one token");
        hd_tokens_put(k, (uint32_t)k->tokens, at, length);
        for (size_t i = 0; i < length; i++) capitals = capitals || (*at != '[' && at[i] >= 'A' && at[i] <= 'Z');
    }
    hd_tokens_close(k);
    static const char *const special[] = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]" };
    int64_t id[5];
    for (int i = 0; i < 5; i++) {
        id[i] = hd_tokens_find(k, special[i], strlen(special[i]));
        if (id[i] >= 0) hd_tokens_add(k, (hd_new){ .text = special[i], .bytes = (uint32_t)strlen(special[i]), .id = (uint32_t)id[i], .flags = HD_ADDED_SPECIAL });
    }
    if (id[1] < 0) hd_tokens_fail(k, "vocabulary: it has no token [UNK]; is this BERT's vocab.txt?");
    const json_t *lower = json_object_get(beside(k, "tokenizer_config.json"), "do_lower_case");
    if (json_is_boolean(lower)) capitals = json_is_false(lower);
    k->unknown = (int32_t)id[1];
    if (id[2] >= 0 && id[3] >= 0) k->before[k->befores++] = (uint32_t)id[2], k->after[k->afters++] = (uint32_t)id[3];
    k->model = HD_TOKENS_WORDPIECE;
    k->inner_prefix = "##";
    k->most_characters = 100;
    const hd_bert b = { .clean = true, .chinese = true, .accents = !capitals, .lower = !capitals };
    hd_unicode_bert(hd_tokens_step(k, 0, HD_NORMAL_MAP), &b);
    hd_tokens_step(k, 1, HD_SPLIT_BERT);
    hd_decode_step *decode = hd_tokens_decode(k, HD_DECODE_WORDPIECE);
    decode->from = "##", decode->flag = true;
}

/* ---- SentencePiece: protocol buffers, read as far as ids depend on them ---- */

typedef struct field { uint32_t number, wire; uint64_t value; const unsigned char *data; size_t bytes; } field;
typedef struct message { hd_tokens *k; const unsigned char *at, *end; } message;

static uint64_t varint(message *m)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (m->at == m->end) hd_tokens_fail(m->k, "the SentencePiece model is damaged: it ends inside a number");
        const unsigned char byte = *m->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
    }
    hd_tokens_fail(m->k, "the SentencePiece model is damaged: a number has more than 64 bits");
}

static bool next(message *m, field *f)
{
    if (m->at == m->end) return false;
    const uint64_t tag = varint(m);
    *f = (field){ .number = (uint32_t)(tag >> 3), .wire = tag & 7 };
    if (f->wire == 0) f->value = varint(m);
    else {
        const uint64_t bytes = f->wire == 2 ? varint(m) : f->wire == 5 ? 4 : f->wire == 1 ? 8 : UINT64_MAX;
        if (bytes > (uint64_t)(m->end - m->at)) hd_tokens_fail(m->k, "the SentencePiece model is damaged: a field of %llu bytes where %lld are left", (unsigned long long)bytes,
                                                               (long long)(m->end - m->at));
        f->data = m->at, f->bytes = (size_t)bytes;
        m->at += bytes;
    }
    return true;
}

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

static void read_piece(hd_tokens *k, message m)
{
    field f;
    const unsigned char *name = NULL;
    size_t bytes = 0;
    float score = 0;
    uint64_t type = PIECE_NORMAL;
    while (next(&m, &f)) {
        if (f.number == 1 && f.wire == 2) name = f.data, bytes = f.bytes;
        else if (f.number == 2 && f.wire == 5) memcpy(&score, f.data, 4);
        else if (f.number == 3 && f.wire == 0) type = f.value;
    }
    const uint32_t id = (uint32_t)k->tokens;
    if (!bytes || type < PIECE_NORMAL || type > PIECE_BYTE) hd_tokens_fail(k, "pieces: piece %u is damaged", id);
    if (!(score == score)) hd_tokens_fail(k, "pieces: the score of piece %u is no number", id);
    hd_tokens_put(k, id, (const char *)name, bytes);
    k->token[id].score = (double)score;
    k->token[id].plain = type == PIECE_NORMAL || type == PIECE_USER;
    if (type == PIECE_UNKNOWN) k->unknown = (int32_t)id;
    if (type == PIECE_BYTE) k->flags |= HD_TOKENS_FALLBACK;
    /* control symbols are never found in text; pieces that the user defined always are, after normalisation */
    if (type == PIECE_USER) hd_tokens_add(k, (hd_new){ .text = (const char *)name, .bytes = (uint32_t)bytes, .id = id, .normalised = true });
}

static int by_score(const void *a, const void *b)
{
    const hd_merge *x = a, *y = b;
    return x->rank != y->rank ? (x->rank < y->rank ? -1 : 1) : 0;
}

typedef struct scored { double score; uint32_t id; } scored;
static int higher(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score > y->score ? -1 : 1) : (x->id < y->id ? -1 : x->id > y->id);
}

/* SentencePiece joins the two neighbours whose piece has the highest score: every way to halve a piece is a merge of its rank. */
static void merges_of_pieces(hd_tokens *k)
{
    scored *order = HD_NEW_ARRAY(scored, k->tokens);
    int count = 0;
    for (int i = 0; i < k->tokens; i++) if (k->token[i].plain) order[count++] = (scored){ k->token[i].score, (uint32_t)i };
    qsort(order, (size_t)count, sizeof *order, higher);
    for (int r = 0, rank = -1; r < count; r++) {
        const hd_token *t = &k->token[order[r].id];
        rank++;
        for (uint32_t cut = 1; cut < t->bytes; cut++) {
            if ((t->name[cut] & 0xc0) == 0x80) continue;
            const int64_t a = hd_tokens_find(k, t->name, cut), b = hd_tokens_find(k, t->name + cut, t->bytes - cut);
            if (a < 0 || b < 0 || !k->token[a].plain || !k->token[b].plain) continue;
            HD_PUSH(k->merge, k->merges, k->merge_capacity, ((hd_merge){ (uint32_t)a, (uint32_t)b, order[r].id, (uint32_t)rank }));
        }
    }
    qsort(k->merge, (size_t)k->merges, sizeof *k->merge, by_score);
}

void hd_tokens_read_sentencepiece(hd_tokens *k)
{
    size_t bytes = 0;
    const char *text = hd_tokens_text(k->file, &bytes), *map = NULL;
    message m = { k, (const unsigned char *)text, (const unsigned char *)text + bytes };
    field f, g;
    uint64_t type = 1, dummy = 1, extra = 1, escape = 1, suffix = 0, bytes_too = 0;
    size_t map_bytes = 0;
    const char *surface = " \u2047 ";
    while (next(&m, &f)) {
        if (f.wire != 2) continue;
        message part = { k, f.data, f.data + f.bytes };
        if (f.number == 1) read_piece(k, part);
        while (f.number == 2 && next(&part, &g)) {               /* trainer_spec */
            if (g.number == 3 && g.wire == 0) type = g.value;
            if (g.number == 24 && g.wire == 0) suffix = g.value;
            if (g.number == 35 && g.wire == 0) bytes_too = g.value;
            if (g.number == 44 && g.wire == 2) surface = hd_format("%.*s", (int)g.bytes, (const char *)g.data);
        }
        while (f.number == 3 && next(&part, &g)) {               /* normalizer_spec */
            if (g.number == 2 && g.wire == 2) map = (const char *)g.data, map_bytes = g.bytes;
            if (g.number == 3 && g.wire == 0) dummy = g.value;
            if (g.number == 4 && g.wire == 0) extra = g.value;
            if (g.number == 5 && g.wire == 0) escape = g.value;
        }
    }
    hd_tokens_close(k);
    if (type != 1 && type != 2) hd_tokens_fail(k, "trainer_spec: model type %llu is not known; known: 1 (unigram), 2 (BPE)", (unsigned long long)type);
    if (suffix) hd_tokens_fail(k, "trainer_spec: treat_whitespace_as_suffix is not known");
    if (!escape) hd_tokens_fail(k, "normalizer_spec: escape_whitespaces = false is not known");
    if (k->unknown < 0) hd_tokens_fail(k, "pieces: none is the unknown one");
    if (!bytes_too) k->flags &= ~(uint32_t)HD_TOKENS_FALLBACK;
    k->model = type == 1 ? HD_TOKENS_UNIGRAM : HD_TOKENS_BPE;
    k->flags |= HD_TOKENS_FUSE | (type == 1 ? HD_TOKENS_FLOAT : 0);
    k->scored = type == 1;
    k->unknown_shown = surface;
    if (type == 2) merges_of_pieces(k);
    if (map_bytes) hd_tokens_map(k, "normalizer_spec", map, map_bytes, false);
    if (extra) hd_tokens_step(k, 0, HD_NORMAL_SPACES);
    if (dummy) {
        hd_step_of *step = hd_tokens_step(k, 0, HD_NORMAL_PREPEND);
        step->to = " ", step->to_bytes = 1;
    }
    hd_step_of *step = hd_tokens_step(k, 0, HD_NORMAL_REPLACE);
    step->from = " ", step->from_bytes = 1, step->to = "\u2581", step->to_bytes = 3;
    hd_decode_step *decode = hd_tokens_decode(k, HD_DECODE_REPLACE);
    decode->from = "\u2581", decode->to = " ";
    if (k->flags & HD_TOKENS_FALLBACK) hd_tokens_decode(k, HD_DECODE_FALLBACK);
    hd_tokens_decode(k, HD_DECODE_FUSE);
    if (dummy) hd_tokens_decode(k, HD_DECODE_STRIP)->start = 1;
}
