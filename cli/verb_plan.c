/* tinylora plan */
#include <stdlib.h>
#include <string.h>

#include "adapters/plan.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "experiments/adapter_settings.h"
#include "experiments/nearest.h"

/* Options that are settings of adapter.*. */
static const struct {
    const char *option, *path;
} settings[] = {{"--budget", "adapter.budget"},
                {"--rank", "adapter.rank"},
                {"--u", "adapter.u"},
                {"--groups", "adapter.groups"},
                {"--tie", "adapter.tie"},
                {"--grouping", "adapter.grouping"},
                {"--tie-factor", "adapter.tie_factor"},
                {"--weight-tying", "adapter.weight_tying"},
                {"--map", "adapter.map"},
                {"--order", "adapter.order"},
                {"--targets", "adapter.targets"},
                {"--sigma", "adapter.sigma"},
                {"--projection", "adapter.projection"},
                {"--projection-shared", "adapter.projection_shared"},
                {"--seed", "adapter.seed"},
                {"--scale", "adapter.scale"},
                {"--alpha", "adapter.alpha"},
                {"--init", "adapter.init"},
                {"--init-size", "adapter.init_size"},
                {"--dtype", "adapter.dtype"},
                {"--preset", "adapter.preset"}};
enum { N_SETTINGS = sizeof settings / sizeof settings[0] };

typedef struct {
    const char *model;
    const char *values[N_SETTINGS]; /* as typed, NULL: not there */
    bool shared;
} PlanOptions;

/* A setting from what was typed: numbers and true as JSON, a comma-separated list, else a word. */
static Status take_setting(RunSpec *spec, const char *option, const char *path, const char *typed,
                           Error *error)
{
    int reward;
    const Setting *setting = setting_find(path, &reward);
    bool word = setting->kind == SETTING_CHOICE || setting->kind == SETTING_PATH;
    JsonDocument *document = NULL;
    Text json = {0};
    if (setting->kind == SETTING_TARGETS) {
        const char *separator = "[";
        for (const char *at = typed; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
            text_add(&json, separator);
            text_json_string(&json, at, strcspn(at, ","));
            separator = ",";
        }
        text_add(&json, "]");
    } else if (word) {
        text_json_string(&json, typed, strlen(typed));
    } else {
        text_add(&json, typed);
    }
    Status status = json_parse(&document, text_string(&json), json.n, NULL)
                        ? error_set(error, STATUS_USAGE, "\"%.64s\": a number is expected", typed)
                        : setting_parse(spec, setting, reward, json_root(document), error);
    *setting_given(spec, path) = true;
    json_free(document);
    text_release(&json);
    return status ? error_context(error, STATUS_USAGE, "%s", option) : STATUS_OK;
}

/* The nearest rule in a sentence of its own: the words are many. */
static Status check_tie(const char *tie, Error *error)
{
    TieRule rule;
    if (tie && !tie_rule_find(&rule, tie)) {
        return error_set(error, STATUS_USAGE, "--tie \"%s\": the nearest rule is \"%s\"", tie,
                         nearest_name(tie, tie_rule_names, N_TIE_RULES));
    }
    return STATUS_OK;
}

static Status take_settings(RunSpec *spec, const PlanOptions *options, Error *error)
{
    bool dtype = false;
    Status status = STATUS_OK;
    settings_default(spec);
    for (size_t i = 0; i < N_SETTINGS && !status; i++) {
        const char *path = settings[i].path, *typed = options->values[i];
        if (typed == NULL && strcmp(path, "adapter.projection_shared") == 0 && options->shared) {
            typed = "true";
        }
        dtype |=
            typed && (strcmp(path, "adapter.dtype") == 0 || strcmp(path, "adapter.preset") == 0);
        status = typed && strcmp(path, "adapter.tie") == 0 ? check_tie(typed, error) : STATUS_OK;
        status =
            status || !typed ? status : take_setting(spec, settings[i].option, path, typed, error);
    }
    if (!dtype) {
        strcpy(spec->adapter.dtype, "bf16"); /* as an adapter is handed on */
    }
    if (!status && *setting_given(spec, "adapter.budget") && spec->adapter.budget == 0) {
        status =
            error_set(error, STATUS_USAGE, "a budget of 0 scalars cannot be spent: at least 1");
    }
    return status ? status : adapter_settle(spec, error);
}

