/* safetensors files: what is read is what was written; hostile files are refused by name, never believed. */
#include "support.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../runtime/app/checkpoint.h"
#include "../../runtime/app/weights.h"

/* A file of this header and `data` bytes of zeros; declared: header length to write, -1 for the true one. */
static void write_st(const char *path, const char *header, long long declared, size_t data)
{
    size_t length = strlen(header);
    unsigned char *file = calloc(1, 8 + length + data);
    uint64_t n = declared < 0 ? length : (uint64_t)declared;
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)(n >> 8 * i);
    memcpy(file + 8, header, length);
    write_file(path, file, 8 + length + data);
    free(file);
}

#define T(dtype, shape, begin, end) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"
#define EMBED "\"transformer.embed.weight\":" T("F32", "[256,16]", "0", "16384")
#define HEAD "\"head.weight\":" T("F32", "[256,16]", "16384", "32768")
#define BIAS "\"head.bias\":" T("F32", "[256]", "32768", "33792")
enum { WHOLE = 33792 };

static char deep[100001];        /* '{"a":' and brackets to the end */

static const struct { const char *why, *header; long long declared; size_t data; const char *message; } hostile[] = {
    { "header longer than the file", "{}", 1000, 0, "its header should have 1000 bytes, but only 2 follow" },
    { "header length of 2^63", "{}", INT64_MAX, 0, "its header should have" },
    { "not JSON", "hello", -1, 0, "not a safetensors file: header byte 5: '[' or '{' expected near 'hello'" },
    { "no object", "[]", -1, 0, "not a safetensors file: its header is no object" },
    { "nothing in the header", "", -1, 0, "header byte 0: '[' or '{' expected" },
    { "a name that would break the line", "{\"a\\n\\u001b[2J\":1}", -1, 0, "w: tensor 'a??[2J' is not" },
    { "bytes that are not UTF-8", "{\"a\xff\":1}", -1, 0, "header byte 3: unable to decode byte 0xff" },
    { "header cut off", "{\"a\":{\"dtype\":\"F32\",", -1, 0, "header byte" },
    { "string never ends", "{\"a", -1, 0, "header byte 3: premature end of input near '\"a'" },
    { "text after the object", "{} x", -1, 0, "header byte 4: end of file expected near 'x'" },
    { "deep nesting", deep, -1, 0, "maximum parsing depth reached" },
    { "NUL in a name", "{\"a\\u0000b\":" T("F32", "[0]", "0", "0") "}", -1, 0, "NUL byte in object key" },
    { "half a surrogate pair", "{\"\\ud800\":" T("F32", "[0]", "0", "0") "}", -1, 0, "invalid Unicode" },
    { "negative size", "{\"a\":" T("F32", "[-1]", "0", "4") "}", -1, 4, "'a' has a size in its shape that is no whole number from 0" },
    { "a size that is no whole number", "{\"a\":" T("F32", "[1.0]", "0", "4") "}", -1, 4, "'a' has a size in its shape that is no whole number from 0" },
    { "an offset that is no whole number", "{\"a\":" T("F32", "[1]", "0", "4e0") "}", -1, 4, "data_offsets: [begin, end]}: Expected integer, got real" },
    { "three offsets", "{\"a\":" T("F32", "[1]", "0", "4, 4") "}", -1, 4, "data_offsets: [begin, end]}: 1 array item(s) left unpacked" },
    { "a negative offset", "{\"a\":" T("F32", "[1]", "-4", "0") "}", -1, 4, "'a' lies at bytes -4 to 0, but the data has 4 bytes" },
    { "a shape that is no array", "{\"a\":" T("F32", "4", "0", "4") "}", -1, 4, "'a' has a shape that is no array" },
    { "a dtype that is no text", "{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, "Expected string, got integer" },
    { "an unknown key", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}", -1, 4, "left unpacked: more" },
    { "a tensor that is no object", "{\"a\":[]}", -1, 0, "'a' is not {dtype, shape, data_offsets: [begin, end]}: Expected object, got array" },
    { "number beyond 64 bits", "{\"a\":" T("F32", "[99999999999999999999999]", "0", "4") "}", -1, 4, "too big integer" },
    { "product of sizes overflows", "{\"a\":" T("F32", "[4294967296,4294967296,4]", "0", "4") "}", -1, 4, "'a' has an impossible shape" },
    { "too many dimensions", "{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", -1, 4, "'a' has more than 8 dimensions" },
    { "offset beyond the data", "{\"a\":" T("F32", "[1]", "0", "4") "}", -1, 3, "'a' lies at bytes 0 to 4, but the data has 3 bytes" },
    { "begin after end", "{\"a\":" T("F32", "[1]", "4", "0") "}", -1, 4, "'a' lies at bytes 4 to 0" },
    { "offsets disagree with the shape", "{\"a\":" T("F32", "[2]", "0", "7") "}", -1, 7, "'a' of type F32 and shape [2] needs 8 bytes, but its data_offsets hold 7" },
    { "overlap", "{\"a\":" T("F32", "[2]", "0", "8") ",\"b\":" T("F32", "[2]", "4", "12") "}", -1, 12, "tensors 'a' and 'b' overlap" },
    { "hole", "{\"a\":" T("F32", "[1]", "0", "4") ",\"b\":" T("F32", "[1]", "8", "12") "}", -1, 12, "4 bytes before tensor 'b' belong to no tensor" },
    { "bytes after the last tensor", "{\"a\":" T("F32", "[1]", "0", "4") "}", -1, 6, "2 bytes at the end belong to no tensor" },
    { "the same name twice", "{\"a\":" T("F32", "[1]", "0", "4") ",\"a\":" T("F32", "[1]", "4", "8") "}", -1, 8, "duplicate object key near '\"a\"'" },
    { "key twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, "duplicate object key near '\"dtype\"'" },
    { "key missing", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", -1, 0, "Object item not found: data_offsets" },
    { "metadata that is no text", "{\"__metadata__\":{\"a\":1}}", -1, 0, "__metadata__ 'a' is no text" },
    { "metadata that is no object", "{\"__metadata__\":[]}", -1, 0, "__metadata__ is no object" },
    { "tensor missing", "{" EMBED "}", -1, 16384, "2 of the 3 tensors of model tiny missing: 'head.weight' [256, 16], 'head.bias' [256]" },
    { "all tensors missing", "{\"__metadata__\":{\"model\":\"other\"}}", -1, 0, "missing: 'transformer.embed.weight' [256, 16], 'head.weight' [256, 16], 'head.bias' [256]; it is of model other" },
    { "tensor surplus", "{" EMBED "," HEAD "," BIAS ",\"more\":" T("F32", "[1]", "33792", "33796") "}", -1, WHOLE + 4, "1 tensors are not of model tiny: 'more'" },
    { "wrong dtype", "{\"transformer.embed.weight\":" T("I32", "[256,16]", "0", "16384") "," HEAD "," BIAS "}", -1, WHOLE, "'transformer.embed.weight' has type I32; valid: F32, F16, BF16, F64" },
    { "unknown dtype", "{\"transformer.embed.weight\":" T("Q5", "[256,16]", "0", "16384") "," HEAD "," BIAS "}", -1, WHOLE, "has type Q5" },
    { "wrong shape", "{\"transformer.embed.weight\":" T("F32", "[16,256]", "0", "16384") "," HEAD "," BIAS "}", -1, WHOLE, "'transformer.embed.weight' has shape [16, 256]; this model's has [256, 16]" },
};

static void hostile_files_are_refused_by_name(void **state)
{
    (void)state;
    memset(deep, '[', sizeof deep - 1);
    memcpy(deep, "{\"a\":", 5);
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        write_st("w", hostile[i].header, hostile[i].declared, hostile[i].data);
        int status = program("sample --weights w --tokens 1");
        if (status != 1 || !strstr(program_err, hostile[i].message)) fail_msg("%s: status %d, %s", hostile[i].why, status, program_err);
        assert_refused(status, "w: ");
    }
    write_file("w", "\1\0\0", 3);
    assert_refused(program("sample --weights w --tokens 1"), "w: not a safetensors file: 3 bytes");
    write_file("w", "", 0);
    assert_refused(program("sample --weights w --tokens 1"), "w: not a safetensors file: 0 bytes");
    assert_refused(program("sample --weights none --tokens 1"), "none: No such file");
    assert_refused(program("sample --weights . --tokens 1"), ".: a folder that holds no *.safetensors file; weights are model.safetensors");
}

/* ---- mutated files ---------------------------------------------------------------------------------------------- */

/* Good files to mutate: weights, a training state, and one with every type, escapes and metadata. */
static const char *const corpus[] = { "good", "good.state", "types" };
enum { CORPUS = sizeof corpus / sizeof corpus[0] };

static const char *const splice[] = {
    "0", "-1", "1", "4294967296", "4611686018427387904", "9223372036854775807", "9223372036854775808", "18446744073709551615", "1e400", "1.5", "-0", "nan",
    "\"\"", "\"__metadata__\":{}", "\\u0000", "\\ud800", "\\u001b", "null", "true", "[", "]", "{", "}", ",", ":", "\"", "\\", "[[[[[[[[", "F64", "BF16", "U8", "\xff", "\xc3", "\n", "step", "batch",
};

static uint32_t random_state;
static size_t below(size_t limit) { return (random_state = random_state * 1664525 + 1013904223, limit ? (size_t)(((uint64_t)random_state * limit) >> 32) : 0); }

/* Replaces bytes [at, at + cut) of `text` by `with`. */
static size_t replace(unsigned char *text, size_t length, size_t at, size_t cut, const void *with, size_t bytes)
{
    memmove(text + at + bytes, text + at + cut, length - at - cut);
    memcpy(text + at, with, bytes);
    return length - cut + bytes;
}

/* Stays JSON, so that what follows the parser is reached: a number becomes another, or a letter does. */
static size_t mutate_gently(unsigned char *header, size_t length)
{
    size_t at = below(length), digits = 0;
    while (at < length && !isalnum(header[at])) at++;
    while (at + digits < length && isdigit(header[at + digits])) digits++;
    if (at == length) return length;
    if (!digits) header[at] = (unsigned char)((header[at] & ~31) | (1 + below(26)));
    else if (below(3)) header[at + digits - 1] = (unsigned char)('0' + below(10));
    else {
        const char *with = splice[below(6)];
        length = replace(header, length, at, digits, with, strlen(with));
    }
    return length;
}

/* One to six changes of the header (numbers, bytes, pieces copied or cut), then a length that mostly tells the truth. */
static size_t mutate(const unsigned char *good, size_t bytes, unsigned char *out)
{
    static unsigned char header[1 << 16];
    size_t old = good[0] + 256u * good[1], length = old, data = bytes - 8 - old;
    memcpy(header, good + 8, old);
    bool gentle = below(2);
    for (size_t changes = 1 + below(gentle ? 2 : 6); changes > 0; changes--) {
        if (gentle) {
            length = mutate_gently(header, length);
            continue;
        }
        size_t at = below(length), digits = 0, from = below(length), piece = below(1 + (length - from < 40 ? length - from : 40));
        unsigned char copy[40];
        switch (below(7)) {
        case 0: header[at] = (unsigned char)below(256); break;
        case 1: header[at] ^= (unsigned char)(1u << below(8)); break;
        case 2:                                                   /* a number becomes another */
            while (at < length && !isdigit(header[at])) at++;
            while (at + digits < length && isdigit(header[at + digits])) digits++;
            /* fall through */
        case 3: {
            const char *with = splice[below(sizeof splice / sizeof splice[0])];
            length = replace(header, length, at, digits, with, strlen(with));
            break;
        }
        case 4: memcpy(copy, header + from, piece); length = replace(header, length, at, 0, copy, piece); break;
        case 5: length = replace(header, length, from, piece, "", 0); break;
        case 6: data = below(2) ? below(data + 1) : data + below(9); break;
        }
        if (length < 2) break;
    }
    uint64_t declared = below(16) ? length : below(2) ? length + below(100) : (uint64_t)1 << below(64);
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)(declared >> 8 * i);
    memcpy(out + 8, header, length);
    memset(out + 8 + length, 0, data);
    if (data <= bytes - 8 - old) memcpy(out + 8 + length, good + 8 + old, data);
    return 8 + length + data;
}

/* What commands do with such a file, in a child: it ends by itself, or by one line and status 1. */
static void read_everything(const char *path)
{
    static unsigned char area[1 << 20];
    hd_safetensors *file = hd_safetensors_open(path);
    for (int i = 0; i < file->count; i++) {
        const hd_st_tensor *t = &file->tensor[i];
        if (hd_safetensors_find(file, t->name) != t) abort();
        if (t->end - t->begin > sizeof area / 8) continue;
        if (t->type == HD_ST_I32 || t->type == HD_ST_I64 || t->type == HD_ST_U8) hd_safetensors_read_i32(t, t->rank, t->size, (int32_t *)(void *)area);
        else if (t->type != HD_ST_OTHER) hd_safetensors_read_f32(t, t->rank, t->size, (float *)(void *)area);
    }
    if (hd_safetensors_meta(file, "seed")) {
        hd_trainer t = { .memory = { .weights = area, .state = area + (1 << 17), .average = area + (1 << 19), .best = area + (1 << 18) } };
        uint64_t digest;
        hd_safetensors *state = hd_checkpoint_open(&t, "mutated", &digest);
        hd_checkpoint_read_areas(state, &t);
        hd_safetensors_close(state);
    } else {
        hd_weights_read(file, "", area);
    }
    hd_safetensors_close(file);
}

/* MUTATIONS: how many (2,000 in every run; 500,000 before a release, with the sanitizers), SEED: which. */
static void mutated_files_are_read_or_refused_but_never_crash(void **state)
{
    (void)state;
    const char *text = getenv("MUTATIONS"), *seed = getenv("SEED");
    unsigned char *good[CORPUS];
    size_t bytes[CORPUS], room = 0, accepted = 0;
    long mutations = text ? atol(text) : 2000;
    write_text("text", 3000);
    assert_int_equal(program("train --data text --steps 2 --average 0.5 --out good"), 0);
    write_st("types",
             "{\"__metadata__\":{\"format\":\"pt\",\"\\u00e9\\ud83d\\ude00\\n\":\"a\\\\b\"},\"a\":" T("F16", "[2]", "0", "4") ",\"b\":" T("BF16", "[2,1]", "4", "8") ",\"c\":" T("F64", "[]", "8", "16")
             ",\"d\":" T("I64", "[1]", "16", "24") ",\"e\":" T("U8", "[3]", "24", "27") ",\"f\":" T("BOOL", "[0]", "27", "27") ",\"g\":" T("I32", "[1,1,1]", "27", "31") "}", -1, 31);
    for (int i = 0; i < CORPUS; i++) {
        good[i] = read_file(corpus[i], &bytes[i]);
        assert_non_null(good[i]);
        room = bytes[i] > room ? bytes[i] : room;
    }
    unsigned char *out = malloc(room + (1 << 16));
    random_state = seed ? (uint32_t)atol(seed) : 1;
    for (long i = 0; i < mutations; i++) {
        int which = (int)below(CORPUS);
        size_t length = mutate(good[which], bytes[which], out);
        write_file("mutated.state", out, length);
        int status = call_in_child(read_everything, "mutated.state");
        accepted += status == 0;
        if (status == 1) assert_refused(status, "mutated.state: ");
        else if (status != 0) fail_msg("mutation %ld of %s: status %d, see mutated.state: %s", i, corpus[which], status, program_err);
    }
    assert_in_range(accepted, 1, (uintmax_t)mutations);
    free(out);
    for (int i = 0; i < CORPUS; i++) free(good[i]);
}

static void names_match_with_and_without_the_hub_prefix_and_known_buffers_are_ignored(void **state)
{
    (void)state;
    static const char *const accepted[] = {
        "{" EMBED "," HEAD "," BIAS "}",
        "{\"embed.weight\":" T("F32", "[256,16]", "0", "16384") "," HEAD "," BIAS "}",
        "{" EMBED ",\"transformer.head.weight\":" T("F32", "[256,16]", "16384", "32768") "," BIAS "}",
        "{" EMBED "," HEAD "," BIAS ",\"h.0.attn.bias\":" T("BOOL", "[4]", "33792", "33796") "}",
        "{" EMBED "," HEAD "," BIAS ",\"h.0.attn.masked_bias\":" T("F32", "[]", "33792", "33796") "}",
        "{" EMBED "," HEAD "," BIAS ",\"h.0.attention.bias\":" T("U8", "[4]", "33792", "33796") "}",
        "{" EMBED "," HEAD "," BIAS ",\"lm_head.weight\":" T("F32", "[1]", "33792", "33796") "}",
    };
    for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
        write_st("w", accepted[i], -1, i < 3 ? WHOLE : WHOLE + 4);
        if (program("sample --weights w --tokens 1") != 0) fail_msg("%s: %s", accepted[i], program_err);
    }
}

