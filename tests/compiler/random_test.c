/* Random attention through the whole compiler: graph, lowering, plan, kernels, C compiler, against the interpreter.
 *
 * An op is random patterns (one, or one per head) with random sizes, layouts and attributes. Many ops become one program, so that
 * the compiler's start is paid once: each is an entry that gives out, lse and the gradients of all inputs. Then a key that some
 * queries do not keep becomes NaN, and what those queries give must be the same bits. Tensors end at an unreadable page.
 * PATTERNS=n: so many ops, from SEED=s on; op n is that of seed s + n. HD_TEST_TARGET names the one target to use, else
 * programs take turns; HD_TEST_O is -O1 if not given; ATTRIBUTES=no: patterns alone. A failing op is named by its seed and shrunk
 * (not with HD_QUICK, which only names); HD_KEEP keeps what was compiled. */
#include "../../compiler/emit/emit.h"
#include "../../compiler/pattern/pattern.h"
#include "../../runtime/core/hd_core.h"
#include "random_pattern.h"
#include "tool.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

extern char **environ;

/* ---- ops ---- */

enum { MOST_HEADS = 12, OPS_IN_A_PROGRAM = 20, COMPILERS = 2 };

typedef struct random_op {
    uint64_t seed;
    int64_t queries, keys;
    int patterns; const hd_pattern *pattern[MOST_HEADS];
    int batch, heads, kv_heads, head_dim;
    bool heads_first;
    bool together;      /* q, k and v are slices of one tensor */
    double scale, softcap;
    bool alibi, each;   /* each: key_bias for every sequence, edge_bias for every head */
    int64_t offset;
    unsigned with;      /* HD_WITH_* */
} random_op;

/* Kernels of a hundred families take a minute to compile and say nothing new. */
static const hd_pattern *affordable_pattern(int64_t queries, int64_t keys)
{
    for (;;) {
        const random_case c = random_pattern(below(3) ? EVERYTHING : below(2) ? POSITIONS : DIFFERENCES, queries, keys);
        const hd_cover *cover = hd_cover_make(c.p, queries, keys);
        if (cover->families <= (below(10) ? 6 : 24)) return c.p;
    }
}

static random_op random_op_of(uint64_t seed)
{
    random_seed(seed);
    random_op o = { .seed = seed, .batch = 1 + (int)below(2), .heads_first = below(2) };
    const int64_t most = below(4) ? 70 : 130;
    o.queries = random_length(most);
    o.keys = below(3) ? o.queries : random_length(most);
    o.kv_heads = 1 + (int)below(below(2) ? 2 : 4);
    o.heads = o.kv_heads * (int)(below(2) ? 1 : 1 + below(3));
    o.head_dim = (int)(below(3) ? 1 + below(24) : 1 + below(70));
    o.together = !o.heads_first && o.queries == o.keys && below(2);
    o.patterns = below(3) ? 1 : o.heads;
    const hd_pattern *pool[3] = { affordable_pattern(o.queries, o.keys), NULL, NULL };      /* heads share patterns, as they do in practice */
    for (int h = 0; h < o.patterns; h++) {
        const int which = h ? (int)below(3) : 0;
        if (!pool[which]) pool[which] = affordable_pattern(o.queries, o.keys);
        o.pattern[h] = pool[which];
    }
    if (below(3) == 0) o.scale = 0.1 + (double)below(8) / 10;
    const char *attributes = getenv("ATTRIBUTES");
    if (below(2) || (attributes && !strcmp(attributes, "no"))) return o;      /* half of the ops are nothing but patterns */
    if (!below(3)) o.softcap = (double)(1 + below(30));
    o.alibi = !below(3);
    o.offset = below(2) ? 0 : below(40) - 10;
    o.each = below(2);
    static const unsigned extras[] = { HD_WITH_SINKS, HD_WITH_BIAS, HD_WITH_KEY_BIAS, HD_WITH_BOUNDS, HD_WITH_EDGE_BIAS };
    for (int e = 0; e < 5; e++) if (!below(3)) o.with |= extras[e];
    if (o.patterns > 1 || (int64_t)(hd_pattern_kept_pairs(o.pattern[0], o.queries, o.keys)) < 1) o.with &= ~(unsigned)HD_WITH_EDGE_BIAS;
    return o;
}

