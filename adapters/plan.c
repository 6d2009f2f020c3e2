/* Tie rules: modules in an order, in classes that never share, each class cut into its groups. */
#include "adapters/plan.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/freedom.h"

const char *const tie_rule_names[] = {"tiled", "structured", "all", "none", "by-role", "map", NULL};
const char *const grouping_names[] = {"chunks", "balanced", "floor", NULL};
const char *const module_order_names[] = {"named", "layer-sorted", NULL};

static const double MAX_PROJECTION = 0x1p31; /* numbers of P: 8 GiB */

int plan_word_find(const char *const *words, const char *name)
{
    for (int i = 0; words[i]; i++) {
        if (strcmp(name, words[i]) == 0) {
            return i;
        }
    }
    return -1;
}

const char *tie_rule_name(TieRule rule)
{
    return tie_rule_names[rule];
}

bool tie_rule_find(TieRule *rule, const char *name)
{
    int i = plan_word_find(tie_rule_names, name);
    if (i >= 0) {
        *rule = (TieRule)i;
    }
    return i >= 0;
}

int plan_modules(Module *modules, const ModelConfig *config, unsigned targets)
{
    int n = 0;
    for (int layer = 0; layer < config->n_layers; layer++) {
        for (int role = 0; role < N_ROLES; role++) {
            if (targets >> role & 1) {
                modules[n++] = (Module){layer, (Role)role};
            }
        }
    }
    return n;
}

Status plan_check_rank(int rank, const Module *modules, int n_modules, const ModelConfig *config,
                       Error *error)
{
    for (int i = 0; i < n_modules; i++) {
        int out, in;
        role_shape(config, modules[i].role, &out, &in);
        int most = out < in ? out : in;
        if (rank > most) {
            char name[96];
            module_name(name, modules[i].layer, modules[i].role);
            return error_set(error, STATUS_USAGE, "module \"%s\" (%d x %d): rank %d, at most %d",
                             name, out, in, rank, most);
        }
    }
    return STATUS_OK;
}

/* -- classes: modules of different classes never share ---------------------------------------- */

/* Classes in the order of their first modules, and how many modules of each. */
typedef struct {
    int n, size[N_ROLES];
    int of_role[N_ROLES]; /* class of a role, -1: it does not occur */
} Classes;

/* The roles of a layer in the order of their names, as layer-sorted has them: "mlp.down_proj"
 * before "self_attn.k_proj". */
static const Role SORTED_ROLES[N_ROLES] = {ROLE_DOWN, ROLE_GATE, ROLE_UP, ROLE_K,
                                           ROLE_O,    ROLE_Q,    ROLE_V};

static Role role_at(ModuleOrder order, int i)
{
    return order == ORDER_NAMED ? (Role)i : SORTED_ROLES[i];
}

static bool is_mlp(Role role)
{
    return role == ROLE_GATE || role == ROLE_UP || role == ROLE_DOWN;
}

/* Every layer has the same roles, so the first layer's order is that of the classes. */
static Classes find_classes(const Module *modules, int n_modules, TieRule tie, ModuleOrder order)
{
    Classes classes = {0};
    int counts[N_ROLES] = {0}, first[N_ROLES];
    for (int i = 0; i < n_modules; i++) {
        counts[modules[i].role]++;
    }
    for (int i = 0; i < N_ROLES; i++) {
        first[i] = -1;
    }
    for (int i = 0; i < N_ROLES; i++) {
        Role role = role_at(order, i);
        int kind = tie == TIE_STRUCTURED ? (int)role : tie == TIE_BY_ROLE ? is_mlp(role) : 0;
        classes.of_role[role] = -1;
        if (counts[role] == 0) {
            continue;
        }
        if (first[kind] < 0) {
            first[kind] = classes.n++;
        }
        classes.of_role[role] = first[kind];
        classes.size[first[kind]] += counts[role];
    }
    return classes;
}

/* Groups of class c of `classes`, of all groups. */
static int groups_of_class(const Classes *classes, int c, int groups)
{
    return (int)((long)(c + 1) * groups / classes->n - (long)c * groups / classes->n);
}

/* Modules in each chunk but the last of n in `groups`. */
static int chunk_of(const Plan *plan, int n, int groups)
{
    return plan->tie_factor ? plan->tie_factor : (n - 1) / groups + 1;
}

/* Groups that chunks over n modules make. */
static int chunked_groups(const Plan *plan, int n, int groups)
{
    return (n - 1) / chunk_of(plan, n, groups) + 1;
}

