/* Random pattern expressions, and smaller ones that fail alike: what cover_test.c and random_test.c draw their cases from.
 *
 * A case is an expression with its numbers of queries and keys. All of it follows from one 64-bit state, so that the state
 * before a case names the case. Terms of one expression mostly share a chunk length and documents, as they do in practice:
 * otherwise nearly all expressions would be too irregular for families of tiles. */
#ifndef HD_RANDOM_PATTERN_H
#define HD_RANDOM_PATTERN_H

#include <inttypes.h>
#include <string.h>

#include "../../compiler/pattern/pattern.h"

typedef struct random_case { int64_t queries, keys; const hd_pattern *p; } random_case;

static uint64_t random_state = 1;
static int64_t below(int64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (int64_t)((random_state >> 11) % (uint64_t)n);
}
/* States that differ little begin with alike numbers: stirred first. */
static inline void random_seed(uint64_t seed)
{
    seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9u;
    seed = (seed ^ seed >> 27) * 0x94D049BB133111EBu;
    random_state = (seed ^ seed >> 31) | 1;
}

static hd_pattern *make(hd_pattern p)
{
    hd_pattern *q = HD_NEW(hd_pattern);
    *q = p;
    q->where = (hd_where){ "random", 1 };
    return q;
}
static inline hd_pattern *causal(void) { return make((hd_pattern){ .kind = HD_PATTERN_CAUSAL }); }
static inline hd_pattern *full(void) { return make((hd_pattern){ .kind = HD_PATTERN_FULL }); }
static inline hd_pattern *window(int64_t left, int64_t right) { return make((hd_pattern){ .kind = HD_PATTERN_WINDOW, .left = left, .right = right }); }
static inline hd_pattern *stride(int64_t s) { return make((hd_pattern){ .kind = HD_PATTERN_STRIDE, .stride = s }); }
static inline hd_pattern *chunks(int64_t l, int64_t before, int64_t after) { return make((hd_pattern){ .kind = HD_PATTERN_CHUNK, .chunk = l, .left = before, .right = after }); }
static inline hd_pattern *residues(int64_t l, int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_RESIDUES, .stride = l, .first = first, .end = end }); }
static inline hd_pattern *keys_of(int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_KEYS, .first = first, .end = end }); }
static inline hd_pattern *queries_of(int64_t first, int64_t end) { return make((hd_pattern){ .kind = HD_PATTERN_QUERIES, .first = first, .end = end }); }
static inline hd_pattern *joined(hd_pattern_kind kind, const hd_pattern *a, const hd_pattern *b) { return make((hd_pattern){ .kind = kind, .a = a, .b = b }); }
static inline hd_pattern *and(const hd_pattern *a, const hd_pattern *b) { return joined(HD_PATTERN_AND, a, b); }
static inline hd_pattern *or(const hd_pattern *a, const hd_pattern *b) { return joined(HD_PATTERN_OR, a, b); }
static inline hd_pattern *minus(const hd_pattern *a, const hd_pattern *b) { return joined(HD_PATTERN_MINUS, a, b); }

/* ---- drawing ---- */

/* The terms of an expression: of differences alone; positions too; everything. */
typedef enum random_terms { DIFFERENCES, POSITIONS, EVERYTHING } random_terms;
typedef struct random_style { random_terms terms; int64_t queries, keys, longest, chunk; const hd_pattern *documents; } random_style;

static hd_pattern *random_documents(int64_t longest)
{
    hd_pattern p = { .kind = HD_PATTERN_DOCUMENTS };
    int64_t *document = HD_NEW_ARRAY(int64_t, longest + 1), most = 1 + below(below(2) ? 8 : 60);
    for (int64_t at = 0; at < longest; p.documents++) {
        document[p.documents] = at;
        at += 1 + below(longest - at < most ? longest - at : most);
    }
    document[p.documents] = longest;
    p.document = document;
    return make(p);
}

/* Any grid that fits: all kinds of axes, in any mixture. */
static hd_pattern *random_grid(int64_t longest)
{
    hd_grid *g = HD_NEW(hd_grid);
    g->axes = 1 + (int)below(4);
    int64_t cells = 1;
    for (int k = 0; k < g->axes; k++) {
        hd_axis *a = &g->axis[k];
        *a = (hd_axis){ .kind = (hd_axis_kind)below(4), .causal = below(2), .left = below(4), .right = below(4), .dilation = 1 + below(3) };
        a->size = 1 + below(longest / cells < 14 ? longest / cells : 14);
        if (a->dilation > a->size) a->dilation = 1;
        a->kernel = 1 + below(a->size / a->dilation);
        a->stride = 1 + below(a->kernel);
        a->offset = below(a->kernel);
        cells *= a->size;
    }
    g->first = below(3) ? 0 : below(longest - cells + 1);
    return make((hd_pattern){ .kind = HD_PATTERN_GRID, .grid = g });
}

