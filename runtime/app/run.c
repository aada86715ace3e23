/* run ENTRY: calls one entry on tensors of a safetensors file, for tests and for programs in other languages. */
#include "app.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/hd_pool.h"
#include "weights.h"

static const char *const state_prefix[] = { "gradient.", "moment_1.", "moment_2." };

/* Ids index tables of the model, which does not check them: they are checked here. Targets below 0 count nothing. */
static void check_ids(const char *path, const hd_tensor *input, const int32_t *ids)
{
    bool targets = strcmp(input->name, "targets") == 0;
    if (!hd_app_language_model() || (strcmp(input->name, "tokens") != 0 && !targets)) return;
    for (int64_t i = 0; i < hd_app_elements(input->rank, input->size); i++)
        if (ids[i] >= (targets ? hd_model.vocab : hd_model.ids) || (ids[i] < 0 && !targets))
            hd_app_fail("%s: tensor '%s', element %lld: id %d; this model's ids are 0 to %lld", path, input->name, (long long)i, ids[i], (long long)(targets ? hd_model.vocab : hd_model.ids) - 1);
}

static void read_inputs(const hd_entry_info *entry, const char *path, void **tensor)
{
    if (!entry->inputs) return;
    if (!path) hd_app_fail("run %s: name the inputs: --in FILE", entry->name);
    hd_safetensors *file = hd_safetensors_open(path);
    for (int i = 0; i < entry->inputs; i++) {
        const hd_tensor *input = &entry->input[i];
        const hd_st_tensor *found = hd_safetensors_find(file, input->name);
        if (!found) {
            const char *list = "";
            for (int j = 0; j < entry->inputs; j++)
                list = hd_app_text("%s%s %s %s %s", list, j ? "," : "", entry->input[j].name, entry->input[j].type == HD_TYPE_F32 ? "f32" : "i32",
                                   hd_app_shape(entry->input[j].rank, entry->input[j].size));
            hd_app_fail("%s: no tensor '%s'; entry %s reads:%s", path, input->name, entry->name, list);
        }
        if (input->type == HD_TYPE_F32) hd_safetensors_read_f32(found, input->rank, input->size, tensor[i]);
        else hd_safetensors_read_i32(found, input->rank, input->size, tensor[i]);
        if (input->type == HD_TYPE_I32) check_ids(path, input, tensor[i]);
    }
    hd_safetensors_close(file);
}

static void write_state(const char *path, void *state)
{
    hd_st_item *item = hd_app_alloc((size_t)hd_model.weights * 3 * sizeof *item);
    int items = 0;
    for (int i = 0; i < 3; i++) items += hd_weights_items(item + items, state_prefix[i], (char *)state + hd_model.state_bytes / 3 * (size_t)i);
    hd_safetensors_write(path, item, items, NULL, 0);
    free(item);
}

static void read_state(const char *path, void *state)
{
    hd_safetensors *file = hd_safetensors_open(path);
    for (int i = 0; i < 3; i++) hd_weights_read(file, state_prefix[i], (char *)state + hd_model.state_bytes / 3 * (size_t)i);
    hd_safetensors_close(file);
}

/* Entries with a cache, from the empty one on. step: tokens [streams, n] -> logits [streams, n, vocab], token after token; prefill: tokens [n]
 * of the first stream -> logits [vocab] for what follows. Rows are those of entry forward: where its logits at position t are for token t,
 * so are those here, and the last token of step is not read. */
static void run_decoding(const hd_entry_info *entry, const char *in, const char *out, const hd_memory *memory, const hd_threads *threads)
{
    const hd_decode_info *decode = hd_model.decode;
    const bool steps = strcmp(entry->name, "step") == 0;
    if (!in) hd_app_fail("run %s: name the inputs: --in FILE", entry->name);
    hd_safetensors *file = hd_safetensors_open(in);
    const hd_st_tensor *found = hd_safetensors_find(file, "tokens");
    const int streams = steps ? decode->streams : 1;
    const int64_t all = found ? hd_app_elements(found->rank, found->size) : 0, count = all / streams;
    if (!found || found->rank < 1 || found->rank > 2 || count < 1 || (found->rank == 2 ? found->size[0] : 1) != streams)
        hd_app_fail("%s: entry %s reads tensor 'tokens', i32 [%d, any number]", in, entry->name, streams);
    int32_t *ids = hd_app_alloc((size_t)all * sizeof *ids), *one = hd_app_alloc((size_t)streams * sizeof *one);
    hd_safetensors_read_i32(found, found->rank, found->size, ids);
    check_ids(in, &(hd_tensor){ "tokens", HD_TYPE_I32, found->rank, { found->size[0], found->rank > 1 ? found->size[1] : 0 } }, ids);
    hd_safetensors_close(file);
    const int64_t vocab = hd_model.vocab, rows = steps ? count : 1;
    float *logits = hd_app_alloc((size_t)(streams * rows * vocab) * sizeof *logits), *row = hd_app_alloc((size_t)(streams * vocab) * sizeof *row);
    int error = decode->start(memory);
    if (!error && !steps) error = decode->prefill(memory, threads, 0, ids, count, logits);
    for (int64_t t = 0; steps && t < count && !error; t++) {
        for (int s = 0; s < streams; s++) one[s] = hd_model.ahead ? ids[s * count + t] : t ? ids[s * count + t - 1] : 0;
        error = decode->step(memory, threads, one, row);
        for (int s = 0; s < streams; s++) memcpy(logits + (s * count + t) * vocab, row + s * vocab, (size_t)vocab * sizeof *logits);
    }
    if (error) hd_app_fail("run %s: %s", entry->name, hd_error_text(error));
    const int64_t size[] = { streams, rows, vocab };
    const hd_st_item item = { "logits", HD_ST_F32, steps ? 3 : 1, steps ? size : size + 2, logits };
    hd_safetensors_write(out, &item, 1, NULL, 0);
    free(ids), free(one), free(logits), free(row);
}

