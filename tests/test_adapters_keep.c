/* What waits for the backward: no checkpointing changes a bit, in no precision, under no adapter,
 * on any threads; 16 bits leave the log-probabilities as they are and gradients near those of
 * float64; memory falls as it is meant to. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapters/adapter.h"
#include "core/engine_state.h"
#include "tests/engine_batch.h"
#include "tests/reference_adapter.h"
#include "tests/tiny_model.h"

enum { N_PRECISIONS = 3, N_CHECKPOINTINGS = 3, N_FAMILIES = 3 };
static const TensorType precisions[N_PRECISIONS] = {TENSOR_F32, TENSOR_BF16, TENSOR_F16};
/* Qwen3 keeps queries and keys before their norms too, and has layers with a window. */
static const Architecture architectures[N_FAMILIES] = {ARCHITECTURE_LLAMA, ARCHITECTURE_QWEN2,
                                                       ARCHITECTURE_QWEN3};

static Error error;

static AdapterSpec spec_of(const char *method)
{
    bool tinylora = strcmp(method, "tinylora") == 0;
    AdapterSpec spec = {
        .method = method,
        .plan = {.rank = 2, .u = 1, .groups = 13, .tie = TIE_TILED, .grouping = GROUPING_BALANCED},
        .targets = (1 << N_ROLES) - 1,
        .seed = 13,
        .scale = 1,
        .dropout = strcmp(method, "lora") == 0 ? 0.2 : 0};
    spec.plan.rank = tinylora ? 2 : 5;
    return spec;
}

/* Every kind of derivative; nothing that leaves the range of f16. */
static TokenWeight weigh_all(void *context, int s, int t, double logprob, double entropy)
{
    (void)context, (void)logprob, (void)entropy;
    return (TokenWeight){
        .dlogprob = ((s * 7 + t * 3) % 5 - 2) * 0.4, .dentropy = -0.03, .dmean = 0.01};
}

typedef struct {
    Data data;
    double *gradient; /* (N_ADAPTERS, n) */
    size_t n;
    size_t workspace; /* bytes */
} Outcome;

static AdapterBank *open_bank(Model *model, const char *method)
{
    const AdapterSpec spec = spec_of(method);
    AdapterBank *bank;
    int n_adapters = strcmp(method, "full") == 0 ? 1 : N_ADAPTERS;
    tiny_require(adapter_bank_new(&bank, model, &spec, n_adapters, 2, NULL, NULL, NULL, &error),
                 &error);
    return bank;
}

/* v of adapter a: not small, so that the update matters. */
static float v_of(int adapter, size_t i)
{
    RandomKey key = {8, RANDOM_INIT};
    return (float)(0.25 * random_normal(key, (uint32_t)adapter, (uint32_t)i, 0, 0));
}

static Outcome run(Model *model, AdapterBank *bank, Checkpointing checkpointing,
                   TensorType precision, int n_threads, WeighToken weigh)
{
    bool full = adapter_hook(bank) == NULL;
    Engine *engine;
    Outcome out = {.n = adapter_parameters(bank)};
    tiny_require(engine_new(&engine, model, n_threads, 0, &error), &error);
    out.gradient = calloc(N_ADAPTERS * out.n, sizeof *out.gradient);
    float *v = malloc(out.n * sizeof *v);
    for (int a = 1; a <= N_ADAPTERS && !full; a++) {
        for (size_t i = 0; i < out.n; i++) {
            v[i] = v_of(a, i);
        }
        adapter_set(bank, a, v, 1);
    }
    data_init(&out.data, model->config.vocab_size);
    for (int s = 0; s < N_SEQUENCES; s++) {
        out.data.sequences[s].key = adapter_spec(bank)->dropout > 0 ? 100 + (uint64_t)s : 0;
        out.data.sequences[s].adapter = full ? 0 : out.data.sequences[s].adapter;
    }
    Batch batch = {.sequences = out.data.sequences,
                   .n_sequences = N_SEQUENCES,
                   .hook = adapter_hook(bank),
                   .weigh = weigh,
                   .weigh_context = &out.data,
                   .weight_gradients = adapter_weight_gradients(bank),
                   .need_entropy = 1,
                   .checkpointing = checkpointing,
                   .precision = precision};
    adapter_clear_gradients(bank);
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
    for (int a = 1; a <= (full ? 1 : N_ADAPTERS); a++) {
        adapter_gradient(bank, a, out.gradient + (size_t)(a - 1) * out.n);
    }
    out.workspace = engine->workspace.capacity;
    free(v);
    engine_free(engine);
    return out;
}

