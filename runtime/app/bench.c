/* bench: times an entry kernel by kernel against the peaks of this machine, measured alternately in the same run.
 *
 * Every kernel calls hd_threads.run exactly once, so wrapping that function times kernels without touching them: call k of
 * an entry is step k of its table. All numbers are medians. */
#include "app.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../core/hd_pool.h"
#include "json.h"
#include "peak.h"
#include "progress.h"
#include "weights.h"

enum { ROUNDS = 7, PEAK_SAMPLES = 16, MOST_REPETITIONS = 2000 };

typedef struct profiler { const hd_threads *inner; double *seconds; int steps, step; } profiler;

static void profiled_run(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    profiler *p = context;
    double begun = hd_app_seconds();
    p->inner->run(p->inner->context, task, argument, slots);
    if (p->step < p->steps) p->seconds[p->step] = hd_app_seconds() - begun;
    p->step++;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

/* Random inputs that mean something: ids of the vocabulary, usual settings in hyper, numbers around zero elsewhere. */
static void fill_inputs(const hd_entry_info *entry, void **tensor)
{
    for (int i = 0; i < entry->inputs; i++) {
        const hd_tensor *input = &entry->input[i];
        int64_t elements = hd_app_elements(input->rank, input->size);
        if (strcmp(input->name, "hyper") == 0 && elements >= 11) {
            static const float usual[] = { 1e-4f, 0.9f, 0.99f, 1e-8f, 0.1f, 1, 0.1f, 0.01f, 1, 0, 1 };
            memcpy(tensor[i], usual, sizeof usual);
            continue;
        }
        for (int64_t e = 0; e < elements; e++) {
            uint64_t bits = hd_app_random(1, (uint64_t)i, (uint64_t)e);
            if (input->type == HD_TYPE_I32) ((int32_t *)tensor[i])[e] = hd_model.vocab > 0 ? (int32_t)(bits % (uint64_t)hd_model.vocab) : 0;
            else ((float *)tensor[i])[e] = (float)(2 * hd_app_unit(bits) - 1);
        }
    }
}

/* Inputs that another entry computes from our other inputs (backward reads forward's o and lse) are computed. */
static const hd_entry_info *source_of(const hd_entry_info *entry, int input)
{
    for (int i = 0; i < hd_model.entries; i++) {
        const hd_entry_info *other = &hd_model.entry[i];
        bool possible = other != entry && hd_app_find(other->output, other->outputs, entry->input[input].name) >= 0;
        for (int k = 0; possible && k < other->inputs; k++) possible = hd_app_find(entry->input, entry->inputs, other->input[k].name) >= 0;
        if (possible) return other;
    }
    return NULL;
}

static void call_source(const hd_entry_info *source, const hd_entry_info *entry, const hd_memory *memory, const hd_threads *threads, void **tensor)
{
    void *block, *own[source->inputs + source->outputs];
    hd_memory with = { .weights = memory->weights };
    hd_area area[] = { { "tensors", hd_app_tensors_bytes(source), &block }, { "scratch", hd_app_scratch_bytes(source, threads->count), &with.scratch },
                       { "packed weights", hd_app_packed_bytes(source), &with.packed } };
    hd_app_map_areas(area, 3);
    hd_app_pack(source, &with, threads);
    hd_app_bind_tensors(source, block, own);
    for (int i = 0; i < source->inputs; i++) {
        int mine = hd_app_find(entry->input, entry->inputs, source->input[i].name);
        memcpy(own[i], tensor[mine], hd_app_tensor_bytes(&source->input[i]));
    }
    source->call(&with, threads, own, 0, 0);
    for (int i = 0; i < source->outputs; i++) {
        int mine = hd_app_find(entry->input, entry->inputs, source->output[i].name);
        if (mine >= 0 && hd_app_tensor_bytes(&entry->input[mine]) == hd_app_tensor_bytes(&source->output[i]))
            memcpy(tensor[mine], own[source->inputs + i], hd_app_tensor_bytes(&source->output[i]));
    }
}

/* Multiplications and additions that the kept pairs of attention need: 4 (backward 10) head_dim for each pair and head;
 * 0 if this is no attention entry of an op-level model. */
static double useful_flops(const hd_entry_info *entry)
{
    int q = hd_app_find(entry->input, entry->inputs, "q");
    if (hd_app_language_model() || q < 0 || entry->input[q].rank != 3 || !hd_model.patterns) return 0;
    int64_t heads = entry->input[q].size[0], head_dim = entry->input[q].size[2];
    double pairs = 0;
    if (hd_model.patterns == heads)
        for (int i = 0; i < hd_model.patterns; i++) pairs += (double)hd_model.pattern[i].kept_pairs;
    else
        pairs = (double)hd_model.pattern[0].kept_pairs * (double)heads;
    return (hd_app_find(entry->input, entry->inputs, "do") >= 0 ? 10 : 4) * (double)head_dim * pairs;
}

/* One line of the table: all steps of the same kernel. */
typedef struct row { const char *kernel, *where; int calls; double seconds, flops, bytes; } row;

static int by_seconds(const void *a, const void *b)
{
    const row *x = a, *y = b;
    if (x->seconds != y->seconds) return x->seconds > y->seconds ? -1 : 1;
    return strcmp(x->kernel, y->kernel);
}

static int group(const hd_entry_info *entry, const double *seconds, row *rows)
{
    int count = 0;
    for (int i = 0; i < entry->steps; i++) {
        const hd_step *step = &entry->step[entry->kind[i]];
        int k = 0;
        while (k < count && strcmp(rows[k].kernel, step->kernel) != 0) k++;
        if (k == count) rows[count++] = (row){ .kernel = step->kernel, .where = step->where ? step->where : "" };
        rows[k].calls++;
        rows[k].seconds += seconds[i];
        rows[k].flops += step->flops;
        rows[k].bytes += step->bytes;
    }
    qsort(rows, (size_t)count, sizeof *rows, by_seconds);
    return count;
}

typedef struct result { const hd_entry_info *entry; const char *isa; double peak, read, total, useful; int repetitions, threads, rows; row *row; } result;

static void print_text(const result *r)
{
    double gflops = r->entry->flops / r->total / 1e9;
    printf("%s %s, %d threads, median of %d calls, compiled for %s; peak %.1f GFLOP/s (%s), reads %.1f GB/s, measured in between\n\n", hd_model.name, r->entry->name, r->threads, r->repetitions,
           hd_model.target, r->peak, r->isa, r->read);
    printf("%9s %7s %6s %9s %6s %8s  %-44s %s\n", "ms", "share", "calls", "GFLOP/s", "peak", "GB/s", "kernel", "first line");
    for (int i = 0; i < r->rows; i++) {
        const row *k = &r->row[i];
        double rate = k->flops / k->seconds / 1e9;
        printf("%9.3f %6.1f%% %6d %9.1f %5.1f%% %8.2f  %-44s %s\n", 1e3 * k->seconds, 100 * k->seconds / r->total, k->calls, rate, 100 * rate / r->peak, k->bytes / k->seconds / 1e9,
               k->kernel, k->where);
    }
    printf("%9.3f %6.1f%% %6d %9.1f %5.1f%% %8s  total\n", 1e3 * r->total, 100.0, r->entry->steps, gflops, 100 * gflops / r->peak, "");
    if (r->useful > 0)
        printf("useful (kept pairs only): %.1f GFLOP/s, %.1f%% of the peak\n", r->useful / r->total / 1e9, 100 * r->useful / r->total / 1e9 / r->peak);
}

static void print_json(const result *r)
{
    json_t *kernels = json_array();
    for (int i = 0; i < r->rows; i++) {
        const row *k = &r->row[i];
        double rate = k->flops / k->seconds / 1e9;
        json_array_append_new(kernels, json_pack("{s:s, s:o, s:i, s:f, s:o, s:o, s:o, s:o}", "kernel", k->kernel, "where", hd_json_text(k->where), "calls", k->calls,
                                                 "ms", 1e3 * k->seconds, "share", hd_json_real(k->seconds / r->total), "gflops", hd_json_real(rate),
                                                 "gbs", hd_json_real(k->bytes / k->seconds / 1e9), "share_of_peak", hd_json_real(rate / r->peak)));
    }
    double gflops = r->entry->flops / r->total / 1e9, useful = r->useful / r->total / 1e9;
    json_t *total = json_pack("{s:f, s:o, s:o}", "ms", 1e3 * r->total, "gflops", hd_json_real(gflops), "share_of_peak", hd_json_real(gflops / r->peak));
    if (r->useful > 0) {
        json_object_set_new(total, "useful_gflops", hd_json_real(useful));
        json_object_set_new(total, "useful_share_of_peak", hd_json_real(useful / r->peak));
    }
    hd_json_print(stdout, json_pack("{s:s, s:o, s:i, s:i, s:s, s:f, s:f, s:o, s:o}", "entry", r->entry->name, "target", hd_json_text(hd_model.target), "threads", r->threads, "repetitions", r->repetitions, "isa", r->isa,
                                    "peak_gflops", r->peak, "read_gbs", r->read, "kernels", kernels, "total", total));
}

/* Seconds of a call: of one thread the processor time that it took, which other processes lengthen less. */
static double call_seconds(int threads)
{
    struct timespec t;
    if (threads > 1) return hd_app_seconds();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* For measurements that alternate with other programs: answers each line of standard input with the milliseconds of a call and
 * the peak in GFLOP/s beside it. Calls too short for one to mean much are repeated for a tenth of a second. */
static void answer(const hd_entry_info *entry, const hd_memory *memory, const hd_threads *threads, void **tensor)
{
    enum { MOST = 1000 };
    double times[MOST], peaks[2 * PEAK_SAMPLES], all;
    char line[256];
    hd_peak peak;
    hd_peak_start(&peak);
    entry->call(memory, threads, tensor, 0, 0);
    printf("ready\t%.0f\n", entry->flops);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int calls = 0;
        for (int i = 0; i < PEAK_SAMPLES; i++) peaks[i] = hd_peak_fma(&peak, threads);
        all = hd_app_seconds();
        do {
            double begun = call_seconds(threads->count);
            entry->call(memory, threads, tensor, 0, 0);
            times[calls++] = call_seconds(threads->count) - begun;
        } while (calls < MOST && hd_app_seconds() - all < 0.1);
        for (int i = 0; i < PEAK_SAMPLES; i++) peaks[PEAK_SAMPLES + i] = hd_peak_fma(&peak, threads);
        printf("%.6f\t%.3f\n", 1e3 * median(times, calls), median(peaks, 2 * PEAK_SAMPLES));
        fflush(stdout);
    }
    hd_peak_end(&peak);
}

/* Alternates peaks and calls for about `budget` seconds; fills result and the median time of each step. */
static void measure(result *r, const hd_memory *memory, const hd_threads *threads, void **tensor, double budget, double *step_seconds)
{
    const hd_entry_info *entry = r->entry;
    profiler p = { .inner = threads, .steps = entry->steps, .seconds = hd_app_alloc((size_t)(entry->steps + 1) * sizeof(double)) };
    const hd_threads wrapped = { &p, threads->count, profiled_run };
    double begun = hd_app_seconds();
    entry->call(memory, &wrapped, tensor, 0, 0);                 /* pages and caches; not counted */
    double each = hd_app_seconds() - begun;
    if (p.step != entry->steps) hd_app_fail("bench: entry %s made %d kernel calls, its table lists %d", entry->name, p.step, entry->steps);
    int per_round = (int)(budget / ROUNDS / (each + 1e-9)), limit = MOST_REPETITIONS / ROUNDS;
    if ((double)per_round * ROUNDS * (double)entry->steps > 4e6) limit = (int)(4e6 / ROUNDS / (double)entry->steps);
    per_round = per_round > limit ? limit : per_round;
    per_round = per_round < 1 ? 1 : per_round;

    int all = ROUNDS * per_round, done = 0;
    double peaks[ROUNDS * PEAK_SAMPLES], reads[ROUNDS * PEAK_SAMPLES], *totals = hd_app_alloc((size_t)all * sizeof *totals);
    double *steps = hd_app_alloc((size_t)all * (size_t)entry->steps * sizeof *steps);    /* [step][repetition] */
    hd_peak peak;
    hd_peak_start(&peak);
    hd_peak_fma(&peak, threads);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = round * PEAK_SAMPLES; i < (round + 1) * PEAK_SAMPLES; i++) {
            peaks[i] = hd_peak_fma(&peak, threads);
            reads[i] = hd_peak_read(&peak, threads, i);
        }
        for (int i = -1; i < per_round; i++) {                   /* -1: the caches again belong to the entry */
            if (i < 0 && per_round < 3) continue;
            p.step = 0;
            begun = hd_app_seconds();
            entry->call(memory, &wrapped, tensor, 0, 0);
            if (i < 0) continue;
            totals[done] = hd_app_seconds() - begun;
            for (int s = 0; s < entry->steps; s++) steps[(size_t)s * (size_t)all + (size_t)done] = p.seconds[s];
            done++;
        }
        hd_progress_show(stderr, "bench  round %d of %d", round + 1, ROUNDS);
    }
    hd_progress_end();
    hd_peak_end(&peak);
    r->isa = peak.isa;
    r->peak = median(peaks, ROUNDS * PEAK_SAMPLES);
    r->read = median(reads, ROUNDS * PEAK_SAMPLES);
    r->total = median(totals, all);
    r->repetitions = all;
    for (int s = 0; s < entry->steps; s++) step_seconds[s] = median(steps + (size_t)s * (size_t)all, all);
    free(p.seconds);
    free(totals);
    free(steps);
}

