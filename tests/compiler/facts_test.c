/* Published facts about sparse patterns (tests/golden/facts.lua holds them), what files of edges and masks may hold, and kernels
 * for patterns whose rows are listed. */
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../compiler/pattern/pattern.h"
#include "../../compiler/spec/spec.h"

#define HERE FOLDER_OF("facts")

static void published_facts_about_patterns_hold(void **state)
{
    (void)state;
    must("%s info tests/golden/facts.lua", heddle());
}

/* openai/sparse_attention transposes a strided problem, n = 16, l = 4, so that residue classes lie together: the order in which
 * the groups of our family of columns visit the queries. */
static void columns_are_visited_in_the_order_of_the_published_transposition(void **state)
{
    (void)state;
    static const int order[] = { 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15 };
    const hd_pattern causal = { .kind = HD_PATTERN_CAUSAL }, stride = { .kind = HD_PATTERN_STRIDE, .stride = 4 };
    const hd_pattern columns = { .kind = HD_PATTERN_AND, .a = &causal, .b = &stride };
    const hd_cover *cover = hd_cover_make(&columns, 16, 16);
    int at = 0;
    assert_int_equal(cover->families, 1);
    for (int64_t g = 0; g < cover->family->groups; g++) {
        hd_group group = hd_family_group(cover, cover->family, g);
        for (int64_t t = 0; t < group.q_count; t++) assert_int_equal(group.q_start + group.q_step * t, order[at++]);
    }
    assert_int_equal(at, 16);
}

static const double *evaluated(hd_graph *graph, hd_node *node, hd_eval *eval)
{
    hd_entry *entry = hd_graph_entry(graph, "asked");
    entry->outputs = 1;
    entry->output = HD_NEW(hd_named);
    entry->output[0] = (hd_named){ "y", node };
    hd_eval_entry(eval, entry);
    return eval->value[node->id];
}

static void gelu_has_its_published_values(void **state)
{
    (void)state;
    static const struct { hd_op op; double x, y; } values[] = {
        { HD_OP_gelu_quick, 1, 0.8457957659 }, { HD_OP_gelu_quick, -1, -0.1542042341 }, { HD_OP_gelu_quick_prime, 1, 1.0677796066 }, { HD_OP_gelu, 1, 0.8413447461 } };
    for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
        hd_graph *graph = hd_graph_new("facts");
        const hd_shape one = { 1, { 1 } };
        hd_node *x = hd_graph_add(graph, HD_OP_input, (hd_where){ "facts", 1 }, HD_F32, &one, 0, NULL, NULL);
        hd_node *y = hd_graph_add(graph, values[k].op, x->where, HD_F32, NULL, 1, &x, NULL);
        hd_eval *eval = hd_eval_new(graph);
        hd_eval_set(eval, x, &values[k].x);
        const double got = evaluated(graph, y, eval)[0];
        if (!(fabs(got - values[k].y) <= 1e-10)) fail_msg("%s(%g) is %.10f, not %.10f", hd_ops[values[k].op].name, values[k].x, got, values[k].y);
        hd_eval_free(eval);
    }
}

/* gpt-oss: two logits of 0 and a sink of 0 leave each key a third. */
static void a_sink_takes_its_share(void **state)
{
    (void)state;
    hd_graph *graph = hd_graph_new("facts");
    const hd_shape q = { 2, { 1, 1 } }, k = { 2, { 2, 1 } }, one = { 1, { 1 } };
    const hd_where where = { "facts", 1 };
    hd_node *input[] = { hd_graph_add(graph, HD_OP_input, where, HD_F32, &q, 0, NULL, NULL), hd_graph_add(graph, HD_OP_input, where, HD_F32, &k, 0, NULL, NULL),
                         hd_graph_add(graph, HD_OP_input, where, HD_F32, &k, 0, NULL, NULL), hd_graph_add(graph, HD_OP_input, where, HD_F32, &one, 0, NULL, NULL) };
    const hd_pattern full = { .kind = HD_PATTERN_FULL }, *pattern[] = { &full };
    const hd_attr attr = { .attention = { .heads = 1, .patterns = 1, .pattern = pattern, .with = HD_WITH_SINKS } };
    hd_node *out = hd_graph_add(graph, HD_OP_attention, where, HD_F32, NULL, 4, input, &attr);
    static const double values[][2] = { { 1, 0 }, { 0, 1 }, { 1, 1 } }, weights[] = { 1 / 3.0, 1 / 3.0, 2 / 3.0 };
    for (int v = 0; v < 3; v++) {
        hd_eval *eval = hd_eval_new(graph);
        for (int i = 0; i < 4; i++) hd_eval_set(eval, input[i], i == 2 ? values[v] : (double[]){ 0, 0 });
        assert_true(fabs(evaluated(graph, out, eval)[0] - weights[v]) < 1e-15);
        hd_eval_free(eval);
    }
}

