/* Weights of the model (weights.h). */
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/hd_random.h"

static float *at(const void *area, const hd_weight *weight) { return (float *)(uintptr_t)((const unsigned char *)area + weight->offset); }

enum { INIT_SLOT = 1 << 12 };        /* elements */
typedef struct init_job { const hd_weight *weight; float *out; int64_t elements; uint64_t seed, name; } init_job;

static void init_slot(void *argument, int slot, int thread)
{
    const init_job *job = argument;
    int64_t first = (int64_t)slot * INIT_SLOT, last = first + INIT_SLOT < job->elements ? first + INIT_SLOT : job->elements;
    (void)thread;
    for (int64_t e = first; e < last; e++) job->out[e] = (float)hd_init_value(job->weight->init, job->weight->scale, job->seed, job->name, (uint64_t)e);
}

void hd_weights_initialise(void *area, uint64_t seed, const hd_threads *threads)
{
    for (int i = 0; i < hd_model.weights; i++) {
        const hd_weight *weight = &hd_model.weight[i];
        init_job job = { weight, at(area, weight), hd_app_elements(weight->rank, weight->size), seed, hd_random_name(weight->name) };
        threads->run(threads->context, init_slot, &job, (int)((job.elements + INIT_SLOT - 1) / INIT_SLOT));
    }
}

/* What checkpoints of the network under its head lack, and others have. */
static const char *const hub_prefix[] = { "transformer.", "model.", "gpt_neox." };

static const hd_st_tensor *find(const hd_safetensors *file, const char *prefix, const char *name)
{
    char *text = hd_app_alloc(strlen(prefix) + strlen(name) + 16);
    strcat(strcpy(text, prefix), name);
    const hd_st_tensor *tensor = hd_safetensors_find(file, text);
    for (size_t i = 0; !tensor && i < sizeof hub_prefix / sizeof hub_prefix[0]; i++) {
        const size_t length = strlen(hub_prefix[i]);
        if (strncmp(name, hub_prefix[i], length) == 0) strcat(strcpy(text, prefix), name + length);
        else strcat(strcat(strcpy(text, prefix), hub_prefix[i]), name);
        tensor = hd_safetensors_find(file, text);
    }
    free(text);
    return tensor;
}

/* Tensors that hub checkpoints carry although no model reads them as weights. */
static bool known_buffer(const char *name)
{
    static const char *const ends[] = { ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq", "lm_head.weight", "embed_out.weight" };
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t end = strlen(ends[i]);
        if (length >= end && strcmp(name + length - end, ends[i]) == 0) return true;
    }
    return false;
}

enum { NAMED = 3 };                  /* of many mismatches, the first few tell what kind they are */

static _Noreturn void fail_missing(const hd_safetensors *file, const char *prefix)
{
    const char *list = "", *other = hd_safetensors_meta(file, "model");
    int missing = 0;
    for (int i = 0; i < hd_model.weights; i++) {
        const hd_weight *weight = &hd_model.weight[i];
        if (find(file, prefix, weight->name)) continue;
        if (missing < NAMED) list = hd_app_text("%s%s '%s%s' %s", list, missing ? "," : "", prefix, weight->name, hd_app_shape(weight->rank, weight->size));
        missing++;
    }
    if (other && strcmp(other, hd_model.name) != 0) list = hd_app_text("%s; it is of model %s", list, other);
    hd_app_fail("%s: %d of the %d tensors of model %s missing:%s", file->path, missing, hd_model.weights, hd_model.name, list);
}

const hd_st_tensor **hd_weights_match(const hd_safetensors *file, const char *prefix)
{
    const hd_st_tensor **found = hd_app_alloc((size_t)hd_model.weights * sizeof *found);
    bool *used = hd_app_alloc((size_t)file->count * sizeof *used);
    for (int i = 0; i < hd_model.weights; i++) {
        const hd_weight *weight = &hd_model.weight[i];
        if (!(found[i] = find(file, prefix, weight->name))) fail_missing(file, prefix);
        hd_safetensors_check_f32(found[i], weight->rank, weight->size);
        used[found[i] - file->tensor] = true;
    }
    int surplus = 0;
    const char *list = "";
    for (int i = 0; i < file->count && !*prefix; i++)
        if (!used[i] && !known_buffer(file->tensor[i].name)) {
            if (surplus < NAMED) list = hd_app_text("%s%s '%s'", list, surplus ? "," : "", file->tensor[i].name);
            surplus++;
        }
    if (surplus) hd_app_fail("%s: %d tensors are not of model %s:%s", file->path, surplus, hd_model.name, list);
    free(used);
    return found;
}

void hd_weights_copy(const hd_st_tensor *const *found, void *area)
{
    for (int i = 0; i < hd_model.weights; i++) hd_safetensors_read_f32(found[i], hd_model.weight[i].rank, hd_model.weight[i].size, at(area, &hd_model.weight[i]));
}

void hd_weights_read(const hd_safetensors *file, const char *prefix, void *area)
{
    const hd_st_tensor **found = hd_weights_match(file, prefix);
    hd_weights_copy(found, area);
    free(found);
}

void hd_weights_warn(const char *path, const char *tensor) { fprintf(stderr, "warning: %s: tensor '%s' holds values that are not finite\n", path, tensor); }

void hd_weights_load(const char *path, void *area)
{
    hd_safetensors *file = hd_safetensors_open(path);
    hd_weights_read(file, "", area);
    hd_safetensors_close(file);
    const char *bad = hd_weights_not_finite(area);
    if (bad) hd_weights_warn(path, bad);
}

int hd_weights_items(hd_st_item *item, const char *prefix, const void *area)
{
    for (int i = 0; i < hd_model.weights; i++) {
        const hd_weight *weight = &hd_model.weight[i];
        const char *name = *prefix ? hd_app_text("%s%s", prefix, weight->name) : weight->name;
        item[i] = (hd_st_item){ name, HD_ST_F32, weight->rank, weight->size, at(area, weight) };
    }
    return hd_model.weights;
}

void hd_weights_save(const char *path, const void *area, const hd_st_meta *meta, int metas)
{
    hd_st_item *item = hd_app_alloc((size_t)hd_model.weights * sizeof *item);
    hd_weights_items(item, "", area);
    hd_safetensors_write(path, item, hd_model.weights, meta, metas);
    free(item);
}

const char *hd_weights_not_finite(const void *area)
{
    for (int i = 0; i < hd_model.weights; i++) {
        const hd_weight *weight = &hd_model.weight[i];
        int64_t elements = hd_app_elements(weight->rank, weight->size);
        const float *value = at(area, weight);
        for (int64_t e = 0; e < elements; e++)
            if (!(value[e] - value[e] == 0.0f)) return weight->name;
    }
    return NULL;
}
