/* Tokenizers: known encodings of published vocabularies, round trips of text, each algorithm and each splitter against an obvious or an
 * independent one, and what is said about wrong files.
 *
 * Published vocabularies and text lie in ../shared/data, or where HEDDLE_DATA says; without them their tests are skipped, saying so. */
#include "tool.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>

#include "../../compiler/tokenizer/tokenizer.h"

#define HERE FOLDER_OF("tokenizer")

static const char *data_file(const char *path)
{
    const char *folder = getenv("HEDDLE_DATA");
    return hd_format("%s/%s", folder && *folder ? folder : "../shared/data", path);
}

static void need_data(const char *path)
{
    if (access(data_file(path), R_OK) == 0) return;
    print_message("%s is not there: skipped (HEDDLE_DATA names the folder)\n", data_file(path));
    skip();
}

static hd_encoder *encoder_of(const hd_tokenizer *t)
{
    hd_encoder *e = hd_encoder_new(t, &hd_regex_pcre2);
    assert_non_null(e);
    return e;
}

static const char *ids_text(const int32_t *ids, int64_t count)
{
    hd_text out = { 0 };
    hd_text_add(&out, "%s", "");
    for (int64_t i = 0; i < count; i++) hd_text_add(&out, "%s%d", i ? " " : "", ids[i]);
    return out.data;
}

static const char *json_ids(const json_t *list)
{
    hd_text out = { 0 };
    hd_text_add(&out, "%s", "");
    for (size_t i = 0; i < json_array_size(list); i++) hd_text_add(&out, "%s%lld", i ? " " : "", (long long)json_integer_value(json_array_get(list, i)));
    return out.data;
}

/* Every line of a file of cases: text and ids, or ids_with_special; `decoded` where it is given. */
static void expect_cases(const char *tokenizer, const char *cases, int least)
{
    need_data(tokenizer);
    hd_encoder *e = encoder_of(hd_tokenizer_load(data_file(tokenizer), NULL));
    const hd_tokenizer *t = hd_tokenizer_load(data_file(tokenizer), NULL);
    int count = 0, wrong = 0;
    char *file = text_of(data_file(cases));
    for (char *line = strtok(file, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *one = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(one);
        const json_t *text = json_object_get(one, "text"), *special = json_object_get(one, "ids_with_special"), *decoded = json_object_get(one, "decoded");
        const int32_t *ids;
        const int64_t n = hd_encode(e, json_string_value(text), json_string_length(text), special != NULL, &ids);
        const char *got = ids_text(ids, n), *wanted = json_ids(special ? special : json_object_get(one, "ids"));
        if (strcmp(got, wanted) && wrong++ < 10) print_message("%s\n  gives   %s\n  expected %s\n", json_string_value(text), got, wanted);
        if (decoded) {
            size_t bytes;
            char *shown = hd_decode(t, ids, n, true, &bytes);
            if (strcmp(shown, json_string_value(decoded)) && wrong++ < 10) print_message("decoded %s\nexpected %s\n", shown, json_string_value(decoded));
            free(shown);
        }
        json_decref(one);
        count++;
    }
    hd_encoder_free(e);
    assert_int_equal(wrong, 0);
    assert_true(count >= least);
}

static void gpt2_gives_the_published_ids(void **state) { (void)state; expect_cases("tokenizers/gpt2-bpe", "tokenizers/gpt2-bpe/expected.jsonl", 72); }
static void bert_of_small_letters_gives_the_published_ids(void **state)
{
    (void)state;
    expect_cases("tokenizers/bert-base-uncased-wordpiece", "tokenizers/bert-base-uncased-wordpiece/expected-questions.jsonl", 500);
    expect_cases("tokenizers/bert-base-uncased-wordpiece", "tokenizers/bert-base-uncased-wordpiece/expected-special-cases.jsonl", 65);
}
static void bert_of_a_tokenizer_json_gives_the_published_ids(void **state) { (void)state; expect_cases("tokenizers/bert-base-cased-hf-json", "tokenizers/bert-base-cased-hf-json/expected.jsonl", 253); }
static void a_sentencepiece_model_gives_the_published_ids(void **state)
{
    (void)state;
    expect_cases("tokenizers/sentencepiece-unigram-1000/test_model.model", "tokenizers/sentencepiece-unigram-1000/expected.jsonl", 252);
}

/* ---- text of every kind comes back ---- */

static const char *const texts[] = { "tinyshakespeare/input.txt", "wikipedia-xml/enwik6", "wikipedia-xml/enwiki-2016-pages-000-155.xml.bz2", "multi30k/train.de.gz", "multi30k/val.en.gz", "mr-polarity/rt-polarity.neg",
                                     "mr-polarity/rt-polarity.pos", "amazon-video-games/Video.txt.gz", "cora/edges.tsv", "credit/german.data", "mit-bih/208.hea", "mit-bih/208.atr",
                                     "music/jsb-chorales/Jsb16thSeparated.train-valid.json.gz", "tokenizers/gpt2-bpe/encoder.json", "tokenizers/gpt2-bpe/vocab.bpe",
                                     "tokenizers/sentencepiece-unigram-1000/test_model.model" };

static bool ends(const char *text, const char *end) { return strlen(text) >= strlen(end) && !strcmp(text + strlen(text) - strlen(end), end); }

static char *text_file(const char *name, size_t *bytes)
{
    const char *path = data_file(name);
    if (!ends(name, ".gz") && !ends(name, ".bz2")) return hd_read_file(path, bytes);
    char *out = NULL;
    const char *const argv[] = { ends(name, ".gz") ? "gzip" : "bzip2", "-dc", path, NULL };
    if (hd_run_program(argv, &out)) fail_msg("%s %s: %s", argv[0], path, out);
    *bytes = strlen(out);
    return out;
}

static void byte_level_text_comes_back_whatever_its_bytes(void **state)
{
    (void)state;
    need_data("tokenizers/gpt2-bpe");
    const hd_tokenizer *t = hd_tokenizer_load(data_file("tokenizers/gpt2-bpe"), NULL);
    hd_encoder *e = encoder_of(t);
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t bytes = 0, back;
        const int32_t *ids;
        const char *text = text_file(texts[i], &bytes);
        assert_non_null(text);
        const int64_t count = hd_encode(e, text, bytes, false, &ids);
        char *out = hd_decode(t, ids, count, false, &back);
        if (back != bytes || memcmp(out, text, bytes)) fail_msg("%s: %zu bytes became %lld tokens and %zu bytes", texts[i], bytes, (long long)count, back);
        if (i < 4 && count * 2 > (int64_t)bytes) fail_msg("%s: %zu bytes became %lld tokens", texts[i], bytes, (long long)count);
        free(out);
    }
    hd_encoder_free(e);
}

