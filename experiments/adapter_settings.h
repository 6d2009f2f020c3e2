/* The settings of adapter.*: presets of other tools, the rules between settings, and what adapters/
 * wants of them. */
#pragma once
#include "adapters/adapter.h"
#include "experiments/settings.h"

/* Defaults of the preset for what is not given, then the rules between the settings that need no
 * model. Errors: STATUS_USAGE with the key. */
Status adapter_settle(RunSpec *spec, Error *error);

/* The plan that the settings choose; plan->map is malloc'ed where the tie rule is map, else NULL.
 * Errors: STATUS_USAGE with the key, STATUS_REFUSED for the map's file. */
Status cell_plan(Plan *plan, const RunSpec *spec, const ModelConfig *model, Error *error);
/* What adapter_bank_new wants; spec gets the plan's u, groups, grouping and budget, and the map's
 * hash and whole path. Released by adapter_spec_release, after an error too. */
Status cell_adapter(AdapterSpec *adapter, RunSpec *spec, const ModelConfig *model, Error *error);
void adapter_spec_release(AdapterSpec *adapter);
