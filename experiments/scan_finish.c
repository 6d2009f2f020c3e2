/* What is said of a surface once all its rows are there. Each part is one transaction and is
 * skipped when it is stored; two processes that finish at once write the same rows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/landscape.h"
#include "analysis/statistics.h"
#include "experiments/scan_work.h"
#include "results/frame.h"

enum { SLICE_MIN = 5, SLICE_MAX = 101, MAX_SLICES = 5 };

static Status count(Scan *scan, const char *sql, bool *found, Error *error)
{
    Frame frame = {0};
    const char *bind = scan->surface_id;
    Status status = frame_read(&frame, scan->store, sql, &bind, 1, error);
    *found = frame.n_rows > 0;
    frame_release(&frame);
    return status;
}

static Status event(Scan *scan, const char *kind, const char *message, Error *error)
{
    Status status = scan_turn(scan, error);
    return status ? status
                  : store_surface_event(scan->store, scan->surface_id, kind, message,
                                        scan->world->now_s(scan->world->context), error);
}

/* A mark for each number that was measured there. */
static size_t add_marks(SurfaceMark *marks, const Scan *scan, const SurfaceMark *at,
                        const Measured *measured)
{
    size_t n = 0;
    for (int m = 0; m < MEASURE_COUNT; m++) {
        if (scan->settings.metrics >> m & 1) {
            marks[n] = *at;
            marks[n].metric = measure_names[m];
            marks[n++].value = measured->values[m];
            if (scan_error_names[m] && isfinite(measured->standard_errors[m])) {
                marks[n] = *at;
                marks[n].metric = scan_error_names[m];
                marks[n++].value = measured->standard_errors[m];
            }
        }
    }
    return n;
}

Status scan_base_marks(Scan *scan, const Measured *base, Error *error)
{
    SurfaceMark marks[2 * MEASURE_COUNT], at = {.kind = "base", .name = ""};
    plane_project(&at.x, &at.y, &at.distance, &scan->plane.plane, scan->initial);
    return store_surface_marks(scan->store, scan->surface_id, marks,
                               add_marks(marks, scan, &at, base), error);
}

/* The best point of the grid under a metric; *found false where no value is finite. Of equal ones
 * the first. */
static Status best_point(Scan *scan, int metric, SurfaceMark *best, bool *found, Error *error)
{
    Frame frame = {0};
    const char *const binds[] = {scan->surface_id, measure_names[metric]};
    bool less = measure_less_is_better((MeasureBit)(1 << metric));
    Status status = frame_read(&frame, scan->store,
                               less ? "SELECT x, y, value FROM surface_point WHERE surface_id = ?1 "
                                      "AND metric = ?2 AND value IS NOT NULL ORDER BY value, i, j "
                                      "LIMIT 1"
                                    : "SELECT x, y, value FROM surface_point WHERE surface_id = ?1 "
                                      "AND metric = ?2 AND value IS NOT NULL ORDER BY value DESC, "
                                      "i, j LIMIT 1",
                               binds, 2, error);
    *found = frame.n_rows > 0;
    if (*found) {
        *best = (SurfaceMark){.kind = "best",
                              .name = "",
                              .metric = measure_names[metric],
                              .x = frame_number(&frame, "x", 0),
                              .y = frame_number(&frame, "y", 0),
                              .value = frame_number(&frame, "value", 0)};
    }
    frame_release(&frame);
    return status;
}

static Status mark_best(Scan *scan, Error *error)
{
    SurfaceMark marks[MEASURE_COUNT];
    size_t n = 0;
    Status status = STATUS_OK;
    for (int m = 0; m < MEASURE_COUNT && !status; m++) {
        bool found = false;
        if (scan->settings.metrics >> m & 1) {
            status = best_point(scan, m, &marks[n], &found, error);
            n += found;
        }
    }
    return status || n == 0 ? status
                            : store_surface_marks(scan->store, scan->surface_id, marks, n, error);
}

static void round_point(float *v, const double *exact, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        v[i] = (float)exact[i];
    }
}

/* ---- what a search has measured ---- */

/* A LandscapeMemory's context. */
typedef struct {
    Scan *scan;
    const char *name; /* schema.sql, surface_search */
    int n;            /* measurements in all; 0: not known before */
} Search;