static const char *op_text(const random_op *o)
{
    hd_text out = { NULL, 0, 0 };
    hd_text_add(&out, "SEED=%" PRIu64 " PATTERNS=1: batch %d, heads %d, kv_heads %d, head_dim %d%s%s, %" PRId64 " queries, %" PRId64 " keys", o->seed, o->batch, o->heads, o->kv_heads, o->head_dim,
                o->heads_first ? ", heads first" : "", o->together ? ", q k v in one tensor" : "", o->queries, o->keys);
    if (o->scale > 0) hd_text_add(&out, ", scale %g", o->scale);
    if (o->softcap > 0) hd_text_add(&out, ", softcap %g", o->softcap);
    if (o->alibi) hd_text_add(&out, ", alibi");
    if (o->offset) hd_text_add(&out, ", offset %" PRId64, o->offset);
    static const char *const extras[] = { "sinks", "bias", "key_bias", "edge_bias", "bounds" };
    for (int e = 0; e < 5; e++) if (o->with >> e & 1) hd_text_add(&out, ", %s%s", extras[e], o->each && (e == 2 || e == 3) ? " for each" : "");
    for (int h = 0; h < o->patterns; h++) {
        hd_text_add(&out, o->patterns > 1 ? "\n  head %d: " : "\n  ", h);
        add_pattern(&out, o->pattern[h]);
    }
    return out.data;
}

/* Ops that random ones seldom are: the shortest lengths, and rows without keys in each way they come. */
static int named_ops(random_op *op)
{
    int n = 0;
    for (int64_t length = 1; length <= 3; length++) {
        const hd_pattern *const some[] = { causal(), full(), and(causal(), or(window(1, 0), stride(2))), and(causal(), chunks(2, 0, 0)), keys_of(0, 1), minus(causal(), window(0, 0)) };
        for (int k = 0; k < (int)(sizeof some / sizeof *some); k++)
            op[n++] = (random_op){ .queries = length, .keys = length, .patterns = 1, .pattern = { some[k] }, .batch = 1 + k % 2, .heads = 2, .kv_heads = 2, .head_dim = 5 + 3 * k, .heads_first = k % 2 };
    }
    for (uint64_t seed = 1; seed <= 6; seed++) {
        random_seed(seed);
        const int64_t length = 33 + (int64_t)seed * 9;
        const hd_pattern *const documents = random_documents(length), *const graph = random_list(length, length);
        const hd_pattern *const some[] = { and(documents, minus(causal(), window(0, 0))),      /* the first row of every document is empty */
                                           and(graph, documents), minus(and(causal(), graph), window(2, 0)), graph, minus(full(), queries_of(length / 2, length)), minus(full(), full()) };
        op[n++] = (random_op){ .queries = length, .keys = length, .patterns = 1, .pattern = { some[seed - 1] }, .batch = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .heads_first = seed % 2 };
    }
    for (int k = 0; k < n; k++) op[k].seed = 1000 + (uint64_t)k;
    return n;
}

/* ---- graph and program ---- */

enum { MOST_INPUTS = 9, MOST_TENSORS = 20 };
typedef struct built_op { const random_op *op; hd_entry *entry; int bounds; const hd_program *program; } built_op;      /* bounds: which input they are, or -1 */

static hd_node *add_node(hd_graph *g, hd_op op, const char *name, hd_dtype dtype, const hd_shape *shape, int inputs, hd_node *const *input, const hd_attr *attr)
{
    static const hd_attr none;
    hd_node *n = hd_graph_add(g, op, (hd_where){ "random", 1 }, dtype, shape, inputs, input, attr ? attr : &none);
    n->name = name;
    return n;
}

static hd_node *add_input(hd_graph *g, hd_entry *e, const char *what, int number, hd_dtype dtype, hd_shape shape)
{
    return e->input[e->inputs++] = add_node(g, HD_OP_input, hd_format("%s%d", what, number), dtype, &shape, 0, NULL, NULL);
}

/* Distances to buckets: those far away share the first or the last. */
static const hd_buckets *random_buckets(void)
{
    hd_buckets *b = HD_NEW(hd_buckets);
    b->first = -below(20), b->count = 1 + below(40), b->buckets = 1 + below(9);
    int32_t *bucket = HD_NEW_ARRAY(int32_t, b->count);
    for (int64_t i = 0; i < b->count; i++) bucket[i] = (int32_t)below(b->buckets);
    b->bucket = bucket;
    return b;
}

