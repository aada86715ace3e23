/* Specs: mistakes are reported at the user's line, limits hold, and the models that ship build the graphs they should.
 *
 * Every case runs hd_spec_load in a forked process of its own whose stderr is captured, several at once. tests/bad holds one
 * mistake per file, with `-- expect: part of the message` on the line that must be named. Run from the repository's root. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../compiler/pattern/pattern.h"
#include "../../compiler/spec/spec.h"

static const char LIBRARY[] = "compiler/lua";
enum { AT_ONCE = 1, MAX_OVERRIDES = 12 };       /* one: processes that allocate side by side would share one arena */

/* ---- running a spec ---- */

typedef struct run { pid_t process; FILE *captured; } run;

static int split(char *text, const char **part)
{
    int count = 0;
    for (char *word = strtok(text, " "); word && count < MAX_OVERRIDES; word = strtok(NULL, " ")) part[count++] = word;
    return count;
}

/* overrides: "length=64 heads=2" or "". Exit status of the process: 0 when the spec loads. */
static run start(const char *path, const char *overrides, hd_spec_limits limits)
{
    run r = { .captured = tmpfile() };
    assert_non_null(r.captured);
    fflush(NULL);
    r.process = fork();
    if (r.process == 0) {
        dup2(fileno(r.captured), STDERR_FILENO);
        hd_spec_limit = limits;
        const char *list[MAX_OVERRIDES];
        int count = split(hd_strdup(overrides), list);
        hd_graph *graph = hd_spec_load(path, count, list, LIBRARY);
        _exit(graph ? 0 : 2);
    }
    return r;
}

/* Waits; *status is the exit status, or 128 and more for a signal. The text lies in the arena. */
static char *finish(run r, int *status)
{
    int ended;
    while (waitpid(r.process, &ended, 0) < 0 && errno == EINTR) {}
    *status = WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
    long bytes = 0;
    if (!fseek(r.captured, 0, SEEK_END)) bytes = ftell(r.captured);
    rewind(r.captured);
    char *text = hd_alloc((size_t)bytes + 1);
    text[fread(text, 1, (size_t)bytes, r.captured)] = 0;
    fclose(r.captured);
    return text;
}

static hd_spec_limits low_limits(void)
{
    return (hd_spec_limits){ .memory_bytes = 64 << 20, .instructions = hd_spec_limit.instructions, .seconds = 60 };
}

static hd_graph *load(const char *path, const char *overrides)
{
    const char *list[MAX_OVERRIDES];
    int count = split(hd_strdup(overrides), list);
    return hd_spec_load(path, count, list, LIBRARY);
}

/* ---- tests/bad ---- */

typedef struct bad { char *path, *expected; int line; run r; } bad;

static int by_path(const void *a, const void *b) { return strcmp(((const bad *)a)->path, ((const bad *)b)->path); }

static bad read_bad(const char *path)
{
    bad b = { .path = hd_strdup(path) };
    char *text = hd_read_file(path, NULL);
    assert_non_null(text);
    int line = 1;
    for (char *at = text; *at; at++) {
        if (*at == '\n') line++;
        if (strncmp(at, "-- expect: ", 11)) continue;
        b.line = line;
        b.expected = hd_strdup(at + 11);
        b.expected[strcspn(b.expected, "\n")] = 0;
        break;
    }
    if (!b.expected) fail_msg("%s has no `-- expect: ...`", path);
    return b;
}

static bool is_one_line(const char *text)
{
    const char *end = strchr(text, '\n');
    return end && !end[1];
}

static bool says(const char *message, const char *path, int line, const char *part)
{
    char *prefix = hd_format("%s:%d: ", path, line);
    return !strncmp(message, prefix, strlen(prefix)) && strstr(message, part) && is_one_line(message);
}

