/* Attention over single pairs: few keys per query and little sharing between queries, as in graphs.
 *
 * The kept pairs are constant tables, by query for the forward pass and dq, by key for dk and dv; the lanes of a vector are
 * elements of a head, so that nothing is computed that the pattern does not keep. The only family that takes edge_bias. */
#ifndef HD_ATTENTION_EDGES_H
#define HD_ATTENTION_EDGES_H

#include "attention.h"

/* Estimated cycles of one sequence, all heads; negative if a pattern keeps too many pairs for tables. */
double hd_attention_edges_cost(const hd_attention *, const hd_target *, bool backward);
/* Forward: one phase. Backward: one by query for dq, which leaves the pairs' probabilities and score gradients in merge, and one
 * by key for dk and dv; with enough key heads to be slots, one phase that does both for each. Any number of threads gives the
 * same bits. Fails where the cost is negative. */
hd_attention_plan hd_attention_edges(const hd_attention *, const hd_target *, bool backward);

#endif
