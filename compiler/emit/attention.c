/* The analytical choice of kernels, block sizes and parts for attention, and their template parameters.
 *
 * A block holds `qv` vectors of queries. Wider blocks reuse each broadcast key more often. Keys that only some vectors of a
 * block reach meet those alone, one vector at a time and slower: a family of short rows or narrow windows wants narrow
 * blocks. Both are counted exactly on a sample of groups: vectors * keys over the speed at which they pass. */
#include "attention_edges.h"
#include "attention_stencil.h"

#include <inttypes.h>
#include <math.h>

enum { PARTS = 16,               /* of one head, where heads alone are too few slots */
       ENOUGH_SLOTS = 8,         /* slots that balance over a few threads without cutting heads */
       MAX_DIAGONALS = 64,       /* more are faster as tiles, whose keys are reused by many queries */
       MAX_WIDTH = 3, MAX_ROWS_WIDTH = 4, SAMPLE_BLOCKS = 64, CHUNK = 48, MAX_CHUNK = 192,
       MAX_LISTED_PAIRS = 1 << 20, MAX_LISTED_KEYS = 96 };      /* of tile covers that other kernels might do faster: in all, and of a query on average */
static const double BACKWARD_WORK = 2.5,      /* of the forward pass: 5 products for 2 */
                    CLEARLY = 0.85,           /* estimates err by so much */
                    PARTS_WORK = 1.45,        /* of backward in parts: those of keys make scores again that those of queries have made */
                    FORWARD_ROW[2] = { 4, 9.5 }, BACKWARD_ROW[2] = { 7, 28 };      /* cycles for each element of a query beside its pairs (loaded, stored, merged): rows side by side, far apart */

/* Share of the FMA peak that the inner loops reach on full tiles, by block width (one vector needs a load for every FMA), and
 * on the few keys of a single vector of a wider block. */
static const double speed[MAX_WIDTH + 1] = { 0, 0.58, 0.74, 0.88 }, speed_alone = 0.62;

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

/* Relative time of a family in blocks of qv vectors of vl queries, over a sample. trim: vectors meet only the keys they need. */
static double family_time(const hd_cover *cover, const hd_family *f, int qv, int64_t vl, bool trim)
{
    double total = 0;
    int64_t step = f->groups / SAMPLE_BLOCKS + 1;
    for (int64_t g = 0; g < f->groups; g += step) {
        hd_group group = hd_family_group(cover, f, g);
        int64_t blocks = (group.q_count + qv * vl - 1) / (qv * vl), hop = blocks / SAMPLE_BLOCKS + 1;
        for (int64_t b = 0; b < blocks; b += hop) {
            int64_t vectors = 0, common_first = 0, common_last = INT64_MAX, any_first = INT64_MAX, any_last = 0;      /* sum of the keys of each vector; the keys of all */
            for (int64_t c = 0; c < qv; c++) {
                int64_t first, last, unused, t = min64((b * qv + c) * vl, group.q_count - 1), end = min64(t + vl, group.q_count);
                hd_group_interval(f, &group, t, &first, &unused);
                hd_group_interval(f, &group, end - 1, &unused, &last);
                if (last > first) vectors += last - first;
                if (first > common_first) common_first = first;
                if (last < common_last) common_last = last;
                if (first < any_first) any_first = first;
                if (last > any_last) any_last = last;
            }
            if (!trim) common_first = any_first, common_last = any_last;
            const int64_t common = common_last > common_first ? qv * (common_last - common_first) : 0;
            /* opening and closing a block costs about as much as 4 keys */
            total += (double)hop * ((double)(common + 4 * qv) / speed[qv] + (double)(vectors > common ? vectors - common : 0) / (qv == 1 ? speed[1] : speed_alone));
        }
    }
    return total;
}

