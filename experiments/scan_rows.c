/* The rows of a surface, taken from the common list until none is left. What is to be done next is
 * decided from results.db alone. Invariants:
 * 1. A row, or its preview, is committed whole while its lease is held, or not at all.
 * 2. A value is measured once: a row takes those of its preview as they are.
 * 3. Whoever loses a lease (it slept longer than STALE_S) drops the work and goes on. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experiments/scan_work.h"
#include "results/frame.h"

enum { STRIDE = 4, COARSE_MIN = 8 }; /* of the preview's lattice; sides from which there is one */
static const double BEAT_S = 5, STALE_S = 60, WAIT_S = 0.25, TURN_S = 0.02;

static double now(const Scan *scan)
{
    return scan->world->now_s(scan->world->context);
}

static double clock_s(const Scan *scan)
{
    return scan->world->clock_s(scan->world->context);
}

void scan_show(Scan *scan, const char *phase, int done, int total, long tokens)
{
    scan->progress.phase = phase;
    scan->progress.phase_done = done;
    scan->progress.phase_total = total;
    scan->progress.tokens = tokens;
    scan->world->progress(scan->world->context, &scan->progress);
}

Status scan_turn(Scan *scan, Error *error)
{
    const World *world = scan->world;
    double began = clock_s(scan);
    bool told = false;
    Text holder = {0};
    while (store_has_writer(scan->store, &holder) && !world->stopping(world->context)) {
        if (!told && clock_s(scan) - began > 1) {
            Text line = {0};
            text_printf(&line, "waiting for %s, which writes to the same file",
                        text_string(&holder));
            world->note(world->context, text_string(&line));
            text_release(&line);
            told = true;
        }
        text_clear(&holder);
        world->wait(world->context, TURN_S);
    }
    text_release(&holder);
    return world->stopping(world->context) ? error_set(error, STATUS_STOPPED, "stopped")
                                           : STATUS_OK;
}

static void keep_lease(Scan *scan)
{
    bool kept = true;
    double beat_s = clock_s(scan);
    if (scan->lease.i < 0 || beat_s - scan->beat_s < BEAT_S ||
        store_has_writer(scan->store, NULL)) {
        return;
    }
    scan->beat_s = beat_s;
    /* A heartbeat that cannot be written is not the end: the commit will say what is wrong. */
    if (store_surface_heartbeat(scan->store, scan->surface_id, &scan->lease, now(scan), &kept,
                                NULL) == STATUS_OK) {
        scan->lost |= !kept;
    }
}

int scan_on_progress(void *context, const char *phase, int done, int total, long tokens)
{
    Scan *scan = context;
    scan_show(scan, *scan->stage ? scan->stage : phase, done, total, tokens);
    keep_lease(scan);
    return scan->lost || scan->world->stopping(scan->world->context);
}

Status scan_measure(Scan *scan, Measured *out, const double *xy, int n, Error *error)
{
    float *v = malloc((size_t)n * scan->n * sizeof *v);
    if (!v) {
        return error_set(error, STATUS_FAILED, "no memory for %d points of %zu scalars", n,
                         scan->n);
    }
    for (int k = 0; k < n; k++) {
        plane_point(v + (size_t)k * scan->n, &scan->plane.plane, xy[2 * k], xy[2 * k + 1]);
    }
    Status status = measure_points(out, &scan->trainer, &scan->settings, v, n, error);
    free(v);
    return status;
}

/* What has been measured of a row, on its way into the store. */
typedef struct {
    SurfaceValue *values; /* (n) */
    size_t n, capacity;
    SurfaceValue *stored; /* of the preview, owned by the store's block */
    size_t n_stored;
    bool *known; /* (ny) */
} RowValues;

