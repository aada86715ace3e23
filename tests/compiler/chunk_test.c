/* The loss of a language model in chunks of rows against the whole one: losses, gradients, what is cut and what is not, and
 * that the logits of one chunk exist at a time. Run from the repository's root. */
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../compiler/graph/chunk_loss.h"

#define HERE FOLDER_OF("chunk")

enum { BATCH = 2, LENGTH = 5, WIDTH = 4, VOCAB = 7, ROWS = BATCH * LENGTH };

/* tied: logits by the table that embeds; else by a matrix of its own, with a bias [1, 1, vocab] and a soft cap. */
typedef struct net { hd_graph *graph; hd_node *tokens, *targets, *table, *logits; hd_entry *loss; } net;

static const hd_where here = { "chunk_test", 1 };

static hd_node *add(hd_graph *g, hd_op op, const hd_shape *shape, int inputs, hd_node *const *input, const hd_attr *attr)
{
    return hd_graph_add(g, op, here, HD_F32, shape, inputs, input, attr);
}
static hd_node *param(hd_graph *g, const char *name, hd_shape shape)
{
    hd_node *n = add(g, HD_OP_param, &shape, 0, NULL, &(hd_attr){ .param = { .init = { HD_INIT_NORMAL, 0.7 }, .decay = true } });
    n->name = name;
    return n;
}
static hd_node *two(hd_graph *g, hd_op op, hd_node *a, hd_node *b, const hd_attr *attr) { return add(g, op, NULL, 2, (hd_node *[]){ a, b }, attr); }
static hd_node *number(hd_graph *g, double value) { return add(g, HD_OP_constant, &(hd_shape){ .rank = 0 }, 0, NULL, &(hd_attr){ .constant = { value } }); }
static hd_node *ids(hd_graph *g, const char *name)
{
    hd_node *n = hd_graph_add(g, HD_OP_input, here, HD_I32, &(hd_shape){ 2, { BATCH, LENGTH } }, 0, NULL, NULL);
    n->name = name;
    return n;
}

static net make_net(bool tied)
{
    net n = { .graph = hd_graph_new("chunk_test") };
    hd_graph *g = n.graph;
    n.tokens = ids(g, "tokens"), n.targets = ids(g, "targets");
    n.table = param(g, "table", (hd_shape){ 2, { VOCAB, WIDTH } });
    hd_node *w = param(g, "w", (hd_shape){ 2, { WIDTH, WIDTH } }), *x = two(g, HD_OP_embedding, n.table, n.tokens, NULL);
    x = two(g, HD_OP_matmul, x, w, NULL);
    x = add(g, HD_OP_tanh, NULL, 1, &x, NULL);
    const hd_attr transposed = { .matmul = { false, true } };
    if (tied) {
        n.logits = two(g, HD_OP_matmul, x, n.table, &transposed);
    } else {
        hd_node *head = param(g, "head", (hd_shape){ 2, { WIDTH, VOCAB } });
        n.logits = two(g, HD_OP_add, two(g, HD_OP_matmul, x, head, NULL), param(g, "bias", (hd_shape){ 3, { 1, 1, VOCAB } }), NULL);
        n.logits = two(g, HD_OP_div, n.logits, number(g, 3), NULL);
        n.logits = add(g, HD_OP_tanh, NULL, 1, &n.logits, NULL);
        n.logits = two(g, HD_OP_mul, n.logits, number(g, 3), NULL);
    }
    hd_node *nll = two(g, HD_OP_cross_entropy, n.logits, n.targets, NULL);
    hd_node *sum = add(g, HD_OP_sum, NULL, 1, &nll, &(hd_attr){ .reduce = { 3 } });
    n.loss = hd_graph_entry(g, "loss");
    n.loss->inputs = 2, n.loss->input = HD_NEW_ARRAY(hd_node *, 2), n.loss->input[0] = n.tokens, n.loss->input[1] = n.targets;
    n.loss->outputs = 2, n.loss->output = HD_NEW_ARRAY(hd_named, 2);
    n.loss->output[0] = (hd_named){ "loss", add(g, HD_OP_reshape, &(hd_shape){ 1, { 1 } }, 1, (hd_node *[]){ two(g, HD_OP_mul, sum, number(g, 1.0 / ROWS), NULL) }, NULL) };
    n.loss->output[1] = (hd_named){ "nll", nll };
    return n;
}

static hd_eval *stepped(const net *n, const hd_entry *train)
{
    hd_eval *eval = hd_eval_new(n->graph);
    double token[ROWS], target[ROWS], hyper[HD_HYPER_COUNT] = { [HD_HYPER_LR] = 0.01, [HD_HYPER_BETA1] = 0.9, [HD_HYPER_BETA2] = 0.99,
        [HD_HYPER_EPSILON] = 1e-8, [HD_HYPER_CORRECTION1] = 0.1, [HD_HYPER_CORRECTION2] = 0.01, [HD_HYPER_SCALE] = 1 };
    for (int i = 0; i < ROWS; i++) token[i] = i * i % VOCAB, target[i] = i == 3 ? -1 : 3 * i % VOCAB;
    hd_eval_set(eval, n->tokens, token);
    hd_eval_set(eval, n->targets, target);
    for (int call = 0; call < 2; call++) {          /* the second adds to the gradients of the first */
        hyper[HD_HYPER_ACCUMULATE] = call;
        hd_eval_set(eval, train->input[2], hyper);
        hd_eval_entry(eval, train);
    }
    return eval;
}

