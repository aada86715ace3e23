/* Numbers into few bytes: adaptive binary arithmetic coding, the range coder of LZMA (Pavlov; Martin 1979). Every bit is coded with a
 * probability that follows the bits before it in the same place, so what repeats costs next to nothing. */
#ifndef HD_CODER_H
#define HD_CODER_H

#include <stddef.h>
#include <stdint.h>

typedef struct hd_coder {
    uint64_t low;
    uint32_t range;
    unsigned char held;              /* the last byte, which a carry may still change */
    uint64_t pending;                /* held and the bytes 255 after it */
    void (*put)(void *to, unsigned char byte);
    void *to;
} hd_coder;

/* Chances of a number: how many bits it has, by how many the one before had; then its bits below the first, the upper eight of them
 * each by those above. */
enum { HD_CODER_BITS = 32 };
typedef struct hd_coder_number { uint16_t bits[HD_CODER_BITS + 1][64], low[HD_CODER_BITS + 1][256]; unsigned before; } hd_coder_number;
typedef struct hd_coder_byte { uint16_t chance[256]; } hd_coder_byte;

void hd_coder_start(hd_coder *, void (*put)(void *to, unsigned char byte), void *to);
void hd_coder_end(hd_coder *);
void hd_coder_reset(uint16_t *chance, size_t count);             /* every chance to one half; a model is all chances, `before` 0 */
void hd_coder_put_byte(hd_coder *, hd_coder_byte *, unsigned value);
void hd_coder_put_number(hd_coder *, hd_coder_number *, uint32_t value);

#endif
