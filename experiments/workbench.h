/* What stays open from one batch of cells to the next: a model with its engine, and the data rows
 * made into tokens. */
#pragma once
#include "core/engine.h"
#include "experiments/settings.h"
#include "experiments/world.h"
#include "rl/reward.h"
#include "rl/task.h"

enum { WORKBENCH_TASKS = 8 };

typedef struct {
    const World *world;
    Model *model;
    Engine *engine;
    char directory[CONFIG_PATH];
    struct {
        Task *task;
        Text key;
    } tasks[WORKBENCH_TASKS];
    int n_tasks;
} Workbench;

void workbench_init(Workbench *bench, const World *world);
void workbench_release(Workbench *bench);
/* Open the model and its engine, unless they are; another model is closed first, with its tasks. */
Status workbench_model(Workbench *bench, const char *directory, Error *error);
/* The weights that are open are those that were hashed before, and finite: a run of them may begin.
 * Errors: STATUS_FAILED, STATUS_REFUSED. */
Status workbench_expect(const Workbench *bench, const char *weights_sha256, Error *error);
/* Close the model, because "full" training changed it. */
void workbench_forget(Workbench *bench);
/* Rows of a file under the settings' fields and template; max_rows 0: all. The workbench keeps the
 * task. */
Status workbench_task(Workbench *bench, const Task **task, const RunSpec *spec, const char *path,
                      int max_rows, Error *error);
/* The reward of the settings. Caller frees it. */
Status reward_from_spec(Reward **reward, const RunSpec *spec, const World *world, Error *error);
