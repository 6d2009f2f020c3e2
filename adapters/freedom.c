/* Closed forms, and the rank of matrices of signs. */
#include "adapters/freedom.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Matrices of signs with a side above this are of full rank: that two of k rows of length n agree
 * up to sign, by far the likeliest way to lose one, has a probability below k^2 2^-n. */
enum { SMALL_SIDE = 64 };
static const double ZERO_PIVOT = 1e-9; /* pivots of small matrices of signs are far from it */

/* Rank by elimination with full pivoting; a: (n_rows, n_columns) is used up. */
static int rank_of(double *a, int n_rows, int n_columns)
{
    int rank = 0;
    for (; rank < n_rows && rank < n_columns; rank++) {
        int row = rank, column = rank;
        for (int i = rank; i < n_rows; i++) {
            for (int j = rank; j < n_columns; j++) {
                if (fabs(a[i * n_columns + j]) > fabs(a[row * n_columns + column])) {
                    row = i;
                    column = j;
                }
            }
        }
        if (fabs(a[row * n_columns + column]) < ZERO_PIVOT) {
            break;
        }
        for (int j = 0; j < n_columns; j++) {
            double swap = a[row * n_columns + j];
            a[row * n_columns + j] = a[rank * n_columns + j];
            a[rank * n_columns + j] = swap;
        }
        for (int i = 0; i < n_rows; i++) {
            double swap = a[i * n_columns + column];
            a[i * n_columns + column] = a[i * n_columns + rank];
            a[i * n_columns + rank] = swap;
        }
        for (int i = rank + 1; i < n_rows; i++) {
            double factor = a[i * n_columns + rank] / a[rank * n_columns + rank];
            for (int j = rank; j < n_columns; j++) {
                a[i * n_columns + j] -= factor * a[rank * n_columns + j];
            }
        }
    }
    return rank;
}

/* The rank of one group's map, from its P. wanted: the group; size: its modules, 1 where P is
 * shared. */
static Status rank_of_group(int *rank, const Plan *plan, const Module *modules, const int *group,
                            int wanted, int size, Error *error)
{
    int square = plan->rank * plan->rank, n_rows = size * square, u = plan->u, n = 0;
    float *p = malloc((size_t)u * square * sizeof *p);
    double *a = calloc((size_t)n_rows * u, sizeof *a);
    Status status = STATUS_OK;
    if (p == NULL || a == NULL) {
        status = error_set(error, STATUS_FAILED, "no memory for the rank of a plan");
    }
    for (int m = 0; m < plan->n_modules && n < size && status == STATUS_OK; m++) {
        if (group[m] != wanted) {
            continue;
        }
        char name[96];
        module_name(name, modules[m].layer, modules[m].role);
        status = projection_fill(p, &plan->projection, name, u, plan->rank, error);
        for (int i = 0; i < u && status == STATUS_OK; i++) {
            for (int e = 0; e < square; e++) { /* signs: of one size, which does not matter */
                a[(n * square + e) * u + i] = p[i * square + e] < 0 ? -1 : 1;
            }
        }
        n++;
    }
    if (status == STATUS_OK) {
        *rank = rank_of(a, n_rows, u);
    }
    free(p);
    free(a);
    return status;
}

Status plan_freedom(int *freedom, const Plan *plan, const Module *modules, const int *group,
                    Error *error)
{
    bool shared = plan->projection.shared;
    bool signs = plan->projection.law == PROJECTION_RADEMACHER ||
                 (plan->projection.law == PROJECTION_ORTHONORMAL && plan->rank == 1);
    int *size = calloc((size_t)plan->groups, sizeof *size);
    if (size == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for %d groups", plan->groups);
    }
    for (int m = 0; m < plan->n_modules; m++) {
        size[group[m]]++;
    }
    long sum = 0;
    int rank = 0;
    Status status = STATUS_OK;
    for (int g = 0; g < plan->groups && status == STATUS_OK; g++) {
        int n = shared ? 1 : size[g];
        long space = (long)plan->rank * plan->rank * n;
        bool small = space <= SMALL_SIDE && plan->u <= SMALL_SIDE;
        if (!signs || !small) {
            rank = (int)(plan->u < space ? plan->u : space);
        } else if (!shared || g == 0) { /* shared: all groups are as the first */
            status = rank_of_group(&rank, plan, modules, group, g, n, error);
        }
        sum += rank;
    }
    free(size);
    *freedom = (int)sum;
    return status;
}
