/* @name@_tokens_data.c: made by heddle @version@ for @spec@. Edits here are lost: edit the spec.
 * The tables of the tokenizer, as @name@_tokens.c reads them. */
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Woverlength-strings"
__attribute__((visibility("hidden")))
#endif
extern const char @name@_tokens_data[];
_Alignas(64) const char @name@_tokens_data[] =
@data@;
