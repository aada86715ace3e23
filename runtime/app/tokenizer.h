/* Text to token ids and back, from constant tables that the compiler writes (compiler/tokenizer).
 *
 *   text -> added tokens cut out -> normalised -> cut into pieces -> each piece to ids by the model -> template of special tokens
 *
 * as in Hugging Face's tokenizers, whose tokenizer.json the tables are made from. The tables hold no addresses: one block, mapped with
 * the program, touched only where it is read. What Unicode is needed (classes, decompositions) is in the tables, not in the code, so
 * that a program carries only what its own tokenizer reads, and needs no Unicode library.
 * Nothing here prints or exits; an encoder belongs to one thread, tables are shared by all. */
#ifndef HD_TOKENIZER_H
#define HD_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef HD_TOKENS_SHARED
#define HD_TOKENS_SHARED      /* storage class of what these files share: static where they are put into one (heddle emit) */
#endif

enum { HD_TOKENIZER_MAGIC = 0x314b5448, HD_TOKENIZER_STAGES = 12, HD_TOKENIZER_MOST_IDS = 1 << 20 };

/* A table: `count` elements from byte `at` of the block on (8-byte aligned). count 0: absent. */
typedef struct hd_table { uint32_t at, count; } hd_table;

typedef enum hd_tokenizer_model { HD_TOKENS_BPE, HD_TOKENS_WORDPIECE, HD_TOKENS_UNIGRAM, HD_TOKENS_WORDS } hd_tokenizer_model;

/* One step of the normaliser or of the splitter: what a, b, from and to mean is said beside each kind.
 * A splitter step cuts each piece it is given as if nothing stood around it. */
typedef enum hd_stage_kind {
    HD_NORMAL_MAP,          /* each code point to the string that map gives */
    HD_NORMAL_FORM,         /* canonical (or compatible) decomposition by map, marks ordered, composed again if a */
    HD_NORMAL_REPLACE,      /* each `from` becomes `to` */
    HD_NORMAL_RUN,          /* each run of a or more `from` becomes `to` */
    HD_NORMAL_REGEX,        /* each match of the regular expression `from` becomes `to` */
    HD_NORMAL_PREPEND,      /* `to` before text that is not empty */
    HD_NORMAL_STRIP,        /* white space goes: a 1 left, 2 right, 3 both */
    HD_NORMAL_TRIE,         /* SentencePiece's compiled map (from: Darts units, to: strings); a 1: by grapheme, else by longest prefix */
    HD_NORMAL_SPACES,       /* blanks at both ends go, inner runs become one (SentencePiece: remove_extra_whitespaces) */
    HD_SPLIT_GPT2,          /* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
    HD_SPLIT_CL100K,        /* (?i:'s|..)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,a}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
    HD_SPLIT_O200K,         /* words by case; a digits at most, b 1: contractions and / as of GPT-4o, 0: as of Tekken */
    HD_SPLIT_BLOOM,         /* runs with a blank before, of what is neither white space nor one of ( | ) . , ! ? ... */
    HD_SPLIT_LITERAL,       /* at `from`; a: hd_split_behaviour */
    HD_SPLIT_REGEX,         /* at matches of `from`; a: hd_split_behaviour, b: matches and gaps change places */
    HD_SPLIT_WORDS,         /* \w+|[^\w\s]+ */
    HD_SPLIT_SPACES,        /* what lies between white space */
    HD_SPLIT_BERT,          /* the same, each punctuation mark a piece */
    HD_SPLIT_DIGITS,        /* runs of numbers; a 1: each */
    HD_SPLIT_PUNCTUATION,   /* at punctuation; a: hd_split_behaviour */
    HD_SPLIT_PREFIX,        /* a blank before a piece that begins with none */
    HD_SPLIT_METASPACE,     /* blanks become `to`; a: before the piece too 0 never, 1 at the text's start, 2 always; b 1: cut before each */
    HD_SPLIT_BEFORE,        /* cut where a run of `from` begins: no token reaches across */
} hd_stage_kind;
typedef enum hd_split_behaviour { HD_SPLIT_REMOVED, HD_SPLIT_ISOLATED, HD_SPLIT_WITH_PREVIOUS, HD_SPLIT_WITH_NEXT, HD_SPLIT_CONTIGUOUS } hd_split_behaviour;

