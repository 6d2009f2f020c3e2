/* `scan`: what is refused is refused before anything is written; then rows, then what they say
 * together. */
#include "experiments/scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "experiments/scan_settings.h"
#include "experiments/scan_work.h"
#include "results/frame.h"

static const double MANY_POINTS = 100000, LONG_S = 86400;

const char *const scan_error_names[MEASURE_COUNT] = {"loss_se", "accuracy_se", "reward_se"};

/* What results.db knows of the surface before this process begins. */
typedef struct {
    bool exists, done, has_base;
} Known;

static double now(const Scan *scan)
{
    return scan->world->now_s(scan->world->context);
}

static double clock_s(const Scan *scan)
{
    return scan->world->clock_s(scan->world->context);
}

int scan_own_metric(const Scan *scan)
{
    size_t n = strcspn(scan->spec.scan.values, ",");
    int m = 0;
    while (m < MEASURE_COUNT - 1 && (strlen(measure_names[m]) != n ||
                                     strncmp(measure_names[m], scan->spec.scan.values, n) != 0)) {
        m++;
    }
    return m;
}

static void on_factors(void *context, int done, int total)
{
    scan_show(context, "factors", done, total, 0);
}

Status scan_open_bench(Scan *scan, Error *error)
{
    const RunSpec *spec = &scan->spec;
    const Task *task;
    if (scan->bank) {
        return STATUS_OK;
    }
    Status status = workbench_model(&scan->bench, scan->directory, error);
    status = status ? status : workbench_expect(&scan->bench, scan->hashes.weights, error);
    status = status ? status
                    : workbench_task(&scan->bench, &task, spec, spec->data.train, spec->scan.rows,
                                     error);
    status = status ? status : reward_from_spec(&scan->reward, spec, scan->world, error);
    status = status ? status
                    : adapter_bank_new(&scan->bank, scan->bench.model, &scan->adapter,
                                       strcmp(scan->adapter.method, "full") == 0 ? 1 : SCAN_BATCH,
                                       scan->world->n_threads, scan->world->cache, on_factors, scan,
                                       error);
    if (status) {
        return status;
    }
    scan->sampling = (Sampling){.greedy = spec->eval.greedy,
                                .temperature = spec->eval.temperature,
                                .top_p = 1,
                                .max_new_tokens = spec->eval.max_new_tokens};
    scan->settings = (MeasureSettings){.task = task,
                                       .max_length = spec->scan.max_length,
                                       .metrics = scan_metrics(spec),
                                       .sampling = &scan->sampling,
                                       .samples = spec->eval.greedy ? 1 : spec->eval.samples,
                                       .seed = (uint64_t)spec->eval.seed,
                                       .reward = scan->reward,
                                       .extractor = spec->reward[0].extractor};
    scan->trainer = (Trainer){scan->bench.engine, scan->bank, scan_on_progress, scan};
    return STATUS_OK;
}

/* The identity that stands in the way under the same experiment, if any. */
static Status refuse_rival(const Scan *scan, Store *store, Error *error)
{
    bool found = false;
    Text id = {0}, identity = {0}, lines = {0}, keys = {0};
    Status status = store_surface_rival(store, scan->spec.experiment, scan->surface_id, &found, &id,
                                        &identity, error);
    if (!status && found) {
        const char *slash = strrchr(scan->spec.data.train, '/');
        identity_diff(&lines, &keys, text_string(&identity), text_string(&scan->identity),
                      scan->spec.model, slash ? slash + 1 : scan->spec.data.train);
        char *rest = lines.bytes;
        for (char *line; rest && (line = strsep(&rest, "\n")) && *line;) {
            scan->world->note(scan->world->context, line);
        }
        status = error_set(error, STATUS_USAGE,
                           "experiment \"%s\" has another surface, %s, that differs in %s; restore "
                           "what changed, name another \"experiment\", or put a second surface "
                           "beside it with --new",
                           scan->spec.experiment, text_string(&id), text_string(&keys));
    }
    text_release(&id);
    text_release(&identity);
    text_release(&lines);
    text_release(&keys);
    return status;
}

static Status look_up(const Scan *scan, Store *store, Known *known, Error *error)
{
    Frame frame = {0};
    const char *bind = scan->surface_id;
    Status status =
        frame_read(&frame, store,
                   "SELECT state = 'done' AS done, EXISTS (SELECT 1 FROM surface_mark m WHERE "
                   "m.surface_id = s.surface_id AND kind = 'base') AS base, EXISTS (SELECT 1 FROM "
                   "event e WHERE e.surface_id = s.surface_id AND kind = 'grid_only') AND NOT "
                   "EXISTS (SELECT 1 FROM event e WHERE e.surface_id = s.surface_id AND kind = "
                   "'beyond_grid') AS grid_only FROM surface s WHERE surface_id = ?1",
                   &bind, 1, error);
    if (!status && frame.n_rows) {
        bool enough = scan->options->grid_only || frame_number(&frame, "grid_only", 0) == 0;
        *known = (Known){true, frame_number(&frame, "done", 0) != 0 && enough,
                         frame_number(&frame, "base", 0) != 0};
    }
    frame_release(&frame);
    return status;
}

