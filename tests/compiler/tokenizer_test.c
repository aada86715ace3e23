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
        cmocka_unit_test(splits_keep_or_drop_what_they_match),
    };
    choose_tests(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, prepare, NULL);
}
