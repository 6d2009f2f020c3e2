/* Rewards and lengths of the completions at the first and at the last tenth of the steps, side by
 * side; of each method and budget the best learning rate, its seeds together. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/figure_panels.h"
#include "analysis/figure_runs.h"

static const unsigned char body[] = {
#include "analysis_figures_histograms_gp.inc"
    0};

enum { VALUES_MAX = 12, BINS_MAX = 64 }; /* more distinct values are put into bins */

/* ?1 experiment, ?2 method, ?3 adapter, ?4 budget, ?5 rate. */
#define HISTOGRAM_SQL(column)                                                                      \
    "WITH member AS (SELECT r.run_id FROM experiment_run m JOIN run r USING (run_id)"              \
    " WHERE m.experiment = ?1 AND r.kind = 'run' AND r.method = ?2 AND r.adapter = ?3"             \
    " AND r.budget = CAST(?4 AS INTEGER) AND r.lr IS CAST(?5 AS REAL)),"                           \
    " steps AS (SELECT run_id, step, row_number() OVER (PARTITION BY run_id ORDER BY step) AS up," \
    " row_number() OVER (PARTITION BY run_id ORDER BY step DESC) AS down,"                         \
    " count(*) OVER (PARTITION BY run_id) AS n FROM (SELECT DISTINCT run_id, step FROM completion" \
    " WHERE run_id IN (SELECT run_id FROM member))),"                                              \
    " phases AS (SELECT run_id, step, up > max(1, n / 10) AS last FROM steps"                      \
    " WHERE up <= max(1, n / 10) OR down <= max(1, n / 10))"                                       \
    " SELECT p.last, c." column " AS value, count(*) AS n, sum(c.finish = 'length') AS cut,"       \
    " min(p.step) AS low, max(p.step) AS high FROM phases p JOIN completion c USING (run_id, "     \
    "step)"                                                                                        \
    " WHERE c." column " BETWEEN -1e300 AND 1e300 GROUP BY p.last, c." column                      \
    " ORDER BY c." column

typedef struct {
    double center[BINS_MAX], n[2][BINS_MAX]; /* first, last */
    size_t n_bins;
    bool bins; /* else a bar for each value */
    double width, total[2], cut[2], low[2], high[2];
} Histogram;

/* wide: lengths, whose values far apart would make bars too thin. */
static void count(Histogram *histogram, const Frame *frame, bool wide)
{
    double lowest = INFINITY, highest = -INFINITY, closest = INFINITY, before = NAN;
    size_t n_distinct = 0;
    for (int last = 0; last < 2; last++) {
        histogram->low[last] = INFINITY;
        histogram->high[last] = -INFINITY;
    }
    for (size_t k = 0; k < frame->n_rows; k++) {
        double value = frame_number(frame, "value", k);
        lowest = fmin(lowest, value);
        highest = fmax(highest, value);
        if (!(value == before)) {
            n_distinct++;
            closest = isnan(before) ? closest : fmin(closest, value - before);
        }
        before = value;
    }
    bool bins = n_distinct > VALUES_MAX || wide;
    histogram->bins = bins;
    double step = bins && highest > lowest ? figure_nice_step(highest - lowest, 20) : closest;
    step = wide ? fmax(1, step) : step;
    histogram->width = isinf(step) ? 1 : step;
    double origin = floor(lowest / histogram->width) * histogram->width;
    for (size_t k = 0; k < frame->n_rows; k++) {
        double value = frame_number(frame, "value", k);
        double center = bins ? origin + (floor((value - origin) / step) + 0.5) * step : value;
        size_t n = histogram->n_bins;
        if (n == 0 || center > histogram->center[n - 1] + histogram->width / 1e6) {
            if (n == BINS_MAX) {
                continue; /* a nice step gives far fewer */
            }
            histogram->center[histogram->n_bins++] = center;
        }
        bool last = frame_number(frame, "last", k) == 1;
        double times = frame_number(frame, "n", k);
        histogram->n[last][histogram->n_bins - 1] += times;
        histogram->total[last] += times;
        histogram->cut[last] += frame_number(frame, "cut", k);
        histogram->low[last] = fmin(histogram->low[last], frame_number(frame, "low", k));
        histogram->high[last] = fmax(histogram->high[last], frame_number(frame, "high", k));
    }
}

