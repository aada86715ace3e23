/* Every kernel that is neither a product nor attention, expanded, compiled and compared with the obvious loop in double
 * precision, at sizes that hurt: 1, primes, one lane less and one more than a vector, one vector, several slots.
 *
 * Tensors end at an unreadable page, so a kernel that touches one element too many stops the test. Each kernel runs with
 * its slots in order and in reverse order, for all rows and for some: slots must not depend on each other. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../../runtime/core/hd_core.h"
#include "../../runtime/core/hd_random.h"

extern char **environ;

/* ---- tensors that end at a page nobody may touch ---- */

static struct { void *at; size_t bytes; } fenced[256];
static int fences;

static void *fence(size_t bytes)
{
    const size_t page = 4096, room = (bytes + page - 1) / page * page + page;
    char *at = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED && fences < (int)(sizeof fenced / sizeof *fenced));
    mprotect(at + room - page, page, PROT_NONE);
    fenced[fences].at = at, fenced[fences++].bytes = room;
    return at + room - page - bytes;
}

static void release(void)
{
    while (fences) fences--, munmap(fenced[fences].at, fenced[fences].bytes);
}

static uint32_t dice = 1;
static float random_float(void)
{
    dice = hd_random_mix(dice + 0x9e3779b9u);
    return (float)((int32_t)dice) / 1073741824.0f;     /* in +-2 */
}
static float *floats(size_t count)
{
    float *at = fence(4 * count);
    for (size_t i = 0; i < count; i++) at[i] = random_float();
    return at;
}
static int32_t *integers(size_t count, int low, int high)   /* low <= value < high */
{
    int32_t *at = fence(4 * count);
    for (size_t i = 0; i < count; i++) dice = hd_random_mix(dice + 1), at[i] = low + (int32_t)(dice % (uint32_t)(high - low));
    return at;
}

/* ---- running ---- */

static void backwards(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    (*(int *)context)++;
    for (int i = slots - 1; i >= 0; i--) task(argument, i, 0);
}

static int calls;
static const hd_threads reversed = { &calls, 1, backwards };
static const hd_run runs[2] = { { .threads = NULL }, { .threads = &reversed } };

static const char *label;      /* of the case being run, for messages */
static int width;              /* HD_VL of the library under test */

static void same(const char *what, const float *got, const double *want, size_t count, double tolerance)
{
    double largest = 1e-30;
    for (size_t i = 0; i < count; i++) if (isfinite(want[i]) && fabs(want[i]) > largest) largest = fabs(want[i]);
    for (size_t i = 0; i < count; i++) {
        if (isnan(want[i]) ? isnan(got[i]) : want[i] == (double)got[i] || fabs(got[i] - want[i]) <= tolerance * largest) continue;
        fail_msg("%s, vectors of %d: %s[%zu] is %.9g, should be %.9g", label, width, what, i, got[i], want[i]);
    }
}

/* ---- the cases: each makes its parameters, and checks the function compiled from them ---- */

typedef struct test_case {
    const char *template_name;
    void (*parameters)(const struct test_case *, char *text, size_t size);
    void (*check)(const struct test_case *, void *function);
    int a, b, c, d, e;
} test_case;

#define OUT "arguments = \"float *e0\", epilogue = { \"HD_PUT(e0 + row * %d + col, acc);\" }"
typedef long long wide;

/* map: a rows, b cols; y = gelu(x) + gain[col] * scale[row], dropped out */
static void map_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "rows = %d, cols = %d, arguments = \"const float *e0, const float *e1, const float *e2, float *e3, float *e4\", "
             "prologue = { 'hd_f scale = hd_set(e2[row]);' }, lines = { 'hd_f x = HD_AT(e0 + row * %d + col);', "
             "'HD_PUT(e3 + row * %d + col, hd_gelu(x) + HD_AT(e1 + col) * scale);', "
             "'HD_PUT(e4 + row * %d + col, hd_select(hd_dropout_mask(7, 9, 3, (uint32_t)(row * %d + col), 4000000u), x, hd_set(0.0f)));' }", t->a, t->b, t->b, t->b, t->b, t->b);
}
static void map_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, int, const float *, const float *, const float *, float *, float *);
    *(void **)&f = function;
    const size_t n = (size_t)t->a * t->b;
    float *x = floats(n), *gain = floats(t->b), *scale = floats(t->a), *y = floats(n), *z = floats(n);
    double *want = malloc(n * sizeof *want), *kept = malloc(n * sizeof *kept);
    for (size_t i = 0; i < n; i++) {
        want[i] = 0.5 * x[i] * (1 + erf(x[i] / sqrt(2.0))) + (double)gain[i % t->b] * scale[i / t->b];
        kept[i] = hd_random_bits(hd_random_key(7, 9, 3), (uint32_t)i) >> 8 >= 4000000u ? x[i] : 0;
    }
    for (int r = 0; r < 2; r++) {
        memset(y, 0, n * 4), memset(z, 0, n * 4);
        f(&runs[r], t->a, x, gain, scale, y, z);
        same("gelu", y, want, n, 1e-6);
        same("dropout", z, kept, n, 0);
    }
    free(want), free(kept);
}

