/* Tuning: choices that were measured instead of computed.
 *
 * Lowering asks for every operator that has a choice (hd_tune_product, hd_tune_attention); where a record fits, it is taken,
 * else the analytical choice stands. `heddle tune` makes the records: it times variants of the operators of a spec on the
 * memory that the model gives them (tune.c, space.c, measure.c and runtime/tune/measure.c).
 *
 * A database is text, one record per line, fields between " | ":
 *
 *   1 | product | m=128 n=512 ... | GenuineIntel-6-85-7 l1=.. l2=.. l3=.. | vl=16 ... | clang-22.1.8-1a2b | templates=3c4d |
 *   threads=2 | mr=8 nv=3 ... | ns=.. default_ns=.. noise=..                                      (all of that one line)
 *   version, operator, its constants, machine, target, compiler and flags, kernel sources, threads, choice, times
 *
 * All but the last three must be equal for a record to be used; one timed with other numbers of threads is taken where none
 * fits, and `info` says so. Lines that begin with # are comments. Of equal records the last line counts: a later tuning has
 * timed the earlier one's choice beside its own. */
#ifndef HD_TUNE_H
#define HD_TUNE_H

#include "../base/base.h"
#include "../emit/emit.h"
#include "../emit/attention.h"
#include "../emit/product.h"
#include "../passes/passes.h"

struct hd_options;


/* What one record was measured with, and what came of it. */
typedef struct hd_record {
    const char *op, *problem, *machine, *target, *compiler, *templates;
    int threads;                         /* timed alone and with so many */
    const char *choice;
    double nanoseconds, default_nanoseconds, noise;      /* of one call on one thread; noise: share of it */
    const char *file; int line;          /* where it was read */
} hd_record;

typedef struct hd_records { int count, capacity; hd_record *record; } hd_records;

/* One line as above, without its end. */
char *hd_record_text(const hd_record *);
/* Reads a line; NULL, or what is wrong with it. A line that holds no record (empty, comment) leaves record->op NULL. */
const char *hd_record_parse(const char *line, hd_record *record);
/* Adds the records of a file. Wrong lines are skipped with a warning that names file and line; a file that is not there holds none. */
void hd_records_read(hd_records *, const char *path);
/* Puts records into a file: replaces those they supersede, keeps every other line. Atomic, also among several writers. */
/* Fails with a message unless the file can be written. */
void hd_records_writable(const char *path);
void hd_records_store(const char *path, const hd_record *record, int count);

/* The records one compilation may use, and what became of them. */
typedef struct hd_tuning {
    const struct hd_options *options;
    const hd_target *target;
    hd_records records;                  /* shipped, then the user's */
    const char *machine, *target_text, *compiler, *templates[2];
    int threads;
    int asked, found, other_threads;     /* problems, each once; those with a record; of those, timed with other numbers of threads */
    int foreign_machine, foreign_target, foreign_compiler, foreign_templates, refused;     /* records of our problems that were not used */
    int uses, use_capacity; struct hd_tuning_use { const char *op, *problem; const hd_record *record; } *use;
} hd_tuning;

hd_tuning *hd_tuning_open(const struct hd_options *, const hd_target *);
/* Where `heddle tune` writes: --database, $HEDDLE_TUNING, or tuning.txt in the user's cache folder; NULL when there is none. */
const char *hd_tuning_file(const struct hd_options *);
/* The key that this run gives its own records. */
hd_record hd_tuning_key(hd_tuning *, const char *op, const char *problem);
/* The record that fits, or NULL: the last of equal ones, of our number of threads or else the nearest. Without noting a use. */
const hd_record *hd_tuning_find(hd_tuning *, const char *op, const char *problem);
/* The same, noted as asked for and as used. */
const hd_record *hd_tuned(hd_tuning *, const char *op, const char *problem);
/* The record's choice does not fit its problem: it is not used, and said so. */
void hd_tuning_refuse(hd_tuning *, const hd_record *, const char *why);
/* Number and hash of the records that were used, for headers: "2 of 9 operators by tuning records, 1a2b3c4d5e6f7081"; "" where none was. */
const char *hd_tuning_note(const hd_tuning *);
/* Says on stderr (-v) which records were used, and how many of the model's operators were passed over and why. */
void hd_tuning_explain(const hd_tuning *);

