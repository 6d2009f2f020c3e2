/* One learner's part of a GRPO step, internal to rl/: filled by grpo.c, told by grpo_report.c. */
#pragma once
#include "rl/step.h"

/* One completion of one learner. */
typedef struct {
    const Rollout *rollout;
    double reward, advantage, weight; /* weight: the loss's normaliser of each token */
    double *values;                   /* (reward terms) */
    double *base;                     /* (n) log-probabilities of the base; NULL without KL */
    double *logprobs, *entropies;     /* (n) of the latest pass; entropies of the first */
} Member;

/* What is summed over a learner's tokens in one pass. */
typedef struct {
    double loss, kl, low, high;
} PassSums;

/* One learner's part of the step. */
typedef struct {
    Candidate *candidate;
    const GrpoSettings *settings;
    const Task *task;
    int n_groups, n_members;
    int *rows;         /* (n_groups) of the data */
    double *group_std; /* (n_groups) of rewards */
    bool *live;        /* (n_groups) has a gradient */
    Member *members;   /* (n_groups, group_size) */
    LossBatch batch;
    PassSums sums; /* over passes */
    double low_min, high_max;
    double entropy;
    /* trainer against sampler, first pass */
    double gap_sum, gap_max, ratio_sum, ratio_min, ratio_max;
} Work;

/* Metrics of the step into the learner's result. */
void grpo_report(const Work *work);
/* The completions into the learner's result, which owns copies. */
void grpo_keep_completions(const Work *work);
