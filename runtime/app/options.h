/* Command line flags as tables: --name value, --name=value; '-' and '_' in names are the same; -o is --out. */
#ifndef HD_OPTIONS_H
#define HD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum hd_option_kind { HD_OPTION_FLAG, HD_OPTION_COUNT, HD_OPTION_REAL, HD_OPTION_TEXT, HD_OPTION_TEXTS } hd_option_kind;

/* Of a flag that may be given several times, all its texts in order. */
typedef struct hd_texts { int count; const char **text; } hd_texts;

typedef struct hd_option {
    const char *name, *argument;     /* "steps", "N"; argument NULL for flags */
    hd_option_kind kind;
    void *value;                     /* bool, int64_t, double, const char *, hd_texts: holds the default; one outside the range means: not given */
    double low, high;                /* counts and reals: inclusive range */
    const char *help;
    bool given;
} hd_option;

typedef struct hd_command {
    const char *name, *arguments, *summary;   /* "run", "ENTRY", one line */
    hd_option *option;
    int options;
    const char **positional;         /* filled; positionals is their largest number */
    int positionals;
} hd_command;

/* Sets option values from argv[1..]; fails with one line that names the valid flags. --help prints and exits 0.
 * Returns the number of positional arguments. */
int hd_options_parse(hd_command *, int argc, char **argv);
bool hd_options_given(const hd_command *, const char *name);

#endif
