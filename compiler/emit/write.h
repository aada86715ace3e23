/* Shared by the files that write a model's C: names.c, header.c, decode.c, model.c, info.c. */
#ifndef HD_EMIT_WRITE_H
#define HD_EMIT_WRITE_H

#include "emit.h"

const char *hd_emit_upper(const char *text);                               /* as the constants of C are spelled */
void hd_emit_file(hd_model *, const char *name, const char *text, bool header);
const char *hd_emit_banner(const hd_model *, const char *what);            /* the first lines of a file's opening comment */

/* What stands for an entry where the weights are packed. */
extern const hd_entry hd_emit_pack_entry;
static inline bool hd_emit_trains(const hd_entry *e) { return e->effects > 0; }
const char *hd_emit_argument(const hd_entry *, int k);                     /* C name of argument k: inputs, then outputs */
const char *hd_emit_function(const hd_entry *);                            /* C name after the prefix */
const char *hd_emit_type(const hd_node *);                                 /* of an element: float or int32_t */
void hd_emit_prototype(hd_text *, const hd_model *, const hd_entry *);

void hd_emit_constant(hd_text *, const char *name, int64_t value, const char *comment);

/* decode.c: what stands around prefill and step; nothing for models without them. */
void hd_emit_decode_constants(hd_text *, const hd_model *);
void hd_emit_decode_header(hd_text *, const hd_model *);
void hd_emit_decode_functions(hd_text *, const hd_model *);
const char *hd_emit_decode_info(hd_text *, const hd_model *);              /* C expression of the address of the program's hd_decode_info, or "NULL" */

void hd_emit_header(hd_model *);                                           /* header.c: MODEL.h */
void hd_emit_info(hd_model *, const char *compiler);                       /* info.c: MODEL_info.c */
void hd_emit_tokenizer(hd_model *);                                        /* info.c: MODEL_tokenizer.c and .bin */
/* weights_file.c: MODEL_check_packed, for files of heddle pack, in MODEL.h and MODEL.c */
void hd_emit_packed_prototype(hd_text *, const hd_model *);
void hd_emit_packed_check(hd_text *, const hd_model *);

#endif
