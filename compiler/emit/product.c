/* The choice of tiles and blocks. Model (all constants measured on Cascade Lake and Zen 4 with the test's bench mode):
 *
 *   one step of k of a tile takes max(mr * nv / 2 multiply-adds, (mr + nv) / 2 loads, 4 of latency) cycles;
 *   panels of B stream from L2, fetched ahead; rows of A stay in L1 where they fit;
 *   8 x 3 wins where sizes allow: eight rows use at most half of a cache set even when their stride is a power of two,
 *   so A needs no copy, and three vectors against eight broadcasts leave the load ports and L2 idle half of the time. */
#include "product.h"

#include <assert.h>

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
/* Floats up to an odd number of cache lines: local panels that far apart do not meet in one cache set. */
static int64_t odd_lines(int64_t x) { return ((x + 15) / 16 | 1) * 16; }
static int64_t round16(int64_t x) { return (x + 15) / 16 * 16; }

/* Half cycles for one step of k over all tiles of one row of panels and all rows; rows are cut into equal tiles. */
static int64_t tile_cost(int64_t m, int64_t vectors, int64_t mr, int64_t nv)
{
    const int64_t tiles = ceil_div(m, mr), rows = ceil_div(m, tiles), tall = m - tiles * (rows - 1);
    const int64_t panels = ceil_div(vectors, nv), last = vectors - (panels - 1) * nv;
    int64_t cost = 0;
    for (int i = 0; i < 4; i++) {
        const int64_t r = rows - (i & 1), c = i & 2 ? last : nv;
        const int64_t count = (i & 1 ? tiles - tall : tall) * (i & 2 ? 1 : panels - 1);
        cost += count * most(most(r * c, r + c), 8);
    }
    return cost;
}

static void choose_tile(hd_product *p, const hd_product_target *target)
{
    /* In order of preference; a later one must be 2 % cheaper. One and two rows: more vectors hide the latency. */
    static const struct { int registers, mr, nv; } tiles[] = {
        { 32, 8, 3 }, { 32, 12, 2 }, { 32, 6, 4 }, { 32, 4, 5 }, { 32, 2, 8 }, { 32, 1, 8 },
        { 16, 6, 2 }, { 16, 4, 3 }, { 16, 2, 4 }, { 16, 1, 7 },
    };
    const int64_t vectors = ceil_div(p->n, target->vl);
    int64_t best = INT64_MAX;
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        if (tiles[i].registers != target->registers) continue;
        if (p->nv_packed && tiles[i].nv != p->nv_packed) continue;
        const int nv = (int)least(tiles[i].nv, vectors), mr = (int)least(tiles[i].mr, p->m);
        const int64_t cost = tile_cost(p->m, vectors, mr, nv);
        if (best == INT64_MAX || cost * 102 < best * 100) best = cost, p->mr = mr, p->nv = nv;
    }
    if (best == INT64_MAX) {           /* panels of a width not in the table */
        p->nv = p->nv_packed;
        p->mr = (int)most(1, least(p->m, (target->registers - 4 - p->nv) / p->nv));
    }
}

/* Rows of this many floats or fewer are not copied: a block of them meets no cache set or page too often (the template's
 * rule; measured: rows of 512 floats read in place cost a third of the speed). */
enum { NARROW = 384 };

/* The template's dots form: few rows against rows of B. */
static bool takes_dots(const hd_product *p, int vl) { return p->b_kind == HD_B_TRANSPOSED && !p->trans_a && p->m <= (vl == 16 ? 12 : 6); }

/* Does a slot copy B into panels of its own? */
static bool copies_b(const hd_product *p, int vl)
{
    if (p->b_kind == HD_B_PACKED || takes_dots(p, vl)) return false;
    if (p->b_kind == HD_B_TRANSPOSED) return true;
    return !(!p->trans_a && p->m <= p->mr && p->kc >= p->k) && !(p->n % vl == 0 && p->ld_b <= NARROW);
}

