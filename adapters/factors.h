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

/* One matrix, on the calling thread, between svd_begin and svd_end. w: (n_out, n_in). u, s, v of
 * out are malloc'ed here. seed keys the start block. Errors: STATUS_USAGE when rank > min(n_out,
 * n_in); STATUS_FAILED as svd_top. */
Status factors_compute(Factors *out, const float *w, int n_out, int n_in, int rank, uint64_t seed,
                       Error *error);
void factors_release(Factors *factors);

/* All modules of a model, from the cache or computed (then stored atomically); the modules are
 * divided among the threads, and bits do not depend on how many. factors: (n_modules).
 * cache_directory: made when absent; NULL: none. A damaged or foreign cache file is computed anew;
 * a cache that cannot be written is no error. The key is the model's weights_sha256 (the weight's
 * own hash while model_identity was not called), module, shape, rank and algorithm. progress may be
 * called from any thread, one at a time. Errors: as factors_compute, with the module's name. */
Status factors_open(Factors *factors, const Model *model, const Module *modules, int n_modules,
                    int rank, int n_threads, const char *cache_directory,
                    void (*progress)(void *, int, int), void *progress_context, Error *error);
