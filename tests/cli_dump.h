/* What the tests of interruption share: all that runs leave in results.db, and comparing it. */
#pragma once
#include "results/query.h"
#include "tests/cli_scan.h"

/* Every row of every table of runs but what a clock or a process says (times, step_time, attempts,
 * numbers that only name rows): two files of the same work have the same text. */
static inline char *dump_runs(const char *db)
{
    static const char *const queries[] = {
        "SELECT run_id, kind, experiment, identity, config, model, method, adapter, budget, lr, "
        "seed, steps, last_step, state, reason, objective, objective_se FROM run ORDER BY run_id",
        "SELECT experiment, run_id FROM experiment_run ORDER BY 1, 2",
        "SELECT * FROM param ORDER BY run_id, key",
        "SELECT * FROM metric WHERE key <> 'step_time' ORDER BY run_id, step, key",
        "SELECT run_id, step, count(*) AS n FROM metric GROUP BY run_id, step ORDER BY 1, 2",
        "SELECT run_id, step, n_bytes, sha256, bytes FROM checkpoint ORDER BY run_id, step",
        "SELECT * FROM completion ORDER BY run_id, step, prompt, sample",
        "SELECT run_id, step, task, extractor, n, value, standard_error, base_run_id, base_value, "
        "p_value, detail FROM evaluation ORDER BY run_id, step, task, extractor",
        "SELECT * FROM eval_completion ORDER BY run_id, step, task, row, sample",
        "SELECT e.run_id, e.step, e.task, e.extractor, v.row, v.sample, v.extracted, v.correct, "
        "v.score FROM evaluation e JOIN eval_verdict v USING (evaluation_id) ORDER BY 1, 2, 3, 4, "
        "5, 6",
        "SELECT run_id, step, kind, message FROM event ORDER BY run_id, step, kind, message",
    };
    Store *store = NULL;
    Text all = {0};
    Error error = {{0}};
    if (store_open(&store, db, STORE_READ, 0, &error)) {
        fail_msg("%s", error.message);
    }
    for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
        if (query_run(store, queries[i], NULL, 0, FORMAT_JSON, &all, &error)) {
            fail_msg("%s: %s", queries[i], error.message);
        }
    }
    store_close(store);
    return all.bytes;
}

/* The file holds what `whole` says. */
static inline void assert_dump(const char *whole, const char *db)
{
    char *all = dump_runs(db);
    assert_same_surface(whole, all);
    free(all);
}
