/* Top-r singular triplets of the adapted weights: randomised subspace iteration with oversampling
 * and power steps (Halko, Martinsson, Tropp 2011, alg. 4.4), f32 storage, LAPACK for the small
 * problem; cached on disk under a hash. */
#pragma once
#include "adapters/plan.h"
#include "core/model.h"

typedef struct {
    int n_out, n_in, rank;
    float *u; /* (rank, n_out) rows are left singular vectors; sign rule: the entry of v of largest
               * size is positive (the first such), u follows */
    float *s; /* (rank) descending */
    float *v; /* (rank, n_in) */
} Factors;

/* One matrix. w: (n_out, n_in). u, s, v of out are malloc'ed here. seed keys the start block.
 * Errors: STATUS_USAGE when rank > min(n_out, n_in); STATUS_FAILED. */
Status factors_compute(Factors *out, const float *w, int n_out, int n_in, int rank, uint64_t seed,
                       int n_threads, Error *error);
void factors_release(Factors *factors);

/* All modules of a model, from the cache or computed (then stored atomically). factors:
 * (n_modules). */
Status factors_open(Factors *factors, const Model *model, const Module *modules, int n_modules,
                    int rank, int n_threads, const char *cache_directory,
                    void (*progress)(void *, int, int), void *progress_context, Error *error);
