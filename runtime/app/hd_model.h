/* What a generated program tells the application part about its model: one constant table, written by the compiler
 * into MODEL_info.c of executables (an embedded model does without). */
#ifndef HD_MODEL_H
#define HD_MODEL_H

#include <stdbool.h>
#include "../core/hd_core.h"

typedef enum hd_type { HD_TYPE_F32, HD_TYPE_I32 } hd_type;
enum { HD_RANK = 6 };

/* An input or output of an entry. */
typedef struct hd_tensor { const char *name; hd_type type; int rank; int64_t size[HD_RANK]; } hd_tensor;

/* A weight: where it lies in the weight area (gradients and moments lie at the same offsets of their areas), and how it starts
 * (init 0: constant `scale`; 1: normal of standard deviation `scale`; 2: uniform in +-scale). */
typedef struct hd_weight { const char *name; int rank; int64_t size[HD_RANK]; size_t offset; int init; double scale; bool decay; } hd_weight;

/* One kernel call of an entry, in call order. flops and bytes are what the step must do and move at the least. */
typedef struct hd_step { const char *kernel, *label, *where; double flops, bytes; } hd_step;

/* Memory handed to an entry. All areas 64-byte aligned and owned by the caller. */
typedef struct hd_memory {
    void *weights;             /* model.weights_bytes; written by train_step only */
    void *state;               /* model.state_bytes: gradients, then first moments, then second moments; NULL unless the entry trains */
    void *scratch;             /* entry.scratch_bytes + threads * entry.local_bytes; contents never matter between calls */
} hd_memory;

typedef struct hd_entry_info {
    const char *name;
    int inputs, outputs;
    const hd_tensor *input, *output;
    size_t scratch_bytes, local_bytes, lower_bound_bytes;   /* lower bound: most bytes live at once, whatever the plan */
    bool causal, trains;
    /* tensors: inputs then outputs. sequences, used: how many of the leading batch rows and of their positions matter
     * (causal entries; 0: all). Returns 0, or -1 when threads->count is below 1. */
    int (*call)(const hd_memory *, const hd_threads *, void *const *tensors, int sequences, int used);
    int steps; const hd_step *step;
    double flops;
} hd_entry_info;

typedef struct hd_pattern_info { const char *name; int64_t queries, keys, kept_pairs; double density; } hd_pattern_info;

/* Defaults of the spec's hd.training; --KEY VALUE overrides each. */
typedef struct hd_training_info {
    bool present;
    double lr, min_lr, beta1, beta2, epsilon, decay, clip, average;   /* min_lr: fraction of lr where the cosine ends; average: EMA decay, 0 off */
    int64_t warmup, batch;
} hd_training_info;

typedef struct hd_model_info {
    const char *name, *version, *spec, *target, *compiler;
    const char *kind;                         /* "language_model" or "ops" */
    int64_t length, vocab, batch;             /* 0 where they mean nothing */
    int ahead;                                /* language models: logits at position t are for token t + ahead, 1 or 0 */
    int64_t parameters;
    size_t weights_bytes, state_bytes;
    int weights; const hd_weight *weight;
    int entries; const hd_entry_info *entry;
    int patterns; const hd_pattern_info *pattern;
    int configs; const char *const (*config)[2];
    hd_training_info training;
} hd_model_info;

extern const hd_model_info hd_model;          /* defined by the generated MODEL_info.c */
int hd_app_main(int argc, char **argv);       /* the program: runtime/app/main.c */

#endif
