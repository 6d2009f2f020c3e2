/* The same texts under many adapters: what twins share has the bits of computing it alone, and the
 * divergence from a reference is that of a double-precision model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapters/adapter.h"
#include "core/kernels.h"
#include "tests/reference_adapter.h"
#include "tests/tiny_model.h"

enum {
    N_ADAPTERS = 8,
    N_TEXTS = 5,
    LONGEST = 40,
    MOST = 3 * N_TEXTS * (N_ADAPTERS + 1),
    LAYERS = 4
};

static Error error;

static double uniform(uint64_t seed, uint32_t a, uint32_t b, uint32_t c)
{
    return random_uniform((RandomKey){seed, RANDOM_DATA}, a, b, c, 0);
}

/* One scalar a layer, so that adapters agree up to any layer; adapter 8 adds nothing. */
static AdapterBank *open_bank(Model *model)
{
    static const float v[N_ADAPTERS][LAYERS] = {
        {0.2f, -0.3f, 0.1f, 0.25f}, {0.2f, -0.3f, 0.1f, -0.2f},
        {0.2f, -0.3f, 0.3f, 0.25f}, {0.2f, 0.15f, 0.3f, 0},
        {0.2f, 0.15f, 0.1f, 0.25f}, {0, 0, 0, 0.4f},
        {0.2f, -0.3f, 0.1f, 0.25f}, {0, 0, 0, 0}};
    AdapterSpec spec = {
        .method = "tinylora",
        .plan = {.rank = 2, .u = 1, .groups = LAYERS, .tie = TIE_TILED, .grouping = GROUPING_BALANCED},
        .targets = (1 << N_ROLES) - 1,
        .seed = 13,
        .scale = 1};
    AdapterBank *bank;
    tiny_require(adapter_bank_new(&bank, model, &spec, N_ADAPTERS, 1, NULL, NULL, NULL, &error),
                 &error);
    for (int a = 1; a <= N_ADAPTERS; a++) {
        adapter_set(bank, a, v[a - 1], 1);
    }
    return bank;
}

/* ---- batches ---- */

typedef struct {
    int n;
    Sequence sequences[MOST];
    int text[MOST], member[MOST]; /* of the tree: 0 the root, then its children */
    double logprobs[MOST][LONGEST], entropies[MOST][LONGEST], kl[MOST][LONGEST];
} Data;

static int32_t ids[N_TEXTS][3][LONGEST];
static uint8_t scored[N_TEXTS][3][LONGEST];

static int members(int text)
{
    return text % 2 ? 3 : 1; /* every other text is a prompt with two completions */
}

static int length(int text, int member)
{
    return member ? 3 + 4 * member + text : 5 + (text * 17) % 31;
}

static void fill_texts(const Model *model)
{
    for (int t = 0; t < N_TEXTS; t++) {
        for (int m = 0; m < 3; m++) {
            for (int i = 0; i < LONGEST; i++) {
                double u = uniform(4, (uint32_t)t, (uint32_t)m, (uint32_t)i);
                ids[t][m][i] = (int32_t)(u * model->config.vocab_size);
                scored[t][m][i] = (t * 5 + m + i) % 3 != 0;
            }
        }
    }
}

/* The tree of one text under one adapter. */
static void add(Data *d, int text, int adapter)
{
    int root = d->n;
    for (int m = 0; m < members(text); m++) {
        int i = d->n++;
        d->text[i] = text;
        d->member[i] = m;
        d->sequences[i] = (Sequence){.tokens = ids[text][m],
                                     .n_tokens = length(text, m),
                                     .parent = m > 0 ? root : -1,
                                     .adapter = adapter,
                                     .temperature = 0.7f,
                                     .scored = scored[text][m],
                                     .logprobs = d->logprobs[i],
                                     .entropies = d->entropies[i]};
    }
}

/* Every text under the base and every adapter, in an order drawn from seed. */
static void data_init(Data *d, uint64_t seed)
{
    int order[N_TEXTS * (N_ADAPTERS + 1)], n = N_TEXTS * (N_ADAPTERS + 1);
    memset(d, 0, sizeof *d);
    for (int i = 0; i < n; i++) {
        int j = (int)(uniform(seed, 0, (uint32_t)i, 0) * (i + 1));
        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < n; i++) {
        int at = seed % 2 ? order[i] : i; /* even: point after point */
        add(d, at % N_TEXTS, at / N_TEXTS);
    }
}

/* An earlier sequence of the same text and place in its tree, drawn from seed; -1: there is none.
 */
