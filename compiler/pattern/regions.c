/* The plane of (query, key) pairs cut into regions on which a pattern is a set of differences.
 *
 * Cuts lie where keys and queries terms begin and end, at the ends of residues within their common period, and between a
 * query's own chunk and the others. Then neighbours join again: if one's differences are a subset of the other's, the subset
 * becomes a set of the joint region, and the other keeps the rest. So a window | global keys is one window on the whole plane
 * and what the keys add to it, and terms that cut nothing in the end leave no trace.
 * Invariant: the regions' pairs are disjoint and together the pattern's. */
#include "cover.h"

#include <stdlib.h>
#include <string.h>

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

enum { MAX_BREAKS = 32 };

/* Where the terms change: sorted, first 0, last the length (the period). */
typedef struct breaks { int count; int64_t at[MAX_BREAKS]; } breaks;

typedef struct plane {
    breaks queries, keys, residues;
    int64_t period, chunk;          /* chunk 0: no chunk term that cuts anything */
    bool full;                      /* more than fits: several chunk lengths, too many breaks */
} plane;

static void add_break(plane *pl, breaks *list, int64_t at, int64_t length)
{
    if (at < 0 || at > length) return;
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
    if (p->kind == HD_PATTERN_RESIDUES) {
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
            add_break(pl, &pl->residues, run + p->first, pl->period);
            add_break(pl, &pl->residues, run + p->end, pl->period);
        }
    else if (p->kind == HD_PATTERN_KEYS || p->kind == HD_PATTERN_QUERIES) {
        breaks *list = p->kind == HD_PATTERN_KEYS ? &pl->keys : &pl->queries;
        add_break(pl, list, p->first, p->kind == HD_PATTERN_KEYS ? keys : queries);
        add_break(pl, list, p->end, p->kind == HD_PATTERN_KEYS ? keys : queries);
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

static bool is_empty(const hd_differences *d) { return hd_differences_next(d, 0) == d->count; }

/* Mask of word w for the differences of the same chunk (inside) or of all. */
static uint64_t mask_word(const hd_differences *d, int64_t w, int64_t low, int64_t high)
{
    int64_t from = max64(0, low - d->first - w * 64), to = min64(63, high - d->first - w * 64);
    if (from > 63 || to < 0 || from > to) return 0;
    return (~UINT64_C(0) << from) & (~UINT64_C(0) >> (63 - to));
}

static bool is_subset(const hd_differences *a, const hd_differences *b, int64_t low, int64_t high)
{
    for (int64_t w = 0; w < (a->count + 63) / 64; w++)
        if (a->bits[w] & ~b->bits[w] & mask_word(a, w, low, high)) return false;
    return true;
}

/* a without b, within [low, high]. */
static void subtract(hd_differences *a, const hd_differences *b, int64_t low, int64_t high)
{
    for (int64_t w = 0; w < (a->count + 63) / 64; w++) a->bits[w] &= ~(b->bits[w] & mask_word(a, w, low, high));
}

enum { RESIDUES, KEYS, QUERIES, AXES };

/* a and b are neighbours along one axis and alike otherwise: a becomes both. */
static bool join(hd_region *a, const hd_region *b, int axis)
{
    hd_region x = *a, y = *b, joint = *a;
    int64_t *start, *end, other_start, other_end;
    if (axis == RESIDUES) start = &joint.r0, end = &joint.r1, other_start = b->r0, other_end = b->r1, x.r0 = x.r1 = y.r0 = y.r1 = 0;
    else if (axis == KEYS) start = &joint.k0, end = &joint.k1, other_start = b->k0, other_end = b->k1, x.k0 = x.k1 = y.k0 = y.k1 = 0;
    else start = &joint.q0, end = &joint.q1, other_start = b->q0, other_end = b->q1, x.q0 = x.q1 = y.q0 = y.q1 = 0;
    if (x.q0 != y.q0 || x.q1 != y.q1 || x.k0 != y.k0 || x.k1 != y.k1 || x.r0 != y.r0 || x.r1 != y.r1 || x.relation != y.relation) return false;
    if (*end == other_start) *end = other_end;
    else if (other_end == *start) *start = other_start;
    else return false;
    *a = joint;
    return true;
}

/* One step towards fewer regions: what one of two neighbours keeps and the other keeps as well becomes theirs together. */
static bool join_neighbours(hd_regions *list)
{
    for (int axis = 0; axis < AXES; axis++)
        for (int a = 0; a < list->count; a++)
            for (int b = 0; b < list->count; b++) {
                hd_kept *x = &list->item[a], *y = &list->item[b];
                hd_region joint = x->r;
                if (a == b || !join(&joint, &y->r, axis)) continue;
                int64_t reach = x->r.relation == HD_SAME_CHUNK ? x->r.chunk - 1 : HD_ALL_KEYS;
                if (!is_subset(&x->d, &y->d, -reach, reach)) continue;
                subtract(&y->d, &x->d, -reach, reach);
                x->r = joint;
                if (is_empty(&y->d)) drop(list, b);
                return true;
            }
    return false;
}

/* The same for a region's own and other chunks. Other chunks alone decide about differences no chunk contains. */
static bool join_chunks(hd_regions *list)
{
    for (int a = 0; a < list->count; a++)
        for (int b = 0; b < list->count; b++) {
            hd_kept *same = &list->item[a], *other = &list->item[b];
            hd_region alike = other->r;
            alike.relation = HD_SAME_CHUNK;
            if (same->r.relation != HD_SAME_CHUNK || other->r.relation != HD_OTHER_CHUNK || memcmp(&alike, &same->r, sizeof alike)) continue;
            int64_t reach = same->r.chunk - 1;
            if (is_subset(&other->d, &same->d, -reach, reach)) {
                subtract(&same->d, &other->d, -reach, reach);
                other->r.relation = HD_ANY_CHUNK;
                if (is_empty(&same->d)) drop(list, a);
                return true;
            }
            if (is_subset(&same->d, &other->d, -reach, reach)) {
                subtract(&other->d, &same->d, -reach, reach);
                same->r.relation = HD_ANY_CHUNK;       /* its differences end within a chunk */
                if (is_empty(&other->d)) drop(list, b);
                return true;
            }
        }
    return false;
}

static void add(hd_regions *list, const hd_pattern *p, hd_region r, int64_t queries, int64_t keys)
{
    hd_differences d = hd_differences_make(p, &r, -(keys - 1), queries + keys - 1);
    if (r.relation == HD_SAME_CHUNK)
        for (int64_t w = 0; w < (d.count + 63) / 64; w++) d.bits[w] &= mask_word(&d, w, 1 - r.chunk, r.chunk - 1);
    list->item[list->count++] = (hd_kept){ r, d };
    if (is_empty(&d)) drop(list, list->count - 1);
}

bool hd_regions_make(hd_regions *list, const hd_pattern *p, int64_t queries, int64_t keys)
{
    plane pl = { .period = 1 };
    find_periods(&pl, p, max64(queries, keys));
    breaks *axis[] = { &pl.queries, &pl.keys, &pl.residues };
    int64_t length[] = { queries, keys, pl.period };
    for (int k = 0; k < 3; k++) add_break(&pl, axis[k], 0, length[k]), add_break(&pl, axis[k], length[k], length[k]);
    find_breaks(&pl, p, queries, keys);
    list->count = 0;
    int relations = pl.chunk ? 2 : 1;
    if (pl.full || (pl.queries.count - 1) * (pl.keys.count - 1) * (pl.residues.count - 1) * relations > HD_MAX_REGIONS) return false;
    for (int q = 0; q + 1 < pl.queries.count; q++)
        for (int k = 0; k + 1 < pl.keys.count; k++)
            for (int r = 0; r + 1 < pl.residues.count; r++)
                for (int relation = 0; relation < relations; relation++) {
                    hd_region region = { pl.queries.at[q], pl.queries.at[q + 1], pl.keys.at[k], pl.keys.at[k + 1], pl.period,
                                         pl.residues.at[r], pl.residues.at[r + 1], pl.chunk,
                                         pl.chunk ? (relation ? HD_OTHER_CHUNK : HD_SAME_CHUNK) : HD_ANY_CHUNK };
                    add(list, p, region, queries, keys);
                }
    while (join_neighbours(list) || join_chunks(list)) { }
    return true;
}

void hd_regions_free(hd_regions *list)
{
    while (list->count) drop(list, list->count - 1);
}
