/* The steps of training (trainer.h). */
#include "trainer.h"

#include <math.h>
#include <string.h>

#include "weights.h"

/* Evaluations pack the weights behind their scratch: steps do not read them, and change them anyway. */
static size_t loss_scratch(int threads) { return (hd_app_scratch_bytes(hd_app_entry("loss"), threads) + 63) / 64 * 64; }

int hd_train_areas(hd_area *area, hd_train_memory *memory, int threads, bool averaging)
{
    static hd_train_memory unused;
    if (!memory) memory = &unused;
    const hd_entry_info *step = hd_app_entry("train_step"), *loss = hd_app_entry("loss");
    size_t scratch_step = hd_app_scratch_bytes(step, threads), scratch_loss = loss_scratch(threads) + hd_app_packed_bytes(loss);
    size_t tensors_step = hd_app_tensors_bytes(step), tensors_loss = hd_app_tensors_bytes(loss);
    int count = 0;
    area[count++] = (hd_area){ "weights", hd_model.weights_bytes, &memory->weights };
    area[count++] = (hd_area){ "gradients and moments", hd_model.state_bytes, &memory->state };
    area[count++] = (hd_area){ "scratch", scratch_step > scratch_loss ? scratch_step : scratch_loss, &memory->scratch };
    area[count++] = (hd_area){ "inputs and outputs", tensors_step > tensors_loss ? tensors_step : tensors_loss, &memory->tensors };
    area[count++] = (hd_area){ "averages", averaging ? hd_model.weights_bytes : 0, &memory->average };
    area[count++] = (hd_area){ "best weights", hd_model.weights_bytes, &memory->best };
    return count;
}

bool hd_trainer_averaging(const hd_trainer *t) { return t->settings.average > 0; }
void *hd_trainer_result(const hd_trainer *t) { return hd_trainer_averaging(t) ? t->memory.average : t->memory.weights; }

void hd_trainer_bind(hd_trainer *t)
{
    const hd_entry_info *entry = hd_app_entry("train_step");
    t->entry = entry;
    t->tensor = hd_app_alloc((size_t)(entry->inputs + entry->outputs) * sizeof(void *));
    hd_app_bind_tensors(entry, t->memory.tensors, t->tensor);
    t->tokens = hd_app_need(entry, "tokens", false);
    t->targets = hd_app_need(entry, "targets", false);
    t->hyper = hd_app_need(entry, "hyper", false);
    t->random = hd_app_find(entry->input, entry->inputs, "random");
    t->loss = entry->inputs + hd_app_need(entry, "loss", true);
    t->norm = entry->inputs + hd_app_need(entry, "gradient_norm", true);
    hd_score_bind(&t->scorer, t->memory.tensors);     /* the two entries take turns in one block */
}

void hd_trainer_plan(hd_trainer *t)
{
    const double share = 0.03;
    const int64_t most = 20, least_calls = 8;
    double train = t->entry->flops, loss = t->scorer.entry->flops, ratio = train > 0 && loss > 0 ? train / loss : 3;
    int64_t micro = t->settings.batch / hd_model.batch;
    int64_t calls = (int64_t)fmin(share * ratio * (double)micro * (double)t->at.steps, 1e15);     /* of the loss entry, in the whole run */
    int64_t evaluations = calls / least_calls < 1 ? 1 : calls / least_calls > most ? most : calls / least_calls;
    if (evaluations > t->at.steps) evaluations = t->at.steps;
    t->every = evaluations > 0 ? (t->at.steps + evaluations - 1) / evaluations : 1;
    int64_t all = t->held_out > 0 ? hd_data_spans(&t->data, hd_model.length) : 0;
    int64_t each = (calls / (evaluations ? evaluations : 1) > 0 ? calls / evaluations : 1) * hd_model.batch;
    t->eval_spans = each < all ? each : all;
}

double hd_trainer_rate(const hd_trainer *t, int64_t step)
{
    double lr = t->settings.lr, end = lr * t->settings.min_lr;
    int64_t warmup = t->settings.warmup;
    if (warmup > t->at.steps / 4) warmup = t->at.steps / 4;    /* a short run still gets its cosine */
    if (step < warmup) return lr * (double)(step + 1) / (double)warmup;
    double done = (double)(step + 1 - warmup) / (double)(t->at.steps - warmup);
    return end + (lr - end) * 0.5 * (1 + cos(3.14159265358979323846 * done));
}

static void set_hyper(hd_trainer *t, int64_t micro, int64_t micros)
{
    const hd_training_info *s = &t->settings;
    double step = (double)t->at.step + 1;
    float *hyper = t->tensor[t->hyper];
    memset(hyper, 0, HD_HYPER_COUNT * sizeof *hyper);
    hyper[HD_HYPER_LR] = (float)hd_trainer_rate(t, t->at.step);
    hyper[HD_HYPER_BETA1] = (float)s->beta1;
    hyper[HD_HYPER_BETA2] = (float)s->beta2;
    hyper[HD_HYPER_EPSILON] = (float)s->epsilon;
    hyper[HD_HYPER_DECAY] = (float)s->decay;
    hyper[HD_HYPER_CLIP] = (float)s->clip;
    hyper[HD_HYPER_CORRECTION1] = (float)(1 - pow(s->beta1, step));
    hyper[HD_HYPER_CORRECTION2] = (float)(1 - pow(s->beta2, step));
    hyper[HD_HYPER_SCALE] = (float)(1 / (double)micros);
    hyper[HD_HYPER_ACCUMULATE] = micro > 0;
    hyper[HD_HYPER_UPDATE] = micro == micros - 1;
    if (t->random >= 0) {
        int32_t *random = t->tensor[t->random];
        uint64_t count = (uint64_t)t->at.step * (uint64_t)micros + (uint64_t)micro;     /* each micro-batch drops its own elements */
        random[0] = (int32_t)(uint32_t)(t->seed ^ t->seed >> 32);
        random[1] = (int32_t)(uint32_t)count;
        random[2] = random[3] = 0;
    }
}

