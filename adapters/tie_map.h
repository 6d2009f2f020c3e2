/* Tie rule "map": a JSON file that says of each module in which group it is,
 * {"model.layers.0.self_attn.q_proj": 0, ...}. */
#pragma once
#include "adapters/plan.h"

/* map: (n_modules) malloc'ed, group of each module; groups: how many. Errors: STATUS_REFUSED with
 * the file, the line and the module: named twice, not at all, unknown, not among the modules; a
 * group that is no whole number from 0, or numbers with holes. */
Status tie_map_read(int **map, int *groups, const char *path, const ModelConfig *config,
                    const Module *modules, int n_modules, Error *error);
