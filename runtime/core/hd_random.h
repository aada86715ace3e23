/* Random numbers as pure functions of where they are used: no state, so every program, thread count and vector width
 * draws the same ones. The compiler's interpreter, the generated kernels and the initialisation of weights share this file.
 *
 * Dropout. The word of (seed, step, stream, element) uses 32-bit operations only, modulo 2^32, logical shifts:
 *
 *      key  = hd_random_key(seed, step, stream)                              once per kernel call
 *      bits = mix(mix(element ^ key.a) ^ key.b)                              element: row-major index in the tensor
 *      keep the element when (bits >> 8) >= hd_dropout_threshold(p)          probability 1 - p, in steps of 2^-24
 *
 * A vector version does the same per lane on unsigned 32-bit lanes (element = base + 0, 1, 2, ...) and gets the same bits.
 * After the logical shift both sides of the comparison are below 2^24, so signed lanes compare alike.
 *
 * Weights. Element e of the parameter whose name hashes to h, with seed s, takes two 64-bit words
 * w_i = mix64(mix64(s ^ mix64(h)) + 2 * e + i), i = 0, 1: uniform from w_0, normal by Box and Muller from both.
 *
 * Source: multiply-xorshift finalisers; 32 bit: constants by Wellons, hash-prospector (bias 0.17); 64 bit: Stafford's
 * variant 13 as in Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014. */
#ifndef HD_RANDOM_H
#define HD_RANDOM_H

#include <math.h>
#include <stdint.h>

static inline uint32_t hd_random_mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

typedef struct hd_random_keys { uint32_t a, b; } hd_random_keys;

static inline hd_random_keys hd_random_key(uint32_t seed, uint32_t step, uint32_t stream)
{
    uint32_t x = hd_random_mix(hd_random_mix(hd_random_mix(seed + 0x9e3779b9u) + step) + stream);
    uint32_t y = hd_random_mix(hd_random_mix(hd_random_mix(stream ^ 0x6a09e667u) ^ seed) ^ step);
    hd_random_keys keys = { x, y };
    return keys;
}

static inline uint32_t hd_random_bits(hd_random_keys key, uint32_t element)
{
    return hd_random_mix(hd_random_mix(element ^ key.a) ^ key.b);
}

static inline uint32_t hd_dropout_threshold(double p) { return (uint32_t)(p * 16777216.0); }

static inline uint64_t hd_random_mix64(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* FNV-1a, 64 bit, of a parameter's name. */
static inline uint64_t hd_random_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    while (*name) hash = (hash ^ (unsigned char)*name++) * 0x100000001b3u;
    return hash;
}

/* The first value of one weight. kind 0: scale itself; 1: normal, mean 0, standard deviation scale; 2: uniform in
 * [-scale, scale). name_hash: hd_random_name. element: row-major index in the parameter. */
static inline double hd_init_value(int kind, double scale, uint64_t seed, uint64_t name_hash, uint64_t element)
{
    if (kind == 0) return scale;
    uint64_t base = hd_random_mix64(seed ^ hd_random_mix64(name_hash)) + 2 * element;
    double u = (double)(hd_random_mix64(base) >> 11) * 0x1p-53;                 /* [0, 1) */
    if (kind == 2) return scale * (2 * u - 1);
    double v = (double)(hd_random_mix64(base + 1) >> 11) * 0x1p-53;
    return scale * sqrt(-2 * log(1 - u)) * cos(6.283185307179586477 * v);
}

#endif
