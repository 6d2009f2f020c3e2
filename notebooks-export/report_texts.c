/* What a person reads: sampled answers, what went wrong, how to do it again. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "notebooks-export/report_parts.h"

enum {
    ANSWER_BYTES = 4000, /* shown of a text */
    EVENTS_SHOWN = 100
};

/* Texts travel as hexadecimal: a completion may hold NUL. Ordered by ?2: best, worst or last; an
 * answer comes once, and other prompts come before further answers to the same one. */
static const char answers_sql[] =
    "WITH answer AS (SELECT rowid AS r, prompt_row, step, prompt, sample, CASE ?2 WHEN 'best' THEN "
    "-reward WHEN 'worst' THEN reward ELSE -step END AS sort, row_number() OVER (PARTITION BY "
    "prompt_row, n_tokens, substr(text, 1, 200), reward ORDER BY step DESC, prompt, sample) AS "
    "again "
    "FROM completion WHERE run_id = ?1), turn AS (SELECT r, sort, step, prompt, sample, "
    "row_number() "
    "OVER (PARTITION BY prompt_row ORDER BY sort NULLS LAST, step DESC, prompt, sample) AS nth "
    "FROM "
    "answer WHERE again = 1), chosen AS (SELECT * FROM turn ORDER BY sort NULLS LAST, nth, step "
    "DESC, "
    "prompt, sample LIMIT 3) SELECT c.step, c.prompt_row, c.reward, c.advantage, c.finish, "
    "c.n_tokens, "
    "hex(c.prompt_text) AS prompt_text, hex(c.text) AS answer_text FROM chosen h JOIN completion c "
    "ON "
    "c.rowid = h.r ORDER BY h.sort NULLS LAST, h.nth, h.step DESC, h.prompt, h.sample";

/* Where a run was not trained by sampling: what it answered when it was last evaluated. */
static const char evaluated_sql[] =
    "SELECT c.step, c.row AS prompt_row, v.score AS reward, NULL AS advantage, v.extracted AS "
    "finish, "
    "c.n_tokens, hex(c.answer) AS prompt_text, hex(c.text) AS answer_text FROM eval_completion c "
    "JOIN "
    "evaluation e ON e.run_id = c.run_id AND e.step = c.step AND e.task = c.task AND e.extractor = "
    "'reward' LEFT JOIN eval_verdict v ON v.evaluation_id = e.evaluation_id AND v.row = c.row AND "
    "v.sample = c.sample WHERE c.run_id = ?1 AND c.step = (SELECT max(step) FROM eval_completion "
    "WHERE "
    "run_id = ?1) ORDER BY CASE ?2 WHEN 'best' THEN -v.score WHEN 'worst' THEN v.score END NULLS "
    "LAST, "
    "CASE ?2 WHEN 'last' THEN -c.row ELSE c.row END, c.sample LIMIT 3";

static const char events_sql[] =
    "SELECT e.kind, e.step, e.message, datetime(e.at, 'unixepoch') AS at, coalesce(e.run_id, "
    "'surface ' || e.surface_id, '') AS place FROM event e WHERE e.run_id IN (SELECT run_id FROM "
    "experiment_run WHERE experiment = ?1) OR e.surface_id IN (SELECT surface_id FROM surface "
    "WHERE "
    "experiment = ?1) ORDER BY e.event_id DESC LIMIT 101";

static const char kinds_sql[] = "SELECT e.kind, count(*) AS n FROM event e WHERE e.run_id IN "
                                "(SELECT run_id FROM experiment_run "
                                "WHERE experiment = ?1) OR e.surface_id IN (SELECT surface_id FROM "
                                "surface WHERE experiment = ?1) "
                                "GROUP BY e.kind ORDER BY n DESC, e.kind";

static const char failed_sql[] = "SELECT r.run_id AS id, r.state, r.reason, r.last_step AS done "
                                 "FROM experiment_run m JOIN run r "
                                 "USING (run_id) WHERE m.experiment = ?1 AND r.state IN ('failed', "
                                 "'cancelled') UNION ALL SELECT "
                                 "'surface ' || s.surface_id, s.state, s.reason, NULL FROM surface "
                                 "s WHERE s.experiment = ?1 AND "
                                 "s.state IN ('failed', 'cancelled') ORDER BY 1";

static const char reproduce_sql[] = "SELECT config, CASE WHEN json_valid(config) THEN "
                                    "coalesce(json_extract(config, '$.method'), '') "
                                    "END AS method, CASE WHEN json_valid(config) THEN "
                                    "json_type(config, '$.sweep') END AS sweep FROM "
                                    "experiment WHERE name = ?1";

static const char best_sql[] = "SELECT config, method FROM run WHERE run_id = ?1";

static const char environments_sql[] =
    "SELECT DISTINCT a.environment FROM experiment_run m JOIN attempt a USING (run_id) WHERE "
    "m.experiment = ?1 ORDER BY a.environment";

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c - 'A' + 10;
}

