/* Losses of the GRPO family: policy terms, normalisers, KL, corrections of the sampler. */
#include "rl/objective.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static double completion_weight(const LossBatch *batch, int length)
{
    return 1.0 / ((double)batch->n_completions * length);
}

static double minibatch_weight(const LossBatch *batch, int length)
{
    (void)length;
    return 1.0 / (double)batch->n_tokens;
}

/* The step's tokens shared out evenly among its minibatches. */
static double step_weight(const LossBatch *batch, int length)
{
    (void)length;
    return (double)batch->n_minibatches / (double)batch->step_tokens;
}

static double limit_weight(const LossBatch *batch, int length)
{
    (void)length;
    return 1.0 / ((double)batch->n_completions * batch->max_new_tokens);
}

static double sum_weight(const LossBatch *batch, int length)
{
    (void)length;
    return 1.0 / batch->n_completions;
}

/* -min(min(r, delta) A, clip(r) A) */
static void clipped_policy(TokenLoss *token, const Objective *objective, const TokenState *state)
{
    double advantage = state->advantage;
    token->clipped_low = advantage < 0 && token->ratio < 1 - objective->clip_low;
    token->clipped_high = advantage > 0 && token->ratio > 1 + objective->clip_high;
    if (token->clipped_low) {
        token->loss = -(1 - objective->clip_low) * advantage;
    } else if (token->clipped_high) {
        token->loss = -(1 + objective->clip_high) * advantage;
    } else if (objective->delta > 0 && token->ratio > objective->delta) {
        token->loss = -objective->delta * advantage;
    } else {
        token->loss = -token->ratio * advantage;
        token->dlogprob = -token->ratio * advantage;
    }
}

/* -min(r, 1 + clip_high) A log p, the ratio held fixed (MiniMax-M1 2025) */
static void cispo_policy(TokenLoss *token, const Objective *objective, const TokenState *state)
{
    double most = 1 + objective->clip_high;
    token->clipped_high = state->advantage > 0 && token->ratio > most;
    token->dlogprob = -(token->ratio > most ? most : token->ratio) * state->advantage;
    token->loss = token->dlogprob * state->logprob;
}

/* -A log p (Williams 1992) */
static void reinforce_policy(TokenLoss *token, const Objective *objective, const TokenState *state)
{
    (void)objective;
    token->dlogprob = -state->advantage;
    token->loss = -state->advantage * state->logprob;
}

static const Loss grpo = {"grpo", completion_weight, clipped_policy, false};
static const Loss dr_grpo = {"dr_grpo", limit_weight, clipped_policy, false};
static const Loss dapo = {"dapo", step_weight, clipped_policy, false};
static const Loss bnpo = {"bnpo", minibatch_weight, clipped_policy, false};
static const Loss gspo = {"gspo", completion_weight, clipped_policy, true};
static const Loss cispo = {"cispo", step_weight, cispo_policy, false};
static const Loss reinforce = {"reinforce", sum_weight, reinforce_policy, false};

const Loss *const losses[] = {&grpo, &dr_grpo, &dapo, &bnpo, &gspo, &cispo, &reinforce};
const int n_losses = sizeof losses / sizeof losses[0];

const Loss *loss_find(const char *name)
{
    for (int i = 0; i < n_losses; i++) {
        if (!strcmp(losses[i]->name, name)) {
            return losses[i];
        }
    }
    return NULL;
}

TokenLoss objective_token(const Loss *loss, const Objective *objective, const TokenState *state)
{
    TokenLoss token = {.ratio = exp(state->log_ratio)};
    loss->policy(&token, objective, state);
    token.loss *= state->correction;
    /* A ratio of the sequence depends on all its tokens alike, and so on all their corrections. */
    bool shared = objective->sequence_ratios && loss->policy == clipped_policy;
    token.dlogprob *= shared ? state->correction_mean : state->correction;
    if (objective->kl_beta != 0) {
        double gap = state->base - state->logprob;
        token.kl = expm1(gap) - gap;
        token.loss += objective->kl_beta * token.kl;
        token.dlogprob += objective->kl_beta * -expm1(gap);
    }
    return token;
}

const char *const correction_names[] = {
    "none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", NULL};

bool correction_find(Correction *correction, const char *name)
{
    for (int i = 0; correction_names[i]; i++) {
        if (!strcmp(correction_names[i], name)) {
            *correction = (Correction)i;
            return true;
        }
    }
    return false;
}

static double bounded(double ratio, bool mask, double low, double high)
{
    return ratio >= low && ratio <= high ? ratio : mask ? 0 : ratio < low ? low : high;
}

double correction_compute(double *corrections, const double *trainer, const double *sampler, int n,
                          Correction correction, double low, double high)
{
    bool mask = correction == CORRECTION_TOKEN_MASK || correction == CORRECTION_SEQUENCE_MASK;
    bool whole =
        correction == CORRECTION_SEQUENCE_TRUNCATE || correction == CORRECTION_SEQUENCE_MASK;
    double gap = 0, sum = 0;
    for (int t = 0; t < n; t++) {
        gap += trainer[t] - sampler[t];
    }
    for (int t = 0; t < n; t++) {
        double ratio = exp(whole ? gap : trainer[t] - sampler[t]);
        corrections[t] = correction == CORRECTION_NONE ? 1 : bounded(ratio, mask, low, high);
        sum += corrections[t];
    }
    return sum / n;
}
