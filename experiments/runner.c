/* Puts cells into batches, opens the store when the first batch has been accepted, and keeps count.
 */
#include "experiments/runner.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "experiments/early_stop.h"
#include "experiments/fusion.h"

static Status states_from(Store *store, Cell *cells, size_t n, Error *error)
{
    for (size_t i = 0; i < n; i++) {
        StoredRun run = {0};
        Error missing = {0};
        Status status = store_find_run(store, cells[i].run_id, &run, &missing);
        if (status == STATUS_OK) {
            cells[i].state = run.state;
            cells[i].last_step = run.last_step;
            free(run.block);
        } else if (status != STATUS_USAGE) {
            return error_set(error, status, "%s", missing.message);
        }
    }
    return STATUS_OK;
}

Status runner_states(Cell *cells, size_t n, const char *db, Error *error)
{
    Store *store;
    if (!file_exists(db)) {
        return STATUS_OK;
    }
    Status status = store_open(&store, db, STORE_READ, 0, error);
    if (!status) {
        status = states_from(store, cells, n, error);
        store_close(store);
    }
    return status;
}

/* A run is done with its last state: where that is damaged, the run goes on from the one before. */
static Status reopen_damaged(Store *store, Cell *cells, size_t n, Error *error)
{
    Status status = STATUS_OK;
    for (size_t i = 0; i < n && !status; i++) {
        bool reopened = false;
        if (cells[i].state == RUN_DONE) {
            status = store_reopen_damaged(store, cells[i].run_id, &reopened, error);
            cells[i].state = reopened ? RUN_WAITING : RUN_DONE;
        }
    }
    return status;
}

typedef struct {
    const Config *config;
    const World *world;
    const RunnerOptions *options;
    Store *store; /* NULL until the first batch has been accepted */
    Cell *cells;
    size_t n;
    Progress progress;
} Runner;

/* Its neighbours cancelled it, and they are not asked any more; its own rules are part of what it
 * is. */
static bool is_pardoned(const Cell *cell)
{
    return cell->state == RUN_CANCELLED && strcmp(cell->spec.stop.rule, "none") == 0 &&
           cell->spec.stop.reward_below <= STOP_NEVER && cell->spec.stop.entropy_below <= 0;
}

static bool wants_to_run(const Runner *runner, const Cell *cell)
{
    return cell->state == RUN_WAITING || cell->state == RUN_RUNNING || is_pardoned(cell) ||
           (cell->state == RUN_FAILED && runner->options->retry_failed);
}

/* Open the store, unless it is, and put the experiment and all its runs into it. */
static Status begin_store(Runner *runner, Error *error)
{
    Status status = STATUS_OK;
    if (!runner->store) {
        status = store_open(&runner->store, runner->options->db, STORE_WRITE,
                            runner->options->wait_ms, error);
    }
    Text frozen = {0};
    config_show(&runner->config->base, runner->config, &frozen);
    for (size_t i = 0; i < runner->n && !status; i++) {
        Cell *cell = &runner->cells[i];
        bool first = true; /* of its experiment: "experiment" may be an axis too */
        for (size_t j = 0; j < i; j++) {
            first &= strcmp(runner->cells[j].spec.experiment, cell->spec.experiment) != 0;
        }
        if (first) {
            status = store_experiment(runner->store, cell->spec.experiment, text_string(&frozen),
                                      runner->world->now_s(runner->world->context), error);
        }
        status = status ? status
                        : cell_store(cell, runner->store,
                                     runner->world->now_s(runner->world->context), error);
    }
    text_release(&frozen);
    return status;
}

/* What the next round shows: cells that it begins again add their steps themselves. */
static void count_steps(Runner *runner)
{
    Progress *progress = &runner->progress;
    progress->steps_done = progress->steps_total = 0;
    for (size_t i = 0; i < runner->n; i++) {
        const Cell *cell = &runner->cells[i];
        bool goes_on = wants_to_run(runner, cell);
        progress->steps_done += goes_on || cell->last_step < 0 ? 0 : cell->last_step;
        progress->steps_total += goes_on ? cell->spec.steps : 0;
    }
    progress->steps_total += progress->steps_done;
}

/* A batch that cannot be opened after others have run: its cells fail, the sweep goes on. */
static Status fail_cells(Runner *runner, Cell **batch, size_t n, const char *reason, Error *error)
{
    Status status = STATUS_OK;
    for (size_t i = 0; i < n && !status; i++) {
        status = store_run_end(runner->store, batch[i]->run_id, RUN_FAILED, reason, NAN, NAN,
                               runner->world->now_s(runner->world->context), error);
        batch[i]->state = RUN_FAILED;
        runner->progress.n_failed++;
        runner->progress.steps_total -= batch[i]->spec.steps;
    }
    runner->world->note(runner->world->context, reason);
    return status;
}

