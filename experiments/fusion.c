/* The lockstep loop: evaluate what is due, end what is done, advance the cells that are furthest
 * behind. */
#include "experiments/fusion.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experiments/scoring.h"
#include "experiments/stop_rules.h"
#include "rl/checkpoint.h"
#include "rl/learner.h"

enum { SMALL_CHECKPOINT = 64 * 1024, KEEP_OF_LARGE = 2, STALE_S = 60 };
enum { LEARNER_BYTES = 56 }; /* a parameter: v and moments, copied by a step, checkpoint, bank */
#define FUSION_BYTES 2e9     /* of all learners of a batch */

typedef struct {
    Cell *cell;
    Learner *learner;
    int64_t attempt;
    bool active;
} Member;

struct Fusion {
    Workbench *bench;
    AdapterBank *bank;
    Reward *reward;
    Scoring scoring;
    Trainer trainer;
    Member *members;
    size_t n;
    Progress *progress;
    Status (*watch)(void *context, int64_t step, Error *error); /* NULL: nobody */
    void *watch_context;
};

bool fusion_fits(const Cell *a, const Cell *b)
{
    static const char *const shared[] = {"adapter.", "data.",   "reward.",
                                         "eval.",    "engine.", "method"};
    bool fits = strcmp(a->directory, b->directory) == 0 && a->spec.n_rewards == b->spec.n_rewards;
    for (size_t i = 0; i < settings_count() && fits; i++) {
        for (size_t j = 0; j < sizeof shared / sizeof shared[0]; j++) {
            const char *path = setting_at(i)->path;
            if (strncmp(path, shared[j], strlen(shared[j])) == 0) {
                fits &= setting_same(&a->spec, &b->spec, setting_at(i));
            }
        }
    }
    return fits;
}

size_t fusion_limit(const Cell *cell)
{
    double bytes = (double)cell->budget * LEARNER_BYTES;
    return strcmp(cell->adapter.method, "full") == 0 ? 1
           : bytes * FUSION_MAX <= FUSION_BYTES      ? FUSION_MAX
           : bytes <= FUSION_BYTES                   ? (size_t)(FUSION_BYTES / bytes)
                                                     : 1;
}

static void show(Fusion *fusion, const char *phase, int done, int total, long tokens)
{
    const World *world = fusion->bench->world;
    fusion->progress->phase = phase;
    fusion->progress->phase_done = done;
    fusion->progress->phase_total = total;
    fusion->progress->tokens = tokens;
    world->progress(world->context, fusion->progress);
}

static int on_progress(void *context, const char *phase, int done, int total, long tokens)
{
    Fusion *fusion = context;
    const World *world = fusion->bench->world;
    show(fusion, phase, done, total, tokens);
    return world->stopping(world->context);
}

static void on_factors(void *context, int done, int total)
{
    show(context, "factors", done, total, 0);
}

static double now(const Fusion *fusion)
{
    return fusion->bench->world->now_s(fusion->bench->world->context);
}

static void loss_settings(GrpoSettings *grpo, const RunSpec *spec)
{
    grpo->loss = loss_find(spec->grpo.loss);
    grpo->objective = (Objective){
        .clip_low = spec->grpo.clip_low,
        .clip_high = spec->grpo.clip_high,
        .delta = spec->grpo.delta,
        .kl_beta = spec->grpo.kl_beta,
        .sequence_ratios = strcmp(spec->grpo.importance_sampling_level, "sequence") == 0};
    grpo->entropy_coef = spec->grpo.entropy_coef;
    advantage_scale_find(&grpo->scale_rewards, spec->grpo.scale_rewards);
    advantage_baseline_find(&grpo->baseline, spec->grpo.baseline);
    grpo->updates_per_batch = spec->grpo.updates_per_batch;
    grpo->minibatches = spec->grpo.minibatches;
    grpo->mask_truncated = spec->grpo.mask_truncated_completions;
    grpo->overlong_buffer = spec->grpo.overlong_buffer;
    grpo->overlong_factor = spec->grpo.overlong_factor;
    grpo->resample_rounds = spec->grpo.dynamic_sampling;
    grpo->rollout_bf16 = strcmp(spec->grpo.rollout, "bf16") == 0;
    correction_find(&grpo->correction, spec->grpo.importance_sampling_mode);
    grpo->correction_min = spec->grpo.importance_sampling_clip_min;
    grpo->correction_max = spec->grpo.importance_sampling_clip_max;
}

