/* Damaged files of every format that heddle and its programs read, by libFuzzer under the address and undefined-behaviour sanitizers:
 * whatever a file holds, its reader refuses it, or reads it whole; it never crashes, leaks, or takes memory or time without end.
 *
 *   FUZZ_KIND=KIND build/fuzz/heddle_fuzz [libFuzzer's flags] FOLDER      (make fuzz: every kind; tests/fuzz/run)
 *   FUZZ_KIND=KIND FUZZ_SEEDS=FOLDER build/fuzz/heddle_fuzz               writes the kind's own first cases there
 *
 * Readers are called as they are, in this process: memory.c takes over where they end the process, base_fuzz.c gives the compiler's
 * arena ends that the sanitizer sees, and a mapped file is a block of the heap that ends where the file ends. */
#include "../../compiler/spec/sandbox.h"
#include "../../compiler/tokenizer/tokenizer.h"
#include "../../runtime/app/app.h"
#include "../../runtime/app/media.h"
#include "../../runtime/app/safetensors.h"
#include "fuzz.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char folder[64];                /* of the files that readers are given */

static const char *path_of(const char *name)
{
    static char path[8][128];
    static int next;
    snprintf(path[next % 8], sizeof path[0], "%s/%s", folder, name);
    return path[next++ % 8];
}

static void put(const char *name, const void *data, size_t bytes)
{
    FILE *f = fopen(path_of(name), "wb");
    if (!f || (bytes && fwrite(data, 1, bytes, f) != bytes) || fclose(f)) fprintf(stderr, "%s/%s: cannot be written\n", folder, name), abort();
}

/* ---- what the linker sends here instead ---- */

hd_file_map __wrap_hd_file_open(const char *path);
void __wrap_hd_file_close(hd_file_map);
const char *__wrap_hd_app_text(const char *format, ...);
int __wrap_setrlimit(int resource, const struct rlimit *), __wrap_prctl(int option, ...), __wrap_pipe2(int ends[2], int flags);
pid_t __wrap_fork(void);
void __real_lua_sethook(lua_State *, lua_Hook, int mask, int count), __wrap_lua_sethook(lua_State *, lua_Hook, int mask, int count);

/* A block that ends where the file ends, at no aligned address: maps promise none, and reading further is seen. */
hd_file_map __wrap_hd_file_open(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat status;
    if (!f || fstat(fileno(f), &status) || !S_ISREG(status.st_mode)) hd_app_fail("%s: cannot be read", path);
    unsigned char *data = malloc((size_t)status.st_size + 1);
    const size_t bytes = fread(data + 1, 1, (size_t)status.st_size, f);
    fclose(f);
    return (hd_file_map){ data + 1, bytes };
}
void __wrap_hd_file_close(hd_file_map map) { free((unsigned char *)(uintptr_t)map.data - 1); }

