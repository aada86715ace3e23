#include "tensor_file.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

void hd_tensor_file_write(const char *path, int tensors, const hd_tensor_data *t)
{
    json_t *header = json_object();
    int64_t at = 0;
    for (int i = 0; i < tensors; i++) {
        json_t *shape = json_array();
        for (int k = 0; k < t[i].shape.rank; k++) json_array_append_new(shape, json_integer(t[i].shape.size[k]));
        const int64_t end = at + 4 * hd_elements(&t[i].shape);
        json_object_set_new(header, t[i].name, json_pack("{s:s, s:o, s:[I, I]}", "dtype", t[i].dtype == HD_I32 ? "I32" : "F32", "shape", shape, "data_offsets", (json_int_t)at, (json_int_t)end));
        at = end;
    }
    char *json = json_dumps(header, JSON_COMPACT);
    const uint64_t length = (strlen(json) + 7) / 8 * 8;
    hd_text out = { 0 };
    hd_text_addn(&out, (const char *)&length, 8);
    hd_text_add(&out, "%s%*s", json, (int)(length - strlen(json)), "");
    for (int i = 0; i < tensors; i++) hd_text_addn(&out, t[i].data, 4 * (size_t)hd_elements(&t[i].shape));
    free(json);
    json_decref(header);
    hd_write_file(path, out.data, out.length);
}

hd_tensor_data hd_tensor_file_read(const char *path, const char *name)
{
    const hd_where where = { path, 0 };
    size_t bytes = 0;
    char *file = hd_read_file(path, &bytes);
    uint64_t length = 0;
    if (file && bytes >= 8) memcpy(&length, file, 8);
    if (!file || bytes < 8 || length > bytes - 8) hd_fail(where, "is no safetensors file");
    json_t *header = json_loadb(file + 8, length, 0, NULL), *shape, *size;
    const json_t *entry = json_object_get(header, name);
    const char *dtype;
    json_int_t from, to;
    size_t k;
    if (!entry || json_unpack((json_t *)entry, "{s:s, s:o, s:[I, I]}", "dtype", &dtype, "shape", &shape, "data_offsets", &from, &to)) hd_fail(where, "has no tensor \"%s\"", name);
    hd_tensor_data t = { .name = hd_strdup(name), .dtype = strcmp(dtype, "I32") ? HD_F32 : HD_I32 };
    if (t.dtype == HD_F32 && strcmp(dtype, "F32")) hd_fail(where, "tensor \"%s\" is %s, not F32 or I32", name, dtype);
    json_array_foreach(shape, k, size) if (t.shape.rank < HD_MAX_RANK) t.shape.size[t.shape.rank++] = json_integer_value(size);
    if (from < 0 || to > (json_int_t)(bytes - 8 - length) || to - from != 4 * hd_elements(&t.shape)) hd_fail(where, "tensor \"%s\" lies outside the file", name);
    char *copy = hd_alloc((size_t)(to - from) + 1);
    memcpy(copy, file + 8 + length + from, (size_t)(to - from));
    t.data = copy;
    json_decref(header);
    return t;
}
