/* Copies of a whole file, and of whole runs and surfaces from one file into another.
 *
 * 1. A run or a surface comes over whole, in one transaction, or not at all.
 * 2. What is here already stays as it is. Where both have steps of a run, they must be the same.
 * 3. Numbers that only name rows (evaluation_id, event_id, artifact_id) are given anew. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "results/compare.h"
#include "results/store_merge.h"
#include "results/store_private.h"

enum { MAX_VALUES = 24 };

/* Rows of a thing (?1) in the order in which they may be inserted; both lists of columns agree. */
typedef struct {
    const char *select, *insert;
    int n;
} Copied;

static const Copied of_run[] = {
    {"SELECT e.name, e.config, e.created_at FROM experiment e WHERE e.name IN (SELECT experiment "
     "FROM experiment_run WHERE run_id = ?1 UNION SELECT experiment FROM run WHERE run_id = ?1)",
     "INSERT OR IGNORE INTO experiment (name, config, created_at) VALUES (?, ?, ?)", 3},
    {"SELECT run_id, kind, experiment, identity, config, model, method, adapter, budget, lr, seed, "
     "steps, last_step, iif(state = 'running', 'waiting', state), reason, objective, objective_se, "
     "created_at, started_at, ended_at FROM run WHERE run_id = ?1",
     "INSERT INTO run (run_id, kind, experiment, identity, config, model, method, adapter, budget, "
     "lr, seed, steps, last_step, state, reason, objective, objective_se, created_at, started_at, "
     "ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
     20},
    {"SELECT experiment, run_id FROM experiment_run WHERE run_id = ?1",
     "INSERT INTO experiment_run (experiment, run_id) VALUES (?, ?)", 2},
    {"SELECT run_id, n, host, pid, boot_id, rank, environment, from_step, to_step, started_at, "
     "heartbeat_at, coalesce(ended_at, heartbeat_at), coalesce(how, 'lost') FROM attempt WHERE "
     "run_id = ?1",
     "INSERT INTO attempt (run_id, n, host, pid, boot_id, rank, environment, from_step, to_step, "
     "started_at, heartbeat_at, ended_at, how) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
     13},
    {"SELECT run_id, key, value FROM param WHERE run_id = ?1",
     "INSERT INTO param (run_id, key, value) VALUES (?, ?, ?)", 3},
    {"SELECT run_id, step, key, value FROM metric WHERE run_id = ?1",
     "INSERT INTO metric (run_id, step, key, value) VALUES (?, ?, ?, ?)", 4},
    {"SELECT run_id, step, n_bytes, sha256, created_at, bytes FROM checkpoint WHERE run_id = ?1",
     "INSERT INTO checkpoint (run_id, step, n_bytes, sha256, created_at, bytes) VALUES (?, ?, ?, "
     "?, ?, ?)",
     6},
    {"SELECT run_id, step, prompt, sample, prompt_row, prompt_text, text, reward, advantage, "
     "extracted, finish, n_tokens, ids, logprobs FROM completion WHERE run_id = ?1",
     "INSERT INTO completion (run_id, step, prompt, sample, prompt_row, prompt_text, text, reward, "
     "advantage, extracted, finish, n_tokens, ids, logprobs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
     "?, ?, ?, ?)",
     14},
    {"SELECT run_id, step, task, extractor, n, value, standard_error, base_run_id, base_value, "
     "p_value, detail, created_at FROM evaluation WHERE run_id = ?1 ORDER BY evaluation_id",
     "INSERT INTO evaluation (run_id, step, task, extractor, n, value, standard_error, "
     "base_run_id, base_value, p_value, detail, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
     "?, ?)",
     12},
    {"SELECT run_id, step, task, row, sample, text, answer, n_tokens, finish FROM eval_completion "
     "WHERE run_id = ?1",
     "INSERT INTO eval_completion (run_id, step, task, row, sample, text, answer, n_tokens, "
     "finish) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
     9},
    {"SELECT e.run_id, e.step, e.task, e.extractor, v.row, v.sample, v.extracted, v.correct, "
     "v.score FROM evaluation e JOIN eval_verdict v USING (evaluation_id) WHERE e.run_id = ?1",
     "INSERT INTO eval_verdict (evaluation_id, row, sample, extracted, correct, score) SELECT "
     "evaluation_id, ?5, ?6, ?7, ?8, ?9 FROM evaluation WHERE run_id = ?1 AND step = ?2 AND task = "
     "?3 AND extractor = ?4",
     9},
    {"SELECT run_id, kind, path, n_bytes, sha256, created_at FROM artifact WHERE run_id = ?1 ORDER "
     "BY artifact_id",
     "INSERT INTO artifact (run_id, kind, path, n_bytes, sha256, created_at) VALUES (?, ?, ?, ?, "
     "?, ?)",
     6},
    {"SELECT run_id, step, kind, message, at FROM event WHERE run_id = ?1 ORDER BY event_id",
     "INSERT INTO event (run_id, step, kind, message, at) VALUES (?, ?, ?, ?, ?)", 5},
};

