/* Singular triplets against LAPACK in double precision, and the cache that is never trusted. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <lapacke.h>

#include "adapters/factors.h"
#include "adapters/svd.h"
#include "core/file.h"
#include "tests/shared.h"
#include "tests/tiny_model.h"

static Error error;

static Factors compute(const float *w, int n_out, int n_in, int rank)
{
    Factors f;
    int n_threads = svd_begin();
    tiny_require(factors_compute(&f, &(Weight){w, TENSOR_F32, n_out, n_in}, rank, 0, NULL, &error),
                 &error);
    svd_end(n_threads);
    return f;
}

/* sin of the angle between a (float) and b (double, every stride-th), both of n. */
static double angle(const float *a, const double *b, int n, int stride)
{
    double product = 0, a_square = 0, b_square = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        product += (double)a[i] * b[(size_t)i * stride];
        a_square += (double)a[i] * (double)a[i];
        b_square += b[(size_t)i * stride] * b[(size_t)i * stride];
    }
    for (int i = 0; i < n; i++) {
        double rest = (double)a[i] - product / b_square * b[(size_t)i * stride];
        sum += rest * rest;
    }
    return sqrt(sum / a_square);
}

/* The first `rank` triplets agree with dgesdd: values to 1e-6 relative (single precision rounds to
 * 6e-8, products of a thousand terms to some 5e-7), directions to 1e-3 (what the method promises),
 * the sign rule holds. */
static void check_against_lapack(const float *w, int n_out, int n_in, int rank)
{
    int k = n_out < n_in ? n_out : n_in;
    double *a = malloc((size_t)n_out * n_in * sizeof *a), *s = malloc((size_t)k * sizeof *s);
    double *u = malloc((size_t)n_out * k * sizeof *u), *vt = malloc((size_t)k * n_in * sizeof *vt);
    for (size_t i = 0; i < (size_t)n_out * n_in; i++) {
        a[i] = (double)w[i];
    }
    assert_int_equal(LAPACKE_dgesdd(LAPACK_ROW_MAJOR, 'S', n_out, n_in, a, n_in, s, u, k, vt, n_in),
                     0);
    Factors f = compute(w, n_out, n_in, rank);
    assert_true(f.n_out == n_out && f.n_in == n_in && f.rank == rank);
    for (int j = 0; j < rank; j++) {
        const float *v = f.v + (size_t)j * n_in;
        assert_true(fabs((double)f.s[j] / s[j] - 1) <= 1e-6);
        assert_true(j == 0 || f.s[j] <= f.s[j - 1]);
        assert_true(angle(f.u + (size_t)j * n_out, u + j, n_out, k) <= 1e-3);
        assert_true(angle(v, vt + (size_t)j * n_in, n_in, 1) <= 1e-3);
        double product = 0, image = 0; /* u^T W v = s > 0: u followed v's sign */
        for (int o = 0; o < n_out; o++) {
            image = 0;
            for (int i = 0; i < n_in; i++) {
                image += (double)w[(size_t)o * n_in + i] * (double)v[i];
            }
            product += image * (double)f.u[(size_t)j * n_out + o];
        }
        assert_true(fabs(product - s[j]) <= 1e-5 * s[0]);
        int largest = 0;
        for (int i = 1; i < n_in; i++) {
            largest = fabsf(v[i]) > fabsf(v[largest]) ? i : largest;
        }
        assert_true(v[largest] > 0);
    }
    factors_release(&f);
    free(a);
    free(s);
    free(u);
    free(vt);
}

