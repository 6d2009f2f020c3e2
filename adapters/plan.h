/* Budgets: how many scalars, who shares them. A plan is a point of the space (rank, u, groups, tie
 * rule, module order, P's law, ...); never "13" alone (DESIGN, The adapter; reference: paper 4, 6.5
 * and Fig. 8). Pure arithmetic: needs only the config. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "adapters/projection.h"
#include "core/model_config.h"
#include "core/safetensors.h"
#include "core/status.h"

/* tiled: modules of similar depth share, any type.  structured: modules of one type share, groups
 * inside each type.  all: one group.  none: a group each.  by-role: attention (q, k, v, o) and MLP
 * (gate, up, down) never share: 2 groups are one each, G are G / 2 along the depth of each (an odd
 * one more for the MLP, balanced alone).  map: as a file says (tie_map.h). */
typedef enum {
    TIE_TILED,
    TIE_STRUCTURED,
    TIE_ALL,
    TIE_NONE,
    TIE_BY_ROLE,
    TIE_MAP,
    N_TIE_RULES
} TieRule;
extern const char *const tie_rule_names[]; /* in the enum's order, ended by NULL */
const char *tie_rule_name(TieRule rule);
bool tie_rule_find(TieRule *rule, const char *name);

/* How n modules in their order are cut into G groups. chunks: of ceil(n / G), the last one short
 * (paper).  balanced: module i is in group i * G / n.  floor: chunks of n / G rounded down, the
 * last one takes the rest (PEFT). */
typedef enum { GROUPING_CHUNKS, GROUPING_BALANCED, GROUPING_FLOOR } Grouping;
extern const char *const grouping_names[];

/* named: as PyTorch's named_modules gives them: layer, then q, k, v, o, gate, up, down.
 * layer-sorted: by (layer, whole name), as ANRGUSC/TinyLoRA sorts: layer, then down, gate, up, k,
 * o, q, v. The order decides who shares, nothing else. */
typedef enum { ORDER_NAMED, ORDER_LAYER_SORTED } ModuleOrder;
extern const char *const module_order_names[];

/* Index of name in a list ended by NULL, or -1. */
int plan_word_find(const char *const *words, const char *name);

enum { PLAN_MAX_RANK = 256 };

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
    Grouping grouping;
    int tie_factor; /* chunks: modules a group, the last one short; 0: ceil(modules / groups) */
    ModuleOrder order;
    int *map; /* TIE_MAP: group of each module, (n_modules); the caller's */
    Projection projection;
    TensorType dtype; /* of v as it is stored */
    int n_modules;
    int parameters;
    size_t bytes;           /* of v: 26 for 13 scalars of bf16 */
    int degrees_of_freedom; /* rank of the linear map v -> (R_1 .. R_n) */
} Plan;

/* Fill n_modules, parameters, bytes and degrees_of_freedom of a plan whose other fields are given
 * (all: groups is 1; none: n_modules). Errors: as plan_groups; STATUS_USAGE for rank, u or groups
 * < 1, a rank above PLAN_MAX_RANK, or P beyond 8 GiB. */
Status plan_complete(Plan *plan, const Module *modules, int n_modules, Error *error);
/* Can every module give `rank` singular triplets? Errors: STATUS_USAGE naming the module. */
Status plan_check_rank(int rank, const Module *modules, int n_modules, const ModelConfig *config,
                       Error *error);

/* Group of each module: group: (n_modules). Groups are numbered in the order of their first module
 * for tiled, class by class (in the order of the classes' first modules) for structured and
 * by-role. A structured or by-role plan whose groups the classes do not divide is balanced: some
 * classes get one more. Errors: STATUS_USAGE when the rule cannot make exactly that many groups,
 * naming the nearest number it can. */
Status plan_groups(int *group, const Plan *plan, const Module *modules, Error *error);
/* Groups of tie_factor modules each that `tiled` or `structured` make. */
int plan_groups_of_factor(const Module *modules, int n_modules, TieRule tie, int tie_factor);

/* All plans that spend the budget exactly, the preferred one first: less sharing (more groups),
 * then smaller u, then chunked as in the paper before balanced, then tiled, structured, by-role.
 * Each way of sharing is listed once: balanced only where it differs from chunked, and with tie =
 * -1 (all rules) one group is `all` and a group each is `none`. like: rank, order, projection,
 * dtype and map of all of them; with its grouping floor that one is listed before the others.
 * plans: malloc'ed. Errors: STATUS_USAGE naming the nearest budgets that can be spent. (Paper 4,
 * 6.5, Fig. 8.) */
Status plan_enumerate(Plan **plans, int *n_plans, const Module *modules, int n_modules,
                      const Plan *like, int budget, int tie, Error *error);
