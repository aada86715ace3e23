/* Checkpoint folders: every family gives the reference's numbers; shards, half precisions and both spellings of a configuration
 * give the same model; whatever is wrong with a folder gets one clear line.
 *
 * The references lie in ../shared/golden, or where HEDDLE_GOLDEN says; without them that test is skipped. All other folders are
 * made here. Run from the repository's root. */
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HERE FOLDER_OF("import")

/* ---- the families ---- */

static const char *const families[] = { "gpt2", "gpt_neo", "opt", "bloom", "gpt_neox", "starcoder2", "imagegpt", "llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "gpt_oss" };

static const char *golden(const char *path)
{
    const char *folder = getenv("HEDDLE_GOLDEN");
    return hd_format("%s/%s", folder && *folder ? folder : "../shared/golden", path);
}

/* Ids separated by spaces. */
static const char *ids_text(hd_tensor_data ids)
{
    hd_text text = { 0 };
    for (int64_t i = 0; i < hd_elements(&ids.shape); i++) hd_text_add(&text, "%s%d", i ? " " : "", ((const int32_t *)ids.data)[i]);
    return text.data;
}

static double worst_share(const char *got_file, const char *want_file, const char *want_name)
{
    const hd_tensor_data got = hd_tensor_file_read(got_file, "logits"), want = hd_tensor_file_read(want_file, want_name);
    assert_true(hd_same_shape(&got.shape, &want.shape));
    const float *a = got.data, *b = want.data;
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < hd_elements(&got.shape); i++) {
        const double error = fabs((double)a[i] - (double)b[i]);
        if (!(error <= worst)) worst = error;                          /* NaN stays */
        if (fabs((double)b[i]) > largest) largest = fabs((double)b[i]);
    }
    return worst / largest;
}

static bool agrees(const char *family)
{
    const char *folder = golden(family), *io = hd_format("%s/io.safetensors", folder), *program = hd_format(HERE "/%s", family), *in = HERE "/in", *out = HERE "/out";
    hd_tensor_data tokens = hd_tensor_file_read(io, "input_ids");
    tokens.name = "tokens";
    hd_tensor_file_write(in, 1, &tokens);
    must("%s build%s %s -o %s -D batch=%lld -D length=%lld -D streams=%lld -D prefill_chunk=32", heddle(), sanitize(), folder, program, (long long)tokens.shape.size[0], (long long)tokens.shape.size[1], (long long)tokens.shape.size[0]);
    if (*said) fail_msg("%s: it should have nothing to say:\n%s", family, said);
    must("%s run forward --in %s --out %s --weights %s", program, in, out, folder);
    const bool image = !strcmp(family, "imagegpt");
    const double error = worst_share(out, io, image ? "out.logits" : "logits");
    must("%s run step --in %s --out %s --weights %s", program, in, out, folder);      /* both sequences, token after token */
    const double stepped = worst_share(out, io, image ? "out.logits" : "logits");
    bool same = true;
    if (!image) {
        const char *prompt = ids_text(hd_tensor_file_read(io, "prompt_ids")), *greedy = ids_text(hd_tensor_file_read(io, "greedy_ids"));
        must("%s sample --weights %s --temperature 0 --tokens 40 --prompt '%s'", program, folder, prompt);
        same = !strncmp(said, hd_format("%s %s", prompt, greedy), strlen(prompt) + 1 + strlen(greedy));
    }
    print_message("%-12s logits %.1e, by steps %.1e%s\n", family, error, stepped, image ? "" : same ? ", greedy ids identical" : ", greedy ids DIFFER");
    return error <= 1e-5 && stepped <= 1e-5 && same;
}

static void families_give_the_reference_numbers(void **state)
{
    (void)state;
    if (access(golden("gpt2/io.safetensors"), R_OK)) {
        print_message("skipped: there is no %s (HEDDLE_GOLDEN=folder names another place)\n", golden("gpt2/io.safetensors"));
        skip();
    }
    int wrong = 0;
    for (unsigned i = 0; i < sizeof families / sizeof *families; i++) wrong += !agrees(families[i]);
    if (wrong) fail_msg("%d of %d families differ", wrong, (int)(sizeof families / sizeof *families));
}

/* ---- configurations ---- */

static const char llama[] = "{ \"model_type\": \"llama\", \"hidden_size\": 16, \"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, "
                            "\"intermediate_size\": 20, \"vocab_size\": 300, \"max_position_embeddings\": 32, \"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": true%s }";

static const char *config(const char *name, const char *text)
{
    const char *folder = hd_format(HERE "/%s", name);
    must("mkdir -p %s", folder);
    hd_write_file(hd_format("%s/config.json", folder), text, strlen(text));
    return folder;
}

static const char *llama_with(const char *more)
{
    hd_text text = { 0 };
    const char *at = strstr(llama, "%s");
    hd_text_add(&text, "%.*s%s%s", (int)(at - llama), llama, more, at + 2);
    return config("config", text.data);
}

