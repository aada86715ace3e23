/* heddle tune: finds better choices for the operators of a spec, the costliest first, and keeps them as records.
 *
 * For each operator a descent along one coordinate at a time (tile, block of k, slots, ...): all candidates of a coordinate
 * are timed against the analytical choice and the incumbent in one program, by turns, and the best takes over when it is
 * better by more than the noise; on one thread, and on all where that matters (slots, and the end). After a round without
 * change, or when the operator's share of the time is spent, the finalists are timed once more, longer. A descent needs tens
 * of variants where a grid needs thousands, and what the analytical choice leaves to be won is near it. Every improvement is
 * written at once: nothing is lost by an interruption. */
#include "tune.h"
#include "../driver/driver.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_TRIALS = 12, MOST_MOVES = 192, FINALISTS = 3, MOST_FAILURES = 3 };
static const double least_gain = 0.004,          /* below it nothing is worth a change */
                    usual_minutes = 5,
                    multiply_adds = 50e9, bytes_a_second = 8e9;      /* for shares of time only */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One problem of the model: the step that it is timed as, and the time all its steps are estimated to take. */
typedef struct work { const hd_program *program; const hd_step *step; int calls; double estimate; bool done; } work;
typedef struct works { int count, capacity; work *item; } works;

/* Attention passes exponentials and partial tiles too: half as fast as products. */
static double estimate(const hd_step *s)
{
    const int phases = s->tunable->attention ? 2 * s->tunable->phases : 1;
    return phases * (s->flops / 2 / multiply_adds + s->bytes / bytes_a_second);
}

static works gather(const hd_model *m)
{
    works all = { 0 };
    for (int i = 0; i < m->programs; i++)
        for (int k = 0; k < m->program[i]->steps; k++) {
            const hd_step *s = &m->program[i]->step[k];
            if (!s->tunable) continue;
            int w = 0;
            while (w < all.count && (strcmp(all.item[w].step->tunable->problem, s->tunable->problem) || strcmp(all.item[w].step->tunable->op, s->tunable->op))) w++;
            if (w == all.count) HD_PUSH(all.item, all.count, all.capacity, ((work){ .program = m->program[i], .step = s }));
            all.item[w].calls++;
            all.item[w].estimate += estimate(s);
        }
    return all;
}

typedef struct search {
    hd_tuning *tuning;
    const hd_model *model;
    const work *work;
    const char *database;
    double begun, until, ends;             /* of this operator, of all */
    int number, numbers;                   /* of the operator, for the progress line */
    bool explain, worst;                   /* worst: the analytical choice is only compared with, never taken */
    int most;                              /* variants, or 0 */
    hd_trial best, analytical;
    int timed, dropped, tried, tried_capacity; const char **choice;      /* choices seen, their texts */
    int finalists; hd_trial finalist[FINALISTS];
} search;

static bool seen(search *s, const char *choice)
{
    for (int i = 0; i < s->tried; i++) if (!strcmp(s->choice[i], choice)) return true;
    return false;
}

/* What products and attentions do each in their way. */
static const char *choice_of(const hd_tunable *t, const hd_variant *v) { return t->attention ? hd_attention_choice_text(&v->attention) : hd_product_choice(&v->product); }
static hd_trial trial_of(const hd_tunable *t, const hd_variant *v) { return (hd_trial){ .choice = choice_of(t, v), .variant = *v }; }

static hd_variant worst_of(const hd_tunable *t)
{
    hd_variant v = t->analytical;
    if (t->attention) v.attention = hd_attention_worst(t);
    else v.product = hd_product_worst(&t->analytical.product, &t->target);
    return v;
}

static int moves_of(const hd_tunable *t, const hd_variant *from, int coordinate, hd_variant *to, const char **name, bool *threads)
{
    static hd_product product[MOST_MOVES];
    static hd_attention_choice attention[MOST_MOVES];
    *threads = false;
    const int count = t->attention ? hd_attention_moves(t, &from->attention, coordinate, attention, MOST_MOVES, name)
                                   : hd_product_moves(&from->product, &t->target, coordinate, product, MOST_MOVES, name, threads);
    for (int i = 0; i < count; i++) {
        if (t->attention) to[i].attention = attention[i];
        else to[i].product = product[i];
    }
    return count;
}