/* Cycles of a head in a family, for predictions: its pairs, and what its queries cost whatever they meet. */
static double family_cycles(const hd_attention *a, const hd_cover *cover, const hd_family *f, int qv, int64_t vl, bool backward)
{
    double queries = 0;
    const int64_t step = f->groups / SAMPLE_BLOCKS + 1;
    for (int64_t g = 0; g < f->groups; g += step) queries += (double)(step * hd_family_group(cover, f, g).q_count);
    return family_time(cover, f, qv, vl, true) * (double)(a->head_dim + 12) * (backward ? BACKWARD_WORK : 1)
         + queries * (double)a->head_dim * (backward ? BACKWARD_ROW : FORWARD_ROW)[f->q_step > 1];
}

/* Widths of the blocks of every family, [cover][family]: one width for all, since each width is another copy of the inner
 * loops to compile, unless widths of their own make families faster by a quarter. */
static int **choose_widths(const hd_attention *a, const hd_target *target)
{
    int **width = HD_NEW_ARRAY(int *, a->covers);
    double total[MAX_WIDTH + 1] = { 0 }, own = 0;
    for (int c = 0; c < a->covers; c++) {
        const hd_cover *cover = a->cover[c];
        width[c] = HD_NEW_ARRAY(int, cover->families);
        for (int f = 0; f < cover->families; f++) {
            double best = 0;
            for (int qv = 1; qv <= MAX_WIDTH; qv++) {
                double cost = family_time(cover, &cover->family[f], qv, target->vl, true);
                total[qv] += cost;
                if (qv == 1 || cost < best) best = cost, width[c][f] = qv;
            }
            own += best;
        }
    }
    int common = 1;
    for (int qv = 2; qv <= MAX_WIDTH; qv++) if (total[qv] < total[common]) common = qv;
    if (a->choice.width) common = a->choice.width;
    else if (own < 0.8 * total[common]) return width;
    for (int c = 0; c < a->covers; c++) for (int f = 0; f < a->cover[c]->families; f++) width[c][f] = common;
    return width;
}

/* Groups of a family whose rows are copied to scratch together: those that begin at neighbouring positions are too many rows
 * apart to be read at the speed of memory one by one. As many as leave half the second cache to the rest. */
typedef struct panels { int64_t groups, queries, keys, floats; } panels;

static panels choose_panels(const hd_attention *a, const hd_cover *cover, const hd_family *f, const hd_target *target, int64_t dp, bool backward)
{
    panels p = { 1, 0, 0, 0 };
    if (f->groups < 2 || f->inner != f->groups || f->k_run != 1 || f->q_start.per_group != 1 || f->k_start.per_group != 1 || f->q_end.per_group || f->k_end.per_group) return p;
    if (a->q.row != dp || a->k.row != dp || a->v.row != dp || f->q_step < 2 || f->k_step < 2) return p;
    for (int64_t g = 0; g < f->groups; g++) {
        hd_group group = hd_family_group(cover, f, g);
        if (group.q_count > p.queries) p.queries = group.q_count;
        if (group.k_count > p.keys) p.keys = group.k_count;
    }
    const int64_t group_floats = ((backward ? 3 : 1) * p.queries + 2 * p.keys) * dp;
    for (int64_t groups = 16; groups > 1; groups /= 2) {
        if (4 * groups * group_floats > target->l2 * 5 / 8 || groups > f->groups) continue;
        p.groups = groups, p.floats = groups * group_floats;
        break;
    }
    return p;
}

/* Where parts of equal kept pairs begin, by queries or by keys: { group, index } of parts + 1 places. Families of many groups
 * are cut between groups. Time follows queries + keys. */
