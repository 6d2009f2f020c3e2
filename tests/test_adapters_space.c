/* Every point of the plan space trains: gradients against central differences of the
 * double-precision reference for each sigma, law of P, sharing and tie rule; start values, types of
 * v, and tie groups that cannot be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapters/adapter.h"
#include "core/engine.h"
#include "tests/reference_adapter.h"
#include "tests/tiny_model.h"

enum { T = 7, ALL_TARGETS = (1 << N_ROLES) - 1, N_MODULES = 2 * N_ROLES };

static Error error;
static Model *model;
static Engine *engine;
static Reference *reference;
static const int32_t TOKENS[T] = {1, 30, 2, 7, 19, 33, 4};

static int open_model(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN2, true);
    model = tiny_model_open(&config, 23);
    reference = reference_open(model);
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    reference_free(reference);
    engine_free(engine);
    model_free(model);
    return 0;
}

/* The loss is the mean negative log-likelihood with odd weights. */
static double weight_of(int t)
{
    return 0.31 + 0.17 * ((t * 3) % 5);
}

static TokenWeight weigh(void *context, int sequence, int t, double logprob, double entropy)
{
    (void)context;
    (void)sequence;
    (void)logprob;
    (void)entropy;
    return (TokenWeight){.dlogprob = -weight_of(t)};
}

static void run_backward(AdapterBank *bank)
{
    double logprobs[T];
    const uint8_t scored[T] = {0, 1, 1, 1, 1, 1, 1};
    Sequence sequence = {.tokens = TOKENS,
                         .n_tokens = T,
                         .parent = -1,
                         .adapter = 1,
                         .scored = scored,
                         .logprobs = logprobs};
    Batch batch = {
        .sequences = &sequence, .n_sequences = 1, .hook = adapter_hook(bank), .weigh = weigh};
    adapter_clear_gradients(bank);
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
}

static double reference_loss(const ReferenceAdapter *adapter, const double *v)
{
    double logprobs[T], loss = 0;
    reference_adapt(reference, adapter, v);
    reference_score(reference, TOKENS, T, 1, logprobs, NULL);
    for (int t = 1; t < T; t++) {
        loss -= weight_of(t) * logprobs[t];
    }
    return loss;
}

/* The relative error of the gradient at a v that is not small. */
static double gradient_error(const AdapterSpec *spec)
{
    AdapterBank *bank;
    tiny_require(adapter_bank_new(&bank, model, spec, 1, 2, NULL, NULL, NULL, &error), &error);
    ReferenceAdapter adapter = reference_adapter(model, adapter_spec(bank));
    size_t n = adapter_parameters(bank);
    float *v = malloc(n * sizeof *v);
    double *moved = malloc(n * sizeof *moved), *gradient = malloc(n * sizeof *gradient);
    for (size_t i = 0; i < n; i++) {
        v[i] = (float)(0.25 * random_normal((RandomKey){8, RANDOM_DATA}, (uint32_t)i, 0, 0, 0));
        moved[i] = (double)v[i];
    }
    adapter_set(bank, 1, v, 1);
    run_backward(bank);
    adapter_gradient(bank, 1, gradient);
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        moved[i] = (double)v[i] + 1e-4;
        double above = reference_loss(&adapter, moved);
        moved[i] = (double)v[i] - 1e-4;
        double numerical = (above - reference_loss(&adapter, moved)) / 2e-4;
        moved[i] = (double)v[i];
        difference += (gradient[i] - numerical) * (gradient[i] - numerical);
        size += numerical * numerical;
    }
    assert_true(size > 1e-6);
    free(v);
    free(moved);
    free(gradient);
    reference_adapter_release(&adapter);
    adapter_bank_free(bank);
    return sqrt(difference / size);
}

