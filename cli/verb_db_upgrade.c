/* tinylora db upgrade */
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "core/file.h"

static Status print(const Cli *cli, int from, int to, Error *error)
{
    Text out = {0};
    if (cli->format != FORMAT_TABLE) {
        Table table = {0};
        table_column(&table, "db", false);
        table_column(&table, "from", true);
        table_column(&table, "to", true);
        table_cell(&table, "%s", cli->db);
        table_cell(&table, "%d", from);
        table_cell(&table, "%d", to);
        table_print(&table, cli->format, &out);
        table_release(&table);
    } else if (from == to) {
        text_printf(&out, "\"%s\" has schema version %d already: nothing to do\n", cli->db, to);
    } else {
        text_printf(&out, "\"%s\" went from schema version %d to %d\n", cli->db, from, to);
    }
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    Store *store;
    int from, to;
    Status status = options_parse(cli, NULL, 0, argc, argv, NULL, 0, 0, error);
    if (!status && !file_exists(cli->db)) {
        status = error_set(error, STATUS_FAILED, "\"%s\": there are no results yet", cli->db);
    }
    status = status ? status : store_open(&store, cli->db, STORE_WRITE, CLI_WAIT_MS, error);
    if (status) {
        return status;
    }
    store_versions(store, &from, &to);
    store_close(store);
    return print(cli, from, to, error);
}

const Verb verb_db_upgrade = {
    .name = "db upgrade",
    .summary = "widens a results.db of an older version",
    .usage = "",
    .help = "New tables, columns and views; what is in the file stays, whole or not at all. Verbs "
            "that write do it\n"
            "by themselves; verbs that only read ask for it. Older programs refuse the file "
            "afterwards.\n\n"
            "examples:\n"
            "  tinylora db upgrade\n"
            "  tinylora --db /data/old.db db upgrade\n",
    .run = run,
};
