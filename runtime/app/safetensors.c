/* Reading and writing safetensors files (safetensors.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "safetensors.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "json.h"

#define MAX_HEADER_BYTES ((uint64_t)100 << 20)

static const struct { const char *name; hd_st_type type; size_t bytes; } types[] = {
    { "F32", HD_ST_F32, 4 }, { "I32", HD_ST_I32, 4 }, { "F16", HD_ST_F16, 2 }, { "BF16", HD_ST_BF16, 2 }, { "F64", HD_ST_F64, 8 },
    { "I64", HD_ST_I64, 8 }, { "U8", HD_ST_U8, 1 }, { "BOOL", HD_ST_OTHER, 1 }, { "I8", HD_ST_OTHER, 1 }, { "I16", HD_ST_OTHER, 2 },
    { "U16", HD_ST_OTHER, 2 }, { "U32", HD_ST_OTHER, 4 }, { "U64", HD_ST_OTHER, 8 }, { "F8_E4M3", HD_ST_OTHER, 1 }, { "F8_E5M2", HD_ST_OTHER, 1 },
};
enum { TYPES = sizeof types / sizeof types[0] };

/* ---- the header's JSON ------------------------------------------------------------------------------------------ */

typedef struct reader { hd_safetensors *file; char *at; const char *end; int capacity, meta_capacity; } reader;

static _Noreturn void fail_header(const reader *r, const char *expected)
{
    hd_app_fail("%s: not a safetensors file: header byte %zu: expected %s", r->file->path, (size_t)(r->at - r->file->header), expected);
}

static void skip_space(reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) r->at++;
}

static bool accept(reader *r, char c)
{
    skip_space(r);
    if (r->at >= r->end || *r->at != c) return false;
    r->at++;
    return true;
}

static void expect(reader *r, char c)
{
    char text[] = { '\'', c, '\'', '\0' };
    if (!accept(r, c)) fail_header(r, text);
}

static unsigned hex4(reader *r)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        char c = r->at < r->end ? *r->at : '\0';
        if (c >= '0' && c <= '9') value = value * 16 + (unsigned)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f') value = value * 16 + (unsigned)((c | 32) - 'a') + 10;
        else fail_header(r, "four hexadecimal digits after \\u");
    }
    return value;
}

static char *put_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xc0 | code >> 6);
        *out++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *out++ = (char)(0xe0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    } else {
        *out++ = (char)(0xf0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 63));
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    }
    return out;
}

/* A string, unescaped in place: what it means is never longer than how it is written. */
static char *read_string(reader *r)
{
    expect(r, '"');
    char *start = r->at, *out = r->at;
    while (r->at < r->end && *r->at != '"') {
        char c = *r->at++;
        if ((unsigned char)c < 0x20) fail_header(r, "no control character in a string");
        if (c != '\\') {
            *out++ = c;
            continue;
        }
        char escape = r->at < r->end ? *r->at++ : '\0';
        const char *from = "\"\\/bfnrt", *to = "\"\\/\b\f\n\r\t", *found = escape ? strchr(from, escape) : NULL;
        if (found) {
            *out++ = to[found - from];
        } else if (escape == 'u') {
            unsigned code = hex4(r);
            if (code >= 0xd800 && code < 0xdc00 && r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u') {
                r->at += 2;
                unsigned low = hex4(r);
                if (low < 0xdc00 || low > 0xdfff) fail_header(r, "the second half of a surrogate pair");
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            } else if (code >= 0xd800 && code < 0xe000) {
                fail_header(r, "a whole surrogate pair");
            }
            if (code == 0) fail_header(r, "no NUL in a string");
            out = put_utf8(out, code);
        } else {
            fail_header(r, "a JSON escape");
        }
    }
    if (r->at >= r->end) fail_header(r, "the end of a string");
    r->at++;
    *out = '\0';             /* at most the closing quote is overwritten */
    return start;
}

