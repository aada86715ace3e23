/* Product kernels against a double loop: every layout, awkward sizes, ragged edges, blocks of k, batches, epilogues, fewer
 * rows than built for; any order of slots gives the same bits. Kernels are expanded from the templates through Lua, one
 * file for each vector length, and loaded from a shared object. Run from the source folder; HD_TEST_CC names another compiler. */
#include <dlfcn.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "../../compiler/emit/product.h"
#include "../../runtime/core/hd_core.h"

extern char **environ;

enum { PLAIN, BIAS_GELU_RESIDUAL };
typedef void kernel(const hd_run *, int rows, const float *a, const float *b, float *out, const float *bias, const float *residual);
typedef void packer(const hd_run *, const float *b, float *packed, ptrdiff_t n, ptrdiff_t k, ptrdiff_t ld_b);

typedef struct shape {
    const char *why;
    int m, n, k, batch;
    int trans_a, kind;                 /* kind: hd_product_kind, + 4 if packed from [n][k] */
    int epilogue, rows;                /* rows: 0 all */
    int kc, nc, mr, nv;                /* 0: as chosen */
    int share_b;
} shape;

static const shape shapes[] = {
    { "one element",                      1,   1,   1, 1, 0, 0, PLAIN, 0, 0, 0, 0, 0, 0 },
    { "one row, packed",                  1, 131,  67, 1, 0, 4, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "two rows",                         2,  33, 129, 1, 0, 0, PLAIN, 0, 0, 0, 0, 0, 0 },
    { "a prime of everything",           37,  41,  43, 1, 0, 4, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "one short of the tile",           23,  47,  31, 1, 0, 0, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "one more than the tile",          25,  49,  33, 1, 0, 4, PLAIN, 0, 0, 0, 0, 0, 0 },
    { "whole tiles",                     24,  96,  64, 1, 0, 4, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "fewer rows than built for",       61,  70,  40, 1, 0, 0, BIAS_GELU_RESIDUAL, 13, 0, 0, 0, 0, 0 },
    { "k in blocks, packed",             29,  83, 101, 1, 0, 4, BIAS_GELU_RESIDUAL, 0, 32, 0, 0, 0, 0 },
    { "k in blocks, fewer rows",         29,  83, 101, 1, 0, 0, PLAIN, 5, 48, 48, 0, 0, 0 },
    { "B natural",                       45,  77,  53, 1, 0, 1, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "B transposed",                    45,  77,  53, 1, 0, 2, PLAIN, 0, 0, 48, 0, 0, 0 },
    { "B transposed, whole blocks",      40,  64,  64, 1, 0, 2, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "weight gradient",                 45,  77, 131, 1, 1, 1, PLAIN, 0, 0, 0, 0, 0, 0 },
    { "weight gradient, k in blocks",    45,  77, 131, 1, 1, 1, BIAS_GELU_RESIDUAL, 0, 64, 48, 0, 0, 0 },
    { "weight gradient, one row",         1,   7, 131, 1, 1, 1, PLAIN, 0, 64, 0, 0, 0, 0 },
    { "weight gradient, wide",          401, 400, 131, 1, 1, 1, BIAS_GELU_RESIDUAL, 0, 64, 0, 0, 0, 0 },
    { "weight gradient, few tiles",    128, 144, 200, 1, 1, 1, BIAS_GELU_RESIDUAL, 0, 96, 0, 0, 0, 0 },
    { "A and B transposed",              19,  35,  67, 1, 1, 2, PLAIN, 0, 0, 0, 0, 0, 0 },
    { "A transposed, B packed",          19,  35,  67, 1, 1, 0, BIAS_GELU_RESIDUAL, 11, 0, 0, 0, 0, 0 },
    { "few rows, B transposed",           5,  67,  70, 1, 0, 2, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "one row, B transposed",            1,  64, 128, 1, 0, 2, PLAIN, 0, 0, 0, 0, 0, 0 },
    { "few rows, B transposed, batch",    3,   9,  19, 3, 0, 2, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "few rows, B natural",              5,  67,  70, 1, 0, 1, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "one row, B natural",               1, 149,  31, 1, 0, 1, PLAIN, 0, 0, 0, 0, 0, 0 },
    { "batch, natural",                  17,  32,  24, 5, 0, 1, BIAS_GELU_RESIDUAL, 0, 0, 0, 0, 0, 0 },
    { "batch, transposed",               17,  19,  24, 5, 0, 2, PLAIN, 0, 0, 0, 0, 0, 0 },
    { "batch, one B",                     9,  50,  24, 3, 0, 0, PLAIN, 0, 0, 0, 0, 0, 1 },
    { "batch, both transposed",           9,  33,  40, 3, 1, 2, PLAIN, 0, 24, 0, 0, 0, 0 },
    { "tile 12 x 2",                    128,  64,  32, 1, 0, 4, PLAIN, 0, 0, 0, 12, 2, 0 },
    { "tile 6 x 4",                      50, 130,  32, 1, 0, 4, BIAS_GELU_RESIDUAL, 0, 0, 0, 6, 4, 0 },
    { "tile 3 x 1",                      20,  40,  32, 1, 1, 1, PLAIN, 0, 0, 0, 3, 1, 0 },
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static lua_State *new_templates(void)
{
    lua_State *lua = luaL_newstate();
    luaL_openlibs(lua);
    const char *code =
        "local template = dofile 'compiler/emit/template.lua'\n"
        "local function slurp(path) local f <close> = assert(io.open(path)); return f:read 'a' end\n"
        "local text = { product = slurp 'templates/product.c.tmpl', pack = slurp 'templates/pack.c.tmpl' }\n"
        "function expand(kind, p)\n"
        "  p.arguments = { { 'float *', 'out' }, { 'const float *', 'bias' }, { 'const float *', 'residual' } }\n"
        "  local to = string.format('%d * row + col', p.n)\n"
        "  p.epilogue = p.plain and { '(void)bias, (void)residual;', 'HD_PUT(out + ' .. to .. ', acc);' } or {\n"
        "    'hd_f z = acc + HD_AT(bias + col);',\n"
        "    'z = z / (1 + hd_max(z, -z));',\n"
        "    'HD_PUT(out + ' .. to .. ', z + HD_AT(residual + ' .. to .. '));' }\n"
        "  return template.expand(text[kind], kind .. '.c.tmpl', p)\n"
        "end\n";
    if (luaL_dostring(lua, code)) fail_msg("%s", lua_tostring(lua, -1));
    return lua;
}

static void set_number(lua_State *lua, const char *key, int64_t value) { lua_pushinteger(lua, value); lua_setfield(lua, -2, key); }
static void set_flag(lua_State *lua, const char *key, bool value) { lua_pushboolean(lua, value); lua_setfield(lua, -2, key); }

static void emit(lua_State *lua, FILE *file, const char *kind, const char *name, const hd_product *p, const shape *s, int vl)
{
    static const char *const kinds[] = { "packed", "natural", "transposed" };
    lua_getglobal(lua, "expand");
    lua_pushstring(lua, kind);
    lua_newtable(lua);
    lua_pushstring(lua, name); lua_setfield(lua, -2, "name");
    lua_pushstring(lua, kinds[p->b_kind]); lua_setfield(lua, -2, "b_kind");
    set_number(lua, "vl", vl); set_number(lua, "m", p->m); set_number(lua, "n", p->n); set_number(lua, "k", p->k);
    set_number(lua, "batch", p->batch);
    set_number(lua, "stride_a", p->m * p->k);
    set_number(lua, "stride_b", s->share_b ? 0 : p->n * p->k);
    set_number(lua, "ld_a", p->ld_a); set_number(lua, "ld_b", p->ld_b);
    set_number(lua, "mr", p->mr); set_number(lua, "nv", p->nv); set_number(lua, "kc", p->kc); set_number(lua, "nc", p->nc);
    set_number(lua, "ahead", p->ahead);
    set_number(lua, "slots_m", p->slots_m); set_number(lua, "slots_n", p->slots_n);
    set_number(lua, "local_bytes", (int64_t)p->local_bytes);
    set_flag(lua, "trans_a", p->trans_a); set_flag(lua, "copy_a", p->copy_a);
    set_flag(lua, "transposed", s->kind == 4); set_flag(lua, "plain", s->epilogue == PLAIN);
    if (lua_pcall(lua, 2, 1, 0)) fail_msg("%s", lua_tostring(lua, -1));
    fputs(lua_tostring(lua, -1), file);
    lua_pop(lua, 1);
}

static hd_product product_of(const shape *s, const hd_product_target *target)
{
    hd_product p = { .m = s->m, .n = s->n, .k = s->k, .batch = s->batch, .trans_a = s->trans_a,
                     .b_kind = (hd_product_kind)(s->kind & 3), .ld_a = s->trans_a ? s->m : s->k,
                     .ld_b = (s->kind & 3) == HD_B_TRANSPOSED || s->kind == 4 ? s->k : s->n };
    hd_product_choose(&p, target);
    if (s->kc) p.kc = s->kc;
    if (s->nc) p.nc = s->nc;
    if (s->mr) p.mr = s->mr, p.nv = s->nv;
    p.local_bytes = hd_product_local_bytes(&p, target->vl);
    const int64_t nr = (int64_t)p.nv * target->vl;
    if (p.b_kind == HD_B_PACKED) p.packed_bytes = (size_t)((p.n + nr - 1) / nr * nr * p.k) * 4;
    return p;
}

/* Compiles folder/kernels.c into folder/kernels.so with the newest clang there is, or else gcc. */
static void *build(const char *folder, const char *arch)
{
    static const char *const compilers[] = { "clang-22", "clang", "gcc" };
    char source[256], object[256], march[64];
    snprintf(source, sizeof source, "%s/kernels.c", folder);
    snprintf(object, sizeof object, "%s/kernels.so", folder);
    snprintf(march, sizeof march, "-march=%s", arch);
    for (int i = -1; i < 3; i++) {
        const char *compiler = i < 0 ? getenv("HD_TEST_CC") : compilers[i];
        if (!compiler) continue;
        char *const arguments[] = { (char *)compiler, "-std=c11", "-O2", march, "-mprefer-vector-width=512", "-Wall", "-Wextra", "-Wshadow", "-Werror",
                                    "-Iruntime/core", "-shared", "-fPIC", "-o", object, source, NULL };
        pid_t child;
        int status;
        if (posix_spawnp(&child, compiler, NULL, NULL, arguments, environ)) continue;
        if (waitpid(child, &status, 0) < 0 || status) fail_msg("%s failed on %s", compiler, source);
        void *library = dlopen(object, RTLD_NOW | RTLD_LOCAL);
        if (!library) fail_msg("%s", dlerror());
        unlink(source);
        unlink(object);
        return library;
    }
    fail_msg("no C compiler found: clang-22, clang or gcc");
    return NULL;
}

static void *symbol(void *library, const char *name)
{
    void *address = dlsym(library, name);
    if (!address) fail_msg("%s is missing", name);
    return address;
}

/* Slots in reverse, threads in turn: what a pool might do. */
static void run_backwards(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    (void)context;
    for (int slot = slots - 1; slot >= 0; slot--) task(argument, slot, slot % 3);
}

static float *random_floats(size_t count, unsigned seed)
{
    float *x = aligned_alloc(64, (4 * count + 127) / 64 * 64);
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 16777216.0f - 0.5f;
    }
    return x;
}

