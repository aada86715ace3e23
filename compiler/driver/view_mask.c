/* The mask of one pattern: true pixels, one per pair, for short lengths; for long ones a grid of cells, each as strong as the
 * share of its pairs that are kept, beside a window of true pixels. Colours are the families of the cover. */
#include "view.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIXELS = 512,                        /* longest side drawn pair by pair, and the picture's side */
    CELLS = 256,                         /* longest side of the grid otherwise */
    STRENGTHS = 12,                      /* level k: a share in (2^-(k+1), 2^-k] */
    LEFT = HD_PAGE_MARGIN + 54, TOP = 84, RIGHT = 664, RIGHT_WIDTH = HD_PAGE_WIDTH - HD_PAGE_MARGIN - RIGHT,
    MOST_RUNS_BYTES = 450 << 10,         /* true pixels that take more become cells */
    MOST_DATA_BYTES = 300 << 10          /* rows embedded for the script, all masks together */
};

typedef struct mask {
    const hd_use *use;
    const hd_cover *cover;
    int number;
    int64_t rows, columns;               /* of the picture, in pixels of its own */
    double width, height;                /* on the page */
    bool cells;
    double *profile;                     /* [rows] keys a query of each row of the picture keeps, on average */
} mask;

static double strength(int level) { return 1 - 0.072 * level; }

static int level_of(int64_t count, int64_t area)
{
    const int level = (int)floor(-log2((double)count / (double)area) + 1e-12);
    return level < 0 ? 0 : level < STRENGTHS ? level : STRENGTHS - 1;
}

static int64_t cell_start(int64_t cell, int64_t cells, int64_t n) { return (cell * n + cells - 1) / cells; }

static const char *family_looks(int value) { return hd_format("class=\"px s%d\"", (value - 1) % HD_PAGE_COLOURS); }

static const char *cell_looks(int value)
{
    return hd_format("class=\"px s%d\" stroke-opacity=\"%.3g\"", (value - 1) / STRENGTHS, strength((value - 1) % STRENGTHS));
}

/* value of a cell: 1 + strongest plane * STRENGTHS + level of all planes together. Returns the kept pairs of all cells. */
static int64_t fill_cells(const mask *m, unsigned char *pixel, int *weakest)
{
    const int planes = m->cover->families < HD_PAGE_COLOURS && !m->cover->rows ? m->cover->families : HD_PAGE_COLOURS;
    const int64_t cells = m->rows * m->columns;
    int64_t *counts = HD_NEW_ARRAY(int64_t, planes * cells + 1), kept = 0;
    hd_cover_density(m->cover, planes, (int)m->rows, (int)m->columns, counts);
    for (int64_t y = 0; y < m->rows; y++)
        for (int64_t x = 0; x < m->columns; x++) {
            const int64_t c = y * m->columns + x;
            int64_t sum = 0;
            int best = 0;
            for (int p = 0; p < planes; p++) {
                sum += counts[p * cells + c];
                if (counts[p * cells + c] > counts[best * cells + c]) best = p;
            }
            if (!sum) continue;
            const int64_t height = cell_start(y + 1, m->rows, m->cover->queries) - cell_start(y, m->rows, m->cover->queries);
            const int64_t width = cell_start(x + 1, m->columns, m->cover->keys) - cell_start(x, m->columns, m->cover->keys);
            const int level = level_of(sum, height * width);
            pixel[c] = (unsigned char)(1 + best * STRENGTHS + level);
            if (level > *weakest) *weakest = level;
            kept += sum;
            m->profile[y] += (double)sum / (double)height;
        }
    return kept;
}

