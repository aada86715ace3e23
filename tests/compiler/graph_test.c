/* The graph core: the arena and files of base.c, shapes and their errors, the interpreter's attention against a dense
 * masked loop, broadcasting, random bits, the printed form. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../compiler/graph/graph.h"
#include "../../compiler/pattern/pattern.h"
#include "../../runtime/core/hd_random.h"

#define SHAPE(...) { (int)(sizeof (int64_t[]){ __VA_ARGS__ } / sizeof(int64_t)), { __VA_ARGS__ } }
#define SCALAR { 0, { 0 } }

static const hd_pattern causal = { .kind = HD_PATTERN_CAUSAL }, window = { .kind = HD_PATTERN_WINDOW, .left = 2, .right = 1 },
                        stride = { .kind = HD_PATTERN_STRIDE, .stride = 3 }, either = { .kind = HD_PATTERN_OR, .a = &window, .b = &stride },
                        strided = { .kind = HD_PATTERN_AND, .a = &causal, .b = &either }, own = { .kind = HD_PATTERN_WINDOW },
                        past = { .kind = HD_PATTERN_MINUS, .a = &causal, .b = &own };
static const hd_pattern *const one_pattern[] = { &strided }, *const two_patterns[] = { &strided, &past };

static const hd_buckets two_buckets = { .first = -1, .count = 4, .buckets = 2, .bucket = (const int32_t[]){ 1, 0, 1, 0 } };

static hd_node *tensor(hd_graph *graph, const char *name, hd_dtype dtype, hd_shape shape)
{
    hd_node *node = hd_graph_add(graph, HD_OP_input, (hd_where){ "m.lua", 1 }, dtype, &shape, 0, NULL, NULL);
    node->name = name;
    return node;
}

/* Runs `body` in a child as a spec is run; returns its exit status and what it wrote to stderr. */
static int in_child(void (*body)(const void *), const void *argument, char *message, size_t room)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        hd_set_child();
        body(argument);
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t n; (n = read(ends[0], message + length, room - 1 - length)) > 0;) length += (size_t)n;
    message[length] = 0;
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- base ---- */

static void allocate_in_child(const void *cell) { **(char ***)(uintptr_t)cell = hd_format("from the child %d", 42); }

static void the_parent_sees_what_a_child_allocates(void **state)
{
    (void)state;
    char message[100], **cell = HD_NEW(char *);
    size_t before = hd_arena_used();
    assert_int_equal(in_child(allocate_in_child, &cell, message, sizeof message), 0);
    assert_string_equal(*cell, "from the child 42");
    assert_true(hd_arena_used() > before);
    char *after = hd_alloc(16);
    assert_true(after > *cell);            /* and does not give the same memory out again */
    assert_int_equal((uintptr_t)after % 16, 0);
    for (int i = 0; i < 16; i++) assert_int_equal(after[i], 0);
}

static void fail_with_file(const void *where) { hd_fail(*(const hd_where *)where, "no %s; valid: a, b", "c"); }
static void run_undo(void *path) { unlink(path); }
static void fail_in_parent(const void *path)
{
    hd_on_failure(run_undo, (void *)(uintptr_t)path);
    hd_fail((hd_where){ "x", 0 }, "undone");
}
static void fail_huge(const void *unused) { (void)unused; hd_alloc((size_t)1 << 60); }

static void failures_name_the_file_and_the_line(void **state)
{
    (void)state;
    static const struct { hd_where where; const char *message; } rows[] = {
        { { "models/x.lua", 31 }, "models/x.lua:31: no c; valid: a, b\n" },
        { { "-D batch", 0 }, "-D batch: no c; valid: a, b\n" },
        { { NULL, 0 }, "heddle: no c; valid: a, b\n" },
    };
    char message[1000];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(in_child(fail_with_file, &rows[i].where, message, sizeof message), 1);
        assert_string_equal(message, rows[i].message);
    }
    assert_int_equal(in_child(fail_huge, NULL, message, sizeof message), 1);
    assert_non_null(strstr(message, "out of memory"));
    char path[] = "/tmp/graph_test_XXXXXX";
    close(mkstemp(path));
    assert_int_equal(in_child(fail_in_parent, path, message, sizeof message), 1);
    assert_int_not_equal(access(path, F_OK), 0);       /* registered after hd_set_child: its own clean-up */
    unlink(path);
}

static void write_nowhere(const void *unused) { (void)unused; hd_write_file("/tmp/no/such/folder/file", "x", 1); }

static void files_are_written_whole_and_only_when_they_differ(void **state)
{
    (void)state;
    char folder[] = "/tmp/graph_test_XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = hd_format("%s/out.c", folder);
    hd_write_file(path, "one\0two", 7);
    size_t bytes = 0;
    assert_memory_equal(hd_read_file(path, &bytes), "one\0two", 8);
    assert_int_equal(bytes, 7);
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    hd_write_file(path, "one\0two", 7);
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino == after.st_ino);        /* untouched: a rename would have brought another file */
    hd_write_file(path, "one\0twx", 7);
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino != after.st_ino);
    assert_null(hd_read_file(folder, NULL));
    assert_null(hd_read_file("/tmp/no/such/file", NULL));
    char message[300];
    assert_int_equal(in_child(write_nowhere, NULL, message, sizeof message), 1);
    assert_non_null(strstr(message, "/tmp/no/such/folder/file: cannot write: No such file"));
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);           /* what is no ordinary file stays what it is */
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    hd_write_file(path, "pipe", 4);
    char said[8] = { 0 };
    assert_int_equal(read(reader, said, 7), 4);
    assert_string_equal(said, "pipe");
    close(reader);
    unlink(path);
    assert_int_equal(rmdir(folder), 0);                /* no temporary file was left */
}

