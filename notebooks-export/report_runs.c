/* An experiment's runs, what they scored, and the sentence that sums it up. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/statistics.h"
#include "notebooks-export/report_parts.h"

static const char runs_sql[] =
    "SELECT r.run_id, r.kind, r.method, r.adapter, r.budget, r.lr, CAST(r.seed AS TEXT) AS seed, "
    "r.state, r.last_step, r.steps, r.objective, r.reason, r.model, coalesce(p.point, r.adapter) "
    "AS "
    "point, coalesce(p.setting, '') AS setting FROM run r LEFT JOIN run_point p USING (run_id) "
    "WHERE r.run_id IN "
    "(SELECT run_id FROM experiment_run WHERE experiment = ?1 UNION SELECT e.base_run_id FROM "
    "experiment_run m JOIN evaluation e USING (run_id) WHERE m.experiment = ?1) "
    "ORDER BY r.kind = 'run', r.model, r.method, r.adapter, r.budget, setting, r.lr, "
    "r.seed, r.run_id";

static const char scores_sql[] =
    "SELECT coalesce(task, '') AS task, coalesce(extractor, 'objective') AS extractor, kind, "
    "run_id, "
    "step, n, value, standard_error, base_value, gain, p_value FROM best_runs WHERE experiment = "
    "?1 "
    "AND value IS NOT NULL ORDER BY task, extractor, kind = 'run', place, run_id";

typedef struct {
    const char *id;
    size_t row;
} Named;

static int by_id(const void *a, const void *b)
{
    return strcmp(((const Named *)a)->id, ((const Named *)b)->id);
}

static void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n + 1, size);
    if (!memory) {
        abort();
    }
    return memory;
}

/* Where in runs each score's run is. */
static void find_runs(ReportExperiment *e)
{
    Named *named = allocate(e->runs.n_rows, sizeof *named);
    for (size_t i = 0; i < e->runs.n_rows; i++) {
        named[i] = (Named){text_at(&e->runs, "run_id", i), i};
    }
    qsort(named, e->runs.n_rows, sizeof *named, by_id);
    e->run_of = allocate(e->scores.n_rows, sizeof *e->run_of);
    for (size_t i = 0; i < e->scores.n_rows; i++) {
        Named key = {text_at(&e->scores, "run_id", i), 0};
        const Named *found = bsearch(&key, named, e->runs.n_rows, sizeof *named, by_id);
        e->run_of[i] = found ? found->row : SIZE_MAX;
    }
    free(named);
}

static bool same_text(const Frame *frame, const char *column, size_t a, size_t b)
{
    const char *x = text_at(frame, column, a), *y = text_at(frame, column, b);
    return x && y && strcmp(x, y) == 0;
}

static bool same_number(const Frame *frame, const char *column, size_t a, size_t b)
{
    double x = frame_number(frame, column, a), y = frame_number(frame, column, b);
    return x == y || (isnan(x) && isnan(y));
}

static void number_cells(ReportExperiment *e)
{
    e->cell = allocate(e->runs.n_rows, sizeof *e->cell);
    for (size_t i = 0; i < e->runs.n_rows; i++) {
        bool same =
            i > 0 && same_text(&e->runs, "kind", i, i - 1) &&
            same_text(&e->runs, "method", i, i - 1) && same_text(&e->runs, "adapter", i, i - 1) &&
            same_text(&e->runs, "model", i, i - 1) && same_number(&e->runs, "budget", i, i - 1) &&
            same_text(&e->runs, "setting", i, i - 1) && same_number(&e->runs, "lr", i, i - 1);
        e->n_cells += !same;
        e->cell[i] = e->n_cells - 1;
    }
}

static bool is_run(const ReportExperiment *e, size_t score_row)
{
    return strcmp(text_at(&e->scores, "kind", score_row), "run") == 0;
}

/* Scores of one task and extractor lie together; their p-values are adjusted together. */
static void split_scores(ReportExperiment *e)
{
    e->score = allocate(e->scores.n_rows, sizeof *e->score);
    e->holm = allocate(e->scores.n_rows, sizeof *e->holm);
    double *p = allocate(e->scores.n_rows, sizeof *p);
    for (size_t i = 0; i < e->scores.n_rows; i++) {
        p[i] = frame_number(&e->scores, "p_value", i);
        if (i == 0 || !same_text(&e->scores, "task", i, i - 1) ||
            !same_text(&e->scores, "extractor", i, i - 1)) {
            ReportScore *score = &e->score[e->n_scores++];
            score->task = text_at(&e->scores, "task", i);
            score->extractor = text_at(&e->scores, "extractor", i);
            score->less = strcmp(score->extractor, "nll") == 0;
            score->first = i;
        }
        ReportScore *score = &e->score[e->n_scores - 1];
        score->n++;
        score->n_base += !is_run(e, i);
        score->n_tests += isfinite(p[i]);
    }
    for (size_t i = 0; i < e->n_scores; i++) {
        statistics_holm(e->holm + e->score[i].first, p + e->score[i].first, e->score[i].n);
    }
    free(p);
}

/* The score that the runs were judged by has their objectives as its values. */
static void choose_main(ReportExperiment *e)
{
    double best = -1;
    for (size_t i = 0; i < e->n_scores; i++) {
        const ReportScore *score = &e->score[i];
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): split_scores names each */
        double fit = strcmp(score->extractor, "reward") == 0 ? 0.5 : 0;
        for (size_t row = score->first; row < score->first + score->n; row++) {
            size_t run = e->run_of[row];
            fit +=
                run != SIZE_MAX && is_run(e, row) &&
                frame_number(&e->runs, "objective", run) == frame_number(&e->scores, "value", row);
        }
        if (fit > best) {
            best = fit;
            e->main = i;
        }
    }
}

