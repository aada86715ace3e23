/* The cover of a pattern: its kept pairs as few families of affine tiles, each pair in exactly one.
 *
 * 1. Regions (regions.c). On each the pattern is a set of differences d = i - j. What depends on differences alone is one
 *    region, the whole plane.
 * 2. Progressions. The set of a region is cut into disjoint arithmetic progressions of differences, few and long.
 * 3. Families. A progression on a rectangle is one family (two if its residues wrap):
 *      step 1   a band. One group, all rows; query i keeps the keys i - last .. i - first.
 *      step s   s groups, one per residue: queries s apart against keys s apart, where the same differences are a band again.
 *    Chunks are the same on small squares repeated along the diagonal; keys of other chunks and runs of residues end in
 *    staircases, and the runs that the band's edge cuts are small squares again.
 *
 * Invariant: groups of one family are disjoint in queries and in keys, families of one cover are disjoint in pairs.
 * Time and memory follow queries + keys, not their product. */
#include "cover.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FAMILIES = 64,       /* more would spend its time merging softmax states */
       LONG_RUN = 4,            /* neighbouring differences that are a band of their own; shorter runs may join progressions */
       MAX_CANDIDATES = 64 };   /* second elements tried for a progression */

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }
static int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

/* Groups. */

static int64_t value(hd_affine a, const hd_family *f, int64_t g)
{
    return a.base + a.per_group * (g % f->inner) + (a.table ? f->table[g / f->inner + a.table - 1] : a.per_outer * (g / f->inner));
}

hd_group hd_family_group(const hd_cover *cover, const hd_family *f, int64_t g)
{
    assert(g >= 0 && g < f->groups);
    hd_group group = { .q_start = value(f->q_start, f, g), .q_step = f->q_step, .k_start = value(f->k_start, f, g), .k_step = f->k_step,
                       .k_run = f->k_run, .lo = value(f->lo, f, g), .hi = value(f->hi, f, g) };
    int64_t q_span = min64(value(f->q_end, f, g), cover->queries) - group.q_start;
    int64_t k_span = min64(value(f->k_end, f, g), cover->keys) - group.k_start;
    if (q_span > 0) group.q_count = ceil_div(q_span, f->q_step);
    if (k_span > 0) group.k_count = k_span / f->k_step * f->k_run + min64(k_span % f->k_step, f->k_run);
    return group;
}

int64_t hd_group_key(const hd_group *group, int64_t u)
{
    return group->k_start + group->k_step * (u / group->k_run) + u % group->k_run;
}

void hd_group_interval(const hd_family *f, const hd_group *group, int64_t t, int64_t *first, int64_t *last)
{
    *first = max64(0, group->lo + f->lo_mul * ((t + f->lo_phase) / f->lo_div));
    *last = min64(group->k_count, group->hi + f->hi_mul * ((t + f->hi_phase) / f->hi_div));
}

/* First t with bound + mul * floor((t + phase) / div) > u: the bound never falls as t grows. */
static int64_t first_above(int64_t u, int64_t bound, int64_t mul, int64_t div, int64_t phase, int64_t count)
{
    if (bound > u) return 0;
    if (mul == 0) return count;
    return min64(count, max64(0, ceil_div(u + 1 - bound, mul) * div - phase));
}

void hd_group_column(const hd_family *f, const hd_group *group, int64_t u, int64_t *first, int64_t *last)
{
    *first = first_above(u, group->hi, f->hi_mul, f->hi_div, f->hi_phase, group->q_count);
    *last = first_above(u, group->lo, f->lo_mul, f->lo_div, f->lo_phase, group->q_count);
}

/* Cutting a set of differences into progressions. */

typedef struct progressions {
    int count; hd_progression item[MAX_FAMILIES];     /* start is a bit index of the set */
    bool full;                                        /* more were needed */
} progressions;

static void clear_bit(hd_differences *set, int64_t x) { set->bits[x >> 6] &= ~(UINT64_C(1) << (x & 63)); }

static void take(hd_differences *set, progressions *list, hd_progression p)
{
    if (list->count == MAX_FAMILIES) { list->full = true; return; }
    for (int64_t m = 0; m < p.count; m++) clear_bit(set, p.start + m * p.step);
    list->item[list->count++] = p;
}

/* First index >= x that is not in the set. */
static int64_t run_end(const hd_differences *set, int64_t x)
{
    while (x < set->count) {
        uint64_t rest = ~set->bits[x >> 6] >> (x & 63);
        if (rest) return min64(set->count, x + __builtin_ctzll(rest));
        x = (x | 63) + 1;
    }
    return set->count;
}

/* An end of the run [a, b) may rather be the first column of a stride: with window 4 | stride 4 the set is 0-4, 8, 12, ...
 * and the window should stay the 4 keys that were named. True if from the element `end`, in direction `sign`, at least two
 * lone elements follow in steps shorter than the run. */
