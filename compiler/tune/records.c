/* Records: their text, their files, and which of them fits (tune.h has the format). */
#include "tune.h"
#include "../driver/driver.h"
#include "../../runtime/tune/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 1, FIELDS = 10, MOST_FILE_BYTES = 64 << 20 };

char *hd_record_text(const hd_record *r)
{
    return hd_format("%d | %s | %s | %s | %s | %s | %s | threads=%d | %s | ns=%.0f default_ns=%.0f noise=%.4f", VERSION, r->op, r->problem, r->machine,
                     r->target, r->compiler, r->templates, r->threads, r->choice, r->nanoseconds, r->default_nanoseconds, r->noise);
}

const char *hd_record_parse(const char *line, hd_record *r)
{
    *r = (hd_record){ 0 };
    line += strspn(line, " \t\r");
    if (!*line || *line == '#') return NULL;
    char *field[FIELDS], *text = hd_strdup(line), *end;
    text[strcspn(text, "\r")] = 0;
    const long version = strtol(text, &end, 10);
    if (end == text || (*end && strncmp(end, " | ", 3))) return "no tuning record: it does not begin with a version";
    if (version != VERSION) return hd_format("a tuning record of version %ld, and this heddle reads version %d; tune again, or use the heddle that wrote it", version, VERSION);
    int fields = 0;
    for (char *at = text; at && fields < FIELDS; fields++) {
        field[fields] = at;
        at = strstr(at, " | ");
        if (at) *at = 0, at += 3;
        if (at && fields == FIELDS - 1) return hd_format("no tuning record: more than %d fields", FIELDS);
    }
    if (fields < FIELDS) return hd_format("no tuning record: %d fields of %d", fields, FIELDS);
    for (int i = 1; i < FIELDS; i++) {
        if (!*field[i]) return hd_format("no tuning record: field %d is empty", i + 1);
        for (const char *c = field[i]; *c; c++) if ((unsigned char)*c < ' ' || (unsigned char)*c > '~') return hd_format("no tuning record: field %d holds what is no text", i + 1);
    }
    int used = 0;
    hd_record made = { .op = field[1], .problem = field[2], .machine = field[3], .target = field[4], .compiler = field[5], .templates = field[6], .choice = field[8] };
    if (sscanf(field[7], "threads=%d%n", &made.threads, &used) != 1 || field[7][used] || made.threads < 1) return "no tuning record: field 8 should be threads=NUMBER";
    used = 0;
    const int numbers = sscanf(field[9], "ns=%lf default_ns=%lf noise=%lf%n", &made.nanoseconds, &made.default_nanoseconds, &made.noise, &used);
    if (numbers != 3 || field[9][used] || !(made.nanoseconds > 0) || !(made.default_nanoseconds > 0))
        return "no tuning record: its last field should be ns=TIME default_ns=TIME noise=SHARE";
    *r = made;
    return NULL;
}

/* The file's lines, each in its own memory; NULL-terminated. */
static char **lines_of(const char *path)
{
    int count = 0, capacity = 0;
    char **line = NULL;
    struct stat s;
    size_t bytes = 0;
    if (!stat(path, &s) && (!S_ISREG(s.st_mode) || s.st_size > MOST_FILE_BYTES)) {
        hd_warn((hd_where){ path, 0 }, "is no file of tuning records; ignored");
        return HD_NEW(char *);
    }
    const char *text = hd_read_file(path, &bytes);
    if (!text && errno != ENOENT) hd_warn((hd_where){ path, 0 }, "cannot be read: %s", strerror(errno));
    for (size_t at = 0; text && at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        const size_t length = end ? (size_t)(end - text) - at : bytes - at;
        HD_PUSH(line, count, capacity, hd_format("%.*s", (int)length, text + at));
        at += length + 1;
    }
    HD_PUSH(line, count, capacity, NULL);
    return line;
}

void hd_records_read(hd_records *records, const char *path)
{
    enum { MOST_NAMED = 5 };
    char **line = lines_of(path);
    int skipped = 0;
    for (int i = 0; line[i]; i++) {
        hd_record r;
        const char *wrong = hd_record_parse(line[i], &r);
        if (wrong && skipped++ < MOST_NAMED) hd_warn((hd_where){ path, i + 1 }, "%s; skipped", wrong);
        if (wrong || !r.op) continue;
        r.file = path, r.line = i + 1;
        HD_PUSH(records->record, records->count, records->capacity, r);
    }
    if (skipped > MOST_NAMED) hd_warn((hd_where){ path, 0 }, "%d more lines were skipped likewise", skipped - MOST_NAMED);
}

static bool same(const char *a, const char *b) { return !strcmp(a, b); }

static bool same_key(const hd_record *a, const hd_record *b)
{
    return same(a->op, b->op) && same(a->problem, b->problem) && same(a->machine, b->machine) && same(a->target, b->target) && same(a->compiler, b->compiler)
           && same(a->templates, b->templates) && a->threads == b->threads;
}

