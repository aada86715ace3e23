/* From a tokenizer's description to its block of tables. */
#include "tokenizer.h"
#include "../../runtime/app/tokenizer_parts.h"
#include <stdlib.h>
#include <string.h>

typedef struct block { const hd_tokens *k; unsigned char *data; size_t bytes, capacity; } block;

/* Appends a table, 8-byte aligned. */
static hd_table add(block *b, const void *items, size_t count, size_t item_bytes)
{
    const size_t at = (b->bytes + 7) / 8 * 8, end = at + count * item_bytes;
    if (end > UINT32_MAX / 2) hd_tokens_fail(b->k, "its tables are larger than 2 GB");
    if (end > b->capacity) {
        const size_t more = 2 * end + 4096;
        unsigned char *data = hd_alloc(more);
        if (b->bytes) memcpy(data, b->data, b->bytes);
        b->data = data, b->capacity = more;
    }
    if (count) memcpy(b->data + at, items, count * item_bytes);
    b->bytes = end;
    return (hd_table){ (uint32_t)at, (uint32_t)count };
}

/* ---- hash tables: three slots for each two entries, key << 24 | value, searched as hd_find does ---- */

typedef struct slots { uint64_t *slot; uint32_t count; } slots;

static slots slots_for(size_t entries)
{
    slots s = { NULL, (uint32_t)(entries + entries / 2 + 4) };
    s.slot = HD_NEW_ARRAY(uint64_t, s.count);
    memset(s.slot, 0xff, s.count * sizeof *s.slot);
    return s;
}

/* distinct: a key that is there keeps its slot and takes the new value. */
static void slots_put(slots *s, uint64_t key, uint32_t value, bool distinct)
{
    uint32_t i = (uint32_t)((key * HD_HASH >> 32) * s->count >> 32);
    while (s->slot[i] != UINT64_MAX && !(distinct && s->slot[i] >> 24 == key)) i = i + 1 == s->count ? 0 : i + 1;
    s->slot[i] = key << 24 | value;
}

static hd_table add_slots(block *b, const slots *s) { return add(b, s->slot, s->count, sizeof *s->slot); }

/* ---- tries: edges in a hash table, node 0 the root ---- */

typedef struct trie { uint64_t *edge; uint32_t slots, used, nodes; uint32_t *value; int values, value_capacity; } trie;

static uint32_t child(trie *t, uint32_t node, unsigned char byte)
{
    if (!t->slots || 2 * t->used >= t->slots) {
        const uint64_t *old = t->edge;
        const uint32_t before = t->slots;
        t->slots = before ? 2 * before : 1024;
        t->edge = HD_NEW_ARRAY(uint64_t, t->slots);
        memset(t->edge, 0xff, t->slots * sizeof *t->edge);
        for (uint32_t i = 0; i < before; i++) {
            if (old[i] == UINT64_MAX) continue;
            uint32_t k = (uint32_t)((old[i] >> 24) * HD_HASH >> 32) & (t->slots - 1);
            while (t->edge[k] != UINT64_MAX) k = (k + 1) & (t->slots - 1);
            t->edge[k] = old[i];
        }
    }
    const uint64_t key = (uint64_t)node << 8 | byte;
    uint32_t i = (uint32_t)(key * HD_HASH >> 32) & (t->slots - 1);
    for (; t->edge[i] != UINT64_MAX; i = (i + 1) & (t->slots - 1)) if (t->edge[i] >> 24 == key) return (uint32_t)(t->edge[i] & 0xffffff);
    const uint32_t new = (uint32_t)t->values;
    HD_PUSH(t->value, t->values, t->value_capacity, 0u);
    t->edge[i] = key << 24 | new;
    t->used++;
    return new;
}

static void trie_start(trie *t)
{
    *t = (trie){ 0 };
    HD_PUSH(t->value, t->values, t->value_capacity, 0u);
}

static uint32_t walk(const hd_tokens *k, trie *t, uint32_t node, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        node = child(t, node, (unsigned char)text[i]);
        if (t->values > 0xfffff0) hd_tokens_fail(k, "vocabulary: its tokens are too long");
    }
    return node;
}

