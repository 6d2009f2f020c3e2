/* The engine on real trained models (golden numbers of a float64 reference), and the law on bits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/engine.h"
#include "core/generate.h"
#include "core/json.h"
#include "tests/reference_model.h"
#include "tests/shared.h"
#include "tests/tiny_model.h"

enum { LONGEST = 512 };

static Sequence text(const int32_t *tokens, int n_tokens, int parent, int adapter,
                     float temperature, const uint8_t *scored, double *logprobs, double *entropies)
{
    return (Sequence){.tokens = tokens,
                      .n_tokens = n_tokens,
                      .parent = parent,
                      .adapter = adapter,
                      .temperature = temperature,
                      .scored = scored,
                      .logprobs = logprobs,
                      .entropies = entropies};
}

static int read_ids(const Json *array, int32_t *ids)
{
    for (size_t i = 0; i < json_size(array); i++) {
        int64_t id = -1;
        json_int64(json_at(array, i), &id);
        ids[i] = (int32_t)id;
    }
    return (int)json_size(array);
}

static double number(const Json *object, const char *key)
{
    double value = NAN;
    json_double(json_get(object, key), &value);
    return value;
}

static void check_golden(const char *name)
{
    char path[4096];
    shared_path(path, "data/models");
    snprintf(path + strlen(path), sizeof path - strlen(path), "/%s", name);
    Error error = {{0}};
    Model *model = NULL;
    tiny_require(model_open(&model, path, 2, &error), &error);
    Engine *engine = NULL;
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    snprintf(path + strlen(path), sizeof path - strlen(path), "/golden.json");
    JsonDocument *golden = NULL;
    tiny_require(json_read(&golden, path, 1 << 20, &error), &error);
    const Json *cases = json_get(json_root(golden), "cases");
    static uint8_t scored[LONGEST];
    memset(scored, 1, sizeof scored);
    for (size_t i = 0; i < json_size(cases); i++) {
        const Json *one = json_at(cases, i);
        int32_t ids[LONGEST];
        double logprobs[LONGEST], nll = 0;
        int n = read_ids(json_get(one, "ids"), ids);
        Sequence sequence = text(ids, n, -1, 0, 0, scored, logprobs, NULL);
        Batch batch = {.sequences = &sequence, .n_sequences = 1};
        tiny_require(engine_evaluate(engine, &batch, &error), &error);
        for (int t = 1; t < n; t++) {
            nll -= logprobs[t] / (n - 1);
        }
        assert_true(fabs(nll - number(one, "mean_nll_of_next_token")) < 1e-5);
        /* Logits up to their common constant: the log p of each of 16 continuations. */
        const Json *logits = json_get(one, "last_logits_first_16");
        double first_logit = 0, first_logprob = 0;
        for (int k = 0; k < 16; k++) {
            double expected = NAN;
            json_double(json_at(logits, (size_t)k), &expected);
            ids[n] = k;
            sequence.n_tokens = n + 1;
            tiny_require(engine_evaluate(engine, &batch, &error), &error);
            if (k == 0) {
                first_logit = expected;
                first_logprob = logprobs[n];
            }
            assert_true(fabs((logprobs[n] - first_logprob) - (expected - first_logit)) < 2e-4);
        }
    }
    const Json *greedy = json_get(json_root(golden), "greedy");
    int32_t prompt[LONGEST], expected[LONGEST];
    int n_prompt = read_ids(json_get(greedy, "prompt_ids"), prompt);
    int n = read_ids(json_get(greedy, "ids"), expected);
    GenerateRequest request = {.prompt = prompt,
                               .n_prompt = n_prompt,
                               .greedy = true,
                               .top_p = 1,
                               .max_new = n - n_prompt};
    GenerateOptions options = {0};
    Completion completion;
    tiny_require(generate(engine, NULL, &request, 1, &options, &completion, &error), &error);
    assert_int_equal(completion.n, n - n_prompt);
    assert_memory_equal(completion.ids, expected + n_prompt,
                        (size_t)completion.n * sizeof *expected);
    completion_release(&completion);
    json_free(golden);
    engine_free(engine);
    model_free(model);
}

