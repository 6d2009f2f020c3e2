/* Ranges, their order, and planes by axes, chance, principal directions and points. */
#include "analysis/plane.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/numerics.h"
#include "core/random.h"

enum { MAX_POINTS = 100000 };
static const double PARALLEL = 1e-6;    /* sine of the smallest angle that spans a plane */
static const double NEARLY_ZERO = 1e-9; /* of a step: rounding, not a coordinate */

/* ---- ranges ---- */

/* A finite decimal number that ends at `end`; the rest of the text into *rest. */
static bool read_number(double *number, const char *text, char end, const char **rest)
{
    size_t n = strspn(text, "+-.0123456789eE");
    char *stop;
    *number = strtod(text, &stop);
    *rest = text + n + 1;
    return n > 0 && stop == text + n && text[n] == end;
}

static Status bad_range(Error *error, const char *text, const char *rule)
{
    return error_set(error, STATUS_USAGE,
                     "range \"%.80s\": %s; expected min:max:points, such as \"-0.05:0.05:21\"",
                     text, rule);
}

Status plane_range_parse(PlaneRange *range, const char *text, Error *error)
{
    PlaneRange read = {0};
    double points;
    const char *rest;
    if (!read_number(&read.min, text, ':', &rest)) {
        return bad_range(error, text, "min is not a number");
    }
    if (!read_number(&read.max, rest, ':', &rest)) {
        return bad_range(error, text, "max is not a number");
    }
    if (strspn(rest, "0123456789") != strlen(rest) || !read_number(&points, rest, 0, &rest)) {
        return bad_range(error, text, "points is not a whole number");
    }
    if (fabs(read.min) > (double)FLT_MAX || fabs(read.max) > (double)FLT_MAX) {
        return bad_range(error, text, "beyond single precision");
    }
    if (read.min >= read.max) {
        return bad_range(error, text, "an empty range, min is not below max");
    }
    if (points < 2) {
        return bad_range(error, text, "fewer than 2 points make no range");
    }
    if (points > MAX_POINTS) {
        return bad_range(error, text, "more than 100000 points on one axis");
    }
    read.n = (int)points;
    if (plane_coordinate(&read, 1) <= read.min || plane_coordinate(&read, read.n - 2) >= read.max) {
        return bad_range(error, text, "points so close that they coincide");
    }
    *range = read;
    return STATUS_OK;
}

double plane_coordinate(const PlaneRange *range, int i)
{
    int last = range->n - 1;
    if (i == 0 || i == last) {
        return i == 0 ? range->min : range->max;
    }
    double x = (range->min * (last - i) + range->max * i) / last;
    return fabs(x) < NEARLY_ZERO * ((range->max - range->min) / last) ? 0 : x;
}

/* The first `bits` bits of k in the opposite order. */
static unsigned reversed(unsigned k, unsigned bits)
{
    unsigned turned = 0;
    for (unsigned b = 0; b < bits; b++) {
        turned |= (k >> b & 1u) << (bits - 1 - b);
    }
    return turned;
}

void plane_order(int *order, int n)
{
    unsigned bits = 0, last = (unsigned)n - 1;
    while ((1u << bits) < last) {
        bits++;
    }
    int count = 0;
    order[count++] = 0;
    if (n > 1) {
        order[count++] = n - 1;
    }
    unsigned char *taken = calloc((size_t)n, 1);
    if (!taken) {
        abort(); /* a byte a row */
    }
    taken[0] = 1;
    for (unsigned k = 1; k < 1u << bits; k++) { /* every row is met: 2^bits >= n - 1 */
        unsigned i = (unsigned)((uint64_t)reversed(k, bits) * last >> bits);
        if (!taken[i]) {
            taken[i] = 1;
            order[count++] = (int)i;
        }
    }
    free(taken);
}

/* ---- planes ---- */

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* Length without overflow. */
static double length(const double *a, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(a[i]));
    }
    double sum = 0;
    for (size_t i = 0; largest > 0 && i < n; i++) {
        sum += (a[i] / largest) * (a[i] / largest);
    }
    return largest * sqrt(sum);
}

/* Origin and zeroed directions. */
static Status begin(Plane *plane, const double *origin, size_t n, Error *error)
{
    if (n < 2) {
        return error_set(error, STATUS_USAGE,
                         "a plane needs at least 2 trained scalars, the adapter has %zu", n);
    }
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(origin[i])) {
            return error_set(error, STATUS_USAGE, "the origin is not finite (scalar %zu of %zu)",
                             i + 1, n);
        }
    }
    double *basis = calloc(3 * n, sizeof *basis);
    if (!basis) {
        return error_set(error, STATUS_FAILED, "no memory for a plane of %zu scalars", n);
    }
    memcpy(basis, origin, n * sizeof *basis);
    *plane = (Plane){.n = n, .basis = basis};
    return STATUS_OK;
}

void plane_release(Plane *plane)
{
    free(plane->basis);
    *plane = (Plane){0};
}

static double *direction_x(const Plane *plane)
{
    return plane->basis + plane->n;
}

static double *direction_y(const Plane *plane)
{
    return plane->basis + 2 * plane->n;
}

