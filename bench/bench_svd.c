/* The top singular triplets of matrices (adapters/svd) beside LAPACK, one thread each:
 *   bench_svd time ROWS COLUMNS RANK REPEATS
 * a line a spectrum: median ms of svd_top, of sgesdd of W and of W^T, the ratio of the faster one,
 * then against dgesdd the largest relative error of a value and the largest sine of an angle.
 *   mlp: 1, 0.64, then 0.6 (j / 3)^-0.18   attention: 1, 0.93, then 0.89 (j / 3)^-0.15
 *   tie: as mlp, s_2 and s_3 one part in a thousand apart
 *   gauss: independent entries, the hardest: no gaps
 * (mlp and attention are near the median spectra of the matrices of a trained MiniLM-L6.)
 *   bench_svd accuracy RANK FILE.safetensors ...
 * all matrices of 32 to 4096 on their smaller side, against dgesdd: the worst relative error of a
 * value, and median and worst sine (the larger one of u and v) of each direction, by svd_top and by
 * what torch.svd_lowrank(q = rank, niter = 2) does. */
#include <lapacke.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "adapters/svd.h"
#include "core/blas.h"
#include "core/parallel.h"
#include "core/random.h"

enum { MAX_RANK = 64, MAX_REPEATS = 100, LEAST = 32, MOST = 4096, N_SPECTRA = 4 };
static const char *const spectra[N_SPECTRA] = {"mlp", "attention", "tie", "gauss"};

static void give_up(const char *message)
{
    fprintf(stderr, "bench_svd: %s\n", message);
    exit(1);
}

