/* Drawing from logits (sampler.h).
 *
 * All cuts keep a beginning of the order "likelier first, smaller ids first among equals". Such a beginning is told by its last logit
 * and how many that equal it stay, so ids never have to be put into that order: find_cut searches the last logit through histograms,
 * and what stays is compacted in place, in the order of ids. Before that, a bound leaves out what cannot stay: of the K likeliest, each
 * is at least as likely as the K-th likeliest of the blocks' best; and what is less likely than (1 - P) / n holds less than 1 - P together. */
#define HD_VL 4
#include "sampler.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../core/hd_vec.h"

enum { BINS = 1024, FEW = 64, BLOCK = 64 };

bool hd_sampler_init(hd_sampler *s, int64_t vocab)
{
    const size_t room = (size_t)(vocab + HD_VL) * sizeof(float), parts = (size_t)vocab * sizeof(hd_sampler_part);
    *s = (hd_sampler){ .vocab = vocab, .row = malloc(room), .weight = malloc(room), .best = malloc(room), .kept = malloc(parts), .part = malloc(parts) };
    if (s->row && s->weight && s->best && s->kept && s->part) return true;
    hd_sampler_free(s);
    return false;
}

void hd_sampler_free(hd_sampler *s)
{
    free(s->row), free(s->weight), free(s->best), free(s->kept), free(s->part);
    *s = (hd_sampler){ 0 };
}

/* Logits above `above` stay, and the first `equal` that equal it. */
typedef struct cut { float above; int64_t equal; } cut;

static int by_logit(const void *a, const void *b)
{
    const float x = ((const hd_sampler_part *)a)->logit, y = ((const hd_sampler_part *)b)->logit;
    return (x < y) - (x > y);
}

static cut cut_among_few(hd_sampler_part *list, int64_t count, double held, double want)
{
    qsort(list, (size_t)count, sizeof *list, by_logit);         /* equals may change places: they weigh the same */
    int64_t last = 0;
    for (; last < count - 1 && (held += (double)list[last].weight) < want; last++) { }
    cut found = { list[last].logit, 1 };
    for (; last > 0 && list[last - 1].logit == found.above; last--) found.equal++;
    return found;
}

/* The shortest beginning of a list of `count` finite logits, which is used up, whose weights sum to `want` at least; of all if they do
 * not. A histogram over the range of logits says in which bin that sum is reached, and the next one is of that bin alone. The range's
 * ends lie in the first and in the last bin, so that each round has fewer. */
static cut find_cut(hd_sampler_part *list, int64_t count, double want)
{
    double held = 0;
    while (count > FEW) {
        float high = list[0].logit, low = high;
        for (int64_t i = 1; i < count; i++) {
            high = list[i].logit > high ? list[i].logit : high;
            low = list[i].logit < low ? list[i].logit : low;
        }
        if (high == low) {
            int64_t equal = 0;
            while (equal < count && held < want) held += (double)list[equal++].weight;
            return (cut){ high, equal };
        }
        const double bins = (BINS - 0.5) / ((double)high - (double)low);
        double sum[BINS] = { 0 };
        for (int64_t i = 0; i < count; i++) sum[(int)(((double)high - (double)list[i].logit) * bins)] += (double)list[i].weight;
        int bin = 0;
        for (; bin < BINS - 1 && held + sum[bin] < want; bin++) held += sum[bin];
        int64_t left = 0;
        for (int64_t i = 0; i < count; i++) {
            list[left] = list[i];
            left += (int)(((double)high - (double)list[i].logit) * bins) == bin;
        }
        count = left;
    }
    return cut_among_few(list, count, held, want);
}

static int64_t keep(hd_sampler_part *list, int64_t count, cut c)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        const float logit = list[i].logit;
        const bool stays = logit > c.above || (logit == c.above && c.equal-- > 0);
        list[kept] = list[i];
        kept += stays;
    }
    return kept;
}

