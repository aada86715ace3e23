/* Vectors of HD_VL floats for generated kernels, by the vector extensions that clang (>= 14) and gcc (>= 12) share: no
 * immintrin.h, which alone costs a compiler a third of a second. The including file defines HD_VL (16, 8 or 4) first.
 *
 * Rules kept here: vectors are never passed by value across real functions (everything is always_inline); lane indices
 * are constants; contraction is asked for explicitly, so that clang and gcc give fused multiply-adds where written
 * a * b + c; memory is accessed at 4-byte alignment. */
#ifndef HD_VEC_H
#define HD_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef HD_VL
#error "define HD_VL before including hd_vec.h"
#endif

#if defined(__clang__)
#pragma STDC FP_CONTRACT ON
#define HD_UNROLL _Pragma("clang loop unroll(full)")
#define HD_UNROLL_BY(n) HD_PRAGMA_(clang loop unroll_count(n))
#define HD_NO_UNROLL _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=fast")
#define HD_UNROLL _Pragma("GCC unroll 64")
#define HD_UNROLL_BY(n) HD_PRAGMA_(GCC unroll n)
#define HD_NO_UNROLL _Pragma("GCC unroll 1")
#endif
#define HD_PRAGMA_(x) _Pragma(#x)
#define HD_INLINE static inline __attribute__((always_inline, unused))
#define HD_NOINLINE static __attribute__((noinline, unused))

typedef float   hd_f  __attribute__((vector_size(4 * HD_VL)));
typedef int32_t hd_i  __attribute__((vector_size(4 * HD_VL)));
typedef float   hd_fu __attribute__((vector_size(4 * HD_VL), aligned(4), may_alias));
typedef int32_t hd_iu __attribute__((vector_size(4 * HD_VL), aligned(4), may_alias));

HD_INLINE hd_f hd_load(const float *p) { return *(const hd_fu *)p; }
HD_INLINE void hd_store(float *p, hd_f v) { *(hd_fu *)p = v; }
HD_INLINE hd_i hd_load_i(const int32_t *p) { return *(const hd_iu *)p; }
HD_INLINE void hd_store_i(int32_t *p, hd_i v) { *(hd_iu *)p = v; }
HD_INLINE hd_f hd_set(float x) { return x - (hd_f){}; }
HD_INLINE hd_i hd_set_i(int32_t x) { return x - (hd_i){}; }
/* The first `lanes` floats, zeros after; lanes < HD_VL reads and writes nothing beyond them. */
HD_INLINE hd_f hd_load_part(const float *p, int lanes)
{
    float t[HD_VL] = { 0 };
    memcpy(t, p, 4 * (size_t)lanes);
    return hd_load(t);
}
HD_INLINE void hd_store_part(float *p, hd_f v, int lanes)
{
    float t[HD_VL];
    hd_store(t, v);
    memcpy(p, t, 4 * (size_t)lanes);
}
HD_INLINE hd_i hd_lanes(void)     /* 0, 1, 2, ... */
{
#if HD_VL == 16
    return (hd_i){ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
#elif HD_VL == 8
    return (hd_i){ 0, 1, 2, 3, 4, 5, 6, 7 };
#else
    return (hd_i){ 0, 1, 2, 3 };
#endif
}
/* mask lanes are 0 or -1, as comparisons of vectors give */
HD_INLINE hd_f hd_select(hd_i mask, hd_f yes, hd_f no) { return (hd_f)((mask & (hd_i)yes) | (~mask & (hd_i)no)); }
HD_INLINE hd_f hd_max(hd_f a, hd_f b) { return hd_select(a > b, a, b); }
HD_INLINE hd_f hd_min(hd_f a, hd_f b) { return hd_select(a < b, a, b); }

/* Sums and maxima over lanes, always in the same tree order. */
HD_INLINE float hd_reduce_add(hd_f v)
{
    float t[HD_VL];
    hd_store(t, v);
    for (int width = HD_VL / 2; width; width /= 2)
        for (int i = 0; i < width; i++) t[i] += t[i + width];
    return t[0];
}
HD_INLINE float hd_reduce_max(hd_f v)
{
    float t[HD_VL];
    hd_store(t, v);
    for (int width = HD_VL / 2; width; width /= 2)
        for (int i = 0; i < width; i++) t[i] = t[i] > t[i + width] ? t[i] : t[i + width];
    return t[0];
}

#include "hd_math.h"

#endif
