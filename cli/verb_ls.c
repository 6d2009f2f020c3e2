/* tinylora ls */
#include "cli/options.h"
#include "cli/verbs.h"
#include "results/frame.h"

#define CHOSEN " WHERE (?1 IS NULL OR experiment = ?1) AND state = coalesce(?2, state)"
static const char runs[] = "SELECT * FROM run_list" CHOSEN;
static const char surfaces[] = "SELECT * FROM surface_list" CHOSEN;
/* Scripts get whole rows of the view, people the columns that tell surfaces apart. */
static const char readable[] =
    "SELECT experiment, surface_id, state, grid, rows_done || ' of ' || rows AS rows, budget, "
    "run_id, metric, base_value AS base, best_value AS best, CASE WHEN best_value IS NOT NULL THEN "
    "printf('(%.4g, %.4g)', best_x, best_y) END AS at, model, reason, last_seen FROM "
    "surface_list" CHOSEN;

static Status has_rows(bool *has, Store *store, const char *sql, const char *const *binds,
                       Error *error)
{
    Frame frame = {0};
    Status status = frame_read(&frame, store, sql, binds, 2, error);
    *has = frame.n_rows > 0;
    frame_release(&frame);
    return status;
}

/* Tables for people have the surfaces below the runs, where there are any. */
static Status list_both(const Cli *cli, const char *const *binds, Error *error)
{
    Store *store;
    Text out = {0};
    bool has_runs = false, has_surfaces = false;
    Status status = cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    status = has_rows(&has_runs, store, runs, binds, error);
    status = status ? status : has_rows(&has_surfaces, store, surfaces, binds, error);
    if (!status && (has_runs || !has_surfaces)) {
        status = query_run(store, runs, binds, 2, cli->format, &out, error);
    }
    if (!status && has_surfaces) {
        text_add(&out, has_runs ? "\n" : "");
        status = query_run(store, readable, binds, 2, cli->format, &out, error);
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    text_release(&out);
    store_close(store);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *binds[2] = {NULL, NULL};
    bool only_surfaces = false;
    const Option options[] = {
        {"--experiment", OPTION_TEXT, &binds[0], 0, 0},
        {"--state", OPTION_TEXT, &binds[1], 0, 0},
        {"--surfaces", OPTION_FLAG, &only_surfaces, 0, 0},
    };
    Status status = options_parse(cli, options, 3, argc, argv, NULL, 0, 0, error);
    bool for_people = cli->format == FORMAT_TABLE || cli->format == FORMAT_MD;
    if (status) {
        return status;
    }
    if (only_surfaces) {
        return cli_query(cli, for_people ? readable : surfaces, binds, 2, error);
    }
    return for_people ? list_both(cli, binds, error) : cli_query(cli, runs, binds, 2, error);
}

const Verb verb_ls = {
    .name = "ls",
    .summary = "the runs and surfaces in results.db and how far they are",
    .usage = "[--experiment E] [--state S] [--surfaces]",
    .help =
        "  --experiment E   those of one experiment\n"
        "  --state S        waiting, running, done, failed or cancelled\n"
        "  --surfaces       surfaces alone\n\n"
        "Tables have the runs, then the surfaces. -o json, jsonl and csv have the runs, rows of "
        "run_list,\n"
        "and with --surfaces the surfaces, rows of surface_list.\n\n"
        "examples:\n"
        "  tinylora ls --state failed\n"
        "  tinylora ls --surfaces -o json | jq '.[].surface_id'\n",
    .run = run,
};
