/* From settings to a plan: groups may be counted by a map, PEFT's weight_tying or a tie factor,
 * chosen by a preset's planner, or searched for. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/planners.h"
#include "adapters/tie_map.h"
#include "core/sha256.h"
#include "experiments/adapter_settings.h"
#include "experiments/inputs.h"

static bool is(const char *word, const char *other)
{
    return strcmp(word, other) == 0;
}

static TensorType dtype_of(const RunSpec *spec)
{
    return is(spec->adapter.dtype, "bf16")  ? TENSOR_BF16
           : is(spec->adapter.dtype, "f16") ? TENSOR_F16
                                            : TENSOR_F32;
}

/* What of a plan the settings say without a model. Words are choices of the table: they are found.
 */
static Plan plan_of_settings(const RunSpec *spec)
{
    Plan plan = {.rank = spec->adapter.rank,
                 .u = spec->adapter.u,
                 .groups = spec->adapter.groups,
                 .tie_factor = spec->adapter.tie_factor,
                 .order = (ModuleOrder)plan_word_find(module_order_names, spec->adapter.order),
                 .projection = {(ProjectionLaw)plan_word_find(projection_law_names,
                                                              spec->adapter.projection),
                                spec->adapter.projection_shared, (uint64_t)spec->adapter.seed},
                 .dtype = dtype_of(spec)};
    int grouping = plan_word_find(grouping_names, spec->adapter.grouping);
    tie_rule_find(&plan.tie, spec->adapter.tie);
    plan.grouping = grouping < 0 ? GROUPING_CHUNKS : (Grouping)grouping; /* auto */
    return plan;
}

/* The planner's list is in order of preference: the first plan that has what the settings name. */
static Status search_plan(Plan *plan, const RunSpec *spec, const Module *modules, int n_modules,
                          Error *error)
{
    Plan *plans;
    int n_plans;
    Status status = plan_enumerate(&plans, &n_plans, modules, n_modules, plan, spec->adapter.budget,
                                   (int)plan->tie, error);
    if (status) {
        return error_context(error, status, "adapter.budget");
    }
    const Plan *chosen = NULL;
    for (int i = 0; i < n_plans && !chosen; i++) {
        bool fits = (!spec->adapter.u || plans[i].u == spec->adapter.u) &&
                    (!spec->adapter.groups || plans[i].groups == spec->adapter.groups) &&
                    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): n_plans of them */
                    (is(spec->adapter.grouping, "auto") || plans[i].grouping == plan->grouping);
        chosen = fits ? &plans[i] : NULL;
    }
    if (chosen) {
        *plan = *chosen;
    } else {
        status = error_set(error, STATUS_USAGE,
                           "adapter: no plan of %d scalars has the u, groups and grouping named; "
                           "see tinylora plan",
                           spec->adapter.budget);
    }
    free(plans);
    return status;
}

/* A plan whose u and groups are known; "auto" is chunks where they fit, else balanced. */
static Status take_plan(Plan *plan, const RunSpec *spec, const Module *modules, int n_modules,
                        Error *error)
{
    Status status = plan_complete(plan, modules, n_modules, error);
    if (status && is(spec->adapter.grouping, "auto") && !plan->tie_factor) {
        plan->grouping = GROUPING_BALANCED;
        status = plan_complete(plan, modules, n_modules, error);
    }
    return status ? error_context(error, status, "adapter.groups") : STATUS_OK;
}

/* A tie factor that cuts where ceil(modules / groups) does is left out: it is the same plan. */
static void drop_factor(Plan *plan, const Module *modules, int n_modules)
{
    Plan plain = *plan;
    int *group = malloc((size_t)n_modules * 2 * sizeof *group);
    plain.tie_factor = 0;
    plain.n_modules = plan->n_modules = n_modules;
    if (group && plan_groups(group, plan, modules, NULL) == STATUS_OK &&
        plan_groups(group + n_modules, &plain, modules, NULL) == STATUS_OK &&
        memcmp(group, group + n_modules, (size_t)n_modules * sizeof *group) == 0) {
        plan->tie_factor = 0;
    }
    free(group);
}