/* map_index u16 [0x110000 / 128], map_block u32 [blocks][128]: 0 the code point itself, HD_MAP_PADDED the same with a blank on each
 * side (BERT's Chinese characters), else 1 + place in map_text of a string, its length before it. */
#define HD_MAP_PADDED UINT32_MAX
typedef struct hd_stage { uint32_t kind, a, b; hd_table from, to, map_index, map_block, map_text; } hd_stage;

/* Bits of a code point's class: its general category (hd_category) and properties. */
enum { HD_CLASS_CATEGORY = 0x1f, HD_CLASS_SPACE = 0x20, HD_CLASS_WORD = 0x40, HD_CLASS_EXTEND = 0x80 };

enum {
    HD_TOKENS_BYTES = 1,          /* symbols are bytes: any bytes can be encoded; else they are characters of UTF-8 */
    HD_TOKENS_FALLBACK = 2,       /* characters without an id become the ids of their bytes */
    HD_TOKENS_FUSE = 4,           /* neighbouring unknown characters are one unknown token */
    HD_TOKENS_WHOLE = 8,          /* a piece that is a token is that token, whatever the merges say (ignore_merges) */
    HD_TOKENS_FLOAT = 16,         /* Unigram sums in float, as SentencePiece */
    HD_TOKENS_CLEAN = 32,         /* decoding removes blanks before punctuation (clean_up_tokenization_spaces) */
    HD_TOKENS_UNSPACE = 64,       /* decoding drops the blanks that the first token begins with */
};

/* Added tokens: found in the text before anything else (normalised 0) or after normalisation. */
enum { HD_ADDED_SPECIAL = 1, HD_ADDED_WORD = 2, HD_ADDED_LEFT = 4, HD_ADDED_RIGHT = 8 };
typedef struct hd_added { uint32_t id, flags; } hd_added;

/* Hash tables are u64 slots, key 40 bits over value 24 bits, all ones where empty, searched from
 * ((key * HD_HASH) >> 32) * count >> 32 on. Tries: key = node << 8 | byte, value = child; node 0 is the root. */
#define HD_HASH UINT64_C(0x9e3779b97f4a7c15)

typedef struct hd_tokenizer {
    uint32_t magic, bytes;              /* of the whole block */
    uint32_t vocab;                     /* ids are 0 .. vocab - 1 */
    uint32_t model, flags;
    int32_t unknown;                    /* id, or -1: unknown characters are left out */
    uint32_t most_characters;           /* WordPiece: longer words are unknown */
    uint32_t strip_first;               /* decoding: blanks at most that the text loses at its start */
    uint32_t longest;                   /* bytes of the longest token as decoded */
    double unknown_score;               /* Unigram */
    hd_table text_at, text;             /* u32 [vocab + 1], bytes: tokens as the model sees them */
    hd_table shown_at, shown;           /* the same as decoding writes them (not the first: see first_at) */
    hd_table first_at, first;           /* the same for the first token of a text; absent: as shown */
    hd_table special;                   /* u8 [vocab]: 1 where decoding may leave the token out */
    hd_table word;                      /* hash: upper 40 bits of hd_tokenizer_hash(text) -> id, bit 23 set where the model makes that one token of it */
    hd_table merge, merged;             /* hash: left << 20 | right -> rank; u32 id by rank */
    hd_table byte_pair;                 /* u32 [256][256]: rank by two bytes, UINT32_MAX none; absent where a byte has no id. What words start from
                                         * lies in few lines of it, where the hash table would be missed in each cache */
    hd_table symbol;                    /* i32 [256]: id of a byte, -1 none */
    hd_table trie, trie_id;             /* Unigram, WordPiece: hash; u32 [nodes] id + 1 */
    uint32_t inner_root;                /* WordPiece: node from which pieces inside a word start */
    hd_table inner_prefix, end_suffix;  /* BPE: put before symbols inside a word, after the last one */
    hd_table score;                     /* Unigram: double [vocab] */
    hd_table class_index, class_block;  /* u16 [0x110000 / 128], u8 [blocks][128] */
    hd_table marks_index, marks_block;  /* likewise: canonical combining class */
    hd_table compose;                   /* hash: first << 20 | second -> composite (all that compose lie below 1 << 20) */
    hd_table added, added_trie[2], added_node[2], added_first[2];   /* [1]: in normalised text. node: u32 index + 1; first: u8 [256] */
    hd_table before, after;             /* u32 ids that the template puts around a text */
    uint32_t normals, splits;
    hd_stage stage[2][HD_TOKENIZER_STAGES];      /* normaliser, splitter */
} hd_tokenizer;