static bool starts_columns(const hd_differences *set, int64_t end, int sign, int64_t length)
{
    for (int64_t step = 2; step < length; step++) {
        if (!hd_differences_has(set, end + sign * step)) continue;
        return hd_differences_has(set, end + 2 * sign * step) && !hd_differences_has(set, end + sign * (step + 1));
    }
    return false;
}

/* Long runs become bands, unless there are more of one length than a run has elements: then columns cover them in fewer families. */
static void take_runs(hd_differences *set, progressions *list)
{
    int64_t runs[MAX_FAMILIES] = { 0 };
    for (int64_t a = hd_differences_next(set, 0), b; a < set->count; a = hd_differences_next(set, b)) {
        b = run_end(set, a);
        if (b - a < MAX_FAMILIES) runs[b - a]++;
    }
    for (int64_t a = hd_differences_next(set, 0), b; a < set->count && !list->full; a = hd_differences_next(set, b)) {
        b = run_end(set, a);
        if (b - a < LONG_RUN || (b - a < MAX_FAMILIES && runs[b - a] > b - a)) continue;
        bool low = starts_columns(set, a, -1, b - a), high = starts_columns(set, b - 1, 1, b - a);
        take(set, list, (hd_progression){ a + low, 1, b - a - low - high });
    }
}

/* The best progression that starts at the smallest element: the longest, where a wider step must be more than twice as long. */
static hd_progression longest_from(const hd_differences *set, int64_t x)
{
    hd_progression best = { x, 1, 1 };
    int64_t y = x;
    for (int c = 0; c < MAX_CANDIDATES; c++) {
        y = hd_differences_next(set, y + 1);
        if (y == set->count) break;
        int64_t step = y - x, n = 2;
        while (hd_differences_has(set, x + n * step)) n++;
        if (best.count > 1 && n <= 2 * best.count) continue;
        best = (hd_progression){ x, step, n };
        if (n > 2 && x + n * step >= set->count) break;      /* reaches the end: no wider step is longer */
    }
    return best;
}

/* Consumes the set. */
static void cut(hd_differences *set, progressions *list)
{
    list->count = 0;
    list->full = false;
    take_runs(set, list);
    for (int64_t x = hd_differences_next(set, 0); x < set->count && !list->full; x = hd_differences_next(set, x))
        take(set, list, longest_from(set, x));
}

/* Families. */

typedef struct builder {
    hd_cover *cover;
    int capacity;
    bool full;              /* more than MAX_FAMILIES were needed */
    const hd_pattern *documents;      /* the term */
    hd_where line;          /* of the pattern */
    const char *where;      /* of the region in work: "keys 0..15, " */
} builder;

/* A rectangle of positions, repeated `outer` times, each `shift` further along both sides. Of its keys j only those with
 * r0 <= j mod step < r0 + run, where step is that of the progression on it; run 0: all. */
typedef struct cell { int64_t q0, q1, k0, k1, outer, shift, r0, run; const char *where; } cell;

static int64_t family_pairs(const hd_cover *cover, const hd_family *f)
{
    int64_t pairs = 0, first, last;
    for (int64_t g = 0; g < f->groups; g++) {
        hd_group group = hd_family_group(cover, f, g);
        for (int64_t t = 0; t < group.q_count; t++) {
            hd_group_interval(f, &group, t, &first, &last);
            pairs += max64(0, last - first);
        }
    }
    return pairs;
}

/* f: with groups and bases of one cell, to be repeated. */
static void add_family(builder *b, hd_family f, const cell *c)
{
    if (b->full || f.groups < 1 || c->outer < 1) return;
    if (f.lo.base > 0 && f.k_run == 1) {       /* no row reads the first keys */
        f.k_start.base += f.k_step * f.lo.base;
        if (f.hi.base != HD_ALL_KEYS) f.hi.base -= f.lo.base;
        f.lo.base = 0;
    }
    f.inner = f.groups;
    f.groups *= c->outer;
    hd_affine *position[] = { &f.q_start, &f.q_end, &f.k_start, &f.k_end };
    for (int k = 0; k < 4 && c->outer > 1; k++)
        if (f.inner == 1) position[k]->per_group = c->shift;
        else position[k]->per_outer = c->shift;
    if (f.inner == 1) f.inner = f.groups;
    f.kept_pairs = family_pairs(b->cover, &f);
    if (!f.kept_pairs) return;
    if (b->cover->families == MAX_FAMILIES) { b->full = true; return; }
    HD_PUSH(b->cover->family, b->cover->families, b->capacity, f);
}

