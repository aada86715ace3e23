/* What the fuzzer itself calls of memory.c. */
#ifndef HD_FUZZ_MEMORY_H
#define HD_FUZZ_MEMORY_H

#include <setjmp.h>
#include <stdbool.h>

enum { LEFT_WELL = 1000 };      /* setjmp's value where a reader ended the process with status 0 */

/* Blocks from now on belong to the call; ways to end the process jump there. NULL: blocks from now on are the fuzzer's. */
void memory_begin(jmp_buf *out);
/* Frees what the call left. whole: it read its file and closed it, so it may have left nothing but blocks of the arena. */
void memory_end(bool whole);

/* What the arena holds now stays for ever: readers have made tables of their own in it. */
void memory_keep(void);

#endif
