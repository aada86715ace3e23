/* Variants of one step as a program of their own: writes it, compiles it, runs it here or through the runner, reads what it says.
 *
 * The step's operands lie in one block as the areas of a program do, at the offsets of the model's plan. What the variants
 * must agree on, and how they are timed, is in runtime/tune/measure.c. */
#include "tune.h"
#include "../driver/driver.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Arguments that every variant takes: sums of squares of tiles, the last of a product that makes them, are as many as its tiles. */
static int operands(const hd_step *s) { return s->tunable->attention ? s->arguments : s->tunable->arguments; }

static int64_t round64(int64_t x) { return (x + 63) / 64 * 64; }

/* The kernels of a variant, in the order they are called, and the memory that is theirs alone. */
typedef struct kernels {
    int count; struct { const char *template_name, *parameters; } kernel[8];
    int64_t local_bytes, own_bytes;        /* own: packed panels of a product, merge state of an attention */
    int own_kind;                          /* vectors in a panel: equal ones share them */
    const char *signature;
} kernels;

static void add_plan(kernels *k, const hd_attention_plan *plan)
{
    for (; k->count < plan->phases && k->count < (int)(sizeof k->kernel / sizeof *k->kernel); k->count++) {
        k->kernel[k->count].template_name = plan->phase[k->count].template_name, k->kernel[k->count].parameters = plan->phase[k->count].parameters;
        if (plan->phase[k->count].local_bytes > k->local_bytes) k->local_bytes = plan->phase[k->count].local_bytes;
    }
    if (k->count < plan->phases) k->count = 0;
    k->own_bytes = plan->merge_bytes;
    k->signature = plan->signature;
}

/* What makes an attention's output and sums, which its backward kernels read: they agree with the scores only so. Sinks are no
 * argument of backward kernels, so there are none here. */
static kernels forward_of(const hd_tunable *t)
{
    kernels k = { 0 };
    hd_attention a = *t->attention;
    a.with &= ~(unsigned)HD_WITH_SINKS;
    a.choice = (hd_attention_choice){ HD_ATTENTION_ANY, 0, 0 };
    const hd_attention_plan plan = hd_attention_forward(&a, t->machine);
    add_plan(&k, &plan);
    return k;
}

static kernels kernels_of(const hd_step *s, const hd_variant *v)
{
    const hd_tunable *t = s->tunable;
    kernels k = { 0 };
    if (!t->attention) {
        k.signature = t->signature;
        k.count = 1;
        k.kernel[0].template_name = "product", k.kernel[0].parameters = hd_format("%s%s%s", t->before, hd_product_parameters(&v->product), t->after);
        k.local_bytes = (int64_t)v->product.local_bytes, k.own_bytes = (int64_t)v->product.packed_bytes, k.own_kind = v->product.nv;
        return k;
    }
    const bool analytical = !strcmp(hd_attention_choice_text(&v->attention), hd_attention_choice_text(&t->analytical.attention));
    const hd_attention_plan plan = hd_attention_plan_of(t, analytical ? &(hd_attention_choice){ HD_ATTENTION_ANY, 0, 0 } : &v->attention);
    add_plan(&k, &plan);
    return k;
}

/* Where the areas of the block begin. */
typedef struct layout {
    int64_t weights, state, scratch, local, local_bytes, bytes;
    int threads;
    int64_t *argument;                     /* inputs, then outputs */
    int64_t *own;                          /* by variant */
} layout;

static layout lay_out(const hd_model *m, const hd_program *p, const kernels *k, int variants, int threads)
{
    const hd_entry *e = p->entry;
    layout at = { .local_bytes = p->local_bytes, .threads = threads, .argument = HD_NEW_ARRAY(int64_t, e->inputs + e->outputs), .own = HD_NEW_ARRAY(int64_t, variants) };
    for (int i = 0; i < variants; i++) if (k[i].local_bytes > at.local_bytes) at.local_bytes = k[i].local_bytes;
    at.local_bytes = round64(at.local_bytes);
    at.state = round64(m->weights_bytes);
    at.scratch = at.state + round64(m->state_bytes);
    at.local = at.scratch + round64(p->scratch_bytes);
    at.bytes = at.local + threads * at.local_bytes;
    for (int i = 0; i < e->inputs + e->outputs; i++) {
        at.argument[i] = at.bytes;
        at.bytes += round64(hd_node_bytes(i < e->inputs ? e->input[i] : e->output[i - e->inputs].node));
    }
    for (int i = 0; i < variants; i++) {
        int like = 0;                      /* panels of equal width are shared */
        while (like < i && (k[like].own_bytes != k[i].own_bytes || k[like].own_kind != k[i].own_kind)) like++;
        at.own[i] = like < i ? at.own[like] : at.bytes;
        if (like == i) at.bytes += round64(k[i].own_bytes);
    }
    return at;
}

