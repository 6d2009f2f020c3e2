/* Rollouts and rewards of a GRPO step, and dynamic sampling (DAPO, Yu et al. 2025): a group whose
 * rewards are all equal teaches nothing, so another prompt takes its place. Everything is a
 * function of (seed, step): the replacements are the rows of a permutation of the data of that
 * step, those of the step left out, in its order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "core/safetensors.h"
#include "rl/grpo_work.h"

/* Groups of one learner that are to be sampled in a round. */
typedef struct {
    int *groups; /* (n) */
    int n;
} Wanted;

static void add_items(RolloutItem *items, int *at, const Work *work, const Wanted *wanted)
{
    const Learner *learner = work->candidate->learner;
    int size = work->settings->group_size;
    for (int i = 0; i < wanted->n; i++) {
        int group = wanted->groups[i];
        for (int sample = 0; sample < size; sample++) {
            items[(*at)++] = (RolloutItem){
                .prompt = &work->task->prompts[work->rows[group]],
                .sampling = &work->settings->sampling,
                .adapter = work->candidate->adapter,
                .key = {learner->settings.seed, RANDOM_SAMPLE},
                .step = (uint32_t)work->candidate->step,
                .prompt_index = (uint32_t)(group + work->rounds[group] * work->n_groups),
                .sample = (uint32_t)sample};
        }
    }
}

static void check_rollouts(Work *work, const Wanted *wanted)
{
    int size = work->settings->group_size;
    for (int i = 0; i < wanted->n * size; i++) {
        int group = wanted->groups[i / size], sample = i % size;
        const Completion *completion = &work->members[group * size + sample].rollout->completion;
        for (int t = 0; t < completion->n; t++) {
            if (!isfinite(completion->logprobs[t])) {
                candidate_fail(work->candidate,
                               "prompt %d, sample %d: the log-probability of token %d is not "
                               "finite",
                               group, sample, t);
                return;
            }
        }
    }
}

/* The place in the work of the i-th completion of the wanted groups. */
static int member_at(const Work *work, const Wanted *wanted, int i)
{
    int size = work->settings->group_size;
    return wanted->groups[i / size] * size + i % size;
}

/* What a completion that has no reward is told with. */
static void note_reason(Member *member, const Text *reason, StepArena *scratch)
{
    member->no_reward =
        isnan(member->reward) ? arena_string(scratch, reason->bytes, reason->n) : NULL;
}

/* Rewards of all wanted groups, asked together. */
static Status reward_groups(Work *work, const Wanted *wanted, StepArena *scratch, Error *error)
{
    const GrpoSettings *settings = work->settings;
    const Reward *reward = work->candidate->learner->reward;
    int n = wanted->n * settings->group_size, n_terms = reward_size(reward);
    RewardRow *rows = arena_alloc(scratch, (size_t)n, sizeof *rows);
    double *scores = arena_alloc(scratch, (size_t)n, sizeof *scores);
    double *values = arena_alloc(scratch, (size_t)n * (size_t)n_terms, sizeof *values);
    Text *reasons = arena_alloc(scratch, (size_t)n, sizeof *reasons);
    for (int i = 0; i < n; i++) {
        int row = work->rows[member_at(work, wanted, i) / settings->group_size];
        const Rollout *rollout = work->members[member_at(work, wanted, i)].rollout;
        const Prompt *prompt = &work->task->prompts[row];
        const DataRow *data = &work->task->dataset.rows[row];
        rows[i] = (RewardRow){.prompt = prompt->text,
                              .completion = rollout->text,
                              .answer = data->answer,
                              .n_prompt = prompt->n_text,
                              .n_completion = rollout->n_text,
                              .n_answer = data->n_answer};
        work->n_seen += prompt->n + rollout->completion.n;
    }
    Status status = reward_score(reward, scores, values, reasons, rows, n, error);
    for (int i = 0; i < n && !status; i++) {
        int m = member_at(work, wanted, i);
        Member *member = &work->members[m];
        member->overlong =
            overlong_penalty(member->rollout->completion.n, settings->sampling.max_new_tokens,
                             settings->overlong_buffer, settings->overlong_factor);
        memcpy(member->values, values + (size_t)i * (size_t)n_terms,
               (size_t)n_terms * sizeof *values);
        member->reward = scores[i] + member->overlong;
        work->rewards[m] = member->reward;
        note_reason(member, &reasons[i], scratch);
    }
    for (int i = 0; i < n; i++) {
        text_release(&reasons[i]);
    }
    return status;
}

/* One generate() for all; wanted: (n) of each learner. */
static Status run_round(Samples *samples, const Trainer *trainer, Work *works, int n,
                        const Wanted *wanted, StepArena *scratch, Error *error)
{
    int total = 0, at = 0;
    for (int i = 0; i < n; i++) {
        total += wanted[i].n * works[i].settings->group_size;
    }
    RolloutItem *items = arena_alloc(scratch, (size_t)total, sizeof *items);
    for (int i = 0; i < n; i++) {
        add_items(items, &at, &works[i], &wanted[i]);
    }
    Rollout *rollouts;
    Status status = rollout_run(&rollouts, trainer, works[0].task, items, total, error);
    if (status) {
        return status;
    }
    samples->rounds[samples->n_rounds].rollouts = rollouts;
    samples->rounds[samples->n_rounds++].n = total;
    for (int i = 0, next = 0; i < n; i++) {
        Work *work = &works[i];
        for (int j = 0; j < wanted[i].n; j++) {
            int group = wanted[i].groups[j];
            for (int m = 0; m < work->settings->group_size; m++) {
                work->members[group * work->settings->group_size + m].rollout = &rollouts[next++];
            }
        }
        check_rollouts(work, &wanted[i]);
        if (!status && candidate_alive(work->candidate)) {
            status = reward_groups(work, &wanted[i], scratch, error);
        }
    }
    return status;
}

