/* Layouts of key/value caches from the last reader of each key.
 *
 * The last reader of a key is bounded from above, term by term: of `a & b` it is the earlier of the two, of `a | b` the later, of
 * `a - b` that of a. Grids and lists are walked once, row by row. So a layout takes time and memory for each key, never for pairs. */
#include "cache.h"

#include "cover.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const int64_t NEVER = -1, EVER = HD_ALL_KEYS;

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- last readers ---- */

/* The last row of a grid or list that keeps each key, by walking the rows. */
typedef struct walked { const hd_pattern *pattern; int64_t length, *last; struct walked *next; } walked;

static const int64_t *walk(const hd_pattern *p, int64_t length)
{
    static walked *all;
    for (const walked *w = all; w; w = w->next)
        if (w->length == length && hd_pattern_equal(w->pattern, p)) return w->last;
    walked *w = HD_NEW(walked);
    *w = (walked){ p, length, HD_NEW_ARRAY(int64_t, length), all };
    all = w;
    for (int64_t j = 0; j < length; j++) w->last[j] = NEVER;
    hd_runs runs = { 0, 0, NULL };
    for (int64_t i = 0; i < length; i++) {
        runs.count = 0;
        hd_row_runs(p, i, 0, length, &runs);
        for (int64_t k = 0; k < runs.count; k++)
            for (int64_t j = runs.item[k].first; j < runs.item[k].end; j++) w->last[j] = i;
    }
    free(runs.item);
    return w->last;
}

/* last[j], for all keys: no query after it reads key j. */
static void last_readers(const hd_pattern *p, int64_t length, int64_t *last)
{
    const int64_t left = p->left;
    switch (p->kind) {
    case HD_PATTERN_FULL: case HD_PATTERN_CAUSAL: case HD_PATTERN_STRIDE:
        for (int64_t j = 0; j < length; j++) last[j] = EVER;
        return;
    case HD_PATTERN_WINDOW:
        for (int64_t j = 0; j < length; j++) last[j] = left >= EVER - length ? EVER : max64(j + left, NEVER);
        return;
    case HD_PATTERN_CHUNK:
        for (int64_t j = 0; j < length; j++) last[j] = max64((j / p->chunk + left + 1) * p->chunk - 1, NEVER);
        return;
    case HD_PATTERN_RESIDUES:
        for (int64_t j = 0; j < length; j++) last[j] = j % p->stride >= p->first && j % p->stride < p->end ? EVER : NEVER;
        return;
    case HD_PATTERN_KEYS:
        for (int64_t j = 0; j < length; j++) last[j] = j >= p->first && j < p->end ? EVER : NEVER;
        return;
    case HD_PATTERN_QUERIES:
        for (int64_t j = 0; j < length; j++) last[j] = p->end - 1;
        return;
    case HD_PATTERN_DOCUMENTS:
        for (int64_t j = 0, d = 0; j < length; j++) {
            while (d < p->documents && p->document[d + 1] <= j) d++;
            last[j] = d < p->documents ? p->document[d + 1] - 1 : NEVER;
        }
        return;
    case HD_PATTERN_GRID: case HD_PATTERN_LIST:
        memcpy(last, walk(p, length), sizeof *last * (size_t)length);
        return;
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS: break;
    }
    last_readers(p->a, length, last);
    if (p->kind == HD_PATTERN_MINUS) return;
    int64_t *other = malloc(sizeof *other * (size_t)length);
    if (!other) hd_fail(p->where, "no memory for the cache of a pattern; use a shorter length");
    last_readers(p->b, length, other);
    for (int64_t j = 0; j < length; j++) last[j] = p->kind == HD_PATTERN_AND ? min64(last[j], other[j]) : max64(last[j], other[j]);
    free(other);
}

/* How many positions keys beyond any given end of the data live at most, their own included; EVER: no bound, or none is known. */
static int64_t life_beyond(const hd_pattern *p)
{
    switch (p->kind) {
    case HD_PATTERN_FULL: case HD_PATTERN_CAUSAL: case HD_PATTERN_STRIDE: case HD_PATTERN_RESIDUES: return EVER;
    case HD_PATTERN_DOCUMENTS: case HD_PATTERN_GRID: case HD_PATTERN_LIST: return EVER;
    case HD_PATTERN_WINDOW: return min64(max64(p->left, -1), EVER - 1) + 1;
    case HD_PATTERN_CHUNK: return p->left < 0 ? 0 : (p->left + 1) * p->chunk;
    case HD_PATTERN_KEYS: case HD_PATTERN_QUERIES: return 0;
    case HD_PATTERN_AND: return min64(life_beyond(p->a), life_beyond(p->b));
    case HD_PATTERN_OR: return max64(life_beyond(p->a), life_beyond(p->b));
    case HD_PATTERN_MINUS: return life_beyond(p->a);
    }
    return EVER;
}

