/* The cover of a pattern: its kept pairs as few families of affine tiles, each pair in exactly one.
 *
 * The pattern is a set of differences d = i - j (cover.h). The set is cut into disjoint arithmetic progressions of
 * differences, few and long, and each progression becomes one family (two if its residues wrap):
 *
 *   step 1   an interval of differences: a band. One group, all rows; query i keeps the keys i - last .. i - first.
 *   step s   s groups, one per residue: queries s apart against keys s apart, where the same differences are a band again.
 *
 * Invariant: groups of one family are disjoint in queries and in keys, families of one cover are disjoint in pairs.
 * Time and memory follow queries + keys, not their product. */
#include "cover.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

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
    return a.base + a.per_group * (g % f->inner) + a.per_outer * (g / f->inner);
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
} builder;

static void add_family(builder *b, hd_family f)
{
    if (f.groups < 1) return;
    f.inner = f.groups;
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

/* The differences first + step * m, m < count, as families. In group r queries and keys are both `step` apart, so that key u
 * of query t has difference first + step * m with m = c + t - u: query t keeps c + t - (count - 1) <= u <= c + t.
 * Home lists every row and needs step to divide first; the others start at the first row and key they use. */
static void add_progression(builder *b, hd_progression p, bool home)
{
    int64_t queries = b->cover->queries, keys = b->cover->keys;
    int64_t first = p.start, step = p.count == 1 ? 1 : p.step, count = p.count, last = first + (count - 1) * step;
    bool lo_open = last + step > queries - 1, hi_open = first - step < -(keys - 1);
    hd_family f = { .q_step = step, .k_step = step, .k_run = 1, .lo_div = 1, .hi_div = 1, .lo_mul = !lo_open, .hi_mul = !hi_open,
                    .what = describe(first, step, count, lo_open, hi_open) };
    f.q_start.per_group = f.k_start.per_group = step > 1;
    f.q_end.base = home ? queries : min64(queries, keys + last);
    f.k_end.base = min64(keys, queries - first);
    int64_t residue = first - floor_div(first, step) * step, wrapped = 0, c;
    if (home) {
        assert(residue == 0);
        c = -floor_div(first, step);
        f.groups = min64(step, queries);
    } else if (first >= 0) {
        f.q_start.base = first;
        c = 0;
        f.groups = min64(step, min64(queries - first, keys));
    } else if (last < 0) {
        f.k_start.base = -last;
        c = count - 1;
        f.groups = min64(step, min64(queries, keys + last));
    } else {
        f.q_start.base = residue;
        c = -floor_div(first, step);
        f.groups = min64(step - residue, min64(queries - residue, keys));
        wrapped = min64(residue, min64(queries, keys - (step - residue)));
    }
    f.lo.base = lo_open ? 0 : c - (count - 1);
    f.hi.base = hi_open ? HD_ALL_KEYS : c + 1;
    for (int64_t m = 0; m < count; m++) f.kept_pairs += hd_difference_pairs(first + m * step, queries, keys);
    if (wrapped > 0) {
        /* Queries of residues below `residue` read keys of residues at the other end, one row of keys earlier. */
        hd_family w = f;
        w.groups = w.inner = wrapped;
        w.q_start.base = 0;
        w.k_start.base = step - residue;
        w.lo.base -= !lo_open;
        w.hi.base -= !hi_open;
        w.kept_pairs = family_pairs(b->cover, &w);
        f.kept_pairs -= w.kept_pairs;
        add_family(b, w);
    }
    add_family(b, f);
}

/* A home that keeps nothing: rows must be started and normalised even if no family lists them all. */
static void add_empty_home(builder *b)
{
    hd_affine rows = { .base = b->cover->queries }, keys = { .base = b->cover->keys };
    add_family(b, (hd_family){ .groups = 1, .q_end = rows, .k_end = keys, .q_step = 1, .k_step = 1, .k_run = 1, .lo_div = 1, .hi_div = 1,
                               .what = "rows without own tiles" });
}

/* Home is the band with most pairs; without a band, the longest columns that list every row. -1: none. */
static int choose_home(const progressions *list, const hd_cover *cover)
{
    int home = -1;
    int64_t best = 0;
    bool best_band = false;
    for (int k = 0; k < list->count; k++) {
        const hd_progression *p = &list->item[k];
        bool band = p->step == 1 || p->count == 1;
        if (!band && p->start % p->step != 0) continue;
        int64_t pairs = 0;
        for (int64_t m = 0; m < p->count; m++) pairs += hd_difference_pairs(p->start + m * p->step, cover->queries, cover->keys);
        if (band < best_band || (band == best_band && pairs <= best)) continue;
        home = k;
        best = pairs;
        best_band = band;
    }
    return home;
}

hd_cover *hd_cover_try(const hd_pattern *p, int64_t queries, int64_t keys)
{
    assert(queries >= 1 && keys >= 1);
    hd_pattern_validate(p);
    hd_differences set = hd_differences_make(p, -(keys - 1), queries + keys - 1);
    progressions list;
    cut(&set, &list);
    for (int k = 0; k < list.count; k++) list.item[k].start += set.first;
    hd_differences_free(&set);
    if (list.full) return NULL;

    hd_cover *cover = HD_NEW(hd_cover);
    cover->queries = queries;
    cover->keys = keys;
    builder b = { cover, 0 };
    int home = choose_home(&list, cover);
    if (home < 0) add_empty_home(&b);
    else add_progression(&b, list.item[home], true);
    for (int k = 0; k < list.count; k++)
        if (k != home) add_progression(&b, list.item[k], false);
    for (int k = 0; k < cover->families; k++) cover->kept_pairs += cover->family[k].kept_pairs;
    cover->empty_rows = hd_pattern_empty_rows(p, queries, keys);
    return cover;
}

hd_cover *hd_cover_make(const hd_pattern *p, int64_t queries, int64_t keys)
{
    hd_cover *cover = hd_cover_try(p, queries, keys);
    if (!cover)
        hd_fail(p->where, "pattern \"%s\" falls into more than %d families of tiles at %" PRId64 " queries and %" PRId64 " keys; strides that "
                "divide each other, or windows subtracted from windows rather than strides, give fewer",
                hd_pattern_text(p), MAX_FAMILIES, queries, keys);
    return cover;
}

/* Printing: one line of totals, then one line per family. */

static void print_affine(hd_text *out, const char *name, hd_affine a)
{
    hd_text_add(out, " %s %" PRId64, name, a.base);
    if (a.per_group) hd_text_add(out, "%+" PRId64 "g", a.per_group);
    if (a.per_outer) hd_text_add(out, "%+" PRId64 "h", a.per_outer);
}

static void print_bound(hd_text *out, const char *name, hd_affine a, int64_t mul, int64_t div, int64_t phase)
{
    if (a.base == HD_ALL_KEYS) { hd_text_add(out, " %s all", name); return; }
    print_affine(out, name, a);
    if (!mul) return;
    hd_text_add(out, mul == 1 ? " +" : " +%" PRId64 "*", mul);
    if (div == 1 && !phase) hd_text_add(out, "t");
    else hd_text_add(out, "floor((t+%" PRId64 ")/%" PRId64 ")", phase, div);
}

void hd_cover_print(const hd_cover *cover, hd_text *out)
{
    hd_text_add(out, "cover: %" PRId64 " queries, %" PRId64 " keys, kept pairs %" PRId64 " (density %.6f), empty rows %" PRId64
                ", families %d, table bytes 0\n",
                cover->queries, cover->keys, cover->kept_pairs, (double)cover->kept_pairs / ((double)cover->queries * (double)cover->keys),
                cover->empty_rows, cover->families);
    for (int k = 0; k < cover->families; k++) {
        const hd_family *f = &cover->family[k];
        hd_text_add(out, "  family %d%s: %s: kept pairs %" PRId64 ", groups %" PRId64, k, k ? "" : " (home)", f->what, f->kept_pairs, f->groups);
        if (f->inner != f->groups) hd_text_add(out, " (%" PRId64 " inner)", f->inner);
        hd_text_add(out, "; queries");
        print_affine(out, "from", f->q_start);
        print_affine(out, "below", f->q_end);
        hd_text_add(out, " step %" PRId64 "; keys", f->q_step);
        print_affine(out, "from", f->k_start);
        print_affine(out, "below", f->k_end);
        hd_text_add(out, " step %" PRId64, f->k_step);
        if (f->k_run != 1) hd_text_add(out, " in runs of %" PRId64, f->k_run);
        hd_text_add(out, "; interval");
        print_bound(out, "lo", f->lo, f->lo_mul, f->lo_div, f->lo_phase);
        print_bound(out, "hi", f->hi, f->hi_mul, f->hi_div, f->hi_phase);
        hd_text_add(out, "\n");
    }
}