/* Logits of the last tokens made smaller, in a copy of the row. */
static const float *penalise(hd_sampler *s, const hd_sampling *how, const float *logits, const int32_t *before, int64_t count)
{
    if (how->penalty == 1 || !count) return logits;
    memcpy(s->row, logits, (size_t)s->vocab * sizeof *logits);
    for (int64_t i = count > how->penalty_last ? count - how->penalty_last : 0; i < count; i++) {
        const int32_t id = before[i];         /* from the row as it came: once, however often the id stands there */
        if (id < 0 || id >= s->vocab) continue;
        const double logit = (double)logits[id];
        s->row[id] = logit > 0 ? (float)fmin(logit / how->penalty, FLT_MAX) : (float)(logit * how->penalty);
    }
    return s->row;
}

/* The largest of each block, and of all; NaN or +INFINITY if some logit is that. */
static float find_best(hd_sampler *s, const float *row)
{
    float largest = -INFINITY;
    hd_i bad = { 0 };
    for (int64_t i = 0; i < s->vocab; i += BLOCK) {
        const int64_t end = s->vocab - i < BLOCK ? s->vocab : i + BLOCK;
        hd_f most = hd_set(-INFINITY);
        int64_t k = i;
        for (; k + HD_VL <= end; k += HD_VL) {
            const hd_f x = hd_load(row + k);
            bad |= ~(x < INFINITY);
            most = hd_max(most, x);
        }
        float best = -INFINITY;
        for (int lane = 0; lane < HD_VL; lane++) best = most[lane] > best ? most[lane] : best;
        for (; k < end; k++) {
            bad[0] |= -!(row[k] < INFINITY);
            best = row[k] > best ? row[k] : best;
        }
        s->best[i / BLOCK] = best;
        largest = best > largest ? best : largest;
    }
    return bad[0] | bad[1] | bad[2] | bad[3] ? NAN : largest;
}

static int64_t first_bad(const float *logits)
{
    int64_t i = 0;
    while (logits[i] < INFINITY) i++;
    return i;
}

/* s->kept: the top_k likeliest of the row, in the order of ids; returns how many. */
static int64_t keep_top_k(hd_sampler *s, const float *row, int64_t top_k)
{
    const int64_t blocks = (s->vocab + BLOCK - 1) / BLOCK;
    int64_t few = 0, count = 0;
    for (int64_t b = 0; b < blocks; b++)
        if (s->best[b] > -INFINITY) s->part[few++] = (hd_sampler_part){ s->best[b], 1, 0 };
    const float bound = few < top_k ? -FLT_MAX : find_cut(s->part, few, (double)top_k).above;
    for (int64_t b = 0; b < blocks; b++) {
        if (s->best[b] < bound) continue;
        for (int64_t i = b * BLOCK; i < s->vocab && i < (b + 1) * BLOCK; i++) {
            s->kept[count] = (hd_sampler_part){ row[i], 1, (int32_t)i };
            count += row[i] >= bound;
        }
    }
    if (count <= top_k) return count;
    memcpy(s->part, s->kept, (size_t)count * sizeof *s->part);
    return keep(s->kept, count, find_cut(s->part, count, (double)top_k));
}

/* weight[i] = exp((row[i] - largest) / temperature); rows end in whole vectors of room. */
static void weigh(const float *row, float *weight, int64_t count, float largest, double temperature)
{
    const hd_f top = hd_set(largest), slope = hd_set((float)fmin(1 / temperature, 1e30));
    int64_t i = 0;
    for (; i + HD_VL <= count; i += HD_VL) hd_store(weight + i, hd_exp_nonpositive((hd_load(row + i) - top) * slope));
    if (i < count) hd_store(weight + i, hd_exp_nonpositive((hd_load_part(row + i, (int)(count - i)) - top) * slope));
}

