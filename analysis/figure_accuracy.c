/* Scores of runs: against the learning rate, and of the best rate against the number of trained
 * parameters. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/figure_runs.h"

static const unsigned char lr_body[] = {
#include "analysis_figures_lr_accuracy_gp.inc"
    0};
static const unsigned char parameters_body[] = {
#include "analysis_figures_parameters_accuracy_gp.inc"
    0};

enum { SERIES_MAX = 24 };

typedef struct {
    double x_low, x_high, y_low, y_high;
} Extent;

static void hold(Extent *extent, double x, double y, double error)
{
    double e = isnan(error) ? 0 : error;
    extent->x_low = fmin(extent->x_low, x);
    extent->x_high = fmax(extent->x_high, x);
    extent->y_low = fmin(extent->y_low, y - e);
    extent->y_high = fmax(extent->y_high, y + e);
}

static const Extent nothing = {INFINITY, -INFINITY, INFINITY, -INFINITY};

/* Shares stay within 0 and 100 %. */
static void add_axes(FigureDraft *draft, const RunTable *table, Extent extent, const double *values,
                     size_t n)
{
    Text ticks = {0};
    double margin = extent.x_high > extent.x_low ? pow(extent.x_high / extent.x_low, 0.06) : 3;
    double x_low = extent.x_low / margin, x_high = extent.x_high * margin;
    if (!isnan(table->base)) {
        hold(&extent, extent.x_low, table->base, table->base_se);
    }
    figure_widen(&extent.y_low, &extent.y_high);
    if (table->scale == 100) {
        extent.y_low = fmax(extent.y_low, -1.5);
        extent.y_high = fmin(extent.y_high, 101.5);
    }
    run_log_ticks(&ticks, values, n, x_low, x_high);
    draft_number(draft, "x_low", x_low);
    draft_number(draft, "x_high", x_high);
    draft_number(draft, "y_low", extent.y_low);
    draft_number(draft, "y_high", extent.y_high);
    draft_number(draft, "y_step", figure_nice_step(extent.y_high - extent.y_low, 5));
    draft_number(draft, "base", isnan(table->base) ? 0 : table->base);
    draft_number(draft, "base_error", isnan(table->base_se) ? 0 : table->base_se);
    draft_number(draft, "n_base", !isnan(table->base));
    draft_string(draft, "y_label", table->axis);
    text_printf(&draft->variables, "x_ticks = \"%s\"\n", text_string(&ticks));
    text_release(&ticks);
}