/* What normaliser and unknown tokens lose, they lose at once: going there and back changes text twice at most (SentencePiece's mark for
 * the unknown is itself not normal). */
static void text_of_other_tokenizers_comes_back_once_it_is_normal(void **state)
{
    (void)state;
    static const char *const names[] = { "tokenizers/bert-base-cased-hf-json", "tokenizers/bert-base-uncased-wordpiece", "tokenizers/sentencepiece-unigram-1000/test_model.model" };
    need_data(names[0]);
    for (unsigned k = 0; k < 3; k++) {
        const hd_tokenizer *t = hd_tokenizer_load(data_file(names[k]), NULL);
        hd_encoder *e = encoder_of(t);
        for (unsigned i = 0; i < 6; i++) {
            size_t bytes = 0, once, twice;
            const int32_t *ids;
            const char *text = text_file(texts[i], &bytes);
            if (bytes > 1200000) bytes = 1200000;
            int64_t count = hd_encode(e, text, bytes, false, &ids);
            char *lost = hd_decode(t, ids, count, false, &once);
            count = hd_encode(e, lost, once, false, &ids);
            free(lost);
            char *first = hd_decode(t, ids, count, false, &once);
            count = hd_encode(e, first, once, false, &ids);
            char *second = hd_decode(t, ids, count, false, &twice);
            size_t same = 0;
            while (same < once && same < twice && first[same] == second[same]) same++;
            if (once != twice || same < once) fail_msg("%s, %s: differs from byte %zu of %zu on: \"%.40s\" became \"%.40s\"", names[k], texts[i], same, once, first + same, second + same);
            assert_true(count > 1000);
            free(first), free(second);
        }
        hd_encoder_free(e);
    }
}

/* ---- tiny tokenizers ---- */

static const hd_tokenizer *tokenizer_of(const char *json)
{
    const char *path = HERE "/tiny.json";
    hd_write_file(path, json, strlen(json));
    return hd_tokenizer_load(path, NULL);
}

static const char *encoded(const hd_tokenizer *t, const char *text, bool special)
{
    hd_encoder *e = encoder_of(t);
    const int32_t *ids;
    const int64_t count = hd_encode(e, text, strlen(text), special, &ids);
    const char *out = ids_text(ids, count);
    hd_encoder_free(e);
    return out;
}

static const char *decoded(const hd_tokenizer *t, const char *ids_list, bool skip)
{
    int32_t ids[256];
    int64_t count = 0;
    char *end;
    for (const char *at = ids_list; *at; at = end + strspn(end, " ")) ids[count++] = (int32_t)strtol(at, &end, 10);
    size_t bytes;
    char *text = hd_decode(t, ids, count, skip, &bytes);
    const char *out = hd_strdup(text);
    free(text);
    return out;
}

#define BPE(vocab, merges, more) "\"model\": {\"type\": \"BPE\", \"vocab\": {" vocab "}, \"merges\": [" merges "]" more "}"
#define LETTERS "\"a\": 0, \"b\": 1, \"c\": 2, \"\u2581\": 3, \"ab\": 4, \"abc\": 5, \"\u2581a\": 6, \"\u2581\u2581\": 7, \"<unk>\": 8"
#define BYTES_OF_E "\"<0xC3>\": 9, \"<0xA9>\": 10"
#define UNDER "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}]}"
#define LLAMA "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"\u2581\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}"

static const struct { const char *why, *json, *text, *ids, *back; } tiny[] = {
    { "merges in the order of their ranks", "{" BPE(LETTERS, "\"a b\", \"ab c\"", "") "}", "abcab", "5 4", "abc ab" },
    { "a lower rank wins over an earlier pair", "{" BPE("\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"bc\": 4", "[\"b\", \"c\"], [\"a\", \"b\"]", "") "}", "abc", "0 4", "a bc" },
    { "unknown characters, each", "{" BPE(LETTERS, "\"a b\"", ", \"unk_token\": \"<unk>\"") "}", "a\u00e9\u00e9b", "0 8 8 1", "a <unk> <unk> b" },
    { "unknown characters, joined", "{" BPE(LETTERS, "\"a b\"", ", \"unk_token\": \"<unk>\", \"fuse_unk\": true") "}", "a\u00e9\u00e9b", "0 8 1", NULL },
    { "bytes for unknown characters", "{" UNDER ", " LLAMA ", " BPE(LETTERS ", " BYTES_OF_E, "\"a b\", \"\u2581 a\", \"\u2581 \u2581\"", ", \"unk_token\": \"<unk>\", \"byte_fallback\": true") "}", "ab\u00e9  b", "3 4 9 10 7 1",
      "ab\u00e9  b" },
    { "invalid bytes are U+FFFD, which is unknown here", "{" BPE(LETTERS, "\"a b\"", ", \"unk_token\": \"<unk>\"") "}", "a\xff\xe2\x96" "b", "0 8 8 1", NULL },
    { "end of word", "{" BPE("\"a\": 0, \"b</w>\": 1, \"ab</w>\": 2, \"b\": 3, \"a</w>\": 4", "\"a b</w>\"", ", \"end_of_word_suffix\": \"</w>\"")
      ", \"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}, \"decoder\": {\"type\": \"BPEDecoder\", \"suffix\": \"</w>\"}}", "ab  ba b", "2 3 4 1", "ab ba b " },
    { "a piece that is a token, without merges", "{" BPE("\"a\": 0, \"b\": 1, \"ab\": 2", "", ", \"ignore_merges\": true") "}", "ab", "2", "ab" },
    { "greedy pieces of words", "{\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"vocab\": {\"[UNK]\": 0, \"un\": 1, \"##aff\": 2, \"##able\": 3, \"unaf\": 4, \"!\": 5}}, \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},"
      " \"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true}}", "unable unaffable ! un!", "1 3 0 5 1 5", "unable [UNK]! un!" },
    { "most probable pieces", "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [[\"<unk>\", 0], [\"\u2581\", -2], [\"a\", -3], [\"b\", -3], [\"\u2581ab\", -4], [\"ab\", -7]]}, \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": \"always\"},"
      " \"decoder\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": \"always\"}}", "ab aab zz", "4 1 2 2 3 1 0", "ab aab <unk>" },
    { "words", "{\"model\": {\"type\": \"WordLevel\", \"unk_token\": \"?\", \"vocab\": {\"?\": 0, \"hello\": 1, \"world\": 2, \",\": 3}}, \"normalizer\": {\"type\": \"Lowercase\"}, \"pre_tokenizer\": {\"type\": \"Whitespace\"}}", "Hello, WORLD x", "1 3 2 0",
      "hello , world ?" },
    { "added tokens: longest first, whole words, blanks taken", "{" BPE(LETTERS ", \"<x>\": 9, \"<x><y>\": 10, \"bb\": 11, \"<m>\": 12", "\"a b\"", "") ", \"added_tokens\": [{\"id\": 9, \"content\": \"<x>\", \"special\": true}, {\"id\": 10, \"content\": \"<x><y>\", \"normalized\": false},"
      " {\"id\": 11, \"content\": \"bb\", \"single_word\": true}, {\"id\": 12, \"content\": \"<m>\", \"lstrip\": true, \"rstrip\": true}], \"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}}", "a<x>b<x><y> bb abb a <m> c", "0 9 1 10 11 4 1 0 12 2", NULL },
    { "a template around the text", "{" BPE(LETTERS, "", "") ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"s\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}],"
      " \"special_tokens\": {\"s\": {\"id\": \"s\", \"ids\": [7, 8], \"tokens\": [\"s\"]}}}}", "ab", "7 8 0 1", NULL },
    { "composed letters", "{" BPE("\"\u00e9\": 0, \"e\": 1", "", "") ", \"normalizer\": {\"type\": \"NFC\"}}", "e\u0301e", "0 1", NULL },
    { "decomposed letters without their marks", "{" BPE("\"\u00e9\": 0, \"e\": 1, \"fi\": 2, \"f\": 3, \"i\": 4", "\"f i\"", "") ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKD\"}, {\"type\": \"StripAccents\"}]}}", "\u00e9\ufb01", "1 2", NULL },
    { "a regular expression that no splitter knows", "{" BPE("\"a\": 0, \"b\": 1, \"ab\": 2, \"-\": 3, \"ba\": 4", "\"a b\", \"b a\"", "") ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"b+(?=a)|-\"}, \"behavior\": \"Isolated\"}}", "aba-bab",
      "0 1 0 3 1 2", NULL },
};

