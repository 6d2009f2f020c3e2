/* LoRA and LoRA-XS in the engine: gradients against central differences of a double-precision
 * reference, the law on bits, dropout, start values, what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapters/dropout.h"
#include "tests/engine_batch.h"
#include "tests/reference_adapter.h"
#include "tests/reference_lora.h"

enum { ALL_TARGETS = (1 << N_ROLES) - 1, Q_AND_V = 1 << ROLE_Q | 1 << ROLE_V, N_PROBES = 24 };

static Error error;

static AdapterSpec lora_of(int rank, float scale, unsigned targets, double dropout)
{
    return (AdapterSpec){.method = "lora",
                         .plan = {.rank = rank},
                         .targets = targets,
                         .seed = 13,
                         .scale = scale,
                         .dropout = dropout};
}

static AdapterSpec xs_of(int rank, float scale, unsigned targets, SigmaSplit sigma)
{
    return (AdapterSpec){.method = "lora-xs",
                         .plan = {.rank = rank},
                         .targets = targets,
                         .seed = 13,
                         .scale = scale,
                         .sigma = sigma};
}

static AdapterBank *open_bank(Model *model, AdapterSpec spec, int n_adapters)
{
    AdapterBank *bank;
    tiny_require(adapter_bank_new(&bank, model, &spec, n_adapters, 2, NULL, NULL, NULL, &error),
                 &error);
    return bank;
}

/* Values of adapter a, large enough that the update matters: A and B alike. */
static void choose_v(float *v, size_t n, int adapter)
{
    for (size_t i = 0; i < n; i++) {
        v[i] = (float)(0.2 * random_normal((RandomKey){8, RANDOM_DATA}, (uint32_t)adapter,
                                           (uint32_t)i, 0, 0));
    }
}

static void give_keys(Data *d)
{
    for (int s = 0; s < N_SEQUENCES; s++) {
        d->sequences[s].key = random_seed_for(77, (char[]){(char)('a' + s), 0});
    }
}

typedef struct {
    Reference *reference;
    ReferenceAdapter adapter; /* lora-xs */
    ReferenceLora lora;
    bool xs;
} Judge;

static void judge_set(Judge *judge, const double *v)
{
    if (judge->xs) {
        reference_adapt(judge->reference, &judge->adapter, v);
    } else {
        judge->lora.v = v;
    }
}

/* Numbers of the forward, and the gradient along N_PROBES axes spread over all modules and along
 * two random directions: relative error below the 1e-4. */
static void check_gradient(ModelConfig config, AdapterSpec spec)
{
    Model *model = tiny_model_open(&config, 17);
    AdapterBank *bank = open_bank(model, spec, N_ADAPTERS);
    Engine *engine;
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    Judge judge = {.reference = reference_open(model), .xs = strcmp(spec.method, "lora-xs") == 0};
    judge.lora.spec = spec;
    if (judge.xs) {
        judge.adapter = reference_adapter(model, &spec);
    } else {
        judge.reference->add = reference_lora_add;
        judge.reference->context = &judge.lora;
    }
    size_t n = adapter_parameters(bank);
    assert_int_equal(n, adapter_spec_parameters(&spec, &config));
    float *v = malloc(n * sizeof *v);
    double *at = malloc(n * sizeof *at), *step = malloc(n * sizeof *step);
    double *gradient = malloc(n * sizeof *gradient);
    Data d;
    data_init(&d, config.vocab_size);
    if (spec.dropout > 0) {
        give_keys(&d);
    }
    for (int a = 1; a <= N_ADAPTERS; a++) {
        choose_v(v, n, a);
        adapter_set(bank, a, v, 1);
    }
    evaluate(engine, bank, &d, true);
    double worst = 0;
    judge_set(&judge, NULL);
    reference_objective(judge.reference, &d, 0, true, &worst);
    for (int a = 1; a <= N_ADAPTERS; a++) {
        choose_v(v, n, a);
        for (size_t i = 0; i < n; i++) {
            at[i] = (double)v[i];
        }
        judge_set(&judge, at);
        reference_objective(judge.reference, &d, a, true, &worst);
        adapter_gradient(bank, a, gradient);
        double wrong = 0, size = 0;
        for (int probe = 0; probe < N_PROBES + 2; probe++) {
            size_t axis = n * (size_t)probe / N_PROBES + (size_t)probe % 7;
            double product = 0, value[2], length = 0;
            for (size_t i = 0; i < n; i++) {
                double random =
                    random_normal((RandomKey){9, RANDOM_DATA}, (uint32_t)i, (uint32_t)probe, 0, 0);
                step[i] = probe < N_PROBES ? i == axis % n : random / sqrt((double)n);
                product += step[i] * gradient[i];
                length += step[i] * step[i];
            }
            const double h = 1e-5 / sqrt(length); /* error h^2 ~ 1e-10 and 1e-16 / h ~ 1e-11 */
            for (int sign = 0; sign < 2; sign++) {
                for (size_t i = 0; i < n; i++) {
                    at[i] = (double)v[i] + (sign ? -h : h) * step[i];
                }
                judge_set(&judge, at);
                value[sign] = reference_objective(judge.reference, &d, a, true, NULL);
            }
            double difference = (value[0] - value[1]) / (2 * h);
            wrong += pow(product - difference, 2);
            size += difference * difference;
        }
        if (!(size > 0 && sqrt(wrong / size) < 1e-4)) {
            fail_msg("%s, rank %d, adapter %d: relative error %g of the gradient", spec.method,
                     spec.plan.rank, a, sqrt(wrong / size));
        }
        print_message("%s rank %d dropout %g adapter %d: %zu parameters, relative error %.2g\n",
                      spec.method, spec.plan.rank, spec.dropout, a, n, sqrt(wrong / size));
    }
    if (!(worst < 1e-4)) { /* f32 against double; updates as large as the weights themselves */
        fail_msg("%s: log-probabilities or entropies are off by %g", spec.method, worst);
    }
    reference_free(judge.reference);
    if (judge.xs) {
        reference_adapter_release(&judge.adapter);
    }
    engine_free(engine);
    adapter_bank_free(bank);
    model_free(model);
    free(v);
    free(at);
    free(step);
    free(gradient);
}

