/* The choices there are: parameters of a product as text, whether they fit, and which of them are worth timing. */
#include "tune.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LL(x) ((long long)(x))

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t round16(int64_t x) { return (x + 15) / 16 * 16; }

enum { MOST_LOCAL_BYTES = 16 << 20, MOST_SLOTS = 4096, MOST_AHEAD = 64 };

/* The members of hd_product that are a choice, in the order of a record's text. */
enum { MR, NV, KC, NC, SLOTS_M, SLOTS_N, AHEAD, COPY_A, PARAMETERS };
static const char *const parameter[PARAMETERS] = { "mr", "nv", "kc", "nc", "slots_m", "slots_n", "ahead", "copy_a" };

static void get(const hd_product *p, int64_t *value)
{
    const int64_t all[PARAMETERS] = { p->mr, p->nv, p->kc, p->nc, p->slots_m, p->slots_n, p->ahead, p->copy_a };
    memcpy(value, all, sizeof all);
}

/* The choice, and what follows from it. */
static void set(hd_product *p, const int64_t *value, int vl)
{
    p->mr = (int)value[MR], p->nv = (int)value[NV], p->kc = value[KC], p->nc = value[NC];
    p->slots_m = value[SLOTS_M], p->slots_n = value[SLOTS_N], p->ahead = (int)value[AHEAD], p->copy_a = value[COPY_A];
    const int64_t nr = (int64_t)p->nv * vl;
    p->slots = p->batch * p->slots_m * p->slots_n;
    p->mc = ceil_div(ceil_div(p->m, p->mr), p->slots_m) * p->mr;
    p->packed_bytes = p->b_kind == HD_B_PACKED ? (size_t)round16(ceil_div(p->n, nr) * nr * p->k) * 4 : 0;
    p->local_bytes = hd_product_local_bytes(p, vl);
}

/* Few rows against rows of B: the template multiplies without tiles, so that only slots are a choice. */
static bool no_tiles(const hd_product *p, int vl) { return p->b_kind == HD_B_TRANSPOSED && !p->trans_a && p->m <= (vl == 16 ? 12 : 6); }

static const char *misfit(const hd_product *p, const int64_t *v, const hd_product_target *t)
{
    if (v[MR] < 1 || v[NV] < 1 || v[MR] > t->registers || v[NV] > t->registers) return "a tile has 1 row and 1 vector at least";
    if (!no_tiles(p, t->vl) && v[MR] * v[NV] + v[NV] + 1 > t->registers)
        return hd_format("a tile of %d x %d vectors needs more than %d registers", (int)v[MR], (int)v[NV], t->registers);
    if (p->nv_packed && v[NV] != p->nv_packed) return hd_format("B is packed in panels of %d vectors", p->nv_packed);
    const int64_t nr = v[NV] * t->vl, tiles = ceil_div(p->m, v[MR]), panels = ceil_div(p->n, nr);
    if (v[KC] < 1 || v[KC] > p->k) return "kc is 1 to k";
    if (v[NC] < 1 || v[NC] > panels * nr) return "nc is 1 to n, rounded up to panels";
    if (v[SLOTS_M] < 1 || v[SLOTS_M] > tiles || v[SLOTS_N] < 1 || v[SLOTS_N] > panels) return "there are more slots than tiles";
    if (v[SLOTS_M] * v[SLOTS_N] > MOST_SLOTS) return "there are too many slots";
    if (v[AHEAD] < 0 || v[AHEAD] > MOST_AHEAD) return hd_format("ahead is 0 to %d", MOST_AHEAD);
    if (v[COPY_A] < 0 || v[COPY_A] > p->trans_a) return "copy_a is 1 only where A is transposed";
    hd_product made = *p;
    set(&made, v, t->vl);
    if (made.local_bytes > MOST_LOCAL_BYTES) return "it needs too much scratch for a thread";
    return NULL;
}

const char *hd_product_choice(const hd_product *p)
{
    int64_t value[PARAMETERS];
    hd_text out = { 0 };
    get(p, value);
    for (int i = 0; i < PARAMETERS; i++) hd_text_add(&out, "%s%s=%" PRId64, i ? " " : "", parameter[i], value[i]);
    return out.data;
}

