/* Training in memory: one run's settings, position and areas, and the steps that advance it. No files but data.
 *
 * Everything a step does is a function of (weights, moments, averages, settings, seed, step): neither time nor the number
 * of threads enters, so a run that is stopped at any step and resumed ends in the same bits. */
#ifndef HD_TRAINER_H
#define HD_TRAINER_H

#include "app.h"
#include "data.h"
#include "score.h"

/* The hyper input of train_step, as the compiler lays it out (compiler/graph/graph.h). */
enum { HD_HYPER_LR, HD_HYPER_BETA1, HD_HYPER_BETA2, HD_HYPER_EPSILON, HD_HYPER_DECAY, HD_HYPER_CLIP,
       HD_HYPER_CORRECTION1, HD_HYPER_CORRECTION2,    /* 1 - beta^t, t = 1 at the first step */
       HD_HYPER_SCALE,                                /* gradients are multiplied by this first: 1 / micro-batches */
       HD_HYPER_ACCUMULATE,                           /* 0: gradients are overwritten, 1: added to */
       HD_HYPER_UPDATE,                               /* 0: only accumulate, 1: clip and update the weights */
       HD_HYPER_COUNT = 16 };

/* Where a run stands: everything beside the areas that the next step depends on. */
typedef struct hd_position {
    int64_t step, steps;             /* steps done; steps of the whole run */
    int64_t best_step;               /* step of the best held-out loss so far */
    double best, previous;           /* nats; previous: of the evaluation before */
    int64_t rises;                   /* evaluations in a row that were above the one before */
    bool said_overfit;
} hd_position;

typedef struct hd_trainer {
    hd_training_info settings;
    uint64_t seed;
    double held_out;
    hd_position at;

    hd_data data;
    hd_train_memory memory;
    const hd_threads *threads;
    hd_scorer scorer;
    const hd_entry_info *entry;      /* train_step */
    void **tensor;                   /* of train_step: inputs then outputs */
    int tokens, targets, hyper, random, loss, norm;   /* indices in tensor; random -1: the model has no dropout */

    int64_t every, eval_spans;       /* steps between evaluations; windows of each */
    double last_loss, last_norm;     /* of the last step, nats */
    const char *not_finite;          /* what was not finite when a step or an evaluation failed */
} hd_trainer;

/* Binds entries and tensors to memory; settings, seed, data and at.steps are set. */
void hd_trainer_bind(hd_trainer *);
/* Decides evaluations from the number of steps and the entries' FLOPs alone: at most 3 % of the run's arithmetic. */
void hd_trainer_plan(hd_trainer *);
/* Learning rate of step t of T (t from 0): linear warm-up, then a half cosine down to lr * min_lr. */
double hd_trainer_rate(const hd_trainer *, int64_t step);
/* One optimiser step on settings.batch sequences, gradients accumulated over micro-batches; then the averages.
 * false: `interrupted` returned true between micro-batches, nothing has changed, or something was not finite (not_finite). */
bool hd_trainer_step(hd_trainer *, bool (*interrupted)(void));
/* Held-out loss in nats of the weights that will be saved; without held-out data, NaN. Keeps them if they are the best so far (or
 * nothing is held out). false: not finite. *best: whether they were kept. */
bool hd_trainer_evaluate(hd_trainer *, double *loss, bool *best);
bool hd_trainer_finite(hd_trainer *);          /* the weights are; else not_finite says which is not */
bool hd_trainer_averaging(const hd_trainer *);
void *hd_trainer_result(const hd_trainer *);   /* averages or weights: what evaluation measures */

#endif