static const struct { const char *why, *config, *says; } bad_configs[] = {
    { "no JSON", "{ \"model_type\": ", "config.json:1: not JSON: " },
    { "no object", "[ 1 ]", "it holds no JSON object" },
    { "nothing", "", "config.json:1: not JSON: " },
    { "a key twice", "{ \"model_type\": \"gpt2\",\n  \"model_type\": \"llama\" }", "config.json:2: not JSON: duplicate object key" },
    { "no UTF-8", "{ \"model_type\": \"ll\xff\" }", "config.json:1: not JSON: unable to decode byte 0xff" },
    { "a number that is none", "{ \"model_type\": \"llama\", \"rms_norm_eps\": NaN }", "config.json:1: not JSON: " },
    { "a number beyond doubles", "{ \"model_type\": \"llama\", \"rope_theta\": 1e999 }", "config.json:1: not JSON: real number overflow" },
    { "a family that is no text", "{ \"model_type\": 2 }", "key \"model_type\" is no text; heddle knows: bloom, " },
    { "orders to a terminal", "{ \"model_type\": \"\\u001b[2J\" }", "key \"model_type\" is \" [2J\"; heddle knows: bloom, " },
    { "no family", "{ \"hidden_size\": 8 }", "key \"model_type\" is missing; heddle knows: bloom, gemma2, gemma3_text, gpt2, " },
    { "an unknown family", "{ \"model_type\": \"mamba\" }", "key \"model_type\" is \"mamba\"; heddle knows: bloom, " },
    { "a family that is a path", "{ \"model_type\": \"../gpt2\" }", "key \"model_type\" is \"../gpt2\"; heddle knows: bloom, " },
    { "a size that is missing", "{ \"model_type\": \"gpt2\", \"n_embd\": 8, \"n_head\": 2 }", "key \"n_layer\" is missing; it must be a whole number of 1 or more" },
    { "a size that is text", "{ \"model_type\": \"gpt2\", \"n_layer\": \"two\" }", "key \"n_layer\" is \"two\"; it must be a whole number of 1 or more" },
    { "an activation", "{ \"model_type\": \"gpt2\", \"n_layer\": 1, \"n_embd\": 8, \"n_head\": 2, \"vocab_size\": 9, \"activation_function\": \"mish\" }",
      "key \"activation_function\" is \"mish\"; heddle has, for this family: gelu, gelu_accurate, " },
    { "an encoder beside it", "{ \"model_type\": \"gpt2\", \"add_cross_attention\": true }", "key \"add_cross_attention\" is true; heddle's models of this family have false" },
    { "quantised weights", "{ \"model_type\": \"gpt2\", \"quantization_config\": { \"bits\": 4 } }", "key \"quantization_config\" is an object; heddle reads checkpoints without it" },
    { "kinds of too many layers", "{ \"model_type\": \"gpt_neo\", \"num_layers\": 3, \"hidden_size\": 8, \"num_heads\": 2, \"vocab_size\": 9, \"attention_types\": [[[\"global\", \"local\"], 2]] }",
      "key \"attention_types\" is a list; it must name the kinds of num_layers = 3 layers, not of 4" },
    { "an unknown kind", "{ \"model_type\": \"gpt_neo\", \"num_layers\": 1, \"hidden_size\": 8, \"num_heads\": 2, \"vocab_size\": 9, \"attention_types\": [[[\"dilated\"], 1]] }",
      "key \"attention_types\" is a list; kinds are \"global\" and \"local\"" },
    { "chunks", "{ \"model_type\": \"gemma2\", \"num_hidden_layers\": 1, \"hidden_size\": 8, \"num_attention_heads\": 2, \"intermediate_size\": 8, \"vocab_size\": 9, \"layer_types\": [\"chunked_attention\"] }",
      "key \"layer_types\" has \"chunked_attention\" for layer 0; valid: \"full_attention\", \"sliding_attention\"" },
    { "attention both ways", "{ \"model_type\": \"gemma2\", \"num_hidden_layers\": 1, \"hidden_size\": 8, \"num_attention_heads\": 2, \"intermediate_size\": 8, \"vocab_size\": 9, "
      "\"use_bidirectional_attention\": true }", "key \"use_bidirectional_attention\" is true; heddle's models of this family have false" },
};

static const struct { const char *why, *more, *says; } bad_rope[] = {
    { "an unknown scaling", ", \"rope_scaling\": { \"rope_type\": \"spiral\", \"factor\": 2 }",
      "key \"rope_scaling.rope_type\" is \"spiral\"; heddle has: default, dynamic, linear, llama3, longrope, su, yarn" },
    { "the older word for it", ", \"rope_scaling\": { \"type\": \"spiral\", \"factor\": 2 }", "key \"rope_scaling.type\" is \"spiral\"; heddle has: default, dynamic, " },
    { "no factor", ", \"rope_scaling\": { \"rope_type\": \"linear\" }", "key \"rope_scaling.factor\" is missing; it must be a number above 0" },
    { "a list of the wrong length", ", \"rope_parameters\": { \"rope_type\": \"longrope\", \"short_factor\": [1], \"long_factor\": [1] }",
      "key \"rope_parameters.short_factor\" is a list; it must be a list of 4 numbers" },
    { "an odd number of elements", ", \"head_dim\": 8, \"partial_rotary_factor\": 0.4", "rotary positions turn 3 of the 8 elements of a head" },
    { "an activation", ", \"hidden_act\": \"maxout\"", "key \"hidden_act\" is \"maxout\"" },
};

