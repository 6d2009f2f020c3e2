/* tinylora db merge */
#include <inttypes.h>

#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "core/file.h"
#include "results/store_merge.h"

enum { MAX_FILES = 64 };

static Status print(const Cli *cli, const Merged *merged, Error *error)
{
    Table table = {0};
    Text out = {0};
    table_column(&table, "db", false);
    table_column(&table, "runs", true);
    table_column(&table, "surfaces", true);
    table_column(&table, "known", true);
    table_cell(&table, "%s", cli->db);
    table_cell(&table, "%" PRId64, merged->n_runs);
    table_cell(&table, "%" PRId64, merged->n_surfaces);
    table_cell(&table, "%" PRId64, merged->n_known);
    table_print(&table, cli->format, &out);
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    table_release(&table);
    return status;
}

static Status merge_file(Store *to, const char *path, Merged *merged, Error *error)
{
    Store *from = NULL;
    Status status = store_open(&from, path, STORE_READ, 0, error);
    status = status ? status : store_merge(to, from, merged, error);
    store_close(from);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *files[MAX_FILES] = {NULL};
    Store *store = NULL;
    Merged merged = {0};
    Status status = options_parse(cli, NULL, 0, argc, argv, files, MAX_FILES, 1, error);
    for (int i = 0; i < MAX_FILES && files[i] && !status; i++) {
        if (!file_exists(files[i])) {
            status = error_set(error, STATUS_FAILED, "\"%s\": no such file", files[i]);
        }
    }
    status = status ? status : store_open(&store, cli->db, STORE_WRITE, CLI_WAIT_MS, error);
    for (int i = 0; i < MAX_FILES && files[i] && !status; i++) {
        status = merge_file(store, files[i], &merged, error);
    }
    store_close(store);
    if (!status && merged.n_further) {
        cli_note(cli, "%" PRId64 " runs have more steps there: they stay as they are here",
                 merged.n_further);
    }
    return status ? status : print(cli, &merged, error);
}

const Verb verb_db_merge = {
    .name = "db merge",
    .summary = "runs and surfaces of other files into results.db",
    .usage = "FILE...",
    .help = "Each that is not there comes over whole: rows, checkpoints, evaluations, events. What "
            "is there\n"
            "already stays as it is; a run of both whose steps differ is named and refused (exit "
            "code 3), before\n"
            "anything of its file is written. The files are only read.\n\n"
            "examples:\n"
            "  tinylora db merge /other-machine/results.db\n"
            "  tinylora --db all.db db merge monday.db tuesday.db\n",
    .run = run,
};