/* kind 0: all directions alike, the hardest; 1 and 2: decaying slowly and fast. */
static float *random_matrix(int n_out, int n_in, int kind)
{
    float *w = malloc((size_t)n_out * n_in * sizeof *w);
    RandomKey key = {7, RANDOM_DATA};
    for (int i = 0; i < n_out; i++) {
        for (int j = 0; j < n_in; j++) {
            double decay = kind == 0   ? 1
                           : kind == 1 ? pow(j + 1, -0.5) * pow(i + 1, -0.2)
                                       : exp(-0.05 * (i < j ? i : j));
            double normal = random_normal(key, (uint32_t)i, (uint32_t)j, (uint32_t)kind, 0);
            w[(size_t)i * n_in + j] = (float)(0.02 * decay * normal);
        }
    }
    return w;
}

static void random_matrices_agree_with_lapack(void **state)
{
    (void)state;
    const int shapes[][2] = {{64, 48}, {128, 131}, {301, 203}, {151, 397}, {459, 263}};
    for (int s = 0; s < 5; s++) {
        for (int kind = 0; kind < 3; kind++) {
            float *w = random_matrix(shapes[s][0], shapes[s][1], kind);
            for (int rank = 1; rank <= 8; rank *= 2) {
                check_against_lapack(w, shapes[s][0], shapes[s][1], rank);
            }
            free(w);
        }
    }
}

/* Known spectra: U diag(s) V^T of random orthonormal U, V. s_j = j^-decay, or s_2 and s_3 one part
 * in a thousand apart. */
static void slow_decay_and_near_ties_agree_with_lapack(void **state)
{
    (void)state;
    enum { ROWS = 260, COLUMNS = 170 };
    float *w = random_matrix(ROWS, COLUMNS, 0), s[COLUMNS];
    float *u = malloc(ROWS * COLUMNS * sizeof *u), *vt = malloc(COLUMNS * COLUMNS * sizeof *vt);
    assert_int_equal(LAPACKE_sgesdd(LAPACK_ROW_MAJOR, 'S', ROWS, COLUMNS, w, COLUMNS, s, u, COLUMNS,
                                    vt, COLUMNS),
                     0);
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            double sum = 0;
            for (int j = 0; j < COLUMNS; j++) {
                double value = kind == 0   ? pow(j + 1, -0.1)
                               : kind == 1 ? pow(j + 1, -1.5)
                               : j == 1    ? 0.9
                               : j == 2    ? 0.8991
                                           : 1.0 / (1 + 0.3 * j);
                sum += (double)u[i / COLUMNS * COLUMNS + j] * value *
                       (double)vt[j * COLUMNS + i % COLUMNS];
            }
            w[i] = (float)sum;
        }
        check_against_lapack(w, ROWS, COLUMNS, 2);
        check_against_lapack(w, ROWS, COLUMNS, 3);
    }
    free(w);
    free(u);
    free(vt);
}

/* Weights that no model has, whose fourth powers leave single precision. */
static void tiny_and_huge_weights_agree_with_lapack(void **state)
{
    (void)state;
    const float scales[] = {1e-30f, 1e-12f, 1e12f, 1e30f};
    for (int i = 0; i < 4; i++) {
        float *w = random_matrix(160, 144, 1);
        for (int e = 0; e < 160 * 144; e++) {
            w[e] *= scales[i];
        }
        check_against_lapack(w, 160, 144, 2);
        free(w);
    }
}

/* A weight is read in its own type, wherever it lies. */
static void types_and_places_do_not_matter(void **state)
{
    (void)state;
    enum { ROWS = 147, COLUMNS = 203 };
    const TensorType types[] = {TENSOR_BF16, TENSOR_F16, TENSOR_F32};
    float *w = random_matrix(ROWS, COLUMNS, 1);
    char *bytes = malloc((ROWS * COLUMNS + 1) * sizeof *w);
    for (int t = 0; t < 3; t++) {
        Factors own, plain;
        tensor_from_f32(bytes + 1, w, types[t], ROWS * COLUMNS);
        tensor_to_f32(w, bytes + 1, types[t], ROWS * COLUMNS); /* what it holds */
        plain = compute(w, ROWS, COLUMNS, 2);
        int n_threads = svd_begin();
        Weight there = {bytes + 1, types[t], ROWS, COLUMNS};
        tiny_require(factors_compute(&own, &there, 2, 0, NULL, &error), &error);
        svd_end(n_threads);
        assert_memory_equal(own.u, plain.u, 2 * ROWS * sizeof(float));
        assert_memory_equal(own.s, plain.s, 2 * sizeof(float));
        assert_memory_equal(own.v, plain.v, 2 * COLUMNS * sizeof(float));
        factors_release(&own);
        factors_release(&plain);
    }
    free(bytes);
    free(w);
}

