/* The judge is judged: the double-precision reference against golden numbers made elsewhere, and
 * its adapter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/reference_adapter.h"
#include "tests/shared.h"
#include "tests/tiny_model.h"

static double number(const Json *value)
{
    double out = NAN;
    assert_true(json_double(value, &out));
    return out;
}

/* The reference of a directory needs its config and its file alone. */
static Reference *open_directory(Model *model, const char *directory)
{
    char path[5000];
    Error error = {{0}};
    *model = (Model){0};
    tiny_require(model_config_read(&model->config, directory, &error), &error);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    tiny_require(safetensors_open(&model->file, path, &error), &error);
    return reference_open(model);
}

static void check_golden(const char *directory)
{
    char path[5000];
    Error error = {{0}};
    Model model;
    Reference *r = open_directory(&model, directory);
    int V = r->config.vocab_size;
    JsonDocument *document;
    snprintf(path, sizeof path, "%s/golden.json", directory);
    tiny_require(json_read(&document, path, 1 << 22, &error), &error);
    const Json *cases = json_get(json_root(document), "cases");
    assert_true(json_size(cases) > 0);
    for (size_t c = 0; c < json_size(cases); c++) {
        const Json *ids = json_get(json_at(cases, c), "ids");
        const Json *last = json_get(json_at(cases, c), "last_logits_first_16");
        int T = (int)json_size(ids);
        int32_t *tokens = malloc((size_t)T * sizeof *tokens);
        double *logits = malloc((size_t)T * V * sizeof *logits);
        double *logprobs = malloc((size_t)T * sizeof *logprobs), nll = 0;
        for (int t = 0; t < T; t++) {
            tokens[t] = (int32_t)number(json_at(ids, (size_t)t));
        }
        reference_logits(r, tokens, T, logits);
        reference_score(r, tokens, T, 1, logprobs, NULL);
        /* Both sides are double; the file prints all digits. */
        for (size_t i = 0; i < json_size(last); i++) {
            assert_true(fabs(logits[(size_t)(T - 1) * V + i] - number(json_at(last, i))) < 1e-9);
        }
        for (int t = 1; t < T; t++) {
            nll -= logprobs[t] / (T - 1);
        }
        assert_true(fabs(nll - number(json_get(json_at(cases, c), "mean_nll_of_next_token"))) <
                    1e-10);
        free(tokens);
        free(logits);
        free(logprobs);
    }
    json_free(document);
    reference_free(r);
    safetensors_close(model.file);
}

static void logits_and_nll_equal_the_golden_ones_of_two_trained_models(void **state)
{
    (void)state;
    char path[4096];
    const char *const names[] = {"data/models/stories260k", "data/models/babyllama-105"};
    for (int i = 0; i < 2; i++) {
        shared_path(path, names[i]);
        check_golden(path);
    }
}

/* The entropy is -sum p log p, the temperature divides logits, and v = 0 or NULL is the base. */
static void scores_have_the_entropy_and_temperature_they_should(void **state)
{
    (void)state;
    char directory[256];
    Model model;
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN2, false);
    tiny_model_write(directory, &config, 3);
    Reference *r = open_directory(&model, directory);
    tiny_model_remove(directory);
    enum { T = 5, V = 37 };
    const int32_t tokens[T] = {1, 30, 2, 7, 7};
    double logits[T * V], logprobs[T], entropies[T];
    reference_logits(r, tokens, T, logits);
    reference_score(r, tokens, T, 0.7, logprobs, entropies);
    assert_true(isnan(logprobs[0]) && isnan(entropies[0]));
    for (int t = 1; t < T; t++) {
        double total = 0, entropy = 0;
        for (int i = 0; i < V; i++) {
            total += exp(logits[(t - 1) * V + i] / 0.7);
        }
        for (int i = 0; i < V; i++) {
            double p = exp(logits[(t - 1) * V + i] / 0.7) / total;
            entropy -= p * log(p);
        }
        assert_true(fabs(entropies[t] - entropy) < 1e-12);
        assert_true(fabs(exp(logprobs[t]) - exp(logits[(t - 1) * V + tokens[t]] / 0.7) / total) <
                    1e-12);
        assert_true(entropy > 0.3 &&
                    entropy < log(V)); /* the tiny model is neither flat nor sure */
    }
    /* A later token changes no earlier number. */
    double before = logits[2 * V + 4];
    const int32_t other[T] = {1, 30, 2, 9, 11};
    reference_logits(r, other, T, logits);
    assert_true(logits[2 * V + 4] == before);
    reference_free(r);
    safetensors_close(model.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_and_nll_equal_the_golden_ones_of_two_trained_models),
        cmocka_unit_test(scores_have_the_entropy_and_temperature_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