static int64_t place(const hd_model *m, const layout *at, const hd_view *v)
{
    const hd_buffer *b = v->buffer;
    const int64_t within = b->offset + 4 * v->offset;
    switch (b->area) {
    case HD_AREA_SCRATCH: return at->scratch + within;
    case HD_AREA_WEIGHTS: return at->weights + within;
    case HD_AREA_GRADIENTS: return at->state + within;
    case HD_AREA_MOMENT_1: return at->state + m->weights_bytes + within;
    case HD_AREA_MOMENT_2: return at->state + 2 * m->weights_bytes + within;
    case HD_AREA_CACHE: return 0;          /* nothing that is tuned */
    case HD_AREA_PACKED: return 0;         /* every variant has panels of its own */
    case HD_AREA_ARGUMENT: break;
    }
    return at->argument[b->argument] + 4 * v->offset;
}

static int64_t extent(const hd_view *v)
{
    int64_t last = 0;
    for (int i = 0; i < v->shape.rank; i++) last += (v->shape.size[i] - 1) * v->stride[i];
    return 4 * (last + 1);
}

static const char *pointer(const char *type, int64_t offset) { return hd_format("(%s)(void *)(block + %" PRId64 ")", type, offset); }

/* An operand as C: a number, or where it lies. */
static const char *operand(const hd_model *m, const layout *at, const hd_argument *a) { return a->text ? a->text : pointer(a->type, place(m, at, &a->view)); }

static void add_range(hd_text *out, const hd_model *m, const layout *at, const hd_view *v, const char *type, bool writes, bool warm)
{
    hd_text_add(out, "    { %" PRId64 ", %" PRId64 ", %d, %d, %d },\n", place(m, at, v), extent(v), writes, strstr(type, "int32_t") != NULL, warm);
}

/* The strings of a Lua list [==[...]==], one per line. */
static void add_lines(hd_text *out, const char *lines)
{
    for (const char *at = lines; (at = strstr(at, "[==[")); ) {
        const char *end = strstr(at, "]==]");
        if (!end) return;
        hd_text_add(out, "                %.*s\n", (int)(end - at - 4), at + 4);
        at = end;
    }
}

static void add_constant(hd_text *out, const char *name, int64_t value) { hd_text_add(out, "#define %s INT64_C(%" PRId64 ")\n", name, value); }

/* Some rows of the product, summed in double precision (runtime/tune/reference.h); the fused lines run on them as on any other. */
static void add_reference(hd_text *out, const hd_model *m, const layout *at, const hd_step *s, const hd_tunable *t)
{
    const hd_product *p = &t->chosen.product;
    const double row = (double)p->n * (double)p->k, most = 2e8;
    const int64_t items = p->batch < 3 ? p->batch : 3;
    int64_t rows = (int64_t)(most / row / (double)items);
    rows = rows < 2 ? 2 : rows > 24 ? 24 : rows;
    if (rows > p->m) rows = p->m;
    const struct { const char *name; int64_t value; } constant[] = {
        { "M", p->m }, { "N", p->n }, { "K", p->k }, { "LD_A", p->ld_a }, { "TRANS_A", p->trans_a }, { "STRIDE_A", t->stride_a },
        { "LD_B", t->source_ld }, { "TRANS_B", t->source_transposed }, { "STRIDE_B", t->stride_b },
        { "ITEMS", items }, { "LAST_ITEM", p->batch - 1 }, { "ROWS", rows },
    };
    for (unsigned i = 0; i < sizeof constant / sizeof *constant; i++) add_constant(out, constant[i].name, constant[i].value);
    hd_text_add(out, "#include \"reference.h\"\n\nstatic void reference(unsigned char *block)\n{\n");
    hd_text_add(out, "    const float *a = %s, *b = %s;\n", pointer("const float *", place(m, at, &s->argument[1].view)), pointer("const float *", place(m, at, &t->source)));
    for (int i = 3; i < operands(s); i++) hd_text_add(out, "    %sarg%d = %s;\n", s->argument[i].type, i - 3, operand(m, at, &s->argument[i]));
    hd_text_add(out, "    for (ptrdiff_t i = 0; i < ITEMS; i++)\n        for (ptrdiff_t r = 0; r < ROWS; r++) {\n"
                     "            const ptrdiff_t item = ITEMS > 1 ? i * LAST_ITEM / (ITEMS - 1) : 0, own = ROWS > 1 ? r * (M - 1) / (ROWS - 1) : 0, row = M * item + own;\n"
                     "            reference_row(a, b, item, own);\n            for (ptrdiff_t col = 0; col < N; col += HD_VL) {\n"
                     "                int lanes;\n                const hd_f acc = reference_vector(col, &lanes);\n");
    add_lines(out, t->lines);
    hd_text_add(out, "                (void)row, (void)acc;\n            }\n        }\n}\n#undef HD_AT\n#undef HD_PUT\n#undef HD_SQUARES\n\n");
}

