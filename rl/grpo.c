/* The GRPO step after sampling: advantages, then the updates, one after the other over the
 * minibatches of the same completions. */
#include "rl/grpo.h"

#include <math.h>
#include <string.h>

#include "rl/grpo_work.h"

/* What is asked of a group's completions. */
typedef enum {
    ASK_BASE,   /* log-probabilities of the base model */
    ASK_OLD,    /* of the policy before the first update */
    ASK_LOOK,   /* log-probabilities and entropies alone: nothing is learned from the group */
    ASK_RATIOS, /* log-probabilities before an update, for ratios of sequences */
    ASK_UPDATE
} Ask;

/* Members of a sequence list, by sequence; NULL for prompts. */
typedef struct {
    SequenceList list;
    Member **member;
    Work **work;
} MemberList;

/* All learners' steps. */
typedef struct {
    const Trainer *trainer;
    Work *works; /* (n) */
    int n;
    const uint8_t *ones; /* as many as the longest completion has tokens */
    MemberList look, learn;
    StepArena *scratch;
} Training;

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
                   .check.ratio_min = INFINITY};
    size_t n_members = (size_t)work->n_members, n_terms = (size_t)reward_size(learner->reward);
    work->rows = arena_alloc(scratch, n_groups, sizeof *work->rows);
    work->rounds = arena_alloc(scratch, n_groups, sizeof *work->rounds);
    work->group_std = arena_alloc(scratch, n_groups, sizeof *work->group_std);
    work->live = arena_alloc(scratch, n_groups, sizeof *work->live);
    work->rewards = arena_alloc(scratch, n_members, sizeof *work->rewards);
    work->members = arena_alloc(scratch, n_members, sizeof *work->members);
    work->batches = arena_alloc(scratch, (size_t)settings->minibatches, sizeof *work->batches);
    double *values = arena_alloc(scratch, n_members * n_terms, sizeof *values);
    for (size_t m = 0; m < n_members; m++) {
        work->members[m].values = values + m * n_terms;
    }
    task_order(work->rows, work->n_groups, work->task, learner->settings.seed,
               (candidate->step - 1) * work->n_groups);
}

/* The first group of a minibatch; that of the one after the last is n_groups. */
static int first_group(const Work *work, int minibatch)
{
    return (int)((long)minibatch * work->n_groups / work->settings->minibatches);
}

static int first_member(const Work *work, int minibatch)
{
    return first_group(work, minibatch) * work->settings->group_size;
}

static int n_updates(const Work *work)
{
    return work->settings->updates_per_batch * work->settings->minibatches;
}

static void count_batches(Work *work)
{
    const GrpoSettings *settings = work->settings;
    for (int j = 0; j < settings->minibatches; j++) {
        int first = first_member(work, j), end = first_member(work, j + 1);
        LossBatch *batch = &work->batches[j];
        *batch = (LossBatch){.n_completions = end - first,
                             .n_minibatches = settings->minibatches,
                             .max_new_tokens = settings->sampling.max_new_tokens};
        for (int m = first; m < end; m++) {
            Member *member = &work->members[m];
            const Completion *completion = &member->rollout->completion;
            member->masked = settings->mask_truncated && completion->finish != FINISH_STOP;
            batch->n_tokens += member->masked ? 0 : completion->n;
        }
        work->n_tokens += batch->n_tokens;
    }
    for (int j = 0; j < settings->minibatches; j++) {
        work->batches[j].step_tokens = work->n_tokens;
    }
}

/* A step in which no completion has a reward is none. */
static void check_rewards(Work *work)
{
    for (int m = 0; m < work->n_members; m++) {
        if (!work->members[m].no_reward) {
            return;
        }
    }
    candidate_fail(work->candidate, "no completion has a reward; the first: %s",
                   work->members[0].no_reward);
}