static void set_tokens(hd_trainer *t, int64_t micro)
{
    int64_t length = hd_model.length;
    int32_t *tokens = t->tensor[t->tokens], *targets = t->tensor[t->targets];
    for (int64_t row = 0; row < hd_model.batch; row++) {
        int64_t start = hd_data_window(&t->data, t->seed, t->at.step, micro * hd_model.batch + row);
        hd_data_read(&t->data, start + 1 - hd_model.ahead, length, tokens + row * length);
        hd_data_read(&t->data, start + 1, length, targets + row * length);
    }
}

/* Names what broke: the first gradient or weight with a non-finite element. */
static void diagnose(hd_trainer *t, const char *what, double value)
{
    const char *gradient = hd_weights_not_finite(t->memory.state), *weight = hd_weights_not_finite(t->memory.weights);
    const char *kind = weight && !gradient ? "weight" : "gradient of", *name = gradient ? gradient : weight;
    t->not_finite = name ? hd_app_text("%s is %g; first non-finite tensor: %s '%s'", what, value, kind, name)
                         : hd_app_text("%s is %g, weights and gradients are finite: it overflows in the model", what, value);
}

enum { AVERAGE_SLOT = 1 << 14 };     /* elements: fixed, though elementwise work could not depend on it */
typedef struct average_job { float *average; const float *weights; size_t count; float keep; } average_job;

static void average_slot(void *argument, int slot, int thread)
{
    const average_job *job = argument;
    size_t first = (size_t)slot * AVERAGE_SLOT, last = first + AVERAGE_SLOT < job->count ? first + AVERAGE_SLOT : job->count;
    float keep = job->keep, take = 1 - keep;
    (void)thread;
    for (size_t i = first; i < last; i++) job->average[i] = keep * job->average[i] + take * job->weights[i];
}

/* average = d average + (1 - d) weights, d = min(average setting, (1 + t) / (10 + t)): early steps count less, so that
 * the start is forgotten in time. Source: TensorFlow's ExponentialMovingAverage. */
static void update_average(hd_trainer *t)
{
    double step = (double)t->at.step, keep = (1 + step) / (10 + step);
    if (keep > t->settings.average) keep = t->settings.average;
    average_job job = { t->memory.average, t->memory.weights, hd_model.weights_bytes / 4, (float)keep };
    int slots = (int)((job.count + AVERAGE_SLOT - 1) / AVERAGE_SLOT);
    t->threads->run(t->threads->context, average_slot, &job, slots);
}

bool hd_trainer_step(hd_trainer *t, bool (*interrupted)(void))
{
    const hd_memory memory = { .weights = t->memory.weights, .state = t->memory.state, .scratch = t->memory.scratch, .scratch_bytes = hd_app_scratch_bytes(t->entry, t->threads->count) };
    int64_t micros = t->settings.batch / hd_model.batch;
    double sum = 0;
    for (int64_t micro = 0; micro < micros; micro++) {
        if (interrupted()) return false;
        set_hyper(t, micro, micros);
        set_tokens(t, micro);
        hd_app_call(t->entry, &memory, t->threads, t->tensor, 0, 0);
        float loss = *(const float *)t->tensor[t->loss], norm = *(const float *)t->tensor[t->norm];
        if (!isfinite(loss)) {
            diagnose(t, "the loss", (double)loss);
            return false;
        }
        sum += (double)loss;
        if (micro == micros - 1) {
            if (!isfinite(norm)) {
                diagnose(t, "the gradient's norm", (double)norm);
                return false;
            }
            t->last_norm = (double)norm;
        }
    }
    t->last_loss = sum / (double)micros;
    if (hd_trainer_averaging(t)) update_average(t);
    t->at.step++;
    return true;
}

bool hd_trainer_finite(hd_trainer *t)
{
    if (!hd_weights_not_finite(t->memory.weights)) return true;
    diagnose(t, "a weight", NAN);
    return false;
}

bool hd_trainer_evaluate(hd_trainer *t, double *loss, bool *best)
{
    const size_t scratch_bytes = loss_scratch(t->threads->count);
    const hd_memory memory = { .weights = hd_trainer_result(t), .scratch = t->memory.scratch, .scratch_bytes = scratch_bytes, .packed = (char *)t->memory.scratch + scratch_bytes };
    *loss = NAN;
    *best = t->eval_spans == 0;
    if (t->eval_spans) {
        int64_t all = hd_data_spans(&t->data, hd_model.length);
        hd_app_pack(t->scorer.entry, &memory, t->threads);
        hd_score score = hd_score_windows(&t->scorer, &memory, t->threads, &t->data, hd_model.length, 0, (double)all / (double)t->eval_spans, t->eval_spans, NULL);
        *loss = score.nll / (double)score.positions;
        if (!isfinite(*loss)) {
            diagnose(t, "the held-out loss", *loss);
            return false;
        }
        *best = t->at.step == 0 || !(*loss >= t->at.best);
        t->at.rises = t->at.step > 0 && *loss > t->at.previous ? t->at.rises + 1 : 0;
        t->at.previous = *loss;
    } else if (!hd_trainer_finite(t)) {
        return false;
    }
    if (*best) {
        memcpy(t->memory.best, hd_trainer_result(t), hd_model.weights_bytes);
        t->at.best = *loss;
        t->at.best_step = t->at.step;
        t->at.said_overfit = false;
    }
    return true;
}
