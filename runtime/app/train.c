/* train: the command around the trainer: flags, the clock, checkpoints, signals, what the user sees. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../core/hd_pool.h"
#include "checkpoint.h"
#include "json.h"
#include "progress.h"
#include "weights.h"

static volatile sig_atomic_t signalled;      /* the first SIGINT or SIGTERM; the second one kills */

static void on_signal(int number) { signalled = number; }
static bool interrupted(void) { return signalled != 0; }

static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* What the user asked for beside the numeric settings. */
typedef struct request {
    const char *data, *out, *resume, *weights, *log;
    double minutes, held_out, checkpoint_minutes;
    int64_t steps, threads, seed;
    bool u16, u32;
} request;

typedef struct view {                        /* what has been shown, and when */
    FILE *log;
    double started, shown_at, loss_sum;
    int64_t first_step, loss_steps;
    double held_out;                         /* last held-out loss, nats; NaN: none yet */
} view;

static double bits(double nats) { return nats / log(2); }

static void log_step(const view *v, const hd_trainer *t)
{
    if (!v->log) return;
    hd_json_print(v->log, json_pack("{s:I, s:o, s:o, s:f, s:f}", "step", (json_int_t)t->at.step, "loss", hd_json_real(t->last_loss), "gradient_norm", hd_json_real(t->last_norm),
                                    "lr", hd_trainer_rate(t, t->at.step - 1), "seconds", hd_app_seconds() - v->started));
}

static void log_event(const view *v, const hd_trainer *t, const char *event)
{
    if (!v->log) return;
    json_t *line = json_pack("{s:s, s:I, s:I, s:I}", "event", event, "step", (json_int_t)t->at.step, "steps", (json_int_t)t->at.steps, "seed", (json_int_t)t->seed);
    for (int i = 0; i < HD_SETTINGS; i++) {
        double value = hd_setting_value(&t->settings, &hd_settings[i]);
        json_object_set_new(line, hd_settings[i].name, hd_settings[i].whole ? json_integer((json_int_t)value) : hd_json_real(value));
    }
    json_object_set_new(line, "held_out", json_real(t->held_out));
    json_object_set_new(line, "weights_are", json_string(hd_trainer_averaging(t) ? "averaged" : "raw"));
    hd_json_print(v->log, line);
    fflush(v->log);
}

/* The line of numbers, for the terminal's progress and for lines that stay. */
static const char *line(const view *v, const hd_trainer *t, char *text, size_t bytes)
{
    char left[32], held[64] = "";
    double now = hd_app_seconds(), rate = (double)(t->at.step - v->first_step) / (now - v->started);
    double loss = v->loss_steps ? v->loss_sum / (double)v->loss_steps : t->last_loss;
    if (isfinite(v->held_out)) snprintf(held, sizeof held, "  held-out %.3f", bits(v->held_out));
    snprintf(text, bytes, "step %lld/%lld  loss %.4f  %.3f bits/%s%s  %.0f tokens/s  %s left", (long long)t->at.step, (long long)t->at.steps, loss, bits(loss),
             hd_app_unit_name(), held, rate * (double)(t->settings.batch * hd_model.length), hd_progress_time((double)(t->at.steps - t->at.step) / rate, left, sizeof left));
    return text;
}

static void show_line(view *v, const hd_trainer *t, const char *note)
{
    char text[256];
    hd_progress_end();
    printf("%s%s\n", line(v, t, text, sizeof text), note);
    fflush(stdout);
    v->loss_sum = 0;
    v->loss_steps = 0;
    v->shown_at = hd_app_seconds();
}

static _Noreturn void stop_not_finite(const hd_trainer *t, const char *out)
{
    if (t->at.step == 0) hd_app_fail("step 1: %s; training stopped; nothing was written", t->not_finite);
    bool good = !hd_weights_not_finite(t->memory.best);
    if (good) hd_checkpoint_write_weights(t, out);
    hd_app_fail("step %lld: %s; training stopped; %s holds the weights of step %lld%s", (long long)t->at.step + 1, t->not_finite, out, (long long)t->at.best_step,
                good ? "" : ", not finite either");
}

