/* Planes through stored runs, their labels, and the ranges that hold what is worth seeing. */
#include "experiments/scan_plane.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experiments/config.h"
#include "experiments/scan_settings.h"
#include "results/frame.h"
#include "rl/checkpoint.h"

static Status read_point(Trajectory *trajectory, Store *store, size_t k, Error *error)
{
    void *blob = NULL;
    float *v = NULL;
    size_t n_bytes = 0, n = 0;
    int64_t step;
    Status status = store_checkpoint_at(store, trajectory->run_id, trajectory->steps[k], &blob,
                                        &n_bytes, error);
    status = status ? status : checkpoint_parameters(&v, &n, &step, blob, n_bytes, error);
    free(blob);
    if (!status && n == 0) {
        status = error_set(error, STATUS_USAGE, "it has no parameters: there is nothing to move");
    } else if (!status && k > 0 && n != trajectory->n) {
        status = error_set(error, STATUS_REFUSED, "its checkpoints are of different sizes");
    }
    if (!status && k == 0) {
        size_t total;
        trajectory->n = n;
        trajectory->points = __builtin_mul_overflow(n, trajectory->n_points, &total)
                                 ? NULL
                                 : malloc(total * sizeof *trajectory->points);
        if (!trajectory->points) {
            status = error_set(error, STATUS_FAILED, "no memory for %zu checkpoints of %zu numbers",
                               trajectory->n_points, n);
        }
    }
    for (size_t i = 0; i < n && !status; i++) {
        trajectory->points[k * n + i] = (double)v[i];
    }
    free(v);
    return status;
}

static Status read_path(Trajectory *trajectory, Store *store, Error *error)
{
    Frame frame = {0};
    const char *bind = trajectory->run_id;
    Status status = frame_read(&frame, store,
                               "SELECT c.step, r.identity FROM run r LEFT JOIN checkpoint c USING "
                               "(run_id) WHERE r.run_id = ?1 ORDER BY c.step",
                               &bind, 1, error);
    if (!status && (frame.n_rows == 0 || isnan(frame_number(&frame, "step", 0)))) {
        status = error_set(error, STATUS_USAGE, "it has no checkpoint yet");
    }
    if (!status) {
        text_add(&trajectory->identity, frame_text(&frame, "identity", 0));
        trajectory->n_points = frame.n_rows;
        trajectory->steps = malloc(frame.n_rows * sizeof *trajectory->steps);
        status = trajectory->steps ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    }
    for (size_t k = 0; k < trajectory->n_points && !status; k++) {
        trajectory->steps[k] = (int64_t)frame_number(&frame, "step", k);
        status = read_point(trajectory, store, k, error);
    }
    frame_release(&frame);
    return status;
}

Status trajectory_open(Trajectory *trajectory, Store *store, const char *id, Error *error)
{
    StoredRun run = {0};
    Status status = store_find_run(store, id, &run, error);
    if (status) {
        return status;
    }
    snprintf(trajectory->run_id, sizeof trajectory->run_id, "%s", run.run_id);
    status = spec_from_json(&trajectory->spec, run.config, error);
    status = status ? status : read_path(trajectory, store, error);
    free(run.block);
    return status ? error_context(error, status, "run %s", trajectory->run_id) : STATUS_OK;
}

void trajectory_release(Trajectory *trajectory)
{
    free(trajectory->steps);
    free(trajectory->points);
    text_release(&trajectory->identity);
    *trajectory = (Trajectory){0};
}

const double *trajectory_end(const Trajectory *trajectory)
{
    return trajectory->points + (trajectory->n_points - 1) * trajectory->n;
}

static double distance(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return sqrt(sum);
}

static void label(ScanPlane *plane, const char *x, const char *y)
{
    snprintf(plane->x_label, sizeof plane->x_label, "%s", x);
    snprintf(plane->y_label, sizeof plane->y_label, "%s", y);
}

static Status two_axes(ScanPlane *plane, const RunSpec *spec, const Trajectory *run, Error *error)
{
    size_t axis_x, axis_y;
    char x[96], y[96];
    Status status = scan_axes_parse(&axis_x, &axis_y, spec->scan.axes, error);
    if (!status && (axis_x >= run->n || axis_y >= run->n)) {
        status = error_set(error, STATUS_USAGE, "\"%s\": run %s has %zu scalars, 0 to %zu",
                           spec->scan.axes, run->run_id, run->n, run->n - 1);
    }
    if (status) {
        return error_context(error, status, "scan.axes");
    }
    snprintf(x, sizeof x, "change of v[%zu]", axis_x);
    snprintf(y, sizeof y, "change of v[%zu]", axis_y);
    label(plane, x, y);
    return plane_axes(&plane->plane, trajectory_end(run), run->n, axis_x, axis_y, error);
}