/* Best first, each once. */
static void remember(search *s, const hd_trial *t)
{
    for (int i = 0; i < s->finalists; i++) if (!strcmp(s->finalist[i].choice, t->choice)) return;
    int at = s->finalists < FINALISTS ? s->finalists++ : FINALISTS;
    for (; at > 0 && s->finalist[at - 1].score > t->score; at--) if (at < FINALISTS) s->finalist[at] = s->finalist[at - 1];
    if (at < FINALISTS) s->finalist[at] = *t;
}

static void store(search *s)
{
    hd_record r = hd_tuning_key(s->tuning, s->work->step->tunable->op, s->work->step->tunable->problem);
    r.choice = s->best.choice;
    r.nanoseconds = s->best.nanoseconds[0], r.default_nanoseconds = s->analytical.nanoseconds[0], r.noise = s->best.noise[0];
    hd_records_store(s->database, &r, 1);
}

static void explain(const search *s, const hd_trial *t)
{
    if (!s->explain) return;
    if (t->dropped) { printf("    %-76s dropped: %s\n", t->choice, t->dropped); return; }
    const char *all = s->tuning->threads == 1 ? "" : t->nanoseconds[1] > 0 ? hd_format(" %10.1f us", t->nanoseconds[1] / 1e3) : "              ";
    const char *noise = t->slow ? "given up" : hd_format("noise %.1f %%", 100 * fmax(t->noise[0], t->noise[1]));
    printf("    %-76s %10.1f us%s  %+6.1f %%  %s\n", t->choice, t->nanoseconds[0] / 1e3, all, 100 * (exp(t->score) - 1), noise);
}

/* On a terminal, where no lines of --explain go. */
static void show_progress(const search *s, int trials)
{
    if (s->explain || !isatty(2)) return;
    const double left = fmax(0, s->ends - seconds());
    fprintf(stderr, "\r\033[Koperator %d of %d, %.0f s left: %.60s: %d timed, %d more", s->number, s->numbers, left, s->work->step->label, s->timed, trials);
}

static void end_progress(const search *s) { if (!s->explain && isatty(2)) fputs("\r\033[K", stderr); }

/* Times the analytical choice, the incumbent and candidates; true when one of them takes over. */
static bool compare(search *s, const hd_variant *candidate, int candidates, int threads, double time, const char **why)
{
    hd_trial trial[MOST_TRIALS + 2];
    int n = 0;
    trial[n++] = s->analytical;
    if (strcmp(s->best.choice, s->analytical.choice)) trial[n++] = s->best;
    const int incumbent = n - 1;
    for (int i = 0; i < candidates; i++) trial[n++] = trial_of(s->work->step->tunable, &candidate[i]);
    const double left = s->ends - seconds();
    show_progress(s, n);
    if (!hd_measure(s->tuning, s->model, s->work->program, s->work->step, trial, n, threads, time, fmax(left, 3 * time) + 5, why)) return false;
    s->analytical = trial[0];
    for (int i = 0; i < n; i++) {
        if (i > incumbent) HD_PUSH(s->choice, s->tried, s->tried_capacity, trial[i].choice), s->timed++, s->dropped += trial[i].dropped != NULL;
        explain(s, &trial[i]);
        if (!trial[i].dropped && (i > 0 || !s->worst)) remember(s, &trial[i]);
    }
    s->best = trial[incumbent];
    int best = incumbent;
    for (int i = s->worst; i < n; i++) if (trial[i].score < trial[best].score) best = i;
    const double noise = fmin(0.02, fmax(trial[best].noise[threads > 1], trial[incumbent].noise[threads > 1]) / 4);
    if (best == incumbent || (!trial[incumbent].dropped && trial[incumbent].score - trial[best].score < fmax(least_gain, noise))) return false;
    s->best = trial[best];
    return true;
}

