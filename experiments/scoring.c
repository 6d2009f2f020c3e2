/* analysis/evaluate computes and compares; here is what a run's settings make of it, and what is
 * skipped. */
#include "experiments/scoring.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The reward's settings: a base row under another reward is another row. */
static void reward_identity(const RunSpec *spec, Text *out)
{
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        for (int j = 0; strncmp(setting->path, "reward.", 7) == 0 && j < spec->n_rewards; j++) {
            text_printf(out, "%s.%d=", setting->path, j);
            setting_value_json(spec, setting, j, out);
            text_add(out, ";");
        }
    }
}

Status scoring_open(Scoring *scoring, Workbench *bench, const RunSpec *spec, const char *path,
                    int n_rows, Error *error)
{
    const Task *task;
    memset(scoring, 0, sizeof *scoring);
    Status status = workbench_task(bench, &task, spec, path, n_rows, error);
    status = status ? status : reward_from_spec(&scoring->reward, spec, error);
    if (status) {
        return status;
    }
    reward_identity(spec, &scoring->identity);
    scoring->model = spec->model;
    scoring->sampling = (Sampling){.greedy = spec->eval.greedy,
                                   .temperature = spec->eval.temperature,
                                   .top_p = 1,
                                   .max_new_tokens = spec->eval.max_new_tokens};
    scoring->settings = (EvaluateSettings){.task = task,
                                           .sampling = &scoring->sampling,
                                           .samples = spec->eval.greedy ? 1 : spec->eval.samples,
                                           .seed = (uint64_t)spec->eval.seed,
                                           .reward = scoring->reward,
                                           .answers_nll = strcmp(spec->method, "sft") == 0,
                                           .identity = text_string(&scoring->identity)};
    evaluate_describe(&scoring->task, &scoring->settings);
    evaluate_base_run_id(&scoring->base_run_id, &scoring->settings);
    return STATUS_OK;
}

void scoring_close(Scoring *scoring)
{
    reward_free(scoring->reward);
    text_release(&scoring->identity);
    text_release(&scoring->task);
    text_release(&scoring->base_run_id);
    memset(scoring, 0, sizeof *scoring);
}

Status scoring_find(const Scoring *scoring, Store *store, const char *run_id, int64_t step,
                    bool *found, double *value, double *standard_error, Error *error)
{
    Evaluation numbers;
    const char *task = text_string(&scoring->task);
    *value = *standard_error = NAN;
    Status status =
        store_has_evaluation(store, run_id, step, task, "reward", found, &numbers, error);
    if (!status && *found && scoring->settings.answers_nll) { /* a base scored for GRPO has none */
        Evaluation nll;
        status = store_has_evaluation(store, run_id, step, task, "nll", found, &nll, error);
    }
    if (!status && *found) {
        *value = numbers.value;
        *standard_error = numbers.standard_error;
    }
    return status;
}

Status scoring_run(const Scoring *scoring, const Trainer *trainer, Store *store,
                   const ScoringItem *items, size_t n, double now_s, Error *error)
{
    const char *base = text_string(&scoring->base_run_id);
    bool has_base = false;
    double value, standard_error;
    int *adapters = malloc((n + 1) * sizeof *adapters);
    Evaluated *evaluated = calloc(n + 1, sizeof *evaluated);
    Status status =
        adapters && evaluated ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    status = status
                 ? status
                 : scoring_find(scoring, store, base, 0, &has_base, &value, &standard_error, error);
    size_t n_base = has_base ? 0 : 1;
    if (!status) {
        adapters[0] = 0;
        for (size_t i = 0; i < n; i++) {
            adapters[n_base + i] = items[i].adapter;
        }
        status =
            evaluate(evaluated, trainer, &scoring->settings, adapters, (int)(n_base + n), error);
    }
    if (!status && n_base) {
        status = evaluate_store(store, base, 0, &scoring->settings, &evaluated[0], NULL,
                                scoring->model, now_s, error);
    }
    for (size_t i = 0; i < n && !status; i++) {
        status = evaluate_store(store, items[i].run_id, items[i].step, &scoring->settings,
                                &evaluated[n_base + i], base, NULL, now_s, error);
    }
    for (size_t i = 0; evaluated && i < n_base + n; i++) {
        evaluated_release(&evaluated[i]);
    }
    free(evaluated);
    free(adapters);
    return status;
}
