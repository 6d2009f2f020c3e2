/* tinylora factors */
#include <stdlib.h>
#include <string.h>

#include "adapters/factors.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "experiments/nearest.h"

static const double TERMINAL_INTERVAL_S = 0.2, PLAIN_INTERVAL_S = 10;

/* What became of a module. */
typedef struct {
    bool done, cached;
    double began_s, seconds;
    float *values; /* (rank) */
} Row;

typedef struct {
    const Cli *cli;
    const ModelConfig *config;
    const Module *modules;
    Row *rows; /* (n) */
    int n, n_done, n_cached, rank;
    double began_s, shown_s;
    double numbers_left, numbers_made; /* of weights: not yet seen, factored by this process */
    bool line_open;
} Report;

static double numbers_of(const Report *report, int module)
{
    int n_out, n_in;
    role_shape(report->config, report->modules[module].role, &n_out, &n_in);
    return (double)n_out * n_in;
}

/* "[12/196] model.layers.1.mlp.up_proj  left 1m20s", now and then. */
static void show(Report *report, int module, double now)
{
    const Cli *cli = report->cli;
    double interval = cli->terminal ? TERMINAL_INTERVAL_S : PLAIN_INTERVAL_S;
    if (cli->quiet || now - report->shown_s < interval) {
        return;
    }
    Text line = {0};
    char name[96];
    module_name(name, report->modules[module].layer, report->modules[module].role);
    text_printf(&line, "[%d/%d] %s", report->n_done, report->n, name);
    if (report->numbers_made > 0) {
        text_add(&line, "  left ");
        text_duration(&line, (now - report->began_s) / report->numbers_made * report->numbers_left);
    }
    fprintf(stderr, cli->terminal ? "\r%s\033[K" : "%s\n", text_string(&line));
    fflush(stderr);
    report->line_open = cli->terminal;
    report->shown_s = now;
    text_release(&line);
}

static void started(void *context, int module)
{
    Report *report = context;
    report->rows[module].began_s = cli_clock_s();
    show(report, module, report->rows[module].began_s);
}

static void finished(void *context, int module, const Factors *factors, bool cached)
{
    Report *report = context;
    Row *row = &report->rows[module];
    double now = cli_clock_s();
    row->done = true;
    row->cached = cached;
    row->seconds = now - row->began_s;
    row->values = malloc((size_t)report->rank * sizeof *row->values);
    if (row->values) {
        memcpy(row->values, factors->s, (size_t)report->rank * sizeof *row->values);
    }
    report->n_done++;
    report->n_cached += cached;
    report->numbers_left -= numbers_of(report, module);
    if (cached && report->numbers_made == 0) {
        report->began_s = now; /* what was there already says nothing of the time left */
    }
    report->numbers_made += cached ? 0 : numbers_of(report, module);
    show(report, module, now);
}

static bool stopping(void *context)
{
    (void)context;
    return cli_stopping();
}

static void add_row(Table *table, const Report *report, int module, bool json)
{
    const Row *row = &report->rows[module];
    Text values = {0};
    char name[96];
    int n_out, n_in;
    module_name(name, report->modules[module].layer, report->modules[module].role);
    role_shape(report->config, report->modules[module].role, &n_out, &n_in);
    for (int j = 0; row->values && j < report->rank; j++) {
        text_printf(&values, json ? "%s%.9g" : "%s%.5g",
                    j      ? json ? "," : " "
                    : json ? "["
                           : "",
                    (double)row->values[j]);
    }
    text_add(&values, json && row->values ? "]" : "");
    table_cell(table, "%s", name);
    table_cell(table, "%d", n_out);
    table_cell(table, "%d", n_in);
    table_cell(table, "%s", text_string(&values));
    table_cell(table, "%.3f", row->seconds);
    table_cell(table, "%s", json ? row->cached ? "true" : "false" : row->cached ? "yes" : "no");
    text_release(&values);
}

/* The modules that are done, in the model's order. */
static Status print_rows(const Report *report, Error *error)
{
    bool json = report->cli->format == FORMAT_JSON || report->cli->format == FORMAT_JSONL;
    Table table = {0};
    Text out = {0};
    table_column(&table, "module", false);
    table_column(&table, "rows", true);
    table_column(&table, "columns", true);
    table_column(&table, "singular_values", json);
    table_column(&table, "seconds", true);
    table_column(&table, "cached", json);
    for (int i = 0; i < report->n; i++) {
        if (report->rows[i].done) {
            add_row(&table, report, i, json);
        }
    }
    table_print(&table, report->cli->format, &out);
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    table_release(&table);
    return status;
}

