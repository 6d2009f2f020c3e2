/* Derivatives, the minimum and resampling. */
#include "analysis/landscape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/numerics.h"

/* A difference of gradients in single precision errs by their noise / step, and by step^4 times a
 * fifth derivative (two steps, Richardson 1911). The adapter multiplies singular values by 1 +
 * O(v), so that the loss bends over similar lengths of v in all models. Against Hessians in double
 * precision (relative, Frobenius): random models of 2, 3 and 13 scalars 1e-5 to 1e-4, abacus 2e-5
 * to 1e-4; steps 4 times larger give up to 1e-2, 4 times smaller 5e-4. */
static const double STEP = 0.00390625;
static const double ASYMMETRY = 0.1; /* of the norm, at most */
/* Of a scalar: v + step, v - step, v + 2 step, v - 2 step. */
enum { STENCIL = LANDSCAPE_STENCIL };

static Status no_memory(Error *error, size_t n)
{
    return error_set(error, STATUS_FAILED, "no memory for a Hessian of %zu scalars", n);
}

/* points: (n, STENCIL, n) */
static void place_stencils(float *points, const float *v, size_t n, double step)
{
    static const int offsets[STENCIL] = {1, -1, 2, -2};
    for (size_t k = 0; k < n; k++) {
        for (int s = 0; s < STENCIL; s++) {
            float *point = points + (k * STENCIL + (size_t)s) * n;
            memcpy(point, v, n * sizeof *v);
            point[k] = (float)((double)v[k] + offsets[s] * step);
        }
    }
}

/* The slope of gradient element i from point a to point b, along scalar k, as far as they really
 * are apart in single precision. */
static double slope(const double *gradients, const float *points, size_t n, size_t k, size_t i,
                    int a, int b)
{
    size_t at = k * STENCIL;
    double width =
        (double)points[(at + (size_t)a) * n + k] - (double)points[(at + (size_t)b) * n + k];
    return (gradients[(at + (size_t)a) * n + i] - gradients[(at + (size_t)b) * n + i]) / width;
}

/* The mean of both halves, if they agree. */
static Status symmetrise(double *hessian, size_t n, Error *error)
{
    double norm = 0, difference = 0;
    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i < n; i++) {
            double a = hessian[k * n + i], b = hessian[i * n + k];
            norm += a * a;
            difference += (a - b) * (a - b) / 4;
        }
    }
    if (difference > ASYMMETRY * ASYMMETRY * norm) {
        return error_set(
            error, STATUS_FAILED,
            "the Hessian is not certain: its halves differ by %.0f %% of it (the loss is "
            "flat to single precision, or bends within %g)",
            100 * sqrt(difference / norm), STEP);
    }
    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i < k; i++) {
            double mean = (hessian[k * n + i] + hessian[i * n + k]) / 2;
            hessian[k * n + i] = hessian[i * n + k] = mean;
        }
    }
    return STATUS_OK;
}

static Status hessian_from(double *hessian, const double *gradients, const float *points, size_t n,
                           Error *error)
{
    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i < n; i++) {
            double near = slope(gradients, points, n, k, i, 0, 1);
            double far = slope(gradients, points, n, k, i, 2, 3);
            hessian[k * n + i] = (4 * near - far) / 3;
            if (!isfinite(hessian[k * n + i])) {
                return error_set(error, STATUS_FAILED,
                                 "the gradient near here is not finite (scalar %zu of %zu)", k + 1,
                                 n);
            }
        }
    }
    return symmetrise(hessian, n, error);
}

/* gradients: (STENCIL, n) of scalar k's points: (STENCIL, n). */
static Status measure_stencil(double *gradients, const Trainer *trainer,
                              const MeasureSettings *settings, const float *points, size_t n,
                              size_t k, const LandscapeMemory *memory, Error *error)
{
    Measured measured[STENCIL] = {0};
    int first = (int)k * STENCIL, known = 0;
    double loss;
    while (memory && known < STENCIL &&
           memory->recall(memory->context, first + known, NAN, NAN, &loss,
                          gradients + (size_t)known * n, n)) {
        known++;
    }
    Status status = known == STENCIL
                        ? STATUS_OK
                        : measure_points(measured, trainer, settings, points + (size_t)known * n,
                                         STENCIL - known, error);
    for (int s = known; s < STENCIL && !status; s++) {
        double *gradient = gradients + (size_t)s * n;
        memcpy(gradient, measured[s - known].gradient, n * sizeof *gradient);
        if (memory) {
            status = memory->keep(memory->context, first + s, NAN, NAN, NAN, gradient, n, error);
        }
    }
    for (int s = 0; s < STENCIL; s++) {
        measured_release(&measured[s]);
    }
    return status;
}