static built_op add_op(hd_graph *g, const random_op *o, int number)
{
    random_seed(o->seed + 7777);
    const int64_t width = (int64_t)o->heads * o->head_dim, kv_width = (int64_t)o->kv_heads * o->head_dim;
    const hd_shape q = o->heads_first ? (hd_shape){ 4, { o->batch, o->heads, o->queries, o->head_dim } } : (hd_shape){ 3, { o->batch, o->queries, width } };
    const hd_shape k = o->heads_first ? (hd_shape){ 4, { o->batch, o->kv_heads, o->keys, o->head_dim } } : (hd_shape){ 3, { o->batch, o->keys, kv_width } };
    built_op b = { .op = o, .entry = hd_graph_entry(g, hd_format("op%d", number)), .bounds = -1 };
    hd_node *input[MOST_INPUTS];
    b.entry->input = HD_NEW_ARRAY(hd_node *, MOST_INPUTS);
    if (o->together) {
        hd_node *all = add_input(g, b.entry, "qkv", number, HD_F32, (hd_shape){ 3, { o->batch, o->queries, width + 2 * kv_width } });
        const int64_t at[] = { 0, width, width + kv_width };
        for (int t = 0; t < 3; t++) input[t] = add_node(g, HD_OP_slice, NULL, HD_F32, t ? &k : &q, 1, &all, &(hd_attr){ .slice = { 2, at[t] } });
    } else {
        input[0] = add_input(g, b.entry, "q", number, HD_F32, q);
        input[1] = add_input(g, b.entry, "k", number, HD_F32, k);
        input[2] = add_input(g, b.entry, "v", number, HD_F32, k);
    }
    hd_node *dout = add_input(g, b.entry, "dout", number, HD_F32, q);
    hd_attr attr = { .attention = { .heads = o->heads, .kv_heads = o->kv_heads, .heads_first = o->heads_first, .patterns = o->patterns, .pattern = HD_NEW_ARRAY(const hd_pattern *, o->patterns),
                                    .scale = o->scale, .softcap = o->softcap, .offset = o->offset, .with = o->with, .buckets = o->with & HD_WITH_BIAS ? random_buckets() : NULL } };
    for (int h = 0; h < o->patterns; h++) attr.attention.pattern[h] = o->pattern[h];
    if (o->alibi) {
        double *slope = HD_NEW_ARRAY(double, o->heads);
        for (int h = 0; h < o->heads; h++) slope[h] = (double)below(50) / 100;
        attr.attention.alibi = slope;
    }
    int inputs = 3;
    const hd_shape row_of_keys = o->each ? (hd_shape){ 2, { o->batch, o->keys } } : (hd_shape){ 1, { o->keys } };
    const int64_t pairs = o->with & HD_WITH_EDGE_BIAS ? hd_pattern_kept_pairs(o->pattern[0], o->queries, o->keys) : 0;
    if (o->with & HD_WITH_SINKS) input[inputs++] = add_input(g, b.entry, "sinks", number, HD_F32, (hd_shape){ 1, { o->heads } });
    if (o->with & HD_WITH_BIAS) input[inputs++] = add_input(g, b.entry, "bias", number, HD_F32, (hd_shape){ 2, { o->heads, attr.attention.buckets->buckets } });
    if (o->with & HD_WITH_KEY_BIAS) input[inputs++] = add_input(g, b.entry, "key_bias", number, HD_F32, row_of_keys);
    if (o->with & HD_WITH_EDGE_BIAS) input[inputs++] = add_input(g, b.entry, "edge_bias", number, HD_F32, o->each ? (hd_shape){ 2, { o->heads, pairs } } : (hd_shape){ 1, { pairs } });
    if (o->with & HD_WITH_BOUNDS) b.bounds = b.entry->inputs, input[inputs++] = add_input(g, b.entry, "bounds", number, HD_I32, (hd_shape){ 3, { o->batch, o->queries, 2 } });

    hd_node *out = add_node(g, HD_OP_attention, NULL, HD_F32, NULL, inputs, input, &attr), *lse = hd_graph_result(g, out, 1), *gradient[MOST_INPUTS] = { NULL };
    hd_attention_gradients(g, (hd_where){ "random", 1 }, &out->attr, inputs, input, out, lse, dout, NULL, gradient);
    b.entry->output = HD_NEW_ARRAY(hd_named, 2 + inputs);
    b.entry->output[b.entry->outputs++] = (hd_named){ "out", out };
    b.entry->output[b.entry->outputs++] = (hd_named){ "lse", lse };
    static const char *const name[] = { "dq", "dk", "dv" };
    for (int i = 0; i < inputs; i++)
        if (gradient[i]) b.entry->output[b.entry->outputs++] = (hd_named){ i < 3 ? name[i] : hd_format("d_%s", input[i]->name), gradient[i] };
    return b;
}

/* What goes wrong, for the parent: children share the arena. */
static struct report { int op; char text[4000], warning[1000]; } *report;
static void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void wrong(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    if (!*report->text) vsnprintf(report->text, sizeof report->text, format, list);
    va_end(list);
}