static void check_shape(const shape *s, const hd_product *p, kernel *run_product, packer *run_pack, int vl)
{
    const int64_t m = s->m, n = s->n, k = s->k, out_count = s->batch * m * n;
    float *a = random_floats((size_t)(s->batch * m * k), 1), *b = random_floats((size_t)(s->batch * n * k), 2);
    float *bias = random_floats((size_t)n, 3), *residual = random_floats((size_t)out_count, 4);
    float *out = random_floats((size_t)out_count + 16, 5), *again = random_floats((size_t)out_count + 16, 5);
    float guard[16];
    memcpy(guard, out + out_count, sizeof guard);
    const size_t local_bytes = p->local_bytes + 64;
    unsigned char *local = aligned_alloc(64, 3 * local_bytes);
    float *packed = NULL;
    const hd_threads threads = { NULL, 3, run_backwards };
    const hd_run alone = { NULL, local, local_bytes }, many = { &threads, local, local_bytes };
    if (run_pack) {
        packed = aligned_alloc(64, (p->packed_bytes + 63) / 64 * 64);
        run_pack(&many, b, packed, p->n, p->k, p->ld_b);
    }
    const int rows = s->rows ? s->rows : s->m;
    run_product(&alone, rows, a, packed ? packed : b, out, bias, residual);
    run_product(&many, rows, a, packed ? packed : b, again, bias, residual);
    assert_memory_equal(out + out_count, guard, sizeof guard);

    const bool columns_first = s->kind == 4 || s->kind == HD_B_TRANSPOSED;
    double worst = 0;
    for (int item = 0; item < s->batch; item++)
        for (int64_t i = 0; i < (s->batch > 1 ? m : rows); i++)
            for (int64_t j = 0; j < n; j++) {
                const float *ai = a + item * m * k, *bi = b + (s->share_b ? 0 : item * n * k);
                double sum = 0;
                for (int64_t e = 0; e < k; e++)
                    sum += (double)(s->trans_a ? ai[e * m + i] : ai[i * k + e]) * (double)(columns_first ? bi[j * k + e] : bi[e * n + j]);
                const int64_t at = (item * m + i) * n + j;
                if (s->epilogue == BIAS_GELU_RESIDUAL) {
                    sum += (double)bias[j];
                    sum = sum / (1 + fabs(sum)) + (double)residual[at];
                }
                const double error = fabs(sum - (double)out[at]);
                if (!(error <= worst)) worst = error;
                if (memcmp(&out[at], &again[at], 4)) fail_msg("%s, %d floats: slots in another order change element %d", s->why, vl, (int)at);
            }
    /* Rounding of a sum of k products below 1/4: k/4 * 2^-24 at worst, far less on average. */
    const double tolerance = 2e-6 + 2e-8 * (double)k;
    if (!(worst <= tolerance)) fail_msg("%s, %d floats: error %g, at most %g", s->why, vl, worst, tolerance);
    free(a), free(b), free(bias), free(residual), free(out), free(again), free(local), free(packed);
}