static hd_table add_trie(block *b, const trie *t)
{
    slots s = slots_for(t->used);
    for (uint32_t i = 0; i < t->slots; i++) if (t->edge[i] != UINT64_MAX) slots_put(&s, t->edge[i] >> 24, (uint32_t)(t->edge[i] & 0xffffff), false);
    return add_slots(b, &s);
}

/* ---- tables of code points, in blocks of 128 of which equal ones are stored once ---- */

static void add_points(block *b, const void *values, size_t value_bytes, hd_table *index, hd_table *blocks)
{
    enum { INDEX = 0x110000 / 128 };
    const unsigned char *all = values;
    const size_t bytes = 128 * value_bytes;
    uint16_t *of = HD_NEW_ARRAY(uint16_t, INDEX);
    unsigned char *kept = HD_NEW_ARRAY(unsigned char, INDEX * bytes);
    uint64_t *hash = HD_NEW_ARRAY(uint64_t, INDEX);
    uint32_t count = 0;
    for (uint32_t i = 0; i < INDEX; i++) {
        uint32_t k = 0;
        hash[count] = hd_hash(all + i * bytes, bytes, 0);
        while (hash[k] != hash[count] || (k < count && memcmp(kept + k * bytes, all + i * bytes, bytes))) k++;
        if (k == count) memcpy(kept + count++ * bytes, all + i * bytes, bytes);
        of[i] = (uint16_t)k;
    }
    *index = add(b, of, INDEX, sizeof *of);
    *blocks = add(b, kept, (size_t)count * 128, value_bytes);
}

static void add_stage(block *b, const hd_step_of *step, hd_stage *out)
{
    *out = (hd_stage){ .kind = step->kind, .a = step->a, .b = step->b };
    out->from = add(b, step->from, step->from_bytes, 1);
    out->to = add(b, step->to, step->to_bytes, 1);
    if (step->kind == HD_NORMAL_TRIE) out->from.count /= 4;
    if (!step->map) return;
    add_points(b, step->map, sizeof *step->map, &out->map_index, &out->map_block);
    out->map_text = add(b, step->map_text.data, step->map_text.length, 1);
}

/* ---- tokens ---- */

/* A name in GPT-2's alphabet as its bytes: false where it holds another character. */
static bool letters(const char *name, size_t bytes, hd_text *out)
{
    const unsigned char *p = (const unsigned char *)name, *end = p + bytes;
    hd_text made = { 0 };
    hd_text_add(&made, "%s", "");
    for (unsigned n; p < end; p += n) {
        const int byte = hd_letter_byte(hd_utf8(p, end, &n));
        if (byte < 0) return false;
        hd_text_addn(&made, (const char[]){ (char)byte }, 1);
    }
    *out = made;
    return true;
}

/* <0xE2>: its byte, or -1. */
static int fallback_byte(const hd_token *t)
{
    if (t->bytes != 6 || memcmp(t->name, "<0x", 3) || t->name[5] != '>') return -1;
    char *end;
    const char digits[] = { t->name[3], t->name[4], 0 };
    const long value = strtol(digits, &end, 16);
    return *end || digits[0] == '+' || digits[0] == '-' || digits[0] == ' ' ? -1 : (int)value;
}

static void replaced(hd_text *text, const char *from, const char *to)
{
    const size_t n = strlen(from);
    hd_text out = { 0 };
    hd_text_add(&out, "%s", "");
    for (size_t i = 0; i < text->length;) {
        if (n && text->length - i >= n && !memcmp(text->data + i, from, n)) hd_text_add(&out, "%s", to), i += n;
        else hd_text_addn(&out, text->data + i++, 1);
    }
    *text = out;
}

