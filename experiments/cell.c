/* From settings to identity. Files are hashed once, however many cells share them. */
#include "experiments/cell.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "experiments/cell_start.h"
#include "experiments/inputs.h"
#include "rl/dataset.h"

/* Where cells find things. */
typedef struct {
    const char *models, *db;
    Store *store; /* for start_run; opened when it is needed */
    InputHashes hashes;
} Sources;

/* The scalars that the cell starts from, which become part of its identity. */
static Status take_start(Cell *cell, Sources *sources, Error *error)
{
    const char *db = sources->db;
    Status status = STATUS_OK;
    if (!sources->store && !file_exists(db)) {
        return error_set(error, STATUS_USAGE, "start_run: there are no results yet in \"%s\"", db);
    }
    if (!sources->store) {
        status = store_open(&sources->store, db, STORE_READ, 0, error);
    }
    return status ? status
                  : cell_start(&cell->start, &cell->spec, (size_t)cell->budget,
                               text_string(&cell->identity), sources->store, error);
}

/* The steps that make so many passes over the training rows. */
static Status settle_epochs(RunSpec *spec, Error *error)
{
    Dataset dataset;
    bool sft = strcmp(spec->method, "sft") == 0, trains = sft || strcmp(spec->method, "grpo") == 0;
    if (spec->epochs == 0 || !trains) {
        return STATUS_OK;
    }
    Status status =
        dataset_open(&dataset, spec->data.train, spec->data.question, spec->data.answer, error);
    if (status) {
        return status;
    }
    double rows = sft ? spec->sft.batch_size : spec->grpo.prompts_per_step;
    double steps = ceil(spec->epochs * dataset.n_rows / rows * (1 - 1e-12));
    dataset_close(&dataset);
    if (steps > 1e7) {
        return error_set(error, STATUS_USAGE, "epochs: %g of them are %.0f steps, at most 1e7",
                         spec->epochs, steps);
    }
    spec->steps = (int)steps;
    return STATUS_OK;
}

static Status prepare(Cell *cell, const Config *config, size_t i, Sources *sources, Error *error)
{
    InputHashes *hashes = &sources->hashes;
    RunSpec *spec = &cell->spec;
    char train[SHA256_HEX_SIZE], held_out[SHA256_HEX_SIZE];
    ModelHashes model;
    Status status = model_find(cell->directory, spec->model, sources->models, error);
    status = status ? status : model_config_read(&cell->model, cell->directory, error);
    status = status ? status : cell_adapter(&cell->adapter, spec, &cell->model, error);
    if (status == STATUS_USAGE) {
        return error_context(error, status, "config \"%s\"", config->path);
    }
    status = status ? status : path_make_absolute(spec->data.train, "data.train", error);
    status = status ? status : path_make_absolute(spec->data.dev, "data.dev", error);
    status = status ? status : path_make_absolute(spec->data.eval, "data.eval", error);
    status = status ? status : settle_epochs(spec, error);
    if (status) {
        return status;
    }
    if (strcmp(spec->model, cell->directory) == 0) { /* not the name of an embedded model */
        status = path_make_absolute(spec->model, "model", error);
    }
    strcpy(cell->held_out, spec->data.dev[0]    ? spec->data.dev
                           : spec->data.eval[0] ? spec->data.eval
                                                : spec->data.train);
    cell->budget = adapter_spec_parameters(&cell->adapter, &cell->model);
    status = status ? status : inputs_hash_model(&model, hashes, cell->directory, error);
    status = status ? status : inputs_hash_file(train, hashes, spec->data.train, error);
    status = status ? status : inputs_hash_file(held_out, hashes, cell->held_out, error);
    if (!status) {
        IdentityInputs inputs = {.config_sha256 = model.config,
                                 .generation_sha256 = model.generation,
                                 .weights_sha256 = model.weights,
                                 .tokenizer_sha256 = model.tokenizer,
                                 .train_sha256 = train,
                                 .held_out_sha256 = held_out};
        memcpy(cell->weights_sha256, model.weights, sizeof model.weights);
        identity_json(&cell->identity, spec, &inputs);
        if (spec->start_run[0]) {
            status = take_start(cell, sources, error);
            text_clear(&cell->identity);
            identity_json(&cell->identity, spec, &inputs);
        }
        identity_run_id(cell->run_id, &cell->identity);
        grid_label(config, spec, i, &cell->label);
        cell->last_step = -1;
    }
    return status;
}

void cell_release(Cell *cell)
{
    text_release(&cell->identity);
    text_release(&cell->label);
    free(cell->start);
    adapter_spec_release(&cell->adapter);
}

Status cells_open(Cell **cells_out, size_t *n_out, const Config *config, const char *models,
                  const char *db, Error *error)
{
    Sources sources = {.models = models, .db = db};
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
            status = prepare(cell, config, i, &sources, error);
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
            cell_release(cell);
        }
    }
    inputs_release(&sources.hashes);
    store_close(sources.store);
    if (status) {
        cells_close(cells, n);
        return status;
    }
    *cells_out = cells;
    *n_out = n;
    return STATUS_OK;
}

Status cell_of_spec(Cell *cell, const RunSpec *spec, const char *models, Store *store, Error *error)
{
    Sources sources = {.models = models, .store = store};
    Config *config = calloc(1, sizeof *config);
    if (!config) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    strcpy(config->path, "stored in results.db");
    *cell = (Cell){.spec = *spec};
    Status status = prepare(cell, config, 0, &sources, error);
    inputs_release(&sources.hashes);
    free(config);
    if (status) {
        cell_release(cell);
    }
    return status;
}

void cells_close(Cell *cells, size_t n)
{
    for (size_t i = 0; cells && i < n; i++) {
        cell_release(&cells[i]);
    }
    free(cells);
}