/* y minus its part along x, twice for rounding's sake. */
static void make_orthogonal(double *y, const double *x, size_t n)
{
    double norm = length(x, n);
    for (int pass = 0; pass < 2; pass++) {
        double along = 0;
        for (size_t i = 0; i < n; i++) {
            along += x[i] / norm * y[i];
        }
        for (size_t i = 0; i < n; i++) {
            y[i] -= along * (x[i] / norm);
        }
    }
}

static void scale_to(double *a, double target, size_t n)
{
    double norm = length(a, n);
    for (size_t i = 0; i < n; i++) {
        a[i] = a[i] / norm * target;
    }
}

/* Do x and y span a plane? name_x, name_y: what to call them. */
static Status check_directions(const double *x, const double *y, size_t n, const char *name_x,
                               const char *name_y, Error *error)
{
    double length_x = length(x, n), length_y = length(y, n), sine = 0;
    if (!(length_x > 0) || !(length_y > 0)) {
        return error_set(error, STATUS_USAGE, "%s is zero: it has no direction",
                         length_x > 0 ? name_y : name_x);
    }
    double *rest = malloc(n * sizeof *rest);
    if (!rest) {
        return error_set(error, STATUS_FAILED, "no memory for a plane of %zu scalars", n);
    }
    memcpy(rest, y, n * sizeof *rest);
    make_orthogonal(rest, x, n);
    sine = length(rest, n) / length_y;
    free(rest);
    if (sine < PARALLEL) {
        return error_set(error, STATUS_USAGE,
                         "%s and %s are parallel (%.6f degrees apart): they span a line, no plane",
                         name_x, name_y, asin(sine) * 180 / acos(-1));
    }
    return STATUS_OK;
}

Status plane_axes(Plane *plane, const double *origin, size_t n, size_t axis_x, size_t axis_y,
                  Error *error)
{
    if (axis_x >= n || axis_y >= n) {
        return error_set(error, STATUS_USAGE, "axis %zu: the adapter has scalars 0 to %zu",
                         axis_x >= n ? axis_x : axis_y, n - 1);
    }
    if (axis_x == axis_y) {
        return error_set(error, STATUS_USAGE,
                         "the directions of x and y are parallel (0 degrees apart): both are axis "
                         "%zu",
                         axis_x);
    }
    Status status = begin(plane, origin, n, error);
    if (!status) {
        direction_x(plane)[axis_x] = 1;
        direction_y(plane)[axis_y] = 1;
    }
    return status;
}

Status plane_random(Plane *plane, const double *origin, size_t n, uint64_t seed, Error *error)
{
    Plane made;
    Status status = begin(&made, origin, n, error);
    if (status) {
        return status;
    }
    RandomKey key = {seed, RANDOM_DIRECTION};
    double *x = direction_x(&made), *y = direction_y(&made);
    for (size_t i = 0; i < n; i++) {
        x[i] = random_normal(key, 0, (uint32_t)i, 0, 0);
        y[i] = random_normal(key, 1, (uint32_t)i, 0, 0);
    }
    status = check_directions(x, y, n, "the random direction of x", "that of y", error);
    if (status) {
        plane_release(&made);
        return status;
    }
    scale_to(x, 1, n);
    make_orthogonal(y, x, n);
    scale_to(y, 1, n);
    *plane = made;
    return STATUS_OK;
}

/* Rows path[k] - path[last], k < last. */
static Status path_differences(double **differences, const double *path, size_t n_points, size_t n,
                               Error *error)
{
    size_t n_rows = n_points - 1;
    *differences = malloc(n_rows * n * sizeof **differences);
    if (!*differences) {
        return error_set(error, STATUS_FAILED, "no memory for a path of %zu points", n_points);
    }
    for (size_t i = 0; i < n_rows * n; i++) {
        (*differences)[i] = path[i] - path[n_rows * n + i % n];
        if (!isfinite((*differences)[i])) {
            free(*differences);
            return error_set(error, STATUS_USAGE, "point %zu of the path is not finite", i / n + 1);
        }
    }
    return STATUS_OK;
}

/* Directions and singular values of the differences; their rank must be 2 at least. */
static Status principal_directions(Plane *plane, double *explained, const double *differences,
                                   size_t n_rows, size_t n, Error *error)
{
    size_t n_singular = n_rows < n ? n_rows : n;
    double *singular = malloc(n_singular * sizeof *singular);
    if (!singular) {
        return error_set(error, STATUS_FAILED, "no memory for a path of %zu points", n_rows + 1);
    }
    Status status =
        numerics_principal(direction_x(plane), singular, 2, differences, n_rows, n, error);
    double sum = 0;
    for (size_t k = 0; !status && k < n_singular; k++) {
        sum += singular[k] / singular[0] * (singular[k] / singular[0]);
    }
    if (!status && !(singular[1] > PARALLEL * singular[0])) {
        status = error_set(error, STATUS_USAGE,
                           "the path's %zu points lie on a line: there is no second principal "
                           "direction; use random directions, or two axes",
                           n_rows + 1);
    }
    for (size_t k = 0; !status && explained && k < 2; k++) {
        explained[k] = singular[k] / singular[0] * (singular[k] / singular[0]) / sum;
    }
    free(singular);
    return status;
}