/* Advantages, weights and the room for what the passes find. */
static void judge(Work *work, StepArena *scratch)
{
    const GrpoSettings *settings = work->settings;
    double *advantages = arena_alloc(scratch, (size_t)work->n_members, sizeof *advantages);
    check_rewards(work);
    count_batches(work);
    advantage_compute(advantages, work->group_std, work->rewards, settings->scale_rewards,
                      settings->baseline, work->n_groups, settings->group_size);
    for (int j = 0; j < settings->minibatches; j++) {
        for (int m = first_member(work, j); m < first_member(work, j + 1); m++) {
            Member *member = &work->members[m];
            int length = member->rollout->completion.n;
            member->advantage = advantages[m];
            member->weight = member->masked ? 0 : settings->loss->weight(&work->batches[j], length);
            member->entropy_weight =
                member->masked || settings->entropy_coef == 0
                    ? 0
                    : -settings->entropy_coef / (double)work->batches[j].n_tokens;
            member->old = member->rollout->completion.logprobs;
            member->correction_mean = 1;
            member->logprobs = arena_alloc(scratch, (size_t)length, sizeof(double));
            member->entropies = arena_alloc(scratch, (size_t)length, sizeof(double));
            bool live = member->advantage != 0 || settings->objective.kl_beta != 0 ||
                        settings->entropy_coef != 0;
            work->live[m / settings->group_size] |= live && !member->masked;
        }
    }
}

static void member_list_init(MemberList *list, int capacity, Learner **learners, int n,
                             StepArena *scratch)
{
    sequence_list_init(&list->list, capacity, learners, n, scratch);
    list->member = arena_alloc(scratch, (size_t)capacity, sizeof *list->member);
    list->work = arena_alloc(scratch, (size_t)capacity, sizeof *list->work);
}

/* Of dropout, which is in passes of training alone. */
static uint64_t key_of(const Work *work, int row, int sample, Ask ask, int update)
{
    bool training = ask == ASK_UPDATE || ask == ASK_RATIOS;
    return training ? candidate_key(work->candidate, row, sample, update) : 0;
}

/* A group as a tree: the prompt, its completions. */
static void add_group(MemberList *list, Work *work, int group, Ask ask, int update,
                      const uint8_t *ones)
{
    int row = work->rows[group], adapter = ask == ASK_BASE ? 0 : work->candidate->adapter;
    bool first = update < work->settings->minibatches, bonus = work->settings->entropy_coef != 0;
    bool entropies = ask == ASK_LOOK || (ask == ASK_UPDATE && (first || bonus));
    const Prompt *prompt = &work->task->prompts[row];
    float temperature = (float)work->settings->sampling.temperature;
    int parent = sequence_add(&list->list, (Sequence){.tokens = prompt->ids,
                                                      .n_tokens = prompt->n,
                                                      .parent = -1,
                                                      .adapter = adapter,
                                                      .temperature = temperature,
                                                      .key = key_of(work, row, 0, ask, update)});
    list->member[parent] = NULL;
    for (int i = 0; i < work->settings->group_size; i++) {
        Member *member = &work->members[group * work->settings->group_size + i];
        int child = sequence_add(
            &list->list, (Sequence){.tokens = member->rollout->completion.ids,
                                    .n_tokens = member->rollout->completion.n,
                                    .parent = parent,
                                    .adapter = adapter,
                                    .temperature = temperature,
                                    .scored = ones,
                                    .logprobs = ask == ASK_BASE ? member->base : member->logprobs,
                                    .entropies = entropies ? member->entropies : NULL,
                                    .key = key_of(work, row, 1 + i, ask, update)});
        list->member[child] = member;
        list->work[child] = work;
    }
}

/* Log-probabilities of all completions of the works that want them. */
static Status ask_all(Training *training, bool (*wanted)(const Work *), Ask ask, Error *error)
{
    MemberList *list = &training->look;
    list->list.n = 0;
    for (int i = 0; i < training->n; i++) {
        Work *work = &training->works[i];
        for (int group = 0; group < work->n_groups && wanted(work); group++) {
            add_group(list, work, group, ask, -1, training->ones);
        }
    }
    return sequences_evaluate(training->trainer, &list->list, NULL, NULL,
                              ask == ASK_BASE ? "base" : "update", error);
}

static bool wants_base(const Work *work)
{
    return work->settings->objective.kl_beta != 0 && candidate_alive(work->candidate);
}

