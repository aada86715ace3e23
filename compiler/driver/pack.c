/* Weights of builds, and heddle pack. */
#include "driver.h"
#include "weights.h"
#include <string.h>
#include <sys/stat.h>

static hd_weights_layout layout_of(const hd_model *m, bool panels)
{
    hd_weights_layout layout = { .graph = m->graph, .target = m->target->name, .offset = m->weight_offset, .weights_bytes = m->weights_bytes,
                                 .weights_hash = hd_weights_hash(m), .panels_hash = hd_panels_hash(m) };
    if (!panels) return layout;
    layout.packed_bytes = m->packing.bytes, layout.matrices = m->packing.count, layout.matrix = HD_NEW_ARRAY(hd_packed_matrix, m->packing.count);
    for (int i = 0; i < m->packing.count; i++) {
        const hd_panels *b = &m->packing.panels[i];
        layout.matrix[i] = (hd_packed_matrix){ b->of.buffer->offset + 4 * b->of.offset, b->packed.buffer->offset, b->k, b->n, b->ld, b->transposed, b->nr };
    }
    return layout;
}

/* --weights, or else those in the checkpoint folder that the spec is; NULL: none. */
static const char *source(const hd_options *o)
{
    struct stat s;
    if (o->weights) return o->weights;
    return !stat(o->spec, &s) && S_ISDIR(s.st_mode) && hd_weights_in_folder(o->spec) ? o->spec : NULL;
}

void hd_build_weights(const hd_options *o, const hd_model *m, const char *folder)
{
    const char *path = source(o);
    if (o->embed && !path) hd_fail((hd_where){ "--embed", 0 }, "no weights to put into the program: name them with --weights W (a safetensors file or a checkpoint folder)");
    if (!path) return;
    const hd_weights_layout layout = layout_of(m, m->own_packed);
    if (m->own_weights) hd_weights_object(&layout, path, hd_format("%s/%s_weights.o", folder, m->graph->name));
    else hd_weights_check(&layout, path);
}

int hd_command_pack(const hd_options *o)
{
    struct stat s;
    if (!o->out) hd_fail((hd_where){ 0 }, "pack needs -o FILE");
    if (!stat(o->out, &s) && !S_ISREG(s.st_mode)) hd_fail((hd_where){ o->out, 0 }, "is no regular file; give the packed file's name");
    if (*o->target->better) hd_fail((hd_where){ "--target", 0 }, "a packed file is for one of its variants: x86-64-v4, x86-64-v3 or x86-64-v1");
    const char *path = source(o);
    if (!path) hd_fail((hd_where){ 0 }, "pack needs weights: --weights W, a safetensors file or a checkpoint folder");
    const hd_model *m = hd_compile(o, false, NULL);
    if (!m->weights_bytes) hd_fail((hd_where){ o->spec, 0 }, "model %s has no weights to pack", m->graph->name);
    const hd_weights_layout layout = layout_of(m, true);
    hd_weights_pack_file(&layout, path, o->out);
    return 0;
}