static void gradients_of_lora_match_central_differences(void **state)
{
    (void)state;
    check_gradient(tiny_config(ARCHITECTURE_LLAMA, true), lora_of(2, 2, ALL_TARGETS, 0));
    check_gradient(tiny_config(ARCHITECTURE_QWEN2, false),
                   lora_of(9, (float)(16 / sqrt(9)), ALL_TARGETS, 0)); /* rsLoRA's scale */
    check_gradient(tiny_config(ARCHITECTURE_QWEN2, true), lora_of(1, 0.7f, Q_AND_V, 0));
    check_gradient(tiny_config(ARCHITECTURE_LLAMA, false), lora_of(40, 0.3f, 1 << ROLE_DOWN, 0));
}

static void gradients_under_dropout_match_central_differences(void **state)
{
    (void)state;
    check_gradient(tiny_config(ARCHITECTURE_LLAMA, true), lora_of(3, 2, ALL_TARGETS, 0.3));
    check_gradient(tiny_config(ARCHITECTURE_QWEN2, false), lora_of(8, 2, Q_AND_V, 0.05));
}

static void gradients_of_lora_xs_match_central_differences(void **state)
{
    (void)state;
    check_gradient(tiny_config(ARCHITECTURE_LLAMA, true), xs_of(2, 1, ALL_TARGETS, SIGMA_LEFT));
    check_gradient(tiny_config(ARCHITECTURE_LLAMA, false), xs_of(8, 2, Q_AND_V, SIGMA_SQRT));
    check_gradient(tiny_config(ARCHITECTURE_QWEN2, false), xs_of(7, 1, ALL_TARGETS, SIGMA_SQRT));
    ModelConfig wide = tiny_config(ARCHITECTURE_QWEN2, true);
    wide.n_heads = 3;
    wide.n_kv_heads = 3;
    check_gradient(wide, xs_of(24, 0.5f, ALL_TARGETS, SIGMA_LEFT)); /* summed in the backward */
}

/* -- the law ------------------------------------------------------------------------------------
 */

enum { LONG = 300, N_LONG = 5 };

/* Long sequences of two adapters and the base, so that threads divide rows and columns. */
typedef struct {
    int32_t tokens[N_LONG][LONG];
    uint8_t scored[N_LONG][LONG];
    double logprobs[N_LONG][LONG];
    Sequence sequences[N_LONG];
} LongData;

static void long_init(LongData *d, int vocab_size, bool keys)
{
    const int n[N_LONG] = {LONG, 3, 257, 64, 129}, adapter[N_LONG] = {1, 2, 2, 0, 1};
    for (int s = 0; s < N_LONG; s++) {
        for (int t = 0; t < n[s]; t++) {
            d->tokens[s][t] = (int32_t)(random_uniform((RandomKey){4, RANDOM_DATA}, (uint32_t)s,
                                                       (uint32_t)t, 0, 0) *
                                        vocab_size);
            d->scored[s][t] = t > 0;
        }
        d->sequences[s] = (Sequence){.tokens = d->tokens[s],
                                     .n_tokens = n[s],
                                     .parent = -1,
                                     .adapter = adapter[s],
                                     .scored = d->scored[s],
                                     .logprobs = d->logprobs[s],
                                     .key = keys ? 1000 + (uint64_t)s : 0};
    }
}

