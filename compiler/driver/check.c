/* heddle check: the compiled program against the double-precision interpreter, on random inputs and weights.
 *
 * Four comparisons: every output of every entry; prefill and step, token after token, against the forward pass; the gradient of the loss for every weight (an entry made for this check
 * returns them); the weights after one training step. And the interpreter's own gradient against central differences along
 * random directions of all weights at once, so that a wrong gradient rule cannot agree with itself. Programs of several
 * variants are compared once for each that this processor runs. */
#include "driver.h"
#include "tensor_file.h"
#include "../passes/decode.h"
#include "../../runtime/core/hd_cpu.h"
#include "../../runtime/core/hd_random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Worst error allowed, as a share of the tensor's largest value. Rounding a float is 6e-8 of it; a product over k terms
 * gathers about sqrt(k) of that, a network some tens of products in a row; gradients run through twice as many, and sum over
 * all tokens. A step of AdamW divides gradients by their own size, so tiny ones move a weight by up to the learning rate in
 * any direction: the share is of the largest change, and the mean over the tensor is compared, not the worst element. */
static const struct { const char *what; double share; } tolerance[] = { { "output", 2e-5 }, { "gradient", 1e-4 }, { "step", 2e-3 } };
enum { OUTPUT, GRADIENT, STEP };

static const hd_entry *loss_entry(const hd_graph *g)
{
    for (int i = 0; i < g->entries; i++) if (!strcmp(g->entry[i]->name, "loss")) return g->entry[i];
    return NULL;
}

static void add_gradients(hd_graph *g)
{
    const hd_entry *loss = loss_entry(g);
    if (!loss || g->kind != HD_KIND_LANGUAGE_MODEL) return;
    hd_node **weight = HD_NEW_ARRAY(hd_node *, g->nodes), **gradient = HD_NEW_ARRAY(hd_node *, g->nodes);
    int weights = 0;
    for (int i = 0; i < g->nodes; i++)
        if (g->node[i]->op == HD_OP_param && g->node[i]->attr.param.role == HD_WEIGHT) weight[weights++] = g->node[i];
    for (int i = 0; i < g->nodes; i++)
        if (hd_gradient_refused(g->node[i])) {
            printf("%-9s %-12s not compared: %s has none\n", "gradient", "loss", hd_ops[g->node[i]->op].name);
            return;
        }
    hd_gradients(g, loss->output[0].node, weights, weight, gradient);
    hd_entry *e = hd_graph_entry(g, "check_gradients");
    e->inputs = loss->inputs, e->input = loss->input;
    e->outputs = weights, e->output = HD_NEW_ARRAY(hd_named, weights);
    for (int i = 0; i < weights; i++) e->output[i] = (hd_named){ hd_format("gradient.%s", weight[i]->name), gradient[i] };
}

static double uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    uint64_t x = *state ^ *state >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    return (double)(x >> 11) / 9007199254740992.0;
}

static double normal(uint64_t *state)
{
    const double u = uniform(state), v = uniform(state);
    return sqrt(-2 * log(u + 1e-300)) * cos(6.283185307179586 * v);
}

/* Ids below this are valid for an i32 input: what its readers allow. */
static int64_t id_limit(const hd_graph *g, const hd_node *input)
{
    int64_t limit = INT32_MAX;
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        for (int k = 0; k < n->inputs; k++) {
            const hd_node *x = n->input[k];
            while (x->op == HD_OP_reshape || x->op == HD_OP_slice) x = x->input[0];
            if (x != input) continue;
            int64_t own = limit;
            if (n->op == HD_OP_embedding && k == 1) own = n->input[0]->shape.size[0];
            if (n->op == HD_OP_embedding_dw && k == 0) own = n->attr.size.rows;
            if ((n->op == HD_OP_cross_entropy || n->op == HD_OP_cross_entropy_dx) && k == 1) own = n->input[0]->shape.size[n->input[0]->shape.rank - 1];
            if (n->op == HD_OP_expert_matmul && k == 2) own = n->input[1]->shape.size[0];
            if (n->op == HD_OP_key_bounds) own = n->attr.bounds.keys + 1;
            if (own < limit) limit = own;
        }
    }
    return limit == INT32_MAX ? 1000 : limit;
}

