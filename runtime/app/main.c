/* The program made from a model: picks the command. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "variant.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct { const char *name, *summary, *entry; } commands[] = {      /* entry: without it the program lacks the command */
    { "info", "parameters, memory, patterns", NULL },
    { "train", "learn from a file", "train_step" },
    { "eval", "bits per byte of a file's held-out part", "loss" },
    { "sample", "continue a prompt", "forward" },
    { "attention", "which positions each head reads at a prompt, as a page", "forward" },
    { "tokenize", "text to token ids, or back", NULL },
    { "run", "call one entry on tensors of a file", NULL },
    { "bench", "time the kernels against this machine's peak", NULL },
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static const hd_model_command *find(const char *name)
{
    for (const hd_model_command *c = hd_model_commands; c->name; c++)
        if (strcmp(c->name, name) == 0) return c;
    return NULL;
}

static _Noreturn void fail_absent(const char *name, const char *entry)
{
    hd_app_need_language_model(name);
    if (strcmp(name, "train") == 0 && !hd_model.training.present) hd_app_fail("train: %s was built without hd.training", hd_model.name);
    hd_app_fail("%s: %s was built without entry %s (heddle build --entries)", name, hd_model.name, entry);
}

static void print_help(void)
{
    printf("%s: a model compiled by heddle %s from %s\n\n", hd_model.name, hd_model.version, hd_model.spec);
    for (int i = 0; i < COMMANDS; i++) if (find(commands[i].name)) printf("  %s %-9s %s\n", hd_model.name, commands[i].name, commands[i].summary);
    printf("\n%s COMMAND --help lists the command's flags.\n", hd_model.name);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
/* Programs end with memory that the system takes back: no leak, and no reason for a failing exit status. */
const char *__asan_default_options(void);
__attribute__((weak, used)) const char *__asan_default_options(void) { return "detect_leaks=0"; }
#endif
#endif

/* A mapped file that shrinks while it is read ends in this signal. */
static void on_bus_error(int signal)
{
    static const char text[] = "a data or weights file was truncated while it was read\n";
    (void)signal;
    if (write(2, text, sizeof text - 1) < 0) _exit(2);
    _exit(1);
}

int hd_app_main(int argc, char **argv)
{
    hd_variant_choose();
    signal(SIGXFSZ, SIG_IGN);        /* a file size limit then is a write error with a message */
    signal(SIGBUS, on_bus_error);
    if (argc < 2) {
        fprintf(stderr, "%s: name a command: info train eval sample attention tokenize run bench; --help explains them\n", hd_model.name);
        return 1;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return 0;
    }
    if (strcmp(name, "--version") == 0) {
        printf("%s, made by heddle %s for %s\n", hd_model.name, hd_model.version, hd_model.target);
        return 0;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) {
            const hd_model_command *command = find(name);
            if (!command) fail_absent(name, commands[i].entry);
            int status = command->run(argc - 1, argv + 1);
            if (fflush(stdout) != 0 || ferror(stdout)) hd_app_fail("%s: standard output cannot be written", name);
            return status;
        }
    hd_app_fail("unknown command '%s'; valid: info train eval sample attention tokenize run bench --help --version", name);
}
