/* tinylora config show CONFIG */
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "experiments/cell.h"

/* What a value may be: "whole number, 1 to 256", "grpo|dr_grpo|dapo|bnpo". */
static void describe_values(const Setting *setting, Text *out)
{
    static const char *const kinds[] = {
        [SETTING_TEXT] = "text",
        [SETTING_PATH] = "file",
        [SETTING_MODEL] = "model",
        [SETTING_INTEGER] = "whole number",
        [SETTING_SEED] = "seed",
        [SETTING_NUMBER] = "number",
        [SETTING_SWITCH] = "true or false",
        [SETTING_TARGETS] = "list of linear layers",
    };
    text_add(out, setting->kind == SETTING_WORDS ? "list of " : "");
    text_add(out, setting->choices ? setting->choices : kinds[setting->kind]);
    if (setting->kind == SETTING_INTEGER || setting->kind == SETTING_NUMBER) {
        text_printf(out, ", %s %g to %g", setting->flags & SETTING_OPEN_LOW ? "above" : "from",
                    setting->min, setting->max);
    }
}

static Status show_keys(const Cli *cli, Error *error)
{
    Table table = {0};
    Text out = {0};
    table_column(&table, "key", false);
    table_column(&table, "default", false);
    table_column(&table, "values", false);
    table_column(&table, "meaning", false);
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        Text values = {0};
        describe_values(setting, &values);
        table_cell(&table, "%s", setting->path);
        table_cell(&table, "%s",
                   setting->kind == SETTING_TARGETS ? "all"
                   : setting->fallback              ? setting->fallback
                                                    : "(must be given)");
        table_cell(&table, "%s", text_string(&values));
        table_cell(&table, "%s", setting->doc);
        text_release(&values);
    }
    table_print(&table, cli->format, &out);
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    table_release(&table);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *path;
    OptionList overrides = {0};
    const Option options[] = {{"--set", OPTION_LIST, &overrides, 0, 0}};
    Config *config;
    RunSpec spec;
    Text out = {0};
    Status status = options_parse(cli, options, 1, argc, argv, &path, 1, 0, error);
    options_add_data(&overrides, cli);
    if (!status && !path) {
        return show_keys(cli, error);
    }
    status = status ? status
                    : config_read(&config, path, overrides.values, overrides.n, cli->models, error);
    if (status) {
        return status;
    }
    size_t n_cells;
    status = grid_count(&n_cells, config, error);
    for (size_t i = 0; i < n_cells && !status; i++) {
        status = grid_cell(&spec, config, i, error); /* every cell keeps the rules */
    }
    spec = config->base;
    status = status || config_is_sweep(config) ? status : config_settle(config, &spec, error);
    if (!status) {
        /* The plan too, where the model is at hand. */
        char directory[CONFIG_PATH];
        ModelConfig model;
        AdapterSpec adapter;
        if (!config_is_sweep(config) &&
            model_find(directory, spec.model, cli->models, NULL) == STATUS_OK &&
            model_config_read(&model, directory, NULL) == STATUS_OK) {
            status = cell_adapter(&adapter, &spec, &model, error);
            adapter_spec_release(&adapter);
        }
        config_show(&spec, config, &out);
        status = status ? status : cli_write(text_string(&out), out.n, error);
    }
    text_release(&out);
    config_free(config);
    return status;
}

const Verb verb_config_show = {
    .name = "config show",
    .summary = "a config with every default, as JSON",
    .usage = "[CONFIG [--set key.path=value ...]]",
    .help = "Without CONFIG: every key there is, its default, its values and its meaning.\n\n"
            "  --set K=V   override a setting; may be given again\n\n"
            "examples:\n"
            "  tinylora config show experiments/presets/budget13-lr.json\n"
            "  tinylora config show my.json --set optimizer.lr=1e-4 --set sweep.seed=[1,2,3]\n",
    .run = run,
};