/* Runs programs, a few at once; what they say goes to `log`. Returns false if any failed. */
static bool run_all(const char *const *const *argv, int programs, const char *log)
{
    int running = 0, status = 0;
    bool good = true;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    for (int i = 0; i < programs || running; ) {
        if (i < programs && running < COMPILERS) {
            pid_t pid;
            if (posix_spawnp(&pid, argv[i][0], &actions, NULL, (char *const *)argv[i], environ)) return false;
            running++, i++;
            continue;
        }
        if (wait(&status) > 0) good = good && !status;
        running--;
    }
    posix_spawn_file_actions_destroy(&actions);
    return good;
}

/* All ops as one shared object: op i is call_i(memory, threads, tensors). */
static void *build(hd_graph *g, built_op *built, int ops, const hd_target *target)
{
    hd_simplify(g);
    hd_model m = { .graph = g, .target = target, .version = "test", .kernels = { .prefix = g->name, .target = target } };
    m.weight_offset = HD_NEW_ARRAY(int64_t, g->nodes);
    m.program = HD_NEW_ARRAY(hd_program *, g->entries);
    for (int i = 0; i < g->entries; i++) {
        report->op = i;
        hd_program *p = hd_lower_entry(g, g->entry[i], target, &m.kernels, m.weight_offset, 0, NULL);
        hd_plan(p);
        built[i].program = m.program[m.programs++] = p;
    }
    report->op = -1;
    hd_emit(&m, hd_expander_new("templates", "compiler/emit"), false, "");
    hd_text calls = { NULL, 0, 0 };
    hd_text_add(&calls, "#include \"%s.h\"\n", g->name);
    for (int i = 0; i < ops; i++) {
        hd_text_add(&calls, "int call_%d(const %s_memory *memory, const hd_threads *threads, void *const *t);\nint call_%d(const %s_memory *memory, const hd_threads *threads, void *const *t) { return %s_op%d(memory, threads",
                    i, g->name, i, g->name, g->name, i);
        for (int k = 0; k < built[i].entry->inputs + built[i].entry->outputs; k++) hd_text_add(&calls, ", t[%d]", k);
        hd_text_add(&calls, "); }\n");
    }
    HD_PUSH(m.file, m.files, m.file_capacity, ((hd_file){ .name = "calls.c", .text = calls.data }));

    char folder[] = "/tmp/hd_random_XXXXXX";
    if (!mkdtemp(folder)) { wrong("cannot make %s", folder); return NULL; }
    const char *cc = getenv("HD_TEST_CC") ? getenv("HD_TEST_CC") : "clang", *optimise = getenv("HD_TEST_O") ? getenv("HD_TEST_O") : getenv("HEDDLE_SANITIZE") ? "-O0" : "-O1";
    const char ***argv = HD_NEW_ARRAY(const char **, m.files), **link = HD_NEW_ARRAY(const char *, m.files + 8);
    int programs = 0, linked = 0;
    link[linked++] = cc, link[linked++] = "-shared", link[linked++] = "-o", link[linked++] = hd_format("%s/all.so", folder);
    if (getenv("HEDDLE_SANITIZE")) link[linked++] = "-fsanitize=address,undefined";
    for (int i = 0; i < m.files; i++) {
        const char *source = hd_format("%s/%s", folder, m.file[i].name);
        hd_write_file(source, m.file[i].text, strlen(m.file[i].text));
        if (m.file[i].header) continue;
        const char *object = hd_format("%s.o", source), **a = argv[programs++] = HD_NEW_ARRAY(const char *, 32);
        const char *const fixed[] = { cc, optimise, "-std=c11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-pragmas", "-Iruntime/core", "-c", source, "-o", object };
        memcpy(a, fixed, sizeof fixed);
        int n = (int)(sizeof fixed / sizeof *fixed);
        for (int f = 0; f < 4 && target->flags[f]; f++) a[n++] = target->flags[f];
        if (getenv("HEDDLE_SANITIZE")) a[n++] = "-fsanitize=address,undefined", a[n++] = "-fno-sanitize-recover=undefined";
        link[linked++] = object;
    }
    link[linked++] = "-lm";
    const char *log = hd_format("%s/log", folder);
    const bool compiled = run_all((const char *const *const *)argv, programs, log) && run_all((const char *const *const *)&link, 1, log);
    const char *printed = hd_read_file(log, &(size_t){ 0 });
    void *library = compiled ? dlopen(link[3], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!compiled) wrong("%s does not compile it: %.3000s", cc, printed ? printed : "");
    else if (!library) wrong("%s", dlerror());
    else if (printed && *printed) snprintf(report->warning, sizeof report->warning, "%s", printed);
    for (int i = 0; i < m.files && !getenv("HD_KEEP"); i++) {
        unlink(hd_format("%s/%s", folder, m.file[i].name));
        unlink(hd_format("%s/%s.o", folder, m.file[i].name));
    }
    if (!getenv("HD_KEEP")) unlink(link[3]), unlink(log), rmdir(folder);
    return library;
}

