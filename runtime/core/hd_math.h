/* Vector mathematics for generated kernels, on hd_f: HD_VL floats. Included at the end of hd_vec.h.
 *
 * Errors are the worst over every float in range, in units in the last place of the exact result, as measured by
 * tests/runtime/math_test.c (which samples; HD_MATH_ALL=1 walks all floats):
 *
 *       exp, exp_nonpositive, log, tanh, erf, sin, cos     2 ulp        sigmoid    3 ulp
 *       sqrt                                               0.5 ulp      rsqrt      1.5 ulp
 *
 * NaN gives NaN, infinities their limits, and functions that vanish at zero keep relative accuracy there, denormals
 * included. exp keeps denormal results; exp_nonpositive and sigmoid give 0 for them. Each function is a straight line of vector instructions: the
 * polynomial of every range is evaluated and a mask picks, so that no lane waits for another and nothing branches.
 *
 * The polynomials are minimax fits (Remez, 40 digits, weighted for relative error of the final result) whose leading
 * coefficients are held at their exact values; they are written here as a Horner line, highest power first. Products
 * and sums a * b + c contract to fused multiply-adds where the target has them; the range reductions stay exact without. */
#ifndef HD_MATH_H
#define HD_MATH_H

#include "hd_random.h"

typedef uint32_t hd_u __attribute__((vector_size(4 * HD_VL)));
typedef double   hd_d __attribute__((vector_size(8 * HD_VL)));
typedef int64_t  hd_l __attribute__((vector_size(8 * HD_VL)));

/* Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum: rounding and conversion in one addition. */
#define HD_ROUND_MAGIC 12582912.0f
#define HD_SIGN_BIT ((hd_i)hd_set(-0.0f))

HD_INLINE hd_f hd_abs(hd_f x) { return (hd_f)((hd_i)x & ~HD_SIGN_BIT); }
HD_INLINE hd_f hd_copysign(hd_f magnitude, hd_f sign) { return (hd_f)((hd_i)magnitude | ((hd_i)sign & HD_SIGN_BIT)); }   /* magnitude >= 0 */
/* 1 where the mask is set, else 0: what comparisons give as numbers. */
HD_INLINE hd_f hd_one_where(hd_i mask) { return (hd_f)(mask & (hd_i)hd_set(1.0f)); }
HD_INLINE hd_f hd_step(hd_f x) { return hd_one_where(x > 0.0f); }
HD_INLINE hd_f hd_sign(hd_f x) { return hd_select(x == x, hd_step(x) - hd_step(-x), x); }
HD_INLINE hd_f hd_relu(hd_f x) { return hd_max(hd_set(0.0f), x); }

/* The exact square root (a division, a root: one instruction each, no estimates, so no refinement steps to get wrong). */
HD_INLINE hd_f hd_sqrt(hd_f x)
{
#if defined(__has_builtin)
#if __has_builtin(__builtin_elementwise_sqrt)
#define HD_HAS_ELEMENTWISE_SQRT
#endif
#endif
#if defined(HD_HAS_ELEMENTWISE_SQRT)
    return __builtin_elementwise_sqrt(x);
#elif HD_VL == 16 && defined(__AVX512F__) && defined(__clang__)
    return __builtin_ia32_sqrtps512(x, 4);
#elif HD_VL == 16 && defined(__AVX512F__)
    return __builtin_ia32_sqrtps512_mask(x, x, (unsigned short)-1, 4);
#elif HD_VL == 8 && defined(__AVX__)
    return __builtin_ia32_sqrtps256(x);
#elif HD_VL == 4 && defined(__SSE__)
    return __builtin_ia32_sqrtps(x);
#else
    hd_f r;
    HD_UNROLL for (int i = 0; i < HD_VL; i++) r[i] = __builtin_sqrtf(x[i]);
    return r;
#endif
}
HD_INLINE hd_f hd_rsqrt(hd_f x) { return 1.0f / hd_sqrt(x); }

/* p * 2^n for an integral n in [-150, 128], rounded once, denormals included. */
HD_INLINE hd_f hd_scale_by_power(hd_f p, hd_f n, hd_f rounded)
{
#if HD_VL == 16 && defined(__AVX512F__)
    (void)rounded;
    return __builtin_ia32_scalefps512_mask(p, n, p, (unsigned short)-1, 4);
#elif HD_VL == 8 && defined(__AVX512VL__)
    (void)rounded;
    return __builtin_ia32_scalefps256_mask(p, n, p, (unsigned char)-1);
#else
    (void)n;
    hd_i whole = (hd_i)rounded - (hd_i)hd_set(HD_ROUND_MAGIC), half = whole >> 1;
    hd_f first = (hd_f)((half + 127) << 23), second = (hd_f)((whole - half + 127) << 23);
    return p * first * second;                /* two steps: 2^n alone may be no normal float */
#endif
}

