/* Text and the model's tokens: through its tokenizer; or tokens are bytes; or the user writes ids. */
#ifndef HD_TEXT_H
#define HD_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "tokenizer.h"

/* The model's encoder; fails when memory is out, or when the model has no tokenizer ("command: ..."). */
hd_encoder *hd_text_encoder(const char *command);
/* The ids of a text, malloc'ed, with what the tokenizer puts before a text: of `from` ("--prompt", a file) as messages name it. Each is
 * below the vocabulary. An empty text: what is put before it, else none. */
int64_t hd_text_ids(const char *from, const char *text, size_t bytes, int32_t **ids);
/* The ids of a file's text, without special tokens: appended to *ids, which grows. Returns how many were added. */
int64_t hd_text_append(hd_encoder *, const char *path, const char *text, size_t bytes, int32_t **ids, int64_t count);

/* Tokens printed on stdout as they come; id -1: the end. */
typedef struct hd_text_printer { hd_stream stream; char *room; } hd_text_printer;
void hd_text_print(hd_text_printer *, int32_t id);

#endif
