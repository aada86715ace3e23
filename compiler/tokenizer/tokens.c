/* A tokenizer as its file describes it, before it becomes tables: names, merges, stages; and which file is read. */
#include "tokenizer.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void hd_tokens_fail(const hd_tokens *k, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    for (char *c = text; *c; c++) if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    hd_fail((hd_where){ k->file, 0 }, "%s", text);
}

static uint32_t place(const hd_tokens *k, const char *name, size_t bytes)
{
    uint32_t i = (uint32_t)(hd_tokenizer_hash(name, bytes) >> 32) & (k->slots - 1);
    for (; k->slot[i]; i = (i + 1) & (k->slots - 1)) {
        const hd_token *t = &k->token[k->slot[i] - 1];
        if (t->bytes == bytes && !memcmp(t->name, name, bytes)) break;
    }
    return i;
}

static void index_names(hd_tokens *k)
{
    k->slots = 1 << 10;
    while (k->slots < 2 * (uint32_t)k->tokens) k->slots *= 2;
    k->slots *= 2;
    k->slot = HD_NEW_ARRAY(uint32_t, k->slots);
    for (int i = 0; i < k->tokens; i++) if (k->token[i].present) k->slot[place(k, k->token[i].name, k->token[i].bytes)] = (uint32_t)i + 1;
}

int64_t hd_tokens_find(const hd_tokens *k, const char *name, size_t bytes)
{
    return k->slots ? (int64_t)k->slot[place(k, name, bytes)] - 1 : -1;
}

void hd_tokens_put(hd_tokens *k, uint32_t id, const char *name, size_t bytes)
{
    if (id >= HD_TOKENIZER_MOST_IDS) hd_tokens_fail(k, "vocabulary: token \"%.*s\" has the id %u; ids 0 to %d are possible", (int)(bytes < 60 ? bytes : 60), name, id,
                                                    HD_TOKENIZER_MOST_IDS - 1);
    while ((uint32_t)k->tokens <= id) {
        HD_PUSH(k->token, k->tokens, k->token_capacity, ((hd_token){ .name = "", .plain = true }));
        if (!k->slots || (uint32_t)k->tokens * 2 > k->slots) index_names(k);
    }
    hd_token *t = &k->token[id];
    const uint32_t at = place(k, name, bytes);
    if (t->present && t->bytes == bytes && !memcmp(t->name, name, bytes)) return;
    if (t->present) hd_tokens_fail(k, "vocabulary: two tokens have the id %u: \"%.60s\" and \"%.*s\"", id, t->name, (int)(bytes < 60 ? bytes : 60), name);
    if (k->slot[at]) hd_tokens_fail(k, "vocabulary: the token \"%.*s\" has two ids, %u and %u", (int)(bytes < 60 ? bytes : 60), name, k->slot[at] - 1, id);
    char *copy = hd_alloc(bytes + 1);
    memcpy(copy, name, bytes);
    t->name = copy, t->bytes = (uint32_t)bytes, t->present = true;
    k->slot[at] = id + 1;
}

void hd_tokens_close(hd_tokens *k)
{
    if (!k->tokens) hd_tokens_fail(k, "vocabulary: it is empty");
    for (int i = 0, end; i < k->tokens; i = end + 1) {
        for (end = i; end < k->tokens && !k->token[end].present; end++) { }
        if (end - i == 1) hd_tokens_fail(k, "vocabulary: no token has the id %d; ids must be 0 to %d without a hole", i, k->tokens - 1);
        if (end > i) hd_tokens_fail(k, "vocabulary: no token has one of the ids %d to %d; ids must be 0 to %d without a hole", i, end - 1, k->tokens - 1);
    }
}

hd_step_of *hd_tokens_step(hd_tokens *k, int part, hd_stage_kind kind)
{
    int *count = part ? &k->splits : &k->normals;
    if (*count == HD_TOKENIZER_STAGES) hd_tokens_fail(k, "%s: more than %d steps", part ? "pre_tokenizer" : "normalizer", HD_TOKENIZER_STAGES);
    hd_step_of *s = &k->step[part][(*count)++];
    *s = (hd_step_of){ .kind = kind };
    return s;
}

hd_decode_step *hd_tokens_decode(hd_tokens *k, hd_decode_kind kind)
{
    if (k->decodes == (int)(sizeof k->decode / sizeof *k->decode)) hd_tokens_fail(k, "decoder: more than %d steps", k->decodes);
    hd_decode_step *s = &k->decode[k->decodes++];
    *s = (hd_decode_step){ .kind = kind };
    return s;
}

/* Names in messages: so many bytes of them. */
static int most(size_t bytes) { return bytes < 60 ? (int)bytes : 60; }

