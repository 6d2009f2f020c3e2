/* Models and tasks are opened once and found again by path and settings. */
#include "experiments/workbench.h"

#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "experiments/model_lock.h"

void workbench_init(Workbench *bench, const World *world)
{
    memset(bench, 0, sizeof *bench);
    bench->world = world;
}

static void close_tasks(Workbench *bench)
{
    for (int i = 0; i < bench->n_tasks; i++) {
        task_close(bench->tasks[i].task);
        text_release(&bench->tasks[i].key);
    }
    bench->n_tasks = 0;
}

void workbench_forget(Workbench *bench)
{
    close_tasks(bench);
    engine_free(bench->engine);
    model_free(bench->model);
    bench->engine = NULL;
    bench->model = NULL;
    bench->directory[0] = 0;
}

void workbench_release(Workbench *bench)
{
    workbench_forget(bench);
}

/* What was parsed is what was pinned. */
static Status confirm(const ModelLock *lock, const Model *model, const char *directory,
                      Error *error)
{
    const ModelConfig *config = &model->config;
    if (!lock) {
        return STATUS_OK;
    }
    bool whole = directory_exists(directory); /* else one file holds all */
    Status status = whole
                        ? model_lock_confirm(lock, directory, "config.json", config->sha256, error)
                        : STATUS_OK;
    if (!status && whole && config->generation_sha256[0]) {
        status = model_lock_confirm(lock, directory, "generation_config.json",
                                    config->generation_sha256, error);
    }
    if (!status && whole && model->tokenizer) {
        status = model_lock_confirm(lock, directory, "tokenizer.json",
                                    model_tokenizer_sha256(model), error);
    }
    size_t n = safetensors_n_files(model->file);
    for (size_t i = 0; i < n && !status; i++) {
        const char *name;
        char sha256[SHA256_HEX_SIZE];
        safetensors_file(model->file, i, &name, n == 1 ? NULL : sha256);
        status = model_lock_confirm(lock, directory, name,
                                    n == 1 ? model_weights_sha256(model) : sha256, error);
    }
    return status;
}

Status workbench_model(Workbench *bench, const char *directory, Error *error)
{
    if (bench->model && strcmp(bench->directory, directory) == 0) {
        return STATUS_OK;
    }
    workbench_forget(bench);
    int n_threads = bench->world->n_threads;
    Status status = model_lock_check(bench->world->lock, directory, error);
    status = status ? status : model_open(&bench->model, directory, n_threads, error);
    if (!status) {
        status = confirm(bench->world->lock, bench->model, directory, error);
    }
    status = status ? status : engine_new(&bench->engine, bench->model, n_threads, 0, error);
    if (status) {
        workbench_forget(bench);
        return status;
    }
    snprintf(bench->directory, sizeof bench->directory, "%s", directory);
    return STATUS_OK;
}

/* How the template of the settings stands to the one that the model brings. */
static void tell_template(const World *world, const RunSpec *spec, const char *directory)
{
    ModelChat own;
    Text note = {0};
    if (chat_of_model(&own, directory, NULL) == STATUS_OK) {
        chat_warn(&note, &own, spec->data.template);
    }
    if (note.n) {
        world->note(world->context, text_string(&note));
    }
    text_release(&note);
}

Status workbench_expect(const Workbench *bench, const char *weights_sha256, Error *error)
{
    return strcmp(model_weights_sha256(bench->model), weights_sha256) == 0
               ? model_pack(bench->model, error)
               : error_set(error, STATUS_FAILED,
                           "model \"%s\": its weights changed while it was opened; try again",
                           bench->directory);
}

/* What is odd about rows, and allowed. */
static void tell_oddities(const World *world, const RunSpec *spec, const Task *task)
{
    int line = 0, earlier = 0, n_rows = task->dataset.n_rows;
    int twins = dataset_twins(&task->dataset, &line, &earlier);
    Text note = {0};
    if (twins) {
        text_printf(&note,
                    "dataset \"%s\": %d of %d rows are the same as earlier ones (line %d as line "
                    "%d); each counts",
                    task->dataset.path, twins, n_rows, line, earlier);
        world->note(world->context, text_string(&note));
    }
    int wordy = dataset_wordy(&task->dataset, &line);
    for (int i = 0; wordy && i < spec->n_rewards; i++) {
        const RewardSetting *reward = &spec->reward[i];
        if (strcmp(reward->name, "exact_match") == 0 && strcmp(reward->extractor, "boxed") != 0) {
            text_clear(&note);
            text_printf(&note,
                        "dataset \"%s\": the answers of %d of %d rows have no number (line %d), so "
                        "exact_match by %s is 0 for whatever is said",
                        task->dataset.path, wordy, n_rows, line, reward->extractor);
            world->note(world->context, text_string(&note));
        }
    }
    text_release(&note);
}

Status workbench_task(Workbench *bench, const Task **task, const RunSpec *spec, const char *path,
                      int max_rows, Error *error)
{
    Text key = {0};
    text_printf(&key, "%s\n%s\n%s\n%s\n%d", path, spec->data.question, spec->data.answer,
                spec->data.template, max_rows);
    for (int i = 0; i < bench->n_tasks; i++) {
        if (strcmp(text_string(&bench->tasks[i].key), text_string(&key)) == 0) {
            text_release(&key);
            *task = bench->tasks[i].task;
            return STATUS_OK;
        }
    }
    Task *opened = NULL;
    Status status = STATUS_OK;
    if (bench->n_tasks == WORKBENCH_TASKS) {
        status = error_set(error, STATUS_FAILED, "more than %d data files in one batch of cells",
                           WORKBENCH_TASKS);
    }
    status = status ? status
                    : task_open(&opened, bench->model, path, spec->data.question, spec->data.answer,
                                spec->data.template, max_rows, error);
    if (status) {
        text_release(&key);
        return status;
    }
    if (bench->n_tasks == 0) { /* once a model */
        tell_template(bench->world, spec, bench->directory);
    }
    tell_oddities(bench->world, spec, opened);
    bench->tasks[bench->n_tasks].task = opened;
    bench->tasks[bench->n_tasks++].key = key;
    *task = opened;
    return STATUS_OK;
}

Status reward_from_spec(Reward **reward, const RunSpec *spec, const World *world, Error *error)
{
    RewardTerm terms[MAX_REWARDS];
    const RewardHost host = {world->context, world->clock_s, world->stopping};
    for (int i = 0; i < spec->n_rewards; i++) {
        const RewardSetting *setting = &spec->reward[i];
        terms[i] = (RewardTerm){.name = setting->name,
                                .extractor = setting->extractor,
                                .pattern = setting->pattern,
                                .weight = setting->weight,
                                .length = setting->length,
                                .command = setting->command,
                                .limit_s = setting->timeout_s,
                                .host = &host};
    }
    Status status = reward_new(reward, terms, spec->n_rewards, error);
    return status ? error_context(error, status, "reward") : STATUS_OK;
}