/* Texts of messages and paths live as long as the program. */
const char *__wrap_hd_app_text(const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    const int length = vsnprintf(NULL, 0, format, list);
    char *text = fuzz_alloc((size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(list);
    return text;
}

/* A spec is evaluated in a child with limits: here in this process, under libFuzzer's. */
pid_t __wrap_fork(void) { return 0; }
int __wrap_setrlimit(int resource, const struct rlimit *limit) { return (void)resource, (void)limit, 0; }
int __wrap_prctl(int option, ...) { return (void)option, 0; }
int __wrap_pipe2(int ends[2], int flags) { return ends[0] = ends[1] = -1, (void)flags, 0; }

/* Tables of Unicode do not depend on the file, and take most of the time: made once. */
enum { BERTS = 16, MAPS = BERTS + 5 };
static hd_step_of map[MAPS];
static uint32_t (*all_pairs)[3];
static uint8_t *all_marks;
static int pair_count;
int __real_hd_unicode_pairs(uint32_t (**)[3]), __wrap_hd_unicode_pairs(uint32_t (**)[3]);
uint8_t *__real_hd_unicode_marks(void), *__wrap_hd_unicode_marks(void);
void __real_hd_unicode_bert(hd_step_of *, const hd_bert *), __wrap_hd_unicode_bert(hd_step_of *, const hd_bert *);
void __real_hd_unicode_form(hd_step_of *, bool), __wrap_hd_unicode_form(hd_step_of *, bool);
void __real_hd_unicode_lower(hd_step_of *), __wrap_hd_unicode_lower(hd_step_of *);
void __real_hd_unicode_accents(hd_step_of *), __wrap_hd_unicode_accents(hd_step_of *);
void __real_hd_unicode_nmt(hd_step_of *), __wrap_hd_unicode_nmt(hd_step_of *);

static void take(hd_step_of *step, int i) { step->map = map[i].map, step->map_text = map[i].map_text; }
int __wrap_hd_unicode_pairs(uint32_t (**pairs)[3]) { return *pairs = all_pairs, pair_count; }
uint8_t *__wrap_hd_unicode_marks(void) { return all_marks; }
void __wrap_hd_unicode_bert(hd_step_of *step, const hd_bert *b) { take(step, b->clean | b->chinese << 1 | b->accents << 2 | b->lower << 3); }
void __wrap_hd_unicode_form(hd_step_of *step, bool compatible) { take(step, BERTS + compatible); }
void __wrap_hd_unicode_lower(hd_step_of *step) { take(step, BERTS + 2); }
void __wrap_hd_unicode_accents(hd_step_of *step) { take(step, BERTS + 3); }
void __wrap_hd_unicode_nmt(hd_step_of *step) { take(step, BERTS + 4); }

static void make_unicode(void)
{
    for (int i = 0; i < BERTS; i++) __real_hd_unicode_bert(&map[i], &(hd_bert){ i & 1, i >> 1 & 1, i >> 2 & 1, i >> 3 & 1 });
    for (int i = 0; i < 2; i++) __real_hd_unicode_form(&map[BERTS + i], i);
    __real_hd_unicode_lower(&map[BERTS + 2]);
    __real_hd_unicode_accents(&map[BERTS + 3]);
    __real_hd_unicode_nmt(&map[BERTS + 4]);
    pair_count = __real_hd_unicode_pairs(&all_pairs);
    all_marks = __real_hd_unicode_marks();
    for (int i = 0; i < MAPS; i++) map[i].map_text.capacity = 0;      /* growing makes another one */
}

/* Lines of Lua count as covered code. */
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t lines[1 << 14];
static lua_Hook hook;
static void note_line(lua_State *L, lua_Debug *event)
{
    if (event->event == LUA_HOOKLINE) {
        lua_Debug about = *event;
        lua_getinfo(L, "S", &about);
        uint32_t place = (uint32_t)event->currentline + 2048 * (uint32_t)about.srclen;
        for (const char *c = about.short_src; *c; c++) place += (uint32_t)(unsigned char)*c * 131;
        uint8_t *line = &lines[place % sizeof lines];
        if (*line < 255) ++*line;
    }
    hook(L, event);
}
void __wrap_lua_sethook(lua_State *L, lua_Hook f, int mask, int count)
{
    hook = f;
    __real_lua_sethook(L, note_line, mask | LUA_MASKLINE, count);
}

/* ---- safetensors ---- */

static void read_tensors(const hd_safetensors *file)
{
    static const char *const keys[] = { "model", "step", "" };
    for (int i = 0; i < file->count; i++) {
        const hd_st_tensor *t = &file->tensor[i];
        if (hd_safetensors_find(file, t->name) != t) abort();
        const int64_t elements = hd_app_elements(t->rank, t->size);
        if (elements < 0 || (size_t)elements > t->end - t->begin) continue;      /* no element is smaller than a byte */
        float *out = malloc(4 * (size_t)elements + 1);
        switch (t->type) {
        case HD_ST_F32: case HD_ST_F16: case HD_ST_BF16: case HD_ST_F64: hd_safetensors_read_f32(t, t->rank, t->size, out); break;
        case HD_ST_U8: case HD_ST_I32: hd_safetensors_read_i32(t, t->rank, t->size, (int32_t *)(void *)out); break;
        default: break;
        }
        free(out);
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) (void)hd_safetensors_meta(file, keys[i]);
    (void)hd_safetensors_find(file, "no such tensor");
}

/* '#' before a header: its length is put before it, its end is the first zero byte; so changes of the header are not all refused for their length. */
static void put_tensors(const char *name, const uint8_t *data, size_t bytes)
{
    if (!bytes || *data != '#') { put(name, data, bytes); return; }
    const uint8_t *end = memchr(data, 0, bytes);
    const uint64_t header = end ? (uint64_t)(end - data) - 1 : bytes - 1, rest = end ? bytes - 2 - header : 0;
    unsigned char *file = malloc(8 + header + rest + 1);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)(header >> 8 * i);
    memcpy(file + 8, data + 1, header);
    if (rest) memcpy(file + 8 + header, end + 1, rest);
    put(name, file, 8 + header + rest);
    free(file);
}

static void read_safetensors(const char *path)
{
    hd_safetensors *file = hd_safetensors_open(path);
    read_tensors(file);
    hd_safetensors_close(file);
}

static void safetensors(const uint8_t *data, size_t bytes)
{
    put_tensors("x.safetensors", data, bytes);
    read_safetensors(path_of("x.safetensors"));
}

/* An index and two shards, between lines "%%". */
static void shards(const uint8_t *data, size_t bytes)
{
    static const char *const names[] = { "model.safetensors.index.json", "a.safetensors", "b.safetensors" };
    for (int i = 0; i < 3; i++) {
        const uint8_t *end = bytes ? memmem(data, bytes, "\n%%\n", 4) : NULL;
        const size_t part = end && i < 2 ? (size_t)(end - data) : bytes;
        if (i) put_tensors(names[i], data, part);
        else put(names[i], data, part);
        const size_t skip = part + (end && i < 2 ? 4 : 0);
        data += skip, bytes -= skip;
    }
    read_safetensors(folder);
}

/* ---- config.json ---- */

static void config(const uint8_t *data, size_t bytes)
{
    put("config.json", data, bytes);
    hd_checkpoint_load(folder, "models/hf", 0, NULL, "compiler/lua");
}

/* ---- tokenizers ---- */

static const char text[] = " a ab  abc \u00e9e\u0301 \u2581x xx-x 'S don't 12345 \u4e2d\u6587\n\r\n \U0001f999\u200d\xff\xe2\x82 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbb <u><s>\0z";

/* Ids are the vocabulary's, decoding ends whole or streamed; a byte-level tokenizer without a normaliser gives back what it got. */
static void encode(const hd_tokenizer *t, const char *some, size_t bytes, bool exact)
{
    hd_encoder *e = hd_encoder_new(t, &hd_regex_pcre2);
    if (!e) return;
    const int32_t *ids;
    const int64_t count = hd_encode(e, some, bytes, !exact, &ids);
    for (int64_t i = 0; i < count; i++) if (ids[i] < 0 || (uint32_t)ids[i] >= t->vocab) abort();
    size_t length = 0;
    char *out = hd_decode(t, ids, count < 0 ? 0 : count, false, &length), *room = malloc(hd_stream_room(t));
    if (exact && out && count >= 0 && (length != bytes || memcmp(out, some, bytes))) abort();
    hd_stream stream = { .tokenizer = t };
    for (int64_t i = 0; i <= count && room; i++) (void)hd_stream_put(&stream, i < count ? ids[i] : -1, room);
    free(out), free(room);
    hd_encoder_free(e);
}

static void tokenizer(const char *name, const uint8_t *data, size_t bytes)
{
    put(name, data, bytes);
    const hd_tokenizer *t = hd_tokenizer_load(path_of(name), NULL);
    encode(t, text, sizeof text, false);
    encode(t, (const char *)data, bytes < 300 ? bytes : 300, false);
}

static void json(const uint8_t *data, size_t bytes) { tokenizer("tokenizer.json", data, bytes); }
static void vocab(const uint8_t *data, size_t bytes) { tokenizer("vocab.txt", data, bytes); }
static void model(const uint8_t *data, size_t bytes) { tokenizer("tokenizer.model", data, bytes); }

/* vocab.json and merges.txt, between them a line "%%"; without it merges of a fixed vocabulary. */
static void merges(const uint8_t *data, size_t bytes)
{
    static const char fixed[] = "{\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"abc\": 4, \"\u0120\": 5, \"\u0120a\": 6, \"<|endoftext|>\": 7}";
    const uint8_t *end = bytes ? memmem(data, bytes, "\n%%\n", 4) : NULL;
    put("merges.txt", end ? end + 4 : data, end ? bytes - 4 - (size_t)(end - data) : bytes);
    tokenizer("vocab.json", end ? data : (const uint8_t *)fixed, end ? (size_t)(end - data) : sizeof fixed - 1);
}

/* ---- prompts that are images or sound ---- */

static void png(const uint8_t *data, size_t bytes)
{
    for (int channels = 1; channels <= 3; channels += 2) {
        unsigned char *pixels;
        int64_t width, height;
        if (hd_image_png.read(data, bytes, channels, &pixels, &width, &height)) continue;
        if (width < 1 || height < 1) abort();
        unsigned char sum = 0;
        for (int64_t i = 0; i < width * height * channels; i++) sum ^= pixels[i];
        if (pixels[0] == sum + 256) abort();      /* every pixel was read: it is there, and set */
        free(pixels);
    }
}

static void wav(const uint8_t *data, size_t bytes)
{
    int16_t *samples;
    int64_t count, rate;
    if (hd_sound_sndfile.read(data, bytes, &samples, &count, &rate)) return;
    int sum = 0;
    for (int64_t i = 0; i < count; i++) sum ^= samples[i];
    if (count < 0 || sum == 1 << 20) abort();
    free(samples);
}

/* ---- first cases ---- */

static const char *const json_seeds[] = {
    "{\"model\": {\"type\": \"BPE\", \"unk_token\": \"<u>\", \"byte_fallback\": true, \"fuse_unk\": true, \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\u2581\": 3, \"<u>\": 4, \"<0xC3>\": 5, \"<0xA9>\": 6, \"\u2581a\": 7}, \"merges\": [\"a b\", [\"\u2581\", \"a\"]]},"
    " \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}]}, \"added_tokens\": [{\"id\": 4, \"content\": \"<u>\", \"special\": true}, {\"id\": 8,"
    " \"content\": \"xx\", \"single_word\": true, \"lstrip\": true, \"rstrip\": true, \"normalized\": true}], \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"\u2581\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"},"
    " {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}}",
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"\u0120\": 2, \"\u0120a\": 3, \"ab\": 4, \"<s>\": 5, \"</s>\": 6}, \"merges\": [\"\u0120 a\", \"a b\"], \"ignore_merges\": true}, \"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\":"
    " [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|\\\\s+\"}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"Digits\", \"individual_digits\": true}, {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"use_regex\": true}]},"
    " \"post_processor\": {\"type\": \"RobertaProcessing\", \"sep\": [\"</s>\", 6], \"cls\": [\"<s>\", 5]}, \"decoder\": {\"type\": \"ByteLevel\"}}",
    "{\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"?\", \"continuing_subword_prefix\": \"##\", \"max_input_chars_per_word\": 9, \"vocab\": {\"?\": 0, \"a\": 1, \"##b\": 2, \"##\u00e9\": 3}}, \"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": true,"
    " \"handle_chinese_chars\": true, \"strip_accents\": null, \"lowercase\": true}, \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, \"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true}, \"post_processor\": {\"type\": \"TemplateProcessing\","
    " \"single\": [{\"SpecialToken\": {\"id\": \"?\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"special_tokens\": {\"?\": {\"id\": \"?\", \"ids\": [0], \"tokens\": [\"?\"]}}}}",
    "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"byte_fallback\": false, \"vocab\": [[\"<unk>\", 0.0], [\"\u2581\", -2.5], [\"a\", -3], [\"\u2581ab\", -4]]}, \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Nmt\"}, {\"type\": \"NFKC\"}, {\"type\": \"Precompiled\","
    " \"precompiled_charsmap\": \"EAAAAAEAAAAAAgAAAIAAAGEAYgAAAA==\"}, {\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}, {\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, \"content\": \" \"}, {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a+?b\"}, \"content\": \"ab\"}]},"
    " \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": \"first\", \"split\": true}, \"decoder\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": \"first\"}}",
    ("{\"model\": {\"type\": \"WordLevel\", \"unk_token\": \"?\", \"vocab\": {\"?\": 0, \"a\": 1}}, \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKD\"}, {\"type\": \"StripAccents\"}, {\"type\": \"Lowercase\"}]}, \"pre_tokenizer\": {\"type\": \"Sequence\","
    " \"pretokenizers\": [{\"type\": \"Whitespace\"}, {\"type\": \"Punctuation\", \"behavior\": \"MergedWithNext\"}, {\"type\": \"CharDelimiterSplit\", \"delimiter\": \"-\"}, {\"type\": \"Split\", \"pattern\": {\"String\": \"b\"}, \"behavior\": \"Contiguous\"}, {\"type\": \"WhitespaceSplit\"}]}}"),
};
static const char *const vocab_seeds[] = { "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\nthe\n##\u00e9\n", "[UNK]\r\na\r\n" };
static const char *const merges_seeds[] = { "#version: 0.2\na b\nab c\n\u0120 a\n", "a b\n", "{\"a\": 0, \"b\": 1, \"ab\": 2}\n%%\na b\n" };
static const char model_seed[] = "\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x0a\n\x03\xe2\x96\x81\x15\0\0\x20\xc0\n\x08\n\x01" "a\x15\0\0\x40\xc0\n\x0b\n\x04\xe2\x96\x81" "a\x15\0\0\x80\xc0\x12\x02\x18\x01\x1a\x06\x18\x01 \x01(\x01";
static const char safetensors_seed[] = "#{\"__metadata__\":{\"model\":\"m\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[8,12]},"
                                       "\"c\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[12,13]},\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[13,21]}}\0" "12345678abcdx87654321";
static const char shards_seed[] = "{\"metadata\": {\"total_size\": 12}, \"weight_map\": {\"a\": \"a.safetensors\", \"b\": \"b.safetensors\"}}\n%%\n#{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}\0" "12345678\n%%\n"
                                  "#{\"b\":{\"dtype\":\"F16\",\"shape\":[1,2],\"data_offsets\":[0,4]}}\0" "1234";
static const char config_seed[] = "{\"model_type\": \"llama\", \"hidden_size\": 16, \"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"intermediate_size\": 20, \"vocab_size\": 300, \"max_position_embeddings\": 32,"
                                  " \"rms_norm_eps\": 1e-5, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 16}, \"tie_word_embeddings\": true}";

/* ---- prompts ---- */

/* Tokenizers of the first cases, made once; and one that gives every byte back. */
static const hd_tokenizer *tokenizers[8];
static int tokenizer_count;

static void prompt(const uint8_t *data, size_t bytes)
{
    for (int i = 0; i < tokenizer_count; i++) encode(tokenizers[i], (const char *)data, bytes, !i);
}

static void load_tokenizers(void)
{
    static char bytes_json[1 << 14];
    make_unicode();
    size_t at = (size_t)sprintf(bytes_json, "{\"model\": {\"type\": \"BPE\", \"vocab\": {");
    for (int b = 0; b < 256; b++) {
        const uint32_t letter = hd_byte_letter((unsigned char)b);
        at += (size_t)sprintf(bytes_json + at, "\"\\u%04x\": %d, ", letter, b);
    }
    sprintf(bytes_json + at, "\"aa\": 256, \"ab\": 257}, \"merges\": [\"a a\", \"a b\"]}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"decoder\": {\"type\": \"ByteLevel\"}}");
    const char *all[] = { bytes_json, json_seeds[0], json_seeds[1], json_seeds[2], json_seeds[3], json_seeds[4] };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        put("tokenizer.json", all[i], strlen(all[i]));
        tokenizers[tokenizer_count++] = hd_tokenizer_load(path_of("tokenizer.json"), NULL);
    }
    memory_keep();       /* tables of Unicode that all tokenizers share are among it */
}