static void tiny_tokenizers_do_what_their_files_say(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof tiny / sizeof *tiny; i++) {
        const hd_tokenizer *t = tokenizer_of(tiny[i].json);
        const char *ids = encoded(t, tiny[i].text, true);
        if (strcmp(ids, tiny[i].ids)) fail_msg("%s: \"%s\" gives %s, expected %s", tiny[i].why, tiny[i].text, ids, tiny[i].ids);
        const char *back = tiny[i].back ? decoded(t, ids, false) : NULL;
        if (back && strcmp(back, tiny[i].back)) fail_msg("%s: %s decodes to \"%s\", expected \"%s\"", tiny[i].why, ids, back, tiny[i].back);
    }
}

/* A piece of a SentencePiece model, as its protocol buffer has it. */
static void add_piece(hd_text *out, const char *name, float score, int type)
{
    const char n = (char)strlen(name);
    hd_text_addn(out, (const char[]){ '\n', (char)(n + 9), '\n', n }, 4);
    hd_text_addn(out, name, (size_t)n);
    hd_text_addn(out, "\x15", 1);
    hd_text_addn(out, (const char *)&score, 4);
    hd_text_addn(out, (const char[]){ 0x18, (char)type }, 2);
}

/* SentencePiece's BPE has no merges: neighbours whose piece has the highest score are joined, the first of equals. */
static void pieces_of_a_bpe_model_are_joined_by_their_scores(void **state)
{
    (void)state;
    hd_text model = { 0 };
    static const struct { const char *name; float score; int type; } pieces[] = { { "<unk>", 0, 2 }, { "\u2581", -5, 1 }, { "a", -6, 1 }, { "b", -7, 1 }, { "ab", -2, 1 }, { "\u2581a", -1, 1 }, { "\u2581ab", -3, 1 }, { "aa", -2.5f, 1 },
                                                                                  { "aaa", -0.5f, 1 }, { "<0xC3>", 0, 6 }, { "<0xA9>", 0, 6 } };
    for (unsigned i = 0; i < sizeof pieces / sizeof *pieces; i++) add_piece(&model, pieces[i].name, pieces[i].score, pieces[i].type);
    hd_text_addn(&model, "\x12\x05\x18\x02\x98\x02\x01", 7);      /* trainer_spec: BPE, byte_fallback */
    hd_write_file(HERE "/bpe.model", model.data, model.length);
    const hd_tokenizer *t = hd_tokenizer_load(HERE "/bpe.model", NULL);
    assert_string_equal(encoded(t, "ab bab  a\u00e9", false), "6 1 3 4 5 9 10");
    assert_string_equal(encoded(t, "baaaab", false), "1 3 8 4");
    assert_string_equal(decoded(t, "6 1 3 4 5 9 10", false), "ab bab a\u00e9");
}

/* Matches longer than the stack of PCRE2's machine code are found too; a pattern that backtracks without end is an error, not a wait. */
static void long_matches_of_regular_expressions_are_found(void **state)
{
    (void)state;
    static char text[300001];
    const int32_t *ids;
    for (int i = 0; i < 300000; i++) text[i] = "ab"[i & 1];
    hd_encoder *e = encoder_of(tokenizer_of("{" BPE("\"a\": 0, \"b\": 1", "", "") ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?:(a)|(b))+\"}, \"behavior\": \"Isolated\"}}"));
    assert_int_equal(hd_encode(e, text, 300000, false, &ids), 300000);
    hd_encoder_free(e);
    e = encoder_of(tokenizer_of("{" BPE("\"a\": 0, \"b\": 1", "", "") ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?:(a|b)+)+(?=c)\"}, \"behavior\": \"Isolated\"}}"));
    assert_int_equal(hd_encode(e, text, 100, false, &ids), -1);
    hd_encoder_free(e);
}

