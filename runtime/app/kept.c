/* Keys of a query (kept.h). Formulas: hd_model.h, the same as those of the covers they come from. */
#include "kept.h"

#include <stdlib.h>

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t value(hd_affine a, const hd_family *f, int64_t group)
{
    int64_t outer = group / f->inner, at = a.base + a.per_group * (group % f->inner) + a.per_outer * outer;
    return a.table ? at + f->table[outer + a.table - 1] : at;
}

static uint64_t next(const unsigned char **at)
{
    uint64_t number = 0;
    for (int shift = 0;; shift += 7) {
        unsigned char byte = *(*at)++;
        number |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return number;
    }
}

static int64_t key(const hd_kept_run *r, int64_t u) { return r->start + r->step * (u / r->run) + u % r->run; }
static int64_t first_key(const hd_kept_run *r) { return key(r, r->first); }

bool hd_kept_known(const hd_pattern_info *pattern) { return pattern->families || pattern->rows; }

hd_kept hd_kept_new(const hd_pattern_info *pattern, int64_t rows)
{
    hd_kept kept = { .pattern = pattern, .rows = rows };
    if (pattern->rows) {
        const unsigned char *at = (const unsigned char *)pattern->rows;
        kept.row = hd_app_alloc((size_t)rows * sizeof *kept.row);
        for (int64_t i = 0; i < rows; i++) {
            kept.row[i] = at;
            for (uint64_t left = 2 * next(&at); left; left--) (void)next(&at);
        }
        return kept;
    }
    kept.group = hd_app_alloc((size_t)pattern->families * (size_t)rows * sizeof *kept.group);
    for (int k = 0; k < pattern->families; k++) {
        const hd_family *f = &pattern->family[k];
        int64_t *group = kept.group + k * rows;
        for (int64_t i = 0; i < rows; i++) group[i] = -1;
        for (int64_t g = 0; g < f->groups; g++)
            for (int64_t i = value(f->q_start, f, g), end = min64(value(f->q_end, f, g), rows); i < end; i += f->q_step) group[i] = g;
    }
    return kept;
}

void hd_kept_free(hd_kept *kept)
{
    free(kept->group);
    free(kept->row);
}

int64_t hd_kept_most_runs(const hd_kept *kept) { return kept->pattern->rows ? kept->pattern->keys : kept->pattern->families; }

int hd_kept_runs(const hd_kept *kept, int64_t query, hd_kept_run *run)
{
    const hd_pattern_info *p = kept->pattern;
    int runs = 0;
    if (p->rows) {
        const unsigned char *at = kept->row[query];
        int64_t end = 0;
        for (uint64_t left = next(&at); left; left--) {
            int64_t first = end + (int64_t)next(&at);
            end = first + (int64_t)next(&at);
            run[runs++] = (hd_kept_run){ 0, 1, 1, first, end };
        }
        return runs;
    }
    for (int k = 0; k < p->families; k++) {
        const hd_family *f = &p->family[k];
        int64_t g = kept->group[k * kept->rows + query];
        if (g < 0) continue;
        int64_t t = (query - value(f->q_start, f, g)) / f->q_step, start = value(f->k_start, f, g);
        int64_t span = min64(value(f->k_end, f, g), p->keys) - start;
        int64_t keys = span > 0 ? span / f->k_step * f->k_run + min64(span % f->k_step, f->k_run) : 0;
        int64_t first = max64(0, value(f->lo, f, g) + f->lo_mul * ((t + f->lo_phase) / f->lo_div));
        int64_t end = min64(keys, value(f->hi, f, g) + f->hi_mul * ((t + f->hi_phase) / f->hi_div));
        if (first >= end) continue;
        hd_kept_run found = { start, f->k_step, f->k_run, first, end };
        int at = runs++;
        for (; at > 0 && first_key(&run[at - 1]) > first_key(&found); at--) run[at] = run[at - 1];
        run[at] = found;
    }
    return runs;
}

static int by_key(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

int64_t hd_kept_keys(const hd_kept *kept, int64_t query, hd_kept_run *room, int32_t *keys)
{
    int runs = hd_kept_runs(kept, query, room);
    int64_t count = 0;
    bool ascending = true;
    for (int r = 0; r < runs; r++) {
        int64_t at = count ? keys[count - 1] : -1, within = room[r].first % room[r].run, start = room[r].start + room[r].first / room[r].run * room[r].step;
        ascending = ascending && start + within > at;
        for (int64_t left = room[r].end - room[r].first; left > 0; start += room[r].step, within = 0)
            for (; within < room[r].run && left > 0; within++, left--) keys[count++] = (int32_t)(start + within);
    }
    if (!ascending) qsort(keys, (size_t)count, sizeof *keys, by_key);
    return count;
}
