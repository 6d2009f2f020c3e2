/* The one writer: experiments, runs, attempts, steps, events. Evaluations are in
 * store_evaluation.c, checkpoints are read in store_checkpoint.c.
 *
 * 1. Every public function is one transaction (BEGIN IMMEDIATE): all of it is stored or nothing is.
 * 2. A step is committed once: its keys refuse a second row, nothing is replaced silently.
 * 3. What is later than the checkpoint that a run goes on from is deleted before it goes on
 * (store_resume). */
#include "results/store.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sha256.h"
#include "results/store_private.h"

const char *run_state_name(RunState state)
{
    static const char *const names[] = {"waiting", "running", "done", "failed", "cancelled"};
    return names[state];
}

RunState run_state_of(const char *name)
{
    RunState state = RUN_WAITING;
    while (state < RUN_CANCELLED && (!name || strcmp(run_state_name(state), name) != 0)) {
        state++;
    }
    return state;
}

const char *nonfinite_name(double value)
{
    return isnan(value) ? "not a number" : value > 0.0 ? "infinite" : "minus infinite";
}

Status store_experiment(Store *store, const char *name, const char *config, double now_s,
                        Error *error)
{
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = database_run(store->database,
                              "INSERT OR IGNORE INTO experiment (name, config, created_at) "
                              "VALUES (?, ?, ?)",
                              BIND(value_text(name), value_text(config), value_real(now_s)), error);
    }
    return store_finish(store, status, error);
}

/* State and last step of a run; *found false when there is none, STATUS_FAILED when its identity is
 * another. */
static Status look_up(Store *store, const RunInfo *info, bool *found, RunState *state,
                      int64_t *last_step, Error *error)
{
    Statement *statement = NULL;
    Status status = database_rows(&statement, store->database,
                                  "SELECT state, last_step, identity FROM run WHERE run_id = ?",
                                  BIND(value_text(info->run_id)), error);
    *found = false;
    if (status == STATUS_OK) {
        status = statement_next(statement, found, error);
    }
    if (status == STATUS_OK && *found) {
        *state = run_state_of(statement_text(statement, 0));
        *last_step = statement_integer(statement, 1);
        if (strcmp(statement_word(statement, 2), info->identity) != 0) {
            status = error_set(error, STATUS_FAILED, "run %s is there with another identity",
                               info->run_id);
        }
    }
    statement_reset(statement);
    return status;
}

static Status insert_run(Store *store, const RunInfo *info, double now_s, Error *error)
{
    Status status = database_run(
        store->database,
        "INSERT INTO run (run_id, kind, experiment, identity, config, model, method, adapter, "
        "budget, "
        "lr, seed, steps, state, created_at) VALUES (?, 'run', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
        "'waiting', ?)",
        BIND(value_text(info->run_id), value_text(info->experiment), value_text(info->identity),
             value_text(info->config), value_text(info->model), value_text(info->method),
             value_text(info->adapter), value_integer(info->budget), value_real(info->lr),
             value_integer(info->seed), value_integer(info->steps), value_real(now_s)),
        error);
    for (size_t i = 0; status == STATUS_OK && i < info->n_params; i++) {
        status =
            database_run(store->database, "INSERT INTO param (run_id, key, value) VALUES (?, ?, ?)",
                         BIND(value_text(info->run_id), value_text(info->params[i].key),
                              value_text(info->params[i].value)),
                         error);
    }
    return status;
}

Status store_run(Store *store, const RunInfo *info, double now_s, RunState *state,
                 int64_t *last_step, Error *error)
{
    bool found = false;
    RunState stored_state = RUN_WAITING;
    int64_t stored_step = -1;
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = look_up(store, info, &found, &stored_state, &stored_step, error);
    }
    if (status == STATUS_OK && !found) {
        status = insert_run(store, info, now_s, error);
    }
    if (status == STATUS_OK) {
        status = database_run(store->database,
                              "INSERT OR IGNORE INTO experiment_run (experiment, run_id) "
                              "VALUES (?, ?)",
                              BIND(value_text(info->experiment), value_text(info->run_id)), error);
    }
    status = store_finish(store, status, error);
    if (status == STATUS_OK) {
        *state = stored_state;
        *last_step = stored_step;
    }
    return status;
}

/* An attempt that was never ended and may still be alive: of another machine, with a heartbeat
 * close to now (a clock that jumped says nothing). On this machine (same boot, or same host booted
 * anew) nobody else is alive, for the writer's lock is ours. */
