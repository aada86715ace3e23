/* Cross-entropy over a large vocabulary without the logits of all rows: the head, which makes logits from rows, and the loss
 * are computed some rows at a time.
 *
 * The head is what leads from one tensor of rows [..., width] to the logits [..., vocab]: one product or more with a shared
 * matrix, then elementwise steps (bias, scale, soft cap), none of which mixes rows. For training, the backward nodes of a chunk
 * directly follow its forward nodes, since d(loss)/d(logits) needs nothing but the chunk: nothing is computed twice, and a
 * chunk's logits die before the next one's are made (train_step.c). */
#include "chunk_loss.h"
#include "internal.h"

#include <string.h>

/* Logits below `least` bytes are not worth cutting. A chunk's logits should stay in the last cache, but each chunk reads the
 * head's weight twice and its gradient once: fewer than `rows` rows would wait for memory instead of computing. */
enum { LEAST_BYTES = 16 << 20, CHUNK_BYTES = 8 << 20, LEAST_ROWS = 256, MOST_CHUNKS = 32 };

static int64_t columns(const hd_node *n) { return n->shape.rank ? n->shape.size[n->shape.rank - 1] : 1; }
static int64_t rows_of(const hd_node *n) { return hd_elements(&n->shape) / columns(n); }

/* The value is the same for every row of any input: made of weights and numbers alone. Marks the weights it is made of. */
static bool same_for_all(const hd_graph *graph, const hd_node *node, bool *weight)
{
    bool *needed = HD_NEW_ARRAY(bool, node->id + 1);
    needed[node->id] = true;
    for (int i = node->id; i >= 0; i--) {
        const hd_node *n = graph->node[i];
        if (!needed[i]) continue;
        if (n->op == HD_OP_input || n->op == HD_OP_dropout) return false;
        if (n->op == HD_OP_param) weight[i] = true;
        for (int k = 0; k < n->inputs; k++) needed[n->input[k]->id] = true;
    }
    return true;
}

static bool is_elementwise(const hd_node *n)
{
    return n->inputs && n->op != HD_OP_expand && n->op != HD_OP_dropout && n->op != HD_OP_accumulate && n->op != HD_OP_detach &&
           !strcmp(hd_ops[n->op].lowering, "map");
}

bool hd_find_head(const hd_graph *graph, hd_node *logits, hd_head *head)
{
    *head = (hd_head){ .logits = logits, .inside = HD_NEW_ARRAY(bool, logits->id + 1), .weight = HD_NEW_ARRAY(bool, logits->id + 1) };
    const int64_t rows = rows_of(logits), vocab = columns(logits);
    head->inside[logits->id] = true;
    for (int i = logits->id; i >= 0; i--) {
        hd_node *n = graph->node[i];
        if (!head->inside[i]) continue;
        if (n->op == HD_OP_matmul) {
            hd_node *a = n->input[0], *b = n->input[1];
            if (n->attr.matmul.trans_a || b->shape.rank != 2 || (head->rows && head->rows != a) || !same_for_all(graph, b, head->weight)) return false;
            head->rows = a;
        } else if (n->op == HD_OP_reshape && columns(n->input[0]) == vocab) {
            head->inside[n->input[0]->id] = true;
        } else if (is_elementwise(n)) {
            for (int k = 0; k < n->inputs; k++) {
                hd_node *x = n->input[k];
                if (rows_of(x) == 1 && same_for_all(graph, x, head->weight)) continue;
                if (rows_of(x) != rows || columns(x) != vocab) return false;
                head->inside[x->id] = true;
            }
        } else {
            return false;
        }
    }
    return head->rows && !head->inside[head->rows->id];
}

