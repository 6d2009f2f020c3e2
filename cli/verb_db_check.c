/* tinylora db check */
#include "cli/options.h"
#include "cli/verbs.h"

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    Store *store;
    Text report = {0};
    bool sound = false;
    Status status = options_parse(cli, NULL, 0, argc, argv, NULL, 0, 0, error);
    status = status ? status : cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    status = store_check(store, &sound, &report, error);
    status = status ? status : cli_write(text_string(&report), report.n, error);
    if (!status && !sound) {
        status = error_set(error, STATUS_REFUSED, "\"%s\" is damaged", cli->db);
    }
    text_release(&report);
    store_close(store);
    return status;
}

const Verb verb_db_check = {
    .name = "db check",
    .summary = "is results.db sound, and how is it kept",
    .usage = "",
    .help = "Reads the whole file: schema, journal, integrity, foreign keys, checksums of "
            "checkpoints,\n"
            "surfaces (rows that are done are whole, rows at work are held, previews came true).\n"
            "Exit code 3 when something is damaged.\n\n"
            "examples:\n"
            "  tinylora db check\n"
            "  tinylora --db /data/results.db db check\n",
    .run = run,
};
