/* The runs of an experiment with their last scores, seeds taken together. */
#include "analysis/figure_runs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/statistics.h"

/* ?1 experiment, ?2 extractor. */
static const char runs_sql[] =
    "WITH member AS (SELECT r.* FROM experiment_run m JOIN run r USING (run_id)"
    " WHERE m.experiment = ?1 AND r.kind = 'run'),"
    " final AS (SELECT e.* FROM evaluation e JOIN member USING (run_id) WHERE e.extractor = ?2"
    " AND e.step = (SELECT max(l.step) FROM evaluation l WHERE l.run_id = e.run_id"
    " AND l.task = e.task AND l.extractor = e.extractor)),"
    " chosen AS (SELECT task FROM final GROUP BY task ORDER BY count(*) DESC, task LIMIT 1)"
    "SELECT m.run_id, m.method, m.adapter, m.budget, m.lr, m.seed, m.state, m.objective,"
    " m.objective_se, f.value, f.standard_error AS se, f.base_value, f.base_run_id, f.task,"
    " (SELECT b.standard_error FROM evaluation b WHERE b.run_id = f.base_run_id"
    "  AND b.task = f.task AND b.extractor = f.extractor LIMIT 1) AS base_se,"
    " CASE WHEN json_valid(m.config) THEN m.config ->> '$.reward.name' END AS reward,"
    " p.point, p.setting FROM member m JOIN run_point p USING (run_id) LEFT JOIN final f ON "
    "f.run_id = m.run_id AND f.task = (SELECT task FROM chosen)"
    " ORDER BY m.method, m.adapter, m.budget, p.setting, m.lr, m.seed, m.run_id";

double run_table_value(const RunTable *table, size_t row)
{
    const char *state = frame_text(&table->frame, "state", row);
    if (!state || strcmp(state, "done") != 0) {
        return NAN;
    }
    return table->scale * frame_number(&table->frame, table->task ? "value" : "objective", row);
}

static bool same_text(const Frame *frame, const char *column, size_t a, size_t b)
{
    const char *x = frame_text(frame, column, a), *y = frame_text(frame, column, b);
    return x == y || (x && y && strcmp(x, y) == 0);
}

static bool same_number(const Frame *frame, const char *column, size_t a, size_t b)
{
    double x = frame_number(frame, column, a), y = frame_number(frame, column, b);
    return x == y || (isnan(x) && isnan(y));
}

static bool same_budget(const Frame *frame, size_t a, size_t b)
{
    return same_text(frame, "method", a, b) && same_text(frame, "adapter", a, b) &&
           same_number(frame, "budget", a, b);
}

static bool same_series(const Frame *frame, size_t a, size_t b)
{
    return same_budget(frame, a, b) && same_text(frame, "setting", a, b);
}

/* What the numbers are: an extractor's verdicts and the reward "exact_match" are shares of right
 * answers. */
static void name_axis(RunTable *table, const char *metric)
{
    bool share = strcmp(metric, "reward") != 0 && strcmp(metric, "nll") != 0;
    if (strcmp(metric, "reward") == 0) {
        share = table->frame.n_rows > 0;
        for (size_t k = 0; k < table->frame.n_rows; k++) {
            const char *reward = frame_text(&table->frame, "reward", k);
            share = share && reward && strcmp(reward, "exact_match") == 0;
        }
    }
    table->less_is_better = strcmp(metric, "nll") == 0;
    table->scale = share ? 100 : 1;
    table->axis = share                   ? "accuracy (%)"
                  : table->less_is_better ? "loss (nats per token)"
                                          : "mean reward";
}

static void set_base(RunTable *table)
{
    table->base = table->base_se = NAN;
    bool one = true;
    for (size_t k = 0; k < table->frame.n_rows; k++) {
        double base = table->scale * frame_number(&table->frame, "base_value", k);
        one = one && (isnan(table->base) || isnan(base) || base == table->base);
        if (isnan(table->base)) {
            table->base = base;
            table->base_se = table->scale * frame_number(&table->frame, "base_se", k);
        }
    }
    if (!one) {
        table->base = table->base_se = NAN;
    }
}