/* The folder of a database, made if it is not there, open. */
static int open_folder(const char *path)
{
    char *folder = hd_strdup(path), *slash = strrchr(folder, '/');
    if (slash > folder) *slash = 0, mkdir(folder, 0777);
    const char *name = !slash ? "." : slash == folder ? "/" : folder;
    const int fd = access(name, W_OK) ? -1 : open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) hd_fail((hd_where){ path, 0 }, "cannot write tuning records: %s; --database FILE names another place", strerror(errno));
    return fd;
}

void hd_records_writable(const char *path) { close(open_folder(path)); }

void hd_records_store(const char *path, const hd_record *record, int count)
{
    const int fd = open_folder(path);      /* writers lock the folder: the file itself is replaced, and a lock on what was replaced holds nobody */
    while (flock(fd, LOCK_EX) && errno == EINTR) { }
    hd_text out = { 0 };
    char **line = lines_of(path);
    for (int i = 0; line[i]; i++) {
        hd_record old;
        bool superseded = !hd_record_parse(line[i], &old) && old.op;
        if (superseded) {
            superseded = false;
            for (int k = 0; k < count; k++) superseded = superseded || same_key(&old, &record[k]);
        }
        if (!superseded) hd_text_add(&out, "%s\n", line[i]);
    }
    if (!line[0]) hd_text_add(&out, "# Tuning records of heddle: version | operator | its constants | machine | target | compiler | kernel sources | threads | choice | times\n");
    for (int k = 0; k < count; k++) hd_text_add(&out, "%s\n", hd_record_text(&record[k]));
    hd_write_file(path, out.data, out.length);
    close(fd);
}

/* ---- what this run's records are keyed with ---- */

const char *hd_tuning_file(const hd_options *o)
{
    const char *set = getenv("HEDDLE_TUNING");
    if (o->database) return o->database;
    if (set && same(set, "off")) return NULL;
    if (set && *set) return set;
    const char *cache = hd_cache_folder(true);
    return cache ? hd_format("%s/tuning.txt", cache) : NULL;
}

hd_tuning *hd_tuning_open(const hd_options *o, const hd_target *target)
{
    const char *set = getenv("HEDDLE_TUNING");
    hd_tuning *t = HD_NEW(hd_tuning);
    char machine[256];
    t->options = o, t->target = target;
    hd_machine_text(machine, sizeof machine);
    t->machine = o->cpu ? o->cpu : hd_strdup(machine);
    t->threads = o->threads ? o->threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
    t->target_text = hd_format("vl=%d registers=%d level=%d l1=%lld l2=%lld", target->vl, target->registers, target->level, (long long)target->l1, (long long)target->l2);
    if ((set && same(set, "off") && !o->database) || same(t->machine, "generic")) return t;
    hd_records_read(&t->records, hd_folders_find()->shipped);
    const char *own = hd_tuning_file(o);
    if (own && !same(own, hd_folders_find()->shipped)) hd_records_read(&t->records, own);
    return t;
}

/* "clang-22.1.8-0123456789abcdef": for people, then all of version and flags. */
static const char *compiler_of(hd_tuning *t)
{
    if (t->compiler) return t->compiler;
    const char *identity = hd_cc_identity(t->options, t->target), *version = hd_cc_version(hd_cc_find(t->options->cc));
    const char *number = version + strcspn(version, "0123456789");
    const char *kind = strstr(version, "clang") ? "clang" : strstr(version, "gcc") || strstr(version, "GCC") ? "gcc" : "cc";
    return t->compiler = hd_format("%s-%.*s-%016llx", kind, (int)strspn(number, "0123456789."), number, (unsigned long long)hd_hash(identity, strlen(identity), 0));
}

/* Comment lines of templates leave no trace in kernels. */
static uint64_t hash_file(const char *path, uint64_t seed)
{
    size_t bytes = 0;
    const char *text = hd_read_file(path, &bytes);
    if (!text) hd_fail((hd_where){ path, 0 }, "a part of heddle is missing; run make again, or make install");
    for (const char *at = text; *at;) {
        const size_t length = strcspn(at, "\n") + 1;
        if (strncmp(at + strspn(at, " "), "@--", 3)) seed = hd_hash(at, at[length - 1] ? length : length - 1, seed);
        at += at[length - 1] ? length : length - 1;
    }
    return seed;
}