static Status refuse_other_worker(Store *store, const char *run_id, const Worker *worker,
                                  double now_s, double stale_s, Error *error)
{
    Statement *statement = NULL;
    bool row = false;
    Status status = database_rows(
        &statement, store->database,
        "SELECT host, pid, heartbeat_at FROM attempt WHERE run_id = ?1 AND ended_at IS NULL AND "
        "boot_id <> ?2 AND host <> ?3 AND heartbeat_at > ?4 AND heartbeat_at < ?5",
        BIND(value_text(run_id), value_text(worker->boot_id), value_text(worker->host),
             value_real(now_s - stale_s), value_real(now_s + stale_s)),
        error);
    if (status == STATUS_OK) {
        status = statement_next(statement, &row, error);
    }
    if (status == STATUS_OK && row) {
        status = error_set(error, STATUS_FAILED,
                           "run %s: process %" PRId64 " on %s works on it (last seen %.0f s ago)",
                           run_id, statement_integer(statement, 1), statement_word(statement, 0),
                           now_s - statement_real(statement, 2));
    }
    statement_reset(statement);
    return status;
}

Status store_attempt_begin(Store *store, const char *run_id, const Worker *worker, double now_s,
                           double stale_s, int64_t *attempt, Error *error)
{
    Database *database = store->database;
    assert(store->mode != STORE_SHARED); /* only the one writer knows that the others are gone */
    Status status = store_begin(store, error);
    if (status == STATUS_OK && stale_s > 0) {
        status = refuse_other_worker(store, run_id, worker, now_s, stale_s, error);
    }
    if (status == STATUS_OK) {
        status = database_run(database,
                              "UPDATE attempt SET ended_at = heartbeat_at, how = 'lost' "
                              "WHERE run_id = ? AND ended_at IS NULL",
                              BIND(value_text(run_id)), error);
    }
    if (status == STATUS_OK) {
        status = database_run(database,
                              "UPDATE run SET state = 'running', reason = NULL, ended_at = NULL, "
                              "started_at = coalesce(started_at, ?2) WHERE run_id = ?1",
                              BIND(value_text(run_id), value_real(now_s)), error);
    }
    if (status == STATUS_OK && database_changes(database) != 1) {
        status = error_set(error, STATUS_FAILED, "there is no run %s", run_id);
    }
    if (status == STATUS_OK) {
        status = database_run(
            database,
            "INSERT INTO attempt (run_id, n, host, pid, boot_id, environment, from_step, to_step, "
            "started_at, heartbeat_at) SELECT ?1, coalesce((SELECT max(n) FROM attempt WHERE "
            "run_id "
            "= ?1), 0) + 1, ?2, ?3, ?4, ?5, last_step, last_step, ?6, ?6 FROM run WHERE run_id = "
            "?1",
            BIND(value_text(run_id), value_text(worker->host), value_integer(worker->pid),
                 value_text(worker->boot_id), value_text(worker->environment), value_real(now_s)),
            error);
    }
    Statement *statement = NULL;
    bool row = false;
    int64_t n = 0;
    if (status == STATUS_OK) {
        status = database_rows(&statement, database, "SELECT max(n) FROM attempt WHERE run_id = ?",
                               BIND(value_text(run_id)), error);
    }
    if (status == STATUS_OK) {
        status = statement_next(statement, &row, error);
        n = row ? statement_integer(statement, 0) : 0;
    }
    statement_reset(statement);
    status = store_finish(store, status, error);
    if (status == STATUS_OK) {
        *attempt = n;
    }
    return status;
}

Status store_attempt_end(Store *store, const char *run_id, int64_t attempt, const char *how,
                         double now_s, Error *error)
{
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = database_run(
            store->database,
            "UPDATE attempt SET how = ?3, ended_at = ?4, heartbeat_at = ?4 WHERE "
            "run_id = ?1 AND n = ?2",
            BIND(value_text(run_id), value_integer(attempt), value_text(how), value_real(now_s)),
            error);
    }
    if (status == STATUS_OK) { /* a run that was left in the middle waits for the next attempt */
        status = database_run(store->database,
                              "UPDATE run SET state = 'waiting' WHERE run_id = ? AND state = "
                              "'running'",
                              BIND(value_text(run_id)), error);
    }
    return store_finish(store, status, error);
}

Status store_insert_event(Store *store, const char *run_id, int64_t step, const char *kind,
                          const char *message, double now_s, Error *error)
{
    Value at_step = {.kind = VALUE_NULL};
    if (step >= 0) {
        at_step = value_integer(step);
    }
    return database_run(
        store->database,
        "INSERT INTO event (run_id, step, kind, message, at) VALUES (?, ?, ?, ?, ?)",
        BIND(value_text(run_id), at_step, value_text(kind), value_text(message), value_real(now_s)),
        error);
}

