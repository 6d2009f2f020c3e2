/* core/gguf_model: a model in a GGUF file is the model in safetensors, bit for bit, for every
 * architecture and plain type; what metadata is refused, in which words. */
#include "core/gguf_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/engine.h"
#include "core/verify.h"
#include "tests/gguf_file.h"
#include "tests/shared.h"
#include "tests/tiny_model.h"

enum { N_VOCAB = 290, N_TOKENS = 24 };

static ModelConfig make_config(Architecture architecture, bool tied, TensorType type)
{
    ModelConfig config = tiny_config(architecture, tied);
    config.vocab_size = N_VOCAB;
    config.dtype = type;
    config.rms_eps = 1e-6; /* in f32 it is another number */
    config.window = architecture == ARCHITECTURE_MISTRAL ? config.window : 0;
    config.window_from = 0;
    if (architecture == ARCHITECTURE_LLAMA) {
        config.attention_bias = config.output_bias = config.mlp_bias = true;
    }
    return config;
}

/* The GGUF file of a model directory, beside it. extra: of llama3's scaling, or NULL. */
static void convert(char path[300], const char *directory, const ModelConfig *config,
                    const Tensor *extra)
{
    GgufFile file = {0};
    Text bytes = {0};
    file_model(&file, directory, config, extra);
    file_finish(&file, &bytes);
    snprintf(path, 300, "%s.gguf", directory);
    assert_int_equal(file_write(path, bytes.bytes, bytes.n, NULL), STATUS_OK);
    text_release(&bytes);
}

static void score(double logprobs[N_TOKENS], const Model *model)
{
    int32_t tokens[N_TOKENS];
    uint8_t scored[N_TOKENS];
    Engine *engine;
    for (int i = 0; i < N_TOKENS; i++) {
        tokens[i] = (i * 37 + 5) % N_VOCAB;
        scored[i] = i > 0;
    }
    Sequence sequence = {.tokens = tokens,
                         .n_tokens = N_TOKENS,
                         .parent = -1,
                         .scored = scored,
                         .logprobs = logprobs};
    Batch batch = {.sequences = &sequence, .n_sequences = 1};
    logprobs[0] = 0;
    assert_int_equal(engine_new(&engine, model, 1, 0, NULL), STATUS_OK);
    assert_int_equal(engine_evaluate(engine, &batch, NULL), STATUS_OK);
    engine_free(engine);
}

static void compare(Model *a, Model *b)
{
    double of_a[N_TOKENS], of_b[N_TOKENS];
    score(of_a, a);
    score(of_b, b);
    assert_memory_equal(of_a, of_b, sizeof of_a);
    assert_int_equal(model_make_trainable(a, NULL), STATUS_OK);
    assert_int_equal(model_make_trainable(b, NULL), STATUS_OK);
    assert_int_equal(a->n_parameters, b->n_parameters);
    assert_memory_equal(a->trainable, b->trainable, a->n_parameters * sizeof(float));
    for (Role role = 0; role < N_ROLES; role++) {
        int out, in;
        role_shape(&a->config, role, &out, &in);
        size_t n = (size_t)out * in;
        float *of = malloc(2 * n * sizeof *of);
        model_module_weight(a, 1, role, of);
        model_module_weight(b, 1, role, of + n);
        assert_memory_equal(of, of + n, n * sizeof *of);
        free(of);
    }
}

static void check_same(const ModelConfig *config, const Tensor *extra)
{
    char directory[256], path[300];
    Model *model, *other;
    Error error = {{0}};
    tiny_model_write(directory, config, 11);
    convert(path, directory, config, extra);
    tiny_require(model_open(&model, directory, 1, &error), &error);
    tiny_require(model_open(&other, path, 1, &error), &error);
    tiny_require(verify_path(path, VERIFY_GGUF, NULL, &error), &error);
    assert_true(other->config.rms_eps == config->rms_eps);
    assert_true(other->config.rope_theta == config->rope_theta);
    assert_int_equal(other->config.dtype, config->dtype);
    assert_int_equal(other->config.n_eos, 1);
    assert_int_equal(other->config.eos_ids[0], 2);
    assert_int_equal(other->config.bos_id, 1);
    assert_non_null(other->tokenizer);
    compare(model, other);
    model_free(model);
    model_free(other);
    tiny_model_remove(directory);
    unlink(path);
}

