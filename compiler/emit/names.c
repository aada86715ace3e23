/* What the files of a model call things: C names, types and prototypes of its entries, comments and literals. */
#include "write.h"
#include <ctype.h>
#include <string.h>

const char *hd_comment(const char *text)
{
    char *out = hd_strdup(text ? text : "");
    for (char *c = out; *c; c++) {
        if (*c == '*' && c[1] == '/') *c = '+';
        if (*c == '/' && c[1] == '*') *c = '+';
        if ((unsigned char)*c < ' ' || *c == 127 || *c == '\\') *c = ' ';
    }
    return out;
}

const char *hd_emit_upper(const char *text)
{
    char *out = hd_strdup(text);
    for (char *c = out; *c; c++) *c = (char)(isalnum((unsigned char)*c) ? toupper((unsigned char)*c) : '_');
    return out;
}

const char *hd_quoted(const char *text)
{
    hd_text out = { 0 };
    hd_text_add(&out, "\"");
    for (const unsigned char *c = (const unsigned char *)(text ? text : ""); *c; c++) {
        if (*c == '"' || *c == '\\' || *c == '?') hd_text_add(&out, "\\%c", *c);
        else if (*c < ' ' || *c >= 127) hd_text_add(&out, "\\%03o", *c);
        else hd_text_addn(&out, (const char *)c, 1);
    }
    hd_text_add(&out, "\"");
    return out.data;
}

void hd_emit_file(hd_model *m, const char *name, const char *text, bool header)
{
    HD_PUSH(m->file, m->files, m->file_capacity, ((hd_file){ name, text, header, 0 }));
}

const char *hd_emit_banner(const hd_model *m, const char *what)
{
    return hd_format("made by heddle %s for %s (target %s). Edits here are lost: edit the spec.\n * %s", m->version, hd_comment(m->graph->spec), m->target->name, what);
}

static const char *c_name(const char *name)
{
    char *out = hd_strdup(name);
    for (char *c = out; *c; c++) if (!isalnum((unsigned char)*c)) *c = '_';
    static const char *const taken[] = { "memory", "threads", "pack", "all", "i", "int64_t", "INT64_C", "_Bool", "_Complex", "_Imaginary", "_Generic", "_Atomic", "_Alignas", "_Alignof", "_Noreturn", "_Static_assert", "_Thread_local", "sequences", "used", "run", "rows", "scratch", "error", "S", "W", "P", "G", "NULL", "size_t", "int32_t", "uintptr_t", "hd_run", "hd_threads", "asm", "typeof", "do", "int", "float", "for", "if", "while", "auto", "long",
                                         "new", "class", "this", "delete", "template", "operator", "private", "public", "default", "const", "return", "short", "signed", "union", "struct", "enum", "case", "char", "double", "else", "goto", "void", "break", "static", "switch", "register", "inline", "extern", "continue", "volatile", "unsigned", "sizeof", "typedef", "restrict", "bool", "true", "false", "namespace", "using", "virtual", "try", "catch", "throw", "and", "or", "not", "xor", "export", "friend", "mutable", "typename", "explicit", "protected", "constexpr", "consteval", "constinit", "nullptr", "const_cast", "dynamic_cast", "static_cast", "reinterpret_cast", "decltype", "requires", "concept", "wchar_t", "char8_t", "char16_t", "char32_t", "alignas", "alignof", "noexcept", "static_assert", "thread_local", "typeid", "typeof_unqual", "bitand", "bitor", "compl", "and_eq", "or_eq", "not_eq", "xor_eq", "co_await", "co_return", "co_yield" };
    for (unsigned i = 0; i < sizeof taken / sizeof *taken; i++) if (!strcmp(out, taken[i])) return hd_format("%s_", out);
    return isdigit((unsigned char)*out) ? hd_format("t_%s", out) : out;
}

/* Argument k of an entry (inputs, then outputs): its own name, or that with a number if an earlier one has taken it. */
const char *hd_emit_argument(const hd_entry *e, int k)
{
    static const hd_entry *of;
    static const char **name;
    if (of == e) return name[k];
    of = e;
    name = HD_NEW_ARRAY(const char *, e->inputs + e->outputs);
    for (int i = 0; i < e->inputs + e->outputs; i++) {
        const char *base = c_name(i < e->inputs ? e->input[i]->name : e->output[i - e->inputs].name);
        name[i] = base;
        for (int number = 2, j = 0; j < i; j++)
            if (!strcmp(name[j], name[i])) name[i] = hd_format("%s_%d", base, number++), j = -1;
    }
    return name[k];
}

const hd_entry hd_emit_pack_entry = { .name = "pack" };
const char *hd_emit_function(const hd_entry *e) { return e == &hd_emit_pack_entry ? e->name : c_name(e->name); }

const char *hd_emit_type(const hd_node *n) { return n->dtype == HD_I32 ? "int32_t" : "float"; }

void hd_emit_prototype(hd_text *out, const hd_model *m, const hd_entry *e)
{
    hd_text_add(out, "int %s_%s%s(const %s_memory *memory, const hd_threads *threads%s", m->kernels.prefix, hd_emit_function(e), e->decodes ? "_rows" : "", m->kernels.prefix, e->decodes ? ", int stream" : "");
    for (int i = 0; i < e->inputs; i++)
        hd_text_add(out, ", const %s *%s", hd_emit_type(e->input[i]), hd_emit_argument(e, i));
    for (int i = 0; i < e->outputs; i++)
        hd_text_add(out, ", %s *%s", hd_emit_type(e->output[i].node), hd_emit_argument(e, e->inputs + i));
    if (e->decodes) hd_text_add(out, ", int used");
    else if (e->causal) hd_text_add(out, ", int sequences, int used");
    hd_text_add(out, ")");
}
