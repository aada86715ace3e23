/* Which forward values the backward pass keeps and which it computes again: the cheapest choice that fits a limit of memory.
 *
 * Model. Let a cut be a place in the forward pass, between steps, that a single value crosses, which gradients read (the residual
 * stream). Cuts part the pass into segments (one half of a transformer's block each). What may be dropped in a segment are the
 * values that its gradients read; what dropped values are made of is made again too, back to the nearest values that are kept.
 * Attention's results are always kept, and of the values at two neighbouring cuts at least one is (at three, where a run has few
 * ways); so the pass is a row of runs, each of some segments whose common cuts are dropped, and what one run drops changes nothing
 * in another: its backward steps happen in one stretch, read values of the run alone, and begin when those of all later runs are
 * over. A way to treat a run is then three numbers:
 *
 *   held   bytes that the forward pass leaves for the run's backward stretch
 *   peak   most bytes alive during the run's own steps, without what earlier runs hold
 *   time   seconds of all its steps, forward and backward
 *
 * They are measured, not estimated: the whole entry is lowered as it will be, with other ways in each run of one lowering (a
 * run's numbers do not depend on the others'), so that all ways of identical layers take few lowerings however many layers there
 * are, and fusion, copies, packed panels and values that share memory are all accounted for.
 *
 * Choice. With runs in order, the entry fits `limit` if and only if for every run j: held of all runs before j + peak of j <= limit.
 * So a way that is worse than another in all three numbers is in no cheapest choice; and of two choices for the first runs that end
 * at the same cut, one that holds more and takes longer is in none either: whatever follows it fits after the other too. Keeping
 * all others, run by run (dynamic programming), ends with the cheapest: exact for this model. The true plan is made at the end; where
 * it needs more (values read across several runs, an arena above its lower bound), the limit is lowered by the difference and
 * the choice made again. */
#include "recompute.h"
#include "fuse.h"
#include "../emit/kernels.h"
#include "../pattern/pattern.h"
#include <stdlib.h>
#include <string.h>

enum {
    SMALL = 32,             /* a value below 1/32 of its segment's largest is kept */
    MOST_CLASSES = 20,      /* of values in a segment */
    MOST_SEGMENTS = 3,      /* in a run */
    MOST_WAYS = 64,         /* of a run of three: else it is not considered */
    MOST_WORK = 60000,      /* nodes lowered to measure the ways of one class of runs: some 0.1 s */
    LEAST_WAYS = 8
};

/* Values of a segment that are dropped together: the same line of the spec in several chunks of rows. twin: alike in all that counts to
 * the class before (q, k and v): dropped only if that is. */
typedef struct value_class { int nodes, capacity; int *node; uint64_t like; bool twin; int64_t bytes; } value_class;

typedef struct segment {
    int cut;                /* the value at its end; the last segment: -1 */
    int rank;               /* nodes of the forward pass before it */
    bool droppable;         /* it may be dropped: it is not attention's */
    uint64_t signature;     /* equal: the segments do the same on other weights */
    int classes, capacity; value_class *class;
} segment;

/* classes: bit c: class c is dropped; those of a run's first segment come first */
typedef struct way { uint64_t classes; int64_t held, peak; double seconds, flops; } way;

/* Runs that are alike, and their ways: all at first, the first `tried` of them measured; then those that no other beats.
 * first, segments: of one of them; runs: how many there are. */
typedef struct run_class { uint64_t signature; int first, segments, runs, tried, ways, capacity; way *way; } run_class;
typedef struct run { int first, segments; way *way; } run;

struct hd_choices {
    const hd_graph *graph;
    const hd_entry *entry;
    const hd_target *target;
    struct hd_tuning *tuning;
    bool *forward;          /* by node id: of the forward pass, and some gradient depends on it */
    bool *after;            /* a gradient, or depends on one */
    int *segment_of;        /* by node id; -1: that of the step before */
    hd_keep *keep;          /* by node id: the marks that keep all */
    int segments, capacity; segment *segment;
    int classes, class_capacity; run_class *class;
    int patterns, pattern_capacity; const hd_pattern **pattern;
    int *run_from[MOST_SEGMENTS + 1];       /* by length and first segment: the class of that run; -1: no run */
    int nodes;              /* that the entry needs */
    bool measured;
    int64_t *least;         /* by segment: the least scratch that runs from it on need when nothing is held before them */
    hd_choice all_kept;
};

static hd_node *maker(hd_node *n)
{
    while (hd_is_view(n)) n = n->input[0];
    return n;
}

/* Seconds of a step: arithmetic and traffic, one after the other. Only their ratio matters for choosing: 2 fused multiply-adds a
 * cycle at 2.5 GHz, 4/5 of which a product reaches, beside 10 GB/s a core. */
