/* A surface of results.db as a picture needs it. */
#include "analysis/figure_grid.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/landscape.h"

enum { SIDE_MAX = 100000000 }; /* of a surface in results.db */

static const char info_sql[] =
    "SELECT s.*, coalesce(?2, s.metrics ->> 0) AS metric,"
    " EXISTS (SELECT 1 FROM json_each(s.metrics) m WHERE m.value = coalesce(?2, s.metrics ->> 0))"
    " AS known, (SELECT group_concat(value, ', ') FROM json_each(s.metrics)) AS all_metrics,"
    " (SELECT count(*) FROM surface_row r WHERE r.surface_id = s.surface_id AND r.state = 'done')"
    " AS rows_done FROM surface s WHERE s.surface_id = ?1";
static const char points_sql[] =
    "SELECT i, j, value, preview FROM surface_picture WHERE surface_id = ?1 AND metric = ?2"
    " AND i % CAST(?3 AS INTEGER) = 0 AND j % CAST(?4 AS INTEGER) = 0 ORDER BY preview DESC, i, j";
static const char marks_sql[] =
    "SELECT kind, name, place, x, y, max(distance) AS distance FROM surface_mark"
    " WHERE surface_id = ?1 AND (kind <> 'best' OR metric = ?2)"
    " GROUP BY kind, name, place ORDER BY kind, name, place";

const char *figure_metric_axis(const char *metric)
{
    static const char *const names[][2] = {
        {"loss", "loss (nats per token)"},
        {"accuracy", "accuracy (%)"},
        {"reward", "mean reward"},
        {"entropy", "entropy (nats per token)"},
        {"kl", "KL to base (nats per token)"},
        {"grad_norm", "norm of the gradient"},
    };
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        if (strcmp(names[k][0], metric) == 0) {
            return names[k][1];
        }
    }
    return metric;
}