/* What the models of the paper learn a table for: row and column of text, row, column and channel of an image's byte. */
static void positions_have_the_coordinates_of_the_paper(void **state)
{
    (void)state;
    static const struct { const char *model; int64_t position, coordinate[3]; } cases[] = {
        { "models/enwik8.lua", 300, { 2, 44, 0 } }, { "models/cifar10.lua", 1000, { 10, 13, 1 } }, { "models/imagenet64.lua", 5000, { 26, 2, 2 } } };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        hd_graph *graph = hd_spec_load(cases[k].model, 3, (const char *[]){ "layers=1", "width=64", "qk_width=64" }, "compiler/lua");
        hd_eval *eval = hd_eval_new(graph);
        hd_node *sum = NULL;
        int64_t width = 0;
        for (int i = 0, axis = 0; i < graph->nodes; i++) {
            hd_node *n = graph->node[i];
            if (n->op == HD_OP_slice && !sum) sum = n;       /* the tables' sum, cut off at the length */
            if (n->op != HD_OP_param || !n->name || strncmp(n->name, "pos_emb_", 8) || n->attr.param.role != HD_WEIGHT) continue;
            width = n->shape.size[1];
            double *row = HD_NEW_ARRAY(double, n->shape.size[0] * width);       /* each table counts in a column of its own */
            for (int64_t r = 0; r < n->shape.size[0]; r++) row[r * width + axis] = (double)r;
            hd_eval_set(eval, n, row);
            axis++;
        }
        assert_non_null(sum);
        const double *at = evaluated(graph, sum, eval) + cases[k].position * width;
        for (int c = 0; c < 3; c++)
            if (at[c] != (double)cases[k].coordinate[c]) fail_msg("%s: coordinate %d of position %lld is %g, not %lld", cases[k].model, c, (long long)cases[k].position, at[c], (long long)cases[k].coordinate[c]);
        hd_eval_free(eval);
    }
}

/* Sums that end residual branches begin narrower by 1 / sqrt(2 layers). */
static void weights_of_the_paper_s_models_begin_as_published(void **state)
{
    (void)state;
    static const struct { const char *model; double factor; } cases[] = { { "models/cifar10.lua", 0.0625 }, { "models/imagenet64.lua", 0.1020620726 }, { "models/enwik8.lua", 0.1290994449 } };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        hd_graph *graph = hd_spec_load(cases[k].model, 0, NULL, "compiler/lua");
        int found = 0;
        for (int i = 0; i < graph->nodes; i++) {
            const hd_node *n = graph->node[i];
            if (n->op != HD_OP_param || !n->name || n->attr.param.role != HD_WEIGHT || !strstr(n->name, "post_proj.weight")) continue;
            assert_int_equal(n->attr.param.init.kind, HD_INIT_NORMAL);
            assert_true(fabs(n->attr.param.init.scale / sqrt(0.125 / (double)n->shape.size[1]) - cases[k].factor) < 1e-10);
            found++;
        }
        assert_true(found >= 30);
    }
}

