/* info: what a program is and what it needs. */
#include "variant.h"

#include <stdio.h>
#include <string.h>

#include "json.h"
#include "tokenizer.h"

/* "1.50 MB" for people; bytes go into JSON. */
static const char *megabytes(size_t bytes) { return hd_app_text("%.2f MB", (double)bytes / 1e6); }

static bool can_train(void) { return hd_app_language_model() && hd_model.training.present && hd_app_entry_or_null("train_step") && hd_app_entry_or_null("loss"); }

static void print_text(int threads)
{
    printf("%s: heddle %s, from %s, for %s, by %s\n", hd_model.name, hd_model.version, hd_model.spec, hd_model.target, hd_model.compiler);
    if (hd_model_variants[1]) printf("variants: %s; the environment's HEDDLE_CPU chooses another\n", hd_variant_names(HD_ANY_LEVEL));
    if (hd_app_language_model())
        printf("language model: length %lld, vocabulary %lld, micro-batch %lld\n", (long long)hd_model.length, (long long)hd_model.vocab, (long long)hd_model.batch);
    if (hd_model.configs) {
        printf("config:");
        for (int i = 0; i < hd_model.configs; i++) printf(" %s=%s", hd_model.config[i][0], hd_model.config[i][1]);
        printf("\n");
    }
    printf("parameters: %lld in %d tensors, %s; packed for entries that do not train %s\n", (long long)hd_model.parameters, hd_model.weights, megabytes(hd_model.weights_bytes), megabytes(hd_model.packed_bytes));
    printf("\nentry           kernels        Mflop      scratch  lower bound   per thread\n");
    for (int i = 0; i < hd_model.entries; i++) {
        const hd_entry_info *e = &hd_model.entry[i];
        printf("%-14s %8d %12.2f %12s %12s %12s\n", e->name, e->steps, e->flops / 1e6, megabytes(e->scratch_bytes), megabytes(e->lower_bound_bytes), megabytes(e->local_bytes));
    }
    if (hd_model.image)
        printf("\noutput: images of %lld x %lld, %s (%s sample -o FILE.png)\n", (long long)hd_model.image->width, (long long)hd_model.image->height,
               hd_model.image->colours ? hd_app_text("%d colours", hd_model.image->colours) : hd_model.image->channels == 1 ? "grey" : "red, green, blue", hd_model.name);
    if (hd_model.sound) printf("\noutput: sound, %lld samples a second (%s sample -o FILE.wav)\n", (long long)hd_model.sound->rate, hd_model.name);
    if (hd_model.decode) {
        const hd_decode_info *d = hd_model.decode;
        printf("\ndecoding: %d stream%s, prefill by %lld; %s\n", d->streams, d->streams > 1 ? "s" : "", (long long)d->chunk,
               d->positions ? hd_app_text("up to %lld positions", (long long)d->positions) : "any number of positions");
        printf("  cache of keys and values %s, %.4f of the %s of all keys of %lld positions\n", megabytes(d->cache_bytes), (double)d->cache_bytes / (double)d->dense_cache_bytes, megabytes(d->dense_cache_bytes), (long long)hd_model.length);
    } else if (hd_model.no_decode) {
        printf("\nno decoding with a cache: %s\n", hd_model.no_decode);
    }
    if (can_train()) {
        hd_area area[HD_TRAIN_AREAS];
        int areas = hd_train_areas(area, NULL, threads, hd_model.training.average > 0);
        printf("\nmemory of training, %d threads\n", threads);
        for (int i = 0; i < areas; i++) printf("  %-24s %12s\n", area[i].name, megabytes(area[i].bytes));
        printf("  %-24s %12s\n", "all", megabytes(hd_app_areas_bytes(area, areas)));
    }
    if (hd_model.tokenizer) printf("\ntokenizer: %u tokens, tables of %s\n", hd_model.tokenizer->vocab, megabytes(hd_model.tokenizer->bytes));
    if (hd_model.patterns) printf("\npattern                                                         queries       keys     kept pairs   density\n");
    for (int i = 0; i < hd_model.patterns; i++) {
        const hd_pattern_info *p = &hd_model.pattern[i];
        printf("%-58s %12lld %10lld %14lld  %.6f\n", p->name, (long long)p->queries, (long long)p->keys, (long long)p->kept_pairs, p->density);
    }
}

