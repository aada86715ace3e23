/* The arena, failure, text and files: see base.h.
 *
 * The arena is one shared anonymous mapping whose head lives inside it, so that what a forked child allocates is seen by
 * its parent at the same addresses. Pages are taken from the system only when they are touched. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE      /* MAP_ANONYMOUS */
#endif
#include "base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ALIGNMENT = 16 };
static const size_t arena_reserve = (size_t)8 << 30, arena_least = (size_t)64 << 20;

struct arena { size_t used, limit; };
static struct arena *arena;
static bool is_child;

static struct undo { void (*run)(void *); void *argument; } *undo;
static int undos, undo_capacity;

/* Before main, so that no child can be forked earlier than the mapping it must share. Where address space is rationed
 * (ulimit -v), a smaller reserve will do. */
__attribute__((constructor)) static void arena_open(void)
{
    for (size_t bytes = arena_reserve; bytes >= arena_least; bytes /= 2) {
        void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) continue;
        arena = memory;
        arena->used = (sizeof *arena + 63) / 64 * 64;
        arena->limit = bytes;
        return;
    }
    fprintf(stderr, "heddle: no memory: cannot reserve %zu MiB of address space; raise ulimit -v\n", arena_least >> 20);
    _exit(1);
}

void *hd_alloc(size_t bytes)
{
    if (bytes > arena->limit || arena->used + bytes + ALIGNMENT > arena->limit)
        hd_fail((hd_where){ 0 }, "out of memory: %zu bytes more do not fit into the compiler's %zu MiB; make the model smaller",
                bytes, arena->limit >> 20);
    void *memory = (char *)arena + arena->used;
    arena->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return memory;   /* zero: fresh pages are, and nothing is ever given back */
}

size_t hd_arena_used(void) { return arena->used; }

/* Makes the block at `old` larger: in place when it is the newest, else by a copy. */
static void *extend(void *old, size_t old_bytes, size_t bytes)
{
    size_t rounded = (old_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (old && (char *)old + rounded == (char *)arena + arena->used && bytes > rounded) {
        hd_alloc(bytes - rounded);
        return old;
    }
    void *memory = hd_alloc(bytes);
    if (old_bytes) memcpy(memory, old, old_bytes);
    return memory;
}

void *hd_grow(void *items, int count, int *capacity, size_t item_bytes)
{
    if (count < *capacity) return items;
    if (count > INT32_MAX / 2) hd_fail((hd_where){ 0 }, "out of memory: a list of %d items cannot grow further", count);
    int larger = *capacity ? 2 * *capacity : 8;
    if (larger <= count) larger = count + 1;
    items = extend(items, (size_t)*capacity * item_bytes, (size_t)larger * item_bytes);
    *capacity = larger;
    return items;
}

char *hd_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    return memcpy(hd_alloc(bytes), text, bytes);
}

