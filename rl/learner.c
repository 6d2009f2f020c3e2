/* Making learners, checking their settings, and the one entry to a step. */
#include "rl/learner.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/parallel.h"
#include "rl/grpo.h"
#include "rl/sft.h"
#include "rl/step.h"

#define MAX_COMPLETIONS 1000000
#define MAX_STEP_TOKENS                                                                            \
    400000000.0 /* completion tokens a step may ask for: 24 bytes each are kept */

bool checkpointing_find(Checkpointing *checkpointing, const char *name)
{
    static const char *const names[] = {"none", "selective", "full"};
    for (int i = 0; i < 3; i++) {
        if (!strcmp(names[i], name)) {
            *checkpointing = (Checkpointing)i;
            return true;
        }
    }
    return false;
}

bool precision_find(TensorType *precision, const char *name)
{
    static const char *const names[] = {"f32", "f16", "bf16"}; /* in the order of TensorType */
    for (int i = 0; i < 3; i++) {
        if (!strcmp(names[i], name)) {
            *precision = (TensorType)i;
            return true;
        }
    }
    return false;
}

TrainSettings train_settings_defaults(void)
{
    return (TrainSettings){
        .sft = {.batch_size = 8},
        .grpo = {.prompts_per_step = 8,
                 .group_size = 8,
                 .sampling = {.temperature = 1, .top_p = 1, .max_new_tokens = 128},
                 .loss = loss_find("dr_grpo"),
                 .objective = {.clip_low = 0.2, .clip_high = 0.28},
                 .scale_rewards = SCALE_GROUP,
                 .updates_per_batch = 1,
                 .minibatches = 1,
                 .overlong_factor = 1,
                 .correction_max = 3},
        .optimizer = optimizer_find("adamw"),
        .optimizer_settings = optimizer_defaults(),
        .lr = 1e-4,
        .grad_clip = 1,
        .loss_scale = LOSS_SCALE_FIRST,
        .loss_scale_window = LOSS_SCALE_WINDOW};
}

/* NaN fails too. */
static Status check_range(const char *key, double value, double low, double high, Error *error)
{
    return value >= low && value <= high
               ? STATUS_OK
               : error_set(error, STATUS_USAGE, "%s: %g is not in %g to %g", key, value, low, high);
}

static Status check_settings(const TrainSettings *s, Error *error)
{
    const GrpoSettings *g = &s->grpo;
    const OptimizerSettings *o = &s->optimizer_settings;
    bool grpo = s->method == METHOD_GRPO;
    const struct {
        const char *key;
        double value, low, high;
        bool used;
    } ranges[] = {
        {"steps", (double)s->steps, 0, 4e9, true},
        {"sft.batch_size", s->sft.batch_size, 1, MAX_COMPLETIONS, !grpo},
        {"sft.label_smoothing", s->sft.label_smoothing, 0, 1, !grpo},
        {"micro_batch", s->micro_batch, 0, MAX_COMPLETIONS, true},
        {"engine.loss_scale", s->loss_scale, LOSS_SCALE_LEAST, 1e30, s->precision == TENSOR_F16},
        {"engine.loss_scale_window", s->loss_scale_window, 1, 1e9, s->precision == TENSOR_F16},
        {"grpo.prompts_per_step", g->prompts_per_step, 1, MAX_COMPLETIONS, grpo},
        {"grpo.group_size", g->group_size, 1, MAX_COMPLETIONS, grpo},
        {"grpo.max_new_tokens", g->sampling.max_new_tokens, 1, 1e7, grpo},
        {"grpo.temperature", g->sampling.temperature, 1e-3, 1e3, grpo},
        {"grpo.top_p", g->sampling.top_p, 1e-6, 1, grpo},
        {"grpo.top_k", g->sampling.top_k, 0, 1e9, grpo},
        {"grpo.min_p", g->sampling.min_p, 0, 1, grpo},
        {"grpo.repetition_penalty", g->sampling.penalty, 0, 1e3, grpo},
        {"grpo.clip_low", g->objective.clip_low, 0, 1, grpo},
        {"grpo.clip_high", g->objective.clip_high, 0, 1e9, grpo},
        {"grpo.delta", g->objective.delta, 0, 1e9, grpo},
        {"grpo.kl_beta", g->objective.kl_beta, 0, 1e9, grpo},
        {"grpo.entropy_coef", g->entropy_coef, 0, 1e9, grpo},
        {"grpo.updates_per_batch", g->updates_per_batch, 1, 1000, grpo},
        {"grpo.minibatches", g->minibatches, 1, g->prompts_per_step, grpo},
        {"grpo.overlong_buffer", g->overlong_buffer, 0, g->sampling.max_new_tokens, grpo},
        {"grpo.overlong_factor", g->overlong_factor, 0, 1e9, grpo},
        {"grpo.dynamic_sampling", g->resample_rounds, 0, 1000, grpo},
        {"grpo.importance_sampling_clip_min", g->correction_min, 0, g->correction_max, grpo},
        {"grpo.importance_sampling_clip_max", g->correction_max, 0, 1e30, grpo},
        {"optimizer.lr", s->lr, 0, 1e30, true},
        {"optimizer.grad_clip", s->grad_clip, 0, 1e30, true},
        {"optimizer.warmup_steps", (double)s->schedule.warmup_steps, 0, 4e9, true},
        {"optimizer.weight_decay", o->weight_decay, 0, 1e9, true},
        {"optimizer.beta1", o->beta1, 0, 1 - 1e-9, true},
        {"optimizer.beta2", o->beta2, 0, 1 - 1e-12, true},
        {"optimizer.epsilon", o->epsilon, 1e-30, 1e9, true},
        {"optimizer.momentum", o->momentum, 0, 1, true},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        Status status = !ranges[i].used ? STATUS_OK
                                        : check_range(ranges[i].key, ranges[i].value, ranges[i].low,
                                                      ranges[i].high, error);
        if (status) {
            return status;
        }
    }
    if (grpo && g->objective.delta != 0 && g->objective.delta <= 1 + g->objective.clip_high) {
        return error_set(error, STATUS_USAGE,
                         "grpo.delta: %g is not above 1 + grpo.clip_high, where it takes effect",
                         g->objective.delta);
    }
    double completions = (double)g->prompts_per_step * g->group_size;
    if (grpo && (completions > MAX_COMPLETIONS ||
                 completions * g->sampling.max_new_tokens > MAX_STEP_TOKENS)) {
        return error_set(error, STATUS_USAGE,
                         "grpo: %d x %d completions of %d tokens need about %.1f GiB a step",
                         g->prompts_per_step, g->group_size, g->sampling.max_new_tokens,
                         completions * g->sampling.max_new_tokens * 24 / (double)((size_t)1 << 30));
    }
    return STATUS_OK;
}