static void text_and_lists_grow(void **state)
{
    (void)state;
    hd_text text = { 0 };
    for (int i = 0; i < 1000; i++) hd_text_add(&text, "%d,", i % 10);
    hd_text_addn(&text, "end", 3);
    assert_int_equal(text.length, 2003);
    assert_string_equal(text.data + 1998, "9,end");
    char many[5001] = { 0 };
    memset(many, 'x', 5000);
    hd_text_add(&text, "%s", many);
    assert_int_equal(strlen(text.data), 7003);
    int *items = NULL, count = 0, capacity = 0;
    for (int i = 0; i < 1000; i++) {
        HD_PUSH(items, count, capacity, i);
        if (i % 100 == 0) hd_alloc(1);                 /* so that growing must sometimes move */
    }
    for (int i = 0; i < 1000; i++) assert_int_equal(items[i], i);
    assert_true(hd_hash("abc", 3, 0) == 0xe71fa2190541574bu && hd_hash("abc", 3, 1) != hd_hash("abc", 3, 0));
    assert_true(hd_random_name("abc") == hd_hash("abc", 3, 0));
}

/* ---- shapes ---- */

static const struct bad {
    const char *message;
    hd_op op;
    int inputs;
    hd_shape input[6];
    hd_attr attr;
    const char *name;
    hd_shape shape;
    bool shaped;
    unsigned i32;              /* bit i: input i is i32 */
} bad[] = {
    { "matmul: a [4, 256] and b [128, 64] do not match: a has 256 columns, b has 128 rows", HD_OP_matmul, 2, { SHAPE(4, 256), SHAPE(128, 64) }, { { 0 } }, NULL, SCALAR, false, 0 },
    { "matmul \"h.0.qkv\": a [2, 4, 8] and b [6, 9] (transposed) do not match: a has 8 columns, b has 9 columns", HD_OP_matmul, 2, { SHAPE(2, 4, 8), SHAPE(6, 9) }, { .matmul = { false, true } }, "h.0.qkv", SCALAR, false, 0 },
    { "matmul: a [2, 4, 8] and b [3, 8, 5] do not match: the axes before the last two must be equal, or b must have only two", HD_OP_matmul, 2, { SHAPE(2, 4, 8), SHAPE(3, 8, 5) }, { { 0 } }, NULL, SCALAR, false, 0 },
    { "matmul: a [4] and b [4, 2] need at least 2 axes each", HD_OP_matmul, 2, { SHAPE(4), SHAPE(4, 2) }, { { 0 } }, NULL, SCALAR, false, 0 },
    { "attention \"h.3\": width 250 does not divide into 4 heads; nearest widths: 248, 252", HD_OP_attention, 3, { SHAPE(2, 16, 250), SHAPE(2, 16, 250), SHAPE(2, 16, 250) }, { .attention = { .heads = 4, .patterns = 1 } }, "h.3", SCALAR, false, 0 },
    { "attention: kv_heads 4 does not divide heads 6; valid: 1, 2, 3, 6", HD_OP_attention, 3, { SHAPE(16, 12), SHAPE(16, 12), SHAPE(16, 12) }, { .attention = { .heads = 6, .kv_heads = 4, .patterns = 1 } }, NULL, SCALAR, false, 0 },
    { "attention: 3 patterns for 4 heads; give one, or one for each head", HD_OP_attention, 3, { SHAPE(16, 12), SHAPE(16, 12), SHAPE(16, 12) }, { .attention = { .heads = 4, .patterns = 3 } }, NULL, SCALAR, false, 0 },
    { "attention: q [2, 16, 12] and k [3, 16, 12] do not match: the axes before the last 2 must be equal", HD_OP_attention, 3, { SHAPE(2, 16, 12), SHAPE(3, 16, 12), SHAPE(3, 16, 12) }, { .attention = { .heads = 4, .patterns = 1 } }, NULL, SCALAR, false, 0 },
    { "attention: 3 inputs given; it takes 4", HD_OP_attention, 3, { SHAPE(16, 12), SHAPE(16, 12), SHAPE(16, 12) }, { .attention = { .heads = 4, .patterns = 1, .with = HD_WITH_SINKS } }, NULL, SCALAR, false, 0 },
    { "attention: sinks is [3]; it must be [4], one logit for each head", HD_OP_attention, 4, { SHAPE(16, 12), SHAPE(16, 12), SHAPE(16, 12), SHAPE(3) }, { .attention = { .heads = 4, .patterns = 1, .with = HD_WITH_SINKS } }, NULL, SCALAR, false, 0 },
    { "attention: bias is [4, 3]; it must be [4, 2] (heads, buckets of distances)", HD_OP_attention, 4, { SHAPE(16, 12), SHAPE(16, 12), SHAPE(16, 12), SHAPE(4, 3) },
      { .attention = { .heads = 4, .patterns = 1, .with = HD_WITH_BIAS, .buckets = &two_buckets } }, NULL, SCALAR, false, 0 },
    { "attention: key_bias is [12]; it must be [16] (keys), or [2, 16] (sequences, keys)", HD_OP_attention, 4, { SHAPE(2, 16, 12), SHAPE(2, 16, 12), SHAPE(2, 16, 12), SHAPE(12) },
      { .attention = { .heads = 4, .patterns = 1, .with = HD_WITH_KEY_BIAS } }, NULL, SCALAR, false, 0 },
    { "attention: edge_bias is [5]; it must be [10] (pairs that the pattern keeps), or [2, 10] (heads, pairs that the pattern keeps)", HD_OP_attention, 4, { SHAPE(4, 2), SHAPE(4, 2), SHAPE(4, 2), SHAPE(5) },
      { .attention = { .heads = 2, .patterns = 1, .pattern = (const hd_pattern *[]){ &causal }, .with = HD_WITH_EDGE_BIAS } }, NULL, SCALAR, false, 0 },
    { "attention: edge_bias counts the pairs of one pattern; the heads have 2", HD_OP_attention, 4, { SHAPE(4, 2), SHAPE(4, 2), SHAPE(4, 2), SHAPE(5) },
      { .attention = { .heads = 2, .patterns = 2, .pattern = (const hd_pattern **)two_patterns, .with = HD_WITH_EDGE_BIAS } }, NULL, SCALAR, false, 0 },
    { "attention: bounds is [16, 2]; it must be [2, 16, 2] (sequences, queries, first and end)", HD_OP_attention, 4, { SHAPE(2, 16, 12), SHAPE(2, 16, 12), SHAPE(2, 16, 12), SHAPE(16, 2) },
      { .attention = { .heads = 4, .patterns = 1, .with = HD_WITH_BOUNDS } }, NULL, SCALAR, false, 8 },
    { "attention: softcap is -1; it must be above 0 and finite", HD_OP_attention, 3, { SHAPE(16, 12), SHAPE(16, 12), SHAPE(16, 12) }, { .attention = { .heads = 4, .patterns = 1, .softcap = -1 } }, NULL, SCALAR, false, 0 },
    { "attention: the ALiBi slope of head 1 is inf; slopes must be finite", HD_OP_attention, 3, { SHAPE(16, 4), SHAPE(16, 4), SHAPE(16, 4) }, { .attention = { .heads = 2, .patterns = 1, .alibi = (const double[]){ 1, INFINITY } } }, NULL, SCALAR, false, 0 },
    { "key_bounds: documents is [2, 5]; it must be [sequences, 6], the id of every position", HD_OP_key_bounds, 1, { SHAPE(2, 5) }, { .bounds = { true, 6, 6 } }, NULL, SCALAR, false, 1 },
    { "key_bounds: documents need as many keys as queries, not 7 and 6", HD_OP_key_bounds, 1, { SHAPE(2, 6) }, { .bounds = { true, 6, 7 } }, NULL, SCALAR, false, 1 },
    { "key_bounds: lengths is [2, 1]; it must be [sequences], how many keys each has", HD_OP_key_bounds, 1, { SHAPE(2, 1) }, { .bounds = { false, 6, 6 } }, NULL, SCALAR, false, 1 },
    { "key_bounds: lengths [2] must be i32, not f32", HD_OP_key_bounds, 1, { SHAPE(2) }, { .bounds = { false, 6, 6 } }, NULL, SCALAR, false, 0 },
    { "table: 65537 numbers; a list becomes part of the program and may have 65536", HD_OP_table, 0, { SCALAR }, { { 0 } }, NULL, SHAPE(65537), true, 0 },
    { "attention: heads is 0; it must be 1 to 65536", HD_OP_attention, 3, { SHAPE(16, 12), SHAPE(16, 12), SHAPE(16, 12) }, { .attention = { .patterns = 1 } }, NULL, SCALAR, false, 0 },
    { "add: a [4, 256] and b [128, 64] do not match: counted from the last axis, axis 1 has sizes 256 and 64; they must be equal, or one of them 1", HD_OP_add, 2, { SHAPE(4, 256), SHAPE(128, 64) }, { { 0 } }, NULL, SCALAR, false, 0 },
    { "add: b [4] is i32; it must be f32", HD_OP_add, 2, { SHAPE(4), SHAPE(4) }, { { 0 } }, NULL, SCALAR, false, 2 },
    { "embedding: ids [4] must be i32 (ids), not f32", HD_OP_embedding, 2, { SHAPE(9, 4), SHAPE(4) }, { { 0 } }, NULL, SCALAR, false, 0 },
    { "embedding: table is [9]; it must be [vocab, width]", HD_OP_embedding, 2, { SHAPE(9), SHAPE(4) }, { { 0 } }, NULL, SCALAR, false, 2 },
    { "layer_norm: x is [2, 8] and bias is [7]; it must be [8], the last axis of x", HD_OP_layer_norm, 3, { SHAPE(2, 8), SHAPE(8), SHAPE(7) }, { { 0 } }, NULL, SCALAR, false, 0 },
    { "layer_norm: 2 inputs given; it takes 3", HD_OP_layer_norm, 2, { SHAPE(2, 8), SHAPE(8) }, { { 0 } }, NULL, SCALAR, false, 0 },
    { "cross_entropy: logits is [2, 3, 8] and targets is [2, 4]; it must be [2, 3], the axes of logits but the last", HD_OP_cross_entropy, 2, { SHAPE(2, 3, 8), SHAPE(2, 4) }, { { 0 } }, NULL, SCALAR, false, 2 },
    { "reshape: x [2, 6] has 12 elements, the new shape [5, 2] has 10", HD_OP_reshape, 1, { SHAPE(2, 6) }, { { 0 } }, NULL, SHAPE(5, 2), true, 0 },
    { "slice: 3 elements from 4 on axis 1 of x [2, 6]; that axis has elements 0 to 5", HD_OP_slice, 1, { SHAPE(2, 6) }, { .slice = { 1, 4 } }, NULL, SHAPE(2, 3), true, 0 },
    { "slice: x [2, 6] has no axis 2; it has axes 0 to 1", HD_OP_slice, 1, { SHAPE(2, 6) }, { .slice = { 2, 4 } }, NULL, SHAPE(2, 3), true, 0 },
    { "slice: 3 elements from 9223372036854775807 on axis 0", HD_OP_slice, 1, { SHAPE(6) }, { .slice = { 0, INT64_MAX } }, NULL, SHAPE(3), true, 0 },
    { "transpose: the order of axes must name each axis of x [2, 6] once: 0 to 1", HD_OP_transpose, 1, { SHAPE(2, 6) }, { .transpose = { { 1, 1 } } }, NULL, SCALAR, false, 0 },
    { "expand: x [2, 6] does not expand to [4, 6]", HD_OP_expand, 1, { SHAPE(2, 6) }, { { 0 } }, NULL, SHAPE(4, 6), true, 0 },
    { "concat: input 1 [2, 6] and input 2 [3, 6] may differ only on axis 1", HD_OP_concat, 2, { SHAPE(2, 6), SHAPE(3, 6) }, { .concat = { 1 } }, NULL, SCALAR, false, 0 },
    { "sum: x [2, 6] has no axis 3; it has axes 0 to 1", HD_OP_sum, 1, { SHAPE(2, 6) }, { .reduce = { 8 } }, NULL, SCALAR, false, 0 },
    { "shift: x is [2, 5, 6] and start is [5]; it must be [6], the axes after axis 1", HD_OP_shift, 2, { SHAPE(2, 5, 6), SHAPE(5) }, { .shift = { 1 } }, NULL, SCALAR, false, 0 },
    { "rope: dims is 5; it must be even, 2 to head_dim 6", HD_OP_rope, 1, { SHAPE(5, 12) }, { .rope = { .head_dim = 6, .dims = 5, .base = 100 } }, NULL, SCALAR, false, 0 },
    { "top_k: k is 6; of x [5] it can be 1 to 5", HD_OP_top_k, 1, { SHAPE(5) }, { .top_k = { 6 } }, NULL, SCALAR, false, 0 },
    { "expert_matmul: w is [4, 6]; it must be [experts, in, out]", HD_OP_expert_matmul, 3, { SHAPE(5, 1, 4), SHAPE(4, 6), SHAPE(5, 2) }, { { 0 } }, NULL, SCALAR, false, 4 },
    { "expert_matmul: x [5, 3, 4], w [2, 4, 6] and ids [5, 2] do not match; they must be [..., 1 or choices, in], [experts, in, out], [..., choices]", HD_OP_expert_matmul, 3,
      { SHAPE(5, 3, 4), SHAPE(2, 4, 6), SHAPE(5, 2) }, { { 0 } }, NULL, SCALAR, false, 4 },
    { "dropout: p is 1; it must be at least 0 and below 1", HD_OP_dropout, 2, { SHAPE(5), SHAPE(4) }, { .dropout = { 1, 0 } }, NULL, SCALAR, false, 2 },
    { "expand: [1048576, 1048576, 2] is too large: a tensor may have at most 2^40 elements", HD_OP_expand, 1, { SHAPE(2) }, { { 0 } }, NULL, SHAPE(1048576, 1048576, 2), true, 0 },
    { "mul: [1048576, 1048577] is too large", HD_OP_mul, 2, { SHAPE(1048576, 1), SHAPE(1048577) }, { { 0 } }, NULL, SCALAR, false, 0 },
    { "reshape: [3, -1]: axis 1 has size -1; sizes must be 1 or more", HD_OP_reshape, 1, { SHAPE(3) }, { { 0 } }, NULL, SHAPE(3, -1), true, 0 },
    { "reshape: a tensor of 7 axes; there may be 0 to 6", HD_OP_reshape, 1, { SHAPE(3) }, { { 0 } }, NULL, { 7, { 3, 1, 1, 1, 1, 1 } }, true, 0 },
    { "pad: pads axis 0 of x [3] by -1 and 0; both must be 0 to 2^40", HD_OP_pad, 1, { SHAPE(3) }, { .pad = { 0, -1, 0 } }, NULL, SCALAR, false, 0 },
};

