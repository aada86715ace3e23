/* Files: read by mapping, written under a temporary name and renamed when whole. */
#ifndef HD_FILE_H
#define HD_FILE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct hd_file_map { const unsigned char *data; size_t bytes; } hd_file_map;
hd_file_map hd_file_open(const char *path);            /* fails with a message; an empty file has data NULL */
void hd_file_close(hd_file_map);

/* A file that appears under `path` only by hd_file_commit, complete and flushed; until then the previous file stands.
 * The temporary name is .NAME.partial in the same folder: one name, so that a killed program leaves at most one behind,
 * which the next write reuses; it is locked, so that two programs cannot write it at once.
 * All functions fail with "path: reason" (disk full included), the temporary file removed. */
typedef struct hd_file_writer { const char *path; char *temporary; int fd; unsigned char *buffer; size_t used; } hd_file_writer;
void hd_file_begin(hd_file_writer *, const char *path);
void hd_file_put(hd_file_writer *, const void *data, size_t bytes);
void hd_file_commit(hd_file_writer *);
void hd_file_check(const char *path);                   /* fails now if hd_file_begin would fail later */
bool hd_file_same(const char *a, const char *b);        /* one name, or two of one file */
void hd_file_abandon_all(void);                         /* removes the temporary file of an unfinished write */

#endif