static double seconds_of(const hd_step *s, const hd_target *target)
{
    return s->flops / (0.8 * 4.0 * target->vl * 2.5e9) + s->bytes / 10e9;
}

hd_choice hd_choice_made(const hd_program *p, const hd_target *target)
{
    hd_choice out = { .scratch_bytes = p->scratch_bytes };
    for (int i = 0; i < p->steps; i++) out.seconds += seconds_of(&p->step[i], target), out.flops += p->step[i].flops;
    return out;
}

/* ---- the entry's nodes ---- */

static bool *needed_by(const hd_graph *g, const hd_entry *e)
{
    bool *needed = HD_NEW_ARRAY(bool, g->nodes);
    for (int i = 0; i < e->outputs; i++) needed[e->output[i].node->id] = true;
    for (int i = 0; i < e->effects; i++) needed[e->effect[i]->id] = true;
    for (int i = g->nodes - 1; i >= 0; i--)
        for (int k = 0; needed[i] && k < g->node[i]->inputs; k++) needed[g->node[i]->input[k]->id] = true;
    return needed;
}

const hd_entry *hd_training_entry(const hd_graph *g)
{
    const hd_entry *best = NULL;
    int most = 0;
    for (int e = 0; e < g->entries; e++) {
        const bool *needed = needed_by(g, g->entry[e]);
        int nodes = 0, gradients = 0;
        for (int i = 0; i < g->nodes; i++) nodes += needed[i], gradients += needed[i] && g->node[i]->differentiates;
        if (gradients && nodes > most) best = g->entry[e], most = nodes;
    }
    return best;
}

/* The same entry in a graph of its own, which may be changed, with all nodes or those it needs. origin: by new id; NULL: not asked for. */
static hd_graph *copy_of(const hd_graph *g, const hd_entry *entry, bool all, int *origin)
{
    const bool *needed = needed_by(g, entry);
    hd_graph *copy = HD_NEW(hd_graph);
    *copy = *g;
    hd_node **now = HD_NEW_ARRAY(hd_node *, g->nodes);
    copy->node = HD_NEW_ARRAY(hd_node *, g->nodes), copy->nodes = 0, copy->node_capacity = g->nodes;
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (!all && !needed[i] && n->op != HD_OP_param && n->op != HD_OP_input) continue;
        hd_node *twin = now[i] = HD_NEW(hd_node);
        *twin = *n;
        twin->input = HD_NEW_ARRAY(hd_node *, n->inputs);
        for (int k = 0; k < n->inputs; k++) twin->input[k] = now[n->input[k]->id];
        if (n->op == HD_OP_param && n->attr.param.weight) twin->attr.param.weight = now[n->attr.param.weight->id];
        twin->id = copy->nodes;
        if (origin) origin[copy->nodes] = i;
        copy->node[copy->nodes++] = twin;
    }
    hd_entry *e = HD_NEW(hd_entry);
    *e = *entry;
    e->input = HD_NEW_ARRAY(hd_node *, e->inputs + 1), e->output = HD_NEW_ARRAY(hd_named, e->outputs + 1), e->effect = HD_NEW_ARRAY(hd_node *, e->effects + 1);
    for (int i = 0; i < e->inputs; i++) e->input[i] = now[entry->input[i]->id];
    for (int i = 0; i < e->outputs; i++) e->output[i] = (hd_named){ entry->output[i].name, now[entry->output[i].node->id] };
    for (int i = 0; i < e->effects; i++) e->effect[i] = now[entry->effect[i]->id];
    copy->entry = HD_NEW_ARRAY(hd_entry *, 1), copy->entries = copy->entry_capacity = 1;
    copy->entry[0] = e;
    return copy;
}

/* The entry lowered with these marks. origin: by node id of its graph; known[id]: the node was there before (no clone). */
static hd_program *lowered(const hd_choices *c, const hd_target *target, const hd_keep *keep, int **origin, bool **known)
{
    int *from = HD_NEW_ARRAY(int, c->graph->nodes), *before;
    hd_graph *g = copy_of(c->graph, c->entry, false, from);
    const int nodes = g->nodes;
    hd_keep *marks = HD_NEW_ARRAY(hd_keep, nodes);
    for (int i = 0; i < nodes; i++) marks[i] = keep[from[i]];
    hd_node **old = HD_NEW_ARRAY(hd_node *, nodes);
    memcpy(old, g->node, (size_t)nodes * sizeof *old);
    before = hd_insert_clones(g, marks);
    *origin = HD_NEW_ARRAY(int, g->nodes), *known = HD_NEW_ARRAY(bool, g->nodes);
    for (int i = 0; i < g->nodes; i++) (*origin)[i] = from[before[i]], (*known)[i] = old[before[i]] == g->node[i];
    int64_t *offset = HD_NEW_ARRAY(int64_t, g->nodes);
    const int64_t bytes = hd_weight_offsets(g, offset);
    hd_kernels kernels = { .prefix = g->name, .target = target, .tuning = target == c->target ? c->tuning : NULL };         /* thrown away */
    return hd_lower_entry(g, g->entry[0], target, &kernels, offset, bytes, c->entry->effects ? NULL : HD_NEW(hd_packing));
}

