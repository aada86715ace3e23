/* Flags of the commands (options.h). */
#include "app.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same_name(const char *a, const char *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char x = a[i] == '-' ? '_' : a[i], y = b[i] == '-' ? '_' : b[i];
        if (x != y || !x) return false;
    }
    return b[count] == '\0';
}

static hd_option *find(const hd_command *command, const char *name, size_t length)
{
    for (int i = 0; i < command->options; i++)
        if (same_name(name, command->option[i].name, length)) return &command->option[i];
    return NULL;
}

static void print_default(const hd_option *option)
{
    switch (option->kind) {
    case HD_OPTION_FLAG: case HD_OPTION_TEXTS: break;
    case HD_OPTION_COUNT: if ((double)*(int64_t *)option->value >= option->low) printf(" (%lld)", (long long)*(int64_t *)option->value); break;
    case HD_OPTION_REAL: if (*(double *)option->value >= option->low) printf(" (%g)", *(double *)option->value); break;
    case HD_OPTION_TEXT: if (*(const char **)option->value) printf(" (%s)", *(const char **)option->value); break;
    }
}

static void print_help(const hd_command *command)
{
    printf("%s %s%s%s [flags]: %s\n\n", hd_model.name, command->name, *command->arguments ? " " : "", command->arguments, command->summary);
    for (int i = 0; i < command->options; i++) {
        const hd_option *option = &command->option[i];
        printf("  --%s %-*s %s", option->name, 22 - (int)strlen(option->name), option->argument ? option->argument : "", option->help);
        print_default(option);
        printf("\n");
    }
}

static _Noreturn void fail_unknown(const hd_command *command, const char *what, const char *got)
{
    size_t bytes = 1;
    for (int i = 0; i < command->options; i++) bytes += strlen(command->option[i].name) + 4;
    char *list = hd_app_alloc(bytes);
    for (int i = 0; i < command->options; i++) {
        strcat(list, " --");
        strcat(list, command->option[i].name);
    }
    hd_app_fail("%s: %s '%s'; valid:%s --help", command->name, what, got, list);
}

static void set(hd_option *option, const char *text)
{
    char *end;
    errno = 0;
    if (option->kind == HD_OPTION_TEXT) {
        *(const char **)option->value = text;
    } else if (option->kind == HD_OPTION_TEXTS) {
        hd_texts *list = option->value;
        const char **more = realloc(list->text, (size_t)(list->count + 1) * sizeof *more);
        if (!more) hd_app_fail("out of memory");
        more[list->count++] = text;
        list->text = more;
    } else if (option->kind == HD_OPTION_COUNT) {
        long long value = strtoll(text, &end, 10);
        if (end == text || *end || errno || (double)value < option->low || (double)value > option->high)
            hd_app_fail("--%s %s: must be a whole number from %.0f to %.0f", option->name, text, option->low, option->high);
        *(int64_t *)option->value = value;
    } else {
        double value = strtod(text, &end);
        if (end == text || *end || !(value >= option->low && value <= option->high))
            hd_app_fail("--%s %s: must be a number from %g to %g", option->name, text, option->low, option->high);
        *(double *)option->value = value;
    }
}

int hd_options_parse(hd_command *command, int argc, char **argv)
{
    int positionals = 0;
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i];
        if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
            print_help(command);
            exit(0);
        }
        if (text[0] != '-' || !text[1]) {
            if (positionals >= command->positionals) fail_unknown(command, "unexpected argument", text);
            command->positional[positionals++] = text;
            continue;
        }
        if (strcmp(text, "-o") == 0 && find(command, "out", 3)) text = "--out";
        if (text[1] != '-') fail_unknown(command, "unknown flag", text);
        const char *name = text + 2, *equals = strchr(name, '=');
        hd_option *option = find(command, name, equals ? (size_t)(equals - name) : strlen(name));
        if (!option) fail_unknown(command, "unknown flag", text);
        option->given = true;
        if (option->kind == HD_OPTION_FLAG) {
            if (equals) hd_app_fail("--%s takes no value", option->name);
            *(bool *)option->value = true;
        } else if (equals) {
            set(option, equals + 1);
        } else {
            if (i + 1 >= argc) hd_app_fail("--%s needs a value: %s", option->name, option->argument);
            set(option, argv[++i]);
        }
    }
    return positionals;
}

bool hd_options_given(const hd_command *command, const char *name)
{
    const hd_option *option = find(command, name, strlen(name));
    return option && option->given;
}
