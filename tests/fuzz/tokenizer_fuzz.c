/* Damaged tokenizer files: whatever they hold, the reader refuses them with one line, or makes tables that encode and decode any text.
 *
 *   tokenizer_fuzz json|vocab|merges|model SECONDS [SEED [FILE...]]     (make fuzz: all kinds, sanitized)
 *
 * Each case is a seed file (built in, and those named) with a few random changes, read in a child of its own, because the reader ends the
 * process when it refuses. A child that dies by a signal, by a sanitizer, after 20 seconds, or with more than 2 GB of memory ends the run;
 * the case stays in build/fuzz. */
#include "../../compiler/tokenizer/tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0:exitcode=99:allocator_may_return_null=1"; }

static const char *const json_seeds[] = {
    "{\"model\": {\"type\": \"BPE\", \"unk_token\": \"<u>\", \"byte_fallback\": true, \"fuse_unk\": true, \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\u2581\": 3, \"<u>\": 4, \"<0xC3>\": 5, \"<0xA9>\": 6, \"\u2581a\": 7}, \"merges\": [\"a b\", [\"\u2581\", \"a\"]]},"
    " \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}]}, \"added_tokens\": [{\"id\": 4, \"content\": \"<u>\", \"special\": true}, {\"id\": 8,"
    " \"content\": \"xx\", \"single_word\": true, \"lstrip\": true, \"rstrip\": true, \"normalized\": true}], \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"\u2581\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"},"
    " {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}}",
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"\u0120\": 2, \"\u0120a\": 3, \"ab\": 4, \"<s>\": 5, \"</s>\": 6}, \"merges\": [\"\u0120 a\", \"a b\"], \"ignore_merges\": true}, \"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\":"
    " [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|\\\\s+\"}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"Digits\", \"individual_digits\": true}, {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"use_regex\": true}]},"
    " \"post_processor\": {\"type\": \"RobertaProcessing\", \"sep\": [\"</s>\", 6], \"cls\": [\"<s>\", 5]}, \"decoder\": {\"type\": \"ByteLevel\"}}",
    "{\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"?\", \"continuing_subword_prefix\": \"##\", \"max_input_chars_per_word\": 9, \"vocab\": {\"?\": 0, \"a\": 1, \"##b\": 2, \"##\u00e9\": 3}}, \"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": true,"
    " \"handle_chinese_chars\": true, \"strip_accents\": null, \"lowercase\": true}, \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, \"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true}, \"post_processor\": {\"type\": \"TemplateProcessing\","
    " \"single\": [{\"SpecialToken\": {\"id\": \"?\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"special_tokens\": {\"?\": {\"id\": \"?\", \"ids\": [0], \"tokens\": [\"?\"]}}}}",
    "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"byte_fallback\": false, \"vocab\": [[\"<unk>\", 0.0], [\"\u2581\", -2.5], [\"a\", -3], [\"\u2581ab\", -4]]}, \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Nmt\"}, {\"type\": \"NFKC\"}, {\"type\": \"Precompiled\","
    " \"precompiled_charsmap\": \"EAAAAAEAAAAAAgAAAIAAAGEAYgAAAA==\"}, {\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}, {\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, \"content\": \" \"}, {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a+?b\"}, \"content\": \"ab\"}]},"
    " \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": \"first\", \"split\": true}, \"decoder\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": \"first\"}}",
    ("{\"model\": {\"type\": \"WordLevel\", \"unk_token\": \"?\", \"vocab\": {\"?\": 0, \"a\": 1}}, \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKD\"}, {\"type\": \"StripAccents\"}, {\"type\": \"Lowercase\"}]}, \"pre_tokenizer\": {\"type\": \"Sequence\","
    " \"pretokenizers\": [{\"type\": \"Whitespace\"}, {\"type\": \"Punctuation\", \"behavior\": \"MergedWithNext\"}, {\"type\": \"CharDelimiterSplit\", \"delimiter\": \"-\"}, {\"type\": \"Split\", \"pattern\": {\"String\": \"b\"}, \"behavior\": \"Contiguous\"}, {\"type\": \"WhitespaceSplit\"}]}}"),
};
static const char *const vocab_seeds[] = { "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\nthe\n##\u00e9\n", "[UNK]\r\na\r\n" };
static const char *const merges_seeds[] = { "#version: 0.2\na b\nab c\n\u0120 a\n", "a b\n" };
static const char merges_vocab[] = "{\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"abc\": 4, \"\u0120\": 5, \"\u0120a\": 6, \"<|endoftext|>\": 7}";
static const char model_seed[] = "\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x0a\n\x03\xe2\x96\x81\x15\0\0\x20\xc0\n\x08\n\x01" "a\x15\0\0\x40\xc0\n\x0b\n\x04\xe2\x96\x81" "a\x15\0\0\x80\xc0\x12\x02\x18\x01\x1a\x06\x18\x01 \x01(\x01";