/* ---- cuts and segments ---- */

static uint64_t mix(uint64_t hash, int64_t number) { return hd_hash(&number, sizeof number, hash); }

/* Patterns that are equal have one number. */
static int number_of(hd_choices *c, const hd_pattern *pattern)
{
    for (int i = 0; i < c->patterns; i++) if (c->pattern[i] == pattern || hd_pattern_equal(c->pattern[i], pattern)) return i;
    HD_PUSH(c->pattern, c->patterns, c->pattern_capacity, pattern);
    return c->patterns - 1;
}

/* What a node computes, without what differs between identical layers. */
static uint64_t hash_of_attributes(hd_choices *c, const hd_node *n)
{
    uint64_t h = hd_hash(&n->shape, sizeof n->shape, mix(0, (int64_t)n->op));
    switch (n->op) {
    case HD_OP_param: return mix(h, n->attr.param.role);
    case HD_OP_dropout: return hd_hash(&n->attr.dropout.p, sizeof n->attr.dropout.p, h);
    case HD_OP_table: case HD_OP_input: return h;
    case HD_OP_attention: case HD_OP_attention_dx: {
        hd_attr attr = n->attr;
        const hd_buckets *b = attr.attention.buckets;
        for (int i = 0; i < attr.attention.patterns; i++) h = mix(h, number_of(c, attr.attention.pattern[i]));
        if (attr.attention.alibi) h = hd_hash(attr.attention.alibi, sizeof(double) * (size_t)attr.attention.heads, h);
        if (b) h = mix(mix(hd_hash(b->bucket, sizeof *b->bucket * (size_t)b->count, h), b->first), b->buckets);
        attr.attention.pattern = NULL, attr.attention.alibi = NULL, attr.attention.buckets = NULL;
        return hd_hash(&attr.attention, sizeof attr.attention, h);
    }
    default: return hd_hash(&n->attr, sizeof n->attr, h);
    }
}

/* What find_segments finds out, by node id. */
typedef struct facts {
    bool *active;           /* depends on an input, not on weights alone */
    bool *fixed;            /* never dropped, and no part of a cut */
    bool *stored, *read;    /* in memory when all is kept; read by a gradient */
    int *joined;            /* a step spans from here to there: the ends of such nodes' spans; a cut goes through none */
    int *last;              /* last node of the forward pass that reads it */
    int *rank;              /* nodes of the forward pass before it */
    uint64_t *like;         /* equal: made alike of the same values */
    uint64_t *readers;      /* which gradients' nodes read it */
} facts;

static const hd_node *differentiated(const hd_node *n)
{
    while (n->differentiates) n = n->differentiates;
    return n;
}

/* A step belongs to one segment: what elementwise nodes in it compute must be on one side of every cut. Those of gradients that read
 * nothing of the forward pass may be anywhere. */
static void join_steps(const hd_choices *c, const hd_fusion *fusion, int *joined)
{
    int *first = HD_NEW_ARRAY(int, fusion->groups), *last = HD_NEW_ARRAY(int, fusion->groups);
    for (int k = 0; k < fusion->groups; k++) first[k] = INT32_MAX;
    for (int i = 0; i < c->graph->nodes; i++) {
        const hd_node *n = c->graph->node[i];
        const int group = fusion->group[i], at = differentiated(n)->id;
        if (group < 0 || !(c->forward[i] || (c->after[i] && n->differentiates))) continue;
        bool reads = c->forward[i];
        for (int k = 0; k < n->inputs; k++) reads |= c->forward[maker(n->input[k])->id];
        if (reads && at < first[group]) first[group] = at;
        if (at > last[group]) last[group] = at;
    }
    for (int k = 0; k < fusion->groups; k++) if (first[k] < last[k] && last[k] > joined[first[k]]) joined[first[k]] = last[k];
}