/* norms: a rows, b cols, c extra elements between rows, d: 1 layer, 0 rms; rows used: all, then fewer */
static void norm_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "kind = '%s_norm', rows = %d, cols = %d, ld_x = %d, epsilon = 1e-5, " OUT, t->d ? "layer" : "rms", t->a, t->b, t->b + t->c, t->b);
}
static void norm_reference(const float *x, int cols, bool layer, double *mean, double *rstd)
{
    double sum = 0, square = 0;
    for (int c = 0; c < cols; c++) sum += x[c];
    *mean = layer ? sum / cols : 0;
    for (int c = 0; c < cols; c++) square += (x[c] - *mean) * (x[c] - *mean);
    *rstd = 1 / sqrt(square / cols + 1e-5);
}
static void norm_check(const test_case *t, void *function)
{
    void (*layer)(const hd_run *, int, const float *, const float *, const float *, float *, float *, float *);
    void (*rms)(const hd_run *, int, const float *, const float *, float *, float *);
    *(void **)&layer = function, *(void **)&rms = function;
    const int rows = t->a, cols = t->b, ld = t->b + t->c;
    float *x = floats((size_t)rows * ld - t->c), *gain = floats(cols), *bias = floats(cols), *mean = floats(rows), *rstd = floats(rows), *y = floats((size_t)rows * cols);
    double *want = malloc(sizeof *want * rows * cols), *want_mean = malloc(sizeof *want * rows), *want_rstd = malloc(sizeof *want * rows);
    for (int r = 0; r < rows; r++) {
        norm_reference(x + (size_t)r * ld, cols, t->d, &want_mean[r], &want_rstd[r]);
        for (int c = 0; c < cols; c++) want[r * cols + c] = (x[(size_t)r * ld + c] - want_mean[r]) * want_rstd[r] * gain[c] + (t->d ? bias[c] : 0);
    }
    for (int r = 0; r < 2; r++) {
        const int used = r ? (rows + 1) / 2 : rows;
        memset(y, 0, 4 * (size_t)rows * cols);
        if (t->d) layer(&runs[r], used, x, gain, bias, mean, rstd, y);
        else rms(&runs[r], used, x, gain, rstd, y);
        same("y", y, want, (size_t)used * cols, 2e-6);
        same("rstd", rstd, want_rstd, used, 1e-6);
        if (t->d) same("mean", mean, want_mean, used, 1e-6);
        for (int i = used * cols; i < rows * cols; i++) assert_true(y[i] == 0);
    }
    free(want), free(want_mean), free(want_rstd);
}
/* e: 1 with column sums, of slots of 7 rows: gradients of gain and bias, and of a value of the epilogue */
static void norm_dx_parameters(const test_case *t, char *text, size_t size)
{
    const int used = snprintf(text, size, "kind = '%s_norm_dx', rows = %d, cols = %d, ld_x = %d, ", t->d ? "layer" : "rms", t->a, t->b, t->b + t->c);
    if (!t->e) snprintf(text + used, size - used, OUT, t->b);
    else snprintf(text + used, size - used, "sums = 3, gain_sum = 0, bias_sum = 1, block = 7, arguments = 'float *e0', epilogue = { 'HD_PUT(e0 + row * %d + col, acc);', 'HD_COLUMN_SUM(2, acc);' }", t->b);
}
static void norm_dgain_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "kind = '%s_norm_dgain', rows = %d, cols = %d, ld_x = %d, epilogue = { 'HD_PUT(e0 + col, acc);' }, arguments = 'float *e0'", t->d ? "layer" : "rms", t->a, t->b, t->b + t->c);
}
static void norm_gradient_check(const test_case *t, void *function)
{
    void (*layer)(const hd_run *, int, const float *, const float *, const float *, const float *, const float *, float *);
    void (*rms)(const hd_run *, int, const float *, const float *, const float *, const float *, float *);
    void (*layer_sums)(const hd_run *, int, const float *, const float *, const float *, const float *, const float *, float *, float *);
    void (*rms_sums)(const hd_run *, int, const float *, const float *, const float *, const float *, float *, float *);
    void (*layer_gain)(const hd_run *, int, const float *, const float *, const float *, const float *, float *);
    void (*rms_gain)(const hd_run *, int, const float *, const float *, const float *, float *);
    *(void **)&layer = function, *(void **)&rms = function, *(void **)&layer_gain = function, *(void **)&rms_gain = function, *(void **)&layer_sums = function, *(void **)&rms_sums = function;
    const int rows = t->a, cols = t->b, ld = t->b + t->c, slots = (rows + 6) / 7;
    const bool gains = t->parameters == norm_dgain_parameters;
    float *x = floats((size_t)rows * ld - t->c), *dy = floats((size_t)rows * cols), *gain = floats(cols), *mean = floats(rows), *rstd = floats(rows);
    float *out = floats((size_t)(gains ? 1 : rows) * cols), *sums = floats((size_t)3 * slots * cols), *joined = floats((size_t)3 * cols);
    double *want = calloc((size_t)rows * cols, sizeof *want), *want_sums = calloc((size_t)3 * cols, sizeof *want_sums);
    for (int r = 0; r < rows; r++) {
        double m, s, sum = 0, along = 0;
        norm_reference(x + (size_t)r * ld, cols, t->d, &m, &s);
        mean[r] = (float)m, rstd[r] = (float)s, m = t->d ? mean[r] : 0, s = rstd[r];
        for (int c = 0; c < cols; c++) {
            const double g = (double)dy[r * cols + c] * gain[c], h = (x[(size_t)r * ld + c] - m) * s;
            sum += g, along += g * h;
        }
        for (int c = 0; c < cols; c++) {
            const double g = (double)dy[r * cols + c] * gain[c], h = (x[(size_t)r * ld + c] - m) * s, dx = s * (g - (t->d ? sum / cols : 0) - h * along / cols);
            if (gains) want[c] += dy[r * cols + c] * h;
            else want[r * cols + c] = dx;
            want_sums[c] += dy[r * cols + c] * h, want_sums[cols + c] += dy[r * cols + c], want_sums[2 * cols + c] += dx;
        }
    }
    for (int r = 0; r < 2; r++) {
        if (gains && t->d) layer_gain(&runs[r], rows, dy, x, mean, rstd, out);
        else if (gains) rms_gain(&runs[r], rows, dy, x, rstd, out);
        else if (t->d && t->e) layer_sums(&runs[r], rows, dy, x, gain, mean, rstd, sums, out);
        else if (t->d) layer(&runs[r], rows, dy, x, gain, mean, rstd, out);
        else if (t->e) rms_sums(&runs[r], rows, dy, x, gain, rstd, sums, out);
        else rms(&runs[r], rows, dy, x, gain, rstd, out);
        same(gains ? "dgain" : "dx", out, want, (size_t)(gains ? 1 : rows) * cols, cols == 1 ? 1e-2 : 3e-6);   /* one column: all cancels */
        if (!t->e) continue;
        for (int i = 0; i < 3 * cols; i++) {
            double sum = 0;
            for (int slot = 0; slot < slots; slot++) sum += sums[((size_t)(i / cols) * slots + slot) * cols + i % cols];
            joined[i] = (float)sum;
        }
        same("column sums", joined, want_sums, (size_t)3 * cols, cols == 1 ? 1e-2 : 3e-6);
    }
    free(want), free(want_sums);
}