static void gradients_match_for_every_sigma_law_sharing_and_tie(void **state)
{
    (void)state;
    int map[N_MODULES] = {2, 0, 1, 1, 0, 2, 0, 0, 1, 1, 1, 2, 0, 0};
    const int groups[N_TIE_RULES] = {2, 7, 1, N_MODULES, 2, 3};
    const int us[N_TIE_RULES] = {3, 1, 6, 1, 5, 2};
    double worst = 0;
    for (int sigma = 0; sigma < 2; sigma++) {
        for (int law = 0; law < 4; law++) {
            for (int shared = 0; shared < 2; shared++) {
                for (int tie = 0; tie < N_TIE_RULES; tie++) {
                    AdapterSpec spec = {
                        .method = "tinylora",
                        .plan = {.rank = 2 + (tie + law) % 2,
                                 .u = us[tie],
                                 .groups = groups[tie],
                                 .tie = (TieRule)tie,
                                 .order = (ModuleOrder)(law % 2),
                                 .map = tie == TIE_MAP ? map : NULL,
                                 .projection = {(ProjectionLaw)law, shared == 1, 0}},
                        .targets = ALL_TARGETS,
                        .seed = 13,
                        .scale = 0.83f,
                        .sigma = (SigmaSplit)sigma};
                    double off = gradient_error(&spec);
                    worst = off > worst ? off : worst;
                    /* The promise is 1e-4; single precision through two layers gives some 1e-6. */
                    if (off > 1e-4) {
                        fail_msg("sigma %d law %d shared %d tie %d: gradient off by %.2e", sigma,
                                 law, shared, tie, off);
                    }
                }
            }
        }
    }
    print_message("worst relative error of a gradient: %.1e\n", worst);
}

static AdapterSpec plain(void)
{
    return (AdapterSpec){.method = "tinylora",
                         .plan = {.rank = 2, .u = 50, .groups = 14, .tie = TIE_NONE},
                         .targets = ALL_TARGETS,
                         .seed = 13,
                         .scale = 1};
}

/* 700 draws: mean and spread within some 4 standard errors of the law's. */
static void v_starts_as_it_is_told(void **state)
{
    (void)state;
    const struct {
        VectorStart start;
        double size, deviation, most;
    } cases[] = {{START_ZEROS, 0, 0, 0},
                 {START_NORMAL, 1e-3, 1e-3, 6e-3},
                 {START_UNIFORM, 0.02, 0.02 / 1.7320508, 0.02}};
    float v[700], other[700];
    for (int c = 0; c < 3; c++) {
        AdapterBank *bank, *twin;
        AdapterSpec spec = plain();
        spec.start = cases[c].start;
        spec.start_size = cases[c].size;
        tiny_require(adapter_bank_new(&bank, model, &spec, 1, 1, NULL, NULL, NULL, &error), &error);
        spec.seed = 14;
        tiny_require(adapter_bank_new(&twin, model, &spec, 1, 1, NULL, NULL, NULL, &error), &error);
        adapter_initial(bank, v);
        adapter_initial(twin, other);
        double sum = 0, square = 0;
        for (int i = 0; i < 700; i++) {
            sum += (double)v[i];
            square += (double)v[i] * (double)v[i];
            assert_true(fabs((double)v[i]) <= cases[c].most * 1.0000001);
        }
        assert_true(fabs(sum / 700) <= 4 * cases[c].deviation / sqrt(700));
        assert_true(fabs(sqrt(square / 700) - cases[c].deviation) <= 0.1 * cases[c].deviation);
        assert_int_equal(memcmp(v, other, sizeof v) != 0, cases[c].start != START_ZEROS);
        adapter_bank_free(bank);
        adapter_bank_free(twin);
    }
    AdapterBank *bank;
    AdapterSpec spec = plain();
    spec.start_size = INFINITY;
    assert_int_equal(adapter_bank_new(&bank, model, &spec, 1, 1, NULL, NULL, NULL, &error),
                     STATUS_USAGE);
    assert_string_equal(
        error.message, "adapter \"tinylora\": the size of the start values is not a finite number");
}

static void gradient_at(double *gradient, TensorType dtype, const float *v)
{
    AdapterBank *bank;
    AdapterSpec spec = plain();
    spec.plan.u = 1;
    spec.plan.dtype = dtype;
    tiny_require(adapter_bank_new(&bank, model, &spec, 1, 1, NULL, NULL, NULL, &error), &error);
    assert_int_equal(adapter_spec(bank)->plan.bytes, dtype == TENSOR_F32 ? 56 : 28);
    adapter_set(bank, 1, v, 1);
    run_backward(bank);
    adapter_gradient(bank, 1, gradient);
    adapter_bank_free(bank);
}