static void settings_from_spec(TrainSettings *settings, const RunSpec *spec)
{
    bool sft = strcmp(spec->method, "sft") == 0;
    *settings = train_settings_defaults();
    settings->method = sft ? METHOD_SFT : METHOD_GRPO;
    settings->seed = (uint64_t)spec->seed;
    settings->steps = spec->steps;
    settings->micro_batch = spec->micro_batch;
    checkpointing_find(&settings->checkpointing, spec->engine.activation_checkpointing);
    precision_find(&settings->precision, spec->engine.precision);
    settings->loss_scale = spec->engine.loss_scale;
    settings->loss_scale_window = spec->engine.loss_scale_window;
    settings->sft.batch_size = spec->sft.batch_size;
    settings->sft.label_smoothing = spec->sft.label_smoothing;
    settings->sft.whole = strcmp(spec->sft.loss_on, "all") == 0;
    settings->grpo.prompts_per_step = spec->grpo.prompts_per_step;
    settings->grpo.group_size = spec->grpo.group_size;
    settings->grpo.sampling = (Sampling){.temperature = spec->grpo.temperature,
                                         .top_p = spec->grpo.top_p,
                                         .top_k = spec->grpo.top_k,
                                         .min_p = spec->grpo.min_p,
                                         .penalty = spec->grpo.repetition_penalty,
                                         .max_new_tokens = spec->grpo.max_new_tokens};
    loss_settings(&settings->grpo, spec);
    settings->optimizer = optimizer_find(spec->optimizer.name);
    settings->optimizer_settings = (OptimizerSettings){.beta1 = spec->optimizer.beta1,
                                                       .beta2 = spec->optimizer.beta2,
                                                       .epsilon = spec->optimizer.epsilon,
                                                       .weight_decay = spec->optimizer.weight_decay,
                                                       .momentum = spec->optimizer.momentum};
    settings->lr = spec->optimizer.lr;
    schedule_find(&settings->schedule.kind, spec->optimizer.schedule);
    settings->schedule.warmup_steps = spec->optimizer.warmup_steps;
    settings->grad_clip = spec->optimizer.grad_clip;
}

static Status open_learners(Fusion *fusion, Error *error)
{
    const RunSpec *first = &fusion->members[0].cell->spec;
    const Task *task;
    Workbench *bench = fusion->bench;
    Status status = workbench_task(bench, &task, first, first->data.train, 0, error);
    status = status ? status
                    : scoring_open(&fusion->scoring, bench, first,
                                   fusion->members[0].cell->held_out, first->eval.rows, error);
    status = status ? status : reward_from_spec(&fusion->reward, first, bench->world, error);
    status = status
                 ? status
                 : adapter_bank_new(&fusion->bank, bench->model, &fusion->members[0].cell->adapter,
                                    (int)fusion->n, bench->world->n_threads, bench->world->cache,
                                    on_factors, fusion, error);
    for (size_t i = 0; i < fusion->n && !status; i++) {
        Member *member = &fusion->members[i];
        TrainSettings settings;
        settings_from_spec(&settings, &member->cell->spec);
        status =
            learner_new(&member->learner, &settings, task, fusion->reward, fusion->bank, error);
    }
    return status;
}

Status fusion_open(Fusion **fusion_out, Workbench *bench, Cell **cells, size_t n,
                   Progress *progress, Error *error)
{
    Status status = workbench_model(bench, cells[0]->directory, error);
    status = status ? status : workbench_expect(bench, cells[0]->weights_sha256, error);
    if (status) {
        return status;
    }
    Fusion *fusion = calloc(1, sizeof *fusion);
    Member *members = calloc(n, sizeof *members);
    if (!fusion || !members) {
        free(fusion);
        free(members);
        return error_set(error, STATUS_FAILED, "out of memory for %zu cells", n);
    }
    fusion->bench = bench;
    fusion->members = members;
    fusion->n = n;
    fusion->progress = progress;
    for (size_t i = 0; i < n; i++) {
        members[i].cell = cells[i];
        members[i].active = true;
    }
    status = open_learners(fusion, error);
    if (status) {
        fusion_close(fusion);
        return status;
    }
    fusion->trainer = (Trainer){bench->engine, fusion->bank, on_progress, fusion};
    *fusion_out = fusion;
    return STATUS_OK;
}

void fusion_close(Fusion *fusion)
{
    if (!fusion) {
        return;
    }
    bool changed = strcmp(fusion->members[0].cell->adapter.method, "full") == 0;
    for (size_t i = 0; i < fusion->n; i++) {
        learner_free(fusion->members[i].learner);
    }
    adapter_bank_free(fusion->bank);
    reward_free(fusion->reward);
    scoring_close(&fusion->scoring);
    if (changed) {
        workbench_forget(fusion->bench);
    }
    free(fusion->members);
    free(fusion);
}

