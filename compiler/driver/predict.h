/* How long entries will take, before anything is compiled: predict.c. */
#ifndef HD_PREDICT_H
#define HD_PREDICT_H

#include "driver.h"
#include "../../runtime/app/peak.h"

/* The machine that a prediction is for: what the speeds of one thread and of all threads are. */
enum { HD_ONE_THREAD, HD_ALL_THREADS, HD_THREAD_COUNTS };
typedef struct hd_machine {
    bool measured;                             /* here and now; else round figures for a CPU of the target's class */
    hd_peak peak[HD_THREAD_COUNTS];            /* caches and threads */
    hd_speeds speeds[HD_THREAD_COUNTS];
    double cycle[HD_THREAD_COUNTS];            /* seconds */
} hd_machine;

/* Measures this machine for about 0.2 s; or, where the target cannot run here, its class. */
hd_machine hd_machine_for(const hd_target *);
/* Round figures for one core of a CPU of the target's class: the same wherever they are asked for. */
hd_machine hd_machine_of_class(const hd_target *);

/* Seconds of a call of a step: of its arithmetic, of moving what it must, and of both together. threads: HD_ONE_THREAD or HD_ALL_THREADS. */
typedef struct hd_step_time { double compute, move, all; } hd_step_time;
hd_step_time hd_predict_step(const hd_machine *, const hd_target *, const hd_step *, int threads);
/* Seconds of a call of an entry. */
double hd_predict_entry(const hd_machine *, const hd_target *, const hd_program *, int threads);

/* The steps of an entry that share a kernel, those that take most of the time (on all threads) first; *count of them. */
typedef struct hd_prediction { const struct hd_kernel *kernel; int calls; double seconds[HD_THREAD_COUNTS]; } hd_prediction;
hd_prediction *hd_predict_kernels(const hd_machine *, const hd_target *, const hd_program *, int *count);

#endif
