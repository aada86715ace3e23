/* Runs a spec where it can do no harm.
 *
 * The spec is evaluated in a forked child. Lua there has no files, no processes, no way to load code but `require` of text
 * files in the spec's own folder; patterns may name edge lists and masks there (pattern_data.c). Every limit ends the child at once instead of raising a Lua error, so pcall sees none of
 * them; a C function that runs for ever (string.rep, a pattern that backtracks) is ended from outside:
 *
 *     memory          the allocator ends the child; RLIMIT_AS stands behind it
 *     instructions    a count hook ends the child
 *     time            RLIMIT_CPU ends the child; the parent waits three times as long, for busy machines, and kills
 *
 * A line hook keeps the user's current line in shared memory: that is what nodes record, and it is there for the message when
 * the child had to be killed. (Walking the Lua stack instead would lose the line of a tail call: `return s:linear(...)`.) */
#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A sanitizer maps its shadow memory as it goes: no limit on address space then. */
#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ADDRESS_SANITIZER
#endif
#endif

enum { HOOK_INSTRUCTIONS = 100000, MAX_SPEC_BYTES = 16 << 20, MAX_DATA_BYTES = 64 << 20 };

hd_spec_limits hd_spec_limit = { .memory_bytes = (int64_t)256 << 20, .instructions = 2000000000, .seconds = 10 };

hd_spec_state *hd_sandbox_state(lua_State *L) { return *(hd_spec_state **)lua_getextraspace(L); }

/* ---- limits inside the child ---- */

static void *limited_memory(void *argument, void *block, size_t old_bytes, size_t bytes)
{
    hd_spec_state *state = argument;
    if (!block) old_bytes = 0;              /* then Lua passes the kind of object */
    if (bytes > old_bytes && state->memory_used + (bytes - old_bytes) > (size_t)hd_spec_limit.memory_bytes)
        hd_fail(state->where, "the spec needs more than %lld MiB of memory; a spec only builds a graph: does a string or a table grow without end here?",
                (long long)(hd_spec_limit.memory_bytes >> 20));
    state->memory_used += bytes - old_bytes;
    if (bytes == 0) {
        free(block);
        return NULL;
    }
    void *memory = realloc(block, bytes);
    if (!memory && bytes > old_bytes) hd_fail(state->where, "the system has no memory for the spec");
    return memory;
}

static bool is_user_code(const lua_Debug *frame) { return frame->source[0] == '@'; }

static void record_where(hd_spec_state *state, const char *source, int line)
{
    if (line <= 0) return;
    for (int i = 0; i < state->chunks; i++)
        if (!strcmp(state->chunk[i].path, source + 1)) state->where = (hd_where){ state->chunk[i].path, line };
}

/* Line events say where the user's code is. When user code returns, or library code that stands where user code made a tail
 * call, the user is at the line of the caller again, for which no line event comes. */
static void watch(lua_State *L, lua_Debug *event)
{
    hd_spec_state *state = hd_sandbox_state(L);
    if (event->event == LUA_HOOKCOUNT) {
        state->instructions += HOOK_INSTRUCTIONS;
        if (state->instructions > hd_spec_limit.instructions)
            hd_fail(state->where, "the spec ran more than %lld million instructions; a spec only builds a graph: does a loop never end here?",
                    (long long)(hd_spec_limit.instructions / 1000000));
        return;
    }
    lua_getinfo(L, "St", event);
    if (event->event == LUA_HOOKLINE) {
        if (is_user_code(event)) record_where(state, event->source, event->currentline);
        return;
    }
    if (!is_user_code(event) && !event->istailcall) return;
    lua_Debug caller;
    for (int level = 1; lua_getstack(L, level, &caller); level++) {
        lua_getinfo(L, "Slt", &caller);
        if (is_user_code(&caller)) {
            record_where(state, caller.source, caller.currentline);
            return;
        }
        if (caller.istailcall) return;       /* called from the user's line that is recorded already */
    }
}