/* Values of one key of the small llama: the later of two, so the first is taken out. */
static const struct { const char *why, *key, *value, *says; } bad_values[] = {
    { "none", "hidden_size", "0", "key \"hidden_size\" is 0; it must be a whole number of 1 or more" },
    { "below none", "num_hidden_layers", "-3", "key \"num_hidden_layers\" is -3; it must be a whole number of 1 or more" },
    { "half of one", "vocab_size", "1.5", "key \"vocab_size\" is 1.5; it must be a whole number of 1 or more" },
    { "digits in quotes", "num_attention_heads", "\"2\"", "key \"num_attention_heads\" is \"2\"; it must be a whole number of 1 or more" },
    { "a truth", "intermediate_size", "true", "key \"intermediate_size\" is true; it must be a whole number of 1 or more" },
    { "a list", "max_position_embeddings", "[32]", "key \"max_position_embeddings\" is a list; it must be a whole number of 1 or more" },
    { "more than an int holds", "num_key_value_heads", "2147483648", "key \"num_key_value_heads\" is 2147483648; it must be a whole number of 1 or more, and less than 2147483648" },
    { "more than 64 bits hold", "vocab_size", "99999999999999999999", "config.json:1: not JSON: too big integer" },
    { "as large as an int", "hidden_size", "2147483644", "a tensor of that shape has too many elements to address" },
    { "more heads than elements", "num_attention_heads", "17", "key \"head_dim\" is missing, and other keys make it 0; it must be a whole number of 1 or more" },
    { "heads that share nothing", "num_key_value_heads", "3", "kv_heads 3 does not divide heads 2" },
    { "text for a number", "rms_norm_eps", "\"1e-5\"", "key \"rms_norm_eps\" is \"1e-5\"; it must be a number above 0" },
    { "text for a truth", "tie_word_embeddings", "\"yes\"", "key \"tie_word_embeddings\" is \"yes\"; it must be true or false" },
};

static const char *llama_where(const char *key, const char *value)
{
    const char *named = hd_format("\"%s\": ", key), *all = hd_format("%.*s }", (int)(strlen(llama) - strlen("%s }")), llama), *at = strstr(all, named), *old = at ? at + strlen(named) : NULL;
    if (!at) fail_msg("no key %s", key);
    return config("config", hd_format("%.*s%s%s", (int)(old - all), all, value, old + strcspn(old, ",}")));
}

static void configurations_that_heddle_cannot_follow_are_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof bad_configs / sizeof *bad_configs; i++) refused(bad_configs[i].says, "%s info %s", heddle(), config("bad", bad_configs[i].config));
    for (unsigned i = 0; i < sizeof bad_values / sizeof *bad_values; i++) refused(bad_values[i].says, "%s info %s", heddle(), llama_where(bad_values[i].key, bad_values[i].value));
    hd_text deep = { 0 };
    for (int i = 0; i < 100000; i++) hd_text_add(&deep, "[");
    refused("config.json:1: not JSON: maximum parsing depth", "%s info %s", heddle(), config("bad", deep.data));
    config("bad", "");
    must("truncate -s 2G " HERE "/bad/config.json");
    refused("config.json: it is larger than 4 MiB", "%s info " HERE "/bad", heddle());
    must("rm " HERE "/bad/config.json");
    must("mkfifo " HERE "/bad/config.json");
    refused("config.json: it is no ordinary file", "%s info " HERE "/bad", heddle());
    must("rm " HERE "/bad/config.json");
    for (unsigned i = 0; i < sizeof bad_rope / sizeof *bad_rope; i++) refused(bad_rope[i].says, "%s info %s", heddle(), llama_with(bad_rope[i].more));
    refused("config.json: cannot read it: No such file or directory; a checkpoint folder holds config.json", "%s info tests", heddle());
    refused("dynamic) changes with every token: choose -D length=", "%s info %s -D length=33", heddle(), llama_with(", \"rope_scaling\": { \"type\": \"dynamic\", \"factor\": 2 }"));
    const char *gpt2 = config("bad", "{ \"model_type\": \"gpt2\", \"n_layer\": 1, \"n_embd\": 8, \"n_head\": 2, \"vocab_size\": 9, \"n_positions\": 16 }");
    refused("length 17 is beyond the 16 positions that the checkpoint has vectors for", "%s info %s -D length=17", heddle(), gpt2);
    refused("this spec has no key 'layers'; its keys: batch, length", "%s info %s -D layers=3", heddle(), gpt2);
    refused("this spec is of checkpoints: give heddle the folder", "%s info models/hf/llama.lua", heddle());
    refused("import: -D sets keys of a build; give it to build, emit, check, info or view", "%s import %s -o " HERE "/x.lua -D length=8", heddle(), gpt2);
    refused("is no checkpoint folder: one that holds config.json", "%s import models/text.lua -o " HERE "/x.lua", heddle());
}

