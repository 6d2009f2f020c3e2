/* Cells that run as one: they share model, adapter plan, method and data, and advance in lockstep
 * over one read of the weights. Invariants:
 * 1. What is stored of a cell is what it would have stored alone (the one law).
 * 2. A step is committed for all cells of the batch in one transaction, whole or not at all.
 * 3. What is to be done next is decided from the stored state alone (step, evaluations), never from
 * what this process did before: a run killed at any instant goes on where it was. */
#pragma once
#include "experiments/cell.h"
#include "experiments/workbench.h"
#include "results/store.h"

enum { FUSION_MAX = 32 };

typedef struct Fusion Fusion;

/* May b join a's batch? */
bool fusion_fits(const Cell *a, const Cell *b);
/* Cells that may be in one batch: 1 for methods that change the weights themselves, fewer of large
 * adapters. */
size_t fusion_limit(const Cell *cell);

/* Open everything: model, tasks, factors, learners. Nothing is written, so that what is refused is
 * refused before. cells: (n) outlive it. progress: shared counters, may be shown while factors are
 * computed. */
Status fusion_open(Fusion **fusion, Workbench *bench, Cell **cells, size_t n, Progress *progress,
                   Error *error);
/* Ask `watch` whenever a step of cells of the batch is stored whole, its evaluations among it,
 * before the next one begins (step 0: the start). An error of it ends fusion_run. */
void fusion_watch(Fusion *fusion, Status (*watch)(void *context, int64_t step, Error *error),
                  void *context);
/* Run the cells to their ends, or until each has done so many steps (INT64_MAX: all) and its
 * evaluations before; their states and last steps are kept up to date. A cell that fails is
 * recorded and the others go on (STATUS_OK). Errors: STATUS_STOPPED; STATUS_FAILED (store, memory).
 */
Status fusion_run(Fusion *fusion, Store *store, int64_t until, Error *error);
void fusion_close(Fusion *fusion);
