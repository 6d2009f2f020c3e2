/* analysis/evaluate computes and compares; here is what a run's settings make of it, and what is
 * skipped. */
#include "experiments/scoring.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/extract.h"

/* Rows sampled together and committed: few at first, so that who is killed again and again gets on,
 * then more, so that the machine is full. No number depends on them. */
enum { FIRST_ROWS = 4, PIECE_ROWS = 64 };

/* The reward's settings: a base row under another reward is another row. */
static void reward_identity(const RunSpec *spec, Text *out)
{
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        for (int j = 0; strncmp(setting->path, "reward.", 7) == 0 && j < spec->n_rewards; j++) {
            text_printf(out, "%s.%d=", setting->path, j);
            setting_value_json(spec, setting, j, out);
            text_add(out, ";");
        }
    }
}

Status scoring_open(Scoring *scoring, Workbench *bench, const RunSpec *spec, const char *path,
                    int n_rows, Error *error)
{
    const Task *task;
    memset(scoring, 0, sizeof *scoring);
    Status status = workbench_task(bench, &task, spec, path, n_rows, error);
    status = status ? status : reward_from_spec(&scoring->reward, spec, bench->world, error);
    if (status) {
        return status;
    }
    reward_identity(spec, &scoring->identity);
    scoring->model = spec->model;
    scoring->sampling = (Sampling){.greedy = spec->eval.greedy,
                                   .temperature = spec->eval.temperature,
                                   .top_p = 1,
                                   .max_new_tokens = spec->eval.max_new_tokens};
    scoring->settings = (EvaluateSettings){.task = task,
                                           .sampling = &scoring->sampling,
                                           .samples = spec->eval.greedy ? 1 : spec->eval.samples,
                                           .pass_k = spec->eval.pass_k > 1 ? spec->eval.pass_k : 0,
                                           .seed = (uint64_t)spec->eval.seed,
                                           .reward = scoring->reward,
                                           .answers_nll = strcmp(spec->method, "sft") == 0,
                                           .identity = text_string(&scoring->identity)};
    evaluate_describe(&scoring->task, &scoring->settings);
    evaluate_base_run_id(&scoring->base_run_id, &scoring->settings);
    return STATUS_OK;
}

void scoring_close(Scoring *scoring)
{
    reward_free(scoring->reward);
    text_release(&scoring->identity);
    text_release(&scoring->task);
    text_release(&scoring->base_run_id);
    memset(scoring, 0, sizeof *scoring);
}

Status scoring_find(const Scoring *scoring, Store *store, const char *run_id, int64_t step,
                    bool *found, double *value, double *standard_error, Error *error)
{
    Evaluation numbers;
    const char *task = text_string(&scoring->task);
    *value = *standard_error = NAN;
    Status status =
        store_has_evaluation(store, run_id, step, task, "reward", found, &numbers, error);
    if (!status && *found && scoring->settings.answers_nll) { /* a base scored for GRPO has none */
        Evaluation nll;
        status = store_has_evaluation(store, run_id, step, task, "nll", found, &nll, error);
    }
    if (!status && *found && scoring->settings.pass_k) {
        char name[40];
        snprintf(name, sizeof name, "%s@%d", extractors[0]->name, scoring->settings.pass_k);
        status = store_has_evaluation(store, run_id, step, task, name, found, NULL, error);
    }
    if (!status && *found) {
        *value = numbers.value;
        *standard_error = numbers.standard_error;
    }
    return status;
}

/* Someone who is scored, and the answers so far: (n_rows, samples), of a row all or none. */
typedef struct {
    const char *run_id;
    int64_t step;
    int adapter;
    Rollout *rollouts;
} Subject;

typedef struct {
    const Scoring *scoring;
    const Trainer *trainer;
    Subject *subjects; /* (n) */
    size_t n;
    int n_rows, samples;
    double now_s;
    int rows_done, piece_rows; /* before the piece, in it: for progress */
} Work;

static bool has_row(const Work *work, const Subject *subject, int row)
{
    for (int s = 0; s < work->samples; s++) {
        if (!subject->rollouts[row * work->samples + s].text) {
            return false;
        }
    }
    return true;
}

typedef struct {
    const Work *work;
    Subject *subject;
} Taking;

