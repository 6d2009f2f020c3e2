/* tinylora export figures */
#include <stdlib.h>
#include <string.h>

#include "analysis/figure.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/written.h"
#include "experiments/nearest.h"
#include "results/frame.h"
#include "results/store_surface.h"

enum { KINDS_MAX = 32 };

typedef struct {
    Cli *cli;
    Store *store;
    OptionList experiments, surfaces, kinds;
    const char *metric, *folder;
    unsigned formats;
    Table table; /* kind, experiment, surface_id, path */
    Text paths;
    Status failed; /* the first figure that failed; the others are drawn all the same */
    Error why;
} Export;

static Status parse_formats(unsigned *formats, const char *list, Error *error)
{
    static const struct {
        const char *name;
        FigureFormat format;
    } known[] = {{"png", FIGURE_PNG}, {"svg", FIGURE_SVG}, {"pdf", FIGURE_PDF}};
    *formats = 0;
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ","), k = 0;
        while (k < 3 && (strlen(known[k].name) != n || strncmp(at, known[k].name, n) != 0)) {
            k++;
        }
        if (k == 3) {
            return error_set(error, STATUS_USAGE, "--format: \"%.*s\" is none of png, svg, pdf",
                             (int)(n < 40 ? n : 40), at);
        }
        *formats |= known[k].format;
        at += n + (at[n] == ',');
    }
    return *formats ? STATUS_OK
                    : error_set(error, STATUS_USAGE, "--format: png, svg, pdf, or several");
}

static Status check_kinds(const OptionList *kinds, Error *error)
{
    const char *names[KINDS_MAX];
    for (int k = 0; k < n_figure_kinds; k++) {
        names[k] = figure_kinds[k].name;
    }
    for (size_t i = 0; i < kinds->n; i++) {
        if (!figure_find(kinds->values[i])) {
            return error_set(
                error, STATUS_USAGE, "--kind: \"%.60s\" is not known; the nearest one is \"%s\"",
                kinds->values[i], nearest_name(kinds->values[i], names, (size_t)n_figure_kinds));
        }
    }
    return STATUS_OK;
}

static bool is_wanted(const Export *export, const FigureKind *kind)
{
    for (size_t i = 0; i < export->kinds.n; i++) {
        if (strcmp(export->kinds.values[i], kind->name) == 0) {
            return true;
        }
    }
    return export->kinds.n == 0;
}

/* The files of one figure into the table and the list. */
static void keep(Export *export, const FigureKind *kind, const char *experiment,
                 const char *surface_id, const Text *files)
{
    for (const char *line = text_string(files); *line;) {
        size_t n = strcspn(line, "\n");
        table_cell(&export->table, "%s", kind->name);
        table_cell(&export->table, "%s", experiment ? experiment : "");
        table_cell(&export->table, "%s", surface_id ? surface_id : "");
        table_cell(&export->table, "%.*s", (int)n, line);
        line += n + (line[n] == '\n');
    }
    text_append(&export->paths, text_string(files), files->n);
}

static Status draw(Export *export, const FigureKind *kind, const char *experiment,
                   const char *surface_id, const char *metric, Error *error)
{
    bool first = export->experiments.n && experiment == export->experiments.values[0];
    const FigureRequest request = {.store = export->store,
                                   .experiment = kind->of_surface ? NULL : experiment,
                                   .surface_id = surface_id,
                                   .metric = metric,
                                   .folder = export->folder,
                                   .others = export->experiments.values + 1,
                                   .n_others =
                                       first && !kind->of_surface ? export->experiments.n - 1 : 0,
                                   .formats = export->formats};
    Text files = {0};
    Error why = {0};
    bool drawn = false;
    Status status =
        cli_stopping() ? STATUS_STOPPED : figure_draw(kind, &request, &drawn, &files, &why);
    keep(export, kind, experiment, surface_id, &files);
    text_release(&files);
    if (status == STATUS_STOPPED) {
        return error_set(error, status, "stopped; run it again for the other figures");
    }
    if (status && !export->failed) {
        export->failed = status;
        export->why = why;
    }
    return STATUS_OK;
}

