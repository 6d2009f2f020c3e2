/* Which cells of a sweep go on, by their neighbours' stored numbers at fixed steps (settings
 * stop.rule, stop.first, stop.factor): the median rule (Golovin et al. 2017, Vizier, section 3.2.2)
 * and synchronous successive halving (Jamieson & Talwalkar 2016). All cells are brought to a step,
 * then it is decided; asked again, after a kill or from the start, the same is decided. */
#pragma once
#include "experiments/cell.h"

/* The step of the next decision after `step`; INT64_MAX: there is none. */
int64_t early_stop_next(const Cell *cells, size_t n, int64_t step);

/* How the cells stand at the step, and which of them end there: reasons: (n) empty, appended for
 * those, "step 10: reward 0.12 over 10 steps is number 5 of 8, the best 4 go on (stop.rule
 * halving)". A cell that came to the step takes part, whatever became of it later. Errors: of the
 * store. */
Status early_stop_decide(Text *reasons, Store *store, const Cell *cells, size_t n, int64_t step,
                         Error *error);
