/* C text of a whole model: the header, the entries, the kernels, the program's table. Nothing here decides anything: the
 * programs say which kernel is called with which memory. */
#ifndef HD_EMIT_H
#define HD_EMIT_H

#include "../passes/passes.h"
#include "kernels.h"

/* bytes 0: text ends in a zero. */
typedef struct hd_file { const char *name; const char *text; bool header; size_t bytes; } hd_file;

/* A compiled graph, ready to be written. */
typedef struct hd_model {
    const hd_graph *graph;
    const hd_target *target;
    const char *version;
    int64_t *weight_offset;        /* by node id */
    int64_t weights_bytes, state_bytes;
    int programs; hd_program **program;     /* one for each entry, in order */
    hd_packing packing;
    hd_kernels kernels;
    int files, file_capacity; hd_file *file;
    const hd_entry *trains;        /* its costliest entry with gradients; NULL without one */
    struct hd_choices *choices;    /* of what that keeps for its gradients (passes/recompute.h), where info or --memory asks; NULL else */
    const void *tokenizer; size_t tokenizer_bytes; bool tokenizer_regex;      /* tables of the program's tokenizer, or NULL; whether they need PCRE2 */
    struct hd_model *better;       /* programs of several variants: the same graph for processors with more instructions, or NULL */
    bool own_weights, own_packed;  /* the program holds both areas, or the first alone */
    bool part;                     /* some model's `better` */
} hd_model;

/* Fills model->file: NAME.h, NAME.c, NAME_kernels.h, NAME_KIND_*.c, and NAME_info.c where `info` is asked for; NAME is kernels.prefix. */
void hd_emit(hd_model *, hd_expander *, bool info, const char *compiler);
/* One kernel call of an entry: C texts of its arguments after `run`; whether a cancelled entry may return before it. */
typedef struct hd_call { const char *comment, *kernel; int arguments; const char **argument; bool may_stop; } hd_call;
/* At most about `most` lines; returns how many calls they make. */
int hd_emit_calls(hd_text *, const hd_call *, int calls, int most);

/* Tables of the program's application part: `patterns`, each with its cover, and `attentions`, the attention ops of entry `forward`. */
void hd_emit_patterns(hd_text *, const hd_model *);

/* Of the layouts of both areas: names, shapes, offsets; panels. */
uint64_t hd_weights_hash(const hd_model *);
uint64_t hd_panels_hash(const hd_model *);

const char *hd_quoted(const char *text);       /* as a C string literal */
/* `text` without what would end a comment or a line. */
const char *hd_comment(const char *text);

#endif
