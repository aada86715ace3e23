/* The plane of (query, key) pairs cut into regions on which a pattern is a set of differences.
 *
 * Cuts lie where keys and queries terms begin and end, at the ends of residues within their common period, and between the
 * lags (chunks back) that chunk terms tell apart, and between documents. Then neighbours join again: if one's differences are a subset of the other's, the subset
 * becomes a set of the joint region, and the other keeps the rest. So a window | global keys is one window on the whole plane
 * and what the keys add to it, and terms that cut nothing in the end leave no trace.
 * Invariant: the regions' pairs are disjoint and together the pattern's. */
#include "cover.h"

#include <stdlib.h>
#include <string.h>

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

enum { MAX_BREAKS = 32 };

/* Where the terms change: sorted; first and last are the ends of the axis. */
typedef struct breaks { int count; int64_t at[MAX_BREAKS]; } breaks;

typedef struct plane {
    breaks queries, keys, residues, lags, documents;
    const hd_pattern *same;         /* the documents term */
    int64_t period, chunk;          /* chunk 0: no chunk term that cuts anything */
    bool full;                      /* more than fits: several chunk lengths, too many breaks */
} plane;

static void add_break(plane *pl, breaks *list, int64_t at, int64_t first, int64_t last)
{
    if (at < first || at > last) return;
    int k = list->count;
    while (k > 0 && list->at[k - 1] >= at) k--;
    if (k < list->count && list->at[k] == at) return;
    if (list->count == MAX_BREAKS) { pl->full = true; return; }
    memmove(&list->at[k + 1], &list->at[k], sizeof *list->at * (size_t)(list->count - k));
    list->at[k] = at;
    list->count++;
}

static void find_periods(plane *pl, const hd_pattern *p, int64_t longest)
{
    if (p->kind == HD_PATTERN_DOCUMENTS) {
        if (pl->same && !hd_pattern_equal(pl->same, p)) pl->full = true;
        pl->same = p;
    } else if (p->kind == HD_PATTERN_RESIDUES) {
        pl->period = hd_lcm(pl->period, p->stride);
        if (pl->period > INT32_MAX) pl->full = true, pl->period = 1;
    } else if (p->kind == HD_PATTERN_CHUNK && p->chunk < longest) {
        if (pl->chunk && pl->chunk != p->chunk) pl->full = true;
        pl->chunk = p->chunk;
    } else if (p->kind >= HD_PATTERN_AND) {
        find_periods(pl, p->a, longest);
        find_periods(pl, p->b, longest);
    }
}

static void find_breaks(plane *pl, const hd_pattern *p, int64_t queries, int64_t keys)
{
    if (p->kind == HD_PATTERN_RESIDUES)
        for (int64_t run = 0; run < pl->period && !pl->full; run += p->stride) {
            add_break(pl, &pl->residues, run + p->first, 0, pl->period);
            add_break(pl, &pl->residues, run + p->end, 0, pl->period);
        }
    else if (p->kind == HD_PATTERN_KEYS || p->kind == HD_PATTERN_QUERIES) {
        breaks *list = p->kind == HD_PATTERN_KEYS ? &pl->keys : &pl->queries;
        add_break(pl, list, p->first, 0, p->kind == HD_PATTERN_KEYS ? keys : queries);
        add_break(pl, list, p->end, 0, p->kind == HD_PATTERN_KEYS ? keys : queries);
    } else if (p->kind == HD_PATTERN_CHUNK && p->chunk == pl->chunk) {
        add_break(pl, &pl->lags, -p->right, -HD_ALL_KEYS, HD_ALL_KEYS);
        add_break(pl, &pl->lags, p->left + 1, -HD_ALL_KEYS, HD_ALL_KEYS);
    } else if (p->kind >= HD_PATTERN_AND) {
        find_breaks(pl, p->a, queries, keys);
        find_breaks(pl, p->b, queries, keys);
    }
}

