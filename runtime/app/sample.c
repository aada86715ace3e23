/* sample: continues prompts, each as often as asked, as many together as the model has streams.
 *
 * A sample depends on the weights, the prompt, the seed and its number alone, not on what is computed beside it. Samples are printed in
 * order: the one whose turn it is as it grows, the others when it is done. */
#include "continuation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "interactive.h"
#include "json.h"
#include "media.h"
#include "progress.h"
#include "weights.h"

/* What the flags say. */
typedef struct options {
    hd_sample_settings settings;
    const char *weights, *prompt, *prompt_file, *prompts, *out, *before, *after;
    int64_t samples, keep, threads;
    bool interactive, json, stats, ignore_end, grid;
} options;

/* A prompt's tokens; the first `hidden` are a start that nobody asked for, and no part of what is written. */
typedef struct prompt { int32_t *ids; int64_t count, hidden; } prompt;

typedef struct job { hd_continuation c; int64_t prompt, sample; double started, seconds; } job;

typedef struct work {
    const options *o;
    hd_generator *generator;
    hd_sampler sampler;
    int prompts; prompt *prompt;
    int64_t jobs, next, front;         /* all; begun; printed */
    job *job;
    size_t shown;                      /* bytes of the text of job `front` */
    int64_t *on;                       /* [streams] job, -1: none */
    int64_t *holds; float *after;      /* [streams] prompt that the stream begins with, -1: none; [streams][vocab] its logits */
    int32_t *tokens;
    float *logits;
    int64_t given, drawn;              /* tokens */
    double prompt_seconds, seconds;
} work;

/* ---- prompts ---- */

/* Without a prompt: what the tokenizer or the model begins with; else a line break, or id 0 where tokens are no bytes. A model that
 * predicts its first token needs nothing. */
static prompt prompt_of(const char *from, const char *text, size_t bytes)
{
    prompt p = { 0 };
    p.count = hd_text_ids(from, text, bytes, &p.ids);
    if (!p.count && hd_model.ahead) p.ids[p.count++] = hd_model.start ? *hd_model.start : hd_app_bytes() && hd_model.vocab > '\n' ? '\n' : 0;
    if (!bytes) p.hidden = p.count;
    return p;
}

/* Pixels or samples of sound: behind the token that all samples begin after. */
static prompt media_prompt(const options *o)
{
    prompt p = { 0 };
    int32_t *read = NULL;
    const int64_t count = o->prompt_file ? hd_media_read(o->prompt_file, o->keep, &read) : 0;
    p.ids = hd_app_alloc((size_t)(count + 1) * sizeof *p.ids);
    if (hd_model.start || (!count && hd_model.ahead)) p.ids[p.hidden++] = hd_model.start ? *hd_model.start : 0;
    if (count) memcpy(p.ids + p.hidden, read, (size_t)count * sizeof *read);
    p.count = p.hidden + count;
    free(read);
    return p;
}

static void read_prompts(work *w)
{
    const options *o = w->o;
    w->prompts = 1;
    if (!o->prompts) w->prompt = hd_app_alloc(sizeof *w->prompt);
    if (hd_media()) {
        *w->prompt = media_prompt(o);
    } else if (o->prompts) {
        const hd_file_map file = hd_file_open(o->prompts);
        const char *at = (const char *)file.data, *end = at + file.bytes;
        w->prompts = 0;
        for (int line = 1, room = 0; at < end; line++) {
            const char *stop = memchr(at, '\n', (size_t)(end - at));
            if (!stop) stop = end;
            if (w->prompts == room) w->prompt = realloc(w->prompt, (size_t)(room = 2 * room + 16) * sizeof *w->prompt);
            if (!w->prompt) hd_app_fail("out of memory");
            const size_t bytes = (size_t)(stop - at) - (stop > at && stop[-1] == '\r');
            if (bytes) w->prompt[w->prompts++] = prompt_of(hd_app_text("%s:%d", o->prompts, line), at, bytes);
            at = stop + 1;
        }
        if (!w->prompts) hd_app_fail("%s: no line with a prompt", o->prompts);
        hd_file_close(file);
    } else if (o->prompt_file) {
        const hd_file_map file = hd_file_open(o->prompt_file);
        *w->prompt = prompt_of(o->prompt_file, (const char *)file.data, file.bytes);
        hd_file_close(file);
    } else {
        *w->prompt = prompt_of("--prompt", o->prompt, strlen(o->prompt));
    }
    for (int i = 0; i < w->prompts; i++) {
        const int64_t count = w->prompt[i].count, room = w->generator->room;
        const char *from = o->prompts ? hd_app_text("%s: prompt %d", o->prompts, i + 1) : o->prompt_file ? o->prompt_file : "--prompt";
        if (room && count > room && !o->settings.slide)
            hd_app_fail("%s: it has %lld tokens, %s reads at most %lld; --slide reads the last %lld of them", from, (long long)count, hd_model.name, (long long)room, (long long)room / 2 + 1);
    }
}

