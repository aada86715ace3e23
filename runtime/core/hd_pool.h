/* A thread pool behind hd_threads: workers spin briefly, then yield, then sleep, so that steps a few microseconds long
 * run at full speed on an idle machine and more threads than cores are never slower than one thread.
 * hd_pool_new returns NULL (errno set) when threads or memory are missing. count >= 1. One pool can be lent to several calls at once, of
 * any models: while it is busy with one, the others run on their calling threads alone. */
#ifndef HD_POOL_H
#define HD_POOL_H
#include "hd_core.h"
#ifdef __cplusplus
extern "C" {
#endif
#ifndef HD_POOL_API
#define HD_POOL_API          /* what libraries say of the symbols that they export */
#endif
typedef struct hd_pool hd_pool;
HD_POOL_API hd_pool *hd_pool_new(int count);
HD_POOL_API const hd_threads *hd_pool_threads(hd_pool *);
HD_POOL_API void hd_pool_free(hd_pool *);
#ifdef __cplusplus
}
#endif
#endif