/* Documents, grids and lists end where the length does. */
static bool ends(const hd_pattern *p)
{
    if (p->kind >= HD_PATTERN_AND) return ends(p->a) || ends(p->b);
    return p->kind >= HD_PATTERN_DOCUMENTS;
}

/* ---- rows ---- */

/* How many keys lie between the first and the last that a row reads, at most. */
static int64_t reach(const hd_pattern *p, int64_t keys)
{
    switch (p->kind) {
    case HD_PATTERN_WINDOW: return p->left >= keys ? keys : min64(keys, max64(0, p->left + 1 + max64(-p->left, min64(0, p->right))));
    case HD_PATTERN_CHUNK: return p->left >= keys ? keys : min64(keys, (max64(0, p->left) + 1) * p->chunk);
    case HD_PATTERN_KEYS: return min64(keys, p->end - p->first);
    case HD_PATTERN_DOCUMENTS: {
        int64_t longest = 0;
        for (int64_t d = 0; d < p->documents; d++) longest = max64(longest, p->document[d + 1] - p->document[d]);
        return min64(keys, longest);
    }
    case HD_PATTERN_AND: return min64(reach(p->a, keys), reach(p->b, keys));
    case HD_PATTERN_MINUS: return reach(p->a, keys);
    default: return keys;       /* a union reaches from the first key of one to the last of the other */
    }
}

/* Most runs of keys of a row among `keys` neighbours; EVER stands for without bound, as the number of keys and as the answer. */
static int64_t most_runs(const hd_pattern *p, int64_t keys)
{
    const int64_t here = reach(p, keys);
    switch (p->kind) {
    case HD_PATTERN_STRIDE: return here >= EVER ? EVER : here / p->stride + 1;
    case HD_PATTERN_RESIDUES: return here >= EVER ? EVER : here / p->stride + 2;
    case HD_PATTERN_GRID: {       /* along the last axis a run, unless that is dilated */
        int64_t runs = 1;
        for (int k = 0; k < p->grid->axes; k++) {
            const hd_axis *a = &p->grid->axis[k];
            const bool one = k + 1 == p->grid->axes && (a->kind == HD_AXIS_ALL || a->kind == HD_AXIS_CHUNK || a->dilation == 1);
            if (!one) runs *= min64(a->size, a->kind == HD_AXIS_ALL ? a->size : a->kind == HD_AXIS_WINDOW ? a->left + a->right + 1 : a->kernel);
        }
        return min64(runs, keys);
    }
    case HD_PATTERN_LIST: {
        int64_t most = 0;
        for (int64_t r = 0; r < p->list->rows; r++) most = max64(most, p->list->start[r + 1] - p->list->start[r]);
        return min64(most, keys);
    }
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS: {
        const int64_t width = p->kind == HD_PATTERN_OR ? keys : here, sum = min64(EVER, most_runs(p->a, width) + most_runs(p->b, width));
        return width >= EVER ? sum : min64(sum, (width + 1) / 2);
    }
    default: return 1;
    }
}

/* A row as intervals of slots, and where `one` says so a progression besides: how many pieces those are, side by side. False: it is
 * something else. Residues of which just these are kept have slots side by side. */
static bool row_pieces(const hd_pattern *p, const hd_cache_layout *x, int64_t *pieces, bool *one)
{
    const bool residues = x->kind == HD_KEPT_RESIDUES;
    *pieces = 1, *one = false;
    switch (p->kind) {
    case HD_PATTERN_STRIDE: *one = p->stride > 1; return !residues;
    case HD_PATTERN_RESIDUES:
        if (residues) return p->stride == x->stride && p->first == x->first && p->end == x->end;
        *one = true;
        return p->end - p->first == 1;
    case HD_PATTERN_GRID: case HD_PATTERN_LIST: return false;
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS: {
        int64_t a, b;
        bool one_a, one_b;
        if (!row_pieces(p->a, x, &a, &one_a) || !row_pieces(p->b, x, &b, &one_b) || (one_a && one_b) || (one_b && p->kind == HD_PATTERN_MINUS)) return false;
        *one = one_a || one_b;
        *pieces = min64(EVER, *one ? 2 * (a + b) : a + b);     /* an interval may cut a piece in two */
        return true;
    }
    default: return true;
    }
}

