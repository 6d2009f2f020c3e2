/* core/model_config: config.json read by rule, tensors named and checked, directories written and
 * read back. */
#include "core/model_config.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/random.h"
#include "core/sha256.h"
#include "tests/shared.h"

static const char *const FOLDER = "test_core_model_config.tmp";
static const char *const SIZES =
    "\"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 50, "
    "\"max_position_embeddings\": 128";

static void remove_folder(void)
{
    char command[200];
    const char *const names[] = {"config.json",       "generation_config.json",
                                 "model.safetensors", "model.safetensors.index.json",
                                 "tokenizer.json",    "notes.txt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(command, sizeof command, "%s/%s", FOLDER, names[i]);
        unlink(command);
    }
    rmdir(FOLDER);
}

static void put(const char *name, const char *text)
{
    char path[200];
    mkdir(FOLDER, 0777);
    snprintf(path, sizeof path, "%s/%s", FOLDER, name);
    assert_int_equal(file_write(path, text, strlen(text), NULL), STATUS_OK);
}

/* config.json = { SIZES, rest } */
static void put_config(const char *rest)
{
    char text[2000];
    snprintf(text, sizeof text, "{%s, %s}", SIZES, rest);
    put("config.json", text);
}

static ModelConfig read_config(void)
{
    ModelConfig config;
    Error error = {0};
    if (model_config_read(&config, FOLDER, &error) != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    return config;
}

static void values_and_defaults_are_read(void **state)
{
    (void)state;
    put_config("\"model_type\": \"llama\", \"eos_token_id\": [3, 4], \"bos_token_id\": 1, "
               "\"rope_theta\": 1e4, \"dtype\": \"bfloat16\", \"mlp_bias\": true, \"unknown\": {}");
    ModelConfig config = read_config();
    assert_int_equal(config.architecture, ARCHITECTURE_LLAMA);
    assert_int_equal(config.head_dim, 8);
    assert_true(config.rope_theta == 10000 && config.rms_eps == 1e-6);
    assert_true(config.mlp_bias && !config.attention_bias && !config.output_bias &&
                !config.tied_head);
    assert_int_equal(config.dtype, TENSOR_BF16);
    assert_int_equal(config.bos_id, 1);
    assert_int_equal(config.n_eos, 2);
    put("generation_config.json", "{\"eos_token_id\": [4, 9]}");
    config = read_config();
    assert_int_equal(config.n_eos, 3);
    assert_int_equal(config.eos_ids[2], 9);
    put_config("\"architectures\": [\"Qwen2ForCausalLM\"], \"bos_token_id\": null, "
               "\"attention_bias\": false, \"tie_word_embeddings\": true, \"head_dim\": 16, "
               "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500000}");
    config = read_config();
    assert_int_equal(config.architecture, ARCHITECTURE_QWEN2);
    assert_true(config.attention_bias && !config.output_bias && config.tied_head);
    assert_int_equal(config.bos_id, -1);
    assert_int_equal(config.head_dim, 16);
    assert_true(config.rope_theta == 500000);
    remove_folder();
}

/* A window by the keys of its family, in a model of 2 layers. */
static void windows_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *rest;
        int window, from;
    } cases[] = {
        {"\"model_type\": \"llama\", \"sliding_window\": null, \"use_sliding_window\": false", 0,
         0},
        {"\"model_type\": \"mistral\"", 4096, 0},
        {"\"model_type\": \"mistral\", \"sliding_window\": null", 0, 0},
        {"\"model_type\": \"mistral\", \"sliding_window\": 32", 32, 0},
        {"\"model_type\": \"qwen2\", \"sliding_window\": 32, \"max_window_layers\": 1", 0, 0},
        {"\"model_type\": \"qwen2\", \"use_sliding_window\": false, \"sliding_window\": 32, "
         "\"layer_types\": [\"full_attention\", \"full_attention\"]",
         0, 0},
        {"\"model_type\": \"qwen2\", \"use_sliding_window\": true, \"sliding_window\": 32", 0, 0},
        {"\"model_type\": \"qwen2\", \"use_sliding_window\": true, \"max_window_layers\": 0", 4096,
         0},
        {"\"model_type\": \"qwen2\", \"use_sliding_window\": true, \"sliding_window\": null, "
         "\"max_window_layers\": 0",
         0, 0},
        {"\"model_type\": \"qwen3\", \"use_sliding_window\": true, \"sliding_window\": 32, "
         "\"max_window_layers\": 1",
         32, 1},
        {"\"model_type\": \"qwen3\", \"use_sliding_window\": true, \"sliding_window\": 32, "
         "\"max_window_layers\": 2, \"layer_types\": [\"full_attention\", \"sliding_attention\"]",
         32, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_config(cases[i].rest);
        ModelConfig config = read_config();
        assert_int_equal(config.window, cases[i].window);
        assert_int_equal(config.window_from, cases[i].from);
        assert_int_equal(config.qk_norm, config.architecture == ARCHITECTURE_QWEN3);
        assert_int_equal(config.head_dim, config.qk_norm ? 128 : 8);
        assert_int_equal(config.attention_bias, config.architecture == ARCHITECTURE_QWEN2);
    }
    remove_folder();
}

