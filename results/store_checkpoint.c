/* Checkpoints as they come back: a blob is what its SHA-256 says, or it is damaged. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/sha256.h"
#include "results/store_private.h"

/* Rows later than step: what a run that goes on from there will compute again. */
static Status delete_later(Store *store, const char *run_id, int64_t step, Error *error)
{
    static const char *const statements[] = {
        "DELETE FROM metric WHERE run_id = ? AND step > ?",
        "DELETE FROM completion WHERE run_id = ? AND step > ?",
        "DELETE FROM event WHERE run_id = ? AND step > ?",
        "DELETE FROM evaluation WHERE run_id = ? AND step > ?", /* and its verdicts */
        "DELETE FROM eval_completion WHERE run_id = ? AND step > ?",
        "DELETE FROM checkpoint WHERE run_id = ? AND step > ?", /* the damaged ones */
        "UPDATE run SET last_step = ?2 WHERE run_id = ?1"};
    Status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < sizeof statements / sizeof *statements; i++) {
        status = database_run(store->database, statements[i],
                              BIND(value_text(run_id), value_integer(step)), error);
    }
    return status;
}

/* The checkpoint that `statement` stands on: step, sha256, bytes. *damaged: the blob stays NULL. */
static Status read_checkpoint(Statement *statement, bool *damaged, int64_t *step, void **blob,
                              size_t *n_bytes, Error *error)
{
    Value bytes = statement_value(statement, 2);
    char hex[SHA256_HEX_SIZE];
    sha256_bytes(hex, bytes.bytes, bytes.n);
    *step = statement_integer(statement, 0);
    *damaged = strcmp(hex, statement_word(statement, 1)) != 0;
    if (*damaged) {
        return STATUS_OK;
    }
    void *copy = malloc(bytes.n ? bytes.n : 1);
    if (!copy) {
        return error_set(error, STATUS_FAILED, "no memory for a checkpoint of %.2f GiB",
                         (double)bytes.n / 0x1p30);
    }
    memcpy(copy, bytes.bytes, bytes.n);
    *blob = copy;
    *n_bytes = bytes.n;
    return STATUS_OK;
}

static Status refuse(const char *run_id, int64_t step, Error *error)
{
    return error_set(error, STATUS_REFUSED,
                     "run %s: the checkpoint of step %" PRId64
                     " does not match its checksum; the command that trained it goes on from the "
                     "one before",
                     run_id, step);
}

static const char newest_first[] =
    "SELECT step, sha256, bytes FROM checkpoint WHERE run_id = ? ORDER BY step DESC";

Status store_checkpoint(Store *store, const char *run_id, int64_t *step, void **blob,
                        size_t *n_bytes, Error *error)
{
    Statement *statement = NULL;
    bool row = false, damaged = false;
    *step = -1;
    *blob = NULL;
    *n_bytes = 0;
    Status status =
        database_rows(&statement, store->database, newest_first, BIND(value_text(run_id)), error);
    status = status ? status : statement_next(statement, &row, error);
    if (!status && row) {
        status = read_checkpoint(statement, &damaged, step, blob, n_bytes, error);
        status = damaged ? refuse(run_id, *step, error) : status;
    }
    statement_reset(statement);
    return store_fail(store, status, error);
}

Status store_checkpoint_at(Store *store, const char *run_id, int64_t step, void **blob,
                           size_t *n_bytes, Error *error)
{
    Statement *statement = NULL;
    bool row = false, damaged = false;
    int64_t found = -1;
    Status status = database_rows(&statement, store->database,
                                  "SELECT step, sha256, bytes FROM checkpoint WHERE run_id = ? AND "
                                  "step = ?",
                                  BIND(value_text(run_id), value_integer(step)), error);
    status = status ? status : statement_next(statement, &row, error);
    if (!status && !row) {
        status =
            error_set(error, STATUS_FAILED, "run %s: no checkpoint of step %" PRId64, run_id, step);
    } else if (!status) {
        status = read_checkpoint(statement, &damaged, &found, blob, n_bytes, error);
        status = damaged ? refuse(run_id, step, error) : status;
    }
    statement_reset(statement);
    return store_fail(store, status, error);
}

Status store_resume(Store *store, const char *run_id, double now_s, int64_t *step, void **blob,
                    size_t *n_bytes, int64_t *damaged, Error *error)
{
    Statement *statement = NULL;
    bool row = false, bad = true;
    *step = *damaged = -1;
    *blob = NULL;
    *n_bytes = 0;
    Status status = store_begin(store, error);
    status = status ? status
                    : database_rows(&statement, store->database, newest_first,
                                    BIND(value_text(run_id)), error);
    while (!status && bad && !(status = statement_next(statement, &row, error)) && row) {
        status = read_checkpoint(statement, &bad, step, blob, n_bytes, error);
        *damaged = bad && *damaged < 0 ? *step : *damaged;
    }
    statement_reset(statement);
    *step = !status && !bad ? *step : -1;
    status = status ? status : delete_later(store, run_id, *step, error);
    if (!status && *damaged >= 0) {
        char message[128];
        snprintf(message, sizeof message,
                 "the checkpoint of step %" PRId64 " did not match its checksum: gone on from %s "
                 "%" PRId64,
                 *damaged, *step < 0 ? "the start, step" : "step", *step < 0 ? 0 : *step);
        status = store_insert_event(store, run_id, *step < 0 ? 0 : *step, "damaged", message, now_s,
                                    error);
    }
    status = store_finish(store, status, error);
    if (status) {
        free(*blob);
        *blob = NULL;
    }
    return status;
}

Status store_reopen_damaged(Store *store, const char *run_id, bool *reopened, Error *error)
{
    Statement *statement = NULL;
    bool row = false, damaged = false;
    int64_t step = -1;
    size_t n_bytes = 0;
    void *blob = NULL;
    Status status = store_begin(store, error);
    status = status ? status
                    : database_rows(&statement, store->database, newest_first,
                                    BIND(value_text(run_id)), error);
    status = status ? status : statement_next(statement, &row, error);
    if (!status && row) {
        status = read_checkpoint(statement, &damaged, &step, &blob, &n_bytes, error);
    }
    statement_reset(statement);
    free(blob);
    if (!status && damaged) {
        status = database_run(
            store->database, "UPDATE run SET state = 'waiting' WHERE run_id = ? AND state = 'done'",
            BIND(value_text(run_id)), error);
    }
    status = store_finish(store, status, error);
    *reopened = !status && damaged;
    return status;
}
