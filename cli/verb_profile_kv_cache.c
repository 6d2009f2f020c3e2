/* tinylora profile kv-cache */
#include <stdlib.h>
#include <string.h>

#include "analysis/profile.h"
#include "cli/child.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"

enum { MOST_BATCHES = 16, LARGEST_BATCH = 512 };

/* One row: a process of its own. In memory that both processes see. */
typedef struct {
    char directory[CONFIG_PATH];
    int n_threads;
    DecodeProfile profile;
    double seconds, loaded_mib, peak_mib;
} Measured;

/* Rows are pairs, without the cache after with it: their answers lie one after the other. */
typedef struct {
    Measured *measured;
    int32_t *ids;
    double *logprobs;
} Place;

static Status work(void *context, Error *error)
{
    Place *place = context;
    Measured *m = place->measured;
    Model *model = NULL;
    Engine *engine = NULL;
    Status status = model_open(&model, m->directory, m->n_threads, error);
    status = status ? status : engine_new(&engine, model, m->n_threads, 0, error);
    status = status ? status : model_pack(model, error);
    m->loaded_mib = child_peak_mib();
    return status ? status
                  : profile_decode(&m->seconds, place->ids, place->logprobs, engine, &m->profile,
                                   cli_clock_s, error);
}

static void add_row(Table *table, const Measured *m, const Measured *with, bool equal, bool json)
{
    double rate = (double)m->profile.batch * m->profile.n_new / m->seconds;
    table_cell(table, "%d", m->profile.batch);
    table_cell(table, "%s",
               json               ? m->profile.cache ? "true" : "false"
               : m->profile.cache ? "yes"
                                  : "no");
    table_cell(table, "%d", m->profile.n_prompt);
    table_cell(table, "%d", m->profile.n_new);
    table_cell(table, "%.1f", rate);
    table_cell(table, "%.2f", m->seconds / with->seconds);
    table_cell(table, "%.1f", m->loaded_mib);
    table_cell(table, "%.1f", m->peak_mib);
    table_cell(table, "%s", json ? equal ? "true" : "false" : equal ? "yes" : "no");
}

static void add_columns(Table *table, bool json)
{
    table_column(table, "batch", true);
    table_column(table, "cache", json);
    table_column(table, "prompt", true);
    table_column(table, "new", true);
    table_column(table, "tokens_per_s", true);
    table_column(table, "times_as_long", true);
    table_column(table, "loaded_mib", true);
    table_column(table, "peak_mib", true);
    table_column(table, "equal", json);
}

/* Both rows of one batch size; memory: Measured (2), then logprobs, then ids of either. */
static Status measure_pair(Table *table, bool *all_equal, const Cli *cli, const Measured *base,
                           Error *error)
{
    size_t n = (size_t)base->profile.batch * (size_t)base->profile.n_new;
    size_t bytes = 2 * sizeof *base + 2 * n * (sizeof(double) + sizeof(int32_t));
    Measured *m = child_memory(bytes);
    if (!m) {
        return error_set(error, STATUS_FAILED, "no memory for %zu tokens", 2 * n);
    }
    double *logprobs = (double *)(void *)(m + 2);
    int32_t *ids = (int32_t *)(void *)(logprobs + 2 * n);
    Status status = STATUS_OK;
    for (int i = 0; i < 2 && !status; i++) {
        m[i] = *base;
        m[i].profile.cache = i == 0;
        cli_note(cli, "batch %d, %s the cache", base->profile.batch, i == 0 ? "with" : "without");
        Place place = {&m[i], ids + (size_t)i * n, logprobs + (size_t)i * n};
        status = child_run(&m[i].peak_mib, work, &place, error);
    }
    if (!status) {
        bool equal = memcmp(ids, ids + n, n * sizeof *ids) == 0 &&
                     memcmp(logprobs, logprobs + n, n * sizeof *logprobs) == 0;
        bool json = cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
        add_row(table, &m[0], &m[0], equal, json);
        add_row(table, &m[1], &m[0], equal, json);
        *all_equal = *all_equal && equal;
    }
    child_memory_release(m, bytes);
    return status;
}

/* "1,8,16" */
static Status read_batches(int batches[MOST_BATCHES], int *n, const char *typed, Error *error)
{
    const char *at = typed;
    for (*n = 0; *n < MOST_BATCHES; at++) {
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || value < 1 || value > LARGEST_BATCH ||
            (*end && *end != ',')) {
            break;
        }
        batches[(*n)++] = (int)value;
        at = end;
        if (!*at) {
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_USAGE,
                     "--batch \"%.64s\": at most %d numbers from 1 to %d, as in 1,8,16", typed,
                     MOST_BATCHES, LARGEST_BATCH);
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *name = NULL, *typed = "1,8,16";
    int batches[MOST_BATCHES], n_batches = 0;
    Measured base = {.n_threads = cli->n_threads, .profile = {.n_prompt = 64, .n_new = 32}};
    const Option options[] = {{"--model", OPTION_TEXT, &name, 0, 0},
                              {"--batch", OPTION_TEXT, &typed, 0, 0},
                              {"--prompt", OPTION_INT, &base.profile.n_prompt, 1, 1e6},
                              {"--new", OPTION_INT, &base.profile.n_new, 1, 1e6}};
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  NULL, 0, 0, error);
    base.n_threads = cli->n_threads;
    status = status ? status : read_batches(batches, &n_batches, typed, error);
    status = status ? status : cli_model_directory(cli, base.directory, name, error);
    Table table = {0};
    Text out = {0};
    bool equal = true;
    add_columns(&table, cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL);
    for (int i = 0; i < n_batches && !status; i++) {
        base.profile.batch = batches[i];
        status = measure_pair(&table, &equal, cli, &base, error);
    }
    if (!status) {
        table_print(&table, cli->format, &out);
        status = cli_write(text_string(&out), out.n, error);
    }
    if (!status && !equal) {
        status = error_set(error, STATUS_FAILED,
                           "the cache changes ids or log-probabilities: column equal");
    }
    text_release(&out);
    table_release(&table);
    return status;
}

const Verb verb_profile_kv_cache = {
    .name = "profile kv-cache",
    .summary = "decoding with and without the cache of keys and values: time, memory, equality",
    .usage = "--model MODEL [--batch 1,8,16] [--prompt N] [--new N]",
    .help =
        "Greedy decoding of fixed pseudo-random prompts, each batch twice: with the cache, and "
        "with\n"
        "a forward over the whole text for every token. Each row is measured in a process of its\n"
        "own, whose peak of memory it tells. equal: ids and log-probabilities have the same bits\n"
        "both ways; where they have not, the exit code is 1.\n\n"
        "  --batch LIST    sequences decoded at once (1,8,16)\n"
        "  --prompt N      tokens of each prompt (64)\n"
        "  --new N         tokens decoded after it (32)\n\n"
        "times_as_long: against the row with the cache. loaded_mib: the peak once the model was\n"
        "open.\n\n"
        "examples:\n"
        "  tinylora profile kv-cache --model abacus\n"
        "  tinylora profile kv-cache --model ../Qwen2.5-0.5B --batch 1,8 --prompt 128 -o md\n",
    .run = run,
};
