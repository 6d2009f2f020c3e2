/* tinylora ls */
#include "cli/options.h"
#include "cli/verbs.h"

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *binds[2] = {NULL, NULL};
    const Option options[] = {
        {"--experiment", OPTION_TEXT, &binds[0], 0, 0},
        {"--state", OPTION_TEXT, &binds[1], 0, 0},
    };
    Status status = options_parse(cli, options, 2, argc, argv, NULL, 0, 0, error);
    return status ? status
                  : cli_query(cli,
                              "SELECT * FROM run_list WHERE experiment = coalesce(?1, experiment) "
                              "AND state = coalesce(?2, state)",
                              binds, 2, error);
}

const Verb verb_ls = {
    .name = "ls",
    .summary = "the runs in results.db and how far they are",
    .usage = "[--experiment E] [--state S]",
    .help = "  --experiment E   runs of one experiment\n"
            "  --state S        waiting, running, done, failed or cancelled\n\n"
            "examples:\n"
            "  tinylora ls --state failed\n"
            "  tinylora ls -o json | jq '.[].run_id'\n",
    .run = run,
};
