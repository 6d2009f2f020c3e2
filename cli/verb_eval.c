/* tinylora eval */
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "cli/world.h"
#include "core/file.h"
#include "experiments/cell.h"
#include "experiments/evaluation.h"
#include "results/frame.h"

/* Prints the rows of one task: the base's, and those of a run (NULL: of all runs). */
static Status print_task(const Cli *cli, Store *store, const char *task, const char *base,
                         const char *run_id, Error *error)
{
    const char *binds[] = {task, base, run_id};
    Text out = {0};
    Status status = query_run(
        store,
        "SELECT e.extractor, r.kind, e.run_id, r.method, r.adapter, r.budget, r.lr, r.seed, "
        "e.step, "
        "e.n, e.value, e.standard_error, e.base_value, e.value - e.base_value AS gain, e.p_value "
        "FROM evaluation e JOIN run r USING (run_id) WHERE e.task = ?1 AND (e.run_id = ?2 OR "
        "(r.kind = 'run' AND e.run_id = coalesce(?3, e.run_id))) "
        "AND e.step = (SELECT max(l.step) FROM evaluation l WHERE l.run_id = e.run_id AND l.task = "
        "e.task AND l.extractor = e.extractor) "
        "ORDER BY e.extractor, r.kind, e.value DESC, e.run_id",
        binds, 3, cli->format, &out, error);
    status = status ? status : cli_write(text_string(&out), out.n, error);
    text_release(&out);
    return status;
}

static Status eval_run(const Cli *cli, Store *store, const World *world, const char *id,
                       const EvaluationOptions *options, Error *error)
{
    RunAdapter adapter;
    char directory[CONFIG_PATH];
    Text task = {0}, base = {0};
    Status status = run_adapter_open(&adapter, store, id, error);
    status = status ? status : model_find(directory, adapter.spec.model, cli->models, error);
    status = status ? status
                    : evaluation_run(&task, &base, store, world, directory, &adapter.spec, &adapter,
                                     options, error);
    status = status ? status
                    : print_task(cli, store, text_string(&task), text_string(&base), adapter.run_id,
                                 error);
    run_adapter_close(&adapter);
    text_release(&task);
    text_release(&base);
    return status;
}

/* The base model alone, with every setting at its default that is not the task's. */
static Status eval_model(const Cli *cli, Store *store, const World *world, const char *model,
                         const EvaluationOptions *options, Error *error)
{
    RunSpec spec;
    char directory[CONFIG_PATH];
    Text task = {0}, base = {0};
    settings_default(&spec);
    snprintf(spec.model, sizeof spec.model, "%s", model);
    Status status = model_find(directory, model, cli->models, error);
    status =
        status ? status
               : evaluation_run(&task, &base, store, world, directory, &spec, NULL, options, error);
    status =
        status ? status : print_task(cli, store, text_string(&task), text_string(&base), "", error);
    text_release(&task);
    text_release(&base);
    return status;
}

/* Which runs have the learning rate that was chosen for their point: chosen: (n). */
static Status find_chosen(bool *chosen, Store *store, const Cell *cells, size_t n, Error *error)
{
    Frame frame = {0};
    Status status = frame_read(&frame, store, "SELECT DISTINCT experiment, run_id FROM chosen_runs",
                               NULL, 0, error);
    for (size_t k = 0; k < frame.n_rows; k++) {
        const char *experiment = frame_text(&frame, "experiment", k);
        const char *run_id = frame_text(&frame, "run_id", k);
        for (size_t i = 0; i < n; i++) {
            chosen[i] |= strcmp(cells[i].run_id, run_id) == 0 &&
                         strcmp(cells[i].spec.experiment, experiment) == 0;
        }
    }
    frame_release(&frame);
    return status;
}

/* Every cell that has been trained, or those that were chosen, or the base model where there is
 * none. */