static const char *describe(int64_t first, int64_t step, int64_t count, bool lo_open, bool hi_open)
{
    int64_t last = first + (count - 1) * step;
    if (step > 1) {
        if (lo_open || hi_open) return hd_format("columns of stride %" PRId64, step);
        return hd_format("%" PRId64 " keys %" PRId64 " apart", count, step);
    }
    if (lo_open && hi_open) return "all keys";
    if (lo_open && first == 0) return "causal";
    if (lo_open) return hd_format("keys from %" PRId64 " before on back", first);
    if (hi_open && last == 0) return "own key and all after";
    if (first == 0) return hd_format("window of %" PRId64 " key%s", count, count == 1 ? "" : "s");
    if (hi_open) return hd_format("keys from %" PRId64 " before on", last);
    return hd_format("keys %" PRId64 " to %" PRId64 " before", last, first);
}

/* The part of p in [low, high]. */
static hd_progression clip(hd_progression p, int64_t low, int64_t high)
{
    int64_t below = max64(0, ceil_div(low - p.start, p.step)), end = min64(p.count, floor_div(high - p.start, p.step) + 1);
    return (hd_progression){ p.start + below * p.step, p.step, max64(0, end - below) };
}

/* A progression of `count` differences from `first` on, both taken from a cell's corner. */
typedef struct band { int64_t first, step, count; bool lo_open, hi_open; hd_family f; } band;

/* Groups of keys k + g, k + g + step, ... and queries q + g, q + g + step, ...: there first + step * m = difference means
 * m = turn + t - u, so that query t keeps turn + t - (count - 1) <= u <= turn + t. */
static void add_groups(builder *b, const cell *c, const band *n, int64_t q, int64_t k, int64_t groups)
{
    hd_family f = n->f;
    int64_t turn = floor_div(q - k - n->first, n->step);
    f.groups = groups;
    f.q_start.base = c->q0 + q;
    f.k_start.base = c->k0 + k;
    f.lo.base = n->lo_open ? 0 : turn - (n->count - 1);
    f.hi.base = n->hi_open ? HD_ALL_KEYS : turn + 1;
    add_family(b, f, c);
}

/* The groups of key residues [w0, w1): the last of them are read by queries whose residue has wrapped. */
static void add_residues(builder *b, const cell *c, const band *n, int64_t w0, int64_t w1)
{
    int64_t queries = c->q1 - c->q0, residue = n->first - floor_div(n->first, n->step) * n->step, wrap = n->step - residue;
    add_groups(b, c, n, w0 + residue, w0, min64(min64(w1, wrap) - w0, queries - w0 - residue));
    w0 = max64(w0, wrap);
    add_groups(b, c, n, w0 - wrap, w0, min64(w1 - w0, queries - w0 + wrap));
}

/* The differences of p on the cell as families. */
static void add_band(builder *b, const cell *c, hd_progression p)
{
    int64_t queries = c->q1 - c->q0, keys = c->k1 - c->k0, offset = c->q0 - c->k0;
    p = clip(p, offset - (keys - 1), offset + queries - 1);
    if (p.count < 1) return;
    if (p.count == 1 && !c->run) p.step = 1;
    int64_t first = p.start - offset, step = p.step, last = first + (p.count - 1) * step;
    band n = { first, step, p.count, last + step > queries - 1, first - step < -(keys - 1),
               { .q_step = step, .k_step = step, .k_run = 1, .lo_div = 1, .hi_div = 1 } };
    n.f.lo_mul = !n.lo_open;
    n.f.hi_mul = !n.hi_open;
    n.f.what = hd_format("%s%s", c->where, describe(p.start, step, p.count, n.lo_open, n.hi_open));
    n.f.q_start.per_group = n.f.k_start.per_group = step > 1;
    n.f.q_end.base = c->q1;
    n.f.k_end.base = c->k0 + min64(keys, queries - first);
    if (c->run) {
        int64_t w = ((c->r0 - c->k0) % step + step) % step;
        add_residues(b, c, &n, w, min64(w + c->run, step));
        if (w + c->run > step) add_residues(b, c, &n, 0, w + c->run - step);
    } else if (first % step != 0 && first >= 0)          /* nobody before query `first` reads anything: residues start there */
        add_groups(b, c, &n, first, 0, min64(step, queries - first));
    else if (first % step != 0 && last < 0)
        add_groups(b, c, &n, 0, -last, min64(step, queries));
    else add_residues(b, c, &n, 0, step);
}

/* Regions to families. */

