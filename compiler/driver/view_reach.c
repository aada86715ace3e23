/* What a query can learn of through several layers: it reads keys, which read keys a layer below. Exact for short lengths
 * (a bit per pair); for long ones exact for sampled queries (a bit per key), the picture saying so. */
#include "view.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXACT = 512,                         /* longest length looked at pair by pair */
    MOST_HOPS = 8,
    SAMPLES = 32,
    CELLS = 256,
    LEFT = HD_PAGE_MARGIN + 54, RIGHT = 664
};
static const int64_t budget = 400000000;     /* words and keys touched for the samples of one model: about a second */

/* ---- exact ---- */

static void set_bits(const hd_cover *cover, int64_t words, uint64_t *bits)
{
    for (int64_t i = 0; cover->rows && i < cover->queries; i++)
        for (int64_t k = cover->rows->start[i]; k < cover->rows->start[i + 1]; k++)
            for (int64_t j = cover->rows->run[k].first; j < cover->rows->run[k].end; j++) bits[i * words + (j >> 6)] |= UINT64_C(1) << (j & 63);
    for (int f = 0; f < cover->families; f++)
        for (int64_t g = 0; g < cover->family[f].groups; g++) {
            const hd_group group = hd_family_group(cover, &cover->family[f], g);
            for (int64_t t = 0; t < group.q_count; t++) {
                int64_t u, last;
                hd_group_interval(&cover->family[f], &group, t, &u, &last);
                uint64_t *row = bits + (group.q_start + group.q_step * t) * words;
                for (; u < last; u++) {
                    const int64_t j = hd_group_key(&group, u);
                    row[j >> 6] |= UINT64_C(1) << (j & 63);
                }
            }
        }
}

/* to[i] = union of reads[a] over the a in from[i] */
static void compose(const uint64_t *from, const uint64_t *reads, uint64_t *to, int64_t n, int64_t words)
{
    memset(to, 0, sizeof *to * (size_t)(n * words));
    for (int64_t i = 0; i < n; i++)
        for (int64_t w = 0; w < words; w++)
            for (uint64_t bits = from[i * words + w]; bits; bits &= bits - 1) {
                const uint64_t *row = reads + (w * 64 + __builtin_ctzll(bits)) * words;
                for (int64_t x = 0; x < words; x++) to[i * words + x] |= row[x];
            }
}

static int64_t count_missing(const uint64_t *bits, int64_t n, int64_t words, bool causal)
{
    int64_t missing = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < (causal ? i + 1 : n); j++) missing += !(bits[i * words + (j >> 6)] >> (j & 63) & 1);
    return missing;
}

void hd_reach_exact(const hd_layer *layer, int layers, int hops, int64_t n, bool causal, int64_t *missing, int64_t *missing_plain, unsigned char *first)
{
    const int64_t words = (n + 63) / 64;
    const size_t bytes = sizeof(uint64_t) * (size_t)(n * words);
    uint64_t *reads = hd_alloc(bytes), *kept = hd_alloc(bytes), *plain = hd_alloc(bytes), *next = hd_alloc(bytes);
    for (int64_t i = 0; i < n; i++) kept[i * words + (i >> 6)] |= UINT64_C(1) << (i & 63), plain[i * words + (i >> 6)] |= UINT64_C(1) << (i & 63);
    for (int h = 0; h < hops; h++) {
        const hd_layer *l = &layer[layers - 1 - (h < layers ? h : layers - 1)];
        memset(reads, 0, bytes);
        for (int c = 0; c < l->covers; c++) set_bits(l->cover[c], words, reads);
        uint64_t *swap;
        compose(plain, reads, next, n, words);
        swap = plain, plain = next, next = swap;
        for (int64_t i = 0; i < n; i++) reads[i * words + (i >> 6)] |= UINT64_C(1) << (i & 63);
        compose(kept, reads, next, n, words);
        swap = kept, kept = next, next = swap;
        missing[h] = count_missing(kept, n, words, causal);
        missing_plain[h] = count_missing(plain, n, words, causal);
        if (!first) continue;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                if (!first[i * n + j] && (kept[i * words + (j >> 6)] >> (j & 63) & 1)) first[i * n + j] = (unsigned char)(h + 1);
    }
}

