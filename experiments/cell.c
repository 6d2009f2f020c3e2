/* From settings to identity. Files are hashed once, however many cells share them. */
#include "experiments/cell.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"

/* Hashes by path: (n). */
typedef struct {
    struct {
        char path[FILE_PATH_MAX];
        char sha256[SHA256_HEX_SIZE];
    } * files;
    size_t n;
} Hashes;

/* The same hash that model_identity gives, from the mapped file or shards. */
static Status weights_hash(char sha256[SHA256_HEX_SIZE], const char *path, Error *error)
{
    SafeTensors *file = NULL;
    Status status = safetensors_open(&file, path, error);
    if (!status) {
        safetensors_sha256(sha256, file);
    }
    safetensors_close(file);
    return status;
}

static Status hash_once(Hashes *hashes, char sha256[SHA256_HEX_SIZE], const char *path,
                        Status (*hash)(char *, const char *, Error *), Error *error)
{
    for (size_t i = 0; i < hashes->n; i++) {
        if (strcmp(hashes->files[i].path, path) == 0) {
            memcpy(sha256, hashes->files[i].sha256, SHA256_HEX_SIZE);
            return STATUS_OK;
        }
    }
    Status status = hash(sha256, path, error);
    if (status) {
        return status;
    }
    void *more = realloc(hashes->files, (hashes->n + 1) * sizeof *hashes->files);
    if (!more) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    hashes->files = more;
    snprintf(hashes->files[hashes->n].path, sizeof hashes->files[0].path, "%s", path);
    memcpy(hashes->files[hashes->n++].sha256, sha256, SHA256_HEX_SIZE);
    return STATUS_OK;
}

/* The planner's list is in order of preference: the first plan that has what the settings name. */
static Status search_plan(Plan *plan, const RunSpec *spec, const Module *modules, int n_modules,
                          TieRule tie, Error *error)
{
    Plan *plans;
    int n_plans;
    Status status = plan_enumerate(&plans, &n_plans, modules, n_modules, spec->adapter.budget,
                                   spec->adapter.rank, (int)tie, error);
    if (status) {
        return error_context(error, status, "adapter.budget");
    }
    const Plan *chosen = NULL;
    for (int i = 0; i < n_plans && !chosen; i++) {
        bool fits = (!spec->adapter.u || plans[i].u == spec->adapter.u) &&
                    (!spec->adapter.groups || plans[i].groups == spec->adapter.groups) &&
                    (strcmp(spec->adapter.grouping, "auto") == 0 ||
                     plans[i].balanced == (strcmp(spec->adapter.grouping, "balanced") == 0));
        chosen = fits ? &plans[i] : NULL;
    }
    if (chosen) {
        *plan = *chosen;
    } else {
        status = error_set(error, STATUS_USAGE,
                           "adapter: no plan of %d scalars has the u, groups and grouping named; "
                           "see tinylora plan",
                           spec->adapter.budget);
    }
    free(plans);
    return status;
}

Status cell_plan(Plan *plan, const RunSpec *spec, const ModelConfig *model, Error *error)
{
    TieRule tie;
    Module *modules = malloc(((size_t)model->n_layers * N_ROLES + 1) * sizeof *modules);
    if (!modules) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    int n_modules = plan_modules(modules, model, spec->adapter.targets);
    Status status = STATUS_OK;
    tie_rule_find(&tie, spec->adapter.tie); /* one of the setting's choices */
    if (spec->adapter.u && spec->adapter.groups) {
        *plan = (Plan){.rank = spec->adapter.rank,
                       .u = spec->adapter.u,
                       .groups = spec->adapter.groups,
                       .tie = tie};
        plan->balanced = strcmp(spec->adapter.grouping, "balanced") == 0;
        status = plan_complete(plan, modules, n_modules, error);
        if (status && strcmp(spec->adapter.grouping, "auto") == 0) {
            plan->balanced = true;
            status = plan_complete(plan, modules, n_modules, error);
        }
        status = status ? error_context(error, status, "adapter.groups") : STATUS_OK;
    } else {
        status = search_plan(plan, spec, modules, n_modules, tie, error);
    }
    free(modules);
    return status;
}

Status cell_adapter(AdapterSpec *adapter, RunSpec *spec, const ModelConfig *model, Error *error)
{
    *adapter = (AdapterSpec){.targets = spec->adapter.targets,
                             .seed = (uint64_t)spec->adapter.seed,
                             .scale = (float)spec->adapter.scale};
    if (strcmp(spec->adapter.method, "tinylora") != 0) {
        adapter->method = strcmp(spec->adapter.method, "full") == 0 ? "full" : "none";
        return STATUS_OK;
    }
    adapter->method = "tinylora";
    Status status = cell_plan(&adapter->plan, spec, model, error);
    if (!status) {
        const Plan *plan = &adapter->plan;
        spec->adapter.budget = plan->parameters;
        spec->adapter.u = plan->u;
        spec->adapter.groups = plan->groups;
        strcpy(spec->adapter.grouping, plan->balanced ? "balanced" : "chunks");
    }
    return status;
}

static int64_t count_weights(const ModelConfig *model)
{
    TensorSpec *tensors;
    size_t n = model_config_tensors(&tensors, model);
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t product = 1;
        for (int j = 0; j < tensors[i].n_dims; j++) {
            product *= (int64_t)tensors[i].dims[j];
        }
        sum += product;
    }
    free(tensors);
    return sum;
}