/* softmax: a rows, b cols, c extra between rows, d: 1 gradient */
static void softmax_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "kind = 'softmax%s', rows = %d, cols = %d, ld_x = %d, " OUT, t->d ? "_dx" : "", t->a, t->b, t->b + t->c, t->b);
}
static void softmax_check(const test_case *t, void *function)
{
    void (*forward)(const hd_run *, int, const float *, float *);
    void (*backward)(const hd_run *, int, const float *, const float *, float *);
    *(void **)&forward = function, *(void **)&backward = function;
    const int rows = t->a, cols = t->b, ld = t->b + t->c;
    float *x = floats((size_t)rows * ld - t->c), *dy = floats((size_t)rows * cols), *y = floats((size_t)rows * cols);
    double *want = malloc(sizeof *want * rows * cols);
    if (!t->d && cols > 1) x[0] = -INFINITY, x[1] = 30;
    for (int r = 0; r < rows; r++) {
        double top = -INFINITY, sum = 0, along = 0;
        for (int c = 0; c < cols; c++) top = fmax(top, x[(size_t)r * ld + c]);
        for (int c = 0; c < cols; c++) sum += exp(x[(size_t)r * ld + c] - top), along += (double)x[(size_t)r * ld + c] * dy[r * cols + c];
        for (int c = 0; c < cols; c++)
            want[r * cols + c] = t->d ? x[(size_t)r * ld + c] * (dy[r * cols + c] - along) : exp(x[(size_t)r * ld + c] - top) / sum;
    }
    for (int r = 0; r < 2; r++) {
        if (t->d) backward(&runs[r], rows, x, dy, y);
        else forward(&runs[r], rows, x, y);
        same("y", y, want, (size_t)rows * cols, 2e-6);
    }
    free(want);
}

/* cross-entropy: a rows, b classes, c extra between rows, d: 1 gradient, e: stride of dnll */
static void entropy_parameters(const test_case *t, char *text, size_t size)
{
    if (t->d) snprintf(text, size, "kind = 'cross_entropy_dx', rows = %d, cols = %d, ld = %d, dnll_stride = %d, " OUT, t->a, t->b, t->b + t->c, t->e, t->b);
    else snprintf(text, size, "kind = 'cross_entropy', rows = %d, cols = %d, ld = %d", t->a, t->b, t->b + t->c);
}
static void entropy_check(const test_case *t, void *function)
{
    void (*forward)(const hd_run *, int, const float *, const int32_t *, float *, float *);
    void (*backward)(const hd_run *, int, const float *, const int32_t *, const float *, const float *, float *);
    *(void **)&forward = function, *(void **)&backward = function;
    const int rows = t->a, cols = t->b, ld = t->b + t->c;
    float *x = floats((size_t)rows * ld - t->c), *nll = floats(rows), *lse = floats(rows), *dnll = floats(rows), *dx = floats((size_t)rows * cols);
    int32_t *target = integers(rows, -1, cols);
    double *want = malloc(sizeof *want * rows * cols), *want_nll = malloc(sizeof *want * rows), *want_lse = malloc(sizeof *want * rows);
    for (int r = 0; r < rows; r++) {
        const float *l = x + (size_t)r * ld;
        double top = -INFINITY, sum = 0;
        for (int c = 0; c < cols; c++) top = fmax(top, l[c]);
        for (int c = 0; c < cols; c++) sum += exp(l[c] - top);
        want_lse[r] = top + log(sum), lse[r] = (float)want_lse[r];
        want_nll[r] = target[r] < 0 ? 0 : want_lse[r] - l[target[r]];
        for (int c = 0; c < cols; c++) want[r * cols + c] = target[r] < 0 ? 0 : (exp(l[c] - want_lse[r]) - (c == target[r])) * dnll[r * t->e];
    }
    for (int r = 0; r < 2; r++) {
        if (t->d) backward(&runs[r], rows, x, target, lse, dnll, dx), same("dx", dx, want, (size_t)rows * cols, 2e-6);
        else forward(&runs[r], rows, x, target, nll, lse), same("nll", nll, want_nll, rows, 1e-6), same("lse", lse, want_lse, rows, 1e-6);
    }
    free(want), free(want_nll), free(want_lse);
}

/* embedding: a ids, b width, c vocabulary, d: 1 gradient, e: how ids fall: 0 anywhere (outside too), 1 all on one row */
static void embedding_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "kind = 'embedding%s', rows = %d, cols = %d, vocab = %d, " OUT, t->d ? "_dw" : "", t->a, t->b, t->c, t->b);
}
static void embedding_check(const test_case *t, void *function)
{
    void (*forward)(const hd_run *, int, const float *, const int32_t *, float *);
    void (*backward)(const hd_run *, int, const int32_t *, const float *, float *);
    *(void **)&forward = function, *(void **)&backward = function;
    const int rows = t->a, cols = t->b, vocab = t->c;
    int32_t *id = t->e ? integers(rows, vocab / 2, vocab / 2 + 1) : integers(rows, -1, vocab + 1);
    const size_t n = (size_t)(t->d ? vocab : rows) * cols;
    float *table = floats((size_t)vocab * cols), *dy = floats((size_t)rows * cols), *out = floats(n);
    double *want = calloc(n, sizeof *want);
    for (int r = 0; r < rows; r++) {
        const int v = id[r] < 0 ? 0 : id[r] < vocab ? id[r] : vocab - 1;
        for (int c = 0; c < cols; c++) {
            if (t->d) want[(size_t)v * cols + c] += dy[(size_t)r * cols + c];
            else want[(size_t)r * cols + c] = table[(size_t)v * cols + c];
        }
    }
    for (int r = 0; r < 2; r++) {
        if (t->d) backward(&runs[r], rows, id, dy, out);
        else forward(&runs[r], rows, table, id, out);
        same("out", out, want, n, t->d ? 3e-6 : 0);
    }
    free(want);
}