static void choose_size(mask *m, bool cells)
{
    const int64_t q = m->cover->queries, k = m->cover->keys, longest = q > k ? q : k, side = cells ? CELLS : PIXELS;
    m->cells = cells;
    m->rows = q, m->columns = k;
    if (cells) {
        m->rows = q * side / longest, m->columns = k * side / longest;
        if (m->rows < 8) m->rows = q < 8 ? q : 8;
        if (m->columns < 8) m->columns = k < 8 ? k : 8;
    }
    /* whole pixels of the screen where that is possible, and never a mere line */
    const int64_t most = m->rows > m->columns ? m->rows : m->columns, zoom = PIXELS / most ? PIXELS / most : 1;
    m->width = (double)(m->columns * zoom), m->height = (double)(m->rows * zoom);
    if (m->width < 64) m->width = 64;
    if (m->height < 64) m->height = 64;
}

/* ---- one query's keys ---- */

static const char *row_text(const hd_row *row, int64_t i)
{
    hd_text text = { 0 };
    hd_text_add(&text, "query %s keeps %s key%s%s", hd_page_count(i), hd_page_count(row->keys), row->keys == 1 ? "" : "s", row->keys ? ": " : "");
    for (int n = 0; n < row->items; n++) {
        const hd_progression *p = &row->item[n];
        if (text.length > 66) { hd_text_add(&text, ", \xe2\x80\xa6"); break; }
        hd_text_add(&text, "%s%" PRId64, n ? ", " : "", p->start);
        const int64_t last = p->start + p->step * (p->count - 1);
        if (p->count == 2) hd_text_add(&text, ", %" PRId64, last);
        else if (p->count > 2 && p->step == 1) hd_text_add(&text, "\xe2\x80\x93%" PRId64, last);
        else if (p->count > 2) hd_text_add(&text, ", %" PRId64 ", \xe2\x80\xa6 %" PRId64, p->start + p->step, last);
    }
    return text.data;
}

/* The keys as filled boxes of height 1 in a row `columns` wide; a key narrower than `least` is drawn that wide. Keys too close
 * to be told apart, and yet not neighbours, are one box in the path that is drawn faint. */
static char *row_path(const hd_row *row, const mask *m, double least, bool faint)
{
    hd_text d = { 0 };
    const double scale = (double)m->columns / (double)m->cover->keys;
    hd_text_add(&d, "M0 0");
    for (int n = 0; n < row->items; n++) {
        const hd_progression *p = &row->item[n];
        const bool solid = (double)p->step * scale <= least;
        if (faint != (solid && p->step > 1)) continue;
        for (int64_t c = 0; c < (solid ? 1 : p->count); c++) {
            const double x = (double)(p->start + c * p->step) * scale;
            double w = solid ? (double)((p->count - 1) * p->step + 1) * scale : scale;
            if (w < least) w = least;
            hd_text_add(&d, "M%.5g 0h%.4gv1h%.4gz", x, w, -w);
        }
    }
    return d.data;
}

/* Query that row r of the picture stands for: itself, or the one in the middle of its cells. */
static int64_t query_of(const mask *m, int64_t r)
{
    if (!m->cells) return r;
    return (cell_start(r, m->rows, m->cover->queries) + cell_start(r + 1, m->rows, m->cover->queries) - 1) / 2;
}

/* pixels: the narrowest key, on the page */
static void draw_row(hd_text *out, const hd_row *row, const mask *m, const char *id, int pixels)
{
    const double least = pixels * (double)m->columns / m->width;
    hd_text_add(out, "<path id=\"m%d%s\" d=\"%s\"/><path id=\"m%d%sf\" fill-opacity=\".4\" d=\"%s\"/>", m->number, id, row_path(row, m, least, false), m->number, id, row_path(row, m, least, true));
}

