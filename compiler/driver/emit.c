/* heddle emit: a model's sources for another program, with what it takes to build them (templates/package). */
#include "driver.h"
#include "../emit/write.h"
#include "../../runtime/app/tokenizer.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In every file, near its beginning: only files that say so are ever replaced or removed. */
static const char mark[] = "made by heddle";
enum { MARK_WITHIN = 300 };

static const char *replaced(const char *text, const char *from, const char *to)
{
    hd_text out = { 0 };
    const size_t n = strlen(from);
    for (const char *at; (at = strstr(text, from)); text = at + n) {
        hd_text_addn(&out, text, (size_t)(at - text));
        hd_text_add(&out, "%s", to);
    }
    hd_text_add(&out, "%s", text);
    return out.data;
}

static void add(hd_model *m, const char *name, const char *text)
{
    HD_PUSH(m->file, m->files, m->file_capacity, ((hd_file){ name, text, !strstr(name, ".c") || strstr(name, ".cmake"), 0 }));
}

static const char *runtime_file(const char *folder, const char *name)
{
    size_t bytes = 0;
    const char *path = hd_format("%s/%s", folder, name), *text = hd_read_file(path, &bytes);
    if (!text) hd_fail((hd_where){ path, 0 }, "heddle's runtime is not where it should be");
    return text;
}

static const char *marked(const hd_model *m, const char *name, const char *text)
{
    return hd_format("/* %s: %s %s, from its runtime. Edits here are lost. */\n%s", name, mark, m->version, text);
}

/* The runtime's headers as they are; what has symbols with the model's prefix, so that a program can hold several models. */
static void add_runtime(hd_model *m)
{
    const hd_folders *f = hd_folders_find();
    static const char *const headers[] = { "hd_core.h", "hd_vec.h", "hd_math.h", "hd_random.h" };
    for (unsigned i = 0; i < sizeof headers / sizeof *headers; i++) add(m, headers[i], marked(m, headers[i], runtime_file(f->core, headers[i])));
    const char *name = m->graph->name, *up = hd_emit_upper(name), *header = hd_format("\"%s.h\"", name), *api = hd_format("%s_API", up);
    const struct { const char *folder, *from, *to; bool language_model; } files[] = {
        { f->core, "hd_pool.h", "pool.h", false }, { f->core, "pool.c", "pool.c", false }, { f->app, "sampler.h", "sampler.h", true }, { f->app, "sampler.c", "sampler.c", true },
    };
    const char *const words[] = { "\"hd_core.h\"", header, "HD_POOL_API", api, "HD_POOL", hd_format("%s_POOL", up), "hd_pool", hd_format("%s_pool", name),
                                  "<stdbool.h>", hd_format("%s\n#include <stdbool.h>", header), "HD_SAMPLER_API", api, "HD_SAMPLER", hd_format("%s_SAMPLER", up),
                                  "\"sampler.h\"", hd_format("\"%s_sampler.h\"", name), "hd_sampl", hd_format("%s_sampl", name), "../core/", "", NULL };
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        const char *text = runtime_file(files[i].folder, files[i].from), *to = hd_format("%s_%s", name, files[i].to);
        if (files[i].language_model && !m->graph->vocab) continue;
        for (int k = 0; words[k]; k += 2) text = i == 1 && strstr(words[k], "stdbool") ? text : replaced(text, words[k], words[k + 1]);
        add(m, to, marked(m, to, text));
    }
}

/* A template of templates/package, whose @words@ become what is said here; `word` and `is` in turn, NULL at the end. */
static void add_filled(hd_model *m, const char *file, const char *const *words)
{
    const char *name = m->graph->name, *text = runtime_file(hd_format("%s/package", hd_folders_find()->templates), file);
    const char *const common[] = { "@name@", name, "@NAME@", hd_emit_upper(name), "@version@", m->version, "@spec@", hd_comment(m->graph->spec), NULL };
    for (int k = 0; common[k]; k += 2) text = replaced(text, common[k], common[k + 1]);
    for (int k = 0; words[k]; k += 2) text = replaced(text, words[k], words[k + 1]);
    add(m, replaced(file, "NAME", name), text);
}

/* Data as a string literal: compilers take a megabyte of it in a blink, where they take seconds over as many numbers. */
static const char *literal(const unsigned char *data, size_t bytes)
{
    enum { LINE = 150 };
    hd_text out = { 0 };
    for (size_t i = 0, column = 0; i < bytes; i++, column++) {
        const unsigned char c = data[i];
        const bool digit = i + 1 < bytes && data[i + 1] >= '0' && data[i + 1] <= '9';
        if (column == 0) hd_text_addn(&out, "\"", 1);
        if (c >= ' ' && c < 127 && c != '"' && c != '\\' && c != '?') hd_text_addn(&out, (const char *)&c, 1);
        else hd_text_add(&out, digit ? "\\%03o" : "\\%o", c);
        if (column == LINE / 2 || i + 1 == bytes) hd_text_addn(&out, "\"\n", 2), column = (size_t)-1;
    }
    return out.data;
}

/* The tokenizer's files in one, without what includes one another. */
static const char *tokenizer_runtime(bool regex)
{
    static const char *const files[] = { "tokenizer.h", "tokenizer_parts.h", "tokenizer.c", "tokenizer_normal.c", "tokenizer_split.c", "tokenizer_model.c", "tokenizer_regex.c" };
    hd_text out = { 0 };
    for (unsigned i = 0; i < sizeof files / sizeof *files - !regex; i++) {
        const char *text = runtime_file(hd_folders_find()->app, files[i]);
        text = replaced(text, "#include \"tokenizer.h\"\n", "");
        text = replaced(text, "#include \"tokenizer_parts.h\"\n", "");
        hd_text_add(&out, "\n/* ---- %s ---- */\n\n%s", files[i], text);
    }
    return out.data;
}

