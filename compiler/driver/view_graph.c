/* The graph as a diagram: one card for each stretch of it, a layer being the nodes whose names share a prefix that ends in a
 * number (h.0.attn.qkv, h.0.mlp.fc: h.0). Layers alike but for that number are drawn once, with their count. */
#include "view.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum {
    COLUMNS = 3, GAP = 28, CARD = (HD_PAGE_WIDTH - 2 * HD_PAGE_MARGIN - (COLUMNS - 1) * GAP) / COLUMNS,
    BOX = CARD - 92, BOX_LEFT = 18, BOX_HEIGHT = 36, STEP = 52, PLUS_STEP = 38, HEAD = 70,
    MOST_CARDS = 9, MOST_ITEMS = 32, MOST_INPUTS = 6, MOST_PERIOD = 6
};

/* One box: a node, with the nodes that belong to it (its bias, views of it). */
typedef struct item {
    const char *name;                    /* the user's, whole; NULL: none */
    hd_op op;
    const hd_node *node;
    bool bias;
    int times;                           /* nodes that do this */
    int inputs, input[MOST_INPUTS];      /* items */
    int stretch;
} item;

typedef struct stretch { int first, count; const char *prefix; size_t prefix_length; const char *signature; } stretch;

typedef struct diagram {
    int items, item_capacity; item *item;
    int stretches, stretch_capacity; stretch *stretch;
    int *item_of;                        /* by node id; -1: none */
} diagram;

/* Bytes of name up to the end of the scope that numbers a layer: the first that is a number (h.0.attn), else the first that ends
 * in one (h0.attn). The last part is no scope (ln_1). 0: there is none. */
static size_t layer_prefix(const char *name)
{
    size_t ending = 0;
    for (const char *s = name; s;) {
        const char *end = strchr(s, '.');
        if (!end) break;
        const char *digits = end;
        while (digits > s && isdigit((unsigned char)digits[-1])) digits--;
        if (digits == s && end > s) return (size_t)(end - name);
        if (digits < end && !ending) ending = (size_t)(end - name);
        s = end + 1;
    }
    return ending;
}

static bool is_view(hd_op op) { return op == HD_OP_result || op == HD_OP_reshape || op == HD_OP_slice || op == HD_OP_transpose || op == HD_OP_expand || op == HD_OP_detach; }

static void mark(const hd_node *n, bool *live)
{
    if (live[n->id]) return;
    live[n->id] = true;
    for (int i = 0; i < n->inputs; i++) mark(n->input[i], live);
}

const hd_entry *hd_diagram_entry(const hd_graph *g, bool **live)
{
    const hd_entry *entry = g->entry[0];
    for (int e = 0; e < g->entries; e++) if (!strcmp(g->entry[e]->name, "forward")) entry = g->entry[e];
    *live = HD_NEW_ARRAY(bool, g->nodes);
    for (int o = 0; o < entry->outputs; o++) mark(entry->output[o].node, *live);
    return entry;
}

static void add_input(item *to, int from)
{
    for (int i = 0; i < to->inputs; i++) if (to->input[i] == from) return;
    if (to->inputs < MOST_INPUTS) to->input[to->inputs++] = from;
}

/* An elementwise node that carries the name of what it reads is part of it: the bias of a linear layer. */
static int absorbed_by(const diagram *d, const hd_node *n)
{
    if (is_view(n->op)) return n->inputs ? d->item_of[n->input[0]->id] : -1;
    if (!n->name || strcmp(hd_ops[n->op].lowering, "map")) return -1;
    for (int i = 0; i < n->inputs; i++) {
        const int from = d->item_of[n->input[i]->id];
        if (from >= 0 && d->item[from].name && !strcmp(d->item[from].name, n->name)) return from;
    }
    return -1;
}

/* An item that does the same to the same: rope of q and of k, the chunks of rows a layer is computed in. -1: none. */
static int twin(const diagram *d, const hd_node *n)
{
    for (int i = d->items - 1; i >= 0; i--) {
        const item *it = &d->item[i];
        if (it->op != n->op || n->op == HD_OP_input || !it->name != !n->name || (n->name && strcmp(it->name, n->name)) || !hd_same_shape(&it->node->shape, &n->shape)) continue;
        bool same = true;
        for (int k = 0; k < n->inputs && same; k++) {
            const int from = d->item_of[n->input[k]->id];
            bool known = from < 0;
            for (int m = 0; m < it->inputs && !known; m++) known = it->input[m] == from;
            same = known;
        }
        if (same && it->inputs) return i;
    }
    return -1;
}

