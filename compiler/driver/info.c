/* heddle info: what a model will need. */
#include "predict.h"
#include "../passes/decode.h"
#include "../passes/recompute.h"
#include "../pattern/pattern.h"
#include "../tune/tune.h"
#include <stdio.h>
#include <string.h>

/* Choices between keeping all and making all again, one of which was taken. */
static void print_choices(const hd_options *o, const hd_model *m)
{
    enum { MOST = 10 };
    hd_choice row[MOST + 1];
    int taken = -1, rows = hd_choices_table(m->choices, MOST, row);
    const double least = row[rows - 1].seconds, flops = row[rows - 1].flops;
    for (int i = 0; i < m->programs && taken < 0; i++) {
        if (m->program[i]->entry != m->trains) continue;
        const hd_choice made = hd_choice_made(m->program[i], m->target);
        for (taken = 0; taken < rows && row[taken].scratch_bytes < made.scratch_bytes; taken++) { }
        const bool listed = taken < rows && row[taken].scratch_bytes == made.scratch_bytes && row[taken].flops == made.flops;
        if (!listed) memmove(&row[taken + 1], &row[taken], (size_t)(rows++ - taken) * sizeof *row);
        row[taken] = made;
    }
    if (o->json) printf("], \"choices\": [");
    else printf("  %s with weights and state, by what its gradients keep of the forward pass:\n          memory        scratch     more time    more work\n", m->trains->name);
    for (int i = 0; i < rows; i++) {
        const int64_t scratch = row[i].scratch_bytes, all = m->weights_bytes + m->state_bytes + scratch;
        const double longer = row[i].seconds / least - 1, more = row[i].flops - flops;
        const char *note = i == rows - 1 ? "   all kept" : i ? "" : "   least", *mark = i == taken ? "   <- taken" : "";
        if (!o->json) printf("  %11.2f MB %11.2f MB %10.1f %% %9.3f Gflop%s%s\n", (double)all / 1e6, (double)scratch / 1e6, 100 * longer, more / 1e9, note, mark);
        else printf("%s{\"memory\": %lld, \"scratch\": %lld, \"more_time\": %.4f, \"more_flops\": %.0f, \"taken\": %s}", i ? ", " : "", (long long)all, (long long)scratch, longer, more, i == taken ? "true" : "false");
    }
}

static void predict_json(const hd_model *m, const hd_machine *machine, const hd_program *p)
{
    int count;
    const hd_prediction *list = hd_predict_kernels(machine, m->target, p, &count);
    printf(", \"predicted\": [");
    for (int t = 0; t < HD_THREAD_COUNTS; t++)
        printf("%s{\"threads\": %d, \"ms\": %.6g}", t ? ", " : "", machine->peak[t].threads, 1e3 * hd_predict_entry(machine, m->target, p, t));
    printf("], \"predicted_kernels\": [");
    for (int k = 0; k < count; k++)
        printf("%s{\"kernel\": \"%s\", \"calls\": %d, \"ms\": [%.6g, %.6g]}", k ? ", " : "", list[k].kernel->name, list[k].calls, 1e3 * list[k].seconds[0], 1e3 * list[k].seconds[1]);
    printf("]");
}

static void predict_text(const hd_model *m, const hd_machine *machine, const hd_program *p)
{
    enum { SHOWN = 3 };
    int count;
    const hd_prediction *list = hd_predict_kernels(machine, m->target, p, &count);
    const double one = hd_predict_entry(machine, m->target, p, HD_ONE_THREAD), all = hd_predict_entry(machine, m->target, p, HD_ALL_THREADS);
    printf("  %-16s %10.3f ms", p->entry->name, 1e3 * one);
    if (machine->peak[1].threads > 1) printf(" %10.3f ms", 1e3 * all);
    const size_t prefix = strlen(m->kernels.prefix) + 1;
    for (int k = 0; k < count && k < SHOWN; k++) printf("%s%.0f%% %s", k ? ", " : "   ", 100 * list[k].seconds[1] / all, list[k].kernel->name + prefix);
    printf("\n");
}

