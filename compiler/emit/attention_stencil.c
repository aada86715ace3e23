/* Tables for templates/attention_stencil_*.c.tmpl: blocks of owners (queries; for dk and dv keys), and lists of the differences to
 * the partners that a block's lanes keep. attention_stencil.tmpl says what an entry, a kind, a chunk and the ring are.
 *
 * A block is qv vectors of neighbouring owners, `step` apart: on a grid the same columns of qv rows, which share most partners.
 * Steps are tried that make owners share most; steps and widths are compared by the estimated time of a sample of blocks. */
#include "attention_stencil.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 16, ENOUGH_SLOTS = 8,
       MAX_WIDTH = 4, MAX_STEPS = 4,         /* vectors of a block; steps that are tried */
       MAX_LIST = 768,                       /* entries of a list */
       MAX_TABLE = 100000,                   /* numbers in the tables of one side */
       MAX_MASKS = 4096,
       MAX_PAIRS = 1 << 24, MAX_RUNS = 1 << 22,
       SAMPLE = 256,                         /* blocks, about */
       CHUNK = 8 };                          /* vectors */

typedef struct entry { int32_t delta; uint16_t lanes[MAX_WIDTH]; } entry;
typedef struct list { int64_t first; int32_t start[2 * MAX_WIDTH]; bool cut; uint64_t hash; } list;
typedef struct block { int32_t first, width, list, chunks; } block;

/* Blocks and lists of one cover, from one side. */
typedef struct side {
    const hd_key_rows *rows;                  /* partners of each owner */
    int64_t owners, partners, step;
    int qv, vl;
    bool fits;                                /* the tables are small enough */
    int64_t blocks; block *block;
    int64_t lists, list_capacity; list *list;
    int64_t entries, entry_capacity; entry *entry;
    int64_t longest, ring, kept_ring;         /* chunks; kept_ring: in the order of work of attention_stencil_kept */
    int64_t chunks;                           /* of all partners */
    int32_t *low;                             /* [blocks]: the first chunk that this block and later ones need */
    double cost;
} side;

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

static void *get(int64_t count, size_t bytes)
{
    void *memory = calloc((size_t)count + 1, bytes);
    if (!memory) hd_fail((hd_where){ 0 }, "no memory for the tables of a pattern; use a shorter length");
    return memory;
}
static void *grow(void *memory, int64_t count, int64_t *capacity, size_t bytes)
{
    if (count < *capacity) return memory;
    *capacity = *capacity ? 2 * *capacity : 256;
    memory = realloc(memory, (size_t)*capacity * bytes);
    if (!memory) hd_fail((hd_where){ 0 }, "no memory for the tables of a pattern; use a shorter length");
    return memory;
}

/* The queries of every key. */
static const hd_key_rows *transpose(const hd_key_rows *rows, int64_t queries, int64_t keys)
{
    int64_t *runs = get(keys + 1, sizeof *runs), *last = get(keys, sizeof *last);
    hd_key_rows *t = HD_NEW(hd_key_rows);
    t->start = HD_NEW_ARRAY(int64_t, keys + 1);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t j = 0; j < keys; j++) last[j] = -2;
        for (int64_t i = 0; i < queries; i++)
            for (int64_t r = rows->start[i]; r < rows->start[i + 1]; r++)
                for (int64_t j = rows->run[r].first; j < rows->run[r].end; j++) {
                    if (last[j] != i - 1) runs[j]++;
                    last[j] = i;
                    if (pass) {
                        if (t->run[runs[j] - 1].first < 0) t->run[runs[j] - 1].first = i;
                        t->run[runs[j] - 1].end = i + 1;
                    }
                }
        if (pass) break;
        int64_t total = 0;
        for (int64_t j = 0; j < keys; j++) {
            t->start[j] = total;
            total += runs[j];
            runs[j] = t->start[j];
        }
        t->start[keys] = total;
        t->run = HD_NEW_ARRAY(hd_interval, total + 1);
        for (int64_t r = 0; r < total; r++) t->run[r].first = -1;
    }
    free(runs), free(last);
    return t;
}

