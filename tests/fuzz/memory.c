/* The memory of one call of a reader, and its end (fuzz.h). The linker sends malloc, free and the ways to end a process here (--wrap).
 *
 * A reader that refuses its file ends the process in real life, which frees everything; here fuzz_leave does both. One that reads its
 * file must leave no block of malloc behind. */
#include "fuzz.h"
#include "memory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *__real_malloc(size_t), *__real_calloc(size_t, size_t), *__real_realloc(void *, size_t);
void __real_free(void *);
void *__wrap_malloc(size_t), *__wrap_calloc(size_t, size_t), *__wrap_realloc(void *, size_t);
void __wrap_free(void *);
_Noreturn void __real_exit(int), __real__exit(int), __wrap_exit(int), __wrap__exit(int);

/* Blocks in the order they came, with a hash table from their addresses to their places. */
typedef struct block { void *at; size_t bytes; } block;
static block *blocks;
static size_t count, room, *slot, slots, arena_bytes;
static void **arena;
static size_t arena_count, arena_room;
static _Thread_local bool watching;
static jmp_buf *way_out;

static size_t *slot_of(const void *at)
{
    size_t i = ((uintptr_t)at >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (slots - 1);
    while (slot[i] && blocks[slot[i] - 1].at != at) i = (i + 1) & (slots - 1);
    return &slot[i];
}

static void rehash(void)
{
    while (slots < 4 * room) slots = slots ? 2 * slots : 4096;
    __real_free(slot);
    slot = __real_calloc(slots, sizeof *slot);
    if (!slot) abort();
    for (size_t i = 0; i < count; i++) *slot_of(blocks[i].at) = i + 1;
}

static void *note(void *at, size_t bytes)
{
    if (!at || !watching) return at;
    if (count == room) {
        room = room ? 2 * room : 1024;
        blocks = __real_realloc(blocks, room * sizeof *blocks);
        if (!blocks) abort();
        rehash();
    }
    blocks[count] = (block){ at, bytes };
    *slot_of(at) = ++count;
    return at;
}

/* Takes a block out of the list; what follows its slot in the table is placed again. */
static void forget(void *at)
{
    if (!slots) return;
    size_t *found = slot_of(at);
    if (!*found) return;
    const size_t place = *found - 1;
    *found = 0;
    for (size_t i = ((size_t)(found - slot) + 1) & (slots - 1); slot[i]; i = (i + 1) & (slots - 1)) {
        const size_t moved = slot[i];
        slot[i] = 0;
        *slot_of(blocks[moved - 1].at) = moved;
    }
    if (place + 1 != count) {
        size_t *last = slot_of(blocks[count - 1].at);
        blocks[place] = blocks[count - 1];
        *last = place + 1;
    }
    count--;
}

void *__wrap_malloc(size_t bytes) { return note(__real_malloc(bytes), bytes); }
void *__wrap_calloc(size_t items, size_t bytes) { return note(__real_calloc(items, bytes), items * bytes); }

void *__wrap_realloc(void *old, size_t bytes)
{
    if (old) forget(old);
    return note(__real_realloc(old, bytes), bytes);
}

void __wrap_free(void *at)
{
    if (at) forget(at);
    __real_free(at);
}

void *fuzz_alloc(size_t bytes)
{
    if (arena_count == arena_room) {
        arena_room = arena_room ? 2 * arena_room : 1024;
        arena = __real_realloc(arena, arena_room * sizeof *arena);
        if (!arena) abort();
    }
    void *at = arena[arena_count++] = __real_calloc(1, bytes ? bytes : 1);
    if (!at) abort();
    arena_bytes += bytes;
    return at;
}

void *fuzz_grow(void *old, size_t old_bytes, size_t bytes)
{
    void *at = fuzz_alloc(bytes);
    if (old_bytes) memcpy(at, old, old_bytes);
    return at;
}

size_t fuzz_arena_bytes(void) { return arena_bytes; }

void fuzz_leave(int status)
{
    if (!way_out) __real_exit(status);
    longjmp(*way_out, status ? status : LEFT_WELL);
}

void __wrap_exit(int status) { fuzz_leave(status); }

void __wrap__exit(int status)
{
    if (!way_out) __real__exit(status);
    fuzz_leave(status);
}

static void release(void)
{
    while (count) __real_free(blocks[--count].at);
    if (slots) memset(slot, 0, slots * sizeof *slot);
    while (arena_count) __real_free(arena[--arena_count]);
    arena_bytes = 0;
}

void memory_begin(jmp_buf *out)
{
    way_out = out;
    watching = out != NULL;
}

extern void **fuzz_kept;      /* so that the blocks count as in use */
void **fuzz_kept;

void memory_keep(void)
{
    fuzz_kept = arena;
    arena = NULL;
    arena_count = arena_room = arena_bytes = 0;
}

void memory_end(bool whole)
{
    watching = false;
    way_out = NULL;
    if (whole && count) {
        for (size_t i = 0; i < count && i < 20; i++) fprintf(stderr, "leak: %zu bytes at %p\n", blocks[i].bytes, blocks[i].at);
        abort();                        /* the stacks of their allocations: ASAN_OPTIONS=..., or a breakpoint in note */
    }
    release();
}