/* What is there already; a rival's identity is refused. */
static Status look_into_store(Scan *scan, Known *known, Error *error)
{
    Store *store;
    if (!file_exists(scan->options->db)) {
        return STATUS_OK;
    }
    Status status = store_open(&store, scan->options->db, STORE_READ, 0, error);
    if (status ==
        STATUS_REFUSED) { /* a file of an older schema is widened, any other refused again */
        status = store_open(&store, scan->options->db, STORE_SHARED, scan->options->wait_ms, error);
    }
    if (status) {
        return status;
    }
    status = look_up(scan, store, known, error);
    if (!status && known->exists) {
        status = scan_look_around(scan, store, error);
    } else if (!status && !scan->options->new_surface) {
        status = refuse_rival(scan, store, error);
    }
    store_close(store);
    return status;
}

static void add_duration(Text *out, double seconds)
{
    const double day = 86400, hour = 3600;
    if (seconds >= 2 * day) {
        text_printf(out, "%.1f days", seconds / day);
    } else if (seconds >= 2 * hour) {
        text_printf(out, "%.1f hours", seconds / hour);
    } else {
        text_printf(out, "%.0f minutes", ceil(seconds / 60));
    }
}

/* Seconds a point where many ride in one batch, from as many of the first row as take about two
 * seconds. alone: what one takes by itself. */
static Status time_points(Scan *scan, double alone, double *seconds, Error *error)
{
    Measured measured[SCAN_BATCH] = {0};
    double xy[2 * SCAN_BATCH];
    int capacity = measure_capacity(scan->bank, SCAN_BATCH), n = (int)ceil(2 / (alone + 1e-3));
    n = n < capacity ? n : capacity;
    n = n < scan->plane.ry.n ? n : scan->plane.ry.n;
    for (int k = 0; k < n; k++) {
        xy[2 * k] = plane_coordinate(&scan->plane.rx, 0);
        xy[2 * k + 1] = plane_coordinate(&scan->plane.ry, k);
    }
    double began = clock_s(scan);
    Status status = scan_measure(scan, measured, xy, n, error);
    *seconds = (clock_s(scan) - began) / n;
    for (int k = 0; k < n; k++) {
        measured_release(&measured[k]);
    }
    return status;
}

/* A grid that would take very long wants to be asked for twice. alone: seconds of one point. */
static Status ask(Scan *scan, double alone, Error *error)
{
    double points = (double)scan->plane.rx.n * scan->plane.ry.n, seconds = alone;
    if (scan->options->yes || (points <= MANY_POINTS && points * alone <= LONG_S)) {
        return STATUS_OK;
    }
    Status status = time_points(scan, alone, &seconds, error);
    if (status || (points <= MANY_POINTS && points * seconds <= LONG_S)) {
        return status;
    }
    Text total = {0};
    add_duration(&total, points * seconds);
    error_set(error, STATUS_USAGE,
              "%d x %d are %.0f points; at %.2g s a point %s for one process; --yes goes on",
              scan->plane.rx.n, scan->plane.ry.n, points, seconds, text_string(&total));
    text_release(&total);
    return STATUS_USAGE;
}

/* The base model, as a point of its own; seconds: how long it took. */
static Status measure_base(Scan *scan, Measured *base, double *seconds, Error *error)
{
    float *v = malloc(scan->n * sizeof *v);
    if (!v) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    for (size_t i = 0; i < scan->n; i++) {
        v[i] = (float)scan->initial[i];
    }
    double began = clock_s(scan);
    Status status = measure_points(base, &scan->trainer, &scan->settings, v, 1, error);
    *seconds = clock_s(scan) - began;
    free(v);
    return status;
}

static void note_cut_rows(const Scan *scan)
{
    int n = measure_cut_rows(&scan->settings, scan->bench.model);
    if (n > 0) {
        Text line = {0};
        text_printf(&line, "%d of %d rows are longer than %d tokens: their ends are cut", n,
                    scan->settings.task->n_rows, scan->spec.scan.max_length);
        scan->world->note(scan->world->context, text_string(&line));
        text_release(&line);
    }
}

static void metrics_json(Text *out, const RunSpec *spec)
{
    int reward;
    setting_value_json(spec, setting_find("scan.values", &reward), 0, out);
}