static void add_bad(const void *argument)
{
    const struct bad *row = argument;
    hd_graph *graph = hd_graph_new("m.lua");
    hd_node *input[6];
    for (int i = 0; i < row->inputs; i++) input[i] = tensor(graph, "x", row->i32 >> i & 1 ? HD_I32 : HD_F32, row->input[i]);
    graph->scope = row->name;
    hd_graph_add(graph, row->op, (hd_where){ "m.lua", 31 }, HD_F32, row->shaped ? &row->shape : NULL, row->inputs, input, &row->attr);
}

static void wrong_shapes_name_both_operands_and_the_line(void **state)
{
    (void)state;
    bool good = true;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char message[2000], *wanted = hd_format("m.lua:31: %s", bad[i].message);
        int status = in_child(add_bad, &bad[i], message, sizeof message);
        if (status == 1 && !strncmp(message, wanted, strlen(wanted)) && strchr(message, '\n') == message + strlen(message) - 1) continue;
        print_error("wanted  %s\ngot %d  %s\n", wanted, status, message);
        good = false;
    }
    assert_true(good);
}

static void shapes_follow_from_inputs(void **state)
{
    (void)state;
    hd_graph *graph = hd_graph_new("m.lua");
    hd_node *q = tensor(graph, "q", HD_F32, (hd_shape)SHAPE(2, 9, 12)), *k = tensor(graph, "k", HD_F32, (hd_shape)SHAPE(2, 7, 6));
    hd_attr attr = { .attention = { .heads = 4, .kv_heads = 2, .patterns = 1, .pattern = (const hd_pattern **)one_pattern } };
    hd_node *out = hd_graph_add(graph, HD_OP_attention, (hd_where){ "m.lua", 2 }, HD_F32, NULL, 3, (hd_node *[]){ q, k, k }, &attr);
    assert_string_equal(hd_shape_text(&out->shape), "[2, 9, 12]");
    assert_int_equal(out->attr.attention.head_dim, 3);
    assert_true(out->attr.attention.scale == 1 / sqrt(3));
    hd_node *lse = hd_graph_result(graph, out, 1);
    assert_string_equal(hd_shape_text(&lse->shape), "[2, 4, 9]");
    assert_ptr_equal(lse, hd_graph_result(graph, out, 1));
    assert_ptr_equal(out, hd_graph_result(graph, out, 0));
    assert_true(hd_node_flops(out) == 4.0 * 3 * 4 * 2 * (double)hd_pattern_kept_pairs(&strided, 9, 7));
    hd_node *product = hd_graph_add(graph, HD_OP_matmul, q->where, HD_F32, NULL, 2, (hd_node *[]){ q, tensor(graph, "w", HD_F32, (hd_shape)SHAPE(5, 12)) }, &(hd_attr){ .matmul = { false, true } });
    assert_true(hd_node_flops(product) == 2.0 * 2 * 9 * 12 * 5);
    assert_int_equal(hd_node_bytes(product), 4 * 2 * 9 * 5);
    hd_shape none = SCALAR;
    assert_string_equal(hd_shape_text(&none), "[]");
    assert_int_equal(hd_elements(&none), 1);
}