/* The bytes that hex stands for, as HTML. */
static void add_bytes(Text *html, const char *hex)
{
    Text bytes = {0};
    size_t n = hex ? strlen(hex) / 2 : 0, shown = n < ANSWER_BYTES ? n : ANSWER_BYTES;
    for (size_t i = 0; i < shown; i++) {
        char byte = (char)(digit(hex[2 * i]) * 16 + digit(hex[2 * i + 1]));
        text_append(&bytes, &byte, 1);
    }
    html_bytes(html, text_string(&bytes), bytes.n);
    if (shown < n) {
        text_printf(html, "</pre><p class=\"note\">%zu more bytes.</p><pre hidden>", n - shown);
    }
    text_release(&bytes);
}

static void add_answer(Text *html, const Frame *answers, size_t row, bool trained)
{
    text_add(html, "<article class=\"answer\"><p class=\"facts\">");
    text_printf(html, "step %.0f, row %.0f of the data, reward <strong>",
                frame_number(answers, "step", row), frame_number(answers, "prompt_row", row));
    html_number(html, frame_number(answers, "reward", row), 4);
    text_add(html, "</strong>");
    if (trained) {
        text_add(html, ", advantage ");
        html_number(html, frame_number(answers, "advantage", row), 3);
    }
    text_printf(html, ", %.0f tokens", frame_number(answers, "n_tokens", row));
    if (trained && strcmp(text_at(answers, "finish", row), "length") == 0) {
        text_add(html, ", cut off at the limit of length");
    }
    text_printf(html, "</p>\n<p class=\"role\">%s</p><pre dir=\"auto\">",
                trained ? "prompt" : "reference answer");
    add_bytes(html, text_at(answers, "prompt_text", row));
    text_add(html, "</pre>\n<p class=\"role\">answer</p><pre dir=\"auto\">");
    add_bytes(html, text_at(answers, "answer_text", row));
    text_add(html, "</pre></article>\n");
}

Status report_answers(Text *html, Store *store, const char *run_id, Error *error)
{
    static const char *const sorts[][2] = {
        {"best", "Best rewarded"}, {"worst", "Worst rewarded"}, {"last", "Last sampled"}};
    bool any = false;
    Status status = STATUS_OK;
    for (int i = 0; !status && i < 3; i++) {
        Frame answers = {0};
        const char *const binds[] = {run_id, sorts[i][0]};
        status = frame_read(&answers, store, answers_sql, binds, 2, error);
        bool trained = answers.n_rows > 0;
        if (!status && !trained) {
            frame_release(&answers);
            answers = (Frame){0};
            status = frame_read(&answers, store, evaluated_sql, binds, 2, error);
        }
        if (!status && answers.n_rows && !any) {
            any = true;
            text_printf(
                html, "<h3>Sampled answers of the best run</h3>\n<p class=\"note\">%s</p>\n",
                trained
                    ? "While it was trained; the newest of equal rewards first, each prompt in its "
                      "turn."
                    : "When it was last evaluated.");
        }
        for (size_t row = 0; !status && row < answers.n_rows; row++) {
            if (row == 0) {
                text_printf(html, "<details%s><summary>%s</summary>\n", i == 0 ? " open" : "",
                            sorts[i][1]);
            }
            add_answer(html, &answers, row, trained);
            text_add(html, row + 1 == answers.n_rows ? "</details>\n" : "");
        }
        frame_release(&answers);
    }
    return status;
}

static void add_failed(Text *html, const Frame *failed)
{
    if (!failed->n_rows) {
        return;
    }
    text_add(
        html,
        "<div class=\"scroll\" tabindex=\"0\"><table><caption>Failed and "
        "cancelled</caption><thead><tr><th scope=\"col\">run</th><th scope=\"col\">state</th>"
        "<th scope=\"col\" class=\"n\">last step</th><th scope=\"col\">reason</th></tr></thead>"
        "<tbody>\n");
    for (size_t i = 0; i < failed->n_rows; i++) {
        text_add(html, "<tr><th scope=\"row\"><code>");
        html_text(html, text_at(failed, "id", i));
        text_add(html, "</code></th><td class=\"state failed\">");
        html_text(html, text_at(failed, "state", i));
        text_add(html, "<td class=\"n\">");
        html_number(html, frame_number(failed, "done", i), 15);
        text_add(html, "<td class=\"wide\">");
        html_text(html, text_at(failed, "reason", i));
        text_add(html, "</tr>\n");
    }
    text_add(html, "</tbody></table></div>\n");
}

