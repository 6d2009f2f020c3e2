/* The runs of an experiment with their last scores, seeds taken together. */
#pragma once
#include "analysis/figure_draft.h"

typedef struct {
    size_t from, to; /* rows of the frame: its runs, one a seed */
    double lr;
    size_t n, n_failed; /* runs that are done and have a value, failed runs */
    double mean,
        error;        /* +- 1 standard error: over seeds; of one seed: over the evaluation's rows */
    double objective; /* mean over its done runs; NaN unless each has one */
} RunCell;

typedef struct {
    const char *method, *adapter;
    double budget;
    size_t from, to; /* cells, by rising learning rate */
    char *title;     /* enhanced: what tells it from the other series; malloc'ed */
} RunSeries;

typedef struct {
    Frame frame; /* run_id, method, adapter, budget, lr, seed, state, value, se, objective, point ... */
    RunCell *cells;
    RunSeries *series;
    size_t n_cells, n_series, n_values;
    const char *axis; /* "accuracy (%)" and so on, enhanced */
    const char *task; /* of the scores; NULL: objectives stand in */
    bool less_is_better;
    double scale;         /* 100 where it is a share in % */
    double base, base_se; /* of the model without adapter; NaN: unknown or not one */
} RunTable;

/* metric: the extractor; NULL: "reward", and objectives where no run was scored by it. Of several
 * tasks the one that most runs were scored on. table: zeroed. */
Status run_table_read(RunTable *table, const FigureRequest *request, Error *error);
void run_table_release(RunTable *table);
/* The cell of the series that was best by its objective, else by its score; NULL where none has a
 * value. */
const RunCell *run_table_best(const RunTable *table, const RunSeries *series);
double run_table_value(const RunTable *table, size_t row); /* scaled; NaN unless the run is done */

/* "2x10^{-5}", enhanced. */
void run_rate_label(Text *out, double lr);
/* Places of ticks on a log axis from low to high: each value if they are few, else powers of ten.
 * A gnuplot list: 'label' place, ... */
void run_log_ticks(Text *out, const double *values, size_t n, double low, double high);
void run_about(FigureDraft *draft, const RunTable *table, const char *what);
