/* What stands around the entries prefill and step: their part of the header, and the functions that keep the cache's books. */
#include "write.h"

#include "../passes/decode.h"

#define LL(x) ((long long)(x))

void hd_emit_decode_constants(hd_text *out, const hd_model *m)
{
    const hd_decoding *d = m->graph->decoding;
    const char *up = hd_emit_upper(m->kernels.prefix);
    if (!d) return;
    hd_emit_constant(out, hd_format("%s_STREAMS", up), d->streams, "sequences that one cache holds, and step continues");
    hd_emit_constant(out, hd_format("%s_PREFILL_CHUNK", up), d->chunk, "positions that prefill computes at once");
    hd_emit_constant(out, hd_format("%s_POSITIONS", up), d->positions, "the most positions of a stream; 0: no limit but 2^31 - 1");
    hd_emit_constant(out, hd_format("%s_CACHE_BYTES", up), d->cache_bytes, hd_format("keys and values of all streams; %.4f of what all keys of %lld positions need", (double)d->cache_bytes / (double)(d->dense_bytes ? d->dense_bytes : 1), LL(m->graph->length)));
}

void hd_emit_decode_header(hd_text *out, const hd_model *m)
{
    const hd_decoding *d = m->graph->decoding;
    const char *name = m->kernels.prefix, *up = hd_emit_upper(name);
    if (!d) return;
    const bool one = d->streams == 1;
    hd_text_add(out, "/* Decoding. memory->cache holds %s, each at a position of its own: how many of its positions were computed. Plain bytes: a copy\n"
                     " * of the block is a saved state, and may be continued elsewhere%s. The functions refuse a cache that another model made (HD_ERROR_CACHE).\n"
                     " * A cancelled call leaves its streams where the last finished chunk of positions ended%s. */\n\n",
                one ? "one sequence, its stream" : hd_format("%lld independent sequences, the streams", LL(d->streams)), one ? "" : ", all streams together", d->rewinds ? "" : "; prefill then empties its stream");
    hd_text_add(out, "/* Makes memory->cache the cache of %s. To be called once for the block, and writes its first %lld bytes only. */\n%s_API int %s_start(const %s_memory *memory);\n\n", one ? "one empty stream" : "empty streams", LL(d->header_bytes), up, name, name);
    hd_text_add(out, "/* How many positions of a stream were computed; or a negative hd_error. */\n%s_API int64_t %s_position(const %s_memory *memory, int stream);\n\n", up, name, name);
    hd_text_add(out, "/* Forgets what a stream computed at `position` and after it. %s */\n%s_API int %s_rewind(const %s_memory *memory, int stream, int64_t position);\n\n",
                d->rewinds ? "Any position up to the present one will do." : hd_format("HD_ERROR_POSITIONS where its keys are overwritten: 0, the position before the last,\n * and any while no more than %lld were computed are always possible.", LL(d->safe)), up, name, name);
    hd_text_add(out, "/* prefill\n *   tokens         in   int32 [count], which continue the stream; %s\n *   logits         out  float [%lld], for the token that follows\n"
                     " * HD_ERROR_POSITIONS, and nothing changed, where the stream has not as many positions left. */\n"
                     "%s_API int %s_prefill(const %s_memory *memory, const hd_threads *threads, int stream, const int32_t *tokens, int64_t count, float *logits);\n\n",
                m->graph->predicts_same ? "count 0 is possible at position 0" : "count is 1 or more", LL(m->graph->vocab), up, name, name);
    hd_text_add(out, "/* step\n *   tokens         in   int32 [%lld], %s\n *   logits         out  float [%lld][%lld], for the token that follows%s\n */\n"
                     "%s_API int %s_step(const %s_memory *memory, const hd_threads *threads, const int32_t *tokens, float *logits);\n\n",
                LL(d->streams), one ? "which continues the stream" : "one to continue each stream; -1: that stream rests", LL(d->streams), LL(m->graph->vocab),
                hd_format("%s%s", one ? "" : "; rows of streams at rest are not to be read", m->graph->predicts_same ? ";\n *                  at position 0 the token is not read: nothing comes before it" : ""), up, name, name);
}

