/* The C compiler behind heddle: found by name, run without a shell, several at once, its objects cached by content. */
#include "driver.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char *in_path(const char *name)
{
    if (strchr(name, '/')) return access(name, X_OK) == 0 ? name : NULL;
    const char *path = getenv("PATH");
    while (path && *path) {
        const size_t n = strcspn(path, ":");
        const char *file = hd_format("%.*s/%s", (int)n, path, name);
        if (access(file, X_OK) == 0) return file;
        path += n + (path[n] == ':');
    }
    return NULL;
}

const char *hd_cc_find(const char *wanted)
{
    static const char *found;
    if (wanted) {
        const char *file = in_path(wanted);
        if (!file) hd_fail((hd_where){ "--cc", 0 }, "there is no compiler \"%s\"; give the name or path of clang (14 or newer) or gcc (12 or newer)", wanted);
        return file;
    }
    for (int version = 40; !found && version >= 14; version--) found = in_path(hd_format("clang-%d", version));
    if (!found) found = in_path("clang");
    if (!found) found = in_path("gcc");
    if (!found) hd_fail((hd_where){ 0 }, "no C compiler was found; install clang (14 or newer) or gcc (12 or newer), or name one with --cc");
    return found;
}

const char *hd_cc_version(const char *cc)
{
    static const char *version;
    if (version) return version;
    char *output = NULL;
    const char *const argv[] = { cc, "--version", NULL };
    const int status = hd_run_program(argv, &output);
    output[strcspn(output, "\n")] = 0;
    if (status) hd_fail((hd_where){ cc, 0 }, "this does not run as a C compiler: %s", output);
    return version = output;
}

static bool is_clang(const char *cc) { return strstr(hd_cc_version(cc), "clang") != NULL; }

/* apart: in a process group of its own, so that it can be killed with all it started. */
static pid_t start(const char *const *argv, int output, bool apart)
{
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    if (apart) posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (output >= 0) {
        posix_spawn_file_actions_adddup2(&actions, output, 1);
        posix_spawn_file_actions_adddup2(&actions, output, 2);
    }
    pid_t child = -1;
    const int failed = posix_spawnp(&child, argv[0], &actions, &attributes, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return failed ? -1 : child;
}

static char *read_all(int fd)
{
    hd_text out = { 0 };
    char part[4096];
    ssize_t n;
    lseek(fd, 0, SEEK_SET);
    while ((n = read(fd, part, sizeof part)) > 0) hd_text_addn(&out, part, (size_t)n);
    return out.data ? out.data : hd_strdup("");
}

static const char *temporary_base(void)
{
    const char *base = getenv("TMPDIR");
    return base && *base ? base : "/tmp";
}

/* A nameless file for what a program prints. */
static int output_file(void)
{
    char *name = hd_format("%s/heddle-output-XXXXXX", temporary_base());
    const int fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0) hd_fail((hd_where){ name, 0 }, "cannot make a temporary file: %s", strerror(errno));
    unlink(name);
    return fd;
}

int hd_run_program(const char *const *argv, char **output)
{
    const int fd = output ? output_file() : -1;
    const pid_t child = start(argv, fd, false);
    int status = 127 << 8;
    if (child > 0) while (waitpid(child, &status, 0) < 0 && errno == EINTR) { }
    if (output) *output = read_all(fd);
    if (fd >= 0) close(fd);
    return child < 0 ? 127 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static pid_t apart;           /* what a signal that ends us must end too */

int hd_run_program_for(const char *const *argv, char **output, double seconds)
{
    const int fd = output_file();
    const pid_t child = start(argv, fd, true);
    int status = 127 << 8;
    bool ended = child < 0;
    apart = child > 0 ? child : 0;
    for (double waited = 0; !ended && waited < seconds; waited += 2e-3) {
        const pid_t got = waitpid(child, &status, WNOHANG);
        ended = got == child || (got < 0 && errno != EINTR);
        if (!ended) usleep(2000);
    }
    if (!ended) {
        kill(-child, SIGKILL);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) { }
    }
    apart = 0;
    *output = read_all(fd);
    close(fd);
    if (!ended) return -1;
    return child < 0 ? 127 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void remove_folder(void *path)
{
    DIR *dir = opendir(path);
    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) unlink(hd_format("%s/%s", (char *)path, e->d_name));
    closedir(dir);
    rmdir(path);
}

