/* Programs of several variants: heddle build --target x86-64 compiles the model for several levels of processors. */
#ifndef HD_VARIANT_H
#define HD_VARIANT_H

#include "app.h"

enum { HD_ANY_LEVEL = 1000 };

/* Makes hd_model the best variant that this processor runs, or the one that the environment's HEDDLE_CPU names. Fails, naming
 * those that would do; also where the program's only variant would end in an illegal instruction. */
void hd_variant_choose(void);
const char *hd_variant_names(int level);      /* of all that need no more, the best first: "x86-64-v3, x86-64"; malloc'ed */

#endif