static void gather_items(diagram *d, const hd_graph *g, const bool *live)
{
    d->item_of = HD_NEW_ARRAY(int, g->nodes);
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        d->item_of[i] = -1;
        if (!live[i] || n->op == HD_OP_param || n->op == HD_OP_constant) continue;
        int into = absorbed_by(d, n);
        if (is_view(n->op)) {
            d->item_of[i] = into;
            continue;
        }
        const int same = into < 0 ? twin(d, n) : -1;
        if (same >= 0) d->item[into = same].times++;
        else if (into >= 0) d->item[into].bias = d->item[into].bias || (n->op == HD_OP_add && d->item[into].op == HD_OP_matmul);
        if (into < 0) {
            HD_PUSH(d->item, d->items, d->item_capacity, ((item){ .name = n->name, .op = n->op, .node = n, .times = 1 }));
            into = d->items - 1;
        }
        for (int k = 0; k < n->inputs; k++) {
            const int from = d->item_of[n->input[k]->id];
            if (from >= 0 && from != into) add_input(&d->item[into], from);
        }
        d->item_of[i] = into;
    }
}

/* ---- labels ---- */

static const char *own_name(const item *it, const stretch *s)
{
    if (!it->name) return NULL;
    return s->prefix_length && strlen(it->name) > s->prefix_length + 1 ? it->name + s->prefix_length + 1 : it->name;
}

static bool is_plus(const item *it) { return it->op == HD_OP_add && !it->name && it->inputs > 1; }

static const char *what_it_does(const item *it)
{
    const hd_node *n = it->node;
    const hd_shape *s = &n->shape;
    const long long width = s->rank ? (long long)s->size[s->rank - 1] : 1;
    switch (n->op) {
    case HD_OP_input: return hd_format("%s %s", n->dtype == HD_I32 ? "i32" : "f32", hd_shape_text(s));
    case HD_OP_matmul: {
        const hd_shape *a = &n->input[0]->shape;
        return hd_format("%lld \xe2\x86\x92 %lld%s", (long long)a->size[a->rank - (n->attr.matmul.trans_a ? 2 : 1)], width, it->bias ? ", bias" : "");
    }
    case HD_OP_attention: {
        int distinct = 0;
        for (int h = 0; h < n->attr.attention.patterns; h++) {
            bool known = false;
            for (int b = 0; b < h; b++) known = known || hd_pattern_equal(n->attr.attention.pattern[b], n->attr.attention.pattern[h]);
            distinct += !known;
        }
        const bool grouped = n->attr.attention.kv_heads != n->attr.attention.heads;
        return hd_format("%d head%s \xc3\x97 %d%s, %s", n->attr.attention.heads, n->attr.attention.heads == 1 ? "" : "s", n->attr.attention.head_dim, grouped ? hd_format(" (%d of k, v)", n->attr.attention.kv_heads) : "",
                         distinct > 1 ? hd_format("%d patterns", distinct) : hd_pattern_text(n->attr.attention.pattern[0]));
    }
    case HD_OP_embedding: return hd_format("embedding, %lld \xc3\x97 %lld", (long long)n->input[0]->shape.size[0], width);
    case HD_OP_layer_norm: case HD_OP_rms_norm: return hd_format("%s, width %lld", hd_ops[n->op].name, width);
    case HD_OP_dropout: return hd_format("dropout %g", n->attr.dropout.p);
    default: return hd_format("%s %s", hd_ops[n->op].name, hd_shape_text(s));
    }
}

static const char *signature_of(const diagram *d, const stretch *s)
{
    hd_text text = { 0 };
    hd_text_add(&text, "%zu", s->prefix_length ? (size_t)1 : 0);
    for (int i = s->first; i < s->first + s->count; i++) {
        const item *it = &d->item[i];
        const char *name = own_name(it, s);
        hd_text_add(&text, "|%s;%d;%d;%s", name ? name : "", (int)it->op, it->times, what_it_does(it));
        if (it->op == HD_OP_attention) for (int h = 0; h < it->node->attr.attention.patterns; h++) hd_text_add(&text, ";%s", hd_pattern_text(it->node->attr.attention.pattern[h]));
    }
    return text.data;
}

/* Nameless nodes stay where they are written: residual sums belong to the layer before them. */
static void cut_stretches(diagram *d)
{
    for (int i = 0; i < d->items; i++) {
        const item *it = &d->item[i];
        const size_t n = layer_prefix(it->name);
        stretch *last = d->stretches ? &d->stretch[d->stretches - 1] : NULL;
        const bool same = last && (!it->name || (n == last->prefix_length && !strncmp(it->name, last->prefix ? last->prefix : "", n)));
        if (same) last->count++;
        else HD_PUSH(d->stretch, d->stretches, d->stretch_capacity, ((stretch){ i, 1, n ? it->name : NULL, n, NULL }));
        d->item[i].stretch = d->stretches - 1;
    }
    for (int s = 0; s < d->stretches; s++) d->stretch[s].signature = signature_of(d, &d->stretch[s]);
}

/* ---- drawing ---- */