Status landscape_hessian(double *hessian, double *eigenvalues, double *eigenvectors,
                         const Trainer *trainer, const MeasureSettings *settings, const float *v,
                         size_t n, double step, const LandscapeMemory *memory, Error *error)
{
    if (n < 1 || n > LANDSCAPE_MAX_N) {
        return error_set(error, STATUS_USAGE,
                         "the Hessian of %zu scalars is not computed: 1 to %d scalars", n,
                         LANDSCAPE_MAX_N);
    }
    MeasureSettings settings_of_gradients = *settings;
    settings_of_gradients.metrics = MEASURE_GRAD_NORM;
    size_t size = n * STENCIL * n;
    float *points = malloc(size * sizeof *points);
    double *gradients = malloc(size * sizeof *gradients);
    if (!points || !gradients) {
        free(points);
        free(gradients);
        return no_memory(error, n);
    }
    place_stencils(points, v, n, step > 0 ? step : STEP);
    Status status = STATUS_OK;
    for (size_t k = 0; k < n && !status; k++) {
        size_t at = k * STENCIL * n;
        status = measure_stencil(gradients + at, trainer, &settings_of_gradients, points + at, n, k,
                                 memory, error);
    }
    status = status ? status : hessian_from(hessian, gradients, points, n, error);
    free(points);
    free(gradients);
    return status ? status : numerics_symmetric_eigen(eigenvalues, eigenvectors, hessian, n, error);
}

/* ---- the minimum ---- */

static const double BEYOND = 0.1;     /* of a range's width, on each side */
static const double TOLERANCE = 1e-7; /* nats a step of the grid */
static const double AT_EDGE = 0.01;   /* steps of the grid */
static const double NOISE = 1e-7;     /* of the loss: what is not lower by more is as low */
enum { MAX_ITERATIONS = 50, MAX_EVALUATIONS = 100, STALLED = 6 /* evaluations, none lower */ };

/* The search runs in u of x = middle + half * sin(u), counted so that 1 is a step of the grid at
 * the middle: smooth, within its borders, and alike on both axes. */
typedef struct {
    const Trainer *trainer;
    MeasureSettings settings;
    const Plane *plane;
    const LandscapeMemory *memory;
    float *v; /* (n) scratch */
    double middle[2], half[2], step[2];
    double first_loss;
    double low;  /* the lowest loss, but for steps within the noise */
    int n_since; /* evaluations since then */
    Minimum *best;
} Valley;

/* Loss at (x, y) and its slopes along the directions. */
static Status look(Valley *valley, const double at[2], double *loss, double slope[2], Error *error)
{
    Measured measured = {0};
    size_t n = valley->plane->n;
    int k = valley->best->n_evaluations;
    const LandscapeMemory *memory = valley->memory;
    if (memory && memory->recall(memory->context, k, at[0], at[1], loss, slope, 2)) {
        return STATUS_OK;
    }
    plane_point(valley->v, valley->plane, at[0], at[1]);
    Status status =
        measure_points(&measured, valley->trainer, &valley->settings, valley->v, 1, error);
    if (status) {
        return status;
    }
    *loss = measured.values[0];
    for (int axis = 0; axis < 2; axis++) {
        const double *direction = valley->plane->basis + (size_t)(axis + 1) * n;
        slope[axis] = 0;
        for (size_t i = 0; i < n; i++) {
            slope[axis] += measured.gradient[i] * direction[i];
        }
    }
    measured_release(&measured);
    return memory ? memory->keep(memory->context, k, at[0], at[1], *loss, slope, 2, error)
                  : STATUS_OK;
}

