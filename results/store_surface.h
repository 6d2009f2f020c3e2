/* Surfaces in results.db. Rows are tasks that several processes take from one list: a row is
 * claimed under a lease, kept by heartbeats, and committed whole or not at all.
 *
 * Processes that share a surface open the store with STORE_SHARED (store.h): each call below takes
 * the writer's lock for its own transaction alone. Times are the caller's. */
#pragma once
#include "results/store.h"

typedef struct {
    const char *surface_id; /* 16 hex digits: start of the identity's SHA-256 */
    const char *experiment, *identity, *config, *model;
    const char *run_id; /* NULL: v is (x, y) */
    size_t n_parameters;
    const double *plane; /* (3, n_parameters): origin, direction of x, direction of y */
    const char *metrics; /* JSON list */
    const char *x_label, *y_label;
    int nx, ny;
    double x_min, x_max, y_min, y_max;
} SurfaceInfo;

/* Insert the surface with its nx waiting rows, unless it is there; its state. The experiment must
 * exist. */
Status store_surface(Store *store, const SurfaceInfo *info, double now_s, RunState *state,
                     Error *error);

/* The newest surface of an experiment that is not surface_id: its id and identity, appended; *found
 * false when there is none. */
Status store_surface_rival(Store *store, const char *experiment, const char *surface_id,
                           bool *found, Text *id, Text *identity, Error *error);

typedef struct {
    char *block; /* owns the strings: free(block) */
    const char *surface_id, *experiment, *identity, *config, *model, *run_id, *metrics, *x_label,
        *y_label;
    RunState state;
    size_t n_parameters;
    double *plane; /* in block */
    int nx, ny, rows_done;
    double x_min, x_max, y_min, y_max;
} StoredSurface;
/* id: a surface_id or a unique prefix, or the name of an experiment that has one surface.
 * STATUS_USAGE when none or several match, listing them. */
Status store_find_surface(Store *store, const char *id, StoredSurface *surface, Error *error);

typedef struct {
    int i; /* -1: none is free */
    int64_t lease;
    bool preview; /* its lattice points alone */
    bool over;    /* every row is done */
} SurfaceLease;

/* Claim the first row in `order` that waits, or whose holder is gone: an earlier boot or no such
 * pid on this host, or no heartbeat for stale_s. stride > 1: rows of the lattice (i % stride == 0,
 * and nx - 1) that were not previewed come first, as previews. order: (nx). */
Status store_surface_claim(Store *store, const char *surface_id, const Worker *worker,
                           const int *order, int nx, int stride, double now_s, double stale_s,
                           SurfaceLease *lease, Error *error);
/* *kept false: the lease was taken over by another process; drop the work. */
Status store_surface_heartbeat(Store *store, const char *surface_id, const SurfaceLease *lease,
                               double now_s, bool *kept, Error *error);

typedef struct {
    int j;
    const char *metric;
    double x, y, value; /* not finite: NULL with an event `nonfinite` */
} SurfaceValue;
/* The values of a claimed row (or of its preview) and its new state, one transaction; nothing when
 * the lease was lost (*kept false). A row that lacks a point of a metric of its surface is refused
 * (STATUS_FAILED). The last row sets the surface to done only by store_surface_end. */
Status store_surface_commit(Store *store, const char *surface_id, const SurfaceLease *lease,
                            const SurfaceValue *values, size_t n, double now_s, bool *kept,
                            Error *error);
/* Give a row back, as it was. */
Status store_surface_release(Store *store, const char *surface_id, const SurfaceLease *lease,
                             Error *error);

/* Values of row i so far (preview or done) by j and metric: values malloc'ed (n); metric strings
 * live in the same block. */
Status store_surface_row(Store *store, const char *surface_id, int i, SurfaceValue **values,
                         size_t *n, Error *error);

typedef struct {
    const char *kind, *name, *metric; /* schema.sql, surface_mark */
    int64_t place;
    double x, y, distance, value;
} SurfaceMark;
typedef struct {
    const char *name, *metric;
    int place;
    double t, x, y, value;
} SurfaceSlice;
typedef struct {
    const char *place; /* "base", "minimum" */
    int k;
    double eigenvalue;
    const double *eigenvector; /* (n_parameters) */
} SurfaceEigen;
/* One measurement of a search: schema.sql, surface_search. */
typedef struct {
    const char *search;
    int place;
    double x, y, loss;
    const double *slopes; /* (n) */
    size_t n;
} SurfaceSearch;
/* Insert or replace, one transaction; slices of the same name are replaced as a whole. A value that
 * is not finite is NULL: there is none. */
Status store_surface_marks(Store *store, const char *surface_id, const SurfaceMark *marks, size_t n,
                           Error *error);
Status store_surface_slices(Store *store, const char *surface_id, const SurfaceSlice *slices,
                            size_t n, Error *error);
Status store_surface_search(Store *store, const char *surface_id, const SurfaceSearch *point,
                            Error *error);
Status store_surface_eigen(Store *store, const char *surface_id, const SurfaceEigen *pairs,
                           size_t n, Error *error);

/* state: done (only when every row is; final), failed with a reason, or waiting: this process
 * leaves (still running while another one holds a row). */
Status store_surface_end(Store *store, const char *surface_id, RunState state, const char *reason,
                         double now_s, Error *error);
Status store_surface_event(Store *store, const char *surface_id, const char *kind,
                           const char *message, double now_s, Error *error);

/* A file that was written for a surface or a run (either may be NULL), replacing an earlier row of
 * the same path. */
Status store_artifact(Store *store, const char *run_id, const char *surface_id, const char *kind,
                      const char *path, int64_t n_bytes, const char *sha256, double now_s,
                      Error *error);