void hd_emit_decode_functions(hd_text *out, const hd_model *m)
{
    const hd_graph *g = m->graph;
    const hd_decoding *d = g->decoding;
    const char *name = m->kernels.prefix;
    const bool same = g->predicts_same;
    const int64_t most = d ? d->positions ? d->positions : INT32_MAX : 0;
    if (!d) return;
    hd_text_add(out, "/* What the cache begins with; streams of %lld bytes follow at byte %lld. The identity is of the model and of the cache's layout. */\n"
                     "typedef struct streams { uint64_t identity; int64_t position[%lld]; } streams;\n#define IDENTITY UINT64_C(0x%016llx)\n\n", LL(d->stream_bytes), LL(d->header_bytes), LL(d->streams), (unsigned long long)d->identity);
    hd_text_add(out, "static int bad_cache(const %s_memory *memory)\n{\n    if (hd_bad_area(memory->cache)) return HD_ERROR_MEMORY;\n    return ((const streams *)memory->cache)->identity == IDENTITY ? HD_OK : HD_ERROR_CACHE;\n}\n\n", name);
    hd_text_add(out, "int %s_start(const %s_memory *memory)\n{\n    if (hd_bad_area(memory->cache)) return HD_ERROR_MEMORY;\n    *(streams *)memory->cache = (streams){ .identity = IDENTITY };\n    return HD_OK;\n}\n\n", name, name);
    hd_text_add(out, "int64_t %s_position(const %s_memory *memory, int stream)\n{\n    const int error = bad_cache(memory);\n    if (error) return error;\n"
                     "    return stream < 0 || stream >= %lld ? HD_ERROR_ARGUMENT : ((const streams *)memory->cache)->position[stream];\n}\n\n", name, name, LL(d->streams));
    hd_text_add(out, "int %s_rewind(const %s_memory *memory, int stream, int64_t position)\n{\n    const int64_t now = %s_position(memory, stream);\n    if (now < 0) return (int)now;\n"
                     "    if (position < 0 || position > now) return HD_ERROR_ARGUMENT;\n", name, name, name);
    if (!d->rewinds) hd_text_add(out, "    if (position != 0 && position < now - 1 && now > %lld) return HD_ERROR_POSITIONS;\n", LL(d->safe));
    hd_text_add(out, "    ((streams *)memory->cache)->position[stream] = position;\n    return HD_OK;\n}\n\n");

    hd_text_add(out, "int %s_prefill(const %s_memory *memory, const hd_threads *threads, int stream, const int32_t *tokens, int64_t count, float *logits)\n{\n"
                     "    const int64_t now = %s_position(memory, stream);\n    if (now < 0) return (int)now;\n", name, name, name);
    hd_text_add(out, "    if (count < %s || (count && !tokens) || !logits || hd_bad_ids(tokens, 1, count, 0, %lld)) return HD_ERROR_ARGUMENT;\n", same ? "(now ? 1 : 0)" : "1", LL(g->ids));
    hd_text_add(out, "    if (count > %lld - now%s) return HD_ERROR_POSITIONS;\n", LL(most), same ? " - !now" : "");
    hd_text_add(out, "    int64_t *const position = &((streams *)memory->cache)->position[stream];\n");
    if (same)
        hd_text_add(out, "    if (!now) {          /* the start, which stands before all tokens */\n        const int32_t none = 0, first = 0;\n"
                         "        const int error = %s_prefill_rows(memory, threads, stream, &none, &first, count ? NULL : logits, 1);\n        if (error) return error;\n        *position = 1;\n    }\n", name);
    hd_text_add(out, "    for (int64_t done = 0; done < count;) {\n        const int used = count - done < %lld ? (int)(count - done) : %lld;\n        const int32_t first = (int32_t)*position;\n"
                     "        const int error = %s_prefill_rows(memory, threads, stream, tokens + done, &first, done + used == count ? logits : NULL, used);\n", LL(d->chunk), LL(d->chunk), name);
    if (d->rewinds) hd_text_add(out, "        if (error) return error;\n");
    else hd_text_add(out, "        if (error) {\n            if (error == HD_CANCELLED) *position = 0;      /* keys may be overwritten that these positions read */\n            return error;\n        }\n");
    hd_text_add(out, "        *position += used, done += used;\n    }\n    return HD_OK;\n}\n\n");

    hd_text_add(out, "int %s_step(const %s_memory *memory, const hd_threads *threads, const int32_t *tokens, float *logits)\n{\n    const int wrong = bad_cache(memory);\n    if (wrong) return wrong;\n"
                     "    if (!tokens || !logits) return HD_ERROR_ARGUMENT;\n    int64_t *const position = ((streams *)memory->cache)->position;\n    int32_t id[%lld], first[%lld];\n", name, name, LL(d->streams), LL(d->streams));
    hd_text_add(out, "    for (int s = 0; s < %lld; s++) {\n        if (tokens[s] < %d || tokens[s] >= %lld) return HD_ERROR_ARGUMENT;\n        if (tokens[s] >= 0 && position[s] >= %lld) return HD_ERROR_POSITIONS;\n"
                     "        id[s] = tokens[s] < 0 ? 0 : tokens[s], first[s] = tokens[s] < 0 ? -1 : (int32_t)position[s];\n    }\n", LL(d->streams), d->streams > 1 ? -1 : 0, LL(g->ids), LL(most));
    hd_text_add(out, "    const int error = %s_step_rows(memory, threads, 0, id, first, logits, 1);\n    if (error) return error;\n"
                     "    for (int s = 0; s < %lld; s++) position[s] += tokens[s] >= 0;\n    return HD_OK;\n}\n\n", name, LL(d->streams));
}

/* The program's table of these functions; returns its name, or "NULL". */
const char *hd_emit_decode_info(hd_text *out, const hd_model *m)
{
    const hd_decoding *d = m->graph->decoding;
    const char *name = m->kernels.prefix;
    if (!d) return "NULL";
    static const struct { const char *result, *function, *parameters, *arguments; } function[] = {
        { "int", "start", "", "" },
        { "int", "rewind", ", int stream, int64_t position", ", stream, position" },
        { "int64_t", "position", ", int stream", ", stream" },
        { "int", "prefill", ", const hd_threads *threads, int stream, const int32_t *tokens, int64_t count, float *logits", ", threads, stream, tokens, count, logits" },
        { "int", "step", ", const hd_threads *threads, const int32_t *tokens, float *logits", ", threads, tokens, logits" },
    };
    for (unsigned i = 0; i < sizeof function / sizeof *function; i++)
        hd_text_add(out, "static %s decode_%s(const hd_memory *memory%s)\n{\n    const %s_memory own = own_memory(memory);\n    return %s_%s(&own%s);\n}\n\n", function[i].result, function[i].function, function[i].parameters, name, name, function[i].function, function[i].arguments);
    hd_text_add(out, "static const hd_decode_info decode = {\n    .streams = %lld, .chunk = %lld, .positions = %lld, .cache_bytes = %lld, .dense_cache_bytes = %lld,\n"
                     "    .start = decode_start, .rewind = decode_rewind, .position = decode_position, .prefill = decode_prefill, .step = decode_step,\n};\n\n",
                LL(d->streams), LL(d->chunk), LL(d->positions), LL(d->cache_bytes), LL(d->dense_bytes));
    return "&decode";
}
