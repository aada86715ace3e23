/* The training step as an entry of the graph: forward, backward, clipping and AdamW, through the same passes as all else.
 *
 * Every weight the loss depends on gets a gradient and two moments, parameters of their own that only training programs
 * hold. A gradient is stored as soon as it is complete, so that nothing keeps it alive until the end. */
#include "internal.h"

#include <string.h>

typedef struct step {
    hd_graph *graph;
    hd_node *flag;                          /* hyper[HD_HYPER_ACCUMULATE] */
    int weights;
    hd_node **weight, **value, **gradient;  /* value: the computed gradient; gradient: the param it is stored in */
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

static void store_gradient(void *argument, int index)
{
    step *s = argument;
    hd_node *input[] = { s->gradient[index], s->value[index], s->flag };
    hd_node *node = hd_graph_add(s->graph, HD_OP_accumulate, s->weight[index]->where, HD_F32, NULL, 3, input, NULL);
    node->name = s->gradient[index]->name;
    HD_PUSH(s->entry->effect, s->entry->effects, s->effect_capacity, node);
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

void hd_add_train_step(hd_graph *graph, const hd_entry *loss_entry)
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
    graph->scope = NULL;
    for (int w = 0; w < s.weights; w++) s.gradient[w] = beside(graph, s.weight[w], HD_GRADIENT, "gradient");

    hd_shape shape = { .rank = 1, .size = { HD_HYPER_COUNT } }, single = { .rank = 1, .size = { 1 } };
    hd_attr flag = { .slice = { 0, HD_HYPER_ACCUMULATE } };
    hd_node *hyper = hd_graph_add(graph, HD_OP_input, loss->where, HD_F32, &shape, 0, NULL, NULL);
    hyper->name = "hyper";
    s.flag = hd_graph_add(graph, HD_OP_slice, loss->where, HD_F32, &single, 1, &hyper, &flag);
    s.entry = hd_graph_entry(graph, "train_step");

    hd_gradient_sweep(graph, loss, s.weights, s.weight, s.value, store_gradient, &s);

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
