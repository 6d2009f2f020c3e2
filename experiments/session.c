/* A stored config says which adapter the parameters belong to. */
#include "experiments/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/plane.h"
#include "core/json.h"
#include "experiments/cell.h"
#include "experiments/descriptor.h"
#include "results/frame.h"
#include "results/store_surface.h"
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
    snprintf(adapter->name, sizeof adapter->name, "run %s", run.run_id);
    status = spec_from_json(&adapter->spec, run.config, error);
    status = status ? status : store_checkpoint(store, run.run_id, &step, &blob, &n_bytes, error);
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

/* Where a named point of a surface lies; it is there once the scan has come so far. */
static Status find_mark(double *x, double *y, Store *store, const char *surface_id,
                        const char *kind, Error *error)
{
    Frame frame = {0};
    const char *const binds[] = {surface_id, kind};
    Status status =
        frame_read(&frame, store,
                   "SELECT m.x, m.y FROM surface_mark m JOIN surface s USING (surface_id) WHERE "
                   "surface_id = ?1 AND m.kind = ?2 AND m.metric = iif(?2 = 'best', s.metrics ->> "
                   "0, 'loss')",
                   binds, 2, error);
    if (!status && frame.n_rows == 0) {
        status =
            error_set(error, STATUS_USAGE,
                      "--at %s: it is not known yet, or has none; tinylora scan finds it", kind);
    } else if (!status) {
        *x = frame_number(&frame, "x", 0);
        *y = frame_number(&frame, "y", 0);
    }
    frame_release(&frame);
    return status;
}

static Status parse_place(double *x, double *y, const char *at, Error *error)
{
    char *end;
    *x = strtod(at, &end);
    if (end != at && *end == ',') {
        const char *rest = end + 1;
        *y = strtod(rest, &end);
        if (end != rest && !*end && isfinite(*x) && isfinite(*y)) {
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_USAGE,
                     "--at \"%.64s\": two numbers X,Y, or minimum, best or base are expected", at);
}

static Status place_on(RunAdapter *adapter, Store *store, const StoredSurface *surface,
                       const char *at, Error *error)
{
    double x = 0, y = 0;
    bool named = strcmp(at, "minimum") == 0 || strcmp(at, "best") == 0;
    if (strcmp(at, "base") == 0) {
        return STATUS_OK;
    }
    Status status = named ? find_mark(&x, &y, store, surface->surface_id, at, error)
                          : parse_place(&x, &y, at, error);
    adapter->n = surface->n_parameters;
    adapter->v = status ? NULL : malloc(adapter->n * sizeof *adapter->v);
    if (!status && !adapter->v) {
        status = error_set(error, STATUS_FAILED, "out of memory for %zu scalars", adapter->n);
    }
    if (!status) {
        Plane plane = {surface->n_parameters, surface->plane};
        plane_point(adapter->v, &plane, x, y);
    }
    return status;
}

static void read_weights_hash(char sha256[SHA256_HEX_SIZE], const char *identity)
{
    JsonDocument *document = NULL;
    if (json_parse(&document, identity, strlen(identity), NULL) == STATUS_OK) {
        const char *hash = json_string(json_get(json_root(document), "model.weights_sha256"), NULL);
        snprintf(sha256, SHA256_HEX_SIZE, "%s", hash ? hash : "");
    }
    json_free(document);
}

Status run_adapter_pin(RunAdapter *adapter, Store *store, Error *error)
{
    Frame frame = {0};
    const char *const binds[] = {adapter->run_id};
    Status status =
        frame_read(&frame, store, "SELECT identity FROM run WHERE run_id = ?1", binds, 1, error);
    if (!status && frame.n_rows == 1) {
        const char *identity = frame_text(&frame, "identity", 0);
        read_weights_hash(adapter->weights_sha256, identity ? identity : "");
    }
    frame_release(&frame);
    return status;
}

Status surface_adapter_open(RunAdapter *adapter, Store *store, const char *id, const char *at,
                            Error *error)
{
    StoredSurface surface = {0};
    memset(adapter, 0, sizeof *adapter);
    Status status = store_find_surface(store, id, &surface, error);
    if (status) {
        return status;
    }
    snprintf(adapter->name, sizeof adapter->name, "surface %s", surface.surface_id);
    read_weights_hash(adapter->weights_sha256, surface.identity);
    status = spec_from_json(&adapter->spec, surface.config, error);
    status = status ? status : place_on(adapter, store, &surface, at, error);
    if (status) {
        error_context(error, status, "surface %s", surface.surface_id);
    }
    free(surface.block);
    return status;
}

void run_adapter_close(RunAdapter *adapter)
{
    free(adapter->v);
    free(adapter->descriptor);
    adapter->v = NULL;
    adapter->descriptor = NULL;
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
    adapter_spec_release(&bank_spec);
    if (!status && adapter_parameters(session->bank) != adapter->n) {
        status =
            error_set(error, STATUS_USAGE, "it has %zu parameters, %zu are wanted by this model",
                      adapter->n, adapter_parameters(session->bank));
    }
    if (status) {
        return error_context(error,
                             adapter->of_file && status == STATUS_USAGE ? STATUS_REFUSED : status,
                             adapter->of_file ? "%s" : "adapter of %s", adapter->name);
    }
    adapter_set(session->bank, 1, adapter->v, world->n_threads);
    if (adapter->descriptor) {
        status = descriptor_check(adapter->descriptor, adapter->name, session->bank, world, error);
        if (status) {
            return error_context(error, status, "%s", adapter->name);
        }
    }
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
    if (!status && adapter && adapter->weights_sha256[0] &&
        strcmp(adapter->weights_sha256, model_weights_sha256(session->bench.model)) != 0) {
        status = error_set(error, adapter->of_file ? STATUS_REFUSED : STATUS_USAGE,
                           "%s is of another model: weights %.12s.., those of \"%s\" are %.12s..",
                           adapter->name, adapter->weights_sha256, directory,
                           model_weights_sha256(session->bench.model));
    }
    if (!status && adapter && adapter->v) {
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
