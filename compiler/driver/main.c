/* The command line. */
#include "driver.h"
#include "../tune/tune.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char help[] =
    "heddle " HD_VERSION ": compiles Sparse Transformers to C\n\n"
    "  heddle build SPEC -o PROGRAM [--keep DIR]   a program that trains, evaluates, samples (PROGRAM --help)\n"
    "               --weights W: checked against the model (safetensors or a checkpoint folder); --embed: put into the program\n"
    "  heddle pack  SPEC -o FILE [--weights W]     weights as the model reads them, to be mapped and used in place by an app\n"
    "  heddle emit  SPEC -o DIR                    the C sources, for embedding in another program\n"
    "  heddle check SPEC                           compiled code against the reference interpreter: outputs and gradients\n"
    "  heddle view  SPEC -o FILE.svg|.html         a page to look at: patterns, reach, graph, memory plan, kernels (--query I marks a row)\n"
    "  heddle info  SPEC [--json]                  parameters, memory, FLOPs, and the time that each entry will take\n"
    "  heddle tune  SPEC                           times variants of the kernels on this machine; what is faster is kept as records, which the\n"
    "                                              other commands use: --minutes M (5) --trials N --explain --runner CMD --database FILE --start worst\n"
    "  heddle import FOLDER -o SPEC.lua            what a checkpoint folder is, as a spec to read and to change\n\n"
    "SPEC is a Lua file, or a checkpoint folder of the Hugging Face hub (config.json and *.safetensors). Every command takes:\n"
    "  -D KEY=VALUE       sets a key of the spec's hd.config\n"
    "  --target T         native (default), x86-64-v4, x86-64-v3, x86-64-v1; or x86-64: build and check then make one program for all\n"
    "                     three, which picks at its start (HEDDLE_CPU=x86-64-v3 in its environment: that one); other commands take v1\n"
    "  --cc CC            the C compiler: clang 14 or newer, gcc 12 or newer; default: the newest clang\n"
    "  --entries E,F      only these entries of the model (forward, loss, train_step, ...): a smaller program that does less\n"
    "  --memory BYTES     what weights, state and scratch may need (suffixes K, M, G): training computes again what does not fit, at the\n"
    "                     least cost, and fails if nothing fits; heddle info prints the choices. Without it, what hd.recompute marks\n"
    "  --dump PASS        print the graph after graph, simplify or recompute, the covers (patterns), or the steps and their memory (plan)\n"
    "  --keep DIR         keep the generated sources\n"
    "  --sanitize         generated code and runtime with the address and undefined-behaviour sanitizers\n"
    "  --tolerance X      check: worst error allowed, as a share of the largest value\n"
    "  --threads T        that programs will run with (tuning records timed so are preferred); default: one for each core\n"
    "  --cpu C            take tuning records of this machine, as records name it, or generic: none; default: the one heddle runs on\n"
    "  -j N               compilers run at once; default: one for each core\n"
    "  -v                 say what is done\n";

static int64_t bytes_of(const char *text)
{
    char *end;
    const double value = strtod(text, &end);
    double unit = 1;
    if (*end == 'K' || *end == 'k') unit = 1 << 10, end++;
    else if (*end == 'M' || *end == 'm') unit = 1 << 20, end++;
    else if (*end == 'G' || *end == 'g') unit = 1 << 30, end++;
    if (*end || end == text || !(value > 0) || value * unit > 1e18) hd_fail((hd_where){ "--memory", 0 }, "\"%s\" is no amount of memory; examples: 800M, 16G", text);
    return (int64_t)(value * unit);
}

static double share_of(const char *text)
{
    char *end;
    const double value = strtod(text, &end);
    if (*end || end == text || !(value > 0 && value < 1)) hd_fail((hd_where){ "--tolerance", 0 }, "\"%s\" is no share of a tensor's largest value; example: 1e-4", text);
    return value;
}

