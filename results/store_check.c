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
        if (strcmp(hex, statement_text(statement, 2)) != 0) {
            n_bad++;
            text_printf(report, "checkpoint of run %s step %" PRId64 ": checksum differs\n",
                        statement_text(statement, 0), statement_integer(statement, 1));
        }
    }
    statement_reset(statement);
    text_printf(report, "checkpoints: %ld, %ld damaged\n", n, n_bad);
    *sound = *sound && n_bad == 0;
    return status == STATUS_REFUSED ? STATUS_OK : status;
}

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
                        statement_text(statement, 0), store->network ? "network" : "local");
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
    return store_fail(store, status, error);
}
