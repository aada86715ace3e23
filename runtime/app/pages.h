/* Memory of the size of models and measurements. */
#ifndef HD_PAGES_H
#define HD_PAGES_H

#include <stddef.h>

/* Zeroed, 2 MB aligned, huge pages advised; NULL when it is refused. */
void *hd_pages_map(size_t bytes);
/* Of a mapped file: what must be read from disk comes in huge pages where the file system has them. */
void hd_pages_advise(const void *start, size_t bytes);
void hd_pages_unmap(void *, size_t bytes);

#endif
