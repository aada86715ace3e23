/* Reading and writing safetensors files (safetensors.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "safetensors.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "app.h"

#define MAX_HEADER_BYTES ((uint64_t)100 << 20)

static const struct { const char *name; hd_st_type type; size_t bytes; } types[] = {
    { "F32", HD_ST_F32, 4 }, { "I32", HD_ST_I32, 4 }, { "F16", HD_ST_F16, 2 }, { "BF16", HD_ST_BF16, 2 }, { "F64", HD_ST_F64, 8 },
    { "I64", HD_ST_I64, 8 }, { "U8", HD_ST_U8, 1 }, { "BOOL", HD_ST_OTHER, 1 }, { "I8", HD_ST_OTHER, 1 }, { "I16", HD_ST_OTHER, 2 },
    { "U16", HD_ST_OTHER, 2 }, { "U32", HD_ST_OTHER, 4 }, { "U64", HD_ST_OTHER, 8 }, { "F8_E4M3", HD_ST_OTHER, 1 }, { "F8_E5M2", HD_ST_OTHER, 1 },
};
enum { TYPES = sizeof types / sizeof types[0] };

/* ---- the header ------------------------------------------------------------------------------------------------- */

/* Checks one entry of the header and returns it as a tensor; Jansson has refused numbers beyond 64 bits. */
static hd_st_tensor read_tensor(const hd_safetensors *file, const char *name, json_t *entry, const unsigned char *data, size_t data_bytes)
{
    hd_st_tensor t = { .name = name, .path = file->path, .type = HD_ST_OTHER };
    json_error_t error;
    json_t *shape, *size;
    json_int_t begin, end;
    if (json_unpack_ex(entry, &error, JSON_STRICT, "{s:s, s:o, s:[I, I]}", "dtype", &t.dtype, "shape", &shape, "data_offsets", &begin, &end) != 0)
        hd_app_fail("%s: tensor '%s' is not {dtype, shape, data_offsets: [begin, end]}: %s", file->path, name, error.text);
    if (begin < 0 || begin > end || (uint64_t)end > data_bytes)
        hd_app_fail("%s: tensor '%s' lies at bytes %lld to %lld, but the data has %zu bytes", file->path, name, (long long)begin, (long long)end, data_bytes);
    t.begin = (size_t)begin;
    t.end = (size_t)end;
    t.data = data + begin;

    size_t element = 0, at;
    for (int i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, t.dtype) == 0) { t.type = types[i].type; element = types[i].bytes; }
    if (!json_is_array(shape)) hd_app_fail("%s: tensor '%s' has a shape that is no array", file->path, name);
    if (json_array_size(shape) > HD_ST_RANK) hd_app_fail("%s: tensor '%s' has more than %d dimensions", file->path, name, HD_ST_RANK);
    uint64_t elements = 1;
    json_array_foreach(shape, at, size) {
        int64_t n = t.size[t.rank++] = json_integer_value(size);
        if (!json_is_integer(size) || n < 0) hd_app_fail("%s: tensor '%s' has a size in its shape that is no whole number from 0", file->path, name);
        if (n && elements > (UINT64_C(1) << 60) / (uint64_t)n) hd_app_fail("%s: tensor '%s' has an impossible shape", file->path, name);
        elements *= (uint64_t)n;
    }
    if (element && elements * element != t.end - t.begin)
        hd_app_fail("%s: tensor '%s' of type %s and shape %s needs %llu bytes, but its data_offsets hold %zu", file->path, name, t.dtype,
                    hd_app_shape(t.rank, t.size), (unsigned long long)(elements * element), t.end - t.begin);
    return t;
}

static void check_metadata(const hd_safetensors *file)
{
    const char *key;
    json_t *value;
    if (file->meta && !json_is_object(file->meta)) hd_app_fail("%s: __metadata__ is no object", file->path);
    json_object_foreach(file->meta, key, value)
        if (!json_is_string(value)) hd_app_fail("%s: __metadata__ '%s' is no text", file->path, key);
}

static int by_name(const void *a, const void *b) { return strcmp(((const hd_st_tensor *)a)->name, ((const hd_st_tensor *)b)->name); }