static void add_cuts(hd_text *text, const char *field, const hd_cover *cover, const hd_family *f, int parts, int64_t multiple, bool by_keys)
{
    bool whole_groups = f->groups >= 4 * parts;
    int64_t next = 1;
    double sum = 0;
    hd_text_add(text, "%s = { { 0, 0 }", field);
    for (int64_t g = 0; g < f->groups; g++) {
        hd_group group = hd_family_group(cover, f, g);
        int64_t count = by_keys ? group.k_count : group.q_count;
        for (int64_t t = 0; t < count; t++) {
            int64_t first, last;
            if (by_keys) hd_group_column(f, &group, t, &first, &last);
            else hd_group_interval(f, &group, t, &first, &last);
            /* the sum passes several marks at once only where rows are longer than parts: those parts are empty */
            if (!whole_groups && t % multiple == 0)
                for (; next < parts && sum >= (double)f->kept_pairs * (double)next / parts; next++)
                    hd_text_add(text, ", { %" PRId64 ", %" PRId64 " }", g, t);
            if (last > first) sum += (double)(last - first);
        }
        if (whole_groups)
            for (; next < parts && sum >= (double)f->kept_pairs * (double)next / parts; next++) hd_text_add(text, ", { %" PRId64 ", 0 }", g + 1);
    }
    for (; next <= parts; next++) hd_text_add(text, ", { %" PRId64 ", 0 }", f->groups);
    hd_text_add(text, " }, ");
}

static void add_affine(hd_text *text, const char *field, hd_affine a)
{
    hd_text_add(text, "%s = { %" PRId64 ", %" PRId64 ", %" PRId64 ", table = %d }, ", field, a.base, a.per_group, a.per_outer, a.table);
}

static void add_family(hd_text *text, const hd_cover *cover, const hd_family *f, const hd_target *target, int qv, const panels *panel, int parts, bool backward)
{
    hd_text_add(text, "{ what = %s, qv = %d, groups = %" PRId64 ", inner = %" PRId64 ", ", hd_format("\"%s\"", f->what ? f->what : "pairs"), qv, f->groups, f->inner);
    add_affine(text, "q_start", f->q_start);
    add_affine(text, "q_end", f->q_end);
    add_affine(text, "k_start", f->k_start);
    add_affine(text, "k_end", f->k_end);
    add_affine(text, "lo", f->lo);
    add_affine(text, "hi", f->hi);
    hd_text_add(text, "q_step = %" PRId64 ", k_step = %" PRId64 ", k_run = %" PRId64 ", ", f->q_step, f->k_step, f->k_run);
    hd_text_add(text, "lo_mul = %" PRId64 ", lo_div = %" PRId64 ", lo_phase = %" PRId64 ", hi_mul = %" PRId64 ", hi_div = %" PRId64 ", hi_phase = %" PRId64 ", ",
                f->lo_mul, f->lo_div, f->lo_phase, f->hi_mul, f->hi_div, f->hi_phase);
    /* another copy of the inner loops, for single vectors, has to be worth its compilation */
    const bool trim = qv > 1 && family_time(cover, f, qv, target->vl, true) < 0.98 * family_time(cover, f, qv, target->vl, false);
    hd_text_add(text, "trim = %s, ", trim ? "true" : "false");
    hd_text_add(text, "whole_groups = %s, batch = %" PRId64 ", panel_queries = %" PRId64 ", panel_keys = %" PRId64 ", ", f->groups >= 4 * parts ? "true" : "false", panel->groups, panel->queries, panel->keys);
    if (f->table) {
        hd_text_add(text, "table = [[");
        for (int64_t h = 0; h <= f->groups / f->inner; h++) hd_text_add(text, "%" PRId64 ",%s", f->table[h], h % 24 == 23 ? "\n    " : " ");
        hd_text_add(text, "]], ");
    }
    if (parts > 1) {
        add_cuts(text, "cuts", cover, f, parts, (int64_t)qv * target->vl, false);
        if (backward) add_cuts(text, "key_cuts", cover, f, parts, 16, true);
    }
    hd_text_add(text, "},\n");
}

/* Whether family f lists every query. */
static bool complete(const hd_cover *cover, const hd_family *f)
{
    int64_t rows = 0;
    for (int64_t g = 0; g < f->groups; g++) rows += hd_family_group(cover, f, g).q_count;
    return rows == cover->queries;
}

/* Whether family f of a cover is a progression of differences i - j over all queries and keys there are, so that the home
 * family's blocks, whose queries must be 0, 1, 2, ..., can take it along as diagonals: lane by lane, with no block of its own. */
