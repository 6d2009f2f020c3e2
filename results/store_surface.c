/* Surfaces and their rows: tasks under leases. What is known beside the rows is in
 * store_surface_detail.c.
 *
 * 1. A row is waiting, running under lease number `lease`, or done. Each claim gives it the next
 * number; heartbeat, commit and release name the number, so a process that was believed dead, or
 * slept, changes nothing any more.
 * 2. A row's points and its state `done` are one transaction. So are a preview's and its return to
 * `waiting`.
 * 3. Claims, heartbeats and releases are not flushed to the disk: a power cut frees the row anyway.
 * 4. The holder of a row is gone at once when this machine knows that its process is (process.h),
 * else when it has not been heard of for stale_s. */
#include "results/store_surface.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "results/process.h"
#include "results/store_private.h"

static Status insert_surface(Store *store, const SurfaceInfo *info, double now_s, Error *error)
{
    Status status = database_run(
        store->database,
        "INSERT INTO surface (surface_id, experiment, identity, config, model, run_id, "
        "n_parameters, plane, metrics, x_label, y_label, nx, ny, x_min, x_max, y_min, y_max, "
        "state, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', "
        "?)",
        BIND(value_text(info->surface_id), value_text(info->experiment), value_text(info->identity),
             value_text(info->config), value_text(info->model), value_text(info->run_id),
             value_integer((int64_t)info->n_parameters),
             value_bytes(VALUE_BLOB, info->plane, 3 * info->n_parameters * sizeof(double)),
             value_text(info->metrics), value_text(info->x_label), value_text(info->y_label),
             value_integer(info->nx), value_integer(info->ny), value_real(info->x_min),
             value_real(info->x_max), value_real(info->y_min), value_real(info->y_max),
             value_real(now_s)),
        error);
    for (int i = 0; status == STATUS_OK && i < info->nx; i++) {
        status =
            database_run(store->database,
                         "INSERT INTO surface_row (surface_id, i, state) VALUES (?, ?, 'waiting')",
                         BIND(value_text(info->surface_id), value_integer(i)), error);
    }
    return status;
}

Status store_surface(Store *store, const SurfaceInfo *info, double now_s, RunState *state,
                     Error *error)
{
    Statement *statement = NULL;
    bool found = false;
    RunState stored = RUN_WAITING;
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = database_rows(&statement, store->database,
                               "SELECT state, identity FROM surface WHERE surface_id = ?",
                               BIND(value_text(info->surface_id)), error);
    }
    if (status == STATUS_OK) {
        status = statement_next(statement, &found, error);
    }
    if (status == STATUS_OK && found) {
        const char *identity = statement_word(statement, 1);
        stored = run_state_of(statement_text(statement, 0));
        if (strcmp(identity, info->identity) != 0) {
            status = error_set(error, STATUS_FAILED, "surface %s is there with another identity",
                               info->surface_id);
        }
    }
    statement_reset(statement);
    if (status == STATUS_OK && !found) {
        status = insert_surface(store, info, now_s, error);
    }
    status = store_finish(store, status, error);
    if (status == STATUS_OK) {
        *state = stored;
    }
    return status;
}

/* What a claim needs to know of a row. */
typedef struct {
    bool done, free, previewed;
    int64_t lease;
} Row;

/* rows: (nx). */
static Status read_rows(Store *store, const char *surface_id, const Worker *worker, Row *rows,
                        int nx, double now_s, double stale_s, Error *error)
{
    Statement *statement = NULL;
    bool row = true;
    int n = 0;
    Status status =
        database_rows(&statement, store->database,
                      "SELECT i, state, previewed, lease, host, pid, boot_id, born, heartbeat_at "
                      "FROM surface_row WHERE surface_id = ? ORDER BY i",
                      BIND(value_text(surface_id)), error);
    while (status == STATUS_OK && row) {
        status = statement_next(statement, &row, error);
        if (status == STATUS_OK && row && n < nx && statement_integer(statement, 0) == n) {
            RunState state = run_state_of(statement_text(statement, 1));
            const char *host = statement_text(statement, 4),
                       *boot_id = statement_text(statement, 6);
            bool running = state == RUN_RUNNING && host && boot_id;
            rows[n] = (Row){.done = state == RUN_DONE,
                            .previewed = statement_integer(statement, 2) != 0,
                            .lease = statement_integer(statement, 3)};
            double silence_s = now_s - statement_real(statement, 8);
            rows[n].free =
                !rows[n].done &&
                (!running || process_is_over(worker, host, statement_integer(statement, 5), boot_id,
                                             statement_integer(statement, 7), silence_s, stale_s));
        }
        n += row;
    }
    statement_reset(statement);
    if (status == STATUS_OK && n != nx) {
        status = n == 0 ? error_set(error, STATUS_FAILED, "there is no surface %s", surface_id)
                        : error_set(error, STATUS_FAILED, "surface %s has %d rows, not %d",
                                    surface_id, n, nx);
    }
    return status;
}

