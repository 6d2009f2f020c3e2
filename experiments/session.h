/* A model opened for use, with the adapter of a stored run on it: what generate, score and eval
 * stand on. */
#pragma once
#include "adapters/adapter.h"
#include "experiments/workbench.h"
#include "results/store.h"

typedef struct {
    char name[64];   /* "run 3f2a...", for messages */
    char run_id[17]; /* "" of a surface */
    RunSpec spec;    /* of the run or the surface */
    int64_t step;    /* of its newest checkpoint */
    float *v;        /* (n); NULL: the base model */
    size_t n;
    char weights_sha256[SHA256_HEX_SIZE]; /* of the model it belongs to; "" where it may be another
                                           */
    bool of_file;                         /* not of results.db */
    char *descriptor; /* of a file: what the adapter must be once it is made; NULL: not known */
} RunAdapter;

/* The settings and the newest parameters of a run. id: a run_id or a unique prefix. Errors:
 * STATUS_USAGE (no such run), STATUS_FAILED (no checkpoint). */
Status run_adapter_open(RunAdapter *adapter, Store *store, const char *id, Error *error);
/* From now on it fits the very weights that the run was trained on alone. Errors: STATUS_FAILED. */
Status run_adapter_pin(RunAdapter *adapter, Store *store, Error *error);
/* The adapter at a point of a surface. id: a surface_id, a unique prefix, or an experiment that has
 * one surface. at: "X,Y", "minimum", "best" or "base". Errors: STATUS_USAGE (no such surface or
 * point; it is not known yet). */
Status surface_adapter_open(RunAdapter *adapter, Store *store, const char *id, const char *at,
                            Error *error);
void run_adapter_close(RunAdapter *adapter);

typedef struct {
    Workbench bench;
    AdapterBank *bank; /* NULL: the base model */
    int adapter;       /* 1 with a bank that has a hook, else 0 */
} Session;

/* directory: of the model. adapter: NULL for the base. Errors: STATUS_USAGE when the adapter does
 * not fit the model, or is of a surface of another one. */
Status session_open(Session *session, const World *world, const char *directory,
                    const RunAdapter *adapter, Error *error);
void session_close(Session *session);
const LinearHook *session_hook(const Session *session);