static void stories260k_matches_its_golden_numbers(void **state)
{
    (void)state;
    check_golden("stories260k");
}

static void babyllama_matches_its_golden_numbers(void **state)
{
    (void)state;
    check_golden("babyllama-105");
}

/* log p of every token, its mean over the vocabulary, and the entropies, against the
 * double-precision reference, for random models of every family, biases and scaled positions where
 * it has them. bf16 weights are exact in f32, so the tolerance is the same: f32 sums over widths up
 * to 100. */
static void random_models_match_the_double_precision_reference(void **state)
{
    (void)state;
    enum { LENGTH = 90 };
    for (int variant = 0; variant < 4 * N_ARCHITECTURES; variant++) {
        Architecture architecture = (Architecture)(variant / 4);
        const ArchitectureRow *family = architecture_row(architecture);
        ModelConfig config = tiny_config(architecture, variant & 1);
        config.output_bias = family->may_bias && variant & 1;
        config.attention_bias = family->always_bias || config.output_bias;
        config.mlp_bias = family->may_mlp_bias && variant & 1;
        if (variant & 1) {
            config.rope_type = (RopeType)(1 + architecture % 3);
            config.rope_factor = 4;
            config.rope_low_freq_factor = 1;
            config.rope_high_freq_factor = 4;
            config.rope_original_positions = 24;
            config.rope_beta_fast = 8;
            config.rope_beta_slow = 1;
            config.rope_attention_factor = 1.2;
        }
        config.n_layers = 3;
        config.width = 60;
        config.n_heads = 6;
        config.n_kv_heads = 2;
        config.head_dim = 10;
        config.ff_width = 100;
        config.dtype = variant & 2 ? TENSOR_BF16 : TENSOR_F32;
        char directory[256];
        tiny_model_write(directory, &config, 11 + (uint64_t)variant);
        Error error = {{0}};
        Model *model = NULL;
        Engine *engine = NULL;
        tiny_require(model_open(&model, directory, 2, &error), &error);
        tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
        int32_t ids[LENGTH];
        uint8_t scored[LENGTH];
        double logprobs[LENGTH], entropies[LENGTH], expected[LENGTH], expected_entropies[LENGTH];
        for (int t = 0; t < LENGTH; t++) {
            ids[t] =
                (int32_t)(random_uniform((RandomKey){8, RANDOM_DATA}, (uint32_t)t, 0, 0, 0) * 37);
            scored[t] = 1;
        }
        double means[LENGTH], logits[LENGTH * 37];
        Sequence sequence = text(ids, LENGTH, -1, 0, 0.8f, scored, logprobs, entropies);
        sequence.means = means;
        Batch batch = {.sequences = &sequence, .n_sequences = 1};
        tiny_require(engine_evaluate(engine, &batch, &error), &error);
        Reference *reference = reference_open(model);
        reference_score(reference, ids, LENGTH, (double)0.8f, expected, expected_entropies);
        reference_logits(reference, ids, LENGTH, logits);
        double worst = 0;
        for (int t = 1; t < LENGTH; t++) {
            double mean = 0;
            for (int v = 0; v < 37; v++) { /* log p(v) is that of the token and the logits' gap */
                const double *row = logits + (t - 1) * 37;
                mean += (expected[t] + (row[v] - row[ids[t]]) / (double)0.8f) / 37;
            }
            worst = fmax(worst, fabs(means[t] - mean));
            worst = fmax(worst, fabs(logprobs[t] - expected[t]));
            worst = fmax(worst, fabs(entropies[t] - expected_entropies[t]));
        }
        print_message("%s, %s: worst difference %.1e\n", family->model_type,
                      variant & 2 ? "bf16" : "f32", worst);
        assert_true(worst < 1e-4);
        reference_free(reference);
        engine_free(engine);
        model_free(model);
        char command[300];
        snprintf(command, sizeof command, "rm -rf '%s'", directory);
        assert_int_equal(system(command), 0);
    }
}