static void every_architecture_and_type_is_the_same_bits(void **state)
{
    (void)state;
    for (Architecture architecture = 0; architecture < N_ARCHITECTURES; architecture++) {
        for (TensorType type = TENSOR_F32; type <= TENSOR_BF16; type++) {
            ModelConfig config = make_config(architecture, type == TENSOR_F16, type);
            check_same(&config, NULL);
        }
    }
}

static void scaled_positions_are_the_same_bits(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) { /* linear, yarn, yarn with betas of its own */
        ModelConfig config = make_config(ARCHITECTURE_QWEN2, true, TENSOR_F32);
        config.rope_type = i ? ROPE_YARN : ROPE_LINEAR;
        config.rope_factor = 4;
        config.rope_original_positions = i ? 4096 : 0;
        config.rope_beta_fast = i ? i == 2 ? 500 : 32 : 0;
        config.rope_beta_slow = i ? i == 2 ? 200 : 1 : 0;
        config.rope_attention_factor = i ? 0.1 * log(4) + 1 : 0;
        check_same(&config, NULL);
    }
}

/* The factors that the converter writes (convert_hf_to_gguf.py, generate_extra_tensors): f32, from
 * the wavelengths. */
static void llama3_factors(float *factors, const ModelConfig *config)
{
    double low = config->rope_original_positions / config->rope_low_freq_factor;
    double high = config->rope_original_positions / config->rope_high_freq_factor;
    for (int i = 0; i < config->head_dim / 2; i++) {
        double wave =
            2 * 3.14159265358979323846 * pow(config->rope_theta, 2.0 * i / config->head_dim);
        double smooth = (config->rope_original_positions / wave - config->rope_low_freq_factor) /
                        (config->rope_high_freq_factor - config->rope_low_freq_factor);
        factors[i] = wave < high  ? 1
                     : wave > low ? (float)config->rope_factor
                                  : (float)(1 / ((1 - smooth) / config->rope_factor + smooth));
    }
}

static ModelConfig llama3_config(void)
{
    ModelConfig config = make_config(ARCHITECTURE_LLAMA, true, TENSOR_BF16);
    config.rope_theta = 500000;
    config.rope_type = ROPE_LLAMA3;
    config.rope_factor = 32;
    config.rope_low_freq_factor = 1;
    config.rope_high_freq_factor = 4;
    config.rope_original_positions = 8192;
    config.head_dim = 24; /* with 4 pairs none lies between the two wavelengths */
    return config;
}

/* factors: (12) */
static Tensor rope_tensor(const float *factors)
{
    return (Tensor){.name = "rope_freqs.weight",
                    .type = TENSOR_F32,
                    .n_dims = 1,
                    .dims = {12},
                    .data = factors,
                    .n_bytes = 12 * sizeof *factors};
}

static void llama3_scaling_is_read_back_from_its_factors(void **state)
{
    (void)state;
    ModelConfig config = llama3_config();
    float factors[12];
    llama3_factors(factors, &config);
    int n_between = 0;
    for (int i = 0; i < 12; i++) {
        n_between += factors[i] > 1 && factors[i] < 32;
    }
    assert_true(n_between > 0);
    Tensor extra = rope_tensor(factors);
    check_same(&config, &extra);
}