/* Seconds for so many variants on one number of threads: about forty rounds, less of operators that take long. */
static double time_of(const search *s, int trials)
{
    const double call = s->analytical.nanoseconds[0] > 0 ? s->analytical.nanoseconds[0] / 1e9 : estimate(s->work->step) / s->work->calls;
    return trials * fmin(fmax(40 * fmax(call, 5e-4), 0.02), fmax(0.3, 5 * call));
}

static bool enough(const search *s) { return seconds() >= s->until || (s->most && s->timed >= s->most); }

/* Variants in one program: each width of panels is another copy of B. */
static int at_once(const hd_variant *v)
{
    const size_t room = (size_t)512 << 20, copies = v->product.packed_bytes ? room / v->product.packed_bytes : MOST_TRIALS;
    return copies < 3 ? 3 : copies < MOST_TRIALS ? (int)copies : MOST_TRIALS;
}

/* Moves along each coordinate in turn until none helps or the time is up. Returns false when nothing could be timed. */
static bool descend(search *s, const char **why)
{
    static hd_variant move[MOST_MOVES];
    const hd_tunable *t = s->work->step->tunable;
    bool changed = true;
    for (int round = 0; changed && round < 4; round++) {
        changed = false;
        for (int coordinate = 0;; coordinate++) {
            const char *name;
            bool threads;
            int moves = moves_of(t, &s->best.variant, coordinate, move, &name, &threads), fresh = 0;
            if (moves < 0) break;
            for (int i = 0; i < moves; i++) if (!seen(s, choice_of(t, &move[i]))) move[fresh++] = move[i];
            if (s->explain && fresh) printf("  %s\n", name);
            for (int first = 0, count; first < fresh && !enough(s); first += count) {
                count = fresh - first < at_once(&move[first]) ? fresh - first : at_once(&move[first]);
                if (s->most && count > s->most - s->timed) count = s->most - s->timed;
                const bool better = compare(s, &move[first], count, threads ? s->tuning->threads : 1, time_of(s, count + 2), why);
                if (*why) return false;
                if (better) store(s), changed = true;
            }
            if (enough(s)) return true;
        }
    }
    return true;
}

/* The finalists against the analytical choice, longer; the best of them is the record. */
static bool decide(search *s, const char **why)
{
    hd_variant last[FINALISTS];
    int n = 0;
    for (int i = 0; i < s->finalists; i++)
        if (strcmp(s->finalist[i].choice, s->best.choice) && strcmp(s->finalist[i].choice, s->analytical.choice)) last[n++] = s->finalist[i].variant;
    if (s->explain) printf("  finalists\n");
    compare(s, last, n, s->tuning->threads, 3 * time_of(s, n + 2), why);
    if (*why) return false;
    if (!s->worst && (s->best.dropped || s->best.score > -least_gain)) s->best = s->analytical;      /* what is not clearly better is not worth another choice */
    store(s);
    return true;
}

static const char *label_of(const work *w) { return hd_format("%s:%d %s", w->step->where.file ? w->step->where.file : "", w->step->where.line, w->step->label); }

static bool tune_operator(search *s)
{
    const hd_tunable *t = s->work->step->tunable;
    const char *why = NULL;
    s->analytical = s->best = trial_of(t, &t->analytical);
    const hd_variant start = s->worst ? worst_of(t) : t->chosen;
    if (strcmp(choice_of(t, &start), s->analytical.choice)) s->best = trial_of(t, &start);
    if (!s->worst) HD_PUSH(s->choice, s->tried, s->tried_capacity, s->analytical.choice);
    HD_PUSH(s->choice, s->tried, s->tried_capacity, s->best.choice);
    if (s->explain) printf("%s\n  %s\n", label_of(s->work), t->problem);
    compare(s, NULL, 0, 1, time_of(s, 2), &why);
    if (!why && descend(s, &why)) decide(s, &why);
    end_progress(s);
    if (why) {
        hd_warn(s->work->step->where, "%s cannot be tuned: %s", t->op, why);
        return false;
    }
    printf("%5.0f s  %-72.72s %9.1f us  %9.1f us by default  %5.1f %%  %d timed%s\n", seconds() - s->begun, s->work->step->label, s->best.nanoseconds[0] / 1e3,
           s->analytical.nanoseconds[0] / 1e3, 100 * (1 - exp(s->best.score)), s->timed, s->dropped ? hd_format(", %d dropped", s->dropped) : "");
    fflush(stdout);
    return true;
}

