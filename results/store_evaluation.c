/* Evaluations and their per-row verdicts. A base model's row makes its own run, of kind 'base'. */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "results/store_private.h"

/* Unless it is there, or no base's. */
static Status insert_base_run(Store *store, const char *run_id, const char *model, double now_s,
                              Error *error)
{
    if (strncmp(run_id, "base:", 5) != 0) {
        return STATUS_OK;
    }
    return database_run(store->database,
                        "INSERT OR IGNORE INTO run (run_id, kind, identity, config, model, method, "
                        "adapter, budget, steps, last_step, state, created_at) VALUES (?1, 'base', "
                        "?1, '{}', ?2, 'base', 'none', 0, 0, 0, 'done', ?3)",
                        BIND(value_text(run_id), value_text(model ? model : ""), value_real(now_s)),
                        error);
}

static Status insert_evaluation(Store *store, const Evaluation *evaluation, double now_s,
                                Error *error)
{
    Status status = insert_base_run(store, evaluation->run_id, evaluation->model, now_s, error);
    if (status == STATUS_OK) {
        status =
            database_run(store->database,
                         "DELETE FROM evaluation WHERE run_id = ? AND step = ? AND task = ? AND "
                         "extractor = ?",
                         BIND(value_text(evaluation->run_id), value_integer(evaluation->step),
                              value_text(evaluation->task), value_text(evaluation->extractor)),
                         error);
    }
    if (status == STATUS_OK) {
        status = database_run(
            store->database,
            "INSERT INTO evaluation (run_id, step, task, extractor, n, value, standard_error, "
            "base_run_id, base_value, p_value, detail, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, "
            "?7, "
            "coalesce(?8, (SELECT min(b.run_id) FROM evaluation b JOIN run r USING (run_id) WHERE "
            "r.kind = 'base' AND b.task = ?3 AND b.extractor = ?4 AND b.value = ?9 AND b.run_id <> "
            "?1)), ?9, ?10, ?11, ?12)",
            BIND(value_text(evaluation->run_id), value_integer(evaluation->step),
                 value_text(evaluation->task), value_text(evaluation->extractor),
                 value_integer(evaluation->n), value_real(evaluation->value),
                 value_real(evaluation->standard_error), value_text(evaluation->base_run_id),
                 value_real(evaluation->base_value), value_real(evaluation->p_value),
                 value_text(evaluation->detail), value_real(now_s)),
            error);
    }
    if (status != STATUS_OK) {
        error_context(error, status, "evaluation of %s, step %" PRId64, evaluation->run_id,
                      evaluation->step);
    }
    return status;
}

static Status insert_completion(Store *store, const char *task, const EvalCompletion *c,
                                Error *error)
{
    return database_run(
        store->database,
        "INSERT INTO eval_completion (run_id, step, task, row, sample, text, answer, n_tokens, "
        "finish) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET text = "
        "excluded.text, answer = excluded.answer, n_tokens = excluded.n_tokens, finish = "
        "excluded.finish WHERE text <> excluded.text OR finish IS NOT excluded.finish",
        BIND(value_text(c->run_id), value_integer(c->step), value_text(task), value_integer(c->row),
             value_integer(c->sample), value_bytes(VALUE_TEXT, c->text, c->n_text),
             value_text(c->answer), value_integer(c->n_tokens), value_text(c->finish)),
        error);
}

Status store_eval_completions(Store *store, const char *task, const EvalCompletion *completions,
                              size_t n, const char *model, double now_s, Error *error)
{
    Status status = store_begin(store, error);
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        const char *run_id = completions[i].run_id;
        if (i == 0 || run_id != completions[i - 1].run_id) {
            status = insert_base_run(store, run_id, model, now_s, error);
        }
        status = status ? status : insert_completion(store, task, &completions[i], error);
    }
    return store_finish(store, status, error);
}

Status store_eval_completions_read(Store *store, const char *run_id, int64_t step, const char *task,
                                   void (*take)(void *context, const EvalCompletion *completion),
                                   void *context, Error *error)
{
    Statement *statement = NULL;
    bool more = true;
    Status status = database_rows(
        &statement, store->database,
        "SELECT row, sample, text, n_tokens, finish FROM eval_completion WHERE run_id = ? AND step "
        "= ? AND task = ? AND finish IS NOT NULL ORDER BY row, sample",
        BIND(value_text(run_id), value_integer(step), value_text(task)), error);
    while (status == STATUS_OK && more) {
        status = statement_next(statement, &more, error);
        if (status == STATUS_OK && more) {
            Value text = statement_value(statement, 2);
            take(context, &(EvalCompletion){.run_id = run_id,
                                            .step = step,
                                            .row = statement_integer(statement, 0),
                                            .sample = (int)statement_integer(statement, 1),
                                            .text = text.bytes,
                                            .n_text = text.n,
                                            .n_tokens = (int)statement_integer(statement, 3),
                                            .finish = statement_word(statement, 4)});
        }
    }
    statement_reset(statement);
    return store_fail(store, status, error);
}