/* Gradient of one adapter of a bank of n_adapters from the sequences [first, last) under it, under
 * its number in the bank. */
static void gradient_of(double *gradient, Model *model, AdapterSpec spec, int n_adapters,
                        int wanted, bool alone, int n_threads, int max_tokens, bool keys)
{
    AdapterBank *bank = open_bank(model, spec, n_adapters);
    Engine *engine;
    LongData *d = calloc(1, sizeof *d);
    size_t n = adapter_parameters(bank);
    float *v = malloc(n * sizeof *v);
    tiny_require(engine_new(&engine, model, n_threads, max_tokens, &error), &error);
    long_init(d, model->config.vocab_size, keys);
    for (int a = 1; a <= n_adapters; a++) {
        choose_v(v, n, n_adapters == 1 ? wanted : a);
        adapter_set(bank, a, v, n_threads);
    }
    int n_kept = 0;
    for (int s = 0; s < N_LONG; s++) {
        Sequence sequence = d->sequences[s];
        if (!alone || sequence.adapter == wanted) {
            sequence.adapter = n_adapters == 1 ? 1 : sequence.adapter;
            d->sequences[n_kept++] = sequence;
        }
    }
    Batch batch = {.sequences = d->sequences,
                   .n_sequences = n_kept,
                   .hook = adapter_hook(bank),
                   .weigh = weigh_sft};
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
    adapter_gradient(bank, n_adapters == 1 ? 1 : wanted, gradient);
    engine_free(engine);
    adapter_bank_free(bank);
    free(v);
    free(d);
}

static void check_law(AdapterSpec spec, bool keys)
{
    ModelConfig config = tiny_config(ARCHITECTURE_QWEN2, true);
    config.ff_width = 141;
    Model *model = tiny_model_open(&config, 5);
    size_t n = (size_t)adapter_spec_parameters(&spec, &config);
    double *expected = malloc(n * sizeof *expected), *got = malloc(n * sizeof *got);
    for (int wanted = 1; wanted <= 2; wanted++) {
        gradient_of(expected, model, spec, 1, wanted, true, 1, 0, keys);
        double size = 0;
        for (size_t i = 0; i < n; i++) {
            size += expected[i] * expected[i];
        }
        assert_true(size > 0 && isfinite(size));
        const struct {
            bool alone;
            int n_threads, max_tokens;
        } ways[] = {{true, 3, 0}, {false, 1, 0}, {false, 2, 0}, {false, 3, 300}, {true, 2, 1}};
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            gradient_of(got, model, spec, 2, wanted, ways[w].alone, ways[w].n_threads,
                        ways[w].max_tokens, keys);
            assert_memory_equal(got, expected, n * sizeof *got);
        }
    }
    free(expected);
    free(got);
    model_free(model);
}

static void gradients_have_the_same_bits_beside_any_neighbours_on_any_threads(void **state)
{
    (void)state;
    check_law(lora_of(5, 2, ALL_TARGETS, 0), false);
    check_law(lora_of(16, 2, Q_AND_V, 0.1), true);
    check_law(xs_of(3, 1, ALL_TARGETS, SIGMA_LEFT), false);
    check_law(xs_of(18, 1, 1 << ROLE_Q | 1 << ROLE_DOWN, SIGMA_SQRT), false);
}

/* Rank 16 keeps the sums of every sequence, rank 17 adds them up in the backward: the definition is
 * one. A core whose last row and column stay 0 has the smaller one's gradient. */