static const Copied of_surface[] = {
    {"SELECT name, config, created_at FROM experiment WHERE name = (SELECT experiment FROM surface "
     "WHERE surface_id = ?1)",
     "INSERT OR IGNORE INTO experiment (name, config, created_at) VALUES (?, ?, ?)", 3},
    {"SELECT surface_id, experiment, identity, config, model, run_id, n_parameters, plane, "
     "metrics, x_label, y_label, nx, ny, x_min, x_max, y_min, y_max, iif(state = 'running', "
     "'waiting', state), reason, created_at, ended_at FROM surface WHERE surface_id = ?1",
     "INSERT INTO surface (surface_id, experiment, identity, config, model, run_id, n_parameters, "
     "plane, metrics, x_label, y_label, nx, ny, x_min, x_max, y_min, y_max, state, reason, "
     "created_at, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
     21},
    {"SELECT surface_id, i, iif(state = 'running', 'waiting', state), previewed, lease, host, pid, "
     "boot_id, born, started_at, heartbeat_at, ended_at FROM surface_row WHERE surface_id = ?1",
     "INSERT INTO surface_row (surface_id, i, state, previewed, lease, host, pid, boot_id, born, "
     "started_at, heartbeat_at, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
     12},
    {"SELECT surface_id, i, j, metric, x, y, value FROM surface_point WHERE surface_id = ?1",
     "INSERT INTO surface_point (surface_id, i, j, metric, x, y, value) VALUES (?, ?, ?, ?, ?, ?, "
     "?)",
     7},
    {"SELECT surface_id, i, j, metric, x, y, value FROM surface_preview WHERE surface_id = ?1",
     "INSERT INTO surface_preview (surface_id, i, j, metric, x, y, value) VALUES (?, ?, ?, ?, ?, "
     "?, ?)",
     7},
    {"SELECT surface_id, kind, name, place, metric, x, y, distance, value FROM surface_mark WHERE "
     "surface_id = ?1",
     "INSERT INTO surface_mark (surface_id, kind, name, place, metric, x, y, distance, value) "
     "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
     9},
    {"SELECT surface_id, name, place, metric, t, x, y, value FROM surface_slice WHERE surface_id = "
     "?1",
     "INSERT INTO surface_slice (surface_id, name, place, metric, t, x, y, value) VALUES (?, ?, ?, "
     "?, ?, ?, ?, ?)",
     8},
    {"SELECT surface_id, place, k, eigenvalue, eigenvector FROM surface_hessian WHERE surface_id = "
     "?1",
     "INSERT INTO surface_hessian (surface_id, place, k, eigenvalue, eigenvector) VALUES (?, ?, ?, "
     "?, ?)",
     5},
    {"SELECT surface_id, search, place, part, x, y, value FROM surface_search WHERE surface_id = "
     "?1",
     "INSERT INTO surface_search (surface_id, search, place, part, x, y, value) VALUES (?, ?, ?, "
     "?, ?, ?, ?)",
     7},
    {"SELECT surface_id, kind, path, n_bytes, sha256, created_at FROM artifact WHERE surface_id = "
     "?1 ORDER BY artifact_id",
     "INSERT INTO artifact (surface_id, kind, path, n_bytes, sha256, created_at) VALUES (?, ?, ?, "
     "?, ?, ?)",
     6},
    {"SELECT surface_id, step, kind, message, at FROM event WHERE surface_id = ?1 ORDER BY "
     "event_id",
     "INSERT INTO event (surface_id, step, kind, message, at) VALUES (?, ?, ?, ?, ?)", 5},
};

Status store_snapshot(Store *store, const char *path, Error *error)
{
    Text new_name = {0};
    if (access(path, F_OK) == 0) {
        return error_set(error, STATUS_USAGE, "\"%s\" is there already", path);
    }
    text_printf(&new_name, "%s-new", path);
    unlink(new_name.bytes);
    Status status = database_copy(store->database, new_name.bytes, error);
    if (!status && rename(new_name.bytes, path) != 0) {
        status = error_set(error, STATUS_FAILED, "%s", strerror(errno));
    }
    status = status ? status : store_sync_folder(path, error);
    if (status) {
        unlink(new_name.bytes);
        error_context(error, status, "\"%s\"", path);
    }
    text_release(&new_name);
    return status;
}

