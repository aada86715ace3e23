/* Running heddle and its programs from tests (tool.h). */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char *said;

/* Texts and timings of tests are not those of whatever was tuned here. */
__attribute__((constructor)) static void without_records(void) { setenv("HEDDLE_TUNING", "off", 0); }

const char *heddle(void)
{
    const char *path = getenv("HEDDLE");
    return path && *path ? path : "build/heddle";
}

const char *sanitize(void) { return getenv("HEDDLE_SANITIZE") ? " --sanitize" : ""; }

const char **words(const char *line)
{
    char *text = hd_strdup(line);
    const char **list = HD_NEW_ARRAY(const char *, strlen(line) / 2 + 2);
    int count = 0;
    while (*text) {
        while (*text == ' ') text++;
        if (!*text) break;
        const char end = *text == '\'' ? '\'' : ' ';
        if (end == '\'') text++;
        list[count++] = text;
        while (*text && *text != end) text++;
        if (*text) *text++ = 0;
    }
    return list;
}

static int run(const char *format, va_list list, const char **line)
{
    char text[8192];
    vsnprintf(text, sizeof text, format, list);
    *line = hd_strdup(text);
    return hd_run_program(words(text), &said);
}

int command(const char *format, ...)
{
    const char *line;
    va_list list;
    va_start(list, format);
    const int status = run(format, list, &line);
    va_end(list);
    return status;
}

void must(const char *format, ...)
{
    const char *line;
    va_list list;
    va_start(list, format);
    const int status = run(format, list, &line);
    va_end(list);
    if (status) fail_msg("status %d of: %s\n%s", status, line, said);
}

void refused(const char *part, const char *format, ...)
{
    const char *line;
    va_list list;
    va_start(list, format);
    const int status = run(format, list, &line);
    va_end(list);
    const char *end = strchr(said, '\n');
    if (status != 1 || !strstr(said, part) || !end || end[1]) fail_msg("%s\nshould exit with 1 and one line that holds \"%s\"; status %d, it said:\n%s", line, part, status, said);
}

void assert_says(const char *part)
{
    if (!strstr(said, part)) fail_msg("\"%s\" is not in what it said:\n%s", part, said);
}

char *text_of(const char *path)
{
    size_t bytes;
    char *text = hd_read_file(path, &bytes);
    if (!text) fail_msg("%s cannot be read", path);
    return text;
}

bool same_bytes(const char *a, const char *b)
{
    size_t a_bytes = 0, b_bytes = 0;
    const char *x = hd_read_file(a, &a_bytes), *y = hd_read_file(b, &b_bytes);
    return x && y && a_bytes == b_bytes && !memcmp(x, y, a_bytes);
}

void assert_same_bytes(const char *a, const char *b)
{
    if (!same_bytes(a, b)) fail_msg("%s and %s differ", a, b);
}

int make_folder(const char *path)
{
    must("rm -rf %s", path);
    must("mkdir -p %s", path);
    return 0;
}

void choose_tests(const char *names)
{
    if (!names) names = getenv("HEDDLE_ONLY");
    if (names) cmocka_set_test_filter(names);
}

void write_words(const char *path, size_t bytes)
{
    static const char *const word[] = { "the ", "warp ", "and ", "weft ", "meet ", "in ", "a ", "heddle", ", ", "thread ", "by ", "thread.\n", "loom " };
    hd_text text = { 0 };
    uint32_t dice = 1;
    while (text.length < bytes) {
        dice = dice * 1664525u + 1013904223u;
        hd_text_add(&text, "%s", word[(dice >> 16) % (sizeof word / sizeof *word)]);
    }
    hd_write_file(path, text.data, bytes);
}