static void take_stored(void *context, const EvalCompletion *stored)
{
    const Taking *taking = context;
    const Work *work = taking->work;
    int64_t row = stored->row - work->scoring->settings.first_row;
    if (row < 0 || row >= work->n_rows || stored->sample < 0 || stored->sample >= work->samples) {
        return;
    }
    Rollout *rollout = &taking->subject->rollouts[row * work->samples + stored->sample];
    Text text = {0};
    text_append(&text, stored->text, stored->n_text);
    *rollout =
        (Rollout){.text = text.bytes,
                  .n_text = text.n,
                  .completion = {.n = stored->n_tokens,
                                 .finish = strcmp(stored->finish, "stop") == 0 ? FINISH_STOP
                                                                               : FINISH_LENGTH}};
}

/* Rows are counted over the whole evaluation, not the piece. */
static int on_progress(void *context, const char *phase, int done, int total, long tokens)
{
    const Work *work = context;
    const Trainer *trainer = work->trainer;
    if (strcmp(phase, "rollout") == 0) {
        done = work->rows_done + (total ? done * work->piece_rows / total : 0);
        total = work->n_rows;
        phase = "evaluation";
    }
    return trainer->progress(trainer->progress_context, phase, done, total, tokens);
}

static Trainer watched(Work *work)
{
    Trainer trainer = *work->trainer;
    if (trainer.progress) {
        trainer.progress = on_progress;
        trainer.progress_context = work;
    }
    return trainer;
}

/* Commit the answers of rows first .. first + n_rows of the chosen subjects, and keep them. */
static Status keep_piece(Work *work, Store *store, const size_t *chosen, size_t n, int first,
                         int n_rows, Rollout **rollouts, Error *error)
{
    const EvaluateSettings *settings = &work->scoring->settings;
    size_t size = (size_t)n_rows * (size_t)work->samples, at = 0;
    EvalCompletion *rows = calloc(n * size + 1, sizeof *rows);
    for (size_t k = 0; k < n && rows; k++) {
        const Subject *subject = &work->subjects[chosen[k]];
        for (size_t i = 0; i < size; i++) {
            const Rollout *rollout = &rollouts[k][i];
            int row = settings->first_row + first + (int)(i / (size_t)work->samples);
            rows[at++] = (EvalCompletion){.run_id = subject->run_id,
                                          .step = subject->step,
                                          .row = row,
                                          .sample = (int)(i % (size_t)work->samples),
                                          .n_tokens = rollout->completion.n,
                                          .text = rollout->text,
                                          .n_text = rollout->n_text,
                                          .answer = settings->task->dataset.rows[row].answer,
                                          .finish = evaluate_finish(rollout)};
        }
    }
    Status status = rows ? store_eval_completions(store, text_string(&work->scoring->task), rows,
                                                  at, work->scoring->model, work->now_s, error)
                         : error_set(error, STATUS_FAILED, "out of memory");
    free(rows);
    for (size_t k = 0; k < n; k++) {
        Rollout *kept = work->subjects[chosen[k]].rollouts + (size_t)first * (size_t)work->samples;
        for (size_t i = 0; i < size; i++) {
            free(kept[i].text); /* of a row that was there in part */
            kept[i] = rollouts[k][i];
        }
        free(rollouts[k]); /* its contents have moved */
    }
    return status;
}

/* Sample what is missing of a piece of rows. */
static Status sample_piece(Work *work, Store *store, int first, int n_rows, Error *error)
{
    EvaluateSettings settings = work->scoring->settings;
    Trainer trainer = watched(work);
    size_t *chosen = malloc((work->n + 1) * sizeof *chosen), n = 0;
    int *adapters = malloc((work->n + 1) * sizeof *adapters);
    Rollout **rollouts = calloc(work->n + 1, sizeof *rollouts);
    Status status = chosen && adapters && rollouts
                        ? STATUS_OK
                        : error_set(error, STATUS_FAILED, "out of memory");
    for (size_t i = 0; i < work->n && !status; i++) {
        bool missing = false;
        for (int row = first; row < first + n_rows; row++) {
            missing |= !has_row(work, &work->subjects[i], row);
        }
        if (missing) {
            adapters[n] = work->subjects[i].adapter;
            chosen[n++] = i;
        }
    }
    if (!status && n) {
        settings.first_row += first;
        settings.n_rows = n_rows;
        work->rows_done = first;
        work->piece_rows = n_rows;
        status = evaluate_sample(rollouts, &trainer, &settings, adapters, (int)n, error);
        status =
            status ? status : keep_piece(work, store, chosen, n, first, n_rows, rollouts, error);
    }
    free(chosen);
    free(adapters);
    free(rollouts);
    return status;
}

