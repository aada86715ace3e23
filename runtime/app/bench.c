/* bench: times an entry kernel by kernel against what this machine can do at best, measured alternately in the same run.
 *
 * Every kernel calls hd_threads.run exactly once, so wrapping that function times kernels without touching them: call k of
 * an entry is step k of its table. All numbers are medians, unless another quantile is asked for; what reading the clock costs is taken off.
 *
 * The least time of a step is that of its arithmetic at the FMA peak, or of moving what it must from where it lies at the speed
 * that reading and copying reach there, whichever is longer; the roofline of the entry is the sum over its steps. */
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

enum { ROUNDS = 7, PEAK_SAMPLES = 16, EVERYTHING_EACH = 4, MOST_REPETITIONS = 2000 };

typedef struct profiler { const hd_threads *inner; double *seconds; int steps, step; } profiler;

static void profiled_run(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    profiler *p = context;
    double begun = hd_app_seconds();
    p->inner->run(p->inner->context, task, argument, slots);
    if (p->step < p->steps) p->seconds[p->step] = hd_app_seconds() - begun;
    p->step++;
}

/* Random inputs that mean something: ids of the vocabulary, usual settings in hyper, numbers around zero elsewhere. */
static void fill_inputs(const hd_entry_info *entry, void **tensor, int64_t position)
{
    for (int i = 0; i < entry->inputs; i++) {
        const hd_tensor *input = &entry->input[i];
        int64_t elements = hd_app_elements(input->rank, input->size);
        if (strcmp(input->name, "hyper") == 0 && elements >= 11) {
            static const float usual[] = { 1e-4f, 0.9f, 0.99f, 1e-8f, 0.1f, 1, 0.1f, 0.01f, 1, 0, 1 };
            memcpy(tensor[i], usual, sizeof usual);
            continue;
        }
        if (entry->decodes && strcmp(input->name, "first") == 0) {
            for (int64_t e = 0; e < elements; e++) ((int32_t *)tensor[i])[e] = (int32_t)position;
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
    hd_memory with = { .weights = memory->weights, .scratch_bytes = hd_app_scratch_bytes(source, threads->count) };
    hd_area area[] = { { "tensors", hd_app_tensors_bytes(source), &block }, { "scratch", with.scratch_bytes, &with.scratch },
                       { "packed weights", hd_app_packed_bytes(source), &with.packed } };
    hd_app_map_areas(area, 3);
    hd_app_pack(source, &with, threads);
    hd_app_bind_tensors(source, block, own);
    for (int i = 0; i < source->inputs; i++) {
        int mine = hd_app_find(entry->input, entry->inputs, source->input[i].name);
        memcpy(own[i], tensor[mine], hd_app_tensor_bytes(&source->input[i]));
    }
    hd_app_call(source, &with, threads, own, 0, 0);
    for (int i = 0; i < source->outputs; i++) {
        int mine = hd_app_find(entry->input, entry->inputs, source->output[i].name);
        if (mine >= 0 && hd_app_tensor_bytes(&entry->input[mine]) == hd_app_tensor_bytes(&source->output[i]))
            memcpy(tensor[mine], own[source->inputs + i], hd_app_tensor_bytes(&source->output[i]));
    }
}

/* One line of the table: all steps of the same kernel, first asked for at `where` and at `others` more lines. seconds, least: of all
 * calls; limit: what they wait for if they are fast: -1 arithmetic, else a level of memory. */
typedef struct row { const char *kernel, *where; int calls, others, limit; double seconds, flops, bytes, least, longest; } row;

static int by_seconds(const void *a, const void *b)
{
    const row *x = a, *y = b;
    if (x->seconds != y->seconds) return x->seconds > y->seconds ? -1 : 1;
    return strcmp(x->kernel, y->kernel);
}

static double bytes_of(const hd_traffic *t)
{
    double bytes = 0;
    for (int i = 0; i < HD_DISTANCES; i++) bytes += t->read[i] + t->written[i];
    return bytes;
}

/* The kind of step i is the first with its kernel and line. */
static bool new_line(const hd_entry_info *entry, int kind)
{
    for (int k = 0; k < kind; k++)
        if (strcmp(entry->step[k].kernel, entry->step[kind].kernel) == 0 && strcmp(entry->step[k].where, entry->step[kind].where) == 0) return false;
    return true;
}

static int group(const hd_entry_info *entry, const hd_peak *peak, const hd_speeds *speeds, const double *seconds, row *rows)
{
    int count = 0, kinds = 0;
    for (int i = 0; i < entry->steps; i++) {
        const hd_step *step = &entry->step[entry->kind[i]];
        int k = 0, level;
        while (k < count && strcmp(rows[k].kernel, step->kernel) != 0) k++;
        if (k == count) rows[count++] = (row){ .kernel = step->kernel, .where = step->where };
        if (entry->kind[i] == kinds) {         /* kinds are numbered as they appear */
            if (strcmp(rows[k].where, step->where) != 0) rows[k].others += new_line(entry, kinds);
            kinds++;
        }
        const double compute = step->flops / speeds->fma / 1e9, move = hd_peak_moving(peak, speeds, &step->traffic, 2, &level), least = compute > move ? compute : move;
        rows[k].calls++;
        rows[k].seconds += seconds[i];
        rows[k].flops += step->flops;
        rows[k].bytes += bytes_of(&step->traffic);
        rows[k].least += least;
        if (least >= rows[k].longest) rows[k].longest = least, rows[k].limit = compute >= move ? -1 : level;
    }
    qsort(rows, (size_t)count, sizeof *rows, by_seconds);
    return count;
}

typedef struct result {
    const hd_entry_info *entry;
    const hd_peak *peak;
    hd_speeds speeds;                          /* of `threads` threads */
    int repetitions, threads, rows; row *row;
    double quantile;
    double total, kernels, outside, roofline;  /* seconds; where other work interrupts only some steps, their sum is less than the total */
    double useful;                             /* flops */
    int counts, count[16]; hd_speeds of_count[16];      /* numbers of threads, and what they get from memory */
} result;

static const char *limit_of(const row *k) { return k->limit < 0 ? "arithmetic" : hd_level_names[k->limit]; }

static void print_text(const result *r)
{
    const hd_speeds *s = &r->speeds;
    double gflops = r->entry->flops / r->total / 1e9;
    const char *times = r->quantile == 0.5 ? "median" : hd_app_text("quantile %g", r->quantile);
    printf("%s %s, %d thread%s, %s of %d calls, compiled for %s\n", hd_model.name, r->entry->name, r->threads, r->threads == 1 ? "" : "s", times, r->repetitions, hd_model.target);
    printf("measured in between: peak %.1f GFLOP/s (%s)", s->fma, r->peak->isa);
    for (int l = 0; l < HD_LEVELS; l++) printf("; %s: reads %.1f, copies %.1f", hd_level_names[l], s->read[l], s->copy[l]);
    printf(", past the caches %.1f GB/s\n", s->copy_past);
    for (int i = 0; i < r->counts; i++)
        printf("%s %d thread%s: reads %.1f, copies %.1f, past the caches %.1f GB/s\n", i ? "      " : "memory", r->count[i], r->count[i] == 1 ? "" : "s",
               r->of_count[i].read[HD_DRAM], r->of_count[i].copy[HD_DRAM], r->of_count[i].copy_past);
    printf("\n%9s %7s %6s %9s %6s %8s  %6s %-10s  %-44s %s\n", "ms", "share", "calls", "GFLOP/s", "peak", "GB/s", "share", "of limit", "kernel", "lines");
    for (int i = 0; i < r->rows; i++) {
        const row *k = &r->row[i];
        double rate = k->flops / k->seconds / 1e9;
        printf("%9.3f %6.1f%% %6d %9.1f %5.1f%% %8.2f  %5.1f%% %-10s  %-44s %s%s\n", 1e3 * k->seconds, 100 * k->seconds / r->total, k->calls, rate, 100 * rate / s->fma, k->bytes / k->seconds / 1e9,
               100 * k->least / k->seconds, limit_of(k), k->kernel, k->where, k->others ? hd_app_text(" and %d more", k->others) : "");
    }
    printf("%9.3f %6.1f%%   sum of kernels\n%9.3f %6.1f%%   outside kernels\n", 1e3 * r->kernels, 100 * r->kernels / r->total, 1e3 * r->outside, 100 * r->outside / r->total);
    printf("%9.3f %6.1f%% %6d %9.1f %5.1f%% %8s  total\n", 1e3 * r->total, 100.0, r->entry->steps, gflops, 100 * gflops / s->fma, "");
    printf("%9.3f %6.1f%%   roofline: the least time of all steps together, and its share of the time\n", 1e3 * r->roofline, 100 * r->roofline / r->total);
    if (r->useful > 0)
        printf("useful (products, and kept pairs of attention; nothing computed again): %.1f GFLOP/s, %.1f%% of the peak\n", r->useful / r->total / 1e9, 100 * r->useful / r->total / 1e9 / s->fma);
}

static json_t *level_json(const hd_speeds *s, int level)
{
    json_t *o = json_pack("{s:s, s:o, s:o}", "level", hd_level_names[level], "read_gbs", hd_json_real(s->read[level]), "copy_gbs", hd_json_real(s->copy[level]));
    if (level == HD_DRAM) json_object_set_new(o, "copy_past_gbs", hd_json_real(s->copy_past));
    return o;
}

static void print_json(const result *r)
{
    json_t *kernels = json_array(), *levels = json_array(), *memory = json_array();
    const hd_speeds *s = &r->speeds;
    for (int i = 0; i < r->rows; i++) {
        const row *k = &r->row[i];
        double rate = k->flops / k->seconds / 1e9;
        json_array_append_new(kernels, json_pack("{s:s, s:o, s:i, s:f, s:o, s:o, s:o, s:o, s:s, s:o, s:i}", "kernel", k->kernel, "where", hd_json_text(k->where), "calls", k->calls,
                                                 "ms", 1e3 * k->seconds, "share", hd_json_real(k->seconds / r->total), "gflops", hd_json_real(rate),
                                                 "gbs", hd_json_real(k->bytes / k->seconds / 1e9), "share_of_peak", hd_json_real(rate / s->fma),
                                                 "limit", limit_of(k), "share_of_limit", hd_json_real(k->least / k->seconds), "other_lines", k->others));
    }
    for (int l = 0; l < HD_LEVELS; l++) json_array_append_new(levels, level_json(s, l));
    for (int i = 0; i < r->counts; i++)
        json_array_append_new(memory, json_pack("{s:i, s:o, s:o, s:o}", "threads", r->count[i], "read_gbs", hd_json_real(r->of_count[i].read[HD_DRAM]), "copy_gbs", hd_json_real(r->of_count[i].copy[HD_DRAM]),
                                                "copy_past_gbs", hd_json_real(r->of_count[i].copy_past)));
    double gflops = r->entry->flops / r->total / 1e9, useful = r->useful / r->total / 1e9;
    json_t *total = json_pack("{s:f, s:o, s:o, s:f, s:o, s:f, s:f}", "ms", 1e3 * r->total, "gflops", hd_json_real(gflops), "share_of_peak", hd_json_real(gflops / s->fma),
                              "roofline_ms", 1e3 * r->roofline, "share_of_roofline", hd_json_real(r->roofline / r->total), "kernels_ms", 1e3 * r->kernels, "outside_ms", 1e3 * r->outside);
    if (r->useful > 0) {
        json_object_set_new(total, "useful_gflops", hd_json_real(useful));
        json_object_set_new(total, "useful_share_of_peak", hd_json_real(useful / s->fma));
    }
    hd_json_print(stdout, json_pack("{s:s, s:o, s:i, s:i, s:s, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "entry", r->entry->name, "target", hd_json_text(hd_model.target), "threads", r->threads, "repetitions", r->repetitions,
                                    "isa", r->peak->isa, "peak_gflops", s->fma, "read_gbs", s->read[HD_DRAM], "copy_gbs", s->copy[HD_DRAM], "copy_past_gbs", s->copy_past, "levels", levels, "memory", memory,
                                    "kernels", kernels, "total", total));
}

/* What reading the clock adds to a step: about as much as two readings one after the other are apart. */
static double clock_seconds(void)
{
    double least = 1;
    for (int i = 0; i < 1000; i++) {
        double begun = hd_app_seconds(), passed = hd_app_seconds() - begun;
        if (passed < least) least = passed;
    }
    return least;
}

/* Seconds of a call: of one thread the processor time that it took, which other processes lengthen less. */
static double call_seconds(int threads)
{
    struct timespec t;
    if (threads > 1) return hd_app_seconds();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* For measurements that alternate with other programs: answers each line of standard input with the milliseconds of a call, and
 * beside it the peak in GFLOP/s and the GB/s read from memory. Calls too short for one to mean much are repeated for a tenth of a second. */
static void answer(const hd_entry_info *entry, const hd_memory *memory, const hd_threads *threads, void **tensor)
{
    enum { MOST = 1000 };
    double times[MOST], all;
    hd_speeds speeds[2 * PEAK_SAMPLES];
    char line[256];
    hd_peak peak;
    if (!hd_peak_start(&peak, threads->count, 0)) hd_app_fail("out of memory: %.1f MB are needed to measure this machine", (double)peak.memory_bytes / 1e6);
    hd_app_call(entry, memory, threads, tensor, 0, 0);
    printf("ready\t%.0f\n", entry->flops);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int calls = 0;
        for (int i = 0; i < PEAK_SAMPLES; i++) speeds[i] = hd_peak_sample(&peak, threads, i, false);
        all = hd_app_seconds();
        do {
            double begun = call_seconds(threads->count);
            hd_app_call(entry, memory, threads, tensor, 0, 0);
            times[calls++] = call_seconds(threads->count) - begun;
        } while (calls < MOST && hd_app_seconds() - all < 0.1);
        for (int i = 0; i < PEAK_SAMPLES; i++) speeds[PEAK_SAMPLES + i] = hd_peak_sample(&peak, threads, PEAK_SAMPLES + i, false);
        const hd_speeds median = hd_peak_quantile(speeds, 2 * PEAK_SAMPLES, 0.5);
        printf("%.6f\t%.3f\t%.3f\n", 1e3 * hd_quantile(times, calls, 0.5), median.fma, median.read[HD_DRAM]);
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
    hd_app_call(entry, memory, &wrapped, tensor, 0, 0);                 /* pages and caches; not counted */
    double each = hd_app_seconds() - begun;
    if (p.step != entry->steps) hd_app_fail("bench: entry %s made %d kernel calls, its table lists %d", entry->name, p.step, entry->steps);
    int per_round = (int)(budget / ROUNDS / (each + 1e-9)), limit = MOST_REPETITIONS / ROUNDS;
    if ((double)per_round * ROUNDS * (double)entry->steps > 4e6) limit = (int)(4e6 / ROUNDS / (double)entry->steps);
    per_round = per_round > limit ? limit : per_round;
    per_round = per_round < 1 ? 1 : per_round;

    int all = ROUNDS * per_round, done = 0;
    const double clock = clock_seconds();
    double *totals = hd_app_alloc((size_t)all * sizeof *totals), *outside = hd_app_alloc((size_t)all * sizeof *outside);
    double *steps = hd_app_alloc((size_t)all * (size_t)entry->steps * sizeof *steps);    /* [step][repetition] */
    hd_speeds samples[ROUNDS * PEAK_SAMPLES];
    hd_peak_sample(r->peak, threads, 0, false);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = round * PEAK_SAMPLES; i < (round + 1) * PEAK_SAMPLES; i++) samples[i] = hd_peak_sample(r->peak, threads, i, i % EVERYTHING_EACH == 0);
        for (int i = -1; i < per_round; i++) {                   /* -1: the caches again belong to the entry */
            if (i < 0 && per_round < 3) continue;
            p.step = 0;
            begun = hd_app_seconds();
            hd_app_call(entry, memory, &wrapped, tensor, 0, 0);
            const double passed = hd_app_seconds() - begun - clock * (1 + 2 * entry->steps);
            if (i < 0) continue;
            totals[done] = outside[done] = passed;
            for (int s = 0; s < entry->steps; s++) {
                const double step = p.seconds[s] > clock ? p.seconds[s] - clock : 0;
                steps[(size_t)s * (size_t)all + (size_t)done] = step;
                outside[done] -= step;
            }
            done++;
        }
        hd_progress_show(stderr, "bench  round %d of %d", round + 1, ROUNDS);
    }
    hd_progress_end();
    r->speeds = hd_peak_quantile(samples, ROUNDS * PEAK_SAMPLES, r->quantile);
    r->total = hd_quantile(totals, all, r->quantile);
    r->outside = hd_quantile(outside, all, r->quantile);
    if (r->outside < 0) r->outside = 0;
    r->repetitions = all;
    for (int s = 0; s < entry->steps; s++) step_seconds[s] = hd_quantile(steps + (size_t)s * (size_t)all, all, r->quantile);
    free(p.seconds);
    free(totals);
    free(outside);
    free(steps);
}

/* What 1, 2, 4, ... threads get from memory. */
static void measure_memory(result *r)
{
    enum { SAMPLES = 8 };
    for (int threads = 1; r->counts < (int)(sizeof r->count / sizeof *r->count); threads = 2 * threads < r->threads ? 2 * threads : r->threads) {
        hd_pool *pool = hd_app_pool(threads);
        hd_peak peak = *r->peak;
        hd_speeds samples[SAMPLES];
        peak.threads = threads;
        for (int i = 0; i < SAMPLES; i++) samples[i] = hd_peak_sample(&peak, hd_pool_threads(pool), i, true);
        hd_pool_free(pool);
        r->count[r->counts] = threads;
        r->of_count[r->counts++] = hd_peak_quantile(samples, SAMPLES, r->quantile);
        if (threads == r->threads) return;
    }
}

int hd_command_bench(int argc, char **argv)
{
    const char *name = NULL;
    bool json = false, each = false;
    int64_t threads = hd_app_processors(), position = -1;
    double seconds = 2, quantile = 0.5;
    hd_option option[] = {
        { "json", NULL, HD_OPTION_FLAG, &json, 0, 0, "print one JSON object", false },
        { "threads", "T", HD_OPTION_COUNT, &threads, 1, HD_MAX_THREADS, "threads", false },
        { "seconds", "X", HD_OPTION_REAL, &seconds, 0, 1e5, "time to spend in the entry", false },
        { "position", "N", HD_OPTION_COUNT, &position, 0, 1e9, "of prefill and step: tokens already in the cache; default 128, of prefill half of what fits: the FLOPs shown are those of the mean position", false },
        { "each", NULL, HD_OPTION_FLAG, &each, 0, 0, "answer each line of standard input with milliseconds, peak GFLOP/s and GB/s read (to alternate with other programs)", false },
        { "quantile", "Q", HD_OPTION_REAL, &quantile, 0, 1, "of all times; default 0.5, the median; on a machine with other work, 0.1 says what it would do alone", false },
    };
    hd_command command = { "bench", "[ENTRY]", "time the kernels of an entry (train_step, or the first) against this machine's peak", option, sizeof option / sizeof *option, &name, 1 };
    hd_options_parse(&command, argc, argv);
    const hd_entry_info *entry = name ? hd_app_entry(name) : hd_app_entry_or_null("train_step");
    if (!entry) entry = &hd_model.entry[0];
    if (position >= 0 && !entry->decodes) hd_app_fail("bench: --position is for the entries prefill and step");
    if (entry->decodes) {
        const int64_t rows = entry->input[0].size[1], most = hd_model.decode->positions ? hd_model.decode->positions - rows : INT32_MAX / 2;
        if (position > most) hd_app_fail("bench: --position %lld: at most %lld with %lld rows in the call", (long long)position, (long long)most, (long long)rows);
    if (position < 0) position = rows > 1 ? most / 2 : most < 128 ? most / 2 : 128;
    }

    hd_memory memory = { .scratch_bytes = hd_app_scratch_bytes(entry, (int)threads) };
    void *block, *tensor[entry->inputs + entry->outputs + 1];
    hd_area area[] = {
        { "weights", hd_model.weights_bytes, &memory.weights },
        { "packed weights", hd_app_packed_bytes(entry), &memory.packed },
        { "gradients and moments", entry->trains ? hd_model.state_bytes : 0, &memory.state },
        { "scratch", memory.scratch_bytes, &memory.scratch },
        { "cache", entry->decodes ? hd_model.decode->cache_bytes : 0, &memory.cache },
        { "inputs and outputs", hd_app_tensors_bytes(entry), &block },
    };
    hd_app_map_areas(area, 6);
    hd_app_bind_tensors(entry, block, tensor);
    hd_pool *pool = hd_app_pool((int)threads);
    hd_weights_initialise(memory.weights, 1, hd_pool_threads(pool));
    hd_app_pack(entry, &memory, hd_pool_threads(pool));
    if (entry->decodes) hd_model.decode->start(&memory);
    fill_inputs(entry, tensor, position);
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
    hd_peak peak;
    if (!hd_peak_start(&peak, (int)threads, 0)) hd_app_fail("out of memory: %.1f MB are needed to measure this machine", (double)peak.memory_bytes / 1e6);
    result r = { .entry = entry, .peak = &peak, .threads = (int)threads, .quantile = quantile };
    double *step_seconds = hd_app_alloc((size_t)(entry->steps + 1) * sizeof *step_seconds);
    measure(&r, &memory, hd_pool_threads(pool), tensor, seconds, step_seconds);
    hd_pool_free(pool);
    measure_memory(&r);
    hd_peak_end(&peak);
    r.row = hd_app_alloc((size_t)(entry->steps + 1) * sizeof *r.row);
    r.rows = group(entry, &peak, &r.speeds, step_seconds, r.row);
    for (int i = 0; i < r.rows; i++) r.roofline += r.row[i].least, r.kernels += r.row[i].seconds;
    for (int i = 0; i < entry->steps; i++) r.useful += entry->step[entry->kind[i]].useful;
    if (json) print_json(&r);
    else print_text(&r);
    return 0;
}