/* reduce: a outer, b reduced, c inner, d: 1 maximum, e: rows that the last outer one lacks */
static void reduce_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "op = '%s', outer = %d, reduced = %d, last = %d, inner = %d, " OUT, t->d ? "max" : "sum", t->a, t->b, t->b - t->e, t->c, t->c);
}
static void reduce_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, int, const float *, float *);
    *(void **)&f = function;
    const size_t n = (size_t)t->a * t->c;
    float *x = floats(n * t->b - (size_t)t->e * t->c), *y = floats(n);
    double *want = malloc(sizeof *want * n), magnitude = 0;
    for (size_t i = 0; i < n; i++) {
        want[i] = t->d ? -INFINITY : 0;
        double size = 0;
        for (int r = 0; r < t->b - ((int)i / t->c + 1 == t->a ? t->e : 0); r++) {
            const double v = x[(i / t->c * t->b + r) * t->c + i % t->c];
            want[i] = t->d ? fmax(want[i], v) : want[i] + v;
            size += fabs(v);
        }
        magnitude = fmax(magnitude, size / fmax(fabs(want[i]), 1e-30));
    }
    for (int r = 0; r < 2; r++) f(&runs[r], t->a, x, y), same("y", y, want, n, t->d ? 0 : 2e-7 * fmin(magnitude, 1e4));
    free(want);
}

/* few_rows: a rows, b columns, c depth, d: 1 B transposed, -nv panels of nv vectors, e: products of a batch, 0 one */
static void few_rows_parameters(const test_case *t, char *text, size_t size)
{
    const int batch = t->e ? t->e : 1, slots = t->b < 100 ? 1 : 3;
    const int at = snprintf(text, size, "m = %d, n = %d, k = %d, ld_a = %d, transposed = %s, ld_b = %d, batch = %d, stride_a = %d, stride_b = %d, slots_n = %d, " OUT, t->a, t->b, t->c, t->c + 1,
                            t->d == 1 ? "true" : "false", t->d == 1 ? t->c + 2 : t->b + 2, batch, t->a * (t->c + 1), t->d == 1 ? t->b * (t->c + 2) : t->c * (t->b + 2), slots, t->b);
    if (t->d < 0) snprintf(text + at, size - (size_t)at, ", nv = %d", -t->d);
}
static void few_rows_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, int, const float *, const float *, float *);
    *(void **)&f = function;
    const int m = t->a, n = t->b, k = t->c, batch = t->e ? t->e : 1, ld_a = k + 1, ld_b = t->d == 1 ? k + 2 : n + 2, nr = -t->d * width;
    const size_t a_items = (size_t)m * ld_a, b_items = (size_t)(t->d == 1 ? n : k) * ld_b;
    float *a = floats(batch * a_items - 1), *b = floats(batch * b_items - 2), *y = floats((size_t)batch * m * n), *panels = NULL;
    if (t->d < 0) {
        panels = floats((size_t)(n + nr - 1) / nr * nr * k);
        for (int c = 0; c < (n + nr - 1) / nr * nr; c++)
            for (int e = 0; e < k; e++) panels[(size_t)(c / nr) * nr * k + (size_t)e * nr + c % nr] = c < n ? b[(size_t)e * ld_b + c] : 0;
    }
    double *want = malloc(sizeof *want * batch * m * n), magnitude = 0;
    for (int i = 0; i < batch * m * n; i++) {
        const int item = i / (m * n), r = i / n % m, c = i % n;
        double size = 0;
        want[i] = 0;
        for (int e = 0; e < k; e++) {
            const double v = (double)a[item * a_items + (size_t)r * ld_a + e] * b[item * b_items + (t->d == 1 ? (size_t)c * ld_b + e : (size_t)e * ld_b + c)];
            want[i] += v, size += fabs(v);
        }
        magnitude = fmax(magnitude, size / fmax(fabs(want[i]), 1e-30));
    }
    for (int r = 0; r < 2; r++) f(&runs[r], m, a, panels ? panels : b, y), same("y", y, want, (size_t)batch * m * n, 3e-7 * fmin(magnitude, 1e4));
    free(want);
}

/* permute: the digits of c (decimal, most significant first) are the output's axes in the order of x; sizes from a table; d: a gap between rows of x */
static const int permute_sizes[][4] = { { 3, 5, 2, 7 }, { 2, 17, 3, 33 }, { 1, 64, 4, 48 }, { 40, 1, 1, 67 }, { 1, 1, 1, 70000 } };
static void permute_layout(const test_case *t, int size[4], ptrdiff_t from[4], ptrdiff_t to[4], size_t *extent)
{
    ptrdiff_t stride[4];
    const int *x = permute_sizes[t->a];
    stride[3] = 1, stride[2] = x[3] + t->d;
    for (int i = 1; i >= 0; i--) stride[i] = stride[i + 1] * x[i + 1];
    for (int i = 0, c = t->c, unit = 1000; i < 4; i++, unit /= 10) size[i] = x[c / unit % 10], from[i] = stride[c / unit % 10];
    to[3] = 1;
    for (int i = 2; i >= 0; i--) to[i] = to[i + 1] * size[i + 1];
    *extent = (size_t)(stride[0] * x[0] - t->d);
}
static void permute_parameters(const test_case *t, char *text, size_t size)
{
    int n[4];
    ptrdiff_t from[4], to[4];
    size_t extent;
    permute_layout(t, n, from, to, &extent);
    snprintf(text, size, "sizes = { %d, %d, %d, %d }, from = { %td, %td, %td, %td }, to = { %td, %td, %td, %td }", n[0], n[1], n[2], n[3],
             from[0], from[1], from[2], from[3], to[0], to[1], to[2], to[3]);
}
static void permute_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, const float *, float *);
    *(void **)&f = function;
    int n[4];
    ptrdiff_t from[4], to[4];
    size_t extent;
    permute_layout(t, n, from, to, &extent);
    const size_t count = (size_t)n[0] * n[1] * n[2] * n[3];
    float *x = floats(extent), *y = floats(count);
    double *want = malloc(sizeof *want * count);
    size_t at = 0;
    for (int i = 0; i < n[0]; i++) for (int j = 0; j < n[1]; j++) for (int k = 0; k < n[2]; k++) for (int l = 0; l < n[3]; l++)
        want[at++] = x[i * from[0] + j * from[1] + k * from[2] + l * from[3]];
    for (int r = 0; r < 2; r++) memset(y, 0, 4 * count), f(&runs[r], x, y), same("y", y, want, count, 0);
    free(want);
}

