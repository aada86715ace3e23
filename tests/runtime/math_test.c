/* The vector mathematics of runtime/core/hd_math.h against libm in double precision: the worst error of each function in
 * units in the last place, over floats spread evenly through all bit patterns (so all magnitudes, denormals, infinities
 * and NaNs). Every 1,009th float by default; HD_MATH_ALL=1 takes every one, some minutes.
 *
 * HD_VL may be set when compiling; by default it is what the target's registers hold. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifndef HD_VL
#if defined(__AVX512F__)
#define HD_VL 16
#elif defined(__AVX__)
#define HD_VL 8
#else
#define HD_VL 4
#endif
#endif
#include "../../runtime/core/hd_vec.h"

#define APPLY(name) static void vector_##name(float *y, const float *x) { hd_store(y, hd_##name(hd_load(x))); }
APPLY(exp) APPLY(exp_nonpositive) APPLY(log) APPLY(tanh) APPLY(sigmoid) APPLY(erf) APPLY(sin) APPLY(cos) APPLY(sqrt) APPLY(rsqrt)
APPLY(abs) APPLY(sign) APPLY(step) APPLY(relu) APPLY(silu) APPLY(gelu) APPLY(gelu_tanh) APPLY(gelu_quick)
APPLY(silu_prime) APPLY(gelu_prime) APPLY(gelu_tanh_prime) APPLY(gelu_quick_prime)

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double rsqrt(double x) { return 1 / sqrt(x); }
static double sign(double x) { return isnan(x) ? x : (x > 0) - (x < 0); }
static double step(double x) { return x > 0; }
static double relu(double x) { return x > 0 || isnan(x) ? x : 0; }
static double silu(double x) { return x * sigmoid(x); }
static double gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2)); }
static double u(double x) { return 2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x); }
static double gelu_tanh(double x) { return x * sigmoid(u(x)); }
static double gelu_quick(double x) { return x * sigmoid(1.702 * x); }
static double silu_prime(double x) { return sigmoid(x) * (1 + x * sigmoid(-x)); }
static double gelu_prime(double x) { return 0.5 * erfc(-x / sqrt(2)) + x * exp(-0.5 * x * x) / sqrt(2 * acos(-1)); }
static double gelu_tanh_prime(double x)
{
    const double s = sigmoid(u(x)), slope = 2 * sqrt(2 / acos(-1)) * (1 + 3 * 0.044715 * x * x);
    return s + x * s * sigmoid(-u(x)) * slope;
}
static double gelu_quick_prime(double x) { return sigmoid(1.702 * x) * (1 + 1.702 * x * sigmoid(-1.702 * x)); }

/* ulp: the error allowed, relative to the result; or, where absolute is set, relative to max(|result|, absolute):
 * functions that cross zero or cancel are held to what their formula can keep. Floats outside [low, high] are not tried. */