const char *hd_product_parameters(const hd_product *p)
{
    return hd_format("mr = %d, nv = %d, kc = %lld, mc = %lld, nc = %lld, slots_m = %lld, slots_n = %lld, slots = %lld, ahead = %d, copy_a = %s, local_bytes = %lld", p->mr, p->nv,
                     LL(p->kc), LL(p->mc), LL(p->nc), LL(p->slots_m), LL(p->slots_n), LL(p->slots), p->ahead, p->copy_a ? "true" : "false", LL(p->local_bytes));
}

bool hd_product_apply(hd_product *p, const char *choice, const hd_product_target *t, const char **why)
{
    int64_t value[PARAMETERS];
    const char *at = choice;
    for (int i = 0; i < PARAMETERS; i++) {
        const size_t n = strlen(parameter[i]);
        char *end = NULL;
        if (!strncmp(at, parameter[i], n) && at[n] == '=') value[i] = strtoll(at + n + 1, &end, 10);
        if (!end || end == at + n + 1 || *end != (i + 1 < PARAMETERS ? ' ' : 0)) {
            *why = hd_format("%s=NUMBER is missing", parameter[i]);
            return false;
        }
        at = end + 1;
    }
    *why = misfit(p, value, t);
    if (*why) return false;
    set(p, value, t->vl);
    return true;
}

static const char *const kinds[] = { "packed", "natural", "transposed" };

static const char *problem_of(const hd_product *p, int nv_packed, int64_t stride_a, int64_t stride_b, const char *epilogue)
{
    return hd_format("m=%lld n=%lld k=%lld a=%s ld_a=%lld b=%s ld_b=%lld nv_packed=%d batch=%lld stride_a=%lld stride_b=%lld epilogue=%s", LL(p->m), LL(p->n), LL(p->k),
                     p->trans_a ? "transposed" : "natural", LL(p->ld_a), kinds[p->b_kind], LL(p->b_kind == HD_B_PACKED ? 0 : p->ld_b), nv_packed, LL(p->batch), LL(stride_a),
                     LL(stride_b), epilogue);
}

/* The vectors in a panel that the product would choose if nobody had packed B before. */
static int free_width(hd_tuning *tuning, const hd_product *p, const hd_product_target *t, const char *problem)
{
    const char *why;
    hd_product own = *p;
    own.nv_packed = 0;
    hd_product_choose(&own, t);
    const hd_record *r = tuning ? hd_tuning_find(tuning, "product", problem) : NULL;
    if (r) hd_product_apply(&own, r->choice, t, &why);
    return own.nv;
}

hd_tunable *hd_tune_product(hd_tuning *tuning, hd_product *p, const hd_product_target *t, int64_t stride_a, int64_t stride_b, const char *epilogue,
                            const char *arguments, const char *lines)
{
    hd_tunable *made = HD_NEW(hd_tunable);
    const char *unique = hd_format("%s-%016llx", epilogue, (unsigned long long)hd_hash(arguments, strlen(arguments), hd_hash(lines, strlen(lines), 0)));
    made->op = "product";
    made->problem = problem_of(p, 0, stride_a, stride_b, unique);
    /* Panels that another product made are a problem of their own only where this one would have made others. */
    if (p->nv_packed && free_width(tuning, p, t, made->problem) != p->nv_packed) made->problem = problem_of(p, p->nv_packed, stride_a, stride_b, unique);
    made->analytical.product = *p, made->target = *t, made->stride_a = stride_a, made->stride_b = stride_b;
    made->record = hd_tuned(tuning, made->op, made->problem);
    const char *why;
    if (made->record && !hd_product_apply(p, made->record->choice, t, &why)) hd_tuning_refuse(tuning, made->record, why), made->record = NULL;
    made->chosen.product = *p;
    made->lines = lines;
    made->before = hd_format("m = %lld, n = %lld, k = %lld, ld_a = %lld, trans_a = %s, b_kind = \"%s\", ld_b = %lld, batch = %lld, stride_a = %lld, stride_b = %lld, ", LL(p->m),
                             LL(p->n), LL(p->k), LL(p->ld_a), p->trans_a ? "true" : "false", kinds[p->b_kind], LL(p->ld_b), LL(p->batch), LL(stride_a), LL(stride_b));
    made->after = hd_format(", arguments = %s, epilogue = %s", arguments, lines);
    return made;
}