static void each_bad_spec_gets_one_clear_line(void **state)
{
    (void)state;
    bad *list = NULL;
    int count = 0, capacity = 0, failures = 0;
    DIR *folder = opendir("tests/bad");
    assert_non_null(folder);
    for (struct dirent *file; (file = readdir(folder));) {
        size_t length = strlen(file->d_name);
        if (length > 4 && !strcmp(file->d_name + length - 4, ".lua")) HD_PUSH(list, count, capacity, read_bad(hd_format("tests/bad/%s", file->d_name)));
    }
    closedir(folder);
    qsort(list, (size_t)count, sizeof *list, by_path);
    assert_true(count > 80);
    for (int next = 0, waited = 0; waited < count; waited++) {
        for (; next < count && next < waited + AT_ONCE; next++) {
            hd_spec_limits limits = low_limits();
            if (strstr(list[next].expected, "longer than 1 s")) limits.seconds = 1;
            list[next].r = start(list[next].path, "", limits);
        }
        int status;
        char *message = finish(list[waited].r, &status);
        if (status == 1 && says(message, list[waited].path, list[waited].line, list[waited].expected)) continue;
        failures++;
        print_error("%s:%d: expected status 1 and \"%s\", got status %d and\n%s\n", list[waited].path, list[waited].line, list[waited].expected, status, message);
    }
    assert_int_equal(failures, 0);
}

/* ---- mistakes on the command line ---- */

static void wrong_overrides_name_the_flag_and_what_is_valid(void **state)
{
    (void)state;
    static const struct { const char *spec, *overrides, *message; } cases[] = {
        { "models/text.lua", "layrs=2", "-D layrs=2: this spec has no key 'layrs'; did you mean layers?; its keys: batch, " },
        { "models/text.lua", "zzz=2", "-D zzz=2: this spec has no key 'zzz'; its keys: batch, " },
        { "models/text.lua", "layers", "-D layers: a -D flag is key=value; keys of this spec: batch, " },
        { "models/text.lua", "layers=two", "-D layers=two: layers must be a whole number such as 3, got 'two'" },
        { "models/text.lua", "layers=2.5", "-D layers=2.5: layers must be a whole number such as 3, got '2.5'" },
        { "models/text.lua", "dropout=inf", "-D dropout=inf: dropout must be a number such as 0.0, got 'inf'" },
        { "models/text.lua", "pattern=dense", "-D pattern=dense: pattern must be one of \"strided\", \"causal\", \"window\", got 'dense'" },
        { "models/text.lua", "recompute=1", "-D recompute=1: recompute must be true or false, got '1'" },
        { "tests/bad/no_model.lua", "a=1", "tests/bad/no_model.lua:2: the spec ends without a model" },
        { "no\"such.lua", "", "heddle: the path of a spec cannot hold quotes, backslashes, control characters" },
        { "models/*/text.lua", "", "heddle: the path of a spec cannot hold quotes" },
        { "no/such.lua", "", "heddle: cannot read no/such.lua: No such file or directory" },
        { "models", "", "heddle: cannot read models: it is a folder" },
        { "/dev/zero", "", "heddle: cannot read /dev/zero: it is no ordinary file" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status;
        char *message = finish(start(cases[i].spec, cases[i].overrides, low_limits()), &status);
        if (status != 1 || strncmp(message, cases[i].message, strlen(cases[i].message)) || !is_one_line(message))
            fail_msg("%s -D %s: expected \"%s\", got status %d and %s", cases[i].spec, cases[i].overrides, cases[i].message, status, message);
    }
}

/* ---- specs written here ---- */

static char folder_name[64];

static char *write_spec(const char *name, const char *text, size_t bytes)
{
    char *path = hd_format("%s/%s", folder_name, name);
    hd_write_file(path, text, bytes);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder_name, "/tmp/heddle_spec_test.XXXXXX");
    return mkdtemp(folder_name) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    DIR *folder = opendir(folder_name);
    for (struct dirent *file; folder && (file = readdir(folder));)
        if (file->d_name[0] != '.') unlink(hd_format("%s/%s", folder_name, file->d_name));
    if (folder) closedir(folder);
    return rmdir(folder_name);
}

static const char MODEL[] = "return hd.model { name = 'm', entries = { f = { outputs = { y = hd.input('x', { 2 }) * 2 } } } }\n";

