/* How other tools choose a plan, rule by rule (reference/method.md 1.2, 3.1, 3.2): their counts and
 * groups exactly; their random numbers come from generators of numpy and PyTorch and are not
 * reproduced. */
#pragma once
#include "adapters/plan.h"

/* The paper's points: u = 1 and n_tie a power of two up to 256 where ceil(modules / n_tie) is the
 * budget, else no sharing where the modules divide it, else one v for all (its 64 of 196 modules).
 * Out: u, and tie_factor (modules a group). */
void planner_paper(int *u, int *tie_factor, int n_modules, int budget);

/* choose_budget_plan of ANRGUSC/TinyLoRA over u in candidates and tie factors 1 .. n_modules: the
 * nearest ceil(n_modules / tie) * u, the smaller of two, then the first u, then the smallest tie.
 * Not exact: 120 on 196 modules gives 4 x 28 = 112. */
void planner_anrgusc(int *u, int *tie_factor, int n_modules, int budget, const int *candidates,
                     int n_candidates);

/* PEFT's num_groups = max(1, round(n_modules * (1 - weight_tying))), Python's round (half to even);
 * it cuts as GROUPING_FLOOR. weight_tying: 0 to 1 */
int planner_peft_groups(int n_modules, double weight_tying);