/* The groups are counted: u is what the budget leaves. exact: the budget is met. */
static Status take_groups(Plan *plan, int groups, bool exact, const RunSpec *spec,
                          const Module *modules, int n_modules, Error *error)
{
    int budget = spec->adapter.budget;
    if (plan->groups && plan->groups != groups) {
        return error_set(error, STATUS_USAGE, "adapter.groups: %d, where %d are made by %s",
                         plan->groups, groups,
                         plan->tie == TIE_MAP ? "adapter.map"
                         : plan->tie_factor   ? "adapter.tie_factor"
                                              : "adapter.weight_tying");
    }
    plan->groups = groups;
    plan->u = plan->u ? plan->u : budget ? budget / groups : 1;
    if (exact && budget && (plan->u < 1 || (int64_t)plan->u * groups != budget)) {
        return error_set(error, STATUS_USAGE,
                         "adapter.budget: %d scalars cannot be spent on %d groups of %d each; "
                         "the nearest are %d and %d",
                         budget, groups, plan->u < 1 ? 1 : plan->u, budget / groups * groups,
                         (budget / groups + 1) * groups);
    }
    drop_factor(plan, modules, n_modules);
    return take_plan(plan, spec, modules, n_modules, error);
}

/* Has the preset a planner of its own for what the settings leave open? */
static bool preset_plans(const RunSpec *spec)
{
    bool paper = is(spec->adapter.preset, "paper") && !spec->adapter.u;
    bool open = spec->adapter.budget > 0 && !spec->adapter.groups;
    return open && (paper || is(spec->adapter.preset, "anrgusc")) &&
           is(spec->adapter.tie, "tiled") && is(spec->adapter.grouping, "chunks");
}

static Status plan_as_preset(Plan *plan, const RunSpec *spec, const Module *modules, int n_modules,
                             Error *error)
{
    const int usual[] = {1, 2, 4}; /* its scripts' projection candidates */
    bool paper = is(spec->adapter.preset, "paper");
    if (paper) {
        planner_paper(&plan->u, &plan->tie_factor, n_modules, spec->adapter.budget);
    } else {
        planner_anrgusc(&plan->u, &plan->tie_factor, n_modules, spec->adapter.budget,
                        spec->adapter.u ? &spec->adapter.u : usual, spec->adapter.u ? 1 : 3);
    }
    int groups = plan_groups_of_factor(modules, n_modules, plan->tie, plan->tie_factor);
    return take_groups(plan, groups, paper, spec, modules, n_modules, error);
}

/* The file's hash is filled in, or is the one that the settings have. */
static Status check_map_hash(char sha256[SHA256_HEX_SIZE], const RunSpec *spec, Error *error)
{
    const char *wanted = spec->adapter.map_sha256;
    Status status = sha256_file(sha256, spec->adapter.map, error);
    if (status) {
        return error_context(error, status, "tie map");
    }
    if (wanted[0] && !is(wanted, sha256)) {
        status = error_set(error, STATUS_REFUSED,
                           "tie map \"%s\": its SHA-256 is %s, not adapter.map_sha256's %s",
                           spec->adapter.map, sha256, wanted);
    }
    return status;
}

static Status choose(Plan *plan, const RunSpec *spec, const ModelConfig *model,
                     const Module *modules, int n_modules, Error *error)
{
    int groups = 0;
    if (plan->tie == TIE_MAP) {
        char sha256[SHA256_HEX_SIZE];
        Status status = check_map_hash(sha256, spec, error);
        status = status ? status
                        : tie_map_read(&plan->map, &groups, spec->adapter.map, model, modules,
                                       n_modules, error);
        return status ? status : take_groups(plan, groups, true, spec, modules, n_modules, error);
    }
    if (n_modules > 0 && spec->adapter.weight_tying >= 0) {
        plan->grouping = GROUPING_FLOOR;
        groups = planner_peft_groups(n_modules, spec->adapter.weight_tying);
        return take_groups(plan, groups, true, spec, modules, n_modules, error);
    }
    if (n_modules > 0 && plan->tie_factor) {
        groups = plan_groups_of_factor(modules, n_modules, plan->tie, plan->tie_factor);
        return take_groups(plan, groups, true, spec, modules, n_modules, error);
    }
    if (n_modules > 0 && preset_plans(spec)) {
        return plan_as_preset(plan, spec, modules, n_modules, error);
    }
    if (plan->u && !plan->groups && !spec->adapter.budget) { /* all or none, settled */
        plan->groups = plan->tie == TIE_ALL ? 1 : n_modules;
    }
    if (plan->u && plan->groups) {
        return take_plan(plan, spec, modules, n_modules, error);
    }
    return search_plan(plan, spec, modules, n_modules, error);
}