/* A cell repeated every `shift` positions, wherever it lies in the region; repetitions that an edge cuts stand alone. */
static void add_cells(builder *b, const hd_region *r, cell c, hd_progression p)
{
    if (p.count < 1) return;
    int64_t n = max64(floor_div(r->q0 - c.q1, c.shift), floor_div(r->k0 - c.k1, c.shift));
    cell inside = c;
    inside.outer = 0;
    for (; !b->full && c.q0 + n * c.shift < r->q1; n++) {
        cell one = c;
        one.outer = 1;
        one.q0 += n * c.shift, one.q1 += n * c.shift, one.k0 += n * c.shift, one.k1 += n * c.shift;
        /* Ends at the lengths need no care: families are clipped there, and rows without keys stay listed. */
        if (one.q0 >= r->q0 && one.k0 >= r->k0 && (one.q1 <= r->q1 || r->q1 == b->cover->queries) && (one.k1 <= r->k1 || r->k1 == b->cover->keys)) {
            if (inside.outer++ == 0) inside.q0 = one.q0, inside.q1 = one.q1, inside.k0 = one.k0, inside.k1 = one.k1;
            continue;
        }
        if (one.k0 >= r->k1) break;
        one.q0 = max64(one.q0, r->q0); one.q1 = min64(one.q1, r->q1);
        one.k0 = max64(one.k0, r->k0); one.k1 = min64(one.k1, r->k1);
        if (one.q0 < one.q1 && one.k0 < one.k1) add_band(b, &one, p);
    }
    if (inside.outer) add_band(b, &inside, p);
}

static const char *region_text(const builder *b, const hd_region *r)
{
    hd_text text = { NULL, 0, 0 };
    if (r->q0 > 0 || r->q1 < b->cover->queries) hd_text_add(&text, "queries %" PRId64 "..%" PRId64 ", ", r->q0, r->q1 - 1);
    if (r->k0 > 0 || r->k1 < b->cover->keys) hd_text_add(&text, "keys %" PRId64 "..%" PRId64 ", ", r->k0, r->k1 - 1);
    return text.length ? text.data : "";
}

static hd_family rows_of(const hd_region *r)
{
    return (hd_family){ .groups = 1, .q_start.base = r->q0, .q_end.base = r->q1, .k_start.base = r->k0, .k_end.base = r->k1, .q_step = 1,
                        .k_step = 1, .k_run = 1, .lo_div = 1, .hi_div = 1, .hi.base = HD_ALL_KEYS };
}

/* An interval of differences against runs of c neighbouring keys, `period` apart; k0 is the start of a run. Runs that a query
 * sees completely are two staircases: those that end by i - first, from those that start at i - last on. The others are cut by
 * the band's edge: for each run, the few queries for which it happens. */
static void add_runs(builder *b, const hd_region *r, hd_progression p)
{
    int64_t c = r->r1 - r->r0, period = r->period, first = p.start, last = p.start + p.count - 1;
    bool lo_open = last >= r->q1 - 1 - r->k0, hi_open = first <= r->q0 - (r->k1 - 1);
    cell ramp = { .k0 = r->k0, .k1 = r->k0 + c, .outer = 1, .shift = period,
                  .where = hd_format("%scut runs of %" PRId64 ": ", b->where, c) };
    if (!lo_open && !hi_open && p.count < c) {        /* no run is ever seen completely */
        if (last - first + c > period) {              /* neighbouring runs would share queries */
            hd_region half = *r;
            half.r1 = half.r0 + c / 2;
            add_runs(b, &half, p);
            half = *r;
            half.r0 += c / 2;
            half.k0 += c / 2;
            if (half.k0 < half.k1) add_runs(b, &half, p);
            return;
        }
        ramp.q0 = r->k0 + first;
        ramp.q1 = r->k0 + last + c;
        add_cells(b, r, ramp, p);
        return;
    }
    hd_family f = rows_of(r);
    f.k_step = period;
    f.k_run = c;
    f.what = hd_format("%sruns of %" PRId64 " keys every %" PRId64, b->where, c, period);
    if (!hi_open) {
        int64_t a = r->q0 - first - r->k0 - c + 1 + period, runs = floor_div(a, period);
        f.hi.base = c * runs;
        f.hi_mul = c; f.hi_div = period; f.hi_phase = a - runs * period;
    }
    if (!lo_open) {
        int64_t a = r->q0 - last - r->k0 + period - 1, runs = floor_div(a, period);
        f.lo.base = c * runs;
        f.lo_mul = c; f.lo_div = period; f.lo_phase = a - runs * period;
    }
    add_family(b, f, &(cell){ .outer = 1 });
    if (!hi_open && c > 1) {
        ramp.q0 = r->k0 + first;
        ramp.q1 = ramp.q0 + c - 1;
        add_cells(b, r, ramp, p);
    }
    if (!lo_open && c > 1) {
        ramp.q0 = r->k0 + last + 1;
        ramp.q1 = ramp.q0 + c - 1;
        add_cells(b, r, ramp, p);
    }
}

/* Steps against residues: taken in steps of a common multiple, the keys of a group have one residue, so that the groups of the
 * region's residues are all there is to choose. Fills the parts of p; returns 0 if there are too many. */
