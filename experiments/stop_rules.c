/* Each rule: a metric that was below a bound for some steps in a row. */
#include "experiments/stop_rules.h"

#include <stdlib.h>
#include <string.h>

static Status ask(Text *reason, Store *store, const char *run_id, const char *key, double bound,
                  int patience, int64_t step, Error *error)
{
    double *values = malloc((size_t)patience * sizeof *values);
    if (!values) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    Status status =
        store_metric_values(store, run_id, key, step - patience + 1, patience, values, error);
    bool below = !status;
    for (int i = 0; i < patience && below; i++) {
        below = values[i] < bound; /* not of NaN: no such step */
    }
    if (below) {
        text_printf(reason, "step %lld: the %s was below %g for %d step%s (stop.%s_below)",
                    (long long)step, key, bound, patience, patience > 1 ? "s" : "", key);
    }
    free(values);
    return status;
}

Status stop_rules_ask(Text *reason, Store *store, const RunSpec *spec, const char *run_id,
                      int64_t step, Error *error)
{
    Status status = STATUS_OK;
    if (spec->stop.reward_below > STOP_NEVER && strcmp(spec->method, "grpo") == 0) {
        status = ask(reason, store, run_id, "reward", spec->stop.reward_below, spec->stop.patience,
                     step, error);
    }
    if (!status && spec->stop.entropy_below > 0 && !reason->n) {
        status = ask(reason, store, run_id, "entropy", spec->stop.entropy_below,
                     spec->stop.patience, step, error);
    }
    return status;
}