static const char *const words[] = { "\"type\"", "null", "true", "false", "-1", "0", "4294967296", "1e308", "[]", "{}", "\"\"", "\"\\u0000\"", "BPE", "Unigram", "WordPiece", "Sequence", "Split", "Regex", "String", "ByteLevel", "NFC", "Precompiled",
                                     "\xff", "\xe2\x96\x81", "<0xFF>", "##", "(?=", "[[", "\\\\p{L}", "(a+)+b", "{1,60000}", "\n", "\r\n", " ", "\x0a\xff\xff\xff\xff\x0f", "[CLS]", "\"merges\"", "\"vocab\"" };

static uint64_t state = 1;
static uint32_t dice(size_t sides)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return sides ? (uint32_t)((state >> 33) % sides) : 0;
}

typedef struct seed { const char *data; size_t bytes; } seed;

static size_t change(unsigned char *data, size_t bytes, size_t room)
{
    for (uint32_t n = 1 + dice(6); n; n--) {
        const size_t at = dice(bytes + 1);
        size_t length = 1 + dice(dice(4) ? 8 : 200);
        switch (dice(7)) {
        case 0: if (at < bytes) data[at] = (unsigned char)dice(256); break;
        case 1: if (at < bytes) data[at] ^= (unsigned char)(1u << dice(8)); break;
        case 2:
            if (length > bytes - at) length = bytes - at;
            memmove(data + at, data + at + length, bytes - at - length), bytes -= length;
            break;
        case 3: {                                 /* a part again, elsewhere */
            size_t from = dice(bytes + 1);
            if (length > bytes - from) length = bytes - from;
            if (bytes + length > room || !length) break;
            unsigned char part[256];
            memcpy(part, data + from, length);
            memmove(data + at + length, data + at, bytes - at);
            memcpy(data + at, part, length), bytes += length;
            break;
        }
        case 4: case 5: {
            const char *word = words[dice(sizeof words / sizeof *words)];
            length = strlen(word);
            if (bytes + length > room) break;
            if (dice(2)) memmove(data + at + length, data + at, bytes - at), bytes += length;
            else if (bytes - at < length) break;
            memcpy(data + at, word, length);
            break;
        }
        default: if (!dice(8)) bytes = at; break;
        }
    }
    return bytes;
}

/* Reads the file, then encodes and decodes text of all kinds; the ids must be the vocabulary's. */
static void use(const char *path)
{
    static const char text[] = " a ab  abc \u00e9e\u0301 \u2581x xx-x 'S don't 12345 \u4e2d\u6587\n\r\n \U0001f999\u200d\xff\xe2\x82 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbb <u><s>\0z";
    const hd_tokenizer *t = hd_tokenizer_load(path, NULL);
    hd_encoder *e = hd_encoder_new(t, &hd_regex_pcre2);
    const int32_t *ids;
    size_t bytes;
    if (!e) exit(1);
    const int64_t count = hd_encode(e, text, sizeof text, true, &ids);
    for (int64_t i = 0; i < count; i++) if (ids[i] < 0 || (uint32_t)ids[i] >= t->vocab) abort();
    char *out = hd_decode(t, ids, count, false, &bytes), *room = malloc(hd_stream_room(t));
    hd_stream s = { .tokenizer = t };
    for (int64_t i = 0; i <= count && room; i++) (void)hd_stream_put(&s, i < count ? ids[i] : -1, room);
    free(out), free(room);
    hd_encoder_free(e);
    exit(0);
}

