/* surface_point as arrays. */
#include "notebooks-export/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/plane.h"

static const char *units_of(const char *metric)
{
    static const char *const units[][2] = {
        {"loss", "nats per token"}, {"accuracy", "share of answers"},
        {"reward", "mean reward"},  {"entropy", "nats per token"},
        {"kl", "nats per token"},   {"grad_norm", "nats per token and unit of v"}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t n = strlen(units[i][0]);
        if (strncmp(metric, units[i][0], n) == 0 &&
            (!metric[n] || strcmp(metric + n, "_se") == 0)) {
            return units[i][1];
        }
    }
    return "";
}

/* Names become names of files and datasets: a database of somebody else is not trusted with that.
 */
static bool is_plain_name(const char *name)
{
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
    return n > 0 && n < 64 && !name[n];
}

static double *coordinates(double min, double max, int n)
{
    PlaneRange range = {.min = min, .max = max, .n = n};
    double *x = malloc((size_t)n * sizeof *x);
    for (int i = 0; x && i < n; i++) {
        x[i] = plane_coordinate(&range, i);
    }
    return x;
}

/* points come metric by metric, the surface's own ones in their order. */
static Status fill(Grid *grid, Error *error)
{
    const StoredSurface *surface = &grid->surface;
    size_t n_cells = (size_t)surface->nx * (size_t)surface->ny;
    const char *metric = "";
    for (size_t row = 0; row < grid->points.n_rows; row++) {
        const char *name = frame_text(&grid->points, "metric", row);
        if (strcmp(name, metric) != 0) {
            metric = name;
            if (!is_plain_name(name)) {
                return error_set(error, STATUS_REFUSED,
                                 "surface %s: \"%.60s\" is no name of a metric",
                                 surface->surface_id, name);
            }
            double *z = malloc(n_cells * sizeof *z);
            GridMetric *more =
                realloc(grid->metrics, (grid->n_metrics + 1) * sizeof *grid->metrics);
            if (more) {
                grid->metrics = more;
            }
            if (!z || !more) {
                free(z);
                return error_set(error, STATUS_FAILED, "no memory for %zu points", n_cells);
            }
            for (size_t i = 0; i < n_cells; i++) {
                z[i] = NAN;
            }
            grid->metrics[grid->n_metrics++] =
                (GridMetric){.name = name, .units = units_of(name), .z = z};
        }
        double i = frame_number(&grid->points, "i", row), j = frame_number(&grid->points, "j", row);
        if (i >= 0 && i < surface->nx && j >= 0 && j < surface->ny) {
            grid->metrics[grid->n_metrics - 1].z[(size_t)j * (size_t)surface->nx + (size_t)i] =
                frame_number(&grid->points, "value", row);
        }
    }
    return STATUS_OK;
}

Status grid_read(Grid *grid, Store *store, const char *id, Error *error)
{
    static const char marks[] = "SELECT kind, name, place, metric, x, y, distance, value FROM "
                                "surface_mark WHERE surface_id = ?1 ORDER BY kind, name, place";
    static const char points[] =
        "SELECT p.metric, p.i, p.j, p.value FROM surface_point p JOIN surface s USING (surface_id) "
        "LEFT JOIN json_each(s.metrics) m ON m.value = p.metric "
        "WHERE p.surface_id = ?1 AND p.value IS NOT NULL "
        "ORDER BY m.key NULLS LAST, p.metric, p.i, p.j";
    Status status = store_find_surface(store, id, &grid->surface, error);
    const StoredSurface *surface = &grid->surface;
    if (!status && surface->nx > GRID_MAX_POINTS / surface->ny) {
        status = error_set(error, STATUS_REFUSED, "surface %s has %d x %d points, more than %d",
                           surface->surface_id, surface->nx, surface->ny, GRID_MAX_POINTS);
    }
    if (!status) {
        status = frame_read(&grid->points, store, points, &surface->surface_id, 1, error);
    }
    if (!status) {
        status = frame_read(&grid->marks, store, marks, &surface->surface_id, 1, error);
    }
    if (!status && grid->points.n_rows == 0) {
        status = error_set(error, STATUS_FAILED, "surface %s has no finished row yet",
                           surface->surface_id);
    }
    if (!status) {
        grid->x = coordinates(surface->x_min, surface->x_max, surface->nx);
        grid->y = coordinates(surface->y_min, surface->y_max, surface->ny);
        status = grid->x && grid->y ? fill(grid, error)
                                    : error_set(error, STATUS_FAILED, "no memory for the grid");
    }
    return status;
}

void grid_release(Grid *grid)
{
    for (size_t i = 0; i < grid->n_metrics; i++) {
        free(grid->metrics[i].z);
    }
    free(grid->metrics);
    free(grid->x);
    free(grid->y);
    frame_release(&grid->points);
    frame_release(&grid->marks);
    free(grid->surface.block);
    *grid = (Grid){0};
}

bool grid_mark(const Grid *grid, const char *kind, const char *metric, double *x, double *y,
               double *value)
{
    for (size_t row = 0; row < grid->marks.n_rows; row++) {
        const char *is = frame_text(&grid->marks, "kind", row);
        const char *of = frame_text(&grid->marks, "metric", row);
        double number = frame_number(&grid->marks, "value", row);
        if (strcmp(is, kind) == 0 && strcmp(of, metric) == 0 && isfinite(number)) {
            *x = frame_number(&grid->marks, "x", row);
            *y = frame_number(&grid->marks, "y", row);
            *value = number;
            return true;
        }
    }
    return false;
}
