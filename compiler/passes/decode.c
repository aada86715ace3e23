/* Decoding: entries prefill (some positions of one stream) and step (one position of every stream), derived from the forward entry
 * of a causal language model.
 *
 * The forward graph computes all positions 0 .. length - 1. A derived one computes a few rows that begin at a position known at run
 * time only (`first`, of each stream). Most operations treat each position by itself: they become the same operation on fewer rows.
 * Positions enter in four ways, and only there do nodes differ:
 *   attention       reads the keys of earlier positions from the cache, whose layout follows from the pattern (pattern/cache.h)
 *   rope            turns by the positions of the rows
 *   learnt tables   anything without tokens that has a row for each position: its rows are looked up (rows_of)
 *   shift           reads the row before, which the cache keeps. But where logits at position t are for token t, row t is
 *                   given token t - 1 to begin with: what lies before the first shift has the position before, and the shift only puts
 *                   the start into the row of position 0
 * All else that mixes positions is refused, with the spec's line (graph/positions.c follows them).
 *
 * Prefill needs logits of its last position only. What only they need is computed for one row: `last` below. What attention needs for
 * all rows anyway is computed once, for all rows, and the row taken from there. */
#include "decode.h"

#include "../pattern/cache.h"
#include "../pattern/pattern.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct derivation {
    hd_graph *g;
    const hd_node *tokens;
    const int *axis;           /* by node id, of the forward graph: hd_position_axes */
    const bool *shifted;       /* by node id: behind the shift of a model whose logits at position t are for token t */
    const bool *full;          /* by node id: attention reads it, so all rows are computed */
    struct hd_cache **cache;   /* by node id, of attentions; shared by both entries */
    hd_kept_rows **kept;       /* by node id, of shifts */
    int64_t streams, rows, batch, length;
    hd_node *ids, *first;      /* the inputs: tokens [streams, rows], positions of row 0 [streams] */
    hd_node **made, **made_last;           /* by node id of the forward graph */
    int keys, key_capacity; hd_node **key; /* cache_keys nodes: one for all caches that have the same */
    bool learnt;               /* some table has rows for `length` positions only */
    const char *refusal;
} derivation;

static hd_node *refuse(derivation *d, const hd_node *n, const char *format, ...) __attribute__((format(printf, 3, 4)));
static hd_node *refuse(derivation *d, const hd_node *n, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!d->refusal) d->refusal = hd_format("%s:%d: %s%s%s%s %s", n->where.file ? n->where.file : "", n->where.line, hd_ops[n->op].name, n->name ? " \"" : "", n->name ? n->name : "", n->name ? "\"" : "", text);
    return NULL;
}

static hd_node *add(derivation *d, const hd_node *like, hd_op op, hd_dtype dtype, const hd_shape *shape, int inputs, hd_node *const *input, const hd_attr *attr)
{
    d->g->scope = like->name;
    hd_node *n = hd_graph_add(d->g, op, like->where, dtype, shape, inputs, input, attr);
    d->g->scope = NULL;
    return n;
}

static hd_node *reshaped(derivation *d, const hd_node *like, hd_node *x, const hd_shape *shape)
{
    return hd_same_shape(&x->shape, shape) ? x : add(d, like, HD_OP_reshape, x->dtype, shape, 1, &x, NULL);
}

/* ---- tensors without tokens that have a row for each position ---- */

/* Which row: digit of the position, ((position + offset) / divide) mod modulo; modulo 0: none. size 1: no matter. */
typedef struct digit { int64_t size, offset, divide, modulo; } digit;

static hd_node *ids_of(derivation *d, const hd_node *like, const digit *x)
{
    const hd_attr attr = { .position_ids = { d->rows, x->offset, x->divide, x->modulo } };
    return add(d, like, HD_OP_position_ids, HD_I32, NULL, 1, &d->first, &attr);
}

/* [streams, rows, rest...] where n is [axes..., rest...] and the digits say which element of each axis a position has. */
static hd_shape with_rows(const derivation *d, const hd_shape *s, int axes)
{
    hd_shape out = { .rank = 2 + s->rank - axes, .size = { d->streams, d->rows } };
    for (int i = axes; i < s->rank; i++) out.size[2 + i - axes] = s->size[i];
    return out;
}

static int64_t span(const hd_shape *s, int from, int to)
{
    int64_t product = 1;
    for (int i = from; i < to; i++) product *= s->size[i];
    return product;
}