/* i: the row to take, -1 when none is free. */
static SurfaceLease choose(const Row *rows, const int *order, int nx, int stride)
{
    SurfaceLease lease = {.i = -1, .over = true};
    for (int k = 0; k < nx; k++) {
        assert(order[k] >= 0 && order[k] < nx);
        const Row *row = &rows[order[k]];
        bool lattice = stride > 1 && (order[k] % stride == 0 || order[k] == nx - 1);
        bool preview = lattice && !row->previewed;
        lease.over = lease.over && row->done;
        if (row->free && (lease.i < 0 || (preview && !lease.preview))) {
            lease.i = order[k];
            lease.preview = preview;
            lease.lease = row->lease + 1;
        }
    }
    return lease;
}

static Status take_row(Store *store, const char *surface_id, const Worker *worker,
                       const SurfaceLease *lease, double now_s, Error *error)
{
    int64_t born = process_born(worker->pid);
    Status status = database_run(
        store->database,
        "UPDATE surface_row SET state = 'running', lease = ?3, host = ?4, pid = ?5, boot_id = ?6, "
        "born = ?7, started_at = ?8, heartbeat_at = ?8, ended_at = NULL WHERE surface_id = ?1 AND "
        "i = ?2",
        BIND(value_text(surface_id), value_integer(lease->i), value_integer(lease->lease),
             value_text(worker->host), value_integer(worker->pid), value_text(worker->boot_id),
             born ? value_integer(born) : (Value){.kind = VALUE_NULL}, value_real(now_s)),
        error);
    if (status == STATUS_OK) {
        status = database_run(store->database,
                              "UPDATE surface SET state = 'running', reason = NULL, ended_at = "
                              "NULL WHERE surface_id = ? AND state <> 'running'",
                              BIND(value_text(surface_id)), error);
    }
    return status;
}

Status store_surface_claim(Store *store, const char *surface_id, const Worker *worker,
                           const int *order, int nx, int stride, double now_s, double stale_s,
                           SurfaceLease *lease, Error *error)
{
    SurfaceLease chosen = {.i = -1};
    Row *rows = calloc((size_t)nx + 1, sizeof *rows);
    if (!rows) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    Status status = store_begin_claim(store, error);
    if (status == STATUS_OK) {
        status = read_rows(store, surface_id, worker, rows, nx, now_s, stale_s, error);
    }
    if (status == STATUS_OK) {
        chosen = choose(rows, order, nx, stride);
    }
    if (status == STATUS_OK && chosen.i >= 0) {
        status = take_row(store, surface_id, worker, &chosen, now_s, error);
    }
    free(rows);
    status = store_finish(store, status, error);
    if (status == STATUS_OK) {
        *lease = chosen;
    }
    return status;
}

Status store_surface_heartbeat(Store *store, const char *surface_id, const SurfaceLease *lease,
                               double now_s, bool *kept, Error *error)
{
    bool ours = false;
    Status status = store_begin_claim(store, error);
    if (status == STATUS_OK) {
        status = database_run(store->database,
                              "UPDATE surface_row SET heartbeat_at = ?4 WHERE surface_id = ?1 AND "
                              "i = ?2 AND lease = ?3 AND state = 'running'",
                              BIND(value_text(surface_id), value_integer(lease->i),
                                   value_integer(lease->lease), value_real(now_s)),
                              error);
        ours = status == STATUS_OK && database_changes(store->database) == 1;
    }
    status = store_finish(store, status, error);
    if (status == STATUS_OK) {
        *kept = ours;
    }
    return status;
}

