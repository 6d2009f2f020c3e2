/* tinylora query SQL */
#include "cli/options.h"
#include "cli/verbs.h"

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *sql;
    Status status = options_parse(cli, NULL, 0, argc, argv, &sql, 1, 1, error);
    return status ? status : cli_query(cli, sql, NULL, 0, error);
}

const Verb verb_query = {
    .name = "query",
    .summary = "read-only SQL on results.db",
    .usage = "SQL",
    .help =
        "One statement that only reads. results/schema.sql says which tables and views there "
        "are.\n\n"
        "examples:\n"
        "  tinylora query \"SELECT lr, objective FROM run WHERE state = 'done' ORDER BY 2 DESC\"\n"
        "  tinylora query -o csv \"SELECT step, reward FROM learning_curve WHERE run_id LIKE "
        "'3f2a%'\" > curve.csv\n",
    .run = run,
};