static void both_ways_of_summing_a_core_agree(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    Model *model = tiny_model_open(&config, 5);
    double *gradient[2];
    for (int big = 0; big < 2; big++) {
        AdapterSpec spec = xs_of(16 + big, 1, 1 << ROLE_Q, SIGMA_LEFT);
        size_t n = (size_t)adapter_spec_parameters(&spec, &config);
        gradient[big] = malloc(n * sizeof **gradient);
        AdapterBank *bank = open_bank(model, spec, 1);
        float *v = calloc(n, sizeof *v);
        LongData *d = calloc(1, sizeof *d);
        Engine *engine;
        assert_true(adapter_hook(bank)->ordered == (big == 1));
        adapter_set(bank, 1, v, 1);
        long_init(d, config.vocab_size, false);
        tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
        d->sequences[2].adapter = d->sequences[1].adapter = 1;
        Batch batch = {.sequences = d->sequences,
                       .n_sequences = N_LONG,
                       .hook = adapter_hook(bank),
                       .weigh = weigh_sft};
        tiny_require(engine_evaluate(engine, &batch, &error), &error);
        adapter_gradient(bank, 1, gradient[big]);
        engine_free(engine);
        adapter_bank_free(bank);
        free(v);
        free(d);
    }
    double size = 0, wrong = 0;
    for (int l = 0; l < 2; l++) {
        for (int j = 0; j < 16; j++) {
            for (int k = 0; k < 16; k++) {
                double small = gradient[0][(l * 16 + j) * 16 + k];
                size = fmax(size, fabs(small));
                wrong = fmax(wrong, fabs(small - gradient[1][(l * 17 + j) * 17 + k]));
            }
        }
    }
    /* The factors of the two ranks are found apart, to about 1e-5 where singular values are near
     * each other. */
    assert_true(size > 0 && wrong < 1e-3 * size);
    free(gradient[0]);
    free(gradient[1]);
    model_free(model);
}

/* -- start values, sharing, refusals -------------------------------------------------------------
 */

static void lora_starts_as_peft_does_and_adds_nothing(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    Model *model = tiny_model_open(&config, 5);
    AdapterSpec spec = lora_of(4, 2, Q_AND_V, 0.5);
    AdapterBank *bank = open_bank(model, spec, 2);
    size_t n = adapter_parameters(bank);
    assert_int_equal(n, 2 * 4 * ((24 + 24) + (24 + 8)));
    float *v = malloc(n * sizeof *v);
    adapter_initial(bank, v);
    double bound = 1 / sqrt(24), largest = 0, square = 0;
    for (int i = 0; i < 4 * 24; i++) {
        RandomKey key = {random_seed_for(13, "model.layers.0.self_attn.q_proj"), RANDOM_INIT};
        double u = random_uniform(key, (uint32_t)(i / 24), (uint32_t)(i % 24), 0, 0);
        assert_true(v[i] == (float)((2 * u - 1) * bound));
        largest = fmax(largest, fabs((double)v[i]));
        square += (double)v[i] * (double)v[i] / (4 * 24);
    }
    assert_true(largest <= bound && largest > 0.9 * bound);
    assert_true(fabs(square / (bound * bound / 3) - 1) < 0.3); /* a uniform's variance; 96 draws */
    for (int i = 0; i < 24 * 4; i++) {
        assert_true(v[4 * 24 + i] == 0);
    }
    adapter_set(bank, 1, v, 1);
    assert_int_equal(adapter_shared_layers(bank, 0, 1), 2);
    Engine *engine;
    Data d;
    double base[MAX_T];
    data_init(&d, config.vocab_size);
    tiny_require(engine_new(&engine, model, 2, 0, &error), &error);
    for (int adapter = 0; adapter < 2; adapter++) {
        d.sequences[0].adapter = adapter;
        Batch batch = {.sequences = d.sequences, .n_sequences = 1, .hook = adapter_hook(bank)};
        tiny_require(engine_evaluate(engine, &batch, &error), &error);
        if (adapter == 0) {
            memcpy(base, d.logprobs[0], sizeof base);
        }
    }
    assert_memory_equal(base, d.logprobs[0], sizeof base);
    engine_free(engine);
    adapter_bank_free(bank);
    model_free(model);
    free(v);
}

static void adapters_share_the_layers_below_the_first_that_differs(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    Model *model = tiny_model_open(&config, 5);
    const AdapterSpec specs[] = {lora_of(2, 1, 1 << ROLE_V | 1 << ROLE_UP, 0),
                                 xs_of(2, 1, 1 << ROLE_V | 1 << ROLE_UP, SIGMA_LEFT)};
    for (int i = 0; i < 2; i++) {
        AdapterBank *bank = open_bank(model, specs[i], 2);
        size_t n = adapter_parameters(bank);
        float *v = malloc(n * sizeof *v);
        choose_v(v, n, 1);
        adapter_set(bank, 1, v, 1);
        adapter_set(bank, 2, v, 1);
        assert_int_equal(adapter_shared_layers(bank, 1, 2), 2);
        assert_int_equal(adapter_shared_layers(bank, 0, 2), 0);
        v[n - 1] += 0.5f; /* the last layer's */
        adapter_set(bank, 2, v, 1);
        assert_int_equal(adapter_shared_layers(bank, 1, 2), 1);
        v[0] += 0.5f;
        adapter_set(bank, 2, v, 1);
        assert_int_equal(adapter_shared_layers(bank, 2, 1), 0);
        free(v);
        adapter_bank_free(bank);
    }
    model_free(model);
}