/* ---- running ---- */

/* Tensors end at a page nobody may touch. */
static float *fenced(int64_t count, float value)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 4 * (size_t)count, room = (bytes + page - 1) / page * page + page;
    char *at = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || mprotect(at + room - page, page, PROT_NONE)) { wrong("no memory for %" PRId64 " floats", count); _exit(1); }
    float *x = (float *)(void *)(at + room - page - bytes);
    for (int64_t i = 0; i < count; i++) x[i] = value;
    return x;
}

typedef struct tensors { int inputs, count; int64_t elements[MOST_TENSORS]; float *at[MOST_TENSORS]; } tensors;

/* First keys and ends, neither of which decreases: often all keys, a prefix as for padding, or a window that moves in leaps. */
static void random_bounds(const random_op *o, int32_t *bounds)
{
    for (int64_t s = 0; s < o->batch; s++) {
        const int64_t kind = below(3), prefix = below(o->keys + 1);
        int64_t first = 0, end = kind == 1 ? prefix : kind == 2 ? below(o->keys + 1) : o->keys;
        for (int64_t i = 0; i < o->queries; i++) {
            if (kind == 2 && !below(4)) first += below(o->keys - first + 1) / 2;
            if (kind == 2 && !below(4)) end += below(o->keys - end + 1);
            bounds[2 * (s * o->queries + i)] = (int32_t)first;
            bounds[2 * (s * o->queries + i) + 1] = (int32_t)end;
        }
    }
}

static tensors tensors_of(const built_op *b)
{
    tensors t = { .inputs = b->entry->inputs, .count = b->entry->inputs + b->entry->outputs };
    for (int k = 0; k < t.count; k++) {
        const hd_node *n = k < t.inputs ? b->entry->input[k] : b->entry->output[k - t.inputs].node;
        t.elements[k] = hd_elements(&n->shape);
        t.at[k] = fenced(t.elements[k], NAN);
        if (k == b->bounds) random_bounds(b->op, (int32_t *)(void *)t.at[k]);
        else for (int64_t i = 0; k < t.inputs && i < t.elements[k]; i++) t.at[k][i] = (float)below(1 << 20) / (1 << 18) - 2;      /* in +-2 */
        if (k < t.inputs && !strncmp(n->name, "key_bias", 8) && below(2))
            for (int64_t i = 0; i < t.elements[k]; i++) if (!below(6)) t.at[k][i] = -INFINITY;      /* keys of multiplicity 0 */
    }
    return t;
}

/* Three "threads" that take the slots from the last to the first. */
static void backwards(void *context, void (*task)(void *, int, int), void *argument, int slots)
{
    (void)context;
    for (int slot = slots - 1; slot >= 0; slot--) task(argument, slot, slot % 3);
}

static void run_op(void *library, int number, const built_op *b, const tensors *t)
{
    typedef struct { void *weights, *state, *scratch, *packed, *cache; size_t scratch_bytes; const volatile int *cancel; } memory;
    int (*call)(const memory *, const hd_threads *, float *const *);
    *(void **)&call = dlsym(library, hd_format("call_%d", number));
    const size_t bytes = (size_t)(b->program->scratch_bytes + 3 * b->program->local_bytes + 63) / 64 * 64 + 64;
    memory m = { .scratch = aligned_alloc(64, bytes), .scratch_bytes = bytes };
    memset(m.scratch, 0xff, bytes);      /* NaN: nothing may be read before it was written */
    const hd_threads threads = { NULL, 3, backwards };
    if (!call || call(&m, &threads, t->at)) wrong("the call is refused");
    free(m.scratch);
}

/* ---- comparing ---- */

/* Rounding of f32 sums of a few hundred products, relative to the largest value of the tensor: as the goldens ask. */
static const double TOLERANCE = 2e-5;

static bool compare(const built_op *b, const tensors *t, const hd_eval *eval)
{
    for (int k = 0; k < b->entry->outputs; k++) {
        const hd_node *n = b->entry->output[k].node;
        const double *want = eval->value[n->id];
        const float *got = t->at[t->inputs + k];
        /* gradients may vanish where their terms, of about 1 to 10, do not: the rounding of as many as a key has readers remains */
        double largest = k < 2 ? 0.1 : fmax(1, sqrt((double)(b->op->queries * b->op->heads)) / 4);
        for (int64_t i = 0; i < t->elements[t->inputs + k]; i++) if (isfinite(want[i]) && fabs(want[i]) > largest) largest = fabs(want[i]);
        for (int64_t i = 0; i < t->elements[t->inputs + k]; i++) {
            if (isinf(want[i]) ? (double)got[i] == want[i] : fabs(got[i] - want[i]) <= TOLERANCE * largest) continue;
            wrong("%s[%" PRId64 "] is %.9g, should be %.9g (largest %.3g)", b->entry->output[k].name, i, got[i], want[i], largest);
            return false;
        }
    }
    return true;
}