static char *temporary[16];
static int temporaries;
static void remove_temporaries(void) { while (temporaries) remove_folder(temporary[--temporaries]); }
static void on_signal(int signal)
{
    if (apart) kill(-apart, SIGKILL);
    remove_temporaries();
    _exit(128 + signal);
}

char *hd_temporary_folder(void)
{
    char *path = hd_format("%s/heddle-XXXXXX", temporary_base());
    if (!mkdtemp(path)) hd_fail((hd_where){ path, 0 }, "cannot make a temporary folder: %s", strerror(errno));
    if (!temporaries) {
        atexit(remove_temporaries);
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        signal(SIGHUP, on_signal);
    }
    if (temporaries < 16) temporary[temporaries++] = path;
    return path;
}

void hd_files_write(const hd_model *m, const char *folder)
{
    if (mkdir(folder, 0777) && errno != EEXIST) hd_fail((hd_where){ folder, 0 }, "cannot make the folder: %s", strerror(errno));
    for (const hd_model *v = m; v; v = v->better)
        for (int i = 0; i < v->files; i++) hd_write_file(hd_format("%s/%s", folder, v->file[i].name), v->file[i].text, v->file[i].bytes ? v->file[i].bytes : strlen(v->file[i].text));
}

const char *hd_cache_folder(bool anyway)
{
    const char *set = getenv("HEDDLE_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (set && !strcmp(set, "off")) {
        if (!anyway) return NULL;
        set = NULL;
    }
    const char *base = xdg && *xdg ? xdg : home && *home ? hd_format("%s/.cache", home) : NULL;
    if (!set && !base) return NULL;
    const char *folder = set && *set ? set : hd_format("%s/heddle", base);
    if (base) mkdir(base, 0777);
    mkdir(folder, 0777);
    return access(folder, W_OK) == 0 ? folder : NULL;
}

static bool copy_file(const char *from, const char *to)
{
    size_t bytes = 0;
    FILE *f = fopen(from, "rb");
    if (!f) return false;
    fseek(f, 0, SEEK_END);
    bytes = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(bytes + 1);
    const bool read = data && fread(data, 1, bytes, f) == bytes;
    fclose(f);
    const char *temporary_name = hd_format("%s.%ld", to, (long)getpid());
    FILE *t = read ? fopen(temporary_name, "wb") : NULL;
    bool done = t && fwrite(data, 1, bytes, t) == bytes;
    if (t && fclose(t)) done = false;
    free(data);
    if (done && rename(temporary_name, to)) done = false;
    if (!done) unlink(temporary_name);
    return done;
}

enum { MOST_FLAGS = 64 };

typedef struct job { const char *const *flag; const char *source, *object, *cached, *failed; bool may_fail; pid_t child; int output; size_t bytes; } job;

static int largest_first(const void *a, const void *b)
{
    const job *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes ? 1 : -1) : strcmp(x->source, y->source);
}

static void finish(job *jobs, int count, const hd_options *o)
{
    int status = 0;
    pid_t done;
    while ((done = wait(&status)) < 0 && errno == EINTR) { }
    for (int i = 0; i < count; i++) {
        if (jobs[i].child != done) continue;
        jobs[i].child = 0;
        char *said = read_all(jobs[i].output);
        close(jobs[i].output);
        if (!WIFEXITED(status) || WEXITSTATUS(status)) {
            if (jobs[i].may_fail) { jobs[i].failed = *said ? said : "the C compiler failed"; continue; }
            fputs(said, stderr);
            hd_fail((hd_where){ o->spec, 0 }, "the C compiler failed on %s; this is a fault of heddle's templates, or the compiler is too old (clang 14 or gcc 12 at least)", jobs[i].source);
        }
        if (*said && o->verbose) fputs(said, stderr);
        if (jobs[i].cached) copy_file(jobs[i].object, jobs[i].cached);
    }
}