static facts facts_of(hd_choices *c)
{
    const hd_graph *g = c->graph;
    const int nodes = g->nodes;
    const bool *needed = needed_by(g, c->entry);
    facts f = { .active = HD_NEW_ARRAY(bool, nodes), .fixed = HD_NEW_ARRAY(bool, nodes), .read = HD_NEW_ARRAY(bool, nodes), .joined = HD_NEW_ARRAY(int, nodes) };
    const hd_fusion *fusion = hd_fuse(g, c->entry);
    f.stored = fusion->stored;
    f.last = HD_NEW_ARRAY(int, nodes), f.rank = HD_NEW_ARRAY(int, nodes), f.like = HD_NEW_ARRAY(uint64_t, nodes), f.readers = HD_NEW_ARRAY(uint64_t, nodes);
    bool *feeds = HD_NEW_ARRAY(bool, nodes);
    c->forward = HD_NEW_ARRAY(bool, nodes), c->after = HD_NEW_ARRAY(bool, nodes);
    for (int i = nodes - 1; i >= 0; i--)
        for (int k = 0; needed[i] && (feeds[i] || g->node[i]->differentiates) && k < g->node[i]->inputs; k++) feeds[g->node[i]->input[k]->id] = true;
    int *attentions = HD_NEW_ARRAY(int, nodes + 1), rank = 0;
    for (int i = 0; i < nodes; i++) {
        hd_node *n = g->node[i];
        attentions[i + 1] = attentions[i];
        if (!needed[i]) continue;
        c->nodes++;
        c->after[i] = n->differentiates != NULL;
        f.active[i] = n->op == HD_OP_input;
        for (int k = 0; k < n->inputs; k++) c->after[i] |= c->after[n->input[k]->id], f.active[i] |= f.active[n->input[k]->id];
        f.active[i] &= n->op == HD_OP_input || n->dtype == HD_F32;
        c->forward[i] = !c->after[i] && feeds[i] && n->inputs;
        f.rank[i] = rank += c->forward[i];
        attentions[i + 1] += c->forward[i] && n->op == HD_OP_attention;
        for (int k = 0; !hd_is_view(n) && k < n->inputs; k++) {
            const int x = maker(n->input[k])->id;
            if (c->forward[i]) {
                f.last[x] = i;
            } else if (n->differentiates && c->forward[x]) {
                f.read[x] = true;
                f.readers[x] = mix(f.readers[x], i);
            }
        }
    }
    join_steps(c, fusion, f.joined);
    /* what many layers read (an encoder's result), or more than one (made of weights alone): its life says nothing of one segment */
    for (int i = 0; i < nodes; i++) f.fixed[i] = c->forward[i] && f.last[i] && attentions[f.last[i]] - attentions[i + 1] > (f.active[i] ? 2 : 0);
    return f;
}

static void find_cuts(hd_choices *c, const facts *f)
{
    const hd_graph *g = c->graph;
    int crossing = 0, start = 0, rank = 0, end = 0;
    int64_t sum = 0;                        /* of the ids of those that cross: of one, the id */
    int *place = HD_NEW_ARRAY(int, g->nodes);
    for (int i = 0; i < g->nodes && !c->after[i]; i++) {        /* a loss in chunks goes forward and back for each: one segment */
        hd_node *n = g->node[i];
        if (f->joined[i] > end) end = f->joined[i];
        if (!c->forward[i] || hd_is_view(n)) continue;
        if (!f->fixed[i] && f->last[i]) crossing++, sum += i;
        for (int k = 0; k < n->inputs; k++) {
            const int x = maker(n->input[k])->id;
            bool again = false;
            for (int j = 0; j < k; j++) again |= maker(n->input[j])->id == x;
            if (f->last[x] == i && !again && c->forward[x] && !f->fixed[x]) crossing--, sum -= x;
        }
        if (crossing != 1 || end > i || !f->stored[sum] || !f->read[sum] || (c->segments && c->segment[c->segments - 1].cut == sum)) continue;
        for (; start <= i; start++) place[start] = c->segments;
        HD_PUSH(c->segment, c->segments, c->capacity, ((segment){ .cut = (int)sum, .rank = rank, .droppable = g->node[sum]->op != HD_OP_attention }));
        rank = f->rank[i];
    }
    for (; start < g->nodes; start++) place[start] = c->segments;
    HD_PUSH(c->segment, c->segments, c->capacity, ((segment){ .cut = -1, .rank = rank }));
    c->segment_of = HD_NEW_ARRAY(int, g->nodes);
    for (int i = 0; i < g->nodes; i++) {
        const bool known = c->forward[i] || g->node[i]->differentiates;
        c->segment_of[i] = known ? place[differentiated(g->node[i])->id] : -1;
    }
}