static int by_begin(const void *a, const void *b)
{
    const hd_st_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* Every byte of the data belongs to exactly one tensor, as the format demands. */
static void check_offsets(hd_safetensors *file, size_t data_bytes)
{
    size_t at = 0;
    const char *last = "the header";
    qsort(file->tensor, (size_t)file->count, sizeof *file->tensor, by_begin);
    for (int i = 0; i < file->count; i++) {
        const hd_st_tensor *t = &file->tensor[i];
        if (t->begin < at) hd_app_fail("%s: tensors '%s' and '%s' overlap", file->path, last, t->name);
        if (t->begin > at) hd_app_fail("%s: %zu bytes before tensor '%s' belong to no tensor", file->path, t->begin - at, t->name);
        at = t->end;
        last = t->name;
    }
    if (at != data_bytes) hd_app_fail("%s: %zu bytes at the end belong to no tensor", file->path, data_bytes - at);
}

void hd_safetensors_sort(hd_safetensors *file) { qsort(file->tensor, (size_t)file->count, sizeof *file->tensor, by_name); }

hd_safetensors *hd_safetensors_open(const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) return hd_safetensors_open_folder(path);
    hd_safetensors *file = hd_app_alloc(sizeof *file);
    file->path = path;
    file->map = hd_file_open(path);
    if (file->map.bytes < 8) hd_app_fail("%s: not a safetensors file: %zu bytes", path, file->map.bytes);
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | file->map.data[i];
    if (length > file->map.bytes - 8)
        hd_app_fail("%s: not a whole safetensors file: its header should have %llu bytes, but only %zu follow", path, (unsigned long long)length, file->map.bytes - 8);
    if (length > MAX_HEADER_BYTES) hd_app_fail("%s: its header has %llu bytes; at most %llu are read", path, (unsigned long long)length, (unsigned long long)MAX_HEADER_BYTES);

    json_error_t error;
    file->header = json_loadb((const char *)file->map.data + 8, length, JSON_REJECT_DUPLICATES, &error);
    if (!file->header) hd_app_fail("%s: not a safetensors file: header byte %d: %s", path, error.position, error.text);
    if (!json_is_object(file->header)) hd_app_fail("%s: not a safetensors file: its header is no object", path);
    file->meta = json_object_get(file->header, "__metadata__");
    check_metadata(file);

    const char *name;
    json_t *entry;
    size_t data_bytes = file->map.bytes - 8 - length;
    file->tensor = hd_app_alloc(json_object_size(file->header) * sizeof *file->tensor);
    json_object_foreach(file->header, name, entry)
        if (entry != file->meta) file->tensor[file->count++] = read_tensor(file, name, entry, file->map.data + 8 + length, data_bytes);
    check_offsets(file, data_bytes);
    hd_safetensors_sort(file);
    return file;
}

void hd_safetensors_close(hd_safetensors *file)
{
    for (int i = 0; i < file->parts; i++) hd_safetensors_close(file->part[i]);
    if (!file->parts) hd_file_close(file->map);
    json_decref(file->header);
    free(file->part);
    free(file->tensor);
    free(file);
}

const hd_st_tensor *hd_safetensors_find(const hd_safetensors *file, const char *name)
{
    hd_st_tensor key = { .name = name };
    return file->count ? bsearch(&key, file->tensor, (size_t)file->count, sizeof key, by_name) : NULL;
}

const char *hd_safetensors_meta(const hd_safetensors *file, const char *key) { return json_string_value(json_object_get(file->meta, key)); }

/* ---- values ----------------------------------------------------------------------------------------------------- */

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Shifted into place the exponent is 112 too small, which a product mends, for subnormal numbers too; infinity and NaN keep the highest
 * exponent. No branches: compilers make vectors of the loop below. */
