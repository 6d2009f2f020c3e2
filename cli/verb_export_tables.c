/* tinylora export csv · tinylora export jsonl */
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "cli/written.h"
#include "core/file.h"
#include "notebooks-export/tables.h"
#include "results/store_surface.h"

/* FILE, or its usual name inside an existing folder. */
static Status choose_path(char path[FILE_PATH_MAX], const char *out, const TableChoice *choice,
                          OutputFormat format, Error *error)
{
    if (!directory_exists(out)) {
        size_t n = strlen(out);
        if (n >= FILE_PATH_MAX) {
            return error_set(error, STATUS_FAILED, "--out: the path is too long");
        }
        memcpy(path, out, n + 1);
        return STATUS_OK;
    }
    const char *name = choice->table     ? choice->table
                       : choice->view    ? choice->view
                       : choice->surface ? choice->surface
                                         : "query";
    Text file = {0};
    text_printf(&file, "%s.%s", name, format == FORMAT_CSV ? "csv" : "jsonl");
    Status status = path_join(path, out, file.bytes, error);
    text_release(&file);
    return status;
}

static Status export_one(Store *store, const TableChoice *choice, OutputFormat format,
                         const char *out, Text *files, Error *error)
{
    char path[FILE_PATH_MAX];
    Text rows = {0};
    Status status = tables_append(&rows, store, choice, format, error);
    if (!status && !out) {
        status = cli_write(text_string(&rows), rows.n, error);
    } else if (!status) {
        status = choose_path(path, out, choice, format, error);
        status = status ? status : file_write(path, text_string(&rows), rows.n, error);
        if (!status) {
            text_printf(files, "%s\n", path);
        }
    }
    text_release(&rows);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, OutputFormat format, Error *error)
{
    TableChoice choice = {0};
    const char *experiment = NULL, *out = NULL;
    const Option options[] = {
        {"--table", OPTION_TEXT, &choice.table, 0, 0},
        {"--view", OPTION_TEXT, &choice.view, 0, 0},
        {"--surface", OPTION_TEXT, &choice.surface, 0, 0},
        {"--sql", OPTION_TEXT, &choice.sql, 0, 0},
        {"--experiment", OPTION_TEXT, &experiment, 0, 0},
        {"--out", OPTION_TEXT, &out, 0, 0},
    };
    Store *store;
    StoredSurface surface = {0};
    Text files = {0};
    Status status = options_parse(cli, options, sizeof options / sizeof *options, argc, argv, NULL,
                                  0, 0, error);
    int n_choices = (choice.table != NULL) + (choice.view != NULL) + (choice.surface != NULL) +
                    (choice.sql != NULL) + (experiment != NULL);
    if (!status && n_choices != 1) {
        return error_set(error, STATUS_USAGE,
                         "one of --table, --view, --surface, --experiment and --sql is wanted");
    }
    if (!status && experiment && !out) {
        return error_set(error, STATUS_USAGE,
                         "an experiment is several tables: name a folder for them with --out");
    }
    status = status ? status : cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    if (choice.surface) {
        status = store_find_surface(store, choice.surface, &surface, error);
        choice.surface = surface.surface_id;
    }
    if (!status && experiment) {
        status = cli_check_experiment(store, experiment, error);
        status = status ? status : tables_experiment(&files, store, experiment, format, out, error);
    } else if (!status) {
        status = export_one(store, &choice, format, out, &files, error);
    }
    store_close(store);
    if (files.n) {
        Status written = cli_written(cli, &files, format == FORMAT_CSV ? "csv" : "jsonl",
                                     surface.surface_id, status ? NULL : error);
        status = status ? status : written;
    }
    free(surface.block);
    text_release(&files);
    return status;
}

static Status run_csv(Cli *cli, int argc, char **argv, Error *error)
{
    return run(cli, argc, argv, FORMAT_CSV, error);
}

static Status run_jsonl(Cli *cli, int argc, char **argv, Error *error)
{
    return run(cli, argc, argv, FORMAT_JSONL, error);
}

#define USAGE "--table T|--view V|--surface ID|--experiment E|--sql S [--out FILE|DIR]"
#define OPTIONS                                                                                    \
    "  --table T        every row of a table\n"                                                    \
    "  --view V         every row of a view, such as best_runs or learning_curve\n"                \
    "  --surface ID     the points of a surface: a row a point and metric\n"                       \
    "  --experiment E   a folder of tables: runs, params, metrics (a column a metric), "           \
    "evaluations,\n"                                                                               \
    "                   completions and events of its runs; surfaces, points, marks, slices and\n" \
    "                   hessians of its surfaces. Token ids and checkpoints stay behind\n"         \
    "  --sql S          the answer of a statement that only reads\n"                               \
    "  --out FILE|DIR   where to; unless given, stdout\n\n"

const Verb verb_export_csv = {
    .name = "export csv",
    .summary = "tables of results.db as CSV files",
    .usage = USAGE,
    .help = "RFC 4180 with a header. Numbers as %.17g (they come back to the bit), nothing for "
            "NULL,\n\"\" for an empty text.\n\n" OPTIONS "examples:\n"
            "  tinylora export csv --experiment budget13-lr --out tables\n"
            "  tinylora export csv --view best_runs --out best.csv\n",
    .run = run_csv,
};

const Verb verb_export_jsonl = {
    .name = "export jsonl",
    .summary = "the same as JSON Lines",
    .usage = USAGE,
    .help = "An object a line, with the columns' names as keys. Numbers as %.17g, null for NULL.\n"
            "\n" OPTIONS "examples:\n"
            "  tinylora export jsonl --experiment budget13-lr --out tables\n"
            "  tinylora export jsonl --sql \"SELECT text, reward FROM completion\" | jq .reward\n",
    .run = run_jsonl,
};