/* Past `bound` a signal comes or memory is refused; past bound + spare the system kills. */
static void set_limit(int resource, rlim_t bound, rlim_t spare)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit)) return;
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < bound) bound = limit.rlim_max;
    limit.rlim_cur = bound;
    if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max > bound + spare) limit.rlim_max = bound + spare;
    setrlimit(resource, &limit);
}

static void set_limits(void)
{
    set_limit(RLIMIT_CORE, 0, 0);
    set_limit(RLIMIT_CPU, (rlim_t)hd_spec_limit.seconds, 2);
#ifndef UNDER_ADDRESS_SANITIZER
    /* On top of what is mapped already, the arena's reserve among it. */
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long long pages;
    if (file && fscanf(file, "%llu", &pages) == 1)
        set_limit(RLIMIT_AS, (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + 2 * (rlim_t)hd_spec_limit.memory_bytes + (64 << 20), 0);
    if (file) fclose(file);
#endif
    prctl(PR_SET_PDEATHSIG, SIGKILL);      /* no orphan goes on when the compiler is killed */
}

/* ---- the Lua state ---- */

/* Reports a Lua error. Lua puts "chunk:line: " before its messages: a position in the user's code is taken from there, one
 * in heddle.lua means that the user's current line handed it something it cannot use. */
_Noreturn static void fail_with_lua_error(lua_State *L)
{
    hd_spec_state *state = hd_sandbox_state(L);
    hd_where where = state->where;
    const char *message = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    if (!message) hd_fail(where, "the spec raised an error that is no text but a %s", luaL_typename(L, -1));
    for (int i = -1; i < state->chunks; i++) {
        const char *chunk = i < 0 ? "heddle" : state->chunk[i].short_path;
        size_t length = strlen(chunk);
        int line = 0, digits = 0;
        if (strncmp(message, chunk, length) || sscanf(message + length, ":%d: %n", &line, &digits) != 1 || !digits) continue;
        if (i >= 0) where = (hd_where){ state->chunk[i].path, line };
        message += length + (size_t)digits;
        break;
    }
    char *text = hd_strdup(message);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = ' ';
    hd_fail(where, "%s", text);
}

/* Pushes the function made from a text chunk. name: "@path" for the user's files, "=heddle" for the library. */
static void load_text(lua_State *L, const char *text, size_t bytes, const char *name)
{
    hd_spec_state *state = hd_sandbox_state(L);
    if (name[0] == '@') {
        if (state->chunks == (int)(sizeof state->chunk / sizeof state->chunk[0]))
            hd_fail(state->where, "the spec requires more than %d files", state->chunks - 1);
        lua_Debug about;
        luaL_loadbufferx(L, "", 0, name, "t");      /* an empty chunk: how Lua shortens this name in messages */
        lua_getinfo(L, ">S", &about);
        state->chunk[state->chunks].path = hd_strdup(name + 1);
        memcpy(state->chunk[state->chunks].short_path, about.short_src, sizeof about.short_src);
        state->chunks++;
        if (bytes && text[0] == LUA_SIGNATURE[0])
            hd_fail((hd_where){ name + 1, 1 }, "this is Lua bytecode; only the text of a spec is read");
    }
    if (luaL_loadbufferx(L, text, bytes, name, "t") != LUA_OK) fail_with_lua_error(L);
}

static char *read_text(hd_where where, const char *path, size_t *bytes)
{
    struct stat status;
    const char *problem = NULL;
    char *text = NULL;
    if (stat(path, &status)) problem = strerror(errno);
    else if (S_ISDIR(status.st_mode)) problem = "it is a folder";
    else if (!S_ISREG(status.st_mode)) problem = "it is no ordinary file";
    else if (status.st_size > MAX_SPEC_BYTES) problem = "it is larger than 16 MiB";
    else if (!(text = hd_read_file(path, bytes))) problem = strerror(errno);
    if (!text) hd_fail(where, "cannot read %s: %s; a spec is a Lua file such as models/text.lua", path, problem);
    return text;
}

static void load_library(lua_State *L, const char *file)
{
    hd_spec_state *state = hd_sandbox_state(L);
    const char *path = hd_format("%s/%s", state->library_folder, file);
    size_t bytes;
    char *text = hd_read_file(path, &bytes);
    if (!text) hd_fail((hd_where){ path, 0 }, "cannot read heddle's own library: %s; is the installation complete?", strerror(errno));
    load_text(L, text, bytes, "=heddle");
}

/* The folder of the spec with its last slash, "" for the current one. */
static char *spec_folder(const char *spec)
{
    const char *slash = strrchr(spec, '/');
    return slash ? hd_format("%.*s", (int)(slash - spec + 1), spec) : "";
}

/* Whether the file, links followed, lies in the folder or below it. */
static bool is_inside(const char *folder, const char *path)
{
    char *real_folder = realpath(*folder ? folder : ".", NULL), *real_path = realpath(path, NULL);
    size_t length = real_folder ? strlen(real_folder) : 0;
    bool inside = real_path && length && !strncmp(real_path, real_folder, length) && (length == 1 || real_path[length] == '/');
    free(real_folder);
    free(real_path);
    return inside;
}

char *hd_sandbox_read(lua_State *L, const char *what, const char *name, const char **path, size_t *bytes)
{
    hd_spec_state *state = hd_sandbox_state(L);
    char *folder = spec_folder(state->spec);
    struct stat status;
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127 || strchr("\"'\\", *c)) hd_fail(state->where, "%s: a file's name cannot hold quotes, backslashes or control characters", what);
    *path = hd_format("%s%s", folder, name);
    if (*name == '/' || (!access(*path, F_OK) && !is_inside(folder, *path)))
        hd_fail(state->where, "%s: %s does not lie in the spec's own folder; only files there can be read", what, name);
    if (stat(*path, &status)) hd_fail(state->where, "%s: cannot read %s: %s", what, *path, strerror(errno));
    if (!S_ISREG(status.st_mode)) hd_fail(state->where, "%s: cannot read %s: it is no ordinary file", what, *path);
    if (status.st_size > MAX_DATA_BYTES) hd_fail(state->where, "%s: cannot read %s: it is larger than %d MiB", what, *path, MAX_DATA_BYTES >> 20);
    char *data = hd_read_file(*path, bytes);
    if (!data) hd_fail(state->where, "%s: cannot read %s: %s", what, *path, strerror(errno));
    return data;
}

