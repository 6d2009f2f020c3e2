/* Block Lanczos on W^T W, one read of W a step. Blocks of vectors lie by columns. */
#include "adapters/svd.h"

#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/blas.h"
#include "core/random.h"

enum {
    OVERSAMPLING = 6,   /* block: rank + this, rounded up to groups of 8 */
    LAPACK_BLOCKS = 16, /* a matrix of fewer blocks is LAPACK's whole: as fast */
    MAX_WIDTH = 480,    /* columns of a Krylov space, but at least MIN_STEPS blocks */
    MIN_STEPS = 8,
    MAX_RESTARTS = 20,
    MAX_PASSES = 6 /* of orthogonalisation */
};
/* How far a direction may be off by its residual; a residual below FLOOR_PART of the largest
 * singular value is rounding. */
static const double ANGLE = 2e-4, FLOOR_PART = 5e-7;
/* Between these the fourth powers of numbers fit in single precision: what is beyond is LAPACK's.
 */
static const float SMALLEST = 1e-8f, LARGEST = 1e8f;
/* A pivot of Cholesky's method below this part of its column: Householder's is the better one. */
static const double PIVOT_PART = 1e-4;

typedef struct {
    const Weight *w;
    size_t m, n;      /* n_out, n_in */
    int block, width; /* columns a step, columns of the whole space */
    float *basis;     /* (n, width) orthonormal */
    float *image;     /* (n, block) W^T W of the last block */
    float *ritz;      /* (n, block) the best vectors of the space */
    float *in, *out;  /* (n, block) vectors of a product in groups of 8; scratch between products */
    float *product;   /* (m, block) W of the last block, in groups */
    float *scratch;   /* (n, 8) of the product */
    float *inner;     /* (width, block) */
    double *t;        /* (width, width) basis^T W^T W basis */
    double *small;    /* (width, width) scratch */
    double *vectors;  /* (width, block) eigenvectors of t */
    double *values;   /* (width) */
    double *residuals; /* (block) of the Ritz vectors */
    double *metric;    /* (block, block) */
    bool out_of_range;
} Krylov;

typedef struct {
    char *start; /* NULL: only counts */
    size_t used;
} Arena;

static void *take(Arena *arena, size_t n, size_t size)
{
    void *part = arena->start ? arena->start + arena->used : NULL;
    arena->used += (n * size + 63) / 64 * 64;
    return part;
}

static void lay_out(Krylov *k, Arena *arena)
{
    size_t n = k->n, b = (size_t)k->block, width = (size_t)k->width;
    k->basis = take(arena, n * width, sizeof(float));
    k->image = take(arena, n * b, sizeof(float));
    k->ritz = take(arena, n * b, sizeof(float));
    k->in = take(arena, n * b, sizeof(float));
    k->out = take(arena, n * b, sizeof(float));
    k->product = take(arena, k->m * b, sizeof(float));
    k->scratch = take(arena, n * GRAM_ROWS, sizeof(float));
    k->inner = take(arena, width * b, sizeof(float));
    k->t = take(arena, width * width, sizeof(double));
    k->small = take(arena, width * width, sizeof(double));
    k->vectors = take(arena, width * b, sizeof(double));
    k->values = take(arena, width, sizeof(double));
    k->residuals = take(arena, b, sizeof(double));
    k->metric = take(arena, b * b, sizeof(double));
}

static void choose_space(Krylov *k, const Weight *w, int rank)
{
    int least = w->n_out < w->n_in ? w->n_out : w->n_in;
    int block = (rank + OVERSAMPLING + GRAM_VECTORS - 1) / GRAM_VECTORS * GRAM_VECTORS;
    int steps = MAX_WIDTH / block > MIN_STEPS ? MAX_WIDTH / block : MIN_STEPS;
    steps = steps < least / block ? steps : least / block;
    *k = (Krylov){.w = w,
                  .m = (size_t)w->n_out,
                  .n = (size_t)w->n_in,
                  .block = block,
                  .width = steps * block};
}

/* -- orthonormal blocks ------------------------------------------------------------------------ */

/* a (n, b) by its Gram matrix's Cholesky factor: fast, for columns that are far from dependent.
 * false: they are not; a is untouched. */
