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

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_gives_the_published_ids),
        cmocka_unit_test(bert_of_small_letters_gives_the_published_ids),
        cmocka_unit_test(bert_of_a_tokenizer_json_gives_the_published_ids),
        cmocka_unit_test(a_sentencepiece_model_gives_the_published_ids),
    };
    choose_tests(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
