/* tinylora budgets */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "results/frame.h"

/* Scripts get whole rows of the view, people what tells points apart. ?1 experiment, ?2 task, ?3
 * extractor, ?4 the share of full training's gain that is looked for. The base model has a row of
 * its own. */
#define ROWS                                                                                       \
    "WITH row AS (SELECT *, budget > 0 AND share >= CAST(?4 AS REAL) AS reached FROM "             \
    "budget_table "                                                                                \
    "WHERE experiment = ?1 AND task = ?2 AND extractor = ?3), "                                    \
    "marked AS (SELECT *, reached AND budget = min(budget) FILTER (WHERE reached) OVER "           \
    "(PARTITION BY method) AS smallest FROM row), "                                                \
    "base AS (SELECT b.value, b.standard_error AS se, b.n, b.run_id FROM evaluation b "            \
    "WHERE b.task = ?2 AND b.extractor = ?3 AND b.run_id = (SELECT max(base_run_id) FROM row)) "
static const char whole[] = ROWS
    "SELECT method, adapter, point, budget, bytes, lr, seeds, n, value, se, seed_se, lowest, "
    "highest, base_value, gain, share, smallest, task, extractor, setting FROM marked "
    "UNION ALL SELECT NULL, NULL, 'base', 0, 0, NULL, NULL, n, value, se, NULL, NULL, NULL, value, "
    "0, NULL, 0, ?2, ?3, NULL FROM base ORDER BY method NULLS FIRST, budget, point";
static const char readable[] = ROWS
    "SELECT method, point, budget, bytes, lr, seeds, value, se, seed_se, lowest, highest, gain, "
    "full, smallest FROM ("
    "SELECT method, point, budget, bytes, lr, seeds, round(value, 4) AS value, round(se, 4) AS se, "
    "round(seed_se, 4) AS seed_se, round(lowest, 4) AS lowest, round(highest, 4) AS highest, "
    "round(gain, 4) AS gain, CASE WHEN share IS NOT NULL THEN printf('%.0f %%', 100 * share) END "
    "AS full, "
    "CASE WHEN smallest THEN printf('%.0f %%', 100 * CAST(?4 AS REAL)) ELSE '' END AS smallest "
    "FROM marked "
    "UNION ALL SELECT NULL, '(base model)', NULL, NULL, NULL, NULL, round(value, 4), round(se, 4), "
    "NULL, NULL, NULL, NULL, NULL, '' FROM base) ORDER BY method NULLS FIRST, budget, point";

/* The one experiment that has chosen runs, or the choice. */
static Status choose_experiment(Store *store, const char *given, Text *name, Error *error)
{
    Frame frame = {0};
    if (given) {
        text_add(name, given);
        return cli_check_experiment(store, given, error);
    }
    Status status = frame_read(&frame, store,
                               "SELECT DISTINCT experiment AS name FROM budget_table ORDER BY name",
                               NULL, 0, error);
    if (!status && frame.n_rows == 1) {
        text_add(name, frame_text(&frame, "name", 0));
    } else if (!status) {
        status = frame.n_rows
                     ? error_set(error, STATUS_USAGE,
                                 "--experiment: one of %zu is wanted, the first is \"%s\"",
                                 frame.n_rows, frame_text(&frame, "name", 0))
                     : error_set(error, STATUS_FAILED, "no experiment has scored runs yet");
    }
    frame_release(&frame);
    return status;
}

/* Test rows before held-out ones, then what most runs were scored on. */
static Status choose_task(Store *store, const char *experiment, const char *metric,
                          const char *given, Text *task, Error *error)
{
    Frame frame = {0};
    const char *binds[] = {experiment, metric, given};
    Status status =
        frame_read(&frame, store,
                   "SELECT task FROM budget_table WHERE experiment = ?1 AND extractor = "
                   "?2 AND task = coalesce(?3, task) GROUP BY task "
                   "ORDER BY max(test) DESC, sum(seeds) DESC, task LIMIT 1",
                   binds, 3, error);
    if (!status && frame.n_rows == 0) {
        status = error_set(error, STATUS_USAGE,
                           "experiment \"%s\": no done run was scored by \"%s\"%s%s%s", experiment,
                           metric, given ? " on \"" : "", given ? given : "", given ? "\"" : "");
    } else if (!status) {
        text_add(task, frame_text(&frame, "task", 0));
    }
    frame_release(&frame);
    return status;
}

