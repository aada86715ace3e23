/* The loss of a language model in chunks of rows: the logits of one chunk exist at a time. See chunk_loss.c. */
#ifndef HD_CHUNK_LOSS_H
#define HD_CHUNK_LOSS_H

#include "graph.h"

/* What makes logits [..., vocab] from rows [..., width]. */
typedef struct hd_head {
    hd_node *logits, *rows;
    bool *inside, *weight;                 /* by node id, to that of the logits: nodes of one element per logit; params it is made of */
} hd_head;

typedef struct hd_loss_chunk { hd_node *rows, *nll; } hd_loss_chunk;    /* [count, width], of training behind a detach; nll [count] */

/* False where the logits are made in another way than row by row from one tensor. */
bool hd_find_head(const hd_graph *, hd_node *logits, hd_head *);
/* How many chunks logits of this shape are worth; 1: none. */
int hd_loss_chunks(const hd_node *logits);
/* Rows of each chunk but the last, which may have fewer. */
int64_t hd_chunk_rows(const hd_head *, int chunks);
hd_loss_chunk hd_add_loss_chunk(hd_graph *, const hd_head *, hd_node *targets, int64_t first, int64_t count, bool training);
/* Parts joined along the rows, in another shape of as many elements. */
hd_node *hd_join_chunks(hd_graph *, const hd_node *like, int chunks, hd_node *const *part, const hd_shape *);
/* What cross_entropy(logits, targets) gives, in the shape of the targets. */
hd_node *hd_chunked_nll(hd_graph *, const hd_head *, hd_node *targets, int chunks);
/* hd_add_train_step for the mean of cross_entropy(logits, targets); `loss_entry` gives the inputs. */
void hd_add_chunked_train_step(hd_graph *, const hd_entry *loss_entry, const hd_head *, hd_node *targets, int chunks);

#endif
