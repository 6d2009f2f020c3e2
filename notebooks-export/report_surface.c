/* A surface as a section of the page, with the tables that stand without scripts. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "notebooks-export/report_parts.h"

enum { EIGENVALUES_SHOWN = 32 };

static const char surface_sql[] =
    "SELECT s.surface_id, s.experiment, s.state, s.reason, s.model, s.run_id, s.n_parameters, "
    "s.metrics, "
    "s.x_label, s.y_label, s.nx, s.ny, s.x_min, s.x_max, s.y_min, s.y_max, s.config, (SELECT "
    "count(*) FROM "
    "surface_row r WHERE r.surface_id = s.surface_id AND r.state = 'done') AS rows_done FROM "
    "surface s "
    "WHERE s.surface_id = ?1";

static const char marks_sql[] = "SELECT kind, name, place, metric, x, y, distance, value FROM "
                                "surface_mark WHERE surface_id = ?1 "
                                "ORDER BY CASE kind WHEN 'base' THEN 1 WHEN 'best' THEN 2 WHEN "
                                "'minimum' THEN 3 WHEN 'run' THEN 4 "
                                "ELSE 5 END, name, place, metric";

static const char hessian_sql[] =
    "SELECT place, k, eigenvalue FROM surface_hessian WHERE surface_id = ?1 ORDER BY place, k";

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Metrics of a mark that say something of another one: of its error, or of the gain over the base.
 */
static bool is_beside(const char *metric)
{
    return ends_with(metric, "_se") || strcmp(metric, "gain") == 0 ||
           strcmp(metric, "p_value") == 0;
}

/* NaN when there is no such mark. suffix: of the metric's name, such as "_se". name: NULL: any. */
static double mark_value(const Frame *marks, const char *kind, const char *name, const char *metric,
                         const char *suffix)
{
    for (size_t i = 0; i < marks->n_rows; i++) {
        const char *other = text_at(marks, "metric", i);
        size_t n = strlen(metric);
        if (strcmp(text_at(marks, "kind", i), kind) == 0 &&
            (!name || strcmp(text_at(marks, "name", i), name) == 0) &&
            strncmp(other, metric, n) == 0 && strcmp(other + n, suffix) == 0) {
            return frame_number(marks, "value", i);
        }
    }
    return NAN;
}

static void add_cell(Text *html, double value)
{
    text_add(html, "<td class=\"n\">");
    html_number(html, value, 6);
}

static void marks_table(Text *html, const Frame *marks)
{
    bool any = false;
    for (size_t i = 0; i < marks->n_rows; i++) {
        if (strcmp(text_at(marks, "kind", i), "path") == 0) {
            continue;
        }
        const char *kind = text_at(marks, "kind", i), *name = text_at(marks, "name", i);
        const char *metric = text_at(marks, "metric", i);
        if (is_beside(metric)) {
            continue;
        }
        if (!any) {
            text_add(
                html,
                "<div class=\"scroll\" tabindex=\"0\"><table><caption>Marked points</caption>"
                "<thead><tr><th scope=\"col\">point</th><th scope=\"col\">metric</th><th "
                "scope=\"col\" class=\"n\">x</th><th scope=\"col\" class=\"n\">y</th><th "
                "scope=\"col\" class=\"n\">value</th><th scope=\"col\" class=\"n\">\xc2\xb1 "
                "SE</th><th "
                "scope=\"col\" class=\"n\">distance from the plane</th></tr></thead><tbody>\n");
            any = true;
        }
        text_add(html, "<tr><th scope=\"row\">");
        html_text(html, strcmp(kind, "base") == 0 ? "base model" : kind);
        if (*name && strcmp(name, kind) != 0) {
            text_add(html, " <code>");
            html_text(html, name);
            text_add(html, "</code>");
        }
        text_add(html, "</th><td>");
        html_text(html, metric);
        double error = mark_value(marks, kind, name, metric, "_se");
        add_cell(html, frame_number(marks, "x", i));
        add_cell(html, frame_number(marks, "y", i));
        add_cell(html, frame_number(marks, "value", i));
        text_add(html, "<td class=\"n\">");
        html_estimate(html, error, error);
        add_cell(html, frame_number(marks, "distance", i));
        text_add(html, "</tr>\n");
    }
    text_add(html, any ? "</tbody></table></div>\n" : "");
}