static const char *templates_of(hd_tuning *t, const char *op)
{
    static const char *const product[] = { "product.c.tmpl", NULL };
    static const char *const attention[] = {
        "attention.tmpl", "attention_tiles.tmpl", "attention_fwd.c.tmpl", "attention_bwd.c.tmpl", "attention_rows.tmpl", "attention_rows_fwd.c.tmpl", "attention_rows_bwd.c.tmpl",
        "attention_edges.tmpl", "attention_edges_fwd.c.tmpl", "attention_edges_bwd.c.tmpl", "attention_stencil.tmpl", "attention_stencil_kept.tmpl", "attention_stencil_fwd.c.tmpl",
        "attention_stencil_bwd.c.tmpl", NULL };
    const int which = !same(op, "product");
    if (t->templates[which]) return t->templates[which];
    const hd_folders *f = hd_folders_find();
    uint64_t hash = 0;
    for (const char *const *name = which ? attention : product; *name; name++) hash = hash_file(hd_format("%s/%s", f->templates, *name), hash);
    static const char *const core[] = { "hd_core.h", "hd_vec.h", "hd_math.h", "hd_random.h" };
    for (unsigned i = 0; i < sizeof core / sizeof *core; i++) hash = hash_file(hd_format("%s/%s", f->core, core[i]), hash);
    return t->templates[which] = hd_format("templates=%016llx", (unsigned long long)hash);
}

hd_record hd_tuning_key(hd_tuning *t, const char *op, const char *problem)
{
    return (hd_record){ .op = op, .problem = problem, .machine = t->machine, .target = t->target_text, .compiler = compiler_of(t), .templates = templates_of(t, op),
                        .threads = t->threads };
}

const hd_record *hd_tuning_find(hd_tuning *t, const char *op, const char *problem)
{
    const hd_record *best = NULL;
    for (int i = 0; i < t->records.count; i++) {
        const hd_record *r = &t->records.record[i];
        if (!same(r->op, op) || !same(r->problem, problem)) continue;
        if (!same(r->machine, t->machine)) { t->foreign_machine++; continue; }
        if (!same(r->target, t->target_text)) { t->foreign_target++; continue; }
        if (!same(r->templates, templates_of(t, op))) { t->foreign_templates++; continue; }
        if (!same(r->compiler, compiler_of(t))) { t->foreign_compiler++; continue; }
        if (!best || abs(r->threads - t->threads) <= abs(best->threads - t->threads)) best = r;
    }
    return best;
}

const hd_record *hd_tuned(hd_tuning *t, const char *op, const char *problem)
{
    if (!t) return NULL;
    for (int i = 0; i < t->uses; i++) if (same(t->use[i].op, op) && same(t->use[i].problem, problem)) return t->use[i].record;
    const hd_record *found = t->records.count ? hd_tuning_find(t, op, problem) : NULL;
    t->asked++;
    if (found) t->found++, t->other_threads += found->threads != t->threads;
    HD_PUSH(t->use, t->uses, t->use_capacity, ((struct hd_tuning_use){ op, problem, found }));
    return found;
}

void hd_tuning_refuse(hd_tuning *t, const hd_record *record, const char *why)
{
    for (int i = 0; i < t->uses; i++) {
        if (t->use[i].record != record) continue;
        t->use[i].record = NULL;
        t->found--, t->other_threads -= record->threads != t->threads, t->refused++;
    }
    hd_warn((hd_where){ record->file, record->line }, "the choice \"%s\" does not fit its problem (%s); ignored", record->choice, why);
}

const char *hd_tuning_note(const hd_tuning *t)
{
    uint64_t hash = 0;
    if (!t || !t->found) return "";
    for (int i = 0; i < t->uses; i++) {
        if (!t->use[i].record) continue;
        hash = hd_hash(t->use[i].problem, strlen(t->use[i].problem) + 1, hash);
        hash = hd_hash(t->use[i].record->choice, strlen(t->use[i].record->choice) + 1, hash);
    }
    return hd_format("%d of %d operators by tuning records, %016llx", t->found, t->asked, (unsigned long long)hash);
}

void hd_tuning_explain(const hd_tuning *t)
{
    for (int i = 0; i < t->uses; i++) {
        const hd_record *r = t->use[i].record;
        if (r) fprintf(stderr, "tuning: %s %s: %s (%.3f of the default's time; %s:%d%s)\n", r->op, r->problem, r->choice, r->nanoseconds / r->default_nanoseconds, r->file, r->line,
                       r->threads == t->threads ? "" : hd_format(", timed with %d threads", r->threads));
    }
    const struct { int count; const char *why; } passed[] = {
        { t->foreign_machine, hd_format("for another CPU (this: %s)", t->machine) }, { t->foreign_target, hd_format("for another target (this: %s)", t->target_text) },
        { t->foreign_compiler, hd_format("for another compiler or other flags (this: %s)", t->compiler) },
        { t->foreign_templates, "for other kernel sources" }, { t->refused, "whose choice does not fit" },
    };
    for (unsigned i = 0; i < sizeof passed / sizeof *passed; i++)
        if (passed[i].count) fprintf(stderr, "tuning: %d record%s ignored, %s\n", passed[i].count, passed[i].count == 1 ? "" : "s", passed[i].why);
    fprintf(stderr, "tuning: %d of %d operators by records\n", t->found, t->asked);
}