static double item_height(const item *it) { return is_plus(it) ? PLUS_STEP : STEP; }

static double card_height(const diagram *d, const stretch *s)
{
    double h = HEAD + 14;
    for (int i = 0; i < s->count && i < MOST_ITEMS; i++) h += item_height(&d->item[s->first + i]);
    return h + (s->count > MOST_ITEMS ? 22 : 0);
}

static void arrow(hd_text *out, double x, double y, char direction)
{
    if (direction == 'd') hd_text_add(out, "<path class=\"tip\" d=\"M%.6g %.6gl-4 -6h8z\"/>\n", x, y);
    else hd_text_add(out, "<path class=\"tip\" d=\"M%.6g %.6gl6 -4v8z\"/>\n", x, y);
}

static int colour_of(hd_op op)
{
    switch (op) {
    case HD_OP_matmul: case HD_OP_expert_matmul: return 0;
    case HD_OP_attention: return 1;
    case HD_OP_layer_norm: case HD_OP_rms_norm: case HD_OP_softmax: return 2;
    case HD_OP_embedding: return 6;
    case HD_OP_input: return 7;
    default: return 4;
    }
}

static void draw_box(hd_text *out, const item *it, const stretch *s, double x, double y)
{
    if (is_plus(it)) {
        hd_text_add(out, "<circle cx=\"%.6g\" cy=\"%.6g\" r=\"11\" class=\"card\"/><path class=\"edge\" d=\"M%.6g %.6gh10m-5 -5v10\"/>\n", x + BOX / 2, y + 11, x + BOX / 2 - 5, y + 11);
        return;
    }
    const char *name = own_name(it, s), *does = what_it_does(it);
    if (!name) name = hd_ops[it->op].name;
    hd_text_add(out, "<g><title>");
    hd_page_escape(out, hd_format("%s: %s%s", it->name ? it->name : name, does, it->node->where.file ? hd_format("  (%s:%d)", it->node->where.file, it->node->where.line) : ""));
    hd_text_add(out, "</title>\n<rect x=\"%.6g\" y=\"%.6g\" width=\"%d\" height=\"%d\" rx=\"5\" class=\"soft\"/><rect x=\"%.6g\" y=\"%.6g\" width=\"4\" height=\"%d\" class=\"f%d\"/>\n", x, y, BOX, BOX_HEIGHT, x, y, BOX_HEIGHT, colour_of(it->op));
    hd_page_text(out, x + 13, y + 15, "b", "%s%s", hd_page_clip(name, 26), it->times > 1 ? hd_format(" \xc3\x97 %d", it->times) : "");
    hd_page_text(out, x + 13, y + 30, "m z", "%s", hd_page_clip(does, 36));
    hd_text_add(out, "</g>\n");
}

/* Lines that pass boxes run in lanes at the right; the innermost lane that is free over the line's height is taken. */
typedef struct lane { double top, bottom; int number; } lane;