double figure_metric_scale(const char *metric)
{
    return strcmp(metric, "accuracy") == 0 ? 100 : 1;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The side where nothing is to be found is cut where it would take all colours: a loss far above
 * the rest, a reward far below. (The highest value of a bowl lies about three times as far above
 * the lowest as the median.) */
static void set_range(FigureGrid *grid, double *sorted, size_t n)
{
    qsort(sorted, n, sizeof *sorted, compare);
    grid->lowest = grid->low = n ? sorted[0] : NAN;
    grid->highest = grid->high = n ? sorted[n - 1] : NAN;
    if (n < 9) {
        return;
    }
    double q10 = sorted[n / 10], q50 = sorted[n / 2], q90 = sorted[n - 1 - n / 10];
    double spread = q90 - q10;
    if (grid->less_is_better && spread > 0) {
        double limit = q90 + 3 * spread;
        double depth = q50 - grid->lowest;
        limit = depth > 0 ? fmin(limit, q50 + 3 * depth) : limit;
        grid->high = grid->high - limit > 0.5 * (limit - grid->lowest) ? limit : grid->high;
    } else if (spread > 0) {
        double limit = q10 - 3 * spread;
        double depth = grid->highest - q50;
        limit = depth > 0 ? fmax(limit, q50 - 3 * depth) : limit;
        grid->low = limit - grid->low > 0.5 * (grid->highest - limit) ? limit : grid->low;
    }
}

static Status read_info(FigureGrid *grid, const FigureRequest *request, Error *error)
{
    const char *binds[] = {request->surface_id, request->metric};
    Status status = frame_read(&grid->info, request->store, info_sql, binds, 2, error);
    if (status) {
        return status;
    }
    if (grid->info.n_rows == 0) {
        return error_set(error, STATUS_USAGE, "there is no surface \"%.60s\"", request->surface_id);
    }
    grid->metric = frame_text(&grid->info, "metric", 0);
    double nx = frame_number(&grid->info, "nx", 0), ny = frame_number(&grid->info, "ny", 0);
    double width = frame_number(&grid->info, "x_max", 0) - frame_number(&grid->info, "x_min", 0);
    double height = frame_number(&grid->info, "y_max", 0) - frame_number(&grid->info, "y_min", 0);
    if (!(nx >= 1 && ny >= 1 && nx <= SIDE_MAX && ny <= SIDE_MAX && isfinite(width) &&
          isfinite(height) && (width > 0 || nx == 1) && (height > 0 || ny == 1))) {
        return error_set(error, STATUS_REFUSED,
                         "surface %.16s is none: %.6g x %.6g points, %.6g wide and %.6g high",
                         request->surface_id, nx, ny, width, height);
    }
    if (!grid->metric || frame_number(&grid->info, "known", 0) != 1) {
        return error_set(error, STATUS_USAGE, "surface %s has no metric \"%.60s\"; it has %.200s",
                         request->surface_id, grid->metric ? grid->metric : "",
                         frame_text(&grid->info, "all_metrics", 0));
    }
    grid->less_is_better =
        strcmp(grid->metric, "accuracy") != 0 && strcmp(grid->metric, "reward") != 0;
    grid->scale = figure_metric_scale(grid->metric);
    grid->rows = (int)frame_number(&grid->info, "nx", 0);
    grid->rows_done = (int)frame_number(&grid->info, "rows_done", 0);
    return STATUS_OK;
}

double figure_grid_x(const FigureGrid *grid, double i)
{
    double low = frame_number(&grid->info, "x_min", 0),
           high = frame_number(&grid->info, "x_max", 0);
    double n = frame_number(&grid->info, "nx", 0);
    return n > 1 ? (low * (n - 1 - i) + high * i) / (n - 1) : low + i;
}

double figure_grid_y(const FigureGrid *grid, double j)
{
    double low = frame_number(&grid->info, "y_min", 0),
           high = frame_number(&grid->info, "y_max", 0);
    double n = frame_number(&grid->info, "ny", 0);
    return n > 1 ? (low * (n - 1 - j) + high * j) / (n - 1) : low + j;
}

static void find_lattice(FigureGrid *grid)
{
    for (size_t k = 1; k < grid->points.n_rows && !grid->lattice; k++) {
        double apart =
            frame_number(&grid->points, "j", k) - frame_number(&grid->points, "j", k - 1);
        if (frame_number(&grid->points, "preview", k) == 1 && apart > 0) {
            grid->lattice = apart < SIDE_MAX ? (int)apart / grid->step_j : 0;
        }
    }
}

Status figure_grid_read(FigureGrid *grid, const FigureRequest *request, Error *error)
{
    Status status = read_info(grid, request, error);
    if (status) {
        return status;
    }
    int nx = grid->rows, ny = (int)frame_number(&grid->info, "ny", 0);
    grid->step_i = 1 + (nx - 1) / GRID_SIDE_MAX;
    grid->step_j = 1 + (ny - 1) / GRID_SIDE_MAX;
    grid->nx = (nx - 1) / grid->step_i + 1;
    grid->ny = (ny - 1) / grid->step_j + 1;
    char steps[2][16];
    snprintf(steps[0], sizeof steps[0], "%d", grid->step_i);
    snprintf(steps[1], sizeof steps[1], "%d", grid->step_j);
    const char *binds[] = {request->surface_id, grid->metric, steps[0], steps[1]};
    status = frame_read(&grid->points, request->store, points_sql, binds, 4, error);
    status = status ? status : frame_read(&grid->marks, request->store, marks_sql, binds, 2, error);
    if (status) {
        return status;
    }
    size_t n = (size_t)grid->nx * grid->ny, n_values = 0;
    grid->z = malloc(n * sizeof *grid->z);
    grid->state = calloc(n, 1);
    double *sorted = malloc(n * sizeof *sorted);
    if (!grid->z || !grid->state || !sorted) {
        free(sorted);
        return error_set(error, STATUS_FAILED, "no memory for a grid of %zu points", n);
    }
    for (size_t k = 0; k < n; k++) {
        grid->z[k] = NAN;
    }
    for (size_t k = 0; k < grid->points.n_rows; k++) { /* points come after the preview */
        double place_i = frame_number(&grid->points, "i", k);
        double place_j = frame_number(&grid->points, "j", k);
        if (!(place_i >= 0 && place_j >= 0 && place_i < nx && place_j < ny)) {
            continue; /* no point of ours */
        }
        int i = (int)place_i / grid->step_i, j = (int)place_j / grid->step_j;
        bool preview = frame_number(&grid->points, "preview", k) == 1;
        grid->z[(size_t)i * grid->ny + j] = grid->scale * frame_number(&grid->points, "value", k);
        grid->state[(size_t)i * grid->ny + j] = preview ? CELL_PREVIEW : CELL_POINT;
    }
    for (size_t k = 0; k < n; k++) {
        grid->n_missing += grid->state[k] == CELL_MISSING;
        grid->n_holes += grid->state[k] != CELL_MISSING && !isfinite(grid->z[k]);
        if (isfinite(grid->z[k])) {
            sorted[n_values++] = grid->z[k];
        }
    }
    grid->n_values = n_values;
    set_range(grid, sorted, n_values);
    free(sorted);
    find_lattice(grid);
    grid->cell_x = fabs(figure_grid_x(grid, grid->step_i) - figure_grid_x(grid, 0));
    grid->cell_y = fabs(figure_grid_y(grid, grid->step_j) - figure_grid_y(grid, 0));
    grid->x_low = figure_grid_x(grid, 0) - grid->cell_x / 2;
    grid->x_high = figure_grid_x(grid, (grid->nx - 1) * grid->step_i) + grid->cell_x / 2;
    grid->y_low = figure_grid_y(grid, 0) - grid->cell_y / 2;
    grid->y_high = figure_grid_y(grid, (grid->ny - 1) * grid->step_j) + grid->cell_y / 2;
    return STATUS_OK;
}

void figure_grid_release(FigureGrid *grid)
{
    frame_release(&grid->info);
    frame_release(&grid->points);
    frame_release(&grid->marks);
    free(grid->z);
    free(grid->state);
}

/* From the middle between place k and the one before it to the middle to the next one; places are
 * the multiples of step below n, and n - 1. */
static void lattice_span(double *from, double *to, int k, int n, int step)
{
    int before = k == n - 1 && k % step ? k / step * step : k - step;
    int after = k + step < n - 1 ? k + step : n - 1;
    *from = k == 0 ? -0.5 : (before + k) / 2.0;
    *to = k == n - 1 ? n - 0.5 : (k + after) / 2.0;
}

static bool on_lattice(const FigureGrid *grid, int k, int n)
{
    return k % grid->lattice == 0 || k == n - 1;
}

bool figure_grid_cell(double edges[4], const FigureGrid *grid, int i, int j, bool coarse)
{
    double i0 = i - 0.5, i1 = i + 0.5, j0 = j - 0.5, j1 = j + 0.5;
    unsigned char state = grid->state[(size_t)i * grid->ny + j];
    if (coarse ? state == CELL_MISSING || !on_lattice(grid, i, grid->nx) ||
                     !on_lattice(grid, j, grid->ny)
               : state != CELL_POINT && !(state == CELL_PREVIEW && grid->lattice < 2)) {
        return false;
    }
    if (coarse) {
        lattice_span(&i0, &i1, i, grid->nx, grid->lattice);
        lattice_span(&j0, &j1, j, grid->ny, grid->lattice);
    }
    edges[0] = figure_grid_x(grid, 0) + i0 * grid->cell_x;
    edges[1] = figure_grid_x(grid, 0) + i1 * grid->cell_x;
    edges[2] = figure_grid_y(grid, 0) + j0 * grid->cell_y;
    edges[3] = figure_grid_y(grid, 0) + j1 * grid->cell_y;
    return true;
}

/* Places 0, step, 2 step ... and n - 1. */
static int lattice_places(int *places, int n, int step)
{
    int count = 0, last = -1;
    for (int k = 0; k < n; k += step) {
        places[count++] = last = k;
    }
    if (last != n - 1) {
        places[count++] = n - 1;
    }
    return count;
}

static bool is_complete(const FigureGrid *grid, const int *is, int ni, const int *js, int nj)
{
    for (int a = 0; a < ni; a++) {
        for (int b = 0; b < nj; b++) {
            if (grid->state[(size_t)is[a] * grid->ny + js[b]] == CELL_MISSING) {
                return false;
            }
        }
    }
    return true;
}

/* A cell without holes. */
static bool any_cell(const SmoothGrid *smooth)
{
    for (int i = 0; i + 1 < smooth->nx; i++) {
        for (int j = 0; j + 1 < smooth->ny; j++) {
            const double *low = smooth->z + (size_t)i * smooth->ny + j, *high = low + smooth->ny;
            if (isfinite(low[0] + low[1] + high[0] + high[1])) {
                return true;
            }
        }
    }
    return false;
}

static void even(double *out, int n, double from, double to)
{
    for (int k = 0; k < n; k++) {
        out[k] = (from * (n - 1 - k) + to * k) / (n - 1);
    }
}

Status figure_grid_smooth(SmoothGrid *smooth, const FigureGrid *grid, Error *error)
{
    enum { SMOOTH_SIDE = 121 };
    int *is = malloc((size_t)grid->nx * sizeof *is), *js = malloc((size_t)grid->ny * sizeof *js);
    double *x = malloc((size_t)grid->nx * sizeof *x), *y = malloc((size_t)grid->ny * sizeof *y);
    double *z = malloc((size_t)grid->nx * grid->ny * sizeof *z);
    Status status = STATUS_OK;
    if (!is || !js || !x || !y || !z) {
        status = error_set(error, STATUS_FAILED, "no memory for a smooth surface");
        goto done;
    }
    int ni = lattice_places(is, grid->nx, 1), nj = lattice_places(js, grid->ny, 1);
    if (grid->lattice > 1 && !is_complete(grid, is, ni, js, nj)) {
        ni = lattice_places(is, grid->nx, grid->lattice);
        nj = lattice_places(js, grid->ny, grid->lattice);
    }
    if (!is_complete(grid, is, ni, js, nj)) {
        ni = lattice_places(is, grid->nx, 1);
        nj = lattice_places(js, grid->ny, 1);
    }
    if (ni < 2 || nj < 2) {
        goto done;
    }
    for (int a = 0; a < ni; a++) {
        x[a] = figure_grid_x(grid, is[a] * grid->step_i);
        for (int b = 0; b < nj; b++) {
            y[b] = figure_grid_y(grid, js[b] * grid->step_j);
            /* Clipped: a spline through an outlier rings far around it. */
            double value = grid->z[(size_t)is[a] * grid->ny + js[b]];
            z[(size_t)a * nj + b] = isnan(value) ? NAN : fmin(fmax(value, grid->low), grid->high);
        }
    }
    /* As many points between two as give about SMOOTH_SIDE, the measured ones among them. */
    int fx = (ni - 1) * (1 + (SMOOTH_SIDE - 1) / ni) + 1;
    int fy = (nj - 1) * (1 + (SMOOTH_SIDE - 1) / nj) + 1;
    smooth->x = malloc((size_t)fx * sizeof *smooth->x);
    smooth->y = malloc((size_t)fy * sizeof *smooth->y);
    smooth->z = malloc((size_t)fx * fy * sizeof *smooth->z);
    if (!smooth->x || !smooth->y || !smooth->z) {
        status = error_set(error, STATUS_FAILED, "no memory for a smooth surface");
        goto done;
    }
    even(smooth->x, fx, x[0], x[ni - 1]);
    even(smooth->y, fy, y[0], y[nj - 1]);
    smooth->nx = fx;
    smooth->ny = fy;
    smooth->measured = ni < nj ? ni : nj;
    status = landscape_resample(smooth->z, fx, fy, z, x, ni, y, nj, error);
    if (!status && !any_cell(smooth)) {
        smooth->nx = 0;
    }
done:
    free(is);
    free(js);
    free(x);
    free(y);
    free(z);
    return status;
}

double smooth_grid_at(const SmoothGrid *smooth, double x, double y)
{
    int nx = smooth->nx, ny = smooth->ny;
    if (nx < 2 || ny < 2) {
        return NAN;
    }
    double u = (x - smooth->x[0]) / (smooth->x[nx - 1] - smooth->x[0]) * (nx - 1);
    double w = (y - smooth->y[0]) / (smooth->y[ny - 1] - smooth->y[0]) * (ny - 1);
    if (!(u >= 0 && w >= 0 && u <= nx - 1 && w <= ny - 1)) {
        return NAN;
    }
    int i = u < nx - 1 ? (int)u : nx - 2, j = w < ny - 1 ? (int)w : ny - 2;
    double a = u - i, b = w - j;
    const double *low = smooth->z + (size_t)i * ny + j, *high = low + ny;
    return (1 - a) * ((1 - b) * low[0] + b * low[1]) + a * ((1 - b) * high[0] + b * high[1]);
}

void smooth_grid_release(SmoothGrid *smooth)
{
    free(smooth->x);
    free(smooth->y);
    free(smooth->z);
}
