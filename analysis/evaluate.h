/* Evaluation: completions of the same rows by several adapters, scored in every way; the comparison
 * with the base; the way into results.db. Every number depends on (model, adapter, row, sample,
 * seed) alone, not on the slice of rows nor on who else is evaluated: tokens are keyed by
 * RANDOM_EVAL and counted by (0, row, sample, token). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "analysis/statistics.h"
#include "core/text.h"
#include "results/store.h"
#include "rl/reward.h"
#include "rl/rollout.h"
#include "rl/task.h"

typedef struct {
    const Task *task;
    int first_row, n_rows;    /* slice of the task's rows; n_rows 0: to the end */
    const Sampling *sampling; /* NULL: no completions, only answers_nll */
    int samples;              /* completions a row; 1 when greedy */
    int pass_k; /* pass@k of every extractor beside its mean ("strict@4"), 2 to samples;
                   0: none */
    uint64_t seed;
    const Reward *reward; /* a score "reward" beside the extractors; NULL: none */
    bool answers_nll;     /* a score "nll": mean -log p of the tokens of the row's answer, at
                             temperature 1 */
    const char
        *identity; /* what else a base row depends on (the reward's config); hashed; may be NULL */
} EvaluateSettings;

/* One way to score: an extractor's name, "reward", "nll", or pass@k of an extractor. */
typedef struct {
    char name[40];
    bool verdict;                /* every value is 0 or 1 */
    int samples;                 /* values a row; 1 for "nll" and pass@k */
    double *values;              /* (n_rows, samples); NaN: there is none (a reward's error) */
    double *row_means;           /* (n_rows) of the values that are there; NaN: none is */
    int n_missing;               /* of values */
    double mean, standard_error; /* over rows that have one */
} Score;

typedef struct {
    const Task *task;
    int first_row, n_rows, samples;
    Score *scores; /* (n_scores): all extractors, "reward", their pass@k, then "nll" */
    int n_scores;
    Rollout *rollouts;  /* (n_rows, samples); NULL without sampling */
    double mean_tokens; /* of the completions */
    double clipped;     /* share that ended by length */
    int n_unfit;        /* rows whose prompt leaves no room in the context (or is empty): each
                         * completion of them is empty, and scored as it is */
    Text no_reward;     /* why the first of those without a reward has none; empty: all have one */
} Evaluated;
void evaluated_release(Evaluated *evaluated);
const Score *evaluated_score(const Evaluated *evaluated, const char *name); /* NULL when absent */

/* out: (n_adapters). adapters: (n_adapters) of trainer->bank, 0: base; their values must have been
 * set. All in one batch, but for "full", whose weights take turns (the trained ones are back
 * afterwards). trainer->progress is asked as in training, phases "rollout" and "answers". Errors:
 * STATUS_USAGE (slice or samples out of range), STATUS_STOPPED, STATUS_FAILED; out is then empty.
 */
Status evaluate(Evaluated *out, const Trainer *trainer, const EvaluateSettings *settings,
                const int *adapters, int n_adapters, Error *error);

/* Its two halves, for who keeps the completions of some rows before the others are sampled.
 * rollouts: (n_adapters), each (n_rows, samples) of the slice, given back by rollouts_free; of
 * stored ones the text, its length, and completion's n and finish are enough. The second takes them
 * over, also where it fails; NULL without sampling. */
Status evaluate_sample(Rollout **rollouts, const Trainer *trainer, const EvaluateSettings *settings,
                       const int *adapters, int n_adapters, Error *error);
Status evaluate_score(Evaluated *out, const Trainer *trainer, const EvaluateSettings *settings,
                      const int *adapters, int n_adapters, Rollout **rollouts, Error *error);

/* On the same rows and samples: the test that fits (statistics.h). score: index in both. */
/* Rows without a value in either are left out. */
void evaluated_compare(Paired *paired, const Evaluated *evaluated, const Evaluated *base,
                       int score);

/* "test.jsonl[0:1000] sampled T=1 x4 256 tokens seed 1": the task column of results.db. */
void evaluate_describe(Text *out, const EvaluateSettings *settings);
/* "base:<16 hex of the model>:<16 hex of all that the base's row depends on>". */
void evaluate_base_run_id(Text *out, const EvaluateSettings *settings);

/* Of the values that are there; NaN: none is. values: (samples) */
double evaluated_row_mean(const double *values, int samples);
/* The word of results.db: "stop" or "length". */
const char *evaluate_finish(const Rollout *rollout);

/* Into results.db: a row of evaluation for each score, with its per-row answers, compared with the
 * base's row where base_run_id is given and that row is there (step 0, same task): base_value,
 * p_value and, in detail, the difference, its standard error, the test, the discordant counts, the
 * Wilson interval, the bootstrap's interval and p-value. model: for the base's own row (base_run_id
 * NULL), else NULL. One transaction. */
Status evaluate_store(Store *store, const char *run_id, int64_t step,
                      const EvaluateSettings *settings, const Evaluated *evaluated,
                      const char *base_run_id, const char *model, double now_s, Error *error);