/* The surface's metrics, or the one asked for where it has it. */
static Status draw_surface(Export *export, const char *surface_id, Error *error)
{
    static const char sql[] =
        "SELECT s.experiment, m.value AS metric FROM surface s, json_each(s.metrics) m"
        " WHERE s.surface_id = ?1 AND m.value = coalesce(?2, m.value) ORDER BY m.key";
    const char *binds[] = {surface_id, export->metric};
    Frame frame = {0};
    Status status = frame_read(&frame, export->store, sql, binds, 2, error);
    for (size_t row = 0; row < frame.n_rows && !status; row++) {
        for (int k = 0; k < n_figure_kinds && !status; k++) {
            if (figure_kinds[k].of_surface && is_wanted(export, &figure_kinds[k])) {
                status = draw(export, &figure_kinds[k], frame_text(&frame, "experiment", row),
                              surface_id, frame_text(&frame, "metric", row), error);
            }
        }
    }
    frame_release(&frame);
    return status;
}

static Status draw_experiment(Export *export, const char *experiment, Error *error)
{
    Frame surfaces = {0};
    Status status = STATUS_OK;
    for (int k = 0; k < n_figure_kinds && !status; k++) {
        const FigureKind *kind = &figure_kinds[k];
        bool of_completions =
            strcmp(kind->name, "rewards") == 0 || strcmp(kind->name, "lengths") == 0;
        if (!kind->of_surface && is_wanted(export, kind)) {
            status =
                draw(export, kind, experiment, NULL, of_completions ? NULL : export->metric, error);
        }
    }
    status = status ? status
                    : frame_read(&surfaces, export->store,
                                 "SELECT surface_id FROM surface WHERE experiment = ?1"
                                 " ORDER BY created_at, surface_id",
                                 &experiment, 1, error);
    for (size_t row = 0; row < surfaces.n_rows && !status && !export->surfaces.n; row++) {
        status = draw_surface(export, frame_text(&surfaces, "surface_id", row), error);
    }
    frame_release(&surfaces);
    return status;
}

static Status draw_all(Export *export, Error *error)
{
    Frame names = {0};
    Status status =
        frame_read(&names, export->store, "SELECT name FROM experiment ORDER BY created_at, name",
                   NULL, 0, error);
    for (size_t k = 0; k < export->experiments.n && !status; k++) {
        status = cli_check_experiment(export->store, export->experiments.values[k], error);
    }
    for (size_t k = 0; k < export->experiments.n && !status; k++) {
        status = draw_experiment(export, export->experiments.values[k], error);
    }
    for (size_t k = 0; k < export->surfaces.n && !status; k++) {
        StoredSurface surface = {0};
        status = store_find_surface(export->store, export->surfaces.values[k], &surface, error);
        status = status ? status : draw_surface(export, surface.surface_id, error);
        free(surface.block);
    }
    bool all = export->experiments.n == 0 && export->surfaces.n == 0;
    for (size_t row = 0; all && row < names.n_rows && !status; row++) {
        status = draw_experiment(export, frame_text(&names, "name", row), error);
    }
    frame_release(&names);
    return status;
}

/* Artifacts carry their surface: files of one are next to each other. */
static void record(Export *export)
{
    Text files = {0};
    bool recorded = true;
    for (size_t row = 0; row < export->table.n_rows; row++) {
        char **cells = export->table.cells + row * export->table.n_columns;
        char **next = row + 1 < export->table.n_rows ? cells + export->table.n_columns : NULL;
        text_printf(&files, "%s\n", cells[3]);
        if (!next || strcmp(next[2], cells[2]) != 0) {
            bool this_time;
            cli_record(export->cli, &files, "figure", *cells[2] ? cells[2] : NULL, &this_time);
            recorded = recorded && this_time;
            text_clear(&files);
        }
    }
    if (!recorded) {
        cli_note(export->cli, "\"%s\" is being written to: the figures are not in its artifacts",
                 export->cli->db);
    }
    text_release(&files);
}

