/* Files of `heddle pack`: both areas of a model's weights as entries read them, to be mapped and used in place.
 *
 *   0                    this header, zeros up to HD_PACKED_HEADER_BYTES
 *   weights_at           the weights, weights_bytes
 *   packed_at            the panels, packed_bytes, up to the end of the file
 *
 * Numbers are little-endian, places are multiples of a page. The hashes cover the layouts, not the values: a file of another model, or
 * for vectors of another length, is told from one that fits. */
#ifndef HD_PACKED_H
#define HD_PACKED_H

#include <stdint.h>

#define HD_PACKED_MAGIC "HEDDLEPK"
enum { HD_PACKED_HEADER_BYTES = 4096, HD_PACKED_VERSION = 1, HD_PACKED_NAME = 64 };

typedef struct hd_packed_header {
    char magic[8];
    uint64_t version;
    uint64_t weights_hash, panels_hash;
    uint64_t weights_at, weights_bytes, packed_at, packed_bytes, file_bytes;
    char model[HD_PACKED_NAME], target[HD_PACKED_NAME];      /* for people: zeros after the text */
} hd_packed_header;

static inline uint64_t hd_packed_page(uint64_t bytes) { return (bytes + HD_PACKED_HEADER_BYTES - 1) / HD_PACKED_HEADER_BYTES * HD_PACKED_HEADER_BYTES; }

#endif