/* The length of the rows of ids of documents, if that is what the input holds; else 0. */
static int64_t document_length(const hd_graph *g, const hd_node *input)
{
    for (int i = 0; i < g->nodes; i++)
        if (g->node[i]->op == HD_OP_key_bounds && g->node[i]->input[0] == input && g->node[i]->attr.bounds.documents) return g->node[i]->attr.bounds.queries;
    return 0;
}

typedef struct source { hd_node *node; double *value; void *stored; } source;

static source random_source(const hd_graph *g, hd_node *n, uint64_t seed)
{
    uint64_t state = hd_hash(n->name, strlen(n->name), seed);
    const int64_t count = hd_elements(&n->shape);
    source s = { n, HD_NEW_ARRAY(double, count), hd_alloc(4 * (size_t)count + 4) };
    const bool hyper = n->op == HD_OP_input && !strcmp(n->name, "hyper") && count == HD_HYPER_COUNT;
    static const double hyper_values[HD_HYPER_COUNT] = {
        [HD_HYPER_LR] = 1e-3, [HD_HYPER_BETA1] = 0.9, [HD_HYPER_BETA2] = 0.95, [HD_HYPER_EPSILON] = 1e-8, [HD_HYPER_DECAY] = 0.1, [HD_HYPER_CLIP] = 1,
        [HD_HYPER_CORRECTION1] = 0.1, [HD_HYPER_CORRECTION2] = 0.05, [HD_HYPER_SCALE] = 1, [HD_HYPER_UPDATE] = 1 };
    const int64_t limit = n->dtype == HD_I32 ? id_limit(g, n) : 0, documents = n->dtype == HD_I32 ? document_length(g, n) : 0;
    for (int64_t i = 0; i < count; i++) {
        if (n->dtype == HD_I32) {
            int32_t id = (int32_t)(uniform(&state) * (double)limit);
            if (documents) id = i % documents ? ((int32_t *)s.stored)[i - 1] + (uniform(&state) < 0.1) : 0;      /* of about ten positions each */
            ((int32_t *)s.stored)[i] = id;
            s.value[i] = ((int32_t *)s.stored)[i];
            continue;
        }
        double x = hyper ? hyper_values[i] : normal(&state);
        if (n->op == HD_OP_param) x = hd_init_value((int)n->attr.param.init.kind, n->attr.param.init.scale, seed, hd_hash(n->name, strlen(n->name), 0), (uint64_t)i) + 0.02 * normal(&state);
        ((float *)s.stored)[i] = (float)x;
        s.value[i] = ((float *)s.stored)[i];
    }
    return s;
}

/* A gradient that is zero in theory (the bias of attention's keys: softmax does not see it) holds rounding noise on both sides,
 * and AdamW blows noise up to whole steps. Below this share of the model's largest gradient an element counts as zero. */
static const double zero_share = 1e-9;

static double largest_of(int64_t count, const double *x)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) if (fabs(x[i]) > largest && !isinf(x[i])) largest = fabs(x[i]);
    return largest;
}