/* e^r for |r| <= ln(2)/2, n = the integer subtracted: the part that exp and exp_nonpositive share. */
#define HD_LOG2_E 1.44269504f
#define HD_LN2_HIGH 0.693145752f              /* 15 bits: n * HIGH is exact */
#define HD_LN2_LOW 1.42860677e-06f
HD_INLINE hd_f hd_exp_polynomial(hd_f r)
{
    hd_f p = r * 0.00138146128f + 0.00836871658f;
    p = p * r + 0.041668389f;
    p = p * r + 0.166665211f;
    p = p * r + 0.49999994f;
    p = p * r + 1.0f;
    return p * r + 1.0f;
}

/* e^x. Overflows to infinity above 88.73, denormal below -87.34, zero below -103.98. 14 instructions with AVX-512. */
HD_INLINE hd_f hd_exp(hd_f x)
{
    x = hd_min(hd_set(89.0f), hd_max(hd_set(-104.0f), x));
    hd_f rounded = x * HD_LOG2_E + HD_ROUND_MAGIC, n = rounded - HD_ROUND_MAGIC;
    hd_f r = x - n * HD_LN2_HIGH;
    r = r - n * HD_LN2_LOW;
    return hd_scale_by_power(hd_exp_polynomial(r), n, rounded);
}

/* e^x for x in [-87.33, 88] or NaN, where the result is a normal float. */
HD_INLINE hd_f hd_exp_normal(hd_f x)
{
    hd_f rounded = x * HD_LOG2_E + HD_ROUND_MAGIC, n = rounded - HD_ROUND_MAGIC;
    hd_f r = x - n * HD_LN2_HIGH;
    r = r - n * HD_LN2_LOW;
#if (HD_VL == 16 && defined(__AVX512F__)) || (HD_VL == 8 && defined(__AVX512VL__))
    return hd_scale_by_power(hd_exp_polynomial(r), n, rounded);
#else
    (void)n;
    return hd_exp_polynomial(r) * (hd_f)(((hd_i)rounded << 23) + (hd_i)hd_set(1.0f));   /* the magic's own bits are shifted out */
#endif
}

/* e^x for x <= 0, minus infinity included: the exponential of every softmax. Exactly 0 below -87.33, where e^x is no
 * normal float: a processor takes a hundred cycles or more to make a denormal one, and far scores are common. The clamp
 * keeps what is masked away in the end from becoming one on the way. For x in (0, 88] the result is right too. */
HD_INLINE hd_f hd_exp_nonpositive(hd_f x)
{
    const hd_i kept = ~(x < -87.33f);         /* NaN is kept */
    return (hd_f)((hd_i)hd_exp_normal(hd_max(hd_set(-87.33f), x)) & kept);
}

