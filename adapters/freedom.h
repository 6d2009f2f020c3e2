/* Degrees of freedom: how many numbers v really moves. */
#pragma once
#include "adapters/plan.h"

/* The rank of the linear map v -> (R_1 .. R_n), R = sum_i v_i P_i. A group of size modules has u
 * scalars and r^2 x size numbers (r^2 where P is shared): laws with a density fill the smaller of
 * both with probability 1. Where P is made of signs (rademacher; orthonormal of rank 1) small
 * groups can fall short of it: there the rank is computed from P itself.
 * group: (n_modules) of plan_groups. Errors: STATUS_FAILED for memory. */
Status plan_freedom(int *freedom, const Plan *plan, const Module *modules, const int *group,
                    Error *error);
