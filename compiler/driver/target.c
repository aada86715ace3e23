/* The table of targets. A loop walks it; --target names a row. */
#include "target.h"
#include "../../runtime/core/hd_cpu.h"
#include <string.h>
#include <unistd.h>

static hd_target targets[] = {
    { "native",    { "-march=native" },    0,  0,  32 << 10, 1 << 20,   16 << 20, 0, { NULL } },
    { "x86-64-v4", { "-march=x86-64-v4" }, 16, 32, 32 << 10, 1 << 20,   16 << 20, 4, { NULL } },
    { "x86-64-v3", { "-march=x86-64-v3" }, 8,  16, 32 << 10, 512 << 10, 8 << 20,  3, { NULL } },
    { "x86-64",    { "-march=x86-64" },    4,  16, 32 << 10, 512 << 10, 8 << 20,  1, { "x86-64-v3", "x86-64-v4" } },
    { "x86-64-v1", { "-march=x86-64" },    4,  16, 32 << 10, 512 << 10, 8 << 20,  1, { NULL } },
};

static void detect(hd_target *t)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        t->vl = 16, t->registers = 32;
        t->flags[1] = "-mprefer-vector-width=512";
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        t->vl = 8, t->registers = 16;
    } else {
        t->vl = 4, t->registers = 16;
    }
    t->level = hd_cpu_level();
    const long l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (l1 > 0) t->l1 = l1;
    if (l2 > 0) t->l2 = l2;
}

const hd_target *hd_target_find(const char *name)
{
    for (unsigned i = 0; i < sizeof targets / sizeof *targets; i++) {
        if (strcmp(targets[i].name, name)) continue;
        if (!targets[i].vl) detect(&targets[i]);
        if (!strcmp(name, "x86-64-v4")) targets[i].flags[1] = "-mprefer-vector-width=512";
        return &targets[i];
    }
    return NULL;
}

const char *hd_target_names(void) { return "native, x86-64-v4, x86-64-v3, x86-64, x86-64-v1"; }