/* concat, pad, shift: a rows; b, c, d sizes */
static void concat_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "rows = %d, sizes = { %d, %d, %d }", t->a, t->b, t->c, t->d);
}
static void pad_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "rows = %d, before = %d, size = %d, after = %d", t->a, t->b, t->c, t->d);
}
static void shift_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "kind = '%s', rows = %d, length = %d, inner = %d", t->d ? "unshift" : "shift", t->a, t->b, t->c);
}
static void splice_check(const test_case *t, void *function)
{
    void (*concat)(const hd_run *, int, const float *, const float *, const float *, float *);
    void (*pad)(const hd_run *, int, const float *, float *);
    void (*shift)(const hd_run *, int, const float *, const float *, float *);
    *(void **)&concat = function, *(void **)&pad = function, *(void **)&shift = function;
    const bool joins = t->parameters == concat_parameters, pads = t->parameters == pad_parameters;
    const int total = joins || pads ? t->b + t->c + t->d : t->b * t->c;
    const size_t n = (size_t)t->a * total;
    float *x = floats((size_t)t->a * (joins ? t->b : pads ? t->c : total)), *y = floats((size_t)t->a * t->c), *z = floats((size_t)t->a * t->d), *out = floats(n);
    double *want = malloc(sizeof *want * n);
    for (size_t i = 0; i < n; i++) {
        const size_t row = i / total, c = i % total;
        if (joins) want[i] = c < (size_t)t->b ? x[row * t->b + c] : c < (size_t)(t->b + t->c) ? y[row * t->c + c - t->b] : z[row * t->d + c - t->b - t->c];
        else if (pads) want[i] = c >= (size_t)t->b && c < (size_t)(t->b + t->c) ? x[row * t->c + c - t->b] : 0;
        else if (t->d) want[i] = c + t->c < (size_t)total ? x[i + t->c] : 0;
        else want[i] = c < (size_t)t->c ? y[c] : x[i - t->c];
    }
    for (int r = 0; r < 2; r++) {
        memset(out, 0xff, 4 * n);
        if (joins) concat(&runs[r], t->a, x, y, z, out);
        else if (pads || t->d) pad(&runs[r], t->a, x, out);
        else shift(&runs[r], t->a, x, y, out);
        same("out", out, want, n, 0);
    }
    free(want);
}

/* rope: a length, b heads, c head_dim, d dims, e: 1 adjacent, 2 inverse, 4 two heads-first groups inside, 8 listed angles and a scale */
static double listed_angle(int pair) { return 1.0 / (1 + pair * pair); }
static void rope_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "rows = %d, length = %d, inner = %d, heads = %d, head_dim = %d, dims = %d, adjacent = %s, inverse = %s, base = 10000.0, " OUT,
             2 * t->a * (t->e & 4 ? 2 : 1), t->a, t->e & 4 ? 2 : 1, t->b, t->c, t->d, t->e & 1 ? "true" : "false", t->e & 2 ? "true" : "false", t->b * t->c);
    size_t used = strlen(text);
    for (int pair = 0; t->e & 8 && pair < t->d / 2; pair++) used += (size_t)snprintf(text + used, size - used, "%s%.17g", pair ? ", " : ", scale = 1.25, frequencies = { ", listed_angle(pair));
    if (t->e & 8) snprintf(text + used, size - used, " }");
}
static void rope_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, int, const float *, float *);
    *(void **)&f = function;
    const int inner = t->e & 4 ? 2 : 1, rows = 2 * t->a * inner, cols = t->b * t->c;
    const size_t n = (size_t)rows * cols;
    float *x = floats(n), *y = floats(n);
    double *want = malloc(sizeof *want * n);
    for (size_t i = 0; i < n; i++) {
        const int e = (int)(i % cols) % t->c, position = (int)(i / cols) / inner % t->a;
        const size_t head = i - e;
        if (e >= t->d) { want[i] = x[i]; continue; }
        const int pair = t->e & 1 ? e / 2 : e % (t->d / 2), first = t->e & 1 ? 2 * pair : pair, second = t->e & 1 ? 2 * pair + 1 : pair + t->d / 2;
        const double angle = (t->e & 2 ? -1 : 1) * position * (t->e & 8 ? listed_angle(pair) : pow(10000, -2.0 * pair / t->d));
        want[i] = (t->e & 8 ? 1.25 : 1) * (e == first ? x[head + first] * cos(angle) - x[head + second] * sin(angle) : x[head + first] * sin(angle) + x[head + second] * cos(angle));
    }
    for (int r = 0; r < 2; r++) f(&runs[r], rows, x, y), same("y", y, want, n, 1e-6);
    free(want);
}

/* top_k: a rows of b, the c largest; d: floats between rows that belong to nobody; e: some are equal, some are no numbers */
static void top_k_parameters(const test_case *t, char *text, size_t size) { snprintf(text, size, "rows = %d, cols = %d, k = %d, ld = %d", t->a, t->b, t->c, t->b + t->d); }
static void top_k_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, const float *, int32_t *, float *);
    *(void **)&f = function;
    const int ld = t->b + t->d;
    float *x = floats((size_t)t->a * ld - t->d), *values = floats((size_t)t->a * t->c);
    int32_t *ids = integers((size_t)t->a * t->c, 0, 1);
    for (int i = 0; t->e && i < t->a * ld - t->d; i++) x[i] = i % 5 == 3 ? nanf("") : roundf(x[i]);
    for (int r = 0; r < 2; r++) {
        f(&runs[r], x, ids, values);
        for (int row = 0; row < t->a; row++) {
            const float *at = x + (size_t)row * ld;
            for (int c = 0; c < t->c; c++) {
                const int id = ids[row * t->c + c];
                int before = 0;         /* elements that come before it: the larger ones, and equal ones with smaller ids; what is no number is the smallest */
                if (id < 0 || id >= t->b) fail_msg("row %d: id %d of %d", row, id, t->b);
                for (int j = 0; j < t->b; j++) {
                    const bool nan_j = at[j] != at[j], nan_id = at[id] != at[id];
                    before += nan_j != nan_id ? nan_id : !nan_j && at[j] != at[id] ? at[j] > at[id] : j < id;
                }
                if (before != c) fail_msg("row %d: id %d comes as number %d, it is number %d", row, id, c, before);
                if (memcmp(&values[row * t->c + c], &at[id], 4)) fail_msg("row %d: value %d is not that of id %d", row, c, id);
            }
        }
    }
}

