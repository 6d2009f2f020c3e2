/* One LoRA step beside PEFT's: the same A and B on the same small model give the same loss and the
 * same gradients. Figures: tests/data/peft_lora.json, made by tests/peft_lora.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapters/adapter.h"
#include "core/engine.h"
#include "core/json.h"
#include "tests/tiny_model.h"

enum { N_TOKENS = 11, N_PROMPT = 4 };

static Error error;

/* The script's formula. */
static float number_of(uint64_t k, uint64_t e, double size)
{
    uint32_t h = (uint32_t)(k * 1000003 + e * 2654435761u);
    return (float)((h / 4294967296.0 - 0.5) * size);
}

static float weight_of(const char *name, uint64_t e)
{
    static const char *const places[] = {
        "self_attn.q_proj.weight", "self_attn.q_proj.bias",
        "self_attn.k_proj.weight", "self_attn.k_proj.bias",
        "self_attn.v_proj.weight", "self_attn.v_proj.bias",
        "self_attn.o_proj.weight", "self_attn.o_proj.bias",
        "mlp.gate_proj.weight",    "mlp.gate_proj.bias",
        "mlp.up_proj.weight",      "mlp.up_proj.bias",
        "mlp.down_proj.weight",    "mlp.down_proj.bias",
        "input_layernorm.weight",  "post_attention_layernorm.weight"};
    int layer, length = 0;
    if (strcmp(name, "model.embed_tokens.weight") == 0) {
        return number_of(1, e, 2);
    }
    if (strcmp(name, "model.norm.weight") == 0) {
        return 1 + number_of(2, e, 0.5);
    }
    assert_int_equal(sscanf(name, "model.layers.%d.%n", &layer, &length), 1);
    for (int place = 0; place < 16; place++) {
        if (strcmp(name + length, places[place]) == 0) {
            uint64_t k = 100 + 16 * (uint64_t)layer + (uint64_t)place;
            return place < 14 ? number_of(k, e, 1) : 1 + number_of(k, e, 0.5);
        }
    }
    fail_msg("%s", name);
    return 0;
}

static Model *open_model(Architecture architecture)
{
    ModelConfig config = tiny_config(architecture, true);
    char directory[256];
    TensorSpec *specs;
    float *weights[64];
    Model *model;
    config.width = 16;
    config.n_heads = 2;
    config.ff_width = 24;
    config.vocab_size = 19;
    config.max_positions = 64;
    size_t n = model_config_tensors(&specs, &config);
    for (size_t i = 0; i < n; i++) {
        size_t size = specs[i].dims[0] * (specs[i].n_dims > 1 ? specs[i].dims[1] : 1);
        weights[i] = malloc(size * sizeof **weights);
        for (size_t e = 0; e < size; e++) {
            weights[i][e] = weight_of(specs[i].name, e);
        }
    }
    snprintf(directory, sizeof directory, "%s/peft-%ld",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (long)getpid());
    tiny_require(
        model_directory_write(directory, &config, (const float *const *)weights, NULL, &error),
        &error);
    tiny_require(model_open(&model, directory, 1, &error), &error);
    tiny_model_remove(directory);
    for (size_t i = 0; i < n; i++) {
        free(weights[i]);
    }
    free(specs);
    return model;
}

static double number_at(const Json *object, const char *key)
{
    double value = NAN;
    assert_true(json_double(json_get(object, key), &value));
    return value;
}

static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    (void)sequence, (void)position, (void)entropy;
    double *loss = context;
    *loss -= logprob / (N_TOKENS - N_PROMPT);
    return (TokenWeight){.dlogprob = -1.0 / (N_TOKENS - N_PROMPT)};
}