/* head.bias as F16, BF16 and F64 (at an offset that suits no type) becomes the logits of a model of zeros. */
static void other_float_types_are_converted(void **state)
{
    (void)state;
    static const struct { const char *dtype; size_t bytes; unsigned char one_and_a_half[8], tiny[8]; float tiny_value; } types[] = {
        { "F16", 2, { 0x00, 0x3e }, { 0x01, 0x00 }, 0x1p-24f },
        { "F16", 2, { 0x00, 0x3e }, { 0x00, 0x7c }, INFINITY },
        { "F16", 2, { 0x00, 0x3e }, { 0x55, 0xb5 }, -0.333251953125f },
        { "BF16", 2, { 0xc0, 0x3f }, { 0x80, 0xc0 }, -4.0f },
        { "F64", 8, { 0, 0, 0, 0, 0, 0, 0xf8, 0x3f }, { 0, 0, 0, 0, 0, 0, 0xd0, 0xbf }, -0.25f },
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char header[512];
        size_t bias = 256 * types[i].bytes, odd = 3, total = odd + bias + 32768;
        snprintf(header, sizeof header,
                 "{\"x.attn.bias\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},\"head.bias\":{\"dtype\":\"%s\",\"shape\":[256],\"data_offsets\":[3,%zu]},"
                 "\"embed.weight\":{\"dtype\":\"F32\",\"shape\":[256,16],\"data_offsets\":[%zu,%zu]},\"head.weight\":{\"dtype\":\"F32\",\"shape\":[256,16],\"data_offsets\":[%zu,%zu]}}",
                 types[i].dtype, odd + bias, odd + bias, odd + bias + 16384, odd + bias + 16384, total);
        write_st("w", header, -1, total);
        size_t bytes;
        unsigned char *file = read_file("w", &bytes);
        memcpy(file + 8 + strlen(header) + odd, types[i].one_and_a_half, types[i].bytes);
        memcpy(file + 8 + strlen(header) + odd + types[i].bytes, types[i].tiny, types[i].bytes);
        write_file("w", file, bytes);
        free(file);
        write_st("in", "{\"tokens\":" T("I32", "[4,32]", "0", "512") "}", -1, 512);
        assert_int_equal(program("run forward --in in --weights w --out y"), 0);
        unsigned char *y = read_file("y", &bytes);
        float logits[3];
        memcpy(logits, y + 8 + y[0] + 256u * y[1], sizeof logits);
        assert_true(logits[0] == 1.5f && logits[1] == types[i].tiny_value && logits[2] == 0);
        free(y);
    }
}