static json_t *memory_json(int threads)
{
    json_t *scratch = json_object(), *memory = json_pack("{s:I, s:I, s:I, s:o}", "weights", (json_int_t)hd_model.weights_bytes, "packed", (json_int_t)hd_model.packed_bytes, "state", (json_int_t)hd_model.state_bytes, "scratch", scratch);
    for (int i = 0; i < hd_model.entries; i++) {
        const hd_entry_info *e = &hd_model.entry[i];
        json_object_set_new(scratch, e->name, json_pack("{s:I, s:I, s:I}", "plan", (json_int_t)e->scratch_bytes, "lower_bound", (json_int_t)e->lower_bound_bytes,
                                                        "per_thread", (json_int_t)e->local_bytes));
    }
    if (hd_model.decode) {
        json_object_set_new(memory, "cache", json_integer((json_int_t)hd_model.decode->cache_bytes));
        json_object_set_new(memory, "dense_cache", json_integer((json_int_t)hd_model.decode->dense_cache_bytes));
    }
    if (hd_model.tokenizer) json_object_set_new(memory, "tokenizer", json_integer(hd_model.tokenizer->bytes));
    if (!can_train()) return memory;
    hd_area area[HD_TRAIN_AREAS];
    int areas = hd_train_areas(area, NULL, threads, hd_model.training.average > 0);
    json_t *training = json_pack("{s:i}", "threads", threads);
    for (int i = 0; i < areas; i++) json_object_set_new(training, area[i].name, json_integer((json_int_t)area[i].bytes));
    json_object_set_new(training, "all", json_integer((json_int_t)hd_app_areas_bytes(area, areas)));
    json_object_set_new(memory, "training", training);
    return memory;
}

static void print_json(int threads)
{
    json_t *config = json_object(), *variants = json_array(), *entries = json_array(), *patterns = json_array();
    for (const hd_model_info *const *v = hd_model_variants; *v; v++) json_array_append_new(variants, hd_json_text((*v)->target));
    for (int i = 0; i < hd_model.configs; i++) json_object_set_new(config, hd_model.config[i][0], hd_json_text(hd_model.config[i][1]));
    for (int i = 0; i < hd_model.entries; i++) {
        const hd_entry_info *e = &hd_model.entry[i];
        json_array_append_new(entries, json_pack("{s:s, s:i, s:I, s:b, s:b}", "name", e->name, "kernels", e->steps, "flops", (json_int_t)e->flops, "causal", (int)e->causal,
                                                 "trains", (int)e->trains));
    }
    for (int i = 0; i < hd_model.patterns; i++) {
        const hd_pattern_info *p = &hd_model.pattern[i];
        json_array_append_new(patterns, json_pack("{s:o, s:I, s:I, s:I, s:f}", "name", hd_json_text(p->name), "queries", (json_int_t)p->queries, "keys", (json_int_t)p->keys,
                                                  "kept_pairs", (json_int_t)p->kept_pairs, "density", p->density));
    }
    hd_json_print(stdout, json_pack("{s:s, s:s, s:o, s:s, s:o, s:o, s:o, s:I, s:i, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "name", hd_model.name, "heddle", hd_model.version, "spec",
                                    hd_json_text(hd_model.spec), "kind", hd_model.kind, "target", hd_json_text(hd_model.target), "variants", variants, "compiler", hd_json_text(hd_model.compiler),
                                    "parameters", (json_int_t)hd_model.parameters, "tensors", hd_model.weights, "length", (json_int_t)hd_model.length,
                                    "vocab", (json_int_t)hd_model.vocab, "batch", (json_int_t)hd_model.batch, "config", config, "entries", entries,
                                    "memory", memory_json(threads), "patterns", patterns));
}

int hd_command_info(int argc, char **argv)
{
    bool json = false;
    int64_t threads = hd_app_processors();
    hd_option option[] = {
        { "json", NULL, HD_OPTION_FLAG, &json, 0, 0, "print one JSON object", false },
        { "threads", "T", HD_OPTION_COUNT, &threads, 1, HD_MAX_THREADS, "threads that the memory is for", false },
    };
    hd_command command = { "info", "", "parameters, memory, patterns", option, sizeof option / sizeof option[0], NULL, 0 };
    hd_options_parse(&command, argc, argv);
    if (json) print_json((int)threads);
    else print_text((int)threads);
    return 0;
}
