/* What the processor can run, as the levels of the x86-64 psABI ("Low-Level System Information", table 3.1): 1 what all have,
 * 2 up to SSE4.2, 3 AVX2 and FMA, 4 AVX-512 with F, BW, CD, DQ and VL; 0 on other kinds of processors.
 *
 * Compilers that aim at x86-64-vN may use any instruction of level N, so each is asked for; and the system must save the wide
 * registers when it switches tasks (XCR0). Own code, as __builtin_cpu_supports of older compilers does not know all of them. */
#ifndef HD_CPU_H
#define HD_CPU_H

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>

static inline int hd_cpu_level(void)
{
    enum {
        LEVEL_2 = bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_CMPXCHG16B,
        LEVEL_3 = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C | bit_MOVBE, LEVEL_3_MORE = bit_AVX2 | bit_BMI | bit_BMI2,
        SAVES_YMM = 0x06, SAVES_ZMM = 0xe6
    };
    const uint32_t level_4 = (uint32_t)bit_AVX512F | (uint32_t)bit_AVX512BW | (uint32_t)bit_AVX512CD | (uint32_t)bit_AVX512DQ | (uint32_t)bit_AVX512VL;
    uint32_t a, b, c, d, basic, more = 0, extended = 0, saved, high;
    if (!__get_cpuid(1, &a, &b, &basic, &d)) return 1;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) more = b;
    if (__get_cpuid(0x80000001u, &a, &b, &c, &d)) extended = c;
    if ((basic & LEVEL_2) != LEVEL_2 || !(extended & bit_LAHF_LM)) return 1;
    if ((basic & LEVEL_3) != LEVEL_3 || (more & LEVEL_3_MORE) != LEVEL_3_MORE || !(extended & bit_LZCNT)) return 2;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if ((saved & SAVES_YMM) != SAVES_YMM) return 2;
    return (more & level_4) == level_4 && (saved & SAVES_ZMM) == SAVES_ZMM ? 4 : 3;
}
#else
static inline int hd_cpu_level(void) { return 0; }
#endif
#endif