static Status score_base(Training *training, Error *error)
{
    const Trainer *trainer = training->trainer;
    int threads = engine_threads(trainer->engine);
    bool any = false;
    for (int i = 0; i < training->n; i++) {
        Work *work = &training->works[i];
        for (int m = 0; m < work->n_members && wants_base(work); m++) {
            size_t length = (size_t)work->members[m].rollout->completion.n;
            work->members[m].base = arena_alloc(training->scratch, length, sizeof(double));
            any = true;
        }
    }
    if (!any) {
        return STATUS_OK;
    }
    adapter_use_base(trainer->bank, true, threads);
    Status status = ask_all(training, wants_base, ASK_BASE, error);
    adapter_use_base(trainer->bank, false, threads);
    return status;
}

/* Are the sampler's numerics not the trainer's? */
static bool wants_old(const Work *work)
{
    return work->settings->rollout_bf16 && candidate_alive(work->candidate);
}

static void keep_old(Work *work, StepArena *scratch)
{
    const GrpoSettings *settings = work->settings;
    for (int m = 0; m < work->n_members; m++) {
        Member *member = &work->members[m];
        const Completion *completion = &member->rollout->completion;
        double *old = arena_alloc(scratch, (size_t)completion->n, sizeof *old);
        for (int t = 0; t < completion->n; t++) {
            old[t] = member->logprobs[t];
            if (!isfinite(old[t])) {
                candidate_fail(work->candidate, "a log-probability of the trainer is not finite");
            }
        }
        member->old = old;
        if (settings->correction != CORRECTION_NONE) {
            member->corrections = arena_alloc(scratch, (size_t)completion->n, sizeof(double));
            member->correction_mean = correction_compute(
                member->corrections, old, completion->logprobs, completion->n, settings->correction,
                settings->correction_min, settings->correction_max);
        }
    }
}

static Status score_old(Training *training, Error *error)
{
    Status status = ask_all(training, wants_old, ASK_OLD, error);
    for (int i = 0; i < training->n && !status; i++) {
        if (wants_old(&training->works[i])) {
            keep_old(&training->works[i], training->scratch);
        }
    }
    return status;
}

static TokenLoss token_loss(const Work *work, const Member *member, int t, double logprob)
{
    const Objective *objective = &work->settings->objective;
    TokenState state = {.advantage = member->advantage,
                        .logprob = logprob,
                        .log_ratio = objective->sequence_ratios ? member->log_ratio
                                                                : logprob - member->old[t],
                        .base = member->base ? member->base[t] : 0,
                        .correction = member->corrections ? member->corrections[t] : 1,
                        .correction_mean = member->correction_mean};
    return objective_token(work->settings->loss, objective, &state);
}

static TokenWeight weigh(void *context, int sequence, int position, double logprob, double entropy)
{
    (void)entropy;
    const MemberList *list = context;
    const Member *member = list->member[sequence];
    if (member->masked) {
        return (TokenWeight){0};
    }
    TokenLoss token = token_loss(list->work[sequence], member, position, logprob);
    double scale = list->work[sequence]->candidate->loss_scale.scale;
    return (TokenWeight){.dlogprob = member->weight * token.dlogprob * scale,
                         .dentropy = member->entropy_weight * scale};
}

/* A pass as training has it, dropout included, of which the log-probabilities alone are wanted. */
static TokenWeight weigh_nothing(void *context, int sequence, int position, double logprob,
                                 double entropy)
{
    (void)context, (void)sequence, (void)position, (void)logprob, (void)entropy;
    return (TokenWeight){0};
}

/* The first update finds what the policy says before any of them. */
static void check_sampler(Work *work, const Member *member)
{
    const Completion *completion = &member->rollout->completion;
    SamplerCheck *check = &work->check;
    const double *trainer = work->settings->rollout_bf16 ? member->old : member->logprobs;
    double gap_sum = 0, ratio_sum = 0;
    for (int t = 0; t < completion->n; t++) {
        double gap = trainer[t] - completion->logprobs[t];
        double ratio = member->corrections ? member->corrections[t] : exp(gap);
        gap_sum += fabs(gap);
        ratio_sum += ratio;
        check->gap_max = fmax(check->gap_max, fabs(gap));
        check->ratio_min = fmin(check->ratio_min, ratio);
        check->ratio_max = fmax(check->ratio_max, ratio);
    }
    check->gap_sum += gap_sum;
    check->ratio_sum += ratio_sum;
    check->n_tokens += completion->n;
}