static void keys_nobody_reads_are_reported(void **state)
{
    (void)state;
    must("%s info %s", heddle(), llama_with(", \"use_cache\": true, \"torch_dtype\": \"bfloat16\", \"rope_scaling\": null"));
    if (strstr(said, "warning")) fail_msg("harmless keys are reported:\n%s", said);
    must("%s info %s", heddle(), llama_with(", \"attention_chunk_size\": 8, \"rope_parameters\": { \"rope_type\": \"default\", \"rope_theta\": 500, \"twist\": 2 }"));
    assert_says("config.json: warning: key \"attention_chunk_size\" (8) is not known to heddle and is ignored; does it change what the model computes?");
    assert_says("config.json: warning: key \"rope_parameters.twist\" (2) is not known");
}

/* The graph without the lines of the spec. */
static const char *graph_of(const char *spec)
{
    hd_text text = { 0 };
    must("%s info %s -D length=8 --dump graph", heddle(), spec);
    for (char *line = said, *end; (end = strchr(line, '\n')); line = end + 1) {
        char *where = end;
        while (where > line && where[-1] != ' ') where--;
        hd_text_add(&text, "%.*s\n", (int)((where > line && memchr(where, ':', (size_t)(end - where)) ? where : end) - line), line);
        if (!strncmp(line, "entry loss", 10)) break;
    }
    return text.data;
}

/* Configurations as the hub has them, less what all have in common, and the parameters that their makers count. */
static const struct { const char *name; long long parameters; const char *config; } published[] = {
    { "Llama 3.2 1B", 1235814400,
      "{\"attention_bias\": false, \"head_dim\": 64, \"hidden_act\": \"silu\", \"hidden_size\": 2048, \"intermediate_size\": 8192, "
      "\"max_position_embeddings\": 131072, \"mlp_bias\": false, \"model_type\": \"llama\", \"num_attention_heads\": 32, \"num_hidden_layers\": 16, "
      "\"num_key_value_heads\": 8, \"pretraining_tp\": 1, \"rms_norm_eps\": 1e-05, \"rope_scaling\": {\"factor\": 32.0, \"high_freq_factor\": 4.0, "
      "\"low_freq_factor\": 1.0, \"original_max_position_embeddings\": 8192, \"rope_type\": \"llama3\"}, \"rope_theta\": 500000.0, \"tie_word_embeddings\": "
      "true, \"vocab_size\": 128256}" },
    { "gpt-oss 20B", 20914757184,
      "{\"attention_bias\": true, \"experts_per_token\": 4, \"head_dim\": 64, \"hidden_act\": \"silu\", \"hidden_size\": 2880, \"initial_context_length\": "
      "4096, \"intermediate_size\": 2880, \"layer_types\": null, \"max_position_embeddings\": 131072, \"model_type\": \"gpt_oss\", \"num_attention_heads\": "
      "64, \"num_experts_per_tok\": 4, \"num_hidden_layers\": 24, \"num_key_value_heads\": 8, \"num_local_experts\": 32, \"output_router_logits\": false, "
      "\"rms_norm_eps\": 1e-05, \"rope_scaling\": {\"beta_fast\": 32.0, \"beta_slow\": 1.0, \"factor\": 32.0, \"original_max_position_embeddings\": 4096, "
      "\"rope_type\": \"yarn\", \"truncate\": false}, \"rope_theta\": 150000, \"router_aux_loss_coef\": 0.9, \"sliding_window\": 128, \"swiglu_limit\": 7.0, "
      "\"tie_word_embeddings\": false, \"vocab_size\": 201088}" },
    { "Gemma 3 1B", 999885952,
      "{\"attention_bias\": false, \"attn_logit_softcapping\": null, \"cache_implementation\": \"hybrid\", \"final_logit_softcapping\": null, \"head_dim\": "
      "256, \"hidden_activation\": \"gelu_pytorch_tanh\", \"hidden_size\": 1152, \"intermediate_size\": 6912, \"max_position_embeddings\": 32768, "
      "\"model_type\": \"gemma3_text\", \"num_attention_heads\": 4, \"num_hidden_layers\": 26, \"num_key_value_heads\": 1, \"query_pre_attn_scalar\": 256, "
      "\"rms_norm_eps\": 1e-06, \"rope_local_base_freq\": 10000, \"rope_scaling\": null, \"rope_theta\": 1000000, \"sliding_window\": 512, "
      "\"sliding_window_pattern\": 6, \"vocab_size\": 262144}" },
    { "BLOOM 560M", 559214592,
      "{\"apply_residual_connection_post_layernorm\": false, \"attention_softmax_in_fp32\": true, \"bias_dropout_fusion\": true, \"layer_norm_epsilon\": "
      "1e-05, \"masked_softmax_fusion\": true, \"model_type\": \"bloom\", \"n_embed\": 1024, \"n_inner\": null, \"n_layer\": 24, \"num_attention_heads\": 16, "
      "\"offset_alibi\": 100, \"pretraining_tp\": 1, \"seq_length\": 2048, \"skip_bias_add\": true, \"skip_bias_add_qkv\": false, \"vocab_size\": 250880}" },
    { "OPT 350M", 331196416,
      "{\"activation_function\": \"relu\", \"do_layer_norm_before\": false, \"ffn_dim\": 4096, \"hidden_size\": 1024, \"max_position_embeddings\": 2048, "
      "\"model_type\": \"opt\", \"num_attention_heads\": 16, \"num_hidden_layers\": 24, \"vocab_size\": 50272, \"word_embed_proj_dim\": 512}" },
    { "Phi 3.5 mini", 3821079552,
      "{\"attention_bias\": false, \"hidden_act\": \"silu\", \"hidden_size\": 3072, \"intermediate_size\": 8192, \"max_position_embeddings\": 131072, "
      "\"model_type\": \"phi3\", \"num_attention_heads\": 32, \"num_hidden_layers\": 32, \"num_key_value_heads\": 32, \"original_max_position_embeddings\": "
      "4096, \"rms_norm_eps\": 1e-05, \"rope_scaling\": {\"long_factor\": [1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, "
      "1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, "
      "1.5, 1.5], \"short_factor\": [1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, "
      "1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5], \"type\": \"longrope\"}, "
      "\"rope_theta\": 10000.0, \"sliding_window\": 262144, \"tie_word_embeddings\": false, \"vocab_size\": 32064}" },
    { "Pythia 160M", 162322944,
      "{\"hidden_act\": \"gelu\", \"hidden_size\": 768, \"intermediate_size\": 3072, \"layer_norm_eps\": 1e-05, \"max_position_embeddings\": 2048, "
      "\"model_type\": \"gpt_neox\", \"num_attention_heads\": 12, \"num_hidden_layers\": 12, \"rotary_emb_base\": 10000, \"rotary_pct\": 0.25, "
      "\"tie_word_embeddings\": false, \"use_parallel_residual\": true, \"vocab_size\": 50304}" },
    { "Qwen 2.5 0.5B", 494032768,
      "{\"hidden_act\": \"silu\", \"hidden_size\": 896, \"intermediate_size\": 4864, \"max_position_embeddings\": 32768, \"max_window_layers\": 24, "
      "\"model_type\": \"qwen2\", \"num_attention_heads\": 14, \"num_hidden_layers\": 24, \"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-06, \"rope_theta\": "
      "1000000.0, \"sliding_window\": 32768, \"tie_word_embeddings\": true, \"use_mrope\": false, \"use_sliding_window\": false, \"vocab_size\": 151936}" },
};