static void join_classes(segment *s, int into, int from)
{
    value_class *a = &s->class[into], *b = &s->class[from];
    for (int i = 0; i < b->nodes; i++) HD_PUSH(a->node, a->nodes, a->capacity, b->node[i]);
    a->bytes += b->bytes;
    memmove(b, b + 1, (size_t)(s->classes - from - 1) * sizeof *b);
    s->classes--;
    for (int k = 0; k < s->classes; k++) s->class[k].twin = false;
}

static void find_values(hd_choices *c, const facts *f)
{
    const hd_graph *g = c->graph;
    int64_t *largest = HD_NEW_ARRAY(int64_t, c->segments);
    bool *cut = HD_NEW_ARRAY(bool, g->nodes);
    for (int s = 0; s + 1 < c->segments; s++) cut[c->segment[s].cut] = true;
    c->keep = HD_NEW_ARRAY(hd_keep, g->nodes);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < g->nodes; i++) {
            const hd_node *n = g->node[i];
            if (!c->forward[i] || hd_is_view(n) || n->op == HD_OP_attention || f->fixed[i] || cut[i]) continue;
            segment *s = &c->segment[c->segment_of[i]];
            const int64_t bytes = hd_node_bytes(n);
            if (!f->read[i] || !f->stored[i]) {
                c->keep[i] = HD_PASS;
                continue;
            }
            if (!pass && bytes > largest[c->segment_of[i]]) largest[c->segment_of[i]] = bytes;
            if (!pass || bytes * SMALL < largest[c->segment_of[i]]) continue;
            value_class *class = NULL;
            for (int k = 0; k < s->classes && !class; k++) {
                const hd_node *other = g->node[s->class[k].node[0]];
                if (other->op == n->op && other->name && n->name && !strcmp(other->name, n->name) && other->where.line == n->where.line) class = &s->class[k];
            }
            if (!class) {
                HD_PUSH(s->class, s->classes, s->capacity, ((value_class){ .like = mix(f->like[i], (int64_t)f->readers[i]) }));
                class = &s->class[s->classes - 1];
                class->twin = s->classes > 1 && class[-1].like == class->like;
            } else {
                class->like = mix(class->like, (int64_t)mix(f->like[i], (int64_t)f->readers[i])), class->twin = false;
            }
            HD_PUSH(class->node, class->nodes, class->capacity, i);
            class->bytes += bytes;
        }
    for (int i = 0; i < c->segments; i++)
        while (c->segment[i].classes > MOST_CLASSES) join_classes(&c->segment[i], c->segment[i].classes - 2, c->segment[i].classes - 1);
}

static void sign_segments(hd_choices *c, facts *f)
{
    const hd_graph *g = c->graph;
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (!c->forward[i]) {
            f->like[i] = hash_of_attributes(c, n);
            continue;
        }
        uint64_t h = hash_of_attributes(c, n);
        for (int k = 0; k < n->inputs; k++) {
            const int x = n->input[k]->id;
            const bool outside = c->forward[x] && c->segment_of[x] != c->segment_of[i] && !f->fixed[maker(n->input[k])->id];
            if (outside) h = mix(h, f->rank[x] - c->segment[c->segment_of[i]].rank);      /* by its distance */
            else h = mix(h, (int64_t)f->like[x]);
        }
        f->like[i] = h;
        segment *s = &c->segment[c->segment_of[i]];
        s->signature = mix(mix(s->signature, (int64_t)h), f->stored[i] << 2 | f->read[i] << 1 | f->fixed[i]);
    }
    for (int i = 0; i < g->nodes; i++)
        if (c->after[i] && g->node[i]->differentiates) {
            segment *s = &c->segment[c->segment_of[i]];
            s->signature = mix(s->signature, (int64_t)hash_of_attributes(c, g->node[i]));
        }
}

/* ---- ways to treat a run ---- */

/* Classes that are dropped together in a run. */
typedef struct bits {
    int count;
    uint64_t classes[MOST_SEGMENTS * MOST_CLASSES];
    int64_t bytes[MOST_SEGMENTS * MOST_CLASSES];
    bool twin[MOST_SEGMENTS * MOST_CLASSES];
} bits;

static double count_ways(const bits *b)
{
    double ways = 1;
    for (int i = 0, alike; i < b->count; i += alike) {
        for (alike = 1; i + alike < b->count && b->twin[i + alike]; alike++) { }
        ways *= alike + 1;
    }
    return ways;
}