int hd_command_bench(int argc, char **argv)
{
    const char *name = NULL;
    bool json = false, each = false;
    int64_t threads = hd_app_processors();
    double seconds = 2;
    hd_option option[] = {
        { "json", NULL, HD_OPTION_FLAG, &json, 0, 0, "print one JSON object", false },
        { "threads", "T", HD_OPTION_COUNT, &threads, 1, HD_MAX_THREADS, "threads", false },
        { "seconds", "X", HD_OPTION_REAL, &seconds, 0, 1e5, "time to spend in the entry", false },
        { "each", NULL, HD_OPTION_FLAG, &each, 0, 0, "answer each line of standard input with milliseconds and peak GFLOP/s (to alternate with other programs)", false },
    };
    hd_command command = { "bench", "[ENTRY]", "time the kernels of an entry (train_step, or the first) against this machine's peak", option, 4, &name, 1 };
    hd_options_parse(&command, argc, argv);
    const hd_entry_info *entry = name ? hd_app_entry(name) : hd_app_entry_or_null("train_step");
    if (!entry) entry = &hd_model.entry[0];

    hd_memory memory = { 0 };
    void *block, *tensor[entry->inputs + entry->outputs + 1];
    hd_area area[] = {
        { "weights", hd_model.weights_bytes, &memory.weights },
        { "packed weights", hd_app_packed_bytes(entry), &memory.packed },
        { "gradients and moments", entry->trains ? hd_model.state_bytes : 0, &memory.state },
        { "scratch", hd_app_scratch_bytes(entry, (int)threads), &memory.scratch },
        { "inputs and outputs", hd_app_tensors_bytes(entry), &block },
    };
    hd_app_map_areas(area, 5);
    hd_app_bind_tensors(entry, block, tensor);
    hd_pool *pool = hd_app_pool((int)threads);
    hd_weights_initialise(memory.weights, 1, hd_pool_threads(pool));
    hd_app_pack(entry, &memory, hd_pool_threads(pool));
    fill_inputs(entry, tensor);
    for (int i = 0; i < entry->inputs; i++) {
        const hd_entry_info *source = source_of(entry, i);
        if (!source) continue;
        call_source(source, entry, &memory, hd_pool_threads(pool), tensor);
        break;
    }

    if (each) {
        answer(entry, &memory, hd_pool_threads(pool), tensor);
        hd_pool_free(pool);
        return 0;
    }
    result r = { .entry = entry, .threads = (int)threads, .useful = useful_flops(entry) };
    double *step_seconds = hd_app_alloc((size_t)(entry->steps + 1) * sizeof *step_seconds);
    measure(&r, &memory, hd_pool_threads(pool), tensor, seconds, step_seconds);
    hd_pool_free(pool);
    r.row = hd_app_alloc((size_t)(entry->steps + 1) * sizeof *r.row);
    r.rows = group(entry, step_seconds, r.row);
    if (json) print_json(&r);
    else print_text(&r);
    return 0;
}
