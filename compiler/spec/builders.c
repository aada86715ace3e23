/* What heddle.lua builds graphs with: node values, one constructor for every op, entries, the model.
 *
 * The Lua library (compiler/lua/heddle.lua) is the interface users see and checks options; here a Lua table becomes an
 * hd_attr and hd_graph_add checks the shapes. Axes are 0-based on this side. The user's line comes from the sandbox. */
#include "sandbox.h"

#include <string.h>

#include "../graph/chunk_loss.h"
#include "../pattern/pattern.h"

static const char NODE[] = "heddle.node";

static hd_node *to_node(lua_State *L, int index)
{
    hd_node **box = luaL_testudata(L, index, NODE);
    return box ? *box : NULL;
}

static hd_node *check_node(lua_State *L, int index, const char *what)
{
    hd_node *node = to_node(L, index);
    if (!node) hd_fail(hd_sandbox_state(L)->where, "%s must be a tensor, got %s", what, luaL_typename(L, index));
    return node;
}

static int push_node(lua_State *L, hd_node *node)
{
    *(hd_node **)lua_newuserdatauv(L, sizeof(hd_node *), 0) = node;
    luaL_setmetatable(L, NODE);
    return 1;
}

void hd_builders_check_memory(lua_State *L)
{
    hd_spec_state *state = hd_sandbox_state(L);
    if (hd_arena_used() - state->arena_start > (size_t)hd_spec_limit.memory_bytes)
        hd_fail(state->where, "the spec's graph needs more than %lld MiB; does a loop make tensors or patterns without end here?",
                (long long)(hd_spec_limit.memory_bytes >> 20));
}

/* ---- Lua tables as C values; each takes the table at `index` ---- */