static void inputs_of_run_are_named_when_they_do_not_fit(void **state)
{
    (void)state;
    write_st("in", "{\"other\":" T("F32", "[1]", "0", "4") "}", -1, 4);
    assert_refused(program("run loss --in in --out y"), "in: no tensor 'tokens'; entry loss reads: tokens i32 [4, 32], targets i32 [4, 32]");
    write_st("in", "{\"tokens\":" T("I32", "[4,31]", "0", "496") "}", -1, 496);
    assert_refused(program("run forward --in in --out y"), "in: tensor 'tokens' has shape [4, 31]; this model's has [4, 32]");
    write_st("in", "{\"tokens\":" T("F32", "[4,32]", "0", "512") "}", -1, 512);
    assert_refused(program("run forward --in in --out y"), "in: tensor 'tokens' has type F32; valid: I32, I64, U8");
    write_st("in", "{\"tokens\":" T("I64", "[4,32]", "0", "1024") "}", -1, 1024);
    assert_int_equal(program("run forward --in in --out y"), 0);
    assert_contains(program_err, "initial weights of seed 1");
    size_t bytes;
    unsigned char *file = read_file("in", &bytes);
    file[bytes - 1] = 0x40;
    write_file("in", file, bytes);
    free(file);
    assert_refused(program("run forward --in in --out y"), "'tokens', element 127: 4611686018427387904 does not fit 32 bits");
    assert_refused(program("run nothing --in in --out y"), "tiny has no entry 'nothing'; it has: forward loss train_step");
    assert_refused(program("run forward --in in --out nowhere/y"), "nowhere/y: cannot be written");
}

static void a_bad_id_does_not_reach_the_model(void **state)
{
    (void)state;
    write_st("in", "{\"tokens\":" T("I32", "[4,32]", "0", "512") "}", -1, 512);
    size_t bytes;
    unsigned char *file = read_file("in", &bytes);
    file[bytes - 3] = 1;                                      /* the last id is 256 */
    write_file("in", file, bytes);
    free(file);
    assert_refused(program("run forward --in in --out y"), "in: tensor 'tokens', element 127: id 256; this model's ids are 0 to 255");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_files_are_refused_by_name),
        cmocka_unit_test(mutated_files_are_read_or_refused_but_never_crash),
        cmocka_unit_test(names_match_with_and_without_the_hub_prefix_and_known_buffers_are_ignored),
        cmocka_unit_test(other_float_types_are_converted),
        cmocka_unit_test(inputs_of_run_are_named_when_they_do_not_fit),
        cmocka_unit_test(a_bad_id_does_not_reach_the_model),
    };
    return cmocka_run_group_tests_name("safetensors", tests, enter_folder, leave_folder);
}
