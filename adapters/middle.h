/* The hook of methods that train a small matrix between frozen factors: y += U M V^T x, M (rank,
 * rank), one a module and adapter. What M is made of, and whose gradient is read from M's, is the
 * method's. Inside this folder only. */
#pragma once
#include "adapters/factors.h"
#include "adapters/method.h"

typedef struct {
    int rank, n_adapters, n_modules, n_layers;
    const Module *modules; /* (n_modules) the caller's */
    Factors *factors;      /* (n_modules) */
    int n_slots, *slot;    /* (n_slots = n_layers * N_ROLES) index in modules, or -1 */
    float *core;           /* M: (n_adapters, n_modules, rank, rank) */
    float *turned;         /* M^T, the same shape */
    bool *active;          /* (n_adapters, n_modules): M has a nonzero */
    double *sum;           /* dM over sequences: (n_adapters, n_modules, rank, rank) */
    bool ordered;          /* the hook's: gradients are summed in the backward itself */
    double *partial;       /* not ordered: dM of each span of a backward: (n_spans, n_modules, rank,
                            * rank) */
    size_t n_partial;      /* doubles it can hold */
    float *rows;           /* ordered: U^T dy of all rows of a backward: (rows, rank) */
    size_t n_rows;         /* floats it can hold */
} Middle;

/* Factors of the modules, found or computed; all M are 0. hook: filled in; its context is m, which
 * must not move. modules: must outlive m. On an error middle_release is still called. Errors: as
 * factors_open. */
Status middle_open(Middle *m, LinearHook *hook, const Model *model, const Module *modules,
                   int n_modules, int rank, int n_adapters, const AdapterSetup *setup,
                   Error *error);
void middle_release(Middle *m);
/* values: M of a module (rank, rank). */
void middle_set(Middle *m, int adapter, int module, const float *values);
/* W' - W = b a: a = V^T (rank, n_in), b = U M (n_out, rank), summed in double and rounded. */
void middle_product(const Middle *m, int adapter, int module, float *a, float *b);
/* dM = sum of (U^T dy) (V^T x)^T since the last clear: (rank, rank). */
const double *middle_gradient(const Middle *m, int adapter, int module);
void middle_clear(Middle *m);
/* As adapter_shared_layers. */
int middle_shared_layers(const Middle *m, int a, int b);
