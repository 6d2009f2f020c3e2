/* tinylora adapter import */
#include <string.h>

#include "cli/options.h"
#include "cli/table.h"
#include "cli/use.h"
#include "cli/verbs.h"
#include "experiments/carry.h"
#include "experiments/config.h"

static Status print_run(const Cli *cli, const Use *use, const char *run_id, Error *error)
{
    Table table = {0};
    Text out = {0};
    table_column(&table, "run_id", false);
    table_column(&table, "method", false);
    table_column(&table, "adapter", false);
    table_column(&table, "rank", true);
    table_column(&table, "parameters", true);
    table_cell(&table, "%s", run_id);
    table_cell(&table, "import");
    table_cell(&table, "%s", use->adapter.spec.adapter.method);
    if (strcmp(use->adapter.spec.adapter.method, "full") == 0) {
        table_cell(&table, "%s", "");
    } else {
        table_cell(&table, "%d", use->adapter.spec.adapter.rank);
    }
    table_cell(&table, "%zu", use->adapter.n);
    table_print(&table, cli->format, &out);
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    table_release(&table);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *directory, *path = NULL;
    UseOptions named = {0};
    OptionList overrides = {0};
    const Option options[] = {
        {"--model", OPTION_TEXT, &named.model, 0, 0},
        {"--config", OPTION_TEXT, &path, 0, 0},
        {"--set", OPTION_LIST, &overrides, 0, 0},
    };
    Use use = {0};
    Config *config = NULL;
    Store *store = NULL;
    char run_id[17];
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  &directory, 1, 1, error);
    if (!status && overrides.n && !path) {
        status = error_set(error, STATUS_USAGE, "--set goes with --config");
    }
    if (!status && path) {
        status = config_read(&config, path, overrides.values, overrides.n, cli->models, error);
        status = status ? status : config_settle(config, &config->base, error);
        named.model = status || named.model ? named.model : config->base.model;
    }
    if (!status) {
        named.adapter = directory;
        status = use_open_adapter(&use, cli, &named, error); /* made, and so checked */
    }
    status = status ? status : store_open(&store, cli->db, STORE_WRITE, CLI_WAIT_MS, error);
    status = status
                 ? status
                 : carry_import(run_id, store, &use.world.world, &use.adapter,
                                use.session.bench.directory, config ? &config->base : NULL, error);
    store_close(store);
    status = status ? status : print_run(cli, &use, run_id, error);
    use_close(&use);
    config_free(config);
    return status;
}

const Verb verb_adapter_import = {
    .name = "adapter import",
    .summary = "an adapter from a folder becomes a stored run",
    .usage = "DIR --model MODEL [--config CONFIG]",
    .help = "DIR holds what adapter export writes as bytes, peft-lora, peft-tinylora or merged, or "
            "what "
            "PEFT saved.\nThe run has method \"import\"; eval, score --run, scan and adapter diff "
            "take it. PEFT's\nadapters come as method lora, TinyLoRA's A and B R among them; a "
            "merged model as method full.\n\n"
            "  --model MODEL     the base model it was made for; else CONFIG's\n"
            "  --config CONFIG   prompts, rewards and evaluation are as this config says\n"
            "  --set K=V         override a setting of CONFIG\n\n"
            "examples:\n"
            "  tinylora adapter import my-lora --model qwen2.5-0.5b\n"
            "  tinylora adapter import my-adapter --config experiments/presets/budget13-lr.json\n",
    .run = run,
};