/* ---- the interpreter ---- */

static double value_of(uint64_t name, int64_t element) { return hd_init_value(2, 1.5, 3, name, (uint64_t)element); }

static void attention_equals_a_dense_masked_loop(void **state)
{
    (void)state;
    enum { STACK = 2, HEADS = 4, KV = 2, Q = 9, K = 7, D = 3 };
    for (int variant = 0; variant < 2; variant++) {
        bool first = variant == 1;
        hd_graph *graph = hd_graph_new("m.lua");
        hd_shape qs = SHAPE(STACK, Q, HEADS * D), ks = SHAPE(STACK, K, KV * D), qf = SHAPE(STACK, HEADS, Q, D), kf = SHAPE(STACK, KV, K, D);
        hd_node *input[3];
        for (int i = 0; i < 3; i++) input[i] = tensor(graph, "x", HD_F32, i ? (first ? kf : ks) : (first ? qf : qs));
        const hd_pattern *pattern[HEADS] = { &strided, &past, &causal, &past };
        hd_attr attr = { .attention = { .heads = HEADS, .kv_heads = KV, .scale = 0.7, .heads_first = first, .patterns = HEADS, .pattern = pattern } };
        hd_node *out = hd_graph_add(graph, HD_OP_attention, (hd_where){ "m.lua", 2 }, HD_F32, NULL, 3, input, &attr), *lse = hd_graph_result(graph, out, 1);
        hd_entry *entry = hd_graph_entry(graph, "forward");
        entry->outputs = 2;
        entry->output = (hd_named[]){ { "out", out }, { "lse", lse } };
        hd_eval *eval = hd_eval_new(graph);
        double *x[3];
        for (int i = 0; i < 3; i++) {
            x[i] = HD_NEW_ARRAY(double, hd_elements(&input[i]->shape));
            for (int64_t e = 0; e < hd_elements(&input[i]->shape); e++) x[i][e] = value_of((uint64_t)i + 1, e);
            hd_eval_set(eval, input[i], x[i]);
        }
        hd_eval_entry(eval, entry);
#define ROW(heads, rows, s, h, r) ((first ? ((s) * (heads) + (h)) * (rows) + (r) : ((s) * (rows) + (r)) * (heads) + (h)) * D)
        for (int s = 0; s < STACK; s++)
            for (int h = 0; h < HEADS; h++)
                for (int i = 0; i < Q; i++) {
                    double score[K], sum = 0, want[D] = { 0 };
                    for (int j = 0; j < K; j++) {
                        score[j] = -INFINITY;
                        if (!hd_pattern_keeps(pattern[h], i, j)) continue;
                        score[j] = 0;
                        for (int e = 0; e < D; e++) score[j] += 0.7 * x[0][ROW(HEADS, Q, s, h, i) + e] * x[1][ROW(KV, K, s, h / 2, j) + e];
                        sum += exp(score[j]);
                    }
                    for (int j = 0; j < K && sum > 0; j++)
                        for (int e = 0; e < D; e++) want[e] += exp(score[j]) / sum * x[2][ROW(KV, K, s, h / 2, j) + e];
                    for (int e = 0; e < D; e++) assert_true(fabs(want[e] - eval->value[out->id][ROW(HEADS, Q, s, h, i) + e]) < 1e-12);
                    double got = eval->value[lse->id][(s * HEADS + h) * Q + i];
                    assert_true(sum > 0 ? fabs(got - log(sum)) < 1e-12 : got == -INFINITY);
                }
    }
}

