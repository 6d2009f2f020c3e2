/* The run goes through the same fusion as the first time, into a store in memory; after each step
 * the two stores are compared. */
#include "experiments/replay.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "experiments/fusion.h"
#include "results/frame.h"

typedef struct {
    Replay *replay;
    Store *stored, *made;
    int64_t last;   /* step to end with */
    int64_t beyond; /* a step that is not stored, for the run was cancelled by others before it */
    bool finished;  /* ended there by itself */
} Work;

void replay_release(Replay *replay)
{
    text_release(&replay->elsewhere);
    comparison_release(&replay->comparison);
}

/* One key of an environment (World.environment) then and now; a key that one lacks is not known. */
static void compare_key(Text *elsewhere, const char *key, const Json *then, const Json *now)
{
    const Json *a = json_get(then, key), *b = json_get(now, key);
    const char *one = a && json_kind(a) == JSON_NUMBER ? json_number_text(a) : json_string(a, NULL);
    const char *other =
        b && json_kind(b) == JSON_NUMBER ? json_number_text(b) : json_string(b, NULL);
    if (one && other && strcmp(one, other) != 0) {
        Text line = {0};
        text_printf(&line, "%s: %.80s then, %.80s now", key, one, other);
        if (!elsewhere->n || !strstr(elsewhere->bytes, text_string(&line))) {
            text_printf(elsewhere, "%s%s", elsewhere->n ? "; " : "", text_string(&line));
        }
        text_release(&line);
    }
}

/* What computes the numbers: kernels, libraries, the version of the numerics. */
static Status compare_environments(Text *elsewhere, Store *store, const char *run_id,
                                   const char *environment, Error *error)
{
    static const char *const keys[] = {"numerics", "kernels", "openblas", "openblas_version",
                                       "libc"};
    Frame frame = {0};
    JsonDocument *now = NULL;
    Status status = frame_read(&frame, store,
                               "SELECT DISTINCT environment FROM attempt WHERE run_id = ?1 AND "
                               "to_step > from_step",
                               &run_id, 1, error);
    status = status ? status : json_parse(&now, environment, strlen(environment), error);
    for (size_t i = 0; i < frame.n_rows && !status; i++) {
        JsonDocument *then = NULL;
        const char *text = frame_text(&frame, "environment", i);
        if (text && json_parse(&then, text, strlen(text), NULL) == STATUS_OK) {
            for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
                compare_key(elsewhere, keys[k], json_root(then), json_root(now));
            }
        }
        json_free(then);
    }
    json_free(now);
    frame_release(&frame);
    return status;
}

/* Are the files still those of the run? The version of the numerics alone may be another one. */
static Status check_identity(const Cell *cell, Store *store, const char *run_id, Error *error)
{
    Frame frame = {0};
    Text lines = {0}, keys = {0};
    Status status =
        frame_read(&frame, store, "SELECT identity FROM run WHERE run_id = ?1", &run_id, 1, error);
    const char *identity = status || !frame.n_rows ? NULL : frame_text(&frame, "identity", 0);
    if (identity) {
        identity_diff(&lines, &keys, identity, text_string(&cell->identity), cell->directory,
                      cell->spec.data.train);
    }
    if (!status && strcmp(text_string(&keys), "numerics") != 0 &&
        (keys.n || !identity)) { /* one line is enough to know what to look for */
        status = error_set(error, STATUS_REFUSED, "run %s cannot be computed again here: %.*s",
                           run_id, (int)strcspn(text_string(&lines), "\n"), text_string(&lines));
    }
    frame_release(&frame);
    text_release(&lines);
    text_release(&keys);
    return status;
}

/* After each step; STATUS_STOPPED ends the replay where it is to end. */
static Status on_step(void *context, int64_t step, Error *error)
{
    Work *work = context;
    Replay *replay = work->replay;
    if (step == work->beyond) {
        work->finished = true;
        return STATUS_STOPPED;
    }
    Status status = store_compare_step(&replay->comparison, work->stored, work->made,
                                       replay->run_id, step, replay->tolerance, error);
    replay->last = step;
    if (!status && (replay->comparison.difference.n || step >= work->last)) {
        work->finished = true;
        status = STATUS_STOPPED;
    }
    return status;
}