/* Put the surface into the store, and say who works on it. */
static Status begin(Scan *scan, const Measured *base, Error *error)
{
    Text config = {0}, frozen = {0}, metrics = {0}, worker = {0};
    RunState state;
    const World *world = scan->world;
    config_show(&scan->spec, NULL, &config);
    config_show(&scan->config->base, scan->config, &frozen);
    metrics_json(&metrics, &scan->spec);
    SurfaceInfo info = scan_info(scan, &config, &metrics);
    Status status =
        store_open(&scan->store, scan->options->db, STORE_SHARED, scan->options->wait_ms, error);
    status = status ? status
                    : store_experiment(scan->store, scan->spec.experiment, text_string(&frozen),
                                       now(scan), error);
    status = status ? status : store_surface(scan->store, &info, now(scan), &state, error);
    status = status || !base ? status : scan_base_marks(scan, base, error);
    text_printf(&worker, "pid %lld on %s: %s", (long long)world->pid, world->host,
                world->environment);
    status = status ? status
                    : store_surface_event(scan->store, scan->surface_id, "worker",
                                          text_string(&worker), now(scan), error);
    text_release(&config);
    text_release(&frozen);
    text_release(&metrics);
    text_release(&worker);
    return status;
}

/* After the rows: this process finishes, or leaves it to the one whose row was the last. */
static Status end(Scan *scan, bool last, Error *error)
{
    if (!last) {
        scan->world->note(scan->world->context,
                          "all rows are done; the process that did the last one finishes");
        return STATUS_OK;
    }
    Status status = scan_finish(scan, error);
    status =
        status ? status
               : store_surface_end(scan->store, scan->surface_id, RUN_DONE, NULL, now(scan), error);
    return status ? status : scan_figures(scan, error);
}

static Status measure_surface(Scan *scan, const Known *known, Error *error)
{
    Measured base = {0};
    double seconds = 0; /* a point */
    bool last = false;
    Status status = scan_open_bench(scan, error);
    if (!status && !known->has_base) {
        status = measure_base(scan, &base, &seconds, error);
        status = status || known->exists ? status : ask(scan, seconds, error);
    }
    if (!status) {
        note_cut_rows(scan);
        status = begin(scan, known->has_base ? NULL : &base, error);
    }
    measured_release(&base);
    status = status ? status : scan_rows(scan, &last, error);
    return status ? status : end(scan, last, error);
}

/* A surface that is done may still want pictures, or a path laid over it. */
static Status complete(Scan *scan, Error *error)
{
    bool paths = false;
    Store *store;
    Status status = store_open(&store, scan->options->db, STORE_READ, 0, error);
    if (!status) {
        status = scan_paths_missing(scan, store, &paths, error);
        store_close(store);
    }
    if (status || (!paths && !scan_figures_missing(scan))) {
        return status;
    }
    status =
        store_open(&scan->store, scan->options->db, STORE_SHARED, scan->options->wait_ms, error);
    status = status || !paths ? status : scan_paths(scan, error);
    return status ? status : scan_figures(scan, error);
}

static Status tell(ScanResult *result, const Scan *scan, Error *error)
{
    Store *store = scan->store;
    Status status = store ? STATUS_OK : store_open(&store, scan->options->db, STORE_READ, 0, error);
    result->rows_here = scan->rows_here;
    status = status ? status : scan_report(result, store, scan->surface_id, error);
    if (store != scan->store) {
        store_close(store);
    }
    return status;
}

Status scan_run(ScanResult *result, const Config *config, const World *world,
                const ScanOptions *options, Error *error)
{
    Known known = {0};
    Scan *scan = calloc(1, sizeof *scan);
    if (!scan) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    Status status = scan_open(scan, config, world, options, error);
    if (!status) {
        scan->progress = (Progress){.scan = true,
                                    .n_cells = scan->plane.rx.n,
                                    .steps_total = (int64_t)scan->plane.rx.n * scan->plane.ry.n,
                                    .reward = NAN,
                                    .best = NAN,
                                    .measure = measure_names[scan_own_metric(scan)]};
        scan->settings.metrics = scan_metrics(&scan->spec);
        status = look_into_store(scan, &known, error);
    }
    if (!status) {
        status = known.done ? complete(scan, error) : measure_surface(scan, &known, error);
        if (status == STATUS_OK || (status == STATUS_STOPPED && scan->store)) {
            Error why = {0};
            Status told = tell(result, scan, &why);
            status = status ? status : told ? error_set(error, told, "%s", why.message) : STATUS_OK;
        }
    }
    scan_close(scan);
    free(scan);
    return status;
}