static void *take(size_t n, size_t size)
{
    void *memory = calloc(n + 1, size);
    if (!memory) {
        give_up("no memory");
    }
    return memory;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* Triplets in double: u (k, m), s (k), v (k, n), rows are vectors. */
typedef struct {
    int m, n, k;
    double *u, *s, *v;
} Triplets;

static Triplets triplets_new(int m, int n, int k)
{
    return (Triplets){.m = m,
                      .n = n,
                      .k = k,
                      .u = take((size_t)k * m, sizeof(double)),
                      .s = take((size_t)k, sizeof(double)),
                      .v = take((size_t)k * n, sizeof(double))};
}

static void triplets_release(Triplets *t)
{
    free(t->u);
    free(t->s);
    free(t->v);
}

/* All triplets of W (m, n), row-major, by dgesdd. */
static Triplets whole(const double *w, int m, int n)
{
    int k = m < n ? m : n;
    Triplets t = triplets_new(m, n, k);
    double *a = take((size_t)m * n, sizeof *a), *ut = take((size_t)m * k, sizeof *ut);
    memcpy(a, w, (size_t)m * n * sizeof *a);
    if (LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', n, m, a, n, t.s, t.v, n, ut, k)) {
        give_up("dgesdd failed");
    }
    for (size_t j = 0; j < (size_t)k; j++) {
        for (size_t i = 0; i < (size_t)m; i++) {
            t.u[j * (size_t)m + i] = ut[i * (size_t)k + j];
        }
    }
    free(a);
    free(ut);
    return t;
}

static Triplets top(const float *w, int m, int n, int rank)
{
    Triplets t = triplets_new(m, n, rank);
    float *u = take((size_t)rank * m, sizeof *u), *v = take((size_t)rank * n, sizeof *v);
    float s[MAX_RANK];
    Error error;
    Weight weight = {w, TENSOR_F32, m, n};
    if (svd_top(u, s, v, &weight, rank, 0, NULL, &error)) {
        give_up(error.message);
    }
    for (size_t i = 0; i < (size_t)rank * m; i++) {
        t.u[i] = (double)u[i];
    }
    for (size_t i = 0; i < (size_t)rank * n; i++) {
        t.v[i] = (double)v[i];
    }
    for (int i = 0; i < rank; i++) {
        t.s[i] = (double)s[i];
    }
    free(u);
    free(v);
    return t;
}

/* y (k, rows of W) = x W^T, or (k, columns) = x W. */
static void times(double *y, const double *x, const double *w, int m, int n, int k, bool transposed)
{
    memset(y, 0, (size_t)k * (size_t)(transposed ? n : m) * sizeof *y);
    for (int j = 0; j < k; j++) {
        for (int i = 0; i < m; i++) {
            const double *row = w + (size_t)i * n;
            double sum = 0, scale = transposed ? x[(size_t)j * m + i] : 0;
            for (int c = 0; c < n; c++) {
                sum += transposed ? 0 : row[c] * x[(size_t)j * n + c];
                y[transposed ? (size_t)j * n + c : 0] += transposed ? scale * row[c] : 0;
            }
            if (!transposed) {
                y[(size_t)j * m + i] = sum;
            }
        }
    }
}

static void orthonormalise(double *x, int n, int k)
{
    double tau[MAX_RANK];
    if (LAPACKE_dgeqrf(LAPACK_COL_MAJOR, n, k, x, n, tau) ||
        LAPACKE_dorgqr(LAPACK_COL_MAJOR, n, k, k, x, n, tau)) {
        give_up("dgeqrf failed");
    }
}

/* torch._lowrank.svd_lowrank(A, q, niter = 2): Halko et al., alg. 4.4 and 5.1, no oversampling. */
static Triplets lowrank(const double *w, int m, int n, int q)
{
    Triplets t = triplets_new(m, n, q);
    double *x = take((size_t)q * n, sizeof *x), *y = take((size_t)q * m, sizeof *y);
    double *b = take((size_t)q * n, sizeof *b), inner[MAX_RANK * MAX_RANK];
    for (int i = 0; i < q * n; i++) {
        x[i] = random_normal((RandomKey){5, RANDOM_DATA}, (uint32_t)i, 0, 0, 0);
    }
    for (int pass = 0; pass < 3; pass++) {
        times(y, x, w, m, n, q, false);
        orthonormalise(y, m, q);
        times(x, y, w, m, n, q, true);
        memcpy(b, x, (size_t)q * n * sizeof *b);
        orthonormalise(x, n, q);
    }
    /* b (q, n) = Q^T W = inner s v^T */
    if (LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', n, q, b, n, t.s, t.v, n, inner, q)) {
        give_up("dgesdd failed");
    }
    for (int j = 0; j < q; j++) {
        for (int c = 0; c < q; c++) {
            for (int i = 0; i < m; i++) {
                t.u[(size_t)j * m + i] += inner[c * q + j] * y[(size_t)c * m + i];
            }
        }
    }
    free(x);
    free(y);
    free(b);
    return t;
}

static double sine(const double *a, const double *b, int n)
{
    double product = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        product += a[i] * b[i];
    }
    for (int i = 0; i < n; i++) {
        double rest = a[i] - product * b[i];
        sum += rest * rest;
    }
    return sqrt(sum);
}

static double error_of_values(const Triplets *t, const Triplets *truth)
{
    double worst = 0;
    for (int j = 0; j < t->k; j++) {
        worst = fmax(worst, fabs(t->s[j] / truth->s[j] - 1));
    }
    return worst;
}

static double error_of_direction(const Triplets *t, const Triplets *truth, int j)
{
    size_t at = (size_t)j;
    return fmax(sine(t->u + at * t->m, truth->u + at * t->m, t->m),
                sine(t->v + at * t->n, truth->v + at * t->n, t->n));
}

static double *in_double(const float *w, size_t n)
{
    double *a = take(n, sizeof *a);
    for (size_t i = 0; i < n; i++) {
        a[i] = (double)w[i];
    }
    return a;
}

/* ---- time ---------------------------------------------------------------------------------- */

/* j from 0. */
static double wanted(int spectrum, int j)
{
    static const double first[][3] = {{1, 0.64, 0.6}, {1, 0.93, 0.89}, {1, 0.64, 0.63936}};
    double power = spectrum == 1 ? -0.15 : -0.18;
    return j < 3 ? first[spectrum][j] : first[spectrum][2] * pow((j + 1) / 3.0, power);
}

