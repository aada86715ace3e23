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

/* Text of tokens as they come. With a tokenizer characters come out when they are whole, special tokens not at all; bytes are themselves;
 * other ids are numbers, a space after each. `out` has room for hd_text_room() bytes; returns how many are written. id -1: the end. */
typedef struct hd_text_writer { hd_stream stream; } hd_text_writer;
size_t hd_text_room(void);
size_t hd_text_put(hd_text_writer *, int32_t id, char *out);
/* How many of `bytes` bytes, 1 at least, are a character of UTF-8; 0: none is. */
size_t hd_text_character(const char *text, size_t bytes);
/* On stdout, at once; on a terminal without the control characters that would steer it. */
void hd_text_show(const char *text, size_t bytes);

#endif
