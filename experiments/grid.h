/* The cells of a sweep: grid after grid, in each the cartesian product of the axes in the order
 * given, the last axis fastest. */
#pragma once
#include "experiments/config.h"

enum { MAX_CELLS = 10000 };

/* 1 without a sweep. Errors: STATUS_USAGE above MAX_CELLS. */
Status grid_count(size_t *n, const Config *config, Error *error);
/* spec: cell i, settled and checked. Errors: STATUS_USAGE naming the cell. */
Status grid_cell(RunSpec *spec, const Config *config, size_t i, Error *error);
/* Append what tells cell i, whose settings are spec, from its neighbours: "optimizer.lr=0.0001
 * seed=2", "adapter={...}" of an axis of groups; nothing without a sweep. */
void grid_label(const Config *config, const RunSpec *spec, size_t i, Text *out);
