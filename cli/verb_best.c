/* tinylora best */
#include "cli/options.h"
#include "cli/verbs.h"
#include "rl/extract.h"

/* Scripts get whole rows of the view, people the columns that tell runs apart. */
#define ROWS                                                                                       \
    " FROM best_runs WHERE experiment = coalesce(?1, experiment) AND (?2 = 'all' OR extractor IS " \
    "NULL OR extractor = ?2)"
static const char whole[] = "SELECT *" ROWS;
static const char readable[] =
    "SELECT experiment, place, CASE kind WHEN 'base' THEN '(base model)' ELSE run_id END AS run, "
    "method, adapter, nullif(budget, 0) AS budget, lr, seed, nullif(step, 0) AS step, "
    "round(value, 4) AS value, round(standard_error, 4) AS se, round(gain, 4) AS gain, "
    "CASE WHEN p_value IS NOT NULL THEN printf('%.2g', p_value) END AS p, CASE WHEN p_holm IS NOT "
    "NULL THEN printf('%.2g', p_holm) END AS p_holm, nullif(verdict, 'base') AS verdict, n, "
    "extractor AS metric, task" ROWS;

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *binds[2] = {NULL, "reward"};
    const Option options[] = {
        {"--experiment", OPTION_TEXT, &binds[0], 0, 0},
        {"--metric", OPTION_TEXT, &binds[1], 0, 0},
    };
    Status status = options_parse(cli, options, 2, argc, argv, NULL, 0, 0, error);
    binds[1] = extractor_alias(binds[1]);
    bool for_people = cli->format == FORMAT_TABLE || cli->format == FORMAT_MD;
    return status ? status : cli_query(cli, for_people ? readable : whole, binds, 2, error);
}

const Verb verb_best = {
    .name = "best",
    .summary = "runs by their score on held-out rows, the base model among them",
    .usage = "[--experiment E] [--metric M]",
    .help =
        "  --experiment E   runs of one experiment\n"
        "  --metric M       reward (unless given), nll, the name of an extractor (strict, "
        "flexible, "
        "...), or all\n\n"
        "p is of the paired test against the base model on the same rows, p_holm the same where "
        "all runs\n"
        "of the experiment are tests made together (Holm); the verdict is by p_holm at "
        "0.05.\n\n"
        "examples:\n"
        "  tinylora best --experiment budget13-lr\n"
        "  tinylora best --metric flexible -o md\n",
    .run = run,
};
