/* The models: the ids of one piece. Pieces repeat (text is Zipf's), so those of up to 32 bytes and 7 ids are remembered in a table of
 * 1 MB, of which the common ones stay in the first caches; of the others, whole tokens are found by one look, and only the rest is merged. */
#include "tokenizer_parts.h"

#include <stdlib.h>

static uint64_t load8(const unsigned char *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static uint32_t load4(const unsigned char *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    const wide product = (wide)(a ^ UINT64_C(0xa0761d6478bd642f)) * (b ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* After wyhash (Wang Yi, public domain): one multiplication for each 16 bytes. */
uint64_t hd_tokenizer_hash(const void *text, size_t bytes)
{
    const unsigned char *p = text;
    uint64_t a, b, h = UINT64_C(0x8ebc6af09c88c6e3) ^ bytes;
    size_t left = bytes;
    for (; left > 16; left -= 16, p += 16) h = mix(load8(p) ^ h, load8(p + 8));
    if (left >= 8) a = load8(p), b = load8(p + left - 8);
    else if (left >= 4) a = load4(p), b = load4(p + left - 4);
    else if (left) a = (uint64_t)p[0] << 16 | (uint64_t)p[left >> 1] << 8 | p[left - 1], b = 0;
    else a = b = 0;
    return mix(a ^ h, b ^ bytes);
}

int32_t hd_word(const hd_tokenizer *t, const void *text, size_t bytes, bool *whole)
{
    const uint64_t *slot = HD_AT(t, word, uint64_t), key = hd_tokenizer_hash(text, bytes) >> 24;
    const uint32_t *at = HD_AT(t, text_at, uint32_t);
    *whole = false;
    if (!t->word.count) return -1;
    for (uint64_t i = (key * HD_HASH >> 32) * t->word.count >> 32;;) {
        const uint64_t s = slot[i];
        if (s == UINT64_MAX) return -1;
        const uint32_t id = s & 0x7fffff;
        if (s >> 24 == key && at[id + 1] - at[id] == bytes && !memcmp(HD_AT(t, text, char) + at[id], text, bytes)) {
            *whole = s >> 23 & 1;
            return (int32_t)id;
        }
        if (++i == t->word.count) i = 0;
    }
}

/* ---- byte pair encoding ---- */

static inline uint32_t rank_of(const hd_tokenizer *t, int32_t left, int32_t right)
{
    return hd_find(t, &t->merge, (uint64_t)(uint32_t)left << 20 | (uint32_t)right);
}

static bool sooner(const hd_candidate *a, const hd_candidate *b) { return a->rank != b->rank ? a->rank < b->rank : a->at < b->at; }

static void offer(hd_encoder *e, uint32_t at)
{
    const hd_symbol *s = &e->symbol[at];
    if (s->after < 0) return;
    const uint32_t rank = rank_of(e->t, s->id, e->symbol[s->after].id);
    if (rank == UINT32_MAX || (e->heap_count == e->heap_capacity && !hd_room(e, &e->heap, &e->heap_capacity, e->heap_count + 1, sizeof *e->heap))) return;
    const hd_candidate new = { rank, at, s->id, e->symbol[s->after].id };
    size_t i = e->heap_count++;
    for (; i && sooner(&new, &e->heap[(i - 1) / 2]); i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = new;
}

static hd_candidate take(hd_encoder *e)
{
    const hd_candidate first = e->heap[0], last = e->heap[--e->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < e->heap_count; i = child) {
        if (child + 1 < e->heap_count && sooner(&e->heap[child + 1], &e->heap[child])) child++;
        if (!sooner(&e->heap[child], &last)) break;
        e->heap[i] = e->heap[child];
    }
    e->heap[i] = last;
    return first;
}

/* Long pieces: a heap of candidates over a linked list, n log n. Candidates whose symbols have changed since are passed over. */
static void merge_long(hd_encoder *e, size_t count)
{
    const uint32_t *merged = HD_AT(e->t, merged, uint32_t);
    e->heap_count = 0;
    for (size_t i = 0; i < count; i++) e->symbol[i].before = (int32_t)i - 1, e->symbol[i].after = i + 1 < count ? (int32_t)i + 1 : -1;
    for (size_t i = 0; i + 1 < count; i++) offer(e, (uint32_t)i);
    while (e->heap_count && !e->failed) {
        const hd_candidate c = take(e);
        hd_symbol *s = &e->symbol[c.at];
        if (s->id != c.left || s->after < 0 || e->symbol[s->after].id != c.right) continue;
        hd_symbol *gone = &e->symbol[s->after];
        s->id = (int32_t)merged[c.rank];
        s->after = gone->after;
        gone->id = -1;
        if (s->after >= 0) e->symbol[s->after].before = (int32_t)c.at;
        offer(e, c.at);
        if (s->before >= 0) offer(e, (uint32_t)s->before);
    }
    for (int32_t i = 0; i >= 0 && count; i = e->symbol[i].after) hd_put_id(e, e->symbol[i].id);
}

enum { SHORT = 48 };

/* Short pieces: the ranks of neighbours (rank[i] of i and i + 1) in a row, of which the least is taken while there is one. Looking through so few costs less
 * than keeping them in order. */
static void merge_short(hd_encoder *e, int32_t *id, uint32_t *rank, size_t count)
{
    const uint32_t *merged = HD_AT(e->t, merged, uint32_t);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++) if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        id[best] = (int32_t)merged[rank[best]];
        count--;
        memmove(id + best + 1, id + best + 2, (count - best - 1) * sizeof *id);
        memmove(rank + best, rank + best + 1, (count - best) * sizeof *rank);
        if (best + 1 < count) rank[best] = rank_of(e->t, id[best], id[best + 1]);
        if (best) rank[best - 1] = rank_of(e->t, id[best - 1], id[best]);
    }
    for (size_t i = 0; i < count; i++) hd_put_id(e, id[i]);
}

static bool push_symbol(hd_encoder *e, size_t *count, int32_t id)
{
    if (*count == e->symbol_capacity && !hd_room(e, &e->symbol, &e->symbol_capacity, *count + 1, sizeof *e->symbol)) return false;
    e->symbol[(*count)++].id = id;
    return true;
}

/* The id of the character at p, with the prefix of symbols inside a word, or the suffix of the last, where the model has them. */
static int32_t symbol_of(const hd_tokenizer *t, const unsigned char *p, unsigned n, bool first, bool last)
{
    char text[256];
    size_t bytes = 0;
    bool whole;
    const uint32_t before = first ? 0 : t->inner_prefix.count, after = last ? t->end_suffix.count : 0;
    if (!before && !after) return hd_word(t, p, n, &whole);
    if (before + n + after > sizeof text) return -1;
    memcpy(text, HD_AT(t, inner_prefix, char), before), bytes += before;
    memcpy(text + bytes, p, n), bytes += n;
    memcpy(text + bytes, HD_AT(t, end_suffix, char), after), bytes += after;
    return hd_word(t, text, bytes, &whole);
}

static size_t symbols(hd_encoder *e, const unsigned char *p, size_t bytes)
{
    const hd_tokenizer *t = e->t;
    const int32_t *of_byte = HD_AT(t, symbol, int32_t);
    const unsigned char *start = p, *end = p + bytes;
    size_t count = 0;
    bool unknown = false;                         /* the last symbol is the unknown token */
    for (unsigned n; p < end; p += n) {
        hd_utf8(p, end, &n);
        const int32_t id = symbol_of(t, p, n, p == start, p + n == end);
        bool bytes_known = t->flags & HD_TOKENS_FALLBACK;
        if (id >= 0) {
            push_symbol(e, &count, id);
            unknown = false;
            continue;
        }
        for (unsigned i = 0; i < n && bytes_known; i++) bytes_known = of_byte[p[i]] >= 0;
        if (bytes_known) {
            for (unsigned i = 0; i < n; i++) push_symbol(e, &count, of_byte[p[i]]);
            unknown = false;
        } else if (t->unknown >= 0 && !(unknown && t->flags & HD_TOKENS_FUSE)) {
            push_symbol(e, &count, t->unknown);
            unknown = true;
        }
    }
    return count;
}

static void bpe(hd_encoder *e, const unsigned char *p, size_t bytes)
{
    const hd_tokenizer *t = e->t;
    bool whole;
    if (bytes >= INT32_MAX) {
        e->failed = true;
        return;
    }
    if (bytes <= t->longest) {
        const int32_t id = hd_word(t, p, bytes, &whole);
        if (id >= 0 && whole) {
            hd_put_id(e, id);
            return;
        }
    }
    size_t count = 0;
    int32_t id[SHORT];
    uint32_t rank[SHORT];
    if (t->flags & HD_TOKENS_BYTES) {
        const int32_t *of_byte = HD_AT(t, symbol, int32_t);
        if (bytes <= SHORT && t->byte_pair.count) {
            const uint32_t *pair = HD_AT(t, byte_pair, uint32_t);
            for (size_t i = 0; i < bytes; i++) id[i] = of_byte[p[i]];
            for (size_t i = 0; i + 1 < bytes; i++) rank[i] = pair[(size_t)p[i] << 8 | p[i + 1]];
            merge_short(e, id, rank, bytes);
            return;
        }
        for (size_t i = 0; i < bytes; i++) if (of_byte[p[i]] >= 0) push_symbol(e, &count, of_byte[p[i]]);
    } else {
        count = symbols(e, p, bytes);
        if (count <= SHORT && !e->failed) {
            for (size_t i = 0; i < count; i++) id[i] = e->symbol[i].id;
            for (size_t i = 0; i + 1 < count; i++) rank[i] = rank_of(t, id[i], id[i + 1]);
            merge_short(e, id, rank, count);
            return;
        }
    }
    if (!e->failed) merge_long(e, count);
}

/* ---- WordPiece: the longest token that begins what is left of the word; nothing fits: the word is unknown ---- */

static void wordpiece(hd_encoder *e, const unsigned char *p, size_t bytes)
{
    const hd_tokenizer *t = e->t;
    const uint32_t *id_of = HD_AT(t, trie_id, uint32_t);
    const size_t begun = e->ids;
    size_t characters = 0;
    for (size_t i = 0; i < bytes; i++) characters += (p[i] & 0xc0) != 0x80;
    bool known = characters <= t->most_characters;
    for (size_t at = 0; at < bytes && known;) {
        uint32_t node = at ? t->inner_root : 0, id = 0;
        size_t stop = at;
        for (size_t i = at; i < bytes && (node = hd_find(t, &t->trie, (uint64_t)node << 8 | p[i])) != UINT32_MAX; i++)
            if (id_of[node]) id = id_of[node], stop = i + 1;
        known = id != 0;
        if (known) hd_put_id(e, (int32_t)id - 1);
        at = stop;
    }
    if (!known) {
        e->ids = begun;
        if (t->unknown >= 0) hd_put_id(e, t->unknown);
    }
}

/* ---- Unigram: the tokens whose log-probabilities have the greatest sum (Viterbi) ----
 * best[j] = max over tokens from i to j of best[i] + score; of equals the one that begins first. Characters that are no token cost the
 * unknown score. Sums are double, or float where the file is SentencePiece's own: each library's choice decides ties. */
static void unigram(hd_encoder *e, const unsigned char *p, size_t bytes)
{
    const hd_tokenizer *t = e->t;
    const uint32_t *id_of = HD_AT(t, trie_id, uint32_t);
    const double *score = HD_AT(t, score, double);
    if (bytes >= UINT32_MAX || (bytes + 1 > e->node_capacity && !hd_room(e, &e->node, &e->node_capacity, bytes + 1, sizeof *e->node))) {
        e->failed = true;
        return;
    }
    hd_node *best = e->node;
    for (size_t i = 0; i <= bytes; i++) best[i] = (hd_node){ 0, -2, 0 };
    unsigned n;
    for (size_t at = 0; at < bytes; at += n) {
        hd_utf8(p + at, p + bytes, &n);
        const double here = best[at].score;
        bool single = false;
        uint32_t node = 0;
        for (size_t i = at; i < bytes && (node = hd_find(t, &t->trie, (uint64_t)node << 8 | p[i])) != UINT32_MAX; i++) {
            if (!id_of[node]) continue;
            const int32_t id = (int32_t)id_of[node] - 1;
            const double sum = t->flags & HD_TOKENS_FLOAT ? (double)((float)score[id] + (float)here) : score[id] + here;
            hd_node *to = &best[i + 1];
            if (to->id == -2 || sum > to->score) *to = (hd_node){ sum, id, (uint32_t)at };
            single = single || i + 1 == at + n;
        }
        if (!single) {
            const double sum = t->flags & HD_TOKENS_FLOAT ? (double)((float)t->unknown_score + (float)here) : t->unknown_score + here;
            hd_node *to = &best[at + n];
            if (to->id == -2 || sum > to->score) *to = (hd_node){ sum, -1, (uint32_t)at };
        }
    }
    const size_t begun = e->ids;                  /* from the end to the start; then turned round */
    const int32_t *of_byte = HD_AT(t, symbol, int32_t);
    bool unknown = false;
    for (size_t at = bytes; at && !e->failed; at = best[at].from) {
        if (best[at].id >= 0) {
            hd_put_id(e, best[at].id);
            unknown = false;
            continue;
        }
        bool known = t->flags & HD_TOKENS_FALLBACK;
        for (size_t i = best[at].from; i < at && known; i++) known = of_byte[p[i]] >= 0;
        if (known) for (size_t i = at; i > best[at].from; i--) hd_put_id(e, of_byte[p[i - 1]]);
        else if (t->unknown >= 0 && !(unknown && t->flags & HD_TOKENS_FUSE)) hd_put_id(e, t->unknown);
        unknown = !known;
    }
    for (size_t i = begun, k = e->ids; i + 1 < k; i++) {
        const int32_t swap = e->id[i];
        e->id[i] = e->id[--k];
        e->id[k] = swap;
    }
}

static void model(hd_encoder *e, const unsigned char *p, size_t bytes)
{
    bool whole;
    switch ((hd_tokenizer_model)e->t->model) {
    case HD_TOKENS_BPE: bpe(e, p, bytes); return;
    case HD_TOKENS_WORDPIECE: wordpiece(e, p, bytes); return;
    case HD_TOKENS_UNIGRAM: unigram(e, p, bytes); return;
    case HD_TOKENS_WORDS: {
        const int32_t id = hd_word(e->t, p, bytes, &whole);
        if (id >= 0 || e->t->unknown >= 0) hd_put_id(e, id >= 0 ? id : e->t->unknown);
    }
    }
}

/* What tells a piece of up to 32 bytes from all others as long: words of it that may overlap. Returns a hash of them. */
static inline uint64_t key_of(const unsigned char *p, size_t bytes, uint64_t *key)
{
    key[2] = key[3] = 0;
    if (bytes >= 8) {
        key[0] = load8(p), key[1] = load8(p + bytes - 8);
        if (bytes > 16) {
            key[2] = load8(p + 8), key[3] = load8(p + bytes - 16);
            return mix(mix(key[0] ^ bytes, key[1]) ^ key[2], key[3]) >> 20;
        }
    } else if (bytes >= 4) {
        key[0] = load4(p), key[1] = load4(p + bytes - 4);
    } else {
        key[0] = (uint64_t)p[0] << 16 | (uint64_t)p[bytes >> 1] << 8 | p[bytes - 1], key[1] = 0;
    }
    return mix(key[0] ^ bytes, key[1]) >> 20;
}

void hd_piece(hd_encoder *e, const char *text, size_t bytes)
{
    if (e->list) {
        if (e->ends + 2 > e->end_capacity && !hd_room(e, &e->end, &e->end_capacity, e->ends + 2, sizeof *e->end)) return;
        e->end[e->ends++] = text - e->origin;
        e->end[e->ends++] = text - e->origin + (int64_t)bytes;
        return;
    }
    const unsigned char *p = (const unsigned char *)text;
    hd_cached *c = NULL;
    uint64_t key[4];
    if (bytes <= sizeof key) {
        c = &e->cache[key_of(p, bytes, key) & (HD_CACHED - 1)];
        if (c->bytes == bytes && !((c->key[0] ^ key[0]) | (c->key[1] ^ key[1]) | (c->key[2] ^ key[2]) | (c->key[3] ^ key[3]))) {
            if (e->id_capacity - e->ids < 7 && !hd_room(e, &e->id, &e->id_capacity, e->ids + 7, sizeof *e->id)) return;
            memcpy(e->id + e->ids, c->id, sizeof c->id);
            e->ids += c->count;
            return;
        }
    }
    const size_t begun = e->ids;
    model(e, p, bytes);
    if (c && !e->failed && e->ids - begun <= sizeof c->id / sizeof *c->id) {
        memcpy(c->key, key, sizeof key);
        if (e->ids > begun) memcpy(c->id, e->id + begun, (e->ids - begun) * sizeof *c->id);
        c->bytes = (uint8_t)bytes, c->count = (uint8_t)(e->ids - begun);
    }
}