/* Every term of the score, pairs counted by looking at all of them, against the formula written out for [2][4 heads][9][7 keys]. */
static void scores_take_in_what_the_graph_says(void **state)
{
    (void)state;
    enum { STACK = 2, HEADS = 4, Q = 9, K = 7, D = 3, OFFSET = -2, EXTRAS = 5 };
    const int64_t pairs = hd_pattern_kept_pairs(&strided, Q, K);
    for (int variant = 0; variant < 2; variant++) {
        const bool each = variant == 1;        /* a bias for each sequence, for each head */
        hd_graph *graph = hd_graph_new("m.lua");
        hd_shape shape[3 + EXTRAS] = { SHAPE(STACK, HEADS, Q, D), SHAPE(STACK, HEADS, K, D), SHAPE(STACK, HEADS, K, D), SHAPE(HEADS), SHAPE(HEADS, 2), { 1, { K } }, { 1, { pairs } }, SHAPE(STACK, Q, 2) };
        if (each) shape[5] = (hd_shape){ 2, { STACK, K } }, shape[6] = (hd_shape){ 2, { HEADS, pairs } };
        hd_node *input[3 + EXTRAS];
        for (int i = 0; i < 3 + EXTRAS; i++) input[i] = tensor(graph, "x", i == 7 ? HD_I32 : HD_F32, shape[i]);
        const double slope[HEADS] = { 0.5, 0.25, 0, -1 };
        hd_attr attr = { .attention = { .heads = HEADS, .scale = 0.7, .heads_first = true, .patterns = 1, .pattern = (const hd_pattern **)one_pattern, .softcap = 2, .alibi = slope, .offset = OFFSET,
                                        .buckets = &two_buckets, .with = HD_WITH_SINKS | HD_WITH_BIAS | HD_WITH_KEY_BIAS | HD_WITH_EDGE_BIAS | HD_WITH_BOUNDS } };
        hd_node *out = hd_graph_add(graph, HD_OP_attention, (hd_where){ "m.lua", 2 }, HD_F32, NULL, 3 + EXTRAS, input, &attr), *lse = hd_graph_result(graph, out, 1);
        hd_entry *entry = hd_graph_entry(graph, "forward");
        entry->outputs = 2;
        entry->output = (hd_named[]){ { "out", out }, { "lse", lse } };
        hd_eval *eval = hd_eval_new(graph);
        double *x[3 + EXTRAS];
        for (int i = 0; i < 3 + EXTRAS; i++) {
            x[i] = HD_NEW_ARRAY(double, hd_elements(&shape[i]));
            for (int64_t e = 0; e < hd_elements(&shape[i]); e++) x[i][e] = i == 7 ? (double)(e % 2 ? e / 2 % Q - 1 : e / 2 % Q / 2) : value_of((uint64_t)i + 1, e);
            hd_eval_set(eval, input[i], x[i]);
        }
        hd_eval_entry(eval, entry);
        for (int s = 0; s < STACK; s++)
            for (int h = 0; h < HEADS; h++)
                for (int i = 0, pair = 0; i < Q; i++) {
                    const int64_t row = (s * HEADS + h) * Q + i;
                    double sum = exp(x[3][h]), want[D] = { 0 };
                    for (int j = 0; j < K; j++) {
                        if (!hd_pattern_keeps(&strided, i, j)) continue;
                        const int64_t key = (s * HEADS + h) * K + j, e = pair++;
                        const int d = i + OFFSET - j;
                        if (j < i / 2 || j >= i - 1) continue;
                        double score = 0;
                        for (int t = 0; t < D; t++) score += 0.7 * x[0][row * D + t] * x[1][key * D + t];
                        score = 2 * tanh(score / 2) - slope[h] * abs(d);
                        score += x[4][h * 2 + (d <= -1 ? 1 : d == 0 ? 0 : d == 1 ? 1 : 0)];
                        score += x[5][each ? s * K + j : j] + x[6][each ? h * pairs + e : e];
                        for (int t = 0; t < D; t++) want[t] += exp(score) * x[2][key * D + t];
                        sum += exp(score);
                    }
                    for (int t = 0; t < D; t++) assert_true(fabs(want[t] / sum - eval->value[out->id][row * D + t]) < 1e-12);
                    assert_true(fabs(eval->value[lse->id][row] - log(sum)) < 1e-12);      /* rows 0 and 1 have no key: the sink alone */
                }
        hd_eval_free(eval);
    }
}

