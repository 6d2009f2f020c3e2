/* Adapters in the engine: log-probabilities and gradients against a double-precision reference and
 * its central differences, for Llama and Qwen2, tied and own heads, and the law on bits for a bank
 * of adapters. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapters/adapter.h"
#include "core/engine.h"
#include "tests/engine_batch.h"
#include "tests/reference_adapter.h"
#include "tests/tiny_model.h"

static Error error;

static AdapterBank *open_bank(Model *model, int rank, int u, int groups, TieRule tie,
                              int n_adapters)
{
    AdapterSpec spec = {
        .method = "tinylora",
        .plan = {.rank = rank,
                 .u = u,
                 .groups = groups,
                 .tie = tie,
                 .grouping = tie == TIE_TILED ? GROUPING_BALANCED : GROUPING_CHUNKS},
        .targets = (1 << N_ROLES) - 1,
        .seed = 13,
        .scale = 1};
    AdapterBank *bank;
    tiny_require(adapter_bank_new(&bank, model, &spec, n_adapters, 2, NULL, NULL, NULL, &error),
                 &error);
    return bank;
}

/* v of adapter a: not small, so that the update matters. */
static void choose_v(float *v, size_t n, int adapter)
{
    for (size_t i = 0; i < n; i++) {
        v[i] = (float)(0.25 * random_normal((RandomKey){8, RANDOM_INIT}, (uint32_t)adapter,
                                            (uint32_t)i, 0, 0));
    }
}

static void check_model(ModelConfig config, int rank, int u, int groups, TieRule tie)
{
    Model *model = tiny_model_open(&config, 17);
    AdapterBank *bank = open_bank(model, rank, u, groups, tie, N_ADAPTERS);
    Engine *engine;
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    Reference *r = reference_open(model);
    ReferenceAdapter adapter = reference_adapter(model, adapter_spec(bank));
    size_t n = adapter_parameters(bank);
    float *v = malloc(n * sizeof *v);
    double *moved = malloc(n * sizeof *moved), *gradient = malloc(n * sizeof *gradient);
    for (int grpo = 0; grpo < 2; grpo++) {
        Data d;
        data_init(&d, config.vocab_size);
        for (int a = 1; a <= N_ADAPTERS; a++) {
            choose_v(v, n, a);
            adapter_set(bank, a, v, 1);
        }
        evaluate(engine, bank, &d, grpo);
        double worst = 0;
        reference_adapt(r, &adapter, NULL);
        reference_objective(r, &d, 0, grpo, &worst);
        for (int a = 1; a <= N_ADAPTERS; a++) {
            choose_v(v, n, a);
            adapter_gradient(bank, a, gradient);
            for (size_t i = 0; i < n; i++) {
                moved[i] = (double)v[i];
            }
            reference_adapt(r, &adapter, moved);
            reference_objective(r, &d, a, grpo, &worst);
            double difference = 0, size = 0;
            for (size_t i = 0; i < n; i++) {
                double values[2];
                for (int sign = 0; sign < 2; sign++) {
                    moved[i] = (double)v[i] + (sign ? 1e-4 : -1e-4);
                    reference_adapt(r, &adapter, moved);
                    values[sign] = reference_objective(r, &d, a, grpo, NULL);
                }
                moved[i] = (double)v[i];
                double numerical = (values[1] - values[0]) / 2e-4;
                difference += (gradient[i] - numerical) * (gradient[i] - numerical);
                size += numerical * numerical;
            }
            assert_true(size > 1e-6);
            /* The promise is 1e-4; single precision through two layers gives some 1e-6. */
            if (sqrt(difference / size) > 1e-4) {
                fail_msg("adapter %d: gradient off by %.2e", a, sqrt(difference / size));
            }
        }
        if (worst > 1e-4) { /* logits of order 5 in single precision: some 1e-6 */
            fail_msg("log-probabilities or entropies off by %.2e", worst);
        }
    }
    free(v);
    free(moved);
    free(gradient);
    reference_adapter_release(&adapter);
    reference_free(r);
    engine_free(engine);
    adapter_bank_free(bank);
    model_free(model);
}

