/* The commands: what the user asked for, the pipeline, and the C compiler behind it. */
#ifndef HD_DRIVER_H
#define HD_DRIVER_H

#include "../emit/emit.h"

#define HD_VERSION "0.1"

typedef struct hd_options {
    const char *command, *spec, *out, *cc, *dump, *keep, *weights, *query;
    const hd_target *target;
    int64_t memory;                        /* bytes a plan may use; 0: no limit */
    int defines; const char *define[64];   /* "key=value" */
    bool verbose, json, sanitize, embed;   /* embed: weights go into the program */
    int jobs;                              /* compilers run at once */
    double tolerance;
    int threads;                           /* that programs will have: records timed so are preferred; 0: as many as processors */
    const char *cpu;                       /* whose tuning records are taken: a machine as records name it, "generic": none; NULL: this one's */
    const char *entries;                   /* those that the program or the sources are to have, separated by commas; NULL: all */
    const char *database, *runner, *start; /* tune: file of records, command that runs programs elsewhere, what to begin from */
    double minutes;
    int trials;                            /* tune: variants of each operator at most; 0: as many as help */
    bool explain;
} hd_options;

/* Where heddle's own files are: beside the build tree's executable, or under PREFIX/share/heddle. */
typedef struct hd_folders { const char *templates, *library, *expander, *core, *app, *objects, *tune, *shipped, *families; } hd_folders;
const hd_folders *hd_folders_find(void);

/* The graph of the spec, a Lua file or a checkpoint folder. */
hd_graph *hd_load(const hd_options *);
/* The pipeline: every pass in order. extra, if given, may add entries to the graph before it is simplified.
 * info: for a program, so with the target's better variants (model->better). */
hd_model *hd_compile(const hd_options *, bool info, void (*extra)(hd_graph *));

/* The graph lowered once more, with the tuning records there are now. */
hd_model *hd_compile_again(const hd_options *, const hd_model *);

/* The C compiler by name or path, or the newest found (clang before gcc). Fails with what to install. */
const char *hd_cc_find(const char *wanted);
const char *hd_cc_version(const char *cc);
/* The compiler's version and all flags that objects for the target are made with. */
const char *hd_cc_identity(const hd_options *, const hd_target *);
/* Compiles the C files `source` to `object`s, several at once, with the tuning program's headers. kept[i]: through the object cache.
 * said[i]: what the compiler said where it failed, else NULL. */
void hd_cc_objects(const hd_options *, const hd_target *, int files, const char *const *source, const char *const *object, const bool *kept, const char **said);
/* Links objects, as text arguments, into `out`; false with what was said. */
bool hd_cc_link(const hd_options *, int objects, const char *const *object, const char *out, const char **said);
/* ~/.cache/heddle, or $HEDDLE_CACHE; NULL when it cannot be made, or is "off": then the usual one `anyway`, or NULL. */
const char *hd_cache_folder(bool anyway);
/* Compiles model->file in `folder` (where the files have been written), those of its variants too, and links the program. */
void hd_cc_program(const hd_options *, const hd_model *, const char *folder, const char *out);
void hd_files_write(const hd_model *, const char *folder);
/* Weights that build was given, or that lie in the checkpoint folder: checked against the model, and with --embed written to `folder` as
 * NAME_weights.o. */
void hd_build_weights(const hd_options *, const hd_model *, const char *folder);
char *hd_temporary_folder(void);           /* removed at exit, whatever happens */
/* Runs argv without a shell; output: its stdout and stderr together, or NULL to let them through. Returns the exit status, 127 when it cannot start. */
int hd_run_program(const char *const *argv, char **output);
/* The same for at most so many seconds, then it is killed with all it started: -1. */
int hd_run_program_for(const char *const *argv, char **output, double seconds);

int hd_command_build(const hd_options *);
int hd_command_emit(const hd_options *);
int hd_command_check(const hd_options *);
int hd_command_info(const hd_options *);
int hd_command_view(const hd_options *);
int hd_command_import(const hd_options *);
int hd_command_pack(const hd_options *);

#endif
