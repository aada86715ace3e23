/* Targets: what the kernels' shapes are chosen for, and the flags that make a compiler aim at it. */
#ifndef HD_TARGET_H
#define HD_TARGET_H
#include <stdint.h>
typedef struct hd_target {
    const char *name;           /* as --target takes it */
    const char *flags[4];       /* for clang and gcc, NULL-terminated */
    int vl;                     /* floats per vector */
    int registers;              /* vector registers */
    int64_t l1, l2, l3;         /* bytes per core; l3 as one program may count on */
    int level;                  /* hd_cpu_level a processor needs to run it */
    const char *better[3];      /* targets that a program for this one is compiled for as well, from the least to the best; NULL-terminated */
} hd_target;
/* By name; NULL when unknown (hd_target_names lists the valid ones). "native" asks the CPU this runs on. */
const hd_target *hd_target_find(const char *name);
const char *hd_target_names(void);
#endif