/* Edges, masks and blocks: runs of 1 to 3 blocks, more or fewer of them; some rows are empty, and sometimes most. */
static hd_pattern *random_list(int64_t queries, int64_t keys)
{
    hd_key_lists *l = HD_NEW(hd_key_lists);
    l->block = below(3) ? 1 : 1 + below(17);
    l->rows = (queries + l->block - 1) / l->block;
    l->columns = (keys + l->block - 1) / l->block;
    l->what = "random lists";
    int64_t *start = HD_NEW_ARRAY(int64_t, l->rows + 1), runs = 0, gap = 1 + below(below(2) ? 9 : 60), empty = 1 + below(9);
    hd_interval *run = HD_NEW_ARRAY(hd_interval, l->rows * (l->columns + 2) / 2 + l->rows + 1);
    for (int64_t r = 0; r < l->rows; r++) {
        start[r] = runs;
        if (!below(empty)) continue;
        for (int64_t at = below(gap), end; at < l->columns; at = end + 1 + below(gap)) {
            end = at + 1 + below(3);
            if (end > l->columns) end = l->columns;
            run[runs++] = (hd_interval){ at, end };
        }
    }
    start[l->rows] = runs;
    l->start = start;
    l->run = run;
    return make((hd_pattern){ .kind = HD_PATTERN_LIST, .list = l });
}

static hd_pattern *random_difference(const random_style *s)
{
    switch (below(7)) {
    case 0: return full();
    case 1: case 2: return causal();
    case 3: return stride(1 + below(below(2) ? 9 : s->longest + 3));
    case 4: return below(6) ? window(below(below(2) ? 8 : s->longest + 2), 0) : window(((int64_t)1 << 40) + s->longest, below(s->longest + 2) - 1);      /* causal, moved */
    default: {
        int64_t left = below(2 * s->longest + 3) - s->longest / 2;
        return window(left, below(s->longest + 2) - left);
    }
    }
}

static hd_pattern *random_position(const random_style *s)
{
    int64_t first = below(s->longest), chunk = below(20) ? s->chunk : 1 + below(s->longest + 2);
    switch (below(5)) {
    case 0: return chunks(chunk, 0, 0);
    case 1: {
        int64_t before = below(6) - 2;
        return chunks(chunk, before, below(4) - before);
    }
    case 2: {
        int64_t period = below(4) ? chunk : below(2) ? 2 * chunk : 1 + below(12);
        first = below(period);
        return residues(period, first, first + 1 + below(period - first));
    }
    case 3: first = below(2) ? 0 : first % s->keys; return keys_of(first, first + 1 + below(below(2) ? s->keys - first : 1));
    default: first = below(2) ? 0 : first % s->queries; return queries_of(first, first + 1 + below(below(2) ? s->queries - first : 1));
    }
}

static const hd_pattern *random_expression(const random_style *s, int depth)
{
    if (depth > 0 && below(5)) {
        const hd_pattern *a = random_expression(s, depth - 1), *b = random_expression(s, depth - 1);
        return joined((hd_pattern_kind)(HD_PATTERN_AND + below(3)), a, b);
    }
    int64_t kind = below(8);
    if (s->terms == DIFFERENCES || kind < 3) return random_difference(s);
    if (s->terms == POSITIONS || kind < 6) return random_position(s);
    switch (below(8)) {
    case 0: return random_documents(s->longest);
    case 1: case 2: return random_grid(s->longest);
    case 3: case 4: return random_list(s->queries, s->keys);
    default: return s->documents;
    }
}

/* A length of at most `most`: often short, odd or prime, sometimes round. */
static int64_t random_length(int64_t most)
{
    static const int64_t liked[] = { 1, 2, 3, 5, 7, 13, 15, 16, 17, 31, 32, 33, 61, 64, 65, 97, 127, 128, 199 };
    int64_t n = below(8) ? 1 + below(below(4) && most > 48 ? 48 : most) : liked[below((int64_t)(sizeof liked / sizeof *liked))];
    return n < most ? n : most;
}

