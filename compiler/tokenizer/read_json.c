/* tokenizer.json of Hugging Face's tokenizers. Every component and every member that changes ids is read or refused by name. */
#include "tokenizer.h"
#include "../../runtime/app/tokenizer_parts.h"
#include <assert.h>
#include <jansson.h>
#include <string.h>

json_t *hd_tokens_json(hd_tokens *k, const char *file)
{
    size_t bytes = 0;
    json_error_t error;
    const char *text = hd_tokens_text(file, &bytes);
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!root) hd_fail((hd_where){ file, error.line > 0 ? error.line : 0 }, "this is no JSON: %s", error.text);
    assert(k->jsons < (int)(sizeof k->json / sizeof *k->json));
    k->json[k->jsons++] = root;
    if (!json_is_object(root)) hd_fail((hd_where){ file, 0 }, "this is no JSON object; a tokenizer's file is one");
    return root;
}

static const char *type_of(hd_tokens *k, const json_t *part, const char *where)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!type) hd_tokens_fail(k, "%s: it has no \"type\"", where);
    return type;
}

static bool flag(hd_tokens *k, const json_t *part, const char *where, const char *name, bool otherwise)
{
    const json_t *value = json_object_get(part, name);
    if (!value || json_is_null(value)) return otherwise;
    if (!json_is_boolean(value)) hd_tokens_fail(k, "%s: \"%s\" must be true or false", where, name);
    return json_is_true(value);
}

static const char *text(hd_tokens *k, const json_t *part, const char *where, const char *name, size_t *bytes)
{
    const json_t *value = json_object_get(part, name);
    if (!json_is_string(value)) hd_tokens_fail(k, "%s: \"%s\" must be a string", where, name);
    *bytes = json_string_length(value);
    return json_string_value(value);
}

static uint32_t whole(hd_tokens *k, const json_t *value, const char *where, const char *name)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > INT32_MAX) hd_tokens_fail(k, "%s: \"%s\" must be a whole number, 0 or more",
        where, name);
    return (uint32_t)json_integer_value(value);
}

static json_t *list(hd_tokens *k, const json_t *part, const char *where, const char *name)
{
    json_t *value = json_object_get(part, name);
    if (!json_is_array(value)) hd_tokens_fail(k, "%s: \"%s\" must be a list", where, name);
    return value;
}

/* A pattern, {"String": text} or {"Regex": text}: true for the latter. */
static bool pattern(hd_tokens *k, const json_t *part, const char *where, const char **from, size_t *bytes)
{
    const json_t *value = json_object_get(part, "pattern");
    const json_t *string = json_object_get(value, "String"), *regex = json_object_get(value, "Regex");
    if (!json_is_string(string) && !json_is_string(regex)) hd_tokens_fail(k, "%s: \"pattern\" must be a String or a Regex", where);
    const json_t *which = string ? string : regex;
    *from = json_string_value(which), *bytes = json_string_length(which);
    if (!*bytes) hd_tokens_fail(k, "%s: \"pattern\" is empty", where);
    return !string;
}

/* PCRE2 reads the same language as Oniguruma, which the file was written for, but for sets inside sets: a match would differ silently. */
static void check_regex(hd_tokens *k, const char *where, const char *regex, size_t bytes)
{
    char error[128] = "no memory";
    bool set = false;
    for (size_t i = 0; i < bytes; i++) {
        if (regex[i] == '\\') { i++; continue; }
        if (set && ((regex[i] == '[' && i + 1 < bytes && regex[i + 1] != ':') || (regex[i] == '&' && i + 1 < bytes && regex[i + 1] == '&')))
            hd_tokens_fail(k, "%s: the regular expression \"%.200s\" has a set inside a set, which is not known here", where, regex);
        if (regex[i] == '[' && !set) {
            set = true;
            if (i + 1 < bytes && regex[i + 1] == '^') i++;
            if (i + 1 < bytes && regex[i + 1] == ']') i++;
        } else if (regex[i] == '[') {
            for (i += 2; i + 1 < bytes && regex[i] != ']'; i++) { }
        } else if (regex[i] == ']') {
            set = false;
        }
    }
    void *compiled = hd_regex_pcre2.compile(regex, bytes, error, sizeof error);
    if (!compiled) hd_tokens_fail(k, "%s: the regular expression \"%.200s\" does not compile: %s", where, regex, error);
    hd_regex_pcre2.free(compiled);
    k->regex = true;
}