static bool recall(void *context, int k, double x, double y, double *loss, double *slopes, size_t n)
{
    const Search *search = context;
    Scan *scan = search->scan;
    Frame frame = {0};
    char place[16], text[32] = "";
    if (search->n) {
        snprintf(text, sizeof text, " of %d", search->n);
    }
    snprintf(scan->stage, sizeof scan->stage, "%s: point %d%s, row", search->name, k + 1, text);
    snprintf(place, sizeof place, "%d", k);
    const char *const binds[] = {scan->surface_id, search->name, place};
    Status status = frame_read(&frame, scan->store,
                               "SELECT x, y, value FROM surface_search WHERE surface_id = ?1 AND "
                               "search = ?2 AND place = CAST(?3 AS INTEGER) ORDER BY part",
                               binds, 3, NULL);
    double at_x = frame_number(&frame, "x", 0), at_y = frame_number(&frame, "y", 0);
    bool found = !status && frame.n_rows == n + 1 && (at_x == x || (isnan(at_x) && isnan(x))) &&
                 (at_y == y || (isnan(at_y) && isnan(y)));
    for (size_t part = 0; found && part <= n; part++) {
        *(part ? &slopes[part - 1] : loss) = frame_number(&frame, "value", part);
    }
    frame_release(&frame);
    return found;
}

static Status keep(void *context, int k, double x, double y, double loss, const double *slopes,
                   size_t n, Error *error)
{
    const Search *search = context;
    const SurfaceSearch point = {search->name, k, x, y, loss, slopes, n};
    Status status = scan_turn(search->scan, error);
    return status
               ? status
               : store_surface_search(search->scan->store, search->scan->surface_id, &point, error);
}

/* Eigenpairs of the loss's Hessian at v: (n). What is not finite there is an event, not an end. */
static Status curvature(Scan *scan, const char *place, const float *v, Error *error)
{
    size_t n = scan->n;
    bool found;
    char sql[160];
    double hessian[SCAN_HESSIAN_MAX * SCAN_HESSIAN_MAX], values[SCAN_HESSIAN_MAX],
        vectors[SCAN_HESSIAN_MAX * SCAN_HESSIAN_MAX];
    SurfaceEigen pairs[SCAN_HESSIAN_MAX];
    Error why = {0};
    snprintf(sql, sizeof sql,
             "SELECT 1 FROM surface_hessian WHERE surface_id = ?1 AND place = '%s' LIMIT 1", place);
    Status status = count(scan, sql, &found, error);
    if (status || found || n > SCAN_HESSIAN_MAX) {
        return status;
    }
    char name[32];
    snprintf(name, sizeof name, "curvature %s", place);
    Search search = {scan, name, LANDSCAPE_STENCIL * (int)n};
    LandscapeMemory memory = {&search, recall, keep};
    status = landscape_hessian(hessian, values, vectors, &scan->trainer, &scan->settings, v, n, 0,
                               &memory, &why);
    if (status == STATUS_FAILED) {
        return event(scan, "hessian", why.message, error);
    }
    if (status) {
        return error_set(error, status, "%s", why.message);
    }
    for (size_t k = 0; k < n; k++) {
        pairs[k] = (SurfaceEigen){place, (int)k, values[k], vectors + k * n};
    }
    status = scan_turn(scan, error);
    return status ? status : store_surface_eigen(scan->store, scan->surface_id, pairs, n, error);
}

/* How far the minimum's loss lies below the base's, over the rows: three more marks of it. */
static size_t add_gain(SurfaceMark *marks, const SurfaceMark *at, const Measured *base,
                       const Measured *minimum)
{
    Paired paired;
    measured_compare(&paired, base, minimum);
    const struct {
        const char *name;
        double value;
    } gains[] = {{"gain", paired.difference},
                 {"gain_se", paired.standard_error},
                 {"p_value", paired.p_value}};
    size_t n = 0;
    for (size_t i = 0; i < 3; i++) {
        if (isfinite(gains[i].value)) {
            marks[n] = *at;
            marks[n].metric = gains[i].name;
            marks[n++].value = gains[i].value;
        }
    }
    return n;
}

/* The refined minimum, measured like any point and compared with the base on the same rows. */
static Status mark_minimum(Scan *scan, double x, double y, Error *error)
{
    Minimum minimum;
    Measured measured[2] = {0};
    SurfaceMark marks[2 * MEASURE_COUNT + 3], at = {.kind = "minimum", .name = ""};
    Error why = {0};
    Search search = {scan, "minimum", 0};
    LandscapeMemory memory = {&search, recall, keep};
    Status status = landscape_minimum(&minimum, &scan->trainer, &scan->settings, &scan->plane.plane,
                                      &scan->plane.rx, &scan->plane.ry, x, y, &memory, &why);
    if (status == STATUS_FAILED) {
        return event(scan, "minimum", why.message, error);
    }
    float *v = status ? NULL : malloc(2 * scan->n * sizeof *v);
    if (!status && !v) {
        status = error_set(&why, STATUS_FAILED, "out of memory");
    }
    if (!status) {
        at.x = minimum.x;
        at.y = minimum.y;
        round_point(v, scan->initial, scan->n);
        plane_point(v + scan->n, &scan->plane.plane, minimum.x, minimum.y);
        status = measure_points(measured, &scan->trainer, &scan->settings, v, 2, &why);
    }
    free(v);
    if (status) {
        return error_set(error, status, "%s", why.message);
    }
    size_t n = add_marks(marks, scan, &at, &measured[1]);
    n += add_gain(marks + n, &at, &measured[0], &measured[1]);
    status = scan_turn(scan, error);
    status = status ? status : store_surface_marks(scan->store, scan->surface_id, marks, n, error);
    if (!status && (minimum.at_edge || !minimum.converged)) {
        status =
            event(scan, "minimum",
                  minimum.at_edge ? "it lies at the edge of what was searched: the valley goes on"
                                  : "the gradient has not vanished there",
                  error);
    }
    measured_release(&measured[0]);
    measured_release(&measured[1]);
    return status;
}