#define HD_AT(t, table, type) ((const type *)(const void *)((const unsigned char *)(t) + (t)->table.at))

HD_TOKENS_SHARED uint64_t hd_tokenizer_hash(const void *text, size_t bytes);

/* Regular expressions that no splitter here knows: PCRE2, linked only by programs whose tokenizer holds one. */
typedef struct hd_regex {
    void *(*compile)(const char *pattern, size_t bytes, char *error, size_t error_bytes);
    /* The first match in text[from, bytes) that is not empty: 1 and its ends, 0 none, -1 error (no memory, or PCRE2 gave up on a pattern that backtracks without end). */
    int (*match)(void *, const char *text, size_t bytes, size_t from, size_t *start, size_t *end);
    void (*free)(void *);
} hd_regex;
extern const hd_regex hd_regex_pcre2;

/* NULL: no memory, or a regular expression that does not compile (regex may be NULL where no stage holds one). */
typedef struct hd_encoder hd_encoder;
HD_TOKENS_SHARED hd_encoder *hd_encoder_new(const hd_tokenizer *, const hd_regex *);
HD_TOKENS_SHARED void hd_encoder_free(hd_encoder *);

/* The ids of a text. special: with the tokens that the template puts around it. Returns their number, -1 when memory is out or a
 * regular expression gave up; *ids is the encoder's, until its next call. Bytes that are no UTF-8 are kept by byte-level tokenizers and become U+FFFD for the others. */
HD_TOKENS_SHARED int64_t hd_encode(hd_encoder *, const char *text, size_t bytes, bool special, const int32_t **ids);
/* The text as the normaliser leaves it, and the ids of one piece by the model alone: for the compiler and tests. */
HD_TOKENS_SHARED int64_t hd_encoder_normalise(hd_encoder *, const char *text, size_t bytes, const char **normal);
HD_TOKENS_SHARED int64_t hd_encoder_piece(hd_encoder *, const char *piece, size_t bytes, const int32_t **ids);
/* The ends of the pieces that the splitter makes of a text, dropped ones left out: pairs start, end. */
HD_TOKENS_SHARED int64_t hd_encoder_split(hd_encoder *, const char *text, size_t bytes, const int64_t **ends);

/* The bytes of ids, malloc'ed and NUL-terminated (NULL: no memory); ids outside the vocabulary add nothing. skip: without special tokens. */
HD_TOKENS_SHARED char *hd_decode(const hd_tokenizer *, const int32_t *ids, int64_t count, bool skip, size_t *bytes);

/* Decoding while ids arrive: text is given out when its characters are whole; invalid bytes are U+FFFD.
 * out has room for hd_stream_room(t) bytes; returns how many were written. id -1: the end, what is held back comes out. */
typedef struct hd_stream { const hd_tokenizer *tokenizer; int64_t count; bool skip; unsigned held; unsigned char hold[4]; uint32_t stripped; } hd_stream;
HD_TOKENS_SHARED size_t hd_stream_room(const hd_tokenizer *);
HD_TOKENS_SHARED size_t hd_stream_put(hd_stream *, int32_t id, char *out);

#endif