/* The speeds that predictions rest on. */
static void machine_text(const hd_model *m, const hd_machine *machine)
{
    const hd_speeds *s = machine->speeds;
    if (machine->measured) printf("\npredicted times of a call, from what was measured here just now (PROGRAM bench measures the kernels themselves)\n");
    else printf("\npredicted times of a call: a guess for a CPU of the class of %s, not measured here\n", m->target->name);
    for (int t = 0; t < HD_THREAD_COUNTS && (t == 0 || machine->peak[1].threads > 1); t++)
        printf("  %d thread%s: %.0f GFLOP/s; reads %.1f GB/s from L2, %.1f from L3, %.1f from memory\n", machine->peak[t].threads, t ? "s" : " ", s[t].fma, s[t].read[HD_L2], s[t].read[HD_L3], s[t].read[HD_DRAM]);
    printf("  %-16s %13s", "entry", "1 thread");
    if (machine->peak[1].threads > 1) printf(" %13s", hd_format("%d threads", machine->peak[1].threads));
    printf("   mostly\n");
}

int hd_command_info(const hd_options *o)
{
    const hd_model *m = hd_compile(o, false, NULL);
    const hd_graph *g = m->graph;
    const hd_machine machine = hd_machine_for(m->target);
    int64_t parameters = 0;
    for (int i = 0; i < g->nodes; i++)
        if (g->node[i]->op == HD_OP_param && g->node[i]->attr.param.role == HD_WEIGHT) parameters += hd_elements(&g->node[i]->shape);
    if (o->json) printf("{\"name\": \"%s\", \"parameters\": %lld, \"memory\": {\"weights\": %lld, \"packed\": %lld, \"state\": %lld%s}, \"entries\": [", g->name, (long long)parameters, (long long)m->weights_bytes, (long long)m->packing.bytes, (long long)m->state_bytes,
                       g->decoding ? hd_format(", \"cache\": %lld, \"dense_cache\": %lld", (long long)g->decoding->cache_bytes, (long long)g->decoding->dense_bytes) : "");
    else printf("%s: %lld parameters, weights %.2f MB, packed for inference %.2f MB, state %.2f MB\n", g->name, (long long)parameters, (double)m->weights_bytes / 1e6, (double)m->packing.bytes / 1e6, (double)m->state_bytes / 1e6);
    for (int i = 0; i < m->programs; i++) {
        const hd_program *p = m->program[i];
        double flops = 0;
        for (int k = 0; k < p->steps; k++) flops += p->step[k].flops;
        if (o->json) printf("%s{\"name\": \"%s\", \"steps\": %d, \"flops\": %.0f, \"scratch\": %lld, \"lower_bound\": %lld, \"thread\": %lld", i ? ", " : "", p->entry->name, p->steps, flops, (long long)p->scratch_bytes, (long long)p->lower_bound_bytes, (long long)p->local_bytes);
        if (o->json) predict_json(m, &machine, p), printf("}");
        else printf("  %-16s %5d steps %10.3f Gflop   scratch %.2f MB (lower bound %.2f MB) + %.2f MB a thread\n", p->entry->name, p->steps, flops / 1e9, (double)p->scratch_bytes / 1e6, (double)p->lower_bound_bytes / 1e6, (double)p->local_bytes / 1e6);
    }
    const hd_decoding *d = g->decoding;
    if (d && !o->json) {
        printf("  decoding: %lld stream%s, %s positions; cache %.3f MB, %.4f of the %.3f MB of all keys of %lld positions\n", (long long)d->streams, d->streams > 1 ? "s" : "",
               d->positions ? hd_format("up to %lld", (long long)d->positions) : "any number of", (double)d->cache_bytes / 1e6, (double)d->cache_bytes / (double)d->dense_bytes, (double)d->dense_bytes / 1e6, (long long)g->length);
    } else if (g->no_decoding && !o->json) {
        printf("  no decoding with a cache: %s\n", g->no_decoding);
    }
    if (m->choices) print_choices(o, m);
    const hd_tuning *t = m->kernels.tuning;
    if (o->json) printf("], \"kernels\": %d, \"tuning\": {\"operators\": %d, \"records\": %d, \"other_threads\": %d}}\n", m->kernels.count, t->asked, t->found, t->other_threads);
    else printf("  %d kernels in %d files\n  %s%s\n", m->kernels.count, m->files, t->found ? hd_tuning_note(t) : hd_format("no tuning record fits any of %d operators (heddle tune makes some; -v says why)", t->asked),
                t->other_threads ? hd_format(", %d of them timed with another number of threads than %d", t->other_threads, t->threads) : "");
    if (!o->json) machine_text(m, &machine);
    for (int i = 0; i < m->programs && !o->json; i++) predict_text(m, &machine, m->program[i]);
    return 0;
}
