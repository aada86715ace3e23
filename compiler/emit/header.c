/* MODEL.h: the whole interface of a model, for those who read nothing else. */
#include "write.h"
#include "../tune/tune.h"
#include <limits.h>

static void constant(hd_text *out, const char *name, int64_t value, const char *comment)
{
    const char *text = value <= INT_MAX ? hd_format("enum { %s = %lld };", name, (long long)value) : hd_format("#define %s ((size_t)%lldu)", name, (long long)value);
    hd_text_add(out, "%-64s /* %s */\n", text, comment);
}

static const char *dims(const hd_shape *s)
{
    hd_text out = { 0 };
    hd_text_add(&out, "%s", "");
    for (int i = 0; i < s->rank; i++) hd_text_add(&out, "[%lld]", (long long)s->size[i]);
    return out.data;
}

void hd_emit_header(hd_model *m)
{
    const hd_graph *g = m->graph;
    const char *up = hd_emit_upper(m->kernels.prefix);
    hd_text out = { 0 };
    const char *tuned = hd_tuning_note(m->kernels.tuning);
    hd_text_add(&out, "/* %s.h: %s%s%s\n *\n", m->kernels.prefix, hd_emit_banner(m, "The whole interface of one model."), *tuned ? "\n * " : "", tuned);
    hd_text_add(&out,
        " * The caller owns every byte. Weights, packed weights, state and scratch are 64-byte aligned blocks of the sizes below; nothing is\n"
        " * allocated, printed or kept between calls. Functions are re-entrant: several threads may call at once, each with its own scratch\n"
        " * (and, for training, its own weights and state). Results are the same bits for any number of threads.\n"
        " * Every function returns 0, or -1 when threads->count is below 1, the scratch is not 64-byte aligned, or there are no packed weights\n"
        " * where they are read; then nothing was written.\n */\n");
    hd_text_add(&out, "#ifndef HEDDLE_%s_H\n#define HEDDLE_%s_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n", up, up);
    if (g->length) constant(&out, hd_format("%s_LENGTH", up), g->length, "positions of one sequence");
    if (g->vocab) constant(&out, hd_format("%s_VOCAB", up), g->vocab, "token ids are 0 .. VOCAB - 1");
    if (g->batch) constant(&out, hd_format("%s_BATCH", up), g->batch, "sequences of one call");
    constant(&out, hd_format("%s_WEIGHTS_BYTES", up), m->weights_bytes, "weights, laid out as in the table below");
    constant(&out, hd_format("%s_PACKED_BYTES", up), m->packing.bytes, hd_format("weights as entries that do not train read them: %s_pack", m->kernels.prefix));
    constant(&out, hd_format("%s_STATE_BYTES", up), m->state_bytes, "gradients and moments; entries that train need it");
    int64_t scratch = 0, local = 0;
    for (int i = 0; i < m->programs; i++) {
        const hd_program *p = m->program[i];
        const char *entry = hd_emit_upper(p->entry->name);
        constant(&out, hd_format("%s_%s_SCRATCH_BYTES", up, entry), p->scratch_bytes, hd_format("scratch of %s, to which", hd_comment(p->entry->name)));
        constant(&out, hd_format("%s_%s_THREAD_BYTES", up, entry), p->local_bytes, "this is added for each thread");
        if (p->scratch_bytes > scratch) scratch = p->scratch_bytes;
        if (p->local_bytes > local) local = p->local_bytes;
    }
    constant(&out, hd_format("%s_SCRATCH_BYTES", up), scratch, "enough for any entry, plus");
    constant(&out, hd_format("%s_THREAD_BYTES", up), local, "this for each thread");
    hd_text_add(&out,
        "\n/* Threads, lent by the caller; NULL wherever it is taken: the calling thread alone. Shared by all models of a program.\n"
        " * run calls task(argument, slot, thread) once for every slot in [0, slots), thread < count, and returns when all have returned. */\n"
        "#ifndef HD_THREADS_DEFINED\n#define HD_THREADS_DEFINED\ntypedef struct hd_threads {\n    void *context;\n    int count;\n"
        "    void (*run)(void *context, void (*task)(void *argument, int slot, int thread), void *argument, int slots);\n} hd_threads;\n#endif\n\n");
    hd_text_add(&out, "typedef struct %s_memory {\n    void *weights;      /* %s_WEIGHTS_BYTES; written only by entries that train */\n"
                      "    void *state;        /* %s_STATE_BYTES, zeroed before the first step; NULL for entries that do not train */\n"
                      "    void *scratch;      /* SCRATCH_BYTES + threads * THREAD_BYTES; contents never matter between calls */\n"
                      "    void *packed;       /* %s_PACKED_BYTES, written by %s_pack only; NULL for entries that do not read it */\n} %s_memory;\n\n", m->kernels.prefix, up, up, up, m->kernels.prefix, m->kernels.prefix);
    hd_text_add(&out, "/* %s\nint %s_pack(const %s_memory *memory, const hd_threads *threads);\n\n",
                m->packing.bytes ? "pack\n * Fills memory->packed from memory->weights; reads no other member. To be called once after weights were loaded or changed,\n"
                                   " * before entries that read packed weights. One packed copy serves any number of callers at once.\n */"
                                 : "pack\n * No entry of this model reads packed weights: there is nothing to do, and memory->packed may be NULL.\n */", m->kernels.prefix, m->kernels.prefix);
    for (int i = 0; i < m->programs; i++) {
        const hd_entry *e = m->program[i]->entry;
        hd_text_add(&out, "/* %s\n", hd_comment(e->name));
        for (int k = 0; k < e->inputs; k++) hd_text_add(&out, " *   %-14s in   %s %s\n", hd_emit_argument(e, k), e->input[k]->dtype == HD_I32 ? "int32" : "float", dims(&e->input[k]->shape));
        for (int k = 0; k < e->outputs; k++) hd_text_add(&out, " *   %-14s out  %s %s\n", hd_emit_argument(e, e->inputs + k), e->output[k].node->dtype == HD_I32 ? "int32" : "float", dims(&e->output[k].node->shape));
        if (hd_emit_trains(e))
            hd_text_add(&out, " *   Changes weights and state. hyper: learning rate, beta1, beta2, epsilon, decay, clip (0: off), 1 - beta1^t, 1 - beta2^t, the factor of the\n"
                              " *   gradients (1 / calls per step), accumulate (0 in the first call of a step, then 1), update (1 in the last call of a step, else 0), zeros.\n");
        if (m->program[i]->reads_packed) hd_text_add(&out, " *   Reads packed weights: %s_pack comes first.\n", m->kernels.prefix);
        if (e->causal) hd_text_add(&out, " *   sequences, used: the leading sequences, and positions of each, that matter; 0: all. Outputs beyond them are not to be read.\n");
        hd_text_add(&out, " */\n");
        hd_emit_prototype(&out, m, e);
        hd_text_add(&out, ";\n\n");
    }
    hd_text_add(&out, "/* The weights, by byte offset:\n");
    for (int i = 0; i < g->nodes; i++) {
        const hd_node *n = g->node[i];
        if (n->op == HD_OP_param && n->attr.param.role == HD_WEIGHT) hd_text_add(&out, " * %10lld  %s %s\n", (long long)m->weight_offset[i], hd_comment(n->name), dims(&n->shape));
    }
    if (m->packing.bytes) {
        hd_text_add(&out, " */\n\n/* The packed weights, by byte offset: a matrix [k][n], or [n][k] read as its transpose, as panels [ceil(n / p)][k][p] of floats, zeros\n"
                          " * beyond column n. Nothing in them is an address: a copy made elsewhere, or kept in a file, serves as well.\n");
        for (int i = 0; i < m->packing.count; i++) {
            const hd_panels *b = &m->packing.panels[i];
            hd_text_add(&out, " * %10lld  %s%s%s, k = %lld, n = %lld, p = %d\n", (long long)b->packed.buffer->offset, hd_comment(b->of.buffer->what),
                        b->of.offset ? hd_format(" from element %lld on", (long long)b->of.offset) : "", b->transposed ? " [n][k]" : " [k][n]", (long long)b->k, (long long)b->n, b->nr);
        }
    }
    hd_text_add(&out, " */\n\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
    hd_emit_file(m, hd_format("%s.h", m->kernels.prefix), out.data, true);
}
