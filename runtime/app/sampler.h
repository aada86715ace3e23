/* Drawing the next token from a row of logits. Needs nothing else of Heddle's application part: it goes with the sources of language
 * models that other programs embed (heddle emit). */
#ifndef HD_SAMPLER_H
#define HD_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifndef HD_SAMPLER_API
#define HD_SAMPLER_API       /* what libraries say of the symbols that they export */
#endif

/* What cuts the distribution, in the order in which it is applied, which is that of Hugging Face's generate:
 *
 *   penalty       logits of the ids among the last penalty_last tokens: those above 0 divided by it, the others multiplied
 *                 (Keskar et al. 2019, arXiv 1909.05858, section 4.1); each id once, however often it stands there. 1: none
 *   temperature   p = softmax(logits / temperature); 0: the likeliest id, nothing else matters
 *   top_k         the K likeliest stay; 0: all
 *   top_p         of those, the fewest likeliest that hold at least this share of their probability (Holtzman et al. 2019,
 *                 arXiv 1904.09751); 1: all
 *   min_p         of those, the ones at least this fraction as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082); 0: all
 *
 * Of equally likely ids the smaller one is counted as likelier. The likeliest id always stays. */
typedef struct hd_sampling { double penalty; int64_t penalty_last; double temperature; int64_t top_k; double top_p, min_p; } hd_sampling;

/* Room for rows of `vocab` logits; one thread at a time. */
typedef struct hd_sampler_part { float logit, weight; int32_t id; } hd_sampler_part;
typedef struct hd_sampler { int64_t vocab; float *row, *weight, *best; hd_sampler_part *kept, *part; } hd_sampler;
HD_SAMPLER_API bool hd_sampler_init(hd_sampler *, int64_t vocab);       /* false: no memory */
HD_SAMPLER_API void hd_sampler_free(hd_sampler *);

/* Draws an id by `unit`, a number in [0, 1): the ids that stay divide the interval in the order of their ids, each in proportion to its
 * probability, so equal logits, settings and unit always give the same id.
 *
 * logits [vocab]   may hold -INFINITY: such ids are never drawn
 * before [count]   the tokens so far, for the penalty; entries outside the vocabulary do not matter. NULL if count is 0
 * Returns the id; or -1 - i if logit i is NaN or +INFINITY (the first such), -1 if all are -INFINITY.
 *
 * Time is linear in vocab; the vocabulary is never sorted. */
HD_SAMPLER_API int64_t hd_sampler_draw(hd_sampler *, const hd_sampling *, const float *logits, const int32_t *before, int64_t count, double unit);

#ifdef __cplusplus
}
#endif
#endif