/* A line through the minimum: its points in order of t. */
typedef struct {
    char name[24];
    int n;
    double t[SLICE_MAX], x[SLICE_MAX], y[SLICE_MAX];
    float *v; /* (n, parameters) */
} Line;

static double norm(const double *direction, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += direction[i] * direction[i];
    }
    return sqrt(sum);
}

static int slice_points(int n)
{
    return n < SLICE_MIN ? SLICE_MIN : n > SLICE_MAX ? SLICE_MAX : n;
}

/* Along an axis of the plane over its whole range, the point nearest to the minimum being it. */
static Status along_axis(Line *line, const Scan *scan, bool is_x, double x0, double y0,
                         Error *error)
{
    const Plane *plane = &scan->plane.plane;
    PlaneRange range = is_x ? scan->plane.rx : scan->plane.ry;
    double at = is_x ? x0 : y0;
    double length = norm(plane->basis + (is_x ? 1 : 2) * scan->n, scan->n);
    range.n = slice_points(range.n);
    int nearest = (int)lround((at - range.min) / (range.max - range.min) * (range.n - 1));
    nearest = nearest < 0 ? 0 : nearest >= range.n ? range.n - 1 : nearest;
    line->n = range.n;
    line->v = malloc((size_t)range.n * scan->n * sizeof *line->v);
    strcpy(line->name, is_x ? "x" : "y");
    if (!line->v) {
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): there is nothing to release */
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    for (int k = 0; k < range.n; k++) {
        double here = k == nearest ? at : plane_coordinate(&range, k);
        line->x[k] = is_x ? here : x0;
        line->y[k] = is_x ? y0 : here;
        line->t[k] = (here - at) * length;
        plane_point(line->v + (size_t)k * scan->n, plane, line->x[k], line->y[k]);
    }
    return STATUS_OK;
}

/* Along an eigenvector, as far as the plane's shorter side reaches; x and y are the foot on the
 * plane. */
static Status along_vector(Line *line, const Scan *scan, const double *vector, int k_vector,
                           double x0, double y0, Error *error)
{
    size_t n = scan->n;
    const Plane *plane = &scan->plane.plane;
    const PlaneRange *rx = &scan->plane.rx, *ry = &scan->plane.ry;
    double wide = (rx->max - rx->min) * norm(plane->basis + n, n);
    double high = (ry->max - ry->min) * norm(plane->basis + 2 * n, n);
    double reach = (wide < high ? wide : high) / 2;
    double v[SCAN_HESSIAN_MAX], away;
    line->n = slice_points(rx->n > ry->n ? rx->n : ry->n) | 1; /* 0 is among them */
    line->v = malloc((size_t)line->n * n * sizeof *line->v);
    snprintf(line->name, sizeof line->name, "eigenvector %d", k_vector + 1);
    if (!line->v) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    for (int k = 0; k < line->n; k++) {
        line->t[k] = reach * (2.0 * k / (line->n - 1) - 1);
        for (size_t i = 0; i < n; i++) {
            const double *basis = plane->basis;
            v[i] = basis[i] + x0 * basis[n + i] + y0 * basis[2 * n + i] + line->t[k] * vector[i];
        }
        round_point(line->v + (size_t)k * n, v, n);
        plane_project(&line->x[k], &line->y[k], &away, plane, v);
    }
    return STATUS_OK;
}

static Status measure_line(Scan *scan, const Line *line, Error *error)
{
    Measured measured[SLICE_MAX] = {0};
    size_t n = 0;
    SurfaceSlice *slices = malloc((size_t)line->n * MEASURE_COUNT * sizeof *slices);
    if (!slices) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    Status status =
        measure_points(measured, &scan->trainer, &scan->settings, line->v, line->n, error);
    for (int k = 0; k < line->n && !status; k++) {
        for (int m = 0; m < MEASURE_COUNT; m++) {
            if (scan->settings.metrics >> m & 1) {
                slices[n++] =
                    (SurfaceSlice){line->name, measure_names[m],     k, line->t[k], line->x[k],
                                   line->y[k], measured[k].values[m]};
            }
        }
    }
    status =
        status ? status : store_surface_slices(scan->store, scan->surface_id, slices, n, error);
    for (int k = 0; k < line->n; k++) {
        measured_release(&measured[k]);
    }
    free(slices);
    return status;
}