typedef struct diagonals { int64_t first, step, count; } diagonals;

static bool is_diagonals(const hd_cover *cover, const hd_family *f, diagonals *d)
{
    const hd_family *home = &cover->family[0];
    if (home->groups != 1 || home->q_start.base != 0 || home->q_step != 1 || hd_family_group(cover, home, 0).q_count != cover->queries) return false;
    if (f->groups != f->q_step || f->groups != f->k_step || f->inner != f->groups || f->k_run != 1) return false;
    if (f->q_start.per_group != 1 || f->k_start.per_group != 1 || f->q_end.per_group || f->k_end.per_group || f->lo.per_group || f->hi.per_group) return false;
    if (f->lo_div != 1 || f->hi_div != 1 || f->lo_phase || f->hi_phase || f->lo_mul > 1 || f->hi_mul > 1) return false;
    if ((!f->lo_mul && f->lo.base > 0) || (!f->hi_mul && f->hi.base < cover->keys)) return false;
    /* query q + step t, key k + step u, lo + t <= u < hi + t: differences q - k + step (t - u) with -hi < t - u <= -lo */
    const int64_t offset = f->q_start.base - f->k_start.base, step = f->q_step;
    int64_t least = f->hi_mul ? 1 - f->hi.base : -((cover->keys + offset) / step) - 1, most = f->lo_mul ? -f->lo.base : (cover->queries - offset) / step + 1;
    while (least <= most && offset + step * least <= -cover->keys) least++;
    while (least <= most && offset + step * most >= cover->queries) most--;
    if (least > most) return false;
    *d = (diagonals){ offset + step * least, step, most - least + 1 };
    /* The bounds of the family must be those of the tensors, for every difference: a lane without a key has none at all. */
    if (f->k_start.base != 0 && !(f->q_start.base == 0 && d->first + step * (d->count - 1) <= -f->k_start.base)) return false;
    if (f->k_start.base == 0 && f->q_start.base > d->first && f->q_start.base != 0) return false;
    const int64_t last = d->first + step * (d->count - 1);
    if (f->q_end.base < cover->queries && f->q_end.base < cover->keys + d->first) return false;
    if (f->k_end.base < cover->keys && f->k_end.base + d->first < cover->queries) return false;
    return last >= d->first;
}

static void add_strides(hd_text *text, const char *field, hd_attention_strides s)
{
    hd_text_add(text, "%s = { %" PRId64 ", %" PRId64 ", %" PRId64 " }, ", field, s.batch, s.head, s.row);
}

bool hd_attention_has_terms(const hd_attention *a)
{
    return a->softcap != 0 || a->alibi || a->with & (HD_WITH_BIAS | HD_WITH_KEY_BIAS);
}