static int earlier(const Data *d, int i, uint64_t seed, uint32_t purpose)
{
    int found = -1, n = 0;
    for (int k = 0; k < i; k++) {
        if (d->text[k] == d->text[i] && d->member[k] == d->member[i] &&
            uniform(seed, purpose, (uint32_t)i, (uint32_t)k) * ++n < 1) {
            found = k;
        }
    }
    return found;
}

/* Each tree gets a twin, or some of its members do, or each of them another one; what is shared is
 * at most what the adapters have in common. */
static void add_twins(Data *d, const AdapterBank *bank, uint64_t seed)
{
    for (int i = 0; i < d->n; i++) {
        Sequence *s = &d->sequences[i];
        int of_root = s->parent >= 0 ? d->sequences[s->parent].twin : -1;
        int other = s->parent >= 0 && d->sequences[s->parent].twin_layers > 0 && seed % 4 != 3
                        ? of_root + d->member[i]
                        : earlier(d, i, seed, 1);
        if (other < 0 || uniform(seed, 2, (uint32_t)i, 0) < 0.1) {
            continue;
        }
        s->twin = other;
        s->twin_layers = adapter_shared_layers(bank, s->adapter, d->sequences[other].adapter);
        if (uniform(seed, 3, (uint32_t)i, 0) < 0.1) {
            s->twin_layers /= 2;
        }
    }
}

/* The first of each text is the reference of all others. */
static void add_references(Data *d)
{
    for (int i = 0; i < d->n; i++) {
        for (int k = 0; k < i; k++) {
            if (d->text[k] == d->text[i] && d->member[k] == d->member[i]) {
                d->sequences[i].reference = k;
                d->sequences[i].kl = d->kl[i];
                break;
            }
        }
    }
}

static void evaluate(const Model *model, const AdapterBank *bank, Data *d, int threads,
                     int max_tokens)
{
    Engine *engine;
    tiny_require(engine_new(&engine, model, threads, max_tokens, &error), &error);
    Batch batch = {.sequences = d->sequences, .n_sequences = d->n, .hook = adapter_hook(bank)};
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
    engine_free(engine);
}

static void check_equal(const Data *a, const Data *b, uint64_t seed, int threads, int max_tokens)
{
    if (memcmp(a->logprobs, b->logprobs, sizeof a->logprobs) != 0 ||
        memcmp(a->entropies, b->entropies, sizeof a->entropies) != 0 ||
        memcmp(a->kl, b->kl, sizeof a->kl) != 0) {
        fail_msg("seed %d, %d threads, %d tokens: other bits", (int)seed, threads, max_tokens);
    }
}

static void check_law(const ModelConfig *config, int n_seeds)
{
    static Data plain, d;
    Model *model = tiny_model_open(config, 7);
    AdapterBank *bank = open_bank(model);
    fill_texts(model);
    for (uint64_t seed = 0; seed < (uint64_t)n_seeds; seed++) {
        data_init(&plain, seed);
        add_references(&plain);
        evaluate(model, bank, &plain, 1, 0);
        const int limits[] = {0, 1, 110, 200};
        for (int threads = 1; threads <= 3; threads++) {
            for (int l = 0; l < 4; l++) {
                data_init(&d, seed);
                add_references(&d);
                add_twins(&d, bank, seed);
                evaluate(model, bank, &d, threads, limits[l]);
                check_equal(&d, &plain, seed, threads, limits[l]);
            }
        }
    }
    adapter_bank_free(bank);
    model_free(model);
}

static ModelConfig config_of(Architecture architecture)
{
    ModelConfig config = tiny_config(architecture, true);
    config.n_layers = LAYERS;
    return config;
}

static void twins_have_the_bits_of_computing_alone_for_any_threads_and_chunks(void **state)
{
    (void)state;
    ModelConfig config = config_of(ARCHITECTURE_QWEN2), qwen3 = config_of(ARCHITECTURE_QWEN3);
    check_law(&config, 12);
    check_law(&qwen3, 6);
}

/* Whole trees on each thread: a slice has its twins in itself. */
static void twins_have_the_same_bits_where_rows_are_sliced(void **state)
{
    (void)state;
    ModelConfig config = config_of(ARCHITECTURE_LLAMA);
    config.width = 96;
    config.n_heads = 6;
    config.n_kv_heads = 2;
    config.head_dim = 16;
    config.ff_width = 250;
    check_law(&config, 8);
}

static void twins_have_the_same_bits_where_columns_are_split(void **state)
{
    (void)state;
    ModelConfig config = config_of(ARCHITECTURE_QWEN2);
    config.width = 384;
    config.n_heads = 6;
    config.n_kv_heads = 2;
    config.head_dim = 64;
    config.ff_width = 1600;
    check_law(&config, 1);
}