typedef struct part { hd_progression p; int64_t r0; } part;
static int split(const hd_region *r, hd_progression p, part *list)
{
    int64_t common = hd_lcm(p.step, r->period), steps = common / p.step, runs = common / r->period;
    int count = 0;
    if (steps > MAX_FAMILIES || runs > MAX_FAMILIES || steps * runs > MAX_FAMILIES) return 0;
    for (int64_t m = 0; m < min64(steps, p.count); m++)
        for (int64_t run = 0; run < runs; run++)
            list[count++] = (part){ { p.start + m * p.step, common, ceil_div(p.count - m, steps) }, run * r->period + r->r0 };
    return count;
}

/* A progression on a region whose chunks do not matter. */
static void add_plain(builder *b, const hd_region *r, hd_progression p)
{
    if (p.count < 1) return;
    cell box = { .q0 = r->q0, .q1 = r->q1, .k0 = r->k0, .k1 = r->k1, .outer = 1, .where = b->where };
    if (p.count == 1) p.step = 1;
    if (r->period == 1) { add_band(b, &box, p); return; }
    if (p.step == 1) { add_runs(b, r, p); return; }
    part list[MAX_FAMILIES];
    int parts = split(r, p, list);
    if (!parts) b->full = true;
    box.run = r->r1 - r->r0;
    for (int k = 0; k < parts; k++) {
        box.r0 = list[k].r0;
        add_band(b, &box, list[k].p);
    }
}

/* Chunks of queries against the chunks `lag` before: squares along a diagonal, or the strips that residues leave of them. */
static void add_chunks(builder *b, const hd_region *r, hd_progression p, int64_t lag)
{
    if (p.count < 1) return;
    if (p.count == 1) p.step = 1;
    bool by_groups = r->period > 1 && p.step > 1;
    int64_t l = r->chunk, common = hd_lcm(l, by_groups ? hd_lcm(p.step, r->period) : r->period);
    part list[MAX_FAMILIES];
    int parts = by_groups ? split(r, p, list) : 0;
    if ((by_groups && !parts) || common / l > MAX_FAMILIES) { b->full = true; return; }
    const char *where = hd_format("%s%s of %" PRId64 ": ", b->where, lag == 0 ? "in chunks" : hd_format("chunk %" PRId64 " %s, chunks", lag > 0 ? lag : -lag, lag > 0 ? "before" : "after"), l);
    for (int64_t q = 0; q < common && !b->full; q += l) {
        int64_t k = q - lag * l;
        cell square = { .q0 = q, .q1 = q + l, .k0 = k, .k1 = k + l, .outer = 1, .shift = common, .where = where };
        if (r->period == 1) { add_cells(b, r, square, p); continue; }
        for (int n = 0; n < parts; n++) {
            square.r0 = list[n].r0;
            square.run = r->r1 - r->r0;
            add_cells(b, r, square, list[n].p);
        }
        for (int64_t run = floor_div(k, r->period) * r->period; !by_groups && run < k + l && !b->full; run += r->period) {
            square.k0 = max64(k, run + r->r0);
            square.k1 = min64(k + l, run + r->r1);
            if (square.k0 < square.k1) add_cells(b, r, square, p);
        }
    }
}

/* Where the chunk `lag` before the query's own begins, or lies if runs of keys are left of chunks: as a bound of query t, key
 * index mul * floor((t + phase) / div) + base. False if the region's runs and chunks do not fit. */
static bool stair(const hd_region *r, int64_t lag, int64_t *base, int64_t *mul, int64_t *div, int64_t *phase)
{
    int64_t l = r->chunk, c = r->r1 - r->r0, from = r->k0 / l, ahead;
    if (r->period == 1) *mul = *div = l, ahead = r->q0 - l * lag, *base = -r->k0;
    else if (r->period % l == 0 && r->r0 / l == (r->r1 - 1) / l) {       /* a run in one of several chunks */
        *mul = c;
        *div = r->period;
        ahead = r->q0 - l * (from + lag + 1) + r->period;
        *base = 0;
    } else if (l % r->period == 0) {                                      /* several runs in each chunk */
        *mul = c * (l / r->period);
        *div = l;
        ahead = r->q0 - l * (from + lag);
        *base = -c * ((r->k0 - from * l) / r->period);
    } else return false;
    *base += *mul * floor_div(ahead, *div);
    *phase = ahead - *div * floor_div(ahead, *div);
    return true;
}

