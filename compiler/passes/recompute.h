/* Values made again for the backward pass: how (recompute.c), and which, under a limit of memory (keep.c). */
#ifndef HD_RECOMPUTE_H
#define HD_RECOMPUTE_H

#include "passes.h"

/* What the backward pass does with a value of the forward pass.
 * HD_KEEP   reads it where the forward pass left it
 * HD_AGAIN  reads a clone, computed once more just before its first reader
 * HD_PASS   reads it as it is; but clones that need it are made from a clone of it, so that it need not be kept for them */
typedef enum hd_keep { HD_KEEP, HD_AGAIN, HD_PASS } hd_keep;

/* Inserts the clones that nodes of gradients read instead of forward values; keep[] is by node id. Views and sources need no
 * mark. Results and attributes are the originals' (dropout's bits depend on those alone), so no bit of any gradient changes.
 * Nodes are numbered anew; returns, for each, the id it or its original had before. */
int *hd_insert_clones(hd_graph *, const hd_keep *keep);
/* What hd.recompute asks for: values made and used inside a marked block only are made again. */
void hd_recompute_marked(hd_graph *);

/* One choice of what to keep, and what it costs an entry. */
typedef struct hd_choice {
    int64_t scratch_bytes;
    double seconds, flops;      /* of one run, by the cost model */
    hd_keep *keep;              /* by node id of the graph that was given to hd_choices_find, at that time */
} hd_choice;

/* The entry's choices between keeping all and making all again. */
typedef struct hd_choices hd_choices;
/* The entry of g that trains: the one with gradients that needs the most operations; NULL without one. */
const hd_entry *hd_training_entry(const hd_graph *g);
/* They stay valid when the graph changes. tuning: the records that the target's kernels will be chosen by, or NULL. */
struct hd_tuning;
hd_choices *hd_choices_find(const hd_graph *, const hd_entry *, const hd_target *, struct hd_tuning *tuning);
/* The cheapest choice whose scratch fits `bytes`; false, and the choice that needs the least, where none fits. */
bool hd_choose(hd_choices *, int64_t bytes, hd_choice *out);
/* At most `most` of them, from the least memory to the most; the last keeps all. */
int hd_choices_table(hd_choices *, int most, hd_choice *rows);
/* What a plan that was made costs; keep is NULL. */
hd_choice hd_choice_made(const hd_program *, const hd_target *);

#endif