static void every_broken_rule_of_a_config_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[]", "is an array, not an object"},
        {"{\"model_type\": 3}", "\"model_type\" is not a plain string"},
        {"{\"model_type\": \"llama\\u0000\"}", "\"model_type\" is not a plain string"},
        {"{}", "has neither \"model_type\" nor \"architectures\""},
        {"{\"architectures\": \"LlamaForCausalLM\"}",
         "\"architectures\" is not a list of one name"},
        {"{\"architectures\": [7]}", "\"architectures\" is not a list of one name"},
        {"{\"architectures\": [\"LlamaForCausalLM\\u0000\"]}",
         "\"architectures\" is not a list of one name"},
        {"{\"model_type\": \"gpt2\"}",
         "architecture \"gpt2\" is not supported (LlamaForCausalLM, Qwen2ForCausalLM, "
         "Qwen3ForCausalLM and MistralForCausalLM are)"},
        {"{\"model_type\": \"llama\", \"architectures\": [\"Qwen2ForCausalLM\"]}",
         "\"model_type\" \"llama\" does not fit \"architectures\" \"Qwen2ForCausalLM\""},
        {"{\"model_type\": \"llama\"}", "\"hidden_size\" is missing"},
        {"{\"model_type\": \"llama\", \"hidden_size\": true}",
         "\"hidden_size\" is a boolean, not an integer"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 32.5}",
         "\"hidden_size\" is 32.5, not an integer from 1 to 1048576"},
        {"{\"model_type\": \"llama\", \"hidden_size\": 0}",
         "\"hidden_size\" is 0, not an integer from 1 to 1048576"},
    };
    static const struct {
        const char *rest, *message;
    } more[] = {
        {"\"head_dim\": 15", "\"head_dim\" 15 is odd, rotary positions need pairs"},
        {"\"rope_theta\": 0", "\"rope_theta\" is 0, not above 0 and at most 1e+15"},
        {"\"rope_theta\": \"x\"", "\"rope_theta\" is a string, not a number"},
        {"\"rms_norm_eps\": 1e999", "\"rms_norm_eps\" is 1e999, not above 0 and at most 1"},
        {"\"rms_norm_eps\": 1e-40", "\"rms_norm_eps\" is 1e-40, not above 0 and at most 1"},
        {"\"rope_scaling\": 3", "\"rope_scaling\" is a number, not an object"},
        {"\"rope_scaling\": {\"type\": \"su\"}",
         "\"rope_scaling\": rope type \"su\" is not supported"},
        {"\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}",
         "\"rope_scaling\": rope type \"dynamic\" is not supported: it depends on the length of "
         "the "
         "text"},
        {"\"rope_scaling\": {\"rope_type\": \"longrope\"}",
         "\"rope_scaling\": rope type \"longrope\" is not supported: it depends on the length of "
         "the "
         "text"},
        {"\"rope_scaling\": {\"rope_type\": \"linear\", \"type\": \"default\", \"factor\": 2}",
         "\"rope_scaling\": \"rope_type\" \"linear\" and \"type\" \"default\" differ"},
        {"\"rope_scaling\": {\"type\": \"linear\"}",
         "\"rope_scaling\": needs a \"factor\" of at least 1"},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0.5}",
         "\"rope_scaling\": needs a \"factor\" of at least 1"},
        {"\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"mscale\": 1}",
         "\"rope_scaling\": \"mscale\" of yarn is not supported"},
        {"\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"truncate\": false}",
         "\"rope_scaling\": \"truncate\" of yarn is not supported"},
        {"\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"beta_slow\": 40}",
         "\"rope_scaling\": yarn needs a \"rope_theta\" above 1 and a \"beta_slow\" below its "
         "\"beta_fast\""},
        {"\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}",
         "\"rope_parameters\": \"full_attention\": positions of their own for a type of layer are "
         "not supported"},
        {"\"rope_parameters\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}",
         "\"rope_parameters\": \"partial_rotary_factor\" 0.5 is not supported"},
        {"\"rope_parameters\": {}, \"rope_scaling\": {}",
         "has both \"rope_scaling\" and \"rope_parameters\""},
        {"\"rope_scaling\": {\"factor\": 2}",
         "\"rope_scaling\": rope type \"(none)\" is not supported"},
        {"\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}",
         "\"rope_scaling\": \"original_max_position_embeddings\" is missing"},
        {"\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
         "\"high_freq_factor\": 1, \"original_max_position_embeddings\": 64}",
         "\"rope_scaling\": needs a \"low_freq_factor\" below its \"high_freq_factor\""},
        {"\"tie_word_embeddings\": \"true\"",
         "\"tie_word_embeddings\" is a string, not true or false"},
        {"\"eos_token_id\": 50", "\"eos_token_id\" has no id from 0 to 49"},
        {"\"eos_token_id\": [1, \"2\"]", "\"eos_token_id\" has no id from 0 to 49"},
        {"\"eos_token_id\": [1,2,3,4,5,6,7,8,9]", "\"eos_token_id\" has more than 8 ids"},
        {"\"bos_token_id\": -1", "\"bos_token_id\" is -1, not an integer from 0 to 49"},
        {"\"pad_token_id\": 50", "\"pad_token_id\" is 50, not an integer from -1 to 49"},
        {"\"pad_token_id\": \"0\"", "\"pad_token_id\" is a string, not an integer"},
        {"\"torch_dtype\": \"float64\"",
         "\"torch_dtype\" \"float64\" is not supported (float32, float16 and bfloat16 are)"},
        {"\"hidden_act\": \"gelu\"", "\"hidden_act\" \"gelu\" is not supported (silu is)"},
        {"\"use_sliding_window\": true", "a LlamaForCausalLM has no sliding window"},
        {"\"sliding_window\": 64", "a LlamaForCausalLM has no sliding window"},
        {"\"sliding_window\": \"no\"", "\"sliding_window\" is a string, not an integer"},
        {"\"layer_types\": [\"full_attention\", \"sliding_attention\"]",
         "\"layer_types\" does not fit \"sliding_window\""},
        {"\"layer_types\": [\"full_attention\", \"linear_attention\"]",
         "\"layer_types\": \"linear_attention\" of layer 1 is not supported (full_attention and "
         "sliding_attention are)"},
        {"\"layer_types\": [\"sliding_attention\", \"full_attention\"]",
         "\"layer_types\": full attention in layer 1, after a layer with a window, is not "
         "supported"},
        {"\"layer_types\": [\"full_attention\"]", "\"layer_types\" is not a list of 2 names"},
        {"\"rope_interleaved\": true", "\"rope_interleaved\" true is not supported"},
        {"\"quantization\": {\"bits\": 4}",
         "\"quantization\": quantised weights are not supported"},
        {"\"use_mrope\": true", "\"use_mrope\" true is not supported"},
        {"\"num_local_experts\": 8", "\"num_local_experts\" is not supported"},
        {"\"logits_scaling\": 8.0", "\"logits_scaling\" 8 is not supported"},
        {"\"quantization_config\": {}",
         "\"quantization_config\": quantised weights are not supported"},
        {"\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\" 0.5 is not supported"},
    };
    size_t n = sizeof cases / sizeof *cases, n_more = sizeof more / sizeof *more;
    for (size_t i = 0; i < n + n_more; i++) {
        if (i < n) {
            put("config.json", cases[i].text);
        } else {
            char rest[500];
            snprintf(rest, sizeof rest, "\"model_type\": \"llama\", %s", more[i - n].rest);
            put_config(rest);
        }
        ModelConfig config;
        Error error = {0};
        char expected[1000];
        snprintf(expected, sizeof expected, "%s/config.json: %s", FOLDER,
                 i < n ? cases[i].message : more[i - n].message);
        assert_int_equal(model_config_read(&config, FOLDER, &error), STATUS_REFUSED);
        assert_string_equal(error.message, expected);
    }
    put_config("\"model_type\": \"llama\"");
    put("generation_config.json", "{\"eos_token_id\": 77}");
    ModelConfig config;
    Error error = {0};
    assert_int_equal(model_config_read(&config, FOLDER, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "test_core_model_config.tmp/generation_config.json: "
                                       "\"eos_token_id\" has no id from 0 to 49");
    remove_folder();
    assert_int_equal(model_config_read(&config, FOLDER, &error), STATUS_FAILED);
    mkdir(FOLDER, 0777);
    assert_int_equal(model_config_read(&config, FOLDER, &error), STATUS_REFUSED);
    assert_string_equal(error.message,
                        "test_core_model_config.tmp: has no config.json, so it is no model");
    remove_folder();
}