static hd_node *gather(derivation *d, hd_node *n, int axes, const digit *digits);

static hd_node *gather_leaf(derivation *d, hd_node *n, int axes, const digit *digits)
{
    int counting = -1;
    for (int i = 0; i < axes; i++) {
        if (digits[i].size == 1) continue;
        if (counting >= 0) return refuse(d, n, "has positions on two of its axes, whose rows cannot be looked up");
        counting = i;
    }
    const hd_shape rest = with_rows(d, &n->shape, axes);
    const hd_shape one = { .rank = 2, .size = { counting < 0 ? 1 : digits[counting].size, span(&n->shape, axes, n->shape.rank) } };
    digit zero = { 1, 0, 1, 1 };
    hd_node *const inputs[] = { reshaped(d, n, n, &one), ids_of(d, n, counting < 0 ? &zero : &digits[counting]) };
    d->learnt |= counting >= 0;
    return reshaped(d, n, add(d, n, HD_OP_embedding, HD_F32, NULL, 2, inputs, NULL), &rest);
}

/* The axes of a reshape's input that make up its leading axes, as digits of these. */
static hd_node *gather_reshape(derivation *d, hd_node *n, int axes, const digit *digits)
{
    hd_node *x = n->input[0];
    const int64_t positions = span(&n->shape, 0, axes);
    int leading = 0;
    while (leading < x->shape.rank && span(&x->shape, 0, leading) < positions) leading++;
    while (leading < x->shape.rank && x->shape.size[leading] == 1 && span(&x->shape, leading, x->shape.rank) > span(&n->shape, axes, n->shape.rank)) leading++;
    digit split[HD_MAX_RANK];
    const digit *whole = NULL;
    int counting = 0, own = 0;
    for (int i = 0; i < axes; i++) if (digits[i].size > 1) whole = &digits[i], counting++;
    if (span(&x->shape, 0, leading) != positions || counting > 1) return gather_leaf(d, n, axes, digits);
    for (int i = 0; i < leading; i++) own += x->shape.size[i] > 1;
    int64_t after = positions;
    for (int i = 0; i < leading; i++) {
        const int64_t size = x->shape.size[i];
        after /= size;
        split[i] = (digit){ size, 0, 1, 1 };
        if (size > 1) split[i] = own == 1 ? *whole : (digit){ size, whole->offset, whole->divide * after, size };
    }
    hd_node *made = gather(d, x, leading, split);
    const hd_shape rest = with_rows(d, &n->shape, axes);
    return made ? reshaped(d, n, made, &rest) : NULL;
}

static bool is_map(const hd_node *n) { return !strcmp(hd_ops[n->op].lowering, "map") && n->op != HD_OP_constant && n->op != HD_OP_expand && n->op != HD_OP_accumulate && n->op != HD_OP_dropout; }

/* The digits of an input that broadcasts to n: its axes count from the last. */
static int digits_of_input(const hd_node *n, const hd_node *x, int axes, const digit *digits, digit *out)
{
    const int lead = n->shape.rank - x->shape.rank, own = axes > lead ? axes - lead : 0;
    for (int i = 0; i < own; i++) out[i] = x->shape.size[i] == 1 ? (digit){ 1, 0, 1, 1 } : digits[i + lead];
    return own;
}

