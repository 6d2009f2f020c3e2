/* Learning curves: a metric against the step, seeds taken together, one colour a learning rate (or
 * a budget, where each has one rate). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/figure_panels.h"
#include "analysis/figure_runs.h"
#include "analysis/statistics.h"

static const unsigned char body[] = {
#include "analysis_figures_learning_curves_gp.inc"
    0};

enum { CURVES_MAX = 192 };

/* ?1 experiment, ?2 key. In the order of runs_sql of figure_runs.c's run_ids. */
static const char metric_sql[] =
    "SELECT k.run_id, k.step, k.value FROM experiment_run m JOIN metric k USING (run_id)"
    " WHERE m.experiment = ?1 AND k.key = ?2 ORDER BY k.run_id, k.step";

/* One metric of all runs. */
typedef struct {
    const char *key;
    Frame frame;
    size_t window; /* steps that are averaged; 1: none */
} Source;

typedef struct {
    Panels panels;
    uint32_t colors[CURVES_MAX];
    double dashes[CURVES_MAX], points[CURVES_MAX];
    size_t n, left_out;
    bool bands;
    size_t window;
    double *rates; /* distinct, rising */
    size_t n_rates;
    double *values, *low_high; /* scratch */
} Curves;

static void axis_of_key(Text *out, const char *key, const char *method)
{
    static const char *const names[][2] = {
        {"reward", "reward"},
        {"entropy", "entropy (nats per token)"},
        {"kl", "KL to base (nats per token)"},
        {"grad_norm", "norm of the gradient"},
        {"completions/mean_length", "completion length (tokens)"},
        {"learning_rate", "learning rate"},
        {"num_tokens", "tokens so far"},
        {"step_time", "time of a step (s)"},
    };
    const char *name =
        strcmp(key, "loss") == 0 && strcmp(method, "sft") == 0 ? "loss (nats per token)" : NULL;
    for (size_t k = 0; k < sizeof names / sizeof names[0] && !name; k++) {
        name = strcmp(names[k][0], key) == 0 ? names[k][1] : NULL;
    }
    draft_escape(out, name ? name : key, 40);
}

/* Rows [*from, *to) of the source are the run's. Both are sorted by run_id. */
static void find_run(const Frame *frame, const char *run_id, size_t *from, size_t *to)
{
    size_t low = 0, high = frame->n_rows;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(frame_text(frame, "run_id", middle), run_id) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *from = *to = low;
    while (*to < frame->n_rows && strcmp(frame_text(frame, "run_id", *to), run_id) == 0) {
        ++*to;
    }
}

static Status read_source(Source *source, const FigureRequest *request, const char *key,
                          Error *error)
{
    const char *binds[] = {request->experiment, key};
    source->key = key;
    Status status = frame_read(&source->frame, request->store, metric_sql, binds, 2, error);
    size_t longest = 0;
    for (size_t from = 0, k = 1; !status && k <= source->frame.n_rows; k++) {
        if (k == source->frame.n_rows || strcmp(frame_text(&source->frame, "run_id", k),
                                                frame_text(&source->frame, "run_id", from)) != 0) {
            longest = k - from > longest ? k - from : longest;
            from = k;
        }
    }
    source->window = longest < 24 ? 1 : longest / 12 | 1;
    return status;
}