static float from_f16(uint16_t h)
{
    const float magnitude = from_bits((uint32_t)(h & 0x7fff) << 13) * 0x1p112f;
    uint32_t bits;
    memcpy(&bits, &magnitude, 4);
    bits |= (uint32_t)(h & 0x8000) << 16;
    return from_bits(bits | ((h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0));
}

/* Returns the number of elements after checking the shape. */
static int64_t check_shape(const hd_st_tensor *t, int rank, const int64_t *size)
{
    int64_t want = hd_app_elements(rank, size), have = hd_app_elements(t->rank, t->size);
    bool same = rank == t->rank;
    for (int i = 0; same && i < rank; i++) same = size[i] == t->size[i];
    if (!same && !(want == 1 && have == 1))
        hd_app_fail("%s: tensor '%s' has shape %s; this model's has %s", t->path, t->name, hd_app_shape(t->rank, t->size), hd_app_shape(rank, size));
    return want;
}

int64_t hd_safetensors_check_f32(const hd_st_tensor *t, int rank, const int64_t *size)
{
    const int64_t elements = check_shape(t, rank, size);
    if (t->type != HD_ST_F32 && t->type != HD_ST_F16 && t->type != HD_ST_BF16 && t->type != HD_ST_F64)
        hd_app_fail("%s: tensor '%s' has type %s; valid: F32, F16, BF16, F64", t->path, t->name, t->dtype);
    return elements;
}

enum { CHUNK = 512 };                /* elements converted at once */

/* Elements at .. at + count - 1 of a tensor of a floating type, count <= CHUNK unless that is F32. */
static void convert(const hd_st_tensor *t, int64_t at, int64_t count, float *out)
{
    if (t->type == HD_ST_F32) {
        memcpy(out, t->data + 4 * at, 4 * (size_t)count);
    } else if (t->type == HD_ST_F64) {
        double value[CHUNK];
        memcpy(value, t->data + 8 * at, 8 * (size_t)count);
        for (int64_t i = 0; i < count; i++) out[i] = (float)value[i];
    } else {
        const bool half = t->type == HD_ST_F16;
        uint16_t bits[CHUNK];
        memcpy(bits, t->data + 2 * at, 2 * (size_t)count);
        for (int64_t i = 0; half && i < count; i++) out[i] = from_f16(bits[i]);
        for (int64_t i = 0; !half && i < count; i++) out[i] = from_bits((uint32_t)bits[i] << 16);
    }
}

void hd_safetensors_read_f32(const hd_st_tensor *t, int rank, const int64_t *size, float *out)
{
    const int64_t elements = hd_safetensors_check_f32(t, rank, size), step = t->type == HD_ST_F32 ? elements : CHUNK;
    for (int64_t at = 0; at < elements; at += step) convert(t, at, elements - at < step ? elements - at : step, out + at);
}

bool hd_safetensors_finite(const hd_st_tensor *t)
{
    const int64_t elements = hd_app_elements(t->rank, t->size);
    float value[CHUNK];
    for (int64_t at = 0; at < elements; at += CHUNK) {
        const int64_t count = elements - at < CHUNK ? elements - at : CHUNK;
        convert(t, at, count, value);
        float sum = 0;               /* 0, or NaN once some value is not finite */
        for (int64_t i = 0; i < count; i++) sum += value[i] * 0.0f;
        if (!(sum == 0)) return false;
    }
    return true;
}

void hd_safetensors_read_i32(const hd_st_tensor *t, int rank, const int64_t *size, int32_t *out)
{
    int64_t elements = check_shape(t, rank, size);
    const unsigned char *data = t->data;
    if (t->type == HD_ST_I32) {
        memcpy(out, data, (size_t)elements * 4);
    } else if (t->type == HD_ST_I64) {
        for (int64_t i = 0; i < elements; i++) {
            int64_t value;
            memcpy(&value, data + 8 * i, 8);
            if (value < INT32_MIN || value > INT32_MAX) hd_app_fail("%s: tensor '%s', element %lld: %lld does not fit 32 bits", t->path, t->name, (long long)i, (long long)value);
            out[i] = (int32_t)value;
        }
    } else if (t->type == HD_ST_U8) {
        for (int64_t i = 0; i < elements; i++) out[i] = data[i];
    } else {
        hd_app_fail("%s: tensor '%s' has type %s; valid: I32, I64, U8", t->path, t->name, t->dtype);
    }
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

enum { ALIGN = 64 };                 /* of the data in the file, so that a program can use it where it is mapped (weights_open.c) */

void hd_safetensors_write(const char *path, const hd_st_item *item, int count, const hd_st_meta *meta, int metas)
{
    json_t *pairs = json_object(), *header = json_pack("{s:o}", "__metadata__", pairs);
    bool made = header != NULL;
    for (int i = 0; i < metas; i++) made &= json_object_set_new(pairs, meta[i].key, json_string(meta[i].value)) == 0;
    json_int_t offset = 0;
    for (int i = 0; i < count; i++) {
        json_int_t end = offset + 4 * hd_app_elements(item[i].rank, item[i].size);
        json_t *shape = json_array();
        for (int d = 0; d < item[i].rank; d++) made &= json_array_append_new(shape, json_integer(item[i].size[d])) == 0;
        made &= json_object_set_new(header, item[i].name, json_pack("{s:s, s:o, s:[I, I]}", "dtype", item[i].type == HD_ST_I32 ? "I32" : "F32", "shape", shape,
                                                                    "data_offsets", offset, end)) == 0;
        offset = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    if (!made || !text) hd_app_fail("%s: its header cannot be made: no memory is left, or a tensor's name is not UTF-8", path);
    json_decref(header);

    size_t length = strlen(text), padding = (ALIGN - (8 + length) % ALIGN) % ALIGN;
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)((uint64_t)(length + padding) >> 8 * i);
    hd_file_writer writer;
    hd_file_begin(&writer, path);
    hd_file_put(&writer, prefix, 8);
    hd_file_put(&writer, text, length);
    hd_file_put(&writer, memset((char[ALIGN]){ 0 }, ' ', ALIGN), padding);
    for (int i = 0; i < count; i++) hd_file_put(&writer, item[i].data, 4 * (size_t)hd_app_elements(item[i].rank, item[i].size));
    hd_file_commit(&writer);
    free(text);
}
