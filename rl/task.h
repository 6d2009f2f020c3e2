/* What is trained or evaluated on: rows, their prompts and answers as tokens, the order in which
 * they come. */
#pragma once
#include <stdint.h>

#include "rl/dataset.h"
#include "rl/prompt.h"

#define TASK_MAX_STOP 8

typedef struct {
    Dataset dataset;
    Prompt *prompts;   /* (n_rows) */
    int32_t **answers; /* (n_rows) SFT targets: answer and end of sequence */
    int *n_answer;     /* (n_rows) */
    int n_rows;        /* the first n_rows of the dataset */
    const Model *model;
    int32_t stop_ids[TASK_MAX_STOP];
    int n_stop;
} Task;

/* Fields and template as in config's data section; max_rows: use the first so many rows, 0: all.
 * Errors: STATUS_USAGE (template, no tokenizer), STATUS_REFUSED (file; a prompt or a prompt with
 * its answer that does not fit the model's context is refused by learner_new, naming its line). */
Status task_open(Task **task, const Model *model, const char *path, const char *question,
                 const char *answer, const char *prompt_template, int max_rows, Error *error);
void task_close(Task *task);

/* Rows first, first + 1, ... of the endless order in which epochs follow each other, each a
 * permutation keyed by (seed, epoch). rows: (n). */
void task_order(int *rows, int n, const Task *task, uint64_t seed, int64_t first);
