/* Weights where they lie (weights.h, hd_weights_open).
 *
 * Mapped pages are shared with every program that maps the file and cost nothing before they are touched, so that the first token
 * does not wait for half a gigabyte to be copied, checked and packed. What a mapping cannot promise is that the file stays as it is:
 * whoever replaces weights writes a new file and renames it, as `train` does. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "packed.h"
#include "pages.h"

enum { SCANNED_BYTES = 32 << 20 };       /* mapped weights up to here are looked through for values that are not finite: a few milliseconds */

static void *area(size_t bytes)
{
    void *start = hd_pages_map(bytes);
    if (!start) hd_app_fail("out of memory: %.1f MB are needed for weights", (double)bytes / 1e6);
    return start;
}

static void *not_written(const void *start) { return (void *)(uintptr_t)start; }     /* entries that do not train only read them */

/* The data as the weights area, if every tensor lies in it where the program wants it; else NULL. */
static const unsigned char *in_place(const hd_safetensors *file, const hd_st_tensor *const *found)
{
    if (file->parts || !hd_model.weights) return NULL;
    const size_t first = (size_t)(found[0]->data - file->map.data), pages = hd_packed_page(file->map.bytes);      /* bytes beyond the end are zeros up to a page */
    if (first < hd_model.weight[0].offset) return NULL;
    const size_t start = first - hd_model.weight[0].offset;
    if (start % 64 || pages - start < hd_model.weights_bytes) return NULL;
    for (int i = 0; i < hd_model.weights; i++)
        if (found[i]->type != HD_ST_F32 || (size_t)(found[i]->data - file->map.data) != start + hd_model.weight[i].offset) return NULL;
    return file->map.data + start;
}

static void open_safetensors(const char *path, bool writable, hd_memory *memory)
{
    hd_safetensors *file = hd_safetensors_open(path);
    hd_pages_advise(file->map.data, file->map.bytes);
    const hd_st_tensor **found = hd_weights_match(file, "");
    const unsigned char *start = writable ? NULL : in_place(file, found);
    if (start) {
        memory->weights = not_written(start);        /* the file stays open */
    } else {
        memory->weights = area(hd_model.weights_bytes);
        hd_weights_copy(found, memory->weights);
        hd_safetensors_close(file);
    }
    const char *bad = start && hd_model.weights_bytes > SCANNED_BYTES ? NULL : hd_weights_not_finite(memory->weights);
    if (bad) hd_weights_warn(path, bad);
    free(found);
}

static bool is_packed(hd_file_map map) { return map.bytes >= 8 && memcmp(map.data, HD_PACKED_MAGIC, 8) == 0; }

static void open_packed(const char *path, hd_file_map map, bool writable, hd_memory *memory)
{
    hd_packed_header h;
    if (map.bytes < HD_PACKED_HEADER_BYTES) hd_app_fail("%s: not a whole file of heddle pack: it ends in its header", path);
    memcpy(&h, map.data, sizeof h);
    if (h.version != HD_PACKED_VERSION) hd_app_fail("%s: a file of heddle pack of version %llu; this program reads version %d", path, (unsigned long long)h.version, HD_PACKED_VERSION);
    if (h.weights_hash != hd_model.weights_hash)
        hd_app_fail("%s: packed weights of model %.*s, whose tensors are not those of this program's %s", path, HD_PACKED_NAME, h.model, hd_model.name);
    if (h.file_bytes != map.bytes) hd_app_fail("%s: not a whole file of heddle pack: it should have %llu bytes, but has %zu", path, (unsigned long long)h.file_bytes, map.bytes);
    const uint64_t packed_at = hd_packed_page(HD_PACKED_HEADER_BYTES + hd_model.weights_bytes);
    if (h.weights_at != HD_PACKED_HEADER_BYTES || h.weights_bytes != hd_model.weights_bytes || h.packed_at != packed_at || h.file_bytes < packed_at || h.packed_bytes != h.file_bytes - packed_at)
        hd_app_fail("%s: its header is damaged", path);
    if (writable) memcpy(memory->weights = area(hd_model.weights_bytes), map.data + h.weights_at, hd_model.weights_bytes);
    else memory->weights = not_written(map.data + h.weights_at);
    if (!writable && h.panels_hash == hd_model.panels_hash && h.packed_bytes == hd_model.packed_bytes) memory->packed = not_written(map.data + h.packed_at);
}

void hd_weights_need(const char *command, const char *path)
{
    if (!path && !hd_model.own_weights) hd_app_fail("%s: name the weights: --weights FILE (%s train writes them)", command, hd_model.name);
}

void hd_weights_open(const char *command, const char *path, bool writable, hd_memory *memory)
{
    hd_weights_need(command, path);
    memory->packed = NULL;
    if (!path) {
        if (writable) memcpy(memory->weights = area(hd_model.weights_bytes), hd_model.own_weights, hd_model.weights_bytes);
        else memory->weights = not_written(hd_model.own_weights), memory->packed = not_written(hd_model.own_packed);
        hd_pages_advise(memory->weights, hd_model.weights_bytes);
        if (memory->packed) hd_pages_advise(memory->packed, hd_model.packed_bytes);
        return;
    }
    struct stat status;
    const bool folder = stat(path, &status) == 0 && S_ISDIR(status.st_mode);
    const hd_file_map map = folder ? (hd_file_map){ 0 } : hd_file_open(path);
    if (is_packed(map)) {
        hd_pages_advise(map.data, map.bytes);
        open_packed(path, map, writable, memory);
    } else {
        hd_file_close(map);
        open_safetensors(path, writable, memory);
    }
}

void hd_weights_pack(const hd_entry_info *entry, hd_memory *memory, const hd_threads *threads)
{
    if (!entry->packed || memory->packed) return;
    memory->packed = area(hd_app_packed_bytes(entry));
    hd_app_pack(entry, memory, threads);
}
