/* What a GRPO step tells: TRL's metrics and the completions. With several updates a step, the loss
 * is a mean over the updates, kl and clip ratios are over the passes' tokens; entropy is of the
 * first pass, the comparison with the sampler of what is known of the policy before the first
 * update. Tokens of masked completions count in lengths and the sampler's metrics alone. */
#include <math.h>
#include <string.h>

#include "rl/extract.h"
#include "rl/grpo_work.h"

typedef struct {
    double sum, min, max;
    int n;
} Range;

static void range_add(Range *range, double value)
{
    range->min = range->n ? fmin(range->min, value) : value;
    range->max = range->n ? fmax(range->max, value) : value;
    range->sum += value;
    range->n++;
}

static double range_mean(const Range *range)
{
    return range->n ? range->sum / range->n : 0;
}

/* Of a reward term's values, those that are there. */
static void mean_and_std(double *mean, double *std, const Work *work, int term)
{
    double sum = 0, squares = 0;
    int n = 0;
    for (int m = 0; m < work->n_members; m++) {
        double value = work->members[m].values[term];
        sum += isnan(value) ? 0 : value;
        n += !isnan(value);
    }
    *mean = sum / n;
    for (int m = 0; m < work->n_members; m++) {
        double d = work->members[m].values[term] - *mean;
        squares += isnan(d) ? 0 : d * d;
    }
    *std = n > 1 ? sqrt(squares / (n - 1)) : 0;
}

/* Completions without a reward: their number, and the first in words. */
static void report_troubles(const Work *work, int n_rewarded)
{
    StepResult *result = work->candidate->result;
    int n = work->n_members - n_rewarded, m = 0;
    if (n == 0) {
        return;
    }
    Text message = {0};
    while (!work->members[m].no_reward) {
        m++;
    }
    text_printf(&message,
                "%d of %d completions have no reward; the first: prompt %d, sample %d: %s", n,
                work->n_members, m / work->settings->group_size, m % work->settings->group_size,
                work->members[m].no_reward);
    step_event(result, "reward_error", message.bytes);
    step_metric(result, "rewards/errors", n);
    text_release(&message);
}

static void report_completions(const Work *work)
{
    StepResult *result = work->candidate->result;
    Range all = {0}, terminated = {0};
    for (int m = 0; m < work->n_members; m++) {
        const Completion *completion = &work->members[m].rollout->completion;
        range_add(&all, completion->n);
        if (completion->finish == FINISH_STOP) {
            range_add(&terminated, completion->n);
        }
    }
    step_metric(result, "completions/mean_length", range_mean(&all));
    step_metric(result, "completions/min_length", all.min);
    step_metric(result, "completions/max_length", all.max);
    step_metric(result, "completions/clipped_ratio", 1 - (double)terminated.n / work->n_members);
    step_metric(result, "completions/mean_terminated_length", range_mean(&terminated));
    step_metric(result, "completions/min_terminated_length", terminated.min);
    step_metric(result, "completions/max_terminated_length", terminated.max);
}

static void report_rewards(const Work *work)
{
    StepResult *result = work->candidate->result;
    const Reward *reward = work->candidate->learner->reward;
    double sum = 0, std = 0;
    int zero = 0, n_rewarded = 0;
    for (int m = 0; m < work->n_members; m++) {
        sum += work->members[m].no_reward ? 0 : work->members[m].reward;
        n_rewarded += !work->members[m].no_reward;
    }
    for (int group = 0; group < work->n_groups; group++) {
        std += work->group_std[group];
        zero += work->group_std[group] == 0;
    }
    step_metric(result, "reward", sum / n_rewarded);
    step_metric(result, "reward_std", std / work->n_groups);
    step_metric(result, "frac_reward_zero_std", (double)zero / work->n_groups);
    if (work->settings->overlong_buffer > 0) {
        double overlong = 0;
        for (int m = 0; m < work->n_members; m++) {
            overlong += work->members[m].overlong;
        }
        step_metric(result, "rewards/soft_overlong_punishment_reward/mean",
                    overlong / work->n_members);
    }
    for (int term = 0; term < reward_size(reward); term++) {
        Text key = {0};
        double mean, term_std;
        mean_and_std(&mean, &term_std, work, term);
        text_printf(&key, "rewards/%s/mean", reward_name(reward, term));
        step_metric(result, key.bytes, mean);
        text_clear(&key);
        text_printf(&key, "rewards/%s/std", reward_name(reward, term));
        step_metric(result, key.bytes, term_std);
        text_release(&key);
    }
    report_troubles(work, n_rewarded);
}