/* ---- the law ---- */

typedef struct {
    char directory[256];
    Model *model;
} Fixture;

static Fixture open_model(const ModelConfig *config)
{
    Fixture f;
    tiny_model_write(f.directory, config, 7);
    Error error = {{0}};
    tiny_require(model_open(&f.model, f.directory, 1, &error), &error);
    return f;
}

static Fixture open_tiny(Architecture architecture, bool tied)
{
    ModelConfig config = tiny_config(architecture, tied);
    return open_model(&config);
}

static void close_tiny(Fixture *f)
{
    model_free(f->model);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", f->directory);
    assert_int_equal(system(command), 0);
}

static void fill_ids(int32_t *ids, int n, uint32_t which)
{
    for (int t = 0; t < n; t++) {
        ids[t] =
            (int32_t)(random_uniform((RandomKey){5, RANDOM_DATA}, which, (uint32_t)t, 0, 0) * 37);
    }
}

enum { N = 63, MOST = 70 };

/* Each text alone, the first `count` of them together; the engine computes at most max_tokens rows
 * at a time. */
static void check_texts(Fixture *f, const int *counts, int n_counts, int max_tokens)
{
    static int32_t ids[N][MOST];
    static double alone[N][MOST], entropies[N][MOST], together[N][MOST], also[N][MOST];
    static uint8_t scored[MOST];
    memset(scored, 1, sizeof scored);
    Sequence sequences[N];
    Error error = {{0}};
    for (int threads = 1; threads <= 3; threads++) {
        Engine *engine = NULL;
        tiny_require(engine_new(&engine, f->model, threads, max_tokens, &error), &error);
        for (int i = 0; i < N; i++) {
            int n = 2 + (i * 29) % (MOST - 2);
            fill_ids(ids[i], n, (uint32_t)i);
            sequences[i] = text(ids[i], n, -1, 0, 0.7f, scored, together[i], also[i]);
        }
        for (int i = 0; i < counts[n_counts - 1] && threads == 1; i++) {
            Sequence one = sequences[i];
            one.logprobs = alone[i];
            one.entropies = entropies[i];
            Batch batch = {.sequences = &one, .n_sequences = 1};
            tiny_require(engine_evaluate(engine, &batch, &error), &error);
        }
        for (int c = 0; c < n_counts; c++) {
            int count = counts[c];
            memset(together, 0, sizeof together);
            Batch batch = {.sequences = sequences, .n_sequences = count};
            tiny_require(engine_evaluate(engine, &batch, &error), &error);
            for (int i = 0; i < count; i++) {
                size_t bytes = (size_t)(sequences[i].n_tokens - 1) * sizeof(double);
                assert_memory_equal(together[i] + 1, alone[i] + 1, bytes);
                assert_memory_equal(also[i] + 1, entropies[i] + 1, bytes);
            }
        }
        engine_free(engine);
    }
}

static void a_text_scores_the_same_alone_among_6_and_among_63_on_1_2_3_threads(void **state)
{
    (void)state;
    const int counts[2] = {6, N};
    for (Architecture a = ARCHITECTURE_QWEN2; a < N_ARCHITECTURES; a++) {
        Fixture f = open_tiny(a, true);
        check_texts(&f, counts, 2, 300);
        close_tiny(&f);
    }
}

/* Weights that fit the cache: whole trees on each thread. */
static void slices_of_a_batch_have_the_bits_of_the_whole(void **state)
{
    (void)state;
    const int counts[2] = {6, N};
    for (int qwen3 = 0; qwen3 < 2; qwen3++) {
        ModelConfig config = tiny_config(qwen3 ? ARCHITECTURE_QWEN3 : ARCHITECTURE_LLAMA, false);
        config.n_layers = 4;
        config.width = 96;
        config.n_heads = 6;
        config.n_kv_heads = 2;
        config.head_dim = 16;
        config.ff_width = 250;
        Fixture f = open_model(&config);
        check_texts(&f, counts, 2, 1500);
        close_tiny(&f);
    }
}