static void gradients_match_central_differences_llama_tied(void **state)
{
    (void)state;
    check_model(tiny_config(ARCHITECTURE_LLAMA, true), 2, 1, 13, TIE_TILED);
}

static void gradients_match_central_differences_llama_own_head(void **state)
{
    (void)state;
    check_model(tiny_config(ARCHITECTURE_LLAMA, false), 2, 13, 1, TIE_ALL);
}

static void gradients_match_central_differences_qwen2_tied(void **state)
{
    (void)state;
    check_model(tiny_config(ARCHITECTURE_QWEN2, true), 3, 2, 7, TIE_STRUCTURED);
}

static void gradients_match_central_differences_qwen2_own_head_bf16(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN2, false);
    config.dtype = TENSOR_BF16;
    config.n_layers = 3;
    check_model(config, 1, 1, 21, TIE_NONE);
}

static void gradients_match_central_differences_qwen3_with_norms_biases_and_a_window(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN3, true);
    config.n_heads = 4;
    config.n_kv_heads = 2;
    config.head_dim = 10; /* not hidden_size / heads */
    config.attention_bias = config.output_bias = true;
    check_model(config, 2, 3, 5, TIE_TILED);
}

static void gradients_match_central_differences_mistral_with_a_window(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_MISTRAL, false);
    config.window = 4;
    check_model(config, 2, 13, 1, TIE_ALL);
}

/* Positions scaled by YaRN turn and stretch: the way back stretches too. */
static void gradients_match_central_differences_llama_with_biases_and_yarn(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, false);
    config.attention_bias = config.output_bias = config.mlp_bias = true;
    config.rope_type = ROPE_YARN;
    config.rope_factor = 4;
    config.rope_original_positions = 24;
    config.rope_beta_fast = 8;
    config.rope_beta_slow = 1;
    config.rope_attention_factor = 1.3;
    check_model(config, 2, 2, 7, TIE_STRUCTURED);
}

/* -- the law ------------------------------------------------------------------------------------
 */

static void a_bank_of_adapters_gives_the_bits_of_each_alone_for_any_threads_and_chunks(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN2, true);
    Model *model = tiny_model_open(&config, 17);
    AdapterBank *both = open_bank(model, 2, 1, 13, TIE_TILED, 2);
    AdapterBank *single = open_bank(model, 2, 1, 13, TIE_TILED, 1);
    float v[3][13];
    double together[3][13], alone[13];
    Data expected, d;
    for (int a = 1; a <= 2; a++) {
        choose_v(v[a], 13, a);
        adapter_set(both, a, v[a], 1);
    }
    data_init(&expected, config.vocab_size);
    Engine *engine;
    tiny_require(engine_new(&engine, model, 1, 0, &error), &error);
    evaluate(engine, both, &expected, true);
    for (int a = 1; a <= 2; a++) {
        adapter_gradient(both, a, together[a]);
    }
    engine_free(engine);
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        for (int max_tokens = 0; max_tokens <= 20; max_tokens += 10) {
            tiny_require(engine_new(&engine, model, n_threads, max_tokens, &error), &error);
            data_init(&d, config.vocab_size);
            evaluate(engine, both, &d, true);
            assert_memory_equal(d.logprobs, expected.logprobs, sizeof d.logprobs);
            assert_memory_equal(d.entropies, expected.entropies, sizeof d.entropies);
            for (int a = 1; a <= 2; a++) {
                double gradient[13];
                adapter_gradient(both, a, gradient);
                assert_memory_equal(gradient, together[a], sizeof gradient);
            }
            for (int a = 1; a <= 2; a++) {
                adapter_set(single, 1, v[a], 1);
                data_init(&d, config.vocab_size);
                /* Only this adapter's sequences: 0..3 are adapter 1's, 4 is adapter 2's. */
                Data part = d;
                Batch batch = {.sequences = a == 1 ? part.sequences : part.sequences + 4,
                               .n_sequences = a == 1 ? 4 : 1,
                               .hook = adapter_hook(single),
                               .weigh = weigh_sft,
                               .need_entropy = 1};
                for (int s = 0; s < N_SEQUENCES; s++) {
                    part.sequences[s].logprobs = part.logprobs[s];
                    part.sequences[s].entropies = part.entropies[s];
                    part.sequences[s].adapter = part.sequences[s].adapter ? 1 : 0;
                }
                adapter_clear_gradients(single);
                tiny_require(engine_evaluate(engine, &batch, &error), &error);
                adapter_gradient(single, 1, alone);
                evaluate(engine, both, &d, false);
                double fused[13];
                adapter_gradient(both, a, fused);
                assert_memory_equal(alone, fused, sizeof alone);
                for (int s = a == 1 ? 0 : 4; s < (a == 1 ? 4 : 5); s++) {
                    assert_memory_equal(part.logprobs[s], expected.logprobs[s],
                                        sizeof d.logprobs[s]);
                }
            }
            engine_free(engine);
        }
    }
    adapter_bank_free(both);
    adapter_bank_free(single);
    model_free(model);
}