static size_t base_entry(LegendEntry *entries, size_t n, const RunTable *table)
{
    if (!isnan(table->base)) {
        entries[n++] = (LegendEntry){.title = isnan(table->base_se) ? "base model"
                                                                    : "base model \xc2\xb1 1 SE",
                                     .color = 0x606060,
                                     .line_width = 1,
                                     .dash = 2,
                                     .patch = !isnan(table->base_se),
                                     .light = true};
    }
    return n;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts and keeps each value once. */
static size_t distinct(double *values, size_t n)
{
    size_t kept = 0;
    qsort(values, n, sizeof *values, by_value);
    for (size_t k = 0; k < n; k++) {
        if (kept == 0 || values[k] != values[kept - 1]) {
            values[kept++] = values[k];
        }
    }
    return kept;
}

/* --- learning rate --- */

static bool has_rate(const RunCell *cell)
{
    return cell->lr > 0 && isfinite(cell->lr);
}

static void add_runs(FigureDraft *draft, const RunTable *table, const RunSeries *series,
                     const char *name)
{
    draft_block(draft, name, "learning_rate value standard_error seed run_id");
    for (size_t c = series->from; c < series->to; c++) {
        for (size_t k = table->cells[c].from; k < table->cells[c].to; k++) {
            double value = run_table_value(table, k);
            if (isnan(value)) {
                continue;
            }
            draft_value(draft, table->cells[c].lr);
            draft_value(draft, value);
            draft_value(draft, table->scale * frame_number(&table->frame,
                                                           table->task ? "se" : "objective_se", k));
            draft_value(draft, frame_number(&table->frame, "seed", k));
            text_printf(&draft->data, " %.16s\n", frame_text(&table->frame, "run_id", k));
        }
    }
}

static bool add_rate_series(FigureDraft *draft, const RunTable *table, const RunSeries *series,
                            size_t number, Extent *extent, double *rates, size_t *n_rates)
{
    char name[32];
    bool any = false;
    for (size_t c = series->from; c < series->to; c++) {
        any = any || (has_rate(&table->cells[c]) && table->cells[c].n);
    }
    if (!any) {
        return false;
    }
    snprintf(name, sizeof name, "means %zu", number);
    draft_block(draft, name, "learning_rate mean standard_error runs");
    for (size_t c = series->from; c < series->to; c++) {
        const RunCell *cell = &table->cells[c];
        if (cell->n && has_rate(cell)) {
            draft_value(draft, cell->lr);
            draft_value(draft, cell->mean);
            draft_value(draft, isnan(cell->error) ? 0 : cell->error);
            text_printf(&draft->data, " %zu\n", cell->n);
            hold(extent, cell->lr, cell->mean, cell->error);
            rates[(*n_rates)++] = cell->lr;
        }
    }
    snprintf(name, sizeof name, "runs %zu", number);
    add_runs(draft, table, series, name);
    for (size_t c = series->from; c < series->to; c++) {
        for (size_t k = table->cells[c].from; k < table->cells[c].to; k++) {
            double value = run_table_value(table, k);
            if (!isnan(value) && has_rate(&table->cells[c])) {
                hold(extent, table->cells[c].lr, value, 0);
            }
        }
    }
    return true;
}

static size_t add_failed(FigureDraft *draft, const RunTable *table)
{
    size_t n = 0;
    draft_block(draft, "failed", "learning_rate failed_runs");
    for (size_t c = 0; c < table->n_cells; c++) {
        if (table->cells[c].n_failed && has_rate(&table->cells[c])) {
            draft_value(draft, table->cells[c].lr);
            text_printf(&draft->data, " %zu\n", table->cells[c].n_failed);
            n++;
        }
    }
    return n;
}

static void draw_rates(FigureDraft *draft, const RunTable *table, double *rates)
{
    const double width = 8.5;
    Extent extent = nothing;
    LegendEntry entries[LEGEND_MAX];
    uint32_t colors[SERIES_MAX];
    double points[SERIES_MAX], dashes[SERIES_MAX];
    size_t n = 0, n_entries = 0, n_rates = 0, left_out = 0;
    bool several_seeds = false;
    run_about(draft, table, "mean and standard error over seeds (of one seed: over its rows)");
    for (size_t s = 0; s < table->n_series; s++) {
        if (n == SERIES_MAX) {
            left_out++;
        } else if (add_rate_series(draft, table, &table->series[s], n + 1, &extent, rates,
                                   &n_rates)) {
            entries[n++] = (LegendEntry){.title = table->series[s].title};
        }
    }
    for (size_t c = 0; c < table->n_cells; c++) {
        several_seeds = several_seeds || table->cells[c].n > 1;
    }
    if (left_out) {
        draft_about(draft, "%zu more series have no room here", left_out);
    }
    for (size_t k = 0; k < n; k++) {
        LegendEntry *entry = &entries[n_entries++];
        entry->color = colors[k] = figure_color(k, n);
        entry->line_width = 1.2;
        dashes[k] = entry->dash = figure_dash(k);
        points[k] = entry->point = figure_point(k);
        entry->point_size = 0.45;
    }
    if (several_seeds) {
        entries[n_entries++] = (LegendEntry){
            .title = "single seeds", .color = 0x808080, .point = 7, .point_size = 0.25};
    }
    size_t n_failed = add_failed(draft, table);
    if (n_failed) {
        entries[n_entries++] =
            (LegendEntry){.title = "failed", .color = 0x000000, .point = 2, .point_size = 0.5};
    }
    n_entries = base_entry(entries, n_entries, table);
    draft_number(draft, "n_series", (double)n);
    draft_number(draft, "n_failed", n_failed > 0);
    draft_number(draft, "several_seeds", several_seeds);
    draft_colors(draft, "colors", colors, n);
    draft_numbers(draft, "dashes", dashes, n);
    draft_numbers(draft, "points", points, n);
    add_axes(draft, table, extent, rates, distinct(rates, n_rates));
    draft_legend(draft, width, entries, n_entries);
    draft_layout(draft, width, 1.25, 0.4, 0.2, 4.6, 1.1);
    draft->body = lr_body;
}

Status figure_build_lr_accuracy(FigureDraft *draft, bool *drawn, Error *error)
{
    RunTable table = {0};
    Status status = run_table_read(&table, draft->request, error);
    double *rates = status ? NULL : malloc((table.n_cells + 1) * sizeof *rates);
    bool any = false;
    for (size_t c = 0; c < table.n_cells; c++) {
        any = any || (table.cells[c].n && has_rate(&table.cells[c]));
    }
    if (!status && !rates) {
        status = error_set(error, STATUS_FAILED, "no memory for %zu learning rates", table.n_cells);
    } else if (!status && any) {
        draw_rates(draft, &table, rates);
        *drawn = true;
    }
    free(rates);
    run_table_release(&table);
    return status;
}

/* --- parameters --- */

/* One curve a method and adapter: the series next to each other that differ in budget alone. */
static bool same_kind(const RunSeries *a, const RunSeries *b)
{
    return strcmp(a->method, b->method) == 0 && strcmp(a->adapter, b->adapter) == 0;
}

static char *kind_title(const RunSeries *series)
{
    Text title = {0};
    size_t n = strcspn(series->title, ","); /* methods have none: draft_escape adds none */
    text_append(&title, series->title, n);
    return title.bytes;
}

static void draw_parameters(FigureDraft *draft, const RunTable *table, double *budgets)
{
    const double width = 8.5;
    Extent extent = nothing;
    LegendEntry entries[LEGEND_MAX];
    char *titles[SERIES_MAX];
    uint32_t colors[SERIES_MAX];
    double points[SERIES_MAX], dashes[SERIES_MAX];
    size_t n = 0, n_entries = 0, n_budgets = 0;
    run_about(draft, table,
              "of each budget the learning rate that is best on held-out training "
              "rows (the objective); mean and standard error over seeds");
    for (size_t s = 0; s < table->n_series && n < SERIES_MAX; s++) {
        const RunSeries *series = &table->series[s];
        const RunCell *best = run_table_best(table, series);
        if (!best || !(series->budget > 0)) {
            continue;
        }
        bool goes_on = n && n_budgets && s > 0 && same_kind(&table->series[s - 1], series);
        if (!goes_on) {
            char name[32];
            snprintf(name, sizeof name, "series %zu", n + 1);
            draft_block(draft, name, "parameters mean standard_error runs learning_rate");
            titles[n++] = kind_title(series);
        }
        draft_value(draft, series->budget);
        draft_value(draft, best->mean);
        draft_value(draft, isnan(best->error) ? 0 : best->error);
        text_printf(&draft->data, " %zu", best->n);
        draft_value(draft, best->lr);
        text_add(&draft->data, "\n");
        hold(&extent, series->budget, best->mean, best->error);
        budgets[n_budgets++] = series->budget;
    }
    for (size_t k = 0; k < n; k++) {
        colors[k] = figure_categorical(k);
        dashes[k] = figure_dash(k);
        points[k] = figure_point(k);
        entries[n_entries++] = (LegendEntry){.title = titles[k],
                                             .color = colors[k],
                                             .line_width = 1.2,
                                             .dash = figure_dash(k),
                                             .point = figure_point(k),
                                             .point_size = 0.5};
    }
    n_entries = base_entry(entries, n_entries, table);
    draft_number(draft, "n_series", (double)n);
    draft_colors(draft, "colors", colors, n);
    draft_numbers(draft, "dashes", dashes, n);
    draft_numbers(draft, "points", points, n);
    add_axes(draft, table, extent, budgets, distinct(budgets, n_budgets));
    draft_legend(draft, width, entries, n_entries);
    draft_layout(draft, width, 1.25, 0.4, 0.2, 4.6, 1.1);
    draft->body = parameters_body;
    for (size_t k = 0; k < n; k++) {
        free(titles[k]);
    }
}

Status figure_build_parameters_accuracy(FigureDraft *draft, bool *drawn, Error *error)
{
    RunTable table = {0};
    Status status = run_table_read(&table, draft->request, error);
    double *budgets = status ? NULL : malloc((table.n_series + 1) * sizeof *budgets);
    bool any = false;
    for (size_t s = 0; s < table.n_series; s++) {
        any = any || (table.series[s].budget > 0 && run_table_best(&table, &table.series[s]));
    }
    if (!status && !budgets) {
        status = error_set(error, STATUS_FAILED, "no memory for %zu budgets", table.n_series);
    } else if (!status && any) {
        draw_parameters(draft, &table, budgets);
        *drawn = true;
    }
    free(budgets);
    run_table_release(&table);
    return status;
}