int hd_loss_chunks(const hd_node *logits)
{
    const int64_t rows = rows_of(logits), bytes = hd_node_bytes(logits);
    if (bytes <= LEAST_BYTES) return 1;
    int64_t chunks = (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
    if (chunks > rows / LEAST_ROWS) chunks = rows / LEAST_ROWS;
    return chunks < 1 ? 1 : chunks > MOST_CHUNKS ? MOST_CHUNKS : (int)chunks;
}

static hd_node *add(hd_graph *graph, const hd_node *like, hd_op op, const hd_shape *shape, int inputs, hd_node *const *input, const hd_attr *attr)
{
    hd_node *n = hd_graph_add(graph, op, like->where, HD_F32, shape, inputs, input, attr);
    n->name = like->name;
    return n;
}

/* Rows [first, first + count) of x seen as a matrix, or as a list where it has no columns of its own. */
static hd_node *some_rows(hd_graph *graph, hd_node *x, int64_t rows, int64_t first, int64_t count)
{
    const int64_t width = hd_elements(&x->shape) / rows;
    const int rank = x->dtype == HD_I32 ? 1 : 2;
    hd_shape shape = { rank, { rows, rank > 1 ? width : 0 } };
    const hd_attr attr = { .slice = { 0, first } };
    hd_node *flat = add(graph, x, HD_OP_reshape, &shape, 1, &x, NULL);
    shape.size[0] = count;
    return add(graph, x, HD_OP_slice, &shape, 1, &flat, &attr);
}

static hd_node *twin_of(hd_graph *graph, const hd_head *head, hd_node *n, hd_node *rows, hd_node **twin)
{
    if (twin[n->id]) return twin[n->id];
    if (n->op == HD_OP_reshape) return twin[n->id] = twin_of(graph, head, n->input[0], rows, twin);
    hd_node **input = HD_NEW_ARRAY(hd_node *, n->inputs);
    for (int k = 0; k < n->inputs; k++) {
        hd_node *x = n->input[k];
        input[k] = x;
        if (x == head->rows) input[k] = rows;
        else if (head->inside[x->id]) input[k] = twin_of(graph, head, x, rows, twin);
        else if (x->shape.rank > 2) input[k] = add(graph, x, HD_OP_reshape, &(hd_shape){ 1, { columns(x) } }, 1, &x, NULL);
    }
    return twin[n->id] = add(graph, n, n->op, NULL, n->inputs, input, &n->attr);
}

hd_loss_chunk hd_add_loss_chunk(hd_graph *graph, const hd_head *head, hd_node *targets, int64_t first, int64_t count, bool training)
{
    const int64_t all = rows_of(head->logits);
    const int from = graph->nodes;
    hd_loss_chunk chunk = { .rows = some_rows(graph, head->rows, all, first, count) };
    if (training) chunk.rows = add(graph, chunk.rows, HD_OP_detach, NULL, 1, &chunk.rows, NULL);
    hd_node **twin = HD_NEW_ARRAY(hd_node *, head->logits->id + 1);
    hd_node *logits = twin_of(graph, head, head->logits, chunk.rows, twin);
    chunk.nll = add(graph, head->logits, HD_OP_cross_entropy, NULL, 2, (hd_node *[]){ logits, some_rows(graph, targets, all, first, count) }, NULL);
    /* never merged with the chunks of another entry, which lie elsewhere in the order of nodes */
    for (int i = from; training && i < graph->nodes; i++) graph->node[i]->clone = true;
    return chunk;
}

int64_t hd_chunk_rows(const hd_head *head, int chunks) { return (rows_of(head->logits) + chunks - 1) / chunks; }

hd_node *hd_join_chunks(hd_graph *graph, const hd_node *like, int chunks, hd_node *const *part, const hd_shape *shape)
{
    const hd_attr attr = { .concat = { 0 } };
    hd_node *joined = add(graph, like, HD_OP_concat, NULL, chunks, part, &attr);
    return add(graph, like, HD_OP_reshape, shape, 1, &joined, NULL);
}

hd_node *hd_chunked_nll(hd_graph *graph, const hd_head *head, hd_node *targets, int chunks)
{
    const int64_t all = rows_of(head->logits), most = hd_chunk_rows(head, chunks);
    hd_node **nll = HD_NEW_ARRAY(hd_node *, chunks);
    int made = 0;
    for (int64_t first = 0; first < all; first += most)
        nll[made++] = hd_add_loss_chunk(graph, head, targets, first, first + most < all ? most : all - first, false).nll;
    return hd_join_chunks(graph, head->logits, made, nll, &targets->shape);
}