/* scale: errors are shares of the tensor's largest value, or of this if it is larger. */
static bool compare(int kind, const char *entry, const char *name, int64_t count, const float *got, const double *want, const double *start, double scale, double tolerance_given)
{
    double worst = 0, largest = 0, sum = 0, moved = 0;
    for (int64_t i = 0; i < count; i++) {
        if (isinf(want[i]) && want[i] == (double)got[i]) continue;
        const double error = fabs((double)got[i] - want[i]);
        if (!(error <= worst)) worst = error;
        const double size = fabs(start ? want[i] - start[i] : want[i]);
        if (size > largest) largest = size;
        sum += error * error, moved += size * size;
    }
    if (largest < scale) largest = scale;
    double share = largest > 0 ? worst / largest : worst;
    if (kind == STEP) share = sqrt(sum / fmax(moved, 1e-12 * (double)count));      /* a step moves a weight by about 1e-3: far less is rounding */
    const double allowed = tolerance_given > 0 ? tolerance_given : tolerance[kind].share;
    const bool fine = share <= allowed;
    printf("%-9s %-12s %-44s worst %.2e of %-9.3g %s\n", tolerance[kind].what, entry, name, share, largest, fine ? "ok" : "FAILS");
    if (!fine) printf("          allowed %.1e\n", allowed);
    return fine;
}

static double loss_of(const hd_graph *g, const hd_entry *loss, int sources, const source *s)
{
    hd_eval *e = hd_eval_new(g);
    for (int i = 0; i < sources; i++) hd_eval_set(e, s[i].node, s[i].value);
    hd_eval_entry(e, loss);
    double sum = 0;
    const hd_node *n = loss->output[0].node;
    for (int64_t i = 0; i < hd_elements(&n->shape); i++) sum += e->value[n->id][i];
    hd_eval_free(e);
    return sum;
}

/* Slopes of the loss along random directions through all weights, against the interpreter's gradient. */
static bool central_differences(const hd_graph *g, int sources, source *s)
{
    const hd_entry *loss = loss_entry(g), *gradients = NULL;
    for (int i = 0; i < g->entries; i++) if (!strcmp(g->entry[i]->name, "check_gradients")) gradients = g->entry[i];
    if (!loss || !gradients) return true;
    hd_eval *e = hd_eval_new(g);
    for (int i = 0; i < sources; i++) hd_eval_set(e, s[i].node, s[i].value);
    hd_eval_entry(e, gradients);
    uint64_t state = 99;
    double slope = 0;
    const double h = 1e-5;
    double **direction = HD_NEW_ARRAY(double *, sources);
    for (int i = 0; i < sources; i++) {
        if (s[i].node->op != HD_OP_param) continue;
        const int64_t count = hd_elements(&s[i].node->shape);
        direction[i] = HD_NEW_ARRAY(double, count);
        const hd_node *gradient = NULL;
        for (int k = 0; k < gradients->outputs; k++) if (!strcmp(gradients->output[k].name + strlen("gradient."), s[i].node->name)) gradient = gradients->output[k].node;
        for (int64_t k = 0; k < count; k++) {
            direction[i][k] = normal(&state);
            if (gradient) slope += direction[i][k] * e->value[gradient->id][k];
        }
    }
    hd_eval_free(e);
    double side[2];
    for (int sign = 0; sign < 2; sign++) {
        for (int i = 0; i < sources; i++) for (int64_t k = 0; direction[i] && k < hd_elements(&s[i].node->shape); k++) s[i].value[k] += (sign ? -2 : 1) * h * direction[i][k];
        side[sign] = loss_of(g, loss, sources, s);
    }
    for (int i = 0; i < sources; i++) for (int64_t k = 0; direction[i] && k < hd_elements(&s[i].node->shape); k++) s[i].value[k] += h * direction[i][k];
    const double measured = (side[0] - side[1]) / (2 * h), error = fabs(measured - slope) / (fabs(measured) + 1e-12);
    printf("%-9s %-12s %-44s %.9g against %.9g      %s\n", "slope", "loss", "interpreter's gradient, central difference", slope, measured, error < 1e-4 ? "ok" : "FAILS");
    return error < 1e-4;
}

/* Those of the program's variants that can run here, the best first. */
static int variants_here(const hd_model *m, const hd_model **variant)
{
    int count = 0;
    if (m->better) count = variants_here(m->better, variant);
    if (m->target->level <= hd_cpu_level()) variant[count++] = m;
    else if (m->part) printf("%s: not compared, as this processor lacks some of its instructions\n", m->target->name);
    return count;
}