static void draw_query(hd_text *out, const mask *m, const hd_rows *rows, int64_t query, double y)
{
    hd_row row = { 0 };
    hd_rows_all(rows, query, &row);
    const double sx = m->width / (double)m->columns, at = m->cells ? (double)query * (double)m->rows / (double)m->cover->queries : (double)query + 0.5;
    const double middle = TOP + at * m->height / (double)m->rows, thick = m->height / (double)m->rows < 5 ? 5 : m->height / (double)m->rows;
    hd_text_add(out, "<g id=\"m%dq\" transform=\"translate(%d %.5g)\"><path class=\"qf\" d=\"M-3 0l-7 -4v8z\"/><path class=\"q\" stroke-opacity=\".4\" d=\"M0 0h%.6g\"/><g class=\"qf\" transform=\"translate(0 %.4g) scale(%.6g %.4g)\">", m->number, LEFT, middle, m->width, -thick / 2, sx, thick);
    draw_row(out, &row, m, "k", 3);
    hd_text_add(out, "</g></g>\n<rect x=\"%d\" y=\"%.6g\" width=\"%.6g\" height=\"14\" class=\"soft\"/><g class=\"qf\" transform=\"translate(%d %.6g) scale(%.6g 14)\">", LEFT, y, m->width, LEFT, y, sx);
    draw_row(out, &row, m, "s", 1);
    hd_text_add(out, "</g>\n");
    hd_text_add(out, "<text id=\"m%dt\" x=\"%d\" y=\"%.6g\" class=\"b\">%s</text>\n", m->number, LEFT, y + 34, row_text(&row, query));
}

/* {m,k,q,c,r,w,h,t,cells,row:[[query,keys,start,step,count,...],...]} */
static void add_data(hd_text *data, const mask *m, const hd_rows *rows)
{
    hd_text_add(data, "%s{\"m\":%d,\"k\":%" PRId64 ",\"q\":%" PRId64 ",\"c\":%" PRId64 ",\"r\":%" PRId64 ",\"w\":%.6g,\"h\":%.6g,\"t\":%d,\"cells\":%d,\"row\":[", data->length ? ",\n" : "", m->number, m->cover->keys, m->cover->queries, m->columns,
                m->rows, m->width, m->height, TOP, m->cells);
    hd_row row = { 0 };
    for (int64_t r = 0; r < m->rows; r++) {
        hd_rows_all(rows, query_of(m, r), &row);
        hd_text_add(data, "%s[%" PRId64 ",%" PRId64, r ? "," : "", query_of(m, r), row.keys);
        for (int n = 0; n < row.items && data->length < MOST_DATA_BYTES; n++)
            hd_text_add(data, ",%" PRId64 ",%" PRId64 ",%" PRId64, row.item[n].start, row.item[n].step, row.item[n].count);
        hd_text_add(data, "]");
    }
    hd_text_add(data, "]}");
}

/* ---- beside the picture ---- */

static double draw_facts(hd_text *out, const mask *m, double y)
{
    const hd_cover *c = m->cover;
    const double pairs = (double)c->queries * (double)c->keys;
    hd_page_text(out, RIGHT, y + 30, "big", "%s", hd_page_share((double)c->kept_pairs / pairs));
    hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, y + 12, "e", "%s pairs kept", hd_page_count(c->kept_pairs));
    hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, y + 30, "e m", "of %s \xc3\x97 %s", hd_page_count(c->queries), hd_page_count(c->keys));
    y += 54;
    const double mean = (double)c->kept_pairs / (double)c->queries;
    const bool causal = c->queries == c->keys && hd_pattern_causal(m->use->pattern, c->queries, c->keys);
    hd_page_text(out, RIGHT, y, "m", "%s keys a query on average%s", mean >= 1000 ? hd_page_count((int64_t)(mean + 0.5)) : hd_format("%.1f", mean),
                 causal ? hd_format("; %s of the causal triangle", hd_page_share((double)c->kept_pairs / ((double)c->queries * (double)(c->queries + 1) / 2))) : "");
    if (c->empty_rows) hd_page_text(out, RIGHT, y += 18, "m", "%s quer%s no key: the output there is zero", hd_page_count(c->empty_rows), c->empty_rows == 1 ? "y keeps" : "ies keep");
    return y + 26;
}

