/* Memory of the size of models and measurements (pages.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pages.h"

#include <stdint.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, PAGE = 4096 };

static size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

void *hd_pages_map(size_t bytes)
{
    bytes = whole_pages(bytes);
    unsigned char *base = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    unsigned char *start = base + (HUGE_PAGE - (uintptr_t)base % HUGE_PAGE) % HUGE_PAGE;
    if (start > base) munmap(base, (size_t)(start - base));
    munmap(start + bytes, HUGE_PAGE - (size_t)(start - base));
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE_PAGE) madvise(start, bytes, MADV_HUGEPAGE);    /* a refusal costs speed only */
#endif
    return start;
}

void hd_pages_advise(const void *start, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t first = ((uintptr_t)start + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE, end = (uintptr_t)start + bytes;
    if (end > first) madvise((void *)first, end - first, MADV_HUGEPAGE);
#endif
    (void)start, (void)bytes;
}

void hd_pages_unmap(void *start, size_t bytes) { munmap(start, whole_pages(bytes)); }
