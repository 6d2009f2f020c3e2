/* `eval`: a stored run and its base model scored on the same rows, once training is over. */
#pragma once
#include "experiments/scoring.h"
#include "experiments/session.h"

typedef struct {
    const char *task; /* a known one (known_task.h), whatever the run's own is; NULL: the run's */
    const char *data; /* rows; NULL: the run's data.eval, else its data.dev, else its data.train. Of
                       * a task: its folder or file; NULL: the folder below */
    const char *folder; /* of tasks; NULL: none */
    int n_rows;         /* the first so many; 0: all */
    int samples;        /* 0: the run's eval.samples */
    int pass_k;         /* 0: the run's eval.pass_k */
    int max_new;        /* 0: the run's eval.max_new_tokens */
    bool greedy;        /* instead of the run's eval.greedy */
} EvaluationOptions;

/* Score an adapter (NULL: the base model alone) under a run's settings and store it, unless it is
 * stored. task, base_run_id: out, appended: the keys of the evaluation table. Errors: as
 * session_open and scoring_run. */
Status evaluation_run(Text *task, Text *base_run_id, Store *store, const World *world,
                      const char *directory, const RunSpec *spec, const RunAdapter *adapter,
                      const EvaluationOptions *options, Error *error);
