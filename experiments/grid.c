/* Cells by number: grid after grid, in each mixed radix over the axes. */
#include "experiments/grid.h"

#include <string.h>

/* 1 without axes; false above MAX_CELLS. */
static bool grid_size(size_t *n, const Grid *grid)
{
    *n = 1;
    for (int i = 0; i < grid->n_axes; i++) {
        if (grid->axes[i].with_previous) {
            continue;
        }
        if (__builtin_mul_overflow(*n, json_size(grid->axes[i].values), n) || *n > MAX_CELLS) {
            return false;
        }
    }
    return true;
}

Status grid_count(size_t *n, const Config *config, Error *error)
{
    size_t count = 0, size = 0;
    for (int i = 0; i < config->n_grids; i++) {
        if (!grid_size(&size, &config->grids[i]) || (count += size) > MAX_CELLS) {
            return error_set(error, STATUS_USAGE, "config \"%s\": sweep: more than %d cells",
                             config->path, MAX_CELLS);
        }
    }
    *n = config->n_grids ? count : 1;
    return STATUS_OK;
}

/* The grid that cell *i is in, NULL without a sweep; *i becomes its number there. */
static const Grid *grid_of(const Config *config, size_t *i)
{
    size_t size = 0;
    for (int g = 0; g < config->n_grids; g++) {
        if (grid_size(&size, &config->grids[g]) && *i < size) {
            return &config->grids[g];
        }
        *i -= size;
    }
    return NULL;
}

/* The value of an axis in a cell: the last axis runs fastest. */
static const Json *value_at(const Grid *grid, int axis, size_t i)
{
    for (int later = grid->n_axes - 1; later > axis; later--) { /* of a zip the first one counts */
        i /= grid->axes[later].with_previous ? 1 : json_size(grid->axes[later].values);
    }
    return json_at(grid->axes[axis].values, i % json_size(grid->axes[axis].values));
}

Status grid_cell(RunSpec *spec, const Config *config, size_t i, Error *error)
{
    size_t place = i;
    const Grid *grid = grid_of(config, &place);
    *spec = config->base;
    for (int axis = 0; grid && axis < grid->n_axes; axis++) {
        Status status =
            config_apply(config, spec, grid->axes[axis].path, value_at(grid, axis, place), error);
        if (status) {
            return error_context(error, status, "sweep");
        }
    }
    Status status = config_settle(config, spec, error);
    return status && config_is_sweep(config) ? error_context(error, status, "cell %zu", i) : status;
}

static void add_label(const RunSpec *spec, const char *path, Text *out)
{
    int reward;
    const Setting *setting = setting_find(path, &reward);
    text_printf(out, "%s%s=", out->n ? " " : "", path);
    if (setting->kind == SETTING_NUMBER) {
        double number;
        memcpy(&number, setting_field((RunSpec *)(uintptr_t)spec, setting, reward), sizeof number);
        text_printf(out, "%g", number);
    } else {
        setting_value_json(spec, setting, reward, out);
    }
}

void grid_label(const Config *config, const RunSpec *spec, size_t i, Text *out)
{
    const Grid *grid = grid_of(config, &i);
    for (int axis = 0; grid && axis < grid->n_axes; axis++) {
        const char *path = grid->axes[axis].path;
        const Json *value = value_at(grid, axis, i);
        int reward;
        if (setting_find(path, &reward)) {
            add_label(spec, path, out);
            continue;
        }
        text_printf(out, "%s%s=", out->n ? " " : "", path);
        json_write(value, out);
    }
}