/* OPT's folder: what stands beside vocab.json decides which token begins a text, and which are special. */
static void files_beside_a_vocabulary_are_read(void **state)
{
    (void)state;
    static const struct { const char *name, *text; } files[] = {
        { "vocab.json", "{\"</s>\": 0, \"a\": 1, \"b\": 2, \"ab\": 3, \"\u0120\": 4, \"\u0120a\": 5}" }, { "merges.txt", "#version: 0.2\na b\n\u0120 a\n" }, { "added_tokens.json", "{\"<new>\": 6}" },
        { "special_tokens_map.json", "{\"bos_token\": {\"content\": \"</s>\", \"lstrip\": false}, \"pad_token\": \"<pad>\"}" },
        { "tokenizer_config.json", "{\"add_bos_token\": true, \"add_prefix_space\": true, \"bos_token\": {\"content\": \"</s>\"}}" } };
    make_folder(HERE "/beside");
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) hd_write_file(hd_format(HERE "/beside/%s", files[i].name), files[i].text, strlen(files[i].text));
    const hd_tokenizer *t = hd_tokenizer_load(HERE "/beside", NULL);
    assert_string_equal(encoded(t, "ab ab</s>b<new>", true), "0 4 3 4 3 0 4 2 6");
    assert_string_equal(decoded(t, "0 5 2 6", true), " ab<new>");
    make_folder(HERE "/lower");
    hd_write_file(HERE "/lower/vocab.txt", "[UNK]\na\nA\n", 10);
    assert_string_equal(encoded(hd_tokenizer_load(HERE "/lower", NULL), "A a", false), "2 1");
    hd_write_file(HERE "/lower/tokenizer_config.json", "{\"do_lower_case\": true}", 23);
    assert_string_equal(encoded(hd_tokenizer_load(HERE "/lower", NULL), "A a", false), "1 1");
}

/* Behaviours of Split and Punctuation, each by the pieces it makes of one text. */
static void splits_keep_or_drop_what_they_match(void **state)
{
    (void)state;
    static const struct { const char *behaviour, *pieces; } cases[] = {
        { "Removed", "a|b|c" }, { "Isolated", "a|-|-|b|-|c" }, { "MergedWithPrevious", "a-|-|b-|c" }, { "MergedWithNext", "a|-|-b|-c" }, { "Contiguous", "a|--|b|-|c" } };
    for (unsigned i = 0; i < 5; i++)
        for (int how = 0; how < 3; how++) {
            const char *pattern = how == 2 ? hd_format("{\"type\": \"Punctuation\", \"behavior\": \"%s\"}", cases[i].behaviour)
                                           : hd_format("{\"type\": \"Split\", \"pattern\": {\"%s\": \"-\"}, \"behavior\": \"%s\"}", how ? "Regex" : "String", cases[i].behaviour);
            const hd_tokenizer *t = tokenizer_of(hd_format("{" BPE("\"a\": 0", "", "") ", \"pre_tokenizer\": %s}", pattern));
            hd_encoder *e = encoder_of(t);
            const int64_t *end;
            const char *text = "a--b-c";
            const int64_t n = hd_encoder_split(e, text, 6, &end);
            hd_text out = { 0 };
            for (int64_t k = 0; k < n; k += 2) hd_text_add(&out, "%s%.*s", k ? "|" : "", (int)(end[k + 1] - end[k]), text + end[k]);
            if (strcmp(out.data, cases[i].pieces)) fail_msg("%s: %s, expected %s", pattern, out.data, cases[i].pieces);
            hd_encoder_free(e);
        }
}

/* ---- against independent machines ---- */

static uint32_t dice(uint32_t *state, uint32_t sides)
{
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(*state >> 8) * sides >> 24);
}

/* Characters of every kind that splitters tell apart: letters of all cases and scripts, marks, numbers, white space, line ends, marks of writing. */
static const char *const alphabet[] = { "a", "b", "s", "t", "re", "ve", "ll", "m", "d", "S", "LL", "D", "X", "\u00e9", "\u00c9", "\u0161", "\u017f", "\u01c5", "\u02b0", "\u4e2d", "\u0e01", "\u05d0", "e\u0301", "\u0301", "\u0903",
                                        "\u20dd", "0", "7", "12", "\u0663", "\u00bd", "\u2167", " ", " ", "  ", "\n", "\r", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\xc2\x85", "'", "'s", "'RE", "\u2019", ".", ",", "!", "...", "/",
                                        "-", "_", "(", ")", "|", "\u2026", "\u3002", "\u060c", "$", "+", "^", "\U0001f999", "\u2603", "\u200d", "\ufeff", "\u2160", "\u24b6" };

static char *random_text(uint32_t *state, hd_text *out)
{
    out->length = 0;
    hd_text_add(out, "%s", "");
    for (uint32_t n = 1 + dice(state, 14); n; n--) hd_text_add(out, "%s", alphabet[dice(state, sizeof alphabet / sizeof *alphabet)]);
    return out->data;
}

#define ANY_CASE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPERS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWERS "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define ONE "[^\\r\\n\\p{L}\\p{N}]?"
#define REST "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const struct { const char *why, *pattern, *pcre2; } known_patterns[] = {
    { "GPT-2", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", NULL },
    { "Llama 3", ANY_CASE "|" ONE "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" REST, NULL },
    { "Qwen 2", ANY_CASE "|" ONE "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" REST, NULL },
    { "numbers whole", ANY_CASE "|" ONE "\\p{L}+|\\p{N}+| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" REST, NULL },
    { "GPT-4o", ONE UPPERS "*" LOWERS "+" ANY_CASE "?|" ONE UPPERS "+" LOWERS "*" ANY_CASE "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" REST, NULL },
    { "Tekken", ONE UPPERS "*" LOWERS "+|" ONE UPPERS "+" LOWERS "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" REST, NULL },
    { "BLOOM", " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+", " ?[^\\s(|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+" },
};

static const char *json_text(const char *text)
{
    json_t *value = json_string(text);
    char *dump = json_dumps(value, JSON_ENCODE_ANY);
    const char *out = hd_strdup(dump);
    free(dump);
    json_decref(value);
    return out;
}

/* A piece ends where a match or the gap before one ends. */
static int64_t pieces_by_regex(void *regex, const char *text, size_t bytes, int64_t *ends)
{
    size_t at = 0, start, end;
    int64_t count = 0;
    while (at < bytes && hd_regex_pcre2.match(regex, text, bytes, at, &start, &end) == 1) {
        if (start > at) ends[count++] = (int64_t)start;
        ends[count++] = (int64_t)end;
        at = end;
    }
    if (at < bytes) ends[count++] = (int64_t)bytes;
    return count;
}