/* [streams, rows, rest...]: what a tensor [axes..., rest...] without tokens holds for the positions of the rows. */
static hd_node *gather(derivation *d, hd_node *n, int axes, const digit *digits)
{
    if (n->op == HD_OP_constant) {
        const hd_shape shape = with_rows(d, &n->shape, axes);
        return add(d, n, HD_OP_constant, HD_F32, &shape, 0, NULL, &n->attr);
    }
    if (n->op == HD_OP_reshape) return gather_reshape(d, n, axes, digits);
    if (n->op == HD_OP_expand || is_map(n)) {
        hd_node *input[4];
        const hd_shape shape = with_rows(d, &n->shape, axes);
        for (int i = 0; i < n->inputs; i++) {
            digit own[HD_MAX_RANK];
            const int count = digits_of_input(n, n->input[i], axes, digits, own);
            bool any = false;
            for (int k = 0; k < count; k++) any = any || own[k].size > 1;
            if (any) input[i] = gather(d, n->input[i], count, own);
            else {             /* the same for every position: without the leading axes of size 1 */
                hd_shape rest = { .rank = n->input[i]->shape.rank - count };
                for (int k = 0; k < rest.rank; k++) rest.size[k] = n->input[i]->shape.size[k + count];
                input[i] = reshaped(d, n, n->input[i], &rest);
            }
            if (!input[i]) return NULL;
        }
        return add(d, n, n->op, HD_F32, n->op == HD_OP_expand ? &shape : NULL, n->inputs, input, &n->attr);
    }
    if (n->op == HD_OP_slice) {
        const int axis = n->attr.slice.axis;
        digit own[HD_MAX_RANK];
        hd_attr attr = n->attr;
        memcpy(own, digits, sizeof *own * (size_t)axes);
        if (axis >= axes) {
            hd_node *x = gather(d, n->input[0], axes, own);
            const hd_shape shape = with_rows(d, &n->shape, axes);
            attr.slice.axis = 2 + axis - axes;
            return x ? add(d, n, HD_OP_slice, HD_F32, &shape, 1, &x, &attr) : NULL;
        }
        if (own[axis].divide == 1 && !own[axis].modulo && own[axis].size > 1) {
            own[axis].offset += attr.slice.start, own[axis].size = n->input[0]->shape.size[axis];
            return gather(d, n->input[0], axes, own);
        }
    }
    return gather_leaf(d, n, axes, digits);
}

/* A tensor without tokens, as an operand of n at its rows: as it is, if it is the same for all positions and sequences. */
static hd_node *operand_of(derivation *d, const hd_node *n, hd_node *x)
{
    const int axis = d->axis[n->id] - (n->shape.rank - x->shape.rank);       /* of x */
    const bool counts = axis >= 0 && x->shape.size[axis] > 1, sequences = x->shape.rank == n->shape.rank && x->shape.size[0] > 1;
    if (!counts && !sequences) return x;
    if (x->op == HD_OP_constant || x->op == HD_OP_expand) {      /* numbers, or what is repeated for every row */
        hd_shape shape = x->shape;
        if (sequences) shape.size[0] = d->streams;
        if (counts) shape.size[axis] = d->rows;
        if (x->op == HD_OP_constant) return add(d, x, HD_OP_constant, HD_F32, &shape, 0, NULL, &x->attr);
        hd_node *from = operand_of(d, n, x->input[0]);
        return from ? add(d, x, HD_OP_expand, HD_F32, &shape, 1, &from, NULL) : NULL;
    }
    if (sequences || span(&x->shape, 0, axis) > 1) return refuse(d, x, "has rows of its own for sequences or heads, and for positions");
    digit digits[HD_MAX_RANK];
    for (int i = 0; i < axis; i++) digits[i] = (digit){ 1, 0, 1, 1 };
    digits[axis] = (digit){ x->shape.size[axis], d->shifted[n->id] || !d->g->predicts_same ? 0 : -1, 1, 0 };
    hd_node *rows = gather(d, x, axis + 1, digits);
    if (!rows) return NULL;
    hd_shape shape = { .rank = n->shape.rank };                  /* [streams, 1..., rows, rest...] */
    for (int i = 0; i < n->shape.rank; i++) shape.size[i] = i == 0 ? d->streams : i < d->axis[n->id] ? 1 : i == d->axis[n->id] ? d->rows : x->shape.size[i - (n->shape.rank - x->shape.rank)];
    return reshaped(d, x, rows, &shape);
}

/* ---- nodes with positions ---- */

static hd_node *derive(derivation *d, hd_node *n, bool last);

static hd_node *last_row_of(derivation *d, hd_node *n)
{
    hd_node *x = derive(d, n, false);
    const hd_attr attr = { .row = { .axis = d->axis[n->id] } };
    return x ? add(d, n, HD_OP_last_row, HD_F32, NULL, 1, &x, &attr) : NULL;
}

static hd_node *keys_of(derivation *d, const hd_node *n, const struct hd_cache *cache)
{
    for (int i = 0; i < d->keys; i++) if (hd_cache_same_keys(d->key[i]->attr.cache_keys.cache, cache)) return d->key[i];
    const hd_attr attr = { .cache_keys = { cache, d->rows } };
    hd_node *made = add(d, n, HD_OP_cache_keys, HD_I32, NULL, 1, &d->first, &attr);
    HD_PUSH(d->key, d->keys, d->key_capacity, made);
    return made;
}