/* ---- output ---- */

static json_t *json_of(const work *w, const job *j)
{
    const hd_continuation *c = &j->c;
    const int64_t last = c->count - !strcmp(c->ended, "end_token");
    json_t *ids = json_array(), *line = json_object();
    char *text = hd_app_alloc(3 * (c->bytes - c->from) + 1);
    size_t bytes = 0;
    for (size_t i = c->from; i < c->bytes;) {              /* bytes that are no UTF-8, as JSON cannot hold them: U+FFFD */
        const size_t length = hd_text_character(c->text + i, c->bytes - i);
        memcpy(text + bytes, length ? c->text + i : "\xef\xbf\xbd", length ? length : 3);
        bytes += length ? length : 3;
        i += length ? length : 1;
    }
    for (int64_t i = c->given; i < last; i++) json_array_append_new(ids, json_integer(c->ids[i]));
    if (w->prompts > 1) json_object_set_new(line, "prompt", json_integer(j->prompt));
    if (w->jobs > 1) json_object_set_new(line, "sample", json_integer(j->sample));
    if (!hd_media()) json_object_set_new(line, "text", json_stringn(text, bytes));
    json_object_set_new(line, "ids", ids);
    json_object_set_new(line, "prompt_tokens", json_integer(c->given));
    json_object_set_new(line, "tokens", json_integer(last - c->given));
    json_object_set_new(line, "seconds", hd_json_real(j->seconds));
    json_object_set_new(line, "stop", json_string(c->ended));
    free(text);
    return line;
}

/* The file of a sample: out.png, or out_0.png, out_1.png, ... */
static const char *out_file(const work *w, int64_t i)
{
    const char *path = w->o->out;
    const int stem = (int)(strlen(path) - strlen(hd_media_suffix()));
    return w->jobs == 1 || w->o->grid ? path : hd_app_text("%.*s_%lld%s", stem, path, (long long)i, path + stem);
}

static void write_media(const work *w, int64_t first, int64_t count)
{
    const int32_t **tokens = hd_app_alloc((size_t)count * sizeof *tokens);
    int64_t *counts = hd_app_alloc((size_t)count * sizeof *counts);
    for (int64_t i = 0; i < count; i++) {
        const hd_continuation *c = &w->job[first + i].c;
        tokens[i] = c->ids + w->prompt->hidden;
        counts[i] = c->count - w->prompt->hidden;
    }
    hd_media_write(out_file(w, first), count, tokens, counts);
    free(tokens);
    free(counts);
}

/* Prints what is known of the jobs whose turn it is. */
static void print_jobs(work *w)
{
    for (; w->front < w->next; w->front++) {
        job *j = &w->job[w->front];
        hd_continuation *c = &j->c;
        const bool text = !hd_media() && !w->o->json;
        if (text) {
            if (w->jobs > 1 && !w->shown && c->bytes) printf("%s==> prompt %lld, sample %lld <==\n", w->front ? "\n" : "", (long long)j->prompt, (long long)j->sample);
            if (c->bytes > w->shown) hd_text_show(c->text + w->shown, c->bytes - w->shown);
            w->shown = c->bytes;
        } else if (!c->ended) {
            hd_progress_show(stderr, "sample %lld of %lld: %lld of %lld tokens", (long long)w->front + 1, (long long)w->jobs, (long long)(c->count - c->given), (long long)c->settings->most);
        }
        if (!c->ended) return;
        if (text) putchar('\n'), fflush(stdout);
        hd_progress_end();
        if (w->o->out && !w->o->grid) write_media(w, w->front, 1);
        if (w->o->json) hd_json_print(stdout, json_of(w, j)), fflush(stdout);
        if (!strcmp(c->ended, "positions"))
            fprintf(stderr, "sample: stopped after %lld tokens at the last of %s's %lld positions; --slide drops the older half and goes on\n", (long long)(c->count - c->given), hd_model.name, (long long)hd_model.length);
        if (!w->o->grid) hd_continuation_free(c);
        w->shown = 0;
    }
}

/* ---- the samples ---- */

