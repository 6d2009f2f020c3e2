/* A plane of adapters: v(x, y) = origin + x * direction_x + y * direction_y, and the grid on it.
 * Pure arithmetic in double; v is rounded to float once, at the end. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct {
    double min, max;
    int n;
} PlaneRange;

/* "min:max:points", both ends in. Errors, each showing the right form: STATUS_USAGE: syntax, not a
 * finite number of single precision, an empty range (min >= max), fewer than 2 points, more than
 * 100,000, points that coincide. */
Status plane_range_parse(PlaneRange *range, const char *text, Error *error);
/* Coordinate i of the range: the ends exactly; 0 exactly where the grid meets it. */
double plane_coordinate(const PlaneRange *range, int i);
/* The order in which rows are computed: coarse to fine (van der Corput), ends first. order: (n). */
void plane_order(int *order, int n);

typedef struct {
    size_t n;
    double *basis; /* (3, n): origin, direction_x, direction_y; owned */
} Plane;

/* Scalars axis_x and axis_y (from 0) move, the others stay at the origin: with n = 2 and the origin
 * at 0, v = (x, y) itself. */
Status plane_axes(Plane *plane, const double *origin, size_t n, size_t axis_x, size_t axis_y,
                  Error *error);
/* Two orthonormal random directions of (seed, RANDOM_DIRECTION). */
Status plane_random(Plane *plane, const double *origin, size_t n, uint64_t seed, Error *error);
/* The two leading principal directions of the path's points about its last one (Li et al. 2018,
 * section 7.2: the singular vectors of the rows path[k] - path[last], not centred again, so that no
 * plane through the last point lies closer to the path). explained: (2) shares of the squared
 * distances from the last point, may be NULL. path: (n_points, n). Origin: the last point. Errors:
 * fewer than 3 different points, all points on a line, saying what else to do. */
Status plane_pca(Plane *plane, double *explained, const double *path, size_t n_points, size_t n,
                 Error *error);
/* Through base, a and b (Garipov et al. 2018): origin base, x = 1 is a, direction_y is orthogonal
 * to direction_x and as long. Errors of all: STATUS_USAGE when the directions are parallel or zero
 * (sine of the angle < 1e-6), saying which. */
Status plane_through(Plane *plane, const double *base, const double *a, const double *b, size_t n,
                     Error *error);
void plane_release(Plane *plane);

/* v: (n) out. */
void plane_point(float *v, const Plane *plane, double x, double y);
/* Foot of the perpendicular from v: (n), and its distance from the plane. */
void plane_project(double *x, double *y, double *distance, const Plane *plane, const double *v);
/* Ranges that hold the points x, y: (n_points >= 1) with a margin of a quarter of the spread on
 * each side, less than a step more on one and less on the other where that puts 0 on the grid; n >=
 * 9 points. */
void plane_ranges(PlaneRange *rx, PlaneRange *ry, const double *x, const double *y, size_t n_points,
                  int n);