static void other_factors_are_refused(void **state)
{
    (void)state;
    ModelConfig config = llama3_config(), read;
    char directory[256], path[300];
    float factors[12];
    Error error = {{0}};
    llama3_factors(factors, &config);
    factors[1] = 1.5f;
    Tensor extra = rope_tensor(factors);
    tiny_model_write(directory, &config, 11);
    convert(path, directory, &config, &extra);
    assert_int_equal(model_config_read(&read, path, &error), STATUS_REFUSED);
    assert_non_null(
        strstr(error.message, "\"rope_freqs.weight\": element 1 is 1.5, not Llama 3's"));
    tiny_model_remove(directory);
    unlink(path);
}

/* ---- metadata that is refused ---------------------------------------------------------------- */

typedef struct {
    const char *after; /* a key; `offset` bytes after it, n bytes become value */
    size_t offset, n;
    uint64_t value;
    const char *message;
} Break;

static void broken_metadata_is_refused_by_name(void **state)
{
    (void)state;
    static const Break breaks[] = {
        {"general.architecture", 12, 1, 'X', "architecture \"Xlama\" is not supported"},
        {"general.type", 12, 1, 'X', "\"general.type\" is not \"model\""},
        {"llama.block_count", 4, 4, 0, "\"llama.block_count\" is 0, not an integer from 1 to 4096"},
        {"llama.block_count", 4, 4, 513, "tensor \"model.layers.2."},
        {"llama.block_count", 0, 4, GGUF_FLOAT32, "\"llama.block_count\" is f32, not an integer"},
        {"llama.block_count", 0, 8, (uint64_t)UINT32_MAX << 32 | GGUF_INT32, "is -1, not an"},
        {"llama.block_count", SIZE_MAX, 1, 'x', "\"llama.block_count\" is missing"},
        {"llama.context_length", 4, 4, UINT32_MAX, "is 4294967295, not an integer from 1 to"},
        {"llama.embedding_length", 4, 4, 32, "shape (290, 24), expected (290, 32)"},
        {"llama.attention.head_count", 4, 4, 4,
         "tensor \"model.layers.0.self_attn.q_proj.weight\""},
        {"llama.attention.head_count_kv", 4, 4, 2, "head_count_kv\" 2 does not divide"},
        {"llama.rope.dimension_count", 4, 4, 4,
         "\"rope.dimension_count\" 4 is not the 8 of a head"},
        {"llama.rope.freq_base", 4, 4, 0x7f800000, "is inf, not above 0"},
        {"llama.attention.layer_norm_rms_epsilon", 4, 4, 0x7fc00000, "is nan, not above 0"},
        {"llama.attention.layer_norm_rms_epsilon", 4, 4, 0xbf800000, "is -1, not above 0"},
        {"llama.attention.layer_norm_rms_epsilon", 4, 4, 0x00400000,
         "not above 0"}, /* as f32, flushed */
        {"llama.attention.layer_norm_rms_epsilon", SIZE_MAX, 1, 'x',
         "\"llama.attention.layer_norm_rms_epsilon\" is missing"},
        {"tokenizer.ggml.bos_token_id", 4, 4, N_VOCAB, "is 290, not an integer from 0 to 289"},
        {"tokenizer.ggml.model", 12, 1, 'x', "\"tokenizer.ggml.model\" \"xlama\" is not supported"},
        {"tokenizer.ggml.scores", 0, 8, (uint64_t)GGUF_UINT32 << 32 | GGUF_ARRAY,
         "\"tokenizer.ggml.scores\" is array of u32, expected an array of f32"},
        {"tokenizer.ggml.scores", 16, 4, 0x7fc00000, "\"tokenizer.ggml.scores\": nan of token 0"},
        {"tokenizer.ggml.token_type", 16, 4, 99, "99 of token 0 is unknown"},
        {"tokenizer.ggml.tokens", 24, 5, 0x3e7300003cull, "contains NUL"},
        {"tokenizer.ggml.tokens", 63, 1, '-', "\"<0x-0>\" (id 3) is no byte, as its type says"},
        {"tokenizer.ggml.token_type", 0, 8, (uint64_t)GGUF_FLOAT32 << 32 | GGUF_ARRAY,
         "is array of f32, expected an array of i32"},
        {"blk.0.attn_q.weight", SIZE_MAX, 1, 'x', "belongs to no model of architecture \"llama\""},
    };
    ModelConfig config = make_config(ARCHITECTURE_LLAMA, false, TENSOR_F32);
    char directory[256], path[300], *bytes;
    size_t n;
    config.attention_bias = config.output_bias = config.mlp_bias = false;
    tiny_model_write(directory, &config, 11);
    convert(path, directory, &config, NULL);
    assert_int_equal(file_read(&bytes, &n, path, 1 << 24, NULL), STATUS_OK);
    for (size_t i = 0; i < sizeof breaks / sizeof *breaks; i++) {
        const Break *b = &breaks[i];
        char *broken = malloc(n), *at = NULL;
        size_t n_key = strlen(b->after);
        memcpy(broken, bytes, n);
        for (size_t j = 8; j + n_key < n && !at; j++) {
            uint64_t length;
            memcpy(&length, broken + j - 8, sizeof length);
            if (length == n_key && memcmp(broken + j, b->after, n_key) == 0) {
                at = broken + j + n_key;
            }
        }
        assert_non_null(at);
        memcpy(b->offset == SIZE_MAX ? at - 1 : at + b->offset, &b->value, b->n);
        assert_int_equal(file_write(path, broken, n, NULL), STATUS_OK);
        Error error = {{0}};
        Status status = verify_path(path, VERIFY_GGUF, NULL, &error);
        if (status != STATUS_REFUSED || !strstr(error.message, b->message) ||
            !strstr(error.message, path)) {
            fail_msg("%zu: %d \"%s\", expected \"%s\"", i, status, error.message, b->message);
        }
        free(broken);
    }
    free(bytes);
    tiny_model_remove(directory);
    unlink(path);
}

