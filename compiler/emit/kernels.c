/* Kernel instances and their text. */
#include "kernels.h"
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

static bool name_taken(const hd_kernels *k, const char *name)
{
    for (int i = 0; i < k->count; i++) if (!strcmp(k->kernel[i]->name, name)) return true;
    return false;
}

hd_kernel *hd_kernel_get(hd_kernels *k, const char *template_name, const char *coordinates, const char *signature,
                         const char *parameters, int64_t local_bytes, hd_where where)
{
    for (int i = 0; i < k->count; i++)
        if (!strcmp(k->kernel[i]->template_name, template_name) && !strcmp(k->kernel[i]->parameters, parameters) &&
            !strcmp(k->kernel[i]->signature, signature)) return k->kernel[i];
    hd_kernel *made = HD_NEW(hd_kernel);
    const char *base = hd_format("%s_%s_%s", k->prefix, template_name, coordinates);
    made->name = base;
    for (int n = 2; name_taken(k, made->name); n++) made->name = hd_format("%s_v%d", base, n);
    made->template_name = template_name, made->signature = signature, made->parameters = parameters;
    made->local_bytes = local_bytes, made->where = where;
    HD_PUSH(k->kernel, k->count, k->capacity, made);
    return made;
}

struct hd_expander { lua_State *lua; const char *folder; };

hd_expander *hd_expander_new(const char *template_folder, const char *library_folder)
{
    hd_expander *x = HD_NEW(hd_expander);
    x->folder = template_folder;
    x->lua = luaL_newstate();
    if (!x->lua) hd_fail((hd_where){ 0 }, "out of memory for the template expander");
    luaL_openlibs(x->lua);
    const char *path = hd_format("%s/template.lua", library_folder);
    if (luaL_loadfile(x->lua, path) || lua_pcall(x->lua, 0, 1, 0)) hd_fail((hd_where){ path, 0 }, "%s", lua_tostring(x->lua, -1));
    lua_setglobal(x->lua, "template");
    return x;
}

char *hd_kernel_text(hd_expander *x, const hd_kernels *set, const hd_kernel *k)
{
    const char *path = hd_format("%s/%s.c.tmpl", x->folder, k->template_name);
    size_t bytes = 0;
    char *text = hd_read_file(path, &bytes);
    if (!text) hd_fail((hd_where){ path, 0 }, "the template is missing; reinstall heddle");
    lua_State *L = x->lua;
    lua_getglobal(L, "template");
    lua_getfield(L, -1, "expand");
    lua_pushstring(L, text);
    lua_pushstring(L, hd_format("%s.c.tmpl", k->template_name));
    const char *table = hd_format("return { name = \"%s\", vl = %d, %s }", k->name, set->target->vl, k->parameters);
    if (luaL_loadbuffer(L, table, strlen(table), "=parameters") || lua_pcall(L, 0, 1, 0) || (lua_pushstring(L, x->folder), lua_pcall(L, 4, 1, 0)))
        hd_fail((hd_where){ 0 }, "kernel %s: %s", k->name, lua_tostring(L, -1));
    char *out = hd_strdup(lua_tostring(L, -1));
    lua_settop(L, 0);
    return out;
}
