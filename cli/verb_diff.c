/* tinylora diff RUN RUN */
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/verbs.h"

/* Facts of both runs, side by side where they differ (?3 NULL) or all. Metrics: of the last step
 * that both have, with the first step at which they part. Environments: of the last attempt. */
static const char question[] =
    "WITH side(side, run_id) AS (VALUES ('a', ?1), ('b', ?2)), pair AS (SELECT * FROM side "
    "JOIN run USING (run_id)), common AS (SELECT min(last_step) AS step FROM pair), final AS "
    "(SELECT side, e.* FROM side JOIN evaluation e USING (run_id) WHERE e.step = (SELECT "
    "max(l.step) FROM evaluation l WHERE l.run_id = e.run_id AND l.task = e.task AND "
    "l.extractor = e.extractor)), process AS (SELECT side, a.* FROM side JOIN attempt a "
    "USING (run_id) WHERE a.n = (SELECT max(l.n) FROM attempt l WHERE l.run_id = a.run_id)), "
    "parted AS (SELECT key, min(step) AS step FROM (SELECT key, m.step AS step FROM metric m "
    "JOIN side USING (run_id), common WHERE m.step <= common.step AND key <> 'step_time' "
    "GROUP BY key, m.step HAVING count(*) < 2 OR count(value) NOT IN (0, count(*)) OR "
    "min(value) <> max(value)) GROUP BY key), fact(part, section, key, side, value, "
    "first_step) AS (SELECT 1, 'run', 'state', side, state, NULL FROM pair UNION ALL SELECT "
    "1, 'run', 'reason', side, reason, NULL FROM pair UNION ALL SELECT 1, 'run', 'step', "
    "side, last_step, NULL FROM pair UNION ALL SELECT 1, 'run', 'budget', side, budget, NULL "
    "FROM pair UNION ALL SELECT 1, 'run', 'objective', side, objective, NULL FROM pair UNION "
    "ALL SELECT 2, 'config', key, side, value, NULL FROM side JOIN param USING (run_id) "
    "UNION ALL SELECT 3, 'identity', j.key, side, j.value, NULL FROM pair, "
    "json_each(iif(json_valid(identity), identity, '{}')) j WHERE NOT EXISTS (SELECT 1 FROM "
    "param p JOIN side USING (run_id) WHERE p.key = j.key) UNION ALL SELECT 4, "
    "'environment', 'host', side, host, NULL FROM process UNION ALL SELECT 4, 'environment', "
    "j.key, side, j.value, NULL FROM process, json_each(iif(json_valid(environment), "
    "environment, '{}')) j UNION ALL SELECT 5, 'metric', k.key, side, k.value, parted.step "
    "FROM side JOIN metric k USING (run_id) JOIN common ON common.step = k.step LEFT JOIN "
    "parted ON parted.key = k.key WHERE k.key <> 'step_time' UNION ALL SELECT 6, "
    "'evaluation', extractor || ', ' || task, side, value, NULL FROM final) SELECT section, "
    "key, max(value) FILTER (WHERE side = 'a') AS a, max(value) FILTER (WHERE side = 'b') AS "
    "b, CASE WHEN min(typeof(value) IN ('integer', 'real')) AND count(*) = 2 THEN max(value) "
    "FILTER (WHERE side = 'b') - max(value) FILTER (WHERE side = 'a') END AS difference, "
    "max(first_step) AS first_step FROM fact GROUP BY part, section, key HAVING ?3 IS NOT "
    "NULL OR max(value) FILTER (WHERE side = 'a') IS NOT max(value) FILTER (WHERE side = "
    "'b') OR max(first_step) IS NOT NULL ORDER BY part, key";

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *words[2];
    bool all = false;
    const Option options[] = {{"--all", OPTION_FLAG, &all, 0, 0}};
    Store *store = NULL;
    StoredRun runs[2] = {{0}, {0}};
    Text out = {0};
    Status status = options_parse(cli, options, 1, argc, argv, words, 2, 2, error);
    status = status ? status : cli_open_store(cli, &store, error);
    for (int k = 0; k < 2 && !status; k++) {
        status = store_find_run(store, words[k], &runs[k], error);
    }
    if (!status) {
        const char *binds[] = {runs[0].run_id, runs[1].run_id, all ? "all" : NULL};
        status = query_run(store, question, binds, 3, cli->format, &out, error);
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    text_release(&out);
    free(runs[0].block);
    free(runs[1].block);
    store_close(store);
    return status;
}

const Verb verb_diff = {
    .name = "diff",
    .summary = "two runs side by side: config, environment, metrics",
    .usage = "RUN RUN [--all]",
    .help =
        "A row for everything that differs: settings, hashes of model and data, the machine and "
        "libraries of\n"
        "the last attempt, metrics at the last step that both have (first_step: where they part "
        "first), last\n"
        "evaluations. `adapter diff` compares the adapters themselves.\n\n"
        "  --all   what is equal too\n\n"
        "examples:\n"
        "  tinylora diff 3f2a 81bc\n"
        "  tinylora diff 3f2a 81bc --all -o json\n",
    .run = run,
};