static void add_histogram(FigureDraft *draft, Panels *panels, const Histogram *histogram,
                          const RunSeries *series, double lr, bool lengths)
{
    char name[32];
    Text title = {0}, label = {0};
    double highest = 0;
    size_t number = panels->n + 1, n = histogram->n_bins;
    text_printf(&title, "%s, rate ", series->title);
    run_rate_label(&title, lr);
    text_add(&label, "completions (%)");
    draft_about(draft,
                "(panel %zu) %s, learning rate %.6g; steps %.0f to %.0f (%.0f completions), "
                "%.0f to %.0f (%.0f)",
                number, series->title, lr, histogram->low[0], histogram->high[0],
                histogram->total[0], histogram->low[1], histogram->high[1], histogram->total[1]);
    if (lengths) {
        draft_about(draft, "  ended by the length limit: %.3g %% first, %.3g %% last",
                    100 * histogram->cut[0] / histogram->total[0],
                    100 * histogram->cut[1] / histogram->total[1]);
    }
    snprintf(name, sizeof name, "panel %zu", number);
    draft_block(draft, name,
                lengths ? "length(tokens) first(%) last(%)" : "reward first(%) last(%)");
    for (size_t k = 0; k < n; k++) {
        draft_value(draft, histogram->center[k]);
        for (int last = 0; last < 2; last++) {
            double total = histogram->total[last];
            double share = total > 0 ? 100 * histogram->n[last][k] / total : 0;
            draft_value(draft, share);
            highest = fmax(highest, share);
        }
        text_add(&draft->data, "\n");
    }
    panels->panels[panels->n++] =
        (Panel){.title = title.bytes,
                .y_label = label.bytes,
                .x_low = histogram->center[0] - histogram->width * 0.75,
                .x_high = histogram->center[n - 1] + histogram->width * 0.75,
                .x_step = histogram->bins ? 0 : histogram->width,
                .y_low = 0,
                .y_high = 1.18 * highest, /* the title's room */
                .from = number,
                .to = number};
}

static Status add_series(FigureDraft *draft, Panels *panels, double *widths, const RunTable *table,
                         const RunSeries *series, bool lengths, Error *error)
{
    char budget[32], rate[32];
    const RunCell *cell = run_table_best(table, series);
    cell = cell ? cell : &table->cells[series->from];
    snprintf(budget, sizeof budget, "%.0f", series->budget);
    snprintf(rate, sizeof rate, "%.17g", cell->lr);
    const char *binds[] = {draft->request->experiment, series->method, series->adapter, budget,
                           isnan(cell->lr) ? NULL : rate};
    Frame frame = {0};
    Status status =
        frame_read(&frame, draft->request->store,
                   lengths ? HISTOGRAM_SQL("n_tokens") : HISTOGRAM_SQL("reward"), binds, 5, error);
    if (!status && frame.n_rows) {
        Histogram histogram = {0};
        count(&histogram, &frame, lengths);
        widths[panels->n] = histogram.width;
        add_histogram(draft, panels, &histogram, series, cell->lr, lengths);
    }
    frame_release(&frame);
    return status;
}

static Status build(FigureDraft *draft, bool lengths, bool *drawn, Error *error)
{
    static const LegendEntry entries[] = {
        {.title = "first tenth of the steps", .color = 0x0072b2, .patch = true},
        {.title = "last tenth of the steps", .color = 0xe69f00, .patch = true}};
    RunTable table = {0};
    Panels panels = {0};
    double widths[PANELS_MAX];
    FigureRequest runs = *draft->request;
    runs.metric = NULL;
    Status status = run_table_read(&table, &runs, error);
    if (!status) {
        run_about(draft, &table, "of each budget its best learning rate, seeds together");
    }
    for (size_t s = 0; s < table.n_series && !status; s++) {
        if (panels.n == PANELS_MAX) {
            draft_about(draft, "%zu more budgets have no room here", table.n_series - s);
            break;
        }
        status = add_series(draft, &panels, widths, &table, &table.series[s], lengths, error);
    }
    if (!status && panels.n) {
        draft_string(draft, "x_label", lengths ? "completion length (tokens)" : "reward");
        draft_numbers(draft, "widths", widths, panels.n);
        draft_legend(draft, panels_width(&panels), entries, 2);
        panels_add(draft, &panels);
        draft->body = body;
        *drawn = true;
    }
    panels_release(&panels);
    run_table_release(&table);
    return status;
}

Status figure_build_rewards(FigureDraft *draft, bool *drawn, Error *error)
{
    return build(draft, false, drawn, error);
}

Status figure_build_lengths(FigureDraft *draft, bool *drawn, Error *error)
{
    return build(draft, true, drawn, error);
}
