/* The choices of attention: which kernels, how wide their blocks are, how many keys they take at a time. */
#include "tune.h"

#include <stdio.h>
#include <string.h>

static const char *const names[] = { "any", "tiles", "rows", "stencil", "edges" };      /* by hd_attention_kernels */
enum { NAMES = sizeof names / sizeof *names };

const char *hd_attention_choice_text(const hd_attention_choice *c) { return hd_format("kernels=%s width=%d chunk=%d", names[c->kernels], c->width, c->chunk); }

bool hd_attention_choice_parse(const char *text, hd_attention_choice *c)
{
    char name[16];
    int used = 0;
    *c = (hd_attention_choice){ HD_ATTENTION_ANY, 0, 0 };
    if (sscanf(text, "kernels=%15[a-z] width=%d chunk=%d%n", name, &c->width, &c->chunk, &used) != 3 || text[used]) return false;
    for (int i = HD_ATTENTION_TILES; i < NAMES; i++) if (!strcmp(name, names[i])) c->kernels = (hd_attention_kernels)i;
    return c->kernels != HD_ATTENTION_ANY;
}

/* The kernels of a plan, by their templates. */
static hd_attention_kernels kernels_of(const hd_attention_plan *plan)
{
    for (int i = HD_ATTENTION_ROWS; i < NAMES; i++) if (strstr(plan->phase->template_name, names[i])) return (hd_attention_kernels)i;
    return HD_ATTENTION_TILES;
}

hd_attention_plan hd_attention_plan_of(const hd_tunable *t, const hd_attention_choice *choice)
{
    hd_attention a = *t->attention;
    a.choice = *choice;
    return t->backward ? hd_attention_backward(&a, t->machine) : hd_attention_forward(&a, t->machine);
}

/* All that the kernels depend on is in the parameters of the plan by estimates, covers included. Plans are shared by the layers
 * that are alike, and their texts can be long: each is hashed once. */
static const char *problem_of(const hd_attention *a, bool backward, const hd_attention_plan *plan)
{
    static struct { const hd_attention_phase *phase; const char *problem; } *known;
    static int count, capacity;
    for (int i = 0; i < count; i++) if (known[i].phase == plan->phase) return known[i].problem;
    uint64_t hash = 0;
    for (int i = 0; i < plan->phases; i++) hash = hd_hash(plan->phase[i].parameters, strlen(plan->phase[i].parameters) + 1, hash);
    known = hd_grow(known, count, &capacity, sizeof *known);
    known[count].phase = plan->phase;
    const long long sizes[] = { a->batch, a->heads, a->kv_heads, a->head_dim, a->queries, a->keys, a->cover[0]->kept_pairs };
    return known[count++].problem = hd_format("%s batch=%lld heads=%lld kv_heads=%lld head_dim=%lld queries=%lld keys=%lld pairs=%lld all=%016llx", backward ? "backward" : "forward",
                                              sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], (unsigned long long)hash);
}

hd_tunable *hd_tune_attention(hd_tuning *tuning, hd_attention *a, const hd_target *target, bool backward, const hd_attention_plan *analytical)
{
    if (a->with & HD_WITH_BOUNDS) return NULL;         /* which pairs there are is known at run time */
    hd_tunable *made = HD_NEW(hd_tunable);
    made->op = "attention", made->problem = problem_of(a, backward, analytical);
    made->attention = memcpy(HD_NEW(hd_attention), a, sizeof *a);
    made->machine = target, made->backward = backward, made->phases = analytical->phases;
    made->analytical.attention = made->chosen.attention = (hd_attention_choice){ kernels_of(analytical), 0, 0 };
    made->record = hd_tuned(tuning, made->op, made->problem);
    if (!made->record) return made;
    hd_attention_choice choice;
    const char *why = "it is not kernels=NAME width=NUMBER chunk=NUMBER";
    if (hd_attention_choice_parse(made->record->choice, &choice) && hd_attention_fits(a, target, backward, &choice, &why)) {
        if (strcmp(hd_attention_choice_text(&choice), hd_attention_choice_text(&made->analytical.attention))) a->choice = choice;
        made->chosen.attention = choice;
        return made;
    }
    hd_tuning_refuse(tuning, made->record, why);
    made->record = NULL;
    return made;
}

int hd_attention_moves(const hd_tunable *t, const hd_attention_choice *from, int coordinate, hd_attention_choice *to, int most, const char **name)
{
    static const int widths[] = { 0, 1, 2, 3, 4 }, chunks[] = { 0, 48, 96, 144, 192 };
    enum { WIDTHS = sizeof widths / sizeof *widths, CHUNKS = sizeof chunks / sizeof *chunks };
    static const char *const coordinates[] = { "kernels", "width of blocks", "keys at a time" };
    if (coordinate > 2) return -1;
    *name = coordinates[coordinate];
    int count = 0;
    const char *why;
    for (int i = 0; i < (coordinate == 0 ? NAMES : coordinate == 1 ? WIDTHS : CHUNKS) && count < most; i++) {
        hd_attention_choice c = *from;
        if (coordinate == 0) c = (hd_attention_choice){ (hd_attention_kernels)i, 0, 0 };
        else if (coordinate == 1) c.width = widths[i];
        else c.chunk = chunks[i];
        if (strcmp(hd_attention_choice_text(&c), hd_attention_choice_text(from)) && hd_attention_fits(t->attention, t->machine, t->backward, &c, &why)) to[count++] = c;
    }
    return count;
}

/* Edges, then rows, if the pattern allows them: what lists pairs; else the narrowest tiles. */
hd_attention_choice hd_attention_worst(const hd_tunable *t)
{
    static const hd_attention_choice bad[] = { { HD_ATTENTION_EDGES, 0, 0 }, { HD_ATTENTION_ROWS, 1, 0 }, { HD_ATTENTION_TILES, 1, 48 } };
    const char *why;
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        if (bad[i].kernels != t->analytical.attention.kernels && hd_attention_fits(t->attention, t->machine, t->backward, &bad[i], &why)) return bad[i];
    hd_attention_choice narrow = t->analytical.attention;
    if (narrow.kernels == HD_ATTENTION_TILES || narrow.kernels == HD_ATTENTION_ROWS) narrow.width = 1;
    return narrow;
}