/* experts: a tokens, of which all but the last count, b choices, c experts, d x e matrices; a below 0: the choices of a token share its row of x */
static void experts_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "rows = %d, choices = %d, shared = %s, experts = %d, k = %d, n = %d, crowded = %s", abs(t->a), t->b, t->a < 0 ? "true" : "false", t->c, t->d, t->e,
             abs(t->a) * t->b > 8 * t->c ? "true" : "false");
}
static void experts_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, int, const float *, const float *, const int32_t *, float *);
    *(void **)&f = function;
    const int tokens = abs(t->a), rows = tokens > 1 ? tokens - 1 : 1, shared = t->a < 0;
    const size_t pairs = (size_t)rows * t->b, n = pairs * t->e;
    float *x = floats((size_t)rows * (shared ? 1 : t->b) * t->d), *w = floats((size_t)t->c * t->d * t->e), *out = floats(n);
    int32_t *ids = integers(pairs, 0, t->c);
    double *want = calloc(n, sizeof *want);
    for (size_t p = 0; p < pairs; p++)
        for (int i = 0; i < t->d; i++)
            for (int j = 0; j < t->e; j++) want[p * t->e + j] += (double)x[(shared ? p / t->b : p) * t->d + i] * w[((size_t)ids[p] * t->d + i) * t->e + j];
    for (int r = 0; r < 2; r++) {
        hd_run run = runs[r];
        run.local = fence(4 * 512 * 64), run.local_bytes = 4 * 512 * 64;
        memset(out, 0xff, 4 * n);
        f(&run, rows, x, w, ids, out);
        same("out", out, want, n, 1e-5);
    }
    free(want);
}

/* the optimiser: a floats; the first third decays, the rest not */
/* two thirds are squared, in two pieces; b: as many numbers are sums of squares already */
static void partials_parameters(const test_case *t, char *text, size_t size)
{
    int used = snprintf(text, size, "kind = 'gradient_norm_partials', squared = 2, pieces = { { start = 0, count = %d }, { start = %d, count = %d }", t->a / 3, t->a / 2, t->a - t->a / 2);
    if (t->b) used += snprintf(text + used, size - used, ", { start = 0, count = %d }", t->b);
    snprintf(text + used, size - used, " }");
}
static void join_parameters(const test_case *t, char *text, size_t size) { (void)t, snprintf(text, size, "kind = 'gradient_norm_join', partials = 64"); }
static void adamw_parameters(const test_case *t, char *text, size_t size)
{
    snprintf(text, size, "kind = 'adamw', count = %d, segments = { { start = 0, count = %d, decay = true }, { start = %d, count = %d, decay = false } }", t->a, t->a / 3, t->a / 3, t->a - t->a / 3);
}
static const float hyper[16] = { 1e-2f, 0.9f, 0.999f, 1e-8f, 0.1f, 1.0f, 0.1f, 0.001f, 0.25f, 0, 1 };
static void partials_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, const float *, const float *, double *);
    *(void **)&f = function;
    float *g = floats(t->a), *sums = floats(t->b);
    double sum = 0, got[2] = { 0 };
    for (int i = 0; i < t->a; i++) if (i < t->a / 3 || i >= t->a / 2) sum += (double)g[i] * g[i];
    for (int i = 0; i < t->b; i++) sum += sums[i] = fabsf(sums[i]);
    for (int r = 0; r < 2; r++) {
        double partials[64] = { 0 };
        f(&runs[r], g, sums, partials);
        for (int i = 0; i < 64; i++) got[r] += partials[i];
    }
    assert_true(got[0] == got[1]);
    if (fabs(got[0] - sum) > 1e-6 * sum) fail_msg("%s: sum of squares %.17g, should be %.17g", label, got[0], sum);
}
static void join_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, const double *, const float *, float *);
    *(void **)&f = function;
    static const double sums[] = { 0, 1e-40, 1e-12, 2, 12345.678, 1e30 };
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        double partials[64] = { sums[i] };
        float norm = -1;
        f(&runs[0], partials, hyper, &norm);
        const double want = sqrt(sums[i]) * 0.25;
        if (fabs(norm - want) > 1e-7 * want) fail_msg("%s: norm %.9g, should be %.9g", label, norm, want);
    }
    (void)t;
}
static void adamw_check(const test_case *t, void *function)
{
    void (*f)(const hd_run *, const float *, const float *, float *, const float *, float *, float *);
    *(void **)&f = function;
    const int n = t->a;
    float *w = floats(n), *g = floats(n), *m = floats(n), *v = floats(n), off[16] = { 0 };
    const float norms[3] = { 4, 0.5f, NAN };
    double *want = malloc(sizeof *want * 3 * n);
    for (int i = 0; i < n; i++) v[i] = fabsf(v[i]);
    for (int r = 0; r < 3; r++) {
        for (int i = 0; i < n; i++) {
            const double gradient = g[i] * 0.25 * (norms[r] > 1 ? 1 / norms[r] : 1);
            const double a = hyper[1] * m[i] + (1.0 - hyper[1]) * gradient, b = hyper[2] * v[i] + (1.0 - hyper[2]) * gradient * gradient;
            want[n + i] = a, want[2 * n + i] = b;
            want[i] = w[i] - hyper[0] * ((i < n / 3 ? hyper[4] * w[i] : 0) + a / hyper[6] / (sqrt(b / hyper[7]) + hyper[3]));
            if (r == 2) want[i] = w[i], want[n + i] = m[i], want[2 * n + i] = v[i];
        }
        f(&runs[1], off, norms, w, g, m, v);           /* hyper[UPDATE] is 0: nothing moves */
        f(&runs[r & 1], hyper, &norms[r], w, g, m, v);
        same("w", w, want, n, 5e-7);
        same("m", m, want + n, n, 3e-7);
        same("v", v, want + 2 * n, n, 3e-7);
    }
    free(want);
}