static Status add_value(RowValues *row, SurfaceValue value, Error *error)
{
    if (row->n == row->capacity) {
        size_t capacity = row->capacity ? 2 * row->capacity : 256;
        SurfaceValue *more = realloc(row->values, capacity * sizeof *more);
        if (!more) {
            return error_set(error, STATUS_FAILED, "no memory for the values of a row");
        }
        row->values = more;
        row->capacity = capacity;
    }
    row->values[row->n++] = value;
    return STATUS_OK;
}

/* Measure the points js: (n) of row i. */
static Status measure_piece(Scan *scan, RowValues *row, int i, const int *js, int n, Error *error)
{
    Measured measured[SCAN_BATCH] = {0};
    double xy[2 * SCAN_BATCH];
    for (int k = 0; k < n; k++) {
        xy[2 * k] = plane_coordinate(&scan->plane.rx, i);
        xy[2 * k + 1] = plane_coordinate(&scan->plane.ry, js[k]);
    }
    Status status = scan_measure(scan, measured, xy, n, error);
    for (int k = 0; k < n && !status; k++) {
        for (int m = 0; m < MEASURE_COUNT && !status; m++) {
            const char *se = scan_error_names[m];
            double value = measured[k].values[m], standard_error = measured[k].standard_errors[m];
            if (!(scan->settings.metrics >> m & 1)) {
                continue;
            }
            SurfaceValue out = {js[k], measure_names[m], xy[2 * k], xy[2 * k + 1], value};
            status = add_value(row, out, error);
            if (!status && se && isfinite(standard_error)) {
                out.metric = se;
                out.value = standard_error;
                status = add_value(row, out, error);
            }
        }
        measured_release(&measured[k]);
    }
    return status;
}

/* What the preview has measured already. */
static Status take_preview(Scan *scan, RowValues *row, int i, Error *error)
{
    Status status =
        store_surface_row(scan->store, scan->surface_id, i, &row->stored, &row->n_stored, error);
    for (size_t k = 0; k < row->n_stored && !status; k++) {
        int j = row->stored[k].j;
        if (j >= 0 && j < scan->plane.ry.n) {
            row->known[j] = true;
            status = add_value(row, row->stored[k], error);
        }
    }
    return status;
}

static bool on_lattice(int j, int n)
{
    return j % STRIDE == 0 || j == n - 1;
}

static Status measure_row(Scan *scan, RowValues *row, Error *error)
{
    int i = scan->lease.i, ny = scan->plane.ry.n, n = 0, js[SCAN_BATCH];
    int capacity = measure_capacity(scan->bank, SCAN_BATCH);
    row->known = calloc((size_t)ny, sizeof *row->known);
    Status status = row->known ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    if (!status && !scan->lease.preview) {
        status = take_preview(scan, row, i, error);
    }
    for (int j = 0; j <= ny && !status; j++) {
        if (j < ny && !row->known[j] && (!scan->lease.preview || on_lattice(j, ny))) {
            js[n++] = j;
        }
        if (n > 0 && (n == capacity || j == ny)) {
            status = measure_piece(scan, row, i, js, n, error);
            scan->progress.steps_done += n;
            n = 0;
        }
    }
    return status;
}

Status scan_look_around(Scan *scan, Store *store, Error *error)
{
    char pid[32], fresh[40];
    Frame frame = {0};
    snprintf(pid, sizeof pid, "%" PRId64, scan->world->pid);
    snprintf(fresh, sizeof fresh, "%.17g", now(scan) - STALE_S);
    const char *const binds[] = {scan->surface_id, scan->world->host, pid, fresh,
                                 measure_names[scan_own_metric(scan)]};
    Status status = frame_read(
        &frame, store,
        "SELECT sum(state = 'done') AS done, sum(state <> 'done' AND previewed) AS previewed, "
        "count(DISTINCT CASE WHEN state = 'running' AND heartbeat_at > CAST(?4 AS REAL) AND NOT "
        "(host = ?2 AND pid = CAST(?3 AS INTEGER)) THEN host || ' ' || pid END) AS others, "
        "(SELECT value FROM surface_mark WHERE surface_id = ?1 AND kind = 'best' AND metric = ?5) "
        "AS best FROM surface_row WHERE surface_id = ?1",
        binds, 5, error);
    if (!status) {
        int ny = scan->plane.ry.n;
        int lattice = (ny - 1 + STRIDE - 1) / STRIDE + 1;
        scan->progress.n_done = (int)frame_number(&frame, "done", 0);
        scan->progress.best = frame_number(&frame, "best", 0);
        scan->progress.n_others = (int)frame_number(&frame, "others", 0);
        scan->progress.steps_done = (int64_t)scan->progress.n_done * ny +
                                    (int64_t)frame_number(&frame, "previewed", 0) * lattice;
    }
    frame_release(&frame);
    return status;
}