/* Instead of families, where the cover lists rows. */
static double draw_shares(hd_text *out, const mask *m, double y)
{
    const hd_cover *c = m->cover;
    int64_t pairs[HD_SHARES];
    hd_cover_shares(c, pairs);
    hd_page_text(out, RIGHT, y, "b", "Rows of keys");
    hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, y, "e m", "%s runs of neighbouring keys", hd_page_count(c->rows->start[c->queries]));
    y = hd_page_lines(out, RIGHT, y + 20, "m z", 70, "Too irregular for families: tables list the keys. A vector holds 16 queries, here neighbours; colours say how many of them keep the same key, which is loaded once for all.") + 8;
    for (int s = 0; s < HD_SHARES; s++) {
        hd_page_rect(out, RIGHT, y - 9, 13, 13, hd_format("f%d rect", hd_share[s].colour));
        hd_page_text(out, RIGHT + 22, y + 2, "", "%s", hd_share[s].what);
        hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN - 60, y + 2, "e", "%s", hd_page_count(pairs[s]));
        hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, y + 2, "e m", "%s", hd_page_share(c->kept_pairs ? (double)pairs[s] / (double)c->kept_pairs : 0));
        y += 22;
    }
    return y + 16;
}

static double draw_families(hd_text *out, const mask *m, double y)
{
    const hd_cover *c = m->cover;
    if (c->rows) return draw_shares(out, m, y);
    const int shown = c->families > 9 ? 8 : c->families;
    hd_page_text(out, RIGHT, y, "b", "%s", shown < c->families ? "Tile families, the largest" : "Tile families");
    int *order = HD_NEW_ARRAY(int, c->families + 1);
    for (int f = 0; f < c->families; f++) {          /* by kept pairs when not all are shown; equal ones keep their order */
        int at = f;
        for (; shown < c->families && at > 0 && c->family[order[at - 1]].kept_pairs < c->family[f].kept_pairs; at--) order[at] = order[at - 1];
        order[at] = f;
    }
    for (int k = 0; k < shown; k++) {
        const int f = order[k];
        const hd_family *family = &c->family[f];
        y += 22;
        hd_page_rect(out, RIGHT, y - 11, 13, 13, hd_format("f%d rect", f % HD_PAGE_COLOURS));
        hd_page_text(out, RIGHT + 22, y, "", "%s%s", hd_page_clip(family->what ? family->what : "tiles", 42), f ? "" : " (home)");
        hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, y, "e", "%s", hd_page_count(family->kept_pairs));
        if (family->groups < 1) continue;
        const hd_group g = hd_family_group(c, family, 0);
        y += 16;
        hd_page_text(out, RIGHT + 22, y, "m z", "%s group%s%s quer%s \xc3\x97 %s key%s", hd_page_count(family->groups), family->groups == 1 ? " of " : "s, the first ", hd_page_count(g.q_count), g.q_count == 1 ? "y" : "ies", hd_page_count(g.k_count), g.k_count == 1 ? "" : "s");
        hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, y, "e m z", "%s of the kept", hd_page_share(c->kept_pairs ? (double)family->kept_pairs / (double)c->kept_pairs : 0));
    }
    if (shown < c->families) hd_page_text(out, RIGHT + 22, y += 20, "m", "and %d more; colours repeat after %d", c->families - shown, HD_PAGE_COLOURS);
    return y + 30;
}

static double draw_scale(hd_text *out, const mask *m, int weakest, double y)
{
    hd_page_text(out, RIGHT, y, "m z", "cells of %s \xc3\x97 %s pairs, stronger the more of them are kept (log scale)",
                 hd_page_count((m->cover->queries + m->rows - 1) / m->rows), hd_page_count((m->cover->keys + m->columns - 1) / m->columns));
    y += 8;
    const int levels = weakest + 1 < 4 ? 4 : weakest + 1;
    const double w = (double)RIGHT_WIDTH / levels;
    for (int k = 0; k < levels; k++) {
        const double x = RIGHT + w * (levels - 1 - k);
        hd_text_add(out, "<rect x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"10\" class=\"f0\" fill-opacity=\"%.3g\"/>\n", x, y, w - 1, strength(k));
        if (k % 3 == 0) hd_page_text(out, x + w - 1, y + 23, "e m z", "%s", k ? hd_page_share(ldexp(1, -k)) : "all");
    }
    return y + 46;
}