/* What a program makes of an entry, beside the interpreter's values of the same. */
typedef struct comparison {
    const hd_options *o;
    const char *program, *folder, *in, *weights;       /* weights: their file, NULL when there are none */
    int sources; const source *source;
    double **gradient, largest_gradient;                /* by source; NULL where the loss has none */
} comparison;

static bool compare_entry(const comparison *c, const hd_entry *e, const hd_eval *eval, const char *label, bool of_check)
{
    const char *out = hd_format("%s/out.safetensors", c->folder), *after = hd_format("%s/after.safetensors", c->folder);
    const char *argv[16] = { c->program, "run", e->name, "--in", c->in, "--out", out };
    int n = 7;
    if (c->weights) argv[n++] = "--weights", argv[n++] = c->weights;
    if (e->effects) argv[n++] = "--weights-out", argv[n++] = after;
    char *said = NULL;
    if (hd_run_program(argv, &said)) hd_fail((hd_where){ c->o->spec, 0 }, "the program made for the check failed: %s", said);
    double largest = 0;      /* an output that is zero but for rounding is compared with the entry's others */
    for (int k = 0; k < e->outputs; k++) largest = fmax(largest, largest_of(hd_elements(&e->output[k].node->shape), eval->value[e->output[k].node->id]));
    bool fine = true;
    for (int k = 0; k < e->outputs; k++) {
        const hd_tensor_data t = hd_tensor_file_read(out, e->output[k].name);
        for (int64_t x = 0; t.dtype == HD_I32 && x < hd_elements(&t.shape); x++) ((float *)t.data)[x] = (float)((const int32_t *)t.data)[x];
        const int kind = strncmp(e->output[k].name, "gradient.", 9) && strcmp(e->name, "backward") ? OUTPUT : GRADIENT;
        const bool rounding = largest_of(hd_elements(&t.shape), eval->value[e->output[k].node->id]) < 1e-5 * largest;
        fine &= compare(kind, label, e->output[k].name, hd_elements(&t.shape), t.data, eval->value[e->output[k].node->id], NULL, of_check ? 1e-3 * c->largest_gradient : rounding ? largest : 0, c->o->tolerance);
    }
    for (int k = 0; e->effects && k < c->sources; k++) {
        const source *s = &c->source[k];
        if (s->node->op != HD_OP_param) continue;
        const hd_tensor_data t = hd_tensor_file_read(after, s->node->name);
        for (int64_t x = 0; c->gradient[k] && x < hd_elements(&t.shape); x++)
            if (fabs(c->gradient[k][x]) <= zero_share * c->largest_gradient) ((float *)t.data)[x] = (float)eval->value[s->node->id][x];
        fine &= compare(STEP, label, s->node->name, hd_elements(&t.shape), t.data, eval->value[s->node->id], s->value, 0, c->o->tolerance);
    }
    return fine;
}

static bool decodes(const hd_graph *g, const hd_node *input)
{
    for (int i = 0; i < g->entries; i++)
        for (int k = 0; g->entry[i]->decodes && k < g->entry[i]->inputs; k++) if (g->entry[i]->input[k] == input) return true;
    return false;
}