/* Written where it will stay: most texts are short, and formatting them twice, to know their length first, would take as long again. */
static char *format_text(const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    char *here = (char *)arena + arena->used;
    const size_t left = arena->limit - arena->used, room = left < 512 ? left : 512;
    int length = vsnprintf(here, room, format, arguments);
    char *text = hd_alloc((size_t)length + 1);
    if ((size_t)length >= room) vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

char *hd_format(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *text = format_text(format, arguments);
    va_end(arguments);
    return text;
}

/* Not through the arena: the message may be that the arena is full. One write, so that lines of processes do not mix. */
static void report(hd_where where, const char *kind, const char *format, va_list arguments)
{
    char line[8192];
    size_t room = sizeof line - 1, at = 0;
    int n = !where.file   ? snprintf(line, room, "heddle: %s", kind)
            : where.line  ? snprintf(line, room, "%s:%d: %s", where.file, where.line, kind)
                          : snprintf(line, room, "%s: %s", where.file, kind);
    at = (size_t)n < room ? (size_t)n : room - 1;
    n = vsnprintf(line + at, room - at, format, arguments);
    if (n > 0) at += (size_t)n < room - at ? (size_t)n : room - at - 1;
    for (size_t i = 0; i < at; i++)          /* a spec's own text must not steer the terminal */
        if ((unsigned char)line[i] < ' ' || line[i] == 127) line[i] = ' ';
    line[at++] = '\n';
    fflush(stdout);
    fwrite(line, 1, at, stderr);
    fflush(stderr);
}

void hd_set_child(void)
{
    is_child = true;
    undos = 0;
}

void hd_fail(hd_where where, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report(where, "", format, arguments);
    va_end(arguments);
    while (undos > 0) {     /* taken off the list first: an undo that fails must not come back here for itself */
        struct undo last = undo[--undos];
        last.run(last.argument);
    }
    if (is_child) _exit(1);
    exit(1);
}

void hd_warn(hd_where where, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report(where, "warning: ", format, arguments);
    va_end(arguments);
}

void hd_on_failure(void (*run)(void *), void *argument)
{
    HD_PUSH(undo, undos, undo_capacity, ((struct undo){ run, argument }));
}

static void text_room(hd_text *text, size_t more)
{
    size_t needed = text->length + more + 1;
    if (needed <= text->capacity) return;
    size_t larger = 2 * text->capacity > needed ? 2 * text->capacity : needed;
    if (larger < 256) larger = 256;
    text->data = extend(text->data, text->capacity, larger);
    text->capacity = larger;
}

void hd_text_addn(hd_text *text, const char *bytes, size_t count)
{
    text_room(text, count);
    memcpy(text->data + text->length, bytes, count);
    text->length += count;
    text->data[text->length] = 0;
}

void hd_text_add(hd_text *text, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    text_room(text, 120);
    size_t room = text->capacity - text->length;
    int length = vsnprintf(text->data + text->length, room, format, arguments);
    if ((size_t)length >= room) {
        text_room(text, (size_t)length);
        vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
    }
    text->length += (size_t)length;
    va_end(again);
    va_end(arguments);
}

char *hd_read_file(const char *path, size_t *bytes)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return NULL;
    struct stat status;
    hd_text text = { 0 };
    int problem = fstat(file, &status) ? errno : S_ISDIR(status.st_mode) ? EISDIR : 0;
    if (!problem) text_room(&text, S_ISREG(status.st_mode) ? (size_t)status.st_size + 1 : 65536);
    while (!problem) {
        if (text.capacity - text.length < 2) text_room(&text, text.capacity);
        ssize_t n = read(file, text.data + text.length, text.capacity - text.length - 1);
        if (n == 0) break;
        if (n > 0) text.length += (size_t)n;
        else if (errno != EINTR) problem = errno;
    }
    close(file);
    if (problem) { errno = problem; return NULL; }
    text.data[text.length] = 0;
    if (bytes) *bytes = text.length;
    return text.data;
}

static bool same_content(const char *path, const char *data, size_t bytes)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    struct stat status;
    bool same = !fstat(file, &status) && S_ISREG(status.st_mode) && (size_t)status.st_size == bytes;
    char block[65536];
    for (size_t at = 0; same && at < bytes;) {
        ssize_t n = read(file, block, bytes - at < sizeof block ? bytes - at : sizeof block);
        same = n > 0 && !memcmp(block, data + at, (size_t)n);
        if (n > 0) at += (size_t)n;
    }
    close(file);
    return same;
}

static int write_all(int file, const char *data, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t n = write(file, data + at, bytes - at);
        if (n >= 0) at += (size_t)n;
        else if (errno != EINTR) return errno;
    }
    return 0;
}

const char *hd_stage_file(const char *path, const char *data, size_t bytes, const char **staged)
{
    *staged = NULL;
    if (same_content(path, data, bytes)) return NULL;
    const char *name = hd_format("%s.%ld.tmp", path, (long)getpid());
    int file = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0) return strerror(errno);
    int problem = write_all(file, data, bytes);
    if (!problem && fsync(file) && errno != EINVAL && errno != EROFS) problem = errno;   /* some file systems cannot */
    if (close(file) && !problem) problem = errno;
    if (!problem) *staged = name;
    else unlink(name);
    return problem ? strerror(problem) : NULL;
}

void hd_write_file(const char *path, const char *data, size_t bytes)
{
    const char *problem = NULL, *staged = NULL;
    struct stat status;
    if (!stat(path, &status) && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {      /* a pipe or a terminal (/dev/stdout) is written to, never replaced */
        const int file = open(path, O_WRONLY | O_CLOEXEC), error = file < 0 ? errno : write_all(file, data, bytes);
        if (error || close(file)) problem = strerror(error ? error : errno);
    } else {
        problem = hd_stage_file(path, data, bytes, &staged);
        if (staged && rename(staged, path)) {
            problem = strerror(errno);
            unlink(staged);
        }
    }
    if (problem) hd_fail((hd_where){ path, 0 }, "cannot write: %s", problem);
}

uint64_t hd_hash(const void *data, size_t bytes, uint64_t seed)
{
    const unsigned char *byte = data;
    uint64_t hash = 0xcbf29ce484222325u ^ seed;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ byte[i]) * 0x100000001b3u;
    return hash;
}