static Status insert_metric(Store *store, const StepRecord *record, const Metric *metric,
                            Error *error)
{
    Status status = database_run(
        store->database, "INSERT INTO metric (run_id, step, key, value) VALUES (?, ?, ?, ?)",
        BIND(value_text(record->run_id), value_integer(record->step), value_text(metric->key),
             value_real(metric->value)),
        error);
    if (status == STATUS_OK && !isfinite(metric->value)) {
        char message[256];
        snprintf(message, sizeof message, "%s is %s", metric->key, nonfinite_name(metric->value));
        status = store_insert_event(store, record->run_id, record->step, "nonfinite", message,
                                    record->now_s, error);
    }
    return status;
}

static Status insert_completion(Store *store, const StepRecord *record, const CompletionRow *row,
                                Error *error)
{
    size_t n_ids = (size_t)row->n_ids;
    return database_run(
        store->database,
        "INSERT INTO completion (run_id, step, prompt, sample, prompt_row, prompt_text, text, "
        "reward, "
        "advantage, extracted, finish, n_tokens, ids, logprobs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, "
        "?, "
        "?, ?, ?, ?)",
        BIND(value_text(record->run_id), value_integer(record->step), value_integer(row->prompt),
             value_integer(row->sample), value_integer(row->prompt_row),
             value_text(row->prompt_text), value_bytes(VALUE_TEXT, row->text, row->n_text),
             value_real(row->reward), value_real(row->advantage), value_text(row->extracted),
             value_text(row->finish), value_integer(row->n_ids),
             value_bytes(VALUE_BLOB, row->ids, n_ids * sizeof *row->ids),
             value_bytes(VALUE_BLOB, row->logprobs, n_ids * sizeof *row->logprobs)),
        error);
}

static Status insert_checkpoint(Store *store, const StepRecord *record, Error *error)
{
    char hex[SHA256_HEX_SIZE];
    sha256_bytes(hex, record->checkpoint, record->checkpoint_bytes);
    Status status =
        database_run(store->database,
                     "INSERT INTO checkpoint (run_id, step, n_bytes, sha256, created_at, bytes) "
                     "VALUES (?, ?, ?, "
                     "?, ?, ?)",
                     BIND(value_text(record->run_id), value_integer(record->step),
                          value_integer((int64_t)record->checkpoint_bytes), value_text(hex),
                          value_real(record->now_s),
                          value_bytes(VALUE_BLOB, record->checkpoint, record->checkpoint_bytes)),
                     error);
    if (status == STATUS_OK && record->keep_checkpoints > 0) {
        status = database_run(
            store->database,
            "DELETE FROM checkpoint WHERE run_id = ?1 AND step NOT IN (SELECT step "
            "FROM checkpoint WHERE run_id = ?1 ORDER BY step DESC LIMIT ?2)",
            BIND(value_text(record->run_id), value_integer(record->keep_checkpoints)), error);
    }
    return status;
}

static Status insert_step(Store *store, const StepRecord *record, Error *error)
{
    Status status = database_run(
        store->database, "UPDATE run SET last_step = ?2 WHERE run_id = ?1 AND last_step < ?2",
        BIND(value_text(record->run_id), value_integer(record->step)), error);
    if (status == STATUS_OK && database_changes(store->database) != 1) {
        return error_set(error, STATUS_FAILED,
                         "there is no such run, or the step is already committed");
    }
    for (size_t i = 0; status == STATUS_OK && i < record->n_metrics; i++) {
        status = insert_metric(store, record, &record->metrics[i], error);
    }
    for (size_t i = 0; status == STATUS_OK && i < record->n_completions; i++) {
        status = insert_completion(store, record, &record->completions[i], error);
    }
    for (size_t i = 0; status == STATUS_OK && i < record->n_events; i++) {
        status = store_insert_event(store, record->run_id, record->step, record->events[i].kind,
                                    record->events[i].message, record->now_s, error);
    }
    if (status == STATUS_OK && record->checkpoint) {
        status = insert_checkpoint(store, record, error);
    }
    if (status == STATUS_OK) {
        status =
            database_run(store->database,
                         "UPDATE attempt SET to_step = ?3, heartbeat_at = ?4 WHERE run_id = ?1 "
                         "AND n = ?2",
                         BIND(value_text(record->run_id), value_integer(record->attempt),
                              value_integer(record->step), value_real(record->now_s)),
                         error);
    }
    if (status == STATUS_OK && database_changes(store->database) != 1) {
        status = error_set(error, STATUS_FAILED, "there is no attempt %" PRId64, record->attempt);
    }
    return status;
}

Status store_steps(Store *store, const StepRecord *records, size_t n, Error *error)
{
    Status status = store_begin(store, error);
    size_t i = 0;
    while (status == STATUS_OK && i < n) {
        status = insert_step(store, &records[i], error);
        i += status == STATUS_OK;
    }
    bool inserted = status == STATUS_OK;
    status = store_finish(store, status, error);
    if (status != STATUS_OK && !inserted && i < n) {
        error_context(error, status, "run %s, step %" PRId64, records[i].run_id, records[i].step);
    }
    return status;
}

