/* What the files of the report share. Private to notebooks-export/report*.c. */
#pragma once
#include "core/text.h"
#include "notebooks-export/report.h"
#include "results/frame.h"

/* --- report_html.c: hostile text and numbers ----------------------------------------------------
 */

/* s: (n) bytes as clean UTF-8: control characters, directions of writing and broken bytes become
 * visible signs; newline and tab stay. */
void html_visible(Text *out, const char *s, size_t n);
/* The same, fit for HTML text and quoted attributes. NULL: nothing. */
void html_text(Text *out, const char *s);
void html_bytes(Text *out, const char *s, size_t n);
void html_start(Text *out, const char *s, size_t n); /* at most n bytes of a string */
/* A word of a shell's command line. */
void html_shell_word(Text *out, const char *s);
/* A number to `digits` significant digits; NaN: a dash. */
void html_number(Text *out, double value, int digits);
/* value to two significant digits of its standard error, which may be NaN. */
void html_estimate(Text *out, double value, double standard_error);
void html_p_value(Text *out, double p);
/* For JSON: a visible string; a number, NaN as null. */
void json_text(Text *json, const char *s);
void json_number(Text *json, double value, int digits);
/* JSON as it may stand in a <script>: without <, >, &. */
void html_json(Text *out, const Text *json);

typedef struct {
    const char *name, *value;
    size_t n;
} Slot;
/* text with each {{name}} replaced, unescaped. Every name must be there. */
void html_fill(Text *out, const char *text, const Slot *slots, size_t n_slots);

/* Text of a frame; "" for NULL and for what is no text, which a file of strangers may hold. */
const char *text_at(const Frame *frame, const char *column, size_t row);
/* The numbers of a column; NULL when it has text in it. */
const double *numbers_at(const Frame *frame, const char *column);

/* --- report_runs.c: an experiment's runs and their scores ----------------------------------------
 */

typedef struct {
    const char *task, *extractor;
    bool less;       /* less is better */
    size_t first, n; /* rows of ReportExperiment.scores: the base's, then the runs' by place */
    size_t n_base;
    size_t n_tests; /* p-values that were adjusted together */
} ReportScore;

typedef struct {
    const char *name;
    size_t number;  /* place on the page */
    Frame runs;     /* the base's rows, then by method, adapter, budget, rate and seed */
    Frame scores;   /* by task, extractor */
    size_t *run_of; /* (scores.n_rows) row of runs */
    double *holm;   /* (scores.n_rows) p-value adjusted over the runs of the score */
    size_t *cell;   /* (runs.n_rows) runs that differ by their seed alone share one */
    size_t n_cells;
    ReportScore *score; /* (n_scores) */
    size_t n_scores;
    size_t main; /* the score of run.objective */
} ReportExperiment;

/* experiment: zeroed but for name and number; released also after an error. */
Status report_experiment_read(ReportExperiment *experiment, Store *store, Error *error);
void report_experiment_release(ReportExperiment *experiment);
/* Row of scores of the best run under the main score; SIZE_MAX when there is none. */
size_t report_best(const ReportExperiment *experiment);
/* "21 runs (...). The best is ...: a gain." */
void report_sentence(Text *html, const ReportExperiment *experiment);

/* --- report_tables.c: the same as HTML and as JSON
 * ------------------------------------------------ */

void report_runs_table(Text *html, const ReportExperiment *experiment);
void report_scores_table(Text *html, const ReportExperiment *experiment);
/* Members "name", "runs", "scores", "main" of an object, without its braces. */
void report_runs_json(Text *json, const ReportExperiment *experiment);

/* --- report_curves.c -----------------------------------------------------------------------------
 */

/* Member "curves". *n_points: numbers that it took of the budget; 0 where no step was stored. */
Status report_curves_json(Text *json, size_t *n_points, Store *store,
                          const ReportExperiment *experiment, size_t budget, Error *error);
/* Largest triangle, three buckets (Steinarsson 2013): `keep` of the n points, the ends among them;
 * their places rising in kept: (keep). n >= keep >= 2. */
void report_thin(size_t *kept, size_t keep, const double *x, const double *y, size_t n);

/* --- report_surface.c ----------------------------------------------------------------------------
 */

/* A section of the page and its data. budget: cells of all metrics, but no metric has fewer than a
 * 21 x 21 grid. */
Status report_surface(Text *html, Store *store, const char *surface_id, size_t number,
                      size_t budget, Error *error);
/* "21 x 21 points, done; loss 1.31 at the base model, 1.24 at best (x, y)." */
Status report_surface_sentence(Text *html, Store *store, const char *surface_id, Error *error);

/* --- report_surface_data.c -----------------------------------------------------------------------
 */

/* The whole object. surface: its row with surface_id, metrics, nx ... y_max, labels. */
Status report_surface_json(Text *json, Store *store, const Frame *surface, const Frame *marks,
                           const Frame *hessian, size_t budget, Error *error);

/* --- report_texts.c
 * ------------------------------------------------------------------------------- */

Status report_answers(Text *html, Store *store, const char *run_id, Error *error);
Status report_events(Text *html, Store *store, const char *experiment, Error *error);
Status report_reproduce(Text *html, Store *store, const ReportExperiment *experiment, Error *error);