static void splitters_by_hand_cut_where_their_regular_expressions_match(void **state)
{
    (void)state;
    uint32_t seed = 1;
    hd_text room = { 0 };
    for (unsigned k = 0; k < sizeof known_patterns / sizeof *known_patterns; k++) {
        bool regex = true;
        char error[128];
        const char *json = hd_format("{" BPE("\"a\": 0", "", "") ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": %s}, \"behavior\": \"Isolated\"}}", json_text(known_patterns[k].pattern));
        hd_write_file(HERE "/known.json", json, strlen(json));
        hd_encoder *e = encoder_of(hd_tokenizer_load(HERE "/known.json", &regex));
        assert_false(regex);                      /* it has a splitter of its own */
        const char *other = known_patterns[k].pcre2 ? known_patterns[k].pcre2 : known_patterns[k].pattern;
        void *machine = hd_regex_pcre2.compile(other, strlen(other), error, sizeof error);
        assert_non_null(machine);
        for (int i = 0; i < 40000; i++) {
            const char *text = random_text(&seed, &room);
            const size_t bytes = strlen(text);
            int64_t expected[256];
            const int64_t *end, wanted = pieces_by_regex(machine, text, bytes, expected), count = hd_encoder_split(e, text, bytes, &end) / 2;
            bool same = wanted == count;
            for (int64_t p = 0; same && p < count; p++) same = end[2 * p + 1] == expected[p] && end[2 * p] == (p ? expected[p - 1] : 0);
            if (same) continue;
            hd_text got = { 0 }, want = { 0 };
            for (int64_t p = 0; p < count; p++) hd_text_add(&got, "%lld ", (long long)end[2 * p + 1]);
            for (int64_t p = 0; p < wanted; p++) hd_text_add(&want, "%lld ", (long long)expected[p]);
            fail_msg("%s: %s is cut at %s, PCRE2 cuts at %s", known_patterns[k].why, json_text(text), got.data, want.data);
        }
        hd_regex_pcre2.free(machine);
        hd_encoder_free(e);
    }
}

static void normal_forms_are_those_of_utf8proc(void **state)
{
    (void)state;
    static const struct { const char *name; utf8proc_option_t how; } forms[] = {
        { "NFC", UTF8PROC_COMPOSE }, { "NFD", UTF8PROC_DECOMPOSE }, { "NFKC", UTF8PROC_COMPOSE | UTF8PROC_COMPAT }, { "NFKD", UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT } };
    static const uint32_t marks[] = { 0x300, 0x301, 0x327, 0x323, 0x308, 0x345, 0x3099, 0x5b0, 0x1161, 0x11a8, 0x1100, 0xac00, 0x9bc, 0x1d165, 0x915, 0x93c, 0x41, 0x61, 0x73, 0x20 };
    uint32_t seed = 7;
    for (unsigned f = 0; f < 4; f++) {
        hd_encoder *e = encoder_of(tokenizer_of(hd_format("{" BPE("\"a\": 0", "", "") ", \"normalizer\": {\"type\": \"%s\"}}", forms[f].name)));
        for (uint32_t point = 1; point < 0x30000 + 20000; point++) {
            unsigned char text[64];
            size_t bytes = 0;
            if (point >= 0xd800 && point < 0xe000) continue;
            bytes += (size_t)utf8proc_encode_char((utf8proc_int32_t)(point < 0x30000 ? point : marks[dice(&seed, 20)]), text);
            for (uint32_t n = dice(&seed, 5); n; n--) bytes += (size_t)utf8proc_encode_char((utf8proc_int32_t)marks[dice(&seed, 20)], text + bytes);
            utf8proc_uint8_t *wanted = NULL;
            const char *normal;
            const utf8proc_ssize_t n = utf8proc_map(text, (utf8proc_ssize_t)bytes, &wanted, UTF8PROC_STABLE | forms[f].how);
            const int64_t got = hd_encoder_normalise(e, (const char *)text, bytes, &normal);
            if (got != n || memcmp(normal, wanted, (size_t)n)) fail_msg("%s of U+%04X and others: %s becomes %.*s, not %s", forms[f].name, point, json_text(hd_format("%.*s", (int)bytes, text)), (int)got, normal, wanted);
            free(wanted);
        }
        hd_encoder_free(e);
    }
}

/* Merging as the definition says: of all neighbours that merge, the pair of the lowest rank, the first of equals. */
static const char *merged_by_definition(const char *text, int letters, int merges, int (*merge)[2])
{
    int id[512], count = (int)strlen(text);
    hd_text out = { 0 };
    for (int i = 0; i < count; i++) id[i] = text[i] - 'a';
    for (;;) {
        int best = -1, best_rank = merges;
        for (int i = 0; i + 1 < count; i++)
            for (int r = 0; r < best_rank; r++) if (merge[r][0] == id[i] && merge[r][1] == id[i + 1]) best = i, best_rank = r;
        if (best < 0) break;
        id[best] = letters + best_rank;
        memmove(id + best + 1, id + best + 2, sizeof *id * (size_t)(count - best - 2));
        count--;
    }
    hd_text_add(&out, "%s", "");
    for (int i = 0; i < count; i++) hd_text_add(&out, "%s%d", i ? " " : "", id[i]);
    return out.data;
}

static void short_and_long_pieces_are_merged_as_the_definition_says(void **state)
{
    (void)state;
    enum { LETTERS_OF = 3, MERGES = 24 };
    uint32_t seed = 3;
    for (int round = 0; round < 25; round++) {
        const char *name[LETTERS_OF + MERGES] = { "a", "b", "c" };
        int merge[MERGES][2], made = 0;
        hd_text vocab = { 0 }, list = { 0 };
        hd_text_add(&vocab, "\"a\": 0, \"b\": 1, \"c\": 2");
        while (made < MERGES) {
            const int left = (int)dice(&seed, (uint32_t)(LETTERS_OF + made)), right = (int)dice(&seed, (uint32_t)(LETTERS_OF + made));
            const char *both = hd_format("%s%s", name[left], name[right]);
            bool there = false;
            for (int i = 0; i < LETTERS_OF + made; i++) there = there || !strcmp(name[i], both);
            if (there || strlen(both) > 12) continue;
            hd_text_add(&vocab, ", \"%s\": %d", both, LETTERS_OF + made);
            hd_text_add(&list, "%s\"%s %s\"", made ? ", " : "", name[left], name[right]);
            merge[made][0] = left, merge[made][1] = right;
            name[LETTERS_OF + made++] = both;
        }
        const hd_tokenizer *t = tokenizer_of(hd_format("{\"model\": {\"type\": \"BPE\", \"vocab\": {%s}, \"merges\": [%s]}}", vocab.data, list.data));
        for (int i = 0; i < 200; i++) {
            char text[301];
            const uint32_t length = 1 + dice(&seed, i % 4 ? 40 : 300);      /* long ones take the heap */
            for (uint32_t c = 0; c < length; c++) text[c] = (char)('a' + dice(&seed, LETTERS_OF));
            text[length] = 0;
            const char *got = encoded(t, text, false), *wanted = merged_by_definition(text, LETTERS_OF, MERGES, merge);
            if (strcmp(got, wanted)) fail_msg("\"%s\" gives %s, by definition %s", text, got, wanted);
        }
    }
}

