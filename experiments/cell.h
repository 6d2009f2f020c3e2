/* A cell made ready to run: settings, plan, the hashes of its inputs, and so its identity. Needs no
 * weights in memory. */
#pragma once
#include "adapters/adapter.h"
#include "experiments/adapter_settings.h"
#include "experiments/grid.h"
#include "experiments/identity.h"
#include "results/store.h"

typedef struct {
    RunSpec spec;                /* settled, planned, paths absolute */
    char directory[CONFIG_PATH]; /* of the model */
    char held_out[CONFIG_PATH];  /* the rows that give the objective: dev, else eval, else train */
    ModelConfig model;
    char weights_sha256[SHA256_HEX_SIZE];
    AdapterSpec adapter; /* method points into adapters' own names */
    int64_t budget;      /* trained scalars */
    float *start;        /* (budget) of start_run; NULL: the adapter's own */
    Text identity, label;
    char run_id[RUN_ID_SIZE];
    RunState state; /* in the store; RUN_WAITING where it is not there */
    int64_t last_step;
} Cell;

/* The cells of a config in the grid's order, those of equal identity once. db: results.db, where
 * start_run is looked up. Errors: STATUS_USAGE
 * (settings, plan), STATUS_REFUSED (files), with the cell named. */
Status cells_open(Cell **cells, size_t *n, const Config *config, const char *models, const char *db,
                  Error *error);
void cells_close(Cell *cells, size_t n);
/* The one cell of a stored run's settings (spec_from_json), from the files as they are now: whether
 * they are still those of the run its identity says. store: where its start_run is. Errors: as
 * cells_open. */
Status cell_of_spec(Cell *cell, const RunSpec *spec, const char *models, Store *store,
                    Error *error);
void cell_release(Cell *cell);

/* Insert the cell's run into the store unless it is there; its state and last step are read. The
 * experiment must be there. */
Status cell_store(Cell *cell, Store *store, double now_s, Error *error);