void hd_sandbox_watch_lines(lua_State *L, bool lines)
{
    lua_sethook(L, watch, (lines ? LUA_MASKLINE | LUA_MASKRET : 0) | LUA_MASKCOUNT, HOOK_INSTRUCTIONS);
}

/* require(name): "heddle", or the text file NAME.lua beside the spec. Upvalue 1: table of what was required. */
static int require(lua_State *L)
{
    hd_spec_state *state = hd_sandbox_state(L);
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    if (lua_getfield(L, lua_upvalueindex(1), name) != LUA_TNIL) return 1;

    size_t letters = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    if (!letters || name[letters] || letters != lua_rawlen(L, 1))
        hd_fail(state->where, "require: the name may hold letters, digits and _ only; \"heddle\" and the Lua files of the spec's own folder can be required");
    char *folder = spec_folder(state->spec), *path = hd_format("%s%s.lua", folder, name);
    if (access(path, F_OK))
        hd_fail(state->where, "require \"%s\": there is no file %s; \"heddle\" and the Lua files of the spec's own folder can be required", name, path);
    if (!is_inside(folder, path))
        hd_fail(state->where, "require \"%s\": %s is a link that leads out of the spec's own folder", name, path);

    size_t bytes;
    char *text = read_text(state->where, path, &bytes);
    load_text(L, text, bytes, lua_pushfstring(L, "@%s", path));
    lua_pushboolean(L, true);
    lua_setfield(L, lua_upvalueindex(1), name);       /* files that require each other see true, as in plain Lua */
    hd_where back = state->where;
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    state->where = back;
    if (lua_isnil(L, -1)) return lua_getfield(L, lua_upvalueindex(1), name), 1;
    lua_pushvalue(L, -1);
    lua_setfield(L, lua_upvalueindex(1), name);
    return 1;
}