/* The decoder's steps on one token, as far as they look at single tokens; `first`: it begins the text. */
static hd_text decoded(const hd_tokens *k, uint32_t id, bool first, bool added)
{
    const hd_token *t = &k->token[id];
    hd_text text = { 0 }, bytes;
    hd_text_add(&text, "%s", "");
    if ((int64_t)id == k->unknown && k->unknown_shown) return hd_text_add(&text, "%s", k->unknown_shown), text;
    hd_text_addn(&text, t->name, t->bytes);
    for (int i = 0; i < k->decodes; i++) {
        const hd_decode_step *d = &k->decode[i];
        const size_t from = d->from ? strlen(d->from) : 0;
        switch (d->kind) {
        case HD_DECODE_BYTES: if (!added && letters(text.data, text.length, &bytes)) text = bytes; break;
        case HD_DECODE_FALLBACK: {
            const int byte = fallback_byte(t);
            if (byte >= 0 && !added) text = (hd_text){ 0 }, hd_text_addn(&text, (const char[]){ (char)byte }, 1);
            break;
        }
        case HD_DECODE_WORDPIECE:
            if (!first) {
                const bool inner = from && text.length >= from && !memcmp(text.data, d->from, from);
                hd_text whole = { 0 };
                hd_text_add(&whole, "%s", inner ? "" : " ");
                hd_text_addn(&whole, text.data + (inner ? from : 0), text.length - (inner ? from : 0));
                text = whole;
            }
            break;
        case HD_DECODE_METASPACE: replaced(&text, d->from, first && d->flag ? "" : " "); break;
        case HD_DECODE_REPLACE: replaced(&text, d->from, d->to); break;
        case HD_DECODE_SUFFIX: replaced(&text, d->from, " "); break;
        case HD_DECODE_SPACES: {
            hd_text whole = { 0 };
            hd_text_add(&whole, "%s", first ? "" : " ");
            hd_text_addn(&whole, text.data, text.length);
            text = whole;
            break;
        }
        case HD_DECODE_STRIP: case HD_DECODE_FUSE: break;
        }
    }
    return text;
}

static void add_texts(block *b, const hd_text *text, uint32_t count, hd_table *at, hd_table *all)
{
    uint32_t *from = HD_NEW_ARRAY(uint32_t, count + 1);
    size_t total = 0;
    for (uint32_t i = 0; i < count; i++) total += text[i].length;
    if (total > UINT32_MAX / 4) hd_tokens_fail(b->k, "vocabulary: its tokens are larger than 1 GB");
    char *joined = hd_alloc(total + 1);
    for (uint32_t i = 0; i < count; i++) {
        if (text[i].length) memcpy(joined + from[i], text[i].data, text[i].length);
        from[i + 1] = from[i] + (uint32_t)text[i].length;
    }
    *at = add(b, from, count + 1, sizeof *from);
    *all = add(b, joined, total, 1);
}

static void add_tokens(block *b, hd_tokenizer *h, const hd_tokens *k, const hd_text *model)
{
    const uint32_t count = (uint32_t)k->tokens;
    hd_text *shown = HD_NEW_ARRAY(hd_text, count), *first = HD_NEW_ARRAY(hd_text, count);
    bool *added = HD_NEW_ARRAY(bool, count), differs = false, special = false;
    uint8_t *skipped = HD_NEW_ARRAY(uint8_t, count);
    for (int i = 0; i < k->news; i++) {
        added[k->added[i].id] = true;
        if (k->added[i].flags & HD_ADDED_SPECIAL) skipped[k->added[i].id] = 1, special = true;
    }
    h->longest = 1;
    for (uint32_t i = 0; i < count; i++) {
        shown[i] = decoded(k, i, false, added[i]);
        first[i] = decoded(k, i, true, added[i]);
        differs = differs || shown[i].length != first[i].length || memcmp(shown[i].data, first[i].data, shown[i].length);
        if (shown[i].length > h->longest) h->longest = (uint32_t)shown[i].length;
        if (model[i].length > h->longest) h->longest = (uint32_t)model[i].length;
    }
    add_texts(b, model, count, &h->text_at, &h->text);
    add_texts(b, shown, count, &h->shown_at, &h->shown);
    if (differs) add_texts(b, first, count, &h->first_at, &h->first);
    if (special) h->special = add(b, skipped, count, 1);
}

