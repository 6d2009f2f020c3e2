/* The losses of the GRPO family over a whole minibatch, in double, each written from its formula
 * (docs/grpo.md) and from nothing in rl/: what the tests hold the program's losses to. */
#pragma once
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { LOSS_COMPLETIONS = 64, LOSS_LENGTH = 32 };

typedef double LossRows[LOSS_COMPLETIONS][LOSS_LENGTH];

typedef struct {
    int n, limit; /* completions of the minibatch; their largest length */
    int length[LOSS_COMPLETIONS];
    bool masked[LOSS_COMPLETIONS]; /* the loss does not see its tokens */
    double advantage[LOSS_COMPLETIONS];
    double step_tokens; /* unmasked tokens of the step over its number of minibatches; 0: the
                         * minibatch's own */
    LossRows logprob, old, base, correction, entropy;
    LossRows *held; /* logprob where a loss holds its ratio fixed; NULL: logprob */
} LossData;

typedef struct {
    const char *name;
    bool sequence;
    double clip_low, clip_high, delta, kl_beta, entropy_coef;
} LossFormula;

static inline double clamp(double x, double low, double high)
{
    return fmin(fmax(x, low), high);
}

static inline double loss_ratio(LossData *data, LossRows *logprob, int i, int t, bool sequence)
{
    double sum = 0;
    for (int k = 0; k < data->length[i]; k++) {
        sum += (*logprob)[i][k] - data->old[i][k];
    }
    return exp(sequence ? sum / data->length[i] : (*logprob)[i][t] - data->old[i][t]);
}

static inline double loss_of_token(LossData *data, const LossFormula *f, int i, int t)
{
    double A = data->advantage[i], lp = data->logprob[i][t];
    bool sequence = f->sequence || !strcmp(f->name, "gspo");
    double r = loss_ratio(data, &data->logprob, i, t, sequence);
    double loss;
    if (!strcmp(f->name, "cispo")) {
        double fixed = loss_ratio(data, data->held ? data->held : &data->logprob, i, t, sequence);
        loss = -fmin(fixed, 1 + f->clip_high) * A * lp;
    } else if (!strcmp(f->name, "reinforce")) {
        loss = -A * lp;
    } else {
        double capped = f->delta > 0 ? fmin(r, f->delta) : r;
        loss = -fmin(capped * A, clamp(r, 1 - f->clip_low, 1 + f->clip_high) * A);
    }
    double gap = data->base[i][t] - lp;
    return data->correction[i][t] * loss + f->kl_beta * (exp(gap) - gap - 1);
}

static inline double reference_loss(LossData *data, const LossFormula *f)
{
    double by_completion = 0, sum = 0, entropy = 0, tokens = 0;
    for (int i = 0; i < data->n; i++) {
        double own = 0;
        for (int t = 0; t < data->length[i] && !data->masked[i]; t++) {
            own += loss_of_token(data, f, i, t);
            entropy += data->entropy[i][t];
            tokens++;
        }
        sum += own;
        by_completion += own / data->length[i] / data->n;
    }
    tokens = fmax(tokens, 1);
    double loss = !strcmp(f->name, "grpo") || !strcmp(f->name, "gspo") ? by_completion
                  : !strcmp(f->name, "dr_grpo")                        ? sum / data->n / data->limit
                  : !strcmp(f->name, "reinforce")                      ? sum / data->n
                  : !strcmp(f->name, "bnpo") || data->step_tokens == 0 ? sum / tokens
                                                                       : sum / data->step_tokens;
    return loss - (f->entropy_coef != 0 ? f->entropy_coef * entropy / tokens : 0);
}