static void finish(work *w, int stream)
{
    job *j = &w->job[w->on[stream]];
    j->seconds = hd_app_seconds() - j->started;
    w->drawn += j->c.count - j->c.given;
    w->on[stream] = -1;
}

static void draw(work *w, int stream)
{
    hd_continuation *c = &w->job[w->on[stream]].c;
    hd_continuation_draw(c, &w->sampler, w->logits + stream * hd_model.vocab);
    if (c->ended) finish(w, stream);
}

/* The prompt, into the stream: computed, or what is left of it when the stream has had it before. */
static void take_prompt(work *w, int stream, hd_continuation *c, int64_t number)
{
    hd_generator *g = w->generator;
    const size_t row = (size_t)hd_model.vocab * sizeof *w->logits;
    float *logits = w->logits + stream * hd_model.vocab, *after = w->after ? w->after + stream * hd_model.vocab : NULL;
    if (after && w->holds[stream] == number && hd_generator_rewind(g, stream, c->count)) {
        memcpy(logits, after, row);
        c->fed = c->count;
        return;
    }
    hd_generator_clear(g, stream);
    hd_continuation_fits(c, g, stream);         /* cuts what is too long, for --slide */
    w->holds[stream] = c->fed ? -1 : number;
    w->given += c->count - c->fed;
    hd_continuation_feed(c, g, stream, w->logits);
    if (after) memcpy(after, logits, row);
}

/* Gives the stream its next job, and that its first token. */
static void begin(work *w, int stream)
{
    job *j = &w->job[w->next];
    const prompt *p = &w->prompt[w->next / w->o->samples];
    j->prompt = w->next / w->o->samples, j->sample = w->next % w->o->samples;
    j->started = hd_app_seconds();
    w->on[stream] = w->next;
    hd_continuation_begin(&j->c, &w->o->settings, w->next++);
    hd_continuation_give(&j->c, p->ids, p->hidden, false);
    hd_continuation_give(&j->c, p->ids + p->hidden, p->count - p->hidden, !hd_media());
    hd_continuation_go(&j->c);
    if (!w->o->settings.most) {
        hd_continuation_end(&j->c, "tokens");
    } else {
        take_prompt(w, stream, &j->c, j->prompt);
        w->prompt_seconds += hd_app_seconds() - j->started;
        draw(w, stream);
    }
    if (j->c.ended && w->on[stream] >= 0) finish(w, stream);
}

/* One more token for every stream that has a job. */
static void step(work *w)
{
    hd_generator *g = w->generator;
    bool any = false;
    for (int s = 0; s < g->streams; s++) {
        w->tokens[s] = -1;
        if (w->on[s] < 0) continue;
        hd_continuation *c = &w->job[w->on[s]].c;
        if (!hd_continuation_fits(c, g, s)) {
            finish(w, s);
        } else if (c->count - c->fed > 1 || !g->taken[s]) {        /* what is left of a context that was full */
            if (c->count - c->fed > 1) w->holds[s] = -1;
            hd_continuation_feed(c, g, s, w->logits);
            draw(w, s);
        } else {
            w->tokens[s] = c->ids[c->fed++];
            any = true;
        }
    }
    if (any) hd_generator_step(g, w->tokens, w->logits);
    for (int s = 0; s < g->streams; s++)
        if (w->tokens[s] >= 0) draw(w, s);
}

static void run_jobs(work *w)
{
    const int streams = w->generator->streams;
    const double started = hd_app_seconds();
    for (int s = 0; s < streams; s++) w->on[s] = w->holds[s] = -1;
    for (;;) {
        bool busy = false;
        for (int s = 0; s < streams; s++) {
            while (w->on[s] < 0 && w->next < w->jobs) {
                begin(w, s);
                print_jobs(w);
            }
            busy |= w->on[s] >= 0;
        }
        if (!busy) break;
        step(w);
        print_jobs(w);
    }
    w->seconds = hd_app_seconds() - started - w->prompt_seconds;
}

/* ---- the command ---- */

/* Tokens that end a sample: the model's, and stop strings that are one special token, whose text is never written. */
static void set_ends(hd_sample_settings *s, bool ignore)
{
    int32_t *end = hd_app_alloc((size_t)(hd_model.ends + s->stops.count) * sizeof *end);
    for (int i = 0; i < hd_model.ends && !ignore; i++) end[s->ends++] = hd_model.end[i];
    const hd_tokenizer *t = hd_model.tokenizer;
    int kept = 0;
    for (int i = 0; i < s->stops.count; i++) {
        const char *text = s->stops.text[i];
        if (!*text) hd_app_fail("--stop: an empty text stands everywhere; give one that does not");
        int32_t *ids = NULL;
        hd_encoder *encoder = t ? hd_text_encoder("--stop") : NULL;
        const int64_t count = t ? hd_text_append(encoder, "--stop", text, strlen(text), &ids, 0) : 0;
        if (count == 1 && t->special.count && HD_AT(t, special, uint8_t)[*ids]) end[s->ends++] = *ids;
        else s->stops.text[kept++] = text;
        free(ids);
        hd_encoder_free(encoder);
    }
    s->stops.count = kept;
    s->end = end;
}

