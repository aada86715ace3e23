/* safetensors files of named f32 and i32 tensors, as the checks hand them to programs and read them back. */
#ifndef HD_TENSOR_FILE_H
#define HD_TENSOR_FILE_H
#include "../graph/graph.h"
typedef struct hd_tensor_data { const char *name; hd_dtype dtype; hd_shape shape; const void *data; } hd_tensor_data;
void hd_tensor_file_write(const char *path, int tensors, const hd_tensor_data *tensor);
/* The tensor of that name, data in the arena; fails with the file's name when it is not there, not f32/i32, or out of range. */
hd_tensor_data hd_tensor_file_read(const char *path, const char *name);
#endif