static bool stop_at_third(void *context)
{
    return ++*(int *)context == 3;
}

static void a_decomposition_stops_between_products(void **state)
{
    (void)state;
    int asked = 0;
    Factors f;
    float *w = random_matrix(160, 144, 0);
    SvdStop stop = {stop_at_third, &asked};
    int n_threads = svd_begin();
    Weight weight = {w, TENSOR_F32, 160, 144};
    assert_int_equal(factors_compute(&f, &weight, 2, 0, &stop, &error), STATUS_STOPPED);
    svd_end(n_threads);
    assert_int_equal(asked, 3);
    free(w);
}

/* z = W^T W x and y = W x as in double; what is beside a vector does not show. */
static void the_product_is_that_of_double_precision(void **state)
{
    (void)state;
    enum { ROWS = 45, COLUMNS = 1037, VECTORS = 2 * GRAM_VECTORS };
    float *w = random_matrix(ROWS, COLUMNS, 0), *x = random_matrix(VECTORS, COLUMNS, 0);
    float *z = malloc(VECTORS * COLUMNS * sizeof *z), *y = malloc(VECTORS * ROWS * sizeof *y);
    float *scratch = malloc(GRAM_ROWS * COLUMNS * sizeof *scratch);
    Weight weight = {w, TENSOR_F32, ROWS, COLUMNS};
    memset(z, 0xff, VECTORS * COLUMNS * sizeof *z); /* NaN */
    memset(y, 0xff, VECTORS * ROWS * sizeof *y);
    gram_apply(z, y, x, &weight, VECTORS / GRAM_VECTORS, scratch);
    for (int v = 0; v < VECTORS; v++) {
        int group = v / GRAM_VECTORS, lane = v % GRAM_VECTORS;
        double product[ROWS] = {0}, sum;
        for (int i = 0; i < ROWS; i++) {
            for (int k = 0; k < COLUMNS; k++) {
                product[i] += (double)w[i * COLUMNS + k] *
                              (double)x[(group * COLUMNS + k) * GRAM_VECTORS + lane];
            }
            /* sums of 0.013, from a thousand terms that round one after another: 1e-8 and its tail
             */
            assert_true(fabs((double)y[(group * ROWS + i) * GRAM_VECTORS + lane] - product[i]) <
                        1e-7);
        }
        for (int k = 0; k < COLUMNS; k++) {
            sum = 0;
            for (int i = 0; i < ROWS; i++) {
                sum += (double)w[i * COLUMNS + k] * product[i];
            }
            assert_true(fabs((double)z[(group * COLUMNS + k) * GRAM_VECTORS + lane] - sum) < 1e-8);
        }
    }
    free(w);
    free(x);
    free(y);
    free(z);
    free(scratch);
}

static void weights_of_trained_models_agree_with_lapack(void **state)
{
    (void)state;
    const char *const names[] = {"data/models/stories260k", "data/models/babyllama-105"};
    for (int m = 0; m < 2; m++) {
        char folder[4096], path[5000];
        ModelConfig config;
        SafeTensors *file;
        shared_path(folder, names[m]);
        snprintf(path, sizeof path, "%s/model.safetensors", folder);
        tiny_require(model_config_read(&config, folder, &error), &error);
        tiny_require(safetensors_open(&file, path, &error), &error);
        for (int layer = 0; layer < config.n_layers; layer += 2) {
            for (int role = 0; role < N_ROLES; role++) {
                char name[96], full[128];
                int n_out, n_in;
                module_name(name, layer, (Role)role);
                snprintf(full, sizeof full, "%s.weight", name);
                role_shape(&config, (Role)role, &n_out, &n_in);
                const Tensor *tensor = safetensors_find(file, full);
                float *w = malloc((size_t)n_out * n_in * sizeof *w);
                tensor_to_f32(w, tensor->data, tensor->type, (size_t)n_out * n_in);
                check_against_lapack(w, n_out, n_in, 2);
                free(w);
            }
        }
        safetensors_close(file);
    }
}