static void bounds_follow_from_lengths_and_documents(void **state)
{
    (void)state;
    hd_graph *graph = hd_graph_new("m.lua");
    hd_node *lengths = tensor(graph, "l", HD_I32, (hd_shape)SHAPE(4)), *documents = tensor(graph, "d", HD_I32, (hd_shape)SHAPE(1, 6));
    hd_attr by_length = { .bounds = { false, 2, 5 } }, by_document = { .bounds = { true, 6, 6 } };
    hd_node *a = hd_graph_add(graph, HD_OP_key_bounds, lengths->where, HD_F32, NULL, 1, &lengths, &by_length), *b = hd_graph_add(graph, HD_OP_key_bounds, lengths->where, HD_F32, NULL, 1, &documents, &by_document);
    assert_int_equal(a->dtype, HD_I32);
    hd_entry *entry = hd_graph_entry(graph, "f");
    entry->outputs = 2;
    entry->output = (hd_named[]){ { "a", a }, { "b", b } };
    hd_eval *eval = hd_eval_new(graph);
    hd_eval_set(eval, lengths, (double[]){ 3, 0, -7, 2147483647 });      /* run-time data may be anything */
    hd_eval_set(eval, documents, (double[]){ 4, 4, 9, -1, -1, 4 });
    hd_eval_entry(eval, entry);
    assert_memory_equal(eval->value[a->id], ((double[]){ 0, 3, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 5 }), 16 * sizeof(double));
    assert_memory_equal(eval->value[b->id], ((double[]){ 0, 2, 0, 2, 2, 3, 3, 5, 3, 5, 5, 6 }), 12 * sizeof(double));
    hd_eval_free(eval);
}