static Status compute(Work *work, Cell *cell, const World *world, Error *error)
{
    Workbench bench;
    Fusion *fusion = NULL;
    Progress progress = {.n_cells = 1,
                         .steps_total = work->last == INT64_MAX ? cell->spec.steps : work->last,
                         .reward = NAN,
                         .measure = strcmp(cell->spec.method, "sft") == 0 ? "loss" : "reward"};
    double now_s = world->now_s(world->context);
    workbench_init(&bench, world);
    Status status = store_open_memory(&work->made, error);
    status =
        status ? status : store_experiment(work->made, cell->spec.experiment, "{}", now_s, error);
    status = status ? status : cell_store(cell, work->made, now_s, error);
    status = status ? status : fusion_open(&fusion, &bench, &cell, 1, &progress, error);
    if (!status) {
        fusion_watch(fusion, on_step, work);
        status = fusion_run(fusion, work->made, INT64_MAX, error);
        status = status == STATUS_STOPPED && work->finished ? STATUS_OK : status;
    }
    if (!status && !work->finished) { /* it came to its own end: done or failed */
        work->replay->ended = true;
        status = store_compare_end(&work->replay->comparison, work->stored, work->made,
                                   work->replay->run_id, work->replay->tolerance, error);
    }
    fusion_close(fusion);
    store_close(work->made);
    workbench_release(&bench);
    return status;
}

/* The run's own end is part of it where it has one and all steps are asked for. */
static int64_t last_step(const StoredRun *run, int64_t steps)
{
    bool ended = run->state == RUN_DONE || run->state == RUN_FAILED || run->state == RUN_CANCELLED;
    return steps >= 0 && steps < run->last_step ? steps : ended ? INT64_MAX : run->last_step;
}

static Status prepare(Cell *cell, Replay *replay, Store *store, const StoredRun *run,
                      const World *world, const ReplayOptions *options, Error *error)
{
    RunSpec spec;
    Status status = STATUS_OK;
    if (strcmp(run->method, "grpo") != 0 && strcmp(run->method, "sft") != 0) {
        return error_set(error, STATUS_USAGE, "run %s is of method \"%s\": nothing was trained",
                         run->run_id, run->method);
    }
    if (run->last_step < 0) {
        return error_set(error, STATUS_USAGE, "run %s has no steps yet", run->run_id);
    }
    status = spec_from_json(&spec, run->config, error);
    spec.checkpoint.every = 1; /* each is compared when it is made, none is wanted later */
    spec.checkpoint.keep = 1;
    status = status ? status : cell_of_spec(cell, &spec, world->models, store, error);
    if (status) {
        return error_context(error, status, "run %s", run->run_id);
    }
    status = check_identity(cell, store, run->run_id, error);
    status = status ? status
                    : compare_environments(&replay->elsewhere, store, run->run_id,
                                           world->environment, error);
    memcpy(cell->run_id, replay->run_id, sizeof cell->run_id); /* also of other numerics */
    replay->tolerance = options->tolerance >= 0 ? options->tolerance
                        : replay->elsewhere.n   ? REPLAY_TOLERANCE
                                                : 0;
    if (status) {
        cell_release(cell);
    }
    return status;
}

Status replay_run(Replay *replay, Store *store, const char *id, const World *world,
                  const ReplayOptions *options, Error *error)
{
    StoredRun run = {0};
    Cell cell;
    memset(replay, 0, sizeof *replay);
    Status status = store_find_run(store, id, &run, error);
    if (status) {
        return status;
    }
    snprintf(replay->run_id, sizeof replay->run_id, "%s", run.run_id);
    status = prepare(&cell, replay, store, &run, world, options, error);
    if (!status) {
        Work work = {.replay = replay,
                     .stored = store,
                     .last = last_step(&run, options->steps),
                     .beyond = run.state == RUN_CANCELLED ? run.last_step + 1 : INT64_MAX};
        status = compute(&work, &cell, world, error);
        cell_release(&cell);
    }
    free(run.block);
    return status;
}