/* A mask is a function of what the token is: the same wherever it stands, none without a key, with
 * about the right number of zeros. */
static void dropout_is_a_function_of_the_token(void **state)
{
    (void)state;
    enum { ROWS = 40, WIDTH = 77 };
    static float x[ROWS * WIDTH], all[ROWS * WIDTH], part[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) {
        x[i] = 1 + (float)i / 7;
    }
    Dropout dropout = dropout_of(0.3);
    dropout_columns(all, x, WIDTH, &dropout, 5, 3, 0, ROWS, 0, WIDTH);
    dropout_columns(part, x + 9 * WIDTH + 16, WIDTH, &dropout, 5, 3, 9, 20, 16, WIDTH - 16);
    int zeros = 0, same = 0;
    for (int i = 0; i < ROWS * WIDTH; i++) {
        bool dropped = reference_drops(5, 0.3, i / WIDTH, 3, i % WIDTH);
        assert_true(all[i] == (dropped ? 0 : x[i] * (float)(1 / 0.7)));
        zeros += dropped;
    }
    for (int t = 0; t < 20; t++) {
        assert_memory_equal(part + t * (WIDTH - 16), all + (t + 9) * WIDTH + 16,
                            (WIDTH - 16) * sizeof(float));
    }
    /* 3080 draws: the deviation is 0.0083 */
    assert_true(fabs(zeros / (double)(ROWS * WIDTH) - 0.3) < 0.03);
    const struct {
        uint64_t key;
        int module, position;
    } others[] = {{6, 3, 0}, {5, 4, 0}, {5, 3, 1}};
    for (int o = 0; o < 3; o++) {
        dropout_columns(part, x, WIDTH, &dropout, others[o].key, others[o].module,
                        others[o].position, ROWS, 0, WIDTH);
        same = 0;
        for (int i = 0; i < ROWS * WIDTH; i++) {
            same += (part[i] == 0) == (all[i] == 0);
        }
        assert_true(fabs(same / (double)(ROWS * WIDTH) - 0.58) < 0.04); /* 0.7^2 + 0.3^2 */
    }
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    Model *model = tiny_model_open(&config, 5);
    const struct {
        AdapterSpec spec;
        const char *message;
    } cases[] = {
        {lora_of(0, 1, Q_AND_V, 0), "adapter \"lora\": rank: 0 is not in 1 to 256"},
        {lora_of(257, 1, Q_AND_V, 0), "adapter \"lora\": rank: 257 is not in 1 to 256"},
        {lora_of(2, 1, 0, 0), "adapter \"lora\": no linear layer is adapted: name some as targets"},
        {lora_of(2, 1, Q_AND_V, 1), "adapter \"lora\": dropout: 1 is not in 0 (in) to 1 (out)"},
        {lora_of(2, 1, Q_AND_V, -0.1),
         "adapter \"lora\": dropout: -0.1 is not in 0 (in) to 1 (out)"},
        {lora_of(2, INFINITY, Q_AND_V, 0), "adapter \"lora\": scale is not a finite number"},
        {xs_of(9, 1, Q_AND_V, SIGMA_LEFT), "model.layers.0.self_attn.v_proj"},
        {xs_of(0, 1, Q_AND_V, SIGMA_LEFT), "adapter \"lora-xs\": rank: 0 is not in 1 to 256"},
        {xs_of(2, 1, 0, SIGMA_LEFT),
         "adapter \"lora-xs\": no linear layer is adapted: name some as targets"},
        {xs_of(2, NAN, Q_AND_V, SIGMA_LEFT), "adapter \"lora-xs\": scale is not a finite number"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        AdapterBank *bank = NULL;
        assert_int_equal(
            adapter_bank_new(&bank, model, &cases[i].spec, 1, 1, NULL, NULL, NULL, &error),
            STATUS_USAGE);
        if (!strstr(error.message, cases[i].message)) {
            fail_msg("\"%s\", expected \"%s\"", error.message, cases[i].message);
        }
    }
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_lora_match_central_differences),
        cmocka_unit_test(gradients_under_dropout_match_central_differences),
        cmocka_unit_test(gradients_of_lora_xs_match_central_differences),
        cmocka_unit_test(gradients_have_the_same_bits_beside_any_neighbours_on_any_threads),
        cmocka_unit_test(both_ways_of_summing_a_core_agree),
        cmocka_unit_test(lora_starts_as_peft_does_and_adds_nothing),
        cmocka_unit_test(adapters_share_the_layers_below_the_first_that_differs),
        cmocka_unit_test(dropout_is_a_function_of_the_token),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