static void check_target(const char *arch, int vl, int registers)
{
    const hd_product_target target = { vl, registers, 32 << 10, 1 << 20, 16 << 20, 2 };
    char folder[] = "/tmp/heddle-product-XXXXXX", path[256], name[32];
    if (!mkdtemp(folder)) fail_msg("cannot make a folder in /tmp");
    snprintf(path, sizeof path, "%s/kernels.c", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "#define HD_VL %d\n#include \"hd_core.h\"\n#include \"hd_vec.h\"\n", vl);
    for (int i = 0; i < SHAPES; i++) {
        snprintf(name, sizeof name, "product_%d", i);
        fprintf(file, "void %s(const hd_run *, int, const float *, const float *, float *, const float *, const float *);\n", name);
        fprintf(file, "void pack_%d(const hd_run *, const float *, float *, ptrdiff_t, ptrdiff_t, ptrdiff_t);\n", i);
    }
    lua_State *lua = new_templates();
    for (int i = 0; i < SHAPES; i++) {
        const hd_product p = product_of(&shapes[i], &target);
        snprintf(name, sizeof name, "product_%d", i);
        emit(lua, file, "product", name, &p, &shapes[i], vl);
        snprintf(name, sizeof name, "pack_%d", i);
        if (p.b_kind == HD_B_PACKED) emit(lua, file, "pack", name, &p, &shapes[i], vl);
    }
    lua_close(lua);
    fclose(file);
    void *library = build(folder, arch);
    rmdir(folder);
    for (int i = 0; i < SHAPES; i++) {
        const hd_product p = product_of(&shapes[i], &target);
        kernel *run_product;
        packer *run_pack = NULL;
        snprintf(name, sizeof name, "product_%d", i);
        *(void **)&run_product = symbol(library, name);
        snprintf(name, sizeof name, "pack_%d", i);
        if (p.b_kind == HD_B_PACKED) *(void **)&run_pack = symbol(library, name);
        check_shape(&shapes[i], &p, run_product, run_pack, vl);
    }
    dlclose(library);
}