static void check(const options *o)
{
    hd_weights_need("sample", o->weights);
    if ((o->prompt != NULL) + (o->prompt_file != NULL) + (o->prompts != NULL) > 1) hd_app_fail("sample: --prompt, --prompt-file and --prompts exclude each other");
    if (o->interactive && (o->json || o->out || o->prompts || o->samples > 1)) hd_app_fail("sample: --interactive goes without --json, --out, --prompts and --samples");
    if (!o->interactive && (o->before || o->after)) hd_app_fail("sample: --before and --after are for --interactive");
    if (!hd_media()) {
        if (o->out || o->grid || o->keep) hd_app_fail("sample: --out, --grid and --keep are for models whose tokens are pixels or sound (hd.language_model { output = ... })");
    } else {
        if (o->interactive || o->prompts || o->prompt || o->settings.stops.count)
            hd_app_fail("sample: the tokens of %s are no text: --prompt, --prompts, --stop and --interactive are for others; --prompt-file names a %s file", hd_model.name, hd_media_suffix());
        if (o->out) hd_media_check(o->out);
        else if (!o->json) hd_app_fail("sample: %s makes %s: name a file with --out FILE%s (or --json for the tokens)", hd_model.name, hd_model.image ? "images" : "sound", hd_media_suffix());
        if (o->grid && !(o->out && hd_model.image)) hd_app_fail("sample: --grid is for images, with --out FILE.png");
        if (o->keep && !o->prompt_file) hd_app_fail("sample: --keep is for --prompt-file");
    }
    if (!hd_model.decode && !hd_app_entry("forward")->causal) hd_app_fail("sample: %s is not causal: its positions read later ones, so it cannot continue a text", hd_model.name);
}

static double rate(int64_t tokens, double seconds) { return seconds > 0 ? (double)tokens / seconds : 0; }

static void print_stats(const work *w)
{
    const char *unit = hd_app_unit_name();
    fprintf(stderr, "prompt: %lld %ss in %.3f s, %.1f %ss/s; generated: %lld %ss in %.3f s, %.1f %ss/s\n", (long long)w->given, unit, w->prompt_seconds, rate(w->given, w->prompt_seconds), unit,
            (long long)w->drawn, unit, w->seconds, rate(w->drawn, w->seconds), unit);
    if (!hd_model.decode && hd_model.no_decode) fprintf(stderr, "all positions are computed again for each token: %s\n", hd_model.no_decode);
}