static void files_of_edges_and_masks_are_read_or_refused_with_their_line(void **state)
{
    (void)state;
    static const struct { const char *pattern, *data, *expected; } cases[] = {
        { "edges { nodes = 4, file = 'data', symmetric = true }", "# a comment\n0 1\n\n3\t1\r\n2,0", "1 2 0 3 0 1" },
        { "edges { nodes = 4, file = 'data' }", "0 1\n1 2\n2 4\n",       "data:3: node 4 does not exist; there are 4 nodes, 0 to 3" },
        { "edges { nodes = 4, file = 'data' }", "0 1\nx 2\n",            "data:2: expected two node numbers, source and destination, such as \"12 7\"" },
        { "edges { nodes = 4, file = 'data' }", "0 1\n1\n",              "data:2: expected two node numbers" },
        { "edges { nodes = 4, file = 'data' }", "0 1 0.5\n",             "data:1: more than two node numbers in a line" },
        { "edges { nodes = 4, file = 'data' }", "0 -1\n",                "data:1: expected two node numbers" },
        { "edges { nodes = 4, file = 'data' }", "99999999999999999999 1\n", "data:1: node " },
        { "mask { file = 'data', queries = 2, keys = 3 }", "010\n111\n", "1 0 1 2" },
        { "mask { file = 'data', queries = 2, keys = 3 }", "0 1 0 1 1 1", "1 0 1 2" },
        { "mask { file = 'data', queries = 2, keys = 3 }", "010\n11\n",  "data: the mask has 5 pairs, 2 queries and 3 keys are 6" },
        { "mask { file = 'data', queries = 2, keys = 3 }", "010\n112\n", "data: byte 0 is 48; a mask holds the characters 0 and 1" },
        { "mask { file = '/etc/passwd', queries = 2 }",    "",           "P.mask: /etc/passwd does not lie in the spec's own folder" },
        { "mask { file = 'link', queries = 2 }",           "",           "P.mask: link does not lie in the spec's own folder" },
        { "mask { file = 'a\"b', queries = 2 }",           "",           "P.mask: a file's name cannot hold quotes, backslashes or control characters" },
    };
    must("ln -sf /etc/passwd " HERE "/link");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const char *spec = hd_format(
            "local hd = require 'heddle'\n"
            "local p = hd.pattern.%s\n"
            "local all = {}\n"
            "for i = 0, %d do for _, j in ipairs(p:row(i, 4)) do all[#all + 1] = j end end\n"
            "error('keys: ' .. table.concat(all, ' ') .. '.')\n", cases[k].pattern, cases[k].pattern[0] == 'e' ? 3 : 1);
        hd_write_file(HERE "/spec.lua", spec, strlen(spec));
        hd_write_file(HERE "/data", cases[k].data, strlen(cases[k].data));
        const bool read = cases[k].expected[0] >= '0' && cases[k].expected[0] <= '9';
        refused(read ? hd_format("keys: %s.", cases[k].expected) : cases[k].expected, "%s info " HERE "/spec.lua", heddle());
    }
}

/* Every attribute and extra input, compiled, on one family of tiles, several, listed rows and diagonals; odd sizes; few heads, which
 * are cut into parts, and many. The gradients of the inputs are outputs too. */
static void attributes_compute_what_the_interpreter_does(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "pattern=causal -D length=65 -D heads=1 -D softcap=2.5 -D sinks=true",
        "pattern=strided -D length=131 -D stride=16 -D heads=4 -D kv_heads=2 -D alibi=true -D sinks=true -D key_bias=true",
        "pattern=strided -D length=131 -D stride=16 -D heads=1 -D t5=12 -D lengths=true -D softcap=1.5",
        "pattern=full -D length=33 -D keys=70 -D heads=3 -D max_distance=7 -D offset=37 -D multiplicity=5",
        "pattern=full -D length=50 -D heads=8 -D t5=32 -D packed=true -D sinks=true",
        "pattern=window -D window=9 -D length=77 -D heads=12 -D alibi=true -D packed=true -D head_dim=20",
        "pattern=natten -D length=128 -D chunk=16 -D kernel=3 -D heads=2 -D alibi=true -D key_bias=true -D max_distance=3 -D sinks=true",
        "pattern=squares -D length=70 -D heads=4 -D kv_heads=1 -D softcap=3.0 -D t5=8 -D lengths=true",
        "pattern=previous_chunk -D length=90 -D chunk=20 -D heads=2 -D sinks=true -D packed=true",
        "pattern=strided -D length=99 -D stride=9 -D heads=6 -D kv_heads=2 -D edge_bias=true -D softcap=4.0 -D lengths=true",
        "pattern=squares -D length=60 -D heads=1 -D edge_bias=true -D alibi=true -D sinks=true -D key_bias=true",
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) must("%s check%s models/attention.lua -D head_dim=16 -D %s", heddle(), sanitize(), cases[k]);
}