/* ---- normalizer ---- */

static bool same(const char *text, size_t bytes, const char *other) { return bytes == strlen(other) && !memcmp(text, other, bytes); }

static void replacement(hd_tokens *k, const json_t *part)
{
    size_t from_bytes, to_bytes;
    const char *from, *to = text(k, part, "normalizer Replace", "content", &to_bytes);
    hd_step_of step = { .kind = HD_NORMAL_REPLACE, .to = to, .to_bytes = to_bytes };
    if (pattern(k, part, "normalizer Replace", &from, &from_bytes)) {
        if (same(from, from_bytes, " {2,}") || same(from, from_bytes, " +")) step.kind = HD_NORMAL_RUN, step.a = strchr(from, '{') ? 2 : 1, from = " ", from_bytes = 1;
        else check_regex(k, "normalizer Replace", from, from_bytes), step.kind = HD_NORMAL_REGEX;
    }
    step.from = from, step.from_bytes = from_bytes;
    *hd_tokens_step(k, 0, step.kind) = step;
}

static int base64(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* u32 bytes of the double array, the array, the strings, a zero at the end. */
void hd_tokens_map(hd_tokens *k, const char *where, const char *data, size_t bytes, bool graphemes)
{
    uint32_t units = 0;
    if (bytes >= 4) memcpy(&units, data, 4);
    if (bytes < 8 || units < 4 || units % 4 || units > bytes - 4) hd_tokens_fail(k, "%s: the precompiled map is damaged: %zu bytes, %u of them for its tree", where, bytes, units);
    hd_step_of *step = hd_tokens_step(k, 0, HD_NORMAL_TRIE);
    char *strings = hd_alloc(bytes - 4 - units + 1);
    memcpy(strings, data + 4 + units, bytes - 4 - units);
    step->a = graphemes;
    step->from = data + 4, step->from_bytes = units, step->to = strings, step->to_bytes = bytes - 4 - units + 1;
}

static void precompiled(hd_tokens *k, const json_t *part)
{
    const json_t *value = json_object_get(part, "precompiled_charsmap");
    if (!value || json_is_null(value)) return;
    size_t bytes, out = 0, bits = 0;
    const char *code = text(k, part, "normalizer Precompiled", "precompiled_charsmap", &bytes);
    if (!bytes) return;
    char *data = hd_alloc(bytes);
    uint32_t held = 0;
    for (size_t i = 0; i < bytes && code[i] != '='; i++) {
        const int six = base64((unsigned char)code[i]);
        if (six < 0) hd_tokens_fail(k, "normalizer Precompiled: character %zu of the map is not of base64", i);
        held = held << 6 | (uint32_t)six;
        bits += 6;
        if (bits >= 8) bits -= 8, data[out++] = (char)(held >> bits);
    }
    hd_tokens_map(k, "normalizer Precompiled", data, out, true);
}

static void normalizer(hd_tokens *k, const json_t *part, int depth)
{
    static const char *const forms[] = { "NFD", "NFC", "NFKD", "NFKC" };
    if (!part || json_is_null(part)) return;
    const char *type = type_of(k, part, "normalizer");
    for (unsigned i = 0; i < 4; i++)
        if (!strcmp(type, forms[i])) {
            hd_step_of *step = hd_tokens_step(k, 0, HD_NORMAL_FORM);
            step->a = i & 1;
            hd_unicode_form(step, i >= 2);
            k->needs_order = true, k->needs_forms = k->needs_forms || step->a;
            return;
        }
    if (!strcmp(type, "Sequence")) {
        json_t *all = list(k, part, "normalizer Sequence", "normalizers"), *one;
        size_t i;
        if (depth > 8) hd_tokens_fail(k, "normalizer: Sequence inside Sequence, deeper than 8");
        json_array_foreach(all, i, one) normalizer(k, one, depth + 1);
    } else if (!strcmp(type, "BertNormalizer")) {
        const bool small = flag(k, part, "normalizer BertNormalizer", "lowercase", true);
        const hd_bert b = { flag(k, part, "normalizer BertNormalizer", "clean_text", true), flag(k, part, "normalizer BertNormalizer", "handle_chinese_chars", true),
                            flag(k, part, "normalizer BertNormalizer", "strip_accents", small), small };
        hd_unicode_bert(hd_tokens_step(k, 0, HD_NORMAL_MAP), &b);
    } else if (!strcmp(type, "Lowercase")) hd_unicode_lower(hd_tokens_step(k, 0, HD_NORMAL_MAP));
    else if (!strcmp(type, "StripAccents")) hd_unicode_accents(hd_tokens_step(k, 0, HD_NORMAL_MAP));
    else if (!strcmp(type, "Nmt")) hd_unicode_nmt(hd_tokens_step(k, 0, HD_NORMAL_MAP));
    else if (!strcmp(type, "Strip"))
        hd_tokens_step(k, 0, HD_NORMAL_STRIP)->a =
            (flag(k, part, "normalizer Strip", "strip_left", true) ? 1u : 0u) | (flag(k, part, "normalizer Strip", "strip_right", true) ? 2u : 0u);
    else if (!strcmp(type, "Prepend")) {
        hd_step_of *step = hd_tokens_step(k, 0, HD_NORMAL_PREPEND);
        step->to = text(k, part, "normalizer Prepend", "prepend", &step->to_bytes);
    } else if (!strcmp(type, "Replace")) replacement(k, part);
    else if (!strcmp(type, "Precompiled")) precompiled(k, part);
    else hd_tokens_fail(k, "normalizer: \"%.60s\" is not known; known: Sequence, BertNormalizer, NFC, NFD, NFKC, NFKD, "
                           "Lowercase, StripAccents, Strip, Prepend, Replace, Precompiled, Nmt", type);
}

/* ---- pre_tokenizer ---- */

static hd_split_behaviour behaviour(hd_tokens *k, const json_t *part, const char *where, const char *otherwise)
{
    static const char *const names[] = { "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous" };
    const char *name = json_string_value(json_object_get(part, "behavior"));
    for (unsigned i = 0; i < 5; i++) if (!strcmp(name ? name : otherwise, names[i])) return (hd_split_behaviour)i;
    hd_tokens_fail(k, "%s: the behavior \"%.60s\" is not known; known: Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous", where, name);
}

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPERS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWERS "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define ONE "[^\\r\\n\\p{L}\\p{N}]?"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const struct { const char *regex; hd_stage_kind kind; uint32_t a, b; } splitters[] = {
    { "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", HD_SPLIT_GPT2, 0, 0 },
    { CONTRACTIONS "|" ONE "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES, HD_SPLIT_CL100K, 3, 0 },
    { CONTRACTIONS "|" ONE "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES, HD_SPLIT_CL100K, 1, 0 },
    { CONTRACTIONS "|" ONE "\\p{L}+|\\p{N}+| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES, HD_SPLIT_CL100K, UINT32_MAX, 0 },
    { ONE UPPERS "*" LOWERS "+" CONTRACTIONS "?|" ONE UPPERS "+" LOWERS "*" CONTRACTIONS "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES, HD_SPLIT_O200K, 3, 1 },
    { ONE UPPERS "*" LOWERS "+|" ONE UPPERS "+" LOWERS "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES, HD_SPLIT_O200K, 1, 0 },
    { " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+", HD_SPLIT_BLOOM, 0, 0 },
};

static void split(hd_tokens *k, const json_t *part)
{
    const char *from;
    size_t bytes;
    const hd_split_behaviour how = behaviour(k, part, "pre_tokenizer Split", "?");
    const bool invert = flag(k, part, "pre_tokenizer Split", "invert", false);
    if (!pattern(k, part, "pre_tokenizer Split", &from, &bytes)) {
        if (invert) hd_tokens_fail(k, "pre_tokenizer Split: \"invert\" with a String is not known");
        hd_step_of *step = hd_tokens_step(k, 1, HD_SPLIT_LITERAL);
        step->a = how, step->from = from, step->from_bytes = bytes;
        return;
    }
    for (unsigned i = 0; i < sizeof splitters / sizeof *splitters; i++) {
        /* all but BLOOM's match every character: with gaps removed they cut the same */
        const bool whole_text = splitters[i].kind != HD_SPLIT_BLOOM && how == HD_SPLIT_REMOVED && invert;
        if (!same(from, bytes, splitters[i].regex) || !((how == HD_SPLIT_ISOLATED && !invert) || whole_text)) continue;
        hd_step_of *step = hd_tokens_step(k, 1, splitters[i].kind);
        step->a = splitters[i].a, step->b = splitters[i].b;
        return;
    }
    check_regex(k, "pre_tokenizer Split", from, bytes);
    hd_step_of *step = hd_tokens_step(k, 1, HD_SPLIT_REGEX);
    step->a = how, step->b = invert, step->from = from, step->from_bytes = bytes;
}

/* 0 never, 1 first, 2 always; older files say it by add_prefix_space. */
static uint32_t prepend_scheme(hd_tokens *k, const json_t *part, const char *where)
{
    static const char *const schemes[] = { "never", "first", "always" };
    const json_t *scheme = json_object_get(part, "prepend_scheme");
    if (!scheme) return flag(k, part, where, "add_prefix_space", true) ? 2 : 0;
    for (uint32_t i = 0; i < 3; i++) if (json_is_string(scheme) && !strcmp(json_string_value(scheme), schemes[i])) return i;
    hd_tokens_fail(k, "%s: \"prepend_scheme\" must be never, first or always", where);
}

static void pre_tokenizer(hd_tokens *k, const json_t *part, int depth)
{
    if (!part || json_is_null(part)) return;
    const char *type = type_of(k, part, "pre_tokenizer");
    if (!strcmp(type, "Sequence")) {
        json_t *all = list(k, part, "pre_tokenizer Sequence", "pretokenizers"), *one;
        size_t i;
        if (depth > 8) hd_tokens_fail(k, "pre_tokenizer: Sequence inside Sequence, deeper than 8");
        json_array_foreach(all, i, one) {
            if (k->byte_level) hd_tokens_fail(k, "pre_tokenizer: something comes after ByteLevel, which must be the last");
            pre_tokenizer(k, one, depth + 1);
        }
    } else if (!strcmp(type, "ByteLevel")) {
        if (flag(k, part, "pre_tokenizer ByteLevel", "add_prefix_space", true)) hd_tokens_step(k, 1, HD_SPLIT_PREFIX);
        if (flag(k, part, "pre_tokenizer ByteLevel", "use_regex", true)) hd_tokens_step(k, 1, HD_SPLIT_GPT2);
        k->byte_level = true;
    } else if (!strcmp(type, "Split")) split(k, part);
    else if (!strcmp(type, "Metaspace")) {
        hd_step_of *step = hd_tokens_step(k, 1, HD_SPLIT_METASPACE);
        step->to = text(k, part, "pre_tokenizer Metaspace", "replacement", &step->to_bytes);
        if (!step->to_bytes) hd_tokens_fail(k, "pre_tokenizer Metaspace: \"replacement\" is empty");
        step->a = prepend_scheme(k, part, "pre_tokenizer Metaspace");
        step->b = flag(k, part, "pre_tokenizer Metaspace", "split", true);
    } else if (!strcmp(type, "CharDelimiterSplit")) {
        hd_step_of *step = hd_tokens_step(k, 1, HD_SPLIT_LITERAL);
        step->a = HD_SPLIT_REMOVED;
        step->from = text(k, part, "pre_tokenizer CharDelimiterSplit", "delimiter", &step->from_bytes);
        if (!step->from_bytes) hd_tokens_fail(k, "pre_tokenizer CharDelimiterSplit: \"delimiter\" is empty");
    } else if (!strcmp(type, "Digits")) hd_tokens_step(k, 1, HD_SPLIT_DIGITS)->a = flag(k, part, "pre_tokenizer Digits", "individual_digits", false);
    else if (!strcmp(type, "Punctuation")) hd_tokens_step(k, 1, HD_SPLIT_PUNCTUATION)->a = behaviour(k, part, "pre_tokenizer Punctuation", "Isolated");
    else if (!strcmp(type, "Whitespace")) hd_tokens_step(k, 1, HD_SPLIT_WORDS);
    else if (!strcmp(type, "WhitespaceSplit")) hd_tokens_step(k, 1, HD_SPLIT_SPACES);
    else if (!strcmp(type, "BertPreTokenizer")) hd_tokens_step(k, 1, HD_SPLIT_BERT);
    else hd_tokens_fail(k, "pre_tokenizer: \"%.60s\" is not known; known: Sequence, ByteLevel, Split, Metaspace, Whitespace, WhitespaceSplit, "
                           "BertPreTokenizer, Digits, Punctuation, CharDelimiterSplit", type);
}

/* ---- model ---- */

static void vocabulary(hd_tokens *k, json_t *vocab)
{
    const char *name;
    json_t *id;
    if (!json_is_object(vocab)) hd_tokens_fail(k, "model: \"vocab\" must be an object of names and ids");
    json_object_foreach(vocab, name, id) hd_tokens_put(k, whole(k, id, "vocabulary", name), name, strlen(name));
}

static const char *affix(hd_tokens *k, const json_t *model, const char *name)
{
    const json_t *value = json_object_get(model, name);
    if (!value || json_is_null(value)) return NULL;
    if (!json_is_string(value)) hd_tokens_fail(k, "model: \"%s\" must be a string", name);
    return json_string_length(value) ? json_string_value(value) : NULL;
}

static void merges(hd_tokens *k, json_t *all)
{
    json_t *one;
    size_t i;
    json_array_foreach(all, i, one) {
        const json_t *left = json_array_get(one, 0), *right = json_array_get(one, 1);
        if (json_is_string(one)) {
            const char *pair = json_string_value(one), *blank = strchr(pair, ' ');
            if (!blank || blank == pair || !blank[1] || strchr(blank + 1, ' ')) hd_tokens_fail(k, "merges: merge %zu, \"%.60s\", is not two tokens with a blank between them",
                i, pair);
            hd_tokens_merge(k, pair, (size_t)(blank - pair), blank + 1, strlen(blank + 1));
        } else if (json_array_size(one) == 2 && json_is_string(left) && json_is_string(right)) {
            hd_tokens_merge(k, json_string_value(left), json_string_length(left), json_string_value(right), json_string_length(right));
        } else {
            hd_tokens_fail(k, "merges: merge %zu is not a pair of tokens", i);
        }
    }
}

static void read_bpe(hd_tokens *k, const json_t *model)
{
    const json_t *dropout = json_object_get(model, "dropout");
    k->model = HD_TOKENS_BPE;
    if (json_is_number(dropout) && json_number_value(dropout) != 0) hd_tokens_fail(k, "model BPE: \"dropout\" is %g: ids would be drawn by chance; only null or 0 is known",
                                                                                   json_number_value(dropout));
    k->inner_prefix = affix(k, model, "continuing_subword_prefix");
    k->end_suffix = affix(k, model, "end_of_word_suffix");
    vocabulary(k, json_object_get(model, "vocab"));
    if (flag(k, model, "model BPE", "fuse_unk", false)) k->flags |= HD_TOKENS_FUSE;
    if (flag(k, model, "model BPE", "byte_fallback", false)) k->flags |= HD_TOKENS_FALLBACK;
    if (flag(k, model, "model BPE", "ignore_merges", false)) k->flags |= HD_TOKENS_WHOLE;
    merges(k, list(k, model, "model BPE", "merges"));
}

static void read_unigram(hd_tokens *k, const json_t *model)
{
    json_t *all = list(k, model, "model Unigram", "vocab"), *one;
    size_t i;
    k->model = HD_TOKENS_UNIGRAM;
    k->scored = true;
    k->flags |= HD_TOKENS_FUSE;
    json_array_foreach(all, i, one) {
        const json_t *name = json_array_get(one, 0), *score = json_array_get(one, 1);
        if (json_array_size(one) != 2 || !json_is_string(name) || !json_is_number(score)) hd_tokens_fail(k, "model Unigram: vocab entry %zu is not a name and a number", i);
        hd_tokens_put(k, (uint32_t)i, json_string_value(name), json_string_length(name));
        k->token[i].score = json_number_value(score);
    }
    const json_t *unknown = json_object_get(model, "unk_id");
    if (unknown && !json_is_null(unknown)) {
        if (whole(k, unknown, "model Unigram", "unk_id") >= (uint32_t)k->tokens) hd_tokens_fail(k, "model Unigram: \"unk_id\" %lld is beyond the vocabulary, 0 to %d",
            (long long)json_integer_value(unknown), k->tokens - 1);
        k->unknown = (int32_t)json_integer_value(unknown);
    }
    if (flag(k, model, "model Unigram", "byte_fallback", false)) k->flags |= HD_TOKENS_FALLBACK;
}

static void read_model(hd_tokens *k, json_t *model)
{
    if (!json_is_object(model)) hd_tokens_fail(k, "it has no \"model\"; is this a tokenizer.json?");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!type) type = json_object_get(model, "merges") ? "BPE" : "";       /* older files */
    if (!strcmp(type, "BPE")) read_bpe(k, model);
    else if (!strcmp(type, "Unigram")) read_unigram(k, model);
    else if (!strcmp(type, "WordPiece") || !strcmp(type, "WordLevel")) {
        k->model = strcmp(type, "WordPiece") ? HD_TOKENS_WORDS : HD_TOKENS_WORDPIECE;
        if (k->model == HD_TOKENS_WORDPIECE) k->inner_prefix = json_object_get(model, "continuing_subword_prefix") ? affix(k, model, "continuing_subword_prefix") : "##";
        const json_t *most = json_object_get(model, "max_input_chars_per_word");
        k->most_characters = most && k->model == HD_TOKENS_WORDPIECE ? whole(k, most, "model WordPiece", "max_input_chars_per_word") : 100;
        vocabulary(k, json_object_get(model, "vocab"));
    } else hd_tokens_fail(k, "model: \"%.60s\" is not known; known: BPE, WordPiece, Unigram, WordLevel", type);
    const json_t *unknown = json_object_get(model, "unk_token");
    if (unknown && !json_is_null(unknown) && k->model != HD_TOKENS_UNIGRAM) {
        const int64_t id = json_is_string(unknown) ? hd_tokens_find(k, json_string_value(unknown), json_string_length(unknown)) : -1;
        if (id < 0 && k->model != HD_TOKENS_BPE) hd_tokens_fail(k, "model %s: \"unk_token\" is no token of the vocabulary", type);
        k->unknown = (int32_t)id;
    }
}

static void added_tokens(hd_tokens *k, json_t *all)
{
    json_t *one;
    size_t i;
    if (!all || json_is_null(all)) return;
    if (!json_is_array(all)) hd_tokens_fail(k, "\"added_tokens\" must be a list");
    json_array_foreach(all, i, one) {
        size_t bytes;
        const char *where = hd_format("added_tokens: token %zu", i), *content = text(k, one, where, "content", &bytes);
        const bool special = flag(k, one, where, "special", false);
        hd_new token = { .text = content, .bytes = (uint32_t)bytes, .id = whole(k, json_object_get(one, "id"), where, "id"),
                         .normalised = flag(k, one, where, "normalized", !special), .flags = special ? HD_ADDED_SPECIAL : 0 };
        if (flag(k, one, where, "single_word", false)) token.flags |= HD_ADDED_WORD;
        if (flag(k, one, where, "lstrip", false)) token.flags |= HD_ADDED_LEFT;
        if (flag(k, one, where, "rstrip", false)) token.flags |= HD_ADDED_RIGHT;
        hd_tokens_add(k, token);
    }
}

/* ---- post_processor ---- */

static void around(hd_tokens *k, bool after, uint32_t id)
{
    int *count = after ? &k->afters : &k->befores;
    if (id >= (uint32_t)k->tokens) hd_tokens_fail(k, "post_processor: the id %u is beyond the vocabulary, 0 to %d", id, k->tokens - 1);
    if (*count == 16) hd_tokens_fail(k, "post_processor: more than 16 tokens around a text");
    (after ? k->after : k->before)[(*count)++] = id;
}

static void template(hd_tokens *k, const json_t *part)
{
    json_t *all = list(k, part, "post_processor TemplateProcessing", "single"), *one, *known = json_object_get(part, "special_tokens"), *id;
    size_t i, j;
    bool after = false;
    json_array_foreach(all, i, one) {
        const json_t *special = json_object_get(one, "SpecialToken"), *name = json_object_get(special, "id");
        if (json_object_get(one, "Sequence")) {
            if (after) hd_tokens_fail(k, "post_processor TemplateProcessing: \"single\" has its text twice");
            after = true;
            continue;
        }
        json_t *ids = json_is_string(name) ? json_object_get(json_object_get(known, json_string_value(name)), "ids") : NULL;
        if (!json_is_array(ids)) hd_tokens_fail(k, "post_processor TemplateProcessing: entry %zu of \"single\" is neither the text nor one of its special_tokens", i);
        json_array_foreach(ids, j, id) around(k, after, whole(k, id, "post_processor TemplateProcessing", "ids"));
    }
    if (!after) hd_tokens_fail(k, "post_processor TemplateProcessing: \"single\" has no text");
}

static void post_processor(hd_tokens *k, const json_t *part, int depth)
{
    if (!part || json_is_null(part)) return;
    const char *type = type_of(k, part, "post_processor");
    if (!strcmp(type, "ByteLevel")) return;                      /* offsets only */
    if (!strcmp(type, "Sequence")) {
        json_t *all = list(k, part, "post_processor Sequence", "processors"), *one;
        size_t i;
        if (depth > 8) hd_tokens_fail(k, "post_processor: Sequence inside Sequence, deeper than 8");
        json_array_foreach(all, i, one) post_processor(k, one, depth + 1);
    } else if (!strcmp(type, "TemplateProcessing")) template(k, part);
    else if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing")) {
        around(k, false, whole(k, json_array_get(json_object_get(part, "cls"), 1), "post_processor", "cls"));
        around(k, true, whole(k, json_array_get(json_object_get(part, "sep"), 1), "post_processor", "sep"));
    } else hd_tokens_fail(k, "post_processor: \"%.60s\" is not known; known: Sequence, TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel", type);
}

/* ---- decoder ---- */

static void decoder(hd_tokens *k, const json_t *part, int depth)
{
    if (!part || json_is_null(part)) {
        if (!depth) hd_tokens_decode(k, HD_DECODE_SPACES);
        return;
    }
    size_t bytes;
    const char *type = type_of(k, part, "decoder");
    if (!strcmp(type, "Sequence")) {
        json_t *all = list(k, part, "decoder Sequence", "decoders"), *one;
        size_t i;
        if (depth > 8) hd_tokens_fail(k, "decoder: Sequence inside Sequence, deeper than 8");
        json_array_foreach(all, i, one) decoder(k, one, depth + 1);
    } else if (!strcmp(type, "ByteLevel")) hd_tokens_decode(k, HD_DECODE_BYTES);
    else if (!strcmp(type, "ByteFallback")) hd_tokens_decode(k, HD_DECODE_FALLBACK);
    else if (!strcmp(type, "Fuse")) hd_tokens_decode(k, HD_DECODE_FUSE);
    else if (!strcmp(type, "WordPiece")) {
        hd_decode_step *step = hd_tokens_decode(k, HD_DECODE_WORDPIECE);
        step->from = text(k, part, "decoder WordPiece", "prefix", &bytes);
        step->flag = flag(k, part, "decoder WordPiece", "cleanup", true);
    } else if (!strcmp(type, "Metaspace")) {
        hd_decode_step *step = hd_tokens_decode(k, HD_DECODE_METASPACE);
        step->from = text(k, part, "decoder Metaspace", "replacement", &bytes);
        step->flag = prepend_scheme(k, part, "decoder Metaspace") != 0;
    } else if (!strcmp(type, "BPEDecoder")) {
        hd_tokens_decode(k, HD_DECODE_SUFFIX)->from = text(k, part, "decoder BPEDecoder", "suffix", &bytes);
    } else if (!strcmp(type, "Replace")) {
        hd_decode_step *step = hd_tokens_decode(k, HD_DECODE_REPLACE);
        if (pattern(k, part, "decoder Replace", &step->from, &bytes)) hd_tokens_fail(k, "decoder Replace: a Regex is not known here, only a String");
        step->to = text(k, part, "decoder Replace", "content", &bytes);
    } else if (!strcmp(type, "Strip")) {
        hd_decode_step *step = hd_tokens_decode(k, HD_DECODE_STRIP);
        step->from = text(k, part, "decoder Strip", "content", &bytes);
        step->start = whole(k, json_object_get(part, "start"), "decoder Strip", "start"), step->stop = whole(k, json_object_get(part, "stop"), "decoder Strip", "stop");
        if (strcmp(step->from, " ") || step->stop) hd_tokens_fail(k, "decoder Strip: only blanks at the start are known, not \"%.20s\" with stop %u", step->from, step->stop);
    } else hd_tokens_fail(k, "decoder: \"%.60s\" is not known; known: Sequence, ByteLevel, WordPiece, Metaspace, BPEDecoder, Replace, ByteFallback, Fuse, Strip", type);
}

void hd_tokens_read_json(hd_tokens *k)
{
    json_t *root = hd_tokens_json(k, k->file);
    read_model(k, json_object_get(root, "model"));
    added_tokens(k, json_object_get(root, "added_tokens"));
    hd_tokens_close(k);
    normalizer(k, json_object_get(root, "normalizer"), 0);
    pre_tokenizer(k, json_object_get(root, "pre_tokenizer"), 0);
    post_processor(k, json_object_get(root, "post_processor"), 0);
    decoder(k, json_object_get(root, "decoder"), 0);
    if (k->byte_level && k->model != HD_TOKENS_BPE) hd_tokens_fail(k, "pre_tokenizer ByteLevel: only with the model BPE");
}
