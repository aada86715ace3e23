/* Text and tokens (text.h). */
#include "text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "progress.h"
#include "tokenizer_parts.h"

hd_encoder *hd_text_encoder(const char *command)
{
    if (!hd_model.tokenizer) hd_app_fail("%s: %s was built without a tokenizer; hd.language_model { tokenizer = FILE } names one", command, hd_model.name);
    hd_encoder *encoder = hd_encoder_new(hd_model.tokenizer, hd_model.tokenizer_regex);
    if (!encoder) hd_app_fail("out of memory for the tokenizer");
    return encoder;
}

int64_t hd_text_append(hd_encoder *encoder, const char *path, const char *text, size_t bytes, int32_t **ids, int64_t count)
{
    const int32_t *made;
    const int64_t more = hd_encode(encoder, text, bytes, false, &made);
    int32_t *all = more < 0 ? NULL : realloc(*ids, (size_t)(count + more + 1) * sizeof *all);
    if (!all) hd_app_fail("%s: %zu bytes of text cannot become tokens: out of memory, or the tokenizer's regular expression backtracks without end", path, bytes);
    if (more) memcpy(all + count, made, (size_t)more * sizeof *all);
    *ids = all;
    return more;
}

static int64_t listed_ids(const char *from, const char *text, size_t bytes, int32_t *out)
{
    int64_t count = 0;
    char *copy = hd_app_alloc(bytes + 1), *end;
    memcpy(copy, text, bytes);
    for (char *at = copy; *(at += strspn(at, " ,\t\r\n")); at = end) {
        long id = strtol(at, &end, 10);
        if (end == at) hd_app_fail("%s: this model reads token ids: whole numbers with spaces between them", from);
        out[count++] = id < 0 || id > INT_MAX ? -1 : (int32_t)id;
    }
    free(copy);
    return count;
}

/* Prompts alone: what is learnt from may be anything. */
static void warn_unless_utf8(const char *from, const char *text, size_t bytes)
{
    static bool warned;
    if (hd_model.tokenizer->flags & HD_TOKENS_BYTES || warned) return;
    unsigned length;
    for (size_t i = 0; i < bytes && !warned; i += length)
        if (hd_utf8((const unsigned char *)text + i, (const unsigned char *)text + bytes, &length) == HD_NOT_UTF8) {
            fprintf(stderr, "warning: %s: byte %zu is no UTF-8; this tokenizer reads such bytes as U+FFFD\n", from, i);
            warned = true;
        }
}

int64_t hd_text_ids(const char *from, const char *text, size_t bytes, int32_t **ids)
{
    int64_t count = 0;
    if (hd_model.tokenizer) {
        const hd_tokenizer *t = hd_model.tokenizer;
        hd_encoder *encoder = hd_text_encoder(from);
        warn_unless_utf8(from, text, bytes);
        *ids = hd_app_alloc((t->before.count + 1) * sizeof **ids);
        for (; count < t->before.count; count++) (*ids)[count] = (int32_t)HD_AT(t, before, uint32_t)[count];
        count += hd_text_append(encoder, from, text, bytes, ids, count);
        hd_encoder_free(encoder);
        return count;
    }
    *ids = hd_app_alloc((bytes + 1) * sizeof **ids);
    if (hd_app_bytes()) for (; count < (int64_t)bytes; count++) (*ids)[count] = (unsigned char)text[count];
    else count = listed_ids(from, text, bytes, *ids);
    for (int64_t i = 0; i < count; i++)
        if ((*ids)[i] < 0 || (*ids)[i] >= hd_model.ids) hd_app_fail("%s: item %lld is outside the vocabulary, 0 to %lld", from, (long long)i, (long long)hd_model.ids - 1);
    return count;
}

size_t hd_text_room(void) { return hd_model.tokenizer ? hd_stream_room(hd_model.tokenizer) : 16; }

size_t hd_text_put(hd_text_writer *w, int32_t id, char *out)
{
    if (hd_model.tokenizer) {
        if (!w->stream.tokenizer) w->stream = (hd_stream){ .tokenizer = hd_model.tokenizer, .skip = true };
        return hd_stream_put(&w->stream, id, out);
    }
    if (id < 0) return 0;
    if (!hd_app_bytes()) return (size_t)snprintf(out, hd_text_room(), "%d ", id);
    *out = (char)id;
    return 1;
}

size_t hd_text_character(const char *text, size_t bytes)
{
    unsigned length;
    return hd_utf8((const unsigned char *)text, (const unsigned char *)text + bytes, &length) == HD_NOT_UTF8 ? 0 : length;
}

void hd_text_show(const char *text, size_t bytes)
{
    const bool terminal = hd_progress_terminal(stdout);
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char c = (unsigned char)text[i];
        const bool order = c < 32 ? c != '\n' && c != '\t' : c == 127;
        putchar(order && terminal ? '?' : c);
    }
    fflush(stdout);
}