/* One event a point: a row does not repeat what its preview told. */
static Status insert_nonfinite(Store *store, const char *surface_id, int i, bool preview,
                               const SurfaceValue *value, double now_s, Error *error)
{
    char message[256];
    snprintf(message, sizeof message, "%s is %s at (%d, %d): x %.10g, y %.10g", value->metric,
             nonfinite_name(value->value), i, value->j, value->x, value->y);
    return database_run(
        store->database,
        "INSERT INTO event (surface_id, kind, message, at) SELECT ?1, 'nonfinite', ?2, ?3 WHERE ?4 "
        "OR NOT EXISTS (SELECT 1 FROM surface_preview WHERE surface_id = ?1 AND i = ?5 AND j = ?6 "
        "AND metric = ?7 AND value IS NULL)",
        BIND(value_text(surface_id), value_text(message), value_real(now_s), value_integer(preview),
             value_integer(i), value_integer(value->j), value_text(value->metric)),
        error);
}

static Status insert_value(Store *store, const char *surface_id, int i, bool preview,
                           const SurfaceValue *value, double now_s, Error *error)
{
    static const char *const insert[] = {
        "INSERT INTO surface_point (surface_id, i, j, metric, x, y, value) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        "INSERT INTO surface_preview (surface_id, i, j, metric, x, y, value) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)"};
    Status status =
        database_run(store->database, insert[preview],
                     BIND(value_text(surface_id), value_integer(i), value_integer(value->j),
                          value_text(value->metric), value_real(value->x), value_real(value->y),
                          value_real(value->value)),
                     error);
    if (status == STATUS_OK && !isfinite(value->value)) {
        status = insert_nonfinite(store, surface_id, i, preview, value, now_s, error);
    }
    return status;
}

/* A done row has every point of every metric of its surface. */
static Status refuse_missing(Store *store, const char *surface_id, int i, Error *error)
{
    Statement *statement = NULL;
    bool row = false;
    Status status = database_rows(
        &statement, store->database,
        "WITH have AS (SELECT metric, count(*) AS n, min(j) AS low, max(j) AS high FROM "
        "surface_point WHERE surface_id = ?1 AND i = ?2 GROUP BY metric) SELECT m.value, "
        "coalesce(h.n, 0), s.ny FROM surface s, json_each(s.metrics) m LEFT JOIN have h ON "
        "h.metric = m.value WHERE s.surface_id = ?1 AND (h.n IS NOT s.ny OR h.low <> 0 OR h.high "
        "<> s.ny - 1)",
        BIND(value_text(surface_id), value_integer(i)), error);
    if (status == STATUS_OK) {
        status = statement_next(statement, &row, error);
    }
    if (status == STATUS_OK && row) {
        status = error_set(error, STATUS_FAILED, "%" PRId64 " of the %" PRId64 " points of \"%s\"",
                           statement_integer(statement, 1), statement_integer(statement, 2),
                           statement_word(statement, 0));
    }
    statement_reset(statement);
    return status;
}

/* The mark `best` of each metric of the surface follows the values as they come. */
static Status mark_best(Store *store, const char *surface_id, const SurfaceLease *lease,
                        Error *error)
{
#define MARK_BEST(table)                                                                           \
    "INSERT INTO surface_mark (surface_id, kind, name, place, metric, x, y, distance, value) "     \
    "SELECT surface_id, 'best', '', 0, metric, x, y, 0.0, value FROM (SELECT *, min(iif(metric "   \
    "IN "                                                                                          \
    "('accuracy', 'reward'), -value, value)) AS cost FROM " table                                  \
    " WHERE surface_id = ?1 AND i = ?2 AND value IS NOT NULL AND metric IN (SELECT m.value FROM "  \
    "surface s, json_each(s.metrics) m WHERE s.surface_id = ?1) GROUP BY metric) WHERE cost IS "   \
    "NOT NULL ON CONFLICT DO UPDATE SET x = excluded.x, y = excluded.y, value = excluded.value "   \
    "WHERE value IS NULL OR iif(metric IN ('accuracy', 'reward'), excluded.value > value, "        \
    "excluded.value < value)"
    static const char *const mark[] = {MARK_BEST("surface_point"), MARK_BEST("surface_preview")};
    return database_run(store->database, mark[lease->preview],
                        BIND(value_text(surface_id), value_integer(lease->i)), error);
}

static Status insert_values(Store *store, const char *surface_id, const SurfaceLease *lease,
                            const SurfaceValue *values, size_t n, double now_s, Error *error)
{
    Status status = STATUS_OK;
    for (size_t k = 0; status == STATUS_OK && k < n; k++) {
        status =
            insert_value(store, surface_id, lease->i, lease->preview, &values[k], now_s, error);
    }
    if (status == STATUS_OK && !lease->preview) {
        status = refuse_missing(store, surface_id, lease->i, error);
    }
    status = status ? status : mark_best(store, surface_id, lease, error);
    return status ? error_context(error, status, "surface %s, row %d", surface_id, lease->i)
                  : STATUS_OK;
}