static void drop(hd_regions *list, int k)
{
    hd_differences_free(&list->item[k].d);
    memmove(&list->item[k], &list->item[k + 1], sizeof *list->item * (size_t)(--list->count - k));
}

static bool is_empty(const hd_kept *k)
{
    int64_t low, high;
    hd_region_reach(&k->r, &low, &high);
    int64_t x = hd_differences_next(&k->d, low - k->d.first);
    return x == k->d.count || x + k->d.first > high;
}

/* The bits of word w that stand for differences from low to high. */
static uint64_t mask_word(const hd_differences *d, int64_t w, int64_t low, int64_t high)
{
    int64_t from = max64(0, low - d->first - w * 64), to = min64(63, high - d->first - w * 64);
    if (from > 63 || to < 0 || from > to) return 0;
    return (~UINT64_C(0) << from) & (~UINT64_C(0) >> (63 - to));
}

/* Within [low, high]: every difference of a is in b, and a has some. */
static bool is_subset(const hd_differences *a, const hd_differences *b, int64_t low, int64_t high)
{
    uint64_t some = 0;
    for (int64_t w = 0; w < (a->count + 63) / 64; w++) {
        uint64_t there = a->bits[w] & mask_word(a, w, low, high);
        if (there & ~b->bits[w]) return false;
        some |= there;
    }
    return some != 0;
}

/* a without b, within [low, high]. */
static void subtract(hd_differences *a, const hd_differences *b, int64_t low, int64_t high)
{
    for (int64_t w = 0; w < (a->count + 63) / 64; w++) a->bits[w] &= ~(b->bits[w] & mask_word(a, w, low, high));
}

enum { RESIDUES, KEYS, QUERIES, LAGS, DOCUMENTS, AXES };

/* a and b are neighbours along one axis and alike otherwise: a becomes both. */
static bool join(hd_region *a, const hd_region *b, int axis)
{
    hd_region x = *a, y = *b, joint = *a;
    int64_t *ends[AXES][2] = { { &joint.r0, &joint.r1 }, { &joint.k0, &joint.k1 }, { &joint.q0, &joint.q1 }, { &joint.lag0, &joint.lag1 }, { &joint.document0, &joint.document1 } };
    int64_t *alike[AXES][4] = { { &x.r0, &x.r1, &y.r0, &y.r1 }, { &x.k0, &x.k1, &y.k0, &y.k1 }, { &x.q0, &x.q1, &y.q0, &y.q1 }, { &x.lag0, &x.lag1, &y.lag0, &y.lag1 },
                                { &x.document0, &x.document1, &y.document0, &y.document1 } };
    int64_t other_start = *alike[axis][2], other_end = *alike[axis][3];
    for (int k = 0; k < 4; k++) *alike[axis][k] = 0;
    if (memcmp(&x, &y, sizeof x)) return false;
    if (*ends[axis][1] == other_start) *ends[axis][1] = other_end;
    else if (other_end == *ends[axis][0]) *ends[axis][0] = other_start;
    else return false;
    *a = joint;
    return true;
}

/* One step towards fewer regions: what one of two neighbours keeps and the other keeps as well becomes theirs together; whole:
 * only if nothing is left of the other. Neighbours along the lags need only agree where the other's differences can lie. */
static bool join_neighbours(hd_regions *list, bool whole)
{
    for (int axis = 0; axis < AXES; axis++)
        for (int a = 0; a < list->count; a++)
            for (int b = 0; b < list->count; b++) {
                hd_kept *x = &list->item[a], *y = &list->item[b];
                hd_region joint = x->r;
                int64_t low, high;
                if (a == b || !join(&joint, &y->r, axis)) continue;
                hd_region_reach(&y->r, &low, &high);
                if (!is_subset(&x->d, &y->d, low, high) || (whole && !is_subset(&y->d, &x->d, low, high))) continue;
                subtract(&y->d, &x->d, low, high);
                x->r = joint;
                if (is_empty(y)) drop(list, b);
                return true;
            }
    return false;
}