Status store_event(Store *store, const char *run_id, int64_t step, const char *kind,
                   const char *message, double now_s, Error *error)
{
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = store_insert_event(store, run_id, step, kind, message, now_s, error);
    }
    return store_finish(store, status, error);
}

Status store_metric_values(Store *store, const char *run_id, const char *key, int64_t first, int n,
                           double *values, Error *error)
{
    Statement *statement = NULL;
    bool row = true;
    for (int i = 0; i < n; i++) {
        values[i] = NAN;
    }
    Status status = database_rows(
        &statement, store->database,
        "SELECT step, value FROM metric WHERE run_id = ? AND key = ? AND step BETWEEN ? AND ?",
        BIND(value_text(run_id), value_text(key), value_integer(first),
             value_integer(first + n - 1)),
        error);
    while (!status && !(status = statement_next(statement, &row, error)) && row) {
        values[statement_integer(statement, 0) - first] = statement_real(statement, 1);
    }
    statement_reset(statement);
    return store_fail(store, status, error);
}

Status store_run_end(Store *store, const char *run_id, RunState state, const char *reason,
                     double objective, double objective_se, double now_s, Error *error)
{
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = database_run(
            store->database,
            "UPDATE run SET state = ?, reason = ?, objective = ?, objective_se = ?, "
            "ended_at = ? WHERE run_id = ?",
            BIND(value_text(run_state_name(state)), value_text(reason), value_real(objective),
                 value_real(objective_se), value_real(now_s), value_text(run_id)),
            error);
    }
    if (status == STATUS_OK && database_changes(store->database) != 1) {
        status = error_set(error, STATUS_FAILED, "there is no run %s", run_id);
    }
    if (status == STATUS_OK && reason) {
        status = database_run(store->database,
                              "INSERT INTO event (run_id, step, kind, message, at) SELECT run_id, "
                              "max(last_step, 0), state, reason, ?2 FROM run WHERE run_id = ?1",
                              BIND(value_text(run_id), value_real(now_s)), error);
    }
    return store_finish(store, status, error);
}

/* The only run whose id begins with `id`, or is it; its row is what the statement stands on. */
static Status find_row(Statement *statement, const char *id, char run_id[], size_t size,
                       Error *error)
{
    bool row = false;
    size_t n_found = 0;
    Status status = STATUS_OK;
    while ((status = statement_next(statement, &row, error)) == STATUS_OK && row) {
        snprintf(run_id, size, "%s", statement_word(statement, 0));
        n_found++;
        if (strcmp(run_id, id) == 0) {
            return STATUS_OK;
        }
    }
    if (status == STATUS_OK && n_found != 1) {
        status = error_set(error, STATUS_USAGE,
                           n_found ? "\"%s\" begins more than one run's id" : "no run \"%s\"", id);
    }
    return status;
}

Status store_find_run(Store *store, const char *id, StoredRun *run, Error *error)
{
    Statement *statement = NULL;
    char run_id[256];
    bool row = false;
    Status status = database_rows(&statement, store->database,
                                  "SELECT run_id FROM run WHERE substr(run_id, 1, length(?1)) = ?1 "
                                  "ORDER BY length(run_id), run_id LIMIT 2",
                                  BIND(value_text(id)), error);
    if (status == STATUS_OK) {
        status = find_row(statement, id, run_id, sizeof run_id, error);
    }
    statement_reset(statement);
    statement = NULL;
    if (status == STATUS_OK) {
        status = database_rows(&statement, store->database,
                               "SELECT run_id, coalesce(experiment, ''), config, model, method, "
                               "adapter, state, steps, last_step FROM run WHERE run_id = ?",
                               BIND(value_text(run_id)), error);
    }
    if (status == STATUS_OK) {
        status = statement_next(statement, &row, error);
    }
    if (status == STATUS_OK && !row) { /* the index has it, the table has not */
        status = error_set(error, STATUS_REFUSED, "the database is damaged (run %s)", run_id);
    }
    if (status == STATUS_OK) {
        Text block = {0};
        size_t start[6];
        for (int i = 0; i < 6; i++) {
            start[i] = block.n;
            const char *text = statement_word(statement, i);
            text_append(&block, text, strlen(text) + 1);
        }
        *run = (StoredRun){.block = block.bytes,
                           .run_id = block.bytes + start[0],
                           .experiment = block.bytes + start[1],
                           .config = block.bytes + start[2],
                           .model = block.bytes + start[3],
                           .method = block.bytes + start[4],
                           .adapter = block.bytes + start[5],
                           .state = run_state_of(statement_text(statement, 6)),
                           .steps = statement_integer(statement, 7),
                           .last_step = statement_integer(statement, 8)};
    }
    statement_reset(statement);
    return store_fail(store, status, error);
}
