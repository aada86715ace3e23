/* Files of `heddle pack` (runtime/app/packed.h): what tells them from other models' files, and what the header says of them. */
#include "write.h"
#include "../../runtime/app/packed.h"
#include <string.h>

static uint64_t hash_numbers(uint64_t key, int count, const int64_t *number)
{
    for (int i = 0; i < count; i++) {
        unsigned char bytes[8];
        for (int k = 0; k < 8; k++) bytes[k] = (unsigned char)((uint64_t)number[i] >> 8 * k);
        key = hd_hash(bytes, 8, key);
    }
    return key;
}

uint64_t hd_weights_hash(const hd_model *m)
{
    uint64_t key = hash_numbers(0, 1, &m->weights_bytes);
    for (int i = 0; i < m->graph->nodes; i++) {
        const hd_node *n = m->graph->node[i];
        if (n->op != HD_OP_param || n->attr.param.role != HD_WEIGHT) continue;
        key = hd_hash(n->name, strlen(n->name) + 1, key);
        key = hash_numbers(hash_numbers(key, n->shape.rank, n->shape.size), 1, &m->weight_offset[i]);
    }
    return key;
}

uint64_t hd_panels_hash(const hd_model *m)
{
    uint64_t key = hash_numbers(hd_weights_hash(m), 1, &m->packing.bytes);
    for (int i = 0; i < m->packing.count; i++) {
        const hd_panels *b = &m->packing.panels[i];
        const int64_t number[] = { b->of.buffer->offset + 4 * b->of.offset, b->packed.buffer->offset, b->k, b->n, b->ld, b->transposed, b->nr };
        key = hash_numbers(key, sizeof number / sizeof *number, number);
    }
    return key;
}

static uint64_t packed_at(const hd_model *m) { return hd_packed_page(HD_PACKED_HEADER_BYTES + (uint64_t)m->weights_bytes); }

void hd_emit_packed_prototype(hd_text *out, const hd_model *m)
{
    const char *name = m->kernels.prefix, *upper = hd_emit_upper(name);
    hd_text_add(out, "/* Weights in a file: heddle pack SPEC -o FILE --weights W, for this target. Mapped whole and read-only (mmap, MAP_PRIVATE), it is used\n"
                     " * in place and read from disk where it is first touched; any number of processes share it:\n"
                     " *   memory.weights = (char *)file + %s_FILE_WEIGHTS;%s\n", upper, m->packing.bytes ? hd_format("  memory.packed = (char *)file + %s_FILE_PACKED;", upper) : "");
    hd_text_add(out, " * A file in use is replaced by renaming another over it, never by writing into it. %s_check_packed looks at its first page only and\n"
                     " * returns HD_OK or HD_ERROR_FILE, _FILE_MODEL, _FILE_TARGET (then %s_pack makes the panels) or _FILE_BYTES. */\n", name, name);
    hd_text_add(out, "#define %s_FILE_WEIGHTS ((size_t)%d)\n#define %s_FILE_PACKED ((size_t)%llu)\n#define %s_FILE_BYTES ((size_t)%llu)\n"
                     "%s_API int %s_check_packed(const void *file, size_t bytes);\n\n", upper, HD_PACKED_HEADER_BYTES, upper, (unsigned long long)packed_at(m), upper,
                (unsigned long long)(packed_at(m) + (uint64_t)m->packing.bytes), upper, name);
}

void hd_emit_packed_check(hd_text *out, const hd_model *m)
{
    const char *upper = hd_emit_upper(m->kernels.prefix);
    uint64_t magic = 0;
    for (int i = 0; i < 8; i++) magic |= (uint64_t)(unsigned char)HD_PACKED_MAGIC[i] << 8 * i;
    hd_text_add(out, "/* The header: \"%s\", version, hashes of both layouts, then where both areas lie and the file's length; 64-bit numbers, little-endian. */\n"
                     "int %s_check_packed(const void *file, size_t bytes)\n{\n    const uint64_t *const h = (const uint64_t *)file;\n", HD_PACKED_MAGIC, m->kernels.prefix);
    hd_text_add(out, "    if (!file || (uintptr_t)file %% 64 || bytes < %s_FILE_WEIGHTS || h[0] != UINT64_C(0x%016llx) || h[1] != %d) return HD_ERROR_FILE;\n", upper, (unsigned long long)magic, HD_PACKED_VERSION);
    hd_text_add(out, "    if (h[2] != UINT64_C(0x%016llx)) return HD_ERROR_FILE_MODEL;\n", (unsigned long long)hd_weights_hash(m));
    hd_text_add(out, "    if (bytes < %s_FILE_PACKED || h[8] != bytes || h[4] != %s_FILE_WEIGHTS || h[5] != %s_WEIGHTS_BYTES || h[6] != %s_FILE_PACKED || h[7] != h[8] - h[6]) return HD_ERROR_FILE_BYTES;\n", upper, upper, upper, upper);
    hd_text_add(out, "    return h[3] != UINT64_C(0x%016llx) || h[8] != %s_FILE_BYTES ? HD_ERROR_FILE_TARGET : HD_OK;\n}\n\n", (unsigned long long)hd_panels_hash(m), upper);
}