static void draw_card(hd_text *out, const diagram *d, int at, int period, int repeats, int part, double x, double y, double height)
{
    const stretch *s = &d->stretch[at];
    const int shown = s->count < MOST_ITEMS ? s->count : MOST_ITEMS;
    hd_text_add(out, "<rect x=\"%.6g\" y=\"%.6g\" width=\"%d\" height=\"%.6g\" rx=\"8\" class=\"card\"/>\n", x, y, CARD, height);
    const char *first = s->prefix_length ? hd_format("%.*s", (int)s->prefix_length, s->prefix) : s->first == 0 ? "before the layers" : at == d->stretches - 1 ? "after the layers" : "between layers";
    if (d->stretches == 1) first = "all of it";
    if (repeats > 1) {
        const stretch *last = &d->stretch[at + period * (repeats - 1)];
        size_t number = last->prefix_length;
        while (number && isdigit((unsigned char)last->prefix[number - 1])) number--;
        hd_page_text(out, x + BOX_LEFT, y + 28, "u", "%s \xe2\x80\xa6 %.*s", hd_page_clip(first, 20), (int)(last->prefix_length - number), last->prefix + number);
        hd_text_add(out, "<rect x=\"%.6g\" y=\"%.6g\" width=\"58\" height=\"24\" rx=\"12\" class=\"f0\"/>", x + CARD - 72, y + 11);
        hd_text_add(out, "<text x=\"%.6g\" y=\"%.6g\" class=\"i b\" style=\"fill:#fff\">\xc3\x97 %d</text>\n", x + CARD - 43, y + 28, repeats);
        if (part == 0 && period > 1) hd_page_text(out, x + BOX_LEFT, y + 45, "m z", "first of %d cards that repeat together", period);
    } else {
        hd_page_text(out, x + BOX_LEFT, y + 28, "u", "%s", hd_page_clip(first, 34));
    }

    double top[MOST_ITEMS], next = y + HEAD;
    for (int i = 0; i < shown; i++) top[i] = next, next += item_height(&d->item[s->first + i]);
    lane lanes[MOST_ITEMS * MOST_INPUTS];
    int lines = 0;
    const double left = x + BOX_LEFT, centre = left + BOX / 2, entry = y + HEAD - 12;
    for (int i = 0; i < shown; i++) {
        const item *it = &d->item[s->first + i];
        const bool plus = is_plus(it);
        for (int k = 0; k < it->inputs; k++) {
            const int from = it->input[k] - s->first;
            const bool outside = from < 0;
            if (from >= i || from >= shown) continue;
            if ((outside && i == 0) || (!outside && from == i - 1)) {
                const double begin = outside ? y + HEAD - 14 : top[from] + (is_plus(&d->item[s->first + from]) ? 22 : BOX_HEIGHT);
                hd_text_add(out, "<path class=\"edge\" d=\"M%.6g %.6gV%.6g\"/>\n", centre, begin, top[i] - 5);
                arrow(out, centre, top[i], 'd');
                continue;
            }
            const bool from_plus = !outside && is_plus(&d->item[s->first + from]);
            const double begin = outside ? entry : top[from] + (from_plus ? 11 : BOX_HEIGHT * .7), end = top[i] + (plus ? 11 : BOX_HEIGHT * .3);
            int number = 0;
            for (bool moved = true; moved;) {
                moved = false;
                for (int l = 0; l < lines; l++)
                    if (lanes[l].number == number && lanes[l].top < end + 3 && begin < lanes[l].bottom + 3) number++, moved = true;
            }
            lanes[lines++] = (lane){ begin, end, number };
            if (number > 5) continue;
            const double right = left + BOX + 14 + 9 * number, source = outside || from_plus ? centre + (outside ? 0 : 11) : left + BOX, target = plus ? centre + 11 : left + BOX;
            hd_text_add(out, "<path class=\"edge\" d=\"M%.6g %.6gH%.6gq6 0 6 6V%.6gq0 6 -6 6H%.6g\"/>\n", source, begin, right - 6, end - 6, target + 6);
            arrow(out, target, end, 'l');
        }
        draw_box(out, it, s, left, top[i]);
    }
    if (shown < s->count) hd_page_text(out, left, next + 8, "m", "and %d more", s->count - shown);
}

double hd_diagram_draw(hd_text *out, const hd_graph *g)
{
    if (!g->entries) return 0;
    bool *live;
    const hd_entry *entry = hd_diagram_entry(g, &live);
    diagram d = { 0 };
    gather_items(&d, g, live);
    cut_stretches(&d);
    hd_page_text(out, HD_PAGE_MARGIN, 24, "h", "Graph");
    hd_page_text(out, HD_PAGE_MARGIN, 48, "m", "Entry %s, read from top to bottom and left to right; views (split, reshape) are left out, a bias belongs to its product.", entry->name);

    double y = 68, row_height = 0, row_top = y;
    int cards = 0, at = 0, column = 0;
    struct { int at, period, repeats, part; } row[COLUMNS];
    while (at < d.stretches && cards < MOST_CARDS) {
        int period = 1, repeats = 1;
        for (int p = 1; p <= MOST_PERIOD && d.stretch[at].prefix_length; p++) {
            int r = 1;
            for (bool same = true; same;) {
                for (int k = 0; same && k < p; k++) {
                    const int other = at + r * p + k;
                    same = other < d.stretches && d.stretch[other].prefix_length && !strcmp(d.stretch[other].signature, d.stretch[at + k].signature);
                }
                if (same) r++;
            }
            if (r > 1 && r * p > repeats * period) period = p, repeats = r;
        }
        for (int part = 0; part < period && cards < MOST_CARDS; part++, cards++) {
            row[column].at = at + part, row[column].period = period, row[column].repeats = repeats, row[column].part = part;
            const double h = card_height(&d, &d.stretch[at + part]);
            if (h > row_height) row_height = h;
            if (++column < COLUMNS) continue;
            for (int c = 0; c < column; c++) draw_card(out, &d, row[c].at, row[c].period, row[c].repeats, row[c].part, HD_PAGE_MARGIN + c * (CARD + GAP), row_top, row_height);
            row_top += row_height + 24, row_height = 0, column = 0;
        }
        at += period * repeats;
    }
    for (int c = 0; c < column; c++) draw_card(out, &d, row[c].at, row[c].period, row[c].repeats, row[c].part, HD_PAGE_MARGIN + c * (CARD + GAP), row_top, row_height);
    if (column) row_top += row_height + 24;
    if (at < d.stretches) hd_page_text(out, HD_PAGE_MARGIN, row_top + 4, "m", "and %d more stretches", d.stretches - at), row_top += 24;
    return row_top + 8;
}