/* The best sum over all ways to cut a text into tokens, an unknown letter costing its own. */
static double best_sum(const char *text, int tokens, const char *const *name, const double *score, double unknown)
{
    double best[64] = { 0 };
    for (int end = 1; text[end - 1]; end++) {
        best[end] = -1e9;
        for (int k = 0; k < tokens; k++) {
            const int n = (int)strlen(name[k]);
            if (n <= end && !strncmp(text + end - n, name[k], (size_t)n) && best[end - n] + score[k] > best[end]) best[end] = best[end - n] + score[k];
        }
        if (best[end - 1] + unknown > best[end]) best[end] = best[end - 1] + unknown;
    }
    return best[strlen(text)];
}

static void unigram_finds_the_most_probable_pieces(void **state)
{
    (void)state;
    enum { TOKENS = 14 };
    uint32_t seed = 11;
    for (int round = 0; round < 30; round++) {
        const char *name[TOKENS];
        double score[TOKENS], least = 0;
        hd_text vocab = { 0 };
        hd_text_add(&vocab, "[\"<unk>\", 0]");
        for (int k = 0; k < TOKENS; k++) {
            char text[8];
            bool there = true;
            while (there) {
                const uint32_t n = 1 + dice(&seed, 4);
                for (uint32_t c = 0; c < n; c++) text[c] = (char)('a' + dice(&seed, 3));
                text[n] = 0, there = false;
                for (int i = 0; i < k; i++) there = there || !strcmp(text, name[i]);
            }
            name[k] = hd_strdup(text), score[k] = -1 - dice(&seed, 1000) / 100.0;
            least = score[k] < least ? score[k] : least;
            hd_text_add(&vocab, ", [\"%s\", %.2f]", name[k], score[k]);
        }
        const hd_tokenizer *t = tokenizer_of(hd_format("{\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [%s]}}", vocab.data));
        hd_encoder *e = encoder_of(t);
        for (int i = 0; i < 300; i++) {
            char text[40];
            const uint32_t length = 1 + dice(&seed, 30);
            for (uint32_t c = 0; c < length; c++) text[c] = (char)('a' + dice(&seed, 3));
            text[length] = 0;
            const int32_t *ids;
            const int64_t count = hd_encode(e, text, length, false, &ids);
            double sum = 0;
            size_t at = 0;
            bool fits = true;
            for (int64_t k = 0; k < count; k++) {
                if (!ids[k]) continue;
                sum += score[ids[k] - 1];
                const char *found = strstr(text + at, name[ids[k] - 1]);
                fits = fits && found;
                at = found ? (size_t)(found - text) + strlen(name[ids[k] - 1]) : at;
            }
            size_t covered = 0;
            for (int64_t k = 0; k < count; k++) covered += ids[k] ? strlen(name[ids[k] - 1]) : 0;
            sum += (double)(length - covered) * (least - 10);
            const double best = best_sum(text, TOKENS, name, score, least - 10);
            if (!fits || sum < best - 1e-9) fail_msg("\"%s\": %s has the sum %g, the best is %g", text, ids_text(ids, count), sum, best);
        }
        hd_encoder_free(e);
    }
}

/* ---- decoding token by token ---- */

static void a_stream_gives_whole_characters_and_marks_what_is_none(void **state)
{
    (void)state;
    /* every byte is a token of its own: characters come apart */
    hd_text vocab = { 0 };
    for (int b = 0; b < 256; b++) {
        unsigned char letter[8] = { 0 };
        utf8proc_encode_char((utf8proc_int32_t)hd_byte_letter((unsigned char)b), letter);
        hd_text_add(&vocab, "%s%s: %d", b ? ", " : "", json_text((const char *)letter), b);
    }
    const hd_tokenizer *t = tokenizer_of(hd_format("{\"model\": {\"type\": \"BPE\", \"vocab\": {%s}, \"merges\": []}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"decoder\": {\"type\": \"ByteLevel\"}}", vocab.data));
    static const struct { const char *bytes, *shown; } cases[] = {
        { "a\u00e9\u20ac\U0001f999z", "a\u00e9\u20ac\U0001f999z" }, { "\xe2\x82", "\ufffd" }, { "\xe2\x82" "a", "\ufffd" "a" }, { "\xff\xfe", "\ufffd\ufffd" }, { "\xf0\x9f\xa6", "\ufffd" }, { "\xc3(", "\ufffd(" }, { "\xed\xa0\x80", "\ufffd\ufffd\ufffd" },
        { "\xe2\xe2\x82\xac", "\ufffd\u20ac" }, { "\xf0\x9f\xc3\xa9", "\ufffd\u00e9" } };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        hd_stream s = { .tokenizer = t };
        hd_text out = { 0 };
        char *room = hd_alloc(hd_stream_room(t));
        hd_text_add(&out, "%s", "");
        for (const unsigned char *b = (const unsigned char *)cases[i].bytes; *b; b++) {
            const size_t n = hd_stream_put(&s, *b, room);
            for (size_t k = 0; k < n;) {
                utf8proc_int32_t point;
                const utf8proc_ssize_t m = utf8proc_iterate((const utf8proc_uint8_t *)room + k, (utf8proc_ssize_t)(n - k), &point);
                if (m < 1) fail_msg("case %u: a part that is no text came out", i);
                k += (size_t)m;
            }
            hd_text_addn(&out, room, n);
        }
        hd_text_addn(&out, room, hd_stream_put(&s, -1, room));
        if (strcmp(out.data, cases[i].shown)) fail_msg("case %u: \"%s\" came out, expected \"%s\"", i, out.data, cases[i].shown);
    }
}

/* ---- wrong files: one line that names the file and what is wrong; asked of heddle itself, whose spec names the tokenizer ---- */

#define TINY_SPEC "local hd = require \"heddle\"\nlocal c = hd.config { length = 16, width = 8, vocab = 16, batch = 2, tokenizer = \"bad.json\" }\nlocal t = hd.input(\"tokens\", { c.batch, c.length }, \"i32\")\n" \
    "local x = hd.embedding(hd.param(\"wte\", { c.vocab, c.width }, hd.normal(0.02)), t)\nlocal s = hd.scope(\"h\")\nlocal q, k, v = hd.split(s:linear(\"qkv\", x, 3 * c.width), 3)\n" \
    "x = x + s:linear(\"proj\", hd.attention(q, k, v, { heads = 1, pattern = hd.pattern.causal() }), c.width)\n" \
    "return hd.language_model { name = \"tiny\", config = c, logits = s:linear(\"head\", x, c.vocab), tokenizer = c.tokenizer, training = hd.training { lr = 1e-2, warmup = 5, batch = 2 } }\n"