static void join_smallest(bits *b)
{
    int small[2] = { 0, 1 };
    if (b->bytes[1] < b->bytes[0]) small[0] = 1, small[1] = 0;
    for (int i = 2; i < b->count; i++)
        if (b->bytes[i] < b->bytes[small[0]]) small[1] = small[0], small[0] = i;
        else if (b->bytes[i] < b->bytes[small[1]]) small[1] = i;
    const int into = small[0] < small[1] ? small[0] : small[1], from = small[0] + small[1] - into;
    b->classes[into] |= b->classes[from], b->bytes[into] += b->bytes[from];
    b->count--;
    for (int i = from; i < b->count; i++) b->classes[i] = b->classes[i + 1], b->bytes[i] = b->bytes[i + 1], b->twin[i] = b->twin[i + 1];
    b->twin[into] = b->twin[into + 1] = b->twin[from] = false;
}

static void add_ways(run_class *r, const bits *b, int at, uint64_t classes, bool before)
{
    if (at == b->count) {
        HD_PUSH(r->way, r->ways, r->capacity, ((way){ .classes = classes }));
        return;
    }
    add_ways(r, b, at + 1, classes, false);
    if (!b->twin[at] || before) add_ways(r, b, at + 1, classes | b->classes[at], true);
}

static int run_class_of(hd_choices *c, int first, int segments)
{
    uint64_t signature = mix(0, segments);
    for (int s = first; s < first + segments; s++) signature = mix(signature, (int64_t)c->segment[s].signature);
    for (int r = 0; r < c->classes; r++)
        if (c->class[r].signature == signature) {
            c->class[r].runs++;
            return r;
        }
    HD_PUSH(c->class, c->classes, c->class_capacity, ((run_class){ .signature = signature, .first = first, .segments = segments, .runs = 1 }));
    return c->classes - 1;
}

/* All ways, if the lowerings that measuring them takes are not too many: else the smallest values are dropped together. */
static void list_ways(const hd_choices *c, run_class *r)
{
    bits b = { 0 };
    int shift = 0;
    for (int s = r->first; s < r->first + r->segments; s++)
        for (int k = 0; k < c->segment[s].classes; k++, shift++) {
            const value_class *v = &c->segment[s].class[k];
            b.classes[b.count] = (uint64_t)1 << shift, b.bytes[b.count] = v->bytes, b.twin[b.count++] = v->twin;
        }
    const double most = (double)r->runs * MOST_WORK / c->nodes;
    if (r->segments > 2 && (count_ways(&b) > most || count_ways(&b) > MOST_WAYS)) return;
    while (b.count > 1 && count_ways(&b) > (most > LEAST_WAYS ? most : LEAST_WAYS)) join_smallest(&b);
    add_ways(r, &b, 0, 0, false);
}

static void mark_run(const hd_choices *c, const run *r, hd_keep *keep)
{
    int shift = 0;
    for (int s = r->first; s < r->first + r->segments; s++) {
        const segment *seg = &c->segment[s];
        for (int k = 0; k < seg->classes; k++, shift++)
            for (int i = 0; r->way->classes >> shift & 1 && i < seg->class[k].nodes; i++) keep[seg->class[k].node[i]] = HD_AGAIN;
        if (s + 1 < r->first + r->segments) keep[seg->cut] = HD_AGAIN;
    }
}

/* Lowers the entry with these runs and fills in what each way costs. */
static void measure(const hd_choices *c, int runs, run *r)
{
    const int nodes = c->graph->nodes;
    hd_keep *keep = memcpy(HD_NEW_ARRAY(hd_keep, nodes), c->keep, (size_t)nodes * sizeof *keep);
    int *run_of = HD_NEW_ARRAY(int, c->segments), *origin;
    for (int k = 0; k < runs; k++) {
        mark_run(c, &r[k], keep);
        for (int s = 0; s < r[k].segments; s++) run_of[r[k].first + s] = k;
        r[k].way->held = r[k].way->peak = 0, r[k].way->seconds = r[k].way->flops = 0;
    }
    bool *known;
    hd_program *p = lowered(c, c->target, keep, &origin, &known);
    int *of = HD_NEW_ARRAY(int, p->steps + 1);
    bool *backward = HD_NEW_ARRAY(bool, p->steps + 1);
    for (int s = 0, at = 0; s < p->steps; s++) {
        const hd_node *n = p->step[s].node;
        if (n && (c->segment_of[origin[n->id]] >= 0)) at = run_of[c->segment_of[origin[n->id]]];
        of[s] = at;
        backward[s] = n && (c->after[origin[n->id]] || !known[n->id]);
        r[at].way->seconds += seconds_of(&p->step[s], c->target), r[at].way->flops += p->step[s].flops;
    }
    hd_share_dying(p);
    int64_t *change = HD_NEW_ARRAY(int64_t, p->steps + 1), *before = HD_NEW_ARRAY(int64_t, runs), live = 0;
    for (int i = 0; i < p->buffers; i++) {
        const hd_buffer *b = p->buffer[i];
        if (b->area != HD_AREA_SCRATCH || b->last < 0) continue;
        change[b->first + (b->same != NULL)] += b->bytes, change[b->last + 1] -= b->bytes;       /* one that lies on another begins after it */
        if (!backward[b->first] && backward[b->last]) r[of[b->last]].way->held += b->bytes;
    }
    r[runs - 1].way->held = 0;              /* for no later run */
    for (int k = 1; k < runs; k++) before[k] = before[k - 1] + r[k - 1].way->held;
    for (int s = 0; s < p->steps; s++) {
        live += change[s];
        way *w = r[of[s]].way;
        if (live - before[of[s]] > w->peak) w->peak = live - before[of[s]];
    }
}

