/* Runs over a surface: the path of each one's checkpoints, projected onto the plane. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "experiments/scan_work.h"
#include "results/frame.h"

static Status is_stored(const Scan *scan, Store *store, const char *run_id, bool *stored,
                        Error *error)
{
    Frame frame = {0};
    const char *const binds[] = {scan->surface_id, run_id};
    Status status = frame_read(&frame, store,
                               "SELECT 1 FROM surface_mark WHERE surface_id = ?1 AND kind = 'path' "
                               "AND name = ?2 LIMIT 1",
                               binds, 2, error);
    *stored = frame.n_rows > 0;
    frame_release(&frame);
    return status;
}

Status scan_paths_missing(const Scan *scan, Store *store, bool *missing, Error *error)
{
    Status status = STATUS_OK;
    *missing = false;
    for (size_t i = 0; i < scan->options->n_paths && !*missing && !status; i++) {
        bool stored;
        status = is_stored(scan, store, scan->paths[i].run_id, &stored, error);
        *missing = !status && !stored;
    }
    return status;
}

static SurfaceMark mark_at(const Scan *scan, const char *kind, const Trajectory *run, size_t k)
{
    SurfaceMark mark = {
        .kind = kind, .name = run->run_id, .metric = "", .place = run->steps[k], .value = NAN};
    plane_project(&mark.x, &mark.y, &mark.distance, &scan->plane.plane, run->points + k * run->n);
    return mark;
}

/* The run's end as a place of its own, then its path. */
static Status add_path(Scan *scan, const Trajectory *run, Error *error)
{
    bool stored;
    Status status = is_stored(scan, scan->store, run->run_id, &stored, error);
    if (status || stored) {
        return status;
    }
    SurfaceMark *marks = malloc((run->n_points + 1) * sizeof *marks);
    if (!marks) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    for (size_t k = 0; k < run->n_points; k++) {
        marks[k] = mark_at(scan, "path", run, k);
    }
    marks[run->n_points] = mark_at(scan, "run", run, run->n_points - 1);
    status = store_surface_marks(scan->store, scan->surface_id, marks, run->n_points + 1, error);
    free(marks);
    return status;
}

/* On a surface of two scalars: every stored run of the same model and plan. */
static Status add_fitting_runs(Scan *scan, Error *error)
{
    Frame frame = {0};
    char key[128];
    Status status = frame_read(&frame, scan->store,
                               "SELECT run_id, identity FROM run WHERE kind = 'run' AND adapter = "
                               "'tinylora' AND budget = 2 AND last_step > 0 ORDER BY run_id",
                               NULL, 0, error);
    for (size_t i = 0; i < frame.n_rows && !status; i++) {
        const char *identity = frame_text(&frame, "identity", i);
        const char *ours = text_string(&scan->identity);
        Trajectory run = {0};
        Error why = {0};
        if (!identity_agrees(identity, ours, "model.", key) ||
            !identity_agrees(identity, ours, "adapter.", key)) {
            continue;
        }
        /* A run whose checkpoints cannot be read is no reason to lose the surface. */
        if (trajectory_open(&run, scan->store, frame_text(&frame, "run_id", i), &why) ==
            STATUS_OK) {
            status = add_path(scan, &run, error);
        } else {
            scan->world->note(scan->world->context, why.message);
        }
        trajectory_release(&run);
    }
    frame_release(&frame);
    return status;
}

Status scan_paths(Scan *scan, Error *error)
{
    Status status = STATUS_OK;
    for (int i = 0; i < scan->n_runs && !status; i++) {
        status = add_path(scan, &scan->runs[i], error);
    }
    for (size_t i = 0; i < scan->options->n_paths && !status; i++) {
        status = add_path(scan, &scan->paths[i], error);
    }
    return status || scan->n_runs ? status : add_fitting_runs(scan, error);
}
