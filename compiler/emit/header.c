/* MODEL.h: the whole interface of a model, for those who read nothing else. */
#include "write.h"
#include "../tune/tune.h"
#include <limits.h>
#include <string.h>

void hd_emit_constant(hd_text *out, const char *name, int64_t value, const char *comment)
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

static const char conduct[] =
    " * Memory. The caller owns every byte, as blocks aligned to 64 bytes of the sizes below, named in a %s_memory. Nothing is allocated,\n"
    " * printed, or kept between calls; there is no state but what these blocks hold, and no clean-up. All may be freed or copied between calls.\n"
    " * Threads. Functions are re-entrant: any number of threads may call at once, as long as none writes what another uses. Weights and packed\n"
    " * weights can be shared by all callers of entries that do not train; each call in flight needs a scratch (and a cache, a state) of its own.\n"
    " * Inside a call, work is spread over the threads lent to it. Results are the same bits for any number of them.\n"
    " * Errors. Functions return HD_OK, or a negative hd_error before they have written anything. Only a cancelled call has: its outputs, its\n"
    " * gradients (begin the step again with hyper accumulate = 0) and what pack was writing are then unfinished, weights and moments as before.\n"
    " * Cancelling. Any thread may set *memory->cancel (by an atomic store; a signal handler, too): the call returns HD_CANCELLED within about a\n"
    " * layer's time. A training step that has begun to change the weights ends as usual. The flag is only read; the caller clears it.\n */\n";

/* Shared by all models that a program includes, as in runtime/core/hd_core.h. */
static const char shared[] =
    "\n/* What the functions below return. Shared by all models of a program, as is hd_threads. */\n"
    "#ifndef HD_ERRORS_DEFINED\n#define HD_ERRORS_DEFINED\nenum hd_error {\n"
    "    HD_OK = 0,\n"
    "    HD_ERROR_THREADS = -1,         /* threads->count is below 1 */\n"
    "    HD_ERROR_SCRATCH = -2,         /* scratch is missing or not aligned to 64 bytes */\n"
    "    HD_ERROR_SCRATCH_BYTES = -3,   /* scratch_bytes is less than this entry needs with so many threads */\n"
    "    HD_ERROR_MEMORY = -4,          /* weights, state, packed or cache is needed, and missing or not aligned to 64 bytes */\n"
    "    HD_ERROR_CACHE = -5,           /* the cache was not started, or is another model's */\n"
    "    HD_ERROR_POSITIONS = -6,       /* the sequence has no position left */\n"
    "    HD_ERROR_ARGUMENT = -7,        /* an argument is missing or out of range: a count, a stream, a token id */\n"
    "    HD_CANCELLED = -8,             /* *memory->cancel was set: the call ended early */\n"
    "    HD_ERROR_FILE = -9,            /* no file of heddle pack, one of another version, or not at a 64-byte boundary */\n"
    "    HD_ERROR_FILE_MODEL = -10,     /* packed weights of another model */\n"
    "    HD_ERROR_FILE_TARGET = -11,    /* packed weights for another target: its weights can be used, its panels cannot */\n"
    "    HD_ERROR_FILE_BYTES = -12      /* the file of packed weights is not whole */\n"
    "};\n#endif\n"
    "\n/* Threads, lent by the caller; NULL wherever it is taken: the calling thread alone. An application's own pool serves as well as the one in\n"
    " * these files: run calls task(argument, slot, thread) once for every slot in [0, slots), in any order, at most `count` at a time, each of\n"
    " * these with another thread < count, and returns when all have returned. */\n"
    "#ifndef HD_THREADS_DEFINED\n#define HD_THREADS_DEFINED\ntypedef struct hd_threads {\n    void *context;\n    int count;\n"
    "    void (*run)(void *context, void (*task)(void *argument, int slot, int thread), void *argument, int slots);\n} hd_threads;\n#endif\n\n";