/* ---- candidates ---- */

/* Cycles that the tiles of a product take at best: multiply-adds (two a cycle), loads (fewer than two: some miss), or the
 * latency of additions. */
static double tile_cycles(const hd_product *p, int mr, int nv, int vl)
{
    const double tiles = (double)ceil_div(p->m, mr), rows = (double)p->m / tiles, panels = (double)ceil_div(p->n, (int64_t)nv * vl);
    const double step = fmax(fmax(rows * nv / 2, 0.65 * (rows + nv)), 4);
    return tiles * panels * step;
}

typedef struct list { hd_product *to; int count, most; const hd_product_target *target; const hd_product *from; } list;

/* Adds a candidate, its blocks and slots brought within what the tile leaves. */
static void add(list *l, int64_t *v)
{
    const int64_t nr = v[NV] * l->target->vl, panels = ceil_div(l->from->n, nr), tiles = ceil_div(l->from->m, v[MR]);
    v[NC] = least(panels, most(1, (v[NC] + nr / 2) / nr)) * nr;
    v[SLOTS_M] = least(tiles, most(1, v[SLOTS_M])), v[SLOTS_N] = least(panels, most(1, v[SLOTS_N]));
    v[KC] = least(l->from->k, most(1, v[KC]));
    if (l->count == l->most || misfit(l->from, v, l->target)) return;
    hd_product made = *l->from;
    set(&made, v, l->target->vl);
    const char *text = hd_product_choice(&made);
    if (!strcmp(text, hd_product_choice(l->from))) return;
    for (int i = 0; i < l->count; i++) if (!strcmp(text, hd_product_choice(&l->to[i]))) return;
    l->to[l->count++] = made;
}

typedef struct shape { int mr, nv; double cycles; } shape;

static int by_cycles(const void *a, const void *b)
{
    const shape *x = a, *y = b;
    if (x->cycles != y->cycles) return x->cycles < y->cycles ? -1 : 1;
    return x->nv != y->nv ? x->nv - y->nv : y->mr - x->mr;
}

static void add_tiles(list *l)
{
    enum { TILES = 11, TILES_OF_A_WIDTH = 3 };      /* of all widths some: which loads cost what is the least certain part of the model */
    const hd_product *p = l->from;
    const int vl = l->target->vl;
    shape all[256];
    int count = 0;
    if (no_tiles(p, vl)) return;
    for (int nv = 1; nv <= 8; nv++)
        for (int mr = (l->target->registers - 1 - nv) / nv; mr >= 1; mr--) {
            if ((p->nv_packed && nv != p->nv_packed) || nv > ceil_div(p->n, vl) || mr > p->m) continue;
            /* Rows are cut evenly: a smaller tile that leaves as many tiles is the same kernel. */
            if (mr > 1 && ceil_div(p->m, mr - 1) == ceil_div(p->m, mr)) continue;
            all[count++] = (shape){ mr, nv, tile_cycles(p, mr, nv, vl) };
        }
    qsort(all, (size_t)count, sizeof *all, by_cycles);
    for (int i = 0, taken = 0, of[16] = { 0 }; i < count && taken < TILES && all[i].cycles <= 1.25 * all[0].cycles; i++) {
        int64_t v[PARAMETERS];
        if (of[all[i].nv]++ >= TILES_OF_A_WIDTH) continue;
        taken++;
        get(p, v);
        v[MR] = all[i].mr, v[NV] = all[i].nv;
        add(l, v);
    }
}

static void add_depths(list *l)
{
    static const int64_t sizes[] = { 96, 128, 192, 256, 384, 512, 768, 1024, 2048 };
    const hd_product *p = l->from;
    int64_t v[PARAMETERS];
    if (no_tiles(p, l->target->vl)) return;
    get(p, v);
    v[KC] = p->k;
    add(l, v);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t blocks = ceil_div(p->k, sizes[i]), kc = blocks > 1 ? round16(ceil_div(p->k, blocks)) : p->k;
        if (4 * kc * p->nv * l->target->vl > l->target->l2 || kc > p->k || blocks > 64) continue;
        get(p, v);
        v[KC] = kc;
        add(l, v);
    }
}