static bool orthonormalise_fast(Krylov *k, float *a)
{
    int b = k->block, n = (int)k->n;
    double *g = k->small, *inverse = g + (size_t)b * b;
    float *gram = k->inner;
    blas_gemm(true, false, b, b, n, 1, a, n, a, n, 0, gram, b);
    for (int j = 0; j < b; j++) { /* g = L: lower, by columns */
        for (int i = j; i < b; i++) {
            double sum = (double)gram[j * b + i];
            for (int c = 0; c < j; c++) {
                sum -= g[c * b + i] * g[c * b + j];
            }
            if (i == j && !(sum > PIVOT_PART * (double)gram[j * b + j])) {
                return false;
            }
            g[j * b + i] = i == j ? sqrt(sum) : sum / g[j * b + j];
        }
    }
    memset(inverse, 0, (size_t)b * b * sizeof *inverse);
    for (int j = 0; j < b; j++) { /* of L^T: upper, by columns */
        inverse[j * b + j] = 1 / g[j * b + j];
        for (int i = j - 1; i >= 0; i--) {
            double sum = 0;
            for (int c = i + 1; c <= j; c++) {
                sum += g[i * b + c] * inverse[j * b + c];
            }
            inverse[j * b + i] = -sum / g[i * b + i];
        }
    }
    for (int i = 0; i < b * b; i++) {
        gram[i] = (float)inverse[i];
    }
    memcpy(k->in, a, k->n * (size_t)b * sizeof *a);
    blas_gemm(false, false, n, b, b, 1, k->in, n, gram, b, 0, a, n);
    return true;
}

/* The columns of a (rows, k) become an orthonormal basis of at least what they span, a_j's part in
 * the j-th not negative. */
static bool orthonormalise_householder(float *a, int rows, int k)
{
    float *tau = malloc((size_t)k * 2 * sizeof *tau), *diagonal = tau + k;
    bool good = tau && LAPACKE_sgeqrf(LAPACK_COL_MAJOR, rows, k, a, rows, tau) == 0;
    for (int j = 0; good && j < k; j++) {
        diagonal[j] = a[(size_t)j * rows + j];
    }
    good = good && LAPACKE_sorgqr(LAPACK_COL_MAJOR, rows, k, k, a, rows, tau) == 0;
    for (int j = 0; good && j < k; j++) {
        for (int i = 0; diagonal[j] < 0 && i < rows; i++) {
            a[(size_t)j * rows + i] = -a[(size_t)j * rows + i];
        }
    }
    free(tau);
    return good;
}

/* Make block (n, b) orthonormal, and orthogonal to the first `known` columns of the basis, whose
 * products with it are in `inner` at the start: projected until a pass finds next to nothing, which
 * is the second (Kahan: twice is enough) unless the space is exhausted. */
static bool extend_basis(Krylov *k, float *block, int known)
{
    int b = k->block, n = (int)k->n;
    float found = 1;
    for (int pass = 0; pass < MAX_PASSES && found > 0.01f; pass++) {
        found = pass == 0 ? 1 : 0;
        if (pass > 0 && known > 0) {
            blas_gemm(true, false, known, b, n, 1, k->basis, n, block, n, 0, k->inner, known);
        }
        if (known > 0) {
            blas_gemm(false, false, n, b, known, -1, k->basis, n, k->inner, known, 1, block, n);
        }
        for (size_t i = 0; pass > 0 && i < (size_t)known * b; i++) {
            found = fmaxf(found, fabsf(k->inner[i]));
        }
        if (!orthonormalise_fast(k, block) && !orthonormalise_householder(block, n, b)) {
            return false;
        }
    }
    return true;
}

/* -- the space --------------------------------------------------------------------------------- */

/* product = W x, image = W^T product   x: (n, block) */
static void apply(Krylov *k, const float *x)
{
    size_t n = k->n;
    for (int g = 0; g < k->block; g += GRAM_VECTORS) {
        for (size_t i = 0; i < n; i++) {
            for (size_t v = 0; v < GRAM_VECTORS; v++) {
                k->in[(size_t)g * n + i * GRAM_VECTORS + v] = x[((size_t)g + v) * n + i];
            }
        }
    }
    gram_apply(k->out, k->product, k->in, k->w, k->block / GRAM_VECTORS, k->scratch);
    for (int g = 0; g < k->block; g += GRAM_VECTORS) {
        for (size_t i = 0; i < n; i++) {
            for (size_t v = 0; v < GRAM_VECTORS; v++) {
                k->image[((size_t)g + v) * n + i] = k->out[(size_t)g * n + i * GRAM_VECTORS + v];
            }
        }
    }
}