static float *matrix_of(int spectrum, int m, int n)
{
    float *w = take((size_t)m * n, sizeof *w);
    int k = m < n ? m : n;
    for (size_t i = 0; i < (size_t)m * n; i++) {
        w[i] = (float)(0.02 * random_normal((RandomKey){1, RANDOM_DATA}, (uint32_t)i,
                                            (uint32_t)spectrum, 0, 0));
    }
    if (spectrum == 3) {
        return w;
    }
    float *s = take((size_t)k, sizeof *s), *v = take((size_t)k * n, sizeof *v);
    float *ut = take((size_t)k * m, sizeof *ut);
    if (LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', n, m, w, n, s, v, n, ut, k)) {
        give_up("sgesdd failed");
    }
    for (int j = 0; j < k; j++) {
        for (int i = 0; i < n; i++) {
            v[(size_t)j * n + i] *= (float)wanted(spectrum, j);
        }
    }
    blas_gemm(false, false, n, m, k, 1, v, n, ut, k, 0, w, n);
    free(s);
    free(v);
    free(ut);
    return w;
}

/* ms of sgesdd; turned: of the matrix by rows, which LAPACK sees as its transpose. */
static double time_lapack(const float *w, int m, int n, bool turned)
{
    int k = m < n ? m : n, rows = turned ? n : m, columns = turned ? m : n;
    float *a = take((size_t)m * n, sizeof *a), *s = take((size_t)k, sizeof *s);
    float *u = take((size_t)k * rows, sizeof *u), *vt = take((size_t)k * columns, sizeof *vt);
    for (size_t i = 0; i < (size_t)m; i++) {
        for (size_t j = 0; j < (size_t)n; j++) {
            a[turned ? i * (size_t)n + j : j * (size_t)m + i] = w[i * (size_t)n + j];
        }
    }
    memset(u, 1, (size_t)k * rows * sizeof *u); /* touched once */
    memset(vt, 1, (size_t)k * columns * sizeof *vt);
    double start = now();
    if (LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', rows, columns, a, rows, s, u, rows, vt, k)) {
        give_up("sgesdd failed");
    }
    start = now() - start;
    free(a);
    free(s);
    free(u);
    free(vt);
    return 1e3 * start;
}

static void time_all(int m, int n, int rank, int repeats)
{
    for (int spectrum = 0; spectrum < N_SPECTRA; spectrum++) {
        float *w = matrix_of(spectrum, m, n), *u = take((size_t)rank * m, sizeof *u);
        float *v = take((size_t)rank * n, sizeof *v), s[MAX_RANK];
        double ours[MAX_REPEATS], lapack[2][MAX_REPEATS], worst = 0;
        Error error;
        Weight weight = {w, TENSOR_F32, m, n};
        for (int r = 0; r < repeats; r++) {
            double start = now();
            if (svd_top(u, s, v, &weight, rank, 0, NULL, &error)) {
                give_up(error.message);
            }
            ours[r] = 1e3 * (now() - start);
            lapack[0][r] = time_lapack(w, m, n, false);
            lapack[1][r] = time_lapack(w, m, n, true);
        }
        double mine = median(ours, repeats);
        double theirs = fmin(median(lapack[0], repeats), median(lapack[1], repeats));
        double *a = in_double(w, (size_t)m * n);
        Triplets truth = whole(a, m, n), t = top(w, m, n, rank);
        for (int j = 0; j < rank; j++) {
            worst = fmax(worst, error_of_direction(&t, &truth, j));
        }
        printf("%-8s %8.2f ms, sgesdd %8.1f ms (W) %8.1f ms (W^T), ratio %5.1f, values %.1e, "
               "directions %.1e\n",
               spectra[spectrum], mine, lapack[0][repeats / 2], lapack[1][repeats / 2],
               theirs / mine, error_of_values(&t, &truth), worst);
        triplets_release(&t);
        triplets_release(&truth);
        free(a);
        free(w);
        free(u);
        free(v);
    }
}

