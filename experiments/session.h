/* A model opened for use, with the adapter of a stored run on it: what generate, score and eval
 * stand on. */
#pragma once
#include "adapters/adapter.h"
#include "experiments/workbench.h"
#include "results/store.h"

typedef struct {
    char run_id[17]; /* "" for the base model */
    RunSpec spec;    /* of the run */
    int64_t step;    /* of its newest checkpoint */
    float *v;        /* (n) */
    size_t n;
} RunAdapter;

/* The settings and the newest parameters of a run. id: a run_id or a unique prefix. Errors:
 * STATUS_USAGE (no such run), STATUS_FAILED (no checkpoint). */
Status run_adapter_open(RunAdapter *adapter, Store *store, const char *id, Error *error);
void run_adapter_close(RunAdapter *adapter);

typedef struct {
    Workbench bench;
    AdapterBank *bank; /* NULL: the base model */
    int adapter;       /* 1 with a bank that has a hook, else 0 */
} Session;

/* directory: of the model. adapter: NULL for the base. Errors: STATUS_USAGE when the adapter does
 * not fit the model. */
Status session_open(Session *session, const World *world, const char *directory,
                    const RunAdapter *adapter, Error *error);
void session_close(Session *session);
const LinearHook *session_hook(const Session *session);
