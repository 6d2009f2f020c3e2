/* What the files of a scan share, internal to experiments/: one surface being worked on by this
 * process. */
#pragma once
#include "analysis/measure.h"
#include "experiments/inputs.h"
#include "experiments/scan.h"
#include "experiments/scan_plane.h"
#include "experiments/workbench.h"

enum { SCAN_BATCH = 32, SCAN_HESSIAN_MAX = 16 };

typedef struct {
    const Config *config;
    const World *world;
    const ScanOptions *options;

    RunSpec spec; /* settled, planned, ranges in numbers, whole ids, paths absolute */
    char directory[CONFIG_PATH];
    ModelConfig model;
    ModelHashes hashes;
    AdapterSpec adapter;
    Trajectory runs[2];
    int n_runs;
    Trajectory *paths; /* (n_paths) of ScanOptions.paths */
    double *initial;   /* (n) where training starts: the base model */
    size_t n;          /* scalars */
    ScanPlane plane;
    Text identity, model_identity; /* canonical JSON: all; the model's part alone */
    char surface_id[RUN_ID_SIZE];

    Workbench bench; /* opened when there is something to measure */
    AdapterBank *bank;
    Reward *reward;
    Sampling sampling;
    MeasureSettings settings;
    Trainer trainer;

    Store *store; /* STORE_SHARED, once everything was accepted */
    SurfaceLease lease;
    double beat_s; /* when the lease was last kept, by clock_s */
    bool lost;     /* another process has taken the lease over */
    int rows_here;
    int64_t points_before; /* done by all when the row was begun */
    int points_here;       /* of the row, so far */
    char stage[64];        /* what is measured beyond the grid; "": rows */
    Progress progress;
} Scan;

/* scan_open.c: from config to identity; the model is opened only where its weights are the
 * parameters. Errors: as scan_run. scan: zeroed; closed also after an error. */
Status scan_open(Scan *scan, const Config *config, const World *world, const ScanOptions *options,
                 Error *error);
void scan_close(Scan *scan);
/* Model, rows, bank, reward: all that measuring wants. Nothing is written. */
Status scan_open_bench(Scan *scan, Error *error);
/* Is the stored run's model (and adapter) this one? Errors: STATUS_USAGE naming both. */
Status scan_check_run(const Scan *scan, const Trajectory *run, bool adapter, Error *error);
SurfaceInfo scan_info(const Scan *scan, const Text *config, const Text *metrics);

/* The surface's own metric, the first of scan.values: its place in measure_names. */
int scan_own_metric(const Scan *scan);
/* Measure n points of the plane: xy: (n, 2), out: (n) zeroed. */
Status scan_measure(Scan *scan, Measured *out, const double *xy, int n, Error *error);
/* (MEASURE_COUNT) names under which standard errors are stored; NULL where there is none. */
extern const char *const scan_error_names[MEASURE_COUNT];

/* scan_rows.c: rows until none is left. *last: this process has done the last one, or came when all
 * was done: it is the one to finish. Errors: STATUS_STOPPED after giving its row back. */
Status scan_rows(Scan *scan, bool *last, Error *error);
/* Rows and points done by all processes, into the progress. */
Status scan_look_around(Scan *scan, Store *store, Error *error);
/* Wait until no other process writes to the file. Errors: STATUS_STOPPED. */
Status scan_turn(Scan *scan, Error *error);
void scan_show(Scan *scan, const char *phase, int done, int total, long tokens);
int scan_on_progress(void *context, const char *phase, int done, int total, long tokens);

/* scan_finish.c: best, minimum, curvature, slices; what is stored is not done again. */
Status scan_base_marks(Scan *scan, const Measured *base, Error *error);
Status scan_finish(Scan *scan, Error *error);

/* scan_paths.c: where runs went, laid over the surface; those that are stored are left. */
Status scan_paths(Scan *scan, Error *error);
/* Is there a --path that is not stored yet? */
Status scan_paths_missing(const Scan *scan, Store *store, bool *missing, Error *error);

/* scan_figures.c: those of the surface that are not in the folder. A program that is missing is a
 * note. */
bool scan_figures_missing(const Scan *scan);
Status scan_figures(Scan *scan, Error *error);

/* scan_report.c: from results.db alone. */
Status scan_report(ScanResult *result, Store *store, const char *surface_id, Error *error);