static hd_node *derive_attention(derivation *d, hd_node *n)
{
    const char *refusal = hd_cache_refusal(n);
    if (refusal) return refuse(d, n, "%s", refusal);
    if (!d->cache[n->id]) d->cache[n->id] = hd_cache_make(&n->attr, d->length);
    hd_node *input[HD_MAX_INPUTS_FIXED];
    int inputs = 0;
    for (int i = 0; i < 3; i++) if (!(input[inputs++] = derive(d, n->input[i], false))) return NULL;
    input[inputs++] = keys_of(d, n, d->cache[n->id]);
    input[inputs++] = d->first;
    for (int i = 3; i < n->inputs; i++) input[inputs++] = n->input[i];
    hd_attr attr = n->attr;
    attr.attention.cache = d->cache[n->id];
    return add(d, n, HD_OP_attention_cached, HD_F32, NULL, inputs, input, &attr);
}

static hd_node *derive_shift(derivation *d, hd_node *n)
{
    hd_node *x = n->input[0], *input[3] = { derive(d, x, false), n->input[1], d->first };
    if (!input[0]) return NULL;
    hd_attr attr = { .row = { .axis = n->attr.shift.axis } };
    if (d->g->predicts_same && !d->shifted[x->id]) return add(d, n, HD_OP_first_row, HD_F32, NULL, 3, input, &attr);
    if (!d->kept[n->id]) d->kept[n->id] = HD_NEW(hd_kept_rows), d->kept[n->id]->bytes = (8 * hd_elements(&x->shape) / (d->batch * d->length) + 63) / 64 * 64;
    attr.row.kept = d->kept[n->id];
    return add(d, n, HD_OP_shift_cached, HD_F32, NULL, 3, input, &attr);
}

/* The shape of n for the derived rows. Axis 0: rows of all sequences, one after the other. */
static hd_shape rows_shape(const derivation *d, const hd_node *n, bool last)
{
    hd_shape shape = n->shape;
    const int axis = d->axis[n->id];
    const int64_t rows = last ? 1 : d->rows;
    shape.size[0] = axis ? d->streams : d->streams * rows;
    if (axis) shape.size[axis] = rows;
    return shape;
}

static hd_node *derive_same(derivation *d, hd_node *n, bool last)
{
    hd_node *input[64];
    if (n->inputs > 64) return refuse(d, n, "has more than 64 inputs");
    for (int i = 0; i < n->inputs; i++) {
        hd_node *x = n->input[i];
        const bool broadcasts = is_map(n) || n->op == HD_OP_concat;
        input[i] = d->axis[x->id] != HD_NO_POSITIONS ? derive(d, x, last) : broadcasts ? operand_of(d, n, x) : x;
        if (!input[i]) return NULL;
        if (n->op == HD_OP_matmul && i == 1 && x->shape.rank > 2) return refuse(d, n, "multiplies by matrices of its own for each sequence or head");
    }
    if (n->op == HD_OP_result) return hd_graph_result(d->g, input[0], n->attr.result.index);
    const hd_shape shape = rows_shape(d, n, last);
    const bool states = n->op == HD_OP_reshape || n->op == HD_OP_slice || n->op == HD_OP_expand;
    hd_node *made = add(d, n, n->op, n->dtype, states ? &shape : NULL, n->inputs, input, &n->attr);
    return hd_same_shape(&made->shape, &shape) ? made : refuse(d, n, "joins sequences and positions");
}

/* Reads a tensor without tokens that may differ from row to row. */
static bool reads_rows(const derivation *d, const hd_node *n)
{
    for (int i = 0; i < n->inputs; i++)
        if ((is_map(n) || n->op == HD_OP_concat) && d->axis[n->input[i]->id] == HD_NO_POSITIONS && hd_elements(&n->input[i]->shape) > 1 && n->input[i]->shape.rank > n->shape.rank - d->axis[n->id] - 1) return true;
    return n->op == HD_OP_rope || n->op == HD_OP_attention || n->op == HD_OP_shift;
}