/* s->kept: the ids of the row that weigh `least` at least. No block whose best logit lies below `bound` has one. */
static int64_t find_likely(hd_sampler *s, const float *row, int64_t count, float least, double bound)
{
    hd_sampler_part *to = s->kept;
    const float *weight = s->weight;
    for (int64_t block = 0; block < count; block += BLOCK) {
        if ((double)s->best[block / BLOCK] < bound) continue;
        const int64_t end = count - block < BLOCK ? count : block + BLOCK;
        for (int64_t i = block; i < end; i++) {
            *to = (hd_sampler_part){ row[i], weight[i], (int32_t)i };
            to += weight[i] >= least;
        }
    }
    return to - s->kept;
}

/* The same of what s->kept already holds. */
static int64_t keep_likely(hd_sampler *s, int64_t count, float least)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        s->kept[kept] = (hd_sampler_part){ s->kept[i].logit, s->weight[i], s->kept[i].id };
        kept += s->weight[i] >= least;
    }
    return kept;
}

/* By four interleaved sums: one alone would wait for each addition. */
static double sum_of(const float *weight, int64_t count)
{
    double sum[4] = { 0 };
    int64_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int k = 0; k < 4; k++) sum[k] += (double)weight[i + k];
    for (; i < count; i++) sum[0] += (double)weight[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Where the sum of weights passes the part `unit` of all of them. Blocks are summed first, so that few weights are looked at one by one. */
static int64_t pick(const float *weight, int64_t count, double unit)
{
    double total = 0, sum = 0;
    for (int64_t i = 0; i < count; i += BLOCK) total += sum_of(weight + i, count - i < BLOCK ? count - i : BLOCK);
    const double at = unit * total;
    int64_t last = -1;                 /* with a weight: sums in other orders may end a rounding short of `at` */
    for (int64_t i = 0; i < count; i += BLOCK) {
        const int64_t end = count - i < BLOCK ? count : i + BLOCK;
        const double block = sum_of(weight + i, end - i);
        if (sum + block <= at && end < count) {
            sum += block;
            continue;
        }
        for (int64_t k = i; k < end; k++) {
            if (weight[k] > 0) last = k;
            if ((sum += (double)weight[k]) > at) return last;
        }
    }
    for (int64_t k = count - 1; last < 0; k--)
        if (weight[k] > 0) last = k;
    return last;
}

int64_t hd_sampler_draw(hd_sampler *s, const hd_sampling *how, const float *logits, const int32_t *before, int64_t count, double unit)
{
    const float *row = penalise(s, how, logits, before, count), largest = find_best(s, row);
    if (isnan(largest)) return -1 - first_bad(logits);
    if (largest == -INFINITY) return -1;
    if (how->temperature == 0) {
        int64_t id = 0;
        while (s->best[id / BLOCK] != largest) id += BLOCK;
        while (row[id] != largest) id++;
        return id;
    }
    int64_t n = s->vocab;
    bool listed = how->top_k > 0 && how->top_k < n;          /* what stays is in s->kept; else it is all of the row */
    if (listed) {
        n = keep_top_k(s, row, how->top_k);
        for (int64_t i = 0; i < n; i++) s->row[i] = s->kept[i].logit;
        row = s->row;
    }
    weigh(row, s->weight, n, largest, how->temperature);
    if (how->top_p < 1 || how->min_p > 0) {
        const double total = how->top_p < 1 ? sum_of(s->weight, n) : 0, rest = how->top_p < 1 ? 0.999 * (1 - how->top_p) * total / (double)n : 0;
        const float least = (float)fmax(how->min_p, fmax(rest, FLT_MIN));         /* the likeliest weighs 1 */
        n = listed ? keep_likely(s, n, least) : find_likely(s, row, n, least, largest + how->temperature * (log((double)least) - 0.01));
        listed = true;
        if (how->top_p < 1) {
            memcpy(s->part, s->kept, (size_t)n * sizeof *s->part);
            n = keep(s->kept, n, find_cut(s->part, n, how->top_p * total));
        }
        for (int64_t i = 0; i < n; i++) s->weight[i] = s->kept[i].weight;
    }
    const int64_t at = pick(s->weight, n, unit);
    return listed ? s->kept[at].id : at;
}