void hd_tokens_merge(hd_tokens *k, const char *left, size_t left_bytes, const char *right, size_t right_bytes)
{
    const size_t prefix = k->inner_prefix ? strlen(k->inner_prefix) : 0;
    const size_t skip = prefix && right_bytes >= prefix && !memcmp(right, k->inner_prefix, prefix) ? prefix : 0;
    char *made = hd_alloc(left_bytes + right_bytes + 1);
    memcpy(made, left, left_bytes);
    memcpy(made + left_bytes, right + skip, right_bytes - skip);
    const int64_t a = hd_tokens_find(k, left, left_bytes), b = hd_tokens_find(k, right, right_bytes), c = hd_tokens_find(k, made, left_bytes + right_bytes - skip);
    if (a < 0 || b < 0 || c < 0) {
        const char *unknown = a < 0 ? left : b < 0 ? right : made;
        const int bytes = most(a < 0 ? left_bytes : b < 0 ? right_bytes : left_bytes + right_bytes - skip);
        hd_tokens_fail(k, "merges: merge %d, \"%.*s %.*s\": \"%.*s\" is no token of the vocabulary", k->merges, most(left_bytes), left, most(right_bytes), right, bytes, unknown);
    }
    if (k->merges >= 0xfffffe) hd_tokens_fail(k, "merges: more than %d", 0xfffffe);
    HD_PUSH(k->merge, k->merges, k->merge_capacity, ((hd_merge){ (uint32_t)a, (uint32_t)b, (uint32_t)c, (uint32_t)k->merges }));
}

void hd_tokens_add(hd_tokens *k, hd_new token)
{
    if (!token.bytes) hd_tokens_fail(k, "added_tokens: the token of id %u is empty", token.id);
    hd_tokens_put(k, token.id, token.text, token.bytes);
    HD_PUSH(k->added, k->news, k->new_capacity, token);
}

static bool is_file(const char *path)
{
    struct stat s;
    return !stat(path, &s) && S_ISREG(s.st_mode);
}

/* What a folder may hold, the most exact first; `also`: a file beside that must be there. */
static const struct { const char *name, *also; } known[] = {
    { "tokenizer.json", NULL }, { "vocab.json", "merges.txt" }, { "encoder.json", "vocab.bpe" }, { "vocab.txt", NULL }, { "tokenizer.model", NULL }, { "spiece.model", NULL },
};

const char *hd_tokenizer_find(const char *path)
{
    if (is_file(path)) return path;
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
        const char *file = hd_format("%s/%s", path, known[i].name);
        if (is_file(file) && (!known[i].also || is_file(hd_format("%s/%s", path, known[i].also)))) return file;
    }
    return NULL;
}

static bool ends(const char *text, const char *end)
{
    const size_t n = strlen(text), part = strlen(end);
    return n >= part && !strcmp(text + n - part, end);
}

const char *hd_tokens_text(const char *file, size_t *bytes)
{
    enum { MOST_MIB = 256 };
    const hd_where where = { file, 0 };
    struct stat s;
    if (stat(file, &s)) hd_fail(where, "cannot be read: %s", strerror(errno));
    if (!S_ISREG(s.st_mode)) hd_fail(where, "is no ordinary file");
    if (s.st_size > (off_t)MOST_MIB << 20) hd_fail(where, "is larger than %d MiB; is it a tokenizer?", MOST_MIB);
    const char *text = hd_read_file(file, bytes);
    if (!text) hd_fail(where, "cannot be read: %s", strerror(errno));
    return text;
}

/* The merges beside a vocab.json: NULL if there are none. */
static const char *merges_of(const char *file)
{
    const char *slash = strrchr(file, '/');
    const int folder = slash ? (int)(slash - file) + 1 : 0;
    static const char *const name[] = { "merges.txt", "vocab.bpe" };
    for (unsigned i = 0; i < sizeof name / sizeof *name; i++) {
        const char *path = hd_format("%.*s%s", folder, file, name[i]);
        if (is_file(path)) return path;
    }
    return NULL;
}

const hd_tokenizer *hd_tokenizer_load(const char *path, bool *regex)
{
    const char *file = hd_tokenizer_find(path);
    if (!file) {
        struct stat s;
        if (stat(path, &s)) hd_fail((hd_where){ path, 0 }, "there is no tokenizer of this name; give tokenizer.json, "
                                                            "vocab.json with merges.txt beside it, vocab.txt, a SentencePiece .model, or a folder that holds one");
        hd_fail((hd_where){ path, 0 }, "the folder holds no tokenizer; it may be tokenizer.json, vocab.json with merges.txt, vocab.txt or tokenizer.model");
    }
    hd_tokens *k = HD_NEW(hd_tokens);
    k->file = file;
    k->unknown = -1;
    if (ends(file, ".model")) hd_tokens_read_sentencepiece(k);
    else if (ends(file, ".txt")) hd_tokens_read_vocab(k);
    else if ((ends(file, "vocab.json") || ends(file, "encoder.json")) && merges_of(file)) hd_tokens_read_gpt2(k, merges_of(file));
    else if (ends(file, ".json")) hd_tokens_read_json(k);
    else hd_tokens_fail(k, "the name tells no kind of tokenizer; valid: tokenizer.json, vocab.json with merges.txt beside it, vocab.txt, a SentencePiece .model");
    if (regex) *regex = k->regex;
    const hd_tokenizer *made = hd_tokens_write(k);
    while (k->jsons) json_decref(k->json[--k->jsons]);
    return made;
}
