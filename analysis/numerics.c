/* GSL behind plain C. GSL's matrices are row-major views of our own arrays. */
#include "analysis/numerics.h"

#include <assert.h>
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_eigen.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_interp2d.h>
#include <gsl/gsl_linalg.h>
#include <gsl/gsl_multimin.h>
#include <gsl/gsl_qrng.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

double numerics_normal_quantile_above(double p)
{
    gsl_set_error_handler_off();
    return gsl_cdf_ugaussian_Qinv(p);
}

double numerics_binomial_below(unsigned k, double p, unsigned n)
{
    gsl_set_error_handler_off();
    return gsl_cdf_binomial_P(k, p, n);
}

double numerics_student_above(double t, double freedom)
{
    gsl_set_error_handler_off();
    return gsl_cdf_tdist_Q(t, freedom);
}

void numerics_sort(double *x, size_t n)
{
    gsl_sort(x, 1, n);
}

double numerics_quantile(const double *x, size_t n, double at)
{
    return gsl_stats_quantile_from_sorted_data(x, 1, n, at);
}

static Status failed(Error *error, const char *what, int code)
{
    return error_set(error, STATUS_FAILED, "%s: %s", what, gsl_strerror(code));
}

/* A vector and its negative are the same direction: the largest element is made positive. */
static void fix_sign(double *vector, size_t n)
{
    size_t largest = 0;
    for (size_t i = 1; i < n; i++) {
        if (fabs(vector[i]) > fabs(vector[largest])) {
            largest = i;
        }
    }
    double sign = vector[largest] < 0 ? -1 : 1;
    for (size_t i = 0; i < n; i++) {
        vector[i] *= sign;
    }
}

Status numerics_symmetric_eigen(double *eigenvalues, double *eigenvectors, const double *a,
                                size_t n, Error *error)
{
    gsl_set_error_handler_off();
    double *copy = malloc(n * n * sizeof *copy), *columns = malloc(n * n * sizeof *columns);
    gsl_eigen_symmv_workspace *workspace = gsl_eigen_symmv_alloc(n);
    int code = GSL_ENOMEM;
    if (copy && columns && workspace) {
        memcpy(copy, a, n * n * sizeof *copy);
        gsl_matrix_view matrix = gsl_matrix_view_array(copy, n, n);
        gsl_matrix_view vectors = gsl_matrix_view_array(columns, n, n);
        gsl_vector_view values = gsl_vector_view_array(eigenvalues, n);
        code = gsl_eigen_symmv(&matrix.matrix, &values.vector, &vectors.matrix, workspace);
        if (!code) {
            gsl_eigen_symmv_sort(&values.vector, &vectors.matrix, GSL_EIGEN_SORT_VAL_DESC);
        }
        for (size_t k = 0; !code && k < n; k++) {
            for (size_t i = 0; i < n; i++) {
                eigenvectors[k * n + i] = columns[i * n + k];
            }
            fix_sign(eigenvectors + k * n, n);
        }
    }
    gsl_eigen_symmv_free(workspace);
    free(copy);
    free(columns);
    return code ? failed(error, "eigenvectors", code) : STATUS_OK;
}

/* GSL wants at least as many rows as columns: a wide matrix is turned, and its left vectors are
 * then the ones asked for. */
Status numerics_principal(double *directions, double *singular, size_t count, const double *a,
                          size_t m, size_t n, Error *error)
{
    gsl_set_error_handler_off();
    bool turned = m < n;
    size_t rows = turned ? n : m, columns = turned ? m : n;
    assert(count <= columns);
    double *u = malloc(rows * columns * sizeof *u), *v = malloc(columns * columns * sizeof *v);
    double *work = malloc(columns * sizeof *work);
    int code = GSL_ENOMEM;
    if (u && v && work) {
        for (size_t i = 0; i < rows; i++) {
            for (size_t j = 0; j < columns; j++) {
                u[i * columns + j] = turned ? a[j * n + i] : a[i * n + j];
            }
        }
        gsl_matrix_view left = gsl_matrix_view_array(u, rows, columns);
        gsl_matrix_view right = gsl_matrix_view_array(v, columns, columns);
        gsl_vector_view values = gsl_vector_view_array(singular, columns);
        gsl_vector_view space = gsl_vector_view_array(work, columns);
        code = gsl_linalg_SV_decomp(&left.matrix, &right.matrix, &values.vector, &space.vector);
        for (size_t k = 0; !code && k < count; k++) {
            for (size_t i = 0; i < n; i++) {
                directions[k * n + i] = (turned ? u : v)[i * columns + k];
            }
            fix_sign(directions + k * n, n);
        }
    }
    free(u);
    free(v);
    free(work);
    return code ? failed(error, "principal directions", code) : STATUS_OK;
}

/* GSL asks for value and gradient one by one: each point is computed once. */
typedef struct {
    NumericsValue value;
    void *context;
    size_t n;
    double *x, last, *gradient; /* of the point that was asked for last */
    bool any;
    Status status;
    Error *error;
} Search;