/* Group of item i of n in `groups` groups, which the rule makes exactly (checked by the caller). */
static int group_of(const Plan *plan, int i, int n, int groups)
{
    int group = 0;
    switch (plan->grouping) {
    case GROUPING_CHUNKS:
        return i / chunk_of(plan, n, groups);
    case GROUPING_BALANCED:
        return (int)((long)i * groups / n);
    case GROUPING_FLOOR:
        group = i / (n / groups);
        return group < groups ? group : groups - 1;
    }
    return group;
}

/* Does the rule of tiled, structured or by-role make exactly this many groups? */
static bool makes(const Plan *plan, const Classes *classes, int groups)
{
    bool balanced = plan->grouping == GROUPING_BALANCED;
    if (groups < classes->n || (!balanced && groups % classes->n)) {
        return false;
    }
    for (int c = 0; c < classes->n; c++) {
        int share = groups_of_class(classes, c, groups), n = classes->size[c];
        if (share > n ||
            (plan->grouping == GROUPING_CHUNKS && chunked_groups(plan, n, share) != share)) {
            return false;
        }
    }
    return true;
}

/* "the nearest are 12 and 14" */
static void name_nearest(char text[64], const Plan *plan, const Classes *classes)
{
    int below = plan->groups, above = below;
    while (below > 0 && !makes(plan, classes, below)) {
        below--;
    }
    while (above <= plan->n_modules && !makes(plan, classes, above)) {
        above++;
    }
    if (below > 0 && above <= plan->n_modules) {
        snprintf(text, 64, "the nearest are %d and %d", below, above);
    } else {
        snprintf(text, 64, "the nearest is %d", below > 0 ? below : above);
    }
}

static Status refuse_classes(const Plan *plan, const Classes *classes, Error *error)
{
    const char *tie = tie_rule_name(plan->tie);
    const char *kinds = plan->tie == TIE_BY_ROLE ? "roles" : "types";
    char nearest[64];
    if (plan->groups < classes->n) {
        return error_set(error, STATUS_USAGE,
                         "tie rule \"%s\" never shares between %s: %d groups over %d %s of "
                         "modules; the nearest possible is %d",
                         tie, kinds, plan->groups, classes->n, kinds, classes->n);
    }
    name_nearest(nearest, plan, classes);
    if (plan->grouping != GROUPING_BALANCED && plan->groups % classes->n) {
        return error_set(error, STATUS_USAGE,
                         "tie rule \"%s\" in chunks: %d groups over %d %s of modules; %s, or "
                         "balanced",
                         tie, plan->groups, classes->n, kinds, nearest);
    }
    if (plan->grouping != GROUPING_CHUNKS) {
        return error_set(error, STATUS_USAGE,
                         "tie rule \"%s\": %d groups are more than the smallest of its %d %s of "
                         "modules can give; %s",
                         tie, plan->groups, classes->n, kinds, nearest);
    }
    int made = 0, chunk = 0; /* of the first class that does not come out */
    for (int c = 0; c < classes->n; c++) {
        int share = plan->groups / classes->n, n = classes->size[c];
        int of_class = chunked_groups(plan, n, share);
        chunk = chunk || of_class == share ? chunk : chunk_of(plan, n, share);
        made += of_class;
    }
    return error_set(
        error, STATUS_USAGE,
        "tie rule \"%s\": chunks of %d modules make %d groups, not %d; %s, or balanced", tie, chunk,
        made, plan->groups, nearest);
}

static Status check_map(const Plan *plan, Error *error)
{
    int groups = 0;
    for (int i = 0; i < plan->n_modules; i++) {
        groups = plan->map[i] >= groups ? plan->map[i] + 1 : groups;
    }
    if (groups != plan->groups) {
        return error_set(error, STATUS_USAGE, "the tie map makes %d groups, not %d", groups,
                         plan->groups);
    }
    return STATUS_OK;
}

