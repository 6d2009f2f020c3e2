/* Rows of one run in two stores that should be the same: what `replay` holds beside what is stored.
 */
#pragma once
#include "results/store.h"

typedef struct {
    const char *words[2]; /* of the two sides; NULL: "stored", "replayed" */
    int64_t n_metrics, n_completions, n_checkpoints, n_evaluations, n_samples; /* rows compared */
    int64_t n_new;    /* rows of a metric, a task or an extractor that the stored run has nowhere */
    int64_t n_passed; /* scores of the stored run that were not made again: `eval` has made them */
    Text difference;  /* the first one, with its step; empty: none */
} Comparison;
void comparison_release(Comparison *comparison);

/* Everything of a step: metrics but step_time; completions (ids, log-probabilities, reward,
 * advantage, text, how they ended); the checkpoint, where it is stored; evaluations with their
 * answers and verdicts, those of the base model among them. tolerance 0: every bit. Else numbers
 * may differ by tolerance * max(1, |a|, |b|), and checkpoints are not compared. Stops at the first
 * difference. Evaluations that were not made again (by `eval`) are passed over and counted. Errors:
 * of the stores. */
Status store_compare_step(Comparison *comparison, Store *stored, Store *made, const char *run_id,
                          int64_t step, double tolerance, Error *error);
/* How the run ended: state, reason, objective and its standard error. */
Status store_compare_end(Comparison *comparison, Store *stored, Store *made, const char *run_id,
                         double tolerance, Error *error);