/* Evaluates, says so, and keeps the weights if they are the best. */
static void evaluate(view *v, hd_trainer *t, const char *out)
{
    bool best;
    if (!hd_trainer_evaluate(t, &v->held_out, &best)) stop_not_finite(t, out);
    if (!t->eval_spans) return;
    if (v->log) {
        hd_json_print(v->log, json_pack("{s:s, s:I, s:o, s:o, s:b}", "event", "evaluation", "step", (json_int_t)t->at.step, "held_out_loss", hd_json_real(v->held_out),
                                        hd_app_bytes() ? "held_out_bits_per_byte" : "held_out_bits_per_token", hd_json_real(bits(v->held_out)), "best", (int)best));
        fflush(v->log);
    }
    if (t->at.step > v->first_step) show_line(v, t, best ? "  best" : "");
    if (t->at.rises >= 3 && !t->at.said_overfit) {
        t->at.said_overfit = true;
        printf("overfitting: the held-out loss has risen %lld evaluations in a row; the best weights, of step %lld (%.3f bits/%s), are kept\n", (long long)t->at.rises,
               (long long)t->at.best_step, bits(t->at.best), hd_app_unit_name());
    }
}

static void load_finite(const char *path, void *weights)
{
    hd_safetensors *file = hd_safetensors_open(path);
    hd_weights_read(file, "", weights);
    hd_safetensors_close(file);
    const char *bad = hd_weights_not_finite(weights);
    if (bad) hd_app_fail("%s: tensor '%s' holds values that are not finite: training cannot start there", path, bad);
}

/* First weights: from a file or from the seed; moments zero. */
static void start_weights(hd_trainer *t, const request *r)
{
    memset(t->memory.state, 0, hd_model.state_bytes);
    if (r->weights) load_finite(r->weights, t->memory.weights);
    else hd_weights_initialise(t->memory.weights, t->seed, t->threads);
    if (hd_trainer_averaging(t)) memcpy(t->memory.average, t->memory.weights, hd_model.weights_bytes);
    t->at = (hd_position){ .steps = t->at.steps, .best = NAN, .previous = NAN };
}

/* Times real steps, which are thrown away, and returns how many fit into the minutes. A rehearsal, so that the run itself
 * is the one that --steps with this number makes. */
static int64_t rehearse(hd_trainer *t, double minutes, double started)
{
    double budget = 60 * minutes, first = 0, now = hd_app_seconds();
    int64_t timed = 0;
    t->at.steps = INT64_C(1) << 40;
    if (!hd_trainer_step(t, interrupted)) return 1;              /* pages are touched, caches filled */
    first = hd_app_seconds();
    do {
        if (!hd_trainer_step(t, interrupted)) break;
        timed++;
        now = hd_app_seconds();
    } while ((now - first < 0.05 * budget || timed < 3) && now - started < 0.2 * budget);
    double each = (now - first) / (double)(timed ? timed : 1);
    double steps = timed ? (budget - (now - started)) * 0.96 / each : 1;     /* the rest: evaluations, checkpoints */
    return steps > 1 ? (int64_t)steps : 1;
}