static way *next_way(hd_choices *c, int class) { return class >= 0 && c->class[class].tried < c->class[class].ways ? &c->class[class].way[c->class[class].tried++] : NULL; }

/* One more lowering, of ways not measured so far; false when there are none. */
static bool measure_more(hd_choices *c)
{
    run *r = HD_NEW_ARRAY(run, c->segments);
    way *spare = HD_NEW_ARRAY(way, c->segments);
    int runs = 0;
    bool more = false;
    for (int s = 0; s < c->segments; s += r[runs++].segments) {
        r[runs] = (run){ s, 1, &spare[s] };
        for (int length = MOST_SEGMENTS; length; length--) {
            way *w = next_way(c, c->run_from[length][s]);
            if (!w) continue;
            r[runs] = (run){ s, length, w };
            more = true;
            break;
        }
    }
    if (more) measure(c, runs, r);
    return more;
}

/* a is no worse than b in anything. */
static bool beats(const way *a, const way *b) { return a->held <= b->held && a->peak <= b->peak && a->seconds <= b->seconds; }

static void leave_useful(run_class *r)
{
    int left = 0;
    for (int i = 0; i < r->ways; i++) {
        bool useful = true;
        for (int k = 0; useful && k < r->ways; k++)
            if (k != i && beats(&r->way[k], &r->way[i]) && (k < i || !beats(&r->way[i], &r->way[k]))) useful = false;
        if (useful) r->way[left++] = r->way[i];
    }
    r->ways = left;
}

/* ---- the choice ---- */

/* Some first runs: which, in the list of the segment where the last of them begins, it goes on from. */
typedef struct state { int64_t held; double seconds; int from; run last; } state;
typedef struct states { int count; state *item; } states;

/* Adds what one way of a run makes of `before` to `all`; both are in order of held, and the more one holds the less time it took. */
static states extended(const states *all, const states *before, const run *r, int64_t limit, int64_t most_held)
{
    states out = { 0, malloc((size_t)(all->count + before->count + 1) * sizeof *out.item) };
    if (!out.item) hd_fail((hd_where){ 0 }, "out of memory: %d choices of what to keep", all->count + before->count);
    int a = 0, b = 0;
    for (;;) {
        state next = { 0 };
        const bool more = b < before->count && before->item[b].held + r->way->peak <= limit && before->item[b].held + r->way->held <= most_held;
        if (more) next = (state){ before->item[b].held + r->way->held, before->item[b].seconds + r->way->seconds, b, *r };
        if (a < all->count && (!more || all->item[a].held < next.held || (all->item[a].held == next.held && all->item[a].seconds <= next.seconds))) next = all->item[a++];
        else if (more) b++;
        else break;
        if (!out.count || next.seconds < out.item[out.count - 1].seconds) out.item[out.count++] = next;
    }
    return out;
}

static hd_choice choice_of(const hd_choices *c, int runs, const run *r)
{
    hd_choice out = { .keep = memcpy(HD_NEW_ARRAY(hd_keep, c->graph->nodes), c->keep, (size_t)c->graph->nodes * sizeof *out.keep) };
    int64_t held = 0;
    for (int k = 0; k < runs; k++) {
        mark_run(c, &r[k], out.keep);
        if (held + r[k].way->peak > out.scratch_bytes) out.scratch_bytes = held + r[k].way->peak;
        held += r[k].way->held, out.seconds += r[k].way->seconds, out.flops += r[k].way->flops;
    }
    return out;
}

