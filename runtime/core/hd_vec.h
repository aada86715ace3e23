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

#pragma GCC diagnostic ignored "-Wpsabi"      /* about vectors wider than the target's: none is ever passed, all is inlined */
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
HD_INLINE hd_f hd_set(float x) { return x - (hd_f){ 0 }; }
HD_INLINE hd_i hd_set_i(int32_t x) { return x - (hd_i){ 0 }; }
/* The first `lanes` floats, zeros after; lanes < HD_VL reads and writes nothing beyond them. Masked moves where there are
 * any (as builtins: the same names in clang and gcc), since memcpy of a variable size is a call. */
#if HD_VL == 16 && defined(__AVX512F__)
#define HD_PART_MASK(lanes) ((unsigned short)((1u << (lanes)) - 1u))
HD_INLINE hd_f hd_load_part(const float *p, int lanes) { return __builtin_ia32_loadups512_mask((const void *)p, (hd_f){ 0 }, HD_PART_MASK(lanes)); }
HD_INLINE void hd_store_part(float *p, hd_f v, int lanes) { __builtin_ia32_storeups512_mask((void *)p, v, HD_PART_MASK(lanes)); }
#elif HD_VL == 8 && defined(__AVX__)
#define HD_PART_MASK(lanes) ((hd_i){ 0, 1, 2, 3, 4, 5, 6, 7 } < (lanes))
HD_INLINE hd_f hd_load_part(const float *p, int lanes) { return __builtin_ia32_maskloadps256((const void *)p, HD_PART_MASK(lanes)); }
HD_INLINE void hd_store_part(float *p, hd_f v, int lanes) { __builtin_ia32_maskstoreps256((void *)p, HD_PART_MASK(lanes), v); }
#else
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
#endif
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
/* a > b ? a : b and a < b ? a : b, so a NaN in a gives b and a NaN in b stays: maxps and minps. clang finds them itself. */
#if defined(__clang__) || !defined(__SSE__)
HD_INLINE hd_f hd_max(hd_f a, hd_f b) { return hd_select(a > b, a, b); }
HD_INLINE hd_f hd_min(hd_f a, hd_f b) { return hd_select(a < b, a, b); }
#elif HD_VL == 16 && defined(__AVX512F__)
HD_INLINE hd_f hd_max(hd_f a, hd_f b) { return __builtin_ia32_maxps512_mask(a, b, a, (unsigned short)-1, 4); }
HD_INLINE hd_f hd_min(hd_f a, hd_f b) { return __builtin_ia32_minps512_mask(a, b, a, (unsigned short)-1, 4); }
#elif HD_VL == 8 && defined(__AVX__)
HD_INLINE hd_f hd_max(hd_f a, hd_f b) { return __builtin_ia32_maxps256(a, b); }
HD_INLINE hd_f hd_min(hd_f a, hd_f b) { return __builtin_ia32_minps256(a, b); }
#elif HD_VL == 4
HD_INLINE hd_f hd_max(hd_f a, hd_f b) { return __builtin_ia32_maxps(a, b); }
HD_INLINE hd_f hd_min(hd_f a, hd_f b) { return __builtin_ia32_minps(a, b); }
#else
HD_INLINE hd_f hd_max(hd_f a, hd_f b) { return hd_select(a > b, a, b); }
HD_INLINE hd_f hd_min(hd_f a, hd_f b) { return hd_select(a < b, a, b); }
#endif

/* Sums and maxima over lanes, always in the same tree order: the upper half onto the lower, until one is left. */
typedef float hd_f4 __attribute__((vector_size(16)));
#if HD_VL == 16
typedef float hd_f8 __attribute__((vector_size(32)));
#define HD_UPPER_8(v) __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)
#define HD_LOWER_8(v) __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7)
#endif
#define HD_UPPER_4(v) __builtin_shufflevector(v, v, 4, 5, 6, 7)
#define HD_LOWER_4(v) __builtin_shufflevector(v, v, 0, 1, 2, 3)
HD_INLINE float hd_reduce_add(hd_f v)
{
#if HD_VL == 16
    hd_f8 e = HD_LOWER_8(v) + HD_UPPER_8(v);
    hd_f4 q = HD_LOWER_4(e) + HD_UPPER_4(e);
#elif HD_VL == 8
    hd_f4 q = HD_LOWER_4(v) + HD_UPPER_4(v);
#else
    hd_f4 q = v;
#endif
    return (q[0] + q[2]) + (q[1] + q[3]);
}
HD_INLINE float hd_reduce_max(hd_f v)
{
#if HD_VL == 16
    v = hd_max(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
#endif
#if HD_VL >= 8
    v = hd_max(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 4, 5, 6, 7
#if HD_VL == 16
        , 4, 5, 6, 7, 4, 5, 6, 7
#endif
        ));
#endif
    float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
}

#include "hd_math.h"

#endif
