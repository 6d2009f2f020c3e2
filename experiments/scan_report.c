/* What is known of a surface, read from results.db. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "experiments/scan_work.h"
#include "results/frame.h"

static const char numbers_sql[] =
    "SELECT s.nx, s.ny, s.x_min, s.x_max, s.y_min, s.y_max, s.state, s.metrics ->> 0 AS metric, "
    "(SELECT count(*) FROM surface_row r WHERE r.surface_id = s.surface_id AND r.state = 'done') "
    "AS rows_done, "
    "(SELECT count(*) FROM surface_point p WHERE p.surface_id = s.surface_id AND p.value IS NULL) "
    "AS holes FROM surface s WHERE s.surface_id = ?1";

static Status read_marks(ScanResult *result, Store *store, Error *error)
{
    Frame frame = {0};
    const char *bind = result->surface_id;
    Status status = frame_read(&frame, store,
                               "SELECT kind, metric, x, y, value FROM surface_mark WHERE "
                               "surface_id = ?1 AND kind IN ('base', 'best', 'minimum')",
                               &bind, 1, error);
    for (size_t i = 0; i < frame.n_rows && !status; i++) {
        const char *kind = frame_text(&frame, "kind", i), *name = frame_text(&frame, "metric", i);
        double x = frame_number(&frame, "x", i), y = frame_number(&frame, "y", i);
        double value = frame_number(&frame, "value", i);
        if (strcmp(kind, "minimum") == 0) {
            double *const fields[] = {&result->minimum, &result->gain, &result->gain_se,
                                      &result->p_value};
            static const char *const names[] = {"loss", "gain", "gain_se", "p_value"};
            for (int k = 0; k < 4; k++) {
                *fields[k] = strcmp(name, names[k]) == 0 ? value : *fields[k];
            }
            result->minimum_x = x;
            result->minimum_y = y;
        } else if (strcmp(name, result->metric) == 0 && strcmp(kind, "best") == 0) {
            result->best = value;
            result->best_x = x;
            result->best_y = y;
        } else if (strcmp(name, result->metric) == 0) {
            result->base = value;
        }
    }
    frame_release(&frame);
    return status;
}

static Status read_curvature(ScanResult *result, Store *store, Error *error)
{
    Frame frame = {0};
    const char *bind = result->surface_id;
    Status status = frame_read(&frame, store,
                               "SELECT place, max(eigenvalue) AS largest, min(eigenvalue) AS "
                               "smallest FROM surface_hessian WHERE surface_id = ?1 GROUP BY place",
                               &bind, 1, error);
    for (size_t i = 0; i < frame.n_rows && !status; i++) {
        bool base = strcmp(frame_text(&frame, "place", i), "base") == 0;
        double *curvature = base ? result->base_curvature : result->curvature;
        curvature[0] = frame_number(&frame, "largest", i);
        curvature[1] = frame_number(&frame, "smallest", i);
    }
    frame_release(&frame);
    return status;
}

static Status read_files(ScanResult *result, Store *store, Error *error)
{
    Frame frame = {0};
    const char *bind = result->surface_id;
    Status status = frame_read(&frame, store,
                               "SELECT path FROM artifact WHERE surface_id = ?1 AND kind = "
                               "'figure' AND path LIKE '%.png' ORDER BY path",
                               &bind, 1, error);
    text_clear(&result->files);
    for (size_t i = 0; i < frame.n_rows && !status; i++) {
        text_printf(&result->files, "%s%s", i ? "\n" : "", frame_text(&frame, "path", i));
    }
    frame_release(&frame);
    return status;
}

Status scan_report(ScanResult *result, Store *store, const char *surface_id, Error *error)
{
    Frame frame = {0};
    int rows_here = result->rows_here;
    Text files = result->files;
    *result = (ScanResult){.rows_here = rows_here, .files = files};
    result->base = result->best = result->best_x = result->best_y = NAN;
    result->minimum = result->minimum_x = result->minimum_y = NAN;
    result->gain = result->gain_se = result->p_value = NAN;
    result->curvature[0] = result->curvature[1] = NAN;
    result->base_curvature[0] = result->base_curvature[1] = NAN;
    snprintf(result->surface_id, sizeof result->surface_id, "%s", surface_id);
    Status status = frame_read(&frame, store, numbers_sql, &surface_id, 1, error);
    if (!status && frame.n_rows) {
        const char *state = frame_text(&frame, "state", 0);
        snprintf(result->metric, sizeof result->metric, "%s", frame_text(&frame, "metric", 0));
        result->rows = (int)frame_number(&frame, "nx", 0);
        result->columns = (int)frame_number(&frame, "ny", 0);
        result->rows_done = (int)frame_number(&frame, "rows_done", 0);
        result->n_holes = (int)frame_number(&frame, "holes", 0);
        for (int s = RUN_WAITING; s <= RUN_CANCELLED; s++) {
            result->state =
                strcmp(run_state_name((RunState)s), state) == 0 ? (RunState)s : result->state;
        }
    }
    status = status ? status : read_marks(result, store, error);
    if (!status && frame.n_rows) {
        result->inside = result->minimum_x > frame_number(&frame, "x_min", 0) &&
                         result->minimum_x < frame_number(&frame, "x_max", 0) &&
                         result->minimum_y > frame_number(&frame, "y_min", 0) &&
                         result->minimum_y < frame_number(&frame, "y_max", 0);
    }
    frame_release(&frame);
    status = status ? status : read_curvature(result, store, error);
    return status ? status : read_files(result, store, error);
}

void scan_result_release(ScanResult *result)
{
    text_release(&result->files);
}