/* The cheapest choice within `limit`, which is no less than least[0]. */
static hd_choice cheapest(const hd_choices *c, int64_t limit)
{
    states *at = HD_NEW_ARRAY(states, c->segments + 1);
    state nothing = { 0 };
    at[0] = (states){ 1, &nothing };
    for (int t = 1; t <= c->segments; t++) {
        at[t].item = malloc(sizeof *at[t].item);
        for (int length = 1; length <= MOST_SEGMENTS && length <= t; length++) {
            const int s = t - length, class = c->run_from[length][s];
            for (int w = 0; class >= 0 && w < c->class[class].ways; w++) {
                const run r = { s, length, &c->class[class].way[w] };
                const states more = extended(&at[t], &at[s], &r, limit, limit - c->least[t]);
                free(at[t].item);
                at[t] = more;
            }
        }
    }
    run *r = HD_NEW_ARRAY(run, c->segments);
    int runs = 0;
    for (int t = c->segments, k = at[t].count - 1; t > 0; runs++) {       /* the last takes the least time */
        const state *last = &at[t].item[k];
        r[c->segments - 1 - runs] = last->last;
        t = last->last.first, k = last->from;
    }
    for (int t = 1; t <= c->segments; t++) free(at[t].item);
    return choice_of(c, runs, r + c->segments - runs);
}

/* Ways of all runs, once. */
static void measure_all(hd_choices *c)
{
    if (c->measured) return;
    c->measured = true;
    c->least = HD_NEW_ARRAY(int64_t, c->segments + 1);
    for (int length = 1; length <= MOST_SEGMENTS; length++) {
        c->run_from[length] = HD_NEW_ARRAY(int, c->segments);
        for (int s = 0; s < c->segments; s++) {
            bool droppable = s + length <= c->segments;
            for (int inside = s; inside < s + length - 1; inside++) droppable = droppable && c->segment[inside].droppable;
            c->run_from[length][s] = droppable ? run_class_of(c, s, length) : -1;
        }
    }
    for (int k = 0; k < c->classes; k++) list_ways(c, &c->class[k]);
    while (measure_more(c)) { }
    for (int k = 0; k < c->classes; k++) leave_useful(&c->class[k]);
    for (int s = c->segments - 1; s >= 0; s--) {
        c->least[s] = INT64_MAX;
        for (int length = 1; length <= MOST_SEGMENTS; length++) {
            const int class = c->run_from[length][s];
            for (int w = 0; class >= 0 && w < c->class[class].ways; w++) {
                const way *one = &c->class[class].way[w];
                const int64_t later = one->held + c->least[s + length], needs = later > one->peak ? later : one->peak;
                if (needs < c->least[s]) c->least[s] = needs;
            }
        }
    }
}

/* What an entry with these marks really needs: of all its variants the most. */
static hd_choice planned(const hd_choices *c, hd_keep *keep)
{
    int *origin;
    bool *known;
    hd_choice out = { 0 };
    for (int v = -1; v < 0 || c->target->better[v]; v++) {
        const hd_target *target = v < 0 ? c->target : hd_target_find(c->target->better[v]);
        hd_program *p = lowered(c, target, keep, &origin, &known);
        hd_plan(p);
        const hd_choice made = hd_choice_made(p, target);
        if (v < 0) out = made;
        if (made.scratch_bytes > out.scratch_bytes) out.scratch_bytes = made.scratch_bytes;
    }
    out.keep = keep;
    return out;
}

bool hd_choose(hd_choices *c, int64_t bytes, hd_choice *out)
{
    *out = c->all_kept;
    if (out->scratch_bytes <= bytes) return true;
    measure_all(c);
    for (int64_t limit = bytes;;) {
        const bool last = limit <= c->least[0];
        *out = planned(c, cheapest(c, last ? c->least[0] : limit).keep);
        if (out->scratch_bytes <= bytes || last) return out->scratch_bytes <= bytes;
        limit -= out->scratch_bytes - bytes;
    }
}

int hd_choices_table(hd_choices *c, int most, hd_choice *rows)
{
    measure_all(c);
    const int64_t from = c->least[0], to = c->all_kept.scratch_bytes;
    int count = 0;
    for (int i = 0; i < most - 1 && from < to; i++) {
        const hd_choice next = cheapest(c, from + (int64_t)((double)(to - from) * i / (most - 1)));
        if (!count || next.seconds < rows[count - 1].seconds) rows[count++] = next;
    }
    rows[count++] = c->all_kept;
    return count;
}

hd_choices *hd_choices_find(const hd_graph *g, const hd_entry *entry, const hd_target *target, struct hd_tuning *tuning)
{
    hd_choices *c = HD_NEW(hd_choices);
    c->graph = copy_of(g, entry, true, NULL), c->entry = c->graph->entry[0], c->target = target, c->tuning = tuning;
    facts f = facts_of(c);
    find_cuts(c, &f);
    sign_segments(c, &f);
    find_values(c, &f);
    c->all_kept = planned(c, c->keep);
    return c;
}