static bool all_have(const Work *work, int row)
{
    bool all = true;
    for (size_t i = 0; i < work->n; i++) {
        all = all && has_row(work, &work->subjects[i], row);
    }
    return all;
}

/* All answers of all subjects: those that are stored, and the others sampled and stored. */
static Status sample_missing(Work *work, Store *store, Error *error)
{
    Status status = STATUS_OK;
    for (size_t i = 0; i < work->n && !status; i++) {
        Subject *subject = &work->subjects[i];
        subject->rollouts =
            calloc((size_t)work->n_rows * (size_t)work->samples + 1, sizeof *subject->rollouts);
        status = subject->rollouts
                     ? store_eval_completions_read(store, subject->run_id, subject->step,
                                                   text_string(&work->scoring->task), take_stored,
                                                   &(Taking){work, subject}, error)
                     : error_set(error, STATUS_FAILED, "out of memory");
    }
    for (int first = 0, piece = FIRST_ROWS; first < work->n_rows && !status;) {
        int n_rows = work->n_rows - first < piece ? work->n_rows - first : piece;
        if (all_have(work, first)) {
            first++;
            continue;
        }
        status = sample_piece(work, store, first, n_rows, error);
        first += n_rows;
        piece = 2 * piece < PIECE_ROWS ? 2 * piece : PIECE_ROWS;
    }
    return status;
}

/* Scores of all subjects, the base's first, so that the others find it. */
static Status score_all(Work *work, Store *store, Error *error)
{
    const Scoring *scoring = work->scoring;
    const char *base = text_string(&scoring->base_run_id);
    int *adapters = malloc((work->n + 1) * sizeof *adapters);
    Evaluated *evaluated = calloc(work->n + 1, sizeof *evaluated);
    Rollout **rollouts = calloc(work->n + 1, sizeof *rollouts);
    Status status = adapters && evaluated && rollouts
                        ? STATUS_OK
                        : error_set(error, STATUS_FAILED, "out of memory");
    for (size_t i = 0; i < work->n && !status; i++) {
        adapters[i] = work->subjects[i].adapter;
        rollouts[i] = work->subjects[i].rollouts;
        work->subjects[i].rollouts = NULL; /* evaluated's from here on */
    }
    if (!status) {
        status = evaluate_score(evaluated, work->trainer, &scoring->settings, adapters,
                                (int)work->n, rollouts, error);
    }
    for (size_t i = 0; i < work->n && !status; i++) {
        const Subject *subject = &work->subjects[i];
        bool is_base = subject->run_id == base;
        status = evaluate_store(store, subject->run_id, subject->step, &scoring->settings,
                                &evaluated[i], is_base ? NULL : base,
                                is_base ? scoring->model : NULL, work->now_s, error);
    }
    for (size_t i = 0; evaluated && i < work->n; i++) {
        evaluated_release(&evaluated[i]);
    }
    free(adapters);
    free(evaluated);
    free(rollouts);
    return status;
}

Status scoring_run(const Scoring *scoring, const Trainer *trainer, Store *store,
                   const ScoringItem *items, size_t n, double now_s, Error *error)
{
    const char *base = text_string(&scoring->base_run_id);
    const EvaluateSettings *settings = &scoring->settings;
    bool has_base = false;
    double value, standard_error;
    Status status =
        scoring_find(scoring, store, base, 0, &has_base, &value, &standard_error, error);
    Subject *subjects = calloc(n + 1, sizeof *subjects);
    if (status || !subjects) {
        free(subjects);
        return status ? status : error_set(error, STATUS_FAILED, "out of memory");
    }
    Work work = {.scoring = scoring,
                 .trainer = trainer,
                 .subjects = subjects,
                 .n_rows = settings->task->n_rows,
                 .samples = settings->samples,
                 .now_s = now_s};
    assert(settings->sampling && settings->first_row == 0 && settings->n_rows == 0);
    if (!has_base) {
        subjects[work.n++] = (Subject){.run_id = base};
    }
    for (size_t i = 0; i < n; i++) {
        subjects[work.n++] = (Subject){
            .run_id = items[i].run_id, .step = items[i].step, .adapter = items[i].adapter};
    }
    status = sample_missing(&work, store, error);
    status = status ? status : score_all(&work, store, error);
    for (size_t i = 0; i < work.n; i++) {
        rollouts_free(subjects[i].rollouts, work.n_rows * work.samples);
    }
    free(subjects);
    return status;
}