/* An interval of differences on the lags of r in one family, if each of its ends is either a chunk's or the band's. */
static bool add_stairs(builder *b, const hd_region *r, hd_progression p)
{
    int64_t l = r->chunk, first = p.start, last = p.start + p.count - 1;
    bool near_chunk = r->lag0 > -HD_ALL_KEYS && first <= r->lag0 * l - (l - 1), near_band = r->lag0 <= -HD_ALL_KEYS || first >= r->lag0 * l;
    bool far_chunk = r->lag1 < HD_ALL_KEYS && last >= r->lag1 * l - 1, far_band = r->lag1 >= HD_ALL_KEYS || last <= (r->lag1 - 1) * l;
    bool hi_open = first <= r->q0 - (r->k1 - 1), lo_open = last >= r->q1 - 1 - r->k0;
    if (r->lag1 - r->lag0 == 1 || !(near_chunk || near_band) || !(far_chunk || far_band)) return false;
    if (r->period > 1 && ((!near_chunk && !hi_open) || (!far_chunk && !lo_open))) return false;
    if (r->period > 1 && r->period % l == 0 && r->r0 / l != (r->r1 - 1) / l) {      /* runs over several chunks: one chunk after the other */
        for (int64_t from = r->r0; from < r->r1; from = from / l * l + l) {
            hd_region slice = *r;
            slice.k0 += from - r->r0;
            slice.r0 = from;
            slice.r1 = min64(r->r1, from / l * l + l);
            if (slice.k0 < slice.k1) add_stairs(b, &slice, p);
        }
        return true;
    }
    hd_family f = rows_of(r);
    if (r->period > 1) f.k_step = r->period, f.k_run = r->r1 - r->r0;
    if (near_chunk) {
        if (!stair(r, r->lag0 - 1, &f.hi.base, &f.hi_mul, &f.hi_div, &f.hi_phase)) return false;
    } else if (!hi_open) f.hi.base = r->q0 - first - r->k0 + 1, f.hi_mul = 1;
    if (far_chunk) {
        if (!stair(r, r->lag1 - 1, &f.lo.base, &f.lo_mul, &f.lo_div, &f.lo_phase)) return false;
    } else if (!lo_open) f.lo.base = r->q0 - last - r->k0, f.lo_mul = 1;
    int64_t kept = r->period == 1 ? l : f.k_run * max64(1, l / r->period);
    if (near_chunk && far_chunk) f.what = hd_format("%s%" PRId64 " keys of chunks of %" PRId64 ", %" PRId64 " before to %" PRId64 " after", b->where, kept, l, r->lag1 - 1, -r->lag0);
    else if (near_chunk) f.what = hd_format("%s%" PRId64 " keys of every chunk of %" PRId64 " before", b->where, kept, l);
    else f.what = hd_format("%s%" PRId64 " keys of chunks of %" PRId64 " from %" PRId64 " before on", b->where, kept, l, r->lag1 - 1);
    add_family(b, f, &(cell){ .outer = 1 });
    return true;
}

/* A progression on the pairs of some lags. Differences that only such pairs have need no chunks; at either end, pairs of one
 * lag more or less share the differences. */
static void add_lags(builder *b, const hd_region *r, hd_progression p)
{
    if (p.count == 1) p.step = 1;
    if (r->lag0 <= -HD_ALL_KEYS && r->lag1 >= HD_ALL_KEYS) { add_plain(b, r, p); return; }
    if (p.step == 1 && add_stairs(b, r, p)) return;
    if (r->lag1 - r->lag0 == 1) { add_chunks(b, r, p, r->lag0); return; }
    int64_t l = r->chunk, near = -HD_ALL_KEYS, far = HD_ALL_KEYS;
    if (r->lag0 > -HD_ALL_KEYS) add_chunks(b, r, clip(p, -HD_ALL_KEYS, r->lag0 * l - 1), r->lag0), near = r->lag0 * l;
    if (r->lag1 < HD_ALL_KEYS) add_chunks(b, r, clip(p, (r->lag1 - 1) * l + 1, HD_ALL_KEYS), r->lag1 - 1), far = (r->lag1 - 1) * l;
    add_plain(b, r, clip(p, near, far));
}

/* A progression on the squares of documents: as on chunks, but their corners come from a table. */
static void add_documents(builder *b, const hd_region *r, hd_progression p)
{
    const hd_pattern *same = b->documents;
    if (p.count == 1) p.step = 1;
    if (r->q0 || r->q1 < b->cover->queries || r->k0 || r->k1 < b->cover->keys || r->period > 1 || r->lag0 > -HD_ALL_KEYS || r->lag1 < HD_ALL_KEYS || p.start % p.step) {
        b->full = true;
        return;
    }
    int64_t last = p.start + (p.count - 1) * p.step;
    bool lo_open = last + p.step > r->longest - 1, hi_open = p.start - p.step < -(r->longest - 1);
    hd_family f = { .groups = p.step * same->documents, .inner = p.step, .table = same->document, .q_step = p.step, .k_step = p.step, .k_run = 1,
                    .lo_div = 1, .hi_div = 1, .lo_mul = !lo_open, .hi_mul = !hi_open };
    f.q_start = f.k_start = (hd_affine){ .per_group = p.step > 1, .table = 1 };
    f.q_end = f.k_end = (hd_affine){ .table = 2 };
    f.lo.base = lo_open ? 0 : -last / p.step;
    f.hi.base = hi_open ? HD_ALL_KEYS : 1 - p.start / p.step;
    f.what = hd_format("in %" PRId64 " documents: %s", same->documents, describe(p.start, p.step, p.count, lo_open, hi_open));
    f.kept_pairs = family_pairs(b->cover, &f);
    if (!f.kept_pairs) return;
    if (b->cover->families == MAX_FAMILIES) { b->full = true; return; }
    HD_PUSH(b->cover->family, b->cover->families, b->capacity, f);
}