static void sixteen_floats_per_vector_equal_the_double_loop(void **state)
{
    (void)state;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl")) skip();
    check_target("x86-64-v4", 16, 32);
}

static void eight_floats_per_vector_equal_the_double_loop(void **state)
{
    (void)state;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) skip();
    check_target("x86-64-v3", 8, 16);
}

static void four_floats_per_vector_equal_the_double_loop(void **state)
{
    (void)state;
    check_target("x86-64", 4, 16);
}

static void choices_fit_registers_and_caches(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 1, 2, 7, 16, 77, 128, 384, 513, 2048, 12288 };
    enum { SIZES = sizeof sizes / sizeof *sizes };
    for (int vl = 4; vl <= 16; vl *= 2)
        for (int at = 0; at < SIZES * SIZES * SIZES * 6; at++) {
            const hd_product_target target = { vl, vl == 16 ? 32 : 16, 32 << 10, 1 << 20, 16 << 20, 2 };
            hd_product p = { .m = sizes[at % SIZES], .n = sizes[at / SIZES % SIZES], .k = sizes[at / SIZES / SIZES % SIZES], .batch = 1 };
            const int rest = at / SIZES / SIZES / SIZES;
            p.b_kind = (hd_product_kind)(rest % 3), p.trans_a = rest / 3;
            p.ld_a = p.trans_a ? p.m : p.k, p.ld_b = p.b_kind == HD_B_TRANSPOSED ? p.k : p.n;
            hd_product_choose(&p, &target);
            assert_in_range(p.mr * p.nv + p.nv + 1, 1, target.registers);
            assert_in_range(p.slots, 1, 1 << 20);
            assert_in_range(p.kc, 1, p.k);
            assert_in_range(p.local_bytes, 0, 8 << 20);
            assert_int_equal(p.local_bytes % 64, 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_fit_registers_and_caches),
        cmocka_unit_test(sixteen_floats_per_vector_equal_the_double_loop),
        cmocka_unit_test(eight_floats_per_vector_equal_the_double_loop),
        cmocka_unit_test(four_floats_per_vector_equal_the_double_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
