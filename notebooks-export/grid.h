/* A surface as whole arrays, the way pictures and array files want it: z[iy * nx + ix], so that it
 * goes with numpy's meshgrid(x, y). Points that were not computed and holes are NaN. */
#pragma once
#include "results/frame.h"
#include "results/store_surface.h"

enum { GRID_MAX_POINTS = 100000000 };

typedef struct {
    const char *name;  /* loss, accuracy, ..., loss_se, ...: in `points` */
    const char *units; /* "nats per token" */
    double *z;         /* (ny, nx) */
} GridMetric;

typedef struct {
    StoredSurface surface;
    double *x, *y;       /* (nx), (ny) */
    GridMetric *metrics; /* the surface's own first, then the others by name */
    size_t n_metrics;
    Frame marks; /* kind, name, place, metric, x, y, distance, value */
    Frame points;
} Grid;

/* id: as store_find_surface. Metrics without one finite value are left out. Errors: those of
 * store_find_surface; STATUS_FAILED for a surface without a finished row; STATUS_REFUSED for more
 * than GRID_MAX_POINTS points or a metric that is no plain name (letters, digits and _). grid:
 * zeroed; released also after an error. */
Status grid_read(Grid *grid, Store *store, const char *id, Error *error);
void grid_release(Grid *grid);

/* The place of a mark ("base", "best", "minimum") that has a value of the metric; false when there
 * is none. */
bool grid_mark(const Grid *grid, const char *kind, const char *metric, double *x, double *y,
               double *value);
