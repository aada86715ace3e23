/* Helpers of the runtime's tests (support.h). */
#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

char program_out[1 << 16], program_err[1 << 14];
void (*before_program)(void);
size_t program_peak_bytes;
static char folder[256];

/* The programs end by exit and leave freeing to the system. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0:exitcode=99"; }

int enter_folder(void **state)
{
    const char *base = getenv("TMPDIR");
    (void)state;
    snprintf(folder, sizeof folder, "%s/heddle-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

int leave_folder(void **state)
{
    char command[512];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return chdir("/") == 0 ? system(command) : -1;
}

void write_file(const char *path, const void *data, size_t bytes)
{
    remove(path);                /* ext4 flushes to the disk what replaces a file that was cut to nothing */
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

unsigned char *read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    struct stat info;
    if (!file) return NULL;
    assert_int_equal(fstat(fileno(file), &info), 0);
    unsigned char *data = calloc(1, (size_t)info.st_size + 1);
    assert_non_null(data);
    *bytes = fread(data, 1, (size_t)info.st_size, file);
    fclose(file);
    return data;
}

void assert_same_file(const char *a, const char *b)
{
    size_t x_bytes = 0, y_bytes = 0, at = 0;
    unsigned char *x = read_file(a, &x_bytes), *y = read_file(b, &y_bytes);
    assert_non_null(x);
    assert_non_null(y);
    while (at < x_bytes && at < y_bytes && x[at] == y[at]) at++;
    if (at < x_bytes || at < y_bytes)
        fail_msg("%s (%zu bytes) and %s (%zu bytes) differ from byte %zu on; headers: %.600s ... %.600s", a, x_bytes, b, y_bytes, at, (char *)x + 8, (char *)y + 8);
    free(x);
    free(y);
}

bool file_exists(const char *path) { return access(path, F_OK) == 0; }

void write_text(const char *path, size_t bytes)
{
    static const char *const word[] = { "warp ", "weft ", "heddle ", "shed ", "the ", "a ", "loom\n", "reed, " };
    FILE *file = fopen(path, "wb");
    uint32_t x = 12345;
    assert_non_null(file);
    for (size_t written = 0; written < bytes;) {
        x = x * 1664525 + 1013904223;
        for (const char *c = word[x >> 29]; *c && written < bytes; c++, written++) fputc(*c, file);
    }
    fclose(file);
}

/* 0 in the child, whose output goes into files. */
static pid_t fork_quietly(void)
{
    fflush(NULL);
    remove("out");
    remove("err");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) return child;
    int out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0666), err = open("err", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    dup2(out, 1);
    dup2(err, 2);
    return 0;
}

int call_in_child(void (*function)(const char *), const char *argument)
{
    pid_t child = fork_quietly();
    if (child) return program_wait(child);
    function(argument);
    fflush(NULL);
    _exit(0);
}

pid_t program_start(const char *line)
{
    pid_t child = fork_quietly();
    if (child) return child;
    char *copy = strdup(line), *argv[64] = { (char *)(uintptr_t) "tiny" };
    int argc = 1;
    for (char *word = strtok(copy, " "); word && argc < 63; word = strtok(NULL, " ")) argv[argc++] = word;
    if (before_program) before_program();
    int status = hd_app_main(argc, argv);
    fflush(NULL);
    _exit(status);
}

static void slurp(const char *path, char *text, size_t room)
{
    FILE *file = fopen(path, "rb");
    size_t count = file ? fread(text, 1, room - 1, file) : 0;
    text[count] = '\0';
    if (file) fclose(file);
}

int program_wait(pid_t child)
{
    int status;
    struct rusage usage;
    assert_int_equal(wait4(child, &status, 0, &usage), child);
    program_peak_bytes = 1024 * (size_t)usage.ru_maxrss;
    slurp("out", program_out, sizeof program_out);
    slurp("err", program_err, sizeof program_err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int program(const char *format, ...)
{
    char line[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    int status = program_wait(program_start(line));
    if (getenv("SHOW")) fprintf(stderr, "$ tiny %s\n%s%s[%d]\n", line, program_out, program_err, status);
    return status;
}

void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("expected '%s' in:\n%s", part, text);
}

void assert_refused(int status, const char *part)
{
    const char *newline = strchr(program_err, '\n');
    if (status != 1) fail_msg("exit status %d instead of 1: %s", status, program_err);
    assert_contains(program_err, part);
    if (!newline || newline[1]) fail_msg("not one line: %s", program_err);
}
