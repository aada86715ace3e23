/* Published facts about sparse patterns (tests/golden/facts.lua holds them), what files of edges and masks may hold, and kernels
 * for patterns whose rows are listed. */
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../compiler/pattern/pattern.h"

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

static int setup(void **state)
{
    (void)state;
    return make_folder(HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_facts_about_patterns_hold),
        cmocka_unit_test(columns_are_visited_in_the_order_of_the_published_transposition),
        cmocka_unit_test(patterns_by_rows_compute_what_the_interpreter_does),
        cmocka_unit_test(a_key_that_is_not_listed_never_matters),
        cmocka_unit_test(files_of_edges_and_masks_are_read_or_refused_with_their_line),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests(tests, setup, NULL);
}