/* |a - b| / |b| */
static double distance(const double *a, const double *b, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return sqrt(difference / size);
}

/* 16 bits: the gradient is another one, by a rounding of 2^-9 or 2^-12 of each number kept. */
static void check_distance(double far, TensorType precision, const char *what)
{
    double most = precision == TENSOR_BF16 ? 0.03 : 0.004;
    print_message("%s %s: %.1e\n", what, tensor_type_name(precision), far);
    if (!(far > 0 && far < most)) {
        fail_msg("%s, %s: gradient off by %.2e", what, tensor_type_name(precision), far);
    }
}

static void check(const ModelConfig *config, const char *method)
{
    Model *model = tiny_model_open(config, 17);
    AdapterBank *bank = open_bank(model, method);
    Outcome exact = run(model, bank, CHECKPOINTING_NONE, TENSOR_F32, 1, weigh_all);
    for (int p = 0; p < N_PRECISIONS; p++) {
        Outcome none = run(model, bank, CHECKPOINTING_NONE, precisions[p], 1, weigh_all);
        if (precisions[p] != TENSOR_F32) {
            check_distance(distance(none.gradient, exact.gradient, N_ADAPTERS * none.n),
                           precisions[p], method);
        }
        for (int c = 0; c < N_CHECKPOINTINGS; c++) {
            for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
                Outcome other =
                    run(model, bank, (Checkpointing)c, precisions[p], n_threads, weigh_all);
                assert_memory_equal(other.data.logprobs, exact.data.logprobs,
                                    sizeof exact.data.logprobs);
                assert_memory_equal(other.data.entropies, exact.data.entropies,
                                    sizeof exact.data.entropies);
                for (size_t i = 0; i < N_ADAPTERS * none.n; i++) {
                    if (memcmp(&other.gradient[i], &none.gradient[i], sizeof(double)) != 0) {
                        fail_msg("%s, %s, checkpointing %d, %d threads: gradient %zu is %a, %a",
                                 method, tensor_type_name(precisions[p]), c, n_threads, i,
                                 other.gradient[i], none.gradient[i]);
                    }
                }
                free(other.gradient);
            }
        }
        free(none.gradient);
    }
    free(exact.gradient);
    adapter_bank_free(bank);
    model_free(model);
}

static ModelConfig config_of(Architecture architecture, int n_layers, int width, int ff_width)
{
    ModelConfig config = tiny_config(architecture, architecture == ARCHITECTURE_QWEN2);
    config.n_layers = n_layers;
    config.width = width;
    config.n_heads = width / 16;
    config.head_dim = 16;
    config.n_kv_heads = config.n_heads % 2 ? 1 : 2;
    config.ff_width = ff_width;
    return config;
}

/* Small models on one thread, those whose weights fit the cache by slices of rows, large ones by
 * columns. */
static void no_checkpointing_changes_a_bit_of_tinylora(void **state)
{
    (void)state;
    for (int i = 0; i < N_FAMILIES; i++) {
        ModelConfig tiny = tiny_config(architectures[i], i == 0);
        ModelConfig sliced = config_of(architectures[i], 4, 96, 250);
        check(&tiny, "tinylora");
        check(&sliced, "tinylora");
    }
    ModelConfig large = config_of(ARCHITECTURE_QWEN2, 3, 512, 1500);
    check(&large, "tinylora");
}

static void no_checkpointing_changes_a_bit_of_lora(void **state)
{
    (void)state;
    for (int i = 0; i < N_FAMILIES; i++) {
        ModelConfig sliced = config_of(architectures[i], 4, 96, 250);
        check(&sliced, "lora");
        check(&sliced, "lora-xs");
    }
}

static void no_checkpointing_changes_a_bit_of_full_training(void **state)
{
    (void)state;
    for (int i = 0; i < N_FAMILIES; i++) {
        ModelConfig sliced = config_of(architectures[i], 4, 96, 250);
        check(&sliced, "full");
    }
}

/* -- float64 ---------------------------------------------------------------------------------- */