static void keep_best(Valley *valley, const double at[2], double loss)
{
    Minimum *best = valley->best;
    if (best->n_evaluations == 1) {
        valley->first_loss = valley->low = loss;
    } else if (loss < valley->low - NOISE * fabs(loss)) {
        valley->low = loss;
        valley->n_since = 0;
    }
    if (best->n_evaluations > 1 && !(loss < best->loss)) {
        return;
    }
    best->x = at[0];
    best->y = at[1];
    best->loss = loss;
    best->improved = loss < valley->first_loss;
    best->at_edge = false;
    for (int axis = 0; axis < 2; axis++) {
        double inside = valley->half[axis] - fabs(at[axis] - valley->middle[axis]);
        best->at_edge |= inside < AT_EDGE * valley->step[axis];
    }
}

/* At an edge, and where the loss is flat to its precision, BFGS would go on for long. */
static bool is_enough(const Valley *valley)
{
    return valley->n_since == STALLED || valley->best->n_evaluations == MAX_EVALUATIONS;
}

/* What BFGS sees; where the loss is not finite: a plateau above all that counts. */
static Status descend(void *context, const double *t, double *value, double *gradient, Error *error)
{
    Valley *valley = context;
    double at[2], slope[2];
    for (int axis = 0; axis < 2; axis++) {
        double u = t[axis] * valley->step[axis] / valley->half[axis];
        at[axis] = valley->middle[axis] + valley->half[axis] * sin(u);
        gradient[axis] = valley->step[axis] * cos(u); /* dx / dt, for now */
    }
    if (valley->best->n_evaluations == 0) { /* not by way of asin */
        at[0] = valley->best->x;
        at[1] = valley->best->y;
    } else if (is_enough(valley)) {
        return STATUS_STOPPED;
    }
    Status status = look(valley, at, value, slope, error);
    if (status) {
        return status;
    }
    bool finite = isfinite(*value) && isfinite(slope[0]) && isfinite(slope[1]);
    valley->best->n_evaluations++;
    valley->n_since++;
    if (!finite && valley->best->n_evaluations == 1) {
        return error_set(error, STATUS_FAILED,
                         "the loss or its gradient at x = %g, y = %g is not finite", at[0], at[1]);
    }
    if (finite) {
        keep_best(valley, at, *value);
    } else {
        *value = valley->first_loss + 10 * (1 + fabs(valley->first_loss));
    }
    for (int axis = 0; axis < 2; axis++) {
        gradient[axis] *= finite ? slope[axis] : 0;
    }
    return STATUS_OK;
}

Status landscape_minimum(Minimum *minimum, const Trainer *trainer, const MeasureSettings *settings,
                         const Plane *plane, const PlaneRange *rx, const PlaneRange *ry, double x,
                         double y, const LandscapeMemory *memory, Error *error)
{
    const PlaneRange *ranges[2] = {rx, ry};
    const double start[2] = {x, y};
    double t[2];
    Minimum found = {.x = x, .y = y};
    Valley valley = {.trainer = trainer,
                     .settings = *settings,
                     .plane = plane,
                     .memory = memory,
                     .best = &found};
    valley.settings.metrics = MEASURE_LOSS | MEASURE_GRAD_NORM;
    for (int axis = 0; axis < 2; axis++) {
        double width = ranges[axis]->max - ranges[axis]->min;
        double low = fmin(ranges[axis]->min - BEYOND * width, start[axis]);
        double high = fmax(ranges[axis]->max + BEYOND * width, start[axis]);
        valley.step[axis] = width / (ranges[axis]->n - 1);
        valley.middle[axis] = low + (high - low) / 2;
        valley.half[axis] = (high - low) / 2;
        double sine = (start[axis] - valley.middle[axis]) / valley.half[axis];
        t[axis] = asin(fmin(fmax(sine, -1), 1)) * valley.half[axis] / valley.step[axis];
    }
    valley.v = malloc(plane->n * sizeof *valley.v);
    if (!valley.v) {
        return error_set(error, STATUS_FAILED, "no memory for a point of %zu scalars", plane->n);
    }
    NumericsSearch search = {
        .first_step = 0.5, .tolerance = TOLERANCE, .max_iterations = MAX_ITERATIONS};
    Status status = numerics_minimise(t, &found.converged, 2, &search, descend, &valley, error);
    free(valley.v);
    if (status == STATUS_STOPPED && is_enough(&valley)) {
        status = STATUS_OK;
        found.converged = valley.n_since == STALLED;
    }
    if (!status) {
        *minimum = found;
    }
    return status;
}