static void published_configurations_have_the_published_parameters(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof published / sizeof *published; i++) {
        must("%s info %s -D length=64", heddle(), config("published", published[i].config));
        if (strstr(said, "warning")) fail_msg("%s:\n%s", published[i].name, said);
        if (!strstr(said, hd_format(": %lld parameters", published[i].parameters))) fail_msg("%s should have %lld parameters:\n%s", published[i].name, published[i].parameters, said);
    }
}

static void older_spellings_mean_the_same(void **state)
{
    (void)state;
    const char *now = graph_of(llama_with(", \"rope_parameters\": { \"rope_type\": \"llama3\", \"rope_theta\": 500, \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
                                          "\"original_max_position_embeddings\": 16 }"));
    const char *before = graph_of(llama_with(", \"rope_theta\": 500, \"rope_scaling\": { \"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
                                             "\"original_max_position_embeddings\": 16 }"));
    assert_non_null(strstr(now, "frequencies"));
    assert_string_equal(now, before);
}

/* The angles per position of the pairs, and the attention factor, worked out by hand from the published formulas. */
static const struct { const char *why, *more; double angle[4], scale; } scalings[] = {
    { "linear", ", \"rope_scaling\": { \"rope_type\": \"linear\", \"factor\": 4 }", { 0.25, 0.025, 0.0025, 0.00025 }, 1 },
    { "llama3", ", \"rope_theta\": 500, \"rope_scaling\": { \"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 64 }",
      { 1, 0.09761663265652092, 0.005590169943749474, 0.0011821770112539697 }, 1 },
    { "longrope, short", ", \"original_max_position_embeddings\": 8, \"rope_scaling\": { \"rope_type\": \"longrope\", \"original_max_position_embeddings\": 8, \"short_factor\": [1, 2, 4, 8], "
      "\"long_factor\": [1, 1, 1, 1] }", { 1, 0.05, 0.0025, 0.000125 }, 1.2909944487358056 },
    { "yarn, truncated", ", \"rope_scaling\": { \"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 64 }", { 1, 0.1 * 0.5 + 0.025 * 0.5, 0.0025, 0.00025 }, 1.1386294361119891 },
};