static random_case random_pattern(random_terms terms, int64_t queries, int64_t keys)
{
    random_style s = { .terms = terms, .queries = queries, .keys = keys, .longest = queries > keys ? queries : keys };
    s.chunk = 1 + below(below(2) && s.longest > 12 ? 12 : s.longest + 2);
    if (terms == EVERYTHING) s.documents = random_documents(s.longest);
    return (random_case){ queries, keys, random_expression(&s, (int)below(5)) };
}

/* ---- shrinking ---- */

static inline int64_t cells_of(const hd_grid *g)
{
    int64_t all = 1;
    for (int k = 0; k < g->axes; k++) all *= g->axis[k].size;
    return all;
}

/* The same terms for other lengths, shorter ones: what lies beyond is cut off. */
static inline const hd_pattern *refit(const hd_pattern *p, int64_t queries, int64_t keys)
{
    const int64_t longest = queries > keys ? queries : keys;
    hd_pattern q = *p;
    switch (p->kind) {
    case HD_PATTERN_KEYS: case HD_PATTERN_QUERIES: {
        const int64_t n = p->kind == HD_PATTERN_KEYS ? keys : queries;
        if (q.end > n) q.end = n;
        if (q.first >= q.end) q.first = q.end - 1;
        break;
    }
    case HD_PATTERN_DOCUMENTS: {
        int64_t *document = HD_NEW_ARRAY(int64_t, p->documents + 1);
        for (q.documents = 0; q.documents < p->documents && p->document[q.documents] < longest; q.documents++) document[q.documents] = p->document[q.documents];
        document[q.documents] = longest;
        q.document = document;
        break;
    }
    case HD_PATTERN_GRID: {
        hd_grid *g = HD_NEW(hd_grid);
        *g = *p->grid;
        for (int k = 0; cells_of(g) > longest; k = (k + 1) % g->axes) {
            hd_axis *a = &g->axis[k];
            if (a->size > 1) a->size--;
            if (a->dilation > a->size) a->dilation = 1;
            if (a->kernel > a->size / a->dilation) a->kernel = a->size / a->dilation;
            if (a->stride > a->kernel) a->stride = a->kernel;
            a->offset %= a->kernel;
        }
        if (g->first + cells_of(g) > longest) g->first = longest - cells_of(g);
        q.grid = g;
        break;
    }
    case HD_PATTERN_LIST: {
        hd_key_lists *l = HD_NEW(hd_key_lists);
        *l = *p->list;
        l->rows = (queries + l->block - 1) / l->block;
        l->columns = (keys + l->block - 1) / l->block;
        int64_t *start = HD_NEW_ARRAY(int64_t, l->rows + 1), runs = 0;
        hd_interval *run = HD_NEW_ARRAY(hd_interval, p->list->start[p->list->rows] + 1);
        for (int64_t r = 0; r < l->rows; r++) {
            start[r] = runs;
            for (int64_t k = r < p->list->rows ? p->list->start[r] : 0; r < p->list->rows && k < p->list->start[r + 1]; k++) {
                hd_interval one = p->list->run[k];
                if (one.end > l->columns) one.end = l->columns;
                if (one.first < one.end) run[runs++] = one;
            }
        }
        start[l->rows] = runs;
        l->start = start;
        l->run = run;
        q.list = l;
        break;
    }
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS:
        q.a = refit(p->a, queries, keys);
        q.b = refit(p->b, queries, keys);
        break;
    default: return p;
    }
    return make(q);
}

/* One number of a term made smaller: way 0 to its least, 1 halved, 2 less by one. False if that changes nothing. */
static inline bool lower_number(int64_t *x, int64_t least, int way)
{
    const int64_t was = *x;
    *x = way == 0 ? least : way == 1 ? least + (*x - least) / 2 : *x - (*x > least) + (*x < least);
    return *x != was;
}

static inline bool valid_axis(const hd_axis *a)
{
    return a->size >= 1 && a->dilation >= 1 && a->dilation <= a->size && a->kernel >= 1 && a->kernel <= a->size / a->dilation && a->stride >= 1 && a->stride <= a->kernel &&
           a->offset >= 0 && a->offset < a->kernel && a->left >= 0 && a->right >= 0;
}