/* ---- accuracy ------------------------------------------------------------------------------ */

typedef struct {
    double value;                /* worst error */
    double *direction[MAX_RANK]; /* (n) sines */
} Errors;

static void print_errors(const char *name, Errors *errors, int rank, int n)
{
    printf("  %-12s values %.1e", name, errors->value);
    for (int j = 0; j < rank; j++) {
        double middle = median(errors->direction[j], n);
        printf("; direction %d %.1e (worst %.1e)", j + 1, middle, errors->direction[j][n - 1]);
    }
    printf("\n");
}

static void measure(Errors *errors, const Triplets *t, const Triplets *truth, int at)
{
    errors->value = fmax(errors->value, error_of_values(t, truth));
    for (int j = 0; j < t->k; j++) {
        errors->direction[j][at] = error_of_direction(t, truth, j);
    }
}

static void accuracy(const char *path, int rank)
{
    SafeTensors *file;
    Error error;
    if (safetensors_open(&file, path, &error)) {
        give_up(error.message);
    }
    int n = 0;
    Errors ours = {0}, torch = {0};
    double *gaps = take(safetensors_count(file), sizeof *gaps), least_gap = 1;
    for (int j = 0; j < rank; j++) {
        ours.direction[j] = take(safetensors_count(file), sizeof(double));
        torch.direction[j] = take(safetensors_count(file), sizeof(double));
    }
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const Tensor *tensor = safetensors_at(file, i);
        size_t rows = tensor->dims[0], columns = tensor->dims[1];
        size_t least = rows < columns ? rows : columns;
        if (tensor->n_dims != 2 || tensor->type == TENSOR_OTHER || least < LEAST || least > MOST ||
            strstr(tensor->name, "embed")) {
            continue;
        }
        float *w = take(rows * columns, sizeof *w);
        tensor_to_f32(w, tensor->data, tensor->type, rows * columns);
        double *a = in_double(w, rows * columns);
        Triplets truth = whole(a, (int)rows, (int)columns);
        Triplets t = top(w, (int)rows, (int)columns, rank);
        Triplets plain = lowrank(a, (int)rows, (int)columns, rank);
        measure(&ours, &t, &truth, n);
        measure(&torch, &plain, &truth, n);
        gaps[n] = 1 - truth.s[rank] / truth.s[rank - 1];
        least_gap = fmin(least_gap, gaps[n++]);
        triplets_release(&truth);
        triplets_release(&t);
        triplets_release(&plain);
        free(a);
        free(w);
    }
    printf("%s: %d matrices, s_%d / s_%d - 1 at median %.3f, least %.4f\n", path, n, rank, rank + 1,
           n ? median(gaps, n) : 0, least_gap);
    if (n) {
        print_errors("svd_top", &ours, rank, n);
        print_errors("svd_lowrank", &torch, rank, n);
    }
    for (int j = 0; j < rank; j++) {
        free(ours.direction[j]);
        free(torch.direction[j]);
    }
    free(gaps);
    safetensors_close(file);
}

static int number(const char *text, int most)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value < 1 || value > most) {
        give_up("a number is too large or none");
    }
    return (int)value;
}

int main(int argc, char **argv)
{
    parallel_float_mode();
    svd_begin();
    if (argc == 6 && strcmp(argv[1], "time") == 0) {
        time_all(number(argv[2], 1 << 16), number(argv[3], 1 << 16), number(argv[4], MAX_RANK),
                 number(argv[5], MAX_REPEATS));
    } else if (argc > 3 && strcmp(argv[1], "accuracy") == 0) {
        for (int i = 3; i < argc; i++) {
            accuracy(argv[i], number(argv[2], MAX_RANK - 1));
        }
    } else {
        give_up("time ROWS COLUMNS RANK REPEATS, or accuracy RANK FILE ...");
    }
    return 0;
}
