/* @name@_tokens.h: made by heddle @version@ for @spec@. Edits here are lost: edit the spec.
 * Text to the token ids of the model and back: as Hugging Face's library does with the same tokenizer files.
 *
 * Memory. The tables are constants of the program, shared by all threads. Decoding allocates nothing. An encoder belongs to one thread at a
 * time; it allocates by malloc, about 1 MB and what the longest text needs, and keeps that until it is freed.
 * Errors. No memory: NULL, or a negative number. Every text can be encoded and every id decoded: what is no UTF-8 becomes U+FFFD
 * unless the tokenizer's symbols are bytes. */
#ifndef HEDDLE_@NAME@_TOKENS_H
#define HEDDLE_@NAME@_TOKENS_H

#include "@name@.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { @NAME@_TOKENS = @vocab@ };                   /* ids are 0 .. TOKENS - 1 */
enum { @NAME@_TOKEN_ROOM = @room@ };                /* bytes that one id can add to a text */

typedef struct @name@_encoder @name@_encoder;
@NAME@_API @name@_encoder *@name@_encoder_new(void);
@NAME@_API void @name@_encoder_free(@name@_encoder *);

/* The ids of a text of so many bytes. Writes the first `room` of them, and returns how many there are, or -1: no memory, or a regular
 * expression that backtracks without end. around: 0 the text alone; 1 with the tokens that begin a text, as prompts want it; 2 with those that end it, too. */
@NAME@_API int64_t @name@_encode(@name@_encoder *, const char *text, size_t bytes, int around, int32_t *ids, int64_t room);

/* The id of a token by its text, as "<|endoftext|>"; -1: there is none. */
@NAME@_API int32_t @name@_token(const char *text);

/* Text as ids come: begin with zeros. keep_special: shows tokens such as <|endoftext|>. The rest is private. */
typedef struct @name@_decoder { int keep_special; int64_t count; unsigned held, stripped; unsigned char hold[4]; } @name@_decoder;

/* Writes the text that is complete with this id, whole characters of UTF-8 without a zero at the end, and returns its bytes.
 * id -1: the text ends here; what is held back comes out. out: @NAME@_TOKEN_ROOM bytes. */
@NAME@_API size_t @name@_decode(@name@_decoder *, int32_t id, char *out);

#ifdef __cplusplus
}
#endif
#endif