static const struct row {
    const char *name;
    void (*vector)(float *, const float *);
    double (*exact)(double);
    double ulp;
    float low, high, absolute;
} table[] = {
    { "exp",              vector_exp,              exp,              1.2, -INFINITY, INFINITY, 0 },
    { "exp_nonpositive",  vector_exp_nonpositive,  exp,              1.2, -87.3f,    0,        0 },
    { "log",              vector_log,              log,              1.0, -INFINITY, INFINITY, 0 },
    { "tanh",             vector_tanh,             tanh,             1.6, -INFINITY, INFINITY, 0 },
    { "sigmoid",          vector_sigmoid,          sigmoid,          3.0, -87.3f,    INFINITY, 0 },
    { "erf",              vector_erf,              erf,              1.4, -INFINITY, INFINITY, 0 },
    { "sin",              vector_sin,              sin,              2.0, -1048576,  1048576,  0 },
    { "cos",              vector_cos,              cos,              2.0, -1048576,  1048576,  0 },
    { "sqrt",             vector_sqrt,             sqrt,             0.5001, -INFINITY, INFINITY, 0 },
    { "rsqrt",            vector_rsqrt,            rsqrt,            1.6, -INFINITY, INFINITY, 0 },
    { "abs",              vector_abs,              fabs,             0,   -INFINITY, INFINITY, 0 },
    { "sign",             vector_sign,             sign,             0,   -INFINITY, INFINITY, 0 },
    { "step",             vector_step,             step,             0,   -INFINITY, INFINITY, 0 },
    { "relu",             vector_relu,             relu,             0,   -INFINITY, INFINITY, 0 },
    { "silu",             vector_silu,             silu,             4,   -80,       INFINITY, 0 },
    { "gelu",             vector_gelu,             gelu,             3,   -1e30f,    INFINITY, 0.25f },
    { "gelu_tanh",        vector_gelu_tanh,        gelu_tanh,        3,   -1e12f,    1e12f,    0.25f },
    { "gelu_quick",       vector_gelu_quick,       gelu_quick,       3,   -1e30f,    1e30f,    0.25f },
    { "silu_prime",       vector_silu_prime,       silu_prime,       3,   -1e30f,    1e30f,    0.25f },
    { "gelu_prime",       vector_gelu_prime,       gelu_prime,       3,   -1e15f,    1e15f,    0.25f },
    { "gelu_tanh_prime",  vector_gelu_tanh_prime,  gelu_tanh_prime,  3,   -1e6f,     1e6f,     0.25f },
    { "gelu_quick_prime", vector_gelu_quick_prime, gelu_quick_prime, 3,   -1e30f,    1e30f,    0.25f },
};

/* Units in the last place of max(|want|, absolute); infinity where one is NaN or infinite and the other is not. */
static double error_of(float got, double want, float absolute)
{
    const float rounded = (float)want;
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : INFINITY;
    if (isinf(rounded) || isinf(got)) return rounded == got ? 0 : INFINITY;
    int exponent;
    const double size = fmax(fabs(want), absolute);
    if (got == want) return 0;
    frexp(size, &exponent);
    if (exponent < -125) exponent = -125;              /* denormals all have the unit of the smallest normal */
    return fabs(got - want) / ldexp(1, exponent - 24);
}

static void errors_stay_within_the_stated_ulp(void **state)
{
    (void)state;
    const uint64_t stride = getenv("HD_MATH_ALL") ? 1 : 1009;
    for (size_t t = 0; t < sizeof table / sizeof *table; t++) {
        const struct row *row = &table[t];
        double worst = 0;
        float worst_x = 0, worst_y = 0, x[HD_VL], y[HD_VL];
        for (uint64_t bits = 0; bits < (uint64_t)1 << 32;) {
            for (int i = 0; i < HD_VL; i++, bits += stride) {
                const uint32_t low = (uint32_t)bits;
                memcpy(&x[i], &low, 4);
                if (!isnan(x[i]) && !(x[i] >= row->low && x[i] <= row->high)) x[i] = row->high < 1 ? -1.0f : 1.0f;
            }
            row->vector(y, x);
            for (int i = 0; i < HD_VL; i++) {
                const double e = error_of(y[i], isnan(x[i]) && row->exact == step ? 0 : row->exact(x[i]), row->absolute);
                if (e > worst) worst = e, worst_x = x[i], worst_y = y[i];
            }
        }
        print_message("    %-17s %6.3f ulp, at %.9g -> %.9g\n", row->name, worst, worst_x, worst_y);
        if (worst > row->ulp) fail_msg("%s: %.3f ulp at %.9g (%.9g), allowed %.3f", row->name, worst, worst_x, worst_y, row->ulp);
    }
}

