/* Weights at build time: checked as programs check them, and written as both areas that entries read. */
#ifndef HD_DRIVER_WEIGHTS_H
#define HD_DRIVER_WEIGHTS_H

#include "../graph/graph.h"

/* One matrix of the packed weights: [k][n] (transposed: stored [n][k]), ld elements from row to row as stored, at byte `from` of the
 * weights; its panels [ceil(n / nr)][k][nr] at byte `to` of the packed weights. */
typedef struct hd_packed_matrix { int64_t from, to, k, n, ld; bool transposed; int nr; } hd_packed_matrix;

/* Both areas of a model. */
typedef struct hd_weights_layout {
    const hd_graph *graph;
    const char *target;
    const int64_t *offset;                 /* of each weight, by node id */
    int64_t weights_bytes, packed_bytes;
    int matrices; hd_packed_matrix *matrix;
    uint64_t weights_hash, panels_hash;
} hd_weights_layout;

/* Whether a checkpoint folder holds weights. */
bool hd_weights_in_folder(const char *path);
/* Fails, with the line that the program would print, unless `path` (a safetensors file or a checkpoint folder) holds all weights of
 * the model with their shapes and no others; warns once where values are not finite. */
void hd_weights_check(const hd_weights_layout *, const char *path);
/* The same, and writes the file of heddle pack (runtime/app/packed.h), which appears under its name only when it is whole. */
void hd_weights_pack_file(const hd_weights_layout *, const char *path, const char *out);
/* The same, and writes an object file for the linker: both areas as read-only data, NAME_weights and NAME_packed. */
void hd_weights_object(const hd_weights_layout *, const char *path, const char *out);

#endif
