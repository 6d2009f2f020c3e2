/* Where a run starts that goes on from another one: SFT, then GRPO. */
#include "experiments/cell_start.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sha256.h"
#include "results/frame.h"
#include "rl/checkpoint.h"

/* Are the two of one model and adapter? */
static Status check_fit(const char *identity, const char *run_id, Store *store, Error *error)
{
    Frame frame = {0};
    char key[128] = "";
    Status status =
        frame_read(&frame, store, "SELECT identity FROM run WHERE run_id = ?1", &run_id, 1, error);
    const char *other = status || frame.n_rows == 0 ? NULL : frame_text(&frame, "identity", 0);
    if (!status && (!other || !identity_agrees(identity, other, "adapter.", key) ||
                    !identity_agrees(identity, other, "model.", key))) {
        status = error_set(error, STATUS_USAGE, "run %s is of another model or adapter: %s differs",
                           run_id, key);
    }
    frame_release(&frame);
    return status;
}

static Status check_hash(RunSpec *spec, const float *v, size_t n, Error *error)
{
    char hash[SHA256_HEX_SIZE];
    sha256_bytes(hash, v, n * sizeof *v);
    if (spec->start_sha256[0] && strcmp(spec->start_sha256, hash) != 0) {
        return error_set(error, STATUS_REFUSED,
                         "run %s: the SHA-256 of its scalars is %s, start_sha256 is %s",
                         spec->start_run, hash, spec->start_sha256);
    }
    memcpy(spec->start_sha256, hash, sizeof hash);
    return STATUS_OK;
}

static Status take_parameters(float **v, size_t *n, Store *store, const StoredRun *run,
                              Error *error)
{
    void *blob = NULL;
    size_t n_bytes = 0;
    int64_t step = 0;
    if (run->state != RUN_DONE) {
        return error_set(error, STATUS_USAGE, "run %s is %s; one that is done is needed",
                         run->run_id, run_state_name(run->state));
    }
    Status status = store_checkpoint(store, run->run_id, &step, &blob, &n_bytes, error);
    if (!status && !blob) {
        status = error_set(error, STATUS_FAILED, "run %s has no checkpoint", run->run_id);
    }
    status = status ? status : checkpoint_parameters(v, n, &step, blob, n_bytes, error);
    free(blob);
    return status;
}

static Status start_from(float **start, RunSpec *spec, size_t n_parameters, const char *identity,
                         Store *store, Error *error)
{
    StoredRun run = {0};
    float *v = NULL;
    size_t n = 0;
    Status status = store_find_run(store, spec->start_run, &run, error);
    status = status ? status : check_fit(identity, run.run_id, store, error);
    status = status ? status : take_parameters(&v, &n, store, &run, error);
    if (!status && n != n_parameters) {
        status = error_set(error, STATUS_USAGE, "run %s has %zu scalars, this one %zu", run.run_id,
                           n, n_parameters);
    }
    if (!status) {
        snprintf(spec->start_run, sizeof spec->start_run, "%s", run.run_id);
        status = check_hash(spec, v, n, error);
    }
    free(run.block);
    if (status) {
        free(v);
        return status;
    }
    *start = v;
    return STATUS_OK;
}

Status cell_start(float **start, RunSpec *spec, size_t n_parameters, const char *identity,
                  Store *store, Error *error)
{
    Status status = start_from(start, spec, n_parameters, identity, store, error);
    return status ? error_context(error, status, "start_run") : STATUS_OK;
}
