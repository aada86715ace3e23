/* Patterns that are data: documents, grids, and lists of keys from tables, files or a function of the spec.
 *
 * compiler/lua/pattern.lua checks shapes and words of its tables; numbers that come in great number are checked here. */
#include "sandbox.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../pattern/pattern.h"

enum { MAX_POSITIONS = 1 << 30, MAX_PREDICATE_PAIRS = 1 << 24 };

static hd_where here(lua_State *L) { return hd_sandbox_state(L)->where; }

/* Lists that are being made, row by row. */
typedef struct lists {
    int64_t *start; int rows, row_capacity;
    hd_interval *run; int runs, run_capacity;
} lists;

static void begin_row(lists *l) { HD_PUSH(l->start, l->rows, l->row_capacity, l->runs); }

/* Keys of the row in work come ascending; the same one again changes nothing. */
static void add_key(lists *l, int64_t key)
{
    hd_interval *last = l->runs > l->start[l->rows - 1] ? &l->run[l->runs - 1] : NULL;
    if (last && key < last->end) return;
    if (last && key == last->end) last->end++;
    else HD_PUSH(l->run, l->runs, l->run_capacity, ((hd_interval){ key, key + 1 }));
}

static int push_lists(lua_State *L, lists *l, int64_t block, int64_t columns, const char *what)
{
    hd_key_lists *list = HD_NEW(hd_key_lists);
    *list = (hd_key_lists){ .block = block, .rows = l->rows, .columns = columns, .what = what };
    HD_PUSH(l->start, l->rows, l->row_capacity, l->runs);
    list->start = l->start;
    list->run = l->run ? l->run : HD_NEW(hd_interval);
    return hd_pattern_lua_push(L, (hd_pattern){ .kind = HD_PATTERN_LIST, .list = list });
}

/* documents(lengths) */
static int documents(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    int64_t count = (int64_t)lua_rawlen(L, 1), at = 0;
    int64_t *start = HD_NEW_ARRAY(int64_t, count + 1);
    for (int64_t d = 0; d < count; d++) {
        lua_rawgeti(L, 1, d + 1);
        int is_integer;
        int64_t length = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer || lua_type(L, -1) != LUA_TNUMBER || length < 1 || length > MAX_POSITIONS)
            hd_fail(here(L), "P.documents: length %" PRId64 " must be a whole number of 1 or more, got %s", d + 1, luaL_tolstring(L, -1, NULL));
        start[d] = at;
        at += length;
        lua_pop(L, 1);
    }
    start[count] = at;
    return hd_pattern_lua_push(L, (hd_pattern){ .kind = HD_PATTERN_DOCUMENTS, .documents = count, .document = start });
}

/* grid(first, { kind, size, left, right, kernel, stride, dilation, offset, causal }...): an axis for each table */
static int grid(lua_State *L)
{
    static const char *const kinds[] = { "window", "clamped", "chunk", "all", NULL };
    hd_grid *g = HD_NEW(hd_grid);
    g->first = luaL_checkinteger(L, 1);
    g->axes = lua_gettop(L) - 1;
    luaL_argcheck(L, g->axes >= 1 && g->axes <= HD_MAX_AXES, 2, "number of axes");
    for (int k = 0; k < g->axes; k++) {
        hd_axis *a = &g->axis[k];
        const struct { const char *name; int64_t *value; } fields[] = {
            { "size", &a->size }, { "left", &a->left }, { "right", &a->right }, { "kernel", &a->kernel },
            { "stride", &a->stride }, { "dilation", &a->dilation }, { "offset", &a->offset } };
        luaL_checktype(L, k + 2, LUA_TTABLE);
        lua_getfield(L, k + 2, "kind");
        a->kind = (hd_axis_kind)luaL_checkoption(L, -1, NULL, kinds);
        lua_getfield(L, k + 2, "causal");
        a->causal = lua_toboolean(L, -1);
        for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
            lua_getfield(L, k + 2, fields[f].name);
            *fields[f].value = luaL_optinteger(L, -1, f >= 3 && f <= 5);      /* kernel, stride, dilation: 1 */
        }
        lua_settop(L, g->axes + 1);
    }
    return hd_pattern_lua_push(L, (hd_pattern){ .kind = HD_PATTERN_GRID, .grid = g });
}