int hd_command_sample(int argc, char **argv)
{
    options o = { .settings = { .sampling = { 1, 64, 0.8, 0, 1, 0 }, .seed = 1, .most = -1 }, .samples = 1, .threads = hd_app_processors() };
    hd_sampling *s = &o.settings.sampling;
    hd_option option[] = {
        { "weights", "FILE", HD_OPTION_TEXT, &o.weights, 0, 0, "weights (safetensors)", false },
        { "prompt", "TEXT", HD_OPTION_TEXT, &o.prompt, 0, 0, "what to continue; token ids if the model has no tokenizer and more than 256 tokens", false },
        { "prompt-file", "FILE", HD_OPTION_TEXT, &o.prompt_file, 0, 0, "what to continue: a text, or the PNG or WAV of a model that makes them", false },
        { "prompts", "FILE", HD_OPTION_TEXT, &o.prompts, 0, 0, "a prompt on each line", false },
        { "keep", "N", HD_OPTION_COUNT, &o.keep, 1, 1e12, "of --prompt-file the first N rows of pixels, or N samples of sound", false },
        { "samples", "N", HD_OPTION_COUNT, &o.samples, 1, 1e6, "of each prompt", false },
        { "tokens", "N", HD_OPTION_COUNT, &o.settings.most, 0, 1e12, "how many to add at most (400; what makes an image whole)", false },
        { "temperature", "X", HD_OPTION_REAL, &s->temperature, 0, 1e3, "0: always the likeliest; 1: the model's own distribution", false },
        { "top-k", "K", HD_OPTION_COUNT, &s->top_k, 0, 1e9, "draw from the K likeliest; 0: from all", false },
        { "top-p", "P", HD_OPTION_REAL, &s->top_p, 1e-9, 1, "draw from the fewest that hold P of the probability", false },
        { "min-p", "P", HD_OPTION_REAL, &s->min_p, 0, 1, "draw from those at least P times as likely as the likeliest", false },
        { "penalty", "X", HD_OPTION_REAL, &s->penalty, 0.01, 100, "of repetition: logits of recent tokens are divided by X if positive, else multiplied", false },
        { "penalty-last", "N", HD_OPTION_COUNT, &s->penalty_last, 0, 1e12, "recent: among the last N tokens", false },
        { "seed", "S", HD_OPTION_COUNT, &o.settings.seed, 0, 9e15, "of the draws", false },
        { "stop", "TEXT", HD_OPTION_TEXTS, &o.settings.stops, 0, 0, "end before TEXT; may be given several times", false },
        { "ignore-end", NULL, HD_OPTION_FLAG, &o.ignore_end, 0, 0, "go on after the model's end-of-text token", false },
        { "slide", NULL, HD_OPTION_FLAG, &o.settings.slide, 0, 0, "at the model's last position drop the older half of the context and go on", false },
        { "interactive", NULL, HD_OPTION_FLAG, &o.interactive, 0, 0, "continue each line of standard input; /help explains", false },
        { "before", "TEXT", HD_OPTION_TEXT, &o.before, 0, 0, "put before each line of --interactive (a line break, but for the first)", false },
        { "after", "TEXT", HD_OPTION_TEXT, &o.after, 0, 0, "put after each line of --interactive", false },
        { "out", "FILE", HD_OPTION_TEXT, &o.out, 0, 0, "the PNG or WAV to write (also -o); several samples: FILE_0, FILE_1, ...", false },
        { "grid", NULL, HD_OPTION_FLAG, &o.grid, 0, 0, "several images in one file", false },
        { "json", NULL, HD_OPTION_FLAG, &o.json, 0, 0, "a line of JSON for each sample: text, ids, tokens, seconds, stop", false },
        { "stats", NULL, HD_OPTION_FLAG, &o.stats, 0, 0, "tokens per second, on stderr (always when that is a terminal)", false },
        { "threads", "T", HD_OPTION_COUNT, &o.threads, 1, HD_MAX_THREADS, "threads", false },
    };
    hd_command command = { "sample", "", "continue a prompt", option, sizeof option / sizeof option[0], NULL, 0 };
    hd_options_parse(&command, argc, argv);
    hd_app_need_language_model("sample");
    check(&o);
    if (!o.prompt) o.prompt = "";
    set_ends(&o.settings, o.ignore_end);
    if (o.out && (o.samples == 1 || o.grid)) hd_file_check(o.out);

    work w = { .o = &o, .generator = hd_generator_open(o.weights, (int)o.threads) };
    if (o.settings.most < 0) o.settings.most = o.interactive || !hd_media() ? 400 : hd_media_tokens();
    if (o.interactive) {
        hd_interactive(w.generator, &o.settings, o.prompt, o.before, o.after ? o.after : "");
        hd_generator_close(w.generator);
        return 0;
    }
    read_prompts(&w);
    if (hd_media() && !hd_options_given(&command, "tokens")) {
        const int64_t there = w.prompt->count - w.prompt->hidden;
        o.settings.most = o.settings.most > there ? o.settings.most - there : 0;
    }
    w.jobs = w.prompts * o.samples;
    w.job = hd_app_alloc((size_t)w.jobs * sizeof *w.job);
    const size_t streams = (size_t)w.generator->streams;
    w.on = hd_app_alloc(streams * sizeof *w.on);
    w.holds = hd_app_alloc(streams * sizeof *w.holds);
    w.tokens = hd_app_alloc(streams * sizeof *w.tokens);
    w.logits = hd_app_alloc(streams * (size_t)hd_model.vocab * sizeof *w.logits);
    if (o.samples > w.generator->streams) w.after = hd_app_alloc(streams * (size_t)hd_model.vocab * sizeof *w.after);
    if (!hd_sampler_init(&w.sampler, hd_model.vocab)) hd_app_fail("out of memory");
    run_jobs(&w);
    if (o.grid) write_media(&w, 0, w.jobs);
    if (o.stats || (hd_progress_terminal(stderr) && hd_progress_terminal(stdout))) print_stats(&w);
    hd_generator_close(w.generator);
    return 0;
}