static uint64_t read_number(reader *r)
{
    skip_space(r);
    const char *start = r->at;
    uint64_t value = 0;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        if (value > (UINT64_C(1) << 62) / 10) fail_header(r, "a number below 2^62");
        value = value * 10 + (uint64_t)(*r->at - '0');
    }
    if (r->at == start) fail_header(r, "a whole number, not negative");
    return value;
}

static void read_metadata(reader *r)
{
    hd_safetensors *file = r->file;
    expect(r, '{');
    if (accept(r, '}')) return;
    do {
        if (file->metas == r->meta_capacity) {
            r->meta_capacity = r->meta_capacity ? 2 * r->meta_capacity : 16;
            file->meta = realloc(file->meta, (size_t)r->meta_capacity * sizeof *file->meta);
            if (!file->meta) hd_app_fail("%s: out of memory", file->path);
        }
        char *key = read_string(r);
        expect(r, ':');
        file->meta[file->metas].key = key;
        file->meta[file->metas++].value = read_string(r);
    } while (accept(r, ','));
    expect(r, '}');
}

static void read_tensor(reader *r, char *name)
{
    hd_safetensors *file = r->file;
    hd_st_tensor t = { .name = name, .type = HD_ST_OTHER };
    bool has_shape = false, has_offsets = false;
    size_t element = 0;
    expect(r, '{');
    do {
        char *key = read_string(r);
        expect(r, ':');
        if (strcmp(key, "dtype") == 0 && !t.dtype) {
            t.dtype = read_string(r);
            for (int i = 0; i < TYPES; i++)
                if (strcmp(types[i].name, t.dtype) == 0) { t.type = types[i].type; element = types[i].bytes; }
        } else if (strcmp(key, "shape") == 0 && !has_shape) {
            has_shape = true;
            expect(r, '[');
            if (accept(r, ']')) continue;
            do {
                if (t.rank == HD_ST_RANK) hd_app_fail("%s: tensor '%s' has more than %d dimensions", file->path, name, HD_ST_RANK);
                t.size[t.rank++] = (int64_t)read_number(r);
            } while (accept(r, ','));
            expect(r, ']');
        } else if (strcmp(key, "data_offsets") == 0 && !has_offsets) {
            has_offsets = true;
            expect(r, '[');
            t.begin = (size_t)read_number(r);
            expect(r, ',');
            t.end = (size_t)read_number(r);
            expect(r, ']');
        } else {
            hd_app_fail("%s: tensor '%s' has an unknown or repeated key '%s'; valid: dtype, shape, data_offsets", file->path, name, key);
        }
    } while (accept(r, ','));
    expect(r, '}');
    if (!t.dtype || !has_shape || !has_offsets) hd_app_fail("%s: tensor '%s' lacks %s", file->path, name, !t.dtype ? "dtype" : has_shape ? "data_offsets" : "shape");

    size_t data_bytes = file->map.bytes - (size_t)(r->end - file->header) - 8;
    if (t.begin > t.end || t.end > data_bytes)
        hd_app_fail("%s: tensor '%s' lies at bytes %zu to %zu, but the data has %zu bytes", file->path, name, t.begin, t.end, data_bytes);
    uint64_t elements = 1;
    for (int i = 0; i < t.rank; i++) {
        if (t.size[i] && elements > (UINT64_C(1) << 60) / (uint64_t)t.size[i]) hd_app_fail("%s: tensor '%s' has an impossible shape", file->path, name);
        elements *= (uint64_t)t.size[i];
    }
    if (element && elements * element != t.end - t.begin)
        hd_app_fail("%s: tensor '%s' of type %s and shape %s needs %llu bytes, but its data_offsets hold %zu", file->path, name, t.dtype,
                    hd_app_shape(t.rank, t.size), (unsigned long long)(elements * element), t.end - t.begin);
    t.data = file->map.data + 8 + (r->end - file->header) + t.begin;
    if (file->count == r->capacity) {
        r->capacity = r->capacity ? 2 * r->capacity : 64;
        file->tensor = realloc(file->tensor, (size_t)r->capacity * sizeof *file->tensor);
        if (!file->tensor) hd_app_fail("%s: out of memory", file->path);
    }
    file->tensor[file->count++] = t;
}

