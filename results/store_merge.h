/* A copy of results.db, and runs and surfaces of other files. */
#pragma once
#include "results/store.h"

/* A copy as it is at this moment, whole or not at all, while others read and write. Errors:
 * STATUS_USAGE (path is taken), STATUS_FAILED. */
Status store_snapshot(Store *store, const char *path, Error *error);

typedef struct {
    int64_t n_runs, n_surfaces; /* that came over; base models' rows count as runs */
    int64_t n_known;            /* were here already, and stay */
    int64_t n_further;          /* of them, runs with more steps in the other file */
} Merged;

/* Put the runs and surfaces of another file (for reading) that are not here into a STORE_WRITE,
 * each whole. A run of both must have the same rows at the steps that both have: that is looked at
 * first. merged: added to. Errors: STATUS_REFUSED naming the run and the first difference, nothing
 * is written then; STATUS_FAILED. */
Status store_merge(Store *to, Store *from, Merged *merged, Error *error);