/* Sums of an update, in order of completions and tokens. A dead group keeps the log-probabilities
 * of its first pass: its loss is 0 in every pass. */
static PassSums sum_update(Work *work, int minibatch, bool first_pass)
{
    PassSums sums = {0};
    for (int m = first_member(work, minibatch); m < first_member(work, minibatch + 1); m++) {
        const Member *member = &work->members[m];
        PassSums own = {0};
        double entropy = 0;
        for (int t = 0; t < member->rollout->completion.n && !member->masked; t++) {
            TokenLoss token = token_loss(work, member, t, member->logprobs[t]);
            own.loss += token.loss;
            own.kl += token.kl;
            own.low += token.clipped_low;
            own.high += token.clipped_high;
            entropy += member->entropies[t];
        }
        sums.loss += member->weight * own.loss + member->entropy_weight * entropy;
        sums.kl += own.kl;
        sums.low += own.low;
        sums.high += own.high;
        work->entropy += first_pass ? entropy : 0;
    }
    return sums;
}

/* Has the work this update to do, and with which of its minibatches? */
static bool has_update(const Work *work, int update, int *minibatch)
{
    *minibatch = update % work->settings->minibatches;
    return candidate_alive(work->candidate) && update < n_updates(work);
}

/* Ratios of sequences take a pass of their own, but for the very first update: there they are 1,
 * unless dropout makes the policy another one. */
static bool wants_ratios(const Training *training, const Work *work, int update, int *minibatch)
{
    return has_update(work, update, minibatch) && work->settings->objective.sequence_ratios &&
           (update > 0 || adapter_spec(training->trainer->bank)->dropout > 0);
}

static void take_ratio(Member *member)
{
    double sum = 0;
    for (int t = 0; t < member->rollout->completion.n; t++) {
        sum += member->logprobs[t] - member->old[t];
    }
    member->log_ratio = sum / member->rollout->completion.n;
}

static Status find_ratios(Training *training, int update, Error *error)
{
    MemberList *list = &training->look;
    list->list.n = 0;
    for (int i = 0, j; i < training->n; i++) {
        Work *work = &training->works[i];
        if (!wants_ratios(training, work, update, &j)) {
            continue;
        }
        for (int group = first_group(work, j); group < first_group(work, j + 1); group++) {
            if (work->live[group]) {
                add_group(list, work, group, ASK_RATIOS, update, training->ones);
            }
        }
    }
    Status status =
        sequences_evaluate(training->trainer, &list->list, weigh_nothing, NULL, "update", error);
    for (int s = 0; s < list->list.n && !status; s++) {
        if (list->member[s]) {
            take_ratio(list->member[s]);
        }
    }
    return status;
}

static void add_update(Training *training, Work *work, int update)
{
    bool trains = adapter_parameters(training->trainer->bank) > 0;
    int j;
    if (!has_update(work, update, &j)) {
        return;
    }
    for (int group = first_group(work, j); group < first_group(work, j + 1); group++) {
        if (work->live[group] && trains) {
            add_group(&training->learn, work, group, ASK_UPDATE, update, training->ones);
        } else if (update < work->settings->minibatches) {
            add_group(&training->look, work, group, ASK_LOOK, update, training->ones);
        }
    }
}

static void finish_update(const Trainer *trainer, Work *work, int update)
{
    int j;
    if (!has_update(work, update, &j)) {
        return;
    }
    PassSums sums = sum_update(work, j, update < work->settings->minibatches);
    double tokens = work->batches[j].n_tokens > 0 ? (double)work->batches[j].n_tokens : 1;
    work->sums.loss += sums.loss;
    work->sums.kl += sums.kl;
    work->sums.low += sums.low;
    work->sums.high += sums.high;
    work->low_min = fmin(work->low_min, sums.low / tokens);
    work->high_max = fmax(work->high_max, sums.high / tokens);
    int known = work->settings->rollout_bf16 ? work->n_members : first_member(work, 1);
    for (int m = 0; m < known && update == 0; m++) {
        check_sampler(work, &work->members[m]);
    }
    candidate_update(work->candidate, trainer, sums.loss);
}

