/* Checkpoints (checkpoint.h). */
#include "checkpoint.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights.h"

#define SETTING(name, help, whole, low, high) { #name, help, whole, offsetof(hd_training_info, name), low, high }
const hd_setting hd_settings[HD_SETTINGS] = {
    SETTING(lr,      "learning rate", false, 0, 1e6),
    SETTING(min_lr,  "where the cosine ends, as a fraction of lr", false, 0, 1),
    SETTING(warmup,  "steps of linear warm-up (at most a quarter of the run)", true, 0, 1e12),
    SETTING(batch,   "sequences per step, a multiple of the compiled micro-batch", true, 1, 1e9),
    SETTING(beta1,   "AdamW: decay of the first moment", false, 0, 0.999999),
    SETTING(beta2,   "AdamW: decay of the second moment", false, 0, 0.99999999),
    SETTING(epsilon, "AdamW: added to the root of the second moment", false, 0, 1),
    SETTING(decay,   "AdamW: weight decay of tensors of two or more dimensions", false, 0, 1e3),
    SETTING(clip,    "largest norm of the gradient; 0: not clipped", false, 0, 1e30),
    SETTING(average, "weight averaging: decay of the running mean; 0: off", false, 0, 0.99999999),
};

void *hd_setting_at(hd_training_info *info, const hd_setting *setting) { return (char *)info + setting->offset; }

double hd_setting_value(const hd_training_info *info, const hd_setting *setting)
{
    const void *at = (const char *)info + setting->offset;
    return setting->whole ? (double)*(const int64_t *)at : *(const double *)at;
}

enum { META_MOST = 32, META_CHARS = 40 };
typedef struct metadata { hd_st_meta pair[META_MOST]; char text[META_MOST][META_CHARS]; int count; } metadata;

static void add(metadata *m, const char *key, const char *value) { m->pair[m->count++] = (hd_st_meta){ key, value }; }

static void add_real(metadata *m, const char *key, double value)
{
    snprintf(m->text[m->count], META_CHARS, "%.17g", value);
    add(m, key, m->text[m->count]);
}

static void add_whole(metadata *m, const char *key, int64_t value)
{
    snprintf(m->text[m->count], META_CHARS, "%lld", (long long)value);
    add(m, key, m->text[m->count]);
}

void hd_checkpoint_write_weights(const hd_trainer *t, const char *path)
{
    metadata m = { .count = 0 };
    add(&m, "format", "pt");         /* what other readers of the format look for */
    add(&m, "model", hd_model.name);
    add_whole(&m, "step", t->at.best_step);
    if (t->eval_spans) add_real(&m, "held_out_loss", t->at.best);
    add_real(&m, "average", t->settings.average);
    hd_weights_save(path, t->memory.best, m.pair, m.count);
}

static void *moments(const hd_trainer *t, int which) { return (char *)t->memory.state + hd_model.state_bytes / 3 * (size_t)which; }

void hd_checkpoint_write(const hd_trainer *t, const char *path)
{
    static hd_st_item *item;         /* names are made once */
    static int items;
    if (!item) {
        item = hd_app_alloc((size_t)hd_model.weights * 5 * sizeof *item);
        items += hd_weights_items(item + items, "weight.", t->memory.weights);
        items += hd_weights_items(item + items, "moment_1.", moments(t, 1));
        items += hd_weights_items(item + items, "moment_2.", moments(t, 2));
        if (hd_trainer_averaging(t)) items += hd_weights_items(item + items, "average.", t->memory.average);
        items += hd_weights_items(item + items, "best.", t->memory.best);
    }
    metadata m = { .count = 0 };
    add(&m, "model", hd_model.name);
    add_whole(&m, "step", t->at.step);
    add_whole(&m, "steps", t->at.steps);
    add_whole(&m, "seed", (int64_t)t->seed);
    add_real(&m, "held_out", t->held_out);
    add_whole(&m, "best_step", t->at.best_step);
    add_real(&m, "best", t->at.best);
    add_real(&m, "previous", t->at.previous);
    add_whole(&m, "rises", t->at.rises);
    add_whole(&m, "said_overfit", t->at.said_overfit);
    add_whole(&m, "data_digest", (int64_t)hd_data_digest(&t->data));
    for (int i = 0; i < HD_SETTINGS; i++) add_real(&m, hd_settings[i].name, hd_setting_value(&t->settings, &hd_settings[i]));
    char state[strlen(path) + sizeof ".state"];
    strcat(strcpy(state, path), ".state");
    hd_safetensors_write(state, item, items, m.pair, m.count);
    hd_checkpoint_write_weights(t, path);
}

static double need_number(const hd_safetensors *file, const char *key)
{
    const char *text = hd_safetensors_meta(file, key);
    char *end = NULL;
    double value = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end) hd_app_fail("%s: not a training state: '%s' is %s in its __metadata__", file->path, key, text ? "no number" : "missing");
    return value;
}

static int64_t need_whole(const hd_safetensors *file, const char *key)
{
    need_number(file, key);
    return strtoll(hd_safetensors_meta(file, key), NULL, 10);
}

static int64_t need_count(const hd_safetensors *file, const char *key, int64_t low)
{
    const int64_t value = need_whole(file, key), high = (int64_t)1e15;
    if (value < low || value > high)
        hd_app_fail("%s: '%s' is %lld in its __metadata__; possible: %lld to %lld", file->path, key, (long long)value, (long long)low, (long long)high);
    return value;
}

hd_safetensors *hd_checkpoint_open(hd_trainer *t, const char *path, uint64_t *data_digest)
{
    hd_safetensors *file = hd_safetensors_open(hd_app_text("%s.state", path));
    t->at.step = need_count(file, "step", 0);
    t->at.steps = need_count(file, "steps", 1);
    t->seed = (uint64_t)need_whole(file, "seed");
    t->held_out = need_number(file, "held_out");
    t->at.best_step = need_count(file, "best_step", 0);
    t->at.best = need_number(file, "best");
    t->at.previous = need_number(file, "previous");
    t->at.rises = need_count(file, "rises", 0);
    t->at.said_overfit = need_count(file, "said_overfit", 0) != 0;
    *data_digest = (uint64_t)need_whole(file, "data_digest");
    for (int i = 0; i < HD_SETTINGS; i++) {
        const hd_setting *s = &hd_settings[i];
        double value = need_number(file, s->name);
        if (!(value >= s->low && value <= s->high)) hd_app_fail("%s: '%s' is %g in its __metadata__; possible: %g to %g", file->path, s->name, value, s->low, s->high);
        if (s->whole) *(int64_t *)hd_setting_at(&t->settings, s) = (int64_t)value;
        else *(double *)hd_setting_at(&t->settings, s) = value;
    }
    if (!(t->held_out >= 0 && t->held_out < 1)) hd_app_fail("%s: 'held_out' is %g in its __metadata__; possible: 0 to below 1", file->path, t->held_out);
    return file;
}

void hd_checkpoint_read_areas(const hd_safetensors *file, hd_trainer *t)
{
    hd_weights_read(file, "weight.", t->memory.weights);
    hd_weights_read(file, "moment_1.", moments(t, 1));
    hd_weights_read(file, "moment_2.", moments(t, 2));
    hd_weights_read(file, "best.", t->memory.best);
    if (!hd_trainer_averaging(t)) return;
    bool was_averaging = need_number(file, "average") > 0;     /* switched on while resuming: the mean starts here */
    if (was_averaging) hd_weights_read(file, "average.", t->memory.average);
    else memcpy(t->memory.average, t->memory.weights, hd_model.weights_bytes);
}
