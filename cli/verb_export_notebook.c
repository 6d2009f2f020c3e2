/* tinylora export notebook */
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "cli/written.h"
#include "core/file.h"
#include "notebooks-export/notebook.h"
#include "results/frame.h"
#include "results/store_surface.h"

enum { MAX_OTHERS = 8 };

typedef struct {
    const char *experiment, *surface, *out;
    OptionList compare;
} Wanted;

/* All notebooks that an experiment is good for. */
static Status export_experiment(Text *files, const NotebookRequest *request, const char *experiment,
                                Error *error)
{
    static const char sql[] =
        "SELECT surface_id, (SELECT count(*) FROM experiment_run WHERE experiment = ?1) AS runs "
        "FROM (SELECT 1) LEFT JOIN surface ON experiment = ?1 ORDER BY surface_id";
    Frame surfaces = {0};
    Status status = frame_read(&surfaces, request->store, sql, &experiment, 1, error);
    bool any_surface = !status && frame_text(&surfaces, "surface_id", 0);
    if (!status && (!any_surface || frame_number(&surfaces, "runs", 0) > 0)) {
        status = notebook_sweep(files, request, experiment, error);
    }
    for (size_t i = 0; any_surface && !status && i < surfaces.n_rows; i++) {
        status = notebook_surface(files, request, frame_text(&surfaces, "surface_id", i), error);
    }
    frame_release(&surfaces);
    return status;
}

static Status export_all(Text *files, const NotebookRequest *request, const Wanted *wanted,
                         const char *surface_id, Error *error)
{
    Status status = STATUS_OK;
    if (wanted->experiment && !surface_id) {
        status = export_experiment(files, request, wanted->experiment, error);
    }
    if (!status && surface_id) {
        status = notebook_surface(files, request, surface_id, error);
    }
    if (!status && wanted->compare.n) {
        const char *experiments[OPTION_LIST_MAX + 1] = {wanted->experiment};
        memcpy(experiments + 1, wanted->compare.values,
               wanted->compare.n * sizeof *wanted->compare.values);
        status = notebook_comparison(files, request, experiments, wanted->compare.n + 1, error);
    }
    return status;
}

/* `--compare A B`: what is no option is one more experiment. */
static Status read_wanted(Wanted *wanted, Cli *cli, int argc, char **argv, Error *error)
{
    const char *others[MAX_OTHERS];
    const Option options[] = {
        {"--experiment", OPTION_TEXT, &wanted->experiment, 0, 0},
        {"--surface", OPTION_TEXT, &wanted->surface, 0, 0},
        {"--compare", OPTION_LIST, &wanted->compare, 0, 0},
        {"--out", OPTION_TEXT, &wanted->out, 0, 0},
    };
    Status status = options_parse(cli, options, sizeof options / sizeof *options, argc, argv,
                                  others, MAX_OTHERS, 0, error);
    for (int i = 0; !status && i < MAX_OTHERS && others[i]; i++) {
        if (!wanted->compare.n || wanted->compare.n == OPTION_LIST_MAX) {
            return error_set(error, STATUS_USAGE, "\"%s\": did you mean --experiment \"%s\"?",
                             others[i], others[i]);
        }
        wanted->compare.values[wanted->compare.n++] = others[i];
    }
    if (!status && !wanted->experiment && !wanted->surface) {
        status = error_set(error, STATUS_USAGE, "--experiment: an experiment is missing");
    }
    if (!status && wanted->compare.n && !wanted->experiment) {
        status = error_set(error, STATUS_USAGE, "--compare: with which --experiment?");
    }
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    Wanted wanted = {.out = "."};
    Store *store;
    StoredSurface surface = {0};
    Text files = {0};
    Status status = read_wanted(&wanted, cli, argc, argv, error);
    status = status ? status : cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    if (wanted.surface) {
        status = store_find_surface(store, wanted.surface, &surface, error);
    }
    if (!status && wanted.experiment) {
        status = cli_check_experiment(store, wanted.experiment, error);
    }
    for (size_t i = 0; !status && i < wanted.compare.n; i++) {
        status = cli_check_experiment(store, wanted.compare.values[i], error);
    }
    status = status ? status : directory_make(wanted.out, error);
    if (!status) {
        NotebookRequest request = {.store = store, .database = cli->db, .folder = wanted.out};
        status = export_all(&files, &request, &wanted, surface.surface_id, error);
    }
    store_close(store);
    if (files.n) {
        Status written =
            cli_written(cli, &files, "notebook", surface.surface_id, status ? NULL : error);
        status = status ? status : written;
    }
    free(surface.block);
    text_release(&files);
    return status;
}

const Verb verb_export_notebook = {
    .name = "export notebook",
    .summary = "Jupyter notebooks with tables and figures inside",
    .usage = "--experiment E [--surface ID] [--compare E2 ...] [--out DIR]",
    .help =
        "An experiment with runs gets EXPERIMENT-sweep.ipynb, each of its surfaces\n"
        "EXPERIMENT-surface-ID.ipynb. Figures are inside as PNG (GitHub shows them), so gnuplot "
        "must be\n"
        "installed; the cells read results.db again with pandas and matplotlib, from the "
        "notebook's folder\n"
        "or, if it is not there, from $TINYLORA_DB. Exporting again gives the same bytes.\n\n"
        "  --experiment E    its runs and surfaces\n"
        "  --surface ID      this surface alone: an id, the start of one, or an experiment that "
        "has one\n"
        "  --compare E2 ...  also E against others: best runs tested pair by pair on shared rows\n"
        "  --out DIR         where to; unless given, the current folder\n\n"
        "examples:\n"
        "  tinylora export notebook --experiment budget13-lr --out notebooks\n"
        "  tinylora export notebook --experiment budget13-lr --compare budget26-lr sft-lr\n",
    .run = run,
};