/* The model under a bf16 v is, bit for bit, the model under an f32 v of rounded values. */
static void a_half_v_is_the_rounded_v(void **state)
{
    (void)state;
    const TensorType types[] = {TENSOR_BF16, TENSOR_F16};
    float v[14], rounded[14];
    double gradient[14], expected[14], whole[14];
    uint16_t bits[14];
    for (int i = 0; i < 14; i++) {
        v[i] = 0.1f + 0.0137f * (float)i;
    }
    gradient_at(whole, TENSOR_F32, v);
    for (int type = 0; type < 2; type++) {
        tensor_from_f32(bits, v, types[type], 14);
        tensor_to_f32(rounded, bits, types[type], 14);
        gradient_at(gradient, types[type], v);
        gradient_at(expected, TENSOR_F32, rounded);
        assert_memory_equal(gradient, expected, sizeof gradient);
        assert_memory_not_equal(gradient, whole, sizeof gradient);
    }
}

/* A bank keeps a map of its own. */
static void a_map_may_go_when_the_bank_is_there(void **state)
{
    (void)state;
    AdapterBank *bank;
    AdapterSpec spec = plain();
    int *map = calloc(N_MODULES, sizeof *map);
    map[0] = 1;
    spec.plan = (Plan){.rank = 2, .u = 1, .groups = 2, .tie = TIE_MAP, .map = map};
    tiny_require(adapter_bank_new(&bank, model, &spec, 2, 1, NULL, NULL, NULL, &error), &error);
    free(map);
    assert_int_equal(adapter_spec(bank)->plan.map[0], 1);
    const float one[2] = {0.5f, 0}, other[2] = {0.5f, 0.3f}; /* scalar 1 is q of layer 0 alone */
    adapter_set(bank, 1, one, 1);
    adapter_set(bank, 2, other, 1);
    assert_int_equal(adapter_shared_layers(bank, 1, 2), 0);
    adapter_bank_free(bank);
}

static void a_group_over_weights_of_two_types_is_refused(void **state)
{
    (void)state;
    AdapterBank *bank = NULL;
    AdapterSpec spec = plain();
    spec.plan = (Plan){.rank = 2, .u = 1, .groups = 1, .tie = TIE_ALL};
    Matrix *down = &model->layers[1].weight[ROLE_DOWN];
    TensorType type = down->type;
    down->type = TENSOR_BF16; /* as the file would have it: the rest is f32 */
    assert_int_equal(adapter_bank_new(&bank, model, &spec, 1, 1, NULL, NULL, NULL, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message,
                        "adapter \"tinylora\": tie group 0 has weights of different types: "
                        "\"model.layers.0.self_attn.q_proj\" is F32, "
                        "\"model.layers.1.mlp.down_proj\" is BF16; tie them apart (adapter.tie "
                        "structured or map), leave one of them out of adapter.targets, or convert "
                        "the model to one type");
    for (int l = 0; l < 2; l++) { /* types that a quantised file mixes */
        for (Role role = 0; role < N_ROLES; role++) {
            model->layers[l].weight[role].type = role % 2 ? TENSOR_Q4_K : TENSOR_Q6_K;
        }
    }
    tiny_require(adapter_bank_new(&bank, model, &spec, 1, 1, NULL, NULL, NULL, &error), &error);
    adapter_bank_free(bank);
    for (int l = 0; l < 2; l++) {
        for (Role role = 0; role < N_ROLES; role++) {
            model->layers[l].weight[role].type = type;
        }
    }
    spec.plan = (Plan){.rank = 2, .u = 1, .groups = 2, .tie = TIE_BY_ROLE};
    tiny_require(adapter_bank_new(&bank, model, &spec, 1, 1, NULL, NULL, NULL, &error), &error);
    adapter_bank_free(bank);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_match_for_every_sigma_law_sharing_and_tie),
        cmocka_unit_test(v_starts_as_it_is_told),
        cmocka_unit_test(a_half_v_is_the_rounded_v),
        cmocka_unit_test(a_map_may_go_when_the_bank_is_there),
        cmocka_unit_test(a_group_over_weights_of_two_types_is_refused),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