/* So many tokens that the logits of a chunk are computed in blocks: references and those who refer
 * to them are parted. */
static void kl_has_the_same_bits_where_the_vocabulary_is_cut_into_blocks(void **state)
{
    (void)state;
    static Data plain, d;
    ModelConfig config = config_of(ARCHITECTURE_LLAMA);
    config.width = 8;
    config.n_heads = 1;
    config.ff_width = 8;
    config.vocab_size = 160000;
    Model *model = tiny_model_open(&config, 7);
    AdapterBank *bank = open_bank(model);
    fill_texts(model);
    data_init(&plain, 1);
    add_references(&plain);
    evaluate(model, bank, &plain, 2, 0);
    data_init(&d, 1);
    add_references(&d);
    add_twins(&d, bank, 1);
    evaluate(model, bank, &d, 2, 60);
    check_equal(&d, &plain, 1, 2, 60);
    adapter_bank_free(bank);
    model_free(model);
}

/* A twin that is not one shows: what is shared is computed once. */
static void a_false_twin_takes_the_layers_of_the_other_adapter(void **state)
{
    (void)state;
    static Data d;
    ModelConfig config = config_of(ARCHITECTURE_LLAMA);
    Model *model = tiny_model_open(&config, 7);
    AdapterBank *bank = open_bank(model);
    fill_texts(model);
    memset(&d, 0, sizeof d);
    add(&d, 0, 1);
    add(&d, 0, 5);
    d.sequences[1].twin_layers = LAYERS;
    evaluate(model, bank, &d, 1, 0);
    assert_memory_equal(d.logprobs[0], d.logprobs[1], sizeof d.logprobs[0]);
    d.sequences[1].twin_layers = 0;
    evaluate(model, bank, &d, 1, 0);
    assert_memory_not_equal(d.logprobs[0], d.logprobs[1], sizeof d.logprobs[0]);
    adapter_bank_free(bank);
    model_free(model);
}

static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    (void)context;
    (void)logprob;
    (void)entropy;
    return (TokenWeight){.dlogprob = -0.31 + 0.01 * sequence - 0.02 * position};
}

static void gradients_ignore_twins(void **state)
{
    (void)state;
    static Data d;
    ModelConfig config = config_of(ARCHITECTURE_LLAMA);
    Model *model = tiny_model_open(&config, 7);
    AdapterBank *bank = open_bank(model);
    Engine *engine;
    tiny_require(engine_new(&engine, model, 2, 100, &error), &error);
    fill_texts(model);
    double gradients[2][N_ADAPTERS][LAYERS];
    for (int twins = 0; twins < 2; twins++) {
        data_init(&d, 2);
        if (twins) {
            add_twins(&d, bank, 2);
        }
        Batch batch = {.sequences = d.sequences,
                       .n_sequences = d.n,
                       .hook = adapter_hook(bank),
                       .weigh = weigh};
        adapter_clear_gradients(bank);
        tiny_require(engine_evaluate(engine, &batch, &error), &error);
        for (int a = 1; a <= N_ADAPTERS; a++) {
            adapter_gradient(bank, a, gradients[twins][a - 1]);
        }
    }
    assert_memory_equal(gradients[0], gradients[1], sizeof gradients[0]);
    engine_free(engine);
    adapter_bank_free(bank);
    model_free(model);
}

/* ---- kl ---- */

static double exact_kl(const double *p_logits, const double *q_logits, int n, double temperature)
{
    double p_sum = 0, q_sum = 0, kl = 0, p_top = -INFINITY, q_top = -INFINITY;
    for (int i = 0; i < n; i++) {
        p_top = fmax(p_top, p_logits[i] / temperature);
        q_top = fmax(q_top, q_logits[i] / temperature);
    }
    for (int i = 0; i < n; i++) {
        p_sum += exp(p_logits[i] / temperature - p_top);
        q_sum += exp(q_logits[i] / temperature - q_top);
    }
    for (int i = 0; i < n; i++) {
        double p = p_logits[i] / temperature - p_top - log(p_sum);
        double q = q_logits[i] / temperature - q_top - log(q_sum);
        kl += exp(p) * (p - q);
    }
    return kl;
}

