/* A run's stored config says which adapter its parameters belong to. */
#include "experiments/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experiments/cell.h"
#include "rl/checkpoint.h"

Status run_adapter_open(RunAdapter *adapter, Store *store, const char *id, Error *error)
{
    StoredRun run = {0};
    void *blob = NULL;
    size_t n_bytes = 0;
    int64_t step;
    memset(adapter, 0, sizeof *adapter);
    Status status = store_find_run(store, id, &run, error);
    if (status) {
        return status;
    }
    snprintf(adapter->run_id, sizeof adapter->run_id, "%s", run.run_id);
    status = spec_from_json(&adapter->spec, run.config, error);
    status =
        status ? status : store_checkpoint(store, run.run_id, false, &step, &blob, &n_bytes, error);
    if (!status && !blob) {
        status = error_set(error, STATUS_FAILED, "it has no checkpoint yet");
    }
    status = status ? status
                    : checkpoint_parameters(&adapter->v, &adapter->n, &adapter->step, blob, n_bytes,
                                            error);
    if (status) {
        error_context(error, status, "run %s", run.run_id);
    }
    free(blob);
    free(run.block);
    return status;
}

void run_adapter_close(RunAdapter *adapter)
{
    free(adapter->v);
    adapter->v = NULL;
}

static Status put_adapter(Session *session, const RunAdapter *adapter, Error *error)
{
    RunSpec spec = adapter->spec;
    AdapterSpec bank_spec;
    const World *world = session->bench.world;
    Model *model = session->bench.model;
    Status status = cell_adapter(&bank_spec, &spec, &model->config, error);
    status = status ? status
                    : adapter_bank_new(&session->bank, model, &bank_spec, 1, world->n_threads,
                                       world->cache, NULL, NULL, error);
    if (!status && adapter_parameters(session->bank) != adapter->n) {
        status =
            error_set(error, STATUS_USAGE, "it has %zu parameters, %zu are wanted by this model",
                      adapter->n, adapter_parameters(session->bank));
    }
    if (status) {
        return error_context(error, status, "adapter of run %s", adapter->run_id);
    }
    adapter_set(session->bank, 1, adapter->v, world->n_threads);
    session->adapter =
        adapter_hook(session->bank) ? 1 : 0; /* without a hook the weights are the adapter */
    return STATUS_OK;
}

Status session_open(Session *session, const World *world, const char *directory,
                    const RunAdapter *adapter, Error *error)
{
    memset(session, 0, sizeof *session);
    workbench_init(&session->bench, world);
    Status status = workbench_model(&session->bench, directory, error);
    if (!status && adapter) {
        status = put_adapter(session, adapter, error);
    }
    if (status) {
        session_close(session);
    }
    return status;
}

void session_close(Session *session)
{
    adapter_bank_free(session->bank);
    session->bank = NULL;
    workbench_release(&session->bench);
}

const LinearHook *session_hook(const Session *session)
{
    return session->bank ? adapter_hook(session->bank) : NULL;
}