typedef struct files { int count; const char **source, **object; } files;

/* The measuring program, the pool and kernels timed before are compiled once. */
static void add_file(files *f, const char *folder, const char *name, const char *source)
{
    const char *object = hd_format("%s/%s.o", folder, name);
    for (int i = 0; i < f->count; i++) if (!strcmp(f->object[i], object)) return;      /* two variants with one kernel */
    f->object[f->count] = object;
    f->source[f->count++] = source;
}

static const char *write_text(const char *folder, const char *name, const hd_text *text)
{
    const char *path = hd_format("%s/%s.c", folder, name);
    hd_write_file(path, text->data, text->length);
    return path;
}

static void begin_file(hd_text *out, int vl) { hd_text_add(out, "#define HD_VL %d\n#include \"hd_vec.h\"\n#include \"hd_core.h\"\n#include \"measure.h\"\n\n", vl); }

/* The arguments of a call after `run`. Numbers of rows or sequences: all there are. The last pointer of an attention is its merge state. */
static void add_arguments(hd_text *out, const hd_model *m, const layout *at, const hd_step *s, int64_t own, int64_t own_bytes)
{
    const hd_tunable *t = s->tunable;
    const bool packed = !t->attention && t->chosen.product.b_kind == HD_B_PACKED;
    for (int a = 0; a < operands(s); a++) {
        const hd_argument *arg = &s->argument[a];
        const bool merge = t->attention && a == s->arguments - 1;
        if (merge || (packed && a == 2)) hd_text_add(out, ", %s", own_bytes ? pointer(merge ? "float *" : "const float *", own) : "NULL");
        else if (a == 0 && !t->attention) hd_text_add(out, ", %" PRId64, t->chosen.product.m);
        else hd_text_add(out, ", %s", arg->text && t->attention ? "0" : operand(m, at, arg));
    }
}

/* Of a forward call, from the operands of the backward step: q, k, v, out, lse, dout, then what scores take in. */
static void add_forward_arguments(hd_text *out, const hd_model *m, const layout *at, const hd_step *s, int64_t own, int64_t own_bytes)
{
    static const unsigned extra[] = { HD_WITH_BIAS, HD_WITH_KEY_BIAS, HD_WITH_EDGE_BIAS };
    int order[16] = { 0, 1, 2 }, count = 3, next = 6;
    for (unsigned i = 0; i < sizeof extra / sizeof *extra; i++) if (s->tunable->attention->with & extra[i]) order[count++] = next++;
    order[count++] = 3, order[count++] = 4;
    hd_text_add(out, ", 0, 0");
    for (int i = 0; i < count; i++) hd_text_add(out, ", %s", pointer(i < count - 2 ? "const float *" : "float *", place(m, at, &s->argument[order[i]].view)));
    hd_text_add(out, ", %s", own_bytes ? pointer("float *", own) : "NULL");
}