static Status run_batch(Runner *runner, Workbench *bench, Cell **batch, size_t n, bool first,
                        int64_t until, Error *error)
{
    Fusion *fusion;
    Error why = {0};
    runner->progress.measure = strcmp(batch[0]->spec.method, "sft") == 0 ? "loss" : "reward";
    runner->progress.reward = NAN;
    Status status = fusion_open(&fusion, bench, batch, n, &runner->progress, &why);
    if (status && !first && status != STATUS_STOPPED) {
        return fail_cells(runner, batch, n, why.message, error);
    }
    if (status) {
        return error_set(error, status, "%s", why.message);
    }
    if (first) {
        status = begin_store(runner, error);
    }
    status = status ? status : fusion_run(fusion, runner->store, until, error);
    fusion_close(fusion);
    return status;
}

/* Every cell that has steps to do before `until`, batch by batch. */
static Status run_round(Runner *runner, Workbench *bench, bool *first, int64_t until, Error *error)
{
    Cell **batch = malloc((runner->n + 1) * sizeof *batch);
    bool *taken = calloc(runner->n + 1, sizeof *taken);
    Status status = batch && taken ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    for (size_t i = 0; i < runner->n && taken; i++) {
        Cell *cell = &runner->cells[i];
        taken[i] = !wants_to_run(runner, cell) || cell->last_step >= until;
    }
    for (size_t i = 0; i < runner->n && !status; i++) {
        size_t n = 0;
        if (taken[i]) {
            continue;
        }
        size_t limit = fusion_limit(&runner->cells[i]);
        for (size_t j = i; j < runner->n && n < limit; j++) {
            Cell *cell = &runner->cells[j];
            if (!taken[j] && fusion_fits(&runner->cells[i], cell)) {
                taken[j] = true;
                batch[n++] = cell;
            }
        }
        assert(n > 0); /* cell i fits itself */
        status = run_batch(runner, bench, batch, n, *first, until, error);
        *first = false;
    }
    free(taken);
    free(batch);
    return status;
}

/* The rule of the sweep at a step: those that it ends, unless they have their ends. */
static Status decide(Runner *runner, int64_t step, Error *error)
{
    const World *world = runner->world;
    Text *reasons = calloc(runner->n + 1, sizeof *reasons);
    if (!reasons) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    Status status =
        early_stop_decide(reasons, runner->store, runner->cells, runner->n, step, error);
    for (size_t i = 0; i < runner->n; i++) {
        Cell *cell = &runner->cells[i];
        if (!status && reasons[i].n && wants_to_run(runner, cell)) {
            status = store_run_end(runner->store, cell->run_id, RUN_CANCELLED, reasons[i].bytes,
                                   NAN, NAN, world->now_s(world->context), error);
            cell->state = RUN_CANCELLED;
            Text line = {0};
            text_printf(&line, "run %s %s: cancelled: %s", cell->run_id, text_string(&cell->label),
                        reasons[i].bytes);
            world->note(world->context, text_string(&line));
            text_release(&line);
        }
        text_release(&reasons[i]);
    }
    free(reasons);
    return status;
}

static Status run_all(Runner *runner, Error *error)
{
    Workbench bench;
    bool first = true;
    Status status = STATUS_OK;
    workbench_init(&bench, runner->world);
    for (int64_t step = 0; !status && step < INT64_MAX;) {
        step = early_stop_next(runner->cells, runner->n, step);
        status = run_round(runner, &bench, &first, step, error);
        if (!status && step < INT64_MAX && runner->store) {
            status = decide(runner, step, error);
            count_steps(runner);
        }
    }
    if (!status && first && runner->store) {
        status = begin_store(runner, error); /* another experiment may ask for runs that exist */
    }
    workbench_release(&bench);
    return status;
}

static void count(RunnerResult *result, const Cell *cells, size_t n, size_t n_done_before)
{
    *result = (RunnerResult){.n = n};
    for (size_t i = 0; i < n; i++) {
        result->n_done += cells[i].state == RUN_DONE;
        result->n_failed += cells[i].state == RUN_FAILED;
        result->n_cancelled += cells[i].state == RUN_CANCELLED;
    }
    result->n_new = result->n_done - n_done_before;
}

Status runner_run(RunnerResult *result, const Config *config, Cell *cells, size_t n,
                  const World *world, const RunnerOptions *options, Error *error)
{
    Runner runner = {.config = config, .world = world, .options = options, .cells = cells, .n = n};
    Status status = STATUS_OK;
    size_t n_done_before = 0;
    if (file_exists(options->db)) {
        status = store_open(&runner.store, options->db, STORE_WRITE, options->wait_ms, error);
        status = status ? status : states_from(runner.store, cells, n, error);
        status = status ? status : reopen_damaged(runner.store, cells, n, error);
    }
    runner.progress.n_cells = (int)n;
    for (size_t i = 0; i < n; i++) {
        n_done_before += cells[i].state == RUN_DONE;
        runner.progress.n_done += cells[i].state == RUN_DONE;
        if (wants_to_run(&runner, &cells[i])) {
            runner.progress.steps_total += cells[i].spec.steps;
        } else {
            runner.progress.n_failed += cells[i].state == RUN_FAILED;
        }
    }
    status = status ? status : run_all(&runner, error);
    store_close(runner.store);
    count(result, cells, n, n_done_before);
    if (!status && result->n_failed) {
        status = error_set(error, STATUS_FAILED, "%zu of %zu runs failed%s", result->n_failed, n,
                           options->retry_failed ? "" : "; --retry-failed tries them again");
    }
    return status;
}
