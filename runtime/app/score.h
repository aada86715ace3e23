/* Held-out loss by the `loss` entry: nll of chosen positions, summed in a fixed order. */
#ifndef HD_SCORE_H
#define HD_SCORE_H

#include "app.h"
#include "data.h"

typedef struct hd_scorer {
    const hd_entry_info *entry;
    void **tensor;                   /* inputs then outputs, in a block of hd_app_tensors_bytes */
    int tokens, targets, nll;        /* indices in tensor */
} hd_scorer;

typedef struct hd_score { double nll; int64_t positions; } hd_score;   /* nll in nats, summed */

/* Names the entry's tensors; `block` holds them. Fails if the model's loss entry is not as a language model's. */
void hd_score_bind(hd_scorer *, void *block);
/* Windows first, first + every, ... (count of them) of the held-out part at this stride. */
hd_score hd_score_windows(const hd_scorer *, const hd_memory *, const hd_threads *, const hd_data *, int64_t stride, int64_t first, double every, int64_t count,
                          void (*progress)(int64_t done, int64_t all));

#endif
