/* The two files of a training run.
 *
 * W.state is the truth: raw weights, moments, averages, best weights, settings and position, one safetensors file that
 * appears whole or not at all. W, the best weights alone, is derived from it and written after it: whenever the program
 * is killed, W.state resumes bit-identically, and W holds good weights of the same run, at most one checkpoint older. */
#ifndef HD_CHECKPOINT_H
#define HD_CHECKPOINT_H

#include "safetensors.h"
#include "trainer.h"

/* The numeric settings by name: flags of train, keys of the checkpoint, lines of the log. */
typedef struct hd_setting { const char *name, *help; bool whole; size_t offset; double low, high; } hd_setting;
enum { HD_SETTINGS = 10 };
extern const hd_setting hd_settings[HD_SETTINGS];
void *hd_setting_at(hd_training_info *, const hd_setting *);
double hd_setting_value(const hd_training_info *, const hd_setting *);

void hd_checkpoint_write(const hd_trainer *, const char *path);           /* path.state, then path */
void hd_checkpoint_write_weights(const hd_trainer *, const char *path);   /* path alone */
/* Settings, seed, held-out part and position of path.state; areas are read later, when they are mapped. */
hd_safetensors *hd_checkpoint_open(hd_trainer *, const char *path, uint64_t *data_digest);
void hd_checkpoint_read_areas(const hd_safetensors *, hd_trainer *);

#endif
