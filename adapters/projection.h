/* P: the frozen random matrices that v mixes, R = sum_i v_i P_i. A pure function of (law, seed,
 * module's name); the paper says "fixed random matrices" and no more. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

/* gauss: N(0, 1/r).   gauss_unit: N(0, 1).   rademacher: +-1/sqrt(r), a fair coin each.
 * orthonormal: the first r^2 matrices of a module are orthonormal in the Frobenius product (an
 * even rotation of all bases), and so is each following block of r^2: as many as there are
 * directions, then once more round. */
typedef enum {
    PROJECTION_GAUSS,
    PROJECTION_GAUSS_UNIT,
    PROJECTION_RADEMACHER,
    PROJECTION_ORTHONORMAL
} ProjectionLaw;
extern const char *const projection_law_names[]; /* in the enum's order, ended by NULL */

typedef struct {
    ProjectionLaw law;
    bool shared; /* every module has the same P */
    uint64_t seed;
} Projection;

/* P of one module. Element (i, j, k) is drawn at counter (i, j, k, 0) under the key
 * (random_seed_for(seed, module), RANDOM_PROJECTION), shared: of the empty name; rademacher: the
 * lowest bit of the first word, 1 is +. orthonormal: Gram-Schmidt over those of gauss in the order
 * of i, in double, each block from its first.
 * p: (u, rank, rank). Errors: STATUS_FAILED for memory. */
Status projection_fill(float *p, const Projection *projection, const char *module, int u, int rank,
                       Error *error);