static void scalings_of_rotary_positions_are_those_of_the_reference(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof scalings / sizeof *scalings; i++) {
        const char *at = strstr(graph_of(llama_with(scalings[i].more)), " frequencies "), *end;
        assert_non_null(at);
        at += strlen(" frequencies ");
        for (int t = 0; t < 4; t++, at = end) {
            const double angle = strtod(at, (char **)&end);
            if (fabs(angle - scalings[i].angle[t]) > 1e-6 * scalings[i].angle[t]) fail_msg("%s: pair %d turns by %.9g, not %.9g", scalings[i].why, t, angle, scalings[i].angle[t]);
        }
        const double scale = strncmp(at, " scale ", 7) ? 1 : strtod(at + 7, NULL);
        if (fabs(scale - scalings[i].scale) > 1e-6) fail_msg("%s: scale %.9g, not %.9g", scalings[i].why, scale, scalings[i].scale);
    }
}

static void an_imported_spec_is_the_same_model(void **state)
{
    (void)state;
    const char *folder = llama_with(", \"bos_token_id\": 1, \"pad_token_id\": 1, \"rope_theta\": 1e6, \"layer_types\": null");
    must("%s import %s -o " HERE "/spec.lua", heddle(), folder);
    assert_string_equal(graph_of(HERE "/spec.lua"), graph_of(folder));
    const char *spec = text_of(HERE "/spec.lua");
    assert_non_null(strstr(spec, "  rms_norm_eps = 1e-05,\n  rope_theta = 1e+06,\n"));
    assert_non_null(strstr(spec, "bos_token_id = 1,"));      /* where samples begin */
    assert_null(strstr(spec, "pad_token_id"));
}

/* Sizes that divide by nothing, more rows than an expert takes at once: routed products, YaRN, sinks against the interpreter. */
static void mixtures_agree_with_the_interpreter(void **state)
{
    (void)state;
    const char *folder = config("mixture", "{ \"model_type\": \"gpt_oss\", \"hidden_size\": 20, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 8, "
                                "\"intermediate_size\": 9, \"num_local_experts\": 5, \"num_experts_per_tok\": 2, \"vocab_size\": 37, \"sliding_window\": 4, \"max_position_embeddings\": 64, \"rope_theta\": 1000, "
                                "\"rope_scaling\": { \"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 16, \"truncate\": false } }");
    must("%s check%s %s -D length=13 -D batch=3", heddle(), sanitize(), folder);
    assert_says("not compared: top_k has none");
}

/* 64 positions: an image of 8 x 8 colours, after the start token, which no image holds. */
static void image_gpt_writes_the_colours_of_its_clusters(void **state)
{
    static const unsigned char png[] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R', 0, 0, 0, 8, 0, 0, 0, 8, 8, 2 };
    (void)state;
    if (access(golden("imagegpt/io.safetensors"), R_OK)) skip();
    must("mkdir -p " HERE "/image");
    must("cp %s %s " HERE "/image", golden("imagegpt/config.json"), golden("imagegpt/model.safetensors"));
    hd_text text = { 0 };
    for (int i = 0; i < 64; i++) hd_text_add(&text, "%s[%g, -1, 1]", i ? ", " : "{\"clusters\": [", i / 31.5 - 1);
    hd_text_add(&text, "]}");
    hd_write_file(HERE "/image/preprocessor_config.json", text.data, text.length);
    must("%s build%s " HERE "/image -o " HERE "/image/program", heddle(), sanitize());
    must(HERE "/image/program sample --weights " HERE "/image -o " HERE "/image/out.png --json");
    assert_says("\"prompt_tokens\": 1, \"tokens\": 64,");
    if (memcmp(text_of(HERE "/image/out.png"), png, sizeof png)) fail_msg("no PNG of 8 x 8 pixels");
}

/* ---- weights ---- */

typedef struct tensor { const char *name, *type; hd_shape shape; const void *data; size_t bytes; } tensor;

/* A safetensors file of any types; more: that many bytes between the tensors, as no file should have (below 0: they overlap). */
static void write_tensors(const char *path, int tensors, const tensor *t, int more)
{
    hd_text header = { 0 }, file = { 0 };
    long long at = 0;
    for (int i = 0; i < tensors; i++, at += more) {
        hd_text_add(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "{", t[i].name, t[i].type);
        for (int k = 0; k < t[i].shape.rank; k++) hd_text_add(&header, "%s%lld", k ? "," : "", (long long)t[i].shape.size[k]);
        hd_text_add(&header, "],\"data_offsets\":[%lld,%lld]}", at, at + (long long)t[i].bytes);
        at += (long long)t[i].bytes;
    }
    hd_text_add(&header, "}");
    const uint64_t length = header.length;
    hd_text_addn(&file, (const char *)&length, 8);
    hd_text_addn(&file, header.data, header.length);
    for (int i = 0; i < tensors; i++) {
        hd_text_addn(&file, t[i].data, t[i].bytes);
        for (int k = 0; k < more; k++) hd_text_addn(&file, "", 1);
    }
    hd_write_file(path, file.data, file.length);
}

enum { WEIGHTS = 20 };
static tensor weight[WEIGHTS];
static const char *program, *folder;