/* Weights that do not: every product split by columns. */
static void columns_of_large_weights_have_the_bits_of_the_whole(void **state)
{
    (void)state;
    const int counts[2] = {1, 6};
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN2, true);
    config.n_layers = 2;
    config.width = 512;
    config.n_heads = 8;
    config.n_kv_heads = 2;
    config.head_dim = 64;
    config.ff_width = 2048;
    Fixture f = open_model(&config);
    check_texts(&f, counts, 2, 300);
    close_tiny(&f);
}

static void check_shared_prompt(Architecture architecture)
{
    Fixture f = open_tiny(architecture, false);
    int32_t ids[40];
    fill_ids(ids, 40, 3);
    uint8_t scored[40];
    memset(scored, 1, sizeof scored);
    double whole[40], prompt[40], first[40], second[40];
    Error error = {{0}};
    Engine *engine = NULL;
    tiny_require(engine_new(&engine, f.model, 2, 0, &error), &error);
    Sequence alone = text(ids, 40, -1, 0, 0, scored, whole, NULL);
    Batch batch = {.sequences = &alone, .n_sequences = 1};
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
    Sequence tree[3] = {text(ids, 17, -1, 0, 0, scored, prompt, NULL),
                        text(ids + 17, 23, 0, 0, 0, scored, first, NULL),
                        text(ids + 17, 9, 0, 0, 0, scored, second, NULL)};
    batch = (Batch){.sequences = tree, .n_sequences = 3};
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
    assert_memory_equal(prompt + 1, whole + 1, 16 * sizeof(double));
    assert_memory_equal(first, whole + 17, 23 * sizeof(double));
    assert_memory_equal(second, whole + 17, 9 * sizeof(double));
    engine_free(engine);
    close_tiny(&f);
}

static void a_shared_prompt_gives_the_same_bits_as_a_prompt_of_ones_own(void **state)
{
    (void)state;
    for (Architecture a = 0; a < N_ARCHITECTURES; a++) {
        check_shared_prompt(a);
    }
}

static void check_sampler(Architecture architecture)
{
    Fixture f = open_tiny(architecture, false);
    enum { REQUESTS = 24, NEW = 30 };
    int32_t prompts[3][11];
    GenerateRequest requests[REQUESTS];
    for (int i = 0; i < REQUESTS; i++) {
        int p = i / 8;
        fill_ids(prompts[p], 11, (uint32_t)p);
        requests[i] = (GenerateRequest){.prompt = prompts[p],
                                        .n_prompt = 9 + p,
                                        .temperature = 0.8f,
                                        .top_p = p == 1 ? 0.9f : 1.0f,
                                        .top_k = p == 2 ? 5 : 0,
                                        .max_new = NEW,
                                        .key = {77, RANDOM_SAMPLE},
                                        .step = 3,
                                        .prompt_index = (uint32_t)p,
                                        .sample = (uint32_t)(i % 8)};
    }
    int32_t stop = 2;
    Completion expected[REQUESTS];
    Error error = {{0}};
    for (int threads = 1; threads <= 3; threads++) {
        for (int active = 0; active < 8; active += 7) { /* all at once, and 7 at a time */
            Engine *engine = NULL;
            tiny_require(engine_new(&engine, f.model, threads, 64, &error), &error);
            GenerateOptions options = {.stop_ids = &stop, .n_stop = 1, .max_active = active};
            Completion got[REQUESTS];
            tiny_require(generate(engine, NULL, requests, REQUESTS, &options, got, &error), &error);
            for (int i = 0; i < REQUESTS; i++) {
                double logprobs[NEW], unused[11];
                uint8_t scored[NEW];
                memset(scored, 1, sizeof scored);
                Sequence tree[2] = {
                    text(requests[i].prompt, requests[i].n_prompt, -1, 0, 0.8f, NULL, unused, NULL),
                    text(got[i].ids, got[i].n, 0, 0, 0.8f, scored, logprobs, NULL)};
                Batch batch = {.sequences = tree, .n_sequences = 2};
                tiny_require(engine_evaluate(engine, &batch, &error), &error);
                assert_memory_equal(logprobs, got[i].logprobs, (size_t)got[i].n * sizeof(double));
                assert_int_equal(got[i].finish == FINISH_STOP, got[i].ids[got[i].n - 1] == stop);
                if (threads == 1 && active == 0) {
                    expected[i] = got[i];
                } else {
                    assert_int_equal(got[i].n, expected[i].n);
                    assert_memory_equal(got[i].ids, expected[i].ids, (size_t)got[i].n * 4);
                    assert_memory_equal(got[i].logprobs, expected[i].logprobs,
                                        (size_t)got[i].n * 8);
                    completion_release(&got[i]);
                }
            }
            engine_free(engine);
        }
    }
    for (int i = 0; i < REQUESTS; i++) {
        completion_release(&expected[i]);
    }
    close_tiny(&f);
}