static Status check_lengths(const Task *task, Method method, Error *error)
{
    int limit = task->model->config.max_positions;
    for (int i = 0; i < task->n_rows; i++) {
        int n = task->prompts[i].n + (method == METHOD_SFT ? task->n_answer[i] : 1);
        if (n > limit) {
            return error_set(error, STATUS_REFUSED,
                             "dataset \"%s\": line %d: %d tokens of %s do not fit the model's "
                             "context of %d",
                             task->dataset.path, task->dataset.rows[i].line,
                             method == METHOD_SFT ? n : n - 1,
                             method == METHOD_SFT ? "prompt and answer" : "prompt", limit);
        }
        if (method == METHOD_SFT && !task->n_answer[i]) {
            return error_set(error, STATUS_REFUSED,
                             "dataset \"%s\": line %d: nothing to learn: the answer is empty and "
                             "the model has no end-of-sequence token",
                             task->dataset.path, task->dataset.rows[i].line);
        }
    }
    return STATUS_OK;
}

Status learner_new(Learner **learner, const TrainSettings *settings, const Task *task,
                   const Reward *reward, const AdapterBank *bank, Error *error)
{
    assert(settings->method == METHOD_SFT || reward);
    Status status = check_settings(settings, error);
    if (!status) {
        status = check_lengths(task, settings->method, error);
    }
    if (status) {
        return status;
    }
    size_t n = adapter_parameters(bank);
    size_t n_moments = (size_t)settings->optimizer->n_moments * n;
    Learner *made = calloc(1, sizeof *made);
    float *v = calloc(n + 1, sizeof *v);
    float *moments = calloc(n_moments + 1, sizeof *moments);
    if (!made || !v || !moments) {
        free(made);
        free(v);
        free(moments);
        return error_set(error, STATUS_FAILED, "no memory for %.2f GiB of parameters and moments",
                         (double)(n + n_moments) * sizeof(float) / (double)((size_t)1 << 30));
    }
    *made = (Learner){
        .settings = *settings, .task = task, .reward = reward, .n = n, .v = v, .moments = moments};
    made->loss_scale.scale = settings->precision == TENSOR_F16 ? settings->loss_scale : 1;
    made->settings.grpo.objective.sequence_ratios |= settings->grpo.loss->sequence_ratios;
    if (n) {
        adapter_initial(bank, v);
    }
    *learner = made;
    return STATUS_OK;
}

void learner_free(Learner *learner)
{
    if (learner) {
        free(learner->v);
        free(learner->moments);
        free(learner);
    }
}

void step_result_release(StepResult *result)
{
    free(result->checkpoint);
    arena_free(result->arena);
    *result = (StepResult){0};
}

Status learner_step(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                    Error *error)
{
    for (int i = 1; i < n; i++) {
        assert(learners[i]->settings.method == learners[0]->settings.method);
        assert(learners[i]->settings.precision == learners[0]->settings.precision);
    }
    parallel_float_mode(); /* the moments' denormals are flushed on every path */
    memset(results, 0, (size_t)n * sizeof *results);
    Status status = learners[0]->settings.method == METHOD_SFT
                        ? sft_step(trainer, learners, n, results, error)
                        : grpo_step(trainer, learners, n, results, error);
    for (int i = 0; i < n && status; i++) {
        step_result_release(&results[i]);
    }
    return status;
}