/* Reads the config of a file with the embedding alone and what `file` has been given. */
static Status read_keys(ModelConfig *read, GgufFile *file, Error *error)
{
    Text bytes = {0};
    Gguf *gguf;
    float *zeros = calloc(N_VOCAB * 24, sizeof *zeros);
    Tensor embedding = {.name = "token_embd.weight",
                        .type = TENSOR_F32,
                        .n_dims = 2,
                        .dims = {N_VOCAB, 24},
                        .n_bytes = N_VOCAB * 24 * sizeof *zeros};
    file_tensor(file, &embedding, zeros);
    file_finish(file, &bytes);
    assert_int_equal(gguf_parse(&gguf, bytes.bytes, bytes.n, NULL), STATUS_OK);
    Status status = gguf_model_config(read, gguf, error);
    gguf_close(gguf);
    text_release(&bytes);
    free(zeros);
    return status;
}

static void a_key_that_would_change_the_numbers_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key, *string, *message;
    } cases[] = {
        {"llama.logit_scale", NULL, "\"llama.logit_scale\" is not supported"},
        {"llama.expert_count", NULL, "a mixture of 2 experts is not supported"},
        {"llama.rope.scaling.type", "longrope",
         "\"longrope\" is not supported (linear and yarn are)"},
        {"llama.rope.scaling.yarn_ext_factor", NULL,
         "\"llama.rope.scaling.yarn_ext_factor\" is not supported"},
        {"split.count", NULL, "\"split.count\" is 2: one part of a model"},
        {"llama.vocab_size", NULL, "\"llama.vocab_size\" is 2, the embedding has 290 rows"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ModelConfig config = make_config(ARCHITECTURE_LLAMA, true, TENSOR_F32), read;
        GgufFile file = {0};
        Error error = {{0}};
        file_config(&file, &config);
        if (cases[i].string) {
            file_string(&file, cases[i].key, cases[i].string);
        } else {
            file_u32(&file, "", cases[i].key, 2);
        }
        assert_int_equal(read_keys(&read, &file, &error), STATUS_REFUSED);
        if (!strstr(error.message, cases[i].message)) {
            fail_msg("\"%s\", expected \"%s\"", error.message, cases[i].message);
        }
    }
}