int hd_command_run(int argc, char **argv)
{
    const char *name = NULL, *in = NULL, *out = NULL, *weights = NULL, *weights_out = NULL, *state_in = NULL, *state_out = NULL;
    int64_t threads = hd_app_processors(), seed = 1, sequences = 0, used = 0;
    hd_option option[] = {
        { "in", "FILE", HD_OPTION_TEXT, &in, 0, 0, "the entry's inputs by name (safetensors); others are ignored", false },
        { "out", "FILE", HD_OPTION_TEXT, &out, 0, 0, "the entry's outputs by name", false },
        { "weights", "FILE", HD_OPTION_TEXT, &weights, 0, 0, "weights; without: the program's own, or initial ones by --seed", false },
        { "weights-out", "FILE", HD_OPTION_TEXT, &weights_out, 0, 0, "weights after the call", false },
        { "state-in", "FILE", HD_OPTION_TEXT, &state_in, 0, 0, "gradients and moments before the call; without: zeros", false },
        { "state-out", "FILE", HD_OPTION_TEXT, &state_out, 0, 0, "gradient.NAME, moment_1.NAME, moment_2.NAME after the call", false },
        { "sequences", "N", HD_OPTION_COUNT, &sequences, 0, 1e9, "leading batch rows that matter; 0: all (causal entries)", false },
        { "used", "N", HD_OPTION_COUNT, &used, 0, 1e9, "leading positions that matter; 0: all (causal entries)", false },
        { "seed", "S", HD_OPTION_COUNT, &seed, 0, 9e15, "of initial weights", false },
        { "threads", "T", HD_OPTION_COUNT, &threads, 1, HD_MAX_THREADS, "threads", false },
    };
    hd_command command = { "run", "ENTRY", "call one entry on tensors of a file", option, sizeof option / sizeof option[0], &name, 1 };
    if (!hd_options_parse(&command, argc, argv)) hd_app_entry("");
    const hd_entry_info *entry = hd_app_entry(name);
    if ((sequences || used) && !entry->causal) hd_app_fail("run: entry %s is not causal: --sequences and --used are not valid for it", name);
    if (sequences > hd_model.batch && hd_app_language_model()) hd_app_fail("--sequences %lld: at most %lld", (long long)sequences, (long long)hd_model.batch);
    if (used > hd_model.length && hd_app_language_model()) hd_app_fail("--used %lld: at most %lld", (long long)used, (long long)hd_model.length);
    if ((state_in || state_out) && !entry->trains) hd_app_fail("run: entry %s does not train: --state-in and --state-out are not valid for it", name);
    if (entry->decodes && (sequences || used)) hd_app_fail("run: entry %s takes as many tokens as it is given: --sequences and --used are not valid for it", name);
    if (entry->decodes && !out) hd_app_fail("run: name the outputs: --out FILE");
    if (!out && !weights_out && !state_out) hd_app_fail("run: name the outputs: --out FILE");
    if (out) hd_file_check(out);
    if (weights_out) hd_file_check(weights_out);
    if (state_out) hd_file_check(state_out);

    hd_memory memory = { .scratch_bytes = hd_app_scratch_bytes(entry, (int)threads) };
    void *block, *tensor[entry->inputs + entry->outputs + 1];
    const bool initial = !weights && !hd_model.own_weights;
    hd_area area[] = {
        { "weights", initial ? hd_model.weights_bytes : 0, &memory.weights },
        { "gradients and moments", entry->trains ? hd_model.state_bytes : 0, &memory.state },
        { "scratch", memory.scratch_bytes, &memory.scratch },
        { "cache", entry->decodes ? hd_model.decode->cache_bytes : 0, &memory.cache },
        { "inputs and outputs", hd_app_tensors_bytes(entry), &block },
    };
    hd_app_map_areas(area, 5);
    hd_app_bind_tensors(entry, block, tensor);
    if (!entry->decodes) read_inputs(entry, in, tensor);
    hd_pool *pool = hd_app_pool((int)threads);
    if (!initial) {
        hd_weights_open("run", weights, entry->trains, &memory);
    } else if (hd_model.weights) {
        fprintf(stderr, "run: no --weights: initial weights of seed %lld\n", (long long)seed);
        hd_weights_initialise(memory.weights, (uint64_t)seed, hd_pool_threads(pool));
    }
    if (state_in) read_state(state_in, memory.state);
    hd_weights_pack(entry, &memory, hd_pool_threads(pool));

    if (entry->decodes) run_decoding(entry, in, out, &memory, hd_pool_threads(pool));
    else hd_app_call(entry, &memory, hd_pool_threads(pool), tensor, (int)sequences, (int)used);
    hd_pool_free(pool);

    if (out && !entry->decodes) {
        hd_st_item *item = hd_app_alloc((size_t)entry->outputs * sizeof *item);
        for (int i = 0; i < entry->outputs; i++) {
            const hd_tensor *output = &entry->output[i];
            item[i] = (hd_st_item){ output->name, output->type == HD_TYPE_F32 ? HD_ST_F32 : HD_ST_I32, output->rank, output->size, tensor[entry->inputs + i] };
        }
        hd_safetensors_write(out, item, entry->outputs, NULL, 0);
        free(item);
    }
    if (weights_out) hd_weights_save(weights_out, memory.weights, NULL, 0);
    if (state_out) write_state(state_out, memory.state);
    return 0;
}
