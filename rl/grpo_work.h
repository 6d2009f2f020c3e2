/* One learner's part of a GRPO step, internal to rl/: sampled by grpo_sample.c, trained on by
 * grpo.c, told by grpo_report.c. */
#pragma once
#include "rl/step.h"

/* One completion of one learner. */
typedef struct {
    const Rollout *rollout;
    bool masked;                   /* cut off, and such ones have no loss */
    double reward, advantage;      /* reward: with the overlong penalty */
    double overlong;               /* that penalty */
    const char *no_reward;         /* why there is none: reward is NaN; else NULL */
    double weight, entropy_weight; /* of each token in the loss; 0: masked */
    double *values;                /* (reward terms) */
    double *base;                  /* (n) log-probabilities of the base; NULL without KL */
    const double *old;             /* (n) of the policy before the step's first update */
    double *corrections;           /* (n) of the sampler's numerics; NULL: all 1 */
    double correction_mean;        /* of corrections */
    double *logprobs, *entropies;  /* (n) of the latest pass; entropies of the first, or of the
                                    * latest where they have a bonus */
    double log_ratio;              /* of sequence ratios: the mean over the tokens, in this pass */
} Member;

/* What is summed over a learner's tokens in one update. */
typedef struct {
    double loss, kl, low, high;
} PassSums;

/* What the trainer finds of the sampler's log-probabilities before the first update. */
typedef struct {
    double gap_sum, gap_max;                /* |trainer - sampler| */
    double ratio_sum, ratio_min, ratio_max; /* trainer / sampler; where corrected, as corrected */
    long n_tokens;
} SamplerCheck;

/* One learner's part of the step. */
typedef struct {
    Candidate *candidate;
    const GrpoSettings *settings;
    const Task *task;
    int n_groups, n_members;
    int *rows;          /* (n_groups) of the data */
    int *rounds;        /* (n_groups) in which round of sampling a group was made */
    double *rewards;    /* (n_groups, group_size) */
    double *group_std;  /* (n_groups) of rewards */
    bool *live;         /* (n_groups) has a gradient */
    Member *members;    /* (n_groups, group_size) */
    LossBatch *batches; /* (minibatches) */
    long n_tokens;      /* sampled and not masked: those that metrics are means over */
    long n_seen;        /* prompt and completion tokens of the step, replaced groups included */
    int n_resampled;    /* groups that were replaced */
    PassSums sums;      /* over updates */
    double low_min, high_max;
    double entropy;
    SamplerCheck check;
} Work;

/* All that was sampled in a step. */
typedef struct {
    struct {
        Rollout *rollouts;
        int n;
    } * rounds;
    int n_rounds;
} Samples;

/* Completions and rewards of all learners' groups; groups of equal rewards again, as
 * settings->resample_rounds says. Fills rollout, values and reward of members. samples must outlive
 * the works; grpo_samples_free also after an error. */
Status grpo_sample(Samples *samples, const Trainer *trainer, Work *works, int n, StepArena *scratch,
                   Error *error);
void grpo_samples_free(Samples *samples);

/* Metrics of the step into the learner's result. */
void grpo_report(const Work *work);
/* The completions into the learner's result, which owns copies. */
void grpo_keep_completions(const Work *work);
