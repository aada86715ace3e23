/* Shared helpers of the commands (app.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "app.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../core/hd_pool.h"
#include "file.h"
#include "pages.h"
#include "progress.h"

void hd_app_fail(const char *format, ...)
{
    hd_progress_end();
    fflush(stdout);
    char line[4096];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';       /* names in hostile files: one line, and no orders to a terminal */
    fprintf(stderr, "%s\n", line);
    hd_file_abandon_all();
    exit(1);
}

double hd_app_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *hd_app_text(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    char *text = hd_app_alloc((size_t)length + 1);
    va_start(list, format);
    vsnprintf(text, (size_t)length + 1, format, list);
    va_end(list);
    return text;
}

void *hd_app_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes ? bytes : 1);
    if (!memory) hd_app_fail("out of memory: %zu bytes", bytes);
    return memory;
}

int hd_app_processors(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014), chained over the three words. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t hd_app_random(uint64_t seed, uint64_t a, uint64_t b) { return mix(mix(mix(seed) ^ a) ^ b); }

const hd_entry_info *hd_app_entry_or_null(const char *name)
{
    for (int i = 0; i < hd_model.entries; i++)
        if (strcmp(hd_model.entry[i].name, name) == 0) return &hd_model.entry[i];
    return NULL;
}

const hd_entry_info *hd_app_entry(const char *name)
{
    const hd_entry_info *entry = hd_app_entry_or_null(name);
    if (entry) return entry;
    const char *list = "";
    for (int i = 0; i < hd_model.entries; i++) list = hd_app_text("%s %s", list, hd_model.entry[i].name);
    hd_app_fail("%s has no entry '%s'; it has:%s", hd_model.name, name, list);
}

int hd_app_find(const hd_tensor *tensors, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(tensors[i].name, name) == 0) return i;
    return -1;
}

int hd_app_need(const hd_entry_info *entry, const char *name, bool output)
{
    const hd_tensor *tensors = output ? entry->output : entry->input;
    int count = output ? entry->outputs : entry->inputs, index = hd_app_find(tensors, count, name);
    if (index >= 0) return index;
    const char *list = "";
    for (int i = 0; i < count; i++) list = hd_app_text("%s %s", list, tensors[i].name);
    hd_app_fail("entry %s of %s has no %s '%s'; it has:%s", entry->name, hd_model.name, output ? "output" : "input", name, list);
}

int64_t hd_app_elements(int rank, const int64_t *size)
{
    int64_t elements = 1;
    for (int i = 0; i < rank; i++) elements *= size[i];
    return elements;
}

const char *hd_app_shape(int rank, const int64_t *size)
{
    const char *text = "[";
    for (int i = 0; i < rank; i++) text = hd_app_text("%s%s%lld", text, i ? ", " : "", (long long)size[i]);
    return hd_app_text("%s]", text);
}

size_t hd_app_tensor_bytes(const hd_tensor *tensor) { return 4 * (size_t)hd_app_elements(tensor->rank, tensor->size); }

bool hd_app_language_model(void) { return strcmp(hd_model.kind, "language_model") == 0; }

void hd_app_need_language_model(const char *command)
{
    if (!hd_app_language_model())
        hd_app_fail("%s: %s is not a language model; valid for it: info, run, bench", command, hd_model.name);
}

bool hd_app_bytes(void) { return hd_model.vocab <= 256 && !hd_model.tokenizer; }
const char *hd_app_unit_name(void) { return hd_app_bytes() ? "byte" : "token"; }

static size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

size_t hd_app_areas_bytes(const hd_area *area, int count)
{
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += round_up(area[i].bytes, 64);
    return bytes;
}

void hd_app_map_areas(const hd_area *area, int count)
{
    size_t bytes = hd_app_areas_bytes(area, count);
    unsigned char *start = hd_pages_map(bytes);
    if (!start) hd_app_fail("out of memory: %.1f MB are needed (%s info shows for what)", (double)bytes / 1e6, hd_model.name);
    for (int i = 0; i < count; i++) {
        if (area[i].where) *area[i].where = area[i].bytes ? start : NULL;
        start += round_up(area[i].bytes, 64);
    }
}

size_t hd_app_tensors_bytes(const hd_entry_info *entry)
{
    size_t bytes = 0;
    for (int i = 0; i < entry->inputs + entry->outputs; i++)
        bytes += round_up(hd_app_tensor_bytes(i < entry->inputs ? &entry->input[i] : &entry->output[i - entry->inputs]), 64);
    return bytes;
}

void hd_app_bind_tensors(const hd_entry_info *entry, void *block, void **tensor)
{
    unsigned char *at = block;
    for (int i = 0; i < entry->inputs + entry->outputs; i++) {
        tensor[i] = at;
        at += round_up(hd_app_tensor_bytes(i < entry->inputs ? &entry->input[i] : &entry->output[i - entry->inputs]), 64);
    }
}

size_t hd_app_scratch_bytes(const hd_entry_info *entry, int threads)
{
    return round_up(entry->scratch_bytes, 64) + (size_t)threads * entry->local_bytes;
}

size_t hd_app_packed_bytes(const hd_entry_info *entry) { return entry->packed ? round_up(hd_model.packed_bytes, 64) : 0; }

void hd_app_pack(const hd_entry_info *entry, const hd_memory *memory, const hd_threads *threads)
{
    const int error = entry->packed ? hd_model.pack(memory, threads) : HD_OK;
    if (error) hd_app_fail("%s: packing the weights: %s", hd_model.name, hd_error_text(error));
}

void hd_app_call(const hd_entry_info *entry, const hd_memory *memory, const hd_threads *threads, void *const *tensor, int sequences, int used)
{
    const int error = entry->call(memory, threads, tensor, sequences, used);
    if (error) hd_app_fail("%s: %s: %s", hd_model.name, entry->name, hd_error_text(error));
}

hd_pool *hd_app_pool(int threads)
{
    hd_pool *pool = hd_pool_new(threads);
    if (!pool) hd_app_fail("--threads %d: cannot start them: %s", threads, strerror(errno));
    return pool;
}