static Status insert_sample(Store *store, const Evaluation *evaluation, const EvalSample *sample,
                            Error *error)
{
    Status status = STATUS_OK;
    if (sample->text) {
        const EvalCompletion completion = {evaluation->run_id, evaluation->step, sample->row,
                                           sample->sample,     sample->n_tokens, sample->text,
                                           sample->n_text,     sample->answer,   sample->finish};
        status = insert_completion(store, evaluation->task, &completion, error);
    }
    if (status == STATUS_OK) {
        status = database_run(
            store->database,
            "INSERT INTO eval_verdict (evaluation_id, row, sample, extracted, correct, score) "
            "SELECT "
            "evaluation_id, ?5, ?6, ?7, ?8, ?9 FROM evaluation WHERE run_id = ?1 AND step = ?2 AND "
            "task = ?3 AND extractor = ?4",
            BIND(value_text(evaluation->run_id), value_integer(evaluation->step),
                 value_text(evaluation->task), value_text(sample->extractor),
                 value_integer(sample->row), value_integer(sample->sample),
                 value_text(sample->extracted), value_integer(sample->correct),
                 value_real(sample->score)),
            error);
    }
    if (status == STATUS_OK && database_changes(store->database) != 1) {
        status = error_set(error, STATUS_FAILED, "samples under \"%s\", which was not evaluated",
                           sample->extractor);
    }
    return status;
}

Status store_evaluations(Store *store, const Evaluation *evaluations, size_t n_evaluations,
                         const EvalSample *samples, size_t n_samples, double now_s, Error *error)
{
    for (size_t i = 1; n_samples && i < n_evaluations; i++) {
        assert(strcmp(evaluations[i].run_id, evaluations[0].run_id) == 0 &&
               strcmp(evaluations[i].task, evaluations[0].task) == 0 &&
               evaluations[i].step == evaluations[0].step);
    }
    assert(n_evaluations || !n_samples);
    Status status = store_begin(store, error);
    for (size_t i = 0; status == STATUS_OK && i < n_evaluations; i++) {
        status = insert_evaluation(store, &evaluations[i], now_s, error);
    }
    for (size_t i = 0; status == STATUS_OK && i < n_samples; i++) {
        status = insert_sample(store, &evaluations[0], &samples[i], error);
    }
    return store_finish(store, status, error);
}

Status store_has_evaluation(Store *store, const char *run_id, int64_t step, const char *task,
                            const char *extractor, bool *found, Evaluation *out_numbers,
                            Error *error)
{
    Statement *statement = NULL;
    *found = false;
    Status status = database_rows(
        &statement, store->database,
        "SELECT n, value, standard_error, base_value, p_value FROM evaluation WHERE run_id = ? AND "
        "step = ? AND task = ? AND extractor = ?",
        BIND(value_text(run_id), value_integer(step), value_text(task), value_text(extractor)),
        error);
    if (status == STATUS_OK) {
        status = statement_next(statement, found, error);
    }
    if (status == STATUS_OK && *found && out_numbers) {
        *out_numbers = (Evaluation){.step = step,
                                    .n = statement_integer(statement, 0),
                                    .value = statement_real(statement, 1),
                                    .standard_error = statement_real(statement, 2),
                                    .base_value = statement_real(statement, 3),
                                    .p_value = statement_real(statement, 4)};
    }
    statement_reset(statement);
    return store_fail(store, status, error);
}

/* Values of one column in order of (row, sample): bytes, or doubles when real. */
static Status read_samples(Store *store, const char *sql, const char *run_id, int64_t step,
                           const char *task, const char *extractor, bool real, Text *out,
                           Error *error)
{
    Statement *statement = NULL;
    bool row = true;
    text_append(out, "", 0); /* never NULL */
    Status status = database_rows(
        &statement, store->database, sql,
        BIND(value_text(run_id), value_integer(step), value_text(task), value_text(extractor)),
        error);
    while (status == STATUS_OK && row) {
        status = statement_next(statement, &row, error);
        if (status == STATUS_OK && row && real) {
            double value = statement_real(statement, 0);
            text_append(out, (const char *)&value, sizeof value);
        } else if (status == STATUS_OK && row) {
            uint8_t value = statement_integer(statement, 0) != 0;
            text_append(out, (const char *)&value, 1);
        }
    }
    statement_reset(statement);
    if (status != STATUS_OK) {
        text_release(out);
    }
    return store_fail(store, status, error);
}

Status store_eval_verdicts(Store *store, const char *run_id, int64_t step, const char *task,
                           const char *extractor, uint8_t **correct, size_t *n, Error *error)
{
    Text verdicts = {0};
    Status status =
        read_samples(store,
                     "SELECT correct FROM eval_sample WHERE run_id = ? AND step = ? AND "
                     "task = ? AND extractor = ? ORDER BY row, sample",
                     run_id, step, task, extractor, false, &verdicts, error);
    if (status == STATUS_OK) {
        *correct = (uint8_t *)verdicts.bytes;
        *n = verdicts.n;
    }
    return status;
}

Status store_eval_scores(Store *store, const char *run_id, int64_t step, const char *task,
                         const char *extractor, double **scores, size_t *n, Error *error)
{
    Text bytes = {0};
    Status status = read_samples(store,
                                 "SELECT score FROM eval_sample WHERE run_id = ? AND step = ? AND "
                                 "task = ? AND extractor = ? ORDER BY row, sample",
                                 run_id, step, task, extractor, true, &bytes, error);
    if (status == STATUS_OK) {
        *scores = (double *)(void *)bytes.bytes; /* malloc's alignment */
        *n = bytes.n / sizeof **scores;
    }
    return status;
}