/* Where every score is -inf, a row is as one without keys: nothing, and not NaN. */
static void a_row_of_infinite_scores_is_empty(void **state)
{
    (void)state;
    hd_graph *graph = hd_graph_new("m.lua");
    hd_node *input[4], *d[4];
    for (int i = 0; i < 4; i++) input[i] = tensor(graph, "x", HD_F32, i < 3 ? (hd_shape)SHAPE(2, 1) : (hd_shape)SHAPE(2));
    const hd_pattern *pattern[] = { &causal };
    hd_attr attr = { .attention = { .heads = 1, .patterns = 1, .pattern = pattern, .with = HD_WITH_KEY_BIAS } };
    hd_node *out = hd_graph_add(graph, HD_OP_attention, (hd_where){ "m.lua", 2 }, HD_F32, NULL, 4, input, &attr), *lse = hd_graph_result(graph, out, 1);
    hd_node *sum = hd_graph_add(graph, HD_OP_sum, out->where, HD_F32, NULL, 1, &out, &(hd_attr){ .reduce = { 3 } });
    hd_gradients(graph, sum, 4, input, d);
    hd_entry *entry = hd_graph_entry(graph, "f");
    entry->outputs = 6;
    entry->output = (hd_named[]){ { "out", out }, { "lse", lse }, { "dq", d[0] }, { "dk", d[1] }, { "dv", d[2] }, { "db", d[3] } };
    hd_eval *eval = hd_eval_new(graph);
    for (int i = 0; i < 4; i++) hd_eval_set(eval, input[i], i < 3 ? (double[]){ 1, 2 } : (double[]){ -INFINITY, 1 });
    hd_eval_entry(eval, entry);
    assert_true(eval->value[lse->id][0] == -INFINITY && eval->value[out->id][0] == 0 && eval->value[out->id][1] == 2);
    for (int i = 2; i < 6; i++) assert_true(eval->value[entry->output[i].node->id][0] == 0);
    assert_true(eval->value[d[2]->id][1] == 1);
    hd_eval_free(eval);
}

static void a_key_outside_the_pattern_never_matters(void **state)
{
    (void)state;
    hd_graph *graph = hd_graph_new("m.lua");
    hd_node *input[3];
    for (int i = 0; i < 3; i++) input[i] = tensor(graph, "x", HD_F32, (hd_shape)SHAPE(4, 2));
    hd_attr attr = { .attention = { .heads = 2, .patterns = 2, .pattern = (const hd_pattern **)two_patterns } };
    hd_node *out = hd_graph_add(graph, HD_OP_attention, (hd_where){ "m.lua", 2 }, HD_F32, NULL, 3, input, &attr);
    hd_entry *entry = hd_graph_entry(graph, "forward");
    entry->outputs = 1;
    entry->output = (hd_named[]){ { "out", out } };
    hd_eval *eval = hd_eval_new(graph);
    for (int i = 0; i < 3; i++) hd_eval_set(eval, input[i], (double[]){ 1, 2, 3, 4, 5, 6, i ? NAN : 1, i ? NAN : 1 });
    hd_eval_entry(eval, entry);
    for (int e = 0; e < 6; e++) assert_false(isnan(eval->value[out->id][e]));      /* the NaN key is the last row's only */
    assert_true(eval->value[out->id][1] == 0);                                     /* head 1, row 0: no keys */
    assert_true(isnan(eval->value[out->id][6]));
}

static void broadcasting_reads_what_numpy_reads(void **state)
{
    (void)state;
    hd_graph *graph = hd_graph_new("m.lua");
    hd_node *a = tensor(graph, "a", HD_F32, (hd_shape)SHAPE(2, 1, 3)), *b = tensor(graph, "b", HD_F32, (hd_shape)SHAPE(2, 1));
    hd_node *sum = hd_graph_add(graph, HD_OP_sub, a->where, HD_F32, NULL, 2, (hd_node *[]){ a, b }, NULL);
    hd_entry *entry = hd_graph_entry(graph, "f");
    entry->outputs = 1;
    entry->output = (hd_named[]){ { "y", sum } };
    hd_eval *eval = hd_eval_new(graph);
    hd_eval_set(eval, a, (double[]){ 1, 2, 3, 4, 5, 6 });
    hd_eval_set(eval, b, (double[]){ 10, 20 });
    hd_eval_entry(eval, entry);
    const double wanted[] = { -9, -8, -7, -19, -18, -17, -6, -5, -4, -16, -15, -14 };
    assert_memory_equal(eval->value[sum->id], wanted, sizeof wanted);
}