/* Pieces of memory that variants read and write: of a product B as it lies before packing. */
static void add_ranges(hd_text *out, const hd_model *m, const layout *at, const hd_step *s)
{
    const hd_tunable *t = s->tunable;
    const int last = t->attention ? s->arguments - 1 : operands(s);
    hd_text_add(out, "static const hd_range range[] = {\n");
    for (int a = 0; a < last; a++) {
        const hd_argument *arg = &s->argument[a];
        const bool b = !t->attention && a == 2;
        if (!arg->text) add_range(out, m, at, b ? &t->source : &arg->view, arg->type, arg->writes, !b && !arg->writes);
    }
    hd_text_add(out, "};\n\n");
}

/* The table with the calls, the measuring program, the pool, and each kernel, named by its text. */
static files write_files(const hd_model *m, const hd_program *p, const hd_step *s, hd_trial *trial, int trials, int threads, const char *folder, hd_expander *x)
{
    const hd_tunable *t = s->tunable;
    const int vl = m->target->vl;
    const hd_folders *f = hd_folders_find();
    const bool setup = t->attention && t->backward;
    const int all_kernels = trials + setup;          /* the last makes operands */
    kernels *k = HD_NEW_ARRAY(kernels, all_kernels);
    if (setup) k[trials] = forward_of(t);
    int most = 3 + (setup ? k[trials].count : 0);
    for (int i = 0; i < trials; i++) {
        k[i] = kernels_of(s, &trial[i].variant);
        if (!k[i].count) trial[i].dropped = "it has no kernels";
        most += k[i].count;
    }
    const layout at = lay_out(m, p, k, all_kernels, threads);
    files all = { .source = HD_NEW_ARRAY(const char *, most), .object = HD_NEW_ARRAY(const char *, most) };
    const bool packed = !t->attention && t->chosen.product.b_kind == HD_B_PACKED;

    hd_text table = { 0 }, list = { 0 };
    begin_file(&table, vl);
    if (!t->attention) add_reference(&table, m, &at, s, t);
    add_ranges(&table, m, &at, s);
    for (int i = 0; i < all_kernels; i++) {
        hd_text calls = { 0 };
        for (int n = 0; n < k[i].count; n++) {
            const char *parameters = k[i].kernel[n].parameters, *template_name = k[i].kernel[n].template_name;
            const char *name = hd_format("kernel_%016llx", (unsigned long long)hd_hash(parameters, strlen(parameters), hd_hash(template_name, strlen(template_name), 0)));
            const hd_kernel kernel = { .template_name = template_name, .name = name, .parameters = parameters };
            hd_text text = { 0 };
            begin_file(&text, vl);
            hd_text_add(&text, "%s", hd_kernel_text(x, &m->kernels, &kernel));
            add_file(&all, folder, name, write_text(folder, name, &text));
            hd_text_add(&table, "void %s(%s);\n", name, k[i].signature);
            hd_text_add(&calls, "    %s(run", name);
            if (i < trials) add_arguments(&calls, m, &at, s, at.own[i], k[i].own_bytes);
            else add_forward_arguments(&calls, m, &at, s, at.own[i], k[i].own_bytes);
            hd_text_add(&calls, ");\n");
        }
        if (i == trials) {
            hd_text_add(&table, "static void setup(const hd_run *run, unsigned char *block)\n{\n%s}\n\n", calls.data ? calls.data : "    (void)run, (void)block;\n");
            continue;
        }
        if (packed) {
            const int nv = trial[i].variant.product.nv;
            const char *parameters = hd_format("transposed = %s, nv = %d", t->source_transposed ? "true" : "false", nv);
            const hd_kernel pack = { .template_name = "pack", .name = hd_format("pack_%d", i), .parameters = parameters };
            hd_text_add(&table, "%s\nstatic void prepare_%d(const hd_run *run, unsigned char *block)\n{\n    pack_%d(run, %s, %s, N, K, LD_B);\n}\n\n", hd_kernel_text(x, &m->kernels, &pack), i, i,
                        pointer("const float *", place(m, &at, &t->source)), pointer("float *", at.own[i]));
        }
        hd_text_add(&table, "static void variant_%d(const hd_run *run, unsigned char *block)\n{\n%s}\n\n", i, calls.data ? calls.data : "");
        hd_text_add(&list, "    { %s, variant_%d },\n", packed ? hd_format("prepare_%d", i) : "NULL", i);
    }
    hd_text_add(&table, "static const hd_variant variant[] = {\n%s};\n", list.data);
    hd_text_add(&table, "const hd_measured hd_measured_problem = {\n    .block_bytes = %" PRId64 ", .local_offset = %" PRId64 ", .local_bytes = %" PRId64 ", .threads = %d,\n", at.bytes, at.local, at.local_bytes, threads);
    hd_text_add(&table, "    .ranges = (int)(sizeof range / sizeof *range), .range = range, .variants = %d, .variant = variant,\n", trials);
    hd_text_add(&table, "    .setup = %s, .reference = %s, .tolerance = 5e-5\n};\n", setup ? "setup" : "NULL", t->attention ? "NULL" : "reference");
    add_file(&all, folder, "table", write_text(folder, "table", &table));
    add_file(&all, folder, "measure", hd_format("%s/measure.c", f->tune));
    add_file(&all, folder, "pool", hd_format("%s/pool.c", f->core));
    return all;
}