/* True pixels where the last queries meet the last keys they keep. */
static double draw_window(hd_text *out, const mask *m, double y)
{
    enum { SIDE = 208 };
    const hd_cover *c = m->cover;
    const int64_t rows = c->queries < SIDE ? c->queries : SIDE, columns = c->keys < SIDE ? c->keys : SIDE, q0 = c->queries - rows;
    hd_progression *list;
    const int items = hd_pattern_row(m->use->pattern, q0 + rows / 2, c->keys, &list);
    int64_t k0 = c->keys;
    if (items) k0 = list[items - 1].start + list[items - 1].step * (list[items - 1].count - 1) + rows / 2 + rows % 2;
    k0 = k0 > c->keys ? c->keys - columns : k0 < columns ? 0 : k0 - columns;
    unsigned char *pixel = hd_alloc((size_t)(rows * columns));
    hd_cover_pixels(c, q0, rows, k0, columns, pixel);
    hd_text_add(out, "<g transform=\"translate(%d %.6g)\"><rect x=\"-.5\" y=\"-.5\" width=\"%d\" height=\"%d\" class=\"card\"/><g transform=\"translate(0 .5)\">\n", RIGHT, y, (int)columns + 1, (int)rows + 1);
    hd_pixels_draw(out, pixel, rows, columns, family_looks);
    hd_text_add(out, "</g></g>\n");
    const double x = RIGHT + (double)columns + 18;
    hd_page_text(out, x, y + 14, "b", "Pair by pair");
    hd_page_text(out, x, y + 34, "m", "the last queries:");
    hd_page_text(out, x, y + 54, "m", "queries %s\xe2\x80\x93%s", hd_page_count(q0), hd_page_count(q0 + rows - 1));
    hd_page_text(out, x, y + 74, "m", "keys %s\xe2\x80\x93%s", hd_page_count(k0), hd_page_count(k0 + columns - 1));
    return y + (double)rows + 12;
}

/* How many keys each query keeps, first query left. */
static double draw_profile(hd_text *out, const mask *m, double y)
{
    enum { HEIGHT = 64 };
    double most = 0;
    for (int64_t r = 0; r < m->rows; r++) if (m->profile[r] > most) most = m->profile[r];
    if (most <= 0 || m->rows < 2) return y;
    hd_page_text(out, RIGHT, y, "b", "Keys a query keeps");
    const char *highest = hd_page_count((int64_t)(most + 0.5));
    hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, y, "e m z", "%s", !m->cells ? hd_format("at most %s", highest)
                 : hd_format("means of %s queries, the highest %s", hd_page_count((m->cover->queries + m->rows - 1) / m->rows), highest));
    y += 8;
    const double w = (double)RIGHT_WIDTH / (double)m->rows, bottom = y + HEIGHT;
    hd_text_add(out, "<path class=\"f7\" d=\"M%d %.6g", RIGHT, bottom);
    for (int64_t r = 0, end; r < m->rows; r = end) {
        for (end = r + 1; end < m->rows && m->profile[end] == m->profile[r]; end++) { }
        hd_text_add(out, "V%.5gH%.5g", bottom - HEIGHT * m->profile[r] / most, RIGHT + w * (double)end);
    }
    hd_text_add(out, "V%.6gz\"/>\n", bottom);
    hd_page_text(out, RIGHT, bottom + 15, "m z", "query 0");
    hd_page_text(out, HD_PAGE_WIDTH - HD_PAGE_MARGIN, bottom + 15, "m z e", "%s", hd_page_count(m->cover->queries - 1));
    return bottom + 42;
}

/* ---- all of it ---- */

static void draw_axes(hd_text *out, const mask *m)
{
    const double right = LEFT + m->width, bottom = TOP + m->height;
    hd_page_text(out, LEFT, TOP - 8, "m z", "key 0");
    hd_page_text(out, right, TOP - 8, "m z e", "%s", hd_page_count(m->cover->keys - 1));
    hd_page_text(out, LEFT - 12, TOP + 10, "m z e", "query 0");
    hd_page_text(out, LEFT - 12, bottom, "m z e", "%s", hd_page_count(m->cover->queries - 1));
}

