/* Mapped reading and atomic writing (file.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app.h"

enum { BUFFER_BYTES = 1 << 18 };

static char *unfinished;     /* temporary file of the write under way */

hd_file_map hd_file_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);      /* a named pipe is refused, not waited for */
    if (fd < 0) hd_app_fail("%s: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0) hd_app_fail("%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) hd_app_fail("%s: %s", path, S_ISDIR(info.st_mode) ? "a folder; name a file" : "not a regular file: it must be one that can be mapped");
    hd_file_map map = { .bytes = (size_t)info.st_size };
    if (map.bytes) {
        void *data = mmap(NULL, map.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) hd_app_fail("%s: %s", path, strerror(errno));
        map.data = data;
    }
    close(fd);
    return map;
}

void hd_file_close(hd_file_map map)
{
    if (map.data) munmap((void *)(uintptr_t)map.data, map.bytes);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int folder_length(const char *path) { return (int)(base_name(path) - path); }

/* Opens and locks the temporary file. The name may have been renamed away between open and lock: then again. */
static void open_temporary(hd_file_writer *writer)
{
    for (;;) {
        struct stat mine, named;
        writer->fd = open(writer->temporary, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (writer->fd < 0) hd_app_fail("%s: cannot be written: %s", writer->path, strerror(errno));
        if (flock(writer->fd, LOCK_EX | LOCK_NB) != 0) hd_app_fail("%s: another program is writing this file", writer->path);
        if (fstat(writer->fd, &mine) == 0 && stat(writer->temporary, &named) == 0 && mine.st_ino == named.st_ino && mine.st_dev == named.st_dev)
            break;
        close(writer->fd);
    }
    unfinished = writer->temporary;
    if (ftruncate(writer->fd, 0) != 0) hd_app_fail("%s: %s", writer->path, strerror(errno));
}

void hd_file_begin(hd_file_writer *writer, const char *path)
{
    struct stat info;
    if (!*base_name(path) || (stat(path, &info) == 0 && S_ISDIR(info.st_mode))) hd_app_fail("%s: a folder; name a file", path);
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) hd_app_fail("%s: no regular file; name a file that may be replaced", path);
    *writer = (hd_file_writer){ .path = path, .buffer = hd_app_alloc(BUFFER_BYTES) };
    writer->temporary = (char *)(uintptr_t)hd_app_text("%.*s.%s.partial", folder_length(path), path, base_name(path));
    open_temporary(writer);
}

static void write_all(hd_file_writer *writer, const unsigned char *data, size_t bytes)
{
    while (bytes) {
        ssize_t done = write(writer->fd, data, bytes);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) hd_app_fail("%s: cannot be written: %s; a previous file of this name is untouched", writer->path, strerror(done ? errno : ENOSPC));
        data += done;
        bytes -= (size_t)done;
    }
}

void hd_file_put(hd_file_writer *writer, const void *data, size_t bytes)
{
    if (writer->used + bytes > BUFFER_BYTES) {
        write_all(writer, writer->buffer, writer->used);
        writer->used = 0;
    }
    if (bytes >= BUFFER_BYTES) {
        write_all(writer, data, bytes);
    } else if (bytes) {
        memcpy(writer->buffer + writer->used, data, bytes);
        writer->used += bytes;
    }
}

static void sync_folder(const char *path)
{
    const char *folder = folder_length(path) ? hd_app_text("%.*s", folder_length(path), path) : hd_app_text(".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);           /* some file systems refuse; the file itself is whole either way */
        close(fd);
    }
    free((char *)(uintptr_t)folder);
}

void hd_file_commit(hd_file_writer *writer)
{
    write_all(writer, writer->buffer, writer->used);
    if (fsync(writer->fd) != 0 && errno != EINVAL && errno != ENOTSUP)
        hd_app_fail("%s: cannot be written: %s; a previous file of this name is untouched", writer->path, strerror(errno));
    if (rename(writer->temporary, writer->path) != 0) hd_app_fail("%s: cannot be written: %s", writer->path, strerror(errno));
    unfinished = NULL;
    close(writer->fd);       /* the lock goes with it, after the rename */
    sync_folder(writer->path);
    free(writer->temporary);
    free(writer->buffer);
}

void hd_file_check(const char *path)
{
    hd_file_writer writer;
    hd_file_begin(&writer, path);
    unlink(writer.temporary);
    unfinished = NULL;
    close(writer.fd);
    free(writer.temporary);
    free(writer.buffer);
}

bool hd_file_same(const char *a, const char *b)
{
    struct stat x, y;
    return strcmp(a, b) == 0 || (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

void hd_file_abandon_all(void)
{
    if (unfinished) unlink(unfinished);
    unfinished = NULL;
}