/* One line of the program's; false where it means nothing. */
static bool read_line(char *line, hd_trial *trial, int trials, const char **machine, bool *done)
{
    int v, n = 0, number;
    double a, b;
    if (!strncmp(line, "machine ", 8) && line[8]) { *machine = hd_strdup(line + 8); return true; }
    if (!strcmp(line, "done")) return *done = true;
    const bool check = sscanf(line, "check %d %n", &v, &n) == 1 && n > 0, times = !check && sscanf(line, "time %d %d %n", &v, &number, &n) == 2 && n > 0;
    if ((!check && !times) || v < 0 || v >= trials) return false;
    hd_trial *t = &trial[v];
    const char *rest = line + n;
    n = 0;
    if (check) {
        if (sscanf(rest, "ok %lf%n", &a, &n) == 1 && n > 0 && !rest[n]) return true;
        if (sscanf(rest, "wrong %lf%n", &a, &n) == 1 && n > 0 && !rest[n]) t->dropped = hd_format("wrong results: %.1e of the largest value off", a);
        else if (sscanf(rest, "crashed %d%n", &number, &n) == 1 && n > 0 && !rest[n]) t->dropped = number ? hd_format("crashed: %s", strsignal(number)) : "crashed";
        else if (!strcmp(rest, "hung")) t->dropped = "did not end";
        return t->dropped != NULL;
    }
    if (sscanf(rest, "%lf %lf%n", &a, &b, &n) != 2 || (rest[n] && strcmp(rest + n, " slow")) || !(a > 0) || !(a < 1e13) || !(b >= 0)) return false;
    t->nanoseconds[number > 1] = a;
    t->noise[number > 1] = b;
    if (rest[n]) t->slow = true;
    return true;
}

/* Runs the program for the trials whose bits are set. NULL, or what is wrong. */
static const char *run_trials(hd_tuning *tuning, const char *program, hd_trial *trial, int trials, uint64_t which, int threads, double seconds, double limit)
{
    const hd_options *o = tuning->options;
    hd_text list = { 0 };
    for (int i = 0; i < trials; i++) if (which >> i & 1) hd_text_add(&list, "%s%d", list.length ? "," : "", i);
    const char *argv[64];
    int n = 0;
    char *runner = o->runner ? hd_strdup(o->runner) : NULL;
    for (char *word = runner ? strtok(runner, " \t") : NULL; word && n < 48; word = strtok(NULL, " \t")) argv[n++] = word;
    argv[n++] = program, argv[n++] = hd_format("%.3f", seconds), argv[n++] = threads > 1 ? hd_format("1,%d", threads) : "1", argv[n++] = list.data, argv[n] = NULL;
    char *output = NULL;
    const int status = hd_run_program_for(argv, &output, limit);
    if (status == 127) return hd_format("%s cannot be run", *argv);
    bool done = false;
    const char *machine = NULL;
    for (char *line = output, *end; *line && !done; line = end) {
        end = line + strcspn(line, "\n");
        if (*end) *end++ = 0;
        line[strcspn(line, "\r")] = 0;
        if (!read_line(line, trial, trials, &machine, &done)) return hd_format("%s printed \"%.60s\"", o->runner ? "the runner" : "the measuring program", line);
    }
    if (status < 0) return hd_format("no end within %.0f s", limit);
    if (status) return hd_format("exit status %d", status);
    if (!done || !machine) return "it ended without having said all";
    if (o->runner && !o->cpu) tuning->machine = machine;
    return NULL;
}

