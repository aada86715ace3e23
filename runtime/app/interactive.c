/* A conversation (interactive.h). What the model reads is what stands on the screen: line, reply, line break, line, ... */
#include "interactive.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "progress.h"

static const char help[] =
    "A line is continued by the model; what was said before stays in its context.\n"
    "  /reset   forgets the conversation      /help   this\n"
    "  //...    a line that begins with /     a \\ at the end of a line: the next line belongs to it\n"
    "Ctrl-C stops a reply, Ctrl-D ends.\n";

static volatile int interrupted;          /* hd_memory.cancel too: Ctrl-C ends the reading of a long line */
static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

typedef struct talk {
    hd_generator *generator;
    hd_sampler sampler;
    hd_continuation c;
    hd_encoder *encoder;
    float *logits;
    bool terminal;
} talk;

/* A line without its break, lines that end in a backslash joined to the next one; malloc'ed. NULL: the end of input, or Ctrl-C. */
static char *read_line(const talk *t)
{
    char *line = NULL, *part = NULL;
    size_t bytes = 0, room = 0;
    interrupted = 0;
    for (bool more = true; more;) {
        if (t->terminal) fputs(bytes ? ". " : "> ", stdout), fflush(stdout);
        const ssize_t got = getline(&part, &room, stdin);
        if (got < 0) {
            if (bytes && !interrupted) break;
            free(line), free(part);
            return NULL;
        }
        size_t length = (size_t)got;
        if (length && part[length - 1] == '\n') length--;
        more = length && part[length - 1] == '\\';
        if (more) part[length - 1] = '\n';
        line = realloc(line, bytes + length + 1);
        if (!line) hd_app_fail("out of memory");
        memcpy(line + bytes, part, length);
        line[bytes += length] = 0;
    }
    free(part);
    return line;
}

static void forget(talk *t, const hd_sample_settings *settings)
{
    const int64_t drawn = t->c.drawn;          /* other replies than before, the same again for the same input */
    hd_continuation_free(&t->c);
    hd_continuation_begin(&t->c, settings, 0);
    t->c.drawn = drawn;
    hd_generator_clear(t->generator, 0);
}

/* The tokens of the next text: what the tokenizer puts before a text comes once. */
static int64_t ids_of(talk *t, const char *text, int32_t **ids)
{
    if (t->c.count && t->encoder) {
        *ids = NULL;
        return hd_text_append(t->encoder, "the line", text, strlen(text), ids, 0);
    }
    return hd_text_ids("the line", text, strlen(text), ids);
}

/* Adds what the user says; false, and nothing changed, where it does not fit. */
static bool say(talk *t, const char *text)
{
    hd_continuation *c = &t->c;
    const hd_generator *g = t->generator;
    int32_t *ids;
    const int64_t count = ids_of(t, text, &ids), pending = c->count - c->fed + count;
    const bool fits = !g->room || c->settings->slide || g->taken[0] + pending <= g->room;
    if (!fits && !c->count)
        hd_app_fail("--prompt: it has %lld tokens, %s reads at most %lld; --slide reads the last %lld of them", (long long)count, hd_model.name, (long long)g->room, (long long)g->room / 2 + 1);
    if (fits) {
        c->bytes = 0;
        hd_continuation_give(c, ids, count, true);
    } else {
        fflush(stdout);
        fprintf(stderr, "%lld more tokens do not fit: %lld of %lld positions are in use; /reset forgets the conversation, --slide its older half\n", (long long)pending,
                (long long)g->taken[0], (long long)g->room);
    }
    free(ids);
    return fits;
}

static void reply(talk *t)
{
    hd_continuation *c = &t->c;
    interrupted = 0;
    hd_continuation_go(c);
    size_t shown = c->bytes;
    if (!c->settings->most || (c->count == c->fed && hd_model.ahead)) hd_continuation_end(c, "tokens");
    while (!c->ended && hd_continuation_fits(c, t->generator, 0)) {
        const bool whole = hd_continuation_feed(c, t->generator, 0, t->logits);
        if (whole) hd_continuation_draw(c, &t->sampler, t->logits);         /* stream 0: row 0 */
        if ((interrupted || !whole) && !c->ended) hd_continuation_end(c, "interrupt");
        hd_text_show(c->text + shown, c->bytes - shown);
        shown = c->bytes;
    }
    if (c->bytes > shown) hd_text_show(c->text + shown, c->bytes - shown);
    putchar('\n');
    fflush(stdout);
    if (c->ended && !strcmp(c->ended, "positions")) fprintf(stderr, "the model's last position is reached, %lld; /reset forgets the conversation, --slide its older half\n", (long long)t->generator->room);
}

void hd_interactive(hd_generator *generator, const hd_sample_settings *settings, const char *opening, const char *before, const char *after)
{
    talk t = { .generator = generator, .terminal = isatty(STDIN_FILENO) && hd_progress_terminal(stdout), .logits = hd_app_alloc((size_t)hd_model.vocab * (size_t)generator->streams * sizeof(float)) };
    if (!hd_sampler_init(&t.sampler, hd_model.vocab)) hd_app_fail("out of memory");
    if (hd_model.tokenizer) t.encoder = hd_text_encoder("sample");
    const struct sigaction action = { .sa_handler = on_interrupt };          /* no SA_RESTART: Ctrl-C ends the reading of a line too */
    sigaction(SIGINT, &action, NULL);
    if (!generator->forward) generator->memory.cancel = &interrupted;
    hd_continuation_begin(&t.c, settings, 0);
    bool first = true;
    if (*opening) say(&t, opening);
    for (;;) {
        char *line = read_line(&t);
        if (!line && interrupted) {
            interrupted = 0;
            clearerr(stdin);
            printf("\n(Ctrl-D ends, /help explains)\n");
            continue;
        }
        if (!line) break;
        if (!strcmp(line, "/reset")) {
            forget(&t, settings);
            if (*opening) say(&t, opening);
            first = true;
        } else if (!strcmp(line, "/help")) {
            fputs(help, stdout);
        } else if (*line == '/' && line[1] != '/') {
            printf("no such command; valid: /reset /help, and // begins a line with /\n");
        } else {
            const char *text = hd_app_text("%s%s%s", before ? before : first ? "" : "\n", line + (*line == '/'), after);
            if (say(&t, text)) reply(&t), first = false;
            free((char *)(uintptr_t)text);
        }
        free(line);
        fflush(stdout);
    }
    if (t.terminal) putchar('\n');
    hd_encoder_free(t.encoder);
    hd_continuation_free(&t.c);
    hd_sampler_free(&t.sampler);
    free(t.logits);
}