static void a_zero_v_gives_the_bits_of_the_base(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, false);
    Model *model = tiny_model_open(&config, 2);
    AdapterBank *bank = open_bank(model, 2, 1, 13, TIE_TILED, 2);
    Engine *engine;
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    Data adapted, base;
    data_init(&adapted, config.vocab_size);
    data_init(&base, config.vocab_size);
    evaluate(engine, bank, &adapted, true); /* v was never set: zero */
    for (int s = 0; s < N_SEQUENCES; s++) {
        base.sequences[s].adapter = 0;
    }
    Batch batch = {.sequences = base.sequences, .n_sequences = N_SEQUENCES};
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
    assert_memory_equal(adapted.logprobs, base.logprobs, sizeof base.logprobs);
    double gradient[13], size = 0;
    adapter_gradient(bank, 1, gradient);
    for (int i = 0; i < 13; i++) {
        size += fabs(gradient[i]);
    }
    assert_true(size > 0);
    engine_free(engine);
    adapter_bank_free(bank);
    model_free(model);
}

/* -- full training ------------------------------------------------------------------------------
 */

static void evaluate_full(Engine *engine, AdapterBank *bank, Data *d, bool backward)
{
    for (int s = 0; s < N_SEQUENCES; s++) {
        d->sequences[s].adapter = 0;
    }
    Batch batch = {.sequences = d->sequences,
                   .n_sequences = N_SEQUENCES,
                   .weigh = backward ? weigh_grpo : NULL,
                   .weigh_context = d,
                   .weight_gradients = backward ? adapter_weight_gradients(bank) : NULL,
                   .need_entropy = 1};
    adapter_clear_gradients(bank);
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
}

static void full_gradients_match_central_differences_of_weights(void **state)
{
    (void)state;
    for (int variant = 0; variant < 2 * N_ARCHITECTURES; variant++) {
        ModelConfig config = tiny_config((Architecture)(variant / 2), variant & 1);
        Model *model = tiny_model_open(&config, 29);
        AdapterSpec spec = {.method = "full"};
        AdapterBank *bank;
        tiny_require(adapter_bank_new(&bank, model, &spec, 1, 2, NULL, NULL, NULL, &error), &error);
        assert_null(adapter_hook(bank));
        assert_int_equal(adapter_parameters(bank), model->n_parameters);
        assert_int_equal(adapter_shared_layers(bank, 0, 1), 0);
        Reference *r = reference_open(model);
        Engine *engine;
        tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
        Data d;
        data_init(&d, config.vocab_size);
        evaluate_full(engine, bank, &d, true);
        double *gradient = malloc(model->n_parameters * sizeof *gradient);
        adapter_gradient(bank, 1, gradient);
        size_t first = 0;
        for (size_t i = 0; i < r->n; i++) {
            double difference = 0, size = 0;
            for (int k = 0; k < 5; k++) {
                /* Rows of tokens that occur; elsewhere five places over the tensor. */
                size_t e = strstr(r->specs[i].name, "embed")
                               ? (size_t)d.tokens[0][k] * config.width + 3 * k
                               : (r->n_values[i] - 1) * (size_t)k / 4;
                double kept = r->values[i][e], values[2];
                for (int sign = 0; sign < 2; sign++) {
                    r->values[i][e] = kept + (sign ? 1e-4 : -1e-4);
                    values[sign] = reference_objective(r, &d, 0, true, NULL);
                }
                r->values[i][e] = kept;
                double numerical = (values[1] - values[0]) / 2e-4;
                difference += pow(gradient[first + e] - numerical, 2);
                size += numerical * numerical;
            }
            if (sqrt(difference) > 1e-4 * sqrt(size) + 1e-9) {
                fail_msg("%s: gradient off by %.2e of %.2e", r->specs[i].name, sqrt(difference),
                         sqrt(size));
            }
            first += r->n_values[i];
        }
        assert_int_equal(first, model->n_parameters);
        free(gradient);
        reference_free(r);
        engine_free(engine);
        adapter_bank_free(bank);
        model_free(model);
    }
}