size_t hd_product_local_bytes(const hd_product *p, int vl)
{
    if (takes_dots(p, vl)) return 0;
    const int64_t nr = (int64_t)p->nv * vl, depth = least(p->kc, p->k);
    const int64_t tiles = ceil_div(p->m, p->mr), rows = ceil_div(p->m, tiles);
    const int64_t panels = ceil_div(ceil_div(p->n, vl), p->nv), group = most(1, least(panels, p->nc / nr));
    const int64_t slot_tiles = ceil_div(tiles, p->slots_m);
    int64_t floats = 0;
    if (p->trans_a && p->copy_a) floats += slot_tiles * odd_lines(depth * rows);
    if (copies_b(p, vl)) floats += group * odd_lines(depth * nr);
    if (p->kc < p->k) floats += slot_tiles * rows * group * nr;
    return (size_t)round16(floats) * 4;
}

/* More slots, so that threads end together: until there are enough, or they fall below `grain` multiply-adds (75 a nanosecond).
 * The longer side of a slot is cut, so that a slot reads little for what it multiplies. */
static void cut_for_threads(hd_product *p, int64_t wanted, int64_t grain, int64_t tiles, int64_t panels)
{
    const int64_t work = ceil_div(p->m * p->n * p->k, grain), aim = least(ceil_div(wanted, p->batch), work);
    while (p->slots_m * p->slots_n < aim) {
        const bool rows = p->slots_m < tiles && (p->slots_n >= panels || p->m * p->slots_n >= p->n * p->slots_m);
        if (!rows && p->slots_n >= panels) return;
        if (rows) p->slots_m++;
        else p->slots_n++;
    }
}

/* Panels of B are ready and rows of A are read in place: nothing is copied. */
static void cut_packed(hd_product *p, const hd_product_target *target, int64_t tiles, int64_t panels)
{
    /* All of k in one go while a tile's rows fit in L1, for every panel of a group reads them again, and a panel fills at most half of
     * L2; else equal blocks whose rows fill half of L1, and whose partial sums stay in L2 (512 x 512 x 2048: 10 % faster). */
    const int64_t nr = (int64_t)p->nv * target->vl, row_bytes = 4 * p->mr, panel = most(64, target->l2 / 2 / (4 * nr));
    const bool whole = p->k <= least(panel, target->l1 / row_bytes);
    const int64_t most_k = least(panel, most(64, target->l1 / 2 / row_bytes));
    p->kc = whole ? p->k : round16(ceil_div(p->k, ceil_div(p->k, most_k)));
    /* A slot's panels stay in L2, and serve the slots of other rows that follow. */
    const int64_t group = most(1, least(panels, target->l2 * 3 / 8 / (4 * nr * p->kc)));
    p->slots_n = ceil_div(panels, group);
    p->slots_m = ceil_div(p->m, 256);
    cut_for_threads(p, 8, 4000000, tiles, panels);
    p->nc = nr * ceil_div(panels, p->slots_n);
}

/* Few rows: nothing is shared between columns but those rows. Slots of about 200 KB of B. */
static void cut_few_rows(hd_product *p, const hd_product_target *target)
{
    if (takes_dots(p, target->vl)) p->mr = (int)p->m, p->nv = 1;
    p->kc = p->k;
    p->nc = p->n;
    p->slots_m = 1;
    p->slots_n = least(least(ceil_div(p->n, (int64_t)p->nv * target->vl), 64), ceil_div(4 * p->n * p->k, 200000));
}

/* A slot copies its share of A or B into panels, block of k by block of k, or reads narrow ones in place. Two blocks and
 * the partial sums share L2, and so do the rows of the next block, which come in meanwhile. */