/* One update of every learner that has one left to do. */
static Status run_update(Training *training, int update, Error *error)
{
    const Trainer *trainer = training->trainer;
    for (int i = 0, j; i < training->n && update > 0; i++) {
        const Work *work = &training->works[i];
        if (has_update(work, update, &j) && work->candidate->learner->n) {
            adapter_set(trainer->bank, work->candidate->bank_adapter, work->candidate->v,
                        engine_threads(trainer->engine));
        }
    }
    Status status = find_ratios(training, update, error);
    training->look.list.n = training->learn.list.n = 0;
    for (int i = 0; i < training->n && !status; i++) {
        add_update(training, &training->works[i], update);
    }
    adapter_clear_gradients(trainer->bank);
    if (!status) {
        status = sequences_evaluate(trainer, &training->look.list, NULL, NULL, "update", error);
    }
    if (!status) {
        status = sequences_evaluate(trainer, &training->learn.list, weigh, &training->learn,
                                    "update", error);
    }
    for (int i = 0; i < training->n && !status; i++) {
        finish_update(trainer, &training->works[i], update);
    }
    return status;
}

/* From rollouts to the last update; candidates hold the outcome. */
static Status train(const Trainer *trainer, Work *works, int n, StepArena *scratch, Error *error)
{
    int capacity = 0, longest = 1, updates = 1;
    for (int i = 0; i < n; i++) {
        Work *work = &works[i];
        capacity += work->n_groups + work->n_members;
        updates = n_updates(work) > updates ? n_updates(work) : updates;
        judge(work, scratch);
        for (int m = 0; m < work->n_members; m++) {
            int length = work->members[m].rollout->completion.n;
            longest = length > longest ? length : longest;
        }
    }
    uint8_t *ones = arena_alloc(scratch, (size_t)longest, 1);
    memset(ones, 1, (size_t)longest);
    Training training = {
        .trainer = trainer, .works = works, .n = n, .ones = ones, .scratch = scratch};
    Learner **learners = arena_alloc(scratch, (size_t)n, sizeof *learners);
    for (int i = 0; i < n; i++) {
        learners[i] = works[i].candidate->learner;
    }
    member_list_init(&training.look, capacity, learners, n, scratch);
    member_list_init(&training.learn, capacity, learners, n, scratch);
    Status status = score_base(&training, error);
    status = status ? status : score_old(&training, error);
    for (int update = 0; update < updates && !status; update++) {
        status = run_update(&training, update, error);
    }
    return status;
}

Status grpo_step(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                 Error *error)
{
    StepArena *scratch = arena_new();
    Candidate *candidates = candidates_begin(trainer, learners, n, results, scratch);
    Work *works = arena_alloc(scratch, (size_t)n, sizeof *works);
    int *rows = arena_alloc(scratch, (size_t)n, sizeof *rows);
    long *tokens = arena_alloc(scratch, (size_t)n, sizeof *tokens);
    for (int i = 0; i < n; i++) {
        work_begin(&works[i], &candidates[i], scratch);
    }
    Samples samples;
    Status status = grpo_sample(&samples, trainer, works, n, scratch, error);
    if (!status) {
        status = train(trainer, works, n, scratch, error);
    }
    for (int i = 0; i < n && !status; i++) {
        rows[i] = works[i].n_groups;
        tokens[i] = works[i].n_seen;
        if (candidate_alive(&candidates[i])) {
            grpo_report(&works[i]);
        }
        grpo_keep_completions(&works[i]);
    }
    if (!status) {
        candidates_commit(candidates, n, tokens, rows);
    }
    candidates_restore(candidates, n, trainer);
    grpo_samples_free(&samples);
    arena_free(scratch);
    return status;
}