Status store_surface_commit(Store *store, const char *surface_id, const SurfaceLease *lease,
                            const SurfaceValue *values, size_t n, double now_s, bool *kept,
                            Error *error)
{
    static const char *const update[] = {
        "UPDATE surface_row SET state = 'done', heartbeat_at = ?4, ended_at = ?4 WHERE surface_id "
        "= ?1 AND i = ?2 AND lease = ?3 AND state = 'running'",
        "UPDATE surface_row SET state = 'waiting', previewed = 1, heartbeat_at = ?4, ended_at = ?4 "
        "WHERE surface_id = ?1 AND i = ?2 AND lease = ?3 AND state = 'running'"};
    bool ours = false;
    Status status = store_begin(store, error);
    if (status == STATUS_OK) {
        status = database_run(store->database, update[lease->preview],
                              BIND(value_text(surface_id), value_integer(lease->i),
                                   value_integer(lease->lease), value_real(now_s)),
                              error);
        ours = status == STATUS_OK && database_changes(store->database) == 1;
    }
    if (ours) {
        status = insert_values(store, surface_id, lease, values, n, now_s, error);
    }
    status = store_finish(store, status, error);
    if (status == STATUS_OK) {
        *kept = ours;
    }
    return status;
}

Status store_surface_release(Store *store, const char *surface_id, const SurfaceLease *lease,
                             Error *error)
{
    Status status = store_begin_claim(store, error);
    if (status == STATUS_OK) {
        status = database_run(
            store->database,
            "UPDATE surface_row SET state = 'waiting', host = NULL, pid = NULL, boot_id = NULL, "
            "born = NULL, started_at = NULL WHERE surface_id = ? AND i = ? AND lease = ? AND state "
            "= 'running'",
            BIND(value_text(surface_id), value_integer(lease->i), value_integer(lease->lease)),
            error);
    }
    if (status == STATUS_OK && database_changes(store->database) == 1) {
        status = database_run(store->database,
                              "UPDATE surface SET state = 'waiting' WHERE surface_id = ?1 AND "
                              "state = 'running' AND NOT EXISTS (SELECT 1 FROM surface_row WHERE "
                              "surface_id = ?1 AND state = 'running')",
                              BIND(value_text(surface_id)), error);
    }
    return store_finish(store, status, error);
}

/* "12 of 21 rows are not done". */
static Status refuse_unfinished(Store *store, const char *surface_id, Error *error)
{
    Statement *statement = NULL;
    bool row = false;
    Status status = database_rows(&statement, store->database,
                                  "SELECT count(*) FILTER (WHERE state <> 'done'), count(*) FROM "
                                  "surface_row WHERE surface_id = ?",
                                  BIND(value_text(surface_id)), error);
    if (status == STATUS_OK) {
        status = statement_next(statement, &row, error);
    }
    if (status == STATUS_OK && row && statement_integer(statement, 0) > 0) {
        status = error_set(error, STATUS_FAILED,
                           "surface %s: %" PRId64 " of %" PRId64 " rows are not done", surface_id,
                           statement_integer(statement, 0), statement_integer(statement, 1));
    }
    statement_reset(statement);
    return status;
}

Status store_surface_end(Store *store, const char *surface_id, RunState state, const char *reason,
                         double now_s, Error *error)
{
    Status status = store_begin(store, error);
    if (status == STATUS_OK && state == RUN_DONE) {
        status = refuse_unfinished(store, surface_id, error);
    }
    if (status == STATUS_OK) {
        status = database_run(
            store->database,
            "UPDATE surface SET reason = iif(state = 'done', reason, ?3), ended_at = iif(state = "
            "'done' OR ?2 = 'waiting', ended_at, ?4), state = iif(state = 'done' OR (?2 = "
            "'waiting' AND EXISTS (SELECT 1 FROM surface_row r WHERE r.surface_id = ?1 AND r.state "
            "= 'running')), state, ?2) WHERE surface_id = ?1",
            BIND(value_text(surface_id), value_text(run_state_name(state)), value_text(reason),
                 value_real(now_s)),
            error);
    }
    if (status == STATUS_OK && database_changes(store->database) != 1) {
        status = error_set(error, STATUS_FAILED, "there is no surface %s", surface_id);
    }
    return store_finish(store, status, error);
}