/* Runs prefill or step on `count` tokens of each stream and compares its logits with what the interpreter's forward pass has there. */
static bool compare_decoding(const comparison *c, const hd_graph *g, const hd_entry *e, const char *label, const source *tokens, const double *logits, int64_t count)
{
    const bool steps = e == g->decoding->step;
    const int64_t streams = steps ? g->decoding->streams : 1, ahead = g->predicts_same ? 0 : 1;
    const char *in = hd_format("%s/decode.safetensors", c->folder), *out = hd_format("%s/out.safetensors", c->folder);
    int32_t *ids = HD_NEW_ARRAY(int32_t, streams * count);
    for (int64_t s = 0; s < streams; s++) memcpy(ids + s * count, (const int32_t *)tokens->stored + s % g->batch * g->length, sizeof *ids * (size_t)count);
    const hd_tensor_data t = { "tokens", HD_I32, { 2, { streams, count } }, ids };
    hd_tensor_file_write(in, 1, &t);
    const char *argv[] = { c->program, "run", e->name, "--in", in, "--out", out, c->weights ? "--weights" : NULL, c->weights, NULL };
    char *said = NULL;
    if (hd_run_program(argv, &said)) hd_fail((hd_where){ c->o->spec, 0 }, "the program made for the check failed: %s", said);
    const hd_tensor_data got = hd_tensor_file_read(out, "logits");
    const int64_t rows = steps ? count : 1;
    double *want = HD_NEW_ARRAY(double, streams * rows * g->vocab);
    for (int64_t s = 0; s < streams; s++)
        memcpy(want + s * rows * g->vocab, logits + (s % g->batch * g->length + (steps ? 0 : count - ahead)) * g->vocab, sizeof *want * (size_t)(rows * g->vocab));
    return compare(OUTPUT, label, steps ? hd_format("logits of %lld steps", (long long)count) : hd_format("logits after %lld tokens", (long long)count), streams * rows * g->vocab, got.data, want, NULL, 0, c->o->tolerance);
}

/* Decoding against the forward pass: every position by steps, and prefill of some numbers of tokens. */
static bool check_decoding(const comparison *c, const hd_graph *g, const char *variant)
{
    enum { MOST_STEPS = 600 };
    if (!g->decoding) {
        if (g->no_decoding) printf("%-9s %-12s not there: %s\n", "output", "step", g->no_decoding);
        return true;
    }
    const hd_entry *forward = NULL;
    for (int i = 0; i < g->entries; i++) if (!strcmp(g->entry[i]->name, "forward")) forward = g->entry[i];
    const source *tokens = NULL;
    hd_eval *eval = hd_eval_new(g);
    for (int k = 0; k < c->sources; k++) {
        hd_eval_set(eval, c->source[k].node, c->source[k].value);
        if (c->source[k].node == forward->input[0]) tokens = &c->source[k];
    }
    hd_eval_entry(eval, forward);
    const double *logits = eval->value[forward->output[0].node->id];
    const int64_t most = g->length - (g->predicts_same ? 1 : 0), chunk = g->decoding->chunk, counts[] = { 1, chunk - 1, chunk, chunk + 1, 2 * chunk + 1, most };
    bool fine = compare_decoding(c, g, g->decoding->step, hd_format("step%s", variant), tokens, logits, g->length < MOST_STEPS ? g->length : MOST_STEPS);
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
        bool known = counts[i] < 1 || counts[i] > most;
        for (unsigned k = 0; k < i; k++) known = known || counts[k] == counts[i];
        if (!known) fine &= compare_decoding(c, g, g->decoding->prefill, hd_format("prefill%s", variant), tokens, logits, counts[i]);
    }
    hd_eval_free(eval);
    return fine;
}

