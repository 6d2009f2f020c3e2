/* tinylora profile techniques */
#include <stdlib.h>
#include <string.h>

#include "analysis/profile.h"
#include "cli/child.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "experiments/adapter_settings.h"

/* Of each method; the first is what the others are compared with. */
static const struct {
    const char *name;
    int micro_batch; /* 0: the whole batch at once */
    Checkpointing checkpointing;
    TensorType precision;
} techniques[] = {
    {"", 0, CHECKPOINTING_NONE, TENSOR_F32},
    {", accumulated", 1, CHECKPOINTING_NONE, TENSOR_F32},
    {", selective checkpointing", 0, CHECKPOINTING_SELECTIVE, TENSOR_F32},
    {", full checkpointing", 0, CHECKPOINTING_FULL, TENSOR_F32},
    {", bf16", 0, CHECKPOINTING_NONE, TENSOR_BF16},
    {", f16", 0, CHECKPOINTING_NONE, TENSOR_F16},
};
static const char *const methods[] = {"full", "lora", "tinylora"};
enum {
    N_TECHNIQUES = sizeof techniques / sizeof techniques[0],
    N_METHODS = sizeof methods / sizeof methods[0]
};

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
    status = status ? status : engine_new(engine, *model, n_threads, 0, error);
    return status ? status : model_pack(*model, error);
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
        status = profile_train(&m->measures, engine, bank, &m->profile, cli_clock_s, error);
    }
    return status;
}

/* The settings of an adapter, and its factors found. */
static Status begin_method(Measured *m, const char *method, const ModelConfig *config, Error *error)
{
    RunSpec spec;
    double ignored;
    settings_default(&spec);
    strcpy(spec.adapter.method, method);
    Status status = adapter_settle(&spec, error);
    status = status ? status : cell_adapter(&m->adapter, &spec, config, error);
    if (!status && m->cli->cache && strcmp(method, "tinylora") == 0) {
        status = child_run(&ignored, prepare, m, error);
    }
    return status;
}

static Status measure(Measured *m, const char *method, int technique, Error *error)
{
    m->profile.micro_batch = techniques[technique].micro_batch;
    m->profile.checkpointing = techniques[technique].checkpointing;
    m->profile.precision = techniques[technique].precision;
    cli_note(m->cli, "%s%s", method, techniques[technique].name);
    return child_run(&m->peak_mib, work, m, error);
}

static bool is_equal(const TrainMeasures *one, const TrainMeasures *base)
{
    return one->loss == base->loss && strcmp(one->gradient_sha256, base->gradient_sha256) == 0;
}

/* What must not change: the loss, ever; the gradient by checkpointing, nor by accumulation where it
 * is summed by sequences. */
static bool keeps_promise(const Measured *m, const TrainMeasures *base, const char *method)
{
    bool sums_rows = m->profile.micro_batch > 0 && strcmp(method, "full") == 0;
    return m->measures.loss == base->loss &&
           (m->profile.precision != TENSOR_F32 || sums_rows || is_equal(&m->measures, base));
}

static void add_columns(Table *table, bool json)
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
    table_column(table, "equal", json);
    table_column(table, "gradient_off", true);
}

static void add_row(Table *table, const Measured *m, const TrainMeasures *base, const char *method,
                    int technique, bool json)
{
    bool equal = is_equal(&m->measures, base);
    table_cell(table, "%s%s", method, techniques[technique].name);
    table_cell(table, "%s", tensor_type_name(m->weights));
    table_cell(table, "%zu", m->measures.parameters);
    table_cell(table, "%d", m->profile.micro_batch ? m->profile.micro_batch : m->profile.sequences);
    table_cell(table, "%.3f", 1e3 * m->measures.seconds);
    table_cell(table, "%.1f", m->loaded_mib);
    table_cell(table, "%.1f", m->peak_mib);
    table_cell(table, json ? "%.17g" : "%.9g", m->measures.loss);
    table_cell(table, json ? "%.17g" : "%.9g", m->measures.grad_norm);
    table_cell(table, "%s", json ? equal ? "true" : "false" : equal ? "yes" : "no");
    table_cell(table, "%.2g", profile_gradient_distance(&m->measures, base));
}

/* All techniques of a method. broken: the first that changes what it must not. */
static Status measure_method(Table *table, Text *broken, Measured *m, TrainMeasures *base,
                             const char *method, const ModelConfig *config, bool json, Error *error)
{
    Status status = begin_method(m, method, config, error);
    for (int i = 0; i < N_TECHNIQUES && !status; i++) {
        status = measure(m, method, i, error);
        if (!status) {
            *base = i == 0 ? m->measures : *base;
            add_row(table, m, base, method, i, json);
            if (!keeps_promise(m, base, method) && !broken->n) {
                text_printf(broken, "%s%s", method, techniques[i].name);
            }
        }
    }
    adapter_spec_release(&m->adapter);
    return status;
}