static void add_events(Text *html, const Frame *events)
{
    text_printf(html,
                "<details><summary>The newest %zu</summary><div class=\"scroll\" "
                "tabindex=\"0\"><table><thead><tr><th scope=\"col\">at (UTC)</th><th "
                "scope=\"col\">kind</th><th scope=\"col\">run</th><th scope=\"col\" "
                "class=\"n\">step</th><th scope=\"col\">message</th></tr></thead><tbody>\n",
                events->n_rows < EVENTS_SHOWN ? events->n_rows : EVENTS_SHOWN);
    for (size_t i = 0; i < events->n_rows && i < EVENTS_SHOWN; i++) {
        text_add(html, "<tr><td>");
        html_text(html, text_at(events, "at", i));
        text_add(html, "<td>");
        html_text(html, text_at(events, "kind", i));
        text_add(html, "<td><code>");
        html_text(html, text_at(events, "place", i));
        text_add(html, "</code><td class=\"n\">");
        html_number(html, frame_number(events, "step", i), 15);
        text_add(html, "<td class=\"wide\">");
        html_text(html, text_at(events, "message", i));
        text_add(html, "</tr>\n");
    }
    text_add(html, "</tbody></table></div></details>\n");
}

Status report_events(Text *html, Store *store, const char *experiment, Error *error)
{
    Frame failed = {0}, kinds = {0}, events = {0};
    Status status = frame_read(&failed, store, failed_sql, &experiment, 1, error);
    status = status ? status : frame_read(&kinds, store, kinds_sql, &experiment, 1, error);
    status = status ? status : frame_read(&events, store, events_sql, &experiment, 1, error);
    if (!status) {
        text_add(html, "<h3>Events and failures</h3>\n");
        add_failed(html, &failed);
        if (events.n_rows) {
            text_add(html, "<p>");
            for (size_t i = 0; i < kinds.n_rows; i++) {
                text_printf(html, "%s%.0f \xc3\x97 ", i ? ", " : "", frame_number(&kinds, "n", i));
                html_text(html, text_at(&kinds, "kind", i));
            }
            text_add(html, ".</p>\n");
            add_events(html, &events);
        } else {
            text_add(html,
                     failed.n_rows ? "" : "<p>Nothing failed, and no event was recorded.</p>\n");
        }
    }
    frame_release(&failed);
    frame_release(&kinds);
    frame_release(&events);
    return status;
}

static void add_command(Text *html, const char *before, const char *name, const char *after)
{
    text_add(html, before);
    html_shell_word(html, name);
    text_add(html, after);
    text_add(html, "\n");
}

/* The best run by itself: its resolved configuration. */
static void add_best(Text *html, const Frame *best, const char *run_id)
{
    char file[64];
    snprintf(file, sizeof file, "run-%.8s.json", run_id);
    text_add(html, "<details><summary>Configuration of the best run</summary>\n<p>Saved as <code>");
    html_shell_word(html, file);
    text_add(html, "</code>, it is computed by</p>\n<pre class=\"code\">");
    text_add(html, "tinylora ");
    html_shell_word(html, text_at(best, "method", 0));
    add_command(html, " ", file, "");
    text_add(html, "</pre>\n<pre class=\"code\">");
    html_text(html, text_at(best, "config", 0));
    text_add(html, "</pre></details>\n");
}

Status report_reproduce(Text *html, Store *store, const ReportExperiment *e, Error *error)
{
    Frame experiment = {0}, environments = {0}, best = {0};
    size_t row = report_best(e);
    const char *run_id = row == SIZE_MAX ? NULL : text_at(&e->scores, "run_id", row);
    Status status = frame_read(&experiment, store, reproduce_sql, &e->name, 1, error);
    status = status ? status : frame_read(&best, store, best_sql, &run_id, 1, error);
    status =
        status ? status : frame_read(&environments, store, environments_sql, &e->name, 1, error);
    if (!status && experiment.n_rows) {
        const char *method = frame_text(&experiment, "method", 0);
        const char *verb = frame_text(&experiment, "sweep", 0)     ? "sweep"
                           : method && strcmp(method, "scan") == 0 ? "scan"
                           : method && strcmp(method, "sft") == 0  ? "sft"
                                                                   : "grpo";
        Text file = {0};
        text_printf(&file, "%s.json", e->name);
        text_add(html, "<h3>How to reproduce</h3>\n<p>Save the configuration below as <code>");
        html_shell_word(html, text_string(&file));
        text_add(html, "</code>, then:</p>\n<pre class=\"code\">tinylora ");
        text_add(html, verb);
        add_command(html, " ", text_string(&file), "");
        if (run_id) {
            add_command(html, "tinylora best --experiment ", e->name, "");
            add_command(html, "tinylora show ", run_id, "");
        }
        add_command(html, "tinylora export report --experiment ", e->name, "");
        text_add(html, "</pre>\n<details><summary>Configuration</summary><pre class=\"code\">");
        html_text(html, text_at(&experiment, "config", 0));
        text_add(html, "</pre></details>\n");
        if (best.n_rows) {
            add_best(html, &best, run_id);
        }
        for (size_t i = 0; i < environments.n_rows; i++) {
            text_add(html, i ? "" : "<p class=\"note\">Computed with:</p>\n<ul class=\"note\">\n");
            text_add(html, "<li><code>");
            html_text(html, text_at(&environments, "environment", i));
            text_add(html, "</code>\n");
            text_add(html, i + 1 == environments.n_rows ? "</ul>\n" : "");
        }
        text_release(&file);
    }
    frame_release(&experiment);
    frame_release(&environments);
    frame_release(&best);
    return status;
}