/* The compiler and its flags, NULL-terminated, with room for what a file adds. */
static const char **command_for(const hd_options *o, const hd_target *target)
{
    static const char *const common[] = { "-std=c11", "-O2", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi" };
    const hd_folders *f = hd_folders_find();
    const char **argv = HD_NEW_ARRAY(const char *, MOST_FLAGS);
    int flags = 0;
    argv[flags++] = hd_cc_find(o->cc);
    for (unsigned i = 0; i < sizeof common / sizeof *common; i++) argv[flags++] = common[i];
    for (int i = 0; i < 4 && target->flags[i]; i++) argv[flags++] = target->flags[i];
    if (o->sanitize) argv[flags++] = "-fsanitize=address,undefined", argv[flags++] = "-fno-sanitize-recover=undefined";
    argv[flags++] = "-I", argv[flags++] = f->core, argv[flags++] = "-I", argv[flags++] = f->app;
    argv[flags++] = "-fno-asynchronous-unwind-tables", argv[flags++] = "-fno-unwind-tables";      /* after what hd_cc_identity tells: code is the same with them */
    return argv;
}

/* What an object depends on beside its own text and a model's headers: compiler, flags, the runtime's headers. */
static uint64_t key_of(const char *const *flag)
{
    const hd_folders *f = hd_folders_find();
    const char *version = hd_cc_version(*flag);
    uint64_t key = hd_hash(version, strlen(version), 0);
    for (int i = 1; flag[i]; i++) key = hd_hash(flag[i], strlen(flag[i]) + 1, key);
    const char *const headers[] = { hd_format("%s/hd_core.h", f->core), hd_format("%s/hd_vec.h", f->core), hd_format("%s/hd_math.h", f->core), hd_format("%s/hd_random.h", f->core),
                                    hd_format("%s/hd_pool.h", f->core), hd_format("%s/hd_model.h", f->app), hd_format("%s/hd_traffic.h", f->app), hd_format("%s/measure.h", f->tune),
                                    hd_format("%s/machine.h", f->tune) };
    for (unsigned i = 0; i < sizeof headers / sizeof *headers; i++) {
        size_t bytes = 0;
        const char *text = hd_read_file(headers[i], &bytes);
        if (text) key = hd_hash(text, bytes, key);
    }
    return key;
}

/* Takes the object from the cache if it is there (its bytes become 0), and else puts it there when it is made. */
static void use_cache(job *j, const char *cache, uint64_t key)
{
    size_t bytes = 0;
    const char *text = hd_read_file(j->source, &bytes);
    if (!text) return;
    j->cached = hd_format("%s/%016llx.o", cache, (unsigned long long)hd_hash(text, bytes, key));
    if (copy_file(j->cached, j->object)) j->bytes = 0;
}

/* The objects of one variant: adds to jobs, taking those that the cache holds (their bytes become 0). Returns the new count. */
static int add_jobs(job *jobs, int count, const hd_options *o, const hd_model *m, const char *folder)
{
    const char *const *flag = command_for(o, m->target), *cache = hd_cache_folder(false);
    uint64_t key = key_of(flag);
    const int first = count;
    for (int i = 0; i < m->files; i++) {
        if (m->file[i].bytes) continue;           /* the tokenizer's tables, whose hash the file that takes them in holds */
        if (m->file[i].header) { key = hd_hash(m->file[i].text, strlen(m->file[i].text), key); continue; }
        job *j = &jobs[count++];
        j->flag = flag;
        j->source = hd_format("%s/%s", folder, m->file[i].name);
        j->object = hd_format("%.*s.o", (int)strlen(j->source) - 2, j->source);
        j->bytes = strlen(m->file[i].text);
    }
    for (int i = first; cache && i < count; i++) use_cache(&jobs[i], cache, key);
    return count;
}

static void start_job(job *j)
{
    const char *argv[MOST_FLAGS];
    int n = 0;
    for (; j->flag[n]; n++) argv[n] = j->flag[n];
    argv[n++] = hd_format("-Wa,-I%.*s", (int)(strrchr(j->source, '/') - j->source), j->source);       /* where .incbin looks */
    const char *const tail[] = { "-c", j->source, "-o", j->object, NULL };
    memcpy(argv + n, tail, sizeof tail);
    j->output = output_file();
    j->child = start(argv, j->output, false);
    if (j->child < 0) hd_fail((hd_where){ *argv, 0 }, "the compiler could not be started: %s", strerror(errno));
}

static void run_jobs(job *jobs, int count, const hd_options *o)
{
    int running = 0;
    for (int i = 0; i < count; i++) {
        if (!jobs[i].bytes) continue;
        if (running == o->jobs) finish(jobs, count, o), running--;
        start_job(&jobs[i]);
        running++;
    }
    while (running--) finish(jobs, count, o);
}

bool hd_cc_link(const hd_options *o, int objects, const char *const *object, const char *out, const char **said)
{
    const char *cc = hd_cc_find(o->cc);
    int n = 0;
    const char **link = HD_NEW_ARRAY(const char *, objects + 32);
    link[n++] = cc;
    if (o->sanitize) link[n++] = "-fsanitize=address,undefined";
    for (int i = 0; i < objects; i++) link[n++] = object[i];
    if (is_clang(cc)) {
        const char *digits = strrchr(cc, '-');
        const char *own = digits ? in_path(hd_format("ld.lld%s", digits)) : NULL;
        if (own || in_path("ld.lld")) link[n++] = own ? hd_format("--ld-path=%s", own) : "-fuse-ld=lld";
    }
    const char *const tail[] = { "-lpthread", "-lm", "-Wl,--gc-sections", "-o", out, NULL };
    memcpy(link + n, tail, sizeof tail);
    char *text = NULL;
    const int status = hd_run_program(link, &text);
    *said = text;
    return status == 0;
}

const char *hd_cc_identity(const hd_options *o, const hd_target *target)
{
    const char *const *flag = command_for(o, target);
    hd_text out = { 0 };
    hd_text_add(&out, "%s", hd_cc_version(*flag));
    for (int i = 1; flag[i] && strcmp(flag[i], "-I"); i++) hd_text_add(&out, " %s", flag[i]);      /* where heddle lies does not matter */
    return out.data;
}

void hd_cc_objects(const hd_options *o, const hd_target *target, int files, const char *const *source, const char *const *object, const bool *kept, const char **said)
{
    const hd_folders *f = hd_folders_find();
    const char **flag = command_for(o, target);
    int n = 0;
    while (flag[n]) n++;
    flag[n++] = "-D_GNU_SOURCE", flag[n++] = "-I", flag[n++] = f->tune;
    job *jobs = HD_NEW_ARRAY(job, files);
    const char *cache = hd_cache_folder(false);
    const uint64_t key = key_of(flag);
    for (int i = 0; i < files; i++) {
        jobs[i] = (job){ .flag = flag, .source = source[i], .object = object[i], .may_fail = true, .bytes = 1 };
        if (kept[i] && cache) use_cache(&jobs[i], cache, key);
    }
    run_jobs(jobs, files, o);
    for (int i = 0; i < files; i++) said[i] = jobs[i].failed;
}

void hd_cc_program(const hd_options *o, const hd_model *m, const char *folder, const char *out)
{
    const char *runtime = hd_format("%s/libheddle_app%s.a", hd_folders_find()->objects, o->sanitize ? "_asan" : "");
    int files = 0, count = 0;
    if (o->sanitize && access(runtime, R_OK)) hd_fail((hd_where){ "--sanitize", 0 }, "there is no %s; in heddle's source folder, make build/lib/libheddle_app_asan.a makes it", runtime);
    for (const hd_model *v = m; v; v = v->better) files += v->files;
    job *jobs = HD_NEW_ARRAY(job, files);
    for (const hd_model *v = m; v; v = v->better) count = add_jobs(jobs, count, o, v, folder);
    const char **object = HD_NEW_ARRAY(const char *, count);      /* linked in the files' order, whatever the cache held: same spec, same program */
    for (int i = 0; i < count; i++) object[i] = jobs[i].object;
    qsort(jobs, (size_t)count, sizeof *jobs, largest_first);
    run_jobs(jobs, count, o);

    const char **all = HD_NEW_ARRAY(const char *, count + 6), *said;
    int inputs = count;
    memcpy(all, object, sizeof *all * (size_t)count);
    if (m->own_weights) all[inputs++] = hd_format("%s/%s_weights.o", folder, m->graph->name);
    all[inputs++] = runtime;
    all[inputs++] = "-l:libjansson.a";
    if (m->tokenizer_regex) all[inputs++] = "-l:libpcre2-8.a";
    if (m->graph->output.kind == HD_OUTPUT_IMAGE) all[inputs++] = "-l:libpng16.a", all[inputs++] = "-l:libz.a";
    if (m->graph->output.kind == HD_OUTPUT_SOUND) all[inputs++] = "-lsndfile";
    const char *made = hd_format("%s/program", folder);
    if (!hd_cc_link(o, inputs, all, made, &said)) {
        fputs(said, stderr);
        hd_fail((hd_where){ o->spec, 0 }, "linking failed; is heddle's runtime built (make), and are the packages that ./setup names installed?");
    }
    unlink(hd_format("%s.new", out));
    if (rename(made, out) && !copy_file(made, out)) hd_fail((hd_where){ out, 0 }, "cannot be written: %s", strerror(errno));      /* renamed where both are on one file system */
    chmod(out, 0755);
    unlink(made);
    for (int i = 0; i < count; i++) unlink(jobs[i].object);
    if (m->own_weights) unlink(hd_format("%s/%s_weights.o", folder, m->graph->name));
}
