/* When a run ends before its steps are done: its own rules (settings stop.*). They are asked of
 * what is stored, so that they hold at the same step after any interruption. */
#pragma once
#include "experiments/settings.h"
#include "results/store.h"

/* reason: appended where a rule holds after the step: "step 12: the reward was below 0.1 for 5
 * steps (stop.reward_below)". Errors: of the store. */
Status stop_rules_ask(Text *reason, Store *store, const RunSpec *spec, const char *run_id,
                      int64_t step, Error *error);