static int keep_checkpoints(const Member *member, size_t n_bytes)
{
    int keep = member->cell->spec.checkpoint.keep;
    return keep || n_bytes <= SMALL_CHECKPOINT ? keep : KEEP_OF_LARGE;
}

/* A line about a cell. */
__attribute__((format(printf, 3, 4))) static void say(Fusion *fusion, const Member *member,
                                                      const char *format, ...)
{
    const World *world = fusion->bench->world;
    const char *label = text_string(&member->cell->label);
    Text line = {0};
    va_list arguments;
    text_printf(&line, "run %s%s%s: ", member->cell->run_id, *label ? " " : "", label);
    va_start(arguments, format);
    text_vprintf(&line, format, arguments);
    va_end(arguments);
    world->note(world->context, text_string(&line));
    text_release(&line);
}

/* A cell leaves the batch: its run and this attempt get their ends. */
static Status end_member(Fusion *fusion, Store *store, Member *member, RunState state,
                         const char *reason, double objective, double standard_error, Error *error)
{
    const char *run_id = member->cell->run_id;
    Status status = store_attempt_end(store, run_id, member->attempt, run_state_name(state),
                                      now(fusion), error);
    status = status ? status
                    : store_run_end(store, run_id, state, reason, objective, standard_error,
                                    now(fusion), error);
    member->active = false;
    member->cell->state = state;
    fusion->progress->n_done += state == RUN_DONE;
    fusion->progress->n_failed += state == RUN_FAILED;
    if (state == RUN_FAILED || state == RUN_CANCELLED) {
        say(fusion, member, "%s: %s", run_state_name(state), reason);
    }
    return status;
}

/* Before its steps are done. */
static Status break_member(Fusion *fusion, Store *store, Member *member, RunState state,
                           const char *reason, Error *error)
{
    fusion->progress->steps_total -= member->learner->settings.steps - member->learner->step;
    return end_member(fusion, store, member, state, reason, NAN, NAN, error);
}

/* Begin an attempt and take the state of the newest checkpoint; a new run commits its start as step
 * 0. */
static Status begin_member(Fusion *fusion, Store *store, Member *member, Error *error)
{
    const World *world = fusion->bench->world;
    const char *run_id = member->cell->run_id;
    Worker worker = {world->host, world->pid, world->boot_id, world->environment};
    void *blob = NULL;
    size_t n_bytes = 0;
    int64_t step = -1, damaged = -1;
    Error why = {0};
    /* This process holds the writer's lock: whoever worked on the run before is gone. */
    Status status =
        store_attempt_begin(store, run_id, &worker, now(fusion),
                            store_on_network(store) ? STALE_S : 0, &member->attempt, error);
    if (status) {
        return status;
    }
    Status readable =
        store_resume(store, run_id, now(fusion), &step, &blob, &n_bytes, &damaged, &why);
    if (damaged >= 0) {
        say(fusion, member, "the checkpoint of step %lld is damaged; it goes on from step %lld",
            (long long)damaged, (long long)(step < 0 ? 0 : step));
    }
    if (!readable && blob) {
        readable = checkpoint_read(member->learner, blob, n_bytes, &why);
    }
    if (readable == STATUS_REFUSED) {
        status = break_member(fusion, store, member, RUN_FAILED, why.message, error);
    } else if (readable) {
        status = error_set(error, readable, "%s", why.message);
    } else if (!blob) {
        StepRecord record = {.run_id = run_id, .attempt = member->attempt, .now_s = now(fusion)};
        if (member->cell->start) {
            memcpy(member->learner->v, member->cell->start,
                   member->learner->n * sizeof *member->learner->v);
        }
        checkpoint_write(&blob, &n_bytes, member->learner);
        record.checkpoint = blob;
        record.checkpoint_bytes = n_bytes;
        status = store_steps(store, &record, 1, error);
    }
    free(blob);
    if (member->active) {
        member->cell->state = RUN_RUNNING;
        member->cell->last_step = member->learner->step;
        fusion->progress->steps_done += member->learner->step;
    }
    return status;
}

/* The active members that are furthest behind and not yet at `until`: indices into members; returns
 * how many. */