/* ---- resampling ---- */

static bool rises(const double *x, int n)
{
    for (int i = 0; i < n; i++) {
        if (!isfinite(x[i]) || (i > 0 && !(x[i] > x[i - 1]))) {
            return false;
        }
    }
    return true;
}

/* Mean of the finite ones among the eight points around (i, j); NaN when there is none. */
static double neighbours(const double *z, int nx, int ny, int i, int j)
{
    double sum = 0;
    int n = 0;
    for (int a = i > 0 ? i - 1 : 0; a <= i + 1 && a < nx; a++) {
        for (int b = j > 0 ? j - 1 : 0; b <= j + 1 && b < ny; b++) {
            double value = z[(size_t)a * (size_t)ny + (size_t)b];
            sum += isfinite(value) ? value : 0;
            n += isfinite(value);
        }
    }
    return n ? sum / n : NAN;
}

/* z without holes, filled from their borders inwards; false when there is nothing but holes. */
static bool fill_holes(double *filled, double *next, const double *z, int nx, int ny)
{
    size_t n = (size_t)nx * (size_t)ny, n_holes = n;
    memcpy(next, z, n * sizeof *z);
    for (size_t before = n + 1; n_holes > 0 && n_holes < before;) {
        before = n_holes;
        n_holes = 0;
        memcpy(filled, next, n * sizeof *z);
        for (size_t k = 0; k < n; k++) {
            if (!isfinite(filled[k])) {
                next[k] = neighbours(filled, nx, ny, (int)(k / (size_t)ny), (int)(k % (size_t)ny));
                n_holes += !isfinite(next[k]);
            }
        }
    }
    memcpy(filled, next, n * sizeof *z);
    return n_holes == 0;
}

/* The grid points on both sides of fine point i of n; the same one twice where it meets one, but
 * for rounding. */
static void around(int *below, int *above, const double *x, int nx, int i, int n)
{
    double at = x[0] + (x[nx - 1] - x[0]) * i / (n - 1);
    int k = 0;
    while (k < nx - 2 && x[k + 1] <= at) {
        k++;
    }
    double share = (at - x[k]) / (x[k + 1] - x[k]);
    *below = share > 1 - 1e-9 ? k + 1 : k;
    *above = share < 1e-9 ? k : k + 1;
}

static void mask_holes(double *fine, int fx, int fy, const double *z, const double *x, int nx,
                       const double *y, int ny)
{
    for (int i = 0; i < fx; i++) {
        int left, right;
        around(&left, &right, x, nx, i, fx);
        for (int j = 0; j < fy; j++) {
            int low, high;
            around(&low, &high, y, ny, j, fy);
            size_t a = (size_t)left * (size_t)ny, b = (size_t)right * (size_t)ny;
            if (!isfinite(z[a + (size_t)low]) || !isfinite(z[a + (size_t)high]) ||
                !isfinite(z[b + (size_t)low]) || !isfinite(z[b + (size_t)high])) {
                fine[(size_t)i * (size_t)fy + (size_t)j] = NAN;
            }
        }
    }
}

Status landscape_resample(double *fine, int fx, int fy, const double *z, const double *x, int nx,
                          const double *y, int ny, Error *error)
{
    if (nx < 2 || ny < 2 || fx < 2 || fy < 2) {
        return error_set(error, STATUS_USAGE,
                         "a grid of %d x %d points cannot be drawn with %d x %d: 2 are the least",
                         nx, ny, fx, fy);
    }
    if (!rises(x, nx) || !rises(y, ny)) {
        return error_set(error, STATUS_USAGE, "the coordinates of %s do not rise",
                         rises(x, nx) ? "y" : "x");
    }
    size_t n = (size_t)nx * (size_t)ny;
    double *filled = malloc(2 * n * sizeof *filled);
    if (!filled) {
        return error_set(error, STATUS_FAILED, "no memory for a grid of %d x %d points", nx, ny);
    }
    Status status = STATUS_OK;
    if (fill_holes(filled, filled + n, z, nx, ny)) {
        status = numerics_interpolate(fine, fx, fy, filled, x, nx, y, ny, error);
    }
    free(filled);
    mask_holes(fine, fx, fy, z, x, nx, y, ny);
    return status;
}
