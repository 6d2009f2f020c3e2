/* Block Krylov iteration on a tall matrix M (m x n, m >= n): W itself or its transpose. */
#include "adapters/svd.h"

#include <lapacke.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/blas.h"
#include "core/random.h"

enum {
    OVERSAMPLING = 14, /* block = rank + this */
    POWER_STEPS = 6,   /* blocks of a Krylov space */
    MAX_RESTARTS = 20,
    MAX_PASSES = 6 /* of orthogonalisation */
};
/* A residual below GAP_PART of the gap to the nearest singular value bounds the angle by that part;
 * below FLOOR_PART of the largest singular value it is rounding. */
static const float GAP_PART = 2e-4f, FLOOR_PART = 2e-6f;

typedef struct {
    const float *w; /* row-major W, that is column-major W^T with leading dimension ld */
    int m, n, ld;
    bool transposed; /* M = (column-major view)^T = W */
} Tall;

/* y (m, k) = M x (n, k), all column-major. */
static void multiply(float *y, const Tall *a, const float *x, int k)
{
    blas_gemm(a->transposed, false, a->m, k, a->n, 1, a->w, a->ld, x, a->n, 0, y, a->m);
}

/* x (n, k) = M^T y (m, k). */
static void multiply_transposed(float *x, const Tall *a, const float *y, int k)
{
    blas_gemm(!a->transposed, false, a->n, k, a->m, 1, a->w, a->ld, y, a->m, 0, x, a->n);
}

/* Replace the columns of a (rows, k) by an orthonormal basis; r (k, k) gets the triangle when not
 * NULL. */
static bool orthonormalise(float *a, int rows, int k, float *r, float *tau)
{
    if (LAPACKE_sgeqrf(LAPACK_COL_MAJOR, rows, k, a, rows, tau)) {
        return false;
    }
    for (int j = 0; r && j < k; j++) {
        for (int i = 0; i < k; i++) {
            r[(size_t)j * k + i] = i <= j ? a[(size_t)j * rows + i] : 0;
        }
    }
    return LAPACKE_sorgqr(LAPACK_COL_MAJOR, rows, k, k, a, rows, tau) == 0;
}

/* Make block (n, b) orthonormal, and orthogonal to basis (n, k): projected until a pass finds next
 * to nothing, which is the second (Kahan: twice is enough) unless the space is exhausted. */
static bool extend_basis(float *block, const float *basis, int n, int k, int b, float *inner,
                         float *tau)
{
    float found = 1;
    for (int pass = 0; pass < MAX_PASSES && found > 0.01f; pass++) {
        blas_gemm(true, false, k, b, n, 1, basis, n, block, n, 0, inner, k);
        blas_gemm(false, false, n, b, k, -1, basis, n, inner, k, 1, block, n);
        if (!orthonormalise(block, n, b, NULL, tau)) {
            return false;
        }
        found = pass == 0 ? 1 : 0;
        for (size_t i = 0; pass > 0 && i < (size_t)k * b; i++) {
            found = fmaxf(found, fabsf(inner[i]));
        }
    }
    return true;
}

/* Are the residuals |M^T left_j - s_j right_j| of the first `rank` triplets small enough? x:
 * scratch (n, rank). */
static bool converged(const Tall *a, const float *left, const float *s, const float *right,
                      int rank, int n_known, float *x)
{
    multiply_transposed(x, a, left, rank);
    for (int j = 0; j < rank; j++) {
        double sum = 0;
        for (int i = 0; i < a->n; i++) {
            size_t at = (size_t)j * a->n + i;
            double difference = (double)x[at] - (double)s[j] * (double)right[at];
            sum += difference * difference;
        }
        float gap = s[0];
        for (int i = 0; i < n_known; i++) {
            if (i != j) {
                gap = fminf(gap, fabsf(s[i] - s[j]));
            }
        }
        if (sqrt(sum) > (double)fmaxf(GAP_PART * gap, FLOOR_PART * s[0])) {
            return false;
        }
    }
    return true;
}