static void heads_that_do_not_divide_are_refused(void **state)
{
    (void)state;
    ModelConfig config;
    Error error = {0};
    put("config.json",
        "{\"model_type\": \"qwen2\", \"hidden_size\": 30, \"intermediate_size\": 48, "
        "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 50, "
        "\"num_key_value_heads\": null, \"max_position_embeddings\": 8}");
    assert_int_equal(model_config_read(&config, FOLDER, &error), STATUS_REFUSED);
    assert_non_null(
        strstr(error.message, "\"num_attention_heads\" 4 does not divide \"hidden_size\" 30"));
    put("config.json",
        "{\"model_type\": \"qwen2\", \"hidden_size\": 32, \"intermediate_size\": 48, "
        "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 50, "
        "\"num_key_value_heads\": 3, \"max_position_embeddings\": 8}");
    assert_int_equal(model_config_read(&config, FOLDER, &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message,
                           "\"num_key_value_heads\" 3 does not divide \"num_attention_heads\" 4"));
    remove_folder();
}

/* Values of transformers' _compute_llama3_parameters for head_dim 64, theta 500000, factor 32, low
 * 1, high 4, 8192. */
static void rope_frequencies_follow_llama3(void **state)
{
    (void)state;
    ModelConfig config = {.head_dim = 64,
                          .rope_theta = 500000,
                          .rope_type = ROPE_LLAMA3,
                          .rope_factor = 32,
                          .rope_low_freq_factor = 1,
                          .rope_high_freq_factor = 4,
                          .rope_original_positions = 8192};
    double frequency[32], plain[32];
    rope_frequencies(frequency, &config);
    config.rope_type = ROPE_PLAIN;
    rope_frequencies(plain, &config);
    assert_true(plain[0] == 1 && fabs(plain[31] / 3.0136e-6 - 1) < 1e-3);
    for (int i = 0; i < 32; i++) {
        double wavelength = 6.283185307179586 / plain[i];
        if (wavelength < 8192 / 4.0) {
            assert_true(frequency[i] == plain[i]);
        } else if (wavelength > 8192) {
            assert_true(frequency[i] == plain[i] / 32);
        } else {
            double smooth = (8192 / wavelength - 1) / (4.0 - 1.0);
            double expected = (1 - smooth) * plain[i] / 32 + smooth * plain[i];
            assert_true(fabs(frequency[i] / expected - 1) < 1e-12); /* the same sum, other order */
        }
    }
}