/* u, v are orthonormal sets and W = U S V^T to single precision. */
static void check_whole(const float *w, int n_out, int n_in, int rank)
{
    Factors f = compute(w, n_out, n_in, rank);
    for (int a = 0; a < rank; a++) {
        for (int b = 0; b < rank; b++) {
            double uu = 0, vv = 0;
            for (int i = 0; i < n_out; i++) {
                uu += (double)f.u[(size_t)a * n_out + i] * (double)f.u[(size_t)b * n_out + i];
            }
            for (int i = 0; i < n_in; i++) {
                vv += (double)f.v[(size_t)a * n_in + i] * (double)f.v[(size_t)b * n_in + i];
            }
            assert_true(fabs(uu - (a == b)) < 1e-5 && fabs(vv - (a == b)) < 1e-5);
        }
    }
    for (int i = 0; i < n_out; i++) {
        for (int k = 0; k < n_in; k++) {
            double sum = 0;
            for (int j = 0; j < rank; j++) {
                sum += (double)f.u[(size_t)j * n_out + i] * (double)f.s[j] *
                       (double)f.v[(size_t)j * n_in + k];
            }
            assert_true(fabs(sum - (double)w[(size_t)i * n_in + k]) < 1e-5);
        }
    }
    factors_release(&f);
}

static void matrices_of_low_or_full_rank_are_factored_whole(void **state)
{
    (void)state;
    const int shapes[][2] = {{20, 31}, {220, 157}};
    for (int s = 0; s < 2; s++) {
        int n_out = shapes[s][0], n_in = shapes[s][1];
        float *w = calloc((size_t)n_out * n_in, sizeof *w);
        check_whole(w, n_out, n_in, 3); /* zero */
        w[n_in + 4] = -0.5f;
        check_whole(w, n_out, n_in, 3); /* a single number */
        for (int i = 0; i < n_out; i++) {
            for (int k = 0; k < n_in; k++) {
                w[(size_t)i * n_in + k] =
                    (float)(sin(i + 1) * cos(3 * k) * 0.01 + sin(5 * i) * cos(k * k) * 0.003);
            }
        }
        check_whole(w, n_out, n_in, 2); /* rank 2 exactly */
        check_whole(w, n_out, n_in, 5); /* and three zeros */
        free(w);
    }
    float *square = random_matrix(9, 9, 0);
    check_whole(square, 9, 9, 9);
    free(square);
    /* All singular values equal: any directions are right, and the iteration ends. */
    float *identity = calloc(300 * 300, sizeof *identity);
    for (int i = 0; i < 300; i++) {
        identity[i * 301] = 2;
    }
    Factors f = compute(identity, 300, 300, 2);
    assert_true(fabsf(f.s[0] - 2) < 1e-5f && fabsf(f.s[1] - 2) < 1e-5f);
    factors_release(&f);
    free(identity);
}