static void parse(int argc, char **argv, request *r, hd_training_info *settings, bool *given, bool *seed_given, bool *held_out_given)
{
    enum { OWN = 13 };
    hd_option option[OWN + HD_SETTINGS] = {
        { "data", "FILE", HD_OPTION_TEXT, &r->data, 0, 0, "text, or token ids (.u16, .u32)", false },
        { "steps", "N", HD_OPTION_COUNT, &r->steps, 1, 1e12, "steps of the whole run", false },
        { "minutes", "M", HD_OPTION_REAL, &r->minutes, 1e-6, 1e6, "time the first steps, then fix the number that fits", false },
        { "out", "W", HD_OPTION_TEXT, &r->out, 0, 0, "weights; W.state beside it is for --resume", false },
        { "resume", "W", HD_OPTION_TEXT, &r->resume, 0, 0, "continue the run that wrote W", false },
        { "weights", "FILE", HD_OPTION_TEXT, &r->weights, 0, 0, "start from these weights", false },
        { "threads", "T", HD_OPTION_COUNT, &r->threads, 1, HD_MAX_THREADS, "threads", false },
        { "seed", "S", HD_OPTION_COUNT, &r->seed, 0, 9e15, "of first weights, data order and dropout", false },
        { "held-out", "F", HD_OPTION_REAL, &r->held_out, 0, 0.999, "the last part of the file, never trained on", false },
        { "log", "FILE", HD_OPTION_TEXT, &r->log, 0, 0, "a line of JSON for every step and evaluation", false },
        { "checkpoint-minutes", "M", HD_OPTION_REAL, &r->checkpoint_minutes, 0, 1e6, "time between checkpoints; 0: every step", false },
        { "tokens-u16", NULL, HD_OPTION_FLAG, &r->u16, 0, 0, "the file holds 2-byte ids", false },
        { "tokens-u32", NULL, HD_OPTION_FLAG, &r->u32, 0, 0, "the file holds 4-byte ids", false },
    };
    for (int i = 0; i < HD_SETTINGS; i++) {
        const hd_setting *s = &hd_settings[i];
        option[OWN + i] = (hd_option){ s->name, s->whole ? "N" : "X", s->whole ? HD_OPTION_COUNT : HD_OPTION_REAL, hd_setting_at(settings, s), s->low, s->high, s->help, false };
    }
    hd_command command = { "train", "", "learn from a file", option, OWN + HD_SETTINGS, NULL, 0 };
    hd_options_parse(&command, argc, argv);
    for (int i = 0; i < HD_SETTINGS; i++) given[i] = option[OWN + i].given;
    *seed_given = hd_options_given(&command, "seed");
    *held_out_given = hd_options_given(&command, "held-out");
}

/* Settings of a resumed run are the stored ones, except those given now. */
static hd_safetensors *open_resumed(hd_trainer *t, const request *r, const hd_training_info *asked, const bool *given, bool seed_given, bool held_out_given, uint64_t *digest)
{
    if (r->weights) hd_app_fail("train: --resume and --weights exclude each other");
    hd_safetensors *state = hd_checkpoint_open(t, r->resume, digest);
    if (seed_given && (uint64_t)r->seed != t->seed) hd_app_fail("--seed %lld: the resumed run has seed %lld", (long long)r->seed, (long long)t->seed);
    if (held_out_given && r->held_out != t->held_out) hd_app_fail("--held-out %g: the resumed run holds out %g", r->held_out, t->held_out);
    for (int i = 0; i < HD_SETTINGS; i++) {
        if (!given[i] || hd_setting_value(asked, &hd_settings[i]) == hd_setting_value(&t->settings, &hd_settings[i])) continue;
        printf("note: %s changes from %g to %g, so this is not the run that was begun\n", hd_settings[i].name, hd_setting_value(&t->settings, &hd_settings[i]),
               hd_setting_value(asked, &hd_settings[i]));
        memcpy(hd_setting_at(&t->settings, &hd_settings[i]), (const char *)asked + hd_settings[i].offset, 8);
    }
    if (r->steps && r->steps != t->at.steps) {
        printf("note: steps changes from %lld to %lld, so this is not the run that was begun\n", (long long)t->at.steps, (long long)r->steps);
        t->at.steps = r->steps;
    } else if (r->minutes > 0) {
        printf("note: --minutes is not read again: the run was fixed to %lld steps\n", (long long)t->at.steps);
    }
    return state;
}

