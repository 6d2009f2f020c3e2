/* tinylora replay RUN */
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/world.h"
#include "experiments/replay.h"

static Status print(const Cli *cli, const Replay *replay, Error *error)
{
    const Comparison *comparison = &replay->comparison;
    Table table = {0};
    Text out = {0};
    table_column(&table, "run_id", false);
    table_column(&table, "agrees", false);
    table_column(&table, "last_step", true);
    table_column(&table, "metrics", true);
    table_column(&table, "completions", true);
    table_column(&table, "checkpoints", true);
    table_column(&table, "evaluations", true);
    table_column(&table, "answers", true);
    table_column(&table, "new", true);
    table_column(&table, "passed_over", true);
    table_column(&table, "tolerance", true);
    table_column(&table, "difference", false);
    table_cell(&table, "%s", replay->run_id);
    table_cell(&table, "%s", comparison->difference.n ? "no" : "yes");
    table_cell(&table, "%lld", (long long)replay->last);
    table_cell(&table, "%lld", (long long)comparison->n_metrics);
    table_cell(&table, "%lld", (long long)comparison->n_completions);
    table_cell(&table, "%lld", (long long)comparison->n_checkpoints);
    table_cell(&table, "%lld", (long long)comparison->n_evaluations);
    table_cell(&table, "%lld", (long long)comparison->n_samples);
    table_cell(&table, "%lld", (long long)comparison->n_new);
    table_cell(&table, "%lld", (long long)comparison->n_passed);
    table_cell(&table, "%g", replay->tolerance);
    table_cell(&table, "%s", text_string(&comparison->difference));
    table_print(&table, cli->format, &out);
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    table_release(&table);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *id;
    int steps = -1;
    ReplayOptions choices = {.tolerance = -1};
    const Option options[] = {
        {"--steps", OPTION_INT, &steps, 0, 1e9},
        {"--tolerance", OPTION_NUMBER, &choices.tolerance, 0, 1},
    };
    CliWorld world;
    Store *store = NULL;
    Replay replay = {0};
    Status status = options_parse(cli, options, 2, argc, argv, &id, 1, 1, error);
    status = status ? status : cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    choices.steps = steps;
    cli_world_init(&world, cli);
    status = replay_run(&replay, store, id, &world.world, &choices, error);
    cli_world_release(&world);
    if (!status && replay.elsewhere.n) {
        cli_note(cli, "run %s was made elsewhere (%s): compared within %g", replay.run_id,
                 text_string(&replay.elsewhere), replay.tolerance);
    }
    if (!status && replay.comparison.n_passed) {
        cli_note(cli, "run %s: %lld scores were made by `eval` later: they are passed over",
                 replay.run_id, (long long)replay.comparison.n_passed);
    }
    if (!status || replay.comparison.difference.n) {
        status = status ? status : print(cli, &replay, error);
    }
    if (!status && replay.comparison.difference.n) {
        status = error_set(error, STATUS_FAILED, "run %s differs: %.800s", replay.run_id,
                           text_string(&replay.comparison.difference));
    } else if (status == STATUS_STOPPED) {
        error_set(error, status, "stopped; nothing was written, a replay begins anew");
    }
    replay_release(&replay);
    store_close(store);
    return status;
}

const Verb verb_replay = {
    .name = "replay",
    .summary = "computes a stored run again and compares every number",
    .usage = "RUN [--steps N] [--tolerance T]",
    .help =
        "From the stored settings, the same model and the same rows (their hashes are checked), "
        "without writing:\n"
        "metrics (but step_time), completions with their ids and log-probabilities, "
        "checkpoints, evaluations\n"
        "with every answer, how the run ended. Exit code 0 when all agree; else 1, and the "
        "first difference is\n"
        "said with its step. Runs made with other kernels, libraries or an older version of "
        "the numerics are\n"
        "compared within a tolerance, and that is said. Scores by `eval` are passed "
        "over; how many is said.\n\n"
        "  --steps N        the first N steps alone\n"
        "  --tolerance T    numbers may differ by T times the larger of them and 1; 0: every "
        "bit\n\n"
        "examples:\n"
        "  tinylora replay 3f2a\n"
        "  tinylora replay 3f2a --steps 5 -o json\n",
    .run = run,
    .audited = true,
};
