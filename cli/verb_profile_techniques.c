/* tinylora profile techniques */
#include <string.h>

#include "analysis/profile.h"
#include "cli/child.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "experiments/adapter_settings.h"

/* The baseline first. */
static const struct {
    const char *name, *method;
    int micro_batch; /* 0: the whole batch at once */
} techniques[] = {
    {"full", "full", 0},         {"full, accumulated", "full", 1},
    {"lora", "lora", 0},         {"lora, accumulated", "lora", 1},
    {"tinylora", "tinylora", 0}, {"tinylora, accumulated", "tinylora", 1},
};
enum { N_TECHNIQUES = sizeof techniques / sizeof techniques[0] };

/* One row, in memory that both processes see. */
typedef struct {
    char directory[CONFIG_PATH];
    const Cli *cli;
    AdapterSpec adapter;
    TrainProfile profile;
    TrainMeasures measures;
    TensorType weights; /* as they are multiplied with */
    double loaded_mib, peak_mib;
} Measured;

static Status open_all(Model **model, Engine **engine, AdapterBank **bank, const Measured *m,
                       Error *error)
{
    int n_threads = m->cli->n_threads;
    Status status = model_open(model, m->directory, n_threads, error);
    status = status ? status
                    : adapter_bank_new(bank, *model, &m->adapter, 1, n_threads, m->cli->cache, NULL,
                                       NULL, error);
    return status ? status : engine_new(engine, *model, n_threads, 0, error);
}

/* Factors that are not in the cache yet would be found in the process measured, and their memory
 * be counted. */
static Status prepare(void *context, Error *error)
{
    Model *model;
    Engine *engine;
    AdapterBank *bank;
    return open_all(&model, &engine, &bank, context, error);
}

static Status work(void *context, Error *error)
{
    Measured *m = context;
    Model *model;
    Engine *engine;
    AdapterBank *bank;
    Status status = open_all(&model, &engine, &bank, m, error);
    if (!status) {
        m->weights = model->layers[0].weight[ROLE_Q].type;
        m->loaded_mib = child_peak_mib();
        status = profile_train(&m->measures, engine, bank, &m->profile, child_clock_s, error);
    }
    return status;
}

static Status measure(Measured *m, int technique, const ModelConfig *config, Error *error)
{
    RunSpec spec;
    double ignored;
    settings_default(&spec);
    strcpy(spec.adapter.method, techniques[technique].method);
    m->profile.micro_batch = techniques[technique].micro_batch;
    cli_note(m->cli, "%s", techniques[technique].name);
    Status status = adapter_settle(&spec, error);
    status = status ? status : cell_adapter(&m->adapter, &spec, config, error);
    if (!status && m->cli->cache && strcmp(spec.adapter.method, "tinylora") == 0) {
        status = child_run(&ignored, prepare, m, error);
    }
    status = status ? status : child_run(&m->peak_mib, work, m, error);
    adapter_spec_release(&m->adapter);
    return status;
}

static void add_columns(Table *table)
{
    table_column(table, "technique", false);
    table_column(table, "weights", false);
    table_column(table, "parameters", true);
    table_column(table, "micro_batch", true);
    table_column(table, "step_ms", true);
    table_column(table, "loaded_mib", true);
    table_column(table, "peak_mib", true);
    table_column(table, "loss", true);
    table_column(table, "grad_norm", true);
}

static void add_row(Table *table, const Measured *m, const char *name, bool json)
{
    table_cell(table, "%s", name);
    table_cell(table, "%s", tensor_type_name(m->weights));
    table_cell(table, "%zu", m->measures.parameters);
    table_cell(table, "%d", m->profile.micro_batch ? m->profile.micro_batch : m->profile.sequences);
    table_cell(table, "%.3f", 1e3 * m->measures.seconds);
    table_cell(table, "%.1f", m->loaded_mib);
    table_cell(table, "%.1f", m->peak_mib);
    table_cell(table, json ? "%.17g" : "%.9g", m->measures.loss);
    table_cell(table, json ? "%.17g" : "%.9g", m->measures.grad_norm);
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *name = NULL;
    ModelConfig config;
    Table table = {0};
    Text out = {0};
    Measured *m = child_memory(sizeof *m);
    if (!m) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    m->cli = cli;
    m->profile = (TrainProfile){.sequences = 8, .n_tokens = 64, .steps = 3};
    const Option options[] = {{"--model", OPTION_TEXT, &name, 0, 0},
                              {"--sequences", OPTION_INT, &m->profile.sequences, 1, 4096},
                              {"--tokens", OPTION_INT, &m->profile.n_tokens, 2, 1e6},
                              {"--steps", OPTION_INT, &m->profile.steps, 1, 1000}};
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  NULL, 0, 0, error);
    status = status ? status : cli_model_directory(cli, m->directory, name, error);
    status = status ? status : model_config_read(&config, m->directory, error);
    add_columns(&table);
    cli_arm_max_time(cli);
    for (int i = 0; i < N_TECHNIQUES && !status; i++) {
        status = measure(m, i, &config, error);
        if (!status) {
            add_row(&table, m, techniques[i].name,
                    cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL);
        }
    }
    if (!status) {
        table_print(&table, cli->format, &out);
        status = cli_write(text_string(&out), out.n, error);
    }
    text_release(&out);
    table_release(&table);
    child_memory_release(m, sizeof *m);
    return status;
}

const Verb verb_profile_techniques = {
    .name = "profile techniques",
    .summary = "a training step of full, LoRA and TinyLoRA, at once and accumulated: time, memory",
    .usage = "--model MODEL [--sequences N] [--tokens N] [--steps N]",
    .help =
        "A step of SFT with AdamW on fixed pseudo-random rows: full training, LoRA of rank 8 and\n"
        "TinyLoRA of 13 scalars, each with the whole batch in memory and with one row at a time,\n"
        "gradients summed (the setting micro_batch). Each row is measured in a process of its "
        "own,\n"
        "whose peak of memory it tells.\n\n"
        "  --sequences N   rows of the batch (8)\n"
        "  --tokens N      tokens a row (64)\n"
        "  --steps N       steps timed, the best is told (3), after one that is not\n\n"
        "weights: the type multiplied with: the file's, but f32 where all of them are trained.\n"
        "loaded_mib: the peak once model and adapter were there. loss, grad_norm: of the first\n"
        "step; all techniques start at the same model, so the loss is one, and accumulation\n"
        "changes neither (full: but for rounding).\n\n"
        "examples:\n"
        "  tinylora profile techniques --model abacus\n"
        "  tinylora profile techniques --model ../Qwen2.5-0.5B --sequences 4 --tokens 256 -o md\n",
    .run = run,
};