static Status copy_rows(Store *to, Store *from, const Copied *copied, const char *id, Error *error)
{
    Statement *rows = NULL;
    bool row = true;
    Value values[MAX_VALUES];
    Status status =
        database_rows(&rows, from->database, copied->select, BIND(value_text(id)), error);
    while (!status && !(status = statement_next(rows, &row, error)) && row) {
        for (int i = 0; i < copied->n; i++) {
            values[i] = statement_value(rows, i);
        }
        status = database_run(to->database, copied->insert, values, (size_t)copied->n, error);
    }
    statement_reset(rows);
    return status;
}

static Status copy_thing(Store *to, Store *from, const Copied *tables, size_t n, const char *id,
                         Error *error)
{
    Status status = store_begin(to, error);
    for (size_t i = 0; i < n && !status; i++) {
        status = copy_rows(to, from, &tables[i], id, error);
    }
    return store_finish(to, status, error);
}

/* A number of the first row; -1 where there is none. */
static Status number_of(Store *store, const char *sql, const char *id, int64_t *number,
                        Error *error)
{
    Statement *statement = NULL;
    bool row = false;
    Status status = database_rows(&statement, store->database, sql, BIND(value_text(id)), error);
    status = status ? status : statement_next(statement, &row, error);
    *number = !status && row ? statement_integer(statement, 0) : -1;
    statement_reset(statement);
    return status;
}

/* Steps that both have are the same rows. */
static Status check_same(Store *to, Store *from, const char *run_id, int64_t steps, Error *error)
{
    Comparison comparison = {.words = {"here", "there"}};
    Status status = STATUS_OK;
    for (int64_t step = 0; step <= steps && !status && !comparison.difference.n; step++) {
        status = store_compare_step(&comparison, to, from, run_id, step, 0, error);
    }
    if (!status && comparison.difference.n) {
        status = error_set(error, STATUS_REFUSED, "run %s is in both, and differs: %.600s", run_id,
                           comparison.difference.bytes);
    }
    comparison_release(&comparison);
    return status;
}

static const char last_step[] = "SELECT last_step FROM run WHERE run_id = ?1";

static Status merge_run(Store *to, Store *from, const char *run_id, bool writes, Merged *merged,
                        Error *error)
{
    int64_t here = 0, there = 0, known = 0;
    Status status =
        number_of(to, "SELECT count(*) FROM run WHERE run_id = ?1", run_id, &known, error);
    if (!status && known == 0) {
        merged->n_runs += writes;
        return !writes
                   ? STATUS_OK
                   : copy_thing(to, from, of_run, sizeof of_run / sizeof *of_run, run_id, error);
    }
    status = status ? status : number_of(to, last_step, run_id, &here, error);
    status = status ? status : number_of(from, last_step, run_id, &there, error);
    if (!writes && !status) {
        status = check_same(to, from, run_id, here < there ? here : there, error);
    }
    merged->n_known += writes;
    merged->n_further += writes && there > here;
    return status;
}

static Status merge_surface(Store *to, Store *from, const char *surface_id, bool writes,
                            Merged *merged, Error *error)
{
    int64_t known = 0;
    Status status = number_of(to, "SELECT count(*) FROM surface WHERE surface_id = ?1", surface_id,
                              &known, error);
    if (status || !writes) {
        return status;
    }
    merged->n_surfaces += known == 0;
    merged->n_known += known != 0;
    return known ? STATUS_OK
                 : copy_thing(to, from, of_surface, sizeof of_surface / sizeof *of_surface,
                              surface_id, error);
}

/* Every id that the statement lists. */
static Status each(Store *to, Store *from, const char *sql, bool writes, Merged *merged,
                   Status (*merge)(Store *, Store *, const char *, bool, Merged *, Error *),
                   Error *error)
{
    Statement *rows = NULL;
    bool row = true;
    char id[256];
    Status status = database_rows(&rows, from->database, sql, NULL, 0, error);
    while (!status && !(status = statement_next(rows, &row, error)) && row) {
        snprintf(id, sizeof id, "%s", statement_word(rows, 0));
        status = merge(to, from, id, writes, merged, error);
    }
    statement_reset(rows);
    return status;
}

Status store_merge(Store *to, Store *from, Merged *merged, Error *error)
{
    Status status = STATUS_OK;
    for (int writes = 0; writes <= 1 && !status; writes++) { /* base rows come before their runs */
        status =
            each(to, from, "SELECT run_id FROM run ORDER BY kind <> 'base', created_at, run_id",
                 writes, merged, merge_run, error);
        status = status ? status
                        : each(to, from,
                               "SELECT surface_id FROM surface ORDER BY created_at, "
                               "surface_id",
                               writes, merged, merge_surface, error);
    }
    return status ? error_context(error, status, "\"%s\"", from->path) : STATUS_OK;
}