/* Rows that replace groups, in order. */
typedef struct {
    int *rows;
    int n, next;
} Spares;

static void spares_init(Spares *spares, const Work *work, StepArena *scratch)
{
    const Learner *learner = work->candidate->learner;
    int n_rows = work->task->n_rows;
    int *order = arena_alloc(scratch, (size_t)n_rows, sizeof *order);
    bool *taken = arena_alloc(scratch, (size_t)n_rows, sizeof *taken);
    random_permutation(order, n_rows, (RandomKey){learner->settings.seed, RANDOM_RESAMPLE},
                       (uint32_t)work->candidate->step);
    for (int group = 0; group < work->n_groups; group++) {
        taken[work->rows[group]] = true;
    }
    *spares = (Spares){.rows = order};
    for (int i = 0; i < n_rows; i++) {
        if (!taken[order[i]]) {
            order[spares->n++] = order[i];
        }
    }
}

/* Give each group of equal rewards another row, as long as there are any. */
static void want_again(Wanted *wanted, Work *work, Spares *spares, int round)
{
    const GrpoSettings *settings = work->settings;
    wanted->n = 0;
    if (round > settings->resample_rounds || !candidate_alive(work->candidate)) {
        return;
    }
    for (int group = 0; group < work->n_groups && spares->next < spares->n; group++) {
        if (advantage_no_spread(work->rewards + (size_t)group * settings->group_size,
                                settings->group_size)) {
            work->rows[group] = spares->rows[spares->next++];
            work->rounds[group] = round;
            work->n_resampled++;
            wanted->groups[wanted->n++] = group;
        }
    }
}

static Status run_rounds(Samples *samples, const Trainer *trainer, Work *works, int n,
                         StepArena *scratch, Error *error)
{
    Wanted *wanted = arena_alloc(scratch, (size_t)n, sizeof *wanted);
    Spares *spares = arena_alloc(scratch, (size_t)n, sizeof *spares);
    int n_rounds = 0;
    for (int i = 0; i < n; i++) {
        Work *work = &works[i];
        int rounds = work->settings->resample_rounds;
        n_rounds = rounds > n_rounds ? rounds : n_rounds;
        wanted[i].groups = arena_alloc(scratch, (size_t)work->n_groups, sizeof(int));
        for (int group = 0; group < work->n_groups; group++) {
            wanted[i].groups[wanted[i].n++] = group;
        }
        if (rounds > 0) {
            spares_init(&spares[i], work, scratch);
        }
    }
    samples->rounds = arena_alloc(scratch, (size_t)n_rounds + 1, sizeof *samples->rounds);
    Status status = run_round(samples, trainer, works, n, wanted, scratch, error);
    for (int round = 1; round <= n_rounds && !status; round++) {
        int n_wanted = 0;
        for (int i = 0; i < n; i++) {
            want_again(&wanted[i], &works[i], &spares[i], round);
            n_wanted += wanted[i].n;
        }
        if (n_wanted == 0) {
            break;
        }
        status = run_round(samples, trainer, works, n, wanted, scratch, error);
    }
    return status;
}

/* The samplers' adapters, and the learners' own again. */
static void set_adapters(const Trainer *trainer, const Work *works, int n, bool sampler,
                         StepArena *scratch)
{
    for (int i = 0; i < n; i++) {
        const Learner *learner = works[i].candidate->learner;
        if (!works[i].settings->rollout_bf16 || learner->n == 0) {
            continue;
        }
        const float *v = learner->v;
        if (sampler) {
            uint16_t *rounded = arena_alloc(scratch, learner->n, sizeof *rounded);
            float *seen = arena_alloc(scratch, learner->n, sizeof *seen);
            tensor_from_f32(rounded, v, TENSOR_BF16, learner->n);
            tensor_to_f32(seen, rounded, TENSOR_BF16, learner->n);
            v = seen;
        }
        adapter_set(trainer->bank, works[i].candidate->bank_adapter, v,
                    engine_threads(trainer->engine));
    }
}

Status grpo_sample(Samples *samples, const Trainer *trainer, Work *works, int n, StepArena *scratch,
                   Error *error)
{
    *samples = (Samples){0};
    set_adapters(trainer, works, n, true, scratch);
    Status status = run_rounds(samples, trainer, works, n, scratch, error);
    set_adapters(trainer, works, n, false, scratch);
    return status;
}

void grpo_samples_free(Samples *samples)
{
    for (int i = 0; i < samples->n_rounds; i++) {
        rollouts_free(samples->rounds[i].rollouts, samples->rounds[i].n);
    }
}