void hd_attention_parameters(hd_text *text, const hd_attention *a, const hd_target *target, bool backward)
{
    static const struct { unsigned bit; const char *name; } extra[] = {
        { HD_WITH_SINKS, "sinks" }, { HD_WITH_BIAS, "bias" }, { HD_WITH_KEY_BIAS, "key_bias" }, { HD_WITH_EDGE_BIAS, "edge_bias" }, { HD_WITH_BOUNDS, "bounds" } };
    hd_text_add(text, "registers = %d, batch = %" PRId64 ", heads = %" PRId64 ", kv_heads = %" PRId64 ", head_dim = %" PRId64 ", queries = %" PRId64 ", keys = %" PRId64 ", scale = %.17g,\n",
                target->registers, a->batch, a->heads, a->kv_heads, a->head_dim, a->queries, a->keys, a->scale);
    hd_text_add(text, "with = { ");
    for (unsigned i = 0; i < sizeof extra / sizeof *extra; i++) hd_text_add(text, "%s = %s, ", extra[i].name, a->with & extra[i].bit ? "true" : "false");
    hd_text_add(text, "}, softcap = %.17g, offset = %" PRId64 ", key_bias_stride = %" PRId64 ", edge_bias_stride = %" PRId64 ", edges = %" PRId64 ", alibi = ",
                a->softcap, a->offset, a->key_bias_stride, a->edge_bias_stride, a->edges);
    if (a->alibi) {
        hd_text_add(text, "{ ");
        for (int64_t h = 0; h < a->heads; h++) hd_text_add(text, "%.17g, ", a->alibi[h]);
        hd_text_add(text, "}, ");
    } else {
        hd_text_add(text, "false, ");
    }
    if (a->with & HD_WITH_BIAS) {
        hd_text_add(text, "buckets = { first = %" PRId64 ", count = %" PRId64 ", buckets = %" PRId64 ", list = [[", a->buckets->first, a->buckets->count, a->buckets->buckets);
        for (int64_t i = 0; i < a->buckets->count; i++) hd_text_add(text, "%" PRId32 ",%s", a->buckets->bucket[i], i % 32 == 31 ? "\n    " : " ");
        hd_text_add(text, "]] },\n");
    } else {
        hd_text_add(text, "buckets = false,\n");
    }
    add_strides(text, "stride_q", a->q);
    add_strides(text, "stride_k", a->k);
    add_strides(text, "stride_v", a->v);
    add_strides(text, "stride_out", a->out);
    if (!backward) return;
    add_strides(text, "stride_dout", a->dout);
    add_strides(text, "stride_dq", a->dq);
    add_strides(text, "stride_dk", a->dk);
    add_strides(text, "stride_dv", a->dv);
}

const char *hd_attention_signature(const hd_attention *a, bool backward)
{
    hd_text text = { 0 };
    hd_text_add(&text, "%s", backward ? "const hd_run *run, const float *q, const float *k, const float *v, const float *out, const float *lse, const float *dout"
                                      : "const hd_run *run, int sequences, int used, const float *q, const float *k, const float *v");
    if (!backward && a->with & HD_WITH_SINKS) hd_text_add(&text, ", const float *sinks");
    if (a->with & HD_WITH_BIAS) hd_text_add(&text, ", const float *bias");
    if (a->with & HD_WITH_KEY_BIAS) hd_text_add(&text, ", const float *key_bias");
    if (a->with & HD_WITH_EDGE_BIAS) hd_text_add(&text, ", const float *edge_bias");
    if (a->with & HD_WITH_BOUNDS) hd_text_add(&text, ", const int32_t *bounds");
    hd_text_add(&text, "%s", backward ? ", float *dq, float *dk, float *dv" : ", float *out, float *lse");
    if (backward && a->with & HD_WITH_BIAS) hd_text_add(&text, ", float *dbias");
    if (backward && a->with & HD_WITH_KEY_BIAS) hd_text_add(&text, ", float *dkey_bias");
    if (backward && a->with & HD_WITH_EDGE_BIAS) hd_text_add(&text, ", float *dedge_bias");
    hd_text_add(&text, ", float *merge");
    return text.data;
}

int64_t hd_attention_terms_bytes(const hd_attention *a, bool backward)
{
    return 128 + (a->with & HD_WITH_BIAS ? (backward ? 2 : 1) * round_up(4 * a->buckets->count, 64) : 0);
}