static void hessian_table(Text *html, const Frame *hessian)
{
    if (!hessian->n_rows) {
        return;
    }
    text_add(
        html,
        "<div class=\"scroll\" tabindex=\"0\"><table><caption>Eigenvalues of the Hessian of "
        "the loss by v (nats)</caption><thead><tr><th scope=\"col\">at</th><th scope=\"col\" "
        "class=\"n\">k</th><th scope=\"col\" class=\"n\">eigenvalue</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < hessian->n_rows; i++) {
        double k = frame_number(hessian, "k", i);
        if (k >= EIGENVALUES_SHOWN) {
            continue;
        }
        text_add(html, "<tr><th scope=\"row\">");
        html_text(html, text_at(hessian, "place", i));
        text_printf(html, "</th><td class=\"n\">%.0f<td class=\"n\">", k + 1);
        html_number(html, frame_number(hessian, "eigenvalue", i), 6);
        text_add(html, "</tr>\n");
    }
    text_add(html, "</tbody></table></div>\n");
}

static void add_heading(Text *html, const Frame *surface, size_t number)
{
    text_printf(html, "<section class=\"surface\" id=\"s%zu\"><h3>Surface <code>", number);
    html_text(html, text_at(surface, "surface_id", 0));
    const char *state = text_at(surface, "state", 0), *run = frame_text(surface, "run_id", 0);
    const char *reason = frame_text(surface, "reason", 0);
    double nx = frame_number(surface, "nx", 0), done = frame_number(surface, "rows_done", 0);
    text_printf(html, "</code></h3>\n<p>%.0f \xc3\x97 %.0f points, model ", nx,
                frame_number(surface, "ny", 0));
    html_text(html, text_at(surface, "model", 0));
    if (run) {
        text_add(html, ", a plane through run <code>");
        html_text(html, run);
        text_add(html, "</code>");
    }
    text_printf(html, ", %.0f scalars; ", frame_number(surface, "n_parameters", 0));
    if (strcmp(state, "done") == 0) {
        text_add(html, "done");
    } else {
        text_add(html, "<strong>");
        html_text(html, state);
        text_printf(html, ", %.0f of %.0f rows done</strong>", done, nx);
    }
    if (reason) {
        text_add(html, " (");
        html_text(html, reason);
        text_add(html, ")");
    }
    text_add(html, ".</p>\n");
}

/* ", 1.25 ± 0.02 at the base model"; the place of a mark other than the base's. */
static void add_mark(Text *html, const Frame *marks, const char *metric, const char *kind,
                     const char *words)
{
    for (size_t i = 0; i < marks->n_rows; i++) {
        double value = frame_number(marks, "value", i);
        if (strcmp(text_at(marks, "kind", i), kind) != 0 ||
            strcmp(text_at(marks, "metric", i), metric) != 0 || !isfinite(value)) {
            continue;
        }
        double error = mark_value(marks, kind, text_at(marks, "name", i), metric, "_se");
        html_number(html, value, 5);
        if (isfinite(error)) {
            text_add(html, " \xc2\xb1 ");
            html_estimate(html, error, error);
        }
        text_add(html, words);
        if (strcmp(kind, "base") != 0) {
            text_printf(html, " (%.4g, %.4g)", frame_number(marks, "x", i),
                        frame_number(marks, "y", i));
        }
        return;
    }
}

