/* info: what a program is and what it needs. */
#include "app.h"

#include <stdio.h>
#include <string.h>

#include "json.h"

/* "1.50 MB" for people; bytes go into JSON. */
static const char *megabytes(size_t bytes) { return hd_app_text("%.2f MB", (double)bytes / 1e6); }

static bool can_train(void) { return hd_app_language_model() && hd_model.training.present && hd_app_entry_or_null("train_step") && hd_app_entry_or_null("loss"); }

static void print_text(int threads)
{
    printf("%s: heddle %s, from %s, for %s, by %s\n", hd_model.name, hd_model.version, hd_model.spec, hd_model.target, hd_model.compiler);
    if (hd_app_language_model())
        printf("language model: length %lld, vocabulary %lld, micro-batch %lld\n", (long long)hd_model.length, (long long)hd_model.vocab, (long long)hd_model.batch);
    if (hd_model.configs) {
        printf("config:");
        for (int i = 0; i < hd_model.configs; i++) printf(" %s=%s", hd_model.config[i][0], hd_model.config[i][1]);
        printf("\n");
    }
    printf("parameters: %lld in %d tensors\n", (long long)hd_model.parameters, hd_model.weights);
    printf("\nentry           kernels        Mflop      scratch  lower bound   per thread\n");
    for (int i = 0; i < hd_model.entries; i++) {
        const hd_entry_info *e = &hd_model.entry[i];
        printf("%-14s %8d %12.2f %12s %12s %12s\n", e->name, e->steps, e->flops / 1e6, megabytes(e->scratch_bytes), megabytes(e->lower_bound_bytes), megabytes(e->local_bytes));
    }
    if (can_train()) {
        hd_area area[HD_TRAIN_AREAS];
        int areas = hd_train_areas(area, NULL, threads, hd_model.training.average > 0);
        printf("\nmemory of training, %d threads\n", threads);
        for (int i = 0; i < areas; i++) printf("  %-24s %12s\n", area[i].name, megabytes(area[i].bytes));
        printf("  %-24s %12s\n", "all", megabytes(hd_app_areas_bytes(area, areas)));
    }
    if (hd_model.patterns) printf("\npattern                                                         queries       keys     kept pairs   density\n");
    for (int i = 0; i < hd_model.patterns; i++) {
        const hd_pattern_info *p = &hd_model.pattern[i];
        printf("%-58s %12lld %10lld %14lld  %.6f\n", p->name, (long long)p->queries, (long long)p->keys, (long long)p->kept_pairs, p->density);
    }
}

static void print_text_pair(const char *key, const char *value, const char *after)
{
    hd_json_string(stdout, key);
    printf(": ");
    hd_json_string(stdout, value);
    printf("%s", after);
}

static void print_memory(int threads)
{
    printf("  \"memory\": {\n    \"weights\": %zu,\n", hd_model.weights_bytes);
    if (can_train()) {
        hd_area area[HD_TRAIN_AREAS];
        int areas = hd_train_areas(area, NULL, threads, hd_model.training.average > 0);
        printf("    \"training\": {\"threads\": %d", threads);
        for (int i = 0; i < areas; i++) {
            printf(", ");
            hd_json_string(stdout, area[i].name);
            printf(": %zu", area[i].bytes);
        }
        printf(", \"all\": %zu},\n", hd_app_areas_bytes(area, areas));
    }
    printf("    \"state\": %zu,\n    \"scratch\": {", hd_model.state_bytes);
    for (int i = 0; i < hd_model.entries; i++) {
        const hd_entry_info *e = &hd_model.entry[i];
        printf("%s\n      ", i ? "," : "");
        hd_json_string(stdout, e->name);
        printf(": {\"plan\": %zu, \"lower_bound\": %zu, \"per_thread\": %zu}", e->scratch_bytes, e->lower_bound_bytes, e->local_bytes);
    }
    printf("\n    }\n  },\n");
}

static void print_json(int threads)
{
    printf("{\n  ");
    print_text_pair("name", hd_model.name, ",\n  ");
    print_text_pair("heddle", hd_model.version, ",\n  ");
    print_text_pair("spec", hd_model.spec, ",\n  ");
    print_text_pair("kind", hd_model.kind, ",\n  ");
    print_text_pair("target", hd_model.target, ",\n  ");
    print_text_pair("compiler", hd_model.compiler, ",\n");
    printf("  \"parameters\": %lld,\n  \"tensors\": %d,\n  \"length\": %lld,\n  \"vocab\": %lld,\n  \"batch\": %lld,\n  \"config\": {", (long long)hd_model.parameters,
           hd_model.weights, (long long)hd_model.length, (long long)hd_model.vocab, (long long)hd_model.batch);
    for (int i = 0; i < hd_model.configs; i++) print_text_pair(hd_model.config[i][0], hd_model.config[i][1], i + 1 < hd_model.configs ? ", " : "");
    printf("},\n  \"entries\": [");
    for (int i = 0; i < hd_model.entries; i++) {
        const hd_entry_info *e = &hd_model.entry[i];
        printf("%s\n    {", i ? "," : "");
        print_text_pair("name", e->name, ", ");
        printf("\"kernels\": %d, \"flops\": %.17g, \"causal\": %s, \"trains\": %s}", e->steps, e->flops, e->causal ? "true" : "false", e->trains ? "true" : "false");
    }
    printf("\n  ],\n");
    print_memory(threads);
    printf("  \"patterns\": [");
    for (int i = 0; i < hd_model.patterns; i++) {
        const hd_pattern_info *p = &hd_model.pattern[i];
        printf("%s\n    {", i ? "," : "");
        print_text_pair("name", p->name, ", ");
        printf("\"queries\": %lld, \"keys\": %lld, \"kept_pairs\": %lld, \"density\": %.17g}", (long long)p->queries, (long long)p->keys, (long long)p->kept_pairs, p->density);
    }
    printf("%s]\n}\n", hd_model.patterns ? "\n  " : "");
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
