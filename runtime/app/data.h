/* Text to learn from: a mapped file of bytes, or of u16/u32 token ids (little-endian), or text that the model's tokenizer has made
 * into ids; and which part is held out.
 *
 * Positions [0, held_start) are for training, [held_start, count) are held out. A window of the model predicts the
 * positions start+1 .. start+length from the positions start .. start+length-1. */
#ifndef HD_DATA_H
#define HD_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file.h"

typedef struct hd_data {
    const char *path;
    hd_file_map map;
    int token_bytes;             /* 1, 2 or 4 */
    int64_t count, held_start;   /* tokens */
    int64_t held_bytes;          /* of the text held out; 0: not known, the file holds ids */
} hd_data;

/* token_bytes 0: by the name's end, .u16 or .u32, else text. Through a tokenizer, the parts for training and held out are encoded
 * apart, cut at the beginning of a line where one is near, so that what is held out is the same whatever comes before it. Every id is checked against the model's vocabulary now.
 * Fails with path and what is wrong: shorter than one context and its next token, an id outside the vocabulary. */
hd_data hd_data_open(const char *path, int token_bytes, double held_out);
/* Fails unless the part for training holds at least one window. */
void hd_data_need_training(const hd_data *);
/* count tokens from position `start`. */
void hd_data_read(const hd_data *, int64_t start, int64_t count, int32_t *out);
/* The training window of sequence `row` of step `step`: a function of (seed, step, row) alone. */
int64_t hd_data_window(const hd_data *, uint64_t seed, int64_t step, int64_t row);
/* A 64-bit digest of size and samples of the content, to notice another file on --resume. */
uint64_t hd_data_digest(const hd_data *);

/* Windows that score each of the positions [held_start, count) exactly once: window i scores [first, last) with
 * inputs from `start`. Scored positions have at least length - stride positions before them, but at the file's beginning. */
typedef struct hd_data_span { int64_t start, first, last; } hd_data_span;
int64_t hd_data_spans(const hd_data *, int64_t stride);
hd_data_span hd_data_get_span(const hd_data *, int64_t stride, int64_t index);

#endif