/* ---- the kinds ---- */

/* leaves: what it read whole leaves nothing on the heap. A spec's process ends with its Lua state. */
static const struct kind { const char *name; void (*read)(const uint8_t *, size_t); bool leaves; } kinds[] = {
    { "safetensors", safetensors, false }, { "shards", shards, false }, { "config", config, true },
    { "png", png, false }, { "wav", wav, false }, { "json", json, false }, { "vocab", vocab, false }, { "merges", merges, false }, { "model", model, false }, { "prompt", prompt, false },
};
static const struct kind *kind;

static void write_seeds(const char *to)
{
    snprintf(folder, sizeof folder, "%s", to);
    char name[32];
    const bool is_json = !strcmp(kind->name, "json"), is_vocab = !strcmp(kind->name, "vocab"), is_merges = !strcmp(kind->name, "merges");
    const char *const *texts = is_json ? json_seeds : is_vocab ? vocab_seeds : merges_seeds;
    const size_t count = is_json ? sizeof json_seeds / sizeof *json_seeds : is_vocab ? 2 : is_merges ? 3 : 0;
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "seed_%zu", i);
        put(name, texts[i], strlen(texts[i]));
    }
    if (!strcmp(kind->name, "model")) put("seed", model_seed, sizeof model_seed - 1);
    if (!strcmp(kind->name, "safetensors")) put("seed", safetensors_seed, sizeof safetensors_seed - 1);
    if (!strcmp(kind->name, "shards")) put("seed", shards_seed, sizeof shards_seed - 1);
    if (!strcmp(kind->name, "config")) put("seed", config_seed, sizeof config_seed - 1);
    if (!strcmp(kind->name, "prompt")) put("seed", text, sizeof text);
    void *file;
    size_t bytes;
    static const unsigned char pixels[2 * 3 * 3] = { 1, 2, 3, 250, 200, 150 };
    static const int16_t samples[9] = { 0, 1000, -1000, 32767, -32768 };
    for (int i = 1; i <= 3 && !strcmp(kind->name, "png"); i += 2) if (!hd_image_png.write(pixels, 2, 3, i, &file, &bytes)) put(i == 1 ? "grey" : "colours", file, bytes), free(file);
    for (int i = 0; i < 2 && !strcmp(kind->name, "wav"); i++) if (!hd_sound_sndfile.write(samples, 9, 8000, i, &file, &bytes)) put(i ? "wide" : "mu_law", file, bytes), free(file);
}