/* Natural logarithm: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), log x = e ln 2 + log1p(m - 1). Negative: NaN; 0: -infinity. */
HD_INLINE hd_f hd_log(hd_f x)
{
    hd_i tiny = x < 1.17549435e-38f;
    hd_i bits = (hd_i)hd_select(tiny, x * 8388608.0f, x) - 0x3f3504f3;
    hd_f e = __builtin_convertvector((bits >> 23) - (tiny & 23), hd_f);
    hd_f f = (hd_f)((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    hd_f p = f * 0.069159694f - 0.117888518f;
    p = p * f + 0.118721507f;
    p = p * f - 0.123844758f;
    p = p * f + 0.142188013f;
    p = p * f - 0.166692466f;
    p = p * f + 0.200022176f;
    p = p * f - 0.249999866f;
    p = p * f + 0.333333105f;
    hd_f square = f * f;
    p = p * f * square + e * HD_LN2_LOW;
    p = p - 0.5f * square;
    hd_f r = (f + p) + e * HD_LN2_HIGH;
    r = hd_select(x < __builtin_inff(), r, x);
    r = hd_select(x == 0.0f, hd_set(-__builtin_inff()), r);
    return hd_select(x < 0.0f, hd_set(__builtin_nanf("")), r);
}

/* tanh x: an odd polynomial below 0.625, 1 - 2 e^-2x / (1 + e^-2x) above. */
HD_INLINE hd_f hd_tanh(hd_f x)
{
    hd_f a = hd_abs(x), z = x * x;
    hd_f p = z * 0.00214775675f - 0.008182941f;
    p = p * z + 0.0217030905f;
    p = p * z - 0.0539472289f;
    p = p * z + 0.133332103f;
    p = p * z - 0.333333313f;
    hd_f near = a + a * (z * p);
    hd_f e = hd_exp_nonpositive(-2.0f * a), far = 1.0f - (e + e) / (1.0f + e);
    return hd_copysign(hd_select(a < 0.625f, near, far), x);
}

/* 1 / (1 + e^-x), by e^-|x| so that the small side keeps its relative accuracy; 0 below -87.33. */
HD_INLINE hd_f hd_sigmoid(hd_f x)
{
    hd_f e = hd_exp_nonpositive(-hd_abs(x));
    return hd_select(x < 0.0f, e, hd_set(1.0f)) / (1.0f + e);
}

/* The two halves of erf at a >= 0: erf(a) for a < 0.92, and 1 - erf(a) = exp(polynomial) elsewhere. */
HD_INLINE hd_f hd_erf_near(hd_f a)
{
    hd_f z = a * a;
    hd_f p = z * 8.40991415e-05f - 0.000815262669f;
    p = p * z + 0.00520195998f;
    p = p * z - 0.0268597994f;
    p = p * z + 0.112837031f;
    p = p * z - 0.376126349f;
    p = p * z + 0.128379166f;
    return a + a * p;
}
HD_INLINE hd_f hd_erfc_far(hd_f a)
{
    hd_f p = a * -2.10949675e-05f + 0.000434461661f;
    p = p * a - 0.00417105807f;
    p = p * a + 0.0251194146f;
    p = p * a - 0.10828007f;
    p = p * a - 0.633346915f;
    p = p * a - 1.12951493f;
    p = p * a + 0.000174682544f;
    return hd_exp_nonpositive(p);
}
HD_INLINE hd_f hd_erf(hd_f x)
{
    hd_f a = hd_abs(x);
    return hd_copysign(hd_select(a < 0.92f, hd_erf_near(a), 1.0f - hd_erfc_far(a)), x);
}
/* The normal distribution function (1 + erf(x / sqrt 2)) / 2 by one polynomial for all x, since near zero it has nothing to
 * keep that erf has: below zero e^P(|x|), P fitted to its logarithm, above zero 1 - e^P(|x|). Absolute error 6e-8. Half the
 * instructions of erf's two ranges; even and odd powers apart, because what limits it is the wait for the result before.
 * Beyond +-CDF_END it stays at 1.4e-38 and 1; e^P needs no care for denormals up to there. */
#define HD_CDF_END 10.375f
HD_INLINE hd_f hd_normal_cdf(hd_f x)
{
    hd_f a = hd_min(hd_set(HD_CDF_END), hd_abs(x)), z = a * a;
    hd_f even = z * -1.31954289e-06f - 0.000100222496f, odd = z * 2.04158187e-05f - 0.000155751288f;
    even = even * z + 0.00496474234f;
    odd = odd * z - 0.0364284404f;
    even = even * z - 0.318287224f;
    odd = odd * z - 0.79788661f;
    even = even * z - 0.693147123f;
    hd_f below = hd_exp_normal(odd * a + even);
    return hd_select(x < 0.0f, below, 1.0f - below);
}

/* Sine and cosine. x is reduced by multiples of pi/2 in double precision, so positions stay exact: |x| <= 2^20 on any
 * target, 2^31 where there is fused multiply-add; beyond, the result is some number in [-1, 1]. Infinity gives NaN. */
HD_INLINE void hd_sincos_of_double(const hd_d *x, hd_f *sine, hd_f *cosine)
{
    const double magic = 6755399441055744.0;          /* 1.5 * 2^52 */
    hd_d rounded = *x * 0.63661977236758134308 + magic, n = rounded - magic;
    hd_d r = *x - n * 1.57079632673412561417e+00;     /* pi/2 in parts of 33, 33 and 53 bits */
    r = r - n * 6.07710050630396597660e-11;
    r = r - n * 2.02226624879595063154e-21;
    hd_i quadrant = __builtin_convertvector((hd_l)rounded, hd_i);
    hd_f t = hd_max(hd_set(-0.79f), hd_min(hd_set(0.79f), __builtin_convertvector(r, hd_f))), z = t * t;
    hd_f p = z * 2.71830845e-06f - 0.000198393347f;
    p = p * z + 0.00833332911f;
    p = p * z - 0.166666672f;
    hd_f s = t + t * (z * p);
    hd_f q = z * 2.44384828e-05f - 0.00138873677f;
    q = q * z + 0.0416666456f;
    hd_f c = (1.0f - 0.5f * z) + q * (z * z);
    hd_i odd = (quadrant & 1) != 0;
    *sine = (hd_f)((hd_i)hd_select(odd, c, s) ^ ((quadrant & 2) << 30));
    *cosine = (hd_f)((hd_i)hd_select(odd, s, c) ^ (((quadrant + 1) & 2) << 30));
}
HD_INLINE hd_f hd_sin(hd_f x)
{
    hd_d wide = __builtin_convertvector(x, hd_d);
    hd_f s, c;
    hd_sincos_of_double(&wide, &s, &c);
    return s;
}
HD_INLINE hd_f hd_cos(hd_f x)
{
    hd_d wide = __builtin_convertvector(x, hd_d);
    hd_f s, c;
    hd_sincos_of_double(&wide, &s, &c);
    return c;
}

/* Activations and their derivatives; formulas as in the interpreter. gelu_tanh uses (1 + tanh u) / 2 = sigmoid(2u).
 * The derivatives clamp x where they are 0 or 1 already, so that no inf * 0 appears. */
#define HD_SQRT_2_OVER_PI 0.797884561f
HD_INLINE hd_f hd_clamp(hd_f x, float bound) { return hd_max(hd_set(-bound), hd_min(hd_set(bound), x)); }
/* x sigmoid(-t) as one division, 0 where t > 87.33: cheaper than hd_sigmoid, whose last bits and denormals nobody sees here. */
HD_INLINE hd_f hd_gated(hd_f x, hd_f t)
{
    const hd_f e = hd_exp_normal(hd_clamp(t, 87.33f));
    return (hd_f)((hd_i)(x / (1.0f + e)) & ~(t > 87.33f));
}
HD_INLINE hd_f hd_silu(hd_f x) { return hd_gated(x, -x); }
HD_INLINE hd_f hd_gelu(hd_f x) { return (hd_f)((hd_i)(x * hd_normal_cdf(x)) & ~(x < -HD_CDF_END)); }
HD_INLINE hd_f hd_gelu_tanh(hd_f x) { return hd_gated(x, x * (x * x * (-2.0f * HD_SQRT_2_OVER_PI * 0.044715f) - 2.0f * HD_SQRT_2_OVER_PI)); }
HD_INLINE hd_f hd_gelu_quick(hd_f x) { return hd_gated(x, -1.702f * x); }
/* sigmoid(x) and its slope sigmoid(x) sigmoid(-x), which 1 - sigmoid(x) would round away at large x. */
HD_INLINE hd_f hd_sigmoid_and_slope(hd_f x, hd_f *slope)
{
    const hd_f e = hd_exp_nonpositive(-hd_abs(x)), inverse = 1.0f / (1.0f + e), other = e * inverse;
    *slope = other * inverse;
    return hd_select(x < 0.0f, other, inverse);
}
HD_INLINE hd_f hd_silu_prime(hd_f x)
{
    x = hd_clamp(x, 200.0f);
    hd_f slope, s = hd_sigmoid_and_slope(x, &slope);
    return s + x * slope;
}
HD_INLINE hd_f hd_gelu_prime(hd_f x)
{
    x = hd_clamp(x, HD_CDF_END);
    return hd_normal_cdf(x) + x * 0.398942280f * hd_exp_normal(-0.5f * x * x);
}
HD_INLINE hd_f hd_gelu_tanh_prime(hd_f x)
{
    x = hd_clamp(x, 30.0f);
    hd_f slope, z = x * x, s = hd_sigmoid_and_slope(x * (z * (2.0f * HD_SQRT_2_OVER_PI * 0.044715f) + 2.0f * HD_SQRT_2_OVER_PI), &slope);
    return s + x * slope * (z * (6.0f * HD_SQRT_2_OVER_PI * 0.044715f) + 2.0f * HD_SQRT_2_OVER_PI);
}
HD_INLINE hd_f hd_gelu_quick_prime(hd_f x)
{
    x = hd_clamp(x, 120.0f);
    hd_f slope, s = hd_sigmoid_and_slope(1.702f * x, &slope);
    return s + 1.702f * x * slope;
}

/* Dropout: lanes whose elements element, element + 1, ... are kept, by the bits that hd_random.h defines (its vector twin).
 * threshold: hd_dropout_threshold(p). */
HD_INLINE hd_u hd_random_mix_lanes(hd_u x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}
HD_INLINE hd_i hd_dropout_mask_of_key(hd_random_keys key, uint32_t element, uint32_t threshold)
{
    hd_u bits = hd_random_mix_lanes((element + (hd_u)hd_lanes()) ^ key.a);
    bits = hd_random_mix_lanes(bits ^ key.b);
    return (hd_i)(bits >> 8) >= (int32_t)threshold;
}
HD_INLINE hd_i hd_dropout_mask(uint32_t seed, uint32_t step, uint32_t stream, uint32_t element, uint32_t threshold)
{
    return hd_dropout_mask_of_key(hd_random_key(seed, step, stream), element, threshold);
}

#endif