/* ---- sampled ---- */

typedef struct sampler {
    int64_t n, words, spent;
    bool causal;
    uint64_t *from, *to, *seen;
    const hd_cover **cover; hd_rows *rows; int covers;      /* distinct ones, each with its index */
} sampler;

static const hd_rows *rows_of(sampler *s, const hd_cover *cover)
{
    for (int c = 0; c < s->covers; c++) if (s->cover[c] == cover) return &s->rows[c];
    s->cover[s->covers] = cover;
    s->rows[s->covers] = hd_rows_make(cover);
    return &s->rows[s->covers++];
}

/* Marks keys first..last - 1; returns how many were new. */
static int64_t mark(uint64_t *bits, int64_t first, int64_t last)
{
    int64_t added = 0;
    while (first < last) {
        const int64_t end = (first | 63) + 1 < last ? (first | 63) + 1 : last;
        const uint64_t mask = (end - first == 64 ? ~UINT64_C(0) : (UINT64_C(1) << (end - first)) - 1) << (first & 63);
        added += __builtin_popcountll(mask & ~bits[first >> 6]);
        bits[first >> 6] |= mask;
        first = end;
    }
    return added;
}

/* One hop: to = union of what every key of `from` reads, itself too if residual. Newest keys first: under a causal pattern
 * they read most, and a row that is complete ends the hop. False when the budget is spent. */
static bool hop(sampler *s, const hd_layer *layer, bool residual, int64_t wanted, int64_t *reached)
{
    hd_row row = { 0 };
    memset(s->to, 0, sizeof *s->to * (size_t)s->words);
    *reached = 0;
    for (int64_t w = s->words - 1; w >= 0; w--)
        for (uint64_t bits = s->from[w]; bits;) {
            const int64_t a = w * 64 + 63 - __builtin_clzll(bits);
            bits &= ~(UINT64_C(1) << (a & 63));
            if (residual) *reached += mark(s->to, a, a + 1);
            for (int c = 0; c < layer->covers; c++) {
                const hd_rows *rows = rows_of(s, layer->cover[c]);
                row.items = 0;
                for (int f = 0; f < rows->cover->families; f++) hd_rows_get(rows, f, a, &row);
                for (int p = 0; p < row.items; p++) {
                    const hd_progression *r = &row.item[p];
                    if (r->step == 1) *reached += mark(s->to, r->start, r->start + r->count), s->spent += 2 + r->count / 64;
                    else for (int64_t k = 0; k < r->count; k++) *reached += mark(s->to, r->start + k * r->step, r->start + k * r->step + 1);
                    if (r->step != 1) s->spent += 3 * r->count;
                }
                s->spent += 4;
            }
            if (*reached >= wanted) return true;
            if (s->spent > budget) return false;
        }
    return true;
}

/* ---- the section ---- */

typedef struct reach {
    hd_layer layer[256];
    int layers, heads;                   /* heads: distinct patterns of one layer, at most */
    int64_t n;
    bool causal;
} reach;

static const hd_cover *cover_of(const hd_use *use, int uses, const hd_pattern *p, int64_t n)
{
    for (int u = 0; u < uses; u++)
        if (use[u].cover->queries == n && use[u].cover->keys == n && hd_pattern_equal(use[u].pattern, p)) return use[u].cover;
    return NULL;
}