/* -- the list --------------------------------------------------------------------------------- */

/* Is it the same sharing, whatever it is called? group: scratch (2 * n_modules). */
static bool same(const Plan *a, const Plan *b, const Module *modules, int *group)
{
    size_t n = (size_t)a->n_modules;
    return a->u == b->u && a->groups == b->groups &&
           plan_groups(group, a, modules, NULL) == STATUS_OK &&
           plan_groups(group + n, b, modules, NULL) == STATUS_OK &&
           memcmp(group, group + n, n * sizeof *group) == 0;
}

enum { MOST_RUNS = 6 };

/* Runs of groups of one size. */
static int count_runs(const int *size, int n_groups)
{
    int n = 1;
    for (int g = 1; g < n_groups; g++) {
        n += size[g] != size[g - 1];
    }
    return n;
}

/* Modules of each group in order: [16,16,4] in JSON, "2 x 16 + 1 x 4" for people. group: of each
 * module, size: scratch (groups). */
static void show_sizes(Text *out, const Plan *plan, const int *group, int *size, bool json)
{
    memset(size, 0, (size_t)plan->groups * sizeof *size);
    for (int i = 0; i < plan->n_modules; i++) {
        size[group[i]]++;
    }
    if (!json && count_runs(size, plan->groups) > MOST_RUNS) {
        for (int most = plan->n_modules; most > 0; most--) {
            int n = 0;
            for (int g = 0; g < plan->groups; g++) {
                n += size[g] == most;
            }
            if (n) {
                text_printf(out, "%s%d x %d", out->n ? ", " : "", n, most);
            }
        }
        return;
    }
    for (int g = 0, n; g < plan->groups; g += n) {
        for (n = 1; !json && g + n < plan->groups && size[g + n] == size[g]; n++) {
        }
        if (json) {
            text_printf(out, "%s%d", g ? "," : "[", size[g]);
        } else {
            text_printf(out, "%s%d x %d", g ? " + " : "", n, size[g]);
        }
    }
    text_add(out, json ? "]" : "");
}

static const char *const columns[] = {
    "u",        "groups", "rank",       "tie",   "order",
    "grouping", "sizes",  "parameters", "bytes", "degrees_of_freedom"};
enum { N_COLUMNS = sizeof columns / sizeof columns[0], SIZES = 6 };

static Status add_plan(Table *table, const Plan *plan, const Module *modules, bool json,
                       Error *error)
{
    Text sizes = {0};
    int *group = malloc((size_t)plan->n_modules * 2 * sizeof *group);
    if (!group) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    Status status = plan_groups(group, plan, modules, error);
    if (!status) {
        show_sizes(&sizes, plan, group, group + plan->n_modules, json);
        table_cell(table, "%d", plan->u);
        table_cell(table, "%d", plan->groups);
        table_cell(table, "%d", plan->rank);
        table_cell(table, "%s", tie_rule_name(plan->tie));
        table_cell(table, "%s", module_order_names[plan->order]);
        table_cell(table, "%s", grouping_names[plan->grouping]);
        table_cell(table, "%s", text_string(&sizes));
        table_cell(table, "%d", plan->parameters);
        table_cell(table, "%zu", plan->bytes);
        table_cell(table, "%d", plan->degrees_of_freedom);
    }
    free(group);
    text_release(&sizes);
    return status;
}