static const struct { const char *json, *says; } wrong[] = {
    { "", "bad.json:1: this is no JSON" },
    { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0", "bad.json:1: this is no JSON" },
    { "[]", "bad.json: this is no JSON object" },
    { "{}", "bad.json: it has no \"model\"" },
    { "{\"model\": {\"type\": \"Magic\", \"vocab\": {}}}", "model: \"Magic\" is not known; known: BPE, WordPiece, Unigram, WordLevel" },
    { "{" BPE("", "", "") "}", "vocabulary: it is empty" },
    { "{" BPE("\"a\": 0, \"b\": 2", "", "") "}", "vocabulary: no token has the id 1; ids must be 0 to 2 without a hole" },
    { "{" BPE("\"a\": 0, \"b\": 0", "", "") "}", "vocabulary: two tokens have the id 0: \"a\" and \"b\"" },
    { "{" BPE("\"a\": 0, \"a\": 1", "", "") "}", "bad.json:1: this is no JSON: duplicate object key" },
    { "{" BPE("\"a\": -1", "", "") "}", "vocabulary: \"a\" must be a whole number, 0 or more" },
    { "{" BPE("\"a\": 5000000", "", "") "}", "vocabulary: token \"a\" has the id 5000000; ids 0 to 1048575 are possible" },
    { "{" BPE("\"a\": 0, \"b\": 1", "\"a b\"", "") "}", "merges: merge 0, \"a b\": \"ab\" is no token of the vocabulary" },
    { "{" BPE("\"a\": 0, \"b\": 1", "\"a x\"", "") "}", "merges: merge 0, \"a x\": \"x\" is no token of the vocabulary" },
    { "{" BPE("\"a\": 0, \"b\": 1", "\"ab\"", "") "}", "merges: merge 0, \"ab\", is not two tokens with a blank between them" },
    { "{" BPE("\"a\": 0", "", ", \"dropout\": 0.1") "}", "model BPE: \"dropout\" is 0.1" },
    { "{" BPE("\"a\": 0", "", "") ", \"normalizer\": {\"type\": \"Upper\"}}", "normalizer: \"Upper\" is not known; known: Sequence, BertNormalizer" },
    { "{" BPE("\"a\": 0", "", "") ", \"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}}", "pre_tokenizer: \"UnicodeScripts\" is not known; known: Sequence, ByteLevel" },
    { "{" BPE("\"a\": 0", "", "") ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a\"}, \"behavior\": \"Isolated\"}}", "pre_tokenizer Split: the regular expression \"(a\" does not compile: missing closing parenthesis" },
    { "{" BPE("\"a\": 0", "", "") ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a[b]]\"}, \"behavior\": \"Isolated\"}}", "has a set inside a set" },
    { "{" BPE("\"a\": 0", "", "") ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Glued\"}}", "the behavior \"Glued\" is not known; known: Removed, Isolated" },
    { "{" BPE("\"a\": 0", "", "") ", \"post_processor\": {\"type\": \"Bracket\"}}", "post_processor: \"Bracket\" is not known" },
    { "{" BPE("\"a\": 0", "", "") ", \"post_processor\": {\"type\": \"RobertaProcessing\", \"sep\": [\"a\", 7], \"cls\": [\"a\", 0]}}", "post_processor: the id 7 is beyond the vocabulary, 0 to 0" },
    { "{" BPE("\"a\": 0", "", "") ", \"decoder\": {\"type\": \"CTC\"}}", "decoder: \"CTC\" is not known" },
    { "{" BPE("\"a\": 0", "", "") ", \"added_tokens\": [{\"id\": 0, \"content\": \"b\"}]}", "vocabulary: two tokens have the id 0" },
    { "{" BPE("\"a\": 0", "", "") ", \"added_tokens\": [{\"id\": 3, \"content\": \"b\"}]}", "vocabulary: no token has one of the ids 1 to 2" },
    { "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 4, \"vocab\": [[\"a\", -1]]}}", "model Unigram: \"unk_id\" 4 is beyond the vocabulary, 0 to 0" },
    { "{\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"vocab\": {\"a\": 0}}}", "model WordPiece: \"unk_token\" is no token of the vocabulary" },
    { "{" BPE("\"a\": 0, \"b\": 1, \"c\": 2, \"d\": 3, \"e\": 4, \"f\": 5, \"g\": 6, \"h\": 7, \"i\": 8, \"j\": 9, \"k\": 10, \"l\": 11, \"m\": 12, \"n\": 13, \"o\": 14, \"p\": 15, \"q\": 16", "", "") "}",
      "has 17 tokens, the logits have 16; they must be as many or more" },
};

static void wrong_files_are_refused_with_one_line(void **state)
{
    (void)state;
    hd_write_file(HERE "/bad.lua", TINY_SPEC, strlen(TINY_SPEC));
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        hd_write_file(HERE "/bad.json", wrong[i].json, strlen(wrong[i].json));
        refused(wrong[i].says, "%s build %s/bad.lua -o %s/program", heddle(), HERE, HERE);
        if (access(HERE "/program", F_OK) == 0) fail_msg("%s left a program", wrong[i].json);
    }
    refused("there is no tokenizer of this name", "%s build %s/bad.lua -D tokenizer=nowhere -o %s/program", heddle(), HERE, HERE);
    make_folder(HERE "/empty");
    refused("the folder holds no tokenizer", "%s build %s/bad.lua -D tokenizer=empty -o %s/program", heddle(), HERE, HERE);
    static const struct { const char *name, *text, *says; } others[] = {
        { "vocab.txt", "[UNK]\n\na\n", "vocab.txt:2: vocabulary: the line is empty" }, { "vocab.txt", "a\n[UNK]\na\n", "the token \"a\" has two ids, 0 and 2" }, { "vocab.txt", "a\nb\n", "it has no token [UNK]" },
        { "tokenizer.model", "\n\x7f" "abc", "the SentencePiece model is damaged" } };
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
        hd_write_file(hd_format("%s/%s", HERE, others[i].name), others[i].text, strlen(others[i].text));
        refused(others[i].says, "%s build %s/bad.lua -D tokenizer=%s -o %s/program", heddle(), HERE, others[i].name, HERE);
    }
    must("truncate -s 3G " HERE "/tokenizer.model");
    refused("tokenizer.model: is larger than 256 MiB", "%s build %s/bad.lua -D tokenizer=tokenizer.model -o %s/program", heddle(), HERE, HERE);
    must("rm " HERE "/tokenizer.model");
    hd_write_file(HERE "/empty/vocab.json", "{\"a\": 0, \"b\": 1}", 16);
    hd_write_file(HERE "/empty/merges.txt", "#version: 0.2\na b c\n", 20);
    refused("merges.txt:2: this is not two tokens with a blank between them", "%s build %s/bad.lua -D tokenizer=empty -o %s/program", heddle(), HERE, HERE);
    hd_write_file(HERE "/empty/merges.txt", "#version: 0.2\na b\n", 18);
    refused("merges.txt: merges: merge 0, \"a b\": \"ab\" is no token", "%s build %s/bad.lua -D tokenizer=empty -o %s/program", heddle(), HERE, HERE);
}