static int finish(view *v, hd_trainer *t, const char *out)
{
    char taken[32];
    hd_progress_end();
    log_event(v, t, signalled ? "interrupted" : "end");
    const char *kind = hd_trainer_averaging(t) ? "averaged weights" : "weights";
    hd_progress_time(hd_app_seconds() - v->started, taken, sizeof taken);
    if (signalled) {
        printf("interrupted at step %lld of %lld; continue with --resume %s\n", (long long)t->at.step, (long long)t->at.steps, out);
        return 128 + (int)signalled;
    }
    if (t->eval_spans)
        printf("%s: the %s of step %lld of %lld, held-out %.3f bits/%s (on %lld of %lld windows; eval measures all); %s\n", out, kind, (long long)t->at.best_step,
               (long long)t->at.steps, bits(t->at.best), hd_app_unit_name(), (long long)t->eval_spans, (long long)hd_data_spans(&t->data, hd_model.length), taken);
    else
        printf("%s: the %s of step %lld of %lld; %s\n", out, kind, (long long)t->at.best_step, (long long)t->at.steps, taken);
    return 0;
}

/* A checkpoint never holds weights that are not finite: the last good one stays. */
static void save(hd_trainer *t, const char *out)
{
    if (!hd_trainer_finite(t)) stop_not_finite(t, out);
    hd_checkpoint_write(t, out);
}

static void loop(view *v, hd_trainer *t, const request *r)
{
    double checkpoint_at = hd_app_seconds(), cost = 0;
    char text[256];
    while (t->at.step < t->at.steps) {
        if (!hd_trainer_step(t, interrupted)) {
            if (t->not_finite) stop_not_finite(t, r->out);
            break;
        }
        v->loss_sum += t->last_loss;
        v->loss_steps++;
        log_step(v, t);
        if (t->at.step % t->every == 0 || t->at.step == t->at.steps) evaluate(v, t, r->out);
        if (hd_progress_terminal(stdout)) hd_progress_show(stdout, "%s", line(v, t, text, sizeof text));
        else if (hd_app_seconds() - v->shown_at > 10) show_line(v, t, "");
        double wait = 60 * r->checkpoint_minutes > 20 * cost || r->checkpoint_minutes == 0 ? 60 * r->checkpoint_minutes : 20 * cost;   /* at most 5 % of the time */
        if (hd_app_seconds() - checkpoint_at >= wait && t->at.step < t->at.steps) {
            double begun = hd_app_seconds();
            save(t, r->out);
            checkpoint_at = hd_app_seconds();
            cost = checkpoint_at - begun;
        }
    }
    save(t, r->out);
}

/* Fails now rather than at the first checkpoint; no output may destroy an input. */
static void check_outputs(const request *r)
{
    const char *const out[] = { r->out, hd_app_text("%s.state", r->out), r->log };
    const char *const in[] = { r->data, r->resume, r->resume ? hd_app_text("%s.state", r->resume) : NULL, r->weights, r->out, out[1] };
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 6 && out[i]; j++)
            if (in[j] && hd_file_same(out[i], in[j]) && (i == 2 || j == 0)) hd_app_fail("train: %s would be written over %s; name another file", out[i], in[j]);
    hd_file_check(out[0]);
    hd_file_check(out[1]);
}