/* The self-attention layers of the entry that is drawn, in order. */
static void gather_layers(reach *r, const hd_graph *g, const hd_use *use, int uses)
{
    r->causal = true;
    bool *live;
    hd_diagram_entry(g, &live);
    for (int i = 0; i < g->nodes && r->layers < 256; i++) {
        const hd_node *n = g->node[i];
        if (n->op != HD_OP_attention || !live[i]) continue;
        const int64_t queries = n->input[0]->shape.size[n->input[0]->shape.rank - 2], keys = n->input[1]->shape.size[n->input[1]->shape.rank - 2];
        if (queries != keys || (r->n && queries != r->n)) continue;
        const hd_cover **cover = HD_NEW_ARRAY(const hd_cover *, n->attr.attention.patterns);
        int covers = 0;
        for (int h = 0; h < n->attr.attention.patterns; h++) {
            const hd_cover *c = cover_of(use, uses, n->attr.attention.pattern[h], queries);
            bool known = !c;
            for (int k = 0; k < covers; k++) known = known || cover[k] == c;
            if (known) continue;
            cover[covers++] = c;
        }
        if (!covers) continue;
        const hd_layer made = { covers, cover };
        bool same = r->layers > 0 && r->layer[r->layers - 1].covers == covers;
        for (int k = 0; same && k < covers; k++) same = r->layer[r->layers - 1].cover[k] == cover[k];
        if (!same)
            for (int h = 0; h < n->attr.attention.patterns; h++) r->causal = r->causal && hd_pattern_causal(n->attr.attention.pattern[h], queries, keys);
        r->n = queries;
        if (covers > r->heads) r->heads = covers;
        r->layer[r->layers++] = made;
    }
}

static const char *hops_looks(int value)
{
    static const char *const looks[] = { "", "class=\"px s5\"", "class=\"px s0\"", "class=\"px s4\"", "class=\"px s2\"", "class=\"px s1\"", "class=\"px s3\"", "class=\"px s6\"", "class=\"px s7\"", "class=\"px s7\" stroke-opacity=\".6\"" };
    return looks[value > 9 ? 9 : value];
}

/* pixel: 0 nothing wanted, 1 out of reach, 1 + h reached by hop h. */
static void draw_picture(hd_text *out, const unsigned char *pixel, int64_t rows, int64_t columns, double top, double width, double height)
{
    hd_text_add(out, "<g transform=\"translate(%d %.6g) scale(%.8g %.8g)\"><rect width=\"%" PRId64 "\" height=\"%" PRId64 "\" class=\"card\" vector-effect=\"non-scaling-stroke\"/><g transform=\"translate(0 .5)\">\n",
                LEFT, top, width / (double)columns, height / (double)rows, columns, rows);
    hd_pixels_draw(out, pixel, rows, columns, hops_looks);
    hd_text_add(out, "</g></g>\n");
}

typedef struct result { int hops; double wanted, missing[MOST_HOPS], plain[MOST_HOPS]; const char *note; } result;

/* The table: what stays out of reach after each hop, as numbers and as bars of what is reached. */
static double draw_table(hd_text *out, const result *r, bool sampled, double y)
{
    const double edge = HD_PAGE_WIDTH - HD_PAGE_MARGIN, bar = RIGHT + 96, most = 130;
    hd_page_text(out, RIGHT, y, "m z", "hops");
    hd_page_text(out, bar, y, "m z", "reached");
    hd_page_text(out, edge - 92, y, "m z e", "out of reach");
    hd_page_text(out, edge, y, "m z e", "no residual");
    y += 6;
    for (int h = 0; h < r->hops; h++) {
        y += 22;
        const double share = r->wanted > 0 ? 1 - r->missing[h] / r->wanted : 1;
        hd_text_add(out, "<svg x=\"%d\" y=\"%.6g\" width=\"13\" height=\"13\"><path %s stroke-width=\"26\" style=\"stroke-width:26\" d=\"M0 0h13\"/></svg>\n", RIGHT, y - 11, hops_looks(h + 2));
        hd_page_text(out, RIGHT + 22, y, "", "%d", h + 1);
        hd_page_rect(out, bar, y - 10, most, 11, "soft");
        hd_page_rect(out, bar, y - 10, most * share, 11, "f7");
        hd_page_text(out, edge - 92, y, r->missing[h] > 0 ? "e" : "e b", "%s", r->missing[h] <= 0 ? "none" : sampled ? hd_page_share(r->missing[h] / r->wanted) : hd_page_count((int64_t)r->missing[h]));
        if (r->plain[h] < 0) hd_page_text(out, edge, y, "e m", "\xe2\x80\x93");
        else hd_page_text(out, edge, y, "e m", "%s", r->plain[h] <= 0 ? "none" : sampled ? hd_page_share(r->plain[h] / r->wanted) : hd_page_count((int64_t)r->plain[h]));
    }
    y += 26;
    hd_page_rect(out, RIGHT, y - 11, 13, 13, "f5");
    hd_page_text(out, RIGHT + 22, y, "", "out of reach after %d hop%s", r->hops, r->hops == 1 ? "" : "s");
    return y + 24;
}