/* n for the rows of the derived entry; last: for the last one in use alone. NULL: refused. */
static hd_node *derive(derivation *d, hd_node *n, bool last)
{
    hd_node **made = last ? &d->made_last[n->id] : &d->made[n->id];
    if (*made || d->refusal) return *made;
    if (d->axis[n->id] < 0 || (d->axis[n->id] > 0 && n->shape.size[0] != d->batch)) return refuse(d, n, "mixes positions");
    if (d->axis[n->id] == 0) {                       /* parts of the rows: what is made of each is made of all (graph/positions.c) */
        if (n->op == HD_OP_slice && n->attr.slice.axis == 0) return *made = derive(d, n->input[0], last);
        if (n->op == HD_OP_concat && n->attr.concat.axis == 0) return *made = derive(d, n->input[0], last);
        if (n->op == HD_OP_attention || n->op == HD_OP_rope || n->op == HD_OP_shift) return refuse(d, n, "has no axis of sequences before its positions");
    }
    if (last && (d->full[n->id] || reads_rows(d, n) || n == d->tokens)) return *made = last_row_of(d, n);
    switch (n->op) {
    case HD_OP_input: return *made = n == d->tokens ? d->ids : refuse(d, n, "is an input beside the tokens");
    case HD_OP_attention: return *made = derive_attention(d, n);
    case HD_OP_shift: return *made = derive_shift(d, n);
    case HD_OP_rope: {
        const digit position = { 0, d->shifted[n->id] || !d->g->predicts_same ? 0 : -1, 1, 0 };
        hd_node *const input[] = { derive(d, n->input[0], false), ids_of(d, n, &position) };
        return *made = input[0] ? add(d, n, HD_OP_rope_at, HD_F32, NULL, 2, input, &n->attr) : NULL;
    }
    case HD_OP_result:
        if (n->input[0]->op == HD_OP_attention) return refuse(d, n, "reads attention's log-sum-exp");
        break;
    default: break;
    }
    return *made = derive_same(d, n, last);
}

/* What attention reads of the rows, and all that is made from. */
static bool *read_by_attention(const hd_graph *g, const bool *needed)
{
    bool *full = HD_NEW_ARRAY(bool, g->nodes);
    for (int i = g->nodes - 1; i >= 0; i--) {
        const hd_node *n = g->node[i];
        if (!needed[i] || (!full[i] && n->op != HD_OP_attention)) continue;
        for (int k = 0; k < n->inputs; k++) full[n->input[k]->id] = true;
    }
    return full;
}

/* Which nodes lie behind the shift; a node with inputs on both sides has no position of its own. */
static bool *behind_shift(derivation *d, const bool *needed)
{
    bool *shifted = HD_NEW_ARRAY(bool, d->g->nodes);
    for (int i = 0; i < d->g->nodes; i++) {
        const hd_node *n = d->g->node[i];
        if (!needed[i] || d->axis[i] == HD_NO_POSITIONS) continue;
        bool behind = false, before = false;
        for (int k = 0; k < n->inputs; k++) if (d->axis[n->input[k]->id] != HD_NO_POSITIONS) *(shifted[n->input[k]->id] ? &behind : &before) = true;
        if (d->g->predicts_same && ((behind && before) || (n->op == HD_OP_attention && before)))
            refuse(d, n, "reads tokens at and before its position in a model whose logits are for the token of their own position");
        shifted[i] = behind || n->op == HD_OP_shift;
    }
    return shifted;
}

static const hd_entry *derive_entry(derivation *d, const char *name, const hd_entry *forward, int64_t streams, int64_t rows)
{
    hd_graph *g = d->g;
    hd_node *logits = forward->output[0].node;
    const hd_where where = logits->where;
    const hd_shape tokens = { 2, { streams, rows } }, first = { 1, { streams } };
    const int nodes = g->nodes;
    const bool last_only = rows > 1;
    d->streams = streams, d->rows = rows;
    d->ids = hd_graph_add(g, HD_OP_input, where, HD_I32, &tokens, 0, NULL, NULL), d->ids->name = "tokens";
    d->first = hd_graph_add(g, HD_OP_input, where, HD_I32, &first, 0, NULL, NULL), d->first->name = "first";
    d->made = HD_NEW_ARRAY(hd_node *, nodes), d->made_last = HD_NEW_ARRAY(hd_node *, nodes);
    d->keys = d->key_capacity = 0, d->key = NULL;
    hd_node *made = derive(d, logits, last_only);
    if (!made) return NULL;
    hd_entry *e = hd_graph_entry(g, name);
    e->inputs = 2, e->input = HD_NEW_ARRAY(hd_node *, 2);
    e->input[0] = d->ids, e->input[1] = d->first;
    e->outputs = 1, e->output = HD_NEW_ARRAY(hd_named, 1);
    e->output[0] = (hd_named){ "logits", made };
    e->decodes = true, e->causal = last_only;
    return e;
}