hd_attention_plan hd_attention_tiles(const hd_attention *a, const hd_target *target, bool backward, double *cost)
{
    hd_attention_plan plan = { 0 };
    const int64_t vl = target->vl, dp = round_up(a->head_dim, vl);
    const int64_t owners = backward ? a->batch * a->kv_heads : a->batch * a->heads;
    /* gradients of terms sum over all of a head's pairs: their order is that of one slot */
    const bool terms = hd_attention_has_terms(a), one_slot = backward && a->with & (HD_WITH_BIAS | HD_WITH_KEY_BIAS);
    const int parts = owners >= ENOUGH_SLOTS || one_slot ? 1 : PARTS;

    /* Keys in a chunk: their scores, and keys or values, share the first cache; a multiple of every register tile of keys. */
    int64_t kc = target->l1 * 3 / 4 / 4 / (dp + 2 * vl) / 48 * 48;
    if (kc > 96) kc = 96;
    if (kc < 48) kc = 48;
    if (a->choice.chunk) kc = a->choice.chunk;
    int **width = choose_widths(a, target);
    *cost = 0;
    for (int c = 0; c < a->covers; c++)
        for (int f = 0; f < a->cover[c]->families; f++) *cost += family_time(a->cover[c], &a->cover[c]->family[f], width[c][f], vl, true) * (double)(a->head_dim + 12);

    /* Keys and values of a head, with their gradients, side by side in scratch; and turned, for diagonals, if half the second
     * cache holds all that. Copies spare nothing where keys lie side by side already. */
    const int64_t tensors = backward ? 4 : 2, turned_bytes = tensors * dp * (round_up(a->keys, vl) + 2 * MAX_WIDTH * vl) * 4;
    const bool contiguous = a->k.row == dp && a->v.row == dp && (!backward || (a->dk.row == dp && a->dv.row == dp));
    const bool whole = parts == 1 && !contiguous && tensors * a->keys * dp * 4 <= target->l2 / 4;
    const bool fits = parts == 1 && !terms && !(a->with & HD_WITH_BOUNDS) && turned_bytes <= target->l2 * 3 / 8;
    bool any_diagonals = false;

    int *heads_of = HD_NEW_ARRAY(int, a->covers);
    for (int64_t h = 0; h < a->heads; h++) heads_of[a->cover_of_head ? a->cover_of_head[h] : 0]++;
    int most_families = 1;
    for (int c = 0; c < a->covers; c++) if (a->cover[c]->families > most_families) most_families = a->cover[c]->families;
    double *work = HD_NEW_ARRAY(double, most_families);
    hd_text covers = { 0 };
    int families = 0, widest = 1;
    int64_t panel_floats = 0;
    bool all_complete = true;
    hd_text_add(&covers, "covers = {\n");
    for (int c = 0; c < a->covers; c++) {
        const hd_cover *cover = a->cover[c];
        const bool complete_first = cover->families == 1 || complete(cover, &cover->family[1]);
        all_complete = all_complete && complete_first;
        diagonals d;
        const bool diagonal = fits && cover->families == 2 && is_diagonals(cover, &cover->family[1], &d) && d.count <= MAX_DIAGONALS;
        const int listed = diagonal ? 1 : cover->families;
        if (diagonal) any_diagonals = true;
        if (listed > families) families = listed;
        hd_text_add(&covers, "{ complete = %s, diagonals = {", complete_first || diagonal ? "true" : "false");
        if (diagonal) hd_text_add(&covers, " { %" PRId64 ", %" PRId64 ", %" PRId64 " } ", d.first, d.step, d.count);
        hd_text_add(&covers, "}, families = {\n");
        for (int f = 0; f < listed; f++) {
            const int qv = width[c][f];
            if (qv > widest) widest = qv;
            work[f] += heads_of[c] * family_cycles(a, cover, &cover->family[f], qv, vl, backward) * (backward && parts > 1 ? PARTS_WORK : 1);
            if (diagonal) work[f] += heads_of[c] * (double)(d.count * ((a->queries + vl - 1) / vl)) * (double)(3 * dp + 12) / 2 * (backward ? BACKWARD_WORK : 1);
            panels panel = { 1, 0, 0, 0 };
            if (!whole) panel = choose_panels(a, cover, &cover->family[f], target, dp, backward);
            if (panel.floats > panel_floats) panel_floats = panel.floats;
            add_family(&covers, cover, &cover->family[f], target, qv, &panel, parts, backward);
        }
        hd_text_add(&covers, "} },\n");
    }
    hd_text_add(&covers, "},\nhead_cover = { ");
    double pairs = 0;
    for (int64_t h = 0; h < a->heads; h++) {
        int c = a->cover_of_head ? a->cover_of_head[h] : 0;
        hd_text_add(&covers, "%d, ", c + 1);
        pairs += (double)a->cover[c]->kept_pairs * (double)a->batch;
    }
    hd_text_add(&covers, "},\n");

    /* Blocks that share a chunk of keys: enough queries that copying a key costs little beside using it. */
    const int64_t nq = widest * vl;
    const int subs = (int)(nq >= 48 ? 4 : round_up(128, nq) / nq);

    /* The structs of the templates, in bytes: blocks, then the chunk. Each is padded to 64 at most twice. */
    const int64_t block = backward ? 5 * dp * nq + 6 * nq : 2 * dp * nq + 8 * nq;
    const int64_t chunk = backward ? kc * (3 * nq + 4 * dp + 1) : kc * (nq + 2 * dp + 1) + vl * dp;
    const int64_t local_bytes = subs * (4 * block + 128) + 4 * chunk + 256 + (whole ? tensors * a->keys * dp * 4 : 0) + (any_diagonals ? turned_bytes : 0) + round_up(4 * panel_floats, 64)
                              + hd_attention_terms_bytes(a, backward);

    hd_text shape = { 0 };
    hd_attention_parameters(&shape, a, target, backward);

    plan.phases = parts == 1 ? 1 : families + (backward || !all_complete);
    for (int f = 0; f < families; f++) plan.cycles += work[f];
    plan.phase = HD_NEW_ARRAY(hd_attention_phase, plan.phases);
    for (int i = 0; i < plan.phases; i++) {
        hd_attention_phase *p = &plan.phase[i];
        p->template_name = backward ? "attention_bwd" : "attention_fwd";
        p->coordinates = hd_format("b%" PRId64 "h%" PRId64 "d%" PRId64 "n%" PRId64, a->batch, a->heads, a->head_dim, a->queries);
        if (plan.phases > 1) p->coordinates = hd_format("%s_%d", p->coordinates, i + 1);
        p->parameters = hd_format("%s\nwhole = %s, subs = %d, kc = %" PRId64 ", parts = %d, phases = %d, phase = %d, local_bytes = %" PRId64 ",\n%s",
                                  shape.data, whole ? "true" : "false", subs, kc, parts, plan.phases, i + 1, local_bytes, covers.data);
        p->local_bytes = local_bytes;
        const int family = i - (plan.phases - families);      /* the phase before all families clears */
        if (parts > 1 && family >= 0) p->share = work[backward ? family : (family + 1) % families] / plan.cycles;
        p->slots = parts == 1 ? owners : !backward ? owners * parts : i == 0 ? owners * parts : a->batch * (a->heads + a->kv_heads) * parts;
    }
    plan.cycles *= (double)a->batch;
    plan.signature = hd_attention_signature(a, backward);
    if (!backward && families > 1) plan.merge_bytes = a->batch * a->heads * a->queries * 2 * (int64_t)sizeof(float);
    plan.useful_flops = (backward ? 10 : 4) * (double)a->head_dim * pairs;
    return plan;
}