static void add_model(block *b, hd_tokenizer *h, const hd_tokens *k, const hd_text *text)
{
    const uint32_t count = (uint32_t)k->tokens;
    const bool tries = k->model == HD_TOKENS_UNIGRAM || k->model == HD_TOKENS_WORDPIECE;
    int32_t symbol[256];
    if (!tries) {
        slots words = slots_for(count);
        for (uint32_t i = 0; i < count; i++)
            if (k->token[i].plain && text[i].length) slots_put(&words, hd_tokenizer_hash(text[i].data, text[i].length) >> 24, i | (k->flags & HD_TOKENS_WHOLE ? 1u << 23 : 0),
                                                               false);
        h->word = add_slots(b, &words);
    }
    for (int i = 0; i < 256; i++) symbol[i] = k->byte_level ? k->unknown : -1;
    for (uint32_t i = 0; i < count; i++) {
        const int byte = k->byte_level ? (text[i].length == 1 && k->token[i].plain ? (unsigned char)text[i].data[0] : -1) : fallback_byte(&k->token[i]);
        if (byte >= 0) symbol[byte] = (int32_t)i;
    }
    h->symbol = add(b, symbol, 256, sizeof *symbol);
    if (k->model == HD_TOKENS_BPE) {
        slots pairs = slots_for((size_t)k->merges);
        uint32_t ranks = k->merges ? k->merge[k->merges - 1].rank + 1 : 0;
        uint32_t *made = HD_NEW_ARRAY(uint32_t, ranks + 1);
        for (int i = 0; i < k->merges; i++) {
            slots_put(&pairs, (uint64_t)k->merge[i].left << 20 | k->merge[i].right, k->merge[i].rank, true);
            made[k->merge[i].rank] = k->merge[i].made;
        }
        h->merge = add_slots(b, &pairs);
        h->merged = add(b, made, ranks, sizeof *made);
        bool complete = k->byte_level;
        for (int i = 0; i < 256; i++) complete = complete && symbol[i] >= 0;
        if (complete) {
            uint32_t *rank = HD_NEW_ARRAY(uint32_t, 256 * 256);
            memset(rank, 0xff, 256 * 256 * sizeof *rank);
            for (int i = k->merges - 1; i >= 0; i--) {
                const hd_merge *m = &k->merge[i];
                if (text[m->left].length == 1 && text[m->right].length == 1)
                    rank[(size_t)(unsigned char)text[m->left].data[0] << 8 | (unsigned char)text[m->right].data[0]] = m->rank;
            }
            h->byte_pair = add(b, rank, 256 * 256, sizeof *rank);
        }
        if (k->inner_prefix) h->inner_prefix = add(b, k->inner_prefix, strlen(k->inner_prefix), 1);
        if (k->end_suffix) h->end_suffix = add(b, k->end_suffix, strlen(k->end_suffix), 1);
    }
    if (tries) {
        trie t;
        trie_start(&t);
        const bool wordpiece = k->model == HD_TOKENS_WORDPIECE;
        if (wordpiece) h->inner_root = walk(k, &t, 0, k->inner_prefix ? k->inner_prefix : "", k->inner_prefix ? strlen(k->inner_prefix) : 0);
        for (uint32_t i = 0; i < count; i++) {
            if (!k->token[i].plain || !text[i].length) continue;
            const uint32_t node = walk(k, &t, 0, text[i].data, text[i].length);
            t.value[node] = i + 1;
        }
        h->trie = add_trie(b, &t);
        h->trie_id = add(b, t.value, (size_t)t.values, sizeof *t.value);
    }
    if (k->scored) {
        double *score = HD_NEW_ARRAY(double, count), least = 0;
        for (uint32_t i = 0; i < count; i++) {
            score[i] = k->token[i].score;
            if (k->flags & HD_TOKENS_FLOAT ? k->token[i].plain : true) least = score[i] < least ? score[i] : least;
        }
        h->score = add(b, score, count, sizeof *score);
        h->unknown_score = least - 10;
    }
}

/* ---- added tokens: a trie of those found before, and one of those found after normalisation ---- */