static const test_case cases[] = {
#define SIZES(row) row(1, 1) row(3, 15) row(5, 17) row(7, 64) row(70, 97) row(2, 9001) row(1, 40000) row(300, 3)
#define ROW(r, c) { "map", map_parameters, map_check, r, c, 0, 0, 0 },
    SIZES(ROW)
#undef ROW
#define ROW(r, c) { "norm", norm_parameters, norm_check, r, c, 0, 1, 0 }, { "norm", norm_parameters, norm_check, r, c, 5, 0, 0 }, \
                  { "norm", norm_dx_parameters, norm_gradient_check, r, c, 3, 1, 0 }, { "norm", norm_dx_parameters, norm_gradient_check, r, c, 0, 0, 0 }, \
                  { "norm", norm_dx_parameters, norm_gradient_check, r, c, 2, 1, 1 }, { "norm", norm_dx_parameters, norm_gradient_check, r, c, 0, 0, 1 }, \
                  { "norm", norm_dgain_parameters, norm_gradient_check, r, c, 3, 1, 0 }, { "norm", norm_dgain_parameters, norm_gradient_check, r, c, 0, 0, 0 },
    ROW(1, 1) ROW(3, 15) ROW(5, 17) ROW(131, 64) ROW(70, 97) ROW(9, 769)
#undef ROW
#define ROW(r, c) { "softmax", softmax_parameters, softmax_check, r, c, 2, 0, 0 }, { "softmax", softmax_parameters, softmax_check, r, c, 0, 1, 0 }, \
                  { "cross_entropy", entropy_parameters, entropy_check, r, c, 2, 0, 1 }, { "cross_entropy", entropy_parameters, entropy_check, r, c, 0, 1, 1 },
    ROW(1, 1) ROW(3, 15) ROW(5, 17) ROW(70, 97) ROW(33, 256) ROW(3, 5003)
#undef ROW
    { "cross_entropy", entropy_parameters, entropy_check, 5, 17, 0, 1, 0 },
#define ROW(ids, w, v, one) { "embedding", embedding_parameters, embedding_check, ids, w, v, 0, one }, { "embedding", embedding_parameters, embedding_check, ids, w, v, 1, one },
    ROW(1, 1, 1, 0) ROW(40, 17, 5, 0) ROW(300, 128, 256, 0) ROW(9000, 9, 300, 0) ROW(9000, 20, 40, 1) ROW(64, 33, 5003, 0) ROW(100, 300, 7, 0)
#undef ROW
#define ROW(o, r, i) { "reduce", reduce_parameters, reduce_check, o, r, i, 0, 0 }, { "reduce", reduce_parameters, reduce_check, o, r, i, 1, 0 },
    ROW(1, 1, 1) ROW(1, 5000, 1) ROW(70, 33, 1) ROW(3, 15, 1) ROW(1, 300, 17) ROW(5, 7, 64) ROW(1, 130, 200) ROW(9, 3, 3) ROW(200, 5, 15) ROW(2, 64, 16) ROW(3, 67, 97) ROW(4, 72, 2100)
#undef ROW
    { "reduce", reduce_parameters, reduce_check, 3, 70, 40, 0, 9 }, { "reduce", reduce_parameters, reduce_check, 2, 64, 33, 1, 63 },
#define ROW(m, n, k) { "few_rows", few_rows_parameters, few_rows_check, m, n, k, 0, 0 }, { "few_rows", few_rows_parameters, few_rows_check, m, n, k, 1, 0 }, \
                     { "few_rows", few_rows_parameters, few_rows_check, m, n, k, -3, 0 }, { "few_rows", few_rows_parameters, few_rows_check, m, n, k, -2, 0 },
    ROW(1, 1, 1) ROW(1, 15, 17) ROW(2, 64, 16) ROW(3, 17, 5) ROW(1, 5000, 33) ROW(4, 1300, 70) ROW(8, 200, 300) ROW(5, 33, 600)
#undef ROW
#define ROW(m, n, k) { "few_rows", few_rows_parameters, few_rows_check, m, n, k, -3, 0 }, { "few_rows", few_rows_parameters, few_rows_check, m, n, k, -2, 0 },
    ROW(9, 17, 5) ROW(13, 200, 300) ROW(16, 97, 96) ROW(24, 150, 49)
#undef ROW
    { "few_rows", few_rows_parameters, few_rows_check, 2, 37, 19, 0, 3 }, { "few_rows", few_rows_parameters, few_rows_check, 2, 37, 19, 1, 3 },
#define ROW(i) { "permute", permute_parameters, permute_check, i, 0, 123, 0, 0 }, { "permute", permute_parameters, permute_check, i, 0, 213, 3, 0 }, \
               { "permute", permute_parameters, permute_check, i, 0, 132, 0, 0 }, { "permute", permute_parameters, permute_check, i, 0, 3210, 0, 0 }, \
               { "permute", permute_parameters, permute_check, i, 0, 2301, 1, 0 },
    ROW(0) ROW(1) ROW(2) ROW(3) ROW(4)
#undef ROW
#define ROW(r, x, y, z) { "concat", concat_parameters, splice_check, r, x, y, z, 0 }, { "pad", pad_parameters, splice_check, r, x, y, z, 0 },
    ROW(1, 1, 1, 1) ROW(3, 5, 17, 2) ROW(100, 64, 64, 64) ROW(2, 5000, 3, 9000) ROW(1, 70000, 5, 100)
#undef ROW
#define ROW(r, length, inner) { "shift", shift_parameters, splice_check, r, length, inner, 0, 0 }, { "shift", shift_parameters, splice_check, r, length, inner, 1, 0 },
    ROW(1, 1, 1) ROW(3, 7, 5) ROW(20, 16, 128) ROW(1, 300, 129)
#undef ROW
    { "rope", rope_parameters, rope_check, 7, 2, 6, 6, 0 }, { "rope", rope_parameters, rope_check, 7, 2, 6, 4, 1 }, { "rope", rope_parameters, rope_check, 70, 3, 64, 64, 0 },
    { "rope", rope_parameters, rope_check, 70, 3, 64, 64, 1 }, { "rope", rope_parameters, rope_check, 5, 2, 40, 32, 2 }, { "rope", rope_parameters, rope_check, 5, 2, 40, 32, 7 },
    { "rope", rope_parameters, rope_check, 300, 1, 48, 48, 4 }, { "rope", rope_parameters, rope_check, 9, 2, 20, 14, 8 }, { "rope", rope_parameters, rope_check, 9, 1, 16, 16, 11 },
    { "top_k", top_k_parameters, top_k_check, 1, 1, 1, 0, 0 }, { "top_k", top_k_parameters, top_k_check, 300, 37, 4, 3, 0 }, { "top_k", top_k_parameters, top_k_check, 20, 9, 9, 0, 1 },
    { "experts", experts_parameters, experts_check, 1, 1, 1, 1, 1 }, { "experts", experts_parameters, experts_check, -40, 2, 3, 17, 33 }, { "experts", experts_parameters, experts_check, 23, 4, 5, 8, 16 },
    { "experts", experts_parameters, experts_check, -3, 2, 70, 5, 1100 }, { "experts", experts_parameters, experts_check, 9, 3, 2, 64, 515 }, { "experts", experts_parameters, experts_check, -60, 2, 3, 700, 67 },
    { "experts", experts_parameters, experts_check, 50, 1, 2, 513, 130 },
#define ROW(n) { "optimiser", partials_parameters, partials_check, n, 0, 0, 0, 0 }, { "optimiser", partials_parameters, partials_check, n, n / 2 + 1, 0, 0, 0 }, { "optimiser", join_parameters, join_check, n, 0, 0, 0, 0 }, { "optimiser", adamw_parameters, adamw_check, n, 0, 0, 0, 0 },
    ROW(1) ROW(63) ROW(1000) ROW(100003)
#undef ROW
};
enum { CASES = sizeof cases / sizeof *cases };