static double draw_exact(hd_text *out, const reach *r, result *x, int hops, double top)
{
    int64_t missing[MOST_HOPS], plain[MOST_HOPS];
    const int64_t n = r->n;
    unsigned char *first = hd_alloc((size_t)(n * n));
    hd_reach_exact(r->layer, r->layers, hops, n, r->causal, missing, plain, first);
    x->hops = hops;
    while (x->hops > (missing[0] == 0 ? 1 : 2) && missing[x->hops - 2] == 0) x->hops--;
    for (int h = 0; h < hops; h++) x->missing[h] = (double)missing[h], x->plain[h] = (double)plain[h];
    x->wanted = r->causal ? (double)n * (double)(n + 1) / 2 : (double)n * (double)n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            unsigned char *p = &first[i * n + j];
            *p = (unsigned char)(*p ? *p + 1 : !r->causal || j <= i);
        }
    const double side = (double)(n * (512 / n));
    draw_picture(out, first, n, n, top, side, side);
    return side;
}

static double draw_sampled(hd_text *out, const reach *r, result *x, int hops, double top, int *samples)
{
    const int64_t n = r->n, words = (n + 63) / 64, columns = n < CELLS ? n : CELLS;
    int distinct = 0;
    for (int l = 0; l < r->layers; l++) {
        distinct += r->layer[l].covers;
        for (int c = 0; c < r->layer[l].covers; c++) if (!hd_rows_fit(r->layer[l].cover[c])) return 0;
    }
    sampler s = { n, words, 0, r->causal, HD_NEW_ARRAY(uint64_t, words), HD_NEW_ARRAY(uint64_t, words), HD_NEW_ARRAY(uint64_t, words),
                  HD_NEW_ARRAY(const hd_cover *, distinct + 1), HD_NEW_ARRAY(hd_rows, distinct + 1), 0 };
    unsigned char *pixel = hd_alloc((size_t)(SAMPLES * columns));
    x->hops = hops;
    /* evenly spread, the far end first: where the budget ends early, the samples taken say most; the rows drawn keep their order */
    int taken[SAMPLES];
    for (int k = 0; k < SAMPLES && s.spent <= budget; k++) {
        int at = 0;
        for (int b = 1, v = k; b < SAMPLES; b *= 2, v /= 2) at = at * 2 + (v & 1);
        at = SAMPLES - 1 - at;
        const int64_t i = ((at + 1) * n) / SAMPLES - 1, wanted = r->causal ? i + 1 : n;
        unsigned char *line = pixel + (int64_t)at * columns;
        double missing[MOST_HOPS], plain[MOST_HOPS];
        bool done = true;
        int needed = hops;                   /* once everything is reached more hops add nothing, and without residuals are not asked for */
        for (int residual = 1; residual >= 0 && done; residual--) {
            memset(s.from, 0, sizeof *s.from * (size_t)words);
            mark(s.from, i, i + 1);
            for (int h = 0; h < hops; h++) (residual ? missing : plain)[h] = 0;
            for (int h = 0; h < needed && done; h++) {
                int64_t reached;
                done = hop(&s, &r->layer[r->layers - 1 - (h < r->layers ? h : r->layers - 1)], residual, wanted, &reached);
                (residual ? missing : plain)[h] = (double)(wanted - reached);
                if (residual && reached == wanted) needed = h + 1 > 2 ? h + 1 : 2;
                uint64_t *swap = s.from;
                s.from = s.to, s.to = swap;
                if (!residual || !done) continue;
                for (int64_t c = 0; c < columns; c++) {       /* a cell counts as reached when all its wanted keys are */
                    const int64_t from = (c * n + columns - 1) / columns, end = ((c + 1) * n + columns - 1) / columns, to = end < wanted ? end : wanted;
                    if (from >= to || line[c] > 1) continue;
                    int64_t key = from;
                    while (key < to && (s.from[key >> 6] >> (key & 63) & 1)) key++;
                    line[c] = (unsigned char)(key == to ? h + 2 : 1);
                }
            }
        }
        if (!done) {
            memset(line, 0, (size_t)columns);
            break;
        }
        for (int h = 0; h < hops; h++) x->missing[h] += missing[h], x->plain[h] += plain[h];
        x->wanted += (double)wanted;
        taken[(*samples)++] = at;
    }
    for (int c = 0; c < s.covers; c++) hd_rows_free(&s.rows[c]);
    if (!*samples) return 0;
    while (x->hops > (x->missing[0] == 0 ? 1 : 2) && x->missing[x->hops - 2] == 0) x->hops--;
    unsigned char *shown = hd_alloc((size_t)(*samples * columns));
    int rows = 0;
    for (int at = 0; at < SAMPLES; at++)
        for (int k = 0; k < *samples; k++)
            if (taken[k] == at) memcpy(shown + (int64_t)rows++ * columns, pixel + (int64_t)at * columns, (size_t)columns);
    const double height = rows * 9 < 90 ? 90 : rows * 9;
    draw_picture(out, shown, rows, columns, top, 512, height);
    return height;
}