static void cut_copied(hd_product *p, const hd_product_target *target, int64_t tiles, int64_t panels)
{
    const int64_t nr = (int64_t)p->nv * target->vl, block = most(64, target->l2 / 8192 / 64 * 64);
    p->copy_a = p->trans_a && p->ld_a > NARROW;
    const bool copies = p->copy_a || copies_b(p, target->vl);
    p->kc = p->k <= 4 * block ? p->k : copies ? block : 2 * block;
    /* Rows and columns of a slot: its sums are half of L2. A row of panels of A is copied once for twice the columns. */
    const int64_t side = target->l2 / 4096, widest = ceil_div(2 * side, nr);
    if (p->kc < p->k || p->trans_a) {
        p->slots_n = ceil_div(panels, widest);
        p->slots_m = least(tiles, ceil_div(p->m, side));
    } else {
        p->slots_n = ceil_div(panels, most(1, target->l2 / 4 / (4 * nr * p->kc)));
        p->slots_m = 1;
    }
    cut_for_threads(p, 4, 4000000, tiles, panels);
    p->nc = nr * ceil_div(panels, p->slots_n);
}

void hd_product_choose(hd_product *p, const hd_product_target *target)
{
    assert(p->m > 0 && p->n > 0 && p->k > 0 && p->batch > 0 && target->vl > 0);
    choose_tile(p, target);
    const int64_t nr = (int64_t)p->nv * target->vl, tiles = ceil_div(p->m, p->mr), panels = ceil_div(p->n, nr);
    p->copy_a = false;
    p->ahead = 8;
    p->kc = p->k;
    p->packed_bytes = p->b_kind == HD_B_PACKED ? (size_t)round16(panels * nr * p->k) * 4 : 0;
    if (p->b_kind == HD_B_PACKED && !p->trans_a) cut_packed(p, target, tiles, panels);
    else if (takes_dots(p, target->vl) || (!p->trans_a && p->b_kind == HD_B_NATURAL && p->m <= p->mr)) cut_few_rows(p, target);
    else cut_copied(p, target, tiles, panels);
    p->slots = p->batch * p->slots_m * p->slots_n;
    p->mc = ceil_div(ceil_div(p->m, p->mr), p->slots_m) * p->mr;
    p->local_bytes = hd_product_local_bytes(p, target->vl);
}

hd_product_target hd_product_target_of(const hd_target *t) { return (hd_product_target){ t->vl, t->registers, t->l1, t->l2, t->l3, 16 }; }

double hd_product_cycles(const hd_product *p, const hd_product_target *target)
{
    const int64_t vl = target->vl, nr = p->nv * vl, tiles = ceil_div(p->m, p->mr), panels = ceil_div(p->n, nr), blocks = ceil_div(p->k, p->kc);
    if (takes_dots(p, target->vl)) return (double)(p->batch * p->n * p->m) * ((double)ceil_div(p->k, vl) * 0.75 + 8);
    const double inner = 0.5 * (double)tile_cost(p->m, ceil_div(p->n, vl), p->mr, p->nv) * (double)p->k;
    /* sums are cleared, loaded or stored once for each tile and block of k; rows that L1 does not hold come from L2 for each panel */
    const double lines = 4 * (double)(p->mr * least(p->kc, p->k)) / 64, far = !p->copy_a && 64 * lines > (double)target->l1 ? 8 * lines : 0;
    const double edges = (double)(tiles * panels * blocks) * (20 + (blocks > 1 ? 6.0 : 1.0) * p->mr * p->nv + far);
    double copied = p->trans_a && !p->copy_a ? 0.2 * inner : 0;      /* columns read in place */
    if (p->trans_a && p->copy_a) copied += (double)p->m * (double)p->k * (double)p->slots_n * 8 / vl;
    if (copies_b(p, target->vl)) copied += (double)p->n * (double)p->k * (double)p->slots_m * (p->b_kind == HD_B_TRANSPOSED ? 6.0 : 3.0) / vl;
    return (double)p->batch * (inner + edges + copied);
}