/* Decoding on the cache, and scoring; 40 tokens against windows of 6 and 7. */
static void the_sampler_and_the_trainer_agree_on_every_logprob(void **state)
{
    (void)state;
    for (Architecture a = ARCHITECTURE_QWEN2; a < N_ARCHITECTURES; a++) {
        check_sampler(a);
    }
}

/* Objective sum_t w_t log p_t + h_t H_t + m_t M_t (M: the mean of log p over the vocabulary) and
 * its gradient by every weight, against central differences of f32 values. */
typedef struct {
    double total, means[4][9];
} Objective;

static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    Objective *objective = context;
    TokenWeight w = {0.31 + 0.17 * position - sequence, sequence == 1 ? -0.6 : 0.0,
                     sequence == 2 ? 0.45 : 0.0};
    objective->total += w.dlogprob * logprob + w.dentropy * entropy +
                        w.dmean * objective->means[sequence][position];
    return w;
}

/* Whether weight k is of a norm of the heads. */
static int is_head_norm(const Model *model, size_t k)
{
    for (int l = 0; l < model->config.n_layers; l++) {
        for (ModelPart part = PART_NORM_Q; part <= PART_NORM_K; part++) {
            size_t first = model_offset(model, part, l, ROLE_Q);
            if (k >= first && k - first < (size_t)model->config.head_dim) {
                return 1;
            }
        }
    }
    return 0;
}