/* As llama.cpp has it: the type of a factor without one is linear. */
static void a_factor_alone_scales_positions_linearly(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        RopeType expected;
    } cases[] = {{NULL, ROPE_LINEAR}, {"linear", ROPE_LINEAR}, {"none", ROPE_PLAIN}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ModelConfig config = make_config(ARCHITECTURE_LLAMA, true, TENSOR_F32), read;
        GgufFile file = {0};
        file_config(&file, &config);
        file_f32(&file, "", "llama.rope.scaling.factor", 2.5f);
        if (cases[i].type) {
            file_string(&file, "llama.rope.scaling.type", cases[i].type);
        }
        assert_int_equal(read_keys(&read, &file, NULL), STATUS_OK);
        assert_int_equal(read.rope_type, cases[i].expected);
        assert_true(read.rope_type == ROPE_PLAIN || read.rope_factor == 2.5);
    }
}

/* ---- files of others ------------------------------------------------------------------------- */

/* The controls of the corpus are one model in both forms; those in F32 exactly. */
static void the_controls_are_their_safetensors(void **state)
{
    (void)state;
    static const char *const names[] = {"llama-tiny-f32", "qwen2-tiny-f32-sharded3",
                                        "llama-tiny-f16", "llama-tiny-bf16-tied",
                                        "qwen2-tiny-bf16"};
    char root[4096], path[4200];
    shared_path(root, "badfiles/controls");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Model *model, *other;
        Error error = {{0}};
        snprintf(path, sizeof path, "%s/%s", root, names[i]);
        tiny_require(model_open(&model, path, 1, &error), &error);
        snprintf(path, sizeof path, "%s/gguf/%s.gguf", root, names[i]);
        tiny_require(model_open(&other, path, 1, &error), &error);
        if (i < 2) {
            compare(model, other);
        }
        double of_model[N_TOKENS], of_other[N_TOKENS];
        score(of_model, model);
        score(of_other, other);
        for (int t = 0; t < N_TOKENS; t++) {
            assert_true(fabs(of_model[t] - of_other[t]) < 0.02);
        }
        model_free(model);
        model_free(other);
    }
}

static void a_name_is_no_other_name(void **state)
{
    (void)state;
    char name[128];
    assert_true(gguf_tensor_name(name, "blk.12.ffn_down.bias"));
    assert_string_equal(name, "model.layers.12.mlp.down_proj.bias");
    assert_true(gguf_tensor_name(name, "blk.0.attn_k_norm.weight"));
    assert_string_equal(name, "model.layers.0.self_attn.k_norm.weight");
    static const char *const others[] = {"blk.00.attn_q.weight",
                                         "blk.-1.attn_q.weight",
                                         "blk.99999.attn_q.weight",
                                         "blk.0.attn_q.weight.x",
                                         "blk.0.attn_qkv.weight",
                                         "blk.0.",
                                         "output",
                                         ""};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_false(gguf_tensor_name(name, others[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_and_type_is_the_same_bits),
        cmocka_unit_test(scaled_positions_are_the_same_bits),
        cmocka_unit_test(llama3_scaling_is_read_back_from_its_factors),
        cmocka_unit_test(other_factors_are_refused),
        cmocka_unit_test(broken_metadata_is_refused_by_name),
        cmocka_unit_test(a_key_that_would_change_the_numbers_is_refused),
        cmocka_unit_test(a_factor_alone_scales_positions_linearly),
        cmocka_unit_test(the_controls_are_their_safetensors),
        cmocka_unit_test(a_name_is_no_other_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