/* "lora,tinylora" */
static Status read_methods(bool chosen[N_METHODS], const char *typed, Error *error)
{
    for (const char *at = typed;; at++) {
        size_t n = strcspn(at, ","), i = 0;
        while (i < N_METHODS && (strlen(methods[i]) != n || strncmp(methods[i], at, n) != 0)) {
            i++;
        }
        if (i == N_METHODS) {
            return error_set(
                error, STATUS_USAGE,
                "--adapters \"%.64s\": some of full, lora, tinylora, as in lora,tinylora", typed);
        }
        chosen[i] = true;
        at += n;
        if (!*at) {
            return STATUS_OK;
        }
    }
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *name = NULL, *typed = "full,lora,tinylora";
    bool chosen[N_METHODS] = {0}, json = false;
    Text broken = {0};
    ModelConfig config;
    Table table = {0};
    Text out = {0};
    Measured *m = child_memory(sizeof *m);
    TrainMeasures *base = malloc(sizeof *base);
    if (!m || !base) {
        child_memory_release(m, sizeof *m);
        free(base);
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    m->cli = cli;
    m->profile = (TrainProfile){.sequences = 8, .n_tokens = 64, .steps = 3};
    const Option options[] = {{"--model", OPTION_TEXT, &name, 0, 0},
                              {"--adapters", OPTION_TEXT, &typed, 0, 0},
                              {"--sequences", OPTION_INT, &m->profile.sequences, 1, 4096},
                              {"--tokens", OPTION_INT, &m->profile.n_tokens, 2, 1e6},
                              {"--steps", OPTION_INT, &m->profile.steps, 1, 1000}};
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  NULL, 0, 0, error);
    status = status ? status : read_methods(chosen, typed, error);
    status = status ? status : cli_model_directory(cli, m->directory, name, error);
    status = status ? status : model_config_read(&config, m->directory, error);
    json = cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
    add_columns(&table, json);
    for (int i = 0; i < N_METHODS && !status; i++) {
        if (chosen[i]) {
            status = measure_method(&table, &broken, m, base, methods[i], &config, json, error);
        }
    }
    if (!status) {
        table_print(&table, cli->format, &out);
        status = cli_write(text_string(&out), out.n, error);
    }
    if (!status && broken.n) {
        status = error_set(error, STATUS_FAILED, "%s changes a loss or gradient that it must not",
                           text_string(&broken));
    }
    free(base);
    text_release(&broken);
    text_release(&out);
    table_release(&table);
    child_memory_release(m, sizeof *m);
    return status;
}

const Verb verb_profile_techniques = {
    .name = "profile techniques",
    .summary = "a training step of full, LoRA and TinyLoRA, accumulated, checkpointed, in 16 bits: "
               "time, memory",
    .usage = "--model MODEL [--adapters LIST] [--sequences N] [--tokens N] [--steps N]",
    .help =
        "A step of SFT with AdamW on fixed pseudo-random rows: full training, LoRA of rank 8 and\n"
        "TinyLoRA of 13 scalars; each as it is, with one row at a time, gradients summed (the\n"
        "setting micro_batch), and with other values of engine.activation_checkpointing and\n"
        "engine.precision. Each row is measured in a process of its own, whose peak of memory it\n"
        "tells.\n\n"
        "  --adapters LIST which of full,lora,tinylora (all)\n"
        "  --sequences N   rows of the batch (8)\n"
        "  --tokens N      tokens a row (64)\n"
        "  --steps N       steps timed, the best is told (3), after one that is not\n\n"
        "weights: the type multiplied with: the file's, but f32 where all of them are trained.\n"
        "loaded_mib: the peak once model and adapter were there. loss, grad_norm: of the first\n"
        "step (f16: of the first update). All start at the same model, so the loss is one.\n"
        "equal: loss and gradient have the bits of the adapter's first row; checkpointing "
        "promises\n"
        "it, so does accumulation but for full; where a promise is broken the exit code is 1.\n"
        "gradient_off: |gradient - that row's| / |that row's|.\n\n"
        "examples:\n"
        "  tinylora profile techniques --model abacus\n"
        "  tinylora profile techniques --model ../Qwen2.5-0.5B --adapters lora,tinylora --tokens "
        "256\n",
    .run = run,
};
