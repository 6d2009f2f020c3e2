/* Where a run starts that goes on from another one. */
#pragma once
#include "experiments/identity.h"
#include "results/store.h"

/* The scalars of spec->start_run, which gets its whole run_id, and start_sha256 their hash; *start:
 * malloc'ed (n_parameters). identity: of the cell without them, whose model and adapter must be the
 * run's. Errors: STATUS_USAGE (no such run, not done, of another model or adapter), STATUS_REFUSED
 * (other scalars than start_sha256 says). */
Status cell_start(float **start, RunSpec *spec, size_t n_parameters, const char *identity,
                  Store *store, Error *error);
