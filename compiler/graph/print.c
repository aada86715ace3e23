/* The graph as text, for --dump and golden tests: one line per node in graph order, then one block per entry. The same
 * graph always prints the same bytes: numbers by their shortest decimal, no addresses, no host paths but the spec's own.
 *
 *   %h.0.qkv.weight = param normal 0.02 decay  f32 [384, 128]  models/text.lua:12
 *   %12 = matmul %9, %h.0.qkv.weight trans_b  f32 [8, 256, 384]  "h.0.qkv"  models/text.lua:12 */
#include "internal.h"

#include "../pattern/pattern.h"

#include <stdio.h>
#include <stdlib.h>

/* Sources go by the user's name, all else by number. */
static void add_reference(hd_text *text, const hd_node *node)
{
    if (node->name && (node->op == HD_OP_input || node->op == HD_OP_param)) hd_text_add(text, "%%%s", node->name);
    else hd_text_add(text, "%%%d", node->id);
}

static void add_number(hd_text *text, const char *word, double value)
{
    char digits[40];
    for (int precision = 6; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    hd_text_add(text, " %s%s%s", word, *word ? " " : "", digits);
}

/* " with sinks, bias": what the inputs beyond the usual ones are. */
static void add_extras(hd_text *text, const hd_node *node)
{
    static const char *const name[] = { "sinks", "bias", "key_bias", "edge_bias", "bounds" };
    const char *between = " with ";
    for (int e = 0; e < 5; e++) {
        if (hd_attention_input(node, 1u << e) < 0) continue;
        hd_text_add(text, "%s%s", between, name[e]);
        between = ", ";
    }
}

static void add_attributes(hd_text *text, const hd_node *node)
{
    static const char *const roles[] = { "weight", "gradient", "m", "v" }, *const inits[] = { "constant", "normal", "uniform" };
    const hd_attr *attr = &node->attr;
    switch (node->op) {
    case HD_OP_param:
        if (attr->param.role == HD_WEIGHT) {
            add_number(text, inits[attr->param.init.kind], attr->param.init.scale);
            if (attr->param.decay) hd_text_add(text, " decay");
        } else {
            hd_text_add(text, " %s", roles[attr->param.role]);
        }
        break;
    case HD_OP_constant: add_number(text, "", attr->constant.value); break;
    case HD_OP_result: hd_text_add(text, " %d", attr->result.index); break;
    case HD_OP_dropout: add_number(text, "p", attr->dropout.p); hd_text_add(text, " stream %d", attr->dropout.stream); break;
    case HD_OP_slice: hd_text_add(text, " axis %d start %lld", attr->slice.axis, (long long)attr->slice.start); break;
    case HD_OP_pad: hd_text_add(text, " axis %d before %lld after %lld", attr->pad.axis, (long long)attr->pad.before, (long long)attr->pad.after); break;
    case HD_OP_key_bounds: hd_text_add(text, " %s keys %lld", attr->bounds.documents ? "documents" : "lengths", (long long)attr->bounds.keys); break;
    case HD_OP_concat: hd_text_add(text, " axis %d", attr->concat.axis); break;
    case HD_OP_shift:
    case HD_OP_unshift: hd_text_add(text, " axis %d", attr->shift.axis); break;
    case HD_OP_transpose:
        for (int i = 0; i < node->shape.rank; i++) hd_text_add(text, i ? ",%d" : " %d", attr->transpose.perm[i]);
        break;
    case HD_OP_sum:
    case HD_OP_reduce_max: {
        const char *between = " axes ";
        for (int i = 0; i < node->shape.rank; i++) {
            if (!(attr->reduce.axes >> i & 1)) continue;
            hd_text_add(text, "%s%d", between, i);
            between = ",";
        }
        break;
    }
    case HD_OP_matmul:
        if (attr->matmul.trans_a) hd_text_add(text, " trans_a");
        if (attr->matmul.trans_b) hd_text_add(text, " trans_b");
        break;
    case HD_OP_layer_norm: case HD_OP_rms_norm: case HD_OP_layer_norm_dx: case HD_OP_rms_norm_dx:
        add_number(text, "epsilon", attr->norm.epsilon);
        break;
    case HD_OP_top_k: hd_text_add(text, " k %d", attr->top_k.k); break;
    case HD_OP_embedding_dw: hd_text_add(text, " rows %lld", (long long)attr->size.rows); break;
    case HD_OP_position_ids:
        if (attr->position_ids.offset) hd_text_add(text, " offset %lld", (long long)attr->position_ids.offset);
        if (attr->position_ids.divide > 1) hd_text_add(text, " divide %lld", (long long)attr->position_ids.divide);
        if (attr->position_ids.modulo) hd_text_add(text, " modulo %lld", (long long)attr->position_ids.modulo);
        break;
    case HD_OP_last_row:
    case HD_OP_first_row: case HD_OP_shift_cached: hd_text_add(text, " axis %d", attr->row.axis); break;
    case HD_OP_rope: case HD_OP_rope_at:
        hd_text_add(text, " axis %d head_dim %d dims %d%s%s", attr->rope.axis, attr->rope.head_dim, attr->rope.dims,
                    attr->rope.pairs ? " pairs" : "", attr->rope.inverse ? " inverse" : "");
        for (int t = 0; attr->rope.frequency && t < attr->rope.dims / 2; t++) add_number(text, t ? "" : "frequencies", attr->rope.frequency[t]);
        if (!attr->rope.frequency) add_number(text, "base", attr->rope.base);
        if (attr->rope.scale != 1) add_number(text, "scale", attr->rope.scale);
        break;
    case HD_OP_cache_keys: hd_text_add(text, " chunk %lld", (long long)attr->cache_keys.chunk); break;
    case HD_OP_attention:
    case HD_OP_attention_dx:
    case HD_OP_attention_cached:
        hd_text_add(text, " heads %d", attr->attention.heads);
        if (attr->attention.kv_heads != attr->attention.heads) hd_text_add(text, " kv_heads %d", attr->attention.kv_heads);
        hd_text_add(text, " head_dim %d%s", attr->attention.head_dim, attr->attention.heads_first ? " heads_first" : "");
        add_number(text, "scale", attr->attention.scale);
        if (attr->attention.softcap > 0) add_number(text, "softcap", attr->attention.softcap);
        for (int h = 0; attr->attention.alibi && h < attr->attention.heads; h++) add_number(text, h ? "" : "alibi", attr->attention.alibi[h]);
        if (attr->attention.offset) hd_text_add(text, " offset %lld", (long long)attr->attention.offset);
        if (attr->attention.buckets) hd_text_add(text, " buckets %lld of %lld distances from %lld", (long long)attr->attention.buckets->buckets, (long long)attr->attention.buckets->count, (long long)attr->attention.buckets->first);
        add_extras(text, node);
        for (int i = 0; i < attr->attention.patterns; i++) hd_text_add(text, "%s(%s)", i ? ", " : " pattern ", hd_pattern_text(attr->attention.pattern[i]));
        break;
    default: break;
    }
}

static void add_node(hd_text *text, const hd_node *node)
{
    bool source = node->op == HD_OP_input || node->op == HD_OP_param;
    add_reference(text, node);
    hd_text_add(text, " = %s", hd_ops[node->op].name);
    for (int i = 0; i < node->inputs; i++) {
        hd_text_add(text, i ? ", " : " ");
        add_reference(text, node->input[i]);
    }
    add_attributes(text, node);
    hd_text_add(text, "  %s %s", node->dtype == HD_I32 ? "i32" : "f32", hd_shape_text(&node->shape));
    if (node->name && !source) hd_text_add(text, "  \"%s\"", node->name);
    if (node->block) hd_text_add(text, "  block %d", node->block);
    if (node->clone) hd_text_add(text, "  again");
    if (node->where.file && node->where.line) hd_text_add(text, "  %s:%d", node->where.file, node->where.line);
    else if (node->where.file) hd_text_add(text, "  %s", node->where.file);
    hd_text_add(text, "\n");
}

void hd_graph_print(const hd_graph *graph, hd_text *text)
{
    hd_text_add(text, "graph %s: %d nodes, %d entries\n", graph->name ? graph->name : "", graph->nodes, graph->entries);
    for (int i = 0; i < graph->nodes; i++) add_node(text, graph->node[i]);
    for (int e = 0; e < graph->entries; e++) {
        const hd_entry *entry = graph->entry[e];
        hd_text_add(text, "entry %s(", entry->name);
        for (int i = 0; i < entry->inputs; i++) {
            hd_text_add(text, i ? ", " : "");
            add_reference(text, entry->input[i]);
        }
        hd_text_add(text, ")%s\n", entry->causal ? " causal" : "");
        for (int i = 0; i < entry->outputs; i++) {
            hd_text_add(text, "  %s = ", entry->output[i].name);
            add_reference(text, entry->output[i].node);
            hd_text_add(text, "\n");
        }
        for (int i = 0; i < entry->effects; i++) {
            hd_text_add(text, i ? ", " : "  stores ");
            add_reference(text, entry->effect[i]);
        }
        if (entry->effects) hd_text_add(text, "\n");
    }
}
