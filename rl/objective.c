/* One token of the GRPO family's loss and its derivative; normalisers. Pure functions. */
#include "rl/objective.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static double grpo_weight(const LossBatch *batch, int length)
{
    return 1.0 / ((double)batch->n_completions * length);
}

static double token_weight(const LossBatch *batch, int length)
{
    (void)length;
    return 1.0 / (double)batch->n_tokens;
}

static double dr_grpo_weight(const LossBatch *batch, int length)
{
    (void)length;
    return 1.0 / ((double)batch->n_completions * batch->max_new_tokens);
}

static const Loss grpo = {"grpo", grpo_weight};
static const Loss dr_grpo = {"dr_grpo", dr_grpo_weight};
static const Loss dapo = {"dapo", token_weight};
static const Loss bnpo = {"bnpo", token_weight};

const Loss *const losses[] = {&grpo, &dr_grpo, &dapo, &bnpo};
const int n_losses = 4;

const Loss *loss_find(const char *name)
{
    for (int i = 0; i < n_losses; i++) {
        if (!strcmp(losses[i]->name, name)) {
            return losses[i];
        }
    }
    return NULL;
}

TokenLoss objective_token(const Objective *objective, double advantage, double logprob, double old,
                          double base)
{
    double ratio = exp(logprob - old);
    TokenLoss token = {.ratio = ratio};
    token.clipped_low = advantage < 0 && ratio < 1 - objective->clip_low;
    token.clipped_high = advantage > 0 && ratio > 1 + objective->clip_high;
    if (token.clipped_low) {
        token.loss = -(1 - objective->clip_low) * advantage;
    } else if (token.clipped_high) {
        token.loss = -(1 + objective->clip_high) * advantage;
    } else {
        token.loss = -ratio * advantage;
        token.dlogprob = -ratio * advantage;
    }
    if (objective->kl_beta != 0) {
        double gap = base - logprob;
        token.kl = expm1(gap) - gap;
        token.loss += objective->kl_beta * token.kl;
        token.dlogprob += objective->kl_beta * -expm1(gap);
    }
    return token;
}