static void full_moves_the_model_and_finds_the_base_again(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN2, false);
    config.dtype = TENSOR_BF16;
    Model *model = tiny_model_open(&config, 31);
    Engine *engine;
    AdapterBank *bank;
    Data frozen, base, moved, d;
    data_init(&frozen, config.vocab_size);
    data_init(&base, config.vocab_size);
    data_init(&moved, config.vocab_size);
    data_init(&d, config.vocab_size);
    AdapterSpec none = {.method = "none"}, spec = {.method = "full"};
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    tiny_require(adapter_bank_new(&bank, model, &none, 1, 1, NULL, NULL, NULL, &error), &error);
    evaluate_full(engine, bank, &frozen, false);
    adapter_bank_free(bank);
    engine_free(engine);
    tiny_require(adapter_bank_new(&bank, model, &spec, 1, 2, NULL, NULL, NULL, &error), &error);
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    evaluate_full(engine, bank, &base, false);
    /* The same weights, widened: every bit is the same. */
    assert_memory_equal(base.logprobs, frozen.logprobs, sizeof base.logprobs);
    size_t n = adapter_parameters(bank);
    float *v = malloc(n * sizeof *v);
    adapter_initial(bank, v);
    assert_memory_equal(v, model->trainable, n * sizeof *v);
    for (size_t i = 0; i < n; i++) {
        v[i] *= 1.01f;
    }
    adapter_set(bank, 1, v, 2);
    evaluate_full(engine, bank, &moved, false);
    assert_memory_not_equal(moved.logprobs, base.logprobs, sizeof base.logprobs);
    adapter_use_base(bank, true, 1);
    evaluate_full(engine, bank, &d, false);
    assert_memory_equal(d.logprobs, base.logprobs, sizeof base.logprobs);
    adapter_set(bank, 1, v, 2); /* waits until the base goes */
    evaluate_full(engine, bank, &d, false);
    assert_memory_equal(d.logprobs, base.logprobs, sizeof base.logprobs);
    adapter_use_base(bank, false, 2);
    evaluate_full(engine, bank, &d, false);
    assert_memory_equal(d.logprobs, moved.logprobs, sizeof base.logprobs);
    adapter_initial(bank, v);
    adapter_set(bank, 1, v, 1);
    evaluate_full(engine, bank, &d, false);
    assert_memory_equal(d.logprobs, base.logprobs, sizeof base.logprobs);
    free(v);
    adapter_bank_free(bank);
    engine_free(engine);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_match_central_differences_llama_tied),
        cmocka_unit_test(gradients_match_central_differences_llama_own_head),
        cmocka_unit_test(gradients_match_central_differences_qwen2_tied),
        cmocka_unit_test(gradients_match_central_differences_qwen2_own_head_bf16),
        cmocka_unit_test(gradients_match_central_differences_qwen3_with_norms_biases_and_a_window),
        cmocka_unit_test(gradients_match_central_differences_mistral_with_a_window),
        cmocka_unit_test(gradients_match_central_differences_llama_with_biases_and_yarn),
        cmocka_unit_test(
            a_bank_of_adapters_gives_the_bits_of_each_alone_for_any_threads_and_chunks),
        cmocka_unit_test(a_zero_v_gives_the_bits_of_the_base),
        cmocka_unit_test(full_gradients_match_central_differences_of_weights),
        cmocka_unit_test(full_moves_the_model_and_finds_the_base_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
