/* Scores of adapters on held-out rows, into results.db: the base model's row first, then each
 * adapter beside it, on the same rows and the same draws. What is stored already is not computed
 * again: neither a score, nor the answers of an evaluation that was cut off, which are kept a piece
 * of rows at a time. */
#pragma once
#include "analysis/evaluate.h"
#include "experiments/workbench.h"

typedef struct {
    EvaluateSettings settings;
    Sampling sampling;
    Reward *reward;
    Text identity, task, base_run_id;
    const char *model; /* its name, for people */
} Scoring;

typedef struct {
    const char *run_id;
    int64_t step;
    int adapter; /* 1..n of the trainer's bank, already set */
} ScoringItem;

/* path: the rows, the first n_rows of them (0: all). The bench's model must be open; spec must
 * outlive the scoring. */
Status scoring_open(Scoring *scoring, Workbench *bench, const RunSpec *spec, const char *path,
                    int n_rows, Error *error);
void scoring_close(Scoring *scoring);

/* Are the run's scores at this step stored? *value, *standard_error: by the reward; NaN when not. */
Status scoring_find(const Scoring *scoring, Store *store, const char *run_id, int64_t step,
                    bool *found, double *value, double *standard_error, Error *error);
/* Score items: (n), and the base model unless it is stored. Errors: STATUS_STOPPED, with the answers
 * so far stored; STATUS_FAILED. */
Status scoring_run(const Scoring *scoring, const Trainer *trainer, Store *store,
                   const ScoringItem *items, size_t n, double now_s, Error *error);