static int by_value(const void *a, const void *b)
{
    const int32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* The kind of an entry: the first vectors, all, or the last ones; what is neither becomes the smaller that holds it. */
static int kind_of(const uint16_t *lanes, int qv)
{
    int low = 0, high = qv - 1;
    while (!lanes[low]) low++;
    while (!lanes[high]) high--;
    return high + 1 <= qv - low ? high : qv - 1 + low;
}

/* Cycles of one product of an entry of m vectors, for each element: multiply-adds, and a load that mostly crosses cache lines. */
static const double product_cycles[MAX_WIDTH + 1] = { 0, 1.15, 1.25, 1.70, 2.0 };

/* What lists are made with. */
typedef struct maker {
    uint16_t (*lanes)[MAX_WIDTH];             /* [partners + vl]: by position of lane 0, plus vl */
    int32_t *touched;
    int64_t *slot, slots;                     /* hash table of lists: index + 1 */
    entry *made;
} maker;

/* The entries of one block, by kind and position; their number. */
static int64_t make_entries(const side *s, maker *m, int64_t first, int64_t width, int32_t *start, bool *cut, int64_t *lowest, int64_t *highest)
{
    int64_t touched = 0;
    uint16_t valid[MAX_WIDTH];
    for (int c = 0; c < s->qv; c++) {
        const int64_t at = first + c * s->step, count = at < s->owners ? min64(width, s->owners - at) : 0;
        valid[c] = (uint16_t)((1u << count) - 1);
        for (int64_t l = 0; l < count; l++)
            for (int64_t r = s->rows->start[at + l]; r < s->rows->start[at + l + 1]; r++)
                for (int64_t j = s->rows->run[r].first; j < s->rows->run[r].end; j++) {
                    uint16_t *lanes = m->lanes[j - l + s->vl];
                    bool fresh = true;
                    for (int v = 0; v < s->qv; v++) if (lanes[v]) fresh = false;
                    if (fresh) m->touched[touched++] = (int32_t)(j - l);
                    lanes[c] |= (uint16_t)(1u << l);
                }
    }
    qsort(m->touched, (size_t)touched, sizeof *m->touched, by_value);
    *lowest = touched ? m->touched[0] : INT32_MAX;
    *highest = touched ? m->touched[touched - 1] + s->vl - 1 : -s->vl;
    *cut = false;
    int64_t n = 0;
    const uint16_t all = (uint16_t)((1u << s->vl) - 1);
    const int kinds = 2 * s->qv - 1;
    if (touched <= MAX_LIST)
        for (int kind = 0; kind < kinds; kind++) {
            start[kind] = (int32_t)n;
            for (int64_t t = 0; t < touched; t++) {
                const uint16_t *lanes = m->lanes[m->touched[t] + s->vl];
                if (kind_of(lanes, s->qv) != kind) continue;
                entry *e = &m->made[n++];
                memset(e, 0, sizeof *e);
                e->delta = (int32_t)(m->touched[t] - first);
                for (int c = 0; c < s->qv; c++) {
                    const bool holds = kind < s->qv ? c <= kind : c > kind - s->qv;
                    if (!holds) continue;
                    e->lanes[c] = lanes[c] == valid[c] ? all : lanes[c];        /* lanes without an owner may keep anything */
                    if (e->lanes[c] != all) *cut = true;
                }
            }
        }
    start[kinds] = (int32_t)n;
    for (int64_t t = 0; t < touched; t++) memset(m->lanes[m->touched[t] + s->vl], 0, sizeof *m->lanes);
    return touched <= MAX_LIST ? n : -1;
}

/* The list of these entries, found or added. */
static int64_t share_list(side *s, maker *m, int64_t n, const int32_t *start, bool cut)
{
    uint64_t hash = 1469598103934665603u;
    const unsigned char *bytes = (const unsigned char *)m->made;
    for (size_t i = 0; i < (size_t)n * sizeof *m->made; i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    for (int k = 0; k < 2 * s->qv; k++) hash = (hash ^ (uint64_t)start[k]) * 1099511628211u;
    uint64_t at = hash % (uint64_t)m->slots;
    for (; m->slot[at]; at = (at + 1) % (uint64_t)m->slots) {
        const list *l = &s->list[m->slot[at] - 1];
        if (l->hash == hash && l->start[2 * s->qv - 1] - l->start[0] == n && (n == 0 || !memcmp(&s->entry[l->first], m->made, (size_t)n * sizeof *m->made))) return m->slot[at] - 1;
    }
    s->list = grow(s->list, s->lists, &s->list_capacity, sizeof *s->list);
    list *l = &s->list[s->lists];
    *l = (list){ .first = s->entries, .cut = cut, .hash = hash };
    for (int k = 0; k < 2 * s->qv; k++) l->start[k] = (int32_t)s->entries + start[k];
    for (int64_t i = 0; i < n; i++) {
        s->entry = grow(s->entry, s->entries, &s->entry_capacity, sizeof *s->entry);
        s->entry[s->entries++] = m->made[i];
    }
    m->slot[at] = ++s->lists;
    return s->lists - 1;
}

/* Every `hop`th block; with hop 1, the tables too. The cost is that of all blocks, for `products` products and one exponential of
 * every pair; `tensors` of the owners are turned, and two of the partners. */
static void make_side(side *s, int64_t head_dim, int products, int tensors, int64_t hop)
{
    const int64_t per_row = (s->step + s->vl - 1) / s->vl, groups = (s->owners + s->qv * s->step - 1) / (s->qv * s->step);
    const int64_t chunk = (int64_t)CHUNK * s->vl, dv = (head_dim + s->vl - 1) / s->vl;
    maker m = { .slots = 4 * MAX_TABLE };
    m.lanes = get(s->partners + 2 * s->vl, sizeof *m.lanes);
    m.touched = get(s->partners + 2 * s->vl, sizeof *m.touched);
    m.made = get(MAX_LIST, sizeof *m.made);
    if (hop == 1) {
        m.slot = get(m.slots, sizeof *m.slot);
        s->block = get(groups * per_row, sizeof *s->block);
        s->low = get(groups * per_row, sizeof *s->low);
    }
    s->chunks = (s->partners + 2 * s->vl - 2) / chunk + 1;
    s->fits = true;
    int64_t needed = 0;
    for (int64_t g = 0; g < groups * per_row && s->fits; g += hop) {
        const int64_t first = g / per_row * s->qv * s->step + g % per_row * s->vl, width = min64(s->vl, s->step - g % per_row * s->vl);
        if (first >= s->owners) continue;
        int32_t start[2 * MAX_WIDTH];
        bool cut;
        int64_t lowest, highest, n = make_entries(s, &m, first, width, start, &cut, &lowest, &highest);
        if (n < 0) s->fits = false;
        if (n < 0) break;
        s->cost += 150 + 100.0 * tensors * (double)dv * s->qv;
        for (int k = 0; k < 2 * s->qv - 1; k++) {
            const int vectors = k < s->qv ? k + 1 : 2 * s->qv - 1 - k;
            s->cost += (start[k + 1] - start[k]) * (products * (double)head_dim * product_cycles[vectors] + 15.0 * vectors + 3 * products);
        }
        if (n > s->longest) s->longest = n;
        if (hop > 1) continue;
        const int64_t low = n ? (lowest + s->vl) / chunk : INT32_MAX, chunks = n ? (highest + s->vl) / chunk + 1 : 0;
        if (chunks > needed) needed = chunks;
        s->low[s->blocks] = (int32_t)low;
        s->block[s->blocks++] = (block){ (int32_t)first, (int32_t)width, (int32_t)share_list(s, &m, n, start, cut), (int32_t)needed };
        if (s->entries * (1 + s->qv) + s->blocks * 4 > MAX_TABLE) s->fits = false;
    }
    if (hop > 1) {
        s->cost *= (double)hop;
    } else {
        int64_t reach = 1;
        for (int64_t b = s->blocks - 1; b >= 0; b--) {
            if (b + 1 < s->blocks && s->low[b + 1] < s->low[b]) s->low[b] = s->low[b + 1];
            if (s->low[b] != INT32_MAX && s->block[b].chunks - s->low[b] > reach) reach = s->block[b].chunks - s->low[b];
        }
        s->ring = reach;
        if (s->longest < 1) s->longest = 1;
    }
    s->cost += 2.0 * 100 * (double)dv * (double)s->partners / s->vl;
    free(m.lanes), free(m.touched), free(m.made), free(m.slot);
}

static void free_side(side *s)
{
    free(s->block), free(s->list), free(s->entry), free(s->low);
}

/* How many partners owners `step` apart share, shifted by that much, over some owners. */
static int64_t shared_partners(const side *s, int64_t step)
{
    int64_t sum = 0;
    for (int64_t t = 1; t < 4; t++) {
        const int64_t i = (s->owners - step) * t / 4;
        const int64_t a_end = s->rows->start[i + 1], b_end = s->rows->start[i + step + 1];
        for (int64_t a = s->rows->start[i], b = s->rows->start[i + step]; a < a_end && b < b_end; ) {
            const hd_interval x = s->rows->run[a], y = s->rows->run[b];
            const int64_t low = x.first > y.first ? x.first : y.first, high = min64(x.end, y.end);
            if (high > low) sum += high - low;
            if (x.end < y.end) a++; else b++;
        }
    }
    return sum;
}

/* Steps worth trying: neighbouring vectors, and those that share most. Their number. */
static int choose_steps(const side *s, int64_t *step)
{
    int64_t shared[MAX_STEPS] = { 0 };
    int count = 1;
    step[0] = s->vl;
    for (int64_t p = s->vl + 1; p < s->owners && p <= 8192; p++) {
        const int64_t sum = shared_partners(s, p);
        int at = count;
        while (at > 1 && shared[at - 1] < sum) at--;
        if (!sum || at >= MAX_STEPS) continue;
        if (count < MAX_STEPS) count++;
        for (int k = count - 1; k > at; k--) step[k] = step[k - 1], shared[k] = shared[k - 1];
        step[at] = p, shared[at] = sum;
    }
    return count;
}

/* All that the kernels of an attention need: a side for each cover, or two, made with the width and the steps of least cost. */
typedef struct choice { int qv, sides; side *side; double cost; } choice;

static bool choose(const hd_attention *a, const hd_target *target, bool backward, choice *out)
{
    if (a->softcap || a->alibi || a->buckets || (a->with & ~(unsigned)HD_WITH_SINKS) || a->queries > INT32_MAX / 2 || a->keys > INT32_MAX / 2) return false;
    const int vl = target->vl, per_cover = backward ? 2 : 1;
    for (int c = 0; c < a->covers; c++) {
        const hd_cover *cover = a->cover[c];
        if (cover->kept_pairs > MAX_PAIRS) return false;
        int64_t runs = 0;
        for (int f = 0; f < cover->families && !cover->rows; f++) runs += cover->family[f].k_step == 1 ? cover->queries : cover->family[f].kept_pairs / cover->family[f].k_run;
        if (runs > MAX_RUNS || cover->kept_pairs > MAX_LIST * cover->queries) return false;
    }
    choice best = { .sides = a->covers * per_cover };
    best.side = HD_NEW_ARRAY(side, best.sides);
    for (int i = 0; i < best.sides; i++) {
        side *s = &best.side[i];
        const hd_cover *cover = a->cover[i / per_cover];
        const hd_key_rows *rows = cover->rows ? cover->rows : hd_cover_rows(cover);
        *s = (side){ .rows = rows, .owners = cover->queries, .partners = cover->keys, .vl = vl };
        if (i % per_cover) *s = (side){ .rows = transpose(rows, cover->queries, cover->keys), .owners = cover->keys, .partners = cover->queries, .vl = vl };
    }
    int64_t *steps = HD_NEW_ARRAY(int64_t, best.sides * (MAX_WIDTH + 1));
    double least = 0;
    for (int qv = 1; qv <= MAX_WIDTH; qv++) {
        double cost = 0;
        bool fits = true;
        for (int i = 0; i < best.sides && fits; i++) {
            int64_t tried[MAX_STEPS];
            double side_cost = -1;
            const int count = qv == 1 ? 1 : choose_steps(&best.side[i], tried);
            if (qv == 1) tried[0] = vl;
            for (int k = 0; k < count; k++) {
                side s = best.side[i];
                s.qv = qv, s.step = tried[k];
                const int64_t blocks = (s.owners + qv * vl - 1) / (qv * vl), hop = blocks > 2 * SAMPLE ? (blocks / SAMPLE) | 1 : 1;
                make_side(&s, a->head_dim, backward ? 3 + i % 2 : 2, backward ? 3 + i % 2 : 2, hop);
                if (s.fits && (side_cost < 0 || s.cost < side_cost)) side_cost = s.cost, steps[i * (MAX_WIDTH + 1) + qv] = tried[k];
                free_side(&s);
            }
            if (side_cost < 0) fits = false;
            cost += side_cost;
        }
        if (fits && (!best.qv || cost < 0.97 * least)) best.qv = qv, least = cost;
    }
    if (!best.qv) return false;
    bool fits = true;
    for (int i = 0; i < best.sides; i++) {
        side *s = &best.side[i];
        s->qv = best.qv, s->step = steps[i * (MAX_WIDTH + 1) + best.qv];
        make_side(s, a->head_dim, backward ? 3 + i % 2 : 2, backward ? 3 + i % 2 : 2, 1);
        best.cost += s->cost;
        fits = fits && s->fits && s->ring * CHUNK * vl * 9 / 8 * (round_up(a->head_dim, vl) + 2) < INT32_MAX / 4;
    }
    if (fits) *out = best;
    else for (int i = 0; i < best.sides; i++) free_side(&best.side[i]);
    return fits;
}

/* Cycles were counted as if all that is read lay in the first cache. The factors are from the 7 x 7 neighbourhood on a 64 x 64 grid, measured
 * beside attention_rows: 2.2 times as fast forward, 1.5 times backward. */
double hd_attention_stencil_cost(const hd_attention *a, const hd_target *target, bool backward)
{
    choice chosen;
    if (!choose(a, target, backward, &chosen)) return -1;
    for (int i = 0; i < chosen.sides; i++) free_side(&chosen.side[i]);
    return (backward ? 1.75 / 2.5 : 1.4) * chosen.cost;
}

/* Index of a lane mask among those listed so far. */
typedef struct mask_set { int count; uint16_t lanes[MAX_MASKS]; } mask_set;
static int mask_index(mask_set *set, uint16_t lanes)
{
    for (int i = 0; i < set->count; i++) if (set->lanes[i] == lanes) return i;
    if (set->count == MAX_MASKS) hd_fail((hd_where){ 0 }, "a pattern needs more than %d masks of lanes", MAX_MASKS);
    set->lanes[set->count] = lanes;
    return set->count++;
}

/* Entries of the largest register tile of scores for m vectors: accumulators, and a pointer for each. */
static int largest_tile(const hd_target *target, int m)
{
    const int budget = target->registers >= 32 ? 24 : 12;
    return budget / m < 10 ? budget / m : 10;
}

/* The register tiles that lists need, as the template cuts them: large ones, the last two of a kind alike. */
static void add_tiles(hd_text *text, const choice *chosen, const hd_target *target)
{
    bool used[MAX_WIDTH + 1][16] = { { false } };
    for (int i = 0; i < chosen->sides; i++) {
        const side *s = &chosen->side[i];
        for (int64_t l = 0; l < s->lists; l++)
            for (int k = 0; k < 2 * s->qv - 1; k++) {
                const int m = k < s->qv ? k + 1 : 2 * s->qv - 1 - k, most = largest_tile(target, m);
                for (int left = s->list[l].start[k + 1] - s->list[l].start[k], n; left > 0; left -= n) {
                    n = left >= 2 * most ? most : left > most ? (left + 1) / 2 : left;
                    used[m][n] = true;
                }
            }
    }
    hd_text_add(text, "tiles = { ");
    for (int m = 1; m <= chosen->qv; m++) {
        hd_text_add(text, "{ most = %d, ", largest_tile(target, m));
        for (int n = 1; n < 16; n++) if (used[m][n]) hd_text_add(text, "%d, ", n);
        hd_text_add(text, "}, ");
    }
    hd_text_add(text, "},\n");
}

/* What the backward kernel needs to let keys find p and ds as queries left them (attention_stencil_kept.tmpl): a row for every
 * difference query - key, and a ring of chunks of queries. */
typedef uint16_t vector_rows[MAX_WIDTH];      /* of an entry */
typedef struct kept { bool use; int64_t rows, ring; vector_rows **row; } kept_plan;

static bool holds(int kind, int qv, int c) { return kind < qv ? c <= kind : c > kind - qv; }

/* Calls for each vector of each entry of a side: the pair's difference, and where its row is written. */
static int64_t each_difference(const side *s, bool by_key, int32_t *all, const int32_t *sorted, int64_t count, vector_rows *row)
{
    int64_t n = 0;
    for (int64_t l = 0; l < s->lists; l++)
        for (int kind = 0; kind < 2 * s->qv - 1; kind++)
            for (int64_t e = s->list[l].start[kind]; e < s->list[l].start[kind + 1]; e++)
                for (int c = 0; c < s->qv; c++) {
                    if (!holds(kind, s->qv, c)) continue;
                    const int64_t own = c * s->step, difference = by_key ? s->entry[e].delta - own : own - s->entry[e].delta;
                    const int32_t value = (int32_t)difference;
                    if (all) all[n++] = value;
                    else row[e][c] = (uint16_t)((const int32_t *)bsearch(&value, sorted, (size_t)count, sizeof value, by_value) - sorted);
                }
    return n;
}

/* Chunks of queries alive at once when blocks of keys follow blocks of queries as in the template. */
static int64_t kept_reach(const side *q, const side *k)
{
    const int64_t chunk = (int64_t)CHUNK * q->vl;
    int64_t reach = 1, turned = 0, b = 0;
    for (int64_t kb = 0; kb < k->blocks; kb++) {
        const int64_t bound = k->block[kb].chunks * chunk - k->vl;
        for (;; b++) {
            const int64_t own = b < q->blocks ? (q->block[b].first + q->vl) / chunk : INT32_MAX, low = min64(own, k->low[kb]);
            if (b == q->blocks || (q->block[b].first >= bound && kb < k->blocks - 1)) {
                if (k->block[kb].chunks > turned) turned = k->block[kb].chunks;
                if (low != INT32_MAX && turned - low > reach) reach = turned - low;
                break;
            }
            const int64_t last = min64(q->block[b].first + (q->qv - 1) * q->step + q->vl - 1, q->owners - 1), needed = (last + q->vl) / chunk + 1;
            if (needed > turned) turned = needed;
            if (turned - low > reach) reach = turned - low;
        }
    }
    return reach;
}

static kept_plan plan_kept(choice *chosen, const hd_target *target, int parts)
{
    kept_plan k = { .use = parts == 1, .row = HD_NEW_ARRAY(vector_rows *, chosen->sides) };
    for (int i = 0; i < chosen->sides; i += 2) {
        side *q = &chosen->side[i], *by_key = q + 1;
        int32_t *all = get(MAX_WIDTH * (q->entries + by_key->entries), sizeof *all);
        int64_t n = each_difference(q, false, all, NULL, 0, NULL), count = 0;
        n += each_difference(by_key, true, all + n, NULL, 0, NULL);
        qsort(all, (size_t)n, sizeof *all, by_value);
        for (int64_t j = 0; j < n; j++) if (!count || all[count - 1] != all[j]) all[count++] = all[j];
        for (int d = 0; d < 2; d++) {
            k.row[i + d] = hd_alloc((size_t)(q[d].entries + 1) * sizeof **k.row);
            memset(k.row[i + d], 0, (size_t)(q[d].entries + 1) * sizeof **k.row);
            each_difference(&q[d], d, NULL, all, count, k.row[i + d]);
        }
        free(all);
        if (count > k.rows) k.rows = count;
        by_key->kept_ring = kept_reach(q, by_key);
        if (by_key->kept_ring > k.ring) k.ring = by_key->kept_ring;
        if (q->step % q->vl || count >= UINT16_MAX) k.use = false;
    }
    if (k.rows < 1) k.rows = 1;
    /* of the rows of a chunk, a block's list touches a part */
    if (k.ring * 2 * k.rows * (CHUNK + 1) * target->vl * 4 > 3 * target->l2) k.use = false;
    for (int i = 1; i < chosen->sides && k.use; i += 2) chosen->side[i].ring = chosen->side[i].kept_ring;
    return k;
}

/* Blocks and chunks where parts of equal work begin. */
static void add_cuts(hd_text *text, const side *s, int parts)
{
    double total = 0, sum = 0;
    for (int pass = 0, next = 0; pass < 2; pass++)
        for (int64_t b = 0; b < s->blocks; b++) {
            for (; pass && next < parts && sum >= total * next / parts; next++) hd_text_add(text, "{%" PRId64 ",%" PRId32 "},", b, s->low[b] == INT32_MAX ? s->block[b].chunks : s->low[b]);
            const list *l = &s->list[s->block[b].list];
            *(pass ? &sum : &total) += 8 + l->start[2 * s->qv - 1] - l->start[0];
            if (pass && b == s->blocks - 1) for (; next <= parts; next++) hd_text_add(text, "{%" PRId64 ",0},", s->blocks);
        }
}

static void add_side(hd_text *text, const side *s, mask_set *masks, vector_rows *row, int parts)
{
    hd_text_add(text, "{ blocks = %" PRId64 ", lists = %" PRId64 ", entries = %" PRId64 ", step = %" PRId64 ", ring = %" PRId64 ",\nblock = [[",
                s->blocks, s->lists, s->entries + !s->entries, s->step, s->ring);
    for (int64_t b = 0; b < s->blocks; b++)
        hd_text_add(text, "{%d,%d,%d,%d},%s", s->block[b].first, s->block[b].width, s->block[b].list, s->block[b].chunks, b % 12 == 11 ? "\n    " : "");
    hd_text_add(text, "]],\nlist = [[");
    for (int64_t l = 0; l < s->lists; l++) {
        hd_text_add(text, "{");
        for (int k = 0; k < 2 * s->qv; k++) hd_text_add(text, "%d,", s->list[l].start[k]);
        hd_text_add(text, "%d},%s", s->list[l].cut, l % 8 == 7 ? "\n    " : "");
    }
    hd_text_add(text, "]],\ndelta = [[");
    for (int64_t e = 0; e < s->entries; e++) hd_text_add(text, "%d,%s", s->entry[e].delta, e % 32 == 31 ? "\n    " : "");
    hd_text_add(text, "%s]],\nmask = [[", s->entries ? "" : "0");
    for (int64_t e = 0; e < s->entries; e++) {
        hd_text_add(text, "{");
        for (int c = 0; c < s->qv; c++) hd_text_add(text, "%d,", mask_index(masks, s->entry[e].lanes[c]));
        hd_text_add(text, "},%s", e % 16 == 15 ? "\n    " : "");
    }
    hd_text_add(text, "%s]],\n", s->entries ? "" : "{0}");
    if (row) {
        hd_text_add(text, "row = [[");
        for (int64_t e = 0; e < s->entries; e++) {
            hd_text_add(text, "{");
            for (int c = 0; c < s->qv; c++) hd_text_add(text, "%d,", row[e][c]);
            hd_text_add(text, "},%s", e % 16 == 15 ? "\n    " : "");
        }
        hd_text_add(text, "%s]],\n", s->entries ? "" : "{0}");
    }
    hd_text_add(text, "cut = [[");
    add_cuts(text, s, parts);
    hd_text_add(text, "]] },\n");
}

hd_attention_plan hd_attention_stencil(const hd_attention *a, const hd_target *target, bool backward)
{
    const int vl = target->vl;
    const int64_t owners = backward ? a->batch * a->kv_heads : a->batch * a->heads, dp = round_up(a->head_dim, vl);
    const int parts = owners >= ENOUGH_SLOTS ? 1 : PARTS;
    choice chosen;
    if (!choose(a, target, backward, &chosen)) hd_fail((hd_where){ 0 }, "a pattern has too many differences for stencil kernels");

    hd_text text = { 0 }, tiles = { 0 };
    hd_attention_parameters(&text, a, target, backward);
    hd_text_add(&text, "\nqv = %d, parts = %d, sides = {\n", chosen.qv, parts);
    kept_plan kept = { 0 };
    if (backward) kept = plan_kept(&chosen, target, parts);
    add_tiles(&tiles, &chosen, target);
    mask_set *masks = HD_NEW(mask_set);
    masks->count = 0;
    int64_t longest = 1, ring = 1;
    for (int i = 0; i < chosen.sides; i++) {
        side *s = &chosen.side[i];
        add_side(&text, s, masks, kept.use ? kept.row[i] : NULL, parts);
        if (s->longest > longest) longest = s->longest;
        if ((!kept.use || i % 2 == 0) && s->ring > ring) ring = s->ring;
        free_side(s);
    }
    if (!masks->count) mask_index(masks, 0);
    hd_text_add(&text, "},\n%smask_count = %d, masks = [[", tiles.data, masks->count);
    for (int i = 0; i < masks->count; i++) {
        hd_text_add(&text, "{");
        for (int l = 0; l < vl; l++) hd_text_add(&text, "%d,", -(masks->lanes[i] >> l & 1));
        hd_text_add(&text, "},%s", i % 4 == 3 ? "\n    " : "");
    }
    hd_text_add(&text, "]],\nhead_table = { ");
    double pairs = 0;
    for (int64_t h = 0; h < a->heads; h++) {
        const int c = a->cover_of_head ? a->cover_of_head[h] : 0;
        hd_text_add(&text, "%d, ", c + 1);
        pairs += (double)a->cover[c]->kept_pairs * (double)a->batch;
    }

    /* The structs of the templates, in bytes, padded to 64. */
    const int64_t nq = (int64_t)chosen.qv * vl, width = (int64_t)(CHUNK + 1) * vl;
    const int64_t kept_floats = 4 * dp * nq + 2 * longest * nq + 2 * nq + 2 * (ring + kept.ring) * dp * width + kept.ring * 2 * kept.rows * width + 2 * round_up(longest, 16);
    const int64_t floats = kept.use ? kept_floats : backward ? 6 * dp * nq + 2 * longest * nq + 3 * nq + 2 * ring * (dp + 2) * width + round_up(longest, 16)
                                    : 2 * dp * nq + longest * nq + 2 * nq + 2 * ring * dp * width + round_up(longest, 16);
    const int64_t local_bytes = round_up(4 * floats + 8 * (8 * nq * ((4 * a->head_dim + 63) / 64) + 2 * a->head_dim) + 256, 64);
    if (backward) hd_text_add(&text, "},\nkept = %s", kept.use ? hd_format("{ rows = %" PRId64 ", ring = %" PRId64, kept.rows, kept.ring) : "false");
    hd_text_add(&text, "%s,\nlongest = %" PRId64 ", chunk = %d, ring = %" PRId64 ", local_bytes = %" PRId64, !backward || kept.use ? "}" : "", longest, CHUNK * vl, ring, local_bytes);

    hd_attention_plan plan = { .phases = 1, .phase = HD_NEW(hd_attention_phase), .useful_flops = (backward ? 10 : 4) * (double)a->head_dim * pairs };
    plan.signature = hd_attention_signature(a, backward);
    *plan.phase = (hd_attention_phase){
        .template_name = backward ? "attention_stencil_bwd" : "attention_stencil_fwd",
        .coordinates = hd_format("b%" PRId64 "h%" PRId64 "d%" PRId64 "n%" PRId64, a->batch, a->heads, a->head_dim, a->queries),
        .parameters = text.data, .local_bytes = local_bytes,
        .slots = parts == 1 ? owners : backward ? a->batch * (a->heads + a->kv_heads) * parts : owners * parts };
    return plan;
}