/* Rows of prefill: enough that products are bound by arithmetic and reading the weights again for each chunk costs little. */
static int64_t chunk_of(const hd_graph *g)
{
    enum { LEAST = 2, MOST = 512 };      /* one row is what step takes; GPT-2, 1,024 tokens, one thread: by 256 84 % of the FMA peak, by 512 90 % */
    const int64_t rows = g->prefill_chunk ? g->prefill_chunk : g->length < MOST ? g->length : MOST;
    return rows < LEAST ? LEAST : rows;
}

void hd_add_decoding(hd_graph *g)
{
    const hd_entry *forward = NULL;
    for (int i = 0; i < g->entries; i++) if (!strcmp(g->entry[i]->name, "forward")) forward = g->entry[i];
    if (g->kind != HD_KIND_LANGUAGE_MODEL || !forward) return;
    const int nodes = g->nodes, entries = g->entries;
    bool *needed = HD_NEW_ARRAY(bool, nodes);
    needed[forward->output[0].node->id] = true;
    for (int i = nodes - 1; i >= 0; i--) for (int k = 0; needed[i] && k < g->node[i]->inputs; k++) needed[g->node[i]->input[k]->id] = true;
    derivation d = { .g = g, .tokens = forward->input[0], .batch = g->batch, .length = g->length };
    d.axis = hd_position_axes(g, d.tokens);
    d.full = read_by_attention(g, needed);
    d.cache = HD_NEW_ARRAY(struct hd_cache *, nodes), d.kept = HD_NEW_ARRAY(hd_kept_rows *, nodes);
    for (int i = 0; i < nodes && !d.refusal; i++) if (needed[i] && d.axis[i] == HD_MIXED_POSITIONS) refuse(&d, g->node[i], "mixes positions");
    d.shifted = behind_shift(&d, needed);
    hd_decoding *made = HD_NEW(hd_decoding);
    made->streams = g->decode_streams ? g->decode_streams : 1;
    made->chunk = chunk_of(g);
    if (!d.refusal) made->prefill = derive_entry(&d, "prefill", forward, 1, made->chunk);
    if (!d.refusal) made->step = derive_entry(&d, "step", forward, made->streams, 1);
    if (d.refusal) {
        g->nodes = nodes, g->entries = entries;
        g->no_decoding = d.refusal;
        return;
    }
    made->positions = d.learnt ? g->length : 0;
    made->rewinds = true, made->safe = INT64_MAX;
    made->cache = HD_NEW_ARRAY(struct hd_cache *, nodes);
    made->header_bytes = (16 + 8 * made->streams + 63) / 64 * 64;
    int64_t offset = 0, dense = 0;
    hd_text layout = { 0 };
    for (int i = 0; i < nodes; i++) {
        struct hd_cache *c = d.cache[i];
        if (d.kept[i]) {
            d.kept[i]->offset = offset, offset += d.kept[i]->bytes;
            made->rewinds = false;
            if (made->safe > 2) made->safe = 2;
        }
        if (!c) continue;
        made->cache[made->caches++] = c;
        c->offset = offset, offset += c->bytes, dense += c->dense_bytes;
        if (c->positions && (!made->positions || c->positions < made->positions)) made->positions = c->positions;
        if (!c->rewindable) {
            made->rewinds = false;
            if (c->safe < made->safe) made->safe = c->safe;
        }
        hd_text_add(&layout, "%lld %lld %s\n", (long long)c->offset, (long long)c->bytes, hd_pattern_text(g->node[i]->attr.attention.pattern[0]));
    }
    made->stream_bytes = offset;
    const int64_t stream_bytes = made->streams > 1 ? offset : 0;         /* a constant of kernels: with one stream, none that more layers change */
    for (int i = 0; i < made->caches; i++) made->cache[i]->stream_bytes = stream_bytes;
    for (int i = 0; i < nodes; i++) if (d.kept[i]) d.kept[i]->stream_bytes = stream_bytes;
    made->cache_bytes = made->header_bytes + made->streams * made->stream_bytes;
    made->dense_bytes = made->streams * dense;
    for (int i = 0; i < nodes; i++) if (needed[i]) hd_text_add(&layout, "%s %s\n", hd_ops[g->node[i]->op].name, hd_shape_text(&g->node[i]->shape));
    hd_text_add(&layout, "%s %lld", g->name, (long long)made->streams);
    made->identity = hd_hash(layout.data, layout.length, 0) | 1;
    g->decoding = made;
}
