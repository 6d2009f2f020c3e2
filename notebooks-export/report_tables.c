/* Runs and scores as tables that stand without scripts, and as the data of the scripts. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "notebooks-export/report_parts.h"

enum { SCORES_SHOWN = 200 }; /* runs in the table of all extractors */

static const struct {
    const char *title, *hint;
    bool number;
} columns[] = {
    {"run", "start of the run_id", false},
    {"method", "how it was trained", false},
    {"adapter", "what was trained", false},
    {"scalars", "trained parameters", true},
    {"learning rate", "", true},
    {"seed", "", true},
    {"state", "", false},
    {"step", "committed of planned", true},
    {"score", "under the score chosen above", true},
    {"\xc2\xb1 SE", "standard error over rows", true},
    {"gain", "score less the base model's", true},
    {"p", "two-sided, paired by rows, against the base model", true},
    {"p (Holm)", "adjusted for all runs of the table", true},
    {"rows", "of the data that were scored", true},
};
enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

static void add_text_cell(Text *html, const char *text)
{
    text_add(html, "<td>");
    html_text(html, text);
}

static void add_number_cell(Text *html, double value, int digits)
{
    text_add(html, "<td class=\"n\">");
    html_number(html, value, digits);
}

static void add_estimate_cell(Text *html, double value, double standard_error)
{
    text_add(html, "<td class=\"n\">");
    html_estimate(html, value, standard_error);
}

static void add_run(Text *html, const ReportExperiment *e, size_t run, size_t score)
{
    const Frame *runs = &e->runs, *scores = &e->scores;
    const char *id = text_at(runs, "run_id", run);
    bool base = strcmp(text_at(runs, "kind", run), "base") == 0;
    text_printf(html, "<tr data-r=\"%zu\"%s><th scope=\"row\"><code title=\"", run,
                base && score == SIZE_MAX && e->n_scores ? " hidden" : "");
    html_text(html, id);
    text_add(html, "\">");
    if (base) {
        text_add(html, "base model");
    } else {
        html_start(html, id, 8);
    }
    text_add(html, "</code></th>");
    add_text_cell(html, base ? NULL : text_at(runs, "method", run));
    add_text_cell(html, base ? NULL : text_at(runs, "adapter", run));
    add_number_cell(html, frame_number(runs, "budget", run), 15);
    add_number_cell(html, frame_number(runs, "lr", run), 6);
    text_add(html, "<td class=\"n\">");
    html_text(html, text_at(runs, "seed", run));
    const char *state = text_at(runs, "state", run);
    text_add(html, "<td class=\"state ");
    html_text(html, base ? NULL : state);
    text_add(html, "\">");
    html_text(html, base ? NULL : state);
    text_add(html, "<td class=\"n\">");
    if (!base) {
        text_printf(html, "%.0f / %.0f", fmax(0, frame_number(runs, "last_step", run)),
                    frame_number(runs, "steps", run));
    }
    bool scored = score != SIZE_MAX;
    double error = scored ? frame_number(scores, "standard_error", score) : NAN;
    add_estimate_cell(html, scored ? frame_number(scores, "value", score) : NAN, error);
    add_estimate_cell(html, error, error);
    add_estimate_cell(html, scored ? frame_number(scores, "gain", score) : NAN, error);
    text_add(html, "<td class=\"n\">");
    html_p_value(html, scored ? frame_number(scores, "p_value", score) : NAN);
    text_add(html, "<td class=\"n\">");
    html_p_value(html, scored ? e->holm[score] : NAN);
    add_number_cell(html, scored ? frame_number(scores, "n", score) : NAN, 15);
    text_add(html, "</tr>\n");
}

void report_runs_table(Text *html, const ReportExperiment *e)
{
    text_add(html,
             "<div class=\"scroll tall\" tabindex=\"0\" role=\"region\" aria-label=\"table of "
             "runs\"><table class=\"runs\"><thead><tr>");
    for (int i = 0; i < N_COLUMNS; i++) {
        text_printf(html, "<th scope=\"col\"%s title=\"%s\">%s</th>",
                    columns[i].number ? " class=\"n\"" : "", columns[i].hint, columns[i].title);
    }
    text_add(html, "</tr></thead>\n<tbody class=\"base\">\n");
    size_t run = 0, *score_of = malloc((e->runs.n_rows + 1) * sizeof *score_of);
    if (!score_of) {
        abort();
    }
    const ReportScore *score = e->n_scores ? &e->score[e->main] : NULL;
    for (size_t i = 0; i < e->runs.n_rows; i++) {
        score_of[i] = SIZE_MAX;
    }
    for (size_t row = score ? score->first : 0; score && row < score->first + score->n; row++) {
        if (e->run_of[row] != SIZE_MAX) {
            score_of[e->run_of[row]] = row;
        }
    }
    for (; run < e->runs.n_rows && strcmp(text_at(&e->runs, "kind", run), "base") == 0; run++) {
        add_run(html, e, run, score_of[run]);
    }
    text_add(html, "</tbody>\n<tbody>\n");
    for (; run < e->runs.n_rows; run++) {
        add_run(html, e, run, score_of[run]);
    }
    text_add(html, "</tbody></table></div>\n");
    free(score_of);
}