void hd_emit_header(hd_model *m)
{
    const hd_graph *g = m->graph;
    const char *up = hd_emit_upper(m->kernels.prefix);
    hd_text out = { 0 };
    const char *tuned = hd_tuning_note(m->kernels.tuning);
    hd_text_add(&out, "/* %s.h: %s%s%s\n *\n", m->kernels.prefix, hd_emit_banner(m, "The whole interface of one model."), *tuned ? "\n * " : "", tuned);
    hd_text_add(&out, conduct, m->kernels.prefix);
    hd_text_add(&out, "#ifndef HEDDLE_%s_H\n#define HEDDLE_%s_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n", up, up);
    if (g->length) hd_emit_constant(&out, hd_format("%s_LENGTH", up), g->length, "positions of one sequence");
    if (g->vocab) hd_emit_constant(&out, hd_format("%s_VOCAB", up), g->vocab, "token ids are 0 .. VOCAB - 1");
    if (g->batch) hd_emit_constant(&out, hd_format("%s_BATCH", up), g->batch, "sequences of one call");
    hd_emit_constant(&out, hd_format("%s_WEIGHTS_BYTES", up), m->weights_bytes, "weights, laid out as in the table below");
    hd_emit_constant(&out, hd_format("%s_PACKED_BYTES", up), m->packing.bytes, hd_format("weights as entries that do not train read them: %s_pack", m->kernels.prefix));
    hd_emit_constant(&out, hd_format("%s_STATE_BYTES", up), m->state_bytes, "gradients and moments; entries that train need it");
    hd_emit_decode_constants(&out, m);
    int64_t scratch = 0, local = 0;
    for (int i = 0; i < m->programs; i++) {
        const hd_program *p = m->program[i];
        const char *entry = hd_emit_upper(p->entry->name);
        hd_emit_constant(&out, hd_format("%s_%s_SCRATCH_BYTES", up, entry), p->scratch_bytes, hd_format("scratch of %s, to which", hd_comment(p->entry->name)));
        hd_emit_constant(&out, hd_format("%s_%s_THREAD_BYTES", up, entry), p->local_bytes, "this is added for each thread");
        if (p->scratch_bytes > scratch) scratch = p->scratch_bytes;
        if (p->local_bytes > local) local = p->local_bytes;
    }
    hd_emit_constant(&out, hd_format("%s_SCRATCH_BYTES", up), scratch, "enough for any entry, plus");
    hd_emit_constant(&out, hd_format("%s_THREAD_BYTES", up), local, "this for each thread");
    hd_text_add(&out, "%s", shared);
    hd_text_add(&out, "#ifndef %s_API          /* what a library exports, whatever -fvisibility says; define it as nothing to keep the model to yourself */\n"
                      "#if defined(__GNUC__)\n#define %s_API __attribute__((visibility(\"default\")))\n#else\n#define %s_API\n#endif\n#endif\n\n", up, up, up);
    const char *name = m->kernels.prefix;
    hd_text_add(&out, "typedef struct %s_memory {\n"
                      "    void *weights;          /* %s_WEIGHTS_BYTES, laid out as below; written only by entries that train */\n"
                      "    void *state;            /* %s_STATE_BYTES, zeroed before the first step; NULL for entries that do not train */\n"
                      "    void *scratch;          /* an entry's SCRATCH_BYTES + threads * its THREAD_BYTES; contents never matter between calls */\n"
                      "    void *packed;           /* %s_PACKED_BYTES, written by %s_pack only; NULL for entries that do not read it */\n"
                      "    void *cache;            /* %s; NULL for entries that do not read it */\n"
                      "    size_t scratch_bytes;   /* what scratch points to */\n"
                      "    const volatile int *cancel;      /* NULL, or a flag that ends the call when it is not 0 */\n"
                      "} %s_memory;\n\n", name, up, up, up, name, g->decoding ? hd_format("%s_CACHE_BYTES, keys and values of sequences being decoded: %s_start", up, name) : "keys and values of sequences being decoded; this model cannot", name);
    hd_text_add(&out, "/* What a returned number means, as text in English: \"the scratch memory is too small\". */\n%s_API const char *%s_error(int error);\n\n", up, name);
    hd_text_add(&out, "/* %s\n%s_API int %s_pack(const %s_memory *memory, const hd_threads *threads);\n\n",
                m->packing.bytes ? "pack\n * Fills memory->packed from memory->weights; needs no other member. To be called once after weights were loaded or changed,\n"
                                   " * before entries that read packed weights. One packed copy serves any number of callers at once.\n */"
                                 : "pack\n * No entry of this model reads packed weights: there is nothing to do, and memory->packed may be NULL.\n */", up, m->kernels.prefix, m->kernels.prefix);
    for (int i = 0; i < m->programs; i++) {
        const hd_entry *e = m->program[i]->entry;
        if (e->decodes) continue;
        hd_text_add(&out, "/* %s\n", hd_comment(e->name));
        for (int k = 0; k < e->inputs; k++) hd_text_add(&out, " *   %-14s in   %s %s\n", hd_emit_argument(e, k), e->input[k]->dtype == HD_I32 ? "int32" : "float", dims(&e->input[k]->shape));
        for (int k = 0; k < e->outputs; k++) hd_text_add(&out, " *   %-14s out  %s %s\n", hd_emit_argument(e, e->inputs + k), e->output[k].node->dtype == HD_I32 ? "int32" : "float", dims(&e->output[k].node->shape));
        if (hd_emit_trains(e))
            hd_text_add(&out, " *   Changes weights and state. hyper: learning rate, beta1, beta2, epsilon, decay, clip (0: off), 1 - beta1^t, 1 - beta2^t, the factor of the\n"
                              " *   gradients (1 / calls per step), accumulate (0 in the first call of a step, then 1), update (1 in the last call of a step, else 0), zeros.\n");
        for (int k = 0; k < e->inputs; k++)
            if (e->input[k]->dtype == HD_I32 && !strcmp(e->input[k]->name, "random")) hd_text_add(&out, " *   random: seed and number of the step, which decide what dropout leaves out; zeros.\n");
        if (m->program[i]->reads_packed) hd_text_add(&out, " *   Reads packed weights: %s_pack comes first.\n", m->kernels.prefix);
        if (e->causal) hd_text_add(&out, " *   sequences, used: the leading sequences, and positions of each, that matter; 0: all. Outputs beyond them are not to be read.\n");
        hd_text_add(&out, " */\n%s_API ", up);
        hd_emit_prototype(&out, m, e);
        hd_text_add(&out, ";\n\n");
    }
    hd_emit_decode_header(&out, m);
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
    hd_text_add(&out, " */\n\n");
    if (m->weights_bytes) hd_emit_packed_prototype(&out, m);
    hd_text_add(&out, "#ifdef __cplusplus\n}\n#endif\n#endif\n");
    hd_emit_file(m, hd_format("%s.h", m->kernels.prefix), out.data, true);
}