static void add_added(block *b, hd_tokenizer *h, const hd_tokens *k, const hd_text *content)
{
    hd_added *all = HD_NEW_ARRAY(hd_added, k->news + 1);
    for (int normalised = 0; normalised < 2; normalised++) {
        trie t;
        trie_start(&t);
        uint8_t first[256] = { 0 };
        int count = 0;
        for (int i = 0; i < k->news; i++) {
            all[i] = (hd_added){ k->added[i].id, k->added[i].flags };
            if (k->added[i].normalised != normalised || !content[i].length) continue;
            const uint32_t node = walk(k, &t, 0, content[i].data, content[i].length);
            t.value[node] = (uint32_t)i + 1;
            first[(unsigned char)content[i].data[0]] = 1;
            count++;
        }
        if (!count) continue;
        h->added_trie[normalised] = add_trie(b, &t);
        h->added_node[normalised] = add(b, t.value, (size_t)t.values, sizeof *t.value);
        h->added_first[normalised] = add(b, first, 256, 1);
    }
    h->added = add(b, all, (size_t)k->news, sizeof *all);
}

/* Whether `mark` follows something else in this token. */
static bool holds_inside(const hd_token *t, const char *mark)
{
    const size_t n = strlen(mark);
    bool other = false;
    for (size_t at = 0; at < t->bytes;) {
        if (t->bytes - at < n || memcmp(t->name + at, mark, n)) other = true, at++;
        else if (other) return true;
        else at += n;
    }
    return false;
}

/* Whether no token reaches across the beginning of a run of marks: then text is cut there without asking the model, and pieces are
 * words, which repeat. Of Unigram the sums then start anew: in float they lose their last digits over a long text. */
static bool begins_words(const hd_tokens *k, const char *mark)
{
    const bool merges = k->model == HD_TOKENS_BPE && !k->byte_level && !(k->flags & HD_TOKENS_WHOLE) && !k->inner_prefix && !k->end_suffix;
    if ((!merges && k->model != HD_TOKENS_UNIGRAM) || hd_tokens_find(k, mark, strlen(mark)) < 0) return false;
    for (int i = 0; i < k->splits; i++) if (k->step[1][i].kind == HD_SPLIT_METASPACE && k->step[1][i].b) return false;      /* done already */
    for (int i = 0; i < k->merges; i++) if (holds_inside(&k->token[k->merge[i].made], mark)) return false;
    for (int i = 0; k->model == HD_TOKENS_UNIGRAM && i < k->tokens; i++) if (k->token[i].plain && holds_inside(&k->token[i], mark)) return false;
    return true;
}

/* Marks the tokens that the model makes of their own text: most pieces of text are such tokens, found then by one look. */
static void mark_whole(unsigned char *data, const hd_tokens *k)
{
    const hd_tokenizer *t = (const hd_tokenizer *)(const void *)data;
    hd_encoder *e = hd_encoder_new(t, &hd_regex_pcre2);
    if (!e) hd_tokens_fail(k, "out of memory");
    uint8_t *whole = HD_NEW_ARRAY(uint8_t, t->vocab);
    const uint32_t *at = HD_AT(t, text_at, uint32_t);
    for (uint32_t i = 0; i < t->vocab; i++) {
        const int32_t *ids;
        whole[i] = k->token[i].plain && at[i + 1] > at[i] && hd_encoder_piece(e, HD_AT(t, text, char) + at[i], at[i + 1] - at[i], &ids) == 1 && *ids == (int32_t)i;
    }
    hd_encoder_free(e);
    uint64_t *slot = (uint64_t *)(void *)(data + t->word.at);
    for (uint32_t i = 0; i < t->word.count; i++) if (slot[i] != UINT64_MAX && whole[slot[i] & 0x7fffff]) slot[i] |= 1u << 23;
}

static void finish(block *b, const hd_tokenizer *h)
{
    memcpy(b->data, h, sizeof *h);
    ((hd_tokenizer *)(void *)b->data)->bytes = (uint32_t)b->bytes;
}