/* A small llama, its program, and random weights for it. */
static void make_weights(void)
{
    static const struct { const char *name; int rows, cols; } of_layer[] = {
        { "input_layernorm", 16, 0 }, { "post_attention_layernorm", 16, 0 }, { "self_attn.q_proj", 16, 16 }, { "self_attn.k_proj", 8, 16 }, { "self_attn.v_proj", 8, 16 },
        { "self_attn.o_proj", 16, 16 }, { "mlp.gate_proj", 20, 16 }, { "mlp.up_proj", 20, 16 }, { "mlp.down_proj", 16, 20 },
    };
    if (program) return;
    folder = llama_with("");
    program = HERE "/llama_small";
    must("%s build%s %s -o %s -D length=8", heddle(), sanitize(), folder, program);
    uint32_t dice = 7;
    for (int i = 0; i < WEIGHTS; i++) {
        int rows = i == 0 ? 300 : 16, cols = i == 0 ? 16 : 0;
        const char *name = i == 0 ? "model.embed_tokens.weight" : "model.norm.weight";
        if (i >= 2) name = hd_format("model.layers.%d.%s.weight", (i - 2) / 9, of_layer[(i - 2) % 9].name), rows = of_layer[(i - 2) % 9].rows, cols = of_layer[(i - 2) % 9].cols;
        const int count = rows * (cols ? cols : 1);
        float *data = HD_NEW_ARRAY(float, count);
        for (int e = 0; e < count; e++) {
            dice = dice * 1664525u + 1013904223u;
            data[e] = (float)((int)(dice >> 24) - 128) / 256;                /* exact in every type tried here */
        }
        weight[i] = (tensor){ name, "F32", { cols ? 2 : 1, { rows, cols } }, data, 4 * (size_t)count };
    }
    write_tensors(HERE "/whole.safetensors", WEIGHTS, weight, 0);
    must("cp " HERE "/whole.safetensors %s/model.safetensors", folder);
}

static const char *logits_with(const char *weights)
{
    const int32_t ids[8] = { 3, 1, 4, 1, 5, 9, 2, 6 };
    const hd_tensor_data tokens = { "tokens", HD_I32, { 2, { 1, 8 } }, ids };
    hd_tensor_file_write(HERE "/tokens", 1, &tokens);
    must("%s run forward --in " HERE "/tokens --out " HERE "/logits --weights %s", program, weights);
    const hd_tensor_data logits = hd_tensor_file_read(HERE "/logits", "logits");
    return logits.data;
}

static bool same_logits(const char *weights, const char *want) { return !memcmp(logits_with(weights), want, 4 * 8 * 300); }

static void write_index(const char *path, const char *first, const char *second, int in_first)
{
    hd_text text = { 0 };
    for (int i = 0; i < WEIGHTS; i++) hd_text_add(&text, "%s\"%s\": \"%s\"", i ? ", " : "{ \"metadata\": {}, \"weight_map\": { ", weight[i].name, i < in_first ? first : second);
    hd_text_add(&text, " } }");
    hd_write_file(path, text.data, text.length);
}

static void every_way_to_store_weights_gives_the_same_numbers(void **state)
{
    (void)state;
    make_weights();
    const char *want = logits_with(HERE "/whole.safetensors"), *shards = HERE "/shards";
    assert_true(same_logits(folder, want));
    must("mkdir -p %s", shards);
    write_tensors(HERE "/shards/a.safetensors", 7, weight, 0);
    write_tensors(HERE "/shards/b.safetensors", WEIGHTS - 7, weight + 7, 0);
    write_index(HERE "/shards/model.safetensors.index.json", "a.safetensors", "b.safetensors", 7);
    assert_true(same_logits(shards, want));

    tensor half[WEIGHTS];
    for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; i < WEIGHTS; i++) {
            half[i] = weight[i];
            half[i].type = kind ? "BF16" : "F16";
            half[i].bytes = weight[i].bytes / 2;
            uint16_t *out = HD_NEW_ARRAY(uint16_t, half[i].bytes / 2);
            for (size_t e = 0; e < half[i].bytes / 2; e++) {
                const float x = ((const float *)weight[i].data)[e];
                uint32_t bits;
                memcpy(&bits, &x, 4);
                out[e] = kind ? (uint16_t)(bits >> 16) : x == 0 ? 0 : (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023));
            }
            half[i].data = out;
        }
        write_tensors(HERE "/half.safetensors", WEIGHTS, half, 0);
        assert_true(same_logits(HERE "/half.safetensors", want));
    }
    for (int i = 0; i < WEIGHTS; i++) half[i] = weight[i], half[i].name = weight[i].name + strlen("model.");       /* as the network without a head is saved */
    write_tensors(HERE "/bare.safetensors", WEIGHTS, half, 0);
    assert_true(same_logits(HERE "/bare.safetensors", want));
}

/* The whole file with one tensor changed. */
static const char *changed(int i, tensor t, int more)
{
    tensor all[WEIGHTS];
    memcpy(all, weight, sizeof all);
    all[i] = t;
    write_tensors(HERE "/changed.safetensors", WEIGHTS, all, more);
    return HERE "/changed.safetensors";
}

#define RUN "%s run forward --in " HERE "/tokens --out " HERE "/logits --weights %s"