/* Most runs that cache_keys makes of a row: progressions are one, where neighbouring keys have neighbouring slots. */
static int64_t most_slot_runs(const hd_pattern *p, const hd_cache_layout *x, int64_t keys, bool distances)
{
    int64_t pieces, runs = most_runs(p, keys);
    bool one;
    if (x->kind != HD_KEPT_RUNS && !(x->kind == HD_KEPT_RESIDUES && distances) && row_pieces(p, x, &pieces, &one)) runs = min64(runs, 2 * pieces);     /* a single key may look like the begin of another progression */
    return runs + x->switches + 6;      /* cut where the ring and where the chunk begin */
}

/* Runs that are held at once while a row is made: those of a, then what b takes, then both and their result. */
static int64_t most_work(const hd_pattern *p, int64_t keys)
{
    const int64_t width = p->kind == HD_PATTERN_OR ? keys : reach(p, keys);
    if (p->kind < HD_PATTERN_AND) return most_runs(p, keys);
    const int64_t a = most_runs(p->a, width), b = most_runs(p->b, width);
    return max64(most_work(p->a, width), max64(a + most_work(p->b, width), a + b + most_runs(p, keys)));
}

/* ---- layouts ---- */

/* The kept keys of a layout from their list, told in the shortest way. */
static void describe_kept(hd_cache_layout *x, const bool *kept, int64_t length)
{
    int64_t runs = 0, capacity = 64;
    hd_interval *run = malloc(sizeof *run * (size_t)capacity);
    for (int64_t j = 0; j < length; j++) {
        if (!kept[j]) continue;
        if (runs && run[runs - 1].end == j) { run[runs - 1].end++; continue; }
        if (runs == capacity) run = realloc(run, sizeof *run * (size_t)(capacity *= 2));
        if (!run) hd_fail((hd_where){ 0 }, "no memory for the cache of a pattern; use a shorter length");
        run[runs++] = (hd_interval){ j, j + 1 };
    }
    x->kind = x->kept == 0 ? HD_KEPT_NONE : x->kept == length ? HD_KEPT_ALL : runs == 1 ? HD_KEPT_RANGE : HD_KEPT_RUNS;
    x->first = runs ? run[0].first : 0, x->end = runs ? run[0].end : 0, x->stride = length;
    if (x->kind == HD_KEPT_RUNS) {
        /* the first run lies whole in its period, so that of residues a run never reaches into the next */
        const int64_t width = run[0].end - run[0].first, stride = run[1].first - run[0].first;
        bool regular = run[0].end <= stride && run[0].first + runs * stride >= length;
        for (int64_t k = 0; k < runs; k++)
            regular = regular && run[k].first == run[0].first + k * stride && (run[k].end - run[k].first == width || (k == runs - 1 && run[k].end == length));
        if (regular) x->kind = HD_KEPT_RESIDUES, x->stride = stride;
    }
    if (x->kind == HD_KEPT_RUNS) {
        hd_interval *copy = HD_NEW_ARRAY(hd_interval, runs);
        int64_t *rank = HD_NEW_ARRAY(int64_t, runs);
        memcpy(copy, run, sizeof *run * (size_t)runs);
        for (int64_t k = 1; k < runs; k++) rank[k] = rank[k - 1] + run[k - 1].end - run[k - 1].first;
        x->runs = runs, x->run = copy, x->rank = rank;
    }
    /* a row finds keys of the ring among the last ones only: the changes between kept and not that lie so near */
    x->switches = 0;
    for (int64_t k = 0, from = 0; x->ring && k < runs; k++) {
        while (run[k].end - run[from].end > x->ring) from++;
        x->switches = max64(x->switches, 2 * (k - from + 2));
    }
    if (x->kind == HD_KEPT_ALL) x->switches = 0;
    free(run);
}