/* The columns of t that belong to the block at `first`, and their mirror image. */
static void fill_t(Krylov *k, int first)
{
    int b = k->block, n = (int)k->n, known = first + b;
    size_t width = (size_t)k->width;
    blas_gemm(true, false, known, b, n, 1, k->basis, n, k->image, n, 0, k->inner, known);
    for (int j = 0; j < b; j++) {
        for (int i = 0; i < known; i++) {
            double entry = (double)k->inner[(size_t)j * known + i];
            if (i >= first) {
                entry = (entry + (double)k->inner[(size_t)(i - first) * known + first + j]) / 2;
            }
            k->t[((size_t)first + j) * width + i] = entry;
            k->t[(size_t)i * width + first + j] = entry;
        }
    }
}

/* The `block` largest eigenvalues of the leading (known, known) of t, and their vectors. */
static bool solve_t(Krylov *k, int known)
{
    int found, b = k->block;
    size_t width = (size_t)k->width;
    for (int j = 0; j < known; j++) {
        memcpy(k->small + (size_t)j * known, k->t + (size_t)j * width, known * sizeof *k->small);
    }
    lapack_int *support = malloc((size_t)b * 2 * sizeof *support);
    bool good = support && LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'V', 'I', 'U', known, k->small, known,
                                          0, 0, known - b + 1, known, 0, &found, k->values,
                                          k->vectors, known, support) == 0;
    free(support);
    return good;
}

/* Are the first `rank` of `n` Ritz vectors right to ANGLE? squares: Ritz values of W^T W,
 * ascending; residuals: of the vectors, the largest first. Vector i errs by r_i / gap outside the
 * span of the first c, gap being to what lies beyond, and by r_i r_j / (gap gap_ij) towards the
 * j-th of these, which the Rayleigh-Ritz step has separated from it; the best c counts. */
static bool close_enough(const double *squares, const double *residuals, int n, int rank)
{
    double largest = sqrt(fmax(squares[n - 1], 0));
    for (int i = 0; i < rank; i++) {
        double own = squares[n - 1 - i], least = INFINITY;
        double rounding = FLOOR_PART * largest * fmax(sqrt(fmax(own, 0)), FLOOR_PART * largest);
        for (int c = i + 1; c < n; c++) {
            double gap = own - squares[n - 1 - c] - residuals[c], angle = residuals[i] / gap;
            for (int j = 0; j < c; j++) {
                double between = fabs(own - squares[n - 1 - j]);
                angle = j == i ? angle : fmax(angle, residuals[i] / gap * residuals[j] / between);
            }
            least = gap > 0 && angle < least ? angle : least;
        }
        if (least > ANGLE && residuals[i] > rounding) {
            return false;
        }
    }
    return true;
}

/* Will the first `rank` Ritz vectors do? next: (n, block) the block after the last. */
static bool looks_converged(Krylov *k, const float *next, int known, int rank)
{
    int b = k->block, n = (int)k->n;
    blas_gemm(true, false, b, b, n, 1, next, n, k->image, n, 0, k->inner, b);
    for (int j = 0; j < b; j++) {
        const double *end = k->vectors + (size_t)(b - 1 - j) * known + (known - b);
        double square = 0;
        for (int i = 0; i < b; i++) {
            double sum = 0;
            for (int c = 0; c < b; c++) {
                sum += (double)k->inner[c * b + i] * end[c];
            }
            square += sum * sum;
        }
        k->residuals[j] = sqrt(square);
    }
    return close_enough(k->values, k->residuals, b, rank);
}

/* Small problems cost as much as a product: not after each step. */
static bool is_due(int step)
{
    return step <= 12 ? step >= 3 : step <= 24 ? step % 2 == 0 : step % 4 == 0;
}

/* ritz (n, block) = basis vectors, the largest first. */
static void combine(Krylov *k, int known)
{
    int b = k->block, n = (int)k->n;
    for (int j = 0; j < b; j++) {
        for (int i = 0; i < known; i++) {
            k->inner[(size_t)j * known + i] = (float)k->vectors[(size_t)(b - 1 - j) * known + i];
        }
    }
    blas_gemm(false, false, n, b, known, 1, k->basis, n, k->inner, known, 0, k->ritz, n);
}

static Status no_vectors(const Krylov *k, Error *error)
{
    return error_set(error, STATUS_FAILED, "LAPACK found no singular vectors (%zu x %zu)", k->m,
                     k->n);
}

static bool stopping(const SvdStop *stop)
{
    return stop && stop->ask && stop->ask(stop->context);
}

/* Is the product of a size that can be squared twice? Nothing but zeros is. */
static bool in_range(const Krylov *k)
{
    float largest = 0;
    for (size_t i = 0; i < k->m * (size_t)k->block; i++) {
        largest = fmaxf(largest, fabsf(k->product[i]));
    }
    return largest == 0 || (largest > SMALLEST && largest < LARGEST);
}

