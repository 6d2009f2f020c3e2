/* The GRPO step: rollouts, rewards, advantages, then one or more passes over the same completions.
 */
#include "rl/grpo.h"

#include <math.h>
#include <string.h>

#include "rl/grpo_work.h"

/* Members of a sequence list, by sequence; NULL for prompts. */
typedef struct {
    SequenceList list;
    Member **member;
    Work **work;
} MemberList;

static void work_begin(Work *work, Candidate *candidate, StepArena *scratch)
{
    const Learner *learner = candidate->learner;
    const GrpoSettings *settings = &learner->settings.grpo;
    size_t n_groups = (size_t)settings->prompts_per_step;
    *work = (Work){.candidate = candidate,
                   .settings = settings,
                   .task = learner->task,
                   .n_groups = settings->prompts_per_step,
                   .n_members = settings->prompts_per_step * settings->group_size,
                   .low_min = INFINITY,
                   .ratio_min = INFINITY};
    work->rows = arena_alloc(scratch, n_groups, sizeof *work->rows);
    work->group_std = arena_alloc(scratch, n_groups, sizeof *work->group_std);
    work->live = arena_alloc(scratch, n_groups, sizeof *work->live);
    work->members = arena_alloc(scratch, (size_t)work->n_members, sizeof *work->members);
    task_order(work->rows, work->n_groups, work->task, learner->settings.seed,
               (candidate->step - 1) * work->n_groups);
}

static Status sample(Rollout **rollouts, const Trainer *trainer, Work *works, int n, int total,
                     StepArena *scratch, Error *error)
{
    RolloutItem *items = arena_alloc(scratch, (size_t)total, sizeof *items);
    int at = 0;
    for (int i = 0; i < n; i++) {
        const Work *work = &works[i];
        const Learner *learner = work->candidate->learner;
        for (int m = 0; m < work->n_members; m++) {
            int group = m / work->settings->group_size;
            items[at++] = (RolloutItem){.prompt = &work->task->prompts[work->rows[group]],
                                        .sampling = &work->settings->sampling,
                                        .adapter = work->candidate->adapter,
                                        .key = {learner->settings.seed, RANDOM_SAMPLE},
                                        .step = (uint32_t)work->candidate->step,
                                        .prompt_index = (uint32_t)group,
                                        .sample = (uint32_t)(m % work->settings->group_size)};
        }
    }
    Status status = rollout_run(rollouts, trainer, works[0].task, items, total, error);
    for (int i = 0, first = 0; i < n && !status; first += works[i++].n_members) {
        for (int m = 0; m < works[i].n_members; m++) {
            works[i].members[m].rollout = &(*rollouts)[first + m];
        }
    }
    return status;
}

static void check_rollouts(Work *work)
{
    for (int m = 0; m < work->n_members; m++) {
        const Completion *completion = &work->members[m].rollout->completion;
        for (int t = 0; t < completion->n; t++) {
            if (!isfinite(completion->logprobs[t])) {
                candidate_fail(work->candidate,
                               "prompt %d, sample %d: the log-probability of token %d is not "
                               "finite",
                               m / work->settings->group_size, m % work->settings->group_size, t);
                return;
            }
        }
    }
}

static void judge(Work *work, StepArena *scratch)
{
    const Learner *learner = work->candidate->learner;
    int n_terms = reward_size(learner->reward);
    double *rewards = arena_alloc(scratch, (size_t)work->n_members, sizeof *rewards);
    double *advantages = arena_alloc(scratch, (size_t)work->n_members, sizeof *advantages);
    work->batch = (LossBatch){.n_completions = work->n_members,
                              .max_new_tokens = work->settings->sampling.max_new_tokens};
    for (int m = 0; m < work->n_members; m++) {
        Member *member = &work->members[m];
        const DataRow *row = &work->task->dataset.rows[work->rows[m / work->settings->group_size]];
        member->values = arena_alloc(scratch, (size_t)n_terms, sizeof *member->values);
        member->reward = reward_score(learner->reward, member->values, member->rollout->text,
                                      member->rollout->n_text, row->answer, row->n_answer);
        rewards[m] = member->reward;
        work->batch.n_tokens += member->rollout->completion.n;
    }
    advantage_compute(advantages, work->group_std, rewards, work->settings->scale_rewards,
                      work->n_groups, work->settings->group_size);
    for (int m = 0; m < work->n_members; m++) {
        Member *member = &work->members[m];
        size_t n = (size_t)member->rollout->completion.n;
        member->advantage = advantages[m];
        member->weight = work->settings->loss->weight(&work->batch, member->rollout->completion.n);
        member->logprobs = arena_alloc(scratch, n, sizeof(double));
        member->entropies = arena_alloc(scratch, n, sizeof(double));
        bool live = member->advantage != 0 || work->settings->objective.kl_beta != 0;
        work->live[m / work->settings->group_size] |= live;
    }
}

