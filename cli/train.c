/* Reads the config, runs its cells, prints what became of them. */
#include "cli/train.h"

#include <string.h>

#include "cli/options.h"
#include "cli/table.h"
#include "cli/world.h"
#include "experiments/model_lock.h"
#include "experiments/runner.h"

static Status check_method(const Config *config, const char *method, const Cell *cells, size_t n,
                           Error *error)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(cells[i].spec.method, "scan") == 0) {
            return error_set(error, STATUS_USAGE,
                             "config \"%s\": method is \"scan\"; use tinylora scan", config->path);
        }
        if (strcmp(cells[i].spec.method, "import") == 0) {
            return error_set(error, STATUS_USAGE,
                             "config \"%s\": method is \"import\", which trains nothing; use "
                             "tinylora adapter import",
                             config->path);
        }
        if (method && strcmp(cells[i].spec.method, method) != 0) {
            return error_set(error, STATUS_USAGE,
                             "config \"%s\": method is \"%s\"; use tinylora %s, or --set method=%s",
                             config->path, cells[i].spec.method, cells[i].spec.method, method);
        }
    }
    if (method && n > 1) {
        return error_set(error, STATUS_USAGE, "config \"%s\": %zu cells; use tinylora sweep",
                         config->path, n);
    }
    return STATUS_OK;
}

static Status print_cells(const Cli *cli, const Cell *cells, size_t n, Error *error)
{
    Table table = {0};
    Text out = {0};
    table_column(&table, "run_id", false);
    table_column(&table, "state", false);
    table_column(&table, "step", true);
    table_column(&table, "steps", true);
    table_column(&table, "budget", true);
    table_column(&table, "lr", true);
    table_column(&table, "seed", true);
    table_column(&table, "cell", false);
    for (size_t i = 0; i < n; i++) {
        const Cell *cell = &cells[i];
        bool started = cell->last_step >= 0;
        table_cell(&table, "%s", cell->run_id);
        table_cell(&table, "%s", run_state_name(cell->state));
        table_cell(&table, started ? "%lld" : "", (long long)cell->last_step);
        table_cell(&table, "%d", cell->spec.steps);
        table_cell(&table, "%lld", (long long)cell->budget);
        table_cell(&table, "%.10g", cell->spec.optimizer.lr);
        table_cell(&table, "%lld", (long long)cell->spec.seed);
        table_cell(&table, "%s", text_string(&cell->label));
    }
    table_print(&table, cli->format, &out);
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    table_release(&table);
    return status;
}

static Status run_cells(const Cli *cli, const Config *config, Cell *cells, size_t n,
                        bool retry_failed, Error *error)
{
    CliWorld world;
    RunnerResult result = {0};
    RunnerOptions options = {cli->db, retry_failed, CLI_WAIT_MS};
    cli_world_init(&world, cli);
    double began_s = cli_clock_s();
    Status status = runner_run(&result, config, cells, n, &world.world, &options, error);
    cli_world_release(&world);
    if (status == STATUS_USAGE || status == STATUS_REFUSED) {
        return status;
    }
    if (status == STATUS_STOPPED) {
        error_set(error, status,
                  "stopped, everything committed to \"%s\"; the same command goes on", cli->db);
    } else if (result.n) {
        char cancelled[48] = "";
        if (result.n_cancelled) {
            snprintf(cancelled, sizeof cancelled, ", %zu cancelled", result.n_cancelled);
        }
        cli_note(cli, "%zu of %zu runs done, %zu of them now in %.1f s%s; \"%s\"", result.n_done,
                 result.n, result.n_new, cli_clock_s() - began_s, cancelled, cli->db);
    }
    if (result.n) {
        Error ignored;
        print_cells(cli, cells, n, &ignored);
    }
    return status;
}

Status cli_train(Cli *cli, const char *method, int argc, char **argv, Error *error)
{
    const char *path;
    OptionList overrides = {0};
    bool dry_run = false, retry_failed = false;
    const Option options[] = {
        {"--set", OPTION_LIST, &overrides, 0, 0},
        {"--dry-run", OPTION_FLAG, &dry_run, 0, 0},
        {"--retry-failed", OPTION_FLAG, &retry_failed, 0, 0},
    };
    Config *config = NULL;
    Cell *cells = NULL;
    size_t n = 0;
    Status status = options_parse(cli, options, 3, argc, argv, &path, 1, 1, error);
    options_add_data(&overrides, cli);
    status = status ? status
                    : config_read(&config, path, overrides.values, overrides.n, cli->models, error);
    status = status ? status : cells_open(&cells, &n, config, cli->models, cli->db, error);
    status = status ? status : check_method(config, method, cells, n, error);
    for (size_t i = 0; i < n && !status; i++) {
        status = model_lock_check(cli->lock, cells[i].directory, error);
    }
    if (!status && dry_run) {
        status = runner_states(cells, n, cli->db, error);
        status = status ? status : print_cells(cli, cells, n, error);
    } else if (!status) {
        status = run_cells(cli, config, cells, n, retry_failed, error);
    }
    cells_close(cells, n);
    config_free(config);
    return status;
}
