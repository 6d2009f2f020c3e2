/* From a config to a surface's identity, and everything that is refused before anything is written.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experiments/cell.h"
#include "experiments/model_lock.h"
#include "experiments/scan_settings.h"
#include "experiments/scan_work.h"
#include "results/frame.h"

/* The model's part of an identity, as of runs. */
static void describe_model(Text *out, const ModelHashes *hashes)
{
    text_printf(out,
                "{\"model.config_sha256\":\"%s\",\"model.generation_sha256\":\"%s\","
                "\"model.tokenizer_sha256\":\"%s\",\"model.weights_sha256\":\"%s\"}",
                hashes->config, hashes->generation, hashes->tokenizer, hashes->weights);
}

Status scan_check_run(const Scan *scan, const Trajectory *run, bool adapter, Error *error)
{
    const char *theirs = text_string(&run->identity);
    char key[128];
    if (!identity_agrees(theirs, text_string(&scan->model_identity), "model.", key)) {
        return error_set(error, STATUS_USAGE,
                         "run %s is of another model: %s of \"%s\" (the run's) and of \"%s\" "
                         "(this config's) differ",
                         run->run_id, key, run->spec.model, scan->spec.model);
    }
    if (adapter && !identity_agrees(theirs, text_string(&scan->identity), "adapter.", key)) {
        return error_set(error, STATUS_USAGE, "run %s: another adapter: %s differs", run->run_id,
                         key);
    }
    return STATUS_OK;
}

/* The runs that the plane goes through, and those that are laid over it. */
static Status open_runs(Scan *scan, Error *error)
{
    const ScanOptions *options = scan->options;
    const char *ids[2] = {scan->spec.scan.run, scan->spec.scan.run_2};
    bool scalars = strcmp(scan->spec.scan.directions, "scalars") == 0;
    bool two = strcmp(scan->spec.scan.directions, "runs") == 0;
    int n_runs = scalars ? 0 : two ? 2 : 1;
    Store *store = NULL;
    if (n_runs == 0 && options->n_paths == 0) {
        return STATUS_OK;
    }
    if (!file_exists(options->db)) {
        return error_set(error, STATUS_USAGE, "%s: \"%s\" holds no runs yet",
                         n_runs ? "scan.run" : "--path", options->db);
    }
    scan->paths = calloc(options->n_paths + 1, sizeof *scan->paths);
    if (!scan->paths) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    Status status = store_open(&store, options->db, STORE_READ, 0, error);
    for (int i = 0; i < n_runs && !status; i++) {
        scan->n_runs = i + 1;
        status = trajectory_open(&scan->runs[i], store, ids[i], error);
        status = status ? error_context(error, status, i ? "scan.run_2" : "scan.run") : STATUS_OK;
    }
    for (size_t i = 0; i < options->n_paths && !status; i++) {
        status = trajectory_open(&scan->paths[i], store, options->paths[i], error);
        status = status ? error_context(error, status, "--path") : STATUS_OK;
    }
    store_close(store);
    return status;
}

/* Two runs span a plane only where their scalars mean the same. */
static Status adopt_adapter(Scan *scan, Error *error)
{
    char key[128];
    if (scan->n_runs == 0) {
        return STATUS_OK;
    }
    const Trajectory *runs = scan->runs;
    if (scan->n_runs == 2 && !identity_agrees(text_string(&runs[0].identity),
                                              text_string(&runs[1].identity), "adapter.", key)) {
        return error_set(error, STATUS_USAGE,
                         "scan.run_2: runs %s and %s have different adapters: %s", runs[0].run_id,
                         runs[1].run_id, key);
    }
    scan->spec.adapter = runs[0].spec.adapter;
    memcpy(scan->spec.scan.run, runs[0].run_id, sizeof runs[0].run_id);
    if (scan->n_runs == 2) {
        memcpy(scan->spec.scan.run_2, runs[1].run_id, sizeof runs[1].run_id);
    }
    return STATUS_OK;
}