static void remove_folder(void)
{
    static const char *const names[] = { "x.safetensors", "model.safetensors.index.json", "a.safetensors", "b.safetensors", "config.json", "tokenizer.json", "vocab.txt", "tokenizer.model", "merges.txt", "vocab.json" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(path_of(names[i]));
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    const char *wanted = getenv("FUZZ_KIND"), *seeds = getenv("FUZZ_SEEDS");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) if (wanted && !strcmp(kinds[i].name, wanted)) kind = &kinds[i];
    if (!kind) {
        fprintf(stderr, "FUZZ_KIND is one of:");
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) fprintf(stderr, " %s", kinds[i].name);
        fprintf(stderr, "\n");
        exit(1);
    }
    if (seeds) write_seeds(seeds), exit(0);
    snprintf(folder, sizeof folder, "%s/heddle_fuzz_XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(folder)) fprintf(stderr, "%s cannot be made\n", folder), exit(1);
    atexit(remove_folder);
    hd_spec_limit = (hd_spec_limits){ .memory_bytes = 64 << 20, .instructions = 20000000, .seconds = 10 };
    load_tokenizers();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    jmp_buf out;
    const int left = setjmp(out);
    if (!left) {
        memory_begin(&out);
        kind->read(data, bytes);
    } else if (left != 1 && left != LEFT_WELL) {
        fprintf(stderr, "exit status %d\n", left);
        abort();
    }
    memory_end(!left && !kind->leaves);
    return 0;
}
