/* Budgets: how many scalars, who shares them. A plan is a point of the space (rank, u, groups, tie
 * rule, ...); never "13" alone (DESIGN, The adapter; reference: paper 4, 6.5 and Fig. 8). Pure
 * arithmetic: needs only the config. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/model_config.h"
#include "core/status.h"

/* tiled: modules of similar depth share, any type (named_modules order).  structured: modules of
 * one type share, groups inside each type.  all: one group.  none: a group each. */
typedef enum { TIE_TILED, TIE_STRUCTURED, TIE_ALL, TIE_NONE } TieRule;
const char *tie_rule_name(TieRule rule);
bool tie_rule_find(TieRule *rule, const char *name);

#define PLAN_MAX_RANK 256

typedef struct {
    int layer;
    Role role;
} Module;

/* The modules that targets select, in named_modules order. targets: bit per Role. */
int plan_modules(Module *modules /* (n_layers * N_ROLES) */, const ModelConfig *config,
                 unsigned targets);

typedef struct {
    int rank;   /* r of the frozen SVD */
    int u;      /* scalars per group */
    int groups; /* u * groups = parameters */
    TieRule tie;
    bool balanced; /* group = i * groups / modules; else chunks of ceil(modules / groups), the last
                      one short */
    int n_modules;
    int parameters;
    size_t bytes;           /* of v stored as bf16: 2 a scalar (26 for 13) */
    int degrees_of_freedom; /* rank of the linear map v -> (R_1 .. R_n), P different per module */
} Plan;

/* Fill n_modules, parameters, bytes and degrees_of_freedom of a plan whose rank, u, groups, tie and
 * balanced are given (all: groups is 1; none: n_modules). Errors: as plan_groups; STATUS_USAGE for
 * rank, u or groups < 1 or a rank above PLAN_MAX_RANK. */
Status plan_complete(Plan *plan, const Module *modules, int n_modules, Error *error);

/* Group of each module: group: (n_modules). Groups are numbered in the order of their first module
 * for tiled, type by type for structured. A structured plan whose groups the types do not divide is
 * balanced: some types get one more. Errors: STATUS_USAGE when the rule cannot make exactly that
 * many groups, naming the nearest number it can. */
Status plan_groups(int *group, const Plan *plan, const Module *modules, Error *error);

/* All plans that spend the budget exactly, the preferred one first: less sharing (more groups),
 * then smaller u, then chunked as in the paper before balanced, then tiled, structured. Each way of
 * sharing is listed once: balanced only where it differs from chunked, and with tie = -1 (all
 * rules) one group is `all` and a group each is `none`. plans: malloc'ed. Errors: STATUS_USAGE
 * naming the nearest budgets that can be spent. (Paper 4, 6.5, Fig. 8.) */
Status plan_enumerate(Plan **plans, int *n_plans, const Module *modules, int n_modules, int budget,
                      int rank, int tie, Error *error);
