/* A batch with everything in it for engine tests: a lone sequence, a prompt with completions, other
 * adapters and the base, under the objectives of SFT and GRPO; and its objective by the reference.
 */
#pragma once
#include "adapters/adapter.h"
#include "core/engine.h"
#include "tests/reference_model.h"
#include "tests/tiny_model.h"

enum { N_SEQUENCES = 6, MAX_T = 40, N_ADAPTERS = 2 };

typedef struct {
    int32_t tokens[N_SEQUENCES][MAX_T];
    uint8_t scored[N_SEQUENCES][MAX_T];
    double logprobs[N_SEQUENCES][MAX_T], entropies[N_SEQUENCES][MAX_T];
    double old[N_SEQUENCES][MAX_T]; /* stands for the log-probabilities at sampling time */
    Sequence sequences[N_SEQUENCES];
} Data;

/* A lone sequence, a prompt with two completions, another adapter's, and the base's. */
static inline void data_init(Data *d, int vocab_size)
{
    const struct {
        int n, parent, adapter;
        float temperature;
    } shape[N_SEQUENCES] = {{9, -1, 1, 1},   {5, -1, 1, 0.7f}, {7, 1, 1, 0.7f},
                            {4, 1, 1, 0.7f}, {33, -1, 2, 0},   {6, -1, 0, 1}};
    memset(d, 0, sizeof *d);
    RandomKey key = {3, RANDOM_DATA};
    for (int s = 0; s < N_SEQUENCES; s++) {
        for (int t = 0; t < shape[s].n; t++) {
            d->tokens[s][t] =
                (int32_t)(random_uniform(key, (uint32_t)s, (uint32_t)t, 0, 0) * vocab_size);
            d->scored[s][t] = s != 1 && (t > 0 || shape[s].parent >= 0) && (s * 5 + t) % 4 != 0;
            d->old[s][t] = -2.5 - random_uniform(key, (uint32_t)s, (uint32_t)t, 1, 0);
        }
        d->sequences[s] = (Sequence){.tokens = d->tokens[s],
                                     .n_tokens = shape[s].n,
                                     .parent = shape[s].parent,
                                     .adapter = shape[s].adapter,
                                     .temperature = shape[s].temperature,
                                     .scored = d->scored[s],
                                     .logprobs = d->logprobs[s],
                                     .entropies = d->entropies[s]};
    }
}

/* What a token adds to the objective: importance ratio times an advantage, clipped, KL to a
 * reference by k3, and an entropy bonus; smooth at the points used. The derivative in *weight. */
static inline double token_objective(const Data *d, int s, int t, double logprob, double entropy,
                                     TokenWeight *weight)
{
    double advantage = ((s * 7 + t * 3) % 5 - 2) * 0.4, ratio = exp(logprob - d->old[s][t]);
    bool clipped = advantage > 0 ? ratio > 1.28 : ratio < 0.8;
    double bound = advantage > 0 ? 1.28 : 0.8;
    double gap = d->old[s][t] - 0.3 - logprob; /* reference minus policy */
    *weight = (TokenWeight){.dlogprob = (clipped ? 0 : -advantage * ratio) + 0.05 * (1 - exp(gap)),
                            .dentropy = -0.03};
    return -advantage * (clipped ? bound : ratio) + 0.05 * (exp(gap) - gap - 1) - 0.03 * entropy;
}

static inline TokenWeight weigh_grpo(void *context, int s, int t, double logprob, double entropy)
{
    TokenWeight weight;
    token_objective(context, s, t, logprob, entropy, &weight);
    return weight;
}

static inline TokenWeight weigh_sft(void *context, int s, int t, double logprob, double entropy)
{
    (void)context;
    (void)s;
    (void)t;
    (void)logprob;
    (void)entropy;
    return (TokenWeight){.dlogprob = -1 / 17.0};
}

/* Objective of the sequences under one adapter by the reference; its weights are already those of
 * that adapter. Adds the largest difference from the engine's own numbers to *worst when it is not
 * NULL. */
static inline double reference_objective(Reference *r, const Data *d, int adapter, bool grpo,
                                         double *worst)
{
    double total = 0;
    for (int s = 0; s < N_SEQUENCES; s++) {
        const Sequence *sequence = &d->sequences[s];
        if (sequence->adapter != adapter) {
            continue;
        }
        int32_t tokens[2 * MAX_T];
        double logprobs[2 * MAX_T], entropies[2 * MAX_T];
        int n_before = 0;
        if (sequence->parent >= 0) {
            n_before = d->sequences[sequence->parent].n_tokens;
            memcpy(tokens, d->tokens[sequence->parent], (size_t)n_before * sizeof *tokens);
        }
        memcpy(tokens + n_before, d->tokens[s], (size_t)sequence->n_tokens * sizeof *tokens);
        r->key = sequence->key;
        r->parent_key = n_before ? d->sequences[sequence->parent].key : 0;
        r->n_before = n_before;
        double temperature = sequence->temperature == 0 ? 1 : (double)sequence->temperature;
        reference_score(r, tokens, n_before + sequence->n_tokens, temperature, logprobs, entropies);
        for (int t = 0; t < sequence->n_tokens; t++) {
            if (!d->scored[s][t]) {
                continue;
            }
            TokenWeight weight;
            double p = logprobs[n_before + t], h = entropies[n_before + t];
            total += grpo ? token_objective(d, s, t, p, h, &weight) : -p / 17;
            if (worst) {
                *worst = fmax(*worst, fabs(p - d->logprobs[s][t]));
                *worst = fmax(*worst, fabs(h - d->entropies[s][t]));
            }
        }
    }
    return total;
}

static inline void evaluate(Engine *engine, AdapterBank *bank, Data *d, bool grpo)
{
    Batch batch = {.sequences = d->sequences,
                   .n_sequences = N_SEQUENCES,
                   .hook = adapter_hook(bank),
                   .weigh = grpo ? weigh_grpo : weigh_sft,
                   .weigh_context = d,
                   .need_entropy = 1};
    Error error = {{0}};
    adapter_clear_gradients(bank);
    tiny_require(engine_evaluate(engine, &batch, &error), &error);
}