/* Attributes whose tensors are weights: a small model is trained with them, recomputed layer by layer. */
static void attributes_are_learnt(void **state)
{
    (void)state;
    static const char spec[] =
        "local hd = require 'heddle'\n"
        "local P, s, tokens = hd.pattern, hd.scope(''), hd.input('tokens', { 2, 40 }, 'i32')\n"
        "local x = s:embedding('wte', tokens, 17, 24)\n"
        "for layer = 1, 2 do\n"
        "  x = hd.recompute(function(y)\n"
        "    local h = hd.scope('h.' .. layer)\n"
        "    local q, k, v = hd.split(h:linear('qkv', h:layer_norm('ln', y), 72), 3)\n"
        "    local o = { heads = 3, pattern = P.causal() & (P.window { keys = 8 } | P.stride(8)), softcap = 20, sinks = h:param('sinks', { 3 }) }\n"
        "    if layer == 1 then o.bias, o.t5 = h:param('bias', { 3, 16 }), { buckets = 16, max_distance = 30, bidirectional = false } end\n"
        "    if layer == 2 then o.alibi, o.documents, o.key_bias = true, tokens, h:param('key_bias', { 40 }) end\n"
        "    return y + h:linear('proj', h:attention('attn', q, k, v, o), 24)\n"
        "  end, x)\n"
        "end\n"
        "return hd.language_model { name = 'small', logits = s:linear('head', x, 17), training = hd.training {} }\n";
    hd_write_file(HERE "/learnt.lua", spec, strlen(spec));
    must("%s check%s " HERE "/learnt.lua", heddle(), sanitize());
}

static void patterns_by_rows_compute_what_the_interpreter_does(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "pattern=squares -D length=1 -D heads=8",
        "pattern=squares -D length=2 -D heads=2",
        "pattern=squares -D length=3 -D heads=1",
        "pattern=squares -D length=70 -D keys=131 -D heads=3",
        "pattern=squares -D length=131 -D keys=33 -D heads=8",
        "pattern=natten -D length=203 -D chunk=14 -D heads=8 -D kv_heads=2 -D head_dim=20",
        "pattern=natten -D length=196 -D chunk=14 -D heads=2 -D kernel=5 -D dilation=2 -D causal=true",
        "pattern=swin -D length=196 -D chunk=14 -D heads=2",
        "pattern=bigbird -D length=203 -D block=16 -D heads=8 -D causal=true",
        "pattern=bigbird -D length=203 -D block=16 -D heads=2 -D kv_heads=1 -D head_dim=33",
        "pattern=documents -D length=203 -D heads=2 -D count=7",
        "pattern=previous_chunk -D length=203 -D heads=2 -D chunk=24",
        "pattern=phi3 -D length=203 -D heads=8 -D block=8 -D local_blocks=3 -D every=4",
        "pattern=dilated -D length=203 -D heads=4 -D chunk=24 -D dilation=3",
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) must("%s check%s models/attention.lua -D head_dim=16 -D %s", heddle(), sanitize(), cases[k]);
}

/* Numbers like those of the checks; a row of NaN where asked. */
static hd_tensor_data random_tensor(const char *name, int heads, int n, int dim, uint64_t seed, int nan_row)
{
    float *x = HD_NEW_ARRAY(float, heads * n * dim);
    for (int i = 0; i < heads * n * dim; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = i / dim % n == nan_row ? NAN : (float)(int32_t)(seed >> 32) * 0x1p-31f;
    }
    return (hd_tensor_data){ name, HD_F32, { 3, { heads, n, dim } }, x };
}

/* Keys whose distance is a square; key 20 is NaN: queries that do not keep it get the same bits as without. */
static void a_key_that_is_not_listed_never_matters(void **state)
{
    (void)state;
    enum { N = 65, DIM = 16, KEY = 20 };
    for (int heads = 1; heads <= 8; heads += 7) {
        must("%s build%s models/attention.lua -o " HERE "/squares -D pattern=squares -D length=%d -D head_dim=%d -D heads=%d", heddle(), sanitize(), N, DIM, heads);
        for (int bad = 0; bad < 2; bad++) {
            const hd_tensor_data in[] = { random_tensor("q", heads, N, DIM, 1, -1), random_tensor("k", heads, N, DIM, 2, bad ? KEY : -1), random_tensor("v", heads, N, DIM, 3, bad ? KEY : -1) };
            hd_tensor_file_write(hd_format(HERE "/in%d", bad), 3, in);
            must(HERE "/squares run forward --in " HERE "/in%d --out " HERE "/out%d", bad, bad);
            const hd_tensor_data out = hd_tensor_file_read(hd_format(HERE "/out%d", bad), "o"), lse = hd_tensor_file_read(hd_format(HERE "/out%d", bad), "lse");
            const hd_tensor_data all[] = { in[0], in[1], in[2], { "o", HD_F32, out.shape, out.data }, { "lse", HD_F32, lse.shape, lse.data }, random_tensor("do", heads, N, DIM, 4, -1) };
            hd_tensor_file_write(hd_format(HERE "/in%d", bad), 6, all);
            must(HERE "/squares run backward --in " HERE "/in%d --out " HERE "/back%d", bad, bad);
        }
        static const char *const tensors[] = { "o", "dq" };
        for (int t = 0; t < 2; t++) {
            char name[2][64];
            for (int bad = 0; bad < 2; bad++) snprintf(name[bad], sizeof name[bad], t ? HERE "/back%d" : HERE "/out%d", bad);
            const float *good = hd_tensor_file_read(name[0], tensors[t]).data, *bad = hd_tensor_file_read(name[1], tensors[t]).data;
            for (int row = 0; row < heads * N; row++) {
                const int distance = abs(row % N - KEY), root = (int)(sqrt(distance) + 0.5);
                if (root * root == distance) assert_true(isnan(bad[row * DIM]));
                else assert_memory_equal(&good[row * DIM], &bad[row * DIM], DIM * sizeof *good);
            }
        }
    }
}

