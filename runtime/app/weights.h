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
void hd_weights_load(const char *path, void *area);              /* open, read with prefix "", close; warns if some are not finite */
/* Appends one item for each weight, named prefix + name; returns how many. */
int hd_weights_items(hd_st_item *, const char *prefix, const void *area);
void hd_weights_save(const char *path, const void *area, const hd_st_meta *, int metas);
/* Name of the first weight with a non-finite element in the area, NULL if there is none. */
const char *hd_weights_not_finite(const void *area);

#endif