double hd_reach_draw(hd_text *out, const hd_graph *g, const hd_use *use, int uses)
{
    enum { TOP = 92 };
    reach *r = HD_NEW(reach);
    gather_layers(r, g, use, uses);
    if (!r->layers || r->n < 2) return 0;
    int hops = r->layers < 2 ? 2 : r->layers < MOST_HOPS ? r->layers : MOST_HOPS, samples = 0;
    const bool exact = r->n <= EXACT;
    result x = { 0 };
    hd_text picture = { 0 };
    const double height = exact ? draw_exact(&picture, r, &x, hops, TOP) : draw_sampled(&picture, r, &x, hops, TOP, &samples);
    hd_page_text(out, HD_PAGE_MARGIN, 24, "h", "Reach");
    hd_page_text(out, HD_PAGE_MARGIN, 48, "m", "%s", r->layers == 1 ? "What a query could learn of if several layers read by this pattern: a hop is a layer, and a key that is read brings what it read itself."
                                                         : hd_format("What a query of the last of %d layers can learn of: a hop is a layer, and a key that is read brings what it read itself one layer below.", r->layers));
    if (!exact && !samples) {
        hd_page_text(out, HD_PAGE_MARGIN, 72, "m", "At this length even one query's reach takes too long to follow; a smaller -D length= shows it.");
        return 96;
    }
    hd_page_text(out, LEFT, TOP - 8, "m z", exact ? "every pair, exactly" : "%d sampled queries, each followed exactly; a cell counts once all its keys are reached", samples);
    hd_text_addn(out, picture.data, picture.length);
    if (!exact) hd_page_text(out, LEFT - 12, TOP + height, "m z e", "%s", hd_page_count(r->n - 1));
    const double two = x.missing[x.hops > 1 ? 1 : 0];
    double y = draw_table(out, &x, !exact, TOP + 12);
    const char *scope = r->causal ? "earlier keys" : "keys";
    if (x.missing[0] == 0) hd_page_text(out, RIGHT, y, "b", r->heads > 1 ? "The heads of one layer together read all %s." : "Every query reads all its %s at once.", scope);
    else if (two == 0) hd_page_text(out, RIGHT, y, "b", "Two hops connect every query with all its %s.", scope);
    else hd_page_text(out, RIGHT, y, "b", "After two hops %s of %s stay unseen.", hd_page_share(two / x.wanted), scope);
    y += 24;
    return (TOP + height > y ? TOP + height : y) + 20;
}