/* The minimum against the base, row by row. */
static void add_gain(Text *html, const Frame *marks)
{
    double gain = mark_value(marks, "minimum", NULL, "gain", "");
    double error = mark_value(marks, "minimum", NULL, "gain", "_se");
    double p = mark_value(marks, "minimum", NULL, "p_value", "");
    if (!isfinite(gain) || !isfinite(p)) {
        return;
    }
    text_add(html, ", where the loss is lower by ");
    html_estimate(html, gain, error);
    if (isfinite(error)) {
        text_add(html, " \xc2\xb1 ");
        html_estimate(html, error, error);
    }
    text_add(html, " than the base's (paired p = ");
    html_p_value(html, p);
    text_printf(html, "): <strong>%s</strong>",
                p >= 0.05  ? "not told apart from noise"
                : gain > 0 ? "a gain"
                           : "worse than the base");
}

Status report_surface_sentence(Text *html, Store *store, const char *surface_id, Error *error)
{
    static const char sql[] = "SELECT grid, state, rows_done, rows, metric FROM surface_list WHERE "
                              "surface_id = ?1";
    static const char *const places[][2] = {{"base", " at the base model"},
                                            {"best", " at the best point of the grid"},
                                            {"minimum", " at the refined minimum of the loss"}};
    Frame list = {0}, marks = {0};
    Status status = frame_read(&list, store, sql, &surface_id, 1, error);
    status = status ? status : frame_read(&marks, store, marks_sql, &surface_id, 1, error);
    if (!status && list.n_rows) {
        const char *state = text_at(&list, "state", 0), *metric = frame_text(&list, "metric", 0);
        html_text(html, text_at(&list, "grid", 0));
        text_add(html, " points, ");
        html_text(html, state);
        if (strcmp(state, "done") != 0) {
            text_printf(html, ", %.0f of %.0f rows", frame_number(&list, "rows_done", 0),
                        frame_number(&list, "rows", 0));
        }
        const char *divider = "; ";
        for (int k = 0; metric && k < 3; k++) {
            if (isfinite(mark_value(&marks, places[k][0], NULL, metric, ""))) {
                text_add(html, divider);
                if (*divider == ';') {
                    html_text(html, metric);
                    text_add(html, " ");
                }
                add_mark(html, &marks, metric, places[k][0], places[k][1]);
                divider = ", ";
            }
        }
        add_gain(html, &marks);
        text_add(html, ".");
    }
    frame_release(&list);
    frame_release(&marks);
    return status;
}

/* The command that computed it, with its configuration. */
static void add_command(Text *html, const Frame *surface)
{
    char file[64];
    snprintf(file, sizeof file, "surface-%.8s.json", text_at(surface, "surface_id", 0));
    text_add(html, "<details><summary>Configuration of this surface</summary>\n<p>Saved as <code>");
    html_shell_word(html, file);
    text_add(
        html,
        "</code>, it is computed, or gone on with, by</p>\n<pre class=\"code\">tinylora scan ");
    html_shell_word(html, file);
    text_add(html, "</pre>\n<pre class=\"code\">");
    html_text(html, text_at(surface, "config", 0));
    text_add(html, "</pre></details>\n");
}

Status report_surface(Text *html, Store *store, const char *surface_id, size_t number,
                      size_t budget, Error *error)
{
    Frame surface = {0}, marks = {0}, hessian = {0};
    Text json = {0};
    Status status = frame_read(&surface, store, surface_sql, &surface_id, 1, error);
    if (!status && surface.n_rows == 0) {
        status = error_set(error, STATUS_FAILED, "surface %s is gone", surface_id);
    }
    status = status ? status : frame_read(&marks, store, marks_sql, &surface_id, 1, error);
    status = status ? status : frame_read(&hessian, store, hessian_sql, &surface_id, 1, error);
    status = status ? status
                    : report_surface_json(&json, store, &surface, &marks, &hessian, budget, error);
    if (!status) {
        add_heading(html, &surface, number);
        text_add(html, "<div class=\"surface-view\"></div>\n");
        marks_table(html, &marks);
        hessian_table(html, &hessian);
        add_command(html, &surface);
        text_printf(html,
                    "<script type=\"application/json\" class=\"surface-data\" data-for=\"s%zu\">",
                    number);
        html_json(html, &json);
        text_add(html, "</script>\n</section>\n");
    }
    text_release(&json);
    frame_release(&surface);
    frame_release(&marks);
    frame_release(&hessian);
    return status;
}
