/* Beyond the grid: derivatives, the refined minimum, slices, and smooth pictures of a grid. GSL
 * does the eigenvectors, the minimisation and the interpolation. */
#pragma once
#include "analysis/measure.h"
#include "analysis/plane.h"

/* What a search has measured, kept so that one that was stopped goes on. Measurements are counted
 * from 0 in their order, which depends on what was measured before alone. */
typedef struct {
    void *context;
    /* The k-th one, if it is known and was made at (x, y), which are NaN in a Hessian; slopes: (n).
     * Asked before each measurement. */
    bool (*recall)(void *context, int k, double x, double y, double *loss, double *slopes,
                   size_t n);
    /* Errors end the search. */
    Status (*keep)(void *context, int k, double x, double y, double loss, const double *slopes,
                   size_t n, Error *error);
} LandscapeMemory;

/* Hessian of the loss by v at v: (n), by central differences of the exact gradient (at v +- step
 * and v +- 2 step of each scalar, Richardson's extrapolation), symmetrised. eigenvalues: (n)
 * falling; eigenvectors: (n, n), row k belongs to eigenvalue k, its largest element positive. step:
 * of v; 0: chosen. The four points of a scalar are measured at once; of settings the rows alone
 * count. memory: of the gradients at the 4n points (loss: NaN); NULL: none. Errors: as
 * measure_points; STATUS_FAILED where a gradient is not finite, or where the halves of the matrix
 * differ by more than a tenth of its norm: flat to single precision, or bent within the step.
 * STATUS_USAGE above LANDSCAPE_MAX_N scalars. */
enum { LANDSCAPE_MAX_N = 512, LANDSCAPE_STENCIL = 4 /* points of a scalar */ };
Status landscape_hessian(double *hessian /* (n, n) */, double *eigenvalues, double *eigenvectors,
                         const Trainer *trainer, const MeasureSettings *settings, const float *v,
                         size_t n, double step, const LandscapeMemory *memory, Error *error);

typedef struct {
    double x, y, loss;
    int n_evaluations;
    bool converged; /* the search came to its own end: the loss's slope is nothing, or no point down
                       the slope, nor any of the last six, is lower to the precision of the loss */
    bool improved;  /* loss is below that at the start, not only equal (a start that is a minimum to
                       the precision of the loss) */
    bool at_edge;   /* it lies on the border of what was searched: the valley goes on */
} Minimum;
/* The lowest loss on the plane, by GSL's BFGS with the exact gradient, from (x, y). Never above the
 * loss there. It may leave the grid by a tenth of the ranges' widths at most:
 * x = middle + half * sin(u) keeps it inside, and BFGS moves u. memory: of
 * the loss and its slopes by x and y at each point of the search; NULL: none. Errors: as
 * measure_points; STATUS_FAILED where the loss or its gradient at (x, y) is not finite. */
Status landscape_minimum(Minimum *minimum, const Trainer *trainer, const MeasureSettings *settings,
                         const Plane *plane, const PlaneRange *rx, const PlaneRange *ry, double x,
                         double y, const LandscapeMemory *memory, Error *error);

/* Bicubic interpolation of a grid for pictures: fine: (fx, fy), spread evenly over the ranges of x:
 * (nx) and y: (ny), from z: (nx, ny), both with y fastest. Holes (NaN) stay holes: a fine point is
 * NaN where a hole is among the grid points around it; elsewhere holes count as the mean of their
 * neighbours. Axes shorter than bicubic needs (4) are bilinear. Errors: STATUS_USAGE (fewer than 2
 * points, coordinates not rising), STATUS_FAILED. */
Status landscape_resample(double *fine, int fx, int fy, const double *z, const double *x, int nx,
                          const double *y, int ny, Error *error);
