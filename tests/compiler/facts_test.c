/* Published facts about sparse patterns (tests/golden/facts.lua holds them), and what files of edges and masks may hold. */
#include "tool.h"

#include <stdio.h>
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
        cmocka_unit_test(files_of_edges_and_masks_are_read_or_refused_with_their_line),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests(tests, setup, NULL);
}
