/* A model's weights: initialised, read from and written to safetensors files. */
#ifndef HD_WEIGHTS_H
#define HD_WEIGHTS_H

#include "app.h"
#include "safetensors.h"

/* Every weight from its init kind, the seed and its name alone: any program of the same spec starts alike. */
void hd_weights_initialise(void *area, uint64_t seed, const hd_threads *);
/* Reads every weight of the model as tensor prefix + name. A name `transformer.X` also matches `X` and the other way round (model., gpt_neox. too).
 * Missing tensors and other shapes fail, named; surplus ones fail if prefix is empty, but for buffers that checkpoints are known
 * to carry (masks; the head when it is tied to the embedding). */
void hd_weights_read(const hd_safetensors *, const char *prefix, void *area);
/* The same in two steps: the tensors in the order of hd_model.weight, malloc'ed; then their values. */
const hd_st_tensor **hd_weights_match(const hd_safetensors *, const char *prefix);
void hd_weights_copy(const hd_st_tensor *const *found, void *area);
void hd_weights_load(const char *path, void *area);              /* open, read with prefix "", close; warns if some are not finite */
void hd_weights_warn(const char *path, const char *tensor);      /* that it holds values that are not finite */

/* The weights of a command that does not train, from a safetensors file, a checkpoint folder or a file of `heddle pack`; path NULL: from
 * the program itself, if it was built with --embed. Sets memory->weights, and memory->packed where panels for this program are there too.
 * A file that lies as the area does (what `train` and `heddle pack` write) is used where it is mapped: nothing is read before it is needed.
 * Others are copied. If some are not finite, it is said; but of mapped ones only below 32 MB. writable: copied always.
 * Errors   as hd_weights_read; a file of `heddle pack` for another model, damaged, or not whole */
void hd_weights_need(const char *command, const char *path);     /* fails if path is NULL and the program has no weights of its own */
void hd_weights_open(const char *command, const char *path, bool writable, hd_memory *memory);
/* Packs the weights, into memory of their own, for an entry that reads them packed, unless memory->packed is there. */
void hd_weights_pack(const hd_entry_info *, hd_memory *memory, const hd_threads *);
/* Appends one item for each weight, named prefix + name; returns how many. */
int hd_weights_items(hd_st_item *, const char *prefix, const void *area);
void hd_weights_save(const char *path, const void *area, const hd_st_meta *, int metas);
/* Name of the first weight with a non-finite element in the area, NULL if there is none. */
const char *hd_weights_not_finite(const void *area);

#endif
