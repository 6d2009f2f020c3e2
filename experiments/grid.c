/* Cells by number: mixed radix over the axes. */
#include "experiments/grid.h"

#include <string.h>

Status grid_count(size_t *n, const Config *config, Error *error)
{
    size_t count = 1;
    for (int i = 0; i < config->n_axes; i++) {
        if (__builtin_mul_overflow(count, json_size(config->axes[i].values), &count) ||
            count > MAX_CELLS) {
            return error_set(error, STATUS_USAGE, "config \"%s\": sweep: more than %d cells",
                             config->path, MAX_CELLS);
        }
    }
    *n = count;
    return STATUS_OK;
}

Status grid_cell(RunSpec *spec, const Config *config, size_t i, Error *error)
{
    size_t rest = i;
    *spec = config->base;
    for (int axis = config->n_axes - 1; axis >= 0; axis--) {
        const Json *values = config->axes[axis].values;
        Status status = config_apply(config, spec, config->axes[axis].path,
                                     json_at(values, rest % json_size(values)), error);
        if (status) {
            return error_context(error, status, "sweep");
        }
        rest /= json_size(values);
    }
    Status status = config_settle(config, spec, error);
    return status && config->n_axes ? error_context(error, status, "cell %zu", i) : status;
}

void grid_label(const Config *config, const RunSpec *spec, Text *out)
{
    for (int axis = 0; axis < config->n_axes; axis++) {
        int reward;
        const Setting *setting = setting_find(config->axes[axis].path, &reward);
        text_printf(out, "%s%s=", axis ? " " : "", config->axes[axis].path);
        if (setting->kind == SETTING_NUMBER) {
            double number;
            memcpy(&number, setting_field((RunSpec *)(uintptr_t)spec, setting, reward),
                   sizeof number);
            text_printf(out, "%g", number);
        } else {
            setting_value_json(spec, setting, reward, out);
        }
    }
}