/* ---- expansion and compilation ---- */

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s cannot be read: run from the top of the checkout", path);
    char *text = calloc(1, 1 << 20);
    text[fread(text, 1, (1 << 20) - 1, f)] = 0;
    fclose(f);
    return text;
}

static bool ran(char *const *command)
{
    pid_t child;
    int status;
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    const int failed = posix_spawnp(&child, command[0], &quiet, NULL, command, environ);
    posix_spawn_file_actions_destroy(&quiet);
    return !failed && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void *compiled(const char *compiler, int vl, const char *march)
{
    char source[] = "/tmp/heddle_kernels_XXXXXX.c", library[64], path[128], parameters[2048];
    const int handle = mkstemps(source, 2);
    assert_true(handle >= 0);
    FILE *f = fdopen(handle, "w");
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    if (luaL_dofile(L, "compiler/emit/template.lua")) fail_msg("%s", lua_tostring(L, -1));
    fprintf(f, "#define HD_VL %d\n#include \"hd_core.h\"\n#include \"hd_vec.h\"\n", vl);
    for (int i = 0; i < CASES; i++) {
        snprintf(path, sizeof path, "templates/%s.c.tmpl", cases[i].template_name);
        char *text = read_text(path);
        cases[i].parameters(&cases[i], parameters, sizeof parameters);
        lua_getfield(L, 1, "expand");
        lua_pushstring(L, text);
        lua_pushfstring(L, "%s.c.tmpl", cases[i].template_name);
        const char *table = lua_pushfstring(L, "return { name = 'k%d', vl = %d, %s }", i, vl, parameters);
        if (luaL_dostring(L, table)) fail_msg("%s: %s", table, lua_tostring(L, -1));
        lua_remove(L, -2);
        if (lua_pcall(L, 3, 1, 0)) fail_msg("%s { %s }: %s", cases[i].template_name, parameters, lua_tostring(L, -1));
        fprintf(f, "%s\n", lua_tostring(L, -1));
        lua_settop(L, 1);
        free(text);
    }
    lua_close(L);
    fclose(f);
    snprintf(library, sizeof library, "%.*s.so", (int)(sizeof source - 3), source);
    char arch[64];
    snprintf(arch, sizeof arch, "-march=%s", march);
    char *command[] = { (char *)compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Werror", arch, "-fPIC", "-shared", "-Iruntime/core", source, "-o", library, NULL };
    void *opened = ran(command) ? dlopen(library, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (opened) unlink(source), unlink(library);
    return opened;
}

/* Compilers tried in order; clang: after the one that heddle uses here. */
static const char *const clang[] = { "clang-22", "clang", NULL }, *const gcc[] = { "gcc-12", "gcc", NULL };

static void check_all(const char *const *compilers, int vl, const char *march, bool supported)
{
    if (!supported) { print_message("          skipped: this machine has no %s\n", march); skip(); }
    const char *compiler = compilers == clang && getenv("HD_TEST_CC") && strstr(getenv("HD_TEST_CC"), "clang") ? getenv("HD_TEST_CC") : NULL;
    for (; *compilers && !compiler; compilers++) {
        char *version[] = { (char *)*compilers, "-dumpversion", NULL };
        if (ran(version)) compiler = *compilers;
    }
    if (!compiler) { print_message("          skipped: this compiler is not installed\n"); skip(); }
    void *library = compiled(compiler, vl, march);
    if (!library) fail_msg("%s -march=%s does not compile the kernels (the source is kept in /tmp)", compiler, march);
    width = vl;
    for (int i = 0; i < CASES; i++) {
        char name[16], text[256];
        snprintf(name, sizeof name, "k%d", i);
        cases[i].parameters(&cases[i], text, sizeof text);
        char *told = NULL;
        if (asprintf(&told, "%s { %s }", cases[i].template_name, text) < 0) abort();
        label = told;
        dice = (uint32_t)i;
        void *function = dlsym(library, name);
        assert_non_null(function);
        cases[i].check(&cases[i], function);
        release();
        free(told);
    }
    dlclose(library);
}

static void kernels_agree_with_loops_16_lanes_clang(void **state) { (void)state; check_all(clang, 16, "x86-64-v4", __builtin_cpu_supports("avx512dq")); }
static void kernels_agree_with_loops_8_lanes_clang(void **state) { (void)state; check_all(clang, 8, "x86-64-v3", __builtin_cpu_supports("avx2")); }
static void kernels_agree_with_loops_4_lanes_clang(void **state) { (void)state; check_all(clang, 4, "x86-64", true); }
static void kernels_agree_with_loops_8_lanes_gcc(void **state) { (void)state; check_all(gcc, 8, "x86-64-v3", __builtin_cpu_supports("avx2")); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_agree_with_loops_16_lanes_clang),
        cmocka_unit_test(kernels_agree_with_loops_8_lanes_clang),
        cmocka_unit_test(kernels_agree_with_loops_4_lanes_clang),
        cmocka_unit_test(kernels_agree_with_loops_8_lanes_gcc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