static void forget(hd_trial *t) { t->nanoseconds[0] = t->nanoseconds[1] = t->noise[0] = t->noise[1] = 0, t->dropped = NULL, t->slow = false; }

/* What was given up on one thread is taken to be as slow on all. Many threads count as much as one, but less where other
 * programs disturb them: as the analytical choice's own noise says. */
static void score(hd_trial *trial, int trials, int threads)
{
    for (int i = 0; i < trials; i++) {
        hd_trial *t = &trial[i];
        const double share = 0.5 * fmin(1, 0.05 / fmax(trial[0].noise[1], 1e-9));
        const bool both = threads > 1 && t->nanoseconds[1] > 0;
        t->score = INFINITY;
        if (!t->dropped && (!(t->nanoseconds[0] > 0) || (threads > 1 && !both && !t->slow))) t->dropped = "not timed";
        if (t->dropped || trial->dropped) continue;
        t->score = log(t->nanoseconds[0] / trial->nanoseconds[0]);
        if (both) t->score += share * (log(t->nanoseconds[1] / trial->nanoseconds[1]) - t->score);
    }
}

bool hd_measure(hd_tuning *tuning, const hd_model *m, const hd_program *p, const hd_step *s, hd_trial *trial, int trials, int threads, double seconds,
                double limit, const char **why)
{
    static const char *folder;
    static hd_expander *expander;
    const hd_folders *f = hd_folders_find();
    if (!folder) folder = hd_temporary_folder(), expander = hd_expander_new(f->templates, f->expander);
    files all = write_files(m, p, s, trial, trials, threads, folder, expander);
    files wanted = { .source = HD_NEW_ARRAY(const char *, all.count), .object = HD_NEW_ARRAY(const char *, all.count) };
    const char **errors = HD_NEW_ARRAY(const char *, all.count);
    bool *kept = HD_NEW_ARRAY(bool, all.count);
    for (int i = 0; i < all.count; i++) {
        if (access(all.object[i], R_OK) == 0 && !strstr(all.object[i], "/table.o")) continue;
        kept[wanted.count] = strncmp(all.source[i], folder, strlen(folder)) != 0;
        wanted.source[wanted.count] = all.source[i], wanted.object[wanted.count++] = all.object[i];
    }
    hd_cc_objects(tuning->options, m->target, wanted.count, wanted.source, wanted.object, kept, errors);
    for (int i = 0; i < wanted.count; i++)
        if (errors[i]) {
            *why = hd_format("the C compiler failed on %s: %.300s", wanted.source[i], errors[i]);
            return false;
        }
    const char *program = hd_format("%s/program", folder), *said;
    /* Another machine may have other libraries, or none. */
    const char **object = HD_NEW_ARRAY(const char *, all.count + 1);
    memcpy(object, all.object, sizeof *object * (size_t)all.count);
    object[all.count] = "-static";
    const bool linked = (tuning->options->runner && hd_cc_link(tuning->options, all.count + 1, object, program, &said)) || hd_cc_link(tuning->options, all.count, object, program, &said);
    if (!linked) {
        *why = hd_format("linking failed: %.300s", said);
        return false;
    }
    for (int i = 0; i < trials; i++) forget(&trial[i]);
    *why = run_trials(tuning, program, trial, trials, ((uint64_t)1 << (trials - 1) << 1) - 1, threads, seconds, limit);
    if (*why && trials > 1) {        /* one of them, or all? Each beside the analytical choice alone. */
        const char *reason = *why;
        for (int i = 0; i < trials; i++) forget(&trial[i]);
        *why = run_trials(tuning, program, trial, trials, 1, threads, seconds, limit);
        for (int i = 1; i < trials && !*why; i++) {
            const char *own = run_trials(tuning, program, trial, trials, 1 | (uint64_t)1 << i, threads, seconds, limit);
            if (own) forget(&trial[i]), trial[i].dropped = own;
        }
        if (*why) *why = reason;
    }
    if (*why) return false;
    score(trial, trials, threads);
    if (trial->dropped) *why = hd_format("the analytical choice itself: %s", trial->dropped);
    return !trial->dropped;
}