/* ---- whole files ------------------------------------------------------------------------------------------------ */

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

hd_safetensors *hd_safetensors_open(const char *path)
{
    hd_safetensors *file = hd_app_alloc(sizeof *file);
    file->path = path;
    file->map = hd_file_open(path);
    if (file->map.bytes < 8) hd_app_fail("%s: not a safetensors file: %zu bytes", path, file->map.bytes);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | file->map.data[i];
    if (header > file->map.bytes - 8)
        hd_app_fail("%s: not a whole safetensors file: its header should have %llu bytes, but only %zu follow", path, (unsigned long long)header, file->map.bytes - 8);
    if (header > MAX_HEADER_BYTES) hd_app_fail("%s: its header has %llu bytes; at most %llu are read", path, (unsigned long long)header, (unsigned long long)MAX_HEADER_BYTES);
    file->header = hd_app_alloc(header + 1);
    memcpy(file->header, file->map.data + 8, header);

    reader r = { .file = file, .at = file->header, .end = file->header + header };
    bool has_metadata = false;
    expect(&r, '{');
    if (!accept(&r, '}')) {
        do {
            char *name = read_string(&r);
            expect(&r, ':');
            if (strcmp(name, "__metadata__") == 0) {
                if (has_metadata) hd_app_fail("%s: __metadata__ is there twice", path);
                has_metadata = true;
                read_metadata(&r);
            } else {
                read_tensor(&r, name);
            }
        } while (accept(&r, ','));
        expect(&r, '}');
    }
    skip_space(&r);
    if (r.at != r.end) fail_header(&r, "nothing after the last '}'");
    check_offsets(file, file->map.bytes - 8 - header);
    qsort(file->tensor, (size_t)file->count, sizeof *file->tensor, by_name);
    for (int i = 1; i < file->count; i++)
        if (strcmp(file->tensor[i - 1].name, file->tensor[i].name) == 0) hd_app_fail("%s: tensor '%s' is there twice", path, file->tensor[i].name);
    return file;
}

void hd_safetensors_close(hd_safetensors *file)
{
    hd_file_close(file->map);
    free(file->header);
    free(file->tensor);
    free(file->meta);
    free(file);
}

const hd_st_tensor *hd_safetensors_find(const hd_safetensors *file, const char *name)
{
    hd_st_tensor key = { .name = name };
    return file->count ? bsearch(&key, file->tensor, (size_t)file->count, sizeof key, by_name) : NULL;
}

const char *hd_safetensors_meta(const hd_safetensors *file, const char *key)
{
    for (int i = 0; i < file->metas; i++)
        if (strcmp(file->meta[i].key, key) == 0) return file->meta[i].value;
    return NULL;
}

/* ---- values ----------------------------------------------------------------------------------------------------- */

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static float from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
    if (exponent == 31) return from_bits(sign | 0x7f800000 | fraction << 13);
    return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* Returns the number of elements after checking the shape. */
static int64_t check_shape(const hd_safetensors *file, const hd_st_tensor *t, int rank, const int64_t *size)
{
    int64_t want = hd_app_elements(rank, size), have = hd_app_elements(t->rank, t->size);
    bool same = rank == t->rank;
    for (int i = 0; same && i < rank; i++) same = size[i] == t->size[i];
    if (!same && !(want == 1 && have == 1))
        hd_app_fail("%s: tensor '%s' has shape %s; this model's has %s", file->path, t->name, hd_app_shape(t->rank, t->size), hd_app_shape(rank, size));
    return want;
}