/* Standard output belongs to the command (emit, info --json): what a spec prints is commentary. */
static int print(lua_State *L)
{
    int n = lua_gettop(L);
    for (int i = 1; i <= n; i++) {
        fputs(luaL_tolstring(L, i, NULL), stderr);
        fputc(i < n ? '\t' : '\n', stderr);
        lua_pop(L, 1);
    }
    if (!n) fputc('\n', stderr);
    return 0;
}

static void remove_fields(lua_State *L, const char *table, const char *const *field)
{
    lua_getglobal(L, table);
    for (; *field; field++) {
        lua_pushnil(L);
        lua_setfield(L, -2, *field);
    }
    lua_pop(L, 1);
}

static int open_libraries(lua_State *L)
{
    static const luaL_Reg library[] = {
        { LUA_GNAME, luaopen_base }, { LUA_TABLIBNAME, luaopen_table }, { LUA_STRLIBNAME, luaopen_string },
        { LUA_MATHLIBNAME, luaopen_math }, { LUA_UTF8LIBNAME, luaopen_utf8 },
    };
    for (size_t i = 0; i < sizeof library / sizeof library[0]; i++) {
        luaL_requiref(L, library[i].name, library[i].func, 1);
        lua_pop(L, 1);
    }
    lua_getglobal(L, "math");       /* the same numbers in every run */
    lua_getfield(L, -1, "randomseed");
    lua_pushinteger(L, 1);
    lua_call(L, 1, 0);
    lua_pop(L, 1);
    remove_fields(L, "_G", (const char *const[]){ "load", "loadfile", "dofile", "collectgarbage", "warn", NULL });
    remove_fields(L, "string", (const char *const[]){ "dump", NULL });
    remove_fields(L, "math", (const char *const[]){ "randomseed", NULL });
    lua_pushcfunction(L, print);
    lua_setglobal(L, "print");

    lua_newtable(L);                                     /* what was required */
    lua_newtable(L);                                     /* what heddle.lua alone sees */
    hd_builders_open(L);
    hd_pattern_lua_open(L);
    hd_pattern_data_open(L);
    hd_checkpoint_functions(L);
    load_library(L, "prelude.lua");
    lua_call(L, 0, 0);
    load_library(L, "check.lua");
    lua_pushvalue(L, -2);
    lua_call(L, 1, 1);
    load_library(L, "pattern.lua");
    lua_pushvalue(L, -3);
    lua_pushvalue(L, -3);
    lua_call(L, 2, 1);
    load_library(L, "attention.lua");
    load_library(L, "checkpoint.lua");
    load_library(L, "output.lua");
    load_library(L, "heddle.lua");
    lua_insert(L, -7);
    lua_call(L, 6, 1);
    lua_setfield(L, -2, "heddle");
    lua_pushcclosure(L, require, 1);
    lua_setglobal(L, "require");
    return 0;
}

_Noreturn static void evaluate(hd_spec_state *state, const char *text, size_t bytes)
{
    set_limits();
    state->graph = hd_graph_new(state->checkpoint ? state->checkpoint : state->spec);
    if (state->checkpoint) {
        hd_checkpoint_open(state);
        text = read_text((hd_where){ 0 }, hd_format("%s/%s.lua", state->families, state->graph->family), &bytes);
        state->spec = hd_format("models/hf/%s.lua", state->graph->family);       /* wherever heddle is installed: it goes into messages and C */
        state->where = (hd_where){ state->spec, 1 };
    }
    lua_State *L = lua_newstate(limited_memory, state);
    if (!L) hd_fail(state->where, "the system has no memory for the spec");
    *(hd_spec_state **)lua_getextraspace(L) = state;
    hd_sandbox_watch_lines(L, true);
    lua_pushcfunction(L, open_libraries);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK) fail_with_lua_error(L);
    load_text(L, text, bytes, lua_pushfstring(L, "@%s", state->spec));
    if (lua_pcall(L, 0, 1, 0) != LUA_OK) fail_with_lua_error(L);
    if (!state->graph->name && !lua_isnil(L, -1)) {      /* a pattern: attention over it alone */
        lua_getglobal(L, "require");
        lua_pushliteral(L, "heddle");
        if (lua_pcall(L, 1, 1, 0) != LUA_OK) fail_with_lua_error(L);
        lua_getfield(L, -1, "pattern_model");
        lua_pushvalue(L, -3);
        if (lua_pcall(L, 1, 0, 0) != LUA_OK) fail_with_lua_error(L);
    }
    if (!state->graph->name)
        hd_fail(state->where, "the spec ends without a model; its last line is `return hd.language_model { ... }`, `return hd.model { ... }` or `return` and a pattern");
    if (state->overrides && !state->graph->configs)
        hd_fail((hd_where){ hd_format("-D %s", state->override[0]), 0 }, "%s has no hd.config, so there is no key to set", state->spec);
    state->done = true;
    fflush(stderr);
    _exit(0);
}