static void special_values_are_exact(void **state)
{
    (void)state;
    static const struct { const char *why; void (*vector)(float *, const float *); float x, y; } cases[] = {
        { "exp of minus infinity is 0",        vector_exp,             -INFINITY, 0 },
        { "exp of 0 is 1",                     vector_exp,             0, 1 },
        { "exp overflows to infinity",         vector_exp,             100, INFINITY },
        { "exp of a masked score is 0",        vector_exp_nonpositive, -INFINITY, 0 },
        { "exp of a far score is 0",           vector_exp_nonpositive, -88, 0 },
        { "exp of a farther score is 0",       vector_exp_nonpositive, -3e38f, 0 },
        { "exp of the largest score is 1",     vector_exp_nonpositive, 0, 1 },
        { "log of 1 is 0",                     vector_log,             1, 0 },
        { "log of 0 is minus infinity",        vector_log,             0, -INFINITY },
        { "tanh of infinity is 1",             vector_tanh,            INFINITY, 1 },
        { "tanh of minus infinity is -1",      vector_tanh,            -INFINITY, -1 },
        { "erf of infinity is 1",              vector_erf,             INFINITY, 1 },
        { "erf of the smallest float is not 0", vector_erf,            1e-44f, 1.1210388e-44f },
        { "tanh of the smallest float",        vector_tanh,            1e-45f, 1e-45f },
        { "sigmoid of minus infinity is 0",    vector_sigmoid,         -INFINITY, 0 },
        { "sigmoid of infinity is 1",          vector_sigmoid,         INFINITY, 1 },
        { "gelu far left is 0",                vector_gelu,            -1e6f, 0 },
        { "gelu far right is x",               vector_gelu,            1e6f, 1e6f },
        { "the slope of gelu_tanh far left is 0", vector_gelu_tanh_prime, -1e30f, 0 },
        { "the slope of gelu_tanh far right is 1", vector_gelu_tanh_prime, 1e30f, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float x[HD_VL], y[HD_VL];
        for (int k = 0; k < HD_VL; k++) x[k] = cases[i].x;
        cases[i].vector(y, x);
        for (int k = 0; k < HD_VL; k++) if (!(y[k] == cases[i].y)) fail_msg("%s: got %.9g", cases[i].why, y[k]);
    }
}

static void parts_of_vectors_touch_only_their_lanes(void **state)
{
    (void)state;
    for (int lanes = 0; lanes < HD_VL; lanes++) {
        float x[HD_VL], y[HD_VL];
        for (int i = 0; i < HD_VL; i++) x[i] = (float)(i + 1), y[i] = -1;
        hd_store_part(y, hd_load_part(x, lanes), lanes);
        for (int i = 0; i < HD_VL; i++) assert_true(y[i] == (i < lanes ? x[i] : -1));
        hd_store(y, hd_load_part(x, lanes));
        for (int i = 0; i < HD_VL; i++) assert_true(y[i] == (i < lanes ? x[i] : 0));
    }
}

static void reductions_follow_one_tree(void **state)
{
    (void)state;
    float x[HD_VL], tree[HD_VL], most = 0;
    for (int i = 0; i < HD_VL; i++) x[i] = tree[i] = (float)hd_random_mix((uint32_t)i) * 1e-3f, most = fmaxf(most, x[i]);
    for (int half = HD_VL / 2; half; half /= 2) for (int i = 0; i < half; i++) tree[i] += tree[i + half];
    assert_true(hd_reduce_add(hd_load(x)) == tree[0]);
    assert_true(hd_reduce_max(hd_load(x)) == most);
}

static void dropout_lanes_equal_the_scalar_definition(void **state)
{
    (void)state;
    for (uint32_t element = 0; element < 4000; element += HD_VL) {
        const uint32_t base = element * 1000003u, threshold = hd_dropout_threshold(0.3);
        const hd_random_keys key = hd_random_key(11, element, 5);
        int32_t mask[HD_VL];
        hd_store_i(mask, hd_dropout_mask(11, element, 5, base, threshold));
        for (int i = 0; i < HD_VL; i++) assert_int_equal(mask[i], -(int32_t)(hd_random_bits(key, base + (uint32_t)i) >> 8 >= threshold));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_stay_within_the_stated_ulp),
        cmocka_unit_test(special_values_are_exact),
        cmocka_unit_test(parts_of_vectors_touch_only_their_lanes),
        cmocka_unit_test(reductions_follow_one_tree),
        cmocka_unit_test(dropout_lanes_equal_the_scalar_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
