/* The training step as an entry of the graph: forward, backward, clipping and AdamW, through the same passes as all else.
 *
 * Every weight the loss depends on gets a gradient and two moments, parameters of their own that only training programs
 * hold. A gradient is stored as soon as it is complete, so that nothing keeps it alive until the end. A loss in chunks
 * (chunk_loss.c) adds to the gradients of the head's weights chunk by chunk, and then to those of what lies below. */
#include "chunk_loss.h"
#include "internal.h"

#include <string.h>

typedef struct step {
    hd_graph *graph;
    hd_node *flag;                          /* hyper[HD_HYPER_ACCUMULATE] */
    int weights;
    hd_node **weight, **value, **gradient;  /* value: the computed gradient; gradient: the param it is stored in */
    hd_node **stored;                       /* what stored into the gradient last; NULL: nothing yet */
    hd_entry *entry;
    int effect_capacity;
} step;

static hd_node *beside(hd_graph *graph, hd_node *weight, hd_role role, const char *suffix)
{
    hd_attr attr = { .param = { .role = role, .weight = weight } };
    hd_node *node = hd_graph_add(graph, HD_OP_param, weight->where, HD_F32, &weight->shape, 0, NULL, &attr);
    node->name = hd_format("%s.%s", weight->name, suffix);
    return node;
}

static void add_to_gradient(step *s, int index, hd_node *value)
{
    hd_node *input[] = { s->stored[index] ? s->stored[index] : s->gradient[index], value, s->flag };
    hd_node *node = hd_graph_add(s->graph, HD_OP_accumulate, s->weight[index]->where, HD_F32, NULL, 3, input, NULL);
    node->name = s->gradient[index]->name;
    s->stored[index] = node;
    HD_PUSH(s->entry->effect, s->entry->effects, s->effect_capacity, node);
}

/* A sum is added term by term, each where it is made, and so is never stored outside the gradient: a tied table's is a product of the
 * table's size, to which rows of single ids add little (kept for the end). Measured on GPT-2 of 50,257 tokens, 256 of them in a
 * step: the sum cost 1.6 % of the step and as much memory as the table. */
static void add_terms(step *s, int index, hd_node *value, bool rows)
{
    if (value->op == HD_OP_add && hd_same_shape(&value->input[0]->shape, &value->input[1]->shape)) {
        add_terms(s, index, value->input[0], rows);
        add_terms(s, index, value->input[1], rows);
    } else if (rows == (value->op == HD_OP_embedding_dw)) {
        add_to_gradient(s, index, value);
    }
}

static void store_gradient(void *argument, int index)
{
    step *s = argument;
    add_terms(s, index, s->value[index], false);
    add_terms(s, index, s->value[index], true);
}

/* The nodes that a value is made of. */
static bool *ancestors(const hd_graph *graph, const hd_node *of)
{
    bool *needed = HD_NEW_ARRAY(bool, graph->nodes);
    needed[of->id] = true;
    for (int i = of->id; i >= 0; i--)
        for (int j = 0; needed[i] && j < graph->node[i]->inputs; j++) needed[graph->node[i]->input[j]->id] = true;
    return needed;
}

static const hd_node *loss_of(const hd_entry *entry)
{
    for (int i = 0; i < entry->outputs; i++)
        if (!strcmp(entry->output[i].name, "loss")) return entry->output[i].node;
    return entry->output[0].node;
}

/* The weights of the head, and the rows it reads, in one chunk after another: hd_gradient_sweep's view of a step. */
typedef struct head_sweep { step *s; int tensors; hd_node **tensor, **gradient; int *weight; } head_sweep;

static void store_head_gradient(void *argument, int index)
{
    head_sweep *h = argument;
    if (!index) return;                     /* the rows */
    h->s->value[h->weight[index]] = h->gradient[index];
    store_gradient(h->s, h->weight[index]);
}

/* Loss and gradients chunk by chunk: d(loss)/d(rows of the chunk) are joined, and the sweep goes on from there. Returns the loss. */
static hd_node *chunked_gradients(step *s, const hd_head *head, hd_node *targets, int chunks)
{
    hd_graph *graph = s->graph;
    const hd_node *logits = head->logits;
    const int64_t all = hd_elements(&targets->shape), most = hd_chunk_rows(head, chunks);
    const hd_attr share = { .constant = { 1 / (double)all } }, over_rows = { .reduce = { 1 } };
    head_sweep h = { s, 1, HD_NEW_ARRAY(hd_node *, s->weights + 1), HD_NEW_ARRAY(hd_node *, s->weights + 1), HD_NEW_ARRAY(int, s->weights + 1) };
    for (int w = 0; w < s->weights; w++)
        if (s->weight[w]->id <= logits->id && head->weight[s->weight[w]->id]) h.weight[h.tensors] = w, h.tensor[h.tensors++] = s->weight[w];
    hd_node **nll = HD_NEW_ARRAY(hd_node *, chunks), **dx = HD_NEW_ARRAY(hd_node *, chunks), *mean = NULL;
    int made = 0;
    for (int64_t first = 0; first < all; first += most, made++) {
        const hd_loss_chunk chunk = hd_add_loss_chunk(graph, head, targets, first, first + most < all ? most : all - first, true);
        hd_node *sum = hd_graph_add(graph, HD_OP_sum, logits->where, HD_F32, NULL, 1, &chunk.nll, &over_rows);
        hd_node *number = hd_graph_add(graph, HD_OP_constant, logits->where, HD_F32, &(hd_shape){ .rank = 0 }, 0, NULL, &share);
        mean = hd_graph_add(graph, HD_OP_mul, logits->where, HD_F32, NULL, 2, (hd_node *[]){ sum, number }, NULL);
        h.tensor[0] = chunk.rows;
        hd_gradient_sweep(graph, mean, NULL, h.tensors, h.tensor, h.gradient, store_head_gradient, &h);
        nll[made] = chunk.nll, dx[made] = h.gradient[0];
    }
    hd_node *seed = hd_join_chunks(graph, logits, made, dx, &head->rows->shape);
    hd_gradient_sweep(graph, head->rows, seed, s->weights, s->weight, s->value, store_gradient, s);
    for (int w = 0; w < s->weights; w++)
        if (!s->value[w] && s->stored[w]) s->value[w] = s->stored[w];      /* of the head alone */

    hd_node *every = hd_join_chunks(graph, logits, made, nll, &(hd_shape){ 1, { all } });
    hd_node *sum = hd_graph_add(graph, HD_OP_sum, logits->where, HD_F32, NULL, 1, &every, &over_rows);
    return hd_graph_add(graph, HD_OP_mul, logits->where, HD_F32, NULL, 2, (hd_node *[]){ sum, mean->input[1] }, NULL);
}

