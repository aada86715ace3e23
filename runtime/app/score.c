/* Scoring held-out data (score.h). */
#include "score.h"

#include <string.h>

void hd_score_bind(hd_scorer *scorer, void *block)
{
    const hd_entry_info *entry = hd_app_entry("loss");
    *scorer = (hd_scorer){ .entry = entry, .tensor = hd_app_alloc((size_t)(entry->inputs + entry->outputs) * sizeof(void *)) };
    hd_app_bind_tensors(entry, block, scorer->tensor);
    scorer->tokens = hd_app_need(entry, "tokens", false);
    scorer->targets = hd_app_need(entry, "targets", false);
    scorer->nll = entry->inputs + hd_app_need(entry, "nll", true);
}

/* Puts one window into batch row `row`: positions outside [first, last) get the target -1, which counts nothing. */
static void fill_row(const hd_scorer *scorer, const hd_data *data, hd_data_span span, int64_t row)
{
    int64_t length = hd_model.length;
    int32_t *tokens = (int32_t *)scorer->tensor[scorer->tokens] + row * length, *targets = (int32_t *)scorer->tensor[scorer->targets] + row * length;
    hd_data_read(data, span.start + 1 - hd_model.ahead, length, tokens);
    for (int64_t i = 0; i < length; i++) targets[i] = -1;
    hd_data_read(data, span.first, span.last - span.first, targets + (span.first - span.start - 1));
}

hd_score hd_score_windows(const hd_scorer *scorer, const hd_memory *memory, const hd_threads *threads, const hd_data *data, int64_t stride, int64_t first, double every,
                          int64_t count, void (*progress)(int64_t, int64_t))
{
    hd_score score = { 0 };
    int64_t length = hd_model.length, batch = hd_model.batch;
    for (int64_t done = 0; done < count; done += batch) {
        int64_t rows = count - done < batch ? count - done : batch;
        hd_data_span span[rows];
        for (int64_t row = 0; row < rows; row++) {
            span[row] = hd_data_get_span(data, stride, first + (int64_t)(every * (double)(done + row)));
            fill_row(scorer, data, span[row], row);
        }
        /* a model whose rows may read each other gets the whole batch: the last rows then repeat, uncounted */
        for (int64_t row = rows; row < batch; row++) fill_row(scorer, data, span[0], row);
        bool causal = scorer->entry->causal;
        hd_app_call(scorer->entry, memory, threads, scorer->tensor, causal ? (int)rows : 0, causal ? (int)length : 0);
        const float *nll = scorer->tensor[scorer->nll];
        for (int64_t row = 0; row < rows; row++) {
            for (int64_t p = span[row].first; p < span[row].last; p++) score.nll += nll[row * length + (p - span[row].start - 1)];
            score.positions += span[row].last - span[row].first;
        }
        if (progress) progress(done + rows, count);
    }
    return score;
}
