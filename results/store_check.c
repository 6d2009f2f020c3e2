/* `db check`: everything that can be told about a file, by reading all of it. */
#include <inttypes.h>
#include <string.h>

#include "core/sha256.h"
#include "results/schema.h"
#include "results/store_private.h"

/* One line for each row of a checking pragma, but "ok". */
static Status check_rows(Store *store, const char *sql, const char *what, bool *sound, Text *report,
                         Error *error)
{
    Statement *statement = NULL;
    Status status = database_rows(&statement, store->database, sql, NULL, 0, error);
    bool row = status == STATUS_OK, clean = true;
    while (status == STATUS_OK && row) {
        status = statement_next(statement, &row, error);
        if (status == STATUS_OK && row) {
            const char *text = statement_text(statement, 0);
            if (!text || strcmp(text, "ok") != 0) {
                clean = false;
                text_printf(report, "%s: %s\n", what, text ? text : "NULL");
            }
        }
    }
    statement_reset(statement);
    if (status ==
        STATUS_REFUSED) { /* damage so bad that the check itself ends: a finding, not an error */
        text_printf(report, "%s: the check could not finish, the database is damaged\n", what);
        *sound = false;
        return STATUS_OK;
    }
    if (status == STATUS_OK && clean) {
        text_printf(report, "%s: ok\n", what);
    }
    *sound = *sound && clean;
    return status;
}

static Status check_checkpoints(Store *store, bool *sound, Text *report, Error *error)
{
    Statement *statement = NULL;
    Status status =
        database_rows(&statement, store->database,
                      "SELECT run_id, step, sha256, bytes FROM checkpoint", NULL, 0, error);
    bool row = status == STATUS_OK;
    long n = 0, n_bad = 0;
    while (status == STATUS_OK && row) {
        status = statement_next(statement, &row, error);
        if (status != STATUS_OK || !row) {
            break;
        }
        Value bytes = statement_value(statement, 3);
        char hex[SHA256_HEX_SIZE];
        sha256_bytes(hex, bytes.bytes, bytes.n);
        n++;
        if (strcmp(hex, statement_word(statement, 2)) != 0) {
            n_bad++;
            text_printf(report, "checkpoint of run %s step %" PRId64 ": checksum differs\n",
                        statement_word(statement, 0), statement_integer(statement, 1));
        }
    }
    statement_reset(statement);
    text_printf(report, "checkpoints: %ld, %ld damaged\n", n, n_bad);
    *sound = *sound && n_bad == 0;
    return status == STATUS_REFUSED ? STATUS_OK : status;
}

/* What the tables of surfaces promise each other: a line for each breach. */
static const char surface_breaches[] =
    "WITH listed AS (SELECT *, iif(json_valid(metrics), metrics, '[]') AS list FROM surface) "
    "SELECT printf('surface %s: its plane has %d bytes for %d parameters', surface_id, "
    "length(plane), n_parameters) FROM surface WHERE length(plane) <> 24 * n_parameters "
    "UNION ALL SELECT printf('surface %s: its metrics are no list', surface_id) FROM listed WHERE "
    "json_array_length(list) < 1 "
    "UNION ALL SELECT printf('surface %s: %d rows of %d', s.surface_id, count(r.i), s.nx) FROM "
    "surface s LEFT JOIN surface_row r USING (surface_id) GROUP BY s.surface_id HAVING count(r.i) "
    "<> s.nx OR min(r.i) <> 0 OR max(r.i) <> s.nx - 1 "
    "UNION ALL SELECT printf('surface %s is done, but %d of its rows are not', s.surface_id, "
    "count(*)) FROM surface s JOIN surface_row r USING (surface_id) WHERE s.state = 'done' AND "
    "r.state <> 'done' GROUP BY s.surface_id "
    "UNION ALL SELECT printf('surface %s, row %d is done with %d of %d points of \"%s\"', "
    "s.surface_id, r.i, coalesce(h.n, 0), s.ny, m.value) FROM listed s JOIN surface_row r USING "
    "(surface_id) JOIN json_each(s.list) m LEFT JOIN (SELECT surface_id, i, metric, count(*) AS n, "
    "min(j) AS low, max(j) AS high FROM surface_point GROUP BY surface_id, i, metric) h ON "
    "h.surface_id = s.surface_id AND h.i = r.i AND h.metric = m.value WHERE r.state = 'done' AND "
    "(h.n IS NOT s.ny OR h.low <> 0 OR h.high <> s.ny - 1) "
    "UNION ALL SELECT printf('surface %s, row %d is %s, but has %d values', p.surface_id, p.i, "
    "r.state, count(*)) FROM surface_point p JOIN surface_row r USING (surface_id, i) WHERE "
    "r.state <> 'done' GROUP BY p.surface_id, p.i "
    "UNION ALL SELECT printf('surface %s, row %d is held by nobody', surface_id, i) FROM "
    "surface_row WHERE state = 'running' AND (host IS NULL OR pid IS NULL OR boot_id IS NULL OR "
    "heartbeat_at IS NULL OR lease < 1) "
    "UNION ALL SELECT printf('surface %s, row %d: %d values differ from its preview', "
    "p.surface_id, p.i, count(*)) FROM surface_point p JOIN surface_preview q USING (surface_id, "
    "i, j, metric) WHERE p.value IS NOT q.value OR p.x <> q.x OR p.y <> q.y GROUP BY p.surface_id, "
    "p.i "
    "UNION ALL SELECT printf('surface %s, %s: eigenvector %d has %d bytes for %d parameters', "
    "surface_id, place, k, length(eigenvector), n_parameters) FROM surface_hessian JOIN surface "
    "USING (surface_id) WHERE length(eigenvector) <> 8 * n_parameters";

Status store_check(Store *store, bool *sound, Text *report, Error *error)
{
    *sound = true;
    int version = 0;
    Status status = schema_check(store->database, &version, error);
    if (status == STATUS_OK) {
        Statement *statement = NULL;
        bool row = false;
        status = database_rows(&statement, store->database, "PRAGMA journal_mode", NULL, 0, error);
        if (status == STATUS_OK) {
            status = statement_next(statement, &row, error);
        }
        if (status == STATUS_OK && row) {
            text_printf(report, "schema: version %d\njournal: %s on a %s file system\n", version,
                        statement_word(statement, 0), store->network ? "network" : "local");
        }
        statement_reset(statement);
    }
    text_printf(
        report, "SQLite: %s, %s\n", database_library_version(),
        database_library_has_wal_reset_bug()
            ? "has the WAL-reset bug (fixed in 3.51.3): only the holder of the writer's lock "
              "writes or checkpoints, readers never do"
            : "without the WAL-reset bug");
    if (status == STATUS_OK) {
        status = check_rows(store, "PRAGMA integrity_check", "integrity", sound, report, error);
    }
    if (status == STATUS_OK) {
        status =
            check_rows(store, "PRAGMA foreign_key_check", "foreign keys", sound, report, error);
    }
    if (status == STATUS_OK) {
        status = check_checkpoints(store, sound, report, error);
    }
    if (status == STATUS_OK) {
        status = check_rows(store, surface_breaches, "surfaces", sound, report, error);
    }
    return store_fail(store, status, error);
}