/* The k-th way to make one term simpler; sets *more to false past the last. NULL: this way is none. */
static inline const hd_pattern *simpler_term(const hd_pattern *p, int k, bool *more)
{
    hd_pattern q = *p;
    const int which = k / 3, way = k % 3;
    bool changed = false;
    switch (p->kind) {
    case HD_PATTERN_WINDOW:
        *more = which < 2;
        changed = *more && lower_number(which ? &q.right : &q.left, 0, way) && q.left + q.right >= 0;
        break;
    case HD_PATTERN_STRIDE:
        *more = which < 1;
        changed = *more && lower_number(&q.stride, 1, way);
        break;
    case HD_PATTERN_CHUNK:
        *more = which < 3;
        changed = *more && lower_number(which == 0 ? &q.chunk : which == 1 ? &q.left : &q.right, which == 0, way) && q.left + q.right >= 0;
        break;
    case HD_PATTERN_RESIDUES:
        *more = which < 3;
        changed = *more && lower_number(which == 0 ? &q.stride : which == 1 ? &q.first : &q.end, which == 0, way) && q.first < q.end && q.end <= q.stride;
        break;
    case HD_PATTERN_KEYS: case HD_PATTERN_QUERIES:
        *more = which < 2;
        changed = *more && lower_number(which ? &q.end : &q.first, 0, way) && q.first < q.end;
        break;
    case HD_PATTERN_DOCUMENTS: {      /* two documents become one */
        *more = k + 1 < p->documents;
        if (!*more) return NULL;
        int64_t *document = HD_NEW_ARRAY(int64_t, p->documents), kept = 0;
        for (int64_t d = 0; d <= p->documents; d++) if (d != k + 1) document[kept++] = p->document[d];
        q.documents--;
        q.document = document;
        changed = true;
        break;
    }
    case HD_PATTERN_GRID: {
        hd_grid *g = HD_NEW(hd_grid);
        *g = *p->grid;
        const int axis = which / 8;
        *more = axis < g->axes;
        if (!*more) return NULL;
        hd_axis *a = &g->axis[axis];
        int64_t *const number[] = { &a->size, &a->left, &a->right, &a->kernel, &a->stride, &a->dilation, &a->offset, &g->first };
        const int64_t least[] = { 1, 0, 0, 1, 1, 1, 0, 0 };
        changed = lower_number(number[which % 8], least[which % 8], way) && valid_axis(a);
        q.grid = g;
        break;
    }
    case HD_PATTERN_LIST: {           /* half of the rows, then single runs, are dropped */
        const hd_key_lists *l = p->list;
        *more = k < 2 + l->start[l->rows];
        if (!*more) return NULL;
        hd_key_lists *less = HD_NEW(hd_key_lists);
        *less = *l;
        int64_t *start = HD_NEW_ARRAY(int64_t, l->rows + 1), runs = 0;
        hd_interval *run = HD_NEW_ARRAY(hd_interval, l->start[l->rows] + 1);
        int64_t used = 0, seen = 0;
        for (int64_t r = 0; r < l->rows; r++) used += l->start[r + 1] > l->start[r];
        for (int64_t r = 0; r < l->rows; r++) {
            start[r] = runs;
            const bool dropped = k < 2 && (seen < used / 2) == (k == 0);
            for (int64_t n = l->start[r]; n < l->start[r + 1] && !dropped; n++) if (k < 2 || n != k - 2) run[runs++] = l->run[n];
            seen += l->start[r + 1] > l->start[r];
        }
        start[l->rows] = runs;
        changed = runs < l->start[l->rows];
        less->start = start;
        less->run = run;
        q.list = less;
        break;
    }
    default: *more = false;
    }
    return changed ? make(q) : NULL;
}

/* The k-th simpler expression: an operand alone, or one term simpler. */
static inline const hd_pattern *simpler(const hd_pattern *p, int k, int *ways)
{
    if (p->kind < HD_PATTERN_AND) {
        bool more = true;
        const hd_pattern *q = simpler_term(p, k, &more);
        if (!more) {      /* how many ways there are: found by asking */
            *ways = 0;
            do { more = true; simpler_term(p, *ways, &more); ++*ways; } while (more);
            --*ways;
        }
        return more ? q : NULL;
    }
    if (k < 2) return k ? p->b : p->a;
    int ways_a = INT32_MAX, ways_b = INT32_MAX;
    const hd_pattern *q = simpler(p->a, k - 2, &ways_a);
    if (ways_a == INT32_MAX) return q ? joined(p->kind, q, p->b) : NULL;
    q = simpler(p->b, k - 2 - ways_a, &ways_b);
    if (ways_b == INT32_MAX) return q ? joined(p->kind, p->a, q) : NULL;
    *ways = 2 + ways_a + ways_b;
    return NULL;
}