static void only_what_an_entry_needs_is_evaluated(void **state)
{
    (void)state;
    hd_graph *graph = hd_graph_new("m.lua");
    hd_node *a = tensor(graph, "a", HD_F32, (hd_shape)SHAPE(2)), *never = tensor(graph, "never", HD_F32, (hd_shape)SHAPE(2));
    hd_node *x = hd_graph_add(graph, HD_OP_neg, a->where, HD_F32, NULL, 1, &a, NULL), *y = hd_graph_add(graph, HD_OP_neg, a->where, HD_F32, NULL, 1, &never, NULL);
    hd_entry *entry = hd_graph_entry(graph, "f");
    entry->outputs = 1;
    entry->output = (hd_named[]){ { "y", x } };
    hd_eval *eval = hd_eval_new(graph);
    hd_eval_set(eval, a, (double[]){ 1, 2 });
    hd_eval_entry(eval, entry);
    assert_true(eval->value[x->id][1] == -2);
    assert_null(eval->value[y->id]);
    assert_null(eval->value[never->id]);
}

static void random_numbers_are_even_and_independent(void **state)
{
    (void)state;
    enum { N = 1 << 18 };
    hd_random_keys one = hd_random_key(1, 2, 3), two = hd_random_key(1, 3, 3), three = hd_random_key(1, 2, 4);
    int kept = 0, both = 0, other = 0, neighbour = 0, before = 0;
    for (uint32_t e = 0; e < N; e++) {
        int a = hd_random_bits(one, e) >> 8 >= hd_dropout_threshold(0.5), b = hd_random_bits(two, e) >> 8 >= hd_dropout_threshold(0.5);
        kept += a;
        both += a && b;
        other += a && hd_random_bits(three, e) >> 8 >= hd_dropout_threshold(0.5);
        neighbour += a && before;
        before = a;
    }
    assert_true(abs(kept - N / 2) < 1300);             /* five standard deviations */
    assert_true(abs(both - N / 4) < 1300 && abs(other - N / 4) < 1300 && abs(neighbour - N / 4) < 1300);
    assert_int_equal(hd_dropout_threshold(0), 0);
    double sum = 0, square = 0, fourth = 0;
    for (uint64_t e = 0; e < N; e++) {
        double x = hd_init_value(HD_INIT_NORMAL, 2, 1, hd_random_name("w"), e);
        sum += x;
        square += x * x;
        fourth += x * x * x * x;
    }
    assert_true(fabs(sum / N) < 0.02 && fabs(square / N - 4) < 0.06 && fabs(fourth / N - 48) < 2.5);
    assert_true(hd_init_value(HD_INIT_CONSTANT, 2, 1, 5, 7) == 2);
    for (uint64_t e = 0; e < 1000; e++) assert_true(fabs(hd_init_value(HD_INIT_UNIFORM, 2, 1, 5, e)) <= 2);
}

/* ---- the printed form ---- */

static void a_graph_prints_one_line_per_node(void **state)
{
    (void)state;
    hd_graph *graph = hd_graph_new("m.lua");
    graph->name = "m";
    hd_node *x = tensor(graph, "x", HD_F32, (hd_shape)SHAPE(2, 4));
    hd_shape shape = SHAPE(3, 4);
    hd_attr init = { .param = { .init = { HD_INIT_NORMAL, 0.02 }, .decay = true } }, trans = { .matmul = { false, true } };
    hd_node *w = hd_graph_add(graph, HD_OP_param, (hd_where){ "m.lua", 7 }, HD_F32, &shape, 0, NULL, &init);
    w->name = "h.0.weight";
    graph->scope = "h.0";
    hd_node *y = hd_graph_add(graph, HD_OP_matmul, (hd_where){ "m.lua", 7 }, HD_F32, NULL, 2, (hd_node *[]){ x, w }, &trans);
    hd_entry *entry = hd_graph_entry(graph, "forward");
    entry->inputs = 1;
    entry->input = &x;
    entry->outputs = 1;
    entry->output = (hd_named[]){ { "y", y } };
    hd_text text = { 0 };
    hd_graph_print(graph, &text);
    assert_string_equal(text.data, "graph m: 3 nodes, 1 entries\n"
                                   "%x = input  f32 [2, 4]  m.lua:1\n"
                                   "%h.0.weight = param normal 0.02 decay  f32 [3, 4]  m.lua:7\n"
                                   "%2 = matmul %x, %h.0.weight trans_b  f32 [2, 3]  \"h.0\"  m.lua:7\n"
                                   "entry forward(%x)\n"
                                   "  y = %2\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parent_sees_what_a_child_allocates),
        cmocka_unit_test(failures_name_the_file_and_the_line),
        cmocka_unit_test(files_are_written_whole_and_only_when_they_differ),
        cmocka_unit_test(text_and_lists_grow),
        cmocka_unit_test(wrong_shapes_name_both_operands_and_the_line),
        cmocka_unit_test(shapes_follow_from_inputs),
        cmocka_unit_test(attention_equals_a_dense_masked_loop),
        cmocka_unit_test(scores_take_in_what_the_graph_says),
        cmocka_unit_test(bounds_follow_from_lengths_and_documents),
        cmocka_unit_test(a_row_of_infinite_scores_is_empty),
        cmocka_unit_test(a_key_outside_the_pattern_never_matters),
        cmocka_unit_test(broadcasting_reads_what_numpy_reads),
        cmocka_unit_test(only_what_an_entry_needs_is_evaluated),
        cmocka_unit_test(random_numbers_are_even_and_independent),
        cmocka_unit_test(a_graph_prints_one_line_per_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