/* ---- the parent ---- */

static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The path is quoted in comments and strings of the generated C, as names in the spec are (check.lua). */
static void check_path(const char *path)
{
    bool clean = !strpbrk(path, "\"'\\") && !strstr(path, "*/") && !strstr(path, "/*") && !strstr(path, "??");
    for (const char *c = path; *c; c++) clean &= (unsigned char)*c >= ' ' && *c != 127;
    if (!clean)
        hd_fail((hd_where){ 0 }, "the path of a spec cannot hold quotes, backslashes, control characters, */, /* or ??: it becomes part of comments in C; rename the file");
}

/* Waits until every copy of the pipe's writing end is closed, that is, until the child has ended. */
static bool ended_in_time(int pipe_end)
{
    int64_t deadline = milliseconds() + (int64_t)hd_spec_limit.seconds * 3000;
    for (;;) {
        int64_t left = deadline - milliseconds();
        if (left <= 0) return false;
        struct pollfd watched = { .fd = pipe_end, .events = POLLIN };
        if (poll(&watched, 1, (int)left) > 0) return true;
    }
}

static hd_graph *evaluate_in_child(hd_spec_state *state, const char *text, size_t bytes)
{
    state->where = (hd_where){ state->spec, 1 };
    state->arena_start = hd_arena_used();

    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) hd_fail((hd_where){ 0 }, "cannot make a pipe: %s", strerror(errno));
    fflush(NULL);                                        /* what is buffered belongs to the parent */
    pid_t child = fork();
    if (child < 0) hd_fail((hd_where){ 0 }, "cannot start a process for the spec: %s", strerror(errno));
    if (child == 0) {
        close(ends[0]);
        hd_set_child();
        evaluate(state, text, bytes);
    }
    close(ends[1]);
    bool in_time = ended_in_time(ends[0]);
    close(ends[0]);
    if (!in_time) kill(child, SIGKILL);                  /* it must have ended before anything is allocated here: the arena is shared */
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}

    if (!in_time || (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU))
        hd_fail(state->where, "the spec ran longer than %d s; a spec only builds a graph: does something never end here?", hd_spec_limit.seconds);
    if (WIFSIGNALED(status))
        hd_fail(state->where, "evaluating the spec was ended by signal %d (%s); out of memory?", WTERMSIG(status), strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) != 0 || !state->done) exit(1);          /* the child has said why */
    return state->graph;
}

hd_graph *hd_spec_load(const char *path, int overrides, const char *const *override, const char *library_folder)
{
    size_t bytes;
    check_path(path);
    char *text = read_text((hd_where){ 0 }, path, &bytes);
    hd_spec_state *state = HD_NEW(hd_spec_state);
    *state = (hd_spec_state){ .spec = hd_strdup(path), .library_folder = library_folder, .overrides = overrides, .override = override };
    return evaluate_in_child(state, text, bytes);
}

hd_graph *hd_checkpoint_load(const char *folder, const char *families, int overrides, const char *const *override, const char *library_folder)
{
    check_path(folder);
    size_t letters = strlen(folder);
    while (letters > 1 && folder[letters - 1] == '/') letters--;
    hd_spec_state *state = HD_NEW(hd_spec_state);
    *state = (hd_spec_state){ .library_folder = library_folder, .overrides = overrides, .override = override, .families = families };
    state->spec = state->checkpoint = hd_format("%.*s", (int)letters, folder);
    return evaluate_in_child(state, NULL, 0);
}
