/* `scan`: a surface from a config, row by row, by any number of processes at once. What is to be
 * done next is decided from results.db alone; the values at a point depend on the identity alone.
 */
#pragma once
#include "experiments/config.h"
#include "experiments/identity.h"
#include "experiments/world.h"
#include "results/store_surface.h"

typedef struct {
    const char *db;
    int wait_ms;
    bool yes;            /* go on with a grid that takes very long */
    bool grid_only;      /* neither minimum nor curvature nor slices; a later call makes them */
    bool new_surface;    /* beside another surface of the experiment */
    const char *figures; /* folder for the pictures at the end; NULL: none */
    const char *const *paths; /* runs whose trajectories are laid over it */
    size_t n_paths;
} ScanOptions;

/* What is known of a surface. Numbers are NaN where there are none. */
typedef struct {
    char surface_id[RUN_ID_SIZE];
    RunState state;
    int rows, rows_done, columns;
    int rows_here;   /* done by this call */
    int n_holes;     /* values that are not finite */
    char metric[16]; /* the surface's own */
    double base;     /* its value of the base model */
    double best, best_x, best_y;
    double minimum, minimum_x, minimum_y; /* of the loss on the plane */
    bool inside;                          /* the minimum lies within the grid */
    double gain, gain_se, p_value;        /* base's loss - minimum's, nats; paired over rows */
    double curvature[2]; /* largest and smallest eigenvalue of the loss's Hessian at the minimum */
    double base_curvature[2]; /* and at the base */
    Text files;               /* figures, a path a line */
} ScanResult;
void scan_result_release(ScanResult *result);

/* Errors: STATUS_USAGE (config, plane, another identity under the same experiment, naming the
 * fields; a grid that wants `yes`), STATUS_REFUSED (files), STATUS_STOPPED after giving its row
 * back, STATUS_FAILED. result: zeroed; what is known is filled in also with STATUS_STOPPED. */
Status scan_run(ScanResult *result, const Config *config, const World *world,
                const ScanOptions *options, Error *error);
