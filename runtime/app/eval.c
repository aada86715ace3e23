/* eval: bits per byte of the held-out part, every position scored once. */
#include "app.h"

#include <math.h>
#include <stdio.h>

#include "../core/hd_pool.h"
#include "data.h"
#include "json.h"
#include "progress.h"
#include "score.h"
#include "weights.h"

static double started;

static void show(int64_t done, int64_t all)
{
    char left[32];
    double seconds = hd_app_seconds() - started;
    hd_progress_show(stderr, "eval  %lld / %lld windows  %s left", (long long)done, (long long)all,
                     hd_progress_time(seconds / (double)done * (double)(all - done), left, sizeof left));
}

int hd_command_eval(int argc, char **argv)
{
    const char *path = NULL, *weights = NULL;
    double held_out = 0.1;
    int64_t threads = hd_app_processors(), stride = hd_model.length > 1 ? hd_model.length / 2 : 1;
    bool json = false, u16 = false, u32 = false;
    hd_option option[] = {
        { "data", "FILE", HD_OPTION_TEXT, &path, 0, 0, "text, or token ids (.u16, .u32)", false },
        { "weights", "FILE", HD_OPTION_TEXT, &weights, 0, 0, "weights to measure (safetensors)", false },
        { "held-out", "F", HD_OPTION_REAL, &held_out, 0, 1, "the last part of the file is measured; 1: all of it", false },
        { "stride", "S", HD_OPTION_COUNT, &stride, 1, (double)hd_model.length, "positions scored by each window; the others are context", false },
        { "threads", "T", HD_OPTION_COUNT, &threads, 1, HD_MAX_THREADS, "threads", false },
        { "tokens-u16", NULL, HD_OPTION_FLAG, &u16, 0, 0, "the file holds 2-byte ids", false },
        { "tokens-u32", NULL, HD_OPTION_FLAG, &u32, 0, 0, "the file holds 4-byte ids", false },
        { "json", NULL, HD_OPTION_FLAG, &json, 0, 0, "print one JSON object", false },
    };
    hd_command command = { "eval", "", "bits per byte of a file's held-out part", option, sizeof option / sizeof option[0], NULL, 0 };
    hd_options_parse(&command, argc, argv);
    hd_app_need_language_model("eval");
    if (!path) hd_app_fail("eval: name the data: --data FILE");
    hd_weights_need("eval", weights);
    if (held_out == 0) hd_app_fail("--held-out 0: nothing would be measured; valid: above 0, at most 1");

    const hd_entry_info *loss = hd_app_entry("loss");
    hd_data data = hd_data_open(path, u16 ? 2 : u32 ? 4 : 0, held_out);
    hd_memory memory = { .scratch_bytes = hd_app_scratch_bytes(loss, (int)threads) };
    void *block;
    hd_area area[] = {
        { "scratch", memory.scratch_bytes, &memory.scratch },
        { "inputs and outputs", hd_app_tensors_bytes(loss), &block },
    };
    hd_weights_open("eval", weights, false, &memory);
    hd_app_map_areas(area, 2);
    hd_scorer scorer;
    hd_score_bind(&scorer, block);
    hd_pool *pool = hd_app_pool((int)threads);
    hd_weights_pack(loss, &memory, hd_pool_threads(pool));

    started = hd_app_seconds();
    hd_score score = hd_score_windows(&scorer, &memory, hd_pool_threads(pool), &data, stride, 0, 1, hd_data_spans(&data, stride), show);
    double seconds = hd_app_seconds() - started;
    hd_pool_free(pool);
    hd_progress_end();
    if (data.held_start == 0) {      /* nothing precedes the file's first token: it costs what it costs without a model */
        score.nll += log((double)hd_model.vocab);
        score.positions++;
    }
    if (!isfinite(score.nll)) hd_app_fail("%s: the loss is not finite; first bad tensor: %s", weights ? weights : hd_model.name, hd_weights_not_finite(memory.weights) ? hd_weights_not_finite(memory.weights) : "none, it overflows in the model");
    double mean = score.nll / (double)score.positions, bits = mean / log(2);
    const bool by_bytes = data.held_bytes > 0 && !hd_app_bytes();      /* tokens of a text: per byte of the text */
    const double per_byte = by_bytes ? score.nll / log(2) / (double)data.held_bytes : bits;
    if (json) {
        json_t *line = json_pack("{s:f, s:f, s:I, s:f, s:I, s:I}", hd_app_bytes() ? "bits_per_byte" : "bits_per_token", bits, "loss", mean,
                                 "tokens", (json_int_t)score.positions, "seconds", seconds, "stride", (json_int_t)stride, "length", (json_int_t)hd_model.length);
        if (by_bytes) json_object_set_new(line, "bits_per_byte", hd_json_real(per_byte)), json_object_set_new(line, "bytes", json_integer(data.held_bytes));
        hd_json_print(stdout, line);
        return 0;
    }
    if (by_bytes) printf("%.4f bits/byte of %lld bytes; ", per_byte, (long long)data.held_bytes);
    printf("%.4f bits/%s (loss %.4f) on the last %lld of %lld %ss, each scored once with %lld to %lld %ss before it; %.1f s, %.0f tokens/s\n", bits, hd_app_unit_name(), mean,
           (long long)score.positions, (long long)data.count, hd_app_unit_name(), (long long)(hd_model.length - stride), (long long)hd_model.length - 1, hd_app_unit_name(),
           seconds, (double)score.positions / seconds);
    return 0;
}
