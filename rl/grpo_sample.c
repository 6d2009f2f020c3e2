/* Rollouts and rewards of a GRPO step, and dynamic sampling (DAPO, Yu et al. 2025): a group whose
 * rewards are all equal teaches nothing, so another prompt takes its place. Everything is a
 * function of (seed, step): the replacements are the rows of a permutation of the data of that
 * step, those of the step left out, in its order. */
#include <math.h>
#include <stdlib.h>

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

static void reward_group(Work *work, int group)
{
    const GrpoSettings *settings = work->settings;
    const DataRow *row = &work->task->dataset.rows[work->rows[group]];
    work->n_seen += (long)settings->group_size * work->task->prompts[work->rows[group]].n;
    for (int i = 0; i < settings->group_size; i++) {
        int m = group * settings->group_size + i;
        Member *member = &work->members[m];
        const Rollout *rollout = member->rollout;
        member->overlong =
            overlong_penalty(rollout->completion.n, settings->sampling.max_new_tokens,
                             settings->overlong_buffer, settings->overlong_factor);
        member->reward = reward_score(work->candidate->learner->reward, member->values,
                                      rollout->text, rollout->n_text, row->answer, row->n_answer) +
                         member->overlong;
        work->rewards[m] = member->reward;
        work->n_seen += rollout->completion.n;
    }
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
        for (int j = 0; j < wanted[i].n && candidate_alive(work->candidate); j++) {
            reward_group(work, wanted[i].groups[j]);
        }
    }
    return STATUS_OK;
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
