/* Small searches. */
#include "adapters/planners.h"

#include <math.h>
#include <stdlib.h>

enum { PAPER_MAX_TIE = 256 };

static int groups_of(int n_modules, int tie)
{
    return (n_modules - 1) / tie + 1;
}

void planner_paper(int *u, int *tie_factor, int n_modules, int budget)
{
    for (int tie = 1; tie <= PAPER_MAX_TIE; tie *= 2) {
        if (groups_of(n_modules, tie) == budget) {
            *u = 1;
            *tie_factor = tie;
            return;
        }
    }
    bool untied = budget % n_modules == 0;
    *u = untied ? budget / n_modules : budget;
    *tie_factor = untied ? 1 : n_modules;
}

void planner_anrgusc(int *u, int *tie_factor, int n_modules, int budget, const int *candidates,
                     int n_candidates)
{
    long best = -1, best_distance = 0;
    for (int c = 0; c < n_candidates; c++) {
        for (int tie = 1; tie <= n_modules; tie++) {
            long actual = (long)groups_of(n_modules, tie) * candidates[c];
            long distance = labs(actual - budget);
            if (best < 0 || distance < best_distance ||
                (distance == best_distance && actual < best)) {
                best = actual;
                best_distance = distance;
                *u = candidates[c];
                *tie_factor = tie;
            }
        }
    }
}

int planner_peft_groups(int n_modules, double weight_tying)
{
    double groups = rint((double)n_modules * (1 - weight_tying)); /* half to even */
    return groups < 1 ? 1 : (int)groups;
}