static size_t furthest_behind(const Fusion *fusion, size_t *chosen, int64_t until)
{
    int64_t least = until;
    size_t n = 0;
    for (size_t i = 0; i < fusion->n; i++) {
        const Member *member = &fusion->members[i];
        if (member->active && member->learner->step < least) {
            least = member->learner->step;
        }
    }
    for (size_t i = 0; i < fusion->n; i++) {
        if (least < until && fusion->members[i].active &&
            fusion->members[i].learner->step == least) {
            chosen[n++] = i;
        }
    }
    return n;
}

static bool evaluation_due(const Member *member)
{
    int64_t step = member->learner->step;
    int every = member->cell->spec.eval.every;
    return step == member->learner->settings.steps || (step > 0 && every > 0 && step % every == 0);
}

/* Evaluate those of the chosen that are due and not yet stored. */
static Status evaluate_due(Fusion *fusion, Store *store, const size_t *chosen, size_t n,
                           Error *error)
{
    ScoringItem items[FUSION_MAX];
    size_t n_items = 0;
    for (size_t i = 0; i < n; i++) {
        const Member *member = &fusion->members[chosen[i]];
        const char *run_id = member->cell->run_id;
        int64_t step = member->learner->step;
        bool found;
        double value, standard_error;
        if (!evaluation_due(member)) {
            continue;
        }
        Status status = scoring_find(&fusion->scoring, store, run_id, step, &found, &value,
                                     &standard_error, error);
        if (status) {
            return status;
        }
        if (!found) {
            int adapter = (int)n_items + 1;
            adapter_set(fusion->bank, adapter, member->learner->v, fusion->bench->world->n_threads);
            items[n_items++] = (ScoringItem){run_id, step, adapter};
        }
    }
    return n_items == 0 ? STATUS_OK
                        : scoring_run(&fusion->scoring, &fusion->trainer, store, items, n_items,
                                      now(fusion), error);
}

/* End those that have done all their steps; the others stay in chosen. */
static Status end_finished(Fusion *fusion, Store *store, size_t *chosen, size_t *n, Error *error)
{
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++) {
        Member *member = &fusion->members[chosen[i]];
        double value = NAN, standard_error = NAN;
        bool found;
        if (member->learner->step < member->learner->settings.steps) {
            chosen[kept++] = chosen[i];
            continue;
        }
        Status status = scoring_find(&fusion->scoring, store, member->cell->run_id,
                                     member->learner->step, &found, &value, &standard_error, error);
        status = status ? status
                        : end_member(fusion, store, member, RUN_DONE, NULL, value, standard_error,
                                     error);
        if (status) {
            return status;
        }
    }
    *n = kept;
    return STATUS_OK;
}

/* End those that a rule of theirs stops; the others stay in chosen. */
static Status end_stopped(Fusion *fusion, Store *store, size_t *chosen, size_t *n, Error *error)
{
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++) {
        Member *member = &fusion->members[chosen[i]];
        Text reason = {0};
        Status status = stop_rules_ask(&reason, store, &member->cell->spec, member->cell->run_id,
                                       member->learner->step, error);
        if (!status && reason.n) {
            status = break_member(fusion, store, member, RUN_CANCELLED, reason.bytes, error);
        } else {
            chosen[kept++] = chosen[i];
        }
        text_release(&reason);
        if (status) {
            return status;
        }
    }
    *n = kept;
    return STATUS_OK;
}

static double metric_of(const StepResult *result, const char *key)
{
    for (size_t i = 0; i < result->n_metrics; i++) {
        if (strcmp(result->metrics[i].key, key) == 0) {
            return result->metrics[i].value;
        }
    }
    return NAN;
}