/* Mean of the finite values of rows within half a window of row k. */
static double smoothed(const Source *source, size_t k, size_t from, size_t to)
{
    size_t half = source->window / 2, first = k - from < half ? from : k - half;
    size_t last = to - k <= half ? to - 1 : k + half, n = 0;
    double sum = 0;
    for (size_t row = first; row <= last; row++) {
        double value = frame_number(&source->frame, "value", row);
        if (isfinite(value)) {
            sum += value;
            n++;
        }
    }
    return n ? sum / (double)n : NAN;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Mean and error over the cell's runs at each step that one of them has. Returns the points. */
static size_t add_curve(FigureDraft *draft, Curves *curves, const RunTable *table,
                        const RunCell *cell, const Source *source, size_t number, Panel *panel)
{
    char name[32];
    size_t n_runs = cell->to - cell->from, n_points = 0;
    size_t(*rows)[2] = calloc(n_runs, sizeof *rows);
    if (!rows) {
        return 0;
    }
    for (size_t r = 0; r < n_runs; r++) {
        find_run(&source->frame, frame_text(&table->frame, "run_id", cell->from + r), &rows[r][0],
                 &rows[r][1]);
    }
    snprintf(name, sizeof name, "curve %zu", number);
    draft_block(draft, name, "step mean standard_error runs");
    size_t *at = malloc(n_runs * sizeof *at);
    for (size_t r = 0; r < n_runs && at; r++) {
        at[r] = rows[r][0];
    }
    while (at) {
        double step = INFINITY, mean, error;
        size_t n = 0;
        for (size_t r = 0; r < n_runs; r++) {
            step =
                at[r] < rows[r][1] ? fmin(step, frame_number(&source->frame, "step", at[r])) : step;
        }
        if (isinf(step)) {
            break;
        }
        for (size_t r = 0; r < n_runs; r++) {
            if (at[r] < rows[r][1] && frame_number(&source->frame, "step", at[r]) == step) {
                double value = smoothed(source, at[r]++, rows[r][0], rows[r][1]);
                if (isfinite(value)) {
                    curves->values[n++] = value;
                }
            }
        }
        if (n == 0) {
            continue;
        }
        statistics_mean(&mean, &error, curves->values, n);
        text_printf(&draft->data, "%.0f", step);
        draft_value(draft, mean);
        draft_value(draft, n > 1 ? error : 0);
        text_printf(&draft->data, " %zu\n", n);
        curves->bands = curves->bands || n > 1;
        panel->x_low = fmin(panel->x_low, step);
        panel->x_high = fmax(panel->x_high, step);
        panel->y_low = fmin(panel->y_low, mean - (n > 1 ? error : 0));
        panel->y_high = fmax(panel->y_high, mean + (n > 1 ? error : 0));
        n_points++;
    }
    free(at);
    free(rows);
    return n_points;
}

static size_t rate_place(const Curves *curves, double lr)
{
    for (size_t k = 0; k < curves->n_rates; k++) {
        if (curves->rates[k] == lr) {
            return k;
        }
    }
    return 0;
}

/* A panel of the series' cells; appended to the last panel instead where `join`. */
static void add_series(FigureDraft *draft, Curves *curves, const RunTable *table,
                       const RunSeries *series, const Source *source, bool by_rate)
{
    Panels *panels = &curves->panels;
    bool join = !by_rate && panels->n > 0;
    if (!join && panels->n == PANELS_MAX) {
        curves->left_out++;
        return;
    }
    Panel *panel = join ? &panels->panels[panels->n - 1] : &panels->panels[panels->n];
    if (!join) {
        *panel = (Panel){.x_low = INFINITY,
                         .x_high = -INFINITY,
                         .y_low = INFINITY,
                         .y_high = -INFINITY,
                         .from = curves->n + 1,
                         .to = curves->n};
    }
    for (size_t c = series->from; c < series->to; c++) {
        if (curves->n == CURVES_MAX) {
            curves->left_out++;
            continue;
        }
        size_t place = by_rate ? rate_place(curves, table->cells[c].lr) : curves->n;
        size_t n = by_rate ? curves->n_rates : table->n_series;
        size_t k = curves->n;
        if (add_curve(draft, curves, table, &table->cells[c], source, k + 1, panel)) {
            curves->colors[k] =
                by_rate ? figure_sequential(n > 1 ? 0.9 * (double)place / (double)(n - 1) : 0.3)
                        : figure_color(place, n);
            curves->dashes[k] = figure_dash(place);
            curves->points[k] = figure_point(place);
            panel->to = ++curves->n;
        }
    }
    if (!join && panel->to >= panel->from) {
        Text title = {0}, label = {0};
        text_add(&title, by_rate ? series->title : "");
        axis_of_key(&label, source->key, series->method);
        curves->window = source->window > curves->window ? source->window : curves->window;
        text_append(&title, "", 0);
        panel->title = title.bytes;
        panel->y_label = label.bytes;
        panels->n++;
    }
}

static void add_legend(FigureDraft *draft, const Curves *curves, const RunTable *table,
                       bool by_rate)
{
    LegendEntry entries[LEGEND_MAX];
    Text titles[LEGEND_MAX] = {0};
    size_t n = 0, n_names = by_rate ? curves->n_rates : curves->n;
    for (size_t k = 0; k < n_names && n < LEGEND_MAX - 2; k++) {
        if (by_rate) {
            text_add(&titles[n], "rate ");
            run_rate_label(&titles[n], curves->rates[k]);
        } else {
            text_add(&titles[n], table->series[k].title);
        }
        entries[n] = (LegendEntry){
            .title = text_string(&titles[n]),
            .color = by_rate
                         ? figure_sequential(curves->n_rates > 1
                                                 ? 0.9 * (double)k / (double)(curves->n_rates - 1)
                                                 : 0.3)
                         : figure_color(k, curves->n),
            .line_width = 1.2,
            .dash = figure_dash(k),
            .point = figure_point(k),
            .point_size = 0.4};
        n++;
    }
    if (curves->bands) {
        entries[n++] = (LegendEntry){
            .title = "\xc2\xb1 1 SE over seeds", .color = 0x808080, .patch = true, .light = true};
    }
    if (curves->window > 1) {
        text_printf(&titles[n], "mean of %zu steps", curves->window);
        entries[n] =
            (LegendEntry){.title = text_string(&titles[n]), .color = 0x808080, .line_width = 1.1};
        n++;
    }
    draft_legend(draft, panels_width(&curves->panels), entries, n);
    for (size_t k = 0; k < LEGEND_MAX; k++) {
        text_release(&titles[k]);
    }
}

static void finish(FigureDraft *draft, Curves *curves, const RunTable *table, bool by_rate)
{
    run_about(draft, table, "mean and standard error over seeds at each step");
    if (curves->window > 1) {
        draft_about(draft, "of each run the mean of up to %zu steps around each", curves->window);
    }
    if (curves->left_out) {
        draft_about(draft, "%zu more curves or panels have no room here", curves->left_out);
    }
    for (size_t p = 0; p < curves->panels.n; p++) {
        Panel *panel = &curves->panels.panels[p];
        figure_widen(&panel->y_low, &panel->y_high);
        panel->x_high = fmax(panel->x_high, panel->x_low + 1);
    }
    if (curves->panels.n == 1) {
        curves->panels.panels[0].title[0] = 0;
    }
    draft_string(draft, "x_label", "step");
    draft_colors(draft, "colors", curves->colors, curves->n);
    draft_numbers(draft, "dashes", curves->dashes, curves->n);
    draft_numbers(draft, "points", curves->points, curves->n);
    add_legend(draft, curves, table, by_rate);
    panels_add(draft, &curves->panels);
    draft->body = body;
}

static void find_rates(Curves *curves, const RunTable *table)
{
    for (size_t c = 0; c < table->n_cells; c++) {
        curves->rates[c] = isnan(table->cells[c].lr) ? 0 : table->cells[c].lr;
    }
    qsort(curves->rates, table->n_cells, sizeof *curves->rates, by_value);
    for (size_t c = 0; c < table->n_cells; c++) {
        if (c == 0 || curves->rates[c] != curves->rates[curves->n_rates - 1]) {
            curves->rates[curves->n_rates++] = curves->rates[c];
        }
    }
}

static bool has_rows(const Source *source, const RunTable *table, const RunSeries *series)
{
    size_t from, to;
    for (size_t k = table->cells[series->from].from; k < table->cells[series->to - 1].to; k++) {
        find_run(&source->frame, frame_text(&table->frame, "run_id", k), &from, &to);
        if (to > from) {
            return true;
        }
    }
    return false;
}

Status figure_build_learning_curves(FigureDraft *draft, bool *drawn, Error *error)
{
    RunTable table = {0};
    Curves curves = {0};
    Source sources[2] = {0};
    const char *metric = draft->request->metric;
    FigureRequest runs = *draft->request;
    runs.metric = NULL;
    Status status = run_table_read(&table, &runs, error);
    status = status ? status
                    : read_source(&sources[0], draft->request, metric ? metric : "reward", error);
    status = status || metric ? status : read_source(&sources[1], draft->request, "loss", error);
    curves.values = calloc(table.frame.n_rows + 1, sizeof *curves.values);
    curves.rates = calloc(table.n_cells + 1, sizeof *curves.rates);
    if (!status && (!curves.values || !curves.rates)) {
        status = error_set(error, STATUS_FAILED, "no memory for %zu curves", table.n_cells);
    }
    if (!status) {
        find_rates(&curves, &table);
        bool by_rate = false;
        for (size_t s = 0; s < table.n_series; s++) {
            by_rate = by_rate || table.series[s].to - table.series[s].from > 1;
        }
        for (size_t s = 0; s < table.n_series; s++) {
            const RunSeries *series = &table.series[s];
            const Source *source =
                has_rows(&sources[0], &table, series) || metric ? &sources[0] : &sources[1];
            if (has_rows(source, &table, series)) {
                add_series(draft, &curves, &table, series, source, by_rate);
            }
        }
        if (curves.panels.n) {
            finish(draft, &curves, &table, by_rate);
            *drawn = true;
        }
    }
    panels_release(&curves.panels);
    free(curves.values);
    free(curves.rates);
    frame_release(&sources[0].frame);
    frame_release(&sources[1].frame);
    run_table_release(&table);
    return status;
}
