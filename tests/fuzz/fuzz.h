/* What fuzzing puts in place of the compiler's arena, and of ending the process: a reader that refuses its file comes back (memory.c). */
#ifndef HD_FUZZ_H
#define HD_FUZZ_H

#include <stddef.h>

/* Ends the call of the reader: what it allocated is freed. status: as of exit. */
_Noreturn void fuzz_leave(int status);
/* A zeroed block of the arena: freed when the call ends. */
void *fuzz_alloc(size_t bytes);
/* A larger one that begins as the old one did. */
void *fuzz_grow(void *block, size_t old_bytes, size_t bytes);
size_t fuzz_arena_bytes(void);

#endif