/* Points that differ from all before them; no more are counted than 3. */
static int distinct_points(const double *path, size_t n_points, size_t n)
{
    size_t second = 0;
    for (size_t k = 1; k < n_points; k++) {
        bool as_first = memcmp(path + k * n, path, n * sizeof *path) == 0;
        bool as_second = second && memcmp(path + k * n, path + second * n, n * sizeof *path) == 0;
        if (!as_first && !as_second) {
            if (second) {
                return 3;
            }
            second = k;
        }
    }
    return n_points == 0 ? 0 : second ? 2 : 1;
}

Status plane_pca(Plane *plane, double *explained, const double *path, size_t n_points, size_t n,
                 Error *error)
{
    int n_distinct = distinct_points(path, n_points, n);
    if (n_distinct < 3) {
        return error_set(
            error, STATUS_USAGE,
            "principal directions need 3 different points, the path has %d: store more "
            "checkpoints of the run, or use random directions or two axes",
            n_distinct);
    }
    Plane made;
    double *differences;
    Status status = begin(&made, path + (n_points - 1) * n, n, error);
    if (status) {
        return error_context(error, status, "path's last point");
    }
    status = path_differences(&differences, path, n_points, n, error);
    if (!status) {
        status = principal_directions(&made, explained, differences, n_points - 1, n, error);
        free(differences);
    }
    if (status) {
        plane_release(&made);
        return status;
    }
    *plane = made;
    return STATUS_OK;
}

Status plane_through(Plane *plane, const double *base, const double *a, const double *b, size_t n,
                     Error *error)
{
    Plane made;
    Status status = begin(&made, base, n, error);
    if (status) {
        return status;
    }
    double *x = direction_x(&made), *y = direction_y(&made);
    for (size_t i = 0; i < n; i++) {
        x[i] = a[i] - base[i];
        y[i] = b[i] - base[i];
        if (!status && (!isfinite(x[i]) || !isfinite(y[i]))) {
            status = error_set(error, STATUS_USAGE,
                               "the %s point is not finite (scalar %zu of "
                               "%zu)",
                               isfinite(x[i]) ? "second" : "first", i + 1, n);
        }
    }
    status = status ? status
                    : check_directions(x, y, n, "the way from the base to the first point",
                                       "the way from the base to the second point", error);
    if (status) {
        plane_release(&made);
        return status;
    }
    make_orthogonal(y, x, n);
    scale_to(y, length(x, n), n);
    *plane = made;
    return STATUS_OK;
}

void plane_point(float *v, const Plane *plane, double x, double y)
{
    const double *dx = direction_x(plane), *dy = direction_y(plane);
    for (size_t i = 0; i < plane->n; i++) {
        v[i] = (float)(plane->basis[i] + x * dx[i] + y * dy[i]);
    }
}

/* Normal equations of two unknowns, with directions of length 1. */
void plane_project(double *x, double *y, double *distance, const Plane *plane, const double *v)
{
    size_t n = plane->n;
    const double *dx = direction_x(plane), *dy = direction_y(plane);
    double lx = length(dx, n), ly = length(dy, n), along_x = 0, along_y = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = v[i] - plane->basis[i];
        along_x += dx[i] / lx * difference;
        along_y += dy[i] / ly * difference;
    }
    double cosine = dot(dx, dy, n) / lx / ly, determinant = 1 - cosine * cosine;
    *x = (along_x - cosine * along_y) / determinant / lx;
    *y = (along_y - cosine * along_x) / determinant / ly;
    double squares = 0;
    for (size_t i = 0; i < n; i++) {
        double rest = v[i] - (plane->basis[i] + *x * dx[i] + *y * dy[i]);
        squares += rest * rest;
    }
    *distance = sqrt(squares);
}

static PlaneRange range_of(double low, double high, double spread, int n)
{
    PlaneRange range = {low - spread / 4, high + spread / 4, n};
    double step = (range.max - range.min) / (n - 1);
    if (range.min < 0 && range.max > 0) { /* the origin is a point of the grid */
        double below = fmin(fmax(round(-range.min / step), 1), n - 1);
        range.min = -below * step;
        range.max = (n - 1 - below) * step;
    }
    return range;
}

void plane_ranges(PlaneRange *rx, PlaneRange *ry, const double *x, const double *y, size_t n_points,
                  int n)
{
    double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (size_t k = 0; k < n_points; k++) {
        low[0] = fmin(low[0], x[k]);
        high[0] = fmax(high[0], x[k]);
        low[1] = fmin(low[1], y[k]);
        high[1] = fmax(high[1], y[k]);
    }
    double wide = fmax(high[0] - low[0], high[1] - low[1]);
    for (int axis = 0; axis < 2; axis++) {
        double spread = high[axis] - low[axis];
        if (!(spread > 0)) { /* on a line along the other axis, or all the same point */
            spread = wide > 0 ? 2 * wide : 4;
        }
        *(axis ? ry : rx) = range_of(low[axis], high[axis], spread, n);
    }
}