Status report_experiment_read(ReportExperiment *e, Store *store, Error *error)
{
    Status status = frame_read(&e->runs, store, runs_sql, &e->name, 1, error);
    status = status ? status : frame_read(&e->scores, store, scores_sql, &e->name, 1, error);
    if (!status) {
        find_runs(e);
        number_cells(e);
        split_scores(e);
        choose_main(e);
    }
    return status;
}

void report_experiment_release(ReportExperiment *e)
{
    frame_release(&e->runs);
    frame_release(&e->scores);
    free(e->run_of);
    free(e->holm);
    free(e->cell);
    free(e->score);
}

size_t report_best(const ReportExperiment *e)
{
    const ReportScore *score = e->n_scores ? &e->score[e->main] : NULL;
    return score && score->n_base < score->n ? score->first + score->n_base : SIZE_MAX;
}

static void add_score(Text *html, const Frame *scores, size_t row)
{
    double value = frame_number(scores, "value", row);
    double standard_error = frame_number(scores, "standard_error", row);
    html_estimate(html, value, standard_error);
    if (isfinite(standard_error)) {
        text_add(html, " \xc2\xb1 ");
        html_estimate(html, standard_error, standard_error);
    }
}

/* "against the base's 0.36 ± 0.02: +0.31 (p ..., Holm-adjusted ...): a gain." */
static void add_verdict(Text *html, const ReportExperiment *e, const ReportScore *score, size_t row)
{
    double base = frame_number(&e->scores, "base_value", row);
    double gain = frame_number(&e->scores, "gain", row);
    double p = frame_number(&e->scores, "p_value", row);
    if (!isfinite(base)) {
        text_add(html, "; it was not compared with the base model");
        return;
    }
    text_add(html, " against the base model\xe2\x80\x99s ");
    size_t base_row = score->first;
    while (base_row < score->first + score->n_base &&
           frame_number(&e->scores, "value", base_row) != base) {
        base_row++;
    }
    if (base_row < score->first + score->n_base) {
        add_score(html, &e->scores, base_row);
    } else {
        html_number(html, base, 4);
    }
    text_printf(html, ", %s", gain < 0 ? "\xe2\x88\x92" : "+");
    html_estimate(html, fabs(gain), frame_number(&e->scores, "standard_error", row));
    if (!isfinite(p)) {
        text_add(html, " (no paired test is stored)");
        return;
    }
    text_add(html, " (paired p = ");
    html_p_value(html, p);
    text_printf(html, ", Holm-adjusted over %zu run%s ", score->n_tests,
                score->n_tests == 1 ? "" : "s");
    html_p_value(html, e->holm[row]);
    text_add(html, "): <strong>");
    text_add(html, e->holm[row] >= 0.05        ? "not told apart from noise"
                   : (gain > 0) != score->less ? "a gain"
                                               : "worse than the base");
    text_add(html, "</strong>");
}

/* The same run under the same extractor on other rows. */
static void add_other_tasks(Text *html, const ReportExperiment *e, size_t best)
{
    const ReportScore *main = &e->score[e->main];
    for (size_t i = 0; i < e->n_scores; i++) {
        const ReportScore *score = &e->score[i];
        if (i == e->main || strcmp(score->extractor, main->extractor) != 0) {
            continue;
        }
        for (size_t row = score->first + score->n_base; row < score->first + score->n; row++) {
            if (e->run_of[row] == e->run_of[best]) {
                text_add(html, "; on <q>");
                html_text(html, score->task);
                text_add(html, "</q> it scores ");
                add_score(html, &e->scores, row);
                add_verdict(html, e, score, row);
            }
        }
    }
}

static void add_counts(Text *html, const Frame *runs)
{
    static const char *const states[] = {"done", "running", "waiting", "failed", "cancelled"};
    size_t n_runs = 0, count[5] = {0};
    for (size_t i = 0; i < runs->n_rows; i++) {
        bool run = strcmp(text_at(runs, "kind", i), "run") == 0;
        n_runs += run;
        for (int j = 0; run && j < 5; j++) {
            count[j] += strcmp(text_at(runs, "state", i), states[j]) == 0;
        }
    }
    text_printf(html, "%zu run%s", n_runs, n_runs == 1 ? "" : "s");
    const char *divider = " (";
    for (int j = 0; j < 5; j++) {
        if (count[j]) {
            text_printf(html, "%s%zu %s", divider, count[j], states[j]);
            divider = ", ";
        }
    }
    text_add(html, n_runs ? "). " : ". ");
}

void report_sentence(Text *html, const ReportExperiment *e)
{
    add_counts(html, &e->runs);
    size_t best = report_best(e), run = best == SIZE_MAX ? SIZE_MAX : e->run_of[best];
    if (run == SIZE_MAX) {
        text_add(html, "No run has a score yet.");
        return;
    }
    const ReportScore *score = &e->score[e->main];
    text_add(html, "The best is <code>");
    html_text(html, text_at(&e->runs, "run_id", run));
    text_add(html, "</code> (");
    html_text(html, text_at(&e->runs, "method", run));
    text_add(html, ", ");
    html_text(html, text_at(&e->runs, "adapter", run));
    text_printf(html, ", %.0f scalars, learning rate %g, seed ",
                frame_number(&e->runs, "budget", run), frame_number(&e->runs, "lr", run));
    html_text(html, text_at(&e->runs, "seed", run));
    text_add(html, "): ");
    html_text(html, score->extractor);
    text_add(html, " ");
    add_score(html, &e->scores, best);
    if (*score->task) {
        text_add(html, " on <q>");
        html_text(html, score->task);
        text_add(html, "</q>");
    }
    add_verdict(html, e, score, best);
    add_other_tasks(html, e, best);
    text_add(html, ".");
}