/* listed: tiles do not cover the pattern. few: pairs few enough that listing them costs a compiler little. */
static void pairs_of(const hd_attention *a, bool *listed, bool *few)
{
    *listed = false, *few = true;
    for (int c = 0; c < a->covers; c++) {
        if (a->cover[c]->rows) *listed = true;
        else if (a->cover[c]->kept_pairs > MAX_LISTED_PAIRS || a->cover[c]->kept_pairs > MAX_LISTED_KEYS * a->queries) *few = false;
    }
}

bool hd_attention_fits(const hd_attention *a, const hd_target *target, bool backward, const hd_attention_choice *choice, const char **why)
{
    static const int widest[] = { [HD_ATTENTION_TILES] = MAX_WIDTH, [HD_ATTENTION_ROWS] = MAX_ROWS_WIDTH, [HD_ATTENTION_EDGES] = 0 };
    const hd_attention_kernels kernels = choice->kernels;
    bool listed, few;
    pairs_of(a, &listed, &few);
    *why = NULL;
    if (kernels < HD_ATTENTION_TILES || kernels > HD_ATTENTION_EDGES) *why = "there are no such kernels";
    else if (choice->width < 0 || choice->width > widest[kernels]) *why = "no block is so wide";
    else if (choice->chunk && (kernels != HD_ATTENTION_TILES || choice->chunk < CHUNK || choice->chunk > MAX_CHUNK || choice->chunk % CHUNK)) *why = "chunks are of tiles, 48 to 192 keys";
    else if (a->with & HD_WITH_EDGE_BIAS) *why = kernels == HD_ATTENTION_EDGES ? NULL : "only the kernels of single pairs take a bias of pairs";
    else if (kernels == HD_ATTENTION_TILES) *why = listed ? "tiles do not cover the pattern" : NULL;
    else if (!few && !listed) *why = "the pattern keeps too many pairs to list them";
    else if (kernels == HD_ATTENTION_STENCIL) *why = hd_attention_stencil_cost(a, target, backward) < 0 ? "the pattern has too many differences" : NULL;
    else if (kernels == HD_ATTENTION_EDGES) *why = hd_attention_edges_cost(a, target, backward) < 0 ? "the pattern keeps too many pairs to list them" : NULL;
    return !*why;
}

