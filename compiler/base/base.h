/* What every part of the compiler stands on: one arena, one way to fail, growing text.
 *
 * The compiler is a short-lived program: everything lives in one arena that is freed at exit. The arena is a shared
 * mapping, because a spec is evaluated in a child process (spec/sandbox.c) and the graph it builds is then read, at the
 * same addresses, by the parent: no graph is ever serialised. */
#ifndef HD_BASE_H
#define HD_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a user wrote something. line 0: no line (a file as a whole, a command line flag: file is then the flag). */
typedef struct hd_where { const char *file; int line; } hd_where;

/* Zeroed memory, 16-byte aligned, never freed. Fails with a message when the arena's limit is passed. */
void *hd_alloc(size_t bytes);
#define HD_NEW(type)          ((type *)hd_alloc(sizeof(type)))
#define HD_NEW_ARRAY(type, n) ((type *)hd_alloc(sizeof(type) * (size_t)(n)))
char *hd_strdup(const char *text);
char *hd_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
size_t hd_arena_used(void);

/* Reports "file:line: message" on stderr and exits with status 1, after running the clean-ups below. In the child that
 * evaluates a spec it ends that child; the parent exits likewise. Every message ends with what would have been valid. */
_Noreturn void hd_fail(hd_where where, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hd_warn(hd_where where, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Called by hd_fail, newest first: temporary files and half-made outputs are removed here. */
void hd_on_failure(void (*undo)(void *), void *argument);
/* Called by a forked child first: its hd_fail ends it by _exit and leaves the clean-ups to the parent. */
void hd_set_child(void);

/* Appends `item` to an arena array that doubles: HD_PUSH(list->item, list->count, list->capacity, x). */
void *hd_grow(void *items, int count, int *capacity, size_t item_bytes);
#define HD_PUSH(items, count, capacity, value) \
    ((items) = hd_grow((items), (count), &(capacity), sizeof *(items)), (items)[(count)++] = (value))

/* Text that grows at its end. data is always NUL-terminated once anything was added. */
typedef struct hd_text { char *data; size_t length, capacity; } hd_text;
void hd_text_add(hd_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hd_text_addn(hd_text *text, const char *bytes, size_t count);

/* Whole file, NUL-terminated, in the arena; NULL when it cannot be read (errno says why). */
char *hd_read_file(const char *path, size_t *bytes);
/* Writes data beside the path, under the name *staged, to be renamed: NULL where the path holds the same already. Returns what went wrong, or NULL. */
const char *hd_stage_file(const char *path, const char *data, size_t bytes, const char **staged);
/* Writes through a temporary name and rename, only if the content differs. Fails with a message. */
void hd_write_file(const char *path, const char *data, size_t bytes);

uint64_t hd_hash(const void *data, size_t bytes, uint64_t seed);   /* FNV-1a style, 64 bit; stable across runs */

#endif
