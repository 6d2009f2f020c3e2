/* The GRPO family's loss of one token and its derivative by the token's log-probability, for the
 * engine's WeighToken. Losses differ in the normaliser alone (const structs found by name): grpo 1
 * / (B L_i)        mean over completions of means over their tokens   (Shao et al. 2024) bnpo     1
 * / sum_i L_i      mean over the batch's tokens dapo     1 / sum_i L_i      the same of the whole
 * (accumulated) batch, which here is the batch (Yu et al. 2025) dr_grpo  1 / (B max_new)    no
 * length bias                                      (Liu et al. 2025) */
#pragma once
#include <stdbool.h>

typedef struct {
    int n_completions; /* B */
    long n_tokens;     /* sum of L_i */
    int max_new_tokens;
} LossBatch;

typedef struct {
    const char *name;
    double (*weight)(const LossBatch *batch,
                     int length); /* of each token of a completion of that length */
} Loss;
extern const Loss *const losses[];
extern const int n_losses;
const Loss *loss_find(const char *name); /* NULL when unknown */

typedef struct {
    double clip_low, clip_high; /* ratio clipped to [1 - clip_low, 1 + clip_high] */
    double kl_beta;             /* 0: no KL */
} Objective;

typedef struct {
    double loss;     /* -min(r A, clip(r) A) + beta k3, not yet multiplied by the loss's weight */
    double dlogprob; /* its derivative */
    double ratio, kl;
    bool clipped_low,
        clipped_high; /* the clip binds: A < 0 and r < 1 - low; A > 0 and r > 1 + high */
} TokenLoss;

/* r = exp(logprob - old); k3 = exp(base - logprob) - (base - logprob) - 1 (Schulman 2020). base is
 * ignored when kl_beta is 0. */
TokenLoss objective_token(const Objective *objective, double advantage, double logprob, double old,
                          double base);
