/* compiler/base/base.h as fuzzing needs it: every block of the arena is one of the heap, so that the address sanitizer sees where
 * it ends and what was never written; failing comes back to the fuzzer instead of ending the process. Linked in place of base.c. */
#include "../../compiler/base/base.h"
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const size_t most_arena = (size_t)1 << 30;

void *hd_alloc(size_t bytes)
{
    if (bytes > most_arena || fuzz_arena_bytes() + bytes > most_arena) hd_fail((hd_where){ 0 }, "out of memory");
    return fuzz_alloc(bytes);
}

size_t hd_arena_used(void) { return fuzz_arena_bytes(); }

void *hd_grow(void *items, int count, int *capacity, size_t item_bytes)
{
    if (count < *capacity) return items;
    const int larger = *capacity ? 2 * *capacity : 8;
    if (larger <= count || fuzz_arena_bytes() + (size_t)larger * item_bytes > most_arena) hd_fail((hd_where){ 0 }, "out of memory");
    items = fuzz_grow(items, (size_t)*capacity * item_bytes, (size_t)larger * item_bytes);
    *capacity = larger;
    return items;
}

char *hd_strdup(const char *text)
{
    const size_t bytes = strlen(text) + 1;
    return memcpy(hd_alloc(bytes), text, bytes);
}

static char *format_text(const char *format, va_list list, int *length)
{
    va_list again;
    va_copy(again, list);
    *length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (*length < 0) abort();
    char *text = hd_alloc((size_t)*length + 1);
    vsnprintf(text, (size_t)*length + 1, format, list);
    return text;
}

char *hd_format(const char *format, ...)
{
    int length;
    va_list list;
    va_start(list, format);
    char *text = format_text(format, list, &length);
    va_end(list);
    return text;
}

/* Formats the message, too: what it names must be there. */
static void report(const char *kind, hd_where where, const char *format, va_list list)
{
    char line[8192];
    vsnprintf(line, sizeof line, format, list);
    fprintf(stderr, "%s:%d: %s%s\n", where.file ? where.file : "heddle", where.line, kind, line);
}

void hd_fail(hd_where where, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    report("", where, format, list);
    va_end(list);
    fuzz_leave(1);
}

void hd_warn(hd_where where, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    report("warning: ", where, format, list);
    va_end(list);
}

void hd_on_failure(void (*undo)(void *), void *argument) { (void)undo, (void)argument; }
void hd_set_child(void) { }

void hd_text_addn(hd_text *text, const char *bytes, size_t count)
{
    const size_t needed = text->length + count + 1;
    if (needed > text->capacity) {
        const size_t larger = 2 * text->capacity > needed ? 2 * text->capacity : needed;
        if (fuzz_arena_bytes() + larger > most_arena) hd_fail((hd_where){ 0 }, "out of memory");
        text->data = fuzz_grow(text->data, text->capacity, larger);
        text->capacity = larger;
    }
    if (count) memcpy(text->data + text->length, bytes, count);
    text->length += count;
    text->data[text->length] = 0;
}

void hd_text_add(hd_text *text, const char *format, ...)
{
    int length;
    va_list list;
    va_start(list, format);
    const char *added = format_text(format, list, &length);
    va_end(list);
    hd_text_addn(text, added, (size_t)length);
}

char *hd_read_file(const char *path, size_t *bytes)
{
    struct stat status;
    if (stat(path, &status)) return NULL;
    if (!S_ISREG(status.st_mode)) { errno = EISDIR; return NULL; }
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *text = hd_alloc((size_t)status.st_size + 1);
    const size_t got = fread(text, 1, (size_t)status.st_size, f);
    fclose(f);
    if (bytes) *bytes = got;
    return text;
}

void hd_write_file(const char *path, const char *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    const bool written = f && (!bytes || fwrite(data, 1, bytes, f) == bytes);
    if (!f || fclose(f) || !written) hd_fail((hd_where){ path, 0 }, "cannot write: %s", strerror(errno));
}

__attribute__((no_sanitize("address", "undefined", "coverage")))      /* of megabytes of tables in each call */
uint64_t hd_hash(const void *data, size_t bytes, uint64_t seed)
{
    const unsigned char *byte = data;
    uint64_t hash = 0xcbf29ce484222325u ^ seed;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ byte[i]) * 0x100000001b3u;
    return hash;
}