static void write_case(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) fprintf(stderr, "%s: %s\n", path, strerror(errno)), exit(1);
}

int main(int argc, char **argv)
{
    enum { ROOM = 1 << 22 };
    const char *kind = argc > 1 ? argv[1] : "";
    static const struct { const char *kind, *file; } files[] = { { "json", "build/fuzz/tokenizer.json" }, { "vocab", "build/fuzz/vocab.txt" }, { "merges", "build/fuzz/merges.txt" }, { "model", "build/fuzz/tokenizer.model" } };
    const char *path = NULL;
    for (int i = 0; i < 4; i++) if (!strcmp(kind, files[i].kind)) path = files[i].file;
    if (argc < 3 || !path) return fprintf(stderr, "tokenizer_fuzz json|vocab|merges|model SECONDS [SEED [FILE...]]\n"), 1;
    state = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    mkdir("build", 0777), mkdir("build/fuzz", 0777);
    seed seeds[64];
    size_t count = 0;
    const bool merges = !strcmp(kind, "merges");
    const char *const *built = !strcmp(kind, "json") ? json_seeds : !strcmp(kind, "vocab") ? vocab_seeds : merges_seeds;
    if (!strcmp(kind, "model")) seeds[count++] = (seed){ model_seed, sizeof model_seed - 1 };
    else for (size_t i = 0; i < (built == json_seeds ? sizeof json_seeds / sizeof *json_seeds : 2); i++) seeds[count++] = (seed){ built[i], strlen(built[i]) };
    for (int i = 4; i < argc && count < 64; i++) {
        FILE *f = fopen(argv[i], "rb");
        char *data = malloc(ROOM / 2);
        if (!f || !data) return fprintf(stderr, "%s: %s\n", argv[i], strerror(errno)), 1;
        seeds[count++] = (seed){ data, fread(data, 1, ROOM / 2, f) };
        fclose(f);
    }
    if (merges) write_case("build/fuzz/vocab.json", merges_vocab, sizeof merges_vocab - 1);
    unsigned char *data = malloc(ROOM + 512);
    const time_t end = time(NULL) + atoi(argv[2]);
    long cases = 0, read = 0;
    while (data && time(NULL) < end) {
        const size_t which = dice(count);
        const seed *s = &seeds[which >= 5 && dice(8) ? dice(5) : which];      /* long files less often: they take longer */
        memcpy(data, s->data, s->bytes);
        write_case(path, data, change(data, s->bytes, ROOM));
        const pid_t child = fork();
        if (!child) {
            const int null = open("/dev/null", O_WRONLY);
            if (!getenv("FUZZ_LOUD")) dup2(null, 2);
            alarm(20);
            use(merges ? "build/fuzz/vocab.json" : path);
        }
        int status = 0;
        struct rusage used;
        wait4(child, &status, 0, &used);
        cases++;
        read += WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) > 1 || used.ru_maxrss > 2 << 20) {
            fprintf(stderr, "%s: case %ld of seed %s: status %d, signal %d, %ld KB; the file is %s\n", kind, cases, argc > 3 ? argv[3] : "1", WEXITSTATUS(status), WTERMSIG(status), used.ru_maxrss, path);
            return 1;
        }
    }
    printf("%s: %ld cases, of which %ld were read and used; no failure\n", kind, cases, read);
    return 0;
}
