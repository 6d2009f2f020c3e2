/* Top-r singular triplets of the adapted weights (adapters/svd.h), f32, cached on disk under a
 * hash. The weights are read from the mapped file, one after another; a packed model is not needed.
 */
#pragma once
#include "adapters/plan.h"
#include "adapters/svd.h"
#include "core/model.h"

typedef struct {
    int n_out, n_in, rank;
    float *u; /* (rank, n_out) rows are left singular vectors; sign rule: the entry of v of largest
               * size is positive (the first such), u follows */
    float *s; /* (rank) descending */
    float *v; /* (rank, n_in) */
} Factors;

/* One matrix, on the calling thread, between svd_begin and svd_end. u, s, v of out are malloc'ed
 * here. seed keys the start block. stop: NULL: never. Errors: STATUS_USAGE when rank > min(n_out,
 * n_in); STATUS_REFUSED for a number that is not finite; STATUS_FAILED, STATUS_STOPPED as svd_top.
 */
Status factors_compute(Factors *out, const Weight *w, int rank, uint64_t seed, const SvdStop *stop,
                       Error *error);
void factors_release(Factors *factors);

/* All modules of a model, from the cache or computed (then stored atomically); the modules are
 * divided among the threads, and bits do not depend on how many. factors: (n_modules).
 * cache_directory: made when absent; NULL: none. A damaged or foreign cache file is computed anew;
 * a cache that cannot be written is no error. The key is what the factors are a function of: the
 * SHA-256 of the weight's bytes in the file, type, shape, rank, algorithm and OpenBLAS's kernels:
 * whoever computes them, for whichever model, finds the same file. progress may be called from any
 * thread, one at a time. Errors: as factors_compute, with the module's name. */
Status factors_open(Factors *factors, const Model *model, const Module *modules, int n_modules,
                    int rank, int n_threads, const char *cache_directory,
                    void (*progress)(void *, int, int), void *progress_context, Error *error);

/* The same to fill the cache: in the order of the file, each weight read once and its pages given
 * back, nothing kept. Memory: a thread has one weight in its pages and what svd_top needs. */
typedef struct {
    const SafeTensors *file; /* of a model of `config` */
    const ModelConfig *config;
    const Module *modules; /* (n_modules) */
    int n_modules, rank, n_threads;
    const char *cache_directory;
    bool (*stopping)(void *context); /* asked from any thread */
    /* Calls one at a time from any thread: before a module, and with its factors. */
    void (*started)(void *context, int module);
    void (*finished)(void *context, int module, const Factors *factors, bool cached);
    void *context;
} FactorsStream;
/* Errors: as factors_open, and STATUS_FAILED when the cache cannot be written; STATUS_STOPPED when
 * asked to. The modules finished so far are in the cache. */
Status factors_stream(const FactorsStream *stream, Error *error);