/* Grow the space from its first block until its best vectors, then in ritz, look converged. */
static Status grow(Krylov *k, int rank, const SvdStop *stop, Error *error)
{
    int b = k->block;
    for (int known = b;; known += b) {
        float *last = k->basis + (size_t)(known - b) * k->n, *next = last + (size_t)b * k->n;
        if (stopping(stop)) {
            return error_set(error, STATUS_STOPPED, "stopped");
        }
        apply(k, last);
        if (known == b && !in_range(k)) {
            k->out_of_range = true;
            return STATUS_OK;
        }
        fill_t(k, known - b);
        bool full = known == k->width, good = true;
        if (!full) {
            memcpy(next, k->image, k->n * (size_t)b * sizeof *next);
            good = extend_basis(k, next, known);
        }
        if (good && (full || is_due(known / b))) {
            good = solve_t(k, known);
            if (good && (full || looks_converged(k, next, known, rank))) {
                combine(k, known);
                return STATUS_OK;
            }
        }
        if (!good) {
            return no_vectors(k, error);
        }
    }
}

/* -- the last step, on W itself ---------------------------------------------------------------- */

/* Entry (row i, column j) of the product in its groups. */
static size_t grouped(const Krylov *k, size_t i, int j)
{
    size_t group = (size_t)j / GRAM_VECTORS;
    return (group * k->m + i) * GRAM_VECTORS + (size_t)j % GRAM_VECTORS;
}

/* out (n) = sum_c a_c weights_c */
static void mix(float *out, const float *a, size_t n, const double *weights, int b)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int c = 0; c < b; c++) {
            sum += (double)a[(size_t)c * n + i] * weights[c];
        }
        out[i] = (float)sum;
    }
}

/* gram (b, b) += row^T row, in double. */
static void add_squares(double *gram, const float *row, int b)
{
    for (int i = 0; i < b; i++) {
        for (int j = 0; j < b; j++) {
            gram[i * b + j] += (double)row[i] * (double)row[j];
        }
    }
}

/* The singular values of W among the combinations of the Ritz vectors: values, vectors (block,
 * block), in ascending order. */
static bool rayleigh_ritz(Krylov *k)
{
    int b = k->block;
    float *row = k->inner;
    memset(k->vectors, 0, (size_t)b * b * sizeof *k->vectors);
    memset(k->metric, 0, (size_t)b * b * sizeof *k->metric);
    for (size_t i = 0; i < k->m; i++) {
        for (int j = 0; j < b; j++) {
            row[j] = k->product[grouped(k, i, j)];
        }
        add_squares(k->vectors, row, b);
    }
    for (size_t i = 0; i < k->n; i++) {
        for (int j = 0; j < b; j++) {
            row[j] = k->ritz[(size_t)j * k->n + i];
        }
        add_squares(k->metric, row, b);
    }
    return LAPACKE_dsygvd(LAPACK_COL_MAJOR, 1, 'V', 'U', b, k->vectors, b, k->metric, b,
                          k->values) == 0;
}

/* The triplets of that, and whether their residuals are small enough. left: (m, rank) not of length
 * one yet. */
static bool finish(Krylov *k, float *left, float *s, float *right, int rank)
{
    int b = k->block;
    float *image = k->in, *vector = k->out;
    for (int j = 0; j < b; j++) {
        const double *weights = k->vectors + (size_t)(b - 1 - j) * b;
        double square = fmax(k->values[b - 1 - j], 0), sum = 0;
        mix(vector, k->ritz, k->n, weights, b);
        mix(image, k->image, k->n, weights, b);
        for (size_t i = 0; i < k->n; i++) {
            double residual = (double)image[i] - square * (double)vector[i];
            sum += residual * residual;
        }
        k->residuals[j] = sqrt(sum);
        if (j < rank) {
            memcpy(right + (size_t)j * k->n, vector, k->n * sizeof *right);
            s[j] = (float)sqrt(square);
            for (size_t i = 0; i < k->m; i++) {
                double entry = 0;
                for (int c = 0; c < b; c++) {
                    entry += (double)k->product[grouped(k, i, c)] * weights[c];
                }
                left[(size_t)j * k->m + i] = (float)entry;
            }
        }
    }
    return close_enough(k->values, k->residuals, b, rank);
}