int hd_command_check(const hd_options *given)
{
    hd_options o = *given;
    const hd_model *m = hd_compile(&o, true, add_gradients), *variant[4];
    const int variants = variants_here(m, variant);
    if (!variants) hd_fail((hd_where){ "--target", 0 }, "this processor lacks instructions of %s, so its program cannot run here", o.target->name);
    const hd_graph *g = m->graph;
    const char *folder = hd_temporary_folder();
    const char *program = hd_format("%s/checked", folder);
    hd_files_write(m, folder);
    hd_cc_program(&o, m, folder, program);

    source *s = HD_NEW_ARRAY(source, g->nodes);
    int sources = 0;
    hd_tensor_data *inputs = HD_NEW_ARRAY(hd_tensor_data, g->nodes), *weights = HD_NEW_ARRAY(hd_tensor_data, g->nodes);
    int input_count = 0, weight_count = 0;
    for (int i = 0; i < g->nodes; i++) {
        hd_node *n = g->node[i];
        if (n->op != HD_OP_input && !(n->op == HD_OP_param && n->attr.param.role == HD_WEIGHT)) continue;
        if (n->op == HD_OP_input && decodes(g, n)) continue;
        s[sources] = random_source(g, n, 1);
        const hd_tensor_data t = { n->name, n->dtype, n->shape, s[sources].stored };
        if (n->op == HD_OP_input) inputs[input_count++] = t;
        else weights[weight_count++] = t;
        sources++;
    }
    const char *in = hd_format("%s/in.safetensors", folder), *w = hd_format("%s/w.safetensors", folder);
    hd_tensor_file_write(w, weight_count, weights);

    bool fine = true;
    /* An op-level backward takes what its forward gave; its inputs of those names come from the interpreter. */
    for (int i = 0; i < g->entries; i++) {
        const hd_entry *e = g->entry[i];
        if (e->decodes) continue;
        hd_eval *eval = hd_eval_new(g);
        for (int k = 0; k < sources; k++) hd_eval_set(eval, s[k].node, s[k].value);
        hd_eval_entry(eval, e);
        for (int k = 0; k < e->outputs; k++)
            for (int q = 0; q < sources; q++)
                if (s[q].node->op == HD_OP_input && !strcmp(s[q].node->name, e->output[k].name) && hd_same_shape(&s[q].node->shape, &e->output[k].node->shape))
                    for (int64_t x = 0; x < hd_elements(&s[q].node->shape); x++) ((float *)s[q].stored)[x] = (float)eval->value[e->output[k].node->id][x], s[q].value[x] = ((float *)s[q].stored)[x];
        hd_eval_free(eval);
    }
    hd_tensor_file_write(in, input_count, inputs);

    comparison c = { .o = &o, .program = program, .folder = folder, .in = in, .weights = weight_count ? w : NULL, .sources = sources, .source = s };
    c.gradient = HD_NEW_ARRAY(double *, sources);                                /* from the check's own entry */
    for (int pass = 0; pass < 2 * g->entries; pass++) {                          /* that entry first */
        const hd_entry *e = g->entry[pass % g->entries];
        if (e->decodes || (pass < g->entries) != !strcmp(e->name, "check_gradients")) continue;
        hd_eval *eval = hd_eval_new(g);
        for (int k = 0; k < sources; k++) hd_eval_set(eval, s[k].node, s[k].value);
        hd_eval_entry(eval, e);
        for (int k = 0; pass < g->entries && k < e->outputs; k++)
            for (int q = 0; q < sources; q++) {
                if (strcmp(s[q].node->name, e->output[k].name + strlen("gradient."))) continue;
                const int64_t count = hd_elements(&s[q].node->shape);
                c.gradient[q] = HD_NEW_ARRAY(double, count);
                memcpy(c.gradient[q], eval->value[e->output[k].node->id], sizeof(double) * (size_t)count);
                if (largest_of(count, c.gradient[q]) > c.largest_gradient) c.largest_gradient = largest_of(count, c.gradient[q]);
            }
        for (int v = 0; v < variants; v++) {
            setenv("HEDDLE_CPU", variant[v]->target->name, 1);
            fine &= compare_entry(&c, e, eval, m->better ? hd_format("%s v%d", e->name, variant[v]->target->level) : e->name, pass < g->entries);
        }
        hd_eval_free(eval);
    }
    for (int v = 0; v < variants; v++) {
        setenv("HEDDLE_CPU", variant[v]->target->name, 1);
        fine &= check_decoding(&c, g, m->better ? hd_format(" v%d", variant[v]->target->level) : "");
    }
    fine &= central_differences(g, sources, s);
    printf(fine ? "%s: compiled code agrees with the interpreter\n" : "%s: compiled code and interpreter DISAGREE\n", o.spec);
    return fine ? 0 : 1;
}
