/* The best run of each of several experiments, side by side on the rows that they share. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/figure_runs.h"

static const unsigned char body[] = {
#include "analysis_figures_comparison_gp.inc"
    0};

enum { EXPERIMENTS_MAX = 24, NAME_CHARACTERS = 22 };

typedef struct {
    size_t n;
    char *names[EXPERIMENTS_MAX]; /* enhanced; malloc'ed */
    uint32_t colors[EXPERIMENTS_MAX];
    double points[EXPERIMENTS_MAX];
    double low, high;
} Rows;

static void hold(Rows *rows, double value, double half)
{
    rows->low = fmin(rows->low, value - half);
    rows->high = fmax(rows->high, value + half);
}

/* The run with the best score; n_rows when there is none. */
static size_t best_row(const RunTable *table)
{
    size_t best = table->frame.n_rows;
    for (size_t k = 0; k < table->frame.n_rows; k++) {
        double value = run_table_value(table, k);
        double best_value = best < table->frame.n_rows ? run_table_value(table, best) : NAN;
        bool better = table->less_is_better ? value < best_value : value > best_value;
        if (!isnan(value) && (isnan(best_value) || better)) {
            best = k;
        }
    }
    return best;
}

static void add_row(FigureDraft *draft, Rows *rows, const RunTable *table, const char *experiment)
{
    size_t row = best_row(table);
    Text name = {0};
    if (row == table->frame.n_rows) {
        draft_about(draft, "%s: no score", experiment);
        return;
    }
    double value = run_table_value(table, row);
    double error =
        table->scale * frame_number(&table->frame, table->task ? "se" : "objective_se", row);
    draft_escape(&name, experiment, NAME_CHARACTERS);
    rows->names[rows->n] = name.bytes;
    rows->colors[rows->n] = figure_categorical(rows->n);
    rows->points[rows->n] = figure_point(rows->n);
    rows->n++;
    text_printf(&draft->data, " %zu", rows->n);
    draft_value(draft, value);
    draft_value(draft, isnan(error) ? 0 : error);
    text_printf(&draft->data, " %.16s\n", frame_text(&table->frame, "run_id", row));
    hold(rows, value, isnan(error) ? 0 : 1.96 * error);
}

static void draw(FigureDraft *draft, Rows *rows, const RunTable *first)
{
    const double width = 8.5;
    bool base = !isnan(first->base);
    double base_error = isnan(first->base_se) ? 0 : first->base_se;
    LegendEntry entries[] = {{.title = "best run, 95 % interval",
                              .color = rows->colors[0],
                              .line_width = 1,
                              .dash = 1,
                              .point = (int)rows->points[0],
                              .point_size = 0.55},
                             {.title = "base model \xc2\xb1 1 SE",
                              .color = 0x606060,
                              .line_width = 1,
                              .dash = 2,
                              .patch = true,
                              .light = true}};
    if (base) {
        hold(rows, first->base, base_error);
    }
    figure_widen(&rows->low, &rows->high);
    draft_number(draft, "n", (double)rows->n);
    draft_number(draft, "x_low", rows->low);
    draft_number(draft, "x_high", rows->high);
    draft_number(draft, "x_step", figure_nice_step(rows->high - rows->low, 5));
    draft_number(draft, "n_base", base);
    draft_number(draft, "base", base ? first->base : 0);
    draft_number(draft, "base_error", base_error);
    draft_string(draft, "x_label", first->axis);
    draft_strings(draft, "names", rows->names, rows->n);
    draft_colors(draft, "colors", rows->colors, rows->n);
    draft_numbers(draft, "points", rows->points, rows->n);
    draft_legend(draft, width, entries, base ? 2 : 1);
    draft_layout(draft, width, 3.1, 0.3, 0.2, 0.5 + 0.55 * (double)rows->n, 1.1);
    draft->body = body;
}

Status figure_build_comparison(FigureDraft *draft, bool *drawn, Error *error)
{
    RunTable first = {0};
    Rows rows = {.low = INFINITY, .high = -INFINITY};
    const FigureRequest *request = draft->request;
    if (request->n_others == 0) {
        return STATUS_OK;
    }
    Status status = run_table_read(&first, request, error);
    if (!status) {
        run_about(draft, &first, "the best run of each experiment; intervals are 1.96 SE");
        draft_block(draft, "scores", "number value standard_error run_id");
        add_row(draft, &rows, &first, request->experiment);
    }
    for (size_t k = 0; !status && k < request->n_others && rows.n < EXPERIMENTS_MAX; k++) {
        RunTable table = {0};
        FigureRequest other = *request;
        other.experiment = request->others[k];
        status = run_table_read(&table, &other, error);
        bool same_task = first.task && table.task && strcmp(first.task, table.task) == 0;
        if (!status && same_task && table.scale == first.scale) {
            add_row(draft, &rows, &table, other.experiment);
        } else if (!status) {
            draft_about(draft, "%s: scored on other rows", other.experiment);
        }
        run_table_release(&table);
    }
    if (!status && rows.n > 1) {
        draw(draft, &rows, &first);
        *drawn = true;
    }
    for (size_t k = 0; k < rows.n; k++) {
        free(rows.names[k]);
    }
    run_table_release(&first);
    return status;
}
