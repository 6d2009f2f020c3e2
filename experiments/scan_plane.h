/* The plane of a scan: (x, y) themselves, or through the parameters of stored runs. */
#pragma once
#include "analysis/plane.h"
#include "experiments/identity.h"
#include "results/store.h"

/* A stored run and where its parameters were at each checkpoint. */
typedef struct {
    char run_id[RUN_ID_SIZE];
    RunSpec spec;
    Text identity;
    int64_t *steps; /* (n_points) rising */
    double *points; /* (n_points, n) the last one is the run as it is now */
    size_t n_points, n;
} Trajectory;

/* id: a run_id or a unique prefix. Errors: STATUS_USAGE: no such run, without checkpoint, without
 * parameters. trajectory: zeroed; released also after an error. */
Status trajectory_open(Trajectory *trajectory, Store *store, const char *id, Error *error);
void trajectory_release(Trajectory *trajectory);
const double *trajectory_end(const Trajectory *trajectory);

typedef struct {
    Plane plane;
    PlaneRange rx, ry;
    char x_label[96], y_label[96];
} ScanPlane;

/* spec: settled; its ranges become numbers. initial: (n) where training starts. runs: those that
 * scan.run and scan.run_2 name. Errors: STATUS_USAGE naming the setting (not two scalars, an axis
 * that is not there, parallel directions, a path without two directions). */
Status scan_plane_open(ScanPlane *plane, RunSpec *spec, const double *initial, size_t n,
                       const Trajectory *runs, Error *error);
void scan_plane_release(ScanPlane *plane);
