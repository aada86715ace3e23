/* Regular expressions by PCRE2, with its compiler to machine code where it has one (tokenizer.h: hd_regex). A file of its own, so that
 * only programs whose tokenizer needs it carry the library. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer.h"

#include <pcre2.h>
#include <stdlib.h>

typedef struct regex { pcre2_code *code; pcre2_match_data *match; } regex;

static void regex_free(void *r)
{
    regex *own = r;
    if (!own) return;
    pcre2_match_data_free(own->match);
    pcre2_code_free(own->code);
    free(own);
}

static void *regex_compile(const char *pattern, size_t bytes, char *error, size_t error_bytes)
{
    int number;
    PCRE2_SIZE at;
    regex *own = calloc(1, sizeof *own);
    if (!own) return NULL;
    /* text that is no UTF-8 never matches there, instead of failing the whole */
    own->code = pcre2_compile((PCRE2_SPTR)pattern, bytes, PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &number, &at, NULL);
    if (!own->code) {
        pcre2_get_error_message(number, (PCRE2_UCHAR *)error, error_bytes);
        free(own);
        return NULL;
    }
    pcre2_jit_compile(own->code, PCRE2_JIT_COMPLETE);      /* without it: the interpreter */
    own->match = pcre2_match_data_create_from_pattern(own->code, NULL);
    if (own->match) return own;
    regex_free(own);
    return NULL;
}

static int regex_match(void *r, const char *text, size_t bytes, size_t from, size_t *start, size_t *end)
{
    regex *own = r;
    int found = pcre2_match(own->code, (PCRE2_SPTR)text, bytes, from, PCRE2_NOTEMPTY, own->match, NULL);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)               /* long matches of groups: the interpreter keeps its state on the heap */
        found = pcre2_match(own->code, (PCRE2_SPTR)text, bytes, from, PCRE2_NOTEMPTY | PCRE2_NO_JIT, own->match, NULL);
    if (found == PCRE2_ERROR_NOMATCH) return 0;
    if (found < 0) return -1;
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(own->match);
    *start = ends[0], *end = ends[1];
    return 1;
}

const hd_regex hd_regex_pcre2 = { regex_compile, regex_match, regex_free };