static int by_value(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* blocks(block, columns, rows, what): rows is a list of lists of block columns, from 0 */
static int blocks(lua_State *L)
{
    int64_t block = luaL_checkinteger(L, 1), columns = luaL_checkinteger(L, 2), *sorted = NULL;
    int capacity = 0;
    const char *what = hd_strdup(luaL_checkstring(L, 4));
    lists l = { 0 };
    luaL_checktype(L, 3, LUA_TTABLE);
    for (int64_t r = 0, rows = (int64_t)lua_rawlen(L, 3); r < rows; r++) {
        begin_row(&l);
        lua_rawgeti(L, 3, r + 1);
        if (!lua_istable(L, -1)) hd_fail(here(L), "%s: row %" PRId64 " must be a list of block columns, got %s", what, r, luaL_typename(L, -1));
        int count = 0;
        for (int64_t k = 0, all = (int64_t)lua_rawlen(L, -1); k < all; k++) {
            lua_rawgeti(L, -1, k + 1);
            int is_integer;
            int64_t column = lua_tointegerx(L, -1, &is_integer);
            if (!is_integer || column < 0 || column >= columns)
                hd_fail(here(L), "%s: row %" PRId64 " names block column %s; valid: 0 to %" PRId64, what, r, luaL_tolstring(L, -1, NULL), columns - 1);
            HD_PUSH(sorted, count, capacity, column);
            lua_pop(L, 1);
        }
        if (count) qsort(sorted, (size_t)count, sizeof *sorted, by_value);
        for (int k = 0; k < count; k++) add_key(&l, sorted[k]);
        lua_pop(L, 1);
    }
    return push_lists(L, &l, block, columns, what);
}

/* Edges. */

typedef struct edge { int64_t query, key; } edge;
typedef struct edges { edge *item; int count, capacity; } edges;

static int by_query(const void *a, const void *b)
{
    const edge *x = a, *y = b;
    return x->query != y->query ? (x->query < y->query ? -1 : 1) : x->key < y->key ? -1 : x->key > y->key;
}

/* Lines of two node numbers, source then destination, apart by spaces, tabs, a comma or a semicolon; lines that begin with # or
 * % are comments. */
static void read_edges(lua_State *L, edges *e, const char *name, int64_t nodes)
{
    size_t bytes;
    const char *path, *text = hd_sandbox_read(L, "P.edges", name, &path, &bytes);
    int line = 1;
    for (const char *c = text, *end = text + bytes; c < end; line++) {
        const char *next = memchr(c, '\n', (size_t)(end - c));
        next = next ? next + 1 : end;
        hd_where at = { path, line };
        while (c < next && (*c == ' ' || *c == '\t' || *c == '\r' || *c == '\n')) c++;
        if (c == next || *c == '#' || *c == '%') { c = next; continue; }
        int64_t number[2];
        for (int k = 0; k < 2; k++) {
            while (c < next && k && (*c == ' ' || *c == '\t' || *c == ',' || *c == ';')) c++;
            int digits = 0;
            number[k] = 0;
            for (; c < next && *c >= '0' && *c <= '9'; c++, digits++) number[k] = number[k] < MAX_POSITIONS ? 10 * number[k] + (*c - '0') : number[k];
            if (!digits) hd_fail(at, "expected two node numbers, source and destination, such as \"12 7\"");
            if (number[k] >= nodes) hd_fail(at, "node %" PRId64 " does not exist; there are %" PRId64 " nodes, 0 to %" PRId64, number[k], nodes, nodes - 1);
        }
        while (c < next && (*c == ' ' || *c == '\t' || *c == '\r' || *c == '\n')) c++;
        if (c != next) hd_fail(at, "more than two node numbers in a line; expected source and destination, such as \"12 7\"");
        HD_PUSH(e->item, e->count, e->capacity, ((edge){ number[1], number[0] }));
    }
}

static void list_edges(lua_State *L, edges *e, int64_t nodes)
{
    for (int64_t k = 0, count = (int64_t)lua_rawlen(L, 4); k < count; k++) {
        int64_t number[2] = { -1, -1 };
        lua_rawgeti(L, 4, k + 1);
        for (int side = 0; side < 2 && lua_istable(L, -1); side++) {
            lua_rawgeti(L, -1, side + 1);
            int is_integer;
            number[side] = lua_tointegerx(L, -1, &is_integer);
            if (!is_integer) number[side] = -1;
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
        if (number[0] < 0 || number[0] >= nodes || number[1] < 0 || number[1] >= nodes)
            hd_fail(here(L), "P.edges: edge %" PRId64 " must be { source, destination }, nodes from 0 to %" PRId64, k + 1, nodes - 1);
        HD_PUSH(e->item, e->count, e->capacity, ((edge){ number[1], number[0] }));
    }
}

/* edges(nodes, symmetric, self, file or list): query `destination` reads key `source` */
static int make_edges(lua_State *L)
{
    int64_t nodes = luaL_checkinteger(L, 1);
    bool symmetric = lua_toboolean(L, 2), self = lua_toboolean(L, 3);
    edges e = { 0 };
    if (nodes > MAX_POSITIONS) hd_fail(here(L), "P.edges: %" PRId64 " nodes are more than %d", nodes, MAX_POSITIONS);
    if (lua_isstring(L, 4)) read_edges(L, &e, lua_tostring(L, 4), nodes);
    else list_edges(L, &e, nodes);
    const int given = e.count;
    for (int k = 0; symmetric && k < given; k++) HD_PUSH(e.item, e.count, e.capacity, ((edge){ e.item[k].key, e.item[k].query }));
    for (int64_t i = 0; self && i < nodes; i++) HD_PUSH(e.item, e.count, e.capacity, ((edge){ i, i }));
    if (e.count) qsort(e.item, (size_t)e.count, sizeof *e.item, by_query);
    lists l = { 0 };
    int k = 0;
    for (int64_t i = 0; i < nodes; i++)
        for (begin_row(&l); k < e.count && e.item[k].query == i; k++) add_key(&l, e.item[k].key);
    return push_lists(L, &l, 1, nodes, hd_format("%d edges%s%s", given, symmetric ? " both ways" : "", self ? " and self" : ""));
}

/* mask(file, queries, keys): text of 0 and 1, spaces and line ends ignored; or as many bytes as there are pairs, 0 or 1 */
static int mask(lua_State *L)
{
    size_t bytes;
    const char *path, *data = hd_sandbox_read(L, "P.mask", luaL_checkstring(L, 1), &path, &bytes);
    int64_t queries = luaL_checkinteger(L, 2), keys = luaL_checkinteger(L, 3), pairs = 0, kept = 0;
    bool text = true;
    for (size_t k = 0; k < bytes && text; k++) text = data[k] == '0' || data[k] == '1' || data[k] == ' ' || data[k] == '\t' || data[k] == '\n' || data[k] == '\r';
    for (size_t k = 0; k < bytes; k++) {
        if (!text && data[k] != 0 && data[k] != 1)
            hd_fail((hd_where){ path, 0 }, "byte %zu is %d; a mask holds the characters 0 and 1 (spaces and lines as you like), or bytes of value 0 and 1", k, (unsigned char)data[k]);
        pairs += text ? data[k] == '0' || data[k] == '1' : 1;
    }
    if (pairs != queries * keys)
        hd_fail((hd_where){ path, 0 }, "the mask has %" PRId64 " pairs, %" PRId64 " queries and %" PRId64 " keys are %" PRId64, pairs, queries, keys, queries * keys);
    lists l = { 0 };
    int64_t at = 0;
    for (size_t k = 0; k < bytes; k++) {
        if (text && data[k] != '0' && data[k] != '1') continue;
        if (at % keys == 0) begin_row(&l);
        if (data[k] == (text ? '1' : 1)) add_key(&l, at % keys), kept++;
        at++;
    }
    return push_lists(L, &l, 1, keys, hd_format("mask of %" PRId64 " pairs", kept));
}

/* predicate(f, queries, keys) */
static int predicate(lua_State *L)
{
    int64_t queries = luaL_checkinteger(L, 2), keys = luaL_checkinteger(L, 3);
    if (queries > MAX_PREDICATE_PAIRS / keys)
        hd_fail(here(L), "P.predicate: %" PRId64 " queries and %" PRId64 " keys are more than %d pairs (4096 x 4096), too many to ask one by one; "
                "put the pattern together from windows, strides, chunks, residues, grids or edges", queries, keys, MAX_PREDICATE_PAIRS);
    lists l = { 0 };
    hd_sandbox_watch_lines(L, false);
    for (int64_t i = 0; i < queries; i++) {
        begin_row(&l);
        for (int64_t j = 0; j < keys; j++) {
            lua_pushvalue(L, 1);
            lua_pushinteger(L, i);
            lua_pushinteger(L, j);
            lua_call(L, 2, 1);
            if (!lua_isboolean(L, -1))
                hd_fail(here(L), "P.predicate: the function must return true or false; for query %" PRId64 " and key %" PRId64 " it returned %s", i, j, luaL_typename(L, -1));
            if (lua_toboolean(L, -1)) add_key(&l, j);
            lua_pop(L, 1);
        }
        hd_builders_check_memory(L);
    }
    hd_sandbox_watch_lines(L, true);
    return push_lists(L, &l, 1, keys, hd_format("predicate on %" PRId64 " x %" PRId64, queries, keys));
}

void hd_pattern_data_open(lua_State *L)
{
    static const luaL_Reg function[] = {
        { "documents", documents }, { "grid", grid }, { "blocks", blocks }, { "edges", make_edges }, { "mask", mask }, { "predicate", predicate }, { NULL, NULL },
    };
    luaL_setfuncs(L, function, 0);
}
