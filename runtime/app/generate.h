/* One token after another: independent streams of tokens that a model continues, with its cache (hd_model.decode) or, for models that
 * were compiled without, by the entry `forward` on all tokens so far, which costs the same results more time. */
#ifndef HD_GENERATE_H
#define HD_GENERATE_H

#include "app.h"

typedef struct hd_generator {
    int streams;                       /* what the model computes together; 1 without a cache */
    int64_t room;                      /* tokens that a stream can take in; 0: no limit. One more can be predicted */
    int64_t *taken;                    /* [streams] tokens it has taken in */
    int32_t *next;                     /* [streams] */
    hd_memory memory;
    struct hd_pool *pool;
    const hd_entry_info *forward;      /* without a cache: its tensors, row 0 of the batch in use */
    int32_t *tokens;
    const float *logits;
    void **tensor;
} hd_generator;

/* Maps the memory, loads the weights, starts the threads. Fails with "sample: ..." or what the weights' file lacks. */
hd_generator *hd_generator_open(const char *weights, int threads);
void hd_generator_close(hd_generator *);

/* Takes in `count` tokens; row `stream` of logits [streams][vocab] is for the one after them. count 0 is for an empty stream of a model that predicts its
 * first token too (hd_model.ahead 0). The caller keeps taken + count <= room. False: memory.cancel was set on the way, `taken` says
 * how far it came, and the logits say nothing. */
bool hd_generator_feed(hd_generator *, int stream, const int32_t *tokens, int64_t count, float *logits);
/* One token for each stream, -1 where a stream rests, whose row of the logits says nothing. */
void hd_generator_step(hd_generator *, const int32_t *tokens, float *logits);
/* Empties a stream; goes back to its first `taken` tokens, which is not always possible: then false, and nothing changed. */
void hd_generator_clear(hd_generator *, int stream);
bool hd_generator_rewind(hd_generator *, int stream, int64_t taken);

#endif