/* The chosen plan, then all others of its size; under one tie rule when it is named. */
static Status list_plans(Table *table, const Plan *chosen, const RunSpec *spec,
                         const ModelConfig *model, bool json, Error *error)
{
    Plan *plans = NULL;
    int n_plans = 0,
        tie = *setting_given((RunSpec *)(uintptr_t)spec, "adapter.tie") || chosen->tie == TIE_MAP
                  ? (int)chosen->tie
                  : -1;
    Module *modules = malloc(((size_t)model->n_layers * N_ROLES + 1) * sizeof *modules);
    int *scratch = malloc((size_t)chosen->n_modules * 2 * sizeof *scratch);
    if (!modules || !scratch) {
        free(modules);
        free(scratch);
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    int n_modules = plan_modules(modules, model, spec->adapter.targets);
    Status status = add_plan(table, chosen, modules, json, error);
    if (!status && plan_enumerate(&plans, &n_plans, modules, n_modules, chosen, chosen->parameters,
                                  tie, NULL)) {
        n_plans = 0; /* the chosen one is the only one: the planner has no other way */
    }
    for (int i = 0; i < n_plans && !status; i++) {
        if (!same(&plans[i], chosen, modules, scratch)) {
            status = add_plan(table, &plans[i], modules, json, error);
        }
    }
    free(plans);
    free(modules);
    free(scratch);
    return status;
}

/* What the user should know of the chosen plan, a sentence each. */
static void warn(Text *warnings, const Cli *cli, const Plan *plan, const RunSpec *spec, int asked)
{
    Text text = {0};
    int idle = plan->parameters - plan->degrees_of_freedom;
    if (idle > 0) {
        text_printf(&text,
                    "%d of %d parameters buy nothing: they move %d degrees of freedom; a group of "
                    "m modules has at most %s, here of rank %d%s",
                    idle, plan->parameters, plan->degrees_of_freedom,
                    plan->projection.shared ? "rank^2 (P is shared)" : "m x rank^2", plan->rank,
                    plan->projection.law == PROJECTION_RADEMACHER
                        ? ", fewer where its P of signs repeat"
                        : "");
        text_json_string(warnings, text_string(&text), text.n);
        cli_note(cli, "warning: %s", text_string(&text));
    }
    if (asked && asked != plan->parameters) {
        text_clear(&text);
        text_printf(&text, "a budget of %d was asked for; the planner of %s spends %d", asked,
                    spec->adapter.preset, plan->parameters);
        text_add(warnings, warnings->n ? ", " : "");
        text_json_string(warnings, text_string(&text), text.n);
        cli_note(cli, "warning: %s", text_string(&text));
    }
    text_release(&text);
}

/* The chosen plan's group of each module, as --map reads it. */
static Status show_map(Text *out, const Plan *plan, const RunSpec *spec, const ModelConfig *model,
                       Error *error)
{
    Module *modules = malloc(((size_t)model->n_layers * N_ROLES + 1) * sizeof *modules);
    int *group = malloc((size_t)plan->n_modules * sizeof *group);
    Status status = STATUS_OK;
    if (!modules || !group) {
        status = error_set(error, STATUS_FAILED, "out of memory");
    } else {
        plan_modules(modules, model, spec->adapter.targets);
        status = plan_groups(group, plan, modules, error);
    }
    for (int i = 0; i < plan->n_modules && !status; i++) {
        char name[96];
        module_name(name, modules[i].layer, modules[i].role);
        text_printf(out, "%s\"%s\": %d", i ? ", " : ", \"map\": {", name, group[i]);
    }
    text_add(out, "}");
    free(modules);
    free(group);
    return status;
}

/* The rest of the point in the plan space, once for all plans. */
static void show_point(Text *out, const Plan *plan, const AdapterSpec *adapter, const RunSpec *spec,
                       const Text *warnings)
{
    text_printf(out,
                ", \"modules\": %d, \"preset\": \"%s\", \"sigma\": \"%s\", \"projection\": "
                "\"%s\", \"projection_shared\": %s, \"scale\": ",
                plan->n_modules, spec->adapter.preset, sigma_split_names[adapter->sigma],
                projection_law_names[plan->projection.law],
                plan->projection.shared ? "true" : "false");
    text_json_number(out, (double)adapter->scale);
    text_printf(out, ", \"init\": \"%s\", \"init_size\": ", spec->adapter.init);
    text_json_number(out, spec->adapter.init_size);
    text_printf(out, ", \"dtype\": \"%s\", \"warnings\": [%s]", spec->adapter.dtype,
                text_string(warnings));
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    PlanOptions typed = {0};
    Option options[N_SETTINGS + 1] = {{"--model", OPTION_TEXT, &typed.model, 0, 0}};
    RunSpec spec;
    char directory[CONFIG_PATH];
    ModelConfig model;
    AdapterSpec adapter = {0};
    Table table = {0};
    Text out = {0}, warnings = {0};
    for (size_t i = 0; i < N_SETTINGS; i++) {
        bool flag = strcmp(settings[i].path, "adapter.projection_shared") == 0;
        options[i + 1] = (Option){settings[i].option, flag ? OPTION_FLAG : OPTION_TEXT,
                                  flag ? (void *)&typed.shared : (void *)&typed.values[i], 0, 0};
    }
    Status status = options_parse(cli, options, N_SETTINGS + 1, argc, argv, NULL, 0, 0, error);
    bool json = cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
    for (size_t i = 0; i < N_COLUMNS; i++) {
        table_column(&table, columns[i], i == SIZES ? json : i < 3 || i > SIZES);
    }
    status = status ? status : take_settings(&spec, &typed, error);
    int asked = status ? 0 : spec.adapter.budget;
    status = status ? status : cli_model_directory(cli, directory, typed.model, error);
    status = status ? status : model_config_read(&model, directory, error);
    status = status ? status : cell_adapter(&adapter, &spec, &model, error);
    status = status ? status : list_plans(&table, &adapter.plan, &spec, &model, json, error);
    if (!status) {
        warn(&warnings, cli, &adapter.plan, &spec, asked);
    }
    if (!status && cli->format == FORMAT_JSON) {
        text_add(&out, "{\"plans\": ");
        table_print(&table, cli->format, &out);
        out.n--; /* the newline after the list */
        show_point(&out, &adapter.plan, &adapter, &spec, &warnings);
        status = show_map(&out, &adapter.plan, &spec, &model, error);
        text_add(&out, "}\n");
    } else if (!status) {
        table_print(&table, cli->format, &out);
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    adapter_spec_release(&adapter);
    text_release(&out);
    text_release(&warnings);
    table_release(&table);
    return status;
}

const Verb verb_plan = {
    .name = "plan",
    .summary = "every way to spend a budget of scalars, the chosen one first",
    .usage = "--model MODEL [--budget N] [--preset TOOL] [--rank R] [--tie RULE] ...",
    .help = "Needs only the model's config.json. Options are the settings of adapter.* (see config "
            "show):\n\n"
            "  --budget N          trained scalars (13; or what u and groups make)\n"
            "  --preset TOOL       paper, peft, anrgusc: its defaults and its planner\n"
            "  --rank R            of the frozen SVD (2)\n"
            "  --u N, --groups N   scalars a group, groups: only such plans\n"
            "  --tie RULE          only this rule: tiled, structured, all, none, by-role, map\n"
            "  --grouping CUT      chunks, balanced, floor (PEFT)\n"
            "  --tie-factor N      n_tie, modules a chunk\n"
            "  --weight-tying X    PEFT's measure of sharing, 0 to 1\n"
            "  --map FILE          of the rule map: {\"model.layers.0.self_attn.q_proj\": 0, ...}\n"
            "  --order ORDER       of modules: named, layer-sorted\n"
            "  --targets A,B       linear layers: q_proj, k_proj, v_proj, o_proj, gate_proj, ...\n"
            "  --projection LAW    of P: gauss, gauss_unit, rademacher, orthonormal; --seed N\n"
            "  --projection-shared the same P in every module\n"
            "  --dtype TYPE        in which v is stored: bf16 (as handed on), f16, f32\n"
            "  --sigma, --scale, --alpha, --init, --init-size: shown with -o json, which also "
            "has the\n                      chosen plan's map: the group of each module, as --map "
            "reads it\n\n"
            "Sizes are modules a group: 12 x 16 + 1 x 4 in this order, 68 x 2, 60 x 1 in turns. A "
            "plan whose\ndegrees of freedom are fewer than its parameters is warned of.\n\n"
            "examples:\n"
            "  tinylora plan --model abacus --budget 13\n"
            "  tinylora plan --model ../Qwen2.5-7B --budget 120 --preset anrgusc\n"
            "  tinylora plan --model ../Qwen2.5-7B --budget 196 --tie structured -o json\n",
    .run = run,
};
