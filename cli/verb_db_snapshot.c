/* tinylora db snapshot */
#include "cli/options.h"
#include "cli/verbs.h"
#include "results/store_merge.h"

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *path;
    Store *store = NULL;
    Status status = options_parse(cli, NULL, 0, argc, argv, &path, 1, 1, error);
    status = status ? status : cli_open_store(cli, &store, error);
    status = status ? status : store_snapshot(store, path, error);
    store_close(store);
    if (!status) {
        cli_note(cli, "\"%s\" is \"%s\" as it is now", path, cli->db);
    }
    return status;
}

const Verb verb_db_snapshot = {
    .name = "db snapshot",
    .summary = "a copy of results.db as it is now, while runs go on",
    .usage = "FILE",
    .help = "Whole or not at all; a file that is there is not replaced.\n\n"
            "examples:\n"
            "  tinylora db snapshot results-monday.db\n"
            "  tinylora --db /data/results.db db snapshot /backup/results.db\n",
    .run = run,
};
