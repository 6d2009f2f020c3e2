/* Beyond the grid: derivatives, the refined minimum, slices, and smooth pictures of a grid. GSL
 * does the eigenvectors, the minimisation and the interpolation. */
#pragma once
#include "analysis/measure.h"
#include "analysis/plane.h"

/* Hessian of the loss by v at v: (n), by central differences of the exact gradient, symmetrised.
 * eigenvalues: (n) falling; eigenvectors: (n, n), row k belongs to eigenvalue k, its largest
 * element positive. step: of v; 0: chosen. All 2n (or more) points are measured in one call.
 * Errors: as measure_points; STATUS_FAILED where it is not finite; STATUS_USAGE above
 * LANDSCAPE_MAX_N scalars. */
enum { LANDSCAPE_MAX_N = 512 };
Status landscape_hessian(double *hessian /* (n, n) */, double *eigenvalues, double *eigenvectors,
                         const Trainer *trainer, const MeasureSettings *settings, const float *v,
                         size_t n, double step, Error *error);

typedef struct {
    double x, y, loss;
    int n_evaluations;
    bool converged; /* the gradient along the plane fell below the tolerance */
} Minimum;
/* The lowest loss on the plane, by GSL's BFGS with the exact gradient, from (x, y). Never above the
 * loss there. It may leave the grid by a tenth of the ranges' widths at most. */
Status landscape_minimum(Minimum *minimum, const Trainer *trainer, const MeasureSettings *settings,
                         const Plane *plane, const PlaneRange *rx, const PlaneRange *ry, double x,
                         double y, Error *error);

/* Bicubic interpolation of a grid for pictures: fine: (fx, fy) from z: (nx, ny), both with x
 * slowest. Holes (NaN) stay holes: a fine point whose cell has a hole is NaN. Axes shorter than
 * bicubic needs (4) are bilinear. Errors: STATUS_USAGE (coordinates not rising), STATUS_FAILED. */
Status landscape_resample(double *fine, int fx, int fy, const double *z, const double *x, int nx,
                          const double *y, int ny, Error *error);
