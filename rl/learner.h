/* A learner is one run's whole state: settings, v, moments, counters. Nothing else: everything
 * random is a function of (seed, step, prompt, sample, token), the order of rows of (seed, epoch).
 * So a checkpoint is small and resume exact. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "adapters/adapter.h"
#include "core/text.h"
#include "results/store.h"
#include "rl/advantage.h"
#include "rl/loss_scale.h"
#include "rl/objective.h"
#include "rl/optimizer.h"
#include "rl/reward.h"
#include "rl/rollout.h"
#include "rl/schedule.h"
#include "rl/task.h"

typedef enum { METHOD_SFT, METHOD_GRPO } Method;

typedef struct {
    int batch_size;         /* rows a step */
    double label_smoothing; /* share of the loss that is the mean over the vocabulary */
    bool whole;             /* the prompt's tokens are learned too, from the second on */
} SftSettings;

/* A step samples prompts_per_step x group_size completions: that is the batch. */
typedef struct {
    int prompts_per_step, group_size;
    Sampling sampling;
    const Loss *loss;
    Objective objective;
    double entropy_coef; /* of the entropy's mean over the minibatch's tokens; 0: no bonus */
    AdvantageScale scale_rewards;
    AdvantageBaseline baseline;
    int updates_per_batch; /* passes over the batch */
    int minibatches;       /* of whole groups, an update each: the j-th of K has the groups
                            * j n / K to (j + 1) n / K - 1 of the step's n */
    bool mask_truncated;   /* completions that did not end have no loss */
    int overlong_buffer;   /* overlong_penalty, added to the reward; 0: none */
    double overlong_factor;
    int resample_rounds; /* groups of equal rewards are replaced so often at most */
    bool rollout_bf16;   /* the sampler's adapter is v rounded to bf16 */
    Correction correction;
    double correction_min, correction_max;
} GrpoSettings;

typedef struct {
    Method method;
    uint64_t seed;
    int64_t steps;
    SftSettings sft;
    GrpoSettings grpo;
    const Optimizer *optimizer;
    OptimizerSettings optimizer_settings;
    double lr;
    Schedule schedule;
    double grad_clip; /* largest norm of the gradient; 0: none */
    int micro_batch;  /* rows (SFT) or groups (GRPO) that are held in memory at a time; 0: as many
                       * as fit. The sums are of the whole batch */
    Checkpointing checkpointing;
    TensorType precision;  /* see Batch; F16 has a loss scale */
    double loss_scale;     /* that it starts with */
    int loss_scale_window; /* updates after which it doubles */
} TrainSettings;

/* "none", "selective", "full"; "f32", "bf16", "f16". False when unknown. */
bool checkpointing_find(Checkpointing *checkpointing, const char *name);
bool precision_find(TensorType *precision, const char *name);

/* TRL's defaults where it has one (INTERFACE's example elsewhere); method and steps are the
 * caller's. */
TrainSettings train_settings_defaults(void);

typedef struct {
    TrainSettings settings;
    const Task *task;
    const Reward *reward; /* NULL for SFT */
    size_t n;             /* parameters */
    float *v;             /* (n) */
    float *moments;       /* (n_moments, n) */
    int64_t step;         /* steps done */
    int64_t updates;      /* optimizer updates done */
    int64_t n_tokens;     /* prompt and completion tokens seen so far */
    LossScale loss_scale;
} Learner;

/* A learner at step 0 with the bank's start values. task and reward must outlive it.
 * Errors: STATUS_USAGE naming the setting's key (as in config: "grpo.group_size") and its range;
 * STATUS_REFUSED naming the data line that does not fit the model's context. */
Status learner_new(Learner **learner, const TrainSettings *settings, const Task *task,
                   const Reward *reward, const AdapterBank *bank, Error *error);
void learner_free(Learner *learner);

/* Result of one step of one learner. Everything in it lives until step_result_release. */
typedef struct {
    Status status; /* STATUS_FAILED: this learner diverged (error says step and reason) and was left
                      as it was */
    Error error;
    int64_t step; /* the step that was done or failed */
    Metric *metrics;
    size_t n_metrics;
    CompletionRow *completions; /* none for SFT */
    size_t n_completions;
    EventRow *events; /* (n_events) worth telling of a step that was done */
    size_t n_events;
    void *checkpoint; /* of the new state; NULL when failed */
    size_t checkpoint_bytes;
    struct StepArena *arena;
} StepResult;
void step_result_release(StepResult *result);

/* Advance n learners (all of one method and precision) by one step TOGETHER as one fused batch;
 * learner i runs under adapter i + 1 of trainer->bank, whose values the step sets. Each learner's
 * numbers have the bits they have alone. results: (n). Metrics bear TRL's names; step_time is the
 * caller's. STATUS_OK also when single learners failed (results[i].status). Errors (nothing
 * changed, results empty): STATUS_STOPPED when progress asked for it; STATUS_FAILED for memory. */
Status learner_step(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                    Error *error);