Status cell_plan(Plan *plan, const RunSpec *spec, const ModelConfig *model, Error *error)
{
    Module *modules = malloc(((size_t)model->n_layers * N_ROLES + 1) * sizeof *modules);
    *plan = plan_of_settings(spec);
    if (!modules) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    int n_modules = plan_modules(modules, model, spec->adapter.targets);
    Status status = choose(plan, spec, model, modules, n_modules, error);
    if (!status && plan_check_rank(plan->rank, modules, n_modules, model, error)) {
        status = error_context(error, STATUS_USAGE, "adapter.rank");
    }
    if (status) {
        free(plan->map);
        plan->map = NULL;
    }
    free(modules);
    return status;
}

/* lora, lora-xs: a rank, and s = alpha / rank or alpha / sqrt(rank). */
static Status take_rank(AdapterSpec *adapter, const RunSpec *spec, const ModelConfig *model,
                        Error *error)
{
    double rank = spec->adapter.rank;
    adapter->plan.rank = spec->adapter.rank;
    adapter->dropout = is(adapter->method, "lora") ? spec->adapter.dropout : 0;
    if (spec->adapter.alpha > 0) {
        adapter->scale = (float)(spec->adapter.alpha / (spec->adapter.rslora ? sqrt(rank) : rank));
    }
    if (is(adapter->method, "lora")) {
        return STATUS_OK;
    }
    Module *modules = malloc(((size_t)model->n_layers * N_ROLES + 1) * sizeof *modules);
    if (!modules) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    int n = plan_modules(modules, model, adapter->targets);
    Status status = plan_check_rank(adapter->plan.rank, modules, n, model, error);
    free(modules);
    return status ? error_context(error, status, "adapter.rank") : STATUS_OK;
}

static Status take_tinylora(AdapterSpec *adapter, RunSpec *spec, const ModelConfig *model,
                            Error *error)
{
    const Plan *plan = &adapter->plan;
    Status status = path_make_absolute(spec->adapter.map, "adapter.map", error);
    status = status ? status : cell_plan(&adapter->plan, spec, model, error);
    if (!status && plan->tie == TIE_MAP) {
        status = check_map_hash(spec->adapter.map_sha256, spec, error);
    }
    if (!status) {
        spec->adapter.budget = plan->parameters;
        spec->adapter.u = plan->u;
        spec->adapter.groups = plan->groups;
        spec->adapter.tie_factor = plan->tie_factor;
        strcpy(spec->adapter.grouping, grouping_names[plan->grouping]);
        if (spec->adapter.alpha > 0) {
            adapter->scale = (float)(spec->adapter.alpha / plan->u);
        }
    }
    return status;
}

Status cell_adapter(AdapterSpec *adapter, RunSpec *spec, const ModelConfig *model, Error *error)
{
    const char *method = spec->adapter.method;
    *adapter =
        (AdapterSpec){.method = adapter_method_names[plan_word_find(adapter_method_names, method)],
                      .targets = spec->adapter.targets,
                      .seed = (uint64_t)spec->adapter.seed,
                      .scale = (float)spec->adapter.scale};
    if (!is(method, "lora")) { /* its A is random, its B 0 */
        adapter->sigma = (SigmaSplit)plan_word_find(sigma_split_names, spec->adapter.sigma);
        adapter->start = (VectorStart)plan_word_find(vector_start_names, spec->adapter.init);
        adapter->start_size = spec->adapter.init_size;
    }
    return is(method, "tinylora") ? take_tinylora(adapter, spec, model, error)
           : is(method, "lora") || is(method, "lora-xs") ? take_rank(adapter, spec, model, error)
                                                         : STATUS_OK;
}

void adapter_spec_release(AdapterSpec *adapter)
{
    free(adapter->plan.map);
    adapter->plan.map = NULL;
}