static void a_spec_may_do_what_a_spec_needs(void **state)
{
    (void)state;
    static const struct { const char *why, *text; } cases[] = {
        { "pairs has one order", "local seen = '' for k in pairs { b = 1, a = 2, [3] = 0, c = 4, [1] = 1 } do seen = seen .. k end assert(seen == '13abc', seen)\n" },
        { "pcall catches Lua's errors", "local ok, why = pcall(error, 'x') assert(not ok and why == 'x')\n" },
        { "window counts the own key", "local p = hd.pattern.window { keys = 3 } assert(table.concat(p:row(5), ',') == '3,4,5')\n" },
        { "window left and right", "local p = hd.pattern.window { left = 1, right = 2 } assert(table.concat(p:row(5, 100), ',') == '4,5,6,7')\n" },
        { "strided rows", "local P = hd.pattern local p = P.causal() & (P.window { keys = 4 } | P.stride(4)) assert(table.concat(p:row(11), ',') == '3,7,8,9,10,11') assert(p:kept_pairs(16) == 82)\n" },
        { "minus has no own key", "local P = hd.pattern local p = P.causal() - P.window { keys = 1 } assert(p:kept_pairs(8) == 28 and p:empty_rows(8) == 1)\n" },
        { "patterns compare and print", "local P = hd.pattern assert(P.causal() == P.causal() and P.causal() ~= P.full()) assert(tostring(P.causal()) == 'causal')\n" },
        { "is_causal and keeps", "local P = hd.pattern assert(P.causal():is_causal(9) and not P.full():is_causal(9)) assert(P.stride(4):keeps(2, 6) and not P.stride(4):keeps(2, 5))\n" },
        { "shapes", "local x = hd.input('a', { 2, 3, 4 }) assert(#x == 3 and x.shape[3] == 4 and x.dtype == 'f32' and x.name == 'a')\n" },
        { "reshape finds a size", "local x = hd.input('a', { 2, 3, 4 }):reshape { 4, -1 } assert(x.shape[2] == 6)\n" },
        { "transpose swaps", "local x = hd.input('a', { 2, 3, 4 }) assert(x:transpose().shape[2] == 4) assert(x:transpose({ 3, 1, 2 }).shape[1] == 4)\n" },
        { "split gives all", "local a, b, c = hd.split(hd.input('a', { 2, 6 }), 3) assert(c.shape[2] == 2) local d, e = hd.split(hd.input('b', { 5, 2 }), { 1, 4 }, 1) assert(e.shape[1] == 4)\n" },
        { "slice counts from 1 and from the end", "local x = hd.slice(hd.input('a', { 2, 6 }), -1, -2) assert(x.shape[2] == 2)\n" },
        { "concat", "local a = hd.input('a', { 2, 6 }) assert(hd.concat({ a, a, a }).shape[2] == 18 and hd.concat({ a, a }, 1).shape[1] == 4)\n" },
        { "reductions drop or keep axes", "local a = hd.input('a', { 2, 3, 4 }) assert(#hd.sum(a) == 0 and #hd.mean(a, -1) == 2 and #hd.max(a, { 1, 2 }, { keep = true }) == 3)\n" },
        { "operators with numbers", "local a = hd.input('a', { 2 }) local y = 1 - a / 2 * 3 + -a ^ 2 assert(y.shape[1] == 2)\n" },
        { "gradients", "local a, w = hd.input('a', { 2, 3 }), hd.param('w', { 3, 3 }) local dw, da = hd.grad(hd.sum(hd.gelu(a:matmul(w), 'tanh')), { w, a }) assert(dw.shape[1] == 3 and da.shape[1] == 2)\n" },
        { "scopes name parameters", "local y = hd.scope('h'):scope('attn'):linear('c', hd.input('a', { 2, 3 }), 4) assert(y.name == 'h.attn.c')\n" },
        { "every function of the list", "local a = hd.input('a', { 2, 4, 8 }) for _, f in ipairs { 'exp', 'log', 'sqrt', 'rsqrt', 'abs', 'sign', 'sin', 'cos', 'tanh', 'erf', 'sigmoid', 'relu', 'silu', 'gelu', 'softmax', 'detach' } do assert(#hd[f](a) == 3) end\n"
          "hd.where(hd.less(a, 0), hd.minimum(a, 1), hd.maximum(a, hd.equal(a, 2))) hd.rope(a, { layout = 'pairs', dims = 4 }) hd.shift(a, hd.param('s', { 8 })) hd.fill(2, { 3 }) hd.expand(hd.fill(1, { 1, 8 }), { 4, 8 })\n"
          "local s = hd.scope('s') s:rms_norm('r', a) s:mlp('m', a, 16, { activation = 'silu', bias = false }) s:linear('io', a, 4, { layout = 'in_out' })\n" },
        { "grouped heads, a pattern per head", "local P, q, k = hd.pattern, hd.input('q', { 2, 8, 16 }), hd.input('k', { 2, 8, 8 })\n"
          "local o, lse = hd.attention(q, k, k, { heads = 4, kv_heads = 2, pattern = { P.full(), P.causal(), P.stride(2), P.window { keys = 1 } }, lse = true }) assert(lse.shape[2] == 4 and lse.shape[3] == 8)\n" },
        { "all that scores may take in, and its gradients", "local P, q, k = hd.pattern, hd.input('q', { 2, 8, 16 }), hd.input('k', { 2, 8, 8 })\n"
          "local sinks, bias, weights = hd.param('s', { 4 }), hd.param('b', { 4, 5 }), hd.param('w', { 36 })\n"
          "local o = { heads = 4, kv_heads = 2, pattern = P.causal(), softcap = 5, alibi = true, offset = -2, sinks = sinks, bias = bias, max_distance = 2, multiplicity = { 1, 2, 3, 1, 2, 3, 1, 2.5 }, edge_bias = weights,\n"
          "  documents = hd.input('d', { 2, 8 }, 'i32') }\n"
          "local out = hd.attention(q, k, k, o) local ds, db, dw = hd.grad(hd.sum(out), { sinks, bias, weights }) assert(ds.shape[1] == 4 and db.shape[2] == 5 and dw.shape[1] == 36)\n"
          "local d = { hd.attention_gradient(q, k, k, q, hd.input('l', { 2, 4, 8 }), q, o) } assert(#d == 6 and d[4].shape[1] == 4 and d[5].shape[2] == 5 and d[6].shape[1] == 36)\n" },
        { "key biases of all or of each sequence, and with multiplicity", "local q, P = hd.input('q', { 2, 3, 8, 4 }), hd.pattern local one, each, times = hd.param('a', { 8 }), hd.param('b', { 6, 8 }), hd.input('t', { 6, 8 })\n"
          "local l = hd.input('l', { 2, 3, 1, 8 }) for _, bias in ipairs { one, each } do\n"
          "  local d = { hd.attention_gradient(q, q, q, q, l, q, { heads = 1, pattern = P.full(), key_bias = bias, multiplicity = times }) } assert(#d == 4 and #d[4].shape == #bias.shape and d[4].shape[#bias.shape] == 8)\n"
          "end assert(select('#', hd.attention_gradient(q, q, q, q, l, q, { heads = 1, pattern = P.full(), multiplicity = times })) == 3)\n" },
        { "relative bias to both sides", "local q = hd.input('q', { 8, 16 }) hd.attention(q, q, q, { heads = 2, pattern = hd.pattern.full(), bias = hd.param('b', { 2, 7 }), max_distance = 3 })\n"
          "hd.attention(q, q, q, { heads = 2, pattern = hd.pattern.full(), bias = hd.param('t', { 2, 8 }), t5 = { buckets = 8 }, lengths = hd.input('n', { 1 }, 'i32'), alibi = { 1, 2 } })\n" },
        { "recompute gives what the function gives", "local a, b = hd.recompute(function(x, y) return x + y, x end, hd.input('a', { 2 }), hd.input('b', { 2 })) assert(a.shape[1] == 2 and b.name == 'a')\n" },
        { "config values have their types", "local c = hd.config { n = 4, x = 0.5, s = 'a', b = true, o = hd.one_of('p', 'q') } assert(math.type(c.n) == 'integer' and c.o == 'p' and c.b)\n" },
        { "inits", "local i = hd.scaled_by_depth(hd.sparse_transformer_init(2), 8) assert(i.scale == 0.25 / 4 and hd.sparse_transformer_init(4, 'paper').scale == 0.0625)\n" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = hd_format("local hd = require 'heddle'\n%s%s", cases[i].text, MODEL), *path = write_spec("good.lua", text, strlen(text));
        int status;
        char *message = finish(start(path, "", low_limits()), &status);
        if (status) fail_msg("%s: %s", cases[i].why, message);
    }
}

static void require_reads_text_beside_the_spec_only(void **state)
{
    (void)state;
    static const char spec[] = "local hd = require 'heddle'\nlocal layers = require 'layers'\nassert(require 'layers' == layers)\nlocal y = layers.double(hd.input('a', { 2 }))\n";
    static const char module[] = "local hd = require 'heddle'\nreturn { double = function(x)\n  return x * 2\nend }\n";
    static const char broken[] = "local hd = require 'heddle'\nreturn { double = function(x)\n  return x:dobule()\nend }\n";
    char *text = hd_format("%s%s", spec, MODEL), *path = write_spec("uses.lua", text, strlen(text)), *message;
    char *module_path = write_spec("layers.lua", module, strlen(module));
    int status;
    message = finish(start(path, "", low_limits()), &status);
    if (status) fail_msg("%s", message);
    hd_graph *graph = load(path, "");
    bool found = false;
    for (int i = 0; i < graph->nodes; i++)
        found |= graph->node[i]->op == HD_OP_mul && !strcmp(graph->node[i]->where.file, module_path) && graph->node[i]->where.line == 3;
    assert_true(found);

    write_spec("layers.lua", broken, strlen(broken));
    message = finish(start(path, "", low_limits()), &status);
    if (status != 1 || !says(message, module_path, 3, "hd.dobule does not exist")) fail_msg("%s", message);

    write_spec("layers.lua", "\033Lua\x54", 5);
    message = finish(start(path, "", low_limits()), &status);
    if (status != 1 || !says(message, module_path, 1, "this is Lua bytecode")) fail_msg("%s", message);

    unlink(module_path);
    assert_int_equal(symlink("/etc/hostname", module_path), 0);
    message = finish(start(path, "", low_limits()), &status);
    if (status != 1 || !says(message, path, 2, "is a link that leads out of the spec's own folder")) fail_msg("%s", message);
}

static void bytecode_is_refused(void **state)
{
    (void)state;
    char *path = write_spec("code.lua", "\033Lua\x54\0\x19\x93\r\n", 10);
    int status;
    char *message = finish(start(path, "", low_limits()), &status);
    if (status != 1 || !says(message, path, 1, "this is Lua bytecode; only the text of a spec is read")) fail_msg("%s", message);
}

static void an_instruction_limit_holds_inside_pcall(void **state)
{
    (void)state;
    static const char text[] = "local n = 0\nwhile true do pcall(function() n = n + 1 end) end\n";
    char *path = write_spec("count.lua", text, strlen(text));
    hd_spec_limits limits = low_limits();
    limits.instructions = 1000000;
    int status;
    char *message = finish(start(path, "", limits), &status);
    if (status != 1 || !says(message, path, 2, "the spec ran more than 1 million instructions")) fail_msg("%s", message);
}

static void what_a_spec_prints_goes_to_stderr(void **state)
{
    (void)state;
    char *text = hd_format("local hd = require 'heddle'\nprint('size', 4)\n%s", MODEL), *path = write_spec("print.lua", text, strlen(text));
    int status;
    char *message = finish(start(path, "", low_limits()), &status);
    assert_int_equal(status, 0);
    assert_string_equal(message, "size\t4\n");
}

static void random_numbers_and_order_repeat(void **state)
{
    (void)state;
    char *text = hd_format("local hd = require 'heddle'\nlocal t = {} for i = 1, 50 do t['key' .. math.random(1000)] = i end\nfor k in pairs(t) do print(k) end\n%s", MODEL);
    char *path = write_spec("random.lua", text, strlen(text));
    int status;
    char *first = finish(start(path, "", low_limits()), &status), *second = finish(start(path, "", low_limits()), &status);
    assert_int_equal(status, 0);
    assert_true(strlen(first) > 200);
    assert_string_equal(first, second);
}

/* ---- the models that ship ---- */

static const hd_entry *entry_named(const hd_graph *graph, const char *name)
{
    for (int i = 0; i < graph->entries; i++)
        if (!strcmp(graph->entry[i]->name, name)) return graph->entry[i];
    fail_msg("no entry %s", name);
    return NULL;
}

static void every_model_loads_with_many_options(void **state)
{
    (void)state;
    static const struct { const char *path, *overrides; int entries; bool causal; } cases[] = {
        { "models/text.lua", "", 3, true },
        { "models/text.lua", "pattern=causal length=64 layers=2 batch=3 steps_batch=6", 3, true },
        { "models/text.lua", "pattern=window window=7 length=100 heads=2 width=24 inner=48", 3, true },
        { "models/text.lua", "length=1 stride=1 layers=1 batch=1 vocab=1 width=2 heads=1", 3, true },
        { "models/text.lua", "length=12288 layers=30 width=512 heads=8 stride=128 inner=2048 dropout=0.25 recompute=true", 3, true },
        { "models/gpt2.lua", "", 3, true },
        { "models/gpt2.lua", "layers=2 width=64 heads=4 length=96 positions=128 vocab=257 batch=2 dropout=0.1", 3, true },
        { "models/attention.lua", "", 2, false },
        { "models/attention.lua", "pattern=full length=33 heads=3 head_dim=5", 2, false },
        { "models/attention.lua", "pattern=strided stride=16 length=144 heads=2 head_dim=16", 2, false },
        { "models/attention.lua", "pattern=stride stride=16 heads=4 kv_heads=2", 2, false },
        { "models/attention.lua", "pattern=window window=1 length=1", 2, false },
        { "models/attention.lua", "pattern=strided length=96 stride=12 softcap=2.0 alibi=true sinks=true max_distance=7 key_bias=true edge_bias=true packed=true", 2, false },
        { "models/attention.lua", "pattern=fixed length=96 stride=12 summary=2 offset=3 t5=32 multiplicity=3 lengths=true", 2, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hd_graph *graph = load(cases[i].path, cases[i].overrides);
        print_message("%s %s: %d nodes\n", cases[i].path, cases[i].overrides, graph->nodes);
        assert_int_equal(graph->entries, cases[i].entries);
        assert_int_equal(entry_named(graph, "forward")->causal, cases[i].causal);
        assert_true(graph->configs > 5);
        for (int n = 0; n < graph->nodes; n++) {
            assert_non_null(graph->node[n]->where.file);
            assert_true(graph->node[n]->where.line > 0);
        }
    }
}

static void overrides_reach_the_graph(void **state)
{
    (void)state;
    hd_graph *graph = load("models/text.lua", "length=64 vocab=100 batch=2 steps_batch=4");
    assert_int_equal(graph->length, 64);
    assert_int_equal(graph->vocab, 100);
    assert_int_equal(graph->batch, 2);
    assert_true(graph->training.present && graph->training.lr == 3e-3 && graph->training.batch == 4);
    assert_string_equal(graph->name, "text");
    assert_int_equal(graph->kind, HD_KIND_LANGUAGE_MODEL);
    const hd_entry *loss = entry_named(graph, "loss");
    assert_string_equal(loss->output[0].name, "loss");
    assert_int_equal(hd_elements(&loss->output[0].node->shape), 1);
    assert_string_equal(hd_shape_text(&loss->output[1].node->shape), "[2, 64]");
}

/* Whether an output depends on a node of this op. */
static bool reaches(const hd_graph *graph, const hd_node *output, hd_op op)
{
    bool *needed = HD_NEW_ARRAY(bool, graph->nodes);
    needed[output->id] = true;
    for (int id = output->id; id >= 0; id--) {
        if (!needed[id]) continue;
        if (graph->node[id]->op == op) return true;
        for (int i = 0; i < graph->node[id]->inputs; i++) needed[graph->node[id]->input[i]->id] = true;
    }
    return false;
}

static void dropout_is_in_training_only(void **state)
{
    (void)state;
    hd_graph *graph = load("models/text.lua", "dropout=0.1 layers=2");
    assert_false(reaches(graph, entry_named(graph, "forward")->output[0].node, HD_OP_dropout));
    assert_false(reaches(graph, entry_named(graph, "loss")->output[0].node, HD_OP_dropout));
    assert_true(reaches(graph, entry_named(graph, "train_step")->output[0].node, HD_OP_dropout));
    graph = load("models/text.lua", "layers=2");
    assert_false(reaches(graph, entry_named(graph, "train_step")->output[0].node, HD_OP_dropout));
}

static void gpt2_has_the_names_and_sizes_of_the_checkpoint(void **state)
{
    (void)state;
    static const struct { const char *name, *shape; } expected[] = {
        { "transformer.wte.weight", "[257, 64]" }, { "transformer.wpe.weight", "[128, 64]" },
        { "transformer.h.0.ln_1.weight", "[64]" }, { "transformer.h.0.ln_1.bias", "[64]" },
        { "transformer.h.0.attn.c_attn.weight", "[64, 192]" }, { "transformer.h.0.attn.c_attn.bias", "[192]" },
        { "transformer.h.0.attn.c_proj.weight", "[64, 64]" }, { "transformer.h.0.attn.c_proj.bias", "[64]" },
        { "transformer.h.0.ln_2.weight", "[64]" }, { "transformer.h.0.ln_2.bias", "[64]" },
        { "transformer.h.1.mlp.c_fc.weight", "[64, 256]" }, { "transformer.h.1.mlp.c_fc.bias", "[256]" },
        { "transformer.h.1.mlp.c_proj.weight", "[256, 64]" }, { "transformer.h.1.mlp.c_proj.bias", "[64]" },
        { "transformer.ln_f.weight", "[64]" }, { "transformer.ln_f.bias", "[64]" },
    };
    hd_graph *graph = load("models/gpt2.lua", "layers=2 width=64 heads=4 length=96 positions=128 vocab=257 batch=2");
    int weights = 0;
    for (int i = 0; i < graph->nodes; i++) weights += graph->node[i]->op == HD_OP_param && graph->node[i]->attr.param.role == HD_WEIGHT;
    assert_int_equal(weights, 28);
    for (size_t e = 0; e < sizeof expected / sizeof *expected; e++) {
        const char *shape = "missing";
        for (int i = 0; i < graph->nodes; i++) {
            const hd_node *node = graph->node[i];
            if (node->op == HD_OP_param && node->attr.param.role == HD_WEIGHT && !strcmp(node->name, expected[e].name)) shape = hd_shape_text(&node->shape);
        }
        if (strcmp(shape, expected[e].shape)) fail_msg("%s is %s, not %s", expected[e].name, shape, expected[e].shape);
    }
}

static void models_that_look_ahead_are_not_called_causal(void **state)
{
    (void)state;
    static const struct { const char *why, *logits; bool causal; } cases[] = {
        { "full attention", "hd.attention(x, x, x, { heads = 2, pattern = hd.pattern.full() })", false },
        { "window to the right", "hd.attention(x, x, x, { heads = 2, pattern = hd.pattern.window { left = 2, right = 1 } })", false },
        { "one head of two looks ahead", "hd.attention(x, x, x, { heads = 2, pattern = { hd.pattern.causal(), hd.pattern.full() } })", false },
        { "causal attention", "hd.attention(x, x, x, { heads = 2, pattern = hd.pattern.causal() })", true },
        { "mean over positions", "x + hd.mean(x, 2, { keep = true })", false },
        { "softmax over positions", "hd.softmax(x:transpose()):transpose()", false },
        { "there and back", "(x:transpose() * 2):transpose()", true },
        { "a product over positions", "hd.matmul(hd.param('w', { 8, 8 }), hd.reshape(hd.slice(x, 1, 1, 1), { 8, 16 })) + x", false },
        { "shift", "hd.shift(x, hd.param('s', { 16 }))", true },
        { "reshape to heads and back", "hd.reshape(hd.reshape(x, { 2, 8, 2, 8 }):silu(), { 2, 8, 16 })", true },
        { "reshape that mixes", "hd.reshape(hd.reshape(x, { 2, 16, 8 }):silu(), { 2, 8, 16 })", false },
        { "documents by the tokens' own ids", "hd.attention(x, x, x, { heads = 2, pattern = hd.pattern.causal(), documents = tokens, sinks = hd.param('s', { 2 }), bias = hd.param('b', { 2, 4 }), max_distance = 3 })", true },
        { "a bias of keys by what they hold", "hd.attention(x, x, x, { heads = 2, pattern = hd.pattern.causal(), key_bias = hd.reshape(hd.slice(x, -1, 1, 1), { 2, 8 }) })", true },
        { "documents do not make attention causal", "hd.attention(x, x, x, { heads = 2, pattern = hd.pattern.full(), documents = tokens })", false },
        { "a bias of pairs from all positions", "hd.attention(x, x, x, { heads = 2, pattern = hd.pattern.causal(), edge_bias = hd.reshape(hd.slice(hd.mean(x, 2), -1, 1, 1), { 2, 1 }) * hd.fill(1, { 2, 36 }) })", false },
        { "sinks from all positions", "hd.attention(x, x, x, { heads = 2, pattern = hd.pattern.causal(), sinks = hd.reshape(hd.slice(hd.mean(x, 2), -1, 1, 1), { 2 }) })", false },
        { "heads first", "hd.reshape(hd.transpose(hd.attention(h(x), h(x), h(x), { heads = 2, pattern = hd.pattern.causal(), layout = 'heads_first' }), { 1, 3, 2, 4 }), { 2, 8, 16 })", true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = hd_format("local hd = require 'heddle'\nlocal tokens = hd.input('tokens', { 2, 8 }, 'i32')\nlocal x = hd.scope('e'):embedding('e', tokens, 16, 16)\n"
                               "local function h(y) return hd.transpose(hd.reshape(y, { 2, 8, 2, 8 }), { 1, 3, 2, 4 }) end\n"
                               "return hd.language_model { name = 'm', logits = %s }\n", cases[i].logits);
        hd_graph *graph = load(write_spec("causal.lua", text, strlen(text)), "");
        if (entry_named(graph, "forward")->causal != cases[i].causal) fail_msg("%s: expected %s", cases[i].why, cases[i].causal ? "causal" : "not causal");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_spec_gets_one_clear_line),
        cmocka_unit_test(wrong_overrides_name_the_flag_and_what_is_valid),
        cmocka_unit_test(a_spec_may_do_what_a_spec_needs),
        cmocka_unit_test(require_reads_text_beside_the_spec_only),
        cmocka_unit_test(bytecode_is_refused),
        cmocka_unit_test(an_instruction_limit_holds_inside_pcall),
        cmocka_unit_test(what_a_spec_prints_goes_to_stderr),
        cmocka_unit_test(random_numbers_and_order_repeat),
        cmocka_unit_test(every_model_loads_with_many_options),
        cmocka_unit_test(overrides_reach_the_graph),
        cmocka_unit_test(dropout_is_in_training_only),
        cmocka_unit_test(gpt2_has_the_names_and_sizes_of_the_checkpoint),
        cmocka_unit_test(models_that_look_ahead_are_not_called_causal),
    };
    return cmocka_run_group_tests_name("spec", tests, make_folder, remove_folder);
}
