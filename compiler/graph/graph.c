/* Building the graph: nodes in creation order, entries, shape helpers. */
#include "internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

hd_graph *hd_graph_new(const char *spec)
{
    hd_graph *graph = HD_NEW(hd_graph);
    graph->spec = hd_strdup(spec);
    graph->bos = -1;
    return graph;
}

/* Every operand's type is known from the op: ids are i32, all else is f32. */
static void check_types(const hd_node *node)
{
    for (int i = 0; i < node->inputs; i++) {
        const hd_node *input = node->input[i];
        bool i32 = hd_operand_is_i32(node, i);
        if (i32 == (input->dtype == HD_I32)) continue;
        const char *name = hd_operand_name(node, i);
        if (!name) name = hd_format("input %d", i + 1);
        if (i32) hd_node_fail(node, "%s %s must be i32%s, not f32", name, hd_shape_text(&input->shape), node->op == HD_OP_embedding || node->op == HD_OP_cross_entropy || node->op == HD_OP_expert_matmul ? " (ids)" : "");
        hd_node_fail(node, "%s %s is i32; it must be f32: only embedding, cross_entropy, dropout and attention's lengths and documents are i32", name, hd_shape_text(&input->shape));
    }
}

static void check_shape(const hd_node *node)
{
    const int64_t most = (int64_t)1 << 40;
    const hd_shape *shape = &node->shape;
    if (shape->rank < 0 || shape->rank > HD_MAX_RANK)
        hd_node_fail(node, "a tensor of %d axes; there may be 0 to %d", shape->rank, HD_MAX_RANK);
    int64_t elements = 1;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->size[i] < 1) hd_node_fail(node, "%s: axis %d has size %lld; sizes must be 1 or more", hd_shape_text(shape), i, (long long)shape->size[i]);
        if (shape->size[i] > most / elements) hd_node_fail(node, "%s is too large: a tensor may have at most 2^40 elements", hd_shape_text(shape));
        elements *= shape->size[i];
    }
}

hd_node *hd_graph_add(hd_graph *graph, hd_op op, hd_where where, hd_dtype dtype, const hd_shape *shape, int inputs,
                      hd_node *const *input, const hd_attr *attr)
{
    const hd_op_info *info = &hd_ops[op];
    hd_node *node = HD_NEW(hd_node);
    node->op = op;
    node->dtype = dtype;
    node->where = where;
    node->name = graph->scope;
    node->block = graph->block;
    node->differentiates = graph->differentiates;
    node->inputs = inputs;
    if (attr) node->attr = *attr;
    if (inputs > 0) {
        node->input = HD_NEW_ARRAY(hd_node *, inputs);
        memcpy(node->input, input, (size_t)inputs * sizeof *input);
    }
    if (info->inputs >= 0 ? inputs != info->inputs : inputs < 1)
        hd_node_fail(node, info->inputs >= 0 ? "%d inputs given; it takes %d" : "%d inputs given; it takes at least 1", inputs, info->inputs);
    if (shape) {
        node->shape = *shape;
        check_shape(node);
    }
    check_types(node);
    info->shape(node);
    check_shape(node);
    for (int i = node->shape.rank; i < HD_MAX_RANK; i++) node->shape.size[i] = 0;      /* so that equal nodes have equal bytes */
    node->id = graph->nodes;
    HD_PUSH(graph->node, graph->nodes, graph->node_capacity, node);
    return node;
}

hd_node *hd_graph_result(hd_graph *graph, hd_node *producer, int index)
{
    if (index == 0) return producer;
    assert(index < hd_ops[producer->op].results);
    for (int i = producer->id + 1; i < graph->nodes; i++) {
        hd_node *node = graph->node[i];
        if (node->op == HD_OP_result && node->input[0] == producer && node->attr.result.index == index) return node;
    }
    hd_attr attr = { .result = { index } };
    hd_node *node = hd_graph_add(graph, HD_OP_result, producer->where, HD_F32, NULL, 1, &producer, &attr);
    node->name = producer->name;
    node->block = producer->block;
    node->clone = producer->clone;
    node->differentiates = producer->differentiates;      /* mean of a forward norm is a forward value, whoever asks for it first */
    node->again = producer->again;
    return node;
}

hd_entry *hd_graph_entry(hd_graph *graph, const char *name)
{
    hd_entry *entry = HD_NEW(hd_entry);
    entry->name = hd_strdup(name);
    HD_PUSH(graph->entry, graph->entries, graph->entry_capacity, entry);
    return entry;
}

int64_t hd_elements(const hd_shape *shape)
{
    int64_t elements = 1;
    for (int i = 0; i < shape->rank; i++) elements *= shape->size[i];
    return elements;
}

int64_t hd_node_bytes(const hd_node *node) { return 4 * hd_elements(&node->shape); }

hd_node *hd_state_of(const hd_node *node)
{
    hd_node *state = node->input[0];
    while (state->op == HD_OP_accumulate) state = state->input[0];
    return state;
}

bool hd_same_shape(const hd_shape *a, const hd_shape *b)
{
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->size[i] != b->size[i]) return false;
    return true;
}

const char *hd_shape_text(const hd_shape *shape)
{
    hd_text text = { 0 };
    hd_text_add(&text, "[");
    for (int i = 0; i < shape->rank && i < HD_MAX_RANK; i++) hd_text_add(&text, i ? ", %lld" : "%lld", (long long)shape->size[i]);
    hd_text_add(&text, "]");
    return text.data;
}

bool hd_broadcast(const hd_shape *a, const hd_shape *b, hd_shape *out)
{
    out->rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 1; i <= out->rank; i++) {     /* from the last axis */
        int64_t x = i <= a->rank ? a->size[a->rank - i] : 1, y = i <= b->rank ? b->size[b->rank - i] : 1;
        if (x != y && x != 1 && y != 1) return false;
        out->size[out->rank - i] = x > y ? x : y;
    }
    return true;
}

void hd_node_fail(const hd_node *node, const char *format, ...)
{
    char message[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (node->name) hd_fail(node->where, "%s \"%s\": %s", hd_ops[node->op].name, node->name, message);
    hd_fail(node->where, "%s: %s", hd_ops[node->op].name, message);
}