/* Lags that none of the differences can have may as well belong to the region: if those are all others, lags do not matter. */
static void forget_lags(hd_kept *k)
{
    int64_t low, high;
    hd_region_reach(&k->r, &low, &high);
    for (int64_t w = 0; w < (k->d.count + 63) / 64; w++) k->d.bits[w] &= mask_word(&k->d, w, low, high);
    if (k->r.lag0 > -HD_ALL_KEYS && hd_differences_next(&k->d, 0) + k->d.first < k->r.lag0 * k->r.chunk) return;
    if (k->r.lag1 < HD_ALL_KEYS) {
        int64_t x = hd_differences_next(&k->d, (k->r.lag1 - 1) * k->r.chunk + 1 - k->d.first);
        if (x < k->d.count) return;
    }
    k->r.lag0 = -HD_ALL_KEYS;
    k->r.lag1 = HD_ALL_KEYS;
}

static void add(hd_regions *list, const hd_pattern *p, hd_region r, int64_t queries, int64_t keys)
{
    hd_differences d = hd_differences_make(p, &r, -(keys - 1), queries + keys - 1);
    int64_t low, high;
    hd_region_reach(&r, &low, &high);
    /* one more on either side, as the pattern would have it: joined to the next lag, a band then ends where it should */
    for (int64_t w = 0; w < (d.count + 63) / 64; w++) d.bits[w] &= mask_word(&d, w, low - 1, high + 1);
    list->item[list->count++] = (hd_kept){ r, d };
    if (is_empty(&list->item[list->count - 1])) drop(list, list->count - 1);
}

bool hd_regions_make(hd_regions *list, const hd_pattern *p, int64_t queries, int64_t keys)
{
    list->count = 0;
    if (hd_pattern_irregular(p)) return false;
    plane pl = { .period = 1 };
    find_periods(&pl, p, max64(queries, keys));
    breaks *axis[] = { &pl.queries, &pl.keys, &pl.residues, &pl.lags, &pl.documents };
    int64_t first[] = { 0, 0, 0, -HD_ALL_KEYS, 0 }, last[] = { queries, keys, pl.period, HD_ALL_KEYS, 2 }, longest = 0;
    for (int64_t d = 0; pl.same && d < pl.same->documents; d++) longest = max64(longest, pl.same->document[d + 1] - pl.same->document[d]);
    if (pl.same) add_break(&pl, &pl.documents, 1, 0, 2);
    for (int k = 0; k < AXES; k++) add_break(&pl, axis[k], first[k], first[k], last[k]), add_break(&pl, axis[k], last[k], first[k], last[k]);
    find_breaks(&pl, p, queries, keys);
    list->count = 0;
    int64_t regions = 1;
    for (int k = 0; k < AXES; k++) regions *= axis[k]->count - 1;
    if (pl.full || regions > HD_MAX_REGIONS) return false;
    for (int q = 0; q + 1 < pl.queries.count; q++)
        for (int k = 0; k + 1 < pl.keys.count; k++)
            for (int r = 0; r + 1 < pl.residues.count; r++)
                for (int g = 0; g + 1 < pl.lags.count; g++) for (int d = 0; d + 1 < pl.documents.count; d++) {
                    hd_region region = { pl.queries.at[q], pl.queries.at[q + 1], pl.keys.at[k], pl.keys.at[k + 1], pl.period,
                                         pl.residues.at[r], pl.residues.at[r + 1], pl.chunk, pl.lags.at[g], pl.lags.at[g + 1],
                                         pl.documents.at[d], pl.documents.at[d + 1], longest };
                    add(list, p, region, queries, keys);
                }
    while (join_neighbours(list, true) || join_neighbours(list, false)) { }
    for (int k = 0; k < list->count; k++) forget_lags(&list->item[k]);
    return true;
}

void hd_regions_free(hd_regions *list)
{
    while (list->count) drop(list, list->count - 1);
}
