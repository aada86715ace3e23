/* A checkpoint folder of the Hugging Face hub as a spec: config.json names a model_type, and models/hf/TYPE.lua is the spec.
 *
 * Everything here runs in the sandboxed child: config.json comes from somewhere, like a spec. Lua sees its values through
 * core.checkpoint (compiler/lua/checkpoint.lua), which also records the keys that the family looked at. */
#include "sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_CONFIG_BYTES = 4 << 20 };

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* "bloom, gpt2, ...": the files of the folder. */
static const char *list_families(const char *folder)
{
    const char **name = NULL;
    int names = 0, capacity = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir)); ) {
        const char *end = strrchr(entry->d_name, '.');
        if (end && !strcmp(end, ".lua")) HD_PUSH(name, names, capacity, hd_format("%.*s", (int)(end - entry->d_name), entry->d_name));
    }
    if (dir) closedir(dir);
    if (!names) hd_fail((hd_where){ folder, 0 }, "heddle's checkpoint families are not here; run make again, or make install");
    qsort(name, (size_t)names, sizeof *name, by_text);
    hd_text list = { 0 };
    for (int i = 0; i < names; i++) hd_text_add(&list, "%s%s", i ? ", " : "", name[i]);
    return list.data;
}

static char *read_config(const char *path, size_t *bytes)
{
    const hd_where where = { path, 0 };
    struct stat status;
    if (stat(path, &status)) hd_fail(where, "cannot read it: %s; a checkpoint folder holds config.json and *.safetensors", strerror(errno));
    if (!S_ISREG(status.st_mode)) hd_fail(where, "it is no ordinary file; a checkpoint folder holds config.json and *.safetensors");
    if (status.st_size > MAX_CONFIG_BYTES) hd_fail(where, "it is larger than %d MiB", MAX_CONFIG_BYTES >> 20);
    char *text = hd_read_file(path, bytes);
    if (!text) hd_fail(where, "cannot read it: %s", strerror(errno));
    return text;
}

static json_t *parse_object(const char *path, const char *text, size_t bytes)
{
    json_error_t error;
    json_t *object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!object) hd_fail((hd_where){ path, error.line }, "not JSON: %s", error.text);
    if (!json_is_object(object)) hd_fail((hd_where){ path, 0 }, "it holds no JSON object { ... }");
    return object;
}

void hd_checkpoint_open(hd_spec_state *state)
{
    const char *path = hd_format("%s/config.json", state->checkpoint);
    const hd_where where = { path, 0 };
    size_t bytes;
    const char *text = read_config(path, &bytes);
    json_t *config = parse_object(path, text, bytes);
    const json_t *named = json_object_get(config, "model_type");
    const char *type = json_string_value(named), *families = list_families(state->families);
    if (!type) hd_fail(where, "key \"model_type\" is %s; heddle knows: %s", named ? "no text" : "missing", families);
    const char *file = strspn(type, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(type) ? hd_format("%s/%s.lua", state->families, type) : "";
    if (access(file, R_OK)) {
        char *shown = hd_format("%.40s", type);
        for (char *c = shown; *c; c++) if ((unsigned char)*c < ' ' || *c == 127) *c = ' ';
        hd_fail(where, "key \"model_type\" is \"%s\"; heddle knows: %s", shown, families);
    }
    state->config = config;
    state->config_path = path;
    state->graph->family = hd_strdup(type);
    static const char *const tokenizers[] = { "tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model" };
    for (size_t i = 0; i < sizeof tokenizers / sizeof *tokenizers && !state->graph->tokenizer; i++) {
        const char *tokenizer = hd_format("%s/%s", state->checkpoint, tokenizers[i]);
        if (!access(tokenizer, R_OK)) state->graph->tokenizer = tokenizer;
    }
}

static void push_value(lua_State *L, const json_t *value)
{
    luaL_checkstack(L, 4, "config.json is nested too deeply");
    const char *key;
    json_t *item;
    size_t at;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        lua_newtable(L);
        json_object_foreach((json_t *)(uintptr_t)value, key, item) {
            push_value(L, item);
            lua_setfield(L, -2, key);
        }
        break;
    case JSON_ARRAY:
        lua_createtable(L, (int)json_array_size(value), 0);
        json_array_foreach(value, at, item) {
            push_value(L, item);
            lua_rawseti(L, -2, (lua_Integer)at + 1);
        }
        break;
    case JSON_STRING: lua_pushstring(L, json_string_value(value)); break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(value)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(value)); break;
    case JSON_TRUE: case JSON_FALSE: lua_pushboolean(L, json_is_true(value)); break;
    case JSON_NULL: lua_pushnil(L); break;
    }
}

/* checkpoint() -> the values of config.json, its path; nothing where the spec is a Lua file */
static int checkpoint(lua_State *L)
{
    const hd_spec_state *state = hd_sandbox_state(L);
    if (!state->config) return 0;
    push_value(L, state->config);
    lua_pushstring(L, state->config_path);
    return 2;
}

/* checkpoint_file(name) -> the values of another JSON file of the checkpoint's folder; nothing without it */
static int checkpoint_file(lua_State *L)
{
    const hd_spec_state *state = hd_sandbox_state(L);
    const char *path = state->checkpoint ? hd_format("%s/%s", state->checkpoint, luaL_checkstring(L, 1)) : "";
    if (!state->checkpoint || access(path, F_OK)) return 0;
    size_t bytes;
    const char *text = read_config(path, &bytes);
    push_value(L, parse_object(path, text, bytes));
    return 1;
}

/* json_file(what, name) -> the values of a JSON file in the spec's own folder */
static int json_file(lua_State *L)
{
    size_t bytes;
    const char *path, *text = hd_sandbox_read(L, luaL_checkstring(L, 1), luaL_checkstring(L, 2), &path, &bytes);
    push_value(L, parse_object(path, text, bytes));
    return 1;
}

/* configured(text): the values the family read, as a Lua table, for heddle import */
static int configured(lua_State *L)
{
    hd_sandbox_state(L)->graph->config_text = hd_strdup(luaL_checkstring(L, 1));
    return 0;
}

/* warn(message, file) */
static int warn(lua_State *L)
{
    char *text = hd_strdup(luaL_checkstring(L, 1));
    for (char *c = text; *c; c++) if ((unsigned char)*c < ' ' || *c == 127) *c = ' ';
    hd_warn((hd_where){ hd_strdup(luaL_checkstring(L, 2)), 0 }, "%s", text);
    return 0;
}

void hd_checkpoint_functions(lua_State *L)
{
    static const luaL_Reg function[] = { { "checkpoint", checkpoint }, { "configured", configured }, { "warn", warn }, { "checkpoint_file", checkpoint_file }, { "json_file", json_file }, { NULL, NULL } };
    luaL_setfuncs(L, function, 0);
}