static void impossible_matrices_are_refused(void **state)
{
    (void)state;
    float w[6] = {1, 2, 3, 4, INFINITY, 6};
    Factors f;
    Weight two = {w, TENSOR_F32, 2, 3};
    assert_int_equal(factors_compute(&f, &two, 3, 0, NULL, &error), STATUS_USAGE);
    assert_string_equal(error.message, "rank 3 of a 2 x 3 matrix: from 1 to 2 are possible");
    assert_int_equal(factors_compute(&f, &two, 0, 0, NULL, &error), STATUS_USAGE);
    assert_int_equal(factors_compute(&f, &two, 1, 0, NULL, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "weight (1, 1) is infinite or not a number");
}

/* -- a model's factors and their cache --------------------------------------------------------- */

static Model *model;
static Module modules[64];
static int n_modules;
static char cache[256];

static int open_model(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    config.width = 120; /* wide enough to need the iteration */
    config.ff_width = 131;
    config.n_heads = config.n_kv_heads = 15;
    model = tiny_model_open(&config, 5);
    n_modules = plan_modules(modules, &config, (1 << N_ROLES) - 1);
    snprintf(cache, sizeof cache, "/tmp/factors-%ld", (long)getpid());
    return 0;
}

/* The paths of the cache's files in `paths` (at most 64); returns how many. */
static int list_cache(char paths[64][512])
{
    int n = 0;
    DIR *directory = opendir(cache);
    for (struct dirent *entry; directory && n < 64 && (entry = readdir(directory));) {
        if (entry->d_name[0] != '.') {
            snprintf(paths[n++], 512, "%s/%s", cache, entry->d_name);
        }
    }
    if (directory) {
        closedir(directory);
    }
    return n;
}

static void clear_cache(void)
{
    char paths[64][512];
    for (int n = list_cache(paths); n > 0; n--) {
        unlink(paths[n - 1]);
    }
}

static int close_model(void **state)
{
    (void)state;
    clear_cache();
    rmdir(cache);
    model_free(model);
    return 0;
}

static void count_progress(void *context, int done, int total)
{
    int *calls = context;
    assert_int_equal(total, n_modules);
    assert_int_equal(done, ++*calls);
}

static void open_all(Factors *f, int n_threads, const char *directory)
{
    int calls = 0;
    tiny_require(factors_open(f, model, modules, n_modules, 2, n_threads, directory, count_progress,
                              &calls, &error),
                 &error);
    assert_int_equal(calls, n_modules);
}

static void assert_same(const Factors *a, const Factors *b)
{
    for (int i = 0; i < n_modules; i++) {
        assert_memory_equal(a[i].u, b[i].u, (size_t)a[i].rank * a[i].n_out * sizeof(float));
        assert_memory_equal(a[i].s, b[i].s, (size_t)a[i].rank * sizeof(float));
        assert_memory_equal(a[i].v, b[i].v, (size_t)a[i].rank * a[i].n_in * sizeof(float));
    }
}

static void release_all(Factors *f)
{
    for (int i = 0; i < n_modules; i++) {
        factors_release(&f[i]);
    }
}

static void factors_have_the_same_bits_for_any_threads_and_from_the_cache(void **state)
{
    (void)state;
    Factors plain[64], again[64];
    char paths[64][512];
    open_all(plain, 1, NULL);
    clear_cache();
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        open_all(again, n_threads, cache); /* made, then read */
        assert_same(plain, again);
        release_all(again);
        assert_int_equal(list_cache(paths), n_modules);
    }
    release_all(plain);
}

static void damaged_cache_files_are_computed_anew(void **state)
{
    (void)state;
    Factors plain[64], again[64];
    char paths[64][512], *bytes;
    size_t n;
    open_all(plain, 1, cache);
    assert_int_equal(list_cache(paths), n_modules);
    for (int i = 0; i < n_modules; i++) {
        tiny_require(file_read(&bytes, &n, paths[i], 1 << 22, &error), &error);
        size_t size = i % 4 == 0 ? n / 2 : i % 4 == 1 ? n - 1 : n;
        if (i % 4 == 2) {
            bytes[n / 2] ^= 4;
        } else if (i % 4 == 3) {
            bytes[3] ^= 1; /* the key */
        }
        tiny_require(file_write(paths[i], bytes, size, &error), &error);
        free(bytes);
    }
    open_all(again, 2, cache);
    assert_same(plain, again);
    release_all(again);
    /* They were repaired: one more byte at the end is damage as well. */
    tiny_require(file_read(&bytes, &n, paths[0], 1 << 22, &error), &error);
    tiny_require(file_write(paths[0], bytes, n + 1, &error), &error);
    free(bytes);
    open_all(again, 1, cache);
    assert_same(plain, again);
    release_all(again);
    release_all(plain);
}

