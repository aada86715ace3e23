/* safetensors files: what is read is what was written; hostile files are refused by name, never believed. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static const struct { const char *why, *header; long long declared; size_t data; const char *message; } hostile[] = {
    { "header longer than the file", "{}", 1000, 0, "its header should have 1000 bytes, but only 2 follow" },
    { "header length of 2^63", "{}", INT64_MAX, 0, "its header should have" },
    { "not JSON", "hello", -1, 0, "not a safetensors file: header byte 0: expected '{'" },
    { "header cut off", "{\"a\":{\"dtype\":\"F32\",", -1, 0, "header byte" },
    { "string never ends", "{\"a", -1, 0, "expected the end of a string" },
    { "text after the object", "{} x", -1, 0, "expected nothing after the last '}'" },
    { "deep nesting", "{\"a\":[[[[[[[[[[[[", -1, 0, "expected '{'" },
    { "NUL in a name", "{\"a\\u0000b\":" T("F32", "[0]", "0", "0") "}", -1, 0, "expected no NUL" },
    { "half a surrogate pair", "{\"\\ud800\":" T("F32", "[0]", "0", "0") "}", -1, 0, "surrogate" },
    { "negative size", "{\"a\":" T("F32", "[-1]", "0", "4") "}", -1, 4, "expected a whole number, not negative" },
    { "number beyond 64 bits", "{\"a\":" T("F32", "[99999999999999999999999]", "0", "4") "}", -1, 4, "expected a number below 2^62" },
    { "product of sizes overflows", "{\"a\":" T("F32", "[4294967296,4294967296,4]", "0", "4") "}", -1, 4, "'a' has an impossible shape" },
    { "too many dimensions", "{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", -1, 4, "'a' has more than 8 dimensions" },
    { "offset beyond the data", "{\"a\":" T("F32", "[1]", "0", "4") "}", -1, 3, "'a' lies at bytes 0 to 4, but the data has 3 bytes" },
    { "begin after end", "{\"a\":" T("F32", "[1]", "4", "0") "}", -1, 4, "'a' lies at bytes 4 to 0" },
    { "offsets disagree with the shape", "{\"a\":" T("F32", "[2]", "0", "7") "}", -1, 7, "'a' of type F32 and shape [2] needs 8 bytes, but its data_offsets hold 7" },
    { "overlap", "{\"a\":" T("F32", "[2]", "0", "8") ",\"b\":" T("F32", "[2]", "4", "12") "}", -1, 12, "tensors 'a' and 'b' overlap" },
    { "hole", "{\"a\":" T("F32", "[1]", "0", "4") ",\"b\":" T("F32", "[1]", "8", "12") "}", -1, 12, "4 bytes before tensor 'b' belong to no tensor" },
    { "bytes after the last tensor", "{\"a\":" T("F32", "[1]", "0", "4") "}", -1, 6, "2 bytes at the end belong to no tensor" },
    { "the same name twice", "{\"a\":" T("F32", "[1]", "0", "4") ",\"a\":" T("F32", "[1]", "4", "8") "}", -1, 8, "'a' is there twice" },
    { "key twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, "'a' has an unknown or repeated key 'dtype'" },
    { "key missing", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", -1, 0, "'a' lacks data_offsets" },
    { "metadata that is no text", "{\"__metadata__\":{\"a\":1}}", -1, 0, "expected '\"'" },
    { "tensor missing", "{" EMBED "}", -1, 16384, "2 of the model's 3 tensors missing, the first is 'head.weight' [256, 16]" },
    { "tensor surplus", "{" EMBED "," HEAD "," BIAS ",\"more\":" T("F32", "[1]", "33792", "33796") "}", -1, WHOLE + 4, "1 tensors are not of model tiny, the first is 'more'" },
    { "wrong dtype", "{\"transformer.embed.weight\":" T("I32", "[256,16]", "0", "16384") "," HEAD "," BIAS "}", -1, WHOLE, "'transformer.embed.weight' has type I32; valid: F32, F16, BF16, F64" },
    { "unknown dtype", "{\"transformer.embed.weight\":" T("Q5", "[256,16]", "0", "16384") "," HEAD "," BIAS "}", -1, WHOLE, "has type Q5" },
    { "wrong shape", "{\"transformer.embed.weight\":" T("F32", "[16,256]", "0", "16384") "," HEAD "," BIAS "}", -1, WHOLE, "'transformer.embed.weight' has shape [16, 256]; this model's has [256, 16]" },
};

static void hostile_files_are_refused_by_name(void **state)
{
    (void)state;
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
    assert_refused(program("sample --weights . --tokens 1"), ".: not a regular file");
}

/* Whatever single byte of a good file's header is broken, the program refuses or reads, but never crashes. */
static void every_broken_header_byte_is_survived(void **state)
{
    (void)state;
    static const unsigned char instead[] = { 0, '"', '\\', '9', '}', 0xff };
    assert_int_equal(program("run forward --in in --out out.safetensors --weights-out good"), 1);     /* no inputs yet */
    write_st("in", "{\"tokens\":" T("I32", "[4,32]", "0", "512") "}", -1, 512);
    assert_int_equal(program("run forward --in in --weights-out good"), 0);
    size_t bytes;
    unsigned char *good = read_file("good", &bytes);
    size_t header = good[0] + 256u * good[1];
    for (size_t at = 0; at < 8 + header; at += at < 16 ? 1 : 5) {
        unsigned char kept = good[at];
        good[at] = instead[at % sizeof instead];
        write_file("w", good, bytes);
        int status = program("run forward --in in --weights w --out y");
        if (status != 0) assert_refused(status, "w: ");
        good[at] = kept;
    }
    free(good);
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
        cmocka_unit_test(every_broken_header_byte_is_survived),
        cmocka_unit_test(names_match_with_and_without_the_hub_prefix_and_known_buffers_are_ignored),
        cmocka_unit_test(other_float_types_are_converted),
        cmocka_unit_test(inputs_of_run_are_named_when_they_do_not_fit),
        cmocka_unit_test(a_bad_id_does_not_reach_the_model),
    };
    return cmocka_run_group_tests_name("safetensors", tests, enter_folder, leave_folder);
}