typedef struct {
    int block, width;    /* b columns a step, POWER_STEPS * b in all */
    float *basis;        /* (n, width) */
    float *image;        /* (m, width) = M basis */
    float *q;            /* (m, width) orthonormal basis of the image */
    float *r, *a, *bt;   /* (width, width) */
    float *s, *tau;      /* (width) */
    float *left, *right; /* (m, block), (n, block) */
    float *memory;
} Krylov;

static Status krylov_init(Krylov *k, const Tall *tall, int rank, Error *error)
{
    size_t m = (size_t)tall->m, n = (size_t)tall->n;
    k->block = rank + OVERSAMPLING;
    k->width = POWER_STEPS * k->block;
    size_t b = (size_t)k->block, width = (size_t)k->width;
    size_t total = (n + 2 * m + 3 * width + 2) * width + (m + n) * b;
    float *next = k->memory = malloc(total * sizeof(float));
    if (next == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for singular vectors: %.1f GiB",
                         (double)total * sizeof(float) / 0x1p30);
    }
    k->basis = next, next += n * width;
    k->image = next, next += m * width;
    k->q = next, next += m * width;
    k->r = next, next += width * width;
    k->a = next, next += width * width;
    k->bt = next, next += width * width;
    k->s = next, next += width;
    k->tau = next, next += width;
    k->left = next, next += m * b;
    k->right = next;
    return STATUS_OK;
}

/* Grow the space from its first block, then left, s, right become its best `block` triplets. */
static bool krylov_cycle(Krylov *k, const Tall *t)
{
    int b = k->block, width = k->width;
    size_t m = (size_t)t->m, n = (size_t)t->n;
    for (int step = 0; step < POWER_STEPS; step++) {
        float *block = k->basis + (size_t)step * b * n, *image = k->image + (size_t)step * b * m;
        if (step > 0) {
            multiply_transposed(block, t, image - (size_t)b * m, b);
            if (!extend_basis(block, k->basis, t->n, step * b, b, k->a, k->tau)) {
                return false;
            }
        }
        multiply(image, t, block, b);
    }
    memcpy(k->q, k->image, m * width * sizeof *k->q);
    if (!orthonormalise(k->q, t->m, width, k->r, k->tau) ||
        LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', width, width, k->r, width, k->s, k->a, width, k->bt,
                       width)) {
        return false;
    }
    blas_gemm(false, false, t->m, b, width, 1, k->q, t->m, k->a, width, 0, k->left, t->m);
    blas_gemm(false, true, t->n, b, width, 1, k->basis, t->n, k->bt, width, 0, k->right, t->n);
    return true;
}

static Status top_by_krylov(float *left, float *s, float *right, const Tall *t, int rank,
                            uint64_t seed, Error *error)
{
    Krylov k = {0};
    Status status = krylov_init(&k, t, rank, error);
    if (status != STATUS_OK) {
        return status;
    }
    size_t m = (size_t)t->m, n = (size_t)t->n;
    RandomKey key = {seed, RANDOM_SVD};
    for (int j = 0; j < k.block; j++) {
        for (int i = 0; i < t->n; i++) {
            k.right[(size_t)j * n + i] = (float)random_normal(key, (uint32_t)j, (uint32_t)i, 0, 0);
        }
    }
    bool good = true, done = false;
    for (int restart = 0; good && !done && restart < MAX_RESTARTS; restart++) {
        memcpy(k.basis, k.right, n * k.block * sizeof *k.basis);
        good = orthonormalise(k.basis, t->n, k.block, NULL, k.tau) && krylov_cycle(&k, t);
        done = good && converged(t, k.left, k.s, k.right, rank, k.block, k.basis);
    }
    if (good) {
        memcpy(left, k.left, m * rank * sizeof *left);
        memcpy(right, k.right, n * rank * sizeof *right);
        memcpy(s, k.s, (size_t)rank * sizeof *s);
    } else {
        status = error_set(error, STATUS_FAILED, "LAPACK found no singular vectors (%d x %d)", t->m,
                           t->n);
    }
    free(k.memory);
    return status;
}

