/* The plan space: tie rules, group maps, and the search for all (u, groups) with u * groups =
 * budget. */
#include "adapters/plan.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const TIE_NAMES[] = {"tiled", "structured", "all", "none"};
enum { N_TIE_RULES = 4 };

const char *tie_rule_name(TieRule rule)
{
    return TIE_NAMES[rule];
}

bool tie_rule_find(TieRule *rule, const char *name)
{
    for (int i = 0; i < N_TIE_RULES; i++) {
        if (strcmp(name, TIE_NAMES[i]) == 0) {
            *rule = (TieRule)i;
            return true;
        }
    }
    return false;
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

/* Types of modules that occur, and how many modules of each: counts: (N_ROLES). */
static int count_types(int *counts, const Module *modules, int n_modules)
{
    int n_types = 0;
    memset(counts, 0, N_ROLES * sizeof *counts);
    for (int i = 0; i < n_modules; i++) {
        n_types += counts[modules[i].role]++ == 0;
    }
    return n_types;
}

/* Groups that chunks of ceil(n / groups) make. */
static int chunked_groups(int n, int groups)
{
    int chunk = (n - 1) / groups + 1;
    return (n - 1) / chunk + 1;
}

/* Group of item i of n in `groups` groups, which the rule makes exactly (checked by the caller). */
static int group_of(int i, int n, int groups, bool balanced)
{
    return balanced ? (int)((long)i * groups / n) : i / ((n - 1) / groups + 1);
}

/* Groups of the t-th of n_types types. */
static int groups_of_type(int t, int n_types, int groups)
{
    return (int)((long)(t + 1) * groups / n_types - (long)t * groups / n_types);
}

/* The number of groups nearest to the wanted one, below and above (0: none), that chunks over n
 * items can make. */
static void nearest_chunked(int *below, int *above, int n, int groups)
{
    *below = groups;
    while (*below > 0 && chunked_groups(n, *below) != *below) {
        --*below;
    }
    *above = groups;
    while (*above < n && chunked_groups(n, *above) != *above) {
        ++*above;
    }
}

static Status check_groups(const Plan *plan, const Module *modules, Error *error)
{
    int n = plan->n_modules, groups = plan->groups;
    const char *tie = tie_rule_name(plan->tie);
    if (groups < 1 || groups > n) {
        return error_set(error, STATUS_USAGE,
                         "%d groups over %d modules: from 1 to %d are possible", groups, n, n);
    }
    if (plan->tie == TIE_ALL && groups != 1) {
        return error_set(error, STATUS_USAGE, "tie rule \"all\" makes 1 group, not %d", groups);
    }
    if (plan->tie == TIE_NONE && groups != n) {
        return error_set(error, STATUS_USAGE, "tie rule \"none\" makes %d groups, not %d", n,
                         groups);
    }
    int counts[N_ROLES];
    int n_types = count_types(counts, modules, n);
    int n_items = n, wanted = groups, factor = 1;
    if (plan->tie == TIE_STRUCTURED) {
        if (groups < n_types) {
            return error_set(error, STATUS_USAGE,
                             "tie rule \"structured\" never shares between types: %d groups over "
                             "%d types of modules; the nearest possible is %d",
                             groups, n_types, n_types);
        }
        if (groups % n_types && !plan->balanced) {
            return error_set(error, STATUS_USAGE,
                             "tie rule \"structured\" in chunks: %d groups over %d types of "
                             "modules; the nearest are %d and %d, or balanced",
                             groups, n_types, groups / n_types * n_types,
                             (groups / n_types + 1) * n_types);
        }
        n_items = n / n_types; /* every type has one module a layer */
        wanted = groups / n_types;
        factor = n_types;
    }
    if (plan->tie != TIE_NONE && !plan->balanced && chunked_groups(n_items, wanted) != wanted) {
        int below, above;
        nearest_chunked(&below, &above, n_items, wanted);
        return error_set(
            error, STATUS_USAGE,
            "tie rule \"%s\": chunks of %d modules make %d groups, not %d; the nearest "
            "are %d and %d, or balanced",
            tie, (n_items - 1) / wanted + 1, chunked_groups(n_items, wanted) * factor, groups,
            below * factor, above * factor);
    }
    return STATUS_OK;
}

Status plan_groups(int *group, const Plan *plan, const Module *modules, Error *error)
{
    Status status = check_groups(plan, modules, error);
    if (status != STATUS_OK) {
        return status;
    }
    int n = plan->n_modules;
    if (plan->tie != TIE_STRUCTURED) {
        for (int i = 0; i < n; i++) {
            group[i] = group_of(i, n, plan->groups, plan->balanced);
        }
        return STATUS_OK;
    }
    int counts[N_ROLES];
    int n_types = count_types(counts, modules, n);
    int first = 0;
    for (int role = 0, t = 0; role < N_ROLES; role++) {
        if (counts[role] == 0) {
            continue;
        }
        int groups = groups_of_type(t++, n_types, plan->groups);
        for (int i = 0, k = 0; i < n; i++) {
            if ((int)modules[i].role == role) {
                group[i] = first + group_of(k++, counts[role], groups, plan->balanced);
            }
        }
        first += groups;
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
    int *group = malloc((size_t)n_modules * 2 * sizeof *group);
    if (group == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for a plan of %d modules", n_modules);
    }
    Status status = plan_groups(group, plan, modules, error);
    if (status == STATUS_OK && plan->u > INT_MAX / plan->groups) {
        status = error_set(error, STATUS_USAGE, "u = %d times %d groups: more than %d scalars",
                           plan->u, plan->groups, INT_MAX);
    }
    if (status == STATUS_OK) {
        int *size = group + n_modules;
        memset(size, 0, (size_t)n_modules * sizeof *size);
        for (int i = 0; i < n_modules; i++) {
            size[group[i]]++;
        }
        /* Independent P: the modules of a group see u directions in a space of rank^2 numbers each.
         */
        long freedom = 0;
        for (int g = 0; g < plan->groups; g++) {
            long space = (long)plan->rank * plan->rank * size[g];
            freedom += plan->u < space ? plan->u : space;
        }
        plan->parameters = plan->u * plan->groups;
        plan->bytes = 2 * (size_t)plan->parameters;
        plan->degrees_of_freedom = (int)freedom;
    }
    free(group);
    return status;
}

/* Do two plans share in the same way? group: scratch (2 * n_modules). */
static bool same_groups(const Plan *a, const Plan *b, const Module *modules, int *group)
{
    size_t n = (size_t)a->n_modules;
    return plan_groups(group, a, modules, NULL) == STATUS_OK &&
           plan_groups(group + n, b, modules, NULL) == STATUS_OK &&
           memcmp(group, group + n, n * sizeof *group) == 0;
}

/* Can a budget be spent under one rule? */
static bool can_spend(long budget, TieRule tie, int n_modules, int n_types)
{
    if (budget < 1 || budget > INT_MAX) {
        return false;
    }
    switch (tie) {
    case TIE_NONE:
        return budget % n_modules == 0;
    case TIE_STRUCTURED:
        for (int groups = n_types; groups <= n_modules; groups++) {
            if (budget % groups == 0) {
                return true;
            }
        }
        return false;
    default:
        return true;
    }
}

static Status refuse_budget(int budget, int tie, int n_modules, int n_types, Error *error)
{
    if (tie < 0 || budget < 1) {
        return error_set(error, STATUS_USAGE, "a budget of %d scalars cannot be spent: at least 1",
                         budget);
    }
    long below = budget, above = budget;
    while (below > 0 && !can_spend(below, (TieRule)tie, n_modules, n_types)) {
        below--;
    }
    while (above < (long)budget + n_modules &&
           !can_spend(above, (TieRule)tie, n_modules, n_types)) {
        above++;
    }
    char nearest[64];
    if (below > 0) {
        snprintf(nearest, sizeof nearest, "the nearest are %ld and %ld", below, above);
    } else {
        snprintf(nearest, sizeof nearest, "the nearest is %ld", above);
    }
    return error_set(
        error, STATUS_USAGE,
        "a budget of %d scalars cannot be spent on %d modules under tie rule \"%s\"; %s", budget,
        n_modules, tie_rule_name((TieRule)tie), nearest);
}

Status plan_enumerate(Plan **plans, int *n_plans, const Module *modules, int n_modules, int budget,
                      int rank, int tie, Error *error)
{
    int counts[N_ROLES];
    int n_types = count_types(counts, modules, n_modules);
    /* Two rules, chunked and balanced, for each number of groups, and all and none. */
    Plan *list = malloc(((size_t)n_modules * 4 + 2) * sizeof *list);
    int *scratch = malloc(((size_t)n_modules * 2 + 1) * sizeof *scratch);
    if (list == NULL || scratch == NULL) {
        free(list);
        free(scratch);
        return error_set(error, STATUS_FAILED, "no memory for the plans of %d modules", n_modules);
    }
    Plan probe = {.rank = rank, .u = 1, .groups = 1, .tie = TIE_ALL};
    Status status = plan_complete(&probe, modules, n_modules, error);
    int n = 0;
    for (int groups = n_modules; status == STATUS_OK && budget > 0 && groups >= 1; groups--) {
        if (budget % groups) {
            continue;
        }
        int first = n;
        for (int balanced = 0; balanced < 2; balanced++) {
            for (int rule = 0; rule < N_TIE_RULES; rule++) {
                bool wanted = tie < 0 || rule == tie;
                bool whole = rule == TIE_ALL || rule == TIE_NONE;
                if (!wanted || (whole && balanced)) {
                    continue;
                }
                Plan plan = {.rank = rank,
                             .u = budget / groups,
                             .groups = groups,
                             .tie = (TieRule)rule,
                             .balanced = balanced == 1};
                if (plan_complete(&plan, modules, n_modules, NULL) != STATUS_OK) {
                    continue;
                }
                /* Under all rules, `all` and `none` are the names of the two ends. */
                bool known = tie < 0 && !whole && (groups == 1 || groups == n_modules);
                for (int i = first; i < n && !known; i++) {
                    known = same_groups(&list[i], &plan, modules, scratch);
                }
                if (!known) {
                    list[n++] = plan;
                }
            }
        }
    }
    free(scratch);
    if (status == STATUS_OK && n == 0) {
        status = refuse_budget(budget, tie, n_modules, n_types, error);
    }
    if (status != STATUS_OK) {
        free(list);
        return status;
    }
    *plans = list;
    *n_plans = n;
    return STATUS_OK;
}
