/* Shared by the files of compiler/spec; nobody else includes it. */
#ifndef HD_SANDBOX_H
#define HD_SANDBOX_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "spec.h"

/* One evaluation. It lies in the shared arena: the child writes, the parent reads after the child has ended. */
typedef struct hd_spec_state {
    hd_graph *graph;
    hd_where where;                       /* the line of the user's code being run: what every node and message gets */
    bool done;                            /* the spec ran to its end */
    const char *spec, *library_folder;    /* as the user gave them */
    const char *checkpoint, *families;    /* of a checkpoint: its folder, and the folder of the family files; else NULL */
    struct json_t *config; const char *config_path;      /* its config.json; in the child only */
    int overrides; const char *const *override;
    struct { const char *path; char short_path[LUA_IDSIZE]; } chunk[32];   /* user's files: the spec, then what it requires */
    int chunks;
    size_t memory_used, arena_start;
    int64_t instructions;
} hd_spec_state;

hd_spec_state *hd_sandbox_state(lua_State *);

/* Reads config.json of state->checkpoint and finds its family: state->config, graph->family. Fails with the families there are. */
void hd_checkpoint_open(hd_spec_state *);
/* builders.c, pattern_lua.c, pattern_data.c, checkpoint.c: add their functions to the table on top of the stack (the one heddle.lua receives). */
void hd_builders_open(lua_State *);
void hd_pattern_lua_open(lua_State *);
void hd_pattern_data_open(lua_State *);
void hd_checkpoint_functions(lua_State *);
/* Pushes a pattern value, made at the user's line. */
int hd_pattern_lua_push(lua_State *, struct hd_pattern);
/* The contents of a file in the spec's folder (NUL-terminated), or failure at the user's line; what: whose argument it is. */
char *hd_sandbox_read(lua_State *, const char *what, const char *name, const char **path, size_t *bytes);
/* Following the user's line costs more than a short function; off while one function is called a million times. */
void hd_sandbox_watch_lines(lua_State *, bool);
/* The pattern at stack index, or NULL if it is something else. */
const struct hd_pattern *hd_pattern_lua_get(lua_State *, int index);
/* Fails at the user's line when the graph has grown past the memory limit. */
void hd_builders_check_memory(lua_State *);

#endif