static Status principal(ScanPlane *plane, const Trajectory *run, Error *error)
{
    double explained[2] = {0};
    char x[96], y[96];
    Status status = plane_pca(&plane->plane, explained, run->points, run->n_points, run->n, error);
    snprintf(x, sizeof x, "principal direction 1 (%.0f %% of the path's variance)",
             100 * explained[0]);
    snprintf(y, sizeof y, "principal direction 2 (%.0f %%)", 100 * explained[1]);
    label(plane, x, y);
    return status;
}

static Status through_runs(ScanPlane *plane, const double *initial, const Trajectory *runs,
                           Error *error)
{
    char x[96], y[96];
    snprintf(x, sizeof x, "from the base to run %.8s (1: there)", runs[0].run_id);
    snprintf(y, sizeof y, "orthogonal to it, towards run %.8s", runs[1].run_id);
    label(plane, x, y);
    return plane_through(&plane->plane, initial, trajectory_end(&runs[0]), trajectory_end(&runs[1]),
                         runs[0].n, error);
}

/* What an automatic range is to hold: (n) x, (n) y, malloc'ed. */
static Status worth_seeing(double **x, double **y, size_t *n, const ScanPlane *plane,
                           const RunSpec *spec, const double *initial, const Trajectory *runs,
                           Error *error)
{
    bool pca = strcmp(spec->scan.directions, "pca") == 0;
    bool through = strcmp(spec->scan.directions, "runs") == 0;
    size_t n_points = pca ? runs[0].n_points : 3;
    double away;
    *x = malloc((n_points + 1) * sizeof **x);
    *y = malloc((n_points + 1) * sizeof **y);
    if (!*x || !*y) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    if (pca) {
        for (size_t k = 0; k < n_points; k++) {
            plane_project(&(*x)[k], &(*y)[k], &away, &plane->plane, runs[0].points + k * runs[0].n);
        }
    } else if (through) {
        plane_project(&(*x)[0], &(*y)[0], &away, &plane->plane, initial);
        plane_project(&(*x)[1], &(*y)[1], &away, &plane->plane, trajectory_end(&runs[0]));
        plane_project(&(*x)[2], &(*y)[2], &away, &plane->plane, trajectory_end(&runs[1]));
    } else { /* as far as the run is from where it began; plane_ranges adds a half of that */
        double far = distance(trajectory_end(&runs[0]), initial, runs[0].n);
        far = far > 0 ? far : 0.05;
        n_points = 2;
        (*x)[0] = (*y)[0] = -far;
        (*x)[1] = (*y)[1] = far;
    }
    *n = n_points;
    return STATUS_OK;
}

static Status set_ranges(ScanPlane *plane, RunSpec *spec, const double *initial,
                         const Trajectory *runs, Error *error)
{
    int n_x, n_y;
    Status status = scan_range_parse(&plane->rx, &n_x, spec->scan.x, error);
    status = status ? status : scan_range_parse(&plane->ry, &n_y, spec->scan.y, error);
    if (!status && (n_x || n_y)) {
        double *x = NULL, *y = NULL;
        size_t n = 0;
        PlaneRange other;
        status = worth_seeing(&x, &y, &n, plane, spec, initial, runs, error);
        if (!status && n_x) {
            plane_ranges(&plane->rx, &other, x, y, n, n_x);
        }
        if (!status && n_y) {
            plane_ranges(&other, &plane->ry, x, y, n, n_y);
        }
        free(x);
        free(y);
    }
    if (!status) {
        scan_range_text(spec->scan.x, &plane->rx);
        scan_range_text(spec->scan.y, &plane->ry);
    }
    return status;
}

Status scan_plane_open(ScanPlane *plane, RunSpec *spec, const double *initial, size_t n,
                       const Trajectory *runs, Error *error)
{
    const char *directions = spec->scan.directions;
    Status status;
    *plane = (ScanPlane){0};
    if (strcmp(directions, "scalars") == 0) {
        label(plane, "v[0]", "v[1]");
        status = plane_axes(&plane->plane, initial, n, 0, 1, error);
    } else if (strcmp(directions, "axes") == 0) {
        status = two_axes(plane, spec, &runs[0], error);
    } else if (strcmp(directions, "random") == 0) {
        label(plane, "random direction 1", "random direction 2");
        status = plane_random(&plane->plane, trajectory_end(&runs[0]), n, (uint64_t)spec->scan.seed,
                              error);
    } else if (strcmp(directions, "pca") == 0) {
        status = principal(plane, &runs[0], error);
    } else {
        status = through_runs(plane, initial, runs, error);
    }
    if (status) {
        return error_context(error, status, "scan.directions \"%s\"", directions);
    }
    return set_ranges(plane, spec, initial, runs, error);
}

void scan_plane_release(ScanPlane *plane)
{
    plane_release(&plane->plane);
}
