/* `sft`, `grpo` and `sweep`: every cell of a config to its end, from wherever it was left. */
#pragma once
#include "experiments/cell.h"
#include "experiments/world.h"
#include "results/store.h"

typedef struct {
    const char *db;    /* results.db; made only when everything that enters was accepted */
    bool retry_failed; /* failed cells once more, from their newest checkpoint */
    int wait_ms;       /* for another writer to leave */
} RunnerOptions;

/* What became of the cells. */
typedef struct {
    size_t n, n_done, n_failed, n_cancelled;
    size_t n_new; /* done by this call */
} RunnerResult;

/* The cells' states as the store has them; a store that does not exist leaves them waiting. */
Status runner_states(Cell *cells, size_t n, const char *db, Error *error);

/* Run the cells that are not done, fused where they can be. Typed again it goes on; where all is
 * done it does nothing. Errors: STATUS_USAGE and STATUS_REFUSED before anything is written;
 * STATUS_STOPPED after committing; STATUS_FAILED also when all cells were tried and some failed
 * (the message counts them). */
Status runner_run(RunnerResult *result, const Config *config, Cell *cells, size_t n,
                  const World *world, const RunnerOptions *options, Error *error);
