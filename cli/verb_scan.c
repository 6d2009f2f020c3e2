/* tinylora scan CONFIG */
#include <math.h>
#include <string.h>

#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/world.h"
#include "experiments/scan.h"

enum { MAX_FIELDS = 24 };

/* What is said at the end: a list of names and values for people, one row for programs. */
typedef struct {
    const char *names[MAX_FIELDS];
    Text values[MAX_FIELDS]; /* "" where there is none */
    bool numeric[MAX_FIELDS];
    int n;
    bool exact; /* all digits */
} Report;

static Text *add(Report *report, const char *name, bool numeric)
{
    report->names[report->n] = name;
    report->numeric[report->n] = numeric;
    return &report->values[report->n++];
}

static void add_number(Report *report, const char *name, double value)
{
    Text *out = add(report, name, true);
    if (isfinite(value)) {
        text_printf(out, report->exact ? "%.17g" : "%.6g", value);
    }
}

static void make_report(Report *report, const ScanResult *result)
{
    text_add(add(report, "surface_id", false), result->surface_id);
    text_add(add(report, "state", false), run_state_name(result->state));
    text_printf(add(report, "grid", false), "%d x %d", result->rows, result->columns);
    text_printf(add(report, "rows_done", true), "%d", result->rows_done);
    text_printf(add(report, "holes", true), "%d", result->n_holes);
    text_add(add(report, "metric", false), result->metric);
    add_number(report, "base", result->base);
    add_number(report, "best", result->best);
    add_number(report, "best_x", result->best_x);
    add_number(report, "best_y", result->best_y);
    add_number(report, "minimum", result->minimum);
    add_number(report, "minimum_x", result->minimum_x);
    add_number(report, "minimum_y", result->minimum_y);
    text_add(add(report, "minimum_inside", false), !isfinite(result->minimum) ? ""
                                                   : result->inside           ? "yes"
                                                                              : "no");
    add_number(report, "gain", result->gain);
    add_number(report, "gain_se", result->gain_se);
    add_number(report, "p_value", result->p_value);
    bool compared = isfinite(result->p_value);
    bool beyond = compared && result->p_value < 0.05 && result->gain > 0;
    text_add(add(report, "beyond_noise", false), !compared ? "" : beyond ? "yes" : "no");
    add_number(report, "curvature_1", result->curvature[0]);
    add_number(report, "curvature_2", result->curvature[1]);
    add_number(report, "base_curvature_1", result->base_curvature[0]);
    add_number(report, "base_curvature_2", result->base_curvature[1]);
    text_add(add(report, "figures", false), text_string(&result->files));
}

/* A row for each name that has a value; of several lines, a row each. */
static void add_rows(Table *table, const Report *report)
{
    table_column(table, "what", false);
    table_column(table, "value", false);
    for (int i = 0; i < report->n; i++) {
        for (const char *line = text_string(&report->values[i]); *line;) {
            size_t n = strcspn(line, "\n");
            table_cell(table, "%s", report->names[i]);
            table_cell(table, "%.*s", (int)n, line);
            line += n + (line[n] == '\n');
        }
    }
}

static void add_columns(Table *table, const Report *report)
{
    for (int i = 0; i < report->n; i++) {
        table_column(table, report->names[i], report->numeric[i]);
    }
    for (int i = 0; i < report->n; i++) {
        table_cell(table, "%s", text_string(&report->values[i]));
    }
}

static Status print_result(const Cli *cli, const ScanResult *result, Error *error)
{
    bool people = cli->format == FORMAT_TABLE || cli->format == FORMAT_MD;
    Report report = {.exact = !people};
    Table table = {0};
    Text out = {0};
    make_report(&report, result);
    if (people) {
        add_rows(&table, &report);
    } else {
        add_columns(&table, &report);
    }
    table_print(&table, cli->format, &out);
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    table_release(&table);
    for (int i = 0; i < report.n; i++) {
        text_release(&report.values[i]);
    }
    return status;
}

/* "figures" beside results.db. */
static void default_figures(Text *folder, const char *db)
{
    const char *slash = strrchr(db, '/');
    text_printf(folder, "%.*sfigures", slash ? (int)(slash + 1 - db) : 0, db);
}