/* The cell of a run under a score; an empty one where it has none. */
static void add_score_cell(Text *html, const ReportExperiment *e, const ReportScore *score,
                           size_t run)
{
    text_add(html, "<td class=\"n\">");
    for (size_t row = score->first; row < score->first + score->n; row++) {
        if (e->run_of[row] == run) {
            double error = frame_number(&e->scores, "standard_error", row);
            html_estimate(html, frame_number(&e->scores, "value", row), error);
            if (isfinite(error)) {
                text_add(html, " <small>\xc2\xb1 ");
                html_estimate(html, error, error);
                text_add(html, "</small>");
            }
            return;
        }
    }
}

/* All extractors of a task; rows in the order of the first of them. */
static void add_task(Text *html, const ReportExperiment *e, size_t from, size_t to)
{
    const ReportScore *order = &e->score[e->main >= from && e->main < to ? e->main : from];
    text_add(html, "<div class=\"scroll\" tabindex=\"0\"><table><caption>");
    html_text(html, order->task);
    text_add(html, "</caption><thead><tr><th scope=\"col\">run</th><th scope=\"col\" class=\"n\">"
                   "learning rate</th><th scope=\"col\" class=\"n\">seed</th>");
    for (size_t i = from; i < to; i++) {
        text_add(html, "<th scope=\"col\" class=\"n\">");
        html_text(html, e->score[i].extractor);
        text_add(html, "</th>");
    }
    text_add(html, "</tr></thead><tbody>\n");
    size_t shown = order->n < SCORES_SHOWN ? order->n : SCORES_SHOWN;
    for (size_t row = order->first; row < order->first + shown; row++) {
        size_t run = e->run_of[row];
        if (run == SIZE_MAX) {
            continue;
        }
        bool base = row < order->first + order->n_base;
        text_printf(html, "<tr%s><th scope=\"row\"><code>", base ? " class=\"base\"" : "");
        html_start(html, base ? "base model" : text_at(&e->runs, "run_id", run), base ? 10 : 8);
        text_add(html, "</code></th>");
        add_number_cell(html, frame_number(&e->runs, "lr", run), 6);
        text_add(html, "<td class=\"n\">");
        html_text(html, text_at(&e->runs, "seed", run));
        for (size_t i = from; i < to; i++) {
            add_score_cell(html, e, &e->score[i], run);
        }
        text_add(html, "</tr>\n");
    }
    text_add(html, "</tbody></table></div>\n");
    if (shown < order->n) {
        text_printf(html, "<p class=\"note\">The best %zu of %zu rows.</p>\n", shown, order->n);
    }
}

void report_scores_table(Text *html, const ReportExperiment *e)
{
    if (e->n_scores < 2) {
        return;
    }
    text_add(html, "<details><summary>Scores under every extractor</summary>\n");
    for (size_t from = 0, to; from < e->n_scores; from = to) {
        for (to = from; to < e->n_scores && strcmp(e->score[to].task, e->score[from].task) == 0;) {
            to++;
        }
        add_task(html, e, from, to);
    }
    text_add(html, "</details>\n");
}

static void add_column(Text *json, const char *name, const Frame *frame, const char *column,
                       size_t first, size_t n, int digits)
{
    text_printf(json, ",\"%s\":[", name);
    for (size_t i = 0; i < n; i++) {
        text_add(json, i ? "," : "");
        const char *text = frame_text(frame, column, first + i);
        if (text) {
            json_text(json, text);
        } else {
            json_number(json, frame_number(frame, column, first + i), digits);
        }
    }
    text_add(json, "]");
}

void report_runs_json(Text *json, const ReportExperiment *e)
{
    static const char *const of_run[] = {"run_id",    "kind",   "model", "method",
                                         "adapter",   "budget", "lr",    "seed",
                                         "last_step", "steps",  "state", "point"};
    static const char *const of_score[] = {"value", "standard_error", "base_value",
                                           "gain",  "p_value",        "n"};
    text_add(json, "\"name\":");
    json_text(json, e->name);
    text_printf(json, ",\"main\":%zu,\"runs\":{\"count\":%zu", e->main, e->runs.n_rows);
    for (size_t i = 0; i < sizeof of_run / sizeof of_run[0]; i++) {
        add_column(json, of_run[i], &e->runs, of_run[i], 0, e->runs.n_rows, 15);
    }
    text_add(json, ",\"cell\":[");
    for (size_t i = 0; i < e->runs.n_rows; i++) {
        text_printf(json, "%s%zu", i ? "," : "", e->cell[i]);
    }
    text_add(json, "]},\"scores\":[");
    for (size_t i = 0; i < e->n_scores; i++) {
        const ReportScore *score = &e->score[i];
        text_add(json, i ? ",\n{\"task\":" : "\n{\"task\":");
        json_text(json, score->task);
        text_add(json, ",\"extractor\":");
        json_text(json, score->extractor);
        text_printf(json, ",\"less\":%s,\"run\":[", score->less ? "true" : "false");
        for (size_t row = score->first; row < score->first + score->n; row++) {
            text_printf(json, "%s%zd", row > score->first ? "," : "",
                        e->run_of[row] == SIZE_MAX ? (ssize_t)-1 : (ssize_t)e->run_of[row]);
        }
        text_add(json, "]");
        for (size_t j = 0; j < sizeof of_score / sizeof of_score[0]; j++) {
            add_column(json, of_score[j], &e->scores, of_score[j], score->first, score->n, 6);
        }
        text_add(json, ",\"holm\":[");
        for (size_t row = score->first; row < score->first + score->n; row++) {
            text_add(json, row > score->first ? "," : "");
            json_number(json, e->holm[row], 3);
        }
        text_add(json, "]}");
    }
    text_add(json, "]");
}