static const hd_pattern *pattern_of(const random_op *o, int head) { return o->pattern[o->patterns > 1 ? head : 0]; }

/* Where row i of a head lies: in the q-like tensors of `heads` heads and n rows that are `width` elements wide, from `first` on. */
static int64_t row_of(const random_op *o, int64_t s, int64_t heads, int64_t head, int64_t n, int64_t i, int64_t width, int64_t first)
{
    return o->heads_first ? ((s * heads + head) * n + i) * o->head_dim : (s * n + i) * width + first + head * o->head_dim;
}

/* How many of a key's queries keep it, by all patterns. */
static int64_t readers_of(const random_op *o, int64_t key)
{
    int64_t readers = 0;
    for (int p = 0; p < o->patterns; p++)
        for (int64_t i = 0; i < o->queries; i++) readers += hd_pattern_keeps(o->pattern[p], i, key);
    return readers;
}

/* A key becomes NaN, in k and v of all sequences: rows that do not keep it stay the same bits, and if there are only such, all. */
static bool check_nan_key(void *library, int number, const built_op *b, const tensors *before, int64_t key)
{
    const random_op *o = b->op;
    const bool unread = !readers_of(o, key);
    tensors t = *before;
    const int64_t q_width = (int64_t)o->heads * o->head_dim, k_width = (int64_t)o->kv_heads * o->head_dim, wide = q_width + 2 * k_width;
    for (int k = 0; k < t.count; k++) {
        t.at[k] = fenced(t.elements[k], NAN);
        if (k < t.inputs) memcpy(t.at[k], before->at[k], 4 * (size_t)t.elements[k]);
    }
    for (int64_t s = 0; s < o->batch; s++)
        for (int64_t h = 0; h < o->kv_heads; h++)
            for (int which = 0; which < 2; which++) {
                float *x = t.at[o->together ? 0 : 1 + which] + row_of(o, s, o->kv_heads, h, o->keys, key, o->together ? wide : k_width, o->together ? q_width + which * k_width : 0);
                for (int e = 0; e < o->head_dim; e++) x[e] = which && e % 2 ? INFINITY : NAN;
            }
    run_op(library, number, b, &t);
    float *const *now = t.at + t.inputs, *const *was = before->at + t.inputs;
    for (int64_t s = 0; s < o->batch; s++)
        for (int64_t h = 0; h < o->heads; h++)
            for (int64_t i = 0; i < o->queries; i++) {
                const int32_t *bounds = b->bounds < 0 ? NULL : (const int32_t *)(const void *)before->at[b->bounds] + 2 * (s * o->queries + i);
                if (hd_pattern_keeps(pattern_of(o, (int)h), i, key) && (!bounds || (key >= bounds[0] && key < bounds[1]))) continue;
                const int64_t row = row_of(o, s, o->heads, h, o->queries, i, q_width, 0), lse = (s * o->heads + h) * o->queries + i;
                const size_t bytes = 4 * (size_t)o->head_dim;
                if (!memcmp(now[0] + row, was[0] + row, bytes) && !memcmp(now[1] + lse, was[1] + lse, 4) && !memcmp(now[2] + row, was[2] + row, bytes)) continue;
                wrong("a NaN in key %" PRId64 " changes query %" PRId64 " of head %" PRId64 ", which does not keep it: out %g was %g, lse %g was %g, dq %g was %g", key, i, h,
                      now[0][row], was[0][row], now[1][lse], was[1][lse], now[2][row], was[2][row]);
                return false;
            }
    for (int k = 3; unread && k < b->entry->outputs; k++)
        if (memcmp(now[k], was[k], 4 * (size_t)t.elements[t.inputs + k])) {
            wrong("a NaN in key %" PRId64 ", which no query keeps, changes %s", key, b->entry->output[k].name);
            return false;
        }
    return true;
}

/* One key that nobody keeps and one that some do, if there are such. */
static bool check_nan_keys(void *library, int number, const built_op *b, const tensors *before)
{
    const random_op *o = b->op;
    bool tried[2] = { false, false };
    for (int64_t n = 0, from = below(o->keys); n < o->keys; n++) {
        const int64_t key = (from + n) % o->keys, readers = readers_of(o, key);
        if (tried[readers > 0] || readers == o->patterns * o->queries) continue;
        tried[readers > 0] = true;
        if (!check_nan_key(library, number, b, before, key)) return false;
    }
    return true;
}