static void report_passes(const Work *work)
{
    StepResult *result = work->candidate->result;
    const GrpoSettings *settings = work->settings;
    double passes = settings->updates_per_batch;
    double tokens = work->n_tokens > 0 ? (double)work->n_tokens : 1;
    const PassSums *sums = &work->sums;
    const SamplerCheck *check = &work->check;
    step_metric(result, "loss", sums->loss / (passes * settings->minibatches));
    step_metric(result, "entropy", work->entropy / tokens);
    if (settings->objective.kl_beta != 0) {
        step_metric(result, "kl", sums->kl / passes / tokens);
    }
    step_metric(result, "clip_ratio/low_mean", sums->low / passes / tokens);
    step_metric(result, "clip_ratio/low_min", work->low_min);
    step_metric(result, "clip_ratio/high_mean", sums->high / passes / tokens);
    step_metric(result, "clip_ratio/high_max", work->high_max);
    step_metric(result, "clip_ratio/region_mean", (sums->low + sums->high) / passes / tokens);
    step_metric(result, "sampling/sampling_logp_difference/mean",
                check->gap_sum / (double)check->n_tokens);
    step_metric(result, "sampling/sampling_logp_difference/max", check->gap_max);
    step_metric(result, "sampling/importance_sampling_ratio/min", check->ratio_min);
    step_metric(result, "sampling/importance_sampling_ratio/mean",
                check->ratio_sum / (double)check->n_tokens);
    step_metric(result, "sampling/importance_sampling_ratio/max", check->ratio_max);
    if (settings->resample_rounds > 0) {
        step_metric(result, "sampling/resampled_groups", work->n_resampled);
    }
}

void grpo_keep_completions(const Work *work)
{
    StepResult *result = work->candidate->result;
    StepArena *arena = result->arena;
    result->completions = arena_alloc(arena, (size_t)work->n_members, sizeof *result->completions);
    result->n_completions = (size_t)work->n_members;
    Text extracted = {0};
    for (int m = 0; m < work->n_members; m++) {
        const Member *member = &work->members[m];
        const Rollout *rollout = member->rollout;
        const Completion *completion = &rollout->completion;
        int group = m / work->settings->group_size, row = work->rows[group];
        const Prompt *prompt = &work->task->prompts[row];
        int32_t *ids = arena_alloc(arena, (size_t)completion->n, sizeof *ids);
        double *logprobs = arena_alloc(arena, (size_t)completion->n, sizeof *logprobs);
        memcpy(ids, completion->ids, (size_t)completion->n * sizeof *ids);
        memcpy(logprobs, completion->logprobs, (size_t)completion->n * sizeof *logprobs);
        text_clear(&extracted);
        extract_all_json(&extracted, rollout->text, rollout->n_text);
        result->completions[m] =
            (CompletionRow){.prompt_row = row,
                            .prompt = group,
                            .sample = m % work->settings->group_size,
                            .prompt_text = arena_string(arena, prompt->text, prompt->n_text),
                            .text = arena_string(arena, rollout->text, rollout->n_text),
                            .n_text = rollout->n_text,
                            .ids = ids,
                            .n_ids = completion->n,
                            .logprobs = logprobs,
                            .reward = member->reward,
                            .advantage = member->advantage,
                            .extracted = arena_string(arena, extracted.bytes, extracted.n),
                            .finish = completion->finish == FINISH_STOP ? "stop" : "length"};
    }
    text_release(&extracted);
}

void grpo_report(const Work *work)
{
    report_rewards(work);
    report_completions(work);
    report_passes(work);
}
