/* Tokenizers: files that people have, made into the tables that runtime/app/tokenizer.h reads.
 *
 *   tokenizer.json | vocab.json + merges.txt | vocab.txt | SentencePiece .model  ->  hd_tokens  ->  one block of tables */
#ifndef HD_COMPILER_TOKENIZER_H
#define HD_COMPILER_TOKENIZER_H

#include "../base/base.h"
#include "../../runtime/app/tokenizer.h"

/* The tables of the tokenizer at `path`: one of the files above, or a folder that holds one (tokenizer.json first). Fails with the
 * file and the component that is wrong or unknown. *regex: its encoder needs PCRE2. */
const hd_tokenizer *hd_tokenizer_load(const char *path, bool *regex);
/* The file that hd_tokenizer_load would read; NULL: none (for importers of checkpoint folders). */
const char *hd_tokenizer_find(const char *path);

/* ---- between the readers and the writer ---- */

typedef struct hd_token {
    const char *name; uint32_t bytes;        /* as the file has it */
    bool present;
    bool plain;                              /* the model may make it of text */
    double score;
} hd_token;
typedef struct hd_merge { uint32_t left, right, made, rank; } hd_merge;
typedef struct hd_new { const char *text; uint32_t bytes, id, flags; bool normalised; } hd_new;       /* an added token */

/* A stage as read: strings instead of tables; map: u32 [0x110000], 0 or 1 + place in map_text. */
typedef struct hd_step_of { hd_stage_kind kind; uint32_t a, b; const char *from, *to; size_t from_bytes, to_bytes; uint32_t *map; hd_text map_text; } hd_step_of;

typedef enum hd_decode_kind { HD_DECODE_BYTES, HD_DECODE_WORDPIECE, HD_DECODE_METASPACE, HD_DECODE_REPLACE, HD_DECODE_FALLBACK, HD_DECODE_STRIP, HD_DECODE_SUFFIX, HD_DECODE_SPACES,
                              HD_DECODE_FUSE } hd_decode_kind;
typedef struct hd_decode_step { hd_decode_kind kind; const char *from, *to; uint32_t start, stop; bool flag; } hd_decode_step;

typedef struct hd_tokens {
    const char *file;
    hd_tokenizer_model model;
    uint32_t flags, most_characters, strip_first;
    int32_t unknown;
    bool byte_level;                         /* names are written in GPT-2's alphabet of bytes */
    bool scored, needs_order, needs_forms, regex;
    const char *inner_prefix, *end_suffix;
    const char *unknown_shown;               /* how the unknown token decodes; NULL: as its name */
    int tokens, token_capacity; hd_token *token;
    uint32_t slots; uint32_t *slot;          /* names -> id + 1 */
    int merges, merge_capacity; hd_merge *merge;
    int news, new_capacity; hd_new *added;
    int normals, splits; hd_step_of step[2][HD_TOKENIZER_STAGES];
    int decodes; hd_decode_step decode[16];
    int befores, afters; uint32_t before[16], after[16];
    int jsons; struct json_t *json[8];       /* the files read: names point into them until the tables are written */
} hd_tokens;

_Noreturn void hd_tokens_fail(const hd_tokens *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A whole file, NUL-terminated; fails when it cannot be read, is no ordinary file or larger than any tokenizer. */
const char *hd_tokens_text(const char *file, size_t *bytes);
/* Gives id to a name: fails when id is beyond what tables hold, or when it has a name already. `name` may hold zeros. */
void hd_tokens_put(hd_tokens *, uint32_t id, const char *name, size_t bytes);
/* After all were put: fails at an id without a name, or a name with two ids. */
void hd_tokens_close(hd_tokens *);
int64_t hd_tokens_find(const hd_tokens *, const char *name, size_t bytes);     /* -1: none */
/* A stage at the end of the normaliser (part 0) or the splitter (1). */
hd_step_of *hd_tokens_step(hd_tokens *, int part, hd_stage_kind kind);
hd_decode_step *hd_tokens_decode(hd_tokens *, hd_decode_kind kind);
void hd_tokens_merge(hd_tokens *, const char *left, size_t left_bytes, const char *right, size_t right_bytes);     /* the next rank */
void hd_tokens_add(hd_tokens *, hd_new);

/* SentencePiece's compiled map as a step: u32 bytes of its double array, the array, strings that end in zeros. */
void hd_tokens_map(hd_tokens *, const char *where, const char *data, size_t bytes, bool graphemes);

void hd_tokens_read_json(hd_tokens *);                                /* tokenizer.json */
void hd_tokens_read_gpt2(hd_tokens *, const char *merges);            /* file: vocab.json */
void hd_tokens_read_vocab(hd_tokens *);                               /* vocab.txt */
void hd_tokens_read_sentencepiece(hd_tokens *);                       /* .model */
struct json_t *hd_tokens_json(hd_tokens *, const char *file);         /* an object, freed by hd_tokenizer_load; fails with line and reason */

const hd_tokenizer *hd_tokens_write(hd_tokens *);

/* unicode.c: libutf8proc behind tables. */
uint32_t *hd_unicode_map(hd_step_of *, uint32_t (*of)(uint32_t point, const void *how, uint32_t *out), const void *how);      /* fills the step's map */
typedef struct hd_bert { bool clean, chinese, accents, lower; } hd_bert;
void hd_unicode_bert(hd_step_of *, const hd_bert *);
void hd_unicode_lower(hd_step_of *);
void hd_unicode_accents(hd_step_of *);
void hd_unicode_nmt(hd_step_of *);
void hd_unicode_form(hd_step_of *, bool compatible);
uint8_t *hd_unicode_classes(void), *hd_unicode_marks(void);           /* [0x110000] */
int hd_unicode_pairs(uint32_t (**pairs)[3]);                          /* first, second, composite */

/* GPT-2's alphabet: byte -> code point, and back (-1: not of the alphabet). */
uint32_t hd_byte_letter(unsigned char byte);
int hd_letter_byte(uint32_t point);

#endif
