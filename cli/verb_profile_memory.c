/* tinylora profile memory */
#include <stdlib.h>

#include "analysis/profile.h"
#include "cli/child.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "experiments/adapter_settings.h"

enum { MOST_TOKENS = 512, SCALARS = 13 };

/* In memory that both processes see; the peaks are in MiB, each a stage later. */
typedef struct {
    char directory[CONFIG_PATH];
    const Cli *cli;
    AdapterSpec adapter;
    int sequences, n_tokens;
    Checkpointing checkpointing;
    TensorType precision;
    MemoryNeeds needs;
    TrainMeasures measures;
    double decode_loaded, decode_peak;
    double began, loaded, adapted, peak;
} Measured;

static Status decode(void *context, Error *error)
{
    Measured *m = context;
    Model *model;
    Engine *engine = NULL;
    size_t n = (size_t)m->sequences;
    int32_t *ids = malloc(n * sizeof *ids);
    double seconds, *logprobs = malloc(n * sizeof *logprobs);
    DecodeProfile profile = {m->sequences, m->n_tokens - 1, 1, true};
    Status status = ids && logprobs ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    status = status ? status : model_open(&model, m->directory, m->cli->n_threads, error);
    status = status
                 ? status
                 : engine_new(&engine, model, m->cli->n_threads, m->sequences * m->n_tokens, error);
    status = status ? status : model_pack(model, error);
    m->decode_loaded = child_peak_mib();
    status = status ? status
                    : profile_decode(&seconds, ids, logprobs, engine, &profile, cli_clock_s, error);
    m->decode_peak = child_peak_mib();
    free(ids);
    free(logprobs);
    return status;
}

static Status train(void *context, Error *error)
{
    Measured *m = context;
    Model *model;
    Engine *engine = NULL;
    AdapterBank *bank = NULL;
    TrainProfile profile = {.sequences = m->sequences,
                            .n_tokens = m->n_tokens,
                            .steps = 1,
                            .checkpointing = m->checkpointing,
                            .precision = m->precision};
    int n_threads = m->cli->n_threads;
    m->began = child_peak_mib();
    Status status = model_open(&model, m->directory, n_threads, error);
    status =
        status ? status : engine_new(&engine, model, n_threads, m->sequences * m->n_tokens, error);
    status = status ? status : model_pack(model, error);
    m->loaded = child_peak_mib();
    status = status ? status
                    : adapter_bank_new(&bank, model, &m->adapter, 1, n_threads, m->cli->cache, NULL,
                                       NULL, error);
    m->adapted = child_peak_mib();
    status =
        status ? status : profile_train(&m->measures, engine, bank, &profile, cli_clock_s, error);
    m->peak = child_peak_mib();
    if (!status) {
        profile_memory(&m->needs, model, m->adapter.plan.rank, m->checkpointing, m->precision);
    }
    return status;
}

/* measured: negative where a part cannot be told from its neighbours; a_token: 0 where it does not
 * grow with the batch. */
static void add_row(Table *table, const char *part, size_t a_token, size_t computed,
                    double measured)
{
    table_cell(table, "%s", part);
    if (a_token > 0) {
        table_cell(table, "%zu", a_token);
    } else {
        table_null(table);
    }
    table_cell(table, "%.3f", (double)computed / 0x1p20);
    if (measured >= 0) {
        table_cell(table, "%.1f", measured);
    } else {
        table_null(table);
    }
}

static void fill(Table *table, const Measured *m)
{
    const MemoryNeeds *n = &m->needs;
    size_t tokens = (size_t)m->sequences * (size_t)m->n_tokens;
    size_t learned = tokens - (size_t)m->sequences;
    table_column(table, "part", false);
    table_column(table, "bytes_a_token", true);
    table_column(table, "computed_mib", true);
    table_column(table, "measured_mib", true);
    add_row(table, "model", 0, n->mapped + n->packed + n->plain, m->loaded - m->began);
    add_row(table, "- largest tensor of the file", 0, n->mapped, -1);
    add_row(table, "- packed weights", 0, n->packed, -1);
    add_row(table, "- norms, biases", 0, n->plain, -1);
    add_row(table, "decoding", n->cache_token + n->forward_token,
            tokens * (n->cache_token + n->forward_token), m->decode_peak - m->decode_loaded);
    add_row(table, "- keys and values", n->cache_token, tokens * n->cache_token, -1);
    add_row(table, "- activations", n->forward_token, tokens * n->forward_token, -1);
    add_row(table, "tinylora", 0, n->adapter, m->adapted - m->loaded);
    add_row(table, "training step", n->training_token + n->logits_token,
            tokens * n->training_token + learned * n->logits_token + SCALARS * n->scalar,
            m->peak - m->adapted);
    add_row(table, "- activations", n->training_token, tokens * n->training_token, -1);
    add_row(table, "- logits", n->logits_token, learned * n->logits_token, -1);
    add_row(table, "- scalars, gradient, moments", 0, SCALARS * n->scalar, -1);
}