static void the_cache_is_read_and_its_key_knows_model_and_rank(void **state)
{
    (void)state;
    Factors f[64];
    char paths[64][512], *bytes;
    size_t n;
    clear_cache();
    tiny_require(factors_open(f, model, modules, 1, 2, 1, cache, NULL, NULL, &error), &error);
    factors_release(f);
    assert_int_equal(list_cache(paths), 1);
    /* A file with another first number of u and a right checksum is believed: it was read. */
    tiny_require(file_read(&bytes, &n, paths[0], 1 << 22, &error), &error);
    const float planted = 0.4375f;
    memcpy(strchr(bytes, '\n') + 1, &planted, sizeof planted);
    char hash[SHA256_HEX_SIZE];
    sha256_bytes(hash, bytes, n - (SHA256_HEX_SIZE - 1));
    memcpy(bytes + n - (SHA256_HEX_SIZE - 1), hash, SHA256_HEX_SIZE - 1);
    tiny_require(file_write(paths[0], bytes, n, &error), &error);
    free(bytes);
    tiny_require(factors_open(f, model, modules, 1, 2, 1, cache, NULL, NULL, &error), &error);
    assert_true(f[0].u[0] == planted);
    factors_release(f);
    /* Another rank and another model's hash have files of their own. */
    tiny_require(factors_open(f, model, modules, 1, 3, 1, cache, NULL, NULL, &error), &error);
    assert_true(f[0].rank == 3 && f[0].u[0] != planted);
    factors_release(f);
    Model *other = tiny_model_open(&model->config, 6);
    tiny_require(factors_open(f, other, modules, 1, 2, 1, cache, NULL, NULL, &error), &error);
    assert_true(f[0].u[0] != planted);
    factors_release(f);
    model_free(other);
    assert_int_equal(list_cache(paths), 3);
}

static void a_cache_that_cannot_be_written_is_no_error(void **state)
{
    (void)state;
    Factors f[64];
    tiny_require(factors_open(f, model, modules, 1, 2, 1, "/proc/no/such", NULL, NULL, &error),
                 &error);
    factors_release(f);
}

static void the_failing_module_is_named(void **state)
{
    (void)state;
    Factors f[64];
    assert_int_equal(factors_open(f, model, modules, n_modules, 121, 2, NULL, NULL, NULL, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, "module \"model.layers.0.self_attn.q_proj\": rank 121 of a "
                                       "120 x 120 matrix: from 1 to 120 are possible");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_matrices_agree_with_lapack),
        cmocka_unit_test(slow_decay_and_near_ties_agree_with_lapack),
        cmocka_unit_test(tiny_and_huge_weights_agree_with_lapack),
        cmocka_unit_test(types_and_places_do_not_matter),
        cmocka_unit_test(a_decomposition_stops_between_products),
        cmocka_unit_test(the_product_is_that_of_double_precision),
        cmocka_unit_test(weights_of_trained_models_agree_with_lapack),
        cmocka_unit_test(matrices_of_low_or_full_rank_are_factored_whole),
        cmocka_unit_test(impossible_matrices_are_refused),
        cmocka_unit_test(factors_have_the_same_bits_for_any_threads_and_from_the_cache),
        cmocka_unit_test(damaged_cache_files_are_computed_anew),
        cmocka_unit_test(the_cache_is_read_and_its_key_knows_model_and_rank),
        cmocka_unit_test(a_cache_that_cannot_be_written_is_no_error),
        cmocka_unit_test(the_failing_module_is_named),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