static void tensors_have_the_names_and_shapes_of_transformers(void **state)
{
    (void)state;
    put_config("\"model_type\": \"qwen2\"");
    ModelConfig config = read_config();
    TensorSpec *specs;
    size_t n = model_config_tensors(&specs, &config);
    assert_int_equal(n, 1 + 2 * 12 + 2);
    static const struct {
        size_t i;
        const char *name;
        int n_dims;
        size_t dims[2];
    } expected[] = {
        {0, "model.embed_tokens.weight", 2, {50, 32}},
        {1, "model.layers.0.self_attn.q_proj.weight", 2, {32, 32}},
        {2, "model.layers.0.self_attn.q_proj.bias", 1, {32, 0}},
        {3, "model.layers.0.self_attn.k_proj.weight", 2, {16, 32}},
        {7, "model.layers.0.self_attn.o_proj.weight", 2, {32, 32}},
        {8, "model.layers.0.mlp.gate_proj.weight", 2, {48, 32}},
        {10, "model.layers.0.mlp.down_proj.weight", 2, {32, 48}},
        {12, "model.layers.0.post_attention_layernorm.weight", 1, {32, 0}},
        {13, "model.layers.1.self_attn.q_proj.weight", 2, {32, 32}},
        {25, "model.norm.weight", 1, {32, 0}},
        {26, "lm_head.weight", 2, {50, 32}},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const TensorSpec *spec = &specs[expected[i].i];
        assert_string_equal(spec->name, expected[i].name);
        assert_int_equal(spec->n_dims, expected[i].n_dims);
        assert_int_equal(spec->dims[0], expected[i].dims[0]);
        assert_int_equal(spec->dims[1], expected[i].dims[1]);
    }
    free(specs);
    remove_folder();
}