int hd_command_tune(const hd_options *given)
{
    hd_options o = *given;
    const double begun = seconds(), budget = 60 * (o.minutes > 0 ? o.minutes : usual_minutes);
    if (o.start && strcmp(o.start, "worst") && strcmp(o.start, "default")) hd_fail((hd_where){ "--start", 0 }, "\"%s\" is no place to begin; default or worst", o.start);
    if (o.start && !strcmp(o.start, "worst") && !o.database)
        hd_fail((hd_where){ "--start", 0 }, "worst is for checks of the search; --database FILE takes its records, so that none are used by mistake");
    if (o.cpu && !strcmp(o.cpu, "generic")) hd_fail((hd_where){ "--cpu", 0 }, "records are of a machine; generic is none");
    if (o.runner && !o.runner[strspn(o.runner, " \t")]) hd_fail((hd_where){ "--runner", 0 }, "needs a command, such as qemu-aarch64");
    const char *database = hd_tuning_file(&o);
    if (!database) hd_fail((hd_where){ 0 }, "there is no place for tuning records: HEDDLE_TUNING is off, or no cache folder can be made; --database FILE names one");
    o.database = database;
    hd_records_writable(database);
    const bool worst = o.start && !strcmp(o.start, "worst");

    const hd_model *m = hd_compile(&o, false, NULL);
    const char **done = NULL;
    int dones = 0, done_capacity = 0, failed = 0;
    works all = gather(m);
    if (!all.count) hd_fail((hd_where){ o.spec, 0 }, "has no operator with a choice: products of matrices and attention have");
    printf("%d operators, %.1f minutes, records go to %s\n", all.count, budget / 60, database);
    fflush(stdout);
    for (;;) {
        /* The costliest operator left. Choices change problems (panels that products share), so the model is lowered anew each time. */
        int next = -1;
        for (int i = 0; i < all.count; i++) {
            for (int k = 0; k < dones; k++) if (!strcmp(done[k], all.item[i].step->tunable->problem)) all.item[i].done = true;
            if (all.item[i].done) continue;
            if (next < 0 || all.item[i].estimate > all.item[next].estimate) next = i;
        }
        const double now = seconds(), rest = begun + budget - now;
        if (next < 0 || rest <= 0) break;
        search s = { .tuning = m->kernels.tuning, .model = m, .work = &all.item[next], .database = database, .begun = begun, .ends = begun + budget,
                     .explain = o.explain, .worst = worst, .most = o.trials, .number = dones + 1, .numbers = all.count };
        /* Small operators need as many variants as large ones: shares go by the square root of the time they take. */
        double roots = 0;
        for (int i = 0; i < all.count; i++) if (!all.item[i].done) roots += sqrt(all.item[i].estimate);
        s.until = now + rest * fmax(sqrt(all.item[next].estimate) / roots, fmin(1, 8 / rest));
        if (!tune_operator(&s) && ++failed == MOST_FAILURES && failed == dones + 1)
            hd_fail((hd_where){ o.spec, 0 }, "the first %d operators cannot be tuned, so no more are tried", failed);
        HD_PUSH(done, dones, done_capacity, all.item[next].step->tunable->problem);
        if (o.runner && !o.cpu) o.cpu = m->kernels.tuning->machine;
        m = hd_compile_again(&o, m);
        all = gather(m);
    }
    int rest = 0;
    for (int i = 0; i < all.count; i++) rest += !all.item[i].done;
    if (rest) printf("%d operators were not reached; more --minutes, or once more: what is known is kept\n", rest);
    if (failed && failed == dones) return 1;
    return 0;
}
