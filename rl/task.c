/* A task's rows as tokens, made once at the start; the order of rows as a function of (seed,
 * epoch). */
#include "rl/task.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/random.h"

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        abort(); /* as Text: a few words a row of a file already in memory */
    }
    return memory;
}

static Status encode_rows(Task *task, const PromptTemplate *prompt_template, Error *error)
{
    for (int i = 0; i < task->n_rows; i++) {
        const DataRow *row = &task->dataset.rows[i];
        Status status = prompt_encode(&task->prompts[i], prompt_template, row->question,
                                      row->n_question, error);
        if (!status) {
            status = prompt_encode_answer(&task->answers[i], &task->n_answer[i], prompt_template,
                                          row->question, row->n_question, row->answer,
                                          row->n_answer, error);
        }
        if (status) {
            return error_context(error, status, "dataset \"%s\": line %d", task->dataset.path,
                                 row->line);
        }
    }
    return STATUS_OK;
}

/* An answer also ends where the chat template ends it, in whatever the model's config says. */
static void add_turn_end(Task *task, int32_t id)
{
    bool there = id < 0;
    for (int i = 0; i < task->n_stop; i++) {
        there = there || task->stop_ids[i] == id;
    }
    if (!there && task->n_stop < TASK_MAX_STOP) {
        task->stop_ids[task->n_stop++] = id;
    }
}

Status task_open(Task **task, const Model *model, const char *path, const char *question,
                 const char *answer, const char *prompt_template, int max_rows, Error *error)
{
    PromptTemplate *compiled;
    Status status = prompt_template_new(&compiled, model, prompt_template, error);
    if (status) {
        return status;
    }
    Task *made = allocate(1, sizeof *made);
    made->model = model;
    status = dataset_open(&made->dataset, path, question, answer, error);
    if (!status) {
        int n = made->dataset.n_rows;
        made->n_rows = max_rows > 0 && max_rows < n ? max_rows : n;
        made->prompts = allocate((size_t)made->n_rows, sizeof *made->prompts);
        made->answers = allocate((size_t)made->n_rows, sizeof *made->answers);
        made->n_answer = allocate((size_t)made->n_rows, sizeof *made->n_answer);
        for (int i = 0; i < model->config.n_eos && i < TASK_MAX_STOP; i++) {
            made->stop_ids[made->n_stop++] = model->config.eos_ids[i];
        }
        add_turn_end(made, prompt_template_turn_end(compiled));
        status = encode_rows(made, compiled, error);
    }
    prompt_template_free(compiled);
    if (status) {
        task_close(made);
    } else {
        *task = made;
    }
    return status;
}

void task_close(Task *task)
{
    if (!task) {
        return;
    }
    for (int i = 0; i < task->n_rows; i++) {
        prompt_release(&task->prompts[i]);
        free(task->answers[i]);
    }
    free(task->prompts);
    free(task->answers);
    free(task->n_answer);
    dataset_close(&task->dataset);
    free(task);
}

void task_order(int *rows, int n, const Task *task, uint64_t seed, int64_t first)
{
    int *permutation = allocate((size_t)task->n_rows, sizeof *permutation);
    int64_t epoch = -1;
    for (int i = 0; i < n; i++) {
        int64_t index = first + i;
        if (index / task->n_rows != epoch) {
            epoch = index / task->n_rows;
            random_permutation(permutation, task->n_rows, (RandomKey){seed, RANDOM_SHUFFLE},
                               (uint32_t)epoch);
        }
        rows[i] = permutation[index % task->n_rows];
    }
    free(permutation);
}