/* A and B of a case, matrix after matrix as PEFT names them: layer by layer, A before B. */
static void fill_values(float *v, const AdapterSpec *spec, const ModelConfig *config,
                        const Json *names)
{
    uint64_t k = 1000;
    for (int layer = 0; layer < config->n_layers; layer++) {
        for (int role = 0; role < N_ROLES; role++) {
            int shape[2];
            if (!(spec->targets >> role & 1)) {
                continue;
            }
            role_shape(config, (Role)role, &shape[1], &shape[0]);
            for (int b = 0; b < 2; b++, k++) {
                char name[96], full[128];
                module_name(name, layer, (Role)role);
                snprintf(full, sizeof full, "%s.lora_%c.weight", name, "AB"[b]);
                assert_string_equal(json_string(json_at(names, k - 1000), NULL), full);
                for (int e = 0; e < shape[b] * spec->plan.rank; e++) {
                    *v++ = number_of(k, (uint64_t)e, 1);
                }
            }
        }
    }
}

static void check_case(const Json *figures)
{
    bool llama = strcmp(json_string(json_get(figures, "model"), NULL), "llama") == 0;
    double alpha = number_at(figures, "alpha"), rank = number_at(figures, "rank");
    bool rslora = json_kind(json_get(figures, "rslora")) == JSON_TRUE;
    const Json *targets = json_get(figures, "targets"), *expected = json_get(figures, "gradient");
    AdapterSpec spec = {.method = "lora",
                        .plan = {.rank = (int)rank},
                        .scale = (float)(alpha / (rslora ? sqrt(rank) : rank))};
    for (size_t i = 0; i < json_size(targets); i++) {
        for (int role = 0; role < N_ROLES; role++) {
            bool named = strcmp(json_string(json_at(targets, i), NULL), role_name((Role)role)) == 0;
            spec.targets |= (unsigned)named << role;
        }
    }
    Model *model = open_model(llama ? ARCHITECTURE_LLAMA : ARCHITECTURE_QWEN2);
    AdapterBank *bank;
    Engine *engine;
    tiny_require(adapter_bank_new(&bank, model, &spec, 1, 1, NULL, NULL, NULL, &error), &error);
    tiny_require(engine_new(&engine, model, 1, 0, &error), &error);
    size_t n = adapter_parameters(bank);
    assert_int_equal(n, json_size(expected));
    float *v = malloc(n * sizeof *v);
    double *gradient = malloc(n * sizeof *gradient);
    fill_values(v, &spec, &model->config, json_get(figures, "names"));
    adapter_set(bank, 1, v, 1);
    int32_t tokens[N_TOKENS];
    uint8_t scored[N_TOKENS] = {0};
    double loss = 0, wrong = 0, size = 0;
    for (int t = 0; t < N_TOKENS; t++) {
        tokens[t] = (5 + 7 * t * t + 3 * t) % 19;
        scored[t] = t >= N_PROMPT;
    }
    Sequence sequence = {
        .tokens = tokens, .n_tokens = N_TOKENS, .parent = -1, .adapter = 1, .scored = scored};
    Batch batch = {.sequences = &sequence,
                   .n_sequences = 1,
                   .hook = adapter_hook(bank),
                   .weigh = weigh,
                   .weigh_context = &loss};
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
    adapter_gradient(bank, 1, gradient);
    for (size_t i = 0; i < n; i++) {
        double figure = NAN;
        assert_true(json_double(json_at(expected, i), &figure));
        wrong += pow(gradient[i] - figure, 2);
        size += figure * figure;
    }
    print_message("loss %.7f, PEFT's %.7f; gradients differ by %.2g of their size\n", loss,
                  number_at(figures, "loss"), sqrt(wrong / size));
    /* Both sides round to f32 somewhere: transformers its norms and logits, we everything. */
    assert_true(fabs(loss - number_at(figures, "loss")) < 2e-6 * loss);
    assert_true(size > 0 && sqrt(wrong / size) < 5e-6);
    free(v);
    free(gradient);
    engine_free(engine);
    adapter_bank_free(bank);
    model_free(model);
}

static void loss_and_gradients_of_a_step_are_those_of_peft(void **state)
{
    (void)state;
    JsonDocument *document;
    tiny_require(json_read(&document, "tests/data/peft_lora.json", 1 << 20, &error), &error);
    const Json *cases = json_get(json_root(document), "cases");
    assert_int_equal(json_size(cases), 2);
    for (size_t i = 0; i < json_size(cases); i++) {
        check_case(json_at(cases, i));
    }
    json_free(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_and_gradients_of_a_step_are_those_of_peft),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