static int descending(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The layout of keys that some patterns read: keys that live for more than `ring` positions are kept. */
static hd_cache_layout layout_of_patterns(const hd_pattern *const *pattern, int patterns, int64_t length, bool *endless)
{
    int64_t *life = malloc(sizeof *life * (size_t)length), *sorted = malloc(sizeof *sorted * (size_t)length);
    bool *kept = malloc((size_t)length);
    if (!life || !sorted || !kept) hd_fail(pattern[0]->where, "no memory for the cache of a pattern; use a shorter length");
    for (int p = 0; p < patterns; p++) {
        last_readers(pattern[p], length, p ? sorted : life);
        for (int64_t j = 0; j < length && p; j++) life[j] = max64(life[j], sorted[j]);
    }
    for (int64_t j = 0; j < length; j++) sorted[j] = life[j] = life[j] >= EVER ? EVER : max64(0, life[j] - j + 1);
    qsort(sorted, (size_t)length, sizeof *sorted, descending);
    int64_t stored = length;
    while (stored && !sorted[stored - 1]) stored--;
    hd_cache_layout x = { .kept = stored };
    for (int64_t k = 0; k < stored; k++)        /* the k longest lives kept, the others in a ring */
        if ((k == 0 || sorted[k] < sorted[k - 1]) && sorted[k] < EVER && k + sorted[k] < x.kept + x.ring) x.kept = k, x.ring = sorted[k];
    for (int64_t j = 0; j < length; j++) kept[j] = life[j] > x.ring;
    describe_kept(&x, kept, length);
    int64_t beyond = 0;
    for (int p = 0; p < patterns; p++) beyond = ends(pattern[p]) || most_runs(pattern[p], EVER) >= EVER ? EVER : max64(beyond, life_beyond(pattern[p]));
    *endless = beyond <= x.ring && x.kind <= HD_KEPT_RANGE && x.kind != HD_KEPT_ALL;
    free(life);
    free(sorted);
    free(kept);
    return x;
}

static bool same_layout(const hd_cache_layout *a, const hd_cache_layout *b)
{
    if (a->kind != b->kind || a->kept != b->kept || a->ring != b->ring || a->first != b->first || a->end != b->end || a->stride != b->stride || a->runs != b->runs) return false;
    return !a->runs || !memcmp(a->run, b->run, sizeof *a->run * (size_t)a->runs);
}

const char *hd_cache_refusal(const hd_node *n)
{
    const hd_shape *q = &n->input[0]->shape, *k = &n->input[1]->shape;
    const int64_t length = q->size[q->rank - 2];
    if (length != k->size[k->rank - 2]) return hd_format("it has %lld queries and %lld keys; both must be the model's positions", (long long)length, (long long)k->size[k->rank - 2]);
    if (n->attr.attention.with & HD_WITH_KEY_BIAS) return "it has a bias for each key; biases by distance, ALiBi and sinks can be";
    if (n->attr.attention.with & HD_WITH_EDGE_BIAS) return "it has a bias for each pair; biases by distance, ALiBi and sinks can be";
    if (n->attr.attention.with & HD_WITH_BOUNDS) return "its keys depend on lengths or documents given at run time; patterns can be";
    for (int h = 0; h < n->attr.attention.patterns; h++)
        if (!hd_pattern_causal(n->attr.attention.pattern[h], length, length))
            return hd_format("its pattern %s reads keys after the query; only causal patterns can be", hd_pattern_text(n->attr.attention.pattern[h]));
    return NULL;
}

static hd_cache *make_cache(const hd_attr *attr, int64_t length)
{
    hd_cache *c = HD_NEW(hd_cache);
    const int heads = attr->attention.heads, kv_heads = attr->attention.kv_heads, group = heads / kv_heads, patterns = attr->attention.patterns;
    const hd_pattern *const *pattern = attr->attention.pattern;
    *c = (hd_cache){ .heads = heads, .kv_heads = kv_heads, .head_dim = attr->attention.head_dim, .length = length, .rewindable = true, .safe = EVER,
                     .distances = attr->attention.alibi || (attr->attention.with & HD_WITH_BIAS) };
    hd_cache_layout *layout = HD_NEW_ARRAY(hd_cache_layout, kv_heads);
    hd_cache_reader *reader = HD_NEW_ARRAY(hd_cache_reader, heads);
    int *layout_of = HD_NEW_ARRAY(int, kv_heads), *reader_of = HD_NEW_ARRAY(int, heads);
    int64_t *key = HD_NEW_ARRAY(int64_t, kv_heads), *value = HD_NEW_ARRAY(int64_t, kv_heads), floats = 0, most = 1, work = 1;
    bool endless = true;
    for (int k = 0; k < kv_heads; k++) {
        int before = k;
        if (patterns == 1) before = k ? 0 : k;
        for (int b = 0; b < k && before == k; b++) {
            bool same = true;
            for (int g = 0; g < group && same; g++) same = hd_pattern_equal(pattern[k * group + g], pattern[b * group + g]);
            if (same) before = b;
        }
        if (before < k) {
            layout_of[k] = layout_of[before];
        } else {
            bool without_end;
            const hd_cache_layout x = layout_of_patterns(patterns == 1 ? pattern : pattern + k * group, patterns == 1 ? 1 : group, length, &without_end);
            endless = endless && without_end;
            layout_of[k] = c->layouts;
            for (int i = 0; i < c->layouts; i++) if (same_layout(&layout[i], &x)) layout_of[k] = i;
            if (layout_of[k] == c->layouts) layout[c->layouts++] = x;
        }
        const hd_cache_layout *x = &layout[layout_of[k]];
        key[k] = floats, floats += (x->kept + x->ring) * c->head_dim;
        value[k] = floats, floats += (x->kept + x->ring) * c->head_dim;
        if (x->ring) c->rewindable = false, c->safe = min64(c->safe, x->ring);
    }
    for (int h = 0; h < heads; h++) {
        const hd_pattern *p = pattern[patterns == 1 ? 0 : h];
        reader_of[h] = c->readers;
        for (int i = 0; i < c->readers; i++) if (reader[i].layout == layout_of[h / group] && hd_pattern_equal(reader[i].pattern, p)) reader_of[h] = i;
        if (reader_of[h] == c->readers) {
            reader[c->readers++] = (hd_cache_reader){ p, layout_of[h / group] };
            most = max64(most, most_slot_runs(p, &layout[layout_of[h / group]], endless ? EVER : length, c->distances));
            work = max64(work, most_work(p, endless ? EVER : length));
        }
    }
    for (int i = 0; i < c->readers; i++) {
        int count = 0;
        for (int h = 0; h < heads; h++) count += reader_of[h] == i;
        c->keys_per_query += (double)count * (double)hd_pattern_kept_pairs(reader[i].pattern, length, length) / (double)length;
    }
    c->layout = layout, c->layout_of = layout_of, c->reader = reader, c->reader_of = reader_of, c->key = key, c->value = value;
    c->runs = most, c->work = work;
    c->positions = endless ? 0 : length;
    c->bytes = (4 * floats + 63) / 64 * 64;
    c->dense_bytes = 2 * 4 * length * kv_heads * c->head_dim;
    return c;
}

/* Layers are mostly alike, and long ones take a while. */
hd_cache *hd_cache_make(const hd_attr *attr, int64_t length)
{
    static struct { hd_attr of; int64_t length; const hd_cache *cache; } *made;
    static int count, capacity;
    const bool distances = attr->attention.alibi || (attr->attention.with & HD_WITH_BIAS);
    hd_cache *own = HD_NEW(hd_cache);
    for (int i = 0; i < count; i++) {
        const hd_attr *a = &made[i].of;
        bool same = made[i].length == length && a->attention.heads == attr->attention.heads && a->attention.kv_heads == attr->attention.kv_heads && a->attention.head_dim == attr->attention.head_dim &&
                    a->attention.patterns == attr->attention.patterns && made[i].cache->distances == distances;
        for (int h = 0; h < attr->attention.patterns && same; h++) same = hd_pattern_equal(a->attention.pattern[h], attr->attention.pattern[h]);
        if (!same) continue;
        *own = *made[i].cache;
        return own;
    }
    made = hd_grow(made, count, &capacity, sizeof *made);
    const hd_pattern **pattern = (const hd_pattern **)HD_NEW_ARRAY(hd_pattern *, attr->attention.patterns);
    memcpy(pattern, attr->attention.pattern, sizeof *pattern * (size_t)attr->attention.patterns);
    made[count].of = *attr, made[count].of.attention.pattern = pattern, made[count].length = length;
    made[count].cache = make_cache(attr, length);
    *own = *made[count++].cache;
    return own;
}

bool hd_cache_same_keys(const hd_cache *a, const hd_cache *b)
{
    if (a->length != b->length || a->readers != b->readers || a->layouts != b->layouts || a->distances != b->distances || a->positions != b->positions) return false;
    for (int i = 0; i < a->layouts; i++) if (!same_layout(&a->layout[i], &b->layout[i])) return false;
    for (int i = 0; i < a->readers; i++) if (a->reader[i].layout != b->reader[i].layout || !hd_pattern_equal(a->reader[i].pattern, b->reader[i].pattern)) return false;
    return true;
}

hd_cache_words hd_cache_plan(const hd_cache *c, int64_t streams, int64_t chunk)
{
    hd_cache_words w = { .row = 1 + HD_CACHE_RUN * c->runs };
    if (chunk > 1) {
        w.segments = min64(2 * HD_CACHE_BLOCK * c->runs + 1, HD_CACHE_SEGMENTS);
        w.block = 1 + HD_CACHE_SEGMENT * w.segments;
    }
    w.slots = c->layouts * (chunk == 1 ? streams : chunk);
    w.reader = chunk == 1 ? streams * w.row : chunk * w.row + (chunk + HD_CACHE_BLOCK - 1) / HD_CACHE_BLOCK * w.block;
    w.all = w.slots + c->readers * w.reader;
    return w;
}