static const hd_node *named(const hd_graph *g, const char *name)
{
    for (int i = 0; i < g->nodes; i++)
        if (g->node[i]->op == HD_OP_param && !strcmp(g->node[i]->name, name)) return g->node[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

static void equal(const hd_eval *a, const hd_node *x, const hd_eval *b, const hd_node *y)
{
    for (int64_t i = 0; i < hd_elements(&x->shape); i++) assert_true(fabs(a->value[x->id][i] - b->value[y->id][i]) < 1e-13);
}

/* Chunks that divide the rows, that do not, and one for each row. */
static void gradients_are_those_of_the_whole(void **state)
{
    (void)state;
    static const int counts[] = { 2, 3, 4, 10 };
    static const char *const weights[] = { "table", "w", "head", "bias" };
    for (int tied = 0; tied < 2; tied++)
        for (int c = 0; c < 4; c++) {
            net whole = make_net(tied), cut = make_net(tied);
            hd_add_train_step(whole.graph, whole.loss);
            hd_head head;
            assert_true(hd_find_head(cut.graph, cut.logits, &head));
            hd_node *nll = hd_chunked_nll(cut.graph, &head, cut.targets, counts[c]);
            hd_add_chunked_train_step(cut.graph, cut.loss, &head, cut.targets, counts[c]);
            cut.loss->output[1].node = nll;
            hd_entry *a = whole.graph->entry[1], *b = cut.graph->entry[1];
            hd_eval *x = stepped(&whole, a), *y = stepped(&cut, b);
            for (int w = 0; w < (tied ? 2 : 4); w++) {
                const char *name = hd_format("%s.gradient", weights[w]);
                equal(x, named(whole.graph, name), y, named(cut.graph, name));
            }
            for (int o = 0; o < 2; o++) equal(x, a->output[o].node, y, b->output[o].node);
            hd_eval_entry(x, whole.loss);
            hd_eval_entry(y, cut.loss);
            equal(x, whole.loss->output[1].node, y, nll);
            hd_eval_free(x);
            hd_eval_free(y);
        }
}

/* Backward nodes of a chunk come before the next chunk's logits. */
static void a_chunk_is_done_before_the_next(void **state)
{
    (void)state;
    net n = make_net(false);
    hd_head head;
    assert_true(hd_find_head(n.graph, n.logits, &head));
    const int from = n.graph->nodes;
    hd_add_chunked_train_step(n.graph, n.loss, &head, n.targets, 5);
    int alive = 0, seen = 0;
    for (int i = from; i < n.graph->nodes; i++) {
        const hd_node *node = n.graph->node[i];
        if (node->op == HD_OP_cross_entropy) assert_int_equal(alive++, 0), seen++;
        if (node->op == HD_OP_cross_entropy_dx) assert_int_equal(alive--, 1);
        if (node->op == HD_OP_cross_entropy) assert_int_equal(node->shape.size[0], 2);
    }
    assert_int_equal(seen, 5);
}

static void heads_that_mix_rows_stay_whole(void **state)
{
    (void)state;
    hd_head head;
    net n = make_net(true);
    hd_node *softmax = add(n.graph, HD_OP_softmax, NULL, 1, &n.logits, NULL);
    assert_false(hd_find_head(n.graph, softmax, &head));
    hd_node *per_row = add(n.graph, HD_OP_reduce_max, NULL, 1, &n.logits, &(hd_attr){ .reduce = { 4 } });
    assert_false(hd_find_head(n.graph, two(n.graph, HD_OP_sub, n.logits, per_row, NULL), &head));
    assert_false(hd_find_head(n.graph, n.table, &head));
}

/* GPT-2's is cut, that of bytes is not. */
static void large_vocabularies_are_cut(void **state)
{
    (void)state;
    hd_graph *g = hd_graph_new("chunk_test");
    const hd_node *bytes = add(g, HD_OP_constant, &(hd_shape){ 3, { 4, 1024, 256 } }, 0, NULL, &(hd_attr){ 0 });
    const hd_node *words = add(g, HD_OP_constant, &(hd_shape){ 3, { 4, 1024, 50257 } }, 0, NULL, &(hd_attr){ 0 });
    assert_int_equal(hd_loss_chunks(bytes), 1);
    assert_true(hd_loss_chunks(words) > 1 && hd_loss_chunks(words) <= 32);
}

static const char spec[] =
    "local hd = require 'heddle'\n"
    "local c = hd.config { chunks = 3, tied = false, dropout = 0.0 }\n"
    "local tokens, s = hd.input('tokens', { 2, 19 }, 'i32'), hd.scope('net')\n"
    "local table = s:param('table', { 83, 24 }, hd.normal(0.3))\n"
    "local x = hd.dropout(s:mlp('mlp', s:layer_norm('norm', hd.embedding(table, tokens)), 40), c.dropout)\n"
    "local logits = c.tied and hd.matmul(x, table, { trans_b = true }) or 5 * hd.tanh(s:linear('head', x, 83) / 5)\n"
    "return hd.language_model { name = 'm', config = c, tokens = tokens, logits = logits, loss_chunks = c.chunks, training = hd.training { batch = 2 } }\n";

static void compiled_chunks_agree_with_the_interpreter(void **state)
{
    (void)state;
    hd_write_file(HERE "/m.lua", spec, sizeof spec - 1);
    static const char *const flags[] = { "-D chunks=3", "-D chunks=2 -D tied=true", "-D chunks=19 -D tied=true -D dropout=0.2" };
    for (int i = 0; i < 3; i++) must("%s check " HERE "/m.lua %s", heddle(), flags[i]);
}

static int setup(void **state)
{
    (void)state;
    return make_folder(HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_the_whole),
        cmocka_unit_test(a_chunk_is_done_before_the_next),
        cmocka_unit_test(heads_that_mix_rows_stay_whole),
        cmocka_unit_test(large_vocabularies_are_cut),
        cmocka_unit_test(compiled_chunks_agree_with_the_interpreter),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests(tests, setup, NULL);
}