static void check_reference(Architecture architecture)
{
    ModelConfig config = tiny_config(architecture, true);
    config.n_layers = 4;
    Model *model = tiny_model_open(&config, 17);
    AdapterBank *bank = open_bank(model, "tinylora");
    Reference *r = reference_open(model);
    ReferenceAdapter adapter = reference_adapter(model, adapter_spec(bank));
    for (int p = 0; p < N_PRECISIONS; p++) {
        Outcome out = run(model, bank, CHECKPOINTING_FULL, precisions[p], 2, weigh_sft);
        for (int a = 1; a <= N_ADAPTERS; a++) {
            double v[13], numerical[13];
            for (size_t i = 0; i < 13; i++) {
                v[i] = (double)v_of(a, i);
            }
            for (size_t i = 0; i < 13; i++) {
                double kept = v[i], values[2];
                for (int sign = 0; sign < 2; sign++) {
                    v[i] = kept + (sign ? 1e-4 : -1e-4);
                    reference_adapt(r, &adapter, v);
                    values[sign] = reference_objective(r, &out.data, a, false, NULL);
                }
                v[i] = kept;
                numerical[i] = (values[1] - values[0]) / 2e-4;
            }
            double far = distance(out.gradient + (size_t)(a - 1) * 13, numerical, 13);
            if (precisions[p] != TENSOR_F32) {
                check_distance(far, precisions[p], "against float64");
            } else {
                assert_true(far < 1e-4);
            }
        }
        free(out.gradient);
    }
    reference_adapter_release(&adapter);
    reference_free(r);
    adapter_bank_free(bank);
    model_free(model);
}

static void gradients_in_16_bits_are_near_those_of_float64(void **state)
{
    (void)state;
    for (int i = 0; i < N_FAMILIES; i++) {
        check_reference(architectures[i]);
    }
}

/* -- range and memory ------------------------------------------------------------------------- */

/* Adapter 2's tokens weigh 1e8 each. */
static TokenWeight weigh_much(void *context, int s, int t, double logprob, double entropy)
{
    return s == 4 ? (TokenWeight){.dlogprob = -1e8} : weigh_all(context, s, t, logprob, entropy);
}

static void a_gradient_beyond_f16_is_not_finite_and_does_not_touch_its_neighbours(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN2, true);
    Model *model = tiny_model_open(&config, 17);
    AdapterBank *bank = open_bank(model, "tinylora");
    for (int p = 0; p < N_PRECISIONS; p++) {
        Outcome calm = run(model, bank, CHECKPOINTING_NONE, precisions[p], 1, weigh_all);
        Outcome wild = run(model, bank, CHECKPOINTING_NONE, precisions[p], 1, weigh_much);
        assert_memory_equal(wild.gradient, calm.gradient, 13 * sizeof(double));
        for (size_t i = 13; i < 26; i++) { /* bf16 has the range of f32 */
            assert_int_equal(isfinite(wild.gradient[i]), precisions[p] != TENSOR_F16);
        }
        free(calm.gradient);
        free(wild.gradient);
    }
    adapter_bank_free(bank);
    model_free(model);
}

static void memory_falls_with_what_waits(void **state)
{
    (void)state;
    ModelConfig config = config_of(ARCHITECTURE_LLAMA, 5, 96, 250);
    Model *model = tiny_model_open(&config, 17);
    AdapterBank *bank = open_bank(model, "tinylora");
    size_t bytes[N_PRECISIONS][N_CHECKPOINTINGS];
    for (int p = 0; p < N_PRECISIONS; p++) {
        for (int c = 0; c < N_CHECKPOINTINGS; c++) {
            Outcome out = run(model, bank, (Checkpointing)c, precisions[p], 1, weigh_all);
            bytes[p][c] = out.workspace;
            free(out.gradient);
        }
    }
    print_message("none %zu, selective %zu, full %zu; bf16 %zu, %zu, %zu\n", bytes[0][0],
                  bytes[0][1], bytes[0][2], bytes[1][0], bytes[1][1], bytes[1][2]);
    for (int p = 0; p < N_PRECISIONS; p++) {
        assert_true(bytes[p][0] > bytes[p][1] && bytes[p][1] > bytes[p][2]);
        assert_true(p == 0 || (bytes[p][0] < bytes[0][0] && bytes[p][2] < bytes[0][2]));
    }
    assert_true((double)bytes[0][2] < 0.5 * (double)bytes[0][0]);
    assert_true((double)bytes[1][0] < 0.8 * (double)bytes[0][0]);
    assert_true(bytes[1][0] == bytes[2][0]);
    adapter_bank_free(bank);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_checkpointing_changes_a_bit_of_tinylora),
        cmocka_unit_test(no_checkpointing_changes_a_bit_of_lora),
        cmocka_unit_test(no_checkpointing_changes_a_bit_of_full_training),
        cmocka_unit_test(gradients_in_16_bits_are_near_those_of_float64),
        cmocka_unit_test(a_gradient_beyond_f16_is_not_finite_and_does_not_touch_its_neighbours),
        cmocka_unit_test(memory_falls_with_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