/* Both ways round, so that p may be anywhere: the base is the reference, and then the adapter. */
static void kl_is_that_of_a_double_precision_model(void **state)
{
    (void)state;
    static Data d;
    enum { TEXT = 1, V = 37 };
    ModelConfig config = config_of(ARCHITECTURE_QWEN2);
    Model *model = tiny_model_open(&config, 7);
    AdapterBank *bank = open_bank(model);
    Reference *r = reference_open(model);
    ReferenceAdapter adapter = reference_adapter(model, adapter_spec(bank));
    fill_texts(model);
    double worst = 0, largest = 0;
    for (int a = 1; a <= 6; a += 5) {
        for (int turned = 0; turned < 2; turned++) {
            memset(&d, 0, sizeof d);
            add(&d, TEXT, turned ? a : 0);
            add(&d, TEXT, turned ? 0 : a);
            add_references(&d);
            evaluate(model, bank, &d, 1, 0);
            static double logits[2][2 * LONGEST * V];
            int n_root = length(TEXT, 0);
            for (int m = 0; m < 3; m++) {
                int32_t tokens[2 * LONGEST];
                int n = length(TEXT, m), before = m > 0 ? n_root : 0;
                memcpy(tokens, ids[TEXT][0], (size_t)before * sizeof *tokens);
                memcpy(tokens + before, ids[TEXT][m], (size_t)n * sizeof *tokens);
                const double v[2][LAYERS] = {{0.2f, -0.3f, 0.1f, 0.25f}, {0, 0, 0, 0.4f}};
                for (int k = 0; k < 2; k++) { /* 0: the reference */
                    reference_adapt(r, &adapter, k == turned ? NULL : v[a > 1]);
                    reference_logits(r, tokens, before + n, logits[k]);
                }
                for (int t = 0; t < n; t++) {
                    if (!scored[TEXT][m][t] || before + t == 0) {
                        continue;
                    }
                    size_t row = (size_t)(before + t - 1) * V;
                    double expected = exact_kl(logits[1] + row, logits[0] + row, V, (double)0.7f);
                    worst = fmax(worst, fabs(d.kl[3 + m][t] - expected) / (1 + expected));
                    largest = fmax(largest, expected);
                }
            }
        }
    }
    print_message("worst difference %.1e of (1 + kl), at most %.2f nats\n", worst, largest);
    assert_true(largest > 0.05);
    /* Logits of order 10 in single precision through 4 layers: good to some 1e-6 of the distance.
     */
    assert_true(worst < 1e-5);
    reference_adapter_release(&adapter);
    reference_free(r);
    adapter_bank_free(bank);
    model_free(model);
}

static void kl_of_equal_adapters_is_zero_and_never_negative(void **state)
{
    (void)state;
    static Data d;
    ModelConfig config = config_of(ARCHITECTURE_QWEN2);
    Model *model = tiny_model_open(&config, 7);
    AdapterBank *bank = open_bank(model);
    fill_texts(model);
    for (int shared = 0; shared < 2; shared++) {
        memset(&d, 0, sizeof d);
        const int adapters[] = {1, 7, 2, 1}; /* 1 and 7 are equal */
        for (int k = 0; k < 4; k++) {
            add(&d, 0, adapters[k]);
        }
        add_references(&d);
        if (shared) {
            d.sequences[1].twin_layers = d.sequences[3].twin_layers = LAYERS;
        }
        evaluate(model, bank, &d, 2, 0);
        for (int t = 1; t < length(0, 0); t++) {
            assert_true(d.kl[1][t] == 0 && d.kl[3][t] == 0);
            assert_true(!scored[0][0][t] || d.kl[2][t] > 0);
        }
    }
    adapter_bank_free(bank);
    model_free(model);
}

/* The sum of the kernel against doubles, near and far distributions, on every family. */
static void the_kl_kernel_matches_doubles_on_every_family(void **state)
{
    (void)state;
    enum { V = 2501 };
    static const char *const names[] = {"portable", "avx2", "avx512"};
    static float p[V], q[V];
    for (int variant = 0; variant < 4; variant++) {
        const double distance[] = {1e-3, 0.3, 5, 60};
        static double p_wide[V], q_wide[V];
        for (int i = 0; i < V; i++) {
            p[i] = (float)(12 * uniform(9, (uint32_t)i, 0, 0));
            q[i] = p[i] + (float)(distance[variant] * (uniform(9, (uint32_t)i, 1, 0) - 0.5));
            p_wide[i] = (double)p[i];
            q_wide[i] = (double)q[i];
        }
        double expected = exact_kl(p_wide, q_wide, V, 1 / (double)1.25f), first = 0;
        for (int k = 0; k < 3; k++) {
            const Kernels *kernels = kernels_find(names[k]);
            if (!kernels) {
                continue;
            }
            float p_top, q_top;
            double p_sum, q_sum;
            kernels->softmax_stats(&p_top, &p_sum, NULL, p, V, 1.25f);
            kernels->softmax_stats(&q_top, &q_sum, NULL, q, V, 1.25f);
            double kl = kernels->softmax_kl(p, p_top, p_sum, q, q_top, q_sum, V, 1.25f);
            if (k == 0) {
                first = kl;
                print_message("%.3e, relative error %.1e\n", expected, kl / expected - 1);
                /* d is good to 1e-6 absolute, so to 1e-3 of the smallest distance here */
                assert_true(fabs(kl - expected) < 1e-6 * expected + 1e-6 * distance[variant]);
            }
            assert_memory_equal(&kl, &first, sizeof kl);
            assert_true(kernels->softmax_kl(p, p_top, p_sum, p, p_top, p_sum, V, 1.25f) == 0);
        }
    }
}

