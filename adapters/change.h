/* What an adapter does to the weights: W' - W of each module as a product of two thin matrices, or,
 * of "full", the trained weights themselves. What exports, merging and comparisons read. */
#pragma once
#include "adapters/adapter.h"
#include "adapters/factors.h"

/* The modules that the bank adapts, in named_modules order: (n). NULL and n = 0 for full and none.
 */
const Module *adapter_modules(const AdapterBank *bank, int *n);
/* W' - W = b a of a module, index of adapter_modules, as adapter_set left it: s is in b.
 * a: (rank, n_in)   b: (n_out, rank)   rank: adapter_spec(bank)->plan.rank */
void adapter_product(const AdapterBank *bank, int adapter, int module, float *a, float *b);

const Model *adapter_model(const AdapterBank *bank);

/* The frozen parts of a module. */
typedef struct {
    const Factors *factors;  /* tinylora, lora-xs */
    const float *projection; /* P: (u, rank, rank); NULL but for tinylora */
    int u, group;            /* tinylora */
} AdapterFrozen;
/* false where the method has none. */
bool adapter_frozen(const AdapterBank *bank, int module, AdapterFrozen *frozen);

/* W' - W of any one matrix of the model, row by row. */
typedef struct {
    int n_out, n_in, rank;
    float *a, *b;         /* rank > 0: owned */
    double *row;          /* (n_in) */
    const float *trained; /* full: (n_out, n_in) W' in v */
    const Tensor *base;   /* full: W in the model's file */
    float *base_row;      /* full: (n_in) */
} Change;

/* v: what was set, for full; it must outlive the change. A module that is not adapted has rank 0.
 * Errors: STATUS_FAILED for memory. */
Status change_open(Change *change, const AdapterBank *bank, int adapter, const float *v,
                   Module module, Error *error);
/* (n_in), valid until the next call; NULL: the row does not change. */
const double *change_row(Change *change, int row);
void change_close(Change *change);