static void weight_gradients_match_finite_differences(void **state)
{
    (void)state;
    for (Architecture architecture = 0; architecture < N_ARCHITECTURES; architecture++) {
        Fixture f = open_tiny(architecture, architecture % 2 == 0);
        Error error = {{0}};
        tiny_require(model_make_trainable(f.model, &error), &error);
        Engine *engine = NULL;
        tiny_require(engine_new(&engine, f.model, 2, 0, &error), &error);
        int32_t ids[30];
        uint8_t scored[30];
        fill_ids(ids, 30, 9);
        memset(scored, 1, sizeof scored);
        scored[4] = 0;
        Sequence tree[4] = {text(ids, 7, -1, 0, 0.9f, scored, NULL, NULL),
                            text(ids + 7, 5, 0, 0, 0.9f, scored, NULL, NULL),
                            text(ids + 12, 8, 0, 0, 0.9f, scored, NULL, NULL),
                            text(ids + 3, 9, -1, 0, 1.2f, scored, NULL, NULL)};
        size_t n = f.model->n_parameters;
        float *gradient = calloc(n, sizeof *gradient);
        WeightGradients weights = {gradient};
        Objective objective = {0};
        tree[2].means = objective.means[2];
        Batch batch = {.sequences = tree,
                       .n_sequences = 4,
                       .weigh = weigh,
                       .weigh_context = &objective,
                       .weight_gradients = &weights,
                       .need_entropy = 1};
        tiny_require(engine_evaluate(engine, &batch, &error), &error);
        batch.weight_gradients = NULL;
        double norm[2] = {0}, difference[2] = {0};
        for (size_t k = 0; k < n; k++) { /* about 500 weights of every kind, and all head norms */
            int kind = is_head_norm(f.model, k);
            if (k % 13 != 0 && !kind) {
                continue;
            }
            float kept = f.model->trainable[k], step = 2e-3f;
            double value[2];
            for (int sign = 0; sign < 2; sign++) {
                f.model->trainable[k] = kept + (sign ? step : -step);
                model_update(f.model, 1);
                objective.total = 0;
                tiny_require(engine_evaluate(engine, &batch, &error), &error);
                value[sign] = objective.total;
            }
            f.model->trainable[k] = kept;
            double numeric = (value[1] - value[0]) / (2 * (double)step);
            norm[kind] += numeric * numeric;
            difference[kind] += (numeric - gradient[k]) * (numeric - gradient[k]);
        }
        /* f32 values of size 100 with steps of 2e-3: differences good to about 1e-3 of the
         * gradient's size */
        assert_true(sqrt(difference[0] / norm[0]) < 3e-3);
        assert_int_equal(norm[1] > 0, architecture == ARCHITECTURE_QWEN3);
        assert_true(sqrt(difference[1]) <= 3e-3 * sqrt(norm[1]));
        free(gradient);
        engine_free(engine);
        close_tiny(&f);
    }
}

static void bad_batches_are_refused_with_a_reason(void **state)
{
    (void)state;
    Fixture f = open_tiny(ARCHITECTURE_LLAMA, true);
    Error error = {{0}};
    Engine *engine = NULL;
    tiny_require(engine_new(&engine, f.model, 1, 0, &error), &error);
    int32_t ids[600] = {0};
    Sequence sequence = text(ids, 600, -1, 0, 0, NULL, NULL, NULL);
    Batch batch = {.sequences = &sequence, .n_sequences = 1};
    assert_int_equal(engine_evaluate(engine, &batch, &error), STATUS_USAGE);
    assert_string_equal(error.message, "sequence 0: 600 tokens, the model's context is 512");
    sequence.n_tokens = 3;
    ids[2] = 37;
    assert_int_equal(engine_evaluate(engine, &batch, &error), STATUS_USAGE);
    assert_string_equal(error.message, "sequence 0: token id 37 at 2, the vocabulary has 37");
    GenerateRequest request = {
        .prompt = ids, .n_prompt = 512, .greedy = true, .top_p = 1, .max_new = 4};
    GenerateOptions options = {0};
    Completion completion;
    assert_int_equal(generate(engine, NULL, &request, 1, &options, &completion, &error),
                     STATUS_USAGE);
    assert_string_equal(
        error.message,
        "request 0: a prompt of 512 tokens leaves no room for 4 more in a context of 512");
    engine_free(engine);
    close_tiny(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories260k_matches_its_golden_numbers),
        cmocka_unit_test(babyllama_matches_its_golden_numbers),
        cmocka_unit_test(random_models_match_the_double_precision_reference),
        cmocka_unit_test(a_text_scores_the_same_alone_among_6_and_among_63_on_1_2_3_threads),
        cmocka_unit_test(slices_of_a_batch_have_the_bits_of_the_whole),
        cmocka_unit_test(columns_of_large_weights_have_the_bits_of_the_whole),
        cmocka_unit_test(a_shared_prompt_gives_the_same_bits_as_a_prompt_of_ones_own),
        cmocka_unit_test(the_sampler_and_the_trainer_agree_on_every_logprob),
        cmocka_unit_test(weight_gradients_match_finite_differences),
        cmocka_unit_test(bad_batches_are_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