static const hd_pattern *find_documents(const hd_pattern *p)
{
    if (p->kind == HD_PATTERN_DOCUMENTS) return p;
    if (p->kind < HD_PATTERN_AND) return NULL;
    const hd_pattern *found = find_documents(p->a);
    return found ? found : find_documents(p->b);
}

/* The differences of `all` that occur in the region. */
static hd_differences occurring(const hd_region *r, const hd_differences *all, hd_where where)
{
    int64_t low = r->q0 - (r->k1 - 1), high = r->q1 - 1 - r->k0;
    int64_t least, most;
    hd_region_reach(r, &least, &most);
    low = max64(low, least);
    high = min64(high, most);
    hd_differences some = hd_differences_new(low, max64(0, high - low + 1), where);
    int64_t end = min64(all->count, high - all->first + 1);
    for (int64_t x = hd_differences_next(all, low - all->first); x < end; x = hd_differences_next(all, x + 1)) {
        int64_t y = x + all->first - low;
        some.bits[y >> 6] |= UINT64_C(1) << (y & 63);
    }
    return some;
}

static void add_region(builder *b, hd_region r, const hd_differences *all)
{
    const char *where = region_text(b, &r);
    if (r.r1 - r.r0 == r.period) r.period = 1, r.r0 = 0, r.r1 = 1;
    if (r.period > 1) {       /* start at a run; what is left of one stands alone */
        int64_t at = r.k0 % r.period, next = r.k0 - at + r.r0 + (at > r.r0 ? r.period : 0);
        if (at > r.r0 && at < r.r1) {
            hd_region rest = r;
            rest.k1 = min64(r.k1, r.k0 - at + r.r1);
            rest.period = rest.r1 = 1;
            rest.r0 = 0;
            add_region(b, rest, all);
        }
        r.k0 = next;
    }
    if (r.k0 >= r.k1) return;
    b->where = where;
    hd_differences set = occurring(&r, all, b->line);
    progressions list;
    cut(&set, &list);
    hd_differences_free(&set);
    b->full |= list.full;
    for (int k = 0; k < list.count && !b->full; k++) {
        hd_progression p = list.item[k];
        p.start += set.first;
        if (r.document1 - r.document0 == 2) add_lags(b, &r, p);
        else if (r.document0 == 0) add_documents(b, &r, p);
        else b->full = true;              /* other documents: squares of all shapes */
    }
}

/* The whole cover. */

/* True if the groups of f list every query: they are disjoint, so counting is enough. */
static bool lists_all_rows(const hd_cover *cover, const hd_family *f)
{
    int64_t rows = 0;
    for (int64_t g = 0; g < f->groups; g++) rows += hd_family_group(cover, f, g).q_count;
    return rows == cover->queries;
}

/* Home lists every row: a band if there is one, then the one with most pairs; an empty family if none does. */
static void choose_home(builder *b)
{
    hd_cover *cover = b->cover;
    int home = -1;
    bool best_near = false;
    for (int k = 0; k < cover->families; k++) {
        const hd_family *f = &cover->family[k];
        bool near = f->q_step == 1 && f->k_step == 1;
        if (!lists_all_rows(cover, f)) continue;
        if (home >= 0 && (near < best_near || (near == best_near && f->kept_pairs <= cover->family[home].kept_pairs))) continue;
        home = k;
        best_near = near;
    }
    hd_family first;
    if (home >= 0) first = cover->family[home];
    else {
        hd_region all = { .q1 = cover->queries, .k1 = cover->keys };
        first = rows_of(&all);
        first.inner = 1;
        first.hi.base = 0;
        first.what = "rows without own tiles";
        HD_PUSH(cover->family, cover->families, b->capacity, first);
        home = cover->families - 1;
    }
    memmove(&cover->family[1], &cover->family[0], sizeof first * (size_t)home);
    cover->family[0] = first;
}

/* The bound base + mul * floor((t + phase) / div), seen from row `rows` on. */
static void advance(hd_affine *bound, int64_t mul, int64_t div, int64_t *phase, int64_t rows)
{
    if (!mul) return;
    bound->base += mul * ((rows + *phase) / div);
    *phase = (rows + *phase) % div;
}

