/* Pattern values in Lua: what compiler/lua/pattern.lua makes them with, the operators & | -, and questions.
 *
 * Positions are 0-based, as in the papers. Mind Lua's precedence: - binds tighter than &, and & tighter than |. */
#include "sandbox.h"

#include <string.h>

#include "../pattern/pattern.h"

static const char PATTERN[] = "heddle.pattern";

const hd_pattern *hd_pattern_lua_get(lua_State *L, int index)
{
    const hd_pattern **box = luaL_testudata(L, index, PATTERN);
    return box ? *box : NULL;
}

static const hd_pattern *check_pattern(lua_State *L, int index, const char *what)
{
    const hd_pattern *pattern = hd_pattern_lua_get(L, index);
    if (!pattern)
        hd_fail(hd_sandbox_state(L)->where, "%s must be a pattern such as P.causal() or P.window { keys = 64 }, got %s", what, luaL_typename(L, index));
    return pattern;
}

int hd_pattern_lua_push(lua_State *L, hd_pattern value)
{
    value.where = hd_sandbox_state(L)->where;
    hd_pattern *pattern = HD_NEW(hd_pattern);
    *pattern = value;
    hd_pattern_validate(pattern);
    hd_builders_check_memory(L);
    *(const hd_pattern **)lua_newuserdatauv(L, sizeof pattern, 0) = pattern;
    luaL_setmetatable(L, PATTERN);
    return 1;
}

/* pattern(kind, numbers): pattern.lua has checked what they mean; hd_pattern_validate checks them again. */
static int make(lua_State *L)
{
    static const struct { const char *name; hd_pattern_kind kind; size_t field[3]; int fields; } kinds[] = {
        { "full",     HD_PATTERN_FULL,     { 0 }, 0 },
        { "causal",   HD_PATTERN_CAUSAL,   { 0 }, 0 },
        { "window",   HD_PATTERN_WINDOW,   { offsetof(hd_pattern, left), offsetof(hd_pattern, right) }, 2 },
        { "stride",   HD_PATTERN_STRIDE,   { offsetof(hd_pattern, stride) }, 1 },
        { "chunk",    HD_PATTERN_CHUNK,    { offsetof(hd_pattern, chunk), offsetof(hd_pattern, left), offsetof(hd_pattern, right) }, 3 },
        { "residues", HD_PATTERN_RESIDUES, { offsetof(hd_pattern, stride), offsetof(hd_pattern, first), offsetof(hd_pattern, end) }, 3 },
        { "keys",     HD_PATTERN_KEYS,     { offsetof(hd_pattern, first), offsetof(hd_pattern, end) }, 2 },
        { "queries",  HD_PATTERN_QUERIES,  { offsetof(hd_pattern, first), offsetof(hd_pattern, end) }, 2 },
    };
    const char *name = luaL_checkstring(L, 1);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (strcmp(kinds[k].name, name)) continue;
        hd_pattern p = { .kind = kinds[k].kind };
        for (int f = 0; f < kinds[k].fields; f++) *(int64_t *)((char *)&p + kinds[k].field[f]) = luaL_checkinteger(L, 2 + f);
        return hd_pattern_lua_push(L, p);
    }
    return luaL_error(L, "no such pattern");
}

static int combine(lua_State *L, hd_pattern_kind kind, const char *sign)
{
    const hd_pattern *a = check_pattern(L, 1, hd_format("the left side of %s", sign));
    const hd_pattern *b = check_pattern(L, 2, hd_format("the right side of %s", sign));
    return hd_pattern_lua_push(L, (hd_pattern){ .kind = kind, .a = a, .b = b });
}

static int and(lua_State *L) { return combine(L, HD_PATTERN_AND, "&"); }
static int or(lua_State *L) { return combine(L, HD_PATTERN_OR, "|"); }
static int minus(lua_State *L) { return combine(L, HD_PATTERN_MINUS, "-"); }

static int64_t position(lua_State *L, int index, const char *what, int64_t least)
{
    int is_integer;
    int64_t value = lua_tointegerx(L, index, &is_integer);
    if (!is_integer || value < least || value > (int64_t)1 << 40)
        hd_fail(hd_sandbox_state(L)->where, "%s must be a whole number of %d or more, got %s", what, (int)least, luaL_tolstring(L, index, NULL));
    return value;
}

