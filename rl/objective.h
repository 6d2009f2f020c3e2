/* The loss of one token of a completion and its derivatives, for the engine's WeighToken. A loss is
 * a policy term and a normaliser (const structs found by name; docs/grpo.md has the table of
 * formulas). Pure functions. */
#pragma once
#include <stdbool.h>

/* What an update's normaliser is made of: the completions of its minibatch, and of the step. Masked
 * completions count among the completions, their tokens do not. */
typedef struct {
    int n_completions;  /* B, of the minibatch */
    long n_tokens;      /* sum of L_i */
    long step_tokens;   /* the same of all minibatches */
    int n_minibatches;  /* of the step */
    int max_new_tokens; /* the limit on L_i */
} LossBatch;

typedef struct {
    double clip_low, clip_high; /* ratio clipped to [1 - clip_low, 1 + clip_high] */
    double delta;               /* two-sided clipping: no ratio above it, whatever A; 0: none */
    double kl_beta;             /* 0: no KL */
    bool sequence_ratios;       /* one ratio a completion: exp of the mean of its log ratios */
} Objective;

/* Where a token is. The ratio of a sequence is that of each of its tokens. */
typedef struct {
    double advantage, logprob;
    double log_ratio; /* logprob - old; with sequence_ratios its mean over the completion */
    double base;      /* log-probability under the base; ignored when kl_beta is 0 */
    double correction, correction_mean; /* weight of the policy term (a rollout whose numerics
                                         * differ) and its mean over the completion; 1: none */
} TokenState;

typedef struct {
    double loss;     /* not yet multiplied by the loss's weight */
    double dlogprob; /* derivative of the completion's loss by this token's log-probability */
    double ratio, kl;
    bool clipped_low,
        clipped_high; /* the clip binds: A < 0 and r < 1 - low; A > 0 and r > 1 + high */
} TokenLoss;

typedef struct {
    const char *name;
    /* Of each token of a completion of that length; a masked completion has weight 0. */
    double (*weight)(const LossBatch *batch, int length);
    /* Policy term into loss and dlogprob, clipping into the flags; ratio is there. */
    void (*policy)(TokenLoss *token, const Objective *objective, const TokenState *state);
    bool sequence_ratios; /* always */
} Loss;
extern const Loss *const losses[];
extern const int n_losses;
const Loss *loss_find(const char *name); /* NULL when unknown */

/* loss = correction * policy + kl_beta * k3, where k3 = exp(base - logprob) - (base - logprob) - 1
 * (Schulman 2020). */
TokenLoss objective_token(const Loss *loss, const Objective *objective, const TokenState *state);

/* Truncated importance sampling (Ionides 2008): ratios of the trainer's probabilities to the
 * sampler's, of each token or of the whole completion (the product), cut at the bounds or set to 0
 * outside them. */
typedef enum {
    CORRECTION_NONE,
    CORRECTION_TOKEN_TRUNCATE,
    CORRECTION_TOKEN_MASK,
    CORRECTION_SEQUENCE_TRUNCATE,
    CORRECTION_SEQUENCE_MASK
} Correction;
extern const char *const correction_names[]; /* in the enum's order, ended by NULL */
bool correction_find(Correction *correction, const char *name);

/* corrections: (n) out   trainer, sampler: (n) log-probabilities   low, high: the bounds
 * Returns the mean of corrections. */
double correction_compute(double *corrections, const double *trainer, const double *sampler, int n,
                          Correction correction, double low, double high);