/* ---- programs ---- */

static void programs_take_text_through_their_tokenizer(void **state)
{
    (void)state;
    static const char json[] = "{" BPE("\"w\": 0, \"e\": 1, \"f\": 2, \"t\": 3, \" \": 4, \"a\": 5, \"r\": 6, \"p\": 7, \"\\n\": 8, \"we\": 9, \"ft\": 10, \"weft\": 11, \"wa\": 12, \"rp\": 13, \"warp\": 14, \"<s>\": 15", "\"w e\", \"f t\", \"we ft\", \"w a\", \"r p\", \"wa rp\"", "")
        ", \"added_tokens\": [{\"id\": 15, \"content\": \"<s>\", \"special\": true}], \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a-z]+|.|\\\\n\"}, \"behavior\": \"Isolated\"},"
        " \"decoder\": {\"type\": \"Fuse\"}, \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [15], \"tokens\": [\"<s>\"]}}}}";
    hd_text text = { 0 };
    for (int i = 0; i < 300; i++) hd_text_add(&text, "%s", i % 3 ? "warp weft\n" : "weft warp warp\n");
    hd_write_file(HERE "/text.txt", text.data, text.length);
    hd_write_file(HERE "/words.json", json, sizeof json - 1);
    hd_write_file(HERE "/tiny.lua", TINY_SPEC, strlen(TINY_SPEC));
    must("%s build %s/tiny.lua -D tokenizer=words.json -o %s/tiny%s", heddle(), HERE, HERE, sanitize());
    hd_write_file(HERE "/line.txt", "warp weft<s>", 12);
    must("%s/tiny tokenize %s/line.txt", HERE, HERE);
    assert_string_equal(said, "14 4 11 15\n");
    must("%s/tiny tokenize --special %s/line.txt", HERE, HERE);
    assert_string_equal(said, "15 14 4 11 15\n");
    hd_write_file(HERE "/ids.txt", "14 4 11 15", 10);
    must("%s/tiny tokenize --text %s/ids.txt", HERE, HERE);
    assert_string_equal(said, "warp weft<s>");
    hd_write_file(HERE "/ids.txt", "14 16", 5);
    refused("ids.txt: item 1 is 16; the tokenizer's ids are 0 to 15", "%s/tiny tokenize --text %s/ids.txt", HERE, HERE);
    must("%s/tiny train --data %s/text.txt --steps 30 --out %s/w.safetensors --threads 1", HERE, HERE, HERE);
    must("%s/tiny eval --data %s/text.txt --weights %s/w.safetensors --held-out 0.1 --json --threads 1", HERE, HERE, HERE);
    json_t *line = json_loads(said, 0, NULL);
    assert_non_null(line);
    const double per_byte = json_number_value(json_object_get(line, "bits_per_byte")), per_token = json_number_value(json_object_get(line, "bits_per_token"));
    const double bytes = json_number_value(json_object_get(line, "bytes")), tokens = json_number_value(json_object_get(line, "tokens"));
    if (!(bytes > 300 && bytes < 500 && tokens < bytes / 2)) fail_msg("%g bytes, %g tokens: %s", bytes, tokens, said);
    if (!(per_byte * bytes > 0.999999 * per_token * tokens && per_byte * bytes < 1.000001 * per_token * tokens)) fail_msg("%s", said);
    must("%s/tiny sample --weights %s/w.safetensors --prompt 'warp ' --tokens 6 --temperature 0 --threads 1", HERE, HERE);
    if (strncmp(said, "warp w", 6)) fail_msg("%s", said);
    must("%s/tiny sample --weights %s/w.safetensors --prompt 'warp ' --tokens 6 --temperature 0 --threads 1 --stop eft --stop '<s>'", HERE, HERE);
    if (strncmp(said, "warp w", 6) || strstr(said, "eft")) fail_msg("a stop string inside a token: %s", said);
    must("%s/tiny sample --weights %s/w.safetensors --prompt 'warp \xff\xfe' --tokens 0 --threads 1", HERE, HERE);
    assert_says("warning: --prompt: byte 5 is no UTF-8; this tokenizer reads such bytes as U+FFFD\n");
    if (strstr(strchr(said, '\n'), "warning")) fail_msg("a second warning: %s", said);
    json_decref(line);
    must("%s/tiny info", HERE);
    assert_says("tokenizer: 16 tokens");
    must("%s/tiny attention --weights %s/w.safetensors --prompt 'warp weft' -o %s/page.html --threads 1", HERE, HERE, HERE);
    assert_non_null(strstr(text_of(HERE "/page.html"), "\"texts\":[\"\\u003cs\\u003e\",\"warp\",\" \",\"weft\"]"));
}

static int prepare(void **state) { (void)state; return make_folder(HERE); }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_gives_the_published_ids),
        cmocka_unit_test(bert_of_small_letters_gives_the_published_ids),
        cmocka_unit_test(bert_of_a_tokenizer_json_gives_the_published_ids),
        cmocka_unit_test(a_sentencepiece_model_gives_the_published_ids),
        cmocka_unit_test(byte_level_text_comes_back_whatever_its_bytes),
        cmocka_unit_test(text_of_other_tokenizers_comes_back_once_it_is_normal),
        cmocka_unit_test(tiny_tokenizers_do_what_their_files_say),
        cmocka_unit_test(pieces_of_a_bpe_model_are_joined_by_their_scores),
        cmocka_unit_test(long_matches_of_regular_expressions_are_found),
        cmocka_unit_test(files_beside_a_vocabulary_are_read),
        cmocka_unit_test(splits_keep_or_drop_what_they_match),
        cmocka_unit_test(splitters_by_hand_cut_where_their_regular_expressions_match),
        cmocka_unit_test(normal_forms_are_those_of_utf8proc),
        cmocka_unit_test(short_and_long_pieces_are_merged_as_the_definition_says),
        cmocka_unit_test(unigram_finds_the_most_probable_pieces),
        cmocka_unit_test(a_stream_gives_whole_characters_and_marks_what_is_none),
        cmocka_unit_test(wrong_files_are_refused_with_one_line),
        cmocka_unit_test(programs_take_text_through_their_tokenizer),
    };
    choose_tests(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, prepare, NULL);
}