/* The k-th stored eigenvector at the minimum: (n); *found false where there is none. */
static Status read_vector(Scan *scan, int k, double *vector, bool *found, Error *error)
{
    char place[16];
    Frame frame = {0};
    snprintf(place, sizeof place, "%d", k);
    const char *const binds[] = {scan->surface_id, place};
    Status status = frame_read(&frame, scan->store,
                               "SELECT eigenvector FROM surface_hessian WHERE surface_id = ?1 AND "
                               "place = 'minimum' AND k = CAST(?2 AS INTEGER)",
                               binds, 2, error);
    const char *hex = status ? NULL : frame_text(&frame, "eigenvector", 0);
    *found = hex && strlen(hex) == 2 * sizeof(double) * scan->n;
    for (size_t i = 0; *found && i < sizeof(double) * scan->n; i++) {
        unsigned byte;
        *found = sscanf(hex + 2 * i, "%2x", &byte) == 1;
        ((unsigned char *)vector)[i] = *found ? (unsigned char)byte : 0;
    }
    frame_release(&frame);
    return status;
}

static Status slice(Scan *scan, int which, double x0, double y0, Error *error)
{
    Line line = {0};
    bool found = true;
    double vector[SCAN_HESSIAN_MAX] = {0};
    /* Two axes, the two sharpest directions, the flattest one. */
    int k = which == 4 ? (int)scan->n - 1 : which - 2;
    Status status;
    if (which < 2) {
        status = along_axis(&line, scan, which == 0, x0, y0, error);
    } else if (scan->n > SCAN_HESSIAN_MAX || (size_t)k >= scan->n || (which == 4 && k < 2)) {
        return STATUS_OK;
    } else {
        status = read_vector(scan, k, vector, &found, error);
        if (status || !found) {
            return status;
        }
        status = along_vector(&line, scan, vector, k, x0, y0, error);
    }
    char sql[160];
    snprintf(sql, sizeof sql,
             "SELECT 1 FROM surface_slice WHERE surface_id = ?1 AND name = '%s' LIMIT 1",
             line.name);
    status = status ? status : count(scan, sql, &found, error);
    if (!status && !found) {
        snprintf(scan->stage, sizeof scan->stage, "slice %s: row", line.name);
        status = measure_line(scan, &line, error);
    }
    free(line.v);
    return status;
}

/* The minimum's place, as stored; *found false where there is none. */
static Status read_minimum(Scan *scan, double *x, double *y, bool *found, Error *error)
{
    Frame frame = {0};
    const char *bind = scan->surface_id;
    Status status = frame_read(&frame, scan->store,
                               "SELECT x, y FROM surface_mark WHERE surface_id = ?1 AND kind = "
                               "'minimum' AND metric = 'loss'",
                               &bind, 1, error);
    *found = frame.n_rows > 0;
    if (*found) {
        *x = frame_number(&frame, "x", 0);
        *y = frame_number(&frame, "y", 0);
    }
    frame_release(&frame);
    return status;
}

/* The loss beyond the grid. */
static Status explore(Scan *scan, Error *error)
{
    SurfaceMark best;
    bool found;
    double x, y;
    float v[SCAN_HESSIAN_MAX];
    bool small = scan->n <= SCAN_HESSIAN_MAX;
    Status status = STATUS_OK;
    if (small) {
        round_point(v, scan->initial, scan->n);
        status = curvature(scan, "base", v, error);
    }
    status = status ? status : read_minimum(scan, &x, &y, &found, error);
    if (!status && !found) {
        status = best_point(scan, 0, &best, &found, error);
        status = status || !found ? status : mark_minimum(scan, best.x, best.y, error);
        status = status ? status : read_minimum(scan, &x, &y, &found, error);
    }
    if (status || !found) {
        return status;
    }
    if (small) {
        plane_point(v, &scan->plane.plane, x, y);
        status = curvature(scan, "minimum", v, error);
    }
    for (int which = 0; which < MAX_SLICES && !status; which++) {
        status = slice(scan, which, x, y, error);
    }
    return status;
}

Status scan_finish(Scan *scan, Error *error)
{
    bool grid_only = scan->options->grid_only;
    Status status = mark_best(scan, error);
    if (!status && scan->settings.metrics & MEASURE_LOSS) {
        status = grid_only ? STATUS_OK : explore(scan, error);
        status = status
                     ? status
                     : event(scan, grid_only ? "grid_only" : "beyond_grid",
                             grid_only ? "neither minimum nor curvature nor slices were asked for"
                                       : "minimum, curvature and slices are done",
                             error);
    }
    return status ? status : scan_paths(scan, error);
}
