/* The top singular triplets of one matrix. The only room of LAPACK. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "adapters/gram.h"
#include "core/status.h"

/* Asked between products, some of which take a second on a large matrix; ask: NULL: never. */
typedef struct {
    bool (*ask)(void *context);
    void *context;
} SvdStop;

/* W ~ sum_j s_j u_j v_j^T, the `rank` largest. A block Krylov space of W^T W from a random start,
 * kept orthonormal, which grows until the residuals of its Ritz vectors are small against the gaps
 * between singular values, and starts again from the best of them when it is full (Halko,
 * Martinsson, Tropp 2011, alg. 4.4; Musco and Musco 2015, alg. 2; Golub and Underwood 1977); a last
 * Rayleigh-Ritz step on W itself, whose true residuals decide. Small matrices go to LAPACK whole.
 * Single precision, the small problems in double; a function of (w, rank, seed) and of OpenBLAS's
 * kernels, not of threads: call between svd_begin and svd_end.
 * u: (rank, n_out)   s: (rank) descending   v: (rank, n_in)   1 <= rank <= min(n_out, n_in)
 * Signs: the entry of v_j of largest size, the first such, is positive.
 * w: its numbers are finite.
 * Errors: STATUS_FAILED: memory (how many GiB), LAPACK's failure; STATUS_STOPPED when asked to. */
Status svd_top(float *u, float *s, float *v, const Weight *w, int rank, uint64_t seed,
               const SvdStop *stop, Error *error);

/* OpenBLAS computes on the caller's thread alone from svd_begin, which returns the number of
 * threads that it had, to svd_end(that number). */
int svd_begin(void);
void svd_end(int n_threads);