static Status eval_cells(const Cli *cli, Store *store, const World *world, Cell *cells, size_t n,
                         bool chosen_alone, const EvaluationOptions *options, Error *error)
{
    Text task = {0}, base = {0};
    bool any = false;
    bool *chosen = calloc(n + 1, sizeof *chosen);
    Status status = chosen ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    if (!status && chosen_alone) {
        status = find_chosen(chosen, store, cells, n, error);
    }
    for (size_t i = 0; i < n && !status; i++) {
        if (chosen_alone && !chosen[i]) {
            continue;
        }
        StoredRun run = {0};
        RunAdapter adapter;
        bool trained = store_find_run(store, cells[i].run_id, &run, NULL) == STATUS_OK;
        free(run.block);
        if (!trained) {
            continue;
        }
        any = true;
        text_clear(&task);
        text_clear(&base);
        status = run_adapter_open(&adapter, store, cells[i].run_id, error);
        status = status ? status
                        : evaluation_run(&task, &base, store, world, cells[i].directory,
                                         &cells[i].spec, &adapter, options, error);
        run_adapter_close(&adapter);
    }
    if (!status && !any) {
        status = evaluation_run(&task, &base, store, world, cells[0].directory, &cells[0].spec,
                                NULL, options, error);
    }
    status = status ? status
                    : print_task(cli, store, text_string(&task), text_string(&base), NULL, error);
    free(chosen);
    text_release(&task);
    text_release(&base);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *path, *run_id = NULL, *model = NULL;
    OptionList overrides = {0};
    EvaluationOptions choices = {0};
    bool chosen = false;
    const Option options[] = {
        {"--run", OPTION_TEXT, &run_id, 0, 0},
        {"--set", OPTION_LIST, &overrides, 0, 0},
        {"--model", OPTION_TEXT, &model, 0, 0},
        {"--task", OPTION_TEXT, &choices.task, 0, 0},
        {"--data", OPTION_TEXT, &choices.data, 0, 0},
        {"--rows", OPTION_INT, &choices.n_rows, 0, 1e9},
        {"--samples", OPTION_INT, &choices.samples, 1, 1000},
        {"--max-new", OPTION_INT, &choices.max_new, 1, 1e6},
        {"--pass-k", OPTION_INT, &choices.pass_k, 2, 1000},
        {"--greedy", OPTION_FLAG, &choices.greedy, 0, 0},
        {"--chosen", OPTION_FLAG, &chosen, 0, 0},
    };
    Config *config = NULL;
    Cell *cells = NULL;
    size_t n = 0;
    Store *store = NULL;
    CliWorld world;
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  &path, 1, 0, error);
    options_add_data(&overrides, cli);
    choices.folder = cli->data ? strchr(cli->data, '=') + 1 : NULL;
    if (!status && !!path + !!run_id + !!model != 1) {
        status = error_set(error, STATUS_USAGE,
                           "one of CONFIG, --run RUN and --model MODEL is expected");
    }
    if (!status && model && !choices.task) {
        status = error_set(error, STATUS_USAGE, "--model wants a --task");
    }
    if (!status && chosen && !path) {
        status = error_set(error, STATUS_USAGE, "--chosen is of a CONFIG's cells");
    }
    if (!status && path) {
        status = config_read(&config, path, overrides.values, overrides.n, cli->models, error);
        status = status ? status : cells_open(&cells, &n, config, cli->models, cli->db, error);
    }
    if (!status && run_id && !file_exists(cli->db)) {
        status = error_set(error, STATUS_FAILED, "\"%s\": there are no results yet", cli->db);
    }
    status = status ? status : store_open(&store, cli->db, STORE_WRITE, CLI_WAIT_MS, error);
    cli_world_init(&world, cli);
    if (!status && model) {
        status = eval_model(cli, store, &world.world, model, &choices, error);
    } else if (!status && run_id) {
        status = eval_run(cli, store, &world.world, run_id, &choices, error);
    } else if (!status) {
        status = eval_cells(cli, store, &world.world, cells, n, chosen, &choices, error);
    }
    if (status == STATUS_STOPPED) {
        error_set(error, status, "stopped; answers and scores so far are in \"%s\"", cli->db);
    }
    cli_world_release(&world);
    store_close(store);
    cells_close(cells, n);
    config_free(config);
    return status;
}

const Verb verb_eval = {
    .name = "eval",
    .summary = "the base model and an adapter scored on the same rows by every extractor",
    .usage = "(CONFIG [--chosen] | --run RUN | --model MODEL --task T) [--task T] [--data PATH] "
             "[--rows N]\n                     [--samples N] [--pass-k K] [--max-new N] [--greedy]",
    .help = "Scores go into results.db, with a standard error and a paired test against the base "
            "model;\n"
            "what is there already is not computed again. CONFIG means every cell that was "
            "trained.\n\n"
            "  --chosen      only the cells at the learning rate that was best on the held-out "
            "rows (mean over\n"
            "                seeds), so that test rows are scored once a point; see `budgets`\n"
            "  --task T      gsm8k, svamp, multiarith, math500 or digit-completion, with its own "
            "prompts and\n"
            "                judging; --data is then its file or a folder that has it "
            "($TINYLORA_DATA)\n"
            "  --data FILE   rows; else the config's data.eval\n"
            "  --rows N      the first N rows; else all\n"
            "  --samples N   completions a row; else the config's eval.samples\n"
            "  --pass-k K    also pass@k, as the extractors strict@K and so on; needs N >= K "
            "samples\n"
            "  --max-new N   tokens of a completion; else the config's eval.max_new_tokens\n"
            "  --greedy      the likeliest token instead of a sample\n"
            "  --set K=V     override a setting of CONFIG\n\n"
            "examples:\n"
            "  tinylora eval --run 3f2a\n"
            "  tinylora eval --model ../Qwen2.5-0.5B --task gsm8k --data ~/data --greedy\n"
            "  tinylora eval experiments/presets/budget13-lr.json --chosen -o md\n",
    .run = run,
    .audited = true,
};
