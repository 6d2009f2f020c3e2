/* The search for all (u, groups) with u * groups = budget. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/plan.h"

/* Do two plans share in the same way? group: scratch (2 * n_modules). */
static bool same_groups(const Plan *a, const Plan *b, const Module *modules, int *group)
{
    size_t n = (size_t)a->n_modules;
    return plan_groups(group, a, modules, NULL) == STATUS_OK &&
           plan_groups(group + n, b, modules, NULL) == STATUS_OK &&
           memcmp(group, group + n, n * sizeof *group) == 0;
}

/* Does the rule, however it cuts, make some plan of this many groups? */
static bool can_group(const Plan *like, TieRule tie, const Module *modules, int n_modules,
                      int groups, int *scratch)
{
    bool possible = false;
    for (int g = 0; g <= GROUPING_BALANCED && !possible; g++) {
        Plan plan = *like;
        plan.tie = tie;
        plan.groups = groups;
        plan.grouping = (Grouping)g;
        plan.tie_factor = 0;
        plan.n_modules = n_modules;
        possible = plan_groups(scratch, &plan, modules, NULL) == STATUS_OK;
    }
    return possible;
}

static bool can_spend(long budget, const bool *groupings, int n_modules)
{
    for (int groups = 1; groups <= n_modules && budget >= 1 && budget <= INT_MAX; groups++) {
        if (groupings[groups] && budget % groups == 0) {
            return true;
        }
    }
    return false;
}

/* groupings: (n_modules + 1) scratch; scratch: (n_modules). */
static Status refuse_budget(int budget, const Plan *like, int tie, const Module *modules,
                            int n_modules, bool *groupings, int *scratch, Error *error)
{
    if (tie < 0 || budget < 1) {
        return error_set(error, STATUS_USAGE, "a budget of %d scalars cannot be spent: at least 1",
                         budget);
    }
    for (int groups = 1; groups <= n_modules; groups++) {
        groupings[groups] = can_group(like, (TieRule)tie, modules, n_modules, groups, scratch);
    }
    long below = budget, above = budget;
    while (below > 0 && !can_spend(below, groupings, n_modules)) {
        below--;
    }
    while (above < (long)budget + n_modules && !can_spend(above, groupings, n_modules)) {
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

typedef struct {
    Plan *list;
    int n;
    const Module *modules;
    int *scratch;    /* (2 * n_modules) */
    bool refused;    /* a plan that the tie rule makes was too large */
    Error too_large; /* then: why */
    int n_modules, tie;
} Search;

/* Add the plan unless its way of sharing is there already, from index `first` on. */
static void consider(Search *s, Plan plan, int first)
{
    bool whole = plan.tie == TIE_ALL || plan.tie == TIE_NONE;
    plan.n_modules = s->n_modules;
    if (plan_groups(s->scratch, &plan, s->modules, NULL) != STATUS_OK) {
        return;
    }
    if (plan_complete(&plan, s->modules, s->n_modules, &s->too_large) != STATUS_OK) {
        s->refused = true;
        return;
    }
    /* Under all rules, `all` and `none` are the names of the two ends. */
    bool known = s->tie < 0 && !whole && (plan.groups == 1 || plan.groups == s->n_modules);
    for (int i = first; i < s->n && !known; i++) {
        known = same_groups(&s->list[i], &plan, s->modules, s->scratch);
    }
    if (!known) {
        s->list[s->n++] = plan;
    }
}

/* All plans of so many groups. */
static void search_groups(Search *s, const Plan *like, int budget, int groups)
{
    static const Grouping usual[] = {GROUPING_CHUNKS, GROUPING_BALANCED},
                          floor_first[] = {GROUPING_FLOOR, GROUPING_CHUNKS, GROUPING_BALANCED};
    bool with_floor = like->grouping == GROUPING_FLOOR;
    int first = s->n;
    for (int g = 0; g < (with_floor ? 3 : 2); g++) {
        for (int rule = 0; rule < N_TIE_RULES; rule++) {
            bool cut = rule == TIE_TILED || rule == TIE_STRUCTURED || rule == TIE_BY_ROLE;
            bool wanted = s->tie < 0 || rule == s->tie;
            if (!wanted || (!cut && g > 0) || (rule == TIE_MAP && !like->map)) {
                continue;
            }
            Plan plan = *like;
            plan.u = budget / groups;
            plan.groups = groups;
            plan.tie = (TieRule)rule;
            plan.grouping = !cut ? GROUPING_CHUNKS : with_floor ? floor_first[g] : usual[g];
            plan.tie_factor = 0;
            consider(s, plan, first);
        }
    }
}

Status plan_enumerate(Plan **plans, int *n_plans, const Module *modules, int n_modules,
                      const Plan *like, int budget, int tie, Error *error)
{
    /* Three rules, cut in three ways, for each number of groups; all, none and a map once. */
    Plan *list = malloc(((size_t)n_modules * 9 + 3) * sizeof *list);
    int *scratch = malloc(((size_t)n_modules * 2 + 1) * sizeof *scratch);
    bool *groupings = calloc((size_t)n_modules + 1, sizeof *groupings);
    Search search = {
        .list = list, .modules = modules, .scratch = scratch, .n_modules = n_modules, .tie = tie};
    Status status = STATUS_OK;
    if (list == NULL || scratch == NULL || groupings == NULL) {
        status =
            error_set(error, STATUS_FAILED, "no memory for the plans of %d modules", n_modules);
    } else {
        Plan probe = *like;
        probe.u = probe.groups = 1;
        probe.tie = TIE_ALL;
        status = plan_complete(&probe, modules, n_modules, error);
    }
    for (int groups = n_modules; status == STATUS_OK && budget > 0 && groups >= 1; groups--) {
        if (budget % groups == 0) {
            search_groups(&search, like, budget, groups);
        }
    }
    if (status == STATUS_OK && search.n == 0 && search.refused) {
        status = error_set(error, STATUS_USAGE, "%s", search.too_large.message);
    } else if (status == STATUS_OK && search.n == 0) {
        status = refuse_budget(budget, like, tie, modules, n_modules, groupings, scratch, error);
    }
    free(scratch);
    free(groupings);
    if (status != STATUS_OK) {
        free(list);
        return status;
    }
    *plans = list;
    *n_plans = search.n;
    return STATUS_OK;
}