void hd_safetensors_read_f32(const hd_safetensors *file, const hd_st_tensor *t, int rank, const int64_t *size, float *out)
{
    int64_t elements = check_shape(file, t, rank, size);
    const unsigned char *data = t->data;
    if (t->type == HD_ST_F32) {
        memcpy(out, data, (size_t)elements * 4);
    } else if (t->type == HD_ST_F16 || t->type == HD_ST_BF16) {
        for (int64_t i = 0; i < elements; i++) {
            uint16_t bits;
            memcpy(&bits, data + 2 * i, 2);
            out[i] = t->type == HD_ST_F16 ? from_f16(bits) : from_bits((uint32_t)bits << 16);
        }
    } else if (t->type == HD_ST_F64) {
        for (int64_t i = 0; i < elements; i++) {
            double value;
            memcpy(&value, data + 8 * i, 8);
            out[i] = (float)value;
        }
    } else {
        hd_app_fail("%s: tensor '%s' has type %s; valid: F32, F16, BF16, F64", file->path, t->name, t->dtype);
    }
}

void hd_safetensors_read_i32(const hd_safetensors *file, const hd_st_tensor *t, int rank, const int64_t *size, int32_t *out)
{
    int64_t elements = check_shape(file, t, rank, size);
    const unsigned char *data = t->data;
    if (t->type == HD_ST_I32) {
        memcpy(out, data, (size_t)elements * 4);
    } else if (t->type == HD_ST_I64) {
        for (int64_t i = 0; i < elements; i++) {
            int64_t value;
            memcpy(&value, data + 8 * i, 8);
            if (value < INT32_MIN || value > INT32_MAX) hd_app_fail("%s: tensor '%s', element %lld: %lld does not fit 32 bits", file->path, t->name, (long long)i, (long long)value);
            out[i] = (int32_t)value;
        }
    } else if (t->type == HD_ST_U8) {
        for (int64_t i = 0; i < elements; i++) out[i] = data[i];
    } else {
        hd_app_fail("%s: tensor '%s' has type %s; valid: I32, I64, U8", file->path, t->name, t->dtype);
    }
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

void hd_safetensors_write(const char *path, const hd_st_item *item, int count, const hd_st_meta *meta, int metas)
{
    char *header = NULL;
    size_t length = 0, offset = 0;
    FILE *out = open_memstream(&header, &length);
    if (!out) hd_app_fail("%s: out of memory", path);
    fputs("{\"__metadata__\":{", out);
    for (int i = 0; i < metas; i++) {
        if (i) fputc(',', out);
        hd_json_string(out, meta[i].key);
        fputc(':', out);
        hd_json_string(out, meta[i].value);
    }
    fputc('}', out);
    for (int i = 0; i < count; i++) {
        size_t bytes = 4 * (size_t)hd_app_elements(item[i].rank, item[i].size);
        fputc(',', out);
        hd_json_string(out, item[i].name);
        fprintf(out, ":{\"dtype\":\"%s\",\"shape\":[", item[i].type == HD_ST_I32 ? "I32" : "F32");
        for (int d = 0; d < item[i].rank; d++) fprintf(out, "%s%lld", d ? "," : "", (long long)item[i].size[d]);
        fprintf(out, "],\"data_offsets\":[%zu,%zu]}", offset, offset + bytes);
        offset += bytes;
    }
    fputc('}', out);
    if (fclose(out) != 0) hd_app_fail("%s: out of memory", path);

    size_t padding = (8 - length % 8) % 8;
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)((uint64_t)(length + padding) >> 8 * i);
    hd_file_writer writer;
    hd_file_begin(&writer, path);
    hd_file_put(&writer, prefix, 8);
    hd_file_put(&writer, header, length);
    hd_file_put(&writer, "        ", padding);
    for (int i = 0; i < count; i++) hd_file_put(&writer, item[i].data, 4 * (size_t)hd_app_elements(item[i].rank, item[i].size));
    hd_file_commit(&writer);
    free(header);
}