/* The whole decomposition of a small matrix. */
static Status top_by_lapack(float *left, float *s, float *right, const Tall *t, int rank,
                            Error *error)
{
    size_t m = (size_t)t->m, n = (size_t)t->n;
    float *a = malloc((2 * m + n + 1) * n * sizeof *a);
    if (a == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for singular vectors: %.1f GiB",
                         (double)((2 * m + n) * n) * sizeof(float) / 0x1p30);
    }
    float *u = a + m * n, *vt = u + m * n, *values = vt + n * n;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            a[j * m + i] = t->transposed ? t->w[i * n + j] : t->w[j * m + i];
        }
    }
    Status status = STATUS_OK;
    if (LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', t->m, t->n, a, t->m, values, u, t->m, vt, t->n)) {
        status = error_set(error, STATUS_FAILED, "LAPACK found no singular vectors (%d x %d)", t->m,
                           t->n);
    } else {
        memcpy(left, u, m * rank * sizeof *left);
        memcpy(s, values, (size_t)rank * sizeof *s);
        for (size_t j = 0; j < (size_t)rank; j++) {
            for (size_t i = 0; i < n; i++) {
                right[j * n + i] = vt[i * n + j];
            }
        }
    }
    free(a);
    return status;
}

static double norm(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sqrt(sum);
}

/* s_j = |M right_j| / |right_j|, summed in double: takes the rounding of the small problem out of
 * s. */
static Status refine_values(float *s, const Tall *t, const float *right, int rank, Error *error)
{
    float *image = malloc((size_t)t->m * rank * sizeof *image);
    if (image == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for singular values");
    }
    multiply(image, t, right, rank);
    for (int j = 0; j < rank; j++) {
        s[j] = (float)(norm(image + (size_t)j * t->m, t->m) / norm(right + (size_t)j * t->n, t->n));
        s[j] = j > 0 && s[j] > s[j - 1] ? s[j - 1] : s[j];
    }
    free(image);
    return STATUS_OK;
}

/* Flip (u_j, v_j) so that the first entry of v_j of largest size is positive. */
static void fix_signs(float *u, float *v, int n_out, int n_in, int rank)
{
    for (int j = 0; j < rank; j++, u += n_out, v += n_in) {
        int largest = 0;
        for (int i = 1; i < n_in; i++) {
            largest = fabsf(v[i]) > fabsf(v[largest]) ? i : largest;
        }
        if (v[largest] < 0) {
            for (int i = 0; i < n_in; i++) {
                v[i] = -v[i];
            }
            for (int i = 0; i < n_out; i++) {
                u[i] = -u[i];
            }
        }
    }
}

Status svd_top(float *u, float *s, float *v, const float *w, int n_out, int n_in, int rank,
               uint64_t seed, Error *error)
{
    for (size_t i = 0; i < (size_t)n_out * n_in; i++) {
        if (!isfinite(w[i])) {
            return error_set(error, STATUS_FAILED, "weight (%zu, %zu) is not a finite number",
                             i / (size_t)n_in, i % (size_t)n_in);
        }
    }
    bool tall = n_out >= n_in;
    Tall t = {w, tall ? n_out : n_in, tall ? n_in : n_out, n_in, tall};
    float *left = tall ? u : v, *right = tall ? v : u;
    Status status = t.n <= POWER_STEPS * (rank + OVERSAMPLING)
                        ? top_by_lapack(left, s, right, &t, rank, error)
                        : top_by_krylov(left, s, right, &t, rank, seed, error);
    if (status == STATUS_OK) {
        status = refine_values(s, &t, right, rank, error);
    }
    if (status == STATUS_OK) {
        fix_signs(u, v, n_out, n_in, rank);
    }
    return status;
}

int svd_begin(void)
{
    return blas_set_threads(1);
}

void svd_end(int n_threads)
{
    blas_set_threads(n_threads);
}