/* p:row(i [, keys]) -> the keys below `keys` that query i reads, ascending; without `keys` those up to i itself. */
static int row(lua_State *L)
{
    const hd_pattern *pattern = check_pattern(L, 1, "row: the first argument");
    int64_t i = position(L, 2, "row: the query", 0);
    int64_t keys = lua_isnoneornil(L, 3) ? i + 1 : position(L, 3, "row: the number of keys", 0);
    hd_progression *list;
    int count = hd_pattern_row(pattern, i, keys, &list);
    lua_newtable(L);
    int64_t length = 0;
    for (int p = 0; p < count; p++)
        for (int64_t t = 0; t < list[p].count; t++) {
            lua_pushinteger(L, list[p].start + t * list[p].step);
            lua_rawseti(L, -2, ++length);
        }
    hd_builders_check_memory(L);
    return 1;
}

/* p:kept_pairs(queries [, keys]), p:empty_rows(queries [, keys]), p:is_causal(queries [, keys]); keys: as many as queries */
static int kept_pairs(lua_State *L)
{
    const hd_pattern *pattern = check_pattern(L, 1, "kept_pairs: the first argument");
    int64_t queries = position(L, 2, "kept_pairs: the length", 1);
    lua_pushinteger(L, hd_pattern_kept_pairs(pattern, queries, lua_isnoneornil(L, 3) ? queries : position(L, 3, "kept_pairs: the number of keys", 1)));
    return 1;
}

static int empty_rows(lua_State *L)
{
    const hd_pattern *pattern = check_pattern(L, 1, "empty_rows: the first argument");
    int64_t queries = position(L, 2, "empty_rows: the length", 1);
    lua_pushinteger(L, hd_pattern_empty_rows(pattern, queries, lua_isnoneornil(L, 3) ? queries : position(L, 3, "empty_rows: the number of keys", 1)));
    return 1;
}

static int is_causal(lua_State *L)
{
    const hd_pattern *pattern = check_pattern(L, 1, "is_causal: the first argument");
    int64_t queries = position(L, 2, "is_causal: the length", 1);
    lua_pushboolean(L, hd_pattern_causal(pattern, queries, lua_isnoneornil(L, 3) ? queries : position(L, 3, "is_causal: the number of keys", 1)));
    return 1;
}

static int keeps(lua_State *L)
{
    const hd_pattern *pattern = check_pattern(L, 1, "keeps: the first argument");
    lua_pushboolean(L, hd_pattern_keeps(pattern, position(L, 2, "keeps: the query", 0), position(L, 3, "keeps: the key", 0)));
    return 1;
}

static int text(lua_State *L)
{
    lua_pushstring(L, hd_pattern_text(check_pattern(L, 1, "tostring: the argument")));
    return 1;
}

static int equal(lua_State *L)
{
    const hd_pattern *a = hd_pattern_lua_get(L, 1), *b = hd_pattern_lua_get(L, 2);
    lua_pushboolean(L, a && b && hd_pattern_equal(a, b));
    return 1;
}

static int is_pattern(lua_State *L)
{
    lua_pushboolean(L, hd_pattern_lua_get(L, 1) != NULL);
    return 1;
}

/* check_lengths(pattern, queries, keys): fails at the pattern's line if it does not fit. */
static int check_lengths(lua_State *L)
{
    hd_pattern_check_lengths(check_pattern(L, 1, "attention: the pattern"), luaL_checkinteger(L, 2), luaL_checkinteger(L, 3));
    return 0;
}

static int unknown_question(lua_State *L)
{
    hd_fail(hd_sandbox_state(L)->where, "a pattern has no '%s'; it has row, kept_pairs, empty_rows, keeps, is_causal, and the operators & | -",
            luaL_tolstring(L, 2, NULL));
}

void hd_pattern_lua_open(lua_State *L)
{
    static const luaL_Reg function[] = { { "pattern", make }, { "is_pattern", is_pattern }, { "check_lengths", check_lengths }, { NULL, NULL } };
    static const luaL_Reg operator[] = {
        { "__band", and }, { "__bor", or }, { "__sub", minus }, { "__eq", equal }, { "__tostring", text }, { NULL, NULL },
    };
    static const luaL_Reg question[] = {
        { "row", row }, { "kept_pairs", kept_pairs }, { "empty_rows", empty_rows }, { "keeps", keeps }, { "is_causal", is_causal }, { NULL, NULL },
    };
    luaL_setfuncs(L, function, 0);
    luaL_newmetatable(L, PATTERN);
    luaL_setfuncs(L, operator, 0);
    luaL_newlib(L, question);
    lua_newtable(L);
    lua_pushcfunction(L, unknown_question);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "pattern");
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
