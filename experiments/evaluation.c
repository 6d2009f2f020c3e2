/* One adapter at a time: its session, its scoring, its rows. */
#include "experiments/evaluation.h"

#include <math.h>
#include <string.h>

#include "experiments/cell.h"
#include "experiments/known_task.h"

typedef struct {
    const World *world;
    Progress progress;
} Watch;

static int on_progress(void *context, const char *phase, int done, int total, long tokens)
{
    Watch *watch = context;
    watch->progress.phase = phase;
    watch->progress.phase_done = done;
    watch->progress.phase_total = total;
    watch->progress.tokens = tokens;
    watch->world->progress(watch->world->context, &watch->progress);
    return watch->world->stopping(watch->world->context);
}

static const char *choose_data(const RunSpec *spec, const EvaluationOptions *options)
{
    return options->data && !options->task ? options->data
           : spec->data.eval[0]            ? spec->data.eval
           : spec->data.dev[0]             ? spec->data.dev
                                           : spec->data.train;
}

/* The base model alone still wants a bank: the one that adds nothing. */
static Status open_bank(Session *session, Error *error)
{
    const AdapterSpec none = {.method = "none", .scale = 1};
    return session->bank
               ? STATUS_OK
               : adapter_bank_new(&session->bank, session->bench.model, &none, 1,
                                  session->bench.world->n_threads, NULL, NULL, NULL, error);
}

Status evaluation_run(Text *task, Text *base_run_id, Store *store, const World *world,
                      const char *directory, const RunSpec *spec, const RunAdapter *adapter,
                      const EvaluationOptions *options, Error *error)
{
    Session session;
    Scoring scoring = {0};
    RunSpec changed = *spec;
    bool found = false;
    double value, standard_error;
    changed.eval.samples = options->samples ? options->samples : spec->eval.samples;
    changed.eval.pass_k = options->pass_k ? options->pass_k : spec->eval.pass_k;
    changed.eval.greedy |= options->greedy;
    changed.eval.max_new_tokens = options->max_new            ? options->max_new
                                  : spec->eval.max_new_tokens ? spec->eval.max_new_tokens
                                                              : spec->grpo.max_new_tokens;
    if (options->task) {
        const char *place = options->data ? options->data : options->folder;
        Status status = known_task_use(&changed, options->task, place ? place : "", error);
        if (status) {
            return status;
        }
    }
    if (!choose_data(&changed, options)[0]) {
        return error_set(error, STATUS_USAGE,
                         "--data: rows are wanted, for an imported adapter has none of its own");
    }
    Status status = session_open(&session, world, directory, adapter, error);
    if (status) {
        return status;
    }
    status = open_bank(&session, error);
    status = status ? status
                    : scoring_open(&scoring, &session.bench, &changed,
                                   choose_data(&changed, options), options->n_rows, error);
    Watch watch = {world, {.n_cells = 1, .measure = "reward", .reward = NAN}};
    Trainer trainer = {session.bench.engine, session.bank, on_progress, &watch};
    ScoringItem item = {adapter ? adapter->run_id : "", adapter ? adapter->step : 0, 1};
    if (!status && adapter) {
        status = scoring_find(&scoring, store, item.run_id, item.step, &found, &value,
                              &standard_error, error);
    } else if (!status) {
        status = scoring_find(&scoring, store, text_string(&scoring.base_run_id), 0, &found, &value,
                              &standard_error, error);
    }
    if (!status && !found) {
        status = scoring_run(&scoring, &trainer, store, &item, adapter ? 1 : 0,
                             world->now_s(world->context), error);
    }
    text_add(task, text_string(&scoring.task));
    text_add(base_run_id, text_string(&scoring.base_run_id));
    scoring_close(&scoring);
    session_close(&session);
    return status;
}
