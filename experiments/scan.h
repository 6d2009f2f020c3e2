/* `scan`: a surface from a config, row by row, by any number of processes at once. What is to be
 * done next is decided from results.db alone; the values at a point depend on the identity alone.
 */
#pragma once
#include "experiments/cell.h"
#include "experiments/world.h"
#include "results/store_surface.h"

typedef struct {
    const char *db;
    int wait_ms;
    bool yes;                 /* go on with a grid that takes very long */
    bool new_surface;         /* beside another surface of the experiment */
    const char *figures;      /* folder for the pictures at the end; NULL: none */
    const char *const *paths; /* runs whose trajectories are laid over it */
    size_t n_paths;
} ScanOptions;

typedef struct {
    char surface_id[RUN_ID_SIZE];
    int rows, rows_done, rows_here; /* here: by this process */
    Text report;                    /* what is worth saying at the end, lines for people */
} ScanResult;

/* Errors: STATUS_USAGE (config, plane, another identity under the same experiment, naming the
 * fields; a grid that wants --yes), STATUS_REFUSED (files), STATUS_STOPPED after giving its row
 * back, STATUS_FAILED. */
Status scan_run(ScanResult *result, const Config *config, const World *world,
                const ScanOptions *options, Error *error);