static SafeTensors *open_weights(void)
{
    char path[FILE_PATH_MAX];
    SafeTensors *file = NULL;
    Error error = {0};
    if (model_weights_path(path, FOLDER, &error) != STATUS_OK ||
        safetensors_open(&file, path, &error) != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    return file;
}

static void a_written_directory_is_read_back(void **state)
{
    (void)state;
    static const char *const variants[] = {
        "\"model_type\": \"qwen2\", \"torch_dtype\": \"bfloat16\", \"eos_token_id\": [3, 4], "
        "\"rms_norm_eps\": 1e-5, \"rope_theta\": 1000000.0",
        "\"model_type\": \"llama\", \"tie_word_embeddings\": true, \"attention_bias\": true, "
        "\"torch_dtype\": \"float16\", \"bos_token_id\": 1, \"eos_token_id\": 2, \"rope_scaling\": "
        "{\"rope_type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0, "
        "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 64}",
        "\"model_type\": \"llama\", \"mlp_bias\": true",
        "\"model_type\": \"qwen3\", \"head_dim\": 10, \"attention_bias\": true, "
        "\"use_sliding_window\": true, \"sliding_window\": 5, \"max_window_layers\": 1, "
        "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"beta_fast\": 16}",
        "\"model_type\": \"qwen3\", \"tie_word_embeddings\": true",
        "\"model_type\": \"mistral\", \"sliding_window\": 9, "
        "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}",
        "\"model_type\": \"mistral\", \"sliding_window\": null",
    };
    for (size_t variant = 0; variant < sizeof variants / sizeof *variants; variant++) {
        put_config(variants[variant]);
        ModelConfig config = read_config(), back;
        remove_folder();
        TensorSpec *specs;
        size_t n = model_config_tensors(&specs, &config);
        float **weights = calloc(n, sizeof *weights);
        for (size_t i = 0; i < n; i++) {
            size_t count = specs[i].dims[0] * (specs[i].n_dims == 2 ? specs[i].dims[1] : 1);
            weights[i] = malloc(count * sizeof **weights);
            for (size_t j = 0; j < count; j++) {
                weights[i][j] =
                    (float)((int)((i * 7919 + j * 31) % 509) - 254) / 64; /* exact in f16 */
            }
        }
        Error error = {0};
        char tokenizer[] = "test_core_model_config_tokenizer.tmp";
        assert_int_equal(file_write(tokenizer, "{}\n", 3, NULL), STATUS_OK);
        const float *const *given = (const float *const *)weights;
        if (model_directory_write(FOLDER, &config, given, tokenizer, &error) != STATUS_OK) {
            fail_msg("%s", error.message);
        }
        assert_int_equal(model_config_read(&back, FOLDER, &error), STATUS_OK);
        memcpy(config.sha256, back.sha256, sizeof config.sha256); /* of another text */
        assert_memory_equal(&back, &config, sizeof config);
        SafeTensors *file = open_weights();
        assert_int_equal(model_config_check(&back, file, &error), STATUS_OK);
        assert_int_equal(model_weights_check(&back, file, &error), STATUS_OK);
        for (size_t i = 0; i < n; i++) {
            const Tensor *tensor = safetensors_find(file, specs[i].name);
            size_t count = tensor->n_bytes / tensor_type_size(tensor->type);
            float *values = malloc(count * sizeof *values);
            tensor_to_f32(values, tensor->data, tensor->type, count);
            /* bf16 keeps 8 bits: the values need up to 8 */
            assert_memory_equal(values, weights[i], count * sizeof *values);
            free(values);
        }
        safetensors_close(file);
        /* Beside other files the three are replaced, and the others stay. */
        put("notes.txt", "kept");
        weights[0][0] = NAN;
        assert_int_equal(model_directory_write(FOLDER, &config, given, NULL, &error), STATUS_OK);
        file = open_weights();
        assert_int_equal(model_weights_check(&config, file, &error), STATUS_REFUSED);
        assert_string_equal(error.message, "tensor \"model.embed_tokens.weight\": element 0 is "
                                           "infinite or not a number");
        safetensors_close(file);
        assert_true(file_exists("test_core_model_config.tmp/notes.txt"));
        for (size_t i = 0; i < n; i++) {
            free(weights[i]);
        }
        free(weights);
        free(specs);
        unlink(tokenizer);
        remove_folder();
    }
}

static void the_first_value_that_is_not_finite_is_named_for_any_threads(void **state)
{
    (void)state;
    enum { ROWS = 1001, COLUMNS = 3 };
    static float values[ROWS * COLUMNS];
    Tensor tensor = {.name = "w",
                     .type = TENSOR_F32,
                     .n_dims = 2,
                     .dims = {ROWS, COLUMNS},
                     .data = values,
                     .n_bytes = sizeof values};
    static const size_t places[] = {0, 1501, 1503, ROWS * COLUMNS - 1};
    for (int threads = 1; threads <= 70; threads += threads < 4 ? 1 : 33) {
        Error error = {0};
        assert_int_equal(model_tensor_check(&tensor, threads, &error), STATUS_OK);
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            char expected[100];
            snprintf(expected, sizeof expected,
                     "tensor \"w\": element %zu is infinite or not a number", places[i]);
            values[places[i]] = i % 2 ? NAN : -INFINITY;
            values[ROWS * COLUMNS - 1] = NAN;
            assert_int_equal(model_tensor_check(&tensor, threads, &error), STATUS_REFUSED);
            assert_string_equal(error.message, expected);
            values[places[i]] = values[ROWS * COLUMNS - 1] = 0;
        }
    }
}