static void add_groups(list *l)
{
    static const int counts[] = { 1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128, 1 << 20 };
    const hd_product *p = l->from;
    const int64_t nr = (int64_t)p->nv * l->target->vl, panels = ceil_div(p->n, nr), slot = ceil_div(panels, p->slots_n);
    if (no_tiles(p, l->target->vl)) return;
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
        int64_t v[PARAMETERS];
        get(p, v);
        v[NC] = nr * least(counts[i], slot);
        if (4 * v[NC] * least(p->kc, p->k) > 4 * l->target->l2 && counts[i] > 1) continue;
        add(l, v);
    }
}

/* Slots along one side, the other as it is. Enough that threads end together, not so many that starting them costs; few only
 * where the work is small. A slot's group of panels is all it has, unless it was less before. */
static void add_slots(list *l, int side)
{
    static const int counts[] = { 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64 };
    const hd_product *p = l->from;
    const int64_t nr = (int64_t)p->nv * l->target->vl, panels = ceil_div(p->n, nr), tiles = ceil_div(p->m, p->mr);
    const double work = (double)p->m * (double)p->n * (double)p->k * (double)p->batch;
    const bool all = p->nc >= nr * ceil_div(panels, p->slots_n);
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
        int64_t v[PARAMETERS];
        get(p, v);
        v[side] = counts[i];
        const int64_t slots = p->batch * v[SLOTS_M] * v[SLOTS_N];
        const bool too_few = slots < least(l->target->threads, 4) && work > 1e6, too_many = slots > 4 && work / (double)slots < 2e5;
        if (v[side] > (side == SLOTS_M ? tiles : panels) || (too_few && slots < p->slots) || (too_many && slots > p->slots)) continue;
        if (all) v[NC] = nr * ceil_div(panels, v[SLOTS_N]);
        add(l, v);
    }
}

static void add_slots_m(list *l) { add_slots(l, SLOTS_M); }
static void add_slots_n(list *l) { add_slots(l, SLOTS_N); }

static void add_ahead(list *l)
{
    static const int steps[] = { 0, 4, 8, 12, 16, 24 };
    if (no_tiles(l->from, l->target->vl)) return;
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        int64_t v[PARAMETERS];
        get(l->from, v);
        v[AHEAD] = steps[i];
        add(l, v);
    }
}

static void add_copy(list *l)
{
    int64_t v[PARAMETERS];
    get(l->from, v);
    v[COPY_A] = !v[COPY_A];
    if (l->from->trans_a) add(l, v);
}

int hd_product_moves(const hd_product *from, const hd_product_target *target, int coordinate, hd_product *to, int room, const char **name, bool *threads)
{
    static const struct { const char *name; void (*add)(list *); bool threads; } coordinates[] = {
        { "tile", add_tiles, false }, { "block of k", add_depths, false }, { "slots of columns", add_slots_n, true }, { "group of panels", add_groups, false },
        { "slots of rows", add_slots_m, true }, { "copy of A", add_copy, false }, { "fetch ahead", add_ahead, false },
    };
    if (coordinate >= (int)(sizeof coordinates / sizeof *coordinates)) return -1;
    list l = { to, 0, room, target, from };
    *name = coordinates[coordinate].name, *threads = coordinates[coordinate].threads;
    coordinates[coordinate].add(&l);
    return l.count;
}

hd_product hd_product_worst(const hd_product *p, const hd_product_target *target)
{
    hd_product worst = *p;
    int64_t v[PARAMETERS];
    get(p, v);
    if (!no_tiles(p, target->vl)) v[MR] = 1, v[NV] = p->nv_packed ? p->nv_packed : 1, v[KC] = least(p->k, 16);
    const int64_t nr = v[NV] * target->vl;
    v[NC] = nr, v[AHEAD] = 0, v[COPY_A] = 0;
    v[SLOTS_N] = least(ceil_div(p->n, nr), 64), v[SLOTS_M] = least(ceil_div(p->m, v[MR]), MOST_SLOTS / v[SLOTS_N]);
    set(&worst, v, target->vl);
    return worst;
}
