/* The range coder (coder.h). `low` has 32 bits and a carry; a byte leaves when the range is below 2^24. */
#include "coder.h"

enum { ONE = 2048, SPEED = 5 };

static void shift(hd_coder *c)
{
    if (c->low < 0xff000000u || c->low > UINT32_MAX) {
        unsigned char carry = (unsigned char)(c->low >> 32), byte = c->held;
        for (; c->pending; c->pending--, byte = 0xff) c->put(c->to, (unsigned char)(byte + carry));
        c->held = (unsigned char)(c->low >> 24);
    }
    c->pending++;
    c->low = (c->low & 0x00ffffffu) << 8;
}

static void put_bit(hd_coder *c, uint16_t *chance, unsigned bit)
{
    uint32_t zero = (c->range >> 11) * *chance;
    if (!bit) {
        c->range = zero;
        *chance = (uint16_t)(*chance + ((ONE - *chance) >> SPEED));
    } else {
        c->low += zero;
        c->range -= zero;
        *chance = (uint16_t)(*chance - (*chance >> SPEED));
    }
    for (; c->range < 1u << 24; c->range <<= 8) shift(c);
}

/* The upper bits first; each has a chance of its own below those before it. */
static void put_tree(hd_coder *c, uint16_t *chance, unsigned value, int bits)
{
    unsigned node = 1;
    for (int b = bits - 1; b >= 0; b--) {
        unsigned bit = value >> b & 1;
        put_bit(c, &chance[node], bit);
        node = 2 * node + bit;
    }
}

void hd_coder_start(hd_coder *c, void (*put)(void *, unsigned char), void *to) { *c = (hd_coder){ .range = UINT32_MAX, .pending = 1, .put = put, .to = to }; }

void hd_coder_end(hd_coder *c)
{
    for (int i = 0; i < 5; i++) shift(c);
}

void hd_coder_reset(uint16_t *chance, size_t count)
{
    for (size_t i = 0; i < count; i++) chance[i] = ONE / 2;
}

void hd_coder_put_byte(hd_coder *c, hd_coder_byte *m, unsigned value) { put_tree(c, m->chance, value, 8); }

void hd_coder_put_number(hd_coder *c, hd_coder_number *m, uint32_t value)
{
    unsigned bits = 0;
    while (bits < HD_CODER_BITS && value >> bits) bits++;
    put_tree(c, m->bits[m->before], bits, 6);
    m->before = bits;
    int low = (int)bits - 1, adaptive = low < 8 ? low : 8;
    if (low <= 0) return;
    put_tree(c, m->low[bits], value >> (low - adaptive) & ((1u << adaptive) - 1), adaptive);
    for (int b = low - adaptive - 1; b >= 0; b--) {
        uint16_t half = ONE / 2;
        put_bit(c, &half, value >> b & 1);
    }
}