static void tensors_that_do_not_fit_the_config_are_named(void **state)
{
    (void)state;
    Error error = {0};
    put_config("\"model_type\": \"llama\"");
    char config_path[] = "test_core_model_config_2.tmp";
    assert_int_equal(rename("test_core_model_config.tmp/config.json", config_path), 0);
    remove_folder();
    assert_int_equal(model_random_write(FOLDER, config_path, TENSOR_F32, 1, &error), STATUS_OK);
    unlink(config_path);
    SafeTensors *file = open_weights();
    ModelConfig config = read_config();
    static const struct {
        const char *message;
        int change;
    } cases[] = {
        {"tensor \"model.embed_tokens.weight\": shape (50, 32), expected (51, 32)", 0},
        {"tensor \"model.layers.2.self_attn.q_proj.weight\": is missing", 1},
        {"tensor \"model.layers.1.input_layernorm.weight\": does not belong to a model of this "
         "config",
         2},
        {"tensor \"model.layers.0.self_attn.q_proj.bias\": is missing", 3},
    };
    for (int i = 0; i < 4; i++) {
        ModelConfig bent = config;
        bent.vocab_size += cases[i].change == 0;
        bent.n_layers += cases[i].change == 1 ? 1 : cases[i].change == 2 ? -1 : 0;
        bent.attention_bias = cases[i].change == 3;
        assert_int_equal(model_config_check(&bent, file, &error), STATUS_REFUSED);
        if (i != 2) {
            assert_string_equal(error.message, cases[i].message);
        } else {
            assert_non_null(strstr(error.message, "does not belong to a model of this config"));
        }
    }
    config.tied_head = true; /* a stored lm_head is allowed, and not used, if it is the embedding */
    assert_int_equal(model_config_check(&config, file, &error), STATUS_OK);
    assert_int_equal(model_head_check(&config, file, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "tensor \"lm_head.weight\": is not the embedding, to which "
                                       "\"tie_word_embeddings\" ties it");
    assert_int_equal(model_weights_check(&config, file, &error), STATUS_REFUSED);
    Tensor *head = (Tensor *)safetensors_find(file, "lm_head.weight");
    const Tensor *embedding = safetensors_find(file, "model.embed_tokens.weight");
    const void *data = head->data;
    head->data = embedding->data;
    assert_int_equal(model_head_check(&config, file, &error), STATUS_OK);
    assert_int_equal(model_weights_check(&config, file, &error), STATUS_OK);
    head->data = data;
    head->type = TENSOR_OTHER;
    assert_int_equal(model_config_check(&config, file, &error), STATUS_REFUSED);
    safetensors_close(file);
    remove_folder();
}

static void weights_are_one_file_or_one_index(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    Error error = {0};
    put_config("\"model_type\": \"llama\"");
    assert_int_equal(model_weights_path(path, FOLDER, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "test_core_model_config.tmp: has no model.safetensors");
    put("model.safetensors.index.json", "{}");
    assert_int_equal(model_weights_path(path, FOLDER, &error), STATUS_OK);
    assert_string_equal(path, "test_core_model_config.tmp/model.safetensors.index.json");
    put("model.safetensors", "x");
    assert_int_equal(model_weights_path(path, FOLDER, &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "which one holds the weights is not clear"));
    remove_folder();
}

/* The same seed gives the same bytes, each tensor its own stream, and the values follow the law of
 * the header. */
static void random_models_are_a_function_of_the_seed(void **state)
{
    (void)state;
    Error error = {0};
    put_config("\"model_type\": \"qwen2\", \"tie_word_embeddings\": true");
    char config_path[] = "test_core_model_config_2.tmp", hash[4][SHA256_HEX_SIZE];
    assert_int_equal(rename("test_core_model_config.tmp/config.json", config_path), 0);
    static const uint64_t seeds[4] = {7, 7, 8, 7};
    for (int i = 0; i < 4; i++) {
        remove_folder();
        TensorType type = i == 3 ? TENSOR_F32 : TENSOR_BF16;
        assert_int_equal(model_random_write(FOLDER, config_path, type, seeds[i], &error),
                         STATUS_OK);
        assert_int_equal(
            sha256_file(hash[i], "test_core_model_config.tmp/model.safetensors", &error),
            STATUS_OK);
    }
    assert_string_equal(hash[0], hash[1]);
    assert_string_not_equal(hash[0], hash[2]);
    SafeTensors *file = open_weights();
    double sum = 0, squares = 0, fourths = 0;
    double n = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const Tensor *tensor = safetensors_at(file, i);
        size_t count = tensor->n_bytes / 4;
        float *values = malloc(tensor->n_bytes);
        tensor_to_f32(values, tensor->data, tensor->type, count);
        bool is_norm = strstr(tensor->name, "norm.weight") != NULL;
        for (size_t j = 0; j < count; j++) {
            assert_true(is_norm ? values[j] == 1 : fabsf(values[j]) < 0.1f);
            double x = is_norm ? 0 : values[j] / 0.02;
            sum += x;
            squares += x * x;
            fourths += x * x * x * x;
            n += !is_norm;
        }
        free(values);
    }
    /* Five standard errors of each moment of n normal numbers. */
    assert_true(fabs(sum / n) < 5 / sqrt(n));
    assert_true(fabs(squares / n - 1) < 5 * sqrt(2.0 / n));
    assert_true(fabs(fourths / n - 3) < 5 * sqrt(96.0 / n));
    /* The law, element by element. */
    const Tensor *tensor = safetensors_find(file, "model.embed_tokens.weight");
    RandomKey key = {random_seed_for(7, tensor->name), RANDOM_WEIGHT};
    for (uint32_t i = 0; i < 50 * 32; i++) {
        uint32_t words[4];
        random_words(words, key, i / 8, 0, 0, 0);
        uint32_t piece = (i % 2 ? words[i % 8 / 2] >> 16 : words[i % 8 / 2]) & 0xffff;
        float value;
        tensor_to_f32(&value, (const char *)tensor->data + (size_t)4 * i, TENSOR_F32, 1);
        double mass = 0.5 * erfc(-value / 0.02 * sqrt(0.5));
        assert_true(fabs(mass - (piece + 0.5) / 65536) < 1e-7); /* f32 keeps 6e-8 of a value */
    }
    float q[2], k[2];
    tensor_to_f32(q, safetensors_find(file, "model.layers.0.self_attn.q_proj.weight")->data,
                  TENSOR_F32, 2);
    tensor_to_f32(k, safetensors_find(file, "model.layers.1.self_attn.q_proj.weight")->data,
                  TENSOR_F32, 2);
    assert_true(q[0] != k[0] && q[1] != k[1] && q[0] != q[1]);
    safetensors_close(file);
    assert_int_equal(model_random_write(FOLDER, config_path, TENSOR_F32, 7, &error), STATUS_USAGE);
    assert_string_equal(error.message,
                        "test_core_model_config.tmp: exists already and is not empty");
    assert_int_equal(
        model_random_write("/nonexistent/folder/x", config_path, TENSOR_F32, 7, &error),
        STATUS_FAILED);
    unlink(config_path);
    remove_folder();
}

static void real_configs_are_read(void **state)
{
    (void)state;
    char path[4096];
    shared_path(path, "data/models/stories260k");
    ModelConfig config;
    Error error = {0};
    assert_int_equal(model_config_read(&config, path, &error), STATUS_OK);
    assert_int_equal(config.width, 64);
    assert_int_equal(config.eos_ids[0], 2);
    shared_path(path, "data/tokenizers/llama3.2");
    assert_int_equal(model_config_read(&config, path, &error), STATUS_OK);
    assert_true(config.rope_factor == 32);
    shared_path(path, "data/tokenizers/qwen2.5/config.json");
    assert_int_equal(model_config_read(&config, path, &error), STATUS_OK);
    assert_int_equal(config.vocab_size, 151936);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_defaults_are_read),
        cmocka_unit_test(windows_are_read),
        cmocka_unit_test(every_broken_rule_of_a_config_is_named),
        cmocka_unit_test(heads_that_do_not_divide_are_refused),
        cmocka_unit_test(rope_frequencies_follow_llama3),
        cmocka_unit_test(tensors_have_the_names_and_shapes_of_transformers),
        cmocka_unit_test(a_written_directory_is_read_back),
        cmocka_unit_test(the_first_value_that_is_not_finite_is_named_for_any_threads),
        cmocka_unit_test(tensors_that_do_not_fit_the_config_are_named),
        cmocka_unit_test(weights_are_one_file_or_one_index),
        cmocka_unit_test(random_models_are_a_function_of_the_seed),
        cmocka_unit_test(real_configs_are_read),
    };
    if (chdir(BUILD_DIR) != 0) { /* temporary files go there */
        return 1;
    }
    remove_folder();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
