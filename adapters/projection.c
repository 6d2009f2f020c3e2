/* The laws of P. */
#include "adapters/projection.h"

#include <math.h>
#include <stdlib.h>

#include "core/random.h"

const char *const projection_law_names[] = {"gauss", "gauss_unit", "rademacher", "orthonormal",
                                            NULL};

static double draw(ProjectionLaw law, RandomKey key, uint32_t i, uint32_t j, uint32_t k,
                   double deviation)
{
    uint32_t words[4];
    switch (law) {
    case PROJECTION_GAUSS_UNIT:
        return random_normal(key, i, j, k, 0);
    case PROJECTION_RADEMACHER:
        random_words(words, key, i, j, k, 0);
        return words[0] & 1 ? deviation : -deviation;
    case PROJECTION_GAUSS:
    case PROJECTION_ORTHONORMAL:
        break;
    }
    return random_normal(key, i, j, k, 0) * deviation;
}

/* Make a: (n) orthogonal to the rows of basis: (n_rows, n), twice for what rounding left, and of
 * length 1. */
static void orthonormalise(double *a, const double *basis, size_t n_rows, size_t n)
{
    for (int round = 0; round < 2; round++) {
        for (size_t b = 0; b < n_rows; b++) {
            double product = 0;
            for (size_t e = 0; e < n; e++) {
                product += a[e] * basis[b * n + e];
            }
            for (size_t e = 0; e < n; e++) {
                a[e] -= product * basis[b * n + e];
            }
        }
    }
    double square = 0;
    for (size_t e = 0; e < n; e++) {
        square += a[e] * a[e];
    }
    for (size_t e = 0; e < n; e++) {
        a[e] /= sqrt(square);
    }
}

Status projection_fill(float *p, const Projection *projection, const char *module, int u, int rank,
                       Error *error)
{
    RandomKey key = {random_seed_for(projection->seed, projection->shared ? "" : module),
                     RANDOM_PROJECTION};
    double deviation = 1 / sqrt((double)rank);
    bool orthonormal = projection->law == PROJECTION_ORTHONORMAL;
    size_t n = (size_t)rank * rank, block = (size_t)u < n ? (size_t)u : n;
    double *rows = malloc((orthonormal ? block : 1) * n * sizeof *rows);
    if (rows == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for a P of rank %d", rank);
    }
    for (size_t i = 0; i < (size_t)u; i++) {
        double *row = rows + (orthonormal ? i % block * n : 0);
        for (size_t e = 0; e < n; e++) {
            row[e] = draw(projection->law, key, (uint32_t)i, (uint32_t)(e / (size_t)rank),
                          (uint32_t)(e % (size_t)rank), deviation);
        }
        if (orthonormal) {
            orthonormalise(row, rows, i % block, n);
        }
        for (size_t e = 0; e < n; e++) {
            p[i * n + e] = (float)row[e];
        }
    }
    free(rows);
    return STATUS_OK;
}