/* Uniform in [-1, 1). */
static void random_block(float *block, size_t n, int b, uint64_t seed)
{
    enum { WORDS = 4 };
    RandomKey key = {seed, RANDOM_SVD};
    for (size_t i = 0; i < n * (size_t)b; i += WORDS) { /* b is a multiple of 8 */
        uint32_t words[WORDS];
        random_words(words, key, (uint32_t)(i / WORDS), 0, 0, 0);
        for (int j = 0; j < WORDS; j++) {
            block[i + j] = (float)words[j] * 0x1p-31f - 1;
        }
    }
}

static Status top_by_krylov(float *left, float *s, float *right, Krylov *k, int rank, uint64_t seed,
                            const SvdStop *stop, Error *error)
{
    Arena arena = {0};
    lay_out(k, &arena);
    char *memory = aligned_alloc(64, arena.used);
    if (memory == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for singular vectors: %.1f GiB",
                         (double)arena.used / 0x1p30);
    }
    arena = (Arena){memory, 0};
    lay_out(k, &arena);
    random_block(k->basis, k->n, k->block, seed);
    Status status = STATUS_OK;
    bool done = false;
    for (int start = 0; !status && !done && start <= MAX_RESTARTS; start++) {
        status = extend_basis(k, k->basis, 0) ? grow(k, rank, stop, error) : no_vectors(k, error);
        if (status || k->out_of_range) {
            break;
        }
        apply(k, k->ritz);
        if (rayleigh_ritz(k)) {
            done = finish(k, left, s, right, rank);
            memcpy(k->basis, k->ritz, k->n * (size_t)k->block * sizeof *k->basis);
        } else {
            status = no_vectors(k, error);
        }
    }
    if (!status && !k->out_of_range && !orthonormalise_householder(left, (int)k->m, rank)) {
        status = no_vectors(k, error);
    }
    free(memory);
    return status;
}

/* -- small matrices ---------------------------------------------------------------------------- */

/* s_j = |W v_j|, summed in double: takes single precision's rounding out of it. row: scratch. */
static void refine_values(float *s, const Weight *w, const float *v, int rank, float *row)
{
    size_t n = (size_t)w->n_in, size = tensor_type_size(w->type);
    for (int j = 0; j < rank; j++, v += n) {
        double square = 0;
        for (size_t i = 0; i < (size_t)w->n_out; i++) {
            double sum = 0;
            tensor_to_f32(row, (const char *)w->data + i * n * size, w->type, n);
            for (size_t k = 0; k < n; k++) {
                sum += (double)row[k] * (double)v[k];
            }
            square += sum * sum;
        }
        s[j] = (float)sqrt(square);
        s[j] = j > 0 && s[j] > s[j - 1] ? s[j - 1] : s[j];
    }
}

static Status top_by_lapack(float *u, float *s, float *v, const Weight *w, int rank, Error *error)
{
    size_t m = (size_t)w->n_out, n = (size_t)w->n_in, least = m < n ? m : n;
    float *a = malloc((m * n + (m + n + 1) * least) * sizeof *a);
    if (a == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for singular vectors: %.1f GiB",
                         (double)(m * n + (m + n) * least) * sizeof(float) / 0x1p30);
    }
    /* Row-major W is W^T by columns: its left vectors are v; u comes row by row. */
    float *all_v = a + m * n, *all_u = all_v + n * least, *values = all_u + m * least;
    tensor_to_f32(a, w->data, w->type, m * n);
    int failed = LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', (int)n, (int)m, a, (int)n, values, all_v,
                                (int)n, all_u, (int)least);
    memcpy(v, all_v, n * (size_t)rank * sizeof *v);
    for (size_t j = 0; j < (size_t)rank; j++) {
        for (size_t i = 0; i < m; i++) {
            u[j * m + i] = all_u[i * least + j];
        }
    }
    refine_values(s, w, v, rank, a);
    free(a);
    return failed ? error_set(error, STATUS_FAILED, "LAPACK found no singular vectors (%zu x %zu)",
                              m, n)
                  : STATUS_OK;
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

Status svd_top(float *u, float *s, float *v, const Weight *w, int rank, uint64_t seed,
               const SvdStop *stop, Error *error)
{
    Krylov k;
    choose_space(&k, w, rank);
    int least = w->n_out < w->n_in ? w->n_out : w->n_in;
    bool whole = least < LAPACK_BLOCKS * k.block;
    Status status = whole ? STATUS_OK : top_by_krylov(u, s, v, &k, rank, seed, stop, error);
    if (status == STATUS_OK && (whole || k.out_of_range)) {
        status = top_by_lapack(u, s, v, w, rank, error);
    }
    if (status == STATUS_OK) {
        fix_signs(u, v, w->n_out, w->n_in, rank);
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