/* Two scalars are what a plane has; the ways that this model offers are named. */
static Status refuse_plan(const Scan *scan, Error *error)
{
    Text ways = {0};
    Plan *plans = NULL;
    int n_plans = 0;
    const RunSpec *spec = &scan->spec;
    Module *modules = malloc(((size_t)scan->model.n_layers * N_ROLES + 1) * sizeof *modules);
    if (modules) {
        int n = plan_modules(modules, &scan->model, spec->adapter.targets);
        const Plan like = {.rank = spec->adapter.rank};
        if (plan_enumerate(&plans, &n_plans, modules, n, &like, 2, -1, NULL)) {
            n_plans = 0;
        }
    }
    for (int i = 0; i < n_plans && i < 3; i++) {
        text_printf(&ways, "%s{\"budget\": 2, \"u\": %d, \"groups\": %d, \"tie\": \"%s\"}",
                    i ? " or " : "", plans[i].u, plans[i].groups, tie_rule_name(plans[i].tie));
    }
    Text what = {0};
    if (strcmp(spec->adapter.method, "tinylora") == 0) {
        text_printf(&what, "adapter.budget: %d scalars", spec->adapter.budget);
    } else {
        text_printf(&what, "adapter.method: \"%s\"", spec->adapter.method);
    }
    error_set(error, STATUS_USAGE,
              "%s, where a surface has exactly two; on this model %s give%s two; or take "
              "scan.directions axes, random, pca or runs through a stored run (scan.run)",
              text_string(&what), n_plans ? text_string(&ways) : "no plan", n_plans > 1 ? "" : "s");
    text_release(&what);
    free(plans);
    free(modules);
    text_release(&ways);
    return STATUS_USAGE;
}

static Status open_adapter(Scan *scan, Error *error)
{
    bool scalars = strcmp(scan->spec.scan.directions, "scalars") == 0;
    bool tinylora = strcmp(scan->spec.adapter.method, "tinylora") == 0;
    if (scalars && (!tinylora || scan->spec.adapter.budget != 2)) {
        return refuse_plan(scan, error);
    }
    Status status = cell_adapter(&scan->adapter, &scan->spec, &scan->model, error);
    scan->n = scan->n_runs ? scan->runs[0].n : 2;
    scan->initial = status ? NULL : calloc(scan->n, sizeof *scan->initial);
    if (!status && !scan->initial) {
        status = error_set(error, STATUS_FAILED, "no memory for %zu scalars", scan->n);
    }
    if (!status && (double)scan->n > 3e7) {
        status = error_set(error, STATUS_USAGE,
                           "run %s: a plane through %zu scalars is too large for results.db",
                           scan->runs[0].run_id, scan->n);
    }
    return status;
}

/* Where training starts, where that is not zeros. */
static Status find_start(Scan *scan, Error *error)
{
    const AdapterSpec *spec = &scan->adapter;
    if (strcmp(spec->method, "full") != 0 && strcmp(spec->method, "lora") != 0 &&
        spec->start == START_ZEROS) {
        return STATUS_OK;
    }
    Status status = scan_open_bench(scan, error);
    float *v = status ? NULL : malloc(scan->n * sizeof *v);
    if (!status && !v) {
        status = error_set(error, STATUS_FAILED, "no memory for %zu scalars", scan->n);
    }
    if (!status) {
        adapter_initial(scan->bank, v);
        for (size_t i = 0; i < scan->n; i++) {
            scan->initial[i] = (double)v[i];
        }
    }
    free(v);
    return status;
}

static void add_string(Text *value, const char *string)
{
    text_json_string(value, string, strlen(string));
}

/* Steps of the checkpoints that the plane was made of. */
static void add_steps(Text *value, const Trajectory *run, bool all)
{
    for (size_t k = all ? 0 : run->n_points - 1; k < run->n_points; k++) {
        text_printf(value, "%s%lld", value->n ? "," : "[", (long long)run->steps[k]);
    }
    text_add(value, "]");
}

static void identify(Scan *scan, const char *rows_sha256)
{
    enum { MODEL, GENERATION, WEIGHTS, TOKENIZER, ROWS, NUMERICS, PLANE, STEPS, STEPS_2, N };
    static const char *const keys[N] = {
        [MODEL] = "model.config_sha256",    [GENERATION] = "model.generation_sha256",
        [WEIGHTS] = "model.weights_sha256", [TOKENIZER] = "model.tokenizer_sha256",
        [ROWS] = "data.train_sha256",       [NUMERICS] = "numerics",
        [PLANE] = "scan.plane_sha256",      [STEPS] = "scan.run_steps",
        [STEPS_2] = "scan.run_2_steps"};
    Text values[N] = {0};
    IdentityMember members[N];
    char plane[SHA256_HEX_SIZE];
    size_t n = 0;
    add_string(&values[MODEL], scan->hashes.config);
    add_string(&values[GENERATION], scan->hashes.generation);
    add_string(&values[WEIGHTS], scan->hashes.weights);
    add_string(&values[TOKENIZER], scan->hashes.tokenizer);
    add_string(&values[ROWS], rows_sha256);
    text_printf(&values[NUMERICS], "%d", NUMERICS_VERSION);
    if (scan->n_runs) {
        sha256_bytes(plane, scan->plane.plane.basis, 3 * scan->n * sizeof(double));
        add_string(&values[PLANE], plane);
        add_steps(&values[STEPS], &scan->runs[0], strcmp(scan->spec.scan.directions, "pca") == 0);
    }
    if (scan->n_runs == 2) {
        add_steps(&values[STEPS_2], &scan->runs[1], false);
    }
    for (int i = 0; i < N; i++) {
        if (values[i].n) {
            members[n++] = (IdentityMember){keys[i], text_string(&values[i])};
        }
    }
    identity_members(&scan->identity, &scan->spec, members, n);
    identity_run_id(scan->surface_id, &scan->identity);
    for (int i = 0; i < N; i++) {
        text_release(&values[i]);
    }
}