int hd_command_train(int argc, char **argv)
{
    double started = hd_app_seconds();
    request r = { .checkpoint_minutes = 1, .held_out = 0.1, .threads = hd_app_processors(), .seed = 1 };
    hd_training_info asked = hd_model.training;
    bool given[HD_SETTINGS], seed_given, held_out_given;
    parse(argc, argv, &r, &asked, given, &seed_given, &held_out_given);
    hd_app_need_language_model("train");
    if (!hd_model.training.present) hd_app_fail("train: %s was built without hd.training", hd_model.name);
    if (!r.data) hd_app_fail("train: name the data: --data FILE");
    if (r.steps && r.minutes > 0) hd_app_fail("train: --steps and --minutes exclude each other");
    if (!r.resume && !r.steps && !(r.minutes > 0)) hd_app_fail("train: say how long: --steps N or --minutes M");
    if (!r.out) r.out = r.resume ? r.resume : hd_app_text("%s.safetensors", hd_model.name);

    hd_trainer t = { .settings = asked, .seed = (uint64_t)r.seed, .held_out = r.held_out, .at = { .steps = r.steps } };
    uint64_t digest = 0;
    hd_safetensors *state = r.resume ? open_resumed(&t, &r, &asked, given, seed_given, held_out_given, &digest) : NULL;
    if (t.settings.batch % hd_model.batch) {
        long long below = t.settings.batch / hd_model.batch * hd_model.batch;
        hd_app_fail("--batch %lld: must be a multiple of the compiled micro-batch, %lld; nearest: %lld", (long long)t.settings.batch, (long long)hd_model.batch,
                    below ? below : (long long)hd_model.batch);
    }
    t.data = hd_data_open(r.data, r.u16 ? 2 : r.u32 ? 4 : 0, t.held_out);
    hd_data_need_training(&t.data);
    if (state && digest != hd_data_digest(&t.data)) printf("note: %s is not the data of the run that was begun\n", r.data);
    check_outputs(&r);

    hd_area area[HD_TRAIN_AREAS];
    hd_app_map_areas(area, hd_train_areas(area, &t.memory, (int)r.threads, hd_trainer_averaging(&t)));
    hd_pool *pool = hd_app_pool((int)r.threads);
    t.threads = hd_pool_threads(pool);
    hd_trainer_bind(&t);
    catch_signals();
    if (state) {
        hd_checkpoint_read_areas(state, &t);
        hd_safetensors_close(state);
    } else {
        start_weights(&t, &r);
    }
    FILE *log_file = r.log ? fopen(r.log, "a") : NULL;
    if (r.log && !log_file) hd_app_fail("%s: cannot be written: %s", r.log, strerror(errno));
    if (!state && r.minutes > 0) {
        hd_progress_show(stdout, "timing the first steps");
        int64_t steps = rehearse(&t, r.minutes, started);
        hd_progress_end();
        if (signalled) {
            printf("interrupted while the first steps were timed; nothing was written\n");
            return 128 + (int)signalled;
        }
        t.not_finite = NULL;
        t.at.steps = steps;
        start_weights(&t, &r);
    }
    hd_trainer_plan(&t);
    if (state && t.at.step >= t.at.steps) {                          /* killed between W.state and W, W is still of an earlier step */
        hd_checkpoint_write_weights(&t, r.out);
        hd_app_fail("%s: the run is complete at step %lld of %lld; --steps with a larger number continues it", r.resume, (long long)t.at.step, (long long)t.at.steps);
    }

    view v = { .log = log_file, .started = hd_app_seconds(), .first_step = t.at.step, .held_out = state ? t.at.previous : NAN };
    v.shown_at = v.started;
    if (log_file && !state && ftruncate(fileno(log_file), 0) != 0 && errno != EINVAL) hd_app_fail("%s: cannot be written: %s", r.log, strerror(errno));    /* EINVAL: a pipe */
    printf("%s: %lld parameters; %s: %lld %ss to learn from, %lld held out; steps %lld to %lld of %lld x %lld %ss; seed %lld, %lld threads%s\n", hd_model.name,
           (long long)hd_model.parameters, r.data, (long long)t.data.held_start, hd_app_unit_name(), (long long)(t.data.count - t.data.held_start), (long long)t.at.step + 1,
           (long long)t.at.steps, (long long)t.settings.batch, (long long)hd_model.length, hd_app_unit_name(), (long long)t.seed, (long long)r.threads,
           hd_trainer_averaging(&t) ? "; evaluated and saved: averaged weights" : "");
    if (r.minutes > 0 && !state) printf("%g minutes: %lld steps (--steps %lld repeats this run exactly)\n", r.minutes, (long long)t.at.steps, (long long)t.at.steps);
    fflush(stdout);
    log_event(&v, &t, state ? "resume" : "start");
    if (state) hd_checkpoint_write_weights(&t, r.out);           /* W follows from W.state, whatever was killed when */
    else evaluate(&v, &t, r.out);

    loop(&v, &t, &r);
    int status = finish(&v, &t, r.out);
    hd_pool_free(pool);
    if (log_file && (fflush(log_file) != 0 || ferror(log_file))) hd_app_fail("%s: cannot be written: %s", r.log, strerror(errno));
    return status;
}