/* So that a stored run can be read again from any folder. */
static Status make_absolute(char path[CONFIG_PATH], const char *key, Error *error)
{
    if (!path[0]) {
        return STATUS_OK;
    }
    char *whole = realpath(path, NULL);
    if (!whole) {
        return error_set(error, STATUS_REFUSED, "%s: \"%s\": %s", key, path, strerror(errno));
    }
    Status status = STATUS_OK;
    if (strlen(whole) >= CONFIG_PATH) {
        status = error_set(error, STATUS_USAGE, "%s: \"%s\": path too long", key, path);
    } else {
        strcpy(path, whole);
    }
    free(whole);
    return status;
}

typedef struct {
    char config[SHA256_HEX_SIZE], generation[SHA256_HEX_SIZE], tokenizer[SHA256_HEX_SIZE];
} ModelHashes;

static Status hash_model(Cell *cell, Hashes *hashes, ModelHashes *model, Error *error)
{
    char path[FILE_PATH_MAX];
    Status status = model_weights_path(path, cell->directory, error);
    status = status ? status : hash_once(hashes, cell->weights_sha256, path, weights_hash, error);
    status = status ? status : path_join(path, cell->directory, "tokenizer.json", error);
    status = status ? status : hash_once(hashes, model->tokenizer, path, sha256_file, error);
    status = status ? status : path_join(path, cell->directory, "config.json", error);
    status = status ? status : hash_once(hashes, model->config, path, sha256_file, error);
    status = status ? status : path_join(path, cell->directory, "generation_config.json", error);
    if (!status && file_exists(path)) {
        status = hash_once(hashes, model->generation, path, sha256_file, error);
    }
    return status;
}

static Status prepare(Cell *cell, const Config *config, const char *models, Hashes *hashes,
                      Error *error)
{
    RunSpec *spec = &cell->spec;
    char train[SHA256_HEX_SIZE], held_out[SHA256_HEX_SIZE];
    ModelHashes model = {0};
    Status status = model_find(cell->directory, spec->model, models, error);
    status = status ? status : model_config_read(&cell->model, cell->directory, error);
    status = status ? status : cell_adapter(&cell->adapter, spec, &cell->model, error);
    if (status == STATUS_USAGE) {
        return error_context(error, status, "config \"%s\"", config->path);
    }
    status = status ? status : make_absolute(spec->data.train, "data.train", error);
    status = status ? status : make_absolute(spec->data.dev, "data.dev", error);
    status = status ? status : make_absolute(spec->data.eval, "data.eval", error);
    if (status) {
        return status;
    }
    if (strcmp(spec->model, cell->directory) == 0) { /* not the name of an embedded model */
        status = make_absolute(spec->model, "model", error);
    }
    strcpy(cell->held_out, spec->data.dev[0]    ? spec->data.dev
                           : spec->data.eval[0] ? spec->data.eval
                                                : spec->data.train);
    cell->budget = strcmp(cell->adapter.method, "tinylora") == 0 ? cell->adapter.plan.parameters
                   : strcmp(cell->adapter.method, "full") == 0   ? count_weights(&cell->model)
                                                                 : 0;
    status = status ? status : hash_model(cell, hashes, &model, error);
    status = status ? status : hash_once(hashes, train, spec->data.train, sha256_file, error);
    status = status ? status : hash_once(hashes, held_out, cell->held_out, sha256_file, error);
    if (!status) {
        IdentityInputs inputs = {.config_sha256 = model.config,
                                 .generation_sha256 = model.generation,
                                 .weights_sha256 = cell->weights_sha256,
                                 .tokenizer_sha256 = model.tokenizer,
                                 .train_sha256 = train,
                                 .held_out_sha256 = held_out};
        identity_json(&cell->identity, spec, &inputs);
        identity_run_id(cell->run_id, &cell->identity);
        grid_label(config, spec, &cell->label);
        cell->last_step = -1;
    }
    return status;
}

Status cells_open(Cell **cells_out, size_t *n_out, const Config *config, const char *models,
                  Error *error)
{
    Hashes hashes = {0};
    size_t n_grid = 0, n = 0;
    Status status = grid_count(&n_grid, config, error);
    Cell *cells = status ? NULL : calloc(n_grid, sizeof *cells);
    if (!status && !cells) {
        status = error_set(error, STATUS_FAILED, "out of memory for %zu cells", n_grid);
    }
    for (size_t i = 0; i < n_grid && !status; i++) {
        Cell *cell = &cells[n];
        status = grid_cell(&cell->spec, config, i, error);
        if (!status) {
            status = prepare(cell, config, models, &hashes, error);
            if (status && n_grid > 1) {
                error_context(error, status, "cell %zu", i);
            }
        }
        bool twin = false;
        for (size_t j = 0; j < n && !status; j++) {
            twin |= strcmp(cells[j].run_id, cell->run_id) == 0;
        }
        n++;
        if (twin) {
            n--;
            text_release(&cell->identity);
            text_release(&cell->label);
        }
    }
    free(hashes.files);
    if (status) {
        cells_close(cells, n);
        return status;
    }
    *cells_out = cells;
    *n_out = n;
    return STATUS_OK;
}

void cells_close(Cell *cells, size_t n)
{
    for (size_t i = 0; cells && i < n; i++) {
        text_release(&cells[i].identity);
        text_release(&cells[i].label);
    }
    free(cells);
}