/* Queries 0 .. 64; keys from 40 on are beyond the length, and NaN: the same bits as with numbers there. */
static void keys_beyond_the_length_never_matter(void **state)
{
    (void)state;
    enum { N = 65, DIM = 16, LENGTH = 40, HEADS = 2 };
    static const char *const patterns[] = { "full", "strided -D stride=8", "squares" };
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        must("%s build%s models/attention.lua -o " HERE "/bounded -D pattern=%s -D length=%d -D head_dim=%d -D heads=%d -D lengths=true", heddle(), sanitize(), patterns[p], N, DIM, HEADS);
        static const int32_t length = LENGTH;
        const hd_tensor_data lengths = { "lengths", HD_I32, { 1, { 1 } }, &length };
        for (int bad = 0; bad < 2; bad++) {
            hd_tensor_data in[] = { random_tensor("q", HEADS, N, DIM, 1, -1), random_tensor("k", HEADS, N, DIM, 2, -1), random_tensor("v", HEADS, N, DIM, 3, -1), lengths };
            for (int i = 1; bad && i < 3; i++)
                for (int row = 0; row < HEADS * N; row++)
                    for (int e = 0; row % N >= LENGTH && e < DIM; e++) ((float *)in[i].data)[row * DIM + e] = NAN;
            hd_tensor_file_write(HERE "/in", 4, in);
            must(HERE "/bounded run forward --in " HERE "/in --out " HERE "/bounded_out%d", bad);
            const hd_tensor_data out = hd_tensor_file_read(hd_format(HERE "/bounded_out%d", bad), "o"), lse = hd_tensor_file_read(hd_format(HERE "/bounded_out%d", bad), "lse");
            const hd_tensor_data all[] = { in[0], in[1], in[2], lengths, { "o", HD_F32, out.shape, out.data }, { "lse", HD_F32, lse.shape, lse.data }, random_tensor("do", HEADS, N, DIM, 4, -1) };
            hd_tensor_file_write(HERE "/in", 7, all);
            must(HERE "/bounded run backward --in " HERE "/in --out " HERE "/bounded_back%d", bad);
        }
        assert_same_bytes(HERE "/bounded_out0", HERE "/bounded_out1");
        assert_same_bytes(HERE "/bounded_back0", HERE "/bounded_back1");
        const float *dk = hd_tensor_file_read(HERE "/bounded_back1", "dk").data;
        for (int row = 0; row < HEADS * N; row++)
            for (int e = 0; row % N >= LENGTH && e < DIM; e++) assert_true(dk[row * DIM + e] == 0);
    }
}

static int setup(void **state)
{
    (void)state;
    return make_folder(HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_facts_about_patterns_hold),
        cmocka_unit_test(gelu_has_its_published_values),
        cmocka_unit_test(a_sink_takes_its_share),
        cmocka_unit_test(positions_have_the_coordinates_of_the_paper),
        cmocka_unit_test(weights_of_the_paper_s_models_begin_as_published),
        cmocka_unit_test(attributes_compute_what_the_interpreter_does),
        cmocka_unit_test(attributes_are_learnt),
        cmocka_unit_test(columns_are_visited_in_the_order_of_the_published_transposition),
        cmocka_unit_test(patterns_by_rows_compute_what_the_interpreter_does),
        cmocka_unit_test(a_key_that_is_not_listed_never_matters),
        cmocka_unit_test(keys_beyond_the_length_never_matter),
        cmocka_unit_test(files_of_edges_and_masks_are_read_or_refused_with_their_line),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests(tests, setup, NULL);
}