static void add_tokens(hd_model *m)
{
    const hd_tokenizer *t = m->tokenizer;
    const char *const words[] = { "@vocab@", hd_format("%u", t->vocab), "@room@", hd_format("%zu", hd_stream_room(t)), "@runtime@", tokenizer_runtime(m->tokenizer_regex),
                                  "@regex@", m->tokenizer_regex ? "&hd_regex_pcre2" : "NULL", "@data@", literal(m->tokenizer, m->tokenizer_bytes), NULL };
    add_filled(m, "NAME_tokens.h", words);
    add_filled(m, "NAME_tokens.c", words);
    add_filled(m, "NAME_tokens_data.c", words);
}

/* Makefile, CMake and pkg-config files, README. */
static void add_package(hd_model *m)
{
    const char *name = m->graph->name;
    hd_text flags = { 0 }, sources = { 0 };
    hd_text_add(&flags, "-fno-math-errno -fno-trapping-math -Wno-psabi");
    for (int i = 0; i < 4 && m->target->flags[i]; i++) hd_text_add(&flags, " %s", m->target->flags[i]);
    for (int i = 0; i < m->files; i++) if (!m->file[i].header) hd_text_add(&sources, "%s%s", sources.length ? " " : "", m->file[i].name);
    const char *const words[] = {
        "@target@", m->target->name, "@flags@", flags.data, "@sources@", sources.data,
        "@headers@", hd_format("%s.h %s_pool.h%s%s", name, name, m->graph->vocab ? hd_format(" %s_sampler.h", name) : "", m->tokenizer ? hd_format(" %s_tokens.h", name) : ""),
        "@libs@", m->tokenizer_regex ? "-lpcre2-8 -lpthread -lm" : "-lpthread -lm", "@cmake_libs@", m->tokenizer_regex ? "pcre2-8 m" : "m",
        "@tokens@", hd_format("%s%s", m->graph->vocab ? hd_format(" `%s_sampler.h` draws\ntokens from logits.", name) : "", m->tokenizer ? hd_format(" `%s_tokens.h` turns text into token ids and back.", name) : ""),
        "@needs@", m->tokenizer_regex ? " and PCRE2 (libpcre2-8), which the tokenizer calls" : "", NULL,
    };
    static const char *const files[] = { "Makefile", "CMakeLists.txt", "NAMEConfig.cmake", "NAME.pc", "NAME-uninstalled.pc", "README.md" };
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) add_filled(m, files[i], words);
}

static bool is_ours(const char *path)
{
    char text[MARK_WITHIN + 1] = { 0 };
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    const size_t n = fread(text, 1, MARK_WITHIN, f);
    fclose(f);
    text[n] = 0;
    return strstr(text, mark) != NULL;
}

/* Files of this model that an earlier version of it needed. */
static void remove_others(const hd_model *m, const char *folder)
{
    const char *prefix = hd_format("%s_", m->graph->name);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        const size_t n = strlen(e->d_name);
        bool wanted = strncmp(e->d_name, prefix, strlen(prefix)) || n < 2 || (strcmp(e->d_name + n - 2, ".c") && strcmp(e->d_name + n - 2, ".h"));
        for (int i = 0; i < m->files && !wanted; i++) wanted = !strcmp(e->d_name, m->file[i].name);
        const char *path = hd_format("%s/%s", folder, e->d_name);
        if (!wanted && is_ours(path)) unlink(path);
    }
    if (dir) closedir(dir);
}

/* All files or none: they get their names when all are written. */
static void write_all_files(const hd_model *m, const char *folder)
{
    struct stat s;
    if (mkdir(folder, 0777) && errno != EEXIST) hd_fail((hd_where){ folder, 0 }, "cannot make the folder: %s", strerror(errno));
    for (int i = 0; i < m->files; i++) {
        const char *path = hd_format("%s/%s", folder, m->file[i].name);
        if (!stat(path, &s) && !is_ours(path)) hd_fail((hd_where){ path, 0 }, "this file was not made by heddle, so it is not replaced; move it, or choose another folder");
    }
    const char **staged = HD_NEW_ARRAY(const char *, m->files), *problem = NULL;
    int failed = -1;
    for (int i = 0; i < m->files && !problem; i++)
        if ((problem = hd_stage_file(hd_format("%s/%s", folder, m->file[i].name), m->file[i].text, strlen(m->file[i].text), &staged[i]))) failed = i;
    for (int i = 0; i < m->files && !problem; i++)
        if (staged[i] && rename(staged[i], hd_format("%s/%s", folder, m->file[i].name))) problem = strerror(errno), failed = i;
        else staged[i] = NULL;
    for (int i = 0; i < m->files; i++) if (staged[i]) unlink(staged[i]);
    if (problem) hd_fail((hd_where){ hd_format("%s/%s", folder, m->file[failed].name), 0 }, "cannot write: %s", problem);
    remove_others(m, folder);
}

int hd_command_emit(const hd_options *o)
{
    if (!o->out) hd_fail((hd_where){ 0 }, "emit needs -o DIR");
    hd_model *m = hd_compile(o, false, NULL);
    add_runtime(m);
    if (m->tokenizer) add_tokens(m);
    add_package(m);
    write_all_files(m, o->out);
    return 0;
}