static Status measure(Measured *m, Error *error)
{
    RunSpec spec;
    ModelConfig config;
    double ignored;
    settings_default(&spec);
    Status status = model_config_read(&config, m->directory, error);
    if (!status && m->n_tokens > config.max_positions) {
        status = error_set(error, STATUS_USAGE, "rows of %d tokens: the model's context is %d",
                           m->n_tokens, config.max_positions);
    }
    status = status ? status : adapter_settle(&spec, error);
    status = status ? status : cell_adapter(&m->adapter, &spec, &config, error);
    cli_note(m->cli, "decoding");
    status = status ? status : child_run(&ignored, decode, m, error);
    cli_note(m->cli, "training");
    if (!status && m->cli->cache) { /* finds the factors: their memory is not the step's */
        status = child_run(&ignored, train, m, error);
    }
    status = status ? status : child_run(&ignored, train, m, error);
    adapter_spec_release(&m->adapter);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *name = NULL, *checkpointing = "none", *precision = "f32";
    Table table = {0};
    Text out = {0};
    Measured *m = child_memory(sizeof *m);
    if (!m) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    m->cli = cli;
    m->sequences = 8;
    m->n_tokens = 64;
    const Option options[] = {{"--model", OPTION_TEXT, &name, 0, 0},
                              {"--sequences", OPTION_INT, &m->sequences, 1, MOST_TOKENS},
                              {"--tokens", OPTION_INT, &m->n_tokens, 2, MOST_TOKENS},
                              {"--activation-checkpointing", OPTION_TEXT, &checkpointing, 0, 0},
                              {"--precision", OPTION_TEXT, &precision, 0, 0}};
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  NULL, 0, 0, error);
    if (!status && m->sequences * m->n_tokens > MOST_TOKENS) {
        status = error_set(error, STATUS_USAGE,
                           "%d x %d tokens: at most %d, as larger batches of large models are "
                           "computed in pieces",
                           m->sequences, m->n_tokens, MOST_TOKENS);
    }
    if (!status && !checkpointing_find(&m->checkpointing, checkpointing)) {
        status = error_set(error, STATUS_USAGE,
                           "--activation-checkpointing \"%.64s\": none, selective or full",
                           checkpointing);
    }
    if (!status && !precision_find(&m->precision, precision)) {
        status =
            error_set(error, STATUS_USAGE, "--precision \"%.64s\": f32, bf16 or f16", precision);
    }
    status = status ? status : cli_model_directory(cli, m->directory, name, error);
    status = status ? status : measure(m, error);
    if (!status) {
        fill(&table, m);
        table_print(&table, cli->format, &out);
        status = cli_write(text_string(&out), out.n, error);
    }
    text_release(&out);
    table_release(&table);
    child_memory_release(m, sizeof *m);
    return status;
}

const Verb verb_profile_memory = {
    .name = "profile memory",
    .summary = "where memory goes: weights, cache, activations, computed and measured",
    .usage = "--model MODEL [--sequences N] [--tokens N] "
             "[--activation-checkpointing none|selective|full] [--precision f32|bf16|f16]",
    .help =
        "What the model, decoding a batch, the adapter of 13 scalars and a training step with it\n"
        "need, computed from the shapes; beside it how much the peak of a process grew at that\n"
        "stage. Lines with a dash are parts of the one above.\n\n"
        "  --sequences N   rows of the batch (8)\n"
        "  --tokens N      tokens a row (64); sequences x tokens is at most 512\n"
        "  --activation-checkpointing X, --precision X\n"
        "                  of the training step, as engine.* of a config (none, f32)\n\n"
        "examples:\n"
        "  tinylora profile memory --model abacus\n"
        "  tinylora profile memory --model ../Qwen2.5-0.5B --sequences 1 --tokens 256 -o json\n"
        "  tinylora profile memory --model abacus --activation-checkpointing full\n",
    .run = run,
};
