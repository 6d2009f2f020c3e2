/* tinylora plan */
#include <stdlib.h>
#include <string.h>

#include "adapters/plan.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "experiments/cell.h"
#include "experiments/nearest.h"

static void add_plan(Table *table, const Plan *plan)
{
    table_cell(table, "%d", plan->u);
    table_cell(table, "%d", plan->groups);
    table_cell(table, "%d", plan->rank);
    table_cell(table, "%s", tie_rule_name(plan->tie));
    table_cell(table, "%s", grouping_names[plan->grouping]);
    table_cell(table, "%d", plan->parameters);
    table_cell(table, "%zu", plan->bytes);
    table_cell(table, "%d", plan->degrees_of_freedom);
}

static bool same(const Plan *a, const Plan *b)
{
    return a->u == b->u && a->groups == b->groups && a->tie == b->tie && a->grouping == b->grouping;
}

/* The chosen plan, then all others; under one tie rule when it is named. */
static Status list_plans(Table *table, const ModelConfig *model, const RunSpec *spec, bool one_tie,
                         Error *error)
{
    Plan chosen, like = {.rank = spec->adapter.rank, .dtype = TENSOR_BF16};
    Plan *plans;
    int n_plans;
    TieRule tie;
    Status status = cell_plan(&chosen, spec, model, error);
    Module *modules = malloc(((size_t)model->n_layers * N_ROLES + 1) * sizeof *modules);
    if (!status && !modules) {
        status = error_set(error, STATUS_FAILED, "out of memory");
    }
    if (!status) {
        tie_rule_find(&tie, spec->adapter.tie);
        int n_modules = plan_modules(modules, model, spec->adapter.targets);
        status = plan_enumerate(&plans, &n_plans, modules, n_modules, &like, spec->adapter.budget,
                                one_tie ? (int)tie : -1, error);
    }
    if (!status) {
        chosen.bytes = 2 * (size_t)chosen.parameters;
        add_plan(table, &chosen);
        for (int i = 0; i < n_plans; i++) {
            if (!same(&plans[i], &chosen)) {
                add_plan(table, &plans[i]);
            }
        }
        free(plans);
    }
    free(modules);
    return status;
}

static Status check_tie(RunSpec *spec, const char *tie, Error *error)
{
    static const char *const names[] = {"tiled", "structured", "all", "none"};
    TieRule rule;
    if (!tie) {
        return STATUS_OK;
    }
    if (!tie_rule_find(&rule, tie)) {
        return error_set(error, STATUS_USAGE, "--tie \"%s\": the nearest rule is \"%s\"", tie,
                         nearest_name(tie, names, 4));
    }
    strcpy(spec->adapter.tie, tie_rule_name(rule));
    return STATUS_OK;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *name = NULL, *tie = NULL;
    RunSpec spec;
    char directory[CONFIG_PATH];
    ModelConfig model;
    Table table = {0};
    Text out = {0};
    settings_default(&spec);
    spec.adapter.budget = 13;
    const Option options[] = {
        {"--model", OPTION_TEXT, &name, 0, 0},
        {"--budget", OPTION_INT, &spec.adapter.budget, 0, 1e9},
        {"--rank", OPTION_INT, &spec.adapter.rank, 1, 256},
        {"--tie", OPTION_TEXT, &tie, 0, 0},
    };
    Status status = options_parse(cli, options, 4, argc, argv, NULL, 0, 0, error);
    status = status ? status : check_tie(&spec, tie, error);
    status = status ? status : cli_model_directory(cli, directory, name, error);
    status = status ? status : model_config_read(&model, directory, error);
    static const char *const columns[] = {"u",        "groups",     "rank",  "tie",
                                          "grouping", "parameters", "bytes", "degrees_of_freedom"};
    for (size_t i = 0; i < 8; i++) {
        table_column(&table, columns[i], i != 3 && i != 4);
    }
    status = status ? status : list_plans(&table, &model, &spec, tie != NULL, error);
    if (!status && cli->format == FORMAT_JSON) {
        text_add(&out, "{\"plans\": ");
        table_print(&table, cli->format, &out);
        out.n--; /* the newline after the list */
        text_add(&out, "}\n");
    } else if (!status) {
        table_print(&table, cli->format, &out);
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    text_release(&out);
    table_release(&table);
    return status;
}

const Verb verb_plan = {
    .name = "plan",
    .summary = "every way to spend a budget of scalars, the chosen one first",
    .usage = "--model MODEL [--budget N] [--rank R] [--tie RULE]",
    .help = "Needs only the model's config.json.\n\n"
            "  --budget N   trained scalars (13)\n"
            "  --rank R     of the frozen SVD (2)\n"
            "  --tie RULE   only this rule: tiled, structured, all, none\n\n"
            "examples:\n"
            "  tinylora plan --model abacus --budget 13\n"
            "  tinylora plan --model ../Qwen2.5-7B --budget 196 --tie structured -o json\n",
    .run = run,
};