static double draw_title(hd_text *out, const hd_use *use)
{
    hd_page_text(out, HD_PAGE_MARGIN, 20, "u", "%s", hd_page_clip(hd_pattern_text(use->pattern), 116));
    hd_text who = { 0 };
    hd_text_add(&who, "%s:%d", use->where.file ? use->where.file : "", use->where.line);
    hd_text_add(&who, "; %s %d attention operation%s, %d head%s", use->nodes == 1 ? "used by" : "shared by", use->nodes, use->nodes == 1 ? "" : "s", use->heads, use->heads == 1 ? "" : "s in all");
    if (use->first) hd_text_add(&who, ": %s", use->first);
    if (use->last && use->last != use->first && strcmp(use->last, use->first ? use->first : "")) hd_text_add(&who, " to %s", use->last);
    hd_page_text(out, HD_PAGE_MARGIN, 42, "m", "%s", hd_page_clip(who.data, 150));
    return 0;
}

double hd_mask_draw(hd_text *out, const hd_use *use, int number, int64_t query, hd_text *data)
{
    mask m = { .use = use, .cover = use->cover, .number = number };
    choose_size(&m, m.cover->queries > PIXELS || m.cover->keys > PIXELS);
    hd_text picture = { 0 };
    int weakest = 0;
    int64_t kept = 0;
    for (;;) {
        unsigned char *pixel = hd_alloc((size_t)(m.rows * m.columns));
        picture = (hd_text){ 0 };
        m.profile = HD_NEW_ARRAY(double, m.rows);
        if (m.cells) {
            kept = fill_cells(&m, pixel, &weakest);
            hd_pixels_draw(&picture, pixel, m.rows, m.columns, cell_looks);
        } else {
            hd_cover_pixels(m.cover, 0, m.rows, 0, m.columns, pixel);
            for (int64_t p = 0; p < m.rows * m.columns; p++) kept += pixel[p] != 0, m.profile[p / m.columns] += pixel[p] != 0;
            hd_pixels_draw(&picture, pixel, m.rows, m.columns, family_looks);
            if (picture.length > MOST_RUNS_BYTES) {
                choose_size(&m, true);
                kept = 0;
                continue;
            }
        }
        break;
    }
    draw_title(out, use);
    draw_axes(out, &m);
    hd_text_add(out, "<g id=\"m%d\" class=\"mask\" data-kept-pairs=\"%" PRId64 "\" data-cells=\"%d\" transform=\"translate(%d %d) scale(%.8g %.8g)\"><rect width=\"%" PRId64 "\" height=\"%" PRId64 "\" class=\"card\" vector-effect=\"non-scaling-stroke\"/><g transform=\"translate(0 .5)\">\n%s</g></g>\n",
                number, kept, m.cells, LEFT, TOP, m.width / (double)m.columns, m.height / (double)m.rows, m.columns, m.rows, picture.data ? picture.data : "");

    double left = TOP + m.height + 14;
    const bool marked = query >= 0 && query < m.cover->queries;
    if ((data || marked) && hd_rows_fit(m.cover)) {
        hd_rows rows = hd_rows_make(m.cover);
        const int64_t shown = marked ? query : query_of(&m, m.rows * 3 / 4);
        draw_query(out, &m, &rows, shown, left + 6);
        if (data) add_data(data, &m, &rows);
        hd_rows_free(&rows);
        left += 44;
        if (data) hd_page_text(out, LEFT, left + 14, "m z", "point at the picture for another query");
        left += 14;
    }
    double right = draw_facts(out, &m, TOP);
    right = draw_families(out, &m, right);
    right = draw_profile(out, &m, right);
    if (m.cells) right = draw_scale(out, &m, weakest, right);
    if (m.cells) right = draw_window(out, &m, right);
    return (left > right ? left : right) + 16;
}