static int count_of(const char *flag, const char *text, const char *what, long most)
{
    char *end;
    const long value = strtol(text, &end, 10);
    if (*end || end == text || value < 1 || value > most) hd_fail((hd_where){ flag, 0 }, "\"%s\" is no number of %s; 1 to %ld", text, what, most);
    return (int)value;
}

static double minutes_of(const char *text)
{
    char *end;
    const double value = strtod(text, &end);
    if (*end || end == text || !(value > 0 && value <= 1e5)) hd_fail((hd_where){ "--minutes", 0 }, "\"%s\" is no number of minutes; example: 5", text);
    return value;
}

int hd_command_build(const hd_options *o)
{
    if (!o->out) hd_fail((hd_where){ 0 }, "build needs -o PROGRAM");
    struct stat s;
    struct stat spec;
    if (!stat(o->out, &s) && S_ISDIR(s.st_mode)) hd_fail((hd_where){ o->out, 0 }, "is a folder; give the program's file name");
    if (!stat(o->out, &s) && !S_ISREG(s.st_mode)) hd_fail((hd_where){ o->out, 0 }, "is no regular file; give the program's file name");
    if (!stat(o->out, &s) && !stat(o->spec, &spec) && s.st_dev == spec.st_dev && s.st_ino == spec.st_ino) hd_fail((hd_where){ o->out, 0 }, "is the spec itself; give the program another name");
    const hd_model *m = hd_compile(o, true, NULL);
    const char *folder = o->keep ? o->keep : hd_temporary_folder();
    hd_files_write(m, folder);
    hd_build_weights(o, m, folder);
    hd_cc_program(o, m, folder, o->out);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int (*run)(const hd_options *); } commands[] = {
        { "build", hd_command_build }, { "emit", hd_command_emit }, { "check", hd_command_check }, { "view", hd_command_view }, { "info", hd_command_info },
        { "tune", hd_command_tune }, { "import", hd_command_import }, { "pack", hd_command_pack },
    };
    signal(SIGXFSZ, SIG_IGN);      /* a limit of file sizes then is an error of writing, with a message */
    hd_options o = { .jobs = (int)sysconf(_SC_NPROCESSORS_ONLN) };
    const char *target = "native";
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))) { fputs(help, stdout); return 0; }
    if (argc > 1 && !strcmp(argv[1], "--version")) { puts("heddle " HD_VERSION); return 0; }
    if (argc < 2) { fputs(help, stderr); return 1; }
    o.command = argv[1];
    int (*run)(const hd_options *) = NULL;
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) if (!strcmp(o.command, commands[i].name)) run = commands[i].run;
    if (!run) hd_fail((hd_where){ 0 }, "no command is called \"%s\"; commands: build, emit, check, import, info, pack, tune, view (heddle --help)", o.command);

    for (int i = 2; i < argc; i++) {
        char *a = argv[i], *equals = strchr(a, '=');
        static const struct { const char *flag; bool value; } flags[] = {
            { "-o", true }, { "-D", true }, { "--target", true }, { "--cc", true }, { "--memory", true }, { "--dump", true }, { "--keep", true }, { "-j", true },
            { "-v", false }, { "--json", false }, { "--sanitize", false }, { "--help", false }, { "--tolerance", true }, { "--query", true },
            { "--threads", true }, { "--cpu", true }, { "--database", true }, { "--runner", true }, { "--start", true }, { "--minutes", true }, { "--trials", true }, { "--explain", false }, { "--weights", true }, { "--entries", true }, { "--embed", false },
        };
        if (*a != '-' || !a[1]) {
            if (o.spec) hd_fail((hd_where){ 0 }, "more than one spec: %s and %s", o.spec, a);
            if (!*a) hd_fail((hd_where){ 0 }, "the name of the spec is empty");
            o.spec = a;
            continue;
        }
        int found = -1;
        const char *value = NULL;
        for (unsigned k = 0; k < sizeof flags / sizeof *flags; k++) {
            const size_t n = strlen(flags[k].flag);
            if (!strcmp(a, flags[k].flag)) found = (int)k;
            else if (a[1] == '-' && equals && (size_t)(equals - a) == n && !strncmp(a, flags[k].flag, n) && flags[k].value) found = (int)k, value = equals + 1;
            else if (n == 2 && a[1] != '-' && flags[k].value && !strncmp(a, flags[k].flag, 2)) found = (int)k, value = a + 2;
        }
        if (found < 0) hd_fail((hd_where){ 0 }, "unknown flag \"%s\"; flags: -o -D --target --cc --entries --memory --dump --keep --query --sanitize --threads --cpu -j -v --json, of build and pack --weights --embed, and of tune --minutes --trials --explain --runner --database --start (heddle --help)", a);
        const char *flag = flags[found].flag;
        if (flags[found].value && !value) {
            if (i + 1 == argc) hd_fail((hd_where){ 0 }, "%s needs a value", flag);
            value = argv[++i];
        }
        if (value && !*value) hd_fail((hd_where){ 0 }, "%s has an empty value", flag);
        if (!strcmp(flag, "-o")) o.out = value;
        else if (!strcmp(flag, "-D")) {
            if (!strchr(value, '=')) hd_fail((hd_where){ "-D", 0 }, "\"%s\" is not KEY=VALUE", value);
            if (o.defines == 64) hd_fail((hd_where){ "-D", 0 }, "given more than 64 times");
            o.define[o.defines++] = value;
        } else if (!strcmp(flag, "--target")) target = value;
        else if (!strcmp(flag, "--cc")) o.cc = value;
        else if (!strcmp(flag, "--memory")) o.memory = bytes_of(value);
        else if (!strcmp(flag, "--dump")) o.dump = value;
        else if (!strcmp(flag, "--keep")) o.keep = value;
        else if (!strcmp(flag, "--tolerance")) o.tolerance = share_of(value);
        else if (!strcmp(flag, "--query")) o.query = value;
        else if (!strcmp(flag, "--cpu")) o.cpu = value;
        else if (!strcmp(flag, "--database")) o.database = value;
        else if (!strcmp(flag, "--runner")) o.runner = value;
        else if (!strcmp(flag, "--start")) o.start = value;
        else if (!strcmp(flag, "--explain")) o.explain = true;
        else if (!strcmp(flag, "--minutes")) o.minutes = minutes_of(value);
        else if (!strcmp(flag, "--threads")) o.threads = count_of(flag, value, "threads", 256);
        else if (!strcmp(flag, "--trials")) o.trials = count_of(flag, value, "variants", 1000000);
        else if (!strcmp(flag, "-j")) {
            o.jobs = atoi(value);
            if (o.jobs < 1) hd_fail((hd_where){ "-j", 0 }, "\"%s\" is no number of compilers; 1 or more", value);
        } else if (!strcmp(flag, "--weights")) o.weights = value;
        else if (!strcmp(flag, "--entries")) o.entries = value;
        else if (!strcmp(flag, "--embed")) o.embed = true;
        else if (!strcmp(flag, "-v")) o.verbose = true;
        else if (!strcmp(flag, "--json")) o.json = true;
        else if (!strcmp(flag, "--sanitize")) o.sanitize = true;
        else { fputs(help, stdout); return 0; }
    }
    if (!o.spec) hd_fail((hd_where){ 0 }, "%s needs a SPEC: a Lua file such as models/text.lua, or a checkpoint folder", o.command);
    if (access(o.spec, R_OK)) hd_fail((hd_where){ o.spec, 0 }, "%s", strerror(errno));
    o.target = hd_target_find(target);
    if (!o.target) hd_fail((hd_where){ "--target", 0 }, "no target is called \"%s\"; targets: %s", target, hd_target_names());
    return run(&o);
}