static void wrong_weights_are_refused(void **state)
{
    (void)state;
    make_weights();
    logits_with(HERE "/whole.safetensors");
    tensor t = weight[4];
    t.name = "model.layers.0.self_attn.q_norm.weight";
    refused("1 of the 20 tensors of model llama missing: 'model.layers.0.self_attn.q_proj.weight' [16, 16]", RUN, program, changed(4, t, 0));
    t = weight[4];
    t.shape = (hd_shape){ 2, { 32, 8 } };
    refused("tensor 'model.layers.0.self_attn.q_proj.weight' has shape [32, 8]; this model's has [16, 16]", RUN, program, changed(4, t, 0));
    t = weight[4];
    t.type = "I32";
    refused("has type I32; valid: F32, F16, BF16, F64", RUN, program, changed(4, t, 0));
    refused("8 bytes before tensor 'model.norm.weight' belong to no tensor", RUN, program, changed(4, weight[4], 8));
    refused("tensors 'model.embed_tokens.weight' and 'model.norm.weight' overlap", RUN, program, changed(4, weight[4], -8));
    must("cp " HERE "/whole.safetensors " HERE "/cut.safetensors");
    must("truncate -s -100 " HERE "/cut.safetensors");
    refused("but the data has", RUN, program, HERE "/cut.safetensors");

    tensor more[WEIGHTS + 1];
    memcpy(more, weight, sizeof weight);
    more[WEIGHTS] = (tensor){ "model.layers.2.mlp.up_proj.weight", "F32", { 1, { 4 } }, weight[0].data, 16 };
    write_tensors(HERE "/more.safetensors", WEIGHTS + 1, more, 0);
    refused("1 tensors are not of model llama: 'model.layers.2.mlp.up_proj.weight'", RUN, program, HERE "/more.safetensors");
    more[WEIGHTS].name = "model.layers.0.self_attn.rotary_emb.inv_freq";        /* a buffer that older files carry */
    write_tensors(HERE "/more.safetensors", WEIGHTS + 1, more, 0);
    must(RUN, program, HERE "/more.safetensors");

    float nan_data[16] = { 0 };
    nan_data[3] = nanf("");
    t = weight[1];
    t.data = nan_data;
    must(RUN, program, changed(1, t, 0));
    assert_says("warning: " HERE "/changed.safetensors: tensor 'model.norm.weight' holds values that are not finite");
}

static void wrong_shards_are_refused(void **state)
{
    (void)state;
    make_weights();
    logits_with(HERE "/whole.safetensors");
    const char *shards = HERE "/bad_shards", *index = HERE "/bad_shards/model.safetensors.index.json";
    must("mkdir -p %s", shards);
    must("rm -f %s/a.safetensors %s/b.safetensors %s", shards, shards, index);
    refused("bad_shards: a folder that holds no *.safetensors file; weights are model.safetensors, or shards with model.safetensors.index.json", RUN, program, shards);
    write_tensors(HERE "/bad_shards/a.safetensors", 7, weight, 0);
    write_index(index, "a.safetensors", "b.safetensors", 7);
    refused("bad_shards: shard b.safetensors is missing: it holds '", RUN, program, shards);
    write_tensors(HERE "/bad_shards/b.safetensors", WEIGHTS - 8, weight + 8, 0);
    refused(hd_format("b.safetensors: has no tensor '%s', which model.safetensors.index.json says it holds", weight[7].name), RUN, program, shards);
    write_tensors(HERE "/bad_shards/b.safetensors", WEIGHTS - 6, weight + 6, 0);
    refused(hd_format("tensor '%s' is in two shards: ", weight[6].name), RUN, program, shards);
    must("rm %s", index);
    refused("a folder that holds several *.safetensors files without an index", RUN, program, shards);
    write_index(index, "../whole.safetensors", "b.safetensors", 7);
    refused("names no file of this folder", RUN, program, shards);
    hd_write_file(index, "{ \"weight_map\": 3 }", 19);
    refused("has no \"weight_map\" { tensor: file }", RUN, program, shards);
    hd_write_file(index, "{", 1);
    refused("model.safetensors.index.json: line 1: ", RUN, program, shards);
}

static int prepare(void **state)
{
    (void)state;
    return make_folder(HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_give_the_reference_numbers),
        cmocka_unit_test(configurations_that_heddle_cannot_follow_are_refused),
        cmocka_unit_test(keys_nobody_reads_are_reported),
        cmocka_unit_test(published_configurations_have_the_published_parameters),
        cmocka_unit_test(older_spellings_mean_the_same),
        cmocka_unit_test(scalings_of_rotary_positions_are_those_of_the_reference),
        cmocka_unit_test(an_imported_spec_is_the_same_model),
        cmocka_unit_test(image_gpt_writes_the_colours_of_its_clusters),
        cmocka_unit_test(mixtures_agree_with_the_interpreter),
        cmocka_unit_test(every_way_to_store_weights_gives_the_same_numbers),
        cmocka_unit_test(wrong_weights_are_refused),
        cmocka_unit_test(wrong_shards_are_refused),
    };
    choose_tests(NULL);
    return cmocka_run_group_tests_name("import_test", tests, prepare, NULL);
}