static void fill_cell(RunTable *table, RunCell *cell, double *values)
{
    size_t n_objectives = 0, n_done = 0;
    double objectives = 0, one_error = NAN;
    for (size_t k = cell->from; k < cell->to; k++) {
        const char *state = frame_text(&table->frame, "state", k);
        double value = run_table_value(table, k);
        cell->n_failed += state && strcmp(state, "failed") == 0;
        if (state && strcmp(state, "done") == 0) {
            double objective = frame_number(&table->frame, "objective", k);
            n_done++;
            n_objectives += !isnan(objective);
            objectives += isnan(objective) ? 0 : objective;
        }
        if (!isnan(value)) {
            values[cell->n++] = value;
            one_error =
                table->scale * frame_number(&table->frame, table->task ? "se" : "objective_se", k);
        }
    }
    statistics_mean(&cell->mean, &cell->error, values, cell->n);
    cell->error = cell->n == 1 ? one_error : cell->error;
    cell->objective = n_done && n_objectives == n_done ? objectives / (double)n_done : NAN;
    table->n_values += cell->n;
}

static char *series_title(const RunTable *table, size_t row)
{
    const Frame *frame = &table->frame;
    const char *method = frame_text(frame, "method", row);
    const char *adapter = frame_text(frame, "adapter", row);
    Text title = {0}, upper = {0};
    for (const char *c = method ? method : "-"; *c; c++) {
        text_printf(&upper, "%c", *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    }
    draft_escape(&title, text_string(&upper), 12);
    if (adapter && strcmp(adapter, "tinylora") != 0) {
        text_add(&title, " ");
        draft_escape(&title, adapter, 12);
    }
    double budget = frame_number(frame, "budget", row);
    if (budget < 100000) {
        text_printf(&title, ", %.0f scalar%s", budget, budget == 1 ? "" : "s");
    } else {
        const char *unit = budget < 1e6 ? "k" : budget < 1e9 ? "M" : "G";
        double size = budget < 1e6 ? 1e3 : budget < 1e9 ? 1e6 : 1e9;
        text_printf(&title, ", %.3g%s", budget / size, unit);
    }
    text_release(&upper);
    return title.bytes;
}

/* Series of one size are told apart by their plans. */
static void tell_plans(RunTable *table)
{
    const Frame *frame = &table->frame;
    for (size_t s = 0; s < table->n_series; s++) {
        RunSeries *series = &table->series[s];
        size_t row = table->cells[series->from].from, last = table->cells[series->to - 1].to - 1;
        bool before = row > 0 && same_budget(frame, row - 1, row);
        bool after = last + 1 < frame->n_rows && same_budget(frame, last, last + 1);
        const char *point = frame_text(frame, "point", row);
        const char *plan = point ? strchr(point, ' ') : NULL;
        if ((before || after) && plan) {
            Text title = {0};
            text_printf(&title, "%s,", series->title);
            draft_escape(&title, plan, 40);
            free(series->title);
            series->title = title.bytes;
        }
    }
}

static Status group(RunTable *table, Error *error)
{
    const Frame *frame = &table->frame;
    size_t n = frame->n_rows;
    double *values = malloc((n + 1) * sizeof *values);
    table->cells = calloc(n + 1, sizeof *table->cells);
    table->series = calloc(n + 1, sizeof *table->series);
    if (!values || !table->cells || !table->series) {
        free(values);
        return error_set(error, STATUS_FAILED, "no memory for %zu runs", n);
    }
    for (size_t k = 0; k < n; k++) {
        if (k == 0 || !same_series(frame, k - 1, k)) {
            table->series[table->n_series++] = (RunSeries){
                .method = frame_text(frame, "method", k),
                .adapter = frame_text(frame, "adapter", k),
                .budget = frame_number(frame, "budget", k),
                .from = table->n_cells,
                .to = table->n_cells,
                .title = series_title(table, k),
            };
        }
        RunSeries *series = &table->series[table->n_series - 1];
        if (series->from == series->to || !same_number(frame, "lr", k - 1, k)) {
            table->cells[table->n_cells++] =
                (RunCell){.from = k, .lr = frame_number(frame, "lr", k)};
            series->to = table->n_cells;
        }
        table->cells[table->n_cells - 1].to = k + 1;
    }
    for (size_t c = 0; c < table->n_cells; c++) {
        fill_cell(table, &table->cells[c], values);
    }
    tell_plans(table);
    free(values);
    return STATUS_OK;
}

Status run_table_read(RunTable *table, const FigureRequest *request, Error *error)
{
    const char *metric = request->metric ? request->metric : "reward";
    const char *binds[] = {request->experiment, metric};
    Status status = frame_read(&table->frame, request->store, runs_sql, binds, 2, error);
    if (status) {
        return status;
    }
    for (size_t k = 0; k < table->frame.n_rows && !table->task; k++) {
        table->task = frame_text(&table->frame, "task", k);
    }
    name_axis(table, metric);
    set_base(table);
    if (!table->task && request->metric) {
        return STATUS_OK; /* no run was scored so: nothing to draw */
    }
    return group(table, error);
}

void run_table_release(RunTable *table)
{
    for (size_t s = 0; s < table->n_series; s++) {
        free(table->series[s].title);
    }
    frame_release(&table->frame);
    free(table->cells);
    free(table->series);
}

const RunCell *run_table_best(const RunTable *table, const RunSeries *series)
{
    const RunCell *best = NULL;
    bool by_objective = true;
    for (size_t c = series->from; c < series->to; c++) {
        by_objective =
            by_objective && (table->cells[c].n == 0 || !isnan(table->cells[c].objective));
    }
    double sign = !by_objective && table->less_is_better ? -1 : 1, highest = NAN;
    for (size_t c = series->from; c < series->to; c++) {
        const RunCell *cell = &table->cells[c];
        double value = sign * (by_objective ? cell->objective : cell->mean);
        if (cell->n && !isnan(value) && !(value <= highest)) {
            highest = value;
            best = cell;
        }
    }
    return best;
}

void run_rate_label(Text *out, double lr)
{
    char digits[32];
    if (!(lr > 0)) {
        text_printf(out, isnan(lr) ? "no rate" : "%.3g", lr);
        return;
    }
    if (lr >= 0.01 && lr < 1000) {
        text_printf(out, "%.3g", lr);
        return;
    }
    snprintf(digits, sizeof digits, "%.2e", lr); /* 2.50e-05 */
    int exponent = atoi(strchr(digits, 'e') + 1);
    double mantissa = atof(digits);
    mantissa /= pow(10, exponent);
    if (fabs(mantissa - 1) < 0.004) {
        text_printf(out, "10^{%d}", exponent);
    } else {
        text_printf(out,
                    "%.3g\xc3\x97"
                    "10^{%d}",
                    mantissa, exponent);
    }
}

static void add_tick(Text *out, double value)
{
    text_add(out, out->n ? ", '" : "'");
    run_rate_label(out, value);
    text_printf(out, "' %.12g", value);
}

void run_log_ticks(Text *out, const double *values, size_t n, double low, double high)
{
    double decades = log10(high / low), last = 0;
    if (decades < 2.2) { /* values themselves, as far as their labels have room */
        for (size_t k = 0; k < n; k++) {
            if (values[k] >= low && values[k] <= high &&
                (last == 0 || log10(values[k] / last) > decades / 6)) {
                add_tick(out, values[k]);
                last = values[k];
            }
        }
        return;
    }
    int every = 1 + (int)(fmin(decades, 640) / 6.5);
    double end = fmin(log10(high) + 1e-9, 320);
    for (int e = (int)fmax(ceil(log10(low) - 1e-9), -320); e <= end; e += every) {
        text_printf(out, out->n ? ", '10^{%d}' 1e%d" : "'10^{%d}' 1e%d", e, e);
    }
}

void run_about(FigureDraft *draft, const RunTable *table, const char *what)
{
    draft_about(draft, "%s: %s", draft->kind->title, what);
    draft_about(draft, "results.db: experiment %s, %zu runs", draft->request->experiment,
                table->frame.n_rows);
    if (table->task) {
        draft_about(draft, "scored by %s on %s",
                    draft->request->metric ? draft->request->metric : "reward", table->task);
    } else {
        draft_about(draft, "values are the runs' objectives: none was scored");
    }
}