const hd_tokenizer *hd_tokens_write(hd_tokens *k)
{
    static const char mark[] = "\u2581";
    hd_tokenizer h = { .magic = HD_TOKENIZER_MAGIC, .vocab = (uint32_t)k->tokens, .model = k->model, .flags = k->flags | (k->byte_level ? HD_TOKENS_BYTES : 0),
        .unknown = k->unknown,
                       .most_characters = k->most_characters };
    block b = { .k = k };
    add(&b, &h, 1, sizeof h);
    for (int i = 0; i < k->decodes; i++) {
        const bool after = i && k->decode[i - 1].kind == HD_DECODE_FUSE;
        if (k->decode[i].kind == HD_DECODE_STRIP && !after) hd_tokens_fail(k, "decoder Strip: only after Fuse is it known");
        if (k->decode[i].kind != HD_DECODE_STRIP && after) hd_tokens_fail(k, "decoder: only Strip may follow Fuse");
        if (k->decode[i].kind == HD_DECODE_STRIP) h.strip_first = k->decode[i].start;
        if (k->decode[i].kind == HD_DECODE_WORDPIECE && k->decode[i].flag) h.flags |= HD_TOKENS_CLEAN;
    }
    if (begins_words(k, mark) && k->splits < HD_TOKENIZER_STAGES) {
        hd_step_of *step = hd_tokens_step(k, 1, HD_SPLIT_BEFORE);
        step->from = mark, step->from_bytes = sizeof mark - 1;
    }

    hd_text *text = HD_NEW_ARRAY(hd_text, k->tokens);            /* as the model sees them */
    for (int i = 0; i < k->tokens; i++) {
        hd_text_add(&text[i], "%s", "");
        if (k->byte_level && !letters(k->token[i].name, k->token[i].bytes, &text[i])) k->token[i].plain = false;
        if (!k->byte_level) hd_text_addn(&text[i], k->token[i].name, k->token[i].bytes);
    }
    add_tokens(&b, &h, k, text);
    add_model(&b, &h, k, text);
    add_points(&b, hd_unicode_classes(), 1, &h.class_index, &h.class_block);
    if (k->needs_order) add_points(&b, hd_unicode_marks(), 1, &h.marks_index, &h.marks_block);
    if (k->needs_forms) {
        uint32_t (*pair)[3];
        const int pairs = hd_unicode_pairs(&pair);
        slots s = slots_for((size_t)pairs);
        for (int i = 0; i < pairs; i++) slots_put(&s, (uint64_t)pair[i][0] << 20 | pair[i][1], pair[i][2], true);
        h.compose = add_slots(&b, &s);
    }
    h.normals = (uint32_t)k->normals, h.splits = (uint32_t)k->splits;
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < (part ? k->splits : k->normals); i++) add_stage(&b, &k->step[part][i], &h.stage[part][i]);
    h.before = add(&b, k->before, (size_t)k->befores, sizeof *k->before);
    h.after = add(&b, k->after, (size_t)k->afters, sizeof *k->after);
    finish(&b, &h);

    /* added tokens as the text holds them where they are looked for */
    hd_text *content = HD_NEW_ARRAY(hd_text, k->news + 1);
    hd_encoder *e = hd_encoder_new((const hd_tokenizer *)(const void *)b.data, &hd_regex_pcre2);
    if (!e) hd_tokens_fail(k, "out of memory");
    for (int i = 0; i < k->news; i++) {
        const char *made = k->added[i].text;
        int64_t bytes = k->added[i].bytes;
        if (k->added[i].normalised) bytes = hd_encoder_normalise(e, k->added[i].text, k->added[i].bytes, &made);
        hd_text_add(&content[i], "%s", "");
        hd_text_addn(&content[i], made, bytes > 0 ? (size_t)bytes : 0);
    }
    hd_encoder_free(e);
    add_added(&b, &h, k, content);
    finish(&b, &h);
    if (k->model == HD_TOKENS_BPE && !(k->flags & HD_TOKENS_WHOLE)) mark_whole(b.data, k);
    return (const hd_tokenizer *)(const void *)b.data;
}