static Status check_groups(const Plan *plan, const Classes *classes, Error *error)
{
    int n = plan->n_modules, groups = plan->groups;
    if (groups < 1 || groups > n) {
        return error_set(error, STATUS_USAGE,
                         "%d groups over %d modules: from 1 to %d are possible", groups, n, n);
    }
    switch (plan->tie) {
    case TIE_ALL:
        return groups == 1 ? STATUS_OK
                           : error_set(error, STATUS_USAGE,
                                       "tie rule \"all\" makes 1 group, not %d", groups);
    case TIE_NONE:
        return groups == n ? STATUS_OK
                           : error_set(error, STATUS_USAGE,
                                       "tie rule \"none\" makes %d groups, not %d", n, groups);
    case TIE_MAP:
        assert(plan->map);
        return check_map(plan, error);
    case TIE_TILED:
    case TIE_STRUCTURED:
    case TIE_BY_ROLE:
    case N_TIE_RULES:
        break;
    }
    return makes(plan, classes, groups) ? STATUS_OK : refuse_classes(plan, classes, error);
}

Status plan_groups(int *group, const Plan *plan, const Module *modules, Error *error)
{
    int n = plan->n_modules;
    Classes classes = find_classes(modules, n, plan->tie, plan->order);
    Status status = check_groups(plan, &classes, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (plan->tie == TIE_MAP || plan->tie == TIE_NONE || plan->tie == TIE_ALL) {
        for (int i = 0; i < n; i++) {
            group[i] = plan->tie == TIE_MAP ? plan->map[i] : plan->tie == TIE_NONE ? i : 0;
        }
        return STATUS_OK;
    }
    int first[N_ROLES], seen[N_ROLES] = {0};
    for (int c = 0, sum = 0; c < classes.n; c++) {
        first[c] = sum;
        sum += groups_of_class(&classes, c, plan->groups);
    }
    /* Layer by layer, and within a layer in the order of the roles. */
    for (int start = 0, stop; start < n; start = stop) {
        for (stop = start; stop < n && modules[stop].layer == modules[start].layer; stop++) {
        }
        for (int r = 0; r < N_ROLES; r++) {
            for (int i = start; i < stop; i++) {
                if (modules[i].role == role_at(plan->order, r)) {
                    int c = classes.of_role[modules[i].role];
                    group[i] = first[c] + group_of(plan, seen[c]++, classes.size[c],
                                                   groups_of_class(&classes, c, plan->groups));
                }
            }
        }
    }
    return STATUS_OK;
}

int plan_groups_of_factor(const Module *modules, int n_modules, TieRule tie, int tie_factor)
{
    Classes classes = find_classes(modules, n_modules, tie, ORDER_NAMED);
    int groups = 0;
    for (int c = 0; c < classes.n; c++) {
        groups += (classes.size[c] - 1) / tie_factor + 1;
    }
    return groups;
}

static Status check_sizes(const Plan *plan, Error *error)
{
    if (plan->u > INT_MAX / plan->groups) {
        return error_set(error, STATUS_USAGE, "u = %d times %d groups: more than %d scalars",
                         plan->u, plan->groups, INT_MAX);
    }
    int copies = plan->projection.shared ? 1 : plan->n_modules;
    double numbers = (double)copies * plan->u * plan->rank * plan->rank;
    if (numbers > MAX_PROJECTION) {
        return error_set(error, STATUS_USAGE,
                         "u = %d at rank %d over %d modules: P would take %.1f GiB, at most %.0f; "
                         "a group of m modules has no use for more than m x rank^2 scalars",
                         plan->u, plan->rank, plan->n_modules, numbers * sizeof(float) / 0x1p30,
                         MAX_PROJECTION * sizeof(float) / 0x1p30);
    }
    return STATUS_OK;
}

Status plan_complete(Plan *plan, const Module *modules, int n_modules, Error *error)
{
    if (n_modules < 1) {
        return error_set(error, STATUS_USAGE, "the targets select no module of the model");
    }
    if (plan->rank < 1 || plan->rank > PLAN_MAX_RANK) {
        return error_set(error, STATUS_USAGE, "rank %d: from 1 to %d are possible", plan->rank,
                         PLAN_MAX_RANK);
    }
    if (plan->u < 1) {
        return error_set(error, STATUS_USAGE, "u = %d: a group has at least 1 scalar", plan->u);
    }
    plan->n_modules = n_modules;
    int *group = malloc((size_t)n_modules * sizeof *group);
    if (group == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for a plan of %d modules", n_modules);
    }
    Status status = plan_groups(group, plan, modules, error);
    status = status ? status : check_sizes(plan, error);
    if (status == STATUS_OK) {
        plan->parameters = plan->u * plan->groups;
        plan->bytes = tensor_type_size(plan->dtype) * (size_t)plan->parameters;
        status = plan_freedom(&plan->degrees_of_freedom, plan, modules, group, error);
    }
    free(group);
    return status;
}
