/* tokenize: text to ids and back by the model's tokenizer, for looking and for scripts. */
#include "app.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "text.h"

static char *read_input(size_t *bytes)
{
    size_t capacity = 1 << 16, got;
    char *text = malloc(capacity);
    *bytes = 0;
    while (text && (got = fread(text + *bytes, 1, capacity - *bytes, stdin)) > 0) {
        *bytes += got;
        if (*bytes < capacity) continue;
        char *more = realloc(text, capacity *= 2);
        if (!more) free(text);
        text = more;
    }
    if (!text) hd_app_fail("out of memory for what standard input holds");
    if (ferror(stdin)) hd_app_fail("standard input cannot be read");
    return text;
}

/* Ids to bytes, as they are: what hd_encode made comes back whole. */
static void decode(const char *from, const char *text, size_t bytes)
{
    int32_t *ids = hd_app_alloc((bytes / 2 + 1) * sizeof *ids);
    int64_t count = 0;
    char *copy = hd_app_alloc(bytes + 1), *end;
    memcpy(copy, text, bytes);
    for (char *at = copy; *(at += strspn(at, " ,\t\r\n[]")); at = end) {
        const long id = strtol(at, &end, 10);
        if (end == at) hd_app_fail("%s: item %lld is no id: whole numbers with spaces between them", from, (long long)count);
        if (id < 0 || id >= (long)hd_model.tokenizer->vocab) hd_app_fail("%s: item %lld is %ld; the tokenizer's ids are 0 to %u", from, (long long)count, id,
                                                                         hd_model.tokenizer->vocab - 1);
        ids[count++] = (int32_t)id;
    }
    size_t length;
    char *out = hd_decode(hd_model.tokenizer, ids, count, false, &length);
    if (!out) hd_app_fail("out of memory");
    fwrite(out, 1, length, stdout);
}

int hd_command_tokenize(int argc, char **argv)
{
    bool to_text = false, to_ids = false, special = false, time = false;
    const char *path = NULL;
    hd_option option[] = {
        { "ids", NULL, HD_OPTION_FLAG, &to_ids, 0, 0, "text to ids, with spaces between them (what is done unless --text)", false },
        { "text", NULL, HD_OPTION_FLAG, &to_text, 0, 0, "ids to text", false },
        { "special", NULL, HD_OPTION_FLAG, &special, 0, 0, "with the tokens that the tokenizer puts around a text", false },
        { "time", NULL, HD_OPTION_FLAG, &time, 0, 0, "print the number of ids and the speed instead", false },
    };
    hd_command command = { "tokenize", "[FILE]", "text to the tokenizer's ids, or back; from FILE or standard input", option, sizeof option / sizeof option[0], &path, 1 };
    hd_options_parse(&command, argc, argv);
    if (to_text && (to_ids || special || time)) hd_app_fail("tokenize: --text goes with no other flag");
    hd_encoder *encoder = hd_text_encoder("tokenize");
    const char *from = path ? path : "standard input";
    hd_file_map map = { 0 };
    if (path) map = hd_file_open(path);
    else map.data = (unsigned char *)read_input(&map.bytes);
    const char *text = map.data ? (const char *)map.data : "";
    if (to_text) {
        decode(from, text, map.bytes);
        return 0;
    }
    const int32_t *ids;
    const double started = hd_app_seconds();
    const int64_t count = hd_encode(encoder, text, map.bytes, special, &ids);
    const double seconds = hd_app_seconds() - started;
    if (count < 0) hd_app_fail("%s: %zu bytes of text cannot become tokens: out of memory, or the tokenizer's regular expression backtracks without end", from, map.bytes);
    if (time) printf("%lld tokens of %zu bytes, %.1f MB/s\n", (long long)count, map.bytes, (double)map.bytes / 1e6 / seconds);
    else for (int64_t i = 0; i < count; i++) printf("%d%c", ids[i], i + 1 < count ? ' ' : '\n');
    return 0;
}