static Status check_config(Scan *scan, Error *error)
{
    const Config *config = scan->config;
    if (config_is_sweep(config)) {
        return error_set(error, STATUS_USAGE,
                         "config \"%s\": sweep: a scan has none; scan.x and scan.y are its axes",
                         config->path);
    }
    scan->spec = config->base;
    return config_settle(config, &scan->spec, error);
}

static Status open_inputs(Scan *scan, InputHashes *hashes, char rows_sha256[SHA256_HEX_SIZE],
                          Error *error)
{
    RunSpec *spec = &scan->spec;
    Status status = model_find(scan->directory, spec->model, scan->world->models, error);
    status = status ? status : model_lock_check(scan->world->lock, scan->directory, error);
    status = status ? status : model_config_read(&scan->model, scan->directory, error);
    status = status ? status : path_make_absolute(spec->data.train, "data.train", error);
    if (!status && strcmp(spec->model, scan->directory) == 0) { /* not an embedded model's name */
        status = path_make_absolute(spec->model, "model", error);
    }
    status = status ? status : inputs_hash_model(&scan->hashes, hashes, scan->directory, error);
    status = status ? status : inputs_hash_file(rows_sha256, hashes, spec->data.train, error);
    if (!status) {
        describe_model(&scan->model_identity, &scan->hashes);
    }
    return status;
}

Status scan_open(Scan *scan, const Config *config, const World *world, const ScanOptions *options,
                 Error *error)
{
    InputHashes hashes = {0};
    char rows_sha256[SHA256_HEX_SIZE];
    scan->config = config;
    scan->world = world;
    scan->options = options;
    scan->lease.i = -1;
    workbench_init(&scan->bench, world);
    Status status = check_config(scan, error);
    if (status) {
        return status;
    }
    status = open_inputs(scan, &hashes, rows_sha256, error);
    status = status ? status : open_runs(scan, error);
    for (int i = 0; i < scan->n_runs && !status; i++) {
        status = scan_check_run(scan, &scan->runs[i], false, error);
    }
    status = status ? status : adopt_adapter(scan, error);
    status = status ? status : open_adapter(scan, error);
    status = status ? status : find_start(scan, error);
    status = status ? status
                    : scan_plane_open(&scan->plane, &scan->spec, scan->initial, scan->n, scan->runs,
                                      error);
    if (!status) {
        identify(scan, rows_sha256);
    }
    for (size_t i = 0; i < options->n_paths && !status; i++) {
        status = scan_check_run(scan, &scan->paths[i], true, error);
        status = status ? error_context(error, status, "--path") : STATUS_OK;
    }
    inputs_release(&hashes);
    return status == STATUS_USAGE ? error_context(error, status, "config \"%s\"", config->path)
                                  : status;
}

void scan_close(Scan *scan)
{
    store_close(scan->store);
    adapter_bank_free(scan->bank);
    reward_free(scan->reward);
    workbench_release(&scan->bench);
    for (int i = 0; i < scan->n_runs; i++) {
        trajectory_release(&scan->runs[i]);
    }
    for (size_t i = 0; scan->paths && i < scan->options->n_paths; i++) {
        trajectory_release(&scan->paths[i]);
    }
    free(scan->paths);
    free(scan->initial);
    adapter_spec_release(&scan->adapter);
    scan_plane_release(&scan->plane);
    text_release(&scan->identity);
    text_release(&scan->model_identity);
}

SurfaceInfo scan_info(const Scan *scan, const Text *config, const Text *metrics)
{
    const ScanPlane *plane = &scan->plane;
    return (SurfaceInfo){.surface_id = scan->surface_id,
                         .experiment = scan->spec.experiment,
                         .identity = text_string(&scan->identity),
                         .config = text_string(config),
                         .model = scan->spec.model,
                         .run_id = scan->n_runs ? scan->runs[0].run_id : NULL,
                         .n_parameters = scan->n,
                         .plane = plane->plane.basis,
                         .metrics = text_string(metrics),
                         .x_label = plane->x_label,
                         .y_label = plane->y_label,
                         .nx = plane->rx.n,
                         .ny = plane->ry.n,
                         .x_min = plane->rx.min,
                         .x_max = plane->rx.max,
                         .y_min = plane->ry.min,
                         .y_max = plane->ry.max};
}