/* Families beside home need not list their first rows if those have no keys, nor groups without rows or keys. */
static void skip_empty_rows(const hd_cover *cover, hd_family *f)
{
    if (f->hi_mul && !f->hi.per_group && !f->hi.per_outer) {
        int64_t rows = first_above(0, f->hi.base, f->hi_mul, f->hi_div, f->hi_phase, HD_ALL_KEYS);
        f->q_start.base += f->q_step * rows;
        advance(&f->hi, f->hi_mul, f->hi_div, &f->hi_phase, rows);
        advance(&f->lo, f->lo_mul, f->lo_div, &f->lo_phase, rows);
    }
    if (f->inner != f->groups) return;
    if (f->q_start.per_group > 0) f->groups = min64(f->groups, ceil_div(cover->queries - f->q_start.base, f->q_start.per_group));
    if (f->k_start.per_group > 0) f->groups = min64(f->groups, ceil_div(cover->keys - f->k_start.base, f->k_start.per_group));
    f->inner = f->groups;
}

static int64_t count_empty_rows(const hd_cover *cover, hd_where where)
{
    hd_differences seen = hd_differences_new(0, cover->queries, where);      /* bit i: row i has a key */
    for (int k = 0; k < cover->families; k++) {
        const hd_family *f = &cover->family[k];
        for (int64_t g = 0; g < f->groups; g++) {
            hd_group group = hd_family_group(cover, f, g);
            for (int64_t t = 0, first, last; t < group.q_count; t++) {
                hd_group_interval(f, &group, t, &first, &last);
                int64_t i = group.q_start + group.q_step * t;
                if (first < last) seen.bits[i >> 6] |= UINT64_C(1) << (i & 63);
            }
        }
    }
    int64_t empty = cover->queries;
    for (int64_t w = 0; w < (cover->queries + 63) / 64; w++) empty -= __builtin_popcountll(seen.bits[w]);
    hd_differences_free(&seen);
    return empty;
}

hd_cover *hd_cover_try(const hd_pattern *p, int64_t queries, int64_t keys)
{
    assert(queries >= 1 && keys >= 1);
    hd_pattern_validate(p);
    hd_regions *list = calloc(1, sizeof *list);
    if (!list || !hd_regions_make(list, p, queries, keys)) { free(list); return NULL; }
    builder b = { .cover = HD_NEW(hd_cover), .line = p->where, .documents = find_documents(p) };
    b.cover->queries = queries;
    b.cover->keys = keys;
    for (int k = 0; k < list->count && !b.full; k++) add_region(&b, list->item[k].r, &list->item[k].d);
    hd_regions_free(list);
    free(list);
    if (b.full) return NULL;
    choose_home(&b);
    for (int k = 1; k < b.cover->families; k++) skip_empty_rows(b.cover, &b.cover->family[k]);
    for (int k = 0; k < b.cover->families; k++) b.cover->kept_pairs += b.cover->family[k].kept_pairs;
    b.cover->empty_rows = count_empty_rows(b.cover, p->where);
    return b.cover;
}

/* Family 0 is home and says nothing: groups 1, all rows, no keys. */
static hd_cover *cover_of_rows(const hd_pattern *p, int64_t queries, int64_t keys)
{
    hd_key_rows *rows = hd_key_rows_make(p, queries, keys);
    if (!rows) return NULL;
    builder b = { .cover = HD_NEW(hd_cover) };
    b.cover->rows = rows;
    b.cover->queries = queries;
    b.cover->keys = keys;
    choose_home(&b);
    b.cover->family[0].what = "keys by rows";
    for (int64_t i = 0; i < queries; i++) {
        b.cover->empty_rows += rows->start[i] == rows->start[i + 1];
        for (int64_t k = rows->start[i]; k < rows->start[i + 1]; k++) b.cover->kept_pairs += rows->run[k].end - rows->run[k].first;
    }
    b.cover->family[0].kept_pairs = b.cover->kept_pairs;
    return b.cover;
}

hd_cover *hd_cover_make(const hd_pattern *p, int64_t queries, int64_t keys)
{
    hd_cover *cover = hd_cover_try(p, queries, keys);
    if (!cover) cover = cover_of_rows(p, queries, keys);
    if (!cover)
        hd_fail(p->where, "pattern \"%s\" at %" PRId64 " queries and %" PRId64 " keys is neither at most %d families of tiles nor rows of at most %d runs of keys "
                "(%d MiB); strides that divide each other, one chunk length, and windows subtracted from windows rather than strides give fewer",
                hd_pattern_text(p), queries, keys, MAX_FAMILIES, HD_MAX_RUNS, (int)(HD_MAX_RUNS * sizeof(hd_interval) >> 20));
    return cover;
}