static Status show(Export *export, Error *error)
{
    Text out = {0};
    if (export->cli->format != FORMAT_TABLE) {
        table_print(&export->table, export->cli->format, &out);
    } else {
        text_append(&out, text_string(&export->paths), export->paths.n);
    }
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    Export export = {.cli = cli};
    const char *formats = "png";
    const Option options[] = {
        {"--experiment", OPTION_LIST, &export.experiments, 0, 0},
        {"--surface", OPTION_LIST, &export.surfaces, 0, 0},
        {"--kind", OPTION_LIST, &export.kinds, 0, 0},
        {"--metric", OPTION_TEXT, &export.metric, 0, 0},
        {"--format", OPTION_TEXT, &formats, 0, 0},
        {"--out", OPTION_TEXT, &export.folder, 0, 0},
    };
    Text folder = {0};
    Status status = options_parse(cli, options, sizeof options / sizeof *options, argc, argv, NULL,
                                  0, 0, error);
    status = status ? status : parse_formats(&export.formats, formats, error);
    status = status ? status : check_kinds(&export.kinds, error);
    status = status ? status : cli_open_store(cli, &export.store, error);
    if (status) {
        return status;
    }
    const char *slash = strrchr(cli->db, '/');
    text_printf(&folder, "%.*sfigures", slash ? (int)(slash + 1 - cli->db) : 0, cli->db);
    export.folder = export.folder ? export.folder : text_string(&folder);
    static const char *const columns[] = {"kind", "experiment", "surface_id", "path"};
    for (int k = 0; k < 4; k++) {
        table_column(&export.table, columns[k], false);
    }
    status = draw_all(&export, error);
    store_close(export.store);
    if (export.paths.n) {
        record(&export);
        Status shown = show(&export, status ? NULL : error);
        status = status ? status : shown;
    }
    if (!status && export.failed) {
        status = error_set(error, export.failed, "%s", export.why.message);
    } else if (!status && !export.paths.n) {
        status = error_set(error, STATUS_FAILED, "there is nothing to draw%s",
                           export.metric || export.kinds.n ? " of that kind and metric" : " yet");
    }
    table_release(&export.table);
    text_release(&export.paths);
    text_release(&folder);
    return status;
}

const Verb verb_export_figures = {
    .name = "export figures",
    .summary = "figures for papers, each with its data and its gnuplot script",
    .usage = "[--experiment E ...] [--surface ID ...] [--kind NAME ...] [--metric M] [--format "
             "png,svg,pdf] [--out DIR]",
    .help =
        "Beside each picture NAME.png are its data, NAME.dat, and its script: `gnuplot NAME.gp` "
        "draws it\n"
        "again. Prints the files. Everything in results.db unless an experiment or a surface is "
        "named.\n\n"
        "  --experiment E   its runs and its surfaces (may come again)\n"
        "  --surface ID     a surface_id, the start of one, or an experiment that has one surface\n"
        "  --kind NAME      lr-accuracy, learning-curves, parameters-accuracy, rewards, lengths,\n"
        "                   comparison (of several --experiment); surface, surface-3d, slices; "
        "all that\n"
        "                   apply unless given\n"
        "  --metric M       of runs an extractor, as in `best`, or for learning-curves a metric "
        "(kl,\n"
        "                   completions/mean_length, ...); of surfaces loss, accuracy, ...\n"
        "  --format LIST    png (unless given), svg, pdf\n"
        "  --out DIR        figures, beside results.db, unless given\n\n"
        "examples:\n"
        "  tinylora export figures --experiment budget13-lr --format png,pdf\n"
        "  tinylora export figures --surface 5a0f --kind surface --metric accuracy\n",
    .run = run,
};
