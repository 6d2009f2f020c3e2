/* Every family of models beside transformers: the same random weights, configs as their real models
 * have them, and the same log-probabilities. Figures: tests/data/architectures.json, made by
 * tests/architectures_golden.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/engine.h"
#include "core/file.h"
#include "core/json.h"
#include "tests/tiny_model.h"

enum { N_TOKENS = 120, VOCABULARY = 41 };

static const char *const FOLDER = "test_core_architectures.tmp";
static const char *const CONFIG = "test_core_architectures.tmp.json";
static Error error;

/* The script's formula. */
static double number_of(const char *name, uint32_t e, double size)
{
    uint32_t k = 2166136261u;
    for (const char *c = name; *c; c++) {
        k = (k ^ (uint32_t)*c) * 16777619u;
    }
    uint32_t x = e * 0x9E3779B9u + k;
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    x = x ^ (x >> 16);
    return (x / 4294967296.0 - 0.5) * size;
}

static int ends(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void fill(float *values, size_t n, const TensorSpec *spec)
{
    double size = ends(spec->name, "norm.weight")     ? 1
                  : ends(spec->name, ".bias")         ? 0.9
                  : ends(spec->name, "tokens.weight") ? 3.5
                                                      : 3.5 / sqrt((double)spec->dims[1]);
    double base = ends(spec->name, "norm.weight") ? 1 : 0;
    for (size_t e = 0; e < n; e++) {
        values[e] = (float)(base + number_of(spec->name, (uint32_t)e, size));
    }
}

/* The config as transformers read it, written out again with the weights, and read back. */
static Model *open_case(const Json *figures, size_t *n_parameters)
{
    ModelConfig config;
    Text text = {0};
    TensorSpec *specs;
    float *weights[64];
    Model *model;
    json_write(json_get(figures, "config"), &text);
    tiny_require(file_write(CONFIG, text.bytes, text.n, &error), &error);
    tiny_require(model_config_read(&config, CONFIG, &error), &error);
    text_release(&text);
    config.dtype = TENSOR_F32;
    size_t n = model_config_tensors(&specs, &config);
    assert_true(n <= sizeof weights / sizeof *weights);
    *n_parameters = 0;
    for (size_t i = 0; i < n; i++) {
        size_t size = specs[i].dims[0] * (specs[i].n_dims > 1 ? specs[i].dims[1] : 1);
        weights[i] = malloc(size * sizeof **weights);
        fill(weights[i], size, &specs[i]);
        *n_parameters += size;
    }
    tiny_require(
        model_directory_write(FOLDER, &config, (const float *const *)weights, NULL, &error),
        &error);
    tiny_require(model_open(&model, FOLDER, 1, &error), &error);
    tiny_model_remove(FOLDER);
    unlink(CONFIG);
    for (size_t i = 0; i < n; i++) {
        free(weights[i]);
    }
    free(specs);
    return model;
}

static double number_at(const Json *list, int i)
{
    double value = NAN;
    assert_true(json_double(json_at(list, (size_t)i), &value));
    return value;
}

static void check_case(const Json *figures)
{
    const Json *expected = json_get(figures, "logprobs"), *last = json_get(figures, "last");
    size_t n_parameters;
    int64_t n_expected = 0;
    Model *model = open_case(figures, &n_parameters);
    Engine *engine;
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    assert_true(json_int64(json_get(figures, "parameters"), &n_expected));
    assert_int_equal(n_parameters, n_expected);
    int32_t tokens[N_TOKENS], next[VOCABULARY];
    uint8_t scored[N_TOKENS];
    double logprobs[N_TOKENS], rows[VOCABULARY], worst = 0;
    for (int t = 0; t < N_TOKENS; t++) {
        tokens[t] = (t * t * 7 + t * 3 + 5) % VOCABULARY;
        scored[t] = t > 0;
    }
    /* The text, and after it every token: the whole last row of log-probabilities. */
    Sequence sequences[1 + VOCABULARY] = {{.tokens = tokens,
                                           .n_tokens = N_TOKENS,
                                           .parent = -1,
                                           .scored = scored,
                                           .logprobs = logprobs}};
    for (int v = 0; v < VOCABULARY; v++) {
        next[v] = v;
        sequences[1 + v] = (Sequence){
            .tokens = &next[v], .n_tokens = 1, .scored = scored + 1, .logprobs = &rows[v]};
    }
    Batch batch = {.sequences = sequences, .n_sequences = 1 + VOCABULARY};
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
    assert_int_equal(json_size(expected), N_TOKENS - 1);
    assert_int_equal(json_size(last), VOCABULARY);
    for (int t = 1; t < N_TOKENS; t++) {
        worst = fmax(worst, fabs(logprobs[t] - number_at(expected, t - 1)));
    }
    for (int v = 0; v < VOCABULARY; v++) {
        worst = fmax(worst, fabs(rows[v] - number_at(last, v)));
    }
    print_message("%s: log-probabilities differ by %.1e at most\n",
                  json_string(json_get(figures, "name"), NULL), worst);
    /* Both sides compute in f32: some 1e-6 at logits of order 5. */
    assert_true(worst < 2e-5);
    engine_free(engine);
    model_free(model);
}

static void logprobs_of_every_family_are_those_of_transformers(void **state)
{
    (void)state;
    JsonDocument *document;
    tiny_require(json_read(&document, SOURCE_DIR "/tests/data/architectures.json", 1 << 20, &error),
                 &error);
    const Json *cases = json_get(json_root(document), "cases");
    assert_int_equal(json_size(cases), 14);
    for (size_t i = 0; i < json_size(cases); i++) {
        check_case(json_at(cases, i));
    }
    json_free(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logprobs_of_every_family_are_those_of_transformers),
    };
    if (chdir(BUILD_DIR) != 0) { /* temporary files go there */
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
