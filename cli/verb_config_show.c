/* tinylora config show CONFIG */
#include "cli/options.h"
#include "experiments/cell.h"

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *path;
    OptionList overrides = {0};
    const Option options[] = {{"--set", OPTION_LIST, &overrides, 0, 0}};
    Config *config;
    RunSpec spec;
    Text out = {0};
    Status status = options_parse(cli, options, 1, argc, argv, &path, 1, 1, error);
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
    status = status || config->n_axes ? status : config_settle(config, &spec, error);
    if (!status) {
        /* The plan too, where the model is at hand. */
        char directory[CONFIG_PATH];
        ModelConfig model;
        AdapterSpec adapter;
        if (!config->n_axes && model_find(directory, spec.model, cli->models, NULL) == STATUS_OK &&
            model_config_read(&model, directory, NULL) == STATUS_OK) {
            status = cell_adapter(&adapter, &spec, &model, error);
        }
        config_show(&spec, config, &out);
        status = status ? status : cli_write(text_string(&out), out.n, error);
    }
    text_release(&out);
    config_free(config);
    return status;
}

extern const Verb verb_config_show;
const Verb verb_config_show = {
    .name = "config show",
    .summary = "a config with every default, as JSON",
    .usage = "CONFIG [--set key.path=value ...]",
    .help = "  --set K=V   override a setting; may be given again\n\n"
            "examples:\n"
            "  tinylora config show experiments/presets/budget13-lr.json\n"
            "  tinylora config show my.json --set optimizer.lr=1e-4 --set sweep.seed=[1,2,3]\n",
    .run = run,
};