/* ---- rules ---- */

static void refused(const Model *model, const AdapterBank *bank, Data *d, WeighToken weigh_token,
                    const char *message)
{
    Engine *engine;
    tiny_require(engine_new(&engine, model, 1, 0, &error), &error);
    Batch batch = {.sequences = d->sequences,
                   .n_sequences = d->n,
                   .hook = adapter_hook(bank),
                   .weigh = weigh_token};
    assert_int_equal(engine_evaluate(engine, &batch, &error), STATUS_USAGE);
    assert_string_equal(error.message, message);
    engine_free(engine);
}

static void false_relatives_are_refused_by_name(void **state)
{
    (void)state;
    static Data d;
    ModelConfig config = config_of(ARCHITECTURE_LLAMA);
    Model *model = tiny_model_open(&config, 7);
    AdapterBank *bank = open_bank(model);
    fill_texts(model);
    memset(&d, 0, sizeof d);
    add(&d, 0, 0); /* 0 */
    add(&d, 2, 1); /* 1 */
    add(&d, 0, 1); /* 2 */
    add(&d, 1, 1); /* 3, 4, 5 */
    add(&d, 1, 2); /* 6, 7, 8 */
    Sequence *s = d.sequences;
    s[2].twin_layers = 5;
    refused(model, bank, &d, NULL, "sequence 2: shares 5 layers with its twin, the model has 4");
    s[2].twin_layers = -1;
    refused(model, bank, &d, NULL, "sequence 2: shares -1 layers with its twin, the model has 4");
    s[2].twin_layers = 2;
    s[2].twin = 1;
    refused(model, bank, &d, NULL,
            "sequence 2: its twin 1 is not an earlier sequence of the same text");
    s[2].twin = 2;
    refused(model, bank, &d, NULL,
            "sequence 2: its twin 2 is not an earlier sequence of the same text");
    s[2].twin_layers = 0;
    s[7].twin_layers = 1;
    s[7].twin = 5;
    refused(model, bank, &d, NULL,
            "sequence 7: its twin 5 is not an earlier sequence of the same text");
    s[7].twin_layers = 0;
    s[2].kl = d.kl[2];
    s[2].reference = -1;
    const char *rule = "sequence 2: its reference -1 is not an earlier sequence of the same text, "
                       "scored tokens and temperature, and without a reference itself";
    refused(model, bank, &d, NULL, rule);
    s[2].reference = 0;
    refused(model, bank, &d, weigh, "sequence 2: kl in a pass with gradients");
    s[2].temperature = 0.8f;
    assert_int_equal(s[0].n_tokens, s[2].n_tokens);
    rule = "sequence 2: its reference 0 is not an earlier sequence of the same text, scored tokens "
           "and temperature, and without a reference itself";
    refused(model, bank, &d, NULL, rule);
    s[2].temperature = 0.7f;
    uint8_t others[LONGEST];
    memcpy(others, scored[0][0], sizeof others);
    others[2] ^= 1;
    s[2].scored = others;
    refused(model, bank, &d, NULL, rule);
    adapter_bank_free(bank);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twins_have_the_bits_of_computing_alone_for_any_threads_and_chunks),
        cmocka_unit_test(twins_have_the_same_bits_where_rows_are_sliced),
        cmocka_unit_test(twins_have_the_same_bits_where_columns_are_split),
        cmocka_unit_test(kl_has_the_same_bits_where_the_vocabulary_is_cut_into_blocks),
        cmocka_unit_test(a_false_twin_takes_the_layers_of_the_other_adapter),
        cmocka_unit_test(gradients_ignore_twins),
        cmocka_unit_test(kl_is_that_of_a_double_precision_model),
        cmocka_unit_test(kl_of_equal_adapters_is_zero_and_never_negative),
        cmocka_unit_test(the_kl_kernel_matches_doubles_on_every_family),
        cmocka_unit_test(false_relatives_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