/* One choice of an operator: of a product, or of an attention. */
typedef struct hd_variant { hd_product product; hd_attention_choice attention; } hd_variant;

/* What can be tuned about a step, or about the phases of an attention that begin with it. */
typedef struct hd_tunable {
    const char *op, *problem;            /* "product" or "attention" */
    const hd_record *record;             /* that gave the choice, or NULL */
    hd_variant chosen, analytical;       /* the choice in use; the computed one */
    /* products: the kernel has the parameters `before`, the choice, `after` */
    const char *before, *after, *signature;
    int arguments;                       /* of the step, those of the signature */
    hd_product_target target;
    hd_view source; bool source_transposed; int64_t source_ld, stride_a, stride_b;      /* B as it lies before packing */
    const char *lines;                   /* of the epilogue, as the template takes them */
    /* attentions */
    const hd_attention *attention;
    const hd_target *machine;
    bool backward;
    int phases;                          /* of the plan by estimates */
} hd_tunable;

/* After hd_product_choose: takes a record's choice where one fits. */
hd_tunable *hd_tune_product(hd_tuning *, hd_product *, const hd_product_target *, int64_t stride_a, int64_t stride_b, const char *epilogue,
                            const char *arguments, const char *lines);
/* After the plan by estimates: sets attention->choice where a record fits. NULL where there is nothing to time. */
hd_tunable *hd_tune_attention(hd_tuning *, hd_attention *, const hd_target *, bool backward, const hd_attention_plan *analytical);

/* The parameters of a product's choice as a record has them ("mr=8 nv=3 ...") and as a template takes them. */
const char *hd_product_choice(const hd_product *);
const char *hd_product_parameters(const hd_product *);
/* Sets the choice of a product from a record's text; false, with the reason and the product unchanged, where it does not fit. */
bool hd_product_apply(hd_product *, const char *choice, const hd_product_target *, const char **why);
/* Candidates that differ from `from` in one coordinate, pruned by registers and caches. Coordinates are numbered from 0; returns
 * how many were added, -1 beyond the last. threads: whether it matters how many there are. */
int hd_product_moves(const hd_product *from, const hd_product_target *, int coordinate, hd_product *to, int most, const char **name, bool *threads);
/* Parameters chosen to be bad, for checks of the search. */
hd_product hd_product_worst(const hd_product *, const hd_product_target *);

/* The same of attentions: "kernels=tiles width=2 chunk=96". */
const char *hd_attention_choice_text(const hd_attention_choice *);
bool hd_attention_choice_parse(const char *text, hd_attention_choice *);
int hd_attention_moves(const hd_tunable *, const hd_attention_choice *from, int coordinate, hd_attention_choice *to, int most, const char **name);
hd_attention_choice hd_attention_worst(const hd_tunable *);
hd_attention_plan hd_attention_plan_of(const hd_tunable *, const hd_attention_choice *);

/* A variant under measurement. */
typedef struct hd_trial {
    const char *choice;
    hd_variant variant;
    double nanoseconds[2], noise[2];     /* on one thread and on all; 0: not timed */
    double score;                        /* log of the time over the analytical choice's, mean over the threads; INFINITY: dropped */
    bool slow;                           /* so far behind that it was given up: its times are rough */
    const char *dropped;                 /* why, or NULL */
} hd_trial;

/* Compiles, checks and times trials of one step against each other; the first is the analytical choice. Fills times, scores and
 * reasons. threads: timed on one, and on so many if that is more. seconds: for timing them all on one number of threads; limit:
 * after which the program is killed. Returns false when nothing could be measured, with the reason. */
bool hd_measure(hd_tuning *, const hd_model *, const hd_program *, const hd_step *, hd_trial *, int trials, int threads, double seconds, double limit,
                const char **why);
int hd_command_tune(const struct hd_options *);

#endif