static void member_list_init(MemberList *list, int capacity, StepArena *scratch)
{
    sequence_list_init(&list->list, capacity, scratch);
    list->member = arena_alloc(scratch, (size_t)capacity, sizeof *list->member);
    list->work = arena_alloc(scratch, (size_t)capacity, sizeof *list->work);
}

/* Of dropout, in training passes alone: update -1 is another one. */
static uint64_t key_of(const Work *work, int row, int sample, int update)
{
    return update < 0 ? 0 : candidate_key(work->candidate, row, sample, update);
}

/* A group as a tree: the prompt, its completions. base: under adapter 0, filling Member.base.
 * update: as key_of. */
static void add_group(MemberList *list, Work *work, int group, bool base, int update,
                      const uint8_t *ones)
{
    int row = work->rows[group];
    bool entropies = update == 0 || (update < 0 && !base);
    const Prompt *prompt = &work->task->prompts[row];
    float temperature = (float)work->settings->sampling.temperature;
    int adapter = base ? 0 : work->candidate->adapter;
    int parent = sequence_add(&list->list, (Sequence){.tokens = prompt->ids,
                                                      .n_tokens = prompt->n,
                                                      .parent = -1,
                                                      .adapter = adapter,
                                                      .temperature = temperature,
                                                      .key = key_of(work, row, 0, update)});
    list->member[parent] = NULL;
    for (int i = 0; i < work->settings->group_size; i++) {
        Member *member = &work->members[group * work->settings->group_size + i];
        int child =
            sequence_add(&list->list, (Sequence){.tokens = member->rollout->completion.ids,
                                                 .n_tokens = member->rollout->completion.n,
                                                 .parent = parent,
                                                 .adapter = adapter,
                                                 .temperature = temperature,
                                                 .scored = ones,
                                                 .logprobs = base ? member->base : member->logprobs,
                                                 .entropies = entropies ? member->entropies : NULL,
                                                 .key = key_of(work, row, 1 + i, update)});
        list->member[child] = member;
        list->work[child] = work;
    }
}

static Status score_base(const Trainer *trainer, Work *works, int n, int capacity,
                         const uint8_t *ones, StepArena *scratch, Error *error)
{
    MemberList list;
    member_list_init(&list, capacity, scratch);
    for (int i = 0; i < n; i++) {
        Work *work = &works[i];
        if (work->settings->objective.kl_beta == 0 || !candidate_alive(work->candidate)) {
            continue;
        }
        for (int m = 0; m < work->n_members; m++) {
            size_t length = (size_t)work->members[m].rollout->completion.n;
            work->members[m].base = arena_alloc(scratch, length, sizeof(double));
        }
        for (int group = 0; group < work->n_groups; group++) {
            add_group(&list, work, group, true, -1, ones);
        }
    }
    if (!list.list.n) {
        return STATUS_OK;
    }
    int threads = engine_threads(trainer->engine);
    adapter_use_base(trainer->bank, true, threads);
    Status status = sequences_evaluate(trainer, &list.list, NULL, NULL, "base", error);
    adapter_use_base(trainer->bank, false, threads);
    return status;
}

static TokenLoss token_loss(const Work *work, const Member *member, int t, double logprob)
{
    return objective_token(&work->settings->objective, member->advantage, logprob,
                           member->rollout->completion.logprobs[t],
                           member->base ? member->base[t] : 0);
}

static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    (void)entropy;
    const MemberList *list = context;
    const Member *member = list->member[sequence];
    TokenLoss token = token_loss(list->work[sequence], member, position, logprob);
    return (TokenWeight){.dlogprob = member->weight * token.dlogprob};
}

/* Sums of a pass, in order of completions and tokens. A dead group keeps the log-probabilities of
 * its first pass: its loss is 0 in every pass. */
static PassSums sum_pass(Work *work, bool first_pass)
{
    PassSums sums = {0};
    for (int m = 0; m < work->n_members; m++) {
        const Member *member = &work->members[m];
        PassSums own = {0};
        double entropy = 0, gap = 0, ratios = 0;
        for (int t = 0; t < member->rollout->completion.n; t++) {
            TokenLoss token = token_loss(work, member, t, member->logprobs[t]);
            own.loss += token.loss;
            own.kl += token.kl;
            own.low += token.clipped_low;
            own.high += token.clipped_high;
            entropy += member->entropies[t];
            double difference = fabs(member->logprobs[t] - member->rollout->completion.logprobs[t]);
            gap += difference;
            ratios += token.ratio;
            if (first_pass) {
                work->gap_max = fmax(work->gap_max, difference);
                work->ratio_min = fmin(work->ratio_min, token.ratio);
                work->ratio_max = fmax(work->ratio_max, token.ratio);
            }
        }
        sums.loss += member->weight * own.loss;
        sums.kl += own.kl;
        sums.low += own.low;
        sums.high += own.high;
        if (first_pass) {
            work->entropy += entropy;
            work->gap_sum += gap;
            work->ratio_sum += ratios;
        }
    }
    return sums;
}