static double number_field(lua_State *L, int index, const char *key, double otherwise)
{
    lua_getfield(L, index, key);
    double value = lua_isnil(L, -1) ? otherwise : lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

static int64_t integer_field(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    int64_t value = lua_tointeger(L, -1);
    lua_pop(L, 1);
    return value;
}

static bool flag_field(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static const char *text_field(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    const char *text = lua_isstring(L, -1) ? hd_strdup(lua_tostring(L, -1)) : NULL;
    lua_pop(L, 1);
    return text;
}

static hd_shape to_shape(lua_State *L, int index)
{
    hd_where where = hd_sandbox_state(L)->where;
    hd_shape shape = { .rank = (int)lua_rawlen(L, index) };
    if (lua_rawlen(L, index) > HD_MAX_RANK)
        hd_fail(where, "a tensor has at most %d axes, not %d", HD_MAX_RANK, (int)lua_rawlen(L, index));
    int64_t elements = 1;
    for (int i = 0; i < shape.rank; i++) {
        lua_rawgeti(L, index, i + 1);
        int is_integer;
        shape.size[i] = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer || shape.size[i] < 1)
            hd_fail(where, "size %d of a shape must be a whole number of 1 or more, got %s", i + 1, luaL_tolstring(L, -1, NULL));
        if (__builtin_mul_overflow(elements, shape.size[i], &elements) || elements > INT64_MAX / 16)
            hd_fail(where, "a tensor of that shape has too many elements to address");
        lua_pop(L, 1);
    }
    return shape;
}

/* List of nodes at `index`; *count is set. */
static hd_node **to_nodes(lua_State *L, int index, int *count, const char *what)
{
    *count = (int)lua_rawlen(L, index);
    hd_node **nodes = HD_NEW_ARRAY(hd_node *, *count + 1);
    for (int i = 0; i < *count; i++) {
        lua_rawgeti(L, index, i + 1);
        nodes[i] = check_node(L, -1, hd_format("%s %d", what, i + 1));
        lua_pop(L, 1);
    }
    return nodes;
}

/* A field that is a list of numbers; NULL without it. */
static const double *numbers_field(lua_State *L, int index, const char *key)
{
    lua_getfield(L, index, key);
    double *list = NULL;
    if (lua_istable(L, -1)) {
        const int count = (int)lua_rawlen(L, -1);
        list = HD_NEW_ARRAY(double, count + 1);
        for (int i = 0; i < count; i++) {
            lua_rawgeti(L, -1, i + 1);
            list[i] = lua_tonumber(L, -1);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    return list;
}

/* buckets = { first, buckets, of = { bucket of distance first, first + 1, ... } } */
static const hd_buckets *to_buckets(lua_State *L, int index)
{
    hd_buckets *b = NULL;
    lua_getfield(L, index, "buckets");
    if (lua_istable(L, -1)) {
        const int at = lua_gettop(L);
        b = HD_NEW(hd_buckets);
        b->first = integer_field(L, at, "first"), b->buckets = integer_field(L, at, "buckets");
        lua_getfield(L, at, "of");
        b->count = (int64_t)lua_rawlen(L, -1);
        int32_t *bucket = HD_NEW_ARRAY(int32_t, b->count);
        for (int64_t i = 0; i < b->count; i++) {
            lua_rawgeti(L, -1, i + 1);
            bucket[i] = (int32_t)lua_tointeger(L, -1);
            lua_pop(L, 1);
        }
        b->bucket = bucket;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return b;
}

static void to_attention(lua_State *L, int index, hd_attr *attr)
{
    attr->attention.softcap = number_field(L, index, "softcap", 0);
    attr->attention.alibi = numbers_field(L, index, "alibi");
    attr->attention.offset = integer_field(L, index, "offset");
    attr->attention.buckets = to_buckets(L, index);
    attr->attention.with = (unsigned)integer_field(L, index, "with");
    attr->attention.heads = (int)integer_field(L, index, "heads");
    attr->attention.kv_heads = (int)integer_field(L, index, "kv_heads");
    attr->attention.head_dim = (int)integer_field(L, index, "head_dim");
    attr->attention.scale = number_field(L, index, "scale", 1);
    attr->attention.heads_first = flag_field(L, index, "heads_first");
    lua_getfield(L, index, "patterns");
    int count = (int)lua_rawlen(L, -1);
    attr->attention.patterns = count;
    attr->attention.pattern = HD_NEW_ARRAY(const hd_pattern *, count);
    for (int i = 0; i < count; i++) {
        lua_rawgeti(L, -1, i + 1);
        attr->attention.pattern[i] = hd_pattern_lua_get(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* The attributes an op takes, from the table at `index`; heddle.lua has set every key that is read here. */
static hd_attr to_attr(lua_State *L, hd_op op, int index)
{
    hd_spec_state *state = hd_sandbox_state(L);
    hd_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!lua_istable(L, index)) return attr;
    switch (op) {
    case HD_OP_param:
        attr.param.role = HD_WEIGHT;
        attr.param.init.kind = (hd_init_kind)integer_field(L, index, "init");
        attr.param.init.scale = number_field(L, index, "scale", 0);
        attr.param.decay = flag_field(L, index, "decay");
        break;
    case HD_OP_table: attr.table.value = numbers_field(L, index, "values"); break;
    case HD_OP_key_bounds:
        attr.bounds.documents = flag_field(L, index, "documents");
        attr.bounds.queries = integer_field(L, index, "queries");
        attr.bounds.keys = integer_field(L, index, "keys");
        break;
    case HD_OP_constant: attr.constant.value = number_field(L, index, "value", 0); break;
    case HD_OP_dropout:
        attr.dropout.p = number_field(L, index, "p", 0);
        attr.dropout.stream = state->graph->streams++;
        break;
    case HD_OP_slice:
        attr.slice.axis = (int)integer_field(L, index, "axis");
        attr.slice.start = integer_field(L, index, "start");
        break;
    case HD_OP_concat: attr.concat.axis = (int)integer_field(L, index, "axis"); break;
    case HD_OP_shift: attr.shift.axis = (int)integer_field(L, index, "axis"); break;
    case HD_OP_transpose:
        lua_getfield(L, index, "perm");
        for (int i = 0; i < HD_MAX_RANK; i++) {
            lua_rawgeti(L, -1, i + 1);
            attr.transpose.perm[i] = (int)lua_tointeger(L, -1);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
        break;
    case HD_OP_sum:
    case HD_OP_reduce_max: attr.reduce.axes = (unsigned)integer_field(L, index, "axes"); break;
    case HD_OP_matmul:
        attr.matmul.trans_a = flag_field(L, index, "trans_a");
        attr.matmul.trans_b = flag_field(L, index, "trans_b");
        break;
    case HD_OP_top_k: attr.top_k.k = (int)integer_field(L, index, "k"); break;
    case HD_OP_layer_norm:
    case HD_OP_rms_norm: attr.norm.epsilon = number_field(L, index, "epsilon", 1e-5); break;
    case HD_OP_rope:
        attr.rope.axis = (int)integer_field(L, index, "axis");
        attr.rope.head_dim = (int)integer_field(L, index, "head_dim");
        attr.rope.dims = (int)integer_field(L, index, "dims");
        attr.rope.pairs = flag_field(L, index, "pairs");
        attr.rope.base = number_field(L, index, "base", 10000);
        attr.rope.frequency = numbers_field(L, index, "frequencies");
        attr.rope.scale = number_field(L, index, "scale", 1);
        break;
    case HD_OP_attention:
    case HD_OP_attention_dx: to_attention(L, index, &attr); break;
    default: break;
    }
    return attr;
}

/* ---- nodes ---- */

static hd_op op_named(const char *name)
{
    for (int op = 0; op < HD_OPS; op++)
        if (!strcmp(hd_ops[op].name, name)) return (hd_op)op;
    return HD_OPS;
}

/* add(op, inputs, attributes, shape, dtype, name) -> node; the last four may be nil */
static int add(lua_State *L)
{
    hd_spec_state *state = hd_sandbox_state(L);
    lua_settop(L, 6);
    hd_op op = op_named(luaL_checkstring(L, 1));
    luaL_argcheck(L, op < HD_OPS, 1, "no such op");
    int inputs;
    hd_node **input = to_nodes(L, 2, &inputs, hd_format("%s: input", hd_ops[op].name));
    hd_attr attr = to_attr(L, op, 3);
    hd_shape shape = { 0 };
    if (lua_istable(L, 4)) shape = to_shape(L, 4);
    const char *type = luaL_optstring(L, 5, "f32");
    hd_dtype dtype = strcmp(type, "i32") ? HD_F32 : HD_I32;
    state->graph->scope = lua_isstring(L, 6) ? hd_strdup(lua_tostring(L, 6)) : NULL;
    hd_node *node = hd_graph_add(state->graph, op, state->where, dtype, lua_istable(L, 4) ? &shape : NULL, inputs, input, &attr);
    state->graph->scope = NULL;
    hd_builders_check_memory(L);
    return push_node(L, node);
}

/* result(node, index) -> node: result 1, 2, ... of an op with several */
static int result(lua_State *L)
{
    hd_node *of = check_node(L, 1, "result of");
    return push_node(L, hd_graph_result(hd_sandbox_state(L)->graph, of, (int)luaL_checkinteger(L, 2)));
}

static int is_node(lua_State *L)
{
    lua_pushboolean(L, to_node(L, 1) != NULL);
    return 1;
}

/* about(node) -> shape table, dtype, name or nil, op, text of the shape */
static int about(lua_State *L)
{
    hd_node *node = check_node(L, 1, "the argument");
    lua_createtable(L, node->shape.rank, 0);
    for (int i = 0; i < node->shape.rank; i++) {
        lua_pushinteger(L, node->shape.size[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushstring(L, node->dtype == HD_I32 ? "i32" : "f32");
    lua_pushstring(L, node->name);
    lua_pushstring(L, hd_ops[node->op].name);
    lua_pushstring(L, hd_shape_text(&node->shape));
    return 5;
}

static int same_node(lua_State *L)
{
    lua_pushboolean(L, to_node(L, 1) && to_node(L, 1) == to_node(L, 2));
    return 1;
}

/* block(begin): opens a recompute group, or closes it; an inner one belongs to the outer. Returns whether it opened one. */
static int block(lua_State *L)
{
    hd_graph *graph = hd_sandbox_state(L)->graph;
    bool opened = false;
    if (!lua_toboolean(L, 1)) graph->block = 0;
    else if (!graph->block) {
        graph->block = ++graph->blocks;
        opened = true;
    }
    lua_pushboolean(L, opened);
    return 1;
}

/* gradients(loss, tensors) -> list */
static int gradients(lua_State *L)
{
    hd_spec_state *state = hd_sandbox_state(L);
    hd_node *loss = check_node(L, 1, "hd.grad: the loss");
    int count;
    hd_node **tensor = to_nodes(L, 2, &count, "hd.grad: tensor"), **gradient = HD_NEW_ARRAY(hd_node *, count + 1);
    hd_gradients(state->graph, loss, count, tensor, gradient);
    hd_builders_check_memory(L);
    lua_createtable(L, count, 0);
    for (int i = 0; i < count; i++) {
        push_node(L, gradient[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* attention_gradients(inputs, { out, lse, d_out }, attributes [, name]) -> list: the gradient of each input, false for bounds */
static int attention_gradients(lua_State *L)
{
    hd_spec_state *state = hd_sandbox_state(L);
    lua_settop(L, 4);
    int inputs, results;
    hd_node **input = to_nodes(L, 1, &inputs, "attention_gradient: input"), **result_node = to_nodes(L, 2, &results, "attention_gradient: result");
    hd_node **gradient = HD_NEW_ARRAY(hd_node *, inputs + 1);
    const hd_attr attr = to_attr(L, HD_OP_attention, 3);
    state->graph->scope = lua_isstring(L, 4) ? hd_strdup(lua_tostring(L, 4)) : NULL;
    hd_attention_gradients(state->graph, state->where, &attr, inputs, input, result_node[0], result_node[1], result_node[2], NULL, gradient);
    state->graph->scope = NULL;
    hd_builders_check_memory(L);
    lua_createtable(L, inputs, 0);
    for (int i = 0; i < inputs; i++) {
        if (gradient[i]) push_node(L, gradient[i]);
        else lua_pushboolean(L, false);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* Which nodes an output depends on: flags by node id. */
static bool *ancestors(const hd_graph *graph, const hd_node *output)
{
    bool *needed = HD_NEW_ARRAY(bool, graph->nodes);
    needed[output->id] = true;
    for (int id = output->id; id >= 0; id--)
        for (int i = 0; needed[id] && i < graph->node[id]->inputs; i++) needed[graph->node[id]->input[i]->id] = true;
    return needed;
}

/* without_dropout(node) -> node: the same value as evaluation wants it. What does not follow a dropout is shared. */
static int without_dropout(lua_State *L)
{
    hd_graph *graph = hd_sandbox_state(L)->graph;
    hd_node *output = check_node(L, 1, "the argument");
    bool *needed = ancestors(graph, output);
    int count = output->id + 1;
    hd_node **twin = HD_NEW_ARRAY(hd_node *, count);
    for (int id = 0; id < count; id++) {
        hd_node *node = graph->node[id], **input = HD_NEW_ARRAY(hd_node *, node->inputs + 1);
        bool changed = false;
        twin[id] = node;
        if (!needed[id]) continue;
        for (int i = 0; i < node->inputs; i++) {
            input[i] = twin[node->input[i]->id];
            changed |= input[i] != node->input[i];
        }
        if (node->op == HD_OP_dropout) {
            twin[id] = input[0];
            continue;
        }
        if (!changed) continue;
        if (node->op == HD_OP_result) {
            twin[id] = hd_graph_result(graph, input[0], node->attr.result.index);
            continue;
        }
        bool states_shape = node->op == HD_OP_reshape || node->op == HD_OP_slice || node->op == HD_OP_expand || node->op == HD_OP_pad;
        twin[id] = hd_graph_add(graph, node->op, node->where, node->dtype, states_shape ? &node->shape : NULL, node->inputs, input, &node->attr);
        twin[id]->name = node->name;
        twin[id]->block = node->block;
    }
    hd_builders_check_memory(L);
    return push_node(L, twin[output->id]);
}

/* ---- the model ---- */

/* entry { name, inputs = { node }, outputs = { { name, node } }, causal, hidden } -> handle. A hidden entry is not the
 * user's: train_step is made from it. */
static int entry(lua_State *L)
{
    hd_spec_state *state = hd_sandbox_state(L);
    const char *name = text_field(L, 1, "name");
    hd_entry *made = flag_field(L, 1, "hidden") ? HD_NEW(hd_entry) : hd_graph_entry(state->graph, name);
    made->name = name;
    made->causal = flag_field(L, 1, "causal");
    lua_getfield(L, 1, "inputs");
    made->input = to_nodes(L, -1, &made->inputs, "input");
    lua_getfield(L, 1, "outputs");
    made->outputs = (int)lua_rawlen(L, -1);
    made->output = HD_NEW_ARRAY(hd_named, made->outputs + 1);
    for (int i = 0; i < made->outputs; i++) {
        lua_rawgeti(L, -1, i + 1);
        made->output[i].name = text_field(L, -1, "name");
        lua_getfield(L, -1, "node");
        made->output[i].node = check_node(L, -1, "an output");
        lua_pop(L, 2);
    }
    lua_pushlightuserdata(L, made);
    return 1;
}

/* loss_chunks(logits, asked) -> chunks to compute the loss of these logits in; asked 0: as many as they are worth. Nil: asked for,
 * but the logits are not made row by row. */
static int loss_chunks(lua_State *L)
{
    hd_node *logits = check_node(L, 1, "the logits");
    const int asked = (int)luaL_checkinteger(L, 2), chunks = asked ? asked : hd_loss_chunks(logits);
    hd_head head;
    if (chunks > 1 && !hd_find_head(hd_sandbox_state(L)->graph, logits, &head)) {
        if (asked) lua_pushnil(L);
        else lua_pushinteger(L, 1);
        return 1;
    }
    lua_pushinteger(L, chunks);
    return 1;
}

/* chunked_nll(logits, targets, chunks): cross_entropy(logits, targets), of logits that loss_chunks approved of */
static int chunked_nll(lua_State *L)
{
    hd_graph *graph = hd_sandbox_state(L)->graph;
    hd_head head;
    if (!hd_find_head(graph, check_node(L, 1, "the logits"), &head)) return luaL_error(L, "internal: logits without a head");
    return push_node(L, hd_chunked_nll(graph, &head, check_node(L, 2, "the targets"), (int)luaL_checkinteger(L, 3)));
}

/* train_step(handle of an entry whose first output is the loss [, logits, targets, chunks]): the latter for a loss in chunks */
static int train_step(lua_State *L)
{
    hd_graph *graph = hd_sandbox_state(L)->graph;
    const hd_entry *loss = lua_touserdata(L, 1);
    const int chunks = (int)luaL_optinteger(L, 4, 1);
    hd_head head;
    if (chunks == 1) hd_add_train_step(graph, loss);
    else if (!hd_find_head(graph, check_node(L, 2, "the logits"), &head)) return luaL_error(L, "internal: logits without a head");
    else hd_add_chunked_train_step(graph, loss, &head, check_node(L, 3, "the targets"), chunks);
    hd_builders_check_memory(L);
    return 0;
}

/* inputs_of(nodes) -> the input nodes they depend on, in the order they were made */
static int inputs_of(lua_State *L)
{
    hd_graph *graph = hd_sandbox_state(L)->graph;
    int count;
    hd_node **output = to_nodes(L, 1, &count, "output");
    bool *needed = HD_NEW_ARRAY(bool, graph->nodes);
    for (int i = 0; i < count; i++) {
        bool *of_one = ancestors(graph, output[i]);
        for (int id = 0; id < graph->nodes; id++) needed[id] |= of_one[id];
    }
    lua_newtable(L);
    for (int id = 0, inputs = 0; id < graph->nodes; id++)
        if (needed[id] && graph->node[id]->op == HD_OP_input) {
            push_node(L, graph->node[id]);
            lua_rawseti(L, -2, ++inputs);
        }
    return 1;
}

/* is_causal(output, tokens) */
static int is_causal(lua_State *L)
{
    hd_node *output = check_node(L, 1, "the output"), *tokens = check_node(L, 2, "tokens");
    lua_pushboolean(L, hd_causal(hd_sandbox_state(L)->graph, output, tokens));
    return 1;
}

/* Rows of the smallest table that the tokens index. */
static int64_t ids_of(const hd_graph *graph, const hd_node *tokens, int64_t otherwise)
{
    int64_t ids = 0;
    for (int i = 0; i < graph->nodes; i++) {
        const hd_node *node = graph->node[i];
        if (node->op == HD_OP_embedding && node->input[1] == tokens && (!ids || node->input[0]->shape.size[0] < ids)) ids = node->input[0]->shape.size[0];
    }
    return ids ? ids : otherwise;
}

/* The table that hd.image or hd.sound made (compiler/lua/output.lua). */
static hd_output to_output(lua_State *L, int at)
{
    const char *encoding = text_field(L, at, "encoding");
    hd_output o = { .kind = encoding ? HD_OUTPUT_SOUND : HD_OUTPUT_IMAGE, .encoding = encoding, .rate = integer_field(L, at, "rate"), .width = integer_field(L, at, "width"),
                    .height = integer_field(L, at, "height"), .channels = integer_field(L, at, "channels"), .planar = flag_field(L, at, "planar") };
    lua_getfield(L, at, "palette");
    size_t bytes;
    const char *palette = lua_tolstring(L, -1, &bytes);
    if (palette) {
        o.palette = memcpy(HD_NEW_ARRAY(unsigned char, bytes), palette, bytes);
        o.colours = (int64_t)bytes / o.channels;
    }
    lua_pop(L, 1);
    return o;
}

/* model { name, language_model, tokens, predicts_same, length, vocab, batch, tokenizer = path or nil, training = table or nil, output = table or nil,
 * bos = id or nil, eos = list or nil }; tokens: of a language model */
static int model(lua_State *L)
{
    hd_graph *graph = hd_sandbox_state(L)->graph;
    graph->name = text_field(L, 1, "name");
    graph->kind = flag_field(L, 1, "language_model") ? HD_KIND_LANGUAGE_MODEL : HD_KIND_OPS;
    graph->predicts_same = flag_field(L, 1, "predicts_same");
    graph->length = integer_field(L, 1, "length");
    graph->vocab = integer_field(L, 1, "vocab");
    graph->decode_streams = integer_field(L, 1, "streams"), graph->prefill_chunk = integer_field(L, 1, "prefill_chunk");
    const char *tokenizer = text_field(L, 1, "tokenizer"), *slash = strrchr(graph->spec, '/');
    if (tokenizer) graph->tokenizer = *tokenizer == '/' ? tokenizer : hd_format("%.*s%s", slash ? (int)(slash - graph->spec) + 1 : 0, graph->spec, tokenizer);
    graph->batch = integer_field(L, 1, "batch");
    lua_getfield(L, 1, "output");
    if (lua_istable(L, -1)) graph->output = to_output(L, lua_gettop(L));
    lua_getfield(L, 1, "bos");
    graph->bos = luaL_optinteger(L, -1, -1);
    lua_getfield(L, 1, "eos");
    for (int i = 0; lua_istable(L, -1) && i < (int)lua_rawlen(L, -1); i++) {
        lua_rawgeti(L, -1, i + 1);
        if (lua_tointeger(L, -1) < graph->vocab) graph->eos[graph->ends++] = lua_tointeger(L, -1);      /* others are never predicted */
        lua_pop(L, 1);
    }
    lua_getfield(L, 1, "tokens");
    graph->ids = lua_isnil(L, -1) ? 0 : ids_of(graph, check_node(L, -1, "tokens"), graph->vocab);
    if (graph->bos >= graph->ids) graph->bos = -1;
    lua_getfield(L, 1, "training");
    if (lua_istable(L, -1)) {
        int at = lua_gettop(L);
        graph->training = (hd_training){
            .present = true,
            .lr = number_field(L, at, "lr", 0), .min_lr = number_field(L, at, "min_lr", 0),
            .beta1 = number_field(L, at, "beta1", 0), .beta2 = number_field(L, at, "beta2", 0),
            .epsilon = number_field(L, at, "epsilon", 0), .decay = number_field(L, at, "decay", 0),
            .clip = number_field(L, at, "clip", 0), .average = number_field(L, at, "average", 0),
            .warmup = integer_field(L, at, "warmup"), .batch = integer_field(L, at, "batch"),
        };
    }
    return 0;
}

/* config(key, text): a resolved key of hd.config, for `info` */
static int config(lua_State *L)
{
    hd_spec_state *state = hd_sandbox_state(L);
    hd_graph *graph = state->graph;
    int room = (int)(sizeof graph->config / sizeof graph->config[0]);
    if (graph->configs == room) hd_fail(state->where, "hd.config has more than %d keys", room);
    graph->config[graph->configs].key = hd_strdup(luaL_checkstring(L, 1));
    graph->config[graph->configs].value = hd_strdup(luaL_checkstring(L, 2));
    graph->configs++;
    return 0;
}

/* overrides() -> list of "key=value" */
static int overrides(lua_State *L)
{
    hd_spec_state *state = hd_sandbox_state(L);
    lua_createtable(L, state->overrides, 0);
    for (int i = 0; i < state->overrides; i++) {
        lua_pushstring(L, state->override[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* fail(message [, file]): ends the compiler with the user's line, or with `file` (a flag) before the message */
static int fail(lua_State *L)
{
    hd_where where = hd_sandbox_state(L)->where;
    if (lua_isstring(L, 2)) where = (hd_where){ lua_tostring(L, 2), 0 };
    char *text = hd_strdup(luaL_tolstring(L, 1, NULL));
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = ' ';       /* one message, one line */
    hd_fail(where, "%s", text);
}

/* where() -> "models/text.lua:31" */
static int where(lua_State *L)
{
    hd_where at = hd_sandbox_state(L)->where;
    lua_pushfstring(L, "%s:%d", at.file, at.line);
    return 1;
}

void hd_builders_open(lua_State *L)
{
    static const luaL_Reg function[] = {
        { "add", add }, { "result", result }, { "is_node", is_node }, { "about", about }, { "block", block }, { "gradients", gradients },
        { "attention_gradients", attention_gradients },
        { "without_dropout", without_dropout }, { "entry", entry }, { "train_step", train_step }, { "loss_chunks", loss_chunks }, { "chunked_nll", chunked_nll }, { "inputs_of", inputs_of },
        { "is_causal", is_causal }, { "model", model }, { "config", config }, { "overrides", overrides },
        { "fail", fail }, { "where", where }, { NULL, NULL },
    };
    luaL_setfuncs(L, function, 0);
    luaL_newmetatable(L, NODE);              /* heddle.lua fills in the operators */
    lua_pushcfunction(L, same_node);
    lua_setfield(L, -2, "__eq");
    lua_pushliteral(L, "tensor");
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, false);               /* and nobody else gets at it */
    lua_setfield(L, -2, "__metatable");
    lua_setfield(L, -2, "node_operators");
}