/* One transaction for all that advanced, then an end for each that did not. */
static Status commit(Fusion *fusion, Store *store, const size_t *chosen, size_t n,
                     const StepResult *results, double seconds, Error *error)
{
    StepRecord records[FUSION_MAX];
    Metric *metrics[FUSION_MAX] = {0};
    Progress *progress = fusion->progress;
    size_t n_records = 0;
    double sum = 0;
    Status status = STATUS_OK;
    for (size_t i = 0; i < n && !status; i++) {
        const StepResult *result = &results[i];
        Member *member = &fusion->members[chosen[i]];
        if (result->status) {
            continue;
        }
        bool keep = result->step % member->cell->spec.checkpoint.every == 0 ||
                    result->step == member->learner->settings.steps;
        metrics[n_records] = malloc((result->n_metrics + 1) * sizeof(Metric));
        if (!metrics[n_records]) {
            status = error_set(error, STATUS_FAILED, "out of memory");
            break;
        }
        memcpy(metrics[n_records], result->metrics, result->n_metrics * sizeof(Metric));
        metrics[n_records][result->n_metrics] = (Metric){"step_time", seconds};
        records[n_records] =
            (StepRecord){.run_id = member->cell->run_id,
                         .attempt = member->attempt,
                         .step = result->step,
                         .metrics = metrics[n_records],
                         .n_metrics = result->n_metrics + 1,
                         .completions = result->completions,
                         .n_completions = result->n_completions,
                         .events = result->events,
                         .n_events = result->n_events,
                         .checkpoint = keep ? result->checkpoint : NULL,
                         .checkpoint_bytes = keep ? result->checkpoint_bytes : 0,
                         .keep_checkpoints = keep_checkpoints(member, result->checkpoint_bytes),
                         .now_s = now(fusion)};
        sum += metric_of(result, progress->measure);
        member->cell->last_step = result->step;
        progress->step = result->step;
        progress->steps = member->learner->settings.steps;
        n_records++;
    }
    if (!status && n_records) {
        status = store_steps(store, records, n_records, error);
        progress->reward = sum / (double)n_records;
        progress->steps_done += (int64_t)n_records;
    }
    for (size_t i = 0; i < n_records; i++) {
        free(metrics[i]);
    }
    for (size_t i = 0; i < n && !status; i++) {
        if (results[i].status) {
            status = break_member(fusion, store, &fusion->members[chosen[i]], RUN_FAILED,
                                  results[i].error.message, error);
        }
    }
    return status;
}

static Status advance(Fusion *fusion, Store *store, const size_t *chosen, size_t n, Error *error)
{
    Learner *learners[FUSION_MAX];
    StepResult results[FUSION_MAX] = {0};
    const World *world = fusion->bench->world;
    double began_s = world->clock_s(world->context);
    for (size_t i = 0; i < n; i++) {
        learners[i] = fusion->members[chosen[i]].learner;
    }
    fusion->progress->n_fused = (int)n;
    Error why = {{0}};
    Status status = learner_step(&fusion->trainer, learners, (int)n, results, &why);
    if (status) {
        error_set(error, status, "%s", why.message);
    }
    for (size_t i = 0; i < n && status == STATUS_FAILED; i++) { /* memory, a reward command */
        store_event(store, fusion->members[chosen[i]].cell->run_id, learners[i]->step, "failed",
                    why.message, now(fusion), NULL);
    }
    if (!status) {
        status = commit(fusion, store, chosen, n, results, world->clock_s(world->context) - began_s,
                        error);
        show(fusion, "step", 1, 1, 0);
    }
    for (size_t i = 0; i < n; i++) {
        step_result_release(&results[i]);
    }
    return status;
}

static Status run_members(Fusion *fusion, Store *store, int64_t until, Error *error)
{
    const World *world = fusion->bench->world;
    Status status = STATUS_OK;
    for (size_t i = 0; i < fusion->n && !status; i++) {
        Member *member = &fusion->members[i];
        if (member->cell->state == RUN_DONE) { /* by another process, while this one waited */
            member->active = false;
            fusion->progress->n_done++;
        } else {
            status = begin_member(fusion, store, member, error);
        }
    }
    while (!status) {
        size_t chosen[FUSION_MAX];
        size_t n = furthest_behind(fusion, chosen, until);
        if (n == 0) {
            break;
        }
        if (world->stopping(world->context)) {
            return error_set(error, STATUS_STOPPED, "stopped");
        }
        status = evaluate_due(fusion, store, chosen, n, error);
        if (!status && fusion->watch) {
            status = fusion->watch(fusion->watch_context, fusion->members[chosen[0]].learner->step,
                                   error);
        }
        status = status ? status : end_finished(fusion, store, chosen, &n, error);
        status = status ? status : end_stopped(fusion, store, chosen, &n, error);
        if (!status && n) {
            status = advance(fusion, store, chosen, n, error);
        }
    }
    return status;
}

void fusion_watch(Fusion *fusion, Status (*watch)(void *context, int64_t step, Error *error),
                  void *context)
{
    fusion->watch = watch;
    fusion->watch_context = context;
}

Status fusion_run(Fusion *fusion, Store *store, int64_t until, Error *error)
{
    Status status = run_members(fusion, store, until, error);
    const char *how = !status || status == STATUS_STOPPED ? "stopped" : "failed";
    for (size_t i = 0; i < fusion->n; i++) {
        const Member *member = &fusion->members[i];
        if (member->active && member->attempt > 0) {
            Status ended = store_attempt_end(store, member->cell->run_id, member->attempt, how,
                                             now(fusion), status ? NULL : error);
            status = status ? status : ended;
            member->cell->state = RUN_WAITING;
        }
    }
    return status;
}
