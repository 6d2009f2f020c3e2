/* The top singular triplets of one matrix. The only room of LAPACK. */
#pragma once
#include <stdint.h>

#include "core/status.h"

/* W ~ sum_j s_j u_j v_j^T, the `rank` largest. Randomised subspace iteration with oversampling
 * whose power steps keep what they have seen: a block Krylov space, orthonormalised at each step
 * and restarted from its best vectors until the residuals are small against the gaps between
 * singular values (Halko, Martinsson, Tropp 2011, alg. 4.4; Musco and Musco 2015, alg. 2). Small
 * matrices go to LAPACK whole. Single precision; a function of (w, rank, seed) and of OpenBLAS's
 * kernels, not of threads: call between svd_begin and svd_end. u: (rank, n_out)   s: (rank)
 * descending   v: (rank, n_in)   w: (n_out, n_in)   1 <= rank <= min(n_out, n_in) Signs: the entry
 * of v_j of largest size, the first such, is positive. Errors: STATUS_FAILED: memory (how many
 * GiB), a weight that is not finite, LAPACK's failure to converge. */
Status svd_top(float *u, float *s, float *v, const float *w, int n_out, int n_in, int rank,
               uint64_t seed, Error *error);

/* OpenBLAS computes on the caller's thread alone from svd_begin, which returns the number of
 * threads that it had, to svd_end(that number). */
int svd_begin(void);
void svd_end(int n_threads);