static Status do_row(Scan *scan, Error *error)
{
    RowValues row = {0};
    bool kept = true, preview = scan->lease.preview;
    Error why = {0};
    scan->beat_s = clock_s(scan);
    scan->lost = false;
    Status status = measure_row(scan, &row, &why);
    status = status ? status : scan_turn(scan, &why);
    if (!status) {
        status = store_surface_commit(scan->store, scan->surface_id, &scan->lease, row.values,
                                      row.n, now(scan), &kept, &why);
        scan->rows_here += !status && kept && !preview;
    } else if (scan->lost) {
        status = STATUS_OK;
    } else {
        store_surface_release(scan->store, scan->surface_id, &scan->lease, NULL);
    }
    scan->lease.i = -1;
    free(row.values);
    free(row.stored);
    free(row.known);
    status = status ? error_set(error, status, "%s", why.message)
                    : scan_look_around(scan, scan->store, error);
    if (!status) {
        scan_show(scan, "rows", 1, 1, 0);
    }
    return status;
}

/* Of those who worked on the rows, the one whose row ended last finishes the surface. */
static Status is_last(Scan *scan, bool *last, Error *error)
{
    Frame frame = {0};
    const char *bind = scan->surface_id;
    Status status = frame_read(&frame, scan->store,
                               "SELECT host, pid, boot_id FROM surface_row WHERE surface_id = ?1 "
                               "ORDER BY ended_at DESC, i DESC LIMIT 1",
                               &bind, 1, error);
    if (!status) {
        const char *host = frame_text(&frame, "host", 0), *boot = frame_text(&frame, "boot_id", 0);
        *last = host && boot && strcmp(host, scan->world->host) == 0 &&
                strcmp(boot, scan->world->boot_id) == 0 &&
                (int64_t)frame_number(&frame, "pid", 0) == scan->world->pid;
    }
    frame_release(&frame);
    return status;
}

Status scan_rows(Scan *scan, bool *last, Error *error)
{
    const World *world = scan->world;
    const Worker worker = {world->host, world->pid, world->boot_id, world->environment};
    int nx = scan->plane.rx.n;
    int stride = nx >= COARSE_MIN && scan->plane.ry.n >= COARSE_MIN ? STRIDE : 1;
    bool came = true; /* and nothing was left to do */
    int *order = malloc((size_t)nx * sizeof *order);
    if (!order) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    plane_order(order, nx);
    Status status = scan_look_around(scan, scan->store, error);
    while (!status) {
        SurfaceLease lease = {.i = -1};
        status = scan_turn(scan, error);
        status = status ? status
                        : store_surface_claim(scan->store, scan->surface_id, &worker, order, nx,
                                              stride, now(scan), STALE_S, &lease, error);
        if (status || lease.over) {
            break;
        }
        came = false;
        scan->lease = lease;
        if (lease.i >= 0) {
            status = do_row(scan, error);
        } else {
            scan_show(scan, "waiting for the rows of others", 0, 0, 0);
            world->wait(world->context, WAIT_S);
            status = scan_look_around(scan, scan->store, error);
        }
    }
    free(order);
    *last = came;
    return status || came ? status : is_last(scan, last, error);
}