/* Builds and checks some ops, in the child. */
static bool check_ops(const random_op *op, int ops, const char *target)
{
    hd_graph *g = hd_graph_new("random");
    g->name = "random", g->kind = HD_KIND_OPS;
    built_op *built = HD_NEW_ARRAY(built_op, ops);
    for (int i = 0; i < ops; i++) report->op = i, built[i] = add_op(g, &op[i], i);
    void *library = build(g, built, ops, hd_target_find(target));
    if (!library) return false;
    for (int i = 0; i < ops; i++) {
        report->op = i;
        random_seed(op[i].seed + 77);
        const tensors t = tensors_of(&built[i]);
        run_op(library, i, &built[i], &t);
        hd_eval *eval = hd_eval_new(g);
        for (int k = 0; k < t.inputs; k++) {
            double *x = HD_NEW_ARRAY(double, t.elements[k]);
            for (int64_t e = 0; e < t.elements[k]; e++) x[e] = k == built[i].bounds ? (double)((const int32_t *)(const void *)t.at[k])[e] : (double)t.at[k][e];
            hd_eval_set(eval, built[i].entry->input[k], x);
        }
        hd_eval_entry(eval, built[i].entry);
        if (!compare(&built[i], &t, eval) || !check_nan_keys(library, i, &built[i], &t)) return false;
        hd_eval_free(eval);
    }
    return true;
}

/* In a child of its own: whatever the kernels do, the test goes on to name the op. Returns its status. */
static int check_in_child(const random_op *op, int ops, const char *target)
{
    memset(report, 0, sizeof *report);
    report->op = -1;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        hd_set_child();
        alarm(900);
        _exit(check_ops(op, ops, target) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status && !*report->text) snprintf(report->text, sizeof report->text, "ends with status 0x%x", (unsigned)status);
    return status;
}

/* ---- shrinking ---- */

static random_op shrinking;
static int shrinking_head;
static const char *shrinking_target;
static bool op_fails(const random_op *o) { return check_in_child(o, 1, shrinking_target) != 0; }

/* The op with one head's pattern and the lengths of a case; the other heads' patterns are cut to them. */
static random_op with_case(const random_case *c)
{
    random_op o = shrinking;
    o.queries = c->queries, o.keys = c->keys;
    for (int h = 0; h < o.patterns; h++) o.pattern[h] = h == shrinking_head ? c->p : refit(o.pattern[h], o.queries, o.keys);
    if (o.queries != o.keys) o.together = false;
    return o;
}
static bool case_fails(const random_case *c)
{
    const random_op o = with_case(c);
    return op_fails(&o);
}

/* Fewer different heads: without one key head and its query heads, or all with one pattern, or one head's as the first's. */
static random_op fewer_heads(random_op o)
{
    for (int g = 0; g < o.kv_heads && o.kv_heads > 1; ) {
        random_op less = o;
        const int share = o.heads / o.kv_heads;
        less.kv_heads--, less.heads -= share;
        if (o.patterns > 1) {
            less.patterns = less.heads;
            for (int h = g * share; h < less.heads; h++) less.pattern[h] = o.pattern[h + share];
        }
        if (op_fails(&less)) o = less;
        else g++;
    }
    for (int h = 0; h < o.patterns && o.patterns > 1; h++) {
        random_op one = o;
        one.patterns = 1, one.pattern[0] = o.pattern[h];
        if (op_fails(&one)) o = one;
    }
    for (int h = 1; h < o.patterns; h++) {
        random_op same = o;
        same.pattern[h] = o.pattern[0];
        if (o.pattern[h] != o.pattern[0] && op_fails(&same)) o = same;
    }
    return o;
}

