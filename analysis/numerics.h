/* The one place of GSL: tails of distributions, quantiles, eigenvectors, principal directions,
 * minimisation, interpolation, behind plain C. GSL's error handler, which would abort, is off. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

/* z with P(Z > z) = p for a standard normal Z. */
double numerics_normal_quantile_above(double p);
/* P(K <= k), K binomial of n tries with probability p. */
double numerics_binomial_below(unsigned k, double p, unsigned n);
/* P(T > t), T Student's with `freedom` degrees of freedom. */
double numerics_student_above(double t, double freedom);

/* x: (n) rising. */
void numerics_sort(double *x, size_t n);
/* Of rising x: (n > 0), between two of them linearly; at in [0, 1]. */
double numerics_quantile(const double *x, size_t n, double at);

/* Eigenvalues: (n) falling, and eigenvectors: (n, n), row k of eigenvalue k, orthonormal, the
 * largest element of each positive. a: (n, n) symmetric, finite (its lower triangle is read).
 * Errors: STATUS_FAILED: memory, no convergence. */
Status numerics_symmetric_eigen(double *eigenvalues, double *eigenvectors, const double *a,
                                size_t n, Error *error);

/* The right singular vectors of a: (m, n) with the largest singular values: directions: (count, n)
 * orthonormal, the largest element of each positive; singular: (min(m, n)) falling. count <= min(m,
 * n). Errors: STATUS_FAILED: memory, no convergence. */
Status numerics_principal(double *directions, double *singular, size_t count, const double *a,
                          size_t m, size_t n, Error *error);

/* Value and gradient: (n) at x: (n), finite. */
typedef Status (*NumericsValue)(void *context, const double *x, double *value, double *gradient,
                                Error *error);
typedef struct {
    double first_step; /* length of the first trial step */
    double tolerance;  /* stop where the gradient's norm is below */
    int max_iterations;
} NumericsSearch;
/* BFGS (GSL's vector_bfgs2; Fletcher 1987, section 2.6) from x: (n); x becomes the last point of
 * the search. *converged: the gradient fell below the tolerance, or no lower value was found along
 * the way down; else max_iterations were not enough. Errors: value's, which end the search;
 * STATUS_FAILED: memory. */
Status numerics_minimise(double *x, bool *converged, size_t n, const NumericsSearch *search,
                         NumericsValue value, void *context, Error *error);

/* fine: (fx, fy), evenly spread over the ranges of x: (nx) and y: (ny), both rising, from z: (nx,
 * ny), finite, y fastest in both. Bicubic, or bilinear where an axis has fewer than 4 points; at
 * least 2. Errors: STATUS_FAILED: memory, GSL's own. */
Status numerics_interpolate(double *fine, int fx, int fy, const double *z, const double *x, int nx,
                            const double *y, int ny, Error *error);

/* The first n points of Sobol's sequence in the unit cube (Sobol 1967; Bratley & Fox 1988), of the
 * first `dimensions` up to 40. points: (n, dimensions). Errors: STATUS_USAGE, STATUS_FAILED. */
Status numerics_sobol(double *points, size_t n, size_t dimensions, Error *error);