/* head: NULL where the loss is not in chunks. */
static void add_train_step(hd_graph *graph, const hd_entry *loss_entry, const hd_head *head, hd_node *targets, int chunks)
{
    hd_node *loss = (hd_node *)loss_of(loss_entry), *random = NULL;
    const char *scope = graph->scope;
    bool *needed = ancestors(graph, loss);
    step s = { .graph = graph, .weight = HD_NEW_ARRAY(hd_node *, graph->nodes) };
    for (int i = 0; i < graph->nodes; i++) {
        hd_node *node = graph->node[i];
        if (needed[i] && node->op == HD_OP_param && node->attr.param.role == HD_WEIGHT) s.weight[s.weights++] = node;
        if (needed[i] && node->op == HD_OP_dropout) random = node->input[1];
    }
    if (!s.weights) hd_node_fail(loss, "the loss depends on no parameter; there is nothing to train");
    s.value = HD_NEW_ARRAY(hd_node *, s.weights);
    s.gradient = HD_NEW_ARRAY(hd_node *, s.weights);
    s.stored = HD_NEW_ARRAY(hd_node *, s.weights);
    graph->scope = NULL;
    for (int w = 0; w < s.weights; w++) s.gradient[w] = beside(graph, s.weight[w], HD_GRADIENT, "gradient");

    hd_shape shape = { .rank = 1, .size = { HD_HYPER_COUNT } }, single = { .rank = 1, .size = { 1 } };
    hd_attr flag = { .slice = { 0, HD_HYPER_ACCUMULATE } };
    hd_node *hyper = hd_graph_add(graph, HD_OP_input, loss->where, HD_F32, &shape, 0, NULL, NULL);
    hyper->name = "hyper";
    s.flag = hd_graph_add(graph, HD_OP_slice, loss->where, HD_F32, &single, 1, &hyper, &flag);
    s.entry = hd_graph_entry(graph, "train_step");

    if (head) loss = chunked_gradients(&s, head, targets, chunks);
    else hd_gradient_sweep(graph, loss, NULL, s.weights, s.weight, s.value, store_gradient, &s);

    /* norm and update take the weights whose gradient was stored; one behind a detach has none */
    hd_node **input = HD_NEW_ARRAY(hd_node *, 2 + 4 * s.weights);
    int count = 0;
    input[count++] = hyper;
    for (int w = 0; w < s.weights; w++)
        if (s.value[w]) input[count++] = s.gradient[w];
    if (count == 1) hd_node_fail(loss, "no gradient reaches any parameter; there is nothing to train");
    hd_node *norm = hd_graph_add(graph, HD_OP_gradient_norm, loss->where, HD_F32, NULL, count, input, NULL);
    norm->name = "gradient_norm";
    count = 1;
    input[count++] = norm;
    for (int w = 0; w < s.weights; w++) {
        if (!s.value[w]) continue;
        input[count++] = s.weight[w];
        input[count++] = s.gradient[w];
        input[count++] = beside(graph, s.weight[w], HD_MOMENT_1, "m");
        input[count++] = beside(graph, s.weight[w], HD_MOMENT_2, "v");
    }
    hd_node *update = hd_graph_add(graph, HD_OP_adamw, loss->where, HD_F32, NULL, count, input, NULL);
    update->name = "adamw";
    HD_PUSH(s.entry->effect, s.entry->effects, s.effect_capacity, update);
    graph->scope = scope;

    hd_entry *entry = s.entry;
    entry->input = HD_NEW_ARRAY(hd_node *, loss_entry->inputs + 2);
    for (int i = 0; i < loss_entry->inputs; i++) {
        const hd_node *node = loss_entry->input[i];
        if (node == random) continue;       /* it comes last */
        if (node->name && (!strcmp(node->name, "hyper") || !strcmp(node->name, "random")))
            hd_fail(node->where, "input \"%s\": the training step needs this name for itself; choose another", node->name);
        entry->input[entry->inputs++] = loss_entry->input[i];
    }
    entry->input[entry->inputs++] = hyper;
    if (random) entry->input[entry->inputs++] = random;
    entry->output = HD_NEW_ARRAY(hd_named, 2);
    entry->outputs = 2;
    entry->output[0] = (hd_named){ "loss", loss };
    entry->output[1] = (hd_named){ "gradient_norm", norm };
}

void hd_add_train_step(hd_graph *graph, const hd_entry *loss_entry) { add_train_step(graph, loss_entry, NULL, NULL, 1); }

void hd_add_chunked_train_step(hd_graph *graph, const hd_entry *loss_entry, const hd_head *head, hd_node *targets, int chunks)
{
    add_train_step(graph, loss_entry, head, targets, chunks);
}