static random_op shrink_op(random_op o, const char *target)
{
    shrinking_target = target;
    o = fewer_heads(o);
    for (int way = 0; way < 18; way++) {
        random_op less = o;
        if (way < 9) {
            if (way < 5) less.with &= ~(1u << way);
            else if (way == 5) less.scale = 0;
            else if (way == 6) less.softcap = 0;
            else if (way == 7) less.alibi = false;
            else less.offset = 0;
            if (memcmp(&less, &o, sizeof o) && op_fails(&less)) o = less;
            continue;
        }
        if (way == 9) less.batch = 1;
        else if (way == 10) less.together = false;
        else if (way == 11) less.heads_first = false;
        else if (way == 12 && o.patterns == 1) less.heads = less.kv_heads = 1;
        else if (way == 13 && o.patterns == 1) less.heads = less.kv_heads;
        else if (way >= 14 && o.head_dim > (way == 14 ? 1 : way == 15 ? 8 : way == 16 ? 16 : 32)) less.head_dim = way == 14 ? 1 : way == 15 ? 8 : way == 16 ? 16 : 32;
        if (memcmp(&less, &o, sizeof o) && op_fails(&less)) o = less;
    }
    for (shrinking_head = 0; shrinking_head < o.patterns; shrinking_head++) {
        shrinking = o;
        const random_case c = shrink((random_case){ o.queries, o.keys, o.pattern[shrinking_head] }, case_fails, o.patterns > 1 ? 60 : 120);
        o = with_case(&c);
    }
    return o;
}

/* ---- tests ---- */

static const char *target_of(int64_t program)
{
    const char *given = getenv("HD_TEST_TARGET");
    if (given) return given;
#if defined(__x86_64__)
    static const char *const turns[] = { "native", "x86-64-v3", "native", "x86-64" };
    return turns[program % 4];
#else
    (void)program;
    return "native";
#endif
}

/* Ops in a program; after one that fails the rest go on in a program of their own, and one that cannot be built at all is halved.
 * Returns how many fail, each printed. */
static char first_warning[1000];      /* of the C compiler, about a kernel of any program */
static int check_all(const random_op *op, int ops, const char *target)
{
    int failures = 0;
    while (ops > 0 && check_in_child(op, ops, target)) {
        if (report->op < 0 && ops > 1) return failures + check_all(op, ops / 2, target) + check_all(op + ops / 2, ops - ops / 2, target);
        const int at = report->op >= 0 && report->op < ops ? report->op : 0;
        printf("%s: %s\n%s\n", target, op_text(&op[at]), report->text);
        if (!getenv("HD_QUICK")) {
            const random_op least = shrink_op(op[at], target);
            const int again = check_in_child(&least, 1, target);
            printf("shrunk to (tensors of that seed): %s\n%s\n", op_text(&least), again ? report->text : "this fails only beside others");
        }
        op += at + 1, ops -= at + 1, failures++;
    }
    if (*report->warning && !*first_warning) {
        printf("%s: a program with %s\n%s\n", target, op_text(&op[0]), report->warning);
        memcpy(first_warning, report->warning, sizeof first_warning);
    }
    return failures;
}

static void the_shortest_lengths_and_rows_without_keys(void **state)
{
    (void)state;
    random_op op[40];
    const int ops = named_ops(op);
    int failures = 0;
    for (int first = 0; first < ops; first += OPS_IN_A_PROGRAM)
        failures += check_all(op + first, ops - first < OPS_IN_A_PROGRAM ? ops - first : OPS_IN_A_PROGRAM, target_of(first / OPS_IN_A_PROGRAM));
    assert_int_equal(failures, 0);
}

static void random_patterns_give_what_the_interpreter_gives(void **state)
{
    (void)state;
    const char *count = getenv("PATTERNS"), *given = getenv("SEED");
    const int64_t ops = count ? atoll(count) : getenv("HEDDLE_SANITIZE") ? 10 : 25;      /* sanitizers take compilers long */
    const uint64_t seed = given ? strtoull(given, NULL, 0) : 1;
    static random_op op[OPS_IN_A_PROGRAM];
    int64_t mixes = 0;
    int failures = 0;
    for (int64_t n = 0; n < ops; n += OPS_IN_A_PROGRAM) {
        const int here = (int)(ops - n < OPS_IN_A_PROGRAM ? ops - n : OPS_IN_A_PROGRAM);
        for (int i = 0; i < here; i++) {
            op[i] = random_op_of(seed + (uint64_t)(n + i));
            mixes += op[i].patterns > 1;
        }
        failures += check_all(op, here, target_of(n / OPS_IN_A_PROGRAM));
        if ((n + here) % 200 == 0) printf("%" PRId64 " ops, %d fail\n", n + here, failures);
    }
    printf("random ops: %" PRId64 " from seed %" PRIu64 ", %" PRId64 " of them with patterns of their own for every head, %d fail\n", ops, seed, mixes, failures);
    assert_int_equal(failures, 0);
}

static void compilers_say_nothing_about_all_these_kernels(void **state)
{
    (void)state;
    if (*first_warning) fail_msg("%s", first_warning);
}

int main(void)
{
    report = HD_NEW(struct report);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_shortest_lengths_and_rows_without_keys),
        cmocka_unit_test(random_patterns_give_what_the_interpreter_gives),
        cmocka_unit_test(compilers_say_nothing_about_all_these_kernels),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