/* The plan of these kernels, with its cycles. */
static hd_attention_plan plan_by(hd_attention_kernels kernels, const hd_attention *a, const hd_target *target, bool backward, double *cost)
{
    hd_attention_plan made;
    const double all = (double)(a->batch * a->heads) / a->covers * (backward ? BACKWARD_WORK : 1);      /* costs are forward ones of a head for each cover */
    switch (kernels) {
    case HD_ATTENTION_ROWS:
        made = hd_attention_rows(a, target, backward, cost);
        made.cycles = *cost * all;
        return made;
    case HD_ATTENTION_STENCIL:
        made = hd_attention_stencil(a, target, backward);
        made.cycles = hd_attention_stencil_cost(a, target, backward) * all;
        return made;
    case HD_ATTENTION_EDGES:
        made = hd_attention_edges(a, target, backward);
        made.cycles = hd_attention_edges_cost(a, target, backward) * (double)a->batch;
        return made;
    default: return hd_attention_tiles(a, target, backward, cost);
    }
}

/* Tiles, or rows where tiles do not cover the pattern; but single pairs or stencils if they are clearly faster. */
static hd_attention_plan plan(const hd_attention *a, const hd_target *target, bool backward)
{
    double cost;
    if (a->choice.kernels != HD_ATTENTION_ANY) return plan_by(a->choice.kernels, a, target, backward, &cost);
    if (a->with & HD_WITH_EDGE_BIAS) return plan_by(HD_ATTENTION_EDGES, a, target, backward, &cost);
    bool listed, few;
    pairs_of(a, &listed, &few);
    const hd_attention_plan best = plan_by(listed ? HD_ATTENTION_ROWS : HD_ATTENTION_TILES, a, target, backward, &cost);
    if (!few && !listed) return best;
    const double stencil = hd_attention_stencil_cost(a, target, backward);
    double edges = hd_attention_edges_cost(a, target, backward) * a->covers / (double)a->heads / (backward ? BACKWARD_WORK : 1);
    if (stencil >= 0 && stencil < CLEARLY * cost && !(edges >= 0 && edges < stencil)) return plan_by(HD_ATTENTION_STENCIL, a, target, backward, &cost);
    if (edges >= 0 && edges < CLEARLY * cost) return plan_by(HD_ATTENTION_EDGES, a, target, backward, &cost);
    if (isinf(cost))
        hd_fail((hd_where){ 0 }, "a pattern too irregular for tiles keeps %" PRId64 " pairs at %" PRId64 " queries, whose tables are too large; a shorter length, blocks instead of single "
                "pairs, or a pattern of windows, strides, chunks and residues needs less", a->cover[0]->kept_pairs, a->queries);
    return best;
}

hd_attention_plan hd_attention_forward(const hd_attention *a, const hd_target *target) { return plan(a, target, false); }
hd_attention_plan hd_attention_backward(const hd_attention *a, const hd_target *target) { return plan(a, target, true); }
