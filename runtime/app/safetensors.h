/* safetensors: named tensors in one file. 8 bytes little-endian header length, a JSON object
 * {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text"}}, then the data.
 * Source: the format's README (github.com/huggingface/safetensors). A file is taken as hostile: nothing in it is believed
 * before it is checked. Jansson reads the header; names and dtypes point into what it read. */
#ifndef HD_SAFETENSORS_H
#define HD_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file.h"

enum { HD_ST_RANK = 8 };
typedef enum hd_st_type { HD_ST_F32, HD_ST_I32, HD_ST_F16, HD_ST_BF16, HD_ST_F64, HD_ST_I64, HD_ST_U8, HD_ST_OTHER } hd_st_type;

typedef struct hd_st_tensor {
    const char *name, *dtype, *path; /* dtype as the file spells it; path: of the file it lies in */
    hd_st_type type;
    int rank;
    int64_t size[HD_ST_RANK];
    size_t begin, end;               /* bytes, from the start of the data */
    const unsigned char *data;       /* no alignment is promised */
} hd_st_tensor;

typedef struct hd_safetensors {
    const char *path;
    hd_file_map map;
    struct json_t *header, *meta;    /* names point into the header; meta: its __metadata__, or NULL */
    int count; hd_st_tensor *tensor; /* sorted by name */
    int parts; struct hd_safetensors **part;      /* a folder's shards, whose tensors these are; 0 for a file */
} hd_safetensors;

/* Fails with "path: what is wrong" for anything that is not a whole, consistent file. path may be a checkpoint folder:
 * model.safetensors, or the shards of model.safetensors.index.json as if they were one file. */
hd_safetensors *hd_safetensors_open(const char *path);
hd_safetensors *hd_safetensors_open_folder(const char *path);      /* shards.c */
void hd_safetensors_sort(hd_safetensors *);                        /* tensors, by name */
void hd_safetensors_close(hd_safetensors *);
const hd_st_tensor *hd_safetensors_find(const hd_safetensors *, const char *name);   /* NULL: not there */
const char *hd_safetensors_meta(const hd_safetensors *, const char *key);            /* NULL: not there */

/* Copies a tensor, converting: to f32 from F32, F16, BF16, F64; to i32 from I32, I64, U8 (values outside i32 fail).
 * Shapes must agree (one element agrees with any shape of one element). Fails with path, name and both shapes. */
void hd_safetensors_read_f32(const hd_st_tensor *, int rank, const int64_t *size, float *out);
void hd_safetensors_read_i32(const hd_st_tensor *, int rank, const int64_t *size, int32_t *out);
/* Fails as reading to f32 would; returns the elements. Whether all values are finite, of a tensor for which this passed. */
int64_t hd_safetensors_check_f32(const hd_st_tensor *, int rank, const int64_t *size);
bool hd_safetensors_finite(const hd_st_tensor *);

/* Writes 4-byte tensors atomically, one after the other in this order from a multiple of 64 bytes on. Fails with a message; the previous file then stands. */
typedef struct hd_st_meta { const char *key, *value; } hd_st_meta;      /* of __metadata__ */
typedef struct hd_st_item { const char *name; hd_st_type type; int rank; const int64_t *size; const void *data; } hd_st_item;
void hd_safetensors_write(const char *path, const hd_st_item *, int count, const hd_st_meta *, int metas);

#endif