/* The smallest case found, in at most `attempts`, for which still_fails holds: shorter lengths first, then simpler expressions. */
static inline random_case shrink(random_case c, bool (*still_fails)(const random_case *), int attempts)
{
    for (bool progress = true; progress && attempts > 0; ) {
        progress = false;
        const int64_t q = c.queries, n = c.keys, lengths[][2] = { { q / 2, n / 2 }, { q / 2, n }, { q, n / 2 }, { q - 1, n - 1 }, { q - 1, n }, { q, n - 1 } };
        for (int k = 0; k < 6 && !progress && attempts > 0; k++) {
            if (lengths[k][0] < 1 || lengths[k][1] < 1) continue;
            random_case less = { lengths[k][0], lengths[k][1], refit(c.p, lengths[k][0], lengths[k][1]) };
            attempts--;
            if (still_fails(&less)) c = less, progress = true;
        }
        int ways = INT32_MAX;
        for (int k = 0; k < ways && !progress && attempts > 0; k++) {
            random_case less = { c.queries, c.keys, simpler(c.p, k, &ways) };
            if (!less.p) continue;
            attempts--;
            if (still_fails(&less)) c = less, progress = true;
        }
    }
    return c;
}

/* ---- text, with all numbers ---- */

static inline void add_pattern(hd_text *out, const hd_pattern *p)
{
    switch (p->kind) {
    case HD_PATTERN_WINDOW: hd_text_add(out, "window(left %" PRId64 ", right %" PRId64 ")", p->left, p->right); return;
    case HD_PATTERN_CHUNK:  hd_text_add(out, "chunk(%" PRId64 ", before %" PRId64 ", after %" PRId64 ")", p->chunk, p->left, p->right); return;
    case HD_PATTERN_DOCUMENTS:
        hd_text_add(out, "documents(");
        for (int64_t d = 0; d < p->documents; d++) hd_text_add(out, "%s%" PRId64, d ? " " : "", p->document[d + 1] - p->document[d]);
        hd_text_add(out, ")");
        return;
    case HD_PATTERN_GRID:
        hd_text_add(out, "grid(first %" PRId64, p->grid->first);
        for (int k = 0; k < p->grid->axes; k++) {
            const hd_axis *a = &p->grid->axis[k];
            static const char *const kind[] = { "window", "clamped", "chunk", "all" };
            hd_text_add(out, "; %s size %" PRId64, kind[a->kind], a->size);
            if (a->kind == HD_AXIS_WINDOW) hd_text_add(out, " left %" PRId64 " right %" PRId64 " dilation %" PRId64, a->left, a->right, a->dilation);
            if (a->kind == HD_AXIS_CLAMPED) hd_text_add(out, " kernel %" PRId64 " stride %" PRId64 " dilation %" PRId64 "%s", a->kernel, a->stride, a->dilation, a->causal ? " causal" : "");
            if (a->kind == HD_AXIS_CHUNK) hd_text_add(out, " chunk %" PRId64 " offset %" PRId64, a->kernel, a->offset);
        }
        hd_text_add(out, ")");
        return;
    case HD_PATTERN_LIST:
        hd_text_add(out, "list(block %" PRId64, p->list->block);
        for (int64_t r = 0; r < p->list->rows; r++) {
            if (p->list->start[r] < p->list->start[r + 1]) hd_text_add(out, "; row %" PRId64 ":", r);
            for (int64_t k = p->list->start[r]; k < p->list->start[r + 1]; k++) {
                hd_text_add(out, " %" PRId64, p->list->run[k].first);
                if (p->list->run[k].end > p->list->run[k].first + 1) hd_text_add(out, "-%" PRId64, p->list->run[k].end - 1);
            }
        }
        hd_text_add(out, ")");
        return;
    case HD_PATTERN_AND: case HD_PATTERN_OR: case HD_PATTERN_MINUS:
        hd_text_add(out, "(");
        add_pattern(out, p->a);
        hd_text_add(out, p->kind == HD_PATTERN_AND ? " & " : p->kind == HD_PATTERN_OR ? " | " : " - ");
        add_pattern(out, p->b);
        hd_text_add(out, ")");
        return;
    default: hd_text_add(out, "%s", hd_pattern_text(p)); return;
    }
}

static inline const char *case_text(const random_case *c)
{
    hd_text out = { NULL, 0, 0 };
    hd_text_add(&out, "%" PRId64 " queries, %" PRId64 " keys: ", c->queries, c->keys);
    add_pattern(&out, c->p);
    return out.data;
}

#endif