/* One pass over the completions of every learner that has one left to do, and its update. */
static Status run_pass(const Trainer *trainer, Work *works, int n, int pass, int capacity,
                       const uint8_t *ones, StepArena *scratch, Error *error)
{
    MemberList live, dead;
    member_list_init(&live, capacity, scratch);
    member_list_init(&dead, capacity, scratch);
    bool trains = adapter_parameters(trainer->bank) > 0;
    for (int i = 0; i < n; i++) {
        Work *work = &works[i];
        if (!candidate_alive(work->candidate) || pass >= work->settings->updates_per_batch) {
            continue;
        }
        if (pass > 0 && work->candidate->learner->n) {
            adapter_set(trainer->bank, work->candidate->bank_adapter, work->candidate->v,
                        engine_threads(trainer->engine));
        }
        for (int group = 0; group < work->n_groups; group++) {
            if (work->live[group] && trains) {
                add_group(&live, work, group, false, pass, ones);
            } else if (pass == 0) {
                add_group(&dead, work, group, false, -1, ones);
            }
        }
    }
    adapter_clear_gradients(trainer->bank);
    Status status = sequences_evaluate(trainer, &dead.list, NULL, NULL, "update", error);
    if (!status) {
        status = sequences_evaluate(trainer, &live.list, weigh, &live, "update", error);
    }
    for (int i = 0; i < n && !status; i++) {
        Work *work = &works[i];
        if (!candidate_alive(work->candidate) || pass >= work->settings->updates_per_batch) {
            continue;
        }
        PassSums sums = sum_pass(work, pass == 0);
        work->sums.loss += sums.loss;
        work->sums.kl += sums.kl;
        work->sums.low += sums.low;
        work->sums.high += sums.high;
        work->low_min = fmin(work->low_min, sums.low);
        work->high_max = fmax(work->high_max, sums.high);
        candidate_update(work->candidate, trainer, sums.loss);
    }
    return status;
}

/* From rollouts to the last update; candidates hold the outcome. */
static Status train(const Trainer *trainer, Work *works, int n, StepArena *scratch, Error *error)
{
    int capacity = 0, longest = 1, passes = 1;
    for (int i = 0; i < n; i++) {
        Work *work = &works[i];
        capacity += work->n_groups + work->n_members;
        passes =
            work->settings->updates_per_batch > passes ? work->settings->updates_per_batch : passes;
        check_rollouts(work);
        judge(work, scratch);
        for (int m = 0; m < work->n_members; m++) {
            int length = work->members[m].rollout->completion.n;
            longest = length > longest ? length : longest;
        }
    }
    uint8_t *ones = arena_alloc(scratch, (size_t)longest, 1);
    memset(ones, 1, (size_t)longest);
    Status status = score_base(trainer, works, n, capacity, ones, scratch, error);
    for (int pass = 0; pass < passes && !status; pass++) {
        status = run_pass(trainer, works, n, pass, capacity, ones, scratch, error);
    }
    return status;
}

static long tokens_seen(const Work *work)
{
    long tokens = work->batch.n_tokens;
    for (int group = 0; group < work->n_groups; group++) {
        tokens += (long)work->settings->group_size * work->task->prompts[work->rows[group]].n;
    }
    return tokens;
}

Status grpo_step(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                 Error *error)
{
    StepArena *scratch = arena_new();
    Candidate *candidates = candidates_begin(trainer, learners, n, results, scratch);
    Work *works = arena_alloc(scratch, (size_t)n, sizeof *works);
    int *rows = arena_alloc(scratch, (size_t)n, sizeof *rows);
    long *tokens = arena_alloc(scratch, (size_t)n, sizeof *tokens);
    int total = 0;
    for (int i = 0; i < n; i++) {
        work_begin(&works[i], &candidates[i], scratch);
        total += works[i].n_members;
    }
    Rollout *rollouts = NULL;
    Status status = sample(&rollouts, trainer, works, n, total, scratch, error);
    if (!status) {
        status = train(trainer, works, n, scratch, error);
    }
    for (int i = 0; i < n && !status; i++) {
        rows[i] = works[i].n_groups;
        tokens[i] = tokens_seen(&works[i]);
        if (candidate_alive(&candidates[i])) {
            grpo_report(&works[i]);
        }
        grpo_keep_completions(&works[i]);
    }
    if (!status) {
        candidates_commit(candidates, n, tokens, rows);
    }
    candidates_restore(candidates, n, trainer);
    rollouts_free(rollouts, total);
    arena_free(scratch);
    return status;
}
