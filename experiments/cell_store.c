/* A cell as a run of results.db: its resolved settings, config and identity. */
#include <stdlib.h>

#include "experiments/cell.h"

/* The resolved settings as the rows of `param`. values: owns the JSON. */
static size_t make_params(Param *params, Text *values, const RunSpec *spec)
{
    size_t n = 0;
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        if (setting_applies(spec, setting)) {
            setting_value_json(spec, setting, 0, &values[n]);
            params[n] = (Param){setting->path, text_string(&values[n])};
            n++;
        }
    }
    return n;
}

Status cell_store(Cell *cell, Store *store, double now_s, Error *error)
{
    const RunSpec *spec = &cell->spec;
    Text config = {0};
    Param *params = calloc(settings_count(), sizeof *params);
    Text *values = calloc(settings_count(), sizeof *values);
    if (!params || !values) {
        free(params);
        free(values);
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    size_t n_params = make_params(params, values, spec);
    config_show(spec, NULL, &config);
    RunInfo info = {.run_id = cell->run_id,
                    .experiment = spec->experiment,
                    .identity = text_string(&cell->identity),
                    .config = text_string(&config),
                    .model = spec->model,
                    .method = spec->method,
                    .adapter = spec->adapter.method,
                    .budget = cell->budget,
                    .lr = spec->optimizer.lr,
                    .seed = spec->seed,
                    .steps = spec->steps,
                    .params = params,
                    .n_params = n_params};
    Status status = store_run(store, &info, now_s, &cell->state, &cell->last_step, error);
    for (size_t i = 0; i < n_params; i++) {
        text_release(&values[i]);
    }
    free(values);
    free(params);
    text_release(&config);
    return status;
}