static void look(Search *search, const gsl_vector *at)
{
    bool same = search->any;
    for (size_t i = 0; i < search->n; i++) {
        double x = gsl_vector_get(at, i);
        same = same && search->x[i] == x;
        search->x[i] = x;
    }
    if (same || search->status) {
        return;
    }
    search->any = true;
    search->status =
        search->value(search->context, search->x, &search->last, search->gradient, search->error);
    if (search->status) {
        search->last = NAN;
    }
}

static double value_at(const gsl_vector *at, void *context)
{
    Search *search = context;
    look(search, at);
    return search->last;
}

static void gradient_at(const gsl_vector *at, void *context, gsl_vector *gradient)
{
    Search *search = context;
    look(search, at);
    for (size_t i = 0; i < search->n; i++) {
        gsl_vector_set(gradient, i, search->gradient[i]);
    }
}

static void both_at(const gsl_vector *at, void *context, double *value, gsl_vector *gradient)
{
    *value = value_at(at, context);
    gradient_at(at, context, gradient);
}

/* True when the search came to its own end. */
static bool descend(gsl_multimin_fdfminimizer *minimizer, Search *search,
                    const NumericsSearch *settings, double *x)
{
    const double line_tolerance = 0.1; /* of the line search: GSL's manual for BFGS */
    gsl_multimin_function_fdf function = {value_at, gradient_at, both_at, search->n, search};
    gsl_vector_view start = gsl_vector_view_array(x, search->n);
    int code = gsl_multimin_fdfminimizer_set(minimizer, &function, &start.vector,
                                             settings->first_step, line_tolerance);
    bool small = false;
    for (int i = 0; !code && !small && !search->status && i < settings->max_iterations; i++) {
        small = gsl_multimin_test_gradient(minimizer->gradient, settings->tolerance) == GSL_SUCCESS;
        code = small ? GSL_SUCCESS : gsl_multimin_fdfminimizer_iterate(minimizer);
    }
    for (size_t i = 0; i < search->n; i++) {
        x[i] = gsl_vector_get(minimizer->x, i);
    }
    return small || code == GSL_ENOPROG;
}

Status numerics_minimise(double *x, bool *converged, size_t n, const NumericsSearch *settings,
                         NumericsValue value, void *context, Error *error)
{
    gsl_set_error_handler_off();
    Search search = {.value = value, .context = context, .n = n, .error = error};
    search.x = calloc(n, sizeof *search.x);
    search.gradient = calloc(n, sizeof *search.gradient);
    gsl_multimin_fdfminimizer *minimizer =
        gsl_multimin_fdfminimizer_alloc(gsl_multimin_fdfminimizer_vector_bfgs2, n);
    *converged = false;
    if (search.x && search.gradient && minimizer) {
        *converged = descend(minimizer, &search, settings, x);
    } else {
        search.status = failed(error, "minimisation", GSL_ENOMEM);
    }
    gsl_multimin_fdfminimizer_free(minimizer);
    free(search.x);
    free(search.gradient);
    return search.status;
}

/* i of n points spread evenly from first to last, both exactly. */
static double spread(double first, double last, int i, int n)
{
    return i == n - 1 ? last : first + (last - first) * i / (n - 1);
}

Status numerics_interpolate(double *fine, int fx, int fy, const double *z, const double *x, int nx,
                            const double *y, int ny, Error *error)
{
    gsl_set_error_handler_off();
    const gsl_interp2d_type *type = nx < 4 || ny < 4 ? gsl_interp2d_bilinear : gsl_interp2d_bicubic;
    /* GSL has its first axis fastest: ours is its second. */
    gsl_interp2d *surface = gsl_interp2d_alloc(type, (size_t)ny, (size_t)nx);
    if (!surface) {
        return failed(error, "interpolation", GSL_ENOMEM);
    }
    int code = gsl_interp2d_init(surface, y, x, z, (size_t)ny, (size_t)nx);
    for (int i = 0; !code && i < fx; i++) {
        for (int j = 0; !code && j < fy; j++) {
            code = gsl_interp2d_eval_e(surface, y, x, z, spread(y[0], y[ny - 1], j, fy),
                                       spread(x[0], x[nx - 1], i, fx), NULL, NULL,
                                       &fine[(size_t)i * (size_t)fy + (size_t)j]);
        }
    }
    gsl_interp2d_free(surface);
    return code ? failed(error, "interpolation", code) : STATUS_OK;
}

Status numerics_sobol(double *points, size_t n, size_t dimensions, Error *error)
{
    if (dimensions < 1 || dimensions > 40) {
        return error_set(error, STATUS_USAGE, "Sobol points of 1 to 40 dimensions are known");
    }
    gsl_set_error_handler_off();
    gsl_qrng *sequence = gsl_qrng_alloc(gsl_qrng_sobol, (unsigned)dimensions);
    if (!sequence) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        gsl_qrng_get(sequence, points + i * dimensions);
    }
    gsl_qrng_free(sequence);
    return STATUS_OK;
}
