/* Text and tokens (text.h). */
#include "text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "progress.h"

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

int64_t hd_text_ids(const char *from, const char *text, size_t bytes, int32_t **ids)
{
    int64_t count = 0;
    if (hd_model.tokenizer) {
        const hd_tokenizer *t = hd_model.tokenizer;
        hd_encoder *encoder = hd_text_encoder(from);
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

/* Control characters are no text, and would steer a terminal. */
static void print_byte(unsigned char byte)
{
    const bool order = byte < 32 ? byte != '\n' && byte != '\t' : byte == 127;
    putchar(order && hd_progress_terminal(stdout) ? '?' : byte);
}

void hd_text_print(hd_text_printer *p, int32_t id)
{
    if (hd_model.tokenizer) {
        if (!p->room) p->room = hd_app_alloc(hd_stream_room(hd_model.tokenizer)), p->stream = (hd_stream){ .tokenizer = hd_model.tokenizer, .skip = true };
        const size_t bytes = hd_stream_put(&p->stream, id, p->room);
        for (size_t i = 0; i < bytes; i++) print_byte((unsigned char)p->room[i]);
    } else if (id >= 0) {
        if (hd_app_bytes()) print_byte((unsigned char)id);
        else printf("%d ", id);
    }
    fflush(stdout);
}