/* "q_proj,v_proj" as a bit a role. */
static Status read_targets(unsigned *targets, const char *typed, Error *error)
{
    const char *names[N_ROLES];
    for (int role = 0; role < N_ROLES; role++) {
        names[role] = role_name((Role)role);
    }
    *targets = typed ? 0 : (1u << N_ROLES) - 1;
    for (const char *at = typed; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char word[32] = "";
        int role = 0;
        snprintf(word, sizeof word, "%.*s", (int)strcspn(at, ","), at);
        while (role < N_ROLES && strcmp(word, names[role]) != 0) {
            role++;
        }
        if (role == N_ROLES) {
            return error_set(error, STATUS_USAGE, "--targets \"%s\": the nearest layer is \"%s\"",
                             word, nearest_name(word, names, N_ROLES));
        }
        *targets |= 1u << role;
    }
    return STATUS_OK;
}

static Status open_file(ModelConfig *config, SafeTensors **file, const char *directory,
                        Error *error)
{
    char path[FILE_PATH_MAX];
    Status status = model_config_read(config, directory, error);
    status = status ? status : model_weights_path(path, directory, error);
    status = status ? status : model_weights_open(file, directory, error);
    if (!status) {
        status = model_config_check(config, *file, error);
        status = status ? error_context(error, status, "%s", path) : STATUS_OK;
    }
    return status;
}

static Status factor(const Cli *cli, const ModelConfig *config, const SafeTensors *file,
                     unsigned targets, int rank, Error *error)
{
    size_t most = (size_t)config->n_layers * N_ROLES;
    Module *modules = malloc(most * sizeof *modules);
    Row *rows = calloc(most, sizeof *rows);
    if (!modules || !rows) {
        free(modules);
        free(rows);
        return error_set(error, STATUS_FAILED, "no memory for %zu modules", most);
    }
    Report report = {.cli = cli, .config = config, .modules = modules, .rows = rows, .rank = rank};
    report.n = plan_modules(modules, config, targets);
    for (int i = 0; i < report.n; i++) {
        report.numbers_left += numbers_of(&report, i);
    }
    FactorsStream stream = {.file = file,
                            .config = config,
                            .modules = modules,
                            .n_modules = report.n,
                            .rank = rank,
                            .n_threads = cli->n_threads,
                            .cache_directory = cli->cache,
                            .stopping = stopping,
                            .started = started,
                            .finished = finished,
                            .context = &report};
    double began_s = cli_clock_s();
    report.began_s = began_s;
    report.shown_s = cli->terminal ? 0 : began_s;
    Status status = factors_stream(&stream, error);
    fputs(report.line_open ? "\r\033[K" : "", stderr);
    if (status == STATUS_OK) {
        cli_note(cli, "%d modules, %d of them were there, in %.1f s; \"%s\"", report.n,
                 report.n_cached, cli_clock_s() - began_s, cli->cache);
        status = print_rows(&report, error);
    } else if (status == STATUS_STOPPED) {
        error_set(error, status,
                  "stopped, factors of %d of %d modules are in \"%s\"; the same "
                  "command goes on",
                  report.n_done, report.n, cli->cache);
        (void)print_rows(&report, NULL);
        fflush(stdout);
    }
    for (int i = 0; i < report.n; i++) {
        free(rows[i].values);
    }
    free(rows);
    free(modules);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *model = NULL, *typed = NULL;
    int rank = 2;
    const Option options[] = {
        {"--model", OPTION_TEXT, &model, 0, 0},
        {"--rank", OPTION_INT, &rank, 1, 1 << 20},
        {"--targets", OPTION_TEXT, &typed, 0, 0},
    };
    char directory[CONFIG_PATH];
    unsigned targets;
    ModelConfig config;
    SafeTensors *file = NULL;
    Status status = options_parse(cli, options, 3, argc, argv, NULL, 0, 0, error);
    status = status ? status : read_targets(&targets, typed, error);
    if (!status && !cli->cache) {
        status = error_set(error, STATUS_USAGE,
                           "there is no folder for the factors: set "
                           "TINYLORA_CACHE");
    }
    status = status ? status : cli_model_directory(cli, directory, model, error);
    status = status ? status : open_file(&config, &file, directory, error);
    if (!status) {
        status = factor(cli, &config, file, targets, rank, error);
    }
    safetensors_close(file);
    return status;
}

const Verb verb_factors = {
    .name = "factors",
    .summary = "the frozen SVD factors of a model, found ahead of training",
    .usage = "--model MODEL [--rank R] [--targets A,B]",
    .help =
        "Finds what TinyLoRA and LoRA-XS would find at the start of a run, and stores it where\n"
        "they look for it: in $TINYLORA_CACHE (else $XDG_CACHE_HOME/tinylora or\n"
        "~/.cache/tinylora), under the hash of each weight. The weights are read from the file\n"
        "one after another and are never all in memory. Stop it and type it again: modules that\n"
        "are done are only read.\n\n"
        "  --rank R        triplets a module (2); as adapter.rank of the run\n"
        "  --targets A,B   linear layers: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj,\n"
        "                  down_proj; all of them unless given\n\n"
        "Prints a row a module: its shape, singular values, seconds, and whether it was there.\n\n"
        "examples:\n"
        "  tinylora factors --model ../Qwen2.5-7B\n"
        "  tinylora --threads 8 factors --model abacus --rank 8 --targets q_proj,v_proj -o json\n",
    .run = run,
};
