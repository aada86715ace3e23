/* What the files of the graph core share: prototypes of the functions that rows of ops.def name, and shape helpers. */
#ifndef HD_GRAPH_INTERNAL_H
#define HD_GRAPH_INTERNAL_H

#include "graph.h"

/* A rule serves several rows, so its prototype appears several times, which C allows. `none` becomes a function nobody
 * defines or uses: ops.c turns it into NULL. */
#define HD_OP(name, inputs, results, shape, eval, gradient, lowering, flops) \
    void shape_##shape(hd_node *); \
    void eval_##eval(hd_eval *, const hd_node *); \
    void grad_##gradient(hd_graph *, hd_node *, hd_node **, hd_node **);
#include "ops.def"

/* "a" and "b", "q", "k" and "v", ...: what messages call input i of an op; NULL where there is nothing better than its number. */
const char *hd_operand_name(const hd_node *, int i);
/* The same input may be i32 (ids, random state) in this op. */
bool hd_operand_is_i32(const hd_node *, int i);
/* Fails with "where: op "name": message". */
_Noreturn void hd_node_fail(const hd_node *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* NumPy's rule; false when the sizes of some axis differ and neither is 1. */
bool hd_broadcast(const hd_shape *a, const hd_shape *b, hd_shape *out);

/* hd_gradients, telling of each tensor (by index) as soon as its gradient is complete, while the sweep goes on; the
 * callback may add nodes. seed: d(something) / d(loss), NULL for 1. A tensor that the loss does not depend on is not told of, and its gradient stays NULL. */
void hd_gradient_sweep(hd_graph *, hd_node *loss, hd_node *seed, int tensors, hd_node *const *tensor, hd_node **gradient,
                       void (*complete)(void *argument, int index), void *argument);

#endif