/* A line a method, in words. */
static Status tell_smallest(const Cli *cli, Store *store, const char *const *binds, Error *error)
{
    Frame frame = {0};
    Status status = frame_read(
        &frame, store,
        ROWS "SELECT method, max(CASE WHEN smallest THEN budget END) AS budget, "
             "group_concat(CASE WHEN smallest THEN point END, ' or ') AS point, max(share) AS "
             "share FROM marked GROUP BY method ORDER BY method",
        binds, 4, error);
    for (size_t i = 0; i < frame.n_rows && !status; i++) {
        const char *method = frame_text(&frame, "method", i);
        const char *point = frame_text(&frame, "point", i);
        double budget = frame_number(&frame, "budget", i), share = frame_number(&frame, "share", i);
        double wanted = 100 * strtod(binds[3], NULL);
        if (point) {
            cli_note(cli, "%s: %.0f scalars (%s) are the fewest with %g %% of full training's gain",
                     method, budget, point, wanted);
        } else if (!isnan(share)) {
            cli_note(cli, "%s: no adapter has %g %% of full training's gain", method, wanted);
        } else {
            cli_note(cli, "%s: full training has no gain above its error to compare with", method);
        }
    }
    frame_release(&frame);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *experiment = NULL, *task = NULL, *metric = "reward";
    double share = 0.9;
    const Option options[] = {
        {"--experiment", OPTION_TEXT, &experiment, 0, 0},
        {"--task", OPTION_TEXT, &task, 0, 0},
        {"--metric", OPTION_TEXT, &metric, 0, 0},
        {"--share", OPTION_NUMBER, &share, 0, 10},
    };
    Store *store = NULL;
    Text name = {0}, chosen = {0};
    char written[32];
    Status status = options_parse(cli, options, 4, argc, argv, NULL, 0, 0, error);
    bool for_people = cli->format == FORMAT_TABLE || cli->format == FORMAT_MD;
    status = status ? status : cli_open_store(cli, &store, error);
    status = status ? status : choose_experiment(store, experiment, &name, error);
    status = status ? status : choose_task(store, text_string(&name), metric, task, &chosen, error);
    snprintf(written, sizeof written, "%.17g", share);
    const char *binds[] = {text_string(&name), text_string(&chosen), metric, written};
    if (!status && for_people) {
        cli_note(cli, "%s, %s, by %s", binds[0], binds[1], metric);
    }
    Text out = {0};
    status = status ? status
                    : query_run(store, for_people ? readable : whole, binds, 4, cli->format, &out,
                                error);
    status = status ? status : cli_write(text_string(&out), out.n, error);
    if (!status && for_people) {
        status = tell_smallest(cli, store, binds, error);
    }
    text_release(&out);
    text_release(&name);
    text_release(&chosen);
    store_close(store);
    return status;
}

const Verb verb_budgets = {
    .name = "budgets",
    .summary = "what each number of trained scalars buys, at the learning rate chosen for it",
    .usage = "[--experiment E] [--task T] [--metric M] [--share S]",
    .help = "One row a point of the plan space: parameters, bytes, the learning rate that was best "
            "on held-out\n"
            "rows (mean over seeds), and the score there: of the test rows where `eval CONFIG "
            "--chosen` has\n"
            "scored them, else of the held-out ones. se is over the rows of one run, seed_se over "
            "the seeds;\n"
            "full is the share of full training's gain where that is above two standard errors,\n"
            "smallest marks the fewest scalars that "
            "have S of it.\n\n"
            "  --experiment E   which one, where there are several\n"
            "  --task T         rows, as `best` names them\n"
            "  --metric M       reward (unless given) or the name of an extractor\n"
            "  --share S        of full training's gain, 0.9 unless given\n\n"
            "examples:\n"
            "  tinylora budgets --experiment abacus-budgets\n"
            "  tinylora budgets --experiment abacus-budgets --metric strict -o md\n",
    .run = run,
};