static Status scan(const Cli *cli, const Config *config, const ScanOptions *options, Error *error)
{
    CliWorld world;
    ScanResult result = {0};
    cli_world_init(&world, cli);
    double began_s = cli_clock_s();
    Status status = scan_run(&result, config, &world.world, options, error);
    cli_world_release(&world);
    if (status == STATUS_STOPPED) {
        error_set(error, status,
                  "stopped, every whole row committed to \"%s\"; the same command goes on",
                  cli->db);
    }
    if (result.rows) {
        cli_note(cli, "%d of %d rows done, %d of them now in %.1f s; \"%s\"", result.rows_done,
                 result.rows, result.rows_here, cli_clock_s() - began_s, cli->db);
        Error ignored;
        Status printed = print_result(cli, &result, status ? &ignored : error);
        status = status ? status : printed;
    }
    scan_result_release(&result);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *path, *figures = NULL;
    OptionList overrides = {0}, paths = {0};
    bool yes = false, new_surface = false, no_figures = false, grid_only = false;
    const Option options[] = {
        {"--set", OPTION_LIST, &overrides, 0, 0},
        {"--path", OPTION_LIST, &paths, 0, 0},
        {"--yes", OPTION_FLAG, &yes, 0, 0},
        {"--grid-only", OPTION_FLAG, &grid_only, 0, 0},
        {"--new", OPTION_FLAG, &new_surface, 0, 0},
        {"--figures", OPTION_TEXT, &figures, 0, 0},
        {"--no-figures", OPTION_FLAG, &no_figures, 0, 0},
    };
    Config *config = NULL;
    Text folder = {0};
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  &path, 1, 1, error);
    options_add_data(&overrides, cli);
    if (!status && figures && no_figures) {
        status = error_set(error, STATUS_USAGE, "--figures and --no-figures exclude each other");
    }
    status = status ? status
                    : config_read(&config, path, overrides.values, overrides.n, cli->models, error);
    if (!status && strcmp(config->base.method, "scan") != 0) {
        status = error_set(error, STATUS_USAGE,
                           "config \"%s\": method is \"%s\"; use tinylora %s, or --set method=scan",
                           config->path, config->base.method,
                           config_is_sweep(config) ? "sweep" : config->base.method);
    }
    default_figures(&folder, cli->db);
    if (!status) {
        ScanOptions scan_options = {.db = cli->db,
                                    .wait_ms = CLI_WAIT_MS,
                                    .yes = yes,
                                    .grid_only = grid_only,
                                    .new_surface = new_surface,
                                    .figures = no_figures ? NULL
                                               : figures  ? figures
                                                          : text_string(&folder),
                                    .paths = paths.values,
                                    .n_paths = paths.n};
        status = scan(cli, config, &scan_options, error);
    }
    text_release(&folder);
    config_free(config);
    return status;
}

const Verb verb_scan = {
    .name = "scan",
    .summary = "a 2D loss surface, row by row",
    .usage = "CONFIG [--set key.path=value ...] [--path RUN ...] [--new] [--yes] "
             "[--grid-only] [--figures DIR | --no-figures]",
    .help =
        "Measures a grid of adapters: two trained scalars, or a plane through a stored run. Rows\n"
        "are committed one by one; after any stop the same command goes on, and started several\n"
        "times at once the processes share the rows. At the end: best point, refined minimum,\n"
        "curvature, slices, and figures where gnuplot is installed.\n\n"
        "  --set K=V       override a setting, such as scan.x=-1:1:41\n"
        "  --path RUN      lay the run's trajectory over the surface; may be given again\n"
        "  --new           beside another surface of the same experiment\n"
        "  --yes           also a grid that takes very long\n"
        "  --grid-only     no minimum, curvature or slices; without it the same command adds them\n"
        "  --figures DIR   where pictures go (figures, beside results.db); --no-figures: none\n\n"
        "examples:\n"
        "  tinylora scan experiments/presets/abacus-surface.json\n"
        "  tinylora scan mine.json --set scan.directions=pca --set scan.run=3f2a\n",
    .run = run,
    .audited = true,
};
